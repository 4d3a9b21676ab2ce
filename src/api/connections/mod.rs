//! `/one/connections`: one user's authorised account at one app each; made, shown, changed, looked into, deleted.
//!
//! Always true: the same account connected again by the same user is the same connection; every change is told in an
//! event of the same commit; credentials never come out again. Not here: looking at the app (`actors::watcher`), how
//! things hanging on a connection are deleted (`cascade`).

mod change;
mod collections;
mod events;
mod inbox;
mod make;
mod prepare;
mod shape;
mod sync;
mod webhook;

use std::sync::Arc;

pub(super) use self::inbox::{WebhookView, exported_webhook};
pub(super) use self::make::{ByUser, by_user};
pub(super) use self::prepare::ask;
use self::shape::{ChangedConnection, Connections, Fresh, NewConnection, OneConnection, Viewer};
pub(super) use self::sync::PullView;
pub(super) use self::webhook::to_paste;
use super::call::{Call, not_found, user_of};
use super::cascade::{self, Touched};
use super::integrations;
use super::paging::{self, Paging};
use super::parameters::Split;
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use super::shapes::Deleted;
use super::state::State;
use crate::actors::Deps;
use crate::connectors::Connector;
use crate::domain::connection::Connection;
use crate::domain::id::{ConnectionId, IntegrationId, WorkspaceNo};
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

const ALL: &str = "/{version}/one/connections";
const ONE: &str = "/{version}/one/connections/{connectionId}";

pub(super) fn routes() -> Vec<Route> {
    let filters = [
        Param { name: "userId", about: "Of this user: id or username." },
        Param { name: "integrationId", about: "Of this integration." },
        Param { name: "connector", about: "Of this connector." },
    ];
    let mut routes = vec![
        Route::post(ALL, "Connect an account", make::create).takes::<NewConnection>().gives::<OneConnection>(),
        Route::get(ALL, "List connections", list).query(PAGED).query(&filters).gives::<Connections>(),
        Route::get(ONE, "Show a connection with its collections", show).gives::<OneConnection>(),
        Route::patch(ONE, "Change a connection (JSON merge patch)", change::change)
            .takes::<ChangedConnection>()
            .gives::<OneConnection>(),
        Route::delete(ONE, "Delete a connection with its records and narrowed subscriptions", delete)
            .gives::<Deleted>(),
    ];
    routes.extend(sync::routes());
    routes.extend(events::routes());
    let mut all = group("connections", routes);
    all.extend(inbox::routes());
    all
}

/// The connection of that id in the workspace.
pub(super) fn find(rows: &Rows, workspace: WorkspaceNo, id: ConnectionId) -> Result<Connection> {
    rows.connection(workspace, id)?.ok_or_else(|| not_found(Code::ConnectionNotFound, &id.to_string()))
}

fn id_of(call: &Call) -> Result<ConnectionId> {
    call.id("connectionId", Code::ConnectionNotFound)
}

fn viewer(call: &Call) -> Viewer {
    Viewer { deps: call.state.deps.clone(), base: integrations::base(call).0 }
}

/// The connection's connector as it is set up; None if it cannot be used.
pub(super) fn connector(state: &State, rows: &Rows, connection: &Connection) -> Result<Option<Arc<Connector>>> {
    let split = Split::stored(rows, &connection.id.0, &connection.parameters)?;
    collections::connector(&state.deps, rows, connection, &split)
}

/// A connection as it is shown, for a list of things of many kinds. `base`: where apps reach the node.
pub(super) fn shown(deps: &Deps, base: &str, rows: &Rows, connection: &Connection) -> Result<serde_json::Value> {
    let viewer = Viewer { deps: deps.clone(), base: base.to_owned() };
    serde_json::to_value(viewer.view(rows, connection, Fresh::default())?).map_err(Error::internal)
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page, viewer) = (call.workspace()?, Paging::of(&call)?, viewer(&call));
    let before = page.before_exactly::<12>()?.map(|id| id.to_vec());
    let user = call.query("userId").map(str::to_owned);
    let integration = call.query_id::<IntegrationId>("integrationId", Code::IntegrationNotFound)?;
    let connector = call.query("connector").map(str::to_owned);
    let read = move |rows: &Rows| {
        let before = before.as_deref();
        let user = user.map(|text| user_of(rows, workspace, &text)).transpose()?.map(|user| user.id);
        let found = match (user, integration) {
            (Some(id), _) => rows.children::<Connection>(&id.0, before, page.limit)?,
            (None, Some(id)) => rows.children(&id.0, before, page.limit)?,
            (None, None) => rows.connections(workspace, before, page.limit)?,
        };
        // An integration of another workspace has no connections here.
        let wanted = found.items.iter().filter(|c| {
            c.workspace == workspace
                && integration.is_none_or(|id| c.integration == Some(id))
                && connector.as_ref().is_none_or(|key| c.connector == *key)
        });
        let connections = wanted.map(|c| viewer.view(rows, c, Fresh::default())).collect::<Result<_>>()?;
        Reply::json(&Connections { connections, next: found.next.map(paging::next) })
    };
    call.read(read).await
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id, viewer) = (call.workspace()?, id_of(&call)?, viewer(&call));
    let read = move |rows: &Rows| {
        let connection = viewer.view(rows, &find(rows, workspace, id)?, Fresh::default())?;
        Reply::json(&OneConnection { connection })
    };
    call.read(read).await
}

async fn delete(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    call.read(move |rows| find(rows, workspace, id)).await?;
    cascade::empty_connection(&call.state, id).await?;
    let change = move |tx: &mut Tx<'_>| {
        let mut touched = Touched::default();
        cascade::connection(tx, &find(tx, workspace, id)?, "requested", &mut touched)?;
        Ok((Reply::json(&Deleted::new("connectionId", id))?, touched))
    };
    let (reply, touched) = call.change(change).await?;
    touched.ring(&call.state);
    Ok(reply)
}
