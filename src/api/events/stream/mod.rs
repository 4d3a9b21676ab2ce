//! `GET /one/events/stream`: the log as server-sent events, for consumers that no webhook can reach.
//!
//! Always true: nothing is sent that a crash could still take back; nothing of another workspace is sent, and to a key
//! bound to a user only that user's events; each piece is made when the one before has left, so that a slow reader costs
//! one piece of memory and nothing waits for it; what retention has dropped is told, not passed over. Not here: what an
//! event looks like on the wire (`frame`), which events are meant (`wish`).

mod frame;
mod slots;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use self::frame::Signs;
use self::slots::Slot;
pub use self::slots::{Limits, Streams};
use self::wish::Wish;
use crate::api::auth::Known;
use crate::api::call::{Call, not_found};
use crate::api::health::Phase;
use crate::api::reply::Reply;
use crate::api::route::Param;
use crate::api::state::State;
use crate::domain::id::{EventId, Seq, WorkspaceNo};
use crate::error::{Code, Error, Result};
use crate::store::Rows;

pub(super) const CONTENT_TYPE: &str = "text/event-stream";
/// Index rows looked at in one step.
const LOOKED_AT_MAX: usize = 500;
/// A piece is sent when it is so long. The last event in it may be longer.
const PIECE_BYTES: usize = 64 * 1024;
/// After a look that found nothing: on a busy node the log moves far more often than it is worth looking at.
const PAUSE: Duration = Duration::from_millis(20);
/// Stands for the oldest event that is kept.
const OLDEST: &str = "oldest";

pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "topic",
        about: "A topic, `crm/*` or `*`; may be given several times, or with commas. `*` if left out.",
    },
    Param {
        name: "after",
        about: "Only events after this one, by id; `oldest` for all that is kept. From now if left out.",
    },
    Param { name: "userId", about: "Of this user: id or username." },
    Param { name: "connectionId", about: "Of this connection." },
    Param { name: "updateType", about: "Only these; with commas." },
    Param { name: "include", about: "As in a subscription; with commas." },
    Param {
        name: "sign",
        about: "An address: `data` is then `{headers, body}` of a delivery to it. Needs the scope `write`.",
    },
];

/// A stream under way.
struct Reader {
    state: State,
    caller: Arc<Known>,
    wish: Arc<Wish>,
    signs: Option<Arc<Signs>>,
    /// Everything up to here was looked at.
    at: Seq,
    durable: watch::Receiver<Seq>,
    phase: watch::Receiver<Phase>,
    /// When something was sent last.
    told: Instant,
    began: bool,
    _slot: Slot,
}

/// What one look at the log came to.
enum Look {
    /// Up to this position there is nothing (more) that is wanted.
    Nothing(Seq),
    Found(Bytes, Seq),
    /// The key was revoked or has expired, or retention has overtaken the reader.
    Over,
}

pub(super) async fn stream(call: Call) -> Result<Reply> {
    let Some(caller) = call.caller.clone() else { return Err(Error::internal("a stream without a caller")) };
    let (wish, signs) = (Arc::new(Wish::of(&call).await?), Signs::of(&call)?.map(Arc::new));
    let durable = call.state.store.durable();
    let at = start(&call, *durable.borrow()).await?;
    let phase = call.state.health.watch();
    if *phase.borrow() == Phase::Draining {
        return Err(Error::unavailable("the node is stopping", 5));
    }
    let slot = call.state.streams.open(&call.state, call.workspace()?)?;
    let reply = if call.head.method == "HEAD" {
        Reply::text(CONTENT_TYPE, Bytes::new())
    } else {
        let (state, told) = (call.state, Instant::now());
        let reader = Reader { state, caller, wish, signs, at, durable, phase, told, began: false, _slot: slot };
        Reply::flow(CONTENT_TYPE, futures_util::stream::unfold(reader, Reader::next))
    };
    // Proxies pass each piece on as it comes.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(reply.with_header(CACHE_CONTROL, HeaderValue::from_static("no-store")).with_header(unbuffered.0, unbuffered.1))
}

/// The position after which the caller wants to read.
async fn start(call: &Call, durable: Seq) -> Result<Seq> {
    // A client that reconnects repeats its URL: what it has seen since counts more.
    let seen = call.head.headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = seen.filter(|text| !text.is_empty()).or_else(|| call.query("after")) else { return Ok(durable) };
    let (text, workspace) = (text.to_owned(), call.workspace()?);
    call.read(move |rows| position(rows, &text, workspace, durable)).await
}

