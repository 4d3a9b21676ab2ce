//! Replays over real HTTP: counted, made, followed, stopped; beside live traffic, over kills, apart between workspaces.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::outbound::Method;

use crate::support::api::{Node, OPERATOR};
use crate::support::node::Node as Process;
use crate::support::receiver::Receiver;

const ONE: &str = "/2024-03/one";
const HOOKS: &str = "/2024-03/one/webhooks";
const REPLAYS: &str = "/2024-03/one/replays";
/// All there is.
const FROM: &str = "2020-01-01T00:00:00Z";
const TO: &str = "2100-01-01T00:00:00Z";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

async fn subscribe(node: &Node, address: &str, more: Value) -> String {
    let mut body = json!({"address": address, "topic": ["crm/*"], "signing": {"rsa": false, "ed25519": false}});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    text(&node.post(HOOKS, body).await.ok()["subscription"]["subscriptionId"])
}

/// Publishes so many events, each about one of eight records, and answers their ids.
async fn publish(node: &Node, topic: &str, count: usize) -> Vec<String> {
    let events: Vec<Value> = (0..count)
        .map(|n| json!({"topic": topic, "updateType": "updated", "dataPayload": {"id": n % 8, "n": n}}))
        .collect();
    let answer = node.post(&format!("{ONE}/events"), json!(events)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json()["eventIds"].as_array().expect("ids").iter().map(text).collect()
}

/// Asks until it fits, for up to 30 seconds.
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

fn everything() -> Value {
    json!({"from": FROM, "to": TO})
}

async fn replay(node: &Node, subscription: &str, body: Value) -> String {
    text(&node.post(&format!("{HOOKS}/{subscription}/replays"), body).await.ok()["replay"]["replayId"])
}

async fn completed(node: &Node, id: &str) -> Value {
    until(node, &format!("{REPLAYS}/{id}"), |shown| shown["replay"]["state"] == "completed").await["replay"].clone()
}

#[actix::test]
async fn a_replay_sends_each_event_once_more_under_its_own_id_and_says_that_it_is_one() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let id = subscribe(&node, &receiver.address, json!({})).await;
    let events = publish(&node, "crm/contacts", 300).await;
    let first = receiver.wait(300).await;
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["pending"] == 0).await;
    let mut body = everything();
    body["dryRun"] = json!(true);
    let counted = node.post(&format!("{HOOKS}/{id}/replays"), body).await.ok();
    assert_eq!(counted, json!({"dryRun": {"count": 300, "isComplete": true, "looked": 300, "unjudged": 0}}));
    assert_eq!(node.get(REPLAYS).await.ok(), json!({"replays": []}), "counting makes nothing");

    let made = replay(&node, &id, everything()).await;
    let shown = completed(&node, &made).await;
    let counts = json!({"looked": 300, "unjudged": 0, "made": 300, "waiting": 0, "retrying": 0, "delivered": 300, "dead": 0, "cancelled": 0});
    assert_eq!((&shown["counts"], &shown["progress"]), (&counts, &json!(1.0)), "{shown}");
    assert!(shown["endedAt"].is_string() && shown["subscriptionId"] == id.as_str(), "{shown}");
    let selection = json!({"from": "2020-01-01T00:00:00.000Z", "to": "2100-01-01T00:00:00.000Z", "status": "any"});
    assert_eq!(shown["selection"], selection);
    let came = receiver.wait(600).await;
    let again = &came[300..];
    assert!(first.iter().all(|one| one.header("tidemill-replay").is_empty()));
    assert!(again.iter().all(|one| one.header("tidemill-replay") == "true"));
    let ids: BTreeSet<&str> = again.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids, events.iter().map(String::as_str).collect());
    let body_of = |came: &[crate::support::receiver::Received]| -> BTreeMap<String, Vec<u8>> {
        came.iter().map(|one| (one.header("webhook-id").to_owned(), one.body.clone())).collect()
    };
    assert_eq!(body_of(again), body_of(&first));
    node.stop().await;
}

