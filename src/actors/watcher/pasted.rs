//! Webhook addresses that a person pasted into an app: when ours change, nobody but a person can change them there.
//!
//! Always true: what is remembered of an address is a hash, since it holds a token; `webhook/url-changed` is told in the
//! commit that remembers the new one, so once per change; an address that was never told before is not a change. Not
//! here: those that are registered by us (`hook`).

use std::sync::Arc;

use url::Url;

use super::account::Account;
use super::hook::PASTED;
use crate::actors::Deps;
use crate::connectors::journal;
use crate::domain::connection::{Connection, Integration, WebhookState};
use crate::domain::models::system::{Paste, Subject, SystemEvent};
use crate::error::Result;
use crate::store::keys::hash16;

/// What is remembered of an address.
pub fn mark(base: &Url, token: &str) -> [u8; 16] {
    hash16(format!("{}/{token}", trimmed(base)).as_bytes())
}

fn trimmed(base: &Url) -> &str {
    base.as_str().trim_end_matches('/')
}

/// Tells of a connection's own webhook whose address is another one now.
pub async fn connection(deps: &Deps, account: &Arc<Account>, base: &Url, token: &str) -> Result<()> {
    let (id, workspace) = (account.connection.id, account.connection.workspace);
    let fresh = mark(base, token);
    let Some(hook) = &account.connector().webhook else { return Ok(()) };
    if deps.store.pasted(&id.0)? == Some(fresh) {
        return Ok(());
    }
    let uri = format!("{}/in/c/{token}", trimmed(base));
    let what = SystemEvent::WebhookUrlChanged {
        integration: None,
        connection: Some(id),
        connector: account.connection.connector.clone(),
        webhooks: vec![Paste { key: None, name: hook.name.clone(), uri }],
    };
    let user = account.user.clone();
    let change = deps.store.change(move |tx| {
        let Some(connection) = tx.connection(workspace, id)? else { return Ok(()) };
        if tx.pasted(&id.0)?.is_some_and(|former| former != fresh) {
            tx.append_event(&what.event(Subject::Connection(&connection, user.as_ref()), tx.now()))?;
        }
        tx.put_pasted(&id.0, &fresh)
    });
    change.await
}

/// The same for an integration's global webhooks.
pub async fn integration(deps: &Deps, integration: &Integration) -> Result<()> {
    let Some(base) = &deps.public_url else { return Ok(()) };
    let id = integration.id;
    let Some(token) = deps.store.webhook_tokens(&id.0)?.into_iter().next() else { return Ok(()) };
    let fresh = mark(base, &token);
    if deps.store.pasted(&id.0)? == Some(fresh) {
        return Ok(());
    }
    let connector = deps.connectors.get(&integration.connector);
    let hooks = connector.as_ref().map(|connector| connector.global_webhooks.as_slice()).unwrap_or_default();
    let (base, read) = (trimmed(base), super::journal::keys(deps, integration)?);
    let webhooks: Vec<Paste> = (hooks.iter().filter(|hook| !read.contains(&hook.key)))
        .map(|hook| Paste {
            key: Some(hook.key.clone()),
            name: hook.name.clone(),
            uri: format!("{base}/in/g/{token}/{}", hook.key),
        })
        .collect();
    let is_any = !webhooks.is_empty();
    if !is_any && !read.is_empty() {
        // The app pushes nothing while its journal is read; the former address is told of when it does again.
        return Ok(());
    }
    let connector = integration.connector.clone();
    let what = SystemEvent::WebhookUrlChanged { integration: Some(id), connection: None, connector, webhooks };
    let change = deps.store.change(move |tx| {
        let Some(integration) = tx.object_anywhere::<Integration>(&id.0)? else { return Ok(()) };
        if is_any && tx.pasted(&id.0)?.is_some_and(|former| former != fresh) {
            tx.append_event(&what.event(Subject::Integration(&integration), tx.now()))?;
        }
        tx.put_pasted(&id.0, &fresh)
    });
    change.await
}

/// Whether a connection's webhook leads to another address than ours, as far as its rows tell: it is looked at at once.
pub fn is_behind(deps: &Deps, connection: &Connection) -> Result<bool> {
    let id = connection.id.0;
    Ok(match (&deps.public_url, &connection.webhook) {
        // It has nothing to do with our address.
        (_, WebhookState::Registered { uri, .. }) if journal::key_of(uri).is_some() => false,
        (None, WebhookState::Registered { .. }) => true,
        (Some(base), WebhookState::Registered { uri, .. }) => !uri.starts_with(&format!("{}/in/c/", trimmed(base))),
        (Some(base), WebhookState::None { reason }) if reason == PASTED => differs(deps, &id, base)?,
        _ => false,
    })
}

/// The same for an integration.
pub fn is_integration_behind(deps: &Deps, integration: &Integration) -> Result<bool> {
    let id = integration.id.0;
    match &deps.public_url {
        // One that was made before addresses were remembered.
        Some(_) if deps.store.pasted(&id)?.is_none() => Ok(true),
        Some(base) => differs(deps, &id, base),
        None => Ok(false),
    }
}

fn differs(deps: &Deps, owner: &[u8; 12], base: &Url) -> Result<bool> {
    let Some(former) = deps.store.pasted(owner)? else { return Ok(false) };
    let token = deps.store.webhook_tokens(owner)?.into_iter().next();
    Ok(token.is_some_and(|token| mark(base, &token) != former))
}
