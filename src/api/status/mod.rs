//! `/one/status` and `/status`: what goes badly, worst first.
//!
//! Always true: `/one/status` tells a workspace of itself and of nothing else; what concerns the node as a whole (disk,
//! commits, other workspaces) only the operator's key sees. A look goes over at most [`LOOKED_MAX`] subscriptions and as
//! many connections, says if there were more, and few looks run at a time. Not here: lanes (`lanes`), connections
//! (`connections`), counts over time (`/metrics`).

mod connections;
mod lanes;
mod node;

use schemars::JsonSchema;
use serde::Serialize;

use self::connections::{ConnectionTotals, ConnectionTrouble};
use self::lanes::{LaneTotals, LaneTrouble};
use self::node::NodeView;
use super::call::Call;
use super::reply::Reply;
use super::route::{Access, Param, Route, group};
use super::state::State;
use crate::domain::time::Millis;
use crate::domain::workspace::Workspace;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

/// Subscriptions, and connections, that one look goes over.
const LOOKED_MAX: usize = 50_000;
/// Things read at a time.
const STEP: usize = 256;
const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 250;

/// What goes badly. Lists are empty where nothing does.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    /// Those that owe something for longest first, then those with dead deliveries, then what else is not as it should.
    lanes: Vec<LaneTrouble>,
    /// Those whose credentials are refused first, then those set up wrong, then those that look in vain.
    connections: Vec<ConnectionTrouble>,
    subscription_totals: LaneTotals,
    connection_totals: ConnectionTotals,
    /// False: there is more than one look goes over, so totals are too small and something worse may not be here.
    complete: bool,
    /// Only for the operator's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<NodeView>,
}

#[derive(Serialize, JsonSchema)]
struct OneStatus {
    status: StatusView,
}

pub(super) fn routes() -> Vec<Route> {
    let few = [Param { name: "limit", about: "How many of the worst of each; 1 to 250, 10 if left out." }];
    let routes = vec![
        Route::get("/{version}/one/status", "The worst lanes and connections of the workspace", of_workspace)
            .query(&few)
            .gives::<OneStatus>(),
        Route::get("/status", "The node, and the worst lanes and connections of all workspaces", of_node)
            .only(Access::Operator)
            .query(&few)
            .gives::<OneStatus>(),
    ];
    group("operate", routes)
}

/// The worst of each, and the totals; filled workspace by workspace.
struct Look {
    lanes: Worst<LaneTrouble>,
    connections: Worst<ConnectionTrouble>,
    subscription_totals: LaneTotals,
    connection_totals: ConnectionTotals,
    /// How many more may be looked at.
    subscriptions_left: usize,
    connections_left: usize,
    complete: bool,
}

/// What a look needs beside the store.
struct Eyes {
    state: State,
    now: Millis,
    /// Things are told apart by workspace.
    names_workspaces: bool,
}

impl Look {
    fn new(limit: usize) -> Self {
        Self {
            lanes: Worst::new(limit),
            connections: Worst::new(limit),
            subscription_totals: LaneTotals::default(),
            connection_totals: ConnectionTotals::default(),
            subscriptions_left: LOOKED_MAX,
            connections_left: LOOKED_MAX,
            complete: true,
        }
    }

    fn over(&mut self, rows: &Rows, eyes: &Eyes, workspace: &Workspace) -> Result<()> {
        lanes::look(self, rows, eyes, workspace)?;
        connections::look(self, rows, eyes, workspace)
    }

    fn view(self, rows: &Rows, eyes: &Eyes, node: Option<NodeView>) -> Result<StatusView> {
        let mut connections = self.connections.take();
        connections.iter_mut().try_for_each(|trouble| trouble.name_collections(rows, &eyes.state))?;
        Ok(StatusView {
            lanes: self.lanes.take(),
            connections,
            subscription_totals: self.subscription_totals,
            connection_totals: self.connection_totals,
            complete: self.complete,
            node,
        })
    }
}

/// How bad something is: the smallest is the worst.
trait Rank {
    type Key: Ord;
    fn rank(&self) -> Self::Key;
}

/// Keeps the worst few of many.
struct Worst<T> {
    kept: Vec<T>,
    limit: usize,
}

impl<T: Rank> Worst<T> {
    fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), limit }
    }
    fn push(&mut self, one: T) {
        self.kept.push(one);
        if self.kept.len() >= 4 * self.limit {
            self.cut();
        }
    }
    fn cut(&mut self) {
        self.kept.sort_by_key(Rank::rank);
        self.kept.truncate(self.limit);
    }
    fn take(mut self) -> Vec<T> {
        self.cut();
        self.kept
    }
}

fn limit(call: &Call) -> Result<usize> {
    let Some(text) = call.query("limit") else { return Ok(LIMIT_DEFAULT) };
    match text.parse::<usize>() {
        Ok(limit) if limit > 0 => Ok(limit.min(LIMIT_MAX)),
        _ => Err(Error::new(Code::Malformed, format!("limit: use a number from 1 to {LIMIT_MAX}"))),
    }
}

fn eyes(call: &Call, names_workspaces: bool) -> Eyes {
    Eyes { state: call.state.clone(), now: call.now(), names_workspaces }
}

async fn of_workspace(call: Call) -> Result<Reply> {
    let (limit, home, eyes) = (limit(&call)?, call.home()?.clone(), eyes(&call, false));
    let room = call.state.look()?;
    let read = move |rows: &Rows| {
        let _room = room;
        let mut look = Look::new(limit);
        look.over(rows, &eyes, &home)?;
        look.view(rows, &eyes, None)
    };
    Reply::json(&OneStatus { status: call.read(read).await? })
}

async fn of_node(call: Call) -> Result<Reply> {
    let (limit, eyes) = (limit(&call)?, eyes(&call, true));
    let room = call.state.look()?;
    let read = move |rows: &Rows| {
        let _room = room;
        let mut look = Look::new(limit);
        let mut workspaces = Vec::new();
        rows.every_object::<Workspace>(|workspace| {
            workspaces.push(workspace);
            Ok(())
        })?;
        workspaces.iter().try_for_each(|workspace| look.over(rows, &eyes, workspace))?;
        let node = NodeView::of(&eyes.state, rows, workspaces.len());
        look.view(rows, &eyes, Some(node))
    };
    Reply::json(&OneStatus { status: call.read(read).await? })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Rank for u32 {
        type Key = u32;
        fn rank(&self) -> u32 {
            *self
        }
    }

    #[test]
    fn the_worst_are_kept_however_many_come() {
        let mut worst = Worst::new(3);
        for n in (0..1000).rev().chain(2000..3000) {
            worst.push(n);
            assert!(worst.kept.len() < 12);
        }
        assert_eq!(worst.take(), [0, 1, 2]);
    }
}
