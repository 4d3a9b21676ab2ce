//! A stand-in third-party app, a small CRM and shop in memory, for trying Tidemill out and for tests.
//!
//! ```text
//! rest ─┐                    ┌─ table, paging   what is there, and how lists are cut
//! hooks ┼─▶ app ─▶ world ────┼─ seed, stream    how it began, and what happens by itself
//! control ┤   ▲              └─ grants          who may read which account
//! oauth ┘   faults
//! ```
//!
//! Always true: it is a third party and knows nothing of Tidemill but its nouns for time; the same seed gives the same
//! records and the same changes; everything has a limit. Not here: a password. Whoever reaches its port may do
//! anything, so it belongs on loopback.

mod app;
mod control;
mod faults;
mod grants;
mod hooks;
mod oauth;
mod paging;
mod refusal;
mod rest;
mod seed;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod world;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App as HttpApp, HttpServer, web};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::app::App;
use self::refusal::Refusal;
use self::world::{Outgoing, World};
use crate::clock::Clock;
use crate::error::{Error, Result};

pub use self::faults::{Fault, Wrong};
pub use self::hooks::signature;
pub use self::paging::PastTheEnd;
pub use self::table::Collection;
pub use self::world::Settings;

/// Bytes of one request body.
const BODY_MAX: usize = 256 * 1024;
/// Webhooks that wait to be sent.
const OUTGOING_MAX: usize = 10_000;
const TICK: Duration = Duration::from_millis(100);
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How a sandbox is made.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value_t = Options::default().listen)]
    pub listen: SocketAddr,
    /// Changes that happen by themselves, over all accounts
    #[arg(long, default_value_t = Options::default().changes_per_minute)]
    pub changes_per_minute: u32,
    /// The same seed gives the same records and changes
    #[arg(long, default_value_t = Options::default().seed)]
    pub seed: u64,
    /// Accounts acc_1, acc_2, … with the API keys sandbox-key-1, sandbox-key-2, …
    #[arg(long, default_value_t = Options::default().accounts, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub accounts: u32,
    /// How many times the usual number of records (218 per account) it starts with
    #[arg(long, default_value_t = Options::default().scale, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub scale: u32,
    /// Records of one collection of one account, at most
    #[arg(long, default_value_t = Options::default().records_max)]
    pub records_max: u32,
    /// Requests per second and account before it answers 429; 0 for no limit
    #[arg(long, default_value_t = Options::default().requests_per_second)]
    pub requests_per_second: u32,
    /// The developer's key, for PUT /app/webhook
    #[arg(long, default_value_t = Options::default().app_key)]
    pub app_key: String,
    /// The client that may send people to /oauth/authorize
    #[arg(long, default_value_t = Options::default().client_id)]
    pub client_id: String,
    /// Its secret
    #[arg(long, default_value_t = Options::default().client_secret)]
    pub client_secret: String,
    /// Keep the records in this file and go on from it
    #[arg(long)]
    pub state: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            changes_per_minute: 12,
            seed: 1,
            accounts: 3,
            scale: 1,
            records_max: 10_000,
            requests_per_second: 50,
            app_key: "sandbox-app-key".into(),
            client_id: "sandbox-client".into(),
            client_secret: "sandbox-client-secret".into(),
            state: None,
        }
    }
}

impl Options {
    /// For tests: a free port, and nothing happens unasked.
    pub fn quiet() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            changes_per_minute: 0,
            requests_per_second: 0,
            ..Self::default()
        }
    }
}

/// A running sandbox. Dropping it stops it soon; [`Handle::stop`] waits for that.
pub struct Handle {
    addr: SocketAddr,
    server: ServerHandle,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
    /// `http://127.0.0.1:7400`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
    /// The API key of the account with this number, from 1, unless a test has changed it.
    pub fn key(&self, account: usize) -> String {
        world::Account::new(account).key
    }
    /// Stops it and, where it has a state file, saves.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        self.server.stop(true).await;
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        drop(self.server.stop(false));
    }
}

