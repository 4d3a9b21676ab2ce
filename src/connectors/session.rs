//! A connector's calls with one connection's parameters and credentials.
//!
//! Always true: paths are relative to the connection's base URI, and no call leaves its origin; every failure of the app
//! is a [`CallError`]. Not here: which call is due (the watcher decides), how a record is diffed (`domain::snapshot`),
//! webhooks (`connectors::hooks`), tokens (`connectors::refresh`).

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;

use super::caller::{CallFailure, Caller, Incoming, Outgoing};
use super::exchange::{Replay, Tap, Wire};
use super::mapping::Env;
use super::paging::{Paging, Position};
use super::pick::Picker;
use super::record::id_text;
use super::rest::{CallRest, ListRest, not_json, read_records};
use super::script::Script;
use super::spec::{Account, Collection, Connector, Method};
use super::{
    AppRecord, Budget, CallError, Credentials, Page, PageMark, Parameters, PullQuery, fields, mapping::path::Path,
};
use crate::clock::Clock;
use crate::domain::models::Catalogue;
use crate::domain::record::Unified;
use crate::domain::time::Millis;
use crate::outbound;

/// Pages of a list of several kinds of records that hold none of the wanted kind.
const SKIPPED_MAX: u32 = 100;

/// A connector with one connection's parameters and credentials.
pub struct Session {
    pub(super) caller: Caller,
    pub(super) fields: fields::Kept,
}

/// What a list is asked for, as templates and scripts see it.
struct Bounds {
    since: Value,
    until: Value,
}

