//! `/one/deliveries`: what subscriptions were owed, what was tried, what came of it; once more, please, and no more of it.
//!
//! Always true: a list looks at a bounded number of rows, so a page may be short while `next` is present; newest first.
//! Not here: the walk over lanes (`walk`), replays.

mod cancel;
mod curl;
mod export;
mod walk;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::curl::Curl;
use self::walk::{Filter, Hit, Place, Status};
use super::call::{Call, not_found, user_of};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use crate::actors::courier::Flights;
use crate::domain::delivery::{Attempt, AttemptError, DeliveryState};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, DeliveryId, EventId, Seq, SubscriptionId, WorkspaceNo};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::domain::workspace::Scope;
use crate::error::{Code, Error, Result};
use crate::store::{Care, DeliveryRow, Rows, Tx};

/// Deliveries shown of one event, and of those asked for again in one lane.
const OF_EVENT_MAX: usize = 250;

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
pub(super) struct DeliveryView {
    delivery_id: String,
    subscription_id: String,
    event_id: String,
    /// Null once the event is past its retention.
    topic: Option<String>,
    status: &'static str,
    /// Why it was cancelled, where nobody asked for that: `erased`, its event was.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<&'static str>,
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
    /// A shell's line that repeats the last attempt, with signatures of now. The subscription's own headers and its
    /// `auth` are `***`, and so are signatures to a key without the scope `write`.
    #[serde(skip_serializing_if = "Option::is_none")]
    curl: Option<String>,
    /// What belongs into `body.json` of that line, where the body is too long to stand in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    curl_body: Option<String>,
}

impl DeliveryView {
    /// A word of `status`.
    pub(super) fn status(&self) -> &'static str {
        self.status
    }
    /// Code and sentence.
    pub(super) fn last_error(&self) -> Option<(&'static str, &'static str)> {
        self.last_error.as_ref().map(|error| (error.code, error.message))
    }
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

/// A body without fields.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

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
        Route::get("/{version}/one/deliveries/export", "Dead letters as lines of JSON", export::export)
            .query(export::PARAMS)
            .query(FILTERS)
            .gives::<export::Line>()
            .content_type(export::CONTENT_TYPE),
        Route::get(one, "Show a delivery with its attempts", show).gives::<OneDelivery>(),
        Route::post("/{version}/one/deliveries/{deliveryId}/resend", "Send the same event once more", resend)
            .gives::<OneDelivery>(),
        Route::post("/{version}/one/deliveries/{deliveryId}/cancel", "Try it no more", cancel::one)
            .takes::<Nothing>()
            .gives::<OneDelivery>(),
        Route::post("/{version}/one/webhooks/{subscriptionId}/deliveries/cancel", "Cancel what waits", cancel::some)
            .query(&[Param { name: "cursor", about: "The `next` of the call before." }])
            .takes::<cancel::Cancel>()
            .gives::<cancel::Cancelled>(),
    ];
    group("deliveries", routes)
}

