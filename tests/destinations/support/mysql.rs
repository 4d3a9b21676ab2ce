//! MariaDB from Debian, and MySQL from a chroot that `scripts/deps --destinations` makes: private instances with TLS.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::servers::{Running, free_port, skip};
use super::tls::certificates;

/// One of the two servers.
pub struct Server {
    pub port: u16,
    /// Who signed its certificate, which is for `localhost`.
    pub ca: String,
    running: std::sync::Mutex<Option<Running>>,
    program: Program,
    _folder: TempDir,
}

/// How it is started.
#[derive(Clone)]
struct Program {
    /// Where MySQL lives.
    root: Option<PathBuf>,
    /// As the machine sees it, and as the server does.
    folder: PathBuf,
    inside: PathBuf,
}

static MARIADB: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
static MYSQL: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

/// The server that tests share while any of them runs; None, said loudly: it cannot be had.
pub async fn shared(kind: &'static str) -> Option<Arc<Server>> {
    let mut held = if kind == "mysql" { &MYSQL } else { &MARIADB }.lock().await;
    if let Some(server) = held.upgrade() {
        return Some(server);
    }
    let server = Arc::new(own(kind).await?);
    *held = Arc::downgrade(&server);
    Some(server)
}

/// A server of a test's own.
pub async fn own(kind: &'static str) -> Option<Server> {
    let found = if kind == "mysql" { chroot() } else { Path::new("/usr/sbin/mariadbd").exists().then_some(None) };
    let Some(root) = found else {
        let how = if kind == "mysql" { "scripts/deps --destinations" } else { "scripts/deps --tests" };
        skip(kind, &format!("`{how}` installs it"));
        return None;
    };
    let folder = match &root {
        Some(root) => TempDir::new_in(root.join("var/lib")).unwrap(),
        None => TempDir::new().unwrap(),
    };
    let inside = match &root {
        Some(root) => Path::new("/").join(folder.path().strip_prefix(root).unwrap()),
        None => folder.path().to_owned(),
    };
    let program = Program { root, folder: folder.path().to_owned(), inside };
    let ca = certificates(folder.path());
    let admin = "CREATE USER IF NOT EXISTS 'admin'@'%' IDENTIFIED BY 'admin';\nGRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION;\n";
    std::fs::write(folder.path().join("admin.sql"), admin).unwrap();
    program.initialise();
    let port = free_port();
    let running = std::sync::Mutex::new(Some(program.start(port)));
    let server = Server { port, ca, running, program, _folder: folder };
    server.answers().await;
    Some(server)
}

/// Where MySQL was unpacked; only root can go there.
fn chroot() -> Option<Option<PathBuf>> {
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from).ok();
    let cache = cache.or_else(|| std::env::var("HOME").ok().map(|home| Path::new(&home).join(".cache")))?;
    let root = cache.join("tidemill/destinations/mysql");
    (user() == "root" && root.join("usr/sbin/mysqld").exists()).then_some(Some(root))
}

/// As whom this runs: a server that is started by root wants to be told.
fn user() -> String {
    let name = Command::new("id").arg("-un").output().unwrap().stdout;
    String::from_utf8(name).unwrap().trim().to_owned()
}

impl Program {
    fn command(&self, program: &str) -> Command {
        let mut command = match &self.root {
            None => Command::new(program),
            Some(root) => {
                let mut command = Command::new("chroot");
                command.arg(root).arg(program);
                command
            }
        };
        let quiet = || std::fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        // Instances that start at once would meet in the machine's folder for temporary tables.
        command.env("TMPDIR", &self.inside);
        command.stdin(Stdio::null()).stdout(quiet()).stderr(quiet());
        command
    }

    fn initialise(&self) {
        let data = format!("--datadir={}/data", self.inside.display());
        let mut command = match self.root {
            Some(_) => {
                let mut command = self.command("mysqld");
                command.args(["--no-defaults", "--initialize-insecure"]);
                command
            }
            None => {
                let mut command = self.command("mariadb-install-db");
                command.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                command.args(["--innodb-log-file-size=16M"]);
                command
            }
        };
        let done = command.arg(data).arg(format!("--user={}", user())).status().unwrap().success();
        assert!(done, "{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn start(&self, port: u16) -> Running {
        let at = |what: &str| format!("{}/{what}", self.inside.display());
        let mut command = match &self.root {
            Some(_) => {
                let mut command = self.command("mysqld");
                command.args(["--no-defaults", "--mysqlx=OFF", "--secure-file-priv=NULL", "--performance-schema=OFF"]);
                command
            }
            None => {
                let mut command = self.command("/usr/sbin/mariadbd");
                command.args(["--no-defaults", "--innodb-log-file-size=16M"]);
                command
            }
        };
        command
            .args(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"])
            .arg(format!("--user={}", user()))
            .arg(format!("--port={port}"))
            .arg(format!("--datadir={}", at("data")))
            .arg(format!("--socket={}", at("s.sock")))
            .arg(format!("--pid-file={}", at("pid")))
            .arg(format!("--init-file={}", at("admin.sql")))
            .arg(format!("--ssl-ca={}", at("ca.pem")))
            .arg(format!("--ssl-cert={}", at("cert.pem")))
            .arg(format!("--ssl-key={}", at("key.pem")));
        Running(command.spawn().unwrap())
    }
}

impl Server {
    /// Settings that reach a database, with the certificate checked.
    pub fn settings(&self, database: &str) -> Value {
        json!({
            "host": "localhost", "port": self.port, "user": "admin", "password": "admin", "database": database,
            "caCertificate": self.ca,
        })
    }

    /// A connection of the test's own.
    pub async fn conn(&self) -> Conn {
        self.try_conn().await.unwrap()
    }

    async fn try_conn(&self) -> mysql_async::Result<Conn> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("admin"))
            .pass(Some("admin"))
            .prefer_socket(false);
        Conn::new(options).await
    }

    /// A connection to a new, empty database of that name.
    pub async fn database(&self, name: &str) -> Conn {
        let mut conn = self.conn().await;
        for sql in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}"), format!("USE {name}")]
        {
            conn.query_drop(sql).await.unwrap();
        }
        conn
    }

    /// Ends it without notice.
    pub fn kill(&self) {
        *self.running.lock().unwrap() = None;
    }

    /// Starts it again, on what it has on disk.
    pub async fn restart(&self) {
        let running = self.program.start(self.port);
        *self.running.lock().unwrap() = Some(running);
        self.answers().await;
    }

    async fn answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(error) = self.try_conn().await {
            assert!(Instant::now() < deadline, "{error}\n{}", self.program.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
