//! The seam of all destinations that are no HTTP endpoint: batches in, verdicts out.
//!
//! Always true: [`Driver::prepare`] is pure, so a batch gives the same request however often it is tried; what a
//! destination has against a batch is a [`Verdict`], never an error; a driver keeps nothing that a crash could lose. Not
//! here: which events make a batch, its identity on disk, and what follows from a verdict (`actors::courier::batch`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::Schema;
use serde_json::{Map, Value};

use crate::domain::body;
use crate::domain::delivery::AttemptError;
use crate::domain::destination::Shape;
use crate::domain::event::Event;
use crate::domain::failure::Failure;
use crate::domain::id::{DestinationId, EventId, Seq};
use crate::domain::subscription::Include;
use crate::domain::trouble::Trouble;
use crate::domain::version::ApiVersion;
use crate::error::Result;
use crate::outbound::{Bytes, Client};

/// The most bytes of a destination's own words that are kept.
pub const DETAIL_MAX_BYTES: usize = 1024;

/// One event of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// The delivery: unique in its lane, and the order of the batch.
    pub delivery: Seq,
    pub id: EventId,
    /// Of two items of one record, the later change has the greater one.
    pub seq: Seq,
    pub event: Arc<Event>,
    /// `dataPayload` as JSON text, in the subscription's API version.
    pub payload: Arc<str>,
}

/// Events that are written together, and the name under which they are.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The same for every try, and used for nothing else ever: `{lane:08x}-{number:016x}`.
    pub id: String,
    pub destination: DestinationId,
    pub shape: Shape,
    /// What of an event's extras is wanted: [`Include::ChangedFields`], [`Include::Previous`], [`Include::Raw`].
    pub include: Arc<[Include]>,
    /// How events and records are shown.
    pub version: ApiVersion,
    /// At least one; in the order of their deliveries.
    pub items: Vec<Item>,
}

impl Batch {
    /// The whole body of one of its events, as an HTTP endpoint would get it.
    pub fn body(&self, item: &Item) -> Vec<u8> {
        body::render(&item.event, item.id, self.version, &self.include)
    }
}

/// A request (or a few) as it is sent, byte for byte the same at each try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// [`Batch::id`].
    pub id: String,
    /// Sent in this order; how many items the batch had is [`Frozen::items`].
    pub parts: Vec<Part>,
    pub items: usize,
    /// Items that can never be written here, by their place; no part has them. Whoever sends the batch tells of them: an
    /// [`Answer::Each`] may say anything in their places.
    pub refused: Vec<(usize, Fault)>,
    /// What could not be written as it should be, for the owner: "crm/deals: amount is text; kept in _extra".
    pub notes: Vec<String>,
}

/// One request to one table, object, collection or topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The table, object key, bus, …; a driver's own notation.
    pub target: String,
    pub body: Bytes,
    /// Which items of the batch it settles, by their place.
    pub items: Vec<usize>,
}

/// What the destination has to say about a batch, or about one event of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is written, now or (as the destination proves) before.
    Done,
    /// Nobody can say that it is written: try exactly the same again.
    Retry(Fault),
    /// Never with this event. If it is said of a batch, of at least one of its events.
    Row(Fault),
    /// Not before the owner has mended something: nothing was written.
    Config(Fault),
}

impl Verdict {
    /// The way to the destination failed. Only its owner, or the node's operator, can mend a forbidden address or a
    /// certificate; the rest of the way mends itself.
    pub fn way(failure: Failure) -> Self {
        use Failure::{AddressForbidden, BadRequest, HttpsRequired, TlsExpired, TlsNameMismatch, TlsUntrusted};
        match failure {
            AddressForbidden | HttpsRequired | BadRequest | TlsExpired | TlsNameMismatch | TlsUntrusted => {
                Self::Config(Fault::way(failure))
            }
            _ => Self::Retry(Fault::way(failure)),
        }
    }
}

/// What is recorded of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub error: AttemptError,
    /// The destination's own words, without secrets and without addresses: at most [`DETAIL_MAX_BYTES`].
    pub detail: String,
    /// When the destination wants to be asked again.
    pub after: Option<Duration>,
}

