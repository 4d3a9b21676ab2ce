//! A call of the ISV's own, passed through to the app with the connection's credentials and budget.
//!
//! Always true: it goes to the connection's base URI and nowhere else, whatever the endpoint is written like; the caller
//! neither chooses nor sees a credential: headers and parameters that carry one are refused, and an answer that repeats one
//! is withheld. Any status of the app is an answer. Not here: renewing tokens (`actors::watcher::account`), how the answer
//! is shown (`api::forward`).

use super::caller::Outgoing;
use super::{CallError, Credentials, Session};
use crate::outbound::{Answer, Bytes, HeaderName, HeaderValue, Method};

/// The longest endpoint, and the longest header.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Decodings after which nothing more is hidden: each takes at least one `%25` away.
const DECODINGS_MAX: usize = 4;
/// A secret that is shorter may stand in an answer by chance.
const SECRET_BYTES_MIN: usize = 8;

/// Headers of a request that are not the caller's to say.
const REFUSED: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers of an answer that are not passed on: they are about the connection, or are secrets.
const WITHHELD: &[&str] = &[
    "alt-svc",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// What is asked of the app.
#[derive(Clone, Debug)]
pub struct Forward {
    pub method: Method,
    /// Relative to the connection's base URI; may hold a query of its own.
    pub endpoint: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    /// With its content type, unless `headers` say another.
    pub body: Option<(String, Bytes)>,
}

/// What the app answered.
#[derive(Clone, Debug)]
pub struct Forwarded {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// The app does not accept the credentials: whoever can renew them may ask once more.
    pub is_unauthorized: bool,
}

impl Session {
    /// Whether a call may be passed through. The error is one sentence that names the field.
    ///
    /// # Errors
    /// The endpoint leaves the base URI, or a header is not the caller's to say.
    pub fn check_forward(&self, asked: &Forward) -> Result<(), String> {
        check_endpoint(&asked.endpoint)?;
        self.caller.address(&outgoing(asked)).map_err(|error| match error {
            CallError::BadAnswer(message) => format!("endpoint: {message}"),
            other => format!("endpoint: {other}"),
        })?;
        asked.headers.iter().try_for_each(|(name, value)| check_header(name, value))
    }

    /// Passes a call through that was checked.
    ///
    /// # Errors
    /// There was no answer, or none that may be shown. `NotSupported`: it sets what carries the connection's credentials.
    pub async fn forward(&self, asked: &Forward) -> Result<Forwarded, CallError> {
        let mine = outgoing(asked);
        let (answer, error) = self.caller.pass(mine).await?;
        if answer.cut {
            let most = self.caller.connector.answer_bytes_max;
            return Err(CallError::BadAnswer(format!("it is longer than {most} bytes; ask for less at a time")));
        }
        let secrets = secrets(&self.credentials());
        let shown = shown(&answer, &secrets);
        if holds_any(&answer.body, &secrets) {
            return Err(CallError::BadAnswer("it repeats the connection's credentials, and is withheld".to_owned()));
        }
        let is_unauthorized = matches!(error, Some(CallError::Unauthorized(_)));
        Ok(Forwarded { status: answer.status, headers: shown, body: answer.body, is_unauthorized })
    }
}

fn outgoing(asked: &Forward) -> Outgoing {
    let mut outgoing = Outgoing::new(asked.method.clone(), asked.endpoint.clone());
    outgoing.query.clone_from(&asked.query);
    outgoing.headers.clone_from(&asked.headers);
    outgoing.raw_body.clone_from(&asked.body);
    outgoing
}

/// What `Caller::address` does not see: parts of the path that a server behind the app's door may decode once more.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    if endpoint.is_empty() || endpoint.len() > TEXT_BYTES_MAX {
        return Err(format!("endpoint: use 1 to {TEXT_BYTES_MAX} bytes, such as /contacts/42"));
    }
    let path = endpoint.split('?').next().unwrap_or_default();
    if endpoint.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\' || c == '#') {
        return Err("endpoint: spaces, backslashes, `#` and control characters must be percent-encoded".to_owned());
    }
    let mut text = path.to_owned();
    for _ in 0..DECODINGS_MAX {
        let is_refused = |part: &str| matches!(part, "." | "..");
        if text.split(['/', '\\', ';']).any(is_refused) || text.contains('\0') {
            return Err(
                "endpoint: `.` and `..` are not allowed as parts of the path, however they are encoded".to_owned()
            );
        }
        text = decoded(&text);
    }
    if text.contains('%') && decoded(&text) != text {
        return Err("endpoint: it is encoded too many times over".to_owned());
    }
    Ok(())
}

