//! One operation of the app that writes all records of a collection to a file: asked for, looked at, read.
//!
//! Always true: the file is asked for without credentials, since its address (which is never told to anybody) is all that
//! opens it, and it is on another host; it is read in pieces of a bounded size that end between two records; a file that is
//! not what was promised is a failure, never a shorter file. Not here: when there is one, and what follows from it (the
//! watcher).

mod lines;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::compile::{Builder, Found};
use super::folder::SpecError;
use super::mapping::times::TimeFormat;
use super::mapping::{Env, Mapping};
use super::rest::CallRest;
use super::spec::Method;
use super::yaml::{self, Placed};
use super::{AppRecord, CallError, Collection, Session, graphql};
use crate::domain::time::Millis;
use lines::{PartFile, Parts, ends};

/// `data/*/bulk.graphql.yml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkFileSpec {
    /// What the app is to write: `$bulk.query` of `bulk/start`. A text, or an expression over `$parameters` and `$fields`.
    #[schemars(with = "super::schemas::Expression")]
    query: Placed,
    count: CountFile,
    /// The member of a part that names its record, or the part that it is a part of.
    #[serde(default = "parent")]
    parent: String,
    /// Where parts belong, by how their ids begin.
    #[serde(default)]
    parts: BTreeMap<String, PartFile>,
}

fn parent() -> String {
    "__parentId".to_owned()
}

/// How many records there are, and from how many on the operation is worth it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountFile {
    query: String,
    #[schemars(with = "super::schemas::Expression")]
    result: Placed,
    from: u64,
}

/// How a collection is read by one operation.
#[derive(Debug)]
pub(super) struct BulkSpec {
    query: Mapping,
    count: CallRest,
    from: u64,
    parts: Parts,
}

/// The two calls that all collections share: `bulk/start` and `bulk/status`.
#[derive(Debug)]
pub(super) struct BulkCalls {
    start: Method<CallRest>,
    status: Method<CallRest>,
}

/// What asking for an operation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkStart {
    /// The app's own name of it.
    Running(String),
    /// The app does not do two at a time.
    Busy,
    Refused(String),
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkProgress {
    Running,
    Failed(String),
    Done(BulkFile),
}

/// What an operation wrote.
#[derive(Clone, PartialEq, Eq)]
pub struct BulkFile {
    /// None: there was nothing to write.
    url: Option<Url>,
    /// When it was asked for, by the app's own clock.
    pub asked_at: Option<Millis>,
}

impl std::fmt::Debug for BulkFile {
    /// The address alone opens the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkFile").field("asked_at", &self.asked_at).finish_non_exhaustive()
    }
}

/// A piece of a file.
#[derive(Debug, Default)]
pub struct BulkPiece {
    pub records: Vec<AppRecord>,
    /// Where the next piece begins. Where this one began: not even one record is whole.
    pub next: u64,
    pub is_last: bool,
}

/// `bulk/`.
pub(super) fn calls(builder: &Builder<'_>) -> Result<Option<BulkCalls>, SpecError> {
    let (start, status) = (builder.call("bulk/start")?, builder.call("bulk/status")?);
    match (start.is_there(), status.is_there()) {
        (false, false) => Ok(None),
        (true, true) => Ok(Some(BulkCalls { start, status })),
        (true, false) => Err(SpecError::in_file("bulk/status.graphql.yml", "the file is missing, beside bulk/start")),
        (false, true) => Err(SpecError::in_file("bulk/start.graphql.yml", "the file is missing, beside bulk/status")),
    }
}

/// `data/*/bulk.graphql.yml`.
pub(super) fn collection(builder: &Builder<'_>, dir: &str) -> Result<Option<BulkSpec>, SpecError> {
    let Some(found) = builder.find(&format!("{dir}/bulk"))? else { return Ok(None) };
    if found.suffix != "graphql.yml" {
        return Err(SpecError::in_file(found.path, "this is written as bulk.graphql.yml"));
    }
    spec(builder, &found).map(Some)
}

fn spec(builder: &Builder<'_>, found: &Found<'_>) -> Result<BulkSpec, SpecError> {
    let file: BulkFileSpec = yaml::read(&found.path, found.text)?;
    let count = graphql::plain_call(builder, found, &file.count.query, Some(file.count.result))?;
    let parts = Parts::new(&file.parent, file.parts)
        .map_err(|message| SpecError::in_file(found.path.clone(), message).field("parts"))?;
    let query = graphql::written(builder, found, file.query)?;
    let query = Mapping::compile(&found.path, &query, &["parameters", "fields"]).map_err(|e| e.field("query"))?;
    Ok(BulkSpec { query, count, from: file.count.from, parts })
}

impl Collection {
    /// Whether a large first sync is one operation of the app.
    pub fn has_bulk(&self) -> bool {
        self.bulk.is_some()
    }
    fn bulk(&self) -> Result<&BulkSpec, CallError> {
        self.bulk.as_ref().ok_or_else(|| CallError::NotSupported(format!("bulk of {}", self.key)))
    }
}