fn view(hit: &Hit<'_>, whole: bool) -> DeliveryView {
    let Hit { id, row, status, event, subscription } = hit;
    let dead = match row.state {
        DeliveryState::Dead { cause, .. } => cause.error(),
        _ => None,
    };
    let last = row.attempts.last().and_then(|attempt| attempt.error).or(dead);
    let due = match row.state {
        DeliveryState::Due { at, .. } if *status != Status::InFlight => Some(at),
        _ => None,
    };
    DeliveryView {
        delivery_id: id.to_string(),
        subscription_id: subscription.id.to_string(),
        event_id: EventId::new(row.event, subscription.workspace).to_string(),
        topic: event.as_ref().map(|event| event.topic.clone()),
        status: status.text(),
        status_reason: matches!(row.state, DeliveryState::Erased { .. }).then_some("erased"),
        attempt_count: row.attempts.len(),
        next_attempt_at: due.map(Millis::rfc3339_millis),
        last_error: last.map(ErrorView::of),
        replay: row.replay,
        created_at: row.made_at.rfc3339_millis(),
        attempts: whole.then(|| row.attempts.iter().map(attempt_view).collect()),
        curl: None,
        curl_body: None,
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
    let (of, user, filter) = asked_of(&call)?;
    let flights = call.state.outlet.flights.clone();
    let read = move |rows: &Rows| {
        let (lanes, filter) = lanes_of(rows, workspace, of, user, filter)?;
        let found = walk::page(rows, &flights, &lanes, &filter, place, page.limit)?;
        let deliveries = found.hits.iter().map(|hit| view(hit, false)).collect();
        Reply::json(&Deliveries { deliveries, next: found.next.map(|place| paging::next(place.id().0)) })
    };
    call.read(read).await
}

/// What a call narrows a list to: the subscription, the user as the caller names it, and all else.
fn asked_of(call: &Call) -> Result<(Option<SubscriptionId>, Option<String>, Filter)> {
    let of = call.query_id::<SubscriptionId>("subscriptionId", Code::SubscriptionNotFound)?;
    let filter = Filter {
        status: call.query("status").map(Status::read).transpose()?,
        topic: call.query("topic").map(str::to_owned),
        connection: call.query_id::<ConnectionId>("connectionId", Code::ConnectionNotFound)?,
        user: None,
        remote_id: call.query("remoteId").map(str::to_owned),
        from: call.query_time("from")?,
        to: call.query_time("to")?,
    };
    Ok((of, call.query("userId").map(str::to_owned), filter))
}

/// The subscriptions whose lanes are walked over, and the filter with its user.
fn lanes_of(
    rows: &Rows,
    workspace: WorkspaceNo,
    of: Option<SubscriptionId>,
    user: Option<String>,
    mut filter: Filter,
) -> Result<(Vec<Subscription>, Filter)> {
    filter.user = user.map(|text| user_of(rows, workspace, &text)).transpose()?.map(|user| user.id);
    let lanes = match of {
        Some(id) => vec![find_subscription(rows, workspace, id)?],
        None => rows.subscriptions(workspace, None, walk::LANES_MAX)?.items,
    };
    Ok((lanes, filter))
}

fn find_subscription(rows: &Rows, workspace: WorkspaceNo, id: SubscriptionId) -> Result<Subscription> {
    rows.subscription(workspace, id)?.ok_or_else(|| not_found(Code::SubscriptionNotFound, &id.to_string()))
}

/// The deliveries of one event with their attempts: of each subscription the first, then those that were asked for
/// again. And whether there are more than are shown.
pub(super) fn of_event(
    rows: &Rows,
    flights: &Flights,
    (at, event): (Seq, &Event),
) -> Result<(Vec<DeliveryView>, bool)> {
    let (mut shown, record) = (Vec::new(), event.record_key());
    for subscription in rows.subscriptions(event.workspace, None, walk::LANES_MAX)?.items {
        let again = rows.resends(subscription.lane, at, OF_EVENT_MAX)?;
        for seq in std::iter::once(at).chain(again) {
            let Some(row) = rows.delivery_of(subscription.lane, seq, record.as_ref())? else { continue };
            if shown.len() == OF_EVENT_MAX {
                return Ok((shown, true));
            }
            let hit = Hit::new(flights, &subscription, seq, row, Some(event.clone()));
            shown.push(view(&hit, true));
        }
    }
    Ok((shown, false))
}

/// The newest delivery of an event to a subscription: the last that was asked for again, else the first.
pub(super) fn newest(
    rows: &Rows,
    flights: &Flights,
    to: &Subscription,
    (at, event): (Seq, &Event),
) -> Result<Option<DeliveryView>> {
    let seq = rows.resends(to.lane, at, OF_EVENT_MAX)?.pop().unwrap_or(at);
    let row = rows.delivery_of(to.lane, seq, event.record_key().as_ref())?;
    Ok(row.map(|row| view(&Hit::new(flights, to, seq, row, Some(event.clone())), false)))
}

/// The subscription that a delivery is owed to, if it is in this workspace.
fn owner(rows: &Rows, workspace: WorkspaceNo, id: DeliveryId) -> Result<Subscription> {
    let subscription = rows.subscription_by_lane(id.parts().1)?.filter(|s| s.workspace == workspace);
    subscription.ok_or_else(|| not_found(Code::DeliveryNotFound, &id.to_string()))
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, call.id::<DeliveryId>("deliveryId", Code::DeliveryNotFound)?);
    let signs = call.caller.as_ref().is_some_and(|caller| caller.key.allows(Scope::Write));
    let (outlet, prefix) = (call.state.outlet.clone(), call.state.options.header_prefix.clone());
    let read = move |rows: &Rows| {
        let subscription = owner(rows, workspace, id)?;
        let hit = Hit::find(rows, &outlet.flights, &subscription, id.parts().0)?;
        let hit = hit.ok_or_else(|| not_found(Code::DeliveryNotFound, &id.to_string()))?;
        let mut delivery = view(&hit, true);
        // Into a destination it leaves in a batch, which is nothing to type.
        if subscription.destination.is_none()
            && let Some(parcel) = outlet.repeat(subscription.lane, id.parts().0, &hit.row)?
        {
            let curl = Curl::of(parcel, &prefix, signs)?;
            (delivery.curl, delivery.curl_body) = (Some(curl.line), curl.body);
        }
        Reply::json(&OneDelivery { delivery })
    };
    call.read(read).await
}

async fn resend(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, call.id::<DeliveryId>("deliveryId", Code::DeliveryNotFound)?);
    let flights = call.state.outlet.flights.clone();
    let change = move |tx: &mut Tx<'_>| {
        let missing = || not_found(Code::DeliveryNotFound, &id.to_string());
        let to = owner(tx, workspace, id)?;
        let mut hit = Hit::find(tx, &flights, &to, id.parts().0)?.ok_or_else(missing)?;
        let Some(record) = hit.event.as_ref().map(|event| Care::of(&to).record(event)) else {
            return Err(Error::new(
                Code::EventNotFound,
                "the event is past its retention or was erased, and cannot be sent again",
            ));
        };
        let (event, now) = (hit.row.event, tx.now());
        hit.id = tx.put_resend(to.lane, Care::of(&to), event, record)?;
        let state = DeliveryState::Due { at: now, tries: 0, attempts: 0 };
        hit.row = DeliveryRow { event, made_at: now, replay: true, state, attempts: Vec::new() };
        hit.status = Status::Pending;
        Ok((Reply::json(&OneDelivery { delivery: view(&hit, true) })?, to.lane))
    };
    let (reply, lane) = call.change(change).await?;
    call.state.rings.lane(lane);
    Ok(reply)
}
