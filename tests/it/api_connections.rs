//! Integrations and connections through the API, against a running sandbox.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::clock::Clock;
use tidemill::domain::event::{Event, Payload, Source};
use tidemill::domain::id::WorkspaceNo;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Handle, Options};

use crate::support::api::{Node, OPERATOR};

const ONE: &str = "/2024-03/one";

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

/// A node with a user, and a sandbox.
struct Desk {
    node: Node,
    app: Handle,
    user: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

impl Desk {
    async fn new() -> Self {
        let node = Node::start().await;
        let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        let user = text(&node.post(&at("users"), json!({"username": "ann"})).await.ok()["userId"]);
        Self { node, app, user }
    }

    async fn integration(&self) -> String {
        let parameters = json!({"baseUri": self.app.url(), "webhookSecret": "a-long-secret"});
        let body = json!({"connector": "sandbox", "parameters": parameters});
        text(&self.node.post(&at("integrations"), body).await.ok()["integration"]["integrationId"])
    }

    /// A connection to the sandbox's first account.
    fn wish(&self, integration: &str) -> Value {
        let credentials = json!({"apiKey": "sandbox-key-1"});
        json!({"userId": self.user, "integrationId": integration, "credentials": credentials})
    }

    async fn connect(&self, body: Value) -> Value {
        self.node.post(&at("connections"), body).await.ok()["connection"].clone()
    }

    /// Asks until it fits.
    async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.node.until(path, fits).await
    }

    /// Topics of the log, newest first.
    async fn topics(&self) -> Vec<String> {
        let log = self.node.get(&at("events?limit=250")).await.ok();
        log["events"].as_array().expect("events").iter().map(|event| text(&event["topic"])).collect()
    }
}

#[actix::test]
async fn connectors_say_what_they_can() {
    let node = Node::start().await;
    let all = node.get(&at("connectors")).await.ok();
    let keys: Vec<String> = all["connectors"].as_array().expect("a list").iter().map(|c| text(&c["key"])).collect();
    for key in ["adobe-commerce", "generic", "hubspot", "sandbox"] {
        assert!(keys.contains(&key.to_owned()), "{keys:?}");
    }
    let first = node.get(&at("connectors?limit=1")).await.ok();
    let second = node.get(&at(&format!("connectors?limit=1&cursor={}", text(&first["next"])))).await.ok();
    assert_eq!(second["connectors"][0]["key"], keys[1].as_str());
    let sandbox = node.get(&at("connectors/sandbox")).await.ok()["connector"].clone();
    assert_eq!((sandbox["name"].as_str(), sandbox["category"].as_str()), (Some("Sandbox"), Some("crm")));
    assert_eq!(sandbox["auth"], json!(["oauth2", "apiKey", "bearer"]));
    assert_eq!(sandbox["parametersSchema"]["properties"]["webhookSecret"]["writeOnly"], true);
    let contacts = sandbox["collections"].as_array().expect("a list").iter().find(|c| c["key"] == "contacts");
    let all_ways = json!({"created": "webhook", "updated": "webhook", "deleted": "webhook"});
    assert_eq!(contacts.expect("contacts")["detects"], all_ways);
    let users = sandbox["collections"].as_array().expect("a list").iter().find(|c| c["key"] == "users");
    let reason = json!([{"method": "fetch", "reason": "Users are only ever scanned."}]);
    assert_eq!(users.expect("users")["notSupported"], reason);
    let absent = json!({"topic": "crm/leads", "reason": "The sandbox knows contacts only, from the first word on."});
    assert_eq!((&sandbox["notSupported"][0], &sandbox["webhook"]["notSupported"]), (&absent, &json!([])));
    let hubspot = node.get(&at("connectors/hubspot")).await.ok()["connector"]["globalWebhooks"].clone();
    assert_eq!(hubspot[0]["journal"], json!({"parameter": "webhooks", "value": "journal"}));
    assert_eq!(sandbox["globalWebhooks"][0].get("journal"), None);
    node.get(&at("connectors/nothing")).await.refused(404, "connector-not-found");
    node.stop().await;
}

