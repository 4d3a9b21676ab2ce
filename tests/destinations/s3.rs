//! Objects: once under their name, whatever is lost on the way, in partitions and with an index.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Driver, Verdict};
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::Shape;
use tidemill::domain::time::Millis;
use tidemill::domain::trouble::Trouble;
use tidemill::outbound::Method;

use crate::support::amazon::{Conditions, Mishap, Moto, Reply, Server, Store};
use crate::support::{batches, open, promises, unknown_setting};

fn with(mut settings: Value, more: Value) -> Value {
    let more = more.as_object().unwrap().clone();
    settings.as_object_mut().unwrap().extend(more);
    settings
}

/// The lines of all objects of events.
pub(crate) fn lines(objects: &BTreeMap<String, Vec<u8>>) -> Vec<Value> {
    let mut all = Vec::new();
    for (_, body) in objects.iter().filter(|(key, _)| key.ends_with(".jsonl.gz")) {
        let mut text = String::new();
        GzDecoder::new(body.as_slice()).read_to_string(&mut text).unwrap();
        all.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    all
}

async fn send(driver: &Arc<dyn Driver>, number: u64) -> Verdict {
    let frozen = driver.prepare(&batches::contacts(number, number * 100, 3)).unwrap();
    match driver.send(&frozen).await {
        Answer::All(verdict) => verdict,
        Answer::Each(all) => panic!("{all:?}"),
    }
}

fn trouble(verdict: &Verdict) -> (&'static str, Option<Trouble>) {
    let of = |fault: &tidemill::destinations::driver::Fault| match fault.error {
        AttemptError::Destination(trouble) => Some(trouble),
        _ => None,
    };
    match verdict {
        Verdict::Done => ("done", None),
        Verdict::Retry(fault) => ("retry", of(fault)),
        Verdict::Row(fault) => ("row", of(fault)),
        Verdict::Config(fault) => ("config", of(fault)),
    }
}

#[tokio::test]
async fn a_batch_is_in_the_bucket_once_whether_conditions_are_honoured_or_not() {
    for conditions in [Conditions::Honoured, Conditions::Ignored, Conditions::Unknown] {
        let store = Store::start(conditions);
        let driver = open("s3", store.settings()).unwrap();
        let count = || async { lines(&store.objects()).len() };
        promises::writes_once(&driver, count).await;
        promises::tests_well(&driver, count).await;
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        let wanted = if conditions == Conditions::Honoured { "honours" } else { "ignores" };
        assert!(steps.iter().any(|step| step.found.contains(wanted)), "{conditions:?}: {steps:?}");
        assert!(!store.objects().keys().any(|key| key.contains("_test")), "the test's object is gone");
    }
}

#[tokio::test]
async fn moto_holds_a_batch_once() {
    let Some(moto) = Moto::start().await else { return };
    assert_eq!(moto.call(Method::PUT, "/lake", "", "").await.0, 200);
    let settings = json!({"bucket": "lake", "region": "us-east-1", "s3Endpoint": moto.url,
        "accessKeyId": "testing", "secretAccessKey": "testing"});
    let driver = open("s3", settings.clone()).unwrap();
    let count = || async {
        let (_, list) = moto.call(Method::GET, "/lake?list-type=2", "", "").await;
        let list = String::from_utf8(list).unwrap();
        let keys = list.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let mut objects = BTreeMap::new();
        for key in keys {
            let path = format!("/lake/{}", key.replace('=', "%3D"));
            objects.insert(key.to_owned(), moto.call(Method::GET, &path, "", "").await.1);
        }
        lines(&objects).len()
    };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;

    // Not compressible by much, so that it is uploaded in parts.
    let large = with(settings.clone(), json!({"compression": "none", "maxBytes": 64 << 20}));
    let large = open("s3", large).unwrap();
    let batch =
        batches::batch(77, Shape::Append, 77_000, vec![batches::contact("created", "1", &"x".repeat(20 << 20))]);
    promises::write(&large, &batch).await;
    promises::write(&large, &batch).await;

    let nowhere = open("s3", with(settings, json!({"bucket": "nowhere"}))).unwrap();
    assert_eq!(trouble(&send(&nowhere, 3).await), ("config", Some(Trouble::TargetMissing)));
}

#[tokio::test]
async fn topics_and_days_have_objects_of_their_own_and_an_index_lists_them() {
    let store = Store::start(Conditions::Honoured);
    let driver = open("s3", store.settings()).unwrap();
    let mut late = batches::contact("created", "2", "Late");
    late.accepted_at = Millis(batches::THEN.0 + 24 * 3_600_000);
    let events = vec![
        batches::contact("created", "1", "Early"),
        late,
        batches::custom("shop/parcels", "{\"id\":7,\n \"n\":123456789012345678901234567890.10}"),
        batches::contact("updated", "1", "Early too"),
    ];
    let batch = batches::batch(5, Shape::Append, 41, events);
    promises::prepares_the_same(&driver, &batch);
    promises::write(&driver, &batch).await;
    let destination = crate::support::DESTINATION.to_string();
    let name = "00000001-0000000000000005";
    let keys: Vec<String> = store.objects().into_keys().collect();
    let wanted = [
        format!("in/tidemill/_index/date=2026-03-01/{destination}/{name}.json"),
        format!("in/tidemill/topic=crm.contacts/date=2026-03-01/{destination}/{name}.jsonl.gz"),
        format!("in/tidemill/topic=crm.contacts/date=2026-03-02/{destination}/{name}.jsonl.gz"),
        format!("in/tidemill/topic=shop.parcels/date=2026-03-01/{destination}/{name}.jsonl.gz"),
    ];
    assert_eq!(keys, wanted);
    let objects = store.objects();
    let index: Value = serde_json::from_slice(&objects[&wanted[0]]).unwrap();
    assert_eq!(index["batchId"], name);
    let first = &index["objects"][0];
    assert_eq!((&first["key"], &first["rows"]), (&json!(wanted[1]), &json!(2)));
    assert_eq!((&first["firstSeq"], &first["lastSeq"]), (&json!(41), &json!(44)));
    let mut text = Vec::new();
    GzDecoder::new(objects[&wanted[1]].as_slice()).read_to_end(&mut text).unwrap();
    assert_eq!(first["bytes"], text.len());
    assert_eq!(first["sha256"], hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&text)));
    let parcels: String = {
        let mut text = String::new();
        GzDecoder::new(objects[&wanted[3]].as_slice()).read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(parcels.lines().count(), 1, "a payload with lines of its own is one line");
    assert!(parcels.contains("123456789012345678901234567890.10"), "digits stay");
}

