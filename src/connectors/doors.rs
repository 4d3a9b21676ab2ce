//! The ways in that a person is offered at the connect page, and what each asks of the person.
//!
//! Always true: what the integration brings, or only the integration may set, is asked of nobody. Not here: what the page
//! looks like (`api::connect`), the consent page of an app (`connectors::authorize`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::Parameters;
use super::auth_files::{AuthFile, ClientAuth, Grant, OAuth2File};
use super::mapping::Env;
use super::refresh::is_set_up;
use super::schema::GivenBy;
use super::spec::Connector;
use super::template::Template;

/// A way in, as a person meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The app's own consent page.
    Consent,
    ApiKey,
    /// A token that the person made in the app.
    Token,
    Login,
    OAuth1,
    /// Nothing but parameters to give: the app needs no credentials, or a client opens it, the integration's own or one
    /// that the person has made at the app.
    Open,
}

impl Door {
    /// The word for it in forms.
    pub fn word(self) -> &'static str {
        match self {
            Self::Consent => "oauth2",
            Self::ApiKey => "apiKey",
            Self::Token => "token",
            Self::Login => "login",
            Self::OAuth1 => "oauth1",
            Self::Open => "open",
        }
    }
}

impl Connector {
    /// The ways in, in the connector's order. `parameters` are the integration's, with defaults.
    pub fn doors(&self, parameters: &Parameters) -> Vec<Door> {
        let whole = Value::Object(parameters.clone());
        let base = self.base_value(parameters);
        let variables = [("parameters", &whole), ("baseUri", &base)];
        let env = Env::of(&variables);
        let mut doors = Vec::new();
        for way in &self.auth {
            let found = match way {
                AuthFile::None => vec![Door::Open],
                AuthFile::Bearer(_) => vec![Door::Token],
                AuthFile::ApiKey(_) => vec![Door::ApiKey],
                AuthFile::Basic | AuthFile::Login(_) => vec![Door::Login],
                AuthFile::Oauth1(_) => vec![Door::OAuth1],
                AuthFile::Oauth2(file) if !file.connect_page => Vec::new(),
                AuthFile::Oauth2(file) => {
                    let consent = (file.authorizes() && is_set_up(file, &env)).then_some(Door::Consent);
                    // Where nothing is said of grants, the consent page is what the app means.
                    let is_meant = !(file.grants.is_empty() && file.authorizes());
                    let own = (is_meant && self.client_opens(file, parameters, &env)).then_some(Door::Open);
                    consent.into_iter().chain(own).collect()
                }
            };
            doors.extend(found.into_iter().filter(|door| !doors.contains(door)).collect::<Vec<_>>());
        }
        doors
    }

    /// Whether that way in brings this parameter, so that nobody need be asked for it.
    pub fn door_brings(&self, door: Door, parameter: &str) -> bool {
        match door {
            Door::Consent => self
                .consents()
                .is_some_and(|file| file.brings().any(|name| name == parameter) && !self.leads_by(file, parameter)),
            Door::Open => parameter == "baseUri" && self.oauth2s().any(|file| file.at.is_some()),
            Door::ApiKey | Door::Token | Door::Login | Door::OAuth1 => false,
        }
    }

    /// Whether the way to the consent page depends on this parameter.
    fn leads_by(&self, file: &OAuth2File, parameter: &str) -> bool {
        let url = file.authorize_url.as_ref();
        let base = self.base_uri.default.as_ref().filter(|_| url.is_some_and(|url| url.uses("baseUri")));
        [url, base].into_iter().flatten().any(|template| template.uses_parameter(parameter))
    }

    /// Whether a client opens an account: the integration's own, or one that the person can name whole.
    fn client_opens(&self, file: &OAuth2File, known: &Parameters, env: &Env<'_>) -> bool {
        let (is_set_up, client, address) =
            (is_set_up(file, env), file.client_parameters(), file.token_url.render_url(env));
        let mut needed = BTreeSet::new();
        if address.is_none() {
            // What the integration knows of a client goes nowhere that a person names.
            let is_ours = is_set_up || client.iter().any(|name| known.contains_key(name));
            if is_ours && !self.has_fixed_host(&file.token_url) {
                return false;
            }
            needed.extend(self.leading(&file.token_url));
        }
        if !is_set_up {
            if !file.allows(Grant::ClientCredentials) {
                return false;
            }
            needed.extend(client);
        }
        let mut lacking = needed.iter().filter(|name| !known.contains_key(*name));
        file.opens_by_itself() && address.as_deref() != Some("") && lacking.all(|name| self.is_persons(name))
    }

    /// Whether nobody but the integration says at which host an address is.
    fn has_fixed_host(&self, address: &Template) -> bool {
        match address.begins_with() {
            None => true,
            Some("baseUri") => {
                let default = self.base_uri.default.as_ref();
                self.base_uri.given_by == GivenBy::Integration && default.is_some_and(|d| d.begins_with().is_none())
            }
            Some(_) => false,
        }
    }

    /// The parameters that an address is made of.
    fn leading(&self, address: &Template) -> BTreeSet<String> {
        let mut names = address.names("parameters");
        if address.uses("baseUri") {
            names.extend(match &self.base_uri.default {
                Some(default) => default.names("parameters"),
                None => BTreeSet::from(["baseUri".to_owned()]),
            });
        }
        names
    }

    /// Whether a parameter is a person's to give at the connect page. What nobody is said to give is asked for only where it
    /// cannot be left out.
    pub fn is_persons(&self, name: &str) -> bool {
        let Some(property) = self.parameters.property(name) else { return false };
        match property.given_by {
            Some(GivenBy::User) => true,
            Some(GivenBy::Integration) => false,
            None => self.needs(name),
        }
    }

    /// Whether a connection cannot be without it.
    pub fn needs(&self, name: &str) -> bool {
        match name {
            "baseUri" => self.base_uri.default.is_none(),
            _ => {
                let has_default = self.parameters.property(name).is_some_and(|property| property.default().is_some());
                self.parameters.requires(name) && !has_default
            }
        }
    }

    /// Whether a parameter is part of a client: it is asked for only where a client opens the account, and then it must be
    /// there.
    pub fn is_of_client(&self, name: &str) -> bool {
        let offered = self.oauth2s().filter(|file| file.connect_page && file.allows(Grant::ClientCredentials));
        offered.flat_map(OAuth2File::client_parameters).any(|known| known == name)
    }
}

impl OAuth2File {
    /// The parameters that the client is made of.
    fn client_parameters(&self) -> BTreeSet<String> {
        let of = |template: &Option<Template>, usual: &str| match template {
            Some(template) => template.names("parameters"),
            None => BTreeSet::from([usual.to_owned()]),
        };
        let mut names = of(&self.client_id, "clientId");
        match (self.client_auth, &self.assertion) {
            (ClientAuth::Assertion, Some(assertion)) => names.extend(assertion.names("parameters")),
            _ => names.extend(of(&self.client_secret, "clientSecret")),
        }
        names
    }
}
