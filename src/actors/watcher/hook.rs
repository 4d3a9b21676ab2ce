//! The life of a connection's own webhook at its app: registered, renewed, asked after each day, registered anew when the
//! app has dropped it or our address has changed, and taken away when it can no longer reach us.
//!
//! Always true: nothing is registered at an app that could not reach us; what the app is told to sign with is only in
//! the encrypted state, and the door learns of it with the commit that stores it; a failure is told with the connection,
//! tried again with growing waits, and never stops the polls; a registration that stands at the app is not forgotten
//! while its renewal fails. Not here: what comes in (`inbox`), a deleted connection's (`farewell`), the row (`standing`).

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::account::Account;
use super::commit::Standing;
use super::standing::{self, Note, expiring, note};
use super::{fields, pasted};
use crate::actors::Deps;
use crate::connectors::spec::OwnWebhook;
use crate::connectors::{CallError, Subscribed, journal};
use crate::domain::connection::{Registration, WebhookState};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::Slot;

const RETRY_START: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);

/// Why there is no webhook.
pub const NO_PUBLIC_URL: &str = "no-public-url";
const NO_WEBHOOK: &str = "no-webhook";
/// A parameter that it needs is not set.
pub const NOT_SET_UP: &str = "not-set-up";
/// A person pastes the URL into the app.
pub const PASTED: &str = "pasted";

/// Where an app tells of changes.
enum Place {
    /// At our address.
    Here(Url),
    /// In its own journal, which is read: see `journal`.
    Journal(String),
}

/// A registration as the connection's row has it.
struct Held<'a> {
    uri: &'a str,
    renew_at: Option<Millis>,
    since: Millis,
}

/// Does what is due; answers when something is due again.
pub async fn tend(deps: &Deps, account: &Arc<Account>) -> Result<Option<Millis>> {
    let wanted = wanted(deps, account);
    let leads_here = wanted.as_ref().map_or_else(|reason| *reason == PASTED, |_| true);
    let pastes = account.connector().webhook.as_ref().is_some_and(OwnWebhook::pastes);
    if let (true, Some(base)) = (leads_here && pastes, &deps.public_url) {
        pasted::connection(deps, account, base, &token(deps, account).await?).await?;
    }
    let place = match (wanted, &account.connection.webhook) {
        (Err(reason), WebhookState::None { reason: known }) if reason == known => return Ok(None),
        (Err(reason), former) => {
            if let WebhookState::Registered { uri, .. } = former {
                take_away(deps, account, uri).await?;
            }
            let webhook = WebhookState::None { reason: reason.to_owned() };
            note(deps, account, Note::of(webhook, Registration::default())).await?;
            return Ok(None);
        }
        (Ok(place), _) => place,
    };
    let uri = match place {
        Place::Here(base) => format!("{}/in/c/{}", base.as_str().trim_end_matches('/'), token(deps, account).await?),
        Place::Journal(place) => place,
    };
    let row = deps.store.registration(account.connection.id)?;
    match &account.connection.webhook {
        WebhookState::Registered { uri: known, refresh_at, listed_at, .. } if *known == uri => {
            let held = Held { uri: known, renew_at: *refresh_at, since: *listed_at };
            look_after(deps, account, held, row).await
        }
        WebhookState::Registered { uri: former, .. } => {
            // Our address changed. A registration that cannot be taken away any more only misses us.
            take_away(deps, account, former).await?;
            register(deps, account, &uri, 0).await
        }
        WebhookState::Wanted { tries: 0 } | WebhookState::None { .. } => register(deps, account, &uri, 0).await,
        WebhookState::Wanted { tries } => {
            let updated_at = account.connection.updated_at;
            // Whoever has changed the connection since may have mended it.
            let is_changed = row.failed_at.is_some_and(|failed_at| updated_at > failed_at);
            let at = row.due_at.unwrap_or(updated_at.after(wait(*tries)));
            if at > deps.clock.now() && !is_changed {
                Ok(Some(at))
            } else {
                register(deps, account, &uri, *tries).await
            }
        }
    }
}

/// Where the app shall tell of changes; else why nowhere.
fn wanted(deps: &Deps, account: &Account) -> std::result::Result<Place, &'static str> {
    // On loopback only an app on the same machine reaches us.
    let reachable = |base: &&Url| !is_loopback(base) || is_loopback(&account.base_uri);
    let (place, hook) = account.registers_at().ok_or(NO_WEBHOOK)?;
    if let Some(journal) = place {
        return Ok(Place::Journal(journal));
    }
    let base = deps.public_url.as_ref().filter(reachable).ok_or(NO_PUBLIC_URL)?;
    match hook.lacks(account.session.parameters()) {
        Some(_) => Err(NOT_SET_UP),
        None if hook.registers() => Ok(Place::Here(base.clone())),
        None => Err(PASTED),
    }
}

