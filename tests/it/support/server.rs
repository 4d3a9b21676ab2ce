//! Servers on loopback that behave as badly as a test wants, and a DNS server that says what it is told to.
//!
//! Always true: a server ends with its test's runtime. Not here: receivers that check signatures.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

/// What a server does with a request.
pub enum Act {
    /// Sends these bytes and reads on.
    Answer(Vec<u8>),
    /// Sends these bytes and closes.
    Last(Vec<u8>),
    /// Sends these bytes, then says nothing more.
    Hang(Vec<u8>),
    /// Sends these bytes, then the second ones for ever, with a pause between.
    Forever(Vec<u8>, Vec<u8>, Duration),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Got {
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection, counted from 1.
    pub connection: usize,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

type Handler = Arc<dyn Fn(&Got) -> Act + Send + Sync>;

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    got: Arc<Mutex<Vec<Got>>>,
}

/// `HTTP/1.1 <status>` with a body.
pub fn answer(status: &str, extra: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{extra}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Server {
    /// Plain http on a free port of every loopback address.
    pub async fn start(handler: impl Fn(&Got) -> Act + Send + Sync + 'static) -> Self {
        Self::run(None, Arc::new(handler)).await
    }

    /// https with a certificate of `tests/certs`.
    pub async fn start_tls(certificate: &str, handler: impl Fn(&Got) -> Act + Send + Sync + 'static) -> Self {
        Self::run(Some(acceptor(certificate, &[])), Arc::new(handler)).await
    }

    async fn run(tls: Option<TlsAcceptor>, handler: Handler) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            connections: Arc::default(),
            got: Arc::default(),
        };
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (shared, handler, tls) = (shared.clone(), handler.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, number, &shared, &handler).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, number, &shared, &handler).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().expect("no panic").clone()
    }
}

/// A TLS acceptor for a certificate of `tests/certs`.
pub fn acceptor(certificate: &str, protocols: &[&[u8]]) -> TlsAcceptor {
    let path = |end: &str| format!("{}/tests/certs/{certificate}.{end}", env!("CARGO_MANIFEST_DIR"));
    let chain = vec![CertificateDer::from_pem_file(path("pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(path("key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, number: usize, server: &Server, handler: &Handler) {
    let mut buffer = Vec::new();
    while let Some(got) = next(&mut stream, &mut buffer, number).await {
        let act = handler(&got);
        server.got.lock().expect("no panic").push(got);
        match act {
            Act::Answer(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::Last(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::Hang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
            Act::Forever(first, again, pause) => {
                let _ = stream.write_all(&first).await;
                while stream.write_all(&again).await.is_ok() && stream.flush().await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
                return;
            }
        }
    }
}

async fn next<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>, connection: usize) -> Option<Got> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut lines = head.split("\r\n");
            let line = lines.next().unwrap_or_default().to_owned();
            let headers: Vec<_> = lines
                .filter_map(|l| l.split_once(':'))
                .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
                .collect();
            let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if buffer.len() >= whole {
                let body = buffer[end + 4..whole].to_vec();
                buffer.drain(..whole);
                return Some(Got { line, headers, body, connection });
            }
        }
        let mut piece = [0; 16 * 1024];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&piece[..n]),
        }
    }
}

/// A DNS server: `answers` gets the name (lower case, no final dot) and how often it was asked before.
pub async fn dns(answers: impl Fn(&str, usize) -> Vec<IpAddr> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut asked = std::collections::HashMap::<(String, u16), usize>::new();
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let Some((name, kind, end)) = question(&packet[..length]) else { continue };
            let times = asked.entry((name.clone(), kind)).or_default();
            let ips = answers(&name, *times);
            *times += 1;
            let _ = socket.send_to(&reply(&packet[..end], kind, &ips), peer).await;
        }
    });
    address
}

/// The name, the kind of record asked for, and where the question ends (RFC 1035, section 4.1).
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn reply(question: &[u8], kind: u16, ips: &[IpAddr]) -> Vec<u8> {
    let mut records = Vec::new();
    for ip in ips {
        let data = match (ip, kind) {
            (IpAddr::V4(v4), 1) => v4.octets().to_vec(),
            (IpAddr::V6(v6), 28) => v6.octets().to_vec(),
            _ => continue,
        };
        let (kind, length) = (kind.to_be_bytes()[1], u8::try_from(data.len()).expect("4 or 16"));
        records.push([&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, length], data.as_slice()].concat());
    }
    let mut packet = question.to_vec();
    // A recursive answer without error; one question, no authority, nothing additional.
    packet[2] = 0x81;
    packet[3] = if ips.is_empty() { 0x83 } else { 0x80 };
    packet[6..12].copy_from_slice(&[0, u8::try_from(records.len()).expect("few"), 0, 0, 0, 0]);
    packet.extend(records.concat());
    packet
}
