//! How the registration of a connection's own webhook is doing at its app, handshakes that wait to be confirmed, and what
//! is remembered of addresses that a person pasted.
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
/// What is remembered of an address that a person pasted; also among an integration's.
const PASTED: u8 = 17;

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
    /// The hash of the address that was told last for a person to paste, of a connection or an integration.
    pub fn pasted(&self, owner: &[u8; 12]) -> Result<Option<[u8; 16]>> {
        self.get(Table::Connections, Key::owner(owner).u8(PASTED))
    }
}

impl Tx<'_> {
    /// Writes how it is doing.
    pub fn put_registration(&mut self, connection: ConnectionId, registration: &Registration) -> Result<()> {
        self.put(Table::Connections, key(connection), registration)
    }
    /// Remembers such an address.
    pub fn put_pasted(&mut self, owner: &[u8; 12], mark: &[u8; 16]) -> Result<()> {
        self.put(Table::Connections, Key::owner(owner).u8(PASTED), mark)
    }
    /// Forgets it, with an integration; a connection's goes with its rows.
    pub fn forget_pasted(&mut self, owner: &[u8; 12]) -> Result<()> {
        self.delete(Table::Connections, Key::owner(owner).u8(PASTED))
    }
}
