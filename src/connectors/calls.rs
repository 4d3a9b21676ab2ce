//! What can go wrong at a third party, as values.
//!
//! Always true: nothing here is an error of ours, and no message holds a credential. Not here: what follows from a
//! failure (the watcher decides: refresh, wait, back off, give up).

use std::time::Duration;

/// How a call of an app, or of a connector's script, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// 401, or no usable token: refresh once, then the connection needs new credentials.
    #[error("the app does not accept the credentials: {0}")]
    Unauthorized(String),
    /// 429, or our own budget is used up.
    #[error("the app's rate limit is reached")]
    RateLimited {
        /// How long to wait, where the app says so.
        retry_after: Option<Duration>,
    },
    /// 5xx, a timeout, no connection: try again later.
    #[error("the app cannot be reached: {reason}")]
    Unavailable {
        reason: String,
        /// How long to wait, where the app says so.
        retry_after: Option<Duration>,
    },
    /// Another 4xx or a redirect: asking the same again will not help.
    #[error("the app refused with status {status}: {message}")]
    Refused { status: u16, message: String },
    /// HTML, half a JSON, too long, not the promised shape.
    #[error("the app's answer cannot be read: {0}")]
    BadAnswer(String),
    /// The page's mark is no longer good: start the walk again.
    #[error("the app no longer knows the page: {0}")]
    PageExpired(String),
    /// The page is too large for the app, and could not be made smaller.
    #[error("the app finds the query too costly: {0}")]
    TooCostly(String),
    /// A field that was asked for is not there any more, or hidden from this account: read the fields again.
    #[error("the app does not know a field that was asked for: {0}")]
    FieldsChanged(String),
    /// A query names a column that the account lacks.
    #[error("the app does not know the column {column}: {message}")]
    ColumnMissing { column: String, message: String },
    /// The connector's script threw, or hit a limit.
    #[error("the connector's script failed: {0}")]
    Script(String),
    /// The app's address is one that the node may not call.
    #[error("the app's address is forbidden: {0}")]
    AddressForbidden(String),
    /// The connector has no such method.
    #[error("the connector does not support this: {0}")]
    NotSupported(String),
}

impl CallError {
    /// A short stable name, for metrics and logs.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "unauthorized",
            Self::RateLimited { .. } => "rate-limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
            Self::BadAnswer(_) => "bad-answer",
            Self::PageExpired(_) => "page-expired",
            Self::TooCostly(_) => "too-costly",
            Self::FieldsChanged(_) => "fields-changed",
            Self::ColumnMissing { .. } => "column-missing",
            Self::Script(_) => "script",
            Self::AddressForbidden(_) => "address-forbidden",
            Self::NotSupported(_) => "not-supported",
        }
    }
    /// Whether the app's other lists may be well all the same.
    pub fn is_of_one_collection(&self) -> bool {
        match self {
            Self::Unauthorized(_) | Self::RateLimited { .. } | Self::Unavailable { .. } | Self::AddressForbidden(_) => {
                false
            }
            Self::Refused { .. }
            | Self::BadAnswer(_)
            | Self::PageExpired(_)
            | Self::TooCostly(_)
            | Self::FieldsChanged(_)
            | Self::ColumnMissing { .. }
            | Self::Script(_)
            | Self::NotSupported(_) => true,
        }
    }
    /// How long to wait at least, where the app says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
    /// `Unavailable` without a told wait.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None }
    }
}
