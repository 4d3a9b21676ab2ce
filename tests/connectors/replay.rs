//! Tests of connectors that play answers back, and answers that are kept as such tests.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tidemill::connectors::trial::{Ask, Trial};
use tidemill::connectors::{Connector, Credentials, Notebook, Scrub, Take, recorded_file, run_tests};

use super::REGISTRY;
use super::app::{App, Reply};

/// A connector to start from, with these files in place of its own.
fn connector(dir: &Path, files: &[(&str, &str)]) -> Arc<Connector> {
    let folder = dir.join("desk");
    if !folder.exists() {
        tidemill::connectors::scaffold(dir, "desk").unwrap();
    }
    for (path, text) in files {
        fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        fs::write(folder.join(path), text).unwrap();
    }
    REGISTRY.read(&folder).unwrap_or_else(|error| panic!("{error}"))
}

/// What `connector test` says of one case: nothing if it holds.
async fn said(case: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let case = case.replace('\n', "\n    ");
    let connector = connector(dir.path(), &[("tests/contacts.yml", &format!("cases:\n  - name: x\n    {case}\n"))]);
    let report = run_tests(&connector).await.unwrap_or_else(|error| panic!("{error}"));
    report.failures.first().map(|failure| failure.message.clone()).unwrap_or_default()
}

const FIRST: &str = "{request: \"GET /contacts?sort=updated_at&limit=100\", answer: {items: [{id: 1}], next: abc}}";
const SECOND: &str =
    "{request: \"GET /contacts?sort=updated_at&limit=100&after=abc\", answer: {items: [{id: 2}], next: null}}";

#[tokio::test]
async fn a_walk_over_pages_is_played_back_request_by_request() {
    let walk = |method: &str, answers: &[&str], records: &str| {
        format!("collection: contacts\nmethod: {method}\nanswers: [{}]\nrecords: {records}", answers.join(", "))
    };
    let both = "[{remoteId: \"1\"}, {remoteId: \"2\"}]";
    assert_eq!(said(&walk("pull", &[FIRST, SECOND], both)).await, "");
    assert_eq!(said(&walk("scan", &[FIRST, SECOND], both)).await, "");
    assert_eq!(said(&walk("pull", &[FIRST], "[{remoteId: \"1\"}]")).await, "", "a walk may be cut after its answers");
    for (answers, told) in [
        (&[SECOND][..], "answers[0]: the app was asked GET /contacts?sort=updated_at&limit=100, expected GET"),
        (
            &[FIRST, FIRST][..],
            "answers[1]: the app was asked GET /contacts?sort=updated_at&limit=100&after=abc, expected",
        ),
        (&["{answer: {items: [], next: null}}", SECOND][..], "only 1 of 2 answers were asked for"),
        (&["{status: 503, answer: {}}"][..], "the app cannot be reached: status 503"),
        (&["{answerText: \"<html>\"}"][..], "the answer is HTML or XML"),
        (&[FIRST, SECOND][..], "there are 2 records, expected 1"),
    ] {
        let message = said(&walk("pull", answers, "[{remoteId: \"1\"}]")).await;
        assert!(message.contains(told), "{message}");
    }
    let bounded = "collection: contacts\nmethod: pull\nsince: 2026-01-31T12:00:00Z\nanswers:\n  - {request: \"GET \
                   /contacts?sort=updated_at&limit=100&updated_since=2026-01-31T12%3A00%3A00.000Z\", answer: {items: []}}\n\
                   records: []";
    assert_eq!(said(bounded).await, "");
}

#[tokio::test]
async fn a_fetch_an_error_and_a_case_that_lacks_something_are_told() {
    let fetch = |answer: &str, records: &str| {
        format!("collection: contacts\nmethod: fetch\nid: \"7\"\nanswers: [{answer}]\nrecords: {records}")
    };
    let good = "{request: GET /contacts/7, answer: {id: 7, first_name: Ada}}";
    assert_eq!(said(&fetch(good, "[{remoteId: \"7\"}]")).await, "");
    assert_eq!(said(&fetch("{status: 404, answer: {message: no}}", "[]")).await, "", "gone is no record");
    assert!(said(&fetch("{status: 400, answer: {message: bad}}", "[]")).await.contains("status 400: bad"));
    let expected = "collection: contacts\nmethod: fetch\nid: \"7\"\nanswers: [{status: 403, answer: {message: closed}}]\n\
                    error: \"refused with status 403: closed\"";
    assert_eq!(said(expected).await, "");
    for (case, told) in [
        ("collection: contacts\nmethod: fetch\nanswer: {id: 7}", "needs the record's id"),
        ("collection: contacts\nmethod: pull", "needs answer, answerText or answers"),
        ("method: pull\nanswer: {items: []}", "needs its collection"),
        ("collection: contact\nmethod: pull\nanswer: {items: []}", "there is no collection \"contact\""),
        ("collection: contacts\nanswers: []", "answers belong to a method"),
        ("collection: contacts\nmethod: pull\nsince: today\nanswer: {items: []}", "is no time"),
        ("collection: contacts\nmethod: deleted\nanswer: {items: []}", "does not support this"),
        (
            "method: account\nanswers: []\naccount: acme",
            "the account is \"https://api.example.com\", expected \"acme\"",
        ),
    ] {
        let message = said(case).await;
        assert!(message.contains(told), "{case}: {message}");
    }
}

