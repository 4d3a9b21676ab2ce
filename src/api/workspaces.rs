//! `/workspaces`: made, listed and deleted with the operator's key.
//!
//! Always true: a workspace has signing keys of its own and a first API key from the commit that makes it; the default
//! one cannot be deleted; a deletion that was cut short goes on when it is asked for again. Not here: what a workspace
//! holds (the other resources).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Call, not_found};
use super::cascade;
use super::keys::{self, KeyView};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{Access, PAGED, Route, group};
use super::shapes::{Deleted, name_of};
use crate::destinations::http::keys::{KeyKind, StoredKey};
use crate::domain::id::{WorkspaceId, WorkspaceNo};
use crate::domain::time::Millis;
use crate::domain::workspace::Workspace;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot, Tx};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewWorkspace {
    /// Unique on the node.
    name: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WorkspaceView {
    workspace_id: String,
    name: String,
    created_at: String,
}

#[derive(Serialize, JsonSchema)]
struct OneWorkspace {
    workspace: WorkspaceView,
    /// Its first API key, with full access: shown once.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyView>,
}

#[derive(Serialize, JsonSchema)]
struct Workspaces {
    workspaces: Vec<WorkspaceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn view(workspace: &Workspace) -> WorkspaceView {
    WorkspaceView {
        workspace_id: workspace.id.to_string(),
        name: workspace.name.clone(),
        created_at: workspace.created_at.rfc3339_millis(),
    }
}

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/workspaces", "/workspaces/{workspaceId}");
    let operator = |route: Route| route.only(Access::Operator);
    let routes = vec![
        operator(Route::post(all, "Make a workspace with its first API key", create))
            .takes::<NewWorkspace>()
            .gives::<OneWorkspace>(),
        operator(Route::get(all, "List workspaces", list)).query(PAGED).gives::<Workspaces>(),
        operator(Route::get(one, "Show a workspace", show)).gives::<OneWorkspace>(),
        operator(Route::delete(one, "Delete a workspace and all that is in it", delete)).gives::<Deleted>(),
    ];
    group("workspaces", routes)
}

/// Fresh signing keys of a workspace. RSA takes a while: not on a thread that serves requests.
pub(super) fn signing_keys(now: Millis) -> Result<Vec<StoredKey>> {
    [KeyKind::Rsa, KeyKind::Ed25519].into_iter().map(|kind| StoredKey::generate(kind, now, now)).collect()
}

/// Puts a workspace with its signing keys.
pub(super) fn put(tx: &mut Tx<'_>, no: WorkspaceNo, name: String, signing: &Vec<StoredKey>) -> Result<Workspace> {
    let workspace = Workspace { no, id: WorkspaceId(tx.fresh_id()?), name, created_at: tx.now() };
    if tx.rival(&workspace)?.is_some() {
        return Err(Error::new(Code::Conflict, format!("there is a workspace `{}` already", workspace.name)));
    }
    tx.put_object(&workspace)?;
    tx.put_secret(&workspace.id.0, Slot::SigningKeys, signing)?;
    Ok(workspace)
}

async fn create(call: Call) -> Result<Reply> {
    let name = name_of("name", &call.json::<NewWorkspace>()?.name)?;
    let (now, secret) = (call.now(), keys::draw()?);
    let signing = tokio::task::spawn_blocking(move || signing_keys(now)).await.map_err(Error::internal)??;
    let change = move |tx: &mut Tx<'_>| {
        let no = tx.next_workspace()?;
        let workspace = put(tx, no, name, &signing)?;
        let key = keys::put_admin(tx, no, "first", &secret)?;
        let key = Some(KeyView::of(&key, Some(&secret)));
        Ok((Reply::json(&OneWorkspace { workspace: view(&workspace), key })?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

async fn list(call: Call) -> Result<Reply> {
    let page = Paging::of(&call)?;
    let before = page.before_exactly::<12>()?;
    let before = move || before.map(|id| id.to_vec());
    let found = call.read(move |rows| rows.workspaces(WorkspaceNo::DEFAULT, before().as_deref(), page.limit)).await?;
    let workspaces = found.items.iter().map(view).collect();
    Reply::json(&Workspaces { workspaces, next: found.next.map(paging::next) })
}

async fn show(call: Call) -> Result<Reply> {
    let id = call.id::<WorkspaceId>("workspaceId", Code::WorkspaceNotFound)?;
    let workspace = call.read(move |rows| find(rows, id)).await?;
    Reply::json(&OneWorkspace { workspace: view(&workspace), key: None })
}

fn find(rows: &Rows, id: WorkspaceId) -> Result<Workspace> {
    let found = rows.workspace(WorkspaceNo::DEFAULT, id)?;
    found.ok_or_else(|| Error::new(Code::WorkspaceNotFound, format!("there is no workspace `{id}`")))
}

async fn delete(call: Call) -> Result<Reply> {
    let id = call.id::<WorkspaceId>("workspaceId", Code::WorkspaceNotFound)?;
    let workspace = call.read(move |rows| find(rows, id)).await?;
    if workspace.no == WorkspaceNo::DEFAULT {
        return Err(Error::new(Code::Conflict, "the default workspace is always there"));
    }
    cascade::empty_workspace(&call.state, &workspace).await?;
    let change = move |tx: &mut Tx<'_>| {
        let workspace = tx.workspace(WorkspaceNo::DEFAULT, id)?;
        let workspace = workspace.ok_or_else(|| not_found(Code::WorkspaceNotFound, &id.to_string()))?;
        tx.delete_object(&workspace)?;
        Ok((Reply::json(&Deleted::new("workspaceId", id))?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}
