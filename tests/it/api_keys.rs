//! Keys, scopes, workspaces, and what the first start makes.

use serde_json::{Value, json};
use tidemill::api::bootstrap;
use tidemill::app::{self, Engine};
use tidemill::telemetry::Metrics;

use crate::support::api::{KEY, Node, OPERATOR, Shown, config};

const KEYS: &str = "/2024-03/one/keys";
const USERS: &str = "/2024-03/one/users";

async fn key(node: &Node, body: Value) -> (String, String) {
    let made = node.post(KEYS, body).await.ok();
    let text = |name: &str| made["key"][name].as_str().expect(name).to_owned();
    (text("keyId"), text("apiKey"))
}

#[actix::test]
async fn a_key_does_what_its_scopes_say_until_it_is_revoked() {
    let node = Node::start().await;
    let (id, reader) = key(&node, json!({"name": "reader", "scopes": ["read"]})).await;
    let (_, writer) = key(&node, json!({"name": "writer", "scopes": ["write"]})).await;
    node.call_as(&reader, "GET", USERS, None).await.ok();
    let user = json!({"username": "u"});
    let message = node.call_as(&reader, "POST", USERS, Some(user.clone())).await.refused(403, "forbidden");
    assert!(message.contains("`write`"), "{message}");
    node.call_as(&writer, "POST", USERS, Some(user)).await.ok();
    node.call_as(&writer, "GET", KEYS, None).await.refused(403, "forbidden");
    let listed = node.get(KEYS).await.ok();
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(3));
    assert!(!listed.to_string().contains(&reader) && !listed.to_string().contains("apiKey"));
    let gone = node.call("DELETE", &format!("{KEYS}/{id}"), None).await.ok();
    assert_eq!(gone, json!({"deleted": true, "keyId": id}));
    node.call_as(&reader, "GET", USERS, None).await.refused(401, "unauthorized");
    node.call("DELETE", &format!("{KEYS}/{id}"), None).await.refused(404, "key-not-found");
    node.stop().await;
}

