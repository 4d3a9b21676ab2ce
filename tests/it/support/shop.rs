//! The sandbox as an app that lives through the kills of a node: one account of it is connected, things are changed in
//! it, and at the end the node is laid beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::outbound::Method;
use tidemill::sandbox::{self, Handle, Options};

use super::node::Node;
use super::receiver::Received;

const ONE: &str = "/2024-03/one";
const ACCOUNT: &str = "acc_1";
/// The app's collections, the topics of their records, and fields by which both sides are compared: (app, unified).
const COLLECTIONS: [(&str, &str, &[(&str, &str)]); 5] = [
    ("contacts", "crm/contacts", &[("first_name", "firstName"), ("company", "account")]),
    ("opportunities", "crm/opportunities", &[("title", "opportunityName"), ("stage", "opportunityStage")]),
    ("users", "crm/users", &[("name", "fullName"), ("email", "email")]),
    ("customers", "commerce/customers", &[("first_name", "firstName"), ("phone", "phone")]),
    ("orders", "commerce/orders", &[("number", "orderNumber"), ("status", "orderStatus"), ("note", "note")]),
];
/// Deletions of one collection. More than 20 in one scan would be held.
const DELETED_MAX: usize = 18;
/// The longest wait between two attempts of one of the app's webhooks.
const ATTEMPT_GAP: Duration = Duration::from_millis(5_500);

/// What a record's payload says of times; an event may be older in these than the record.
const TIMES: [&str; 3] = ["remoteUpdatedAt", "createdAt", "updatedAt"];

