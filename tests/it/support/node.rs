//! The real binary as a process of its own: started, asked over HTTP, killed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidemill::domain::address::Policy;
use tidemill::outbound::{Answer, Client, HeaderValue, Method, Options, Request, header};
use url::Url;

/// The key that every test node opens to.
pub const KEY: &str = "test-key-0123456789-abcdef";

/// A node that runs, or ran, on a folder.
pub struct Node {
    pub folder: PathBuf,
    pub port: u16,
    pub env: Vec<(String, String)>,
    child: Option<Child>,
    pub client: Client,
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port()
}

/// A client that may call loopback.
pub fn client() -> Client {
    let policy = Policy::new(vec!["127.0.0.0/8".parse().expect("a network")], true);
    Client::new(&Options::standard(), Arc::new(policy)).expect("a client")
}

impl Node {
    /// A node on `folder`, not started yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), port: free_port(), env: Vec::new(), child: None, client: client() }
    }

    /// Starts the process; it may not be ready yet.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("node.log"));
        let mut command = self.command(&["serve"]);
        command.stdout(Stdio::null()).stderr(log.expect("a log file"));
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// Runs a sub-command with the node's settings until it ends.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command
            .args(arguments)
            .env("TIDEMILL_API_KEY", KEY)
            .env("TIDEMILL__SERVER__LISTEN", format!("127.0.0.1:{}", self.port))
            .env("TIDEMILL__STORAGE__PATH", self.folder.join("data"))
            .env("TIDEMILL__STORAGE__FREE_BYTES_MIN", "1")
            .env("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")
            .env("TIDEMILL__INGEST__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")
            .env("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]");
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command
    }

    /// Waits until the node is ready.
    pub async fn ready(&mut self) {
        self.ready_or_ended().await.expect("the node is ready");
    }

    /// The same, and why it is not: it ended, or it takes too long.
    pub async fn ready_or_ended(&mut self) -> Result<(), String> {
        for _ in 0..600 {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!("the node ended with {status}: {}", self.log()));
            }
            if let Ok((200, _)) = self.try_call(Method::GET, "/health/ready", None).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the node is not ready after 30 s: {}", self.log()))
    }

    /// The end of what the node logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("node.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    /// SIGTERM, and how the node ended.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let told = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
        assert!(told.success());
        child.wait().expect("ended").code()
    }

    /// One call of the API: status and JSON body. An error means that nobody answered.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), tidemill::outbound::Failure> {
        let answer = self.send(method, path, body).await?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null)))
    }

    /// The same with the whole answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, tidemill::outbound::Failure> {
        let url = Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).expect("a URL");
        let mut request = Request::new(method, url);
        let bearer = HeaderValue::from_str(&format!("Bearer {KEY}")).expect("a header");
        request.headers.push((header::AUTHORIZATION, bearer));
        if let Some(body) = body {
            request.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
            request.body = body.to_string().into();
        }
        self.client.send(request).await
    }

    /// The same as `try_call`, of a node that must answer with a 2xx.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        match self.try_call(method.clone(), path, body).await {
            Ok((200..=299, answer)) => answer,
            other => panic!("{method} {path}: {other:?}\n{}", self.log()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