/// Renews a registration, or asks whether it is still there, when that is due.
async fn look_after(deps: &Deps, account: &Arc<Account>, held: Held<'_>, row: Registration) -> Result<Option<Millis>> {
    let Some(hook) = account.hook() else { return Ok(None) };
    let now = deps.clock.now();
    match due(account, hook, &held, &row) {
        None => return Ok(None),
        Some(at) if at > now => return Ok(Some(at)),
        Some(_) => {}
    }
    let must_renew = held.renew_at.is_some_and(|at| at <= now);
    if must_renew || !hook.checks() {
        renew(deps, account, held, row).await
    } else {
        check(deps, account, held, row).await
    }
}

/// When a registration is to be looked after.
fn due(account: &Account, hook: &OwnWebhook, held: &Held<'_>, row: &Registration) -> Option<Millis> {
    if row.failures > 0 {
        return row.due_at;
    }
    let daily = (hook.checks() || hook.renews())
        .then(|| row.seen_at.unwrap_or(held.since).after(standing::day_of(account.connection.id)));
    held.renew_at.into_iter().chain(daily).min()
}

async fn register(deps: &Deps, account: &Arc<Account>, uri: &str, tries: u32) -> Result<Option<Millis>> {
    let secret = Secret::new(random_text()?);
    let answer = match prepared(deps, account, uri).await? {
        Ok(()) => account.call(deps, || account.session.subscribe(uri, secret.expose())).await?,
        Err(error) => Err(error),
    };
    match answer {
        Ok(subscribed) => registered(deps, account, uri, subscribed).await,
        Err(error) => {
            tracing::info!(connection = %account.connection.id, %error, "a webhook could not be registered");
            let tries = tries.saturating_add(1);
            let due_at = deps.clock.now().after(wait(tries));
            let row = Registration { failures: tries, due_at: Some(due_at), ..failed(&error, Registration::default()) };
            note(deps, account, Note::of(WebhookState::Wanted { tries }, row)).await?;
            Ok(Some(due_at))
        }
    }
}

/// A journal may have to be told which fields matter: they are read before. What cannot be read is left out, unless it
/// may be read in a moment.
async fn prepared(deps: &Deps, account: &Account, uri: &str) -> Result<std::result::Result<(), CallError>> {
    if journal::key_of(uri).is_none() {
        return Ok(Ok(()));
    }
    for c in super::look::wanted(account) {
        match fields::ready(deps, account, c).await? {
            Err(
                error @ (CallError::RateLimited { .. } | CallError::Unavailable { .. } | CallError::Unauthorized(_)),
            ) => {
                return Ok(Err(error));
            }
            Err(error) => tracing::info!(collection = c.key, %error, "the journal will not tell of a collection"),
            Ok(()) => {}
        }
    }
    Ok(Ok(()))
}

/// Asks the app whether the registration is still there.
async fn check(deps: &Deps, account: &Arc<Account>, held: Held<'_>, row: Registration) -> Result<Option<Millis>> {
    let state = state(deps, account)?;
    let answer = match prepared(deps, account, held.uri).await? {
        Ok(()) => account.call(deps, || account.session.has_webhook(held.uri, state.expose())).await?,
        Err(error) => Err(error),
    };
    match answer {
        Ok(true) => {
            let row = Registration { expires_at: row.expires_at, told: row.told, ..Registration::default() };
            seen(deps, account, held, row).await
        }
        Ok(false) => {
            tracing::info!(connection = %account.connection.id, "the app has dropped a webhook: it is made anew");
            register(deps, account, held.uri, 0).await
        }
        Err(error) => not_kept(deps, account, held, row, &error).await,
    }
}

/// Nothing has changed but that it was seen.
async fn seen(deps: &Deps, account: &Arc<Account>, held: Held<'_>, row: Registration) -> Result<Option<Millis>> {
    let row = Registration { seen_at: Some(deps.clock.now()), ..row };
    let Some(hook) = account.hook() else { return Ok(None) };
    let next = due(account, hook, &held, &row);
    let row = Registration { due_at: next, ..row };
    note(deps, account, Note { webhook: None, row, state: None, told: None }).await?;
    Ok(next)
}

