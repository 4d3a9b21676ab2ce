//! `…/events`: events of the connector switched on and off for a connection.
//!
//! Always true: the selector that routes an event is the connector's own, asked for when the event is switched on. Not
//! here: sorting a global webhook's events, and asking again after a change (`actors::watcher`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shape::{SwitchView, switch_view};
use super::sync::runs;
use super::{find, id_of, prepare};
use crate::actors::watcher::account::{Account, Opened};
use crate::api::call::Call;
use crate::api::paging::{self, Paging};
use crate::api::reply::Reply;
use crate::api::route::{PAGED, Route};
use crate::connectors::{Connector, Parameters};
use crate::domain::connection::EventSwitch;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// Events switched on for one connection.
const SWITCHES_MAX: usize = 100;
const ALL: &str = "/{version}/one/connections/{connectionId}/events";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Switch {
    /// The event's key: see `GET /one/connectors/{key}`.
    event: String,
    /// By the event's `parametersSchema`. To switch off: only the one with these; all of the event if left out.
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Serialize, JsonSchema)]
struct OneSwitch {
    event: SwitchView,
}

#[derive(Serialize, JsonSchema)]
struct Switches {
    events: Vec<SwitchView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Off {
    deleted: bool,
    event: String,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post(ALL, "Switch an event of the connector on", on).takes::<Switch>().gives::<OneSwitch>(),
        Route::get(ALL, "List the events that are switched on", list).query(PAGED).gives::<Switches>(),
        Route::delete(ALL, "Switch an event of the connector off", off).takes::<Switch>().gives::<Off>(),
    ]
}

/// The event's parameters, checked.
fn check(connector: &Connector, asked: &Switch) -> Result<Parameters> {
    let Some(event) = connector.event(&asked.event) else {
        let all: Vec<&str> = connector.events.iter().map(|event| event.key.as_str()).collect();
        let shown: String = asked.event.chars().take(64).collect();
        let has = if all.is_empty() { "it has none".to_owned() } else { format!("it has {}", all.join(", ")) };
        return Err(Error::invalid(format!("event: {} has no `{shown}`; {has}", connector.name)));
    };
    event.parameters.check(&asked.parameters.clone().unwrap_or_default()).map_err(Error::invalid)
}

async fn on(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<Switch>()?, call.workspace()?, id_of(&call)?);
    let deps = call.state.deps.clone();
    let read = move |rows: &Rows| {
        let connection = find(rows, workspace, id)?;
        runs(&connection)?;
        if connection.integration.is_none() {
            let message = "event: global webhooks belong to an integration; connect the account through one";
            return Err(Error::invalid(message));
        }
        match Account::open(&deps, connection)? {
            Opened::Ready(account) => Ok(account),
            Opened::Wrong(why) => Err(Error::invalid(why)),
        }
    };
    let account = call.read(read).await?;
    let parameters = check(account.connector(), &asked)?;
    let (key, given) = (asked.event.clone(), parameters.clone());
    let question = async move { account.session.event_selector(&key, &given).await };
    let selector = prepare::ask(&call.state.deps, question).await.map_err(|error| prepare::told(&error))?;
    let switch = EventSwitch {
        event: asked.event,
        parameters: Value::Object(parameters).to_string(),
        webhook_key: selector.webhook_key,
        selector: selector.selector,
    };
    let change = move |tx: &mut Tx<'_>| {
        find(tx, workspace, id)?;
        let known = tx.event_switches(id)?;
        let same = |s: &EventSwitch| s.event == switch.event && s.selector == switch.selector;
        if known.len() >= SWITCHES_MAX && !known.iter().any(same) {
            return Err(Error::new(Code::Conflict, format!("{SWITCHES_MAX} events are switched on already")));
        }
        tx.put_event_switch(id, &switch)?;
        Ok((Reply::json(&OneSwitch { event: switch_view(&switch) })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.owners_changed();
    Ok(reply)
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, id, page) = (call.workspace()?, id_of(&call)?, Paging::of(&call)?);
    let read = move |rows: &Rows| {
        find(rows, workspace, id)?;
        rows.event_switches(id)
    };
    let (events, next) = paging::cut(call.read(read).await?, &page)?;
    Reply::json(&Switches { events: events.iter().map(switch_view).collect(), next })
}

async fn off(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    // Some clients send no body with a DELETE.
    let asked = match call.query("event") {
        Some(event) if call.body.trim_ascii().is_empty() => Switch { event: event.to_owned(), parameters: None },
        _ => call.json::<Switch>()?,
    };
    let deps = call.state.deps.clone();
    let change = move |tx: &mut Tx<'_>| {
        let connection = find(tx, workspace, id)?;
        let wanted = match (&asked.parameters, deps.connectors.get(&connection.connector)) {
            (Some(_), Some(connector)) => Some(Value::Object(check(&connector, &asked)?).to_string()),
            _ => None,
        };
        let mut gone = tx.event_switches(id)?;
        gone.retain(|s| s.event == asked.event && wanted.as_ref().is_none_or(|wanted| s.parameters == *wanted));
        if gone.is_empty() {
            let shown: String = asked.event.chars().take(64).collect();
            let message = format!("event: `{shown}` is not switched on for this connection");
            return Err(Error::new(Code::EventNotFound, message));
        }
        gone.iter().try_for_each(|switch| tx.delete_event_switch(id, switch))?;
        Ok((Reply::json(&Off { deleted: true, event: asked.event })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.owners_changed();
    Ok(reply)
}
