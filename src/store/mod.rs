//! What the node remembers: the only folder that knows RocksDB.
//!
//! Four commits carry everything, each one atomic batch: the raw webhook, published events or a changed setting; a
//! watcher's pull; the router's deliveries; an attempt's outcome. Always true: the log is on for every write and
//! recovery is point-in-time, so after any crash the store is a prefix of what was committed; a commit that was
//! answered as durable is in it. Not here: what to do about any of it (`actors`).

mod audit;
mod backfills;
mod backup;
mod batches;
mod cancels;
mod codec;
mod counts;
mod deliveries;
mod destinations;
mod due;
mod erase;
mod erasures;
mod events;
mod glance;
mod health;
mod idempotency;
mod inbox;
mod inbox_queue;
mod journals;
pub mod keys;
mod mark;
mod master;
mod numbers;
mod open;
mod order;
mod pulls;
mod registrations;
mod registry;
mod replays;
mod resends;
mod retention;
mod returns;
mod rows;
mod scrub;
mod secrets;
mod selects;
mod snapshots;
mod stops;
mod tables;
mod tx;
mod upgrade;
mod vault;
mod writer;

pub use backfills::Backfill;
pub use backup::{Identity, Note, Owed, Paused, copy_folder, note, restore};
pub use batches::{BatchRow, GivenRecord};
pub use cancels::OwedMark;
pub use counts::{Count, LaneCounts};
pub use deliveries::{DeliveryRow, Settlement};
pub use due::{Due, Place, Turn};
pub use erase::{ERASED, Held, SnapshotKey};
pub use glance::Low;
pub use health::{Health, inspect, upgrade_plan};
pub use idempotency::{Answer, Remembered};
pub use inbox::{Arrived, InboxRequest, InboxRow, InboxState, UNVERIFIED};
pub use master::master_key;
pub use open::{disk_bytes, exists, free_bytes, in_use};
pub use order::{Arrival, Care, Merged};
pub use pulls::PullSummary;
pub use registry::{Entity, Page};
pub use replays::ReplayCounts;
pub use retention::{Cutoffs, SweepMarks, Swept};
pub use rows::Rows;
pub use secrets::Slot;
pub use selects::{Among, Standing};
pub use stops::{Plan as StopPlan, Point, Stops};
pub use tables::Table;
pub use tx::Tx;
pub use upgrade::Plan;
pub use writer::{OnCommit, Wait};

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::domain::id::Seq;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use vault::Vault;
use writer::Commits;

/// Section `storage` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The one folder.
    pub path: PathBuf,
    /// Shared by all column families.
    pub block_cache_bytes: NonZeroUsize,
    /// All memtables together.
    pub write_buffer_bytes: NonZeroUsize,
    /// Of RocksDB, for flushes and compactions.
    pub background_threads: NonZeroU32,
    pub open_files_max: NonZeroU32,
    /// Commits that may wait for the writer.
    pub commit_queue_max: NonZeroUsize,
    /// Commits in one write.
    pub commit_group_max: NonZeroUsize,
    /// Below this, new work is refused with 503.
    pub free_bytes_min: NonZeroU64,
}

/// How long a store that is closed is waited for: at most so many times so long.
const CLOSE_WAIT: Duration = Duration::from_millis(1);
const CLOSE_WAITS_MAX: u32 = 5_000;

/// How long it is believed how much of the disk is free.
const FREE_FOR: Duration = Duration::from_millis(200);

/// The open store; clones are the same store.
#[derive(Clone)]
pub struct Store {
    rows: Arc<Rows>,
    commits: Commits,
    options: Arc<Options>,
    free: Arc<Mutex<Option<(Instant, u64)>>>,
}

impl std::ops::Deref for Store {
    type Target = Rows;
    fn deref(&self) -> &Rows {
        &self.rows
    }
}

impl Store {
    /// Opens or creates the store in `options.path`.
    ///
    /// # Errors
    /// Another process has it; the key does not open it; it is of a newer version; a file of it is corrupt. Each says so.
    pub fn open(options: &Options, master_key: &[u8; 32], clock: &Clock, on_commit: OnCommit) -> Result<Self> {
        Self::open_with(options, master_key, clock, on_commit, Stops::default())
    }

