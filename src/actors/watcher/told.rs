//! The events that a watcher makes of its own doings.
//!
//! Not here: when they are told.

use crate::connectors::CallError;
use crate::domain::connection::{Connection, ConnectionStatus, Pull};
use crate::domain::event::{Event, Payload, Source};
use crate::domain::models::system::{self, Fault, SystemEvent};
use crate::domain::time::Millis;
use crate::domain::workspace::User;

/// A system event about a connection.
pub fn event(connection: &Connection, user: Option<&User>, what: &SystemEvent, now: Millis) -> Event {
    Event {
        topic: what.topic().as_str().to_owned(),
        update_type: Some(what.topic().verb().to_owned()),
        unified_change: true,
        ..blank(connection, user, Payload::Plain(what.payload()), now)
    }
}

/// An event of a connection without a topic.
pub fn blank(connection: &Connection, user: Option<&User>, payload: Payload, now: Millis) -> Event {
    Event {
        workspace: connection.workspace,
        topic: String::new(),
        update_type: None,
        connection: Some(connection.id),
        user: Some(connection.user),
        app: Some(connection.app.clone()),
        user_name: user.map(|user| user.display_name().to_owned()),
        username: user.map(|user| user.username.clone()),
        happened_at: now,
        accepted_at: now,
        payload,
        changed_fields: Vec::new(),
        previous: None,
        raw: None,
        source: Source::Engine,
        unified_change: true,
        about: None,
    }
}

/// The connection as its events show it.
pub fn connection(connection: &Connection) -> system::Connection {
    system::Connection {
        id: connection.id,
        user: connection.user,
        integration: connection.integration,
        connector: connection.connector.clone(),
        app: connection.app.clone(),
        category: connection.category.clone(),
        status: match connection.status {
            ConnectionStatus::Active => "active",
            ConnectionStatus::Paused => "paused",
            ConnectionStatus::AuthFailed { .. } => "authFailed",
            ConnectionStatus::Error { .. } => "error",
        }
        .to_owned(),
    }
}

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
