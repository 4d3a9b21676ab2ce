//! Destinations: set up, shown, changed, tried out, written into by subscriptions, deleted.

use std::path::Path;

use serde_json::{Value, json};
use tidemill::api;
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::{Destination, Pause};
use tidemill::domain::id::{DestinationId, WorkspaceNo};
use tidemill::domain::secret::Secret;
use tidemill::domain::trouble::Trouble;
use tidemill::store::Slot;

use crate::support::api::{KEY, Node, OPERATOR};

const ALL: &str = "/2024-03/one/destinations";
const HOOKS: &str = "/2024-03/one/webhooks";

/// A node that lets destinations write files below a folder that ends with the test.
async fn node() -> (Node, tempfile::TempDir) {
    let files = tempfile::tempdir().expect("a folder");
    let path = files.path().display().to_string();
    (Node::start_with(&[("TIDEMILL__DESTINATIONS__FILES_PATH", &path)], api::configure).await, files)
}

async fn made(node: &Node, name: &str) -> Value {
    let body = json!({"type": "file", "name": name, "settings": {"prefix": "log"}});
    node.post(ALL, body).await.ok()["destination"].clone()
}

fn id(of: &Value) -> String {
    of["destinationId"].as_str().expect("an id").to_owned()
}

fn path(of: &Value) -> String {
    format!("{ALL}/{}", id(of))
}

/// The row itself, as the engine would change it.
async fn stored(node: &Node, of: &Value, change: impl FnOnce(&mut Destination) + Send + 'static) {
    let id: DestinationId = id(of).parse().expect("an id");
    let store = node.state.store.clone();
    let write = move |tx: &mut tidemill::store::Tx<'_>| {
        let mut row = tx.destination(WorkspaceNo::DEFAULT, id)?.expect("it is there");
        change(&mut row);
        tx.put_object(&row)
    };
    store.change(write).await.expect("changed");
}

#[actix::test]
async fn a_destination_is_set_up_shown_changed_and_deleted() {
    let (node, _files) = node().await;
    let types = node.get(&format!("{ALL}/types")).await.ok()["types"].clone();
    let file = types.as_array().expect("types").iter().find(|kind| kind["type"] == "file").expect("files").clone();
    assert_eq!((&file["mirrors"], &file["available"]), (&json!(false), &json!(true)));
    assert!(file["settings"]["properties"]["prefix"].is_object(), "{file}");
    let made = made(&node, "Lake").await;
    assert_eq!((&made["type"], &made["name"], &made["status"]), (&json!("file"), &json!("Lake"), &json!("active")));
    assert_eq!(made["settings"], json!({"prefix": "log"}));
    assert!(made.get("userId").is_none() && made.get("statusReason").is_none());
    assert_eq!(node.get(&path(&made)).await.ok()["destination"], made);
    assert_eq!(node.get(ALL).await.ok()["destinations"], json!([made]));
    let patch = json!({"name": "Pond", "settings": {"prefix": null, "folder": "a/b"}});
    let changed = node.call("PATCH", &path(&made), Some(patch)).await.ok()["destination"].clone();
    assert_eq!((&changed["name"], &changed["settings"]), (&json!("Pond"), &json!({"folder": "a/b"})));
    let gone = node.call("DELETE", &path(&made), None).await.ok();
    assert_eq!(gone, json!({"deleted": true, "destinationId": id(&made)}));
    node.get(&path(&made)).await.refused(404, "destination-not-found");
    node.stop().await;
}

