//! The second of the four commits: inbox rows done, snapshot rows, cursor, and events appended to the log, together.
//!
//! Always true: nothing is written for a connection that is gone; a row names its last event; a commit has a bounded
//! number of records. Not here: what is committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::changes::{Judged, Scope as Judgement, Sighting, Tally, Write, judge};
use super::fresh::Fresh;
use crate::actors::Deps;
use crate::connectors::{Change, ChangeKind, Collection, Connector};
use crate::domain::audit::{About, Act};
use crate::domain::connection::{CollectionState, Connection, Cursor, Pull, SyncRequest};
use crate::domain::erasure::{Cause, Erasure, Named, RECORDS_MAX as RECORDS_PER_JOB_MAX, Scope};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, ErasureId, EventId, InboxId};
use crate::domain::pull::Bulk;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{InboxRow, InboxState, Rows, Slot, Tx, Wait};
use crate::telemetry::Metrics;

/// Records of one commit.
pub const RECORDS_MAX: usize = 500;

/// What was seen before an erasure is committed within this time, or never: a look at an app takes less.
const ERASED_FRESH: Duration = Duration::from_secs(3 * 3600);

/// What goes into one commit.
#[derive(Default)]
pub struct Commit {
    /// By collection, with the state that the collection then has.
    pub collections: Vec<(String, Judged, CollectionState)>,
    /// States that change without records.
    pub pull: Option<Pull>,
    /// Events of the engine itself and of connector events.
    pub told: Vec<(Event, Option<InboxId>)>,
    /// Webhooks and when those that still wait are due.
    pub inbox: Vec<(InboxId, InboxRow, Millis)>,
    /// A sync that was asked for and has now run.
    pub done: Option<SyncRequest>,
    /// How far one of the values of a collection has been pulled: collection, value, cursor.
    pub part: Option<(String, String, Cursor)>,
    /// How far a first sync by one operation of the app has come; None inside: it is over.
    pub bulk: Option<(String, Option<Bulk>)>,
    /// The new state of the connection's own webhook.
    pub webhook_state: Option<crate::domain::secret::Secret>,
    /// What webhooks ask to be erased: the erasure is made in the commit that settles them.
    pub erase: Vec<(Wish, InboxId)>,
}

/// What an app asks to be erased.
#[derive(Clone, Debug)]
pub enum Wish {
    Record(Named),
    /// All of the connection.
    Everything,
}

impl Wish {
    /// What a change asks to be erased, also of a collection that is not wanted any more: something of it may be held. None:
    /// it asks for no erasure, or names a collection that there is not.
    pub fn of(connector: &Connector, change: &Change) -> Option<Self> {
        if change.kind != ChangeKind::Erased {
            return None;
        }
        if change.is_everything() {
            return Some(Self::Everything);
        }
        let topic = connector.collection(&change.collection)?.topic.clone();
        Some(Self::Record(Named { topic: Some(topic), remote_id: change.remote_id.clone() }))
    }
}

impl Commit {
    /// Whether it has a record erased: the erasure tells of its end, and nothing else needs to be known of it.
    pub fn erases(&self, connector: &Connector, collection: &str, remote_id: &str) -> bool {
        let topic = connector.collection(collection).map(|c| &c.topic);
        self.erase.iter().any(|(wish, _)| match wish {
            Wish::Everything => true,
            Wish::Record(named) => named.topic.as_ref() == topic && named.remote_id == remote_id,
        })
    }
}

/// Whether the connection is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    There,
    Gone,
}

impl Commit {
    /// Keeps the wishes of webhooks that are done: one that is tried again asks again.
    pub fn keep_wishes(&mut self) {
        let done = self.inbox.iter().filter(|(_, row, _)| matches!(row.state, InboxState::Done { .. }));
        let done: Vec<InboxId> = done.map(|(id, ..)| *id).collect();
        self.erase.retain(|(_, id)| done.contains(id));
    }

    /// Commits it all.
    pub async fn run(self, deps: &Deps, account: &Account) -> Result<Standing> {
        let connection = account.connection.clone();
        let erases = !self.erase.is_empty();
        let connector = account.connector().key.clone();
        let metrics = deps.metrics.clone();
        let standing = deps
            .store
            .append(Wait::Applied, move |tx| {
                if tx.connection(connection.workspace, connection.id)?.is_none() {
                    return Ok(Standing::Gone);
                }
                self.write(tx, &connection, &connector, &metrics)?;
                Ok(Standing::There)
            })
            .await?;
        if erases {
            deps.rings.erasure_made();
        }
        Ok(standing)
    }

