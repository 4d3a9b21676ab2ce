//! NetSuite, connected to a node: SuiteQL in an account whose times are local, its list of deleted records, id scans, and a
//! script in the account that tells of changes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidemill::actors::watcher::List;
use tidemill::actors::watcher::plan::rules;
use tidemill::clock::Clock;
use tidemill::config::Config;
use tidemill::connectors::{Budget, Credentials, PullQuery, Registry, Session};
use tidemill::domain::pull::{End, Next, Seen, Walk};
use tidemill::domain::time::Millis;

use crate::support::fake::{Asked, Fake, Reply};
use crate::support::link::{Link, Told, text};
use crate::support::netsuite::{ACCOUNT, Books, KEYS, NetSuite, certificate, row, signature};
use crate::support::node::client;

const PACIFIC: &str = "America/Los_Angeles";
const SECRET: &str = "a-secret-of-the-account";

fn at(time: &str) -> Millis {
    Millis::parse_rfc3339(time).expect("a time")
}

async fn link(clock: &Clock, app: &NetSuite, collections: &[&str], more: Value) -> Link {
    let integration = json!({"baseUri": app.fake.url});
    let mut parameters = json!({"accountId": "1234567-sb1", "timeZone": PACIFIC});
    for (name, value) in more.as_object().expect("an object") {
        parameters[name] = value.clone();
    }
    let [key, secret, token, token_secret] = KEYS;
    let credentials =
        json!({"consumerKey": key, "consumerSecret": secret, "token": token, "tokenSecret": token_secret});
    Link::open(clock, "netsuite", integration, parameters, credentials, collections).await
}

