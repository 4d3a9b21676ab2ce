//! Webhooks that are several things at the app: made, looked after and taken away one by one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tidemill::connectors::{CallError, Connector, Session};

use super::REGISTRY;
use super::app::{App, Reply, Request};

const URI: &str = "https://hooks.example/in/c/x";
const SPEC: &str = "\
wanted:
  - {topic: people, fields: [name, email]}
  - {topic: deals, fields: [title]}
  - {topic: offers, when: $parameters.offers}
name: $.topic
id: $.id
covers: [fields]
optional: [403]
";
const LIST: &str =
    "path: /subs\nresult: {$iterate: {locator: $.items, where: {$eq: [$.url, $webhook.uri]}, items: $}}\n";
const MAKE: &str = "\
method: POST
path: /subs
body: {topic: $subscription.topic, fields: $subscription.fields, url: $webhook.uri}
result: {id: $.id, error: $.problem}
";
const REMOVE: &str = "method: DELETE\npath: /subs/{{subscription.id}}\n";
const PARAMETERS: &str = "parametersSchema: {type: object, properties: {offers: {type: boolean}}}\n";

/// What the app has, and how it behaves.
#[derive(Default)]
struct Shelf {
    items: Vec<Value>,
    next: u64,
    /// What is answered where these topics are to be made: a status, and the body.
    refuses: Vec<(&'static str, u16, &'static str)>,
    /// A second one of a topic is a 409.
    is_unique: bool,
}

type Shared = Arc<Mutex<Shelf>>;

fn shelf(shared: &Shared) -> MutexGuard<'_, Shelf> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    fn topics(&self) -> Vec<&str> {
        let mut topics: Vec<&str> = self.items.iter().filter_map(|item| item["topic"].as_str()).collect();
        topics.sort_unstable();
        topics
    }
    fn put(&mut self, topic: &str, fields: Value, url: &str) -> String {
        self.next += 1;
        let id = format!("s{}", self.next);
        self.items.push(json!({"id": id, "topic": topic, "fields": fields, "url": url}));
        id
    }
    fn answer(&mut self, request: &Request) -> Reply {
        match (request.method.as_str(), request.url.path()) {
            ("GET", "/subs") => Reply::json(json!({ "items": self.items })),
            ("POST", "/subs") => {
                let wanted: Value = serde_json::from_str(&request.body).unwrap();
                let topic = wanted["topic"].as_str().unwrap();
                if let Some((_, status, body)) = self.refuses.iter().find(|(refused, ..)| *refused == topic) {
                    return Reply::status(*status, body);
                }
                if self.is_unique && self.items.iter().any(|item| item["topic"] == topic) {
                    return Reply::status(409, "{}");
                }
                let id = self.put(topic, wanted["fields"].clone(), wanted["url"].as_str().unwrap());
                Reply::json(json!({ "id": id }))
            }
            ("DELETE", path) => {
                let before = self.items.len();
                self.items.retain(|item| path != format!("/subs/{}", item["id"].as_str().unwrap()));
                if self.items.len() < before { Reply::json("{}") } else { Reply::status(404, "{}") }
            }
            _ => Reply::status(500, ""),
        }
    }
}

fn folder(spec: &str, more: &[(&str, &str)]) -> Result<(tempfile::TempDir, Arc<Connector>), String> {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "chat").unwrap();
    let head = std::fs::read_to_string(folder.join("spec.yml")).unwrap();
    let head = format!("{head}{PARAMETERS}");
    let kind = |name: &str| format!("webhook/subscriptions/topics/{name}");
    let mut files = vec![
        ("spec.yml".to_owned(), head.as_str()),
        ("webhook/spec.yml".to_owned(), "name: Changes\n"),
        ("webhook/handle.map.yml".to_owned(), "events: []\n"),
        (kind("spec.yml"), spec),
        (kind("list.rest.yml"), LIST),
        (kind("make.rest.yml"), MAKE),
        (kind("remove.rest.yml"), REMOVE),
    ];
    files.extend(more.iter().map(|(path, text)| ((*path).to_owned(), *text)));
    for (path, text) in files {
        let file = folder.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        // An empty text: there is no such file.
        match text {
            "" => std::fs::remove_file(file).unwrap(),
            text => std::fs::write(file, text).unwrap(),
        }
    }
    REGISTRY.read(&folder).map(|connector| (dir, connector)).map_err(|error| error.to_string())
}

async fn desk(spec: &str, parameters: Value) -> (Shared, App, Session) {
    let (_dir, chat) = folder(spec, &[]).unwrap();
    let shared = Shared::default();
    let served = Arc::clone(&shared);
    let app = App::start(move |request| shelf(&served).answer(request)).await;
    let session = app.session(&chat, parameters, json!({"accessToken": "t"}));
    (shared, app, session)
}

fn made(app: &App) -> usize {
    app.requests().iter().filter(|request| request.method == "POST").count()
}

#[tokio::test]
async fn what_is_missing_is_made_and_all_of_it_is_taken_away() {
    let (shared, app, session) = desk(SPEC, json!({})).await;
    // Of another address.
    shelf(&shared).put("deals", json!(["title"]), "https://other.example/");
    let first = session.subscribe(URI, "unused").await.unwrap();
    assert_eq!(shelf(&shared).topics(), ["deals", "deals", "people"], "offers are not wanted");
    assert_eq!(made(&app), 2);
    // Nothing is missing: nothing is made.
    let second = session.refresh_webhook(URI, &first.state).await.unwrap();
    assert_eq!((made(&app), &second.state), (2, &first.state));
    // The app drops one.
    shelf(&shared).items.retain(|item| item["topic"] != "people");
    let third = session.refresh_webhook(URI, &second.state).await.unwrap();
    assert_eq!((shelf(&shared).topics(), made(&app)), (vec!["deals", "deals", "people"], 3));
    // The answer with the first state was lost, so it is made from nothing.
    let again = session.subscribe(URI, "unused").await.unwrap();
    assert_eq!(made(&app), 3, "what stands is found");
    // One is gone already.
    shelf(&shared).items.retain(|item| item["topic"] != "people");
    for state in [&again.state, &third.state] {
        session.unsubscribe(URI, state).await.unwrap();
        assert_eq!(shelf(&shared).topics(), ["deals"], "another's stays");
    }
}

