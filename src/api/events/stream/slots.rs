//! How many streams may be open: on the node, and of one workspace.
//!
//! Always true: a stream that ends, by whatever way, gives its place back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::state::State;
use crate::domain::id::WorkspaceNo;
use crate::error::{Code, Error, Result};
use crate::telemetry::Metrics;

const RETRY_AFTER_SECONDS: u32 = 10;

/// What the configuration says of streams.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// On the node.
    pub max: usize,
    /// Of one workspace.
    pub per_workspace_max: usize,
    /// A stream that says nothing for so long sends a comment.
    pub heartbeat: Duration,
}

/// The streams that are open, by workspace.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<WorkspaceNo, usize>>>);

/// The place of one stream.
pub(super) struct Slot {
    streams: Streams,
    workspace: WorkspaceNo,
    metrics: Metrics,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceNo, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place: 429 when the workspace has no more, 503 when the node has none.
    pub(super) fn open(&self, state: &State, workspace: WorkspaceNo) -> Result<Slot> {
        let limits = state.options.streams;
        let mut open = self.lock();
        if open.get(&workspace).is_some_and(|own| *own >= limits.per_workspace_max) {
            let message = format!("this workspace has {} streams open; close one", limits.per_workspace_max);
            return Err(Error { retry_after: Some(RETRY_AFTER_SECONDS), ..Error::new(Code::TooManyRequests, message) });
        }
        if open.values().sum::<usize>() >= limits.max {
            return Err(Error::unavailable("the node has as many streams open as it may", RETRY_AFTER_SECONDS));
        }
        *open.entry(workspace).or_default() += 1;
        state.metrics.event_streams.inc();
        Ok(Slot { streams: self.clone(), workspace, metrics: state.metrics.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        let left = open.get(&self.workspace).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            open.remove(&self.workspace);
        } else {
            open.insert(self.workspace, left);
        }
        self.metrics.event_streams.dec();
    }
}
