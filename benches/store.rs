//! The store under load: durable commits per second beside a bare RocksDB that does the same, and what a long queue costs
//! while it waits and after it is gone.
//!
//! A queue is filled for a subscription that is off: memory and bytes on disk are told at its longest. Then every delivery
//! is settled without HTTP, the subscription is switched on, and events are timed as before the queue. Not here: posting
//! (`deliver`).
//!
//! `cargo bench --bench store -- 10000000` fills a queue of ten million; without a number it is one million.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rocksdb::{DB, WriteBatch, WriteOptions};
use support::engine::{HMAC, event, start, subscribe};
use support::latency::{Clocked, percentile};
use support::{median, resident_mib};
use tempfile::TempDir;
use tidemill::app::Engine;
use tidemill::domain::delivery::DeliveryState;
use tidemill::domain::id::{LaneNo, Seq};
use tidemill::domain::subscription::Subscription;
use tidemill::store::{DeliveryRow, Settlement, Tx, Wait};

const RUNS: usize = 3;
const IN_FLIGHT: usize = 256;
const RUN: Duration = Duration::from_secs(3);
const VALUE_BYTES: usize = 1024;
/// Events published in one commit, and deliveries settled in one.
const BATCH: usize = 1_000;
/// Events that are timed, at so many per second.
const TIMED: usize = 500;
const PER_SECOND: u32 = 100;

fn main() {
    let waiting = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(1_000_000);
    actix_rt::System::new().block_on(async {
        commits().await;
        queue(waiting).await;
    });
}

async fn commits() {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(our_commits().await);
        bare.push(bare_commits());
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "durable commits of one event, {IN_FLIGHT} in flight: {ours:.0}/s; bare RocksDB, as many puts per sync, \
         {bare:.0}/s; ratio {:.2}",
        ours / bare
    );
}

async fn our_commits() -> f64 {
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    let (done, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let work: Vec<_> = (0..IN_FLIGHT)
        .map(|n| {
            let (store, clock, done) = (engine.store.clone(), engine.clock.clone(), done.clone());
            actix_rt::spawn(async move {
                while started.elapsed() < RUN {
                    let event = event(n, clock.now());
                    store.accept(move |tx| tx.append_event(&event)).await.expect("on disk");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for one in work {
        one.await.expect("it ends");
    }
    let rate = done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    engine.drain(Duration::ZERO).await.expect("drained");
    rate
}

/// One thread that puts as many values as we have commits in flight, syncs, and begins again.
fn bare_commits() -> f64 {
    let folder = TempDir::new().expect("a folder");
    let db = DB::open_default(folder.path()).expect("a database");
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let (value, started, mut done) = (vec![7; VALUE_BYTES], Instant::now(), 0_u64);
    while started.elapsed() < RUN {
        let mut batch = WriteBatch::default();
        for _ in 0..IN_FLIGHT {
            batch.put(done.to_be_bytes(), &value);
            done += 1;
        }
        db.write_opt(batch, &synced).expect("written");
    }
    done as f64 / started.elapsed().as_secs_f64()
}

async fn queue(waiting: usize) {
    let receiver = Clocked::start(2 * TIMED).await;
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    let subscription = subscribe(&engine, 1, HMAC, receiver.port, true).await.remove(0);
    let lane = subscription.lane;
    let before = receiver.publish(&engine, 0, TIMED, PER_SECOND).await;
    let idle = resident_mib(std::process::id());

    enable(&engine, &subscription, false).await;
    let started = Instant::now();
    fill(&engine, waiting).await;
    let filled = started.elapsed().as_secs_f64();
    let memory = resident_mib(std::process::id());
    let bytes = engine.store.bytes() as f64 / waiting as f64;
    println!(
        "{waiting} deliveries wait: {memory:.0} MiB resident ({idle:.0} before; goal < 300), {bytes:.0} bytes on disk \
         each, published and routed in {filled:.0} s"
    );

    let started = Instant::now();
    settle_all(&engine, lane).await;
    println!("all settled in {:.0} s", started.elapsed().as_secs_f64());
    enable(&engine, &subscription, true).await;
    let started = Instant::now();
    let oldest = engine.store.oldest_pending(lane, &engine.outlet.flights.low(lane)).expect("read");
    let looked = started.elapsed().as_secs_f64() * 1000.0;
    assert_eq!(oldest, None);
    let after = receiver.publish(&engine, TIMED, 2 * TIMED, PER_SECOND).await;
    let [was, is] = [&before, &after].map(|took| (percentile(took, 50), percentile(took, 99)));
    println!(
        "accept to receiver: p50 {:.2} ms, p99 {:.2} ms before the queue; p50 {:.2} ms, p99 {:.2} ms after it was \
         drained; asking for the oldest delivery took {looked:.2} ms",
        was.0, was.1, is.0, is.1
    );
    engine.drain(Duration::from_secs(5)).await.expect("drained");
}

async fn enable(engine: &Engine, subscription: &Subscription, is_enabled: bool) {
    let changed = Subscription { is_enabled, ..subscription.clone() };
    engine.store.change(move |tx| tx.put_object(&changed)).await.expect("changed");
    engine.rings.subscriptions_changed();
    engine.rings.lane(subscription.lane);
}

/// Publishes so many events, and waits until all are in the queue. Their numbers are not timed.
async fn fill(engine: &Engine, waiting: usize) {
    for _ in 0..waiting.div_ceil(BATCH) {
        let publish = |tx: &mut Tx<'_>| {
            let now = tx.now();
            (0..BATCH).try_for_each(|_| tx.append_event(&event(usize::MAX, now)).map(drop))
        };
        engine.store.change(publish).await.expect("published");
    }
    let last = *engine.store.durable().borrow();
    while engine.store.routed().expect("read") < last {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Settles every delivery of the lane as delivered, as its courier would.
async fn settle_all(engine: &Engine, lane: LaneNo) {
    let mut after = Seq(0);
    loop {
        let due = engine.store.fresh_deliveries(lane, after, BATCH).expect("read");
        let Some(last) = due.last() else { return };
        after = last.seq;
        let settle = move |tx: &mut Tx<'_>| {
            let at = tx.now();
            for due in due {
                let mut row = DeliveryRow::unattempted(&due, at);
                row.state = DeliveryState::Delivered { at };
                tx.settle_delivery(&Settlement { lane, due, row })?;
            }
            Ok(())
        };
        engine.store.append(Wait::Applied, settle).await.expect("settled");
    }
}
