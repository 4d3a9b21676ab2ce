//! Stand-ins of Google's services and of Snowflake, as processes: installed by `scripts/deps --destinations`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::servers::{Running, free_port, skip};

/// A server that ends with this value.
pub struct Emulator {
    pub url: String,
    _process: Running,
    _folder: TempDir,
}

const HOW: &str = "`scripts/deps --destinations` installs it";

/// What `scripts/deps --destinations` installed below that name.
fn installed(path: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("tidemill/destinations").join(path)).filter(|path| path.exists())
}

fn start(what: &str, mut command: Command, port: u16, folder: TempDir) -> Option<Emulator> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(process) = command.spawn() else {
        skip(what, HOW);
        return None;
    };
    let mut process = Running(process);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = std::time::Instant::now() + Duration::from_secs(90);
    // Its port opens when it is ready.
    while std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if let Ok(Some(status)) = process.0.try_wait() {
            panic!("{what} did not start: {status}");
        }
        assert!(std::time::Instant::now() < deadline, "{what} did not start");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Some(Emulator { url: format!("http://127.0.0.1:{port}"), _process: process, _folder: folder })
}

/// Google's own emulator, which comes with its SDK (`google-cloud-cli-pubsub-emulator`).
pub fn pubsub() -> Option<Emulator> {
    let folder = "/usr/lib/google-cloud-sdk/platform/pubsub-emulator/lib";
    let mut jars = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let Some(jar) = jars.find(|path| path.extension().is_some_and(|e| e == "jar")) else {
        // No package of Debian has it, so the machine may have no such server at all.
        eprintln!("skipped: Google's Pub/Sub emulator is not here; it comes with Google's SDK");
        return None;
    };
    let port = free_port();
    let mut command = Command::new("java");
    command.arg("-jar").arg(jar).args(["--host=127.0.0.1", &format!("--port={port}")]);
    start("the Pub/Sub emulator", command, port, tempfile::tempdir().unwrap())
}

/// `fake-gcs-server`, from a wheel that has its binary.
pub fn gcs() -> Option<Emulator> {
    let Some(lib) = installed("fake-gcs/lib") else {
        skip("fake-gcs-server", HOW);
        return None;
    };
    let mut folders = vec![lib];
    let mut binary = None;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if name.starts_with("fake-gcs-server") && name.contains("linux") {
                binary = Some(entry.path());
            }
        }
    }
    let port = free_port();
    let mut command = Command::new(binary.expect("the wheel has a binary for Linux"));
    command.args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-port", &port.to_string()]);
    command.args(["-external-url", &format!("http://127.0.0.1:{port}"), "-public-host", &format!("127.0.0.1:{port}")]);
    start("fake-gcs-server", command, port, tempfile::tempdir().unwrap())
}

/// `local-bigquery`: BigQuery's REST API over DuckDB. Project `proj`, dataset `data`.
pub fn bigquery() -> Option<Emulator> {
    let (Some(binary), Some(home)) = (installed("local-bigquery/bin/local-bigquery"), installed("local-bigquery/home"))
    else {
        skip("local-bigquery", HOW);
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let (port, grpc) = (free_port(), free_port());
    let mut command = Command::new(binary);
    command.env("HOME", home).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--grpc-port", &grpc.to_string(), "--project", "proj", "--dataset", "data", "--data-dir"]);
    command.arg(folder.path());
    start("local-bigquery", command, port, folder)
}

/// `fakesnow` behind a small SQL API: `tests/destinations/support/snowflake_api.py`. Database `DB`, schema `PUBLIC`.
pub fn snowflake() -> Option<Emulator> {
    let Some(python) = installed("fakesnow/bin/python") else {
        skip("fakesnow", HOW);
        return None;
    };
    let port = free_port();
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/destinations/support/snowflake_api.py"));
    command.arg(port.to_string());
    start("fakesnow", command, port, tempfile::tempdir().unwrap())
}

/// Calls without a token, as a test looks into an emulator.
pub struct Plain {
    client: tidemill::outbound::Client,
    url: String,
}

impl Plain {
    pub fn new(url: &str) -> Self {
        Self { client: super::client(), url: url.to_owned() }
    }

    /// The answer as JSON; text that is none as a string.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.get(method, path, body).await;
        serde_json::from_slice(&answer).unwrap_or_else(|_| String::from_utf8_lossy(&answer).into_owned().into())
    }

    /// The bytes of an answer of 2xx.
    pub async fn get(&self, method: &str, path: &str, body: Value) -> Vec<u8> {
        use tidemill::outbound::{HeaderValue, Method, Request, header};
        let url = format!("{}{path}", self.url).parse().unwrap();
        let mut request = Request::new(Method::from_bytes(method.as_bytes()).unwrap(), url);
        if !body.is_null() {
            request.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
            request.body = body.to_string().into();
        }
        request.timeout = Duration::from_secs(60);
        let answer = self.client.send(request).await.unwrap();
        assert!(answer.status < 300, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        answer.body.to_vec()
    }
}
