//! The schemas say what the loader says: of every file of every built-in connector, and of broken ones.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::connectors::folder::Folder;
use crate::connectors::yaml::{self, Placed};
use crate::connectors::{Registry, compile, scaffold};

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::draft7::options().build(schema).unwrap_or_else(|error| panic!("{error}: {schema:#}"))
}

/// What the schema of a file says of a text: nothing, or its complaints.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let name = of_file(path).unwrap_or_else(|| panic!("{path} has no schema: add its kind to KINDS"));
    let (_, schema) = all().into_iter().find(|(known, _)| *known == name).unwrap();
    let placed: Placed = yaml::read(path, text).unwrap_or_else(|error| panic!("{error}"));
    let value = placed.node.to_json();
    validator(&schema).iter_errors(&value).map(|e| format!("{path}: {}: {e}", e.instance_path())).collect()
}

fn is_yaml(path: &&str) -> bool {
    path.ends_with(".yml")
}

#[test]
fn the_schemas_are_schemas() {
    for (name, schema) in all() {
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#", "{name}");
    }
}

#[test]
fn every_file_of_every_built_in_connector_fits_its_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/connectors");
    let mut seen = 0;
    for dir in fs::read_dir(root).unwrap() {
        let folder = Folder::read(&dir.unwrap().path()).unwrap();
        let head = compile::head(&folder).unwrap();
        for path in folder.paths().filter(is_yaml) {
            let bytes = folder.text(path).unwrap().as_bytes();
            // The files of a templated connector are files only once they are filled in.
            let (_, filled) = match head.templated {
                true => compile::fill(path, bytes, &head.parameters_schema.defaults()),
                false => (path.to_owned(), bytes.to_vec()),
            };
            let found = complaints(path, std::str::from_utf8(&filled).unwrap());
            assert!(found.is_empty(), "{}: {}", folder.key, found.join("\n"));
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} files were found");
}

/// A file that the loader does not know has no schema either, and the other way round.
#[test]
fn only_files_of_the_format_have_a_schema() {
    for (path, name) in [
        ("spec.yml", Some("connector")),
        ("data/orders/spec.yml", Some("collection")),
        ("data/orders/scan.rest.yml", Some("list")),
        ("webhook/spec.yml", Some("webhook")),
        ("events/changed/spec.yml", Some("event")),
        ("tests/orders.yml", Some("tests")),
        ("data/spec.yml", None),
        ("data/a/b/spec.yml", None),
        ("spec.yaml", None),
    ] {
        assert_eq!(of_file(path), name.map(|name| format!("{name}.schema.json")), "{path}");
    }
}

