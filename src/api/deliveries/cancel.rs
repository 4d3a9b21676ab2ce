//! Cancelling what waits: one delivery, or those of a subscription that fit a filter.
//!
//! Always true: an attempt under way is left to end, and its delivery is not cancelled; a call looks at a bounded number
//! of deliveries and says where to go on; what comes in after the call began is left alone. Not here: replays, which
//! cancel what they have made (`actors::replayer`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::walk::{Filter, Hit, Status};
use super::{OneDelivery, find_subscription, owner, view};
use crate::actors::courier::Flights;
use crate::api::call::{Call, not_found};
use crate::api::paging::{self, Paging};
use crate::api::reply::Reply;
use crate::domain::delivery::DeliveryState;
use crate::domain::id::{ConnectionId, DeliveryId, LaneNo, SubscriptionId};
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};
use crate::store::{DeliveryRow, Due, OwedMark, Rows, Tx};

/// Deliveries looked at in one step, and in one call.
const STEP: usize = 500;
const STEPS_MAX: usize = 40;

/// Which of the waiting deliveries; all of them if nothing is named.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Cancel {
    /// Of this topic.
    #[serde(default)]
    topic: Option<String>,
    /// Of this connection's events.
    #[serde(default)]
    connection_id: Option<String>,
    /// Of the record with this id at its app.
    #[serde(default)]
    remote_id: Option<String>,
    /// Made at or after this time (RFC 3339).
    #[serde(default)]
    from: Option<String>,
    /// Made before this time (RFC 3339).
    #[serde(default)]
    to: Option<String>,
    /// Counts, and cancels nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What came of it.
#[derive(Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cancelled {
    /// Cancelled; with `dryRun`, would be.
    cancelled: u64,
    /// Fit, and were being tried at that moment: left alone.
    in_flight: u64,
    /// More wait than one call looks at: go on with the same body and `?cursor=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A delivery that fits: where it stands, and when its event was taken in.
type Fit = (Due, Millis);

fn filter(asked: &Cancel, now: Millis) -> Result<Filter> {
    let time = |field: &str, text: &Option<String>| {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong = || Error::invalid(format!("{field}: use RFC 3339, such as 2024-04-19T16:57:18Z"));
        Millis::parse_rfc3339(text).ok_or_else(wrong).map(Some)
    };
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let connection = text(&asked.connection_id)
        .map(|text| text.parse::<ConnectionId>().map_err(|_| not_found(Code::ConnectionNotFound, &text)));
    let now = Millis(now.0.saturating_add(1));
    Ok(Filter {
        status: None,
        topic: text(&asked.topic),
        connection: connection.transpose()?,
        user: None,
        remote_id: text(&asked.remote_id),
        from: time("from", &asked.from)?,
        to: Some(time("to", &asked.to)?.map_or(now, |to| to.min(now))),
    })
}

pub(super) async fn some(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<Cancel>()?, call.workspace()?);
    let id = call.id::<SubscriptionId>("subscriptionId", Code::SubscriptionNotFound)?;
    let mut filter = filter(&asked, call.now())?;
    let lane = call.read(move |rows| find_subscription(rows, workspace, id)).await?.lane;
    let foreign = || Error::new(Code::Malformed, "cursor: use the `next` of the call before, or leave it out");
    let mut mark = match Paging::of(&call)?.before {
        Some(bytes) => Some(OwedMark::read(&bytes).ok_or_else(foreign)?),
        None => None,
    };
    let mut came = Cancelled::default();
    for _ in 0..STEPS_MAX {
        let from = mark.take();
        let read = move |rows: &Rows| fitting(rows, lane, from.as_ref(), &filter).map(|found| (found, filter));
        let ((fits, next), back) = call.read(read).await?;
        (filter, mark) = (back, next);
        let flights = call.state.outlet.flights.clone();
        if asked.dry_run {
            let flying = fits.iter().filter(|(due, _)| flights.has(lane, due.seq)).count() as u64;
            came.in_flight += flying;
            came.cancelled += fits.len() as u64 - flying;
        } else if !fits.is_empty() {
            let (cancelled, flying, at) =
                call.state.store.change(move |tx| cancel_these(tx, &flights, lane, &fits)).await?;
            came.cancelled += cancelled;
            came.in_flight += flying;
            call.state.outlet.flights.let_go(lane, at);
        }
        if mark.is_none() {
            break;
        }
    }
    call.state.rings.lane(lane);
    came.next = mark.map(|mark| paging::next(mark.bytes()));
    // An answer that is asked for again with the same `Idempotency-Key` is this one.
    let (reply, ()) = call.change(move |_| Ok((Reply::json(&came)?, ()))).await?;
    Ok(reply)
}

