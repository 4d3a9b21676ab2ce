//! What an operator can set about outbound calls: `[tls]` and `[dns]` of the configuration, and how connections are kept.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::proxy::Proxy;

/// Everything a client is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub tls: TlsOptions,
    pub dns: DnsOptions,
    pub pool: PoolOptions,
    /// By which everything leaves. None: directly.
    pub proxy: Option<Proxy>,
}

/// `[tls]`: whom we believe.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// A PEM file of certificates to trust instead of the system's. Empty: the system's.
    pub ca_file: PathBuf,
}

/// `[dns]`: whom we ask.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsOptions {
    /// Empty: the system's resolver.
    pub servers: Vec<DnsServer>,
    /// The longest a name may take to resolve.
    pub timeout_seconds: NonZeroU64,
    /// An answer of `servers` is believed for its own lifetime, and no longer than this.
    pub cache_seconds_max: NonZeroU64,
}

/// A DNS server's address: `192.0.2.53`, `192.0.2.53:5353`, `[2001:db8::53]:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DnsServer(pub SocketAddr);

impl TryFrom<String> for DnsServer {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let socket = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        let refused = |_| format!("{text:?} is no server; write 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53");
        socket.map(Self).map_err(refused)
    }
}

/// Connections; part of the section of whoever calls.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// The longest that DNS, TCP and TLS may take together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept for the next request.
    pub idle_timeout: Duration,
    /// How many unused connections are kept per host and runtime thread.
    pub idle_per_host: usize,
}

impl Options {
    /// What is used where no configuration is at hand: tests, and commands that run beside a node.
    pub fn standard() -> Self {
        let seconds = |n: u64| NonZeroU64::new(n).unwrap_or(NonZeroU64::MIN);
        Self {
            tls: TlsOptions::default(),
            dns: DnsOptions { servers: Vec::new(), timeout_seconds: seconds(5), cache_seconds_max: seconds(60) },
            pool: PoolOptions {
                connect_timeout: Duration::from_secs(5),
                idle_timeout: Duration::from_secs(60),
                idle_per_host: 256,
            },
            proxy: None,
        }
    }
}
