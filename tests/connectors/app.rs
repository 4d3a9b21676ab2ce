//! An app on the loopback, as bad as a test wants it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};
use tidemill::clock::Clock;
use tidemill::connectors::{Budget, Connector, Credentials, Session};
use tidemill::domain::address::Policy;
use tidemill::domain::time::Millis;
use tidemill::outbound::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// What the app does with one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// A body without end.
    Endless,
    /// Nothing at all.
    Silence,
}

impl Reply {
    pub fn json(body: impl ToString) -> Self {
        Self::Answer(200, vec![("content-type", "application/json".to_owned())], body.to_string())
    }
    pub fn status(status: u16, body: &str) -> Self {
        Self::Answer(status, vec![("content-type", "application/json".to_owned())], body.to_owned())
    }
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A running app and what it was asked.
pub struct App {
    pub url: Url,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl App {
    pub async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, noted): (Handler, _) = (Arc::new(handler), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&noted)));
            }
        });
        Self { url, seen }
    }
    /// An app that gives these replies one after the other, and the last one for ever.
    pub async fn replies(replies: Vec<Reply>) -> Self {
        let queue = Mutex::new(VecDeque::from(replies));
        Self::start(move |_| {
            let mut queue = queue.lock().unwrap();
            let reply = queue.front().cloned().unwrap();
            if queue.len() > 1 {
                queue.pop_front();
            }
            reply
        })
        .await
    }
    pub fn session(&self, connector: &Arc<Connector>, parameters: Value, credentials: Value) -> Session {
        let parameters = connector.parameters.check(&super::object(parameters)).unwrap();
        session(connector, &self.url, parameters, credentials)
    }
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

pub fn session(connector: &Arc<Connector>, url: &Url, parameters: Map<String, Value>, credentials: Value) -> Session {
    let policy = Policy::new(vec!["127.0.0.0/8".parse().unwrap()], false);
    let client = Client::new(&tidemill::outbound::Options::standard(), Arc::new(policy)).unwrap();
    let clock = Clock::start(Millis(0));
    let budget = Arc::new(Budget::of(connector, clock.now()));
    let connector = connector.specialise(&parameters).unwrap();
    let credentials = Credentials::read(&credentials).unwrap();
    Session::new(connector, url, parameters, credentials, client, budget, clock).unwrap()
}

async fn serve(mut stream: TcpStream, handler: Handler, seen: Arc<Mutex<Vec<Request>>>) {
    let mut held = Vec::new();
    while let Some(request) = read(&mut stream, &mut held).await {
        let reply = handler(&request);
        seen.lock().unwrap().push(request);
        match reply {
            Reply::Answer(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
            }
            Reply::Bytes(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reply::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n\r\n[").await;
                while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
                return;
            }
            Reply::Silence => {
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn read(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<Request> {
    let head_end = loop {
        if let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let mut part = [0; 8192];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        held.extend_from_slice(&part[..count]);
    };
    let head = String::from_utf8(held[..head_end].to_vec()).ok()?;
    held.drain(..head_end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    while held.len() < length {
        let mut part = [0; 8192];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        held.extend_from_slice(&part[..count]);
    }
    let body = String::from_utf8(held.drain(..length).collect()).ok()?;
    let url = Url::parse("http://app").unwrap().join(target).unwrap();
    Some(Request { method, url, headers, body })
}
