//! `enable`, `secret/rotate` and `test` of a subscription.
//!
//! Always true: a skipped backlog is cancelled in bounded steps before the subscription is switched on; after a rotation
//! old and new secret sign until the overlap ends; a test leaves nothing behind. Not here: how the test's request is
//! made (`actors::courier`).

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shape::{OneSubscription, view};
use super::{Call, find, id_of, ring, target};
use crate::api::call::not_found;
use crate::api::destinations::{self, test::DestinationTest};
use crate::api::reply::Reply;
use crate::api::route::Route;
use crate::destinations::Trial;
use crate::destinations::http::sign::HmacKey;
use crate::domain::body;
use crate::domain::event::{Event, Payload};
use crate::domain::failure::Failure;
use crate::domain::id::{EventId, Seq};
use crate::domain::subscription::{Halt, SigningSecret, SigningSecrets, Subscription};
use crate::domain::time::Millis;
use crate::domain::topic::PING;
use crate::error::{Code, Error, Result};
use crate::store::{Slot, Tx, Wait};

/// Deliveries cancelled in one commit.
const STEP: usize = 500;
const STEPS_MAX: usize = 1_000_000;
const OVERLAP_SECONDS_DEFAULT: u32 = 24 * 3600;
const OVERLAP_SECONDS_MAX: u32 = 30 * 24 * 3600;
/// Secrets that sign at the same time, at most: each adds to a header.
const SECRETS_MAX: usize = 5;

/// What happens to what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Backlog {
    /// It is delivered.
    #[default]
    Drain,
    /// It is cancelled.
    Skip,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Enable {
    /// What happens to what waits; `drain` if left out.
    #[serde(default)]
    backlog: Backlog,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rotate {
    /// How long the old secret signs beside the new one; a day if left out, 30 days at most.
    #[serde(default)]
    overlap_seconds: Option<u32>,
}

/// A body without fields.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What was seen on the way to the address. A phase that was not reached is absent.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TrialView {
    /// Whether a delivery would have been accepted.
    accepted: bool,
    /// What went wrong: `address-forbidden`, `dns-failed`, `tls-expired`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    /// The same as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// The addresses that the DNS gave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<String>,
    /// The server's own certificate first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chain: Vec<CertificateView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<u64>,
    /// The whole exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The beginning of the answer's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    /// The headers of ours that were sent, signatures included.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct CertificateView {
    subject: String,
    issuer: String,
    not_before: String,
    not_after: String,
}

#[derive(Serialize, JsonSchema)]
struct OneTrial {
    test: TrialView,
}

/// What a test showed: of an address, or of a destination.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the document's shape of both")]
enum AnyTrial {
    Address(Box<OneTrial>),
    Destination(DestinationTest),
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/{version}/one/webhooks/{subscriptionId}/enable", "Switch on, and end a halt", enable)
            .takes::<Enable>()
            .gives::<OneSubscription>(),
        Route::post("/{version}/one/webhooks/{subscriptionId}/secret/rotate", "Draw a new secret", rotate)
            .takes::<Rotate>()
            .gives::<OneSubscription>(),
        Route::post("/{version}/one/webhooks/{subscriptionId}/test", "Send a ping now and show the way", test)
            .takes::<Nothing>()
            .gives::<AnyTrial>(),
    ]
}

