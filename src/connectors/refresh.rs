//! Fresh tokens: OAuth 2 (refresh token, client credentials, signed tokens) and logins that give a token.
//!
//! Always true: the fresh credentials are handed back, not used: the caller stores them first, since some apps make the
//! old refresh token worthless at once, then calls [`Session::adopt`]. Client and refresh token go only to the token
//! address of the connector's spec. Not here: one refresh at a time per connection (the watcher's).

use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::auth_files::{AuthFile, ClientAuth, Grant, LoginFile, OAuth2File};
use super::caller::{CallFailure, Caller, Outgoing};
use super::jwt::JwtFile;
use super::mapping::{Env, Mapping};
use super::rest::not_json;
use super::template::Template;
use super::{CallError, Credentials, Session, Token, auth};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::outbound::{Bytes, Method};

impl Session {
    /// A fresh token, where this kind of credentials has one. The caller stores what comes back, then adopts it.
    ///
    /// # Errors
    /// `Unauthorized`: there is nothing to renew with, or the app refuses; a person must connect again.
    pub async fn refresh_credentials(&self) -> Result<Credentials, CallError> {
        let credentials = self.credentials();
        let variables = self.caller.variables();
        let env = Env::of(&variables);
        let token = match auth::choose(&self.caller.connector.auth, &credentials, Some(&env)) {
            Some(AuthFile::Login(login)) => self.log_in(login, &credentials).await?,
            Some(AuthFile::Oauth2(oauth2)) => self.renew(oauth2, &credentials).await?,
            _ => return Err(CallError::Unauthorized("credentials of this kind cannot be renewed".to_owned())),
        };
        Ok(credentials.with_token(token))
    }

    async fn log_in(&self, login: &LoginFile, credentials: &Credentials) -> Result<Token, CallError> {
        let secret = auth::as_variable(credentials);
        let mut variables = self.caller.variables();
        variables.push(("credentials", &secret));
        let env = Env::of(&variables);
        let body = Mapping::compile("spec.yml", &login.body, &["credentials", "parameters", "baseUri"])
            .map_err(|error| CallError::BadAnswer(error.to_string()))?;
        let path = login.path.render_path(&env).ok_or_else(|| missing("auth.login.path"))?;
        let mut outgoing = Outgoing::new(Method::POST, path);
        outgoing.body = Some(body.eval(&env));
        let url = self.caller.address(&outgoing)?;
        let sent_at = self.caller.clock.now();
        let incoming = self.caller.call_elsewhere(outgoing, url).await.map_err(refused)?;
        let answer: Value = serde_json::from_str(&incoming.body).map_err(|error| not_json(&incoming.body, &error))?;
        let token = login.token.find(&answer).and_then(Value::as_str).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| CallError::BadAnswer("the answer to the login holds no token".to_owned()))?;
        let told = login.expires_in.as_ref().and_then(|path| seconds(path.find(&answer)?));
        let lifetime = told.or(login.lifetime.map(|span| span.0));
        Ok(Token {
            access_token: Secret::new(token),
            refresh_token: None,
            expires_at: lifetime.map(|lifetime| sent_at.after(lifetime)),
        })
    }

    async fn renew(&self, oauth2: &OAuth2File, credentials: &Credentials) -> Result<Token, CallError> {
        let variables = self.caller.variables();
        let env = Env::of(&variables);
        let now = self.caller.clock.wall();
        let mut form = grant(oauth2, credentials, &env, now)?;
        let scope = oauth2.scope(&env);
        if credentials.token().and_then(|token| token.refresh_token.as_ref()).is_none() && !scope.is_empty() {
            form.push(("scope".to_owned(), scope));
        }
        let sent_at = self.caller.clock.now();
        read_token(&ask_token(&self.caller, oauth2, form).await?, sent_at)
    }
}

/// Asks the token address; the answer is not judged beyond being an object.
pub(super) async fn ask_token(
    caller: &Caller,
    oauth2: &OAuth2File,
    mut form: Vec<(String, String)>,
) -> Result<Map<String, Value>, CallError> {
    let variables = caller.variables();
    let env = Env::of(&variables);
    form.extend(oauth2.form.0.iter().filter_map(|(name, value)| Some((name.clone(), value.render(&env)?))));
    let url = address(&oauth2.token_url, &env, "auth.oauth2.tokenUrl")?;
    let outgoing = with_client(oauth2, &env, form, caller.clock.wall())?;
    let incoming = caller.call_elsewhere(outgoing, url).await.map_err(refused)?;
    serde_json::from_str(&incoming.body).map_err(|error| not_json(&incoming.body, &error))
}

/// A form that carries the client's id and secret where the app wants them.
pub(super) fn with_client(
    oauth2: &OAuth2File,
    env: &Env<'_>,
    mut form: Vec<(String, String)>,
    now: Millis,
) -> Result<Outgoing, CallError> {
    let mut outgoing = Outgoing::new(Method::POST, String::new());
    let is_jwt = form.iter().any(|(name, value)| name == "grant_type" && value == JWT_BEARER);
    match oauth2.client_auth {
        ClientAuth::Assertion => form.extend(assertion(oauth2, env, now)?),
        // The signed token says who asks; a secret is sent beside it only where there is one (RFC 7523, section 3.1).
        _ if is_jwt && client(oauth2, env).is_err() => {}
        ClientAuth::Basic => {
            let (id, secret) = client(oauth2, env)?;
            outgoing.headers.push(("authorization".to_owned(), auth::basic(&id, &secret)));
        }
        ClientAuth::Body => {
            let (id, secret) = client(oauth2, env)?;
            form.extend([("client_id".to_owned(), id), ("client_secret".to_owned(), secret)]);
        }
    }
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
    outgoing.raw_body = Some(("application/x-www-form-urlencoded".to_owned(), Bytes::from(body)));
    Ok(outgoing)
}

