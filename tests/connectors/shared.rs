//! What collections share: methods that are told by values what differs, joins of some of them, a list of fields that a role
//! may not see.

use std::fs;
use std::sync::Arc;

use serde_json::json;
use tidemill::connectors::{CallError, Connector, PullQuery, Session};

use super::REGISTRY;
use super::app::{App, Reply, Request};

const SPEC: &str = "key: shared\nname: Shared\ncategory: crm\nbaseUri: {givenBy: user}\nauth: [none]\n";
const SHARED: &str = "detects: {created: pull, updated: pull, deleted: full-scan}\n\
                      record: {id: $.id, updatedAt: $.at, time: unix-seconds}\nvalues: {lines: null}\n";
const PULL: &str = "path: \"{{values.list|raw}}\"\nquery: {only: \"{{values.only}}\", limit: \"{{page.size}}\", names: \"{{fields.names}}\"}\n\
                    since: {since: \"{{since.time}}\"}\npaging: {kind: offset, size: 100, more: $.more}\nrecords: $.items\n\
                    join: {when: $values.lines, atOnce: 20, key: $.of, into: lines, list: {path: \"/{{values.lines}}\", query: {of: {$join: {items: $records, with: \",\"}}}, records: $.items}}\n";
const FIELDS: &str = "path: \"/fields/{{each.kind}}\"\neach: {in: $values.kinds, as: kind}\noptional: true\nrecords: $.fields\n\
                      name: $.key\ntype: $.value\ncustom: true\ntypes: {flag: {$codes: {value: $, to: {T: true, F: false}, default: $}}}\n";

const FILES: &[(&str, &str)] = &[
    ("spec.yml", SPEC),
    ("shared/spec.yml", SHARED),
    ("shared/pull.rest.yml", PULL),
    ("shared/fields.rest.yml", FIELDS),
    (
        "data/orders/spec.yml",
        "name: Orders\ntopic: commerce/orders\nvalues: {list: /v1/orders, only: null, lines: items, kinds: [a, b]}\n",
    ),
    ("data/orders/record.map.yml", "note: $.note\ncustomFields: {$omit: {from: $, mapped: true}}\n"),
    (
        "data/contacts/spec.yml",
        "name: Contacts\ntopic: crm/contacts\nvalues: {list: /people, only: active, kinds: [c]}\n",
    ),
    ("data/contacts/record.map.yml", "firstName: $.name\ncustomFields: {$omit: {from: $, mapped: true}}\n"),
];

/// The folder with these files in place of its own.
fn read(changes: &[(&str, &str)]) -> Result<Arc<Connector>, String> {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shared");
    for (path, text) in FILES.iter().chain(changes) {
        fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        fs::write(folder.join(path), text).unwrap();
    }
    REGISTRY.read(&folder).map_err(|error| error.to_string())
}

fn answer(request: &Request) -> Reply {
    match request.url.path() {
        "/fields/a" => Reply::json(json!({"fields": {"size": "text"}})),
        "/fields/b" => Reply::json(json!({"fields": {"vip": "flag", "size": "text"}})),
        "/fields/c" => Reply::status(403, "{}"),
        "/v1/orders" => {
            Reply::json(json!({"items": [{"id": 1, "at": 5, "vip": "T", "size": "T"}, {"id": 2, "at": 6, "vip": "?"}]}))
        }
        "/people" => Reply::json(json!({"items": [{"id": 1, "at": 5, "vip": "T"}]})),
        "/items" => Reply::json(json!({"items": [{"of": 2, "sku": "x"}]})),
        _ => Reply::status(404, "{}"),
    }
}

async fn pulled(session: &Session, key: &str) -> Vec<String> {
    let c = session.connector().collection(key).unwrap();
    let page = session.pull_page(c, &PullQuery::default(), None).await.unwrap();
    page.records.iter().map(|record| record.raw.get().to_owned()).collect()
}

#[tokio::test]
async fn one_file_asks_for_each_collection_as_its_values_say() {
    let app = App::start(answer).await;
    let session = app.session(&read(&[]).unwrap(), json!({}), json!({}));
    let orders = pulled(&session, "orders").await;
    assert_eq!(
        orders,
        [
            r#"{"id":1,"at":5,"vip":true,"size":"T","lines":[]}"#,
            r#"{"id":2,"at":6,"vip":"?","lines":[{"of":2,"sku":"x"}]}"#,
        ],
        "values by their types, and the lines of those that have them"
    );
    let asked: Vec<String> =
        app.requests().iter().map(|request| request.url.as_str().replace("http://app", "")).collect();
    assert_eq!(asked, ["/fields/a", "/fields/b", "/v1/orders?limit=100&names=size%2Cvip", "/items?of=1%2C2"]);
}

#[tokio::test]
async fn a_list_of_fields_that_is_refused_is_done_without_and_said() {
    let app = App::start(answer).await;
    let session = app.session(&read(&[]).unwrap(), json!({}), json!({}));
    let c = session.connector().collection("contacts").unwrap();
    assert_eq!(pulled(&session, "contacts").await, [r#"{"id":1,"at":5,"vip":"T"}"#]);
    let asked: Vec<String> =
        app.requests().iter().map(|request| request.url.as_str().replace("http://app", "")).collect();
    assert_eq!(asked, ["/fields/c", "/people?only=active&limit=100"], "no join, no names");
    let said = session.unlisted(c).unwrap();
    assert!(
        said.starts_with("contacts: the account's own fields could not be listed: ") && said.contains("403"),
        "{said}"
    );
    assert!(
        session.is_without_fields(c) && session.unlisted(session.connector().collection("orders").unwrap()).is_none()
    );
    // Where the connector cannot do without, it is a failure as any other.
    let strict = read(&[("shared/fields.rest.yml", &FIELDS.replace("optional: true\n", ""))]).unwrap();
    let session = app.session(&strict, json!({}), json!({}));
    let c = session.connector().collection("contacts").unwrap();
    let error = session.pull_page(c, &PullQuery::default(), None).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 403, .. }), "{error}");
}

#[test]
fn what_is_shared_is_checked_for_each_collection() {
    let said = |path: &str, text: &str| read(&[(path, text)]).err().unwrap_or_else(|| "it is accepted".to_owned());
    let orders = "name: Orders\ntopic: commerce/orders\nvalues: {only: null, lines: items, kinds: [a]}\n";
    let error = said("data/orders/spec.yml", orders);
    assert!(error.contains("data/orders/spec.yml, field values.list: a method uses it"), "{error}");
    let contacts = "name: Contacts\ntopic: crm/contacts\nvalues: {list: /people, only: x, kinds: [c], colour: red}\n";
    let error = said("data/contacts/spec.yml", contacts);
    assert!(error.contains("field values.colour: no method of the collection uses {{values.colour}}"), "{error}");
    let error = said("shared/spec.yml", &SHARED.replace("record:", "records:"));
    assert!(error.contains("shared/spec.yml, line 2, field records: unknown field"), "{error}");
    let error =
        said("shared/spec.yml", "detects: {created: pull, updated: pull, deleted: full-scan}\nvalues: {lines: null}\n");
    assert!(error.contains("field record: the field is missing, here and in shared/spec.yml"), "{error}");
}
