//! The one table of error codes: slug, HTTP status, whose fault.
//!
//! Always true: an error that reaches a caller has a stable code and a sentence that says what to do. A fault of a
//! destination or of an app is not an error but a recorded attempt or pull (see `domain::delivery`, `domain::pull`).

use std::fmt;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Ours: logged with its whole chain, told to the caller without detail, never uses up a try.
    Engine,
    /// The caller's: a 4xx with a sentence that says what to do.
    Caller,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:literal, $fault:ident;)*) => {
        /// Every code an API error can carry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All of them, for the docs and the checks.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];
            /// The stable text in `{"code": …}`.
            pub fn slug(self) -> &'static str { match self { $(Code::$name => $slug,)* } }
            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 { match self { $(Code::$name => $status,)* } }
            /// Whose fault it is.
            pub fn fault(self) -> Fault { match self { $(Code::$name => Fault::$fault,)* } }
        }
    };
}

codes! {
    /// The body or a parameter cannot be read.
    Malformed = "malformed", 400, Caller;
    /// No API key, or an unknown, expired or revoked one.
    Unauthorized = "unauthorized", 401, Caller;
    /// A webhook whose signature is missing or wrong.
    BadSignature = "bad-signature", 401, Caller;
    /// The key lacks the scope.
    Forbidden = "forbidden", 403, Caller;
    /// No such path.
    RouteNotFound = "route-not-found", 404, Caller;
    WorkspaceNotFound = "workspace-not-found", 404, Caller;
    KeyNotFound = "key-not-found", 404, Caller;
    UserNotFound = "user-not-found", 404, Caller;
    SubscriptionNotFound = "subscription-not-found", 404, Caller;
    HookNotFound = "hook-not-found", 404, Caller;
    ReplayNotFound = "replay-not-found", 404, Caller;
    DeliveryNotFound = "delivery-not-found", 404, Caller;
    EventNotFound = "event-not-found", 404, Caller;
    TopicNotFound = "topic-not-found", 404, Caller;
    RecordNotFound = "record-not-found", 404, Caller;
    ConnectorNotFound = "connector-not-found", 404, Caller;
    IntegrationNotFound = "integration-not-found", 404, Caller;
    ConnectionNotFound = "connection-not-found", 404, Caller;
    DestinationNotFound = "destination-not-found", 404, Caller;
    InboxNotFound = "inbox-not-found", 404, Caller;
    WebhookNotFound = "webhook-not-found", 404, Caller;
    BackupNotFound = "backup-not-found", 404, Caller;
    ErasureNotFound = "erasure-not-found", 404, Caller;
    /// The path is there, the method is not.
    MethodNotAllowed = "method-not-allowed", 405, Caller;
    /// Something with that name, or that address and topics, is already there.
    Conflict = "conflict", 409, Caller;
    /// The same `Idempotency-Key` is being worked on.
    InProgress = "in-progress", 409, Caller;
    /// A stream cannot go on where it stopped: what came next is past its retention.
    EventsGone = "events-gone", 410, Caller;
    TooLarge = "too-large", 413, Caller;
    /// Well-formed, but refused: the message names the field.
    Invalid = "invalid", 422, Caller;
    UnknownField = "unknown-field", 422, Caller;
    UnknownTopic = "unknown-topic", 422, Caller;
    AddressForbidden = "address-forbidden", 422, Caller;
    /// The target of a hook does not want to be one.
    HandshakeFailed = "handshake-failed", 422, Caller;
    /// The same `Idempotency-Key` came with another body.
    IdempotencyMismatch = "idempotency-mismatch", 422, Caller;
    TooManyRequests = "too-many-requests", 429, Caller;
    /// An app gave no answer that could be passed on.
    AppFailed = "app-failed", 502, Caller;
    /// Our fault: see the log.
    Internal = "internal", 500, Engine;
    /// The disk is nearly full, the commit queue is long, or the node is draining.
    Unavailable = "unavailable", 503, Engine;
}

/// What a caller is told, and what the log is told beside it.
#[derive(Debug)]
pub struct Error {
    pub code: Code,
    /// What is wrong and what to do; shown to the caller.
    pub message: String,
    /// Seconds, for 409 in-progress, 429 and 503.
    pub retry_after: Option<u32>,
    /// The cause; logged, never shown.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, source: None }
    }
    /// 422 `invalid`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }
    /// 500 with its cause for the log.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..Self::new(Code::Internal, "internal error; the node's log says more") }
    }
    /// 503: try again after so many seconds.
    pub fn unavailable(message: impl Into<String>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::Unavailable, message) }
    }
    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// Message and causes in one line, for the log and for the command line.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique() {
        let slugs: std::collections::HashSet<_> = Code::ALL.iter().map(|c| c.slug()).collect();
        assert_eq!(slugs.len(), Code::ALL.len());
    }
}
