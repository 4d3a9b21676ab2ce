//! `GET /one/events/stream`: everything once and in order, nothing of others, bounded, and honest about what is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::api::{self, Phase};
use tidemill::app::verify::{Judgement, Received, verify};
use tidemill::domain::time::Millis;
use tidemill::store::{Cutoffs, SweepMarks};

use crate::support::api::{KEY, Node, OPERATOR};
use crate::support::receiver::Receiver;
use crate::support::sse::Stream;

const TOPIC: &str = "desk/tickets";
const QUICK: (&str, &str) = ("TIDEMILL__SERVER__STREAM_HEARTBEAT_SECONDS", "1");

/// A node with two topics of its own.
async fn node(more: &[(&str, &str)]) -> Node {
    let node = Node::start_with(more, api::configure).await;
    for topic in [TOPIC, "desk/notes"] {
        node.post("/2024-03/one/topics", json!({"topic": topic})).await.ok();
    }
    node
}

async fn publish_as(node: &Node, key: &str, event: Value) -> String {
    let answer = node.call_as(key, "POST", "/2024-03/one/events", Some(event)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json()["eventId"].as_str().expect("an id").to_owned()
}

async fn publish(node: &Node, topic: &str, number: usize) -> String {
    let event = json!({"topic": topic, "updateType": "created", "dataPayload": {"number": number}});
    publish_as(node, KEY, event).await
}

/// A workspace of its own: its key, with the same topics.
async fn other_workspace(node: &Node) -> String {
    let made = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let key = made["key"]["apiKey"].as_str().expect("a key").to_owned();
    node.call_as(&key, "POST", "/2024-03/one/topics", Some(json!({"topic": TOPIC}))).await.ok();
    key
}

/// Drops every event up to now, as the janitor does when its time has come.
async fn drop_all(node: &Node) {
    let (never, all) = (Millis(0), Millis(u64::MAX / 2));
    let cutoffs = Cutoffs {
        now: node.engine.clock.now(),
        events: all,
        undelivered: never,
        delivered: never,
        inbox: never,
        unverified: never,
        pulls: never,
        tombstones: never,
        audit: never,
    };
    node.engine.store.drop_past(cutoffs, SweepMarks::default(), 100).await.expect("dropped");
}

#[actix::test]
async fn an_event_is_streamed_exactly_as_a_webhook_has_it() {
    let node = node(&[]).await;
    let receiver = Receiver::start();
    node.post("/2024-03/one/webhooks", json!({"address": receiver.address, "topic": ["*"]})).await.ok();
    let mut stream = Stream::open(&node, "").await;
    // Line breaks between tokens and inside of texts, and letters of several bytes.
    let text = "{\"topic\":\"desk/tickets\",\"dataPayload\":{\n \"é\":\"a\\nb\",\n\n \"n\": 1.50}}";
    let bearer = format!("Bearer {KEY}");
    node.send("POST", "/2024-03/one/events", &[("authorization", &bearer)], text).await;
    let delivered = receiver.wait(1).await.remove(0);
    let event = stream.event().await;
    assert_eq!(event.data().expect("a body").as_bytes(), delivered.body);
    assert_eq!(event.get("event"), Some(TOPIC));
    assert_eq!(event.id(), delivered.header("webhook-id"));
    // The version in the path and `include` choose the body, as they do for a subscription.
    let mut stream = Stream::open(&node, "after=oldest&include=eventId,changedFields").await;
    let body = stream.event().await.json();
    assert_eq!((&body["eventId"], &body["changedFields"]), (&json!(event.id()), &json!([])));
    assert!(body.get("topic").is_none());
    node.stop().await;
}

#[actix::test]
async fn a_stream_goes_on_after_the_last_event_seen() {
    let node = node(&[]).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(publish(&node, TOPIC, number).await);
    }
    let mut stream = Stream::open(&node, &format!("after={}", ids[0])).await;
    for id in &ids[1..] {
        assert_eq!(&stream.event().await.id(), id);
    }
    // What the reader has seen since counts more than its URL.
    let mut again = Stream::open_as(&node, KEY, &format!("after={}", ids[0]), Some(&ids[2])).await;
    assert_eq!(again.event().await.id(), ids[3]);
    // Without a position it begins now.
    let mut fresh = Stream::open(&node, "").await;
    let next = publish(&node, TOPIC, 4).await;
    for stream in [&mut fresh, &mut stream, &mut again] {
        assert_eq!(stream.event().await.id(), next);
    }
    node.stop().await;
}

