//! How far integrations have read their apps' journals.
//!
//! Always true: a journal's row goes with its integration. Not here: what its entries bring (`inbox`).

use super::keys::Key;
use super::rows::Rows;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::id::IntegrationId;
use crate::domain::journal::JournalState;
use crate::error::Result;

/// Among the integration's rows (see `registrations`); the numbers between are left to others.
const JOURNAL: u8 = 18;

/// integration (12), 18, hash of the global webhook's key (16).
fn key(integration: IntegrationId, webhook_key: &str) -> Key {
    Key::owner(&integration.0).u8(JOURNAL).text(webhook_key)
}

impl Rows {
    /// What is remembered of the journal of that global webhook; nothing, where none was read yet.
    pub fn journal(&self, integration: IntegrationId, webhook_key: &str) -> Result<JournalState> {
        Ok(self.get(Table::Connections, key(integration, webhook_key))?.unwrap_or_default())
    }
}

impl Tx<'_> {
    /// Writes it.
    pub fn put_journal(&mut self, integration: IntegrationId, webhook_key: &str, state: &JournalState) -> Result<()> {
        self.put(Table::Connections, key(integration, webhook_key), state)
    }
    /// Forgets all journals of an integration.
    pub fn forget_journals(&mut self, integration: IntegrationId) -> Result<()> {
        self.delete_prefix(Table::Connections, &Key::owner(&integration.0).u8(JOURNAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_journals_key_are_pinned() {
        let key = key(IntegrationId([0xab; 12]), "app");
        assert_eq!(hex::encode(key.as_ref()), "abababababababababababab12a172cedcae47474b615c54d510a5d84a");
    }
}
