//! A reader of server-sent events that is not ours: it asks as a browser would and splits blocks by the specification.
//!
//! Always true: it never waits longer than its limit.

use std::time::Duration;

use serde_json::Value;

use super::api::{KEY, Node};

const LIMIT: Duration = Duration::from_secs(20);

/// One block: its fields by name, in order; comments under an empty name.
#[derive(Clone, Debug)]
pub struct Block(pub Vec<(String, String)>);

impl Block {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    pub fn data(&self) -> Option<String> {
        let lines: Vec<&str> = self.0.iter().filter(|(n, _)| n == "data").map(|(_, v)| v.as_str()).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data().expect("an event")).expect("JSON")
    }
    pub fn id(&self) -> String {
        self.get("id").expect("an id").to_owned()
    }
}

/// An open stream, or why it is none.
pub struct Stream {
    pub answer: reqwest::Response,
    bytes: Vec<u8>,
}

impl Stream {
    /// Opens `/2024-03/one/events/stream?{query}` with a key.
    pub async fn open_as(node: &Node, key: &str, query: &str, last_event_id: Option<&str>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = node.url(&format!("/2024-03/one/events/stream?{query}"));
        let mut request = client.get(url).bearer_auth(key);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let answer = tokio::time::timeout(LIMIT, request.send()).await.expect("in time").expect("an answer");
        Self { answer, bytes: Vec::new() }
    }

    pub async fn open(node: &Node, query: &str) -> Self {
        let mut stream = Self::open_as(node, KEY, query, None).await;
        assert_eq!(stream.answer.status(), 200);
        assert_eq!(stream.answer.headers()["content-type"], "text/event-stream");
        let opening = stream.block().await.expect("an opening");
        assert!(opening.get("retry").is_some() && opening.get("id").is_some() && opening.data().is_none());
        stream
    }

    /// Asserts that it was refused; answers the message.
    pub async fn refused(self, status: u16, code: &str) -> String {
        let (got, text) = (self.answer.status().as_u16(), self.answer.text().await.expect("text"));
        let body: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{text}");
        body["message"].as_str().expect("a message").to_owned()
    }

    /// The next block; None at the end of the stream.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let rest = self.bytes.split_off(end + 2);
                let block = String::from_utf8(std::mem::replace(&mut self.bytes, rest)).expect("UTF-8");
                let fields = block.trim_end_matches('\n').lines().map(|line| {
                    let (name, value) = line.split_once(':').expect("a field");
                    (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned())
                });
                return Some(Block(fields.collect()));
            }
            let piece = tokio::time::timeout(LIMIT, self.answer.chunk()).await.expect("something in time");
            // A stream that is cut off ends too.
            self.bytes.extend_from_slice(&piece.ok().flatten()?);
        }
    }

    /// The next event, heartbeats passed over.
    pub async fn event(&mut self) -> Block {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if block.data().is_some() {
                return block;
            }
        }
    }

    /// Reads to the end of the stream; the events on the way.
    pub async fn rest(&mut self) -> Vec<Block> {
        let mut events = Vec::new();
        while let Some(block) = self.block().await {
            events.extend(block.data().is_some().then_some(block));
        }
        events
    }
}
