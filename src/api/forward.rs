//! `POST /one/forward`: a call of the caller's own, passed through to the app of a connection.
//!
//! Always true: it goes out with the connection's credentials and out of its budget, to its base URI alone; whatever the
//! app answers, an error too, is the answer's data; a token that has ended is renewed as the watcher does, by one of the
//! two at a time, and stored before it is used, also if the caller hangs up. Not here: what may be asked
//! (`connectors::forward`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::call::Call;
use super::connections;
use super::reply::Reply;
use super::route::{Param, Route, group};
use crate::actors::Deps;
use crate::actors::watcher::account::{Account, Opened};
use crate::connectors::{CallError, Forward, Forwarded};
use crate::domain::connection::{Connection, ConnectionStatus};
use crate::domain::id::ConnectionId;
use crate::error::{Code, Error, Result};
use crate::outbound::{Bytes, Method};

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Parameters and headers of one call.
const PAIRS_MAX: usize = 100;
/// How soon a call is worth repeating that found no room.
const RETRY_AFTER_SECONDS: u32 = 1;

/// What is asked of the app.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewForward {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    method: String,
    /// Relative to the connection's base URI: `/contacts/42`.
    endpoint: String,
    /// Sent as JSON. A text is sent as it is where `extraHeaders` name another `content-type`.
    #[serde(default)]
    #[schemars(with = "Option<Value>")]
    body: Option<Box<RawValue>>,
    /// Texts, numbers, booleans, or lists of them.
    #[serde(default)]
    query: Option<Map<String, Value>>,
    #[serde(default)]
    extra_headers: Option<BTreeMap<String, String>>,
}

/// What the app answered.
#[derive(Serialize, JsonSchema)]
struct ForwardView {
    /// The app's own, whatever it is.
    status: u16,
    /// In lower case; cookies and what is about the connection alone are left out. Values of a name that comes twice are
    /// joined with a comma.
    headers: BTreeMap<String, String>,
    /// JSON as it came, byte for byte; other text as a text, and what is no text in base64; null: none.
    #[schemars(with = "Option<Value>")]
    body: Option<Box<RawValue>>,
    /// `base64`, if the body is.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

pub(super) fn routes() -> Vec<Route> {
    let of = [Param { name: "connectionId", about: "Through this connection. Required." }];
    let pass = Route::post("/{version}/one/forward", "Pass a call through to the app of a connection", forward);
    group("connections", vec![pass.query(&of).takes::<NewForward>().gives::<ForwardView>()])
}

async fn forward(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<NewForward>()?, call.workspace()?);
    let asked = read(asked)?;
    let id: Option<ConnectionId> = call.query_id("connectionId", Code::ConnectionNotFound)?;
    let id = id.ok_or_else(|| Error::new(Code::Malformed, "connectionId: say through which, as in ?connectionId=…"))?;
    let deps = call.state.deps.clone();
    let open = move |rows: &crate::store::Rows| {
        let connection = connections::find(rows, workspace, id)?;
        runs(&connection)?;
        Account::open(&deps, connection)
    };
    let account = match call.read(open).await? {
        Opened::Ready(account) => account,
        Opened::Wrong(why) => {
            return Err(Error::new(Code::Conflict, format!("the connection cannot be used as it is set up: {why}")));
        }
    };
    account.session.check_forward(&asked).map_err(Error::invalid)?;
    let busy = |_| {
        let error = Error::new(Code::TooManyRequests, "too many calls are passed through at once; try again soon");
        Error { retry_after: Some(RETRY_AFTER_SECONDS), ..error }
    };
    let room = call.state.forwards.clone().try_acquire_owned().map_err(busy)?;
    // A task of its own on the threads that call apps: a token that is renewed in it is stored even if the caller is gone.
    // Its waits are the budget's and the connector's deadlines.
    let (deps, opened) = (call.state.deps.clone(), account.clone());
    let task = call.state.deps.runtime.spawn(async move {
        let _room = room;
        pass(&deps, &opened, &asked).await
    });
    let outcome = task.await.map_err(Error::internal)??;
    let word = outcome.as_ref().map_or_else(CallError::slug, |_| "answered");
    call.state.metrics.forwards.with([account.connection.connector.as_str(), word]).inc();
    match outcome {
        Ok(answer) => Reply::json(&view(&answer)?),
        Err(error) => Err(told(&error)),
    }
}

/// Refuses a connection that stands still.
fn runs(connection: &Connection) -> Result<()> {
    let message = match &connection.status {
        ConnectionStatus::Active => return Ok(()),
        ConnectionStatus::Paused => "the connection is paused; set its `status` to `active` first".to_owned(),
        ConnectionStatus::AuthFailed { .. } => {
            "the app refuses the connection's credentials; give new ones first".to_owned()
        }
        ConnectionStatus::Error { message, .. } => format!("the connection cannot be used as it is set up: {message}"),
    };
    Err(Error::new(Code::Conflict, message))
}

