//! What every call can rely on: JSON errors, keys, paging, idempotency, the document.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tidemill::api;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::api::{KEY, Node};

const USERS: &str = "/2024-03/one/users";

#[actix::test]
async fn every_error_is_json_with_a_code() {
    let node = Node::start().await;
    node.get("/nothing/here").await.refused(404, "route-not-found");
    node.get("/2022-01/one/users").await.refused(404, "route-not-found");
    let answer = node.call("PUT", USERS, None).await;
    answer.refused(405, "method-not-allowed");
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET") && allow.contains("POST")));
    node.call("DELETE", "/2024-03/one/webhooks", None).await.refused(405, "method-not-allowed");
    let bearer = format!("bEaReR {KEY}");
    let send = |body: &str| {
        let (node, bearer, body) = (&node, bearer.as_str(), body.to_owned());
        async move { node.send("POST", USERS, &[("authorization", bearer)], &body).await }
    };
    let message = send("{\"username\":\n }").await.refused(400, "malformed");
    assert!(message.contains("line 2"), "{message}");
    send(&"x".repeat(65_537)).await.refused(413, "too-large");
    send(&"x".repeat(3_000_000)).await.refused(413, "too-large");
    let message = send(r#"{"username":"a","fulName":"A"}"#).await.refused(422, "unknown-field");
    assert_eq!(message, "unknown field `fulName` (did you mean `fullName`?)");
    let message = send(r#"{"username":7}"#).await.refused(422, "invalid");
    assert!(message.starts_with("`username`: invalid type"), "{message}");
    send("\"text\"").await.refused(422, "invalid");
    send("").await.refused(422, "invalid");
    node.stop().await;
}

#[actix::test]
async fn a_chunked_body_has_the_same_limit_and_a_slow_one_a_deadline() {
    let node = Node::start().await;
    let address = node.url("").trim_start_matches("http://").to_owned();
    let head = format!("POST {USERS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n");
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("connected");
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.expect("sent");
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    for _ in 0..8 {
        stream.write_all(chunk.as_bytes()).await.expect("sent");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("sent");
    assert!(first_line(&mut stream).await.contains("413"));
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("connected");
    stream.write_all(format!("{head}content-length: 100\r\n\r\n{{").as_bytes()).await.expect("sent");
    assert!(first_line(&mut stream).await.contains("400"), "the body never came in full");
    node.stop().await;
}

async fn first_line(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = [0; 64];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut bytes)).await;
    let read = read.expect("in time").expect("an answer");
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[actix::test]
async fn paths_are_forgiving_where_the_contract_says_so() {
    let node = Node::start().await;
    let made = node.post("/2023-12/users/", json!({"username": "ann"})).await.ok();
    let id = made["userId"].as_str().expect("an id").to_owned();
    for path in [format!("{USERS}/{id}/"), format!("/2023-12/users/{id}"), format!("{USERS}/ann")] {
        assert_eq!(node.get(&path).await.ok()["user"]["userId"], id.as_str(), "{path}");
    }
    let list = node.get("/2024-03/one/webhooks?connectionId=None&userId=&other=1").await.ok();
    assert_eq!(list, json!({"subscriptions": []}));
    assert_eq!(node.send("HEAD", "/health/ready", &[], "").await.status, 200);
    node.stop().await;
}

#[actix::test]
async fn lists_are_paged_newest_first() {
    let node = Node::start().await;
    for n in 0..5 {
        node.post(USERS, json!({"username": format!("user {n}")})).await.ok();
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    for _ in 0..9 {
        let page = node.get(&format!("{USERS}?limit=2{cursor}")).await.ok();
        let users = page["users"].as_array().expect("a list");
        assert!(users.len() <= 2);
        names.extend(users.iter().map(|u| u["username"].as_str().expect("a name").to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["user 4", "user 3", "user 2", "user 1", "user 0"]);
    for wrong in ["limit=0", "limit=x", "cursor=%21", "cursor=abcd"] {
        node.get(&format!("{USERS}?{wrong}")).await.refused(400, "malformed");
    }
    node.stop().await;
}

#[actix::test]
async fn the_same_idempotency_key_gives_the_first_answer_again() {
    let node = Node::start().await;
    let bearer = format!("Bearer {KEY}");
    let send = |key: &str, body: &str| {
        let (node, bearer, key, body) = (&node, bearer.as_str(), key.to_owned(), body.to_owned());
        async move { node.send("POST", USERS, &[("authorization", bearer), ("idempotency-key", &key)], &body).await }
    };
    let body = r#"{"username":"once"}"#;
    let first = send("k1", body).await;
    let again = send("k1", body).await;
    assert_eq!(first.ok(), again.ok());
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), (None, Some("true")));
    send("k1", r#"{"username":"other"}"#).await.refused(422, "idempotency-mismatch");
    send("k2", body).await.refused(409, "conflict");
    send(&"k".repeat(256), body).await.refused(400, "malformed");
    // Many at once: each is the one answer, or is told to wait.
    let body = r#"{"username":"at once"}"#;
    let all = futures_util::future::join_all((0..8).map(|_| send("k3", body))).await;
    let made: BTreeSet<_> = all.iter().filter(|a| a.status == 200).map(|a| a.text.clone()).collect();
    assert_eq!(made.len(), 1, "{all:?}");
    for waits in all.iter().filter(|a| a.status != 200) {
        waits.refused(409, "in-progress");
        assert!(waits.header("retry-after").is_some());
    }
    node.stop().await;
}

#[actix::test]
async fn the_document_lists_exactly_what_is_served() {
    let node = Node::start().await;
    let document = node.send("GET", "/openapi.json", &[], "").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(|m| (m.to_uppercase(), path.clone()))
        })
        .collect();
    let text = |route: &api::Route| route.method.as_ref().map_or("POST".to_owned(), ToString::to_string);
    let table: BTreeSet<_> = api::table().iter().map(|r| (text(r), r.path.to_owned())).collect();
    assert_eq!(documented, table);
    assert_eq!(api::table().len(), table.len(), "a route stands twice in the table");
    // Every documented route is there: without a key it asks for one, or answers; it is never unknown.
    for (method, path) in &documented {
        let path = path.replace("{version}", "2024-03").replace(['{', '}'], "");
        let answer = node.send(method, &path, &[], "").await;
        let code = serde_json::from_str::<serde_json::Value>(&answer.text).unwrap_or_default()["code"].clone();
        assert!(code != "route-not-found" && code != "method-not-allowed", "{method} {path}: {}", answer.text);
    }
    // And what is not documented is not served.
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for path in documented.iter().map(|(_, path)| path).collect::<BTreeSet<_>>() {
            if documented.contains(&(method.to_owned(), path.clone())) || path.starts_with("/in/") {
                continue;
            }
            let real = path.replace("{version}", "2024-03").replace(['{', '}'], "");
            node.send(method, &real, &[], "").await.refused(405, "method-not-allowed");
        }
    }
    references_resolve(&document, &document);
    let page = node.send("GET", "/docs", &[], "").await;
    assert!(page.status == 200 && page.header("content-type") == Some("text/html; charset=utf-8"));
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "the page needs no other host");
    node.stop().await;
}