    /// The same with planned failures: for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        options: &Options,
        master_key: &[u8; 32],
        clock: &Clock,
        on_commit: OnCommit,
        stops: Stops,
    ) -> Result<Self> {
        let (db, cache) = open::open(options)?;
        let mut rows = Rows::new(db, Vault::new(master_key));
        health::check_vital(&rows, &options.path)?;
        upgrade::run(&mut rows, options, &cache)?;
        rows.ensure_identity()?;
        if let Some(bytes) = rows.raw(Table::Meta, writer::META_CLOCK)? {
            clock.raise(Millis(u64::from_be_bytes(codec::fixed("meta", &bytes)?)));
        }
        rows.count_unverified()?;
        let rows = Arc::new(rows);
        let limits = (options.commit_queue_max.get(), options.commit_group_max.get());
        let keeper = mark::Keeper::new(&open::db_folder(&options.path));
        let commits = Commits::start(rows.clone(), clock.clone(), limits, keeper, (on_commit, stops))?;
        Ok(Self { rows, commits, options: Arc::new(options.clone()), free: Arc::default() })
    }

    /// A change of the control plane: alone in its batch, reads see all that was committed, an error takes everything
    /// back, and it is on disk when this returns.
    pub async fn change<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.commits.commit(Wait::Durable, true, false, f).await
    }

    /// A commit of the hot path: shares its batch with others; `f` must not fail after its first write.
    pub async fn append<T: Send + 'static>(
        &self,
        wait: Wait,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.commits.commit(wait, false, false, f).await
    }

    /// The same without waiting for it: `done` is told once it is applied, on the writer's thread, so it must be quick.
    pub async fn post(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        self.commits.post(f, done).await;
    }

    /// The same at the door: refused with 503 when the queue of commits is full.
    pub async fn accept<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.commits.commit(Wait::Durable, false, true, f).await
    }

    /// Reads on a thread that may wait for the disk.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce(&Rows) -> Result<T> + Send + 'static) -> Result<T> {
        let rows = self.rows.clone();
        tokio::task::spawn_blocking(move || f(&rows)).await.map_err(Error::internal)?
    }

    /// The highest position of the log that a crash cannot take back. Nothing beyond it leaves the node.
    pub fn durable(&self) -> watch::Receiver<Seq> {
        self.commits.durable()
    }

    /// Commits waiting, and how many may wait.
    pub fn queue(&self) -> (usize, usize) {
        self.commits.queue()
    }

    /// Whether the last write or sync failed.
    pub fn is_broken(&self) -> bool {
        self.commits.is_broken()
    }

    /// After a failure: asks the disk again, since nothing else may write while work is refused. RocksDB looks every
    /// five seconds whether there is room.
    pub async fn probe(&self) {
        if self.is_broken() {
            // The outcome is in `is_broken`.
            let _ = self.change(|tx| tx.put_raw(Table::Meta, writer::META_CLOCK, &tx.now().0.to_be_bytes())).await;
        }
    }

    /// Bytes free on the store's disk, as of a moment ago: each request asks.
    pub fn free_bytes(&self) -> u64 {
        let now = Instant::now();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match *free {
            Some((at, bytes)) if now.duration_since(at) < FREE_FOR => bytes,
            _ => {
                let bytes = free_bytes(&self.options.path);
                *free = Some((now, bytes));
                bytes
            }
        }
    }

    /// Whether new work should be refused: the disk is nearly full, or the queue of commits is long.
    pub fn is_full(&self) -> bool {
        let (waiting, max) = self.queue();
        waiting * 10 > max * 9 || self.is_broken() || self.free_bytes() < self.options.free_bytes_min.get()
    }

    /// Closes the store on this thread, which must not be one that serves. A process that ends while another thread
    /// closes it is aborted by RocksDB.
    pub fn close(self) {
        let Self { rows, commits, .. } = self;
        drop(commits);
        // Writer and syncer end when there is nobody left to ask them.
        for _ in 0..CLOSE_WAITS_MAX {
            if Arc::strong_count(&rows) == 1 {
                return;
            }
            std::thread::park_timeout(CLOSE_WAIT);
        }
    }

    /// Returns when everything committed so far is on disk; the last thing before the process ends.
    pub async fn settle(&self) -> Result<()> {
        self.change(|_| Ok(())).await
    }
}

impl Rows {
    /// Bytes of the store's files and memtables.
    pub fn bytes(&self) -> u64 {
        let of = |table: &Table, name: &str| {
            let cf = self.cf(*table).ok()?;
            self.db.property_int_value_cf(cf, name).ok().flatten()
        };
        Table::ALL
            .iter()
            .flat_map(|t| [of(t, "rocksdb.total-sst-files-size"), of(t, "rocksdb.cur-size-all-mem-tables")])
            .flatten()
            .sum()
    }

    /// Seconds since the start in which RocksDB slowed or stopped writes, because flushes or compactions lagged.
    pub fn stall_seconds(&self) -> f64 {
        let text = self.db.property_value("rocksdb.dbstats").ok().flatten().unwrap_or_default();
        // The line is `Cumulative stall: 00:00:0.000 H:M:S, 0.0 percent`; the first such line counts from the start.
        let clock = text.lines().find_map(|line| line.strip_prefix("Cumulative stall: ")?.split_whitespace().next());
        let part = |seconds: f64, part: &str| seconds * 60.0 + part.parse::<f64>().unwrap_or(0.0);
        clock.map_or(0.0, |clock| clock.split(':').fold(0.0, part))
    }
}
