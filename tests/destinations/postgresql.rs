//! PostgreSQL: the real server, once in effect whatever breaks, as a log and as a mirror.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Batch, Driver, Fault, Verdict};
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::{Deletes, Shape};
use tidemill::domain::trouble::Trouble;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Client;

use crate::support::cutter::{Counted, Cutter};
use crate::support::postgres::{PASSWORD, Postgres, USER, shared};
use crate::support::{batches, open, promises, unknown_setting};

const MARK: Shape = Shape::Mirror(Deletes::Mark);
const REMOVE: Shape = Shape::Mirror(Deletes::Remove);

/// A driver that writes to a fresh database of the shared server.
async fn fresh(name: &str, more: Value) -> Option<(Arc<Postgres>, Client, Arc<dyn Driver>)> {
    let server = shared()?;
    let admin = server.database(name).await;
    let driver = open("postgresql", server.settings(name, more)).unwrap();
    Some((server, admin, driver))
}

async fn count(admin: &Client, table: &str) -> usize {
    let there = admin.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await.unwrap();
    if !there.get::<_, bool>(0) {
        return 0;
    }
    let counted = admin.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
    usize::try_from(counted.get::<_, i64>(0)).unwrap()
}

async fn one(admin: &Client, question: &str) -> Option<String> {
    let row = admin.query_opt(question, &[]).await.unwrap_or_else(|error| panic!("{question}: {error:?}"));
    row.unwrap_or_else(|| panic!("{question}: no row")).get(0)
}

async fn send(driver: &Arc<dyn Driver>, batch: &Batch) -> Answer {
    driver.send(&driver.prepare(batch).unwrap()).await
}

/// The kind of verdict on all, its trouble, and the server's words.
fn refusal(answer: Answer) -> (char, AttemptError, String) {
    match answer {
        Answer::All(Verdict::Retry(Fault { error, detail, .. })) => ('t', error, detail),
        Answer::All(Verdict::Row(Fault { error, detail, .. })) => ('r', error, detail),
        Answer::All(Verdict::Config(Fault { error, detail, .. })) => ('c', error, detail),
        other => panic!("{other:?}"),
    }
}

fn trouble(trouble: Trouble) -> AttemptError {
    AttemptError::Destination(trouble)
}

#[tokio::test]
async fn a_batch_is_in_the_table_once() {
    let Some((_server, admin, driver)) = fresh("once", json!({})).await else { return };
    let counted = || count(&admin, "tidemill_events");
    promises::writes_once(&driver, counted).await;
    promises::tests_well(&driver, counted).await;
    // A batch that was cut anew holds some of the same events.
    promises::write(&driver, &batches::contacts(900_003, 90_003, 6)).await;
    assert_eq!(counted().await, 13);
}

#[tokio::test]
async fn a_test_says_what_it_found_and_leaves_nothing() {
    let Some((_server, admin, driver)) = fresh("probed", json!({})).await else { return };
    for shape in [Shape::Append, MARK] {
        let steps = driver.test(&batches::probe(shape)).await;
        let names: Vec<_> = steps.iter().map(|step| step.name).collect();
        assert_eq!(names, ["connect", "signIn", "permissions", "table", "write", "read", "clean"], "{steps:?}");
        assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");
        assert!(steps[1].found.starts_with("PostgreSQL "), "{steps:?}");
    }
    let tables = one(&admin, "SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'").await;
    assert_eq!(tables.as_deref(), Some("0"));
}

#[tokio::test]
async fn what_an_event_says_stands_in_its_columns() {
    let Some((_server, admin, driver)) = fresh("columns", json!({})).await else { return };
    let updated = batches::contact("updated", "7", "Jane");
    promises::write(&driver, &batches::batch(1, Shape::Append, 41, vec![updated])).await;
    let row = "SELECT concat_ws('|', seq, topic, update_type, username, app, remote_id, event_time AT TIME ZONE 'UTC', \
         payload->>'firstName', changed_fields, previous, raw) FROM tidemill_events";
    let expected = "41|crm/contacts|updated|acme|HubSpot|7|2026-03-01 12:00:00|Jane|[\"firstName\"]|\
         {\"firstName\": \"Before\"}|{\"properties\": {\"firstname\": \"Raw\"}}";
    assert_eq!(one(&admin, row).await.as_deref(), Some(expected));
}