#[tokio::test]
async fn an_answer_lost_after_the_write_leaves_one_object() {
    let store = Store::start(Conditions::Honoured);
    let driver = open("s3", store.settings()).unwrap();
    store.mishap(Mishap::CutAfter);
    assert_eq!(trouble(&send(&driver, 1).await).0, "retry");
    assert_eq!(send(&driver, 1).await, Verdict::Done);
    store.mishap(Mishap::CutBefore);
    assert_eq!(trouble(&send(&driver, 2).await).0, "retry");
    assert_eq!(send(&driver, 2).await, Verdict::Done);
    assert_eq!(lines(&store.objects()).len(), 6);
    assert_eq!(store.held.lock().unwrap().writes, 4, "two objects and two indexes, each written once");
}

#[tokio::test]
async fn what_is_there_already_does_not_come_again_where_another_object_is_refused() {
    let store = Store::start(Conditions::Honoured);
    let driver = open("s3", with(store.settings(), json!({"compression": "none"}))).unwrap();
    store.held.lock().unwrap().largest = 2_000;
    let large = |n: u64| batches::custom("own/things", &format!("{{\"id\":{n},\"x\":\"{}\"}}", "x".repeat(2_000)));
    let batch = batches::batch(1, Shape::Append, 1, vec![batches::contact("created", "1", "Ann"), large(2), large(3)]);
    for _ in 0..2 {
        // Repeated after a crash it comes to the same.
        let answer = driver.send(&driver.prepare(&batch).unwrap()).await;
        let Answer::Each(verdicts) = answer else { panic!("{answer:?}") };
        assert_eq!(verdicts[0], Verdict::Done);
        assert!(verdicts[1..].iter().all(|verdict| matches!(verdict, Verdict::Retry(_))), "{verdicts:?}");
    }
    let index = store.objects().into_iter().find(|(key, _)| key.contains("_index/")).unwrap().1;
    let index: Value = serde_json::from_slice(&index).unwrap();
    let listed: Vec<&str> = index["objects"].as_array().unwrap().iter().map(|o| o["key"].as_str().unwrap()).collect();
    assert_eq!(listed.len(), 1, "what is not there is not listed");
    assert!(store.objects().contains_key(listed[0]));
    // Under its next name, and alone, it is refused for itself.
    let alone = batches::batch(2, Shape::Append, 2, vec![large(2)]);
    let answer = driver.send(&driver.prepare(&alone).unwrap()).await;
    assert!(matches!(answer, Answer::All(Verdict::Row(_))), "{answer:?}");
}

