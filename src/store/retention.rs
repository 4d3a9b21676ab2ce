//! Dropping what is past its time, by range.
//!
//! Always true: an event that a delivery still needs (owed or dead, asked for again or not) is never dropped; what is
//! dropped is a whole range, so nothing is scanned row by row to delete it, except what has no order by time: that is
//! swept, a bounded number of rows at a look. Not here: when to look, and how long things are kept (`actors::janitor`).

use std::collections::BTreeSet;

use super::Store;
use super::codec;
use super::counts::{Count, hour};
use super::idempotency::{Answer, KEPT};
use super::keys::{self, Key, Queued};
use super::resends::Resend;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
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
    /// Of webhooks that no script has judged.
    pub unverified: Millis,
    pub pulls: Millis,
    pub tombstones: Millis,
    /// Of the audit log and of erasures that have ended.
    pub audit: Millis,
}

/// Where the sweeps go on at the next look; empty: at the start.
#[derive(Clone, Debug, Default)]
pub struct SweepMarks {
    by_record: Vec<u8>,
    snapshots: Vec<u8>,
    idempotency: Vec<u8>,
}

/// The events that go: all before a position, but for those that deliveries need which were asked for again.
#[derive(Clone, Debug, Default)]
struct Gone {
    before: Seq,
    /// Deliveries that were made before this position are past their time.
    overdue: Seq,
    kept: BTreeSet<Seq>,
}

impl Gone {
    fn has(&self, event: Seq) -> bool {
        event < self.before && !self.kept.contains(&event)
    }
    fn is_needed_by(&self, resend: &Resend) -> bool {
        resend.is_live && resend.seq >= self.overdue
    }
    /// What goes, as ranges from a position up to another.
    fn ranges(&self) -> Vec<(Seq, Seq)> {
        let mut from = Seq(0);
        let ends = self.kept.range(..self.before).copied().chain([self.before]);
        ends.map(|end| (std::mem::replace(&mut from, end.next()), end)).filter(|(from, end)| from < end).collect()
    }
}

/// What is to be deleted.
#[derive(Default)]
struct Plan {
    ranges: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// Ranges of events and of their index, deleted only if no delivery asked for meanwhile needs what is in them.
    events: Vec<(Table, Vec<u8>, Vec<u8>)>,
    gone: Gone,
    rows: Vec<(Table, Vec<u8>)>,
    /// Lanes with deliveries that are owed and past their time.
    overdue: Vec<(LaneNo, Seq)>,
    swept: Swept,
}

/// What one look came to.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Where the sweeps go on.
    pub marks: SweepMarks,
    /// Webhooks dropped because no script has judged them in time.
    pub unjudged: u64,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.events.is_empty() && self.rows.is_empty() && self.overdue.is_empty()
    }
}

impl Store {
    /// Drops what is past its time.
    pub async fn drop_past(&self, cutoffs: Cutoffs, marks: SweepMarks, swept_max: usize) -> Result<Swept> {
        let plan = self.blocking(move |rows| rows.plan(&cutoffs, marks, swept_max)).await?;
        let swept = plan.swept.clone();
        if plan.is_empty() {
            return Ok(swept);
        }
        self.change(move |tx| {
            for (lane, before) in plan.overdue {
                tx.expire_some(lane, before, swept_max)?;
            }
            // A delivery may have been asked for since the plan was made; then the events wait for the next look.
            let events = if tx.needs_any(&plan.gone)? { Vec::new() } else { plan.events };
            let some_events_go = events.iter().any(|(table, ..)| *table == Table::Events);
            for (table, from, to) in plan.ranges.into_iter().chain(events) {
                tx.delete_range(table, &from, &to)?;
            }
            for (table, key) in plan.rows {
                tx.delete(table, key)?;
            }
            if some_events_go { tx.put_events_kept_from(plan.gone.before) } else { Ok(()) }
        })
        .await?;
        self.blocking(Rows::count_unverified).await?;
        Ok(swept)
    }
}

impl Rows {
    fn plan(&self, cutoffs: &Cutoffs, marks: SweepMarks, swept_max: usize) -> Result<Plan> {
        let mut plan = Plan::default();
        let lanes = self.lanes_counted()?;
        let mut needed_from = cutoffs.events;
        for lane in lanes.iter().copied() {
            let needed = self.needed_since(lane)?;
            needed_from = needed.map_or(needed_from, |at| at.min(needed_from));
            self.plan_lane(lane, needed, cutoffs, &mut plan)?;
        }
        self.plan_events(self.seq_at(needed_from)?, cutoffs, &lanes, &mut plan)?;
        self.plan_owners(cutoffs, swept_max, &mut plan)?;
        plan.ranges.extend(self.audit_past(cutoffs.audit)?);
        self.sweep(cutoffs, marks, swept_max, &mut plan)?;
        Ok(plan)
    }