#[tokio::test]
async fn a_mirror_equals_the_records_and_never_goes_back() {
    let Some((_server, admin, driver)) = fresh("mirrored", json!({"tablePrefix": "tm_"})).await else { return };
    let batch = |number, from, events| batches::batch(number, MARK, from, events);
    let first = batch(1, 10, vec![batches::contact("created", "1", "A"), batches::contact("created", "2", "B")]);
    promises::prepares_the_same(&driver, &first);
    promises::write(&driver, &first).await;
    let names = "SELECT string_agg(remote_id || first_name, ',' ORDER BY remote_id) FROM tm_crm_contacts";
    assert_eq!(one(&admin, names).await.as_deref(), Some("1A,2B"));
    // Two changes of one record in a batch, and a deletion.
    let second = vec![
        batches::contact("updated", "1", "C"),
        batches::contact("updated", "1", "D"),
        batches::contact("deleted", "2", "B"),
    ];
    promises::write(&driver, &batch(2, 20, second)).await;
    assert_eq!(one(&admin, names).await.as_deref(), Some("1D,2B"));
    let gone = "SELECT string_agg(remote_id, ',') FROM tm_crm_contacts WHERE deleted_at IS NOT NULL";
    assert_eq!(one(&admin, gone).await.as_deref(), Some("2"));
    // The first batch once more, as after a replay: older versions change nothing.
    promises::write(&driver, &first).await;
    assert_eq!(one(&admin, names).await.as_deref(), Some("1D,2B"));
    assert_eq!(one(&admin, gone).await.as_deref(), Some("2"));
}

#[tokio::test]
async fn what_is_published_about_a_topic_with_a_model_stands_in_its_columns() {
    let Some((_server, admin, driver)) = fresh("published", json!({})).await else { return };
    let payload = "{\"id\":7,\"firstName\":\"Ada\",\"lastName\":12.50,\"loyalty\":{\"points\":3},\"userId\":\"theirs\",\
                   \"remoteId\":\"x\",\"_seq\":1,\"createdAt\":\"2024-01-02T03:04:05Z\"}";
    let event = || batches::custom("crm/contacts", payload);
    let frozen = driver.prepare(&batches::batch(1, MARK, 41, vec![event()])).unwrap();
    assert!(frozen.notes.iter().any(|note| note.contains("loyalty")), "{:?}", frozen.notes);
    promises::write(&driver, &batches::batch(1, MARK, 41, vec![event()])).await;
    let row =
        "SELECT concat_ws('|', remote_id, user_id, first_name, last_name, created_at, _seq, _extra) FROM crm_contacts";
    let wanted = "7|Ada|41|{\"_seq\": 1, \"userId\": \"theirs\", \"loyalty\": {\"points\": 3}, \"lastName\": 12.50, \
                  \"remoteId\": \"x\", \"createdAt\": \"2024-01-02T03:04:05Z\"}";
    assert_eq!(one(&admin, row).await.as_deref(), Some(wanted));
}

#[tokio::test]
async fn a_mirror_that_removes_has_no_row_of_what_is_deleted() {
    let Some((_server, admin, driver)) = fresh("removed", json!({})).await else { return };
    let names = "SELECT string_agg(remote_id || first_name, ',' ORDER BY remote_id) FROM crm_contacts";
    let created = |ids: &[&str]| ids.iter().map(|id| batches::contact("created", id, "A")).collect();
    promises::write(&driver, &batches::batch(1, REMOVE, 10, created(&["1", "2", "3"]))).await;
    let changes = vec![
        batches::contact("deleted", "1", "A"),
        batches::contact("updated", "2", "B"),
        batches::contact("deleted", "3", "A"),
        batches::contact("created", "3", "Again"),
    ];
    let changes = batches::batch(2, REMOVE, 20, changes);
    promises::write(&driver, &changes).await;
    promises::write(&driver, &changes).await;
    assert_eq!(one(&admin, names).await.as_deref(), Some("2B,3Again"));
    // A deletion that is older than the row does not take it away.
    let late = batches::batch(3, REMOVE, 5, vec![batches::contact("deleted", "2", "A")]);
    promises::write(&driver, &late).await;
    assert_eq!(one(&admin, names).await.as_deref(), Some("2B,3Again"));
}

