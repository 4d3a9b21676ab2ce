//! What an app answered, kept as a test case that plays it back.
//!
//! Always true: a credential, and a parameter that is marked as a secret, is never written, not even where the app's
//! answer repeats it; numbers of answers keep their digits. Not here: how a case is played (`connectors::testing`), where
//! the file goes (`app::trial`).

use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::mapping::decimal;
use super::template::encode;
use super::trial::{Ask, Found, Walked};
use super::yaml_text::yaml_text;
use super::{Connector, Credentials, Exchange, Parameters};
use crate::domain::time::Millis;

/// The first line of a recorded file: a file that begins otherwise was written by a person.
pub const HEADER: &str = "# Recorded by `tidemill connector run --record`. It holds what the account holds: look before you \
                          share it.\n";
/// What stands in place of a secret.
const PLACEHOLDER: &str = "secret-of-a-test";
/// A shorter secret cannot be told from other text.
const SECRET_CHARS_MIN: usize = 6;

/// What was exchanged, page by page: what a renewed token made worthless is forgotten.
#[derive(Debug, Default)]
pub struct Notebook(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    settled: Vec<Exchange>,
    fresh: Vec<Exchange>,
}

impl Notebook {
    /// Notes an exchange of the page at hand.
    pub fn note(&self, exchange: Exchange) {
        if !exchange.asked.for_token {
            self.lock().fresh.push(exchange);
        }
    }
    /// The page at hand is done.
    pub fn settle(&self) {
        let mut notes = self.lock();
        let fresh = std::mem::take(&mut notes.fresh);
        notes.settled.extend(fresh);
    }
    /// The page at hand is asked for again.
    pub fn forget(&self) {
        self.lock().fresh.clear();
    }
    /// All that was settled; the notebook is empty then.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.lock().settled)
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Texts that must not be written, and what stands in their place.
#[derive(Default)]
pub struct Scrub(Vec<(String, String)>);

impl Scrub {
    /// The secrets among parameters and credentials.
    pub fn new(connector: &Connector, parameters: &Parameters, credentials: &[&Credentials]) -> Self {
        let mut all = Vec::new();
        for name in connector.secret_parameters() {
            if let Some(secret) = parameters.get(name).and_then(Value::as_str) {
                all.push((secret.to_owned(), placeholder(connector, name)));
            }
        }
        for credentials in credentials {
            let text = credentials.to_text();
            gather(&serde_json::from_str(text.expose()).unwrap_or_default(), &mut all);
        }
        // The longest first: one secret may be a part of another.
        all.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all)
    }
    /// Whether all of them can be told from other text. The error is one sentence.
    pub fn check(&self) -> Result<(), String> {
        match self.0.iter().any(|(secret, _)| secret.chars().count() < SECRET_CHARS_MIN) {
            true => Err(format!(
                "a credential or a secret parameter has fewer than {SECRET_CHARS_MIN} characters and cannot be told from \
                 other text, so nothing is recorded; use longer ones"
            )),
            false => Ok(()),
        }
    }
    /// The text without the secrets, as they are and as URLs and JSON write them.
    pub fn clean(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for (secret, instead) in &self.0 {
            let quoted = json!(secret).to_string();
            let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            for written in [secret.clone(), quoted.trim_matches('"').to_owned(), encode(secret), form] {
                clean = clean.replace(&written, instead);
            }
        }
        clean
    }
}

/// Every text in credentials but what is no secret.
fn gather(value: &Value, into: &mut Vec<(String, String)>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::String(text) if name != "username" && name != "expiresAt" && !text.is_empty() => {
                into.push((text.clone(), PLACEHOLDER.to_owned()));
            }
            other => gather(other, into),
        }
    }
}

/// A text that the parameter may have.
fn placeholder(connector: &Connector, name: &str) -> String {
    let (min, max) = connector.parameters.property(name).map(super::Property::lengths).unwrap_or_default();
    let length = PLACEHOLDER.len().max(min.unwrap_or(0)).min(max.unwrap_or(usize::MAX));
    PLACEHOLDER.chars().cycle().take(length).collect()
}

/// One method that was run.
pub struct Take {
    pub collection: Option<String>,
    pub ask: Ask,
    pub exchanges: Vec<Exchange>,
    pub walked: Walked,
}

