//! Thin shells, one file per trade: they are rung, look in the store, and do what is due.
//!
//! Always true: a message carries nothing that is not in the store; a lost ring costs latency, never an event. Not here:
//! the rules (`domain`), the rows (`store`), the calls to apps and receivers (`connectors`, `destinations`).

pub mod alarm;
pub mod courier;
pub mod eraser;
pub mod handle;
pub mod janitor;
pub mod options;
pub mod replayer;
pub mod router;
pub mod supervisor;
pub mod watcher;

use std::sync::Arc;

use crate::clock::Clock;
use crate::connectors::Registry;
use crate::outbound::Client;
use crate::store::Store;
use crate::telemetry::Metrics;

/// What every actor works with; cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    pub connectors: Arc<Registry>,
    /// For calls to apps, under the policy of `ingest.allow_networks`.
    pub apps: Client,
    pub rings: handle::Rings,
    pub polling: Arc<options::Polling>,
    /// How often a webhook is tried to be understood before it is parked.
    pub handle_tries_max: u32,
    /// Where apps are called: looks run here, off the actors' threads. `apps` belongs to it.
    pub runtime: tokio::runtime::Handle,
    /// What watchers remember between two looks.
    pub memory: Arc<watcher::Memory>,
    /// `server.public_url`, if apps can reach it.
    pub public_url: Option<url::Url>,
}
