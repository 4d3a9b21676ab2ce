//! What calls about connections take and give.
//!
//! Always true: credentials go in and never come out; secret parameters come out as `***`. Not here: what is allowed
//! (`prepare`), how a collection's changes are noticed at the moment (`collections`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::collections::{self, CollectionView};
use super::webhook::{self, RegistrationView};
use crate::actors::Deps;
use crate::api::body;
use crate::api::parameters::Split;
use crate::connectors::Parameters;
use crate::domain::connection::{Connection, ConnectionStatus, EventSwitch, InitialSync, Remap};
use crate::domain::workspace::User;
use crate::error::Result;
use crate::store::Rows;

/// What the first sync of a collection does.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum InitialSyncWord {
    /// Fills the snapshot without events.
    Baseline,
    /// Sends `created` for each record.
    Emit,
}

/// What follows when a connector's mapping has a new version.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RemapWord {
    /// Records are mapped again without events.
    Silent,
    /// What changes by it is told.
    Emit,
}

/// What a caller can make of a connection's status.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StatusWord {
    Active,
    Paused,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewConnection {
    /// Whose account it is: id or username.
    pub(super) user_id: String,
    /// The integration to connect through. This or `connector`.
    #[serde(default)]
    pub(super) integration_id: Option<String>,
    /// The connector's key, where no integration is needed.
    #[serde(default)]
    pub(super) connector: Option<String>,
    /// By kind of auth: `{"accessToken","refreshToken"?,"expiresAt"?}`, `{"apiKey"}`, `{"username","password"}`,
    /// `{"consumerKey","consumerSecret","token","tokenSecret"}`, or nothing.
    #[serde(default)]
    pub(super) credentials: Map<String, Value>,
    /// By the connector's `parametersSchema`.
    #[serde(default)]
    pub(super) parameters: Parameters,
    /// The connector's or the node's own if left out.
    #[serde(default)]
    pub(super) poll_interval_seconds: Option<u32>,
    /// The connector's or the node's own if left out.
    #[serde(default)]
    pub(super) full_scan_interval_seconds: Option<u32>,
    /// `baseline` if left out.
    #[serde(default)]
    pub(super) initial_sync: Option<InitialSyncWord>,
    /// `silent` if left out.
    #[serde(default)]
    pub(super) remap: Option<RemapWord>,
    /// Keys or topics of the collections wanted; all if left out.
    #[serde(default)]
    pub(super) collections: Option<Vec<String>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ChangedConnection {
    /// All of them anew. They resume a connection whose credentials were refused.
    #[serde(default)]
    pub(super) credentials: Option<Map<String, Value>>,
    /// Laid over what is there: null takes a parameter away, `***` leaves a secret.
    #[serde(default)]
    pub(super) parameters: Option<Parameters>,
    /// Null: the connector's or the node's own.
    #[serde(default, deserialize_with = "body::present")]
    #[schemars(with = "Option<u32>")]
    pub(super) poll_interval_seconds: Option<Option<u32>>,
    /// Null: the connector's or the node's own.
    #[serde(default, deserialize_with = "body::present")]
    #[schemars(with = "Option<u32>")]
    pub(super) full_scan_interval_seconds: Option<Option<u32>>,
    /// For collections that were not synced yet.
    #[serde(default)]
    pub(super) initial_sync: Option<InitialSyncWord>,
    #[serde(default)]
    pub(super) remap: Option<RemapWord>,
    /// Null: all.
    #[serde(default, deserialize_with = "body::present")]
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) collections: Option<Option<Vec<String>>>,
    /// `paused` stops polling and keeps webhooks for later, those aside that ask for an erasure; `active` goes on.
    #[serde(default)]
    pub(super) status: Option<StatusWord>,
}

/// Why a connection stands still.
#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorView {
    /// `unauthorized` or `misconfigured`.
    code: &'static str,
    message: String,
    since: String,
}

/// An event of the connector that is switched on.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SwitchView {
    event: String,
    parameters: Parameters,
    webhook_key: String,
    selector: String,
}

