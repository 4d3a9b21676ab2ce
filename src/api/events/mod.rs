//! `/one/events`: the log, one event with its trace (`trace`), and publishing (`publish`).
//!
//! Always true: nothing is shown that a crash could still take back; a list looks at a bounded number of rows, so a page
//! may be short while `next` is present; newest first. Not here: deliveries by themselves (`deliveries`).

mod publish;
mod stream;
mod trace;

use schemars::JsonSchema;
use serde::Serialize;

use super::call::Call;
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use crate::domain::event::{Event, Payload, Source};
use crate::domain::id::{ConnectionId, EventId, Seq, WorkspaceNo};
use crate::domain::record::record_id;
use crate::domain::time::Millis;
use crate::error::{Code, Result};
use crate::store::Rows;

pub use self::stream::{Limits as StreamLimits, Streams};

/// Rows looked at for one page.
const LOOKED_AT_MAX: usize = 2000;

/// An event of the log.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView {
    event_id: String,
    topic: String,
    update_type: Option<String>,
    user_id: Option<String>,
    connection_id: Option<String>,
    /// When it happened at the app if known, else when it was seen.
    event_timestamp: String,
    /// When the node took it in.
    accepted_at: String,
    /// The record's id at its app.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_id: Option<String>,
    /// Dotted paths; only of an update.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed_fields: Vec<String>,
    source: SourceView,
}

/// How the engine came to know.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SourceView {
    /// `webhook`, `poll`, `scan`, `published` or `engine`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    inbox_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Events {
    events: Vec<EventView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

const FILTERS: &[Param] = &[
    Param { name: "topic", about: "Of this topic." },
    Param { name: "connectionId", about: "Of this connection." },
    Param { name: "remoteId", about: "Of the record with this id at its app; with connectionId and topic." },
    Param { name: "from", about: "Taken in at or after this time (RFC 3339)." },
    Param { name: "to", about: "Taken in before this time (RFC 3339)." },
];

pub(super) fn routes() -> Vec<Route> {
    let all = "/{version}/one/events";
    let routes = vec![
        Route::post(all, "Publish one event, or up to 1,000, all or none", publish::publish)
            .takes::<publish::NewEvents>()
            .gives::<publish::Taken>()
            .status(202),
        Route::get(all, "List events", list).query(PAGED).query(FILTERS).gives::<Events>(),
        Route::get("/{version}/one/events/stream", "Follow the log as server-sent events", stream::stream)
            .query(stream::PARAMS)
            .gives::<String>()
            .content_type(stream::CONTENT_TYPE),
        Route::get("/{version}/one/events/{eventId}", "Show an event with its trace", trace::show)
            .gives::<trace::OneEvent>(),
    ];
    group("events", routes)
}

/// What a list is narrowed to.
struct Filter {
    topic: Option<String>,
    connection: Option<ConnectionId>,
    remote_id: Option<String>,
    from: Option<Millis>,
    to: Option<Millis>,
}

impl Filter {
    fn of(call: &Call) -> Result<Self> {
        Ok(Self {
            topic: call.query("topic").map(str::to_owned),
            connection: call.query_id("connectionId", Code::ConnectionNotFound)?,
            remote_id: call.query("remoteId").map(str::to_owned),
            from: call.query_time("from")?,
            to: call.query_time("to")?,
        })
    }
    fn takes(&self, event: &Event) -> bool {
        let remote = match &event.payload {
            Payload::Record { remote_id, .. } => Some(remote_id),
            Payload::Plain(_) => None,
        };
        self.topic.as_ref().is_none_or(|t| *t == event.topic)
            && self.connection.is_none_or(|c| event.connection == Some(c))
            && self.remote_id.as_ref().is_none_or(|r| remote == Some(r))
            && self.from.is_none_or(|at| event.accepted_at >= at)
            && self.to.is_none_or(|at| event.accepted_at < at)
    }
}

async fn list(call: Call) -> Result<Reply> {
    let (paging, filter, workspace) = (Paging::of(&call)?, Filter::of(&call)?, call.workspace()?);
    let durable = *call.state.store.durable().borrow();
    let before = paging.before_exactly::<8>()?.map(|bytes| Seq(u64::from_be_bytes(bytes)));
    let before = before.map_or(durable.next(), |seq| seq.min(durable.next()));
    let page = call.read(move |rows| find(rows, workspace, &filter, before, paging.limit)).await?;
    Reply::json(&page)
}

fn find(rows: &Rows, workspace: WorkspaceNo, filter: &Filter, before: Seq, limit: usize) -> Result<Events> {
    let by_record = match (filter.connection, &filter.topic, &filter.remote_id) {
        (Some(connection), Some(topic), Some(remote)) => {
            Some((connection, record_id(connection, topic, remote).into_bytes()))
        }
        _ => None,
    };
    let seqs = match by_record {
        Some((connection, record)) => rows.record_events(connection, &record, Some(before), LOOKED_AT_MAX)?,
        None => rows.workspace_events(workspace, Some(before), LOOKED_AT_MAX)?,
    };
    let mut events = Vec::new();
    let mut last = None;
    let whole = seqs.len() < LOOKED_AT_MAX;
    for seq in seqs {
        if events.len() == limit {
            let next = last.map(|seq: Seq| paging::next(seq.0.to_be_bytes()));
            return Ok(Events { events, next });
        }
        last = Some(seq);
        if let Some(event) = rows.event(seq)?.filter(|e| e.workspace == workspace && filter.takes(e)) {
            events.push(view(seq, &event));
        }
    }
    let next = last.filter(|_| !whole).map(|seq| paging::next(seq.0.to_be_bytes()));
    Ok(Events { events, next })
}

pub(super) fn view(seq: Seq, event: &Event) -> EventView {
    let (kind, inbox_id, pull_id) = match &event.source {
        Source::Webhook(id) => ("webhook", Some(id.to_string()), None),
        Source::Poll(id) => ("poll", None, Some(id.to_string())),
        Source::Scan(id) => ("scan", None, Some(id.to_string())),
        Source::Published => ("published", None, None),
        Source::Engine => ("engine", None, None),
    };
    let remote_id = match &event.payload {
        Payload::Record { remote_id, .. } => Some(remote_id.clone()),
        Payload::Plain(_) => None,
    };
    EventView {
        event_id: EventId::new(seq, event.workspace).to_string(),
        topic: event.topic.clone(),
        update_type: event.update_type.clone(),
        user_id: event.user.map(|u| u.to_string()),
        connection_id: event.connection.map(|c| c.to_string()),
        event_timestamp: event.happened_at.rfc3339_millis(),
        accepted_at: event.accepted_at.rfc3339_millis(),
        remote_id,
        changed_fields: event.changed_fields.clone(),
        source: SourceView { kind, inbox_id, pull_id },
    }
}
