//! HubSpot, connected through a real node to a fake of its API: webhooks and polls, tokens, both body versions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::api;

use crate::support::api::{Answer, Node};
use crate::support::browser::Browser;
use crate::support::clients;
use crate::support::hubspot::{CLIENT, HubSpot, hint, sign, stage};
use crate::support::receiver::{Received, Receiver};

/// Where HubSpot sees the node.
const PUBLIC: &str = "https://tide.example/mill";
const CONTACTS: &str = "/crm/v3/objects/contacts";

fn at(path: &str) -> String {
    format!("/2024-03/one/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

struct Desk {
    node: Node,
    hub: HubSpot,
    integration: String,
    /// Where HubSpot sends webhooks, as the node says.
    hook: String,
}

impl Desk {
    async fn new() -> Self {
        let node = Node::start_with(&[("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC)], api::configure).await;
        let hub = HubSpot::start();
        for name in ["ann", "bob"] {
            node.post(&at("users"), json!({ "username": name })).await.ok();
        }
        let parameters = json!({"baseUri": hub.url, "clientId": CLIENT.0, "clientSecret": CLIENT.1,
            "authorizeUrl": format!("{}/oauth/authorize", hub.url)});
        let made = node.post(&at("integrations"), json!({"connector": "hubspot", "parameters": parameters})).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        let hooks = node.get(&at(&format!("integrations/{integration}/webhooks"))).await.ok();
        let hook = text(&hooks["webhooks"][0]["uri"]);
        assert!(hook.starts_with(PUBLIC) && hook.ends_with("/app"), "{hook}");
        Self { node, hub, integration, hook }
    }

    /// Connects a portal with these credentials and waits for its first sync.
    async fn connect(&self, user: &str, credentials: Value, collections: &[&str]) -> String {
        let wish = json!({"userId": user, "integrationId": self.integration, "credentials": credentials,
            "collections": collections});
        let made = self.node.post(&at("connections"), wish).await.ok();
        let id = text(&made["connection"]["connectionId"]);
        self.until(&at(&format!("connections/{id}")), |answer| {
            let all = answer["connection"]["collections"].as_array().expect("collections");
            all.len() == collections.len() && all.iter().all(|c| c["baselineAt"].is_string())
        })
        .await;
        id
    }

    /// Asks until it fits.
    async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.node.until(path, fits).await
    }

    /// A webhook as HubSpot sends it: signed over the address that it was given.
    async fn send(&self, items: &[Value]) -> Answer {
        self.send_to(&self.hook, items, CLIENT.1).await
    }

    async fn send_to(&self, uri: &str, items: &[Value], secret: &str) -> Answer {
        let (body, now) = (Value::from(items.to_vec()).to_string(), self.node.state.clock.wall());
        let signature = sign(secret, uri, &body, now);
        let (time, path) = (now.0.to_string(), uri.strip_prefix(PUBLIC).expect("of the node"));
        let headers = [
            ("content-type", "application/json"),
            ("x-hubspot-signature-v3", signature.as_str()),
            ("x-hubspot-request-timestamp", time.as_str()),
            ("x-hubspot-signature", "a v1 that nobody looks at"),
        ];
        self.node.send("POST", path, &headers, &body).await
    }

    /// Asks for a sync and waits for its end.
    async fn sync(&self, connection: &str, mode: &str) -> Value {
        let asked = self.node.post(&at(&format!("connections/{connection}/sync")), json!({ "mode": mode })).await;
        let pull = asked.json()["pullId"].clone();
        let of = |answer: &Value| {
            answer["pulls"].as_array().and_then(|all| all.iter().find(|p| p["pullId"] == pull)).cloned()
        };
        let path = at(&format!("connections/{connection}/pulls?limit=250"));
        let fits = |answer: &Value| of(answer).is_some_and(|pull| pull["outcome"] != "running");
        of(&self.until(&path, fits).await).expect("a pull")
    }

    /// (update type, remote id) of the records' events of a connection, oldest first.
    async fn told(&self, connection: &str) -> Vec<(String, String)> {
        let log = self.node.get(&at(&format!("events?connectionId={connection}&limit=250"))).await.ok();
        let all = log["events"].as_array().expect("events").iter().rev();
        let of_records = all.filter(|event| event["remoteId"].is_string());
        of_records.map(|event| (text(&event["updateType"]), text(&event["remoteId"]))).collect()
    }

    /// Waits until so many were told.
    async fn wait_told(&self, connection: &str, count: usize) -> Vec<(String, String)> {
        let path = at(&format!("events?connectionId={connection}&limit=250"));
        self.until(&path, |log| {
            let all = log["events"].as_array().expect("events");
            all.iter().filter(|event| event["remoteId"].is_string()).count() >= count
        })
        .await;
        self.told(connection).await
    }

    async fn count(&self, topic: &str) -> usize {
        let log = self.node.get(&at("events?limit=250")).await.ok();
        log["events"].as_array().expect("events").iter().filter(|event| event["topic"] == topic).count()
    }

    /// Waits until no webhook of the integration waits.
    async fn inbox(&self, rows: usize) -> Vec<Value> {
        let path = at(&format!("integrations/{}/inbox?limit=250", self.integration));
        let answer = self
            .until(&path, |answer| {
                let all = answer["inbox"].as_array().expect("an inbox");
                all.len() >= rows && all.iter().all(|row| row["state"] == "done")
            })
            .await;
        answer["inbox"].as_array().expect("an inbox").clone()
    }
}

fn token(portal: u64) -> Value {
    json!({"accessToken": format!("pat-{portal}")})
}

#[actix::test]
async fn a_batch_for_two_portals_reaches_each_its_own_and_what_nobody_knows_is_kept_with_its_reason() {
    let desk = Desk::new().await;
    let mine = desk.hub.import(111, "contacts", 30);
    let theirs = desk.hub.import(222, "contacts", 39);
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    let bob = desk.connect("bob", token(222), &["contacts"]).await;
    assert_eq!((desk.told(&ann).await, desk.told(&bob).await), (vec![], vec![]), "the first sync is silent");

    let mut items = Vec::new();
    for id in &mine {
        desk.hub.change(111, "contacts", *id, &[("firstname", "Ada"), ("lastname", "Weiß")]);
        // One event id for all of them: it is not unique.
        items.push(hint(
            111,
            "contact.propertyChange",
            *id,
            json!({"propertyName": "firstname", "propertyValue": "Ada"}),
        ));
        items.push(hint(
            111,
            "contact.propertyChange",
            *id,
            json!({"propertyName": "lastname", "propertyValue": "Weiß"}),
        ));
    }
    for id in &theirs {
        desk.hub.change(222, "contacts", *id, &[("firstname", "Bela")]);
        items.push(hint(222, "contact.propertyChange", *id, json!({"propertyName": "firstname"})));
    }
    items.push(hint(999, "contact.creation", 1, json!({})));
    assert_eq!(items.len(), 100);
    let answer = desk.send(&items).await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    let (told_ann, told_bob) = (desk.wait_told(&ann, 30).await, desk.wait_told(&bob, 39).await);
    let updated = |ids: &[u64]| ids.iter().map(|id| ("updated".to_owned(), id.to_string())).collect::<Vec<_>>();
    let sorted = |mut told: Vec<(String, String)>| {
        told.sort();
        told
    };
    assert_eq!((sorted(told_ann), sorted(told_bob)), (updated(&mine), updated(&theirs)));
    for id in mine.iter().chain(&theirs) {
        assert_eq!(desk.hub.calls(&format!("GET {CONTACTS}/{id}")), 1, "two changes of one record are one fetch");
    }
    let row = desk.inbox(1).await.remove(0);
    assert!(text(&row["note"]).contains("no connection listens to the selector \"portal:999\""), "{row}");
    // The same batch again, as HubSpot repeats it: fetched, and nothing has changed.
    assert_eq!(desk.send(&items).await.status, 200);
    desk.inbox(2).await;
    desk.until(&at(&format!("connections/{bob}/inbox?limit=250")), |answer| {
        answer["inbox"].as_array().expect("an inbox").iter().filter(|row| row["state"] == "done").count() == 78
    })
    .await;
    assert_eq!(desk.told(&bob).await.len(), 39);
    desk.node.stop().await;
}

#[actix::test]
async fn signatures_are_judged_against_the_public_url_and_decoded_as_hubspot_does() {
    let desk = Desk::new().await;
    let items = [hint(999, "contact.creation", 1, json!({}))];
    assert_eq!(desk.send(&items).await.status, 200);
    // Parts that are decoded before they are signed, and one that is not.
    let queried = format!("{}?from=a%40b%3Ac%2Fd&x=%20%C3%A9", desk.hook);
    assert_eq!(desk.send_to(&queried, &items, CLIENT.1).await.status, 200);
    desk.send_to(&desk.hook, &items, "another secret").await.refused(401, "bad-signature");
    // Signed over what the node itself sees of its address.
    let (body, now) = (Value::from(items.to_vec()).to_string(), desk.node.state.clock.wall());
    let path = desk.hook.strip_prefix(PUBLIC).expect("of the node").to_owned();
    let stale = tidemill::domain::time::Millis(now.0 - 301_000);
    for (signed, time) in [(desk.node.url(&path), now), (desk.hook.clone(), stale)] {
        let (signature, time) = (sign(CLIENT.1, &signed, &body, time), time.0.to_string());
        let headers = [("x-hubspot-signature-v3", signature.as_str()), ("x-hubspot-request-timestamp", time.as_str())];
        desk.node.send("POST", &path, &headers, &body).await.refused(401, "bad-signature");
    }
    assert_eq!(desk.inbox(2).await.len(), 2, "what is refused is not stored");
    desk.node.stop().await;
}

/// Subscriptions in both versions, and what they get.
async fn receivers(desk: &Desk) -> [(&'static str, Receiver); 2] {
    let receivers = ["2023-12", "2024-03"].map(|version| (version, Receiver::start()));
    for (version, receiver) in &receivers {
        let body = json!({"address": receiver.address, "topic": ["crm/*", "commerce/*"]});
        desk.node.post(&format!("/{version}/one/webhooks"), body).await.ok();
    }
    receivers
}

/// A contact's life as both bodies tell it.
async fn check_life(receivers: &[(&str, Receiver); 2], id: u64) {
    for (version, receiver) in receivers {
        let came = receiver.wait(3).await;
        let bodies: Vec<Value> = came.iter().map(|one| one.json()).collect();
        let kinds: Vec<&str> = bodies.iter().filter_map(|body| body["updateType"].as_str()).collect();
        assert_eq!(kinds, ["created", "updated", "deleted"], "{version}");
        for body in &bodies {
            let (name, other) = if *version == "2023-12" { ("name", "app") } else { ("app", "name") };
            assert_eq!((body[name].as_str(), body.get(other)), (Some("HubSpot"), None), "{body}");
            let record = &body["dataPayload"];
            assert_eq!(record["remoteId"], id.to_string());
            assert_eq!(record.get("createdTimestamp").is_some(), *version == "2023-12", "{record}");
            assert_eq!(record.get("remoteUpdatedAt").is_some(), *version == "2024-03", "{record}");
        }
        assert_eq!(
            (&bodies[0]["dataPayload"]["firstName"], &bodies[1]["dataPayload"]["firstName"]),
            (&json!("Ada"), &json!("Bela"))
        );
        let email = json!([{"emailAddressType": "primary", "emailAddress": "a@example.com"}]);
        assert_eq!(bodies[1]["dataPayload"]["emailAddresses"], email);
        let deleted = bodies[2]["dataPayload"].get("remoteDeleted");
        assert_eq!(deleted, (*version == "2024-03").then_some(&Value::Bool(true)));
    }
}

const ADA: [(&str, &str); 2] = [("firstname", "Ada"), ("email", "a@example.com")];

#[actix::test]
async fn a_contact_is_created_changed_and_deleted_by_webhook_in_both_versions() {
    let desk = Desk::new().await;
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    let shown = desk.node.get(&at(&format!("connections/{ann}"))).await.ok();
    assert_eq!(shown["connection"]["account"], "111");
    let switched = &shown["connection"]["events"][0];
    assert_eq!((&switched["event"], &switched["selector"]), (&json!("changes"), &json!("portal:111")), "by itself");
    let receivers = receivers(&desk).await;
    let id = desk.hub.make(111, "contacts", &ADA);
    desk.send(&[hint(111, "contact.creation", id, json!({"changeFlag": "NEW"}))]).await;
    desk.wait_told(&ann, 1).await;
    desk.hub.change(111, "contacts", id, &[("firstname", "Bela")]);
    desk.send(&[hint(111, "contact.propertyChange", id, json!({"propertyName": "firstname"}))]).await;
    desk.wait_told(&ann, 2).await;
    // The search sees it too, and it is no second event.
    desk.sync(&ann, "incremental").await;
    desk.hub.archive(111, "contacts", id);
    desk.send(&[hint(111, "contact.deletion", id, json!({}))]).await;
    desk.wait_told(&ann, 3).await;
    check_life(&receivers, id).await;
    desk.sync(&ann, "incremental").await;
    assert_eq!(desk.told(&ann).await.len(), 3);
    desk.node.stop().await;
}

#[actix::test]
async fn a_contact_is_created_changed_and_deleted_by_poll_in_both_versions() {
    let desk = Desk::new().await;
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    let receivers = receivers(&desk).await;
    let id = desk.hub.make(111, "contacts", &ADA);
    desk.sync(&ann, "incremental").await;
    desk.hub.change(111, "contacts", id, &[("firstname", "Bela")]);
    desk.sync(&ann, "incremental").await;
    desk.hub.archive(111, "contacts", id);
    let pull = desk.sync(&ann, "incremental").await;
    assert_eq!(pull["outcome"], "completed", "{pull}");
    check_life(&receivers, id).await;
    desk.node.stop().await;
}

#[actix::test]
async fn what_the_index_shows_late_and_what_shares_one_moment_is_found() {
    let desk = Desk::new().await;
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    // The index lags: of two changes a poll sees the later one only.
    desk.hub.lag();
    let late = desk.hub.make(111, "contacts", &[("firstname", "Late")]);
    desk.sync(&ann, "incremental").await;
    assert_eq!(desk.told(&ann).await, vec![]);
    desk.hub.catch_up();
    let early = desk.hub.make(111, "contacts", &[("firstname", "Early")]);
    desk.sync(&ann, "incremental").await;
    let created = |id: u64| ("created".to_owned(), id.to_string());
    assert_eq!(desk.told(&ann).await, [created(late), created(early)]);
    // More of one moment than a page has: by id, each once, in the order of ids after the first page.
    let many = desk.hub.import(111, "contacts", 230);
    let searches = desk.hub.calls(&format!("POST {CONTACTS}/search"));
    let pull = desk.sync(&ann, "incremental").await;
    assert_eq!((pull["outcome"].as_str(), pull["created"].as_u64()), (Some("completed"), Some(230)), "{pull}");
    let of_records = format!("crm/contacts?connectionId={ann}&limit=250");
    let cached = desk.node.get(&at(&of_records)).await.ok()["contacts"].as_array().expect("contacts").len();
    assert_eq!(cached, 2 + many.len());
    let asked = desk.hub.calls(&format!("POST {CONTACTS}/search")) - searches;
    assert!(asked <= 7, "{asked}");
    desk.node.stop().await;
}

#[actix::test]
async fn every_collection_is_synced_and_mapped() {
    let desk = Desk::new().await;
    let hub = &desk.hub;
    hub.make(111, "companies", &[("name", "Ada & Co"), ("numberofemployees", "12")]);
    hub.make(111, "contacts", &[("firstname", "Ada"), ("associatedcompanyid", "9001")]);
    hub.make(111, "deals", &[("dealname", "Mill"), ("amount", "3000.10"), ("hs_primary_associated_company", "9001")]);
    hub.make(111, "leads", &[("hs_lead_name", "Bela")]);
    hub.make(111, "notes", &[("hs_note_body", "<p>Called.</p>")]);
    hub.make(111, "tasks", &[("hs_task_subject", "Call")]);
    hub.make(111, "orders", &[("hs_order_name", "#1001"), ("hs_total_price", "40.70")]);
    hub.make(111, "products", &[("name", "Mug"), ("price", "14.90")]);
    let all =
        ["accounts", "contacts", "leads", "notes", "opportunities", "orders", "products", "stages", "tasks", "users"];
    let ann = desk.connect("ann", token(111), &all).await;
    for (topic, model, field, value) in [
        ("crm/accounts", "accounts", "numberOfEmployees", json!(12)),
        ("crm/contacts", "contacts", "account", json!("9001")),
        ("crm/opportunities", "opportunities", "account", json!("9001")),
        ("crm/leads", "leads", "lastName", json!("Bela")),
        ("crm/notes", "notes", "noteContent", json!("<p>Called.</p>")),
        ("crm/tasks", "tasks", "taskSubject", json!("Call")),
        ("crm/stages", "stages", "stageName", json!("Appointment Scheduled")),
        ("crm/users", "users", "email", json!("rep@example.com")),
        ("commerce/orders", "orders", "orderNumber", json!("#1001")),
        ("commerce/products", "products", "productName", json!("Mug")),
    ] {
        let answer = desk.node.get(&at(&format!("{topic}?connectionId={ann}"))).await;
        let records = answer.ok()[model].as_array().expect("records").clone();
        assert!(records.iter().any(|record| record[field] == value), "{topic}: {records:?}");
    }
    let deals = desk.node.get(&at(&format!("crm/opportunities?connectionId={ann}"))).await;
    assert!(deals.text.contains("\"amount\":3000.10"), "to the digit: {}", deals.text);
    assert_eq!(desk.told(&ann).await, vec![]);
    desk.node.stop().await;
}

#[actix::test]
async fn every_collection_of_objects_tells_what_is_new_what_changed_and_what_went() {
    let desk = Desk::new().await;
    let kinds = [
        ("accounts", "companies", ("name", "Ada & Co"), ("domain", "ada.example")),
        ("contacts", "contacts", ("firstname", "Ada"), ("lastname", "Lovelace")),
        ("leads", "leads", ("hs_lead_name", "Bela"), ("hs_lead_name", "Bela B")),
        ("notes", "notes", ("hs_note_body", "Called."), ("hs_note_body", "Called twice.")),
        ("opportunities", "deals", ("dealname", "Mill"), ("amount", "3000.10")),
        ("orders", "orders", ("hs_order_name", "#1001"), ("hs_total_price", "40.70")),
        ("products", "products", ("name", "Mug"), ("price", "14.90")),
        ("tasks", "tasks", ("hs_task_subject", "Call"), ("hs_task_subject", "Call again")),
    ];
    let ann = desk.connect("ann", token(111), &kinds.map(|(key, ..)| key)).await;
    let receivers = receivers(&desk).await;
    let ids = kinds.map(|(_, object, first, _)| desk.hub.make(111, object, &[first]));
    let mut expected = Vec::new();
    for kind in ["created", "updated", "deleted"] {
        for ((key, object, _, more), id) in kinds.into_iter().zip(ids) {
            match kind {
                "created" => {}
                "updated" => desk.hub.change(111, object, id, &[more]),
                _ => desk.hub.archive(111, object, id),
            }
            let category = if matches!(key, "orders" | "products") { "commerce" } else { "crm" };
            expected.push((format!("{category}/{key}"), kind.to_owned(), id.to_string()));
        }
        let pull = desk.sync(&ann, "incremental").await;
        assert_eq!(pull["outcome"], "completed", "{pull}");
        let log = desk.wait_told(&ann, expected.len()).await;
        assert_eq!(log.len(), expected.len(), "{log:?}");
        expected.sort();
        for (_, receiver) in &receivers {
            let came = receiver.wait(expected.len()).await;
            let one = |one: &Received| {
                let body = one.json();
                (
                    one.header("x-alloy-topic").to_owned(),
                    text(&body["updateType"]),
                    text(&body["dataPayload"]["remoteId"]),
                )
            };
            let mut came: Vec<_> = came.iter().map(one).collect();
            came.sort();
            assert_eq!(came, expected);
        }
    }
    desk.node.stop().await;
}

/// An object that webhooks tell of: collection, object, the noun of its legacy subscriptions, its type, a property and two
/// values of it.
type Kind =
    (&'static str, &'static str, Option<&'static str>, &'static str, (&'static str, &'static str, &'static str));

const KINDS: [Kind; 8] = [
    ("accounts", "companies", Some("company"), "0-2", ("name", "Ada & Co", "Ada Ltd")),
    ("contacts", "contacts", Some("contact"), "0-1", ("firstname", "Ada", "Bela")),
    ("leads", "leads", None, "0-136", ("hs_lead_name", "Ada", "Bela")),
    ("notes", "notes", None, "0-46", ("hs_note_body", "Called.", "Called twice.")),
    ("opportunities", "deals", Some("deal"), "0-3", ("dealname", "Mill", "Large mill")),
    ("orders", "orders", None, "0-123", ("hs_order_name", "#1001", "#1002")),
    ("products", "products", Some("product"), "0-7", ("name", "Mug", "Large mug")),
    ("tasks", "tasks", None, "0-27", ("hs_task_subject", "Call", "Call again")),
];

/// Two records of one kind, and how the app names the kind.
struct Told {
    kind: Kind,
    legacy: Option<&'static str>,
    one: u64,
    other: u64,
}

impl Told {
    fn hint(&self, verb: &str, id: u64, more: Value) -> Value {
        match self.legacy {
            Some(noun) => hint(111, &format!("{noun}.{verb}"), id, more),
            None => {
                let mut item = hint(111, &format!("object.{verb}"), id, more);
                item["objectTypeId"] = self.kind.3.into();
                item
            }
        }
    }
    fn event(&self, update_type: &str, id: u64) -> (String, String, String) {
        let category = if matches!(self.kind.0, "orders" | "products") { "commerce" } else { "crm" };
        (format!("{category}/{}", self.kind.0), update_type.to_owned(), id.to_string())
    }
}

/// What both receivers got from that place on, sorted.
async fn got(receivers: &[(&'static str, Receiver); 2], from: usize, count: usize) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (version, receiver) in receivers {
        let one = |one: &Received| {
            let body = one.json();
            let (name, other) = if *version == "2023-12" { ("name", "app") } else { ("app", "name") };
            assert_eq!((body[name].as_str(), body.get(other)), (Some("HubSpot"), None), "{body}");
            let record = &body["dataPayload"];
            assert_eq!(record.get("createdTimestamp").is_some(), *version == "2023-12", "{record}");
            assert_eq!(record.get("remoteDeleted").is_some(), *version == "2024-03", "{record}");
            (one.header("x-alloy-topic").to_owned(), text(&body["updateType"]), text(&record["remoteId"]))
        };
        let mut came: Vec<_> = receiver.wait(from + count).await[from..].iter().map(one).collect();
        came.sort();
        all.push(came);
    }
    assert_eq!(all[0], all[1], "both versions tell the same");
    all.swap_remove(0)
}

#[actix::test]
async fn every_object_that_webhooks_tell_of_is_created_changed_merged_deleted_and_restored_by_them() {
    let desk = Desk::new().await;
    let ann = desk.connect("ann", token(111), &KINDS.map(|(key, ..)| key)).await;
    let receivers = receivers(&desk).await;
    let legacy = KINDS.iter().filter(|kind| kind.2.is_some()).map(|kind| (*kind, kind.2));
    let all: Vec<Told> = legacy
        .chain(KINDS.map(|kind| (kind, None)))
        .map(|(kind, legacy)| {
            let make = || desk.hub.make(111, kind.1, &[(kind.4.0, kind.4.1)]);
            Told { kind, legacy, one: make(), other: make() }
        })
        .collect();
    let hub = &desk.hub;
    type Does<'a> = &'a dyn Fn(&Told) -> (Vec<Value>, Vec<(String, String, String)>);
    let steps: [(&str, Does<'_>); 5] = [
        ("creation", &|told| {
            let of = |id: u64| told.hint("creation", id, json!({"changeFlag": "NEW"}));
            (
                vec![of(told.one), of(told.other)],
                vec![told.event("created", told.one), told.event("created", told.other)],
            )
        }),
        ("propertyChange", &|told| {
            let (name, _, value) = told.kind.4;
            hub.change(111, told.kind.1, told.one, &[(name, value)]);
            let more = json!({"propertyName": name, "propertyValue": value});
            (vec![told.hint("propertyChange", told.one, more)], vec![told.event("updated", told.one)])
        }),
        ("merge", &|told| {
            hub.merge(111, told.kind.1, told.other, told.one);
            hub.change(111, told.kind.1, told.one, &[(told.kind.4.0, "Merged")]);
            let more = json!({"primaryObjectId": told.one, "mergedObjectIds": [told.other], "newObjectId": told.one});
            let events = vec![told.event("updated", told.one), told.event("deleted", told.other)];
            (vec![told.hint("merge", told.one, more)], events)
        }),
        ("deletion", &|told| {
            hub.archive(111, told.kind.1, told.one);
            (vec![told.hint("deletion", told.one, json!({}))], vec![told.event("deleted", told.one)])
        }),
        ("restore", &|told| {
            hub.restore(111, told.kind.1, told.one);
            (vec![told.hint("restore", told.one, json!({}))], vec![told.event("created", told.one)])
        }),
    ];
    let mut from = 0;
    for (verb, does) in steps {
        let (mut items, mut expected) = (Vec::new(), Vec::new());
        for (hints, events) in all.iter().map(does) {
            items.extend(hints);
            expected.extend(events);
        }
        expected.sort();
        assert_eq!(desk.send(&items).await.status, 200, "{verb}");
        assert_eq!(got(&receivers, from, expected.len()).await, expected, "{verb}");
        from += expected.len();
    }
    // The search and the archive have nothing to add.
    assert_eq!(desk.sync(&ann, "incremental").await["outcome"], "completed");
    assert_eq!(desk.told(&ann).await.len(), from);
    desk.node.stop().await;
}

#[actix::test]
async fn stages_and_owners_come_by_the_scans_that_read_them_whole() {
    let desk = Desk::new().await;
    let ann = desk.connect("ann", token(111), &["stages", "users"]).await;
    let receivers = receivers(&desk).await;
    let owner = |id: &str, name: &str| {
        json!({"id": id, "userId": 7, "email": "bo@example.com", "type": "PERSON", "firstName": name, "lastName": "Bo",
            "createdAt": "2026-01-02T03:04:05.678Z", "updatedAt": "2026-01-02T03:04:05.678Z", "archived": false})
    };
    // A second pipeline, and one that has no stage yet.
    desk.hub.pipelines(|all| {
        all.push(json!({"id": "77", "label": "Partners", "stages": [stage("771", "Asked", 0, "0.1", "false")]}));
        all.push(json!({"id": "78", "label": "Empty", "stages": []}));
    });
    desk.hub.owners(|all| all.push(owner("7", "Bo")));
    let events = |kind: &str| {
        [("crm/stages", "771"), ("crm/users", "7")]
            .map(|(topic, id)| (topic.to_owned(), kind.to_owned(), id.to_owned()))
    };
    assert_eq!(desk.sync(&ann, "incremental").await["outcome"], "completed");
    assert_eq!(got(&receivers, 0, 2).await, events("created"));
    desk.hub.pipelines(|all| all[1]["stages"][0]["label"] = "Asked twice".into());
    desk.hub.owners(|all| all[1] = owner("7", "Boris"));
    desk.sync(&ann, "incremental").await;
    assert_eq!(got(&receivers, 2, 2).await, events("updated"));
    let told = receivers[1].1.so_far().into_iter().map(|one| one.json()["dataPayload"].clone());
    let told = told.filter(|record| record["remoteId"] == "771");
    let told: Vec<_> = told.map(|record| (text(&record["pipeline"]), text(&record["stageName"]))).collect();
    assert_eq!(told, ["Asked", "Asked twice"].map(|name| ("Partners".to_owned(), name.to_owned())));
    desk.hub.pipelines(|all| all[1]["stages"] = json!([]));
    desk.hub.owners(|all| all.truncate(1));
    desk.sync(&ann, "incremental").await;
    assert_eq!(got(&receivers, 4, 2).await, events("deleted"));
    desk.node.stop().await;
}

/// The one record of a topic that a connection has.
async fn only(desk: &Desk, connection: &str, topic: &str) -> Value {
    let answer = desk.node.get(&at(&format!("{topic}?connectionId={connection}"))).await.ok();
    let model = topic.rsplit('/').next().expect("a model");
    let records = answer[model].as_array().expect("records");
    assert_eq!(records.len(), 1, "{answer:#}");
    records[0].clone()
}

#[actix::test]
async fn every_property_of_the_accounts_own_arrives_by_poll_and_by_webhook_alike() {
    let desk = Desk::new().await;
    desk.hub.define(111, "contacts", "trade_zone", "Trade zone");
    // HubSpot's own `salutation` is neither mapped nor among the few that are asked for besides.
    let known = [("firstname", "Ada"), ("trade_zone", "North"), ("jobtitle", "Engineer"), ("salutation", "Dr")];
    let id = desk.hub.make(111, "contacts", &known);
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    let custom = |record: Value| record["customFields"].clone();
    let polled = custom(only(&desk, &ann, "crm/contacts").await);
    assert_eq!((&polled["trade_zone"], &polled["jobtitle"]), (&json!("North"), &json!("Engineer")));
    assert_eq!(polled.get("salutation"), None, "{polled}");
    let told = desk.node.get(&at(&format!("metadata/fields?topic=crm/contacts&connectionId={ann}"))).await.ok();
    assert!(told.to_string().contains("Trade zone"), "{told:#}");
    // A hint fetches the same record in the same words: nothing has changed.
    desk.send(&[hint(111, "contact.propertyChange", id, json!({"propertyName": "salutation"}))]).await;
    desk.inbox(1).await;
    desk.until(&at(&format!("connections/{ann}/inbox?limit=250")), |answer| {
        let all = answer["inbox"].as_array().expect("an inbox");
        !all.is_empty() && all.iter().all(|row| row["state"] == "done")
    })
    .await;
    assert_eq!(desk.told(&ann).await, vec![]);
    desk.hub.change(111, "contacts", id, &[("trade_zone", "South")]);
    desk.send(&[hint(111, "contact.propertyChange", id, json!({"propertyName": "trade_zone"}))]).await;
    desk.wait_told(&ann, 1).await;
    assert_eq!(custom(only(&desk, &ann, "crm/contacts").await)["trade_zone"], "South");
    assert_eq!(desk.hub.calls("GET /crm/v3/properties/contacts"), 1, "asked once a day");
    desk.node.stop().await;
}

#[actix::test]
async fn whom_notes_tasks_and_deals_are_about_comes_with_them() {
    let desk = Desk::new().await;
    let (hub, ada) = (&desk.hub, 9_001);
    let note = hub.make(111, "notes", &[("hs_note_body", "Called.")]);
    let task = hub.make(111, "tasks", &[("hs_task_subject", "Call")]);
    let deal = hub.make(111, "deals", &[("dealname", "Mill"), ("hs_primary_associated_company", "77")]);
    for from in [("notes", note), ("tasks", task), ("deals", deal)] {
        hub.associate(111, from, ("contacts", ada));
        hub.associate(111, from, ("contacts", 9_002));
    }
    hub.associate(111, ("notes", note), ("companies", 77));
    hub.associate(111, ("tasks", task), ("deals", deal));
    let ann = desk.connect("ann", token(111), &["notes", "tasks", "opportunities"]).await;
    let noted = only(&desk, &ann, "crm/notes").await;
    assert_eq!((&noted["noteContact"], &noted["noteAccount"]), (&json!("9001"), &json!("77")), "{noted}");
    assert_eq!(noted["noteOpportunity"], Value::Null);
    let done = only(&desk, &ann, "crm/tasks").await;
    assert_eq!((&done["contact"], &done["account"]), (&json!("9001"), &Value::Null), "{done}");
    assert_eq!(done["opportunity"], deal.to_string());
    let sold = only(&desk, &ann, "crm/opportunities").await;
    assert_eq!((&sold["contact"], &sold["account"]), (&json!("9001"), &json!("77")), "{sold}");
    // One record that is fetched is as whole as one of a list.
    hub.associate(111, ("deals", deal), ("contacts", 9_003));
    desk.send(&[hint(111, "deal.propertyChange", deal, json!({"propertyName": "dealname"}))]).await;
    desk.inbox(1).await;
    desk.until(&at(&format!("connections/{ann}/inbox?limit=250")), |answer| {
        let all = answer["inbox"].as_array().expect("an inbox");
        !all.is_empty() && all.iter().all(|row| row["state"] == "done")
    })
    .await;
    assert_eq!(desk.told(&ann).await, vec![]);
    desk.node.stop().await;
}

#[actix::test]
async fn associations_that_a_token_may_not_see_cost_their_fields_only() {
    let desk = Desk::new().await;
    let note = desk.hub.make(111, "notes", &[("hs_note_body", "Called.")]);
    desk.hub.associate(111, ("notes", note), ("contacts", 9_001));
    desk.hub.associate(111, ("notes", note), ("deals", 5));
    desk.hub.hide("deals");
    let ann = desk.connect("ann", token(111), &["notes"]).await;
    let noted = only(&desk, &ann, "crm/notes").await;
    assert_eq!((&noted["noteContact"], &noted["noteOpportunity"]), (&json!("9001"), &Value::Null), "{noted}");
    desk.node.stop().await;
}

#[actix::test]
async fn merges_erasures_and_restores_end_as_the_app_has_them() {
    let desk = Desk::new().await;
    let ids = desk.hub.import(111, "contacts", 5);
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    let [winner, loser, secret, back, gone] = ids[..] else { panic!("five") };
    desk.hub.merge(111, "contacts", loser, winner);
    desk.hub.change(111, "contacts", winner, &[("lastname", "Merged")]);
    desk.hub.erase(111, "contacts", secret);
    let merged = json!({"primaryObjectId": winner, "mergedObjectIds": [loser], "newObjectId": winner});
    desk.send(&[
        hint(111, "contact.merge", winner, merged),
        // Told of the one that was merged away: its id leads to the other.
        hint(111, "contact.propertyChange", loser, json!({"propertyName": "email"})),
        hint(111, "contact.privacyDeletion", secret, json!({})),
        hint(111, "contact.deletion", secret, json!({})),
    ])
    .await;
    let mut told = desk.wait_told(&ann, 3).await;
    told.sort();
    let event = |kind: &str, id: u64| (kind.to_owned(), id.to_string());
    assert_eq!(told, [event("deleted", loser), event("deleted", secret), event("updated", winner)]);
    // Archived and back, told of in one batch and in the wrong order.
    desk.hub.archive(111, "contacts", back);
    desk.hub.restore(111, "contacts", back);
    desk.hub.archive(111, "contacts", gone);
    desk.send(&[
        hint(111, "contact.restore", back, json!({})),
        hint(111, "contact.deletion", back, json!({})),
        hint(111, "contact.deletion", gone, json!({})),
    ])
    .await;
    desk.wait_told(&ann, 4).await;
    desk.sync(&ann, "full").await;
    let list = desk.node.get(&at(&format!("crm/contacts?connectionId={ann}"))).await.ok();
    let live = list["contacts"].as_array().expect("contacts").iter().filter(|c| c["remoteDeleted"] != true);
    let mut live: Vec<String> = live.map(|c| text(&c["remoteId"])).collect();
    live.sort();
    assert_eq!(live, [winner.to_string(), back.to_string()]);
    // A paused connection is told nothing but what a person wants erased.
    let erased = |count: usize| {
        move |jobs: &Value| {
            let jobs = jobs["erasures"].as_array().expect("erasures");
            jobs.len() == count && jobs.iter().all(|job| job["state"] == "completed")
        }
    };
    desk.until(&at("erasures"), erased(1)).await;
    let paused = json!({"status": "paused"});
    desk.node.call("PATCH", &at(&format!("connections/{ann}")), Some(paused)).await.ok();
    desk.hub.change(111, "contacts", winner, &[("lastname", "Later")]);
    desk.hub.erase(111, "contacts", back);
    desk.send(&[
        hint(111, "contact.propertyChange", winner, json!({"propertyName": "lastname"})),
        hint(111, "contact.privacyDeletion", back, json!({})),
    ])
    .await;
    desk.until(&at("erasures"), erased(2)).await;
    let told = desk.wait_told(&ann, 5).await;
    assert_eq!(told.last(), Some(&event("deleted", back)), "{told:?}");
    // What waited beside it is understood when the connection goes on.
    let active = json!({"status": "active"});
    desk.node.call("PATCH", &at(&format!("connections/{ann}")), Some(active)).await.ok();
    let told = desk.wait_told(&ann, 6).await;
    assert_eq!(told.last(), Some(&event("updated", winner)), "{told:?}");
    desk.node.stop().await;
}

#[actix::test]
async fn a_token_that_ends_between_two_pages_is_renewed_and_a_refused_renewal_stops_the_connection() {
    let desk = Desk::new().await;
    desk.hub.import(111, "contacts", 450);
    let (access, refresh) = desk.hub.tokens(111);
    // Good for the account, the selector, the properties and the first page of the search.
    desk.hub.expire_after(4);
    let credentials = json!({"accessToken": access, "refreshToken": refresh});
    let ann = desk.connect("ann", credentials, &["contacts"]).await;
    assert_eq!(desk.hub.calls("POST /oauth/v3/token"), 1);
    let path = at(&format!("connections/{ann}"));
    let connection = desk.node.get(&path).await.ok()["connection"].clone();
    assert_eq!((&connection["status"], &connection["collections"][0]["records"]), (&json!("active"), &json!(450)));
    desk.hub.refuse_refresh();
    desk.hub.expire_after(0);
    let pull = desk.sync(&ann, "incremental").await;
    assert_eq!(pull["outcome"], "failed", "{pull}");
    desk.until(&path, |answer| answer["connection"]["status"] == "authFailed").await;
    // An event shows once it is on disk, a moment after what it tells of.
    let told = |log: &Value| log.to_string().contains("connection/authentication_failure");
    desk.until(&at("events?limit=250"), told).await;
    assert_eq!(desk.count("connection/authentication_failure").await, 1);
    assert_eq!(desk.hub.calls("POST /oauth/v3/token"), 2, "asked once");
    desk.node.stop().await;
}

#[actix::test]
async fn limits_are_waited_out_as_hubspot_means_them() {
    let desk = Desk::new().await;
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    let limited = |policy: &str| {
        json!({"status": "error", "message": "You have reached your limit.",
        "errorType": "RATE_LIMIT", "category": "RATE_LIMITS", "policyName": policy})
    };
    for (status, body, header, least) in [
        (429, limited("DAILY"), None, 890),
        (429, limited("TEN_SECONDLY"), None, 9),
        (429, limited("SECONDLY"), None, 0),
        (423, json!({"message": "locked"}), None, 1),
        (477, json!({"message": "migration in progress"}), Some("120"), 118),
    ] {
        let headers = header.map(|seconds: &str| ("retry-after", seconds.to_owned())).into_iter().collect();
        let asked_at = desk.node.state.clock.now();
        desk.hub.fail(status, body, headers);
        let pull = desk.sync(&ann, "incremental").await;
        assert_eq!(pull["outcome"], "failed", "{pull}");
        let shown = desk.node.get(&at(&format!("connections/{ann}"))).await.ok();
        let next = text(&shown["connection"]["collections"][0]["nextPullAt"]);
        let next = tidemill::domain::time::Millis::parse_rfc3339(&next).expect("a time");
        let wait = next.since(asked_at).as_secs();
        assert!(wait >= least && wait < 1_100, "{status}: {wait}");
        assert_eq!(shown["connection"]["status"], "active");
        // Past the wait, for its budget too.
        desk.node.state.clock.raise(next.after(Duration::from_secs(1)));
    }
    desk.node.stop().await;
}

#[actix::test]
async fn an_account_is_connected_at_the_consent_page_and_its_token_taken_back() {
    let desk = Desk::new().await;
    let change = json!({"returnUrls": ["https://isv.example/done"]});
    desk.node.call("PATCH", &at(&format!("integrations/{}", desk.integration)), Some(change)).await.ok();
    let mut browser = Browser::new(&[(PUBLIC, &desk.node.url(""))]);
    let token = text(&desk.node.get("/2024-03/users/ann/token").await.ok()["token"]);
    let swap = browser.get(&format!("{PUBLIC}/connect?token={token}&returnUrl=https://isv.example/done")).await;
    let page = browser.get(swap.onward().as_str()).await;
    let hop = browser.post(&format!("{PUBLIC}/connect"), &page.form("oauth2")).await;
    let consent = hop.onward();
    let scope = consent.query_pairs().find(|(name, _)| name == "scope").expect("scopes").1.into_owned();
    assert!(scope.starts_with("oauth crm.objects.companies.read ") && scope.ends_with(" e-commerce"), "{scope}");
    let back = browser.get(consent.as_str()).await.onward();
    let end = browser.get(back.as_str()).await.onward();
    assert!(end.as_str().starts_with("https://isv.example/done?connectionId="), "{end}");
    let all = desk.node.get(&at("connections?userId=ann")).await.ok();
    let connection = &all["connections"][0];
    assert_eq!((&connection["account"], &connection["parameters"]["portalId"]), (&json!("111"), &json!(111)));
    let path = at(&format!("connections/{}", text(&connection["connectionId"])));
    desk.until(&path, |answer| answer["connection"]["events"][0]["selector"] == "portal:111").await;
    // Switched off stays off; and who goes takes the token along.
    desk.node.call("DELETE", &format!("{path}/events"), Some(json!({"event": "changes"}))).await.ok();
    assert_eq!(desk.node.get(&path).await.ok()["connection"]["events"], json!([]));
    desk.node.call("DELETE", &path, None).await.ok();
    let end = Instant::now() + Duration::from_secs(30);
    while !desk.hub.is_revoked("rt-111-1") {
        assert!(Instant::now() < end, "the token stays good");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    desk.node.stop().await;
}

#[actix::test]
async fn the_date_based_paths_are_used_where_they_are_chosen() {
    let desk = Desk::new().await;
    let change = json!({"parameters": {"objectsPath": "/crm/objects/2026-03"}});
    desk.node.call("PATCH", &at(&format!("integrations/{}", desk.integration)), Some(change)).await.ok();
    desk.hub.import(111, "contacts", 3);
    let ann = desk.connect("ann", token(111), &["contacts"]).await;
    desk.sync(&ann, "incremental").await;
    assert!(desk.hub.calls("POST /crm/objects/2026-03/contacts/search") >= 2);
    assert_eq!(desk.hub.calls("POST /crm/v3/"), 0);
    desk.node.stop().await;
}

#[actix::test]
async fn hubspots_own_client_reads_the_fake_and_verifies_what_is_signed() {
    let desk = Desk::new().await;
    let ids = desk.hub.import(111, "contacts", 7);
    desk.hub.archive(111, "contacts", ids[6]);
    let (body, now) = (r#"[{"eventId":1}]"#, desk.node.state.clock.wall());
    let signature = sign(CLIENT.1, &desk.hook, body, now);
    let time = now.0.to_string();
    let arguments = [desk.hub.url.as_str(), "pat-111", &desk.hook, CLIENT.1, body, &time, &signature];
    if let Some(said) = clients::run("hubspot", "hubspot", &arguments).await {
        let said: Value = serde_json::from_str(said.trim()).expect("JSON");
        let all: Vec<String> = ids[..6].iter().map(u64::to_string).collect();
        assert_eq!(said["searched"], json!(all));
        assert_eq!((&said["listed"], &said["archived"]), (&json!(6), &json!([ids[6].to_string()])));
        assert_eq!((&said["beyond"], &said["signature"]), (&json!(400), &json!(true)));
        assert_eq!((&said["stages"], &said["owners"]), (&json!(3), &json!(1)));
        // And what the client signs is taken.
        let headers = [
            ("content-type", "application/json"),
            ("x-hubspot-signature-v3", said["signed"].as_str().expect("a signature")),
            ("x-hubspot-request-timestamp", time.as_str()),
        ];
        let path = desk.hook.strip_prefix(PUBLIC).expect("of the node");
        assert_eq!(desk.node.send("POST", path, &headers, body).await.status, 200);
    }
    desk.node.stop().await;
}
