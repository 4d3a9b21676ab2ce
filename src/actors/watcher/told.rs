//! A pull, an app's failure and an unmapped connector event, as events show them.
//!
//! Not here: when they are told.

use super::account::Account;
use crate::connectors::CallError;
use crate::domain::connection::{Connection, Pull};
use crate::domain::event::{Event, Payload, Source};
use crate::domain::id::InboxId;
use crate::domain::models::system::{self, Fault};
use crate::domain::time::Millis;
use crate::store::InboxRow;

/// The pull as its events show it.
pub fn pull(connection: &Connection, pull: &Pull) -> system::Pull {
    let mode = if pull.mode == "first" { "initial" } else { pull.mode.as_str() };
    system::Pull {
        id: pull.id,
        connection: connection.id,
        connector: connection.connector.clone(),
        mode: mode.to_owned(),
    }
}

/// An app's failure as events show it.
pub fn fault(error: &CallError) -> Fault {
    Fault { code: error.slug().to_owned(), message: error.to_string() }
}

/// A connector event without a mapping: delivered unchanged.
pub fn plain(now: Millis, account: &Account, id: InboxId, row: &InboxRow, event: &str, payload: String) -> Event {
    let blank = Event::of(&account.connection, account.user.as_ref(), Payload::Plain(payload.clone()), now);
    Event {
        topic: format!("{}/{event}", account.connector().key),
        happened_at: row.received_at,
        accepted_at: row.received_at,
        raw: Some(payload),
        source: Source::Webhook(id),
        ..blank
    }
}
