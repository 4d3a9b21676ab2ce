//! What Snowflake's answers mean.
//!
//! Always true: what is not known is tried again, and loses nothing. Not here: what is done about a missing table or
//! column (`wire`).

use std::time::Duration;

use serde::Deserialize;

use crate::destinations::driver::{Fault, Verdict};
use crate::domain::trouble::Trouble;
use crate::outbound::Answer;

/// What a failed statement says (SQL API reference, `QueryFailureStatus`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Failed {
    pub code: String,
    pub message: String,
    pub sql_state: String,
}

impl Failed {
    /// What an answer says; blank if it is not JSON.
    pub fn of(answer: &Answer) -> Self {
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }
    /// A table, schema, database or warehouse that is not there, or that the role does not see.
    pub fn is_missing_object(&self) -> bool {
        matches!(self.code.as_str(), "002003" | "002043")
    }
    /// A column that is not there.
    pub fn is_missing_column(&self) -> bool {
        self.code == "000904"
    }
}

/// What an answer that is neither 200 nor 202 says.
pub fn judge(answer: &Answer) -> Verdict {
    let failed = Failed::of(answer);
    let said = if failed.message.is_empty() { answer.status.to_string() } else { failed.message.clone() };
    let detail = if failed.code.is_empty() { said } else { format!("{}: {said}", failed.code) };
    let wait = answer.header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let fault =
        |trouble| Fault::new(trouble, detail.clone()).after(wait.map(|wait| wait.min(Duration::from_secs(3_600))));
    match (answer.status, failed.code.as_str()) {
        (429, _) => Verdict::Retry(fault(Trouble::Throttled)),
        (503, _) => Verdict::Retry(fault(Trouble::Busy)),
        (408 | 500 | 502 | 504, _) => Verdict::Retry(fault(Trouble::Failed)),
        // "Key-pair authentication: Common errors": 390144 and its neighbours are about the token or the user.
        (401, _) | (_, "390100" | "390101" | "390144" | "394300" | "394304" | "395001") => {
            Verdict::Config(fault(Trouble::CredentialsRefused))
        }
        (_, code) => judge_code(code, answer.status, fault),
    }
}

fn judge_code(code: &str, status: u16, fault: impl Fn(Trouble) -> Fault) -> Verdict {
    match code {
        "002003" | "002043" | "390201" | "000606" => Verdict::Config(fault(Trouble::TargetMissing)),
        "003001" | "003041" | "390189" => Verdict::Config(fault(Trouble::PermissionDenied)),
        "000904" | "002023" => Verdict::Config(fault(Trouble::TableMismatch)),
        // A resource monitor has suspended the warehouse.
        "090073" => Verdict::Config(fault(Trouble::QuotaExceeded)),
        // Locks held by another statement; cancelled; no longer waiting.
        "000625" | "000604" | "000630" => Verdict::Retry(fault(Trouble::Busy)),
        // Too long for a VARCHAR or a VARIANT.
        "100078" | "100082" | "100145" => Verdict::Row(fault(Trouble::TooLarge)),
        // Conversions that fail: numbers, dates, booleans, JSON, null in a column that takes none.
        code if code.len() == 6 && code.starts_with("100") => Verdict::Row(fault(Trouble::ValueRefused)),
        _ if status == 403 => Verdict::Config(fault(Trouble::PermissionDenied)),
        _ if status == 404 => Verdict::Config(fault(Trouble::TargetMissing)),
        _ if status == 413 => Verdict::Row(fault(Trouble::TooLarge)),
        _ => Verdict::Retry(fault(Trouble::Failed)),
    }
}