#[tokio::test]
async fn numbers_stay_exact_and_what_a_column_cannot_hold_is_kept() {
    let Some((_server, admin, driver)) = fresh("exact", json!({})).await else { return };
    let wide = "123456789012345678901234567890.123456789";
    let payload = format!("{{\"id\":\"w\",\"amount\":{wide},\"old\":\"1912-06-23T00:00:00Z\"}}");
    let events = vec![batches::custom("my/things", &payload)];
    promises::write(&driver, &batches::batch(1, Shape::Append, 1, events)).await;
    let amount = one(&admin, "SELECT payload->>'amount' FROM tidemill_events").await;
    assert_eq!(amount.as_deref(), Some(wide));
    // A text in a column of another type, an unknown field, and a time before 1970 in a mirror.
    let fields = json!({"name": "Deal", "amount": "a lot", "closeDate": "1912-06-23", "mood": "good"});
    let deal = batches::event("crm/opportunities", "created", "1", fields);
    let batch = batches::batch(2, MARK, 2, vec![deal]);
    let frozen = driver.prepare(&batch).unwrap();
    assert!(frozen.notes.iter().any(|note| note.contains("mood")), "{:?}", frozen.notes);
    promises::write(&driver, &batch).await;
    let row = "SELECT concat_ws('|', amount, close_date, _extra->>'amount', _extra->>'mood') FROM crm_opportunities";
    assert_eq!(one(&admin, row).await.as_deref(), Some("1912-06-23|a lot|good"));
}

#[tokio::test]
async fn a_nul_is_written_as_json_spells_it() {
    let Some((server, admin, driver)) = fresh("nul", json!({})).await else { return };
    let payload = r#"{"id":"n","text":"a\u0000b","half":"\ud83d","pair":"\ud83d\ude00"}"#;
    let batch = batches::batch(1, Shape::Append, 1, vec![batches::custom("my/things", payload)]);
    let frozen = driver.prepare(&batch).unwrap();
    assert!(frozen.notes.iter().any(|note| note.contains("U+0000")), "{:?}", frozen.notes);
    promises::write(&driver, &batch).await;
    let text = one(&admin, "SELECT payload->>'text' FROM tidemill_events").await;
    assert_eq!(text.as_deref(), Some(r"a\u0000b"));
    // In text, too.
    let batch = batches::batch(2, MARK, 2, vec![batches::contact("created", "n\0", "a\0b")]);
    promises::write(&driver, &batch).await;
    let text = one(&admin, "SELECT remote_id || first_name FROM crm_contacts").await;
    assert_eq!(text.as_deref(), Some(r"n\u0000a\u0000b"));
    // As `json` it stays byte for byte.
    let driver = open("postgresql", server.settings("nul", json!({"json": "json", "table": "exact"}))).unwrap();
    let batch = batches::batch(3, Shape::Append, 3, vec![batches::custom("my/things", payload)]);
    promises::write(&driver, &batch).await;
    assert_eq!(one(&admin, "SELECT payload::text FROM exact").await.as_deref(), Some(payload));
}

#[tokio::test]
async fn a_table_that_lacks_columns_gets_them_and_keeps_its_own() {
    let Some((_server, admin, driver)) = fresh("grown", json!({})).await else { return };
    admin
        .batch_execute(&format!(
            "CREATE TABLE tidemill_events (event_id varchar(64) UNIQUE, topic text, mine int DEFAULT 7); \
             ALTER TABLE tidemill_events OWNER TO {USER}"
        ))
        .await
        .unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    let row =
        one(&admin, "SELECT concat_ws('|', mine, topic, payload->>'firstName') FROM tidemill_events LIMIT 1").await;
    assert_eq!(row.as_deref(), Some("7|crm/contacts|First 1"));
    // Dropped while it is written to: made anew.
    admin.batch_execute("DROP TABLE tidemill_events").await.unwrap();
    promises::write(&driver, &batches::contacts(2, 3, 2)).await;
    assert_eq!(count(&admin, "tidemill_events").await, 2);
}

