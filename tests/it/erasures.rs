//! What is erased is gone: from the answers, from what is sent, and from the disk; `deleted` is told once, whatever happens.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::api;
use tidemill::app::{self, Seams};
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Handle, Options};
use tidemill::store::{Point, Stops, Table};

use crate::support::api::{Graves, Node, OPERATOR};
use crate::support::receiver::Receiver;
use crate::support::wreck;

const ONE: &str = "/2024-03/one";
const SECRET: &str = "a-long-secret";
/// Text that nothing else in the store resembles.
const MARKER: &str = "MK7f3c91e2a85d4b60c7f19e83d2a4b5c6";
const ORDER: &str = "3000001";

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// The app, and what leads to it.
struct World {
    app: Handle,
    http: reqwest::Client,
    user: String,
    integration: String,
    connection: String,
    /// The path of the app's global webhook.
    hook: String,
}

impl World {
    /// Connects the app's orders on a node; their baseline is complete.
    async fn new(node: &Node) -> Self {
        let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        let user = text(&node.post(&at("users"), json!({"username": "ann", "fullName": "Ann"})).await.ok()["userId"]);
        let parameters = json!({"baseUri": app.url(), "webhookSecret": SECRET});
        let made = node.post(&at("integrations"), json!({"connector": "sandbox", "parameters": parameters})).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        let hooks = node.get(&at(&format!("integrations/{integration}/webhooks"))).await.ok();
        let hook = url::Url::parse(&text(&hooks["webhooks"][0]["uri"])).expect("a URL").path().to_owned();
        let wish = json!({
            "userId": user, "integrationId": integration, "credentials": {"apiKey": app.key(1)},
            "pollIntervalSeconds": 604_800, "fullScanIntervalSeconds": 604_800, "collections": ["orders"],
        });
        let connection = text(&node.post(&at("connections"), wish).await.ok()["connection"]["connectionId"]);
        node.post(&at(&format!("connections/{connection}/events")), json!({"event": "order-changed"})).await.ok();
        // One that the server closes while it is taken up again would be nobody's failure.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        let world = Self { app, http, user, integration, connection, hook };
        let synced = |answer: &Value| answer["connection"]["collections"][0]["baselineAt"].is_string();
        until(node, &at(&format!("connections/{}", world.connection)), synced).await;
        world
    }

    /// Changes an order at the app, and lets its webhook tell of it.
    async fn change(&self, node: &Node, id: &str, number: &str) {
        let wish = json!({"account": "acc_1", "collection": "orders", "kind": "updated", "id": id,
            "fields": {"number": number}});
        let url = format!("{}/control/changes", self.app.url());
        let asked = self.http.post(url).header("content-type", "application/json").body(wish.to_string());
        assert!(asked.send().await.expect("an answer").status().is_success());
        self.push(node, "order.updated", id, number).await;
    }

    async fn push(&self, node: &Node, event: &str, id: &str, note: &str) {
        let body = json!({"id": "evt_1", "event": event, "account_id": "acc_1", "data": {"id": id, "note": note}});
        let body = body.to_string();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = hex::encode(aws_lc_rs::hmac::sign(&key, body.as_bytes()));
        let headers = [("content-type", "application/json"), ("x-sandbox-signature", signature.as_str())];
        let answer = node.send("POST", &self.hook, &headers, &body).await;
        assert!((200..300).contains(&answer.status), "{}", answer.text);
    }

    fn events(&self, id: &str) -> String {
        at(&format!("events?connectionId={}&topic=commerce/orders&remoteId={id}", self.connection))
    }

    fn record(&self, id: &str) -> String {
        at(&format!("commerce/orders/{id}?connectionId={}", self.connection))
    }
}

async fn until(node: &Node, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..600 {
        last = node.get(path).await.ok();
        if fits(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path}: {last}");
}

async fn erase(node: &Node, wish: Value) -> Value {
    let made = node.post(&at("erasures"), wish).await.ok();
    let path = at(&format!("erasures/{}", text(&made["erasure"]["erasureId"])));
    until(node, &path, |answer| answer["erasure"]["state"] == "completed").await["erasure"].clone()
}

/// Whether any file of a store holds a text.
fn is_on_disk(folder: &Path, text: &str) -> bool {
    let mut folders = vec![folder.join("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                // RocksDB may take a file away meanwhile.
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                    return true;
                }
            }
        }
    }
    false
}