#[actix::test]
async fn dead_letters_are_sent_again_until_they_are_taken() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    // One try each, and no breaker in the way.
    let more = json!({"retrySchedule": [0], "maxInFlight": 1, "topic": ["crm/*", "commerce/*"]});
    let id = subscribe(&node, &receiver.address, more).await;
    receiver.answer((0..5).map(|_| (500, vec![])));
    publish(&node, "crm/contacts", 3).await;
    publish(&node, "commerce/orders", 3).await;
    receiver.wait(6).await;
    let dead = |count: u64| move |shown: &Value| shown["subscription"]["queue"]["dead"] == count;
    until(&node, &format!("{HOOKS}/{id}"), dead(5)).await;
    let of = |status: &str, topic: &str| {
        let mut body = everything();
        (body["status"], body["topic"]) = (json!(status), json!(topic));
        body
    };
    let count = |mut body: Value| {
        body["dryRun"] = json!(true);
        let (node, id) = (&node, &id);
        async move { node.post(&format!("{HOOKS}/{id}/replays"), body).await.ok()["dryRun"]["count"].clone() }
    };
    assert_eq!(count(of("dead", "*")).await, 5);
    assert_eq!(count(of("dead", "crm/contacts")).await, 3);
    assert_eq!(count(of("dead", "commerce/*")).await, 2);
    assert_eq!(count(of("delivered", "*")).await, 1);
    assert_eq!(count(of("any", "*")).await, 6);

    receiver.answer([(500, vec![])]);
    let made = replay(&node, &id, of("dead", "*")).await;
    let shown = completed(&node, &made).await;
    let (delivered, died) = (shown["counts"]["delivered"].clone(), shown["counts"]["dead"].clone());
    assert_eq!((delivered, died), (json!(4), json!(1)), "{shown}");
    assert_eq!(count(of("dead", "*")).await, 1, "what was taken is not asked for again");
    let made = replay(&node, &id, of("dead", "*")).await;
    assert_eq!(completed(&node, &made).await["counts"]["delivered"], 1);
    assert_eq!(count(of("dead", "*")).await, 0);
    node.stop().await;
}

#[actix::test]
async fn live_events_do_not_wait_for_a_replay() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let more = json!({"ratePerSecond": 20, "isEnabled": false});
    let id = subscribe(&node, &receiver.address, more).await;
    publish(&node, "crm/contacts", 400).await;
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["pending"] == 400).await;
    // They never were sent: the backlog is skipped, and then wanted after all.
    node.post(&format!("{HOOKS}/{id}/enable"), json!({"backlog": "skip"})).await.ok();
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["pending"] == 0).await;
    let made = replay(&node, &id, everything()).await;
    let came = receiver.wait(20).await;
    assert!(came.iter().all(|one| one.header("tidemill-replay") == "true"));
    let live = publish(&node, "crm/contacts", 5).await;
    let is_live = |one: &crate::support::receiver::Received| live.iter().any(|id| id == one.header("webhook-id"));
    for _ in 0..600 {
        if receiver.so_far().iter().filter(|one| is_live(one)).count() == 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let came = receiver.so_far();
    assert_eq!(came.iter().filter(|one| is_live(one)).count(), 5);
    let shown = node.get(&format!("{REPLAYS}/{made}")).await.ok()["replay"].clone();
    assert_eq!(shown["state"], "running", "the replay goes on behind them: {shown}");
    assert!(shown["counts"]["waiting"].as_u64().expect("a number") <= 100, "{shown}");
    node.post(&format!("{REPLAYS}/{made}/cancel"), json!({})).await.ok();
    let shown = until(&node, &format!("{REPLAYS}/{made}"), |shown| shown["replay"]["state"] == "cancelled").await;
    let counts = &shown["replay"]["counts"];
    let number = |name: &str| counts[name].as_u64().expect("a number");
    assert!(number("cancelled") > 0 && number("waiting") + number("retrying") == 0, "{shown}");
    assert_eq!(number("delivered") + number("cancelled"), number("made"));
    node.stop().await;
}

#[actix::test]
async fn a_replay_is_paused_resumed_and_cancelled() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let id = subscribe(&node, &receiver.address, json!({})).await;
    publish(&node, "crm/contacts", 30).await;
    receiver.wait(30).await;
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["pending"] == 0).await;
    let mut slowly = everything();
    slowly["ratePerSecond"] = json!(0.001);
    let slow = replay(&node, &id, slowly).await;
    let turn = |id: &str, what: &str| {
        let path = format!("{REPLAYS}/{id}/{what}");
        let node = &node;
        async move { node.post(&path, json!({})).await }
    };
    receiver.wait(31).await;
    assert_eq!(turn(&slow, "pause").await.ok()["replay"]["state"], "paused");
    assert_eq!(turn(&slow, "pause").await.ok()["replay"]["state"], "paused");
    assert_eq!(turn(&slow, "resume").await.ok()["replay"]["state"], "running");
    let shown = node.get(&format!("{REPLAYS}/{slow}")).await.ok()["replay"].clone();
    assert_eq!((&shown["ratePerSecond"], &shown["counts"]["made"]), (&json!(0.001), &json!(1)), "{shown}");
    assert_eq!(turn(&slow, "pause").await.ok()["replay"]["state"], "paused");

    let quick = replay(&node, &id, everything()).await;
    let shown = completed(&node, &quick).await;
    assert_eq!(shown["counts"]["delivered"], 30, "the paused one does not hold it up");
    for what in ["pause", "resume", "cancel"] {
        turn(&quick, what).await.refused(409, "conflict");
    }
    let state = turn(&slow, "cancel").await.ok()["replay"]["state"].clone();
    assert!(state == "cancelling" || state == "cancelled", "{state}");
    until(&node, &format!("{REPLAYS}/{slow}"), |shown| shown["replay"]["state"] == "cancelled").await;
    turn(&slow, "resume").await.refused(409, "conflict");
    assert_eq!(turn(&slow, "cancel").await.ok()["replay"]["state"], "cancelled");
    assert_eq!(receiver.so_far().len(), 61);
    node.stop().await;
}