/// The whole file. `parameters` are those that were given.
pub fn file(connector: &Connector, parameters: &Parameters, takes: &[Take], scrub: &Scrub) -> String {
    let secrets = connector.secret_parameters();
    let mut kept = Parameters::new();
    for (name, value) in parameters {
        match secrets.contains(&name.as_str()) {
            true if value.is_string() => {
                kept.insert(name.clone(), placeholder(connector, name).into());
            }
            true => {}
            false => {
                kept.insert(name.clone(), value.clone());
            }
        }
    }
    let mut whole = Map::new();
    if !kept.is_empty() {
        whole.insert("parameters".to_owned(), Value::Object(kept));
    }
    whole.insert("cases".to_owned(), takes.iter().map(case).collect());
    format!("{HEADER}{}", scrub.clean(&yaml_text(&Value::Object(whole))))
}

fn case(take: &Take) -> Value {
    let name = match &take.collection {
        Some(collection) => format!("{} of {collection}, as recorded", take.ask.name()),
        None => format!("{}, as recorded", take.ask.name()),
    };
    let mut case = Map::from_iter([("name".to_owned(), Value::from(name))]);
    let mut put = |name: &str, value: Value| case.insert(name.to_owned(), value);
    if let Some(collection) = &take.collection {
        put("collection", collection.as_str().into());
    }
    put("method", take.ask.name().into());
    if let Ask::Fetch { id } = &take.ask {
        put("id", id.as_str().into());
    }
    if let Some(since) = take.ask.since() {
        put("since", since.rfc3339_millis().into());
    }
    put("answers", take.exchanges.iter().map(answer).collect());
    match &take.walked.account {
        Some(account) => put("account", account.as_str().into()),
        None => put("records", take.walked.found.iter().map(record).collect()),
    };
    Value::Object(case)
}

fn answer(exchange: &Exchange) -> Value {
    let mut answer = Map::from_iter([("request".to_owned(), Value::from(exchange.asked.request.as_str()))]);
    let mut put = |name: &str, value: Value| answer.insert(name.to_owned(), value);
    if let Some(sent) = exchange.asked.sent.as_ref().filter(|sent| survives(sent)) {
        put("sent", sent.clone());
    }
    if let Some(status) = exchange.status.filter(|status| *status != 200) {
        put("status", status.into());
    }
    if !exchange.headers.is_empty() {
        // A header that comes twice is joined, as RFC 9110 has it.
        let mut headers: Map<String, Value> = Map::new();
        for (name, value) in &exchange.headers {
            let before = headers.get(name).and_then(Value::as_str).map(|before| format!("{before}, {value}"));
            headers.insert(name.clone(), before.unwrap_or_else(|| value.clone()).into());
        }
        put("headers", Value::Object(headers));
    }
    // As text, since YAML does not keep the digits of numbers.
    let pretty = serde_json::from_str::<Value>(&exchange.body).map(|value| format!("{value:#}"));
    put("answerText", pretty.unwrap_or_else(|_| exchange.body.clone()).into());
    Value::Object(answer)
}

fn record(found: &Found) -> Value {
    let unified = &found.unified;
    let mut record = Map::from_iter([("remoteId".to_owned(), Value::from(unified.remote_id.as_str()))]);
    let mut time = |name: &str, at: Option<Millis>| {
        if let Some(at) = at {
            record.insert(name.to_owned(), at.rfc3339_millis().into());
        }
    };
    time("remoteCreatedAt", unified.remote_created_at);
    time("remoteUpdatedAt", unified.remote_updated_at);
    if found.record.deleted {
        record.insert("deleted".to_owned(), true.into());
    }
    let fields = Value::Object(unified.fields.to_map());
    if !unified.fields.is_empty() && survives(&fields) {
        record.insert("fields".to_owned(), fields);
    }
    Value::Object(record)
}

/// Whether YAML gives back all numbers as they are; one with more digits than a double would not be.
fn survives(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            let float = || text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            text.parse::<i64>().is_ok()
                || float()
                    .is_some_and(|float| decimal::compare(&text, float.as_str()).is_some_and(std::cmp::Ordering::is_eq))
        }
        Value::Array(items) => items.iter().all(survives),
        Value::Object(members) => members.values().all(survives),
        _ => true,
    }
}
