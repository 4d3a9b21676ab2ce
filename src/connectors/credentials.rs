//! What opens an account at an app, by kind.
//!
//! Always true: secrets are wiped when dropped and never printed; a refresh token that an answer does not repeat is kept,
//! since some apps give it once. Not here: how they are stored (`store::vault` encrypts the text of
//! [`Credentials::to_text`]), how they are sent (`connectors::auth`).

use serde_json::{Map, Value, json};

use crate::domain::secret::Secret;
use crate::domain::time::Millis;

/// One account's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing of the user's: the app needs none, or the integration's own client opens it.
    Integration {
        session: Option<Token>,
    },
    /// OAuth 2, or a token that was made by hand.
    Token(Token),
    ApiKey {
        api_key: Secret,
    },
    /// Basic authentication, or a login that gives a token.
    Login {
        username: String,
        password: Secret,
        session: Option<Token>,
    },
    /// OAuth 1.0a.
    OAuth1 {
        consumer_key: String,
        consumer_secret: Secret,
        token: String,
        token_secret: Secret,
    },
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub access_token: Secret,
    pub refresh_token: Option<Secret>,
    /// None: the app does not say; a 401 tells.
    pub expires_at: Option<Millis>,
}

impl Credentials {
    /// Reads the API's `credentials`: the fields say the kind. The error is one sentence that names the field.
    pub fn read(value: &Value) -> Result<Self, String> {
        let Value::Object(fields) = value else { return Err("credentials must be an object".to_owned()) };
        let mut fields = fields.clone();
        let session = match fields.shift_remove("session") {
            Some(Value::Object(mut token)) => Some(take_token(&mut token)?),
            Some(_) => return Err("credentials.session must be an object".to_owned()),
            None => None,
        };
        let kind = if fields.contains_key("accessToken") {
            Self::Token(take_token(&mut fields)?)
        } else if fields.contains_key("apiKey") {
            Self::ApiKey { api_key: secret(&mut fields, "apiKey")? }
        } else if fields.contains_key("username") {
            let username = text(&mut fields, "username")?;
            Self::Login { username, password: secret(&mut fields, "password")?, session }
        } else if fields.contains_key("consumerKey") {
            Self::OAuth1 {
                consumer_key: text(&mut fields, "consumerKey")?,
                consumer_secret: secret(&mut fields, "consumerSecret")?,
                token: text(&mut fields, "token")?,
                token_secret: secret(&mut fields, "tokenSecret")?,
            }
        } else {
            Self::Integration { session }
        };
        match fields.keys().next() {
            None => Ok(kind),
            Some(name) => Err(format!(
                "credentials.{name} is not known here; give accessToken (refreshToken, expiresAt), apiKey, username and \
                 password, or consumerKey, consumerSecret, token and tokenSecret"
            )),
        }
    }
    /// Reads what [`Self::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self, String> {
        Self::read(&serde_json::from_str(text).map_err(|e| format!("stored credentials are not JSON: {e}"))?)
    }
    /// All of it, secrets included, as JSON text: for the store to encrypt.
    pub fn to_text(&self) -> Secret {
        let value = match self {
            Self::Integration { session } => session_json(session.as_ref()),
            Self::Token(token) => token_json(token),
            Self::ApiKey { api_key } => json!({ "apiKey": api_key.expose() }),
            Self::Login { username, password, session } => {
                let mut value = session_json(session.as_ref());
                value["username"] = username.as_str().into();
                value["password"] = password.expose().into();
                value
            }
            Self::OAuth1 { consumer_key, consumer_secret, token, token_secret } => json!({
                "consumerKey": consumer_key,
                "consumerSecret": consumer_secret.expose(),
                "token": token,
                "tokenSecret": token_secret.expose(),
            }),
        };
        Secret::new(value.to_string())
    }
    /// `token`, `apiKey`, `login`, `oauth1` or `integration`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Integration { .. } => "integration",
            Self::Token(_) => "token",
            Self::ApiKey { .. } => "apiKey",
            Self::Login { .. } => "login",
            Self::OAuth1 { .. } => "oauth1",
        }
    }
    /// The token in use, if this kind has one.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Integration { session } | Self::Login { session, .. } => session.as_ref(),
            Self::Token(token) => Some(token),
            Self::ApiKey { .. } | Self::OAuth1 { .. } => None,
        }
    }
    /// The same account with a fresh token. A refresh token that the answer does not repeat stays.
    #[must_use]
    pub fn with_token(&self, mut fresh: Token) -> Self {
        if fresh.refresh_token.is_none() {
            fresh.refresh_token = self.token().and_then(|t| t.refresh_token.clone());
        }
        match self {
            Self::Integration { .. } => Self::Integration { session: Some(fresh) },
            Self::Login { username, password, .. } => {
                Self::Login { username: username.clone(), password: password.clone(), session: Some(fresh) }
            }
            Self::Token(_) => Self::Token(fresh),
            Self::ApiKey { .. } | Self::OAuth1 { .. } => self.clone(),
        }
    }
}

