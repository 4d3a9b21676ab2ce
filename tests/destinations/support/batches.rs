//! Batches of made-up events.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill::destinations::driver::{Batch, Item, Probe};
use tidemill::domain::body;
use tidemill::domain::destination::Shape;
use tidemill::domain::event::{Event, Payload};
use tidemill::domain::id::{ConnectionId, EventId, Seq, UserId, WorkspaceNo};
use tidemill::domain::record::record_id;
use tidemill::domain::subscription::Include;
use tidemill::domain::time::Millis;
use tidemill::domain::version::ApiVersion;

use super::DESTINATION;

/// The connection of all of them.
pub const CONNECTION: ConnectionId = ConnectionId([0xc0; 12]);
/// 2026-03-01T12:00:00Z.
pub const THEN: Millis = Millis(1_772_366_400_000);

/// An event of a record at a position of the log. `fields` are unified ones of the topic's model.
pub fn event(topic: &str, update_type: &str, remote_id: &str, fields: Value) -> Event {
    let id = record_id(CONNECTION, topic, remote_id).into_bytes();
    let payload = Payload::Record {
        id,
        remote_id: remote_id.to_owned(),
        remote_created_at: Some(THEN),
        remote_updated_at: Some(THEN),
        created_at: THEN,
        updated_at: THEN,
        deleted: update_type == "deleted",
        fields: fields.to_string(),
    };
    Event {
        topic: topic.to_owned(),
        update_type: Some(update_type.to_owned()),
        connection: Some(CONNECTION),
        user: Some(UserId([0xe0; 12])),
        app: Some("HubSpot".to_owned()),
        user_name: Some("Acme".to_owned()),
        username: Some("acme".to_owned()),
        changed_fields: if update_type == "updated" { vec!["firstName".to_owned()] } else { Vec::new() },
        previous: (update_type == "updated").then(|| json!({"firstName": "Before"}).to_string()),
        raw: Some(json!({"properties": {"firstname": "Raw"}}).to_string()),
        ..Event::blank(WorkspaceNo::DEFAULT, payload, THEN)
    }
}

/// A contact's event.
pub fn contact(update_type: &str, remote_id: &str, first_name: &str) -> Event {
    event("crm/contacts", update_type, remote_id, json!({"firstName": first_name, "lastName": "Doe"}))
}

/// An event of a custom topic whose payload is this text, byte for byte.
pub fn custom(topic: &str, payload: &str) -> Event {
    Event {
        topic: topic.to_owned(),
        update_type: Some("updated".to_owned()),
        ..Event::blank(WorkspaceNo::DEFAULT, Payload::Plain(payload.to_owned()), THEN)
    }
}

/// Batch `number` of lane 1, of these events, which stand in the log from `from` on.
pub fn batch(number: u64, shape: Shape, from: u64, events: Vec<Event>) -> Batch {
    let include: Arc<[Include]> = [Include::ChangedFields, Include::Previous, Include::Raw].into();
    let items = events.into_iter().enumerate().map(|(place, event)| {
        let seq = Seq(from + place as u64);
        let id = EventId::new(seq, WorkspaceNo::DEFAULT);
        let payload = body::record(&event.payload, ApiVersion::V2024_03);
        Item { delivery: seq, id, seq, event: Arc::new(event), payload: payload.into() }
    });
    let id = format!("{:08x}-{number:016x}", 1);
    Batch { id, destination: DESTINATION, shape, items: items.collect(), include, version: ApiVersion::V2024_03 }
}

/// `rows` contacts, created, with remote ids `{from}` and on.
pub fn contacts(number: u64, from: u64, rows: u64) -> Batch {
    let created = |n: u64| contact("created", &n.to_string(), &format!("First {n}"));
    batch(number, Shape::Append, from, (from..from + rows).map(created).collect())
}

/// What a test of a destination is given.
pub fn probe(shape: Shape) -> Probe {
    Probe { shape, batch: batch(1, shape, 1, vec![contact("created", "probe", "Probe")]) }
}
