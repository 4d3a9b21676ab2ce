//! A connection's own webhook at the app (register, renew, take away), and the events of global webhooks.
//!
//! Always true: a webhook that is missing at the app counts as taken away. Not here: how a request is parsed and what
//! `handle` may return (`connectors::webhook`), signature checks (`connectors::verify`).

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::mapping::Env;
use super::record::id_text;
use super::rest::CallRest;
use super::session::parse;
use super::spec::{ConnectorEvent, Method, OfCollection};
use super::{
    AppRecord, CallError, Change, ChangeKind, Collection, EVERYTHING, Journal, OwnWebhook, Parameters, Selector,
    Session, Subscribed, journal,
};
use crate::domain::json::{self, Json};
use crate::domain::time::Millis;

/// What a call of a webhook's life is told.
pub(super) struct Told<'a> {
    /// Where the app sends it; or that it is at the app's journal.
    uri: &'a str,
    secret: Option<Value>,
    state: Option<Value>,
    /// The one that is to be made or taken away, where there are several.
    subscription: Option<Value>,
}

impl<'a> Told<'a> {
    /// The address alone.
    pub(super) fn at(uri: &'a str) -> Self {
        Self { uri, secret: None, state: None, subscription: None }
    }
    /// The address, and one of several subscriptions.
    pub(super) fn of(uri: &'a str, subscription: Value) -> Self {
        Self { subscription: Some(subscription), ..Self::at(uri) }
    }
}

