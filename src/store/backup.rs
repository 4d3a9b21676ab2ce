//! Backups of a running store, what a restored one knows of itself, and how it is told from the original.
//!
//! A backup is a folder: RocksDB's checkpoint (`db`) and a note. Always true: a folder with the backup's name is whole;
//! the master key is described, never included; a restored store is paused until somebody lets it go on, and its log
//! goes on so far behind that no id of an event is given twice, whatever the original did since. Not here: who may ask
//! (`api`), that a paused store starts no actor (`app`).

use std::fs::File;
use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::vault::Vault;
use super::{Options, Store, codec, open, upgrade, writer};
use crate::clock::Clock;
use crate::domain::id::SubscriptionId;
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::{Error, Result};

const META_STORE: &[u8] = b"store";
const META_PAUSED: &[u8] = b"paused";
/// The note beside the checkpoint.
const NOTE: &str = "backup.json";
/// How far a restored log jumps: more events than the original can have made since.
const JUMP: u64 = 1 << 40;
/// Lanes that a report names; the others are counted.
const NAMED_MAX: usize = 20;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// The store that it is of, and how often that store had been restored.
    pub store: Identity,
    pub made_at: Millis,
    /// Of the store's rows.
    pub version: u32,
    /// Of the build that made it.
    pub build: String,
    /// Tells the master key that opens it from others. The key is not in the backup.
    pub key_fingerprint: String,
}

/// A store, as against its copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// 32 hex characters, drawn when the store was made.
    pub id: String,
    /// How often it was restored.
    pub restores: u32,
}

/// Why nothing is polled, routed or delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// When the backup was made that the store was restored from.
    pub backup_at: Millis,
    pub restored_at: Millis,
}

/// What a store will send when it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// Deliveries that wait.
    pub deliveries: u64,
    /// Events that have not been given to subscriptions yet; counted up to a limit.
    pub events: u64,
    /// Subscriptions that are owed something.
    pub lanes: u64,
    /// The ones that are owed most: scheme and host of the address, since the rest may be secret, and how many.
    pub most: Vec<(SubscriptionId, String, u64)>,
}

impl Rows {
    /// Which store this is.
    pub fn identity(&self) -> Result<Identity> {
        self.get(Table::Meta, META_STORE)?.ok_or_else(|| Error::internal("the store has no identity"))
    }

    /// Gives a store that has none its identity. Stores of the first versions have none.
    pub(super) fn ensure_identity(&self) -> Result<()> {
        if self.get::<Identity>(Table::Meta, META_STORE)?.is_some() {
            return Ok(());
        }
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| Error::internal("the system's random source failed"))?;
        self.put_meta(META_STORE, &Identity { id: hex::encode(id), restores: 0 })
    }

    fn put_meta<T: Serialize>(&self, key: &[u8], value: &T) -> Result<()> {
        let mut batch = rocksdb::WriteBatch::default();
        batch.put_cf(self.cf(Table::Meta)?, key, codec::encode(value)?);
        upgrade::write_synced(self, batch)
    }

    /// Why the store is paused, if it is.
    pub fn paused(&self) -> Result<Option<Paused>> {
        self.get(Table::Meta, META_PAUSED)
    }

    /// What will be sent when the store goes on.
    pub fn owed_in_all(&self) -> Result<Owed> {
        const COUNTED_MAX: usize = 10_000;
        let mut owed = Owed::default();
        for lane in self.lanes_owed()? {
            let pending = self.lane_counts(lane)?.pending;
            let Some(Subscription { id, address, .. }) = self.subscription_by_lane(lane)? else { continue };
            owed.deliveries += pending;
            owed.lanes += 1;
            owed.most.push((id, origin(&address), pending));
            owed.most.sort_by_key(|(_, _, pending)| std::cmp::Reverse(*pending));
            owed.most.truncate(NAMED_MAX);
        }
        let from = Key::new().seq(self.routed()?).end();
        self.walk(Table::Events, &from, &[u8::MAX; 9], Walk::Forward, |_, _| {
            owed.events += 1;
            Ok(owed.events < COUNTED_MAX as u64)
        })?;
        Ok(owed)
    }

    fn back_up(&self, folder: &Path, made_at: Millis) -> Result<Note> {
        let told = |error: &dyn std::fmt::Display| {
            Error::unavailable(format!("the backup cannot be made in {}: {error}", folder.display()), 60)
        };
        let made = folder.with_extension("unfinished");
        if made.exists() {
            std::fs::remove_dir_all(&made).map_err(|e| told(&e))?;
        }
        std::fs::create_dir_all(&made).map_err(|e| told(&e))?;
        let checkpoint = Checkpoint::new(&self.db).map_err(|e| told(&e))?;
        checkpoint.create_checkpoint(open::db_folder(&made)).map_err(|e| told(&e))?;
        let note = Note {
            store: self.identity()?,
            made_at,
            version: upgrade::found(self)?.unwrap_or_default(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            key_fingerprint: self.vault.fingerprint()?,
        };
        let text = serde_json::to_vec_pretty(&note).map_err(Error::internal)?;
        let synced = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        std::fs::write(made.join(NOTE), text).map_err(|e| told(&e))?;
        synced(&made.join(NOTE)).and_then(|()| synced(&made)).map_err(|e| told(&e))?;
        std::fs::rename(&made, folder).map_err(|e| told(&e))?;
        if let Some(parent) = folder.parent() {
            synced(parent).map_err(|e| told(&e))?;
        }
        Ok(note)
    }
}

