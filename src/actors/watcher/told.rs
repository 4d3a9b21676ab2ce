//! A pull and an app's failure, as events show them.
//!
//! Not here: when they are told.

use crate::connectors::CallError;
use crate::domain::connection::{Connection, Pull};
use crate::domain::models::system::{self, Fault};

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
