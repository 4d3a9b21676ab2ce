//! What the tests of all kinds need: batches, a way out that may call loopback, servers, and the promises that every
//! driver keeps.

#[cfg(any(feature = "eventbridge", feature = "redshift", feature = "s3"))]
pub mod amazon;
pub mod batches;
#[cfg(any(feature = "nats", feature = "postgresql"))]
pub mod cutter;
#[cfg(feature = "redshift")]
pub mod data_api;
#[cfg(any(feature = "bigquery", feature = "gcs", feature = "pubsub", feature = "snowflake"))]
pub mod emulators;
pub mod gate;
#[cfg(any(feature = "bigquery", feature = "gcs", feature = "pubsub"))]
pub mod google;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "postgresql")]
pub mod postgres;
pub mod promises;
pub mod servers;
#[cfg(any(feature = "bigquery", feature = "gcs", feature = "pubsub", feature = "snowflake"))]
pub mod stub;
pub mod tls;
pub mod verdicts;

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill::destinations::driver::{Driver, Opening};
use tidemill::destinations::kinds;
use tidemill::domain::address::Policy;
use tidemill::domain::id::DestinationId;
use tidemill::outbound::{Client, Options};

/// The destination that tests write to.
pub const DESTINATION: DestinationId = DestinationId([0xd0; 12]);

/// A way out that may call loopback.
pub fn client() -> Client {
    let policy = Policy::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()], false);
    Client::new(&Options::standard(), Arc::new(policy)).unwrap()
}

/// A driver of that kind.
pub fn open(kind: &str, settings: Value) -> tidemill::error::Result<Arc<dyn Driver>> {
    open_below(kind, settings, None)
}

/// The same, with a folder for files.
pub fn open_below(
    kind: &str,
    settings: Value,
    files: Option<&std::path::Path>,
) -> tidemill::error::Result<Arc<dyn Driver>> {
    open_through(client(), kind, settings, files)
}

/// The same, with another way out.
pub fn open_through(
    client: Client,
    kind: &str,
    settings: Value,
    files: Option<&std::path::Path>,
) -> tidemill::error::Result<Arc<dyn Driver>> {
    let Value::Object(settings) = settings else { panic!("settings are an object: {settings}") };
    let kind = kinds::find(kind).unwrap_or_else(|| panic!("no kind {kind}"));
    let files = files.map(std::path::Path::to_owned);
    (kind.open)(Opening { destination: DESTINATION, settings, client, files })
}

/// A value that every kind refuses with a sentence that names it.
pub fn unknown_setting() -> Value {
    json!({"noSuchSetting": 1})
}
