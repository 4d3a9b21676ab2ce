//! A small HTTP server whose answers a test makes, and which it can tell to fail.
//!
//! Always true: what was asked for is kept, in order; it ends with the value that holds it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// A header's text; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: no JSON: {error}", self.target))
    }
    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
    /// A parameter of the query, unescaped.
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        url::form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, v)| v.into_owned())
    }
    /// The parts of a `multipart/related` body: their content.
    pub fn parts(&self) -> Vec<Vec<u8>> {
        let kind = self.header("content-type").unwrap();
        let boundary = format!("--{}", kind.split_once("boundary=").unwrap().1);
        let text: Vec<u8> = self.body.clone();
        let mut parts = Vec::new();
        let mut rest = &text[..];
        let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
        while let Some(at) = find(rest, boundary.as_bytes()) {
            rest = &rest[at + boundary.len()..];
            if rest.starts_with(b"--") {
                break;
            }
            let head = find(rest, b"\r\n\r\n").unwrap();
            let end = find(rest, format!("\r\n{boundary}").as_bytes()).unwrap();
            parts.push(rest[head + 4..end].to_vec());
        }
        parts
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// What goes wrong with the next request whose path contains a text.
#[derive(Clone, Debug)]
pub enum Fails {
    /// It is answered so, and nothing is done.
    With(Reply),
    /// It is done, and the connection closed without an answer.
    CutAfter,
    /// The connection is closed, and nothing is done.
    CutBefore,
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    seen: Mutex<Vec<Seen>>,
    fails: Mutex<VecDeque<(usize, String, Fails)>>,
    stop: AtomicBool,
}

/// The server.
pub struct Stub {
    pub url: String,
    shared: Arc<Shared>,
}

impl Stub {
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            seen: Mutex::default(),
            fails: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let ours = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ours.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), ours) = (stream, ours.clone()) else { continue };
                std::thread::spawn(move || while serve(&stream, &ours).is_some() {});
            }
        });
        Self { url, shared }
    }

    /// The next request whose path contains `what` fails so.
    pub fn fail(&self, what: &str, how: Fails) {
        self.fail_later(0, what, how);
    }

    /// The same, after `skip` of them went well.
    pub fn fail_later(&self, skip: usize, what: &str, how: Fails) {
        self.shared.fails.lock().unwrap().push_back((skip, what.to_owned(), how));
    }

    /// All requests whose path contains `what`.
    pub fn seen(&self, what: &str) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().iter().filter(|seen| seen.target.contains(what)).cloned().collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

/// One request of a connection; None: it is over.
fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name, value));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let seen = Seen { method, target, headers, body };
    shared.seen.lock().unwrap().push(seen.clone());
    let fails = {
        let mut fails = shared.fails.lock().unwrap();
        match fails.iter().position(|(_, what, _)| seen.target.contains(what)) {
            Some(place) if fails[place].0 > 0 => {
                fails[place].0 -= 1;
                None
            }
            Some(place) => fails.remove(place).map(|(.., how)| how),
            None => None,
        }
    };
    let reply = match fails {
        Some(Fails::CutBefore) => None,
        Some(Fails::With(reply)) => Some(reply),
        Some(Fails::CutAfter) => {
            (shared.handler)(&seen);
            None
        }
        None => Some((shared.handler)(&seen)),
    };
    let Some(reply) = reply else {
        let _ = stream.shutdown(std::net::Shutdown::Both);
        return None;
    };
    let mut head = format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = stream;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&reply.body).ok()
}
