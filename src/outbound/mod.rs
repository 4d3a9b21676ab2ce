//! The one guarded HTTP client: everything that leaves the node for another party's server goes through it.
//!
//! Always true: an address is judged before a connection is made, by the policy of the moment, and the connection goes
//! to the very address that was judged, through the operator's proxy if there is one; redirects are never followed; proxy
//! variables of the environment mean nothing;
//! the whole exchange, body included, ends within its timeout; at most `read_limit` bytes of a body are held. A client
//! belongs to one runtime: make it there and use it there. Not here: what an answer means (`destinations`,
//! `connectors`), and which addresses are allowed (`domain::address`).

mod answer;
pub mod certificate;
mod connect;
pub mod diagnose;
mod dns;
mod options;
mod proxy;
pub mod raw;
mod tls;
mod wire;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http_body_util::Full;
pub use hyper::body::Bytes;
pub use hyper::header::{HeaderMap, HeaderName, HeaderValue};
pub use hyper::{Method, header};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use url::Url;

pub use self::options::{DnsOptions, DnsServer, Options, PoolOptions, TlsOptions};
pub use self::proxy::{NotAProxy, Proxy};
pub use self::tls::Trust;
use crate::domain::address::{Forbidden, Policy};
pub use crate::domain::failure::Failure;
use crate::error;

/// What we say we are, unless a request says otherwise.
pub const USER_AGENT: &str = concat!("Tidemill/", env!("CARGO_PKG_VERSION"));
/// The most bytes of an answer's head.
const HEAD_MAX_BYTES: u16 = 60 * 1024;
/// How often an HTTP/2 connection in use is asked whether it still lives, and how long it may take to say so. Without
/// it, a connection whose other end vanished would time out every request for minutes.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// One request. The timeout covers everything from the DNS to the last byte of the body that is read.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    pub timeout: Duration,
    /// The most bytes of the answer's body to read; a longer one is cut.
    pub read_limit: usize,
    /// Whether sending it twice does no harm. If so, a request that met a kept-alive connection just as the server
    /// closed it is sent once more at once.
    pub repeatable: bool,
}

impl Request {
    /// A request without headers and body: 15 s, 5 MiB, repeatable unless it is a POST or PATCH.
    pub fn new(method: Method, url: Url) -> Self {
        let repeatable = method.is_idempotent();
        let timeout = Duration::from_secs(15);
        Self { method, url, headers: Vec::new(), body: Bytes::new(), timeout, read_limit: 5 << 20, repeatable }
    }
}

/// One answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// At most `read_limit` bytes.
    pub body: Bytes,
    /// There was more than `read_limit`.
    pub cut: bool,
    /// Until the head of the answer was there.
    pub first_byte: Duration,
    /// The whole exchange.
    pub elapsed: Duration,
}

impl Answer {
    /// The text of a header, if there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The client; clones share its connections. It must be used on the runtime it was made on.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    names: Arc<dns::Names>,
    trust: Trust,
    pool: PoolOptions,
    proxy: Option<Arc<Proxy>>,
    era: RwLock<Arc<Era>>,
}

/// A policy with the connections that were made under it. Another policy means another pool, so no kept-alive peer
/// outlives the policy that judged it.
struct Era {
    policy: Arc<Policy>,
    pool: Pool<connect::Connector, Full<Bytes>>,
}

/// Rides on each connection: how many answers it has given.
#[derive(Clone, Default)]
struct Uses(Arc<AtomicU32>);

impl Client {
    /// A client that obeys `policy`. Loads the trusted certificates; where many clients are made, load a [`Trust`] once
    /// and use [`Client::with_trust`]. Fails if the certificate file or a DNS server's address cannot be read.
    pub fn new(options: &Options, policy: Arc<Policy>) -> error::Result<Self> {
        Self::with_trust(options, Trust::load(&options.tls)?, policy)
    }

    /// The same, with certificates loaded before.
    pub fn with_trust(options: &Options, trust: Trust, policy: Arc<Policy>) -> error::Result<Self> {
        let names = Arc::new(dns::Names::new(&options.dns)?);
        let (pool, proxy) = (options.pool.clone(), options.proxy.clone().map(Arc::new));
        let era = RwLock::new(Arc::new(Era::new(policy, &names, &trust, &pool, proxy.as_ref())));
        Ok(Self { shared: Arc::new(Shared { names, trust, pool, proxy, era }) })
    }

