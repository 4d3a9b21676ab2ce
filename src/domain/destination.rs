//! Where events go that is not an HTTP endpoint: a database, a warehouse, an object store, a queue.
//!
//! Always true: no secret is in this row; secret settings are encrypted beside it. Not here: what the settings of a kind
//! are (`destinations`), what is sent there (`subscription`).

use serde::{Deserialize, Serialize};

use super::delivery::AttemptError;
use super::id::{DestinationId, UserId, WorkspaceNo};
use super::time::Millis;

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    pub id: DestinationId,
    pub workspace: WorkspaceNo,
    /// `postgresql`, `s3`, …
    pub kind: String,
    /// Unique in the workspace.
    pub name: String,
    /// Its settings without the secret ones: JSON object text.
    pub settings: String,
    /// Which secret settings are set.
    pub secret_names: Vec<String>,
    /// Whose it is; None: the ISV's own.
    pub user: Option<UserId>,
    /// Grows with each change of the settings.
    pub revision: u32,
    /// Set while it refuses what only its owner can mend.
    pub pause: Option<Pause>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// Why nothing is written for now. It is tried again now and then, and whenever the settings change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub since: Millis,
    pub error: AttemptError,
    /// What the destination said, without secrets; at most 1 KiB.
    pub detail: String,
}

/// How a subscription writes into its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// A log: one row per event.
    #[default]
    Append,
    /// A table per topic that equals the app's records.
    Mirror(Deletes),
}

/// What a mirror does with a record that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Deletes {
    /// Its row stays, and says when it was deleted.
    #[default]
    Mark,
    /// Its row goes.
    Remove,
}
