//! The store's own version, and the numbered steps from one to the next.
//!
//! Always true: a newer store is refused; an older one is kept as a checkpoint beside the store before the first step
//! runs; a step's progress is written with the rows that it changed, so a crash in the middle goes on where it was and
//! no row is changed twice; a wrong master key is told by a canary row before anything else is read. Not here: the steps
//! themselves (`steps`).

mod pass;
mod steps;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rocksdb::{Cache, WriteBatch, checkpoint::Checkpoint};
use serde::{Deserialize, Serialize};

use super::rows::Rows;
use super::tables::Table;
use super::{Options, codec, open};
use crate::error::{Code, Error, Result};
use pass::Pass;
use steps::STEPS;

/// One step: from which version, what it does, and how.
pub(super) struct Step {
    pub from: u32,
    /// As the log and the dry run say it: "give subscriptions a filter".
    pub name: &'static str,
    pub run: fn(&mut Pass<'_>) -> Result<()>,
}

const META_VERSION: &[u8] = b"version";
const META_CANARY: &[u8] = b"canary";
const META_UPGRADE: &[u8] = b"upgrade";
const CANARY: &[u8] = b"tidemill store";
/// Changed rows in one write of a step.
const PIECE_BYTES: usize = 8 << 20;

/// How far an upgrade is: the row is there from the checkpoint to the last step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The version that it leads to. A build that does not know that version must not open what lies between.
    to: u32,
    from: u32,
    /// Passes of the step that are done, and the last key of the one under way; empty: at its start.
    passes: u32,
    after: Vec<u8>,
}

/// What the next start would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The store's version.
    pub found: u32,
    /// The version that this build writes.
    pub current: u32,
    /// From which version, and what is done.
    pub steps: Vec<(u32, &'static str)>,
    /// An upgrade was interrupted, and goes on: its checkpoint is there.
    pub is_under_way: bool,
    /// Where the store as it is will be kept.
    pub checkpoint: PathBuf,
}

fn version_after(steps: &[Step]) -> u32 {
    u32::try_from(steps.len()).unwrap_or(u32::MAX).saturating_add(1)
}

/// The store's version; none in one that was not finished.
pub(super) fn found(rows: &Rows) -> Result<Option<u32>> {
    let found = rows.raw(Table::Meta, META_VERSION)?;
    found.map(|bytes| Ok(u32::from_be_bytes(codec::fixed("meta", &bytes)?))).transpose()
}

fn mark(rows: &Rows) -> Result<Option<Mark>> {
    rows.get(Table::Meta, META_UPGRADE)
}

/// The version of a store that this build can read.
fn judge(rows: &Rows, current: u32) -> Result<Option<u32>> {
    let Some(found) = found(rows)? else {
        if rows.raw(Table::Meta, super::writer::META_SEQ)?.is_some() {
            return Err(Error::new(Code::Internal, "the store has no version row: it is damaged; restore a backup"));
        }
        return Ok(None);
    };
    let newest = mark(rows)?.map_or(found, |mark| mark.to.max(found));
    if newest > current {
        let message = format!(
            "the store has version {newest}, this build reads up to {current}: start a newer tidemill, or go back to \
             a checkpoint or a backup"
        );
        return Err(Error::new(Code::Internal, message));
    }
    Ok(Some(found))
}

/// What the next start would do. Nothing is written.
pub(super) fn plan(rows: &Rows, path: &Path) -> Result<Plan> {
    plan_of(rows, path, STEPS)
}

fn plan_of(rows: &Rows, path: &Path, steps: &[Step]) -> Result<Plan> {
    let current = version_after(steps);
    let found = judge(rows, current)?.unwrap_or(current);
    let left = steps.iter().filter(|step| step.from >= found);
    Ok(Plan {
        found,
        current,
        steps: left.map(|step| (step.from, step.name)).collect(),
        is_under_way: mark(rows)?.is_some(),
        checkpoint: checkpoint_folder(path, found),
    })
}

/// Whether the master key is the one that the store was made with.
pub(super) fn check_key(rows: &Rows) -> Result<()> {
    let canary = rows.open_sealed(b"meta", Table::Meta, META_CANARY);
    if matches!(canary, Ok(Some(text)) if text == CANARY) {
        return Ok(());
    }
    Err(Error::new(Code::Internal, "the master key does not open this store: set the key that it was made with"))
}

