//! Finding events to send again: from the log, from a record's events, or from a lane's dead letters.
//!
//! Always true: events come in the order of the log; a look reads a bounded number of rows and says how far it came. Not
//! here: which of them are chosen (`actors::replayer`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::deliveries::DeliveryRow;
use super::due::{Due, Place};
use super::keys::{self, Key, Queued};
use super::rows::{Rows, Walk};
use super::tables::Table;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::RecordKey;
use crate::domain::id::{ConnectionId, LaneNo, Seq, WorkspaceNo};
use crate::domain::time::Millis;
use crate::error::Result;

/// An event may be stamped so much before or after its neighbours in the log: between the stamp and the commit it waits.
const STAMP_SLACK: Duration = Duration::from_secs(300);

/// Where events are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    Workspace(WorkspaceNo),
    Record(ConnectionId, RecordKey),
    /// Those of which the lane has a dead delivery, or one that was asked for again and may be dead.
    Dead,
}

/// What became of the newest delivery of an event in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There was none, as far as history is kept.
    None,
    /// It waits, is being tried, or will be tried again.
    Owed,
    Delivered,
    Dead,
    /// Cancelled, collapsed into another one, or no longer in the history.
    Else,
}

impl Rows {
    /// The positions between which events were taken in from `from` up to `to`: after the first one, up to and with the
    /// second one. What the router has not come to yet is left out: it is owed soon.
    pub fn replay_range(&self, from: Millis, to: Millis) -> Result<(Seq, Seq)> {
        let start = self.seq_at(from.before(STAMP_SLACK))?.0.saturating_sub(1);
        let until = self.seq_at(to.after(STAMP_SLACK))?.min(self.routed()?);
        Ok((Seq(start), until.max(Seq(start))))
    }

    /// The next events after `after`, up to and with `until`; `limit` rows are read. And up to where there are no others.
    pub fn events_among(
        &self,
        lane: LaneNo,
        among: Among,
        (after, until): (Seq, Seq),
        limit: usize,
    ) -> Result<(Vec<Seq>, Seq)> {
        match among {
            Among::Workspace(no) => {
                self.some_after(Table::EventsByWorkspace, &Key::workspace(no), 4, (after, until), limit)
            }
            Among::Record(connection, record) => {
                let prefix = Key::owner(&connection.0).bytes(&record);
                self.some_after(Table::EventsByRecord, &prefix, 28, (after, until), limit)
            }
            Among::Dead => self.dead_events(lane, (after, until), limit),
        }
    }

    fn some_after(
        &self,
        table: Table,
        prefix: &Key,
        at: usize,
        (after, until): (Seq, Seq),
        limit: usize,
    ) -> Result<(Vec<Seq>, Seq)> {
        let (from, to) = (prefix.clone().seq(after.next()), prefix.clone().seq(until.next()));
        let mut seqs = Vec::new();
        self.walk(table, from.as_ref(), to.as_ref(), Walk::Forward, |key, _| {
            seqs.push(Seq(keys::number_at(key, at).unwrap_or_default()));
            Ok(seqs.len() < limit)
        })?;
        let reached = seqs.last().copied().filter(|_| seqs.len() == limit).unwrap_or(until);
        Ok((seqs, reached))
    }

    /// First deliveries stand among the dead under their event's position, those that were asked for again stand by
    /// their events: so both come in the order of the log.
    fn dead_events(&self, lane: LaneNo, (after, until): (Seq, Seq), limit: usize) -> Result<(Vec<Seq>, Seq)> {
        let (mut events, mut reached) = (BTreeSet::new(), until);
        for (kind, is_first) in [(Queued::Dead, true), (Queued::Resent, false)] {
            let prefix = keys::queue(lane, kind);
            let (from, to) = (prefix.clone().seq(after.next()), prefix.clone().seq(until.next()));
            let (mut looked, mut last) = (0, until);
            self.walk(Table::Queue, from.as_ref(), to.as_ref(), Walk::Forward, |key, value| {
                let seq = Seq(keys::number_at(key, 5).unwrap_or_default());
                if !is_first || Due::read(seq, Place::Fresh, value)?.event == seq {
                    events.insert(seq);
                }
                looked += 1;
                last = seq;
                Ok(looked < limit)
            })?;
            if looked == limit {
                reached = reached.min(last);
            }
        }
        Ok((events.into_iter().filter(|seq| *seq <= reached).collect(), reached))
    }

    /// What became of the newest delivery of the event at `event`, of this record, in a lane.
    pub fn standing(&self, lane: LaneNo, event: Seq, record: Option<&RecordKey>) -> Result<Standing> {
        let newest = self.newest_resend(lane, event)?.unwrap_or(event);
        if let Some(row) = self.get::<DeliveryRow>(Table::Deliveries, Key::lane(lane).seq(newest))? {
            return Ok(match row.state {
                DeliveryState::Due { .. } => Standing::Owed,
                DeliveryState::Delivered { .. } => Standing::Delivered,
                DeliveryState::Dead { .. } => Standing::Dead,
                DeliveryState::Cancelled { .. } | DeliveryState::Superseded { .. } | DeliveryState::Erased { .. } => {
                    Standing::Else
                }
            });
        }
        if self.untried(lane, newest)?.is_some() {
            return Ok(Standing::Owed);
        }
        if let Some(record) = record
            && self.is_untried_of(lane, record, newest)?
        {
            return Ok(Standing::Owed);
        }
        Ok(if newest == event { Standing::None } else { Standing::Else })
    }

    fn newest_resend(&self, lane: LaneNo, event: Seq) -> Result<Option<Seq>> {
        let prefix = keys::queue(lane, Queued::Resent).seq(event);
        let mut newest = None;
        self.walk(Table::Queue, prefix.as_ref(), &prefix.clone().end(), Walk::Backward, |key, _| {
            newest = keys::number_at(key, 13).map(Seq);
            Ok(false)
        })?;
        Ok(newest)
    }
}