#[actix::test]
async fn a_record_that_is_erased_is_gone_from_everything_and_deleted_is_told_once() {
    let node = Node::start().await;
    let world = World::new(&node).await;
    let (well, sick) = (Receiver::start(), Receiver::start());
    sick.answer([(500, vec![])]);
    for receiver in [&well, &sick] {
        // The one that fails waits until it is erased, however slow the machine is.
        let wish = json!({"address": receiver.address, "topic": ["commerce/orders"], "include": ["raw", "previous"],
            "retrySchedule": [0, 3600]});
        node.post(&at("webhooks"), wish).await.ok();
    }
    world.change(&node, ORDER, MARKER).await;
    // Both go side by side else, and either might be the one that fails.
    sick.wait(1).await;
    world.change(&node, "3000002", "another").await;
    let sent = well.wait(2).await;
    assert!(sent.iter().any(|one| String::from_utf8_lossy(&one.body).contains(MARKER)), "it was sent before");
    sick.wait(2).await;
    until(&node, &at("deliveries?status=retrying"), |all| all["deliveries"].as_array().map(Vec::len) == Some(1)).await;
    assert!(node.get(&world.record(ORDER)).await.text.contains(MARKER));
    let count = at(&format!("commerce/orders/count?connectionId={}", world.connection));
    let before = node.get(&count).await.ok()["count"].as_u64().expect("a number");
    assert!(is_on_disk(node.folder.path(), MARKER), "else nothing below says anything");

    let wish = json!({"connectionId": world.connection, "topic": "commerce/orders", "remoteId": ORDER});
    let done = erase(&node, wish.clone()).await;
    assert_eq!((&done["counts"]["records"], &done["counts"]["events"]), (&json!(1), &json!(1)), "{done}");
    assert_eq!(done.get("remoteIds"), None, "what it named is forgotten: {done}");
    node.get(&world.record(ORDER)).await.refused(404, "record-not-found");
    assert_eq!(node.get(&count).await.ok()["count"], before - 1);
    let events = node.get(&world.events(ORDER)).await.ok();
    let left: Vec<_> = events["events"].as_array().expect("a list").iter().map(|e| text(&e["updateType"])).collect();
    assert_eq!(left, ["deleted"]);
    for receiver in [&well, &sick] {
        let told = receiver.wait(3).await.pop().expect("deleted").json();
        assert_eq!((&told["updateType"], &told["dataPayload"]["remoteId"]), (&json!("deleted"), &json!(ORDER)));
        assert_eq!(told["dataPayload"]["remoteDeleted"], true);
        assert!(told["dataPayload"].get("orderNumber").is_none() && told["raw"].is_null(), "{told}");
    }
    // What waited is not sent any more, and says why; what its receiver answered is gone too.
    let ended = node.get(&at("deliveries?status=cancelled")).await.ok();
    assert_eq!(ended["deliveries"].as_array().map(Vec::len), Some(1), "{ended}");
    assert_eq!(
        (&ended["deliveries"][0]["statusReason"], &ended["deliveries"][0]["topic"]),
        (&json!("erased"), &Value::Null)
    );
    let id = text(&ended["deliveries"][0]["deliveryId"]);
    let shown = node.get(&at(&format!("deliveries/{id}"))).await.ok();
    assert_eq!(shown["delivery"]["attempts"][0].get("answer"), None, "{shown}");
    node.post(&at(&format!("deliveries/{id}/resend")), json!({})).await.refused(404, "event-not-found");
    // Both rows of the webhook are empty, those of the other order are not.
    for owner in [format!("integrations/{}", world.integration), format!("connections/{}", world.connection)] {
        let inbox = node.get(&at(&format!("{owner}/inbox"))).await.ok();
        let rows = inbox["inbox"].as_array().expect("a list");
        let is_erased = |row: &&Value| row["verdict"] == "erased" && row["body"] == "" && row["note"] == "erased";
        assert_eq!((rows.len(), rows.iter().filter(is_erased).count()), (2, 1), "{inbox}");
        let gone = rows.iter().find(is_erased).expect("one");
        let again = at(&format!("{owner}/inbox/{}/reprocess", text(&gone["inboxId"])));
        node.post(&again, json!({})).await.refused(409, "conflict");
    }
    assert!(!is_on_disk(node.folder.path(), MARKER), "the bytes are off the disk");
    assert!(node.get(&world.record("3000002")).await.ok()["order"]["orderNumber"] == "another");

    let again = erase(&node, wish).await;
    assert_eq!(again["counts"]["records"], 0, "{again}");
    assert_eq!(node.get(&world.events(ORDER)).await.ok()["events"].as_array().map(Vec::len), Some(1));
    // The app shows it still: told of it anew, it is a new record.
    world.push(&node, "order.updated", ORDER, "").await;
    let types = |all: &Value| all["events"].as_array().map(|all| all.iter().map(|e| e["updateType"].clone()).collect());
    until(&node, &world.events(ORDER), |all| types(all) == Some(vec![json!("created"), json!("deleted")])).await;
    let audit = node.get(&at("audit")).await;
    let acts: Vec<_> = audit.ok()["audit"].as_array().expect("a list").iter().map(|e| text(&e["act"])).collect();
    assert_eq!(acts, ["erasure.completed", "erasure.asked", "erasure.completed", "erasure.asked"]);
    assert!(!audit.text.contains(ORDER), "no record is named: {}", audit.text);
    node.stop().await;
}