async fn enable(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<Enable>()?, call.workspace()?, id_of(&call)?);
    let lane = call.read(move |rows| find(rows, workspace, id)).await?.lane;
    if asked.backlog == Backlog::Skip {
        for _ in 0..STEPS_MAX {
            if !call.state.store.change(move |tx| tx.cancel_some(lane, STEP)).await? {
                break;
            }
        }
    }
    let change = move |tx: &mut Tx<'_>| {
        let mut enabled = find(tx, workspace, id)?;
        enabled.is_enabled = true;
        enabled.halt = Halt::No;
        enabled.updated_at = tx.now();
        tx.put_object(&enabled)?;
        tx.count_failures_anew(lane)?;
        let subscription = view(tx, &enabled, tx.now())?;
        Ok((Reply::json(&OneSubscription { subscription })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    ring(&call, lane);
    Ok(reply)
}

async fn rotate(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<Rotate>()?, call.workspace()?, id_of(&call)?);
    let overlap = asked.overlap_seconds.unwrap_or(OVERLAP_SECONDS_DEFAULT);
    if overlap > OVERLAP_SECONDS_MAX {
        return Err(Error::invalid(format!("overlapSeconds: use 0 to {OVERLAP_SECONDS_MAX}")));
    }
    let fresh = HmacKey::generate()?;
    let change = move |tx: &mut Tx<'_>| {
        let (rotated, now) = (find(tx, workspace, id)?, tx.now());
        target::refuse(&rotated, "secret")?;
        let stored: Option<SigningSecrets> = tx.secret(&id.0, Slot::SigningSecrets)?;
        let ends = now.after(Duration::from_secs(overlap.into()));
        let text = fresh.expose().to_owned();
        let mut secrets = SigningSecrets { all: vec![SigningSecret { text: text.clone(), until: None }] };
        for mut old in stored.map(|stored| stored.all).unwrap_or_default() {
            let until = old.until.map_or(ends, |until| until.min(ends));
            old.until = Some(until);
            if until > now && secrets.all.len() < SECRETS_MAX {
                secrets.all.push(old);
            }
        }
        tx.put_secret(&id.0, Slot::SigningSecrets, &secrets)?;
        let mut subscription = view(tx, &rotated, now)?;
        subscription.secret = Some(text);
        Ok((Reply::json(&OneSubscription { subscription })?, rotated.lane))
    };
    let (reply, lane) = call.change(change).await?;
    ring(&call, lane);
    Ok(reply)
}

async fn test(call: Call) -> Result<Reply> {
    let Nothing {} = call.json()?;
    let (workspace, id, now) = (call.workspace()?, id_of(&call)?, call.now());
    let missing = || not_found(Code::SubscriptionNotFound, &id.to_string());
    let tested = call.read(move |rows| find(rows, workspace, id)).await?;
    if let Some(destination) = tested.destination {
        let found = call.read(move |rows| destinations::find(rows, workspace, destination)).await?;
        return Reply::json(&destinations::test::run(&call.state, &found, tested.shape).await?);
    }
    let busy = |_| Error { retry_after: Some(1), ..Error::new(Code::TooManyRequests, "too many tests run at once") };
    let _room = call.state.tests.try_acquire().map_err(busy)?;
    let seq: Seq = call.state.store.append(Wait::Applied, |tx| tx.next_seq()).await?;
    let event = EventId::new(seq, workspace);
    let body = body::render(&ping(&tested, now), event, tested.api_version, &tested.include);
    let trial = call.state.outlet.try_out(tested.lane, event, PING, body.into()).await?.ok_or_else(missing)?;
    if trial.way.failure == Some(Failure::AddressForbidden) {
        tracing::warn!(subscription = %id, address = tested.address, "a test was refused: the address is forbidden");
    }
    Reply::json(&OneTrial { test: shown(trial) })
}

fn ping(of: &Subscription, now: Millis) -> Event {
    let payload = serde_json::json!({"subscriptionId": of.id.to_string(), "message": "a test of this subscription"});
    Event {
        topic: PING.to_owned(),
        update_type: Some("ping".to_owned()),
        about: Some(of.id),
        ..Event::blank(of.workspace, Payload::Plain(payload.to_string()), now)
    }
}

fn shown(trial: Trial) -> TrialView {
    let way = trial.way;
    let chain = way.chain.into_iter().map(|certificate| CertificateView {
        subject: certificate.subject,
        issuer: certificate.issuer,
        not_before: certificate.not_before.rfc3339_seconds(),
        not_after: certificate.not_after.rfc3339_seconds(),
    });
    TrialView {
        accepted: trial.accepted,
        failure: way.failure.map(Failure::slug),
        message: way.failure.map(Failure::sentence),
        addresses: way.addresses.iter().map(ToString::to_string).collect(),
        dns_ms: way.dns_ms,
        connect_ms: way.connect_ms,
        tls_ms: way.tls_ms,
        tls_version: way.tls_version,
        chain: chain.collect(),
        first_byte_ms: trial.first_byte_ms,
        total_ms: trial.total_ms,
        status: trial.status,
        answer: trial.answer,
        headers: trial.headers.into_iter().collect(),
    }
}