#[actix::test]
async fn an_integrations_secrets_go_in_and_never_come_out() {
    let desk = Desk::new().await;
    let (node, id) = (&desk.node, desk.integration().await);
    let one = at(&format!("integrations/{id}"));
    let shown = node.get(&one).await;
    assert_eq!(shown.ok()["integration"]["parameters"]["webhookSecret"], "***");
    assert!(!shown.text.contains("a-long-secret"));
    assert_eq!(node.get(&at("integrations")).await.ok()["integrations"][0]["integrationId"], id.as_str());
    let body = json!({"name": "Shop", "parameters": {"webhookSecret": "***"}});
    assert_eq!(node.call("PATCH", &one, Some(body)).await.ok()["integration"]["name"], "Shop");
    let owner: [u8; 12] = hex::decode(&id).expect("hex").try_into().expect("12 bytes");
    let kept = node.engine.store.secret_parameters(&owner).expect("read").expect("kept");
    assert!(kept.expose().contains("a-long-secret"), "the mask leaves the secret");
    let webhooks = node.get(&format!("{one}/webhooks")).await.ok();
    let uri = text(&webhooks["webhooks"][0]["uri"]);
    assert!(uri.contains("/in/g/") && uri.ends_with("/changes"), "{uri}");
    assert!(text(&webhooks["note"]).contains("public_url"));
    assert_eq!(node.call("DELETE", &one, None).await.ok()["integrationId"], id.as_str());
    node.get(&one).await.refused(404, "integration-not-found");
    desk.node.stop().await;
}

#[actix::test]
async fn an_integration_that_cannot_work_is_refused() {
    let desk = Desk::new().await;
    let node = &desk.node;
    let all = at("integrations");
    let message = node.post(&all, json!({"connector": "sandbx"})).await.refused(422, "invalid");
    assert!(message.contains("sandbox"), "{message}");
    let unknown = json!({"connector": "sandbox", "parameters": {"nothing": 1}});
    assert!(node.post(&all, unknown).await.refused(422, "invalid").contains("parameters.nothing"));
    let short = json!({"connector": "sandbox", "parameters": {"webhookSecret": "short"}});
    assert!(node.post(&all, short).await.refused(422, "invalid").contains("webhookSecret"));
    node.post(&all, json!({"connector": "sandbox", "secret": 1})).await.refused(422, "unknown-field");
    let private = json!({"connector": "sandbox", "parameters": {"baseUri": "http://10.0.0.1/"}});
    node.post(&all, private).await.refused(422, "address-forbidden");
    let key = node.post(&at("keys"), json!({"name": "w", "scopes": ["write"]})).await.ok();
    let key = text(&key["key"]["apiKey"]);
    let elsewhere = json!({"connector": "sandbox", "parameters": {"baseUri": desk.app.url()}});
    node.call_as(&key, "POST", &all, Some(elsewhere)).await.refused(403, "forbidden");
    let id = desk.integration().await;
    desk.connect(desk.wish(&id)).await;
    node.call("DELETE", &at(&format!("integrations/{id}")), None).await.refused(409, "conflict");
    desk.node.stop().await;
}

#[actix::test]
async fn a_connection_fills_the_snapshot_and_shows_how_it_stands() {
    let desk = Desk::new().await;
    let made = desk.connect(desk.wish(&desk.integration().await)).await;
    let one = at(&format!("connections/{}", text(&made["connectionId"])));
    assert_eq!((made["status"].as_str(), made["account"].as_str()), (Some("active"), Some("acc_1")));
    assert!(text(&made["webhookUri"]).contains("/in/c/"), "{made}");
    let synced = |answer: &Value| {
        let all = answer["connection"]["collections"].as_array().expect("collections").clone();
        all.len() == 5 && all.iter().all(|c| c["baselineAt"].is_string() && c["records"].as_u64() > Some(0))
    };
    let shown = desk.until(&one, synced).await["connection"].clone();
    let of = |key: &str| {
        let all = shown["collections"].as_array().expect("a list");
        all.iter().find(|c| c["key"] == key).unwrap_or_else(|| panic!("no {key}")).clone()
    };
    let contacts = of("contacts");
    let ways = json!({"created": "poll", "updated": "poll", "deleted": "full-scan"});
    assert_eq!((&contacts["detects"], &contacts["reason"]), (&ways, &json!("no-public-url")));
    assert!(contacts["cursor"].is_string() && contacts["nextPullAt"].is_string(), "{contacts}");
    assert_eq!(of("users")["detects"]["created"], "full-scan");
    assert!(!desk.node.get(&one).await.text.contains("sandbox-key-1"), "credentials never come out");
    let pulls = desk.node.get(&format!("{one}/pulls")).await.ok();
    assert!(pulls["pulls"].as_array().is_some_and(|all| all.iter().any(|p| p["mode"] == "first")), "{pulls}");
    let topics = desk.topics().await;
    assert!(topics.contains(&"connection/created".to_owned()), "{topics:?}");
    // Asked for, it is looked at again.
    let asked = desk.node.post(&format!("{one}/sync"), json!({"mode": "full", "collections": ["crm/users"]})).await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    let pull = text(&asked.json()["pullId"]);
    let found = |answer: &Value| {
        let all = answer["pulls"].as_array().expect("pulls");
        all.iter().any(|p| p["pullId"] == pull.as_str() && p["outcome"] == "completed")
    };
    desk.until(&format!("{one}/pulls"), found).await;
    desk.node.stop().await;
}

