//! `GET /one/deliveries/export`: deliveries as lines of JSON, as long as there are any; dead letters if nothing else is
//! asked for.
//!
//! Always true: each piece is made when the one before has left, so that an export of any length costs one piece of memory;
//! newest first, and after any line it can go on where it stopped; a failure cuts the answer, so that a part is never
//! taken for the whole. Not here: the walk over lanes (`walk`).

use std::collections::VecDeque;
use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;

use super::walk::{Filter, Hit, Place};
use super::{DeliveryView, asked_of, lanes_of, view};
use crate::api::auth::Known;
use crate::api::call::Call;
use crate::api::health::Phase;
use crate::api::reply::Reply;
use crate::api::route::Param;
use crate::api::state::State;
use crate::domain::body;
use crate::domain::id::{DeliveryId, EventId};
use crate::domain::subscription::Subscription;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";
pub(super) const PARAMS: &[Param] =
    &[Param { name: "after", about: "Go on after this delivery: the `deliveryId` of the last line that came." }];
/// Deliveries read for one piece.
const PAGE: usize = 100;
/// A piece is sent when it is so long. The last line in it may be longer.
const PIECE_BYTES: usize = 64 * 1024;
const RETRY_AFTER_SECONDS: u32 = 10;

/// One line.
#[derive(Serialize, JsonSchema)]
pub(super) struct Line {
    delivery: DeliveryView,
    /// The body that sending it again would have; null once the event is past its retention.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    body: Option<Box<RawValue>>,
}

/// An export under way.
struct Export {
    state: State,
    caller: Arc<Known>,
    lanes: Arc<Vec<Subscription>>,
    filter: Arc<Filter>,
    /// Everything above is sent.
    place: Option<Place>,
    is_over: bool,
    _room: OwnedSemaphorePermit,
}

pub(super) async fn export(call: Call) -> Result<Reply> {
    let Some(caller) = call.caller.clone() else { return Err(Error::internal("an export without a caller")) };
    let workspace = call.workspace()?;
    let place = call.query_id::<DeliveryId>("after", Code::DeliveryNotFound)?.map(Place::of);
    let (of, user, mut filter) = asked_of(&call)?;
    filter.status = Some(filter.status.unwrap_or(super::Status::Dead));
    let read = move |rows: &Rows| lanes_of(rows, workspace, of, user, filter);
    let (lanes, filter) = call.read(read).await?;
    let busy = |_| {
        let error = Error::new(Code::TooManyRequests, "too many exports run at once; try again soon");
        Error { retry_after: Some(RETRY_AFTER_SECONDS), ..error }
    };
    let _room = call.state.exports.clone().try_acquire_owned().map_err(busy)?;
    let reply = if call.head.method == "HEAD" {
        Reply::text(CONTENT_TYPE, Bytes::new())
    } else {
        let (lanes, filter) = (Arc::new(lanes), Arc::new(filter));
        let export = Export { state: call.state, caller, lanes, filter, place, is_over: false, _room };
        Reply::lines(CONTENT_TYPE, futures_util::stream::unfold(export, Export::next))
    };
    Ok(reply.with_header(CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

impl Export {
    /// The next piece; None ends the export.
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        while !self.is_over {
            match self.piece().await {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Some((Ok(piece), self)),
                Err(error) => {
                    tracing::warn!(
                        error = error.chain(),
                        "an export was cut; its reader can go on after the last line"
                    );
                    self.is_over = true;
                    return Some((Err(error), self));
                }
            }
        }
        None
    }

    async fn piece(&mut self) -> Result<Bytes> {
        if *self.state.health.watch().borrow() == Phase::Draining {
            return Err(Error::unavailable("the node is stopping", 5));
        }
        let (state, caller) = (self.state.clone(), self.caller.clone());
        let (lanes, filter, place) = (self.lanes.clone(), self.filter.clone(), self.place);
        let read = move |rows: &Rows| {
            if !caller.is_live(rows, state.clock.now())? {
                return Err(Error::new(Code::Unauthorized, "the API key was revoked or has expired"));
            }
            piece(rows, &state, &lanes, &filter, place)
        };
        let (piece, next) = self.state.store.blocking(read).await?;
        self.is_over = next.is_none();
        self.place = next;
        Ok(piece)
    }
}

/// Lines from `place` on, and where to go on.
fn piece(
    rows: &Rows,
    state: &State,
    lanes: &[Subscription],
    filter: &Filter,
    place: Option<Place>,
) -> Result<(Bytes, Option<Place>)> {
    let found = super::walk::page(rows, &state.outlet.flights, lanes, filter, place, PAGE)?;
    let (mut out, mut hits) = (Vec::new(), VecDeque::from(found.hits));
    while let Some(hit) = hits.pop_front() {
        serde_json::to_writer(&mut out, &line(&hit)?).map_err(Error::internal)?;
        out.push(b'\n');
        if out.len() >= PIECE_BYTES && !hits.is_empty() {
            return Ok((out.into(), Some(Place::of(hit.id))));
        }
    }
    Ok((out.into(), found.next))
}

fn line(hit: &Hit<'_>) -> Result<Line> {
    let body = hit.event.as_ref().map(|event| {
        let to = hit.subscription;
        let id = EventId::new(hit.row.event, to.workspace);
        let mut text =
            String::from_utf8(body::render(event, id, to.api_version, &to.include)).map_err(Error::internal)?;
        // Outside of texts a line break means nothing, and inside JSON has none: a line stays one line.
        if text.contains(['\n', '\r']) {
            text = text.replace(['\n', '\r'], " ");
        }
        RawValue::from_string(text).map_err(Error::internal)
    });
    Ok(Line { delivery: view(hit, true), body: body.transpose()? })
}
