//! Deliveries per second while a waiting queue drains, beside the limit measured in the same run: a bare client that only
//! signs and posts the same bodies to the same receiver on the same number of threads.
//!
//! With all signatures and with HMAC alone, to 1, 10 and 1,000 endpoints; and with HMAC to one endpoint while events are
//! accepted as fast as they are delivered. Bytes written are the process's own, log and compaction included. The receiver is
//! a process of its own on the same cores. Not here: taking events in (`node`), latency (`end_to_end`).
//!
//! `cargo bench --bench deliver -- hmac 1` measures one cell of the table.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;
use tidemill::app::Engine;
use tidemill::destinations::http::keys::KeyRing;
use tidemill::destinations::http::sign::{self, HmacKey};
use tidemill::domain::body;
use tidemill::domain::id::{EventId, Seq, WorkspaceNo};
use tidemill::domain::secret::Secret;
use tidemill::domain::subscription::{ApiVersion, Signing, Subscription};
use tidemill::domain::time::Millis;
use tidemill::outbound::Bytes;

use support::engine::{ALL, HMAC, SECRET, event, keys, start, subscribe};
use support::median;

const RUNS: usize = 3;
const THREADS: usize = 2;
/// Requests that the bare client keeps in flight, and the most that a node with few endpoints does.
const IN_FLIGHT: usize = 64;

/// One cell of the table.
#[derive(Clone, Copy)]
struct Cell {
    name: &'static str,
    signing: Signing,
    endpoints: usize,
    deliveries: usize,
    goal: f64,
}

fn main() {
    if std::env::args().any(|a| a == "--sink") {
        return support::sink();
    }
    let cells =
        [(1, 80_000, 8_000), (10, 80_000, 8_000), (1000, 80_000, 8_000)].into_iter().flat_map(|(n, many, few)| {
            [
                Cell { name: "hmac", signing: HMAC, endpoints: n, deliveries: many, goal: 0.5 },
                Cell { name: "all", signing: ALL, endpoints: n, deliveries: few, goal: 0.85 },
            ]
        });
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if wanted.is_empty() || wanted.iter().any(|w| w == "live") {
        live(Cell { name: "hmac", signing: HMAC, endpoints: 1, deliveries: 80_000, goal: 0.2 });
    }
    for cell in cells {
        let is_wanted = |w: &String| *w == cell.name || *w == cell.endpoints.to_string();
        if wanted.iter().all(is_wanted) {
            measure(cell);
        }
    }
}

fn measure(cell: Cell) {
    let (mut ours, mut bare, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bare.push(bare_rate(cell));
        let (rate, written) = actix_rt::System::new().block_on(node_rate(cell));
        ours.push(rate);
        bytes.push(written);
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "deliveries, {}, {} endpoints: {ours:.0}/s; bare client {bare:.0}/s; ratio {:.2} (goal >= {}); {:.0} bytes written \
         each",
        cell.name,
        cell.endpoints,
        ours / bare,
        cell.goal,
        median(bytes)
    );
}

/// Events are accepted as fast as they are delivered, at most so many ahead.
fn live(cell: Cell) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bare.push(bare_rate(cell));
        ours.push(actix_rt::System::new().block_on(live_rate(cell)));
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "accepted and delivered at once, {}, 1 endpoint: {ours:.0}/s; bare client {bare:.0}/s; ratio {:.2} (goal >= {})",
        cell.name,
        ours / bare,
        cell.goal
    );
}

async fn live_rate(cell: Cell) -> f64 {
    const AHEAD_MAX: u64 = 2_000;
    const BATCH: usize = 100;
    let port = support::port();
    let _sink = support::beside(&["--sink"], port).await;
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    subscribe(&engine, 1, cell.signing, port, true).await;
    let delivered = engine.metrics.attempts.with(["accepted"]);
    let (started, mut accepted) = (Instant::now(), 0);
    while delivered.get() < cell.deliveries as u64 {
        if accepted >= cell.deliveries || accepted as u64 > delivered.get() + AHEAD_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let publish = move |tx: &mut tidemill::store::Tx<'_>| {
            let now = tx.now();
            (accepted..accepted + BATCH).try_for_each(|n| tx.append_event(&event(n, now)).map(drop))
        };
        engine.store.accept(publish).await.expect("accepted");
        accepted += BATCH;
    }
    let rate = cell.deliveries as f64 / started.elapsed().as_secs_f64();
    engine.drain(Duration::from_secs(5)).await.expect("drained");
    rate
}

/// Bytes that this process has had written to disk (`/proc/self/io`, proc(5)).
fn written_bytes() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("it is told");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("a number of bytes");
    line.trim().parse().expect("a number")
}

