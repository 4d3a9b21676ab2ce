//! Dropping what is past its time, by range.
//!
//! Always true: an event that a delivery still needs (owed or dead) is never dropped; what is dropped is a whole range,
//! so nothing is scanned row by row to delete it, except what has no order by time: that is swept, a bounded number of
//! rows at a look. Not here: when to look, and how long things are kept (`actors::janitor`).

use super::Store;
use super::codec;
use super::counts::{Count, hour};
use super::idempotency::{Answer, KEPT};
use super::keys::{self, Key, Queued};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::writer::Tx;
use crate::domain::event::Event;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;
use crate::domain::workspace::Workspace;
use crate::error::Result;

/// Rows of a lane that history is dropped around, in one look.
const NEEDED_MAX: usize = 1000;
/// Waiting webhooks of an owner that are looked through for the first one.
const WAITING_MAX: usize = 100_000;
const HOUR_MS: u64 = 3_600_000;

/// Before when each thing is past its time.
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    pub now: Millis,
    pub events: Millis,
    pub undelivered: Millis,
    pub delivered: Millis,
    pub inbox: Millis,
    pub pulls: Millis,
    pub tombstones: Millis,
}

/// Where the sweeps go on at the next look; empty: at the start.
#[derive(Clone, Debug, Default)]
pub struct SweepMarks {
    by_record: Vec<u8>,
    snapshots: Vec<u8>,
    idempotency: Vec<u8>,
}

/// What is to be deleted.
#[derive(Default)]
struct Plan {
    ranges: Vec<(Table, Vec<u8>, Vec<u8>)>,
    rows: Vec<(Table, Vec<u8>)>,
    /// Lanes with deliveries that are owed and past their time.
    overdue: Vec<(LaneNo, Seq)>,
    marks: SweepMarks,
}

impl Store {
    /// Drops what is past its time; answers where the sweeps go on.
    pub async fn drop_past(&self, cutoffs: Cutoffs, marks: SweepMarks, swept_max: usize) -> Result<SweepMarks> {
        let plan = self.blocking(move |rows| rows.plan(&cutoffs, marks, swept_max)).await?;
        let marks = plan.marks.clone();
        if plan.ranges.is_empty() && plan.rows.is_empty() && plan.overdue.is_empty() {
            return Ok(marks);
        }
        self.change(move |tx| {
            for (lane, before) in plan.overdue {
                tx.expire_some(lane, before, swept_max)?;
            }
            for (table, from, to) in plan.ranges {
                tx.delete_range(table, &from, &to)?;
            }
            for (table, key) in plan.rows {
                tx.delete(table, key)?;
            }
            Ok(())
        })
        .await?;
        Ok(marks)
    }
}

impl Rows {
    fn plan(&self, cutoffs: &Cutoffs, marks: SweepMarks, swept_max: usize) -> Result<Plan> {
        let mut plan = Plan::default();
        let lanes = self.owners(Table::Counts, 4)?;
        let mut needed_from = cutoffs.events;
        for lane in &lanes {
            let lane = LaneNo(u32::from_be_bytes(codec::fixed("counts", lane)?));
            let needed = self.needed_since(lane)?;
            needed_from = needed.map_or(needed_from, |at| at.min(needed_from));
            self.plan_lane(lane, needed, cutoffs, &mut plan)?;
        }
        let events = self.seq_at(needed_from)?;
        let end = Key::new().seq(events).as_ref().to_vec();
        self.plan_range(Table::Events, &[], end, &mut plan)?;
        let mut workspaces = Vec::new();
        self.every_object::<Workspace>(|w| {
            workspaces.push(w.no);
            Ok(())
        })?;
        for no in workspaces {
            let prefix = Key::workspace(no);
            self.plan_range(
                Table::EventsByWorkspace,
                prefix.as_ref(),
                prefix.clone().seq(events).as_ref().into(),
                &mut plan,
            )?;
        }
        self.plan_owners(cutoffs, &mut plan)?;
        self.sweep(events, cutoffs, marks, swept_max, &mut plan)?;
        Ok(plan)
    }

    /// Plans to delete `from..to` if there is anything in it.
    fn plan_range(&self, table: Table, from: &[u8], to: Vec<u8>, plan: &mut Plan) -> Result<()> {
        let mut some = false;
        self.walk(table, from, &to, Walk::Forward, |_, _| {
            some = true;
            Ok(false)
        })?;
        if some {
            plan.ranges.push((table, from.to_vec(), to));
        }
        Ok(())
    }

