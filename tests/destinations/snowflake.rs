//! Snowflake: against a stub that keeps request ids and checks tokens as Snowflake does, and against fakesnow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Driver, Verdict};
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::{Deletes, Shape};
use tidemill::domain::failure::Failure;
use tidemill::domain::trouble::Trouble;

use crate::support::gate::{Gate, port};
use crate::support::google::Keys;
use crate::support::stub::{Fails, Reply, Seen, Stub};
use crate::support::{batches, emulators, open, promises, unknown_setting, verdicts};

const STATEMENTS: &str = "/api/v2/statements";

#[derive(Default)]
struct Held {
    tables: BTreeSet<String>,
    answers: BTreeMap<String, Reply>,
    events: BTreeSet<String>,
    /// Answer 202 first, to the next statement.
    slow: bool,
    waiting: BTreeMap<String, Reply>,
}

struct Account {
    stub: Stub,
    keys: Arc<Keys>,
    held: Arc<Mutex<Held>>,
}

fn failed(code: &str, message: &str) -> Reply {
    Reply::json(422, json!({"code": code, "sqlState": "42000", "message": message, "statementHandle": "h"}))
}

impl Account {
    fn start() -> Self {
        let (keys, held): (_, Arc<Mutex<Held>>) = (Arc::new(Keys::generate()), Arc::default());
        let (key, shared) = (keys.clone(), held.clone());
        let stub = Stub::start(move |seen| {
            assert_eq!(seen.header("x-snowflake-authorization-token-type"), Some("KEYPAIR_JWT"));
            let token = seen.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
            let Ok(claims) = key.claims(token, None) else {
                return Reply::json(401, json!({"code": "390144", "message": "JWT token is invalid."}));
            };
            assert_eq!(claims["sub"], "MYORG-ACCT.LOADER");
            assert!(claims["iss"].as_str().unwrap().starts_with("MYORG-ACCT.LOADER.SHA256:"));
            assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 3_600);
            let mut held = shared.lock().unwrap();
            if seen.method == "GET" {
                let handle = seen.path().rsplit('/').next().unwrap().to_owned();
                return held.waiting.remove(&handle).unwrap();
            }
            assert_eq!(seen.query("retry").as_deref(), Some("true"));
            let id = seen.query("requestId").unwrap();
            if let Some(answer) = held.answers.get(&id) {
                return answer.clone();
            }
            let reply = run(&seen.json(), &mut held);
            held.answers.insert(id, reply.clone());
            if std::mem::take(&mut held.slow) {
                held.waiting.insert("handle-1".to_owned(), reply);
                return Reply::json(202, json!({"code": "333334", "statementHandle": "handle-1"}));
            }
            reply
        });
        Self { stub, keys, held }
    }

    fn settings(&self, more: Value) -> Value {
        let mut settings = json!({
            "account": "myorg-acct",
            "user": "loader",
            "privateKey": self.keys.pem,
            "database": "db",
            "warehouse": "wh",
            "endpoint": self.stub.url,
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    }

    fn open(&self, more: Value) -> Arc<dyn Driver> {
        open("snowflake", self.settings(more)).unwrap()
    }

    fn count(&self) -> usize {
        self.held.lock().unwrap().events.len()
    }
}

/// As much of SQL as the driver speaks.
fn run(body: &Value, held: &mut Held) -> Reply {
    let statement = body["statement"].as_str().unwrap();
    let rows = |data: Value| Reply::json(200, json!({"code": "090001", "data": data}));
    let table = || statement.split('"').nth(1).unwrap().to_owned();
    assert_eq!((body["database"].as_str(), body["warehouse"].as_str()), (Some("DB"), Some("WH")));
    if statement.starts_with("CREATE TABLE IF NOT EXISTS") {
        held.tables.insert(table());
    } else if statement.starts_with("DROP TABLE IF EXISTS") {
        held.tables.remove(&table());
    } else if statement.starts_with("SELECT CURRENT_VERSION") {
        return rows(json!([["9.1.0"]]));
    } else if statement.starts_with("SELECT COUNT(*)") {
        return rows(json!([["1"]]));
    } else if statement.starts_with("MERGE INTO") {
        if !held.tables.contains(&table()) {
            return failed("002003", "SQL compilation error: Table 'X' does not exist or not authorized.");
        }
        let bound: Value = serde_json::from_str(body["bindings"]["1"]["value"].as_str().unwrap()).unwrap();
        if table() == "TIDEMILL_EVENTS" {
            held.events.extend(bound.as_array().unwrap().iter().map(|row| row[0].as_str().unwrap().to_owned()));
        }
    }
    rows(json!([]))
}

#[tokio::test]
async fn a_batch_is_in_the_log_once() {
    let account = Account::start();
    let driver = account.open(json!({}));
    let count = || async { account.count() };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    assert_eq!(account.held.lock().unwrap().tables.iter().collect::<Vec<_>>(), ["TIDEMILL_EVENTS"]);
}

#[tokio::test]
async fn a_repetition_has_the_same_request_id_and_the_same_bytes() {
    let account = Account::start();
    let driver = account.open(json!({}));
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    account.stub.fail(STATEMENTS, Fails::CutAfter);
    let frozen = driver.prepare(&batches::contacts(2, 10, 3)).unwrap();
    if let Answer::All(Verdict::Retry(fault)) = driver.send(&frozen).await {
        assert_eq!(fault.error, AttemptError::Exchange(Failure::ConnectionClosed));
    }
    promises::write(&driver, &batches::contacts(2, 10, 3)).await;
    let sent: Vec<Seen> =
        account.stub.seen(STATEMENTS).into_iter().filter(|seen| seen.body == frozen.parts[0].body).collect();
    assert!(sent.len() >= 2);
    assert!(sent.iter().all(|seen| seen.query("requestId") == sent[0].query("requestId")));
    assert_eq!(account.count(), 4);
}

#[tokio::test]
async fn a_statement_whose_process_died_before_its_answer_is_not_run_again() {
    let account = Account::start();
    promises::write(&account.open(json!({})), &batches::contacts(1, 1, 1)).await;
    let gate = Gate::to(port(&account.stub.url)).await;
    let open = |way: Option<u16>| match way {
        Some(port) => account.open(json!({"endpoint": format!("http://127.0.0.1:{port}")})),
        None => account.open(json!({})),
    };
    let count = || async { account.count() };
    let batch = batches::contacts(2, 10, 4);
    promises::is_repeated_after_a_death(open, &gate, ("MERGE INTO", 0), &batch, count).await;
    let merges: Vec<Seen> = account.stub.seen(STATEMENTS);
    let merges: BTreeSet<_> = merges
        .iter()
        .filter(|seen| seen.body == open(None).prepare(&batch).unwrap().parts[0].body)
        .map(|seen| seen.query("requestId"))
        .collect();
    assert_eq!(merges.len(), 1, "it was asked for under one name");
}

#[tokio::test]
async fn a_statement_that_takes_long_is_asked_for_until_it_ends() {
    let account = Account::start();
    let driver = account.open(json!({}));
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    account.held.lock().unwrap().slow = true;
    promises::write(&driver, &batches::contacts(2, 10, 3)).await;
    assert_eq!(account.stub.seen("/api/v2/statements/handle-1").len(), 1);
    assert_eq!(account.count(), 4);
}

#[test]
fn a_batch_is_these_bytes() {
    let account = Account::start();
    let driver = account.open(json!({"role": "writer"}));
    let batch = batches::batch(3, Shape::Append, 7, vec![batches::custom("own/things", "{\"id\": 1}")]);
    let frozen = driver.prepare(&batch).unwrap();
    let body: Value = serde_json::from_slice(&frozen.parts[0].body).unwrap();
    let id = batch.items[0].id;
    let at = "2026-03-01T12:00:00Z";
    let row = format!(
        "[[\"{id}\",\"7\",\"own/things\",\"updated\",null,null,null,null,null,\"1\",\"{at}\",\"{at}\",\
         \"{{\\\"id\\\": 1}}\",null,null,null,null]]"
    );
    assert_eq!(body["bindings"], json!({"1": {"type": "TEXT", "value": row}, "2": {"type": "TEXT", "value": at}}));
    assert_eq!((body["role"].as_str(), body["schema"].as_str()), (Some("WRITER"), Some("PUBLIC")));
    let statement = body["statement"].as_str().unwrap();
    assert!(
        statement.starts_with("MERGE INTO \"TIDEMILL_EVENTS\" T USING (SELECT F.VALUE[0]::VARCHAR AS \"EVENT_ID\", ")
    );
    assert!(statement.contains("PARSE_JSON(F.VALUE[12]::VARCHAR) AS \"PAYLOAD\""));
    promises::prepares_the_same(&driver, &batch);
}

#[tokio::test]
async fn each_fault_has_its_verdict() {
    let account = Account::start();
    let driver = account.open(json!({}));
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    let frozen = driver.prepare(&batches::contacts(2, 10, 3)).unwrap();
    let statement = |times: usize, reply: Reply| {
        for _ in 0..times {
            account.stub.fail(STATEMENTS, Fails::With(reply.clone()));
        }
        driver.send(&frozen)
    };
    let destination = AttemptError::Destination;
    let throttled =
        Reply::json(429, json!({"code": "390505", "message": "Too many requests."})).with("retry-after", "3");
    let answer = statement(1, throttled).await;
    assert_eq!(verdicts::retry(&answer), destination(Trouble::Throttled));
    assert_eq!(verdicts::fault(&answer).after, Some(std::time::Duration::from_secs(3)));
    let unavailable = Reply::json(503, json!({}));
    assert_eq!(verdicts::retry(&statement(1, unavailable).await), destination(Trouble::Busy));
    // Asked for twice each: under the batch's name, and once more in case it was mended meanwhile.
    let locked = failed("000625", "Statement has been waiting for a lock.");
    assert_eq!(verdicts::retry(&statement(2, locked).await), destination(Trouble::Busy));
    let denied = failed("003001", "Insufficient privileges to operate on table.");
    assert_eq!(verdicts::config(&statement(2, denied).await), destination(Trouble::PermissionDenied));
    let suspended = failed("090073", "Warehouse cannot be resumed because resource monitor has exceeded its quota.");
    assert_eq!(verdicts::config(&statement(2, suspended).await), destination(Trouble::QuotaExceeded));
    let gone = failed("002003", "Database 'DB' does not exist or not authorized.");
    assert_eq!(verdicts::config(&statement(2, gone).await), destination(Trouble::TargetMissing));
    let bad = failed("100069", "Error parsing JSON: duplicate object attribute");
    assert!(matches!(statement(1, bad).await, Answer::All(Verdict::Row(_))));
    assert_eq!(account.count(), 1);
    promises::write(&driver, &batches::contacts(2, 10, 3)).await;
    assert_eq!(account.count(), 4);
}

#[tokio::test]
async fn a_mistake_that_was_mended_is_not_remembered_against_the_batch() {
    let account = Account::start();
    let driver = account.open(json!({}));
    // The first try of this batch fails, and Snowflake keeps that answer under its request id.
    let frozen = driver.prepare(&batches::contacts(1, 1, 2)).unwrap();
    account.stub.fail_later(1, STATEMENTS, Fails::With(failed("003001", "Insufficient privileges.")));
    let answer = driver.send(&frozen).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::PermissionDenied));
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    assert_eq!(account.count(), 2);
}

