//! REST methods, compiled: from `*.rest.yml` to requests and back.
//!
//! Always true: a query parameter or a header whose hole has no value is left out; a path without a value is an error.
//! Not here: credentials, budgets, the wire (`connectors::caller`), what is done with the records (the engine).

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::caller::Outgoing;
use super::files::{CallFile, FetchFile, HttpMethod, ListFile, PagingKind, Pairs, Values};
use super::folder::SpecError;
use super::mapping::{Env, Mapping};
use super::paging::{Paging, Position, Seen};
use super::pick::{Picker, elements};
use super::record::RecordSpec;
use super::spec::{Collection, Method as Written};
use super::template::Template;
use super::yaml::{Node, Placed};
use super::{AppRecord, CallError, Page};
use crate::outbound::Method;

/// What `$…` may begin with in a request's body.
pub(super) const BODY_VARIABLES: &[&str] =
    &["parameters", "since", "until", "page", "record", "webhook", "state", "baseUri", "fields", "object"];

/// Statuses that say that a thing is gone, where the file does not name them.
const GONE: &[u16] = &[404, 410];

/// The request of any REST method.
#[derive(Clone, Debug)]
pub struct Rest {
    method: HttpMethod,
    path: Template,
    query: Vec<(String, Filled)>,
    headers: Pairs,
    body: Option<Mapping>,
}

/// The value of a query parameter: a text with holes, or an expression.
#[derive(Clone, Debug)]
enum Filled {
    Template(Template),
    Expression(Mapping),
}

/// `pull`, `scan` and `deleted`.
#[derive(Clone, Debug)]
pub struct ListRest {
    rest: Rest,
    since: Pairs,
    until: Pairs,
    pub takes_until: bool,
    pub ids_only: bool,
    /// How far back the list goes.
    pub reach: Option<Duration>,
    pub paging: Paging,
    record: RecordSpec,
    /// The list, the total, the next page, whether there is more, how far back the list goes.
    picker: Picker,
    records: String,
}

/// `fetch`.
#[derive(Clone, Debug)]
pub struct FetchRest {
    rest: Rest,
    record: Picker,
    pub gone: Vec<u16>,
}

/// `subscribe` and the like.
#[derive(Clone, Debug)]
pub struct CallRest {
    rest: Rest,
    result: Option<Mapping>,
    pub gone: Vec<u16>,
}

