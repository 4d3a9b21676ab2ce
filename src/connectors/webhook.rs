//! What a webhook's request says, and what `handle` makes of it.
//!
//! Always true: `data` is parsed by Content-Type, and the raw body goes beside it unchanged; a body that is not UTF-8 is
//! refused in one clear sentence, since nothing that is understood could hold it; numbers keep their text; a `handle` has
//! no credentials and no `apiClient`; what a script printed is in the outcome, or behind the message of its failure. Not
//! here: signatures (`connectors::verify`), registering a webhook (`connectors::hooks`), what follows from a change.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::mapping::Env;
use super::record::id_text;
use super::script::ScriptError;
use super::spec::{Connector, Method};
use super::{
    CallError, Change, ChangeKind, EVERYTHING, GlobalEvent, GlobalHandled, Handled, Parameters, Session,
    WebhookRequest, WebhookResponse,
};
use crate::domain::json::Json;
use crate::domain::time::Millis;

/// What `handle` gets, as the text of a JSON object and as values for mappings.
struct Understood {
    /// Parsed by Content-Type.
    pub data: Value,
    pub query: Value,
    pub headers: Value,
    pub raw_body: String,
}

/// The input of a `handle` script.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HandleInput<'a> {
    query: &'a Value,
    data: &'a Value,
    headers: &'a Value,
    raw_body: &'a str,
    parameters: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a RawValue>,
    /// What identifies the account, on a connection's own webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
}

/// What is known of the connection whose webhook it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Of<'a> {
    /// What `subscribe` gave, as JSON text.
    pub state: Option<&'a str>,
    /// What identifies the account at the app.
    pub account: Option<&'a str>,
}

impl Understood {
    /// Reads a request.
    ///
    /// # Errors
    /// `BadAnswer`: the body is not UTF-8, or not what its Content-Type says.
    fn read(request: &WebhookRequest) -> Result<Self, CallError> {
        let raw_body = std::str::from_utf8(&request.body).map_err(|error| {
            let at = error.valid_up_to();
            CallError::BadAnswer(format!("the webhook's body is not UTF-8 text: byte {at} is none"))
        })?;
        let header = |name: &str| request.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let data = data_of(header("content-type").unwrap_or_default(), raw_body)?;
        let (query, headers) = (collected(&request.query), collected(&request.headers));
        Ok(Self { data, query, headers, raw_body: raw_body.to_owned() })
    }

    /// The input of a `handle` script as JSON text.
    fn script_input(&self, parameters: &Value, Of { state, account }: Of<'_>) -> Result<String, CallError> {
        let unreadable = |e: serde_json::Error| CallError::Script(format!("the webhook's state is not JSON: {e}"));
        let state = state.map(serde_json::from_str::<&RawValue>).transpose().map_err(unreadable)?;
        let Self { data, query, headers, raw_body } = self;
        let input = HandleInput { query, data, headers, raw_body, parameters, state, account };
        serde_json::to_string(&input).map_err(unreadable)
    }
}

/// Pairs as an object; a name that comes twice has a list.
fn collected(pairs: &[(String, String)]) -> Value {
    let mut object = Map::new();
    for (name, value) in pairs {
        match object.get_mut(name) {
            None => {
                object.insert(name.clone(), value.as_str().into());
            }
            Some(Value::Array(values)) => values.push(value.as_str().into()),
            Some(first) => *first = Value::Array(vec![first.take(), value.as_str().into()]),
        }
    }
    Value::Object(object)
}

fn data_of(content_type: &str, body: &str) -> Result<Value, CallError> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let text = body.strip_prefix('\u{feff}').unwrap_or(body);
    let json = || serde_json::from_str::<Value>(text);
    match kind.as_str() {
        _ if text.trim().is_empty() => Ok(Value::Null),
        "application/x-www-form-urlencoded" => {
            let pairs: Vec<_> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            Ok(collected(&pairs))
        }
        kind if kind == "application/json" || kind == "text/json" || kind.ends_with("+json") => {
            json().map_err(|e| CallError::BadAnswer(format!("the webhook's body is not the JSON it says it is: {e}")))
        }
        // XML stays text: only the connector knows what to take from it.
        kind if kind.ends_with("xml") || kind.starts_with("text/") => Ok(text.into()),
        _ => Ok(json().unwrap_or_else(|_| text.into())),
    }
}

