//! `/one/deliveries`: what subscriptions were owed, what was tried, what came of it; and once more, please.
//!
//! Always true: a list looks at a bounded number of rows, so a page may be short while `next` is present; newest first.
//! Not here: the walk over lanes (`walk`), replays.

mod walk;

use schemars::JsonSchema;
use serde::Serialize;

use self::walk::{Filter, Place, Status};
use super::call::{Call, not_found, user_of};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use crate::domain::delivery::{Attempt, AttemptError, DeliveryState};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, DeliveryId, EventId, SubscriptionId, WorkspaceNo};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};
use crate::store::{Care, DeliveryRow, Rows, Tx};

/// Why something failed.
#[derive(Serialize, JsonSchema)]
struct ErrorView {
    code: &'static str,
    message: &'static str,
}

impl ErrorView {
    fn of(error: AttemptError) -> Self {
        Self { code: error.slug(), message: error.sentence() }
    }
}

/// One try.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct AttemptView {
    at: String,
    /// The whole exchange.
    duration_ms: u32,
    /// Of the answer; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Absent if the attempt was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    /// The beginning of the answer's body; only of attempts that failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    answer: String,
    /// The answer was longer than what is read of it.
    body_cut: bool,
}

/// One event owed to one subscription.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DeliveryView {
    delivery_id: String,
    subscription_id: String,
    event_id: String,
    /// Null once the event is past its retention.
    topic: Option<String>,
    status: &'static str,
    attempt_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<ErrorView>,
    /// Somebody asked for it again.
    replay: bool,
    created_at: String,
    /// Only where one delivery is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView>>,
}

#[derive(Serialize, JsonSchema)]
struct OneDelivery {
    delivery: DeliveryView,
}

#[derive(Serialize, JsonSchema)]
struct Deliveries {
    deliveries: Vec<DeliveryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

const FILTERS: &[Param] = &[
    Param { name: "subscriptionId", about: "Of this subscription." },
    Param { name: "status", about: "pending, inFlight, retrying, delivered, dead, cancelled or superseded." },
    Param { name: "topic", about: "Of this topic." },
    Param { name: "connectionId", about: "Of this connection's events." },
    Param { name: "userId", about: "Of this user's events: id or username." },
    Param { name: "remoteId", about: "Of the record with this id at its app." },
    Param { name: "from", about: "Made at or after this time (RFC 3339)." },
    Param { name: "to", about: "Made before this time (RFC 3339)." },
];

pub(super) fn routes() -> Vec<Route> {
    let one = "/{version}/one/deliveries/{deliveryId}";
    let routes = vec![
        Route::get("/{version}/one/deliveries", "List deliveries", list)
            .query(PAGED)
            .query(FILTERS)
            .gives::<Deliveries>(),
        Route::get(one, "Show a delivery with its attempts", show).gives::<OneDelivery>(),
        Route::post("/{version}/one/deliveries/{deliveryId}/resend", "Send the same event once more", resend)
            .gives::<OneDelivery>(),
    ];
    group("deliveries", routes)
}

fn view(id: DeliveryId, row: &DeliveryRow, event: Option<&Event>, to: &Subscription, whole: bool) -> DeliveryView {
    let dead = match row.state {
        DeliveryState::Dead { cause, .. } => cause.error(),
        _ => None,
    };
    let last = row.attempts.last().and_then(|attempt| attempt.error).or(dead);
    let due = match row.state {
        DeliveryState::Due { at, .. } => Some(at),
        _ => None,
    };
    DeliveryView {
        delivery_id: id.to_string(),
        subscription_id: to.id.to_string(),
        event_id: EventId::new(row.event, to.workspace).to_string(),
        topic: event.map(|event| event.topic.clone()),
        status: Status::of(&row.state).text(),
        attempt_count: row.attempts.len(),
        next_attempt_at: due.map(Millis::rfc3339_millis),
        last_error: last.map(ErrorView::of),
        replay: row.replay,
        created_at: row.made_at.rfc3339_millis(),
        attempts: whole.then(|| row.attempts.iter().map(attempt_view).collect()),
    }
}

fn attempt_view(attempt: &Attempt) -> AttemptView {
    AttemptView {
        at: attempt.at.rfc3339_millis(),
        duration_ms: attempt.duration_ms,
        status: attempt.status,
        error: attempt.error.map(ErrorView::of),
        answer: attempt.answer.clone(),
        body_cut: attempt.body_cut,
    }
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of(&call)?);
    let place = page.before_exactly::<12>()?.map(|bytes| Place::of(DeliveryId(bytes)));
    let of = call.query_id::<SubscriptionId>("subscriptionId", Code::SubscriptionNotFound)?;
    let user = call.query("userId").map(str::to_owned);
    let mut filter = Filter {
        status: call.query("status").map(Status::read).transpose()?,
        topic: call.query("topic").map(str::to_owned),
        connection: call.query_id::<ConnectionId>("connectionId", Code::ConnectionNotFound)?,
        user: None,
        remote_id: call.query("remoteId").map(str::to_owned),
        from: call.query_time("from")?,
        to: call.query_time("to")?,
    };
    let read = move |rows: &Rows| {
        filter.user = user.map(|text| user_of(rows, workspace, &text)).transpose()?.map(|user| user.id);
        let lanes = match of {
            Some(id) => vec![find_subscription(rows, workspace, id)?],
            None => rows.subscriptions(workspace, None, walk::LANES_MAX)?.items,
        };
        let found = walk::page(rows, &lanes, &filter, place, page.limit)?;
        let show = |hit: &walk::Hit<'_>| view(hit.id, &hit.row, hit.event.as_ref(), hit.subscription, false);
        let deliveries = found.hits.iter().map(show).collect();
        Reply::json(&Deliveries { deliveries, next: found.next.map(|place| paging::next(place.id().0)) })
    };
    call.read(read).await
}

