//! Cloud Storage: against a stub that checks what Google checks, and against fake-gcs-server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidemill::destinations::driver::Driver;
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::Shape;
use tidemill::domain::failure::Failure;
use tidemill::domain::trouble::Trouble;

use crate::support::gate::{Gate, port};
use crate::support::google::{SignIn, refusal};
use crate::support::stub::{Fails, Reply, Stub};
use crate::support::{DESTINATION, batches, emulators, open, promises, unknown_setting, verdicts};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A stub of a bucket.
struct Bucket {
    stub: Stub,
    sign_in: SignIn,
    objects: Objects,
}

impl Bucket {
    fn start() -> Self {
        let sign_in = SignIn::start(3_600);
        let objects: Objects = Arc::default();
        let (guard, held) = (sign_in.guard(), objects.clone());
        let stub = Stub::start(move |seen| {
            if let Some(refused) = guard(seen) {
                return refused;
            }
            let mut held = held.lock().unwrap();
            let key = || {
                let escaped = seen.path().strip_prefix("/storage/v1/b/events-bucket/o/").unwrap_or_default();
                percent_encoding::percent_decode_str(escaped).decode_utf8().unwrap().into_owned()
            };
            match (seen.method.as_str(), seen.path()) {
                ("POST", "/upload/storage/v1/b/events-bucket/o") => {
                    assert_eq!(seen.query("uploadType").as_deref(), Some("multipart"));
                    assert_eq!(seen.query("ifGenerationMatch").as_deref(), Some("0"));
                    let parts = seen.parts();
                    let metadata: Value = serde_json::from_slice(&parts[0]).unwrap();
                    let name = metadata["name"].as_str().unwrap().to_owned();
                    if held.contains_key(&name) {
                        return refusal(412, "conditionNotMet", "At least one of the pre-conditions did not hold.");
                    }
                    held.insert(name, parts[1].clone());
                    Reply::json(200, metadata)
                }
                ("GET", _) if held.contains_key(&key()) => {
                    Reply { status: 200, headers: Vec::new(), body: held[&key()].clone() }
                }
                ("DELETE", _) if held.remove(&key()).is_some() => {
                    Reply { status: 204, headers: Vec::new(), body: Vec::new() }
                }
                _ => refusal(404, "notFound", "The specified bucket does not exist."),
            }
        });
        Self { stub, sign_in, objects }
    }

