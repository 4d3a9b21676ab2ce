//! `GET /one/explain` says of one record why a change was sent or not, from the app to each subscription.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::clock::Clock;
use tidemill::domain::connection::CollectionState;
use tidemill::domain::id::WorkspaceNo;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Handle, Options};
use tidemill::store::{InboxRequest, Tx};

use crate::support::api::{Node, OPERATOR};
use crate::support::receiver::Receiver;

const ONE: &str = "/2024-03/one";

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// A node that is connected to the contacts of a sandbox.
struct Desk {
    node: Node,
    app: Handle,
    http: reqwest::Client,
    connection: String,
    users: [String; 2],
}

impl Desk {
    async fn new() -> Self {
        let once = [("TIDEMILL__INGEST__HANDLE_TRIES_MAX", "1")];
        let node = Node::start_with(&once, tidemill::api::configure).await;
        let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        let user = async |name: &str| text(&node.post(&at("users"), json!({"username": name})).await.ok()["userId"]);
        let users = [user("ann").await, user("ben").await];
        let body = json!({"connector": "sandbox", "parameters": {"baseUri": app.url()}});
        let made = node.post(&at("integrations"), body).await.ok();
        let wish = json!({
            "userId": "ann", "integrationId": made["integration"]["integrationId"],
            "credentials": {"apiKey": app.key(1)}, "collections": ["crm/contacts"],
        });
        let connection = text(&node.post(&at("connections"), wish).await.ok()["connection"]["connectionId"]);
        // One that the server closes while it is taken up again would be nobody's failure.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        Self { node, app, http, connection, users }
    }

    fn question(&self, remote_id: &str) -> String {
        at(&format!("explain?connectionId={}&topic=crm/contacts&remoteId={remote_id}", self.connection))
    }

    async fn explain(&self, remote_id: &str) -> Value {
        self.node.get(&self.question(remote_id)).await.ok()["explanation"].clone()
    }

    /// Asks until it fits, for up to 20 seconds.
    async fn until(&self, remote_id: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let told = self.explain(remote_id).await;
            if fits(&told) {
                return told;
            }
            assert!(Instant::now() < end, "it stays {told:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn control(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}/control/{path}", self.app.url()));
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await;
        let answer = answer.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_str(&answer.text().await.expect("text")).expect("JSON")
    }

    /// An id that the app has.
    async fn contact(&self) -> String {
        let url = format!("{}/control/records?account=acc_1&collection=contacts", self.app.url());
        let all = self.http.get(url).send().await.expect("an answer").text().await.expect("text");
        let all: Value = serde_json::from_str(&all).expect("JSON");
        text(&all["accounts"]["acc_1"]["contacts"]["records"][0]["id"])
    }

    /// A webhook of the app whose signature was good.
    async fn webhook(&self, body: &'static str) {
        let owner: [u8; 12] = hex::decode(&self.connection).expect("hex").try_into().expect("12 bytes");
        let put = move |tx: &mut Tx<'_>| {
            let request = InboxRequest {
                workspace: WorkspaceNo::DEFAULT,
                webhook_key: String::new(),
                received_at: tx.now(),
                method: "POST".into(),
                uri: "/in/c/token".into(),
                headers: vec![("content-type".into(), b"application/json".to_vec())],
                body: body.into(),
                verdict: "verified".into(),
                event: None,
            };
            tx.put_inbox(&owner, &request.incoming()?)
        };
        self.node.engine.store.change(put).await.expect("stored");
        self.node.engine.rings.owner(owner);
    }

    async fn subscribe(&self, body: Value) -> String {
        text(&self.node.post(&at("webhooks"), body).await.ok()["subscription"]["subscriptionId"])
    }

    async fn sync(&self, mode: &str) {
        let path = at(&format!("connections/{}/sync", self.connection));
        assert_eq!(self.node.post(&path, json!({"mode": mode})).await.status, 202);
    }
}

/// The record's id as the store has it.
fn told_id(told: &Value) -> [u8; 16] {
    text(&told["record"]["id"]).parse::<uuid::Uuid>().expect("a UUID").into_bytes()
}

fn codes(told: &Value) -> Vec<&str> {
    told["findings"].as_array().expect("findings").iter().filter_map(|f| f["code"].as_str()).collect()
}

