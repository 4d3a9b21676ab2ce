//! The audit log: who had what erased, and who took out what is held of a user.
//!
//! Always true: an entry names ids of ours and numbers, never what was erased, nor an app's own id of a record; the order of
//! stored variants is their stored form: new ones are added at the end. Not here: how long it is kept
//! (`retention.audit_seconds`), who may read it (`api`).

use serde::{Deserialize, Serialize};

use super::erasure::{Cause, Counts, Erasure};
use super::id::{AuditId, ConnectionId, ErasureId, KeyId, UserId, WorkspaceNo};
use super::time::Millis;

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    Key(KeyId),
    /// The app of this connection, by a webhook.
    App(ConnectionId),
}

/// What an erasure was about, without naming a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub user: Option<UserId>,
    /// None: all of the user's.
    pub connection: Option<ConnectionId>,
    pub topic: Option<String>,
    /// Single records were named: so many.
    pub records: u32,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    ErasureAsked { erasure: ErasureId, about: About },
    ErasureCompleted { erasure: ErasureId, counts: Counts },
    UserExported { user: UserId },
}

impl Act {
    /// The stable text.
    pub fn text(&self) -> &'static str {
        match self {
            Self::ErasureAsked { .. } => "erasure.asked",
            Self::ErasureCompleted { .. } => "erasure.completed",
            Self::UserExported { .. } => "user.exported",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub id: AuditId,
    pub workspace: WorkspaceNo,
    pub at: Millis,
    pub actor: Actor,
    pub act: Act,
}

impl From<Cause> for Actor {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Key(id) => Self::Key(id),
            Cause::Webhook(id) => Self::App(id),
        }
    }
}

impl About {
    /// Of a job that has just been made.
    pub fn of(job: &Erasure) -> Self {
        let scope = &job.scope;
        Self {
            user: scope.user,
            connection: scope.connections.first().copied().filter(|_| scope.user.is_none()),
            topic: scope.topic.clone(),
            records: u32::try_from(scope.records.len()).unwrap_or(u32::MAX),
        }
    }
}
