//! How a delivery leaves: one by one to an HTTP endpoint ([`Post`]), or in batches through a driver ([`driver`]).
//!
//! Always true: a destination's fault is an attempt in a [`Report`]; an error is our own and uses up no try. A
//! driver keeps nothing between two attempts that the store would need. Not here: when to try (`actors::courier`), what an
//! outcome leads to (`domain::delivery`).

#[cfg(any(feature = "eventbridge", feature = "redshift", feature = "s3"))]
pub mod aws;
#[cfg(feature = "bigquery")]
pub mod bigquery;
pub mod driver;
#[cfg(feature = "eventbridge")]
pub mod eventbridge;
#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "gcs")]
pub mod gcs;
#[cfg(any(feature = "bigquery", feature = "gcs", feature = "pubsub"))]
pub mod google;
pub mod http;
pub mod kinds;
pub mod lines;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(any(feature = "gcs", feature = "redshift", feature = "s3"))]
pub mod objects;
#[cfg(any(
    feature = "bigquery",
    feature = "gcs",
    feature = "pubsub",
    feature = "redshift",
    feature = "s3",
    feature = "snowflake"
))]
pub mod parts;
#[cfg(any(feature = "mysql", feature = "nats", feature = "postgresql"))]
pub mod pool;
#[cfg(feature = "postgresql")]
pub mod postgresql;
#[cfg(feature = "pubsub")]
pub mod pubsub;
#[cfg(feature = "redshift")]
pub mod redshift;
pub mod rows;
#[cfg(any(feature = "bigquery", feature = "gcs", feature = "pubsub", feature = "snowflake"))]
pub mod rs256;
#[cfg(feature = "s3")]
pub mod s3;
pub mod settings;
#[cfg(feature = "snowflake")]
pub mod snowflake;
#[cfg(any(
    feature = "bigquery",
    feature = "gcs",
    feature = "nats",
    feature = "pubsub",
    feature = "redshift",
    feature = "s3",
    feature = "snowflake"
))]
pub mod steps;
#[cfg(any(feature = "bigquery", feature = "redshift", feature = "snowflake"))]
pub mod warehouse;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::domain::delivery::{Attempt, Outcome};
use crate::domain::id::EventId;
use crate::domain::secret::Secret;
pub use crate::domain::subscription::Signing;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::outbound::diagnose::Diagnosis;
use crate::outbound::{Bytes, Client};
use http::keys::KeyRing;
use http::sign::HmacKey;

/// One attempt of one delivery, ready to leave. Cheap to clone.
#[derive(Clone)]
pub struct Parcel {
    /// Exactly as it was given: RSA signs it.
    pub address: Arc<str>,
    pub topic: Arc<str>,
    pub event: EventId,
    /// The very bytes that are signed and sent.
    pub body: Bytes,
    /// 1, 2, …
    pub attempt: u32,
    /// A person or a job asked for it again.
    pub replay: bool,
    /// When the attempt begins, on the node's clock.
    pub at: Millis,
    /// The same on the machine's clock, which a receiver compares with its own: the time that is signed.
    pub wall: Millis,
    pub signing: Signing,
    /// The subscription's live secrets; at least one if `signing.hmac`.
    pub secrets: Arc<[HmacKey]>,
    /// The workspace's keys.
    pub keys: Arc<KeyRing>,
    /// The subscription's own headers.
    pub headers: Arc<[(String, Secret)]>,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    pub attempt: Attempt,
}

/// What a test of a destination showed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    #[serde(flatten)]
    pub way: Diagnosis,
    /// Until the first byte of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// The whole exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The beginning of the answer's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The signature headers that were sent, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// What the answer has in `X-Hook-Secret`.
    #[serde(skip)]
    pub hook_secret: Option<String>,
    /// Accepted, as a delivery would be.
    pub accepted: bool,
}

/// The way to HTTP endpoints. An instance belongs to one runtime.
pub trait Post: Send + Sync {
    /// Whether an address can be subscribed at all, as far as it shows without asking anyone: a 422 if not.
    fn check(&self, address: &str) -> Result<()>;
    /// Makes one attempt, within the parcel's timeout.
    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> BoxFuture<'a, Result<Report>>;
    /// Makes one attempt and looks closely on the way, within twice the parcel's timeout.
    fn try_out<'a>(&'a self, parcel: &'a Parcel) -> BoxFuture<'a, Result<Trial>>;
    /// The guarded client that it sends with, for destinations that are no HTTP endpoint; None: there is none.
    fn client(&self) -> Option<Client> {
        None
    }
}
