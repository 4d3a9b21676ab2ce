//! The sandbox over HTTP, as a connector and a test see it.

use std::sync::{Arc, Mutex};

use actix_web::{App as HttpApp, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use super::*;
use crate::domain::time::Millis;

struct Desk {
    sandbox: Handle,
    http: reqwest::Client,
}

impl Desk {
    async fn new(options: Options) -> Self {
        let sandbox = run(options, Clock::start(Millis(0))).await.expect("a free port");
        Self { sandbox, http: client().expect("a client") }
    }
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.sandbox.url()));
        if path.starts_with("/api") {
            request = request.bearer_auth(self.sandbox.key(1));
        } else if path.starts_with("/app") {
            request = request.header("x-api-key", Options::default().app_key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

fn ids(page: &Value) -> Vec<String> {
    page["data"].as_array().expect("a list").iter().map(|r| r["id"].to_string()).collect()
}

#[tokio::test]
async fn cursor_and_page_walk_the_same_records() {
    let desk = Desk::new(Options::quiet()).await;
    let (mut by_cursor, mut by_page) = (Vec::new(), Vec::new());
    let mut path = "/api/contacts?page_size=25".to_owned();
    loop {
        let page = desk.get(&path).await;
        by_cursor.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/contacts?page_size=25&cursor={cursor}");
    }
    for page in 1..=3 {
        by_page.extend(ids(&desk.get(&format!("/api/contacts?page_size=25&page={page}")).await));
    }
    assert_eq!(by_cursor.len(), 60);
    assert_eq!(by_cursor, by_page);
    let all = desk.get("/api/contacts/ids?page_size=250").await;
    assert_eq!(all["ids"].as_array().map(Vec::len), Some(60));
    desk.sandbox.stop().await;
}

#[tokio::test]
async fn a_changed_record_comes_in_the_next_incremental_list() {
    let desk = Desk::new(Options::quiet()).await;
    let (_, made) = desk.call("POST", "/api/contacts", Some(json!({"first_name": "Ada"}))).await;
    let since = made["updated_at"].as_str().expect("a time").to_owned();
    let path = format!("/api/contacts/{}", made["id"].as_str().expect("text"));
    let (_, changed) = desk.call("PATCH", &path, Some(json!({"first_name": "Bela"}))).await;
    assert_eq!(changed["first_name"], "Bela");
    let page = desk.get(&format!("/api/contacts?updated_since={since}")).await;
    assert_eq!(page["total"], 1);
    assert_eq!(desk.call("DELETE", &path, None).await.0, 204);
    assert_eq!(desk.call("GET", &path, None).await.0, 404);
    let gone = desk.get(&format!("/api/contacts/deleted?since={since}")).await;
    assert_eq!(gone["data"][0]["id"], made["id"]);
    assert_eq!(desk.call("GET", &format!("/api/users?updated_since={since}"), None).await.0, 400);
    desk.sandbox.stop().await;
}

#[tokio::test]
async fn wrong_input_is_refused_in_the_apps_own_shape() {
    let desk = Desk::new(Options::quiet()).await;
    let nobody = desk.http.get(format!("{}/api/contacts", desk.sandbox.url())).send().await.expect("an answer");
    assert_eq!(nobody.status(), 401);
    for (method, path, body, status) in [
        ("GET", "/api/nothing", None, 404),
        ("GET", "/api/contacts?page=0", None, 400),
        ("GET", "/api/contacts?cursor=zzz", None, 400),
        ("POST", "/api/contacts", Some(json!([1])), 400),
        ("POST", "/api/contacts", Some(json!({"id": "mine"})), 422),
        ("POST", "/api/webhooks", Some(json!({"url": "nowhere"})), 422),
        ("POST", "/api/webhooks", Some(json!({"uri": "http://x/"})), 400),
        ("GET", "/nowhere", None, 404),
    ] {
        let (got, answer) = desk.call(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    desk.sandbox.stop().await;
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_back() {
    let desk = Desk::new(Options { requests_per_second: 3, ..Options::quiet() }).await;
    let mut refused = 0;
    for _ in 0..10 {
        refused += u32::from(desk.call("GET", "/api/me", None).await.0 == 429);
    }
    assert!(refused > 0);
    desk.sandbox.stop().await;
}

#[tokio::test]
async fn wrong_answers_come_as_asked() {
    let desk = Desk::new(Options::quiet()).await;
    for (kind, more) in [
        ("status", json!({"status": 503, "retryAfterSeconds": 7})),
        ("html", json!({})),
        ("half-json", json!({})),
        ("same-page", json!({})),
        ("close", json!({})),
    ] {
        let mut fault = more;
        fault["kind"] = kind.into();
        fault["path"] = "/api/contacts".into();
        assert_eq!(desk.call("POST", "/control/answers", Some(fault)).await.0, 200);
    }
    assert_eq!(desk.call("GET", "/api/orders?page_size=1", None).await.0, 200);
    assert_eq!(desk.call("GET", "/api/contacts", None).await.0, 503);
    let (status, html) = desk.call("GET", "/api/contacts", None).await;
    assert!(status == 200 && html.as_str().is_some_and(|text| text.starts_with("<!doctype")));
    assert!(desk.call("GET", "/api/contacts", None).await.1.is_string());
    let (_, page) = desk.call("GET", "/api/contacts?page=9&page_size=10", None).await;
    assert_eq!(ids(&page)[0], "\"con_000001\"");
    assert!(page["next_cursor"].is_string());
    assert!(desk.call("GET", "/api/contacts", None).await.1.is_string());
    assert_eq!(desk.get("/api/contacts").await["total"], 60);
    assert_eq!(desk.call("POST", "/control/answers", Some(json!({"kind": "what"}))).await.0, 400);
    desk.sandbox.stop().await;
}

type Received = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A receiver that refuses the first webhook once.
async fn receiver() -> (String, Received, actix_web::dev::ServerHandle) {
    let received = Received::default();
    let shared = received.clone();
    let refused = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let server = HttpServer::new(move || {
        let (shared, refused) = (shared.clone(), refused.clone());
        HttpApp::new().default_service(web::to(move |request: HttpRequest, body: String| {
            let (shared, refused) = (shared.clone(), refused.clone());
            async move {
                if !refused.swap(true, Ordering::Relaxed) {
                    return HttpResponse::InternalServerError().finish();
                }
                let signature =
                    request.headers().get("x-sandbox-signature").expect("signed").to_str().expect("text").to_owned();
                let parsed = serde_json::from_str(&body).expect("JSON");
                shared.lock().expect("unpoisoned").push((signature, body, parsed));
                HttpResponse::Ok().finish()
            }
        }))
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .expect("a free port");
    let url = format!("http://{}/hook", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    (url, received, handle)
}

async fn until(received: &Received, count: usize) -> Vec<(String, String, Value)> {
    for _ in 0..400 {
        let now = received.lock().expect("unpoisoned").clone();
        if now.len() >= count {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{count} webhooks did not come: {:?}", received.lock());
}

#[tokio::test]
async fn signed_webhooks_come_also_after_a_refusal() {
    let desk = Desk::new(Options::quiet()).await;
    let (url, received, server) = receiver().await;
    let (status, hook) =
        desk.call("POST", "/api/webhooks", Some(json!({"url": url, "events": ["contact.*", "order.*"]}))).await;
    assert_eq!(status, 201);
    desk.call("PUT", "/app/webhook", Some(json!({"url": url, "secret": "the-global-one", "events": ["user.*"]}))).await;
    let secret = hook["secret"].as_str().expect("shown once");
    let wish = |collection| json!({"account": "acc_1", "collection": collection, "kind": "updated"});
    for collection in ["contacts", "orders", "users"] {
        let (status, answer) = desk.call("POST", "/control/changes", Some(wish(collection))).await;
        assert_eq!(status, 200, "{answer}");
    }
    let got = until(&received, 3).await;
    for (sent, body, parsed) in &got {
        let secret = if parsed["event"] == "user.updated" { "the-global-one" } else { secret };
        assert_eq!(*sent, signature(secret, body));
        assert_eq!(parsed["account_id"], "acc_1");
    }
    let id = hook["id"].as_str().expect("text");
    assert_eq!(desk.call("POST", &format!("/api/webhooks/{id}/renew"), None).await.0, 200);
    assert_eq!(desk.call("DELETE", &format!("/api/webhooks/{id}"), None).await.0, 204);
    assert_eq!(desk.call("GET", &format!("/api/webhooks/{id}"), None).await.0, 404);
    server.stop(false).await;
    desk.sandbox.stop().await;
}

#[tokio::test]
async fn things_happen_by_themselves_and_are_kept_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = Some(folder.path().join("sandbox.json"));
    let options = Options { changes_per_minute: 1_200, state, ..Options::quiet() };
    let desk = Desk::new(options.clone()).await;
    for _ in 0..200 {
        if desk.get("/control/counts").await["changes"].as_u64() > Some(3) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    desk.call("PATCH", "/control/settings", Some(json!({"changesPerMinute": 0}))).await;
    let before = desk.get("/control/records").await;
    assert!(before["number"].as_u64() > Some(3));
    desk.sandbox.stop().await;
    let desk = Desk::new(Options { changes_per_minute: 0, ..options }).await;
    assert_eq!(desk.get("/control/records").await, before);
    desk.sandbox.stop().await;
}
