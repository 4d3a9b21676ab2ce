//! The servers, and the bare client library of each.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill::destinations::driver::{Batch, Driver, Frozen};
use tidemill::destinations::kinds;
use tidemill::destinations::rows::{self, Cell, Names, Row};

use super::node::{RUNS, drained};
use super::{Bare, compare, servers, support};

/// The driver, or a line that says why there is none.
fn driver(kind: &str, settings: Value) -> Option<Arc<dyn Driver>> {
    if kinds::find(kind).is_none() {
        println!("{kind}: not in this build");
        return None;
    }
    Some(servers::open(kind, settings).expect("valid settings"))
}

/// The rows that a driver of a table writes.
fn rows_of(batch: &Batch) -> Vec<Row> {
    rows::written(batch, &Names::default()).tables.remove(0).1
}

#[cfg(feature = "postgresql")]
pub use postgresql::postgresql;

#[cfg(feature = "postgresql")]
mod postgresql {
    use std::time::{Duration, SystemTime};

    use tokio_postgres::{Client, Statement};

    use super::*;

    /// The statement of the driver, prepared once, without a transaction around it.
    const INSERT: &str = "INSERT INTO bare SELECT a, b, c, d, e, f, g, h, i, j, k, l, m::jsonb, n::jsonb, o::jsonb, p::jsonb \
         FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
         $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[], $15::text[], \
         $16::text[]) AS x(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) ON CONFLICT (event_id) DO NOTHING";

    struct Library {
        client: Client,
        statement: Statement,
    }

    impl Bare for Library {
        type Ready = Vec<Row>;

        fn ready(&self, batch: &Batch, _: Frozen) -> Vec<Row> {
            rows_of(batch)
        }

        async fn write(&mut self, rows: &Vec<Row>) {
            fn text(cell: &Cell) -> Option<&str> {
                if let Cell::Text(text) | Cell::Json(text) = cell { Some(text) } else { None }
            }
            let texts = |place: usize| rows.iter().map(|row| text(&row.cells[place])).collect::<Vec<_>>();
            let times = |place: usize| -> Vec<Option<SystemTime>> {
                let of = |row: &Row| {
                    let Cell::Time(time) = row.cells[place] else { return None };
                    let since = u64::try_from(time.as_microsecond()).expect("after 1970");
                    Some(SystemTime::UNIX_EPOCH + Duration::from_micros(since))
                };
                rows.iter().map(of).collect()
            };
            let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
            let all: Vec<_> = (0..16).map(texts).collect();
            let (event, received) = (times(10), times(11));
            let bound: [&(dyn tokio_postgres::types::ToSql + Sync); 16] = [
                &all[0], &seqs, &all[2], &all[3], &all[4], &all[5], &all[6], &all[7], &all[8], &all[9], &event,
                &received, &all[12], &all[13], &all[14], &all[15],
            ];
            let written = self.client.execute(&self.statement, &bound).await.expect("written");
            assert_eq!(written, rows.len() as u64);
        }
    }

    /// A PostgreSQL of its own, without fsync: the disk is the same for both.
    pub async fn postgresql() {
        let Some(server) = servers::postgres::Postgres::start() else { return };
        let admin = server.database("bench").await;
        let Some(driver) = driver("postgresql", server.settings("bench", json!({}))) else { return };
        // The driver makes its table; the bare one is alike.
        servers::promises::write(&driver, &servers::batches::contacts(u64::MAX, 1 << 40, 1)).await;
        admin.batch_execute("CREATE TABLE bare (LIKE tidemill_events INCLUDING ALL)").await.expect("a table");
        let statement = admin.prepare(INSERT).await.expect("a statement");
        let mut bare = Library { client: admin, statement };
        compare("postgresql", &*driver, &mut bare).await;
        let mut nodes = Vec::new();
        for run in 0..RUNS {
            let database = format!("node{run}");
            server.database(&database).await;
            nodes.push(server.settings(&database, json!({})));
        }
        drained("postgresql", nodes, &*driver, &mut bare).await;
    }
}

#[cfg(feature = "mysql")]
pub use mariadb::mariadb;

#[cfg(feature = "mysql")]
mod mariadb {
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use mysql_async::prelude::Queryable;
    use mysql_async::{Conn, OptsBuilder, Params, Value as Sql};

    use super::*;

    const SERVER: &str = "/usr/sbin/mariadbd";

    struct Library(Conn);

    impl Bare for Library {
        type Ready = Vec<Row>;

        fn ready(&self, batch: &Batch, _: Frozen) -> Vec<Row> {
            rows_of(batch)
        }

        /// One INSERT of all rows, values bound.
        async fn write(&mut self, rows: &Vec<Row>) {
            let row = format!("({})", ["?"; 16].join(","));
            let statement = format!(
                "INSERT INTO bare VALUES {} ON DUPLICATE KEY UPDATE event_id = event_id",
                vec![row; rows.len()].join(",")
            );
            let value = |cell: &Cell| match cell {
                Cell::Text(text) | Cell::Json(text) => Sql::from(text.as_str()),
                Cell::Integer(number) => Sql::from(*number),
                Cell::Time(time) => {
                    let plain = time.to_string();
                    Sql::from(plain.trim_end_matches('Z').replace('T', " "))
                }
                _ => Sql::NULL,
            };
            let values = rows.iter().flat_map(|row| row.cells.iter().map(value)).collect();
            self.0.exec_drop(statement, Params::Positional(values)).await.expect("written");
        }
    }

