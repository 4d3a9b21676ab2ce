//! Named signature checks of webhooks, so that the hot path needs no script.
//!
//! Always true: a check works on the raw body and on the public URL, never on anything parsed or on a `Host` header;
//! comparisons take constant time; several secrets may be valid at once, for the time of a rotation; a signature that
//! covers a time is refused when that time is more than five minutes off. Not here: checks that only a script can do
//! ([`Kind::Script`] leaves those to it), and where the secrets are kept.
//!
//! Sources: `hubspot-v3` developers.hubspot.com "Validating requests" (v3); `shopify` shopify.dev "Verify webhook
//! deliveries"; `slack-v0` api.slack.com "Verifying requests from Slack"; `stripe-t-v1` docs.stripe.com "Verify webhook
//! signatures manually"; `standard-webhooks` the specification of that name; `adobe-io` see `adobe`.

mod adobe;
mod fetched;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

pub use self::fetched::{Answered, Keys, ask};
use super::WebhookRequest;
use crate::domain::secret::Secret;
use crate::domain::time::Millis;

/// How far the time in a signature may be off, in seconds. Every app that signs a time says five minutes.
const TOLERANCE_SECONDS: u64 = 300;
/// How many signatures of one request are looked at; a forger must not buy work with a long header.
const SIGNATURES_MAX: usize = 16;

/// The names that a connector's spec may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `X-Adobe-Digital-Signature-1` and `-2`: RSA signatures of the body with keys that Adobe publishes, on events for one
    /// of the client ids that `secret` names.
    AdobeIo,
    /// HMAC-SHA256 of the body, in `header`, as `encoding`, after `prefix`.
    HmacSha256,
    /// `X-HubSpot-Signature-v3`: base64 HMAC-SHA256 of method, decoded URL, body and `X-HubSpot-Request-Timestamp`.
    HubspotV3,
    /// `X-Shopify-Hmac-Sha256` or `Shopify-Hmac-Sha256`: base64 HMAC-SHA256 of the body.
    Shopify,
    /// `X-Slack-Signature`: `v0=` and the hex HMAC-SHA256 of `v0:time:body`.
    SlackV0,
    /// `Stripe-Signature`: `t=time,v1=hex`, the HMAC-SHA256 of `time.body`.
    StripeTV1,
    /// `webhook-signature`: `v1,base64`, the HMAC-SHA256 of `id.time.body`; the secret may read `whsec_…`.
    StandardWebhooks,
    /// RSASSA-PKCS1-v1_5 with SHA-256 of the body, in `header`, as `encoding`; the secret is a public key as PEM.
    RsaSha256,
    /// The secret itself stands in `header` (after `prefix`) or in the `query` parameter.
    Token,
    /// Only the connector's script can tell.
    Script,
    /// The app signs nothing: who knows the unguessable URL is believed.
    None,
}

/// How bytes of a signature are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
}

/// The `verify` section of a webhook's spec.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    pub kind: Kind,
    /// The header that holds the signature or the token, where the kind does not fix it.
    pub header: Option<String>,
    /// The query parameter that holds the token.
    pub query: Option<String>,
    #[serde(default)]
    pub encoding: Encoding,
    /// What stands before the signature or the token, such as `sha256=`.
    #[serde(default)]
    pub prefix: String,
    /// The parameter that holds the secret or the public key: a text, or a list of texts during a rotation.
    pub secret: Option<String>,
    /// The parameter that holds another host of the keys, where the kind fetches them.
    pub keys: Option<String>,
    /// The parameter that holds the secret of before the last rotation, which is good as well.
    pub former: Option<String>,
    /// While the parameter is not set, requests are believed as with `none`.
    #[serde(default)]
    pub optional: bool,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Verified,
    /// Answered with a 401; nothing is stored.
    Refused(Refusal),
    /// The script must judge.
    Unsigned,
    /// The key could not be had: answered with a 503, so that the app sends it again.
    Undecided,
}

