//! What benches share: a process that ends with its handle, a receiver that costs little, a median.

#![allow(dead_code, reason = "each bench uses its part")]

pub mod engine;
pub mod latency;
pub mod node;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A process that ends with its handle.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Memory that it holds now, in MiB.
    pub fn resident_mib(&self) -> f64 {
        resident_mib(self.0.id())
    }
}

/// Memory that a process holds now, in MiB.
pub fn resident_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find(|l| l.starts_with("VmRSS")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0
}

/// A port that nobody listens on now.
pub fn port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port()
}

/// The middle one.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Starts this program again with other arguments, as a process of its own, and waits until it listens on `port`.
pub async fn beside(arguments: &[&str], port: u16) -> Process {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(arguments)
        .args(["--port", &port.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .expect("it starts");
    let process = Process(child);
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process
}

/// A receiver: answers every POST with 200 as soon as its body is there, on one thread. `GET` answers how many it took.
pub fn sink() {
    let port: u16 = std::env::args().next_back().and_then(|p| p.parse().ok()).expect("a port");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let taken = Arc::new(AtomicU64::new(0));
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream, taken.clone()));
        }
    });
}

async fn serve(mut stream: TcpStream, taken: Arc<AtomicU64>) {
    let mut held: Vec<u8> = Vec::with_capacity(8192);
    loop {
        while let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) {
            let head = String::from_utf8_lossy(&held[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
            if held.len() < end + length {
                break;
            }
            let asked = head.starts_with("get ");
            held.drain(..end + length);
            let answer = if asked {
                let text = taken.load(Ordering::Relaxed).to_string();
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
            } else {
                taken.fetch_add(1, Ordering::Relaxed);
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut held).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