/// See the module.
pub struct Shop {
    app: Arc<Handle>,
    http: reqwest::Client,
    integration: String,
    connection: String,
    connected_at: String,
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn ask(
    http: &reqwest::Client,
    method: &str,
    url: String,
    key: &str,
    body: Option<Value>,
) -> Result<Value, String> {
    let mut request = http.request(method.parse().expect("a method"), &url).bearer_auth(key);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await.map_err(|e| format!("{method} {url}: {e}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|e| format!("{method} {url}: {e}"))?;
    if !status.is_success() {
        return Err(format!("{method} {url}: {status} {text}"));
    }
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

impl Shop {
    /// Starts the app, and connects its first account: with a webhook of its own, the global one, and polls.
    pub async fn open(node: &Node) -> Self {
        let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().expect("a client");
        let at = |path: &str| format!("{ONE}/{path}");
        let post = |path: String, body: Value| async move { node.call(Method::POST, &path, Some(&body)).await };
        post(at("users"), json!({"username": "ann"})).await;
        let parameters = json!({"baseUri": app.url(), "webhookSecret": "a-long-secret"});
        let made = post(at("integrations"), json!({"connector": "sandbox", "parameters": parameters})).await;
        let integration = text(&made["integration"]["integrationId"]);
        let hooks = node.call(Method::GET, &at(&format!("integrations/{integration}/webhooks")), None).await;
        let body = json!({"url": hooks["webhooks"][0]["uri"], "secret": "a-long-secret", "events": ["order.*"]});
        ask(&http, "PUT", format!("{}/app/webhook", app.url()), "sandbox-app-key", Some(body)).await.expect("pasted");
        let wish = json!({
            "userId": "ann", "integrationId": integration, "credentials": {"apiKey": app.key(1)},
            "pollIntervalSeconds": 10, "fullScanIntervalSeconds": 10,
        });
        let made = post(at("connections"), wish).await["connection"].clone();
        let connection = text(&made["connectionId"]);
        post(at(&format!("connections/{connection}/events")), json!({"event": "order-changed"})).await;
        Self { app: Arc::new(app), http, integration, connection, connected_at: text(&made["createdAt"]) }
    }

    /// Changes things in the app until told to stop; answers how many changes it made.
    pub fn change(&self, seed: u64, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Result<usize, String>> {
        let (app, http) = (self.app.clone(), self.http.clone());
        let mut rng = fastrand::Rng::with_seed(seed);
        actix_rt::spawn(async move {
            let mut deleted: BTreeMap<&str, usize> = BTreeMap::new();
            let mut made = 0;
            while !stop.load(Ordering::Relaxed) {
                let (collection, _, _) = COLLECTIONS[rng.usize(..COLLECTIONS.len())];
                let mut wish = json!({"account": ACCOUNT, "collection": collection});
                let gone = deleted.entry(collection).or_default();
                match rng.u32(..10) {
                    0 if *gone < DELETED_MAX => {
                        let listed = format!("{}/control/records?account={ACCOUNT}&collection={collection}", app.url());
                        let all = ask(&http, "GET", listed, "", None).await?;
                        let all = all["accounts"][ACCOUNT][collection]["records"].as_array().expect("records").clone();
                        if all.len() > DELETED_MAX {
                            wish["kind"] = json!("deleted");
                            wish["id"] = json!(text(&all[rng.usize(..all.len())]["id"]));
                            *gone += 1;
                        }
                    }
                    1 | 2 => wish["kind"] = json!("created"),
                    _ => {}
                }
                ask(&http, "POST", format!("{}/control/changes", app.url()), "", Some(wish)).await?;
                made += 1;
                tokio::time::sleep(Duration::from_millis(rng.u64(2..30))).await;
            }
            Ok(made)
        })
    }

    /// Asks for a sync, if the node is there to be asked.
    pub async fn sync(&self, node: &Node, full: bool) -> Option<String> {
        let body = json!({"mode": if full { "full" } else { "incremental" }});
        let path = format!("{ONE}/connections/{}/sync", self.connection);
        match node.try_call(Method::POST, &path, Some(&body)).await {
            Ok((202, answer)) => Some(text(&answer["pullId"])),
            _ => None,
        }
    }

    /// Waits until the node has looked at everything again and nothing more comes from the app, then compares.
    pub async fn agrees(&self, node: &Node, came: impl Fn() -> Vec<Received>) -> Result<(), String> {
        let asked = self.sync(node, true).await.ok_or("the last sync is not taken")?;
        let (mut last, mut since) = (Value::Null, Instant::now());
        for _ in 0..1200 {
            let counts = ask(&self.http, "GET", format!("{}/control/counts", self.app.url()), "", None).await?;
            if counts["webhooks"] != last {
                (last, since) = (counts["webhooks"].clone(), Instant::now());
            }
            let quiet = since.elapsed() > ATTEMPT_GAP;
            if quiet && self.has_run(node, &asked).await? && self.owes_nothing(node).await? {
                let accepted = last["accepted"].as_u64().expect("a number");
                self.understood(node, usize::try_from(accepted).expect("small")).await?;
                return self.compare(node, &came()).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("the app and the node do not come to rest: {last}"))
    }

    async fn get(&self, node: &Node, path: &str) -> Result<Value, String> {
        match node.try_call(Method::GET, path, None).await {
            Ok((200, answer)) => Ok(answer),
            other => Err(format!("{path}: {other:?}")),
        }
    }

    /// All pages of a list.
    async fn all(&self, node: &Node, path: &str, name: &str) -> Result<Vec<Value>, String> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(node, &format!("{path}limit=250{cursor}")).await?;
            all.extend(page[name].as_array().ok_or_else(|| format!("{path}: {page}"))?.iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }

    async fn has_run(&self, node: &Node, pull: &str) -> Result<bool, String> {
        let pulls = self.get(node, &format!("{ONE}/connections/{}/pulls?limit=250", self.connection)).await?;
        let all = pulls["pulls"].as_array().expect("pulls");
        match all.iter().find(|p| p["pullId"] == pull).map(|p| p["outcome"].as_str().unwrap_or_default()) {
            Some("completed") => Ok(true),
            Some("running") | None => Ok(false),
            Some(other) => Err(format!("the last sync ended {other}")),
        }
    }

    async fn owes_nothing(&self, node: &Node) -> Result<bool, String> {
        let answer = self.get(node, &format!("{ONE}/webhooks")).await?;
        let all = answer["subscriptions"].as_array().expect("subscriptions");
        Ok(all.iter().all(|s| s["queue"]["pending"] == 0))
    }

    /// Every webhook that the app had accepted is in an inbox, and understood.
    async fn understood(&self, node: &Node, accepted: usize) -> Result<(), String> {
        let of_connection = format!("{ONE}/connections/{}/inbox?", self.connection);
        let of_integration = format!("{ONE}/integrations/{}/inbox?", self.integration);
        let mut stored = BTreeSet::new();
        for path in [of_connection, of_integration] {
            for row in self.all(node, &path, "inbox").await? {
                if row["state"] != "done" {
                    return Err(format!("a webhook was not understood: {row}"));
                }
                let headers = row["headers"].as_array().expect("headers");
                let delivery = headers.iter().find(|header| header["name"] == "x-sandbox-delivery");
                // What a global webhook handed on is a row without headers.
                stored.extend(delivery.map(|header| text(&header["value"])));
            }
        }
        println!("{accepted} webhooks accepted, {} stored", stored.len());
        if accepted == 0 || stored.len() < accepted {
            return Err(format!("{accepted} webhooks were accepted, {} are stored", stored.len()));
        }
        Ok(())
    }

    async fn compare(&self, node: &Node, came: &[Received]) -> Result<(), String> {
        let told = Told::of(came)?;
        let log = self.all(node, &format!("{ONE}/events?connectionId={}&", self.connection), "events").await?;
        let logged: BTreeSet<String> =
            log.iter().filter(|event| event["remoteId"].is_string()).map(|event| text(&event["eventId"])).collect();
        let ids: BTreeSet<String> = told.ids();
        if logged != ids {
            let (lost, strange) = (logged.difference(&ids).count(), ids.difference(&logged).count());
            return Err(format!("{lost} events of the log never came, {strange} came that are not in it"));
        }
        let app = ask(&self.http, "GET", format!("{}/control/records?account={ACCOUNT}", self.app.url()), "", None);
        let app = app.await?;
        let mut live = BTreeMap::new();
        for (collection, topic, fields) in COLLECTIONS {
            let path = format!("{ONE}/{topic}?connectionId={}&", self.connection);
            let name = topic.split_once('/').expect("two parts").1;
            let ours = by(self.all(node, &path, name).await?, "remoteId");
            let theirs = app["accounts"][ACCOUNT][collection]["records"].as_array().expect("records").clone();
            let theirs = by(theirs, "id");
            if !ours.keys().eq(theirs.keys()) {
                return Err(format!("{collection}: the app has {:?}, the node {:?}", theirs.keys(), ours.keys()));
            }
            for (id, record) in &theirs {
                let mine = &ours[id];
                let times = [("updated_at", "remoteUpdatedAt"), ("created_at", "remoteCreatedAt")];
                for (app_name, name) in fields.iter().chain(&times) {
                    if record[app_name] != mine[name] {
                        return Err(format!("{collection} {id}: {app_name} is {record}, here it is {mine}"));
                    }
                }
                let is_new = record["created_at"].as_str() >= Some(self.connected_at.as_str());
                if is_new && !told.has(&text(&mine["id"])) {
                    return Err(format!("{collection} {id} was made after the connection, and nobody was told"));
                }
            }
            live.extend(ours.into_values().map(|record| (text(&record["id"]), record)));
        }
        println!("{} events of {} records, {} records live", ids.len(), told.0.len(), live.len());
        told.check(&live)
    }
}

fn by(records: Vec<Value>, name: &str) -> BTreeMap<String, Value> {
    records.into_iter().map(|record| (text(&record[name]), record)).collect()
}

/// Events of records as they came: by record, by event id, which sorts by the change.
struct Told(BTreeMap<String, BTreeMap<String, Value>>);

impl Told {
    fn of(came: &[Received]) -> Result<Self, String> {
        let mut told = Self(BTreeMap::new());
        for one in came {
            let body = one.json();
            let Some(record) = body["dataPayload"]["id"].as_str() else { continue };
            let id = one.header("webhook-id").to_owned();
            let former = told.0.entry(record.to_owned()).or_default().insert(id.clone(), body.clone());
            if former.is_some_and(|former| former != body) {
                return Err(format!("event {id} came with two bodies"));
            }
        }
        Ok(told)
    }
    fn ids(&self) -> BTreeSet<String> {
        self.0.values().flat_map(|events| events.keys().cloned()).collect()
    }
    fn has(&self, record: &str) -> bool {
        self.0.contains_key(record)
    }

    /// Each change of a record under one id; nothing after its end; the last one as the record is.
    fn check(&self, live: &BTreeMap<String, Value>) -> Result<(), String> {
        for (record, events) in &self.0 {
            let mut changes = BTreeMap::new();
            let mut ended = false;
            for (id, body) in events {
                if ended {
                    return Err(format!("record {record} was told of after its end: {events:#?}"));
                }
                ended = body["updateType"] == "deleted";
                let change = (text(&body["updateType"]), text(&body["dataPayload"]["remoteUpdatedAt"]));
                if let Some(former) = changes.insert(change, id) {
                    return Err(format!("one change came under {former} and {id}: {body}"));
                }
                if body["updateType"] == "created" && changes.len() > 1 {
                    return Err(format!("record {record} was created twice: {events:#?}"));
                }
            }
            let last = events.values().next_back().expect("an event");
            match live.get(record) {
                None if ended => {}
                Some(now) if !ended && same(&last["dataPayload"], now) => {}
                other => return Err(format!("record {record} is {other:?}, told last as {last}")),
            }
        }
        Ok(())
    }
}

fn same(told: &Value, now: &Value) -> bool {
    let without = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.retain(|name, _| !TIMES.contains(&name.as_str()));
        map
    };
    without(told) == without(now)
}
