//! Salesforce, connected through the engine: against a fake org that behaves as its documentation says (issue 4, cases 6
//! and 10), and the fake against the app's client library.

use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidemill::api;
use tidemill::domain::id::ConnectionId;
use tidemill::domain::time::Millis;

use crate::support::api::{Answer, Node};
use crate::support::browser::Browser;
use crate::support::clients;
use crate::support::receiver::{Received, Receiver};
use crate::support::salesforce::{CLIENT, ORG, STRANGER, Salesforce};

const PUBLIC: &str = "https://tide.example/mill";

fn at(path: &str) -> String {
    format!("/2024-03/one/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

struct Desk {
    node: Node,
    app: Salesforce,
    integration: String,
}

impl Desk {
    async fn new() -> Self {
        Self::with(json!({})).await
    }
    /// With further parameters of the integration.
    async fn with(more: Value) -> Self {
        let node = Node::start_with(&[("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC)], api::configure).await;
        let app = Salesforce::start();
        node.post(&at("users"), json!({"username": "ada"})).await.ok();
        let mut parameters = json!({"clientId": CLIENT.0, "clientSecret": CLIENT.1, "loginUri": app.url});
        for (name, value) in more.as_object().expect("an object") {
            parameters[name] = match value.as_str() {
                Some("THE APP") => app.url.as_str().into(),
                _ => value.clone(),
            };
        }
        let body = json!({"connector": "salesforce", "name": "Salesforce", "parameters": parameters});
        let made = node.post(&at("integrations"), body).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        Self { node, app, integration }
    }
    async fn connect(&self, collections: &[&str]) -> Value {
        let (access, refresh) = self.app.grant();
        let body = json!({
            "userId": "ada", "integrationId": self.integration, "parameters": {"baseUri": self.app.url},
            "credentials": {"accessToken": access, "refreshToken": refresh}, "collections": collections,
            "pollIntervalSeconds": 3600, "fullScanIntervalSeconds": 86400,
        });
        let made = self.node.post(&at("connections"), body).await.ok()["connection"].clone();
        self.baseline(&text(&made["connectionId"])).await
    }
    /// Asks until it fits.
    async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.node.until(&at(path), fits).await
    }
    /// Waits until every collection has been read once.
    async fn baseline(&self, id: &str) -> Value {
        let whole = |answer: &Value| {
            let all = answer["connection"]["collections"].as_array().expect("collections").clone();
            !all.is_empty() && all.iter().all(|c| c["baselineAt"].is_string())
        };
        self.until(&format!("connections/{id}"), whole).await["connection"].clone()
    }
    /// A sync that was asked for, once it has ended.
    async fn sync(&self, id: &str, mode: &str) -> Value {
        let asked = self.node.post(&at(&format!("connections/{id}/sync")), json!({"mode": mode})).await;
        assert_eq!(asked.status, 202, "{}", asked.text);
        let pull = text(&asked.json()["pullId"]);
        let of = |answer: &Value| {
            let all = answer["pulls"].as_array().expect("pulls").clone();
            all.into_iter().find(|p| p["pullId"] == pull.as_str() && p["outcome"] != "running")
        };
        let path = format!("connections/{id}/pulls?limit=250");
        of(&self.until(&path, |answer| of(answer).is_some()).await).expect("just seen")
    }
    async fn subscribe(&self, version: &str, topics: Value) -> Receiver {
        let receiver = Receiver::start();
        let body = json!({"address": receiver.address, "topic": topics, "include": ["changedFields"]});
        self.node.post(&format!("/{version}/one/webhooks"), body).await.ok();
        receiver
    }
    async fn count(&self, topic: &str) -> usize {
        let log = self.node.get(&at("events?limit=250")).await.ok();
        log["events"].as_array().expect("events").iter().filter(|event| event["topic"] == topic).count()
    }
    async fn message(&self, connection: &Value, body: &str) -> Answer {
        let uri = text(&connection["webhookUri"]).replace(PUBLIC, "");
        self.node.send("POST", &uri, &[("content-type", "text/xml; charset=utf-8")], body).await
    }
    async fn records(&self, topic: &str, id: &str) -> Vec<Value> {
        let name = topic.split_once('/').expect("two parts").1;
        let all = self.node.get(&at(&format!("{topic}?connectionId={id}&limit=250"))).await.ok();
        all[name].as_array().expect("records").clone()
    }
}

/// Waits until both receivers were told this and no more, in whatever order; sorted.
async fn both(receivers: [&Receiver; 2], expected: &[(String, String, String)]) {
    for receiver in receivers {
        let mut came = told(&receiver.wait(expected.len()).await);
        came.sort();
        assert_eq!(came, expected);
    }
}

fn told(came: &[Received]) -> Vec<(String, String, String)> {
    let one = |one: &Received| {
        let body = one.json();
        let (kind, id) = (text(&body["updateType"]), text(&body["dataPayload"]["remoteId"]));
        (one.header("x-alloy-topic").to_owned(), kind, id)
    };
    came.iter().map(one).collect()
}

#[actix::test]
async fn an_org_is_connected_in_the_browser_and_every_change_arrives_in_both_body_versions() {
    let desk = Desk::new().await;
    desk.app.put("Account", json!({"Name": "Acme", "Tier__c": "gold"}), 9_000);
    for object in ["Lead", "Note", "Task", "User", "OpportunityStage"] {
        desk.app.put(
            object,
            json!({"LastName": "x", "Title": "x", "Subject": "x", "Name": "x", "MasterLabel": "x"}),
            9_000,
        );
    }
    let (new, old) =
        (desk.subscribe("2024-03", json!(["crm/*"])).await, desk.subscribe("2023-12", json!(["crm/*"])).await);

    let mut browser = Browser::new(&[(PUBLIC, &desk.node.url(""))]);
    let token = text(&desk.node.get("/2024-03/users/ada/token").await.ok()["token"]);
    let swap = browser.get(&format!("{PUBLIC}/connect?token={token}&connector=salesforce")).await;
    let page = browser.get(swap.onward().as_str()).await;
    assert!(!page.text.contains("p.baseUri"), "nobody is asked for the address: {}", page.text);
    let hop = browser.post(&format!("{PUBLIC}/connect"), &page.form("oauth2")).await;
    let back = browser.get(hop.onward().as_str()).await.onward();
    let end = browser.get(back.as_str()).await;
    assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);

    let listed = desk.node.get(&at("connections")).await.ok();
    let id = text(&listed["connections"][0]["connectionId"]);
    let connection = desk.baseline(&id).await;
    assert_eq!(connection["status"], "active", "{connection}");
    assert_eq!(connection["collections"].as_array().expect("a list").len(), 10);
    let accounts = desk.records("crm/accounts", &id).await;
    assert_eq!(accounts[0]["customFields"], json!({"Tier__c": "gold", "Revenue__c": null}));
    assert_eq!(desk.records("crm/stages", &id).await.len(), 1);
    assert!(new.so_far().is_empty(), "the first sync is silent");

    // By poll.
    let contact = desk.app.put("Contact", json!({"LastName": "Lee", "Email": "lee@acme.example"}), 0);
    desk.sync(&id, "incremental").await;
    desk.app.change("Contact", &contact, json!({"FirstName": "Ann"}));
    desk.sync(&id, "incremental").await;
    desk.app.delete("Contact", &contact);
    desk.sync(&id, "incremental").await;
    // By outbound message, with an id of 15 characters.
    let other = desk.app.put("Contact", json!({"LastName": "Moe"}), 0);
    let answer = desk.message(&connection, &Salesforce::message(ORG, "Contact", &[&other[..15]])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(
        answer.text.contains("<Ack>true</Ack>") && answer.header("content-type") == Some("text/xml; charset=utf-8")
    );
    let came = new.wait(4).await;
    let expected = [("created", &contact), ("updated", &contact), ("deleted", &contact), ("created", &other)];
    let expected: Vec<_> = expected.map(|(kind, id)| ("crm/contacts".to_owned(), kind.to_owned(), id.clone())).into();
    assert_eq!(told(&came), expected);
    assert_eq!(told(&old.wait(4).await), expected);
    let (fresh, former) = (came[1].json(), old.so_far()[1].json());
    assert_eq!((fresh["app"].as_str(), former["name"].as_str()), (Some("Salesforce"), Some("Salesforce")));
    assert_eq!(fresh["changedFields"], json!(["firstName"]));
    assert!(fresh["dataPayload"]["remoteUpdatedAt"].is_string() && former["dataPayload"]["updatedTimestamp"].is_u64());
    assert_eq!(fresh["dataPayload"]["emailAddresses"][0]["emailAddress"], "lee@acme.example");
    // A message about a change, the same again, and one about a record that is gone by now.
    desk.app.change("Contact", &other, json!({"FirstName": "Max"}));
    for _ in 0..2 {
        desk.message(&connection, &Salesforce::message(ORG, "Contact", &[&other])).await;
    }
    let changed = new.wait(5).await.pop().expect("five");
    assert_eq!(told(&[changed]), [("crm/contacts".to_owned(), "updated".to_owned(), other.clone())]);
    desk.app.purge("Contact", &other);
    desk.message(&connection, &Salesforce::message(ORG, "Contact", &[&other])).await;
    let last = new.wait(6).await;
    assert_eq!(told(&last)[5], ("crm/contacts".to_owned(), "deleted".to_owned(), other));
    // The same account again is the same connection; at the end its token is taken back.
    assert_eq!(desk.node.call("DELETE", &at(&format!("connections/{id}")), None).await.status, 200);
    let end = Instant::now() + Duration::from_secs(20);
    while desk.app.asked("/oauth2/revoke").is_empty() {
        assert!(Instant::now() < end, "the token is not taken back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    desk.node.stop().await;
}

/// A collection, its object, the fields of a new record, and what changes of it.
type Kind = (&'static str, &'static str, Value, Value);

fn kinds() -> [Kind; 10] {
    [
        ("accounts", "Account", json!({"Name": "Acme"}), json!({"Phone": "1"})),
        ("contacts", "Contact", json!({"LastName": "Lee"}), json!({"Email": "lee@acme.example"})),
        ("leads", "Lead", json!({"LastName": "Moe", "Company": "Moe"}), json!({"Status": "Working"})),
        ("notes", "Note", json!({"Title": "Called"}), json!({"Body": "Wants a price"})),
        ("opportunities", "Opportunity", json!({"Name": "Mill"}), json!({"Amount": 7.5})),
        ("orders", "Order", json!({"OrderNumber": "00000101"}), json!({"Status": "Activated"})),
        ("products", "Product2", json!({"Name": "Mug"}), json!({"ProductCode": "MUG-1"})),
        ("stages", "OpportunityStage", json!({"MasterLabel": "Won"}), json!({"MasterLabel": "Closed Won"})),
        ("tasks", "Task", json!({"Subject": "Call"}), json!({"Status": "Completed"})),
        ("users", "User", json!({"Name": "Ann", "IsActive": true}), json!({"Email": "ann@acme.example"})),
    ]
}

fn event(key: &str, update_type: &str, id: &str) -> (String, String, String) {
    let category = if matches!(key, "orders" | "products") { "commerce" } else { "crm" };
    (format!("{category}/{key}"), update_type.to_owned(), id.to_owned())
}

#[actix::test]
async fn every_object_is_created_and_changed_by_outbound_message_and_goes_by_poll() {
    for (note, more) in [("Note", json!({})), ("ContentNote", json!({"noteObject": "ContentNote"}))] {
        let desk = Desk::with(more).await;
        // Stages are no records that a flow could tell of.
        let kinds: Vec<Kind> = kinds().into_iter().filter(|(key, ..)| *key != "stages").collect();
        let object = |kind: &Kind| if kind.0 == "notes" { note } else { kind.1 };
        let keys: Vec<&str> = kinds.iter().map(|(key, ..)| *key).collect();
        let connection = desk.connect(&keys).await;
        let all = json!(["crm/*", "commerce/*"]);
        let (new, old) = (desk.subscribe("2024-03", all.clone()).await, desk.subscribe("2023-12", all).await);
        let ids: Vec<String> = kinds.iter().map(|kind| desk.app.put(object(kind), kind.2.clone(), 0)).collect();
        let mut expected = Vec::new();
        for update_type in ["created", "updated", "deleted"] {
            for (kind, one) in kinds.iter().zip(&ids) {
                match (update_type, kind.0) {
                    ("deleted", "users") => continue,
                    ("deleted", _) => desk.app.delete(object(kind), one),
                    ("updated", "notes") => desk.app.change(note, one, json!({"Title": "Called twice"})),
                    ("updated", _) => desk.app.change(object(kind), one, kind.3.clone()),
                    _ => {}
                }
                if update_type != "deleted" {
                    let message = Salesforce::message(ORG, object(kind), &[one, &one[..15]]);
                    assert_eq!(desk.message(&connection, &message).await.status, 200, "{}", kind.1);
                }
                expected.push(event(kind.0, update_type, one));
            }
            if update_type == "deleted" {
                desk.sync(&text(&connection["connectionId"]), "incremental").await;
            }
            expected.sort();
            both([&new, &old], &expected).await;
        }
        desk.node.stop().await;
    }
}

#[actix::test]
async fn every_collection_tells_what_is_new_what_changed_and_what_went() {
    let desk = Desk::new().await;
    let kinds = kinds();
    let connection = desk.connect(&kinds.each_ref().map(|(key, ..)| *key)).await;
    let id = text(&connection["connectionId"]);
    let all = json!(["crm/*", "commerce/*"]);
    let (new, old) = (desk.subscribe("2024-03", all.clone()).await, desk.subscribe("2023-12", all).await);
    let ids = kinds.each_ref().map(|(_, object, fields, _)| desk.app.put(object, fields.clone(), 0));
    let mut expected = Vec::new();
    for kind in ["created", "updated", "deleted"] {
        for ((key, object, _, more), one) in kinds.iter().zip(&ids) {
            match (kind, *key) {
                ("created", _) => {}
                ("updated", _) => desk.app.change(object, one, more.clone()),
                // Salesforce deletes no users; they become inactive.
                (_, "users") => continue,
                (_, "stages") => desk.app.purge(object, one),
                _ => desk.app.delete(object, one),
            }
            expected.push(event(key, kind, one));
        }
        let pull = desk.sync(&id, "incremental").await;
        assert_eq!(pull["outcome"], "completed", "{pull}");
        expected.sort();
        both([&new, &old], &expected).await;
    }
    desk.node.stop().await;
}

/// A shop in an org: its standard price book and another one, a mug at a price in each, and an order of two mugs. Their
/// ids, in this order: both entries, the product, the order, its item.
fn shop(app: &Salesforce) -> [String; 5] {
    let book = |standard: bool| app.put("Pricebook2", json!({"Name": "Book", "IsStandard": standard}), 9_000);
    let (standard, other) = (book(true), book(false));
    let mug = app.put("Product2", json!({"Name": "Mug", "ProductCode": "MUG-1", "IsActive": true}), 9_000);
    let entry = |book: &str, price: f64| {
        let fields = json!({"Product2Id": mug, "Pricebook2Id": book, "UnitPrice": price, "IsActive": true});
        app.put("PricebookEntry", fields, 9_000)
    };
    let entries = (entry(&standard, 9.5), entry(&other, 7.25));
    let order = app.put("Order", json!({"OrderNumber": "00000101", "Status": "Draft", "Channel__c": "web"}), 9_000);
    let item = json!({"OrderId": order, "Product2Id": mug, "Quantity": 2.0, "UnitPrice": 9.5});
    let item = app.put("OrderItem", item, 9_000);
    // The last changes, which every look reads again.
    app.put("Order", json!({"OrderNumber": "00000102"}), 1_000);
    app.put("Product2", json!({"Name": "Cup"}), 1_000);
    [entries.0, entries.1, mug, order, item]
}

#[actix::test]
async fn a_change_of_a_part_is_a_change_of_its_record_though_the_records_own_stamp_stays() {
    let desk = Desk::new().await;
    let [price, other_price, mug, order, item] = shop(&desk.app);
    let connection = desk.connect(&["orders", "products"]).await;
    let id = text(&connection["connectionId"]);
    let stored = async |topic: &str, one: &str| {
        let all = desk.records(topic, &id).await;
        all.into_iter().find(|record| record["remoteId"] == one).expect("a record")
    };
    let product = stored("commerce/products", &mug).await;
    let stored = stored("commerce/orders", &order).await;
    assert_eq!(stored["customFields"], json!({"Channel__c": "web"}));
    assert_eq!((&stored["lineItems"][0]["title"], &stored["lineItems"][0]["sku"]), (&json!("Mug"), &json!("MUG-1")));
    assert_eq!(product["variants"][0]["price"], 9.5);
    assert_eq!(desk.app.asked("FROM OrderItem WHERE SystemModstamp >= ").len(), 1, "only what is new since");
    assert_eq!(desk.app.asked("FROM OrderItem ORDER BY").len(), 0, "the first sync read them with their orders");
    let topics = json!(["commerce/*"]);
    let (new, old) = (desk.subscribe("2024-03", topics.clone()).await, desk.subscribe("2023-12", topics).await);
    desk.app.change("OrderItem", &item, json!({"Quantity": 3.0}));
    desk.app.change("PricebookEntry", &price, json!({"UnitPrice": 10.75}));
    // The price in another book is not the product's.
    desk.app.change("PricebookEntry", &other_price, json!({"UnitPrice": 1.0}));
    for _ in 0..2 {
        // Looked at again, what was told stays told.
        assert_eq!(desk.sync(&id, "incremental").await["outcome"], "completed");
    }
    let mut expected = vec![event("orders", "updated", &order), event("products", "updated", &mug)];
    for receiver in [&new, &old] {
        let mut came = receiver.wait(2).await;
        came.sort_by_key(|one| one.header("x-alloy-topic").to_owned());
        assert_eq!(told(&came), expected);
        let payload = |at: usize| came[at].json()["dataPayload"].clone();
        assert_eq!(
            (&payload(0)["lineItems"][0]["quantity"], &payload(1)["variants"][0]["price"]),
            (&json!(3), &json!(10.75))
        );
    }
    let changed: Vec<Value> = new.so_far().iter().map(|one| one.json()["changedFields"].clone()).collect();
    for only in ["lineItems.0.quantity", "variants.0.price"] {
        assert!(changed.contains(&json!([only])), "{changed:?}");
    }

    // One more, then one less, then a price that holds no more.
    let line_items = async |count: usize| {
        let last = new.wait(count).await.pop().expect("some").json()["dataPayload"].clone();
        last["lineItems"].as_array().expect("items").iter().map(|item| text(&item["lineItemId"])).collect::<Vec<_>>()
    };
    let more = desk.app.put("OrderItem", json!({"OrderId": order, "Quantity": 1.0, "UnitPrice": 4.0}), 0);
    desk.sync(&id, "incremental").await;
    assert_eq!(line_items(3).await, [item.clone(), more.clone()]);
    desk.app.delete("OrderItem", &item);
    desk.app.change("OrderItem", &more, json!({"UnitPrice": 4.5}));
    // Two products of one order are one order. Nothing is new of the last order, the last product, and the last price's.
    let pull = desk.sync(&id, "incremental").await;
    assert_eq!((&pull["updated"], &pull["unchanged"]), (&json!(1), &json!(3)), "{pull}");
    assert_eq!(line_items(4).await, std::slice::from_ref(&more));
    desk.app.change("PricebookEntry", &price, json!({"IsActive": false}));
    desk.sync(&id, "incremental").await;
    let last = new.wait(5).await.pop().expect("five").json()["dataPayload"].clone();
    assert_eq!((&last["remoteId"], &last["variants"][0]["price"]), (&json!(mug), &Value::Null));

    // By outbound message, about the part.
    desk.app.change("OrderItem", &more, json!({"Quantity": 5.0}));
    let part = vec![("Id", more.as_str()), ("OrderId", order.as_str())];
    desk.message(&connection, &Salesforce::message_with(ORG, "OrderItem", &[part])).await;
    assert_eq!(line_items(6).await, [more]);
    // An order that goes takes its products along, and is told once.
    desk.app.delete("Order", &order);
    desk.sync(&id, "incremental").await;
    expected.extend(["orders", "orders", "orders"].map(|key| event(key, "updated", &order)));
    expected.extend([event("products", "updated", &mug), event("orders", "deleted", &order)]);
    expected.sort();
    both([&new, &old], &expected).await;
    desk.node.stop().await;
}

#[actix::test]
async fn many_orders_with_many_fields_fit_the_addresses_that_ask_for_them() {
    let desk = Desk::new().await;
    desk.app.use_currencies();
    for n in 0..500 {
        desk.app.add_field("Order", &format!("A_field_of_this_account_{n:03}__c"));
    }
    let orders: Vec<String> =
        (0..700).map(|_| desk.app.put("Order", json!({"CurrencyIsoCode": "EUR"}), 9_000)).collect();
    for order in &orders {
        // Longer ago than the list of changed items begins.
        desk.app.put("OrderItem", json!({"OrderId": order, "Quantity": 1.0, "UnitPrice": 2.0}), 100_000);
    }
    let connection = desk.connect(&["orders"]).await;
    let id = text(&connection["connectionId"]);
    let first = desk.records("commerce/orders", &id).await.remove(0);
    assert_eq!(first["lineItems"][0]["currency"], "EUR");
    assert_eq!(connection["collections"][0]["records"], 700);
    assert_eq!(desk.app.asked("FROM OrderItem WHERE OrderId IN").len(), 3);
    // All of one bulk change, on one stamp, whose border is inside a page.
    desk.app.turn(|knobs| knobs.page = 100);
    let receiver = desk.subscribe("2024-03", json!(["commerce/orders"])).await;
    let items: Vec<String> = orders[..250]
        .iter()
        .map(|order| desk.app.put("OrderItem", json!({"OrderId": order, "Quantity": 2.0}), 0))
        .collect();
    let pull = desk.sync(&id, "incremental").await;
    assert_eq!((&pull["outcome"], &pull["updated"]), (&json!("completed"), &json!(items.len())), "{pull}");
    let mut came: Vec<String> = told(&receiver.wait(250).await).into_iter().map(|(_, _, id)| id).collect();
    came.sort();
    assert_eq!(came, orders[..250]);
    desk.node.stop().await;
}

#[actix::test]
async fn an_org_without_orders_costs_that_collection_alone_and_is_told_of_once() {
    let desk = Desk::new().await;
    let off = desk.app.switch_off("Order");
    let (access, refresh) = desk.app.grant();
    let body = json!({"userId": "ada", "integrationId": desk.integration, "parameters": {"baseUri": desk.app.url},
        "credentials": {"accessToken": access, "refreshToken": refresh}, "collections": ["accounts", "orders", "users"]});
    let id = text(&desk.node.post(&at("connections"), body).await.ok()["connection"]["connectionId"]);
    let path = format!("connections/{id}");
    let of = |answer: &Value, topic: &str| {
        let all = answer["connection"]["collections"].as_array().expect("collections").clone();
        all.into_iter().find(|c| c["topic"] == topic).expect("a collection")
    };
    let others =
        |answer: &Value| ["crm/accounts", "crm/users"].iter().all(|topic| of(answer, topic)["baselineAt"].is_string());
    desk.until(&path, others).await;
    let failed = desk.until(&path, |answer| of(answer, "commerce/orders")["error"].is_string()).await;
    let error = text(&of(&failed, "commerce/orders")["error"]);
    assert!(error.contains("Switch it on in Setup, as orders in Order Settings"), "{error}");
    assert_eq!(failed["connection"]["status"], "active");
    // Tried again with growing waits, it is told once that it failed, and once that it stays so.
    for _ in 0..8 {
        let shown = desk.node.get(&at(&path)).await.ok();
        let next = text(&of(&shown, "commerce/orders")["nextPullAt"]);
        let next = Millis::parse_rfc3339(&next).expect("a time");
        desk.node.state.clock.raise(next.after(Duration::from_millis(1)));
        desk.node.engine.rings.owner(id.parse::<ConnectionId>().expect("an id").0);
        desk.until(&path, |answer| {
            of(answer, "commerce/orders")["nextPullAt"] != of(&shown, "commerce/orders")["nextPullAt"]
        })
        .await;
    }
    assert_eq!((desk.count("sync/failed").await, desk.count("poller/stalled").await), (1, 1));
    // A sync that is asked for goes on after it.
    let account = desk.app.put("Account", json!({"Name": "Acme"}), 0);
    let user = desk.app.put("User", json!({"Name": "Ida"}), 0);
    let receiver = desk.subscribe("2024-03", json!(["crm/*"])).await;
    let pull = desk.sync(&id, "incremental").await;
    assert_eq!((&pull["outcome"], &pull["created"]), (&json!("failed"), &json!(2)), "{pull}");
    assert!(text(&pull["error"]).starts_with("orders: the app refused with status 404"), "{pull}");
    let came: Vec<String> = told(&receiver.wait(2).await).into_iter().map(|(_, _, id)| id).collect();
    assert_eq!(came, [account, user]);
    // Switched on, they are read at the next look.
    desk.app.switch_on("Order", off);
    desk.app.put("Order", json!({"OrderNumber": "1"}), 0);
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "completed");
    assert_eq!(desk.records("commerce/orders", &id).await.len(), 1);
    desk.node.stop().await;
}

#[actix::test]
async fn a_401_in_the_middle_of_a_walk_is_renewed_and_a_second_refusal_is_told_once() {
    let desk = Desk::new().await;
    desk.app.turn(|knobs| knobs.page = 10);
    // Forty on four stamps: every page border is inside a tie.
    let ids: Vec<String> =
        (0..40).map(|n| desk.app.put("Account", json!({"Name": format!("n{n}")}), 9_000 + n / 12)).collect();
    desk.app.turn(|knobs| knobs.expire_after = Some(4));
    let connection = desk.connect(&["accounts"]).await;
    let id = text(&connection["connectionId"]);
    assert_eq!(desk.records("crm/accounts", &id).await.len(), 40);
    assert_eq!(desk.app.asked("/oauth2/token").len(), 1, "one renewal");
    let walked = desk.app.asked("/queryAll?SELECT");
    let inside = |soql: &&String| soql.contains("WHERE (SystemModstamp = ") && soql.contains(" AND Id > '001x");
    assert!(walked.iter().filter(inside).count() >= 4, "each page goes on after the last id: {walked:?}");

    // A field that is set to nothing is a change; one that is not touched is none.
    let receiver = desk.subscribe("2024-03", json!(["crm/accounts"])).await;
    desk.app.change("Account", &ids[0], json!({"Tier__c": "gold", "Phone": "1"}));
    desk.sync(&id, "incremental").await;
    desk.app.change("Account", &ids[0], json!({"Tier__c": null}));
    desk.sync(&id, "incremental").await;
    desk.app.change("Account", &ids[1], json!({"Unmapped": "x"}));
    desk.sync(&id, "incremental").await;
    let came = receiver.wait(2).await;
    assert_eq!(came[0].json()["changedFields"], json!(["phoneNumbers", "customFields.Tier__c"]));
    assert_eq!(came[1].json()["changedFields"], json!(["customFields.Tier__c"]));
    assert_eq!(came[1].json()["dataPayload"]["customFields"]["Tier__c"], Value::Null);
    assert_eq!(came[1].json()["dataPayload"]["phoneNumbers"][0]["phoneNumber"], "1");
    assert_eq!(receiver.so_far().len(), 2, "what is not mapped changes nothing");

    // A rotated pair works on; a refused one stops the connection, once.
    desk.app.turn(|knobs| (knobs.rotate, knobs.expire_after) = (true, Some(0)));
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "completed");
    desk.app.turn(|knobs| knobs.expire_after = Some(0));
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "completed", "by the token that came with the last");
    desk.app.turn(|knobs| (knobs.refuse_refresh, knobs.expire_after) = (true, Some(0)));
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "failed");
    let stopped =
        desk.until(&format!("connections/{id}"), |answer| answer["connection"]["status"] == "authFailed").await;
    assert!(stopped["connection"].to_string().contains("expired"), "{stopped}");
    // An event shows once it is on disk, a moment after what it tells of.
    let told = |log: &Value| log.to_string().contains("connection/authentication_failure");
    desk.until("events?limit=250", told).await;
    assert_eq!(desk.count("connection/authentication_failure").await, 1);
    desk.node.stop().await;
}

#[actix::test]
async fn a_message_of_a_foreign_organisation_is_refused_and_no_session_is_kept() {
    let desk = Desk::new().await;
    let contact = desk.app.put("Contact", json!({"LastName": "Lee"}), 9_000);
    let connection = desk.connect(&["contacts"]).await;
    let id = text(&connection["connectionId"]);
    let before = desk.app.asked("/queryAll").len();
    let foreign = desk.message(&connection, &Salesforce::message(STRANGER, "Contact", &[&contact])).await;
    assert_eq!(foreign.status, 403, "{}", foreign.text);
    assert!(
        foreign.text.contains("<soapenv:Fault>") && foreign.text.contains("another organisation"),
        "{}",
        foreign.text
    );
    // An id is case-sensitive in its first 15 characters.
    let cased = desk.message(&connection, &Salesforce::message(&ORG.to_uppercase(), "Contact", &[&contact])).await;
    assert_eq!(cased.status, 403);
    let bomb = "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>";
    assert_eq!(desk.message(&connection, bomb).await.status, 400);
    for organisation in [ORG, &ORG[..15]] {
        let fine = desk.message(&connection, &Salesforce::message(organisation, "Contact", &[&contact])).await;
        assert!(fine.status == 200 && fine.text.contains("<Ack>true</Ack>"), "{}", fine.text);
    }
    let path = format!("connections/{id}/inbox");
    let done = |answer: &Value| {
        let all = answer["inbox"].as_array().expect("rows").clone();
        all.len() == 5 && all.iter().all(|row| row["state"] == "done")
    };
    let rows = desk.until(&path, done).await;
    for row in rows["inbox"].as_array().expect("rows") {
        let shown = desk.node.get(&at(&format!("{path}/{}", text(&row["inboxId"])))).await.text;
        assert!(!shown.contains("s3cret") && !row.to_string().contains("s3cret"), "{shown}");
    }
    assert_eq!(desk.app.asked("/queryAll").len() - before, 2, "a record is asked for by its own org's messages alone");
    desk.node.stop().await;
}

#[actix::test]
async fn fields_that_come_and_go_are_read_silently_and_listed() {
    let desk = Desk::new().await;
    let account = desk.app.put("Account", json!({"Name": "Acme", "Tier__c": "gold", "Revenue__c": 10.50}), 9_000);
    let connection = desk.connect(&["accounts"]).await;
    let id = text(&connection["connectionId"]);
    let receiver = desk.subscribe("2024-03", json!(["crm/accounts"])).await;
    let fields = |listed: &Value| -> Vec<(String, String, String)> {
        let all = listed["fields"].as_array().expect("fields").iter().filter(|f| f["custom"] == true);
        all.map(|f| (text(&f["path"]), text(&f["title"]), f["appType"].as_str().unwrap_or_default().to_owned()))
            .collect()
    };
    let path = format!("metadata/fields?topic=crm/accounts&connectionId={id}");
    let listed = desk.node.get(&at(&path)).await.ok();
    let own = |name: &str, title: &str, kind: &str| (format!("customFields.{name}"), title.to_owned(), kind.to_owned());
    assert_eq!(fields(&listed), [own("Revenue__c", "Revenue", "currency"), own("Tier__c", "Tier", "picklist")]);
    assert!(listed["fields"].as_array().expect("fields").iter().any(|f| f["path"] == "accountName"));
    let hooks = desk.node.get("/2024-03/hooks/fields?event=crm.accounts.updated&userId=ada").await.ok();
    assert_eq!(fields(&hooks), fields(&listed));
    let asked = desk.app.asked("queryAll?SELECT")[0].clone();
    assert!(!asked.contains("Unmapped") && !asked.contains("BillingAddress") && asked.contains("Tier__c"), "{asked}");

    // An administrator hides one: the query fails, the fields are read again, the query goes once more.
    desk.app.hide("Account", "Tier__c");
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "completed");
    assert_eq!(desk.app.asked("/describe").len(), 2);
    desk.app.add_field("Account", "Region__c");
    desk.app.change("Account", &account, json!({"Name": "Acme 2", "Region__c": "north"}));
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "completed");
    let came = receiver.wait(1).await;
    // What the account may not see any more went silently; the change that was made is told.
    let changed = came[0].json()["changedFields"].clone();
    assert!(changed.as_array().expect("a list").contains(&json!("accountName")), "{changed}");
    assert_eq!(came[0].json()["dataPayload"]["customFields"], json!({"Revenue__c": 10.50}));
    assert_eq!(fields(&desk.node.get(&at(&path)).await.ok())[0].0, "customFields.Revenue__c");
    desk.node.stop().await;
}

