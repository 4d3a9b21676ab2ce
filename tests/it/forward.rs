//! Calls passed through to an app: with the connection's credentials, to its base URI alone, whatever the app answers.

use serde_json::{Value, json};
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Handle, Options};

use crate::support::api::{Node, OPERATOR};
use crate::support::server::{self, Server, answer};

const ONE: &str = "/2024-03/one";

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// A connection to an app at this address.
async fn connect(node: &Node, base: &str, key: &str) -> String {
    node.post(&at("users"), json!({"username": "ann"})).await;
    let parameters = json!({"baseUri": base});
    let made = node.post(&at("integrations"), json!({"connector": "sandbox", "parameters": parameters})).await.ok();
    let wish = json!({"userId": "ann", "integrationId": made["integration"]["integrationId"],
        "credentials": {"apiKey": key}, "collections": ["users"], "pollIntervalSeconds": 604_800,
        "fullScanIntervalSeconds": 604_800});
    text(&node.post(&at("connections"), wish).await.ok()["connection"]["connectionId"])
}

async fn sandbox() -> Handle {
    sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port")
}

#[actix::test]
async fn a_call_goes_through_with_the_connections_credentials_and_any_status_is_an_answer() {
    let (node, app) = (Node::start().await, sandbox().await);
    let id = connect(&node, &app.url(), &app.key(1)).await;
    let path = at(&format!("forward?connectionId={id}"));
    let asked = json!({"method": "get", "endpoint": "/api/contacts", "query": {"page_size": 2}});
    let answer = node.post(&path, asked).await;
    let shown = answer.ok();
    assert_eq!((&shown["status"], shown["body"]["data"].as_array().map(Vec::len)), (&json!(200), Some(2)), "{shown}");
    assert_eq!(shown["headers"]["content-type"], "application/json");
    assert!(!answer.text.contains(&app.key(1)), "no credential comes out");
    let made = json!({"method": "POST", "endpoint": "api/contacts", "body": {"first_name": "Zoë", "amount": 1.50}});
    let made = node.post(&path, made).await;
    assert!((200..300).contains(&made.ok()["status"].as_u64().expect("a status")), "{}", made.text);
    let contact = text(&made.ok()["body"]["id"]);
    let one = format!("/api/contacts/{contact}");
    let changed = json!({"method": "PATCH", "endpoint": one, "body": {"last_name": "Ny"}});
    assert_eq!(node.post(&path, changed).await.ok()["body"]["last_name"], "Ny");
    let gone = node.post(&path, json!({"method": "DELETE", "endpoint": one})).await.ok();
    assert!((200..300).contains(&gone["status"].as_u64().expect("a status")), "{gone}");
    let missing = node.post(&path, json!({"method": "GET", "endpoint": one})).await.ok();
    assert_eq!(missing["status"], 404, "the app's refusal is data: {missing}");
    let metrics = node.send("GET", "/metrics", &[], "").await.text;
    assert!(metrics.contains("tidemill_forwards_total{connector=\"sandbox\",outcome=\"answered\"} 5"), "{metrics}");
    node.stop().await;
}

#[actix::test]
async fn what_leaves_the_base_or_touches_the_credentials_is_refused() {
    let (node, app) = (Node::start().await, sandbox().await);
    let id = connect(&node, &app.url(), &app.key(1)).await;
    let path = at(&format!("forward?connectionId={id}"));
    for endpoint in
        ["https://evil.example/", "//evil.example/", "/api/../control/records", "/api/%2e%2e/control", "/a\\b", ""]
    {
        let refused = node.post(&path, json!({"method": "GET", "endpoint": endpoint})).await;
        assert!(refused.refused(422, "invalid").starts_with("endpoint"), "{endpoint}: {}", refused.text);
    }
    for header in ["Authorization", "Host", "Connection", "Cookie", "X-API-Key", "x-api-key", "a b"] {
        let asked = json!({"method": "GET", "endpoint": "/api/me", "extraHeaders": {header: "v"}});
        assert!(node.post(&path, asked).await.refused(422, "invalid").contains("extraHeaders"), "{header}");
    }
    for (asked, code) in [
        (json!({"method": "TRACE", "endpoint": "/api/me"}), "invalid"),
        (json!({"method": "GET", "endpoint": "/api/me", "query": {"a": {}}}), "invalid"),
        (json!({"method": "GET", "endpoint": "/api/me", "headers": {}}), "unknown-field"),
        (json!({"method": "GET"}), "invalid"),
    ] {
        node.post(&path, asked).await.refused(422, code);
    }
    let me = json!({"method": "GET", "endpoint": "/api/me"});
    node.post(&at("forward"), me.clone()).await.refused(400, "malformed");
    let nowhere = at(&format!("forward?connectionId={}", "00".repeat(12)));
    node.post(&nowhere, me.clone()).await.refused(404, "connection-not-found");
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let two = text(&two["key"]["apiKey"]);
    node.call_as(&two, "POST", &path, Some(me.clone())).await.refused(404, "connection-not-found");
    let read = text(&node.post(&at("keys"), json!({"name": "r", "scopes": ["read"]})).await.ok()["key"]["apiKey"]);
    node.call_as(&read, "POST", &path, Some(me.clone())).await.refused(403, "forbidden");
    let one = at(&format!("connections/{id}"));
    node.call("PATCH", &one, Some(json!({"status": "paused"}))).await.ok();
    assert!(node.post(&path, me.clone()).await.refused(409, "conflict").contains("paused"));
    node.call("PATCH", &one, Some(json!({"status": "active"}))).await.ok();
    assert_eq!(node.post(&path, me).await.ok()["body"]["account_id"], "acc_1");
    node.stop().await;
}

