//! Each system event, held against its schema.

use super::*;
use crate::domain::models::Catalogue;

fn one_of_each() -> Vec<SystemEvent> {
    let connection = Connection {
        id: ConnectionId([1; 12]),
        user: UserId([2; 12]),
        integration: None,
        connector: "sandbox".into(),
        app: "Sandbox".into(),
        category: "crm".into(),
        status: "active".into(),
    };
    let pull =
        Pull { id: PullId([3; 12]), connection: connection.id, connector: "sandbox".into(), mode: "full".into() };
    let collection =
        Collection { connection: connection.id, connector: "sandbox".into(), topic: "crm/contacts".into() };
    let error = Fault { code: "unavailable".into(), message: "The app answered 503.".into() };
    let subscription = Subscription { id: SubscriptionId([4; 12]), address: "https://example.com".into() };
    let destination = Destination { id: DestinationId([7; 12]), kind: "s3".into(), name: "Lake".into(), user: None };
    let (t, topics) = (Millis(1_713_545_838_020), vec!["crm/contacts".to_owned()]);
    let counts = Counts { topic: "crm/contacts".into(), seen: 3, ..Counts::default() };
    let paste = Paste { key: None, name: "Own".into(), uri: "https://example.com/in/c/x".into() };
    vec![
        SystemEvent::ConnectionCreated(connection.clone()),
        SystemEvent::ConnectionUpdated { connection: connection.clone(), changed: vec!["status".into()] },
        SystemEvent::ConnectionDeleted { connection: connection.clone(), reason: "requested".into() },
        SystemEvent::ConnectionAuthenticationFailure {
            connection: connection.clone(),
            error: error.clone(),
            failed_at: t,
        },
        SystemEvent::SyncStarted { pull: pull.clone(), topics: topics.clone(), started_at: t },
        SystemEvent::SyncCompleted { pull: pull.clone(), collections: vec![counts], started_at: t, completed_at: t },
        SystemEvent::SyncFailed {
            pull: pull.clone(),
            topics: topics.clone(),
            error: error.clone(),
            started_at: t,
            failed_at: t,
            next_pull_at: None,
        },
        SystemEvent::SyncHeld {
            pull: pull.id,
            collection: collection.clone(),
            records: 100,
            missing: 40,
            needs_approval: false,
            held_at: t,
        },
        SystemEvent::PollerStalled { collection, last_pull_at: Some(t), due_at: t, reason: "slow".into() },
        SystemEvent::WebhookExpiring {
            connection: connection.id,
            connector: "sandbox".into(),
            topics,
            expires_at: t,
            error: error.clone(),
        },
        SystemEvent::WebhookUrlChanged {
            integration: None,
            connection: Some(connection.id),
            connector: "sandbox".into(),
            webhooks: vec![paste],
        },
        SystemEvent::SubscriptionDisabled {
            subscription: subscription.clone(),
            reason: "gone".into(),
            failing_since: None,
            pending: 2,
        },
        SystemEvent::SubscriptionRecovered {
            subscription: subscription.clone(),
            failing_since: t,
            recovered_at: t,
            pending: 2,
        },
        SystemEvent::DeliveryDead {
            subscription,
            count: 1,
            delivery: DeliveryId([5; 12]),
            event: EventId([6; 12]),
            topic: "crm/contacts".into(),
            error: error.clone(),
            attempt_count: 10,
        },
        SystemEvent::DestinationPaused { destination: destination.clone(), error, paused_at: t },
        SystemEvent::DestinationResumed { destination, paused_since: t, resumed_at: t },
    ]
}

#[test]
fn every_system_event_says_what_its_schema_promises() {
    let events = one_of_each();
    for event in &events {
        let model = Catalogue::embedded().find(event.topic().as_str()).unwrap();
        let Ok(Value::Object(payload)) = serde_json::from_str(&event.payload()) else { unreachable!() };
        assert_eq!(model.check(&payload), vec![], "{}", event.topic());
    }
    assert_eq!(events.len(), SystemTopic::ALL.len());
}
