//! What the node as a process costs and takes: an empty one, one with 100,000 idle connections, and how many webhooks it
//! takes in per second, each on disk before its 2xx, beside the two limits measured in the same run.
//!
//! The limits: the bare group commit with as many in flight, and a bare actix-web server that parses into a typed struct
//! with `RawValue` and answers. Load and node share the machine's cores. Not here: deliveries (`deliver`).

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::Deserialize;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tidemill::app;
use tidemill::config::Config;
use tidemill::domain::connection::{Connection, ConnectionStatus, InitialSync, Remap, WebhookState};
use tidemill::domain::id::{ConnectionId, UserId, WorkspaceNo};
use tidemill::domain::time::Millis;
use tidemill::domain::workspace::User;
use tidemill::store::{Slot, Store, master_key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::node::{Node, call};
use support::{median, port};

const CLIENTS: usize = 256;
const BODY_BYTES: usize = 1024;
const RUNS: usize = 3;
const RUN_SECONDS: u64 = 4;
const CONNECTIONS: usize = 100_000;

fn main() {
    if std::env::args().any(|a| a == "--bare") {
        return bare_server();
    }
    println!("machine: {} cores", std::thread::available_parallelism().map_or(0, usize::from));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        empty().await;
        idle().await;
        ingest().await;
    });
}

impl Node {
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.0.id())).expect("the process runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().filter_map(|t| t.parse::<f64>().ok()).sum();
        ticks / 100.0
    }
}

async fn empty() {
    let mut ready = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..RUNS {
        let folder = TempDir::new().expect("a folder");
        let started = Instant::now();
        let node = Node::start(&folder, &[]);
        node.ready().await;
        ready.push(started.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_secs(1)).await;
        memory.push(node.0.resident_mib());
    }
    println!("empty node: ready in {:.2} s (goal < 1), {:.0} MiB resident (goal < 60)", median(ready), median(memory));
}

async fn idle() {
    let folder = TempDir::new().expect("a folder");
    fill(&folder).await;
    let started = Instant::now();
    let node = Node::start(&folder, &[]);
    node.ready().await;
    let ready = started.elapsed().as_secs_f64();
    // What start-up leaves to do is done by then; nothing is due for hours.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, at) = (node.cpu_seconds(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let cpu = (node.cpu_seconds() - before) / at.elapsed().as_secs_f64();
    let memory = node.0.resident_mib();
    println!(
        "{CONNECTIONS} idle connections: ready in {ready:.2} s (goal < 15), {memory:.0} MiB (goal < 500), {:.2} % of a core",
        cpu * 100.0
    );
}

/// Puts connections into the store that are not due for hours.
async fn fill(folder: &TempDir) {
    let env = [("TIDEMILL__STORAGE__PATH".to_owned(), folder.path().join("data").display().to_string())];
    let config = Config::load(None, env.into_iter()).expect("a configuration");
    let key = master_key(&config.storage.path, None).expect("a key");
    let store = Store::open(&config.storage, &key, &app::wall_clock(), Arc::new(|_| ())).expect("a store");
    for chunk in 0..CONNECTIONS / 1000 {
        store.change(move |tx| (0..1000).try_for_each(|n| put(tx, chunk * 1000 + n))).await.expect("written");
    }
    store.settle().await.expect("settled");
    drop(store);
    // The writer's thread closes the files a moment after the last handle is gone.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn put(tx: &mut tidemill::store::Tx<'_>, n: usize) -> tidemill::error::Result<()> {
    let now = tx.now();
    let user = User {
        id: UserId(tx.fresh_id()?),
        workspace: WorkspaceNo(0),
        username: format!("user-{n}"),
        full_name: None,
        created_at: now,
    };
    tx.put_object(&user)?;
    let connection = Connection {
        id: ConnectionId(tx.fresh_id()?),
        workspace: WorkspaceNo(0),
        user: user.id,
        integration: None,
        connector: "sandbox".into(),
        app: "Sandbox".into(),
        category: "crm".into(),
        parameters: "{\"baseUri\":\"http://127.0.0.1:1/\"}".into(),
        account: None,
        poll_interval_seconds: None,
        full_scan_interval_seconds: None,
        initial_sync: InitialSync::Baseline,
        remap: Remap::Silent,
        collections: None,
        status: ConnectionStatus::Active,
        webhook: WebhookState::None { reason: "no-public-url".into() },
        created_at: now,
        updated_at: now,
    };
    let later = Millis(now.0 + 6 * 3_600_000 + (n as u64 * 1000) % 3_600_000);
    for collection in ["contacts", "customers", "orders", "opportunities", "users"] {
        let state = tidemill::domain::connection::CollectionState {
            baseline_at: Some(now),
            next_pull_at: Some(later),
            next_scan_at: Some(later),
            ..Default::default()
        };
        tx.put_collection_state(connection.id, collection, &state)?;
    }
    tx.put_object(&connection)
}

