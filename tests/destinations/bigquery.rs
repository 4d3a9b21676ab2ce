//! BigQuery: against a stub that keeps jobs by name as BigQuery does, and against local-bigquery.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Driver, Verdict};
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::{Deletes, Shape};
use tidemill::domain::failure::Failure;
use tidemill::domain::trouble::Trouble;

use crate::support::gate::{Gate, port};
use crate::support::google::{SignIn, refusal};
use crate::support::stub::{Fails, Reply, Seen, Stub};
use crate::support::{DESTINATION, batches, emulators, open, promises, unknown_setting, verdicts};

const DATASET: &str = "/bigquery/v2/projects/proj/datasets/data";

#[derive(Default)]
struct Held {
    tables: BTreeMap<String, Value>,
    jobs: BTreeMap<String, Value>,
    rows: BTreeMap<String, Vec<Value>>,
    /// What the next jobs come to, in place of success.
    fates: VecDeque<Fate>,
    /// Jobs that are asked for so often before they are done.
    running: u32,
}

enum Fate {
    Fails(&'static str, &'static str),
    Runs(u32),
}

struct Dataset {
    stub: Stub,
    sign_in: SignIn,
    held: Arc<Mutex<Held>>,
}

impl Dataset {
    fn start() -> Self {
        let sign_in = SignIn::start(3_600);
        let held: Arc<Mutex<Held>> = Arc::default();
        let (guard, shared) = (sign_in.guard(), held.clone());
        let stub = Stub::start(move |seen| guard(seen).unwrap_or_else(|| answer(seen, &mut shared.lock().unwrap())));
        Self { stub, sign_in, held }
    }

    fn settings(&self, more: Value) -> Value {
        let mut settings =
            json!({"credentials": self.sign_in.credentials(), "dataset": "data", "endpoint": self.stub.url});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    }

    fn open(&self, more: Value) -> Arc<dyn Driver> {
        open("bigquery", self.settings(more)).unwrap()
    }

    fn rows(&self, table: &str) -> usize {
        self.held.lock().unwrap().rows.get(table).map_or(0, Vec::len)
    }

    fn fate(&self, fate: Fate) {
        self.held.lock().unwrap().fates.push_back(fate);
    }
}

fn answer(seen: &Seen, held: &mut Held) -> Reply {
    let missing = || refusal(404, "notFound", "Not found");
    if let Some(table) = seen.path().strip_prefix(&format!("{DATASET}/tables")) {
        let name = table.trim_start_matches('/').split('/').next().unwrap().to_owned();
        return match (seen.method.as_str(), name.as_str()) {
            ("POST", "") => {
                let table = seen.json();
                let name = table["tableReference"]["tableId"].as_str().unwrap().to_owned();
                held.tables.insert(name, table.clone());
                Reply::json(200, table)
            }
            ("GET", name) if table.ends_with("/data") => {
                Reply::json(200, json!({"rows": held.rows.get(name).cloned().unwrap_or_default()}))
            }
            ("GET", name) => held.tables.get(name).map_or_else(missing, |table| Reply::json(200, table.clone())),
            ("PATCH", name) => {
                let table = held.tables.get_mut(name).unwrap();
                table["schema"] = seen.json()["schema"].clone();
                Reply::json(200, table.clone())
            }
            ("DELETE", name) => {
                held.rows.remove(name);
                held.tables.remove(name).map_or_else(missing, |_| Reply::json(200, json!({})))
            }
            _ => missing(),
        };
    }
    match (seen.method.as_str(), seen.path()) {
        ("GET", DATASET) => Reply::json(200, json!({"location": "europe-west3"})),
        ("POST", "/upload/bigquery/v2/projects/proj/jobs") => {
            let parts = seen.parts();
            let text = String::from_utf8(parts[1].clone()).unwrap();
            insert(held, &serde_json::from_slice(&parts[0]).unwrap(), &text)
        }
        ("POST", "/bigquery/v2/projects/proj/jobs") => insert(held, &seen.json(), ""),
        ("GET", path) => {
            let Some(id) = path.strip_prefix("/bigquery/v2/projects/proj/jobs/") else { return missing() };
            assert_eq!(seen.query("location").as_deref(), Some("europe-west3"));
            if held.running > 0 {
                held.running -= 1;
                return Reply::json(200, json!({"status": {"state": "RUNNING"}}));
            }
            held.jobs.get(id).map_or_else(missing, |job| Reply::json(200, job.clone()))
        }
        _ => missing(),
    }
}

