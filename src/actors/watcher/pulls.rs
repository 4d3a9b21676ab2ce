//! Incremental pulls, and the app's own list of deleted records.
//!
//! Always true: a page's records and the cursor that it allows are one commit. Not here: which page comes next
//! (`domain::pull`).

use std::time::Duration;

use super::asking::{Asking, List};
use super::changes::{Seen as Sight, Sighting, Tally};
use super::commit::{Commit, Standing};
use super::fresh::Fresh;
use super::ready::{Ready, beside};
use super::run::{Ended, Run};
use super::{bulk, fields, partial, plan};
use crate::connectors::{AppRecord, CallError, Collection, Page, PageMark, Part, PullQuery};
use crate::domain::connection::{CollectionState, Cursor};
use crate::domain::event::Source;
use crate::domain::pull::{End, Next, Scan, ScanStep, Seen, Walk};
use crate::domain::pull::{SamePage, Task};
use crate::domain::record::record_id;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Tx, Wait};

/// How far back the app's list of deleted records is read beyond the last pull, since its clock is not ours.
const DELETED_OVERLAP: Duration = Duration::from_secs(600);
/// The name of the cursor of the list of records whose parts changed.
const TOUCHED: &str = "touched";
/// How long before the first pull that list begins, since the app's clock is not ours.
const TOUCHED_OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// Ids of one list of deleted records.
const DELETED_IDS_MAX: usize = 1_000_000;

/// Pulls what changed since the cursor; with `whole`, everything. Where a collection is walked for each of some values,
/// each has a cursor of its own.
pub async fn pull(run: &mut Run<'_>, c: &Collection, whole: bool) -> Result<Ended> {
    let state = run.deps.store.collection_state(run.account.connection.id, &c.key)?;
    let parts = match run.account.session.parts(c) {
        Ok(parts) => parts,
        Err(error) => return run.fail(c, Task::Pull, error).await,
    };
    run.fresh = Fresh::begin(&run.deps.store, run.account, c)?;
    let mut sum = Tally::default();
    if c.lists_touched() {
        await_touched(run, c).await?;
    }
    if !whole && let Some(ended) = Box::pin(bulk::first(run, c, &state, &mut sum)).await? {
        return Ok(ended);
    }
    // An operation that has just been read leaves a time from which deletions are asked for.
    let state = run.deps.store.collection_state(run.account.connection.id, &c.key)?;
    let lists_deleted = c.lists_deleted() && state.last_pull_at.is_some();
    for (at, part) in parts.iter().enumerate() {
        let ends = at + 1 == parts.len() && !lists_deleted && !c.lists_touched();
        let bit = Bit { part: part.as_ref(), list: List::Changes, whole, ends };
        if let Some(ended) = Box::pin(changed(run, c, bit, &mut sum)).await? {
            return Ok(ended);
        }
    }
    if c.lists_touched() {
        let bit = Bit { part: None, list: List::Touched, whole: false, ends: !lists_deleted };
        if let Some(ended) = Box::pin(changed(run, c, bit, &mut sum)).await? {
            return Ok(ended);
        }
    }
    if !lists_deleted {
        return Ok(Ended::Done);
    }
    let mut gone = Gone::since(run, c, &state);
    if gone.gap {
        let none = commit_page(run, c, Vec::new(), &mut sum, |run, state, commit, sum| {
            gone.finish(run, c, state, commit, sum);
        });
        return Ok(if none.await? == Standing::Gone { Ended::Stop } else { Ended::Done });
    }
    for (at, part) in parts.iter().enumerate() {
        let bit = Bit { part: part.as_ref(), list: List::Changes, whole, ends: at + 1 == parts.len() };
        if let Some(ended) = Box::pin(deleted(run, c, &mut gone, bit, &mut sum)).await? {
            return Ok(ended);
        }
    }
    Ok(Ended::Done)
}

/// From its first pull on a collection's touched records are listed: what that reads has its parts as they are.
async fn await_touched(run: &Run<'_>, c: &Collection) -> Result<()> {
    let (connection, workspace) = (run.account.connection.id, run.account.connection.workspace);
    if run.deps.store.part_cursor(connection, &c.key, TOUCHED)?.is_some() {
        return Ok(());
    }
    let (key, time) = (c.key.clone(), run.deps.clock.now().before(TOUCHED_OVERLAP));
    let cursor = Cursor { time, ..Cursor::default() };
    let begin = move |tx: &mut Tx<'_>| match tx.connection(workspace, connection)? {
        Some(_) => tx.put_part_cursor(connection, &key, TOUCHED, &cursor),
        // It was deleted meanwhile, and so were its rows.
        None => Ok(()),
    };
    run.deps.store.append(Wait::Applied, begin).await
}

/// What is asked of the app's lists of deleted records.
struct Gone {
    query: PullQuery,
    since: Option<Millis>,
    /// The lists begin too late: deletions may have been missed, which a scan finds.
    gap: bool,
}

