//! Full scans: walk everything, diff what is shown, and find what is gone.
//!
//! Always true: only a complete scan deletes, and only rows that were last observed before it began; a scan that misses
//! too much is held (`domain::snapshot::guard`). A scan that fails or is broken off deletes nothing.

use std::collections::BTreeSet;

use super::asking::{Asking, List};
use super::changes::{Seen as Sight, Sighting, Tally};
use super::commit::{Commit, RECORDS_MAX, Standing};
use super::fresh::Fresh;
use super::pulls::{bad, commit_page, ids, sightings};
use super::ready::{Ready, beside};
use super::run::{Ended, Run};
use super::{fields, plan};
use crate::connectors::{AppRecord, CallError, Collection, Detection, Page, PageMark, Part};
use crate::domain::event::Source;
use crate::domain::pull::{Cut, Task, WindowStep, Windows};
use crate::domain::record::record_id;
use crate::domain::snapshot::guard;
use crate::domain::time::Millis;
use crate::error::Result;

/// Ids that a scan remembers: 80 MB.
const IDS_MAX: usize = 5_000_000;

/// A record's id and the app's own.
type Missing = ([u8; 16], String);

/// Walks the collection whole.
pub async fn scan(run: &mut Run<'_>, c: &Collection, approve: bool) -> Result<Ended> {
    let started = run.deps.clock.now();
    let parts = match run.account.session.parts(c) {
        Ok(parts) => parts,
        Err(error) => return run.fail(c, Task::Scan, error).await,
    };
    run.fresh = Fresh::begin(&run.deps.store, run.account, c)?;
    let mut walked = Walked { shown: Vec::new(), sum: Tally::default() };
    let mut complete = true;
    for part in &parts {
        match Box::pin(walk(run, c, part.as_ref(), &mut walked)).await? {
            Outcome::Complete => {}
            Outcome::Incomplete => complete = false,
            Outcome::Ended(ended) => return Ok(ended),
        }
    }
    if !complete {
        tracing::warn!(collection = c.key, "a full scan may have missed records: nothing is deleted after it");
    }
    let Walked { mut shown, sum } = walked;
    shown.sort_unstable();
    shown.dedup();
    let finds_deleted = c.detects.deleted != Detection::NotSupported && !c.scans_nested();
    settle(run, c, (complete && finds_deleted).then_some(shown), started, approve, sum).await
}

/// What the walks of a scan have come to so far.
struct Walked {
    /// The ids of all records that were shown.
    shown: Vec<[u8; 16]>,
    sum: Tally,
}

/// How one walk of a scan ended.
enum Outcome {
    Complete,
    /// It may have missed records.
    Incomplete,
    /// The scan is over with it.
    Ended(Ended),
}

/// Walks one list whole.
async fn walk(run: &mut Run<'_>, c: &Collection, part: Option<&Part>, walked: &mut Walked) -> Result<Outcome> {
    let mut windows = begin(run, c, walked);
    let (mut query, mut mark, mut expired) = (windows.query(), None::<PageMark>, false);
    let (deps, account) = (run.deps, run.account);
    let asking = Asking { deps, account, c, part, maps: run.maps(c)?, list: List::Everything };
    let mut ahead = None;
    // Of parts inside others the walk knows only the others.
    let mut inside: Option<Vec<[u8; 16]>> = None;
    let complete = loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(Outcome::Ended(ended));
        }
        let answered = Box::pin(asking.this(ahead.take(), &query, mark.as_ref())).await?;
        let page = match answered.page {
            Ok(page) => page,
            Err(CallError::PageExpired(_)) if !expired => {
                windows = begin(run, c, walked);
                (query, mark, expired) = (windows.query(), None, true);
                continue;
            }
            Err(error) => return run.fail(c, Task::Scan, error).await.map(Outcome::Ended),
        };
        run.pull.pages = run.pull.pages.saturating_add(1);
        run.ids_only = page.ids_only;
        let shown = shown(run, c, &page, &answered.ready);
        let places = page.places.is_some().then(|| ids(run, c, &page));
        let listed = places.as_deref().unwrap_or(&shown);
        let step = match windows.page(listed, page.next.is_some(), page.total).map_err(bad) {
            Ok(step) => step,
            Err(error) => return run.fail(c, Task::Scan, error).await.map(Outcome::Ended),
        };
        if places.is_some() {
            inside.get_or_insert_default().extend(&shown);
        }
        let records = match page.ids_only {
            false => sightings(page.records, answered.ready, answered.sent_at, &Source::Scan(run.pull.id)),
            true => match unknown(run, c, page.records, &shown).await? {
                Ok(records) => records,
                Err(error) => return run.fail(c, Task::Scan, error).await.map(Outcome::Ended),
            },
        };
        let is_late = run.is_late(false);
        match step {
            WindowStep::Page => mark = page.next,
            WindowStep::Query => (query, mark) = (windows.query(), None),
            WindowStep::Complete | WindowStep::Incomplete => {}
        }
        let goes_on = matches!(step, WindowStep::Page | WindowStep::Query) && run.looks_ahead();
        let commit = commit_page(run, c, records, &mut walked.sum, |_, _, _, _| {});
        let next = asking.next(goes_on && !is_late, &query, mark.as_ref());
        ahead = match Box::pin(beside(commit, next)).await? {
            None => return Ok(Outcome::Ended(Ended::Stop)),
            Some(next) => next?,
        };
        match step {
            WindowStep::Complete => break inside.as_ref().map_or(0, Vec::len) + walked.shown.len() <= IDS_MAX,
            WindowStep::Incomplete => break false,
            WindowStep::Page | WindowStep::Query if is_late => {
                return run.cut(c, Task::Scan).await.map(Outcome::Ended);
            }
            WindowStep::Page | WindowStep::Query => {}
        }
    };
    if !complete {
        return Ok(Outcome::Incomplete);
    }
    walked.shown.extend(inside.unwrap_or_else(|| windows.into_ids()));
    Ok(Outcome::Complete)
}

