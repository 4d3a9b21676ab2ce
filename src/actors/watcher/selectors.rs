//! Selectors of the connector events that are switched on: asked for again when credentials or parameters have changed.
//!
//! Always true: the wish stands in the store until every selector was given, or the app refused a bounded number of times;
//! until then the selectors that were known stay. Not here: switching events on and off (`api`), sorting by selector
//! (`global`).

use std::sync::Arc;

use super::account::{Account, object};
use super::hook;
use crate::actors::Deps;
use crate::connectors::CallError;
use crate::domain::connection::{EventSwitch, Reselect};
use crate::domain::time::Millis;
use crate::error::Result;

/// Tries, over about 15 hours.
const TRIES_MAX: u32 = 10;

/// A switch as it is, and as it shall be.
type Moved = (EventSwitch, EventSwitch);

/// Does what is due; answers when something is due again.
pub async fn tend(deps: &Deps, account: &Arc<Account>) -> Result<Option<Millis>> {
    let (id, workspace) = (account.connection.id, account.connection.workspace);
    let Some(wish) = deps.store.reselect(id)? else { return Ok(None) };
    if wish.due_at > deps.clock.now() {
        return Ok(Some(wish.due_at));
    }
    let (mut moved, mut failure): (Vec<Moved>, Option<CallError>) = (Vec::new(), None);
    for switch in deps.store.event_switches(id)? {
        match ask(deps, account, &switch).await? {
            Ok(fresh) if fresh != switch => moved.push((switch, fresh)),
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    let tries = wish.tries.saturating_add(1);
    let again = failure.map(|error| {
        tracing::info!(connection = %id, %error, tries, "a selector could not be asked for again");
        Reselect { tries, due_at: deps.clock.now().after(hook::wait(tries)), ..wish.clone() }
    });
    let again = again.filter(|_| tries < TRIES_MAX);
    let next = again.as_ref().map(|again| again.due_at);
    let change = deps.store.change(move |tx| {
        // Deleted meanwhile, or changed once more.
        if tx.connection(workspace, id)?.is_none() || tx.reselect(id)? != Some(wish) {
            return Ok(false);
        }
        let known = tx.event_switches(id)?;
        for (before, after) in moved.iter().filter(|(before, _)| known.contains(before)) {
            tx.delete_event_switch(id, before)?;
            tx.put_event_switch(id, after)?;
        }
        match &again {
            Some(again) => tx.put_reselect(id, again)?,
            None => tx.delete_reselect(id)?,
        }
        Ok(true)
    });
    let stands = change.await?;
    deps.rings.owners_changed();
    Ok(if stands { next } else { Some(deps.clock.now()) })
}

/// The switch with the selector that its connector gives now.
async fn ask(
    deps: &Deps,
    account: &Arc<Account>,
    switch: &EventSwitch,
) -> Result<std::result::Result<EventSwitch, CallError>> {
    let parameters = object(&switch.parameters)?;
    let answer = account.call(deps, || account.session.event_selector(&switch.event, &parameters)).await?;
    Ok(answer.map(|selector| EventSwitch {
        webhook_key: selector.webhook_key,
        selector: selector.selector,
        ..switch.clone()
    }))
}
