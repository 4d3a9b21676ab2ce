//! Scripts: the JavaScript of a connector, run in a sandbox. The only place that knows the JavaScript engine.
//!
//! Always true: a call has its own JS runtime, used for nothing before or after it, so nothing leaks from one connection
//! to another; it has limits on memory, stack, CPU time, wall-clock time, API calls, result and console; it reaches no
//! file, network or process, only the connection's own app through `apiClient`; values cross the border as JSON text,
//! and numbers that JavaScript cannot hold come back with their exact text (`exact`). The API calls themselves run where
//! the caller awaits, not on the script threads. Not here: what a method's arguments and results mean
//! (`connectors::webhook`, `connectors::session`), credentials and rate budgets (the [`ApiCaller`]).
//!
//! A script is an ES module with a default export of any name: a function, async or not, of one object.

mod exact;
mod host;
mod pool;
mod vm;
mod xml;

use std::fmt;
use std::future::Future;
use std::num::{NonZeroU64, NonZeroUsize};
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::CallError;

pub use pool::Pool;

/// The section `connectors.scripts` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// How many threads run scripts.
    pub threads: NonZeroUsize,
    /// How many calls one thread keeps open; all but one of them wait for an app.
    pub calls_per_thread: NonZeroUsize,
    /// How many calls may wait for a thread; one more is refused, to be tried again.
    pub queue: NonZeroUsize,
    /// Memory of one call, its arguments included.
    pub memory_bytes_max: NonZeroUsize,
    /// Stack of one call; at most a quarter of a thread's.
    pub stack_bytes_max: NonZeroUsize,
    /// CPU time of one call, waiting not counted.
    pub cpu_ms_max: NonZeroU64,
    /// Wall-clock time of one call, queueing and API calls included; a method may ask for less.
    pub deadline_ms: NonZeroU64,
    /// How many API calls one call may make.
    pub api_calls_max: NonZeroUsize,
    /// Length of the result as JSON text.
    pub result_bytes_max: NonZeroUsize,
    /// How many console lines are kept, each cut at 1 KiB.
    pub console_lines_max: NonZeroUsize,
}

/// One script of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The file as errors name it, from the connectors' folder on: `sandbox/global-webhooks/all/handle.js`.
    pub file: String,
    /// The module's source.
    pub source: String,
}

/// How a call ended, and what it printed until then.
#[derive(Debug)]
pub struct Done {
    /// The result as JSON text; `null` when the script returned nothing.
    pub result: Result<String, ScriptError>,
    pub console: Vec<String>,
}

/// Which way a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not a module, or one without a function as its default export.
    Load,
    /// It threw, or returned what is not JSON.
    Threw,
    /// An API call failed, and the script let the error through.
    Api,
    /// It used up its CPU time.
    CpuTime,
    /// It was not done in time.
    Deadline,
    /// It used up its memory.
    Memory,
    /// It called itself too deeply.
    Stack,
    /// It made too many API calls.
    ApiCalls,
    /// Its result is too long.
    ResultSize,
    /// It waits for a promise that nothing can settle any more.
    Stalled,
    /// Too many scripts wait for a thread: try again.
    Busy,
    /// The script thread was lost or is stopping: try again.
    Lost,
}

impl Kind {
    /// True when the same call may well go through later, since the script is not to blame.
    pub fn passing(self) -> bool {
        matches!(self, Self::Busy | Self::Lost)
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    pub kind: Kind,
    pub file: String,
    /// The line of the script, where it is known.
    pub line: Option<u32>,
    /// What JavaScript or the sandbox says.
    pub message: String,
    /// For `Kind::Api`: how the app failed.
    pub cause: Option<CallError>,
    /// The number of the API call whose error the script let through, until `cause` is found by it.
    api_call: Option<u32>,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for ScriptError {}

impl From<ScriptError> for CallError {
    fn from(error: ScriptError) -> Self {
        match error {
            ScriptError { cause: Some(cause), .. } => cause,
            error if error.kind.passing() => Self::unavailable(error.to_string()),
            error => Self::Script(error.to_string()),
        }
    }
}

/// One `apiClient` call of a script.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiRequest {
    /// Upper-case.
    pub method: String,
    /// Relative to the connection's base URI; never absolute.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    pub content_type: Option<String>,
}

/// A 2xx answer of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiReply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// Why an `apiClient` call has no answer. The script sees `message`, `status` and `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiFailure {
    /// The app's status, where it answered.
    pub status: Option<u16>,
    /// The content type and body of the app's answer, where there is one.
    pub content_type: Option<String>,
    pub body: String,
    pub error: CallError,
}

/// What an API call comes to.
pub type ApiOutcome<'a> = Pin<Box<dyn Future<Output = Result<ApiReply, ApiFailure>> + Send + 'a>>;

/// Where `apiClient` leads: a connection with its base URI, credentials and rate budget.
pub trait ApiCaller: Sync {
    /// Makes one call. A non-2xx is a failure.
    fn call(&self, request: ApiRequest) -> ApiOutcome<'_>;
}

/// Loads a script as a call would, and looks for its default export. For the registry and for `connector check`: it runs
/// on the calling thread, for at most the CPU time of one call.
pub fn check(options: &Options, script: &Script) -> Result<(), ScriptError> {
    vm::check(options, script)
}

/// An answer as the prelude reads it.
#[derive(Serialize)]
struct ReplyText<'a> {
    status: Option<u16>,
    headers: serde_json::Map<String, serde_json::Value>,
    body: &'a str,
    message: String,
}

fn reply_text(outcome: &Result<ApiReply, ApiFailure>) -> String {
    let named = |pairs: Vec<(&str, &str)>| pairs.into_iter().map(|(n, v)| (n.to_owned(), v.into())).collect();
    let reply = match outcome {
        Ok(reply) => ReplyText {
            status: Some(reply.status),
            headers: named(reply.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()),
            body: &reply.body,
            message: String::new(),
        },
        Err(failure) => ReplyText {
            status: failure.status,
            headers: named(failure.content_type.iter().map(|t| ("content-type", t.as_str())).collect()),
            body: &failure.body,
            message: failure.error.to_string(),
        },
    };
    serde_json::to_string(&reply).unwrap_or_default()
}

#[cfg(test)]
mod tests;
