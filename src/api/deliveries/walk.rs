//! The walk over lanes, newest delivery first, that makes a page.
//!
//! Always true: a page looks at no more than [`ROWS_MAX`] rows, however few of them fit; the deliveries of all lanes come
//! in one order, by (sequence, lane) downwards, so a page goes on exactly where the one before ended.

use std::collections::{BinaryHeap, VecDeque};

use crate::actors::courier::Flights;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::{Event, Payload};
use crate::domain::id::{ConnectionId, DeliveryId, LaneNo, Seq, UserId};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};
use crate::store::{DeliveryRow, Rows};

/// Rows looked at for one page.
const ROWS_MAX: usize = 2000;
/// Lanes that one list walks over; more are reached by asking for each subscription.
pub(super) const LANES_MAX: usize = 10_000;
/// Rows read ahead, over all lanes.
const AHEAD: usize = 256;

/// A word of `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Pending,
    InFlight,
    Retrying,
    Delivered,
    Dead,
    Cancelled,
    Superseded,
}

impl Status {
    const ALL: [Self; 7] =
        [Self::Pending, Self::InFlight, Self::Retrying, Self::Delivered, Self::Dead, Self::Cancelled, Self::Superseded];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InFlight => "inFlight",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    pub(super) fn read(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|status| status.text() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::text).join(", ");
            Error::new(Code::Malformed, format!("status: use one of {words}"))
        })
    }

    /// What a stored state is called; that an attempt is under way is not stored.
    fn of(state: &DeliveryState, is_flying: bool) -> Self {
        match state {
            DeliveryState::Due { .. } if is_flying => Self::InFlight,
            DeliveryState::Due { attempts: 0, .. } => Self::Pending,
            DeliveryState::Due { .. } => Self::Retrying,
            DeliveryState::Delivered { .. } => Self::Delivered,
            DeliveryState::Dead { .. } => Self::Dead,
            DeliveryState::Cancelled { .. } | DeliveryState::Erased { .. } => Self::Cancelled,
            DeliveryState::Superseded { .. } => Self::Superseded,
        }
    }
}

/// What is asked for; None: whatever it is.
pub(super) struct Filter {
    pub(super) status: Option<Status>,
    pub(super) topic: Option<String>,
    pub(super) connection: Option<ConnectionId>,
    pub(super) user: Option<UserId>,
    pub(super) remote_id: Option<String>,
    pub(super) from: Option<Millis>,
    pub(super) to: Option<Millis>,
}

impl Filter {
    pub(super) fn takes_row(&self, row: &DeliveryRow, status: Status) -> bool {
        self.status.is_none_or(|wanted| wanted == status)
            && self.from.is_none_or(|from| row.made_at >= from)
            && self.to.is_none_or(|to| row.made_at < to)
    }

    pub(super) fn takes_event(&self, event: Option<&Event>) -> bool {
        if self.topic.is_none() && self.connection.is_none() && self.user.is_none() && self.remote_id.is_none() {
            return true;
        }
        let Some(event) = event else { return false };
        let remote_id = match &event.payload {
            Payload::Record { remote_id, .. } => Some(remote_id),
            Payload::Plain(_) => None,
        };
        self.topic.as_ref().is_none_or(|topic| *topic == event.topic)
            && (self.connection.is_none() || self.connection == event.connection)
            && (self.user.is_none() || self.user == event.user)
            && self.remote_id.as_ref().is_none_or(|wanted| Some(wanted) == remote_id)
    }
}

/// Where a page ended: the next one begins below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    seq: Seq,
    lane: LaneNo,
}

impl Place {
    pub(super) fn of(id: DeliveryId) -> Self {
        let (seq, lane) = id.parts();
        Self { seq, lane }
    }
    pub(super) fn id(self) -> DeliveryId {
        DeliveryId::new(self.seq, self.lane)
    }
    /// The first sequence of `lane` that is too high for what comes below this place.
    fn before(self, lane: LaneNo) -> Seq {
        if lane < self.lane { self.seq.next() } else { self.seq }
    }
}

/// One delivery as it stands.
pub(super) struct Hit<'a> {
    pub(super) id: DeliveryId,
    pub(super) row: DeliveryRow,
    pub(super) status: Status,
    pub(super) event: Option<Event>,
    pub(super) subscription: &'a Subscription,
}