#[actix::test]
async fn a_certificate_opens_the_account_without_a_token_of_a_person() {
    let (public, pem) = certificate();
    let clock = Clock::still(at("2026-06-01T02:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    app.books().certificate = Some(public);
    contact(&mut app.books(), 1, "2026-05-20T12:00:00Z");
    let parameters = json!({
        "accountId": "1234567-sb1", "timeZone": PACIFIC, "clientId": "client-of-the-account", "certificateId": "cert-7",
        "privateKey": pem,
    });
    let integration = json!({"baseUri": app.fake.url});
    let mut link = Link::open(&clock, "netsuite", integration, parameters, json!({}), &["contacts"]).await;
    app.books().change("contact", 1, json!({"lastname": "Smith", "lastmodifieddate": "2026-06-01T02:00:00Z"}));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    assert_eq!(link.told(1).await[0].data["lastName"], "Smith");
    let shown = link.node.get("/2024-03/one/connections").await.text;
    assert!(!shown.contains(pem.lines().nth(1).expect("a line")), "the key is shown");
    link.node.stop().await;
}

fn order(books: &mut Books, id: u64, changed: &str) {
    books.table("transaction").push(row(json!({
        "id": id, "type": "SalesOrd", "tranid": format!("SO{id}"), "trandate": "2026-05-30T19:00:00Z", "entity": "77",
        "entity!": "Acme Corp", "status": "B", "status!": "Sales Order : Pending Fulfillment", "currency": "1",
        "currency!": "USA", "foreigntotal": "110.50", "createddate": "2026-05-01T12:00:00Z", "lastmodifieddate": changed,
    })));
    let line = |line: u64, main: &str, item: &str, quantity: &str, rate: &str| {
        row(json!({
            "id": line, "transaction": id, "mainline": main, "taxline": "F", "item": item, "item!": format!("SKU-{item}"),
            "quantity": quantity, "rate": rate, "foreignamount": "-55.25",
        }))
    };
    let lines = [line(0, "T", "0", "0", "0"), line(1, "F", "5", "-2", "50.25"), line(2, "F", "6", "-1", "10.00")];
    books.table("transactionline").extend(lines);
    let beside = |line: u64, kind: &str, tax: &str, amount: &str| {
        row(json!({"id": line, "transaction": id, "mainline": "F", "taxline": tax, "itemtype": kind,
            "foreignamount": amount}))
    };
    let beside = [beside(3, "ShipItem", "F", "-7.25"), beside(4, "TaxItem", "T", "-19.38")];
    books.table("transactionline").extend(beside);
}

fn contact(books: &mut Books, id: u64, changed: &str) {
    books.table("contact").push(row(json!({
        "id": id, "firstname": format!("Ann {id}"), "lastname": "Doe", "company": "77", "email": "ann@example.com",
        "datecreated": "2026-05-01T12:00:00Z", "lastmodifieddate": changed,
    })));
}

#[actix::test]
async fn a_change_in_an_account_on_pacific_time_is_seen_once() {
    let clock = Clock::still(at("2026-06-01T02:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    contact(&mut app.books(), 1, "2026-05-20T12:00:00Z");
    let mut link = link(&clock, &app, &["contacts"], json!({})).await;
    clock.raise(at("2026-06-01T03:00:00Z"));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    link.nothing().await;
    clock.raise(at("2026-06-01T04:15:00Z"));
    // Between the look at 03:00 and local midnight at 07:00: a cursor by day in the account's zone never shows it.
    app.books().change("contact", 1, json!({"lastname": "Smith", "lastmodifieddate": "2026-06-01T04:15:00Z"}));
    clock.raise(at("2026-06-01T05:00:00Z"));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let told = link.told(1).await;
    assert_eq!((told[0].kind.as_str(), &told[0].data["lastName"]), ("updated", &json!("Smith")));
    assert_eq!(told[0].data["remoteUpdatedAt"], "2026-06-01T04:15:00.000Z");
    assert_eq!(told[0].old["updatedTimestamp"], 1_780_287_300);
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    clock.raise(at("2026-06-01T08:00:00Z"));
    assert_eq!(link.sync("full").await["outcome"], "completed");
    link.nothing().await;
    let asked = app.books().queries();
    assert!(asked.iter().any(|q| q.contains(">= TO_TIMESTAMP('2026-05-31 21:05:00'")), "{asked:#?}");
    link.node.stop().await;
    app.fake.stop().await;
}

#[actix::test]
async fn changes_of_the_night_of_the_clock_change_are_each_seen_once() {
    let clock = Clock::still(at("2026-11-01T07:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    contact(&mut app.books(), 1, "2026-10-20T12:00:00Z");
    let mut link = link(&clock, &app, &["contacts"], json!({})).await;
    // 01:50 and, twenty minutes later, 01:10 on the clocks there; half an hour after that 01:40.
    for (n, time) in ["2026-11-01T08:50:00Z", "2026-11-01T09:10:00Z", "2026-11-01T09:40:00Z"].iter().enumerate() {
        clock.raise(at(time));
        app.books().change("contact", 1, json!({"lastname": format!("Name {n}"), "lastmodifieddate": time}));
        contact(&mut app.books(), 10 + n as u64, time);
        clock.raise(Millis(at(time).0 + 120_000));
        assert_eq!(link.sync("incremental").await["outcome"], "completed");
        let told = link.told(2).await;
        assert_eq!((told[0].kind.as_str(), &told[0].data["lastName"]), ("updated", &json!(format!("Name {n}"))));
        assert_eq!((told[1].kind.as_str(), &told[1].data["remoteId"]), ("created", &json!((10 + n).to_string())));
        assert_eq!(told[0].data["remoteUpdatedAt"], time.replace('Z', ".000Z"));
    }
    clock.raise(at("2026-11-01T12:00:00Z"));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    link.nothing().await;
    link.node.stop().await;
}

#[actix::test]
async fn orders_come_with_their_lines_and_go_as_the_account_tells() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    for id in 1..=3 {
        order(&mut app.books(), id, "2026-05-30T12:00:00Z");
    }
    let mut link = link(&clock, &app, &["orders"], json!({})).await;
    assert_eq!((link.connection["account"].as_str(), link.records("orders").await), (Some(ACCOUNT), 3));
    order(&mut app.books(), 4, "2026-06-01T12:00:00Z");
    app.books().change(
        "transaction",
        1,
        json!({"status": "G", "status!": "Sales Order : Billed", "lastmodifieddate": "2026-06-01T12:00:01Z"}),
    );
    app.books().delete("transaction", 2, "salesorder", "2026-06-01T12:00:02Z", true);
    // A record of another kind with the same number.
    app.books().delete("contact", 3, "contact", "2026-06-01T12:00:02Z", true);
    clock.raise(at("2026-06-01T12:05:00Z"));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let told = link.told(3).await;
    let kinds: Vec<(&str, String)> = told.iter().map(|t| (t.kind.as_str(), text(&t.data["remoteId"]))).collect();
    assert_eq!(kinds, [("updated", "1".into()), ("deleted", "2".into()), ("created", "4".into())]);
    let order = &told[0].data;
    assert_eq!((&order["orderNumber"], &order["currency"]), (&json!("SO1"), &json!("USD")));
    assert_eq!(order["totalPrice"].to_string(), "110.50");
    assert_eq!((&order["paymentStatus"], &order["fulfillmentStatus"]), (&json!("paid"), &json!("fulfilled")));
    assert_eq!(
        order["lineItems"].as_array().map(Vec::len),
        Some(2),
        "the main line, tax and shipping are no positions"
    );
    assert_eq!((order["totalTax"].to_string(), order["totalShipping"].to_string()), ("19.38".into(), "7.25".into()));
    assert_eq!(order["lineItems"][0]["quantity"].to_string(), "2");
    assert_eq!(
        (&order["lineItems"][0]["sku"], order["lineItems"][0]["price"].to_string()),
        (&json!("SKU-5"), "50.25".into())
    );
    assert_eq!(told[0].app, "NetSuite");
    assert_eq!(told[0].old["updatedTimestamp"], 1_780_315_201);
    // One that the account does not list as deleted is found by its id.
    app.books().delete("transaction", 3, "salesorder", "2026-06-01T12:06:00Z", false);
    assert_eq!(link.sync("full").await["outcome"], "completed");
    let told = link.told(1).await;
    assert_eq!((told[0].kind.as_str(), &told[0].data["remoteId"]), ("deleted", &json!("3")));
    link.nothing().await;
    link.node.stop().await;
}

/// An account with something of each kind.
fn ledger(books: &mut Books) {
    let entity = |id: u64, person: &str| {
        row(json!({
            "id": id, "entityid": format!("C{id}"), "isperson": person, "companyname": "Acme", "email": "a@example.com",
            "isinactive": "F", "datecreated": "2026-05-01T12:00:00Z", "lastmodifieddate": "2026-05-02T12:00:00Z",
        }))
    };
    books.table("customer").extend([entity(1, "F"), entity(2, "T")]);
    books.table("vendor").push(entity(3, "F"));
    books.table("employee").push(entity(4, "T"));
    books.table("item").push(row(json!({
        "id": 5, "itemid": "SKU-5", "displayname": "Shoe", "itemtype": "InvtPart", "isinactive": "F",
        "createddate": "2026-05-01T12:00:00Z", "lastmodifieddate": "2026-05-02T12:00:00Z",
    })));
    books.table("account").push(row(json!({
        "id": 6, "acctnumber": "4000", "accountsearchdisplayname": "Sales", "accttype": "Income", "isinactive": "F",
    })));
    for (id, kind) in [
        (10, "CustInvc"),
        (11, "VendBill"),
        (12, "CustPymt"),
        (13, "PurchOrd"),
        (14, "Opprtnt"),
        (15, "ItemShip"),
        (16, "SalesOrd"),
        (17, "VendPymt"),
    ] {
        order(books, id, "2026-05-30T12:00:00Z");
        books.change("transaction", id, json!({"type": kind}));
    }
    contact(books, 20, "2026-05-20T12:00:00Z");
    let mut lead = entity(7, "F");
    lead.extend(row(json!({"stage": "Lead", "entitystatus": "6", "entitystatus!": "LEAD-Qualified"})));
    books.table("customer").push(lead);
    books.table("task").push(row(json!({
        "id": 30, "title": "Call", "message": "Soon", "status": "COMPLETE", "status!": "Completed", "assigned": "4",
        "duedate": "2026-06-02T19:00:00Z", "createddate": "2026-05-01T12:00:00Z",
        "lastmodifieddate": "2026-05-02T12:00:00Z",
    })));
    books.table("note").push(row(json!({"id": 31, "title": "Called", "note": "Wants a price", "entity": "7"})));
    books.table("customerstatus").push(row(json!({"id": 13, "name": "Closed Won", "probability": "100.0"})));
}

/// What each collection of [`ledger`] shows.
const LEDGER: &[(&str, u64)] = &[
    ("accounting-customers", 3),
    ("leads", 1),
    ("tasks", 1),
    ("notes", 1),
    ("stages", 1),
    ("vendors", 1),
    ("items", 1),
    ("invoices", 1),
    ("bills", 1),
    ("payments", 2),
    ("purchase-orders", 1),
    ("accounts", 1),
    ("orders", 1),
    ("fulfillments", 1),
    ("customers", 3),
    ("products", 1),
    ("contacts", 1),
    ("opportunities", 1),
    ("crm-accounts", 2),
    ("users", 1),
];

#[actix::test]
async fn the_ledger_the_shop_and_the_crm_are_read() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    ledger(&mut app.books());
    let keys: Vec<&str> = LEDGER.iter().map(|(key, _)| *key).collect();
    let link = link(&clock, &app, &keys, json!({})).await;
    for (key, count) in LEDGER {
        assert_eq!(link.records(key).await, *count, "{key}");
    }
    let shown = async |path: &str| {
        let path = format!("/2024-03/one/{path}?connectionId={}", text(&link.connection["connectionId"]));
        let all = link.node.get(&path).await.ok();
        all.as_object().expect("an object").values().find_map(|v| v.as_array().cloned()).expect("a list")[0].clone()
    };
    let invoice = shown("accounting/invoices").await;
    assert_eq!((&invoice["invoiceNumber"], &invoice["customerId"]), (&json!("SO10"), &json!("77")));
    assert_eq!((invoice["totalAmount"].to_string(), &invoice["issueDate"]), ("110.50".into(), &json!("2026-05-30")));
    assert_eq!(invoice["lineItems"][1]["accountingItemId"], "6");
    assert_eq!(shown("accounting/accounts").await["accountNumber"], "4000");
    assert_eq!(shown("crm/users").await["isActive"], true);
    assert_eq!(shown("crm/leads").await["leadStatus"], "LEAD-Qualified");
    let task = shown("crm/tasks").await;
    assert_eq!((&task["taskStatus"], &task["dueDate"]), (&json!("Completed"), &json!("2026-06-02")), "{task}");
    assert_eq!(shown("crm/notes").await["noteContent"], "Wants a price");
    assert_eq!(shown("crm/stages").await["probability"].to_string(), "100.0");
    link.node.stop().await;
}

/// One row of each kind: its table, its id, how the list of deleted records calls it (empty: it has none of that kind).
const KINDS: &[(&str, u64, &str)] = &[
    ("customer", 7, "customer"),
    ("vendor", 3, "vendor"),
    ("employee", 4, "employee"),
    ("item", 5, "inventoryitem"),
    ("account", 6, ""),
    ("contact", 20, "contact"),
    ("task", 30, "task"),
    ("note", 31, ""),
    ("customerstatus", 13, ""),
    ("transaction", 10, "invoice"),
    ("transaction", 11, "vendorbill"),
    ("transaction", 12, "customerpayment"),
    ("transaction", 13, "purchaseorder"),
    ("transaction", 14, "opportunity"),
    ("transaction", 15, "itemfulfillment"),
    ("transaction", 16, "salesorder"),
];

#[actix::test]
async fn every_collection_tells_what_is_new_what_changed_and_what_went() {
    const NEW: u64 = 100;
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    ledger(&mut app.books());
    let keys: Vec<&str> = LEDGER.iter().map(|(key, _)| *key).collect();
    let mut link = link(&clock, &app, &keys, json!({})).await;
    clock.raise(at("2026-06-01T13:00:00Z"));
    let now = "2026-06-01T12:59:00Z";
    for (table, id, _) in KINDS {
        let mut books = app.books();
        let mut twin = books.table(table).iter().find(|row| row["id"] == *id).expect("a row").clone();
        twin.extend(row(json!({"id": id + NEW, "datecreated": now, "createddate": now, "lastmodifieddate": now})));
        books.table(table).push(twin);
        books.change(
            table,
            *id,
            json!({
                "companyname": "Changed", "email": "changed@example.com", "displayname": "Changed", "tranid": "CHANGED",
                "accountsearchdisplayname": "Changed", "lastname": "Changed", "title": "Changed", "note": "Changed",
                "name": "Changed", "status": "C", "status!": "Changed", "lastmodifieddate": now,
            }),
        );
    }
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let topics: Vec<String> = {
        let shown = link.node.get(&link.path("")).await.ok();
        let all = shown["connection"]["collections"].as_array().expect("collections").clone();
        all.iter().map(|c| text(&c["topic"])).collect()
    };
    assert_eq!(topics.len(), LEDGER.len());
    let pairs = |told: Vec<Told>| {
        let mut pairs: Vec<(String, String)> = told.into_iter().map(|one| (one.topic, one.kind)).collect();
        pairs.sort();
        pairs
    };
    let expected = |kinds: &[&str]| {
        let each = |topic: &String| kinds.iter().map(|kind| (topic.clone(), (*kind).to_owned())).collect::<Vec<_>>();
        let mut all: Vec<(String, String)> = topics.iter().flat_map(each).collect();
        all.sort();
        all
    };
    assert_eq!(pairs(link.told(2 * topics.len()).await), expected(&["created", "updated"]));
    clock.raise(at("2026-06-01T14:00:00Z"));
    for (table, id, kind) in KINDS {
        app.books().delete(table, id + NEW, kind, "2026-06-01T13:59:00Z", !kind.is_empty());
    }
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    assert_eq!(pairs(link.told(topics.len()).await), expected(&["deleted"]));
    link.nothing().await;
    link.node.stop().await;
}

#[actix::test]
async fn an_id_scan_that_fails_deletes_nothing_and_one_that_misses_a_third_is_held() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    for id in 1..=4_500 {
        contact(&mut app.books(), id, "2026-05-20T12:00:00Z");
    }
    let mut link = link(&clock, &app, &["contacts"], json!({})).await;
    assert_eq!(link.records("contacts").await, 4_500);
    app.books().table("contact").truncate(4_490);
    app.books().fail_after = Some(2);
    let pull = link.sync("full").await;
    assert_eq!(
        (&pull["outcome"], &pull["pages"], &pull["deleted"]),
        (&json!("failed"), &json!(2), &json!(0)),
        "{pull}"
    );
    link.nothing().await;
    app.books().table("contact").truncate(3_000);
    assert_eq!(link.sync("full").await["outcome"], "held");
    assert_eq!(link.records("contacts").await, 4_500);
    link.nothing().await;
    link.node.stop().await;
}

#[actix::test]
async fn a_script_in_the_account_tells_of_a_change_at_once() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    order(&mut app.books(), 1, "2026-05-30T12:00:00Z");
    order(&mut app.books(), 3, "2026-05-30T12:00:00Z");
    let mut link = link(&clock, &app, &["orders"], json!({"webhookSecret": SECRET})).await;
    let uri = text(&link.connection["webhookUri"]);
    let steps = text(&link.connection["webhook"]["instructions"]);
    assert!(steps.contains(&format!("url: '{uri}'")) && steps.contains("custsecret_tidemill"), "{steps}");
    let path = format!("/in/{}", uri.split("/in/").nth(1).expect("a path"));
    let post = async |body: &Value, secret: &str| {
        let body = body.to_string();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let sign = hex::encode(aws_lc_rs::hmac::sign(&key, body.as_bytes()));
        let headers = [("content-type", "application/json"), ("x-tidemill-signature", sign.as_str())];
        link.node.send("POST", &path, &headers, &body).await.status
    };
    app.books().change(
        "transaction",
        1,
        json!({"memo": "Leave at the door", "lastmodifieddate": "2026-06-01T12:00:00Z"}),
    );
    let change = json!({"type": "salesorder", "id": 1, "event": "edit"});
    assert_eq!(post(&change, "another secret of nobody").await, 401);
    assert_eq!(post(&change, SECRET).await, 200);
    // What is no number reaches no query.
    assert_eq!(post(&json!({"type": "salesorder", "id": "1 OR 1 = 1", "event": "edit"}), SECRET).await, 200);
    order(&mut app.books(), 2, "2026-06-01T12:00:00Z");
    assert_eq!(post(&json!({"type": "SALESORDER", "id": "2", "event": "create"}), SECRET).await, 200);
    app.books().delete("transaction", 3, "salesorder", "2026-06-01T12:00:00Z", false);
    assert_eq!(post(&json!({"type": "salesorder", "id": 3, "event": "delete"}), SECRET).await, 200);
    let told = link.told(3).await;
    assert_eq!((told[0].kind.as_str(), &told[0].data["note"]), ("updated", &json!("Leave at the door")));
    assert_eq!((told[1].kind.as_str(), &told[1].data["remoteId"]), ("created", &json!("2")));
    assert_eq!((told[2].kind.as_str(), &told[2].data["remoteId"]), ("deleted", &json!("3")));
    assert!(app.books().queries().iter().all(|q| !q.contains("1 OR 1")));
    link.node.stop().await;
}

#[actix::test]
async fn columns_of_the_accounts_own_are_custom_fields_and_a_missing_one_is_said() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    order(&mut app.books(), 1, "2026-05-30T12:00:00Z");
    app.books().change("transaction", 1, json!({"custbody_region": "north"}));
    let more = json!({"columns": {"orders": "t.tranid, t.entity, t.custbody_region"}});
    let link = link(&clock, &app, &["orders"], more).await;
    let path = format!("/2024-03/one/commerce/orders?connectionId={}", text(&link.connection["connectionId"]));
    let orders = link.node.get(&path).await.ok();
    assert_eq!(orders["orders"][0]["customFields"]["custbody_region"], "north", "{orders}");
    let wrong = json!({"parameters": {"columns": {"orders": "t.tranid, t.nothing"}}});
    assert_eq!(link.node.call("PATCH", &link.path(""), Some(wrong)).await.status, 200);
    // What is missing is left out and said; the rest goes on.
    app.books().change("transaction", 1, json!({"tranid": "SO1-a", "lastmodifieddate": "2026-06-01T12:00:00Z"}));
    for _ in 0..2 {
        let pull = link.sync("incremental").await;
        assert_eq!(pull["outcome"], "completed", "{pull}");
        let said = "orders: left out, since the account does not show them: nothing";
        assert_eq!(pull["error"], said, "{pull}");
    }
    let orders = link.node.get(&path).await.ok();
    assert_eq!(orders["orders"][0]["orderNumber"], "SO1-a", "{orders}");
    let tried = app.books().queries().iter().filter(|q| q.contains("t.nothing")).count();
    assert_eq!(tried, 1, "it is asked for once a day");
    let zone = json!({"parameters": {"timeZone": "Mars/Olympus"}});
    let refused = link.node.call("PATCH", &link.path(""), Some(zone)).await.refused(422, "invalid");
    assert!(refused.contains("timeZone must be a time zone"), "{refused}");
    link.node.stop().await;
}

/// What `GET /one/metadata/fields` lists of the account's own: name, title, the app's type.
async fn listed(link: &Link, topic: &str) -> Vec<(String, String, String)> {
    let path =
        format!("/2024-03/one/metadata/fields?topic={topic}&connectionId={}", text(&link.connection["connectionId"]));
    let all = link.node.get(&path).await.ok()["fields"].as_array().expect("fields").clone();
    let own = all.iter().filter(|field| field["custom"] == true && field["appType"].is_string());
    own.map(|f| (text(&f["path"]).replace("customFields.", ""), text(&f["title"]), text(&f["appType"]))).collect()
}

#[actix::test]
async fn fields_of_the_accounts_own_come_though_nobody_names_them() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    {
        let mut books = app.books();
        ledger(&mut books);
        let own = json!({
            "custentity_VIP": {"title": "VIP", "type": "boolean", "nullable": true},
            "custentity_score": {"title": "Score", "type": "number", "format": "float", "nullable": true},
            "custentity_visits": {"title": "Visits", "type": "integer", "format": "int64", "nullable": true},
            "custentity_since_date": {"title": "Since", "type": "string", "format": "date", "nullable": true},
            "custentity_tier": {"title": "Tier", "type": "object", "properties": {"id": {}, "refName": {}}},
        });
        books.catalogue.insert("customer", own);
        let own = json!({
            "custbody_region": {"title": "Region", "type": "string", "nullable": true},
            "custbody_pickup_date": {"title": "Pickup", "type": "string", "format": "date-time", "nullable": true},
        });
        books.catalogue.insert("salesorder", own);
        // Items of several kinds are one collection; the account has not got all of them.
        books.catalogue.insert("inventoryitem", json!({"custitem_colour": {"title": "Colour", "type": "string"}}));
        books.catalogue.insert("kititem", json!({"custitem_parts": {"title": "Parts", "type": "integer"}}));
    }
    let mut link = link(&clock, &app, &["customers", "orders", "items"], json!({})).await;
    let three = |name: &str, title: &str, kind: &str| (name.to_owned(), title.to_owned(), kind.to_owned());
    let expected = [
        three("custentity_score", "Score", "number"),
        three("custentity_since_date", "Since", "date"),
        three("custentity_tier", "Tier", "object"),
        three("custentity_vip", "VIP", "boolean"),
        three("custentity_visits", "Visits", "integer"),
    ];
    assert_eq!(listed(&link, "commerce/customers").await, expected);
    let expected = [three("custitem_colour", "Colour", "string"), three("custitem_parts", "Parts", "integer")];
    assert_eq!(listed(&link, "accounting/items").await, expected);

    let now = "2026-06-01T12:00:00Z";
    let own = json!({
        "custentity_vip": "T", "custentity_score": "12.50", "custentity_visits": "3", "custentity_tier": "7",
        "custentity_since_date": "2026-05-01T03:00:00Z", "lastmodifieddate": now, "datecreated": now,
    });
    {
        let mut books = app.books();
        let mut fresh = books.table("customer")[0].clone();
        fresh.extend(row(json!({"id": 90})));
        fresh.extend(row(own.clone()));
        books.table("customer").push(fresh);
        books.change("customer", 1, own);
        let own = json!({"custbody_region": "north", "custbody_pickup_date": "2026-06-02T01:30:00Z", "lastmodifieddate": now});
        order(&mut books, 91, now);
        books.change("transaction", 91, own.clone());
        books.change("transaction", 16, own);
        books.change("item", 5, json!({"custitem_colour": "red", "lastmodifieddate": now}));
    }
    clock.raise(at("2026-06-01T12:05:00Z"));
    let pull = link.sync("incremental").await;
    assert_eq!((&pull["outcome"], &pull["error"]), (&json!("completed"), &Value::Null), "{pull}");
    let told = link.told(5).await;
    let kinds: Vec<(&str, String)> = told.iter().map(|t| (t.kind.as_str(), text(&t.data["remoteId"]))).collect();
    let expected = [("updated", "5"), ("updated", "1"), ("created", "90"), ("updated", "16"), ("created", "91")];
    assert_eq!(kinds, expected.map(|(kind, id)| (kind, id.to_owned())));
    assert_eq!(told[0].data["customFields"], json!({"custitem_colour": "red"}));
    for customer in &told[1..3] {
        for own in [&customer.data["customFields"], &customer.old["customFields"]] {
            // The day is the account's: 2026-04-30, 20:00 there.
            assert_eq!((&own["custentity_vip"], &own["custentity_since_date"]), (&json!(true), &json!("2026-04-30")));
            assert_eq!(
                (own["custentity_score"].to_string(), own["custentity_visits"].to_string()),
                ("12.50".into(), "3".into())
            );
            assert_eq!((&own["custentity_tier"], &own["companyname"]), (&json!("7"), &json!("Acme")));
        }
    }
    for order in &told[3..] {
        let own = json!({"entityname": "Acme Corp", "custbody_region": "north", "custbody_pickup_date": "2026-06-02T01:30:00.000Z"});
        assert_eq!(order.data["customFields"], own);
        assert_eq!(order.data["orderNumber"], format!("SO{}", text(&order.data["remoteId"])));
    }
    let asked = app.books().queries();
    assert!(asked.iter().all(|q| !q.contains("recmach")), "{asked:?}");
    assert_eq!(app.books().catalogued.iter().filter(|record| *record == "customer").count(), 1, "once a day");
    link.node.stop().await;
}

