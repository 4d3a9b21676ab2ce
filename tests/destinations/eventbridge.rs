//! Entries on a bus: within the service's limits, judged one by one, each with its event's id.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Verdict};
use tidemill::domain::destination::Shape;
use tidemill::outbound::Method;

use crate::support::amazon::{self, KEY, Moto, Reply, SECRET, Server};
use crate::support::{batches, open, promises, unknown_setting};

fn settings(url: &str) -> Value {
    json!({"region": "us-east-1", "endpoint": url, "bus": "tide", "accessKeyId": KEY, "secretAccessKey": SECRET})
}

/// A bus that takes what `judge` has nothing against, told by the entry's detail; and what it took.
fn bus(judge: fn(&Value) -> Option<&'static str>) -> (Server, Arc<Mutex<Vec<Value>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let into = taken.clone();
    let server = Server::start(move |call| {
        if !amazon::is_signed(&call, SECRET) {
            return Reply::json(400, &json!({"__type": "InvalidSignatureException", "message": "token"}));
        }
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        let entries = body["Entries"].as_array().unwrap();
        assert!(entries.len() <= 10 && call.body.len() < 2 << 20);
        let mut told = Vec::new();
        for entry in entries {
            let detail: Value = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
            match judge(&detail) {
                Some("cut") => return Reply::Cut,
                Some("whole") if entries.len() > 1 => {
                    return Reply::json(400, &json!({"__type": "ValidationException", "message": "too long"}));
                }
                Some("whole") => return Reply::json(400, &json!({"__type": "ValidationException"})),
                Some("denied") => return Reply::json(400, &json!({"__type": "AccessDeniedException"})),
                Some(code) => told.push(json!({"ErrorCode": code, "ErrorMessage": "as told"})),
                None => {
                    into.lock().unwrap().push(detail);
                    told.push(json!({"EventId": "1"}));
                }
            }
        }
        Reply::json(200, &json!({"FailedEntryCount": 0, "Entries": told}))
    });
    (server, taken)
}

#[tokio::test]
async fn a_batch_goes_out_in_tens_each_entry_with_its_event() {
    let (server, taken) = bus(|_| None);
    let driver = open("eventbridge", settings(&server.url)).unwrap();
    let batch = batches::contacts(1, 1, 23);
    promises::prepares_the_same(&driver, &batch);
    let frozen = driver.prepare(&batch).unwrap();
    assert_eq!(frozen.parts.iter().map(|part| part.items.len()).collect::<Vec<_>>(), [10, 10, 3]);
    promises::write(&driver, &batch).await;
    let taken = taken.lock().unwrap();
    assert_eq!(taken.len(), 23);
    for (item, detail) in batch.items.iter().zip(taken.iter()) {
        assert_eq!(detail["eventId"], item.id.to_string());
    }
}

#[test]
fn an_entry_has_these_bytes() {
    let driver = open("eventbridge", settings("http://127.0.0.1:1")).unwrap();
    let batch = batches::batch(1, Shape::Append, 7, vec![batches::custom("shop/parcels", "{\"n\":1.50}")]);
    let frozen = driver.prepare(&batch).unwrap();
    let id = batch.items[0].id;
    let detail = format!(
        "{{\"eventId\":\"{id}\",\"seq\":7,\"topic\":\"shop/parcels\",\"updateType\":\"updated\",\"connectionId\":null,\
         \"userId\":null,\"username\":null,\"app\":null,\"recordId\":null,\"remoteId\":null,\
         \"eventTime\":\"2026-03-01T12:00:00.000Z\",\"receivedAt\":\"2026-03-01T12:00:00.000Z\",\"payload\":{{\"n\":1.50}}}}"
    );
    let wanted = format!(
        "{{\"Entries\":[{{\"Time\":1772366400,\"Source\":\"tidemill\",\"DetailType\":\"shop/parcels\",\"Detail\":{},\
         \"EventBusName\":\"tide\"}}]}}",
        Value::String(detail)
    );
    assert_eq!(String::from_utf8_lossy(&frozen.parts[0].body), wanted);
}

#[test]
fn requests_stay_below_the_limits_of_the_service() {
    let driver = open("eventbridge", settings("http://127.0.0.1:1")).unwrap();
    let sized = |n: usize| batches::contact("created", "1", &"x".repeat(n));
    let events = vec![sized(250 << 10), sized(300 << 10), sized(250 << 10), sized(250 << 10), sized(250 << 10)];
    let frozen = driver.prepare(&batches::batch(1, Shape::Append, 1, events)).unwrap();
    assert_eq!(frozen.refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1]);
    assert_eq!(frozen.parts.iter().map(|part| part.items.clone()).collect::<Vec<_>>(), [vec![0, 2, 3], vec![4]]);
}

