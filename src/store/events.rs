//! The event log and its two indexes.
//!
//! Always true: the log's order is the order of commits; an event and the rows that say it was made change together.
//! Not here: who may see an event (nothing beyond the durable mark leaves the node; the callers check).

use super::codec;
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::event::{Event, Payload};
use crate::domain::id::{ConnectionId, EventId, Seq, WorkspaceNo};
use crate::error::Result;

/// Bytes of events read in one step, so that memory is bounded whatever their size.
const STEP_BYTES_MAX: usize = 8 << 20;
/// The router's checkpoint.
const META_ROUTED: &[u8] = b"routed";
/// The first position that retention has left in the log.
const META_KEPT_FROM: &[u8] = b"events-kept-from";

impl Rows {
    /// The event at a position of the log.
    pub fn event(&self, seq: Seq) -> Result<Option<Event>> {
        self.get(Table::Events, Key::new().seq(seq))
    }

    /// The event with that id in that workspace.
    pub fn event_by_id(&self, workspace: WorkspaceNo, id: EventId) -> Result<Option<Event>> {
        let (seq, no) = id.parts();
        if no != workspace {
            return Ok(None);
        }
        Ok(self.event(seq)?.filter(|e| e.workspace == workspace))
    }

    /// Up to `limit` events (and about 8 MiB) after `after`, up to and with `until`, oldest first, and whether there may
    /// be more.
    pub fn events_after(&self, after: Seq, until: Seq, limit: usize) -> Result<(Vec<(Seq, Event)>, bool)> {
        let (from, to) = (Key::new().seq(after.next()), Key::new().seq(until.next()));
        let (mut events, mut bytes, mut more) = (Vec::new(), 0, false);
        self.walk(Table::Events, from.as_ref(), to.as_ref(), Walk::Forward, |key, value| {
            events.push((Seq(keys::number_at(key, 0).unwrap_or_default()), codec::decode(value)?));
            bytes += value.len();
            more = events.len() >= limit || bytes > STEP_BYTES_MAX;
            Ok(!more)
        })?;
        Ok((events, more))
    }

    /// Positions of a workspace's events before `before` (newest first), at most `limit`.
    pub fn workspace_events(&self, workspace: WorkspaceNo, before: Option<Seq>, limit: usize) -> Result<Vec<Seq>> {
        self.positions(Table::EventsByWorkspace, &Key::workspace(workspace), 4, before, limit)
    }

    /// Positions of a record's events before `before` (newest first), at most `limit`.
    pub fn record_events(
        &self,
        connection: ConnectionId,
        record: &[u8; 16],
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Seq>> {
        let prefix = Key::owner(&connection.0).bytes(record);
        self.positions(Table::EventsByRecord, &prefix, 28, before, limit)
    }

    /// Positions of a workspace's events after `after`, up to and with `until` (oldest first), at most `limit`.
    pub fn workspace_events_after(
        &self,
        workspace: WorkspaceNo,
        after: Seq,
        until: Seq,
        limit: usize,
    ) -> Result<Vec<Seq>> {
        let prefix = Key::workspace(workspace);
        let (from, to) = (prefix.clone().seq(after.next()), prefix.seq(until.next()));
        let mut seqs = Vec::new();
        self.walk(Table::EventsByWorkspace, from.as_ref(), to.as_ref(), Walk::Forward, |key, _| {
            seqs.push(Seq(keys::number_at(key, 4).unwrap_or_default()));
            Ok(seqs.len() < limit)
        })?;
        Ok(seqs)
    }

    /// Events before this position have been dropped, since they were past their time.
    pub fn events_kept_from(&self) -> Result<Seq> {
        Ok(match self.raw(Table::Meta, META_KEPT_FROM)? {
            Some(bytes) => Seq(u64::from_be_bytes(codec::fixed("meta", &bytes)?)),
            None => Seq(0),
        })
    }

    fn positions(&self, table: Table, prefix: &Key, at: usize, before: Option<Seq>, limit: usize) -> Result<Vec<Seq>> {
        let end = match before {
            Some(seq) => prefix.clone().seq(seq).as_ref().to_vec(),
            None => prefix.clone().end(),
        };
        let mut seqs = Vec::new();
        self.walk(table, prefix.as_ref(), &end, Walk::Backward, |key, _| {
            seqs.push(Seq(keys::number_at(key, at).unwrap_or_default()));
            Ok(seqs.len() < limit)
        })?;
        Ok(seqs)
    }

    /// How far the router has come.
    pub fn routed(&self) -> Result<Seq> {
        Ok(match self.raw(Table::Meta, META_ROUTED)? {
            Some(bytes) => Seq(u64::from_be_bytes(codec::fixed("meta", &bytes)?)),
            None => Seq(0),
        })
    }
}

impl Tx<'_> {
    /// Appends an event to the log and asks for a sync.
    pub fn append_event(&mut self, event: &Event) -> Result<EventId> {
        let seq = self.next_seq()?;
        self.append_event_at(seq, event)
    }

    /// The same at a position drawn before with `next_seq`, for rows that must name it.
    pub fn append_event_at(&mut self, seq: Seq, event: &Event) -> Result<EventId> {
        self.put(Table::Events, Key::new().seq(seq), event)?;
        self.put_raw(Table::EventsByWorkspace, Key::workspace(event.workspace).seq(seq), &[])?;
        if let (Some(connection), Payload::Record { id, .. }) = (event.connection, &event.payload) {
            self.put_raw(Table::EventsByRecord, Key::owner(&connection.0).bytes(id).seq(seq), &[])?;
        }
        self.note_event();
        Ok(EventId::new(seq, event.workspace))
    }

    /// Drops index rows of a workspace's events before `before`.
    pub fn drop_workspace_events(&mut self, workspace: WorkspaceNo, before: Seq) -> Result<()> {
        let from = Key::workspace(workspace);
        self.delete_range(Table::EventsByWorkspace, from.as_ref(), from.clone().seq(before).as_ref())
    }

    /// Notes that events before `seq` are dropped, in the commit that drops them.
    pub(super) fn put_events_kept_from(&mut self, seq: Seq) -> Result<()> {
        self.put_raw(Table::Meta, META_KEPT_FROM, &seq.0.to_be_bytes())
    }

    /// Moves the router's checkpoint.
    pub fn put_routed(&mut self, seq: Seq) -> Result<()> {
        self.put_raw(Table::Meta, META_ROUTED, &seq.0.to_be_bytes())
    }
}
