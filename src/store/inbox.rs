//! Raw webhooks, stored before they are answered and understood afterwards.
//!
//! A request is written once, as it came; how far it has come is a small row beside it. Always true: both are encrypted;
//! while a request waits it has a row in a queue ordered by due time, so that a start finds it and a backlog is not
//! scanned. What only a script can check has a row with its size and age until the script has judged it, so that what
//! strangers send is counted and dropped without opening it. The owner is a connection (`/in/c/…`) or an integration (`/in/g/…`). Not here: verifying and understanding
//! (`connectors`, `actors::watcher`).

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::codec;
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::id::{EventId, InboxId, Seq, WorkspaceNo};
use crate::domain::time::Millis;
use crate::error::Result;

/// The verdict on a webhook that only a script can check.
pub const UNVERIFIED: &str = "unverified";

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

/// One request of an app, as it is stored once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxRequest {
    pub workspace: WorkspaceNo,
    /// The key of the global webhook; empty on a connection's own.
    pub webhook_key: String,
    pub received_at: Millis,
    pub method: String,
    /// As the app called it, from the path on.
    pub uri: String,
    pub headers: Vec<(String, Vec<u8>)>,
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// `verified`, `unsigned`, …
    pub verdict: String,
    /// Set on a row that a global webhook's `handle` made for a connection: the connector event and its payload are in
    /// `body`, and this names the event.
    pub event: Option<String>,
}

/// A request, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    /// Connection or integration.
    pub owner: [u8; 12],
    pub request: InboxRequest,
    /// What scripts logged about it.
    pub log: Vec<String>,
    pub state: InboxState,
    /// Where it stands in the queue. None: it does not wait, or it is fresh and was not read from the queue.
    pub(super) queued_at: Option<Millis>,
    is_fresh: bool,
}

/// How far it has come; no row: it waits since it was taken in.
#[derive(Serialize, Deserialize)]
struct Progress<'a> {
    log: Cow<'a, [String]>,
    state: Cow<'a, InboxState>,
    queued_at: Option<Millis>,
}

impl InboxRequest {
    /// How much of a stranger's it is: nothing of what was checked, or made here of what was.
    fn unjudged_bytes(&self) -> Option<u64> {
        let is_judged = self.verdict != UNVERIFIED || self.event.is_some();
        (!is_judged).then(|| size(&self.body, self.headers.iter().map(|(name, value)| (name.len(), value.len()))))
    }

    /// As it is stored.
    pub fn incoming(&self) -> Result<Incoming> {
        let (plain, unjudged) = (codec::encode(self)?, self.unjudged_bytes());
        Ok(Incoming { plain, received_at: self.received_at, unjudged })
    }
}

/// A request as it came over the wire: what an [`InboxRequest`] is, without owning any of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Arrived<'a> {
    pub workspace: WorkspaceNo,
    pub webhook_key: &'a str,
    pub received_at: Millis,
    pub method: &'a str,
    pub uri: &'a str,
    /// Text and bytes are stored alike.
    pub headers: &'a [(String, String)],
    #[serde(with = "serde_bytes")]
    pub body: &'a [u8],
    pub verdict: &'a str,
    /// Nothing that came over the wire is a connector's event already.
    pub event: Option<&'a str>,
}

impl Arrived<'_> {
    /// As it is stored.
    pub fn incoming(&self) -> Result<Incoming> {
        let is_judged = self.verdict != UNVERIFIED || self.event.is_some();
        let head = self.headers.iter().map(|(name, value)| (name.len(), value.len()));
        let unjudged = (!is_judged).then(|| size(self.body, head));
        Ok(Incoming { plain: codec::encode(self)?, received_at: self.received_at, unjudged })
    }
}

/// Bytes of a body with its headers.
fn size(body: &[u8], headers: impl Iterator<Item = (usize, usize)>) -> u64 {
    (body.len() + headers.map(|(name, value)| name + value).sum::<usize>()) as u64
}

/// A request made ready for its row, on the thread that has it.
pub struct Incoming {
    plain: Vec<u8>,
    received_at: Millis,
    /// Bytes that only a script can judge.
    unjudged: Option<u64>,
}

impl InboxRow {
    /// A request that has just come in.
    pub fn new(owner: [u8; 12], request: InboxRequest) -> Self {
        let state = InboxState::Waiting { tries: 0 };
        Self { owner, request, log: Vec::new(), state, queued_at: None, is_fresh: true }
    }

