//! A connector's own tests: given this answer of the app or this webhook, these unified records or events.
//!
//! Always true: nothing is called; a script's `apiClient` gets the case's answers. Not here: signature checks of the
//! requests (they have their own tests), the engine's diff.

mod replay;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use serde_saphyr::Spanned;

use self::replay::{AnswerCase, CaseMethod, played};
use super::compare::difference;
use super::graphql::faults;
use super::lists::script_page;
use super::pages::{Reader, Shown};
use super::paging::Position;
use super::script::{ApiCaller, ApiOutcome, ApiReply, ApiRequest};
use super::session::map_record;
use super::spec::{Method, WebhookBody};
use super::webhook::{Of, handle_global, handle_own};
use super::yaml::{self, Placed};
use super::{AppRecord, Change, Collection, Connector, GlobalHandled, Parameters, SpecError, WebhookRequest};
use crate::domain::record::Unified;
use crate::domain::time::Millis;

/// How a connector's tests went.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that hold.
    pub passed: usize,
    pub failures: Vec<TestFailure>,
}

/// A case that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFailure {
    pub file: String,
    pub line: u64,
    pub case: String,
    pub message: String,
}

impl fmt::Display for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}: {}: {}", self.file, self.line, self.case, self.message)
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    parameters: Option<Placed>,
    #[schemars(with = "Vec<Case>")]
    cases: Vec<Spanned<Case>>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    name: String,
    parameters: Option<Placed>,
    collection: Option<String>,
    /// What is run against the answers, with its requests. Without it `answer` is only read, as a page of the list.
    method: Option<CaseMethod>,
    /// The record's, for `fetch`.
    id: Option<String>,
    /// The lower bound, for `pull` and `deleted`: a time as RFC 3339 has it.
    since: Option<String>,
    /// What the app answers to `pull`, or to `scan` where there is no `pull`.
    answer: Option<Placed>,
    /// The same as text, for answers that are not JSON.
    answer_text: Option<String>,
    /// The answers to the requests of `method`, in their order.
    answers: Option<Vec<AnswerCase>>,
    webhook: Option<WebhookCase>,
    records: Option<Vec<ExpectedRecord>>,
    events: Option<Vec<Placed>>,
    /// What `account` must come to.
    account: Option<String>,
    /// A part of the error that must come.
    error: Option<String>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WebhookCase {
    /// The key of a global webhook; without it, the connection's own.
    global: Option<String>,
    method: Option<String>,
    headers: Option<Placed>,
    query: Option<Placed>,
    body: Option<Placed>,
    raw_body: Option<String>,
    state: Option<Placed>,
    /// What identifies the account whose webhook it is.
    account: Option<String>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ExpectedRecord {
    remote_id: String,
    remote_created_at: Option<String>,
    remote_updated_at: Option<String>,
    deleted: Option<bool>,
    fields: Option<Placed>,
}

/// What a case came to.
#[derive(Default)]
struct Outcome {
    answered: Option<Vec<(AppRecord, Unified<'static>)>>,
    account: Option<String>,
    changes: Option<Vec<Change>>,
    hooked: Vec<(AppRecord, Unified<'static>)>,
    global: Option<GlobalHandled>,
}

/// Runs the tests in the connector's folder.
///
/// # Errors
/// A test file that cannot be read, and a collection with `webhookBody: complete` of which no test shows it.
pub async fn run_tests(connector: &Arc<Connector>) -> Result<Report, SpecError> {
    let mut report = Report::default();
    let mut shown: Vec<String> = Vec::new();
    for path in connector.folder.paths().filter(|path| path.starts_with("tests/") && path.ends_with(".yml")) {
        let file: TestFile = yaml::read(path, connector.folder.text(path)?)
            .map_err(|error| SpecError { connector: connector.key.clone(), ..error })?;
        for spanned in &file.cases {
            let case = &spanned.value;
            match run_case(connector, file.parameters.as_ref(), case).await {
                Ok(()) => {
                    report.passed += 1;
                    let listed = case.answer.is_some() || case.answers.is_some();
                    let both = (listed && case.webhook.is_some()).then(|| case.collection.clone());
                    shown.extend(both.flatten());
                }
                Err(message) => report.failures.push(TestFailure {
                    file: path.to_owned(),
                    line: spanned.referenced.line(),
                    case: case.name.clone(),
                    message,
                }),
            }
        }
    }
    let claims = |c: &&Collection| c.webhook_body == WebhookBody::Complete && !shown.contains(&c.key);
    match connector.collections.iter().find(claims).filter(|_| report.failures.is_empty()) {
        None => Ok(report),
        Some(collection) => Err(SpecError {
            connector: connector.key.clone(),
            ..SpecError::in_file(
                format!("data/{}/spec.yml", collection.key),
                "complete must be shown by a test with both answer and webhook that give the same record",
            )
            .field("webhookBody")
        }),
    }
}

fn object(placed: Option<&Placed>) -> Parameters {
    match placed.map(|placed| placed.node.to_json()) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

async fn run_case(connector: &Arc<Connector>, shared: Option<&Placed>, case: &Case) -> Result<(), String> {
    let mut given = object(shared);
    given.extend(object(case.parameters.as_ref()));
    let parameters = connector.parameters.check(&given)?;
    let connector = connector.specialise(&parameters).map_err(|error| error.to_string())?;
    let outcome = match (play(&connector, parameters, case).await, &case.error) {
        (Ok(outcome), None) => outcome,
        (Err(error), Some(expected)) if error.contains(expected.as_str()) => return Ok(()),
        (Err(error), _) => return Err(error),
        (Ok(_), Some(expected)) => return Err(format!("it went well, expected the error {expected:?}")),
    };
    judge(case, &outcome)
}

async fn play(connector: &Arc<Connector>, parameters: Parameters, case: &Case) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let parameter_value = Value::Object(parameters.clone());
    let answer = (case.answer_text.clone()).or_else(|| case.answer.as_ref().map(|a| a.node.to_json().to_string()));
    if case.answers.is_some() && case.method.is_none() {
        return Err("answers belong to a method: say method: pull, scan, deleted, fetch or account".to_owned());
    }
    if let Some(method) = case.method {
        let walked = played(connector, &parameters, case, method).await?;
        outcome.account = walked.account;
        outcome.answered = Some(walked.found.into_iter().map(|found| (found.record, found.unified)).collect());
    } else if let Some(answer) = answer {
        let key = case.collection.as_deref().ok_or("a case with an answer needs its collection")?;
        let collection = connector.collection(key).ok_or_else(|| format!("there is no collection {key:?}"))?;
        let records = answered(connector, collection, &answer, &parameter_value).await?;
        outcome.answered = Some(mapped(collection, records, &parameter_value)?);
    }
    let Some(webhook) = &case.webhook else { return Ok(outcome) };
    let mut request = request(webhook);
    if let Some(key) = &webhook.global {
        let handled = handle_global(connector, key, &request, &parameters).await.map_err(|e| e.to_string())?;
        outcome.global = Some(handled);
        return Ok(outcome);
    }
    if let Some(own) = &connector.webhook {
        request.body = super::redact(&request.body, &own.redact);
    }
    let state = webhook.state.as_ref().map(|state| state.node.to_json().to_string());
    let of = Of { state: state.as_deref(), account: webhook.account.as_deref() };
    let handled = handle_own(connector, &request, &parameter_value, of).await.map_err(|e| e.to_string())?;
    for change in &handled.changes {
        let collection = connector.collection(&change.collection).ok_or("the webhook names an unknown collection")?;
        outcome.hooked.extend(mapped(collection, change.record.clone().into_iter().collect(), &parameter_value)?);
    }
    outcome.changes = Some(handled.changes);
    Ok(outcome)
}

fn mapped(
    c: &Collection,
    records: Vec<AppRecord>,
    parameters: &Value,
) -> Result<Vec<(AppRecord, Unified<'static>)>, String> {
    let map = |record: AppRecord| {
        map_record(c, &record, parameters, |unified| unified.keep()).map(|unified| (record, unified))
    };
    records.into_iter().map(map).collect()
}

/// The records that the collection's list reads out of an answer.
async fn answered(
    connector: &Connector,
    c: &Collection,
    answer: &str,
    parameters: &Value,
) -> Result<Vec<AppRecord>, String> {
    let method = if c.pull.is_there() { &c.pull } else { &c.scan };
    let page = match method {
        Method::Rest(list) => {
            let base = url::Url::parse("https://app.invalid/").map_err(|e| e.to_string())?;
            if let Some(error) = connector.graphql.as_ref().and_then(|graphql| faults(graphql, None, answer).0) {
                return Err(error.to_string());
            }
            let (reader, shown) =
                (Reader { parameters, seen_at: Millis(u64::MAX) }, Shown { body: answer, links: &[] });
            list.page(&list.paging, shown, &Position::First, &base, reader)
        }
        Method::Script(script) => {
            let canned = Canned(answer.to_owned());
            let input = json!({ "parameters": parameters }).to_string();
            let done = connector.scripts.call(script, input, Some(&canned), connector.deadline).await;
            let record = c.record.local(parameters, Millis(u64::MAX)).map_err(|error| error.to_string())?;
            script_page(&done.result.map_err(|error| error.to_string())?, &record)
        }
        _ => return Err(format!("the collection {} has neither pull nor scan", c.key)),
    };
    page.map(|page| page.records).map_err(|error| error.to_string())
}

/// An app that gives the same answer to everything.
struct Canned(String);

impl ApiCaller for Canned {
    fn call(&self, _request: ApiRequest) -> ApiOutcome<'_> {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let body = self.0.clone();
        Box::pin(async move { Ok(ApiReply { status: 200, headers, body }) })
    }
}

fn request(case: &WebhookCase) -> WebhookRequest {
    let pairs = |placed: Option<&Placed>| -> Vec<(String, String)> {
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        object(placed).into_iter().map(|(name, value)| (name, text(value))).collect()
    };
    let mut headers: Vec<(String, String)> =
        pairs(case.headers.as_ref()).into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    if case.body.is_some() && !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let json = case.body.as_ref().map(|body| body.node.to_json().to_string());
    WebhookRequest {
        method: case.method.clone().unwrap_or_else(|| "POST".to_owned()),
        url: "https://tidemill.invalid/in/test".to_owned(),
        query: pairs(case.query.as_ref()),
        headers,
        body: Bytes::from(case.raw_body.clone().or(json).unwrap_or_default()),
        received_at: Millis(0),
    }
}

fn judge(case: &Case, outcome: &Outcome) -> Result<(), String> {
    if let (Some(answered), Some(_)) = (&outcome.answered, &outcome.changes) {
        let text = |pair: &(AppRecord, Unified<'_>)| {
            let (_, unified) = pair;
            json!([unified.remote_id, unified.fields.to_map(), unified.remote_updated_at.map(|at| at.0)]).to_string()
        };
        let (listed, hooked): (Vec<String>, Vec<String>) =
            (answered.iter().map(text).collect(), outcome.hooked.iter().map(text).collect());
        if listed != hooked {
            return Err(format!("the list and the webhook differ: {} and {}", listed.join(", "), hooked.join(", ")));
        }
    }
    if let Some(expected) = case.account.as_ref().filter(|expected| outcome.account.as_ref() != Some(*expected)) {
        return Err(format!(
            "the account is {:?}, expected {expected:?}",
            outcome.account.as_deref().unwrap_or_default()
        ));
    }
    if let Some(expected) = &case.records {
        let actual = outcome.answered.as_ref().unwrap_or(&outcome.hooked);
        if actual.len() != expected.len() {
            return Err(format!("there are {} records, expected {}", actual.len(), expected.len()));
        }
        expected.iter().zip(actual).try_for_each(|(expected, actual)| judge_record(expected, actual))?;
    }
    let Some(expected) = &case.events else { return Ok(()) };
    let actual: Vec<Value> = match (&outcome.global, &outcome.changes) {
        (Some(global), _) => global.events.iter().map(|event| event_json(&event.payload, &event.selector)).collect(),
        (None, Some(changes)) => changes.iter().map(change_json).collect(),
        (None, None) => return Err("there is no webhook whose events could be compared".to_owned()),
    };
    if actual.len() != expected.len() {
        return Err(format!("there are {} events, expected {}: {}", actual.len(), expected.len(), Value::from(actual)));
    }
    for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
        let expected = expected.node.to_json();
        let named: Value = match (&expected, actual) {
            (Value::Object(wanted), Value::Object(all)) => {
                Value::Object(all.iter().filter(|(name, _)| wanted.contains_key(*name)).map(clone).collect())
            }
            _ => actual.clone(),
        };
        difference(&format!("events[{index}]"), &expected, &named).map_or(Ok(()), Err)?;
    }
    Ok(())
}

fn clone((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn judge_record(expected: &ExpectedRecord, (record, unified): &(AppRecord, Unified<'_>)) -> Result<(), String> {
    let what = format!("record {}", expected.remote_id);
    if unified.remote_id != expected.remote_id {
        return Err(format!("{what}: its remoteId is {:?}", unified.remote_id));
    }
    let time = |name: &str, expected: &Option<String>, actual: Option<Millis>| match expected {
        Some(expected) if Millis::parse_rfc3339(expected) != actual => {
            let actual = actual.map_or_else(|| "absent".to_owned(), Millis::rfc3339_millis);
            Err(format!("{what}: {name} is {actual}, expected {expected}"))
        }
        _ => Ok(()),
    };
    time("remoteCreatedAt", &expected.remote_created_at, unified.remote_created_at)?;
    time("remoteUpdatedAt", &expected.remote_updated_at, unified.remote_updated_at)?;
    if expected.deleted.is_some_and(|deleted| deleted != record.deleted) {
        return Err(format!("{what}: deleted is {}", record.deleted));
    }
    let Some(fields) = &expected.fields else { return Ok(()) };
    let actual = Value::Object(unified.fields.to_map());
    difference(&format!("{what}: fields"), &fields.node.to_json(), &actual).map_or(Ok(()), Err)
}

fn event_json(payload: &RawValue, selector: &str) -> Value {
    json!({ "payload": serde_json::from_str::<Value>(payload.get()).unwrap_or_default(), "selector": selector })
}

fn change_json(change: &Change) -> Value {
    let record = change.record.as_ref().and_then(|record| serde_json::from_str::<Value>(record.raw.get()).ok());
    json!({ "collection": change.collection, "type": change.kind, "id": change.remote_id, "record": record })
}