fn references_resolve(document: &serde_json::Value, at: &serde_json::Value) {
    match at {
        serde_json::Value::Object(map) => {
            if let Some(to) = map.get("$ref").and_then(|r| r.as_str()) {
                assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to} leads nowhere");
            }
            map.values().for_each(|value| references_resolve(document, value));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| references_resolve(document, value)),
        _ => {}
    }
}

#[actix::test]
async fn health_metrics_and_key_pages_need_no_key() {
    let node = Node::start().await;
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(node.send("GET", path, &[], "").await.ok()["status"], "ok");
    }
    let metrics = node.send("GET", "/metrics", &[], "").await;
    assert!(metrics.text.contains("tidemill_requests_total{"), "{}", metrics.text);
    let pem = node.send("GET", "/security/public_key.pem", &[], "").await;
    assert_eq!(pem.text.matches("BEGIN PUBLIC KEY").count(), 1, "the RSA key alone");
    let jwks = node.send("GET", "/.well-known/jwks.json", &[], "").await.ok();
    assert_eq!(jwks["keys"].as_array().map(Vec::len), Some(2));
    node.state.health.set_stuck(vec!["router".into()]);
    assert_eq!(node.send("GET", "/health/live", &[], "").await.status, 503);
    node.state.health.set_stuck(Vec::new());
    node.state.health.set_phase(api::Phase::Draining);
    let answer = node.send("GET", "/health/ready", &[], "").await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("draining")));
    node.stop().await;
}

#[actix::test]
async fn the_public_address_serves_only_its_own_paths() {
    let node = Node::start_with(&[], api::configure_public).await;
    assert_eq!(node.send("GET", "/security/public_key.pem", &[], "").await.status, 200);
    for path in [USERS, "/metrics", "/health/live", "/docs", "/workspaces"] {
        node.get(path).await.refused(404, "route-not-found");
    }
    node.stop().await;
    let node = Node::start_with(&[], api::configure_ops).await;
    assert_eq!(node.send("GET", "/metrics", &[], "").await.status, 200);
    node.get(USERS).await.refused(404, "route-not-found");
    node.stop().await;
}
