//! Topics, fields and records through the API.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Options};

use crate::support::api::Node;

const ONE: &str = "/2024-03/one";

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

#[actix::test]
async fn topics_of_ones_own_are_registered_once_and_deleted() {
    let node = Node::start().await;
    let all = at("topics");
    let schema = json!({"type": "object", "properties": {"n": {"type": "number", "maximum": 1.50}}});
    let body = json!({"topic": "billing/invoicePaid", "description": "Paid.", "schema": schema});
    let made = node.post(&all, body.clone()).await.ok()["topic"].clone();
    assert_eq!((&made["kind"], &made["category"], &made["schema"]), (&json!("custom"), &json!("billing"), &schema));
    node.post(&all, body).await.refused(409, "conflict");
    node.post(&all, json!({"topic": "crm/contacts"})).await.refused(422, "invalid");
    node.post(&all, json!({"topic": "sync/mine"})).await.refused(422, "invalid");
    node.post(&all, json!({"topic": "no slash"})).await.refused(422, "invalid");
    node.post(&all, json!({"topic": "sandbox/opportunity-changed"})).await.refused(422, "invalid");
    node.post(&all, json!({"topic": "a/b", "schema": "x"})).await.refused(422, "invalid");
    assert_eq!(node.get(&at("topics/billing/invoicePaid")).await.ok()["topic"]["description"], "Paid.");
    let list = node.get(&format!("{all}?limit=250")).await.ok();
    let names: Vec<String> = list["topics"].as_array().expect("a list").iter().map(|t| text(&t["topic"])).collect();
    for name in ["billing/invoicePaid", "sandbox/opportunity-changed", "crm/contacts", "delivery/dead"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    node.post(&at("webhooks"), json!({"address": "http://127.0.0.1:9/", "topic": ["billing/invoicePaid"]})).await.ok();
    assert_eq!(node.call("DELETE", &at("topics/billing/invoicePaid"), None).await.ok()["topic"], "billing/invoicePaid");
    node.get(&at("topics/billing/invoicePaid")).await.refused(404, "topic-not-found");
    node.call("DELETE", &at("topics/crm/contacts"), None).await.refused(422, "invalid");
    node.stop().await;
}

#[actix::test]
async fn a_topic_shows_its_schema_and_an_example_in_each_version() {
    let node = Node::start().await;
    let shown = node.get(&at("topics/accounting/tax-rates")).await.ok()["topic"].clone();
    assert_eq!(shown["topic"], "accounting/taxRates");
    assert!(shown["schema"]["properties"]["remoteUpdatedAt"].is_object(), "{shown}");
    assert!(shown["examples"]["2023-12"].get("name").is_some() && shown["examples"]["2024-03"].get("app").is_some());
    let old = node.get("/2023-12/one/topics/accounting/taxRates").await.ok()["topic"].clone();
    assert!(old["schema"]["properties"]["updatedTimestamp"].is_object(), "{old}");
    let fields = node.get(&at("metadata/fields?topic=crm/contacts")).await.ok();
    let known = fields["fields"].as_array().expect("fields").iter().any(|f| f["path"] == "firstName");
    assert!(known, "{fields}");
    node.get(&at("metadata/fields")).await.refused(400, "malformed");
    let message = node.get(&at("metadata/fields?topic=crm/contact")).await.refused(422, "unknown-topic");
    assert!(message.contains("crm/contacts"), "{message}");
    node.stop().await;
}

#[actix::test]
async fn a_connections_records_are_listed_counted_and_shown() {
    let node = Node::start().await;
    let app = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
    let user = text(&node.post(&at("users"), json!({"username": "ann"})).await.ok()["userId"]);
    let body = json!({"connector": "sandbox", "parameters": {"baseUri": app.url()}});
    let integration = text(&node.post(&at("integrations"), body).await.ok()["integration"]["integrationId"]);
    let body = json!({"userId": user, "integrationId": integration, "credentials": {"apiKey": "sandbox-key-1"},
        "collections": ["contacts"]});
    let id = text(&node.post(&at("connections"), body).await.ok()["connection"]["connectionId"]);
    let end = Instant::now() + Duration::from_secs(20);
    let total = loop {
        let shown = node.get(&at(&format!("connections/{id}"))).await.ok()["connection"]["collections"][0].clone();
        if shown["baselineAt"].is_string() {
            break shown["records"].as_u64().expect("a number");
        }
        assert!(Instant::now() < end, "{shown}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(total > 3);
    let of = |rest: &str| at(&format!("crm/contacts{rest}connectionId={id}"));
    assert_eq!(node.get(&of("/count?")).await.ok()["count"], total);
    // Page by page, each record once.
    let (mut ids, mut cursor) = (std::collections::BTreeSet::new(), String::new());
    let step = total / 2;
    loop {
        let page = node.get(&format!("{}&limit={step}{cursor}", of("?"))).await.ok();
        for record in page["contacts"].as_array().expect("records") {
            assert!(ids.insert(text(&record["id"])), "twice: {record}");
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(ids.len() as u64, total);
    let record = node.get(&of(&format!("/{}?", ids.first().expect("a record")))).await.ok()["contact"].clone();
    let by_remote = node.get(&of(&format!("/{}?", text(&record["remoteId"])))).await.ok();
    assert_eq!(by_remote["contact"], record);
    let old = node.get(&of("?").replace("2024-03", "2023-12")).await.ok();
    assert!(old["contacts"][0]["updatedTimestamp"].is_number(), "{old}");
    // One record has this time, or others with it; all that are shown are within the bounds.
    let time = text(&record["remoteUpdatedAt"]);
    let within = node.get(&format!("{}&remoteUpdatedAtMin={time}&remoteUpdatedAtMax={time}", of("?"))).await.ok();
    let within = within["contacts"].as_array().expect("records").clone();
    assert!(
        within.iter().any(|r| r["id"] == record["id"])
            && within.iter().all(|r| r["remoteUpdatedAt"] == record["remoteUpdatedAt"])
    );
    let none = node.get(&format!("{}&remoteCreatedAtMax=1990-01-01T00:00:00Z", of("/count?"))).await.ok();
    assert_eq!(none["count"], 0);
    let fields = node.get(&of("?").replace("crm/contacts?", "metadata/fields?topic=crm/contacts&")).await.ok();
    assert!(fields["fields"].as_array().is_some_and(|all| !all.is_empty()));
    // The same by the name of a hook's event, for the user who has the connection and for no other.
    let by_user = "/2024-03/hooks/fields?event=contact.updated&userId=";
    assert_eq!(node.get(&format!("{by_user}ann")).await.ok(), fields);
    node.post(&at("users"), json!({"username": "bob"})).await.ok();
    let custom = |fields: &Value| {
        fields["fields"].as_array().expect("fields").iter().filter(|field| field["custom"] == true).count()
    };
    assert!(custom(&fields) > 0 && custom(&node.get(&format!("{by_user}bob")).await.ok()) == 0);
    assert_eq!(node.get(&of("?").replace("crm/contacts", "crm/leads")).await.ok()["leads"], json!([]));
    node.get(&of("/nothing?")).await.refused(404, "record-not-found");
    node.get(&at("crm/contacts")).await.refused(400, "malformed");
    node.get(&at("crm/nothing")).await.refused(404, "topic-not-found");
    node.get(&of("?").replace("crm/contacts", "a/b")).await.refused(404, "topic-not-found");
    node.get(&at(&format!("crm/contacts?connectionId={}", "00".repeat(12)))).await.refused(404, "connection-not-found");
    node.get(&format!("{}&remoteUpdatedAtMin=yesterday", of("?"))).await.refused(400, "malformed");
    node.stop().await;
}
