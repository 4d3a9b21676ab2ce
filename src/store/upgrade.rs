//! The store's own version, and the numbered steps from one to the next.
//!
//! Always true: a newer store is refused; a step runs once, in order, and the version is written with it; a wrong master
//! key is told by a canary row before anything else is read. Not here: the checkpoint taken before an upgrade.

use rocksdb::WriteBatch;

use super::codec;
use super::rows::Rows;
use super::tables::Table;
use crate::error::{Code, Error, Result};

/// One step: what it is called, and what it does. The first store is version 1.
type Step = (&'static str, fn(&Rows, &mut WriteBatch) -> Result<()>);

/// The steps from version 1 on: `STEPS[0]` leads from 1 to 2.
const STEPS: &[Step] = &[];

const META_VERSION: &[u8] = b"version";
const META_CANARY: &[u8] = b"canary";
const CANARY: &[u8] = b"tidemill store";

/// The version that this build writes.
pub(super) fn current() -> u32 {
    u32::try_from(STEPS.len()).unwrap_or(u32::MAX).saturating_add(1)
}

/// The version of the store as it is; none in one that was not finished.
pub(super) fn found(rows: &Rows) -> Result<Option<u32>> {
    let found = rows.raw(Table::Meta, META_VERSION)?;
    found.map(|bytes| Ok(u32::from_be_bytes(codec::fixed("meta", &bytes)?))).transpose()
}

/// Checks version and key, and brings the store to the current version.
pub(super) fn run(rows: &Rows, fresh: bool) -> Result<()> {
    let Some(found) = found(rows)? else {
        if !fresh && rows.raw(Table::Meta, super::writer::META_SEQ)?.is_some() {
            return Err(Error::new(Code::Internal, "the store has no version row: it is damaged; restore a backup"));
        }
        return create(rows);
    };
    if found > current() {
        let message = format!(
            "the store has version {found}, this build reads up to {}: start a newer tidemill, or restore a backup",
            current()
        );
        return Err(Error::new(Code::Internal, message));
    }
    let canary = rows.open_sealed(b"meta", Table::Meta, META_CANARY);
    if !matches!(canary, Ok(Some(text)) if text == CANARY) {
        let message = "the master key does not open this store: set the key that it was made with";
        return Err(Error::new(Code::Internal, message));
    }
    for (version, (name, step)) in (1_u32..).zip(STEPS).skip_while(|(version, _)| *version < found) {
        tracing::info!(step = name, from = version, "upgrading the store");
        let mut batch = WriteBatch::default();
        step(rows, &mut batch)?;
        batch.put_cf(rows.cf(Table::Meta)?, META_VERSION, (version + 1).to_be_bytes());
        write_synced(rows, batch)?;
    }
    Ok(())
}

fn create(rows: &Rows) -> Result<()> {
    let mut batch = WriteBatch::default();
    let meta = rows.cf(Table::Meta)?;
    batch.put_cf(meta, META_VERSION, current().to_be_bytes());
    batch.put_cf(meta, META_CANARY, rows.vault.seal(b"meta", Table::Meta, META_CANARY, CANARY)?);
    write_synced(rows, batch)
}

fn write_synced(rows: &Rows, batch: WriteBatch) -> Result<()> {
    let mut options = rocksdb::WriteOptions::default();
    options.set_sync(true);
    rows.db.write_opt(batch, &options).map_err(Error::internal)
}
