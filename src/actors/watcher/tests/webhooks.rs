//! Webhooks: hints, complete bodies, global ones, and those that nobody understands.

use serde_json::{Value, json};

use super::desk::{Desk, Setup};
use crate::actors::watcher::look;
use crate::domain::connection::{Connection, EventSwitch, InitialSync, Integration};
use crate::domain::event::{Payload, Source};
use crate::domain::id::{IntegrationId, WorkspaceNo};
use crate::store::{InboxRequest, InboxState};

fn told(kind: &str, data: &Value) -> Value {
    json!({"id": "evt_1", "event": format!("contact.{kind}"), "account_id": "acc_1", "data": data})
}

#[tokio::test]
async fn a_webhook_and_a_poll_of_one_change_make_one_event() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let made = desk.call("POST", "/api/contacts", Some(json!({"first_name": "Ada"}))).await;
    let id = desk.webhook(None, told("created", &made), desk.deps.clock.now()).await;
    desk.look().await;
    desk.pull("contacts").await;
    assert_eq!(desk.told().len(), 1);
    let InboxState::Done { events, .. } = desk.inbox(id) else { panic!("{:?}", desk.inbox(id)) };
    assert_eq!(events.len(), 1);
    assert!(matches!(desk.events().pop().unwrap().source, Source::Webhook(from) if from == id));
    // The other way round: the poll first, the webhook late, and twice.
    let path = format!("/api/contacts/{}", made["id"].as_str().unwrap());
    let changed = desk.call("PATCH", &path, Some(json!({"first_name": "Bela"}))).await;
    let received_at = desk.deps.clock.now();
    desk.pull("contacts").await;
    desk.webhook(None, told("updated", &changed), received_at).await;
    desk.webhook(None, told("updated", &changed), received_at).await;
    desk.look().await;
    assert_eq!(desk.told().len(), 2);
    desk.stop().await;
}

#[tokio::test]
async fn an_older_version_that_comes_late_never_overwrites() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let first = desk.call("POST", "/api/contacts", Some(json!({"first_name": "One"}))).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let path = format!("/api/contacts/{}", first["id"].as_str().unwrap());
    let second = desk.call("PATCH", &path, Some(json!({"first_name": "Two"}))).await;
    desk.webhook(None, told("updated", &second), desk.deps.clock.now()).await;
    desk.look().await;
    desk.webhook(None, told("created", &first), desk.deps.clock.now()).await;
    desk.look().await;
    assert_eq!(desk.told().len(), 1);
    desk.assert_same("contacts").await;
    desk.stop().await;
}

#[tokio::test]
async fn a_delete_webhook_deletes_and_a_late_update_does_not_bring_it_back() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let id = desk.app_ids("contacts").await[0].clone();
    let record = desk.call("GET", &format!("/api/contacts/{id}"), None).await;
    let before = desk.deps.clock.now();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    desk.webhook(None, told("deleted", &json!({"id": id})), desk.deps.clock.now()).await;
    desk.look().await;
    desk.webhook(None, told("updated", &record), before).await;
    desk.look().await;
    assert_eq!(desk.told(), vec![("deleted".to_owned(), id)]);
    desk.stop().await;
}

#[tokio::test]
async fn webhooks_in_the_wrong_order_bring_nothing_back_and_take_nothing_away() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    // The deletion comes before the change that came before it, and before the birth of another.
    let id = desk.app_ids("contacts").await[0].clone();
    let path = format!("/api/contacts/{id}");
    let changed = desk.call("PATCH", &path, Some(json!({"first_name": "Late"}))).await;
    let born = desk.call("POST", "/api/contacts", Some(json!({"first_name": "Brief"}))).await;
    for id in [&id, born["id"].as_str().unwrap()] {
        desk.call("DELETE", &format!("/api/contacts/{id}"), None).await;
        desk.webhook(None, told("deleted", &json!({"id": id})), desk.deps.clock.now()).await;
    }
    desk.webhook(None, told("created", &born), desk.deps.clock.now()).await;
    desk.look().await;
    desk.webhook(None, told("updated", &changed), desk.deps.clock.now()).await;
    desk.look().await;
    assert_eq!(desk.told(), vec![("deleted".to_owned(), id.clone())]);
    desk.assert_same("contacts").await;
    // A deletion that was stored early and understood late is no older than what is so.
    let second = desk.app_ids("contacts").await[0].clone();
    let path = format!("/api/contacts/{second}");
    let early = desk.deps.clock.now();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let changed = desk.call("PATCH", &path, Some(json!({"first_name": "Last"}))).await;
    desk.call("DELETE", &path, None).await;
    desk.webhook(None, told("updated", &changed), desk.deps.clock.now()).await;
    desk.look().await;
    desk.webhook(None, told("deleted", &json!({"id": second})), early).await;
    desk.look().await;
    let kinds: Vec<_> = desk.told().into_iter().filter(|(_, of)| *of == second).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["updated", "deleted"]);
    desk.assert_same("contacts").await;
    desk.stop().await;
}

