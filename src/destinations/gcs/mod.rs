//! `gcs`: objects of a Google Cloud Storage bucket.
//!
//! Always true: an object is made only where there is none of its name (`ifGenerationMatch=0`), and a name belongs to one
//! batch; so one that is there is the batch, written before. Not here: names and bytes (`destinations::objects`), who we
//! are (`destinations::google`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Probe, Step, Verdict};
use super::google::{self, Account, Asked, Google};
use super::objects::{self, Layout};
use super::settings;
use super::steps::Steps;
use crate::domain::delivery::AttemptError;
use crate::domain::secret::Secret;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::{Bytes, Method, header};

/// The kind.
pub static KIND: Kind = Kind {
    name: "gcs",
    title: "Google Cloud Storage",
    about: "Objects of NDJSON, by topic and day, in a bucket of Google Cloud Storage.",
    mirrors: false,
    schema: || settings::schema(schemars::schema_for!(Settings), vec![schemars::schema_for!(Layout)]),
    open,
};

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// For an object and its answer.
const UPLOAD: Duration = Duration::from_secs(240);

/// What can be set beside the layout.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    /// The text of the JSON file of a service account, or of an external account (workload identity federation).
    #[schemars(with = "String", extend("writeOnly" = true))]
    credentials: Secret,
    /// For an external account: the token of its own identity provider.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    subject_token: Option<Secret>,
    /// The bucket's name.
    bucket: String,
    /// Another address than `https://storage.googleapis.com`.
    endpoint: Option<String>,
}

struct Bucket {
    google: Google,
    endpoint: Url,
    bucket: String,
    layout: Layout,
}

/// What became of an upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    Made,
    /// There is one of that name.
    There,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let mut given = opening.settings;
    let mut layout: Layout = settings::take(&mut given)?;
    let settings: Settings = settings::own(given)?;
    layout.check()?;
    let account = Account::read(&settings.credentials, settings.subject_token)?;
    // "Bucket naming requirements"; names with dots may be longer.
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    if !(3..=222).contains(&settings.bucket.len()) || !settings.bucket.bytes().all(plain) {
        let message = "settings.bucket: the name alone: 3 to 222 lower-case letters, digits, `-`, `_` and `.`";
        return Err(Error::invalid(message));
    }
    let endpoint = google::endpoint(settings.endpoint.as_deref(), "https://storage.googleapis.com")?;
    let google = Google::new(opening.client, account, SCOPE);
    Ok(Arc::new(Bucket { google, endpoint, bucket: settings.bucket, layout }))
}

impl Driver for Bucket {
    fn limits(&self) -> Limits {
        self.layout.limits(Duration::from_secs(300))
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        self.layout.prepare(batch)
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            for part in &frozen.parts {
                if let Err(verdict) = self.put(&part.target, &part.body).await {
                    return Answer::All(verdict);
                }
            }
            Answer::All(Verdict::Done)
        }
        .boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        self.try_out(probe).boxed()
    }
}

impl Bucket {
    /// "Objects: insert", multipart: metadata and content in one request.
    async fn put(&self, key: &str, body: &Bytes) -> std::result::Result<Put, Verdict> {
        let query = [("uploadType", "multipart"), ("ifGenerationMatch", "0")];
        let url = google::below(&self.endpoint, &["upload", "storage", "v1", "b", &self.bucket, "o"], &query);
        let metadata = json!({"name": key, "contentType": objects::content_type(key)});
        let (kind, body) = google::multipart(key, &metadata, objects::content_type(key), body);
        let mut request = google::request(Method::POST, url, None);
        request.headers.push((header::CONTENT_TYPE, kind));
        request.body = body;
        request.timeout = UPLOAD;
        // What is there is not written again.
        request.repeatable = true;
        let answer = self.google.send(request).await?;
        if answer.status == 412 {
            return Ok(Put::There);
        }
        google::read(&answer, Asked::Setup).map(|_| Put::Made)
    }

    fn object(&self, key: &str, query: &[(&str, &str)]) -> Url {
        google::below(&self.endpoint, &["storage", "v1", "b", &self.bucket, "o", key], query)
    }

    async fn get(&self, key: &str) -> std::result::Result<Bytes, Verdict> {
        let request = google::request(Method::GET, self.object(key, &[("alt", "media")]), None);
        let answer = self.google.send(request).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(google::judge(&answer, Asked::Setup)) }
    }

    async fn delete(&self, key: &str) -> std::result::Result<(), Verdict> {
        let answer = self.google.send(google::request(Method::DELETE, self.object(key, &[]), None)).await?;
        if answer.status == 404 { Ok(()) } else { google::read(&answer, Asked::Setup).map(drop) }
    }

    async fn try_out(&self, probe: &Probe) -> Vec<Step> {
        let mut steps = Steps::default();
        let key = self.layout.test_key(&probe.batch);
        steps.take("signIn", self.google.sign_in()).await;
        let write = async {
            let body = self.layout.prepare(&probe.batch)?.parts.into_iter().next().map(|part| part.body);
            let body = body.unwrap_or_default();
            // What an earlier test could not take away may be of another form.
            let _ = self.delete(&key).await;
            self.put(&key, &body).await?;
            let again = self.put(&key, &body).await?;
            let found = match again {
                Put::There => "an object is made once",
                Put::Made => "the store ignores ifGenerationMatch: a repetition writes the same bytes again",
            };
            Ok((body, found.to_owned()))
        };
        let written = steps.take("write", write).await;
        let read = async {
            match self.get(&key).await {
                Ok(theirs) if written.as_ref().is_some_and(|ours| objects::same_content(&key, ours, &theirs)) => {
                    Ok(((), String::new()))
                }
                Ok(_) => Err(Verdict::Config(Fault::new(Trouble::Conflict, format!("{key} does not read back")))),
                Err(verdict) => {
                    allowed(verdict, "storage.objects.get is not allowed; writing does not need it".to_owned())
                }
            }
        };
        steps.take("read", read).await;
        let clean = async {
            match self.delete(&key).await {
                Ok(()) => Ok(((), String::new())),
                Err(verdict) => allowed(verdict, format!("storage.objects.delete is not allowed, so {key} stays")),
            }
        };
        steps.take("clean", clean).await;
        steps.done()
    }
}

/// A permission that writing does not need: what follows from its absence is told.
fn allowed(verdict: Verdict, without: String) -> std::result::Result<((), String), Verdict> {
    match verdict {
        Verdict::Config(fault) if fault.error == AttemptError::Destination(Trouble::PermissionDenied) => {
            Ok(((), without))
        }
        other => Err(other),
    }
}