#[tokio::test]
async fn each_entry_has_its_own_verdict() {
    let (server, taken) = bus(|detail| match detail["remoteId"].as_str() {
        Some("2") => Some("ThrottlingException"),
        Some("3") => Some("MalformedDetail"),
        _ => None,
    });
    let driver = open("eventbridge", settings(&server.url)).unwrap();
    let frozen = driver.prepare(&batches::contacts(1, 1, 4)).unwrap();
    let Answer::Each(told) = driver.send(&frozen).await else { panic!("one verdict for all") };
    assert!(matches!(told[..], [Verdict::Done, Verdict::Retry(_), Verdict::Row(_), Verdict::Done]), "{told:?}");
    assert_eq!(taken.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_request_refused_for_one_entry_is_sent_entry_by_entry() {
    let (server, taken) = bus(|detail| (detail["remoteId"] == "3").then_some("whole"));
    let driver = open("eventbridge", settings(&server.url)).unwrap();
    let frozen = driver.prepare(&batches::contacts(1, 1, 5)).unwrap();
    let Answer::Each(told) = driver.send(&frozen).await else { panic!("one verdict for all") };
    let rows: Vec<bool> = told.iter().map(|verdict| matches!(verdict, Verdict::Row(_))).collect();
    assert_eq!(rows, [false, false, true, false, false]);
    let taken: Vec<Value> = taken.lock().unwrap().iter().map(|detail| detail["remoteId"].clone()).collect();
    assert_eq!(taken.iter().filter(|id| **id == "3").count(), 0);
    assert!(["1", "2", "4", "5"].iter().all(|id| taken.iter().any(|known| known == id)));
}

#[tokio::test]
async fn a_cut_connection_repeats_and_a_refusal_of_all_pauses() {
    let (server, _) = bus(|_| Some("cut"));
    let driver = open("eventbridge", settings(&server.url)).unwrap();
    let frozen = driver.prepare(&batches::contacts(1, 1, 12)).unwrap();
    assert!(matches!(driver.send(&frozen).await, Answer::All(Verdict::Retry(_))));
    let (server, _) = bus(|_| Some("denied"));
    let driver = open("eventbridge", settings(&server.url)).unwrap();
    assert!(matches!(driver.send(&frozen).await, Answer::All(Verdict::Config(_))));
    let mut wrong = settings(&server.url);
    wrong["secretAccessKey"] = json!("wrong");
    let driver = open("eventbridge", wrong).unwrap();
    let Answer::All(Verdict::Config(fault)) = driver.send(&frozen).await else { panic!("it is not paused") };
    assert_eq!(fault.detail, "InvalidSignatureException");
}

#[tokio::test]
async fn moto_takes_the_entries() {
    let Some(moto) = Moto::start().await else { return };
    let call = |target: &'static str, body: Value| {
        let moto = &moto;
        async move {
            let (status, answer) = moto.call(Method::POST, "/", target, &body.to_string()).await;
            assert_eq!(status, 200, "{target}: {}", String::from_utf8_lossy(&answer));
            serde_json::from_slice::<Value>(&answer).unwrap()
        }
    };
    let made = call("AWSEvents.CreateEventBus", json!({"Name": "tide"})).await;
    let archive = json!({"ArchiveName": "all", "EventSourceArn": made["EventBusArn"], "EventPattern": "{\"source\":[\"tidemill\"]}"});
    call("AWSEvents.CreateArchive", archive).await;
    let driver = open("eventbridge", settings(&moto.url)).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 12)).await;
    let described = call("AWSEvents.DescribeArchive", json!({"ArchiveName": "all"})).await;
    assert_eq!(described["EventCount"], 12);
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), ["signIn", "permissions", "write"]);
    assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");

    let mut nowhere = settings(&moto.url);
    nowhere["bus"] = json!("nowhere");
    let driver = open("eventbridge", nowhere).unwrap();
    let steps = driver.test(&batches::probe(Shape::Append)).await;
    assert!(steps.last().is_some_and(|step| step.name == "permissions" && step.fault.is_some()), "{steps:?}");
    let frozen = driver.prepare(&batches::contacts(2, 1, 2)).unwrap();
    assert!(matches!(driver.send(&frozen).await, Answer::All(Verdict::Config(_))));
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refused = |more: (&str, Value)| {
        let mut given = settings("http://127.0.0.1:1");
        given[more.0] = more.1;
        open("eventbridge", given).err().unwrap().to_string()
    };
    let unknown = unknown_setting();
    let (name, value) = unknown.as_object().unwrap().iter().next().unwrap();
    assert!(refused((name, value.clone())).contains("noSuchSetting"));
    assert!(refused(("bus", json!("a b"))).contains("settings.bus"));
    assert!(refused(("source", json!("aws.s3"))).contains("settings.source"));
    assert!(refused(("maxRows", json!(0))).contains("settings.maxRows"));
    assert!(refused(("endpoint", json!("x"))).contains("settings.endpoint"));
}