    fn plan_lane(&self, lane: LaneNo, needed: Option<Millis>, cutoffs: &Cutoffs, plan: &mut Plan) -> Result<()> {
        if needed.is_some_and(|at| at < cutoffs.undelivered) {
            let before = self.seq_at(cutoffs.undelivered)?;
            plan.overdue.push((lane, before));
            let dead = keys::queue(lane, Queued::Dead);
            self.plan_range(Table::Queue, dead.as_ref(), dead.clone().seq(before).as_ref().into(), plan)?;
        } else {
            let prefix = Key::lane(lane);
            let to = prefix.clone().u32(hour(cutoffs.undelivered)).as_ref().to_vec();
            self.plan_range(Table::Counts, prefix.as_ref(), to, plan)?;
        }
        let before = self.seq_at(cutoffs.delivered)?;
        let mut kept: Vec<Seq> = self.retry_deliveries(lane, NEEDED_MAX)?.into_iter().map(|due| due.seq).collect();
        let complete = kept.len() < NEEDED_MAX;
        kept.extend(self.dead_seqs(lane, before, NEEDED_MAX)?);
        kept.sort_unstable();
        if !complete || kept.len() >= 2 * NEEDED_MAX {
            // Too many to drop around: history waits until there are fewer.
            return Ok(());
        }
        let mut from = Seq(0);
        for seq in kept.into_iter().filter(|seq| *seq < before).chain([before]) {
            let (start, end) = (Key::lane(lane).seq(from), Key::lane(lane).seq(seq));
            self.plan_range(Table::Deliveries, start.as_ref(), end.as_ref().into(), plan)?;
            from = seq.next();
        }
        Ok(())
    }

    fn dead_seqs(&self, lane: LaneNo, before: Seq, limit: usize) -> Result<Vec<Seq>> {
        let mut seqs = Vec::new();
        let dead = keys::queue(lane, Queued::Dead);
        let end = dead.clone().seq(before);
        self.walk(Table::Queue, dead.as_ref(), end.as_ref(), Walk::Forward, |key, _| {
            seqs.push(Seq(keys::number_at(key, 5).unwrap_or_default()));
            Ok(seqs.len() < limit)
        })?;
        Ok(seqs)
    }

    fn plan_owners(&self, cutoffs: &Cutoffs, plan: &mut Plan) -> Result<()> {
        let before = self.seq_at(cutoffs.inbox)?;
        for owner in self.owners(Table::Inbox, 12)? {
            // With more waiting than that, the inbox is dropped later.
            let Some(waiting) = self.inbox_first_waiting(&owner, WAITING_MAX)? else { continue };
            let end = Key::new().bytes(&owner).seq(waiting.min(before));
            for table in [Table::Inbox, Table::InboxProgress] {
                self.plan_range(table, &owner, end.as_ref().into(), plan)?;
            }
        }
        for owner in self.owners(Table::Pulls, 12)? {
            let to = Key::new().bytes(&owner).bytes(&cutoffs.pulls.0.to_be_bytes()[2..]);
            self.plan_range(Table::Pulls, &owner, to.as_ref().into(), plan)?;
        }
        Ok(())
    }

    fn sweep(&self, events: Seq, cutoffs: &Cutoffs, marks: SweepMarks, max: usize, plan: &mut Plan) -> Result<()> {
        plan.marks.by_record = self.sweep_table(Table::EventsByRecord, marks.by_record, max, plan, |key, _| {
            Ok(Seq(keys::number_at(key, 28).unwrap_or_default()) < events)
        })?;
        plan.marks.snapshots = self.sweep_table(Table::Snapshots, marks.snapshots, max, plan, |_, value| {
            let row: SnapshotRow = codec::decode(value)?;
            Ok(row.deleted_at.is_some_and(|at| at < cutoffs.tombstones))
        })?;
        plan.marks.idempotency = self.sweep_table(Table::Idempotency, marks.idempotency, max, plan, |key, value| {
            let owner = key.get(..4).unwrap_or_default();
            let answer: Answer = codec::decode(&self.vault.open(owner, Table::Idempotency, key, value)?)?;
            Ok(answer.at.after(KEPT) < cutoffs.now)
        })?;
        Ok(())
    }