/// Asks the app; a refusal of the credentials that outlives a fresh token is the app's answer like any other.
async fn pass(
    deps: &Deps,
    account: &Arc<Account>,
    asked: &Forward,
) -> Result<std::result::Result<Forwarded, CallError>> {
    let refused: Mutex<Option<Forwarded>> = Mutex::default();
    let once = || async {
        let answer = account.session.forward(asked).await?;
        if answer.is_unauthorized {
            *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            return Err(CallError::Unauthorized(String::new()));
        }
        Ok(answer)
    };
    let outcome = account.call(deps, once).await?;
    let last = refused.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(match (outcome, last) {
        (Err(CallError::Unauthorized(_)), Some(answer)) => Ok(answer),
        (outcome, _) => outcome,
    })
}

fn read(asked: NewForward) -> Result<Forward> {
    let wanted = asked.method.to_ascii_uppercase();
    let method = METHODS.into_iter().find(|method| method.as_str() == wanted);
    let method = method.ok_or_else(|| Error::invalid("method: use GET, POST, PUT, PATCH or DELETE"))?;
    let headers: Vec<(String, String)> = asked.extra_headers.unwrap_or_default().into_iter().collect();
    let mut query = Vec::new();
    for (name, value) in asked.query.unwrap_or_default() {
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| push(&mut query, &name, value))?,
            value => push(&mut query, &name, &value)?,
        }
    }
    if query.len() > PAIRS_MAX || headers.len() > PAIRS_MAX {
        return Err(Error::invalid(format!("query, extraHeaders: use at most {PAIRS_MAX} each")));
    }
    let body = asked.body.map(|body| content(&body, &headers));
    Ok(Forward { method, endpoint: asked.endpoint, query, headers, body })
}

fn push(query: &mut Vec<(String, String)>, name: &str, value: &Value) -> Result<()> {
    let text = match value {
        Value::Null => return Ok(()),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            let shown: String = name.chars().take(64).collect();
            return Err(Error::invalid(format!("query.{shown}: use a text, a number, a boolean or a list of them")));
        }
    };
    query.push((name.to_owned(), text));
    Ok(())
}

/// A body as it is sent, with its content type.
fn content(body: &RawValue, headers: &[(String, String)]) -> (String, Bytes) {
    let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let is_json = named.is_none_or(|(_, kind)| kind.to_ascii_lowercase().contains("json"));
    let text = if is_json { None } else { serde_json::from_str::<String>(body.get()).ok() };
    let bytes = text.map_or_else(|| Bytes::from(body.get().to_owned()), Bytes::from);
    ("application/json".to_owned(), bytes)
}

fn view(answer: &Forwarded) -> Result<ForwardView> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &answer.headers {
        let known = headers.entry(name.clone()).or_default();
        *known = if known.is_empty() { value.clone() } else { format!("{known}, {value}") };
    }
    let is_json = headers.get("content-type").is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    let raw = |text: String| RawValue::from_string(text).map_err(Error::internal);
    let quoted = |text: &str| serde_json::to_string(text).map_err(Error::internal).and_then(raw);
    let (body, encoding) = match std::str::from_utf8(&answer.body) {
        Ok("") => (None, None),
        Ok(text) => match RawValue::from_string(text.to_owned()) {
            Ok(json) if is_json => (Some(json), None),
            _ => (Some(quoted(text)?), None),
        },
        Err(_) => (Some(quoted(&STANDARD.encode(&answer.body))?), Some("base64")),
    };
    Ok(ForwardView { status: answer.status, headers, body, encoding })
}

/// A failure without an answer.
fn told(error: &CallError) -> Error {
    match error {
        // Our own budget: an app's 429 is an answer.
        CallError::RateLimited { retry_after } => {
            let seconds = retry_after.map_or(RETRY_AFTER_SECONDS, |wait| {
                u32::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u32::MAX)
            });
            let message = "the connection's budget of requests is used up; try again later";
            Error { retry_after: Some(seconds), ..Error::new(Code::TooManyRequests, message) }
        }
        CallError::Unauthorized(why) => {
            let message = format!("the connection has no credentials that the app accepts ({why}); give new ones");
            Error::new(Code::Conflict, message)
        }
        CallError::AddressForbidden(_) => Error::new(Code::AddressForbidden, error.to_string()),
        CallError::NotSupported(message) => Error::invalid(message.clone()),
        _ => Error::new(Code::AppFailed, error.to_string()),
    }
}
