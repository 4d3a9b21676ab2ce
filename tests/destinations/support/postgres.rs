//! A real PostgreSQL: a cluster of its own on a free port of loopback, gone with the value that holds it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::servers::{Running, free_port, skip};

/// The user that drivers sign in as, by password; it owns its test's database.
pub const USER: &str = "writer";
pub const PASSWORD: &str = "wr1ter s3cret/@";

/// A cluster.
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    /// User and group that the server runs as, where we are root, as which it does not run.
    owner: Option<(u32, u32)>,
    pub port: u16,
    process: Option<Running>,
}

/// Tests that do no harm to the server share one.
static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

/// The server that tests share, started by the first of them, stopped by the last. None: there is none to be had.
pub fn shared() -> Option<Arc<Postgres>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return Some(running);
    }
    let started = Arc::new(Postgres::start()?);
    *shared = Arc::downgrade(&started);
    Some(started)
}

fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

fn output(command: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(command).args(arguments).output().ok().filter(|output| output.status.success())
}

fn number(command: &str, arguments: &[&str]) -> Option<u32> {
    String::from_utf8(output(command, arguments)?.stdout).ok()?.trim().parse().ok()
}

impl Postgres {
    /// A cluster of its own, with TLS switched on: a certificate for `localhost`, signed by itself.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            skip("PostgreSQL", "scripts/deps --destinations installs it");
            return None;
        };
        let owner = if number("id", &["-u"])? == 0 {
            let ids = number("id", &["-u", "postgres"]).zip(number("id", &["-g", "postgres"]));
            if ids.is_none() {
                skip(
                    "the user postgres, as which the server runs where root runs the tests,",
                    "scripts/deps --destinations makes it",
                );
                return None;
            }
            ids
        } else {
            None
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self { folder, programs, owner, port: free_port(), process: None };
        server.make();
        server.run();
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn make(&self) {
        let path = self.folder.path();
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("it is ours");
        }
        let data = self.data();
        let made = self
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8", "--pgdata"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules).expect("written");
        let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        openssl
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        let signed = openssl.output().expect("openssl is installed");
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        if let Some((user, group)) = self.owner {
            for file in [&key, &certificate] {
                std::os::unix::fs::chown(file, Some(user), Some(group)).expect("it is ours");
            }
        }
    }

    /// Starts the server, and waits until it answers.
    #[expect(clippy::disallowed_methods, reason = "tests that share a server wait for it, on threads of their own")]
    pub fn run(&mut self) {
        let port = self.port.to_string();
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &port]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=60",
            "ssl=on",
            "ssl_cert_file=server.crt",
            "ssl_key_file=server.key",
        ] {
            command.args(["-c", setting]);
        }
        self.process = Some(Running(command.stderr(log).stdout(Stdio::null()).spawn().expect("it starts")));
        let until = Instant::now() + Duration::from_secs(60);
        while output(
            self.programs.join("pg_isready").to_str().expect("UTF-8"),
            &["-h", "127.0.0.1", "-p", &port, "-U", "postgres"],
        )
        .is_none()
        {
            assert!(Instant::now() < until, "it does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Stops the server as a crash would: at once, without a word to anybody.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Immediate shutdown; a plain kill would leave its children behind for a while.
        let _ = output("kill", &["-QUIT", &process.0.id().to_string()]);
        let _ = process.0.wait();
    }

    /// Kills the server, without even a signal that it could see, and waits until its children have noticed: as long as one
    /// of them is there no other server takes over their memory.
    #[expect(clippy::disallowed_methods, reason = "what is waited for are other processes")]
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let id = process.0.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its children");
        process.0.kill().expect("it runs");
        process.0.wait().expect("it ends");
        let until = Instant::now() + Duration::from_secs(60);
        // Who is dead and was not asked for yet is a zombie.
        let lives = |child: &str| {
            let shown = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            shown.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        };
        while children.split_whitespace().any(lives) {
            assert!(Instant::now() < until, "its children live on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The server's certificate.
    pub fn certificate(&self) -> String {
        std::fs::read_to_string(self.data().join("server.crt")).expect("a certificate")
    }

    /// Somebody who may do everything.
    pub async fn admin(&self, database: &str) -> Client {
        let way = format!("host=127.0.0.1 port={} user=postgres dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&way, NoTls).await.expect("it runs");
        tokio::spawn(connection);
        client
    }

    /// A fresh database of [`USER`], and a connection of the one who may do everything.
    pub async fn database(&self, name: &str) -> Client {
        let admin = self.admin("postgres").await;
        let user = format!(
            "DO $$ BEGIN PERFORM pg_advisory_xact_lock(1); IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{USER}') \
             THEN CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'; END IF; END $$"
        );
        admin.batch_execute(&user).await.expect("a user");
        admin.batch_execute(&format!("CREATE DATABASE {name} OWNER {USER}")).await.expect("a database");
        let client = self.admin(name).await;
        client.batch_execute(&format!("GRANT ALL ON SCHEMA public TO {USER}")).await.expect("granted");
        client
    }

    /// Settings that lead to a database, with more of them.
    pub fn settings(&self, database: &str, more: Value) -> Value {
        let mut all = json!({
            "host": "127.0.0.1", "port": self.port, "database": database, "user": USER, "password": PASSWORD,
            "sslMode": "disable",
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        all
    }

    /// The folder of the cluster, for messages.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}