#[tokio::test]
async fn a_missing_column_is_added() {
    let account = Account::start();
    let driver = account.open(json!({}));
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    account.stub.fail(STATEMENTS, Fails::With(failed("000904", "SQL compilation error: invalid identifier 'RAW'")));
    let columns = Reply::json(200, json!({"data": [["EVENT_ID", "TEXT"], ["SEQ", "NUMBER"]]}));
    account.stub.fail(STATEMENTS, Fails::With(columns));
    promises::write(&driver, &batches::contacts(2, 10, 2)).await;
    let added = account.stub.seen(STATEMENTS).into_iter().filter(|seen| seen.method == "POST").map(|seen| seen.json());
    let added: Vec<String> = added.filter_map(|body| Some(body["statement"].as_str()?.to_owned())).collect();
    let added =
        added.iter().filter(|text| text.starts_with("ALTER TABLE \"TIDEMILL_EVENTS\" ADD COLUMN IF NOT EXISTS"));
    assert_eq!(added.count(), 14);
}

#[tokio::test]
async fn a_key_that_is_not_the_users_pauses_the_destination() {
    let account = Account::start();
    let driver = account.open(json!({"privateKey": Keys::generate().pem}));
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::CredentialsRefused));
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert_eq!((steps[0].name, steps.iter().filter(|step| step.fault.is_some()).count()), ("signIn", 1));
}