impl HttpMethod {
    fn wire(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

impl Rest {
    /// Compiles a request.
    pub(super) fn new(
        file: &str,
        method: HttpMethod,
        path: &Template,
        query: &Values,
        headers: &Pairs,
        of_body: Option<&Placed>,
    ) -> Result<Self, SpecError> {
        let query = Filled::all(file, query)?;
        Ok(Self { method, path: path.clone(), query, headers: headers.clone(), body: body(file, of_body)? })
    }
    /// The request.
    pub(super) fn outgoing(&self, env: &Env<'_>) -> Result<Outgoing, CallError> {
        let path = self.path.render_path(env).ok_or_else(|| {
            CallError::BadAnswer(
                "the request's path has a hole without a value; see the connector's parameters".to_owned(),
            )
        })?;
        let mut outgoing = Outgoing::new(self.method.wire(), path);
        let values = self.query.iter().filter_map(|(name, value)| Some((name.clone(), value.text(env)?)));
        outgoing.query = values.collect();
        outgoing.headers = rendered(&self.headers, env);
        outgoing.body = self.body.as_ref().map(|body| body.eval(env));
        Ok(outgoing)
    }
}

impl Filled {
    /// Compiles the query parameters of a file; those without a name or a value are left out.
    fn all(file: &str, values: &Values) -> Result<Vec<(String, Self)>, SpecError> {
        let named = values.0.iter().filter(|(name, value)| !name.is_empty() && !matches!(value.node, Node::Null));
        let filled = named.map(|(name, value)| {
            Self::new(file, value).map(|filled| (name.clone(), filled)).map_err(|e| e.field(format!("query.{name}")))
        });
        filled.collect()
    }
    fn new(file: &str, value: &Placed) -> Result<Self, SpecError> {
        match &value.node {
            Node::Text(text) if !text.starts_with('$') => {
                let wrong = |message: String| SpecError::in_file(file, message).at(value.line);
                Template::parse(text).map(Self::Template).map_err(wrong)
            }
            _ => Mapping::compile(file, value, BODY_VARIABLES).map(Self::Expression),
        }
    }
    fn text(&self, env: &Env<'_>) -> Option<String> {
        match self {
            Self::Template(template) => template.render(env),
            Self::Expression(expression) => match expression.eval(env) {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            },
        }
    }
    /// Whether it may depend on a lower bound.
    fn may_use_since(&self) -> bool {
        match self {
            Self::Template(template) => template.uses("since"),
            Self::Expression(_) => true,
        }
    }
}

fn rendered(pairs: &Pairs, env: &Env<'_>) -> Vec<(String, String)> {
    let named = pairs.0.iter().filter(|(name, _)| !name.is_empty());
    named.filter_map(|(name, template)| Some((name.clone(), template.render(env)?))).collect()
}

impl ListRest {
    /// Compiles a file of the collection whose records are `record`.
    pub fn new(file: &str, list: &ListFile, record: &RecordSpec) -> Result<Self, SpecError> {
        let paging =
            Paging::new(&list.paging).map_err(|(field, message)| SpecError::in_file(file, message).field(field))?;
        let (total, next) = (list.paging.total.as_ref(), list.paging.next.as_ref());
        let paths = [Some(&list.records), total, next, list.paging.more.as_ref(), list.earliest.as_ref()];
        Ok(Self {
            rest: Rest::new(file, list.method, &list.path, &list.query, &list.headers, list.body.as_ref())?,
            since: list.since.clone(),
            until: list.until.clone().unwrap_or_default(),
            takes_until: list.until.is_some(),
            ids_only: list.ids_only,
            reach: list.reach.map(|span| span.0),
            paging,
            record: list.record.as_ref().map_or_else(|| record.clone(), RecordSpec::new),
            picker: Picker::new(&paths),
            records: list.records.to_string(),
        })
    }
    /// Whether the list can be asked for a part only.
    pub fn is_bounded(&self) -> bool {
        self.since.0.iter().any(|(name, _)| !name.is_empty())
            || self.rest.query.iter().any(|(_, value)| value.may_use_since())
            || self.rest.body.is_some()
    }
    /// The request of one page.
    pub fn request(&self, env: &Env<'_>, has_since: bool, has_until: bool) -> Result<Outgoing, CallError> {
        let mut outgoing = self.rest.outgoing(env)?;
        if has_since {
            outgoing.query.extend(rendered(&self.since, env));
        }
        if has_until {
            outgoing.query.extend(rendered(&self.until, env));
        }
        Ok(outgoing)
    }
    /// Reads a page out of an answer.
    pub fn page(&self, body: &str, links: &[String], position: &Position, base: &url::Url) -> Result<Page, CallError> {
        let found = self.picker.pick(body).map_err(|error| not_json(body, &error))?;
        let [list, total, next, more, earliest] = found[..] else {
            return Err(CallError::BadAnswer("the answer cannot be read".to_owned()));
        };
        let list = list.ok_or_else(|| CallError::BadAnswer(format!("the answer has no list at {}", self.records)))?;
        let (records, count) = read_records(list, &self.record, &self.records)?;
        let total = total.and_then(value).and_then(|total| total.as_u64().or_else(|| total.as_str()?.parse().ok()));
        let seen = Seen {
            count,
            total,
            next: next.and_then(value),
            more: more.and_then(value).and_then(|more| more.as_bool()),
            links,
            ids: records.iter().map(|record| record.remote_id.as_str()).collect(),
        };
        let next = self.paging.next(position, &seen, base)?;
        // After the first page such a list is only what is left of the whole.
        let total = total.filter(|_| self.paging.kind != PagingKind::AfterId || *position == Position::First);
        let earliest = earliest.and_then(value).and_then(|time| self.record.time().read(&time));
        Ok(Page { records, next, total, ids_only: self.ids_only, earliest })
    }
}

impl Collection {
    /// Whether there is a walk over all records beside the list of changes, at times that the connector names.
    pub fn names_scans(&self) -> bool {
        self.scan.is_there() && self.poll.full_scan_interval.is_some()
    }
    /// How far back the app's list of deleted records goes, and whether it takes an upper bound.
    pub fn deleted_bounds(&self) -> (Option<Duration>, bool) {
        match &self.deleted {
            Written::Rest(list) => (list.reach, list.takes_until),
            _ => (None, false),
        }
    }
}

/// The records of a list, and how many items it had, null ones included.
pub fn read_records(list: &RawValue, spec: &RecordSpec, at: &str) -> Result<(Vec<AppRecord>, usize), CallError> {
    let items = elements(list).ok_or_else(|| CallError::BadAnswer(format!("what stands at {at} is not a list")))?;
    let all: Vec<serde::de::IgnoredAny> = serde_json::from_str(list.get()).unwrap_or_default();
    let read = |raw: &&RawValue| spec.read(raw).map_err(CallError::BadAnswer);
    let records = items.iter().map(read).collect::<Result<_, _>>()?;
    Ok((records, all.len()))
}

impl FetchRest {
    /// Compiles a file.
    pub fn new(file: &str, fetch: &FetchFile) -> Result<Self, SpecError> {
        Ok(Self {
            rest: Rest::new(file, fetch.method, &fetch.path, &fetch.query, &fetch.headers, fetch.body.as_ref())?,
            record: Picker::new(&[Some(&fetch.record)]),
            gone: fetch.gone.clone().unwrap_or_else(|| GONE.to_vec()),
        })
    }
    /// The request.
    pub fn request(&self, env: &Env<'_>) -> Result<Outgoing, CallError> {
        self.rest.outgoing(env)
    }
    /// Whether a parameter left its path empty.
    pub fn has_no_path(&self) -> bool {
        self.rest.path.is_empty()
    }
    /// The record in an answer. None: it is not there.
    pub fn record<'t>(&self, body: &'t str) -> Result<Option<&'t RawValue>, CallError> {
        let found = self.record.pick(body).map_err(|error| not_json(body, &error))?;
        Ok(found.first().copied().flatten().filter(|raw| raw.get() != "null"))
    }
}