fn insert(held: &mut Held, job: &Value, text: &str) -> Reply {
    let id = job["jobReference"]["jobId"].as_str().unwrap().to_owned();
    assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && id.len() <= 1_024);
    if held.jobs.contains_key(&id) {
        return refusal(409, "duplicate", "Already Exists: Job");
    }
    let mut status = json!({"state": "DONE"});
    match held.fates.pop_front() {
        Some(Fate::Fails(reason, message)) => {
            let error = json!({"reason": reason, "message": message});
            status = json!({"state": "DONE", "errorResult": error, "errors": [error]});
        }
        other => {
            if let Some(Fate::Runs(times)) = other {
                held.running = times;
            }
            let load = &job["configuration"]["load"];
            if let Some(table) = load["destinationTable"]["tableId"].as_str() {
                assert_eq!(load["createDisposition"], "CREATE_NEVER");
                assert!(held.tables.contains_key(table), "{table} was not made");
                let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                held.rows.entry(table.to_owned()).or_default().extend(lines.collect::<Vec<Value>>());
            }
        }
    }
    let job = json!({"jobReference": job["jobReference"], "status": status});
    held.jobs.insert(id, job.clone());
    Reply::json(200, job)
}

#[tokio::test]
async fn a_batch_is_in_the_log_once() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({}));
    let count = || async { dataset.rows("tidemill_events") };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    let held = dataset.held.lock().unwrap();
    assert_eq!(held.tables.keys().collect::<Vec<_>>(), ["tidemill_events"]);
    let row = &held.rows["tidemill_events"][0];
    assert_eq!((row["seq"].as_str(), row["topic"].as_str()), (Some("90001"), Some("crm/contacts")));
    assert_eq!(row["received_at"], "2026-03-01T12:00:00Z");
    assert!(row["payload"].is_object(), "{row}");
}

#[test]
fn a_batch_is_these_bytes() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({}));
    let payload = "{\"id\": 12345678901234567890123,\n \"b\": 1.10}";
    let batch = batches::batch(3, Shape::Append, 7, vec![batches::custom("own/things", payload)]);
    let frozen = driver.prepare(&batch).unwrap();
    let id = batch.items[0].id;
    let golden = format!(
        "{{\"event_id\":\"{id}\",\"seq\":\"7\",\"topic\":\"own/things\",\"update_type\":\"updated\",\
         \"remote_id\":\"12345678901234567890123\",\"event_time\":\"2026-03-01T12:00:00Z\",\
         \"received_at\":\"2026-03-01T12:00:00Z\",\
         \"payload\":{{\"id\": 12345678901234567890123,  \"b\": 1.10}}}}\n"
    );
    assert_eq!(std::str::from_utf8(&frozen.parts[0].body).unwrap(), golden);
}

#[tokio::test]
async fn a_job_whose_answer_was_lost_is_found_by_its_name() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({}));
    let frozen = driver.prepare(&batches::contacts(1, 1, 4)).unwrap();
    dataset.stub.fail("/upload/", Fails::CutAfter);
    assert_eq!(verdicts::retry(&driver.send(&frozen).await), AttemptError::Exchange(Failure::ConnectionClosed));
    promises::write(&driver, &batches::contacts(1, 1, 4)).await;
    assert_eq!(dataset.rows("tidemill_events"), 4);
    // Cut while it ran: the repetition waits for the job that runs, and makes no other.
    dataset.fate(Fate::Runs(2));
    dataset.stub.fail("/upload/", Fails::CutAfter);
    let second = batches::contacts(2, 10, 3);
    assert!(matches!(driver.send(&driver.prepare(&second).unwrap()).await, Answer::All(Verdict::Retry(_))));
    promises::write(&driver, &second).await;
    assert_eq!(dataset.rows("tidemill_events"), 7);
    assert_eq!(dataset.held.lock().unwrap().jobs.len(), 2);
}

#[tokio::test]
async fn a_job_whose_process_died_before_its_answer_is_found_by_the_next_one() {
    let dataset = Dataset::start();
    let gate = Gate::to(port(&dataset.stub.url)).await;
    let open = |way: Option<u16>| match way {
        Some(port) => dataset.open(json!({"endpoint": format!("http://127.0.0.1:{port}")})),
        None => dataset.open(json!({})),
    };
    let count = || async { dataset.rows("tidemill_events") };
    for (number, runs) in [(1, 0), (2, 3)] {
        // Still running when the next process asks for it, or done.
        dataset.fate(Fate::Runs(runs));
        let batch = batches::contacts(number, number * 10, 4);
        promises::is_repeated_after_a_death(open, &gate, ("POST /upload/", 0), &batch, count).await;
    }
    assert_eq!(dataset.held.lock().unwrap().jobs.len(), 2, "no job was made twice");
}

