//! What a step works with: passes over rows, each row once, in pieces that a crash cannot tear.
//!
//! Always true: a piece's rows and the mark of how far the pass is are one batch on disk, so a step that is run again
//! goes on behind the last piece. A step makes the same passes in the same order each time. Not here: which steps there
//! are (`steps`).

use rocksdb::WriteBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::keys::Key;
use super::super::rows::{Rows, Walk};
use super::super::tables::Table;
use super::{META_UPGRADE, Mark, codec, write_synced};
use crate::error::Result;

/// A step under way.
pub(in crate::store) struct Pass<'a> {
    rows: &'a Rows,
    /// Where the step was when it was interrupted; its start else.
    mark: Mark,
    /// Passes that the step has asked for so far.
    asked: u32,
    piece_bytes: usize,
}

impl<'a> Pass<'a> {
    pub(super) fn new(rows: &'a Rows, mark: Mark, piece_bytes: usize) -> Self {
        Self { rows, mark, asked: 0, piece_bytes }
    }
}

impl Pass<'_> {
    /// Reads every object of a kind as `Old`, and writes it as `New`. Its names and links stay as they are.
    #[cfg_attr(not(test), expect(dead_code, reason = "no step needs it yet; the tests do"))]
    pub(in crate::store) fn objects<Old: DeserializeOwned, New: Serialize>(
        &mut self,
        kind: u8,
        change: impl Fn(Old) -> New,
    ) -> Result<()> {
        self.each(Table::Objects, &Key::new().u8(kind), |rows, key, value, batch| {
            let changed = codec::encode(&change(codec::decode(value)?))?;
            batch.put_cf(rows.cf(Table::Objects)?, key, changed);
            Ok(())
        })
    }

    /// Shows `change` every row of `table` whose key begins with `prefix`, once and in order, and commits what it puts
    /// into the batch. It may write its own row, rows before it, and other tables.
    pub(in crate::store) fn each(
        &mut self,
        table: Table,
        prefix: &Key,
        mut change: impl FnMut(&Rows, &[u8], &[u8], &mut WriteBatch) -> Result<()>,
    ) -> Result<()> {
        let pass = self.asked;
        self.asked += 1;
        if pass < self.mark.passes {
            return Ok(());
        }
        let rows = self.rows;
        let mut from = prefix.as_ref().to_vec();
        if !self.mark.after.is_empty() {
            from.clone_from(&self.mark.after);
            from.push(0);
        }
        let mut batch = WriteBatch::default();
        rows.walk(table, &from, &prefix.clone().end(), Walk::Forward, |key, value| {
            change(rows, key, value, &mut batch)?;
            if batch.size_in_bytes() >= self.piece_bytes {
                self.mark.after = key.to_vec();
                self.commit(std::mem::take(&mut batch))?;
            }
            Ok(true)
        })?;
        self.mark.passes = pass + 1;
        self.mark.after.clear();
        self.commit(batch)
    }

    fn commit(&self, mut batch: WriteBatch) -> Result<()> {
        batch.put_cf(self.rows.cf(Table::Meta)?, META_UPGRADE, codec::encode(&self.mark)?);
        write_synced(self.rows, batch)
    }
}
