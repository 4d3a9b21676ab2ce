//! Amazon's services as far as the drivers use them: a tiny server that checks signatures and has faults at command, and
//! moto where it is installed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidemill::outbound::{HeaderName, HeaderValue, Method, Request};

use super::servers::{Running, free_port, skip};

pub const KEY: &str = "AKIATIDEMILL";
pub const SECRET: &str = "a secret of the tests/+";

/// A request as it came.
pub struct Call {
    pub method: String,
    /// As it stood on the wire.
    pub path: String,
    pub query: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// What is answered.
pub enum Reply {
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing: the connection is closed.
    Cut,
}

impl Reply {
    pub fn xml(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as told</Message></Error>");
        Self::Answer(status, Vec::new(), body.into_bytes())
    }
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer(status, Vec::new(), body.to_string().into_bytes())
    }
}

/// A server on a free port of loopback, stopped with this value.
pub struct Server {
    pub url: String,
    port: u16,
    stopped: Arc<AtomicBool>,
}

impl Server {
    pub fn start(handle: impl Fn(Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let (handle, flag) = (Arc::new(handle), stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let handle = handle.clone();
                std::thread::spawn(move || serve(stream, &*handle));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), port, stopped }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: TcpStream, handle: &(dyn Fn(Call) -> Reply + Send + Sync)) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let is_head = method == "HEAD";
    let Reply::Answer(status, more, body) = handle(Call { method, path, query, headers, body }) else { return None };
    let mut out = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in more {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    let mut stream = stream;
    stream.write_all(out.as_bytes()).ok()?;
    if !is_head {
        stream.write_all(&body).ok()?;
    }
    stream.flush().ok()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// As the reference of Signature Version 4 has it: everything but letters, digits and `-._~`.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn hmac_of(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Whether a request is signed with that secret: computed anew from the reference, with no code of the signer.
pub fn is_signed(call: &Call, secret: &str) -> bool {
    let sum = hex::encode(Sha256::digest(&call.body));
    let Some(authorization) = call.headers.get("authorization") else { return false };
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}="))?;
        rest.split(',').next().map(str::to_owned)
    };
    let (Some(credential), Some(names), Some(signature)) =
        (part("Credential"), part("SignedHeaders"), part("Signature"))
    else {
        return false;
    };
    let scope: Vec<&str> = credential.split('/').skip(1).collect();
    let [date, region, service, last] = scope[..] else { return false };
    if service == "s3" && call.headers.get("x-amz-content-sha256") != Some(&sum) {
        return false;
    }
    let path: Vec<String> = call.path.split('/').map(|part| encoded(&decoded(part))).collect();
    let mut query: Vec<String> = call.query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
    query.sort();
    let lines: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", call.headers.get(name).map(String::as_str).unwrap_or_default()))
        .collect();
    let canonical = format!("{}\n{}\n{}\n{lines}\n{names}\n{sum}", call.method, path.join("/"), query.join("&"));
    let at = call.headers.get("x-amz-date").map(String::as_str).unwrap_or_default();
    let text = format!(
        "AWS4-HMAC-SHA256\n{at}\n{date}/{region}/{service}/{last}\n{}",
        hex::encode(Sha256::digest(canonical.as_bytes()))
    );
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [date, region, service, last] {
        key = hmac_of(&key, part);
    }
    hex::encode(hmac_of(&key, &text)) == signature
}

/// How a store treats `If-None-Match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditions {
    Honoured,
    Ignored,
    /// 501
    Unknown,
}

/// What goes wrong with the next write.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    Status(u16, &'static str),
    /// It is written, and the answer is lost.
    CutAfter,
    /// It is lost.
    CutBefore,
}

/// What a store holds, and what it is to do.
pub struct Held {
    pub objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    pub conditions: Conditions,
    /// The most bytes of an object.
    pub largest: usize,
    pub mishaps: VecDeque<Mishap>,
    /// Actions that are denied: `GET`, `DELETE`, `PUT`.
    pub denied: Vec<&'static str>,
    pub secret: String,
    /// Of a role's credentials.
    pub token: Option<String>,
    pub writes: usize,
    next_upload: u32,
}