    /// Plans which events go, with their index and with what tells of deliveries asked for again.
    fn plan_events(&self, before: Seq, cutoffs: &Cutoffs, lanes: &[LaneNo], plan: &mut Plan) -> Result<()> {
        let mut gone = Gone { before, overdue: self.seq_at(cutoffs.undelivered)?, kept: BTreeSet::new() };
        let mut resends = Vec::new();
        for lane in lanes {
            let of_lane = self.resends_before(*lane, before, NEEDED_MAX)?;
            if let Some(last) = of_lane.last().filter(|_| of_lane.len() == NEEDED_MAX) {
                // What is after it was not looked at.
                gone.before = gone.before.min(last.event);
            }
            resends.extend(of_lane);
        }
        gone.kept = resends.iter().filter(|resend| gone.is_needed_by(resend)).map(|resend| resend.event).collect();
        plan.rows.extend(resends.iter().filter(|r| gone.has(r.event)).map(|r| (Table::Queue, r.key())));
        let mut prefixes = vec![(Table::Events, Key::new())];
        self.every_object::<Workspace>(|w| {
            prefixes.push((Table::EventsByWorkspace, Key::workspace(w.no)));
            Ok(())
        })?;
        for (table, prefix) in prefixes {
            for (from, end) in gone.ranges() {
                let (from, end) = (prefix.clone().seq(from), prefix.clone().seq(end));
                plan.events.extend(self.some_in(table, from.as_ref(), end.as_ref().to_vec())?);
            }
        }
        plan.gone = gone;
        Ok(())
    }

    /// Whether a delivery that was asked for again needs one of the events that go.
    fn needs_any(&self, gone: &Gone) -> Result<bool> {
        for lane in self.lanes_counted()? {
            let resends = self.resends_before(lane, gone.before, NEEDED_MAX)?;
            if resends.iter().any(|resend| gone.has(resend.event) && gone.is_needed_by(resend)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The lanes that have counts: every one with a delivery.
    fn lanes_counted(&self) -> Result<Vec<LaneNo>> {
        let lane = |key: &Vec<u8>| codec::fixed("counts", key).map(|bytes| LaneNo(u32::from_be_bytes(bytes)));
        self.owners(Table::Counts, 4)?.iter().map(lane).collect()
    }

    /// Plans to delete `from..to` if there is anything in it.
    fn plan_range(&self, table: Table, from: &[u8], to: Vec<u8>, plan: &mut Plan) -> Result<()> {
        plan.ranges.extend(self.some_in(table, from, to)?);
        Ok(())
    }

    /// The range, if there is anything in it.
    fn some_in(&self, table: Table, from: &[u8], to: Vec<u8>) -> Result<Option<(Table, Vec<u8>, Vec<u8>)>> {
        let mut some = false;
        self.walk(table, from, &to, Walk::Forward, |_, _| {
            some = true;
            Ok(false)
        })?;
        Ok(some.then(|| (table, from.to_vec(), to)))
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

    fn plan_owners(&self, cutoffs: &Cutoffs, max: usize, plan: &mut Plan) -> Result<()> {
        for rows in self.unjudged_before(cutoffs.unverified, max)? {
            plan.rows.extend(rows);
            plan.swept.unjudged += 1;
        }
        let before = self.seq_at(cutoffs.inbox)?;
        for owner in self.owners(Table::Inbox, 12)? {
            // With more waiting than that, the inbox is dropped later.
            let Some(waiting) = self.inbox_first_waiting(&owner, WAITING_MAX)? else { continue };
            let end = Key::new().bytes(&owner).seq(waiting.min(before));
            for table in [Table::Inbox, Table::InboxProgress, Table::Unjudged] {
                self.plan_range(table, &owner, end.as_ref().into(), plan)?;
            }
        }
        for owner in self.owners(Table::Pulls, 12)? {
            let to = Key::new().bytes(&owner).bytes(&cutoffs.pulls.0.to_be_bytes()[2..]);
            self.plan_range(Table::Pulls, &owner, to.as_ref().into(), plan)?;
        }
        Ok(())
    }

    fn sweep(&self, cutoffs: &Cutoffs, marks: SweepMarks, max: usize, plan: &mut Plan) -> Result<()> {
        let gone = plan.gone.clone();
        plan.swept.marks.by_record =
            self.sweep_table(Table::EventsByRecord, marks.by_record, max, plan, |key, _| {
                Ok(gone.has(Seq(keys::number_at(key, 28).unwrap_or_default())))
            })?;
        plan.swept.marks.snapshots = self.sweep_table(Table::Snapshots, marks.snapshots, max, plan, |_, value| {
            let row: SnapshotRow = codec::decode(value)?;
            Ok(row.deleted_at.is_some_and(|at| at < cutoffs.tombstones))
        })?;
        plan.swept.marks.idempotency =
            self.sweep_table(Table::Idempotency, marks.idempotency, max, plan, |key, value| {
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
    pub(super) fn seq_at(&self, at: Millis) -> Result<Seq> {
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
        let replayed = self.replayed_deliveries(lane, Seq(0), limit)?;
        for due in fresh.into_iter().chain(retry).chain(replayed).filter(|due| due.seq < before) {
            if let Some(mut row) = self.delivery(lane, due.seq)? {
                row.state = DeliveryState::Dead { at: self.now(), cause: Cause::Expired };
                self.settle_delivery(&Settlement { lane, due, row })?;
            }
        }
        Ok(())
    }
}
