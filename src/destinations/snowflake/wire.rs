//! Statements over Snowflake's SQL API (`/api/v2/statements`).
//!
//! Always true: a statement has a request id made of its batch, so that Snowflake runs it once however often it is sent
//! ("Submitting a request to execute SQL statements", section on resubmitting); what it goes on with is asked for until it
//! ends. Not here: what the statements say (`sql`), what a failure means (`verdict`).

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::verdict::judge;
use crate::clock::Clock;
use crate::destinations::driver::{Fault, Verdict};
use crate::destinations::rs256::Key;
use crate::domain::trouble::Trouble;
use crate::outbound::{Answer, Bytes, Client, HeaderName, HeaderValue, Method, Request, header};

/// Of a statement at Snowflake: it is cancelled there after so long.
pub const STATEMENT_SECONDS: u32 = 240;
/// Of one exchange: Snowflake answers 202 after 45 s.
const EXCHANGE: Duration = Duration::from_secs(75);
const POLL_FIRST: Duration = Duration::from_millis(250);
const POLL_MAX: Duration = Duration::from_secs(5);
/// Polls of one statement at most: with these waits, more than a statement lasts.
const POLLS_MAX: usize = 100;
/// A token is made for so long, and used for less: "Key-pair authentication", at most one hour.
const TOKEN_SECONDS: u64 = 3_300;
const TOKEN_USED: Duration = Duration::from_secs(2_700);
/// The answers read are the columns of a table at most.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// The way to one account.
pub struct Wire {
    pub client: Client,
    pub clock: Clock,
    pub key: Key,
    /// `https://{account}.snowflakecomputing.com`
    pub endpoint: Url,
    /// `ACCOUNT.USER`
    pub subject: String,
    /// Names what this destination sends.
    pub space: Uuid,
    pub token: Mutex<Option<(HeaderValue, Instant)>>,
}

/// Rows of an answer; each value is text or null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Found {
    pub data: Vec<Vec<Option<String>>>,
}

impl Wire {
    /// Runs a request body as it stands. `named`: what its request id is made of.
    ///
    /// # Errors
    /// The answer itself if the statement failed; a verdict if there is none.
    pub async fn run(&self, named: &str, body: &Bytes) -> Result<Result<Found, Answer>, Verdict> {
        let id = Uuid::new_v5(&self.space, named.as_bytes()).to_string();
        let url = self.url(&[], &[("requestId", &id), ("retry", "true")]);
        let mut answer = self.send(Method::POST, url, body.clone()).await?;
        let mut wait = POLL_FIRST;
        for _ in 0..POLLS_MAX {
            if answer.status == 200 {
                return Ok(Ok(serde_json::from_slice(&answer.body).map_err(|_| odd())?));
            }
            if answer.status != 202 {
                return Ok(Err(answer));
            }
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Running {
                statement_handle: String,
            }
            let running: Running = serde_json::from_slice(&answer.body).map_err(|_| odd())?;
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(POLL_MAX);
            answer = self.send(Method::GET, self.url(&[&running.statement_handle], &[]), Bytes::new()).await?;
        }
        Err(Verdict::Retry(Fault::new(Trouble::Busy, "the statement has not ended; it is asked for again")))
    }

    /// The same for a statement whose failure is nothing to act on.
    ///
    /// # Errors
    /// It failed.
    pub async fn do_or_say(&self, named: &str, body: &Bytes) -> Result<Found, Verdict> {
        self.run(named, body).await?.map_err(|answer| judge(&answer))
    }

    async fn send(&self, method: Method, url: Url, body: Bytes) -> Result<Answer, Verdict> {
        let (answer, token) = self.send_once(method.clone(), url.clone(), body.clone()).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        // The token may have lived longer than Snowflake likes (390114): one more try with a fresh one.
        let mut held = self.token.lock().await;
        if held.as_ref().is_some_and(|(text, _)| *text == token) {
            *held = None;
        }
        drop(held);
        Ok(self.send_once(method, url, body).await?.0)
    }

    async fn send_once(&self, method: Method, url: Url, body: Bytes) -> Result<(Answer, HeaderValue), Verdict> {
        let token = self.token().await?;
        let mut request = Request::new(method, url);
        request.headers = vec![
            (header::AUTHORIZATION, token.clone()),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("x-snowflake-authorization-token-type"), HeaderValue::from_static("KEYPAIR_JWT")),
        ];
        if !body.is_empty() {
            request.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        request.body = body;
        request.timeout = EXCHANGE;
        request.read_limit = ANSWER_MAX_BYTES;
        // A request id that is known is not run again.
        request.repeatable = true;
        let answer = self.client.send(request).await.map_err(|failure| Verdict::Retry(Fault::way(failure)))?;
        Ok((answer, token))
    }

    async fn token(&self) -> Result<HeaderValue, Verdict> {
        let mut held = self.token.lock().await;
        if let Some((token, until)) = held.as_ref()
            && *until > Instant::now()
        {
            return Ok(token.clone());
        }
        let now = self.clock.wall().0 / 1_000;
        let refused = || Verdict::Config(Fault::new(Trouble::CredentialsRefused, "the private key does not sign"));
        let print = self.key.fingerprint().ok_or_else(refused)?;
        let claims = json!({
            "iss": format!("{}.{print}", self.subject),
            "sub": self.subject,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
        });
        let text = self.key.token(None, &claims).ok_or_else(refused)?;
        let mut token = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| refused())?;
        token.set_sensitive(true);
        *held = Some((token.clone(), Instant::now() + TOKEN_USED));
        Ok(token)
    }

    fn url(&self, more: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v2", "statements"]).extend(more);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

/// Where statements run.
#[derive(Clone, Debug)]
pub struct Place {
    pub database: String,
    pub schema: String,
    pub warehouse: String,
    pub role: Option<String>,
}

impl Place {
    /// A request body: the statement, and texts bound to its `?`.
    pub fn body(&self, statement: &str, bound: &[&str]) -> Bytes {
        let mut body = json!({
            "statement": statement,
            "timeout": STATEMENT_SECONDS,
            "database": self.database,
            "schema": self.schema,
            "warehouse": self.warehouse,
        });
        if let Some(body) = body.as_object_mut() {
            if let Some(role) = &self.role {
                body.insert("role".to_owned(), role.as_str().into());
            }
            let bindings = bound
                .iter()
                .enumerate()
                .map(|(place, text)| ((place + 1).to_string(), json!({"type": "TEXT", "value": text})));
            if !bound.is_empty() {
                body.insert("bindings".to_owned(), Value::Object(bindings.collect()));
            }
            body.insert("parameters".to_owned(), json!({"timezone": "UTC"}));
        }
        Bytes::from(body.to_string())
    }
}

fn odd() -> Verdict {
    Verdict::Retry(Fault::new(Trouble::Failed, "the answer is not what the SQL API says it is"))
}
