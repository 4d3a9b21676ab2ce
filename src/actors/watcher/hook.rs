//! The life of a connection's own webhook at its app: registered, renewed, registered anew under another URL.
//!
//! Always true: nothing is registered at an app that could not reach us; what the app is told to sign with is only in
//! the encrypted state; a failure is tried again with growing waits and never stops the polls. Not here: what comes in.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::account::Account;
use super::commit::Standing;
use super::told;
use crate::actors::Deps;
use crate::connectors::{CallError, Detection, Subscribed};
use crate::domain::connection::{Connection, WebhookState};
use crate::domain::models::system::{Subject, SystemEvent};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::Slot;

const RETRY_START: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);

/// Why there is no webhook.
const NO_PUBLIC_URL: &str = "no-public-url";
const NO_WEBHOOK: &str = "no-webhook";
/// A person pastes the URL into the app.
const PASTED: &str = "pasted";

/// Does what is due; answers when something is due again.
pub async fn tend(deps: &Deps, account: &Arc<Account>) -> Result<Option<Millis>> {
    let now = deps.clock.now();
    let registers = account.connector().webhook.as_ref().map(|hook| hook.registers());
    // On loopback only an app on the same machine reaches us.
    let reachable = |base: &&Url| !is_loopback(base) || is_loopback(&account.base_uri);
    let wanted = match (registers, deps.public_url.as_ref().filter(reachable)) {
        (None, _) => Err(NO_WEBHOOK),
        (Some(_), None) => Err(NO_PUBLIC_URL),
        (Some(false), Some(_)) => Err(PASTED),
        (Some(true), Some(base)) => Ok(base.clone()),
    };
    let base = match (wanted, &account.connection.webhook) {
        (Err(reason), WebhookState::None { reason: known }) if reason == known => return Ok(None),
        (Err(reason), _) => {
            note(deps, account, WebhookState::None { reason: reason.to_owned() }, None, None).await?;
            return Ok(None);
        }
        (Ok(base), _) => base,
    };
    let token = token(deps, account).await?;
    let uri = format!("{}/in/c/{token}", base.as_str().trim_end_matches('/'));
    match &account.connection.webhook {
        WebhookState::Registered { uri: known, refresh_at, listed_at, .. } if *known == uri => match refresh_at {
            None => Ok(None),
            Some(at) if *at > now => Ok(Some(*at)),
            Some(at) => renew(deps, account, &uri, *at, *listed_at).await,
        },
        WebhookState::Registered { uri: former, .. } => {
            // Our address changed. A registration that cannot be taken away any more only misses us.
            let state = deps.store.webhook_state(&account.connection.id.0)?;
            let state = state.unwrap_or_else(|| Secret::new("null"));
            if let Err(error) = account.call(deps, || account.session.unsubscribe(former, state.expose())).await? {
                tracing::info!(connection = %account.connection.id, %error, "an old webhook could not be taken away");
            }
            register(deps, account, &uri, 0).await
        }
        WebhookState::Wanted { tries } => {
            let tries = *tries;
            let at = account.connection.updated_at.after(wait(tries));
            if tries > 0 && at > now { Ok(Some(at)) } else { register(deps, account, &uri, tries).await }
        }
        WebhookState::None { .. } => register(deps, account, &uri, 0).await,
    }
}

async fn register(deps: &Deps, account: &Arc<Account>, uri: &str, tries: u32) -> Result<Option<Millis>> {
    let secret = Secret::new(random_text()?);
    match account.call(deps, || account.session.subscribe(uri, secret.expose())).await? {
        Ok(subscribed) => registered(deps, account, uri, subscribed).await,
        Err(error) => {
            tracing::info!(connection = %account.connection.id, %error, "a webhook could not be registered");
            let tries = tries.saturating_add(1);
            note(deps, account, WebhookState::Wanted { tries }, None, None).await?;
            Ok(Some(deps.clock.now().after(wait(tries))))
        }
    }
}