impl Held {
    pub fn unfinished(&self) -> usize {
        self.uploads.len()
    }
}

/// A store of one bucket, `lake`, by path.
pub struct Store {
    pub server: Server,
    pub held: Arc<Mutex<Held>>,
}

impl Store {
    pub fn start(conditions: Conditions) -> Self {
        let held = Held {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            conditions,
            largest: usize::MAX,
            mishaps: VecDeque::new(),
            denied: Vec::new(),
            secret: SECRET.to_owned(),
            token: None,
            writes: 0,
            next_upload: 1,
        };
        let held = Arc::new(Mutex::new(held));
        let shared = held.clone();
        let server = Server::start(move |call| answer(&mut shared.lock().unwrap(), &call));
        Self { server, held }
    }
    /// The settings of an `s3` destination that writes here.
    pub fn settings(&self) -> Value {
        json!({
            "bucket": "lake", "prefix": "in/tidemill", "region": "eu-central-1", "s3Endpoint": self.server.url,
            "accessKeyId": KEY, "secretAccessKey": SECRET,
        })
    }
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.held.lock().unwrap().objects.clone()
    }
    pub fn mishap(&self, mishap: Mishap) {
        self.held.lock().unwrap().mishaps.push_back(mishap);
    }
}

fn answer(held: &mut Held, call: &Call) -> Reply {
    if !is_signed(call, &held.secret) || call.headers.get("x-amz-security-token") != held.token.as_ref() {
        return Reply::xml(403, "SignatureDoesNotMatch");
    }
    let path = decoded(&call.path);
    let Some(key) = path.strip_prefix("/lake/").map(str::to_owned) else { return Reply::xml(404, "NoSuchBucket") };
    if held.denied.contains(&call.method.as_str()) {
        return Reply::xml(403, "AccessDenied");
    }
    let query: HashMap<String, String> = call
        .query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), decoded(v)))
        .collect();
    let writes = matches!(call.method.as_str(), "PUT" | "POST");
    let mishap = if writes { held.mishaps.pop_front() } else { None };
    match mishap {
        Some(Mishap::Status(status, code)) => return Reply::xml(status, code),
        Some(Mishap::CutBefore) => return Reply::Cut,
        _ => {}
    }
    let reply = act(held, call, &key, &query);
    if matches!(mishap, Some(Mishap::CutAfter)) { Reply::Cut } else { reply }
}

fn act(held: &mut Held, call: &Call, key: &str, query: &HashMap<String, String>) -> Reply {
    let done = |headers| Reply::Answer(200, headers, Vec::new());
    match (call.method.as_str(), query.get("uploadId")) {
        ("PUT", None) => put(held, call, key, call.body.clone()),
        ("PUT", Some(id)) => {
            let number: u32 = query["partNumber"].parse().unwrap();
            let Some((_, parts)) = held.uploads.get_mut(id) else { return Reply::xml(404, "NoSuchUpload") };
            parts.insert(number, call.body.clone());
            done(vec![("etag", format!("\"part-{number}\""))])
        }
        ("POST", None) => {
            let id = format!("up/{}", held.next_upload);
            held.next_upload += 1;
            held.uploads.insert(id.clone(), (key.to_owned(), BTreeMap::new()));
            let body =
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
            Reply::Answer(200, Vec::new(), body.into_bytes())
        }
        ("POST", Some(id)) => {
            let Some((_, parts)) = held.uploads.get(id).cloned() else { return Reply::xml(404, "NoSuchUpload") };
            let listed = String::from_utf8_lossy(&call.body).matches("<Part>").count();
            assert_eq!(listed, parts.len());
            let body = parts.into_values().flatten().collect();
            let reply = put(held, call, key, body);
            if matches!(reply, Reply::Answer(200, ..)) {
                held.uploads.remove(id);
            }
            reply
        }
        ("GET", None) if query.contains_key("uploads") => {
            let uploads = held.uploads.iter().filter(|(_, (known, _))| known.starts_with(&query["prefix"]));
            let list: String = uploads
                .map(|(id, (known, _))| format!("<Upload><Key>{known}</Key><UploadId>{id}</UploadId></Upload>"))
                .collect();
            Reply::Answer(
                200,
                Vec::new(),
                format!("<ListMultipartUploadsResult>{list}</ListMultipartUploadsResult>").into(),
            )
        }
        ("GET", _) => match held.objects.get(key) {
            Some(body) => Reply::Answer(200, Vec::new(), body.clone()),
            None => Reply::xml(404, "NoSuchKey"),
        },
        ("DELETE", Some(id)) => {
            held.uploads.remove(id);
            Reply::Answer(204, Vec::new(), Vec::new())
        }
        ("DELETE", None) => {
            held.objects.remove(key);
            Reply::Answer(204, Vec::new(), Vec::new())
        }
        _ => Reply::xml(405, "MethodNotAllowed"),
    }
}