/// The form fields of a client assertion (RFC 7521, section 4.2).
fn assertion(oauth2: &OAuth2File, env: &Env<'_>, now: Millis) -> Result<[(String, String); 2], CallError> {
    let file = oauth2.assertion.as_ref().ok_or_else(|| missing("auth.oauth2.assertion"))?;
    let url = address(&oauth2.token_url, env, "auth.oauth2.tokenUrl")?;
    let token = file.token(env, &client_id(oauth2, env)?, url.as_str(), now)?;
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
    Ok([("client_assertion_type".to_owned(), kind), ("client_assertion".to_owned(), token)])
}

/// An address of the spec's.
pub(super) fn address(template: &Template, env: &Env<'_>, field: &str) -> Result<Url, CallError> {
    let text = template.render_url(env).ok_or_else(|| missing(field))?;
    Url::parse(&text).map_err(|_| missing(field))
}

pub(super) fn missing(field: &str) -> CallError {
    CallError::BadAnswer(format!("{field} needs a parameter that is not set, or is not an address"))
}

/// A refused token request means that the account must be connected again, whatever status says so (RFC 6749, section
/// 5.2, has 400 with `invalid_grant`).
fn refused(failure: CallFailure) -> CallError {
    match failure.error {
        CallError::Refused { status: 400 | 401 | 403, message } => CallError::Unauthorized(message),
        other => other,
    }
}

/// The grant type of RFC 7523.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn grant(
    oauth2: &OAuth2File,
    credentials: &Credentials,
    env: &Env<'_>,
    now: Millis,
) -> Result<Vec<(String, String)>, CallError> {
    let allowed = |grant: Grant| oauth2.allows(grant);
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let refresh_token = credentials.token().and_then(|token| token.refresh_token.as_ref());
    match (refresh_token, credentials) {
        (Some(refresh_token), _) if allowed(Grant::RefreshToken) => {
            Ok(vec![field("grant_type", "refresh_token"), field("refresh_token", refresh_token.expose())])
        }
        (_, Credentials::Integration { .. }) if bears(oauth2, env).is_some() => {
            let file = bears(oauth2, env).ok_or_else(|| missing("auth.oauth2.jwt"))?;
            let url = address(&oauth2.token_url, env, "auth.oauth2.tokenUrl")?;
            let token = file.token(env, &client_id(oauth2, env)?, url.as_str(), now)?;
            Ok(vec![field("grant_type", JWT_BEARER), field("assertion", &token)])
        }
        (_, Credentials::Integration { .. }) if allowed(Grant::ClientCredentials) => {
            Ok(vec![field("grant_type", "client_credentials")])
        }
        _ => Err(CallError::Unauthorized("there is no refresh token".to_owned())),
    }
}

/// The signed token that is exchanged for one, where it is set up.
fn bears<'f>(oauth2: &'f OAuth2File, env: &Env<'_>) -> Option<&'f JwtFile> {
    oauth2.jwt.as_ref().filter(|file| oauth2.bears_jwt() && file.is_set_up(env))
}

/// Whether the client is set up: with a secret, or with a key to sign with.
pub(super) fn is_set_up(oauth2: &OAuth2File, env: &Env<'_>) -> bool {
    client_id(oauth2, env).is_ok()
        && (client(oauth2, env).is_ok()
            || bears(oauth2, env).is_some()
            || oauth2.client_auth == ClientAuth::Assertion
                && oauth2.assertion.as_ref().is_some_and(|file| file.is_set_up(env)))
}

fn part(own: &Option<Template>, usual: &str, env: &Env<'_>) -> Option<String> {
    own.clone().or_else(|| Template::parse(usual).ok()).and_then(|template| template.render(env))
}

/// The client's id.
pub(super) fn client_id(oauth2: &OAuth2File, env: &Env<'_>) -> Result<String, CallError> {
    part(&oauth2.client_id, "{{parameters.clientId}}", env).ok_or_else(|| missing("auth.oauth2.clientId"))
}

/// The client's id and secret.
fn client(oauth2: &OAuth2File, env: &Env<'_>) -> Result<(String, String), CallError> {
    let secret = part(&oauth2.client_secret, "{{parameters.clientSecret}}", env);
    Ok((client_id(oauth2, env)?, secret.ok_or_else(|| missing("auth.oauth2.clientSecret"))?))
}

/// The token of an answer (RFC 6749, section 5.1). Some apps refuse inside a 200.
pub(super) fn read_token(answer: &Map<String, Value>, sent_at: Millis) -> Result<Token, CallError> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(Secret::new);
    let access_token = text("access_token");
    if let (None, Some(error)) = (&access_token, answer.get("error").and_then(Value::as_str)) {
        return Err(CallError::Unauthorized(error.chars().take(100).collect()));
    }
    Ok(Token {
        access_token: access_token
            .ok_or_else(|| CallError::BadAnswer("the token answer holds no access_token".to_owned()))?,
        refresh_token: text("refresh_token"),
        expires_at: answer.get("expires_in").and_then(seconds).map(|lifetime| sent_at.after(lifetime)),
    })
}

/// Seconds as number or text, as some apps write it.
fn seconds(value: &Value) -> Option<Duration> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.split('.').next()?.parse().ok().map(Duration::from_secs)
}
