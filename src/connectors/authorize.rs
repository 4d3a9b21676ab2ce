//! The ways in that a person can take in a browser: the app's own consent page (OAuth 2 with the authorization code,
//! RFC 6749 section 4.1, and PKCE, RFC 7636), and what to ask for where there is none; and the way back (revocation).
//!
//! Always true: the code and the client's secret go only to the token address of the connector's spec; what the redirect
//! carries is taken only by the names that the spec lists. Not here: who is asked, the state that binds a redirect to a
//! browser (`api::connect`), renewing (`connectors::refresh`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use url::Url;

use super::auth_files::{AuthFile, OAuth2File, RevokeMethod};
use super::caller::{Caller, Outgoing};
use super::mapping::Env;
use super::refresh::{address, ask_token, client_id, missing, read_token, with_client};
use super::spec::Connector;
use super::{CallError, Credentials, Parameters, Session, auth};
use crate::clock::Clock;
use crate::domain::secret::Secret;
use crate::outbound::{self, Method};

/// Where to send a person.
#[derive(Debug)]
pub struct Consent {
    pub address: Url,
    /// What the code is asked for with, where the app takes PKCE.
    pub verifier: Option<Secret>,
}

/// What came back from the app's consent page.
#[derive(Clone, Debug)]
pub struct Code {
    pub code: Secret,
    /// Exactly as it was given when the person was sent.
    pub redirect_uri: String,
    pub verifier: Option<Secret>,
    /// The redirect's query, decoded.
    pub redirect: Vec<(String, String)>,
}

/// An account that was opened.
#[derive(Debug)]
pub struct Granted {
    pub credentials: Credentials,
    /// Parameters of the connection that the app told.
    pub parameters: Parameters,
}

impl Connector {
    pub(super) fn consents(&self) -> Option<&OAuth2File> {
        self.auth.iter().find_map(|way| match way {
            AuthFile::Oauth2(file) if file.authorizes() => Some(&**file),
            _ => None,
        })
    }

    /// Where the app asks the person. `parameters` are all that are known, with defaults; `state` binds the redirect.
    /// The error is one sentence.
    pub fn consent(&self, parameters: &Parameters, redirect_uri: &str, state: &str) -> Result<Consent, String> {
        let file = self.consents().ok_or_else(|| format!("{} has no consent page", self.name))?;
        let whole = Value::Object(parameters.clone());
        let base = self.base_value(parameters);
        let variables = [("parameters", &whole), ("baseUri", &base)];
        let env = Env::of(&variables);
        let told = |error: CallError| error.to_string();
        let template = file.authorize_url.as_ref().ok_or("the connector names no consent page")?;
        let mut address = address(template, &env, "auth.oauth2.authorizeUrl").map_err(told)?;
        if !matches!(address.scheme(), "https" | "http") {
            return Err("the address of the app's consent page is no web address".to_owned());
        }
        let id = client_id(file, &env).map_err(told)?;
        let verifier = file.binds_code(&env)?.then(verifier).transpose()?;
        let scope = file.scope(&env);
        let mut query = address.query_pairs_mut();
        query.append_pair("response_type", "code").append_pair("client_id", &id);
        query.append_pair("redirect_uri", redirect_uri).append_pair("state", state);
        if !scope.is_empty() {
            query.append_pair("scope", &scope);
        }
        if let Some(verifier) = &verifier {
            query.append_pair("code_challenge", &challenge(verifier)).append_pair("code_challenge_method", "S256");
        }
        for (name, value) in &file.authorize.0 {
            if let Some(value) = value.render(&env) {
                query.append_pair(name, &value);
            }
        }
        drop(query);
        Ok(Consent { address, verifier })
    }

    /// The base URI as templates see it; null as long as it is not known.
    pub(super) fn base_value(&self, parameters: &Parameters) -> Value {
        let base = self.base_uri.choose(parameters).ok();
        base.map_or(Value::Null, |base| Value::from(base.as_str().trim_end_matches('/')))
    }

    /// Whether a deleted connection's token can be taken back.
    pub fn revokes(&self, credentials: &Credentials) -> bool {
        matches!(credentials, Credentials::Token(_)) && self.revocation(credentials).is_some()
    }

    fn revocation(&self, credentials: &Credentials) -> Option<&OAuth2File> {
        let refreshes = credentials.token().is_some_and(|token| token.refresh_token.is_some());
        if !refreshes && self.auth.iter().any(|way| matches!(way, AuthFile::Bearer(_))) {
            // A token that a person made in the app is not ours to take back.
            return None;
        }
        match auth::choose(&self.auth, credentials, None) {
            Some(AuthFile::Oauth2(file)) if file.revoke.is_some() => Some(file),
            _ => None,
        }
    }

    pub(super) fn oauth2s(&self) -> impl Iterator<Item = &OAuth2File> {
        self.auth.iter().filter_map(|way| match way {
            AuthFile::Oauth2(file) => Some(&**file),
            _ => None,
        })
    }

    /// Where an account is that these credentials open. The error is one sentence.
    pub fn address(&self, parameters: &Parameters, credentials: &Credentials) -> Result<Url, String> {
        let whole = Value::Object(parameters.clone());
        let variables = [("parameters", &whole)];
        let env = Env::of(&variables);
        let at = match auth::choose(&self.auth, credentials, Some(&env)) {
            Some(AuthFile::Oauth2(file)) => file.at.as_ref(),
            _ => None,
        };
        let Some(at) = at else { return self.base_uri.choose(parameters) };
        let text = at.render_url(&env).ok_or("the address of the account needs a parameter that is not set")?;
        let fixed = Map::from_iter([("baseUri".to_owned(), Value::from(text))]);
        self.base_uri.choose(&fixed)
    }
}

