//! A store that no node uses, opened to be changed from the command line.
//!
//! Always true: nothing is delivered, polled or served meanwhile; what a call answered is on disk. Not here: what a call
//! does (`api`), arguments and printing (`cli`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Engine, api_options, wall_clock};
use crate::api::{Health, Parts, Phase, State, inside};
use crate::config::Config;
use crate::domain::workspace::Workspace;
use crate::error::{Error, Result};
use crate::store;
use crate::telemetry::Metrics;

/// Whether the command line works on the store itself: there is one, and no node has it open.
pub fn is_free(config: &Config) -> bool {
    let path = &config.storage.path;
    store::exists(path) && !store::in_use(path)
}

/// The opened store; it is closed with this.
pub struct Desk {
    runtime: actix_rt::SystemRunner,
    /// None: closed.
    open: Option<(Engine, State)>,
    workspace: Workspace,
}

impl Desk {
    /// Opens the store for a workspace, by name or id; None: the default one.
    ///
    /// # Errors
    /// The store cannot be opened, or there is no such workspace.
    pub fn open(config: Config, workspace: Option<&str>) -> Result<Self> {
        let runtime = actix_rt::System::new();
        let config = Arc::new(config);
        let metrics = Metrics::new().map_err(Error::internal)?;
        let engine = runtime.block_on(async { Engine::open(config.clone(), wall_clock(), metrics) })?;
        let health = Arc::new(Health::default());
        health.set_phase(Phase::Stopped);
        let parts = Parts {
            options: api_options(&config),
            store: engine.store.clone(),
            clock: engine.clock.clone(),
            rings: engine.rings.clone(),
            metrics: engine.metrics.clone(),
            outlet: engine.outlet.clone(),
            health,
            deps: engine.deps.clone(),
        };
        let found = State::new(parts).and_then(|state| Ok((inside::workspace(&state, workspace)?, state)));
        match found {
            Ok((workspace, state)) => Ok(Self { runtime, open: Some((engine, state)), workspace }),
            Err(error) => {
                end(&runtime, engine)?;
                Err(error)
            }
        }
    }

    /// One call of the API: status and JSON.
    pub fn call(&self, method: &str, uri: &str, body: Option<&Value>) -> (u16, String) {
        let Some((_, state)) = &self.open else { return (503, String::new()) };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let call = inside::call(state, self.workspace.clone(), method, uri, body);
        let (status, body) = self.runtime.block_on(call);
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Closes the store.
    ///
    /// # Errors
    /// What was changed could not be put on disk.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some((engine, state)) = self.open.take() else { return Ok(()) };
        drop(state);
        end(&self.runtime, engine)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Whoever wants to know has called `close`.
        let _ = self.end();
    }
}

/// A process that ends while another thread closes the store is aborted.
fn end(runtime: &actix_rt::SystemRunner, engine: Engine) -> Result<()> {
    let store = engine.store.clone();
    let drained = runtime.block_on(engine.drain(Duration::ZERO));
    store.close();
    drained
}