    /// A MariaDB of its own.
    pub async fn mariadb() {
        if !Path::new(SERVER).exists() {
            println!("mariadb: skipped: the server is not here; apt-get install mariadb-server");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (data, port) = (folder.path().join("data"), support::port());
        let log = || std::fs::File::create(folder.path().join("log")).expect("a log");
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(format!("--datadir={}", data.display()))
            .stdout(log())
            .stderr(log())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "mariadb-install-db");
        let first = folder.path().join("first.sql");
        let grants = "CREATE DATABASE IF NOT EXISTS bench;\nCREATE USER IF NOT EXISTS 'bench'@'%' IDENTIFIED BY 'bench';\n\
             GRANT ALL ON *.* TO 'bench'@'%';\n";
        std::fs::write(&first, grants).expect("written");
        let mut command = Command::new(SERVER);
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--user=root", "--innodb-buffer-pool-size=256M"]);
        command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", folder.path().join("s.sock").display()));
        command.arg(format!("--init-file={}", first.display())).args(["--max-allowed-packet=64M"]);
        let started = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().expect("it starts");
        let _server = support::Process(started);
        let way = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).user(Some("bench"));
        let way = way.pass(Some("bench")).db_name(Some("bench"));
        let mut library = None;
        for _ in 0..600 {
            match Conn::new(way.clone()).await {
                Ok(connected) => {
                    library = Some(connected);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let mut library = library.expect("it answers");
        let settings = |database: &str| {
            json!({
                "host": "127.0.0.1", "port": port, "database": database, "user": "bench", "password": "bench",
                "sslMode": "disable",
            })
        };
        let Some(driver) = driver("mariadb", settings("bench")) else { return };
        servers::promises::write(&driver, &servers::batches::contacts(u64::MAX, 1 << 40, 1)).await;
        library.query_drop("CREATE TABLE bare LIKE tidemill_events").await.expect("a table");
        let mut nodes = Vec::new();
        for run in 0..RUNS {
            library.query_drop(format!("CREATE DATABASE node{run}")).await.expect("a database");
            nodes.push(settings(&format!("node{run}")));
        }
        let mut bare = Library(library);
        compare("mariadb", &*driver, &mut bare).await;
        drained("mariadb", nodes, &*driver, &mut bare).await;
    }
}

#[cfg(feature = "s3")]
pub use s3::objects;

#[cfg(feature = "s3")]
mod s3 {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde::Serialize;
    use serde_json::value::RawValue;

    use super::*;

    /// Lines by serde_json, compressed as the driver does by default, and an unsigned PUT by reqwest.
    struct Puts {
        client: reqwest::Client,
        port: u16,
    }

    /// What the driver's lines say.
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        event_id: String,
        seq: u64,
        topic: &'a str,
        update_type: Option<&'a str>,
        connection_id: Option<String>,
        user_id: Option<String>,
        username: Option<&'a str>,
        app: Option<&'a str>,
        record_id: Option<&'a str>,
        remote_id: Option<&'a str>,
        event_time: String,
        received_at: String,
        payload: &'a RawValue,
    }

    impl Bare for Puts {
        type Ready = Batch;

        fn ready(&self, batch: &Batch, _: Frozen) -> Batch {
            batch.clone()
        }

        async fn write(&mut self, batch: &Batch) {
            let mut lines = Vec::new();
            for item in &batch.items {
                let event = &item.event;
                let line = Line {
                    event_id: item.id.to_string(),
                    seq: item.seq.0,
                    topic: &event.topic,
                    update_type: event.update_type.as_deref(),
                    connection_id: event.connection.map(|id| id.to_string()),
                    user_id: event.user.map(|id| id.to_string()),
                    username: event.username.as_deref(),
                    app: event.app.as_deref(),
                    record_id: None,
                    remote_id: None,
                    event_time: event.happened_at.rfc3339_millis(),
                    received_at: event.accepted_at.rfc3339_millis(),
                    payload: serde_json::from_str(&item.payload).expect("JSON"),
                };
                serde_json::to_writer(&mut lines, &line).expect("a line");
                lines.push(b'\n');
            }
            let mut packed = GzEncoder::new(Vec::new(), Compression::default());
            packed.write_all(&lines).expect("packed");
            let object = packed.finish().expect("packed");
            let url = format!("http://127.0.0.1:{}/bare/{}.jsonl.gz", self.port, batch.id);
            let answer = self.client.put(url).body(object).send().await.expect("an answer");
            assert!(answer.status().is_success());
        }
    }

    /// An object store that takes everything at once: a receiver of the benches, in a process of its own.
    pub async fn objects() {
        let port = support::port();
        let _sink = support::beside(&["--sink"], port).await;
        let settings = json!({
            "s3Endpoint": format!("http://127.0.0.1:{port}"), "region": "eu-central-1", "bucket": "bench",
            "accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        });
        let Some(driver) = driver("s3", settings.clone()) else { return };
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut bare = Puts { client, port };
        compare("s3", &*driver, &mut bare).await;
        drained("s3", vec![settings; RUNS], &*driver, &mut bare).await;
    }
}
