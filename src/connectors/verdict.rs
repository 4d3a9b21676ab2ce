//! What an app's answer, or its silence, means.
//!
//! Always true: everything that is not a good answer becomes a [`CallFailure`]; the connector's own rules come before the
//! usual meaning of a status. Not here: what follows (the watcher).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::CallError;
use super::budget::retry_after;
use super::caller::{CallFailure, Incoming};
use super::files::Span;
use super::mapping::path::Path;
use super::spec::Connector;
use crate::domain::time::Millis;
use crate::outbound::{Answer, Failure};

/// How much of an app's message is kept.
const MESSAGE_CHARS_MAX: usize = 300;
/// Bytes of a column's name.
const COLUMN_BYTES_MAX: usize = 100;

/// What an answer of the app means, where its status alone does not say.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    pub status: Vec<u16>,
    /// A part of the body …
    pub at: Option<Path>,
    /// … that holds this text, in any case.
    pub contains: Option<String>,
    pub means: Meaning,
    /// How long to wait where the app does not say.
    pub wait: Option<Span>,
    /// Where that part names the column, for `column-missing`.
    pub column: Option<Between>,
    /// What a person may do about it, said behind the app's own words.
    pub hint: Option<String>,
}

/// A name inside a text: what stands between these two.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Between {
    after: String,
    before: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Meaning {
    Unauthorized,
    RateLimited,
    Unavailable,
    Refused,
    /// The record is not there.
    Gone,
    /// The walk over the pages must start again.
    PageExpired,
    /// The page is too large for the app: ask for fewer records.
    TooCostly,
    /// A field that was asked for is not there any more: the fields are read again.
    FieldsChanged,
    /// A query names a column that the account lacks: it is asked again without that.
    ColumnMissing,
}

impl Connector {
    /// What is wrong with the rules about columns: where a column's name stands and what it is for go together.
    pub(super) fn nameless_column(&self) -> Option<(&'static str, &'static str)> {
        let is_missing = |means: Meaning| means == Meaning::ColumnMissing;
        if self.errors.iter().any(|rule| is_missing(rule.means) != rule.column.is_some()) {
            let message = "`means: column-missing` and `column` go together: say between which texts the name stands";
            return Some(("errors", message));
        }
        let mut codes = self.graphql.iter().flat_map(|graphql| &graphql.errors);
        let message = "column-missing is for queries that are texts with columns; a query of GraphQL has none";
        codes.any(|rule| is_missing(rule.means)).then_some(("graphql.errors", message))
    }
}

/// A call that got no answer.
pub fn of_failure(failure: Failure) -> CallFailure {
    CallFailure::silent(match failure {
        Failure::AddressForbidden | Failure::HttpsRequired => CallError::AddressForbidden(failure.to_string()),
        Failure::BadRequest => CallError::BadAnswer(failure.to_string()),
        other => CallError::unavailable(other.to_string()),
    })
}