fn token_json(token: &Token) -> Value {
    let mut value = json!({ "accessToken": token.access_token.expose() });
    if let Some(refresh) = &token.refresh_token {
        value["refreshToken"] = refresh.expose().into();
    }
    if let Some(at) = token.expires_at {
        value["expiresAt"] = at.rfc3339_millis().into();
    }
    value
}

fn session_json(session: Option<&Token>) -> Value {
    session.map_or_else(|| json!({}), |token| json!({ "session": token_json(token) }))
}

fn text(fields: &mut Map<String, Value>, name: &str) -> Result<String, String> {
    match fields.shift_remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(_) => Err(format!("credentials.{name} must be a text that is not empty")),
        None => Err(format!("credentials.{name} is missing")),
    }
}

fn secret(fields: &mut Map<String, Value>, name: &str) -> Result<Secret, String> {
    text(fields, name).map(Secret::new)
}

fn take_token(fields: &mut Map<String, Value>) -> Result<Token, String> {
    let access_token = secret(fields, "accessToken")?;
    let refresh_token = match fields.contains_key("refreshToken") {
        true => Some(secret(fields, "refreshToken")?),
        false => None,
    };
    let expires_at = match fields.contains_key("expiresAt") {
        true => {
            let at = text(fields, "expiresAt")?;
            Some(
                Millis::parse_rfc3339(&at)
                    .ok_or("credentials.expiresAt must be a time such as 2026-01-31T12:00:00Z")?,
            )
        }
        false => None,
    };
    Ok(Token { access_token, refresh_token, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_read_back_as_they_were_written() {
        for text in [
            r#"{"accessToken":"a","refreshToken":"r","expiresAt":"2026-01-31T12:00:00.000Z"}"#,
            r#"{"apiKey":"k"}"#,
            r#"{"session":{"accessToken":"a"},"username":"u","password":"p"}"#,
            r#"{"consumerKey":"a","consumerSecret":"b","token":"c","tokenSecret":"d"}"#,
            r"{}",
        ] {
            let read = Credentials::from_text(text).unwrap();
            assert_eq!(read.to_text().expose(), text);
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = Credentials::from_text(r#"{"apiKey":"k","apikey2":1}"#).unwrap_err();
        assert!(error.contains("credentials.apikey2"), "{error}");
        let error = Credentials::from_text(r#"{"username":"u"}"#).unwrap_err();
        assert_eq!(error, "credentials.password is missing");
    }

    #[test]
    fn a_refresh_token_that_is_not_repeated_is_kept() {
        let old = Credentials::from_text(r#"{"accessToken":"a","refreshToken":"r"}"#).unwrap();
        let fresh = Token { access_token: Secret::new("b"), refresh_token: None, expires_at: None };
        assert_eq!(old.with_token(fresh).to_text().expose(), r#"{"accessToken":"b","refreshToken":"r"}"#);
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Credentials::from_text(r#"{"apiKey":"s3cret"}"#).unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
