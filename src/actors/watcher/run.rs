//! One run: a pull or scan of one collection, or all that one sync request asks for, under one row of the pull log.
//!
//! Always true: a run that ends says so in the pull log; first syncs, full scans, syncs that were asked for and failures
//! are told as `sync/*`, quiet polls are not; a failure leaves the cursor where it is safe. Not here: the walks
//! (`pulls`, `scans`), what is due (`look`).

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::changes::Tally;
use super::commit::{Commit, Standing};
use super::fresh::Fresh;
use super::{inbox, plan, told};
use crate::actors::Deps;
use crate::connectors::{CallError, Collection};
use crate::domain::connection::{CollectionState, Pull, SyncRequest};
use crate::domain::id::PullId;
use crate::domain::models::system::{self, Subject, SystemEvent};
use crate::domain::pull::{STALLED_AFTER, Task};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Wait;

/// How long a full node is left alone.
pub const FULL_WAIT: Duration = Duration::from_secs(5);
/// Characters of what a pull that went well has to say.
const NOTICE_CHARS_MAX: usize = 2_000;
/// A walk that could not go on where it broke off gets so many times the usual time.
const WHOLE_WALK_FACTOR: u32 = 8;

/// How a task ended.
#[derive(Debug)]
pub enum Ended {
    Done,
    /// It took as long as it may; it goes on soon.
    Later,
    /// The node is full: look again soon.
    Full,
    Failed(CallError),
    /// The connection is gone, or the app refuses its credentials: stop.
    Stop,
}

/// A run under way.
pub struct Run<'a> {
    pub deps: &'a Deps,
    pub account: &'a Arc<Account>,
    pub pull: Pull,
    asked: Option<SyncRequest>,
    noisy: bool,
    topics: Vec<String>,
    counts: Vec<system::Counts>,
    /// Tasks after the one at hand.
    pub left: usize,
    /// The last scan showed ids alone.
    pub ids_only: bool,
    held: u64,
    /// What collections failed of that the run went on after.
    failed: Vec<String>,
    /// The version of the mapping when the task at hand began.
    pub mapping: [u8; 16],
    pub rng: fastrand::Rng,
    /// What the walk at hand has written, where it began with an empty collection.
    pub fresh: Option<Arc<Fresh>>,
}