    fn write(self, tx: &mut Tx<'_>, connection: &Connection, connector: &str, metrics: &Metrics) -> Result<()> {
        let mut by_inbox: HashMap<InboxId, Vec<EventId>> = HashMap::new();
        let erased_at = tx.erased_at(connection.id)?.filter(|at| tx.now().since(*at) < ERASED_FRESH);
        for (key, judged, mut state) in self.collections {
            count(metrics, &judged.tally);
            if let (Some(_), Some(before)) = (erased_at, judged.records_before) {
                // The state was read before: what an erasure took away since is not there any more.
                let erased = before.saturating_sub(tx.collection_state(connection.id, &key)?.records);
                state.records = state.records.saturating_sub(erased);
            }
            write_judged(tx, connection, &key, judged, (metrics, erased_at.is_some()), &mut by_inbox)?;
            tx.put_collection_state(connection.id, &key, &state)?;
        }
        for (event, inbox) in self.told {
            let id = tx.append_event(&event)?;
            count_event(metrics, &event);
            if let Some(inbox) = inbox {
                by_inbox.entry(inbox).or_default().push(id);
            }
        }
        for (id, mut row, due) in self.inbox {
            let made = by_inbox.remove(&id).unwrap_or_default();
            if let InboxState::Done { events, .. } = &mut row.state {
                events.extend(made);
            }
            let outcome = match row.state {
                InboxState::Done { .. } => "understood",
                InboxState::Waiting { .. } => "failed",
                InboxState::Parked { .. } => "parked",
            };
            metrics.webhooks_handled.with([connector, outcome]).inc();
            tx.settle_inbox(id, &row, due)?;
        }
        if let Some(pull) = &self.pull {
            tx.put_pull(pull)?;
        }
        if let Some(request) = &self.done {
            tx.delete_sync_request(connection.id, request.pull)?;
        }
        write_erasures(tx, connection, self.erase)?;
        if let Some((collection, value, cursor)) = &self.part {
            tx.put_part_cursor(connection.id, collection, value, cursor)?;
        }
        if let Some((collection, bulk)) = &self.bulk {
            tx.put_bulk(connection.id, collection, bulk.as_ref())?;
        }
        if let Some(state) = &self.webhook_state {
            tx.put_secret_text(&connection.id.0, Slot::WebhookState, state)?;
        }
        Ok(())
    }
}

fn write_judged(
    tx: &mut Tx<'_>,
    connection: &Connection,
    key: &str,
    judged: Judged,
    (metrics, was_erased): (&Metrics, bool),
    by_inbox: &mut HashMap<InboxId, Vec<EventId>>,
) -> Result<()> {
    let mut last_events = HashMap::new();
    let mut rows = Vec::with_capacity(judged.writes.len());
    for mut write in judged.writes {
        if was_erased && is_older_than_erasure(tx, connection.id, key, &write)? {
            continue;
        }
        if let Some(event) = &write.event {
            let seq = tx.next_seq()?;
            let event_id = tx.append_event_at(seq, event)?;
            count_event(metrics, event);
            last_events.insert(write.id, seq);
            if let Some(inbox) = write.inbox {
                by_inbox.entry(inbox).or_default().push(event_id);
            }
        }
        if let Some(seq) = last_events.get(&write.id) {
            write.row.last_event = Some(*seq);
        }
        rows.push((write.id, write.row));
    }
    // In the order of their keys each has its place in the memtable near the one before; of one record the last stands.
    rows.sort_by_cached_key(|(id, _)| *id);
    for (id, row) in &rows {
        tx.put_snapshot(connection.id, key, id, row)?;
    }
    if let Some(names) = &judged.custom_fields {
        tx.put_custom_fields(connection.id, key, names)?;
    }
    Ok(())
}

/// Whether a record was erased after it was seen: between its judgement and this commit.
fn is_older_than_erasure(tx: &Tx<'_>, connection: ConnectionId, key: &str, write: &Write) -> Result<bool> {
    let row = tx.snapshot(connection, key, &write.id)?.filter(SnapshotRow::is_erased);
    Ok(row.is_some_and(|row| row.version.observed_at >= write.row.version.observed_at))
}

