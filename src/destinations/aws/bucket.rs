//! A bucket of S3 or of a compatible store: objects written once under their name.
//!
//! Always true: a name that is there is not written over where the store honours `If-None-Match`, and is then held against
//! what was to be written; where it does not, the same bytes are written again. Not here: names and bytes
//! (`destinations::objects`), large objects (`multipart`). Source: Amazon S3 API Reference.

mod multipart;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::super::driver::{Fault, Verdict};
use super::super::objects;
use super::{Account, Call, faults};
use crate::domain::delivery::AttemptError;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::{Answer, Bytes, HeaderName, HeaderValue, Method};

/// Everything but what RFC 3986 leaves as it is, and `/`: how signatures want paths.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// For one object or one part of it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// For everything else.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of an answer that is no object.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Which bucket: settings that all kinds which write to one share.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Place {
    /// The bucket's name.
    pub bucket: String,
    /// The address of a compatible store, or another one of S3: `https://minio.example.com:9000`.
    pub s3_endpoint: Option<String>,
    /// The bucket is in the path and not in the host's name. As it is with `s3Endpoint` unless told otherwise.
    pub path_style: Option<bool>,
}

/// A bucket.
pub struct Bucket {
    pub account: Arc<Account>,
    pub name: String,
    /// Of the bucket itself, ending in `/`.
    url: Url,
    /// The store answered that it knows no conditions.
    plain: AtomicBool,
}

/// What became of a write that is only for a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Made,
    /// The name is taken.
    There,
}

impl Bucket {
    /// Checks the settings.
    ///
    /// # Errors
    /// `invalid`, with the setting's name.
    pub fn open(account: Arc<Account>, place: &Place) -> Result<Self> {
        let name = place.bucket.clone();
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let ends_well = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = name.as_bytes();
        if !(3..=63).contains(&name.len())
            || !name.bytes().all(is_plain)
            || !ends_well(bytes.first())
            || !ends_well(bytes.last())
        {
            let message = "settings.bucket: use a bucket's name: 3 to 63 lower-case letters, digits, `-` and `.`";
            return Err(Error::invalid(message));
        }
        // A dot in the name would not fit the wildcard of the certificate.
        let in_path = place.path_style.unwrap_or(place.s3_endpoint.is_some() || name.contains('.'));
        let mut url = account.endpoint("s3", "s3Endpoint", place.s3_endpoint.as_deref())?;
        if in_path {
            url.set_path(&format!("/{name}/"));
        } else {
            let host = format!("{name}.{}", url.host_str().unwrap_or_default());
            url.set_host(Some(&host))
                .map_err(|_| Error::invalid("settings.pathStyle: an endpoint that is an IP address needs `true`"))?;
        }
        Ok(Self { account, name, url, plain: AtomicBool::new(false) })
    }

    /// Writes an object, or finds that this very object is there.
    ///
    /// # Errors
    /// What the store has against it.
    pub async fn write(&self, key: &str, body: &Bytes) -> std::result::Result<(), Verdict> {
        let large = body.len() > multipart::ABOVE_BYTES;
        let put = if large { self.put_large(key, body).await? } else { self.put(key, body).await? };
        match put {
            Put::Made => Ok(()),
            Put::There => self.verify(key, body).await,
        }
    }

    /// Writes an object under a new name, in one request.
    ///
    /// # Errors
    /// What the store has against it.
    pub async fn put(&self, key: &str, body: &Bytes) -> std::result::Result<Put, Verdict> {
        loop {
            let plain = self.plain.load(Ordering::Relaxed);
            let mut headers = vec![
                header("content-type", objects::content_type(key)),
                header("x-amz-checksum-sha256", &STANDARD.encode(objects::sha256(body))),
            ];
            if !plain {
                headers.push(header("if-none-match", "*"));
            }
            let answer = self.call(Method::PUT, key, "", headers, body.clone()).await?;
            match answer.status {
                200..=299 => return Ok(Put::Made),
                412 => return Ok(Put::There),
                501 if !plain => self.plain.store(true, Ordering::Relaxed),
                _ => return Err(self.account.judge(&answer).await),
            }
        }
    }

    /// An object; None: there is none. More than `limit` bytes are an error.
    ///
    /// # Errors
    /// What the store has against it.
    pub async fn get(&self, key: &str, limit: usize) -> std::result::Result<Option<Bytes>, Verdict> {
        let call = Call { read_limit: limit, ..self.request(Method::GET, key, "", Vec::new(), Bytes::new()) };
        let answer = self.account.send(call).await?;
        let code = faults::Said::of(&answer).code;
        match answer.status {
            200 if answer.cut => Err(other_content(key)),
            200 => Ok(Some(answer.body)),
            404 if code != "NoSuchBucket" => Ok(None),
            _ => Err(self.account.judge(&answer).await),
        }
    }

    /// Takes an object away; that it is gone already is well.
    ///
    /// # Errors
    /// What the store has against it.
    pub async fn delete(&self, key: &str) -> std::result::Result<(), Verdict> {
        let answer = self.call(Method::DELETE, key, "", Vec::new(), Bytes::new()).await?;
        match answer.status {
            200..=299 => Ok(()),
            404 if faults::Said::of(&answer).code != "NoSuchBucket" => Ok(()),
            _ => Err(self.account.judge(&answer).await),
        }
    }

    /// Whether what is there is what was to be written. A name is used by one batch only, so it is, unless the node's
    /// data were restored from a backup and another batch got its number.
    async fn verify(&self, key: &str, body: &Bytes) -> std::result::Result<(), Verdict> {
        match self.get(key, body.len().saturating_mul(2).saturating_add(1 << 20)).await {
            Ok(Some(theirs)) if objects::same_content(key, body, &theirs) => Ok(()),
            Ok(Some(_)) => Err(other_content(key)),
            Ok(None) => {
                Err(Verdict::Retry(Fault::new(Trouble::Conflict, "the object went away while it was looked at")))
            }
            // Credentials that may only write.
            Err(Verdict::Config(fault)) if fault.error == AttemptError::Destination(Trouble::PermissionDenied) => {
                Ok(())
            }
            Err(verdict) => Err(verdict),
        }
    }

    async fn call(
        &self,
        method: Method,
        key: &str,
        query: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> std::result::Result<Answer, Verdict> {
        self.account.send(self.request(method, key, query, headers, body)).await
    }

    fn request(
        &self,
        method: Method,
        key: &str,
        query: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Call {
        let mut url = self.url.clone();
        let path = format!("{}{}", url.path(), utf8_percent_encode(key, PATH));
        url.set_path(&path);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let timeout = if body.is_empty() { TIMEOUT } else { WRITE_TIMEOUT };
        let repeatable = method != Method::POST;
        Call { service: "s3", method, url, headers, body, timeout, read_limit: ANSWER_MAX_BYTES, repeatable }
    }
}

/// A header of plain text.
fn header(name: &'static str, value: &str) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
    (HeaderName::from_static(name), value)
}

fn other_content(key: &str) -> Verdict {
    let detail = format!("an object of that name is there with other content; move it away: {key}");
    Verdict::Config(Fault::new(Trouble::Conflict, detail))
}