async fn ingest() {
    let folder = TempDir::new().expect("a folder");
    let node = Node::start(&folder, &[]);
    node.ready().await;
    let post = async |path: &str, body: &str| {
        call(node.1, "POST", &format!("/2024-03/one{path}"), body).await.expect("an answer").1
    };
    post("/users", r#"{"username":"acme"}"#).await;
    let parameters = r#"{"baseUri":"http://127.0.0.1:1/","path":"items","topic":"crm/contacts","name":"Bench"}"#;
    let connection = format!(
        r#"{{"userId":"acme","connector":"generic","credentials":{{"apiKey":"x"}},"parameters":{parameters}}}"#
    );
    let made = post("/connections", &connection).await;
    let token = made.split("/in/c/").nth(1).and_then(|rest| rest.split('"').next());
    let Some(token) = token else { return println!("no webhook URI in {made}") };
    let path = format!("/in/c/{token}");
    let (mut node_rates, mut bare_rates, mut commit_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        node_rates.push(load(node.1, &path).await);
        bare_rates.push(bare().await);
        commit_rates.push(commits().await);
    }
    let (ours, http, commit) = (median(node_rates), median(bare_rates), median(commit_rates));
    let limit = http.min(commit);
    println!(
        "accepted webhooks: {ours:.0}/s; bare HTTP {http:.0}/s, bare group commit {commit:.0}/s; ratio {:.2} (goal >= 0.40)",
        ours / limit
    );
}

fn body() -> String {
    let filler = "x".repeat(BODY_BYTES - 40);
    format!(r#"{{"id":12345,"type":"changed","note":"{filler}"}}"#)
}

/// Requests per second that are answered with a 2xx, over keep-alive connections.
async fn load(port: u16, path: &str) -> f64 {
    let body = body();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (request, done) = (Arc::new(request), Arc::new(AtomicU64::new(0)));
    let until = Instant::now() + Duration::from_secs(RUN_SECONDS);
    let started = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (request, done) = (request.clone(), done.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
                stream.set_nodelay(true).expect("an option");
                let mut buffer = vec![0; 4096];
                while Instant::now() < until {
                    stream.write_all(request.as_bytes()).await.expect("sent");
                    let read = stream.read(&mut buffer).await.expect("answered");
                    // Answers are short and come in one piece on loopback.
                    assert!(buffer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&buffer[..read]));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client ends");
    }
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed to be measured")]
struct Typed<'a> {
    id: u64,
    #[serde(borrow)]
    note: &'a RawValue,
}

/// The limit of HTTP: a server that parses and answers, in a process of its own.
async fn bare() -> f64 {
    let port = port();
    let _server = support::beside(&["--bare"], port).await;
    load(port, "/").await
}

fn bare_server() {
    let port: u16 = std::env::args().next_back().and_then(|p| p.parse().ok()).expect("a port");
    let take = |body: web::Bytes| async move {
        let typed: Typed<'_> = serde_json::from_slice(&body).expect("JSON");
        HttpResponse::Ok().body(format!("{}", typed.id))
    };
    let server =
        HttpServer::new(move || App::new().default_service(web::to(take))).workers(2).bind(("127.0.0.1", port));
    actix_web::rt::System::new().block_on(server.expect("a port").run()).expect("served");
}

/// The limit of the disk: as many commits in flight, nothing else.
async fn commits() -> f64 {
    let folder = TempDir::new().expect("a folder");
    let env = [("TIDEMILL__STORAGE__PATH".to_owned(), folder.path().join("data").display().to_string())];
    let config = Config::load(None, env.into_iter()).expect("a configuration");
    let key = master_key(&config.storage.path, None).expect("a key");
    let store = Store::open(&config.storage, &key, &app::wall_clock(), Arc::new(|_| ())).expect("a store");
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let until = started + Duration::from_secs(RUN_SECONDS);
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let value = body();
                while Instant::now() < until {
                    let text = value.clone();
                    store
                        .accept(move |tx| tx.put_secret(&[0xfe; 12], Slot::Parameters, &text))
                        .await
                        .expect("committed");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task ends");
    }
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}