impl Verdict {
    /// A short stable name, for the inbox and for metrics.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Refused(refusal) => refusal.slug(),
            Self::Unsigned => "unverified",
            Self::Undecided => "key-unavailable",
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request carries no signature")]
    Missing,
    #[error("the signature is wrong")]
    Wrong,
    #[error("the signature's time is missing or more than five minutes off")]
    Stale,
    #[error("the event is for another recipient than the client id that is set here")]
    Foreign,
    #[error("the key that the request names is not on the app's own host")]
    KeyElsewhere,
    #[error("the secret that the signature is checked with is not set on the integration or connection")]
    NoSecret,
}

impl Refusal {
    /// A short stable name, for the inbox and for metrics.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Missing => "signature-missing",
            Self::Wrong => "signature-wrong",
            Self::Stale => "signature-stale",
            Self::Foreign => "recipient-foreign",
            Self::KeyElsewhere => "key-elsewhere",
            Self::NoSecret => "secret-not-set",
        }
    }
}

impl Spec {
    /// What the spec lacks or has too much: field and sentence. For the connector's loader.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        let secret = !matches!(self.kind, Kind::None | Kind::Script);
        let header = matches!(self.kind, Kind::HmacSha256 | Kind::RsaSha256);
        match self {
            _ if secret && self.secret.is_none() => {
                Some(("secret", "this kind needs the parameter that holds the secret"))
            }
            _ if !secret && self.secret.is_some() => Some(("secret", "this kind uses no secret")),
            _ if self.keys.is_some() && !self.fetches_keys() => Some(("keys", "this kind fetches no keys")),
            _ if header && self.header.is_none() => Some(("header", "this kind needs the header of the signature")),
            _ if self.kind == Kind::Token && self.header.is_some() == self.query.is_some() => {
                Some(("header", "a token stands in a header or in a query parameter: name one of them"))
            }
            _ if self.kind != Kind::Token && self.query.is_some() => {
                Some(("query", "only a token may be in the query"))
            }
            _ => None,
        }
    }

    /// Whether the keys must be fetched: see [`Keys::check`].
    pub fn fetches_keys(&self) -> bool {
        self.kind == Kind::AdobeIo
    }

    /// Where the keys are. The error is one sentence.
    ///
    /// # Errors
    /// The parameter is no plain address of a host.
    pub fn keys_at(&self, parameters: &Map<String, Value>) -> Result<Url, String> {
        let given = self.keys.as_ref().and_then(|name| parameters.get(name)).and_then(Value::as_str);
        let text = given.filter(|text| !text.is_empty()).unwrap_or(adobe::KEYS_AT);
        let is_host =
            |url: &Url| url.has_host() && url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http") && is_host(url));
        url.ok_or_else(|| "the address of the keys must be that of a host, without a path".to_owned())
    }

    /// The secrets among these parameters; the first set of parameters that has any counts.
    pub fn secrets(&self, parameters: &[&Map<String, Value>]) -> Vec<Secret> {
        let Some(name) = &self.secret else { return Vec::new() };
        let texts = |value: &Value| match value {
            Value::String(text) if !text.is_empty() => vec![Secret::new(text.as_str())],
            Value::Array(items) => items.iter().filter_map(Value::as_str).map(Secret::new).collect(),
            _ => Vec::new(),
        };
        let mut found = parameters.iter().filter_map(|map| map.get(name)).map(texts);
        let mut all = found.find(|secrets| !secrets.is_empty()).unwrap_or_default();
        if let (Some(name), false) = (&self.former, all.is_empty()) {
            all.extend(parameters.iter().filter_map(|map| map.get(name)).flat_map(texts));
        }
        all
    }

    /// Judges a request. Any of the secrets may have signed it. A kind that fetches its keys is left undecided here.
    pub fn check(&self, request: &WebhookRequest, secrets: &[Secret], now: Millis) -> Verdict {
        match self.kind {
            Kind::None => return Verdict::Verified,
            Kind::Script => return Verdict::Unsigned,
            _ if secrets.is_empty() && self.optional => return Verdict::Verified,
            _ if secrets.is_empty() => return Verdict::Refused(Refusal::NoSecret),
            Kind::AdobeIo => return Verdict::Undecided,
            _ => {}
        }
        match self.judge(request, secrets, now) {
            Ok(true) => Verdict::Verified,
            Ok(false) => Verdict::Refused(Refusal::Wrong),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn judge(&self, request: &WebhookRequest, secrets: &[Secret], now: Millis) -> Result<bool, Refusal> {
        let body = request.body.as_ref();
        let any = |check: &dyn Fn(&Secret) -> bool| Ok(secrets.iter().any(check));
        match self.kind {
            Kind::HmacSha256 => {
                let given = self.decode(self.named(request)?)?;
                any(&|secret| hmac_is(secret.expose().as_bytes(), &[body], &given))
            }
            Kind::RsaSha256 => {
                let given = self.decode(self.named(request)?)?;
                any(&|pem| rsa_is(pem.expose(), body, &given))
            }
            Kind::Token => {
                let given = self.named(request)?.strip_prefix(self.prefix.as_str()).ok_or(Refusal::Wrong)?;
                any(&|secret| verify_slices_are_equal(secret.expose().as_bytes(), given.as_bytes()).is_ok())
            }
            Kind::Shopify => {
                let given = header(request, "x-shopify-hmac-sha256").or_else(|| header(request, "shopify-hmac-sha256"));
                let given = base64(given.ok_or(Refusal::Missing)?)?;
                any(&|secret| hmac_is(secret.expose().as_bytes(), &[body], &given))
            }
            Kind::HubspotV3 => hubspot(request, secrets, now),
            Kind::SlackV0 => slack(request, secrets, now),
            Kind::StripeTV1 => stripe(request, secrets, now),
            Kind::StandardWebhooks => standard(request, secrets, now),
            Kind::AdobeIo | Kind::None | Kind::Script => Ok(false),
        }
    }

    /// The text in the spec's header or query parameter.
    fn named<'r>(&self, request: &'r WebhookRequest) -> Result<&'r str, Refusal> {
        let found = match (&self.header, &self.query) {
            (Some(name), _) => header(request, &name.to_ascii_lowercase()),
            (None, Some(name)) => request.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()),
            (None, None) => None,
        };
        found.ok_or(Refusal::Missing)
    }

    fn decode(&self, text: &str) -> Result<Vec<u8>, Refusal> {
        let text = text.trim().strip_prefix(self.prefix.as_str()).ok_or(Refusal::Wrong)?;
        match self.encoding {
            Encoding::Hex => hex::decode(text).map_err(|_| Refusal::Wrong),
            Encoding::Base64 => base64(text),
        }
    }
}