impl Store {
    /// Makes a backup in a folder that is not there yet: as of now, consistent, on disk when this returns. Where it is on
    /// the store's own disk its files are hard links, which cost nothing until the store has rewritten them.
    ///
    /// # Errors
    /// The folder cannot be written, or there is no room.
    pub async fn back_up(&self, folder: PathBuf, now: Millis) -> Result<Note> {
        // What was answered before this call is in it, synced or not.
        self.settle().await?;
        self.blocking(move |rows| rows.back_up(&folder, now)).await
    }

    /// Lets a restored store go on.
    pub async fn unpause(&self) -> Result<()> {
        self.change(|tx| tx.delete(Table::Meta, META_PAUSED)).await
    }
}

/// Scheme and host of an address.
fn origin(address: &str) -> String {
    url::Url::parse(address).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// The note of the backup in a folder.
///
/// # Errors
/// There is no backup there, or its note cannot be read.
pub fn note(folder: &Path) -> Result<Note> {
    let told = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("{} is no backup: {NOTE} cannot be read: {error}", folder.display()))
    };
    let text = std::fs::read(folder.join(NOTE)).map_err(|e| told(&e))?;
    serde_json::from_slice(&text).map_err(|e| told(&e))
}

/// Puts a backup where the store belongs. The store is paused, and what it will send when it goes on is told.
///
/// # Errors
/// There is a store already, there is no backup, its files are damaged, or the master key is another one. What was
/// written is removed again.
pub fn restore(options: &Options, master_key: &[u8; 32], from: &Path, clock: &Clock) -> Result<(Note, Owed)> {
    let path = &options.path;
    let note = note(from)?;
    if open::exists(path) {
        let message = format!("there is a store in {}: move it away, or set another storage.path", path.display());
        return Err(Error::invalid(message));
    }
    let fingerprint = Vault::new(master_key).fingerprint()?;
    if fingerprint != note.key_fingerprint {
        let message = format!(
            "the backup was made under another master key (its fingerprint is {}, not {fingerprint}): set the key that \
             the original had",
            note.key_fingerprint
        );
        return Err(Error::invalid(message));
    }
    // Under another name until it is whole and paused: a store is never there that would start by itself.
    let unfinished = path.join("restore.unfinished");
    let told = |error: std::io::Error| {
        Error::invalid(format!("the backup cannot be copied to {}", path.display())).because(error)
    };
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(told)?;
    }
    copy_folder(&open::db_folder(from), &open::db_folder(&unfinished)).map_err(told)?;
    let inside = Options { path: unfinished.clone(), ..options.clone() };
    let owed = settle_in(&inside, master_key, &note, clock.now());
    let owed = owed.inspect_err(|_| drop(std::fs::remove_dir_all(&unfinished)))?;
    std::fs::rename(open::db_folder(&unfinished), open::db_folder(path)).map_err(told)?;
    std::fs::remove_dir_all(&unfinished).map_err(told)?;
    File::open(path).and_then(|dir| dir.sync_all()).map_err(told)?;
    Ok((note, owed))
}

/// Checks the copied files, and makes of them a store of its own that waits.
fn settle_in(options: &Options, master_key: &[u8; 32], note: &Note, now: Millis) -> Result<Owed> {
    let (db, cache) = open::open(options)?;
    let mut rows = Rows::new(db, Vault::new(master_key));
    super::health::check_vital(&rows, &options.path)?;
    upgrade::run(&mut rows, options, &cache)?;
    let last = rows.raw(Table::Meta, writer::META_SEQ)?;
    let last = last.map_or(Ok(1), |bytes| Ok(u64::from_be_bytes(codec::fixed("meta", &bytes)?)))?;
    let identity = Identity { restores: note.store.restores + 1, ..note.store.clone() };
    let paused = Paused { backup_at: note.made_at, restored_at: now };
    let meta = rows.cf(Table::Meta)?;
    let mut batch = rocksdb::WriteBatch::default();
    batch.put_cf(meta, writer::META_SEQ, (last + JUMP).to_be_bytes());
    batch.put_cf(meta, META_STORE, codec::encode(&identity)?);
    batch.put_cf(meta, META_PAUSED, codec::encode(&paused)?);
    upgrade::write_synced(&rows, batch)?;
    rows.owed_in_all()
}

/// Copies a folder, and has it on disk.
///
/// # Errors
/// A file cannot be read or written; what was copied stays.
pub fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy_folder(&entry, &target)?;
        } else {
            std::fs::copy(&entry, &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}
