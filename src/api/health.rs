//! `/health/live`, `/health/ready` and `/metrics`, and what the node tells them.
//!
//! Always true: `live` fails only for a stuck actor or thread; a full disk or a third party's failure shows in `ready`,
//! which also fails while starting and draining. Not here: who finds out (`actors::supervisor`, `app`).

use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::call::Call;
use super::reply::Reply;
use super::route::{Access, Route, Surface, group};
use crate::error::{Error, Result};

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    /// A restored store waits until its operator lets it go on.
    Paused,
    Draining,
    /// There is no node: the command line has the store open.
    Stopped,
}

impl Phase {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// How the node is.
pub struct Health {
    phase: watch::Sender<Phase>,
    resumed: Notify,
    stuck: Mutex<Vec<String>>,
    troubles: Mutex<Vec<String>>,
}

impl Default for Health {
    fn default() -> Self {
        let (phase, _) = watch::channel(Phase::Starting);
        Self { phase, resumed: Notify::new(), stuck: Mutex::default(), troubles: Mutex::default() }
    }
}

impl Health {
    /// Says what the node is doing now. It begins as starting.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
    /// What the node is doing.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
    /// Tells what the node is doing whenever that changes.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
    /// Lets a paused node go on.
    pub fn go_on(&self) {
        self.resumed.notify_one();
    }
    /// Waits until it may go on.
    pub async fn resumed(&self) {
        self.resumed.notified().await;
    }
    /// Names the actors and threads that do not move; none is good health.
    pub fn set_stuck(&self, names: Vec<String>) {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
    /// Names what else should keep work away from this node.
    pub fn set_troubles(&self, troubles: Vec<String>) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = troubles;
    }
    fn stuck(&self) -> Vec<String> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct HealthBody {
    /// `ok`, or what it is not.
    status: &'static str,
    /// Why not.
    reasons: Vec<String>,
}

pub(super) fn routes() -> Vec<Route> {
    let ops = |route: Route| route.only(Access::Open).at(Surface::Ops);
    let live = ops(Route::get("/health/live", "Whether every actor and thread moves", live)).gives::<HealthBody>();
    let ready = ops(Route::get("/health/ready", "Whether the node takes work", ready)).gives::<HealthBody>();
    let metrics = ops(Route::get("/metrics", "Prometheus metrics", metrics)).content_type(METRICS_TYPE);
    group("operate", vec![live, ready, metrics])
}

async fn live(call: Call) -> Result<Reply> {
    let reasons = call.state.health.stuck();
    body(if reasons.is_empty() { "ok" } else { "stuck" }, reasons)
}

async fn ready(call: Call) -> Result<Reply> {
    let (health, store) = (&call.state.health, &call.state.store);
    let mut reasons = health.troubles();
    reasons.extend(health.stuck().into_iter().map(|name| format!("{name} is stuck")));
    if store.is_full() {
        reasons.push("the disk is nearly full, or too much waits to be written".to_owned());
    }
    let status = match health.phase() {
        phase @ (Phase::Starting | Phase::Draining | Phase::Stopped) => phase.name(),
        Phase::Paused => {
            reasons.push("restored from a backup: nothing is polled or delivered until POST /node/resume".to_owned());
            "paused"
        }
        Phase::Ready if reasons.is_empty() => "ok",
        Phase::Ready => "troubled",
    };
    body(status, reasons)
}

fn body(status: &'static str, reasons: Vec<String>) -> Result<Reply> {
    let code = if status == "ok" { 200 } else { 503 };
    Ok(Reply::json(&HealthBody { status, reasons })?.with_status(code))
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4";

async fn metrics(call: Call) -> Result<Reply> {
    let state = &call.state;
    let flights = state.outlet.flights.clone();
    state.gauges.refresh(&state.store, flights, &state.metrics, state.clock.now()).await?;
    Ok(Reply::text(METRICS_TYPE, state.metrics.encode().map_err(Error::internal)?))
}