fn header<'r>(request: &'r WebhookRequest, lower_case: &str) -> Option<&'r str> {
    request.headers.iter().find(|(name, _)| name == lower_case).map(|(_, value)| value.as_str())
}

fn base64(text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD_NO_PAD.decode(text.trim().trim_end_matches('=')).map_err(|_| Refusal::Wrong)
}

fn hmac_is(secret: &[u8], parts: &[&[u8]], given: &[u8]) -> bool {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in parts {
        context.update(part);
    }
    verify_slices_are_equal(context.sign().as_ref(), given).is_ok()
}

fn rsa_is(pem: &str, body: &[u8], given: &[u8]) -> bool {
    let lines = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let Ok(der) = STANDARD.decode(lines.collect::<String>()) else { return false };
    let key = signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der);
    key.verify(body, given).is_ok()
}

/// The time that a signature covers, as it is written, when it is near `now`. `unit` is how many of it make a second.
fn fresh(text: Option<&str>, unit: u64, now: Millis) -> Result<&str, Refusal> {
    let text = text.ok_or(Refusal::Stale)?;
    let seconds = text.parse::<u64>().map_err(|_| Refusal::Stale)? / unit;
    if seconds.abs_diff(now.seconds()) > TOLERANCE_SECONDS { Err(Refusal::Stale) } else { Ok(text) }
}

