//! A connection's own webhook, or what an app's journal needs of it: how it stands at the app, and what a person must do
//! for it.
//!
//! Always true: no secret is in it; the instructions are the connector's, filled in for this connection. Not here: making
//! it (`actors::watcher::hook`), what came (`inbox`).

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::collections;
use super::shape::Viewer;
use crate::actors::watcher::hook::{NO_PUBLIC_URL, NOT_SET_UP};
use crate::api::call::Call;
use crate::api::parameters::Split;
use crate::connectors::{Connector, Parameters};
use crate::domain::connection::{Connection, Registration, WebhookState};
use crate::domain::id::{ConnectionId, WorkspaceNo};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Rows;

/// A connection's own webhook at the app.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct RegistrationView {
    /// `registering`; `registered`; `failed` (see `error`: it is tried again, and changes are polled meanwhile); `to-paste`
    /// (see `instructions`: nothing has come yet); `pasted` (something has); `off` (see `reason`).
    status: &'static str,
    /// Where the app sends it; to be pasted where the status says so. Null where the app keeps a journal that is read.
    uri: Option<String>,
    /// Why it is off: `no-public-url` (the app cannot reach the node), `not-set-up` (see `error`).
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What a person must do in the app: plain text, a step per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    /// The last failure to make, renew or find it; gone after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    failed_at: Option<String>,
    registered_at: Option<String>,
    /// When it was last seen at the app: made, renewed, or asked for.
    seen_at: Option<String>,
    /// When it is renewed, asked for, or tried again.
    next_at: Option<String>,
    /// When the app stops unless it is renewed, as far as it is known.
    expires_at: Option<String>,
    last_webhook_at: Option<String>,
}

/// What a person must do, for the page at the end of a visit.
pub(in crate::api) struct ToPaste {
    pub(in crate::api) instructions: String,
}

/// The webhook as it stands; None: the connector has none of a connection's own, and no journal is read.
pub(super) fn view(
    viewer: &Viewer,
    rows: &Rows,
    connection: &Connection,
    (connector, split): (&Connector, &Split),
    uri: Option<&str>,
) -> Result<Option<RegistrationView>> {
    let parameters = collections::parameters(rows, connection, split)?;
    let whole = Value::Object(with_defaults(connector, &parameters));
    let Some((place, hook)) = connector.registers_at(&whole) else { return Ok(None) };
    let states = rows.collection_states(connection.id)?;
    let last = states.iter().filter_map(|state| state.last_webhook_at).max();
    let row = rows.registration(connection.id)?;
    let lacks = hook.lacks(&whole).map(str::to_owned);
    // What the app keeps in its journal need not reach us.
    let is_public = viewer.deps.public_url.is_some() || place.is_some();
    let (status, reason) = match (&connection.webhook, lacks.is_some()) {
        (WebhookState::Registered { .. }, _) if hook.pastes() && last.is_none() => ("to-paste", None),
        (WebhookState::Registered { .. }, _) if row.failures > 0 => ("failed", None),
        (WebhookState::Registered { .. }, _) => ("registered", None),
        (_, _) if !is_public => ("off", Some(NO_PUBLIC_URL)),
        (_, true) => ("off", Some(NOT_SET_UP)),
        (WebhookState::Wanted { tries: 0 }, _) if hook.registers() => ("registering", None),
        (WebhookState::Wanted { tries }, _) if hook.registers() && *tries > 0 => ("failed", None),
        (WebhookState::None { reason }, _) if reason == NO_PUBLIC_URL && place.is_none() => {
            ("off", Some(NO_PUBLIC_URL))
        }
        (_, _) if hook.registers() => ("registering", None),
        (_, _) if last.is_some() => ("pasted", None),
        _ => ("to-paste", None),
    };
    let missing = lacks.map(|name| format!("the parameter {name} is not set"));
    let error = Some(row.error.clone()).filter(|error| !error.is_empty());
    let registered_at = match &connection.webhook {
        WebhookState::Registered { listed_at, .. } => Some(*listed_at),
        WebhookState::None { .. } | WebhookState::Wanted { .. } => None,
    };
    let time = |at: Option<Millis>| at.map(Millis::rfc3339_millis);
    let Registration { expires_at, seen_at, due_at, failed_at, .. } = row;
    Ok(Some(RegistrationView {
        status,
        uri: uri.map(str::to_owned),
        reason,
        instructions: uri.and_then(|uri| instructions(connector, uri, &parameters)),
        error: error.or(missing),
        failed_at: time(failed_at),
        registered_at: time(registered_at),
        seen_at: time(seen_at),
        next_at: time(due_at),
        expires_at: time(expires_at),
        last_webhook_at: time(last),
    }))
}

fn with_defaults(connector: &Connector, given: &Parameters) -> Parameters {
    let mut all = connector.parameters.defaults();
    all.extend(given.clone());
    all
}

fn instructions(connector: &Connector, uri: &str, parameters: &Parameters) -> Option<String> {
    let instructions = connector.webhook.as_ref()?.instructions.as_ref()?;
    Some(instructions.fill(uri, parameters, &connector.parameters))
}

/// What a person must still do in the app for a connection that was just made. None: nothing, or it would lead nowhere.
pub(in crate::api) async fn to_paste(call: &Call, workspace: WorkspaceNo, id: ConnectionId) -> Result<Option<ToPaste>> {
    let viewer = super::viewer(call);
    let read = move |rows: &Rows| {
        if viewer.deps.public_url.is_none() {
            return Ok(None);
        }
        let Some(connection) = rows.connection(workspace, id)? else { return Ok(None) };
        let split = Split::stored(rows, &id.0, &connection.parameters)?;
        let Some(connector) = collections::connector(&viewer.deps, rows, &connection, &split)? else {
            return Ok(None);
        };
        let Some(token) = rows.webhook_tokens(&id.0)?.into_iter().next() else { return Ok(None) };
        let parameters = collections::parameters(rows, &connection, &split)?;
        let uri = format!("{}/in/c/{token}", viewer.base);
        Ok(instructions(&connector, &uri, &parameters).map(|instructions| ToPaste { instructions }))
    };
    call.read(read).await
}
