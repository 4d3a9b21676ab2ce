//! `GET /one/users/{userId}/export`: what is held of a user, as lines of JSON.
//!
//! Always true: each piece is made when the one before has left, so that an export of any length costs one piece of memory;
//! no secret is in it; the audit log tells of it before the first line leaves; the last line says `end`, so that a part is
//! never taken for the whole. Not here: erasing (`erasures`).

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::auth::Known;
use super::call::{Call, user_of};
use super::erasures::{ADMIN, key_of};
use super::health::Phase;
use super::reply::Reply;
use super::route::{Route, group};
use super::state::State;
use super::{connections, deliveries, destinations, events, integrations};
use crate::domain::audit::{Act, Actor};
use crate::domain::body;
use crate::domain::connection::Connection;
use crate::domain::destination::Destination;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, EventId, InboxId, Seq};
use crate::domain::subscription::Include;
use crate::domain::version::ApiVersion;
use crate::domain::workspace::User;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, SnapshotKey, Tx, keys};

const CONTENT_TYPE: &str = "application/x-ndjson";
/// Rows read for one piece.
const ROWS_MAX: usize = 100;
/// A piece is sent when it is so long. The last line in it may be longer.
const PIECE_BYTES: usize = 64 * 1024;
/// Connections of a user.
const CONNECTIONS_MAX: usize = 100_000;
const RETRY_AFTER_SECONDS: u32 = 10;

/// One line: an object with `type` (`user`, `destination`, `connection`, `record`, `webhook`, `event`, `delivery` or `end`)
/// and one more member of that name.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the document's shape of a line")]
struct Line {
    r#type: String,
}

/// An event of the log.
#[derive(Serialize)]
struct EventLine {
    #[serde(flatten)]
    event: events::EventView,
    /// What a subscriber of this version gets, with all that `include` may add.
    body: Box<RawValue>,
}

/// What the export goes over.
struct Scope {
    state: State,
    caller: Arc<Known>,
    version: ApiVersion,
    /// Where apps reach the node.
    base: String,
    user: User,
    connections: Vec<ConnectionId>,
    /// The log as it was when the export began.
    until: Seq,
}

/// Where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    User,
    Destinations(Option<[u8; 12]>),
    Connection(usize),
    Records(usize, Option<SnapshotKey>),
    Webhooks(usize, Option<InboxId>),
    Events(Seq),
    End,
    Over,
}

/// An export under way.
struct Export {
    scope: Arc<Scope>,
    place: Place,
    lines: u64,
    _room: tokio::sync::OwnedSemaphorePermit,
}

pub(super) fn routes() -> Vec<Route> {
    let path = "/{version}/one/users/{userId}/export";
    let export = Route::get(path, "What is held of a user, as lines of JSON", export);
    group("users", vec![export.only(ADMIN).gives::<Line>().content_type(CONTENT_TYPE)])
}

