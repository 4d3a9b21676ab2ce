//! `POST /one/connections`: an account is connected, or connected again.
//!
//! Always true: connection, credentials, webhook token and `connection/created` are one commit.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::change;
use super::prepare::{self, Prepared};
use super::shape::{ConnectionView, Fresh, NewConnection, OneConnection, Viewer};
use crate::actors::watcher::account::integration_parameters;
use crate::api::call::{Call, not_found, user_of};
use crate::api::parameters::Split;
use crate::api::reply::Reply;
use crate::api::{connectors, integrations};
use crate::connectors::{Connector, ConnectorEvent, Parameters};
use crate::domain::connection::{
    Connection, ConnectionStatus, EventSwitch, InitialSync, Integration, Remap, Reselect, WebhookState,
};
use crate::domain::id::{ConnectionId, IntegrationId, UserId, WorkspaceNo};
use crate::domain::models::system::{Subject, SystemEvent};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::domain::workspace::User;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot, Tx};

/// Everything that the commit writes.
struct Plan {
    /// As a new one would be; its id is not drawn yet.
    blank: Connection,
    user: User,
    split: Split,
    credentials: Secret,
    token: String,
    /// Settings that were asked for, not defaults: only these change a connection that is there.
    asked: NewConnection,
    collections: Option<Vec<String>>,
    /// Events that are switched on for a new one.
    events: Vec<EventSwitch>,
}

/// An account that a user connects in the browser.
pub(in crate::api) struct ByUser {
    pub(in crate::api) user: UserId,
    pub(in crate::api) integration: Option<IntegrationId>,
    /// The connector's key.
    pub(in crate::api) connector: String,
    /// As the API takes them.
    pub(in crate::api) credentials: Map<String, Value>,
    /// What the user gave.
    pub(in crate::api) parameters: Parameters,
    /// What the app itself told.
    pub(in crate::api) told: Parameters,
}

/// Connects an account for a user. Unlike a caller of the API, who may know that an app is down, a person is told at
/// once when the app does not take what was given.
pub(in crate::api) async fn by_user(call: &Call, workspace: WorkspaceNo, wish: ByUser) -> Result<ConnectionId> {
    let asked = NewConnection {
        user_id: wish.user.to_string(),
        integration_id: wish.integration.map(|id| id.to_string()),
        connector: Some(wish.connector),
        credentials: wish.credentials,
        parameters: wish.parameters,
        poll_interval_seconds: None,
        full_scan_interval_seconds: None,
        initial_sync: None,
        remap: None,
        collections: None,
    };
    let viewer = super::viewer(call);
    let plan = plan(call, workspace, asked, Some(wish.told)).await?;
    let id = call.state.store.change(move |tx| put(tx, &viewer, plan).map(|(id, _)| id)).await?;
    call.state.rings.owners_changed();
    call.state.rings.owner(id.0);
    Ok(id)
}

pub(super) async fn create(call: Call) -> Result<Reply> {
    let asked = call.json::<NewConnection>()?;
    let viewer = super::viewer(&call);
    let workspace = call.workspace()?;
    let plan = plan(&call, workspace, asked, None).await?;
    let change = move |tx: &mut Tx<'_>| {
        let (id, connection) = put(tx, &viewer, plan)?;
        Ok((Reply::json(&OneConnection { connection })?, id))
    };
    let (reply, id) = call.change(change).await?;
    call.state.rings.owners_changed();
    call.state.rings.owner(id.0);
    Ok(reply)
}

/// Whom and what a call names.
struct Parties {
    workspace: WorkspaceNo,
    integration: Option<String>,
    user: String,
}

impl Parties {
    /// The integration that is meant with its parameters, and the user.
    fn find(&self, rows: &Rows) -> Result<(Option<(Integration, Parameters)>, User)> {
        let user = user_of(rows, self.workspace, &self.user)?;
        let Some(text) = &self.integration else { return Ok((None, user)) };
        let missing = || not_found(Code::IntegrationNotFound, text);
        let id = text.parse().map_err(|_| missing())?;
        let integration = rows.integration(self.workspace, id)?.ok_or_else(missing)?;
        let parameters = integration_parameters(rows, &integration)?;
        Ok((Some((integration, parameters)), user))
    }
}

