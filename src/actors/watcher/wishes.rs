//! What an app asks to be erased while its connection does nothing else: paused, or its credentials are refused. A shop asks
//! for that 48 hours after it took the app away, when no credentials are good any more (Shopify, `shop/redact`).
//!
//! Always true: only what asks for an erasure is settled, in the commit that makes the erasure; everything else waits for
//! the connection; the app is not asked anything. Not here: webhooks of a connection that works (`inbox`).

use serde_json::value::RawValue;

use super::account::{Account, Opened};
use super::commit::{Commit, Standing, Wish};
use crate::actors::Deps;
use crate::domain::connection::Connection;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{InboxRow, InboxState};

/// Webhooks looked at in one commit.
const ROWS_MAX: usize = 250;
/// Commits of one look: others want their turn.
const ROUNDS_MAX: usize = 20;

/// Makes the erasures that waiting webhooks ask for; answers when to look again, if not all have been looked at.
pub async fn grant(deps: &Deps, connection: Connection) -> Result<Option<Millis>> {
    let owner = connection.id.0;
    let Opened::Ready(account) = Account::open(deps, connection)? else { return Ok(None) };
    let now = deps.clock.now();
    for _ in 0..ROUNDS_MAX {
        let rows = deps.store.inbox_due_after(&owner, deps.memory.wishes_from(&owner), now, ROWS_MAX)?;
        let Some(last) = rows.last().and_then(|(id, row)| Some((row.queued_at()?, *id))) else { return Ok(None) };
        let mut commit = Commit::default();
        for (id, mut row) in rows {
            let Some(wish) = wish(&account, &row) else { continue };
            row.state = InboxState::Done { at: now, events: Vec::new(), handed_to: Vec::new(), note: String::new() };
            commit.erase.push((wish, id));
            commit.inbox.push((id, row, now));
        }
        if !commit.inbox.is_empty() && commit.run(deps, &account).await? == Standing::Gone {
            return Ok(None);
        }
        deps.memory.wishes_read(owner, last);
    }
    Ok(Some(now))
}

fn wish(account: &Account, row: &InboxRow) -> Option<Wish> {
    let event = row.event.as_ref()?;
    let payload: &RawValue = serde_json::from_slice(&row.body).ok()?;
    let change = account.session.event_change(event, payload).ok()??;
    Wish::of(account.connector(), &change)
}