impl Session {
    /// Registers the connection's own webhook. `secret` is a fresh random text, for apps that take one.
    ///
    /// # Errors
    /// The app's or the script's failure; `NotSupported` where a person has to paste the URL into the app.
    pub async fn subscribe(&self, webhook_uri: &str, secret: &str) -> Result<Subscribed, CallError> {
        let hook = self.hook_at(webhook_uri)?;
        if hook.life.has_subscriptions() {
            let state = self.make_subscriptions(hook, webhook_uri, None).await?;
            return Ok(self.subscribed(hook, &json!({ "state": state })));
        }
        let told = Told { secret: Some(secret.into()), ..Told::at(webhook_uri) };
        let value = self.at_hook(told, &hook.life.subscribe, "subscribe").await?;
        Ok(self.subscribed(hook, &value))
    }
    /// Renews the webhook; the state it had comes in, the new one goes out.
    ///
    /// # Errors
    /// The app's or the script's failure; `NotSupported`: register it anew instead.
    pub async fn refresh_webhook(&self, webhook_uri: &str, state: &str) -> Result<Subscribed, CallError> {
        let hook = self.hook_at(webhook_uri)?;
        let state = stored(state)?;
        if hook.life.has_subscriptions() {
            let state = self.make_subscriptions(hook, webhook_uri, Some(&state)).await?;
            return Ok(self.subscribed(hook, &json!({ "state": state })));
        }
        let secret = state.get("secret").cloned().unwrap_or_default();
        let told = Told { secret: Some(secret), state: Some(state), ..Told::at(webhook_uri) };
        let value = self.at_hook(told, &hook.life.refresh, "refresh").await?;
        Ok(self.subscribed(hook, &value))
    }
    /// Whether the app still has the webhook.
    ///
    /// # Errors
    /// The app's or the script's failure; `NotSupported`: it cannot be asked.
    pub async fn has_webhook(&self, webhook_uri: &str, state: &str) -> Result<bool, CallError> {
        let told = Told { state: Some(stored(state)?), ..Told::at(webhook_uri) };
        match self.at_hook(told, &self.hook_at(webhook_uri)?.life.check, "check").await {
            Ok(Value::Null | Value::Bool(false)) | Err(CallError::Refused { status: 404 | 410, .. }) => Ok(false),
            Ok(Value::Array(found)) => Ok(!found.is_empty()),
            Ok(_) => Ok(true),
            Err(error) => Err(error),
        }
    }
    /// Takes the webhook away at the app. One that is missing there counts as gone; so does one that the connector
    /// cannot take away.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn unsubscribe(&self, webhook_uri: &str, state: &str) -> Result<(), CallError> {
        let hook = self.hook_at(webhook_uri)?;
        let state = stored(state)?;
        if hook.life.has_subscriptions() {
            return self.remove_subscriptions(hook, webhook_uri, &state).await;
        }
        if !hook.life.unsubscribe.is_there() {
            return Ok(());
        }
        let told = Told { state: Some(state), ..Told::at(webhook_uri) };
        match self.at_hook(told, &hook.life.unsubscribe, "unsubscribe").await {
            Ok(_) | Err(CallError::Refused { status: 404 | 410, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
    /// One call of a webhook's life: as the account, or as the app itself where it is at the app's journal.
    async fn at_hook(&self, told: Told<'_>, method: &Method<CallRest>, name: &str) -> Result<Value, CallError> {
        let app = match self.journal_at(told.uri) {
            Some(journal) => Some(self.as_app(&journal.token, None).await?),
            None => None,
        };
        self.call_hook(app.as_ref(), told, method, name).await
    }
    pub(super) async fn call_hook(
        &self,
        app: Option<&Session>,
        told: Told<'_>,
        method: &Method<CallRest>,
        name: &str,
    ) -> Result<Value, CallError> {
        let webhook = self.webhook_variable(&told);
        let mut input = json!({ "webhookUri": told.uri });
        if let Some(secret) = &told.secret {
            input["webhookSecret"] = secret.clone();
        }
        let mut variables = vec![("webhook", &webhook)];
        for (name, value) in [("state", &told.state), ("subscription", &told.subscription)] {
            if let Some(value) = value {
                input[name] = value.clone();
                variables.push((name, value));
            }
        }
        if self.journal_at(told.uri).is_some() {
            input["account"] = self.account.as_deref().into();
            input["fields"] = self.names_by_collection();
        }
        match app {
            Some(app) => app.value_of(method, &variables, input, name).await.map_err(journal::as_app),
            None => self.value_of(method, &variables, input, name).await,
        }
    }
    /// `$webhook`.
    pub(super) fn webhook_variable(&self, told: &Told<'_>) -> Value {
        let mut webhook = json!({ "uri": told.uri });
        if let Some(secret) = &told.secret {
            webhook["secret"] = secret.clone();
        }
        if self.journal_at(told.uri).is_some() {
            webhook["account"] = self.account.as_deref().into();
        }
        webhook
    }
    pub(super) fn journal_at(&self, place: &str) -> Option<&Journal> {
        self.connector().global_webhook(journal::key_of(place)?)?.journal.as_ref()
    }
    /// The names that each collection's requests ask for, as far as they are known.
    pub(super) fn names_by_collection(&self) -> Value {
        let named = self.connector().collections.iter().filter_map(|c| {
            let known = self.known_fields(c)?;
            Some((c.key.clone(), known.fields.asked().collect::<Vec<_>>().into()))
        });
        Value::Object(named.collect())
    }
    /// What a connector event of a global webhook means for this connection: a change of a record, or None: the
    /// payload goes out unchanged on topic `<connector>/<event>`.
    ///
    /// # Errors
    /// The event's expressions make no type, id or record of the payload.
    pub fn event_change(&self, event: &str, payload: &RawValue) -> Result<Option<Change>, CallError> {
        let event = self.event(event)?;
        let Some(of) = &event.collection else { return Ok(None) };
        let payload =
            json::read(payload).map_err(|error| CallError::BadAnswer(format!("the event is not JSON: {error}")))?;
        let variables = [("parameters", &self.caller.parameters)];
        let env = Env::new(&payload, &variables);
        let key = match of {
            OfCollection::Key(key) => key.clone(),
            OfCollection::Told(told) => id_text(&told.make(&env))
                .ok_or_else(|| CallError::BadAnswer("the event does not say which collection it is of".to_owned()))?,
        };
        let kind = event.kind.as_ref().map_or(Ok(ChangeKind::Changed), |kind| change_kind(&kind.eval(&env)))?;
        if kind == ChangeKind::Erased && key == EVERYTHING {
            return Ok(Some(Change::everything()));
        }
        let collection = self.connector().collection(&key);
        let collection = collection.ok_or_else(|| CallError::NotSupported(format!("there is no collection {key}")))?;
        let record = event.record.as_ref().map(|record| record.eval(&env)).filter(|record| !record.is_null());
        let id = event.id.as_ref().map(|id| id.eval(&env));
        let seen = (&self.caller.parameters, self.caller.clock.now());
        change(collection, kind, record, id, seen).map(Some)
    }
    /// Where the events of a connector event come from, for this connection. `parameters` are the event's, checked by
    /// its schema.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn event_selector(&self, event: &str, parameters: &Parameters) -> Result<Selector, CallError> {
        let event = self.event(event)?;
        let parameters = Value::Object(parameters.clone());
        let value = match &event.selector {
            Method::Map(map) => {
                let variables = [("parameters", &parameters), ("connection", &self.caller.parameters)];
                map.eval(&Env::of(&variables))
            }
            Method::Script(script) => {
                let credentials: Value =
                    serde_json::from_str(self.credentials().to_text().expose()).unwrap_or_default();
                parse(&self.run(script, json!({ "parameters": parameters, "credentials": credentials })).await?)?
            }
            _ => return Err(CallError::NotSupported("get-event-selector".to_owned())),
        };
        let text = |name: &str| {
            let text = value.get(name).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| CallError::Script(format!("the event selector has no text {name}")))
        };
        let webhook_key = text("globalWebhookKey")?;
        if self.connector().global_webhook(&webhook_key).is_none() {
            return Err(CallError::Script(format!("there is no global webhook {webhook_key:?}")));
        }
        Ok(Selector { webhook_key, selector: text("globalWebhookEventSelector")? })
    }
    fn hook_at(&self, place: &str) -> Result<&OwnWebhook, CallError> {
        let hook = self.connector().registered_at(place);
        hook.ok_or_else(|| CallError::NotSupported("the connector has no webhook of a connection's own".to_owned()))
    }
    fn event(&self, key: &str) -> Result<&ConnectorEvent, CallError> {
        self.connector().event(key).ok_or_else(|| CallError::NotSupported(format!("there is no event {key:?}")))
    }
    fn subscribed(&self, hook: &OwnWebhook, value: &Value) -> Subscribed {
        let state = value.get("state").cloned().unwrap_or(Value::Null).to_string();
        let told = value.get("refreshAt").and_then(Value::as_str).and_then(Millis::parse_rfc3339);
        let now = self.caller.clock.now();
        let lifetime = hook.lifetime;
        // By half of its lifetime, so that one failed renewal does not lose it.
        let half = match told {
            Some(end) => Some(now.after(end.since(now) / 2)),
            None => lifetime.map(|lifetime| now.after(lifetime / 2)),
        };
        Subscribed { state, refresh_at: half }
    }
}

fn stored(state: &str) -> Result<Value, CallError> {
    serde_json::from_str(state)
        .map_err(|_| CallError::BadAnswer("the webhook's stored state cannot be read".to_owned()))
}

/// `created`, `updated`, `deleted`, `erased` or `changed`.
pub(super) fn change_kind(value: &Value) -> Result<ChangeKind, CallError> {
    match value.as_str() {
        Some("created") => Ok(ChangeKind::Created),
        Some("updated") => Ok(ChangeKind::Updated),
        Some("deleted") => Ok(ChangeKind::Deleted),
        Some("erased") => Ok(ChangeKind::Erased),
        Some("changed") | None => Ok(ChangeKind::Changed),
        Some(other) => {
            Err(CallError::Script(format!("the type {other:?} is none of created, updated, deleted, changed, erased")))
        }
    }
}

/// A change with its record, or with the record's id alone.
pub(super) fn change(
    collection: &Collection,
    kind: ChangeKind,
    record: Option<Value>,
    id: Option<Value>,
    seen: (&Value, Millis),
) -> Result<Change, CallError> {
    let record: Option<AppRecord> = match record {
        None => None,
        Some(record) => {
            let raw = serde_json::value::to_raw_value(&record)
                .map_err(|error| CallError::BadAnswer(format!("the record cannot be kept: {error}")))?;
            Some(collection.record.local(seen.0, seen.1)?.read(&raw).map_err(CallError::BadAnswer)?)
        }
    };
    let remote_id =
        id.and_then(|id| id_text(&Json::from(&id))).or_else(|| record.as_ref().map(|record| record.remote_id.clone()));
    let remote_id = remote_id.ok_or_else(|| CallError::BadAnswer("the event names no record".to_owned()))?;
    Ok(Change { collection: collection.key.clone(), kind, remote_id, record })
}
