//! The API as a stranger or a clumsy client calls it: paths, queries, cursors, headers, bodies.
//!
//! Always true of an answer: it is no 5xx but 503, and an error is JSON with a code and a sentence.

use std::sync::Arc;

use actix_web::http::{Method, Uri};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tidemill::actors::courier::outlet::MakePost;
use tidemill::api as product;
use tidemill::app::{self, Seams};
use tidemill::destinations::{Parcel, Post, Report, Trial};
use tidemill::error::{Error, Result};

use super::api::{KEY, Node, OPERATOR};
use super::engine::Target;

/// Calls nobody: what is fuzzed must not leave the machine.
struct Nobody;

impl Post for Nobody {
    fn check(&self, _: &str) -> Result<()> {
        Ok(())
    }
    fn deliver<'a>(&'a self, _: &'a Parcel) -> BoxFuture<'a, Result<Report>> {
        async { Err(Error::unavailable("there is nobody", 60)) }.boxed()
    }
    fn try_out<'a>(&'a self, _: &'a Parcel) -> BoxFuture<'a, Result<Trial>> {
        async { Err(Error::invalid("there is nobody")) }.boxed()
    }
}

/// No name is resolved, so no app is called either.
const SETTINGS: &[(&str, &str)] =
    &[("TIDEMILL__DNS__SERVERS", "[\"127.0.0.1:1\"]"), ("TIDEMILL__INGEST__ALLOW_NETWORKS", "[]")];

/// `METHOD /path?query`, headers as lines, an empty line, the body. `$KEY` and the like stand for what is there.
struct Asked {
    method: Method,
    uri: Uri,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn read(input: &[u8], known: &[(&str, String)]) -> Option<Asked> {
    let mut text = String::from_utf8_lossy(input).into_owned();
    for (name, value) in known {
        text = text.replace(name, value);
    }
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let uri: Uri = target.parse().ok()?;
    // Streams do not end.
    if uri.path().contains("stream") || uri.path().is_empty() {
        return None;
    }
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = lines.filter_map(pair).collect();
    Some(Asked { method: method.parse().ok()?, uri, headers, body: body.as_bytes().to_vec() })
}

fn request(asked: Asked) -> Option<TestRequest> {
    let mut request = TestRequest::default().method(asked.method).uri(&asked.uri.to_string());
    for (name, value) in asked.headers {
        let name: actix_web::http::header::HeaderName = name.parse().ok()?;
        let value = actix_web::http::header::HeaderValue::from_bytes(value.as_bytes()).ok()?;
        request = request.insert_header((name, value));
    }
    Some(request.set_payload(web::Bytes::from(asked.body)))
}

fn check(status: u16, is_ours: bool, body: &[u8]) -> std::result::Result<(), String> {
    let text = String::from_utf8_lossy(body);
    if status >= 500 && status != 503 {
        return Err(format!("{status}: {text}"));
    }
    if status < 400 || !is_ours {
        return Ok(());
    }
    let json: Value = serde_json::from_slice(body).map_err(|error| format!("{status} is not JSON: {error}: {text}"))?;
    let says = |name: &str| json[name].as_str().is_some_and(|text| !text.is_empty());
    if says("message") && says("code") { Ok(()) } else { Err(format!("{status} without a word: {text}")) }
}

#[test]
fn the_api_is_safe() {
    let system = actix_rt::System::new();
    let driver: MakePost = Arc::new(|| Ok(Arc::new(Nobody) as Arc<dyn Post>));
    let seams = Seams { driver: Some(driver), ..Seams::default() };
    let folder = tempfile::tempdir().expect("a folder");
    let (node, service, known) = system.block_on(async {
        let node = Node::open(folder, SETTINGS, product::configure, app::wall_clock(), seams).await;
        let user = node.post("/2024-03/one/users", json!({"username": "ann"})).await.ok();
        let wish = json!({"address": "http://127.0.0.1:9/", "topic": ["crm/*"], "isEnabled": false});
        let hook = node.post("/2024-03/one/webhooks", wish).await.ok();
        let event = json!({"topic": "crm/contacts", "dataPayload": {"id": 1}});
        let event = node.post("/2024-03/one/events", event).await.json();
        let made = json!({"connector": "sandbox", "parameters": {"webhookSecret": "a-long-secret"}});
        let integration = node.post("/2024-03/one/integrations", made).await.ok();
        let integration = integration["integration"]["integrationId"].as_str().expect("an id").to_owned();
        let hooks = node.get(&format!("/2024-03/one/integrations/{integration}/webhooks")).await.ok();
        let global = url::Url::parse(hooks["webhooks"][0]["uri"].as_str().expect("a URI")).expect("a URL");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let known = [
            ("$KEY", KEY.to_owned()),
            ("$OPERATOR", OPERATOR.to_owned()),
            ("$USER", text(&user["userId"])),
            ("$HOOK", text(&hook["subscription"]["subscriptionId"])),
            ("$EVENT", text(&event["eventId"])),
            ("$INTEGRATION", integration),
            ("$GLOBAL", global.path().to_owned()),
        ];
        let state = node.state.clone();
        let app = App::new().configure(move |services| product::configure(&state, services));
        (node, init_service(app).await, known)
    });
    let run = |input: &[u8]| {
        let Some(asked) = read(input, &known) else { return Ok(()) };
        // An app's answer to its own webhook is the connector's word.
        let is_ours = !asked.uri.path().starts_with("/in/") && asked.method != Method::HEAD;
        let Some(request) = request(asked) else { return Ok(()) };
        system.block_on(async {
            let answer = call_service(&service, request.to_request()).await;
            let status = answer.status().as_u16();
            check(status, is_ours, &read_body(answer).await)
        })
    };
    let words = &[
        "limit=",
        "cursor=",
        "&",
        "topic=crm/*",
        "from=",
        "status=dead",
        "$KEY",
        "$USER",
        "$HOOK",
        "$EVENT",
        "\"topic\":",
        "\"dataPayload\":",
        "\"address\":",
        "\"filter\":",
        "idempotency-key: ",
        "content-type: ",
        "/2023-12/one/",
        "/2024-03/hooks",
        "/one/",
        "authorization: Bearer ",
    ];
    Target { name: "api", run: Box::new(run), words, more: vec![], tries: 1_000 }.fuzz();
    system.block_on(async { node.stop().await });
}
