//! Taking deleted bytes off the disk: memtables are flushed, so that the logs go, and the tables are rewritten where the
//! bytes lay.
//!
//! Always true: when it answers, no log is left that was begun before, and what was deleted or overwritten in the ranges is
//! in no table of the store. It may run for long, so it runs where it may block; writes go on meanwhile. Not here: what is
//! deleted (`erase`); backups and checkpoints, which are copies (docs/privacy.md).

use std::path::Path;
use std::time::Duration;

use rocksdb::{BottommostLevelCompaction, CompactOptions, FlushOptions};

use super::keys::Key;
use super::rows::Rows;
use super::tables::Table;
use super::{Store, open};
use crate::domain::erasure::Erasure;
use crate::error::{Error, Result};

/// RocksDB deletes a log that it needs no more on a thread of its own: waited for so often, so long.
const LOG_WAITS_MAX: u32 = 500;
const LOG_WAIT: Duration = Duration::from_millis(10);
/// A log that took writes of others while it was flushed is flushed once more, at most so often.
const FLUSHES_MAX: u32 = 20;

/// A range of a table's keys.
type Range = (Table, Vec<u8>, Vec<u8>);

impl Store {
    /// Takes what these erasures have deleted off the disk.
    ///
    /// # Errors
    /// An old log is still there: try again later.
    pub async fn scrub(&self, jobs: &[Erasure]) -> Result<()> {
        let ranges: Vec<Range> = jobs.iter().flat_map(ranges).collect();
        let folder = open::db_folder(&self.options.path);
        self.blocking(move |rows| rows.scrub(&folder, ranges)).await
    }
}

/// Where a job's erased bytes lay. An index of events holds no more than ids and hashes.
fn ranges(job: &Erasure) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut add = |table, from: Key, end: Vec<u8>| ranges.push((table, from.as_ref().to_vec(), end));
    for connection in &job.scope.connections {
        let prefix = Key::owner(&connection.0);
        add(Table::Snapshots, prefix.clone(), prefix.end());
    }
    for owner in job.scope.owners() {
        for table in [Table::Inbox, Table::InboxProgress] {
            add(table, Key::owner(&owner), Key::owner(&owner).end());
        }
    }
    if let Some((low, high)) = job.touched.events {
        add(Table::Events, Key::new().seq(low), Key::new().seq(high.next()).as_ref().to_vec());
    }
    if let Some((low, high)) = job.touched.lanes {
        add(Table::Deliveries, Key::lane(low), Key::lane(high).end());
    }
    // The job named the records while it ran.
    let itself = Key::workspace(job.workspace).bytes(&job.id.0);
    add(Table::Erasures, itself.clone(), itself.end());
    ranges
}

/// Ranges that touch each other are one.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_by(|a, b| (a.0 as u8, &a.1).cmp(&(b.0 as u8, &b.1)));
    let mut all: Vec<Range> = Vec::new();
    for (table, from, end) in ranges {
        match all.last_mut() {
            Some(last) if last.0 == table && from <= last.2 => last.2 = end.max(std::mem::take(&mut last.2)),
            _ => all.push((table, from, end)),
        }
    }
    all
}

/// The numbers of RocksDB's logs.
fn logs(folder: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(folder).map_err(Error::internal)?;
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse::<u64>().ok()
    };
    Ok(entries.filter_map(number).collect())
}

impl Rows {
    fn scrub(&self, folder: &Path, ranges: Vec<Range>) -> Result<()> {
        let newest = logs(folder)?.into_iter().max().unwrap_or_default();
        self.flush_logs(folder, newest)?;
        let mut options = CompactOptions::default();
        // Also where there is nothing below to merge with: what was overwritten may lie there.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        options.set_exclusive_manual_compaction(false);
        for (table, from, end) in joined(ranges) {
            self.db.compact_range_cf_opt(self.cf(table)?, Some(from), Some(end), &options);
        }
        Ok(())
    }

    /// Flushes until no log up to `newest` is left.
    fn flush_logs(&self, folder: &Path, newest: u64) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let is_left = || Ok::<_, Error>(logs(folder)?.into_iter().any(|number| number <= newest));
        for _ in 0..FLUSHES_MAX {
            for table in Table::ALL {
                self.db.flush_cf_opt(self.cf(*table)?, &options).map_err(Error::internal)?;
            }
            for _ in 0..LOG_WAITS_MAX / FLUSHES_MAX {
                if !is_left()? {
                    return Ok(());
                }
                std::thread::park_timeout(LOG_WAIT);
            }
        }
        Err(Error::internal("an old log of the store is still there after it was flushed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one_and_tables_stay_apart() {
        let range = |table, from: &[u8], end: &[u8]| (table, from.to_vec(), end.to_vec());
        let all = joined(vec![
            range(Table::Events, b"c", b"d"),
            range(Table::Inbox, b"a", b"b"),
            range(Table::Events, b"a", b"c"),
            range(Table::Events, b"b", b"bb"),
            range(Table::Events, b"x", b"y"),
        ]);
        let wanted =
            [range(Table::Inbox, b"a", b"b"), range(Table::Events, b"a", b"d"), range(Table::Events, b"x", b"y")];
        assert_eq!(all, wanted);
    }
}