#[tokio::test]
async fn one_that_does_not_cover_what_is_wanted_is_replaced() {
    for is_unique in [false, true] {
        let (shared, _app, session) = desk(SPEC, json!({})).await;
        shelf(&shared).is_unique = is_unique;
        let narrow = shelf(&shared).put("people", json!(["name"]), URI);
        // It has more than is wanted.
        let wide = shelf(&shared).put("deals", json!(["owner", "title"]), URI);
        session.subscribe(URI, "unused").await.unwrap();
        let shelf = shelf(&shared);
        let ids: Vec<&str> = shelf.items.iter().filter_map(|item| item["id"].as_str()).collect();
        assert_eq!(shelf.topics(), ["deals", "people"]);
        assert!(!ids.contains(&narrow.as_str()) && ids.contains(&wide.as_str()), "{ids:?}");
    }
}

#[tokio::test]
async fn what_was_there_before_stays_where_the_connector_says_so() {
    let (shared, _app, session) = desk(&format!("{SPEC}leaveFound: true\n"), json!({})).await;
    shelf(&shared).put("deals", json!(["title"]), URI);
    let first = session.subscribe(URI, "unused").await.unwrap();
    let renewed = session.refresh_webhook(URI, &first.state).await.unwrap();
    assert_eq!(renewed.state, first.state, "whose it is, is not forgotten");
    session.unsubscribe(URI, &renewed.state).await.unwrap();
    assert_eq!(shelf(&shared).topics(), ["deals"]);
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_taken_away_by_the_renewal() {
    let (_dir, chat) = folder(SPEC, &[]).unwrap();
    let (shared, app, session) = desk(SPEC, json!({"offers": true})).await;
    let first = session.subscribe(URI, "unused").await.unwrap();
    assert_eq!(shelf(&shared).topics(), ["deals", "offers", "people"]);
    let fewer = app.session(&chat, json!({"offers": false}), json!({"accessToken": "t"}));
    fewer.refresh_webhook(URI, &first.state).await.unwrap();
    assert_eq!(shelf(&shared).topics(), ["deals", "people"]);
}

#[tokio::test]
async fn one_that_is_refused_keeps_no_other_from_being_made() {
    // A status that is optional costs that one alone.
    let (shared, _app, session) = desk(SPEC, json!({})).await;
    shelf(&shared).refuses = vec![("people", 403, "{}")];
    let made = session.subscribe(URI, "unused").await.unwrap();
    assert!(made.state.contains("people: "), "{}", made.state);
    assert_eq!(shelf(&shared).topics(), ["deals"]);
    // But not all of them.
    shelf(&shared).items.clear();
    shelf(&shared).refuses = vec![("people", 403, "{}"), ("deals", 403, "{}")];
    let error = session.subscribe(URI, "unused").await.unwrap_err().to_string();
    assert!(error.contains("none of them: people: ") && error.contains("; deals: "), "{error}");
    // Any other refusal is told, and so is an error inside a 200, when the rest is made.
    for (status, body) in [(422, r#"{"message": "not now"}"#), (200, r#"{"problem": "not now"}"#)] {
        let (shared, _app, session) = desk(SPEC, json!({})).await;
        shelf(&shared).refuses = vec![("people", status, body)];
        let error = session.subscribe(URI, "unused").await.unwrap_err();
        let CallError::Refused { status: told, message } = &error else { panic!("{error:?}") };
        assert_eq!(*told, status);
        assert!(message.starts_with("people: ") && message.contains("not now"), "{message}");
        assert_eq!(shelf(&shared).topics(), ["deals"]);
    }
    // What is only unreachable is no refusal: it is asked again later.
    let (shared, _app, session) = desk(SPEC, json!({})).await;
    shelf(&shared).refuses = vec![("people", 503, "{}")];
    let error = session.subscribe(URI, "unused").await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { .. }), "{error:?}");
}

#[test]
fn a_folder_that_is_not_whole_is_refused() {
    let subscribe = [("webhook/subscribe.rest.yml", "method: POST\npath: /hooks\n")];
    let both = folder(SPEC, &subscribe).err().unwrap();
    assert!(both.contains("webhook/subscribe: the folder subscriptions says the same"), "{both}");
    let half = folder(SPEC, &[("webhook/subscriptions/topics/remove.rest.yml", "")]).err().unwrap();
    assert!(half.contains("webhook/subscriptions/topics/remove.rest.yml: the file is missing"), "{half}");
    let budget = [("webhook/subscriptions/topics/remove.rest.yml", "path: /subs\nbudget: none\n")];
    let budget = folder(SPEC, &budget).err().unwrap();
    assert!(budget.contains("webhook/subscriptions/topics/remove") && budget.contains("\"none\""), "{budget}");
    let wrong = folder(&SPEC.replace("$parameters.offers", "$paramters.offers"), &[]);
    let wrong = wrong.err().unwrap();
    assert!(wrong.contains("field wanted") && wrong.contains("paramters"), "{wrong}");
}