#[actix::test]
async fn what_was_purged_is_found_by_the_apps_list_and_beyond_it_by_a_scan() {
    let desk = Desk::new().await;
    let ids: Vec<String> =
        (0..30).map(|n| desk.app.put("Account", json!({"Name": format!("n{n}")}), 90_000 - n / 29 * 9_000)).collect();
    let connection = desk.connect(&["accounts"]).await;
    let id = text(&connection["connectionId"]);
    let receiver = desk.subscribe("2024-03", json!(["crm/accounts"])).await;
    desk.app.purge("Account", &ids[3]);
    desk.sync(&id, "incremental").await;
    assert_eq!(told(&receiver.wait(1).await)[0].2, ids[3]);
    let listed = desk.app.asked("/deleted?").pop().expect("asked");
    assert!(listed.contains("start=20") && listed.contains("end=20"), "{listed}");
    // The org keeps its list for less time than nobody looked: only a walk over all ids tells.
    desk.app.purge("Account", &ids[4]);
    // The newest one stands alone, so that the look itself has one page.
    desk.app.turn(|knobs| {
        (knobs.earliest, knobs.page, knobs.lose_locators) = ("2099-01-01T00:00:00.000+0000".into(), 10, 1);
    });
    desk.sync(&id, "incremental").await;
    assert_eq!(told(&receiver.wait(2).await)[1], ("crm/accounts".into(), "deleted".into(), ids[4].clone()));
    let scanned = desk.app.asked("WHERE IsDeleted = false");
    assert_eq!(scanned.len(), 2, "a locator that was lost starts the walk again: {scanned:?}");
    desk.node.stop().await;
}

