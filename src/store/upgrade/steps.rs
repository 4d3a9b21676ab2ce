//! The numbered steps, oldest first: `STEPS[0]` leads from version 1 to 2.
//!
//! Always true: a released step is never changed, except that when its row's struct changes again, the struct that it
//! writes becomes a frozen copy here. A struct that is only read by a step is a frozen copy too, beside the step. Values
//! are positional: a field that is added at the end of a row is added by its bytes. Not here: how steps are run
//! (`upgrade`).

use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::super::codec;
use super::super::due::{Due, Place, Turn};
use super::super::inbox::{self, InboxRequest, InboxState};
use super::super::keys::{self, Key};
use super::super::registry::Entity;
use super::super::rows::Rows;
use super::super::tables::Table;
use super::Step;
use super::pass::Pass;
use crate::domain::id::{EventId, Seq, WorkspaceNo};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::Result;

/// All of them.
pub(super) const STEPS: &[Step] = &[
    Step { from: 1, name: "write webhooks once, and let lanes care for records", run: second },
    Step { from: 2, name: "let subscriptions write into destinations", run: third },
];

/// What subscriptions have more: neither ordered nor coalesced, no rate, no filter, no hook.
const SUBSCRIPTION_2: [u8; 5] = [0; 5];
/// What they have more since: no destination, and the first shape.
const SUBSCRIPTION_3: [u8; 2] = [0; 2];

/// A webhook as version 1 wrote it, with how far it had come.
#[derive(Serialize, Deserialize)]
pub(super) struct InboxRow1 {
    pub workspace: WorkspaceNo,
    pub owner: [u8; 12],
    pub webhook_key: String,
    pub received_at: Millis,
    pub method: String,
    pub uri: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub verdict: String,
    pub event: Option<String>,
    pub log: Vec<String>,
    pub state: InboxState1,
}

#[derive(Serialize, Deserialize)]
pub(super) enum InboxState1 {
    Waiting { tries: u32 },
    Done { at: Millis, events: Vec<EventId>, handed_to: Vec<[u8; 12]>, note: String },
    Parked { at: Millis, reason: String },
}

impl From<InboxState1> for InboxState {
    fn from(state: InboxState1) -> Self {
        match state {
            InboxState1::Waiting { tries } => Self::Waiting { tries },
            InboxState1::Done { at, events, handed_to, note } => Self::Done { at, events, handed_to, note },
            InboxState1::Parked { at, reason } => Self::Parked { at, reason },
        }
    }
}

fn second(pass: &mut Pass<'_>) -> Result<()> {
    pass.each(Table::Objects, &Key::new().u8(Subscription::KIND), |rows, key, value, batch| {
        batch.put_cf(rows.cf(Table::Objects)?, key, [value, &SUBSCRIPTION_2].concat());
        Ok(())
    })?;
    pass.each(Table::Inbox, &Key::new(), split_webhook)?;
    // Its keys get longer, so one that this step has written is told by its length.
    pass.each(Table::InboxDue, &Key::new(), |rows, key, value, batch| {
        if let (20, Some(due)) = (key.len(), keys::number_at(value, 0)) {
            let owner: [u8; 12] = codec::fixed("inbox_due", key.get(..12).unwrap_or_default())?;
            let seq = Seq(keys::number_at(key, 12).unwrap_or_default());
            let table = rows.cf(Table::InboxDue)?;
            batch.delete_cf(table, key);
            batch.put_cf(table, inbox::queue_key(&owner, Millis(due), seq), []);
        }
        Ok(())
    })?;
    pass.each(Table::Queue, &Key::new(), name_owed)
}

fn third(pass: &mut Pass<'_>) -> Result<()> {
    pass.each(Table::Objects, &Key::new().u8(Subscription::KIND), |rows, key, value, batch| {
        batch.put_cf(rows.cf(Table::Objects)?, key, [value, &SUBSCRIPTION_3].concat());
        Ok(())
    })
}

/// A webhook's row becomes two: the request, and how far it has come.
fn split_webhook(rows: &Rows, key: &[u8], sealed: &[u8], batch: &mut WriteBatch) -> Result<()> {
    let owner: [u8; 12] = codec::fixed("inbox", key.get(..12).unwrap_or_default())?;
    let old: InboxRow1 = codec::decode(&rows.vault.open(&owner, Table::Inbox, key, sealed)?)?;
    let due = rows.raw(Table::InboxDue, key)?;
    let queued_at = due.and_then(|value| keys::number_at(&value, 0)).map(Millis);
    let request = InboxRequest {
        workspace: old.workspace,
        webhook_key: old.webhook_key,
        received_at: old.received_at,
        method: old.method,
        uri: old.uri,
        headers: old.headers,
        body: old.body,
        verdict: old.verdict,
        event: old.event,
    };
    let progress = inbox::progress(&old.log, &old.state.into(), queued_at)?;
    for (table, plain) in [(Table::Inbox, codec::encode(&request)?), (Table::InboxProgress, progress)] {
        batch.put_cf(rows.cf(table)?, key, rows.vault.seal(&owner, table, key, &plain)?);
    }
    Ok(())
}

/// The value of a queue row says what it means, where it was two bare numbers: the event, and when it was asked for.
fn name_owed(rows: &Rows, key: &[u8], value: &[u8], batch: &mut WriteBatch) -> Result<()> {
    let Some(event) = keys::number_at(value, 0).map(Seq) else { return Ok(()) };
    let turn = match keys::number_at(value, 8) {
        Some(at) => Turn::Again(Millis(at)),
        None => Turn::Retry,
    };
    // Only the value is of interest here; the row stays where it is.
    let due = Due { seq: event, event, turn, place: Place::Parked, record: None };
    batch.put_cf(rows.cf(Table::Queue)?, key, due.value()?);
    Ok(())
}