async fn export(call: Call) -> Result<Reply> {
    let Some(caller) = call.caller.clone() else { return Err(Error::internal("an export without a caller")) };
    let (workspace, text, key) = (call.workspace()?, call.param("userId")?.to_owned(), key_of(&call)?);
    let until = *call.state.store.durable().borrow();
    let read = move |rows: &Rows| {
        let user = user_of(rows, workspace, &text)?;
        let all = rows.children::<Connection>(&user.id.0, None, CONNECTIONS_MAX)?.items;
        Ok((user, all.into_iter().map(|connection| connection.id).collect::<Vec<_>>()))
    };
    let (user, connections) = call.read(read).await?;
    let busy = |_| {
        let error = Error::new(Code::TooManyRequests, "too many exports run at once; try again soon");
        Error { retry_after: Some(RETRY_AFTER_SECONDS), ..error }
    };
    let _room = call.state.exports.clone().try_acquire_owned().map_err(busy)?;
    let reply = if call.head.method == "HEAD" {
        Reply::text(CONTENT_TYPE, Bytes::new())
    } else {
        let id = user.id;
        let note = move |tx: &mut Tx<'_>| tx.put_audit(workspace, Actor::Key(key), Act::UserExported { user: id });
        call.state.store.change(note).await?;
        let (base, version) = (integrations::base(&call).0, call.version);
        let scope = Arc::new(Scope { state: call.state, caller, version, base, user, connections, until });
        let export = Export { scope, place: Place::User, lines: 0, _room };
        Reply::lines(CONTENT_TYPE, futures_util::stream::unfold(export, Export::next))
    };
    Ok(reply.with_header(CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

impl Export {
    /// The next piece; None ends the export.
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        while self.place != Place::Over {
            match self.piece().await {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Some((Ok(piece), self)),
                Err(error) => {
                    tracing::warn!(error = error.chain(), "an export of a user was cut");
                    self.place = Place::Over;
                    return Some((Err(error), self));
                }
            }
        }
        None
    }

    async fn piece(&mut self) -> Result<Bytes> {
        let (scope, place, lines) = (self.scope.clone(), self.place, self.lines);
        if *scope.state.health.watch().borrow() == Phase::Draining {
            return Err(Error::unavailable("the node is stopping", 5));
        }
        let read = move |rows: &Rows| {
            if !scope.caller.is_live(rows, scope.state.clock.now())? {
                return Err(Error::new(Code::Unauthorized, "the API key was revoked or has expired"));
            }
            let mut piece = Piece { out: Vec::new(), lines };
            let next = scope.piece(rows, place, &mut piece)?;
            Ok((piece, next))
        };
        let (piece, next) = self.scope.state.store.blocking(read).await?;
        (self.place, self.lines) = (next, piece.lines);
        Ok(piece.out.into())
    }
}

/// Lines that leave together.
struct Piece {
    out: Vec<u8>,
    lines: u64,
}

impl Piece {
    /// Adds a line: `{"type", …, kind: value}`.
    fn add(&mut self, kind: &str, value: &impl Serialize, more: &[(&str, Option<String>)]) -> Result<()> {
        let mut of = String::new();
        for (name, value) in more {
            of.push_str(&format!("\"{name}\":{},", serde_json::to_string(value).map_err(Error::internal)?));
        }
        let mut text = serde_json::to_string(value).map_err(Error::internal)?;
        // Outside of texts a line break means nothing, and inside JSON has none: a line stays one line.
        if text.contains(['\n', '\r']) {
            text = text.replace(['\n', '\r'], " ");
        }
        self.out.extend_from_slice(format!("{{\"type\":\"{kind}\",{of}\"{kind}\":{text}}}\n").as_bytes());
        self.lines += 1;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.out.len() >= PIECE_BYTES
    }
}

impl Scope {
    /// Adds what stands at `place`; answers where to go on.
    fn piece(&self, rows: &Rows, place: Place, piece: &mut Piece) -> Result<Place> {
        match place {
            Place::User => {
                let User { id, username, full_name, created_at, .. } = &self.user;
                let user = serde_json::json!({"userId": id.to_string(), "username": username, "fullName": full_name,
                    "createdAt": created_at.rfc3339_millis()});
                piece.add("user", &user, &[])?;
                Ok(Place::Destinations(None))
            }
            Place::Destinations(before) => self.destinations(rows, before, piece),
            Place::Connection(at) => {
                let Some(id) = self.connections.get(at) else { return Ok(Place::Events(Seq(0))) };
                // One that was deleted meanwhile is not held any more.
                let Some(connection) = rows.connection(self.user.workspace, *id)? else {
                    return Ok(Place::Connection(at + 1));
                };
                piece.add("connection", &self.connection(rows, &connection)?, &[])?;
                Ok(Place::Records(at, None))
            }
            Place::Records(at, after) => self.records(rows, at, after, piece),
            Place::Webhooks(at, before) => self.webhooks(rows, at, before, piece),
            Place::Events(after) => self.events(rows, after, piece),
            Place::End => {
                let lines = piece.lines;
                piece.add("end", &serde_json::json!({"lines": lines}), &[])?;
                Ok(Place::Over)
            }
            Place::Over => Ok(Place::Over),
        }
    }

    /// As the API shows them: without secrets.
    fn destinations(&self, rows: &Rows, before: Option<[u8; 12]>, piece: &mut Piece) -> Result<Place> {
        let before = before.as_ref().map(<[u8; 12]>::as_slice);
        let page = rows.children::<Destination>(&self.user.id.0, before, ROWS_MAX)?;
        for destination in &page.items {
            piece.add("destination", &destinations::exported(destination)?, &[])?;
        }
        let last = page.items.last().map(|destination| destination.id.0).filter(|_| page.next.is_some());
        Ok(last.map_or(Place::Connection(0), |id| Place::Destinations(Some(id))))
    }

    /// As the API shows it, without the address of its webhook: that is a secret.
    fn connection(&self, rows: &Rows, connection: &Connection) -> Result<Value> {
        let mut shown = connections::shown(&self.state.deps, &self.base, rows, connection)?;
        if let Some(fields) = shown.as_object_mut() {
            fields.shift_remove("webhookUri");
            if let Some(Value::Object(webhook)) = fields.get_mut("webhook") {
                webhook.shift_remove("uri");
                webhook.shift_remove("instructions");
            }
        }
        Ok(shown)
    }

    fn records(&self, rows: &Rows, at: usize, after: Option<SnapshotKey>, piece: &mut Piece) -> Result<Place> {
        let Some(id) = self.connections.get(at).copied() else { return Ok(Place::Events(Seq(0))) };
        let Some(connection) = rows.connection(self.user.workspace, id)? else { return Ok(Place::Connection(at + 1)) };
        let connector = connections::connector(&self.state, rows, &connection)?;
        let page = rows.snapshot_page(id, after.as_ref(), ROWS_MAX)?;
        let rest = page.last().copied().filter(|_| page.len() == ROWS_MAX);
        for key in page {
            let Some(row) = rows.snapshot_at(id, &key)? else { continue };
            let mut all = connector.iter().flat_map(|connector| connector.collections.iter());
            let topic = all.find(|c| key.starts_with(&keys::collection(&c.key))).map(|c| c.topic.clone());
            let text = body::record(&row.payload(uuid::Uuid::from_slice(&key[4..]).unwrap_or_default()), self.version);
            let record = RawValue::from_string(text).map_err(Error::internal)?;
            piece.add("record", &record, &[("connectionId", Some(id.to_string())), ("topic", topic)])?;
            if piece.is_full() {
                return Ok(Place::Records(at, Some(key)));
            }
        }
        Ok(rest.map_or(Place::Webhooks(at, None), |key| Place::Records(at, Some(key))))
    }

    /// One at a time: a few bodies may be as large as the limit allows.
    fn webhooks(&self, rows: &Rows, at: usize, before: Option<InboxId>, piece: &mut Piece) -> Result<Place> {
        let Some(id) = self.connections.get(at).copied() else { return Ok(Place::Events(Seq(0))) };
        let mut before = before;
        while let Some((inbox, row)) = rows.inbox(&id.0, before, 1)?.pop() {
            before = Some(inbox);
            let of = [("connectionId", Some(id.to_string()))];
            piece.add("webhook", &connections::exported_webhook(inbox, row), &of)?;
            if piece.is_full() {
                return Ok(Place::Webhooks(at, before));
            }
        }
        Ok(Place::Connection(at + 1))
    }

    fn events(&self, rows: &Rows, after: Seq, piece: &mut Piece) -> Result<Place> {
        let seqs = rows.workspace_events_after(self.user.workspace, after, self.until, ROWS_MAX)?;
        let rest = seqs.last().copied().filter(|_| seqs.len() == ROWS_MAX);
        for seq in seqs {
            let Some(event) = rows.event(seq)?.filter(|event| self.takes(event)) else { continue };
            self.event(rows, seq, &event, piece)?;
            if piece.is_full() {
                return Ok(Place::Events(seq));
            }
        }
        Ok(rest.map_or(Place::End, Place::Events))
    }

    fn takes(&self, event: &Event) -> bool {
        event.user == Some(self.user.id) || event.connection.is_some_and(|id| self.connections.contains(&id))
    }

    /// An event with all that may be sent of it, then its deliveries.
    fn event(&self, rows: &Rows, seq: Seq, event: &Event, piece: &mut Piece) -> Result<()> {
        let id = EventId::new(seq, event.workspace);
        let text = String::from_utf8(body::render(event, id, self.version, &Include::ALL)).map_err(Error::internal)?;
        let shown =
            EventLine { event: events::view(seq, event), body: RawValue::from_string(text).map_err(Error::internal)? };
        piece.add("event", &shown, &[])?;
        let (all, _) = deliveries::of_event(rows, &self.state.outlet.flights, (seq, event))?;
        all.iter().try_for_each(|delivery| piece.add("delivery", delivery, &[]))
    }
}
