//! MongoDB: once, judged one by one, and never an older document over a later one.

use std::sync::Arc;

use mongodb::Database;
use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Verdict};
use tidemill::destinations::kinds;
use tidemill::domain::address::Policy;
use tidemill::domain::destination::{Deletes, Shape};
use tidemill::outbound::{Client, Options};

use crate::support::mongodb::{own, shared};
use crate::support::{batches, open, open_through, promises, unknown_setting};

const MARK: Shape = Shape::Mirror(Deletes::Mark);

async fn count(database: &Database, collection: &str) -> usize {
    let count = database.collection::<Document>(collection).count_documents(doc! {}).await.unwrap();
    usize::try_from(count).unwrap()
}

async fn only(database: &Database, collection: &str, filter: Document) -> Document {
    database.collection::<Document>(collection).find_one(filter).await.unwrap().expect("a document")
}

/// The code and the sort of a refusal of all.
fn refusal(answer: &Answer) -> (&'static str, &'static str) {
    match answer {
        Answer::All(Verdict::Retry(fault)) => ("retry", fault.error.slug()),
        Answer::All(Verdict::Row(fault)) => ("row", fault.error.slug()),
        Answer::All(Verdict::Config(fault)) => ("config", fault.error.slug()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_is_in_the_collection_once() {
    let Some(server) = shared().await else { return };
    let database = server.database("once").await;
    let driver = open("mongodb", server.settings("once")).unwrap();
    let count = || count(&database, "tidemill_events");
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
    assert_eq!(database.list_collection_names().await.unwrap(), ["tidemill_events"], "a test leaves nothing");
}

#[tokio::test]
async fn a_mirror_shows_the_latest_and_never_an_older_one() {
    let Some(server) = shared().await else { return };
    let database = server.database("mirror").await;
    let driver = open("mongodb", server.settings("mirror")).unwrap();
    let named =
        |number, seq, name: &str| batches::batch(number, MARK, seq, vec![batches::contact("updated", "7", name)]);
    promises::prepares_the_same(&driver, &named(1, 1, "A"));
    promises::write(&driver, &named(1, 5, "Later")).await;
    promises::write(&driver, &named(2, 3, "Older")).await;
    let shown = only(&database, "crm_contacts", doc! { "remoteId": "7" }).await;
    assert_eq!(shown.get_document("payload").unwrap().get_str("firstName").ok(), Some("Later"));
    assert_eq!((shown.get_i64("seq").ok(), shown.get("deletedAt")), (Some(5), Some(&Bson::Null)));
    // Several changes of a record in one batch, the last one a deletion; `7 ` is another.
    let events = vec![
        batches::contact("updated", "7", "Last"),
        batches::contact("deleted", "7", "Last"),
        batches::contact("created", "7 ", "Blank"),
    ];
    promises::write(&driver, &batches::batch(3, MARK, 6, events)).await;
    let shown = only(&database, "crm_contacts", doc! { "remoteId": "7" }).await;
    assert_eq!((shown.get_i64("seq").ok(), shown.get_datetime("deletedAt").is_ok()), (Some(7), true));
    assert_eq!(count(&database, "crm_contacts").await, 2);
    let steps = driver.test(&batches::probe(MARK)).await;
    assert!(steps.iter().all(|step| step.fault.is_none()), "{steps:?}");
}

#[tokio::test]
async fn a_mirror_can_forget_what_was_deleted() {
    let Some(server) = shared().await else { return };
    let database = server.database("forget").await;
    let driver = open("mongodb", server.settings("forget")).unwrap();
    let shape = Shape::Mirror(Deletes::Remove);
    for (number, seq, what, left) in [(1, 5, "created", 1), (2, 4, "deleted", 1), (3, 6, "deleted", 0)] {
        let event = batches::contact(what, "7", "A");
        promises::write(&driver, &batches::batch(number, shape, seq, vec![event])).await;
        assert_eq!(count(&database, "crm_contacts").await, left, "{what} at {seq}");
    }
    // Of one batch: changed and gone, gone and made anew, and another's deletion before them.
    let batch = batches::batch(
        4,
        shape,
        10,
        vec![
            batches::contact("deleted", "0", "A"),
            batches::contact("created", "1", "A"),
            batches::contact("deleted", "1", "A"),
            batches::contact("deleted", "2", "A"),
            batches::contact("created", "2", "Again"),
        ],
    );
    for _ in 0..2 {
        promises::write(&driver, &batch).await;
        assert_eq!(count(&database, "crm_contacts").await, 1);
        let left = only(&database, "crm_contacts", doc! {}).await;
        assert_eq!(left.get_document("payload").unwrap().get_str("firstName").unwrap(), "Again");
    }
}

#[tokio::test]
async fn what_was_deleted_in_a_batch_stays_deleted_whatever_comes_first_in_it() {
    let Some(server) = shared().await else { return };
    let database = server.database("deleted_within").await;
    let driver = open("mongodb", server.settings("deleted_within")).unwrap();
    let events = vec![
        batches::contact("deleted", "8", "B"),
        batches::contact("updated", "7", "A"),
        batches::contact("deleted", "7", "A"),
        batches::contact("deleted", "9", "C"),
        batches::contact("created", "9", "C"),
    ];
    let batch = batches::batch(1, Shape::Mirror(Deletes::Remove), 1, events);
    promises::prepares_the_same(&driver, &batch);
    for _ in 0..2 {
        promises::write(&driver, &batch).await;
        assert_eq!(count(&database, "crm_contacts").await, 1);
        only(&database, "crm_contacts", doc! { "remoteId": "9" }).await;
    }
}

#[tokio::test]
async fn what_is_written_reads_back_to_the_digit() {
    let Some(server) = shared().await else { return };
    let database = server.database("digits").await;
    let driver = open("mongodb", server.settings("digits")).unwrap();
    let payload = "{\"id\":1,\"a.b\":1,\"$set\":{\"$inc\":{\"c.d\":2}},\"$ref\":\"x\",\"long\":9223372036854775807,\
                   \"wide\":9223372036854775808,\"money\":12.50,\"nul\":\"a\\u0000b\"}";
    let event = || batches::custom("acme/things", payload);
    promises::write(&driver, &batches::batch(1, Shape::Append, 1, vec![event()])).await;
    promises::write(&driver, &batches::batch(2, MARK, 2, vec![event()])).await;
    promises::write(&driver, &batches::batch(3, MARK, 3, vec![event()])).await;
    for collection in ["tidemill_events", "acme_things"] {
        let found = only(&database, collection, doc! {}).await;
        let found = found.get_document("payload").unwrap();
        let expected = doc! {
            "id": 1_i64, "a.b": 1_i64, "$set": { "$inc": { "c.d": 2_i64 } }, "$ref": "x", "long": i64::MAX,
            "wide": "9223372036854775808".parse::<mongodb::bson::Decimal128>().unwrap(),
            "money": "12.50".parse::<mongodb::bson::Decimal128>().unwrap(), "nul": "a\0b",
        };
        assert_eq!(*found, expected, "{collection}");
    }
    let at = only(&database, "tidemill_events", doc! {}).await;
    assert_eq!(at.get_datetime("eventTime").ok(), Some(&DateTime::from_millis(1_772_366_400_000)));
    // Deeper than the server goes, and a key that it cannot have: kept as text.
    let deep = format!("{{\"id\":2,\"deep\":{}1{}}}", "[".repeat(120), "]".repeat(120));
    let events = [deep.as_str(), "{\"id\":3,\"a\\u0000b\":1}"].map(|payload| batches::custom("acme/things", payload));
    promises::write(&driver, &batches::batch(4, Shape::Append, 10, events.to_vec())).await;
    let found = only(&database, "tidemill_events", doc! { "remoteId": "3" }).await;
    assert_eq!(found.get_str("payloadJson").ok(), Some("{\"id\":3,\"a\\u0000b\":1}"));
}

#[tokio::test]
async fn each_event_is_judged_by_itself() {
    let Some(server) = shared().await else { return };
    let database = server.database("judged").await;
    database
        .run_command(doc! { "create": "tidemill_events", "validator": { "payload.firstName": { "$ne": "First 2" } } })
        .await
        .unwrap();
    let unique = doc! { "key": { "payload.firstName": 1 }, "name": "mine", "unique": true };
    database.run_command(doc! { "createIndexes": "tidemill_events", "indexes": [unique] }).await.unwrap();
    let driver = open("mongodb", server.settings("judged")).unwrap();
    let mut batch = batches::contacts(1, 1, 4);
    // The fourth has the first name of the first, which the owner's index refuses.
    batch.items[3].payload = batch.items[0].payload.clone();
    let answer = driver.send(&driver.prepare(&batch).unwrap()).await;
    let Answer::Each(verdicts) = answer else { panic!("{answer:?}") };
    let codes: Vec<_> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Done => "done",
            Verdict::Row(fault) => fault.error.slug(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, ["done", "value-refused", "done", "value-refused"]);
    assert_eq!(count(&database, "tidemill_events").await, 2);
    // One that is too large for any document is refused before anything is sent.
    let large = batches::custom("acme/things", &json!({"id": 1, "text": "x".repeat(17 << 20)}).to_string());
    let small = batches::contact("created", "9", "Nine");
    let frozen = driver.prepare(&batches::batch(2, Shape::Append, 20, vec![large, small])).unwrap();
    assert_eq!(
        frozen.refused.iter().map(|(place, fault)| (*place, fault.error.slug())).collect::<Vec<_>>(),
        [(0, "value-too-large")]
    );
    assert_eq!(driver.send(&frozen).await, Answer::All(Verdict::Done));
    assert_eq!(count(&database, "tidemill_events").await, 3);
}

#[tokio::test]
async fn refusals_say_who_can_mend_them() {
    let Some(server) = shared().await else { return };
    let database = server.database("refusals").await;
    let reader = doc! { "createUser": "reader", "pwd": "reader", "roles": [{ "role": "read", "db": "refusals" }] };
    database.run_command(reader).await.unwrap();
    let port = server.port;
    for (who, code, step) in [
        ("admin:not-it@127.0.0.1", "credentials-refused", "signIn"),
        ("reader:reader@127.0.0.1", "permission-denied", "write"),
    ] {
        let source = if who.starts_with("reader") { "&authSource=refusals" } else { "" };
        let url = format!("mongodb://{who}:{port}/?replicaSet=rs0{source}");
        let driver = open("mongodb", json!({"url": url, "database": "refusals"})).unwrap();
        let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 2)).unwrap()).await;
        assert_eq!(refusal(&answer), ("config", code), "{answer:?}");
        assert!(!format!("{answer:?}").contains("not-it"));
        let steps = driver.test(&batches::probe(Shape::Append)).await;
        let last = steps.last().unwrap();
        assert_eq!((last.name, last.fault.as_ref().map(|fault| fault.error.slug())), (step, Some(code)), "{steps:?}");
    }
    assert_eq!(count(&database, "tidemill_events").await, 0);
}