impl Gone {
    fn since(run: &Run<'_>, c: &Collection, before: &CollectionState) -> Self {
        let since = before.last_pull_at.map(|at| at.before(DELETED_OVERLAP + c.cursor.lookback));
        let now = run.deps.clock.now();
        let (reach, takes_until) = c.deleted_bounds();
        let query = PullQuery { since: since.map(|at| (at, None)), until: takes_until.then_some(now) };
        let gap = reach.zip(since).is_some_and(|(reach, since)| now.since(since) > reach);
        Self { query, since, gap }
    }
    /// Finishes the pull.
    fn finish(&self, run: &mut Run<'_>, c: &Collection, state: &mut CollectionState, commit: &mut Commit, sum: &Tally) {
        run.finish(c, Task::Pull, sum, state, commit);
        if self.gap {
            state.next_scan_at = Some(run.deps.clock.now());
        }
    }
}

/// One walk of a pull.
struct Bit<'a> {
    part: Option<&'a Part>,
    list: List,
    whole: bool,
    /// With it the pull is finished.
    ends: bool,
}

impl Bit<'_> {
    /// Where this walk begins.
    fn cursor(&self, run: &Run<'_>, c: &Collection) -> Result<Option<Cursor>> {
        let (rows, connection) = (&run.deps.store, run.account.connection.id);
        Ok(match (self.list, self.part) {
            _ if self.whole => None,
            (List::Touched, _) => rows.part_cursor(connection, &c.key, TOUCHED)?,
            (_, None) => rows.collection_state(connection, &c.key)?.cursor,
            (_, Some(part)) => rows.part_cursor(connection, &c.key, &part.value)?,
        })
    }
    /// Puts the cursor that a page allows into its commit. What the collection shows is the latest of any value.
    fn keep(&self, c: &Collection, cursor: Option<Cursor>, state: &mut CollectionState, commit: &mut Commit) {
        let Some(cursor) = cursor else { return };
        match (self.list, self.part) {
            (List::Touched, _) => commit.part = Some((c.key.clone(), TOUCHED.to_owned(), cursor)),
            (_, None) => state.cursor = Some(cursor),
            (_, Some(part)) => {
                let shown = state.cursor.as_ref().map(|cursor| cursor.time).unwrap_or_default();
                state.cursor = Some(Cursor { time: shown.max(cursor.time), ..Cursor::default() });
                commit.part = Some((c.key.clone(), part.value.clone(), cursor));
            }
        }
    }
}

/// Reads what changed in one list. None: it was read to its end.
async fn changed(run: &mut Run<'_>, c: &Collection, bit: Bit<'_>, sum: &mut Tally) -> Result<Option<Ended>> {
    let started = run.deps.clock.now();
    let cursor = bit.cursor(run, c)?;
    let mut walk = Walk::start(plan::rules(c, bit.list), cursor.as_ref(), started);
    let (deps, account) = (run.deps, run.account);
    let maps = run.maps(c)? || bit.whole;
    let asking = Asking { deps, account, c, part: bit.part, maps, list: bit.list };
    let (mut query, mut mark, mut expired) = (walk.query(), None::<PageMark>, false);
    let mut ahead = None;
    loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(Some(ended));
        }
        let answered = Box::pin(asking.this(ahead.take(), &query, mark.as_ref())).await?;
        let page = match answered.page {
            Ok(page) => page,
            Err(CallError::PageExpired(_)) if !expired => {
                (query, mark, expired) = (walk.query(), None, true);
                continue;
            }
            Err(error) => return run.fail(c, Task::Pull, error).await.map(Some),
        };
        run.pull.pages = run.pull.pages.saturating_add(1);
        let step = match walk.page(&seen(&page), page.next.is_some(), page.total) {
            Ok(step) => step,
            Err(same) => return run.fail(c, Task::Pull, bad(same)).await.map(Some),
        };
        let source = Source::Poll(run.pull.id);
        let records = match page.partial {
            false => sightings(page.records, answered.ready, answered.sent_at, &source),
            true => match partial::whole(run, c, page.records, &source).await? {
                Ok(records) => records,
                Err(error) => return run.fail(c, Task::Pull, error).await.map(Some),
            },
        };
        let done = matches!(step.next, Next::Done(End::Complete | End::Truncated));
        let is_late = run.is_late(walk.resumes());
        match step.next {
            Next::Page => mark = page.next,
            Next::Query => (query, mark) = (walk.query(), None),
            Next::Done(_) => {}
        }
        let goes_on = !matches!(step.next, Next::Done(_)) && run.looks_ahead();
        let commit = commit_page(run, c, records, sum, |run, state, commit, sum| {
            bit.keep(c, step.cursor, state, commit);
            if done && bit.ends {
                run.finish(c, Task::Pull, sum, state, commit);
            }
        });
        let next = asking.next(goes_on && !is_late, &query, mark.as_ref());
        ahead = match Box::pin(beside(commit, next)).await? {
            None => return Ok(Some(Ended::Stop)),
            Some(next) => next?,
        };
        match step.next {
            Next::Done(End::PagesMax) => return run.cut(c, Task::Pull).await.map(Some),
            Next::Done(_) => return Ok(None),
            Next::Page | Next::Query if is_late => return run.cut(c, Task::Pull).await.map(Some),
            Next::Page | Next::Query => {}
        }
    }
}

