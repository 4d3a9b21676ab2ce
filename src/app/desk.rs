//! A store that no node uses, opened to be changed from the command line.
//!
//! Always true: nothing is delivered, polled or served meanwhile; what a call answered is on disk. Not here: what a call
//! does (`api`), arguments and printing (`cli`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Engine, api_options, wall_clock};
use crate::api::{Health, Parts, State, inside};
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

/// The opened store.
pub struct Desk {
    runtime: actix_rt::SystemRunner,
    engine: Engine,
    state: State,
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
        let (engine, state) = runtime.block_on(async {
            let engine = Engine::open(config.clone(), wall_clock(), metrics)?;
            let state = State::new(Parts {
                options: api_options(&config),
                store: engine.store.clone(),
                clock: engine.clock.clone(),
                rings: engine.rings.clone(),
                metrics: engine.metrics.clone(),
                outlet: engine.outlet.clone(),
                health: Arc::new(Health::default()),
                deps: engine.deps.clone(),
            })?;
            Ok::<_, Error>((engine, state))
        })?;
        let workspace = inside::workspace(&state, workspace)?;
        Ok(Self { runtime, engine, state, workspace })
    }

    /// One call of the API: status and JSON.
    pub fn call(&self, method: &str, uri: &str, body: Option<&Value>) -> (u16, String) {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let call = inside::call(&self.state, self.workspace.clone(), method, uri, body);
        let (status, body) = self.runtime.block_on(call);
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Closes the store.
    ///
    /// # Errors
    /// What was changed could not be put on disk.
    pub fn close(self) -> Result<()> {
        let Self { runtime, engine, state, .. } = self;
        let store = engine.store.clone();
        drop(state);
        runtime.block_on(engine.drain(Duration::ZERO))?;
        store.close();
        Ok(())
    }
}
