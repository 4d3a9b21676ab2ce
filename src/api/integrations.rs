//! `/one/integrations`: connectors set up in a workspace, with the addresses of their global webhooks.
//!
//! Always true: an integration's webhook token is drawn once, when it is made; its secret parameters never come out
//! again; one that still has connections is not deleted. Not here: what a global webhook brings (`actors::watcher`).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::call::{Call, not_found};
use super::paging::{self, Paging};
use super::parameters::{self, Split};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use super::shapes::{Deleted, name_of};
use super::{body, cascade, connectors, integration_webhooks as webhooks};
use crate::actors::watcher::pasted;
use crate::connectors::{Connector, Parameters};
use crate::domain::connection::{Connection, Integration};
use crate::domain::id::{IntegrationId, WorkspaceNo};
use crate::domain::returns::{self, RETURN_URLS_MAX, ReturnUrls};
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot, Tx};

/// Connections that are rung in one step after an integration was changed.
const RING_STEP: usize = 250;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewIntegration {
    /// The connector's key: see `GET /one/connectors`.
    connector: String,
    /// For people; the connector's name if left out.
    #[serde(default)]
    name: Option<String>,
    /// By the connector's `parametersSchema`. Secret ones are shown as `***` ever after.
    #[serde(default)]
    parameters: Parameters,
    /// Where `/connect` may send a browser at the end, and whose pages it may tell: at most 20 addresses on https
    /// (http for localhost), without a query.
    #[serde(default, rename = "returnUrls")]
    return_urls: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangedIntegration {
    /// Left out: as it is.
    #[serde(default)]
    name: Option<String>,
    /// Laid over what is there: null takes a parameter away, `***` leaves a secret.
    #[serde(default, deserialize_with = "body::present")]
    #[schemars(with = "Option<Parameters>")]
    parameters: Option<Option<Parameters>>,
    /// All of them anew; null for none.
    #[serde(default, rename = "returnUrls", deserialize_with = "body::present")]
    #[schemars(with = "Option<Vec<String>>")]
    return_urls: Option<Option<Vec<String>>>,
}

/// A connector set up in the workspace.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct IntegrationView {
    integration_id: String,
    connector: String,
    name: String,
    /// Secrets are `***`.
    parameters: Parameters,
    /// Where `/connect` may send a browser at the end, and whose pages it may tell.
    return_urls: Vec<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, JsonSchema)]
struct OneIntegration {
    integration: IntegrationView,
}

#[derive(Serialize, JsonSchema)]
struct Integrations {
    integrations: Vec<IntegrationView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

const ALL: &str = "/{version}/one/integrations";
const ONE: &str = "/{version}/one/integrations/{integrationId}";

pub(super) fn routes() -> Vec<Route> {
    let by_connector = [Param { name: "connector", about: "Only those of this connector." }];
    let routes = vec![
        Route::post(ALL, "Set a connector up", create).takes::<NewIntegration>().gives::<OneIntegration>(),
        Route::get(ALL, "List integrations", list).query(PAGED).query(&by_connector).gives::<Integrations>(),
        Route::get(ONE, "Show an integration", show).gives::<OneIntegration>(),
        Route::patch(ONE, "Change an integration (JSON merge patch)", change)
            .takes::<ChangedIntegration>()
            .gives::<OneIntegration>(),
        Route::delete(ONE, "Delete an integration that has no connections", delete).gives::<Deleted>(),
        Route::get(
            "/{version}/one/integrations/{integrationId}/webhooks",
            "The addresses of the global webhooks, to paste into the app",
            webhooks::show,
        )
        .gives::<webhooks::Webhooks>(),
    ];
    group("integrations", routes)
}

/// The integration of that id in the workspace.
pub(super) fn find(rows: &Rows, workspace: WorkspaceNo, id: IntegrationId) -> Result<Integration> {
    rows.integration(workspace, id)?.ok_or_else(|| not_found(Code::IntegrationNotFound, &id.to_string()))
}

pub(super) fn id_of(call: &Call) -> Result<IntegrationId> {
    call.id("integrationId", Code::IntegrationNotFound)
}

fn view(rows: &Rows, integration: &Integration) -> Result<IntegrationView> {
    Ok(IntegrationView {
        integration_id: integration.id.to_string(),
        connector: integration.connector.clone(),
        name: integration.name.clone(),
        parameters: Split::stored(rows, &integration.id.0, &integration.parameters)?.shown(),
        return_urls: return_urls(rows, integration.workspace, integration.id)?,
        created_at: integration.created_at.rfc3339_millis(),
        updated_at: integration.updated_at.rfc3339_millis(),
    })
}

fn return_urls(rows: &Rows, workspace: WorkspaceNo, id: IntegrationId) -> Result<Vec<String>> {
    Ok(rows.object::<ReturnUrls>(workspace, &id.0)?.map(|list| list.urls).unwrap_or_default())
}

/// The list as it is stored: checked, each address once.
fn listed(urls: Vec<String>) -> Result<Vec<String>> {
    if urls.len() > RETURN_URLS_MAX {
        return Err(Error::invalid(format!("returnUrls: at most {RETURN_URLS_MAX}")));
    }
    let mut all = Vec::with_capacity(urls.len());
    for (place, url) in urls.iter().enumerate() {
        let url = returns::listed(url).map_err(|why| Error::invalid(format!("returnUrls[{place}] {why}")))?;
        if !all.contains(&url) {
            all.push(url);
        }
    }
    Ok(all)
}

/// A fresh text that nobody can guess, for webhook URLs, cookies and the like: 24 random bytes as hex.
pub(super) fn token() -> Result<String> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::internal("the system gives no random bytes"))?;
    Ok(hex::encode(bytes))
}

