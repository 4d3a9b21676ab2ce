//! Bodies: an event as a receiver gets it, and a record as the API shows it, in each API version.
//!
//! Always true: JSON inside an event is spliced in as text and never parsed, so numbers keep their digits and a published
//! payload passes byte for byte; the keys of the contract are always there, null where there is nothing to say. The same
//! event, version and include give the same bytes. Not here: headers and signatures (`destinations`).

use super::event::{Event, Payload};
use super::id::{ConnectionId, EventId, UserId, WorkspaceNo};
use super::models::Model;
use super::subscription::Include;
use super::time::Millis;
use super::topic::{self, Kind};
use super::version::ApiVersion;

/// What bodies of custom topics carry when the subscription does not ask for anything: the ISV's own events have no other
/// place for it.
const CUSTOM_INCLUDE: &[Include] = &[Include::Topic, Include::EventId, Include::Username];

/// The body of a delivery: the contract's keys, then what `include` asks for, as one line of JSON.
pub fn render(event: &Event, id: EventId, version: ApiVersion, include: &[Include]) -> Vec<u8> {
    let previous = event.previous.as_ref().map_or(0, String::len);
    let mut body = Object::new(768 + payload_bytes(&event.payload) + previous);
    body.id("connectionId", event.connection.map(|id| id.to_string()));
    body.id("userId", event.user.map(|id| id.to_string()));
    body.text("updateType", event.update_type.as_deref());
    body.key("dataPayload");
    write_payload(&event.payload, version, &mut body.out);
    body.text("category", Some(topic::category(&event.topic)));
    body.text(app_key(version), event.app.as_deref());
    body.text("userName", event.user_name.as_deref());
    body.id("eventTimestamp", Some(event.happened_at.rfc3339_seconds()));
    let by_default = include.is_empty() && topic::kind(&event.topic) == Kind::Custom;
    let include = if by_default { CUSTOM_INCLUDE } else { include };
    // In the order of the table, each once, however it was asked for.
    for extra in Include::ALL.iter().filter(|extra| include.contains(extra)) {
        body.key(extra.text());
        write_extra(*extra, event, id, &mut body.out);
    }
    body.end()
}

/// A record as `GET /one/{category}/{model}` shows it: the `dataPayload` of its events.
pub fn record(payload: &Payload, version: ApiVersion) -> String {
    let mut out = String::with_capacity(payload_bytes(payload));
    write_payload(payload, version, &mut out);
    out
}

/// A made-up event of a built-in topic, as a receiver would get it: for `GET /one/topics/{category}/{model}`, samples of
/// hooks, and the docs.
pub fn example(model: &Model, version: ApiVersion) -> Vec<u8> {
    render(&example_event(model), EventId([0; 12]), version, &[])
}

/// The same before it is made into a body.
pub fn example_event(model: &Model) -> Event {
    let fields = serde_json::to_string(&model.example).unwrap_or_default();
    let (seen, happened) = (Millis(1_713_545_838_020), Millis(1_703_240_614_000));
    let payload = if model.system {
        Payload::Plain(fields)
    } else {
        Payload::Record {
            id: *uuid::uuid!("9b113ba8-20d7-4624-99bb-7e90522a6c5e").as_bytes(),
            remote_id: "0000019375".into(),
            remote_created_at: Some(happened),
            remote_updated_at: Some(happened),
            created_at: seen,
            updated_at: seen,
            deleted: false,
            fields,
        }
    };
    let update_type = if model.system { topic::model(&model.topic) } else { "updated" };
    // Subscriptions and their deliveries belong to no connection.
    let of_a_connection = model.example.contains_key("connectionId") || !model.system;
    Event {
        topic: model.topic.clone(),
        update_type: Some(update_type.to_owned()),
        connection: of_a_connection.then_some(EXAMPLE_CONNECTION),
        user: of_a_connection.then_some(EXAMPLE_USER),
        app: of_a_connection.then(|| example_app(&model.topic).to_owned()),
        user_name: of_a_connection.then(|| "Gregg's Account".to_owned()),
        username: of_a_connection.then(|| "gregg".to_owned()),
        ..Event::blank(WorkspaceNo::DEFAULT, payload, happened)
    }
}

const EXAMPLE_CONNECTION: ConnectionId = ConnectionId(*b"\x65\x87\x4b\xeb\xc8\x10\x00\x57\xbf\x8c\x2e\xe8");
const EXAMPLE_USER: UserId = UserId(*b"\x65\x87\x4b\xef\x60\x2d\xc2\xe7\x4d\x26\xd9\xfa");

fn example_app(topic_name: &str) -> &'static str {
    match topic::category(topic_name) {
        "commerce" => "Shopify",
        "accounting" => "NetSuite",
        _ => "HubSpot",
    }
}