#[actix::test]
async fn a_replay_waits_for_its_subscription_and_goes_with_it() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let id = subscribe(&node, &receiver.address, json!({})).await;
    publish(&node, "crm/contacts", 10).await;
    receiver.wait(10).await;
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["pending"] == 0).await;
    node.call("PATCH", &format!("{HOOKS}/{id}"), Some(json!({"isEnabled": false}))).await.ok();
    let made = replay(&node, &id, everything()).await;
    let shown = node.get(&format!("{REPLAYS}/{made}")).await.ok()["replay"].clone();
    assert_eq!((&shown["state"], &shown["counts"]["made"]), (&json!("running"), &json!(0)));
    assert!(shown["stateReason"].is_string(), "{shown}");
    node.post(&format!("{HOOKS}/{id}/enable"), json!({})).await.ok();
    assert_eq!(completed(&node, &made).await["counts"]["delivered"], 10);
    node.call("DELETE", &format!("{HOOKS}/{id}"), None).await.ok();
    node.get(&format!("{REPLAYS}/{made}")).await.refused(404, "replay-not-found");
    assert_eq!(node.get(REPLAYS).await.ok(), json!({"replays": []}));
    node.stop().await;
}

#[actix::test]
async fn in_an_ordered_lane_a_replay_keeps_the_order_of_each_record() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let id = subscribe(&node, &receiver.address, json!({"ordering": "record"})).await;
    publish(&node, "crm/contacts", 120).await;
    receiver.wait(120).await;
    until(&node, &format!("{HOOKS}/{id}"), |shown| shown["subscription"]["queue"]["pending"] == 0).await;
    let made = replay(&node, &id, everything()).await;
    assert_eq!(completed(&node, &made).await["counts"]["delivered"], 120);
    let came = receiver.wait(240).await;
    for half in came.chunks(120) {
        let mut last = BTreeMap::new();
        for one in half {
            let (record, number) = (one.json()["dataPayload"]["id"].clone(), one.json()["dataPayload"]["n"].clone());
            let before = last.insert(record.as_u64(), number.as_u64());
            assert!(before < Some(number.as_u64()), "{number} came after {before:?}");
        }
    }
    node.stop().await;
}

#[actix::test]
async fn replays_are_listed_page_by_page_and_a_subscription_has_so_many() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let one = subscribe(&node, &receiver.address, json!({"isEnabled": false})).await;
    let two = subscribe(&node, &format!("{}/two", receiver.address), json!({"isEnabled": false})).await;
    // Without anything to send they would end at once.
    publish(&node, "crm/contacts", 1).await;
    let routed = |shown: &Value| shown["subscription"]["queue"]["pending"] == 1;
    until(&node, &format!("{HOOKS}/{two}"), routed).await;
    let mut made = Vec::new();
    for n in 0..10 {
        made.push(replay(&node, if n % 2 == 0 { &one } else { &two }, everything()).await);
    }
    made.reverse();
    let message = node.post(&format!("{HOOKS}/{one}/replays"), everything()).await.refused(409, "conflict");
    assert!(message.contains("5 replays"), "{message}");
    for (query, wanted) in [
        (String::new(), made.clone()),
        (format!("subscriptionId={one}&"), made.iter().skip(1).step_by(2).cloned().collect()),
    ] {
        for limit in [1, 3, 250] {
            let (mut listed, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = node.get(&format!("{REPLAYS}?{query}limit={limit}{cursor}")).await.ok();
                listed.extend(page["replays"].as_array().expect("a list").iter().map(|one| text(&one["replayId"])));
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(listed, wanted, "{query}{limit}");
        }
    }
    node.stop().await;
}

