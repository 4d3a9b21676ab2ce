//! Which connection or integration a webhook URL belongs to, and how its requests are judged.
//!
//! Always true: what is found by a token is remembered only as long as no connection and no integration has changed;
//! what is remembered is bounded. Not here: storing a request.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use url::Url;

use crate::actors::Deps;
use crate::actors::watcher::account::integration_parameters;
use crate::connectors::spec::OwnWebhook;
use crate::connectors::{
    Connector, Of, Parameters, WebhookRequest, WebhookResponse, handle_global, handle_own, redact, verify,
};
use crate::domain::connection::{Connection, Integration};
use crate::domain::id::WorkspaceNo;
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::Rows;

/// Doors remembered at most.
const KNOWN_MAX: usize = 10_000;

/// One webhook URL.
pub struct Door {
    /// Connection or integration.
    pub owner: [u8; 12],
    pub workspace: WorkspaceNo,
    pub connector: Arc<Connector>,
    /// Empty on a connection's own.
    pub webhook_key: String,
    parameters: Parameters,
    secrets: Vec<Secret>,
    /// What the connector keeps of a connection's own webhook: JSON text.
    state: Option<Secret>,
    /// Where the keys of a check are that fetches them.
    keys_at: Option<Url>,
    /// What identifies the connection's account at the app.
    account: Option<String>,
}

/// The doors that were found last.
#[derive(Default)]
pub struct Doors {
    known: RwLock<(u64, HashMap<(String, String), Arc<Door>>)>,
    /// Public keys of apps, for the checks that fetch them.
    keys: verify::Keys,
}

impl Doors {
    /// The door of a token; None if there is none.
    pub async fn find(&self, deps: &Deps, token: &str, webhook_key: &str) -> Result<Option<Arc<Door>>> {
        let version = deps.rings.owners_version();
        let name = (token.to_owned(), webhook_key.to_owned());
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if known.0 == version
                && let Some(door) = known.1.get(&name)
            {
                return Ok(Some(door.clone()));
            }
        }
        let (seek, wanted) = (deps.clone(), name.clone());
        let found = deps.store.blocking(move |rows| open(&seek, rows, &wanted.0, &wanted.1)).await?;
        let Some(door) = found.map(Arc::new) else { return Ok(None) };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.0 != version || known.1.len() >= KNOWN_MAX {
            *known = (version, HashMap::new());
        }
        known.1.insert(name, door.clone());
        Ok(Some(door))
    }
}

fn open(deps: &Deps, rows: &Rows, token: &str, webhook_key: &str) -> Result<Option<Door>> {
    let Some(owner) = rows.token_owner(token)? else { return Ok(None) };
    let (workspace, key, mut parameters, kept, account) = if webhook_key.is_empty() {
        let Some(connection) = rows.object_anywhere::<Connection>(&owner)? else { return Ok(None) };
        let mut parameters = match connection.integration {
            Some(id) => match rows.integration(connection.workspace, id)? {
                Some(integration) => integration_parameters(rows, &integration)?,
                None => Parameters::new(),
            },
            None => Parameters::new(),
        };
        parameters.extend(object(Some(&connection.parameters)));
        let secret = rows.secret_parameters(&owner)?;
        parameters.extend(object(secret.as_ref().map(Secret::expose)));
        let state = rows.webhook_state(&owner)?;
        (connection.workspace, connection.connector, parameters, state, connection.account)
    } else {
        let Some(integration) = rows.object_anywhere::<Integration>(&owner)? else { return Ok(None) };
        let parameters = integration_parameters(rows, &integration)?;
        (integration.workspace, integration.connector, parameters, None, None)
    };
    let Some(connector) = deps.connectors.get(&key) else { return Ok(None) };
    let connector = connector.specialise(&parameters).map_err(|e| Error::internal(e.to_string()))?;
    if let Ok(all) = connector.parameters.check(&parameters) {
        parameters = all;
    }
    let spec = if webhook_key.is_empty() {
        let Some(webhook) = &connector.webhook else { return Ok(None) };
        webhook.verify.as_ref()
    } else {
        let Some(webhook) = connector.global_webhook(webhook_key) else { return Ok(None) };
        webhook.verify.as_ref()
    };
    let state = object(kept.as_ref().map(Secret::expose));
    let secrets = spec.map(|spec| spec.secrets(&[&state, &parameters])).unwrap_or_default();
    let keys_at = spec.filter(|spec| spec.fetches_keys()).map(|spec| spec.keys_at(&parameters)).transpose();
    let keys_at = keys_at.unwrap_or_else(|why| {
        tracing::warn!(owner = hex::encode(owner), why, "the webhooks of an integration cannot be judged");
        None
    });
    let webhook_key = webhook_key.to_owned();
    Ok(Some(Door { owner, workspace, connector, webhook_key, parameters, secrets, state: kept, keys_at, account }))
}