impl Session {
    /// Joins the parts. `connector` is already specialised; `base_uri` comes from `Connector::address`, the
    /// parameters from `Connector::parameters.check`. The error is one sentence.
    ///
    /// # Errors
    /// The connector's suffix of the base URI needs a parameter that is not set.
    pub fn new(
        connector: Arc<Connector>,
        base_uri: &Url,
        parameters: Parameters,
        credentials: Credentials,
        client: outbound::Client,
        budget: Arc<Budget>,
        clock: Clock,
    ) -> Result<Self, String> {
        let caller = Caller::new(connector, base_uri, parameters, credentials, client, budget, clock)?;
        Ok(Self { caller, fields: fields::Kept::default() })
    }
    /// The same against an app that is played back, by credentials that fit. The error is one sentence.
    pub(super) fn replayed(
        connector: Arc<Connector>,
        parameters: Parameters,
        replay: Arc<Replay>,
    ) -> Result<Self, String> {
        let nowhere = || Url::parse("https://app.invalid").map_err(|error| error.to_string());
        let base = connector.base_uri.choose(&parameters).or_else(|_| nowhere())?;
        let credentials = super::auth::any(&connector.auth);
        let clock = Clock::still(Millis(0));
        let (wire, budget) = (Wire::Replay(replay), Arc::new(Budget::unlimited(clock.now())));
        let caller = Caller::new(connector, &base, parameters, credentials, wire, budget, clock)?;
        Ok(Self { caller, fields: fields::Kept::default() })
    }
    /// The same with somebody who looks on.
    #[must_use]
    pub fn seen_by(mut self, tap: Tap) -> Self {
        self.caller.tap = Some(tap);
        self
    }
    /// The connector behind it.
    pub fn connector(&self) -> &Arc<Connector> {
        &self.caller.connector
    }
    /// The credentials in use.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.caller.credentials()
    }
    /// The connection's parameters, its integration's and defaults included: an object.
    pub fn parameters(&self) -> &Value {
        &self.caller.parameters
    }
    /// What the app last said of its limit on requests, in words for people.
    pub fn limit_told(&self) -> Option<String> {
        self.caller.limit_told()
    }
    /// Uses these credentials from now on.
    pub fn adopt(&self, credentials: Credentials) {
        self.caller.adopt(credentials);
    }
    /// One page of the changed records. `mark`: where the page before said to go on; the query must be the same.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn pull_page(
        &self,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        self.list(&c.pull, c, query, mark).await
    }
    /// One page of the records of one tick, sorted by id: those between the query's two bounds, after its id.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn ties_page(&self, c: &Collection, query: &PullQuery) -> Result<Page, CallError> {
        self.list(&c.ties, c, query, None).await
    }
    /// One page of a walk over all records: `scan`, or `pull` without bounds.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn scan_page(&self, c: &Collection, mark: Option<&PageMark>) -> Result<Page, CallError> {
        let method = if c.scan.is_there() { &c.scan } else { &c.pull };
        self.list(method, c, &PullQuery::default(), mark).await
    }
    /// One page of the app's own list of deleted records; only their ids and times count.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn deleted_page(
        &self,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        self.list(&c.deleted, c, query, mark).await
    }
    /// One record. None: the app says that it is gone.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn fetch(&self, c: &Collection, remote_id: &str) -> Result<Option<AppRecord>, CallError> {
        let record = json!({ "id": remote_id });
        let (fields, object) = (self.fields_variable(c).await?, self.object_of(c));
        let found = match &c.fetch {
            Method::Rest(fetch) => {
                let mut variables = self.caller.variables();
                variables.extend([("record", &record), ("fields", &fields), ("object", &object)]);
                let outgoing = fetch.request(&Env::new(&Value::Null, &variables))?;
                match self.caller.call(outgoing).await {
                    Ok(incoming) => match (fetch.record(&incoming.body)?, &fetch.joins) {
                        (Some(first), Some(joins)) => Some(self.joined(fetch, joins, &record, first).await?),
                        (found, _) => found.map(RawValue::to_owned),
                    },
                    Err(failure) if is_gone(&failure, &fetch.gone) => None,
                    Err(failure) => return Err(failure.error),
                }
            }
            Method::Script(script) => {
                let mut input = Map::from_iter([("record".to_owned(), record)]);
                fields::put(&mut input, fields, object);
                let text = self.run(script, Value::Object(input)).await?;
                RawValue::from_string(text).ok().filter(|raw| raw.get() != "null")
            }
            other => return Err(unsupported(other, c, "fetch")),
        };
        found.map(|raw| c.record.read(&raw).map_err(CallError::BadAnswer)).transpose()
    }
    /// The unified record. The error is one sentence.
    ///
    /// # Errors
    /// The record is not JSON, or its mapping does not make an object.
    pub fn map(&self, c: &Collection, record: &AppRecord) -> Result<Unified, String> {
        map_record(c, record, &self.caller.parameters)
    }
    /// What identifies the account at the app, for "the same account connected again". None: the connector cannot say.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn account(&self) -> Result<Option<String>, CallError> {
        let credentials = super::auth::as_variable(&self.credentials());
        let mut variables = self.caller.variables();
        variables.push(("credentials", &credentials));
        let value = match &self.caller.connector.account {
            Account::Unknown => return Ok(None),
            Account::Template(template) => return Ok(template.render(&Env::new(&Value::Null, &variables))),
            Account::Call(method) => self.value_of(method, &[], json!({}), "account").await?,
        };
        id_text(value)
            .map(Some)
            .ok_or_else(|| CallError::BadAnswer("the app does not say which account this is".to_owned()))
    }
    /// A method whose outcome is a value.
    pub(super) async fn value_of(
        &self,
        method: &Method<CallRest>,
        more: &[(&str, &Value)],
        input: Value,
        name: &str,
    ) -> Result<Value, CallError> {
        match method {
            Method::Rest(call) => {
                let mut variables = self.caller.variables();
                variables.extend_from_slice(more);
                let outgoing = call.request(&Env::new(&Value::Null, &variables))?;
                match self.caller.call(outgoing).await {
                    // That it is there is all that was asked.
                    Ok(_) if name == "check" && !call.has_result() => Ok(Value::Bool(true)),
                    Ok(incoming) => call.result(&incoming.body, &variables),
                    Err(failure) if matches!(name, "check" | "unsubscribe") && is_gone(&failure, &call.gone) => {
                        Ok(Value::Null)
                    }
                    Err(failure) => Err(failure.error),
                }
            }
            Method::Script(script) => parse(&self.run(script, input).await?),
            Method::NotSupported(reason) => Err(CallError::NotSupported(format!("{name}: {reason}"))),
            Method::Map(_) | Method::Missing => Err(CallError::NotSupported(name.to_owned())),
        }
    }
    /// Runs a script of the connector with `apiClient`, and with the connection's parameters where the input has none.
    pub(super) async fn run(&self, script: &Arc<Script>, mut input: Value) -> Result<String, CallError> {
        if input.get("parameters").is_none() {
            // The methods of a connector event bring the event's own.
            if input.get("parameters").is_none() {
                input["parameters"] = self.caller.parameters.clone();
            }
        }
        let scripts = &self.caller.connector.scripts;
        let done = scripts.call(script, input.to_string(), Some(self), std::time::Duration::MAX).await;
        for line in &done.console {
            tracing::debug!(script = script.file, "{line}");
        }
        Ok(done.result?)
    }
    async fn list(
        &self,
        method: &Method<ListRest>,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        match method {
            Method::Rest(list) => self.list_rest(list, c, query, mark).await,
            Method::Script(script) => self.list_script(script, c, query, mark).await,
            other => Err(unsupported(other, c, "the list")),
        }
    }
    async fn list_rest(
        &self,
        list: &ListRest,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        let name = format!("{}/{}", c.key, list.name);
        let (habits, usual) = (&self.caller.budget().habits, list.paging.size);
        let (mut mark, mut skipped) = (mark.cloned(), 0);
        loop {
            let size = if list.paging.adapts() { habits.size(&name, usual) } else { usual };
            let mut paging = list.paging;
            paging.size = size;
            match self.list_page(list, &paging, c, query, mark.as_ref()).await {
                Err(CallError::TooCostly(why)) if paging.adapts() && habits.shrink(&name, size) => {
                    tracing::info!(collection = c.key, size, why, "a page is too large for the app: half of it");
                }
                // An empty page would be the last one: this is only one of other kinds of records.
                Ok(page) if list.skips_others && page.records.is_empty() && page.next.is_some() => {
                    skipped += 1;
                    if skipped > SKIPPED_MAX {
                        return Err(CallError::BadAnswer(format!("{SKIPPED_MAX} pages hold no such record")));
                    }
                    mark = page.next;
                }
                Ok(page) => {
                    habits.went_well(&name, usual);
                    return Ok(page);
                }
                Err(error) => return Err(error),
            }
        }
    }
    async fn list_page(
        &self,
        list: &ListRest,
        paging: &Paging,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        let position = paging.position(mark)?;
        let page = paging.variable(&position);
        let bounds = bounds(query, &c.request_time);
        let (fields, object) = (self.fields_variable(c).await?, self.object_of(c));
        let mut variables = self.caller.variables();
        variables.extend([("page", &page), ("since", &bounds.since), ("until", &bounds.until)]);
        variables.extend([("fields", &fields), ("object", &object)]);
        let env = Env::new(&Value::Null, &variables);
        let mut outgoing = list.request(&env, query.since.is_some(), query.until.is_some())?;
        if let Position::Address(address) = &position {
            outgoing = Outgoing { path: address.clone(), from_root: true, query: Vec::new(), ..outgoing };
        }
        let Incoming { headers, body, .. } = self.caller.call(outgoing).await?;
        let links: Vec<String> = headers.into_iter().filter(|(n, _)| n == "link").map(|(_, value)| value).collect();
        let page = list.page(paging, &body, &links, &position, &self.caller.base)?;
        Ok(Page { records: self.whole(list, c, page.records).await?, ..page })
    }
    async fn list_script(
        &self,
        script: &Arc<Script>,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        let bounds = bounds(query, &mapping_times());
        let mut input = Map::new();
        let mut put = |name: &str, value: Value| {
            if value.as_object().is_none_or(|members| !members.is_empty()) {
                input.insert(name.to_owned(), value);
            }
        };
        put("since", bounds.since);
        put("until", bounds.until);
        if let Some(PageMark(mark)) = mark {
            let page = mark.strip_prefix("j:").and_then(|json| serde_json::from_str(json).ok());
            put(
                "page",
                page.ok_or_else(|| CallError::PageExpired("the stored page mark is of another kind".to_owned()))?,
            );
        }
        fields::put(&mut input, self.fields_variable(c).await?, self.object_of(c));
        let text = self.run(script, Value::Object(input)).await?;
        script_page(&text, c)
    }
}