fn put(held: &mut Held, call: &Call, key: &str, body: Vec<u8>) -> Reply {
    if body.len() > held.largest {
        return Reply::xml(400, "EntityTooLarge");
    }
    if call.headers.contains_key("if-none-match") {
        match held.conditions {
            Conditions::Honoured if held.objects.contains_key(key) => return Reply::xml(412, "PreconditionFailed"),
            Conditions::Unknown => return Reply::xml(501, "NotImplemented"),
            _ => {}
        }
    }
    held.objects.insert(key.to_owned(), body);
    held.writes += 1;
    Reply::Answer(200, vec![("etag", "\"whole\"".to_owned())], Vec::new())
}

/// moto: S3, EventBridge and more of Amazon, in Python.
pub struct Moto {
    pub url: String,
    _running: Running,
}

impl Moto {
    /// None, said loudly: it is not installed.
    pub async fn start() -> Option<Self> {
        let cache = std::env::var("XDG_CACHE_HOME").ok().filter(|path| !path.is_empty());
        let cache = cache.unwrap_or_else(|| format!("{}/.cache", std::env::var("HOME").unwrap_or_default()));
        let python = format!("{cache}/tidemill/destinations/moto/bin/python");
        if !std::path::Path::new(&python).exists() {
            skip("moto", "`scripts/deps --destinations` installs it");
            return None;
        }
        let port = free_port();
        let child = std::process::Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        let moto = Self { url: format!("http://127.0.0.1:{port}"), _running: Running(child) };
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "moto does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(moto)
    }

    /// A request with a signature that is none: moto does not check it.
    pub async fn call(&self, method: Method, path: &str, target: &str, body: &str) -> (u16, Vec<u8>) {
        let mut request = Request::new(method, format!("{}{path}", self.url).parse().unwrap());
        let service = if target.is_empty() { "s3" } else { "events" };
        let scope = format!("AWS4-HMAC-SHA256 Credential={KEY}/20260301/us-east-1/{service}/aws4_request");
        let authorization = format!("{scope}, SignedHeaders=host, Signature=0");
        request.headers =
            vec![(HeaderName::from_static("authorization"), HeaderValue::from_str(&authorization).unwrap())];
        if !target.is_empty() {
            request.headers.extend([
                (HeaderName::from_static("x-amz-target"), HeaderValue::from_str(target).unwrap()),
                (HeaderName::from_static("content-type"), HeaderValue::from_static("application/x-amz-json-1.1")),
            ]);
        }
        request.body = body.to_owned().into();
        request.timeout = Duration::from_secs(60);
        request.read_limit = 64 << 20;
        let answer = super::client().send(request).await.expect("moto answers");
        (answer.status, answer.body.to_vec())
    }
}
