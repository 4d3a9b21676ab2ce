//! `POST /one/events`: the ISV's own events, forwarded like any other.
//!
//! Always true: of many events all are taken or none, and an error names the index; `dataPayload` goes out byte for byte
//! as it came in; a 202 means that the events are on disk. Not here: registering a topic (`topics`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::body;
use crate::api::call::{Call, not_found, user_of};
use crate::api::reply::Reply;
use crate::domain::connection::Connection;
use crate::domain::event::{Event, Payload, Source};
use crate::domain::id::{ConnectionId, EventId, WorkspaceNo};
use crate::domain::models::Catalogue;
use crate::domain::time::Millis;
use crate::domain::topic::{self, Kind};
use crate::domain::workspace::User;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

/// Events of one call.
const BATCH_MAX: usize = 1000;
/// The longest `updateType`, in bytes.
const UPDATE_TYPE_BYTES_MAX: usize = 64;

/// An event of the ISV's own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewEvent {
    /// A topic of `POST /one/topics`, or a built-in one that is not a system topic.
    topic: String,
    /// The user it is about: id or username. Left out: the connection's.
    #[serde(default)]
    user_id: Option<String>,
    /// The connection it is about.
    #[serde(default)]
    connection_id: Option<String>,
    /// `created`, `updated`, `deleted`, or a word of your own.
    #[serde(default)]
    update_type: Option<String>,
    /// A JSON object; it goes out byte for byte as it came in.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    data_payload: Box<RawValue>,
    /// RFC 3339. Left out: now.
    #[serde(default)]
    event_timestamp: Option<String>,
}

/// One event, or 1 to 1,000 of them, all or none.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it only describes the body: which of the two it is shows in its first byte")]
pub(super) enum NewEvents {
    One(NewEvent),
    Many(Vec<NewEvent>),
}

/// The ids of what was taken: `eventId` for one, `eventIds` for an array.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taken {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_ids: Option<Vec<String>>,
}

pub(super) async fn publish(call: Call) -> Result<Reply> {
    let many = call.body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let news = if many { body::read::<Vec<NewEvent>>(&call.body)? } else { vec![call.json::<NewEvent>()?] };
    if news.is_empty() || news.len() > BATCH_MAX {
        return Err(Error::invalid(format!("send 1 to {BATCH_MAX} events in one call")));
    }
    let (workspace, now) = (call.workspace()?, call.now());
    let events = call.read(move |rows| check_all(rows, workspace, news, many, now)).await?;
    for event in &events {
        let topic = if Catalogue::embedded().find(&event.topic).is_some() { event.topic.as_str() } else { "custom" };
        call.state.metrics.events.with([topic, update_type_label(event.update_type.as_deref())]).inc();
    }
    let (reply, ()) = call
        .accept(move |tx| {
            let ids = events.iter().map(|event| tx.append_event(event)).collect::<Result<Vec<EventId>>>()?;
            let mut ids = ids.iter().map(ToString::to_string);
            let taken = match many {
                true => Taken { event_ids: Some(ids.collect()), ..Taken::default() },
                false => Taken { event_id: ids.next(), ..Taken::default() },
            };
            Ok((Reply::json(&taken)?.with_status(202), ()))
        })
        .await?;
    call.state.rings.router();
    Ok(reply)
}

/// A label of few values, whatever callers send.
fn update_type_label(update_type: Option<&str>) -> &str {
    match update_type {
        Some(known @ ("created" | "updated" | "deleted")) => known,
        Some(_) => "other",
        None => "none",
    }
}

fn check_all(rows: &Rows, workspace: WorkspaceNo, news: Vec<NewEvent>, many: bool, now: Millis) -> Result<Vec<Event>> {
    let mut events = Vec::with_capacity(news.len());
    for (index, new) in news.into_iter().enumerate() {
        events.push(check(rows, workspace, new, now).map_err(|mut error| {
            if many {
                error.message = format!("event {index}: {}", error.message);
            }
            error
        })?);
    }
    Ok(events)
}

fn check(rows: &Rows, workspace: WorkspaceNo, new: NewEvent, now: Millis) -> Result<Event> {
    check_topic(rows, workspace, &new.topic)?;
    if !new.data_payload.get().starts_with('{') {
        return Err(Error::invalid("dataPayload: use a JSON object"));
    }
    if new.update_type.as_ref().is_some_and(|t| t.is_empty() || t.len() > UPDATE_TYPE_BYTES_MAX) {
        return Err(Error::invalid(format!("updateType: use 1 to {UPDATE_TYPE_BYTES_MAX} bytes")));
    }
    let connection = match new.connection_id.as_deref() {
        Some(text) => Some(connection_of(rows, workspace, text)?),
        None => None,
    };
    let user = match (new.user_id.as_deref(), &connection) {
        (Some(text), _) => Some(user_of(rows, workspace, text)?),
        (None, Some(connection)) => rows.user_by_id(workspace, connection.user)?,
        (None, None) => None,
    };
    if let (Some(user), Some(connection)) = (&user, &connection)
        && user.id != connection.user
    {
        return Err(Error::invalid("connectionId: this connection belongs to another user"));
    }
    let happened_at = match new.event_timestamp.as_deref() {
        Some(text) => Millis::parse_rfc3339(text)
            .ok_or_else(|| Error::invalid("eventTimestamp: use RFC 3339, such as 2024-04-19T16:57:18Z"))?,
        None => now,
    };
    let payload = Payload::Plain(new.data_payload.get().to_owned());
    Ok(Event {
        topic: new.topic,
        update_type: new.update_type,
        connection: connection.as_ref().map(|c| c.id),
        user: user.as_ref().map(|u| u.id),
        app: connection.map(|c| c.app),
        user_name: user.as_ref().map(|u| u.display_name().to_owned()),
        username: user.map(|u: User| u.username),
        happened_at,
        source: Source::Published,
        ..Event::blank(workspace, payload, now)
    })
}

fn check_topic(rows: &Rows, workspace: WorkspaceNo, text: &str) -> Result<()> {
    if topic::kind(text) == Kind::System {
        return Err(Error::new(Code::UnknownTopic, format!("topic: {text} is sent by the engine only")));
    }
    if Catalogue::embedded().data(text).is_some() || rows.custom_topic(workspace, text)?.is_some() {
        return Ok(());
    }
    let names: Vec<&str> = Catalogue::embedded().models().iter().map(|m| m.topic.as_str()).collect();
    let near = topic::near(text, &names);
    let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) };
    let message = format!("topic: {text:?} is not known; register it with POST /one/topics{hint}");
    Err(Error::new(Code::UnknownTopic, message))
}

fn connection_of(rows: &Rows, workspace: WorkspaceNo, text: &str) -> Result<Connection> {
    let missing = || not_found(Code::ConnectionNotFound, text);
    let id: ConnectionId = text.parse().map_err(|_| missing())?;
    rows.connection(workspace, id)?.ok_or_else(missing)
}
