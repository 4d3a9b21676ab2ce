//! Incremental pulls, and the app's own list of deleted records.
//!
//! Always true: a page's records and the cursor that it allows are one commit. Not here: which page comes next
//! (`domain::pull`).

use std::time::Duration;

use super::changes::{Seen as Sight, Sighting, Tally};
use super::commit::{Commit, Standing};
use super::run::{Ended, Run};
use super::{fields, plan};
use crate::connectors::{AppRecord, CallError, Collection, Page, PageMark, PullQuery};
use crate::domain::connection::CollectionState;
use crate::domain::event::Source;
use crate::domain::pull::{End, Next, Query, Scan, ScanStep, Seen, Walk};
use crate::domain::pull::{SamePage, Task};
use crate::domain::record::record_id;
use crate::domain::time::Millis;
use crate::error::Result;

/// How far back the app's list of deleted records is read beyond the last pull, since its clock is not ours.
const DELETED_OVERLAP: Duration = Duration::from_secs(600);
/// Ids of one list of deleted records.
const DELETED_IDS_MAX: usize = 1_000_000;

/// Pulls what changed since the cursor; with `whole`, everything.
pub async fn pull(run: &mut Run<'_>, c: &Collection, whole: bool) -> Result<Ended> {
    let started = run.deps.clock.now();
    let state = run.deps.store.collection_state(run.account.connection.id, &c.key)?;
    let cursor = state.cursor.as_ref().filter(|_| !whole);
    let mut walk = Walk::start(plan::rules(c), cursor, started);
    let (mut query, mut mark, mut expired) = (walk.query(), None::<PageMark>, false);
    let mut sum = Tally::default();
    loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(ended);
        }
        let sent_at = run.deps.clock.now();
        let page = || changes(run, c, &query, mark.as_ref());
        let answer = fields::call(run.deps, run.account, c, page).await?;
        let page = match answer {
            Ok(page) => page,
            Err(CallError::PageExpired(_)) if !expired => {
                (query, mark, expired) = (walk.query(), None, true);
                continue;
            }
            Err(error) => return run.fail(c, Task::Pull, error).await,
        };
        run.pull.pages = run.pull.pages.saturating_add(1);
        let seen: Vec<Seen<'_>> = match &page.walked {
            Some(items) => items.iter().map(|item| Seen { id: &item.id, updated_at: item.updated_at }).collect(),
            None => page.records.iter().map(seen).collect(),
        };
        let step = match walk.page(&seen, page.next.is_some(), page.total) {
            Ok(step) => step,
            Err(same) => return run.fail(c, Task::Pull, bad(same)).await,
        };
        let records = sightings(page.records, sent_at, &Source::Poll(run.pull.id));
        let done = matches!(step.next, Next::Done(End::Complete | End::Truncated));
        let ends_here = done && (!c.lists_deleted() || state.last_pull_at.is_none());
        let standing = commit_page(run, c, records, &mut sum, |run, state, commit, sum| {
            state.cursor = step.cursor.or(state.cursor.take());
            if ends_here {
                run.finish(c, Task::Pull, sum, state, commit);
            }
        });
        if standing.await? == Standing::Gone {
            return Ok(Ended::Stop);
        }
        match step.next {
            Next::Page => mark = page.next,
            Next::Query => (query, mark) = (walk.query(), None),
            Next::Done(End::PagesMax) => return run.cut(c, Task::Pull).await,
            Next::Done(_) if ends_here => return Ok(Ended::Done),
            Next::Done(_) => return deleted(run, c, &state, &mut sum).await,
        }
        if run.is_late(walk.resumes()) {
            return run.cut(c, Task::Pull).await;
        }
    }
}