async fn renew(deps: &Deps, account: &Arc<Account>, held: Held<'_>, row: Registration) -> Result<Option<Millis>> {
    let renews = account.hook().is_some_and(OwnWebhook::renews);
    let answer = match prepared(deps, account, held.uri).await? {
        Ok(()) if renews => {
            let state = state(deps, account)?;
            account.call(deps, || account.session.refresh_webhook(held.uri, state.expose())).await?
        }
        Ok(()) => {
            let secret = Secret::new(random_text()?);
            account.call(deps, || account.session.subscribe(held.uri, secret.expose())).await?
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(subscribed) => registered(deps, account, held.uri, subscribed).await,
        // It is not there any more: make it anew.
        Err(CallError::Refused { status: 404 | 410, .. }) if renews => register(deps, account, held.uri, 0).await,
        Err(error) => not_kept(deps, account, held, row, &error).await,
    }
}

/// The app could not be asked, or did not renew. The registration stands until its time is over.
async fn not_kept(
    deps: &Deps,
    account: &Arc<Account>,
    held: Held<'_>,
    row: Registration,
    error: &CallError,
) -> Result<Option<Millis>> {
    tracing::info!(connection = %account.connection.id, %error, "a webhook could not be renewed or asked for");
    let now = deps.clock.now();
    // It is renewed by half of its life, so there is as much time again.
    let ends = row.expires_at.or(held.renew_at.map(|at| at.after(at.since(held.since))));
    if ends.is_some_and(|ends| ends <= now) {
        return register(deps, account, held.uri, row.failures).await;
    }
    let mut row = failed(error, row);
    row.failures = row.failures.saturating_add(1);
    row.expires_at = ends;
    let most = ends.map_or(RETRY_MAX, |ends| (ends.since(now) / 4).max(RETRY_START));
    let due_at = now.after(wait(row.failures).min(most));
    row.due_at = Some(due_at);
    let told = ends.filter(|ends| !row.told && standing::is_close(&row, held.since, *ends, now));
    let told = told.map(|ends| expiring(account, error, ends));
    row.told |= told.is_some();
    note(deps, account, Note { webhook: None, row, state: None, told }).await?;
    Ok(Some(due_at))
}

fn failed(error: &CallError, row: Registration) -> Registration {
    Registration { error: error.to_string(), ..row }
}

async fn registered(deps: &Deps, account: &Arc<Account>, uri: &str, new: Subscribed) -> Result<Option<Millis>> {
    let now = deps.clock.now();
    let webhook = WebhookState::Registered {
        uri: uri.to_owned(),
        state: String::new(),
        refresh_at: new.refresh_at,
        listed_at: now,
    };
    let expires_at = new.refresh_at.map(|at| at.after(at.since(now)));
    let row = Registration { expires_at, seen_at: Some(now), ..Registration::default() };
    let held = Held { uri, renew_at: new.refresh_at, since: now };
    let next = account.hook().and_then(|hook| due(account, hook, &held, &row));
    let row = Registration { due_at: next, ..row };
    let secret = Secret::new(new.state);
    let written = Note { webhook: Some(webhook), row, state: Some(secret.clone()), told: None };
    if note(deps, account, written).await? == Standing::Gone {
        // The connection was deleted while the app was asked, so nobody else knows of this webhook.
        if let Err(error) = account.call(deps, || account.session.unsubscribe(uri, secret.expose())).await? {
            tracing::info!(connection = %account.connection.id, %error, "a webhook could not be taken away");
        }
        return Ok(None);
    }
    Ok(next)
}

async fn take_away(deps: &Deps, account: &Arc<Account>, uri: &str) -> Result<()> {
    let state = state(deps, account)?;
    if let Err(error) = account.call(deps, || account.session.unsubscribe(uri, state.expose())).await? {
        tracing::info!(connection = %account.connection.id, %error, "an old webhook could not be taken away");
    }
    Ok(())
}

fn state(deps: &Deps, account: &Account) -> Result<Secret> {
    let state = deps.store.webhook_state(&account.connection.id.0)?;
    Ok(state.unwrap_or_else(|| Secret::new("null")))
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
    wait_from(RETRY_START, RETRY_MAX, tries)
}

/// The same from another first wait up to another longest one.
pub fn wait_from(first: Duration, longest: Duration, tries: u32) -> Duration {
    first.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(longest)
}
