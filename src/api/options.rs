//! What the configuration tells the API.
//!
//! Always true: there are no defaults here (`config/tidemill.toml` has them). Not here: where it listens (`app`).

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::events::StreamLimits;
use crate::domain::secret::Secret;
use crate::domain::subscription::Signing;

/// Everything that the API obeys; made of the sections `server`, `ops`, `security`, `delivery` and `ingest`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest body of a call, in bytes.
    pub body_bytes_max: usize,
    /// The longest body of an app's webhook, in bytes.
    pub webhook_bytes_max: usize,
    /// A body must have come in full by then.
    pub read_timeout: Duration,
    /// By then an app has its answer to a webhook.
    pub webhook_answer_timeout: Duration,
    /// Bytes of webhooks that are stored and not yet judged.
    pub unverified_bytes_max: u64,
    /// Where apps and browsers reach us, path prefix included.
    pub public_url: Option<Url>,
    /// Networks of proxies that are believed when they say who called.
    pub trusted_proxies: Vec<IpNet>,
    /// Health and metrics are served at an address of their own.
    pub ops_elsewhere: bool,
    /// Full access to the default workspace.
    pub api_key: Option<Secret>,
    /// Opens `/workspaces`; None: it stays shut.
    pub operator_key: Option<Secret>,
    /// Life of the token that opens `/connect`.
    pub connect_token_life: Duration,
    /// Where the node itself listens: stands in URLs as long as `public_url` is not set.
    pub listen: std::net::SocketAddr,
    /// Headers named `{prefix}-…` are ours.
    pub header_prefix: String,
    /// What a new subscription starts with.
    pub subscription: SubscriptionDefaults,
    /// How many may follow the log at the same time.
    pub streams: StreamLimits,
    /// Least seconds between two polls of a connection.
    pub poll_interval_seconds_min: u32,
    /// The store's folder: a key that nobody sees printed is left there.
    pub storage_path: PathBuf,
}

/// What a new subscription starts with.
#[derive(Clone, Debug)]
pub struct SubscriptionDefaults {
    pub signing: Signing,
    pub timeout_seconds: u32,
    pub max_in_flight: u32,
    /// The most that a subscription can ask for: what the whole node may have in flight.
    pub max_in_flight_max: u32,
}
