//! The composition root: opens the store, starts the actors, binds HTTP (`serve`), and drains.
//!
//! Always true: nothing is started twice; what was accepted is on disk before the process ends; a drain takes no longer
//! than `server.drain_seconds`. Not here: what any of the parts does.

pub mod desk;
pub mod doctor;
pub mod offline;
mod serve;
pub mod trial;

pub use serve::{api_options, block_on, run};

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::actors::Deps;
use crate::actors::alarm::Alarm;
use crate::actors::courier::Desk;
use crate::actors::courier::outlet::{self, MakePost, Outlet};
use crate::actors::eraser::{self, Eraser};
use crate::actors::handle::Rings;
use crate::actors::janitor::Janitor;
use crate::actors::replayer::{self, Replayer};
use crate::actors::router::Router;
use crate::actors::supervisor::{Pulse, Supervisor};
use crate::actors::watcher::Watchers;
use crate::clock::Clock;
use crate::config::Config;
use crate::connectors::Registry;
use crate::destinations::Post;
use crate::destinations::driver::Kind;
use crate::destinations::http::signer::Signer;
pub use crate::destinations::http::verify;
use crate::destinations::http::{Http, HttpOptions};
use crate::domain::address::Policy;
use crate::domain::flow::Limits;
use crate::domain::retry::{Pace, Schedule};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::outbound::{self, Client, PoolOptions, Proxy, Trust};
use crate::store::{self, Stops, Store};
use crate::telemetry::Metrics;

/// Threads on which actors run. They only look and decide, so one serves many thousands of lanes.
const ACTOR_THREADS: usize = 1;
/// Threads that call apps.
const APP_THREADS: usize = 2;
/// Bodies kept for other subscribers of the same event, and for retries.
const BODIES_BYTES_MAX: usize = 32 << 20;
/// How often the janitor measures, and a store that could not write is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// How often an actor looks whether or not anybody rang, which heals lost rings.
const TICK: Duration = Duration::from_secs(5);

/// The running engine: everything but HTTP. It must be started inside an actix system.
pub struct Engine {
    pub config: Arc<Config>,
    pub store: Store,
    pub clock: Clock,
    pub rings: Rings,
    pub metrics: Metrics,
    pub outlet: Arc<Outlet>,
    pub pulse: Pulse,
    /// What the watchers work with.
    pub deps: Deps,
    tasks: Vec<JoinHandle<()>>,
    supervisor: Option<Supervisor>,
    /// Where apps are called; its threads end with the engine.
    _apps: AppsRuntime,
}

/// What stands in for the world around the engine: for tests. The default is the world.
#[derive(Clone, Default)]
pub struct Seams {
    /// Makes the driver of each runtime, in place of the guarded HTTP client.
    pub driver: Option<MakePost>,
    /// Where the store dies.
    pub stops: Stops,
    /// Kinds of destinations beside those of the build.
    pub kinds: &'static [&'static Kind],
}

/// Ends its threads without waiting for what hangs in them.
struct AppsRuntime(Option<tokio::runtime::Runtime>);

impl Drop for AppsRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Engine {
    /// Opens the store and starts the actors, unless the store is paused: then `go_on` starts them.
    ///
    /// # Errors
    /// When the store cannot be opened, or a setting cannot be obeyed.
    pub fn start(config: Arc<Config>, clock: Clock, metrics: Metrics) -> Result<Self> {
        Self::start_with(config, clock, metrics, Seams::default())
    }