#[tokio::test]
async fn what_a_request_sends_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let list = "method: POST\npath: /search\nbody: {limit: $page.size, filter: {after: $since.time}}\nrecords: $.items\n\
                paging: {kind: cursor, size: 5, next: $.next}\n";
    let tests = |sent: &str| {
        format!(
            "cases:\n  - {{name: x, collection: contacts, method: pull, answers: [{{request: POST /search, sent: {sent}, \
             answer: {{items: [], next: null}}}}], records: []}}\n"
        )
    };
    for (sent, holds) in [("{limit: 5, filter: {after: null}}", true), ("{limit: 6}", false)] {
        let files = [("data/contacts/pull.rest.yml", list), ("tests/contacts.yml", &tests(sent))];
        let report = run_tests(&connector(dir.path(), &files)).await.unwrap();
        assert_eq!(report.failures.is_empty(), holds, "{:?}", report.failures);
    }
}

const OAUTH: &str = "key: desk\nname: Desk\ncategory: crm\nbaseUri: {givenBy: user}\nauth:\n  - oauth2: {tokenUrl: \
    \"{{baseUri}}/token\", grants: [refresh-token]}\nparametersSchema:\n  properties:\n    clientId: {type: string}\n    \
    clientSecret: {type: string, writeOnly: true, minLength: 20}\n    shop: {type: string}\n";

#[tokio::test]
async fn a_token_that_ends_within_a_page_is_kept_before_it_is_used_and_never_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let desk = connector(dir.path(), &[("spec.yml", OAUTH)]);
    let app = App::start(|request| match (request.url.path(), request.header("authorization")) {
        ("/token", _) => Reply::json(json!({"access_token": "fresh-token-2", "refresh_token": "refresh-token-2"})),
        ("/contacts", Some("Bearer old-token-1")) if request.query("after").is_none() => {
            Reply::json(json!({"items": [{"id": 1, "note": "old-token-1 and client/secret of 20 chars"}], "next": "n"}))
        }
        ("/contacts", Some("Bearer fresh-token-2")) => {
            Reply::json(r#"{"items": [{"id": 12345678901234567890, "amount": 14.90}], "next": null}"#)
        }
        _ => Reply::status(401, r#"{"message": "expired"}"#),
    })
    .await;
    let given =
        json!({"baseUri": app.url.as_str(), "clientId": "c", "clientSecret": "client/secret of 20 chars", "shop": "a"});
    let old = json!({"accessToken": "old-token-1", "refreshToken": "refresh-token-1"});
    let notebook: Arc<Notebook> = Arc::default();
    let notes = notebook.clone();
    let session = app.session(&desk, given.clone(), old.clone());
    let session = session.seen_by(Arc::new(move |exchange| notes.note(exchange)));
    let kept = Mutex::new(Vec::new());
    let seen = app.seen.clone();
    let keep = |fresh: &Credentials| {
        let used = seen.lock().unwrap().iter().any(|r| r.header("authorization") == Some("Bearer fresh-token-2"));
        assert!(!used, "it is used before it is kept");
        kept.lock().unwrap().push(fresh.clone());
        Ok(())
    };
    let contacts = desk.collection("contacts").unwrap();
    let ask = Ask::Pull { since: None };
    let walked = Trial::new(&session).noted_in(&notebook).renewing(&keep).run(Some(contacts), &ask, &|_| true).await;
    let walked = walked.unwrap_or_else(|error| panic!("{error}"));
    let ids: Vec<&str> = walked.found.iter().map(|found| found.record.remote_id.as_str()).collect();
    assert_eq!((ids.as_slice(), walked.pages), (["1", "12345678901234567890"].as_slice(), 2));
    assert_eq!(kept.lock().unwrap().len(), 1);

    let given = super::object(given);
    let old = Credentials::read(&old).unwrap();
    let scrub = Scrub::new(&desk, &given, &[&old, &session.credentials()]);
    scrub.check().unwrap();
    let take = Take { collection: Some("contacts".to_owned()), ask, exchanges: notebook.take(), walked };
    let text = recorded_file(&desk, &given, &[take], &scrub);
    for secret in ["old-token", "fresh-token", "refresh-token", "client/secret", "status: 401", "/token"] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
    assert!(text.contains("\"amount\": 14.90") && text.contains("shop: a"), "digits and parameters stay:\n{text}");
    let desk = connector(dir.path(), &[("tests/contacts.yml", &text)]);
    let report = run_tests(&desk).await.unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!((report.passed, report.failures), (1, Vec::new()), "{text}");
}

#[test]
fn a_secret_that_could_be_any_text_is_not_recorded_around() {
    let dir = tempfile::tempdir().unwrap();
    let desk = connector(dir.path(), &[]);
    let credentials = Credentials::read(&json!({"accessToken": "abc"})).unwrap();
    let scrub = Scrub::new(&desk, &super::object(json!({})), &[&credentials]);
    assert!(scrub.check().unwrap_err().contains("fewer than 6 characters"));
}
