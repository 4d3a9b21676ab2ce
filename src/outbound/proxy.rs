//! The operator's own proxy, by which everything of a client leaves: an HTTP tunnel (`CONNECT`, RFC 9110 section 9.3.6).
//!
//! Always true: the proxy is told an address that was judged, never a name, so it cannot resolve one to something else;
//! TLS and HTTP go through the tunnel to the name that was asked for; plain http goes through a tunnel too. The proxy's own
//! address is the operator's word and is not judged. Its faults have codes of their own, which tell nothing of it. Not
//! here: judging (`connect`), proxies of the environment (they mean nothing).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::USER_AGENT;
use super::connect::dial;
use super::dns::Names;
use crate::domain::address::is_localhost;
use crate::domain::failure::Failure;
use crate::domain::secret::Secret;

/// The most bytes of the proxy's answer to `CONNECT`.
const HEAD_MAX_BYTES: usize = 8 * 1024;
/// The most addresses of one name that the proxy is asked for, one after the other.
const ASKED_MAX: usize = 4;

/// Where the proxy is, and how we prove ourselves to it.
#[derive(Clone, Debug)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    credentials: Option<Secret>,
}

/// Why a text is no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use http://host:port or http://user:password@host:port, without a path; the way to the proxy is plain http")]
pub struct NotAProxy;

impl Proxy {
    /// Reads `http://user:password@host:port`.
    pub fn parse(text: &Secret) -> Result<Self, NotAProxy> {
        let url = Url::parse(text.expose()).map_err(|_| NotAProxy)?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !bare {
            return Err(NotAProxy);
        }
        let host = match url.host().ok_or(NotAProxy)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().map_err(|_| NotAProxy)?;
            Ok(Secret::new(text.into_owned()))
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let (user, password) = (decoded(user)?, decoded(password.unwrap_or_default())?);
                let pair = zeroize::Zeroizing::new(format!("{}:{}", user.expose(), password.expose()));
                Some(Secret::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
            }
        };
        Ok(Self { host, port: url.port_or_known_default().ok_or(NotAProxy)?, credentials })
    }

    /// A tunnel to the first of these judged addresses that the proxy can reach.
    pub(super) async fn tunnel(&self, names: &Names, ips: &[IpAddr], port: u16) -> Result<TcpStream, Failure> {
        let proxy = self.addresses(names).await?;
        let mut failed = Failure::ProxyFailed;
        for ip in ips.iter().take(ASKED_MAX) {
            let tcp = dial(&proxy, self.port).await.map_err(|_| Failure::ProxyUnreachable)?;
            match self.ask(tcp, SocketAddr::new(*ip, port)).await {
                Err(Failure::ProxyFailed) => failed = Failure::ProxyFailed,
                other => return other,
            }
        }
        Err(failed)
    }

    async fn addresses(&self, names: &Names) -> Result<Arc<[IpAddr]>, Failure> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(Arc::from([ip]));
        }
        if is_localhost(&self.host) {
            return Ok(Arc::from([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]));
        }
        names.resolve(&self.host).await.map_err(|_| Failure::ProxyUnreachable)
    }

    /// Asks for a tunnel on a fresh connection to the proxy.
    async fn ask(&self, mut tcp: TcpStream, to: SocketAddr) -> Result<TcpStream, Failure> {
        let mut head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {USER_AGENT}\r\n");
        if let Some(credentials) = &self.credentials {
            head.push_str("Proxy-Authorization: ");
            head.push_str(credentials.expose());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let head = zeroize::Zeroizing::new(head.into_bytes());
        tcp.write_all(&head).await.map_err(|_| Failure::ProxyUnreachable)?;
        let status = answer(&mut tcp).await?;
        match status {
            200..=299 => Ok(tcp),
            status => {
                // For the operator: the caller is told the code only.
                tracing::info!(status, proxy = self.host, "the proxy has refused a tunnel");
                Err(if matches!(status, 401 | 403 | 405 | 407) { Failure::ProxyRefused } else { Failure::ProxyFailed })
            }
        }
    }
}

/// The status of the proxy's answer. Nothing follows a success before we speak, so what does is no tunnel.
async fn answer(tcp: &mut TcpStream) -> Result<u16, Failure> {
    let mut head = Vec::with_capacity(256);
    let end = loop {
        let mut piece = [0; 1024];
        match tcp.read(&mut piece).await {
            Ok(0) | Err(_) => return Err(Failure::ProxyUnreachable),
            Ok(n) => head.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if head.len() > HEAD_MAX_BYTES {
            return Err(Failure::ProxyUnreachable);
        }
    };
    let text = String::from_utf8_lossy(&head);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    let status = status.ok_or(Failure::ProxyUnreachable)?;
    if (200..300).contains(&status) && head.len() > end { Err(Failure::ProxyUnreachable) } else { Ok(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Proxy, NotAProxy> {
        Proxy::parse(&Secret::new(text))
    }

    #[test]
    fn a_proxy_is_a_host_a_port_and_perhaps_credentials() {
        let proxy = parse("http://user:p%40ss%3A@proxy.internal:3128").expect("a proxy");
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.internal", 3128));
        let credentials = proxy.credentials.as_ref().map(Secret::expose);
        assert_eq!(credentials, Some(format!("Basic {}", STANDARD.encode("user:p@ss:")).as_str()));
        assert!(!format!("{proxy:?}").contains(credentials.expect("some")), "{proxy:?}");
        let plain = parse("http://[::1]:8080/").expect("a proxy");
        assert_eq!((plain.host.as_str(), plain.port, plain.credentials.is_none()), ("::1", 8080, true));
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for text in ["", "proxy:3128", "https://proxy:3128", "socks5://proxy:1080", "http://proxy/path", "http://p/?q"]
        {
            assert_eq!(parse(text).err(), Some(NotAProxy), "{text}");
        }
    }
}