#[actix::test]
async fn topics_types_and_users_narrow_a_stream() {
    let node = node(&[]).await;
    for name in ["ann", "bob"] {
        node.post("/2024-03/one/users", json!({"username": name})).await.ok();
    }
    let event = |topic: &str, user: &str, kind: &str| json!({"topic": topic, "userId": user, "updateType": kind, "dataPayload": {}});
    let one = publish_as(&node, KEY, event(TOPIC, "ann", "created")).await;
    let two = publish_as(&node, KEY, event("crm/contacts", "bob", "updated")).await;
    let three = publish_as(&node, KEY, event("desk/notes", "bob", "deleted")).await;
    for (query, wanted) in [
        ("topic=*", vec![&one, &two, &three]),
        ("topic=desk/*", vec![&one, &three]),
        ("topic=desk/notes,crm/contacts", vec![&two, &three]),
        ("topic=desk/notes&topic=crm/contacts", vec![&two, &three]),
        ("userId=bob", vec![&two, &three]),
        ("userId=bob&updateType=updated", vec![&two]),
        ("topic=sync/*", vec![]),
    ] {
        let mut stream = Stream::open(&node, &format!("after=oldest&{query}")).await;
        for id in wanted {
            assert_eq!(&stream.event().await.id(), id, "{query}");
        }
    }
    let refused = |query: &'static str| Stream::open_as(&node, KEY, query, None);
    let message = refused("topic=crm/contact").await.refused(422, "unknown-topic").await;
    assert!(message.contains("crm/contacts"), "{message}");
    refused("userId=eve").await.refused(404, "user-not-found").await;
    refused("include=everything").await.refused(422, "invalid").await;
    refused("after=nonsense").await.refused(404, "event-not-found").await;
    node.stop().await;
}

#[actix::test]
async fn nothing_of_another_workspace_is_streamed() {
    let node = node(&[]).await;
    let theirs = other_workspace(&node).await;
    let event = json!({"topic": TOPIC, "dataPayload": {"secret": 1}});
    let mut stream = Stream::open(&node, "").await;
    let their_event = publish_as(&node, &theirs, event.clone()).await;
    let our_event = publish(&node, TOPIC, 1).await;
    assert_eq!(stream.event().await.id(), our_event);
    let query = format!("after={their_event}");
    Stream::open_as(&node, KEY, &query, None).await.refused(404, "event-not-found").await;
    let mut stream = Stream::open_as(&node, &theirs, "after=oldest", None).await;
    assert_eq!(stream.event().await.id(), their_event);
    // Without a key, and with a key for hooks, there is nothing at all.
    assert_eq!(node.send("GET", "/2024-03/one/events/stream", &[], "").await.status, 401);
    node.post("/2024-03/one/users", json!({"username": "ann"})).await.ok();
    let key = json!({"name": "hooks", "scopes": ["hooks"], "userId": "ann"});
    let made = node.post("/2024-03/one/keys", key).await.ok();
    let key = made["key"]["apiKey"].as_str().expect("a key");
    Stream::open_as(&node, key, "", None).await.refused(403, "forbidden").await;
    node.stop().await;
}

