//! Looking now, and what earlier looks found: `…/sync` and `…/pulls`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::prepare;
use super::{find, id_of};
use crate::api::call::Call;
use crate::api::connections::collections;
use crate::api::paging::{self, Paging};
use crate::api::parameters::Split;
use crate::api::reply::Reply;
use crate::api::route::{PAGED, Route};
use crate::domain::connection::{Connection, ConnectionStatus, Pull, SyncRequest};
use crate::domain::id::PullId;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// Syncs of one connection that may wait.
const WAITING_MAX: usize = 20;

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// What changed since the last look.
    #[default]
    Incremental,
    /// Everything, and what is gone.
    Full,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WantedSync {
    /// `incremental` if left out.
    #[serde(default)]
    mode: Mode,
    /// Keys or topics; all of the connection's if left out.
    #[serde(default)]
    collections: Option<Vec<String>>,
    /// Lets a full scan delete more than the delete guard would.
    #[serde(default)]
    approve_deletes: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct AskedFor {
    /// To be found again in `…/pulls`.
    pull_id: String,
}

/// One look at the app.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct PullView {
    pull_id: String,
    collection: String,
    /// `first`, `incremental` or `full`.
    mode: String,
    /// `running`, `completed`, `failed` or `held`.
    outcome: String,
    started_at: String,
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    pages: u32,
    /// Records seen.
    records: u64,
    created: u64,
    updated: u64,
    deleted: u64,
    unchanged: u64,
    /// Mapped again without events after a new version of the connector.
    remapped: u64,
    /// Records that could not be mapped.
    unmapped: u64,
}

#[derive(Serialize, JsonSchema)]
struct Pulls {
    pulls: Vec<PullView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/{version}/one/connections/{connectionId}/sync", "Look at the app now", sync)
            .takes::<WantedSync>()
            .gives::<AskedFor>()
            .status(202),
        Route::get("/{version}/one/connections/{connectionId}/pulls", "Looks at the app, newest first", pulls)
            .query(PAGED)
            .gives::<Pulls>(),
    ]
}

async fn sync(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<WantedSync>()?, call.workspace()?, id_of(&call)?);
    if asked.approve_deletes && asked.mode != Mode::Full {
        return Err(Error::invalid("approveDeletes: only a sync with `mode`: `full` deletes"));
    }
    let deps = call.state.deps.clone();
    let change = move |tx: &mut Tx<'_>| {
        let connection = find(tx, workspace, id)?;
        runs(&connection)?;
        if tx.sync_requests(id)?.len() >= WAITING_MAX {
            let message = format!("{WAITING_MAX} syncs of this connection wait already");
            return Err(Error { retry_after: Some(10), ..Error::new(Code::TooManyRequests, message) });
        }
        let collections = match asked.collections {
            None => Vec::new(),
            some => {
                let split = Split::stored(tx, &id.0, &connection.parameters)?;
                let connector = collections::connector(&deps, tx, &connection, &split)?;
                let connector = connector.ok_or_else(|| Error::invalid("the connection's connector cannot be used"))?;
                prepare::collections(&connector, some)?.unwrap_or_default()
            }
        };
        let pull = PullId(tx.fresh_id()?);
        let request = SyncRequest {
            pull,
            full: asked.mode == Mode::Full,
            approve_deletes: asked.approve_deletes,
            collections,
            asked_at: tx.now(),
        };
        tx.put_sync_request(id, &request)?;
        Ok((Reply::json(&AskedFor { pull_id: pull.to_string() })?.with_status(202), ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.owner(id.0);
    Ok(reply)
}

/// Refuses what asks for the app of a connection that stands still.
pub(super) fn runs(connection: &Connection) -> Result<()> {
    match &connection.status {
        ConnectionStatus::Active | ConnectionStatus::Error { .. } => Ok(()),
        ConnectionStatus::Paused => {
            Err(Error::new(Code::Conflict, "the connection is paused; set its `status` to `active` first"))
        }
        ConnectionStatus::AuthFailed { .. } => {
            Err(Error::new(Code::Conflict, "the app refuses the connection's credentials; give new ones first"))
        }
    }
}

impl PullView {
    /// As it is shown.
    pub(in crate::api) fn of(pull: Pull) -> Self {
        Self {
            pull_id: pull.id.to_string(),
            collection: pull.collection,
            mode: pull.mode,
            outcome: pull.outcome,
            started_at: pull.started_at.rfc3339_millis(),
            ended_at: pull.ended_at.map(|at| at.rfc3339_millis()),
            error: Some(pull.error).filter(|error| !error.is_empty()),
            pages: pull.pages,
            records: pull.records,
            created: pull.created,
            updated: pull.updated,
            deleted: pull.deleted,
            unchanged: pull.unchanged,
            remapped: pull.remapped,
            unmapped: pull.unmapped,
        }
    }
}

async fn pulls(call: Call) -> Result<Reply> {
    let (workspace, id, page) = (call.workspace()?, id_of(&call)?, Paging::of(&call)?);
    let before = page.before_exactly::<12>()?.map(PullId);
    let read = move |rows: &Rows| {
        find(rows, workspace, id)?;
        let (found, next) = rows.pulls(id, before, page.limit)?;
        let next = next.map(|id| paging::next(id.0));
        Reply::json(&Pulls { pulls: found.into_iter().map(PullView::of).collect(), next })
    };
    call.read(read).await
}