    /// When it is due, as it was read from the queue.
    pub fn queued_at(&self) -> Option<Millis> {
        self.queued_at
    }

    /// Whether it has waited since it was taken in: nobody has tried to understand it.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }
}

impl std::ops::Deref for InboxRow {
    type Target = InboxRequest;
    fn deref(&self) -> &InboxRequest {
        &self.request
    }
}

/// The stored form of how far a request has come.
pub(super) fn progress(log: &[String], state: &InboxState, queued_at: Option<Millis>) -> Result<Vec<u8>> {
    codec::encode(&Progress { log: log.into(), state: Cow::Borrowed(state), queued_at })
}

/// owner (12), due (8), sequence (8).
pub(super) fn queue_key(owner: &[u8; 12], due: Millis, seq: Seq) -> Key {
    Key::owner(owner).time(due).seq(seq)
}

/// The id of an inbox row: its sequence, and the first 4 bytes of its owner for reading.
pub fn id(seq: Seq, owner: &[u8; 12]) -> InboxId {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&seq.0.to_be_bytes());
    bytes[8..].copy_from_slice(&owner[8..]);
    InboxId(bytes)
}

pub(super) fn seq_of(id: InboxId) -> Seq {
    Seq(keys::number_at(&id.0, 0).unwrap_or_default())
}

impl Rows {
    /// The row with that id under its owner.
    pub fn inbox_row(&self, owner: &[u8; 12], id: InboxId) -> Result<Option<InboxRow>> {
        let key = Key::owner(owner).seq(seq_of(id));
        match self.open_sealed(owner, Table::Inbox, key.as_ref())? {
            Some(plain) => self.with_progress(owner, key.as_ref(), &plain).map(Some),
            None => Ok(None),
        }
    }

    fn with_progress(&self, owner: &[u8; 12], key: &[u8], plain: &[u8]) -> Result<InboxRow> {
        let progress = self.open_sealed(owner, Table::InboxProgress, key)?;
        let mut row = InboxRow::new(*owner, codec::decode(plain)?);
        if let Some(plain) = progress {
            let progress: Progress<'_> = codec::decode(&plain)?;
            (row.log, row.state) = (progress.log.into_owned(), progress.state.into_owned());
            (row.queued_at, row.is_fresh) = (progress.queued_at, false);
        }
        Ok(row)
    }

    /// The first sequence of an owner's rows that wait, if it can be told by looking at `looked_max` of them.
    pub(super) fn inbox_first_waiting(&self, owner: &[u8], looked_max: usize) -> Result<Option<Seq>> {
        let (mut first, mut looked) = (Seq(u64::MAX), 0);
        self.walk_prefix(Table::InboxDue, &Key::new().bytes(owner), |key, _| {
            first = first.min(Seq(keys::number_at(key, 20).unwrap_or_default()));
            looked += 1;
            Ok(looked < looked_max)
        })?;
        Ok((looked < looked_max).then_some(first))
    }

    /// Bytes of webhooks that no script has judged yet.
    pub fn unverified_bytes(&self) -> u64 {
        self.unverified.load(Ordering::Relaxed)
    }

    /// Counts them anew, since a commit that failed was counted too.
    pub(super) fn count_unverified(&self) -> Result<()> {
        let mut total = 0;
        self.walk(Table::Unjudged, &[], &[u8::MAX; 32], Walk::Forward, |_, value| {
            total += keys::number_at(value, 0).unwrap_or_default();
            Ok(true)
        })?;
        self.unverified.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Up to `limit` webhooks that were received before `before` and that no script has judged, each with all its rows.
    pub(super) fn unjudged_before(&self, before: Millis, limit: usize) -> Result<Vec<Vec<(Table, Vec<u8>)>>> {
        let mut found = Vec::new();
        self.walk(Table::Unjudged, &[], &[u8::MAX; 32], Walk::Forward, |key, value| {
            if keys::number_at(value, 8).is_some_and(|at| Millis(at) < before) {
                found.push(key.to_vec());
            }
            Ok(found.len() < limit)
        })?;
        found.into_iter().map(|key| self.rows_of_inbox(key)).collect()
    }

    fn rows_of_inbox(&self, key: Vec<u8>) -> Result<Vec<(Table, Vec<u8>)>> {
        let owner: [u8; 12] = codec::fixed("unjudged", key.get(..12).unwrap_or_default())?;
        let seq = Seq(keys::number_at(&key, 12).unwrap_or_default());
        let told = self.raw(Table::Unjudged, &key)?.unwrap_or_default();
        // Those that the first versions took in are due since they were received.
        let fresh_at = keys::number_at(&told, 16).or(keys::number_at(&told, 8)).map(Millis);
        let row = self.inbox_row(&owner, id(seq, &owner))?;
        let queued_at = row.and_then(|row| if row.is_fresh { fresh_at } else { row.queued_at });
        let queued = queued_at.map(|at| (Table::InboxDue, queue_key(&owner, at, seq).as_ref().to_vec()));
        let rows = [Table::Unjudged, Table::Inbox, Table::InboxProgress].map(|table| (table, key.clone()));
        Ok(rows.into_iter().chain(queued).collect())
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
            let row = self.with_progress(owner, key, &plain)?;
            rows.push((id(Seq(keys::number_at(key, 12).unwrap_or_default()), owner), row));
            Ok(rows.len() < limit)
        })?;
        Ok(rows)
    }
}