/// What a global `handle` returns.
#[derive(Default, Deserialize)]
#[serde(default)]
struct GlobalResult {
    events: Option<Vec<EventResult>>,
    response: Option<ResponseResult>,
}

#[derive(Deserialize)]
struct EventResult {
    #[serde(default = "null")]
    payload: Box<RawValue>,
    selector: String,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// An answer to the app as scripts and mappings give it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseResult {
    status: Option<u16>,
    headers: Option<Map<String, Value>>,
    data: Option<Box<RawValue>>,
}

/// Reads what a method returned; `of` says which, for the error.
fn returned<'a, T: Deserialize<'a> + Default>(of: &str, text: &'a str) -> Result<T, CallError> {
    if text == "null" {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|error| CallError::Script(format!("{of} did not return what it must: {error}")))
}

/// What a global `handle` returned, as JSON text.
fn global_handled(of: &str, text: &str, log: Vec<String>) -> Result<GlobalHandled, CallError> {
    let result: GlobalResult = returned(of, text)?;
    let events = result.events.unwrap_or_default();
    let events = events.into_iter().map(|EventResult { payload, selector }| GlobalEvent { payload, selector });
    Ok(GlobalHandled { events: events.collect(), response: response(of, result.response)?, log })
}

/// The answer to the app. Its data is JSON, unless it is a text.
fn response(of: &str, result: Option<ResponseResult>) -> Result<Option<WebhookResponse>, CallError> {
    let Some(ResponseResult { status, headers, data }) = result else { return Ok(None) };
    let status = status.unwrap_or(200);
    if !(200..=599).contains(&status) {
        return Err(CallError::Script(format!("{of} answered with status {status}; it must be between 200 and 599")));
    }
    let mut named = Vec::new();
    for (name, value) in headers.unwrap_or_default() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        named.push((name.to_ascii_lowercase(), value));
    }
    let text = data.as_deref().map(|raw| (raw.get(), serde_json::from_str::<String>(raw.get())));
    let (kind, body) = match text {
        None | Some(("null", _)) => (None, Bytes::new()),
        Some((_, Ok(text))) => (Some("text/plain; charset=utf-8"), Bytes::from(text)),
        Some((raw, Err(_))) => (Some("application/json"), Bytes::from(raw.to_owned())),
    };
    if let Some(kind) = kind.filter(|_| !named.iter().any(|(name, _)| name == "content-type")) {
        named.push(("content-type".to_owned(), kind.to_owned()));
    }
    Ok(Some(WebhookResponse { status, headers: named, body }))
}

/// What a connection's own `handle` returns.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OwnResult {
    events: Option<Vec<OwnEvent>>,
    response: Option<ResponseResult>,
    state: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct OwnEvent {
    collection: String,
    #[serde(rename = "type")]
    kind: Option<ChangeKind>,
    record: Option<Box<RawValue>>,
    id: Option<Value>,
}

impl Session {
    /// Understands a request to the connection's own webhook.
    ///
    /// # Errors
    /// `BadAnswer`: the body cannot be read. `Script`: the method failed, or returned what it must not. `Unavailable`:
    /// no thread was free; try again.
    pub async fn handle_webhook(&self, request: &WebhookRequest, of: Of<'_>) -> Result<Handled, CallError> {
        handle_own(self.connector(), request, &self.caller.parameters, of).await
    }
}

/// The same without a session: a `handle` has no credentials. `parameters` is an object.
///
/// # Errors
/// As [`Session::handle_webhook`].
pub async fn handle_own(
    connector: &Connector,
    request: &WebhookRequest,
    parameters: &Value,
    of: Of<'_>,
) -> Result<Handled, CallError> {
    let hook = connector.webhook.as_ref().ok_or_else(|| missing("webhook/handle"))?;
    let (text, log) = handle(connector, &hook.handle, hook.deadline, request, parameters, of).await?;
    own_handled(connector, &text, log, (parameters, request.received_at))
}

