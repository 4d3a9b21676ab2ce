//! The events of a batch, read and made ready for a driver.
//!
//! Always true: the same members give the same items; memory is bounded by the batch's limits, a single larger event
//! aside. Not here: which deliveries those are (`super`).

use std::sync::Arc;

use crate::actors::courier::lane::LaneConfig;
use crate::actors::courier::outlet::Outlet;
use crate::destinations::driver::{Batch, Item};
use crate::domain::body;
use crate::domain::destination::{Deletes, Shape};
use crate::domain::event::{Event, Payload};
use crate::domain::id::{EventId, Seq};
use crate::error::Result;
use crate::outbound::Bytes;
use crate::store::{BatchRow, Due, Turn};

/// An event costs so much beside its payload.
const ITEM_BYTES: usize = 256;

/// What was read of some members.
#[derive(Default)]
pub(super) struct Loaded {
    /// By their places among the members.
    pub(super) items: Vec<(usize, Item)>,
    /// Those whose event is gone: past its time, or erased.
    pub(super) gone: Vec<usize>,
    /// How many members were looked at: the others do not fit.
    pub(super) looked: usize,
}

impl Outlet {
    /// Reads the events of these members, until they have `bytes`.
    pub(super) fn load(&self, config: &LaneConfig, members: &[Due], bytes: usize) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        let mut used = 0;
        for (place, due) in members.iter().enumerate() {
            let Some(event) = self.event_of(config, due)? else {
                loaded.gone.push(place);
                loaded.looked += 1;
                continue;
            };
            let id = EventId::new(due.event, event.workspace);
            let item = item(config, event, (due.seq, id, due.event));
            used += item.payload.len() + extras(&item.event) + ITEM_BYTES;
            if used > bytes && !loaded.items.is_empty() {
                break;
            }
            loaded.items.push((place, item));
            loaded.looked += 1;
        }
        Ok(loaded)
    }

    /// The event of a delivery, with all that collapsed into it.
    fn event_of(&self, config: &LaneConfig, due: &Due) -> Result<Option<Event>> {
        let Some(mut event) = self.store.event(due.event)? else { return Ok(None) };
        if due.record.is_some()
            && let Some(merged) = self.store.merged(config.subscription.lane, due.seq)?
        {
            event.changed_fields = merged.changed_fields;
            if let Some(first) = self.store.event(merged.first)? {
                event.previous = first.previous;
            }
        }
        Ok(Some(event))
    }

    /// Whether a mirror that removes deleted rows must not see this event any more: it was asked for again, and the record
    /// has been deleted since. Without its row nothing there could tell that the event is older.
    pub(super) fn is_outlived(&self, config: &LaneConfig, due: &Due, item: &Item) -> Result<bool> {
        let removes = config.subscription.shape == Shape::Mirror(Deletes::Remove);
        let (Turn::Again(_), true) = (due.turn, removes) else { return Ok(false) };
        let (Some(connection), Payload::Record { id, .. }) = (item.event.connection, &item.event.payload) else {
            return Ok(false);
        };
        let Some(newest) = self.store.record_events(connection, id, None, 1)?.pop() else { return Ok(false) };
        let deleted = self.store.event(newest)?.is_some_and(|event| event.update_type.as_deref() == Some("deleted"));
        Ok(newest > due.event && deleted)
    }
}

/// The items of present records.
pub(super) fn given(config: &LaneConfig, batch: &BatchRow) -> Vec<Item> {
    let items = batch.records.iter().map(|given| item(config, given.event.clone(), (given.seq, given.id, given.seq)));
    items.collect()
}

fn item(config: &LaneConfig, event: Event, (delivery, id, seq): (Seq, EventId, Seq)) -> Item {
    let version = config.subscription.api_version;
    let payload = body::record(&event.payload, version).into();
    let body = Bytes::from(body::render(&event, id, version, &config.include));
    Item { delivery, id, seq, event: Arc::new(event), payload, body }
}

fn extras(event: &Event) -> usize {
    event.previous.as_ref().map_or(0, String::len) + event.raw.as_ref().map_or(0, String::len)
}

/// A batch as its driver sees it.
pub(super) fn batch(config: &LaneConfig, row: &BatchRow, number: Seq, items: Vec<Item>) -> Batch {
    let subscription = &config.subscription;
    Batch {
        id: super::name(subscription.lane, number),
        destination: row.destination,
        shape: subscription.shape,
        include: config.include.clone(),
        items,
    }
}
