//! One writer, one syncer, and the durability watermark.
//!
//! Always true: the writer runs every commit in order and writes many of them as one batch; the syncer syncs the log in
//! a loop and then answers those who wait. Sequences are drawn inside the writer, so a sequence that can be read has
//! every smaller one before it, and they are reserved in blocks, so that none is used twice after a crash. Not here:
//! what is committed (`inbox`, `events`, `deliveries`, …).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot, watch};

use super::codec;
use super::counts::Deltas;
use super::mark::Keeper;
use super::order::Overlay;
use super::rows::Rows;
use super::stops::{Point, Stops, Touched};
use super::tables::Table;
use super::tx::{Sequences, Tx};
use crate::clock::Clock;
use crate::domain::id::Seq;
use crate::error::{Error, Result};

/// Bytes in one write, after which no further commit joins it.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Rows of `meta`.
pub(super) const META_SEQ: &[u8] = b"seq";
pub(super) const META_CLOCK: &[u8] = b"clock";

/// Commits that are written together.
#[derive(Default)]
struct Group {
    batch: WriteBatch,
    deltas: Deltas,
    overlay: Overlay,
    touched: Touched,
}

/// When a commit is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Once it can be read.
    Applied,
    /// Once it is on disk.
    Durable,
}

type Finish = Box<dyn FnOnce(Option<Arc<rocksdb::Error>>) + Send>;
type Run = Box<dyn FnOnce(&mut Tx<'_>) -> (bool, Finish) + Send>;

struct Job {
    run: Run,
    wait: Wait,
    /// Alone in its batch, so that it reads all that was committed before and can be taken back.
    exclusive: bool,
}

/// What the syncer and everyone else knows of how far the disk is.
pub(super) struct Watermark {
    durable: watch::Sender<Seq>,
    state: Mutex<SyncState>,
    ring: Condvar,
    /// The commit queue refuses, or the disk failed.
    broken: AtomicBool,
    pub(super) sync_us_total: AtomicU64,
}

#[derive(Default)]
struct SyncState {
    waiting: Vec<Finish>,
    written: Seq,
    wanted: bool,
    stop: bool,
    dead: bool,
}

/// Told the seconds that a durable commit took.
pub type OnCommit = Arc<dyn Fn(f64) + Send + Sync>;

/// The way into the writer.
#[derive(Clone)]
pub(super) struct Commits {
    jobs: mpsc::Sender<Job>,
    pub(super) mark: Arc<Watermark>,
    on_commit: OnCommit,
}

impl Commits {
    /// Starts writer and syncer.
    pub(super) fn start(
        rows: Arc<Rows>,
        clock: Clock,
        (queue_max, group_max): (usize, usize),
        keeper: Keeper,
        (on_commit, stops): (OnCommit, Stops),
    ) -> Result<Self> {
        let reserved = match rows.raw(Table::Meta, META_SEQ)? {
            Some(bytes) => u64::from_be_bytes(codec::fixed("meta", &bytes)?),
            None => 1,
        };
        let (jobs, queue) = mpsc::channel(queue_max);
        let (durable, _) = watch::channel(Seq(reserved.saturating_sub(1)));
        let mark = Arc::new(Watermark {
            durable,
            state: Mutex::default(),
            ring: Condvar::new(),
            broken: AtomicBool::new(false),
            sync_us_total: AtomicU64::new(0),
        });
        let seqs = Sequences { next: reserved, reserved, told: reserved };
        let writer = Writer { rows: rows.clone(), clock, seqs, mark: mark.clone(), group_max, stops: stops.clone() };
        spawn("store-writer", move || writer.run(queue))?;
        let syncer = mark.clone();
        spawn("store-syncer", move || syncer.run(&rows, keeper, &stops))?;
        Ok(Self { jobs, mark, on_commit })
    }

    /// The highest sequence that a crash cannot take back.
    pub(super) fn durable(&self) -> watch::Receiver<Seq> {
        self.mark.durable.subscribe()
    }

    /// How many commits wait, and how many may.
    pub(super) fn queue(&self) -> (usize, usize) {
        (self.jobs.max_capacity() - self.jobs.capacity(), self.jobs.max_capacity())
    }

    pub(super) fn is_broken(&self) -> bool {
        self.mark.broken.load(Ordering::Relaxed)
    }

    /// Runs `f` in the writer. With `exclusive`, an error takes back what it wrote.
    pub(super) async fn commit<T: Send + 'static>(
        &self,
        wait: Wait,
        exclusive: bool,
        refuse_when_full: bool,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let started = Instant::now();
        let run: Run = Box::new(move |tx| {
            let outcome = f(tx);
            let keep = outcome.is_ok();
            let finish: Finish = Box::new(move |failed| {
                // Nobody may wait any more; the commit stands all the same.
                let _ = answer.send(match failed {
                    Some(error) => Err(unwritten(error)),
                    None => outcome,
                });
            });
            (keep, finish)
        });
        let job = Job { run, wait, exclusive };
        if refuse_when_full {
            self.jobs.try_send(job).map_err(|_| Error::unavailable("the node is busy; try again soon", 1))?;
        } else {
            self.jobs.send(job).await.map_err(|_| Error::unavailable("the node is stopping", 5))?;
        }
        let outcome = answered.await.map_err(|_| Error::unavailable("the node is stopping", 5))?;
        if wait == Wait::Durable {
            (self.on_commit)(started.elapsed().as_secs_f64());
        }
        outcome
    }
}