#[actix::test]
async fn what_cannot_be_a_destination_is_refused_by_name() {
    let (node, _files) = node().await;
    for (body, code, said) in [
        (json!({"type": "fil", "name": "x"}), "invalid", "did you mean `file`"),
        (json!({"type": "file", "name": ""}), "invalid", "name: "),
        (json!({"type": "file", "name": "x", "settings": {"prefix": "a/b"}}), "invalid", "settings.prefix"),
        (json!({"type": "file", "name": "x", "settings": {"prefx": "a"}}), "invalid", "prefx"),
        (json!({"type": "file", "name": "x", "settings": {"folder": "x".repeat(66_000)}}), "too-large", "65536"),
        (json!({"type": "file", "name": "x", "setings": {}}), "unknown-field", "did you mean `settings`"),
    ] {
        let status = if code == "too-large" { 413 } else { 422 };
        let message = node.post(ALL, body.clone()).await.refused(status, code);
        assert!(message.contains(said), "{message}");
    }
    node.post(ALL, json!({"type": "file", "name": "x", "userId": "nobody"})).await.refused(404, "user-not-found");
    let first = made(&node, "Lake").await;
    let message = node.post(ALL, json!({"type": "file", "name": "Lake"})).await.refused(409, "conflict");
    assert!(message.contains(&id(&first)), "{message}");
    let second = made(&node, "Pond").await;
    node.call("PATCH", &path(&second), Some(json!({"name": "Lake"}))).await.refused(409, "conflict");
    let patch = json!({"settings": {"maxFileBytes": 1}});
    let message = node.call("PATCH", &path(&second), Some(patch)).await.refused(422, "invalid");
    assert!(message.contains("settings.maxFileBytes"), "{message}");
    node.call("PATCH", &path(&second), Some(json!({"type": "s3"}))).await.refused(422, "unknown-field");
    assert_eq!(node.get(&path(&second)).await.ok()["destination"], second, "what was refused changed nothing");
    node.stop().await;
}

#[actix::test]
async fn files_are_written_only_where_the_operator_allows_it() {
    let node = Node::start().await;
    let types = node.get(&format!("{ALL}/types")).await.ok()["types"].clone();
    let file = types.as_array().expect("types").iter().find(|kind| kind["type"] == "file").expect("files").clone();
    assert_eq!(file["available"], false);
    let message = node.post(ALL, json!({"type": "file", "name": "x"})).await.refused(422, "invalid");
    assert!(message.contains("destinations.files_path"), "{message}");
    node.stop().await;
}

fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).expect("a folder").flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[actix::test]
async fn a_secret_setting_is_in_no_answer_and_not_on_the_disk() {
    const SECRET: &str = "correct-horse-battery";
    const NAME: &str = "Name-that-is-no-secret";
    let (node, _files) = node().await;
    node.post("/2024-03/one/users", json!({"username": "ann"})).await.ok();
    let body = json!({"type": "file", "name": NAME, "userId": "ann"});
    let made = node.post(ALL, body).await.ok()["destination"].clone();
    let at: DestinationId = id(&made).parse().expect("an id");
    stored(&node, &made, |row| row.secret_names = vec!["password".to_owned()]).await;
    let text = Secret::new(json!({"password": SECRET}).to_string());
    let write = move |tx: &mut tidemill::store::Tx<'_>| tx.put_secret_text(&at.0, Slot::DestinationSettings, &text);
    node.state.store.change(write).await.expect("changed");
    let mut answers = vec![node.get(&path(&made)).await, node.get(ALL).await];
    // It stays over a change of something else.
    answers.push(node.call("PATCH", &path(&made), Some(json!({"name": format!("{NAME} 2")}))).await);
    for answer in &answers {
        answer.ok();
        assert!(answer.text.contains(r#""password":"***""#), "{}", answer.text);
    }
    let kept = node.state.store.destination_secrets(&at.0).expect("read").expect("kept");
    assert!(kept.expose().contains(SECRET));
    // The kind refuses a setting that it does not know, in whatever words.
    answers.push(node.call("PATCH", &path(&made), Some(json!({"settings": {"prefix": "p"}}))).await);
    answers.push(node.post(&format!("{}/test", path(&made)), json!({})).await);
    answers.push(node.get("/2024-03/one/users/ann/export").await);
    let export = answers.last().expect("an answer");
    assert!(export.text.contains(NAME) && export.text.contains("\"type\":\"destination\""), "{}", export.text);
    for answer in &answers {
        assert!(!answer.text.contains(SECRET), "{}", answer.text);
    }
    let folder = node.stop().await;
    assert!(holds(folder.path(), NAME), "the search finds what is in the open");
    assert!(!holds(folder.path(), SECRET));
}

#[actix::test]
async fn a_test_shows_each_step_and_leaves_nothing() {
    let (node, files) = node().await;
    let made = made(&node, "Lake").await;
    let test = format!("{}/test", path(&made));
    let shown = node.post(&test, json!({})).await.ok();
    assert_eq!(shown["ok"], true, "{shown}");
    let steps = shown["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["name"] == "write" && step["ms"].is_u64()), "{shown}");
    assert!(steps.iter().all(|step| step["ok"] == true && step.get("code").is_none()), "{shown}");
    let message = node.post(&test, json!({"shape": "mirror"})).await.refused(422, "invalid");
    assert!(message.contains("cannot be a mirror"), "{message}");
    node.post(&test, json!({"shape": "append", "deletes": "mark"})).await.refused(422, "invalid");
    // Where its folder should be stands a file.
    let folder = files.path().join(id(&made));
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, "").expect("written");
    let shown = node.post(&test, json!({})).await.ok();
    let last = shown["steps"].as_array().and_then(|steps| steps.last()).cloned().unwrap_or_default();
    assert_eq!((&shown["ok"], &last["ok"]), (&json!(false), &json!(false)));
    assert!(last["code"].is_string() && last["message"].is_string(), "{shown}");
    assert!(!shown.to_string().contains(&files.path().display().to_string()), "the operator's paths are not told");
    node.stop().await;
}

#[actix::test]
async fn a_subscription_writes_into_a_destination_in_place_of_an_address() {
    let (node, _files) = node().await;
    let (lake, pond) = (made(&node, "Lake").await, made(&node, "Pond").await);
    let body = json!({"destinationId": id(&lake), "topic": ["crm/contacts"]});
    let subscription = node.post(HOOKS, body.clone()).await.ok()["subscription"].clone();
    assert_eq!(
        (&subscription["destinationId"], &subscription["shape"]),
        (&lake["destinationId"], &json!("append")),
        "{subscription}"
    );
    let absent = ["address", "secret", "signing", "headers", "maxInFlight", "timeoutSeconds", "deletes", "backfill"];
    for absent in absent {
        assert!(subscription.get(absent).is_none(), "{absent}: {subscription}");
    }
    assert_eq!(subscription["include"], json!(["topic", "eventId", "username"]));
    node.post(HOOKS, body).await.refused(409, "conflict");
    let one = format!("{HOOKS}/{}", subscription["subscriptionId"].as_str().expect("an id"));
    assert_eq!(node.get(&one).await.ok()["subscription"], subscription);
    let change = |patch: Value| node.call("PATCH", &one, Some(patch));
    for (patch, said) in [
        (json!({"address": "http://127.0.0.1:9/"}), "address"),
        (json!({"destinationId": null}), "destinationId"),
        (json!({"signing": {"rsa": true}}), "signing"),
        (json!({"headers": {"x": "y"}}), "headers"),
        (json!({"maxInFlight": 4}), "maxInFlight: this is for addresses; into a destination one batch"),
        (json!({"timeoutSeconds": 30}), "timeoutSeconds: this is for addresses; how long a batch"),
        (json!({"auth": {"type": "bearer", "token": "t"}}), "auth"),
        (json!({"shape": "mirror"}), "mirror"),
        (json!({"deletes": "remove"}), "deletes"),
    ] {
        let message = change(patch.clone()).await.refused(422, "invalid");
        assert!(message.contains(said), "{patch}: {message}");
    }
    change(json!({"backfill": true})).await.refused(422, "unknown-field");
    change(json!({"destinationId": "00".repeat(12)})).await.refused(404, "destination-not-found");
    node.post(&format!("{one}/secret/rotate"), json!({})).await.refused(422, "invalid");
    let shown = node.post(&format!("{one}/test"), json!({})).await.ok();
    assert_eq!(shown["ok"], true, "{shown}");
    let message = node.call("DELETE", &path(&lake), None).await.refused(409, "conflict");
    assert!(message.contains(subscription["subscriptionId"].as_str().expect("an id")), "{message}");
    let moved = change(json!({"destinationId": id(&pond), "include": ["raw"]})).await.ok()["subscription"].clone();
    assert_eq!((&moved["destinationId"], &moved["include"]), (&pond["destinationId"], &json!(["raw"])));
    let back = change(json!({"include": null})).await.ok()["subscription"]["include"].clone();
    assert_eq!(back, json!(["topic", "eventId", "username"]));
    node.call("DELETE", &path(&lake), None).await.ok();
    node.stop().await;
}

#[actix::test]
async fn a_subscription_has_an_address_or_a_destination_and_not_both() {
    let (node, _files) = node().await;
    let lake = made(&node, "Lake").await;
    let address = "http://127.0.0.1:9/";
    for (body, said) in [
        (json!({"topic": ["*"]}), "destinationId"),
        (json!({"topic": ["*"], "address": address, "destinationId": id(&lake)}), "not both"),
        (json!({"topic": ["*"], "address": address, "shape": "append"}), "shape"),
        (json!({"topic": ["*"], "address": address, "backfill": true}), "backfill"),
        (json!({"topic": ["*"], "destinationId": id(&lake), "shape": "mirror"}), "cannot be a mirror"),
        (json!({"topic": ["*"], "destinationId": id(&lake), "deletes": "mark"}), "deletes"),
        (json!({"topic": ["*"], "destinationId": id(&lake), "headers": {"a": "b"}}), "headers"),
        (json!({"topic": ["*"], "destinationId": id(&lake), "signing": {"rsa": true}}), "signing"),
        (json!({"topic": ["*"], "destinationId": id(&lake), "maxInFlight": 4}), "maxInFlight"),
        (json!({"topic": ["*"], "destinationId": id(&lake), "timeoutSeconds": 30}), "timeoutSeconds"),
        (json!({"topic": ["*"], "destinationId": id(&lake), "auth": {"type": "bearer", "token": "t"}}), "auth"),
    ] {
        let message = node.post(HOOKS, body.clone()).await.refused(422, "invalid");
        assert!(message.contains(said), "{body}: {message}");
    }
    let body = json!({"topic": ["*"], "destinationId": "nothing"});
    node.post(HOOKS, body).await.refused(404, "destination-not-found");
    let body = json!({"topic": ["*"], "address": address});
    let made = node.post(HOOKS, body).await.ok()["subscription"].clone();
    let one = format!("{HOOKS}/{}", made["subscriptionId"].as_str().expect("an id"));
    let message = node.call("PATCH", &one, Some(json!({"destinationId": id(&lake)}))).await.refused(422, "invalid");
    assert!(message.contains("destinationId"), "{message}");
    node.stop().await;
}

#[actix::test]
async fn a_backfill_begins_with_its_subscription_and_goes_with_it() {
    let (node, _files) = node().await;
    let lake = made(&node, "Lake").await;
    let body = json!({"destinationId": id(&lake), "topic": ["crm/contacts"], "backfill": true});
    let subscription = node.post(HOOKS, body).await.ok()["subscription"].clone();
    assert!(subscription["backfill"]["startedAt"].is_string(), "{subscription}");
    let one = format!("{HOOKS}/{}", subscription["subscriptionId"].as_str().expect("an id"));
    let shown = node.get(&one).await.ok()["subscription"]["backfill"].clone();
    assert!(["running", "done"].contains(&shown["status"].as_str().expect("a status")), "{shown}");
    assert_eq!(shown["startedAt"], subscription["backfill"]["startedAt"]);
    node.call("DELETE", &one, None).await.ok();
    assert_eq!(node.state.store.lanes_writing().expect("read"), vec![]);
    node.stop().await;
}

#[actix::test]
async fn a_users_destination_takes_that_users_events_only_and_goes_with_the_user() {
    let (node, _files) = node().await;
    for name in ["ann", "bob"] {
        node.post("/2024-03/one/users", json!({"username": name})).await.ok();
    }
    let body = json!({"type": "file", "name": "Ann's", "userId": "ann"});
    let hers = node.post(ALL, body).await.ok()["destination"].clone();
    let ours = made(&node, "Ours").await;
    assert!(hers["userId"].is_string());
    let of = |user: &str| format!("{ALL}?userId={user}");
    assert_eq!(node.get(&of("ann")).await.ok()["destinations"], json!([hers]));
    assert_eq!(node.get(&of("bob")).await.ok()["destinations"], json!([]));
    let with = |user: Value| json!({"destinationId": id(&hers), "topic": ["*"], "userId": user});
    for user in [json!(null), json!("bob")] {
        let message = node.post(HOOKS, with(user)).await.refused(422, "invalid");
        assert!(message.starts_with("userId: "), "{message}");
    }
    let subscription = node.post(HOOKS, with(json!("ann"))).await.ok()["subscription"].clone();
    let one = format!("{HOOKS}/{}", subscription["subscriptionId"].as_str().expect("an id"));
    node.call("PATCH", &one, Some(json!({"userId": null}))).await.refused(422, "invalid");
    let patch = json!({"destinationId": id(&ours), "userId": null});
    node.call("PATCH", &one, Some(patch)).await.ok();
    let patch = json!({"destinationId": id(&hers), "userId": "ann"});
    node.call("PATCH", &one, Some(patch)).await.ok();
    node.call("DELETE", "/2024-03/one/users/ann", None).await.ok();
    node.get(&path(&hers)).await.refused(404, "destination-not-found");
    node.get(&one).await.refused(404, "subscription-not-found");
    node.get(&path(&ours)).await.ok();
    node.stop().await;
}

#[actix::test]
async fn a_change_ends_a_pause_and_tells_of_it() {
    let (node, _files) = node().await;
    let lake = made(&node, "Lake").await;
    let body = json!({"destinationId": id(&lake), "topic": ["crm/contacts"]});
    let subscription = node.post(HOOKS, body).await.ok()["subscription"].clone();
    let since = node.state.clock.now();
    stored(&node, &lake, move |row| {
        let error = AttemptError::Destination(Trouble::PermissionDenied);
        row.pause = Some(Pause { since, error, detail: "not on that disk".to_owned() });
    })
    .await;
    let shown = node.get(&path(&lake)).await.ok()["destination"].clone();
    assert_eq!((&shown["status"], &shown["statusReason"]["code"]), (&json!("paused"), &json!("permission-denied")));
    assert_eq!(shown["statusReason"]["detail"], "not on that disk");
    assert!(shown["statusReason"]["message"].is_string() && shown["statusReason"]["since"].is_string());
    let one = format!("{HOOKS}/{}", subscription["subscriptionId"].as_str().expect("an id"));
    let of = node.get(&one).await.ok()["subscription"].clone();
    assert_eq!(of["status"], "paused");
    assert!(of["statusReason"].as_str().is_some_and(|reason| reason.contains("`Lake` is paused")), "{of}");
    let changed = node.call("PATCH", &path(&lake), Some(json!({"settings": {"prefix": "p"}}))).await.ok();
    assert_eq!(changed["destination"]["status"], "active");
    assert_eq!(node.get(&one).await.ok()["subscription"]["status"], "active");
    let events = node.get("/2024-03/one/events?topic=destination/resumed").await.ok();
    assert_eq!(events["events"].as_array().map(Vec::len), Some(1), "{events}");
    node.stop().await;
}

#[actix::test]
async fn another_workspace_sees_none_of_it_and_may_use_the_same_name() {
    let (node, _files) = node().await;
    let lake = made(&node, "Lake").await;
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = two["key"]["apiKey"].as_str().expect("a key");
    for (method, end) in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test")] {
        let answer = node.call_as(theirs, method, &format!("{}{end}", path(&lake)), Some(json!({}))).await;
        answer.refused(404, "destination-not-found");
    }
    let body = json!({"destinationId": id(&lake), "topic": ["*"]});
    node.call_as(theirs, "POST", HOOKS, Some(body)).await.refused(404, "destination-not-found");
    assert_eq!(node.call_as(theirs, "GET", ALL, None).await.ok()["destinations"], json!([]));
    let body = json!({"type": "file", "name": "Lake"});
    let other = node.call_as(theirs, "POST", ALL, Some(body)).await.ok()["destination"].clone();
    let gone = two["workspace"]["workspaceId"].as_str().expect("an id");
    node.call_as(OPERATOR, "DELETE", &format!("/workspaces/{gone}"), None).await.ok();
    let at: DestinationId = id(&other).parse().expect("an id");
    assert_eq!(
        node.state.store.object_anywhere::<Destination>(&at.0).expect("read"),
        None,
        "it went with its workspace"
    );
    node.call_as(KEY, "GET", &path(&lake), None).await.ok();
    node.stop().await;
}

#[actix::test]
async fn the_same_idempotency_key_sets_one_destination_up() {
    let (node, _files) = node().await;
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k1")];
    let body = json!({"type": "file", "name": "Lake"}).to_string();
    let first = node.send("POST", ALL, &headers, &body).await.ok();
    let again = node.send("POST", ALL, &headers, &body).await;
    assert_eq!((again.ok(), again.header("idempotent-replayed")), (first, Some("true")));
    assert_eq!(node.get(ALL).await.ok()["destinations"].as_array().map(Vec::len), Some(1));
    node.stop().await;
}

#[actix::test]
async fn destinations_are_listed_in_pages() {
    let (node, _files) = node().await;
    for n in 0..5 {
        made(&node, &format!("n{n}")).await;
    }
    let (mut names, mut next) = (Vec::new(), String::new());
    for _ in 0..4 {
        let page = node.get(&format!("{ALL}?limit=2{next}")).await.ok();
        names.extend(page["destinations"].as_array().expect("a page").iter().map(|d| d["name"].clone()));
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["n4", "n3", "n2", "n1", "n0"]);
    node.stop().await;
}
