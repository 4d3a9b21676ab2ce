//! What concerns the node as a whole: for the operator only.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::state::State;
use crate::store::{self, Rows};

/// The node.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeView {
    version: &'static str,
    workspaces: usize,
    /// The store's files and memory tables.
    store_bytes: u64,
    disk_bytes: u64,
    disk_free_bytes: u64,
    /// New work is refused with 503: the disk is nearly full, or too much waits to be written.
    refuses_work: bool,
    /// The last write or sync failed.
    store_broken: bool,
    /// Changes that wait for the writer.
    commits_waiting: usize,
    commits_waiting_max: usize,
    /// Seconds since the start in which the store slowed or stopped writes.
    store_stall_seconds: f64,
}

impl NodeView {
    pub(super) fn of(state: &State, rows: &Rows, workspaces: usize) -> Self {
        let (commits_waiting, commits_waiting_max) = state.store.queue();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            workspaces,
            store_bytes: rows.bytes(),
            disk_bytes: store::disk_bytes(&state.options.storage_path),
            disk_free_bytes: state.store.free_bytes(),
            refuses_work: state.store.is_full(),
            store_broken: state.store.is_broken(),
            commits_waiting,
            commits_waiting_max,
            store_stall_seconds: rows.stall_seconds(),
        }
    }
}
