//! Connections to a server: made by the node's rules, and set up so that every session means the same.
//!
//! Always true: the library dials only addresses that the policy of the moment has judged; values that a column cannot
//! hold are errors, never cut; times are UTC. Not here: how many there are (`destinations::pool`), what is written
//! (`write`).

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, IoError, OptsBuilder, SslOpts};
use tokio::time::timeout;

use super::settings::{Place, SslMode};
use super::verdicts::Stop;
use crate::destinations::driver::{Fault, Verdict};
use crate::destinations::pool::{self, Pool};
use crate::domain::failure::Failure;
use crate::domain::trouble::Trouble;
use crate::outbound::Client;

/// Connections of one destination at once.
const OPEN_MAX: usize = 8;
/// For TCP, TLS and signing in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For an idle connection to show that it still is one.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
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
}

/// A connection in use. Unless it is given back it is closed.
pub(super) type Lease = pool::Lease<Link>;

/// The connections of one destination.
pub(super) struct Links {
    place: Place,
    pool: Arc<Pool<Link>>,
}

impl Links {
    pub(super) fn new(client: Client, place: Place) -> Self {
        Self { place, pool: Arc::new(Pool::new(client, OPEN_MAX)) }
    }

    /// A connection: one that is there, or a new one.
    pub(super) async fn take(&self) -> Result<Lease, Stop> {
        let room = self.pool.room().await?;
        while let Some(mut link) = self.pool.kept(&room) {
            // A server that was restarted meanwhile is noticed here, and not in the middle of a batch.
            if let Ok(Ok(())) = timeout(PING_TIMEOUT, link.conn.ping()).await {
                return Ok(room.holding(link));
            }
        }
        match timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(made) => Ok(room.holding(made?)),
            Err(_) => Err(Verdict::way(Failure::ConnectTimeout).into()),
        }
    }

    /// Gives a connection back that is fit to be used again.
    pub(super) fn give_back(&self, lease: Lease) {
        self.pool.give_back(lease);
    }

    async fn connect(&self) -> Result<Link, Stop> {
        let client = self.pool.out();
        if client.has_proxy() {
            let detail = "the node reaches others through a proxy, and this protocol cannot: its operator must allow a \
                          direct way";
            return Err(Verdict::Config(Fault::new(Trouble::SettingsRefused, detail)).into());
        }
        let place = &self.place;
        let encrypted = place.ssl != SslMode::Disable;
        let ips = client.vetted(&place.host, place.port, encrypted).await.map_err(Verdict::way)?;
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
                Stop::Verdict(Verdict::way(Failure::ConnectFailed))
            }
            _ => Stop::Error(error),
        })?;
        let found: Option<(u64, String)> = conn.query_first("SELECT @@max_allowed_packet, VERSION()").await?;
        let (packet, version) = found.unwrap_or((1 << 20, String::new()));
        let packet = usize::try_from(packet).unwrap_or(usize::MAX);
        Ok(Link { conn, packet, version })
    }

    fn tls(&self) -> Option<SslOpts> {
        let options = SslOpts::default().with_danger_tls_hostname_override(self.place.server_name.clone());
        match self.place.ssl {
            SslMode::Disable => None,
            SslMode::Require => Some(options.with_danger_accept_invalid_certs(true)),
            SslMode::VerifyFull => {
                let trusted = match &self.place.ca {
                    Some(pem) => vec![pem.clone().into_bytes().into()],
                    None => self.pool.out().trusted().iter().map(|der| der.to_vec().into()).collect(),
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
