//! A connector's calls with one connection's parameters and credentials.
//!
//! Always true: paths are relative to the connection's base URI, and no call leaves its origin; every failure of the app
//! is a [`CallError`]. Not here: which call is due (the watcher decides), how a record is diffed (`domain::snapshot`),
//! webhooks (`connectors::hooks`), tokens (`connectors::refresh`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::caller::{CallFailure, Caller};
use super::exchange::{Replay, Tap, Wire};
use super::mapping::Env;
use super::record::id_text;
use super::rest::CallRest;
use super::script::Script;
use super::spec::{Account, Collection, Connector, Method};
use super::{AppRecord, Budget, CallError, Credentials, Page, PageMark, Parameters, Part, PullQuery, fields};
use crate::clock::Clock;
use crate::domain::json::{self, Json};
use crate::domain::models::Catalogue;
use crate::domain::record::{CUSTOM_FIELDS, Unified};
use crate::domain::time::Millis;
use crate::outbound;

/// A connector with one connection's parameters and credentials.
pub struct Session {
    pub(super) caller: Caller,
    pub(super) fields: fields::Kept,
    /// What identifies the account at the app, where it is known.
    pub(super) account: Option<String>,
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
        Ok(Self { caller, fields: fields::Kept::default(), account: None })
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
        Ok(Self { caller, fields: fields::Kept::default(), account: None })
    }
    /// The same of the account that the app was once asked for.
    #[must_use]
    pub fn of_account(mut self, account: Option<String>) -> Self {
        self.account = account;
        self
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
        self.complete_page(c, self.list(&c.pull, c, part, query, mark).await?).await
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
        self.complete_page(c, self.list(&c.ties, c, part, query, None).await?).await
    }
    /// One page of the records whose parts changed, each once.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn touched_page(
        &self,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        let mut page = self.list(&c.touched, c, None, query, mark).await?;
        // It shows a record once for each of its parts.
        let mut known = HashSet::new();
        page.records.retain(|record| known.insert(record.remote_id.clone()));
        self.complete_page(c, page).await
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
        self.complete_page(c, self.list(method, c, part, query, mark).await?).await
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
    /// What `take` makes of the unified record, which borrows from the app's own. The error is one sentence.
    ///
    /// # Errors
    /// The record cannot be read as JSON, or its mapping does not make an object.
    pub fn map<T>(&self, c: &Collection, record: &AppRecord, take: impl FnOnce(Unified<'_>) -> T) -> Result<T, String> {
        map_record(c, record, &self.caller.parameters, take)
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
            Account::Template(template) => return Ok(template.render(&Env::of(&variables))),
            Account::Call(method) => self.value_of(method, &[], json!({}), "account").await?,
        };
        id_text(&Json::from(&value))
            .map(Some)
            .ok_or_else(|| CallError::BadAnswer("the app does not say which account this is".to_owned()))
    }
    /// Whether the app lets these credentials in, as far as it can be asked: a client gets a token, and `check` an answer. One
    /// that it may not have is an answer too.
    ///
    /// # Errors
    /// The app refuses the credentials, or cannot be reached.
    pub async fn prove(&self) -> Result<(), CallError> {
        let connector = &self.caller.connector;
        let variables = self.caller.variables();
        let way = super::auth::choose(&connector.auth, &self.credentials(), Some(&Env::of(&variables)));
        let is_client = matches!(*self.credentials(), Credentials::Integration { .. });
        if is_client && matches!(way, Some(super::auth_files::AuthFile::Oauth2(_))) {
            self.adopt(self.refresh_credentials().await?);
        }
        match &connector.check {
            Method::Missing => Ok(()),
            check => match self.value_of(check, &[], json!({}), "check").await {
                Ok(_) | Err(CallError::Refused { .. } | CallError::BadAnswer(_)) => Ok(()),
                Err(error) => Err(error),
            },
        }
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
                let outgoing = call.request(&Env::of(&variables))?;
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
        // The methods of a connector event bring the event's own.
        if input.get("parameters").is_none() {
            input["parameters"] = self.caller.parameters.clone();
        }
        let scripts = &self.caller.connector.scripts;
        let done = scripts.call(script, input.to_string(), Some(self), Duration::MAX).await;
        for line in &done.console {
            tracing::debug!(script = script.file, "{line}");
        }
        Ok(done.result?)
    }
}

/// What `take` makes of the unified record that a collection's mapping makes. The error is one sentence.
pub(super) fn map_record<T>(
    c: &Collection,
    record: &AppRecord,
    parameters: &Value,
    take: impl FnOnce(Unified<'_>) -> T,
) -> Result<T, String> {
    let value = json::read(&record.raw).map_err(|why| format!("the record is not JSON: {why}"))?;
    let variables = [("parameters", parameters)];
    let Json::Object(fields) = c.map.make(&Env::new(&value, &variables)) else {
        return Err(format!("the mapping of {} makes no object", c.key));
    };
    let fields = match Catalogue::embedded().data(&c.topic) {
        Some(model) => model.arrange(fields),
        None => {
            let (custom, others): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(name, _)| name == CUSTOM_FIELDS);
            others.into_iter().chain(custom).collect()
        }
    };
    Ok(take(Unified {
        remote_id: record.remote_id.clone(),
        remote_created_at: record.created_at,
        remote_updated_at: record.updated_at,
        fields,
    }))
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
