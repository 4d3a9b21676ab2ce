//! `auth:` of `spec.yml`, as serde types.

use serde::Deserialize;

use super::files::{Pairs, Span};
use super::mapping::path::Path;
use super::template::Template;
use super::yaml::Placed;

/// One way to open an account. The first that fits the kind of the credentials is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum AuthFile {
    /// No credentials.
    None,
    /// `{accessToken}` in a header.
    Bearer(BearerFile),
    /// `{apiKey}` in a header or in the query.
    ApiKey(ApiKeyFile),
    /// `{username, password}` in each request.
    Basic,
    /// `{username, password}` for a token.
    Login(LoginFile),
    /// `{consumerKey, consumerSecret, token, tokenSecret}`: a signature in each request.
    Oauth1(OAuth1File),
    /// `{accessToken, refreshToken}`, or the integration's own client.
    Oauth2(Box<OAuth2File>),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BearerFile {
    /// `Authorization` where it is not said.
    pub header: Option<Template>,
    /// `Bearer` where it is not said; empty for none.
    pub scheme: Option<Template>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyFile {
    pub header: Option<Template>,
    pub query: Option<Template>,
    /// Before the key, e.g. `Token `.
    pub prefix: Option<Template>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LoginFile {
    pub path: Template,
    /// An expression over `$credentials` and `$parameters`.
    pub body: Placed,
    /// Where the token is in the answer; `$` for an answer that is the token.
    pub token: Path,
    /// Where the answer says how many seconds it lives.
    pub expires_in: Option<Path>,
    /// How long it lives where the answer does not say.
    pub lifetime: Option<Span>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth1File {
    pub realm: Option<Template>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OAuth2File {
    pub token_url: Template,
    /// Where a person is sent to allow it.
    #[expect(dead_code, reason = "part of the format; the connect page will send people there")]
    pub authorize_url: Option<Template>,
    #[serde(default)]
    pub scopes: Vec<Template>,
    #[serde(default)]
    pub grants: Vec<Grant>,
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// `{{parameters.clientId}}` where it is not said.
    pub client_id: Option<Template>,
    /// `{{parameters.clientSecret}}` where it is not said.
    pub client_secret: Option<Template>,
    /// Further form fields of the token request.
    #[serde(default)]
    pub form: Pairs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    AuthorizationCode,
    RefreshToken,
    ClientCredentials,
}

/// Where the token request carries the client's id and secret (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    #[default]
    Body,
    Basic,
}
