//! Connections to a server: made by the node's rules, kept for a while, and set up so that every session means the same.
//!
//! Always true: the library dials only addresses that the policy of the moment has judged, and a connection made under
//! another policy is not used again; values that a column cannot hold are errors, never cut; times are UTC. Not here:
//! what is written (`write`).

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, IoError, OptsBuilder, SslOpts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::settings::{Place, SslMode};
use super::verdicts::{self, Stop};
use crate::destinations::driver::{Fault, Verdict};
use crate::domain::address::Policy;
use crate::domain::failure::Failure;
use crate::domain::trouble::Trouble;
use crate::outbound::Client;

/// Connections of one destination at once.
const OPEN_MAX: usize = 8;
/// How long a connection may be idle and still be used.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// For TCP, TLS and signing in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a new session is told. A value out of a column's range is an error (strict), `'` and `\` mean the same on each
/// server, and no lock is waited for longer than a batch may take (the default for tables is a year).
const SESSION: [&str; 3] = [
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,\
     NO_ENGINE_SUBSTITUTION'",
    "SET SESSION time_zone = '+00:00', SESSION lock_wait_timeout = 20, SESSION innodb_lock_wait_timeout = 20, \
     SESSION autocommit = 1",
];

/// A connection that is ready.
pub(super) struct Link {
    pub(super) conn: Conn,
    /// The longest statement that the server takes, in bytes.
    pub(super) packet: usize,
    /// What the server says it is: `10.11.19-MariaDB`.
    pub(super) version: String,
    policy: Arc<Policy>,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

/// The connections of one destination.
pub(super) struct Links {
    client: Client,
    place: Place,
    idle: Mutex<Vec<Link>>,
    permits: Arc<Semaphore>,
}

impl Links {
    pub(super) fn new(client: Client, place: Place) -> Self {
        Self { client, place, idle: Mutex::default(), permits: Arc::new(Semaphore::new(OPEN_MAX)) }
    }

    /// A connection: one that is there, or a new one.
    pub(super) async fn take(&self) -> Result<Link, Stop> {
        while let Some(mut link) = self.kept() {
            let fresh = link.since.elapsed() < IDLE_MAX && Arc::ptr_eq(&link.policy, &self.client.policy());
            // A server that was restarted meanwhile is noticed here, and not in the middle of a batch.
            if fresh && link.conn.ping().await.is_ok() {
                return Ok(link);
            }
        }
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Stop::Verdict(Verdict::Retry(Fault::new(Trouble::Busy, ""))))?;
        let made = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(permit)).await;
        made.unwrap_or_else(|_| Err(verdicts::way(Failure::ConnectTimeout).into()))
    }

    /// Gives a connection back, if it is fit to be used again.
    pub(super) fn give_back(&self, mut link: Link) {
        link.since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|other| other.since.elapsed() < IDLE_MAX);
        idle.push(link);
    }

    fn kept(&self) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self, permit: OwnedSemaphorePermit) -> Result<Link, Stop> {
        if self.client.has_proxy() {
            let detail = "the node reaches others through a proxy, and this protocol cannot: its operator must allow a \
                          direct way";
            return Err(Verdict::Config(Fault::new(Trouble::SettingsRefused, detail)).into());
        }
        let policy = self.client.policy();
        let place = &self.place;
        let encrypted = place.ssl != SslMode::Disable;
        let ips = self.client.vetted(&place.host, place.port, encrypted).await.map_err(verdicts::way)?;
        let options = OptsBuilder::default()
            .ip_or_hostname(&place.host)
            .tcp_port(place.port)
            .resolved_ips(Some(ips.to_vec()))
            .user(Some(&place.user))
            .pass(Some(&place.password))
            .db_name(Some(&place.database))
            .prefer_socket(false)
            .tcp_keepalive(Some(Duration::from_secs(60)))
            .stmt_cache_size(0)
            .ssl_opts(self.tls())
            .setup(SESSION.to_vec());
        let mut conn = Conn::new(options).await.map_err(|error| match &error {
            Error::Io(IoError::Io(io)) if is_unreached(io.kind()) => {
                Stop::Verdict(verdicts::way(Failure::ConnectFailed))
            }
            _ => Stop::Error(error),
        })?;
        let found: Option<(u64, String)> = conn.query_first("SELECT @@max_allowed_packet, VERSION()").await?;
        let (packet, version) = found.unwrap_or((1 << 20, String::new()));
        let packet = usize::try_from(packet).unwrap_or(usize::MAX);
        Ok(Link { conn, packet, version, policy, since: Instant::now(), _permit: permit })
    }

    fn tls(&self) -> Option<SslOpts> {
        let options = SslOpts::default().with_danger_tls_hostname_override(self.place.server_name.clone());
        match self.place.ssl {
            SslMode::Disable => None,
            SslMode::Require => Some(options.with_danger_accept_invalid_certs(true)),
            SslMode::VerifyFull => {
                let trusted = match &self.place.ca {
                    Some(pem) => vec![pem.clone().into_bytes().into()],
                    None => self.client.trusted().iter().map(|der| der.to_vec().into()).collect(),
                };
                Some(options.with_disable_built_in_roots(true).with_root_certs(trusted))
            }
        }
    }
}

/// Nobody took the connection.
fn is_unreached(kind: ErrorKind) -> bool {
    use ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(kind, ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut | AddrNotAvailable)
}
