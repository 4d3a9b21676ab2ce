//! The third stage: events go, and what their deliveries hold.
//!
//! Always true: what is owed of an event ends before the event goes; an attempt that is under way ends first, since its bytes
//! are on their way already; nothing of an erased event is sent after the commit that takes it out. Not here: the
//! `deleted` that tells of it (`records`), which has a sequence of its own and stays.

use std::time::Duration;

use super::{Next, Tools, advance, at, connector, topics};
use crate::actors::Deps;
use crate::domain::erasure::{Erasure, Stage, holds_anything};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, LaneNo, Seq};
use crate::domain::record::record_id;
use crate::error::Result;
use crate::store::{Due, Rows, Tx};

/// Events looked at in one step.
const LOOKED_MAX: usize = 250;
/// Pairs of an event and a lane looked at in one step: an event may have gone to each lane of its workspace.
const PAIRS_MAX: usize = 50_000;
/// Events erased in one step.
const ERASED_MAX: usize = 100;
/// Deliveries ended in one commit.
const OWED_MAX: usize = 2_000;
/// Subscriptions of a workspace.
const LANES_MAX: usize = 100_000;
/// Attempts that are under way, and the router, are waited for so long at a time.
const WAIT: Duration = Duration::from_millis(100);

/// What a look found, and where the job then stands.
struct Found {
    events: Vec<(Seq, Event)>,
    next: Stage,
}

/// What the lanes hold of the events.
struct Held {
    owed: Vec<(LaneNo, Due, Seq)>,
    history: Vec<(LaneNo, Seq)>,
}

pub(super) async fn step(tools: &Tools, job: Erasure) -> Result<Next> {
    let Stage::Events { at: place, after, until } = job.stage else { return Ok(Next::Ended) };
    let (deps, asked) = (tools.deps.clone(), job.clone());
    let look = move |rows: &Rows| {
        if rows.routed()? < Seq(until.0.saturating_sub(1)) && has_events_after_routed(rows, until)? {
            return Ok(None);
        }
        let found = match asked.scope.by_record {
            true => of_records(rows, &deps, &asked, place, until)?,
            false => of_log(rows, &asked, after, until)?,
        };
        Ok(Some(found))
    };
    let Some(found) = tools.deps.store.blocking(look).await? else {
        tools.deps.rings.router();
        return Ok(Next::At(tools.deps.clock.now().after(WAIT)));
    };
    let again = erase(tools, &job, found.events, found.next).await?;
    Ok(again.unwrap_or(Next::At(tools.deps.clock.now())))
}

/// Whether the router has still to come to an event before `until`.
fn has_events_after_routed(rows: &Rows, until: Seq) -> Result<bool> {
    Ok(!rows.events_after(rows.routed()?, until, 1)?.0.is_empty())
}

/// How many events may be erased in a step.
fn chunk(rows: &Rows, job: &Erasure) -> Result<usize> {
    Ok((PAIRS_MAX / lanes(rows, job)?.len().max(1)).clamp(1, ERASED_MAX))
}

fn lanes(rows: &Rows, job: &Erasure) -> Result<Vec<LaneNo>> {
    let all = rows.subscriptions(job.workspace, None, LANES_MAX)?.items;
    Ok(all.into_iter().map(|subscription| subscription.lane).collect())
}

/// Of the records that the job names, of one connection.
fn of_records(rows: &Rows, deps: &Deps, job: &Erasure, place: u32, until: Seq) -> Result<Found> {
    let Some(id) = job.scope.connections.get(at(place)?).copied() else {
        return Ok(Found { events: Vec::new(), next: Stage::Disk });
    };
    let known = rows.connection(job.workspace, id)?;
    let connector = known.map_or(Ok(None), |connection| connector(rows, deps, &connection))?;
    let all = topics(connector.as_deref());
    let (chunk, mut events) = (chunk(rows, job)?, Vec::new());
    for named in &job.scope.records {
        let topic = named.topic.as_ref().or(job.scope.topic.as_ref());
        for topic in topic.map_or(all.as_slice(), std::slice::from_ref) {
            let record = record_id(id, topic, &named.remote_id).into_bytes();
            collect(rows, (id, record), job, until, chunk, &mut events)?;
        }
    }
    let next = match events.is_empty() {
        true => Stage::Events { at: place + 1, after: Seq(0), until },
        false => job.stage.clone(),
    };
    Ok(Found { events, next })
}

