//! `POST /connect`: a form of the page.
//!
//! Always true: nothing is done without the visit's own word in the form; what is stored is what `POST
//! /one/connections` would store. Not here: the app's own consent page (`callback`).

use serde_json::{Map, Value};

use super::choice::{Choice, typed};
use super::finish::{About, finish, stranger};
use super::html::onward;
use super::page::{Frame, credentials};
use super::reason::Reason;
use super::visits::{Flow, Mark, Visit};
use super::{Fields, destination, path, redirect_uri, seen, visit};
use crate::api::call::Call;
use crate::api::connections::{self, ByUser};
use crate::api::integrations::token;
use crate::api::reply::Reply;
use crate::connectors::{Door, Parameters};
use crate::domain::time::Millis;
use crate::error::{Code, Error, Result};

pub(super) async fn submit(call: Call) -> Result<Reply> {
    let form = Fields::read(&call.body);
    let Some((mark, visit)) = visit(&call) else { return stranger(&call, Reason::NoVisit) };
    if aws_lc_rs::constant_time::verify_slices_are_equal(form.get("csrf").as_bytes(), visit.csrf.as_bytes()).is_err() {
        return stranger(&call, Reason::BadForm);
    }
    if visit.wish.destination.is_some() {
        return destination::submit(&call, &visit, &form).await;
    }
    let Some((user, choices)) = seen(&call, &visit).await? else { return stranger(&call, Reason::NoVisit) };
    let meant = |choice: &Choice| {
        choice.integration.map(|id| id.to_string()).unwrap_or_default() == form.get("integrationId")
            && choice.connector.key == form.get("connector")
    };
    let found = choices.iter().find(|choice| meant(choice));
    let door = found.and_then(|choice| choice.doors.iter().find(|door| door.word() == form.get("door")));
    let (Some(choice), Some(door)) = (found, door) else { return stranger(&call, Reason::NotAllowed) };
    let path = path(&call);
    let frame = Frame { visit: &visit, user: &user, path: &path };
    let wrong = |problem: &str| frame.forms(choice, Some(problem), &form, 422);
    let given = match given(choice, *door, &form) {
        Ok(given) => given,
        Err(problem) => return wrong(&problem),
    };
    if *door == Door::Consent {
        return match away(&call, mark, choice, given)? {
            Ok(address) => onward(&address, &choice.connector.name),
            Err(problem) => wrong(&problem),
        };
    }
    match connect(&call, &visit, choice, *door, given, &form).await {
        Ok(id) => {
            let about = About {
                integration: choice.integration,
                connector: choice.connector.key.clone(),
                name: choice.name.clone(),
                by_form: true,
                path: path.clone(),
            };
            finish(&call, &visit, &about, Ok(id), "").await
        }
        Err(error) if error.code == Code::Internal => Err(error),
        Err(error) => {
            super::finish::record(&call, &choice.connector.key, Err(Reason::Refused), error.code.slug());
            wrong(&told(&error))
        }
    }
}

/// The parameters of a form, and nothing that was not asked for. The error is for the person.
fn given(choice: &Choice, door: Door, form: &Fields) -> std::result::Result<Parameters, String> {
    let mut given = Parameters::new();
    for ask in choice.asks(door) {
        if let Some(value) = typed(&ask, form.get(&format!("p.{}", ask.name)))? {
            given.insert(ask.name.to_owned(), value);
        }
    }
    choice.connector.parameters.check_part(&given).map_err(|problem| sentence(&problem))?;
    Ok(given)
}

/// Where to send the person; the error is for the person.
fn away(call: &Call, visit: Mark, choice: &Choice, given: Parameters) -> Result<std::result::Result<String, String>> {
    let mut known = choice.filled.clone();
    known.extend(given.clone());
    let (state, redirect_uri) = (token()?, redirect_uri(call));
    let consent = match choice.connector.consent(&known, &redirect_uri, &state) {
        Ok(consent) => consent,
        Err(problem) => return Ok(Err(sentence(&problem))),
    };
    let flow = Flow {
        visit,
        integration: choice.integration,
        connector: choice.connector.key.clone(),
        parameters: given,
        redirect_uri,
        verifier: consent.verifier,
        until: Millis(0),
    };
    call.state.visits.begin(&state, flow, call.now());
    Ok(Ok(consent.address.into()))
}

async fn connect(
    call: &Call,
    visit: &Visit,
    choice: &Choice,
    door: Door,
    parameters: Parameters,
    form: &Fields,
) -> Result<crate::domain::id::ConnectionId> {
    let mut fields = Map::new();
    for (name, label, _) in credentials(door) {
        let text = form.get(&format!("c.{name}")).trim();
        if text.is_empty() {
            return Err(Error::invalid(format!("Please fill in “{label}”.")));
        }
        fields.insert((*name).to_owned(), Value::from(text));
    }
    let wish = ByUser {
        user: visit.user,
        integration: choice.integration,
        connector: choice.connector.key.clone(),
        credentials: fields,
        parameters,
        told: Parameters::new(),
    };
    connections::by_user(call, visit.workspace, wish).await
}

/// An error of the API, for a person.
fn told(error: &Error) -> String {
    sentence(&error.message)
}

pub(super) fn sentence(text: &str) -> String {
    let text = text.trim_start_matches("parameters.").trim_start_matches("credentials: ");
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}