/// The limit: the same signatures and posts, and nothing else.
fn bare_rate(cell: Cell) -> f64 {
    let port = support::port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _sink = runtime.block_on(support::beside(&["--sink"], port));
    let events = cell.deliveries / cell.endpoints;
    let bodies: Arc<Vec<Bytes>> = Arc::new(
        (0..events)
            .map(|n| {
                let id = EventId::new(Seq(n as u64 + 1), WorkspaceNo(0));
                body::render(&event(n, Millis(1_700_000_000_000)), id, ApiVersion::V2024_03, &[]).into()
            })
            .collect(),
    );
    let ring = Arc::new(KeyRing::open(&keys(), Duration::ZERO).expect("a ring"));
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (bodies, ring, next) = (bodies.clone(), ring.clone(), next.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, async move {
                    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
                    let work = (0..IN_FLIGHT / THREADS).map(|_| {
                        let (client, bodies, ring, next) = (client.clone(), bodies.clone(), ring.clone(), next.clone());
                        tokio::task::spawn_local(bare_client(client, cell, port, bodies, ring, next))
                    });
                    for one in work.collect::<Vec<_>>() {
                        one.await.expect("it ends");
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().expect("joined"));
    (events * cell.endpoints) as f64 / started.elapsed().as_secs_f64()
}

async fn bare_client(
    client: Client<HttpConnector, Full<Bytes>>,
    cell: Cell,
    port: u16,
    bodies: Arc<Vec<Bytes>>,
    ring: Arc<KeyRing>,
    next: Arc<AtomicUsize>,
) {
    let secret = HmacKey::parse(&Secret::new(SECRET)).expect("a secret");
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let Some(body) = bodies.get(n / cell.endpoints) else { return };
        let address = format!("http://127.0.0.1:{port}/{}", n % cell.endpoints);
        let id = EventId::new(Seq(n as u64 + 1), WorkspaceNo(0)).to_string();
        let mut request = hyper::Request::post(&address).header("content-type", "application/json");
        if cell.signing.rsa {
            let digest = sign::rsa_digest(&address, body);
            let signature = sign::rsa(ring.rsa(Millis(0)), &digest).expect("signed");
            request = request.header("x-alloy-signature", signature);
        }
        let message = sign::standard_message(&id, 1_700_000_000, body);
        let ed25519 = ring.ed25519(Millis(0)).filter(|_| cell.signing.ed25519).map(AsRef::as_ref);
        request = request
            .header("x-alloy-topic", "shop/carts")
            .header("webhook-signature", sign::standard(&message, [&secret], ed25519))
            .header("webhook-id", id)
            .header("webhook-timestamp", 1_700_000_000)
            .header("tidemill-attempt", 1);
        let request = request.body(Full::new(body.clone())).expect("a request");
        let answer = client.request(request).await.expect("an answer");
        assert!(answer.status().is_success());
        answer.into_body().collect().await.expect("a body");
    }
}

/// A node with a waiting queue, from the moment its subscriptions are enabled until all is delivered: deliveries per
/// second, and bytes written for each.
async fn node_rate(cell: Cell) -> (f64, f64) {
    let port = support::port();
    let _sink = support::beside(&["--sink"], port).await;
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    let lanes = subscribe(&engine, cell.endpoints, cell.signing, port, false).await;
    let events = cell.deliveries / cell.endpoints;
    for chunk in 0..events.div_ceil(500) {
        let upto = events.min((chunk + 1) * 500);
        let publish = move |tx: &mut tidemill::store::Tx<'_>| {
            let now = tx.now();
            (chunk * 500..upto).try_for_each(|n| tx.append_event(&event(n, now)).map(drop))
        };
        engine.store.change(publish).await.expect("published");
    }
    let last = *engine.store.durable().borrow();
    while engine.store.routed().expect("readable") < last {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let accepted = engine.metrics.attempts.with(["accepted"]);
    let (started, before) = (Instant::now(), written_bytes());
    enable(&engine, lanes).await;
    while accepted.get() < (events * cell.endpoints) as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let deliveries = (events * cell.endpoints) as f64;
    let rate = deliveries / started.elapsed().as_secs_f64();
    engine.drain(Duration::from_secs(5)).await.expect("drained");
    (rate, (written_bytes() - before) / deliveries)
}

async fn enable(engine: &Engine, subscriptions: Vec<Subscription>) {
    let lanes: Vec<_> = subscriptions.iter().map(|s| s.lane).collect();
    let write = move |tx: &mut tidemill::store::Tx<'_>| {
        subscriptions.into_iter().try_for_each(|s| tx.put_object(&Subscription { is_enabled: true, ..s }))
    };
    engine.store.change(write).await.expect("enabled");
    engine.rings.subscriptions_changed();
    lanes.into_iter().for_each(|lane| engine.rings.lane(lane));
}
