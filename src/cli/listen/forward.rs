//! Sending an event on to a receiver of one's own, as a delivery would come.
//!
//! Always true: the body is byte for byte what the node signed; RSA and Ed25519 are the node's own signatures, made for
//! the receiver's address; `v1` is made here with a secret that the receiver knows, since a subscription's secret is
//! shown once and belongs to that subscription.

use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use standardwebhooks::Webhook;

use crate::cli::Failure;
use crate::outbound::USER_AGENT;

/// As a subscription's by default.
const TIMEOUT: Duration = Duration::from_secs(15);
const SECRET_BYTES: usize = 24;

/// The receiver.
pub(super) struct Forward {
    address: String,
    secret: String,
    /// Whether the secret is one that nobody has seen yet.
    drawn: bool,
    webhook: Webhook,
    client: reqwest::Client,
}

/// What became of one event.
pub(super) struct Sent {
    pub(super) body: String,
    outcome: Result<u16, String>,
    took: Duration,
}

#[derive(Deserialize)]
struct Envelope {
    headers: Map<String, Value>,
    body: String,
}

fn failed(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{what}: {why}"))
}

impl Forward {
    /// A receiver at `address` that checks `v1` with `secret`, or with a fresh one.
    pub(super) fn new(address: String, secret: Option<String>) -> Result<Self, Failure> {
        if !url::Url::parse(&address).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(Failure::Usage(format!("--forward-to {address:?} is not an http or https address")));
        }
        let drawn = secret.is_none();
        let secret = match secret {
            Some(secret) => secret,
            None => draw()?,
        };
        let webhook = Webhook::new(&secret).map_err(|_| {
            Failure::Usage("--secret is whsec_ followed by base64, as a subscription shows it".to_owned())
        })?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|e| failed("cannot make an HTTP client", e))?;
        Ok(Self { address, secret, drawn, webhook, client })
    }

    /// What a person needs to know before the first event.
    pub(super) fn introduction(&self) -> String {
        let secret = if self.drawn {
            format!("The secret of this session, for v1 of webhook-signature: {}\n", self.secret)
        } else {
            String::new()
        };
        format!("Sending events on to {}, signed as deliveries to it are.\n{secret}", self.address)
    }

    /// Sends one event; `data` is the node's envelope.
    pub(super) async fn send(&self, data: &str) -> Result<Sent, Failure> {
        let envelope: Envelope =
            serde_json::from_str(data).map_err(|e| failed("the node sent an event without its headers", e))?;
        let mut headers: Vec<(String, String)> = envelope
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        self.sign(&mut headers, &envelope.body)?;
        let mut request = self.client.post(&self.address).header("user-agent", USER_AGENT);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let started = Instant::now();
        let answer = request.body(envelope.body.clone()).send().await;
        let outcome = match answer {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) => Err(super::super::http::cause(&error)),
        };
        Ok(Sent { body: envelope.body, outcome, took: started.elapsed() })
    }

    /// Adds `v1`, first as in a delivery, over the id and time that the node has signed.
    fn sign(&self, headers: &mut Vec<(String, String)>, body: &str) -> Result<(), Failure> {
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
        let (id, time, others) = (value("webhook-id"), value("webhook-timestamp"), value("webhook-signature"));
        let time = time.parse().map_err(|e| failed("the node's webhook-timestamp", e))?;
        let v1 = self.webhook.sign(&id, time, body.as_bytes()).map_err(|e| failed("cannot sign", e))?;
        let all = format!("{v1} {others}").trim_end().to_owned();
        headers.retain(|(name, _)| name != "webhook-signature");
        headers.push(("webhook-signature".to_owned(), all));
        Ok(())
    }
}

fn draw() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_BYTES];
    rand::fill(&mut bytes).map_err(|e| failed("the system's random source failed", e))?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)))
}

impl Sent {
    /// `200 in 12 ms`.
    pub(super) fn told(&self) -> String {
        let took = self.took.as_millis();
        match &self.outcome {
            Ok(status) => format!("{status} in {took} ms"),
            Err(why) => format!("not taken: {why}"),
        }
    }

    /// The same for programs.
    pub(super) fn json(&self, id: &str, topic: &str) -> Value {
        let took = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        match &self.outcome {
            Ok(status) => json!({"eventId": id, "topic": topic, "status": status, "tookMs": took}),
            Err(why) => json!({"eventId": id, "topic": topic, "error": why, "tookMs": took}),
        }
    }
}