/// Checks version and key, and brings the store to the current version.
pub(super) fn run(rows: &mut Rows, options: &Options, cache: &Cache) -> Result<()> {
    bring(rows, options, cache, STEPS, PIECE_BYTES)
}

fn bring(rows: &mut Rows, options: &Options, cache: &Cache, steps: &[Step], piece_bytes: usize) -> Result<()> {
    let current = version_after(steps);
    let Some(found) = judge(rows, current)? else {
        open::add_tables(&mut rows.db, options, cache)?;
        return create(rows, current);
    };
    check_key(rows)?;
    let mut mark = match mark(rows)? {
        Some(mark) => mark,
        None if found == current => return open::add_tables(&mut rows.db, options, cache),
        None => {
            let folder = checkpoint_folder(&options.path, found);
            keep(rows, &options.path, &folder)?;
            tracing::info!(version = found, folder = %folder.display(), "the store is kept as it is before its upgrade");
            let mark = Mark { to: current, from: found, passes: 0, after: Vec::new() };
            let mut batch = WriteBatch::default();
            batch.put_cf(rows.cf(Table::Meta)?, META_UPGRADE, codec::encode(&mark)?);
            write_synced(rows, batch)?;
            mark
        }
    };
    open::add_tables(&mut rows.db, options, cache)?;
    mark.to = current;
    for step in steps.iter().filter(|step| step.from >= found) {
        tracing::info!(step = step.name, from = step.from, "upgrading the store");
        let mut pass = Pass::new(rows, mark, piece_bytes);
        (step.run)(&mut pass)?;
        mark = Mark { to: current, from: step.from + 1, passes: 0, after: Vec::new() };
        finish(rows, &mark)?;
    }
    tracing::info!(version = current, "the store is upgraded");
    Ok(())
}

/// A step is done: the version says so, and the last one takes the mark away.
fn finish(rows: &Rows, mark: &Mark) -> Result<()> {
    let meta = rows.cf(Table::Meta)?;
    let mut batch = WriteBatch::default();
    batch.put_cf(meta, META_VERSION, mark.from.to_be_bytes());
    if mark.from == mark.to {
        batch.delete_cf(meta, META_UPGRADE);
    } else {
        batch.put_cf(meta, META_UPGRADE, codec::encode(mark)?);
    }
    write_synced(rows, batch)
}

/// `db-version-1`; one that is there already, because somebody went back and upgrades again, is left alone.
fn checkpoint_folder(path: &Path, version: u32) -> PathBuf {
    let name = |again: u32| match again {
        1 => format!("db-version-{version}"),
        _ => format!("db-version-{version}.{again}"),
    };
    let mut again = 1;
    while path.join(name(again)).exists() {
        again += 1;
    }
    path.join(name(again))
}

/// Keeps the store as it is: hard links where the disk has them. RocksDB makes it under another name and renames it, so
/// a folder of this name is whole.
fn keep(rows: &Rows, path: &Path, folder: &Path) -> Result<()> {
    let told = |error| {
        let mut told = Error::internal(error);
        told.message = format!("the store cannot be kept in {} before its upgrade; make room", folder.display());
        told
    };
    Checkpoint::new(&rows.db).and_then(|checkpoint| checkpoint.create_checkpoint(folder)).map_err(told)?;
    std::fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::internal)
}

fn create(rows: &Rows, version: u32) -> Result<()> {
    let mut batch = WriteBatch::default();
    let meta = rows.cf(Table::Meta)?;
    batch.put_cf(meta, META_VERSION, version.to_be_bytes());
    batch.put_cf(meta, META_CANARY, rows.vault.seal(b"meta", Table::Meta, META_CANARY, CANARY)?);
    write_synced(rows, batch)
}

pub(super) fn write_synced(rows: &Rows, batch: WriteBatch) -> Result<()> {
    let mut options = rocksdb::WriteOptions::default();
    options.set_sync(true);
    rows.db.write_opt(batch, &options).map_err(Error::internal)
}