/// How scripts see times.
fn mapping_times() -> super::mapping::times::TimeFormat {
    super::mapping::times::TimeFormat::Rfc3339
}

/// The page that a script made: `{records, next?, total?}`.
pub(super) fn script_page(text: &str, c: &Collection) -> Result<Page, CallError> {
    let path = |text: &str| Path::parse(text).map_err(CallError::Script);
    let (records, next, total, ids_only) = (path("$.records")?, path("$.next")?, path("$.total")?, path("$.idsOnly")?);
    let picker = Picker::new(&[Some(&records), Some(&next), Some(&total), Some(&ids_only)]);
    let found = picker.pick(text).map_err(|error| not_json(text, &error))?;
    let [Some(list), next, total, ids_only] = found[..] else {
        return Err(CallError::Script("the script returned no records".to_owned()));
    };
    let (records, _) = read_records(list, &c.record, "records", false)?;
    let next = next.map(RawValue::get).filter(|next| !matches!(*next, "null" | "\"\"" | "false"));
    Ok(Page {
        records,
        next: next.map(|next| PageMark(format!("j:{next}"))),
        total: total.and_then(|total| total.get().parse().ok()),
        ids_only: ids_only.is_some_and(|flag| flag.get() == "true"),
        walked: None,
        earliest: None,
    })
}

