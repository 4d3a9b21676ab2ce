//! Making a connection: resolve, judge, dial, handshake.
//!
//! Always true: what is dialled is what was judged; one refused address refuses the name; all of it ends within the
//! connect timeout.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dns::Names;
use super::proxy::Proxy;
use super::wire::Wire;
use super::{refused, tls};
use crate::domain::address::{Policy, is_localhost};
use crate::domain::failure::Failure;

/// How long an address may stay silent before the next one is tried beside it (RFC 8305 advises 250 ms).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// The most addresses of a name that are dialled for one connection.
const DIALLED_MAX: usize = 8;

/// What a connection is made by.
pub(super) struct Dial {
    pub(super) names: Arc<Names>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) policy: Arc<Policy>,
    pub(super) timeout: Duration,
    /// By which everything goes.
    pub(super) proxy: Option<Arc<Proxy>>,
}

/// Where a connection goes.
pub(super) struct Place {
    pub(super) https: bool,
    /// A name, or a literal address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host()?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_owned();
        Some(Self { https, host, port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }) })
    }
}

impl Dial {
    /// All addresses of a place, judged.
    pub(super) async fn vetted(&self, place: &Place) -> Result<Arc<[IpAddr]>, Failure> {
        let ips = match place.host.parse::<IpAddr>() {
            Ok(ip) => Arc::from([ip]),
            Err(_) if is_localhost(&place.host) => match self.policy.localhost() {
                allowed if allowed.is_empty() => return Err(Failure::AddressForbidden),
                allowed => allowed.into(),
            },
            Err(_) => self.names.resolve(&place.host).await?,
        };
        match self.policy.judge_all(place.https, &ips) {
            Ok(()) => Ok(ips),
            Err(why) => {
                // For the operator only: the answer to the caller must not tell what is inside.
                tracing::info!(host = place.host, ?ips, %why, "an outbound address was refused");
                Err(refused(why))
            }
        }
    }

    /// A connection to one of these judged addresses.
    pub(super) async fn reach(&self, ips: &[IpAddr], port: u16) -> Result<TcpStream, Failure> {
        match &self.proxy {
            None => dial(ips, port).await,
            Some(proxy) => proxy.tunnel(&self.names, ips, port).await,
        }
    }

    async fn wire(&self, place: &Place) -> Result<Wire, Failure> {
        let ips = self.vetted(place).await?;
        let tcp = self.reach(&ips, place.port).await?;
        if !place.https {
            return Ok(Wire::Plain(TokioIo::new(tcp)));
        }
        let tls = handshake(self.tls.clone(), &place.host, tcp).await?;
        Ok(Wire::Tls(Box::new(TokioIo::new(tls))))
    }
}

/// Connects to the first address that answers. The next is tried when one fails or stays silent for a moment.
pub(super) async fn dial(ips: &[IpAddr], port: u16) -> Result<TcpStream, Failure> {
    let mut waiting = ips.iter().take(DIALLED_MAX).map(|ip| SocketAddr::new(*ip, port));
    let mut dialling = FuturesUnordered::new();
    loop {
        match waiting.next() {
            Some(address) => dialling.push(TcpStream::connect(address)),
            None if dialling.is_empty() => return Err(Failure::ConnectFailed),
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(made) = dialling.next() => if let Ok(tcp) = made {
                // Requests are small and answered one by one: waiting to fill a packet only delays them.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if more => {}
        }
    }
}

pub(super) async fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = tls::server_name(host).ok_or(Failure::BadRequest)?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
        tracing::debug!(host, %error, "a TLS handshake failed");
        tls::classify(&error)
    })
}

/// [`Dial`] as the pool wants it.
#[derive(Clone)]
pub(super) struct Connector(Arc<Dial>);

impl Connector {
    pub(super) fn new(dial: Dial) -> Self {
        Self(Arc::new(dial))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Wire;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.0.clone();
        let made: BoxFuture<'static, _> = Box::pin(async move {
            let place = Place::of(&uri).ok_or(Failure::BadRequest)?;
            tokio::time::timeout(dial.timeout, dial.wire(&place)).await.unwrap_or(Err(Failure::ConnectTimeout))
        });
        made
    }
}
