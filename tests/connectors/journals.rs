//! Broken journals: each is refused in one sentence that names file and field.

use std::fs;

use super::REGISTRY;

const JOURNAL: &str = "
journal:
  when: {parameter: webhooks, is: journal}
  every: 30s
  token: {tokenUrl: \"{{baseUri}}/token\"}
  first: {path: /earliest}
  next: {path: \"/after/{{journal.offset}}\"}
  offset: $.offset
  file: $.url
  hosts: files.example.com
  items: $.events
";

const PARAMETERS: &str = "
parametersSchema:
  type: object
  properties:
    webhooks: {type: string, enum: [push, journal], default: push, x-givenBy: integration}
";

/// What is said of a connector with that journal, these parameters and further files.
fn said(journal: &str, parameters: &str, files: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "broken").unwrap();
    let spec = fs::read_to_string(folder.join("spec.yml")).unwrap();
    fs::write(folder.join("spec.yml"), format!("{spec}{parameters}")).unwrap();
    let hook = folder.join("global-webhooks/app");
    fs::create_dir_all(&hook).unwrap();
    fs::write(hook.join("spec.yml"), format!("name: App\nkey: app\n{journal}")).unwrap();
    fs::write(hook.join("handle.js"), "export default async function handle() { return { events: [] } }\n").unwrap();
    for file in files {
        fs::write(hook.join(file), "export default async function call() { return {} }\n").unwrap();
    }
    match REGISTRY.read(&folder) {
        Ok(_) => "it is accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_whole_journal_is_accepted_with_and_without_what_it_needs_of_each_account() {
    assert_eq!(said(JOURNAL, PARAMETERS, &[]), "it is accepted");
    assert_eq!(said(JOURNAL, PARAMETERS, &["subscribe.js", "check.js", "unsubscribe.js"]), "it is accepted");
}

#[test]
fn a_journal_that_could_not_be_chosen_or_read_on_names_its_field() {
    for (from, to, field, why) in [
        ("parameter: webhooks", "parameter: hooks", "journal.when.parameter", "there is no parameter \"hooks\""),
        ("is: journal", "is: diary", "journal.when.is", "\"diary\" is none of what webhooks may be"),
        ("every: 30s", "every: 10ms", "journal.every", "at least 1s"),
        ("{{journal.offset}}", "next", "journal.next.path", "it does not say after which entry"),
        ("first: {path: /earliest}", "first: {path: /earliest, budget: none}", "budget", "has no budget \"none\""),
    ] {
        assert!(JOURNAL.contains(from), "{from}");
        let error = said(&JOURNAL.replace(from, to), PARAMETERS, &[]);
        let place = format!("connector broken: global-webhooks/app/spec.yml, field {field}: ");
        assert!(error.starts_with(&place) && error.contains(why), "{error}");
    }
    let of_users = PARAMETERS.replace("x-givenBy: integration", "x-givenBy: user");
    let error = said(JOURNAL, &of_users, &[]);
    assert!(error.contains("webhooks needs `x-givenBy: integration`"), "{error}");
}

#[test]
fn calls_that_belong_to_no_journal_are_refused() {
    let error = said("", PARAMETERS, &["subscribe.js"]);
    assert!(error.ends_with("what is made at the app for each account belongs to a journal"), "{error}");
    let error = said(JOURNAL, PARAMETERS, &["unsubscribe.js"]);
    assert!(error.contains("global-webhooks/app/unsubscribe: subscribe is missing beside it"), "{error}");
}
