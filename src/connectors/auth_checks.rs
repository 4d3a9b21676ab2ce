//! What can be wrong with `auth:` of `spec.yml`, across its parts.
//!
//! Always true: whoever is sent to an app's consent page is sent there by a flow that can be finished. Not here: the flow
//! itself (`connectors::authorize`).

use serde_json::Value;

use super::auth_files::{ClientAuth, Grant, OAuth2File};
use super::jwt::JwtFile;
use super::mapping::Env;
use super::mapping::path::{Path, Step};
use super::spec::Connector;

/// Query parameters that the flow itself sets.
const OURS: &[&str] = &[
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "client_secret",
];

impl Connector {
    /// What is wrong with `auth`: the field and a sentence.
    pub(super) fn wrong_auth(&self) -> Option<(&'static str, String)> {
        self.oauth2s().find_map(|file| self.wrong_oauth2(file).or_else(|| wrong_jwt(file)))
    }

    /// What is wrong with `pkce`: it must come to one of its two words, whatever an integration gives.
    fn wrong_pkce(&self, file: &OAuth2File) -> Option<String> {
        let defaults = Value::Object(self.parameters.defaults());
        let is_free = |hole: &Path| match hole.steps.as_slice() {
            [Step::Key(name)] => self.parameters.property(name).is_none_or(|property| {
                property.choices().is_empty()
                    || property.choices().iter().any(|word| !matches!(word.as_str(), "S256" | "none"))
            }),
            _ => true,
        };
        let is_free = file.pkce.as_ref().is_some_and(|pkce| pkce.holes().any(is_free));
        let wrong = file.binds_code(&Env::of(&[("parameters", &defaults)])).err();
        wrong.or_else(|| is_free.then(|| "a hole in it is a parameter with `enum: [S256, none]`".to_owned()))
    }

    fn wrong_oauth2(&self, file: &OAuth2File) -> Option<(&'static str, String)> {
        if file.grants.contains(&Grant::AuthorizationCode) && file.authorize_url.is_none() {
            return Some(("auth.oauth2.authorizeUrl", "the grant authorization-code needs it".to_owned()));
        }
        if file.authorize_url.is_some() && !file.allows(Grant::AuthorizationCode) {
            return Some(("auth.oauth2.grants", "authorizeUrl needs authorization-code among them".to_owned()));
        }
        if let Some(name) = file.brings().find(|name| self.parameters.property(name).is_none()) {
            let message = format!("{name:?} is not among the parameters");
            let redirected = file.from_redirect.0.iter().any(|(n, _)| n == name);
            return Some((if redirected { "auth.oauth2.fromRedirect" } else { "auth.oauth2.fromAnswer" }, message));
        }
        if let Some((name, _)) = file.authorize.0.iter().find(|(name, _)| OURS.contains(&name.as_str())) {
            return Some(("auth.oauth2.authorize", format!("{name:?} is set by the flow itself")));
        }
        if let Some(wrong) = self.wrong_pkce(file) {
            return Some(("auth.oauth2.pkce", wrong));
        }
        let revoke = file.revoke.as_ref()?;
        (revoke.url.is_some() == revoke.path.is_some())
            .then(|| ("auth.oauth2.revoke", "give either url or path".to_owned()))
    }
}

/// What is wrong with signed tokens: the field and a sentence.
fn wrong_jwt(file: &OAuth2File) -> Option<(&'static str, String)> {
    if file.client_auth == ClientAuth::Assertion && file.assertion.is_none() {
        return Some(("auth.oauth2.assertion", "clientAuth: assertion needs it".to_owned()));
    }
    if file.grants.contains(&Grant::JwtBearer) && file.jwt.is_none() {
        return Some(("auth.oauth2.jwt", "the grant jwt-bearer needs it".to_owned()));
    }
    let wrong = |part: &Option<JwtFile>| part.as_ref().and_then(JwtFile::fault);
    let assertion = wrong(&file.assertion).map(|(_, message)| ("auth.oauth2.assertion.claims", message));
    assertion.or_else(|| wrong(&file.jwt).map(|(_, message)| ("auth.oauth2.jwt.claims", message)))
}