#[tokio::test]
async fn a_job_that_failed_is_followed_by_another_and_never_by_two() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({}));
    let frozen = driver.prepare(&batches::contacts(1, 1, 4)).unwrap();
    for _ in 0..6 {
        dataset.fate(Fate::Fails("backendError", "try again"));
        assert_eq!(verdicts::retry(&driver.send(&frozen).await), AttemptError::Destination(Trouble::Failed));
    }
    promises::write(&driver, &batches::contacts(1, 1, 4)).await;
    promises::write(&driver, &batches::contacts(1, 1, 4)).await;
    assert_eq!(dataset.rows("tidemill_events"), 4);
    let held = dataset.held.lock().unwrap();
    let name = format!("tidemill_{DESTINATION}_{:08x}-{:016x}_0", 1, 1);
    let mut wanted: Vec<String> = (2..=7).map(|n| format!("{name}-a{n}")).collect();
    wanted.insert(0, name);
    assert_eq!(held.jobs.keys().cloned().collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn each_fault_has_its_verdict() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({}));
    let mut number = 100;
    let mut job = async |reason, message| {
        number += 1;
        dataset.fate(Fate::Fails(reason, message));
        driver.send(&driver.prepare(&batches::contacts(number, number * 10, 2)).unwrap()).await
    };
    let destination = AttemptError::Destination;
    let answer = job("invalid", "JSON parsing error in row 2: Could not convert value to boolean").await;
    let Answer::All(Verdict::Row(fault)) = &answer else { panic!("{answer:?}") };
    assert!(fault.detail.contains("row 2"), "{}", fault.detail);
    assert_eq!(verdicts::config(&job("invalid", "No such field: x.").await), destination(Trouble::TableMismatch));
    assert_eq!(verdicts::config(&job("accessDenied", "x").await), destination(Trouble::PermissionDenied));
    assert_eq!(verdicts::config(&job("notFound", "x").await), destination(Trouble::TargetMissing));
    assert_eq!(verdicts::retry(&job("quotaExceeded", "too many loads").await), destination(Trouble::QuotaExceeded));
    assert_eq!(verdicts::retry(&job("rateLimitExceeded", "x").await), destination(Trouble::Throttled));
    let frozen = driver.prepare(&batches::contacts(1, 1, 2)).unwrap();
    let upload = |status, reason| {
        dataset.stub.fail("/upload/", Fails::With(refusal(status, reason, "said Google")));
        driver.send(&frozen)
    };
    assert_eq!(verdicts::retry(&upload(503, "backendError").await), destination(Trouble::Busy));
    assert_eq!(verdicts::retry(&upload(403, "rateLimitExceeded").await), destination(Trouble::Throttled));
    assert_eq!(verdicts::config(&upload(403, "accessDenied").await), destination(Trouble::PermissionDenied));
    assert_eq!(verdicts::config(&upload(403, "billingNotEnabled").await), destination(Trouble::QuotaExceeded));
    assert_eq!(dataset.rows("tidemill_events"), 0);
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    assert_eq!(dataset.rows("tidemill_events"), 2);
}

#[tokio::test]
async fn a_table_gets_its_missing_columns_and_one_of_another_shape_pauses() {
    let dataset = Dataset::start();
    let fields = json!([{"name": "event_id", "type": "STRING"}, {"name": "mine", "type": "DATE"}]);
    let put = |fields: &Value| {
        let table = json!({"schema": {"fields": fields}, "etag": "tag"});
        dataset.held.lock().unwrap().tables.insert("tidemill_events".to_owned(), table);
    };
    put(&fields);
    let driver = dataset.open(json!({}));
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    let patch = dataset.stub.seen("/tables/tidemill_events").into_iter().find(|seen| seen.method == "PATCH").unwrap();
    assert_eq!(patch.header("if-match"), Some("tag"));
    let columns: Vec<Value> = patch.json()["schema"]["fields"].as_array().unwrap().clone();
    assert_eq!(columns.len(), 17, "its own column stays");
    assert!(columns.iter().skip(2).all(|column| column["mode"] == "NULLABLE"));
    put(&json!([{"name": "event_id", "type": "INTEGER"}]));
    let driver = dataset.open(json!({}));
    let answer = driver.send(&driver.prepare(&batches::contacts(2, 10, 2)).unwrap()).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::TableMismatch));
    assert!(verdicts::fault(&answer).detail.contains("event_id is INTEGER"));
}

