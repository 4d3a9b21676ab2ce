//! Names to addresses: the system's resolver, or the configured DNS servers.
//!
//! Always true: a lookup ends within its timeout; a name is asked once at a time, however many wait for it, so that a
//! name whose servers are silent holds one thread and not hundreds. Not here: judging the answers (`connect`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::options::{DnsOptions, DnsServer};
use crate::domain::failure::Failure;
use crate::error::{self, Error};

/// The most names asked of the system's resolver at once; each may hold a thread.
const LOOKUPS_MAX: usize = 256;
/// The most addresses of a name that are considered. One that has more is refused: an unseen one could be forbidden.
const ADDRESSES_MAX: usize = 64;
/// How long a configured server is believed that there is no such name.
const NOTHING_BELIEVED: Duration = Duration::from_secs(5);

pub(super) struct Names {
    source: Source,
    timeout: Duration,
}

enum Source {
    System(Flights),
    Servers(Box<TokioResolver>),
}

type Addresses = Option<Arc<[IpAddr]>>;
type Flights = Arc<Mutex<HashMap<String, Shared<BoxFuture<'static, Addresses>>>>>;

impl Names {
    pub(super) fn new(options: &DnsOptions) -> error::Result<Self> {
        let timeout = Duration::from_secs(options.timeout_seconds.get());
        let source = if options.servers.is_empty() {
            Source::System(Flights::default())
        } else {
            Source::Servers(Box::new(servers(options, timeout)?))
        };
        Ok(Self { source, timeout })
    }

    /// All addresses of a name; never empty.
    pub(super) async fn resolve(&self, host: &str) -> Result<Arc<[IpAddr]>, Failure> {
        let lookup = async {
            match &self.source {
                Source::System(flights) => join(flights, host).await,
                Source::Servers(resolver) => ask(resolver, host).await,
            }
        };
        match tokio::time::timeout(self.timeout, lookup).await {
            Ok(Some(ips)) if !ips.is_empty() && ips.len() <= ADDRESSES_MAX => Ok(ips),
            _ => Err(Failure::DnsFailed),
        }
    }
}

/// Waits for the lookup of this name that is under way, or starts one.
async fn join(flights: &Flights, host: &str) -> Addresses {
    let flight = {
        let mut under_way = flights.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.get(host) {
            Some(flight) => flight.clone(),
            None if under_way.len() >= LOOKUPS_MAX => return None,
            None => {
                // A task of its own: the thread behind it goes on even if all who wait give up, so the entry must too.
                let task = tokio::spawn(look_up(flights.clone(), host.to_owned()));
                let flight = async move { task.await.ok().flatten() }.boxed().shared();
                under_way.insert(host.to_owned(), flight.clone());
                flight
            }
        }
    };
    flight.await
}

async fn look_up(flights: Flights, host: String) -> Addresses {
    let found = tokio::net::lookup_host((host.as_str(), 0)).await;
    flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
    match found {
        Ok(found) => Some(unique(found.map(|socket| socket.ip()))),
        Err(error) => {
            tracing::debug!(host, %error, "the system's resolver did not find a name");
            None
        }
    }
}

async fn ask(resolver: &TokioResolver, host: &str) -> Addresses {
    match resolver.lookup_ip(host).await {
        Ok(found) => Some(unique(found.iter())),
        Err(error) => {
            tracing::debug!(host, %error, "the DNS servers did not find a name");
            None
        }
    }
}

fn unique(ips: impl Iterator<Item = IpAddr>) -> Arc<[IpAddr]> {
    let mut seen: Vec<IpAddr> = Vec::new();
    for ip in ips.take(ADDRESSES_MAX * 4) {
        if !seen.contains(&ip) {
            seen.push(ip);
        }
    }
    seen.into()
}

fn servers(options: &DnsOptions, timeout: Duration) -> error::Result<TokioResolver> {
    let servers = options.servers.iter().map(server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let set = builder.options_mut();
    // Both kinds are always asked: one refused address of either refuses the name.
    set.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    // Two rounds fit into the time that the whole lookup has.
    set.timeout = timeout / 2;
    set.attempts = 1;
    set.cache_size = 1024;
    set.positive_max_ttl = Some(Duration::from_secs(options.cache_seconds_max.get()));
    set.negative_max_ttl = Some(NOTHING_BELIEVED);
    builder.build().map_err(|error| Error::invalid("dns.servers: the resolver could not be made").because(error))
}

fn server(server: &DnsServer) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.0.ip());
    for connection in &mut config.connections {
        connection.port = server.0.port();
    }
    config
}
