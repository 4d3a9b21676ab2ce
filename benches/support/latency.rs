//! How long events take from being handed to the store to being at their receiver.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidemill::app::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::engine::event;

type Came = Arc<Mutex<Vec<Option<Instant>>>>;

/// A receiver in this process that notes when each event came, by the number in its payload's id.
pub struct Clocked {
    pub port: u16,
    came: Came,
}

impl Clocked {
    /// For numbers below `numbers`.
    pub async fn start(numbers: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let came: Came = Arc::new(Mutex::new(vec![None; numbers]));
        let noted = came.clone();
        actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                actix_rt::spawn(receive(stream, noted.clone()));
            }
        });
        Self { port, came }
    }

    /// Milliseconds of each of the events `from..to`, published at `per_second`.
    pub async fn publish(&self, engine: &Engine, from: usize, to: usize, per_second: u32) -> Vec<f64> {
        let mut sent = Vec::with_capacity(to - from);
        let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
        for n in from..to {
            tick.tick().await;
            sent.push(Instant::now());
            let (store, now) = (engine.store.clone(), engine.clock.now());
            actix_rt::spawn(async move {
                store.accept(move |tx| tx.append_event(&event(n, now))).await.expect("accepted");
            });
        }
        let came = || self.came.lock().expect("not poisoned")[from..to].to_vec();
        while came().iter().any(Option::is_none) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = |(came, sent): (Option<Instant>, &Instant)| {
            came.expect("all came").duration_since(*sent).as_secs_f64() * 1000.0
        };
        came().into_iter().zip(&sent).map(took).collect()
    }
}

/// The value below which `p` of a hundred lie.
pub fn percentile(all: &[f64], p: usize) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all[(all.len() * p / 100).min(all.len() - 1)]
}

async fn receive(mut stream: TcpStream, came: Came) {
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
            if let Some(came) = came.lock().expect("not poisoned").get_mut(number) {
                came.get_or_insert_with(Instant::now);
            }
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