/// The ids of a page's records.
fn shown(run: &Run<'_>, c: &Collection, page: &Page, ready: &[Ready]) -> Vec<[u8; 16]> {
    if ready.len() == page.records.len() {
        return ready.iter().map(|ready| ready.id).collect();
    }
    let id = |record: &AppRecord| record_id(run.account.connection.id, &c.topic, &record.remote_id).into_bytes();
    page.records.iter().map(id).collect()
}

fn begin(run: &Run<'_>, c: &Collection, walked: &Walked) -> Windows {
    let cut = c.cursor.ceiling.filter(|_| c.splits_scans()).map(|ceiling| Cut {
        ceiling,
        tick: u64::try_from(c.cursor.precision.as_millis()).unwrap_or(u64::MAX).max(1),
        now: run.deps.clock.now(),
    });
    Windows::new(cut, plan::PAGES_MAX, IDS_MAX.saturating_sub(walked.shown.len()))
}

/// Ids without records: those that we do not know are fetched, where a scan is how new records are found, or where the list
/// of changes may end at a ceiling before it has shown all.
async fn unknown(
    run: &Run<'_>,
    c: &Collection,
    records: Vec<AppRecord>,
    ids: &[[u8; 16]],
) -> Result<std::result::Result<Vec<Sighting>, CallError>> {
    let is_cut = c.cursor.ceiling.is_some() && !c.cursor.breaks_ties && !c.lists_ties();
    if !(is_cut || c.detects.created == Detection::FullScan) || !c.fetches() {
        return Ok(Ok(Vec::new()));
    }
    let known = run.deps.store.snapshot_rows(run.account.connection.id, &c.key, ids)?;
    let mut found = Vec::new();
    for (record, row) in records.into_iter().zip(known) {
        if row.is_some_and(|row| row.is_live()) {
            continue;
        }
        let sent_at = run.deps.clock.now();
        let ask = || run.account.session.fetch(c, &record.remote_id);
        match fields::call(run.deps, run.account, c, ask).await? {
            Ok(Some(record)) => found.extend(sightings(vec![record], Vec::new(), sent_at, &Source::Scan(run.pull.id))),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(found))
}

/// Deletes what a complete scan did not show, as far as the guard believes it, and finishes the scan.
async fn settle(
    run: &mut Run<'_>,
    c: &Collection,
    shown: Option<Vec<[u8; 16]>>,
    started: Millis,
    approve: bool,
    mut sum: Tally,
) -> Result<Ended> {
    let connection = run.account.connection.id;
    let mut told = None;
    let mut held = None;
    let mut live = None;
    if let Some(shown) = shown {
        let key = c.key.clone();
        let (total, missing) = run
            .deps
            .store
            .blocking(move |rows| {
                let (mut total, mut missing) = (0_usize, BTreeSet::<Missing>::new());
                rows.walk_snapshot(connection, &key, None, |id, row| {
                    total += usize::from(row.is_live());
                    let before = row.is_live() && row.version.observed_at < started;
                    if before && shown.binary_search(&id).is_err() {
                        missing.insert((id, row.remote_id));
                    }
                    Ok(true)
                })?;
                Ok((total, missing))
            })
            .await?;
        let state = run.deps.store.collection_state(connection, &c.key)?;
        let ids: BTreeSet<[u8; 16]> = missing.iter().map(|(id, _)| *id).collect();
        let before: Option<BTreeSet<[u8; 16]>> = (!state.held.is_empty()).then(|| state.held.iter().copied().collect());
        let verdict = guard(total, ids, before.as_ref(), approve);
        if let Some(hold) = &verdict.hold {
            let waiting = hold.missing.len() as u64;
            told = Some(run.hold(c, total as u64, waiting, hold.needs_approval));
        }
        held = Some(verdict.hold.map(|hold| hold.missing.into_iter().collect()).unwrap_or_default());
        live = Some((total as u64).saturating_sub(verdict.delete.len() as u64));
        let gone: Vec<Missing> = missing.into_iter().filter(|(id, _)| verdict.delete.contains(id)).collect();
        for step in gone.chunks(RECORDS_MAX) {
            let standing = commit_page(run, c, deletions(run.pull.id, step, started), &mut sum, |_, _, _, _| {});
            if standing.await? == Standing::Gone {
                return Ok(Ended::Stop);
            }
        }
    }
    let mut extra = Commit::default();
    if let Some(what) = &told {
        extra.told.push((run.event(what), None));
    }
    let absorb = super::commit::Absorb { deps: run.deps, account: run.account, collection: c, fresh: None };
    let finish = |state: &mut crate::domain::connection::CollectionState, commit: &mut Commit, _: &Tally| {
        if let Some(held) = held {
            state.held = held;
        }
        state.records = live.unwrap_or(state.records);
        run.finish(c, Task::Scan, &sum, state, commit);
    };
    let (standing, _) = absorb.all(Vec::new(), extra, finish).await?;
    Ok(if standing == Standing::Gone { Ended::Stop } else { Ended::Done })
}

fn deletions(pull: crate::domain::id::PullId, gone: &[Missing], started: Millis) -> Vec<Sighting> {
    let sighting = |(_, remote_id): &Missing| Sighting {
        remote_id: remote_id.clone(),
        what: Sight::Missing { scan_started_at: started },
        source: Source::Scan(pull),
        inbox: None,
        ready: None,
    };
    gone.iter().map(sighting).collect()
}
