//! A backup of a running node is consistent; a restored node waits, says what it will send, and loses nothing.
//!
//! Always true: no event of the restored node has the id of another event of the original.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::outbound::Method;

use crate::support::node::Node;
use crate::support::receiver::Receiver;

const EVENTS: &str = "/2024-03/one/events";

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Publishes an event with this number; its id.
async fn publish(node: &Node, number: usize) -> String {
    let event = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {"number": number}});
    let answer = node.call(Method::POST, EVENTS, Some(&event)).await;
    answer["eventId"].as_str().expect("an id").to_owned()
}

async fn subscribe(node: &Node, address: &str) -> String {
    let wish = json!({"address": address, "topic": ["crm/contacts"]});
    let made = node.call(Method::POST, "/2024-03/one/webhooks", Some(&wish)).await;
    made["subscription"]["subscriptionId"].as_str().expect("an id").to_owned()
}

/// A node on a fresh folder that has the master key of another.
fn beside(original: &Node, folder: &Path) -> Node {
    let node = Node::new(folder);
    std::fs::create_dir_all(folder.join("data")).expect("a folder");
    std::fs::copy(original.folder.join("data/master.key"), folder.join("data/master.key")).expect("the key");
    node
}

/// Waits until a node answers, ready or not: status and body of `/health/ready`.
async fn up(node: &Node) -> (u16, Value) {
    for _ in 0..600 {
        if let Ok(answer) = node.try_call(Method::GET, "/health/ready", None).await
            && answer.1["status"] != "starting"
        {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the node does not answer: {}", node.log());
}

async fn state(node: &Node) -> Value {
    node.call(Method::GET, "/node", None).await["node"].clone()
}

/// The numbers that came, with the ids under which they came.
fn came(receiver: &Receiver) -> BTreeMap<u64, BTreeSet<String>> {
    let mut came = BTreeMap::<u64, BTreeSet<String>>::new();
    for one in receiver.so_far() {
        let number = one.json()["dataPayload"]["number"].as_u64().expect("a number");
        came.entry(number).or_default().insert(one.header("webhook-id").to_owned());
    }
    came
}

#[actix::test]
async fn a_backup_under_load_restores_to_a_node_that_waits_and_then_loses_nothing() {
    let folders = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let receiver = Receiver::start();
    let mut original = Node::new(folders.0.path());
    original.start();
    original.ready().await;
    subscribe(&original, &receiver.address).await;
    let mut ids = BTreeMap::new();
    let mut next = 0_usize;
    for _ in 0..50 {
        ids.insert(next, publish(&original, next).await);
        next += 1;
    }
    let before = next;
    // The command runs beside the calls that publish.
    let backup = folders.1.path().join("backup");
    let command = {
        let (port, folder, to) = (original.port, original.folder.clone(), backup.display().to_string());
        tokio::task::spawn_blocking(move || {
            let mut node = Node::new(&folder);
            node.port = port;
            node.run(&["backup", "--to", &to])
        })
    };
    while !command.is_finished() {
        ids.insert(next, publish(&original, next).await);
        next += 1;
    }
    let output = command.await.expect("it ran");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("master key is not in it"), "{}", text(&output));
    assert!(!backup.join("master.key").exists() && backup.join("db/CURRENT").exists());
    // Nothing of it stays beside the store, and the node goes on.
    let left = original.call(Method::GET, "/node/backups", None).await;
    assert_eq!(left["backups"], json!([]));
    let mut since = Vec::new();
    for _ in 0..20 {
        since.push(publish(&original, next).await);
        next += 1;
    }
    receiver.wait(next).await;
    original.kill();

    let mut restored = beside(&original, &folders.1.path().join("other"));
    let output = restored.run(&["restore", &backup.display().to_string()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("starts paused"), "{}", text(&output));
    let checked = restored.run(&["check"]);
    assert!(text(&checked).contains("paused until"), "{}", text(&checked));
    restored.start();
    let (status, ready) = up(&restored).await;
    assert_eq!((status, ready["status"].as_str()), (503, Some("paused")), "{ready}");
    let paused = state(&restored).await;
    assert_eq!((paused["phase"].as_str(), paused["restores"].as_u64()), (Some("paused"), Some(1)), "{paused}");
    // What is accepted meanwhile waits.
    let came_before = receiver.so_far().len();
    let fresh = publish(&restored, 1_000_000).await;
    assert_eq!(state(&restored).await["owed"]["events"].as_u64().map(|events| events > 0), Some(true));
    assert_eq!(receiver.so_far().len(), came_before);
    // Nobody said that the original is gone.
    let refused = restored.run(&["resume"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("originalIsStopped"), "{}", text(&refused));
    let resumed = restored.run(&["resume", "--original-is-stopped"]);
    assert!(resumed.status.success(), "{}", text(&resumed));
    assert_eq!(up(&restored).await.0, 200);
    assert_eq!(state(&restored).await["owed"], Value::Null);
    // What was owed in the backup may come first, once more.
    let mut count = came_before;
    while !came(&receiver).contains_key(&1_000_000) {
        count += 1;
        receiver.wait(count).await;
    }
    let again = restored.try_call(Method::POST, "/node/resume", Some(&json!({}))).await.expect("an answer");
    assert_eq!((again.0, again.1["code"].as_str()), (409, Some("conflict")), "{}", again.1);

    // Every number came under one id, and no id was given twice.
    let came = came(&receiver);
    assert!(came.values().all(|ids| ids.len() == 1), "{came:?}");
    for (number, id) in &ids {
        assert!(came[&(*number as u64)].contains(id), "{number}");
    }
    let known: BTreeSet<&String> = ids.values().chain(&since).collect();
    assert!(!known.contains(&fresh) && came[&1_000_000].contains(&fresh));
    assert!(known.iter().all(|id| **id < fresh), "a later event has the greater id");
    // What was accepted before the backup is in the restored log under its id.
    for id in ids.values().take(before) {
        restored.call(Method::GET, &format!("{EVENTS}/{id}"), None).await;
    }
    assert_eq!(restored.stop(), Some(0));
}

#[actix::test]
async fn what_waits_in_a_backup_is_told_and_sent_when_the_restored_node_goes_on() {
    let folders = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let receiver = Receiver::start();
    receiver.answer((0..100).map(|_| (500, Vec::new())));
    let mut original = Node::new(folders.0.path());
    original.env.push(("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS".into(), "[0, 3600]".into()));
    original.start();
    original.ready().await;
    let lane = subscribe(&original, &receiver.address).await;
    let id = publish(&original, 1).await;
    receiver.wait(1).await;
    assert_eq!(original.stop(), Some(0));
    // Without a node, the command works on the store itself.
    let output = original.run(&["backup", "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let path = made["path"].as_str().expect("a path").to_owned();

    let mut restored = beside(&original, folders.1.path());
    let output = restored.run(&["restore", &path]);
    assert!(text(&output).contains("1 deliveries to 1 subscriptions wait"), "{}", text(&output));
    let shown = text(&output);
    assert!(!shown.contains("/hook"), "the address may hold a secret: {shown}");
    restored.start();
    assert_eq!(up(&restored).await.0, 503);
    let owed = state(&restored).await["owed"].clone();
    assert_eq!((owed["deliveries"].as_u64(), owed["most"][0]["pending"].as_u64()), (Some(1), Some(1)), "{owed}");
    assert_eq!(receiver.so_far().len(), 1);
    restored.call(Method::POST, "/node/resume", Some(&json!({"originalIsStopped": true}))).await;
    let list = format!("/2024-03/one/deliveries?subscriptionId={lane}");
    let listed = restored.call(Method::GET, &list, None).await;
    let resend = listed["deliveries"][0]["deliveryId"].as_str().expect("a delivery").to_owned();
    restored.call(Method::POST, &format!("/2024-03/one/deliveries/{resend}/resend"), Some(&json!({}))).await;
    let came = receiver.wait(2).await;
    assert_eq!(came[1].header("webhook-id"), id);
}

#[actix::test]
async fn a_restored_node_does_not_go_on_while_its_original_answers() {
    let folders = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let mut original = Node::new(folders.0.path());
    let public_url = ("TIDEMILL__SERVER__PUBLIC_URL".to_owned(), format!("http://127.0.0.1:{}", original.port));
    original.env.push(public_url.clone());
    original.start();
    original.ready().await;
    let made = original.call(Method::POST, "/node/backups", Some(&json!({}))).await;
    let mut restored = beside(&original, folders.1.path());
    restored.env.push(public_url);
    let output = restored.run(&["restore", made["backup"]["path"].as_str().expect("a path")]);
    assert!(output.status.success(), "{}", text(&output));
    restored.start();
    up(&restored).await;
    let resume = json!({"originalIsStopped": true});
    let (status, answer) = restored.try_call(Method::POST, "/node/resume", Some(&resume)).await.expect("an answer");
    assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")), "{answer}");
    assert!(answer["message"].as_str().expect("a message").contains("stop the original"), "{answer}");
    assert_eq!(state(&restored).await["phase"], "paused");
    // With the original gone and the address its own, nothing needs to be said.
    let port = original.port;
    assert_eq!(original.stop(), Some(0));
    assert_eq!(restored.stop(), Some(0));
    restored.port = port;
    restored.start();
    assert_eq!(up(&restored).await.0, 503, "a restart does not end the pause");
    restored.call(Method::POST, "/node/resume", Some(&json!({}))).await;
    assert_eq!(up(&restored).await.0, 200);
}

#[actix::test]
async fn a_wrong_restore_is_refused_with_what_to_do_and_leaves_nothing() {
    let folders = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let mut original = Node::new(folders.0.path());
    original.start();
    original.ready().await;
    let made = original.call(Method::POST, "/node/backups", Some(&json!({}))).await;
    assert_eq!(original.stop(), Some(0));
    let backup = made["backup"]["path"].as_str().expect("a path").to_owned();
    let refused = |node: &Node, from: &str, why: &str| {
        let output = node.run(&["restore", from]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(why), "{}", text(&output));
    };
    refused(&original, &backup, "there is a store in");
    let keyless = Node::new(folders.1.path());
    refused(&keyless, &backup, "master key of the original");
    assert!(!folders.1.path().join("data/master.key").exists(), "no key is made beside a backup");
    let mut wrong = Node::new(folders.1.path());
    wrong.env.push(("TIDEMILL_MASTER_KEY".into(), "ab".repeat(32)));
    refused(&wrong, &backup, "another master key");
    let other = beside(&original, &folders.1.path().join("other"));
    refused(&other, &folders.1.path().display().to_string(), "is no backup");
    // A damaged one: a table file that lost its end.
    let tables = std::fs::read_dir(Path::new(&backup).join("db")).expect("a folder").flatten();
    let table = tables.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "sst"));
    let table = table.expect("a table file");
    let whole = std::fs::read(&table).expect("read");
    // The original shares the file by a hard link: the damaged one takes its place.
    std::fs::remove_file(&table).expect("removed");
    std::fs::write(&table, &whole[..whole.len() / 2]).expect("written");
    refused(&other, &backup, "is damaged");
    assert!(!other.folder.join("data/db").exists() && !other.folder.join("data/restore.unfinished").exists());
}

#[actix::test]
async fn backups_are_listed_deleted_and_bounded() {
    let folder = TempDir::new().expect("a folder");
    let mut node = Node::new(folder.path());
    node.start();
    node.ready().await;
    let mut names = Vec::new();
    for _ in 0..10 {
        let made = node.call(Method::POST, "/node/backups", Some(&json!({}))).await;
        names.push(made["backup"]["name"].as_str().expect("a name").to_owned());
    }
    let (status, answer) = node.try_call(Method::POST, "/node/backups", Some(&json!({}))).await.expect("an answer");
    assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")), "{answer}");
    let listed = node.call(Method::GET, "/node/backups", None).await;
    assert_eq!(listed["backups"].as_array().map(Vec::len), Some(10));
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 10);
    for wrong in ["..%2f..%2fdata", "nothing", "%2e%2e"] {
        let path = format!("/node/backups/{wrong}");
        let (status, _) = node.try_call(Method::DELETE, &path, None).await.expect("an answer");
        // A client may resolve the last one to another path.
        assert!([404, 405].contains(&status), "{wrong}: {status}");
    }
    node.call(Method::DELETE, &format!("/node/backups/{}", names[0]), None).await;
    node.call(Method::POST, "/node/backups", Some(&json!({}))).await;
    assert!(folder.path().join("data/db/CURRENT").exists());
}

#[actix::test]
async fn with_an_operators_key_no_other_key_makes_backups() {
    let folder = TempDir::new().expect("a folder");
    let mut node = Node::new(folder.path());
    node.env.push(("TIDEMILL_OPERATOR_KEY".into(), "operator-key-of-the-backup-test".into()));
    node.start();
    node.ready().await;
    let (status, answer) = node.try_call(Method::POST, "/node/backups", Some(&json!({}))).await.expect("an answer");
    assert_eq!(status, 401, "{answer}");
    let output = node.run(&["backup"]);
    assert!(output.status.success(), "the command takes the operator's key: {}", text(&output));
}
