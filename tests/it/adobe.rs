//! Adobe Commerce through a real node: four keys or the cloud service, polls, and signed I/O Events, in both versions.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tidemill::api;

use crate::support::adobe::{Adobe, CLIENT, KEYS, ORGANISATION, PROJECT, RECIPIENT, Signer, event, order};
use crate::support::api::{Answer, Node};
use crate::support::browser::Browser;
use crate::support::receiver::{Received, Receiver};

const ONE: &str = "/2024-03/one";
/// Apps on loopback reach it; nobody listens there: the tests bring the webhooks themselves.
const PUBLIC: &str = "http://127.0.0.1:1/mill";

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

fn four_keys() -> Value {
    Value::Object(KEYS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect())
}

struct Desk {
    node: Node,
    shop: Adobe,
    integration: String,
    /// What came in either version.
    old: Receiver,
    new: Receiver,
}

impl Desk {
    async fn new() -> Self {
        let node = Node::start_with(&[("TIDEMILL__SERVER__PUBLIC_URL", PUBLIC)], api::configure).await;
        let shop = Adobe::start();
        node.post(&at("users"), json!({"username": "ada"})).await.ok();
        let parameters = json!({"ioKeysUri": shop.url, "ioApiUri": shop.url,
            "imsTokenUri": format!("{}/ims/token/v3", shop.url)});
        let body = json!({"connector": "adobe-commerce", "parameters": parameters});
        let made = node.post(&at("integrations"), body).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        let (old, new) = (Receiver::start(), Receiver::start());
        for (version, receiver) in [("2023-12", &old), ("2024-03", &new)] {
            let wish = json!({"address": receiver.address, "topic": ["commerce/*"]});
            node.post(&format!("/{version}/one/webhooks"), wish).await.ok();
        }
        Self { node, shop, integration, old, new }
    }

    async fn connect(&self, credentials: Value, more: Value) -> Value {
        let mut parameters = Map::from_iter([("baseUri".to_owned(), Value::from(self.shop.url.as_str()))]);
        parameters.extend(more.as_object().expect("an object").clone());
        let body = json!({"userId": "ada", "integrationId": self.integration, "credentials": credentials,
            "parameters": parameters});
        let id = text(&self.node.post(&at("connections"), body).await.ok()["connection"]["connectionId"]);
        self.until(&id, "the first sync ends", |c| {
            c["collections"].as_array().expect("collections").iter().all(|c| c["baselineAt"].is_string())
        })
        .await
    }