impl Fault {
    /// A fault with the destination's words.
    pub fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        Self::of(AttemptError::Destination(trouble), detail)
    }
    /// The way to the destination failed.
    pub fn way(failure: Failure) -> Self {
        Self::of(AttemptError::Exchange(failure), "")
    }
    fn of(error: AttemptError, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES));
        Self { error, detail, after: None }
    }
    /// The same, to be tried after `wait`.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.after = wait;
        self
    }
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The same for every event of the batch.
    All(Verdict),
    /// One verdict per item, in the order of the batch.
    Each(Vec<Verdict>),
}

/// How large batches may be. Settings of the destination make them smaller, never larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events in a batch at most.
    pub rows: usize,
    /// Bytes of payloads in a batch at most; a single larger event makes a batch of its own.
    pub bytes: usize,
    /// How long an event may wait for others to join it.
    pub age: Duration,
    /// For one whole try.
    pub timeout: Duration,
    /// True where a batch that is cut anew after a crash leaves no duplicates (key upserts): then its row need not be on
    /// disk before the first try.
    pub recuts: bool,
}

/// One step of a test, in the order made; after the first that failed there are no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `connect`, `signIn`, `permissions`, `table`, `write`, `read`, `clean`.
    pub name: &'static str,
    pub took: Duration,
    /// None: it went well.
    pub fault: Option<Fault>,
    /// What was found: a server's version, the columns of a table.
    pub found: String,
}

/// What a test tries out.
#[derive(Clone, Debug)]
pub struct Probe {
    pub shape: Shape,
    /// One made-up event of a built-in topic, as a batch: a driver writes it where no subscription does (a table or
    /// object whose name says so), reads it back, and takes it away again.
    pub batch: Batch,
}

/// A destination, opened. It belongs to one runtime; all lanes that write there share it.
pub trait Driver: Send + Sync {
    /// Its limits, its settings considered.
    fn limits(&self) -> Limits;
    /// What will be sent. Pure: the same batch gives the same bytes. A fault is one of the whole batch (`Err(Row)` of a
    /// batch is split until it is that of one event).
    ///
    /// # Errors
    /// [`Verdict::Row`] or [`Verdict::Config`], never another one.
    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict>;
    /// One try, within [`Limits::timeout`] (the caller sees to that). Dropped in the middle, it leaves nothing that a
    /// repetition could double.
    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer>;
    /// Connects, checks permissions, makes or checks what is written to, writes and reads back.
    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>>;
}

/// What a driver is opened with.
pub struct Opening {
    pub destination: DestinationId,
    /// All settings, secret ones too, as [`Kind::schema`] wants them.
    pub settings: Map<String, Value>,
    /// The guarded way out, of the runtime that the driver is opened on. Nothing else may open a connection.
    pub client: Client,
    /// The folder below which `file` may write; None: not allowed on this node.
    pub files: Option<std::path::PathBuf>,
}

/// One kind of destination.
#[derive(Debug)]
pub struct Kind {
    /// `postgresql`.
    pub name: &'static str,
    /// `PostgreSQL`.
    pub title: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Whether it can be a mirror.
    pub mirrors: bool,
    /// Its settings as JSON Schema: an object; secret properties are `writeOnly`.
    pub schema: fn() -> Schema,
    /// Checks the settings and makes a driver. Nothing is connected yet.
    ///
    /// # Errors
    /// `invalid`, with a sentence that names the setting (`settings.host: …`).
    pub open: fn(Opening) -> Result<Arc<dyn Driver>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_is_closed_by_the_settings_pauses_and_one_that_is_down_is_tried_again() {
        for failure in [Failure::AddressForbidden, Failure::HttpsRequired, Failure::TlsUntrusted] {
            assert!(matches!(Verdict::way(failure), Verdict::Config(_)), "{failure:?}");
        }
        for failure in [Failure::ConnectFailed, Failure::DnsFailed, Failure::ConnectionClosed] {
            assert!(matches!(Verdict::way(failure), Verdict::Retry(_)), "{failure:?}");
        }
    }
}