/// Reads one of the app's lists of deleted records. None: it was read to its end.
async fn deleted(
    run: &mut Run<'_>,
    c: &Collection,
    gone: &mut Gone,
    bit: Bit<'_>,
    sum: &mut Tally,
) -> Result<Option<Ended>> {
    let mut walk = Scan::new(plan::PAGES_MAX, DELETED_IDS_MAX);
    let mut mark: Option<PageMark> = None;
    loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(Some(ended));
        }
        let sent_at = run.deps.clock.now();
        let session = &run.account.session;
        let page = || session.deleted_page_of(c, bit.part, &gone.query, mark.as_ref());
        let answer = fields::call(run.deps, run.account, c, page).await?;
        let page = match answer {
            Ok(page) => page,
            Err(error) => return run.fail(c, Task::Pull, error).await.map(Some),
        };
        run.pull.pages = run.pull.pages.saturating_add(1);
        gone.gap |= page.earliest.zip(gone.since).is_some_and(|(earliest, since)| since < earliest);
        let step = match walk.page(&ids(run, c, &page), page.next.is_some(), page.total) {
            Ok(step) => step,
            Err(same) => return run.fail(c, Task::Pull, bad(same)).await.map(Some),
        };
        let source = Source::Poll(run.pull.id);
        let sightings = page.records.into_iter().map(|record| Sighting {
            what: Sight::Gone { remote_updated_at: record.updated_at, observed_at: sent_at },
            remote_id: record.remote_id,
            source: source.clone(),
            inbox: None,
            ready: None,
        });
        let ended = matches!(step, ScanStep::Complete | ScanStep::Incomplete);
        let standing = commit_page(run, c, sightings.collect(), sum, |run, state, commit, sum| {
            if ended && bit.ends {
                gone.finish(run, c, state, commit, sum);
            }
        });
        if standing.await? == Standing::Gone {
            return Ok(Some(Ended::Stop));
        }
        match step {
            ScanStep::Page => mark = page.next,
            ScanStep::Again => mark = None,
            ScanStep::Complete | ScanStep::Incomplete => return Ok(None),
        }
    }
}

/// The 16-byte ids of what a page's list showed.
pub fn ids(run: &Run<'_>, c: &Collection, page: &Page) -> Vec<[u8; 16]> {
    let id = |id: &str| record_id(run.account.connection.id, &c.topic, id).into_bytes();
    match &page.places {
        None => page.records.iter().map(|record| id(&record.remote_id)).collect(),
        Some(places) => places.iter().map(|place| id(&place.id)).collect(),
    }
}

/// Commits a page: its records, what `finish` makes of the state, and the pull's row if there is something to tell.
pub async fn commit_page(
    run: &mut Run<'_>,
    c: &Collection,
    records: Vec<Sighting>,
    sum: &mut Tally,
    finish: impl FnOnce(&mut Run<'_>, &mut CollectionState, &mut Commit, &Tally),
) -> Result<Standing> {
    let (deps, account) = (run.deps, run.account);
    let absorb = super::commit::Absorb { deps, account, collection: c, fresh: run.fresh.clone() };
    let (standing, _) = absorb
        .all(records, Commit::default(), |state, commit, tally| {
            run.note(tally);
            sum.add(tally);
            commit.pull = run.progress().pull;
            finish(run, state, commit, sum);
        })
        .await?;
    Ok(standing)
}

/// What the walk must know of what a page's list showed.
fn seen(page: &Page) -> Vec<Seen<'_>> {
    match &page.places {
        None => page.records.iter().map(|r| Seen { id: &r.remote_id, updated_at: r.updated_at }).collect(),
        Some(places) => places.iter().map(|p| Seen { id: &p.id, updated_at: p.updated_at }).collect(),
    }
}

/// Records of a page as sightings, with what was made of them ahead.
pub fn sightings(records: Vec<AppRecord>, ready: Vec<Ready>, observed_at: Millis, source: &Source) -> Vec<Sighting> {
    let mut ready = ready.into_iter();
    let sighting = |record: AppRecord| Sighting {
        remote_id: record.remote_id.clone(),
        what: Sight::Record { record, observed_at },
        source: source.clone(),
        inbox: None,
        ready: ready.next(),
    };
    records.into_iter().map(sighting).collect()
}

/// The same page for ever, as the app's failure.
pub fn bad(same: SamePage) -> CallError {
    CallError::BadAnswer(same.to_string())
}