#[actix::test]
async fn an_event_leads_back_to_the_look_that_found_it() {
    let desk = Desk::new().await;
    let mut wish = desk.wish(&desk.integration().await);
    (wish["initialSync"], wish["collections"]) = (json!("emit"), json!(["crm/users"]));
    desk.connect(wish).await;
    let found = |answer: &Value| answer["events"].as_array().is_some_and(|all| !all.is_empty());
    let all = desk.until(&at("events?topic=crm/users&limit=1"), found).await;
    let event =
        desk.node.get(&at(&format!("events/{}", text(&all["events"][0]["eventId"])))).await.ok()["event"].clone();
    assert_eq!((&event["source"]["kind"], &event["pull"]["mode"]), (&json!("scan"), &json!("first")), "{event}");
    assert_eq!(event["source"]["pullId"], event["pull"]["pullId"]);
    assert_eq!(event["deliveries"], json!([]));
    desk.node.stop().await;
}

#[actix::test]
async fn the_same_account_connected_again_is_the_same_connection() {
    let desk = Desk::new().await;
    let integration = desk.integration().await;
    let first = desk.connect(desk.wish(&integration)).await;
    let mut wish = desk.wish(&integration);
    wish["pollIntervalSeconds"] = json!(30);
    let again = desk.connect(wish).await;
    assert_eq!(first["connectionId"], again["connectionId"]);
    assert_eq!((&again["webhookUri"], &again["pollIntervalSeconds"]), (&first["webhookUri"], &json!(30)));
    let mut other = desk.wish(&integration);
    other["credentials"] = json!({"apiKey": "sandbox-key-2"});
    assert_ne!(desk.connect(other).await["connectionId"], first["connectionId"]);
    let list = desk.node.get(&at("connections?userId=ann")).await.ok();
    assert_eq!(list["connections"].as_array().map(Vec::len), Some(2));
    let topics = desk.topics().await;
    let count = |topic: &str| topics.iter().filter(|t| *t == topic).count();
    assert_eq!((count("connection/created"), count("connection/updated")), (2, 1));
    desk.node.stop().await;
}

#[actix::test]
async fn a_connection_that_cannot_work_is_refused() {
    let desk = Desk::new().await;
    let (node, integration) = (&desk.node, desk.integration().await);
    let with = |name: &str, value: Value| {
        let mut wish = desk.wish(&integration);
        wish[name] = value;
        wish
    };
    let all = at("connections");
    let wrong_kind = with("credentials", json!({"username": "a", "password": "b"}));
    assert!(node.post(&all, wrong_kind).await.refused(422, "invalid").contains("apiKey"));
    let unknown = node.post(&all, with("credentials", json!({"apiKeys": "b"}))).await;
    assert!(unknown.refused(422, "invalid").contains("credentials.apiKeys"));
    let own_address = with("parameters", json!({"baseUri": "https://evil.example"}));
    assert!(node.post(&all, own_address).await.refused(422, "invalid").contains("integration"));
    node.post(&all, with("parameters", json!({"nothing": 1}))).await.refused(422, "invalid");
    node.post(&all, with("pollIntervalSeconds", json!(9))).await.refused(422, "invalid");
    node.post(&all, with("fullScanIntervalSeconds", json!(1))).await.refused(422, "invalid");
    assert!(node.post(&all, with("collections", json!(["orderz"]))).await.refused(422, "invalid").contains("orders"));
    node.post(&all, with("userId", json!("nobody"))).await.refused(404, "user-not-found");
    node.post(&all, with("connector", json!("generic"))).await.refused(422, "invalid");
    node.post(&all, with("integrationId", json!("00".repeat(12)))).await.refused(404, "integration-not-found");
    node.post(&all, with("nothing", json!(1))).await.refused(422, "unknown-field");
    node.post(&all, with("initialSync", json!("later"))).await.refused(422, "invalid");
    node.post(&all, json!({"userId": desk.user, "connector": "nothing"})).await.refused(422, "invalid");
    node.post(&all, json!({"userId": desk.user})).await.refused(422, "invalid");
    node.get(&at(&format!("connections/{}", "00".repeat(12)))).await.refused(404, "connection-not-found");
    node.get(&at("connections/nonsense")).await.refused(404, "connection-not-found");
    // Another workspace sees nothing of it.
    let made = desk.connect(desk.wish(&integration)).await;
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let key = text(&two["key"]["apiKey"]);
    for path in ["", "/pulls", "/inbox", "/events"] {
        let path = at(&format!("connections/{}{path}", text(&made["connectionId"])));
        node.call_as(&key, "GET", &path, None).await.refused(404, "connection-not-found");
    }
    let path = at(&format!("integrations/{integration}/webhooks"));
    node.call_as(&key, "GET", &path, None).await.refused(404, "integration-not-found");
    desk.node.stop().await;
}