#[actix::test]
async fn the_daily_limit_silences_the_connection_and_is_told() {
    let desk = Desk::new().await;
    let connection = desk.connect(&["accounts", "contacts"]).await;
    let id = text(&connection["connectionId"]);
    desk.app.turn(|knobs| knobs.usage = (15_000, 15_000));
    let before = desk.app.asked("/services/data").len();
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "failed");
    let shown = desk.node.get(&at(&format!("connections/{id}"))).await.ok();
    let error = text(&shown["connection"]["collections"][0]["error"]);
    assert_eq!(error, "the app's rate limit is reached: 15000 of 15000 requests are used");
    desk.sync(&id, "incremental").await;
    assert_eq!(desk.app.asked("/services/data").len() - before, 1, "then it is silent");
    assert_eq!(shown["connection"]["status"], "active");
    desk.node.stop().await;
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[actix::test]
async fn a_private_key_opens_the_one_org_that_the_integration_names() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let key = pem("PRIVATE KEY", AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("DER").as_ref());
    let more = json!({"myDomain": "THE APP", "username": "integration@acme.example", "privateKey": key});
    let desk = Desk::with(more).await;
    desk.app.trust(pair.public_key().as_ref());
    desk.app.put("Account", json!({"Name": "Acme"}), 9_000);
    // Wherever the caller says the account is, the token goes where the integration says.
    let body = json!({"userId": "ada", "integrationId": desk.integration, "credentials": {}, "collections": ["accounts"],
        "parameters": {"baseUri": "http://127.0.0.1:1"}});
    let made = desk.node.post(&at("connections"), body).await.ok()["connection"].clone();
    let id = text(&made["connectionId"]);
    desk.baseline(&id).await;
    assert_eq!(desk.records("crm/accounts", &id).await.len(), 1);
    let assertion = desk.app.assertions().pop().expect("one");
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("DER").as_ref().to_vec();
    let public = pem("PUBLIC KEY", &public);
    if let Some(read) = clients::run("jwt_read", "jwt", &[&assertion, &public, &desk.app.url, "RS256"]).await {
        let claims: Value = serde_json::from_str(&read).expect("JSON");
        assert_eq!(
            (claims["iss"].as_str(), claims["sub"].as_str()),
            (Some(CLIENT.0), Some("integration@acme.example"))
        );
    }
    let shown = desk.node.get(&at(&format!("integrations/{}", desk.integration))).await.text;
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    // The page at which end users connect offers it without asking for an address.
    desk.node.stop().await;
}