/// What HubSpot decodes in the URL before it signs; every other sequence stays as it is.
const HUBSPOT_DECODES: [(&str, &str); 12] = [
    ("%3A", ":"),
    ("%2F", "/"),
    ("%3F", "?"),
    ("%40", "@"),
    ("%21", "!"),
    ("%24", "$"),
    ("%27", "'"),
    ("%28", "("),
    ("%29", ")"),
    ("%2A", "*"),
    ("%2C", ","),
    ("%3B", ";"),
];

fn hubspot_url(url: &str) -> String {
    let mut decoded = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        decoded.push_str(before);
        let sequence = from.get(..3).unwrap_or(from);
        let known = HUBSPOT_DECODES.iter().find(|(encoded, _)| encoded.eq_ignore_ascii_case(sequence));
        decoded.push_str(known.map_or(sequence, |(_, plain)| plain));
        rest = &from[sequence.len()..];
    }
    decoded.push_str(rest);
    decoded
}

fn hubspot(request: &WebhookRequest, secrets: &[Secret], now: Millis) -> Result<bool, Refusal> {
    let given = base64(header(request, "x-hubspot-signature-v3").ok_or(Refusal::Missing)?)?;
    let time = fresh(header(request, "x-hubspot-request-timestamp"), 1000, now)?;
    let url = hubspot_url(&request.url);
    let parts = [request.method.as_bytes(), url.as_bytes(), request.body.as_ref(), time.as_bytes()];
    Ok(secrets.iter().any(|secret| hmac_is(secret.expose().as_bytes(), &parts, &given)))
}

fn slack(request: &WebhookRequest, secrets: &[Secret], now: Millis) -> Result<bool, Refusal> {
    let given = header(request, "x-slack-signature").ok_or(Refusal::Missing)?;
    let given = given.strip_prefix("v0=").and_then(|text| hex::decode(text).ok()).ok_or(Refusal::Wrong)?;
    let time = fresh(header(request, "x-slack-request-timestamp"), 1, now)?;
    let parts = [b"v0:", time.as_bytes(), b":", request.body.as_ref()];
    Ok(secrets.iter().any(|secret| hmac_is(secret.expose().as_bytes(), &parts, &given)))
}

fn stripe(request: &WebhookRequest, secrets: &[Secret], now: Millis) -> Result<bool, Refusal> {
    let given = header(request, "stripe-signature").ok_or(Refusal::Missing)?;
    let fields = || given.split(',').filter_map(|field| field.trim().split_once('='));
    let time = fresh(fields().find(|(name, _)| *name == "t").map(|(_, value)| value), 1, now)?;
    let parts = [time.as_bytes(), b".", request.body.as_ref()];
    let signatures = fields().filter(|(name, _)| *name == "v1").filter_map(|(_, value)| hex::decode(value).ok());
    Ok(any_signs(signatures, secrets.iter().map(|secret| secret.expose().as_bytes().to_vec()), &parts))
}

fn standard(request: &WebhookRequest, secrets: &[Secret], now: Millis) -> Result<bool, Refusal> {
    let given = header(request, "webhook-signature").ok_or(Refusal::Missing)?;
    let id = header(request, "webhook-id").ok_or(Refusal::Missing)?;
    let time = fresh(header(request, "webhook-timestamp"), 1, now)?;
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", request.body.as_ref()];
    let signatures = given.split(' ').filter_map(|one| base64(one.strip_prefix("v1,")?).ok());
    let keys = secrets.iter().filter_map(|secret| {
        let text = secret.expose();
        base64(text.strip_prefix("whsec_").unwrap_or(text)).ok()
    });
    Ok(any_signs(signatures, keys, &parts))
}

fn any_signs(signatures: impl Iterator<Item = Vec<u8>>, keys: impl Iterator<Item = Vec<u8>>, parts: &[&[u8]]) -> bool {
    let signatures: Vec<_> = signatures.take(SIGNATURES_MAX).collect();
    keys.into_iter().any(|key| signatures.iter().any(|given| hmac_is(&key, parts, given)))
}

#[cfg(test)]
mod tests;
