//! How the registration of a connection's own webhook is doing at its app, and handshakes that wait to be confirmed.
//!
//! Always true: a registration's row goes with its connection. Not here: the connector's own state of it (`secrets`).

use super::keys::Key;
use super::registry::Entity;
use super::rows::Rows;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::connection::{Confirmation, Registration};
use crate::domain::id::{ConnectionId, WorkspaceNo};
use crate::error::Result;

/// Among the connection's rows (see `pulls`); the numbers between are left to others.
const REGISTRATION: u8 = 16;

fn key(connection: ConnectionId) -> Key {
    Key::owner(&connection.0).u8(REGISTRATION)
}

impl Entity for Confirmation {
    // The numbers between are left to others.
    const KIND: u8 = 16;
    fn key(&self) -> [u8; 12] {
        self.id
    }
    fn home(&self) -> WorkspaceNo {
        self.workspace
    }
    fn parents(&self) -> Vec<[u8; 12]> {
        vec![self.owner]
    }
}

impl Rows {
    /// What is remembered of the registration; nothing, where there was none yet.
    pub fn registration(&self, connection: ConnectionId) -> Result<Registration> {
        Ok(self.get(Table::Connections, key(connection))?.unwrap_or_default())
    }
}

impl Tx<'_> {
    /// Writes how it is doing.
    pub fn put_registration(&mut self, connection: ConnectionId, registration: &Registration) -> Result<()> {
        self.put(Table::Connections, key(connection), registration)
    }
}
