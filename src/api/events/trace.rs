//! `GET /one/events/{id}`: one event with its trace: source → event → deliveries → attempts.
//!
//! Always true: nothing is searched for. The event's id is its place in the log; it names its webhook or pull; its
//! delivery in a lane has its own place, and those that were asked for again have rows under it. So a trace is a bounded
//! number of reads; what is past its time is left out of it.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{EventView, view};
use crate::actors::courier::Flights;
use crate::api::call::{Call, not_found};
use crate::api::connections::{PullView, WebhookView};
use crate::api::deliveries::{self, DeliveryView};
use crate::api::reply::Reply;
use crate::domain::body;
use crate::domain::event::{Event, Source};
use crate::domain::id::{EventId, Seq, WorkspaceNo};
use crate::domain::subscription::Include;
use crate::domain::version::ApiVersion;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

#[derive(Serialize, JsonSchema)]
pub(super) struct OneEvent {
    event: TracedEvent,
}

/// An event with its trace.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TracedEvent {
    #[serde(flatten)]
    event: EventView,
    /// What a subscriber of this version gets, with all that `include` may add.
    #[schemars(with = "serde_json::Value")]
    body: Box<RawValue>,
    /// The app's webhook that told of it, while that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<WebhookView>,
    /// The look at the app that found it, while that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pull: Option<PullView>,
    /// To each subscription the first, then those that were asked for again; at most 250.
    deliveries: Vec<DeliveryView>,
    /// There are more deliveries: list them by subscription.
    more_deliveries: bool,
}

pub(super) async fn show(call: Call) -> Result<Reply> {
    let id: EventId = call.id("eventId", Code::EventNotFound)?;
    let (workspace, version) = (call.workspace()?, call.version);
    let durable = *call.state.store.durable().borrow();
    let flights = call.state.outlet.flights.clone();
    let event = call.read(move |rows| trace(rows, &flights, workspace, id, version, durable)).await?;
    Reply::json(&OneEvent { event })
}

fn trace(
    rows: &Rows,
    flights: &Flights,
    workspace: WorkspaceNo,
    id: EventId,
    version: ApiVersion,
    durable: Seq,
) -> Result<TracedEvent> {
    let missing = || not_found(Code::EventNotFound, &id.to_string());
    let (seq, _) = id.parts();
    let event = rows.event_by_id(workspace, id)?.filter(|_| seq <= durable).ok_or_else(missing)?;
    let text = String::from_utf8(body::render(&event, id, version, &Include::ALL)).map_err(Error::internal)?;
    let (webhook, pull) = source(rows, &event)?;
    let (deliveries, more_deliveries) = deliveries::of_event(rows, flights, (seq, &event))?;
    Ok(TracedEvent {
        event: view(seq, &event),
        body: RawValue::from_string(text).map_err(Error::internal)?,
        webhook,
        pull,
        deliveries,
        more_deliveries,
    })
}

fn source(rows: &Rows, event: &Event) -> Result<(Option<WebhookView>, Option<PullView>)> {
    let Some(connection) = event.connection else { return Ok((None, None)) };
    Ok(match &event.source {
        Source::Webhook(id) => (rows.inbox_row(&connection.0, *id)?.map(|row| WebhookView::of(&row)), None),
        Source::Poll(id) | Source::Scan(id) => (None, rows.pull(connection, *id)?.map(PullView::of)),
        Source::Published | Source::Engine => (None, None),
    })
}
