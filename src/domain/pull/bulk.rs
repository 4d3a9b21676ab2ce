//! How far a first sync has come that one large operation of the app gives: it writes everything to a file, which is read
//! piece by piece.
//!
//! Always true: where the file is is never kept, since whoever knows it can read it; it is asked for again.

use serde::{Deserialize, Serialize};

use crate::domain::time::Millis;

/// See the module. Kept until the collection's first sync is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bulk {
    /// The app is busy with another operation: ours has been waiting since then.
    Waiting { since: Millis },
    /// The app has taken it on.
    Running {
        /// The app's own name of it.
        operation: String,
        /// Our own time just before it was asked for: what changes later is found by the list of changes.
        asked_at: Millis,
        /// Bytes of its file that have been read.
        offset: u64,
    },
    /// It came to nothing: the lists are walked.
    GivenUp,
}
