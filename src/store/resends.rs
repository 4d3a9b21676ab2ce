//! Deliveries that were asked for again, by the event that they deliver: so that they are found from it, and so that it
//! outlives its time while they need it.
//!
//! Always true: a row is made in the commit of its delivery, says whether that one is still owed or dead, and goes with
//! the event. Not here: what is owed (`deliveries`), what may go (`retention`).

use super::due::{Due, Place, Turn};
use super::keys::{self, Queued};
use super::order::Care;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::event::RecordKey;
use crate::domain::id::{DeliveryId, LaneNo, Seq};
use crate::error::Result;

/// Values of the rows.
const LIVE: &[u8] = &[1];
const ENDED: &[u8] = &[0];

/// One delivery that was asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resend {
    pub lane: LaneNo,
    pub event: Seq,
    pub seq: Seq,
    /// Owed, or dead.
    pub is_live: bool,
}

impl Resend {
    /// The key of its row.
    pub(super) fn key(&self) -> Vec<u8> {
        keys::queue(self.lane, Queued::Resent).seq(self.event).seq(self.seq).as_ref().to_vec()
    }
}

impl Rows {
    /// The deliveries of an event that were asked for again in a lane, oldest first, at most `limit`.
    pub fn resends(&self, lane: LaneNo, event: Seq, limit: usize) -> Result<Vec<Seq>> {
        let mut seqs = Vec::new();
        self.walk_prefix(Table::Queue, &keys::queue(lane, Queued::Resent).seq(event), |key, _| {
            seqs.push(Seq(keys::number_at(key, 13).unwrap_or_default()));
            Ok(seqs.len() < limit)
        })?;
        Ok(seqs)
    }

    /// The same of all events before `before`, oldest event first.
    pub(super) fn resends_before(&self, lane: LaneNo, before: Seq, limit: usize) -> Result<Vec<Resend>> {
        let prefix = keys::queue(lane, Queued::Resent);
        let end = prefix.clone().seq(before);
        let mut all = Vec::new();
        self.walk(Table::Queue, prefix.as_ref(), end.as_ref(), Walk::Forward, |key, value| {
            all.push(Resend {
                lane,
                event: Seq(keys::number_at(key, 5).unwrap_or_default()),
                seq: Seq(keys::number_at(key, 13).unwrap_or_default()),
                is_live: value == LIVE,
            });
            Ok(all.len() < limit)
        })?;
        Ok(all)
    }
}

impl Tx<'_> {
    /// Owes an event to a lane once more, as a fresh delivery at the end of its queue.
    pub fn put_resend(
        &mut self,
        lane: LaneNo,
        care: Care,
        event: Seq,
        record: Option<RecordKey>,
    ) -> Result<DeliveryId> {
        self.put_again(lane, care, event, record, Place::Fresh).map(|seq| DeliveryId::new(seq, lane))
    }

    /// The same at this place, or behind what its record is owed.
    pub(super) fn put_again(
        &mut self,
        lane: LaneNo,
        care: Care,
        event: Seq,
        record: Option<RecordKey>,
        place: Place,
    ) -> Result<Seq> {
        let (seq, now) = (self.next_seq()?, self.now());
        let due = Due { seq, event, turn: Turn::Again(now), place, record };
        self.owe_in_order(lane, care, due, now)?;
        self.note_resend(&Resend { lane, event, seq, is_live: true })?;
        Ok(seq)
    }

    /// Notes a delivery that was asked for again, or that it has ended.
    pub(super) fn note_resend(&mut self, resend: &Resend) -> Result<()> {
        self.put_raw(Table::Queue, resend.key(), if resend.is_live { LIVE } else { ENDED })
    }
}
