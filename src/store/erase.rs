//! Erasing what is held of records: snapshot rows, stored webhooks, events and what their deliveries hold.
//!
//! Always true: erasing twice is erasing once; a delivery whose event goes ends in the same commit or before, and the
//! counts of its lane stay true; nothing here tells anybody. What is deleted or overwritten leaves the disk with `scrub`.
//! Not here: what is to be erased (`domain::erasure`, `actors::eraser`).

use super::codec;
use super::counts::Count;
use super::deliveries::DeliveryRow;
use super::due::{Due, Place};
use super::inbox::{self, InboxRequest, InboxRow, InboxState};
use super::keys::{self, Key, Queued};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::{Event, Payload};
use crate::domain::id::{ConnectionId, InboxId, LaneNo, Seq};
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;
use crate::error::Result;

/// What stands in place of the verdict on a webhook that was erased.
pub const ERASED: &str = "erased";
/// Bytes of webhooks read in one step.
const STEP_BYTES_MAX: usize = 8 << 20;
/// Deliveries of one event that were asked for again in one lane, of which each is looked at.
const RESENDS_MAX: usize = 10_000;
/// Waiting webhooks of an owner that are looked through for one.
const WAITING_MAX: usize = 100_000;

/// Collection (4) and record (16): what a snapshot row's key is inside its connection's.
pub type SnapshotKey = [u8; 20];

/// What a lane holds of an event.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Deliveries that are owed.
    pub owed: Vec<Due>,
    /// Those whose history holds something, by their sequences.
    pub history: Vec<Seq>,
}

fn snapshot_key(connection: ConnectionId, key: &SnapshotKey) -> Key {
    Key::owner(&connection.0).bytes(key)
}

fn is_dead(row: &DeliveryRow) -> bool {
    matches!(row.state, DeliveryState::Dead { .. })
}

/// Whether something of a receiver's answers is kept.
fn says_anything(row: &DeliveryRow) -> bool {
    row.attempts.iter().any(|attempt| !attempt.answer.is_empty())
}

impl Rows {
    /// A connection's snapshot rows after `after`, at most `limit`.
    pub fn snapshot_page(
        &self,
        connection: ConnectionId,
        after: Option<&SnapshotKey>,
        limit: usize,
    ) -> Result<Vec<SnapshotKey>> {
        let prefix = Key::owner(&connection.0);
        let from = after.map_or_else(|| prefix.clone(), |key| snapshot_key(connection, key).u8(0));
        let mut page = Vec::new();
        self.walk(Table::Snapshots, from.as_ref(), &prefix.end(), Walk::Forward, |key, _| {
            page.push(codec::fixed("snapshots", key.get(12..).unwrap_or_default())?);
            Ok(page.len() < limit)
        })?;
        Ok(page)
    }

    /// The row of such a key.
    pub fn snapshot_at(&self, connection: ConnectionId, key: &SnapshotKey) -> Result<Option<SnapshotRow>> {
        self.get(Table::Snapshots, snapshot_key(connection, key))
    }

    /// An owner's webhooks after `after`, up to and with `until`, oldest first: at most `limit`, and about 8 MiB. And up to
    /// where there are no others.
    pub fn inbox_after(
        &self,
        owner: &[u8; 12],
        (after, until): (Seq, Seq),
        limit: usize,
    ) -> Result<(Vec<(InboxId, InboxRow)>, Seq)> {
        let (from, to) = (Key::owner(owner).seq(after.next()), Key::owner(owner).seq(until.next()));
        let (mut ids, mut bytes, mut reached) = (Vec::new(), 0, until);
        self.walk(Table::Inbox, from.as_ref(), to.as_ref(), Walk::Forward, |key, sealed| {
            let seq = Seq(keys::number_at(key, 12).unwrap_or_default());
            ids.push(inbox::id(seq, owner));
            bytes += sealed.len();
            let is_full = ids.len() >= limit || bytes > STEP_BYTES_MAX;
            reached = if is_full { seq } else { until };
            Ok(!is_full)
        })?;
        let mut rows = Vec::new();
        for id in ids {
            rows.extend(self.inbox_row(owner, id)?.map(|row| (id, row)));
        }
        Ok((rows, reached))
    }

    /// When a webhook that waits is due.
    fn due_of(&self, owner: &[u8; 12], seq: Seq) -> Result<Option<Millis>> {
        let (mut found, mut looked) = (None, 0);
        self.walk_prefix(Table::InboxDue, &Key::owner(owner), |key, _| {
            if keys::number_at(key, 20) == Some(seq.0) {
                found = keys::number_at(key, 12).map(Millis);
            }
            looked += 1;
            Ok(found.is_none() && looked < WAITING_MAX)
        })?;
        Ok(found)
    }