    /// Looks at up to `max` rows after `mark`; answers the next mark.
    fn sweep_table(
        &self,
        table: Table,
        mark: Vec<u8>,
        max: usize,
        plan: &mut Plan,
        is_past: impl Fn(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<Vec<u8>> {
        let (mut looked, mut last) = (0, Vec::new());
        self.walk(table, &mark, &[u8::MAX; 64], Walk::Forward, |key, value| {
            if is_past(key, value)? {
                plan.rows.push((table, key.to_vec()));
            }
            looked += 1;
            last = key.to_vec();
            Ok(looked < max)
        })?;
        if looked < max {
            return Ok(Vec::new());
        }
        last.push(0);
        Ok(last)
    }

    /// The first `length` bytes of the keys of a table, each once, by seeking from one to the next.
    fn owners(&self, table: Table, length: usize) -> Result<Vec<Vec<u8>>> {
        let mut owners: Vec<Vec<u8>> = Vec::new();
        let mut from = Vec::new();
        loop {
            let mut found = None;
            self.walk(table, &from, &[u8::MAX; 64], Walk::Forward, |key, _| {
                found = key.get(..length).map(<[u8]>::to_vec);
                Ok(false)
            })?;
            let Some(owner) = found else { return Ok(owners) };
            from = Key::new().bytes(&owner).end();
            owners.push(owner);
        }
    }

    /// The first hour in which a delivery was made that is still owed, or dead.
    fn needed_since(&self, lane: LaneNo) -> Result<Option<Millis>> {
        let mut since = None;
        self.walk_prefix(Table::Counts, &Key::lane(lane), |key, value| {
            let counted = key.last().is_some_and(|s| [Count::Pending as u8, Count::Dead as u8].contains(s));
            let number = i64::from_le_bytes(codec::fixed("counts", value)?);
            if counted && number > 0 {
                let at = u32::from_be_bytes(codec::fixed("counts", key.get(4..8).unwrap_or_default())?);
                since = Some(Millis(u64::from(at) * HOUR_MS));
            }
            Ok(since.is_none())
        })?;
        Ok(since)
    }

    /// The first position of the log whose event was taken in at `at` or later; past the last one if there is none.
    fn seq_at(&self, at: Millis) -> Result<Seq> {
        let Some((first, event)) = self.event_from(Seq(0))? else { return Ok(Seq(0)) };
        if event.accepted_at >= at {
            return Ok(first);
        }
        let (mut low, mut high) = (first.0, self.last_event()?.unwrap_or(first).0 + 1);
        // Always: the first event at or after `low` is too old, none at or after `high` is.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.event_from(Seq(middle))? {
                Some((_, event)) if event.accepted_at < at => low = middle,
                _ => high = middle,
            }
        }
        Ok(Seq(high))
    }

    fn event_from(&self, from: Seq) -> Result<Option<(Seq, Event)>> {
        Ok(self.events_after(Seq(from.0.saturating_sub(1)), Seq(u64::MAX - 1), 1)?.0.pop())
    }

    fn last_event(&self) -> Result<Option<Seq>> {
        let mut last = None;
        self.walk(Table::Events, &[], &[u8::MAX; 9], Walk::Backward, |key, _| {
            last = keys::number_at(key, 0).map(Seq);
            Ok(false)
        })?;
        Ok(last)
    }
}

impl Tx<'_> {
    /// Ends up to `limit` deliveries of a lane that are owed since before `before`: nobody kept their event longer.
    fn expire_some(&mut self, lane: LaneNo, before: Seq, limit: usize) -> Result<()> {
        use super::deliveries::Settlement;
        use crate::domain::delivery::{Cause, DeliveryState};
        let fresh = self.fresh_deliveries(lane, Seq(0), limit)?;
        let retry = self.retry_deliveries(lane, limit)?;
        for due in fresh.into_iter().chain(retry).filter(|due| due.seq < before) {
            if let Some(mut row) = self.delivery(lane, due.seq)? {
                row.state = DeliveryState::Dead { at: self.now(), cause: Cause::Expired };
                self.settle_delivery(&Settlement { lane, due, row })?;
            }
        }
        Ok(())
    }
}
