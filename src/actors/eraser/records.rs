//! The first stage: snapshot rows become tombstones that hold nothing but ids, and `deleted` is told of those that were there.
//!
//! Always true: tombstone and event are one commit, and a tombstone is told of no more, so `deleted` comes once per record,
//! however often an erasure is repeated. What the app shows later than the tombstone is a new record, and `created`.

use std::collections::HashMap;

use super::{Next, Tools, advance, at, connector};
use crate::actors::Deps;
use crate::domain::connection::Connection;
use crate::domain::erasure::{Counts, Erasure, Stage};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, Seq};
use crate::domain::models::Catalogue;
use crate::domain::record::record_id;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::workspace::User;
use crate::error::Result;
use crate::store::{Rows, SnapshotKey, Tx, keys};

/// Rows of one commit.
const ROWS_MAX: usize = 200;

/// A collection of the connection.
#[derive(Clone)]
struct Kind {
    hash: [u8; 4],
    key: String,
    topic: String,
}

/// What a commit goes over.
struct Plan {
    /// None: the connection is gone, and its rows with it.
    connection: Option<(Connection, Option<User>)>,
    kinds: Vec<Kind>,
    /// With the id at the app, where it was named.
    targets: Vec<(SnapshotKey, Option<String>)>,
    /// Where to go on; None: that was all of this connection.
    reached: Option<SnapshotKey>,
}

pub(super) async fn step(tools: &Tools, job: Erasure) -> Result<Next> {
    let Stage::Records { at: place, after } = job.stage else { return Ok(Next::Ended) };
    let Some(id) = job.scope.connections.get(at(place)?).copied() else { return on_to_webhooks(tools, &job).await };
    let (deps, asked) = (tools.deps.clone(), job.clone());
    let plan = tools.deps.store.blocking(move |rows| plan(rows, &deps, &asked, id, after)).await?;
    let metrics = tools.deps.metrics.clone();
    let next = advance(tools, &job, move |tx, job| {
        let (at, after) = if plan.reached.is_some() { (place, plan.reached) } else { (place + 1, None) };
        job.stage = Stage::Records { at, after };
        let told = erase(tx, job, plan)?;
        for topic in told {
            let known = Catalogue::embedded().find(&topic).is_some();
            metrics.events.with([if known { topic.as_str() } else { "custom" }, "deleted"]).inc();
        }
        Ok(())
    });
    next.await
}

/// What webhooks told of up to now is erased; what they tell later comes after the erasure.
async fn on_to_webhooks(tools: &Tools, job: &Erasure) -> Result<Next> {
    advance(tools, job, |tx, job| {
        job.stage = Stage::Webhooks { at: 0, after: Seq(0), until: tx.next_seq()?, since: tx.now() };
        Ok(())
    })
    .await
}

fn plan(rows: &Rows, deps: &Deps, job: &Erasure, id: ConnectionId, after: Option<SnapshotKey>) -> Result<Plan> {
    let Some(connection) = rows.connection(job.workspace, id)? else {
        return Ok(Plan { connection: None, kinds: Vec::new(), targets: Vec::new(), reached: None });
    };
    let of_topic = |topic: &str| job.scope.topic.as_deref().is_none_or(|wanted| wanted == topic);
    let connector = connector(rows, deps, &connection)?;
    let collections = connector.iter().flat_map(|connector| connector.collections.iter());
    let kinds: Vec<Kind> = collections
        .map(|c| Kind { hash: keys::collection(&c.key), key: c.key.clone(), topic: c.topic.clone() })
        .collect();
    let user = rows.user_by_id(connection.workspace, connection.user)?;
    let (targets, reached) = if job.scope.by_record {
        (named(job, id, &kinds), None)
    } else {
        let page = rows.snapshot_page(id, after.as_ref(), ROWS_MAX)?;
        let reached = page.last().copied().filter(|_| page.len() == ROWS_MAX);
        let wanted = |key: &SnapshotKey| match kinds.iter().find(|kind| key.starts_with(&kind.hash)) {
            Some(kind) => of_topic(&kind.topic),
            None => job.scope.topic.is_none(),
        };
        (page.into_iter().filter(wanted).map(|key| (key, None)).collect(), reached)
    };
    Ok(Plan { connection: Some((connection, user)), kinds, targets, reached })
}

/// The rows of the records that the job names, wherever their topics may be.
fn named(job: &Erasure, id: ConnectionId, kinds: &[Kind]) -> Vec<(SnapshotKey, Option<String>)> {
    let mut targets = Vec::new();
    for named in &job.scope.records {
        let topic = named.topic.as_ref().or(job.scope.topic.as_ref());
        for kind in kinds.iter().filter(|kind| topic.is_none_or(|topic| *topic == kind.topic)) {
            let mut key = [0; 20];
            key[..4].copy_from_slice(&kind.hash);
            key[4..].copy_from_slice(record_id(id, &kind.topic, &named.remote_id).as_bytes());
            // Where the topic is named, a record that was never seen is kept from coming late.
            targets.push((key, topic.is_some().then(|| named.remote_id.clone())));
        }
    }
    // A commit reads what was there before it, so none may be in it twice.
    targets.sort_unstable();
    targets.dedup_by_key(|(key, _)| *key);
    targets
}

/// Makes the tombstones; answers the topics of what was told.
fn erase(tx: &mut Tx<'_>, job: &mut Erasure, plan: Plan) -> Result<Vec<String>> {
    let Some((connection, user)) = &plan.connection else { return Ok(Vec::new()) };
    let (now, mut told) = (tx.now(), Vec::new());
    let mut live: HashMap<&str, u64> = HashMap::new();
    let records = plan.targets.iter().filter_map(|(key, _)| key[4..].try_into().ok()).collect();
    tx.erase_given(connection.id, &records)?;
    for (key, named) in &plan.targets {
        let row = tx.snapshot_at(connection.id, key)?;
        let Some(kind) = plan.kinds.iter().find(|kind| key.starts_with(&kind.hash)) else {
            // Nobody knows its topic any more, so nobody can be told.
            job.counts.tombstones += u64::from(row.is_some());
            tx.delete_snapshot_at(connection.id, key)?;
            continue;
        };
        let mut tombstone = match (&row, named) {
            (Some(row), _) if row.is_erased() => continue,
            (Some(row), _) => row.erased(now),
            (None, Some(remote_id)) => SnapshotRow::erased_unseen(remote_id.clone(), now),
            (None, None) => continue,
        };
        if row.as_ref().is_some_and(SnapshotRow::is_live) {
            let payload = tombstone.payload(uuid::Uuid::from_slice(&key[4..]).unwrap_or_default());
            let event = Event {
                topic: kind.topic.clone(),
                update_type: Some("deleted".to_owned()),
                ..Event::of(connection, user.as_ref(), payload, now)
            };
            let seq = tx.next_seq()?;
            tx.append_event_at(seq, &event)?;
            tombstone.last_event = Some(seq);
            told.push(kind.topic.clone());
            *live.entry(&kind.key).or_default() += 1;
        }
        count(&mut job.counts, row.as_ref());
        tx.put_snapshot_at(connection.id, key, &tombstone)?;
    }
    for (key, gone) in live {
        let mut state = tx.collection_state(connection.id, key)?;
        state.records = state.records.saturating_sub(gone);
        tx.put_collection_state(connection.id, key, &state)?;
    }
    tx.note_erased(connection.id)?;
    Ok(told)
}

fn count(counts: &mut Counts, row: Option<&SnapshotRow>) {
    match row {
        Some(row) if row.is_live() => counts.records += 1,
        Some(_) => counts.tombstones += 1,
        None => {}
    }
}
