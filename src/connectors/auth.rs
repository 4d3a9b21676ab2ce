//! How credentials are sent with a request.
//!
//! Always true: which way fits is decided by the kind of the credentials, in the order of spec.yml; an expired or missing
//! token is an `Unauthorized` without a request. Not here: how a token is got (`connectors::refresh`).

use serde_json::Value;

use super::auth_files::{ApiKeyFile, AuthFile, BearerFile};
use super::caller::Outgoing;
use super::mapping::Env;
use super::oauth1::{self, Keys};
use super::{CallError, Credentials, Token};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;

/// A token this close to its end is not sent any more.
const SPARE_MS: u64 = 5_000;

/// The way that fits the credentials. With an environment, a client of the integration's own fits only where the address
/// it gets its token from is known.
pub fn choose<'a>(ways: &'a [AuthFile], credentials: &Credentials, env: Option<&Env<'_>>) -> Option<&'a AuthFile> {
    ways.iter().find(|way| {
        if let (AuthFile::Oauth2(file), Credentials::Integration { .. }) = (way, credentials)
            && (!file.opens_by_itself()
                || env.is_some_and(|env| file.token_url.render_url(env).is_none_or(|url| url.is_empty())))
        {
            return false;
        }
        matches!(
            (way, credentials),
            (AuthFile::None, Credentials::Integration { .. })
                | (AuthFile::Bearer(_), Credentials::Token(_))
                | (AuthFile::ApiKey(_), Credentials::ApiKey { .. })
                | (AuthFile::Basic | AuthFile::Login(_), Credentials::Login { .. })
                | (AuthFile::Oauth1(_), Credentials::OAuth1 { .. })
                | (AuthFile::Oauth2(_), Credentials::Token(_) | Credentials::Integration { .. })
        )
    })
}

/// A token that opens nothing.
pub fn any_token() -> Credentials {
    Credentials::Token(Token { access_token: Secret::new("none"), refresh_token: None, expires_at: None })
}

/// Credentials that fit the first way and open nothing: for answers that are played back.
pub fn any(ways: &[AuthFile]) -> Credentials {
    let secret = || Secret::new("none");
    let token = || Token { access_token: secret(), refresh_token: None, expires_at: None };
    match ways.first() {
        Some(AuthFile::Bearer(_) | AuthFile::Oauth2(_)) => any_token(),
        Some(AuthFile::ApiKey(_)) => Credentials::ApiKey { api_key: secret() },
        Some(AuthFile::Oauth1(_)) => Credentials::OAuth1 {
            consumer_key: "none".to_owned(),
            consumer_secret: secret(),
            token: "none".to_owned(),
            token_secret: secret(),
        },
        Some(AuthFile::Basic | AuthFile::Login(_)) => {
            Credentials::Login { username: "none".to_owned(), password: secret(), session: Some(token()) }
        }
        _ => Credentials::Integration { session: Some(token()) },
    }
}

/// The name of a way, as the API shows it.
pub fn name(way: &AuthFile) -> &'static str {
    match way {
        AuthFile::None => "none",
        AuthFile::Bearer(_) => "bearer",
        AuthFile::ApiKey(_) => "apiKey",
        AuthFile::Basic => "basic",
        AuthFile::Login(_) => "login",
        AuthFile::Oauth1(_) => "oauth1",
        AuthFile::Oauth2(_) => "oauth2",
    }
}

/// Adds the credentials to a request. OAuth 1 is left to [`sign`], which needs the finished address.
pub fn apply(
    way: &AuthFile,
    credentials: &Credentials,
    outgoing: &mut Outgoing,
    env: &Env<'_>,
    now: Millis,
) -> Result<(), CallError> {
    match (way, credentials) {
        (AuthFile::None | AuthFile::Oauth1(_), _) => {}
        (AuthFile::Bearer(file), _) => bearer(file, live(credentials.token(), now)?, outgoing, env),
        (AuthFile::Login(_), _) => bearer(&BearerFile::default(), live(credentials.token(), now)?, outgoing, env),
        (AuthFile::Oauth2(file), _) => bearer(&file.bearer(), live(credentials.token(), now)?, outgoing, env),
        (AuthFile::ApiKey(file), Credentials::ApiKey { api_key }) => {
            api_key_into(file, api_key.expose(), outgoing, env)?;
        }
        (AuthFile::Basic, Credentials::Login { username, password, .. }) => {
            outgoing.headers.push(("authorization".to_owned(), basic(username, password.expose())));
        }
        _ => {
            return Err(CallError::Unauthorized("the credentials are of another kind than the connector's".to_owned()));
        }
    }
    Ok(())
}

