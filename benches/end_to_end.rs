//! How long an event takes from being accepted to being at its receiver, at 100 events per second, beside what one sync of
//! the same disk takes in the same run.
//!
//! Each event is on disk before its clock would be stopped for the publisher, and signed with HMAC, or with everything.
//! Node, publisher and receiver share the cores. Not here: how many at once (`deliver`), webhooks (`node`).

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::engine::{ALL, HMAC, event, start, subscribe};
use tempfile::TempDir;
use tidemill::domain::subscription::Signing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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

fn percentile(all: &[f64], p: usize) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all[(all.len() * p / 100).min(all.len() - 1)]
}

/// Milliseconds of each event.
async fn run(signing: Signing) -> Vec<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let came: Arc<Mutex<Vec<Option<Instant>>>> = Arc::new(Mutex::new(vec![None; EVENTS]));
    let noted = came.clone();
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            actix_rt::spawn(receive(stream, noted.clone()));
        }
    });
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    subscribe(&engine, 1, signing, port, true).await;
    let mut sent = Vec::with_capacity(EVENTS);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    for n in 0..EVENTS {
        tick.tick().await;
        sent.push(Instant::now());
        let (store, now) = (engine.store.clone(), engine.clock.now());
        actix_rt::spawn(async move {
            store.accept(move |tx| tx.append_event(&event(n, now))).await.expect("accepted");
        });
    }
    while came.lock().expect("not poisoned").iter().any(Option::is_none) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let came = came.lock().expect("not poisoned").clone();
    let took = |(came, sent): (Option<Instant>, &Instant)| {
        came.expect("all came").duration_since(*sent).as_secs_f64() * 1000.0
    };
    let took = came.into_iter().zip(&sent).map(took).collect();
    engine.drain(Duration::from_secs(5)).await.expect("drained");
    took
}

/// Notes when each event came, by the number in its payload's id.
async fn receive(mut stream: TcpStream, came: Arc<Mutex<Vec<Option<Instant>>>>) {
    let mut held: Vec<u8> = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&held).into_owned();
        let length = text.to_ascii_lowercase().split("content-length: ").nth(1).map(|rest| {
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().expect("a length")
        });
        let whole = text.find("\r\n\r\n").map(|at| at + 4).zip(length).map(|(head, length)| head + length);
        if let Some(whole) = whole.filter(|whole| held.len() >= *whole) {
            let number = text.split("\"c-").nth(1).and_then(|rest| rest.split('"').next()?.parse::<usize>().ok());
            let number = number.expect("an event of ours");
            came.lock().expect("not poisoned")[number].get_or_insert_with(Instant::now);
            held.drain(..whole);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                return;
            }
            continue;
        }
        match stream.read_buf(&mut held).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
