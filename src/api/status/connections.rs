//! Connections that do not see their apps: refused, set up wrong, stalled, failing, or holding deletions back.
//!
//! Always true: a connection in good health costs three reads, or four where an app's journal is read. Not here: what is done about it (`actors::watcher`).

use schemars::JsonSchema;
use serde::Serialize;

use super::{Eyes, Look, Rank, STEP};
use crate::api::connections;
use crate::api::state::State;
use crate::connectors::journal;
use crate::domain::connection::{CollectionState, Connection, ConnectionStatus, Registration, WebhookState};
use crate::domain::journal::JournalState;
use crate::domain::time::Millis;
use crate::domain::workspace::Workspace;
use crate::error::Result;
use crate::store::Rows;

/// A connection that is not as it should be.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionTrouble {
    connection_id: String,
    /// Only where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_id: Option<String>,
    user_id: String,
    connector: String,
    app: String,
    /// `active`, `paused`, `authFailed` or `error`.
    status: &'static str,
    /// `auth-failed`, `error`, `stalled` (so many failures in a row that `poller/stalled` was told), `failing`, `held`
    /// (a full scan would delete so much that it waits for another one, or for approval), `webhook` (its own webhook, or
    /// what the app's journal needs, cannot be made or renewed at the app; it is polled) or `journal` (the app's journal
    /// cannot be read; it is polled).
    trouble: &'static str,
    /// Why, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    since: Option<String>,
    /// The collections that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collections: Vec<CollectionTrouble>,
    #[serde(skip)]
    rank: (u8, Millis),
    #[serde(skip)]
    of: Box<Connection>,
}

/// A collection that is not as it should be.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct CollectionTrouble {
    key: String,
    topic: String,
    /// Failures in a row.
    failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    stalled: bool,
    /// Deletions held back.
    held: usize,
    last_pull_at: Option<String>,
    next_pull_at: Option<String>,
}

impl Rank for ConnectionTrouble {
    type Key = (u8, Millis);
    fn rank(&self) -> Self::Key {
        self.rank
    }
}

/// Connections by status.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionTotals {
    active: u64,
    paused: u64,
    auth_failed: u64,
    error: u64,
    /// Of the active ones.
    stalled: u64,
    failing: u64,
    held: u64,
}

/// What is wrong with a connection.
struct Finding {
    trouble: &'static str,
    message: Option<String>,
    since: Option<Millis>,
    rank: u8,
}

fn is_troubled(state: &CollectionState) -> bool {
    state.stalled_told || state.failures > 0 || !state.held.is_empty()
}

/// The worst of what is wrong with a connection; None: nothing.
fn finding(
    connection: &Connection,
    states: &[CollectionState],
    webhook: &Registration,
    journal: &JournalState,
) -> Option<Finding> {
    let found = |trouble, message: &str, since, rank| {
        let message = Some(message.to_owned()).filter(|message| !message.is_empty());
        Some(Finding { trouble, message, since, rank })
    };
    match &connection.status {
        ConnectionStatus::Paused => return None,
        ConnectionStatus::AuthFailed { since, message } => return found("auth-failed", message, Some(*since), 0),
        ConnectionStatus::Error { since, message } => return found("error", message, Some(*since), 1),
        ConnectionStatus::Active => {}
    }
    // Since when it fails is not known; when it last looked is.
    let last = states.iter().filter(|state| is_troubled(state)).filter_map(|state| state.last_pull_at).min();
    if let Some(state) = states.iter().find(|state| state.stalled_told) {
        return found("stalled", &state.error, last, 2);
    }
    if let Some(state) = states.iter().max_by_key(|state| state.failures).filter(|state| state.failures > 0) {
        return found("failing", &state.error, last, 3);
    }
    let held: usize = states.iter().map(|state| state.held.len()).sum();
    if held == 0 && webhook.failures > 0 {
        return found("webhook", &webhook.error, webhook.failed_at, 5);
    }
    if held == 0 && journal.is_stalled() {
        return found("journal", &journal.error, journal.failed_at, 5);
    }
    if held == 0 {
        return None;
    }
    let message = format!("{held} deletions wait for another full scan, or for a sync with `approveDeletes`");
    found("held", &message, last, 4)
}

