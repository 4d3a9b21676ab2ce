//! A connector's calls with one connection's parameters and credentials.
//!
//! Always true: paths are relative to the connection's base URI, and no call leaves its origin; every failure of the app
//! is a [`CallError`]. Not here: which call is due (the watcher decides), how a record is diffed (`domain::snapshot`),
//! webhooks (`connectors::hooks`), tokens (`connectors::refresh`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;

use super::caller::{CallFailure, Caller};
use super::exchange::{Replay, Tap, Wire};
use super::mapping::Env;
use super::mapping::path::Path;
use super::mapping::zones::Local;
use super::pages::{Reader, Shown, read_records};
use super::paging::Paging;
use super::pick::Picker;
use super::record::{RecordSpec, id_text};
use super::rest::{CallRest, ListRest, not_json};
use super::script::Script;
use super::spec::{Account, Collection, Connector, Cursor, Method};
use super::{AppRecord, Budget, CallError, Credentials, Page, PageMark, Parameters, Part, PullQuery, fields};
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
        self.pull_page_of(c, None, query, mark).await
    }
    /// The same for one of the values of [`Session::parts`].
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn pull_page_of(
        &self,
        c: &Collection,
        part: Option<&Part>,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        self.list(&c.pull, c, part, query, mark).await
    }
    /// One page of the records of one tick, sorted by id: those between the query's two bounds, after its id.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn ties_page_of(
        &self,
        c: &Collection,
        part: Option<&Part>,
        query: &PullQuery,
    ) -> Result<Page, CallError> {
        self.list(&c.ties, c, part, query, None).await
    }
    /// One page of a walk over all records: `scan`, or `pull` without bounds.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn scan_page(&self, c: &Collection, mark: Option<&PageMark>) -> Result<Page, CallError> {
        self.scan_page_of(c, None, &PullQuery::default(), mark).await
    }
    /// The same for one of the values of [`Session::parts`], and a stretch of time where [`Collection::splits_scans`].
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn scan_page_of(
        &self,
        c: &Collection,
        part: Option<&Part>,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        let method = if c.scan.is_there() { &c.scan } else { &c.pull };
        self.list(method, c, part, query, mark).await
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
        self.deleted_page_of(c, None, query, mark).await
    }
    /// The same for one of the values of [`Session::parts`].
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn deleted_page_of(
        &self,
        c: &Collection,
        part: Option<&Part>,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        self.list(&c.deleted, c, part, query, mark).await
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
        let done = scripts.call(script, input.to_string(), Some(self), Duration::MAX).await;
        for line in &done.console {
            tracing::debug!(script = script.file, "{line}");
        }
        Ok(done.result?)
    }
    async fn list(
        &self,
        method: &Method<ListRest>,
        c: &Collection,
        part: Option<&Part>,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        if part.is_none() && c.each.is_some() {
            return Err(CallError::NotSupported(format!("the list of {} without a value of its `each`", c.key)));
        }
        let each = part.map(Part::variable).unwrap_or_default();
        let ask = Ask { c, each, record: Value::Null, query, mark };
        match method {
            Method::Rest(list) => self.list_rest(list, ask).await,
            Method::Script(script) => self.list_script(script, ask).await,
            other => Err(unsupported(other, c, "the list")),
        }
    }
    pub(super) async fn list_rest(&self, list: &ListRest, ask: Ask<'_>) -> Result<Page, CallError> {
        let name = format!("{}/{}", ask.c.key, list.name);
        let (habits, usual) = (&self.caller.budget().habits, list.paging.size);
        let (mut mark, mut skipped) = (ask.mark.cloned(), 0);
        loop {
            let size = if list.paging.adapts() { habits.size(&name, usual) } else { usual };
            let mut paging = list.paging;
            paging.size = size;
            match self.list_page(list, &paging, &ask, mark.as_ref()).await {
                Err(CallError::TooCostly(why)) if paging.adapts() && habits.shrink(&name, size) => {
                    tracing::info!(collection = ask.c.key, size, why, "a page is too large for the app: half of it");
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
        ask: &Ask<'_>,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        let position = paging.position(mark)?;
        let page = paging.variable(&position);
        let parameters = &self.caller.parameters;
        let local = ask.c.request_time.local(parameters).map_err(CallError::BadAnswer)?;
        let bounds = bounds(ask.query, &ask.c.cursor, &local);
        let (fields, object) = (self.fields_variable(ask.c).await?, self.object_of(ask.c));
        let mut variables = self.caller.variables();
        variables.extend([("page", &page), ("since", &bounds.since), ("until", &bounds.until)]);
        variables.extend([("each", &ask.each), ("record", &ask.record), ("fields", &fields), ("object", &object)]);
        let env = Env::new(&Value::Null, &variables);
        let outgoing = list.request(&env, ask.query.since.is_some(), ask.query.until.is_some())?.at(&position);
        let seen_at = self.caller.clock.now();
        let incoming = self.caller.call(outgoing).await?;
        let reader = Reader { parameters, seen_at };
        let shown = Shown { body: &incoming.body, links: &incoming.links() };
        let mut page = list.page(paging, shown, &position, &self.caller.base, reader)?;
        if let Some(join) = &list.join {
            self.join(join, &mut page.records).await?;
        }
        page.records = self.whole(list, ask.c, page.records).await?;
        Ok(page)
    }
    async fn list_script(&self, script: &Arc<Script>, ask: Ask<'_>) -> Result<Page, CallError> {
        let bounds = bounds(ask.query, &ask.c.cursor, &Local::rfc3339());
        let mut input = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() && value.as_object().is_none_or(|members| !members.is_empty()) {
                input.insert(name.to_owned(), value);
            }
        };
        put("since", bounds.since);
        put("until", bounds.until);
        put("each", ask.each);
        if let Some(PageMark(mark)) = ask.mark {
            let page = mark.strip_prefix("j:").and_then(|json| serde_json::from_str(json).ok());
            put(
                "page",
                page.ok_or_else(|| CallError::PageExpired("the stored page mark is of another kind".to_owned()))?,
            );
        }
        fields::put(&mut input, self.fields_variable(ask.c).await?, self.object_of(ask.c));
        let seen_at = self.caller.clock.now();
        let text = self.run(script, Value::Object(input)).await?;
        let record = ask.c.record.local(&self.caller.parameters, seen_at)?;
        script_page(&text, &record)
    }
}

/// What one page of a list is asked for.
pub(super) struct Ask<'a> {
    pub c: &'a Collection,
    /// The variable `each`; null without one.
    pub each: Value,
    /// The variable `record`, of a list that fetches one; else null.
    pub record: Value,
    pub query: &'a PullQuery,
    pub mark: Option<&'a PageMark>,
}

