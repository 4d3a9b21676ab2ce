//! Events per second into destinations: a driver alone (prepare and send, one batch after the other), and a whole node whose
//! queue waits for it; beside both the bare client library that writes the same rows of the same batches to the same server
//! in the same run. And what a node holds while its destination is down. Payloads of 1 KiB, 1,000 events a batch, medians.
//!
//! `cargo bench --bench destinations -- postgresql` measures that one, `down` the memory; without a name all, and a server
//! that is not installed is skipped and said so.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]
#![allow(clippy::print_stderr, reason = "a server that is not here is skipped, and said so")]
#![allow(clippy::disallowed_methods, reason = "a bench is the world outside: it finds what is installed")]
#![allow(clippy::module_inception, reason = "what tests of destinations need has servers too")]

#[path = "destinations/node.rs"]
mod node;
#[path = "../tests/destinations/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests need more of it")]
mod servers;
#[path = "destinations/mod.rs"]
mod stores;
mod support;

use std::ops::Range;
use std::time::Instant;

use servers::batches;
use support::median;
use tidemill::destinations::driver::{Answer, Batch, Driver, Frozen, Verdict};
use tidemill::domain::destination::Shape;
use tidemill::domain::event::Event;

const RUNS: usize = 5;
const BATCHES: u64 = 10;
const ROWS: u64 = 1_000;
const PAYLOAD_BYTES: usize = 1024;
const WORDS: [&str; 8] = ["order", "invoice", "address", "quantity", "variant", "customer", "discount", "warehouse"];

/// What a batch is written with, beside the driver.
trait Bare {
    /// What it is handed, made before the clock runs.
    type Ready;
    /// Of one batch, and as the driver froze it.
    fn ready(&self, batch: &Batch, frozen: Frozen) -> Self::Ready;
    /// Writes it.
    async fn write(&mut self, ready: &Self::Ready);
}

fn main() {
    if std::env::args().any(|argument| argument == "--sink") {
        return support::sink();
    }
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--down") {
        return node::is_down(arguments.get(place + 1).expect("a kind"));
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        #[cfg(feature = "postgresql")]
        if wants("postgresql") {
            stores::postgresql().await;
        }
        #[cfg(feature = "mysql")]
        if wants("mariadb") {
            stores::mariadb().await;
        }
        #[cfg(feature = "s3")]
        if wants("s3") {
            stores::objects().await;
        }
        #[cfg(feature = "postgresql")]
        if wants("down") {
            node::down("postgresql");
        }
    });
}

/// Event number `n`.
fn cart(n: u64) -> Event {
    let head = format!(r#"{{"id":"c-{n}","total":"12.50","note":""#);
    let room = PAYLOAD_BYTES - head.len() - 2;
    // Compresses as text does: to about a third.
    let mut dice = fastrand::Rng::with_seed(n);
    let mut note = String::with_capacity(PAYLOAD_BYTES);
    while note.len() < room {
        note.push_str(WORDS[dice.usize(..WORDS.len())]);
        note.push_str(&dice.u32(..10_000).to_string());
        note.push(' ');
    }
    note.truncate(room);
    batches::custom("shop/carts", &format!("{head}{note}\"}}"))
}

/// Batches by their numbers. Each number is written once, so no event was written before.
fn numbered(numbers: Range<u64>) -> Vec<Batch> {
    let batch = |number| {
        let from = 1 + number * ROWS;
        batches::batch(number, Shape::Append, from, (from..from + ROWS).map(cart).collect())
    };
    numbers.map(batch).collect()
}

/// Events per second that the bare client writes of these.
async fn bare_rate(driver: &dyn Driver, bare: &mut impl Bare, batches: &[Batch]) -> f64 {
    let frozen = |batch| driver.prepare(batch).expect("it is prepared");
    let ready: Vec<_> = batches.iter().map(|batch| bare.ready(batch, frozen(batch))).collect();
    let started = Instant::now();
    for one in &ready {
        bare.write(one).await;
    }
    (batches.len() as u64 * ROWS) as f64 / started.elapsed().as_secs_f64()
}

/// Writes the runs by turns, the driver's and the bare client's, and prints the medians.
async fn compare(name: &str, driver: &dyn Driver, bare: &mut impl Bare) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first run warms both up: connections, tables, the server's caches.
    for run in 0..=RUNS as u64 {
        let batches = numbered(run * BATCHES..(run + 1) * BATCHES);
        let started = Instant::now();
        for batch in &batches {
            let frozen = driver.prepare(batch).expect("it is prepared");
            let answer = driver.send(&frozen).await;
            let done = match &answer {
                Answer::All(verdict) => *verdict == Verdict::Done,
                Answer::Each(all) => all.iter().all(|verdict| *verdict == Verdict::Done),
            };
            assert!(done, "{answer:?}");
        }
        let rate = (BATCHES * ROWS) as f64 / started.elapsed().as_secs_f64();
        let bare = bare_rate(driver, bare, &batches).await;
        if run > 0 {
            ours.push(rate);
            theirs.push(bare);
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{name}: {ours:.0} events/s by the driver; bare client, the same batches, {theirs:.0}/s; ratio {:.2} (goal 0.60)",
        ours / theirs
    );
}