#[actix::test]
async fn a_role_that_may_not_read_the_catalogue_sees_the_usual_columns_and_the_pull_says_so() {
    for status in [403, 401] {
        let clock = Clock::still(at("2026-06-01T12:00:00Z"));
        let app = NetSuite::start(&clock, PACIFIC);
        order(&mut app.books(), 1, "2026-05-30T12:00:00Z");
        app.books().change("transaction", 1, json!({"custbody_region": "north"}));
        app.books().catalogue.insert("salesorder", json!({"custbody_region": {"title": "Region", "type": "string"}}));
        app.books().catalogue_closed = Some(status);
        let mut link = link(&clock, &app, &["orders"], json!({})).await;
        for n in 0..3 {
            let (name, now) = (format!("SO1-{n}"), clock.now().rfc3339_millis());
            app.books().change("transaction", 1, json!({"tranid": name, "lastmodifieddate": now}));
            let pull = link.sync("incremental").await;
            assert_eq!(pull["outcome"], "completed", "{pull}");
            let said = text(&pull["error"]);
            assert!(said.starts_with("orders: the account's own fields could not be listed: the app "), "{said}");
            let told = link.told(1).await;
            assert_eq!((told[0].kind.as_str(), &told[0].data["orderNumber"]), ("updated", &json!(name)));
            assert_eq!(told[0].data["customFields"], json!({"entityname": "Acme Corp"}));
        }
        let shown = link.node.get(&link.path("")).await.ok();
        assert_eq!(
            (&shown["connection"]["status"], &shown["connection"]["error"]),
            (&json!("active"), &Value::Null),
            "{shown}"
        );
        assert_eq!(listed(&link, "commerce/orders").await, []);
        // A refusal is believed for a day. When the role may read it, all is read again, silently.
        if status == 403 {
            assert_eq!(app.books().catalogued.len(), 1, "a refusal is believed for a day");
        }
        app.books().catalogue_closed = None;
        clock.raise(Millis(clock.now().0 + 25 * 3_600_000));
        let pull = link.sync("incremental").await;
        assert_eq!((&pull["outcome"], &pull["error"]), (&json!("completed"), &Value::Null), "{pull}");
        let path = format!("/2024-03/one/commerce/orders?connectionId={}", text(&link.connection["connectionId"]));
        link.until(&path, |all| all["orders"][0]["customFields"]["custbody_region"] == "north").await;
        link.nothing().await;
        link.node.stop().await;
    }
}

