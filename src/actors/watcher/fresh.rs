//! What a walk that began with an empty collection has written, so that the rest need not be looked up.
//!
//! Always true: it says of no record that it has no row unless that is so: it is believed only until somebody else may have
//! written a row of the collection (a webhook that came meanwhile, an erasure); its memory is bounded, and beyond the bound
//! everything is looked up again. It is lost with the walk: one that goes on after a crash looks everything up.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::account::Account;
use crate::connectors::Collection;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Rows;

/// Records that a walk remembers to have written: 40 MB.
const RECORDS_MAX: usize = 3_600_000;

/// See the module.
pub struct Fresh {
    collection: String,
    /// How often others had written for this account when the walk began.
    others: u64,
    /// When something of the connection had last been erased then.
    erased_at: Option<Millis>,
    /// The first halves of the ids of records that the walk has judged: two that share one are looked up.
    written: Mutex<HashSet<u64, BuildHasherDefault<AsItIs>>>,
}

/// Half of an id is as good as a hash of it, once the version that it names is covered: ids are hashes themselves.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }
}

impl Fresh {
    /// None: the collection has rows.
    pub fn begin(rows: &Rows, account: &Account, c: &Collection) -> Result<Option<Arc<Self>>> {
        let connection = account.connection.id;
        // Before the rows are looked at: what comes between the two ends it.
        let (others, erased_at) = (account.others(), rows.erased_at(connection)?);
        let is_empty = rows.has_no_snapshot(connection, &c.key)?;
        let fresh = Self { collection: c.key.clone(), others, erased_at, written: Mutex::default() };
        Ok(is_empty.then(|| Arc::new(fresh)))
    }

    /// The rows of these records, of which only those are looked up that may have one.
    pub fn rows(
        &self,
        rows: &Rows,
        account: &Account,
        collection: &str,
        ids: &[[u8; 16]],
    ) -> Result<Vec<Option<SnapshotRow>>> {
        let connection = account.connection.id;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alone = account.others() == self.others && rows.erased_at(connection)? == self.erased_at;
        if !is_alone || collection != self.collection || written.len() + ids.len() > RECORDS_MAX {
            return rows.snapshot_rows(connection, collection, ids);
        }
        let known: Vec<bool> = ids.iter().map(|id| !written.insert(half(id))).collect();
        let asked: Vec<[u8; 16]> = ids.iter().zip(&known).filter(|(_, known)| **known).map(|(id, _)| *id).collect();
        let mut found = match asked.is_empty() {
            true => Vec::new(),
            false => rows.snapshot_rows(connection, collection, &asked)?,
        }
        .into_iter();
        Ok(known.into_iter().map(|known| if known { found.next().flatten() } else { None }).collect())
    }
}

fn half(id: &[u8; 16]) -> u64 {
    let mut half = [0; 8];
    half.iter_mut().zip(id).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(half)
}