#[actix::test]
async fn wrong_wishes_and_other_workspaces_are_refused() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let id = subscribe(&node, &receiver.address, json!({"isEnabled": false})).await;
    let path = format!("{HOOKS}/{id}/replays");
    for (change, code, told) in [
        (json!({"from": "yesterday"}), "invalid", "from: "),
        (json!({"to": FROM}), "invalid", "to: "),
        (json!({"topic": "crm/contact"}), "unknown-topic", "topic: "),
        (json!({"status": "lost"}), "invalid", "`status`"),
        (json!({"ratePerSecond": 0}), "invalid", "ratePerSecond: "),
        (json!({"remoteId": "x".repeat(2000)}), "invalid", "remoteId: "),
        (json!({"dryrun": true}), "unknown-field", "`dryRun`"),
    ] {
        let mut body = everything();
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let message = node.post(&path, body).await.refused(422, code);
        assert!(message.contains(told), "{message}");
    }
    node.post(&path, json!({"from": FROM})).await.refused(422, "invalid");
    let mut foreign = everything();
    foreign["connectionId"] = json!("x");
    node.post(&path, foreign).await.refused(404, "connection-not-found");
    let made = replay(&node, &id, everything()).await;
    node.post(&format!("{REPLAYS}/{made}/pause"), json!({"now": true})).await.refused(422, "unknown-field");

    let theirs = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = text(&theirs["key"]["apiKey"]);
    let one = format!("{REPLAYS}/{made}");
    node.call_as(&theirs, "GET", &one, None).await.refused(404, "replay-not-found");
    for what in ["pause", "resume", "cancel"] {
        node.call_as(&theirs, "POST", &format!("{one}/{what}"), None).await.refused(404, "replay-not-found");
        node.post(&format!("{REPLAYS}/0000000000000001000000ff/{what}"), json!({}))
            .await
            .refused(404, "replay-not-found");
    }
    node.call_as(&theirs, "POST", &path, Some(everything())).await.refused(404, "subscription-not-found");
    assert_eq!(node.call_as(&theirs, "GET", REPLAYS, None).await.ok(), json!({"replays": []}));
    let of = format!("{REPLAYS}?subscriptionId={id}");
    node.call_as(&theirs, "GET", &of, None).await.refused(404, "subscription-not-found");
    node.stop().await;
}

#[actix::test]
async fn a_replay_goes_on_after_kills_and_makes_each_delivery_once() {
    const EVENTS: usize = 600;
    let folder = TempDir::new().expect("a folder");
    let receiver = Receiver::start();
    let mut node = Process::new(folder.path());
    node.start();
    node.ready().await;
    let wish = json!({"address": receiver.address, "topic": ["crm/*"], "signing": {"rsa": false, "ed25519": false}});
    let made = node.call(Method::POST, HOOKS, Some(&wish)).await;
    let id = text(&made["subscription"]["subscriptionId"]);
    let events: Vec<Value> = (0..EVENTS).map(|n| json!({"topic": "crm/contacts", "dataPayload": {"id": n}})).collect();
    node.call(Method::POST, &format!("{ONE}/events"), Some(&json!(events))).await;
    receiver.wait(EVENTS).await;
    let mut body = everything();
    // Slow enough to be killed in its middle.
    body["ratePerSecond"] = json!(300);
    let mut rng = fastrand::Rng::with_seed(7);
    let path = format!("{HOOKS}/{id}/replays");
    let made = text(&node.call(Method::POST, &path, Some(&body)).await["replay"]["replayId"]);
    let mut looks = Vec::new();
    for _ in 0..6 {
        // The moment of the kill is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(rng.u64(20..300))).await;
        node.kill();
        node.start();
        node.ready().await;
        looks
            .push(node.call(Method::GET, &format!("{REPLAYS}/{made}"), None).await["replay"]["counts"]["made"].clone());
    }
    assert!(looks.iter().any(|made| *made != 0 && *made != EVENTS), "no kill was in the middle: {looks:?}");
    let mut shown = Value::Null;
    for _ in 0..600 {
        shown = node.call(Method::GET, &format!("{REPLAYS}/{made}"), None).await["replay"].clone();
        if shown["state"] == "completed" && shown["counts"]["delivered"] == EVENTS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((&shown["state"], &shown["counts"]["made"]), (&json!("completed"), &json!(EVENTS)), "{shown}");
    let (mut again, mut cursor) = (BTreeMap::<String, usize>::new(), String::new());
    loop {
        let page = node.call(Method::GET, &format!("{ONE}/deliveries?limit=250{cursor}"), None).await;
        for one in page["deliveries"].as_array().expect("a list").iter().filter(|one| one["replay"] == true) {
            *again.entry(text(&one["eventId"])).or_default() += 1;
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!((again.len(), again.values().max()), (EVENTS, Some(&1)));
    assert_eq!(node.stop(), Some(0), "{}", node.log());
}