/// Makes the erasures that webhooks ask for, with their entries in the audit log.
fn write_erasures(tx: &mut Tx<'_>, connection: &Connection, wishes: Vec<(Wish, InboxId)>) -> Result<()> {
    let mut records = Vec::new();
    let mut everything = false;
    for (wish, _) in wishes {
        match wish {
            Wish::Record(named) if !records.contains(&named) => records.push(named),
            Wish::Record(_) => {}
            Wish::Everything => everything = true,
        }
    }
    let pieces: Vec<Vec<Named>> = match everything {
        true => vec![Vec::new()],
        false => records.chunks(RECORDS_PER_JOB_MAX).map(<[Named]>::to_vec).collect(),
    };
    for records in pieces {
        let scope = Scope {
            user: None,
            connections: vec![connection.id],
            integrations: connection.integration.into_iter().collect(),
            topic: None,
            by_record: !records.is_empty(),
            records,
        };
        let (id, cause) = (ErasureId(tx.fresh_id()?), Cause::Webhook(connection.id));
        let job = Erasure::new(id, connection.workspace, scope, cause, tx.now());
        tx.put_erasure(&job)?;
        let act = Act::ErasureAsked { erasure: id, about: About::of(&job) };
        tx.put_audit(connection.workspace, cause.into(), act)?;
    }
    Ok(())
}

fn count(metrics: &Metrics, tally: &Tally) {
    let add = |result: &str, n: u64| {
        if n > 0 {
            metrics.records_compared.with([result]).inc_by(n);
        }
    };
    add("unchanged", tally.unchanged + tally.remapped);
    add("created", tally.created);
    add("updated", tally.updated);
    add("deleted", tally.deleted);
    add("older", tally.stale);
}

fn count_event(metrics: &Metrics, event: &Event) {
    let known = crate::domain::models::Catalogue::embedded().find(&event.topic).is_some();
    let topic = if known { event.topic.as_str() } else { "custom" };
    metrics.events.with([topic, event.update_type.as_deref().unwrap_or("none")]).inc();
}

/// Judges sightings of one collection in steps and commits each; `last` finishes the final commit's state.
pub struct Absorb<'a> {
    pub deps: &'a Deps,
    pub account: &'a Arc<Account>,
    pub collection: &'a Collection,
    /// What the walk at hand has written, where it began with an empty collection.
    pub fresh: Option<Arc<Fresh>>,
}

impl Absorb<'_> {
    /// Judges on a thread that may block.
    pub async fn judge(&self, sightings: Vec<Sighting>) -> Result<(Judged, CollectionState)> {
        let state = self.deps.store.collection_state(self.account.connection.id, &self.collection.key)?;
        let scope = Judgement::new(self.deps, self.account, self.collection, &state)?;
        let (account, fresh) = (self.account.clone(), self.fresh.clone());
        let judge = move |rows: &Rows| judge(rows, &account, &scope, sightings, fresh.as_deref());
        let judged = self.deps.store.blocking(judge).await?;
        if let Some((_, problem)) = judged.problems.first() {
            let (connection, collection) = (self.account.connection.id, &self.collection.key);
            tracing::warn!(%connection, collection, problems = judged.problems.len(), "{problem}");
        }
        let (mut state, mut judged) = (state, judged);
        judged.records_before = Some(state.records);
        state.records = state.records.saturating_add_signed(judged.tally.live);
        Ok((judged, state))
    }

    /// Commits sightings in steps of [`RECORDS_MAX`]. The last step's state is finished by `finish`, and `extra` goes with
    /// it. Answers the tally of all.
    pub async fn all(
        &self,
        mut sightings: Vec<Sighting>,
        mut extra: Commit,
        finish: impl FnOnce(&mut CollectionState, &mut Commit, &Tally),
    ) -> Result<(Standing, Tally)> {
        let mut sum = Tally::default();
        while sightings.len() > RECORDS_MAX {
            let rest = sightings.split_off(RECORDS_MAX);
            let (judged, state) = self.judge(sightings).await?;
            sum.add(&judged.tally);
            let step = Commit { collections: vec![(self.collection.key.clone(), judged, state)], ..Commit::default() };
            if step.run(self.deps, self.account).await? == Standing::Gone {
                return Ok((Standing::Gone, sum));
            }
            sightings = rest;
        }
        let (judged, mut state) = self.judge(sightings).await?;
        sum.add(&judged.tally);
        finish(&mut state, &mut extra, &sum);
        extra.collections.push((self.collection.key.clone(), judged, state));
        Ok((extra.run(self.deps, self.account).await?, sum))
    }
}
