//! A full disk costs nothing that was accepted: it refuses at the door, and goes on by itself when there is room.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::outbound::Method;

use crate::support::node::Node;
use crate::support::receiver::Receiver;
use crate::support::shim;

async fn publish(node: &Node, topic: &str, number: u64) -> (u16, Option<String>) {
    let pad = "x".repeat(2000);
    let event = json!({"topic": topic, "updateType": "created", "dataPayload": {"number": number, "pad": pad}});
    let answer = node.send(Method::POST, "/2024-03/one/events", Some(&event)).await.expect("an answer");
    (answer.status, answer.header("retry-after").map(str::to_owned))
}

const CONTACTS: &str = "crm/contacts";
const LATE: &str = "crm/accounts";

/// Asks until it is so, for a minute.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} takes more than a minute");
}

/// How often each number came.
fn came(receiver: &Receiver) -> BTreeMap<u64, u32> {
    let mut came = BTreeMap::new();
    for one in receiver.so_far() {
        *came.entry(one.json()["dataPayload"]["number"].as_u64().expect("a number")).or_default() += 1;
    }
    came
}

#[actix::test]
async fn a_full_disk_refuses_at_the_door_and_goes_on_by_itself() {
    let folder = TempDir::new().expect("a folder");
    let full = folder.path().join("full");
    let disk = folder.path().canonicalize().expect("a path");
    let mut node = Node::new(folder.path());
    let set = |name: &str, value: String| (name.to_owned(), value);
    node.env = vec![
        set("LD_PRELOAD", shim::build(folder.path()).display().to_string()),
        set("SHIM_FULL", full.display().to_string()),
        set("SHIM_FULL_DIR", disk.join("data").display().to_string()),
        set("TIDEMILL__STORAGE__WRITE_BUFFER_BYTES", "4194304".into()),
        set("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 5, 1, 1, 1, 1]".into()),
        set("TIDEMILL__DELIVERY__RETRY_JITTER_PERCENT", "0".into()),
    ];
    node.start();
    node.ready().await;
    let (receiver, late) = (Receiver::start(), Receiver::start());
    for (topic, at) in [(CONTACTS, &receiver), (LATE, &late)] {
        let wish = json!({"address": at.address, "topic": [topic]});
        node.call(Method::POST, "/2024-03/one/webhooks", Some(&wish)).await;
    }

    // This one is on disk, and due again in five seconds.
    late.answer([(500, Vec::new())]);
    assert_eq!(publish(&node, LATE, 0).await.0, 202);
    let retrying = "/2024-03/one/deliveries?status=retrying";
    until("a failed attempt", async || {
        let listed = node.call(Method::GET, retrying, None).await;
        listed["deliveries"].as_array().is_some_and(|all| all.len() == 1)
    })
    .await;

    std::fs::write(&full, "").expect("the flag");
    let mut number = 0;
    let mut accepted = Vec::new();
    until("a refusal", async || {
        number += 1;
        match publish(&node, CONTACTS, number).await {
            (202, _) => accepted.push(number),
            (503, retry_after) => {
                assert!(retry_after.is_some(), "a 503 without Retry-After");
                return true;
            }
            other => panic!("{other:?}: {}", node.log()),
        }
        false
    })
    .await;
    until("being told unready", async || {
        node.send(Method::GET, "/health/ready", None).await.expect("an answer").status == 503
    })
    .await;
    assert_eq!(node.send(Method::GET, "/health/live", None).await.expect("an answer").status, 200);
    for _ in 0..20 {
        number += 1;
        assert_eq!(publish(&node, CONTACTS, number).await.0, 503);
    }
    // What is on disk goes out all the same, once, though its outcome cannot be written yet.
    until("a second attempt", async || late.so_far().len() == 2).await;
    assert_eq!(node.send(Method::GET, "/health/live", None).await.expect("an answer").status, 200);

    std::fs::remove_file(&full).expect("there is room again");
    until("going on", async || {
        node.send(Method::GET, "/health/ready", None).await.expect("the same process").status == 200
    })
    .await;
    for _ in 0..20 {
        number += 1;
        assert_eq!(publish(&node, CONTACTS, number).await.0, 202, "{}", node.log());
        accepted.push(number);
    }
    until("what was accepted", async || {
        let came = came(&receiver);
        accepted.iter().all(|number| came.contains_key(number))
    })
    .await;
    let came = came(&receiver);
    assert!(came.values().all(|times| *times == 1), "{came:?}");
    assert_eq!(late.so_far().len(), 2);

    // And all of it is on disk.
    node.kill();
    node.start();
    node.ready().await;
    let mut stored = 0;
    let mut path = "/2024-03/one/events?limit=250&topic=crm/contacts".to_owned();
    loop {
        let page = node.call(Method::GET, &path, None).await;
        stored += page["events"].as_array().map_or(0, Vec::len);
        match &page["next"] {
            Value::String(next) => path = format!("/2024-03/one/events?limit=250&topic=crm/contacts&cursor={next}"),
            _ => break,
        }
    }
    assert!(stored >= accepted.len(), "{stored} of {} are stored", accepted.len());
    assert_eq!(node.stop(), Some(0));
}
