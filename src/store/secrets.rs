//! Encrypted rows of an owner: credentials, signing keys, subscription secrets, header values, tokens.
//!
//! Always true: a secret row is sealed for its owner and slot. Not here: what is inside (the callers' own formats).

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::keys::Key;
use super::rows::Rows;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::secret::Secret;
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
    /// The state of a connection's own webhook at its app.
    WebhookState = 7,
    /// How a subscription's deliveries prove themselves to their endpoint.
    EndpointAuth = 8,
    /// The secret settings of a destination: JSON object text.
    DestinationSettings = 9,
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
    /// A connection's credentials, as the connectors write and read them.
    pub fn credentials(&self, connection: &[u8; 12]) -> Result<Option<Secret>> {
        self.secret_text(connection, Slot::Credentials)
    }
    /// The secret parameters of a connection or integration: JSON object text.
    pub fn secret_parameters(&self, owner: &[u8; 12]) -> Result<Option<Secret>> {
        self.secret_text(owner, Slot::Parameters)
    }
    /// What the connector keeps of a connection's own webhook: JSON text, perhaps with the secret that it is signed with.
    pub fn webhook_state(&self, connection: &[u8; 12]) -> Result<Option<Secret>> {
        self.secret_text(connection, Slot::WebhookState)
    }
    /// The tokens in the webhook URLs of a connection or integration; the first is the one that is given out.
    pub fn webhook_tokens(&self, owner: &[u8; 12]) -> Result<Vec<String>> {
        Ok(self.secret(owner, Slot::WebhookTokens)?.unwrap_or_default())
    }
    /// The secret settings of a destination: JSON object text.
    pub fn destination_secrets(&self, destination: &[u8; 12]) -> Result<Option<Secret>> {
        self.secret_text(destination, Slot::DestinationSettings)
    }
    fn secret_text(&self, owner: &[u8; 12], slot: Slot) -> Result<Option<Secret>> {
        Ok(self.secret::<String>(owner, slot)?.map(Secret::new))
    }
}

impl Tx<'_> {
    /// Puts a secret into a slot.
    pub fn put_secret<T: Serialize>(&mut self, owner: &[u8; 12], slot: Slot, value: &T) -> Result<()> {
        let plain = zeroize::Zeroizing::new(codec::encode(value)?);
        self.put_sealed(owner, Table::Secrets, key(owner, slot), &plain)
    }
    /// Puts a text into a slot, so that it is read by the function of that slot.
    pub fn put_secret_text(&mut self, owner: &[u8; 12], slot: Slot, text: &Secret) -> Result<()> {
        self.put_secret(owner, slot, &text.expose())
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
