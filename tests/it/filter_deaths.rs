//! Deliveries that die because their filter cannot judge the event are counted and told of like any other.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::Node;
use crate::support::receiver::Receiver;

const ONE: &str = "/2024-03/one";

#[actix::test]
async fn what_a_filter_cannot_judge_is_counted_and_told_once_a_minute() {
    let node = Node::start().await;
    let (told, silent) = (Receiver::start(), Receiver::start());
    let hooks = format!("{ONE}/webhooks");
    node.post(&hooks, json!({"address": told.address, "topic": ["delivery/*"]})).await.ok();
    let body = json!({"address": silent.address, "topic": ["crm/*"], "filter": "dataPayload.missing > 1"});
    let failing = node.post(&hooks, body).await.ok()["subscription"]["subscriptionId"].clone();
    let event = |n: u32| json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {"n": n}});
    let three: Vec<Value> = (0..3).map(event).collect();
    assert_eq!(node.post(&format!("{ONE}/events"), json!(three)).await.status, 202);
    let came = told.wait(1).await;
    let payload = came[0].json()["dataPayload"].clone();
    assert_eq!(came[0].header("x-alloy-topic"), "delivery/dead");
    assert_eq!((&payload["error"]["code"], &payload["count"]), (&json!("filter-failed"), &json!(3)), "{payload}");
    assert!(payload.to_string().contains(failing.as_str().expect("an id")), "{payload}");
    let dead = || node.engine.metrics.deliveries_dead.with(["rejected"]).get();
    assert_eq!(dead(), 3);
    // More of them within the minute are counted, and told later.
    node.post(&format!("{ONE}/events"), event(4)).await;
    for _ in 0..200 {
        if dead() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((dead(), told.so_far().len(), silent.so_far().len()), (4, 1, 0));
    node.stop().await;
}
