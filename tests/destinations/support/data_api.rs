//! The Redshift Data API over a PostgreSQL of our own: what COPY reads is taken from the stand-in of S3.
//!
//! Not here: what PostgreSQL lacks (SUPER is jsonb, sort keys are left out) and what it has besides (it enforces keys).

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::amazon::{Call, Held, Mishap, Reply, SECRET, Server, is_signed};
use super::servers::{Running, free_port, skip};

/// The role that COPY must come with.
pub const ROLE: &str = "arn:aws:iam::123456789012:role/copy";

/// A PostgreSQL of this test alone.
pub struct Postgres {
    pub port: u16,
    bin: PathBuf,
    _running: Running,
    _folder: tempfile::TempDir,
}

fn id_of_postgres(what: &str) -> Option<u32> {
    let is_root = Command::new("id").arg("-u").output().ok()?.stdout == b"0\n";
    let told = Command::new("id").args([what, "postgres"]).output().ok().filter(|_| is_root)?;
    String::from_utf8(told.stdout).ok()?.trim().parse().ok()
}

/// As the user postgres, if we are root: the server refuses to run as root.
fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    if let (Some(user), Some(group)) = (id_of_postgres("-u"), id_of_postgres("-g")) {
        command.uid(user).gid(group);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command
}

impl Postgres {
    /// None, said loudly: it is not installed.
    pub fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let Some(bin) = bin else {
            skip("PostgreSQL", "`apt-get install postgresql` brings it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = folder.path().join("data");
        let mut made = command(&bin.join("initdb"));
        made.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync"]);
        assert!(made.status().unwrap().success(), "initdb failed");
        let port = free_port();
        let mut server = command(&bin.join("postgres"));
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-F", "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "unix_socket_directories=", "-c", "max_connections=20"]);
        let running = Running(server.spawn().unwrap());
        let postgres = Self { port, bin, _running: running, _folder: folder };
        let until = Instant::now() + Duration::from_secs(60);
        while postgres.run("SELECT 1").is_err() {
            assert!(Instant::now() < until, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(postgres)
    }

    /// Runs statements as one transaction; rows of text, or the error.
    pub fn run(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        self.run_as("postgres", sql)
    }

    fn run_as(&self, user: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let mut child = Command::new(self.bin.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-1",
                "-v",
                "ON_ERROR_STOP=1",
                "-F",
                "\u{1f}",
                "-P",
                "null=\u{1e}",
                "-f",
                "-",
            ])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", user, "postgres"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let text = format!("SET TimeZone='UTC'; {sql};\n");
        let writer = std::thread::spawn(move || {
            let _ = input.write_all(text.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            let at = error.find("ERROR:").or(error.find("FATAL:")).unwrap_or(0);
            return Err(error[at..].replace("ERROR:  ", "ERROR: ").lines().next().unwrap_or_default().to_owned());
        }
        let field = |text: &str| (text != "\u{1e}").then(|| text.to_owned());
        let text = String::from_utf8(output.stdout).unwrap();
        Ok(text.lines().map(|line| line.split('\u{1f}').map(field).collect()).collect())
    }
}

/// The API, what it was asked for, and what goes wrong next.
pub struct DataApi {
    pub server: Server,
    pub postgres: Arc<Postgres>,
    pub state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    /// Outcomes by statement id.
    ended: HashMap<String, Result<Vec<Vec<Option<String>>>, String>>,
    /// Statement ids by token.
    tokens: HashMap<String, String>,
    looked: HashMap<String, u32>,
    pub mishaps: VecDeque<Mishap>,
    /// Errors of the next transactions.
    pub errors: VecDeque<&'static str>,
    /// Transactions that were run.
    pub runs: usize,
    /// The database user.
    pub user: String,
}

impl DataApi {
    pub fn start(store: Arc<Mutex<Held>>) -> Option<Self> {
        let postgres = Arc::new(Postgres::start()?);
        let state = Arc::new(Mutex::new(State { user: "postgres".to_owned(), ..State::default() }));
        let (shared, database) = (state.clone(), postgres.clone());
        let server = Server::start(move |call| answer(&mut shared.lock().unwrap(), &database, &store, &call));
        Some(Self { server, postgres, state })
    }
}

fn answer(state: &mut State, postgres: &Postgres, store: &Mutex<Held>, call: &Call) -> Reply {
    let refuse = |code: &str| Reply::json(400, &json!({"__type": code, "message": "as told"}));
    if !is_signed(call, SECRET) {
        return refuse("InvalidSignatureException");
    }
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    let id = body["Id"].as_str().unwrap_or_default().to_owned();
    match call.headers["x-amz-target"].as_str() {
        "RedshiftData.BatchExecuteStatement" => {
            let mishap = state.mishaps.pop_front();
            if let Some(Mishap::Status(_, code)) = mishap {
                return refuse(code);
            }
            let token = body["ClientToken"].as_str().unwrap();
            assert!(token.len() <= 64 && body["Sqls"].as_array().unwrap().len() <= 40);
            if let Some(id) = state.tokens.get(token) {
                return Reply::json(200, &json!({"Id": id}));
            }
            let sqls: Vec<&str> = body["Sqls"].as_array().unwrap().iter().map(|sql| sql.as_str().unwrap()).collect();
            state.runs += 1;
            let ended = match state.errors.pop_front() {
                Some(error) => Err(error.to_owned()),
                None => batch(&state.user, postgres, store, &sqls),
            };
            let id = keep(state, ended);
            state.tokens.insert(token.to_owned(), id.clone());
            if matches!(mishap, Some(Mishap::CutAfter)) { Reply::Cut } else { Reply::json(200, &json!({"Id": id})) }
        }
        "RedshiftData.ExecuteStatement" => {
            if body["Database"] != "dev" {
                return refuse("DatabaseConnectionException");
            }
            let mut sql = body["Sql"].as_str().unwrap().to_owned();
            if sql.contains("sys_load_error_detail") {
                let row = vec![Some("payload".to_owned()), Some("Invalid JSON".to_owned())];
                let id = keep(state, Ok(vec![row]));
                return Reply::json(200, &json!({"Id": id}));
            }
            for parameter in body["Parameters"].as_array().into_iter().flatten() {
                let value = parameter["value"].as_str().unwrap().replace('\'', "''");
                sql = sql.replace(&format!(":{}", parameter["name"].as_str().unwrap()), &format!("'{value}'"));
            }
            let ended = postgres.run_as(&state.user, &translated(&sql));
            let id = keep(state, ended);
            Reply::json(200, &json!({"Id": id}))
        }
        "RedshiftData.DescribeStatement" => {
            let looked = state.looked.entry(id.clone()).or_default();
            *looked += 1;
            match state.ended.get(&id) {
                _ if *looked == 1 => Reply::json(200, &json!({"Id": id, "Status": "STARTED"})),
                Some(Ok(_)) => Reply::json(200, &json!({"Id": id, "Status": "FINISHED"})),
                Some(Err(error)) => {
                    let sub = json!({"Status": "FAILED", "Error": error, "RedshiftQueryId": 77});
                    Reply::json(
                        200,
                        &json!({"Id": id, "Status": "FAILED", "Error": "a part failed", "SubStatements": [sub]}),
                    )
                }
                None => refuse("ResourceNotFoundException"),
            }
        }
        "RedshiftData.GetStatementResult" => {
            let rows = state.ended[&id].clone().unwrap();
            let field = |text: Option<String>| {
                let text = text.map(|text| if text == "jsonb" { "super".to_owned() } else { text });
                text.map_or(json!({"isNull": true}), |text| json!({"stringValue": text}))
            };
            let rows: Vec<Vec<Value>> = rows.into_iter().map(|row| row.into_iter().map(field).collect()).collect();
            Reply::json(200, &json!({"Records": rows}))
        }
        other => panic!("{other}"),
    }
}

fn keep(state: &mut State, ended: Result<Vec<Vec<Option<String>>>, String>) -> String {
    let id = format!("statement-{}", state.ended.len() + 1);
    state.ended.insert(id.clone(), ended);
    id
}

fn translated(sql: &str) -> String {
    let sql = sql.replace(" SUPER", " JSONB").replace("svv_columns", "information_schema.columns");
    match sql.find(" SORTKEY") {
        Some(at) => sql[..at].to_owned(),
        None => sql,
    }
}

fn batch(
    user: &str,
    postgres: &Postgres,
    store: &Mutex<Held>,
    sqls: &[&str],
) -> Result<Vec<Vec<Option<String>>>, String> {
    let mut all = Vec::new();
    for sql in sqls {
        all.push(if sql.starts_with("COPY ") { copied(store, sql)? } else { translated(sql) });
    }
    postgres.run_as(user, &all.join(";\n"))
}

/// COPY of what a manifest names, as an INSERT of its lines.
fn copied(store: &Mutex<Held>, sql: &str) -> Result<String, String> {
    if !sql.contains(&format!("IAM_ROLE '{ROLE}'")) {
        return Err("ERROR: User is not authorized to assume IAM Role".to_owned());
    }
    let words: Vec<&str> = sql.split_whitespace().collect();
    let (table, manifest) = (words[1], words[3].trim_matches('\''));
    assert!(sql.contains(" MANIFEST ") && sql.contains(" GZIP "), "{sql}");
    let objects = &store.lock().unwrap().objects;
    let key = |url: &str| url.strip_prefix("s3://lake/").unwrap().to_owned();
    let missing = || "ERROR: S3ServiceException: The specified key does not exist".to_owned();
    let manifest: Value = serde_json::from_slice(objects.get(&key(manifest)).ok_or_else(missing)?).unwrap();
    let mut lines = Vec::new();
    for entry in manifest["entries"].as_array().unwrap() {
        let packed = objects.get(&key(entry["url"].as_str().unwrap())).ok_or_else(missing)?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    if lines.iter().any(|line| line.contains("POISON")) {
        return Err(format!(
            "ERROR: Load into table '{table}' failed. Check 'sys_load_error_detail' system table for details."
        ));
    }
    let rows = lines.join(",");
    assert!(!rows.contains("$lines$"));
    Ok(format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $lines$[{rows}]$lines$)"))
}