/// The unified record that a collection's mapping makes. The error is one sentence.
pub(super) fn map_record(c: &Collection, record: &AppRecord, parameters: &Value) -> Result<Unified, String> {
    let value: Value = serde_json::from_str(record.raw.get()).map_err(|e| format!("the record is not JSON: {e}"))?;
    let variables = [("parameters", parameters)];
    let Value::Object(mut fields) = c.map.eval(&Env::new(&value, &variables)) else {
        return Err(format!("the mapping of {} makes no object", c.key));
    };
    let fields = match Catalogue::embedded().data(&c.topic) {
        Some(model) => model.arrange(fields),
        None => {
            if let Some(custom) = fields.shift_remove("customFields") {
                fields.insert("customFields".to_owned(), custom);
            }
            fields
        }
    };
    Ok(Unified {
        remote_id: record.remote_id.clone(),
        remote_created_at: record.created_at,
        remote_updated_at: record.updated_at,
        fields,
    })
}

fn bounds(query: &PullQuery, format: &super::mapping::times::TimeFormat) -> Bounds {
    let mut since = Map::new();
    if let Some((time, id)) = &query.since {
        since.insert("time".to_owned(), format.write(*time).into());
        if let Some(id) = id {
            since.insert("id".to_owned(), id.as_str().into());
        }
    }
    let mut until = Map::new();
    if let Some(time) = query.until {
        until.insert("time".to_owned(), format.write(time).into());
    }
    Bounds { since: Value::Object(since), until: Value::Object(until) }
}

fn is_gone(failure: &CallFailure, statuses: &[u16]) -> bool {
    failure.gone || failure.status.is_some_and(|status| statuses.contains(&status) && !matches!(status, 401 | 429))
}

fn unsupported<R>(method: &Method<R>, c: &Collection, name: &str) -> CallError {
    CallError::NotSupported(match method {
        Method::NotSupported(reason) if !reason.is_empty() => format!("{name} of {}: {reason}", c.key),
        _ => format!("{name} of {}", c.key),
    })
}

pub(super) fn parse(text: &str) -> Result<Value, CallError> {
    serde_json::from_str(text).map_err(|error| CallError::Script(format!("the script's result is not JSON: {error}")))
}