/// Adds what is to be erased of one record, up to `chunk`.
fn collect(
    rows: &Rows,
    (connection, record): (ConnectionId, [u8; 16]),
    job: &Erasure,
    until: Seq,
    chunk: usize,
    events: &mut Vec<(Seq, Event)>,
) -> Result<()> {
    let mut before = Some(until.next());
    while events.len() < chunk {
        let seqs = rows.record_events(connection, &record, before, LOOKED_MAX)?;
        before = seqs.last().copied();
        let is_last = seqs.len() < LOOKED_MAX;
        for seq in seqs {
            let event = rows.event(seq)?.filter(|event| event.workspace == job.workspace && holds_anything(event));
            events.extend(event.filter(|_| events.len() < chunk).map(|event| (seq, event)));
        }
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Of a user or a connection that is erased whole: the workspace's log is walked through.
fn of_log(rows: &Rows, job: &Erasure, after: Seq, until: Seq) -> Result<Found> {
    let seqs = rows.workspace_events_after(job.workspace, after, until, LOOKED_MAX)?;
    let mut reached = if seqs.len() < LOOKED_MAX { None } else { seqs.last().copied() };
    let (chunk, mut events) = (chunk(rows, job)?, Vec::new());
    for seq in seqs {
        if events.len() == chunk {
            reached = events.last().map(|(seq, _)| *seq);
            break;
        }
        events.extend(rows.event(seq)?.filter(|event| job.scope.takes(event)).map(|event| (seq, event)));
    }
    let next = reached.map_or(Stage::Disk, |after| Stage::Events { at: 0, after, until });
    Ok(Found { events, next })
}

/// Erases events with what is held of them, and lets the job stand at `next`. Some: it must come back first, since
/// something is under way.
pub(super) async fn erase(
    tools: &Tools,
    job: &Erasure,
    events: Vec<(Seq, Event)>,
    next: Stage,
) -> Result<Option<Next>> {
    let asked = (job.clone(), events);
    let look = move |rows: &Rows| {
        let held = held(rows, &asked.0, &asked.1)?;
        Ok((held, asked.1))
    };
    let (held, events) = tools.deps.store.blocking(look).await?;
    if !held.owed.is_empty() {
        return end_owed(tools, job, held).await.map(Some);
    }
    let seqs: Vec<Seq> = events.iter().map(|(seq, _)| *seq).collect();
    advance(tools, job, move |tx, job| {
        for (lane, seq) in &held.history {
            let (held, was_dead) = tx.erase_history(*lane, *seq)?;
            job.counts.deliveries += u64::from(was_dead);
            if held {
                job.touched.lane(*lane);
            }
        }
        for (seq, event) in &events {
            tx.erase_event(*seq, event)?;
            job.touched.event(*seq);
            job.counts.events += 1;
        }
        if next == Stage::Disk {
            // What names the records is not needed any more, and goes from the disk with the rest.
            job.scope.records.clear();
        }
        job.stage = next;
        Ok(())
    })
    .await?;
    tools.outlet.forget(&seqs);
    Ok(None)
}

fn held(rows: &Rows, job: &Erasure, events: &[(Seq, Event)]) -> Result<Held> {
    let mut held = Held { owed: Vec::new(), history: Vec::new() };
    if events.is_empty() {
        return Ok(held);
    }
    let lanes = lanes(rows, job)?;
    for (at, event) in events {
        for lane in &lanes {
            let found = rows.held_of(*lane, *at, event)?;
            held.owed.extend(found.owed.into_iter().map(|due| (*lane, due, *at)));
            held.history.extend(found.history.into_iter().map(|seq| (*lane, seq)));
        }
    }
    Ok(held)
}

/// Ends what is owed, but for what is in flight: that is looked at again.
async fn end_owed(tools: &Tools, job: &Erasure, held: Held) -> Result<Next> {
    let flights = tools.outlet.flights.clone();
    let lanes: std::collections::BTreeSet<LaneNo> = held.owed.iter().map(|(lane, ..)| *lane).collect();
    let flying = held.owed.iter().any(|(lane, due, _)| flights.has(*lane, due.seq));
    // Their successors are due from some time after this one.
    let since = tools.deps.clock.now();
    let flew = flights.clone();
    advance(tools, job, move |tx: &mut Tx<'_>, job| {
        let ends = held.owed.iter().filter(|(lane, due, _)| !flew.has(*lane, due.seq)).take(OWED_MAX);
        for (lane, due, at) in ends {
            let taken_in = tx.event(*at)?.map_or(tx.now(), |event| event.accepted_at);
            job.counts.deliveries += u64::from(tx.erase_owed(*lane, due, taken_in)?);
            job.touched.lane(*lane);
        }
        Ok(())
    })
    .await?;
    for lane in lanes {
        flights.let_go(lane, since);
        tools.deps.rings.lane(lane);
    }
    Ok(Next::At(if flying { since.after(WAIT) } else { since }))
}