impl Session {
    /// The most that is read of one answer.
    pub fn answer_bytes_max(&self) -> usize {
        self.caller.connector.answer_bytes_max
    }
    /// Whether the app has so many records that an operation is worth it.
    ///
    /// # Errors
    /// The app's failure.
    pub async fn bulk_is_large(&self, c: &Collection) -> Result<bool, CallError> {
        let bulk = c.bulk()?;
        let variables = self.caller.variables();
        let outgoing = bulk.count.request(&Env::of(&variables))?;
        let incoming = self.caller.call(outgoing).await?;
        let count = bulk.count.result(&incoming.body, &variables)?;
        let count = count.as_u64().ok_or_else(|| CallError::BadAnswer("the app does not say how many".to_owned()))?;
        Ok(count >= bulk.from)
    }
    /// Asks for the operation.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn bulk_start(&self, c: &Collection) -> Result<BulkStart, CallError> {
        let fields = self.fields_variable(c).await?;
        let query = c.bulk()?.query.eval(&Env::of(&[("parameters", &self.caller.parameters), ("fields", &fields)]));
        let wish = json!({ "query": query });
        let answer = self.bulk_call(|calls| &calls.start, wish, "bulk/start").await?;
        if answer["busy"] == true {
            return Ok(BulkStart::Busy);
        }
        Ok(match (answer["id"].as_str(), answer["error"].as_str()) {
            (Some(id), None) if !id.is_empty() => BulkStart::Running(id.to_owned()),
            (_, Some(error)) => BulkStart::Refused(error.to_owned()),
            _ => BulkStart::Refused("the app names no operation".to_owned()),
        })
    }
    /// How far it is.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn bulk_progress(&self, operation: &str) -> Result<BulkProgress, CallError> {
        let answer = self.bulk_call(|calls| &calls.status, json!({ "id": operation }), "bulk/status").await?;
        match answer["state"].as_str() {
            Some("running") => Ok(BulkProgress::Running),
            Some("done") => {
                let url = answer["url"].as_str().map(|url| self.file_address(url)).transpose()?;
                let asked_at = answer["askedAt"].as_str().and_then(|time| TimeFormat::Rfc3339.read(time));
                Ok(BulkProgress::Done(BulkFile { url, asked_at }))
            }
            Some("failed") => {
                let why = answer["error"].as_str().unwrap_or("without a reason");
                Ok(BulkProgress::Failed(format!("the operation failed: {why}")))
            }
            _ => Err(CallError::BadAnswer("the app does not say how far the operation is".to_owned())),
        }
    }
    async fn bulk_call(
        &self,
        which: impl Fn(&BulkCalls) -> &Method<CallRest>,
        wish: Value,
        name: &str,
    ) -> Result<Value, CallError> {
        let calls = self.caller.connector.bulk.as_ref();
        let method = calls.map(which).ok_or_else(|| CallError::NotSupported(name.to_owned()))?;
        let input = json!({ "bulk": wish });
        self.value_of(method, &[("bulk", &wish)], input, name).await
    }
    /// Only a stand-in's file may come without TLS, as the stand-in itself does.
    fn file_address(&self, text: &str) -> Result<Url, CallError> {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" || self.caller.base.scheme() == "http");
        url.ok_or_else(|| CallError::BadAnswer("the file has no https address".to_owned()))
    }
    /// The records that are whole in so many bytes of the file.
    ///
    /// # Errors
    /// `PageExpired`: the address is no longer good; or another failure of the app's.
    pub async fn bulk_piece(
        &self,
        c: &Collection,
        file: &BulkFile,
        offset: u64,
        bytes: usize,
    ) -> Result<BulkPiece, CallError> {
        let Some(url) = &file.url else { return Ok(BulkPiece { next: offset, is_last: true, ..BulkPiece::default() }) };
        let seen_at = self.caller.clock.now();
        let spec = c.record.local(&self.caller.parameters, seen_at)?;
        let answer = self.caller.read_file(url.clone(), offset, bytes).await?;
        let (body, is_last) = match answer.status {
            206 => (&answer.body, ends(answer.header("content-range"), offset, answer.body.len())?),
            // It does not know ranges, and gives everything.
            200 if offset == 0 && !answer.cut => (&answer.body, true),
            200 => return Err(CallError::BadAnswer("the file cannot be read in pieces".to_owned())),
            // An empty file. Each piece says where the end is, so nothing is asked for beyond it.
            416 if offset == 0 => return Ok(BulkPiece { next: 0, is_last: true, ..BulkPiece::default() }),
            416 => return Err(CallError::BadAnswer("the file is shorter than it was".to_owned())),
            403 | 404 | 410 => return Err(CallError::PageExpired("the file is not there any more".to_owned())),
            408 | 429 | 500..=599 => {
                return Err(CallError::unavailable(format!("status {} for the file", answer.status)));
            }
            status => return Err(CallError::Refused { status, message: "the file cannot be read".to_owned() }),
        };
        c.bulk()?.parts.piece(body, offset, is_last, &spec)
    }
}
