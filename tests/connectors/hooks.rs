//! A connection's own webhook, and events that belong to a collection.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, json};
use tidemill::clock::Clock;
use tidemill::connectors::{CallError, ChangeKind, Connector, Of, WebhookRequest};
use tidemill::domain::time::Millis;

use super::REGISTRY;
use super::app::{App, Reply};

fn made(files: &[(&str, &str)]) -> (tempfile::TempDir, Arc<Connector>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "chat").unwrap();
    for (path, text) in files {
        let file: &Path = &folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let connector = REGISTRY.read(&folder).unwrap_or_else(|error| panic!("{error}"));
    (dir, connector)
}

fn request(body: &str) -> WebhookRequest {
    WebhookRequest {
        method: "POST".to_owned(),
        url: "https://hooks.example/in/g/t/webhook-key".to_owned(),
        query: Vec::new(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::from(body.to_owned()),
        received_at: Millis(0),
    }
}

#[tokio::test]
async fn an_event_of_a_collection_becomes_a_change_of_a_record() {
    let event = "name: Changed\nkey: changed\nimplementationType: global-webhook\ncollection: contacts\n\
                 type: {$codes: {value: $.kind, to: {gone: deleted}, default: changed}}\nid: $.contact.id\nrecord: $.contact.full\n";
    let (_dir, chat) = made(&[
        ("events/changed/spec.yml", event),
        (
            "events/changed/get-event-selector.map.yml",
            "globalWebhookKey: all\nglobalWebhookEventSelector: $connection.baseUri\n",
        ),
        ("global-webhooks/all/spec.yml", "name: All\nkey: all\n"),
        ("global-webhooks/all/handle.map.yml", "events: [{payload: $, selector: {$string: $.account}}]\n"),
    ]);
    let app = App::replies(vec![Reply::json("[]")]).await;
    let session = app.session(&chat, json!({"baseUri": "https://a.example"}), json!({"accessToken": "t"}));
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
    let change = session.event_change("changed", &raw(r#"{"kind": "gone", "contact": {"id": 5}}"#)).unwrap().unwrap();
    assert_eq!((change.kind, change.remote_id.as_str(), change.record.is_none()), (ChangeKind::Deleted, "5", true));
    let full = raw(r#"{"kind": "x", "contact": {"full": {"id": 6, "first_name": "Ada"}}}"#);
    let change = session.event_change("changed", &full).unwrap().unwrap();
    assert_eq!((change.kind, change.remote_id.as_str()), (ChangeKind::Changed, "6"));
    let c = chat.collection("contacts").unwrap();
    let fields = session.map(c, &change.record.unwrap(), |unified| unified.fields.to_map()).unwrap();
    assert_eq!(fields["firstName"], "Ada");
    let nothing = session.event_change("changed", &raw(r#"{"kind": "x"}"#)).unwrap_err();
    assert_eq!(nothing, CallError::BadAnswer("the event names no record".to_owned()));
    let selector = session.event_selector("changed", &Map::new()).await.unwrap();
    assert_eq!((selector.webhook_key.as_str(), selector.selector.as_str()), ("all", "https://a.example"));
}

#[tokio::test]
async fn an_own_webhook_is_registered_renewed_and_taken_away() {
    let (_dir, chat) = made(&[
        ("webhook/spec.yml", "name: Contacts\nlifetime: 2d\n"),
        (
            "webhook/subscribe.rest.yml",
            "method: POST\npath: /hooks\nbody: {url: $webhook.uri, secret: $webhook.secret}\nresult: {state: {id: $.id, secret: $webhook.secret}}\n",
        ),
        (
            "webhook/refresh.js",
            "export default async function ({ apiClient, state, webhookUri }) {\n  const answer = await apiClient.post(`hooks/${state.id}/renew`, { url: webhookUri })\n  return { state: { ...state, round: 2 }, refreshAt: answer.until }\n}\n",
        ),
        ("webhook/unsubscribe.rest.yml", "method: DELETE\npath: /hooks/{{state.id}}\n"),
        (
            "webhook/handle.js",
            "export default async ({ data, state }) => ({ events: [{ collection: 'contacts', type: 'updated', id: data.id + state.round }] })\n",
        ),
    ]);
    let app = App::start(|request| match (request.method.as_str(), request.url.path()) {
        ("POST", "/hooks") => Reply::json(r#"{"id": "h 1"}"#),
        ("POST", "/hooks/h%201/renew") => Reply::json(r#"{"until": "2099-01-01T00:00:00Z"}"#),
        _ => Reply::status(404, ""),
    })
    .await;
    let session = app.session(&chat, json!({}), json!({"accessToken": "t"}));
    let uri = "https://hooks.example/in/c/x";
    let (clock, day) = (Clock::start(Millis(0)), Duration::from_secs(24 * 3600));
    let asked_at = clock.now();
    let subscribed = session.subscribe(uri, "whisper").await.unwrap();
    assert_eq!(subscribed.state, r#"{"id":"h 1","secret":"whisper"}"#);
    let half = subscribed.refresh_at.expect("a time");
    // The session's clock is another one.
    let (from, to) =
        (asked_at.after(day).before(Duration::from_secs(1)), clock.now().after(day + Duration::from_secs(1)));
    assert!(half >= from && half <= to, "by half of its lifetime: {half:?}");
    assert_eq!(app.requests()[0].body, r#"{"url":"https://hooks.example/in/c/x","secret":"whisper"}"#);
    let renewed = session.refresh_webhook(uri, &subscribed.state).await.unwrap();
    assert_eq!(renewed.state, r#"{"id":"h 1","secret":"whisper","round":2}"#);
    let of = Of { state: Some(&renewed.state), account: None };
    let handled = session.handle_webhook(&request(r#"{"id": 40}"#), of).await.unwrap();
    assert_eq!((handled.changes[0].remote_id.as_str(), handled.changes[0].kind), ("42", ChangeKind::Updated));
    session.unsubscribe(uri, &renewed.state).await.unwrap();
    assert_eq!(app.requests().last().unwrap().method, "DELETE", "a webhook that is missing counts as gone");
}
