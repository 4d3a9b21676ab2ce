//! The queue of webhooks that wait: by owner, then by when they are due.
//!
//! Always true: what is settled stands in it no more, so a start finds what waits without scanning the rest. Not here: the
//! webhooks themselves, and how they get in and out (`inbox`).

use super::codec;
use super::inbox::{InboxRow, id, queue_key, seq_of};
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use crate::domain::id::{InboxId, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

/// Bodies read in one step, after which no further row joins it.
const STEP_BYTES_MAX: usize = 8 << 20;

/// Rows that are due, and when the next one is.
type Due = (Vec<(InboxId, InboxRow)>, Option<Millis>);

impl Rows {
    /// Up to `limit` rows (and about 8 MiB) of an owner that are due, the longest due first, and when the next one is due.
    /// Nothing is due before `from`: what was settled since is not walked over.
    pub fn inbox_due(&self, owner: &[u8; 12], from: Millis, now: Millis, limit: usize) -> Result<Due> {
        self.due_from(owner, Key::owner(owner).time(from).as_ref(), now, limit)
    }

    /// The rows of an owner that are due and stand in the queue behind this one (when it is due, and its id).
    pub fn inbox_due_after(
        &self,
        owner: &[u8; 12],
        (due, last): (Millis, InboxId),
        now: Millis,
        limit: usize,
    ) -> Result<Vec<(InboxId, InboxRow)>> {
        let mut start = queue_key(owner, due, seq_of(last)).as_ref().to_vec();
        start.push(0);
        Ok(self.due_from(owner, &start, now, limit)?.0)
    }

    fn due_from(&self, owner: &[u8; 12], start: &[u8], now: Millis, limit: usize) -> Result<Due> {
        let (mut found, mut next) = (Vec::new(), None);
        let end = Key::owner(owner).end();
        self.walk(Table::InboxDue, start, &end, Walk::Forward, |key, _| {
            let at = Millis(keys::number_at(key, 12).unwrap_or_default());
            if at > now {
                next = Some(at);
                return Ok(false);
            }
            found.push((id(Seq(keys::number_at(key, 20).unwrap_or_default()), owner), at));
            Ok(found.len() < limit)
        })?;
        let (mut due, mut bytes) = (Vec::new(), 0);
        for (id, at) in found {
            let Some(mut row) = self.inbox_row(owner, id)? else { continue };
            row.queued_at = Some(at);
            bytes += row.body.len();
            due.push((id, row));
            if bytes > STEP_BYTES_MAX {
                break;
            }
        }
        Ok((due, next))
    }

    /// Owners with rows that wait, each with the earliest time it is due.
    pub fn inbox_owners(&self) -> Result<Vec<([u8; 12], Millis)>> {
        let mut owners: Vec<([u8; 12], Millis)> = Vec::new();
        let mut from = Vec::new();
        loop {
            let before = owners.len();
            self.walk(Table::InboxDue, &from, &[u8::MAX; 32], Walk::Forward, |key, _| {
                let owner = codec::fixed("inbox_due", key.get(..12).unwrap_or_default())?;
                owners.push((owner, Millis(keys::number_at(key, 12).unwrap_or_default())));
                Ok(false)
            })?;
            match owners.last() {
                Some((owner, _)) if owners.len() > before => from = Key::owner(owner).end(),
                _ => return Ok(owners),
            }
        }
    }
}
