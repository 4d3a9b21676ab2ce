//! Connections to the server: dialled by the node's rules, encrypted, signed in.
//!
//! Always true: a connection that was left in the middle of something is closed at once, so the server rolls it back. Not
//! here: how many there are (`destinations::pool`), what is said on them (`write`).

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::judge;
use super::settings::Way;
use crate::destinations::driver::Verdict;
use crate::destinations::pool::{self, Room};
use crate::domain::failure::Failure;
use crate::outbound;

/// For address and TCP, and for TLS and signing in.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections of a destination.
pub(super) struct Pool {
    way: Way,
    tls: Option<ClientConfig>,
    all: Arc<pool::Pool<Session>>,
}

/// A connection in use. Unless it is given back it is closed.
pub(super) type Lease = pool::Lease<Session>;

/// A connection that is signed in. The library's client alone, dropped, would wait for the answer to what it has sent,
/// from a server that may never give it.
pub(super) struct Session {
    pub(super) client: Client,
    task: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pool {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// `invalid` if the certificate cannot be read.
    pub(super) fn new(out: outbound::Client, way: Way, connections: usize) -> crate::error::Result<Self> {
        let tls = if way.encrypted { Some(out.tls_config(way.ca.as_deref())?) } else { None };
        Ok(Self { way, tls, all: Arc::new(pool::Pool::new(out, connections)) })
    }

    /// A connection that is free, or a new one.
    ///
    /// # Errors
    /// The verdict on the batch that wanted it.
    pub(super) async fn lease(&self) -> Result<Lease, Verdict> {
        let room = self.room().await?;
        while let Some(session) = self.all.kept(&room) {
            if !session.client.is_closed() {
                return Ok(room.holding(session));
            }
        }
        let session = self.sign_in(self.dial().await?).await?;
        Ok(room.holding(session))
    }

    /// Takes a connection back on which nothing is under way.
    pub(super) fn give_back(&self, lease: Lease) {
        if !lease.connection.client.is_closed() {
            self.all.give_back(lease);
        }
    }

    /// A TCP connection.
    pub(super) async fn dial(&self) -> Result<TcpStream, Verdict> {
        let Way { host, port, encrypted, .. } = &self.way;
        self.all.out().dial(host, *port, *encrypted, DIAL_TIMEOUT).await.map_err(Verdict::way)
    }

    /// TLS, and signing in. What the connection has to do is done by a task that ends with the session.
    pub(super) async fn sign_in(&self, tcp: TcpStream) -> Result<Session, Verdict> {
        let opened = async {
            let config = &self.way.config;
            let Some(tls) = &self.tls else {
                let (client, connection) = config.connect_raw(tcp, NoTls).await?;
                return Ok(Session { client, task: tokio::spawn(connection).abort_handle() });
            };
            let host = self.way.host.strip_suffix('.').unwrap_or(&self.way.host);
            let Ok(tls) = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut MakeRustlsConnect::new(tls.clone()), host);
            let (client, connection) = config.connect_raw(tcp, tls).await?;
            Ok(Session { client, task: tokio::spawn(connection).abort_handle() })
        };
        match timeout(SIGN_IN_TIMEOUT, opened).await {
            Ok(opened) => opened.map_err(|error: tokio_postgres::Error| judge::opening(&error)),
            Err(_) => Err(Verdict::way(Failure::ConnectTimeout)),
        }
    }

    /// Room for another connection, for a test: counted like all others.
    pub(super) async fn room(&self) -> Result<Room, Verdict> {
        self.all.room().await
    }
}
