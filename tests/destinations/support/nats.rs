//! NATS's own server with JetStream, from `scripts/deps --destinations` or Debian, and a client that looks into it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::servers::{Running, free_port, skip};

/// A server of a test's own.
pub struct Server {
    pub port: u16,
    binary: PathBuf,
    running: Mutex<Option<Running>>,
    pub folder: TempDir,
}

/// A message as the stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub subject: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Held {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn binary() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let fetched = cache.map(|cache| cache.join("tidemill/destinations/nats/bin/nats-server"));
    fetched.into_iter().chain(["/usr/sbin/nats-server".into()]).find(|path: &PathBuf| path.exists())
}

impl Server {
    /// One with these lines in its configuration (`max_payload: 1MB`, users, TLS); None, said loudly: there is none.
    pub fn start(lines: &str) -> Option<Self> {
        let Some(binary) = binary() else {
            skip("nats-server", "`scripts/deps --destinations` installs it");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let server = Self { port: free_port(), binary, running: Mutex::default(), folder };
        server.restart(lines);
        Some(server)
    }

    /// Ends it without notice.
    pub fn kill(&self) {
        *self.running.lock().unwrap() = None;
    }

    /// Starts it (again), on what it has on disk.
    pub fn restart(&self, lines: &str) {
        self.kill();
        let folder = self.folder.path();
        let (conf, log) = (folder.join("nats.conf"), folder.join("log"));
        let text = format!(
            "host: 127.0.0.1\nport: {}\nlog_file: {:?}\njetstream {{ store_dir: {:?}, max_file_store: 256MB }}\n{lines}\n",
            self.port,
            log,
            folder.join("store")
        );
        std::fs::write(&conf, text).unwrap();
        let mut command = Command::new(&self.binary);
        let command = command.arg("-c").arg(&conf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = running.0.try_wait() {
                panic!("nats-server did not start: {status}\n{}", log());
            }
            assert!(Instant::now() < deadline, "nats-server did not start\n{}", log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        *self.running.lock().unwrap() = Some(running);
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Settings that reach it as nobody.
    pub fn settings(&self, more: Value) -> Value {
        let mut settings = json!({"servers": [format!("nats://127.0.0.1:{}", self.port)]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    }

    /// A client that says this when it connects: `{"user":"admin","pass":"admin"}`.
    pub fn admin(&self, who: Value) -> Admin {
        let pipe = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        pipe.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut hello = json!({"verbose": false, "headers": true, "no_responders": true});
        hello.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
        let mut admin = Admin { pipe: BufReader::new(pipe) };
        admin.say(&format!("CONNECT {hello}\r\nSUB _INBOX.admin 1\r\n"));
        admin
    }

    /// The stream `EVENTS`, which takes `tidemill.>` unless `more` says otherwise.
    pub fn stream(&self, more: Value) {
        self.admin(json!({})).stream(more);
    }

    pub fn held(&self) -> Vec<Held> {
        self.admin(json!({})).held()
    }
}

/// A client that waits for each answer.
pub struct Admin {
    pipe: BufReader<TcpStream>,
}

impl Admin {
    fn say(&mut self, text: &str) {
        self.pipe.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Asks JetStream.
    pub fn ask(&mut self, subject: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.say(&format!("PUB $JS.API.{subject} _INBOX.admin {}\r\n{body}\r\n", body.len()));
        loop {
            let mut line = String::new();
            assert!(self.pipe.read_line(&mut line).unwrap() > 0, "{subject}: hung up");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.first().copied() {
                Some("PING") => self.say("PONG\r\n"),
                Some("MSG") => {
                    let mut bytes = vec![0; words.last().unwrap().parse::<usize>().unwrap() + 2];
                    self.pipe.read_exact(&mut bytes).unwrap();
                    return serde_json::from_slice(&bytes[..bytes.len() - 2]).unwrap();
                }
                Some("INFO") => {}
                _ => panic!("{subject}: {line}"),
            }
        }
    }

    pub fn stream(&mut self, more: Value) {
        let mut config = json!({"name": "EVENTS", "subjects": ["tidemill.>"], "storage": "file", "num_replicas": 1});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.ask("STREAM.CREATE.EVENTS", &config);
        assert!(made["error"].is_null(), "{made}");
    }

    pub fn count(&mut self) -> usize {
        let info = self.ask("STREAM.INFO.EVENTS", &Value::Null);
        usize::try_from(info["state"]["messages"].as_u64().unwrap()).unwrap()
    }

    /// All messages of the stream, oldest first.
    pub fn held(&mut self) -> Vec<Held> {
        let info = self.ask("STREAM.INFO.EVENTS", &Value::Null);
        let (first, last) = (info["state"]["first_seq"].as_u64().unwrap(), info["state"]["last_seq"].as_u64().unwrap());
        let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
        (first.max(1)..=last)
            .filter_map(|seq| {
                let got = self.ask("STREAM.MSG.GET.EVENTS", &json!({"seq": seq}));
                let message = got.get("message")?;
                let head = String::from_utf8(bytes(&message["hdrs"])).unwrap();
                let subject = message["subject"].as_str().unwrap().to_owned();
                Some(Held { subject, head, body: bytes(&message["data"]) })
            })
            .collect()
    }
}

/// The bytes of a file beside the server's.
pub fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}
