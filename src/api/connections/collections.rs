//! A connection's collections, and how the changes of each are noticed at the moment.
//!
//! Always true: a webhook counts only where it can arrive; otherwise the way that stands in for it is named, with the
//! reason. Not here: when a collection is looked at (`actors::watcher`).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::actors::Deps;
use crate::actors::watcher::account::integration_parameters;
use crate::actors::watcher::hook::PASTED;
use crate::actors::watcher::standing::tells;
use crate::api::connectors::DetectsView;
use crate::api::parameters::Split;
use crate::connectors::{Collection, Connector, Detection, Parameters};
use crate::domain::connection::{CollectionState, Connection, EventSwitch, WebhookState};
use crate::error::Result;
use crate::store::Rows;

/// What the engine knows of one kind of record of a connection.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CollectionView {
    key: String,
    topic: String,
    /// How each kind of change is noticed now.
    detects: DetectsView,
    /// Why a webhook that the connector has does not count: `no-public-url`, `pasted` (its URL must be pasted into the
    /// app), `not-set-up` (see `webhook`), `registering`, `registration-failed`, or `event-off` (see `POST …/events`).
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Records in the snapshot.
    records: u64,
    /// How far the changes have been read, in the app's time.
    cursor: Option<String>,
    /// When the first sync was complete.
    baseline_at: Option<String>,
    last_pull_at: Option<String>,
    next_pull_at: Option<String>,
    last_scan_at: Option<String>,
    next_scan_at: Option<String>,
    last_webhook_at: Option<String>,
    /// Failures in a row.
    failures: u32,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Deletions that wait for another full scan, or for approval.
    held: usize,
}

/// The parameters of a connection with its integration's.
pub(super) fn parameters(rows: &Rows, connection: &Connection, split: &Split) -> Result<Parameters> {
    let integration = match connection.integration {
        Some(id) => rows.integration(connection.workspace, id)?,
        None => None,
    };
    let mut all = match &integration {
        Some(integration) => integration_parameters(rows, integration)?,
        None => Parameters::new(),
    };
    all.extend(split.whole());
    Ok(all)
}

/// The connection's connector, specialised. None: it is no longer on this node, or cannot be used as it is set up.
pub(super) fn connector(
    deps: &Deps,
    rows: &Rows,
    connection: &Connection,
    split: &Split,
) -> Result<Option<Arc<Connector>>> {
    let Some(connector) = deps.connectors.get(&connection.connector) else { return Ok(None) };
    if !connector.is_templated() {
        return Ok(Some(connector));
    }
    let given = parameters(rows, connection, split)?;
    Ok(connector.specialise(&given).ok())
}

/// The collections that the connection wants.
pub(super) fn wanted<'a>(
    connection: &'a Connection,
    connector: &'a Connector,
) -> impl Iterator<Item = &'a Collection> + 'a {
    let wanted = connection.collections.as_ref();
    connector.collections.iter().filter(move |c| wanted.is_none_or(|wanted| wanted.contains(&c.key)))
}

pub(super) fn views(
    deps: &Deps,
    rows: &Rows,
    connection: &Connection,
    connector: &Connector,
    switches: &[EventSwitch],
) -> Result<Vec<CollectionView>> {
    let view = |c: &Collection| {
        let state = rows.collection_state(connection.id, &c.key)?;
        let listens = switches.iter().any(|s| listens(connector, s, c));
        Ok(view(c, state, (connection, connector), deps.public_url.is_some(), listens))
    };
    wanted(connection, connector).map(view).collect()
}

fn listens(connector: &Connector, switch: &EventSwitch, c: &Collection) -> bool {
    // One whose selector is not known yet hears nothing.
    let of = connector.event(&switch.event).filter(|_| !switch.webhook_key.is_empty());
    of.and_then(|event| event.collection.as_ref()).is_some_and(|of| of.may_be(&c.key))
}

fn view(
    c: &Collection,
    state: CollectionState,
    (connection, connector): (&Connection, &Connector),
    is_public: bool,
    listens: bool,
) -> CollectionView {
    let heard = state.last_webhook_at.is_some();
    let hook = connector.webhook.as_ref().filter(|hook| !tells(hook, &connection.webhook, heard));
    let own = hook.map(|_| why_not_own(&connection.webhook));
    let global = match (heard, is_public, listens) {
        (true, ..) | (_, true, true) => None,
        (_, false, _) => Some("no-public-url"),
        (_, true, false) => Some("event-off"),
    };
    let mut reason = None;
    let mut now = |way: Detection, deletions: bool| {
        let why_not = match way {
            Detection::Webhook => own.clone(),
            Detection::GlobalWebhook => global.map(str::to_owned),
            Detection::Pull | Detection::FullScan | Detection::NotSupported => return way.as_str(),
        };
        if why_not.is_none() {
            return way.as_str();
        }
        reason.clone_from(&why_not);
        stand_in(c, deletions)
    };
    let created = now(c.detects.created, false);
    let updated = now(c.detects.updated, false);
    let deleted = now(c.detects.deleted, true);
    let time = |at: Option<crate::domain::time::Millis>| at.map(crate::domain::time::Millis::rfc3339_millis);
    CollectionView {
        key: c.key.clone(),
        topic: c.topic.clone(),
        detects: DetectsView { created, updated, deleted },
        reason,
        records: state.records,
        cursor: state.cursor.map(|cursor| cursor.time.rfc3339_millis()),
        baseline_at: time(state.baseline_at),
        last_pull_at: time(state.last_pull_at),
        next_pull_at: time(state.next_pull_at),
        last_scan_at: time(state.last_scan_at),
        next_scan_at: time(state.next_scan_at),
        last_webhook_at: time(state.last_webhook_at),
        failures: state.failures,
        error: Some(state.error).filter(|error| !error.is_empty()),
        held: state.held.len(),
    }
}

/// Why the connection's own webhook tells nothing.
fn why_not_own(webhook: &WebhookState) -> String {
    let why = match webhook {
        WebhookState::None { reason } => reason,
        WebhookState::Registered { .. } => PASTED,
        WebhookState::Wanted { tries: 0 } => "registering",
        WebhookState::Wanted { .. } => "registration-failed",
    };
    why.to_owned()
}

/// How changes are noticed where no webhook comes. Deletions show in full scans, or in a list of the app's own.
fn stand_in(c: &Collection, deletions: bool) -> &'static str {
    let by_pull = if deletions { c.lists_deleted() || c.flags_deleted() } else { c.pulls() };
    match (by_pull, c.scans()) {
        (true, _) => Detection::Pull.as_str(),
        (false, true) => Detection::FullScan.as_str(),
        (false, false) => Detection::NotSupported.as_str(),
    }
}
