//! One call of an app: address, credentials, budget, deadline, and what the answer means.
//!
//! Always true: a request goes only to the connection's base URI (or, for a token, to the address the connector's spec
//! names, without the account's credentials); redirects are refused; an answer that is too long is a failure, not a
//! shorter answer. Not here: pages and records (`connectors::rest`), who calls (`connectors::session`).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::exchange::{Asked, Exchange, Tap, Wire};
use super::mapping::Env;
use super::paging::{Position, stays};
use super::spec::Connector;
use super::{Budget, CallError, Credentials, Parameters, auth, verdict};
use crate::clock::Clock;
use crate::outbound::{self, Bytes, HeaderName, HeaderValue, Method};

/// The longest a call waits for its own budget; beyond it the engine is told to come back.
pub(super) const BUDGET_WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest name and value of a header that a connector may send.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// A request before credentials and address.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    /// Relative to the base URI; may hold a query of its own.
    pub path: String,
    /// The path counts from the host on: a next page's address, checked to be on the base URI.
    pub from_root: bool,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    /// Sent as JSON.
    pub body: Option<Value>,
    /// Sent as it is, with its content type, instead of `body`.
    pub raw_body: Option<(String, Bytes)>,
    /// The budget that it spends besides the connection's.
    pub budget: Option<String>,
}

impl Outgoing {
    /// A request without query, headers and body.
    pub fn new(method: Method, path: String) -> Self {
        let (query, headers) = (Vec::new(), Vec::new());
        Self { method, path, from_root: false, query, headers, body: None, raw_body: None, budget: None }
    }
    /// The same at the address of a page, where it has one of its own.
    pub fn at(self, position: &Position) -> Self {
        match position {
            Position::Address(address) => Self { path: address.clone(), from_root: true, query: Vec::new(), ..self },
            _ => self,
        }
    }
}

impl Incoming {
    /// The `Link` headers.
    pub fn links(&self) -> Vec<String> {
        self.headers.iter().filter(|(name, _)| name == "link").map(|(_, value)| value.clone()).collect()
    }
}

/// A good answer.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// A call that failed, with what the app answered.
#[derive(Clone, Debug)]
pub struct CallFailure {
    pub error: CallError,
    pub status: Option<u16>,
    pub content_type: Option<String>,
    pub body: String,
    /// The app says that the thing is not there.
    pub gone: bool,
}

impl CallFailure {
    /// A failure without an answer.
    pub fn silent(error: CallError) -> Self {
        Self { error, status: None, content_type: None, body: String::new(), gone: false }
    }
}

impl From<CallFailure> for CallError {
    fn from(failure: CallFailure) -> Self {
        failure.error
    }
}

/// Everything one connection's calls need.
pub struct Caller {
    pub connector: Arc<Connector>,
    /// The connection's base URI with the connector's suffix.
    pub base: Url,
    /// The same as a JSON text, for templates.
    base_value: Value,
    /// The connection's parameters, as an object.
    pub parameters: Value,
    credentials: RwLock<Arc<Credentials>>,
    wire: Wire,
    budget: Arc<Budget>,
    pub clock: Clock,
    /// None, but for whoever writes a connector.
    pub tap: Option<Tap>,
}

