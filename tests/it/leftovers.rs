//! What a deleted connection leaves on the store: its events, which are the workspace's log and have an age of their own, and
//! nothing else. Read from the real families of the store's files, row by row.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, MergeOperands, Options};
use serde_json::{Value, json};
use tidemill::api;
use tidemill::app::{self, Seams};
use tidemill::domain::connection::Farewell;
use tidemill::domain::id::ConnectionId;

use crate::support::api::Node;
use crate::support::hubspot::{CLIENT, HubSpot, hint, sign};
use crate::support::receiver::Receiver;
use crate::support::salesforce::{self, ORG, Salesforce};

const PUBLIC: (&str, &str) = ("TIDEMILL__SERVER__PUBLIC_URL", "https://tide.example");

fn at(path: &str) -> String {
    format!("/2024-03/one/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

fn last(_: &[u8], before: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    operands.iter().last().or(before).map(<[u8]>::to_vec)
}

/// The families in which a row, its key or its value, holds one of these.
fn families_with(folder: &Path, marks: &[Vec<u8>]) -> BTreeSet<String> {
    let path = folder.join("data/db");
    let mut options = Options::default();
    // Counters cannot be read without; what they come to does not matter here.
    options.set_merge_operator_associative("add", last);
    let names = DB::list_cf(&options, &path).expect("families");
    assert!(names.len() > 20, "{names:?}");
    let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    let db = DB::open_cf_descriptors_read_only(&options, &path, families, false).expect("opened");
    let holds = |bytes: &[u8]| marks.iter().any(|mark| bytes.windows(mark.len()).any(|part| part == mark));
    let has_some = |name: &&String| {
        let family = db.cf_handle(name).expect("a family");
        db.iterator_cf(&family, IteratorMode::Start).any(|row| {
            let (key, value) = row.expect("a row");
            holds(&key) || holds(&value)
        })
    };
    names.iter().filter(has_some).cloned().collect()
}

/// A connection that has something in every place where connections have something.
struct Busy {
    id: String,
    /// What only its own rows may hold.
    marks: Vec<Vec<u8>>,
}

impl Busy {
    async fn new(node: &Node, wish: Value, secrets: &[&str]) -> Self {
        let made = node.post(&at("connections"), wish).await.ok()["connection"].clone();
        let id = text(&made["connectionId"]);
        let whole = |answer: &Value| {
            let all = answer["connection"]["collections"].as_array().expect("collections");
            !all.is_empty() && all.iter().all(|c| c["baselineAt"].is_string())
        };
        node.until(&at(&format!("connections/{id}")), whole).await;
        let shown = node.get(&at(&format!("connections/{id}"))).await.ok();
        // The token in the address of its own webhook, where the app has such a webhook.
        let token = shown["connection"]["webhookUri"].as_str().and_then(|uri| uri.rsplit('/').next());
        let raw = id.parse::<ConnectionId>().expect("an id").0.to_vec();
        let secrets = secrets.iter().copied().chain(token).map(|secret| secret.as_bytes().to_vec());
        let marks = [raw, id.clone().into_bytes()].into_iter().chain(secrets).collect();
        Self { id, marks }
    }
}

async fn integration(node: &Node, connector: &str, parameters: Value) -> String {
    let made = node.post(&at("integrations"), json!({"connector": connector, "parameters": parameters})).await.ok();
    text(&made["integration"]["integrationId"])
}

/// Deletes it and waits until its app was told.
async fn delete(node: &Node, id: &str) {
    assert_eq!(node.call("DELETE", &at(&format!("connections/{id}")), None).await.status, 200);
    let owner = id.parse::<ConnectionId>().expect("an id").0;
    let end = Instant::now() + Duration::from_secs(30);
    while node.engine.store.object_anywhere::<Farewell>(&owner).expect("read").is_some() {
        assert!(Instant::now() < end, "the app is not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix::test]
async fn a_deleted_connection_leaves_its_events_and_nothing_else() {
    let node = Node::start_with(&[PUBLIC], api::configure).await;
    node.post(&at("users"), json!({"username": "ada"})).await.ok();
    let receiver = Receiver::start();
    // With a webhook that a person pastes, fields of its own, cursors of two lists, and a token that is taken back.
    let org = Salesforce::start();
    org.put("Order", json!({"OrderNumber": "1"}), 9_000);
    let parameters =
        json!({"clientId": salesforce::CLIENT.0, "clientSecret": salesforce::CLIENT.1, "loginUri": org.url});
    let through = integration(&node, "salesforce", parameters).await;
    let (access, refresh) = org.grant();
    let wish = json!({"userId": "ada", "integrationId": through, "parameters": {"baseUri": org.url},
        "credentials": {"accessToken": access, "refreshToken": refresh}, "collections": ["contacts", "orders"]});
    let one = Busy::new(&node, wish, &[&access, &refresh]).await;
    // With an event of the app's webhook that is switched on.
    let hub = HubSpot::start();
    let parameters = json!({"baseUri": hub.url, "clientId": CLIENT.0, "clientSecret": CLIENT.1});
    let through = integration(&node, "hubspot", parameters).await;
    let (access, refresh) = hub.tokens(111);
    let wish = json!({"userId": "ada", "integrationId": through,
        "credentials": {"accessToken": access, "refreshToken": refresh}, "collections": ["contacts"]});
    let two = Busy::new(&node, wish, &[&access, &refresh]).await;
    // Subscriptions of their own, with a delivery each.
    for busy in [&one, &two] {
        let body = json!({"address": receiver.address, "topic": ["crm/contacts"], "connectionId": busy.id});
        node.post(&at("webhooks"), body).await.ok();
    }
    let contact = org.put("Contact", json!({"LastName": "Lee"}), 0);
    let shown = node.get(&at(&format!("connections/{}", one.id))).await.ok();
    let uri = text(&shown["connection"]["webhookUri"]).replace(PUBLIC.1, "");
    let message = Salesforce::message(ORG, "Contact", &[&contact]);
    assert_eq!(node.send("POST", &uri, &[("content-type", "text/xml")], &message).await.status, 200);
    let hooks = node.get(&at(&format!("integrations/{through}/webhooks"))).await.ok();
    let hook = text(&hooks["webhooks"][0]["uri"]);
    let made = hub.make(111, "contacts", &[("firstname", "Ada")]);
    let (body, now) = (json!([hint(111, "contact.creation", made, json!({}))]).to_string(), node.state.clock.wall());
    let (signature, time) = (sign(CLIENT.1, &hook, &body, now), now.0.to_string());
    let headers = [("x-hubspot-signature-v3", signature.as_str()), ("x-hubspot-request-timestamp", time.as_str())];
    assert_eq!(node.send("POST", &hook.replace(PUBLIC.1, ""), &headers, &body).await.status, 200);
    receiver.wait(2).await;
    // A call that failed is remembered with the connection, and so is a sync that was asked for.
    for busy in [&one, &two] {
        node.post(&at(&format!("connections/{}/sync", busy.id)), json!({"mode": "full"})).await;
    }

    let folder = node.stop().await;
    for busy in [&one, &two] {
        let found = families_with(folder.path(), &busy.marks);
        for family in
            ["by_workspace", "connections", "events", "events_by_record", "inbox", "links", "objects", "pulls"]
        {
            assert!(found.contains(family), "{family}: {found:?}");
        }
        for family in ["secrets", "snapshots"] {
            assert!(found.contains(family), "{family}: {found:?}");
        }
        let secrets = families_with(folder.path(), &busy.marks[2..]);
        assert!(secrets.is_empty(), "a secret stands there in plain: {secrets:?}");
    }
    let node = Node::open(folder, &[PUBLIC], api::configure, app::wall_clock(), Seams::default()).await;
    for busy in [&one, &two] {
        delete(&node, &busy.id).await;
    }
    let folder = node.stop().await;
    for busy in [&one, &two] {
        let found: Vec<String> = families_with(folder.path(), &busy.marks).into_iter().collect();
        assert_eq!(found, ["events", "events_by_record"]);
    }
    drop(folder);
}
