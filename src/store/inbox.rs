//! Raw webhooks, stored before they are answered and understood afterwards.
//!
//! Always true: a row is encrypted; while it waits it has a due row, so that a start finds it. The owner is a connection
//! (`/in/c/…`) or an integration (`/in/g/…`). Not here: verifying and understanding (`connectors`, `actors::watcher`).

use serde::{Deserialize, Serialize};

use super::codec;
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::writer::Tx;
use crate::domain::id::{EventId, InboxId, Seq, WorkspaceNo};
use crate::domain::time::Millis;
use crate::error::Result;

/// How far a webhook has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InboxState {
    /// Waits to be understood, after so many tries.
    Waiting { tries: u32 },
    /// Understood: these events were made of it (none for an unchanged record, or handed on to connections).
    Done { at: Millis, events: Vec<EventId>, handed_to: Vec<[u8; 12]>, note: String },
    /// Could not be understood; kept until somebody asks to process it again.
    Parked { at: Millis, reason: String },
}

/// One request of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRow {
    pub workspace: WorkspaceNo,
    /// Connection or integration.
    pub owner: [u8; 12],
    /// The key of the global webhook; empty on a connection's own.
    pub webhook_key: String,
    pub received_at: Millis,
    pub method: String,
    /// As the app called it, from the path on.
    pub uri: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// `verified`, `unsigned`, …
    pub verdict: String,
    /// Set on a row that a global webhook's `handle` made for a connection: the connector event and its payload are in
    /// `body`, and this names the event.
    pub event: Option<String>,
    /// What scripts logged about it.
    pub log: Vec<String>,
    pub state: InboxState,
}

/// The id of an inbox row: its sequence, and the first 4 bytes of its owner for reading.
pub fn id(seq: Seq, owner: &[u8; 12]) -> InboxId {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&seq.0.to_be_bytes());
    bytes[8..].copy_from_slice(&owner[8..]);
    InboxId(bytes)
}

fn seq_of(id: InboxId) -> Seq {
    Seq(keys::number_at(&id.0, 0).unwrap_or_default())
}

impl Rows {
    /// The row with that id under its owner.
    pub fn inbox_row(&self, owner: &[u8; 12], id: InboxId) -> Result<Option<InboxRow>> {
        let key = Key::owner(owner).seq(seq_of(id));
        self.open_sealed(owner, Table::Inbox, key)?.map(|plain| codec::decode(&plain)).transpose()
    }

    /// Up to `limit` rows of an owner that are due, oldest first, and when the next one is due.
    pub fn inbox_due(
        &self,
        owner: &[u8; 12],
        now: Millis,
        limit: usize,
    ) -> Result<(Vec<(InboxId, InboxRow)>, Option<Millis>)> {
        let (mut due, mut next) = (Vec::new(), None::<Millis>);
        let mut ids = Vec::new();
        self.walk_prefix(Table::InboxDue, &Key::owner(owner), |key, value| {
            let at = Millis(keys::number_at(value, 0).unwrap_or_default());
            if at <= now {
                ids.push(id(Seq(keys::number_at(key, 12).unwrap_or_default()), owner));
            } else {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
            Ok(ids.len() < limit)
        })?;
        for id in ids {
            due.extend(self.inbox_row(owner, id)?.map(|row| (id, row)));
        }
        Ok((due, next))
    }

    /// Owners with rows that wait, each with the earliest time it is due.
    pub fn inbox_owners(&self) -> Result<Vec<([u8; 12], Millis)>> {
        let mut owners: Vec<([u8; 12], Millis)> = Vec::new();
        self.walk(Table::InboxDue, &[], &[u8::MAX; 32], Walk::Forward, |key, value| {
            let owner: [u8; 12] = codec::fixed("inbox_due", key.get(..12).unwrap_or_default())?;
            let at = Millis(keys::number_at(value, 0).unwrap_or_default());
            match owners.last_mut() {
                Some((last, earliest)) if *last == owner => *earliest = at.min(*earliest),
                _ => owners.push((owner, at)),
            }
            Ok(true)
        })?;
        Ok(owners)
    }

    /// A page of an owner's rows, newest first; `before` is an id.
    pub fn inbox(&self, owner: &[u8; 12], before: Option<InboxId>, limit: usize) -> Result<Vec<(InboxId, InboxRow)>> {
        let prefix = Key::owner(owner);
        let end = match before {
            Some(id) => prefix.clone().seq(seq_of(id)).as_ref().to_vec(),
            None => prefix.clone().end(),
        };
        let mut rows = Vec::new();
        self.walk(Table::Inbox, prefix.as_ref(), &end, Walk::Backward, |key, sealed| {
            let plain = self.vault.open(owner, Table::Inbox, key, sealed)?;
            rows.push((id(Seq(keys::number_at(key, 12).unwrap_or_default()), owner), codec::decode(&plain)?));
            Ok(rows.len() < limit)
        })?;
        Ok(rows)
    }
}

impl Tx<'_> {
    /// Takes a request in; it is due at once.
    pub fn put_inbox(&mut self, row: &InboxRow) -> Result<InboxId> {
        let seq = self.next_seq()?;
        let id = id(seq, &row.owner);
        self.write_inbox(id, row)?;
        let now = self.now();
        self.put_raw(Table::InboxDue, Key::owner(&row.owner).seq(seq), &now.0.to_be_bytes())?;
        Ok(id)
    }

    /// Writes how far a request has come; `Waiting` is tried again at `due`.
    pub fn settle_inbox(&mut self, id: InboxId, row: &InboxRow, due: Millis) -> Result<()> {
        let key = Key::owner(&row.owner).seq(seq_of(id));
        self.write_inbox(id, row)?;
        match row.state {
            InboxState::Waiting { .. } => self.put_raw(Table::InboxDue, key, &due.0.to_be_bytes()),
            InboxState::Done { .. } | InboxState::Parked { .. } => self.delete(Table::InboxDue, key),
        }
    }

    fn write_inbox(&mut self, id: InboxId, row: &InboxRow) -> Result<()> {
        let key = Key::owner(&row.owner).seq(seq_of(id));
        let plain = codec::encode(row)?;
        self.put_sealed(&row.owner, Table::Inbox, key, &plain)
    }

    /// Erases all requests of an owner.
    pub(super) fn delete_inbox(&mut self, owner: &[u8; 12]) -> Result<()> {
        self.delete_prefix(Table::Inbox, &Key::owner(owner))?;
        self.delete_prefix(Table::InboxDue, &Key::owner(owner))
    }
}