#[actix::test]
async fn each_subscription_is_told_what_became_of_the_last_event() {
    let desk = Desk::new().await;
    let id = desk.contact().await;
    let quiet = desk.until(&id, |told| told["collections"][0]["baselineAt"].is_string()).await;
    assert_eq!(codes(&quiet), ["unchanged", "no-subscription", "looked"], "{quiet:#}");
    assert_eq!((&quiet["record"]["known"], &quiet["record"]["deleted"]), (&json!(true), &json!(false)));
    assert_eq!((&quiet["events"], &quiet["pulls"][0]["mode"]), (&json!([]), &json!("first")));
    assert!(text(&quiet["summary"]).starts_with("It has made no event"), "{}", quiet["summary"]);

    let (good, bad) = (Receiver::start(), Receiver::start());
    bad.answer(std::iter::repeat_n((500, Vec::new()), 9));
    let mut asked: BTreeMap<&str, String> = BTreeMap::new();
    let (topic, to) = (json!(["crm/contacts"]), |n: u32| format!("{}?{n}", good.address));
    for (verdict, body) in [
        ("delivered", json!({"address": to(1), "topic": topic})),
        ("filtered", json!({"address": to(2), "topic": topic, "filter": "updateType == 'deleted'"})),
        ("filter-failed", json!({"address": to(3), "topic": topic, "filter": "dataPayload.missing > 1"})),
        ("not-asked", json!({"address": to(4), "topic": ["commerce/*"]})),
        ("other-user", json!({"address": to(5), "topic": topic, "userId": desk.users[1]})),
        ("other-update-type", json!({"address": to(6), "topic": topic, "updateType": ["deleted"]})),
        ("held", json!({"address": to(7), "topic": topic, "isEnabled": false})),
        ("dropped", json!({"address": to(8), "topic": topic, "isEnabled": false, "whileDisabled": "drop"})),
        ("retrying", json!({"address": bad.address, "topic": topic})),
    ] {
        asked.insert(verdict, desk.subscribe(body).await);
    }
    let before = desk.explain(&id).await;
    let verdict = |told: &Value, id: &str| {
        let all = told["subscriptions"].as_array().expect("subscriptions");
        let one = all.iter().find(|s| s["subscriptionId"] == id).unwrap_or_else(|| panic!("no {id}"));
        text(&one["verdict"])
    };
    assert_eq!(verdict(&before, &asked["delivered"]), "would-get");

    let fields = json!({"first_name": "Zed"});
    let wish = json!({"account": "acc_1", "collection": "contacts", "kind": "updated", "id": id, "fields": fields});
    desk.control("changes", wish).await;
    desk.sync("incremental").await;
    let arrived =
        |told: &Value| ["delivered", "retrying"].iter().all(|wanted| verdict(told, &asked[wanted]) == **wanted);
    let told = desk.until(&id, arrived).await;
    let found: BTreeMap<&str, String> = asked.iter().map(|(wanted, id)| (*wanted, verdict(&told, id))).collect();
    assert!(found.iter().all(|(wanted, got)| wanted == got), "{found:?}");
    let event = &told["events"][0];
    assert_eq!((&event["updateType"], &event["source"]["kind"]), (&json!("updated"), &json!("poll")), "{event}");
    assert_eq!(told["record"]["snapshot"]["lastEventId"], event["eventId"]);
    assert_eq!(codes(&told), ["event", "sent", "looked"], "{told:#}");
    assert!(text(&told["summary"]).contains("1 delivered"), "{}", told["summary"]);
    let all = told["subscriptions"].as_array().expect("subscriptions");
    let retried = all.iter().find(|s| s["verdict"] == "retrying").expect("one").clone();
    assert_eq!(retried["delivery"]["lastError"]["code"], "http-5xx");

    // One that comes now is told that it came too late.
    let late = desk.subscribe(json!({"address": to(9), "topic": topic})).await;
    assert_eq!(verdict(&desk.explain(&id).await, &late), "made-later");
    desk.node.stop().await;
}

