//! HTTP around the engine: what listens where, what the node says of itself, and how it ends.
//!
//! Always true: the node is ready only when everything has started; told to stop, it takes nothing new, ends what is
//! under way, and is gone within `server.drain_seconds`. Not here: what a path answers (`api`).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};

use super::{Engine, wall_clock};
use crate::api::{self, Health, Options, Parts, Phase, State, StreamLimits, SubscriptionDefaults, bootstrap};
use crate::config::Config;
use crate::domain::setting::Signing as Kind;
use crate::domain::subscription::Signing;
use crate::error::{Error, Result};
use crate::store;
use crate::telemetry::Metrics;

/// How often the node looks at itself.
const LOOK: Duration = Duration::from_secs(1);

/// Runs a node on this thread until `stop` is ready.
///
/// # Errors
/// As [`run`].
pub fn block_on(config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    actix_rt::System::new().block_on(run(config, stop))
}

/// Runs a node until `stop` is ready. It must run inside an actix system.
///
/// # Errors
/// When the store is in use or cannot be opened, an address cannot be bound, or what was accepted could not be put on
/// disk at the end.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    let config = Arc::new(config);
    let metrics = Metrics::new().map_err(Error::internal)?;
    let mut engine = Engine::start(config.clone(), wall_clock(), metrics)?;
    // Closed by whichever thread lets go of it last, the store could outlive what RocksDB needs for that, since the process
    // ends then; so it is not closed at all, however this ends. A drain puts everything on disk.
    std::mem::forget(engine.store.clone());
    let health = Arc::new(Health::default());
    let options = api_options(&config);
    bootstrap::run(&engine.store, &engine.clock, &options, &bootstrap::TerminalOrFile).await?;
    let state = State::new(Parts {
        options,
        store: engine.store.clone(),
        clock: engine.clock.clone(),
        rings: engine.rings.clone(),
        metrics: engine.metrics.clone(),
        outlet: engine.outlet.clone(),
        health: health.clone(),
        deps: engine.deps.clone(),
    })?;
    let servers = bind_all(&config, &state)?;
    let handles: Vec<ServerHandle> = servers.iter().map(Server::handle).collect();
    let running: Vec<_> = servers.into_iter().map(actix_rt::spawn).collect();
    let look = actix_rt::spawn(look(engine.pulse.clone(), health.clone()));
    let mut stop = std::pin::pin!(stop);
    if wait_if_paused(&engine, &health, stop.as_mut()).await? {
        engine.go_on()?;
        health.set_phase(Phase::Ready);
        tracing::info!(listen = %config.server.listen, "ready");
        stop.await;
    }
    tracing::info!("draining");
    health.set_phase(Phase::Draining);
    let patience = Duration::from_secs(config.server.drain_seconds.get());
    for handle in handles {
        // A call that hangs must not keep the node: the engine's drain has its own patience below.
        if tokio::time::timeout(patience / 3, handle.stop(true)).await.is_err() {
            handle.stop(false).await;
        }
    }
    running.iter().for_each(tokio::task::JoinHandle::abort);
    look.abort();
    engine.drain(patience / 2).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Whether the node goes on: at once, unless its store was restored; then when its operator lets it. False: it was told to
/// stop before.
async fn wait_if_paused(engine: &Engine, health: &Health, stop: impl Future<Output = ()>) -> Result<bool> {
    let Some(paused) = engine.store.paused()? else { return Ok(true) };
    health.set_phase(Phase::Paused);
    let backup_at = paused.backup_at.rfc3339_seconds();
    tracing::warn!(
        backup_at,
        "restored from a backup: paused until `tidemill resume`; webhooks of apps are kept meanwhile"
    );
    tokio::select! {
        () = stop => Ok(false),
        () = health.resumed() => Ok(true),
    }
}

/// Tells `/health/live` what is stuck.
async fn look(pulse: crate::actors::supervisor::Pulse, health: Arc<Health>) {
    loop {
        health.set_stuck(pulse.stuck().into_iter().map(str::to_owned).collect());
        tokio::time::sleep(LOOK).await;
    }
}

fn bind_all(config: &Config, state: &State) -> Result<Vec<Server>> {
    let mut servers = vec![bind(config, config.server.listen, state, api::configure)?];
    if let Some(address) = config.server.public_listen {
        servers.push(bind(config, address, state, api::configure_public)?);
    }
    if let Some(address) = config.ops.listen {
        servers.push(bind(config, address, state, api::configure_ops)?);
    }
    Ok(servers)
}

fn bind(
    config: &Config,
    address: SocketAddr,
    state: &State,
    configure: fn(&State, &mut ServiceConfig),
) -> Result<Server> {
    let server = &config.server;
    let state = state.clone();
    let workers = super::threads(server.workers).get();
    let http = HttpServer::new(move || {
        let state = state.clone();
        App::new().configure(move |services| configure(&state, services))
    })
    .workers(workers)
    .max_connections(server.connections_max.get())
    .keep_alive(Duration::from_secs(server.keep_alive_seconds.get()))
    .client_request_timeout(Duration::from_secs(server.request_timeout_seconds.get()))
    .shutdown_timeout(server.drain_seconds.get() / 3)
    .disable_signals();
    match http.bind(address) {
        Ok(http) => Ok(http.run()),
        Err(error) => Err(Error::invalid(format!(
            "cannot listen on {address}: is another node running? set another server.listen, public_listen or ops.listen"
        ))
        .because(error)),
    }
}

/// What the API obeys, out of the sections of the configuration.
pub fn api_options(config: &Config) -> Options {
    let (server, security, delivery) = (&config.server, &config.security, &config.delivery);
    let has = |kind: Kind| delivery.signing.contains(&kind);
    let seconds = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Options {
        body_bytes_max: server.body_bytes_max.get(),
        webhook_bytes_max: config.ingest.body_bytes_max.get(),
        read_timeout: Duration::from_secs(server.request_timeout_seconds.get()),
        webhook_answer_timeout: Duration::from_secs(config.ingest.answer_timeout_seconds.get()),
        unverified_bytes_max: unverified_bytes_max(config),
        public_url: server.public_url.clone(),
        trusted_proxies: server.trusted_proxies.clone(),
        listen: server.listen,
        ops_elsewhere: config.ops.listen.is_some(),
        api_key: security.api_key.clone(),
        operator_key: security.operator_key.clone(),
        connect_token_life: Duration::from_secs(security.connect_token_seconds.get()),
        header_prefix: delivery.header_prefix.clone(),
        subscription: SubscriptionDefaults {
            signing: Signing { rsa: has(Kind::Rsa), hmac: has(Kind::Hmac), ed25519: has(Kind::Ed25519) },
            timeout_seconds: seconds(delivery.timeout_seconds.get()),
            max_in_flight: delivery.in_flight_per_subscription.get(),
            max_in_flight_max: u32::try_from(delivery.in_flight_total.get()).unwrap_or(u32::MAX),
        },
        streams: StreamLimits {
            max: server.streams_max.get(),
            per_workspace_max: server.streams_per_workspace_max.get(),
            heartbeat: Duration::from_secs(server.stream_heartbeat_seconds.get()),
        },
        poll_interval_seconds_min: config.polling.interval_seconds_min.get(),
        storage_path: config.storage.path.clone(),
    }
}

/// The share of the disk that webhooks may hold before a script has judged them.
fn unverified_bytes_max(config: &Config) -> u64 {
    store::disk_bytes(&config.storage.path) / 100 * u64::from(config.ingest.unverified_disk_percent_max)
}