#[test]
fn what_a_schema_can_tell_it_refuses_as_the_loader_does() {
    let config = Config::embedded().unwrap();
    let registry = Registry::load(&config.connectors, &config.scripts).unwrap();
    for (path, from, to) in [
        ("spec.yml", "category:", "categories:"),
        ("spec.yml", "key: broken\n", ""),
        ("spec.yml", "- bearer: {}", "- bearr: {}"),
        ("spec.yml", "givenBy: integration", "givenBy: nobody"),
        ("spec.yml", "per: 10s", "per: 10 seconds"),
        ("spec.yml", "requests: 100", "requests: 0"),
        ("spec.yml", "errorMessage: $.message", "errorMessage: message"),
        ("spec.yml", "account: \"{{baseUri}}\"", "account: \"{{baseUri\""),
        ("spec.yml", "category: crm", "category: crm\nparametersSchema: {properties: {a: {type: text}}}"),
        ("spec.yml", "category: crm", "category: crm\nparametersSchema: {properties: {a: {type: string, min: 1}}}"),
        ("spec.yml", "category: crm", "category: crm\nerrors: [{status: [400], means: nothing}]"),
        ("data/contacts/pull.rest.yml", "paging: {kind", "paging: {knd"),
        ("data/contacts/pull.rest.yml", "kind: cursor", "kind: cursors"),
        ("data/contacts/pull.rest.yml", "size: 100", "size: many"),
        ("data/contacts/pull.rest.yml", "records: $.items", "records: items"),
        ("data/contacts/pull.rest.yml", "path: /contacts", "path: /contacts\nmethod: FETCH"),
        ("data/contacts/pull.rest.yml", "path: /contacts", "path: /contacts\nbody: {$cat: [$.a]}"),
        ("data/contacts/pull.rest.yml", "limit: \"{{page.size}}\"", "limit: {$eq: [1]}"),
        ("data/contacts/pull.rest.yml", "limit: \"{{page.size}}\"", "limit: \"{{page.size\""),
        ("data/contacts/fetch.rest.yml", "record: $\n", ""),
        ("data/contacts/fetch.rest.yml", "record: $\n", "record: $\ngone: none\n"),
        ("data/contacts/spec.yml", "deleted: full-scan", "deleted: fullscan"),
        ("data/contacts/spec.yml", "lookback: 60s", "lookback: 60 seconds"),
        ("data/contacts/spec.yml", "time: rfc3339", "time: iso"),
        ("data/contacts/spec.yml", "order: ascending", "order: up"),
        ("data/contacts/record.map.yml", "lastName: $.last_name", "lastName: {$upper: $.a, $lower: $.b}"),
        ("data/contacts/record.map.yml", "lastName: $.last_name", "lastName: {$nothing: $.a}"),
        ("data/contacts/record.map.yml", "lastName: $.last_name", "lastName: {$join: {items: [$.a]}}"),
        ("data/contacts/record.map.yml", "lastName: $.last_name", "lastName: $.a[x]"),
        ("data/contacts/record.map.yml", "lastName: $.last_name", "lastName: {$time: {value: $.a, format: iso}}"),
        ("data/contacts/record.map.yml", "keys: [id", "names: [id"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = scaffold(dir.path(), "broken").unwrap();
        let text = fs::read_to_string(folder.join(path)).unwrap();
        assert!(complaints(path, &text).is_empty(), "{path}: {:?}", complaints(path, &text));
        let broken = text.replace(from, to);
        assert_ne!(broken, text, "{path} has no {from}");
        assert!(!complaints(path, &broken).is_empty(), "the schema of {path} accepts {to}");
        fs::write(folder.join(path), broken).unwrap();
        assert!(registry.read(&folder).is_err(), "the loader accepts {to} in {path}, and the schema does not");
    }
}

#[test]
fn webhooks_and_events_are_refused_where_they_are_wrong() {
    for (path, good, bad) in [
        ("webhook/spec.yml", "name: x\nverify: {kind: shopify, secret: s}", "name: x\nverify: {kind: shopfy}"),
        ("webhook/spec.yml", "name: x\nhandshake: {query: c}\nlifetime: 3d", "name: x\nlifetime: three days"),
        ("global-webhooks/a/spec.yml", "name: x\nkey: a", "name: x"),
        (
            "global-webhooks/a/spec.yml",
            "name: x\nkey: a\njournal: {when: {parameter: p, is: j}, every: 30s, token: {tokenUrl: /t}, first: {path: /f}, \
             next: {path: '/n/{{journal.offset}}', gone: [400]}, offset: $.o, file: $.f, hosts: a.example, items: $.i}",
            "name: x\nkey: a\njournal: {every: 30s}",
        ),
        ("global-webhooks/a/subscribe.rest.yml", "path: /x", "pth: /x"),
        (
            "events/a/spec.yml",
            "name: x\nkey: a\nimplementationType: global-webhook\ntype: $.kind",
            "name: x\nkey: a\nimplementationType: webhook",
        ),
        ("webhook/subscribe.rest.yml", "path: /x\nresult: {state: {id: $.id}}", "path: /x\nresult: {$state: $.id}"),
        ("tests/a.yml", "cases: [{name: a, webhook: {body: {a: 1}}, events: []}]", "cases: [{nme: a}]"),
    ] {
        assert_eq!(complaints(path, good), Vec::<String>::new());
        assert!(!complaints(path, bad).is_empty(), "{path} accepts {bad}");
    }
}

#[test]
fn an_editor_is_told_which_schema_is_whose() {
    let settings = editor_settings("./.schemas", "my-crm");
    let files = &settings["yaml.schemas"];
    assert_eq!(files["./.schemas/connector.schema.json"], json!(["my-crm/spec.yml"]));
    assert_eq!(files["./.schemas/collection.schema.json"], json!(["data/*/spec.yml"]));
    let dir = tempfile::tempdir().unwrap();
    for name in write(dir.path()).unwrap() {
        let text = fs::read_to_string(dir.path().join(&name)).unwrap();
        assert!(serde_json::from_str::<Value>(&text).is_ok() && files.get(format!("./.schemas/{name}")).is_some());
    }
}
