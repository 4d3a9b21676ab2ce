//! The way out for a library that dials by itself: a SOCKS5 server (RFC 1928) on loopback that hands every connection to
//! the guarded client.
//!
//! Always true: each server of a cluster, whether the settings, the DNS or another server named it, is judged when it is
//! dialled, and what is dialled is what was judged; TLS is spoken from here on by the house's rules; who does not know
//! the password (RFC 1929), made anew for each gateway, gets nowhere. Not here: what is spoken on the connections.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsConnector;

use crate::domain::failure::Failure;
use crate::error::{Error, Result};
use crate::outbound::Client;
use crate::outbound::raw::classify_tls;

/// Who may use it.
pub(super) const USER: &str = "tidemill";
/// Connections at once: a few per server of a cluster.
const CONNECTIONS_MAX: usize = 256;
/// For the greeting, the way and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway that is open; it closes with this value.
pub(super) struct Gateway {
    pub(super) port: u16,
    pub(super) password: String,
    trouble: Arc<Mutex<Option<Failure>>>,
    task: AbortHandle,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What its connections share.
struct Exit {
    client: Client,
    tls: Option<Arc<ClientConfig>>,
    password: String,
    trouble: Arc<Mutex<Option<Failure>>>,
}

impl Gateway {
    /// Opens one. With `tls`, all connections are encrypted from here on.
    pub(super) async fn open(client: Client, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::internal(io::Error::other("no random bytes")))?;
        let password = hex::encode(random);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(Error::internal)?;
        let port = listener.local_addr().map_err(Error::internal)?.port();
        let trouble = Arc::new(Mutex::new(None));
        let exit = Arc::new(Exit { client, tls, password: password.clone(), trouble: trouble.clone() });
        let task = tokio::spawn(serve(listener, exit)).abort_handle();
        Ok(Self { port, password, trouble, task })
    }

    /// Why the last connection that was not made was not; it is forgotten then.
    pub(super) fn take_trouble(&self) -> Option<Failure> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Its connections end with it.
async fn serve(listener: TcpListener, exit: Arc<Exit>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            taken = listener.accept() => match taken {
                Ok((stream, _)) => _ = connections.spawn(pass(stream, exit.clone())),
                // No file handles left: others will be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(mut near: TcpStream, exit: Arc<Exit>) {
    near.set_nodelay(true).ok();
    match tokio::time::timeout(CONNECT_TIMEOUT, exit.connect(&mut near)).await {
        Ok(Ok(mut far)) => _ = copy_bidirectional(&mut near, &mut far).await,
        Ok(Err(_)) => {}
        Err(_) => exit.remember(Failure::ConnectTimeout),
    }
}

/// A connection, encrypted or not.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Exit {
    fn remember(&self, failure: Failure) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    async fn connect(&self, near: &mut TcpStream) -> io::Result<Box<dyn Wire>> {
        let (host, port) = self.greet(near).await?;
        match self.reach(&host, port).await {
            Ok(far) => {
                self.remember_none();
                near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
                Ok(far)
            }
            Err(failure) => {
                self.remember(failure);
                // "Not allowed by the rules", or "host unreachable" (RFC 1928, section 6).
                let code = if failure == Failure::AddressForbidden { 2 } else { 4 };
                near.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
                Err(io::ErrorKind::HostUnreachable.into())
            }
        }
    }

    /// A refusal by the policy is kept until it is asked for: another server of the cluster may well be reached.
    fn remember_none(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_some_and(|failure| failure != Failure::AddressForbidden) {
            *trouble = None;
        }
    }

    /// Greeting, password and request; answers with the place that is wanted.
    async fn greet(&self, near: &mut TcpStream) -> io::Result<(String, u16)> {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let [version, count] = read::<2>(near).await?;
        let mut methods = vec![0; count.into()];
        near.read_exact(&mut methods).await?;
        if version != 5 || !methods.contains(&2) {
            near.write_all(&[5, 0xff]).await?;
            return Err(refused());
        }
        near.write_all(&[5, 2]).await?;
        let [_] = read::<1>(near).await?;
        let user = read_text(near).await?;
        let password = read_text(near).await?;
        let known = aws_lc_rs::constant_time::verify_slices_are_equal(password.as_bytes(), self.password.as_bytes());
        if user != USER || known.is_err() {
            near.write_all(&[1, 1]).await?;
            return Err(refused());
        }
        near.write_all(&[1, 0]).await?;
        let [version, command, _, kind] = read::<4>(near).await?;
        if (version, command) != (5, 1) {
            near.write_all(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            return Err(refused());
        }
        let host = match kind {
            1 => std::net::Ipv4Addr::from(read::<4>(near).await?).to_string(),
            4 => std::net::Ipv6Addr::from(read::<16>(near).await?).to_string(),
            3 => read_text(near).await?,
            _ => return Err(refused()),
        };
        Ok((host, u16::from_be_bytes(read::<2>(near).await?)))
    }

    async fn reach(&self, host: &str, port: u16) -> std::result::Result<Box<dyn Wire>, Failure> {
        let tcp = self.client.dial(host, port, self.tls.is_some(), CONNECT_TIMEOUT).await?;
        tcp.set_nodelay(true).ok();
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = host.strip_suffix('.').unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|_| Failure::BadRequest)?;
        let made = TlsConnector::from(tls.clone()).connect(name, tcp).await;
        Ok(Box::new(made.map_err(|error| classify_tls(&error))?))
    }
}

async fn read<const N: usize>(near: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    near.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// At most 255 bytes, since one byte says how many.
async fn read_text(near: &mut TcpStream) -> io::Result<String> {
    let [length] = read::<1>(near).await?;
    let mut bytes = vec![0; length.into()];
    near.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}