/// One user's authorised account at one app.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionView {
    connection_id: String,
    user_id: String,
    username: Option<String>,
    integration_id: Option<String>,
    connector: String,
    app: String,
    category: String,
    /// What identifies the account at the app, if the connector can tell.
    account: Option<String>,
    /// `active`, `paused`, `authFailed` or `error`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    /// The connection's own webhook URL; null if its app has no such webhook.
    webhook_uri: Option<String>,
    /// How that webhook stands at the app, and what must be done for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<RegistrationView>,
    /// Secrets are `***`.
    parameters: Parameters,
    poll_interval_seconds: Option<u32>,
    full_scan_interval_seconds: Option<u32>,
    initial_sync: InitialSyncWord,
    remap: RemapWord,
    collections: Vec<CollectionView>,
    /// Events of the connector that are switched on.
    events: Vec<SwitchView>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct OneConnection {
    pub(super) connection: ConnectionView,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Connections {
    pub(super) connections: Vec<ConnectionView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl From<InitialSyncWord> for InitialSync {
    fn from(word: InitialSyncWord) -> Self {
        match word {
            InitialSyncWord::Baseline => Self::Baseline,
            InitialSyncWord::Emit => Self::Emit,
        }
    }
}

impl From<RemapWord> for Remap {
    fn from(word: RemapWord) -> Self {
        match word {
            RemapWord::Silent => Self::Silent,
            RemapWord::Emit => Self::Emit,
        }
    }
}

/// What a view needs beside the store.
#[derive(Clone)]
pub(super) struct Viewer {
    pub(super) deps: Deps,
    /// Where apps reach the node, without a slash at the end.
    pub(super) base: String,
}

/// What may be newer than the store's rows: a commit reads what was there before it.
#[derive(Default)]
pub(super) struct Fresh {
    pub(super) parameters: Option<Split>,
    pub(super) token: Option<String>,
}

impl Viewer {
    /// The connection as it stands.
    pub(super) fn view(&self, rows: &Rows, connection: &Connection, fresh: Fresh) -> Result<ConnectionView> {
        let id = connection.id;
        let split = match fresh.parameters {
            Some(split) => split,
            None => Split::stored(rows, &id.0, &connection.parameters)?,
        };
        let user: Option<User> = rows.user_by_id(connection.workspace, connection.user)?;
        let connector = collections::connector(&self.deps, rows, connection, &split)?;
        let has_webhook = connector.as_ref().is_some_and(|connector| connector.webhook.is_some());
        let token = match (has_webhook, fresh.token) {
            (false, _) => None,
            (true, Some(token)) => Some(token),
            (true, None) => rows.webhook_tokens(&id.0)?.into_iter().next(),
        };
        let switches = rows.event_switches(id)?;
        let webhook_uri = token.map(|token| format!("{}/in/c/{token}", self.base));
        let webhook = match &connector {
            Some(connector) => webhook::view(self, rows, connection, (connector, &split), webhook_uri.as_deref())?,
            None => None,
        };
        let collections = match &connector {
            Some(connector) => collections::views(&self.deps, rows, connection, connector, &switches)?,
            None => Vec::new(),
        };
        Ok(ConnectionView {
            connection_id: id.to_string(),
            user_id: connection.user.to_string(),
            username: user.map(|user| user.username),
            integration_id: connection.integration.map(|id| id.to_string()),
            connector: connection.connector.clone(),
            app: connection.app.clone(),
            category: connection.category.clone(),
            account: connection.account.clone(),
            status: connection.status.word(),
            error: error(&connection.status),
            webhook_uri,
            webhook,
            parameters: split.shown(),
            poll_interval_seconds: connection.poll_interval_seconds,
            full_scan_interval_seconds: connection.full_scan_interval_seconds,
            initial_sync: match connection.initial_sync {
                InitialSync::Baseline => InitialSyncWord::Baseline,
                InitialSync::Emit => InitialSyncWord::Emit,
            },
            remap: match connection.remap {
                Remap::Silent => RemapWord::Silent,
                Remap::Emit => RemapWord::Emit,
            },
            collections,
            events: switches.iter().map(switch_view).collect(),
            created_at: connection.created_at.rfc3339_millis(),
            updated_at: connection.updated_at.rfc3339_millis(),
        })
    }
}

pub(super) fn switch_view(switch: &EventSwitch) -> SwitchView {
    SwitchView {
        event: switch.event.clone(),
        // We wrote it ourselves; what cannot be read is shown as nothing.
        parameters: serde_json::from_str(&switch.parameters).unwrap_or_default(),
        webhook_key: switch.webhook_key.clone(),
        selector: switch.selector.clone(),
    }
}

fn error(status: &ConnectionStatus) -> Option<ErrorView> {
    let (code, message, since) = match status {
        ConnectionStatus::Active | ConnectionStatus::Paused => return None,
        ConnectionStatus::AuthFailed { since, message } => ("unauthorized", message, since),
        ConnectionStatus::Error { since, message } => ("misconfigured", message, since),
    };
    Some(ErrorView { code, message: message.clone(), since: since.rfc3339_millis() })
}