    /// The same with something in place of the world.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_with(config: Arc<Config>, clock: Clock, metrics: Metrics, seams: Seams) -> Result<Self> {
        let mut engine = Self::open_with(config.clone(), clock, metrics.clone(), seams)?;
        let stuck_after = Duration::from_secs(config.ops.stuck_after_seconds.get());
        let supervisor = Supervisor::start(ACTOR_THREADS, metrics, stuck_after);
        engine.pulse = supervisor.pulse();
        engine.supervisor = Some(supervisor);
        if engine.store.paused()?.is_none() {
            engine.go_on()?;
        }
        Ok(engine)
    }

    /// Starts the actors: events are routed and delivered, apps polled. They start once.
    ///
    /// # Errors
    /// When what they begin with cannot be read.
    pub fn go_on(&mut self) -> Result<()> {
        match self.supervisor.take() {
            Some(supervisor) => self.start_actors(&supervisor),
            None => Ok(()),
        }
    }

    /// Opens the store and makes everything, and starts no actor: nothing is polled, routed or delivered.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn open(config: Arc<Config>, clock: Clock, metrics: Metrics) -> Result<Self> {
        Self::open_with(config, clock, metrics, Seams::default())
    }

    fn open_with(config: Arc<Config>, clock: Clock, metrics: Metrics, seams: Seams) -> Result<Self> {
        let key = store::master_key(&config.storage.path, config.security.master_key.as_ref())?;
        let commit = metrics.commit.clone();
        let told = Arc::new(move |seconds| commit.observe(seconds));
        let store = Store::open_with(&config.storage, &key, &clock, told, seams.stops)?;
        let opened = store.clone();
        Self::around(store, config, clock, metrics, (seams.driver, seams.kinds)).inspect_err(|_| opened.close())
    }

    /// Everything around an opened store.
    fn around(
        store: Store,
        config: Arc<Config>,
        clock: Clock,
        metrics: Metrics,
        (driver, kinds): (Option<MakePost>, &'static [&'static Kind]),
    ) -> Result<Self> {
        let rings = Rings::default();
        let trust = Trust::load(&config.tls)?;
        let connectors =
            Registry::load(&config.connectors, &config.scripts).map_err(|e| Error::invalid(e.to_string()))?;
        let apps = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(APP_THREADS)
            .thread_name("apps")
            .enable_all()
            .build()
            .map_err(Error::internal)?;
        // The client's connections live where it is made.
        let inside = apps.enter();
        let client = apps_client(&config, trust.clone())?;
        drop(inside);
        let deps = Deps {
            memory: Arc::default(),
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            connectors: Arc::new(connectors),
            apps: client,
            rings: rings.clone(),
            polling: Arc::new(config.polling.clone()),
            handle_tries_max: config.ingest.handle_tries_max.get(),
            runtime: apps.handle().clone(),
            public_url: reachable(&config),
        };
        let _apps = AppsRuntime(Some(apps));
        let threads = threads(config.delivery.threads);
        let outlet = Arc::new(Outlet::start(
            (store.clone(), clock.clone(), rings.clone(), metrics.clone()),
            outlet::Options { kinds, ..outlet_options(&config)? },
            threads,
            &driver.map_or_else(|| make_driver(&config, trust), Ok)?,
        )?);
        let (pulse, tasks) = (Pulse::default(), Vec::new());
        let supervisor = None;
        Ok(Self { config, store, clock, rings, metrics, outlet, pulse, deps, tasks, supervisor, _apps })
    }

    fn start_actors(&mut self, supervisor: &Supervisor) -> Result<()> {
        let (store, clock, rings) = (self.store.clone(), self.clock.clone(), self.rings.clone());
        let probed = store.clone();
        self.tasks.push(actix_rt::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                probed.probe().await;
            }
        }));
        let (bell, mut durable) = (rings.clone(), store.durable());
        // Events become readable when they are durable, so the watermark itself is the router's bell.
        let ring = rings.clone();
        self.tasks.push(actix_rt::spawn(async move {
            while durable.changed().await.is_ok() {
                ring.router();
            }
        }));
        let make = {
            let (store, clock, rings) = (store.clone(), clock.clone(), rings.clone());
            let deaths = self.outlet.deaths.clone();
            move || Router::new(store.clone(), clock.clone(), rings.clone(), deaths.clone())
        };
        let rung = move || {
            let bell = bell.clone();
            async move { bell.router_rung().await }
        };
        self.tasks.push(actix_rt::spawn(supervisor.clone().keep("router", TICK, rung, make)));
        let bell = rings.clone();
        let rung = move || {
            let bell = bell.clone();
            async move { bell.alarm_set().await }
        };
        let make = move || Alarm::new(rings.clone(), clock.clone());
        self.tasks.push(actix_rt::spawn(supervisor.clone().keep("alarm", TICK, rung, make)));
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let (retention, metrics) = (self.config.retention.clone(), self.metrics.clone());
        let make = move || Janitor::new(store.clone(), clock.clone(), retention.clone(), metrics.clone());
        self.tasks.push(actix_rt::spawn(supervisor.clone().keep("janitor", LOOK, std::future::pending, make)));
        self.start_replayer(supervisor);
        self.start_eraser(supervisor);
        let watchers = Watchers::new(self.deps.clone());
        watchers.open()?;
        let bell = watchers.clone();
        let rung = move || {
            let bell = bell.clone();
            async move { bell.rung().await }
        };
        let make = move || watchers.actor();
        self.tasks.push(actix_rt::spawn(supervisor.clone().keep("watcher", TICK, rung, make)));
        let desk = Desk::new(self.outlet.clone(), supervisor.clone());
        desk.open()?;
        self.tasks.push(actix_rt::spawn(desk.run()));
        Ok(())
    }

    fn start_replayer(&mut self, supervisor: &Supervisor) {
        let tools = replayer::Tools {
            store: self.store.clone(),
            clock: self.clock.clone(),
            rings: self.rings.clone(),
            flights: self.outlet.flights.clone(),
        };
        let bell = self.rings.clone();
        let rung = move || {
            let bell = bell.clone();
            async move { bell.replays_rung().await }
        };
        let make = move || Replayer::new(tools.clone());
        self.tasks.push(actix_rt::spawn(supervisor.clone().keep("replayer", TICK, rung, make)));
    }

    fn start_eraser(&mut self, supervisor: &Supervisor) {
        let tools = eraser::Tools { deps: self.deps.clone(), outlet: self.outlet.clone() };
        let bell = self.rings.clone();
        let rung = move || {
            let bell = bell.clone();
            async move { bell.erasures_rung().await }
        };
        let make = move || Eraser::new(tools.clone());
        self.tasks.push(actix_rt::spawn(supervisor.clone().keep("eraser", TICK, rung, make)));
    }

    /// Ends it on the spot: no attempt is waited for, and nothing more is put on disk. What is in the store is what a process
    /// that dies leaves.
    pub fn abandon(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Stops claiming, lets attempts under way end for at most `patience`, and puts everything on disk.
    pub async fn drain(self, patience: Duration) -> Result<()> {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.outlet.drain(patience).await;
        self.store.settle().await
    }
}

