//! What apps and their client libraries publish of themselves, laid beside what the connectors ask, send and read.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill::connectors::{ChangeKind, Of, PullQuery, WebhookRequest};
use tidemill::domain::time::Millis;

use super::app::{App, Reply};
use super::connector;

fn fixture(path: &str) -> Value {
    let path = format!("{}/../shared/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// Adobe's own description of the REST API, as far as it is kept.
fn described() -> Value {
    fixture("adobe-commerce/openapi-excerpt-2.4.9.json")
}

/// A name of a query parameter in one spelling: the guide writes `filter_groups`, the description `filterGroups`, and the
/// shop takes both; numbers are places.
fn plain(name: &str) -> String {
    let mut made = String::new();
    let mut raise = false;
    for c in name.chars() {
        match c {
            '_' => raise = true,
            '0'..='9' => made.push('n'),
            c if raise => {
                made.extend(c.to_uppercase());
                raise = false;
            }
            c => made.push(c),
        }
    }
    made
}

/// Every `searchCriteria[…]` that the guide's requests and the description have.
fn criteria(described: &Value) -> BTreeSet<String> {
    let guide = fixture("adobe-commerce/search-criteria-requests.json");
    let lines = guide["requests"].as_array().unwrap().iter().filter_map(|one| one["request"].as_str());
    let printed = lines.flat_map(|line| line.split(['?', '&', '\n'])).filter_map(|pair| pair.split_once('='));
    let mut all: BTreeSet<String> = printed.map(|(name, _)| plain(name)).filter(|name| name.contains('[')).collect();
    assert!(all.len() >= 4, "{all:?}");
    for path in described["paths"].as_object().unwrap().values() {
        let parameters = path["get"]["parameters"].as_array().into_iter().flatten();
        all.extend(parameters.filter(|one| one["in"] == "query").map(|one| plain(one["name"].as_str().unwrap())));
    }
    // Selects members of the answer; it stands in two of the guide's requests.
    all.insert("fields".to_owned());
    all
}

/// Whether an address is one that the description has, for this method.
fn has_path(described: &Value, method: &str, path: &str) -> bool {
    let (_, path) = path.split_once("/V1/").unwrap_or_else(|| panic!("{path}"));
    let fits = |known: &str| {
        let known = known.trim_start_matches("/V1/");
        known.split('/').count() == path.split('/').count()
            && known.split('/').zip(path.split('/')).all(|(known, part)| known.starts_with('{') || known == part)
    };
    let paths = described["paths"].as_object().unwrap();
    paths.iter().any(|(known, methods)| fits(known) && methods.get(method.to_lowercase()).is_some())
}

#[tokio::test]
async fn what_adobe_commerce_is_asked_stands_in_its_guide_and_its_description() {
    let described = described();
    let known = criteria(&described);
    let shop = connector("adobe-commerce");
    let app = App::start(|request| match request.url.path().contains("/eventing/") {
        true => Reply::json("[]"),
        false => Reply::json(json!({"items": [], "total_count": 0})),
    })
    .await;
    let session = app.session(&shop, json!({}), json!({"accessToken": "t"}));
    let bounded = PullQuery { since: Some((Millis(1_769_860_800_000), None)), until: Some(Millis(1_769_860_860_000)) };
    for c in &shop.collections {
        session.pull_page(c, &bounded, None).await.unwrap();
        session.scan_page(c, None).await.unwrap();
        // An empty list is no record; this is about the request.
        let _ = session.fetch(c, "7").await;
    }
    session.subscribe("https://hooks.example/in/c/x", "whisper").await.unwrap();
    let requests = app.requests();
    assert!(requests.len() > 3 * shop.collections.len(), "{}", requests.len());
    for request in requests {
        assert!(has_path(&described, &request.method, request.url.path()), "{} {}", request.method, request.url);
        for (name, _) in request.url.query_pairs() {
            assert!(known.contains(&plain(&name)), "{name} of {}", request.url);
        }
        let sent: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let event = &described["definitions"]["adobe-commerce-events-client-data-event-data-interface"]["properties"];
        for name in sent["event"].as_object().into_iter().flat_map(|event| event.keys()) {
            assert!(event.get(name).is_some(), "{name} of {}", request.body);
        }
    }
}

/// The names of all members below a definition.
fn members(described: &Value, name: &str, into: &mut BTreeSet<String>, seen: &mut BTreeSet<String>) {
    fn walk(described: &Value, schema: &Value, into: &mut BTreeSet<String>, seen: &mut BTreeSet<String>) {
        match schema {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    members(described, reference.rsplit('/').next().unwrap(), into, seen);
                }
                into.extend(
                    object.get("properties").and_then(Value::as_object).into_iter().flat_map(|all| all.keys().cloned()),
                );
                object.values().for_each(|inner| walk(described, inner, into, seen));
            }
            Value::Array(items) => items.iter().for_each(|inner| walk(described, inner, into, seen)),
            _ => {}
        }
    }
    if seen.insert(name.to_owned()) {
        walk(described, &described["definitions"][name], into, seen);
    }
}

