//! What the errors of statements mean.
//!
//! Always true: what nobody knows is tried again. Not here: errors of the Data API itself (`aws::faults`). Source: the
//! texts of Amazon Redshift, which come without codes through the Data API.

use super::super::driver::{Fault, Verdict};
use crate::domain::trouble::Trouble;

/// Whether COPY refused a row: `sys_load_error_detail` then says which column and why.
pub fn is_of_load(error: &str) -> bool {
    ["sys_load_error_detail", "stl_load_errors"].iter().any(|table| error.contains(table))
}

/// Whether a table is gone that was there.
pub fn is_of_missing_table(error: &str) -> bool {
    error.contains("relation") && error.contains("does not exist")
}

/// The verdict of a statement that failed.
pub fn judge(error: &str) -> Verdict {
    let text = error.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let detail = error.trim_start_matches("ERROR:").trim();
    let fault = |trouble| Fault::new(trouble, detail);
    if is_of_load(error) {
        return Verdict::Row(fault(Trouble::ValueRefused));
    }
    if is_of_missing_table(error) {
        return Verdict::Retry(fault(Trouble::Failed));
    }
    if has(&["password authentication failed", "credentials"]) {
        return Verdict::Config(fault(Trouble::CredentialsRefused));
    }
    if has(&["permission denied", "must be owner", "not authorized", "access denied", "accessdenied"]) {
        return Verdict::Config(fault(Trouble::PermissionDenied));
    }
    if has(&["disk full", "no space left"]) {
        return Verdict::Retry(fault(Trouble::Full));
    }
    if has(&["serializable isolation violation", "deadlock detected", "could not serialize"]) {
        return Verdict::Retry(fault(Trouble::Deadlock));
    }
    if has(&["statement timeout", "canceling statement", "cancelled on user", "query aborted", "too many connections"])
    {
        return Verdict::Retry(fault(Trouble::Busy));
    }
    if has(&["shutting down", "starting up", "terminating connection", "being resumed", "paused"]) {
        return Verdict::Retry(fault(Trouble::Restarting));
    }
    if has(&["read-only", "readonly"]) {
        return Verdict::Config(fault(Trouble::ReadOnly));
    }
    if has(&["schema", "database", "user", "role"]) && has(&["does not exist"]) {
        return Verdict::Config(fault(Trouble::TargetMissing));
    }
    if has(&["column"]) && has(&["does not exist", "is of type"]) {
        return Verdict::Config(fault(Trouble::TableMismatch));
    }
    if has(&["value too long", "invalid input", "out of range", "overflow", "invalid digit", "exceeds"]) {
        return Verdict::Row(fault(Trouble::ValueRefused));
    }
    Verdict::Retry(fault(Trouble::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::AttemptError;

    #[test]
    fn errors_mean_what_follows_from_them() {
        for (error, kind, what) in [
            ("ERROR: permission denied for schema crm", "config", Trouble::PermissionDenied),
            (
                "ERROR: User arn:aws:redshift:x is not authorized to assume IAM Role",
                "config",
                Trouble::PermissionDenied,
            ),
            ("ERROR: schema \"crm\" does not exist", "config", Trouble::TargetMissing),
            ("ERROR: 1023 DETAIL: Serializable isolation violation on table", "retry", Trouble::Deadlock),
            ("ERROR: Disk Full", "retry", Trouble::Full),
            ("ERROR: relation \"public.t\" does not exist", "retry", Trouble::Failed),
            ("ERROR: Load into table 't' failed. Check 'sys_load_error_detail'", "row", Trouble::ValueRefused),
            ("ERROR: something nobody has seen", "retry", Trouble::Failed),
        ] {
            let (found, fault) = match judge(error) {
                Verdict::Retry(fault) => ("retry", fault),
                Verdict::Row(fault) => ("row", fault),
                Verdict::Config(fault) => ("config", fault),
                Verdict::Done => ("done", Fault::new(Trouble::Failed, "")),
            };
            assert_eq!((found, fault.error), (kind, AttemptError::Destination(what)), "{error}");
        }
    }
}
