//! A commit under way: what it reads, and what it writes into the batch.
//!
//! Always true: reads see what was there before the commit; a sequence is never used twice, since the writer puts the
//! reservation into the same batch. Not here: who runs it, and when it is on disk (`writer`).

use rocksdb::WriteBatch;
use serde::Serialize;

use super::codec;
use super::counts::Deltas;
use super::keys::Key;
use super::order::Overlay;
use super::rows::Rows;
use super::stops::Touched;
use super::tables::Table;
use crate::domain::id::{self, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

/// Sequences reserved at a time: after a crash at most this many are skipped.
const SEQ_BLOCK: u64 = 1 << 20;

/// A commit under way: reads see what was there before it, writes land together.
pub struct Tx<'a> {
    pub(super) rows: &'a Rows,
    pub(super) batch: &'a mut WriteBatch,
    /// Changes of counts, of all commits of the batch together.
    pub(super) deltas: &'a mut Deltas,
    /// Queue rows that later commits of the batch must see.
    pub(super) overlay: &'a mut Overlay,
    pub(super) touched: &'a mut Touched,
    pub(super) seqs: &'a mut Sequences,
    pub(super) now: Millis,
    pub(super) events: u32,
}

impl std::ops::Deref for Tx<'_> {
    type Target = Rows;
    fn deref(&self) -> &Rows {
        self.rows
    }
}

impl Tx<'_> {
    /// The time of the commit.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The next position of the log, never used before.
    pub fn next_seq(&mut self) -> Result<Seq> {
        if self.seqs.next == self.seqs.reserved {
            // The writer puts the reservation into the batch, or into the next one that the disk takes.
            self.seqs.reserved += SEQ_BLOCK;
        }
        let seq = Seq(self.seqs.next);
        self.seqs.next += 1;
        Ok(seq)
    }

    /// The bytes of a fresh id that sorts by creation.
    pub fn fresh_id(&mut self) -> Result<[u8; 12]> {
        Ok(id::fresh(self.now, self.next_seq()?.0))
    }

    pub(super) fn put_raw(&mut self, table: Table, key: impl AsRef<[u8]>, value: &[u8]) -> Result<()> {
        self.touched.note(table);
        self.batch.put_cf(self.rows.cf(table)?, key, value);
        Ok(())
    }

    pub(super) fn put<T: Serialize>(&mut self, table: Table, key: impl AsRef<[u8]>, value: &T) -> Result<()> {
        self.put_raw(table, key, &codec::encode(value)?)
    }

    pub(super) fn put_sealed(&mut self, owner: &[u8], table: Table, key: impl AsRef<[u8]>, plain: &[u8]) -> Result<()> {
        let sealed = self.rows.vault.seal(owner, table, key.as_ref(), plain)?;
        self.put_raw(table, key, &sealed)
    }

    pub(super) fn delete(&mut self, table: Table, key: impl AsRef<[u8]>) -> Result<()> {
        self.touched.note(table);
        self.batch.delete_cf(self.rows.cf(table)?, key);
        Ok(())
    }

    /// Deletes every row whose key begins with `prefix`.
    pub(super) fn delete_prefix(&mut self, table: Table, prefix: &Key) -> Result<()> {
        let end = prefix.clone().end();
        self.touched.note(table);
        self.batch.delete_range_cf(self.rows.cf(table)?, prefix.as_ref(), end.as_slice());
        Ok(())
    }

    pub(super) fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<()> {
        self.touched.note(table);
        self.batch.delete_range_cf(self.rows.cf(table)?, from, to);
        Ok(())
    }

    pub(super) fn note_event(&mut self) {
        self.events += 1;
    }
}

/// Positions of the log: the next one, and how far they are reserved.
pub(super) struct Sequences {
    pub(super) next: u64,
    pub(super) reserved: u64,
    /// The reservation that was written.
    pub(super) told: u64,
}
