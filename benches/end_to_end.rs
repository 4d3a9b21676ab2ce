//! How long an event takes from being accepted to being at its receiver, at 100 events per second, beside what one sync of
//! the same disk takes in the same run.
//!
//! Each event is on disk before its clock would be stopped for the publisher, and signed with HMAC, or with everything.
//! Node, publisher and receiver share the cores. Not here: how many at once (`deliver`), webhooks (`node`).

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use support::engine::{ALL, HMAC, start, subscribe};
use support::latency::{Clocked, percentile};
use tempfile::TempDir;
use tidemill::domain::subscription::Signing;

const EVENTS: usize = 1_000;
const PER_SECOND: u32 = 100;

fn main() {
    let sync = syncs();
    for (name, signing) in [("hmac", HMAC), ("all", ALL)] {
        let took = actix_rt::System::new().block_on(run(signing));
        let [p50, p99] = [50, 99].map(|p| percentile(&took, p));
        let goal = 2.0 * percentile(&sync, 99) + 5.0;
        println!(
            "accept to receiver, {name}, {PER_SECOND}/s: p50 {p50:.2} ms, p99 {p99:.2} ms; one sync p50 {:.2} ms, p99 {:.2} \
             ms (goal: p99 <= {goal:.1} ms)",
            percentile(&sync, 50),
            percentile(&sync, 99),
        );
    }
}

/// Milliseconds that appending 1 KiB and syncing it takes.
fn syncs() -> Vec<f64> {
    let folder = TempDir::new().expect("a folder");
    let mut file = std::fs::File::create(folder.path().join("log")).expect("a file");
    (0..EVENTS)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[7; 1024]).expect("written");
            file.sync_data().expect("synced");
            started.elapsed().as_secs_f64() * 1000.0
        })
        .collect()
}

/// Milliseconds of each event.
async fn run(signing: Signing) -> Vec<f64> {
    let receiver = Clocked::start(EVENTS).await;
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    subscribe(&engine, 1, signing, receiver.port, true).await;
    let took = receiver.publish(&engine, 0, EVENTS, PER_SECOND).await;
    engine.drain(Duration::from_secs(5)).await.expect("drained");
    took
}