#[actix::test]
async fn a_user_that_is_erased_leaves_ids_alone() {
    let node = Node::start().await;
    let world = World::new(&node).await;
    let published = json!({"topic": "crm/contacts", "userId": world.user, "dataPayload": {"id": 7, "name": MARKER}});
    assert_eq!(node.post(&at("events"), published).await.status, 202);
    let others = json!({"topic": "crm/contacts", "dataPayload": {"id": 8, "name": "of nobody"}});
    assert_eq!(node.post(&at("events"), others).await.status, 202);
    world.change(&node, ORDER, MARKER).await;
    until(&node, &world.events(ORDER), |all| all["events"].as_array().map(Vec::len) == Some(1)).await;
    let done = erase(&node, json!({"userId": "ann"})).await;
    assert!(done["counts"]["records"].as_u64() >= Some(50), "{done}");
    let all = node.get(&at("events?limit=250")).await.ok();
    let all = all["events"].as_array().expect("a list");
    let others = all.iter().filter(|event| event["updateType"] != "deleted").count();
    assert_eq!((others, all.len() as u64), (1, 1 + done["counts"]["records"].as_u64().expect("a number")));
    assert!(!is_on_disk(node.folder.path(), MARKER));
    let audit = node.get(&at("audit?limit=1")).await.ok();
    assert_eq!(audit["audit"][0]["counts"], done["counts"]);
    let asked = node.get(&at(&format!("audit?cursor={}", text(&audit["next"])))).await.ok();
    assert_eq!(
        (&asked["audit"][0]["act"], &asked["audit"][0]["userId"]),
        (&json!("erasure.asked"), &json!(world.user))
    );
    node.stop().await;
}

#[actix::test]
async fn a_webhook_of_the_app_starts_an_erasure_for_its_record() {
    let node = Node::start().await;
    let world = World::new(&node).await;
    world.change(&node, ORDER, MARKER).await;
    until(&node, &world.events(ORDER), |all| all["events"].as_array().map(Vec::len) == Some(1)).await;
    world.push(&node, "order.erased", ORDER, MARKER).await;
    let all = until(&node, &at("erasures"), |all| all["erasures"][0]["state"] == "completed").await;
    let one = &all["erasures"][0];
    assert_eq!((&one["cause"], &one["connectionId"]), (&json!("webhook"), &json!(world.connection)), "{one}");
    assert_eq!((&one["counts"]["records"], &one["counts"]["events"]), (&json!(1), &json!(1)), "{one}");
    let events = node.get(&world.events(ORDER)).await.ok();
    assert_eq!(
        (events["events"].as_array().map(Vec::len), &events["events"][0]["updateType"]),
        (Some(1), &json!("deleted"))
    );
    // What told of it is history like the rest.
    let inbox = node.get(&at(&format!("connections/{}/inbox", world.connection))).await;
    assert!(!inbox.text.contains(MARKER), "{}", inbox.text);
    assert!(!is_on_disk(node.folder.path(), MARKER));
    let audit = node.get(&at("audit")).await.ok();
    let asked = &audit["audit"][1];
    assert_eq!((&asked["act"], &asked["recordsNamed"]), (&json!("erasure.asked"), &json!(1)), "{audit}");
    assert_eq!((&asked["actor"]["kind"], &asked["actor"]["connectionId"]), (&json!("app"), &json!(world.connection)));
    node.stop().await;
}