async fn renew(deps: &Deps, account: &Arc<Account>, uri: &str, at: Millis, since: Millis) -> Result<Option<Millis>> {
    let renews = account.connector().webhook.as_ref().is_some_and(|hook| hook.renews());
    if !renews {
        return register(deps, account, uri, 0).await;
    }
    let state = deps.store.webhook_state(&account.connection.id.0)?;
    let state = state.unwrap_or_else(|| Secret::new("null"));
    let now = deps.clock.now();
    match account.call(deps, || account.session.refresh_webhook(uri, state.expose())).await? {
        Ok(subscribed) => registered(deps, account, uri, subscribed).await,
        // It is not there any more: make it anew.
        Err(CallError::Refused { status: 404 | 410, .. }) => register(deps, account, uri, 0).await,
        Err(error) => {
            // It is renewed by half of its life, so there is as much time again.
            let life = at.since(since);
            let (retry, ends) = (now.after(wait(1)), at.after(life));
            let state = WebhookState::Registered {
                uri: uri.to_owned(),
                state: String::new(),
                refresh_at: Some(retry),
                listed_at: Millis(retry.0.saturating_sub(ends.since(retry).as_millis().try_into().unwrap_or(0))),
            };
            let told = expiring(account, &error, ends);
            note(deps, account, state, None, Some(told)).await?;
            Ok(Some(retry))
        }
    }
}

async fn registered(deps: &Deps, account: &Arc<Account>, uri: &str, new: Subscribed) -> Result<Option<Millis>> {
    let at = new.refresh_at;
    let state = WebhookState::Registered {
        uri: uri.to_owned(),
        state: String::new(),
        refresh_at: at,
        listed_at: deps.clock.now(),
    };
    let secret = Secret::new(new.state);
    if note(deps, account, state, Some(secret.clone()), None).await? == Standing::Gone {
        // The connection was deleted while the app was asked, so nobody else knows of this webhook.
        if let Err(error) = account.call(deps, || account.session.unsubscribe(uri, secret.expose())).await? {
            tracing::info!(connection = %account.connection.id, %error, "a webhook could not be taken away");
        }
        return Ok(None);
    }
    Ok(at)
}

fn expiring(account: &Account, error: &CallError, ends: Millis) -> SystemEvent {
    let by_webhook =
        |d: &crate::connectors::spec::Detects| [d.created, d.updated, d.deleted].contains(&Detection::Webhook);
    let topics = account.connector().collections.iter().filter(|c| by_webhook(&c.detects)).map(|c| c.topic.clone());
    SystemEvent::WebhookExpiring {
        connection: account.connection.id,
        connector: account.connection.connector.clone(),
        topics: topics.collect(),
        expires_at: ends,
        error: told::fault(error),
    }
}

/// Writes how the webhook stands.
async fn note(
    deps: &Deps,
    account: &Arc<Account>,
    webhook: WebhookState,
    state: Option<Secret>,
    told: Option<SystemEvent>,
) -> Result<Standing> {
    let (id, workspace, user) = (account.connection.id, account.connection.workspace, account.user.clone());
    deps.store
        .change(move |tx| {
            let Some(connection) = tx.connection(workspace, id)? else { return Ok(Standing::Gone) };
            let now = tx.now();
            let connection = Connection { webhook, updated_at: now, ..connection };
            tx.put_object(&connection)?;
            if let Some(state) = &state {
                tx.put_secret_text(&id.0, Slot::WebhookState, state)?;
            }
            if let Some(what) = told {
                tx.append_event(&what.event(Subject::Connection(&connection, user.as_ref()), now))?;
            }
            Ok(Standing::There)
        })
        .await
}

/// The token in the connection's own webhook URL; made where there is none.
async fn token(deps: &Deps, account: &Account) -> Result<String> {
    let id = account.connection.id.0;
    if let Some(token) = deps.store.webhook_tokens(&id)?.into_iter().next() {
        return Ok(token);
    }
    let fresh = random_text()?;
    deps.store
        .change(move |tx| {
            if let Some(token) = tx.webhook_tokens(&id)?.into_iter().next() {
                return Ok(token);
            }
            tx.put_secret(&id, Slot::WebhookTokens, &vec![fresh.clone()])?;
            tx.put_token(&fresh, &id)?;
            Ok(fresh)
        })
        .await
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// 24 random bytes as text for URLs and secrets.
fn random_text() -> Result<String> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::internal("the system gives no random bytes"))?;
    Ok(hex::encode(bytes))
}

/// How long to wait after so many tries.
pub fn wait(tries: u32) -> Duration {
    RETRY_START.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(RETRY_MAX)
}