impl CallRest {
    /// Compiles a file.
    pub fn new(file: &str, call: &CallFile) -> Result<Self, SpecError> {
        let result = call.result.as_ref().map(|result| Mapping::compile(file, result, BODY_VARIABLES)).transpose()?;
        Ok(Self {
            rest: Rest::new(file, call.method, &call.path, &call.query, &call.headers, call.body.as_ref())?,
            result,
            gone: call.gone.clone().unwrap_or_else(|| GONE.to_vec()),
        })
    }
    /// The request.
    pub fn request(&self, env: &Env<'_>) -> Result<Outgoing, CallError> {
        self.rest.outgoing(env)
    }
    /// What the call comes to.
    pub fn result(&self, body: &str, variables: &[(&str, &Value)]) -> Result<Value, CallError> {
        let Some(result) = &self.result else { return Ok(Value::Null) };
        let answer: Value = match body.trim().is_empty() {
            true => Value::Null,
            false => serde_json::from_str(body).map_err(|error| not_json(body, &error))?,
        };
        Ok(result.eval(&Env::new(&answer, variables)))
    }
}

fn body(file: &str, body: Option<&Placed>) -> Result<Option<Mapping>, SpecError> {
    body.map(|body| Mapping::compile(file, body, BODY_VARIABLES)).transpose()
}

fn value(raw: &RawValue) -> Option<Value> {
    serde_json::from_str(raw.get()).ok()
}

/// Says what came instead of JSON, without repeating it all.
pub fn not_json(body: &str, error: &serde_json::Error) -> CallError {
    let start = body.trim_start();
    CallError::BadAnswer(if start.is_empty() {
        "the answer is empty".to_owned()
    } else if start.starts_with('<') {
        "the answer is HTML or XML, not JSON".to_owned()
    } else if error.is_eof() {
        format!("the answer ends in the middle of its JSON, after {} bytes", body.len())
    } else {
        format!("the answer is not JSON: {error}")
    })
}