#[tokio::test]
async fn throttling_and_faults_of_the_store_are_tried_again() {
    let store = Store::start(Conditions::Honoured);
    let driver = open("s3", store.settings()).unwrap();
    for (status, code, what) in [
        (503, "SlowDown", Trouble::Throttled),
        (409, "ConditionalRequestConflict", Trouble::Conflict),
        (500, "InternalError", Trouble::Failed),
        (507, "XMinioStorageFull", Trouble::Full),
    ] {
        store.mishap(Mishap::Status(status, code));
        assert_eq!(trouble(&send(&driver, 9).await), ("retry", Some(what)), "{code}");
    }
    assert_eq!(send(&driver, 9).await, Verdict::Done);
}

#[tokio::test]
async fn what_only_the_owner_can_mend_pauses() {
    let store = Store::start(Conditions::Honoured);
    let wrong = open("s3", with(store.settings(), json!({"secretAccessKey": "wrong"}))).unwrap();
    assert_eq!(trouble(&send(&wrong, 1).await), ("config", Some(Trouble::CredentialsRefused)));
    let steps = wrong.test(&batches::probe(Shape::Append)).await;
    assert_eq!(steps.last().map(|step| (step.name, step.fault.is_some())), Some(("write", true)));
    let nowhere = open("s3", with(store.settings(), json!({"bucket": "nowhere"}))).unwrap();
    assert_eq!(trouble(&send(&nowhere, 1).await), ("config", Some(Trouble::TargetMissing)));
    store.held.lock().unwrap().denied = vec!["PUT"];
    let driver = open("s3", store.settings()).unwrap();
    assert_eq!(trouble(&send(&driver, 1).await), ("config", Some(Trouble::PermissionDenied)));
}

#[tokio::test]
async fn credentials_that_may_only_write_are_enough() {
    let store = Store::start(Conditions::Honoured);
    store.held.lock().unwrap().denied = vec!["GET", "DELETE"];
    let driver = open("s3", store.settings()).unwrap();
    assert_eq!(send(&driver, 1).await, Verdict::Done);
    assert_eq!(send(&driver, 1).await, Verdict::Done);
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");
    assert!(steps.iter().any(|step| step.found.contains("s3:DeleteObject")), "{steps:?}");
}

#[tokio::test]
async fn another_object_under_the_name_is_not_written_over() {
    let store = Store::start(Conditions::Honoured);
    let driver = open("s3", store.settings()).unwrap();
    let frozen = driver.prepare(&batches::contacts(1, 100, 3)).unwrap();
    store.held.lock().unwrap().objects.insert(frozen.parts[0].target.clone(), b"other".to_vec());
    assert_eq!(trouble(&send(&driver, 1).await), ("config", Some(Trouble::Conflict)));
    assert_eq!(store.objects()[&frozen.parts[0].target], b"other");
}

#[tokio::test]
async fn a_large_object_is_uploaded_in_parts_and_leaves_no_upload() {
    let store = Store::start(Conditions::Honoured);
    let settings = with(store.settings(), json!({"compression": "none", "maxBytes": 64 << 20}));
    let driver = open("s3", settings).unwrap();
    let name = "y".repeat(20 << 20);
    let batch = batches::batch(1, Shape::Append, 1, vec![batches::contact("created", "1", &name)]);
    let frozen = driver.prepare(&batch).unwrap();
    // The first part is lost, then the answer to the last request.
    store.held.lock().unwrap().denied = vec!["DELETE"];
    store.held.lock().unwrap().mishaps = [Mishap::CutAfter, Mishap::CutBefore].into();
    assert!(matches!(driver.send(&frozen).await, Answer::All(Verdict::Retry(_))));
    assert_eq!(store.held.lock().unwrap().unfinished(), 1, "an upload is left over");
    store.held.lock().unwrap().denied.clear();
    store.held.lock().unwrap().mishaps = [Mishap::Status(503, "SlowDown")].into();
    assert!(matches!(driver.send(&frozen).await, Answer::All(Verdict::Retry(_))));
    assert_eq!(store.held.lock().unwrap().unfinished(), 0);
    assert_eq!(driver.send(&frozen).await, Answer::All(Verdict::Done));
    assert_eq!(driver.send(&frozen).await, Answer::All(Verdict::Done));
    assert_eq!(store.held.lock().unwrap().unfinished(), 0);
    assert_eq!(store.objects()[&frozen.parts[0].target], frozen.parts[0].body.to_vec());
}