/// Reads the app's list of deleted records, and finishes the pull.
async fn deleted(run: &mut Run<'_>, c: &Collection, before: &CollectionState, sum: &mut Tally) -> Result<Ended> {
    let since = before.last_pull_at.map(|at| at.before(DELETED_OVERLAP + c.cursor.lookback));
    let now = run.deps.clock.now();
    let (reach, takes_until) = c.deleted_bounds();
    let query = PullQuery { since: since.map(|at| (at, None)), until: takes_until.then_some(now) };
    // What went before the list begins is found by a scan, at once.
    let mut gap = reach.zip(since).is_some_and(|(reach, since)| now.since(since) > reach);
    if gap {
        let none =
            commit_page(run, c, Vec::new(), sum, |run, state, commit, sum| finish(run, c, state, commit, sum, gap));
        return Ok(if none.await? == Standing::Gone { Ended::Stop } else { Ended::Done });
    }
    let mut walk = Scan::new(plan::PAGES_MAX, DELETED_IDS_MAX);
    let mut mark: Option<PageMark> = None;
    loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(ended);
        }
        let sent_at = run.deps.clock.now();
        let answer =
            fields::call(run.deps, run.account, c, || run.account.session.deleted_page(c, &query, mark.as_ref()))
                .await?;
        let page = match answer {
            Ok(page) => page,
            Err(error) => return run.fail(c, Task::Pull, error).await,
        };
        run.pull.pages = run.pull.pages.saturating_add(1);
        gap |= page.earliest.zip(since).is_some_and(|(earliest, since)| since < earliest);
        let id = |record: &AppRecord| record_id(run.account.connection.id, &c.topic, &record.remote_id).into_bytes();
        let ids: Vec<[u8; 16]> = page.records.iter().map(id).collect();
        let step = match walk.page(&ids, page.next.is_some(), page.total) {
            Ok(step) => step,
            Err(same) => return run.fail(c, Task::Pull, bad(same)).await,
        };
        let source = Source::Poll(run.pull.id);
        let gone = page.records.into_iter().map(|record| Sighting {
            what: Sight::Gone { remote_updated_at: record.updated_at, observed_at: sent_at },
            remote_id: record.remote_id,
            source: source.clone(),
            inbox: None,
        });
        let ends_here = matches!(step, ScanStep::Complete | ScanStep::Incomplete);
        let standing = commit_page(run, c, gone.collect(), sum, |run, state, commit, sum| {
            if ends_here {
                finish(run, c, state, commit, sum, gap);
            }
        });
        if standing.await? == Standing::Gone {
            return Ok(Ended::Stop);
        }
        match step {
            ScanStep::Page => mark = page.next,
            ScanStep::Again => mark = None,
            ScanStep::Complete | ScanStep::Incomplete => return Ok(Ended::Done),
        }
    }
}

/// Finishes a pull. `gap`: deletions may have been missed, which a scan finds.
fn finish(run: &mut Run<'_>, c: &Collection, state: &mut CollectionState, commit: &mut Commit, sum: &Tally, gap: bool) {
    run.finish(c, Task::Pull, sum, state, commit);
    if gap {
        state.next_scan_at = Some(run.deps.clock.now());
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
    let absorb = super::commit::Absorb { deps, account, collection: c };
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

/// What the walk must know of a record.
fn seen(record: &AppRecord) -> Seen<'_> {
    Seen { id: &record.remote_id, updated_at: record.updated_at }
}

/// Records of a page as sightings.
pub fn sightings(records: Vec<AppRecord>, observed_at: Millis, source: &Source) -> Vec<Sighting> {
    let sighting = |record: AppRecord| Sighting {
        remote_id: record.remote_id.clone(),
        what: Sight::Record { record, observed_at },
        source: source.clone(),
        inbox: None,
    };
    records.into_iter().map(sighting).collect()
}

/// A page of the list of changes, or of one tick's records by id.
async fn changes(
    run: &Run<'_>,
    c: &Collection,
    query: &Query,
    mark: Option<&PageMark>,
) -> std::result::Result<Page, CallError> {
    let asked = PullQuery { since: query.since.clone(), until: query.until };
    match query.ties {
        true => run.account.session.ties_page(c, &asked).await,
        false => run.account.session.pull_page(c, &asked, mark).await,
    }
}

/// The same page for ever, as the app's failure.
pub fn bad(same: SamePage) -> CallError {
    CallError::BadAnswer(same.to_string())
}
