//! From actix to a handler and back: finds the route, checks the key, reads the body, answers in JSON.
//!
//! Always true: a body is read only after its sender was found; it has a limit and a deadline; whatever goes wrong, the
//! answer is JSON. Not here: what the routes are (`route`, and `table` in `mod`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use actix_web::http::Method;
use actix_web::http::header::{ALLOW, CONTENT_LENGTH, HeaderValue};
use actix_web::web::{Payload, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::call::{Call, Head};
use super::idempotency::{self, Begun};
use super::reply::{Reply, refusal};
use super::route::{Access, BodyLimit, Route, Surface};
use super::state::State;
use super::{auth, remote, table};
use crate::domain::version::ApiVersion;
use crate::domain::workspace::Scope;
use crate::error::{Code, Error, Result};

/// Bytes of a body over its limit that are read and dropped, so that its sender gets to see the 413: closing at once
/// would reset the connection under the sender's hands.
const READ_ON_BYTES: usize = 32 << 20;

/// Registers the routes of these surfaces; everything else is a 404 in JSON.
pub(super) fn register(state: &State, surfaces: &[Surface], config: &mut ServiceConfig) {
    for (path, routes) in resources(surfaces) {
        let (state, routes) = (state.clone(), Rc::new(routes));
        config.service(web::resource(pattern(&path)).to(move |request: HttpRequest, payload: Payload| {
            let (state, routes) = (state.clone(), routes.clone());
            async move { respond(&state, &routes, request, payload).await }
        }));
    }
    let state = state.clone();
    config.default_service(web::to(move |request: HttpRequest| {
        let state = state.clone();
        async move {
            let shown: String = request.path().chars().take(200).collect();
            let error = Error::new(Code::RouteNotFound, format!("there is nothing at {shown}; see /openapi.json"));
            finish(&state, "api", refusal(&error))
        }
    }));
}

/// The routes by path, fixed parts before `{…}`, so that `/users/batch` is not a user.
pub(super) fn resources(surfaces: &[Surface]) -> Vec<(String, Vec<Route>)> {
    let mut by_path: BTreeMap<String, Vec<Route>> = BTreeMap::new();
    for route in table().into_iter().filter(|route| surfaces.contains(&route.surface)) {
        for path in route.paths() {
            by_path.entry(path).or_default().push(route.clone());
        }
    }
    let mut resources: Vec<_> = by_path.into_iter().collect();
    let weight = |path: &str| path.split('/').map(|part| part.starts_with('{')).collect::<Vec<_>>();
    // Webhooks of apps come in the largest numbers, and actix tries one path after the other.
    resources.sort_by_key(|(path, _)| (!path.starts_with("/in/"), weight(path)));
    resources
}

/// The path as actix matches it: versions by name, a slash at the end or none.
fn pattern(path: &str) -> String {
    format!("{}{{_slash:/?}}", path.replace("{version}", "{version:2023-12|2024-03}"))
}

async fn respond(state: &State, routes: &[Route], request: HttpRequest, payload: Payload) -> HttpResponse {
    let (method, started) = (request.method().clone(), Instant::now());
    let Some(route) = routes.iter().find(|route| route.answers(&method)) else {
        return finish(state, "api", not_allowed(&method, routes));
    };
    let surface = match route.body_limit {
        BodyLimit::Webhook => "inbox",
        BodyLimit::Api if route.access == Access::Open => "page",
        BodyLimit::Api => "api",
    };
    let from = remote::caller(request.peer_addr(), request.headers(), &state.options.trusted_proxies);
    let reply = match answer(state, route, &request, payload, from).await {
        Ok(reply) => reply,
        Err(error) => {
            if matches!(error.code, Code::Unauthorized | Code::Forbidden) {
                let from = from.map(tracing::field::display);
                tracing::info!(target: "tidemill::request", from, %method, path = route.path, "refused: {error}");
            }
            refusal(&error)
        }
    };
    // The pattern, not the path: a path may hold a token.
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let from = from.map(tracing::field::display);
    tracing::debug!(target: "tidemill::request", from, %method, path = route.path, status = reply.status, took_ms);
    finish(state, surface, reply)
}

fn finish(state: &State, surface: &str, reply: Reply) -> HttpResponse {
    state.metrics.requests.with([surface, &reply.status.to_string()]).inc();
    reply.into_response()
}

fn not_allowed(method: &Method, routes: &[Route]) -> Reply {
    let methods: Vec<&str> = routes.iter().filter_map(|r| r.method.as_ref().map(Method::as_str)).collect();
    let allowed = methods.join(", ");
    let error = Error::new(Code::MethodNotAllowed, format!("{method} is not possible here; use {allowed}"));
    let reply = refusal(&error);
    match HeaderValue::from_str(&allowed) {
        Ok(value) => reply.with_header(ALLOW, value),
        Err(_) => reply,
    }
}

async fn answer(
    state: &State,
    route: &Route,
    request: &HttpRequest,
    payload: Payload,
    from: Option<IpAddr>,
) -> Result<Reply> {
    let caller = match route.access {
        Access::Key(scope) => Some(auth::caller(state, request.headers(), &[scope]).await?),
        Access::Hooks(scope) => Some(auth::caller(state, request.headers(), &[Scope::Hooks, scope]).await?),
        Access::Operator => auth::operator(state, request.headers()).map(|()| None)?,
        Access::Node => auth::node(state, request.headers()).await.map(|()| None)?,
        Access::Open => None,
    };
    let method = request.method();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let removes = *method == Method::DELETE;
    if !reads && !removes && state.store.is_full() {
        return Err(Error::unavailable("the node's disk is nearly full, or too much waits to be written", 5));
    }
    let limit = match route.body_limit {
        BodyLimit::Api => state.options.body_bytes_max,
        BodyLimit::Webhook => state.options.webhook_bytes_max,
    };
    let body = if reads { Bytes::new() } else { read_body(state, request, payload, limit).await? };
    let params = params(request).await?;
    let version = params.get("version").and_then(|v| v.parse().ok()).unwrap_or(ApiVersion::V2024_03);
    let query = url::form_urlencoded::parse(request.query_string().as_bytes()).into_owned().collect();
    let head = Head {
        method: method.as_str().to_owned(),
        uri: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: request.headers().clone(),
        from,
    };
    let call = Call { state: state.clone(), version, caller, head, body, params, query, place: None };
    if *method == Method::POST
        && call.caller.is_some()
        && let Some(key) = idempotency::key(request.headers())?
    {
        return with_key(route, call, &key).await;
    }
    (route.handler)(call).await
}

async fn with_key(route: &Route, mut call: Call, key: &str) -> Result<Reply> {
    match idempotency::begin(&mut call, key).await? {
        Begun::Answered(reply) => Ok(reply),
        Begun::Fresh => {
            let (state, place) = (call.state.clone(), call.place.clone());
            let reply = (route.handler)(call).await?;
            idempotency::end(&state, place, reply).await
        }
    }
}

/// The parts of the path, decoded.
async fn params(request: &HttpRequest) -> Result<HashMap<String, String>> {
    let read = web::Path::<HashMap<Name, String>>::extract(request).await;
    read.map(|path| path.into_inner().into_iter().map(|(name, part)| (name.0, part)).collect())
        .map_err(|error| Error::new(Code::Malformed, "the path cannot be read").because(error.to_string()))
}

/// The name of a part. actix-router gives names as identifiers only (`Key` in its de.rs), which a `String` is not.
#[derive(PartialEq, Eq, Hash)]
struct Name(String);

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Name, E> {
                Ok(Name(text.to_owned()))
            }
        }
        deserializer.deserialize_identifier(Text)
    }
}

