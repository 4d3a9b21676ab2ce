//! The sections of the configuration that belong to the node as a whole, and the list of all sections.
//!
//! Always true: there are no defaults here; they are in `config/tidemill.toml`. Each limit is a non-zero type. The
//! sections of a component are its own `Options`, beside the component.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

pub use crate::actors::options::{Polling, Retention};
pub use crate::connectors::Options as Connectors;
pub use crate::connectors::script::Options as Scripts;
use crate::domain::secret::Secret;
use crate::domain::setting::{self, Signing};
pub use crate::outbound::{DnsOptions as Dns, TlsOptions as Tls};
pub use crate::store::Options as Storage;
pub use crate::telemetry::Options as Log;

/// `[server]`: what listens, and how long it waits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "setting::optional")]
    pub public_listen: Option<SocketAddr>,
    /// Without a trailing slash only where the text has none; path prefix included.
    #[serde(deserialize_with = "setting::optional_text")]
    pub public_url: Option<Url>,
    pub trusted_proxies: Vec<IpNet>,
    #[serde(deserialize_with = "setting::optional")]
    pub workers: Option<NonZeroUsize>,
    /// Per worker.
    pub connections_max: NonZeroUsize,
    pub body_bytes_max: NonZeroUsize,
    pub request_timeout_seconds: NonZeroU64,
    pub keep_alive_seconds: NonZeroU64,
    pub drain_seconds: NonZeroU64,
    pub streams_max: NonZeroUsize,
    pub streams_per_workspace_max: NonZeroUsize,
    pub stream_heartbeat_seconds: NonZeroU64,
}

/// `[ops]`: health and metrics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    #[serde(deserialize_with = "setting::optional")]
    pub listen: Option<SocketAddr>,
    pub stuck_after_seconds: NonZeroU64,
}

/// `[security]`: keys, and how long proofs live. After loading, a secret that came from a file is in its own field.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    #[serde(deserialize_with = "setting::optional")]
    pub api_key: Option<Secret>,
    #[serde(deserialize_with = "setting::optional")]
    pub api_key_file: Option<PathBuf>,
    /// None: the store's own file, made with the store.
    #[serde(deserialize_with = "setting::optional")]
    pub master_key: Option<Secret>,
    #[serde(deserialize_with = "setting::optional")]
    pub master_key_file: Option<PathBuf>,
    #[serde(deserialize_with = "setting::optional")]
    pub operator_key: Option<Secret>,
    #[serde(deserialize_with = "setting::optional")]
    pub operator_key_file: Option<PathBuf>,
    pub connect_token_seconds: NonZeroU64,
    pub key_overlap_seconds: NonZeroU64,
}

/// `[delivery]`: how events leave.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    pub allow_networks: Vec<IpNet>,
    pub allow_http: bool,
    pub header_prefix: String,
    /// What a new subscription starts with.
    pub signing: Vec<Signing>,
    pub timeout_seconds: NonZeroU64,
    pub connect_timeout_seconds: NonZeroU64,
    /// Seconds to wait before each attempt; its length is the number of attempts.
    pub retry_schedule_seconds: Vec<u32>,
    pub retry_jitter_percent: u8,
    pub retry_after_seconds_max: NonZeroU64,
    pub answer_bytes_read_max: NonZeroUsize,
    pub answer_bytes_kept_max: NonZeroUsize,
    pub in_flight_per_subscription: NonZeroU32,
    pub in_flight_total: NonZeroUsize,
    pub window_start: NonZeroU32,
    pub breaker_failures: NonZeroU32,
    pub recovery_per_second: NonZeroU32,
    pub disable_after_seconds: NonZeroU64,
    #[serde(deserialize_with = "setting::optional")]
    pub threads: Option<NonZeroUsize>,
    #[serde(deserialize_with = "setting::optional")]
    pub signing_threads: Option<NonZeroUsize>,
    pub idle_per_host_max: NonZeroUsize,
    pub idle_seconds_max: NonZeroU64,
    #[serde(deserialize_with = "setting::optional")]
    pub proxy_url: Option<Secret>,
    #[serde(deserialize_with = "setting::optional")]
    pub proxy_url_file: Option<PathBuf>,
}

/// `[destinations]`: where events go that is not an HTTP endpoint. Databases and the like are reached under the rules of
/// `[delivery]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destinations {
    /// The folder below which destinations of the type `file` may write.
    #[serde(deserialize_with = "setting::optional")]
    pub files_path: Option<PathBuf>,
}

/// `[ingest]`: how webhooks of apps come in, and which networks apps may be in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    pub allow_networks: Vec<IpNet>,
    pub body_bytes_max: NonZeroUsize,
    pub answer_timeout_seconds: NonZeroU64,
    pub unverified_disk_percent_max: u8,
    pub handle_tries_max: NonZeroU32,
    #[serde(deserialize_with = "setting::optional")]
    pub proxy_url: Option<Secret>,
    #[serde(deserialize_with = "setting::optional")]
    pub proxy_url_file: Option<PathBuf>,
}
