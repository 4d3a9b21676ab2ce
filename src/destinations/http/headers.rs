//! The headers of ours that a delivery carries: topic, ids, signatures.
//!
//! Always true: a header of ours is made here and nowhere else, so whoever shows what a delivery would carry shows what
//! one does. Not here: how a signature is made (`sign`), the subscription's own headers (`super`).

use super::super::Parcel;
use super::sign;
use crate::error::{Error, Result};
use crate::outbound::{HeaderName, HeaderValue, header};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const ATTEMPT: HeaderName = HeaderName::from_static("tidemill-attempt");
const REPLAY: HeaderName = HeaderName::from_static("tidemill-replay");

/// Headers that describe the message or the connection, and so cannot be set by a subscription.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "tidemill-attempt",
    "tidemill-replay",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Whether a header of this name, in lower case, is never a subscription's own, whatever the prefix.
pub(super) fn is_fixed(name: &str) -> bool {
    OWN_HEADERS.contains(&name)
}

/// The names that follow from `delivery.header_prefix`.
pub struct Names {
    topic: HeaderName,
    signature: HeaderName,
}

impl Names {
    /// The names with this prefix. Fails if it makes no header name.
    pub fn new(prefix: &str) -> Result<Self> {
        let name = |end: &str| {
            HeaderName::from_bytes(format!("{prefix}-{end}").as_bytes()).map_err(|e| {
                Error::invalid("delivery.header_prefix: use lower-case letters, digits and hyphens").because(e)
            })
        };
        Ok(Self { topic: name("topic")?, signature: name("signature")? })
    }

    /// Whether a header is ours; any case.
    pub(super) fn owns(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        is_fixed(&name) || name == self.topic.as_str() || name == self.signature.as_str()
    }
}

/// All of ours. `rsa` is the finished RSA signature, if there is to be one.
pub(super) fn ours(names: &Names, parcel: &Parcel, rsa: Option<&str>) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let (id, timestamp) = (parcel.event.to_string(), parcel.wall.seconds());
    let mut headers = Vec::with_capacity(8);
    headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    headers.push((names.topic.clone(), text(&parcel.topic)?));
    if let Some(signature) = rsa {
        headers.push((names.signature.clone(), text(signature)?));
    }
    if let Some(signature) = standard(parcel, &id, timestamp)? {
        headers.push((WEBHOOK_SIGNATURE, text(&signature)?));
    }
    headers.push((WEBHOOK_ID, text(&id)?));
    headers.push((WEBHOOK_TIMESTAMP, timestamp.into()));
    headers.push((ATTEMPT, parcel.attempt.into()));
    if parcel.replay {
        headers.push((REPLAY, HeaderValue::from_static("true")));
    }
    Ok(headers)
}

/// The headers that a delivery of this parcel carries, by name, signed on this thread: about 0.5 ms if with RSA.
pub fn signed(names: &Names, parcel: &Parcel) -> Result<Vec<(String, String)>> {
    let rsa = if parcel.signing.rsa {
        let digest = sign::rsa_digest(&parcel.address, &parcel.body);
        Some(sign::rsa(parcel.keys.rsa(parcel.at), &digest)?)
    } else {
        None
    };
    let headers = ours(names, parcel, rsa.as_deref())?;
    Ok(headers.iter().map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect())
}

fn standard(parcel: &Parcel, id: &str, timestamp: u64) -> Result<Option<String>> {
    let signing = parcel.signing;
    if !signing.hmac && !signing.ed25519 {
        return Ok(None);
    }
    if signing.hmac && parcel.secrets.is_empty() {
        return Err(Error::internal("a subscription that signs with HMAC has no secret"));
    }
    let message = sign::standard_message(id, timestamp, &parcel.body);
    let secrets = parcel.secrets.iter().filter(|_| signing.hmac);
    let keys = parcel.keys.ed25519(parcel.at).filter(|_| signing.ed25519).map(AsRef::as_ref);
    Ok(Some(sign::standard(&message, secrets, keys)))
}

fn text(value: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(value).map_err(Error::internal)
}
