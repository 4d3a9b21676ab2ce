//! What a connection may be: everything that is checked before it is stored.
//!
//! Always true: what passes here can be opened by the watcher; the app is asked only which account it is, for a bounded
//! time, and an app that does not answer keeps nobody from connecting. Not here: storing (`make`, `change`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::actors::Deps;
use crate::api::call::Call;
use crate::api::parameters::{self, Split};
use crate::connectors::{Budget, CallError, Connector, Credentials, Parameters, Session};
use crate::error::{Code, Error, Result};

/// How long an app is waited for while a caller waits.
const APP_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest interval: a year.
const INTERVAL_SECONDS_MAX: u32 = 366 * 86_400;

/// A connection's parts, checked together.
pub(super) struct Prepared {
    /// Specialised.
    pub(super) connector: Arc<Connector>,
    pub(super) credentials: Credentials,
    session: Session,
}

/// Reads credentials as the API takes them. A session in them is the engine's own and not taken from outside.
pub(super) fn credentials(given: Map<String, Value>) -> Result<Credentials> {
    if given.contains_key("session") {
        return Err(Error::invalid("credentials.session is not known here"));
    }
    Credentials::read(&Value::Object(given)).map_err(Error::invalid)
}

/// Joins connector, all parameters and credentials.
pub(super) fn join(
    call: &Call,
    connector: &Arc<Connector>,
    given: &Parameters,
    credentials: Credentials,
) -> Result<Prepared> {
    let deps = &call.state.deps;
    // Specialising says what a connector's file makes of a value, so the schema is asked first.
    let parameters = connector.parameters.check(given).map_err(Error::invalid)?;
    let connector = connector.specialise(given).map_err(|e| Error::invalid(format!("parameters: {e}")))?;
    connector.accepts(&credentials).map_err(|e| Error::invalid(format!("credentials: {e}")))?;
    let base_uri = connector.address(&parameters, &credentials).map_err(Error::invalid)?;
    parameters::refuse_address(call, &base_uri)?;
    let now = deps.clock.now();
    let budget = Arc::new(Budget::of(&connector, now));
    let (client, clock) = (deps.apps.clone(), deps.clock.clone());
    let made = Session::new(connector.clone(), &base_uri, parameters, credentials.clone(), client, budget, clock);
    Ok(Prepared { connector, credentials, session: made.map_err(Error::invalid)? })
}

/// Lays a connection's parameters over those it has.
pub(super) fn lay(connector: &Connector, before: &Split, given: &Parameters) -> Result<Split> {
    parameters::refuse_integration_only(connector, given)?;
    let mut split = before.clone();
    split.lay(connector, given)?;
    Ok(split)
}

/// Asks an app, on the threads that call apps, for a bounded time.
pub(in crate::api) async fn ask<T: Send + 'static>(
    deps: &Deps,
    question: impl Future<Output = std::result::Result<T, CallError>> + Send + 'static,
) -> std::result::Result<T, CallError> {
    let task = deps.runtime.spawn(tokio::time::timeout(APP_TIMEOUT, question));
    match task.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(CallError::unavailable(format!("no answer within {} seconds", APP_TIMEOUT.as_secs()))),
        Err(error) => Err(CallError::unavailable(format!("the call was broken off: {error}"))),
    }
}

/// What identifies the account. None: the connector or the app cannot say now.
pub(super) async fn account(deps: &Deps, prepared: Prepared) -> Option<String> {
    let (session, key) = (prepared.session, prepared.connector.key.clone());
    match ask(deps, async move { session.account().await }).await {
        Ok(account) => account,
        Err(error) => {
            tracing::info!(connector = key, %error, "the app did not say which account was connected");
            None
        }
    }
}

/// The same for a person who waits before a form: what is wrong with what was given is an error.
pub(super) async fn account_told(deps: &Deps, prepared: Prepared) -> Result<Option<String>> {
    let (session, name) = (prepared.session, prepared.connector.name.clone());
    let told = async move {
        session.prove().await?;
        session.account().await
    };
    match ask(deps, told).await {
        Ok(account) => Ok(account),
        Err(CallError::Unauthorized(_)) => {
            Err(Error::invalid(format!("credentials: {name} does not accept them; please check them")))
        }
        Err(CallError::Unavailable { .. }) => {
            Err(Error::unavailable(format!("{name} cannot be reached at the moment; please try again"), 30))
        }
        Err(CallError::AddressForbidden(_)) => {
            Err(Error::new(Code::AddressForbidden, format!("{name} cannot be called at this address")))
        }
        Err(CallError::BadAnswer(_) | CallError::Refused { .. }) => {
            Err(Error::invalid(format!("what answers there is not {name}; please check what you gave")))
        }
        Err(error) => {
            tracing::info!(connector = prepared.connector.key, %error, "the app did not say which account was connected");
            Ok(None)
        }
    }
}

/// An interval, not below the node's least.
pub(super) fn interval(call: &Call, field: &str, seconds: Option<u32>) -> Result<Option<u32>> {
    let least = call.state.options.poll_interval_seconds_min;
    match seconds {
        Some(n) if !(least..=INTERVAL_SECONDS_MAX).contains(&n) => {
            Err(Error::invalid(format!("{field}: use {least} to {INTERVAL_SECONDS_MAX} seconds")))
        }
        other => Ok(other),
    }
}

/// The keys of the collections that are named, by key or topic.
pub(super) fn collections(connector: &Connector, asked: Option<Vec<String>>) -> Result<Option<Vec<String>>> {
    let Some(asked) = asked else { return Ok(None) };
    let mut keys: Vec<String> = Vec::new();
    for name in asked {
        let mut found = connector.collections.iter().filter(|c| c.key == name || c.topic == name).peekable();
        if found.peek().is_none() {
            let all: Vec<&str> = connector.collections.iter().map(|c| c.key.as_str()).collect();
            let shown: String = name.chars().take(64).collect();
            let message = format!("collections: {} has no `{shown}`; it has {}", connector.name, all.join(", "));
            return Err(Error::invalid(message));
        }
        for c in found {
            if !keys.contains(&c.key) {
                keys.push(c.key.clone());
            }
        }
    }
    if keys.is_empty() {
        return Err(Error::invalid("collections: name at least one, or leave it out for all of them"));
    }
    Ok(Some(keys))
}

/// A failure of the app, told to the caller.
pub(super) fn told(error: &CallError) -> Error {
    match error {
        CallError::RateLimited { .. } | CallError::Unavailable { .. } => Error::unavailable(error.to_string(), 30),
        CallError::AddressForbidden(_) => Error::new(Code::AddressForbidden, error.to_string()),
        _ => Error::invalid(error.to_string()),
    }
}
