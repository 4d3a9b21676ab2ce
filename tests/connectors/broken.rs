//! Broken connectors: each is refused in one sentence that names file, line and field.

use std::fs;
use std::path::Path;

use super::REGISTRY;

/// A connector that is whole but for what a test changes.
fn folder(dir: &Path, changes: &[(&str, Option<&str>)]) -> String {
    let folder = tidemill::connectors::scaffold(dir, "broken").unwrap();
    for (path, text) in changes {
        let file = folder.join(path);
        match text {
            Some(text) => {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            None => fs::remove_file(file).unwrap(),
        }
    }
    match REGISTRY.read(&folder) {
        Ok(_) => "it is accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn said(changes: &[(&str, Option<&str>)]) -> String {
    folder(tempfile::tempdir().unwrap().path(), changes)
}

/// The file with one line replaced.
fn edited(path: &str, from: &str, to: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "broken").unwrap();
    let text = fs::read_to_string(folder.join(path)).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to)
}

fn said_of(path: &str, from: &str, to: &str) -> String {
    said(&[(path, Some(&edited(path, from, to)))])
}

#[test]
fn broken_yaml_names_its_line() {
    let error = said(&[("spec.yml", Some("key: broken\nname: [x\ncategory: crm\n"))]);
    assert!(error.starts_with("connector broken: spec.yml, line "), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = said(&[("data/contacts/record.map.yml", None)]);
    assert_eq!(error, "connector broken: data/contacts/record.map.yml: the file is missing");
    let error = said(&[("spec.yml", None)]);
    assert_eq!(error, "connector broken: spec.yml: the file is missing");
    let error = said(&[("data/contacts/pull.rest.yml", None)]);
    assert_eq!(
        error,
        "connector broken: data/contacts/spec.yml, field detects.created: pull needs pull.rest.yml or pull.js"
    );
}

#[test]
fn an_unknown_field_is_named_with_the_known_ones() {
    let error = said_of("spec.yml", "category:", "categories:");
    assert!(
        error.starts_with("connector broken: spec.yml, line 4, field categories: unknown field; expected one of"),
        "{error}"
    );
    let error = said_of("data/contacts/pull.rest.yml", "paging: {kind", "paging: {knd");
    assert!(
        error.starts_with("connector broken: data/contacts/pull.rest.yml, line 4, field knd: unknown field"),
        "{error}"
    );
}

#[test]
fn a_wrong_type_and_a_wrong_word_name_their_field() {
    let error = said_of("data/contacts/pull.rest.yml", "size: 100", "size: many");
    assert!(error.contains("data/contacts/pull.rest.yml, line 4"), "{error}");
    let error = said_of("data/contacts/spec.yml", "deleted: full-scan", "deleted: fullscan");
    assert!(
        error.contains("line 3, field detects: \"fullscan\" is not one of webhook, global-webhook, pull"),
        "{error}"
    );
    let error = said_of("data/contacts/spec.yml", "lookback: 60s", "lookback: 60 seconds");
    assert!(error.contains("is not a duration such as 90s"), "{error}");
    let error = said_of("data/contacts/spec.yml", "time: rfc3339", "time: iso");
    assert!(error.contains("is not a time format; use rfc3339"), "{error}");
}

#[test]
fn an_unknown_topic_is_told_with_its_neighbours() {
    let error = said_of("data/contacts/spec.yml", "crm/contacts", "crm/contact");
    assert!(
        error.starts_with("connector broken: data/contacts/spec.yml, line 2, field topic: unknown topic \"crm/contact\"; did you mean crm/contacts"),
        "{error}"
    );
}

#[test]
fn a_duplicate_key_is_told() {
    let error = said_of("spec.yml", "category: crm", "category: crm\nname: again");
    assert!(error.contains("spec.yml, line 5, field name: the key is there twice"), "{error}");
    let error = said_of("spec.yml", "key: broken", "key: other");
    assert_eq!(error, "connector broken: spec.yml, field key: the key \"other\" is not the folder's name \"broken\"");
}

#[test]
fn two_files_for_one_method_are_told() {
    let error = said(&[("data/contacts/pull.js", Some("export default async () => ({ records: [] })"))]);
    assert_eq!(
        error,
        "connector broken: data/contacts/pull.rest.yml: data/contacts/pull.js says the same method already"
    );
}

#[test]
fn a_script_without_a_default_export_or_with_a_syntax_error_names_its_file() {
    let script = |text: &str| said(&[("data/contacts/fetch.rest.yml", None), ("data/contacts/fetch.js", Some(text))]);
    let error = script("export async function fetch() {}\n");
    assert!(error.starts_with("connector broken: data/contacts/fetch.js: "), "{error}");
    assert!(error.contains("default"), "{error}");
    let error = script("export default async function () {\n  return {{\n}\n");
    assert!(error.starts_with("connector broken: data/contacts/fetch.js, line "), "{error}");
    assert_eq!(script("export default async ({ record }) => record\n"), "it is accepted");
}

#[test]
fn a_misspelt_file_name_is_not_silently_ignored() {
    let error = said(&[("data/contacts/scann.rest.yml", Some("path: /x\nrecords: $\n"))]);
    assert_eq!(
        error,
        "connector broken: data/contacts/scann.rest.yml: nothing reads a file of this name; see docs/connectors.md"
    );
}

#[test]
fn a_query_needs_the_path_that_it_goes_to_and_closed_brackets() {
    let fetch = "query: 'query { person { id }'\nrecord: $.data.person\n";
    let without = said(&[("data/contacts/fetch.rest.yml", None), ("data/contacts/fetch.graphql.yml", Some(fetch))]);
    assert!(without.contains("spec.yml, field graphql: data/contacts/fetch.graphql.yml needs graphql"), "{without}");
    let spec = edited("spec.yml", "budget:", "graphql: {path: /graphql}\nbudget:");
    let open = said(&[
        ("spec.yml", Some(&spec)),
        ("data/contacts/fetch.rest.yml", None),
        ("data/contacts/fetch.graphql.yml", Some(fetch)),
    ]);
    assert!(open.contains("a bracket of it is not closed"), "{open}");
}

#[test]
fn a_mapping_names_the_line_of_what_is_wrong() {
    let map = |text: &str| said(&[("data/contacts/record.map.yml", Some(text))]);
    let error = map("firstName: $.a\nlastName: {$shout: $.b}\n");
    assert!(
        error.starts_with(
            "connector broken: data/contacts/record.map.yml, line 2, field $shout: unknown operator; there are $abs"
        ),
        "{error}"
    );
    let error = map("firstName:\n  $case:\n    cases: []\n    otherwise: 1\n");
    assert!(error.contains("line 4, field otherwise: unknown field; expected one of cases, default"), "{error}");
    let error = map("firstName: $first_name\n");
    assert!(
        error.contains(
            "line 1: \"$first_name\" begins with an unknown variable; known here: $ (as in $.field), $root, $parameters"
        ),
        "{error}"
    );
    let error = map("fistName: $.a\n");
    assert!(error.contains("field fistName: the model crm/contacts has no such field"), "{error}");
    let error = map("firstName: {$lower: $.a, $upper: $.b}\n");
    assert!(error.contains("an operator must stand alone"), "{error}");
}

#[test]
fn events_need_what_they_name() {
    let event = "name: Changed\nkey: changed\nimplementationType: global-webhook\nmethods: {get-event-selector: {implementationType: javascript}}\n";
    let error = said(&[("events/changed/spec.yml", Some(event))]);
    assert_eq!(
        error,
        "connector broken: events/changed/spec.yml, field methods.get-event-selector: the file \
         events/changed/get-event-selector.js is missing"
    );
    let webhook = "name: All\nkey: everything\nmethods: {handle: {implementationType: javascript}}\n";
    let handle = "export default async () => ({ events: [] })";
    let error =
        said(&[("global-webhooks/all/spec.yml", Some(webhook)), ("global-webhooks/all/handle.js", Some(handle))]);
    assert!(
        error.contains("global-webhooks/all/spec.yml, field key: the key \"everything\" is not the folder's name"),
        "{error}"
    );
}

#[test]
fn a_call_names_a_budget_that_is_there() {
    let pull = edited("data/contacts/pull.rest.yml", "path:", "budget: search\npath:");
    let error = said(&[("data/contacts/pull.rest.yml", Some(&pull))]);
    assert_eq!(error, "connector broken: data/contacts/pull.rest.yml, field budget: spec.yml has no budget \"search\"");
    let spec = edited("spec.yml", "category:", "budgets: {search: {requests: 4, per: 1s}}\ncategory:");
    assert_eq!(said(&[("data/contacts/pull.rest.yml", Some(&pull)), ("spec.yml", Some(&spec))]), "it is accepted");
}

#[test]
fn a_rule_about_a_missing_column_says_where_its_name_stands() {
    let rules = |rule: &str| {
        let spec = edited("spec.yml", "category:", &format!("errors: [{rule}]\ncategory:"));
        said(&[("spec.yml", Some(&spec))])
    };
    let together = "spec.yml, field errors: `means: column-missing` and `column` go together";
    assert!(rules("{status: [400], means: column-missing}").contains(together));
    assert!(rules("{status: [400], means: refused, column: {after: a, before: b}}").contains(together));
    assert_eq!(rules("{status: [400], means: column-missing, column: {after: a, before: b}}"), "it is accepted");
}

#[test]
fn ties_need_a_list_of_changes_that_cannot_do_it_by_itself() {
    let ties = ("data/contacts/ties.rest.yml", Some("path: /ties\nquery: {after: \"{{since.id}}\"}\nrecords: $\n"));
    assert_eq!(said(&[ties]), "it is accepted");
    let spec = edited("data/contacts/spec.yml", "lookback: 60s", "lookback: 60s, breaksTies: true");
    let error = said(&[ties, ("data/contacts/spec.yml", Some(&spec))]);
    assert!(error.contains("data/contacts/ties: cursor.breaksTies says that pull itself goes on"), "{error}");
}

#[test]
fn a_list_of_parts_that_changed_is_sorted_by_them_and_begins_at_a_time() {
    let path = "data/contacts/touched.rest.yml";
    let list =
        "path: /notes\nsince: {since: \"{{since.time}}\"}\nrecords: $[*].contact\nitem: {id: $.id, updatedAt: $.at}\n";
    assert_eq!(said(&[(path, Some(list))]), "it is accepted");
    let needed = "data/contacts/touched: it is a list of parts since a time";
    for part in ["since: {since: \"{{since.time}}\"}\n", "item: {id: $.id, updatedAt: $.at}\n"] {
        let error = said(&[(path, Some(&list.replace(part, "")))]);
        assert!(error.contains(needed), "without {part}: {error}");
    }
    let spec = edited("data/contacts/spec.yml", "cursor:", "each: {in: [a], as: site}\ncursor:");
    let error = said(&[(path, Some(list)), ("data/contacts/spec.yml", Some(&spec))]);
    assert!(error.contains("walked for each of some values cannot have it"), "{error}");
}

#[test]
fn an_event_that_needs_parameters_is_not_switched_on_by_itself() {
    let event = "name: Changed\nkey: changed\nimplementationType: global-webhook\ndefault: true\nparametersSchema:\n  \
                 properties: {board: {type: string}}\n  required: [board]\n";
    let selector = "globalWebhookKey: all\nglobalWebhookEventSelector: x\n";
    let files =
        [("events/changed/spec.yml", Some(event)), ("events/changed/get-event-selector.map.yml", Some(selector))];
    let error = said(&files);
    assert!(error.contains("events/changed/spec.yml, field default: an event that needs parameters"), "{error}");
}

#[test]
fn a_connectors_folder_adds_and_replaces() {
    let dir = tempfile::tempdir().unwrap();
    tidemill::connectors::scaffold(dir.path(), "extra").unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "generic").unwrap();
    let mut config = tidemill::config::Config::embedded().unwrap();
    config.connectors.path = Some(dir.path().to_owned());
    let registry = tidemill::connectors::Registry::load(&config.connectors, &config.scripts).unwrap();
    assert!(registry.get("extra").is_some() && registry.get("adobe-commerce").is_some());
    assert_eq!(registry.get("generic").unwrap().category, "crm");
    fs::write(folder.join("spec.yml"), "key: generic\n").unwrap();
    let error = tidemill::connectors::Registry::load(&config.connectors, &config.scripts).err().unwrap();
    assert!(error.to_string().starts_with("connector generic: spec.yml"), "{error}");
}

#[test]
fn what_an_app_cannot_give_is_said_of_topics_that_exist_and_with_a_reason() {
    let with = |said: &str| said_of("spec.yml", "errorMessage:", &format!("notSupported: {said}\nerrorMessage:"));
    assert_eq!(with("{crm/leads: There are none.}"), "it is accepted");
    let said = with("{crm/lead: There are none.}");
    let expected = "connector broken: spec.yml, field notSupported.crm/lead: unknown topic; did you mean crm/leads";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(
        with("{crm/contacts: There are none.}"),
        "connector broken: spec.yml, field notSupported.crm/contacts: the collection contacts brings this topic"
    );
    assert_eq!(
        with("{crm/leads: \"\"}"),
        "connector broken: spec.yml, field notSupported.crm/leads: say in a sentence why"
    );
}