/// The page that a script made: `{records, next?, total?}`.
pub(super) fn script_page(text: &str, record: &RecordSpec) -> Result<Page, CallError> {
    let path = |text: &str| Path::parse(text).map_err(CallError::Script);
    let (records, next, total, ids_only) = (path("$.records")?, path("$.next")?, path("$.total")?, path("$.idsOnly")?);
    let picker = Picker::new(&[Some(&records), Some(&next), Some(&total), Some(&ids_only)]);
    let found = picker.pick(text).map_err(|error| not_json(text, &error))?;
    let [Some(list), next, total, ids_only] = found[..] else {
        return Err(CallError::Script("the script returned no records".to_owned()));
    };
    let records = read_records(list, record, "records")?;
    let next = next.map(RawValue::get).filter(|next| !matches!(*next, "null" | "\"\"" | "false"));
    Ok(Page {
        records,
        next: next.map(|next| PageMark(format!("j:{next}"))),
        total: total.and_then(|total| total.get().parse().ok()),
        ids_only: ids_only.is_some_and(|flag| flag.get() == "true"),
        ..Page::default()
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

fn bounds(query: &PullQuery, cursor: &Cursor, local: &Local) -> Bounds {
    let mut since = Map::new();
    if let Some((time, id)) = &query.since {
        let bound = local.lower(*time);
        since.insert("time".to_owned(), bound.text.into());
        if let Some(id) = id.as_ref().filter(|_| !bound.moved) {
            since.insert("id".to_owned(), id.as_str().into());
        }
    }
    let mut until = Map::new();
    if let Some(time) = query.until {
        // The first time that is not wanted, for apps that leave the bound out.
        let time = if cursor.until_exclusive { tick_after(time, cursor.precision) } else { time };
        until.insert("time".to_owned(), local.upper(time).text.into());
    }
    Bounds { since: Value::Object(since), until: Value::Object(until) }
}

/// The start of the tick after the one that a time falls into.
fn tick_after(time: Millis, precision: Duration) -> Millis {
    let tick = u64::try_from(precision.as_millis()).unwrap_or(u64::MAX).max(1);
    Millis((time.0 - time.0 % tick).saturating_add(tick))
}

pub(super) fn is_gone(failure: &CallFailure, statuses: &[u16]) -> bool {
    failure.gone || failure.status.is_some_and(|status| statuses.contains(&status) && !matches!(status, 401 | 429))
}

pub(super) fn unsupported<R>(method: &Method<R>, c: &Collection, name: &str) -> CallError {
    CallError::NotSupported(match method {
        Method::NotSupported(reason) if !reason.is_empty() => format!("{name} of {}: {reason}", c.key),
        _ => format!("{name} of {}", c.key),
    })
}

pub(super) fn parse(text: &str) -> Result<Value, CallError> {
    serde_json::from_str(text).map_err(|error| CallError::Script(format!("the script's result is not JSON: {error}")))
}