    /// The policy of the moment.
    pub fn policy(&self) -> Arc<Policy> {
        self.era().policy.clone()
    }

    /// Replaces the policy. Exchanges under way end as they began; every later one makes its connection anew.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        let shared = &self.shared;
        let era = Era::new(policy, &shared.names, &shared.trust, &shared.pool, shared.proxy.as_ref());
        *self.shared.era.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(era);
    }

    /// Sends a request and reads its answer. Any status is an answer; a failure means that there was none.
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let era = self.era();
        era.policy.judge_url(&request.url).map_err(refused)?;
        let started = Instant::now();
        let deadline = started + request.timeout;
        let first = era.exchange(&request, started, deadline).await;
        match first {
            Err(Broken { failure: Failure::ConnectionClosed, stale: true }) if request.repeatable => {
                era.exchange(&request, started, deadline).await.map_err(|broken| broken.failure)
            }
            other => other.map_err(|broken| broken.failure),
        }
    }

    fn era(&self) -> Arc<Era> {
        self.shared.era.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A failed exchange, and whether it failed on a connection that had served before.
struct Broken {
    failure: Failure,
    stale: bool,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, stale: false }
    }
}

impl Era {
    fn new(
        policy: Arc<Policy>,
        names: &Arc<dns::Names>,
        trust: &Trust,
        options: &PoolOptions,
        proxy: Option<&Arc<Proxy>>,
    ) -> Self {
        let connector = connect::Connector::new(connect::Dial {
            names: names.clone(),
            tls: trust.config().clone(),
            policy: policy.clone(),
            timeout: options.connect_timeout,
            proxy: proxy.cloned(),
        });
        let pool = Pool::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.idle_per_host)
            .http1_max_buf_size(usize::from(HEAD_MAX_BYTES))
            .http2_max_header_list_size(u32::from(HEAD_MAX_BYTES))
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        Self { policy, pool }
    }

    async fn exchange(&self, request: &Request, started: Instant, deadline: Instant) -> Result<Answer, Broken> {
        let mut outgoing = build(request)?;
        let connection = capture_connection(&mut outgoing);
        let response = match tokio::time::timeout_at(deadline, self.pool.request(outgoing)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(broken(&error, &connection)),
            Err(_) if connection.connection_metadata().is_some() => return Err(Failure::ResponseTimeout.into()),
            Err(_) => return Err(Failure::ConnectTimeout.into()),
        };
        let first_byte = started.elapsed();
        let (head, body) = response.into_parts();
        if let Some(uses) = head.extensions.get::<Uses>() {
            uses.0.fetch_add(1, Ordering::Relaxed);
        }
        let read = tokio::time::timeout_at(deadline, answer::read(body, request.read_limit));
        let (body, cut) = read.await.map_err(|_| Failure::ResponseTimeout)??;
        let elapsed = started.elapsed();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, cut, first_byte, elapsed })
    }
}

fn build(request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
    let mut outgoing = hyper::Request::new(Full::new(request.body.clone()));
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = request.url.as_str().parse().map_err(|_| Failure::BadRequest)?;
    let headers = outgoing.headers_mut();
    headers.reserve(request.headers.len() + 2);
    for (name, value) in &request.headers {
        headers.append(name.clone(), value.clone());
    }
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
    Ok(outgoing)
}

/// What a refusal of the policy is called outside.
fn refused(why: Forbidden) -> Failure {
    match why {
        Forbidden::Address => Failure::AddressForbidden,
        Forbidden::Http => Failure::HttpsRequired,
        Forbidden::Scheme | Forbidden::UserInfo => Failure::BadRequest,
    }
}

fn broken(error: &PoolError, connection: &CaptureConnection) -> Broken {
    let mut extras = hyper::http::Extensions::new();
    if let Some(connected) = connection.connection_metadata().as_ref() {
        connected.get_extras(&mut extras);
    }
    let stale = extras.get::<Uses>().is_some_and(|uses| uses.0.load(Ordering::Relaxed) > 0);
    Broken { failure: answer::classify(error), stale }
}