/// Starts a sandbox within the caller's tokio runtime.
pub async fn run(options: Options, clock: Clock) -> Result<Handle> {
    let world = world(&options)?;
    let (sender, outgoing) = mpsc::channel::<Outgoing>(OUTGOING_MAX);
    let rng = fastrand::Rng::with_seed(options.seed.wrapping_add(world.number()));
    let app = web::Data::new(App::new(world, rng, clock, &options, sender));
    let listener = TcpListener::bind(options.listen)
        .map_err(|e| Error::invalid(format!("cannot listen on {}", options.listen)).because(e))?;
    let addr = listener.local_addr().map_err(Error::internal)?;
    let shared = app.clone();
    let server = HttpServer::new(move || {
        HttpApp::new()
            .app_data(shared.clone())
            .app_data(web::PayloadConfig::new(BODY_MAX))
            .app_data(json_config())
            .app_data(web::QueryConfig::default().error_handler(|e, _| Refusal::malformed(e.to_string()).into()))
            .configure(control::routes)
            .service(
                web::scope("")
                    .wrap(from_fn(faults::meet))
                    .configure(oauth::routes)
                    .configure(hooks::routes)
                    .configure(rest::routes),
            )
            .default_service(web::to(|| async {
                actix_web::HttpResponse::from_error(Refusal::not_found("no such path"))
            }))
    })
    .workers(1)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)
    .map_err(Error::internal)?
    .run();
    let handle = server.handle();
    let (stop, stopped) = watch::channel(false);
    let mut tasks = vec![
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the sandbox's server failed");
            }
        }),
        tokio::spawn(hooks::send_all(app.clone(), client()?, outgoing, stopped.clone())),
        tokio::spawn(stream_changes(app.clone(), stopped.clone())),
    ];
    if let Some(path) = options.state {
        tasks.push(tokio::spawn(save_changes(app, path, stopped)));
    }
    Ok(Handle { addr, server: handle, stop, tasks })
}

fn json_config() -> web::JsonConfig {
    web::JsonConfig::default().limit(BODY_MAX).error_handler(|error, _| {
        let refusal = Refusal::malformed(error.to_string());
        refusal.into()
    })
}

/// The world of the state file, else a new one.
fn world(options: &Options) -> Result<World> {
    let records_max = usize::try_from(options.records_max).unwrap_or(usize::MAX);
    let mut world = match options.state.as_deref().map(read_state).transpose()?.flatten() {
        Some(world) => world,
        None => {
            let mut world = World::new(usize::try_from(options.accounts).unwrap_or(1), records_max);
            world.records_max = records_max;
            seed::fill(&mut world, options.seed, usize::try_from(options.scale).unwrap_or(1));
            world
        }
    };
    world.records_max = records_max;
    world.settings.changes_per_minute = options.changes_per_minute;
    world.settings.requests_per_second = options.requests_per_second;
    Ok(world)
}

fn read_state(path: &Path) -> Result<Option<World>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::invalid(format!("cannot read {}", path.display())).because(error)),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Error::invalid(format!("{} is not a sandbox's state; delete it to begin anew", path.display())).because(error)
    })
}

fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(Error::internal)
}

/// Lets things happen, spread evenly, as many per minute as the settings say.
async fn stream_changes(app: web::Data<App>, mut stop: watch::Receiver<bool>) {
    // In changes per tick and minute, so that nothing is rounded away.
    let mut due = 0_u64;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let whole = 60_000;
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
        }
        hooks::expire(&app);
        let rate = app.read(|world, _| u64::from(world.settings.changes_per_minute));
        due = (due + rate * 100).min(whole * 1_000);
        while due >= whole {
            due -= whole;
            let happened = app.change(|world, rng, now| {
                let place = rng.usize(..world.accounts.len().max(1));
                stream::happen(world, rng, place, now)
            });
            if let Err(refusal) = happened {
                tracing::debug!(%refusal, "a change of the sandbox was refused");
            }
        }
    }
}

/// Saves the world after changes, at most once a second, and when it stops.
async fn save_changes(app: web::Data<App>, path: PathBuf, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(SAVE_EVERY);
    loop {
        let stopping = tokio::select! {
            _ = stop.changed() => true,
            _ = ticks.tick() => false,
        };
        if app.dirty.swap(false, Ordering::Relaxed) {
            let text = app.read(|world, _| serde_json::to_string(world));
            let path = path.clone();
            let saved = tokio::task::spawn_blocking(move || write_state(&path, text?.as_bytes())).await;
            if let Ok(Err(error)) = saved {
                tracing::error!(%error, "the sandbox cannot save its state");
            }
        }
        if stopping {
            return;
        }
    }
}

/// Writes beside the file and renames, so that a crash leaves the old one or the new one.
fn write_state(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(beside, path)
}
