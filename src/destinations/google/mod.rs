//! Google's side of `bigquery`, `gcs` and `pubsub`: who we are there, and what an answer means.
//!
//! Always true: credentials are those of the settings, never those of the machine: no metadata server, no file, no
//! variable of the environment; an access token is used until shortly before it expires, held in memory only, and never
//! shown. Not here: what is asked of each service.

mod account;
mod verdict;

use std::time::Duration;

use aws_lc_rs::digest;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

pub use self::account::Account;
use self::account::{External, Service};
pub use self::verdict::{Asked, judge, reason, words};
use super::driver::{Fault, Verdict};
use crate::clock::Clock;
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::{Answer, Bytes, Client, HeaderName, HeaderValue, Method, Request, header};

/// For a small request and its answer.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// A token is no longer used so long before it expires.
const MARGIN: Duration = Duration::from_secs(120);
/// What a token is asked for, and how long it is taken to last where the answer does not say.
const LIFETIME_SECONDS: u64 = 3_600;

/// The way to Google for one destination.
pub struct Google {
    client: Client,
    clock: Clock,
    account: Account,
    scope: &'static str,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    bearer: HeaderValue,
    until: Instant,
}

impl Google {
    /// A way out with that account, for what `scope` allows.
    pub fn new(client: Client, account: Account, scope: &'static str) -> Self {
        Self { client, clock: Clock::start(Millis(0)), account, scope, token: Mutex::new(None) }
    }

    /// The project that the account's file names.
    pub fn project(&self) -> Option<&str> {
        match &self.account {
            Account::Service(service) => service.project_id.as_deref(),
            Account::External(_) => None,
        }
    }

    /// Sends a request with a token; once more with a fresh one if the token was not taken.
    ///
    /// # Errors
    /// There was no answer, or no token.
    pub async fn send(&self, request: Request) -> std::result::Result<Answer, Verdict> {
        let token = self.token(None).await?;
        let answer = self.send_as(request.clone(), &token).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        let token = self.token(Some(&token.bearer)).await?;
        self.send_as(request, &token).await
    }

    /// Sends JSON, or nothing, and reads an answer of 2xx as JSON.
    ///
    /// # Errors
    /// There was no answer, or it says why not.
    pub async fn call(&self, method: Method, url: Url, body: Option<&Value>) -> std::result::Result<Value, Verdict> {
        let answer = self.send(request(method, url, body)).await?;
        read(&answer, Asked::Setup)
    }

    /// Whether a token can be had; says whose.
    ///
    /// # Errors
    /// It cannot.
    pub async fn sign_in(&self) -> std::result::Result<((), String), Verdict> {
        self.token(None).await?;
        Ok(((), self.account.name().to_owned()))
    }

    async fn send_as(&self, mut request: Request, token: &Token) -> std::result::Result<Answer, Verdict> {
        request.headers.push((header::AUTHORIZATION, token.bearer.clone()));
        self.client.send(request).await.map_err(|failure| Verdict::Retry(Fault::way(failure)))
    }

    /// The token of the moment; another one than `refused`.
    async fn token(&self, refused: Option<&HeaderValue>) -> std::result::Result<Token, Verdict> {
        // Held over the exchange, so that many lanes ask for one token.
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref()
            && token.until > Instant::now()
            && Some(&token.bearer) != refused
        {
            return Ok(token.clone());
        }
        *held = None;
        let token = match &self.account {
            Account::Service(service) => self.exchange_assertion(service).await?,
            Account::External(external) => self.exchange_subject(external).await?,
        };
        Ok(held.insert(token).clone())
    }

    /// Google's "Using OAuth 2.0 for Server to Server Applications", section "HTTP/REST".
    async fn exchange_assertion(&self, service: &Service) -> std::result::Result<Token, Verdict> {
        let now = self.clock.wall().0 / 1_000;
        let claims = json!({
            "iss": service.client_email,
            "scope": self.scope,
            "aud": service.token_uri.as_str(),
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
        });
        let signed = service.key.token(service.private_key_id.as_deref(), &claims);
        let assertion = signed.ok_or_else(|| refused("the private key does not sign"))?;
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        self.exchange(service.token_uri.clone(), form).await
    }

    /// RFC 8693 as Google's Security Token Service has it (`v1/token`), then `generateAccessToken` of the service account
    /// that is to be acted for, if there is one.
    async fn exchange_subject(&self, external: &External) -> std::result::Result<Token, Verdict> {
        let scope = if external.impersonate.is_some() { CLOUD_PLATFORM } else { self.scope };
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("audience", &external.audience)
            .append_pair("scope", scope)
            .append_pair("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
            .append_pair("subject_token_type", &external.subject_token_type)
            .append_pair("subject_token", external.subject_token.expose())
            .finish();
        let federated = self.exchange(external.token_url.clone(), form).await?;
        let Some(url) = &external.impersonate else { return Ok(federated) };
        let body = json!({"scope": [self.scope], "lifetime": format!("{LIFETIME_SECONDS}s")});
        let answer = self.send_as(request(Method::POST, url.clone(), Some(&body)), &federated).await?;
        if answer.status >= 400 {
            return Err(not_signed_in(&answer));
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Granted {
            access_token: String,
        }
        let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_| no_token())?;
        token_of(&granted.access_token, LIFETIME_SECONDS)
    }

    async fn exchange(&self, url: Url, form: String) -> std::result::Result<Token, Verdict> {
        let mut request = Request::new(Method::POST, url);
        request.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")));
        request.body = Bytes::from(form);
        request.timeout = TIMEOUT;
        request.read_limit = 64 << 10;
        // The exchange changes nothing there.
        request.repeatable = true;
        let answer = self.client.send(request).await.map_err(|failure| Verdict::Retry(Fault::way(failure)))?;
        if answer.status >= 300 {
            return Err(not_signed_in(&answer));
        }
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            expires_in: Option<u64>,
        }
        let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_| no_token())?;
        token_of(&granted.access_token, granted.expires_in.unwrap_or(LIFETIME_SECONDS))
    }
}