#[actix::test]
async fn an_answer_comes_as_it_is_without_cookies_and_never_with_the_key() {
    const KEY: &str = "a-key-of-the-app-0123456789";
    let node = Node::start().await;
    let app = Server::start(|got| {
        let path = got.line.split(' ').nth(1).unwrap_or_default().to_owned();
        let key = got.header("x-api-key").unwrap_or_default().to_owned();
        let trace = got.header("x-trace").unwrap_or_default().to_owned();
        let json = "content-type: application/json\r\n";
        server::Act::Answer(match path.as_str() {
            "/exact" => answer("200 OK", json, r#"{"total": 4.950, "big": 12345678901234567890}"#),
            "/cookie" => {
                answer("200 OK", "set-cookie: session=1\r\nx-rate-left: 7\r\nlink: <a>\r\nlink: <b>\r\n", "plain")
            }
            "/echo" => answer("200 OK", "content-type: text/plain\r\n", &format!("you sent {key}")),
            "/echo-header" => answer("200 OK", &format!("x-you-sent: {key}\r\n"), ""),
            "/trace" => answer("200 OK", "content-type: text/plain\r\n", &format!("traced as {trace}")),
            "/refused" => answer("401 Unauthorized", json, r#"{"message":"not for you"}"#),
            "/moved" => answer("302 Found", "location: https://elsewhere.example/\r\n", ""),
            _ => answer("404 Not Found", "", ""),
        })
    })
    .await;
    let id = connect(&node, &format!("http://{}", app.address), KEY).await;
    let path = at(&format!("forward?connectionId={id}"));
    let get = |endpoint: &'static str| node.post(&path, json!({"method": "GET", "endpoint": endpoint}));
    assert!(get("/exact").await.text.contains(r#"{"total": 4.950, "big": 12345678901234567890}"#));
    let plain = get("/cookie").await.ok();
    assert_eq!((&plain["body"], &plain["headers"]["x-rate-left"]), (&json!("plain"), &json!("7")));
    assert_eq!((plain["headers"].get("set-cookie"), &plain["headers"]["link"]), (None, &json!("<a>, <b>")), "{plain}");
    let echo = get("/echo").await;
    assert!(echo.refused(502, "app-failed").contains("repeats"), "{}", echo.text);
    assert!(!echo.text.contains(KEY));
    assert_eq!(get("/echo-header").await.ok()["headers"].get("x-you-sent"), None);
    let traced = json!({"method": "GET", "endpoint": "/trace", "extraHeaders": {"X-Trace": "t-1"}});
    assert_eq!(node.post(&path, traced).await.ok()["body"], "traced as t-1");
    let refused = get("/refused").await.ok();
    assert_eq!((&refused["status"], &refused["body"]["message"]), (&json!(401), &json!("not for you")));
    assert_eq!(get("/moved").await.ok()["status"], 302);
    // A 401 to one call says nothing about the connection.
    assert_eq!(get("/exact").await.ok()["status"], 200);
    let nobody = connect(&node, "http://127.0.0.1:1", "another-key-0123456789").await;
    let path = at(&format!("forward?connectionId={nobody}"));
    node.post(&path, json!({"method": "GET", "endpoint": "/x"})).await.refused(502, "app-failed");
    node.stop().await;
}