/// Understands a request to an integration's global webhook. There are no credentials here.
///
/// # Errors
/// As [`Session::handle_webhook`]; `NotSupported` when the connector has no webhook of that key.
pub async fn handle_global(
    connector: &Connector,
    webhook_key: &str,
    request: &WebhookRequest,
    parameters: &Parameters,
) -> Result<GlobalHandled, CallError> {
    let of = format!("global-webhooks/{webhook_key}/handle");
    let hook = connector.global_webhook(webhook_key).ok_or_else(|| missing(&of))?;
    let parameters = Value::Object(parameters.clone());
    let (text, log) = handle(connector, &hook.handle, hook.deadline, request, &parameters, Of::default()).await?;
    global_handled(&of, &text, log)
}

/// Runs a `handle`, however it is written: the result as JSON text, and what was printed.
async fn handle(
    connector: &Connector,
    method: &Method<()>,
    deadline: Option<Duration>,
    request: &WebhookRequest,
    parameters: &Value,
    of: Of<'_>,
) -> Result<(String, Vec<String>), CallError> {
    let understood = Understood::read(request)?;
    match method {
        Method::Script(script) => {
            let input = understood.script_input(parameters, of)?;
            let done = connector.scripts.call(script, input, None, deadline.unwrap_or(Duration::MAX)).await;
            Ok((done.result.map_err(|error| explained(error, &done.console))?, done.console))
        }
        Method::Map(map) => {
            let state = serde_json::from_str(of.state.unwrap_or("null")).unwrap_or_default();
            let account = of.account.map_or(Value::Null, Value::from);
            let Understood { data, query, headers, .. } = &understood;
            let variables = [
                ("parameters", parameters),
                ("state", &state),
                ("query", query),
                ("headers", headers),
                ("account", &account),
            ];
            Ok((map.eval(&Env::new(&Json::from(data), &variables)).to_string(), Vec::new()))
        }
        _ => Err(missing("handle")),
    }
}

/// A script's failure, with what it printed behind the message: whoever mends it looks there.
fn explained(error: ScriptError, console: &[String]) -> CallError {
    match CallError::from(error) {
        CallError::Script(message) if !console.is_empty() => {
            CallError::Script(format!("{message}; it printed: {}", console.join(" | ")))
        }
        other => other,
    }
}

fn own_handled(
    connector: &Connector,
    text: &str,
    log: Vec<String>,
    seen: (&Value, Millis),
) -> Result<Handled, CallError> {
    let of = "webhook/handle";
    let result: OwnResult = returned(of, text)?;
    let mut changes = Vec::new();
    for (index, event) in result.events.unwrap_or_default().into_iter().enumerate() {
        let change = change(connector, event, seen);
        changes.push(change.map_err(|why| CallError::Script(format!("{of}, events[{index}]: {why}")))?);
    }
    let state = result.state.map(|state| state.get().to_owned());
    Ok(Handled { changes, response: response(of, result.response)?, state, log })
}

fn change(connector: &Connector, event: OwnEvent, seen: (&Value, Millis)) -> Result<Change, String> {
    let OwnEvent { collection, kind, record, id } = event;
    if kind == Some(ChangeKind::Erased) && collection == EVERYTHING {
        return Ok(Change::everything());
    }
    let spec = connector.collection(&collection).ok_or_else(|| format!("there is no collection {collection:?}"))?;
    let reader = spec.record.local(seen.0, seen.1).map_err(|error| error.to_string())?;
    let record = record.filter(|raw| raw.get() != "null").map(|raw| reader.read(&raw)).transpose()?;
    let id =
        id.and_then(|id| id_text(&Json::from(&id))).or_else(|| record.as_ref().map(|record| record.remote_id.clone()));
    let remote_id = id.ok_or("it has neither a record nor an id")?;
    Ok(Change { collection, kind: kind.unwrap_or(ChangeKind::Changed), remote_id, record })
}