#[test]
fn what_is_read_of_adobe_commerces_records_is_described() {
    let described = described();
    for (collection, definition) in [
        ("orders", "sales-data-order-interface"),
        ("customers", "customer-data-customer-interface"),
        ("products", "catalog-data-product-interface"),
        ("shipments", "sales-data-shipment-interface"),
    ] {
        // Custom attributes of orders come with a module, or in the cloud service (AdobeDocs, "Custom attributes").
        let mut known = BTreeSet::from(["custom_attributes", "attribute_code"].map(str::to_owned));
        members(&described, definition, &mut known, &mut BTreeSet::new());
        let path = format!("{}/config/connectors/adobe-commerce/data/{collection}", env!("CARGO_MANIFEST_DIR"));
        for file in ["record.map.yml", "spec.yml"] {
            let text = std::fs::read_to_string(format!("{path}/{file}")).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
            let mut read = 0;
            for found in ["$.", "$root."].iter().flat_map(|start| code.split(start).skip(1)) {
                let path: String = found.chars().take_while(|c| c.is_alphanumeric() || "_.".contains(*c)).collect();
                for name in path.split('.').filter(|name| !name.is_empty()) {
                    assert!(known.contains(name), "{collection}/{file} reads {path}, which {definition} has not");
                    read += 1;
                }
            }
            assert!(read > 1, "{collection}/{file}");
        }
    }
}

/// The topic that a library's fixture is the body of, by the member that wraps it.
const WRAPPED: [(&str, &str, &str); 4] = [
    ("order", "orders/updated", "orders"),
    ("customer", "customers/update", "customers"),
    ("product", "products/update", "products"),
    ("fulfillment", "fulfillments/update", "fulfillments"),
];

#[tokio::test]
async fn every_body_that_shopifys_libraries_have_names_its_record_to_the_digit() {
    let all = fixture("shopify/rest-fixtures.json");
    let shop = connector("shopify");
    let app = App::replies(vec![Reply::json("{}")]).await;
    let session = app.session(&shop, json!({"shop": "tide-shop.myshopify.com"}), json!({"accessToken": "t"}));
    let mut seen = Vec::new();
    for (name, fixture) in all["fixtures"].as_object().unwrap() {
        for (noun, topic, collection) in WRAPPED {
            let one = fixture.get(noun).filter(|one| one["id"].is_number()).into_iter();
            let many = fixture.get(format!("{noun}s")).and_then(Value::as_array).into_iter().flatten();
            let bare = fixture.as_array().filter(|_| name.ends_with(&format!("/{noun}s.json"))).into_iter().flatten();
            for body in one.chain(many).chain(bare) {
                let request = WebhookRequest {
                    method: "POST".to_owned(),
                    url: "https://hooks.example/in/c/x".to_owned(),
                    query: Vec::new(),
                    headers: vec![("x-shopify-topic".to_owned(), topic.to_owned())],
                    body: Bytes::from(body.to_string()),
                    received_at: Millis(0),
                };
                let handled = session.handle_webhook(&request, Of { state: None, account: None }).await.unwrap();
                let [change] = &handled.changes[..] else { panic!("{name}: {:?}", handled.changes) };
                assert_eq!((change.collection.as_str(), change.kind), (collection, ChangeKind::Updated), "{name}");
                assert_eq!(change.remote_id, body["id"].to_string(), "{name}");
                assert!(change.record.is_none(), "{name}: the body is only a hint");
                seen.push(name.clone());
            }
        }
    }
    seen.dedup();
    assert!(seen.len() >= 12, "{seen:?}");
}
