//! Every connector folder, by its own tests; what is said of broken ones; the documented answers of Adobe Commerce.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

#[path = "connectors/app.rs"]
mod app;
#[path = "connectors/broken.rs"]
mod broken;
#[path = "connectors/calls.rs"]
mod calls;
#[path = "connectors/doors.rs"]
mod doors;
#[path = "connectors/global.rs"]
mod global;
#[path = "connectors/graphql.rs"]
mod graphql;
#[path = "connectors/hooks.rs"]
mod hooks;
#[path = "connectors/journals.rs"]
mod journals;
#[path = "connectors/lines.rs"]
mod lines;
#[path = "connectors/magento.rs"]
mod magento;
#[path = "connectors/published.rs"]
mod published;
#[path = "connectors/replay.rs"]
mod replay;
#[path = "connectors/shared.rs"]
mod shared;
#[path = "connectors/subscriptions.rs"]
mod subscriptions;
#[path = "connectors/tokens.rs"]
mod tokens;

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};
use tidemill::config::Config;
use tidemill::connectors::{Connector, Registry, run_tests};

/// One registry for all tests: its script threads are started once.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let config = Config::embedded().unwrap();
    Registry::load(&config.connectors, &config.scripts).unwrap_or_else(|error| panic!("{error}"))
});

fn connector(key: &str) -> Arc<Connector> {
    REGISTRY.get(key).unwrap_or_else(|| panic!("there is no connector {key}"))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

#[tokio::test]
async fn the_tests_of_every_connector_hold() {
    let mut keys = Vec::new();
    for connector in REGISTRY.all() {
        let report = run_tests(connector).await.unwrap_or_else(|error| panic!("{error}"));
        let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "connector {}:\n{}", connector.key, failures.join("\n"));
        assert!(report.passed > 0, "connector {} has no tests", connector.key);
        keys.push(connector.key.clone());
    }
    for expected in ["adobe-commerce", "generic", "hubspot", "netsuite", "salesforce", "sandbox", "sfcc", "shopify"] {
        assert!(keys.iter().any(|key| key == expected), "{expected} is missing among {keys:?}");
    }
}

/// The apps that people have accounts at.
const APPS: &[&str] = &["adobe-commerce", "hubspot", "netsuite", "salesforce", "sfcc", "shopify"];
/// What an ISV looks for in an app.
const TOPICS: &[&str] = &[
    "crm/accounts",
    "crm/contacts",
    "crm/leads",
    "crm/notes",
    "crm/opportunities",
    "crm/stages",
    "crm/tasks",
    "crm/users",
    "commerce/customers",
    "commerce/orders",
    "commerce/products",
    "commerce/fulfillments",
];

#[test]
fn each_app_gives_a_topic_or_says_why_not() {
    for key in APPS {
        let connector = connector(key);
        for topic in TOPICS {
            let is_given = connector.collections.iter().any(|c| c.topic == *topic);
            let is_absent = connector.not_supported.iter().any(|absent| absent.what == *topic);
            assert!(is_given != is_absent, "{key} and {topic}");
        }
    }
}

#[test]
fn each_collection_of_an_app_has_a_case_of_its_own() {
    for key in APPS {
        let folder = format!("{}/config/connectors/{key}/tests", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let cases: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        for c in &connector(key).collections {
            let is_of = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '-').next() == Some(&*c.key);
            assert!(cases.split("collection: ").skip(1).any(is_of), "{key} and {}", c.key);
        }
    }
}

#[test]
fn where_a_person_must_do_something_each_connector_says_what() {
    for connector in REGISTRY.all() {
        if let Some(webhook) = connector.webhook.as_ref().filter(|webhook| !webhook.registers()) {
            assert!(webhook.instructions.is_some(), "the webhook of {}", connector.key);
        }
        for webhook in &connector.global_webhooks {
            assert!(webhook.instructions.is_some(), "{} of {}", webhook.key, connector.key);
        }
    }
}

#[tokio::test]
async fn a_new_connector_passes_its_check_and_its_tests() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "my-crm").unwrap();
    let connector = REGISTRY.read(&folder).unwrap_or_else(|error| panic!("{error}"));
    let report = run_tests(&connector).await.unwrap();
    assert_eq!((report.passed, report.failures), (1, Vec::new()));
    let again = tidemill::connectors::scaffold(dir.path(), "my-crm").unwrap_err();
    assert!(again.to_string().ends_with("it is there already"), "{again}");
    assert!(tidemill::connectors::scaffold(dir.path(), "../x").is_err());
}

#[test]
fn every_connector_takes_a_base_uri() {
    for connector in REGISTRY.all() {
        let schema = connector.parameters.to_json();
        assert!(schema["properties"]["baseUri"].is_object(), "{}", connector.key);
    }
}

#[test]
fn parameters_of_a_templated_connector_change_its_version_and_its_name() {
    let generic = connector("generic");
    let parameters =
        generic.parameters.check(&object(serde_json::json!({"name": "Desk", "topic": "crm/leads"}))).unwrap();
    let desk = generic.specialise(&parameters).unwrap();
    assert_eq!((desk.name.as_str(), desk.collections[0].topic.as_str()), ("Desk", "crm/leads"));
    assert_ne!(desk.version, generic.version);
    assert!(Arc::ptr_eq(&desk, &generic.specialise(&parameters).unwrap()), "it is not compiled again for each request");
    let broken = generic.specialise(&object(serde_json::json!({"paging": "cursor"}))).unwrap_err();
    assert_eq!(
        broken.to_string(),
        "connector generic: data/records/pull.rest.yml, field paging.next: this kind of paging needs next, where the \
         answer holds the next page"
    );
}

#[test]
fn parameters_are_checked_by_their_schema() {
    let generic = connector("generic");
    for (given, said) in [
        (serde_json::json!({"pth": "/x"}), "parameters.pth is not known"),
        (serde_json::json!({"paging": "pages"}), "parameters.paging must be one of none, page"),
        (serde_json::json!({"pageSize": "9"}), "parameters.pageSize must be of type integer"),
        (serde_json::json!({"pageSize": 0}), "parameters.pageSize must be at least 1"),
        (serde_json::json!({"webhookSecret": "short"}), "parameters.webhookSecret must have at least 8 characters"),
    ] {
        let error = generic.parameters.check(&object(given)).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
    assert!(generic.secret_parameters().contains(&"webhookSecret"));
}
