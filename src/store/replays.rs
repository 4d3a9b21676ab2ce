//! Replays: the jobs, what they have made, and what has come of it.
//!
//! Always true: a replay's position and the deliveries that it makes change in one commit, so no event is sent twice
//! by a crash; what has come of its deliveries is counted in the commits that settle them; a replay that has not ended is
//! among the live ones; all of it goes with its lane. Not here: which events are chosen (`selects`, `actors::replayer`).

use super::codec;
use super::due::{Due, Place, Turn};
use super::keys::{self, Key, Queued};
use super::order::Care;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::RecordKey;
use crate::domain::id::{LaneNo, ReplayId, Seq};
use crate::domain::replay::Replay;
use crate::error::Result;

/// What is counted of a replay's deliveries; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Came {
    /// Tried at least once, or ended without that.
    Tried = 1,
    Delivered = 2,
    Dead = 3,
    Cancelled = 4,
}

/// What has come of the deliveries that a replay has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Tried at least once, or ended without that.
    pub tried: u64,
    pub delivered: u64,
    pub dead: u64,
    pub cancelled: u64,
}

impl ReplayCounts {
    /// Those that are owed no more.
    pub fn ended(&self) -> u64 {
        self.delivered + self.dead + self.cancelled
    }
}

fn key(id: ReplayId) -> Key {
    let (seq, lane) = id.parts();
    Key::lane(lane).seq(seq)
}

fn id_at(key: &[u8]) -> Result<ReplayId> {
    let lane = LaneNo(u32::from_be_bytes(codec::fixed("replays", key.get(..4).unwrap_or_default())?));
    Ok(ReplayId::new(Seq(keys::number_at(key, 4).unwrap_or_default()), lane))
}

impl Rows {
    /// The replay with that id.
    pub fn replay(&self, id: ReplayId) -> Result<Option<Replay>> {
        self.get(Table::Replays, key(id))
    }

    /// The ids of a lane's replays before `before`, newest first, at most `limit`.
    pub fn replays(&self, lane: LaneNo, before: Option<Seq>, limit: usize) -> Result<Vec<ReplayId>> {
        let prefix = Key::lane(lane);
        let end = match before {
            Some(seq) => prefix.clone().seq(seq).as_ref().to_vec(),
            None => prefix.clone().end(),
        };
        let mut ids = Vec::new();
        self.walk(Table::Replays, prefix.as_ref(), &end, Walk::Backward, |key, _| {
            ids.push(id_at(key)?);
            Ok(ids.len() < limit)
        })?;
        Ok(ids)
    }

    /// The replays of the node that have not ended, by lane.
    pub fn live_replays(&self) -> Result<Vec<ReplayId>> {
        let mut ids = Vec::new();
        self.walk(Table::ReplaysLive, &[], &[u8::MAX; 16], Walk::Forward, |key, _| {
            ids.push(id_at(key)?);
            Ok(true)
        })?;
        Ok(ids)
    }