fn threads(wanted: Option<NonZeroUsize>) -> NonZeroUsize {
    wanted.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

fn outlet_options(config: &Config) -> Result<outlet::Options> {
    let delivery = &config.delivery;
    let schedule = Schedule::new(delivery.retry_schedule_seconds.clone())
        .map_err(|e| Error::invalid(format!("delivery.retry_schedule_seconds: {e}")))?;
    let pace = Pace {
        schedule,
        jitter_percent: delivery.retry_jitter_percent,
        retry_after_max: Duration::from_secs(delivery.retry_after_seconds_max.get()),
    };
    let limits = Limits {
        window_start: delivery.window_start.get(),
        breaker_failures: delivery.breaker_failures.get(),
        recovery_per_second: delivery.recovery_per_second.get(),
        disable_after: Duration::from_secs(delivery.disable_after_seconds.get()),
    };
    Ok(outlet::Options {
        pace,
        limits,
        in_flight_total: delivery.in_flight_total,
        bodies_bytes_max: BODIES_BYTES_MAX,
        key_overlap: Duration::from_secs(config.security.key_overlap_seconds.get()),
        files: config.destinations.files_path.clone(),
        kinds: &[],
    })
}

/// The public URL, if apps can reach it. Loopback counts only where apps may be on loopback too.
fn reachable(config: &Config) -> Option<url::Url> {
    let url = config.server.public_url.clone()?;
    let ip: std::net::IpAddr = match url.host()? {
        url::Host::Ipv4(ip) => ip.into(),
        url::Host::Ipv6(ip) => ip.into(),
        url::Host::Domain(name) if name == "localhost" || name.ends_with(".localhost") => {
            std::net::Ipv4Addr::LOCALHOST.into()
        }
        url::Host::Domain(_) => return Some(url),
    };
    let listed = config.ingest.allow_networks.iter().any(|network| network.contains(&ip));
    (!ip.is_loopback() || listed).then_some(url)
}

/// The client for calls to apps, on the runtime that makes the calls.
fn apps_client(config: &Config, trust: Trust) -> Result<Client> {
    let policy = Arc::new(Policy::new(config.ingest.allow_networks.clone(), false));
    Client::with_trust(&outbound_options(config, config.ingest.proxy_url.as_ref())?, trust, policy)
}

/// The options of a client that leaves by this proxy.
fn outbound_options(config: &Config, proxy: Option<&Secret>) -> Result<outbound::Options> {
    let pool = PoolOptions {
        connect_timeout: Duration::from_secs(config.delivery.connect_timeout_seconds.get()),
        idle_timeout: Duration::from_secs(config.delivery.idle_seconds_max.get()),
        idle_per_host: config.delivery.idle_per_host_max.get(),
    };
    let proxy = proxy.map(Proxy::parse).transpose().map_err(|e| Error::invalid(format!("proxy_url: {e}")))?;
    Ok(outbound::Options { tls: config.tls.clone(), dns: config.dns.clone(), pool, proxy })
}

fn make_driver(config: &Config, trust: Trust) -> Result<MakePost> {
    let delivery = &config.delivery;
    let policy = Arc::new(Policy::new(delivery.allow_networks.clone(), delivery.allow_http));
    let options = outbound_options(config, delivery.proxy_url.as_ref())?;
    let http = HttpOptions {
        header_prefix: delivery.header_prefix.clone(),
        read_limit: delivery.answer_bytes_read_max.get(),
        kept_max: delivery.answer_bytes_kept_max.get(),
    };
    let signer = match delivery.signing_threads {
        Some(threads) => Signer::start(threads, delivery.in_flight_total)?,
        None => Signer::inline(),
    };
    Ok(Arc::new(move || {
        let client = Client::with_trust(&options, trust.clone(), policy.clone())?;
        Ok(Arc::new(Http::new(client, signer.clone(), &http)?) as Arc<dyn Post>)
    }))
}

/// The machine's clock; the store raises it to the highest time it has seen.
pub fn wall_clock() -> Clock {
    Clock::start(Millis(0))
}
