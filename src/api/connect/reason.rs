//! Why an account was not connected: the one table of reasons, each with a word that programs may depend on and a
//! sentence for a person.
//!
//! Always true: no text here comes from outside. Not here: where it is shown (`finish`).

use crate::connectors::CallError;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:literal, $text:literal;)*) => {
        /// See the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// As `error` of a return address and as `outcome` of the metric.
            pub fn slug(self) -> &'static str { match self { $(Self::$name => $slug,)* } }
            /// The status of the page.
            pub fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }
            /// For the person.
            pub fn text(self) -> &'static str { match self { $(Self::$name => $text,)* } }
        }
    };
}

reasons! {
    /// The link's token is not good.
    BadToken = "bad-token", 401,
        "This link has expired or is not complete. Go back to where you came from and open it again from there.";
    /// No cookie of ours, or one that we do not know.
    NoVisit = "no-visit", 401,
        "This page was open for too long, or we were restarted meanwhile. Go back to where you came from and begin \
         again. If it happens again, your browser may be refusing cookies from this site.";
    /// A form that was not ours, or of an older visit.
    BadForm = "bad-form", 403,
        "This form belongs to another visit, perhaps in another tab. Go back to where you came from and begin again.";
    NotAllowed = "not-allowed", 422,
        "This link asks for something that is not set up: the app, or the address to go back to. Please tell the people \
         you got it from.";
    UnknownState = "unknown-state", 400,
        "We did not ask for this answer of the app, or have had it already. Please begin again.";
    ForeignState = "foreign-state", 400,
        "This answer of the app belongs to another browser or another visit. Please begin again.";
    ExpiredState = "expired-state", 400,
        "The app's answer came too late. Please begin again.";
    AccessDenied = "access-denied", 403,
        "You did not allow access, so nothing was connected.";
    AppRefused = "app-refused", 502,
        "The app does not take our request. Please try again, and tell the people you got this link from if it stays so.";
    CodeRefused = "code-refused", 502,
        "The app does not accept its own permission any more. Please try again.";
    Unreachable = "app-unreachable", 502,
        "The app cannot be reached at the moment, so nothing was connected. Please try again in a few minutes.";
    BadAnswer = "bad-answer", 502,
        "The app answered with something that we cannot read, so nothing was connected. Please try again later.";
    /// Our own rules refuse what the app gave.
    Refused = "refused", 422,
        "The account could not be connected as it is. Please tell the people you got this link from.";
    Ours = "internal", 500,
        "Something went wrong on our side, so nothing was connected. Please try again later.";
}

impl Reason {
    /// What a failed call of the app comes to.
    pub fn of(error: &CallError) -> Self {
        match error {
            CallError::Unauthorized(_) | CallError::Refused { .. } => Self::CodeRefused,
            CallError::Unavailable { .. } | CallError::RateLimited { .. } | CallError::AddressForbidden(_) => {
                Self::Unreachable
            }
            CallError::BadAnswer(_)
            | CallError::PageExpired(_)
            | CallError::TooCostly(_)
            | CallError::FieldsChanged(_)
            | CallError::ColumnMissing { .. }
            | CallError::Script(_)
            | CallError::NotSupported(_) => Self::BadAnswer,
        }
    }
}