    /// How many replays of a lane have not ended.
    pub fn live_replays_of(&self, lane: LaneNo) -> Result<usize> {
        let mut count = 0;
        self.walk_prefix(Table::ReplaysLive, &Key::lane(lane), |_, _| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// What has come of what a replay has made.
    pub fn replay_counts(&self, id: ReplayId) -> Result<ReplayCounts> {
        let mut counts = ReplayCounts::default();
        self.walk_prefix(Table::ReplayCounts, &key(id), |key, value| {
            let number = u64::try_from(i64::from_le_bytes(codec::fixed("replay_counts", value)?)).unwrap_or_default();
            match key.last() {
                Some(1) => counts.tried = number,
                Some(2) => counts.delivered = number,
                Some(3) => counts.dead = number,
                Some(4) => counts.cancelled = number,
                _ => {}
            }
            Ok(true)
        })?;
        Ok(counts)
    }

    /// Deliveries of a lane after `after` that replays have made and that were never tried, oldest first. Those that wait
    /// behind others of their record are not among them.
    pub fn replayed_deliveries(&self, lane: LaneNo, after: Seq, limit: usize) -> Result<Vec<Due>> {
        let prefix = keys::queue(lane, Queued::Replay);
        let from = prefix.clone().seq(after.next());
        let mut due = Vec::new();
        self.walk(Table::Queue, from.as_ref(), &prefix.end(), Walk::Forward, |key, value| {
            due.push(Due::read(Seq(keys::number_at(key, 5).unwrap_or_default()), Place::Replay, value)?);
            Ok(due.len() < limit)
        })?;
        Ok(due)
    }

    /// Deliveries after `after` that this replay has made and that are owed, wherever they stand, each with its event; of
    /// all those that replays of the lane have made, `looked_max` are looked at. And how far that came; None: to the end.
    pub fn owed_by_replay(
        &self,
        id: ReplayId,
        after: Seq,
        looked_max: usize,
    ) -> Result<(Vec<(Seq, Seq)>, Option<Seq>)> {
        let (job, lane) = id.parts();
        let prefix = keys::queue(lane, Queued::Job);
        let from = prefix.clone().seq(after.next());
        let (mut found, mut looked, mut last) = (Vec::new(), 0, None);
        self.walk(Table::Queue, from.as_ref(), &prefix.end(), Walk::Forward, |key, value| {
            let seq = Seq(keys::number_at(key, 5).unwrap_or_default());
            if keys::number_at(value, 0) == Some(job.0) {
                found.push((seq, Seq(keys::number_at(value, 8).unwrap_or_default())));
            }
            looked += 1;
            last = (looked == looked_max).then_some(seq);
            Ok(last.is_none())
        })?;
        Ok((found, last))
    }
}

impl Tx<'_> {
    /// Puts a replay, new or changed.
    pub fn put_replay(&mut self, replay: &Replay) -> Result<()> {
        let key = key(replay.id);
        if replay.state.is_live() {
            self.put_raw(Table::ReplaysLive, &key, &[])?;
        } else {
            self.delete(Table::ReplaysLive, &key)?;
        }
        self.put(Table::Replays, key, replay)
    }

    /// Forgets the oldest replays of a lane that have ended, so that no more than `kept_max` of the lane's are left.
    pub fn forget_replays(&mut self, lane: LaneNo, kept_max: usize) -> Result<()> {
        const LOOKED_MAX: usize = 10_000;
        for id in self.replays(lane, None, LOOKED_MAX)?.into_iter().skip(kept_max) {
            if self.replay(id)?.is_some_and(|replay| !replay.state.is_live()) {
                self.delete(Table::Replays, key(id))?;
                self.delete_prefix(Table::ReplayCounts, &key(id))?;
            }
        }
        Ok(())
    }

    /// Owes an event to a lane once more, for a replay.
    pub fn put_replayed(&mut self, replay: ReplayId, care: Care, event: Seq, record: Option<RecordKey>) -> Result<Seq> {
        let (job, lane) = replay.parts();
        let seq = self.put_again(lane, care, event, record, Place::Replay)?;
        let made_by = [job.0.to_be_bytes(), event.0.to_be_bytes()].concat();
        self.put_raw(Table::Queue, keys::queue(lane, Queued::Job).seq(seq), &made_by)?;
        Ok(seq)
    }

    /// A delivery that may be a replay's was settled: it was tried for the first time, or it has ended. `was` is how it
    /// stood before.
    pub(super) fn note_replayed(
        &mut self,
        lane: LaneNo,
        was: &Due,
        state: &DeliveryState,
        is_tried: bool,
    ) -> Result<()> {
        let row = keys::queue(lane, Queued::Job).seq(was.seq);
        let Some(made_by) = self.raw(Table::Queue, &row)? else { return Ok(()) };
        let id = ReplayId::new(Seq(keys::number_at(&made_by, 0).unwrap_or_default()), lane);
        let ended = match state {
            DeliveryState::Due { .. } => None,
            DeliveryState::Delivered { .. } => Some(Came::Delivered),
            DeliveryState::Dead { .. } => Some(Came::Dead),
            DeliveryState::Cancelled { .. } | DeliveryState::Superseded { .. } | DeliveryState::Erased { .. } => {
                Some(Came::Cancelled)
            }
        };
        if ended.is_some() {
            self.delete(Table::Queue, &row)?;
        }
        // One that was forgotten counts no more.
        if self.raw(Table::Replays, key(id))?.is_none() {
            return Ok(());
        }
        if was.turn != Turn::Retry && (is_tried || ended.is_some()) {
            self.count_replayed(id, Came::Tried)?;
        }
        ended.map_or(Ok(()), |came| self.count_replayed(id, came))
    }

    fn count_replayed(&mut self, id: ReplayId, came: Came) -> Result<()> {
        let table = self.rows.cf(Table::ReplayCounts)?;
        self.batch.merge_cf(table, key(id).u8(came as u8), 1_i64.to_le_bytes());
        Ok(())
    }
}