#[actix::test]
async fn client_credentials_open_an_org_by_its_domain() {
    let desk = Desk::with(json!({"myDomain": "THE APP"})).await;
    desk.app.put("Account", json!({"Name": "Acme"}), 9_000);
    let body =
        json!({"userId": "ada", "integrationId": desk.integration, "credentials": {}, "collections": ["accounts"]});
    let id = text(&desk.node.post(&at("connections"), body).await.ok()["connection"]["connectionId"]);
    desk.baseline(&id).await;
    assert_eq!(desk.records("crm/accounts", &id).await.len(), 1);
    desk.app.turn(|knobs| knobs.expire_after = Some(0));
    assert_eq!(desk.sync(&id, "incremental").await["outcome"], "completed", "a new token, without a refresh token");
    desk.node.stop().await;
}

#[actix::test]
async fn the_fake_is_one_that_the_apps_client_library_takes_for_salesforce() {
    let app = Salesforce::start();
    app.turn(|knobs| knobs.page = 3);
    let ids: Vec<String> = (0..8).map(|n| app.put("Account", json!({"Name": format!("n{n}")}), 1_000 - n)).collect();
    app.delete("Account", &ids[7]);
    let (token, _) = app.grant();
    let Some(printed) = clients::run("salesforce", "simple_salesforce", &[&app.url, &token]).await else { return };
    let found: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((found["total"].as_u64(), found["names"].as_array().expect("names").len()), (Some(7), 7));
    assert_eq!(found["binned"], json!([ids[7]]));
    assert_eq!(found["deleted"], json!([ids[7]]));
    assert_eq!(found["custom"], json!(["Tier__c", "Revenue__c"]));
    assert_eq!(
        (found["hidden"].as_str(), found["stranger"].as_str()),
        (Some("INVALID_FIELD"), Some("INVALID_SESSION_ID"))
    );
    assert_eq!(found["usage"]["total"], 15_000);
}
