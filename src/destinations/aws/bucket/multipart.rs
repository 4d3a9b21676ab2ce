//! Large objects: uploaded in parts, there at once when the last request is answered.
//!
//! Always true: an object is never there in part; what an earlier try of the same object left unfinished is aborted, as is
//! what this one cannot finish. Not here: when an object is large. Source: Amazon S3 API Reference, CreateMultipartUpload,
//! UploadPart, CompleteMultipartUpload, ListMultipartUploads, AbortMultipartUpload.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use percent_encoding::utf8_percent_encode;

use super::super::faults;
use super::{Bucket, PATH, Put, header, objects};
use crate::destinations::driver::{Fault, Verdict};
use crate::domain::trouble::Trouble;
use crate::outbound::{Bytes, Method};

/// Objects above this are uploaded in parts.
pub const ABOVE_BYTES: usize = 16 << 20;
/// Each part but the last; stores want at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// The most leftovers that are aborted before an upload.
const LEFTOVERS_MAX: usize = 100;

impl Bucket {
    /// Writes a large object under a new name.
    pub(super) async fn put_large(&self, key: &str, body: &Bytes) -> std::result::Result<Put, Verdict> {
        for leftover in self.leftovers(key).await? {
            self.abort(key, &leftover).await;
        }
        let headers = vec![header("content-type", objects::content_type(key))];
        let answer = self.call(Method::POST, key, "uploads=", headers, Bytes::new()).await?;
        if answer.status != 200 {
            return Err(self.account.judge(&answer).await);
        }
        let Some(upload) = texts(&answer.body, "UploadId").into_iter().next() else {
            return Err(Verdict::Retry(Fault::new(Trouble::Failed, "the store gave no upload id")));
        };
        let put = self.put_parts(key, &upload, body).await;
        if !matches!(put, Ok(Put::Made)) {
            self.abort(key, &upload).await;
        }
        put
    }

    async fn put_parts(&self, key: &str, upload: &str, body: &Bytes) -> std::result::Result<Put, Verdict> {
        let id = encoded(upload);
        let mut list = String::from("<CompleteMultipartUpload>");
        let mut from = 0;
        for number in 1.. {
            let part = body.slice(from..body.len().min(from + PART_BYTES));
            from += part.len();
            let query = format!("partNumber={number}&uploadId={id}");
            let answer = self.call(Method::PUT, key, &query, Vec::new(), part).await?;
            let Some(etag) = answer.header("etag").filter(|_| answer.status == 200) else {
                return Err(self.account.judge(&answer).await);
            };
            let etag = etag.replace('&', "&amp;").replace('<', "&lt;");
            let _ = write!(list, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
            if from >= body.len() {
                break;
            }
        }
        list.push_str("</CompleteMultipartUpload>");
        self.complete(key, &id, list.into()).await
    }

    async fn complete(&self, key: &str, id: &str, list: Bytes) -> std::result::Result<Put, Verdict> {
        loop {
            let plain = self.plain.load(Ordering::Relaxed);
            let mut headers = vec![header("content-type", "application/xml")];
            if !plain {
                headers.push(header("if-none-match", "*"));
            }
            let query = format!("uploadId={id}");
            let answer = self.call(Method::POST, key, &query, headers, list.clone()).await?;
            // A head of 200 is sent before the parts are joined; an error then stands in the body.
            let failed = answer.status == 200 && !texts(&answer.body, "Error").is_empty();
            match answer.status {
                200 if failed => match faults::Said::of(&answer).code.as_str() {
                    "PreconditionFailed" => return Ok(Put::There),
                    code => return Err(Verdict::Retry(Fault::new(Trouble::Failed, code))),
                },
                200 => return Ok(Put::Made),
                412 => return Ok(Put::There),
                501 if !plain => self.plain.store(true, Ordering::Relaxed),
                _ => return Err(self.unfinished(&answer).await),
            }
        }
    }

    /// An upload that is gone was aborted by another; the object is uploaded anew.
    async fn unfinished(&self, answer: &crate::outbound::Answer) -> Verdict {
        match faults::Said::of(answer).code.as_str() {
            code @ ("NoSuchUpload" | "InvalidPart") => Verdict::Retry(Fault::new(Trouble::Conflict, code)),
            _ => self.account.judge(answer).await,
        }
    }

    /// Uploads of this key that nobody will finish: one writer has a key, and it is here. Credentials that may not list
    /// leave them to the bucket's lifecycle rules.
    async fn leftovers(&self, key: &str) -> std::result::Result<Vec<String>, Verdict> {
        let query = format!("prefix={}&uploads=", encoded(key));
        let answer = self.call(Method::GET, "", &query, Vec::new(), Bytes::new()).await?;
        if answer.status != 200 {
            return match self.account.judge(&answer).await {
                Verdict::Retry(fault) if answer.status != 501 => Err(Verdict::Retry(fault)),
                _ => Ok(Vec::new()),
            };
        }
        let mut ids = texts(&answer.body, "UploadId");
        // A longer key may begin with this one: keys and ids stand in the same order.
        let keys = texts(&answer.body, "Key");
        let mut keys = keys.iter();
        ids.retain(|_| keys.next().is_some_and(|known| known == key));
        ids.truncate(LEFTOVERS_MAX);
        Ok(ids)
    }

    /// As well as it goes: what stays is found by the next try.
    async fn abort(&self, key: &str, upload: &str) {
        let query = format!("uploadId={}", encoded(upload));
        let _ = self.call(Method::DELETE, key, &query, Vec::new(), Bytes::new()).await;
    }
}

/// As a value of a query.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string().replace('/', "%2F")
}

/// The texts of all elements of that name, in their order.
fn texts(body: &[u8], name: &str) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(body) else { return Vec::new() };
    let Ok(document) = roxmltree::Document::parse(text) else { return Vec::new() };
    let found = document.descendants().filter(|node| node.tag_name().name() == name);
    found.map(|node| node.text().unwrap_or_default().to_owned()).collect()
}
