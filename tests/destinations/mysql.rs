//! MySQL and MariaDB: once, exactly, and never an older row over a later one.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Verdict};
use tidemill::destinations::kinds;
use tidemill::domain::address::Policy;
use tidemill::domain::destination::{Deletes, Shape};
use tidemill::domain::secret::Secret;
use tidemill::outbound::{Client, Options, Proxy};

use crate::support::mysql::{own, shared};
use crate::support::{batches, open, open_through, promises, unknown_setting};

const MARK: Shape = Shape::Mirror(Deletes::Mark);

/// The same promise of both servers.
macro_rules! both {
    ($($name:ident)*) => {
        mod mariadb { $(#[tokio::test] async fn $name() { super::$name("mariadb").await; })* }
        mod mysql { $(#[tokio::test] async fn $name() { super::$name("mysql").await; })* }
    };
}

both! {
    a_batch_is_in_the_table_once
    a_mirror_shows_the_latest_and_never_an_older_one
    a_mirror_can_forget_what_was_deleted
    what_is_written_reads_back_to_the_letter
    what_no_column_holds_is_kept_beside
    refusals_say_who_can_mend_them
    a_table_that_lacks_a_column_gets_it_and_another_shape_is_refused
    a_table_that_was_dropped_behind_us_is_made_again
    a_row_above_the_servers_limit_is_of_that_event_alone
    many_lanes_share_a_few_connections
    a_deadlock_and_a_cut_in_the_middle_lose_nothing
    a_server_that_restarts_is_found_again
    tls_is_checked_unless_told_otherwise
}

async fn count(mut conn: Conn, table: &str) -> usize {
    conn.query_first(format!("SELECT COUNT(*) FROM {table}")).await.ok().flatten().unwrap_or(0)
}

/// The code and the sort of a refusal of all.
fn refusal(answer: &Answer) -> (&'static str, &'static str) {
    match answer {
        Answer::All(Verdict::Retry(fault)) => ("retry", fault.error.slug()),
        Answer::All(Verdict::Row(fault)) => ("row", fault.error.slug()),
        Answer::All(Verdict::Config(fault)) => ("config", fault.error.slug()),
        other => panic!("{other:?}"),
    }
}

async fn a_batch_is_in_the_table_once(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let _conn = server.database("once").await;
    let driver = open(kind, server.settings("once")).unwrap();
    let count = || async { count(server.conn().await, "once.tidemill_events").await };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    let left: Option<u32> = server
        .conn()
        .await
        .query_first("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'once'")
        .await
        .unwrap();
    assert_eq!(left, Some(1), "a test leaves no table");
}

async fn a_mirror_shows_the_latest_and_never_an_older_one(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("mirror").await;
    let driver = open(kind, server.settings("mirror")).unwrap();
    let named =
        |number, seq, name: &str| batches::batch(number, MARK, seq, vec![batches::contact("updated", "7", name)]);
    promises::prepares_the_same(&driver, &named(1, 1, "A"));
    promises::write(&driver, &named(1, 5, "Later")).await;
    promises::write(&driver, &named(2, 3, "Older")).await;
    let shown = "SELECT first_name, _seq, deleted_at IS NULL FROM crm_contacts";
    assert_eq!(conn.query::<(String, u64, bool), _>(shown).await.unwrap(), [("Later".to_owned(), 5, true)]);
    // Two changes of a record in one batch, the later one a deletion; `7 ` and `É` are others.
    let events = vec![
        batches::contact("updated", "7", "Last"),
        batches::contact("deleted", "7", "Last"),
        batches::contact("created", "7 ", "Blank"),
        batches::contact("created", "É", "Accent"),
        batches::contact("created", "é", "Small"),
    ];
    promises::write(&driver, &batches::batch(3, MARK, 6, events)).await;
    assert_eq!(
        conn.query::<(String, u64, bool), _>(shown.to_owned() + " WHERE remote_id = '7'").await.unwrap(),
        [("Last".to_owned(), 7, false)]
    );
    assert_eq!(conn.query_first::<u32, _>("SELECT COUNT(*) FROM crm_contacts").await.unwrap(), Some(4));
    let steps = driver.test(&batches::probe(MARK)).await;
    assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");
}

async fn a_mirror_can_forget_what_was_deleted(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("forget").await;
    let driver = open(kind, server.settings("forget")).unwrap();
    let shape = Shape::Mirror(Deletes::Remove);
    let write = |number, seq, event| batches::batch(number, shape, seq, vec![event]);
    promises::write(&driver, &write(1, 5, batches::contact("created", "it's", "A"))).await;
    // A deletion that is older than what is there changes nothing.
    promises::write(&driver, &write(2, 4, batches::contact("deleted", "it's", "A"))).await;
    assert_eq!(conn.query_first::<u32, _>("SELECT COUNT(*) FROM crm_contacts").await.unwrap(), Some(1));
    promises::write(&driver, &write(3, 6, batches::contact("deleted", "it's", "A"))).await;
    assert_eq!(conn.query_first::<u32, _>("SELECT COUNT(*) FROM crm_contacts").await.unwrap(), Some(0));
    // Many at once; one of another case, or with a blank at the end, is another record.
    let all = |what: &'static str| ["a", "A", "a ", "b;--", "c\n"].map(|id| batches::contact(what, id, "A"));
    promises::write(&driver, &batches::batch(4, shape, 10, all("created").into())).await;
    assert_eq!(conn.query_first::<u32, _>("SELECT COUNT(*) FROM crm_contacts").await.unwrap(), Some(5));
    promises::write(&driver, &batches::batch(5, shape, 20, all("deleted")[..4].to_vec())).await;
    assert_eq!(conn.query::<String, _>("SELECT remote_id FROM crm_contacts").await.unwrap(), ["c\n"]);
}

async fn what_is_written_reads_back_to_the_letter(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("letters").await;
    let driver = open(kind, server.settings("letters")).unwrap();
    let payload = "{\"id\":\"a'b\\\\c\\\"d`e%_\",\"wide\":123456789012345678901234567890,\"money\":12.50,\n\"a.b\":1,\"$set\":2,\"nul\":\"\\u0000\",\"text\":\"é🦀'; DROP TABLE x; -- \"}";
    let mut event = batches::custom("acme/things", payload);
    event.username = Some("a\0b\\'\u{1f980}".to_owned());
    // Deeper than either server's JSON functions go.
    let deep = format!("{{\"id\":1,\"deep\":{}1{}}}", "[".repeat(120), "]".repeat(120));
    promises::write(
        &driver,
        &batches::batch(1, Shape::Append, 1, vec![event.clone(), batches::custom("acme/things", &deep)]),
    )
    .await;
    let row: Option<(String, String, String)> =
        conn.query_first("SELECT payload, username, remote_id FROM tidemill_events ORDER BY seq").await.unwrap();
    let (found, username, remote_id) = row.unwrap();
    let sent = batches::batch(1, Shape::Append, 1, vec![event]);
    assert_eq!(found, *sent.items[0].payload);
    assert_eq!((username.as_str(), remote_id.as_str()), ("a\0b\\'\u{1f980}", "a'b\\c\"d`e%_"));
    assert_eq!(count(server.conn().await, "letters.tidemill_events").await, 2);
}

async fn what_no_column_holds_is_kept_beside(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("beside").await;
    let driver = open(kind, server.settings("beside")).unwrap();
    let fields = json!({"name": "Deal", "amount": serde_json::from_str::<Value>("1e40").unwrap(), "closeDate": "1912-06-23T01:02:03Z", "customFields": {"a": 1}});
    let batch = batches::batch(1, MARK, 1, vec![batches::event("crm/opportunities", "created", "1", fields)]);
    let frozen = driver.prepare(&batch).unwrap();
    assert!(!frozen.notes.is_empty(), "the owner is told");
    promises::write(&driver, &batch).await;
    let extra: Option<String> = conn.query_first("SELECT _extra FROM crm_opportunities").await.unwrap();
    let extra = extra.unwrap();
    assert!(extra.contains("1e+40") || extra.contains("1e40"), "{extra}");
}

async fn refusals_say_who_can_mend_them(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("refusals").await;
    for sql in [
        "DROP USER IF EXISTS 'reader'@'%'",
        "CREATE USER 'reader'@'%' IDENTIFIED BY 'reader'",
        "GRANT SELECT ON refusals.* TO 'reader'@'%'",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    let cases = [
        (json!({"password": "not-it"}), "credentials-refused", "signIn"),
        (json!({"database": "no_such_database"}), "target-missing", "signIn"),
        (json!({"user": "reader", "password": "reader"}), "permission-denied", "permissions"),
    ];
    for (change, code, step) in cases {
        let mut settings = server.settings("refusals");
        settings.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let driver = open(kind, settings).unwrap();
        let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 2)).unwrap()).await;
        assert_eq!(refusal(&answer), ("config", code), "{answer:?}");
        assert!(!format!("{answer:?}").contains("not-it"));
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        let last = steps.last().unwrap();
        assert_eq!((last.name, last.fault.as_ref().map(|fault| fault.error.slug())), (step, Some(code)), "{steps:?}");
    }
    // An address that the node does not allow, and a node that reaches others through a proxy.
    let strict = Client::new(&Options::standard(), std::sync::Arc::new(Policy::default())).unwrap();
    let driver = open_through(strict, kind, server.settings("refusals"), None).unwrap();
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(refusal(&answer), ("config", "address-forbidden"));
}

async fn a_table_that_lacks_a_column_gets_it_and_another_shape_is_refused(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("shapes").await;
    let driver = open(kind, server.settings("shapes")).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    conn.query_drop("ALTER TABLE tidemill_events DROP COLUMN raw, ADD COLUMN mine INT NULL").await.unwrap();
    // The driver that knew the table meets the change in the middle of its work.
    promises::write(&driver, &batches::contacts(2, 2, 1)).await;
    let raw: Option<u32> = conn.query_first("SELECT COUNT(raw) FROM tidemill_events").await.unwrap();
    assert_eq!(raw, Some(1));
    for (table, sql) in [
        (
            "ci",
            "CREATE TABLE ci (event_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, seq BIGINT, topic TEXT, event_time DATETIME(6), received_at DATETIME(6))",
        ),
        ("keyless", "CREATE TABLE keyless LIKE tidemill_events"),
        (
            "full",
            "CREATE TABLE full (event_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, seq BIGINT, topic TEXT, event_time DATETIME(6), received_at DATETIME(6), raw LONGTEXT NOT NULL)",
        ),
        ("other", "CREATE TABLE other (id INT PRIMARY KEY)"),
    ] {
        conn.query_drop(sql).await.unwrap();
        if table == "keyless" {
            conn.query_drop("ALTER TABLE keyless DROP PRIMARY KEY").await.unwrap();
        }
        let mut settings = server.settings("shapes");
        settings["table"] = table.into();
        let driver = open(kind, settings).unwrap();
        let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
        assert_eq!(refusal(&answer), ("config", "table-mismatch"), "{table}");
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        assert_eq!(steps.last().map(|step| step.name), Some("table"), "{steps:?}");
        assert_eq!(count(server.conn().await, &format!("shapes.{table}")).await, 0);
    }
}

async fn a_table_that_was_dropped_behind_us_is_made_again(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("dropped").await;
    let driver = open(kind, server.settings("dropped")).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    conn.query_drop("DROP TABLE tidemill_events").await.unwrap();
    promises::write(&driver, &batches::contacts(2, 2, 3)).await;
    assert_eq!(count(server.conn().await, "dropped.tidemill_events").await, 3);
}

async fn a_row_above_the_servers_limit_is_of_that_event_alone(kind: &'static str) {
    let Some(server) = own(kind).await else { return };
    let mut conn = server.database("large").await;
    conn.query_drop("SET GLOBAL max_allowed_packet = 1048576").await.unwrap();
    let driver = open(kind, server.settings("large")).unwrap();
    let large = batches::custom("acme/things", &json!({"id": 1, "text": "x".repeat(2 << 20)}).to_string());
    let answer = driver.send(&driver.prepare(&batches::batch(1, Shape::Append, 1, vec![large])).unwrap()).await;
    assert_eq!(refusal(&answer), ("row", "value-too-large"));
    // Many small ones go in as many statements as it takes.
    let small = |n: u64| batches::custom("acme/things", &json!({"id": n, "text": "x".repeat(100_000)}).to_string());
    promises::write(&driver, &batches::batch(2, Shape::Append, 10, (0..30).map(small).collect())).await;
    assert_eq!(count(server.conn().await, "large.tidemill_events").await, 30);
}

async fn many_lanes_share_a_few_connections(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let mut conn = server.database("lanes").await;
    let driver = open(kind, server.settings("lanes")).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    let writes = (1..=20_u64).map(|lane| {
        let driver = driver.clone();
        async move {
            for number in 0..3 {
                promises::write(&driver, &batches::contacts(number, lane * 1_000 + number * 10, 10)).await;
            }
        }
    });
    let all = futures_util::future::join_all(writes);
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("no lane waits for a connection that is free");
    assert_eq!(count(server.conn().await, "lanes.tidemill_events").await, 601);
    let held = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'lanes' AND id <> CONNECTION_ID()";
    let held = conn.query_first::<u32, _>(held).await.unwrap().unwrap();
    assert!((1..=8).contains(&held), "{held}");
}

/// Waits until another session's lock is waited for.
async fn until_waiting(conn: &mut Conn) {
    let deadline = Instant::now() + Duration::from_secs(15);
    let waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
    while conn.query_first::<u32, _>(waiting).await.unwrap() == Some(0) {
        assert!(Instant::now() < deadline, "nobody waits");
        // InnoDB shows a new picture only to those who have not looked for 100 ms (trx0i_s.cc, CACHE_MIN_IDLE_TIME_NS).
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn a_deadlock_and_a_cut_in_the_middle_lose_nothing(kind: &'static str) {
    // Who waits is seen of the whole server.
    let Some(server) = own(kind).await else { return };
    let mut other = server.database("locks").await;
    let driver = open(kind, server.settings("locks")).unwrap();
    let events = || vec![batches::contact("updated", "a", "New"), batches::contact("updated", "b", "New")];
    promises::write(&driver, &batches::batch(1, MARK, 1, events())).await;
    let batch = batches::batch(2, MARK, 10, events());
    let frozen = driver.prepare(&batch).unwrap();

    // By the whole key, so that no other row is locked.
    let of = |id: &str| {
        let connection = batches::CONNECTION;
        format!("UPDATE crm_contacts SET last_name = 'X' WHERE connection_id = '{connection}' AND remote_id = '{id}'")
    };
    // The other transaction has changed much, so ours is the one that is rolled back.
    let heavy = "INSERT INTO heavy SELECT seq.n FROM (WITH RECURSIVE seq(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < 900) SELECT n FROM seq) seq";
    for sql in ["CREATE TABLE heavy (n INT PRIMARY KEY) ENGINE=InnoDB", "START TRANSACTION", heavy, &of("b")] {
        other.query_drop(sql).await.unwrap();
    }
    let sending = tokio::spawn({
        let (driver, frozen) = (driver.clone(), frozen.clone());
        async move { driver.send(&frozen).await }
    });
    let mut watcher = server.conn().await;
    until_waiting(&mut watcher).await;
    other.query_drop(of("a")).await.unwrap();
    assert_eq!(refusal(&sending.await.unwrap()), ("retry", "deadlock"));

    // The connection is cut while the batch waits for the same lock.
    let sending = tokio::spawn({
        let (driver, frozen) = (driver.clone(), frozen.clone());
        async move { driver.send(&frozen).await }
    });
    until_waiting(&mut watcher).await;
    let id: Option<u64> = watcher
        .query_first("SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
        .await
        .unwrap();
    watcher.query_drop(format!("KILL CONNECTION {}", id.unwrap())).await.unwrap();
    assert_eq!(refusal(&sending.await.unwrap()).0, "retry");
    other.query_drop("ROLLBACK").await.unwrap();
    let names = "SELECT _seq FROM locks.crm_contacts ORDER BY remote_id";
    assert_eq!(watcher.query::<u64, _>(names).await.unwrap(), [1, 2], "nothing of the batch is there");

    promises::write(&driver, &batch).await;
    assert_eq!(watcher.query::<u64, _>(names).await.unwrap(), [10, 11]);
}

async fn a_server_that_restarts_is_found_again(kind: &'static str) {
    let Some(server) = own(kind).await else { return };
    let _conn = server.database("restart").await;
    let driver = open(kind, server.settings("restart")).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    server.kill();
    let frozen = driver.prepare(&batches::contacts(2, 3, 2)).unwrap();
    assert_eq!(refusal(&driver.send(&frozen).await), ("retry", "connect-failed"));
    server.restart().await;
    promises::write(&driver, &batches::contacts(2, 3, 2)).await;
    assert_eq!(count(server.conn().await, "restart.tidemill_events").await, 4);
}

async fn tls_is_checked_unless_told_otherwise(kind: &'static str) {
    let Some(server) = shared(kind).await else { return };
    let _conn = server.database("tls").await;
    let mut settings = server.settings("tls");
    let fields = settings.as_object_mut().unwrap();
    fields.remove("caCertificate");
    let answer = |settings: Value| async move {
        let driver = open(kind, settings).unwrap();
        driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await
    };
    assert_eq!(refusal(&answer(settings.clone()).await), ("config", "tls-untrusted"));
    for mode in ["require", "disable", "REQUIRED"] {
        settings["sslMode"] = mode.into();
        assert_eq!(answer(settings.clone()).await, Answer::All(Verdict::Done), "{mode}");
    }
    let mut settings = server.settings("tls");
    settings["serverName"] = "db.example.com".into();
    assert_eq!(refusal(&answer(settings).await), ("config", "tls-name-mismatch"));
    let url = format!("mysql://admin:admin@localhost:{}/tls?ssl-mode=VERIFY_IDENTITY", server.port);
    assert_eq!(answer(json!({"url": url, "caCertificate": server.ca})).await, Answer::All(Verdict::Done));
}

#[tokio::test]
async fn a_node_behind_a_proxy_says_that_it_cannot_dial() {
    let policy = Policy::new(vec!["127.0.0.0/8".parse().unwrap()], false);
    let options = Options {
        proxy: Some(Proxy::parse(&Secret::new("http://127.0.0.1:1".to_owned())).unwrap()),
        ..Options::standard()
    };
    let client = Client::new(&options, std::sync::Arc::new(policy)).unwrap();
    let settings = json!({"host": "127.0.0.1", "user": "u", "database": "d"});
    let driver = open_through(client, "mysql", settings, None).unwrap();
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(refusal(&answer), ("config", "settings-refused"));
}

#[tokio::test]
async fn the_frozen_bytes_are_these() {
    let settings = json!({"host": "127.0.0.1", "user": "u", "database": "d"});
    let driver = open("mysql", settings).unwrap();
    let event = batches::custom("acme/things", "{\"id\":\"o'clock\"}");
    let frozen = driver.prepare(&batches::batch(1, Shape::Append, 1, vec![event])).unwrap();
    let body = String::from_utf8(frozen.parts[0].body.to_vec()).unwrap();
    let (head, row) = body.split_once('\n').unwrap();
    assert!(
        head.starts_with(
            "{\"table\":\"tidemill_events\",\"columns\":[{\"name\":\"event_id\",\"kind\":\"id\",\"nullable\":false},"
        ),
        "{head}"
    );
    assert!(
        head.ends_with(
            "{\"name\":\"raw\",\"kind\":\"json\",\"nullable\":true}],\"key\":[\"event_id\"],\"mirror\":false}"
        ),
        "{head}"
    );
    let id = batches::batch(1, Shape::Append, 1, vec![batches::custom("a/b", "{}")]).items[0].id;
    let expected = format!(
        "+('{id}',1,'acme/things','updated',NULL,NULL,NULL,NULL,NULL,'o''clock','2026-03-01 12:00:00.000000',\
         '2026-03-01 12:00:00.000000','{{\"id\":\"o''clock\"}}',NULL,NULL,NULL)"
    );
    assert_eq!(row, expected);
    let gone = batches::batch(1, Shape::Mirror(Deletes::Remove), 9, vec![batches::contact("deleted", "7", "A")]);
    let frozen = driver.prepare(&gone).unwrap();
    let body = String::from_utf8(frozen.parts[0].body.to_vec()).unwrap();
    assert!(body.ends_with(&format!("\n-('{}','7',9)", batches::CONNECTION)), "{body}");
}

#[test]
fn bad_settings_are_refused_by_name() {
    for kind in ["mysql", "mariadb"] {
        let refused = |settings: Value| open(kind, settings).err().unwrap().to_string();
        let with = |name: &str, value: Value| {
            let mut settings = json!({"host": "h", "user": "u", "database": "d"});
            settings[name] = value;
            refused(settings)
        };
        assert!(refused(unknown_setting()).contains("noSuchSetting"));
        assert!(refused(json!({})).contains("settings.host"));
        assert!(with("table", "a`b".into()).contains("settings.table"));
        assert!(with("tablePrefix", "x-".into()).contains("settings.tablePrefix"));
        assert!(with("maxRows", 0.into()).contains("settings.maxRows"));
        assert!(with("url", "mysql://u:p@h/d".into()).contains("settings.url"));
        assert!(with("caCertificate", "no PEM".into()).contains("settings.caCertificate"));
        let secrets = kinds::find(kind).unwrap().secrets();
        assert_eq!(secrets, ["url", "password"]);
    }
}
