//! The present records of a new subscription, read out of the snapshot.
//!
//! Always true: a record that changed after the subscription began is left out, since its change comes as an event; each
//! look reads a bounded number of rows; the same record has the same id whenever it is read. Not here: writing them.

use std::collections::HashMap;

use crate::actors::courier::lane::LaneConfig;
use crate::actors::courier::outlet::Outlet;
use crate::destinations::driver::Limits;
use crate::domain::connection::Connection;
use crate::domain::event::{Event, Source};
use crate::domain::filter::{Filter, Verdict, View};
use crate::domain::id::{ConnectionId, EventId, LaneNo, Seq, UserId, WorkspaceNo};
use crate::domain::interest;
use crate::domain::models::Catalogue;
use crate::domain::record::record_id;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::topic::TopicPattern;
use crate::domain::workspace::User;
use crate::error::Result;
use crate::store::{Backfill, GivenRecord};

/// Rows that one look reads at most, whether or not they are wanted.
const LOOK_ROWS: usize = 5_000;
/// Rows of one read.
const PAGE_ROWS: usize = 500;

/// The next records, at most a batch, and how far the backfill is then.
pub(super) fn read(
    outlet: &Outlet,
    config: &LaneConfig,
    mut backfill: Backfill,
    limits: Limits,
) -> Result<(Backfill, Vec<GivenRecord>)> {
    let subscription = &config.subscription;
    let wanted = Wanted {
        patterns: subscription.topics.iter().filter_map(|topic| TopicPattern::restore(topic).ok()).collect(),
        filter: subscription.filter.as_deref().and_then(|text| Filter::parse(text).ok()),
        config,
    };
    let (mut records, mut bytes, mut looked) = (Vec::new(), 0, 0);
    let mut topics: HashMap<[u8; 4], Option<String>> = HashMap::new();
    loop {
        let Some(connection) = connection(outlet, config, &mut backfill)? else {
            if records.is_empty() {
                backfill.ended_at = Some(outlet.clock.now());
            }
            return Ok((backfill, records));
        };
        let user: Option<User> = outlet.store.object_anywhere(&connection.user.0)?;
        let page = outlet.store.snapshot_page(connection.id, backfill.after.as_ref(), PAGE_ROWS)?;
        if page.is_empty() {
            topics.clear();
            let next = next_connection(outlet, config, connection.id)?.unwrap_or(END);
            (backfill.connection, backfill.after) = (Some(next), None);
            continue;
        }
        for key in page {
            if records.len() >= limits.rows || bytes >= limits.bytes || looked >= LOOK_ROWS {
                return Ok((backfill, records));
            }
            backfill.after = Some(key);
            looked += 1;
            let Some(row) = outlet.store.snapshot_at(connection.id, &key)?.filter(SnapshotRow::is_live) else {
                continue;
            };
            if row.last_event.is_some_and(|last| last > backfill.from) {
                continue;
            }
            let (collection, id) = key.split_at(4);
            let (Ok(collection), Ok(id)) = (collection.try_into(), uuid::Uuid::from_slice(id)) else { continue };
            let topic = topics.entry(collection).or_insert_with(|| topic_of(connection.id, &row.remote_id, id));
            let Some(topic) = topic else { continue };
            let event = event(&connection, user.as_ref(), topic, &row, id);
            bytes += row.fields.len();
            let given = given_id(subscription.lane, id, subscription.workspace);
            match wanted.judge(&event, given, backfill.from) {
                Verdict::Yes => records.push(GivenRecord { id: given, seq: backfill.from, event }),
                Verdict::No => {}
                Verdict::Failed(_) => backfill.refused += 1,
            }
        }
    }
}

/// Stands for the end of all connections.
const END: ConnectionId = ConnectionId([0; 12]);

struct Wanted<'a> {
    patterns: Vec<TopicPattern>,
    filter: Option<Filter>,
    config: &'a LaneConfig,
}

impl Wanted<'_> {
    /// As the router would judge it, were it new.
    fn judge(&self, event: &Event, id: EventId, from: Seq) -> Verdict {
        let now = event.accepted_at;
        if interest::miss(&self.config.subscription, &self.patterns, from.next(), event, now).is_some() {
            return Verdict::No;
        }
        self.filter.as_ref().map_or(Verdict::Yes, |filter| filter.judge(&View::of(event, id)))
    }
}

/// The connection that is read, the first one at the beginning.
fn connection(outlet: &Outlet, config: &LaneConfig, backfill: &mut Backfill) -> Result<Option<Connection>> {
    loop {
        let id = match backfill.connection {
            Some(END) => return Ok(None),
            Some(id) => id,
            None => match first_connection(outlet, config)? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        backfill.connection = Some(id);
        if let Some(connection) = outlet.store.connection(config.subscription.workspace, id)? {
            return Ok(Some(connection));
        }
        // Deleted meanwhile.
        backfill.after = None;
        backfill.connection = Some(next_connection(outlet, config, id)?.unwrap_or(END));
    }
}

fn first_connection(outlet: &Outlet, config: &LaneConfig) -> Result<Option<ConnectionId>> {
    match config.subscription.connection {
        Some(id) => Ok(Some(id)),
        None => page(outlet, config, None),
    }
}

/// Lists show the newest first, so the next one is an older one: those that are made meanwhile come as events.
fn next_connection(outlet: &Outlet, config: &LaneConfig, after: ConnectionId) -> Result<Option<ConnectionId>> {
    match config.subscription.connection {
        Some(_) => Ok(None),
        None => page(outlet, config, Some(&after.0)),
    }
}

fn page(outlet: &Outlet, config: &LaneConfig, before: Option<&[u8]>) -> Result<Option<ConnectionId>> {
    let (store, subscription) = (&outlet.store, &config.subscription);
    let mut found = match subscription.user {
        Some(UserId(user)) => store.children::<Connection>(&user, before, 1)?,
        None => store.connections(subscription.workspace, before, 1)?,
    };
    Ok(found.items.pop().map(|connection| connection.id))
}

/// The topic of a record: the one with which its id is made. Rows do not say it, since their collection does.
fn topic_of(connection: ConnectionId, remote_id: &str, id: uuid::Uuid) -> Option<String> {
    let topics = Catalogue::embedded().models().iter().filter(|model| !model.system).map(|model| &model.topic);
    topics.into_iter().find(|topic| record_id(connection, topic, remote_id) == id).cloned()
}

fn event(connection: &Connection, user: Option<&User>, topic: &str, row: &SnapshotRow, id: uuid::Uuid) -> Event {
    let at = row.version.remote_updated_at.unwrap_or(row.updated_at);
    Event {
        topic: topic.to_owned(),
        update_type: Some("created".to_owned()),
        happened_at: at,
        source: Source::Engine,
        ..Event::of(connection, user, row.payload(id), row.updated_at)
    }
}

/// The same for the same record and lane, and no event's: the log does not come to positions that begin with a one.
fn given_id(lane: LaneNo, record: uuid::Uuid, workspace: WorkspaceNo) -> EventId {
    let name = [record.as_bytes().as_slice(), &lane.0.to_be_bytes()].concat();
    let made = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &name);
    let number = made.as_u64_pair().0 | 1 << 63;
    EventId::new(Seq(number), workspace)
}