fn position(rows: &Rows, text: &str, workspace: WorkspaceNo, durable: Seq) -> Result<Seq> {
    let kept_from = rows.events_kept_from()?;
    if text == OLDEST {
        return Ok(Seq(kept_from.0.saturating_sub(1)));
    }
    let missing = || not_found(Code::EventNotFound, text);
    let id: EventId = text.parse().map_err(|_| missing())?;
    let (seq, home) = id.parts();
    if home != workspace || seq > durable {
        return Err(missing());
    }
    if overtaken(seq, kept_from) {
        let message = format!(
            "events after {id} are kept no longer, so what came next cannot be told; go on with `after={OLDEST}` for all \
             that is kept, or without `after` from now on, and read the records again"
        );
        return Err(Error::new(Code::EventsGone, message));
    }
    Ok(seq)
}

/// Whether an event right after `at` may have been dropped.
fn overtaken(at: Seq, kept_from: Seq) -> bool {
    at.next() < kept_from
}

impl Reader {
    /// The next piece; None ends the stream.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if !std::mem::replace(&mut self.began, true) {
            return Some((frame::opening(self.mark()), self));
        }
        loop {
            if *self.phase.borrow() == Phase::Draining {
                return None;
            }
            let until = *self.durable.borrow_and_update();
            if self.at < until {
                match self.look(until).await {
                    Look::Found(piece, at) => return self.tell(piece, at),
                    Look::Nothing(at) => self.at = at,
                    Look::Over => return None,
                }
                let silent = self.told.elapsed() >= self.heartbeat();
                if self.at < until && !silent {
                    continue;
                }
                if !silent {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if !self.quiet().await {
                return None;
            }
            if self.told.elapsed() >= self.heartbeat() {
                // The look is for the key, which may have been revoked.
                match self.look(self.at).await {
                    Look::Over => return None,
                    Look::Found(..) | Look::Nothing(_) => {
                        let piece = frame::heartbeat(self.mark());
                        let at = self.at;
                        return self.tell(piece, at);
                    }
                }
            }
        }
    }

    fn tell(mut self, piece: Bytes, at: Seq) -> Option<(Bytes, Self)> {
        self.at = at;
        self.told = Instant::now();
        Some((piece, self))
    }

    fn heartbeat(&self) -> Duration {
        self.state.options.streams.heartbeat
    }

    /// The id that a reader goes on after, if it has seen nothing since.
    fn mark(&self) -> EventId {
        EventId::new(self.at, self.wish.workspace)
    }

    /// Waits until the log has moved or it is time for a heartbeat; false when the node stops.
    async fn quiet(&mut self) -> bool {
        let next = self.told + self.heartbeat();
        tokio::select! {
            draining = self.phase.wait_for(|phase| *phase == Phase::Draining) => { drop(draining); false }
            moved = self.durable.changed() => moved.is_ok(),
            () = tokio::time::sleep_until(next) => true,
        }
    }

    async fn look(&self, until: Seq) -> Look {
        let (state, caller, wish, signs) =
            (self.state.clone(), self.caller.clone(), self.wish.clone(), self.signs.clone());
        let at = self.at;
        let look = self.state.store.blocking(move |rows| {
            let found = look(rows, &state, &wish, signs.as_deref(), at, until)?;
            // Afterwards, since the janitor may have dropped something meanwhile.
            let over = !caller.is_live(rows, state.clock.now())? || overtaken(at, rows.events_kept_from()?);
            Ok(if over { Look::Over } else { found })
        });
        look.await.unwrap_or_else(|error| {
            tracing::error!(error = error.chain(), "a stream of events ends; its reader will come back");
            Look::Over
        })
    }
}

fn look(rows: &Rows, state: &State, wish: &Wish, signs: Option<&Signs>, at: Seq, until: Seq) -> Result<Look> {
    if at >= until {
        return Ok(Look::Nothing(at));
    }
    let seqs = rows.workspace_events_after(wish.workspace, at, until, LOOKED_AT_MAX)?;
    let mut reached = if seqs.len() < LOOKED_AT_MAX { until } else { seqs.last().copied().unwrap_or(until) };
    let mut piece = String::new();
    for seq in seqs {
        let Some(event) = rows.event(seq)?.filter(|event| wish.takes(event)) else { continue };
        let id = EventId::new(seq, wish.workspace);
        let body = wish.render(&event, id)?;
        let data = match signs {
            None => body,
            Some(signs) => signs.envelope(state, &event, id, body)?,
        };
        frame::event(&mut piece, id, &event.topic, &data);
        if piece.len() >= PIECE_BYTES {
            reached = seq;
            break;
        }
    }
    Ok(if piece.is_empty() { Look::Nothing(reached) } else { Look::Found(piece.into(), reached) })
}