impl ConnectionTotals {
    fn add(&mut self, connection: &Connection, finding: Option<&Finding>) {
        match connection.status {
            ConnectionStatus::Active => self.active += 1,
            ConnectionStatus::Paused => self.paused += 1,
            ConnectionStatus::AuthFailed { .. } => self.auth_failed += 1,
            ConnectionStatus::Error { .. } => self.error += 1,
        }
        match finding.map(|finding| finding.trouble) {
            Some("stalled") => self.stalled += 1,
            Some("failing") => self.failing += 1,
            Some("held") => self.held += 1,
            _ => {}
        }
    }
}

/// How the journal is read by which changes of a connection come; nothing to say, where they do not come by one.
fn journal(rows: &Rows, connection: &Connection) -> Result<JournalState> {
    let key = match &connection.webhook {
        WebhookState::Registered { uri, .. } => journal::key_of(uri),
        WebhookState::None { .. } | WebhookState::Wanted { .. } => None,
    };
    match (key, connection.integration) {
        (Some(key), Some(integration)) => rows.journal(integration, key),
        _ => Ok(JournalState::default()),
    }
}

/// Looks at the connections of a workspace.
pub(super) fn look(to: &mut Look, rows: &Rows, eyes: &Eyes, workspace: &Workspace) -> Result<()> {
    let mut before: Option<Vec<u8>> = None;
    loop {
        if to.connections_left == 0 {
            to.complete = false;
            return Ok(());
        }
        let page = rows.connections(workspace.no, before.as_deref(), STEP.min(to.connections_left))?;
        to.connections_left -= page.items.len().min(to.connections_left);
        for connection in page.items {
            let (states, webhook) = (rows.collection_states(connection.id)?, rows.registration(connection.id)?);
            let finding = finding(&connection, &states, &webhook, &journal(rows, &connection)?);
            to.connection_totals.add(&connection, finding.as_ref());
            let Some(Finding { trouble, message, since, rank }) = finding else { continue };
            to.connections.push(ConnectionTrouble {
                connection_id: connection.id.to_string(),
                workspace_id: eyes.names_workspaces.then(|| workspace.id.to_string()),
                user_id: connection.user.to_string(),
                connector: connection.connector.clone(),
                app: connection.app.clone(),
                status: connection.status.word(),
                trouble,
                message,
                since: since.map(Millis::rfc3339_millis),
                collections: Vec::new(),
                rank: (rank, since.unwrap_or(Millis(u64::MAX))),
                of: Box::new(connection),
            });
        }
        match page.next {
            None => return Ok(()),
            next => before = next,
        }
    }
}

impl ConnectionTrouble {
    /// Names the collections that it is about: the connector knows their keys, the store only their hashes.
    pub(super) fn name_collections(&mut self, rows: &Rows, state: &State) -> Result<()> {
        let Some(connector) = connections::connector(state, rows, &self.of)? else { return Ok(()) };
        for collection in &connector.collections {
            let state = rows.collection_state(self.of.id, &collection.key)?;
            if !is_troubled(&state) {
                continue;
            }
            self.collections.push(CollectionTrouble {
                key: collection.key.clone(),
                topic: collection.topic.clone(),
                failures: state.failures,
                error: Some(state.error).filter(|error| !error.is_empty()),
                stalled: state.stalled_told,
                held: state.held.len(),
                last_pull_at: state.last_pull_at.map(Millis::rfc3339_millis),
                next_pull_at: state.next_pull_at.map(Millis::rfc3339_millis),
            });
        }
        Ok(())
    }
}
