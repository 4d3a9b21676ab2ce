//! Subscriptions: made, shown, changed, switched, tested.

use serde_json::{Value, json};

use crate::support::api::{KEY, Node, OPERATOR};
use crate::support::server::{Act, Server, answer};

const HOOKS: &str = "/2024-03/one/webhooks";
const ADDRESS: &str = "http://127.0.0.1:9/hook";

async fn made(node: &Node, body: Value) -> Value {
    node.post(HOOKS, body).await.ok()["subscription"].clone()
}

fn path(of: &Value) -> String {
    format!("{HOOKS}/{}", of["subscriptionId"].as_str().expect("an id"))
}

#[actix::test]
async fn a_subscription_is_made_as_alloys_clients_make_it() {
    let node = Node::start().await;
    let body = json!({"address": ADDRESS, "topic": ["crm/contacts", "commerce/*"]});
    let answer = node.call("POST", "/2023-12/one/webhooks", Some(body.clone())).await.ok();
    let made = &answer["subscription"];
    assert_eq!(
        (&made["address"], &made["topic"], &made["isEnabled"]),
        (&body["address"], &body["topic"], &json!(true))
    );
    assert_eq!(made["subscriptionId"].as_str().map(str::len), Some(24));
    assert_eq!((made["apiVersion"].as_str(), made["status"].as_str()), (Some("2023-12"), Some("active")));
    assert!(made["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
    assert_eq!(made["queue"], json!({"pending": 0, "oldestPendingAt": null, "dead": 0}));
    assert_eq!(made["signing"], json!({"rsa": true, "hmac": true, "ed25519": true}));
    let shown = node.get(&path(made)).await.ok();
    assert!(shown["subscription"].get("secret").is_none(), "a secret is shown once");
    assert_eq!(node.get(HOOKS).await.ok()["subscriptions"], json!([shown["subscription"]]));
    let first = made["subscriptionId"].as_str().expect("an id");
    let again = json!({"address": ADDRESS, "topic": ["commerce/*", "crm/contacts"]});
    let message = node.post(HOOKS, again).await.refused(409, "conflict");
    assert!(message.contains(first), "{message}");
    assert_eq!(node.call("DELETE", &path(made), None).await.ok(), json!({"deleted": true, "subscriptionId": first}));
    node.get(&path(made)).await.refused(404, "subscription-not-found");
    node.post(HOOKS, body).await.ok();
    node.stop().await;
}

#[actix::test]
async fn what_cannot_be_is_refused_by_name() {
    let node = Node::start().await;
    let with = |name: &str, value: Value| {
        let mut body = json!({"address": ADDRESS, "topic": ["*"]});
        body[name] = value;
        body
    };
    for (body, code, said) in [
        (with("topic", json!(["crm/contact"])), "unknown-topic", "`crm/contacts`"),
        (with("topic", json!([])), "invalid", "topic"),
        (with("topic", json!("crm/*")), "invalid", "`topic`"),
        (with("address", json!("nowhere")), "invalid", "address"),
        (with("address", json!("ftp://example.com/")), "invalid", "address"),
        (with("address", json!("https://10.0.0.1/")), "address-forbidden", "address"),
        (with("address", json!("https://0x0a.1/")), "address-forbidden", "address"),
        (with("address", json!("https://[::ffff:10.0.0.1]/")), "address-forbidden", "address"),
        (with("address", json!("https://exa mple.com/")), "invalid", "address"),
        (with("filter", json!("payload.x == 1")), "invalid", "filter: there is no `payload`"),
        (with("filter", json!("topic ==")), "invalid", "filter: it is not a CEL expression"),
        (with("ordering", json!("all")), "invalid", "ordering"),
        (with("coalesce", json!("yes")), "invalid", "coalesce"),
        (with("ratePerSecond", json!(0)), "invalid", "ratePerSecond"),
        (with("ratePerSecond", json!(10_001)), "invalid", "ratePerSecond"),
        (with("timeoutSeconds", json!(61)), "invalid", "timeoutSeconds"),
        (with("maxInFlight", json!(0)), "invalid", "maxInFlight"),
        (with("retrySchedule", json!([])), "invalid", "retrySchedule"),
        (with("include", json!(["everything"])), "invalid", "include"),
        (with("updateType", json!(["a b"])), "invalid", "updateType"),
        (with("expiresAt", json!("2001-01-01T00:00:00Z")), "invalid", "expiresAt"),
        (with("signing", json!({"rsa": false, "hmac": false, "ed25519": false})), "invalid", "signing"),
        (with("signing", json!({"rsaa": true})), "unknown-field", "rsaa"),
        (with("headers", json!({"X-Alloy-Topic": "x"})), "invalid", "X-Alloy-Topic"),
        (with("headers", json!({"a b": "x"})), "invalid", "headers"),
        (with("headers", json!({"a": "x\ny"})), "invalid", "headers"),
        (with("topics", json!(["*"])), "unknown-field", "did you mean `topic`"),
    ] {
        let message = node.post(HOOKS, body.clone()).await.refused(422, code);
        assert!(message.contains(said), "{body}: {message}");
    }
    node.post(HOOKS, with("userId", json!("nobody"))).await.refused(404, "user-not-found");
    node.post(HOOKS, with("connectionId", json!("00".repeat(12)))).await.refused(404, "connection-not-found");
    assert_eq!(node.get(HOOKS).await.ok()["subscriptions"], json!([]));
    node.stop().await;
}

#[actix::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let node = Node::start().await;
    let body = json!({
        "address": ADDRESS, "topic": ["*"], "description": "d", "ordering": "record", "coalesce": true,
        "headers": {"Authorization": "Bearer s3cret", "X-Team": "a"}, "timeoutSeconds": 5, "updateType": ["created"],
    });
    let made = made(&node, body).await;
    assert_eq!(made["headers"], json!({"Authorization": "***", "X-Team": "***"}));
    assert_eq!((made["ordering"].as_str(), made["coalesce"].as_bool()), (Some("record"), Some(true)));
    let patch = json!({
        "description": null, "isEnabled": false, "ratePerSecond": 1.5, "ordering": null, "include": ["previous", "changedFields"], "updateType": null,
        "headers": {"X-Team": null, "Authorization": "***", "X-New": "n"}, "signing": {"rsa": false},
    });
    let changed = node.call("PATCH", &path(&made), Some(patch)).await.ok()["subscription"].clone();
    assert_eq!((changed["description"].as_str(), changed["isEnabled"].as_bool()), (Some(""), Some(false)));
    assert_eq!((changed["status"].as_str(), changed["timeoutSeconds"].as_u64()), (Some("paused"), Some(5)));
    assert_eq!((changed["ordering"].as_str(), changed["ratePerSecond"].as_f64()), (Some("none"), Some(1.5)));
    assert_eq!(changed["include"], json!(["changedFields", "previous"]));
    assert_eq!(changed["headers"], json!({"Authorization": "***", "X-New": "***"}));
    assert_eq!(changed["signing"], json!({"rsa": false, "hmac": true, "ed25519": true}));
    assert!(changed.get("updateType").is_none());
    node.call("PATCH", &path(&made), Some(json!({"status": "active"}))).await.refused(422, "unknown-field");
    node.call("PATCH", &path(&made), Some(json!({"topic": ["nothing/*"]}))).await.refused(422, "unknown-topic");
    let enabled = node.post(&format!("{}/enable", path(&made)), json!({"backlog": "skip"})).await.ok();
    assert_eq!(enabled["subscription"]["status"], "active");
    node.post(&format!("{}/enable", path(&made)), json!({"backlog": "all"})).await.refused(422, "invalid");
    node.stop().await;
}

#[actix::test]
async fn a_test_sends_a_signed_ping_and_shows_the_way() {
    let node = Node::start().await;
    let receiver = Server::start(|_| Act::Answer(answer("202 Accepted", "", "thanks"))).await;
    let address = format!("http://{}/hook", receiver.address);
    let made = made(&node, json!({"address": address, "topic": ["*"]})).await;
    let test = format!("{}/test", path(&made));
    let shown = node.post(&test, json!({})).await.ok()["test"].clone();
    assert_eq!((shown["accepted"].as_bool(), shown["status"].as_u64()), (Some(true), Some(202)), "{shown}");
    assert_eq!(shown["addresses"], json!(["127.0.0.1"]));
    assert_eq!(shown["answer"], "thanks");
    assert!(shown["headers"]["webhook-signature"].as_str().is_some_and(|s| s.contains("v1,") && s.contains("v1a,")));
    let got = &receiver.got()[0];
    assert_eq!(got.header("x-alloy-topic"), Some("tidemill/ping"));
    let body: Value = serde_json::from_slice(&got.body).expect("JSON");
    assert_eq!(
        (&body["updateType"], &body["category"], &body["app"]),
        (&json!("ping"), &json!("tidemill"), &json!(null))
    );
    let mut headers = hyper::header::HeaderMap::new();
    for (name, value) in &got.headers {
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.insert(name, value.parse().expect("a value"));
    }
    let theirs = standardwebhooks::Webhook::new(made["secret"].as_str().expect("a secret")).expect("a secret");
    theirs.verify(&got.body, &headers).expect("the official library believes it");
    node.stop().await;
}

#[actix::test]
async fn an_address_that_means_this_machine_is_refused_at_once() {
    let node = Node::start_with(&[("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[]")], tidemill::api::configure).await;
    // Other names pass here, since only the DNS can tell.
    let body = json!({"address": "https://localhost:9/", "topic": ["*"]});
    node.post(HOOKS, body).await.refused(422, "address-forbidden");
    node.stop().await;
}

#[actix::test]
async fn a_rotated_secret_is_new_and_the_old_one_signs_for_a_while() {
    let node = Node::start().await;
    let receiver = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let address = format!("http://{}/hook", receiver.address);
    let made = made(&node, json!({"address": address, "topic": ["*"], "signing": {"ed25519": false}})).await;
    let rotate = format!("{}/secret/rotate", path(&made));
    let rotated = node.post(&rotate, json!({"overlapSeconds": 60})).await.ok()["subscription"].clone();
    assert_ne!(rotated["secret"], made["secret"]);
    let signatures = |shown: Value| {
        let all = shown["test"]["headers"]["webhook-signature"].as_str().expect("signed").to_owned();
        all.split(' ').count()
    };
    let test = format!("{}/test", path(&made));
    assert_eq!(signatures(node.post(&test, json!({})).await.ok()), 2);
    node.post(&rotate, json!({"overlapSeconds": 0})).await.ok();
    assert_eq!(signatures(node.post(&test, json!({})).await.ok()), 1);
    node.post(&rotate, json!({"overlapSeconds": 99_999_999})).await.refused(422, "invalid");
    node.stop().await;
}

#[actix::test]
async fn another_workspace_sees_none_of_it() {
    let node = Node::start().await;
    let made = made(&node, json!({"address": ADDRESS, "topic": ["*"]})).await;
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = two["key"]["apiKey"].as_str().expect("a key");
    for (method, end) in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/enable")] {
        let path = format!("{}{end}", path(&made));
        let answer = node.call_as(theirs, method, &path, Some(json!({}))).await;
        answer.refused(404, "subscription-not-found");
    }
    // The same address and topics are another's business there.
    node.call_as(theirs, "POST", HOOKS, Some(json!({"address": ADDRESS, "topic": ["*"]}))).await.ok();
    node.call_as(KEY, "GET", &path(&made), None).await.ok();
    node.stop().await;
}
