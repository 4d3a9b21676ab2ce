//! The engine delivers what is in its log, retries what is refused, and goes on after a restart.

use std::time::Duration;

use tempfile::TempDir;
use tidemill::app::Engine;
use tidemill::domain::delivery::DeliveryState;
use tidemill::domain::id::{EventId, LaneNo, Seq};
use tidemill::domain::subscription::{Halt, Subscription};
use tidemill::store::DeliveryRow;

use crate::support::engine::{event, start, subscribe, workspace};
use crate::support::receiver::Receiver;

async fn publish(engine: &Engine, topic: &str, payload: &str) -> EventId {
    let event = event(topic, payload, engine.clock.now());
    engine.store.accept(move |tx| tx.append_event(&event)).await.expect("accepted")
}

/// Waits until the lane owes nothing.
async fn settled(engine: &Engine, lane: LaneNo) -> Vec<DeliveryRow> {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while tokio::time::Instant::now() < until {
        if engine.store.lane_counts(lane).expect("counts").pending == 0 {
            let rows = engine.store.deliveries(lane, None, 1000).expect("deliveries");
            return rows.into_iter().map(|(_, row)| row).collect();
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("lane {} still owes something", lane.0);
}

#[actix::test]
async fn an_event_reaches_its_subscriber_signed_and_once() {
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    workspace(&engine.store).await;
    let receiver = Receiver::start();
    let (subscription, secret) = subscribe(&engine, &receiver.address, |_| {}).await;
    let id = publish(&engine, "acme/things", r#"{"n": 1.50}"#).await;
    let came = receiver.wait(1).await;
    assert_eq!(came[0].header("webhook-id"), id.to_string());
    assert_eq!(came[0].header("x-alloy-topic"), "acme/things");
    assert_eq!(came[0].header("tidemill-attempt"), "1");
    assert!(String::from_utf8_lossy(&came[0].body).contains(r#""dataPayload":{"n": 1.50}"#));
    let verifier = standardwebhooks::Webhook::new(&secret).expect("a secret");
    let mut headers = http_headers(&came[0].headers);
    verifier.verify(&came[0].body, &headers).expect("v1 verifies");
    headers.insert("webhook-id", "other".parse().expect("a value"));
    assert!(verifier.verify(&came[0].body, &headers).is_err());
    let rows = settled(&engine, subscription.lane).await;
    assert_eq!(rows.len(), 1);
    assert!(matches!(rows[0].state, DeliveryState::Delivered { .. }), "{:?}", rows[0]);
    assert_eq!(rows[0].attempts.len(), 1);
    assert_eq!(receiver.so_far().len(), 1);
}

fn http_headers(headers: &[(String, String)]) -> hyper::HeaderMap {
    let mut map = hyper::HeaderMap::new();
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().expect("a name");
        map.insert(name, value.parse().expect("a value"));
    }
    map
}

#[actix::test]
async fn a_refused_delivery_is_tried_again_and_then_dead() {
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    workspace(&engine.store).await;
    let receiver = Receiver::start();
    receiver.answer([(500, vec![]), (302, vec![("location", "http://127.0.0.1/".into())]), (404, vec![])]);
    let (subscription, _) = subscribe(&engine, &receiver.address, |_| {}).await;
    publish(&engine, "acme/things", "{}").await;
    let came = receiver.wait(3).await;
    let attempts: Vec<&str> = came.iter().map(|r| r.header("tidemill-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert!(came.iter().all(|r| r.header("webhook-id") == came[0].header("webhook-id")));
    let rows = settled(&engine, subscription.lane).await;
    assert!(matches!(rows[0].state, DeliveryState::Dead { .. }), "{:?}", rows[0]);
    let slugs: Vec<_> =
        rows[0].attempts.iter().map(|a| a.error.map(tidemill::domain::delivery::AttemptError::slug)).collect();
    assert_eq!(slugs, [Some("http-5xx"), Some("redirect-refused"), Some("http-4xx")]);
    assert_eq!(rows[0].attempts[0].answer, "answer of the receiver");
    assert_eq!(engine.store.dead_deliveries(subscription.lane, None, 10).expect("dead").len(), 1);
}

#[actix::test]
async fn a_410_disables_the_subscription_and_keeps_its_queue() {
    let folder = TempDir::new().expect("a folder");
    let engine = start(&folder);
    workspace(&engine.store).await;
    let (receiver, watcher) = (Receiver::start(), Receiver::start());
    receiver.answer([(410, vec![])]);
    let one = |s: &mut Subscription| {
        s.topics = vec!["acme/*".into()];
        s.max_in_flight = 1;
    };
    let (subscription, _) = subscribe(&engine, &receiver.address, one).await;
    subscribe(&engine, &watcher.address, |s| s.topics = vec!["subscription/*".into()]).await;
    publish(&engine, "acme/things", "{}").await;
    receiver.wait(1).await;
    let told = watcher.wait(1).await[0].json();
    assert_eq!(told["updateType"], "disabled", "{told}");
    assert_eq!(told["dataPayload"]["subscriptionId"], subscription.id.to_string(), "{told}");
    publish(&engine, "acme/things", "{}").await;
    let now = engine.store.subscription_by_lane(subscription.lane).expect("read").expect("there");
    assert!(matches!(now.halt, Halt::Disabled { .. }));
    let enabled = Subscription { halt: Halt::No, ..now };
    engine.store.change(move |tx| tx.put_object(&enabled)).await.expect("enabled");
    engine.rings.subscriptions_changed();
    engine.rings.lane(subscription.lane);
    receiver.wait(3).await;
    settled(&engine, subscription.lane).await;
}

#[actix::test]
async fn what_was_accepted_is_delivered_after_a_restart() {
    let folder = TempDir::new().expect("a folder");
    let receiver = Receiver::start();
    let (lane, id) = {
        let engine = start(&folder);
        workspace(&engine.store).await;
        let (subscription, _) = subscribe(&engine, "http://127.0.0.1:1/", |s| s.is_enabled = false).await;
        let id = publish(&engine, "acme/things", "{}").await;
        let lane = subscription.lane;
        engine.drain(Duration::from_secs(5)).await.expect("drained");
        (lane, id)
    };
    let engine = restart(&folder).await;
    let stored = engine.store.subscription_by_lane(lane).expect("read").expect("there");
    let enabled = Subscription { address: receiver.address.clone(), is_enabled: true, ..stored };
    engine.store.change(move |tx| tx.put_object(&enabled)).await.expect("enabled");
    engine.rings.subscriptions_changed();
    engine.rings.lane(lane);
    assert_eq!(receiver.wait(1).await[0].header("webhook-id"), id.to_string());
    let after = publish(&engine, "acme/things", "{}").await;
    assert!(after.parts().0 > Seq(id.parts().0.0), "log positions are never used again");
}

/// The store's lock is let go when its last thread ends, a moment after the drain.
async fn restart(folder: &TempDir) -> Engine {
    use tidemill::{app, telemetry::Metrics};
    for _ in 0..200 {
        let config = crate::support::engine::config(folder);
        match Engine::start(config, app::wall_clock(), Metrics::new().expect("metrics")) {
            Ok(engine) => return engine,
            Err(error) => assert!(error.message.contains("in use"), "{}", error.chain()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the store stays locked");
}