#[test]
fn bad_settings_are_refused_by_name() {
    let account = Account::start();
    let refused = |more: Value| open("snowflake", account.settings(more)).err().unwrap().to_string();
    assert!(open("snowflake", unknown_setting()).err().unwrap().to_string().contains("noSuchSetting"));
    assert!(refused(json!({"account": "a/b"})).contains("settings.account"));
    assert!(refused(json!({"database": "x; DROP"})).contains("settings.database"));
    assert!(refused(json!({"table": "\"x\""})).contains("settings.table"));
    let text = refused(json!({"privateKey": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhush\n"}));
    assert!(text.contains("settings.privateKey") && text.contains("openssl") && !text.contains("hush"), "{text}");
}

#[test]
fn a_row_above_the_limit_is_refused_and_parts_stay_small() {
    let account = Account::start();
    let driver = account.open(json!({}));
    let wide = |n: u64| batches::contact("created", &n.to_string(), &"x".repeat(3 << 20));
    let mut events: Vec<_> = (1..=8).map(wide).collect();
    events.push(batches::contact("created", "9", &"x".repeat(13 << 20)));
    let batch = batches::batch(1, Shape::Mirror(Deletes::Mark), 1, events);
    let frozen = driver.prepare(&batch).unwrap();
    promises::prepares_the_same(&driver, &batch);
    assert_eq!(frozen.refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [8]);
    assert!(frozen.parts.len() > 1 && frozen.parts.iter().all(|part| part.body.len() < 16 << 20));
}

/// What a statement of fakesnow finds.
async fn query(plain: &emulators::Plain, statement: &str) -> Vec<Vec<Option<String>>> {
    let id = format!(
        "{STATEMENTS}?requestId={}",
        percent_encoding::utf8_percent_encode(statement, percent_encoding::NON_ALPHANUMERIC)
    );
    // Never the answer of an earlier look.
    let id = format!("{id}{:?}", std::time::Instant::now()).replace([' ', '{', '}'], "");
    let found = plain.call("POST", &id, json!({"statement": statement})).await;
    serde_json::from_value(found["data"].clone()).unwrap()
}

#[tokio::test]
async fn fakesnow_holds_a_batch_once() {
    let Some(emulator) = emulators::snowflake() else { return };
    let plain = emulators::Plain::new(&emulator.url);
    let account = Account::start();
    let driver = account.open(json!({"endpoint": emulator.url}));
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    let count = || async {
        let rows = query(&plain, "SELECT COUNT(*) FROM TIDEMILL_EVENTS").await;
        rows[0][0].clone().unwrap().parse::<usize>().unwrap()
    };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    let found = query(&plain, "SELECT TOPIC, PAYLOAD:firstName::VARCHAR FROM TIDEMILL_EVENTS WHERE SEQ = 1").await;
    assert_eq!(found, [[Some("crm/contacts".to_owned()), Some("First 1".to_owned())]]);
}

#[tokio::test]
async fn fakesnow_holds_a_batch_once_whose_process_died() {
    let Some(emulator) = emulators::snowflake() else { return };
    let plain = emulators::Plain::new(&emulator.url);
    let account = Account::start();
    let (whole, gate) = (port(&emulator.url), Gate::to(port(&emulator.url)).await);
    let open =
        |way: Option<u16>| account.open(json!({"endpoint": format!("http://127.0.0.1:{}", way.unwrap_or(whole))}));
    promises::write(&open(None), &batches::contacts(1, 1, 1)).await;
    let count = || async {
        let rows = query(&plain, "SELECT COUNT(*) FROM TIDEMILL_EVENTS").await;
        rows[0][0].clone().unwrap().parse::<usize>().unwrap()
    };
    let batch = batches::contacts(2, 10, 4);
    promises::is_repeated_after_a_death(open, &gate, ("MERGE INTO", 0), &batch, count).await;
}

#[tokio::test]
async fn fakesnow_holds_the_latest_state_of_each_record() {
    let Some(emulator) = emulators::snowflake() else { return };
    let plain = emulators::Plain::new(&emulator.url);
    let account = Account::start();
    let driver = account.open(json!({"endpoint": emulator.url}));
    let mirror = |number, from, events| batches::batch(number, Shape::Mirror(Deletes::Remove), from, events);
    let first = vec![
        batches::contact("created", "1", "Ann"),
        batches::contact("created", "2", "Bob"),
        batches::contact("updated", "1", "Anna"),
        batches::contact("created", "3", "Cy 'the' \"\u{1F600}\""),
    ];
    promises::write(&driver, &mirror(1, 10, first)).await;
    promises::write(&driver, &mirror(2, 20, vec![batches::contact("deleted", "2", "Bob")])).await;
    // An older change comes late.
    promises::write(&driver, &mirror(3, 5, vec![batches::contact("updated", "1", "Old")])).await;
    let found = query(&plain, "SELECT REMOTE_ID, FIRST_NAME, _SEQ FROM CRM_CONTACTS ORDER BY 1").await;
    let found: Vec<Vec<String>> =
        found.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect();
    assert_eq!(found, [["1", "Anna", "12"], ["3", "Cy 'the' \"\u{1F600}\"", "13"]]);
}

#[test]
fn what_no_column_holds_exactly_stands_in_extra_with_a_note() {
    let account = Account::start();
    let driver = account.open(json!({}));
    let wide = "123456789012345678901234567890123456789012345678901234567890.5";
    let fields = format!("{{\"amount\": {wide}, \"lastActivityAt\": \"1821-03-01T00:00:00Z\"}}");
    let fields: Value = serde_json::from_str(&fields).unwrap();
    let event = batches::event("crm/opportunities", "created", "1", fields);
    let batch = batches::batch(1, Shape::Mirror(Deletes::Mark), 1, vec![event]);
    let frozen = driver.prepare(&batch).unwrap();
    assert_eq!(frozen.notes.len(), 1, "{:?}", frozen.notes);
    assert!(frozen.notes[0].contains("amount"), "{:?}", frozen.notes);
    let body: Value = serde_json::from_slice(&frozen.parts[0].body).unwrap();
    let rows = body["bindings"]["1"]["value"].as_str().unwrap();
    assert!(rows.contains(&format!("{{\\\"amount\\\":{wide}}}")), "{rows}");
    assert!(rows.contains("\"1821-03-01T00:00:00Z\""), "a time before 1970 is a time like any other: {rows}");
}
