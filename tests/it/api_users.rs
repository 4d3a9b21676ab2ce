//! Users: made, changed, deleted with what hangs on them; and the token that opens `/connect`.

use serde_json::json;
use tidemill::api::token;
use tidemill::domain::connection::{Connection, ConnectionStatus, InitialSync, Remap, WebhookState};
use tidemill::domain::id::{ConnectionId, Seq, UserId, WorkspaceNo};

use crate::support::api::Node;

const USERS: &str = "/2024-03/one/users";
const HOOKS: &str = "/2024-03/one/webhooks";

#[actix::test]
async fn a_user_is_made_changed_and_deleted() {
    let node = Node::start().await;
    let made = node.post(USERS, json!({"username": "a/b c", "fullName": "Ann B."})).await.ok();
    let id = made["userId"].as_str().expect("an id");
    assert_eq!(made, json!({"userId": id}));
    let user = node.get(&format!("{USERS}/a%2Fb%20c")).await.ok()["user"].clone();
    assert_eq!((user["username"].as_str(), user["fullName"].as_str()), (Some("a/b c"), Some("Ann B.")));
    let path = format!("{USERS}/{id}");
    let changed = node.call("PUT", &path, Some(json!({"fullName": null}))).await.ok();
    assert_eq!((changed["user"]["username"].as_str(), &changed["user"]["fullName"]), (Some("a/b c"), &json!(null)));
    let message = node.post(USERS, json!({"username": "a/b c"})).await.refused(409, "conflict");
    assert!(message.contains(id), "{message}");
    node.post(USERS, json!({"username": "taken"})).await.ok();
    node.call("PUT", &path, Some(json!({"username": "taken"}))).await.refused(409, "conflict");
    assert_eq!(node.call("DELETE", &path, None).await.ok(), json!({"deleted": true, "userId": id}));
    node.get(&path).await.refused(404, "user-not-found");
    node.post(USERS, json!({"username": "a/b c"})).await.ok();
    for wrong in [json!({"username": " "}), json!({"username": "x".repeat(257)}), json!({"username": "a\nb"})] {
        node.post(USERS, wrong).await.refused(422, "invalid");
    }
    node.stop().await;
}

#[actix::test]
async fn a_batch_of_users_is_all_or_none() {
    let node = Node::start().await;
    let batch = format!("{USERS}/batch");
    let made = node.post(&batch, json!({"users": [{"username": "a"}, {"username": "b"}]})).await.ok();
    assert_eq!(made["users"].as_array().map(Vec::len), Some(2));
    let message = node.post(&batch, json!({"users": [{"username": "c"}, {"username": "a"}]})).await;
    assert!(message.refused(409, "conflict").starts_with("users[1]: "));
    let message = node.post(&batch, json!({"users": [{"username": "d"}, {"username": "d"}]})).await;
    assert!(message.refused(422, "invalid").contains("users[1]"));
    node.post(&batch, json!({"users": []})).await.refused(422, "invalid");
    let names = node.get(USERS).await.ok();
    assert_eq!(names["users"].as_array().map(Vec::len), Some(2));
    node.stop().await;
}

#[actix::test]
async fn a_token_opens_connect_for_its_user_for_an_hour() {
    let node = Node::start().await;
    let id = node.post(USERS, json!({"username": "u"})).await.ok()["userId"].as_str().expect("an id").to_owned();
    let text = node.get("/2023-12/users/u/token").await.ok()["token"].as_str().expect("a token").to_owned();
    let now = node.state.clock.now();
    let (_, user, _) = token::open(&node.engine.store, &text, now).expect("ours");
    assert_eq!(user.id.to_string(), id);
    let later = now.after(std::time::Duration::from_secs(3601));
    assert!(token::open(&node.engine.store, &text, later).is_err(), "it has expired");
    let mut forged = text.clone();
    let last = if forged.ends_with('A') { 'B' } else { 'A' };
    forged.replace_range(forged.len() - 10..forged.len() - 9, &last.to_string());
    assert!(token::open(&node.engine.store, &forged, now).is_err());
    assert!(token::open(&node.engine.store, "nonsense", now).is_err());
    node.get("/2023-12/users/nobody/token").await.refused(404, "user-not-found");
    node.stop().await;
}

fn connection(id: [u8; 12], user: UserId) -> Connection {
    Connection {
        id: ConnectionId(id),
        workspace: WorkspaceNo(0),
        user,
        integration: None,
        connector: "sandbox".into(),
        app: "Sandbox".into(),
        category: "crm".into(),
        parameters: "{}".into(),
        account: None,
        poll_interval_seconds: None,
        full_scan_interval_seconds: None,
        initial_sync: InitialSync::Baseline,
        remap: Remap::Silent,
        collections: None,
        status: ConnectionStatus::Active,
        webhook: WebhookState::None { reason: String::new() },
        created_at: tidemill::domain::time::Millis(1),
        updated_at: tidemill::domain::time::Millis(1),
    }
}

#[actix::test]
async fn deleting_a_user_deletes_its_connections_and_narrowed_subscriptions() {
    let node = Node::start().await;
    let id = node.post(USERS, json!({"username": "u"})).await.ok()["userId"].as_str().expect("an id").to_owned();
    let user: UserId = id.parse().expect("an id");
    let store = node.engine.store.clone();
    for n in 1..=3 {
        store.change(move |tx| tx.put_object(&connection([n; 12], user))).await.expect("put");
    }
    let hook = |scope: (&str, &str)| json!({"address": "http://127.0.0.1:9/", "topic": ["crm/*"], scope.0: scope.1});
    node.post(HOOKS, hook(("userId", "u"))).await.ok();
    node.post(HOOKS, hook(("connectionId", &"01".repeat(12)))).await.ok();
    node.post(HOOKS, hook(("description", "stays"))).await.ok();
    node.call("DELETE", &format!("{USERS}/u"), None).await.ok();
    let left = node.get(HOOKS).await.ok();
    assert_eq!(left["subscriptions"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left["subscriptions"][0]["description"], "stays");
    assert!(store.connections(WorkspaceNo(0), None, 10).expect("read").items.is_empty());
    let events = store.events_after(Seq(0), Seq(u64::MAX - 1), 10).expect("read");
    assert_eq!(events.0.iter().filter(|(_, e)| e.topic == "connection/deleted").count(), 3);
    node.stop().await;
}