/// The text with its percent-encoding taken away once.
fn decoded(text: &str) -> String {
    let pair = format!("_={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let shown: String = name.chars().take(64).collect();
    if name.len() + value.len() > TEXT_BYTES_MAX
        || HeaderName::from_bytes(name.as_bytes()).is_err()
        || HeaderValue::from_str(value).is_err()
    {
        return Err(format!("extraHeaders: `{shown}` or its value is no header"));
    }
    match REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused)) {
        true => Err(format!("extraHeaders: `{shown}` is not yours to set")),
        false => Ok(()),
    }
}

fn shown(answer: &Answer, secrets: &[String]) -> Vec<(String, String)> {
    let all = answer
        .headers
        .iter()
        .filter(|(name, value)| !WITHHELD.contains(&name.as_str()) && !holds_any(value.as_bytes(), secrets));
    all.map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// What must not come back, as it may stand in a request.
fn secrets(credentials: &Credentials) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    if let Some(token) = credentials.token() {
        all.push(token.access_token.expose().to_owned());
        all.extend(token.refresh_token.iter().map(|token| token.expose().to_owned()));
    }
    match credentials {
        Credentials::ApiKey { api_key } => all.push(api_key.expose().to_owned()),
        Credentials::Login { username, password, .. } => {
            all.push(password.expose().to_owned());
            all.push(super::auth::basic(username, password.expose()).replace("Basic ", ""));
        }
        Credentials::OAuth1 { consumer_secret, token_secret, .. } => {
            all.extend([consumer_secret.expose().to_owned(), token_secret.expose().to_owned()]);
        }
        Credentials::Integration { .. } | Credentials::Token(_) => {}
    }
    all.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
    all
}

fn holds_any(bytes: &[u8], secrets: &[String]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    secrets.iter().any(|secret| text.contains(secret.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_endpoint_climbs_however_it_is_written() {
        for good in ["/contacts/42", "contacts?filter=a/../b", "/a%2Fb", "/v1.2/x", "/a..b/c", "/x?q=%2e%2e", "/50%25"]
        {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/../admin",
            "/a/./b",
            "/%2e%2e/admin",
            "/%2E./admin",
            "/a%2f..%2fadmin",
            "/a%5c..%5cadmin",
            "/%252e%252e/admin",
            "/%25252e%25252e/admin",
            "/a\\..\\b",
            "/a b",
            "/a#b",
            "/a\tb",
            "/..;/admin",
            "/%00/../x",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_of_the_connection_are_refused_in_any_case() {
        for name in ["Authorization", "HOST", "transfer-encoding", "Cookie", "bad name", "x\n"] {
            assert!(check_header(name, "v").is_err(), "{name}");
        }
        assert!(check_header("x-a", "b\r\nc").is_err());
        assert_eq!(check_header("If-Match", "\"7\""), Ok(()));
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_seen() {
        let login = Credentials::from_text(r#"{"username":"ann","password":"correct horse"}"#).unwrap();
        let secrets = secrets(&login);
        let basic = crate::connectors::auth::basic("ann", "correct horse");
        assert!(holds_any(format!("you sent {basic}").as_bytes(), &secrets));
        assert!(holds_any(b"{\"password\":\"correct horse\"}", &secrets));
        assert!(!holds_any(b"{\"user\":\"ann\"}", &secrets));
    }
}
