//! The events of a batch, read and made ready for a driver.
//!
//! Always true: the same members, shown the same way, give the same items; memory is bounded by the batch's limits, a
//! single larger event aside. Not here: which deliveries those are (`super`).

use std::sync::Arc;

use crate::actors::courier::outlet::Outlet;
use crate::destinations::driver::Item;
use crate::domain::body;
use crate::domain::destination::{Deletes, Shape};
use crate::domain::event::{Event, Payload};
use crate::domain::id::{EventId, LaneNo, Seq};
use crate::error::Result;
use crate::store::{BatchRow, Due, Turn};

/// An event costs so much beside its payload.
const ITEM_BYTES: usize = 256;

/// What was read of a batch.
#[derive(Default)]
pub(super) struct Loaded {
    /// Of each member that is kept, in their order.
    pub(super) items: Vec<Loading>,
    /// Those whose event is gone: past its time, or erased.
    pub(super) gone: Vec<Due>,
    /// Those that do not fit.
    pub(super) rest: Vec<Due>,
}

/// One event of a batch.
pub(super) struct Loading {
    pub(super) item: Item,
    /// It must not be sent, and counts as delivered: see [`Outlet::is_outlived`].
    pub(super) outlived: bool,
}

impl Outlet {
    /// Reads the events of a batch's members, until they have `bytes`. What is kept of the batch has an item each.
    pub(super) fn load(&self, lane: LaneNo, batch: &mut BatchRow, bytes: usize) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        let mut used = 0;
        let mut members = std::mem::take(&mut batch.members).into_iter();
        while let Some(due) = members.next() {
            let Some(event) = self.event_of(lane, &due)? else {
                loaded.gone.push(due);
                continue;
            };
            let id = EventId::new(due.event, event.workspace);
            let outlived = self.is_outlived(batch.shape, &due, &event)?;
            let item = item(batch, event, (due.seq, id, due.event));
            used += item.payload.len() + extras(&item.event) + ITEM_BYTES;
            if used > bytes && !loaded.items.is_empty() {
                loaded.rest = std::iter::once(due).chain(members).collect();
                break;
            }
            loaded.items.push(Loading { item, outlived });
            batch.members.push(due);
        }
        for given in &batch.records {
            let item = item(batch, given.event.clone(), (given.seq, given.id, given.seq));
            loaded.items.push(Loading { item, outlived: false });
        }
        Ok(loaded)
    }

    /// The event of a delivery, with all that collapsed into it.
    fn event_of(&self, lane: LaneNo, due: &Due) -> Result<Option<Event>> {
        let Some(mut event) = self.store.event(due.event)? else { return Ok(None) };
        if due.record.is_some()
            && let Some(merged) = self.store.merged(lane, due.seq)?
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
    fn is_outlived(&self, shape: Shape, due: &Due, event: &Event) -> Result<bool> {
        let (Turn::Again(_), Shape::Mirror(Deletes::Remove)) = (due.turn, shape) else { return Ok(false) };
        let (Some(connection), Payload::Record { id, .. }) = (event.connection, &event.payload) else {
            return Ok(false);
        };
        let Some(newest) = self.store.record_events(connection, id, None, 1)?.pop() else { return Ok(false) };
        let deleted = self.store.event(newest)?.is_some_and(|event| event.update_type.as_deref() == Some("deleted"));
        Ok(newest > due.event && deleted)
    }
}

fn item(batch: &BatchRow, event: Event, (delivery, id, seq): (Seq, EventId, Seq)) -> Item {
    let payload = body::record(&event.payload, batch.version).into();
    Item { delivery, id, seq, event: Arc::new(event), payload }
}

fn extras(event: &Event) -> usize {
    event.previous.as_ref().map_or(0, String::len) + event.raw.as_ref().map_or(0, String::len)
}