#[tokio::test]
async fn a_missing_dataset_is_for_the_owner_to_mend() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({"dataset": "absent"}));
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 2)).unwrap()).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::TargetMissing));
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert_eq!(steps.last().map(|step| step.name), Some("permissions"));
}

#[tokio::test]
async fn a_mirror_is_merged_by_one_named_statement() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({"tablePrefix": "tm_"}));
    let mirror = Shape::Mirror(Deletes::Remove);
    let events = vec![batches::contact("created", "1", "Ann"), batches::contact("deleted", "2", "Bob")];
    let batch = batches::batch(1, mirror, 1, events);
    promises::prepares_the_same(&driver, &batch);
    promises::write(&driver, &batch).await;
    promises::write(&driver, &batch).await;
    let asked = dataset.stub.seen("/v2/projects/proj/jobs");
    let asked: Vec<&Seen> = asked.iter().filter(|seen| seen.method == "POST").collect();
    let query = &asked[0].json()["configuration"]["query"];
    assert!(query["query"].as_str().unwrap().starts_with("MERGE INTO `proj`.`data`.`tm_crm_contacts` T"));
    let rows = query["queryParameters"][0]["parameterValue"]["value"].as_str().unwrap();
    let rows: Value = serde_json::from_str(rows).unwrap();
    assert_eq!((rows[0][1].as_str(), rows[1][1].as_str()), (Some("1"), Some("2")));
    assert_eq!(
        (rows[0].as_array().unwrap().last(), rows[1].as_array().unwrap().last()),
        (Some(&Value::Null), Some(&json!("1")))
    );
    assert_eq!(dataset.held.lock().unwrap().jobs.len(), 1);
}

#[test]
fn requests_stay_below_what_bigquery_takes() {
    let dataset = Dataset::start();
    let driver = dataset.open(json!({}));
    // Quotes double twice: as JSON in JSON in JSON.
    let wide = |n: u64| batches::contact("created", &n.to_string(), &"\"".repeat(1_000_000));
    let of = |rows: u64| batches::batch(1, Shape::Mirror(Deletes::Mark), 1, (1..=rows).map(wide).collect());
    // More of them than one request takes are for fewer at a time: the batch is cut in two.
    assert_eq!(verdicts::row(&driver.prepare(&of(12)).unwrap_err()), AttemptError::Destination(Trouble::TooLarge));
    let frozen = driver.prepare(&of(1)).unwrap();
    assert!(frozen.refused.is_empty() && frozen.parts.iter().all(|part| part.body.len() <= 10_000_000));
    promises::prepares_the_same(&driver, &of(1));
    let huge = batches::contact("created", "2", &"x".repeat(8_000_000));
    let batch = batches::batch(2, Shape::Mirror(Deletes::Mark), 1, vec![huge]);
    let frozen = driver.prepare(&batch).unwrap();
    assert_eq!(frozen.refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0]);
    assert!(frozen.parts.is_empty());
}

#[test]
fn bad_settings_are_refused_by_name() {
    let dataset = Dataset::start();
    let refused = |more: Value| open("bigquery", dataset.settings(more)).err().unwrap().to_string();
    assert!(open("bigquery", unknown_setting()).err().unwrap().to_string().contains("noSuchSetting"));
    assert!(refused(json!({"dataset": "a.b"})).contains("settings.dataset"));
    assert!(refused(json!({"table": "a`b"})).contains("settings.table"));
    assert!(refused(json!({"tablePrefix": "a-"})).contains("settings.tablePrefix"));
    assert!(refused(json!({"location": "e&f"})).contains("settings.location"));
}

/// Passes everything on to local-bigquery but the one argument that it does not know inside a MERGE.
fn plainer(to: &str) -> Stub {
    let to = to.trim_start_matches("http://").to_owned();
    Stub::start(move |seen| {
        let needle: &[u8] = b", wide_number_mode=>'round'";
        let mut body = seen.body.clone();
        while let Some(at) = body.windows(needle.len()).position(|window| window == needle) {
            body.drain(at..at + needle.len());
        }
        let mut server = std::net::TcpStream::connect(&to).unwrap();
        let kind = seen.header("content-type").unwrap_or("application/json");
        let length = body.len();
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n",
            seen.method, seen.target
        );
        server.write_all(head.as_bytes()).unwrap();
        server.write_all(&body).unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        Reply { status, headers: Vec::new(), body: answer[end + 4..].to_vec() }
    })
}

