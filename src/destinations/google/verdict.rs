//! What an answer of one of Google's JSON APIs means.
//!
//! Always true: what only time mends is tried again, what only the owner mends pauses the destination, and an event is
//! blamed only for a request that carries events. Not here: answers that prove that a write was made before (409, 412:
//! each service).

use std::time::Duration;

use serde_json::Value;

use crate::destinations::driver::{Fault, Verdict};
use crate::domain::trouble::Trouble;
use crate::outbound::Answer;

/// The longest wait that an answer can ask for.
const AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A table, a topic, a permission.
    Setup,
    /// Events were in it.
    Events,
}

/// What an answer that is not 2xx says.
pub fn judge(answer: &Answer, asked: Asked) -> Verdict {
    let reason = reason(answer);
    let fault = |trouble| Fault::new(trouble, words(answer)).after(after(answer));
    match (answer.status, reason.as_str()) {
        // Google's "BigQuery error messages", "Cloud Storage HTTP status and error codes", "Pub/Sub error codes".
        (403 | 429, "quotaExceeded") => Verdict::Retry(fault(Trouble::QuotaExceeded)),
        (403, "rateLimitExceeded" | "userRateLimitExceeded" | "jobRateLimitExceeded") | (429, _) => {
            Verdict::Retry(fault(Trouble::Throttled))
        }
        (403, "billingNotEnabled" | "billingTierLimitExceeded" | "accountDisabled" | "userProjectAccountProblem") => {
            Verdict::Config(fault(Trouble::QuotaExceeded))
        }
        (401, _) => Verdict::Config(fault(Trouble::CredentialsRefused)),
        (403, _) => Verdict::Config(fault(Trouble::PermissionDenied)),
        (404 | 410, _) => Verdict::Config(fault(Trouble::TargetMissing)),
        (413, _) if asked == Asked::Events => Verdict::Row(fault(Trouble::TooLarge)),
        // Billing, a key of the owner's own, a region that a policy bars (Pub/Sub's "Error codes").
        (400, "FAILED_PRECONDITION" | "failedPrecondition") => Verdict::Config(fault(Trouble::SettingsRefused)),
        (400 | 422, _) if asked == Asked::Events => Verdict::Row(fault(Trouble::ValueRefused)),
        (409 | 412, _) => Verdict::Retry(fault(Trouble::Conflict)),
        (408 | 500 | 502 | 504, _) => Verdict::Retry(fault(Trouble::Failed)),
        (503, _) => Verdict::Retry(fault(Trouble::Busy)),
        (400..500, _) => Verdict::Config(fault(Trouble::SettingsRefused)),
        _ => Verdict::Retry(fault(Trouble::Failed)),
    }
}

/// `error.errors[0].reason`, or `error.status`; empty if there is neither.
pub fn reason(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error = body.get("error");
    let first = error.and_then(|error| error.pointer("/errors/0/reason"));
    let text = first.or_else(|| error?.get("status")).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// What an answer says to a person: the status, and Google's own sentence.
pub fn words(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    // `error` is an object in the APIs, and text in answers of OAuth (RFC 6749, section 5.2).
    let said = text("/error/message").or_else(|| text("/error_description")).or_else(|| text("/error"));
    match said {
        Some(said) => format!("{}: {said}", answer.status),
        None => answer.status.to_string(),
    }
}

fn after(answer: &Answer) -> Option<Duration> {
    let seconds: u64 = answer.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(AFTER_MAX))
}