/// Exchanges a code for credentials. `parameters` are all that are known, with defaults. The call belongs on the runtime
/// of `client`.
///
/// # Errors
/// `Unauthorized`: the app refuses the code or the client; everything else is the app's failure.
pub async fn exchange(
    connector: Arc<Connector>,
    mut parameters: Parameters,
    code: Code,
    client: outbound::Client,
    clock: Clock,
) -> Result<Granted, CallError> {
    let mut told = Parameters::new();
    let file = connector.consents().ok_or_else(|| CallError::NotSupported("a consent page".to_owned()))?.clone();
    if let Some(signature) = &file.redirect_signature {
        let whole = Value::Object(parameters.clone());
        signature.check(&code.redirect, &Env::of(&[("parameters", &whole)]))?;
    }
    for (parameter, name) in &file.from_redirect.0 {
        let found = code.redirect.iter().find(|(n, value)| n == name && !value.is_empty());
        let (_, value) =
            found.ok_or_else(|| CallError::BadAnswer(format!("the redirect of the app does not carry {name}")))?;
        told.insert(parameter.clone(), value.as_str().into());
    }
    connector.parameters.check_part(&told).map_err(CallError::BadAnswer)?;
    parameters.extend(told.clone());
    let base = base_or_token(&connector, &parameters, &file)?;
    let caller = Caller::elsewhere(connector, parameters, base, client, clock);
    let mut form: Vec<(String, String)> = [
        ("grant_type", "authorization_code"),
        ("code", code.code.expose()),
        ("redirect_uri", code.redirect_uri.as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    if let Some(verifier) = &code.verifier {
        form.push(("code_verifier".to_owned(), verifier.expose().to_owned()));
    }
    let sent_at = caller.clock.now();
    let answer = ask_token(&caller, &file, form).await?;
    let token = read_token(&answer, sent_at)?;
    told.extend(from_answer(&file, answer)?);
    Ok(Granted { credentials: Credentials::Token(token), parameters: told })
}

/// The account's base where it is known, else the token address, so that `{{baseUri}}` has a value only where it is true.
fn base_or_token(connector: &Connector, parameters: &Parameters, file: &OAuth2File) -> Result<Url, CallError> {
    if let Ok(base) = connector.base_uri.choose(parameters) {
        return Ok(base);
    }
    let whole = Value::Object(parameters.clone());
    let variables = [("parameters", &whole)];
    address(&file.token_url, &Env::of(&variables), "auth.oauth2.tokenUrl")
}

fn from_answer(file: &OAuth2File, answer: Map<String, Value>) -> Result<Parameters, CallError> {
    let answer = Value::Object(answer);
    let found = file.from_answer.0.iter().map(|(parameter, path)| {
        let value = path.find(&answer).filter(|value| !value.is_null());
        let value = value.ok_or_else(|| CallError::BadAnswer(format!("the token answer does not carry {path}")))?;
        Ok((parameter.clone(), value.clone()))
    });
    found.collect()
}

impl Session {
    /// Takes the token back at the app, where the connector says how. A token that the app does not know any more is
    /// taken back already.
    ///
    /// # Errors
    /// The app's failure.
    pub async fn revoke(&self) -> Result<(), CallError> {
        let credentials = self.credentials();
        let Some(file) = self.caller.connector.revocation(&credentials) else { return Ok(()) };
        let (Some(revoke), Some(token)) = (&file.revoke, credentials.token()) else { return Ok(()) };
        let secret = auth::as_variable(&credentials);
        let mut variables = self.caller.variables();
        variables.push(("credentials", &secret));
        let env = Env::of(&variables);
        let method = match revoke.method {
            RevokeMethod::Post => Method::POST,
            RevokeMethod::Delete => Method::DELETE,
        };
        let done = match (&revoke.url, &revoke.path) {
            (Some(url), _) => {
                let url = address(url, &env, "auth.oauth2.revoke.url")?;
                let outgoing = match revoke.method {
                    RevokeMethod::Delete => Outgoing::new(method, String::new()),
                    RevokeMethod::Post => {
                        let (hint, text) = match &token.refresh_token {
                            Some(refresh) => ("refresh_token", refresh.expose()),
                            None => ("access_token", token.access_token.expose()),
                        };
                        let form = [("token", text), ("token_type_hint", hint)];
                        let form = form.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
                        with_client(file, &env, form, self.caller.clock.wall())?
                    }
                };
                self.caller.call_elsewhere(outgoing, url).await
            }
            (None, Some(path)) => {
                let path = path.render_path(&env).ok_or_else(|| missing("auth.oauth2.revoke.path"))?;
                self.caller.call(Outgoing::new(method, path)).await
            }
            (None, None) => return Ok(()),
        };
        match done {
            Ok(_) => Ok(()),
            Err(failure) if failure.gone => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }
}

/// A fresh code verifier: 32 random bytes as 43 characters (RFC 7636, section 4.1).
fn verifier() -> Result<Secret, String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// The S256 challenge of a verifier.
fn challenge(verifier: &Secret) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(digest.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_rfc_7636_appendix_b() {
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
