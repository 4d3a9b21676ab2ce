//! What every call works with.
//!
//! Always true: clones are the same state. Not here: how its parts are made (`app`).

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::KeyCache;
use super::connect::Visits;
use super::events::Streams;
use super::gauges::Gauges;
use super::health::Health;
use super::idempotency::Running;
use super::ingest::Doors;
use super::options::Options;
use crate::actors::Deps;
use crate::actors::courier::outlet::Outlet;
use crate::actors::handle::Rings;
use crate::clock::Clock;
use crate::connectors::{Connector, ConnectorEvent};
use crate::destinations::Post;
use crate::error::{Code, Error, Result};
use crate::store::Store;
use crate::telemetry::Metrics;

/// How many tests of subscriptions may run at the same time.
const TESTS_MAX: usize = 8;
/// How many exports of deliveries may run at the same time.
const EXPORTS_MAX: usize = 16;
/// How many calls may be passed through to apps at the same time.
const FORWARDS_MAX: usize = 64;

/// How many looks over everything may run at the same time.
const LOOKS_MAX: usize = 8;

/// What the API is given.
pub struct Parts {
    pub options: Options,
    pub store: Store,
    pub clock: Clock,
    pub rings: Rings,
    pub metrics: Metrics,
    /// The way out: it judges addresses, tries destinations out and holds the workspaces' signing keys.
    pub outlet: Arc<Outlet>,
    pub health: Arc<Health>,
    /// What the watchers work with.
    pub deps: Deps,
}

/// The API's state; clones are the same.
#[derive(Clone)]
pub struct State(Arc<Inner>);

/// What is in it.
pub struct Inner {
    pub options: Options,
    pub store: Store,
    pub clock: Clock,
    pub rings: Rings,
    pub metrics: Metrics,
    /// The way out: it judges addresses, tries destinations out and holds the workspaces' signing keys.
    pub outlet: Arc<Outlet>,
    /// Judges addresses; it sends nothing here.
    pub driver: Arc<dyn Post>,
    pub health: Arc<Health>,
    pub gauges: Gauges,
    /// What the watchers work with.
    pub deps: Deps,
    pub doors: Doors,
    pub keys: KeyCache,
    pub running: Running,
    pub visits: Visits,
    pub streams: Streams,
    pub tests: tokio::sync::Semaphore,
    /// One backup is made at a time.
    pub backups: tokio::sync::Mutex<()>,
    /// Drawn at the start: tells this process from others.
    pub instance: String,
    looks: Arc<Semaphore>,
    pub exports: Arc<tokio::sync::Semaphore>,
    pub forwards: Arc<tokio::sync::Semaphore>,
}

impl State {
    /// The state of one node.
    ///
    /// # Errors
    /// There is no driver.
    pub fn new(parts: Parts) -> Result<Self> {
        let Parts { options, store, clock, rings, metrics, outlet, health, deps } = parts;
        let (_, driver) = outlet.driver().ok_or_else(|| Error::internal("there is no way out of the node"))?;
        Ok(Self(Arc::new(Inner {
            options,
            store,
            clock,
            rings,
            metrics,
            outlet,
            driver,
            health,
            gauges: Gauges::default(),
            deps,
            doors: Doors::default(),
            keys: KeyCache::default(),
            running: Running::default(),
            visits: Visits::default(),
            streams: Streams::default(),
            tests: tokio::sync::Semaphore::new(TESTS_MAX),
            backups: tokio::sync::Mutex::default(),
            instance: super::integrations::token()?,
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            exports: Arc::new(tokio::sync::Semaphore::new(EXPORTS_MAX)),
            forwards: Arc::new(tokio::sync::Semaphore::new(FORWARDS_MAX)),
        })))
    }
}

impl Deref for State {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl State {
    /// Room for a look that goes over much. It goes with the look itself, which runs on when its caller hangs up.
    pub(super) fn look(&self) -> Result<OwnedSemaphorePermit> {
        let busy = |_| {
            let message = "too many such looks run at once; ask again in a moment";
            Error { retry_after: Some(1), ..Error::new(Code::TooManyRequests, message) }
        };
        self.looks.clone().try_acquire_owned().map_err(busy)
    }

    /// Topics of connectors' own events: `<connector>/<event>`. The catalogue does not have them.
    pub fn connector_topics(&self) -> Vec<String> {
        let of = |connector: &Arc<Connector>| {
            let name = |event: &ConnectorEvent| format!("{}/{}", connector.key, event.key);
            connector.events.iter().filter(|event| event.collection.is_none()).map(name).collect::<Vec<_>>()
        };
        self.deps.connectors.all().flat_map(of).collect()
    }
}