impl Caller {
    /// Joins the parts. The error is one sentence: the suffix has a hole without a value, or makes no URL.
    pub fn new(
        connector: Arc<Connector>,
        base_uri: &Url,
        parameters: Parameters,
        credentials: Credentials,
        wire: impl Into<Wire>,
        budget: Arc<Budget>,
        clock: Clock,
    ) -> Result<Self, String> {
        let parameters = Value::Object(parameters);
        let base = connector.base_uri.whole(base_uri, &parameters)?;
        let base_value = Value::from(base.as_str().trim_end_matches('/'));
        let credentials = RwLock::new(Arc::new(credentials));
        let wire = wire.into();
        Ok(Self { connector, base, base_value, parameters, credentials, wire, budget, clock, tap: None })
    }
    /// For calls to addresses of the spec alone, before it is known where the account is.
    pub fn elsewhere(
        connector: Arc<Connector>,
        parameters: Parameters,
        base: Url,
        client: outbound::Client,
        clock: Clock,
    ) -> Self {
        let base_value = Value::from(base.as_str().trim_end_matches('/'));
        let credentials = RwLock::new(Arc::new(Credentials::Integration { session: None }));
        let budget = Arc::new(Budget::of(&connector, clock.now()));
        let parameters = Value::Object(parameters);
        let wire = client.into();
        Self { connector, base, base_value, parameters, credentials, wire, budget, clock, tap: None }
    }
    /// The same opened by other credentials, out of the same budget.
    pub(super) fn opened_by(&self, credentials: Credentials) -> Self {
        Self {
            connector: Arc::clone(&self.connector),
            base: self.base.clone(),
            base_value: self.base_value.clone(),
            parameters: self.parameters.clone(),
            credentials: RwLock::new(Arc::new(credentials)),
            wire: self.wire.clone(),
            budget: Arc::clone(&self.budget),
            clock: self.clock.clone(),
            tap: self.tap.clone(),
        }
    }
    /// Calls go there from now on.
    pub(super) fn moves_to(&mut self, base: Url) {
        self.base_value = Value::from(base.as_str().trim_end_matches('/'));
        self.base = base;
    }
    /// The credentials of the moment.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// What the app last said of its limit on requests, in words for people.
    pub fn limit_told(&self) -> Option<String> {
        self.budget.told()
    }
    /// Uses other credentials from now on.
    pub fn adopt(&self, credentials: Credentials) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }
    /// The variables that every template and expression has.
    pub fn variables(&self) -> Vec<(&str, &Value)> {
        vec![("parameters", &self.parameters), ("baseUri", &self.base_value)]
    }
    /// A call with the connection's credentials.
    pub async fn call(&self, outgoing: Outgoing) -> Result<Incoming, CallFailure> {
        // Before the credentials are added.
        let asked = self.is_seen().then(|| Asked::of(&outgoing));
        if let Some(graphql) = &self.connector.graphql
            && self.is_query(&outgoing)
        {
            return self.ask(graphql, outgoing, asked).await;
        }
        let (outgoing, url) = self.prepare(outgoing).await?;
        self.send(outgoing, url, asked).await
    }
    /// The same with whatever the app answers, and what that would mean to a connector. What the request sets itself must
    /// not be what carries the credentials, or what the connector sends with each call.
    pub async fn pass(&self, outgoing: Outgoing) -> Result<(outbound::Answer, Option<CallError>), CallError> {
        let (headers, query) = (outgoing.headers.clone(), outgoing.query.clone());
        let (outgoing, url) = self.prepare(outgoing).await?;
        for (name, _) in &headers {
            if times(&headers, name) < times(&outgoing.headers, name) {
                return Err(CallError::NotSupported(format!("extraHeaders: the connection itself sets `{name}`")));
            }
        }
        for (name, _) in &query {
            if times(&query, name) < times(&outgoing.query, name) {
                return Err(CallError::NotSupported(format!("query: the connection itself sets `{name}`")));
            }
        }
        let answer = self.exchange(outgoing, url, None).await?;
        let judged = self.judge(answer.clone(), None);
        Ok((answer, judged.err().map(CallError::from)))
    }
    /// Adds the credentials, and waits for the budget.
    pub(super) async fn prepare(&self, mut outgoing: Outgoing) -> Result<(Outgoing, Url), CallFailure> {
        let credentials = self.credentials();
        let variables = self.variables();
        let env = Env::of(&variables);
        let way = auth::choose(&self.connector.auth, &credentials, Some(&env)).ok_or_else(|| {
            let message = format!("the connector does not take credentials of kind {}", credentials.kind());
            CallFailure::silent(CallError::Unauthorized(message))
        })?;
        let own = self.connector.headers.0.iter();
        // A call that says one of them itself means its own.
        let is_said = |name: &str| outgoing.headers.iter().any(|(said, _)| said.eq_ignore_ascii_case(name));
        let own = own.filter(|(name, _)| !is_said(name));
        let own: Vec<_> = own.filter_map(|(name, value)| Some((name.clone(), value.render(&env)?))).collect();
        outgoing.headers.splice(0..0, own);
        let now = self.clock.now();
        auth::apply(way, &credentials, &mut outgoing, &env, now).map_err(CallFailure::silent)?;
        let url = self.address(&outgoing).map_err(CallFailure::silent)?;
        self.spend(outgoing.budget.as_deref()).await.map_err(CallFailure::silent)?;
        // Signed after the wait: the timestamp must be the attempt's own.
        let signature = auth::sign(way, &credentials, outgoing.method.as_str(), &url, &env, self.clock.now())
            .map_err(CallFailure::silent)?;
        outgoing.headers.extend(signature.map(|value| ("authorization".to_owned(), value)));
        Ok((outgoing, url))
    }
    /// What is left of the connection's requests.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
    /// A call to an address of the spec's, with nothing but what is in the request.
    pub async fn call_elsewhere(&self, outgoing: Outgoing, url: Url) -> Result<Incoming, CallFailure> {
        let asked = self.is_seen().then(|| Asked::elsewhere(&outgoing, &url));
        self.spend(None).await.map_err(CallFailure::silent)?;
        self.send(outgoing, url, asked).await
    }
    /// The address of a request on the base URI. Absolute addresses and ways out of the base are refused.
    pub fn address(&self, outgoing: &Outgoing) -> Result<Url, CallError> {
        let refused = |why: &str| Err(CallError::BadAnswer(format!("the path {:?} is refused: {why}", outgoing.path)));
        let path = outgoing.path.as_str();
        if path.contains("://") && !path[..path.find("://").unwrap_or(0)].contains(['/', '?']) || path.starts_with("//")
        {
            return refused("it must be relative to the connection's base URI");
        }
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let base = if outgoing.from_root { "" } else { self.base.path().trim_end_matches('/') };
        let slash = if path.starts_with('/') || path.is_empty() { "" } else { "/" };
        let mut url = self.base.clone();
        url.set_path(&format!("{base}{slash}{path}"));
        url.set_query(query);
        if !outgoing.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&outgoing.query);
        }
        match stays(&url, &self.base) {
            true => Ok(url),
            false => refused("it leaves the connection's base URI"),
        }
    }
    async fn spend(&self, named: Option<&str>) -> Result<(), CallError> {
        let mut waited = Duration::ZERO;
        for budget in self.budget.spent_by(named) {
            while let Err(wait) = budget.take(self.clock.now()) {
                if waited + wait > BUDGET_WAIT_MAX {
                    return Err(CallError::RateLimited { retry_after: Some(wait) });
                }
                waited += wait;
                tokio::time::sleep(wait).await;
            }
        }
        Ok(())
    }
    /// Whether somebody looks on, or plays the app.
    fn is_seen(&self) -> bool {
        self.tap.is_some() || matches!(self.wire, Wire::Replay(_))
    }
    pub(super) async fn send(
        &self,
        outgoing: Outgoing,
        url: Url,
        asked: Option<Asked>,
    ) -> Result<Incoming, CallFailure> {
        let started = self.clock.now();
        let budget = outgoing.budget.clone();
        let answer = self.exchange(outgoing, url, asked.as_ref()).await;
        let done = answer.and_then(|answer| self.judge(answer, budget.as_deref()));
        if let (Some(tap), Some(asked)) = (&self.tap, asked) {
            tap(Exchange::new(asked, &done, self.clock.now().since(started)));
        }
        done
    }
    async fn exchange(
        &self,
        outgoing: Outgoing,
        url: Url,
        asked: Option<&Asked>,
    ) -> Result<outbound::Answer, CallFailure> {
        let mut request = outbound::Request::new(outgoing.method, url);
        request.timeout = self.connector.deadline;
        request.read_limit = self.connector.answer_bytes_max;
        request.headers = headers(&outgoing.headers).map_err(CallFailure::silent)?;
        if let Some((content_type, body)) = content(outgoing.body, outgoing.raw_body) {
            request.body = body;
            if !outgoing.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                let (_, value) = header("content-type", &content_type).map_err(CallFailure::silent)?;
                request.headers.push((outbound::header::CONTENT_TYPE, value));
            }
        }
        if !outgoing.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            request.headers.push((outbound::header::ACCEPT, HeaderValue::from_static("application/json")));
        }
        let answer = match (&self.wire, asked) {
            (Wire::App(client), _) => client.send(request).await.map_err(verdict::of_failure)?,
            (Wire::Replay(replay), Some(asked)) => replay.answer(asked)?,
            (Wire::Replay(_), None) => return Err(CallFailure::silent(CallError::unavailable("nothing was asked"))),
        };
        let now = self.clock.now();
        self.budget
            .spent_by(outgoing.budget.as_deref())
            .for_each(|budget| budget.heed(|name| answer.header(name), now));
        Ok(answer)
    }
    /// So many bytes of a file at another host, from there on, without credentials. Any status is an answer.
    pub(super) async fn read_file(&self, url: Url, from: u64, bytes: usize) -> Result<outbound::Answer, CallError> {
        let last = from.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX)).saturating_sub(1);
        self.read(url, vec![header("range", &format!("bytes={from}-{last}"))?], bytes).await
    }
    /// The same, all of it.
    pub(super) async fn read_whole(&self, url: Url, bytes: usize) -> Result<outbound::Answer, CallError> {
        self.read(url, Vec::new(), bytes).await
    }
    async fn read(
        &self,
        url: Url,
        headers: Vec<(HeaderName, HeaderValue)>,
        bytes: usize,
    ) -> Result<outbound::Answer, CallError> {
        let Wire::App(client) = &self.wire else {
            return Err(CallError::NotSupported("files of an app that is played back".to_owned()));
        };
        let mut request = outbound::Request::new(Method::GET, url);
        request.timeout = self.connector.deadline;
        request.read_limit = bytes;
        request.headers = headers;
        client.send(request).await.map_err(|failure| verdict::of_failure(failure).error)
    }
    fn judge(&self, answer: outbound::Answer, budget: Option<&str>) -> Result<Incoming, CallFailure> {
        let now = self.clock.now();
        self.note_warnings(|name| answer.header(name));
        let judged = verdict::judge(&self.connector, answer, now);
        if let Err(CallFailure { error: CallError::RateLimited { retry_after: Some(wait) }, .. }) = &judged {
            // Which of the counts is used up is the app's secret.
            self.budget.spent_by(budget).for_each(|budget| budget.block(*wait, now));
        }
        judged
    }
}

/// How often a name is among the pairs.
fn times(pairs: &[(String, String)], name: &str) -> usize {
    pairs.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
}

fn content(body: Option<Value>, raw_body: Option<(String, Bytes)>) -> Option<(String, Bytes)> {
    raw_body.or_else(|| Some(("application/json".to_owned(), Bytes::from(body?.to_string()))))
}

fn headers(pairs: &[(String, String)]) -> Result<Vec<(HeaderName, HeaderValue)>, CallError> {
    pairs.iter().map(|(name, value)| header(name, value)).collect()
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), CallError> {
    let wrong = || CallError::BadAnswer(format!("the header {name:?} or its value cannot be sent"));
    // The host and the length are the client's to say.
    let ours = ["host", "content-length", "connection", "transfer-encoding"];
    if ours.iter().any(|ours| name.eq_ignore_ascii_case(ours)) || name.len() + value.len() > HEADER_BYTES_MAX {
        return Err(wrong());
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, value))
}