#[tokio::test]
async fn a_server_that_another_one_names_is_judged_too() {
    let Some(server) = shared().await else { return };
    // The settings name 127.0.0.2, which is allowed; the replica set calls itself 127.0.0.1, which is not.
    let policy = Policy::new(vec!["127.0.0.2/32".parse().unwrap()], false);
    let client = Client::new(&Options::standard(), Arc::new(policy)).unwrap();
    let url = format!("mongodb://admin:admin@127.0.0.2:{}/?replicaSet=rs0", server.port);
    let driver = open_through(client, "mongodb", json!({"url": url, "database": "named"}), None).unwrap();
    let answer = driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await;
    assert_eq!(refusal(&answer), ("config", "address-forbidden"));
    assert_eq!(count(&server.database("named").await, "tidemill_events").await, 0);
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let Some(server) = own().await else { return };
    let driver = open("mongodb", server.settings("restart")).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 2)).await;
    server.kill();
    let frozen = driver.prepare(&batches::contacts(2, 3, 2)).unwrap();
    for _ in 0..2 {
        assert_eq!(refusal(&driver.send(&frozen).await).0, "retry");
    }
    server.restart().await;
    promises::write(&driver, &batches::contacts(2, 3, 2)).await;
    assert_eq!(count(&server.database("restart").await, "tidemill_events").await, 4);
}

