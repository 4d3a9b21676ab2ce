//! Cancelling what waits: by filter and one by one; what is being tried is left to end, successors of a record go on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::{Node, OPERATOR};
use crate::support::receiver::Receiver;
use crate::support::server::{Act, Server};

const ONE: &str = "/2024-03/one";
const HOOKS: &str = "/2024-03/one/webhooks";
const DELIVERIES: &str = "/2024-03/one/deliveries";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

async fn subscribe(node: &Node, address: &str, more: Value) -> String {
    let mut body = json!({"address": address, "topic": ["crm/*", "commerce/*"]});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    text(&node.post(HOOKS, body).await.ok()["subscription"]["subscriptionId"])
}

async fn publish(node: &Node, topic: &str, records: &[u64]) {
    let event = |n: &u64| json!({"topic": topic, "updateType": "updated", "dataPayload": {"id": n}});
    let events: Vec<Value> = records.iter().map(event).collect();
    let answer = node.post(&format!("{ONE}/events"), json!(events)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
}

async fn until(node: &Node, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..600 {
        last = node.get(path).await.ok();
        if fits(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path}: {last}");
}

async fn owes(node: &Node, id: &str, count: u64) {
    until(node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["pending"] == count).await;
}

#[actix::test]
async fn what_waits_is_cancelled_by_filter_and_the_rest_is_delivered() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let id = subscribe(&node, &receiver.address, json!({"isEnabled": false})).await;
    publish(&node, "crm/contacts", &[1; 700]).await;
    publish(&node, "commerce/orders", &[2; 40]).await;
    owes(&node, &id, 740).await;
    let path = format!("{HOOKS}/{id}/deliveries/cancel");
    let contacts = json!({"topic": "crm/contacts", "dryRun": true});
    assert_eq!(node.post(&path, contacts).await.ok(), json!({"cancelled": 700, "inFlight": 0}));
    owes(&node, &id, 740).await;
    let none = json!({"topic": "crm/contacts", "to": "2020-01-01T00:00:00Z"});
    assert_eq!(node.post(&path, none).await.ok(), json!({"cancelled": 0, "inFlight": 0}));
    let done = node.post(&path, json!({"topic": "crm/contacts"})).await.ok();
    assert_eq!(done, json!({"cancelled": 700, "inFlight": 0}));
    owes(&node, &id, 40).await;
    let listed = node.get(&format!("{DELIVERIES}?status=cancelled&limit=3")).await.ok();
    assert!(listed["deliveries"].as_array().expect("a list").iter().all(|one| one["topic"] == "crm/contacts"));
    node.post(&format!("{HOOKS}/{id}/enable"), json!({})).await.ok();
    let came = receiver.wait(40).await;
    assert!(came.iter().all(|one| one.header("x-alloy-topic") == "commerce/orders"));
    owes(&node, &id, 0).await;
    assert_eq!(receiver.so_far().len(), 40);
    node.stop().await;
}

#[actix::test]
async fn a_long_queue_takes_several_calls_that_go_on_where_the_last_one_stopped() {
    let node = Node::start().await;
    let id = subscribe(&node, "http://127.0.0.1:9/", json!({"isEnabled": false, "ordering": "record"})).await;
    // More than one call looks at, most of it parked behind its record's head.
    for _ in 0..42 {
        publish(&node, "crm/contacts", &(0..500).map(|n| n % 100).collect::<Vec<_>>()).await;
    }
    owes(&node, &id, 21_000).await;
    let path = format!("{HOOKS}/{id}/deliveries/cancel");
    let first = node.post(&path, json!({})).await.ok();
    assert_eq!(first["cancelled"], 20_000, "{first}");
    let second = node.post(&format!("{path}?cursor={}", text(&first["next"])), json!({})).await.ok();
    assert_eq!(second, json!({"cancelled": 1_000, "inFlight": 0}));
    owes(&node, &id, 0).await;
    node.post(&format!("{path}?cursor=AAAA"), json!({})).await.refused(400, "malformed");
    node.stop().await;
}

#[actix::test]
async fn a_cancelled_head_lets_its_successor_go() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    receiver.answer([(500, vec![])]);
    let id = subscribe(&node, &receiver.address, json!({"ordering": "record"})).await;
    publish(&node, "crm/contacts", &[1]).await;
    let retrying = format!("{DELIVERIES}?status=retrying");
    let one = |shown: &Value| shown["deliveries"].as_array().is_some_and(|list| list.len() == 1);
    let head = text(&until(&node, &retrying, one).await["deliveries"][0]["deliveryId"]);
    publish(&node, "crm/contacts", &[1, 1]).await;
    owes(&node, &id, 3).await;
    assert_eq!(receiver.so_far().len(), 1, "they wait behind it");
    let shown = node.post(&format!("{DELIVERIES}/{head}/cancel"), json!({})).await.ok()["delivery"].clone();
    assert_eq!((&shown["status"], &shown["attemptCount"]), (&json!("cancelled"), &json!(1)));
    receiver.wait(3).await;
    owes(&node, &id, 0).await;
    let message = node.post(&format!("{DELIVERIES}/{head}/cancel"), json!({})).await.refused(409, "conflict");
    assert!(message.contains("is cancelled"), "{message}");
    node.post(&format!("{DELIVERIES}/000000000000000100000001/cancel"), json!({}))
        .await
        .refused(404, "delivery-not-found");
    node.stop().await;
}

