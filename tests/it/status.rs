//! `GET /one/status` and `/status` name what goes badly, to those whom it concerns.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::domain::id::{Seq, WorkspaceNo};
use tidemill::store::Low;

use crate::support::api::{KEY, Node, OPERATOR};
use crate::support::receiver::Receiver;

const STATUS: &str = "/2024-03/one/status";
const HOOKS: &str = "/2024-03/one/webhooks";
const EVENTS: &str = "/2024-03/one/events";

async fn until(node: &Node, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let told = node.get(path).await.ok()["status"].clone();
        if fits(&told) {
            return told;
        }
        assert!(Instant::now() < end, "{path} stays {told:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn subscribe(node: &Node, address: &str) -> String {
    let body = json!({"address": address, "topic": ["crm/contacts"]});
    let made = node.post(HOOKS, body).await.ok();
    made["subscription"]["subscriptionId"].as_str().expect("an id").to_owned()
}

async fn publish(node: &Node, count: usize) {
    for n in 0..count {
        let event = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {"id": n.to_string()}});
        assert_eq!(node.post(EVENTS, event).await.status, 202);
    }
}

#[actix::test]
async fn the_lane_that_owes_for_longest_stands_first() {
    let node = Node::start().await;
    assert_eq!(node.get(STATUS).await.ok()["status"]["lanes"], json!([]), "nothing goes badly");
    let (good, bad, worse) = (Receiver::start(), Receiver::start(), Receiver::start());
    for sick in [&bad, &worse] {
        sick.answer(std::iter::repeat_n((500, Vec::new()), 1000));
    }
    let fine = subscribe(&node, &good.address).await;
    let worst = subscribe(&node, &worse.address).await;
    publish(&node, 1).await;
    until(&node, STATUS, |told| told["lanes"][0]["subscriptionId"] == *worst).await;
    let second = subscribe(&node, &bad.address).await;
    publish(&node, 12).await;
    let told = until(&node, STATUS, |told| {
        let lanes = told["lanes"].as_array().expect("lanes");
        let pending: Vec<_> = lanes.iter().map(|lane| lane["pending"].as_u64()).collect();
        pending == [Some(13), Some(12)] && lanes.iter().all(|lane| lane["breakerOpen"] == true)
    })
    .await;
    let ids: Vec<_> = told["lanes"].as_array().expect("lanes").iter().map(|l| l["subscriptionId"].clone()).collect();
    assert_eq!(ids, [json!(worst), json!(second)], "{told:#}");
    assert!(!ids.contains(&json!(fine)));
    let first = &told["lanes"][0];
    assert!(first["failingSince"].is_string() && first["oldestPendingAt"].is_string(), "{first}");
    assert!(first.get("workspaceId").is_none() && told.get("node").is_none(), "{told:#}");
    let totals = &told["subscriptionTotals"];
    assert_eq!((&totals["pending"], &totals["breakersOpen"], &totals["active"]), (&json!(25), &json!(2), &json!(1)));
    assert_eq!(totals["oldestPendingAt"], first["oldestPendingAt"]);
    let one = node.get(&format!("{STATUS}?limit=1")).await.ok()["status"].clone();
    assert_eq!((one["lanes"].as_array().map(Vec::len), &one["subscriptionTotals"]["pending"]), (Some(1), &json!(25)));
    assert_eq!(one["complete"], true);
    // Switched on again without what waits, it owes nothing and is fine but for what it has failed since.
    for id in [&worst, &second] {
        node.post(&format!("{HOOKS}/{id}/enable"), json!({"backlog": "skip"})).await.ok();
    }
    until(&node, STATUS, |told| told["subscriptionTotals"]["pending"] == 0).await;
    node.stop().await;
}

/// A queue whose beginning is settled is read from where its courier reads on, and looks the same as from its start.
#[actix::test]
async fn a_queues_age_is_the_same_from_where_its_courier_reads_on() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let id = subscribe(&node, &receiver.address).await;
    publish(&node, 30).await;
    receiver.wait(30).await;
    let store = &node.engine.store;
    let lane = store.subscriptions(WorkspaceNo::DEFAULT, None, 1).expect("read").items[0].lane;
    let low = || node.engine.outlet.flights.low(lane);
    until(&node, STATUS, |told| told["subscriptionTotals"]["pending"] == 0).await;
    assert!(store.is_clear(lane, &low()).expect("read") && store.is_clear(lane, &Low::default()).expect("read"));
    node.call("PATCH", &format!("{HOOKS}/{id}"), Some(json!({"isEnabled": false}))).await.ok();
    publish(&node, 3).await;
    let told = until(&node, STATUS, |told| told["lanes"][0]["pending"] == 3).await;
    assert!(low().fresh > Seq(0), "{:?}", low());
    let from_start = store.oldest_pending(lane, &Low::default()).expect("read").expect("pending");
    assert_eq!(store.oldest_pending(lane, &low()).expect("read"), Some(from_start));
    assert_eq!(told["lanes"][0]["oldestPendingAt"], from_start.rfc3339_millis());
    assert_eq!(told["lanes"][0]["status"], "paused");
    assert!(!store.is_clear(lane, &low()).expect("read"));
    node.stop().await;
}

#[actix::test]
async fn a_workspace_sees_itself_and_the_operator_sees_the_node() {
    let node = Node::start().await;
    let sick = Receiver::start();
    sick.answer(std::iter::repeat_n((500, Vec::new()), 100));
    let id = subscribe(&node, &sick.address).await;
    publish(&node, 1).await;
    until(&node, STATUS, |told| told["lanes"][0]["status"] == "retrying").await;
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = two["key"]["apiKey"].as_str().expect("a key");
    let told = node.call_as(theirs, "GET", STATUS, None).await.ok()["status"].clone();
    assert_eq!((&told["lanes"], &told["subscriptionTotals"]["retrying"]), (&json!([]), &json!(0)));
    let told = node.call_as(OPERATOR, "GET", "/status", None).await.ok()["status"].clone();
    assert_eq!(told["lanes"][0]["subscriptionId"], *id);
    assert_eq!(told["lanes"][0]["workspaceId"].as_str().map(str::len), Some(24));
    let of_node = &told["node"];
    assert_eq!((&of_node["workspaces"], &of_node["refusesWork"]), (&json!(2), &json!(false)), "{of_node}");
    assert!(of_node["storeBytes"].as_u64() > Some(0) && of_node["diskFreeBytes"].as_u64() > Some(0), "{of_node}");
    assert!(of_node["diskBytes"].as_u64() > of_node["diskFreeBytes"].as_u64(), "{of_node}");
    node.call_as(KEY, "GET", "/status", None).await.refused(401, "unauthorized");
    for limit in ["0", "x"] {
        node.get(&format!("{STATUS}?limit={limit}")).await.refused(400, "malformed");
    }
    node.stop().await;
}
