//! Dead letters as lines of JSON: all of them, each on one line with its last error and the body, from any line on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::api::Phase;

use crate::support::api::{Node, OPERATOR};
use crate::support::receiver::Receiver;

const ONE: &str = "/2024-03/one";
const HOOKS: &str = "/2024-03/one/webhooks";
const EXPORT: &str = "/2024-03/one/deliveries/export";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

async fn until(node: &Node, path: &str, fits: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    for _ in 0..600 {
        last = node.get(path).await.ok();
        if fits(&last) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path}: {last}");
}

async fn lines(node: &Node, query: &str) -> Vec<Value> {
    let answer = node.get(&format!("{EXPORT}{query}")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")), "{}", answer.text);
    assert!(answer.text.is_empty() || answer.text.ends_with('\n'));
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[actix::test]
async fn every_dead_letter_is_a_line_with_its_error_and_its_body() {
    const COUNT: usize = 250;
    let node = Node::start().await;
    let receiver = Receiver::start();
    let path = format!("{ONE}/events");
    // A body that its publisher broke into lines, long ones, and one that will be taken.
    let broken = "{\"topic\": \"crm/contacts\", \"dataPayload\": {\n \"a\": 1,\r\n \"text\": \"x\\ny\"\n}}";
    let wish = json!({"address": receiver.address, "topic": ["crm/*"], "retrySchedule": [0], "maxInFlight": 1, "include": ["eventId"]});
    let id = text(&node.post(HOOKS, wish).await.ok()["subscription"]["subscriptionId"]);
    receiver.answer((0..COUNT).map(|_| (500, vec![])));
    let key = format!("Bearer {}", crate::support::api::KEY);
    assert_eq!(node.send("POST", &path, &[("authorization", &key)], broken).await.status, 202);
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["dead"] == 1).await;
    let long = "z".repeat(2_000);
    let more = |topic: &str, count: usize| {
        json!((0..count).map(|n| json!({"topic": topic, "dataPayload": {"n": n, "long": long}})).collect::<Vec<_>>())
    };
    for _ in 0..20 {
        // Fewer bytes at once than a test node takes.
        assert_eq!(node.post(&path, more("crm/contacts", 12)).await.status, 202);
    }
    assert_eq!(node.post(&path, more("crm/leads", COUNT - 241 + 1)).await.status, 202);
    let dead = |shown: &Value| shown["subscription"]["queue"]["dead"] == COUNT;
    until(&node, &format!("{HOOKS}/{id}"), dead).await;

    let all = lines(&node, "").await;
    assert_eq!(all.len(), COUNT);
    let ids: Vec<String> = all.iter().map(|line| text(&line["delivery"]["deliveryId"])).collect();
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "newest first");
    let sent: BTreeMap<String, Value> =
        receiver.so_far().iter().map(|one| (one.header("webhook-id").to_owned(), one.json())).collect();
    for line in &all {
        let delivery = &line["delivery"];
        assert_eq!((&delivery["status"], &delivery["lastError"]["code"]), (&json!("dead"), &json!("http-5xx")));
        assert_eq!(delivery["attempts"][0]["answer"], "answer of the receiver");
        assert_eq!(line["body"], sent[&text(&delivery["eventId"])], "as it was sent");
    }
    assert_eq!(all[COUNT - 1]["body"]["dataPayload"], json!({"a": 1, "text": "x\ny"}));
    for cut in [1, 99, 249] {
        let rest = lines(&node, &format!("?after={}", ids[cut - 1])).await;
        let rest: Vec<String> = rest.iter().map(|line| text(&line["delivery"]["deliveryId"])).collect();
        assert_eq!(rest, ids[cut..], "after {cut}");
    }
    assert_eq!(lines(&node, &format!("?after={}", ids[COUNT - 1])).await, Vec::<Value>::new());
    let leads = lines(&node, &format!("?subscriptionId={id}&topic=crm/leads")).await;
    assert_eq!(leads.len(), COUNT - 241);
    assert_eq!(lines(&node, "?status=delivered").await.len(), 1);
    assert_eq!(lines(&node, "?to=2020-01-01T00:00:00Z").await.len(), 0);
    node.stop().await;
}

#[actix::test]
async fn an_export_that_does_not_come_to_its_end_is_cut_and_so_never_taken_for_whole() {
    let node = Node::start().await;
    node.state.health.set_phase(Phase::Draining);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(node.url(EXPORT)).bearer_auth(crate::support::api::KEY).send().await;
    let whole = match answer {
        Ok(answer) => answer.bytes().await,
        Err(error) => Err(error),
    };
    assert!(whole.is_err(), "{whole:?}");
    node.stop().await;
}

#[actix::test]
async fn an_export_shows_nothing_of_another_workspace_and_refuses_nonsense() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    receiver.answer([(500, vec![])]);
    let wish = json!({"address": receiver.address, "topic": ["crm/*"], "retrySchedule": [0]});
    let id = text(&node.post(HOOKS, wish).await.ok()["subscription"]["subscriptionId"]);
    let event = json!({"topic": "crm/contacts", "dataPayload": {}});
    assert_eq!(node.post(&format!("{ONE}/events"), event).await.status, 202);
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["dead"] == 1).await;
    let theirs = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = text(&theirs["key"]["apiKey"]);
    let seen = node.call_as(&theirs, "GET", EXPORT, None).await;
    assert_eq!((seen.status, seen.text.as_str()), (200, ""));
    let of = format!("{EXPORT}?subscriptionId={id}");
    node.call_as(&theirs, "GET", &of, None).await.refused(404, "subscription-not-found");
    node.get(&format!("{EXPORT}?status=lost")).await.refused(400, "malformed");
    node.get(&format!("{EXPORT}?after=x")).await.refused(404, "delivery-not-found");
    node.stop().await;
}
