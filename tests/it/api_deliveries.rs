//! Deliveries: listed by filter in bounded pages, shown with their attempts, sent again.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::domain::event::{Event, Payload, Source};
use tidemill::domain::id::WorkspaceNo;

use crate::support::api::{Node, OPERATOR};
use crate::support::server::{Act, Server, answer};

const HOOKS: &str = "/2024-03/one/webhooks";
const DELIVERIES: &str = "/2024-03/one/deliveries";

async fn publish(node: &Node, topic: &str) {
    let topic = topic.to_owned();
    let append = move |tx: &mut tidemill::store::Tx<'_>| {
        let now = tx.now();
        tx.append_event(&Event {
            workspace: WorkspaceNo(0),
            topic,
            update_type: Some("created".into()),
            connection: None,
            user: None,
            app: None,
            user_name: None,
            username: None,
            happened_at: now,
            accepted_at: now,
            payload: Payload::Plain("{}".into()),
            changed_fields: Vec::new(),
            previous: None,
            raw: None,
            source: Source::Published,
            unified_change: true,
            about: None,
        })
    };
    node.engine.store.change(append).await.expect("published");
    node.engine.rings.router();
}

/// Asks until what is listed fits, for ten seconds.
async fn until(node: &Node, path: &str, fits: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut last = Value::Null;
    for _ in 0..200 {
        last = node.get(path).await.ok();
        if let Some(list) = last["deliveries"].as_array().filter(|list| fits(list)) {
            return list.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path}: {last}");
}

#[actix::test]
async fn deliveries_are_listed_shown_and_sent_again() {
    let node = Node::start().await;
    let good = Server::start(|_| Act::Answer(answer("200 OK", "", "fine"))).await;
    let bad = Server::start(|_| Act::Answer(answer("500 Oops", "", "no room"))).await;
    let hook = |to: &Server| json!({"address": format!("http://{}/", to.address), "topic": ["crm/*", "commerce/*"]});
    let ok = node.post(HOOKS, hook(&good)).await.ok()["subscription"]["subscriptionId"].clone();
    let failing = node.post(HOOKS, hook(&bad)).await.ok()["subscription"]["subscriptionId"].clone();
    for topic in ["crm/contacts", "commerce/orders", "crm/contacts"] {
        publish(&node, topic).await;
    }
    until(&node, &format!("{DELIVERIES}?status=delivered"), |list| list.len() == 3).await;
    let retrying = until(&node, &format!("{DELIVERIES}?status=retrying"), |list| list.len() == 3).await;
    assert!(retrying.iter().all(|d| d["subscriptionId"] == failing && d["nextAttemptAt"].is_string()));
    assert_eq!(retrying[0]["lastError"]["code"], "http-5xx");
    let of = |query: &str| format!("{DELIVERIES}?{query}");
    let node_ref = &node;
    let count =
        |path: String| async move { node_ref.get(&path).await.ok()["deliveries"].as_array().expect("a list").len() };
    assert_eq!(count(of("topic=commerce/orders")).await, 2);
    assert_eq!(count(of(&format!("subscriptionId={}", ok.as_str().expect("an id")))).await, 3);
    assert_eq!(count(of("status=dead")).await, 0);
    assert_eq!(count(of("from=2100-01-01T00:00:00Z")).await, 0);
    assert_eq!(count(of("to=2100-01-01T00:00:00Z")).await, 6);
    pages(&node).await;

    let id = retrying[0]["deliveryId"].as_str().expect("an id");
    let one = node.get(&format!("{DELIVERIES}/{id}")).await.ok()["delivery"].clone();
    let attempt = &one["attempts"][0];
    assert_eq!((attempt["status"].as_u64(), attempt["answer"].as_str()), (Some(500), Some("no room")));
    assert_eq!((one["attemptCount"].as_u64(), one["topic"].as_str()), (Some(1), Some("crm/contacts")));
    let view = node.get(&format!("{HOOKS}/{}", failing.as_str().expect("an id"))).await.ok();
    assert_eq!(
        (&view["subscription"]["status"], &view["subscription"]["queue"]["pending"]),
        (&json!("retrying"), &json!(3))
    );

    let sent = node.post(&format!("{DELIVERIES}/{id}/resend"), json!({})).await.ok()["delivery"].clone();
    assert_eq!((&sent["eventId"], &sent["replay"]), (&one["eventId"], &json!(true)));
    until(&node, DELIVERIES, |list| list.len() == 7).await;
    traced(&node, one["eventId"].as_str().expect("an id"), sent["deliveryId"].as_str().expect("an id")).await;
    node.stop().await;
}

/// The event shows its three deliveries, the one that was asked for again after the first of its lane.
async fn traced(node: &Node, event: &str, again: &str) {
    let tried_twice = format!("{DELIVERIES}/{again}");
    for _ in 0..200 {
        if node.get(&tried_twice).await.ok()["delivery"]["attemptCount"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let shown = node.get(&format!("/2024-03/one/events/{event}")).await.ok()["event"].clone();
    assert_eq!((&shown["source"]["kind"], &shown["body"]["topic"]), (&json!("published"), &json!("crm/contacts")));
    let all = shown["deliveries"].as_array().expect("a trace");
    let of = |status: &str| all.iter().filter(|d| d["status"] == status).collect::<Vec<_>>();
    assert_eq!((all.len(), of("delivered").len(), of("retrying").len()), (3, 1, 2), "{shown}");
    assert_eq!(of("delivered")[0]["attempts"][0]["status"], 200);
    assert_eq!(of("retrying")[1]["deliveryId"], again);
    assert_eq!(
        (&of("retrying")[1]["replay"], &of("retrying")[1]["attempts"][0]["status"]),
        (&json!(true), &json!(500))
    );
    assert_eq!(shown["moreDeliveries"], false);
}

#[actix::test]
async fn a_delivery_shows_a_line_that_repeats_it() {
    let node = Node::start().await;
    let bad = Server::start(|_| Act::Answer(answer("500 Oops", "", ""))).await;
    let body = json!({
        "address": format!("http://{}/it's", bad.address), "topic": ["*"], "headers": {"X-Team": "s3cret"},
    });
    node.post(HOOKS, body).await.ok();
    publish(&node, "crm/contacts").await;
    let tried = until(&node, &format!("{DELIVERIES}?status=retrying"), |list| list.len() == 1).await;
    assert!(tried[0].get("curl").is_none(), "a list has no lines");
    let one = format!("{DELIVERIES}/{}", tried[0]["deliveryId"].as_str().expect("an id"));
    let shown = node.get(&one).await.ok()["delivery"]["curl"].as_str().expect("a line").to_owned();
    let sent = &bad.got()[0];
    // Everything but the time of the signatures is as it was; RSA has no time.
    for name in ["webhook-id", "x-alloy-topic", "x-alloy-signature", "tidemill-attempt", "content-type", "user-agent"] {
        let header = format!("-H '{name}: {}'", sent.header(name).expect(name));
        assert!(shown.contains(&header), "{header}: {shown}");
    }
    let body = std::str::from_utf8(&sent.body).expect("text");
    assert!(shown.contains(&format!("--data-binary '{body}'")), "{shown}");
    assert!(shown.ends_with(&format!("'http://{}/it'\\''s'", bad.address)), "{shown}");
    assert!(shown.contains("-H 'X-Team: ***'") && !shown.contains("s3cret"), "{shown}");
    let reader = node.post("/2024-03/one/keys", json!({"name": "r", "scopes": ["read"]})).await.ok();
    let reader = reader["key"]["apiKey"].as_str().expect("a key").to_owned();
    let masked = node.call_as(&reader, "GET", &one, None).await.ok()["delivery"]["curl"].to_string();
    assert!(masked.contains("x-alloy-signature: ***") && masked.contains("webhook-signature: ***"), "{masked}");
    assert!(!masked.contains(sent.header("x-alloy-signature").expect("signed")), "{masked}");
    node.stop().await;
}

#[actix::test]
async fn what_is_in_flight_is_listed_and_shown_as_such() {
    let node = Node::start().await;
    let silent = Server::start(|_| Act::Hang(Vec::new())).await;
    let body = json!({"address": format!("http://{}/", silent.address), "topic": ["*"], "timeoutSeconds": 60});
    node.post(HOOKS, body).await.ok();
    publish(&node, "crm/contacts").await;
    let flying = until(&node, &format!("{DELIVERIES}?status=inFlight"), |list| list.len() == 1).await;
    assert_eq!((&flying[0]["status"], &flying[0]["attemptCount"]), (&json!("inFlight"), &json!(0)));
    assert!(flying[0].get("nextAttemptAt").is_none(), "{flying:?}");
    let one = format!("{DELIVERIES}/{}", flying[0]["deliveryId"].as_str().expect("an id"));
    assert_eq!(node.get(&one).await.ok()["delivery"]["status"], "inFlight");
    assert_eq!(node.get(DELIVERIES).await.ok()["deliveries"][0]["status"], "inFlight");
    let pending = node.get(&format!("{DELIVERIES}?status=pending")).await.ok();
    assert_eq!(pending["deliveries"], json!([]));
    node.stop().await;
}

/// Page by page gives the same as at once.
async fn pages(node: &Node) {
    let all = node.get(DELIVERIES).await.ok()["deliveries"].clone();
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("{DELIVERIES}?limit=1{cursor}")).await.ok();
        paged.extend(page["deliveries"].as_array().expect("a list").iter().map(|d| d["deliveryId"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let all: Vec<_> = all.as_array().expect("a list").iter().map(|d| d["deliveryId"].clone()).collect();
    assert_eq!(paged, all);
}

#[actix::test]
async fn wrong_questions_about_deliveries_are_refused() {
    let node = Node::start().await;
    node.get(&format!("{DELIVERIES}?status=lost")).await.refused(400, "malformed");
    node.get(&format!("{DELIVERIES}?from=yesterday")).await.refused(400, "malformed");
    node.get(&format!("{DELIVERIES}?subscriptionId=x")).await.refused(404, "subscription-not-found");
    for id in ["x", "000000000000000100000001"] {
        node.get(&format!("{DELIVERIES}/{id}")).await.refused(404, "delivery-not-found");
        node.post(&format!("{DELIVERIES}/{id}/resend"), json!({})).await.refused(404, "delivery-not-found");
    }
    let receiver = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let body = json!({"address": format!("http://{}/", receiver.address), "topic": ["*"]});
    node.post(HOOKS, body).await.ok();
    publish(&node, "crm/contacts").await;
    let seen = until(&node, DELIVERIES, |list| list.len() == 1).await;
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = two["key"]["apiKey"].as_str().expect("a key");
    let path = format!("{DELIVERIES}/{}", seen[0]["deliveryId"].as_str().expect("an id"));
    node.call_as(theirs, "GET", &path, None).await.refused(404, "delivery-not-found");
    node.stop().await;
}
