//! The pages that receivers read: public keys as PEM and as a JSON Web Key Set.
//!
//! Always true: nothing secret is here. Not here: when a key is published (`destinations::http::keys`).

use std::sync::Arc;

use super::call::{Call, not_found};
use super::reply::Reply;
use super::route::{Access, Route, Surface, group};
use super::state::State;
use crate::destinations::http::keys::KeyRing;
use crate::domain::id::{WorkspaceId, WorkspaceNo};
use crate::domain::workspace::Workspace;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

const PEM: &str = "application/x-pem-file";
const JWKS: &str = "application/jwk-set+json";
pub(super) fn routes() -> Vec<Route> {
    let page = |route: Route, kind| route.only(Access::Open).at(Surface::Public).content_type(kind);
    let about_pem = "RSA keys of the default workspace, the signing one first";
    let about_jwks = "All public keys as a JSON Web Key Set";
    let routes = vec![
        page(Route::get("/security/public_key.pem", about_pem, default_pem), PEM),
        page(Route::get("/.well-known/jwks.json", about_jwks, default_jwks), JWKS),
        page(Route::get("/security/{workspaceId}/public_key.pem", "RSA keys of a workspace", workspace_pem), PEM),
        page(Route::get("/security/{workspaceId}/jwks.json", about_jwks, workspace_jwks), JWKS),
    ];
    group("public keys", routes)
}

async fn default_pem(call: Call) -> Result<Reply> {
    let ring = ring(&call.state, default).await?;
    Ok(Reply::text(PEM, ring.public_pem(call.now())))
}

async fn default_jwks(call: Call) -> Result<Reply> {
    let ring = ring(&call.state, default).await?;
    Ok(Reply::text(JWKS, ring.jwks(call.now())))
}

async fn workspace_pem(call: Call) -> Result<Reply> {
    let id = call.id("workspaceId", Code::WorkspaceNotFound)?;
    let ring = ring(&call.state, move |rows| of(rows, id)).await?;
    Ok(Reply::text(PEM, ring.public_pem(call.now())))
}

async fn workspace_jwks(call: Call) -> Result<Reply> {
    let id = call.id("workspaceId", Code::WorkspaceNotFound)?;
    let ring = ring(&call.state, move |rows| of(rows, id)).await?;
    Ok(Reply::text(JWKS, ring.jwks(call.now())))
}

fn default(rows: &Rows) -> Result<Workspace> {
    rows.workspace_by_no(WorkspaceNo::DEFAULT)?.ok_or_else(|| Error::unavailable("the node is starting", 1))
}

fn of(rows: &Rows, id: WorkspaceId) -> Result<Workspace> {
    let found = rows.workspace(WorkspaceNo::DEFAULT, id)?;
    found.ok_or_else(|| not_found(Code::WorkspaceNotFound, &id.to_string()))
}

/// The opened keys of a workspace.
async fn ring(state: &State, find: impl FnOnce(&Rows) -> Result<Workspace> + Send + 'static) -> Result<Arc<KeyRing>> {
    let outlet = state.outlet.clone();
    state.store.blocking(move |rows| outlet.keys_of(find(rows)?.no)).await
}