#[tokio::test]
async fn a_webhook_that_nobody_understands_is_tried_five_times_and_parked() {
    let desk = Desk::sandbox(&["contacts"]).await;
    desk.look().await;
    let id = desk.webhook(None, json!({"no": "event"}), desk.deps.clock.now()).await;
    for tries in 1..5 {
        desk.look().await;
        assert_eq!(desk.inbox(id), InboxState::Waiting { tries }, "try {tries}");
        desk.hurry(id).await;
    }
    desk.look().await;
    let InboxState::Parked { reason, .. } = desk.inbox(id) else { panic!("{:?}", desk.inbox(id)) };
    assert!(!reason.is_empty());
    desk.stop().await;
}

#[tokio::test]
async fn hints_of_one_record_are_one_fetch_and_an_app_that_is_down_costs_no_try() {
    let desk = Desk::sandbox(&["orders"]).await;
    desk.look().await;
    let made = desk.call("POST", "/api/orders", Some(json!({"number": "A-1"}))).await;
    let id = made["id"].clone();
    let path = format!("/api/orders/{}", id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    desk.fault(json!({"kind": "status", "status": 503, "path": path})).await;
    let mut rows = Vec::new();
    for _ in 0..3 {
        let payload = json!({"id": "evt", "event": "order.updated", "account_id": "acc_1", "data": {"id": id}});
        rows.push(desk.webhook(Some("order-changed"), payload, desk.deps.clock.now()).await);
    }
    desk.look().await;
    for row in &rows {
        assert_eq!(desk.inbox(*row), InboxState::Waiting { tries: 0 });
        desk.hurry(*row).await;
    }
    desk.look().await;
    assert_eq!(desk.told().len(), 1);
    let counts = desk.call("GET", "/control/counts", None).await.to_string();
    assert!(matches!(desk.inbox(rows[0]), InboxState::Done { .. }), "{counts}");
    desk.stop().await;
}

#[tokio::test]
async fn a_global_webhook_reaches_exactly_the_connections_that_listen() {
    let mut desk = Desk::sandbox(&["orders"]).await;
    let integration = Integration {
        id: IntegrationId([3; 12]),
        workspace: WorkspaceNo::DEFAULT,
        connector: "sandbox".into(),
        name: "Sandbox".into(),
        parameters: "{}".into(),
        created_at: desk.deps.clock.now(),
        updated_at: desk.deps.clock.now(),
    };
    let app = desk.sandbox.as_ref().unwrap();
    let (base, key) = (app.url(), app.key(2));
    let (none, initial) = (&["users"][..], InitialSync::Baseline);
    let setup = Setup {
        connector: "sandbox",
        base,
        credentials: json!({"apiKey": key}),
        collections: none,
        initial,
        connectors: None,
    };
    let second = desk.connect(&setup).await;
    let (first, owner) = (desk.id, integration.clone());
    let change = desk.deps.store.change(move |tx| {
        tx.put_object(&owner)?;
        for (id, event, selector) in
            [(first, "opportunity-changed", "opportunity/acc_1"), (second, "opportunity-changed", "opportunity/acc_2")]
        {
            let connection: Connection = tx.object_anywhere(&id.0)?.unwrap();
            tx.put_object(&Connection { integration: Some(owner.id), ..connection })?;
            let switch = EventSwitch {
                event: event.into(),
                parameters: "{}".into(),
                webhook_key: "changes".into(),
                selector: selector.into(),
            };
            tx.put_event_switch(id, &switch)?;
        }
        Ok(())
    });
    change.await.unwrap();
    let body = json!({"id": "evt", "event": "opportunity.updated", "account_id": "acc_2", "data": {"amount": 1.50}});
    let request = InboxRequest {
        workspace: WorkspaceNo::DEFAULT,
        webhook_key: "changes".into(),
        received_at: desk.deps.clock.now(),
        method: "POST".into(),
        uri: "/in/g/token/changes".into(),
        headers: vec![("content-type".into(), b"application/json".to_vec())],
        body: body.to_string().into_bytes(),
        verdict: "verified".into(),
        event: None,
    };
    let owner = integration.id.0;
    let id = desk.deps.store.change(move |tx| tx.put_inbox(&owner, &request.incoming()?)).await.unwrap();
    look(&desk.deps, integration.id.0).await.unwrap();
    let settled = desk.deps.store.inbox_row(&integration.id.0, id).unwrap().unwrap().state;
    let InboxState::Done { handed_to, .. } = settled else { panic!("{settled:?}") };
    assert_eq!(handed_to, vec![second.0]);
    desk.look().await;
    assert_eq!(desk.count("sandbox/opportunity-changed"), 0);
    desk.id = second;
    desk.look().await;
    let events = desk.events();
    let told: Vec<_> = events.iter().filter(|event| event.topic == "sandbox/opportunity-changed").collect();
    assert_eq!((told.len(), told[0].connection), (1, Some(second)));
    assert_eq!(told[0].payload, Payload::Plain(body.to_string()));
    desk.stop().await;
}
