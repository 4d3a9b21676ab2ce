//! How long an event takes from being accepted to being at its receiver, at 100 events per second and at about half of what
//! the node can deliver, beside what one sync of the same disk takes in the same run.
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

const SYNCS: usize = 1_000;
/// Events, and how many of them per second.
const CALM: (usize, u32) = (1_000, 100);
const HALF_HMAC: (usize, u32) = (20_000, 5_000);
const HALF_ALL: (usize, u32) = (4_000, 700);

fn main() {
    let sync = syncs();
    let cells = [("hmac", HMAC, CALM), ("all", ALL, CALM), ("hmac", HMAC, HALF_HMAC), ("all", ALL, HALF_ALL)];
    for (name, signing, (events, per_second)) in cells {
        let took = actix_rt::System::new().block_on(run(signing, events, per_second));
        let [p50, p99] = [50, 99].map(|p| percentile(&took, p));
        println!(
            "accept to receiver, {name}, {per_second}/s: p50 {p50:.2} ms, p99 {p99:.2} ms; one sync p50 {:.2} ms, p99 {:.2} \
             ms (goal at 100/s: p99 <= {:.1} ms)",
            percentile(&sync, 50),
            percentile(&sync, 99),
            2.0 * percentile(&sync, 99) + 5.0,
        );
    }
}

/// Milliseconds that appending 1 KiB and syncing it takes.
fn syncs() -> Vec<f64> {
    let folder = TempDir::new().expect("a folder");
    let mut file = std::fs::File::create(folder.path().join("log")).expect("a file");
    (0..SYNCS)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[7; 1024]).expect("written");
            file.sync_data().expect("synced");
            started.elapsed().as_secs_f64() * 1000.0
        })
        .collect()
}

/// Milliseconds of each event.
async fn run(signing: Signing, events: usize, per_second: u32) -> Vec<f64> {
    let receiver = Clocked::start(events).await;
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    subscribe(&engine, 1, signing, receiver.port, true).await;
    let took = receiver.publish(&engine, 0, events, per_second).await;
    engine.drain(Duration::from_secs(5)).await.expect("drained");
    took
}
