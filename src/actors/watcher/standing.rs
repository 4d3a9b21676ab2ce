//! How a connection's own webhook stands: the rows that say it, and when it is told that it will end.
//!
//! Always true: the connection, its registration's row and the secret state change in one commit, and the door reads them
//! again; `webhook/expiring` is told once per registration. Not here: what is asked of the app (`hook`).

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::commit::Standing;
use super::told;
use crate::actors::Deps;
use crate::connectors::spec::{Detects, OwnWebhook};
use crate::connectors::{CallError, Detection};
use crate::domain::connection::{Connection, Registration, WebhookState};
use crate::domain::id::ConnectionId;
use crate::domain::models::system::{Subject, SystemEvent};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Slot;
use crate::store::keys::hash16;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Failures in a row before it is told that a registration will end: one may be a moment's.
const FAILURES_TO_TELL: u32 = 2;

/// What is written.
pub struct Note {
    /// None: as it is.
    pub webhook: Option<WebhookState>,
    pub row: Registration,
    /// None: as it is.
    pub state: Option<Secret>,
    pub told: Option<SystemEvent>,
}

impl Note {
    /// Of a webhook that is not there.
    pub fn of(webhook: WebhookState, row: Registration) -> Self {
        Self { webhook: Some(webhook), row, state: None, told: None }
    }
}

/// Writes how the webhook stands.
pub async fn note(deps: &Deps, account: &Arc<Account>, note: Note) -> Result<Standing> {
    let (id, workspace, user) = (account.connection.id, account.connection.workspace, account.user.clone());
    let Note { webhook, mut row, state, told } = note;
    let has_new_state = state.is_some();
    let standing = deps
        .store
        .change(move |tx| {
            let Some(connection) = tx.connection(workspace, id)? else { return Ok(Standing::Gone) };
            let now = tx.now();
            if row.failures > 0 {
                row.failed_at = Some(now);
            }
            tx.put_registration(id, &row)?;
            let connection = match webhook {
                Some(webhook) => Connection { webhook, updated_at: now, ..connection },
                None => connection,
            };
            tx.put_object(&connection)?;
            if let Some(state) = &state {
                tx.put_secret_text(&id.0, Slot::WebhookState, state)?;
            }
            if let Some(what) = told {
                tx.append_event(&what.event(Subject::Connection(&connection, user.as_ref()), now))?;
            }
            Ok(Standing::There)
        })
        .await?;
    if has_new_state {
        // The door checks signatures with the secret in it.
        deps.rings.owners_changed();
    }
    Ok(standing)
}

/// A day, shorter by up to a tenth, so that not all connections ask at once.
pub fn day_of(connection: ConnectionId) -> Duration {
    let [byte, ..] = hash16(&connection.0);
    DAY - DAY / 10 * u32::from(byte) / u32::from(u8::MAX)
}

/// Whether a registration that cannot be renewed ends so soon that somebody must know: less than a quarter of its life is
/// left, or less than a day.
pub fn is_close(row: &Registration, since: Millis, ends: Millis, now: Millis) -> bool {
    let left = ends.since(now);
    row.failures >= FAILURES_TO_TELL && (left <= ends.since(since) / 4 || left <= DAY)
}

/// Whether a connection's own webhook tells of changes by itself, as far as is known. One that a person must paste does
/// once it was heard of; one that we register does while it stands.
pub fn tells(hook: &OwnWebhook, webhook: &WebhookState, heard: bool) -> bool {
    match hook.pastes() {
        true => heard,
        false => matches!(webhook, WebhookState::Registered { .. }),
    }
}

pub fn expiring(account: &Account, error: &CallError, ends: Millis) -> SystemEvent {
    let by_webhook = |d: &Detects| [d.created, d.updated, d.deleted].contains(&Detection::Webhook);
    let topics = account.connector().collections.iter().filter(|c| by_webhook(&c.detects)).map(|c| c.topic.clone());
    SystemEvent::WebhookExpiring {
        connection: account.connection.id,
        connector: account.connection.connector.clone(),
        topics: topics.collect(),
        expires_at: ends,
        error: told::fault(error),
    }
}