impl<'a> Run<'a> {
    /// Begins a run over these collections. `mode`: `first`, `full` or `incremental`.
    pub async fn begin(
        deps: &'a Deps,
        account: &'a Arc<Account>,
        collections: &[&Collection],
        mode: &str,
        asked: Option<SyncRequest>,
        tell: bool,
    ) -> Result<Run<'a>> {
        let id = match &asked {
            Some(request) => request.pull,
            None => PullId(deps.store.append(Wait::Applied, |tx| tx.fresh_id()).await?),
        };
        let now = deps.clock.now();
        let keys: Vec<&str> = collections.iter().map(|c| c.key.as_str()).collect();
        let pull = Pull {
            id,
            connection: account.connection.id,
            collection: keys.join(","),
            mode: mode.to_owned(),
            started_at: now,
            ended_at: None,
            outcome: "running".to_owned(),
            error: String::new(),
            pages: 0,
            records: 0,
            created: 0,
            updated: 0,
            deleted: 0,
            unchanged: 0,
            remapped: 0,
            unmapped: 0,
        };
        let noisy = mode != "incremental" || asked.is_some();
        let topics: Vec<String> = collections.iter().map(|c| c.topic.clone()).collect();
        let seed = account.connection.id.0.iter().fold(now.0, |seed, byte| seed.rotate_left(7) ^ u64::from(*byte));
        let rng = fastrand::Rng::with_seed(seed);
        let run = Self {
            deps,
            account,
            pull,
            asked,
            noisy,
            topics,
            counts: Vec::new(),
            left: 0,
            ids_only: false,
            held: 0,
            failed: Vec::new(),
            mapping: account.mapping,
            rng,
            fresh: None,
        };
        if noisy {
            let what = SystemEvent::SyncStarted { pull: run.shown(), topics: run.topics.clone(), started_at: now };
            let told = if tell { vec![(run.event(&what), None)] } else { Vec::new() };
            Commit { pull: Some(run.pull.clone()), told, ..Commit::default() }.run(deps, account).await?;
        }
        Ok(run)
    }

    /// Adds a page to the pull's row.
    pub fn note(&mut self, tally: &Tally) {
        self.pull.records += tally.seen;
        self.pull.created += tally.created;
        self.pull.updated += tally.updated;
        self.pull.deleted += tally.deleted;
        self.pull.unchanged += tally.unchanged + tally.stale;
        self.pull.remapped += tally.remapped;
        self.pull.unmapped += tally.unmapped;
    }

    /// What a page's commit carries beside the records.
    pub fn progress(&self) -> Commit {
        Commit { pull: Some(self.pull.clone()), ..Commit::default() }
    }

    /// Tells that deletions wait.
    pub fn hold(&mut self, c: &Collection, records: u64, missing: u64, needs_approval: bool) -> SystemEvent {
        self.held += missing;
        let collection = self.collection(c);
        let held_at = self.deps.clock.now();
        SystemEvent::SyncHeld { pull: self.pull.id, collection, records, missing, needs_approval, held_at }
    }

    /// Finishes a task in the commit at hand: the state of its collection, and the run itself if this was its last task.
    pub fn finish(
        &mut self,
        c: &Collection,
        task: Task,
        tally: &Tally,
        state: &mut CollectionState,
        commit: &mut Commit,
    ) {
        let now = self.deps.clock.now();
        let plan = plan::of(self.deps, self.account, c, state);
        let waits = plan::waits(&self.deps.polling);
        state.failures = 0;
        state.error.clear();
        state.stalled_told = false;
        let first = state.baseline_at.is_none();
        // Where there is a list of changes, a new mapping is done with when all of it has been read again.
        if first || task == Task::Scan && !c.pulls() {
            state.mapped_by = self.mapping;
        }
        state.baseline_at.get_or_insert(now);
        if first && c.has_bulk() {
            commit.bulk = Some((c.key.clone(), None));
        }
        match task {
            Task::Pull => {
                state.last_pull_at = Some(self.pull.started_at);
                state.next_pull_at = plan.pull.map(|interval| waits.next(now, interval, &mut self.rng));
                if first {
                    state.next_scan_at = plan.scan.map(|interval| waits.next(now, interval, &mut self.rng));
                }
            }
            Task::Scan => {
                state.last_scan_at = Some(self.pull.started_at);
                state.next_scan_at = plan.scan.map(|interval| waits.next(now, interval, &mut self.rng));
            }
        }
        self.counts.push(system::Counts {
            topic: c.topic.clone(),
            seen: tally.seen,
            created: tally.created,
            updated: tally.updated,
            deleted: tally.deleted,
            remapped: tally.remapped,
            held: self.held,
        });
        if self.left == 0 {
            self.close(commit, now);
        }
    }

    /// Ends a run whose last task had nothing to finish.
    pub async fn close_now(&mut self) -> Result<Ended> {
        let mut commit = Commit::default();
        self.close(&mut commit, self.deps.clock.now());
        let standing = commit.run(self.deps, self.account).await?;
        Ok(if standing == Standing::Gone { Ended::Stop } else { Ended::Done })
    }

    fn close(&mut self, commit: &mut Commit, now: Millis) {
        self.pull.ended_at = Some(now);
        self.pull.outcome = match self.failed.is_empty() {
            false => "failed",
            true if self.held > 0 => "held",
            true => "completed",
        }
        .to_owned();
        self.pull.error = if self.failed.is_empty() { self.notices() } else { self.failures() };
        if self.noisy && (self.failed.is_empty() || !self.counts.is_empty()) {
            let what = SystemEvent::SyncCompleted {
                pull: self.shown(),
                collections: std::mem::take(&mut self.counts),
                started_at: self.pull.started_at,
                completed_at: now,
            };
            commit.told.push((self.event(&what), None));
        }
        commit.pull = Some(self.pull.clone());
        commit.done = self.asked.take();
    }

    fn failures(&self) -> String {
        self.failed.join("; ").chars().take(NOTICE_CHARS_MAX).collect()
    }

    /// Whether the run goes on after one of its collections has failed: others were asked for too, and they may be well.
    pub fn goes_on(&self) -> bool {
        self.asked.is_some()
    }

    /// What a pull that went well has to say: what of its collections the account does not show.
    fn notices(&self) -> String {
        let (connector, session) = (self.account.connector(), &self.account.session);
        let read = |c: &&Collection| self.pull.collection.split(',').any(|key| key == c.key);
        let all = connector.collections.iter().filter(read);
        let lacking: Vec<String> = all.flat_map(|c| [session.lacking(c), session.unlisted(c)]).flatten().collect();
        lacking.join("; ").chars().take(NOTICE_CHARS_MAX).collect()
    }

    /// Notes a failure: the pull's row, the back-off, what is told. Answers whether the connection can go on.
    pub async fn fail(&mut self, c: &Collection, task: Task, error: CallError) -> Result<Ended> {
        let now = self.deps.clock.now();
        if let CallError::Unauthorized(message) = &error {
            let message = if message.is_empty() { "the app refuses the credentials" } else { message };
            self.account.give_up(self.deps, message).await?;
        }
        let mut state = self.deps.store.collection_state(self.account.connection.id, &c.key)?;
        let told_to_wait = matches!(error, CallError::RateLimited { retry_after: Some(_) });
        if !told_to_wait {
            state.failures = state.failures.saturating_add(1);
        }
        state.error = self.told(&error);
        let waits = plan::waits(&self.deps.polling);
        let retry = waits.retry(now, state.failures.max(1), error.retry_after(), &mut self.rng);
        match task {
            Task::Pull => state.next_pull_at = Some(retry),
            Task::Scan => state.next_scan_at = Some(retry),
        }
        let mut commit = Commit::default();
        self.failed.push(format!("{}: {}", c.key, state.error));
        let goes_on = self.left > 0 && self.asked.is_some() && error.is_of_one_collection();
        if !goes_on {
            self.pull.ended_at = Some(now);
            self.pull.outcome = "failed".to_owned();
            self.pull.error = if self.failed.len() > 1 { self.failures() } else { state.error.clone() };
        }
        if self.asked.is_some() || (state.failures == 1 && !told_to_wait) {
            let what = SystemEvent::SyncFailed {
                pull: self.shown(),
                topics: vec![c.topic.clone()],
                error: told::fault(&error),
                started_at: self.pull.started_at,
                failed_at: now,
                next_pull_at: Some(retry),
            };
            commit.told.push((self.event(&what), None));
        }
        if state.failures >= STALLED_AFTER && !state.stalled_told {
            state.stalled_told = true;
            let (last_pull_at, collection) = (state.last_pull_at.or(state.last_scan_at), self.collection(c));
            let reason = error.to_string();
            let what = SystemEvent::PollerStalled { collection, last_pull_at, due_at: retry, reason };
            commit.told.push((self.event(&what), None));
        }
        commit.pull = Some(self.pull.clone());
        if !goes_on {
            commit.done = self.asked.take();
        }
        commit.collections.push((c.key.clone(), super::changes::Judged::default(), state));
        commit.run(self.deps, self.account).await?;
        tracing::info!(connection = %self.account.connection.id, collection = c.key, %error, "a pull failed");
        Ok(if matches!(error, CallError::Unauthorized(_)) { Ended::Stop } else { Ended::Failed(error) })
    }

    /// A failure in one sentence; of a limit, with what the app last said of it.
    fn told(&self, error: &CallError) -> String {
        match (error, self.account.session.limit_told()) {
            (CallError::RateLimited { .. }, Some(told)) => format!("{error}: {told}"),
            _ => error.to_string(),
        }
    }

    /// Breaks a walk off that took as long as it may: it goes on at the next look.
    pub async fn cut(&mut self, c: &Collection, task: Task) -> Result<Ended> {
        let wait = match task {
            Task::Pull => Duration::ZERO,
            Task::Scan => Duration::from_secs(60),
        };
        self.put_off(c, task, wait, "it took as long as one look may; the next one goes on").await
    }

    /// Breaks a task off that goes on after a while; `why` stands in the pull log.
    pub async fn put_off(&mut self, c: &Collection, task: Task, wait: Duration, why: &str) -> Result<Ended> {
        let now = self.deps.clock.now();
        let mut state = self.deps.store.collection_state(self.account.connection.id, &c.key)?;
        match task {
            Task::Pull => state.next_pull_at = Some(now.after(wait)),
            Task::Scan => state.next_scan_at = Some(now.after(wait)),
        }
        let mut commit = Commit::default();
        self.pull.ended_at = Some(now);
        self.pull.outcome = "completed".to_owned();
        self.pull.error = why.to_owned();
        commit.pull = Some(self.pull.clone());
        // What is left of a sync that was asked for is done by the timers.
        commit.done = self.asked.take();
        commit.collections.push((c.key.clone(), super::changes::Judged::default(), state));
        let standing = commit.run(self.deps, self.account).await?;
        Ok(if standing == Standing::Gone { Ended::Stop } else { Ended::Later })
    }

    /// Whether the next page is asked for while the one at hand is committed. Not after the first one of the run: most looks
    /// find no second page, and a run that dies at its second request has kept something.
    pub fn looks_ahead(&self) -> bool {
        self.pull.pages > 1
    }

    /// Whether most records of a walk will have to be mapped, since there is nothing yet.
    pub fn maps(&self, c: &Collection) -> Result<bool> {
        let state = self.deps.store.collection_state(self.account.connection.id, &c.key)?;
        Ok(state.baseline_at.is_none() || self.fresh.is_some())
    }

    /// What must be looked at between two pages: a full node, webhooks that came meanwhile.
    pub async fn between_pages(&self) -> Result<Option<Ended>> {
        if self.deps.store.is_full() {
            return Ok(Some(Ended::Full));
        }
        Ok(match inbox::work(self.deps, self.account).await? {
            true => Some(Ended::Stop),
            false => None,
        })
    }

    /// Whether the walk has used up its time.
    pub fn is_late(&self, resumes: bool) -> bool {
        let limit = Duration::from_secs(self.deps.polling.pull_seconds_max.get());
        let limit = if resumes { limit } else { limit * WHOLE_WALK_FACTOR };
        self.deps.clock.now().since(self.pull.started_at) > limit
    }

    /// A system event about this connection.
    pub fn event(&self, what: &SystemEvent) -> crate::domain::event::Event {
        let about = Subject::Connection(&self.account.connection, self.account.user.as_ref());
        what.event(about, self.deps.clock.now())
    }

    fn shown(&self) -> system::Pull {
        told::pull(&self.account.connection, &self.pull)
    }

    fn collection(&self, c: &Collection) -> system::Collection {
        let connection = &self.account.connection;
        system::Collection {
            connection: connection.id,
            connector: connection.connector.clone(),
            topic: c.topic.clone(),
        }
    }
}
