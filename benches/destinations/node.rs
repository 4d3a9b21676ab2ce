//! A whole node into a destination: what a lane makes of a waiting queue, and what it holds while the destination is down.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::app::Engine;
use tidemill::destinations::driver::Driver;
use tidemill::domain::destination::{Destination, Shape};
use tidemill::domain::event::Event;
use tidemill::domain::failure::Failure;
use tidemill::domain::id::{DestinationId, WorkspaceNo};
use tidemill::domain::subscription::{Subscription, destination_address};
use tidemill::store::Tx;

use super::support::engine::{HMAC, start, subscribe};
use super::support::{Process, port, resident_mib};
use super::{BATCHES, Bare, ROWS, bare_rate, cart, median, numbered};

/// Runs of a node.
pub const RUNS: usize = 5;
/// Events of one run.
const WAITING: u64 = 60_000;
/// An hour at 1,000 a second.
const DOWN: u64 = 3_600_000;

/// The rate at which a waiting queue is written, beside what the bare client makes of as many events right before and right
/// after: what else the machine does changes between one second and the next. Each run has settings of its own, for the
/// events of two nodes may have the same ids.
pub async fn drained(kind: &str, settings: Vec<Value>, driver: &dyn Driver, bare: &mut impl Bare) {
    let (mut rates, mut limits, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // Numbers that `compare` has not used.
    let mut number = (super::RUNS as u64 + 1) * BATCHES;
    let mut next = || {
        number += WAITING / ROWS;
        numbered(number - WAITING / ROWS..number)
    };
    let mut before = bare_rate(driver, bare, &next()).await;
    for settings in settings {
        let kind = kind.to_owned();
        // A node has threads of its own; it must not run on the one that waits here.
        let run = move || actix_rt::System::new().block_on(drain(&kind, settings));
        let rate = std::thread::spawn(run).join().expect("it ends");
        let after = bare_rate(driver, bare, &next()).await;
        let limit = f64::midpoint(before, after);
        rates.push(rate);
        limits.push(limit);
        ratios.push(rate / limit);
        before = after;
    }
    println!("{kind}: each run: {}", ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" "));
    println!(
        "{kind}: {:.0} events/s through a node; bare client, as many events before and after it, {:.0}/s; ratio {:.2} \
         (goal 0.60)",
        median(rates),
        median(limits),
        median(ratios)
    );
}

async fn drain(kind: &str, settings: Value) -> f64 {
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    // Not closed, as a node's is not: see `app::serve`.
    std::mem::forget(engine.store.clone());
    let subscription = lane(&engine, kind, settings, false).await;
    publish(&engine, WAITING).await;
    let delivered = engine.metrics.attempts.with(["accepted"]);
    // Routed before the clock runs.
    while engine.store.lane_counts(subscription.lane).expect("counted").pending < WAITING {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let started = Instant::now();
    enable(&engine, subscription).await;
    while delivered.get() < WAITING {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = WAITING as f64 / started.elapsed().as_secs_f64();
    engine.drain(Duration::from_secs(5)).await.expect("drained");
    rate
}

/// A node's memory while everything waits for a destination that is not there. In a process of its own.
pub fn down(kind: &str) {
    let child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--down", kind])
        .spawn()
        .expect("it starts");
    let done = Process(child).0.wait().expect("it ends");
    assert!(done.success(), "{kind}: down");
}

/// That process.
pub fn is_down(kind: &str) {
    actix_rt::System::new().block_on(async {
        let folder = TempDir::new().expect("a folder");
        let engine = start(&folder);
        let nobody = json!({
            "host": "127.0.0.1", "port": port(), "database": "bench", "user": "bench", "password": "bench",
            "sslMode": "disable",
        });
        std::mem::forget(engine.store.clone());
        lane(&engine, kind, nobody, true).await;
        // As many as a batch, so that what a first try needs is part of what an idle node holds.
        publish(&engine, ROWS).await;
        let refused = engine.metrics.batches.with([kind, Failure::ConnectFailed.slug()]);
        while refused.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let idle = resident_mib(std::process::id());
        let mut most: f64 = idle;
        for _ in 0..DOWN / ROWS {
            publish(&engine, ROWS).await;
            most = most.max(resident_mib(std::process::id()));
        }
        let now = resident_mib(std::process::id());
        println!(
            "{kind}, down while {DOWN} events came: {now:.0} MiB resident, at most {most:.0}; {idle:.0} before \
             (goal: at most 100 more); {} tries",
            refused.get()
        );
    });
}

async fn publish(engine: &Engine, events: u64) {
    for batch in 0..events.div_ceil(ROWS) {
        let from = batch * ROWS;
        let put = move |tx: &mut Tx<'_>| {
            let now = tx.now();
            let event = |n| Event { accepted_at: now, ..cart(n) };
            (from..from + ROWS).try_for_each(|n| tx.append_event(&event(n)).map(drop))
        };
        engine.store.accept(put).await.expect("accepted");
    }
    engine.rings.router();
}

/// A destination and a subscription to everything that writes there.
async fn lane(engine: &Engine, kind: &str, settings: Value, is_enabled: bool) -> Subscription {
    let mut made = subscribe(engine, 1, HMAC, 1, false).await;
    let mut subscription = made.remove(0);
    let kind = kind.to_owned();
    let change = move |tx: &mut Tx<'_>| {
        let (id, now) = (DestinationId(tx.fresh_id()?), tx.now());
        tx.put_object(&Destination {
            id,
            workspace: WorkspaceNo::DEFAULT,
            name: kind.clone(),
            kind,
            settings: settings.to_string(),
            secret_names: Vec::new(),
            user: None,
            revision: 0,
            pause: None,
            created_at: now,
            updated_at: now,
        })?;
        subscription.destination = Some(id);
        subscription.shape = Shape::Append;
        subscription.address = destination_address(id);
        subscription.is_enabled = is_enabled;
        tx.put_object(&subscription)?;
        Ok(subscription)
    };
    let made = engine.store.change(change).await.expect("a lane");
    engine.rings.subscriptions_changed();
    made
}

async fn enable(engine: &Engine, subscription: Subscription) {
    let lane = subscription.lane;
    let change = move |tx: &mut Tx<'_>| tx.put_object(&Subscription { is_enabled: true, ..subscription });
    engine.store.change(change).await.expect("enabled");
    engine.rings.subscriptions_changed();
    engine.rings.lane(lane);
}