    fn settings(&self, more: Value) -> Value {
        let mut settings = json!({
            "credentials": self.sign_in.credentials(),
            "bucket": "events-bucket",
            "endpoint": self.stub.url,
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    }

    fn open(&self, more: Value) -> Arc<dyn Driver> {
        open("gcs", self.settings(more)).unwrap()
    }

    fn count(&self) -> usize {
        count(&self.objects.lock().unwrap())
    }
}

/// The lines in all objects that are no index.
fn count(objects: &BTreeMap<String, Vec<u8>>) -> usize {
    let events = objects.iter().filter(|(key, _)| !key.contains("_index/"));
    events.map(|(key, body)| lines(key, body).lines().count()).sum()
}

fn lines(key: &str, body: &[u8]) -> String {
    let mut text = String::new();
    if key.ends_with(".gz") {
        flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(body.to_vec()).unwrap();
    }
    text
}

#[tokio::test]
async fn a_batch_is_in_the_bucket_once() {
    let bucket = Bucket::start();
    let driver = bucket.open(json!({"prefix": "tidemill/events"}));
    let count = || async { bucket.count() };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    let held = bucket.objects.lock().unwrap();
    let id = format!("{:08x}-{:016x}", 1, 900_001);
    let key = format!("tidemill/events/topic=crm.contacts/date=2026-03-01/{DESTINATION}/{id}.jsonl.gz");
    assert!(held.contains_key(&key), "{:?}", held.keys());
    assert!(held.keys().any(|key| key.contains("_index/")));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_known_by_its_name() {
    let bucket = Bucket::start();
    let driver = bucket.open(json!({}));
    let frozen = driver.prepare(&batches::contacts(1, 1, 4)).unwrap();
    bucket.stub.fail("/upload/", Fails::CutAfter);
    // Repeated at once or by the lane: it is there, and counts as done.
    if let tidemill::destinations::driver::Answer::All(tidemill::destinations::driver::Verdict::Retry(fault)) =
        driver.send(&frozen).await
    {
        assert_eq!(fault.error, AttemptError::Exchange(Failure::ConnectionClosed));
    }
    promises::write(&driver, &batches::contacts(1, 1, 4)).await;
    assert_eq!(bucket.count(), 4);
}

#[tokio::test]
async fn an_object_whose_process_died_before_its_answer_is_not_written_again() {
    let bucket = Bucket::start();
    let gate = Gate::to(port(&bucket.stub.url)).await;
    let open = |way: Option<u16>| match way {
        Some(port) => bucket.open(json!({"endpoint": format!("http://127.0.0.1:{port}")})),
        None => bucket.open(json!({})),
    };
    let count = || async { bucket.count() };
    // The object of the events, then the index, which comes last.
    for (number, skip) in [(1, 0), (2, 1)] {
        let batch = batches::contacts(number, number * 10, 4);
        promises::is_repeated_after_a_death(open, &gate, ("POST /upload/", skip), &batch, count).await;
        let held = bucket.objects.lock().unwrap();
        let indexes = held.keys().filter(|key| key.contains("_index/")).count();
        assert_eq!((indexes as u64, held.len() as u64), (number, 2 * number));
    }
}

#[tokio::test]
async fn each_fault_has_its_verdict() {
    let bucket = Bucket::start();
    let driver = bucket.open(json!({}));
    let frozen = driver.prepare(&batches::contacts(1, 1, 2)).unwrap();
    let upload = |status, reason| {
        bucket.stub.fail("/upload/", Fails::With(refusal(status, reason, "said Google")));
        driver.send(&frozen)
    };
    let destination = AttemptError::Destination;
    assert_eq!(verdicts::retry(&upload(429, "rateLimitExceeded").await), destination(Trouble::Throttled));
    assert_eq!(verdicts::retry(&upload(503, "backendError").await), destination(Trouble::Busy));
    assert_eq!(verdicts::config(&upload(403, "forbidden").await), destination(Trouble::PermissionDenied));
    assert_eq!(verdicts::config(&upload(404, "notFound").await), destination(Trouble::TargetMissing));
    assert_eq!(verdicts::config(&upload(403, "accountDisabled").await), destination(Trouble::QuotaExceeded));
    assert_eq!(verdicts::config(&upload(400, "invalid").await), destination(Trouble::SettingsRefused));
    assert_eq!(bucket.count(), 0);
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    assert_eq!(bucket.count(), 2);
}

#[tokio::test]
async fn writing_needs_no_permission_to_read_or_delete() {
    let bucket = Bucket::start();
    let driver = bucket.open(json!({}));
    for _ in 0..3 {
        bucket.stub.fail("/storage/v1/b/events-bucket/o/", Fails::With(refusal(403, "forbidden", "no")));
    }
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), ["signIn", "write", "read", "clean"]);
    assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");
    assert!(steps.last().is_some_and(|step| step.found.contains("stays")));
}

#[test]
fn bad_settings_are_refused_by_name() {
    let bucket = Bucket::start();
    let refused = |more: Value| open("gcs", bucket.settings(more)).err().unwrap().to_string();
    assert!(open("gcs", unknown_setting()).err().unwrap().to_string().contains("noSuchSetting"));
    assert!(refused(json!({"bucket": "gs://x"})).contains("settings.bucket"));
    assert!(refused(json!({"prefix": "../up"})).contains("settings.prefix"));
    assert!(refused(json!({"credentials": "{}"})).contains("settings.credentials"));
}

#[tokio::test]
async fn fake_gcs_server_holds_a_batch_once() {
    let Some(emulator) = emulators::gcs() else { return };
    let sign_in = SignIn::start(3_600);
    let plain = emulators::Plain::new(&emulator.url);
    plain.call("POST", "/storage/v1/b?project=proj", json!({"name": "events-bucket"})).await;
    let settings = json!({"credentials": sign_in.credentials(), "bucket": "events-bucket", "endpoint": emulator.url});
    let driver = open("gcs", settings.clone()).unwrap();
    let read = || async {
        let listed = plain.call("GET", "/storage/v1/b/events-bucket/o", Value::Null).await;
        let mut objects = BTreeMap::new();
        for item in listed["items"].as_array().cloned().unwrap_or_default() {
            let name = item["name"].as_str().unwrap().to_owned();
            let escaped = name.replace('/', "%2F");
            let path = format!("/storage/v1/b/events-bucket/o/{escaped}?alt=media");
            objects.insert(name, plain.get("GET", &path, Value::Null).await);
        }
        objects
    };
    let held = || async { count(&read().await) };
    promises::writes_once(&driver, held).await;
    promises::tests_well(&driver, held).await;
    let ids: BTreeSet<String> = read()
        .await
        .iter()
        .filter(|(key, _)| !key.contains("_index/"))
        .flat_map(|(key, body)| lines(key, body).lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| serde_json::from_str::<Value>(&line).unwrap()["eventId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 12);
    let gate = Gate::to(port(&emulator.url)).await;
    let reopen = |way: Option<u16>| {
        let mut settings = settings.clone();
        if let Some(port) = way {
            settings["endpoint"] = format!("http://127.0.0.1:{port}").into();
        }
        open("gcs", settings).unwrap()
    };
    for (number, skip) in [(21, 0), (22, 1)] {
        let batch = batches::contacts(number, number * 10, 4);
        promises::is_repeated_after_a_death(reopen, &gate, ("POST /upload/", skip), &batch, held).await;
    }
    let mut absent = settings;
    absent["bucket"] = "absent-bucket".into();
    let driver = open("gcs", absent).unwrap();
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(verdicts::config(&answer), AttemptError::Destination(Trouble::TargetMissing));
}
