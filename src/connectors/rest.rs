//! REST methods, compiled: from `*.rest.yml` to requests and back.
//!
//! Always true: a query parameter or a header whose hole has no value is left out; a path without a value is an error.
//! Not here: credentials, budgets, the wire (`connectors::caller`), what is done with the records (the engine).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::caller::Outgoing;
use super::files::{CallFile, FetchFile, HttpMethod, ListFile, Pairs, PartialFile, Values};
use super::filled::{Filled, rendered};
use super::folder::SpecError;
use super::join::Join;
use super::mapping::path::Path;
use super::mapping::{Env, Mapping};
use super::paging::{Paging, Position};
use super::pick::Picker;
use super::record::RecordSpec;
use super::spec::{Collection, Method as Written};
use super::template::Template;
use super::unwind::Unwind;
use super::yaml::Placed;
use super::{AppRecord, CallError};
use crate::domain::json::Json;
use crate::outbound::Method;

/// What `$…` may begin with in a request's body.
pub(super) const BODY_VARIABLES: &[&str] = &[
    "parameters",
    "since",
    "until",
    "page",
    "record",
    "records",
    "each",
    "webhook",
    "state",
    "subscription",
    "baseUri",
    "fields",
    "object",
    "values",
    "bulk",
];

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
    budget: Option<String>,
    /// Columns that the account lacks can be left out.
    names_columns: bool,
}

/// `pull`, `ties`, `scan` and `deleted`.
#[derive(Clone, Debug)]
pub struct ListRest {
    /// The file's, as what is learnt of it is remembered by.
    pub name: String,
    rest: Rest,
    since: Pairs,
    until: Pairs,
    pub takes_until: bool,
    pub ids_only: bool,
    /// How far back the list goes.
    pub reach: Option<Duration>,
    /// All records are parts of what `fetch` gives.
    pub partial: bool,
    /// The flag of a record that is not shown whole.
    flag: Option<Picker>,
    /// With `{{record.id}}` the same request gives one record.
    pub fetches: bool,
    pub join: Option<Join>,
    pub paging: Paging,
    pub(super) record: RecordSpec,
    pub(super) unwind: Option<Unwind>,
    /// Inside an item of the list: the record, or a list of them.
    pub(super) inner: Option<Picker>,
    /// What the list is sorted by, where its items hold lists.
    pub(super) item: Option<RecordSpec>,
    /// Records of another kind are left out, not refused.
    pub skips_others: bool,
    /// The list, the total, the next page, whether there is more, how far back the list goes.
    pub(super) picker: Picker,
    pub(super) records: String,
}

/// `fetch`.
#[derive(Clone, Debug)]
pub struct FetchRest {
    rest: Rest,
    record: Picker,
    /// A connection of GraphQL inside the record, whose further pages are added.
    pub joins: Option<Path>,
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
        let body = body(file, of_body)?;
        let in_query = query.iter().any(|(_, value)| value.names_columns());
        let names_columns = in_query || body.as_ref().is_some_and(Mapping::names_columns);
        Ok(Self { method, path: path.clone(), query, headers: headers.clone(), body, budget: None, names_columns })
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
        outgoing.budget = self.budget.clone();
        Ok(outgoing)
    }
    /// The members of a variable that the request uses: `x` of `{{values.x}}`.
    pub(super) fn names(&self, variable: &str) -> BTreeSet<String> {
        let texts = std::iter::once(&self.path).chain(self.headers.0.iter().map(|(_, value)| value));
        let mut names: BTreeSet<String> = texts.flat_map(|text| text.names(variable)).collect();
        names.extend(self.query.iter().flat_map(|(_, value)| value.names(variable)));
        names.extend(self.body.iter().flat_map(|body| body.names(variable)));
        names
    }
}

/// A call that may spend a budget of its own.
pub trait Spends {
    /// The budget's name.
    fn budget(&self) -> Option<&str>;
}

impl Spends for ListRest {
    fn budget(&self) -> Option<&str> {
        self.rest.budget.as_deref()
    }
}

impl Spends for FetchRest {
    fn budget(&self) -> Option<&str> {
        self.rest.budget.as_deref()
    }
}

impl Spends for CallRest {
    fn budget(&self) -> Option<&str> {
        self.rest.budget.as_deref()
    }
}