#[tokio::test]
async fn a_table_of_another_shape_is_for_the_owner_to_mend() {
    let Some((_server, admin, driver)) = fresh("shapes", json!({})).await else { return };
    let shapes = [
        ("event_id text, topic text", "unique index on (event_id)"),
        ("event_id text PRIMARY KEY, topic text, payload text", "payload"),
        ("event_id text PRIMARY KEY, seq text", "seq"),
        ("event_id text PRIMARY KEY, mine text NOT NULL", "mine"),
        ("event_id text PRIMARY KEY, raw jsonb NOT NULL DEFAULT '{}'", "raw takes no nulls"),
    ];
    for (columns, named) in shapes {
        let made = format!(
            "DROP TABLE IF EXISTS tidemill_events; CREATE TABLE tidemill_events ({columns}); \
             ALTER TABLE tidemill_events OWNER TO {USER}"
        );
        admin.batch_execute(&made).await.unwrap();
        let (kind, error, detail) = refusal(send(&driver, &batches::contacts(1, 1, 2)).await);
        assert_eq!((kind, error), ('c', trouble(Trouble::TableMismatch)), "{columns}: {detail}");
        assert!(detail.contains(named), "{columns}: {detail}");
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        let last = steps.last().unwrap();
        assert_eq!(last.name, "table", "{steps:?}");
        assert!(last.fault.as_ref().is_some_and(|fault| fault.detail.contains(named)), "{steps:?}");
    }
    // Mended, it goes on.
    admin.batch_execute("DROP TABLE tidemill_events").await.unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
}

#[tokio::test]
async fn what_the_settings_or_the_rights_forbid_pauses_with_a_reason() {
    let Some((server, admin, _)) = fresh("refused", json!({})).await else { return };
    admin.batch_execute("REVOKE ALL ON SCHEMA public FROM PUBLIC, writer; CREATE SCHEMA closed").await.unwrap();
    let cases = [
        (json!({"password": "wrong"}), "signIn", Trouble::CredentialsRefused),
        (json!({"user": "nobody"}), "signIn", Trouble::CredentialsRefused),
        (json!({"database": "nowhere"}), "signIn", Trouble::TargetMissing),
        (json!({"schema": "nowhere"}), "permissions", Trouble::TargetMissing),
        (json!({"schema": "closed"}), "permissions", Trouble::PermissionDenied),
    ];
    for (more, step, expected) in cases {
        let driver = open("postgresql", server.settings("refused", more.clone())).unwrap();
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        let last = steps.last().unwrap();
        assert_eq!(last.name, step, "{more}: {steps:?}");
        let fault = last.fault.as_ref().expect("it is refused");
        assert_eq!(fault.error, trouble(expected), "{more}: {steps:?}");
        assert!(!fault.detail.contains("127.0.0.1") && !fault.detail.contains(PASSWORD), "{steps:?}");
        let (kind, error, detail) = refusal(send(&driver, &batches::contacts(1, 1, 1)).await);
        assert_eq!((kind, error), ('c', trouble(expected)), "{more}: {detail}");
    }
    // A table without the right to insert.
    let driver = open("postgresql", server.settings("refused", json!({}))).unwrap();
    admin.batch_execute("GRANT ALL ON SCHEMA public TO writer").await.unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    admin.batch_execute("ALTER TABLE tidemill_events OWNER TO postgres").await.unwrap();
    let (kind, error, detail) = refusal(send(&driver, &batches::contacts(2, 2, 1)).await);
    assert_eq!((kind, error), ('c', trouble(Trouble::PermissionDenied)), "{detail}");
    admin.batch_execute("GRANT SELECT, INSERT ON tidemill_events TO writer").await.unwrap();
    promises::write(&driver, &batches::contacts(2, 2, 1)).await;
}

