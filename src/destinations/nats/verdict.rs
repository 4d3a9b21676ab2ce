//! What a NATS server has against us: `-ERR`, an acknowledgement that is none, a failure of the way.
//!
//! Always true: what only the owner can mend pauses, what time mends is tried again, what is in an event is that event's.
//! Codes are those of nats-server, `server/errors.json`; sentences those of its `server/errors.go`. Not here: noticing them
//! (`link`, `publish`).

use std::io;

use serde::Deserialize;

use super::wire::Message;
use crate::destinations::driver::{Fault, Verdict};
use crate::domain::failure::Failure;
use crate::domain::trouble::Trouble;
use crate::outbound::raw::classify_tls;

/// Said where no stream listens.
pub(super) const NOBODY: &str = "no stream takes the subject: have one whose subjects include it, and JetStream switched \
                                 on for the account";

/// An acknowledgement, or what JetStream answers in its place.
#[derive(Deserialize)]
pub(super) struct Ack {
    pub(super) stream: Option<String>,
    pub(super) error: Option<Refusal>,
}

/// JetStream's own error.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Refusal {
    code: u16,
    pub(super) err_code: u16,
    description: String,
}

/// What the answer to a published message says. A repetition that was dropped (`"duplicate": true`) is there already.
pub(super) fn ack(message: &Message) -> Verdict {
    if message.status == Some(503) {
        return Verdict::Config(Fault::new(Trouble::TargetMissing, NOBODY));
    }
    match serde_json::from_slice::<Ack>(&message.body) {
        Ok(Ack { error: Some(refusal), .. }) => refused(&refusal),
        Ok(Ack { stream: Some(_), error: None }) => Verdict::Done,
        _ => {
            let detail = "what answers on the subject is no stream: let nothing else answer there";
            Verdict::Config(Fault::new(Trouble::SettingsRefused, detail))
        }
    }
}

/// What JetStream has against a message or a question.
pub(super) fn refused(refusal: &Refusal) -> Verdict {
    let Refusal { code, err_code, description } = refusal;
    let fault = |trouble| Fault::new(trouble, format!("{err_code}: {description}"));
    match (err_code, code) {
        // The message, or its headers, are larger than the stream or the server takes.
        (10_054 | 10_097, _) => Verdict::Row(fault(Trouble::TooLarge)),
        // The stream's or the account's limits (`discard: new`), the server's disk or memory.
        (10_002 | 10_023 | 10_028 | 10_047 | 10_053, _) => Verdict::Retry(fault(Trouble::Full)),
        (10_077, _) if description.contains("exceeded") => Verdict::Retry(fault(Trouble::Full)),
        (10_035 | 10_039 | 10_076, _) => Verdict::Config(fault(Trouble::SettingsRefused)),
        (10_109, _) => Verdict::Config(fault(Trouble::ReadOnly)),
        (10_008 | 10_009, _) => Verdict::Retry(fault(Trouble::Restarting)),
        (_, 404) => Verdict::Config(fault(Trouble::TargetMissing)),
        // The same id is being written at this moment.
        (_, 409) => Verdict::Retry(fault(Trouble::Conflict)),
        (_, 429) => Verdict::Retry(fault(Trouble::Throttled)),
        // What the stream wants of each message, and these have not.
        (_, 400..500) => Verdict::Config(fault(Trouble::SettingsRefused)),
        _ => Verdict::Retry(fault(Trouble::Failed)),
    }
}

/// What `-ERR` says.
pub(super) fn error(text: &str) -> Verdict {
    let fault = |trouble| Fault::new(trouble, text);
    let lower = text.to_ascii_lowercase();
    let says = |words: &str| lower.contains(words);
    if says("permissions violation") {
        Verdict::Config(fault(Trouble::PermissionDenied))
    } else if says("authorization violation") || says("authentication expired") || says("authentication revoked") {
        Verdict::Config(fault(Trouble::CredentialsRefused))
    } else if says("tls required") {
        Verdict::Config(Fault::new(Trouble::SettingsRefused, "the server wants TLS: use tls:// in settings.servers"))
    } else if says("connections exceeded") {
        Verdict::Retry(fault(Trouble::Busy))
    } else {
        Verdict::Retry(fault(Trouble::Failed))
    }
}

/// The way to the server failed.
pub(super) fn way(failure: Failure) -> Verdict {
    if failure == Failure::HttpsRequired {
        let detail =
            "use tls:// in settings.servers: without encryption only networks that the node allows are reached";
        return Verdict::Config(Fault { detail: detail.to_owned(), ..Fault::way(failure) });
    }
    Verdict::way(failure)
}