#[actix::test]
async fn what_stands_in_the_way_is_named() {
    let desk = Desk::new().await;
    let id = desk.contact().await;
    desk.until(&id, |told| told["record"]["known"] == true).await;
    let told = desk.explain("nobody").await;
    assert!(codes(&told).contains(&"record-unknown"), "{told:#}");
    assert_eq!((&told["record"]["known"], &told["events"]), (&json!(false), &json!([])));
    // A webhook that arrives and cannot be understood stays in the inbox, and is told of.
    desk.webhook(r#"{"id":"nobody""#).await;
    desk.webhook(r#"{"id":"somebody""#).await;
    let parked = |told: &Value| {
        let all = told["inbox"].as_array().expect("webhooks");
        all.len() == 2 && all.iter().all(|one| one["state"] == "parked")
    };
    let told = desk.until("nobody", parked).await;
    assert_eq!(codes(&told)[0], "webhook-parked", "{told:#}");
    let mentions: Vec<_> = told["inbox"].as_array().expect("webhooks").iter().map(|w| &w["mentionsRecord"]).collect();
    assert_eq!(mentions, [&json!(false), &json!(true)], "newest first");
    // A full scan misses the record, and its deletion is held.
    let (connection, record) = (desk.connection.parse().expect("an id"), told_id(&desk.explain(&id).await));
    let hold = move |tx: &mut Tx<'_>| {
        let state = tx.collection_state(connection, "contacts")?;
        tx.put_collection_state(connection, "contacts", &CollectionState { held: vec![record], ..state })
    };
    desk.node.engine.store.change(hold).await.expect("held");
    let told = desk.explain(&id).await;
    assert_eq!((codes(&told)[0], &told["collections"][0]["holdsDeletion"]), ("delete-held", &json!(true)), "{told:#}");
    assert_eq!(desk.explain("nobody").await["collections"][0]["holdsDeletion"], false);
    let status = desk.node.get(&at("status")).await.ok()["status"].clone();
    assert_eq!(
        (&status["connections"][0]["trouble"], &status["connectionTotals"]["held"]),
        (&json!("held"), &json!(1))
    );
    assert_eq!(status["connections"][0]["collections"][0]["key"], "contacts");
    // The app refuses the credentials.
    let one = at(&format!("connections/{}", desk.connection));
    desk.node.call("PATCH", &one, Some(json!({"credentials": {"apiKey": "nonsense"}}))).await.ok();
    let told = desk.until(&id, |told| codes(told).contains(&"connection-auth-failed")).await;
    assert_eq!(codes(&told)[0], "connection-auth-failed", "the most telling stands first");
    assert!(text(&told["summary"]).contains("connect again"), "{}", told["summary"]);
    let status = desk.node.get(&at("status")).await.ok()["status"].clone();
    assert_eq!(status["connections"][0]["trouble"], "auth-failed", "{status:#}");
    assert_eq!(status["connections"][0]["connectionId"], desk.connection.as_str());
    desk.node.stop().await;
}

#[actix::test]
async fn a_wrong_question_says_what_is_missing() {
    let desk = Desk::new().await;
    let (node, connection) = (&desk.node, &desk.connection);
    for (query, named) in [
        ("topic=crm/contacts&remoteId=1".to_owned(), "connectionId"),
        (format!("connectionId={connection}&remoteId=1"), "topic"),
        (format!("connectionId={connection}&topic=crm/contacts"), "remoteId"),
    ] {
        let message = node.get(&at(&format!("explain?{query}"))).await.refused(400, "malformed");
        assert!(message.starts_with(named), "{message}");
    }
    for id in ["nonsense".to_owned(), "00".repeat(12)] {
        let path = at(&format!("explain?connectionId={id}&topic=crm/contacts&remoteId=1"));
        node.get(&path).await.refused(404, "connection-not-found");
    }
    let other = at(&format!("explain?connectionId={connection}&topic=crm/contact&remoteId=1"));
    assert!(node.get(&other).await.refused(422, "unknown-topic").contains("crm/contacts"));
    let long = desk.question(&"9".repeat(2000));
    node.get(&long).await.refused(422, "invalid");
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = text(&two["key"]["apiKey"]);
    node.call_as(&theirs, "GET", &desk.question("1"), None).await.refused(404, "connection-not-found");
    desk.node.stop().await;
}
