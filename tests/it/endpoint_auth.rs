//! Basic and bearer authentication towards an endpoint: sent with each attempt, never shown, never sent elsewhere.

use serde_json::{Value, json};
use tidemill::domain::subscription::EndpointAuth;
use tidemill::store::Slot;

use crate::support::api::Node;
use crate::support::receiver::Receiver;

const HOOKS: &str = "/2024-03/one/webhooks";
const EVENTS: &str = "/2024-03/one/events";

fn basic(password: &str) -> Value {
    json!({"type": "basic", "username": "hook", "password": password})
}

async fn publish(node: &Node) {
    let event = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {}});
    assert_eq!(node.post(EVENTS, event).await.status, 202);
}

#[actix::test]
async fn each_attempt_and_each_test_carries_it_and_no_answer_shows_it() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let body = json!({"address": receiver.address, "topic": ["*"], "auth": basic("s3cret: x")});
    let made = node.post(HOOKS, body).await;
    let shown = json!({"type": "basic", "username": "hook", "password": "***"});
    assert_eq!(made.ok()["subscription"]["auth"], shown);
    let id = made.json()["subscription"]["subscriptionId"].as_str().expect("an id").to_owned();
    let one = format!("{HOOKS}/{id}");
    publish(&node).await;
    // echo -n 'hook:s3cret: x' | base64
    assert_eq!(receiver.wait(1).await[0].header("authorization"), "Basic aG9vazpzM2NyZXQ6IHg=");
    let tested = node.post(&format!("{one}/test"), json!({})).await;
    assert_eq!(tested.ok()["test"]["accepted"], true);
    assert_eq!(receiver.wait(2).await[1].header("authorization"), "Basic aG9vazpzM2NyZXQ6IHg=");

    let list = node.get("/2024-03/one/deliveries").await.ok();
    let delivery = list["deliveries"][0]["deliveryId"].as_str().expect("an id").to_owned();
    let delivery = node.get(&format!("/2024-03/one/deliveries/{delivery}")).await;
    assert!(delivery.ok()["delivery"]["curl"].as_str().expect("a line").contains("'authorization: ***'"));
    for answer in [made, tested, delivery, node.get(&one).await, node.get(HOOKS).await] {
        assert!(!answer.text.contains("s3cret") && !answer.text.contains("aG9va"), "{}", answer.text);
    }
    // It is encrypted at rest, and goes with its subscription.
    let owner: [u8; 12] = hex::decode(&id).expect("hex").try_into().expect("12 bytes");
    let kept = |node: &Node| node.engine.store.secret::<EndpointAuth>(&owner, Slot::EndpointAuth).expect("read");
    assert!(kept(&node).is_some());
    node.call("DELETE", &one, None).await.ok();
    assert!(kept(&node).is_none());
    node.stop().await;
}

#[actix::test]
async fn a_patch_changes_it_leaves_it_or_takes_it_away() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let made = node.post(HOOKS, json!({"address": receiver.address, "topic": ["*"], "auth": basic("one")})).await.ok();
    let one = format!("{HOOKS}/{}", made["subscription"]["subscriptionId"].as_str().expect("an id"));
    let patch = |body: Value| node.call("PATCH", &one, Some(body));
    let mut count = 0;
    let mut sends = async || {
        node.post(&format!("{one}/test"), json!({})).await.ok();
        count += 1;
        receiver.wait(count).await[count - 1].header("authorization").to_owned()
    };
    assert_eq!(patch(json!({"description": "d"})).await.ok()["subscription"]["auth"]["password"], "***");
    assert_eq!(sends().await, "Basic aG9vazpvbmU=");
    // What was shown can be sent back.
    patch(json!({"auth": {"type": "basic", "username": "hook2", "password": "***"}})).await.ok();
    assert_eq!(sends().await, "Basic aG9vazI6b25l");
    let token = patch(json!({"auth": {"type": "bearer", "token": "t0ken"}})).await;
    assert_eq!(token.ok()["subscription"]["auth"], json!({"type": "bearer", "token": "***"}));
    assert_eq!(sends().await, "Bearer t0ken");
    patch(json!({"auth": basic("***")})).await.refused(422, "invalid");
    // Another host does not get what was given for this one; another path of it does.
    let elsewhere = receiver.address.replace("127.0.0.1", "127.0.0.2");
    let message = patch(json!({"address": elsewhere})).await.refused(422, "invalid");
    assert!(message.starts_with("auth: "), "{message}");
    patch(json!({"address": elsewhere, "auth": {"type": "bearer", "token": "***"}})).await.refused(422, "invalid");
    patch(json!({"address": format!("{}/other", receiver.address)})).await.ok();
    assert_eq!(sends().await, "Bearer t0ken");
    assert!(patch(json!({"auth": null})).await.ok()["subscription"].get("auth").is_none());
    assert_eq!(sends().await, "");
    patch(json!({"address": elsewhere})).await.ok();
    node.stop().await;
}

#[actix::test]
async fn what_cannot_be_sent_is_refused_by_name() {
    let node = Node::start().await;
    let with = |auth: Value| json!({"address": "http://127.0.0.1:9/", "topic": ["*"], "auth": auth});
    for (auth, code, said) in [
        (json!({"type": "basic", "username": "a:b", "password": "x"}), "invalid", "auth.username"),
        (json!({"type": "basic", "username": "a", "password": "x\ny"}), "invalid", "auth.password"),
        (json!({"type": "basic", "username": "a"}), "invalid", "password"),
        (json!({"type": "bearer", "token": "a b"}), "invalid", "auth.token"),
        (json!({"type": "bearer", "token": ""}), "invalid", "auth.token"),
        (json!({"type": "bearer", "token": "x".repeat(5000)}), "invalid", "auth.token"),
        (json!({"type": "bearer", "token": "***"}), "invalid", "auth"),
        (json!({"type": "digest"}), "invalid", "auth"),
        (json!("Bearer x"), "invalid", "auth"),
    ] {
        let message = node.post(HOOKS, with(auth.clone())).await.refused(422, code);
        assert!(message.contains(said), "{auth}: {message}");
    }
    let mut both = with(json!({"type": "bearer", "token": "x"}));
    both["headers"] = json!({"aUTHORIZATION": "Bearer y"});
    assert!(node.post(HOOKS, both).await.refused(422, "invalid").contains("Authorization"));
    let inside = json!({"address": "https://user:pass@example.com/", "topic": ["*"]});
    assert!(node.post(HOOKS, inside).await.refused(422, "address-forbidden").contains("`auth`"));
    let made = node.post(HOOKS, with(json!({"type": "bearer", "token": "x"}))).await.ok();
    let one = format!("{HOOKS}/{}", made["subscription"]["subscriptionId"].as_str().expect("an id"));
    let patch = json!({"headers": {"Authorization": "Bearer y"}});
    node.call("PATCH", &one, Some(patch.clone())).await.refused(422, "invalid");
    let mut swap = patch;
    swap["auth"] = Value::Null;
    node.call("PATCH", &one, Some(swap)).await.ok();
    node.stop().await;
}