/// One step's deliveries that fit, and where the walk goes on.
fn fitting(
    rows: &Rows,
    lane: LaneNo,
    mark: Option<&OwedMark>,
    filter: &Filter,
) -> Result<(Vec<Fit>, Option<OwedMark>)> {
    let (page, next) = rows.owed_page(lane, mark, STEP)?;
    let mut fits = Vec::new();
    for due in page {
        let event = rows.event(due.event)?;
        let taken_in = event.as_ref().map_or(Millis(0), |event| event.accepted_at);
        let row = rows.tried(lane, due.seq)?.unwrap_or_else(|| DeliveryRow::unattempted(&due, taken_in));
        if filter.takes_row(&row, Status::Pending) && filter.takes_event(event.as_ref()) {
            fits.push((due, taken_in));
        }
    }
    Ok((fits, next))
}

fn cancel_these(tx: &mut Tx<'_>, flights: &Flights, lane: LaneNo, fits: &[Fit]) -> Result<(u64, u64, Millis)> {
    let (mut cancelled, mut flying) = (0, 0);
    for (due, taken_in) in fits {
        if flights.has(lane, due.seq) {
            flying += 1;
        } else {
            cancelled += u64::from(tx.cancel_delivery(lane, due, *taken_in)?);
        }
    }
    Ok((cancelled, flying, tx.now()))
}

pub(super) async fn one(call: Call) -> Result<Reply> {
    let super::Nothing {} = call.json()?;
    let (workspace, id) = (call.workspace()?, call.id::<DeliveryId>("deliveryId", Code::DeliveryNotFound)?);
    let flights = call.state.outlet.flights.clone();
    let change = move |tx: &mut Tx<'_>| {
        let missing = || not_found(Code::DeliveryNotFound, &id.to_string());
        let subscription = owner(tx, workspace, id)?;
        let (seq, lane) = id.parts();
        let mut hit = Hit::find(tx, &flights, &subscription, seq)?.ok_or_else(missing)?;
        let conflict = |text: String| Error::new(Code::Conflict, text);
        match hit.status {
            Status::Pending | Status::Retrying => {}
            Status::InFlight => {
                return Err(conflict("the delivery is being tried now; ask again once its attempt has ended".into()));
            }
            ended => {
                return Err(conflict(format!("the delivery is {}: only what waits can be cancelled", ended.text())));
            }
        }
        let record = hit.event.as_ref().and_then(|event| event.record_key());
        let due = tx.owed_of(lane, seq, record.as_ref())?.ok_or_else(missing)?;
        let taken_in = hit.event.as_ref().map_or(hit.row.made_at, |event| event.accepted_at);
        if !tx.cancel_delivery(lane, &due, taken_in)? {
            return Err(missing());
        }
        hit.row.state = DeliveryState::Cancelled { at: tx.now() };
        hit.status = Status::Cancelled;
        Ok((Reply::json(&OneDelivery { delivery: view(&hit, true) })?, (lane, tx.now())))
    };
    let (reply, (lane, at)) = call.change(change).await?;
    call.state.outlet.flights.let_go(lane, at);
    call.state.rings.lane(lane);
    Ok(reply)
}