#[tokio::test]
async fn what_the_server_says_leads_to_its_verdict() {
    let Some((_server, admin, driver)) = fresh("verdicts", json!({})).await else { return };
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    // The server itself, told by a trigger to say what a full disk, a busy server or a failover would make it say.
    let cases = [
        ("53100", 't', Trouble::Full),
        ("53300", 't', Trouble::Busy),
        ("40001", 't', Trouble::Conflict),
        ("23514", 'r', Trouble::ValueRefused),
        ("54000", 'r', Trouble::TooLarge),
        ("0A000", 'c', Trouble::TableMismatch),
        ("25006", 't', Trouble::ReadOnly),
    ];
    for (code, kind, expected) in cases {
        let says = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'told so' USING ERRCODE = '{code}'; END $$; \
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON tidemill_events EXECUTE FUNCTION refuse()"
        );
        admin.batch_execute(&says).await.unwrap();
        let (found, error, detail) = refusal(send(&driver, &batches::contacts(2, 2, 2)).await);
        assert_eq!((found, error), (kind, trouble(expected)), "{code}");
        assert!(detail.contains("told so") && detail.contains(code), "{detail}");
    }
    // A failover that does not end is for the owner.
    let mut kinds = Vec::new();
    for _ in 0..6 {
        kinds.push(refusal(send(&driver, &batches::contacts(2, 2, 2)).await).0);
    }
    assert_eq!(kinds.last(), Some(&'c'), "{kinds:?}");
    admin.batch_execute("DROP TRIGGER refuse ON tidemill_events").await.unwrap();
    promises::write(&driver, &batches::contacts(2, 2, 2)).await;
    assert_eq!(count(&admin, "tidemill_events").await, 3);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_loses_nothing() {
    let Some((_server, admin, driver)) = fresh("frozen", json!({})).await else { return };
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    admin.batch_execute("ALTER DATABASE frozen SET default_transaction_read_only = on").await.unwrap();
    let shut = open("postgresql", shared().unwrap().settings("frozen", json!({}))).unwrap();
    let (kind, error, _) = refusal(send(&shut, &batches::contacts(2, 2, 1)).await);
    assert_eq!((kind, error), ('t', trouble(Trouble::ReadOnly)));
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let Some((server, admin, driver)) = fresh("deadlocked", json!({})).await else { return };
    // The one who waited first is the victim, however slow the machine is.
    let patience = format!("ALTER ROLE {USER} IN DATABASE deadlocked SET deadlock_timeout = '4s'");
    admin.batch_execute(&patience).await.unwrap();
    let both = |number, from| {
        let events = vec![batches::contact("updated", "1", "A"), batches::contact("updated", "2", "A")];
        batches::batch(number, MARK, from, events)
    };
    promises::write(&driver, &both(1, 1)).await;
    let other = server.admin("deadlocked").await;
    other.batch_execute("SET deadlock_timeout = '60s'; BEGIN").await.unwrap();
    other.batch_execute("UPDATE crm_contacts SET first_name = 'B' WHERE remote_id = '2'").await.unwrap();
    let frozen = driver.prepare(&both(2, 11)).unwrap();
    let locked = async {
        // The driver has the first row, and waits for the second.
        let waits = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = 'deadlocked' AND usename = 'writer' \
             AND wait_event_type = 'Lock'";
        for _ in 0..2_000 {
            if one(&admin, waits).await.as_deref() == Some("1") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.batch_execute("UPDATE crm_contacts SET first_name = 'B' WHERE remote_id = '1'").await
    };
    let (answer, updated) = tokio::join!(driver.send(&frozen), locked);
    let (kind, error, detail) = refusal(answer);
    assert_eq!((kind, error), ('t', trouble(Trouble::Deadlock)), "{detail}");
    updated.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(driver.send(&frozen).await, Answer::All(Verdict::Done));
    let names = one(&admin, "SELECT string_agg(first_name, ',') FROM crm_contacts").await;
    assert_eq!(names.as_deref(), Some("A,A"));
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_tried_again() {
    let Some((server, admin, driver)) = fresh("held", json!({"timeoutSeconds": 5})).await else { return };
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    let other = server.admin("held").await;
    other.batch_execute("BEGIN; LOCK TABLE tidemill_events IN EXCLUSIVE MODE").await.unwrap();
    let (kind, error, detail) = refusal(send(&driver, &batches::contacts(2, 2, 1)).await);
    assert_eq!((kind, error), ('t', trouble(Trouble::Busy)), "{detail}");
    other.batch_execute("ROLLBACK").await.unwrap();
    promises::write(&driver, &batches::contacts(2, 2, 1)).await;
    assert_eq!(count(&admin, "tidemill_events").await, 2);
}

#[tokio::test]
async fn a_connection_cut_anywhere_leaves_no_row_twice_and_none_out() {
    let Some(server) = shared() else { return };
    for (name, counted) in [("cut_sent", Counted::Sent), ("cut_answered", Counted::Answered)] {
        let admin = server.database(name).await;
        let way = Cutter::to(server.port, counted).await;
        let driver = open("postgresql", server.settings(name, json!({"port": way.port}))).unwrap();
        promises::write(&driver, &batches::contacts(1, 1, 1)).await;
        let (mut cuts, mut sent) = (0, 1);
        // To the server a batch takes some 3 KiB, from it some 300 bytes: steps that cut in each phase.
        let step = if counted == Counted::Sent { 257 } else { 23 };
        for number in 2..=24_u64 {
            way.cut_after(i64::try_from(number - 1).unwrap() * step);
            let frozen = driver.prepare(&batches::contacts(number, number * 10, 3)).unwrap();
            while driver.send(&frozen).await != Answer::All(Verdict::Done) {
                cuts += 1;
                assert!(cuts < 200, "it goes on failing");
                way.mend();
            }
            way.mend();
            sent += 3;
            assert_eq!(count(&admin, "tidemill_events").await, sent, "batch {number}");
        }
        assert!(cuts > 5, "{cuts} cuts");
    }
}

#[tokio::test]
async fn a_restart_of_the_server_is_waited_for() {
    let Some(mut server) = Postgres::start() else { return };
    let admin = server.database("restarted").await;
    let driver = open("postgresql", server.settings("restarted", json!({}))).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 3)).await;
    assert_eq!(count(&admin, "tidemill_events").await, 3);
    server.stop();
    let frozen = driver.prepare(&batches::contacts(2, 4, 3)).unwrap();
    for _ in 0..3 {
        let (kind, error, _) = refusal(driver.send(&frozen).await);
        assert_eq!(kind, 't', "{error:?}");
    }
    server.run();
    // What was connected before may show only now that it is gone.
    let mut answer = driver.send(&frozen).await;
    for _ in 0..4 {
        if answer == Answer::All(Verdict::Done) {
            break;
        }
        answer = driver.send(&frozen).await;
    }
    assert_eq!(answer, Answer::All(Verdict::Done), "{}", server.path().display());
    assert_eq!(count(&server.admin("restarted").await, "tidemill_events").await, 6);
}

