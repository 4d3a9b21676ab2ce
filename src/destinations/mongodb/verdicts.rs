//! What a failure means: the server's error codes, and failures on the way.
//!
//! Always true: no message tells an address or a password. Codes are those of the server's `error_codes.yml`. Not here:
//! noticing failures (`cluster`, `write`).

use mongodb::error::{Error, ErrorKind};

use crate::destinations::driver::{Fault, Verdict};
use crate::domain::failure::Failure;
use crate::domain::trouble::Trouble;

/// A write of a key that is there.
pub(super) const DUPLICATE_KEY: i32 = 11_000;

/// Of a whole command. `trouble` is what the gateway knows of the way.
pub(super) fn judge(error: &Error, trouble: Option<Failure>) -> Verdict {
    match &*error.kind {
        ErrorKind::Command(error) => coded(error.code, &error.message),
        ErrorKind::Authentication { .. } => {
            // Its message may have been made of what was sent.
            Verdict::Config(Fault::new(Trouble::CredentialsRefused, "user name, password or authSource is not right"))
        }
        ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => {
            Verdict::Config(Fault::new(Trouble::SettingsRefused, "the connection string cannot be used"))
        }
        ErrorKind::IncompatibleServer { .. } => {
            Verdict::Config(Fault::new(Trouble::SettingsRefused, "the server is too old: use MongoDB 4.2 or later"))
        }
        ErrorKind::DnsResolve { .. } => Verdict::way(trouble.unwrap_or(Failure::DnsFailed)),
        ErrorKind::ServerSelection { .. } | ErrorKind::ProxyConnect { .. } => {
            Verdict::way(trouble.unwrap_or(Failure::ConnectTimeout))
        }
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => {
            Verdict::way(trouble.unwrap_or(Failure::ConnectionClosed))
        }
        _ => Verdict::Retry(Fault::new(Trouble::Failed, "the server's answer was not understood")),
    }
}

/// Of a code, and what the server says with it.
pub(super) fn coded(code: i32, message: &str) -> Verdict {
    let fault = |trouble| Fault::new(trouble, format!("error {code}: {message}"));
    let retry = |trouble| Verdict::Retry(fault(trouble));
    let row = |trouble| Verdict::Row(fault(trouble));
    let config = |trouble| Verdict::Config(fault(trouble));
    match code {
        13 => config(Trouble::PermissionDenied),
        11 | 18 | 334 => config(Trouble::CredentialsRefused),
        // Atlas has one code for all that it refuses by itself, and says which in words.
        8000 if message.contains("quota") => retry(Trouble::QuotaExceeded),
        8000 if message.contains("auth") => config(Trouble::CredentialsRefused),
        8000 => config(Trouble::PermissionDenied),
        73 => config(Trouble::SettingsRefused),
        166 | 20 | 115 => config(Trouble::TableMismatch),
        14_031 => retry(Trouble::Full),
        462 | 16_500 => retry(Trouble::Throttled),
        24 | 46 | 50 | 64 | 100 | 262 => retry(Trouble::Busy),
        112 | 251 => retry(Trouble::Conflict),
        6 | 7 | 89 | 91 | 189 | 9_001 | 10_058 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436 => {
            retry(Trouble::Restarting)
        }
        10_334 | 17_280 | 17_419 | 17_420 => row(Trouble::TooLarge),
        DUPLICATE_KEY => row(Trouble::ValueRefused),
        2 | 9 | 14 | 15 | 22 | 28 | 40 | 52 | 54 | 55 | 56 | 57 | 121 => row(Trouble::ValueRefused),
        _ => retry(Trouble::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_who_can_mend_them() {
        for (code, message, slug, sort) in [
            (13, "", "permission-denied", "config"),
            (18, "", "credentials-refused", "config"),
            (121, "", "value-refused", "row"),
            (10_334, "", "value-too-large", "row"),
            (14_031, "", "destination-full", "retry"),
            (16_500, "", "throttled", "retry"),
            (11_602, "", "destination-restarting", "retry"),
            (112, "", "destination-conflict", "retry"),
            (8_000, "you are over your space quota", "quota-exceeded", "retry"),
            (99_999, "", "destination-failed", "retry"),
        ] {
            let (fault, found) = match coded(code, message) {
                Verdict::Retry(fault) => (fault, "retry"),
                Verdict::Row(fault) => (fault, "row"),
                Verdict::Config(fault) => (fault, "config"),
                Verdict::Done => panic!("{code}"),
            };
            assert_eq!((fault.error.slug(), found), (slug, sort), "{code}");
        }
    }
}