/// A good answer, or what is wrong with it.
pub fn judge(connector: &Connector, answer: Answer, now: Millis) -> Result<Incoming, CallFailure> {
    let headers: Vec<(String, String)> = (answer.headers.iter())
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let told_wait = header("retry-after").and_then(|text| retry_after(text, now));
    let content_type = header("content-type").map(str::to_owned);
    let status = answer.status;
    let fail =
        |error, gone, body| CallFailure { error, status: Some(status), content_type: content_type.clone(), body, gone };
    if answer.cut && (200..300).contains(&status) {
        let message = format!("the answer is longer than {} bytes", connector.answer_bytes_max);
        return Err(fail(CallError::BadAnswer(message), false, String::new()));
    }
    // Without a copy, since nobody else holds the answer.
    let body = match String::from_utf8(Vec::from(answer.body)) {
        Ok(body) => body.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(body),
        Err(_) if (200..300).contains(&status) => {
            let error = CallError::BadAnswer("the answer is not UTF-8 text".to_owned());
            return Err(fail(error, false, String::new()));
        }
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    let rule = connector.errors.iter().find(|rule| fits(rule, status, &body));
    if rule.is_none() && (200..300).contains(&status) {
        return Ok(Incoming { status, headers, body });
    }
    let meaning = rule.map_or_else(|| usual(status), |rule| rule.means);
    let wait = told_wait.or_else(|| rule.and_then(|rule| rule.wait).map(|wait| wait.0));
    let message = match rule.and_then(|rule| rule.hint.as_ref()) {
        None => message(connector, &body),
        Some(hint) => format!("{} ({hint})", message(connector, &body)),
    };
    if let Some(column) = rule.filter(|rule| rule.means == Meaning::ColumnMissing).and_then(|rule| rule.names(&body)) {
        return Err(fail(CallError::ColumnMissing { column, message }, false, body));
    }
    Err(fail(error(meaning, status, message, wait), meaning == Meaning::Gone, body))
}

fn error(meaning: Meaning, status: u16, message: String, retry_after: Option<Duration>) -> CallError {
    match meaning {
        Meaning::Unauthorized => CallError::Unauthorized(message),
        Meaning::RateLimited => CallError::RateLimited { retry_after },
        Meaning::Unavailable => CallError::Unavailable { reason: format!("status {status}: {message}"), retry_after },
        Meaning::PageExpired => CallError::PageExpired(message),
        Meaning::TooCostly => CallError::TooCostly(message),
        Meaning::FieldsChanged => CallError::FieldsChanged(message),
        // Without its name nobody can leave it out.
        Meaning::Refused | Meaning::Gone | Meaning::ColumnMissing => CallError::Refused { status, message },
    }
}

/// The meaning that RFC 9110, 6585 and 4918 give a status. 425 and 423 pass by themselves.
fn usual(status: u16) -> Meaning {
    match status {
        401 => Meaning::Unauthorized,
        429 => Meaning::RateLimited,
        408 | 423 | 425 | 500..=599 => Meaning::Unavailable,
        404 | 410 => Meaning::Gone,
        _ => Meaning::Refused,
    }
}

fn fits(rule: &ErrorRule, status: u16, body: &str) -> bool {
    if !rule.status.contains(&status) {
        return false;
    }
    let Some(wanted) = &rule.contains else { return true };
    rule.part(body).is_some_and(|text| text.to_lowercase().contains(&wanted.to_lowercase()))
}

impl ErrorRule {
    /// The part of the body that the rule is about.
    fn part(&self, body: &str) -> Option<String> {
        match &self.at {
            None => Some(body.to_owned()),
            Some(path) => serde_json::from_str::<Value>(body).ok().and_then(|body| Some(plain(path.find(&body)?))),
        }
    }
    /// The column that it names.
    fn names(&self, body: &str) -> Option<String> {
        let (between, part) = (self.column.as_ref()?, self.part(body)?);
        let name = part.split_once(&between.after)?.1.split_once(&between.before)?.0;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.len() <= COLUMN_BYTES_MAX && name.chars().all(is_name)).then(|| name.to_owned())
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The app's own words: where the connector says, else in the usual places, else the start of the body.
fn message(connector: &Connector, body: &str) -> String {
    let json: Option<Value> = serde_json::from_str(body).ok();
    let told = json.as_ref().and_then(|body| {
        let own = connector.error_message.as_ref().and_then(|path| path.find(body));
        let usual = || {
            ["/message", "/error/message", "/error_description", "/detail", "/error", "/errors/0/message", "/0/message"]
                .iter()
                .find_map(|pointer| body.pointer(pointer).filter(|value| value.is_string()))
        };
        own.or_else(usual).map(plain)
    });
    let start = body.trim_start();
    let text = told.unwrap_or_else(|| match start.starts_with('<') {
        true => "an HTML page".to_owned(),
        false => start.to_owned(),
    });
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}
