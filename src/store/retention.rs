//! Dropping what is past its time, by range.
//!
//! Always true: an event that a delivery still needs (owed or dead) is never dropped; what is dropped is a whole range,
//! so nothing is scanned row by row to delete it. Not here: when to run, and how long things are kept
//! (`actors::janitor`).

use super::counts::hour;
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::writer::Tx;
use crate::domain::event::Event;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

impl Rows {
    /// The first position of the log whose event was taken in at `at` or later; None if there is none. Found by halving.
    pub fn first_event_at(&self, at: Millis) -> Result<Option<Seq>> {
        let Some((first, event)) = self.event_from(Seq(0))? else { return Ok(None) };
        if event.accepted_at >= at {
            return Ok(Some(first));
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
        Ok(self.event_from(Seq(high))?.map(|(seq, _)| seq))
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

    /// The lowest event that some delivery still needs.
    pub fn lowest_needed_event(&self) -> Result<Option<Seq>> {
        self.lowest_needed()
    }
}

impl Tx<'_> {
    /// Drops the events before `before` that no delivery needs.
    pub fn drop_events(&mut self, before: Seq) -> Result<()> {
        self.delete_range(Table::Events, &[], Key::new().seq(before).as_ref())
    }

    /// Drops index rows of a workspace's events before `before`.
    pub fn drop_workspace_events(&mut self, workspace: crate::domain::id::WorkspaceNo, before: Seq) -> Result<()> {
        let from = Key::workspace(workspace);
        self.delete_range(Table::EventsByWorkspace, from.clone().as_ref(), from.seq(before).as_ref())
    }

    /// Drops a lane's delivered history made before the hour of `at`, which ends at sequence `before`.
    pub fn drop_history(&mut self, lane: LaneNo, before: Seq, at: Millis) -> Result<()> {
        let from = Key::lane(lane);
        self.delete_range(Table::Deliveries, from.as_ref(), from.clone().seq(before).as_ref())?;
        self.delete_range(Table::Counts, from.as_ref(), from.clone().u32(hour(at)).as_ref())
    }

    /// Drops an owner's webhooks before `before`, understood or parked; those that wait have newer sequences or are few
    /// and are looked for first.
    pub fn drop_inbox(&mut self, owner: &[u8; 12], before: Seq) -> Result<()> {
        let from = Key::owner(owner);
        self.delete_range(Table::Inbox, from.as_ref(), from.clone().seq(before).as_ref())
    }

    /// Drops a connection's pulls that began before `at`.
    pub fn drop_pulls(&mut self, connection: crate::domain::id::ConnectionId, at: Millis) -> Result<()> {
        let from = Key::owner(&connection.0);
        let to = from.clone().bytes(&at.0.to_be_bytes()[2..]);
        self.delete_range(Table::Pulls, from.as_ref(), to.as_ref())
    }
}
