//! Encryption at rest: AES-256-GCM, one data key per owner, each row bound to its place.
//!
//! Always true: a sealed row opens only at the table and key it was sealed for, under the master key of the store. Not
//! here: which rows are sealed (ARCHITECTURE.md, Trust).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;

use super::codec::CorruptRow;
use super::tables::Table;
use crate::error::{Error, Result};

/// Seals and opens rows.
pub struct Vault {
    root: Prk,
    /// The data keys used last: deriving one costs more than sealing a row.
    keys: RwLock<HashMap<Vec<u8>, Arc<LessSafeKey>>>,
}

/// Data keys kept; beyond it all are derived again.
const KEYS_MAX: usize = 1024;

struct DataKeyLength;

impl KeyType for DataKeyLength {
    fn len(&self) -> usize {
        32
    }
}

impl Vault {
    /// A vault under a master key.
    pub fn new(master_key: &[u8; 32]) -> Self {
        Self { root: Salt::new(HKDF_SHA256, b"tidemill/v1").extract(master_key), keys: RwLock::default() }
    }

    fn data_key(&self, owner: &[u8]) -> Result<Arc<LessSafeKey>> {
        if let Some(known) = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(owner) {
            return Ok(known.clone());
        }
        let key = Arc::new(self.derive(owner)?);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_MAX {
            keys.clear();
        }
        keys.insert(owner.to_vec(), key.clone());
        Ok(key)
    }

    fn derive(&self, owner: &[u8]) -> Result<LessSafeKey> {
        let broken = |_| Error::internal("key derivation failed");
        let mut bytes = [0; 32];
        let info = [owner];
        self.root.expand(&info, DataKeyLength).map_err(broken)?.fill(&mut bytes).map_err(broken)?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(broken)?;
        zeroize::Zeroize::zeroize(&mut bytes);
        Ok(LessSafeKey::new(key))
    }

    /// Tells the master key from others, and nothing else of it: 16 hex characters.
    pub fn fingerprint(&self) -> Result<String> {
        let broken = |_| Error::internal("key derivation failed");
        let mut bytes = [0; 32];
        let info: [&[u8]; 1] = [b"tidemill fingerprint of the master key"];
        self.root.expand(&info, DataKeyLength).map_err(broken)?.fill(&mut bytes).map_err(broken)?;
        Ok(hex::encode(bytes.get(..8).unwrap_or_default()))
    }

    /// Encrypts `plain` for the row at `key` of `table`: nonce (12), ciphertext, tag (16).
    pub fn seal(&self, owner: &[u8], table: Table, key: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| Error::internal("the system's random source failed"))?;
        let mut body = plain.to_vec();
        self.data_key(owner)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place(table, key)), &mut body)
            .map_err(|_| Error::internal("encryption failed"))?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Decrypts what `seal` made for the same place.
    pub fn open(&self, owner: &[u8], table: Table, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let corrupt = || Error::internal(CorruptRow::Sealed(table.name()));
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(corrupt)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| corrupt())?;
        let mut body = body.to_vec();
        let plain = self
            .data_key(owner)?
            .open_in_place(nonce, Aad::from(place(table, key)), &mut body)
            .map_err(|_| corrupt())?
            .len();
        body.truncate(plain);
        Ok(body)
    }
}

fn place(table: Table, key: &[u8]) -> Vec<u8> {
    let mut place = table.name().as_bytes().to_vec();
    place.push(0);
    place.extend_from_slice(key);
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_row_opens_only_in_its_place() {
        let vault = Vault::new(&[1; 32]);
        let sealed = vault.seal(b"owner", Table::Secrets, b"key", b"plain").unwrap();
        assert!(!sealed.windows(5).any(|w| w == b"plain"));
        assert_eq!(vault.open(b"owner", Table::Secrets, b"key", &sealed).unwrap(), b"plain");
        assert!(vault.open(b"other", Table::Secrets, b"key", &sealed).is_err());
        assert!(vault.open(b"owner", Table::Inbox, b"key", &sealed).is_err());
        assert!(vault.open(b"owner", Table::Secrets, b"yek", &sealed).is_err());
        assert!(Vault::new(&[2; 32]).open(b"owner", Table::Secrets, b"key", &sealed).is_err());
    }
}
