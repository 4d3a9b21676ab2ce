//! The node as a process of its own, and calls to it.

use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Process, port};

const KEY: &str = "bench-key-0123456789-abcdef";

/// A running node and its port.
pub struct Node(pub Process, pub u16);

impl Node {
    /// Starts one on a store in this folder, with further settings.
    pub fn start(folder: &TempDir, more: &[(&str, &str)]) -> Self {
        let port = port();
        let child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .arg("serve")
            .env("TIDEMILL_API_KEY", KEY)
            .env("TIDEMILL__SERVER__LISTEN", format!("127.0.0.1:{port}"))
            .env("TIDEMILL__STORAGE__PATH", folder.path().join("data"))
            .env("TIDEMILL__STORAGE__FREE_BYTES_MIN", "1")
            .env("TIDEMILL__INGEST__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")
            .env("TIDEMILL__LOG__FILTER", "error")
            .envs(more.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .expect("the node starts");
        Self(Process(child), port)
    }
    /// Waits until it is ready.
    pub async fn ready(&self) {
        while call(self.1, "GET", "/health/ready", "").await.is_none_or(|(status, _)| status != 200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One call with the bench's key: status and body. None: nobody answers.
pub async fn call(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n");
    let text = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.ok()?;
    let (mut answer, mut length) = (Vec::new(), None);
    while length.is_none_or(|length| answer.len() < length) && stream.read_buf(&mut answer).await.ok()? > 0 {
        length = length.or_else(|| whole(&answer));
    }
    let answer = String::from_utf8(answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// How long an answer is in all, once its head is there.
fn whole(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?.to_ascii_lowercase();
    let body: usize = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())?;
    Some(head + body)
}