impl Commits {
    /// Hands a commit over and waits only until it has a place in the queue. `done` is told once it is applied, on the
    /// writer's thread; it is dropped if the node stops before.
    pub(super) async fn post(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let run: Run = Box::new(move |tx| {
            let outcome = f(tx);
            let keep = outcome.is_ok();
            let finish: Finish = Box::new(move |failed| done(failed.map_or(outcome, |error| Err(unwritten(error)))));
            (keep, finish)
        });
        // An error gives the job back, and drops it.
        let _ = self.jobs.send(Job { run, wait: Wait::Applied, exclusive: false }).await;
    }
}

/// What is told of a commit whose batch could not be written.
fn unwritten(error: Arc<rocksdb::Error>) -> Error {
    Error::unavailable("the store cannot write; try again soon", 5).because(error)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(Error::internal)
}

struct Writer {
    rows: Arc<Rows>,
    clock: Clock,
    seqs: Sequences,
    mark: Arc<Watermark>,
    group_max: usize,
    stops: Stops,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut held = None;
        while let Some(first) = held.take().or_else(|| queue.blocking_recv()) {
            let mut group = Group::default();
            let mut finishes = Vec::new();
            let mut sync = false;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                let alone = job.exclusive;
                if alone && !finishes.is_empty() {
                    held = Some(job);
                    break;
                }
                sync |= self.one(job, &mut group, &mut finishes);
                if !alone && finishes.len() < self.group_max && group.batch.size_in_bytes() < BATCH_BYTES_MAX {
                    next = queue.try_recv().ok();
                }
            }
            if !self.write(group, finishes, sync) {
                return self.mark.die();
            }
        }
        self.mark.stop();
    }

    /// Runs one commit into the batch; answers whether it asks for a sync.
    fn one(&mut self, job: Job, group: &mut Group, finishes: &mut Vec<(Wait, Finish)>) -> bool {
        let now = self.clock.now();
        let Group { batch, deltas, overlay, touched } = group;
        let mut tx = Tx { rows: &self.rows, batch, deltas, overlay, touched, seqs: &mut self.seqs, now, events: 0 };
        // A commit that panics must not take the writer with it: its caller learns that nobody answers.
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (job.run)(&mut tx)));
        let events = tx.events > 0;
        match ran {
            Ok((keep, finish)) => {
                if !keep && job.exclusive {
                    *group = Group::default();
                }
                finishes.push((job.wait, finish));
                events || job.wait == Wait::Durable
            }
            Err(_) => {
                tracing::error!("a commit panicked; what it had written is not kept if it was alone");
                if job.exclusive {
                    *group = Group::default();
                }
                false
            }
        }
    }

    /// Writes a batch and answers those who wait for no more than that. False: the process is to die here.
    fn write(&mut self, group: Group, finishes: Vec<(Wait, Finish)>, sync: bool) -> bool {
        let touched = group.touched;
        if !self.stops.pass(Point::Made, touched) {
            return false;
        }
        match self.put(group) {
            Ok(()) => {
                if !self.stops.pass(Point::Written, touched) {
                    return false;
                }
                let mut durable = Vec::new();
                for (wait, finish) in finishes {
                    match wait {
                        Wait::Applied => finish(None),
                        Wait::Durable => durable.push(finish),
                    }
                }
                self.mark.written(Seq(self.seqs.next - 1), durable, sync);
            }
            Err(error) => {
                self.mark.failed(&error);
                let error = Arc::new(error);
                for (_, finish) in finishes {
                    finish(Some(error.clone()));
                }
            }
        }
        true
    }

    /// Writes a batch, with the time up to which the clock has been read and the sequences that are in use.
    fn put(&mut self, group: Group) -> std::result::Result<(), rocksdb::Error> {
        let Group { mut batch, deltas, .. } = group;
        if let Ok(cf) = self.rows.cf(Table::Counts) {
            for (key, by) in deltas.iter().filter(|(_, by)| **by != 0) {
                batch.merge_cf(cf, key, by.to_le_bytes());
            }
        }
        let reserved = self.seqs.reserved;
        if batch.is_empty() && reserved == self.seqs.told {
            return Ok(());
        }
        if let Ok(meta) = self.rows.cf(Table::Meta) {
            batch.put_cf(meta, META_CLOCK, self.clock.now().0.to_be_bytes());
            if reserved != self.seqs.told {
                batch.put_cf(meta, META_SEQ, reserved.to_be_bytes());
            }
        }
        self.rows.db.write_opt(batch, &WriteOptions::default())?;
        self.seqs.told = reserved;
        self.mark.mended();
        Ok(())
    }
}

