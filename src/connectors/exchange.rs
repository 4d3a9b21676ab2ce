//! What goes between us and an app, seen from the side: shown to whoever writes a connector, kept as a test, and played
//! back without an app.
//!
//! Always true: what is seen is the request before credentials were added to it; a call for a token is seen without its
//! body and its answer. Not here: the request itself (`connectors::caller`), how a test is written
//! (`connectors::recording`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use url::form_urlencoded;

use super::CallError;
use super::caller::{CallFailure, Incoming, Outgoing};
use super::compare::difference;
use crate::outbound::{Answer, Bytes, Client, HeaderMap, HeaderName, HeaderValue};

/// Headers of an answer that decide how it is read.
const TELLING_HEADERS: [&str; 2] = ["link", "content-type"];

/// A request before credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Method, and path with query as the connector made them: `GET /contacts?limit=100`.
    pub request: String,
    /// The body, where it is JSON.
    pub sent: Option<Value>,
    /// A call for a token, or of another address of the spec: nothing of its content may be kept.
    pub for_token: bool,
}

/// A request and what came of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub asked: Asked,
    /// None: there was no answer.
    pub status: Option<u16>,
    /// Those that decide how the answer is read; names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Why it failed.
    pub error: Option<String>,
    pub took: Duration,
}

/// Whoever watches the calls of a session.
pub type Tap = Arc<dyn Fn(Exchange) + Send + Sync>;

/// Where requests go.
#[derive(Clone)]
pub enum Wire {
    App(Client),
    Replay(Arc<Replay>),
}

impl From<Client> for Wire {
    fn from(client: Client) -> Self {
        Self::App(client)
    }
}

impl Asked {
    /// What is asked, before credentials.
    pub fn of(outgoing: &Outgoing) -> Self {
        let mut request = format!("{} {}", outgoing.method, outgoing.path);
        if !outgoing.query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&outgoing.query).finish();
            request.push(if outgoing.path.contains('?') { '&' } else { '?' });
            request.push_str(&query);
        }
        let raw = outgoing.raw_body.as_ref().and_then(|(_, body)| serde_json::from_slice(body).ok());
        Self { request, sent: raw.or_else(|| outgoing.body.clone()), for_token: false }
    }
    /// A call of another address of the spec: where it went, and no more.
    pub fn elsewhere(outgoing: &Outgoing, url: &url::Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self { request: format!("{} {host}{}", outgoing.method, url.path()), sent: None, for_token: true }
    }
}

impl Exchange {
    /// What came of a request.
    pub fn new(asked: Asked, done: &Result<Incoming, CallFailure>, took: Duration) -> Self {
        let (status, headers, body, error) = match done {
            Ok(incoming) => (Some(incoming.status), telling(&incoming.headers), incoming.body.clone(), None),
            Err(failure) => {
                let content_type = failure.content_type.clone().map(|value| ("content-type".to_owned(), value));
                let headers: Vec<_> = content_type.into_iter().collect();
                (failure.status, telling(&headers), failure.body.clone(), Some(failure.error.to_string()))
            }
        };
        let body = if asked.for_token { String::new() } else { body };
        Self { asked, status, headers, body, error, took }
    }
}

/// The headers that decide how an answer is read, where they say more than "JSON".
fn telling(headers: &[(String, String)]) -> Vec<(String, String)> {
    let tells = |(name, value): &&(String, String)| {
        TELLING_HEADERS.contains(&name.as_str()) && !(name == "content-type" && value.starts_with("application/json"))
    };
    headers.iter().filter(tells).cloned().collect()
}

/// One answer of an app that is played back.
#[derive(Clone, Debug)]
pub struct Canned {
    /// What must be asked, where the test says it: `GET /contacts?limit=100`.
    pub request: Option<String>,
    /// What must be sent, where the test says it.
    pub sent: Option<Value>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// An app that gives answers in their order, each to the request it was given to.
#[derive(Debug)]
pub struct Replay {
    answers: Vec<Canned>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// The first thing that was asked wrongly. A script may have caught the failure.
    fault: Option<String>,
}

impl Replay {
    /// The answers in their order.
    pub fn new(answers: Vec<Canned>) -> Self {
        Self { answers, state: Mutex::default() }
    }
    /// Whether every answer was given.
    pub fn is_used_up(&self) -> bool {
        self.lock().used >= self.answers.len()
    }
    /// What is wrong with what was asked so far; at the end, also that something was not asked.
    pub fn fault(&self) -> Option<String> {
        let state = self.lock();
        let (used, all) = (state.used, self.answers.len());
        let unused = || (used < all).then(|| format!("only {used} of {all} answers were asked for"));
        state.fault.clone().or_else(unused)
    }
    /// The next answer, if it belongs to what is asked.
    pub fn answer(&self, asked: &Asked) -> Result<Answer, CallFailure> {
        self.next(asked).map_err(|fault| {
            let mut state = self.lock();
            state.fault.get_or_insert_with(|| fault.clone());
            CallFailure::silent(CallError::BadAnswer(fault))
        })
    }
    fn next(&self, asked: &Asked) -> Result<Answer, String> {
        let mut state = self.lock();
        let number = state.used;
        let canned = self.answers.get(number);
        let canned = canned.ok_or_else(|| format!("there is no answer for {}", asked.request))?;
        if let Some(expected) = canned.request.as_ref().filter(|expected| **expected != asked.request) {
            return Err(format!("answers[{number}]: the app was asked {}, expected {expected}", asked.request));
        }
        if let Some(expected) = &canned.sent {
            let sent = asked.sent.clone().unwrap_or_default();
            if let Some(difference) = difference(&format!("answers[{number}]: sent"), expected, &sent) {
                return Err(difference);
            }
        }
        state.used += 1;
        let mut headers = HeaderMap::new();
        for (name, value) in &canned.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| format!("answers[{number}]: {e}"))?;
            let value = HeaderValue::from_str(value).map_err(|e| format!("answers[{number}]: {e}"))?;
            headers.append(name, value);
        }
        let none = Duration::ZERO;
        let body = Bytes::from(canned.body.clone());
        Ok(Answer { status: canned.status, headers, body, cut: false, first_byte: none, elapsed: none })
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