impl Tx<'_> {
    /// Takes a request in; it is due from now on. The time of the commit is what counts, not the one at which it was
    /// received: so whoever has seen one that is due knows of all that came before it.
    pub fn put_inbox(&mut self, owner: &[u8; 12], request: &Incoming) -> Result<InboxId> {
        let seq = self.next_seq()?;
        self.put_sealed(owner, Table::Inbox, Key::owner(owner).seq(seq), &request.plain)?;
        self.put_raw(Table::InboxDue, queue_key(owner, self.now(), seq), &[])?;
        if let Some(bytes) = request.unjudged {
            self.rows.unverified.fetch_add(bytes, Ordering::Relaxed);
            let told = [bytes, request.received_at.0, self.now().0].map(u64::to_be_bytes).concat();
            self.put_raw(Table::Unjudged, Key::owner(owner).seq(seq), &told)?;
        }
        Ok(id(seq, owner))
    }

    /// Writes how far a request has come, as it was read from the queue (one that is not fresh: or by its id); `Waiting`
    /// is tried again at `due`.
    pub fn settle_inbox(&mut self, id: InboxId, row: &InboxRow, due: Millis) -> Result<()> {
        let (seq, owner) = (seq_of(id), &row.owner);
        if let Some(at) = row.queued_at {
            self.delete(Table::InboxDue, queue_key(owner, at, seq))?;
        }
        let queued_at = matches!(row.state, InboxState::Waiting { .. }).then_some(due);
        if let Some(at) = queued_at {
            self.put_raw(Table::InboxDue, queue_key(owner, at, seq), &[])?;
        }
        // A script that failed has judged nothing, also when it will not be asked again.
        if let (InboxState::Done { .. }, Some(bytes)) = (&row.state, row.request.unjudged_bytes()) {
            let less = |total: u64| Some(total.saturating_sub(bytes));
            let _ = self.rows.unverified.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            self.delete(Table::Unjudged, Key::owner(owner).seq(seq))?;
        }
        let plain = progress(&row.log, &row.state, queued_at)?;
        self.put_sealed(owner, Table::InboxProgress, Key::owner(owner).seq(seq), &plain)
    }

    /// Erases all requests of an owner.
    pub(super) fn delete_inbox(&mut self, owner: &[u8; 12]) -> Result<()> {
        for table in [Table::Inbox, Table::InboxProgress, Table::InboxDue, Table::Unjudged] {
            self.delete_prefix(table, &Key::owner(owner))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_stored_as_it_is_read_again() {
        let headers = vec![("content-type".to_owned(), "application/json; näh".to_owned())];
        let arrived = Arrived {
            workspace: WorkspaceNo(3),
            webhook_key: "orders",
            received_at: Millis(1_700_000_000_000),
            method: "POST",
            uri: "/in/g/token/orders?a=1",
            headers: &headers,
            body: b"{\"id\":1}\xff",
            verdict: UNVERIFIED,
            event: None,
        };
        let incoming = arrived.incoming().unwrap();
        let read: InboxRequest = codec::decode(&incoming.plain).unwrap();
        assert_eq!((read.body.as_slice(), read.uri.as_str()), (arrived.body, arrived.uri));
        assert_eq!(read.headers, [("content-type".to_owned(), "application/json; näh".as_bytes().to_vec())]);
        let again = read.incoming().unwrap();
        assert_eq!((again.plain, again.unjudged), (incoming.plain, incoming.unjudged));
        assert!(incoming.unjudged.is_some());
    }
}