/// `by_user`: a user stands before it, and the app told these parameters.
async fn plan(
    call: &Call,
    workspace: WorkspaceNo,
    mut asked: NewConnection,
    by_user: Option<Parameters>,
) -> Result<Plan> {
    let wanted = Parties { workspace, integration: asked.integration_id.clone(), user: asked.user_id.clone() };
    let (found, user) = call.read(move |rows| wanted.find(rows)).await?;
    let (integration, mut all) = found.map_or((None, Parameters::new()), |(integration, all)| (Some(integration), all));
    let connector = connector(call, &asked, integration.as_ref())?;
    asked.poll_interval_seconds = prepare::interval(call, "pollIntervalSeconds", asked.poll_interval_seconds)?;
    asked.full_scan_interval_seconds =
        prepare::interval(call, "fullScanIntervalSeconds", asked.full_scan_interval_seconds)?;
    let mut split = prepare::lay(&connector, &Split::default(), &asked.parameters)?;
    if let Some(told) = &by_user {
        split.lay(&connector, told)?;
    }
    all.extend(split.whole());
    let credentials = prepare::credentials(std::mem::take(&mut asked.credentials))?;
    let prepared: Prepared = prepare::join(call, &connector, &all, credentials)?;
    let collections = prepare::collections(&prepared.connector, asked.collections.take())?;
    let events = default_events(&prepared.connector);
    let (app, category) = (prepared.connector.name.clone(), prepared.connector.category.clone());
    let credentials = prepared.credentials.to_text();
    let account = match by_user {
        None => prepare::account(&call.state.deps, prepared).await,
        Some(_) => prepare::account_told(&call.state.deps, prepared).await?,
    };
    let now = call.now();
    let blank = Connection {
        id: ConnectionId([0; 12]),
        workspace,
        user: user.id,
        integration: integration.map(|integration| integration.id),
        connector: connector.key.clone(),
        app,
        category,
        parameters: split.open_text(),
        account,
        poll_interval_seconds: asked.poll_interval_seconds,
        full_scan_interval_seconds: asked.full_scan_interval_seconds,
        initial_sync: asked.initial_sync.map_or(InitialSync::Baseline, Into::into),
        remap: asked.remap.map_or(Remap::Silent, Into::into),
        collections: collections.clone(),
        status: ConnectionStatus::Active,
        webhook: WebhookState::Wanted { tries: 0 },
        created_at: now,
        updated_at: now,
    };
    Ok(Plan { blank, user, split, credentials, token: integrations::token()?, asked, collections, events })
}

/// The events that every account gets. Their selectors are asked for by the first look at it; until then they match none.
fn default_events(connector: &Connector) -> Vec<EventSwitch> {
    let switch = |event: &ConnectorEvent| EventSwitch {
        event: event.key.clone(),
        parameters: Value::Object(event.parameters.defaults()).to_string(),
        webhook_key: String::new(),
        selector: String::new(),
    };
    connector.events.iter().filter(|event| event.default).map(switch).collect()
}

fn connector(call: &Call, asked: &NewConnection, integration: Option<&Integration>) -> Result<Arc<Connector>> {
    match (integration, &asked.connector) {
        (Some(integration), None) => connectors::find(call, &integration.connector, Code::Invalid),
        (Some(integration), Some(key)) if *key == integration.connector => connectors::find(call, key, Code::Invalid),
        (Some(_), Some(_)) => {
            Err(Error::invalid("connector: the integration is one of another connector; leave `connector` out"))
        }
        (None, Some(key)) => connectors::find(call, key, Code::Invalid),
        (None, None) => Err(Error::invalid("integrationId: name an integration, or a `connector`")),
    }
}

fn put(tx: &mut Tx<'_>, viewer: &Viewer, plan: Plan) -> Result<(ConnectionId, ConnectionView)> {
    let Plan { blank, user, split, credentials, token, asked, collections, events } = plan;
    // Either may have been deleted since they were looked up.
    user_of(tx, blank.workspace, &user.id.to_string())?;
    if let Some(id) = blank.integration {
        integrations::find(tx, blank.workspace, id)?;
    }
    let now = tx.now();
    let known = match tx.rival(&blank)? {
        Some(id) => tx.connection(blank.workspace, ConnectionId(id))?,
        None => None,
    };
    let is_new = known.is_none();
    let before = known.clone();
    let connection = match known {
        None => Connection { id: ConnectionId(tx.fresh_id()?), created_at: now, updated_at: now, ..blank },
        Some(known) => again(known, blank, &asked, collections, now),
    };
    tx.put_object(&connection)?;
    let id = connection.id;
    split.put_secret(tx, &id.0)?;
    tx.put_secret_text(&id.0, Slot::Credentials, &credentials)?;
    let mut fresh = Fresh { parameters: Some(split), token: None };
    if connection.integration.is_some() && before.as_ref().is_none_or(|before| before.integration.is_none()) {
        for switch in &events {
            tx.put_event_switch(id, switch)?;
            tx.put_reselect(id, &Reselect { asked_at: now, tries: 0, due_at: now })?;
        }
    }
    let told = if is_new {
        tx.put_secret(&id.0, Slot::WebhookTokens, &vec![token.clone()])?;
        tx.put_token(&token, &id.0)?;
        fresh.token = Some(token);
        SystemEvent::ConnectionCreated((&connection).into())
    } else {
        tx.ask_reselect(id)?;
        if let Some(before) = &before {
            change::bring_forward(tx, before, &connection, viewer, true)?;
        }
        SystemEvent::ConnectionUpdated { connection: (&connection).into(), changed: vec!["credentials".to_owned()] }
    };
    tx.append_event(&told.event(Subject::Connection(&connection, Some(&user)), now))?;
    let view = viewer.view(tx, &connection, fresh)?;
    Ok((id, view))
}

/// A connection that is there, connected again: new credentials and parameters, and what else was asked for.
fn again(
    known: Connection,
    blank: Connection,
    asked: &NewConnection,
    collections: Option<Vec<String>>,
    now: Millis,
) -> Connection {
    Connection {
        integration: blank.integration.or(known.integration),
        app: blank.app,
        category: blank.category,
        parameters: blank.parameters,
        account: blank.account,
        poll_interval_seconds: asked.poll_interval_seconds.or(known.poll_interval_seconds),
        full_scan_interval_seconds: asked.full_scan_interval_seconds.or(known.full_scan_interval_seconds),
        initial_sync: asked.initial_sync.map_or(known.initial_sync, Into::into),
        remap: asked.remap.map_or(known.remap, Into::into),
        collections: collections.or(known.collections),
        status: ConnectionStatus::Active,
        updated_at: now,
        ..known
    }
}