impl Watermark {
    fn lock(&self) -> std::sync::MutexGuard<'_, SyncState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told in the log once, not for each commit that fails.
    fn failed(&self, error: &rocksdb::Error) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the store cannot write: new work is refused until it can");
        }
    }

    fn mended(&self) {
        if self.broken.load(Ordering::Relaxed) && self.broken.swap(false, Ordering::Relaxed) {
            tracing::info!("the store writes again");
        }
    }

    fn written(&self, seq: Seq, mut durable: Vec<Finish>, sync: bool) {
        let mut state = self.lock();
        state.written = state.written.max(seq);
        if !state.dead {
            state.waiting.append(&mut durable);
        }
        if sync {
            state.wanted = true;
            self.ring.notify_one();
        }
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        state.wanted = true;
        self.ring.notify_one();
    }

    /// Nothing more is synced or answered.
    fn die(&self) {
        let mut state = self.lock();
        (state.dead, state.wanted) = (true, true);
        state.waiting.clear();
        self.ring.notify_one();
    }

    fn run(&self, rows: &Rows, mut keeper: Keeper, stops: &Stops) {
        loop {
            let mut state = self.lock();
            while !state.wanted {
                state = self.ring.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let finishes = std::mem::take(&mut state.waiting);
            let (written, stop, dead) = (state.written, state.stop, state.dead);
            state.wanted = false;
            drop(state);
            let (started, reached) = (Instant::now(), rows.db.latest_sequence_number());
            if dead || !stops.pass(Point::Syncing, Touched::default()) {
                return self.die();
            }
            let outcome = rows.db.flush_wal(true);
            let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.sync_us_total.fetch_add(us, Ordering::Relaxed);
            match outcome {
                Ok(()) => {
                    keeper.tell(reached);
                    if !stops.pass(Point::Synced, Touched::default()) {
                        return self.die();
                    }
                    self.durable
                        .send_if_modified(|durable| std::mem::replace(durable, written.max(*durable)) < written);
                    finishes.into_iter().for_each(|finish| finish(None));
                }
                Err(error) => {
                    self.failed(&error);
                    let error = Arc::new(error);
                    finishes.into_iter().for_each(|finish| finish(Some(error.clone())));
                }
            }
            if stop {
                return;
            }
        }
    }
}