/// What a statement of local-bigquery finds.
async fn query(plain: &emulators::Plain, statement: &str) -> Vec<Vec<Option<String>>> {
    let body = json!({"query": statement, "useLegacySql": false});
    let found = plain.call("POST", "/bigquery/v2/projects/proj/queries", body).await;
    let rows = found["rows"].as_array().cloned().unwrap_or_default();
    let row = |row: &Value| {
        let cells = row["f"].as_array().unwrap().iter();
        cells.map(|cell| cell["v"].as_str().map(str::to_owned)).collect()
    };
    rows.iter().map(row).collect()
}

#[tokio::test]
async fn local_bigquery_holds_a_batch_once() {
    let Some(emulator) = emulators::bigquery() else { return };
    let sign_in = SignIn::start(3_600);
    let plain = emulators::Plain::new(&emulator.url);
    let settings = json!({"credentials": sign_in.credentials(), "dataset": "data", "endpoint": emulator.url});
    let driver = open("bigquery", settings).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    let count = || async {
        let rows = query(&plain, "SELECT COUNT(*) FROM data.tidemill_events").await;
        rows[0][0].clone().unwrap().parse::<usize>().unwrap()
    };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    let found = query(
        &plain,
        "SELECT topic, JSON_VALUE(payload, '$.firstName'), CAST(received_at AS STRING) FROM data.tidemill_events WHERE seq = 1",
    )
    .await;
    assert_eq!(found[0][0].as_deref(), Some("crm/contacts"));
    assert_eq!(found[0][1].as_deref(), Some("First 1"));
    assert!(found[0][2].as_deref().is_some_and(|at| at.starts_with("2026-03-01 12:00:00")), "{found:?}");
}

#[tokio::test]
async fn local_bigquery_holds_a_batch_once_whose_process_died() {
    let Some(emulator) = emulators::bigquery() else { return };
    let sign_in = SignIn::start(3_600);
    let plain = emulators::Plain::new(&emulator.url);
    let (whole, gate) = (port(&emulator.url), Gate::to(port(&emulator.url)).await);
    let open = |way: Option<u16>| {
        let endpoint = format!("http://127.0.0.1:{}", way.unwrap_or(whole));
        let settings = json!({"credentials": sign_in.credentials(), "dataset": "data", "endpoint": endpoint});
        open("bigquery", settings).unwrap()
    };
    promises::write(&open(None), &batches::contacts(1, 1, 1)).await;
    let count = || async {
        let rows = query(&plain, "SELECT COUNT(*) FROM data.tidemill_events").await;
        rows[0][0].clone().unwrap().parse::<usize>().unwrap()
    };
    let batch = batches::contacts(2, 10, 4);
    promises::is_repeated_after_a_death(open, &gate, ("POST /upload/", 0), &batch, count).await;
}

#[tokio::test]
async fn local_bigquery_holds_the_latest_state_of_each_record() {
    let Some(emulator) = emulators::bigquery() else { return };
    let sign_in = SignIn::start(3_600);
    let plain = emulators::Plain::new(&emulator.url);
    let way = plainer(&emulator.url);
    let settings = json!({"credentials": sign_in.credentials(), "dataset": "data", "endpoint": way.url});
    let driver = open("bigquery", settings).unwrap();
    let mirror = |number, from, events| batches::batch(number, Shape::Mirror(Deletes::Remove), from, events);
    let (created, updated, deleted) = ("created", "updated", "deleted");
    let first = vec![
        batches::contact(created, "1", "Ann"),
        batches::contact(created, "2", "Bob"),
        batches::contact(updated, "1", "Anna"),
        batches::contact(created, "3", "Cy \"the\" \u{1F600}"),
    ];
    promises::write(&driver, &mirror(1, 10, first)).await;
    promises::write(&driver, &mirror(2, 20, vec![batches::contact(deleted, "2", "Bob")])).await;
    // An older change comes late.
    promises::write(&driver, &mirror(3, 5, vec![batches::contact(updated, "1", "Old")])).await;
    let found =
        query(&plain, "SELECT remote_id, first_name, CAST(_seq AS STRING) FROM data.crm_contacts ORDER BY 1").await;
    let text = |row: &[Option<String>]| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect::<Vec<_>>();
    let found: Vec<Vec<String>> = found.iter().map(|row| text(row)).collect();
    assert_eq!(found, [["1", "Anna", "12"], ["3", "Cy \"the\" \u{1F600}", "13"]]);
    for step in driver.test(&batches::probe(Shape::Mirror(Deletes::Mark))).await {
        assert_eq!(step.fault, None, "{}", step.name);
    }
}
