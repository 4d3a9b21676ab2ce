//! Global webhooks as a connector's author writes them: what comes in is understood, and each event finds its connection.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, json};
use tidemill::connectors::{CallError, Connector, WebhookRequest, handle_global};
use tidemill::domain::time::Millis;

use super::REGISTRY;
use super::app::{App, Reply};

/// The two functions that the format was specified with, as they were given.
const HANDLE: &str = r#"export default async function handle({ data }) {
  return {
    events: [
      {
        payload: data,
        selector: `user_id:${data.from_user_id}`,
      },
    ],
    response: {
        status: 201,
        data: "Webhook received"
    }
  }
}
"#;
const SELECTOR: &str = r#"export default async function getEventSelector({ apiClient }) {
  const response = await apiClient.get('users/me')
  return {
    globalWebhookKey: 'global-webhok-key',
    globalWebhookEventSelector: `user_id:${response?.id}`,
  }
}
"#;
const WEBHOOK: &str =
    "name: Webhook Name\nkey: global-webhok-key\nmethods:\n  handle:\n    implementationType: javascript\n";
const EVENT: &str = "name: Event Name\nimplementationType: global-webhook\nkey: event-key\nmethods:\n  \
                     get-event-selector:\n    implementationType: javascript\n";

fn connector(dir: &Path, handle: &str) -> Arc<Connector> {
    let folder = tidemill::connectors::scaffold(dir, "chat").unwrap();
    for (path, text) in [
        ("global-webhooks/global-webhok-key/spec.yml", WEBHOOK),
        ("global-webhooks/global-webhok-key/handle.js", handle),
        ("events/event-key/spec.yml", EVENT),
        ("events/event-key/get-event-selector.js", SELECTOR),
    ] {
        let file = folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    REGISTRY.read(&folder).unwrap()
}

fn request(body: &str) -> WebhookRequest {
    WebhookRequest {
        method: "POST".to_owned(),
        url: "https://hooks.example/in/g/t/global-webhok-key".to_owned(),
        query: Vec::new(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::from(body.to_owned()),
        received_at: Millis(0),
    }
}

#[tokio::test]
async fn an_event_finds_the_right_one_of_two_connections() {
    let dir = tempfile::tempdir().unwrap();
    let connector = connector(dir.path(), HANDLE);
    let app = App::start(|request| {
        assert_eq!(request.url.path(), "/users/me");
        Reply::json(json!({ "id": if request.header("authorization") == Some("Bearer ann") { 7 } else { 8 } }))
    })
    .await;
    let mut selectors = Vec::new();
    for token in ["ann", "bob"] {
        let session = app.session(&connector, json!({}), json!({ "accessToken": token }));
        selectors.push(session.event_selector("event-key", &Map::new()).await.unwrap());
    }
    assert_eq!(selectors[0].webhook_key, "global-webhok-key");

    let body = r#"{"from_user_id": 8, "text": "hi", "big": 9007199254740993123, "price": 10.00}"#;
    let handled = handle_global(&connector, "global-webhok-key", &request(body), &Map::new()).await.unwrap();
    let [event] = &handled.events[..] else { panic!("{handled:?}") };
    let found: Vec<usize> = (0..2).filter(|at| selectors[*at].selector == event.selector).collect();
    assert_eq!(found, [1]);
    assert_eq!(event.payload.get(), r#"{"from_user_id":8,"text":"hi","big":9007199254740993123,"price":10.00}"#);
    let response = handled.response.unwrap();
    assert_eq!((response.status, response.body), (201, Bytes::from_static(b"Webhook received")));
}

#[tokio::test]
async fn an_event_can_say_itself_which_collection_it_is_of() {
    let dir = tempfile::tempdir().unwrap();
    connector(dir.path(), HANDLE);
    let folder = dir.path().join("chat");
    fs::write(folder.join("events/event-key/spec.yml"), format!("{EVENT}default: true\ncollection: $.of\nid: $.id\n"))
        .unwrap();
    let connector = REGISTRY.read(&folder).unwrap();
    let app = App::start(|_| Reply::json("{}")).await;
    let session = app.session(&connector, json!({}), json!({"accessToken": "t"}));
    let told = |payload: &str| {
        session.event_change("event-key", &serde_json::value::RawValue::from_string(payload.to_owned()).unwrap())
    };
    let change = told(r#"{"of":"contacts","id":30000000001}"#).unwrap().unwrap();
    assert_eq!((change.collection.as_str(), change.remote_id.as_str()), ("contacts", "30000000001"));
    assert!(told(r#"{"of":"tickets","id":1}"#).unwrap_err().to_string().contains("there is no collection tickets"));
    assert!(told(r#"{"id":1}"#).unwrap_err().to_string().contains("does not say which collection"));
}

#[tokio::test]
async fn a_handle_that_throws_says_where_and_what_it_printed() {
    let dir = tempfile::tempdir().unwrap();
    let handle =
        "export default function handle({ data }) {\n  console.log('got', data.kind)\n  throw new Error('no')\n}\n";
    let connector = connector(dir.path(), handle);
    let error =
        handle_global(&connector, "global-webhok-key", &request(r#"{"kind":"x"}"#), &Map::new()).await.unwrap_err();
    let CallError::Script(message) = &error else { panic!("{error:?}") };
    assert!(message.contains("handle.js:3: Error: no") && message.ends_with("it printed: got x"), "{message}");
}

#[tokio::test]
async fn a_body_that_is_not_text_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let connector = connector(dir.path(), HANDLE);
    let broken = WebhookRequest { body: Bytes::from_static(b"{\"a\":\"\xff\"}"), ..request("") };
    let error = handle_global(&connector, "global-webhok-key", &broken, &Map::new()).await.unwrap_err();
    assert!(matches!(&error, CallError::BadAnswer(why) if why.contains("not UTF-8")), "{error}");
}
