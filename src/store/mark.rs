//! What is known to be on disk, told beside the files: so that damage is seen before RocksDB repairs it away.
//!
//! RocksDB takes a log that ends early for one that a crash cut, and goes on with what is left; that is right for what was
//! never synced, and wrong for what was. The mark is written after each sync, never synced itself, so it may be old after
//! a power failure, but is never ahead. It lies inside RocksDB's folder, so a checkpoint or a copy has its own or none.
//! Always true: without a readable mark nothing is refused. Not here: who syncs (`writer`), who asks (`open`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rocksdb::DB;

use super::keys::hash16;
use crate::error::{Code, Error, Result};

/// The mark's file in RocksDB's folder.
const NAME: &str = "durable.mark";
/// Sequence (8), size of the manifest (8), number of the manifest (8), the start of the hash of those (8).
const BYTES: usize = 32;

/// What was on disk when the mark was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// RocksDB's own sequence, not the log's.
    sequence: u64,
    manifest: Manifest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Manifest {
    number: u64,
    bytes: u64,
}

impl Mark {
    /// The mark of the store whose RocksDB files are in `db`.
    pub(super) fn read(db: &Path) -> Option<Self> {
        let bytes = std::fs::read(db.join(NAME)).ok()?;
        let (told, hash) = bytes.get(..BYTES)?.split_at_checked(24)?;
        let number = |at: usize| super::keys::number_at(told, at);
        let manifest = Manifest { bytes: number(8)?, number: number(16)? };
        (hash16(told).get(..8) == Some(hash)).then_some(Self { sequence: number(0)?, manifest })
    }

    /// Whether the manifest has lost its end.
    pub(super) fn check_manifest(&self, db: &Path) -> Result<()> {
        let told = self.manifest;
        match Manifest::of(db) {
            Some(found) if found.number == told.number && found.bytes < told.bytes => Err(lost(
                db,
                &format!("MANIFEST-{:06}", told.number),
                &format!("it has {} bytes, and had {} on disk", found.bytes, told.bytes),
            )),
            _ => Ok(()),
        }
    }

    /// Whether everything that was on disk was found again.
    pub(super) fn check_logs(&self, db: &Path, rows: &DB) -> Result<()> {
        let found = rows.latest_sequence_number();
        if found >= self.sequence {
            return Ok(());
        }
        let logs = logs(db);
        let missing = self.sequence - found;
        Err(lost(db, &logs.join(" or "), &format!("the last {missing} changes that were on disk cannot be read")))
    }
}

fn lost(db: &Path, file: &str, what: &str) -> Error {
    let message = format!(
        "{} is damaged: {what}; restore a backup, or, to go on with what is left, remove {}",
        db.join(file).display(),
        db.join(NAME).display()
    );
    Error::new(Code::Internal, message)
}

/// RocksDB's logs, by name.
fn logs(db: &Path) -> Vec<String> {
    let names = std::fs::read_dir(db).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let is_log = |name: &String| Path::new(name).extension().is_some_and(|ending| ending == "log");
    let mut logs: Vec<String> = names.filter(is_log).collect();
    logs.sort();
    logs
}

impl Manifest {
    /// The manifest that is in force.
    fn of(db: &Path) -> Option<Self> {
        let current = std::fs::read_to_string(db.join("CURRENT")).ok()?;
        let number = current.trim().strip_prefix("MANIFEST-")?.parse().ok()?;
        let bytes = std::fs::metadata(db.join(current.trim())).ok()?.len();
        Some(Self { number, bytes })
    }
}

/// Keeps the mark up to date.
pub(super) struct Keeper {
    db: PathBuf,
    file: Option<File>,
    /// Seen at the last sync: what is there still at the next one has been synced meanwhile.
    seen: Manifest,
    told: Manifest,
}

impl Keeper {
    /// For the store whose RocksDB files are in `db`. Without a file there is no mark, and nothing else is lost by that.
    pub(super) fn new(db: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(db.join(NAME)).ok();
        Self { db: db.to_owned(), file, seen: Manifest::default(), told: Manifest::default() }
    }

    /// Everything up to `sequence` is on disk.
    pub(super) fn tell(&mut self, sequence: u64) {
        let Some(file) = &self.file else { return };
        let now = Manifest::of(&self.db).unwrap_or_default();
        if now == self.seen {
            self.told = now;
        }
        self.seen = now;
        let mut bytes = Vec::with_capacity(BYTES);
        for number in [sequence, self.told.bytes, self.told.number] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let hash = hash16(&bytes);
        bytes.extend(hash.into_iter().take(8));
        // A mark that could not be written is an old one.
        let _ = file.write_all_at(&bytes, 0);
    }
}