#[actix::test]
async fn a_connection_is_paused_changed_and_resumed() {
    let desk = Desk::new().await;
    let made = desk.connect(desk.wish(&desk.integration().await)).await;
    let (node, one) = (&desk.node, at(&format!("connections/{}", text(&made["connectionId"]))));
    let patch = |body: Value| node.call("PATCH", &one, Some(body));
    assert_eq!(patch(json!({"status": "paused"})).await.ok()["connection"]["status"], "paused");
    node.post(&format!("{one}/sync"), json!({})).await.refused(409, "conflict");
    let changed =
        patch(json!({"pollIntervalSeconds": 60, "collections": ["crm/contacts"], "remap": "emit"})).await.ok();
    let changed = &changed["connection"];
    assert_eq!((&changed["pollIntervalSeconds"], &changed["remap"]), (&json!(60), &json!("emit")));
    assert_eq!(changed["collections"].as_array().map(Vec::len), Some(1));
    let back = patch(json!({"pollIntervalSeconds": null, "collections": null, "status": "active"})).await.ok();
    assert_eq!(back["connection"]["pollIntervalSeconds"], Value::Null);
    assert_eq!(back["connection"]["collections"].as_array().map(Vec::len), Some(5));
    assert_eq!(back["connection"]["status"], "active");
    patch(json!({"pollIntervalSeconds": 3})).await.refused(422, "invalid");
    patch(json!({"status": "authFailed"})).await.refused(422, "invalid");
    patch(json!({"connector": "generic"})).await.refused(422, "unknown-field");
    let other = patch(json!({"credentials": {"apiKey": "sandbox-key-2"}})).await;
    assert!(other.refused(422, "invalid").contains("another account"));
    let synced = |answer: &Value| {
        let all = answer["connection"]["collections"].as_array().expect("collections").clone();
        all.iter().all(|c| c["baselineAt"].is_string())
    };
    desk.until(&one, synced).await;
    // Refused credentials stop it; new ones let it go on.
    patch(json!({"credentials": {"apiKey": "nonsense"}})).await.ok();
    desk.until(&one, |answer| answer["connection"]["status"] == "authFailed").await;
    let resumed = patch(json!({"credentials": {"apiKey": "sandbox-key-1"}})).await.ok();
    assert_eq!(resumed["connection"]["status"], "active");
    node.post(&format!("{one}/sync"), json!({"mode": "later"})).await.refused(422, "invalid");
    node.post(&format!("{one}/sync"), json!({"approveDeletes": true})).await.refused(422, "invalid");
    let topics = desk.topics().await;
    assert!(topics.contains(&"connection/authentication_failure".to_owned()), "{topics:?}");
    desk.node.stop().await;
}

#[actix::test]
async fn deleting_a_connection_takes_what_hangs_on_it() {
    let desk = Desk::new().await;
    let made = desk.connect(desk.wish(&desk.integration().await)).await;
    let (node, id) = (&desk.node, text(&made["connectionId"]));
    let body = json!({"address": "http://127.0.0.1:9/", "topic": ["crm/*"], "connectionId": id});
    let hook = text(&node.post(&at("webhooks"), body).await.ok()["subscription"]["subscriptionId"]);
    let one = at(&format!("connections/{id}"));
    let gone = node.call("DELETE", &one, None).await.ok();
    assert_eq!((gone["deleted"].as_bool(), gone["connectionId"].as_str()), (Some(true), Some(id.as_str())));
    node.get(&one).await.refused(404, "connection-not-found");
    node.get(&at(&format!("webhooks/{hook}"))).await.refused(404, "subscription-not-found");
    let uri = text(&made["webhookUri"]);
    let path = &uri[uri.find("/in/c/").expect("a path")..];
    node.send("POST", path, &[], "{}").await.refused(404, "webhook-not-found");
    assert!(desk.topics().await.contains(&"connection/deleted".to_owned()));
    node.call("DELETE", &one, None).await.refused(404, "connection-not-found");
    desk.node.stop().await;
}