    async fn until(&self, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.node.get(&at(&format!("connections/{id}"))).await.ok()["connection"].clone();
            if fits(&found) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: {found:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn sync(&self, connection: &Value, mode: &str) {
        let path = at(&format!("connections/{}/sync", text(&connection["connectionId"])));
        let answer = self.node.post(&path, json!({"mode": mode})).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }

    /// What came in both versions, which must say the same.
    async fn came(&self, count: usize) -> Vec<(String, String, Value)> {
        let (old, new) = (self.old.wait(count).await, self.new.wait(count).await);
        assert_eq!((old.len(), new.len()), (count, count));
        let told = |all: &[Received]| {
            let one = |came: &Received| {
                let body = came.json();
                let payload = &body["dataPayload"];
                (came.header("x-alloy-topic").to_owned(), text(&body["updateType"]), text(&payload["remoteId"]))
            };
            let mut told: Vec<_> = all.iter().map(one).collect();
            told.sort();
            told
        };
        assert_eq!(told(&old), told(&new));
        assert!(old.iter().all(|came| came.json()["name"] == "Magento"), "2023-12 says name");
        assert!(new.iter().all(|came| came.json()["app"] == "Magento"), "2024-03 says app");
        new.iter().map(|came| (came.header("x-alloy-topic").to_owned(), came.json())).map(split).collect()
    }

    async fn send(&self, connection: &Value, signed: &Signed<'_>, body: &str) -> Answer {
        let path = text(&connection["webhook"]["uri"]).replace(PUBLIC, "");
        let headers = [
            ("content-type", "application/json"),
            ("x-adobe-event-id", "5b1e"),
            ("x-adobe-digital-signature-1", signed.first.0.as_str()),
            ("x-adobe-public-key1-path", signed.first.1),
            ("x-adobe-digital-signature-2", signed.second.0.as_str()),
            ("x-adobe-public-key2-path", signed.second.1),
        ];
        self.node.send("POST", &path, &headers, body).await
    }
}

fn split((topic, body): (String, Value)) -> (String, String, Value) {
    (topic, text(&body["updateType"]), body["dataPayload"].clone())
}

/// The four headers.
struct Signed<'a> {
    first: (String, &'a str),
    second: (String, &'a str),
}

fn signed<'a>(one: &'a Signer, two: &'a Signer, body: &str) -> Signed<'a> {
    Signed { first: (one.sign(body), &one.path), second: (two.sign(body), &two.path) }
}

fn collection<'a>(connection: &'a Value, key: &str) -> &'a Value {
    let all = connection["collections"].as_array().expect("collections");
    all.iter().find(|c| c["key"] == key).unwrap_or_else(|| panic!("no {key}"))
}

#[actix::test]
async fn creates_updates_and_deletes_are_found_by_polls_in_both_versions() {
    let desk = Desk::new().await;
    let connection = desk.connect(four_keys(), json!({})).await;
    for key in ["orders", "customers", "products", "shipments"] {
        assert_eq!(collection(&connection, key)["records"], 12, "{key}");
    }
    assert_eq!(collection(&connection, "orders")["detects"]["created"], "poll");
    assert_eq!(collection(&connection, "customers")["detects"]["deleted"], "full-scan");
    assert_eq!(collection(&connection, "orders")["reason"], "not-set-up");
    assert_eq!(connection["webhook"]["status"], "off");
    assert!(text(&connection["webhook"]["error"]).contains("ioClientId"));
    assert_eq!(desk.shop.count("/rest/all/V1/eventing"), 0, "nobody asked for I/O Events");

    desk.shop.put("orders", 13, order(13, "new"));
    desk.shop.put("orders", 2, order(2, "complete"));
    desk.sync(&connection, "incremental").await;
    let came = desk.came(2).await;
    let find = |kind: &str| came.iter().find(|(_, update, _)| update == kind).expect("it came").2.clone();
    assert_eq!((&find("created")["remoteId"], &find("created")["totalPrice"]), (&json!("13"), &json!(66.91)));
    assert_eq!((&find("updated")["remoteId"], &find("updated")["orderStatus"]), (&json!("2"), &json!("complete")));
    desk.shop.delete("customers", 3);
    desk.sync(&connection, "full").await;
    let came = desk.came(3).await;
    assert_eq!((came[2].0.as_str(), came[2].1.as_str()), ("commerce/customers", "deleted"));
    assert_eq!(came[2].2["remoteId"], "3");
    desk.node.stop().await;
}

#[actix::test]
async fn signed_io_events_tell_at_once_and_twice_is_once() {
    let desk = Desk::new().await;
    desk.shop.has_subscription_of_another("observer.customer_save_commit_after");
    let connection = desk.connect(four_keys(), json!({"ioClientId": RECIPIENT})).await;
    assert_eq!(desk.shop.subscribed().len(), 6, "{:?}", desk.shop.subscribed());
    assert_eq!(
        (&connection["webhook"]["status"], &collection(&connection, "orders")["reason"]),
        (&json!("to-paste"), &json!("pasted"))
    );
    let steps = text(&connection["webhook"]["instructions"]);
    assert!(steps.contains(&text(&connection["webhookUri"])) && steps.contains(RECIPIENT), "{steps}");

    let (one, two) = (desk.shop.signer("one").await, desk.shop.signer("two").await);
    desk.shop.put("orders", 13, order(13, "new"));
    desk.shop.put("customers", 2, json!({"id": 2, "firstname": "Eve", "lastname": "L2", "email": "a2@example.com"}));
    desk.shop.delete("products", 5);
    let batch = json!([
        event("sales_order_save_commit_after", &json!({"entity_id": "13", "_isNew": true})),
        event("customer_save_commit_after", &json!({"id": 2})),
        event("catalog_product_delete_commit_after", &json!({"entity_id": 5})),
    ])
    .to_string();
    for _ in 0..2 {
        let answer = desk.send(&connection, &signed(&one, &two, &batch), &batch).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let mut came = desk.came(3).await;
    came.sort_by_key(|(topic, ..)| topic.clone());
    let told: Vec<(&str, &str, &str)> =
        came.iter().map(|(t, u, p)| (t.as_str(), u.as_str(), p["remoteId"].as_str().expect("text"))).collect();
    let expected = [
        ("commerce/customers", "updated", "2"),
        ("commerce/orders", "created", "13"),
        ("commerce/products", "deleted", "5"),
    ];
    assert_eq!(told, expected);
    assert_eq!((&came[0].2["firstName"], &came[1].2["totalPrice"]), (&json!("Eve"), &json!(66.91)));

    // The poll of the same changes finds nothing more, and has the same records.
    desk.sync(&connection, "full").await;
    let id = text(&connection["connectionId"]);
    let synced = desk
        .until(&id, "the sync ends", |c| {
            collection(c, "shipments")["lastScanAt"] != collection(&connection, "shipments")["lastScanAt"]
        })
        .await;
    assert_eq!((desk.old.so_far().len(), desk.new.so_far().len()), (3, 3));
    assert_eq!(collection(&synced, "orders")["detects"]["created"], "webhook");
    assert_eq!(synced["webhook"]["status"], "registered");
    // In the older form, alone.
    let older = json!({"event_id": "1", "recipient_client_id": RECIPIENT, "type": "com.adobe.commerce.observer.sales_order_save_commit_after",
        "event": {"value": {"entity_id": 13}}});
    desk.shop.put("orders", 13, order(13, "canceled"));
    let body = older.to_string();
    assert_eq!(desk.send(&connection, &signed(&one, &two, &body), &body).await.status, 200);
    let came = desk.came(4).await;
    assert_eq!((came[3].1.as_str(), &came[3].2["orderStatus"]), ("updated", &json!("cancelled")));

    // Deleted, it takes its own subscriptions away, and leaves the one of another.
    desk.node.call("DELETE", &at(&format!("connections/{id}")), None).await.ok();
    let end = Instant::now() + Duration::from_secs(20);
    while desk.shop.subscribed() != ["observer.customer_save_commit_after"] {
        assert!(Instant::now() < end, "{:?}", desk.shop.subscribed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    desk.node.stop().await;
}

/// One version of a record, as the lists show it.
fn version(kind: &str, id: u64, n: u64) -> Value {
    match kind {
        "orders" => order(id, if n == 0 { "new" } else { "complete" }),
        "customers" => json!({"id": id, "firstname": format!("Eve {n}"), "lastname": "L", "email": "e@example.com"}),
        "products" => {
            json!({"id": id, "sku": format!("SKU-{id}"), "name": format!("Tee {n}"), "price": 29, "status": 1,
            "type_id": "simple"})
        }
        _ => json!({"entity_id": id, "order_id": 1, "items": [], "tracks": [{"track_number": format!("T{n}")}]}),
    }
}

/// Each collection: its topic, the event of a save, and that of a deletion, where the shop has one.
const ALL: [(&str, &str, &str, Option<&str>); 4] = [
    ("orders", "commerce/orders", "sales_order_save_commit_after", None),
    ("customers", "commerce/customers", "customer_save_commit_after", Some("customer_delete_commit_after")),
    ("products", "commerce/products", "catalog_product_save_commit_after", Some("catalog_product_delete_commit_after")),
    ("shipments", "commerce/fulfillments", "sales_order_shipment_save_after", None),
];

#[actix::test]
async fn each_collection_is_created_updated_and_deleted_by_poll_in_both_versions() {
    let desk = Desk::new().await;
    let connection = desk.connect(four_keys(), json!({})).await;
    let topics: Vec<&str> = ALL.iter().map(|(_, topic, ..)| *topic).collect();
    for (n, kind) in ["created", "updated", "deleted"].into_iter().enumerate() {
        for (name, ..) in ALL {
            match kind {
                "deleted" => desk.shop.delete(name, 13),
                _ => desk.shop.put(name, 13, version(name, 13, n as u64)),
            }
        }
        desk.sync(&connection, if kind == "deleted" { "full" } else { "incremental" }).await;
        let came = desk.came(4 * (n + 1)).await;
        let mut told: Vec<&str> = came[4 * n..].iter().map(|(topic, ..)| topic.as_str()).collect();
        told.sort_unstable_by_key(|topic| topics.iter().position(|known| known == topic));
        assert_eq!(told, topics, "{kind}");
        assert!(came[4 * n..].iter().all(|(_, update, body)| update == kind && body["remoteId"] == "13"), "{came:?}");
    }
    desk.node.stop().await;
}

#[actix::test]
async fn each_collection_is_created_updated_and_deleted_by_io_events_in_both_versions() {
    let desk = Desk::new().await;
    let connection = desk.connect(four_keys(), json!({"ioClientId": RECIPIENT})).await;
    let (one, two) = (desk.shop.signer("one").await, desk.shop.signer("two").await);
    let mut count = 0;
    for (name, topic, saved, deleted) in ALL {
        let id_name = if name == "customers" { "id" } else { "entity_id" };
        for (n, kind) in ["created", "updated", "deleted"].into_iter().enumerate() {
            let code = match (kind, deleted) {
                ("deleted", None) => continue,
                ("deleted", Some(code)) => code,
                _ => saved,
            };
            match kind {
                "deleted" => desk.shop.delete(name, 13),
                _ => desk.shop.put(name, 13, version(name, 13, n as u64)),
            }
            let mut value = json!({"_isNew": kind == "created"});
            value[id_name] = json!(13);
            let body = event(code, &value).to_string();
            let answer = desk.send(&connection, &signed(&one, &two, &body), &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            count += 1;
            let came = desk.came(count).await;
            let (told, update, payload) = &came[count - 1];
            assert_eq!((told.as_str(), update.as_str(), &payload["remoteId"]), (topic, kind, &json!("13")));
        }
    }
    assert_eq!(count, 10);
    desk.node.stop().await;
}

#[actix::test]
async fn a_node_that_may_registers_its_address_at_adobe_anew_when_disabled_and_not_for_ever() {
    let desk = Desk::new().await;
    desk.shop.has_registration_of_another();
    let mut parameters = Map::from_iter([("ioClientId".to_owned(), Value::from(RECIPIENT))]);
    parameters.extend(PROJECT.map(|(name, value)| (name.to_owned(), value.into())));
    let connection = desk.connect(four_keys(), Value::Object(parameters)).await;
    assert_eq!(connection["parameters"]["ioClientSecret"], "***");
    let ours = || {
        let all = desk.shop.registrations();
        assert!(all.iter().any(|one| one["registration_id"] == "other"), "another's stays: {all:?}");
        all.into_iter().filter(|one| one["registration_id"] != "other").collect::<Vec<_>>()
    };
    let made = ours();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["webhook_url"], connection["webhookUri"]);
    let codes: Vec<String> = made[0]["events_of_interest"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| text(&event["event_code"]).replace("com.adobe.commerce.", ""))
        .collect();
    let mut subscribed = desk.shop.subscribed();
    subscribed.retain(|name| codes.contains(name));
    assert_eq!((subscribed.len(), codes.len()), (6, 6), "what leaves the shop is what is registered: {codes:?}");

    // A day later: nothing is made twice; what was disabled is made anew, and the former goes.
    for (days, disabled, wanted) in [(1, false, "registration-1"), (2, true, "registration-2")] {
        if disabled {
            desk.shop.disable_registrations();
        }
        let before = desk.shop.count("/events/");
        let now = desk.node.state.clock.now();
        desk.node.state.clock.raise(now.after(Duration::from_secs(days * 25 * 3600)));
        let end = Instant::now() + Duration::from_secs(30);
        while desk.shop.count("/events/") == before || ours().iter().any(|one| one["registration_id"] != wanted) {
            assert!(Instant::now() < end, "{:?}", ours());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(ours().len(), 1);
    }
    let id = text(&connection["connectionId"]);
    desk.node.call("DELETE", &at(&format!("connections/{id}")), None).await.ok();
    let end = Instant::now() + Duration::from_secs(20);
    while !ours().is_empty() {
        assert!(Instant::now() < end, "{:?}", ours());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    desk.node.stop().await;
}

#[actix::test]
async fn one_right_signature_is_enough_and_a_foreign_recipient_or_key_is_refused() {
    let desk = Desk::new().await;
    let connection = desk.connect(four_keys(), json!({"ioClientId": RECIPIENT})).await;
    let (one, two, elsewhere) = (desk.shop.signer("one").await, desk.shop.signer("two").await, Adobe::start());
    let body = event("sales_order_save_commit_after", &json!({"entity_id": 1})).to_string();
    let good = signed(&one, &two, &body);
    // While the keys cannot be had, nobody is refused: Adobe sends a 503 again, and gives a 401 up.
    desk.shop.keys_down(true);
    let waits = desk.send(&connection, &good, &body).await;
    assert_eq!((waits.status, waits.header("retry-after")), (503, Some("30")), "{}", waits.text);
    desk.shop.keys_down(false);
    let wrong = || ("d3Jvbmc=".to_owned(), one.path.as_str());
    let second = Signed { first: wrong(), second: good.second.clone() };
    assert_eq!(desk.send(&connection, &second, &body).await.status, 200, "the first is wrong, the second right");
    assert_eq!(desk.send(&connection, &good, &body).await.status, 200);
    let fetched = desk.shop.count("/prod/keys/");
    let neither = Signed { first: wrong(), second: ("d3Jvbmc=".to_owned(), two.path.as_str()) };
    desk.send(&connection, &neither, &body).await.refused(401, "bad-signature");

    let mut theirs = event("sales_order_save_commit_after", &json!({"entity_id": 1}));
    theirs["recipientclientid"] = json!("somebody-else");
    let theirs = theirs.to_string();
    let told = desk.send(&connection, &signed(&one, &two, &theirs), &theirs).await.refused(401, "bad-signature");
    assert!(told.contains("another recipient"), "{told}");

    let stranger = elsewhere.signer("stranger").await;
    let host = elsewhere.url.trim_start_matches("http:");
    for path in [
        format!("{}{}", elsewhere.url, stranger.path),
        format!("{host}{}", stranger.path),
        format!("/..{}", stranger.path),
    ] {
        let forged = Signed { first: (stranger.sign(&body), &path), second: (stranger.sign(&body), &path) };
        let told = desk.send(&connection, &forged, &body).await.refused(401, "bad-signature");
        assert!(told.contains("own host"), "{told}");
    }
    assert_eq!(elsewhere.count("/"), 0, "nobody was asked");
    let known = desk.shop.count("/prod/keys/");
    assert!(known <= fetched + 1, "known keys are not fetched again");
    let metrics = desk.node.get("/metrics").await.text;
    for verdict in ["key-unavailable", "key-elsewhere", "recipient-foreign", "verified", "signature-wrong"] {
        assert!(metrics.contains(&format!("connector=\"adobe-commerce\",verdict=\"{verdict}\"")), "{verdict}");
    }
    desk.node.stop().await;
}

#[actix::test]
async fn adobes_two_handshakes_are_answered_and_no_other_address_is_called() {
    let desk = Desk::new().await;
    let connection = desk.connect(four_keys(), json!({"ioClientId": RECIPIENT})).await;
    let path = text(&connection["webhook"]["uri"]).replace(PUBLIC, "");
    let asked = desk.node.send("GET", &format!("{path}?challenge=8ec8d794"), &[], "").await;
    assert_eq!((asked.status, asked.text.as_str()), (200, "8ec8d794"));
    assert!(asked.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let elsewhere = Adobe::start();
    for address in [format!("{}/csm/registrations/validate?id=1", elsewhere.url), "https://evil.example/x".to_owned()] {
        let body = json!({"validationUrl": address}).to_string();
        let headers = [("content-type", "application/json")];
        desk.node.send("POST", &path, &headers, &body).await.refused(401, "bad-signature");
    }
    let address = format!("{}/csm/registrations/validate?id=1&challenge=2", desk.shop.url);
    let body = json!({"validationUrl": address}).to_string();
    let answer = desk.node.send("POST", &path, &[("content-type", "application/json")], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let end = Instant::now() + Duration::from_secs(20);
    while desk.shop.count("/csm/registrations/validate?id=1&challenge=2") == 0 {
        assert!(Instant::now() < end, "the address was not called");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(elsewhere.count("/"), 0);
    desk.node.stop().await;
}

#[actix::test]
async fn the_page_after_connecting_says_what_to_paste_where() {
    let desk = Desk::new().await;
    let mut browser = Browser::new(&[(PUBLIC, &desk.node.url(""))]);
    let token = text(&desk.node.get("/2024-03/users/ada/token").await.ok()["token"]);
    let link = format!("{PUBLIC}/connect?token={token}&integrationId={}", desk.integration);
    let swap = browser.get(&link).await;
    let page = browser.get(swap.onward().as_str()).await;
    let mut form = page.form("oauth1");
    assert!(!page.text.contains("ioKeysUri") && !page.text.contains("imsTokenUri"), "{}", page.text);
    let given = [("p.baseUri", desk.shop.url.as_str()), ("p.ioClientId", RECIPIENT)];
    let keys = KEYS.map(|(name, value)| (format!("c.{name}"), value));
    for (name, value) in given.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(keys) {
        form.retain(|(known, _)| *known != name);
        form.push((name, value.to_owned()));
    }
    let end = browser.post(&format!("{PUBLIC}/connect"), &form).await;
    assert!(end.status == 200 && end.text.contains("is connected"), "{}", end.text);
    let all = desk.node.get(&at("connections")).await.ok();
    let uri = text(&all["connections"][0]["webhookUri"]);
    for part in [uri.as_str(), RECIPIENT, "observer.catalog_product_delete_commit_after", "Adobe Developer Console"] {
        assert!(end.text.contains(part), "{part}: {}", end.text);
    }
    desk.node.stop().await;
}

#[actix::test]
async fn without_the_module_it_is_polled_and_says_why() {
    let desk = Desk::new().await;
    desk.shop.take_module_away();
    let connection = desk.connect(four_keys(), json!({"ioClientId": RECIPIENT})).await;
    let webhook = &connection["webhook"];
    assert_eq!(webhook["status"], "failed");
    assert!(text(&webhook["error"]).contains("does not match any route") && webhook["nextAt"].is_string(), "{webhook}");
    let orders = collection(&connection, "orders");
    assert_eq!((&orders["reason"], &orders["detects"]["created"]), (&json!("registration-failed"), &json!("poll")));
    desk.shop.put("orders", 13, order(13, "new"));
    desk.sync(&connection, "incremental").await;
    assert_eq!(desk.came(1).await[0].1, "created");
    let status = desk.node.get(&at("status")).await.ok();
    assert!(status.to_string().contains("\"trouble\":\"webhook\""), "{status}");
    let path = format!("explain?connectionId={}&topic=commerce/orders&remoteId=13", text(&connection["connectionId"]));
    let explained = desk.node.get(&at(&path)).await.ok();
    assert!(explained.to_string().contains("webhook-registration-fails"), "{explained}");
    desk.node.stop().await;
}

#[actix::test]
async fn the_cloud_service_is_opened_with_a_credential_of_ims() {
    let desk = Desk::new().await;
    let more = json!({"baseUri": format!("{}/tenant-1", desk.shop.url), "apiPath": "", "clientId": CLIENT.0,
        "clientSecret": CLIENT.1, "imsOrgId": ORGANISATION, "ioClientId": RECIPIENT});
    let connection = desk.connect(json!({}), more).await;
    assert_eq!(collection(&connection, "orders")["records"], 12);
    assert_eq!(connection["parameters"]["clientSecret"], "***");
    assert_eq!((desk.shop.count("/ims/token/v3"), desk.shop.count("/rest/")), (1, 0));
    assert_eq!(desk.shop.subscribed().len(), 6);
    let (one, two) = (desk.shop.signer("one").await, desk.shop.signer("two").await);
    desk.shop.put("shipments", 13, json!({"entity_id": 13, "order_id": 2, "items": [], "tracks": []}));
    let body = event("sales_order_shipment_save_after", &json!({"entity_id": 13, "_isNew": true})).to_string();
    assert_eq!(desk.send(&connection, &signed(&one, &two, &body), &body).await.status, 200);
    let came = desk.came(1).await;
    assert_eq!((came[0].0.as_str(), came[0].1.as_str()), ("commerce/fulfillments", "created"));
    assert_eq!(came[0].2["orderId"], "2");
    desk.node.stop().await;
}

#[actix::test]
async fn where_keys_and_tokens_come_from_is_an_admins_to_say() {
    let desk = Desk::new().await;
    let key = desk.node.post(&at("keys"), json!({"name": "w", "scopes": ["write"]})).await.ok();
    let key = text(&key["key"]["apiKey"]);
    let path = at(&format!("integrations/{}", desk.integration));
    for name in ["ioKeysUri", "ioApiUri", "imsTokenUri"] {
        let body = json!({"parameters": {name: "https://evil.example"}});
        let told = desk.node.call_as(&key, "PATCH", &path, Some(body)).await.refused(403, "forbidden");
        assert!(told.contains(name), "{told}");
        let body = json!({"userId": "ada", "integrationId": desk.integration, "credentials": four_keys(),
            "parameters": {"baseUri": desk.shop.url, name: "https://evil.example"}});
        let told = desk.node.post(&at("connections"), body).await.refused(422, "invalid");
        assert!(told.contains(name) && told.contains("integration"), "{told}");
    }
    let named = json!({"parameters": {"ioPriority": false}});
    desk.node.call_as(&key, "PATCH", &path, Some(named)).await.ok();
    desk.node.stop().await;
}

/// A client library's word on a signed request; None, with a line about it, where it is not installed.
#[allow(clippy::print_stderr, reason = "what is skipped says so")]
fn oauthlib(asked: &Value) -> Option<String> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let home = std::env::var("XDG_CACHE_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cache")));
    let python = std::path::Path::new(&home.unwrap_or_default()).join("tidemill/clients/bin/python");
    let has = Command::new(&python).args(["-c", "import oauthlib"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: oauthlib is not installed at {}: run scripts/deps --tests", python.display());
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/adobe.py");
    let mut run = Command::new(&python);
    let mut run = run.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python runs");
    run.stdin.take().expect("a pipe").write_all(asked.to_string().as_bytes()).expect("written");
    let said = run.wait_with_output().expect("it ends");
    assert!(said.status.success(), "{script} fails");
    Some(String::from_utf8(said.stdout).expect("text").trim().to_owned())
}

#[actix::test]
async fn requests_signed_with_the_four_keys_are_what_oauthlib_expects() {
    let desk = Desk::new().await;
    desk.connect(four_keys(), json!({"ioClientId": RECIPIENT})).await;
    let signed = desk.shop.signed();
    let is_there = |part: &str| signed.iter().any(|[method, address, _]| format!("{method} {address}").contains(part));
    assert!(is_there("searchCriteria[sortOrders]") || is_there("searchCriteria%5BsortOrders%5D"), "{signed:?}");
    assert!(is_there("POST "));
    for [method, url, authorization] in signed.iter().take(12) {
        let ask = |url: &str| {
            let asked = json!({"method": method, "url": url, "authorization": authorization,
                "consumerSecret": KEYS[1].1, "tokenSecret": KEYS[3].1});
            oauthlib(&asked)
        };
        let Some(said) = ask(url) else { break };
        assert_eq!(said, "good", "{method} {url}");
        let other = if url.contains('?') { format!("{url}&x=1") } else { format!("{url}?x=1") };
        assert_eq!(ask(&other).as_deref(), Some("wrong"), "{method} {other}");
    }
    desk.node.stop().await;
}
