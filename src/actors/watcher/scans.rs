//! Full scans: walk everything, diff what is shown, and find what is gone.
//!
//! Always true: only a complete scan deletes, and only rows that were last observed before it began; a scan that misses
//! too much is held (`domain::snapshot::guard`). A scan that fails or is broken off deletes nothing.

use std::collections::BTreeSet;

use super::changes::{Seen as Sight, Sighting, Tally};
use super::commit::{Commit, RECORDS_MAX, Standing};
use super::pulls::{ask, bad, commit_page, ids, sightings};
use super::run::{Ended, Run};
use super::{fields, plan};
use crate::connectors::{AppRecord, CallError, Collection, Detection, PageMark, Part};
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
    let mut walked = Walked { shown: Vec::new(), sum: Tally::default() };
    let mut complete = true;
    for part in &parts {
        match walk(run, c, part.as_ref(), &mut walked).await? {
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
    let (mut query, mut mark, mut expired) = (ask(windows.query()), None::<PageMark>, false);
    // Of parts inside others the walk knows only the others.
    let mut inside: Option<Vec<[u8; 16]>> = None;
    let complete = loop {
        if let Some(ended) = run.between_pages().await? {
            return Ok(Outcome::Ended(ended));
        }
        let sent_at = run.deps.clock.now();
        let session = &run.account.session;
        let ask_page = || session.scan_page_of(c, part, &query, mark.as_ref());
        let answer = fields::call(run.deps, run.account, c, ask_page).await?;
        let page = match answer {
            Ok(page) => page,
            Err(CallError::PageExpired(_)) if !expired => {
                windows = begin(run, c, walked);
                (query, mark, expired) = (ask(windows.query()), None, true);
                continue;
            }
            Err(error) => return run.fail(c, Task::Scan, error).await.map(Outcome::Ended),
        };
        run.pull.pages = run.pull.pages.saturating_add(1);
        run.ids_only = page.ids_only;
        let step = match windows.page(&ids(run, c, &page), page.next.is_some(), page.total) {
            Ok(step) => step,
            Err(same) => return run.fail(c, Task::Scan, bad(same)).await.map(Outcome::Ended),
        };
        let id = |record: &AppRecord| record_id(run.account.connection.id, &c.topic, &record.remote_id).into_bytes();
        let shown: Vec<[u8; 16]> = page.records.iter().map(id).collect();
        if page.places.is_some() {
            inside.get_or_insert_default().extend(&shown);
        }
        let records = match page.ids_only {
            false => sightings(page.records, sent_at, &Source::Scan(run.pull.id)),
            true => match unknown(run, c, page.records, &shown).await? {
                Ok(records) => records,
                Err(error) => return run.fail(c, Task::Scan, error).await.map(Outcome::Ended),
            },
        };
        let standing = commit_page(run, c, records, &mut walked.sum, |_, _, _, _| {});
        if standing.await? == Standing::Gone {
            return Ok(Outcome::Ended(Ended::Stop));
        }
        match step {
            WindowStep::Page => mark = page.next,
            WindowStep::Query => (query, mark) = (ask(windows.query()), None),
            WindowStep::Complete => break inside.as_ref().map_or(0, Vec::len) + walked.shown.len() <= IDS_MAX,
            WindowStep::Incomplete => break false,
        }
        if run.is_late(false) {
            return run.cut(c, Task::Scan).await.map(Outcome::Ended);
        }
    };
    if !complete {
        return Ok(Outcome::Incomplete);
    }
    walked.shown.extend(inside.unwrap_or_else(|| windows.into_ids()));
    Ok(Outcome::Complete)
}

fn begin(run: &Run<'_>, c: &Collection, walked: &Walked) -> Windows {
    let cut = c.cursor.ceiling.filter(|_| c.splits_scans()).map(|ceiling| Cut {
        ceiling,
        tick: u64::try_from(c.cursor.precision.as_millis()).unwrap_or(u64::MAX).max(1),
        now: run.deps.clock.now(),
    });
    Windows::new(cut, plan::PAGES_MAX, IDS_MAX.saturating_sub(walked.shown.len()))
}

/// Ids without records: those that we do not know are fetched, where a scan is how new records are found.
async fn unknown(
    run: &Run<'_>,
    c: &Collection,
    records: Vec<AppRecord>,
    ids: &[[u8; 16]],
) -> Result<std::result::Result<Vec<Sighting>, CallError>> {
    if c.detects.created != Detection::FullScan || !c.fetches() {
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
            Ok(Some(record)) => found.extend(sightings(vec![record], sent_at, &Source::Scan(run.pull.id))),
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
    let absorb = super::commit::Absorb { deps: run.deps, account: run.account, collection: c };
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
    };
    gone.iter().map(sighting).collect()
}
