//! What scans delete, and what they must not.

use serde_json::json;

use super::desk::Desk;
use crate::domain::connection::InitialSync;
use crate::domain::time::Millis;
use crate::sandbox;

async fn delete(desk: &Desk, collection: &str, ids: &[String]) {
    for id in ids {
        desk.call("DELETE", &format!("/api/{collection}/{id}"), None).await;
    }
}

#[tokio::test]
async fn a_scan_finds_what_is_gone() {
    let desk = Desk::sandbox(&["customers"]).await;
    desk.look().await;
    let gone = desk.app_ids("customers").await[..3].to_vec();
    delete(&desk, "customers", &gone).await;
    desk.pull("customers").await;
    assert_eq!(desk.told().len(), 0, "a pull cannot see it");
    desk.scan("customers").await;
    assert_eq!(desk.told().len(), 3);
    desk.assert_same("customers").await;
    desk.stop().await;
}

#[tokio::test]
async fn the_apps_own_list_of_deleted_records_is_read_with_each_pull() {
    let desk = Desk::sandbox(&["orders"]).await;
    desk.look().await;
    let gone = desk.app_ids("orders").await[..30.min(desk.app_ids("orders").await.len())].to_vec();
    delete(&desk, "orders", &gone).await;
    desk.pull("orders").await;
    assert_eq!(desk.told().len(), gone.len(), "what the app states is not guarded");
    desk.pull("orders").await;
    assert_eq!(desk.told().len(), gone.len());
    desk.assert_same("orders").await;
    desk.stop().await;
}

#[tokio::test]
async fn an_aborted_scan_deletes_nothing() {
    let options = sandbox::Options { scale: 10, ..sandbox::Options::quiet() };
    let desk = Desk::sandbox_with(&["opportunities"], InitialSync::Baseline, options).await;
    desk.look().await;
    let all = desk.app_ids("opportunities").await;
    assert!(all.len() > 100, "more than a page: {}", all.len());
    delete(&desk, "opportunities", &all[..5]).await;
    desk.fault(json!({"kind": "status", "status": 503, "path": "/api/opportunities", "skip": 1})).await;
    desk.scan("opportunities").await;
    assert_eq!(desk.told(), vec![]);
    assert_eq!(desk.pulls()[0].outcome, "failed");
    desk.fault(json!({"kind": "same-page", "path": "/api/opportunities", "count": 20})).await;
    desk.scan("opportunities").await;
    assert_eq!(desk.told(), vec![], "the same page for ever is no complete scan");
    desk.call("DELETE", "/control/answers", None).await;
    desk.scan("opportunities").await;
    assert_eq!(desk.told().len(), 5);
    desk.stop().await;
}

#[tokio::test]
async fn a_scan_that_misses_too_much_is_held_and_the_next_one_deletes_what_both_miss() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let ids = desk.app_ids("contacts").await;
    delete(&desk, "contacts", &ids[..25]).await;
    desk.scan("contacts").await;
    assert_eq!((desk.told().len(), desk.count("sync/held"), desk.pulls()[0].outcome.as_str()), (0, 1, "held"));
    assert_eq!(desk.state("contacts").held.len(), 25);
    delete(&desk, "contacts", &ids[25..26]).await;
    desk.scan("contacts").await;
    assert_eq!(desk.told().len(), 25, "only what both scans miss");
    assert_eq!(desk.state("contacts").held.len(), 0);
    desk.scan("contacts").await;
    assert_eq!(desk.told().len(), 26);
    desk.assert_same("contacts").await;
    desk.stop().await;
}

#[tokio::test]
async fn more_than_half_is_deleted_only_when_somebody_approves() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let ids = desk.app_ids("contacts").await;
    delete(&desk, "contacts", &ids[..50]).await;
    for _ in 0..3 {
        desk.scan("contacts").await;
    }
    assert_eq!((desk.told().len(), desk.count("sync/held")), (0, 3));
    desk.ask(true, true).await;
    desk.look().await;
    assert_eq!(desk.told().len(), 50);
    desk.assert_same("contacts").await;
    desk.stop().await;
}

#[tokio::test]
async fn a_record_created_by_webhook_during_a_scan_stays() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    // The app's list does not show it yet; it was received after the scan began.
    let record = json!({"id": "c_999999", "first_name": "Late", "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z"});
    let soon = Millis(desk.deps.clock.now().0 + 60_000);
    let told = json!({"id": "e1", "event": "contact.created", "account_id": "acc_1", "data": record});
    let id = desk.webhook(None, told, soon).await;
    desk.hurry(id).await;
    desk.scan("contacts").await;
    assert_eq!(desk.told(), vec![("created".to_owned(), "c_999999".to_owned())]);
    assert!(desk.live("contacts").iter().any(|row| row.remote_id == "c_999999"));
    desk.stop().await;
}