#[actix::test]
async fn an_attempt_under_way_is_left_to_end() {
    let node = Node::start().await;
    let silent = Server::start(|_| Act::Hang(Vec::new())).await;
    let more = json!({"timeoutSeconds": 60, "maxInFlight": 1});
    let id = subscribe(&node, &format!("http://{}/", silent.address), more).await;
    publish(&node, "crm/contacts", &[1, 2, 3]).await;
    owes(&node, &id, 3).await;
    let one = |shown: &Value| shown["deliveries"].as_array().is_some_and(|list| list.len() == 1);
    let flying = until(&node, &format!("{DELIVERIES}?status=inFlight"), one).await;
    let flying = text(&flying["deliveries"][0]["deliveryId"]);
    node.post(&format!("{DELIVERIES}/{flying}/cancel"), json!({})).await.refused(409, "conflict");
    let path = format!("{HOOKS}/{id}/deliveries/cancel");
    assert_eq!(node.post(&path, json!({"dryRun": true})).await.ok(), json!({"cancelled": 2, "inFlight": 1}));
    assert_eq!(node.post(&path, json!({})).await.ok(), json!({"cancelled": 2, "inFlight": 1}));
    owes(&node, &id, 1).await;
    assert_eq!(node.get(&format!("{DELIVERIES}/{flying}")).await.ok()["delivery"]["status"], "inFlight");
    node.stop().await;
}

#[actix::test]
async fn another_workspace_cancels_nothing_here() {
    let node = Node::start().await;
    let id = subscribe(&node, "http://127.0.0.1:9/", json!({"isEnabled": false})).await;
    publish(&node, "crm/contacts", &[1]).await;
    owes(&node, &id, 1).await;
    let theirs = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = text(&theirs["key"]["apiKey"]);
    let path = format!("{HOOKS}/{id}/deliveries/cancel");
    node.call_as(&theirs, "POST", &path, None).await.refused(404, "subscription-not-found");
    let one = text(&node.get(DELIVERIES).await.ok()["deliveries"][0]["deliveryId"]);
    let path = format!("{DELIVERIES}/{one}/cancel");
    node.call_as(&theirs, "POST", &path, None).await.refused(404, "delivery-not-found");
    owes(&node, &id, 1).await;
    node.post(&path, json!({"really": true})).await.refused(422, "unknown-field");
    node.post(&format!("{HOOKS}/{id}/deliveries/cancel"), json!({"from": "soon"})).await.refused(422, "invalid");
    node.stop().await;
}