#[actix::test]
async fn a_field_that_is_listed_and_is_no_column_is_left_out_and_said() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    contact(&mut app.books(), 1, "2026-05-20T12:00:00Z");
    app.books().change("contact", 1, json!({"custentity_nick": "Annie", "custentity_secret": "x"}));
    let own = json!({
        "custentity_nick": {"title": "Nick", "type": "string"}, "custentity_secret": {"title": "Secret", "type": "string"},
        "custentity_old_date": {"title": "Old", "type": "string", "format": "date"},
    });
    app.books().catalogue.insert("contact", own);
    app.books().hidden.extend(["custentity_secret".to_owned(), "custentity_old_date".to_owned()]);
    let mut link = link(&clock, &app, &["contacts"], json!({})).await;
    app.books().change("contact", 1, json!({"lastname": "Smith", "lastmodifieddate": "2026-06-01T12:00:00Z"}));
    let pull = link.sync("incremental").await;
    assert_eq!(pull["outcome"], "completed", "{pull}");
    let said = "contacts: left out, since the account does not show them: custentity_old_date, custentity_secret";
    assert_eq!(pull["error"], said, "{pull}");
    let told = link.told(1).await;
    assert_eq!(
        (&told[0].data["lastName"], &told[0].data["customFields"]),
        (&json!("Smith"), &json!({"custentity_nick": "Annie"}))
    );
    let tried = app.books().queries().iter().filter(|q| q.contains("t.custentity_old_date")).count();
    assert_eq!(tried, 1, "it is asked for once a day");
    link.node.stop().await;
}