#[tokio::test]
async fn many_lanes_share_a_few_connections() {
    let Some((_server, admin, driver)) = fresh("shared", json!({"maxConnections": 2})).await else { return };
    let writes = (0..12_u64).map(|lane| {
        let driver = driver.clone();
        async move {
            for number in 0..5 {
                promises::write(&driver, &batches::contacts(number, lane * 1_000 + number * 10, 10)).await;
            }
        }
    });
    futures_util::future::join_all(writes).await;
    assert_eq!(count(&admin, "tidemill_events").await, 600);
    let connected = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = 'shared' AND usename = 'writer'";
    let connected: usize = one(&admin, connected).await.unwrap().parse().unwrap();
    assert!((1..=2).contains(&connected), "{connected}");
}

#[tokio::test]
async fn tls_checks_whom_it_speaks_to() {
    let Some((server, admin, _)) = fresh("encrypted", json!({})).await else { return };
    let port = server.port;
    let password = "wr1ter%20s3cret%2F%40";
    let url = |host: &str| format!("postgresql://{USER}:{password}@{host}:{port}/encrypted?sslmode=require");
    let signing_in = |settings: Value| async move {
        let driver = open("postgresql", settings).unwrap();
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        let step = steps.into_iter().find(|step| step.fault.is_some());
        step.map(|step| (step.name, step.fault.unwrap().error.slug()))
    };
    let certificate = server.certificate();
    let believed = signing_in(json!({"url": url("localhost"), "caCertificate": certificate})).await;
    assert_eq!(believed, None);
    let stranger = signing_in(json!({"url": url("localhost")})).await;
    assert_eq!(stranger, Some(("signIn", "tls-untrusted")));
    let other_name = signing_in(json!({"url": url("127.0.0.1"), "caCertificate": certificate})).await;
    assert_eq!(other_name, Some(("signIn", "tls-name-mismatch")));
    let driver = open("postgresql", json!({"url": url("localhost"), "caCertificate": certificate})).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    let encrypted = "SELECT bool_and(ssl)::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'writer' \
         AND datname = 'encrypted'";
    assert_eq!(one(&admin, encrypted).await.as_deref(), Some("true"));
}

