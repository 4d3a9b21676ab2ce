//! What PostgreSQL has against us, by its SQLSTATE (PostgreSQL's docs, appendix A).
//!
//! Always true: what only the owner can mend pauses, what time mends is tried again, what is in an event is that event's;
//! a code that is not in the table is tried again; a message that tells of addresses is not passed on. Not here: the way
//! to the server, TLS aside (`outbound`).

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use crate::destinations::driver::{Fault, Verdict};
use crate::domain::failure::Failure;
use crate::domain::trouble::Trouble;
use crate::outbound::raw;

/// Opening a connection failed: TLS, signing in.
pub(super) fn opening(error: &Error) -> Verdict {
    if let Some(db) = error.as_db_error() {
        return answered(db);
    }
    let cause = error.source();
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        // A handshake's error, or the connection's.
        let is_tls = io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        return Verdict::way(if is_tls { raw::classify_tls(io) } else { Failure::ConnectionClosed });
    }
    match cause.map(ToString::to_string).as_deref() {
        Some("server does not support TLS") => {
            let detail = "the server does not speak TLS; switch its `ssl` on, or set sslMode to disable";
            Verdict::Config(Fault::new(Trouble::SettingsRefused, detail))
        }
        Some("password missing") => {
            Verdict::Config(Fault::new(Trouble::CredentialsRefused, "the server asks for a password, and none is set"))
        }
        Some(other) if other.starts_with("unsupported authentication") => {
            let detail = "the server asks for a way to sign in that is not supported; use scram-sha-256";
            Verdict::Config(Fault::new(Trouble::SettingsRefused, detail))
        }
        _ => Verdict::Retry(Fault::way(Failure::ConnectionClosed)),
    }
}

/// A statement failed.
pub(super) fn statement(error: &Error) -> Verdict {
    match error.as_db_error() {
        Some(db) => answered(db),
        None => Verdict::Retry(Fault::way(Failure::ConnectionClosed)),
    }
}

fn answered(error: &DbError) -> Verdict {
    let code = error.code().code();
    // Such messages name the address that the server sees us come from.
    let message = if code.starts_with("28") { "the server does not let this user in" } else { error.message() };
    judge(code, &format!("{message} (SQLSTATE {code})"))
}

/// The table.
fn judge(code: &str, detail: &str) -> Verdict {
    let retry = |trouble| Verdict::Retry(Fault::new(trouble, detail));
    let config = |trouble| Verdict::Config(Fault::new(trouble, detail));
    let row = |trouble| Verdict::Row(Fault::new(trouble, detail));
    match (code.get(..2).unwrap_or_default(), code) {
        ("08", _) => retry(Trouble::Restarting),
        (_, "40P01") => retry(Trouble::Deadlock),
        ("40", _) => retry(Trouble::Conflict),
        (_, "53100") => retry(Trouble::Full),
        ("53", _) => retry(Trouble::Busy),
        (_, "55P03" | "55006" | "57014") => retry(Trouble::Busy),
        (_, "57P04" | "3D000" | "3F000") => config(Trouble::TargetMissing),
        ("57", _) => retry(Trouble::Restarting),
        // A failover takes a while; the driver pauses when it does not end (`mod`).
        (_, "25006") => retry(Trouble::ReadOnly),
        ("21" | "22" | "23" | "44" | "P0", _) => row(Trouble::ValueRefused),
        // A table cannot have as many columns: no event's fault.
        (_, "54011") => config(Trouble::TableMismatch),
        ("54", _) => row(Trouble::TooLarge),
        ("28", _) => config(Trouble::CredentialsRefused),
        (_, "42501" | "0P000" | "0LP01") => config(Trouble::PermissionDenied),
        ("42" | "0A" | "55", _) => config(Trouble::TableMismatch),
        _ => retry(Trouble::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::AttemptError;

    fn verdict(code: &str) -> (char, Trouble) {
        let (kind, fault) = match judge(code, "") {
            Verdict::Done => panic!("{code} is done"),
            Verdict::Retry(fault) => ('t', fault),
            Verdict::Row(fault) => ('r', fault),
            Verdict::Config(fault) => ('c', fault),
        };
        let AttemptError::Destination(trouble) = fault.error else { panic!("{code}") };
        (kind, trouble)
    }

    #[test]
    fn every_class_of_codes_has_its_verdict() {
        use Trouble::*;
        let table = [
            ("08006", 't', Restarting),
            ("40001", 't', Conflict),
            ("40P01", 't', Deadlock),
            ("53100", 't', Full),
            ("53200", 't', Busy),
            ("53300", 't', Busy),
            ("55P03", 't', Busy),
            ("57014", 't', Busy),
            ("57P01", 't', Restarting),
            ("57P03", 't', Restarting),
            ("57P04", 'c', TargetMissing),
            ("3D000", 'c', TargetMissing),
            ("3F000", 'c', TargetMissing),
            ("25006", 't', ReadOnly),
            ("22001", 'r', ValueRefused),
            ("22P05", 'r', ValueRefused),
            ("21000", 'r', ValueRefused),
            ("23505", 'r', ValueRefused),
            ("P0001", 'r', ValueRefused),
            ("54000", 'r', TooLarge),
            ("54011", 'c', TableMismatch),
            ("28P01", 'c', CredentialsRefused),
            ("28000", 'c', CredentialsRefused),
            ("42501", 'c', PermissionDenied),
            ("42P01", 'c', TableMismatch),
            ("42703", 'c', TableMismatch),
            ("42P10", 'c', TableMismatch),
            ("0A000", 'c', TableMismatch),
            ("XX000", 't', Failed),
            ("58030", 't', Failed),
            ("?", 't', Failed),
        ];
        for (code, kind, trouble) in table {
            assert_eq!(verdict(code), (kind, trouble), "{code}");
        }
    }
}