fn object(text: Option<&str>) -> Parameters {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

impl Door {
    fn spec(&self) -> Option<&verify::Spec> {
        match self.webhook_key.as_str() {
            "" => self.connector.webhook.as_ref()?.verify.as_ref(),
            key => self.connector.global_webhook(key)?.verify.as_ref(),
        }
    }

    /// By then the app must have its answer, as the connector knows it.
    pub fn deadline(&self) -> Option<std::time::Duration> {
        match self.webhook_key.as_str() {
            "" => self.connector.webhook.as_ref()?.deadline,
            key => self.connector.global_webhook(key)?.deadline,
        }
    }

    /// The answer to a handshake that the connector names; nothing is checked or stored for it.
    pub fn handshake(&self, request: &WebhookRequest) -> Option<WebhookResponse> {
        let handshake = match self.webhook_key.as_str() {
            "" => self.connector.webhook.as_ref()?.handshake.as_ref(),
            key => self.connector.global_webhook(key)?.handshake.as_ref(),
        };
        handshake?.answer(request)
    }

    /// The address that a handshake wants to be called.
    pub fn to_confirm(&self, request: &WebhookRequest) -> Option<Url> {
        let handshake = match self.webhook_key.as_str() {
            "" => self.connector.webhook.as_ref()?.handshake.as_ref(),
            key => self.connector.global_webhook(key)?.handshake.as_ref(),
        };
        handshake?.to_confirm(request, &Value::Object(self.parameters.clone()))
    }

    /// The request without the secrets that the connector names, to be stored and understood.
    pub fn without_secrets(&self, request: WebhookRequest) -> WebhookRequest {
        match &self.connector.webhook {
            Some(webhook) if self.webhook_key.is_empty() && !webhook.redact.is_empty() => {
                WebhookRequest { body: redact(&request.body, &webhook.redact), ..request }
            }
            _ => request,
        }
    }

    /// Judges a request by the connector's named check; `now` as the app's clock may show it.
    pub async fn check(&self, doors: &Doors, deps: &Deps, request: &WebhookRequest, now: Millis) -> verify::Verdict {
        let Some(spec) = self.spec() else { return verify::Verdict::Unsigned };
        if !spec.fetches_keys() {
            return spec.check(request, &self.secrets, now);
        }
        let Some(at) = &self.keys_at else { return verify::Verdict::Undecided };
        // The client for apps belongs to their runtime.
        let fetch = async |url: Url| {
            let asked = deps.runtime.spawn(verify::ask(deps.apps.clone(), url));
            asked.await.unwrap_or(verify::Answered::Down)
        };
        doors.keys.check(spec, (request, &self.secrets), (self.owner, at), now, fetch).await
    }

    /// What `handle` says the app shall get. One that fails here is tried again from the stored request, and its failure
    /// is told there.
    pub async fn ask(&self, request: &WebhookRequest) -> Option<WebhookResponse> {
        let response = if !self.webhook_key.is_empty() {
            let handled = handle_global(&self.connector, &self.webhook_key, request, &self.parameters).await;
            handled.map(|handled| handled.response)
        } else if self.connector.webhook.as_ref().is_some_and(OwnWebhook::handled_by_script) {
            let parameters = Value::Object(self.parameters.clone());
            let of = Of { state: self.state.as_ref().map(Secret::expose), account: self.account.as_deref() };
            handle_own(&self.connector, request, &parameters, of).await.map(|handled| handled.response)
        } else {
            Ok(None)
        };
        response.unwrap_or_else(|_| {
            Some(WebhookResponse { status: 202, headers: Vec::new(), body: r#"{"accepted":true}"#.into() })
        })
    }
}
