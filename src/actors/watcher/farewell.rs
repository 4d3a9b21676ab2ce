//! Taking a connection's webhook away at its app, and its token back, after the connection was deleted.
//!
//! Always true: what is needed for it is kept in the commit that deletes the connection, so that a crash loses nothing;
//! an app's failure is kept with it, logged, and tried again with growing waits, a bounded number of times. Meanwhile the
//! app's webhooks find nothing here. Not here: who deletes a connection (`api::cascade`).

use std::sync::Arc;

use serde_json::Value;

use super::account::{Account, Opened, given_parameters};
use super::hook;
use crate::actors::Deps;
use crate::connectors::{CallError, Credentials, journal};
use crate::domain::connection::{Connection, Farewell, WebhookState};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Rows, Slot, Tx};

/// Tries, over about 15 hours.
pub const TRIES_MAX: u32 = 10;
/// Connections read at a time.
const CONNECTIONS_STEP: usize = 250;

/// Deletes a connection with what it owns; what takes its webhook away and its token back stays.
///
/// # Errors
/// The store's alone.
pub fn leave(tx: &mut Tx<'_>, gone: &Connection) -> Result<()> {
    let id = gone.id.0;
    let credentials = tx.credentials(&id)?;
    let has_token = credentials
        .as_ref()
        .is_some_and(|text| matches!(Credentials::from_text(text.expose()), Ok(Credentials::Token(_))));
    if !matches!(gone.webhook, WebhookState::Registered { .. }) && !has_token {
        return tx.erase_connection(gone);
    }
    let parameters = Secret::new(Value::Object(given_parameters(tx, gone)?).to_string());
    let kept = [
        (Slot::Parameters, Some(parameters)),
        (Slot::Credentials, credentials),
        (Slot::WebhookState, tx.webhook_state(&id)?),
    ];
    tx.erase_connection(gone)?;
    let now = tx.now();
    // Its integration may be deleted too, so its parameters are among those that are kept. What is at a journal may be
    // another connection's as well, which is found by the integration.
    let integration = gone.integration.filter(|_| journal_of(gone).is_some());
    let connection = Connection { integration, parameters: String::new(), ..gone.clone() };
    tx.put_object(&Farewell { connection, tries: 0, due_at: now, error: String::new() })?;
    for (slot, text) in kept {
        if let Some(text) = text {
            tx.put_secret_text(&id, slot, &text)?;
        }
    }
    Ok(())
}

/// The journal that a connection is registered at.
fn journal_of(connection: &Connection) -> Option<&str> {
    match &connection.webhook {
        WebhookState::Registered { uri, .. } => journal::key_of(uri),
        WebhookState::None { .. } | WebhookState::Wanted { .. } => None,
    }
}

/// Whether another user's connection of the same account is registered at the same journal: it still needs what is there.
async fn is_shared(deps: &Deps, gone: &Connection) -> Result<bool> {
    let (Some(integration), Some(_), Some(account)) = (gone.integration, journal_of(gone), gone.account.clone()) else {
        return Ok(false);
    };
    let (id, place) = (gone.id, gone.webhook.clone());
    let same = move |other: &Connection| {
        let is_there = match (&other.webhook, &place) {
            (WebhookState::Registered { uri, .. }, WebhookState::Registered { uri: place, .. }) => uri == place,
            _ => false,
        };
        other.id != id && is_there && other.account.as_deref() == Some(account.as_str())
    };
    let look = move |rows: &Rows| {
        let mut before: Option<Vec<u8>> = None;
        loop {
            let page = rows.children::<Connection>(&integration.0, before.as_deref(), CONNECTIONS_STEP)?;
            if page.items.iter().any(&same) {
                return Ok(true);
            }
            match page.next {
                Some(next) => before = Some(next),
                None => return Ok(false),
            }
        }
    };
    deps.store.blocking(look).await
}

/// Does what is due; answers when to try again.
pub async fn say(deps: &Deps, mut farewell: Farewell) -> Result<Option<Millis>> {
    let now = deps.clock.now();
    if farewell.due_at > now {
        return Ok(Some(farewell.due_at));
    }
    let id = farewell.connection.id;
    let Err(error) = part(deps, &farewell.connection).await? else {
        deps.store.change(move |tx| tx.delete_object(&farewell)).await?;
        return Ok(None);
    };
    farewell.tries = farewell.tries.saturating_add(1);
    if farewell.tries >= TRIES_MAX {
        tracing::warn!(connection = %id, error, "the webhook or token of a deleted connection stays at its app");
        deps.store.change(move |tx| tx.delete_object(&farewell)).await?;
        return Ok(None);
    }
    tracing::info!(connection = %id, error, tries = farewell.tries, "a webhook or token could not be taken away");
    let due_at = deps.clock.now().after(hook::wait(farewell.tries));
    (farewell.due_at, farewell.error) = (due_at, error);
    deps.store.change(move |tx| tx.put_object(&farewell)).await?;
    Ok(Some(due_at))
}

/// Asks the app; its failure is a sentence. What was done by an earlier try counts as done again.
async fn part(deps: &Deps, connection: &Connection) -> Result<std::result::Result<(), String>> {
    let account: Arc<Account> = match Account::open(deps, connection.clone())? {
        Opened::Ready(account) => account,
        Opened::Wrong(why) => {
            // A token alone is worth no further try: it ends by itself.
            let registered = matches!(connection.webhook, WebhookState::Registered { .. });
            return Ok(if registered { Err(why) } else { Ok(()) });
        }
    };
    if let WebhookState::Registered { uri, .. } = &connection.webhook
        && !is_shared(deps, connection).await?
    {
        let state = deps.store.webhook_state(&connection.id.0)?.unwrap_or_else(|| Secret::new("null"));
        let answer = account.call(deps, || account.session.unsubscribe(uri, state.expose())).await?;
        if let Err(error) = answer {
            return Ok(Err(error.to_string()));
        }
    }
    if !account.connector().revokes(&account.session.credentials()) {
        return Ok(Ok(()));
    }
    match account.session.revoke().await {
        // The app does not know the token any more, or does not listen to us: asking again changes nothing.
        Ok(()) | Err(CallError::Unauthorized(_) | CallError::Refused { .. } | CallError::NotSupported(_)) => Ok(Ok(())),
        Err(error) => Ok(Err(error.to_string())),
    }
}