impl ListRest {
    /// Compiles a file of the collection whose records are `record`.
    pub fn new(file: &str, list: &ListFile, record: &RecordSpec) -> Result<Self, SpecError> {
        let paging =
            Paging::new(&list.paging).map_err(|(field, message)| SpecError::in_file(file, message).field(field))?;
        let (total, next) = (list.paging.total.as_ref(), list.paging.next.as_ref());
        let paths = [Some(&list.records.list), total, next, list.paging.more.as_ref(), list.earliest.as_ref()];
        let rest = Rest::new(file, list.method, &list.path, &list.query, &list.headers, list.body.as_ref())?;
        Ok(Self {
            name: file.rsplit('/').next().unwrap_or(file).to_owned(),
            rest: Rest { budget: list.budget.clone(), ..rest },
            since: list.since.clone(),
            until: list.until.clone().unwrap_or_default(),
            takes_until: list.until.is_some(),
            ids_only: list.ids_only,
            reach: list.reach.map(|span| span.0),
            paging,
            partial: matches!(list.partial, Some(PartialFile::All(true))),
            flag: match &list.partial {
                Some(PartialFile::Flag(flag)) => Some(Picker::new(&[Some(flag)])),
                _ => None,
            },
            fetches: list.fetch,
            join: list.join.as_ref().map(|join| Join::new(file, join, record)).transpose()?,
            unwind: list.unwind.as_ref().map(|unwind| Unwind::new(file, unwind)).transpose()?,
            record: list.record.as_ref().map_or_else(|| record.clone(), RecordSpec::new),
            inner: list.records.inner.as_ref().map(|inner| Picker::new(&[Some(inner)])),
            item: list.item.as_ref().map(RecordSpec::new),
            skips_others: false,
            picker: Picker::new(&paths),
            records: list.records.to_string(),
        })
    }
    /// Whether columns that the account lacks can be left out of it.
    pub fn names_columns(&self) -> bool {
        self.rest.names_columns
    }
    /// The members of a variable that its requests use.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        let mut names = self.rest.names(variable);
        let bounds = self.since.0.iter().chain(&self.until.0);
        names.extend(bounds.flat_map(|(_, value)| value.names(variable)));
        names.extend(self.join.iter().flat_map(|join| join.names(variable)));
        names
    }
    /// Whether its records are inside its items.
    pub fn unwinds(&self) -> bool {
        self.unwind.is_some()
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
    /// The request of one page, which may be at an address of its own.
    pub fn request_at(&self, env: &Env<'_>, position: &Position) -> Result<Outgoing, CallError> {
        Ok(self.rest.outgoing(env)?.at(position))
    }
    /// Whether the app has not shown the whole of a record.
    pub fn is_partial(&self, record: &AppRecord) -> bool {
        let flag = self.flag.as_ref().and_then(|flag| flag.pick(record.raw.get()).ok()?.first().copied().flatten());
        flag.is_some_and(|flag| flag.get() == "true")
    }
    /// Whether the records are lists inside the items of the list.
    pub fn is_nested(&self) -> bool {
        self.item.is_some()
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

impl FetchRest {
    /// Compiles a file.
    pub fn new(file: &str, fetch: &FetchFile) -> Result<Self, SpecError> {
        Ok(Self {
            rest: Rest {
                budget: fetch.budget.clone(),
                ..Rest::new(file, fetch.method, &fetch.path, &fetch.query, &fetch.headers, fetch.body.as_ref())?
            },
            record: Picker::new(&[Some(&fetch.record)]),
            joins: None,
            gone: fetch.gone.clone().unwrap_or_else(|| GONE.to_vec()),
        })
    }
    /// The members of a variable that its request uses.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        self.rest.names(variable)
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
            rest: Rest {
                budget: call.budget.clone(),
                ..Rest::new(file, call.method, &call.path, &call.query, &call.headers, call.body.as_ref())?
            },
            result,
            gone: call.gone.clone().unwrap_or_else(|| GONE.to_vec()),
        })
    }
    /// The request.
    pub fn request(&self, env: &Env<'_>) -> Result<Outgoing, CallError> {
        self.rest.outgoing(env)
    }
    /// Whether it says what it comes to.
    pub fn has_result(&self) -> bool {
        self.result.is_some()
    }
    /// What the call comes to.
    pub fn result(&self, body: &str, variables: &[(&str, &Value)]) -> Result<Value, CallError> {
        let Some(result) = &self.result else { return Ok(Value::Null) };
        let answer: Value = match body.trim().is_empty() {
            true => Value::Null,
            false => serde_json::from_str(body).map_err(|error| not_json(body, &error))?,
        };
        Ok(result.eval(&Env::new(&Json::from(&answer), variables)))
    }
}

fn body(file: &str, body: Option<&Placed>) -> Result<Option<Mapping>, SpecError> {
    body.map(|body| Mapping::compile(file, body, BODY_VARIABLES)).transpose()
}

pub(super) fn value(raw: &RawValue) -> Option<Value> {
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