/// STS as far as a role is taken on: `until` is when its credentials end.
fn sts(asked: &Arc<AtomicUsize>, until: &'static str) -> Server {
    let asked = asked.clone();
    Server::start(move |call| {
        asked.fetch_add(1, Ordering::Relaxed);
        let form = String::from_utf8(call.body.clone()).unwrap();
        let by_token = form.contains("WebIdentityToken=the.token.of.tests");
        let by_keys = crate::support::amazon::is_signed(&call, crate::support::amazon::SECRET);
        if !(by_token || by_keys && form.contains("ExternalId=acme")) {
            return Reply::xml(403, "AccessDenied");
        }
        let body = format!(
            "<R xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>\
             <SecretAccessKey>role secret</SecretAccessKey><SessionToken>role token</SessionToken>\
             <Expiration>{until}</Expiration></Credentials></R>"
        );
        Reply::Answer(200, Vec::new(), body.into_bytes())
    })
}

#[tokio::test]
async fn a_role_is_taken_on_with_keys_or_a_token_and_kept_until_it_ends() {
    let store = Store::start(Conditions::Honoured);
    {
        let mut held = store.held.lock().unwrap();
        held.secret = "role secret".to_owned();
        held.token = Some("role token".to_owned());
    }
    let role = json!({"roleArn": "arn:aws:iam::123456789012:role/tidemill"});
    let asked = Arc::new(AtomicUsize::new(0));
    let long = sts(&asked, "2099-01-01T00:00:00Z");
    let by_keys = json!({"stsEndpoint": long.url, "externalId": "acme"});
    let driver = open("s3", with(with(store.settings(), role.clone()), by_keys)).unwrap();
    assert_eq!(send(&driver, 1).await, Verdict::Done);
    assert_eq!(send(&driver, 2).await, Verdict::Done);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is asked for once");

    let refused = open("s3", with(with(store.settings(), role.clone()), json!({"stsEndpoint": long.url}))).unwrap();
    assert_eq!(trouble(&send(&refused, 3).await), ("config", Some(Trouble::PermissionDenied)));

    let ended = sts(&asked, "2001-01-01T00:00:00Z");
    let mut settings = with(store.settings(), role);
    settings.as_object_mut().unwrap().retain(|name, _| !matches!(name.as_str(), "accessKeyId" | "secretAccessKey"));
    let token = json!({"stsEndpoint": ended.url, "webIdentityToken": "the.token.of.tests"});
    let driver = open("s3", with(settings, token)).unwrap();
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(send(&driver, 4).await, Verdict::Done);
    assert!(asked.load(Ordering::Relaxed) > before + 1, "what has ended is asked for anew");
}

#[test]
fn bad_settings_are_refused_by_name() {
    let good = json!({"bucket": "lake", "region": "eu-central-1", "accessKeyId": "a", "secretAccessKey": "b"});
    assert!(open("s3", good.clone()).is_ok());
    let refused = |more: Value| open("s3", with(good.clone(), more)).err().unwrap().to_string();
    assert!(refused(unknown_setting()).contains("noSuchSetting"));
    assert!(refused(json!({"bucket": "Not A Bucket"})).contains("settings.bucket"));
    assert!(refused(json!({"region": "eu/../x"})).contains("settings.region"));
    assert!(refused(json!({"prefix": "a/../b"})).contains("settings.prefix"));
    assert!(refused(json!({"maxBytes": 65 << 20})).contains("settings.maxBytes"));
    assert!(refused(json!({"s3Endpoint": "ftp://x"})).contains("settings.s3Endpoint"));
    assert!(open("s3", json!({"bucket": "lake"})).err().unwrap().to_string().contains("region"));
    let secrets = tidemill::destinations::kinds::find("s3").unwrap().secrets();
    assert_eq!(secrets, ["secretAccessKey", "sessionToken", "webIdentityToken"]);
}