#[actix::test]
async fn streams_have_a_limit_per_workspace_and_node_and_give_their_place_back() {
    let limits = [("TIDEMILL__SERVER__STREAMS_MAX", "2"), ("TIDEMILL__SERVER__STREAMS_PER_WORKSPACE_MAX", "1"), QUICK];
    let node = node(&limits).await;
    let theirs = other_workspace(&node).await;
    let first = Stream::open(&node, "").await;
    let over = Stream::open_as(&node, KEY, "", None).await;
    assert!(over.answer.headers().contains_key("retry-after"));
    over.refused(429, "too-many-requests").await;
    let second = Stream::open_as(&node, &theirs, "", None).await;
    assert_eq!(second.answer.status(), 200);
    let made = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "three"}))).await.ok();
    let third = made["key"]["apiKey"].as_str().expect("a key");
    let over = Stream::open_as(&node, third, "", None).await;
    assert!(over.answer.headers().contains_key("retry-after"));
    over.refused(503, "unavailable").await;
    assert_eq!(node.state.metrics.event_streams.get(), 2);
    // HEAD is a GET without its body, and holds no place.
    let bearer = format!("Bearer {third}");
    drop((first, second));
    for _ in 0..200 {
        if node.state.metrics.event_streams.get() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..3 {
        let head = node.send("HEAD", "/2024-03/one/events/stream", &[("authorization", &bearer)], "").await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    }
    assert_eq!(node.state.metrics.event_streams.get(), 0);
    node.stop().await;
}

#[actix::test]
async fn a_quiet_stream_tells_how_far_it_has_come_and_ends_when_the_node_stops() {
    let node = node(&[QUICK]).await;
    let mut stream = Stream::open(&node, "topic=desk/notes").await;
    let passed = publish(&node, TOPIC, 1).await;
    let mut heartbeats = 0;
    let mark = loop {
        let block = stream.block().await.expect("the stream goes on");
        assert!(block.get("").is_some_and(|comment| comment.contains("heartbeat")) && block.data().is_none());
        heartbeats += 1;
        if block.id() >= passed {
            break block.id();
        }
        assert!(heartbeats < 10, "{block:?}");
    };
    node.state.health.set_phase(Phase::Draining);
    assert!(stream.rest().await.is_empty());
    Stream::open_as(&node, KEY, "", None).await.refused(503, "unavailable").await;
    // Somewhere else, or later, it goes on there.
    node.state.health.set_phase(Phase::Ready);
    let next = publish(&node, "desk/notes", 2).await;
    let mut stream = Stream::open_as(&node, KEY, "topic=desk/notes", Some(&mark)).await;
    assert_eq!(stream.event().await.id(), next);
    node.stop().await;
}

#[actix::test]
async fn what_retention_has_dropped_is_told_and_not_passed_over() {
    let node = node(&[QUICK]).await;
    let first = publish(&node, TOPIC, 1).await;
    publish(&node, TOPIC, 2).await;
    drop_all(&node).await;
    let last = publish(&node, TOPIC, 3).await;
    for last_event_id in [None, Some(first.as_str())] {
        let query = last_event_id.map_or_else(|| format!("after={first}"), |_| String::new());
        let stream = Stream::open_as(&node, KEY, &query, last_event_id).await;
        let message = stream.refused(410, "events-gone").await;
        assert!(message.contains("after=oldest"), "{message}");
    }
    let mut stream = Stream::open(&node, "after=oldest").await;
    let oldest = stream.event().await;
    assert_eq!(oldest.id(), last);
    // A reader that stands right before the first one that is kept has missed nothing.
    let mut stream = Stream::open(&node, &format!("after={last}")).await;
    drop_all(&node).await;
    let next = publish(&node, TOPIC, 4).await;
    assert_eq!(stream.event().await.id(), next);
    node.stop().await;
}

#[actix::test]
async fn a_revoked_key_ends_its_streams() {
    let node = node(&[QUICK]).await;
    let made = node.post("/2024-03/one/keys", json!({"name": "reader", "scopes": ["read"]})).await.ok();
    let (id, key) = (made["key"]["keyId"].as_str().expect("an id"), made["key"]["apiKey"].as_str().expect("a key"));
    let (mut busy, mut quiet) =
        (Stream::open_as(&node, key, "", None).await, Stream::open_as(&node, key, "topic=desk/notes", None).await);
    let seen = publish(&node, TOPIC, 1).await;
    assert_eq!(busy.event().await.id(), seen);
    node.call("DELETE", &format!("/2024-03/one/keys/{id}"), None).await.ok();
    publish(&node, TOPIC, 2).await;
    assert!(busy.rest().await.is_empty(), "nothing is sent to a revoked key");
    assert!(quiet.rest().await.is_empty());
    node.stop().await;
}