/// The header `Authorization` of OAuth 1, over the finished address.
pub fn sign(
    way: &AuthFile,
    credentials: &Credentials,
    method: &str,
    url: &url::Url,
    env: &Env<'_>,
    now: Millis,
) -> Result<Option<String>, CallError> {
    let (AuthFile::Oauth1(file), Credentials::OAuth1 { consumer_key, consumer_secret, token, token_secret }) =
        (way, credentials)
    else {
        return Ok(None);
    };
    let realm = file.realm.as_ref().and_then(|realm| realm.render(env));
    let keys =
        Keys { consumer_key, consumer_secret: consumer_secret.expose(), token, token_secret: token_secret.expose() };
    Ok(Some(oauth1::authorization(method, url, &keys, realm.as_deref(), &nonce()?, now.seconds())))
}

/// A nonce may not repeat, so it is drawn for each attempt.
fn nonce() -> Result<String, CallError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CallError::unavailable("no randomness for a nonce"))?;
    Ok(hex::encode(bytes))
}

/// `Basic …` of RFC 7617.
pub fn basic(username: &str, password: &str) -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    format!("Basic {pair}")
}

fn live(token: Option<&Token>, now: Millis) -> Result<&Token, CallError> {
    let token = token.ok_or_else(|| CallError::Unauthorized("there is no token yet".to_owned()))?;
    match token.expires_at {
        Some(at) if at.0 <= now.0 + SPARE_MS => Err(CallError::Unauthorized("the token has expired".to_owned())),
        _ => Ok(token),
    }
}

fn bearer(file: &BearerFile, token: &Token, outgoing: &mut Outgoing, env: &Env<'_>) {
    let header = file.header.as_ref().and_then(|header| header.render(env));
    let scheme = file.scheme.as_ref().and_then(|scheme| scheme.render(env));
    let scheme = scheme.as_deref().unwrap_or("Bearer");
    let space = if scheme.is_empty() { "" } else { " " };
    let value = format!("{scheme}{space}{}", token.access_token.expose());
    outgoing.headers.push((header.unwrap_or_else(|| "authorization".to_owned()), value));
}

fn api_key_into(file: &ApiKeyFile, key: &str, outgoing: &mut Outgoing, env: &Env<'_>) -> Result<(), CallError> {
    let prefix = file.prefix.as_ref().and_then(|prefix| prefix.render(env)).unwrap_or_default();
    let value = format!("{prefix}{key}");
    let filled = |template: &Option<super::template::Template>| {
        template.as_ref().and_then(|t| t.render(env)).filter(|name| !name.is_empty())
    };
    match (filled(&file.header), filled(&file.query)) {
        (Some(header), _) => outgoing.headers.push((header, value)),
        (None, Some(query)) => outgoing.query.push((query, value)),
        (None, None) => {
            return Err(CallError::Unauthorized(
                "the connector says neither header nor query for the API key".to_owned(),
            ));
        }
    }
    Ok(())
}

/// The credentials as templates and expressions of a login see them.
pub fn as_variable(credentials: &Credentials) -> Value {
    match credentials {
        Credentials::Login { username, password, .. } => {
            serde_json::json!({ "username": username, "password": password.expose() })
        }
        Credentials::Token(Token { access_token, refresh_token, .. }) => serde_json::json!({
            "accessToken": access_token.expose(),
            "refreshToken": refresh_token.as_ref().map(crate::domain::secret::Secret::expose),
        }),
        _ => Value::Object(serde_json::Map::new()),
    }
}
