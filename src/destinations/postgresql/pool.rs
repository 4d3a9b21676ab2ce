//! A few connections, shared by all lanes that write here.
//!
//! Always true: there are never more than the settings allow; one that was left in the middle of something is closed, not
//! used again, so the server rolls it back; one that was not used for a while is closed. Not here: what is said on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::judge;
use super::settings::Way;
use crate::destinations::driver::Verdict;
use crate::domain::failure::Failure;
use crate::outbound;

/// For address and TCP, and for TLS and signing in.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(10);
/// An unused connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The connections of a destination.
pub(super) struct Pool {
    out: outbound::Client,
    way: Way,
    tls: Option<ClientConfig>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(Client, Instant)>>,
    /// Somebody closes unused ones.
    sweeping: AtomicBool,
}

/// A connection in use. Unless it is given back it is closed.
pub(super) struct Lease {
    pub(super) client: Client,
    permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// `invalid` if the certificate cannot be read.
    pub(super) fn new(out: outbound::Client, way: Way, connections: usize) -> crate::error::Result<Self> {
        let tls = if way.encrypted { Some(out.tls_config(way.ca.as_deref())?) } else { None };
        let permits = Arc::new(Semaphore::new(connections));
        Ok(Self { out, way, tls, permits, idle: Mutex::default(), sweeping: AtomicBool::new(false) })
    }

    /// A connection that is free, or a new one.
    ///
    /// # Errors
    /// The verdict on the batch that wanted it.
    pub(super) async fn lease(&self) -> Result<Lease, Verdict> {
        // Never closed, so only ever late: the caller's time limit ends the wait.
        let Ok(permit) = self.permits.clone().acquire_owned().await else {
            return Err(judge::way(Failure::ConnectTimeout));
        };
        loop {
            let known = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let client = match known {
                Some((client, since)) if !client.is_closed() && since.elapsed() < IDLE_MAX => client,
                Some(_) => continue,
                None => self.sign_in(self.dial().await?).await?,
            };
            return Ok(Lease { client, permit });
        }
    }

    /// Takes a connection back on which nothing is under way.
    pub(super) fn give_back(self: &Arc<Self>, lease: Lease) {
        let Lease { client, permit } = lease;
        if !client.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((client, Instant::now()));
            self.sweep();
        }
        drop(permit);
    }

    /// Closes unused connections, now and then, as long as there are any.
    fn sweep(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_MAX).await;
                let Some(pool) = pool.upgrade() else { return };
                let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.retain(|(client, since)| !client.is_closed() && since.elapsed() < IDLE_MAX);
                if idle.is_empty() {
                    // Under the lock, so that nobody adds one and believes that it is looked after.
                    pool.sweeping.store(false, Ordering::Release);
                    return;
                }
            }
        });
    }

    /// A TCP connection.
    pub(super) async fn dial(&self) -> Result<TcpStream, Verdict> {
        let Way { host, port, encrypted, .. } = &self.way;
        self.out.dial(host, *port, *encrypted, DIAL_TIMEOUT).await.map_err(judge::way)
    }

    /// TLS, and signing in. What the connection has to do is done by a task that ends with the client.
    pub(super) async fn sign_in(&self, tcp: TcpStream) -> Result<Client, Verdict> {
        let opened = async {
            let config = &self.way.config;
            let Some(tls) = &self.tls else {
                let (client, connection) = config.connect_raw(tcp, NoTls).await?;
                tokio::spawn(connection);
                return Ok(client);
            };
            let host = self.way.host.strip_suffix('.').unwrap_or(&self.way.host);
            let Ok(tls) = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut MakeRustlsConnect::new(tls.clone()), host);
            let (client, connection) = config.connect_raw(tcp, tls).await?;
            tokio::spawn(connection);
            Ok(client)
        };
        match timeout(SIGN_IN_TIMEOUT, opened).await {
            Ok(opened) => opened.map_err(|error: tokio_postgres::Error| judge::opening(&error)),
            Err(_) => Err(judge::way(Failure::ConnectTimeout)),
        }
    }

    /// Another connection for a test: counted like all others.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Verdict> {
        self.permits.clone().acquire_owned().await.map_err(|_| judge::way(Failure::ConnectTimeout))
    }
}