impl<'a> Hit<'a> {
    /// The delivery at `seq` of a subscription's lane, if there is one.
    pub(super) fn find(
        rows: &Rows,
        flights: &Flights,
        subscription: &'a Subscription,
        seq: Seq,
    ) -> Result<Option<Self>> {
        let Some(mut row) = rows.delivery(subscription.lane, seq)? else { return Ok(None) };
        if subscription.destination.is_some() {
            row = rows.as_batched(subscription.lane, seq, row)?;
        }
        let event = rows.event(row.event)?;
        Ok(Some(Self::new(flights, subscription, seq, row, event)))
    }

    /// A delivery whose row was read.
    pub(super) fn new(
        flights: &Flights,
        subscription: &'a Subscription,
        seq: Seq,
        row: DeliveryRow,
        event: Option<Event>,
    ) -> Self {
        let status = Status::of(&row.state, flights.has(subscription.lane, seq));
        Self { id: DeliveryId::new(seq, subscription.lane), row, status, event, subscription }
    }
}

/// A page.
pub(super) struct Found<'a> {
    pub(super) hits: Vec<Hit<'a>>,
    pub(super) next: Option<Place>,
}

/// One lane, read a little ahead.
struct Reader<'a> {
    subscription: &'a Subscription,
    ahead: VecDeque<(DeliveryId, DeliveryRow)>,
    before: Option<Seq>,
    chunk: usize,
}

impl Reader<'_> {
    /// The next row down, without taking it.
    fn peek(&mut self, rows: &Rows, flights: &Flights, filter: &Filter) -> Result<Option<Place>> {
        if self.ahead.is_empty() && self.chunk > 0 {
            let lane = self.subscription.lane;
            let read = match filter.status {
                Some(Status::Dead) => at(rows, lane, rows.dead_deliveries(lane, self.before, self.chunk)?)?,
                Some(Status::InFlight) => at(rows, lane, flying(flights, lane, self.before, self.chunk))?,
                _ => rows.deliveries(lane, self.before, self.chunk)?,
            };
            if read.is_empty() {
                self.chunk = 0;
            }
            self.before = read.last().map(|(id, _)| id.parts().0).or(self.before);
            self.ahead = read.into();
        }
        Ok(self.ahead.front().map(|(id, _)| Place::of(*id)))
    }
}

/// What is in flight in a lane before `before`, newest first.
fn flying(flights: &Flights, lane: LaneNo, before: Option<Seq>, limit: usize) -> Vec<Seq> {
    let seqs = flights.of(lane).into_iter().rev();
    seqs.filter(|seq| before.is_none_or(|before| *seq < before)).take(limit).collect()
}

/// The deliveries at these places, which an index gave.
fn at(rows: &Rows, lane: LaneNo, seqs: Vec<Seq>) -> Result<Vec<(DeliveryId, DeliveryRow)>> {
    let mut found = Vec::new();
    for seq in seqs {
        found.extend(rows.delivery(lane, seq)?.map(|row| (DeliveryId::new(seq, lane), row)));
    }
    Ok(found)
}

/// The page below `place`.
pub(super) fn page<'a>(
    rows: &Rows,
    flights: &Flights,
    lanes: &'a [Subscription],
    filter: &Filter,
    place: Option<Place>,
    limit: usize,
) -> Result<Found<'a>> {
    let chunk = (AHEAD / lanes.len().max(1)).max(1);
    let reader = |subscription: &'a Subscription| {
        let before = place.map(|place| place.before(subscription.lane));
        Reader { subscription, ahead: VecDeque::new(), before, chunk }
    };
    let mut readers: Vec<Reader<'a>> = lanes.iter().map(reader).collect();
    let mut heap: BinaryHeap<(Place, usize)> = BinaryHeap::new();
    for (index, reader) in readers.iter_mut().enumerate() {
        heap.extend(reader.peek(rows, flights, filter)?.map(|place| (place, index)));
    }
    let mut hits = Vec::new();
    let mut looked = 0;
    while let Some((at, index)) = heap.pop() {
        let Some(reader) = readers.get_mut(index) else { continue };
        let Some((_, row)) = reader.ahead.pop_front() else { continue };
        looked += 1;
        let mut hit = Hit::new(flights, reader.subscription, at.seq, row, None);
        if filter.takes_row(&hit.row, hit.status) {
            hit.event = rows.event(hit.row.event)?;
            if filter.takes_event(hit.event.as_ref()) {
                hits.push(hit);
            }
        }
        heap.extend(reader.peek(rows, flights, filter)?.map(|place| (place, index)));
        if hits.len() == limit || looked == ROWS_MAX {
            let next = (!heap.is_empty()).then_some(at);
            return Ok(Found { hits, next });
        }
    }
    Ok(Found { hits, next: None })
}
