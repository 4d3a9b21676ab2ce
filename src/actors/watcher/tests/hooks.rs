//! A connection's webhook at its app, and the selectors of its events: over deletions, failures and changes.

use serde_json::json;

use super::desk::Desk;
use crate::actors::watcher::{Watchers, farewell, look};
use crate::domain::connection::{EventSwitch, Farewell, WebhookState};
use crate::domain::time::Millis;

/// A connection whose webhook stands at the app.
async fn registered() -> Desk {
    let mut desk = Desk::sandbox(&["contacts"]).await;
    desk.deps.public_url = Some("http://127.0.0.1:1/".parse().unwrap());
    desk.look().await;
    assert!(matches!(desk.connection().webhook, WebhookState::Registered { .. }));
    assert_eq!(hooks(&desk).await, 1);
    desk
}

async fn hooks(desk: &Desk) -> usize {
    desk.call("GET", "/api/webhooks", None).await["data"].as_array().unwrap().len()
}

async fn delete(desk: &Desk) {
    let gone = desk.connection();
    desk.deps.store.change(move |tx| farewell::leave(tx, &gone)).await.unwrap();
}

fn owed(desk: &Desk) -> Option<Farewell> {
    desk.deps.store.object_anywhere(&desk.id.0).unwrap()
}

#[tokio::test]
async fn a_deleted_connections_webhook_is_taken_away_also_after_a_restart() {
    let desk = registered().await;
    delete(&desk).await;
    assert_eq!(hooks(&desk).await, 1, "the deletion itself asks nobody");
    // What a node does when it starts: nothing is known but what the store has.
    Watchers::new(desk.deps.clone()).open().unwrap();
    desk.deps.rings.wake_due(desk.deps.clock.now());
    assert!(desk.deps.rings.owners_rung().await.contains(&desk.id.0));
    assert_eq!(desk.look().await, None);
    assert_eq!((hooks(&desk).await, owed(&desk)), (0, None));
    assert!(desk.deps.store.credentials(&desk.id.0).unwrap().is_none(), "its credentials go with it");
    desk.stop().await;
}

#[tokio::test]
async fn an_app_that_refuses_to_take_a_webhook_away_is_asked_a_bounded_number_of_times() {
    let desk = registered().await;
    delete(&desk).await;
    let fault = json!({"kind": "status", "status": 503, "path": "/api/webhooks/", "count": 1_000});
    let counted = desk.call("POST", "/control/answers", Some(fault)).await.to_string();
    for tries in 1..farewell::TRIES_MAX {
        let next = desk.look().await.expect("tried again");
        assert!(next > desk.deps.clock.now());
        assert_eq!(desk.look().await, Some(next), "not before its time");
        let mut kept = owed(&desk).unwrap_or_else(|| panic!("try {tries}: {counted}"));
        assert_eq!(kept.tries, tries);
        assert!(!kept.error.is_empty());
        kept.due_at = Millis(0);
        desk.deps.store.change(move |tx| tx.put_object(&kept)).await.unwrap();
    }
    assert_eq!(desk.look().await, None);
    assert_eq!((hooks(&desk).await, owed(&desk)), (1, None));
    desk.stop().await;
}

#[tokio::test]
async fn selectors_are_asked_for_again_when_they_are_wished_for() {
    let desk = Desk::sandbox(&["orders"]).await;
    let id = desk.id;
    let switch = |event: &str, selector: &str, parameters: &str| EventSwitch {
        event: event.into(),
        parameters: parameters.into(),
        webhook_key: "changes".into(),
        selector: selector.into(),
    };
    let stale = switch("order-changed", "order/acc_9", "{}");
    let good = switch("opportunity-changed", "opportunity/acc_1", r#"{"account":"acc_1"}"#);
    let (one, two) = (stale.clone(), good.clone());
    let put = desk.deps.store.change(move |tx| {
        tx.put_event_switch(id, &one)?;
        tx.put_event_switch(id, &two)
    });
    put.await.unwrap();
    desk.look().await;
    assert!(desk.deps.store.event_switches(id).unwrap().contains(&stale), "nobody wished for it");
    desk.deps.store.change(move |tx| tx.ask_reselect(id)).await.unwrap();
    desk.fault(json!({"kind": "status", "status": 503, "path": "/api/me"})).await;
    desk.look().await;
    let mut wish = desk.deps.store.reselect(id).unwrap().expect("it stays until it is granted");
    assert!(wish.tries == 1 && wish.due_at > desk.deps.clock.now());
    wish.due_at = Millis(0);
    desk.deps.store.change(move |tx| tx.put_reselect(id, &wish)).await.unwrap();
    look(&desk.deps, id.0).await.unwrap();
    let mut switches = desk.deps.store.event_switches(id).unwrap();
    switches.sort_by(|a, b| a.event.cmp(&b.event));
    assert_eq!(switches, [good, switch("order-changed", "order/acc_1", "{}")]);
    assert_eq!(desk.deps.store.reselect(id).unwrap(), None);
    desk.stop().await;
}