#[actix::test]
async fn columns_that_a_person_names_are_the_columns_whatever_the_catalogue_lists() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    contact(&mut app.books(), 1, "2026-05-20T12:00:00Z");
    app.books().change("contact", 1, json!({"custentity_nick": "Annie", "custentity_vip": "F"}));
    let own = json!({"custentity_nick": {"title": "Nick", "type": "string"}, "custentity_vip": {"title": "VIP", "type": "boolean"}});
    app.books().catalogue.insert("contact", own);
    let columns = json!({"columns": {"contacts": "t.lastname, t.custentity_vip"}});
    let mut link = link(&clock, &app, &["contacts"], columns).await;
    app.books().change("contact", 1, json!({"lastname": "Smith", "lastmodifieddate": "2026-06-01T12:00:00Z"}));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let told = link.told(1).await;
    assert_eq!((&told[0].data["lastName"], &told[0].data["firstName"]), (&json!("Smith"), &Value::Null));
    assert_eq!(told[0].data["customFields"], json!({"custentity_vip": false}));
    assert!(app.books().queries().iter().all(|q| !q.contains("custentity_nick")));
    link.node.stop().await;
}

#[actix::test]
async fn too_many_requests_at_once_are_waited_for() {
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let app = NetSuite::start(&clock, PACIFIC);
    contact(&mut app.books(), 1, "2026-05-20T12:00:00Z");
    let link = link(&clock, &app, &["contacts"], json!({})).await;
    // Without a word on how long, the looks that come by themselves wait longer each time.
    for seconds in [10, 20, 40] {
        app.refuse(1, None);
        assert_eq!(link.sync("incremental").await["outcome"], "failed");
        let (_, refused) = app.last();
        let next = link.next_pull("contacts").await;
        assert!(next.0 >= refused.0 + seconds * 1_000, "{} ms after the refusal", next.0 - refused.0);
    }
    assert_eq!(link.sync("incremental").await["outcome"], "completed");

    // With one, nothing is sent before, whoever asks for it.
    app.refuse(1, Some(45));
    assert_eq!(link.sync("incremental").await["outcome"], "failed");
    let (count, refused) = app.last();
    assert!(link.next_pull("contacts").await.0 >= refused.0 + 45_000);
    clock.raise(Millis(refused.0 + 30_000));
    let pull = link.sync("incremental").await;
    assert_eq!((&pull["outcome"], app.last().0), (&json!("failed"), count), "{pull}");
    assert!(text(&pull["error"]).contains("rate limit"), "{pull}");
    // Seconds before the end, the call waits for it.
    clock.raise(Millis(refused.0 + 43_500));
    assert_eq!(link.sync("incremental").await["outcome"], "completed");
    let next = app.books().times[count];
    assert!(next.0 >= refused.0 + 45_000, "it was asked {} ms after the refusal", next.0 - refused.0);
    assert_eq!(link.node.get(&link.path("")).await.ok()["connection"]["status"], "active");
    link.node.stop().await;
}