#[tokio::test]
async fn an_address_that_the_node_forbids_is_not_connected_to() {
    let settings = json!({"host": "10.255.255.1", "database": "d", "user": "u", "password": "p"});
    let driver = open("postgresql", settings).unwrap();
    let (kind, error, _) = refusal(send(&driver, &batches::contacts(1, 1, 1)).await);
    assert_eq!((kind, error.slug()), ('c', "address-forbidden"));
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refused = |settings: Value| open("postgresql", settings).err().unwrap().to_string();
    assert!(refused(unknown_setting()).contains("noSuchSetting"));
    assert!(refused(json!({})).contains("settings.host"));
    let pem = json!({"host": "h", "database": "d", "user": "u", "caCertificate": "no PEM"});
    assert!(refused(pem).contains("certificate"));
    let kind = tidemill::destinations::kinds::find("postgresql").unwrap();
    assert_eq!(kind.secrets(), ["url", "password"]);
}

#[tokio::test]
async fn a_name_that_the_server_would_cut_is_cut_before_and_stays_its_own() {
    let Some((_server, admin, driver)) = fresh("names", json!({"tablePrefix": "tm_"})).await else { return };
    let topics = [format!("my/{}a", "x".repeat(62)), format!("my/{}b", "x".repeat(62)), "a/b_c".into(), "a_b/c".into()];
    let events = topics.iter().map(|topic| batches::custom(topic, r#"{"id":1}"#)).collect();
    let batch = batches::batch(1, MARK, 1, events);
    promises::prepares_the_same(&driver, &batch);
    promises::write(&driver, &batch).await;
    let tables = "SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE 'tm\\_%'";
    assert_eq!(one(&admin, tables).await.as_deref(), Some("4"));
}

#[tokio::test]
async fn what_is_called_written_is_on_the_servers_disk() {
    let Some((server, admin, _)) = fresh("durable", json!({})).await else { return };
    let lax = "ALTER DATABASE durable SET synchronous_commit = off; \
         CREATE TABLE tidemill_events (event_id text PRIMARY KEY, mode text DEFAULT current_setting('synchronous_commit'))";
    admin.batch_execute(lax).await.unwrap();
    admin.batch_execute(&format!("ALTER TABLE tidemill_events OWNER TO {USER}")).await.unwrap();
    let driver = open("postgresql", server.settings("durable", json!({}))).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    assert_eq!(one(&admin, "SELECT mode FROM tidemill_events").await.as_deref(), Some("local"));
}

/// Signs in whoever comes, and answers nothing else.
async fn mute(server: tokio::net::TcpListener, asked: tokio::sync::oneshot::Sender<()>) {
    let (mut stream, _) = server.accept().await.unwrap();
    let length = stream.read_u32().await.unwrap();
    let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut startup).await.unwrap();
    // AuthenticationOk, ReadyForQuery (PostgreSQL's docs, 55.7).
    stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
    stream.read_u8().await.unwrap();
    asked.send(()).unwrap();
    while stream.read_u8().await.is_ok() {}
}

#[tokio::test]
async fn a_try_that_is_given_up_leaves_no_connection_behind() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let settings = json!({"host": "127.0.0.1", "port": port, "database": "d", "user": "u", "sslMode": "disable"});
    let driver = open("postgresql", settings).unwrap();
    let frozen = driver.prepare(&batches::contacts(1, 1, 1)).unwrap();
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    let closed = tokio::spawn(mute(server, asked));
    tokio::select! {
        answer = driver.send(&frozen) => panic!("{answer:?}"),
        asked = is_asked => asked.unwrap(),
    }
    tokio::time::timeout(Duration::from_secs(30), closed).await.expect("the connection is closed").unwrap();
}

/// What is bound, byte for byte: a change of it changes what a retry after an upgrade sends.
#[test]
fn a_frozen_batch_has_these_bytes() {
    let settings = json!({"host": "h", "database": "d", "user": "u"});
    let driver = open("postgresql", settings).unwrap();
    let events = || vec![batches::contact("updated", "b", "J\u{f6}"), batches::contact("deleted", "a", "K\0")];
    let mut text = String::new();
    for (number, shape) in [(1, Shape::Append), (2, MARK), (3, REMOVE)] {
        let frozen = driver.prepare(&batches::batch(number, shape, 7, events())).unwrap();
        for part in &frozen.parts {
            text.push_str(&format!("{} {} {:?}\n{}\n", frozen.id, part.target, part.items, part.body.escape_ascii()));
        }
    }
    let expected = include_str!("golden/postgresql.txt");
    assert_eq!(text, expected, "\n{text}");
}
