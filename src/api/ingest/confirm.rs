//! A handshake that wants an address to be called: kept on disk, so that a crash does not lose it, and answered at once.
//!
//! Always true: one per owner, the newest; the address was judged by the connector's list before it comes here. Not here:
//! calling it (`actors::watcher::confirm`).

use url::Url;

use super::door::Door;
use crate::api::state::State;
use crate::domain::connection::{CONFIRM_WITHIN, Confirmation};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Slot;

/// Keeps the address, and wakes whoever calls it.
pub async fn remember(state: &State, door: &Door, address: Url, now: Millis) -> Result<()> {
    let (owner, workspace) = (door.owner, door.workspace);
    let change = state.store.change(move |tx| {
        for former in tx.children::<Confirmation>(&owner, None, 1)?.items {
            tx.delete_object(&former)?;
        }
        let id = tx.fresh_id()?;
        let until = now.after(CONFIRM_WITHIN);
        tx.put_object(&Confirmation { id, owner, workspace, due_at: now, until, tries: 0 })?;
        tx.put_secret_text(&id, Slot::WebhookState, &Secret::new(address.as_str()))
    });
    change.await?;
    state.rings.owner(owner);
    Ok(())
}
