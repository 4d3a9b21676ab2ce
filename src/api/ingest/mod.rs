//! `/in/c/{token}` and `/in/g/{token}/{webhookKey}`: webhooks of apps come in.
//!
//! Always true: a request is judged by a named check, stored on disk, and only then answered; an unknown token is a 404,
//! a bad signature a 401 and nothing stored, one that cannot be judged at the moment a 503; what is understood of it comes
//! afterwards. Not here: understanding
//! (`actors::watcher`), which runs `handle` again from the stored request: the run here only asks what the app shall get.

mod confirm;
mod door;

use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};

use super::call::Call;
use super::reply::Reply;
use super::route::{Access, Route, group};
use crate::connectors::{WebhookRequest, WebhookResponse, verify};
use crate::error::{Code, Error, Result};
use crate::store::Arrived;
use door::Door;
pub use door::Doors;

/// When an app shall send again what could not be judged.
const KEY_WAIT_SECONDS: u32 = 30;

pub(super) fn routes() -> Vec<Route> {
    let own = Route::get("/in/c/{token}", "A connection's own webhook, called by its app", own);
    let global =
        Route::get("/in/g/{token}/{webhookKey}", "A global webhook of an integration, called by the app", global);
    group("webhooks of apps", vec![own.only(Access::Open).webhook(), global.only(Access::Open).webhook()])
}

async fn own(call: Call) -> Result<Reply> {
    take_in(call, "").await
}

async fn global(call: Call) -> Result<Reply> {
    let key = call.param("webhookKey")?.to_owned();
    take_in(call, &key).await
}

async fn take_in(call: Call, webhook_key: &str) -> Result<Reply> {
    let state = &call.state;
    let count = |connector: &str, verdict: &str| state.metrics.webhooks_received.with([connector, verdict]).inc();
    let Some(door) = state.doors.find(&state.deps, call.param("token")?, webhook_key).await? else {
        count("unknown", "unknown-token");
        return Err(Error::new(Code::WebhookNotFound, "there is no webhook at this URL; copy it again from the API"));
    };
    let request = request(&call);
    if let Some(answer) = door.handshake(&request) {
        count(&door.connector.key, "handshake");
        return reply(answer);
    }
    if let Some(address) = door.to_confirm(&request) {
        confirm::remember(state, &door, address, call.now()).await?;
        count(&door.connector.key, "handshake");
        return Ok(Reply::text("application/json", "{}"));
    }
    let verdict = door.check(&state.doors, &state.deps, &request, state.clock.wall()).await;
    if verdict == verify::Verdict::Undecided {
        count(&door.connector.key, verdict.slug());
        let message = "the key that the signature is checked with cannot be had at the moment; send it again";
        return Err(Error::unavailable(message, KEY_WAIT_SECONDS));
    }
    if let verify::Verdict::Refused(refusal) = verdict {
        count(&door.connector.key, refusal.slug());
        let from = call.head.from.map(tracing::field::display);
        tracing::info!(from, connector = door.connector.key, reason = refusal.slug(), "a webhook was refused");
        return Err(Error::new(Code::BadSignature, refusal.to_string()));
    }
    if request.body.is_empty() && matches!(call.head.method.as_str(), "GET" | "HEAD") {
        // A handshake: there is nothing to keep, and the app wants an answer now.
        count(&door.connector.key, "handshake");
        let answer = door.answer(&request, state.options.webhook_answer_timeout).await;
        return answer.map_or_else(|| Ok(accepted()), reply);
    }
    let request = door.without_secrets(request);
    let unverified = verdict == verify::Verdict::Unsigned;
    if unverified && state.store.unverified_bytes() + request.body.len() as u64 > state.options.unverified_bytes_max {
        count(&door.connector.key, "unavailable");
        return Err(Error::unavailable("too many webhooks wait to be judged by their connectors' scripts", 60));
    }
    let (owner, stored) = (door.owner, arrived(&door, webhook_key, &call, &request, verdict).incoming()?);
    if let Err(error) = state.store.accept(move |tx| tx.put_inbox(&owner, &stored)).await {
        count(&door.connector.key, "unavailable");
        return Err(error);
    }
    count(&door.connector.key, verdict.slug());
    state.rings.owner(door.owner);
    match door.answer(&request, state.options.webhook_answer_timeout).await {
        Some(response) => reply(response),
        None => Ok(accepted()),
    }
}

fn arrived<'a>(
    door: &Door,
    webhook_key: &'a str,
    call: &'a Call,
    request: &'a WebhookRequest,
    verdict: verify::Verdict,
) -> Arrived<'a> {
    Arrived {
        workspace: door.workspace,
        webhook_key,
        received_at: request.received_at,
        method: &request.method,
        uri: &call.head.uri,
        headers: &request.headers,
        body: &request.body,
        verdict: verdict.slug(),
        event: None,
    }
}

fn request(call: &Call) -> WebhookRequest {
    let headers = call.head.headers.iter();
    WebhookRequest {
        method: call.head.method.clone(),
        url: public(call.state.options.public_url.as_ref(), &call.head.uri),
        query: call.query.clone(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: call.body.clone(),
        received_at: call.now(),
    }
}

/// The URL that the app called, path prefix of `public_url` included: some apps sign it.
fn public(public_url: Option<&url::Url>, uri: &str) -> String {
    match public_url {
        Some(base) => format!("{}{uri}", base.as_str().trim_end_matches('/')),
        None => uri.to_owned(),
    }
}

/// 202: stored, and understood later.
fn accepted() -> Reply {
    Reply::text("application/json", r#"{"accepted":true}"#).with_status(202)
}

fn reply(response: WebhookResponse) -> Result<Reply> {
    let mut reply = Reply::text("application/json", response.body).with_status(response.status);
    for (name, value) in response.headers {
        // What a script gives as a header and is none is left out, rather than failing an app that did nothing wrong.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            reply.headers.retain(|(known, _)| *known != name);
            reply = reply.with_header(name, value);
        }
    }
    Ok(reply)
}

impl Door {
    /// What `handle` says the app shall get, if it says so in time.
    async fn answer(&self, request: &WebhookRequest, deadline: Duration) -> Option<WebhookResponse> {
        let asked = self.deadline().unwrap_or(deadline).min(deadline);
        match tokio::time::timeout(asked, self.ask(request)).await {
            Ok(Some(response)) => Some(response),
            // Understood, and nothing said about the answer.
            Ok(None) => Some(WebhookResponse { status: 200, headers: Vec::new(), body: "{}".into() }),
            Err(_) => None,
        }
    }
}