/// The connection broke. A server that wants a client's certificate says so only after the handshake (TLS 1.3).
pub(super) fn broken(error: &io::Error) -> Verdict {
    use rustls::AlertDescription as Alert;
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(Alert::CertificateRequired)) => {
            let detail = "the server wants a client's certificate: set clientCertificate and clientKey";
            Verdict::Config(Fault::new(Trouble::CredentialsRefused, detail))
        }
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate | Alert::UnknownCA | Alert::CertificateExpired | Alert::CertificateUnknown,
        )) => {
            let detail = "the server does not take the client's certificate";
            Verdict::Config(Fault::new(Trouble::CredentialsRefused, detail))
        }
        Some(_) => way(classify_tls(error)),
        None => way(Failure::ConnectionClosed),
    }
}

/// Whoever answers does not speak NATS.
pub(super) fn foreign() -> Verdict {
    Verdict::Retry(Fault::new(Trouble::Failed, "what answers there does not speak the protocol of NATS"))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::domain::delivery::AttemptError;

    fn said(body: &str) -> Verdict {
        ack(&Message { subject: "_INBOX.a.1".to_owned(), status: None, body: BytesMut::from(body) })
    }

    fn trouble(verdict: &Verdict) -> Trouble {
        match verdict {
            Verdict::Retry(Fault { error: AttemptError::Destination(trouble), .. })
            | Verdict::Row(Fault { error: AttemptError::Destination(trouble), .. })
            | Verdict::Config(Fault { error: AttemptError::Destination(trouble), .. }) => *trouble,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_answer_has_its_verdict() {
        assert_eq!(said(r#"{"stream":"S","seq":7}"#), Verdict::Done);
        assert_eq!(said(r#"{"stream":"S","seq":7,"duplicate":true}"#), Verdict::Done);
        let refused = |code: u16, err_code: u16, description: &str| {
            said(&format!(
                r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{description}"}},"stream":"S","seq":0}}"#
            ))
        };
        let is_retry = |verdict: &Verdict| matches!(verdict, Verdict::Retry(_));
        for (code, err_code, words, expected) in [
            (503, 10_077, "maximum messages exceeded", Trouble::Full),
            (503, 10_077, "maximum bytes exceeded", Trouble::Full),
            (500, 10_047, "insufficient storage resources available", Trouble::Full),
            (503, 10_077, "write failed", Trouble::Failed),
            (503, 10_008, "JetStream system temporarily unavailable", Trouble::Restarting),
            (409, 10_158, "duplicate message id is in process", Trouble::Conflict),
            (429, 10_167, "too many requests", Trouble::Throttled),
        ] {
            let verdict = refused(code, err_code, words);
            assert!(is_retry(&verdict) && trouble(&verdict) == expected, "{words}: {verdict:?}");
        }
        let verdict = refused(400, 10_054, "message size exceeds maximum allowed");
        assert!(matches!(&verdict, Verdict::Row(fault) if fault.detail.starts_with("10054: ")), "{verdict:?}");
        for (code, err_code, words, expected) in [
            (400, 10_109, "invalid operation on sealed stream", Trouble::ReadOnly),
            (503, 10_039, "JetStream not enabled for account", Trouble::SettingsRefused),
            (404, 10_059, "stream not found", Trouble::TargetMissing),
            (400, 10_169, "message counter increment is missing", Trouble::SettingsRefused),
        ] {
            let verdict = refused(code, err_code, words);
            assert!(matches!(&verdict, Verdict::Config(_)) && trouble(&verdict) == expected, "{words}: {verdict:?}");
        }
        // A service that answers on the subject is no stream.
        for body in ["", "thanks", "{}"] {
            assert_eq!(trouble(&said(body)), Trouble::SettingsRefused, "{body}");
        }
    }

    #[test]
    fn each_err_has_its_verdict() {
        for (text, expected) in [
            ("Authorization Violation", Trouble::CredentialsRefused),
            ("User Authentication Expired", Trouble::CredentialsRefused),
            ("User Authentication Revoked", Trouble::CredentialsRefused),
            ("Permissions Violation for Publish to \"a.b\"", Trouble::PermissionDenied),
            ("Secure Connection - TLS Required", Trouble::SettingsRefused),
        ] {
            let verdict = error(text);
            assert!(matches!(&verdict, Verdict::Config(_)) && trouble(&verdict) == expected, "{text}");
        }
        for (text, expected) in [
            ("maximum connections exceeded", Trouble::Busy),
            ("Maximum Account Active Connections Exceeded", Trouble::Busy),
            ("Stale Connection", Trouble::Failed),
        ] {
            let verdict = error(text);
            assert!(matches!(&verdict, Verdict::Retry(_)) && trouble(&verdict) == expected, "{text}");
        }
    }
}