/// For the exchange whose result only asks for another token.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

fn token_of(text: &str, seconds: u64) -> std::result::Result<Token, Verdict> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| no_token())?;
    bearer.set_sensitive(true);
    let lasts = Duration::from_secs(seconds.min(LIFETIME_SECONDS)).saturating_sub(MARGIN);
    Ok(Token { bearer, until: Instant::now() + lasts })
}

fn refused(detail: &str) -> Verdict {
    Verdict::Config(Fault::new(Trouble::CredentialsRefused, detail))
}

fn no_token() -> Verdict {
    Verdict::Retry(Fault::new(Trouble::Failed, "the answer to the sign-in holds no access token"))
}

/// Why there is no token: the owner's credentials, or Google itself.
fn not_signed_in(answer: &Answer) -> Verdict {
    match answer.status {
        400 | 401 | 403 | 404 => refused(&words(answer)),
        _ => judge(answer, Asked::Setup),
    }
}

/// A request with a JSON body, or none.
pub fn request(method: Method, url: Url, body: Option<&Value>) -> Request {
    let mut request = Request::new(method, url);
    request.timeout = TIMEOUT;
    if let Some(body) = body {
        request.headers.push(JSON);
        request.body = Bytes::from(body.to_string());
    }
    request
}

/// What says that a body is JSON.
pub const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// The project of the settings, or that of the account's file.
///
/// # Errors
/// There is none, or it cannot be the id of one.
pub fn project(set: Option<&str>, google: &Google) -> Result<String> {
    let found = set
        .or(google.project())
        .ok_or_else(|| Error::invalid("settings.projectId: say the project's id; the credentials name none"))?;
    // `example.com:project` is the older form of projects that belong to a domain.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'_');
    if found.is_empty() || found.len() > 100 || !found.bytes().all(plain) {
        return Err(Error::invalid("settings.projectId: use the project's id, such as my-project-123"));
    }
    Ok(found.to_owned())
}

/// An answer of 2xx as JSON.
///
/// # Errors
/// It is another one, or no JSON.
pub fn read(answer: &Answer, asked: Asked) -> std::result::Result<Value, Verdict> {
    if !(200..300).contains(&answer.status) {
        return Err(judge(answer, asked));
    }
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    let odd = || Verdict::Retry(Fault::new(Trouble::Failed, "the answer is not JSON, or too long"));
    serde_json::from_slice(&answer.body).map_err(|_| odd())
}

/// The address of a service: the setting `endpoint`, or Google's own.
///
/// # Errors
/// The setting is no address of a host.
pub fn endpoint(set: Option<&str>, own: &str) -> Result<Url> {
    let text = set.unwrap_or(own);
    let url = Url::parse(text.trim_end_matches('/')).ok();
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "https" | "http")
            && url.host().is_some()
            && url.query().is_none()
            && url.username().is_empty()
    };
    url.filter(is_plain).ok_or_else(|| Error::invalid("settings.endpoint: use an address such as https://example.com"))
}

/// An address below an endpoint; each part is escaped.
pub fn below(endpoint: &Url, parts: &[&str], query: &[(&str, &str)]) -> Url {
    let mut url = endpoint.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// The content type and the body of an upload of `multipart/related`: metadata as JSON, and the content. `name` makes the
/// boundary: the same upload has the same bytes.
pub fn multipart(name: &str, metadata: &Value, kind: &str, content: &Bytes) -> (HeaderValue, Bytes) {
    let boundary = boundary(name, content);
    let head = format!(
        "--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n\
         --{boundary}\r\ncontent-type: {kind}\r\n\r\n"
    );
    let mut body = Vec::with_capacity(head.len() + content.len() + boundary.len() + 8);
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let kind = HeaderValue::try_from(format!("multipart/related; boundary={boundary}"));
    (kind.unwrap_or(HeaderValue::from_static("multipart/related")), Bytes::from(body))
}

/// A text that does not stand in the content: the hash of both is known to nobody who wrote the content before.
fn boundary(name: &str, content: &Bytes) -> String {
    let mut sum = digest::Context::new(&digest::SHA256);
    sum.update(name.as_bytes());
    sum.update(content);
    format!("tidemill{}", hex::encode(sum.finish().as_ref().get(..16).unwrap_or_default()))
}
