//! The one table of what a destination can have against a batch or a row: slug and sentence.
//!
//! Always true: neither slug nor sentence tells anything about the network we stand in. The order of the variants is
//! their stored form: new ones are added at the end. Not here: what did not come to an answer (`failure`), what follows
//! from it (`destinations::Verdict`).

use serde::{Deserialize, Serialize};

macro_rules! troubles {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $sentence:literal;)*) => {
        /// Why a destination did not take what it was sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Trouble { $($(#[$doc])* $name,)* }

        impl Trouble {
            /// All of them, for the docs and the checks.
            pub const ALL: &'static [Trouble] = &[$(Trouble::$name,)*];
            /// The stable text, fit for an API answer and a metric label.
            pub fn slug(self) -> &'static str { match self { $(Trouble::$name => $slug,)* } }
            /// One sentence for a person.
            pub fn sentence(self) -> &'static str { match self { $(Trouble::$name => $sentence,)* } }
        }
    };
}

troubles! {
    /// User name, password, key or token.
    CredentialsRefused = "credentials-refused", "the destination refuses the credentials";
    /// Known, but not allowed to do this.
    PermissionDenied = "permission-denied", "the credentials do not allow what is asked";
    /// The database, schema, bucket, dataset, bus or topic that the settings name.
    TargetMissing = "target-missing", "the database, bucket or topic that the settings name is not there";
    /// A table of that name has other columns or keys.
    TableMismatch = "table-mismatch", "the table is there with another shape, so it cannot be written";
    /// A setting that only the destination can judge.
    SettingsRefused = "settings-refused", "the destination refuses the settings";
    /// Only a replica answers, or the disk is set to read only.
    ReadOnly = "read-only", "the destination takes no writes";
    /// No room left.
    Full = "destination-full", "the destination has no room left";
    /// Told to come more slowly.
    Throttled = "throttled", "the destination asks for fewer requests";
    /// A limit that only time or the owner lifts.
    QuotaExceeded = "quota-exceeded", "a quota of the destination is used up";
    /// Too many connections, locks held by others.
    Busy = "destination-busy", "the destination is busy";
    /// Rolled back in favour of another transaction.
    Deadlock = "deadlock", "the destination rolled the transaction back in favour of another one";
    /// Shutting down, or starting.
    Restarting = "destination-restarting", "the destination is starting or stopping";
    /// A write of the same thing is under way.
    Conflict = "destination-conflict", "the destination is busy with a conflicting write";
    /// A value that its column cannot hold.
    ValueRefused = "value-refused", "the destination refuses a value of the event";
    /// A row, document, message or object above the destination's limit.
    TooLarge = "value-too-large", "the event is larger than the destination takes";
    /// A table that equals records needs to know whose record an event tells of.
    NoRecord = "no-record", "the event tells of no record, so a mirror has no row for it";
    /// Anything else that it answered.
    Failed = "destination-failed", "the destination answered with an error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_stored_forms_stay() {
        let slugs: std::collections::HashSet<_> = Trouble::ALL.iter().map(|t| t.slug()).collect();
        assert_eq!(slugs.len(), Trouble::ALL.len());
        assert_eq!(Trouble::Failed as u8, 16, "append new ones, never reorder");
    }
}
