//! A node with its API on loopback, in a folder of its own, and a client that speaks JSON.
//!
//! Always true: it ends with its test. Not here: the real binary.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::api::bootstrap::{self, Show};
use tidemill::api::{self, Health, Parts, Phase, State};
use tidemill::app::{self, Engine, Seams};
use tidemill::clock::Clock;
use tidemill::config::Config;
use tidemill::domain::secret::Secret;
use tidemill::telemetry::Metrics;

/// The key of the default workspace.
pub const KEY: &str = "test-key-0123456789-abcdef";
/// The operator's key.
pub const OPERATOR: &str = "operator-key-0123456789-abcdef";

/// A running node.
pub struct Node {
    pub state: State,
    pub engine: Engine,
    pub folder: TempDir,
    base: String,
    server: ServerHandle,
    client: reqwest::Client,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("not JSON: {e}: {}", self.text))
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
    /// The body of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
    /// Asserts an error; answers its message.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{}", self.text);
        body["message"].as_str().expect("a message").to_owned()
    }
}

/// Remembers the keys it was shown.
#[derive(Default)]
pub struct Shown(pub Mutex<Vec<String>>);

impl Show for Shown {
    fn show(&self, key: &Secret, _: &Path) -> tidemill::error::Result<()> {
        self.0.lock().expect("unpoisoned").push(key.expose().to_owned());
        Ok(())
    }
}

/// The configuration of a test node, with further settings.
pub fn config(folder: &Path, more: &[(&str, &str)]) -> Arc<Config> {
    let path = folder.join("data").display().to_string();
    let usual = [
        ("TIDEMILL__STORAGE__PATH", path.as_str()),
        ("TIDEMILL__STORAGE__FREE_BYTES_MIN", "1"),
        ("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]"),
        ("TIDEMILL__INGEST__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]"),
        ("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 3600]"),
        ("TIDEMILL__SERVER__BODY_BYTES_MAX", "65536"),
        ("TIDEMILL__SERVER__REQUEST_TIMEOUT_SECONDS", "2"),
        ("TIDEMILL_API_KEY", KEY),
        ("TIDEMILL_OPERATOR_KEY", OPERATOR),
    ];
    let env = usual.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Arc::new(Config::load(None, env).expect("a valid configuration"))
}

/// Nodes that died, until their stores are closed. RocksDB aborts a process that ends meanwhile.
#[derive(Default)]
pub struct Graves(Vec<std::thread::JoinHandle<()>>);

impl Graves {
    /// Takes over those of another.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Waits until no more than so many are open.
    pub async fn fill(&mut self, left: usize) {
        while self.0.len() > left {
            let grave = self.0.remove(0);
            tokio::task::spawn_blocking(move || grave.join()).await.expect("joined").expect("closed");
        }
    }
}

impl Node {
    /// A node with the usual settings.
    pub async fn start() -> Self {
        Self::start_with(&[], api::configure).await
    }

    /// A node with further settings, serving one of its surfaces.
    pub async fn start_with(more: &[(&str, &str)], configure: fn(&State, &mut ServiceConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::open(folder, more, configure, app::wall_clock(), Seams::default()).await
    }

    /// A node on a folder that may hold a store already, on this clock, with something in place of the world around it.
    pub async fn open(
        folder: TempDir,
        more: &[(&str, &str)],
        configure: fn(&State, &mut ServiceConfig),
        clock: Clock,
        seams: Seams,
    ) -> Self {
        let config = config(folder.path(), more);
        let metrics = Metrics::new().expect("metrics");
        let engine = Engine::start_with(config.clone(), clock, metrics.clone(), seams).expect("the engine starts");
        let options = app::api_options(&config);
        bootstrap::run(&engine.store, &engine.clock, &options, &Shown::default()).await.expect("made");
        let health = Arc::new(Health::default());
        health.set_phase(Phase::Ready);
        let parts = Parts {
            options,
            store: engine.store.clone(),
            clock: engine.clock.clone(),
            rings: engine.rings.clone(),
            metrics,
            outlet: engine.outlet.clone(),
            health,
            deps: engine.deps.clone(),
        };
        let state = State::new(parts).expect("a state");
        let served = state.clone();
        let http = HttpServer::new(move || {
            let state = served.clone();
            App::new().configure(move |services| configure(&state, services))
        });
        let http = http.workers(1).disable_signals().shutdown_timeout(1).bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", http.addrs()[0]);
        let server = http.run();
        let handle = server.handle();
        actix_rt::spawn(server);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
        Self { state, engine, folder, base, server: handle, client }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A call with the default workspace's key.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_as(KEY, method, path, body).await
    }

    /// A call with another key.
    pub async fn call_as(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let text = body.map(|body| body.to_string());
        self.send(method, path, &[("authorization", &format!("Bearer {key}"))], text.as_deref().unwrap_or("")).await
    }

    /// A call with these headers and body.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.client.request(method.parse().expect("a method"), self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.expect("text") }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    /// Asks until the answer fits, for up to a minute.
    pub async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.get(path).await.ok();
            if fits(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{path} stays {answer:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it as a process that dies: nothing under way is waited for, and nothing is put on disk.
    /// Its files stay open until its last thread has ended: see [`Graves`].
    pub async fn die(self, graves: &mut Graves) {
        self.server.stop(false).await;
        let store = self.engine.store.clone();
        drop(self.state);
        self.engine.abandon();
        let folder = self.folder;
        graves.0.push(std::thread::spawn(move || {
            store.close();
            drop(folder);
        }));
    }

    /// Ends it and leaves its folder, whose files nobody has open any more.
    pub async fn stop(self) -> TempDir {
        self.server.stop(false).await;
        let store = self.engine.store.clone();
        drop(self.state);
        self.engine.drain(Duration::from_secs(5)).await.expect("drained");
        tokio::task::spawn_blocking(|| store.close()).await.expect("closed");
        self.folder
    }
}
