//! What becomes of records: baseline, events, mapping, convergence.

use serde_json::json;

use super::desk::{Desk, registry};
use crate::domain::connection::{CollectionState, InitialSync};
use crate::domain::event::Source;
use crate::sandbox;

#[tokio::test]
async fn the_first_sync_fills_the_snapshot_without_events_of_records() {
    let desk = Desk::sandbox(&["contacts", "customers"]).await;
    let next = desk.look().await.unwrap();
    assert!(next > desk.deps.clock.now(), "the next look is a timer's");
    desk.assert_same("contacts").await;
    desk.assert_same("customers").await;
    assert_eq!(desk.told(), vec![]);
    assert_eq!((desk.count("sync/started"), desk.count("sync/completed")), (2, 2));
    let state = desk.state("contacts");
    assert!(state.baseline_at.is_some() && state.cursor.is_some() && state.next_scan_at.is_some());
    let pull = desk.pulls().into_iter().find(|pull| pull.collection == "contacts").unwrap();
    assert_eq!((pull.mode.as_str(), pull.outcome.as_str(), pull.records), ("first", "completed", 60));
    desk.stop().await;
}

#[tokio::test]
async fn the_first_sync_tells_every_record_where_that_is_asked_for() {
    let desk = Desk::sandbox_with(&["contacts"], InitialSync::Emit, sandbox::Options::quiet()).await;
    desk.look().await;
    assert_eq!(desk.told().len(), 60);
    assert!(desk.told().iter().all(|(kind, _)| kind == "created"));
    desk.stop().await;
}

#[tokio::test]
async fn each_change_is_told_once_with_what_changed_and_the_record_before() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let made = desk.call("POST", "/api/contacts", Some(json!({"first_name": "Ada", "x_size": 3}))).await;
    let id = made["id"].as_str().unwrap().to_owned();
    desk.pull("contacts").await;
    desk.call("PATCH", &format!("/api/contacts/{id}"), Some(json!({"first_name": "Bela"}))).await;
    desk.pull("contacts").await;
    desk.pull("contacts").await;
    desk.call("DELETE", &format!("/api/contacts/{id}"), None).await;
    desk.scan("contacts").await;
    desk.scan("contacts").await;
    let kinds: Vec<String> = desk.told().into_iter().filter(|(_, of)| *of == id).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["created", "updated", "deleted"]);
    assert_eq!(desk.told().len(), 3);
    let events = desk.events();
    let updated = events.iter().find(|event| event.update_type.as_deref() == Some("updated")).unwrap();
    assert_eq!(updated.changed_fields, ["firstName"]);
    assert!(updated.previous.as_ref().unwrap().contains("\"Ada\"") && updated.raw.as_ref().unwrap().contains("Bela"));
    assert!(matches!(updated.source, Source::Poll(_)));
    assert_eq!((updated.user_name.as_deref(), updated.username.as_deref()), (Some("Ada L."), Some("ada")));
    assert!(desk.deps.store.custom_fields(desk.id, "contacts").unwrap().contains(&"x_size".to_owned()));
    desk.stop().await;
}

#[tokio::test]
async fn before_the_baseline_only_records_made_after_the_connection_are_told() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.call("POST", "/api/contacts", Some(json!({"first_name": "New"}))).await;
    desk.look().await;
    let told = desk.told();
    assert_eq!(told.len(), 1, "{told:?}");
    desk.stop().await;
}

#[tokio::test]
async fn a_new_version_of_the_mapping_is_silent_and_counted() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let folder = tempfile::tempdir().unwrap();
    copy(std::path::Path::new("config/connectors/sandbox"), &folder.path().join("sandbox"));
    let map = folder.path().join("sandbox/data/contacts/record.map.yml");
    let text =
        std::fs::read_to_string(&map).unwrap().replace("firstName: $.first_name", "firstName: {$upper: $.first_name}");
    std::fs::write(&map, text).unwrap();
    let mut desk = desk;
    desk.deps.connectors = registry(Some(folder.path()));
    let state = CollectionState { next_scan_at: Some(super::desk::FAR), ..desk.state("contacts") };
    desk.set_state("contacts", state).await;
    desk.look().await;
    assert_eq!(desk.told(), vec![]);
    assert_eq!(desk.pulls()[0].remapped, 60);
    desk.assert_same("contacts").await;
    let completed = desk.events().pop().unwrap();
    assert_eq!(completed.topic, "sync/completed");
    // The mapping is old news at the next look.
    let before = desk.pulls().len();
    desk.look().await;
    assert_eq!(desk.pulls().len(), before);
    desk.stop().await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn the_snapshot_equals_the_app_after_many_changes() {
    let every = ["contacts", "customers", "opportunities", "orders", "users"];
    let desk = Desk::sandbox(&every).await;
    desk.call("PATCH", "/control/settings", Some(json!({"shuffleTies": true, "pastTheEnd": "last-page"}))).await;
    desk.look().await;
    for _ in 0..4 {
        desk.call("POST", "/control/changes", Some(json!({"count": 60, "account": "acc_1"}))).await;
        for collection in every {
            desk.pull(collection).await;
            desk.scan(collection).await;
        }
    }
    for collection in every {
        desk.assert_same(collection).await;
    }
    // `created` and `deleted` of a record take turns.
    let mut alive: std::collections::HashMap<String, String> = std::collections::HashMap::new();
    for (kind, id) in desk.told() {
        let before = alive.insert(id.clone(), kind.clone());
        let was_gone = before.as_deref().is_none_or(|kind| kind == "deleted");
        assert!(kind != "created" || was_gone, "{id} was created twice");
        assert!(kind == "created" || before.as_deref() != Some("deleted"), "{id}: {kind} after deleted");
    }
    desk.stop().await;
}

#[tokio::test]
async fn a_sync_that_was_asked_for_runs_once_and_is_told() {
    let desk = Desk::sandbox(&["contacts", "users"]).await;
    desk.look().await;
    let (pull, before) = (desk.ask(true, false).await, desk.count("sync/completed"));
    desk.look().await;
    let row = desk.deps.store.pull(desk.id, pull).unwrap().unwrap();
    assert_eq!(
        (row.outcome.as_str(), row.mode.as_str(), row.collection.as_str()),
        ("completed", "full", "contacts,users")
    );
    assert_eq!(desk.deps.store.sync_requests(desk.id).unwrap(), vec![]);
    assert_eq!(desk.count("sync/completed"), before + 1);
    desk.look().await;
    assert_eq!(desk.count("sync/completed"), before + 1);
    desk.stop().await;
}