/// `2024-03` says `app` where `2023-12` says `name`.
fn app_key(version: ApiVersion) -> &'static str {
    match version {
        ApiVersion::V2023_12 => "name",
        ApiVersion::V2024_03 => "app",
    }
}

fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Plain(text) => text.len(),
        Payload::Record { fields, .. } => 384 + fields.len(),
    }
}

fn write_payload(payload: &Payload, version: ApiVersion, out: &mut String) {
    let Payload::Record {
        id,
        remote_id,
        remote_created_at,
        remote_updated_at,
        created_at,
        updated_at,
        deleted,
        fields,
    } = payload
    else {
        if let Payload::Plain(text) = payload {
            out.push_str(text);
        }
        return;
    };
    let id = uuid::Uuid::from_bytes(*id).to_string();
    let mut record = Object { out: std::mem::take(out), is_empty: true };
    record.out.push('{');
    match version {
        ApiVersion::V2023_12 => {
            record.text("remoteId", Some(remote_id));
            // Receivers of this version know only numbers here, so what the app does not tell is when we saw it.
            record.number("createdTimestamp", remote_created_at.unwrap_or(*created_at).seconds());
            record.number("updatedTimestamp", remote_updated_at.unwrap_or(*updated_at).seconds());
            record.members(fields);
            record.id("id", Some(id));
        }
        ApiVersion::V2024_03 => {
            record.id("id", Some(id));
            record.text("remoteId", Some(remote_id));
            record.members(fields);
            record.id("remoteCreatedAt", remote_created_at.map(Millis::rfc3339_millis));
            record.id("remoteUpdatedAt", remote_updated_at.map(Millis::rfc3339_millis));
            record.id("createdAt", Some(created_at.rfc3339_millis()));
            record.id("updatedAt", Some(updated_at.rfc3339_millis()));
            record.key("remoteDeleted");
            record.out.push_str(if *deleted { "true" } else { "false" });
        }
    }
    record.out.push('}');
    *out = record.out;
}

fn write_extra(extra: Include, event: &Event, id: EventId, out: &mut String) {
    match extra {
        Include::ChangedFields => {
            out.push('[');
            for (at, path) in event.changed_fields.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_text(path, out);
            }
            out.push(']');
        }
        Include::Previous => write_previous(event, out),
        Include::Raw => out.push_str(event.raw.as_deref().unwrap_or("null")),
        Include::Topic => push_text(&event.topic, out),
        Include::EventId => push_text(&id.to_string(), out),
        Include::Username => match &event.username {
            Some(name) => push_text(name, out),
            None => out.push_str("null"),
        },
    }
}

/// The record before: its fields, and the ids, which do not change. Its times are not kept.
fn write_previous(event: &Event, out: &mut String) {
    let (Some(fields), Payload::Record { id, remote_id, .. }) = (&event.previous, &event.payload) else {
        out.push_str(event.previous.as_deref().unwrap_or("null"));
        return;
    };
    let mut previous = Object { out: std::mem::take(out), is_empty: true };
    previous.out.push('{');
    previous.id("id", Some(uuid::Uuid::from_bytes(*id).to_string()));
    previous.text("remoteId", Some(remote_id));
    previous.members(fields);
    previous.out.push('}');
    *out = previous.out;
}

/// A JSON object under way.
struct Object {
    out: String,
    is_empty: bool,
}

impl Object {
    fn new(bytes: usize) -> Self {
        let mut out = String::with_capacity(bytes);
        out.push('{');
        Self { out, is_empty: true }
    }
    fn end(mut self) -> Vec<u8> {
        self.out.push('}');
        self.out.into_bytes()
    }
    fn comma(&mut self) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(',');
        }
    }
    /// The key, one of ours: nothing in it needs escaping.
    fn key(&mut self, key: &str) {
        self.comma();
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }
    fn text(&mut self, key: &str, text: Option<&str>) {
        self.key(key);
        match text {
            Some(text) => push_text(text, &mut self.out),
            None => self.out.push_str("null"),
        }
    }
    /// Text of our own making: an id or a time.
    fn id(&mut self, key: &str, text: Option<String>) {
        self.text(key, text.as_deref());
    }
    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.out.push_str(&number.to_string());
    }
    /// The members of an object that is there as text.
    fn members(&mut self, object: &str) {
        let inner = object.trim().strip_prefix('{').and_then(|o| o.strip_suffix('}')).unwrap_or_default().trim();
        if !inner.is_empty() {
            self.comma();
            self.out.push_str(inner);
        }
    }
}

fn push_text(text: &str, out: &mut String) {
    // Text can always be written as JSON.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