#[tokio::test]
async fn tls_is_spoken_and_checked_as_the_connection_string_says() {
    let Some(server) = shared().await else { return };
    let url = |host: &str| format!("mongodb://admin:admin@{host}:{}/?directConnection=true&tls=true", server.port);
    let send = |settings: Value| async move {
        let driver = open("mongodb", settings).unwrap();
        driver.send(&driver.prepare(&batches::contacts(1, 1, 1)).unwrap()).await
    };
    let trusted = |host: &str| json!({"url": url(host), "database": "tls", "caCertificate": server.ca});
    assert_eq!(send(trusted("localhost")).await, Answer::All(Verdict::Done));
    assert_eq!(refusal(&send(trusted("127.0.0.1")).await), ("config", "tls-name-mismatch"));
    let untrusted = json!({"url": url("localhost"), "database": "tls"});
    assert_eq!(refusal(&send(untrusted).await), ("config", "tls-untrusted"));
}

#[tokio::test]
async fn the_frozen_bytes_are_these() {
    let driver = open("mongodb", json!({"url": "mongodb://127.0.0.1/d"})).unwrap();
    let gone = batches::batch(1, Shape::Mirror(Deletes::Remove), 9, vec![batches::contact("deleted", "7", "A")]);
    let frozen = driver.prepare(&gone).unwrap();
    assert_eq!(frozen.parts[0].target, "delete crm_contacts");
    let id = doc! { "connectionId": batches::CONNECTION.to_string(), "remoteId": "7" };
    let entry = doc! { "q": { "_id": id, "seq": { "$lte": 9_i64 } }, "limit": 1 };
    assert_eq!(frozen.parts[0].body, entry.to_vec().unwrap());
    let batch = batches::batch(1, Shape::Append, 1, vec![batches::custom("acme/things", "{\"id\":5}")]);
    let frozen = driver.prepare(&batch).unwrap();
    assert_eq!(frozen.parts[0].target, "insert tidemill_events");
    let document = doc! {
        "_id": batch.items[0].id.to_string(), "seq": 1_i64, "topic": "acme/things", "updateType": "updated",
        "connectionId": Bson::Null, "userId": Bson::Null, "username": Bson::Null, "app": Bson::Null,
        "recordId": Bson::Null, "remoteId": "5", "eventTime": DateTime::from_millis(1_772_366_400_000),
        "receivedAt": DateTime::from_millis(1_772_366_400_000), "payload": { "id": 5_i64 },
    };
    assert_eq!(frozen.parts[0].body, document.to_vec().unwrap());
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refused = |settings: Value| open("mongodb", settings).err().unwrap().to_string();
    assert!(refused(unknown_setting()).contains("noSuchSetting"));
    assert!(refused(json!({"url": "http://h/d"})).contains("settings.url"));
    assert!(refused(json!({"url": "mongodb://h/"})).contains("settings.database"));
    assert!(refused(json!({"url": "mongodb://h/d", "collection": "$x"})).contains("settings.collection"));
    assert!(refused(json!({"url": "mongodb://h/d", "maxRows": 0})).contains("settings.maxRows"));
    let pem = json!({"url": "mongodb://h/d?tls=true", "caCertificate": "no PEM"});
    assert!(refused(pem).contains("settings.caCertificate"));
    assert_eq!(kinds::find("mongodb").unwrap().secrets(), ["url"]);
}