async fn read_body(state: &State, request: &HttpRequest, payload: Payload, limit: usize) -> Result<Bytes> {
    let told = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let too_large = || Error::new(Code::TooLarge, format!("the body is over the limit of {limit} bytes"));
    if told.is_some_and(|length: usize| length > limit.saturating_add(READ_ON_BYTES)) {
        return Err(too_large());
    }
    let read = read_up_to(payload, limit, told.unwrap_or(0).min(limit));
    match tokio::time::timeout(state.options.read_timeout, read).await {
        Ok(Ok(Some(body))) => Ok(body),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let seconds = state.options.read_timeout.as_secs();
            Err(Error::new(Code::Malformed, format!("the body did not come in full within {seconds} seconds")))
        }
    }
}

/// None: it was longer.
async fn read_up_to(mut payload: Payload, limit: usize, expected: usize) -> Result<Option<Bytes>> {
    let mut body = BytesMut::with_capacity(expected);
    let mut over = 0_usize;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Error::new(Code::Malformed, format!("the body broke off: {error}")))?;
        if over > 0 || body.len() + chunk.len() > limit {
            over += chunk.len();
            body.clear();
            if over > READ_ON_BYTES {
                break;
            }
            continue;
        }
        body.extend_from_slice(&chunk);
    }
    Ok((over == 0).then(|| body.freeze()))
}
