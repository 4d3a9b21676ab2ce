//! `PATCH /one/connections/{id}`: settings, credentials, and whether it runs.
//!
//! Always true: the connection stays the one account it is; `connection/updated` names what changed, in the same commit;
//! what would not work is refused before it is stored. Not here: making one (`make`).

use std::time::Duration;

use super::collections::{self, wanted};
use super::prepare;
use super::shape::{ChangedConnection, Fresh, OneConnection, StatusWord};
use super::{find, id_of, viewer};
use crate::api::call::Call;
use crate::api::connectors;
use crate::api::parameters::Split;
use crate::api::reply::Reply;
use crate::connectors::Credentials;
use crate::domain::connection::{Connection, ConnectionStatus};
use crate::domain::models::system::{Subject, SystemEvent};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot, Tx};

/// What is laid over the connection.
struct Patch {
    asked: ChangedConnection,
    /// As it was when this was checked.
    found: Connection,
    checked: Option<Checked>,
}

/// What was checked together, since each depends on the others.
struct Checked {
    split: Split,
    credentials: Option<Secret>,
    account: Option<String>,
    collections: Option<Vec<String>>,
    app: String,
}

pub(super) async fn change(call: Call) -> Result<Reply> {
    let (mut asked, workspace, id) = (call.json::<ChangedConnection>()?, call.workspace()?, id_of(&call)?);
    for (field, wish) in [
        ("pollIntervalSeconds", &asked.poll_interval_seconds),
        ("fullScanIntervalSeconds", &asked.full_scan_interval_seconds),
    ] {
        prepare::interval(&call, field, wish.flatten())?;
    }
    let found = call.read(move |rows| find(rows, workspace, id)).await?;
    let touches = asked.credentials.is_some() || asked.parameters.is_some() || asked.collections.is_some();
    let checked = if touches { Some(check(&call, &found, &mut asked).await?) } else { None };
    let (viewer, patch) = (viewer(&call), Patch { asked, found, checked });
    let change = move |tx: &mut Tx<'_>| {
        let (connection, fresh) = put(tx, patch, &viewer)?;
        let connection = viewer.view(tx, &connection, fresh)?;
        Ok((Reply::json(&OneConnection { connection })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.owners_changed();
    call.state.rings.owner(id.0);
    Ok(reply)
}

async fn check(call: &Call, found: &Connection, asked: &mut ChangedConnection) -> Result<Checked> {
    let connector = connectors::find(call, &found.connector, Code::Invalid)?;
    let (wanted, given) = (found.clone(), asked.parameters.clone().unwrap_or_default());
    let base = connector.clone();
    let read = move |rows: &Rows| {
        let stored = Split::stored(rows, &wanted.id.0, &wanted.parameters)?;
        let split = prepare::lay(&base, &stored, &given)?;
        let all = collections::parameters(rows, &wanted, &split)?;
        Ok((split, all, rows.credentials(&wanted.id.0)?))
    };
    let (split, all, stored) = call.read(read).await?;
    let fresh = asked.credentials.take().map(prepare::credentials).transpose()?;
    let given_anew = fresh.as_ref().map(Credentials::to_text);
    let credentials = match (fresh, stored) {
        (Some(fresh), _) => fresh,
        (None, Some(stored)) => Credentials::from_text(stored.expose()).map_err(Error::internal)?,
        (None, None) => Credentials::Integration { session: None },
    };
    let prepared = prepare::join(call, &connector, &all, credentials)?;
    let names = match asked.collections.take() {
        None => found.collections.clone(),
        Some(wish) => prepare::collections(&prepared.connector, wish)?,
    };
    let app = prepared.connector.name.clone();
    let account = match given_anew.is_some() || asked.parameters.is_some() {
        true => prepare::account(&call.state.deps, prepared).await,
        false => None,
    };
    if let (Some(before), Some(now)) = (&found.account, &account)
        && before != now
    {
        let message = "credentials: they open another account of the app; connect that one with POST /one/connections";
        return Err(Error::invalid(message));
    }
    Ok(Checked { split, credentials: given_anew, account, collections: names, app })
}

fn put(tx: &mut Tx<'_>, patch: Patch, viewer: &super::Viewer) -> Result<(Connection, Fresh)> {
    let Patch { asked, found, checked } = patch;
    let (before, now) = (find(tx, found.workspace, found.id)?, tx.now());
    let mut after = before.clone();
    let mut changed: Vec<&str> = Vec::new();
    let mut fresh = Fresh::default();
    if let Some(checked) = checked {
        if before.parameters != found.parameters {
            return Err(Error::new(Code::Conflict, "the connection was changed meanwhile; ask again"));
        }
        if let Some(credentials) = &checked.credentials {
            tx.put_secret_text(&after.id.0, Slot::Credentials, credentials)?;
            changed.push("credentials");
            if matches!(after.status, ConnectionStatus::AuthFailed { .. }) {
                after.status = ConnectionStatus::Active;
            }
        }
        if asked.parameters.is_some() {
            checked.split.put_secret(tx, &after.id.0)?;
            changed.push("parameters");
            after.parameters = checked.split.open_text();
        }
        after.app = checked.app;
        after.account = checked.account.or(after.account);
        after.collections = checked.collections;
        fresh.parameters = Some(checked.split);
        refuse_rival(tx, &after)?;
    }
    lay(&asked, &mut after);
    let mut note = |name: &'static str, differs: bool| changed.extend(differs.then_some(name));
    note("pollIntervalSeconds", before.poll_interval_seconds != after.poll_interval_seconds);
    note("fullScanIntervalSeconds", before.full_scan_interval_seconds != after.full_scan_interval_seconds);
    note("initialSync", before.initial_sync != after.initial_sync);
    note("remap", before.remap != after.remap);
    note("collections", before.collections != after.collections);
    note("status", before.status != after.status);
    if changed.is_empty() {
        return Ok((before, fresh));
    }
    after.updated_at = now;
    tx.put_object(&after)?;
    if changed.iter().any(|name| ["credentials", "parameters"].contains(name)) {
        tx.ask_reselect(after.id)?;
    }
    bring_forward(tx, &before, &after, viewer, changed.contains(&"credentials"))?;
    let user = tx.user_by_id(after.workspace, after.user)?;
    let changed = changed.into_iter().map(str::to_owned).collect();
    let told = SystemEvent::ConnectionUpdated { connection: (&after).into(), changed };
    tx.append_event(&told.event(Subject::Connection(&after, user.as_ref()), now))?;
    Ok((after, fresh))
}

/// Lays the plain settings over a connection.
fn lay(asked: &ChangedConnection, to: &mut Connection) {
    to.poll_interval_seconds = asked.poll_interval_seconds.unwrap_or(to.poll_interval_seconds);
    to.full_scan_interval_seconds = asked.full_scan_interval_seconds.unwrap_or(to.full_scan_interval_seconds);
    to.initial_sync = asked.initial_sync.map_or(to.initial_sync, Into::into);
    to.remap = asked.remap.map_or(to.remap, Into::into);
    match asked.status {
        None => {}
        Some(StatusWord::Paused) => to.status = ConnectionStatus::Paused,
        // One that cannot work as it is set up is judged again by the watcher.
        Some(StatusWord::Active) => to.status = ConnectionStatus::Active,
    }
}

fn refuse_rival(rows: &Rows, connection: &Connection) -> Result<()> {
    let Some(first) = rows.rival(connection)? else { return Ok(()) };
    let first = crate::domain::id::ConnectionId(first);
    let message = format!("connection {first} is this account of this user already; change that one");
    Err(Error::new(Code::Conflict, message))
}

/// Times that were set by a longer interval come forward; with new credentials the app is asked at once.
pub(super) fn bring_forward(
    tx: &mut Tx<'_>,
    before: &Connection,
    after: &Connection,
    viewer: &super::Viewer,
    at_once: bool,
) -> Result<()> {
    let shorter = |before: Option<u32>, after: Option<u32>| {
        after.filter(|after| before.is_none_or(|before| *after < before)).map(|s| Duration::from_secs(s.into()))
    };
    let pull = shorter(before.poll_interval_seconds, after.poll_interval_seconds);
    let pull = if at_once { Some(Duration::ZERO) } else { pull };
    let scan = shorter(before.full_scan_interval_seconds, after.full_scan_interval_seconds);
    if pull.is_none() && scan.is_none() {
        return Ok(());
    }
    let split = Split::stored(tx, &after.id.0, &after.parameters)?;
    let Some(connector) = collections::connector(&viewer.deps, tx, after, &split)? else { return Ok(()) };
    let keys: Vec<String> = wanted(after, &connector).map(|c| c.key.clone()).collect();
    let now = tx.now();
    let sooner = |at: Option<Millis>, interval: Option<Duration>| match (at, interval) {
        (Some(at), Some(interval)) => Some(at.min(now.after(interval))),
        (at, _) => at,
    };
    for key in keys {
        let mut state = tx.collection_state(after.id, &key)?;
        let times = (sooner(state.next_pull_at, pull), sooner(state.next_scan_at, scan));
        // While it fails, the back-off decides.
        if (at_once || state.failures == 0) && times != (state.next_pull_at, state.next_scan_at) {
            (state.next_pull_at, state.next_scan_at) = times;
            tx.put_collection_state(after.id, &key, &state)?;
        }
    }
    Ok(())
}