/// Rows that are not kept but made: the second in which each was changed, in order.
struct Crowd {
    changed: Vec<u64>,
    /// The largest offset that was asked for.
    furthest: usize,
}

/// What a query shows at most.
const ROWS_MAX: usize = 100_000;

impl Crowd {
    /// Answers the queries of the real folder: a bound of time, or of ids; no further than a query goes, as if that were all.
    fn answer(&mut self, asked: &Asked) -> Reply {
        let query = text(&asked.json()["q"]);
        let number = |name: &str| asked.query(name).and_then(|n| n.parse::<usize>().ok()).expect("a number");
        let (limit, offset) = (number("limit"), number("offset"));
        self.furthest = self.furthest.max(offset);
        let bound = |mark: &str| {
            let (_, rest) = query.split_once(mark)?;
            let time = rest.get(..19).expect("a time").replace(' ', "T");
            Some(Millis::parse_rfc3339(&format!("{time}Z")).expect("a time").seconds())
        };
        let (low, high) = (bound(">= TO_TIMESTAMP('"), bound("<= TO_TIMESTAMP('"));
        let ids = query.rsplit_once("t.id > ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
        let from = low.map_or(0, |low| self.changed.partition_point(|at| *at < low)).max(ids.unwrap_or(0));
        let to = high.map_or(self.changed.len(), |high| self.changed.partition_point(|at| *at <= high));
        let shown = from..to.min(from + ROWS_MAX);
        let row = |n: usize| {
            let changed = Millis(self.changed[n] * 1_000).rfc3339_millis().replace('T', " ");
            json!({"id": (n + 1).to_string(), "lastmodified": &changed[..19]})
        };
        let page = shown.clone().skip(offset).take(limit);
        let more = offset + page.len() < shown.len();
        let items: Vec<Value> = page.map(row).collect();
        Reply::json(200, &json!({"items": items, "hasMore": more, "totalResults": shown.len()}))
    }
}

/// A walk over that many rows with the folder as it is shipped: the ids that it showed, how it ended, the furthest offset.
async fn walked(changed: Vec<u64>, scans: bool) -> (BTreeSet<String>, Option<End>, usize) {
    let crowd = Arc::new(Mutex::new(Crowd { changed, furthest: 0 }));
    let answering = crowd.clone();
    let fake = Fake::start(move |asked| match asked.path.contains("/metadata-catalog/") {
        true => Reply::json(404, &json!({})),
        false => answering.lock().expect("unpoisoned").answer(asked),
    });
    let config = Config::embedded().expect("the shipped configuration");
    let registry = Registry::load(&config.connectors, &config.scripts).expect("connectors");
    let connector = registry.get("netsuite").expect("it is there");
    let parameters = json!({"accountId": ACCOUNT, "timeZone": "UTC", "baseUri": fake.url});
    let parameters = connector.parameters.check(parameters.as_object().expect("an object")).expect("they fit");
    let [key, secret, token, token_secret] = KEYS;
    let credentials =
        json!({"consumerKey": key, "consumerSecret": secret, "token": token, "tokenSecret": token_secret});
    let credentials = Credentials::read(&credentials).expect("credentials");
    let clock = Clock::still(at("2026-06-01T12:00:00Z"));
    let (base, budget) = (fake.url.parse().expect("an address"), Arc::new(Budget::unlimited(clock.now())));
    let session = Session::new(connector.clone(), &base, parameters, credentials, client(), budget, clock.clone())
        .expect("a session");
    let c = connector.collection("contacts").expect("contacts");
    let (mut shown, mut mark) = (BTreeSet::new(), None);
    if scans {
        loop {
            let page = session.scan_page(c, mark.as_ref()).await.expect("a page");
            shown.extend(page.records.into_iter().map(|record| record.remote_id));
            mark = page.next;
            if mark.is_none() {
                return (shown, None, crowd.lock().expect("unpoisoned").furthest);
            }
        }
    }
    let mut walk = Walk::start(rules(c, List::Changes), None, clock.now());
    let mut query = walk.query();
    loop {
        let asked = PullQuery { since: query.since.clone(), until: query.until };
        let page = session.pull_page(c, &asked, mark.as_ref()).await.expect("a page");
        let seen: Vec<Seen<'_>> =
            page.records.iter().map(|r| Seen { id: &r.remote_id, updated_at: r.updated_at }).collect();
        let step = walk.page(&seen, page.next.is_some(), page.total).expect("it goes on");
        shown.extend(page.records.iter().map(|record| record.remote_id.clone()));
        match step.next {
            Next::Page => mark = page.next,
            Next::Query => (query, mark) = (walk.query(), None),
            Next::Done(end) => return (shown, Some(end), crowd.lock().expect("unpoisoned").furthest),
        }
    }
}

#[actix::test]
async fn more_rows_than_a_query_shows_are_walked_to_the_last_with_the_folder_as_it_is() {
    let start = at("2026-05-01T00:00:00Z").seconds();
    let many: Vec<u64> = (0..100_500).map(|n| start + n / 100).collect();
    let (shown, end, furthest) = walked(many.clone(), false).await;
    assert_eq!((shown.len(), end), (many.len(), Some(End::Complete)));
    assert!(furthest < ROWS_MAX, "{furthest}");
    let (shown, _, furthest) = walked(many.clone(), true).await;
    assert_eq!((shown.len(), furthest), (many.len(), 0), "ids are asked for from the last one on");
}

#[actix::test]
async fn more_rows_in_one_second_than_a_query_shows_do_not_hide_what_changed_after_it() {
    let start = at("2026-05-01T00:00:00Z").seconds();
    let crowded: Vec<u64> = (0..100_600).map(|n| if n < 100_500 { start } else { start + n }).collect();
    let (shown, end, furthest) = walked(crowded, false).await;
    assert_eq!(end, Some(End::Truncated), "a full scan finds the rest");
    assert!((100_501..=100_600).all(|id| shown.contains(&id.to_string())), "{}", shown.len());
    assert!(shown.len() >= ROWS_MAX && furthest < ROWS_MAX, "{} {furthest}", shown.len());
}

/// The virtual environment that `scripts/deps --tests` makes, if it is there with that module.
fn python(module: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let python = cache.join("tidemill/clients/bin/python");
    let there = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    there.is_ok_and(|done| done.status.success()).then_some(python)
}

#[actix::test]
async fn the_client_library_signs_as_the_fake_checks() {
    let Some(python) = python("oauthlib") else {
        eprintln!("SKIPPED: oauthlib is not installed; scripts/deps --tests installs it");
        return;
    };
    let clock = Clock::start(Millis(0));
    let app = NetSuite::start(&clock, PACIFIC);
    contact(&mut app.books(), 1, "2026-05-20T12:00:00Z");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/netsuite.py");
    let url = format!("{}/services/rest/query/v1/suiteql?limit=1000&offset=0", app.fake.url);
    let arguments: Vec<String> = [script, &url, ACCOUNT].iter().chain(&KEYS).map(|s| (*s).to_owned()).collect();
    let run = tokio::task::spawn_blocking(move || Command::new(python).args(arguments).output());
    let done = run.await.expect("it ran").expect("it ran");
    let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{error}");
    // The library's own signature of that request, with its nonce and its time.
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert_eq!(told["answer"]["items"][0]["id"], "1", "{told}");
    let fields: Vec<(String, String)> =
        told["fields"].as_object().expect("fields").iter().map(|(n, v)| (n.clone(), text(v))).collect();
    assert_eq!(signature("POST", &url, &fields, KEYS), text(&told["signature"]));
    app.fake.stop().await;
}