fn missing(what: &str) -> CallError {
    CallError::NotSupported(format!("the connector has no {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(content_type: &str, body: &[u8]) -> WebhookRequest {
        WebhookRequest {
            method: "POST".to_owned(),
            url: "https://hooks.example/in/c/t?a=1&b=2&a=3".to_owned(),
            query: [("a", "1"), ("b", "2"), ("a", "3")].map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: Bytes::copy_from_slice(body),
            received_at: Millis(0),
        }
    }

    fn data(content_type: &str, body: &str) -> Value {
        Understood::read(&request(content_type, body.as_bytes())).unwrap().data
    }

    #[test]
    fn data_is_parsed_by_content_type() {
        assert_eq!(data("application/json; charset=utf-8", r#"{"a":1.50}"#).to_string(), r#"{"a":1.50}"#);
        assert_eq!(data("application/cloudevents+json", "[1]"), json!([1]));
        assert_eq!(data("application/x-www-form-urlencoded", "a=1&b=x+y&a=2"), json!({"a": ["1", "2"], "b": "x y"}));
        assert_eq!(data("application/soap+xml", "<a/>"), json!("<a/>"));
        assert_eq!(data("text/plain", r#"{"a":1}"#), json!(r#"{"a":1}"#));
        assert_eq!(data("", r#"{"a":1}"#), json!({"a": 1}));
        assert_eq!(data("application/octet-stream", "not json"), json!("not json"));
        assert_eq!(data("application/json", ""), Value::Null);
    }

    #[test]
    fn bodies_that_cannot_be_read_say_so() {
        let error = Understood::read(&request("application/json", b"{\"a\":")).err().unwrap();
        assert!(error.to_string().contains("not the JSON it says it is"), "{error}");
        let error = Understood::read(&request("text/plain", b"ab\xff")).err().unwrap();
        assert!(error.to_string().contains("not UTF-8 text: byte 2"), "{error}");
    }

    #[test]
    fn the_script_gets_all_parts() {
        let understood = Understood::read(&request("application/json", br#"{"id":12345678901234567890}"#)).unwrap();
        let parameters = json!({"p": 1});
        let of = Of { state: Some(r#"{"secret":"s"}"#), account: Some("acc_1") };
        let input = understood.script_input(&parameters, of).unwrap();
        assert_eq!(
            input,
            r#"{"query":{"a":["1","3"],"b":"2"},"data":{"id":12345678901234567890},"headers":{"content-type":"application/json"},"rawBody":"{\"id\":12345678901234567890}","parameters":{"p":1},"state":{"secret":"s"},"account":"acc_1"}"#
        );
        assert!(!understood.script_input(&parameters, Of::default()).unwrap().contains("state"));
    }

    #[test]
    fn the_result_of_the_brief_is_understood() {
        let text = r#"{"events":[{"payload":{"from_user_id":7},"selector":"user_id:7"}],"response":{"status":201,"data":"Webhook received"}}"#;
        let handled = global_handled("handle.js", text, Vec::new()).unwrap();
        assert_eq!(handled.events[0].selector, "user_id:7");
        assert_eq!(handled.events[0].payload.get(), r#"{"from_user_id":7}"#);
        let response = handled.response.unwrap();
        assert_eq!((response.status, response.body), (201, Bytes::from_static(b"Webhook received")));
        assert_eq!(response.headers, [("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())]);
    }

    #[test]
    fn answers_keep_their_own_content_type_and_may_be_json_or_nothing() {
        let answer = |text: &str| global_handled("h", text, Vec::new()).map(|handled| handled.response);
        let json = answer(r#"{"response":{"data":{"ok":true}}}"#).unwrap().unwrap();
        assert_eq!((json.status, json.headers[0].1.as_str()), (200, "application/json"));
        let own =
            answer(r#"{"response":{"data":"<a/>","headers":{"Content-Type":"text/xml","x-n":1}}}"#).unwrap().unwrap();
        assert_eq!(own.headers, [("content-type".into(), "text/xml".into()), ("x-n".into(), "1".into())]);
        assert_eq!(answer(r#"{"response":{"status":204}}"#).unwrap().unwrap().body.len(), 0);
        assert!(answer(r#"{"response":{"status":99}}"#).is_err());
        assert_eq!(answer("null").unwrap(), None);
    }

    #[test]
    fn results_of_another_shape_are_errors_that_name_the_method() {
        let error = global_handled("app/handle.js", r#"{"events":[{"selector":7}]}"#, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("app/handle.js did not return what it must"), "{error}");
    }
}