/// Where apps reach the node, without a slash at the end, and what is to be said about it.
pub(super) fn base(call: &Call) -> (String, Option<&'static str>) {
    let options = &call.state.options;
    match &options.public_url {
        Some(url) => (url.as_str().trim_end_matches('/').to_owned(), None),
        None => (
            format!("http://{}", options.listen),
            Some("server.public_url is not set: only an app on this machine reaches this address"),
        ),
    }
}

/// What the integration must itself have, where connections cannot give it.
fn complete(connector: &Connector, split: &Split) -> Result<()> {
    let (whole, defaults) = (split.whole(), connector.parameters.defaults());
    let lacks = |name: &&str| {
        connector.parameters.requires(name) && !whole.contains_key(*name) && !defaults.contains_key(*name)
    };
    match connector.integration_only().into_iter().find(lacks) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!("parameters.{name} is missing"))),
    }
}

/// Lays parameters over an integration's and checks all of it, files with parameters in them included.
fn lay(call: &Call, connector: &Arc<Connector>, before: &Split, given: &Parameters) -> Result<Split> {
    parameters::refuse_base_uri(connector, before, given, parameters::is_admin(call))?;
    let mut split = before.clone();
    split.lay(connector, given)?;
    complete(connector, &split)?;
    let whole = split.whole();
    if whole.contains_key("baseUri") {
        parameters::refuse_address(call, &connector.base_uri.choose(&whole).map_err(Error::invalid)?)?;
    }
    Ok(split)
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<NewIntegration>()?, call.workspace()?);
    let connector = connectors::find(&call, &asked.connector, Code::Invalid)?;
    let name = name_of("name", asked.name.as_deref().unwrap_or(&connector.name))?;
    let split = lay(&call, &connector, &Split::default(), &asked.parameters)?;
    let urls = listed(asked.return_urls)?;
    let token = token()?;
    let pasted = call.state.options.public_url.as_ref().map(|base| pasted::mark(base, &token));
    let key = connector.key.clone();
    let change = move |tx: &mut Tx<'_>| {
        let (id, now) = (IntegrationId(tx.fresh_id()?), tx.now());
        let parameters = split.open_text();
        let made = Integration { id, workspace, connector: key, name, parameters, created_at: now, updated_at: now };
        tx.put_object(&made)?;
        split.put_secret(tx, &id.0)?;
        tx.put_object(&ReturnUrls { integration: id, workspace, urls: urls.clone() })?;
        tx.put_secret(&id.0, Slot::WebhookTokens, &vec![token.clone()])?;
        tx.put_token(&token, &id.0)?;
        if let Some(pasted) = &pasted {
            tx.put_pasted(&id.0, pasted)?;
        }
        let view = IntegrationView { parameters: split.shown(), return_urls: urls, ..blank_view(&made) };
        Ok((Reply::json(&OneIntegration { integration: view })?, id))
    };
    let (reply, id) = call.change(change).await?;
    call.state.rings.owners_changed();
    // It may have a journal to read.
    call.state.rings.owner(id.0);
    Ok(reply)
}