#[actix::test]
async fn who_may_not_erase_is_refused_and_other_workspaces_see_nothing() {
    let node = Node::start().await;
    let world = World::new(&node).await;
    let all = at("erasures");
    for (wish, code) in [
        (json!({}), "invalid"),
        (json!({"userId": "ann", "connectionId": world.connection}), "invalid"),
        (json!({"userId": "ann", "topic": "crm/contact"}), "unknown-topic"),
        (json!({"userId": "ann", "topic": "sync/completed"}), "unknown-topic"),
        (json!({"userId": "ann", "remoteId": "x".repeat(2_000)}), "invalid"),
        (json!({"userId": "ann", "remote": "x"}), "unknown-field"),
    ] {
        node.post(&all, wish).await.refused(422, code);
    }
    node.post(&all, json!({"userId": "nobody"})).await.refused(404, "user-not-found");
    node.post(&all, json!({"connectionId": "00".repeat(12)})).await.refused(404, "connection-not-found");
    let key = text(&node.post(&at("keys"), json!({"name": "w", "scopes": ["write"]})).await.ok()["key"]["apiKey"]);
    for (method, path) in [("GET", "erasures"), ("POST", "erasures"), ("GET", "audit"), ("GET", "users/ann/export")] {
        node.call_as(&key, method, &at(path), Some(json!({"userId": "ann"}))).await.refused(403, "forbidden");
    }
    let done = erase(&node, json!({"connectionId": world.connection})).await;
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let two = text(&two["key"]["apiKey"]);
    let theirs = |wish: Value| node.call_as(&two, "POST", &all, Some(wish));
    theirs(json!({"connectionId": world.connection})).await.refused(404, "connection-not-found");
    theirs(json!({"userId": world.user})).await.refused(404, "user-not-found");
    let one = at(&format!("erasures/{}", text(&done["erasureId"])));
    node.call_as(&two, "GET", &one, None).await.refused(404, "erasure-not-found");
    assert_eq!(node.call_as(&two, "GET", &all, None).await.ok(), json!({"erasures": []}));
    assert_eq!(node.call_as(&two, "GET", &at("audit"), None).await.ok(), json!({"audit": []}));
    // A connection that is gone has left its events here, not there.
    node.call("DELETE", &at(&format!("connections/{}", world.connection)), None).await.ok();
    theirs(json!({"connectionId": world.connection})).await.refused(404, "connection-not-found");
    erase(&node, json!({"connectionId": world.connection})).await;
    node.stop().await;
}

/// Dies at the n-th time that a batch with an erasure in it is made or written; keeps what that leaves.
#[derive(Default)]
struct Plot {
    is_armed: bool,
    asked: usize,
    wreck: Option<TempDir>,
}

#[actix::test]
async fn an_erasure_goes_on_after_a_crash_at_any_of_its_commits_and_tells_once() {
    let node = Node::start().await;
    let world = World::new(&node).await;
    world.change(&node, ORDER, MARKER).await;
    until(&node, &world.events(ORDER), |all| all["events"].as_array().map(Vec::len) == Some(1)).await;
    let base = node.stop().await;
    let wish = json!({"connectionId": world.connection, "topic": "commerce/orders", "remoteId": ORDER});
    let (mut graves, mut deaths) = (Graves::default(), 0);
    for number in 0.. {
        let folder = wreck::copy(base.path());
        let (plot, path) = (Arc::new(Mutex::new(Plot::default())), folder.path().to_owned());
        let plotted = plot.clone();
        let stops = Stops::planned(Arc::new(move |point, tables: &[Table]| {
            let mut plot = plotted.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = plot.is_armed && matches!(point, Point::Made | Point::Written);
            if plot.wreck.is_some() || !counts || !tables.contains(&Table::Erasures) {
                return plot.wreck.is_none();
            }
            plot.asked += 1;
            if plot.asked == number + 1 {
                plot.wreck = Some(wreck::copy(&path));
            }
            plot.wreck.is_none()
        }));
        let seams = Seams { stops, ..Seams::default() };
        let node = Node::open(folder, &[], api::configure, app::wall_clock(), seams).await;
        plot.lock().unwrap_or_else(PoisonError::into_inner).is_armed = true;
        node.post(&at("erasures"), wish.clone()).await;
        let wreck = loop {
            if let Some(wreck) = plot.lock().unwrap_or_else(PoisonError::into_inner).wreck.take() {
                break Some(wreck);
            }
            let all = node.get(&at("erasures")).await;
            if all.status == 200 && all.json()["erasures"][0]["state"] == "completed" {
                // Its last commit shows before the death that follows it is through.
                break plot.lock().unwrap_or_else(PoisonError::into_inner).wreck.take();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let Some(wreck) = wreck else {
            node.stop().await;
            break;
        };
        deaths += 1;
        node.die(&mut graves).await;
        graves.fill(2).await;
        let node = Node::open(wreck, &[], api::configure, app::wall_clock(), Seams::default()).await;
        if node.get(&at("erasures")).await.ok()["erasures"] == json!([]) {
            // It was not acknowledged, so it is asked for again.
            node.post(&at("erasures"), wish.clone()).await.ok();
        }
        until(&node, &at("erasures"), |all| all["erasures"][0]["state"] == "completed").await;
        let events = node.get(&world.events(ORDER)).await.ok();
        let left: Vec<_> =
            events["events"].as_array().expect("a list").iter().map(|e| text(&e["updateType"])).collect();
        assert_eq!(left, ["deleted"], "death {number}");
        node.get(&world.record(ORDER)).await.refused(404, "record-not-found");
        let folder = node.stop().await;
        assert!(!is_on_disk(folder.path(), MARKER), "death {number}");
    }
    graves.fill(0).await;
    assert!(deaths >= 10, "{deaths} deaths");
}