    /// Whether a connection has left events in the log.
    pub fn first_event_of(&self, connection: ConnectionId) -> Result<Option<Event>> {
        let mut first = None;
        self.walk_prefix(Table::EventsByRecord, &Key::owner(&connection.0), |key, _| {
            first = keys::number_at(key, 28).map(Seq);
            Ok(false)
        })?;
        first.map_or(Ok(None), |seq| self.event(seq))
    }

    /// What a lane holds of the event at `at`.
    pub fn held_of(&self, lane: LaneNo, at: Seq, event: &Event) -> Result<Held> {
        let (record, mut held) = (event.record_key(), Held::default());
        let again = self.resends(lane, at, RESENDS_MAX)?;
        for seq in std::iter::once(at).chain(again) {
            held.owed.extend(self.owed_of(lane, seq, record.as_ref())?);
            let holds = self.tried(lane, seq)?.is_some_and(|row| is_dead(&row) || says_anything(&row));
            held.history.extend(holds.then_some(seq));
        }
        // What waits behind others of its record comes first: a head that ends lets its successor go to another place.
        held.owed.sort_by_key(|due| due.place != Place::Parked);
        Ok(held)
    }
}

impl Tx<'_> {
    /// Writes the row of such a key.
    pub fn put_snapshot_at(&mut self, connection: ConnectionId, key: &SnapshotKey, row: &SnapshotRow) -> Result<()> {
        self.put(Table::Snapshots, snapshot_key(connection, key), row)
    }

    /// Deletes it: of a collection that the connector does not have any more.
    pub fn delete_snapshot_at(&mut self, connection: ConnectionId, key: &SnapshotKey) -> Result<()> {
        self.delete(Table::Snapshots, snapshot_key(connection, key))
    }

    /// Takes everything out of a stored webhook but that it came, when, and what became of it. One that waits is settled
    /// without being understood. False: it is gone, or was erased before.
    pub fn erase_webhook(&mut self, owner: &[u8; 12], id: InboxId) -> Result<bool> {
        let Some(mut row) = self.inbox_row(owner, id)?.filter(|row| row.verdict != ERASED) else { return Ok(false) };
        let seq = Seq(keys::number_at(&id.0, 0).unwrap_or_default());
        if matches!(row.state, InboxState::Waiting { .. }) {
            row.queued_at = self.due_of(owner, seq)?;
        }
        let (at, events, handed_to) = match row.state {
            InboxState::Done { at, events, handed_to, .. } => (at, events, handed_to),
            InboxState::Waiting { .. } | InboxState::Parked { .. } => (self.now(), Vec::new(), Vec::new()),
        };
        row.state = InboxState::Done { at, events, handed_to, note: ERASED.to_owned() };
        row.log.clear();
        self.settle_inbox(id, &row, at)?;
        let uri = row.request.uri.split('?').next().unwrap_or_default().to_owned();
        let (headers, body, verdict) = (Vec::new(), Vec::new(), ERASED.to_owned());
        let request = InboxRequest { uri, headers, body, verdict, ..row.request };
        self.put_sealed(owner, Table::Inbox, Key::owner(owner).seq(seq), &codec::encode(&request)?)?;
        Ok(true)
    }

    /// Ends a delivery whose event is to be erased, if it still stands where `due` says. False: it does not.
    pub fn erase_owed(&mut self, lane: LaneNo, due: &Due, taken_in: Millis) -> Result<bool> {
        let at = self.now();
        self.end_owed(lane, due, taken_in, DeliveryState::Erased { at })
    }

    /// Takes out of a delivery's history what its receiver answered, which may repeat what was sent; a dead one is dead no
    /// more, so nobody asks for it again. Answers whether there was anything, and whether it was dead.
    pub fn erase_history(&mut self, lane: LaneNo, seq: Seq) -> Result<(bool, bool)> {
        let Some(mut row) = self.tried(lane, seq)? else { return Ok((false, false)) };
        let is_dead = is_dead(&row);
        if !is_dead && !says_anything(&row) {
            return Ok((false, false));
        }
        if is_dead {
            self.delete(Table::Queue, keys::queue(lane, Queued::Dead).seq(seq))?;
            self.count(lane, row.made_at, Count::Dead, -1)?;
            self.count(lane, row.made_at, Count::Cancelled, 1)?;
            row.state = DeliveryState::Erased { at: self.now() };
        }
        row.attempts.iter_mut().for_each(|attempt| attempt.answer.clear());
        self.put(Table::Deliveries, Key::lane(lane).seq(seq), &row)?;
        Ok((true, is_dead))
    }

    /// Deletes an event with its index. Its deliveries have ended before.
    pub fn erase_event(&mut self, seq: Seq, event: &Event) -> Result<()> {
        self.delete(Table::Events, Key::new().seq(seq))?;
        self.delete(Table::EventsByWorkspace, Key::workspace(event.workspace).seq(seq))?;
        if let (Some(connection), Payload::Record { id, .. }) = (event.connection, &event.payload) {
            self.delete(Table::EventsByRecord, Key::owner(&connection.0).bytes(id).seq(seq))?;
        }
        Ok(())
    }
}