/// The view without parameters: a commit reads what was there before it.
fn blank_view(integration: &Integration) -> IntegrationView {
    IntegrationView {
        integration_id: integration.id.to_string(),
        connector: integration.connector.clone(),
        name: integration.name.clone(),
        parameters: Map::new(),
        return_urls: Vec::new(),
        created_at: integration.created_at.rfc3339_millis(),
        updated_at: integration.updated_at.rfc3339_millis(),
    }
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of(&call)?);
    let before = page.before_exactly::<12>()?.map(|id| id.to_vec());
    let only = call.query("connector").map(str::to_owned);
    let read = move |rows: &Rows| {
        let found = rows.integrations(workspace, before.as_deref(), page.limit)?;
        let wanted = found.items.iter().filter(|i| only.as_ref().is_none_or(|key| i.connector == *key));
        let integrations = wanted.map(|i| view(rows, i)).collect::<Result<_>>()?;
        Reply::json(&Integrations { integrations, next: found.next.map(paging::next) })
    };
    call.read(read).await
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    let read =
        move |rows: &Rows| Reply::json(&OneIntegration { integration: view(rows, &find(rows, workspace, id)?)? });
    call.read(read).await
}

async fn change(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<ChangedIntegration>()?, call.workspace()?, id_of(&call)?);
    let name = asked.name.as_deref().map(|name| name_of("name", name)).transpose()?;
    let urls = asked.return_urls.map(|urls| listed(urls.unwrap_or_default())).transpose()?;
    let (found, stored) = call
        .read(move |rows| {
            let found = find(rows, workspace, id)?;
            let stored = Split::stored(rows, &id.0, &found.parameters)?;
            Ok((found, stored))
        })
        .await?;
    let split = match asked.parameters {
        None => None,
        Some(given) => {
            let connector = connectors::find(&call, &found.connector, Code::Invalid)?;
            // Null takes all parameters away.
            let given = given.unwrap_or_else(|| stored.whole().keys().map(|k| (k.clone(), ().into())).collect());
            Some(lay(&call, &connector, &stored, &given)?)
        }
    };
    let change = move |tx: &mut Tx<'_>| {
        let mut changed = find(tx, workspace, id)?;
        let mut shown = Split::stored(tx, &id.0, &changed.parameters)?;
        if let Some(split) = split {
            if changed.parameters != found.parameters {
                return Err(Error::new(Code::Conflict, "the integration was changed meanwhile; ask again"));
            }
            changed.parameters = split.open_text();
            split.put_secret(tx, &id.0)?;
            shown = split;
        }
        changed.name = name.unwrap_or(changed.name);
        changed.updated_at = tx.now();
        tx.put_object(&changed)?;
        if let Some(urls) = &urls {
            tx.put_object(&ReturnUrls { integration: id, workspace, urls: urls.clone() })?;
        }
        let return_urls = urls.map_or_else(|| return_urls(tx, workspace, id), Ok)?;
        let view = IntegrationView { parameters: shown.shown(), return_urls, ..blank_view(&changed) };
        Ok((Reply::json(&OneIntegration { integration: view })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    ring_all(&call, id).await?;
    Ok(reply)
}

/// Wakes the integration and all its connections: one that could not work may work now.
async fn ring_all(call: &Call, id: IntegrationId) -> Result<()> {
    let rings = call.state.rings.clone();
    rings.owners_changed();
    rings.owner(id.0);
    call.read(move |rows| {
        let mut before: Option<Vec<u8>> = None;
        loop {
            let page = rows.children::<Connection>(&id.0, before.as_deref(), RING_STEP)?;
            page.items.iter().for_each(|connection| rings.owner(connection.id.0));
            match page.next {
                Some(next) => before = Some(next),
                None => return Ok(()),
            }
        }
    })
    .await
}

async fn delete(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    let change = move |tx: &mut Tx<'_>| {
        let gone = find(tx, workspace, id)?;
        if !tx.children::<Connection>(&id.0, None, 1)?.items.is_empty() {
            let message = "the integration still has connections; delete those first";
            return Err(Error::new(Code::Conflict, message));
        }
        cascade::integration(tx, &gone)?;
        Ok((Reply::json(&Deleted::new("integrationId", id))?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.owners_changed();
    Ok(reply)
}