#[actix::test]
async fn whoever_is_deleted_leaves_no_webhook_at_the_app() {
    let url = ("TIDEMILL__SERVER__PUBLIC_URL", "http://127.0.0.1:1");
    let node = Node::start_with(&[url], tidemill::api::configure).await;
    let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
    let user = text(&node.post(&at("users"), json!({"username": "ann"})).await.ok()["userId"]);
    let desk = Desk { node, app, user };
    let (node, http) = (&desk.node, reqwest::Client::new());
    let hooks = |count: usize| {
        let ask = http.get(format!("{}/api/webhooks", desk.app.url())).bearer_auth(desk.app.key(1));
        async move {
            let end = Instant::now() + Duration::from_secs(20);
            loop {
                let again = ask.try_clone().expect("no body");
                let body = again.send().await.expect("an answer").text().await.expect("text");
                let all: Value = serde_json::from_str(&body).expect("JSON");
                if all["data"].as_array().map(Vec::len) == Some(count) {
                    return;
                }
                assert!(Instant::now() < end, "{count} webhooks were expected: {all}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    // A connection.
    let integration = desk.integration().await;
    let id = text(&desk.connect(desk.wish(&integration)).await["connectionId"]);
    hooks(1).await;
    node.call("DELETE", &at(&format!("connections/{id}")), None).await.ok();
    hooks(0).await;
    // Its user.
    desk.connect(desk.wish(&integration)).await;
    hooks(1).await;
    node.call("DELETE", &at("users/ann"), None).await.ok();
    hooks(0).await;
    // A whole workspace, with the integration that says where the app is.
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let key = text(&two["key"]["apiKey"]);
    let post = |path: &str, body: Value| {
        let (path, key) = (at(path), key.clone());
        async move { node.call_as(&key, "POST", &path, Some(body)).await.ok() }
    };
    post("users", json!({"username": "bo"})).await;
    let parameters = json!({"baseUri": desk.app.url()});
    let made = post("integrations", json!({"connector": "sandbox", "parameters": parameters})).await;
    let wish = json!({"userId": "bo", "integrationId": made["integration"]["integrationId"],
        "credentials": {"apiKey": "sandbox-key-1"}});
    post("connections", wish).await;
    hooks(1).await;
    let path = format!("/workspaces/{}", text(&two["workspace"]["workspaceId"]));
    node.call_as(OPERATOR, "DELETE", &path, None).await.ok();
    hooks(0).await;
    desk.node.stop().await;
}

#[actix::test]
async fn events_of_the_connector_are_switched_on_and_off() {
    let desk = Desk::new().await;
    let made = desk.connect(desk.wish(&desk.integration().await)).await;
    let (node, all) = (&desk.node, at(&format!("connections/{}/events", text(&made["connectionId"]))));
    let on = node.post(&all, json!({"event": "order-changed"})).await.ok();
    assert_eq!(on["event"]["selector"], "order/acc_1");
    let on = node.post(&all, json!({"event": "opportunity-changed", "parameters": {"account": "acc_1"}})).await.ok();
    assert_eq!(
        (&on["event"]["webhookKey"], &on["event"]["selector"]),
        (&json!("changes"), &json!("opportunity/acc_1"))
    );
    assert_eq!(node.get(&all).await.ok()["events"].as_array().map(Vec::len), Some(2));
    assert!(node.post(&all, json!({"event": "nothing"})).await.refused(422, "invalid").contains("order-changed"));
    node.post(&all, json!({"event": "opportunity-changed"})).await.refused(422, "invalid");
    // A change of the credentials asks the connector again; here for an event whose selector is not right any more.
    let id: [u8; 12] = hex::decode(text(&made["connectionId"])).expect("hex").try_into().expect("12 bytes");
    let change = node.engine.store.change(move |tx| {
        let connection = tidemill::domain::id::ConnectionId(id);
        for mut switch in tx.event_switches(connection)?.into_iter().filter(|s| s.event == "order-changed") {
            tx.delete_event_switch(connection, &switch)?;
            switch.selector = "order/acc_9".to_owned();
            tx.put_event_switch(connection, &switch)?;
        }
        Ok(())
    });
    change.await.expect("changed");
    let one = at(&format!("connections/{}", text(&made["connectionId"])));
    node.call("PATCH", &one, Some(json!({"credentials": {"apiKey": "sandbox-key-1"}}))).await.ok();
    desk.until(&all, |a| {
        a["events"].as_array().is_some_and(|l| l.iter().all(|e| text(&e["selector"]).ends_with("/acc_1")))
    })
    .await;
    let off = node.call("DELETE", &all, Some(json!({"event": "order-changed"}))).await.ok();
    assert_eq!(off["deleted"], true);
    node.call("DELETE", &all, Some(json!({"event": "order-changed"}))).await.refused(404, "event-not-found");
    assert_eq!(node.get(&all).await.ok()["events"].as_array().map(Vec::len), Some(1));
    // Without an integration there is no global webhook.
    let body = json!({"userId": desk.user, "connector": "generic", "parameters": {"baseUri": desk.app.url()},
        "credentials": {"apiKey": "sandbox-key-1"}});
    let id = text(&desk.connect(body).await["connectionId"]);
    node.post(&at(&format!("connections/{id}/events")), json!({"event": "x"})).await.refused(422, "invalid");
    desk.node.stop().await;
}

#[actix::test]
async fn the_inbox_shows_what_arrived_and_takes_it_up_again() {
    let desk = Desk::new().await;
    let parameters = json!({"baseUri": desk.app.url(), "path": "/api/contacts", "itemsPath": "$.data"});
    let body = json!({"userId": desk.user, "connector": "generic", "parameters": parameters,
        "credentials": {"apiKey": "sandbox-key-1"}});
    let made = desk.connect(body).await;
    let (node, all) = (&desk.node, at(&format!("connections/{}/inbox", text(&made["connectionId"]))));
    let uri = text(&made["webhookUri"]);
    let path = &uri[uri.find("/in/c/").expect("a path")..];
    for n in 0..3 {
        let body = json!({"id": format!("w{n}"), "first_name": "Ann"}).to_string();
        let sent = node.send("POST", path, &[("content-type", "application/json"), ("x-n", "7")], &body).await;
        assert!((200..300).contains(&sent.status), "{}", sent.text);
    }
    let page = node.get(&format!("{all}?limit=2")).await.ok();
    assert_eq!(page["inbox"].as_array().map(Vec::len), Some(2));
    assert!(text(&page["inbox"][0]["body"]).contains("w2"), "newest first: {page}");
    assert!(page["inbox"][0]["headers"].as_array().is_some_and(|all| all.iter().any(|h| h["name"] == "x-n")));
    let rest = node.get(&format!("{all}?limit=2&cursor={}", text(&page["next"]))).await.ok();
    assert_eq!((rest["inbox"].as_array().map(Vec::len), rest.get("next")), (Some(1), None));
    let settled =
        |answer: &Value| answer["inbox"].as_array().is_some_and(|all| all.iter().all(|r| r["state"] == "done"));
    let done = desk.until(&all, settled).await;
    let id = text(&done["inbox"][0]["inboxId"]);
    // An event that came of it leads back to it.
    let (connection, webhook) =
        (made["connectionId"].as_str().expect("an id").parse().ok(), id.parse().expect("an id"));
    let append = move |tx: &mut tidemill::store::Tx<'_>| {
        let blank = Event::blank(WorkspaceNo::DEFAULT, Payload::Plain("{}".into()), tx.now());
        let source = Source::Webhook(webhook);
        tx.append_event(&Event { topic: "crm/contacts".into(), connection, source, ..blank })
    };
    let event = node.engine.store.change(append).await.expect("appended");
    let event = node.get(&at(&format!("events/{event}"))).await.ok()["event"].clone();
    assert_eq!((&event["source"]["inboxId"], &event["webhook"]["state"]), (&json!(id), &json!("done")), "{event}");
    assert_eq!(node.post(&format!("{all}/{id}/reprocess"), json!({})).await.ok()["state"], "waiting");
    desk.until(&all, settled).await;
    node.post(&format!("{all}/{}/reprocess", "ff".repeat(12)), json!({})).await.refused(404, "inbox-not-found");
    desk.node.stop().await;
}
