//! What a visitor can connect, and what must be asked for it.
//!
//! Always true: only integrations of the visit's workspace that can be connected, that the link does not leave out, and
//! that allow the address the link wants to go back to; only parameters that are the end user's to give, and that the
//! integration does not set, are asked for. Not here: how it is shown (`page`).

use std::sync::Arc;

use serde_json::Value;
use url::Url;

use super::visits::{Visit, Wish};
use crate::actors::watcher::account::integration_parameters;
use crate::api::state::State;
use crate::connectors::{Connector, Door, Kind, Parameters, Property};
use crate::domain::connection::Integration;
use crate::domain::id::IntegrationId;
use crate::domain::returns::ReturnUrls;
use crate::error::Result;
use crate::store::Rows;

/// Integrations that are read for one page, and in one step.
const READ_MAX: usize = 1_000;
const STEP: usize = 250;
/// One parameter as a person types it: it is kept in memory while the person is at the app. A key as PEM may be longer.
const TEXT_BYTES_MAX: usize = 4_096;
const PEM_BYTES_MAX: usize = 16_384;

/// One thing to connect.
#[derive(Clone)]
pub struct Choice {
    pub integration: Option<IntegrationId>,
    /// Specialised with what is known.
    pub connector: Arc<Connector>,
    /// As it is called: the integration's name.
    pub name: String,
    /// The integration's parameters, secret ones included.
    pub known: Parameters,
    /// The same with the connector's defaults.
    pub filled: Parameters,
    pub doors: Vec<Door>,
}

/// What is asked of a person.
pub struct Ask<'a> {
    pub name: &'a str,
    pub property: &'a Property,
    pub required: bool,
}

impl Choice {
    fn new(integration: Option<&Integration>, connector: &Arc<Connector>, known: Parameters) -> Option<Self> {
        let filled = connector.parameters.fill(&known).ok()?;
        let connector = connector.specialise(&filled).ok()?;
        let doors = connector.doors(&filled);
        let name = integration.map_or_else(|| connector.name.clone(), |integration| integration.name.clone());
        let integration = integration.map(|integration| integration.id);
        (!doors.is_empty()).then_some(Self { integration, connector, name, known, filled, doors })
    }

    /// What the person must or may give for a way in.
    pub fn asks(&self, door: Door) -> Vec<Ask<'_>> {
        let required =
            |name: &str| self.connector.needs(name) || door == Door::Open && self.connector.is_of_client(name);
        let all = self.connector.parameters.properties();
        let all = all.map(|(name, property)| Ask { name, property, required: required(name) });
        all.filter(|ask| self.is_theirs(ask, door)).collect()
    }

    /// Whether the person gives it at that way in.
    fn is_theirs(&self, ask: &Ask<'_>, door: Door) -> bool {
        let of_client = self.connector.is_of_client(ask.name) && !self.connector.needs(ask.name);
        self.connector.is_persons(ask.name)
            && (door == Door::Open || !of_client)
            && !self.known.contains_key(ask.name)
            && !self.connector.door_brings(door, ask.name)
    }

    /// Whether something secret is asked for at that way in.
    pub fn asks_a_secret(&self, door: Door) -> bool {
        self.asks(door).iter().any(|ask| ask.property.write_only)
    }
}

/// The list that an integration has.
pub fn returns(rows: &Rows, visit: &Visit, integration: IntegrationId) -> Result<Option<ReturnUrls>> {
    rows.object(visit.workspace, &integration.0)
}

/// Whether the link's wishes to be told at the end are allowed.
fn allowed(wish: &Wish, list: Option<&ReturnUrls>) -> bool {
    let fits_url = |text: &String| Url::parse(text).is_ok_and(|url| list.is_some_and(|list| list.allows(&url)));
    let fits_origin = |origin: &String| list.is_some_and(|list| list.allows_origin(origin));
    wish.return_url.as_ref().is_none_or(fits_url) && wish.origin.as_ref().is_none_or(fits_origin)
}

/// What a visit can connect, newest first.
pub fn all(state: &State, rows: &Rows, visit: &Visit) -> Result<Vec<Choice>> {
    let wish = &visit.wish;
    if let Some(id) = wish.integration {
        let found = rows.integration(visit.workspace, id)?;
        let of = |integration: Integration| one(state, rows, visit, &integration);
        return Ok(found.map(of).transpose()?.flatten().into_iter().collect());
    }
    let (mut choices, mut before, mut read, mut set_up) = (Vec::new(), None::<Vec<u8>>, 0, false);
    while read < READ_MAX {
        let page = rows.integrations(visit.workspace, before.as_deref(), STEP)?;
        read += page.items.len();
        for integration in &page.items {
            if wish.connector.as_ref().is_none_or(|key| *key == integration.connector) {
                set_up = true;
                choices.extend(one(state, rows, visit, integration)?);
            }
        }
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    // A connector that nobody has set up may need no setting up; then there is no list of addresses either.
    if let (false, Some(key)) = (set_up, &wish.connector)
        && allowed(wish, None)
        && let Some(connector) = state.deps.connectors.get(key)
    {
        choices.extend(Choice::new(None, &connector, Parameters::new()));
    }
    Ok(choices)
}

fn one(state: &State, rows: &Rows, visit: &Visit, integration: &Integration) -> Result<Option<Choice>> {
    let fits = visit.wish.connector.as_ref().is_none_or(|key| *key == integration.connector);
    let list = returns(rows, visit, integration.id)?;
    if !fits || !allowed(&visit.wish, list.as_ref()) {
        return Ok(None);
    }
    let Some(connector) = state.deps.connectors.get(&integration.connector) else { return Ok(None) };
    Ok(Choice::new(Some(integration), &connector, integration_parameters(rows, integration)?))
}

/// A text of a form as the parameter's type. None: it is left empty. The error is one sentence.
pub fn typed(ask: &Ask<'_>, text: &str) -> std::result::Result<Option<Value>, String> {
    let label = ask.property.title.as_deref().unwrap_or(ask.name);
    let text = text.trim();
    if text.len() > if ask.property.is_pem() { PEM_BYTES_MAX } else { TEXT_BYTES_MAX } {
        return Err(format!("“{label}” is too long."));
    }
    if ask.property.kind == Kind::Boolean {
        return Ok(Some(Value::Bool(text == "on")));
    }
    if text.is_empty() {
        return if ask.required { Err(format!("Please fill in “{label}”.")) } else { Ok(None) };
    }
    match ask.property.kind {
        Kind::String => Ok(Some(text.into())),
        kind => match serde_json::from_str::<Value>(text) {
            Ok(value) if value.is_number() && matches!(kind, Kind::Integer | Kind::Number) => Ok(Some(value)),
            Ok(value) if value.is_object() && kind == Kind::Object => Ok(Some(value)),
            Ok(value) if value.is_array() && kind == Kind::Array => Ok(Some(value)),
            _ => Err(format!("“{label}” is not what is expected there.")),
        },
    }
}
