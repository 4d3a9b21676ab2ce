//! Encrypted rows of an owner: credentials, signing keys, subscription secrets, header values, tokens.
//!
//! Always true: a secret row is sealed for its owner and slot. Not here: what is inside (the callers' own formats).

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::keys::Key;
use super::rows::Rows;
use super::tables::Table;
use super::writer::Tx;
use crate::error::Result;

/// Which secret of an owner; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Slot {
    /// A connection's credentials.
    Credentials = 1,
    /// Secret parameters of an integration or connection.
    Parameters = 2,
    /// A subscription's signing secrets.
    SigningSecrets = 3,
    /// A subscription's custom header values.
    HeaderValues = 4,
    /// Tokens in webhook URLs of a connection or integration.
    WebhookTokens = 5,
    /// A workspace's signing keys.
    SigningKeys = 6,
}

fn key(owner: &[u8; 12], slot: Slot) -> Key {
    Key::owner(owner).u8(slot as u8)
}

impl Rows {
    /// The secret in a slot.
    pub fn secret<T: DeserializeOwned>(&self, owner: &[u8; 12], slot: Slot) -> Result<Option<T>> {
        match self.open_sealed(owner, Table::Secrets, key(owner, slot))? {
            Some(plain) => codec::decode(&plain).map(Some),
            None => Ok(None),
        }
    }
}

impl Tx<'_> {
    /// Puts a secret into a slot.
    pub fn put_secret<T: Serialize>(&mut self, owner: &[u8; 12], slot: Slot, value: &T) -> Result<()> {
        let plain = zeroize::Zeroizing::new(codec::encode(value)?);
        self.put_sealed(owner, Table::Secrets, key(owner, slot), &plain)
    }
    /// Empties a slot.
    pub fn delete_secret(&mut self, owner: &[u8; 12], slot: Slot) -> Result<()> {
        self.delete(Table::Secrets, key(owner, slot))
    }
    /// Empties all slots of an owner.
    pub(super) fn delete_secrets(&mut self, owner: &[u8; 12]) -> Result<()> {
        self.delete_prefix(Table::Secrets, &Key::owner(owner))
    }
}