fn find_subscription(rows: &Rows, workspace: WorkspaceNo, id: SubscriptionId) -> Result<Subscription> {
    rows.subscription(workspace, id)?.ok_or_else(|| not_found(Code::SubscriptionNotFound, &id.to_string()))
}

/// A delivery with its subscription, if that is in this workspace.
fn find(rows: &Rows, workspace: WorkspaceNo, id: DeliveryId) -> Result<(DeliveryRow, Subscription)> {
    let missing = || not_found(Code::DeliveryNotFound, &id.to_string());
    let (seq, lane) = id.parts();
    let subscription = rows.subscription_by_lane(lane)?.filter(|s| s.workspace == workspace).ok_or_else(missing)?;
    let row = rows.delivery(lane, seq)?.ok_or_else(missing)?;
    Ok((row, subscription))
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, call.id::<DeliveryId>("deliveryId", Code::DeliveryNotFound)?);
    let read = move |rows: &Rows| {
        let (row, to) = find(rows, workspace, id)?;
        let event = rows.event(row.event)?;
        Reply::json(&OneDelivery { delivery: view(id, &row, event.as_ref(), &to, true) })
    };
    call.read(read).await
}

async fn resend(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, call.id::<DeliveryId>("deliveryId", Code::DeliveryNotFound)?);
    let change = move |tx: &mut Tx<'_>| {
        let (row, to) = find(tx, workspace, id)?;
        let Some(event) = tx.event(row.event)? else {
            return Err(Error::new(Code::EventNotFound, "the event is past its retention and cannot be sent again"));
        };
        let care = Care::of(&to);
        let (fresh, now) = (tx.put_resend(to.lane, care, row.event, care.record(&event))?, tx.now());
        let state = DeliveryState::Due { at: now, tries: 0, attempts: 0 };
        let made = DeliveryRow { event: row.event, made_at: now, replay: true, state, attempts: Vec::new() };
        let delivery = view(fresh, &made, Some(&event), &to, true);
        Ok((Reply::json(&OneDelivery { delivery })?, to.lane))
    };
    let (reply, lane) = call.change(change).await?;
    call.state.rings.lane(lane);
    Ok(reply)
}