#[actix::test]
async fn a_slow_reader_gets_everything_once_and_in_order() {
    let node = node(&[]).await;
    let mut stream = Stream::open(&node, "").await;
    let filler = "x".repeat(40_000);
    let mut ids = Vec::new();
    // Far more than sockets hold: most of it waits in the log.
    for number in 0..300 {
        let event = json!({"topic": TOPIC, "dataPayload": {"number": number, "filler": filler}});
        ids.push(publish_as(&node, KEY, event).await);
    }
    for id in &ids {
        assert_eq!(&stream.event().await.id(), id);
    }
    node.stop().await;
}

#[actix::test]
async fn many_readers_and_writers_at_once_lose_and_repeat_nothing() {
    let node = node(&[]).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(Stream::open(&node, "").await);
    }
    let published = futures_util::future::join_all((0..20).map(|batch| {
        let node = &node;
        async move {
            let events: Vec<_> =
                (0..25).map(|n| json!({"topic": TOPIC, "dataPayload": {"batch": batch, "number": n}})).collect();
            let answer = node.post("/2024-03/one/events", json!(events)).await;
            assert_eq!(answer.status, 202, "{}", answer.text);
            answer.json()["eventIds"].as_array().expect("ids").clone()
        }
    }));
    let read = futures_util::future::join_all(streams.iter_mut().map(|stream| async {
        let mut ids = Vec::new();
        while ids.len() < 500 {
            ids.push(stream.event().await.id());
        }
        ids
    }));
    let (published, read) = futures_util::future::join(published, read).await;
    let published: BTreeSet<String> =
        published.iter().flatten().map(|id| id.as_str().expect("an id").to_owned()).collect();
    for ids in read {
        assert!(ids.is_sorted(), "in the order of the log");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), published);
    }
    node.stop().await;
}

#[actix::test]
async fn signatures_are_real_and_take_a_key_that_may_write() {
    let node = node(&[]).await;
    let id = publish(&node, TOPIC, 1).await;
    let address = "http://localhost:3000/hook?a=1";
    let query =
        format!("after=oldest&sign={}", url::form_urlencoded::byte_serialize(address.as_bytes()).collect::<String>());
    let made = node.post("/2024-03/one/keys", json!({"name": "reader", "scopes": ["read"]})).await.ok();
    let reader = made["key"]["apiKey"].as_str().expect("a key");
    let message = Stream::open_as(&node, reader, &query, None).await.refused(403, "forbidden").await;
    assert!(message.contains("write"), "{message}");
    Stream::open_as(&node, KEY, "sign=ftp://x/", None).await.refused(422, "invalid").await;
    let mut stream = Stream::open(&node, &query).await;
    let envelope = stream.event().await.json();
    let headers: Vec<(String, String)> = envelope["headers"]
        .as_object()
        .expect("headers")
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    assert_eq!(
        (&envelope["headers"]["webhook-id"], &envelope["headers"]["x-alloy-topic"]),
        (&json!(id), &json!(TOPIC))
    );
    let keys = node.send("GET", "/.well-known/jwks.json", &[], "").await.text;
    let judge = |address: &str| {
        verify(&Received {
            headers: &headers,
            body: envelope["body"].as_str().expect("a body").as_bytes(),
            address: Some(address),
            secret: None,
            public_keys: Some(&keys),
            header_prefix: "x-alloy",
            now: node.engine.clock.now(),
            tolerance: Duration::from_secs(300),
        })
    };
    let verdicts = judge(address);
    assert!(verdicts.len() >= 3 && verdicts.iter().all(|v| v.judgement == Judgement::Good), "{verdicts:?}");
    assert!(judge("http://localhost:3000/other").iter().any(|v| v.judgement == Judgement::Bad));
    node.stop().await;
}
