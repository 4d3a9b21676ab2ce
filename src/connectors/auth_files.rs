//! `auth:` of `spec.yml`, as serde types.

use serde::{Deserialize, Deserializer};

use super::files::{Pairs, Span, ordered};
use super::jwt::JwtFile;
use super::mapping::Env;
use super::mapping::path::Path;
use super::redirect::SignatureFile;
use super::template::Template;
use super::yaml::Placed;

/// One way to open an account. The first that fits the kind of the credentials is used.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
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

#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BearerFile {
    /// `Authorization` where it is not said.
    pub header: Option<Template>,
    /// `Bearer` where it is not said; empty for none.
    pub scheme: Option<Template>,
}

#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyFile {
    pub header: Option<Template>,
    pub query: Option<Template>,
    /// Before the key, e.g. `Token `.
    pub prefix: Option<Template>,
}

#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LoginFile {
    pub path: Template,
    /// An expression over `$credentials` and `$parameters`.
    #[schemars(with = "super::schemas::Expression")]
    pub body: Placed,
    /// Where the token is in the answer; `$` for an answer that is the token.
    pub token: Path,
    /// Where the answer says how many seconds it lives.
    pub expires_in: Option<Path>,
    /// How long it lives where the answer does not say.
    pub lifetime: Option<Span>,
}

#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth1File {
    pub realm: Option<Template>,
}

#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OAuth2File {
    pub token_url: Template,
    /// Where a person is sent to allow it.
    pub authorize_url: Option<Template>,
    /// Further query parameters of that address.
    #[serde(default)]
    pub authorize: Pairs,
    /// Whether the code is bound to a secret of ours (RFC 7636): `S256` where it is not said, or `none`; may be a hole.
    pub pkce: Option<Template>,
    /// How the app signs the query with which it sends people back.
    pub redirect_signature: Option<SignatureFile>,
    /// The header that the token is sent in; `Authorization` where it is not said.
    pub header: Option<Template>,
    /// `Bearer` where it is not said; empty for none.
    pub scheme: Option<Template>,
    /// Whether people are offered this way at the connect page; the API takes it in any case.
    #[serde(default = "yes")]
    pub connect_page: bool,
    #[serde(default)]
    pub scopes: Vec<Template>,
    /// A space where it is not said (RFC 6749, section 3.3); some apps take commas.
    pub scope_separator: Option<String>,
    /// Parameters of the connection that the redirect back carries: parameter to name in its query.
    #[serde(default)]
    pub from_redirect: Names,
    /// Parameters of the connection that the answer with the token carries: parameter to path.
    #[serde(default)]
    pub from_answer: Paths,
    /// How the token is taken back when the connection is deleted.
    pub revoke: Option<RevokeFile>,
    #[serde(default)]
    pub grants: Vec<Grant>,
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// What the client says who it is with, for `clientAuth: assertion`.
    pub assertion: Option<JwtFile>,
    /// What a token is asked for with, for the grant `jwt-bearer`.
    pub jwt: Option<JwtFile>,
    /// Where an account is that is opened in this way, whatever `baseUri` says: for clients of the integration's own,
    /// whose token must go nowhere that an end user names.
    pub at: Option<Template>,
    /// `{{parameters.clientId}}` where it is not said.
    pub client_id: Option<Template>,
    /// `{{parameters.clientSecret}}` where it is not said.
    pub client_secret: Option<Template>,
    /// Further form fields of the token request.
    #[serde(default)]
    pub form: Pairs,
}

fn yes() -> bool {
    true
}

impl OAuth2File {
    /// Whether a person can be sent to the app to allow it.
    pub fn authorizes(&self) -> bool {
        self.authorize_url.is_some() && self.allows(Grant::AuthorizationCode)
    }
    /// Whether the code is bound to a secret of ours. The error is one sentence.
    pub fn binds_code(&self, env: &Env<'_>) -> Result<bool, String> {
        match self.pkce.as_ref().map(|pkce| pkce.render(env)) {
            None => Ok(true),
            Some(Some(said)) if said == "S256" => Ok(true),
            // For apps that refuse parameters they do not know.
            Some(Some(said)) if said == "none" => Ok(false),
            Some(said) => Err(format!("pkce is S256 or none, not {:?}", said.unwrap_or_default())),
        }
    }
    /// The parameters that the flow itself brings.
    pub fn brings(&self) -> impl Iterator<Item = &str> {
        let redirect = self.from_redirect.0.iter().map(|(name, _)| name.as_str());
        redirect.chain(self.from_answer.0.iter().map(|(name, _)| name.as_str()))
    }
    /// How its tokens are sent.
    pub fn bearer(&self) -> BearerFile {
        BearerFile { header: self.header.clone(), scheme: self.scheme.clone() }
    }
    /// Whether a token may be asked for in that way; where nothing is said, in any.
    pub fn allows(&self, grant: Grant) -> bool {
        self.grants.is_empty() || self.grants.contains(&grant)
    }
    /// Whether the integration's own client can open an account in this way, as far as it is set up.
    pub fn opens_by_itself(&self) -> bool {
        self.allows(Grant::ClientCredentials) || self.bears_jwt()
    }
    /// Whether a signed token is exchanged for a token.
    pub fn bears_jwt(&self) -> bool {
        self.jwt.is_some() && self.allows(Grant::JwtBearer)
    }
    /// The scopes as one text; empty for none.
    pub fn scope(&self, env: &Env<'_>) -> String {
        let scopes: Vec<String> = self.scopes.iter().filter_map(|scope| scope.render(env)).collect();
        scopes.join(self.scope_separator.as_deref().unwrap_or(" "))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    AuthorizationCode,
    RefreshToken,
    ClientCredentials,
    /// A signed token for a token (RFC 7523, section 2.1), on behalf of the subject.
    JwtBearer,
}

/// Names and names, in the file's order.
#[derive(Clone, Debug, Default)]
pub struct Names(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ordered(deserializer).map(Self)
    }
}

/// Names and paths, in the file's order.
#[derive(Clone, Debug, Default)]
pub struct Paths(pub Vec<(String, Path)>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ordered(deserializer).map(Self)
    }
}

/// A request that makes the token worthless: to `url` (RFC 7009 unless the method says otherwise), or to a `path` of the
/// account's own API, with its credentials.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeFile {
    pub url: Option<Template>,
    pub path: Option<Template>,
    #[serde(default)]
    pub method: RevokeMethod,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
pub enum RevokeMethod {
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "DELETE")]
    Delete,
}

/// Where the token request carries the client's id and secret (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    #[default]
    Body,
    Basic,
    /// A signed token in place of a secret (RFC 7523, section 2.2).
    Assertion,
}
