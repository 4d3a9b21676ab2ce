//! Integrations and connections, and what the engine remembers of each collection.
//!
//! Always true: no secret is in these rows (`store::secrets` keeps them, encrypted). Not here: what a connector can do
//! (`connectors::spec`), the snapshot rows (`domain::snapshot`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{ConnectionId, IntegrationId, UserId, WorkspaceNo};
use super::time::Millis;

/// A connector set up in a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integration {
    pub id: IntegrationId,
    pub workspace: WorkspaceNo,
    /// The connector's key.
    pub connector: String,
    pub name: String,
    /// JSON object text; secret parameters are not in it.
    pub parameters: String,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// What the first sync of a collection does with the records it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitialSync {
    /// Fills the snapshot without events.
    Baseline,
    /// Sends `created` for each record.
    Emit,
}

/// What follows when a connector's mapping has a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remap {
    Silent,
    Emit,
}

/// How a connection is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionStatus {
    Active,
    /// Stopped by the caller.
    Paused,
    /// The app refuses the credentials; polling stops until new ones come.
    AuthFailed {
        since: Millis,
        message: String,
    },
    /// The connection cannot work as it is set up.
    Error {
        since: Millis,
        message: String,
    },
}

impl ConnectionStatus {
    /// As the API and events call it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::AuthFailed { .. } => "authFailed",
            Self::Error { .. } => "error",
        }
    }
}

/// One user's authorised account at one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub id: ConnectionId,
    pub workspace: WorkspaceNo,
    pub user: UserId,
    pub integration: Option<IntegrationId>,
    /// The connector's key.
    pub connector: String,
    /// The app's display name (`HubSpot`); for `generic`, what its parameter says.
    pub app: String,
    /// `crm`, `commerce`, `accounting`, …
    pub category: String,
    /// JSON object text; secret parameters are not in it.
    pub parameters: String,
    /// What identifies the account at the app, if the connector can tell.
    pub account: Option<String>,
    pub poll_interval_seconds: Option<u32>,
    pub full_scan_interval_seconds: Option<u32>,
    pub initial_sync: InitialSync,
    pub remap: Remap,
    /// Keys of the collections wanted; None: all of them.
    pub collections: Option<Vec<String>>,
    pub status: ConnectionStatus,
    /// What the connector's own `subscribe` gave back, as JSON text.
    pub webhook: WebhookState,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// The webhook of a connection at its app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookState {
    /// The connector has none, or nobody can reach us.
    None { reason: String },
    /// To be made, with the tries so far.
    Wanted { tries: u32 },
    /// There, at `uri`; `state` is the connector's own, as JSON text.
    Registered { uri: String, state: String, refresh_at: Option<Millis>, listed_at: Millis },
}

/// A connection that was deleted while it had a webhook at its app: what takes that away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// As it was, with all parameters among its secret ones.
    pub connection: Connection,
    pub tries: u32,
    pub due_at: Millis,
    /// The last failure, told in one sentence.
    pub error: String,
}

/// How the registration of a connection's own webhook is doing at its app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Registration {
    /// When the app stops, unless it is renewed; as far as it is known.
    pub expires_at: Option<Millis>,
    /// When it was last seen at the app: made, renewed, or asked for.
    pub seen_at: Option<Millis>,
    /// When it is looked after again.
    pub due_at: Option<Millis>,
    /// Failures in a row; 0 after a success.
    pub failures: u32,
    pub failed_at: Option<Millis>,
    /// The last failure, told in one sentence; empty after a success.
    pub error: String,
    /// Whether `webhook/expiring` has been told.
    pub told: bool,
}

/// How long an address that a handshake wants to be called is good. Adobe says five minutes.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(300);

/// An address that must be called soon, so that an app believes that a webhook's URL is ours. The address itself is in
/// the slot `WebhookState` of its id, since whoever has it can confirm in our name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    pub id: [u8; 12],
    /// The connection or integration whose webhook it is.
    pub owner: [u8; 12],
    pub workspace: WorkspaceNo,
    pub due_at: Millis,
    /// The address is no longer good then.
    pub until: Millis,
    pub tries: u32,
}

/// The wish that the selectors of the switched-on events be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reselect {
    pub asked_at: Millis,
    pub tries: u32,
    pub due_at: Millis,
}

/// An event of the connector switched on for a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSwitch {
    /// The event's key in the connector.
    pub event: String,
    /// JSON object text.
    pub parameters: String,
    /// The global webhook it listens to.
    pub webhook_key: String,
    /// Text that routes a global webhook's event to this connection.
    pub selector: String,
}

/// One mark in the app's own order of change: the time and, within its last tick, the ids already seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Cursor {
    pub time: Millis,
    /// The id after which to go on at `time`, where the app can sort by it.
    pub id: Option<String>,
    /// Ids seen at exactly `time`, so that ties are neither lost nor told twice. Bounded.
    pub seen: Vec<String>,
}

/// What the engine remembers of one collection of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct CollectionState {
    /// None: never pulled.
    pub cursor: Option<Cursor>,
    /// Set when the first complete pull or scan is done.
    pub baseline_at: Option<Millis>,
    pub records: u64,
    pub last_pull_at: Option<Millis>,
    pub next_pull_at: Option<Millis>,
    pub last_scan_at: Option<Millis>,
    pub next_scan_at: Option<Millis>,
    pub last_webhook_at: Option<Millis>,
    /// Failures in a row; 0 after a success.
    pub failures: u32,
    /// The last failure, told in one sentence; empty after a success.
    pub error: String,
    /// The record ids of a delete set that is held, sorted. Empty: none.
    pub held: Vec<[u8; 16]>,
    /// The connector's version that mapped the snapshot.
    pub mapped_by: [u8; 16],
    /// Whether `poller/stalled` has been told.
    pub stalled_told: bool,
}

/// A sync that somebody asked for and that has not run yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    pub pull: super::id::PullId,
    pub full: bool,
    pub approve_deletes: bool,
    /// Empty: all.
    pub collections: Vec<String>,
    pub asked_at: Millis,
}

/// One look at an app: what was asked, what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    pub id: super::id::PullId,
    pub connection: ConnectionId,
    pub collection: String,
    /// `incremental`, `full` or `first`.
    pub mode: String,
    pub started_at: Millis,
    pub ended_at: Option<Millis>,
    /// `running`, `completed`, `failed`, `held`.
    pub outcome: String,
    pub error: String,
    pub pages: u32,
    pub records: u64,
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    pub unchanged: u64,
    /// Mapped again silently after a new version of the connector.
    pub remapped: u64,
    /// Records that could not be mapped.
    pub unmapped: u64,
}
