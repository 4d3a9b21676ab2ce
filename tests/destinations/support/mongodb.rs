//! mongod, from the folder that `scripts/deps --destinations` fills: a private replica set of one node, with users and TLS.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::servers::{Running, free_port, skip};
use super::tls::certificates;

/// A server, whose user `admin` may do everything.
pub struct Server {
    pub port: u16,
    /// Who signed its certificate, which is for `localhost`.
    pub ca: String,
    running: std::sync::Mutex<Option<Running>>,
    folder: TempDir,
    program: PathBuf,
}

static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

/// The server that tests share while any of them runs; None, said loudly: it cannot be had.
pub async fn shared() -> Option<Arc<Server>> {
    let mut held = SHARED.lock().await;
    if let Some(server) = held.upgrade() {
        return Some(server);
    }
    let server = Arc::new(own().await?);
    *held = Arc::downgrade(&server);
    Some(server)
}

/// A server of a test's own.
pub async fn own() -> Option<Server> {
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from).ok();
    let cache = cache.or_else(|| std::env::var("HOME").ok().map(|home| Path::new(&home).join(".cache")))?;
    let program = cache.join("tidemill/destinations/mongodb/mongod");
    if !program.exists() {
        skip("mongod", "`scripts/deps --destinations` fetches it");
        return None;
    }
    let folder = TempDir::new().unwrap();
    let ca = certificates(folder.path());
    let at = |name: &str| folder.path().join(name);
    let both = [at("cert.pem"), at("key.pem")].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(at("both.pem"), both.concat()).unwrap();
    std::fs::write(at("cluster.key"), "dGlkZW1pbGw=").unwrap();
    std::fs::set_permissions(at("cluster.key"), std::fs::Permissions::from_mode(0o400)).unwrap();
    std::fs::create_dir(at("data")).unwrap();
    let server = Server { port: free_port(), ca, running: std::sync::Mutex::new(None), folder, program };
    server.start();
    server.initiate().await;
    Some(server)
}

impl Server {
    fn start(&self) {
        let at = |name: &str| self.folder.path().join(name);
        let log = || std::fs::File::options().create(true).append(true).open(at("log")).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(["--bind_ip", "127.0.0.1,127.0.0.2", "--port", &self.port.to_string(), "--replSet", "rs0"])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "128", "--auth", "--tlsMode", "allowTLS"])
            .arg("--nounixsocket")
            .args(["--dbpath".as_ref(), at("data").as_os_str(), "--keyFile".as_ref(), at("cluster.key").as_os_str()])
            .args(["--tlsCertificateKeyFile".as_ref(), at("both.pem").as_os_str()])
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log());
        *self.running.lock().unwrap() = Some(Running(command.spawn().unwrap()));
    }

    async fn initiate(&self) {
        let alone =
            Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)).await.unwrap();
        let admin = alone.database("admin");
        let members = [doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) }];
        self.until(&admin, doc! { "replSetInitiate": { "_id": "rs0", "members": members.to_vec() } }).await;
        self.until(&admin, doc! { "createUser": "admin", "pwd": "admin", "roles": ["root"] }).await;
    }

    /// Repeats a command until it is taken: the server starts, and elects itself.
    async fn until(&self, database: &Database, command: Document) -> Document {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match database.run_command(command.clone()).await {
                Ok(answer) => return answer,
                Err(error) => {
                    let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                    assert!(Instant::now() < deadline, "{error}\n{log}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// The test's own way in.
    pub async fn database(&self, name: &str) -> Database {
        let url = format!("mongodb://admin:admin@127.0.0.1:{}/?directConnection=true", self.port);
        let database = Client::with_uri_str(url).await.unwrap().database(name);
        self.until(&database, doc! { "ping": 1 }).await;
        database
    }

    /// Settings that reach a database.
    pub fn settings(&self, database: &str) -> Value {
        json!({
            "url": format!("mongodb://admin:admin@127.0.0.1:{}/?replicaSet=rs0", self.port), "database": database,
        })
    }

    /// Ends it without notice.
    pub fn kill(&self) {
        *self.running.lock().unwrap() = None;
    }

    /// Starts it again, on what it has on disk, and waits until it takes writes.
    pub async fn restart(&self) {
        self.start();
        let database = self.database("admin").await;
        self.until(&database, doc! { "insert": "restarted", "documents": [{}] }).await;
    }
}