#[actix::test]
async fn keys_that_cannot_be_are_refused() {
    let node = Node::start().await;
    for (body, field) in [
        (json!({"name": "", "scopes": ["read"]}), "name"),
        (json!({"name": "n", "scopes": []}), "scopes"),
        (json!({"name": "n", "scopes": ["all"]}), "scopes"),
        (json!({"name": "n", "scopes": ["hooks"]}), "userId"),
        (json!({"name": "n", "scopes": ["hooks", "read"]}), "scopes"),
        (json!({"name": "n", "scopes": ["read"], "expiresAt": "2001-01-01T00:00:00Z"}), "expiresAt"),
        (json!({"name": "n", "scopes": ["read"], "expiresAt": "soon"}), "expiresAt"),
    ] {
        let message = node.post(KEYS, body.clone()).await.refused(422, "invalid");
        assert!(message.contains(field), "{body}: {message}");
    }
    for header in [None, Some("Basic abc"), Some("Bearer"), Some("Bearer wrong-key")] {
        let headers: Vec<_> = header.map(|value| ("authorization", value)).into_iter().collect();
        let answer = node.send("GET", USERS, &headers, "").await;
        answer.refused(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    node.stop().await;
}

#[actix::test]
async fn a_hooks_key_opens_nothing_else() {
    let node = Node::start().await;
    node.post(USERS, json!({"username": "u"})).await.ok();
    let (_, hooks) = key(&node, json!({"name": "albato", "scopes": ["hooks"], "userId": "u"})).await;
    for path in [USERS, KEYS, "/2024-03/one/webhooks"] {
        node.call_as(&hooks, "GET", path, None).await.refused(403, "forbidden");
    }
    node.call("DELETE", &format!("{USERS}/u"), None).await.ok();
    node.call_as(&hooks, "GET", USERS, None).await.refused(401, "unauthorized");
    node.stop().await;
}

#[actix::test]
async fn workspaces_are_apart_and_their_signing_keys_too() {
    let node = Node::start().await;
    node.call("POST", "/workspaces", Some(json!({"name": "two"}))).await.refused(401, "unauthorized");
    let made = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let id = made["workspace"]["workspaceId"].as_str().expect("an id").to_owned();
    let theirs = made["key"]["apiKey"].as_str().expect("a key").to_owned();
    node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.refused(409, "conflict");
    let user = node.post(USERS, json!({"username": "u"})).await.ok()["userId"].as_str().expect("an id").to_owned();
    let their_user = node.call_as(&theirs, "POST", USERS, Some(json!({"username": "u"}))).await.ok();
    assert_ne!(their_user["userId"], user.as_str());
    let path = format!("{USERS}/{user}");
    for method in ["GET", "DELETE"] {
        node.call_as(&theirs, method, &path, None).await.refused(404, "user-not-found");
    }
    node.call_as(&theirs, "PUT", &path, Some(json!({"fullName": "x"}))).await.refused(404, "user-not-found");
    let ours = node.send("GET", "/security/public_key.pem", &[], "").await.text;
    let other = node.send("GET", &format!("/security/{id}/public_key.pem"), &[], "").await.text;
    assert!(other.contains("BEGIN PUBLIC KEY") && other != ours);
    let unknown = node.send("GET", "/security/000000000000000000000000/jwks.json", &[], "").await;
    unknown.refused(404, "workspace-not-found");
    node.stop().await;
}

#[actix::test]
async fn a_deleted_workspace_takes_everything_with_it() {
    let node = Node::start().await;
    let made = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let path = format!("/workspaces/{}", made["workspace"]["workspaceId"].as_str().expect("an id"));
    let theirs = made["key"]["apiKey"].as_str().expect("a key");
    node.call_as(theirs, "POST", USERS, Some(json!({"username": "u"}))).await.ok();
    let hook = json!({"address": "http://127.0.0.1:9/", "topic": ["*"]});
    node.call_as(theirs, "POST", "/2024-03/one/webhooks", Some(hook)).await.ok();
    assert_eq!(node.call_as(OPERATOR, "DELETE", &path, None).await.ok()["deleted"], true);
    node.call_as(theirs, "GET", USERS, None).await.refused(401, "unauthorized");
    node.call_as(OPERATOR, "GET", &path, None).await.refused(404, "workspace-not-found");
    let left = node.call_as(OPERATOR, "GET", "/workspaces", None).await.ok();
    assert_eq!(left["workspaces"].as_array().map(Vec::len), Some(1));
    let default = left["workspaces"][0]["workspaceId"].as_str().expect("an id");
    node.call_as(OPERATOR, "DELETE", &format!("/workspaces/{default}"), None).await.refused(409, "conflict");
    node.stop().await;
}

#[actix::test]
async fn the_first_start_makes_one_key_and_shows_it_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = config(folder.path(), &[("TIDEMILL_API_KEY", "")]);
    let start = || Engine::start(none.clone(), app::wall_clock(), Metrics::new().expect("metrics")).expect("started");
    let (shown, engine) = (Shown::default(), start());
    let options = app::api_options(&none);
    for _ in 0..2 {
        bootstrap::run(&engine.store, &engine.clock, &options, &shown).await.expect("made");
    }
    let keys = shown.0.lock().expect("unpoisoned").clone();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].starts_with("tmk_"), "{keys:?}");
    // A key of the configuration works as long as the configuration has it.
    let digest = |text: &str| {
        let mut out = [0; 32];
        out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref());
        out
    };
    let configured = app::api_options(&config(folder.path(), &[]));
    bootstrap::run(&engine.store, &engine.clock, &configured, &shown).await.expect("made");
    assert!(engine.store.api_key_by_digest(&digest(KEY)).expect("read").is_some());
    bootstrap::run(&engine.store, &engine.clock, &options, &shown).await.expect("made");
    assert!(engine.store.api_key_by_digest(&digest(KEY)).expect("read").is_none());
    assert!(engine.store.api_key_by_digest(&digest(&keys[0])).expect("read").is_some());
    assert_eq!(shown.0.lock().expect("unpoisoned").len(), 1);
    engine.drain(std::time::Duration::from_secs(5)).await.expect("drained");
}
