//! `GET /oauth/callback`: a person comes back from an app's consent page.
//!
//! Always true: the state is spent before anything else is looked at; only the browser that was sent may come back;
//! neither code nor token is in a page, a log line or an address that we make. Not here: making the connection
//! (`connections::make`).

use serde_json::Value;

use super::choice::{self, Choice};
use super::finish::{About, finish, stranger};
use super::reason::Reason;
use super::visits::{Flow, Visit};
use super::{Fields, path, visit};
use crate::api::call::Call;
use crate::api::connections::{self, ByUser};
use crate::api::reply::Reply;
use crate::connectors::{self, Code};
use crate::domain::id::ConnectionId;
use crate::domain::secret::Secret;
use crate::error::{self, Error, Result};

/// Why it failed, and what the log may say of it.
struct Failed(Reason, &'static str);

pub(super) async fn back(call: Call) -> Result<Reply> {
    let query = Fields(call.query.clone());
    let flow = call.state.visits.take(query.get("state"));
    let Some((mark, visit)) = visit(&call) else { return stranger(&call, Reason::NoVisit) };
    let Some(flow) = flow else { return stranger(&call, Reason::UnknownState) };
    if flow.visit != mark {
        return stranger(&call, Reason::ForeignState);
    }
    let mut about = About {
        integration: flow.integration,
        connector: flow.connector.clone(),
        name: flow.connector.clone(),
        by_form: false,
        path: path(&call),
    };
    let outcome = connect(&call, &visit, flow, &query, &mut about).await;
    let (outcome, detail) = match outcome {
        Ok(id) => (Ok(id), ""),
        Err(Failed(reason, detail)) => (Err(reason), detail),
    };
    finish(&call, &visit, &about, outcome, detail).await
}

async fn connect(
    call: &Call,
    visit: &Visit,
    flow: Flow,
    query: &Fields,
    about: &mut About,
) -> std::result::Result<ConnectionId, Failed> {
    let choice = chosen(call, visit, &flow).await.map_err(|error| ours(&error))?;
    let choice = choice.ok_or(Failed(Reason::NotAllowed, "the integration is gone"))?;
    about.name.clone_from(&choice.name);
    if flow.until <= call.now() {
        return Err(Failed(Reason::ExpiredState, ""));
    }
    match query.get("error") {
        "" => {}
        "access_denied" => return Err(Failed(Reason::AccessDenied, "")),
        _ => return Err(Failed(Reason::AppRefused, "the app came back with an error")),
    }
    if query.get("code").is_empty() {
        return Err(Failed(Reason::AppRefused, "the app came back without a code"));
    }
    let mut known = choice.filled.clone();
    known.extend(flow.parameters.clone());
    let code = Code {
        code: Secret::new(query.get("code")),
        redirect_uri: flow.redirect_uri,
        verifier: flow.verifier,
        redirect: query.0.clone(),
    };
    let deps = &call.state.deps;
    let (client, clock) = (deps.apps.clone(), deps.clock.clone());
    let asked = connectors::exchange(choice.connector.clone(), known, code, client, clock);
    let granted = connections::ask(deps, asked).await.map_err(|error| Failed(Reason::of(&error), error.slug()))?;
    let text = granted.credentials.to_text();
    let Ok(Value::Object(credentials)) = serde_json::from_str(text.expose()) else {
        return Err(Failed(Reason::Ours, "credentials that are no object"));
    };
    let wish = ByUser {
        user: visit.user,
        integration: flow.integration,
        connector: flow.connector,
        credentials,
        parameters: flow.parameters,
        told: granted.parameters,
    };
    connections::by_user(call, visit.workspace, wish).await.map_err(|error| ours(&error))
}

/// What the flow was begun for, as it is set up now.
async fn chosen(call: &Call, visit: &Visit, flow: &Flow) -> Result<Option<Choice>> {
    let (state, mut visit) = (call.state.clone(), visit.clone());
    // The link may have named the connector alone; the person chose an integration of it.
    visit.wish.integration = flow.integration;
    visit.wish.connector = Some(flow.connector.clone());
    let choices = call.read(move |rows| choice::all(&state, rows, &visit)).await?;
    Ok(choices.into_iter().find(|choice| choice.integration == flow.integration))
}

fn ours(error: &Error) -> Failed {
    match error.code {
        error::Code::Internal => {
            tracing::error!("{}", error.chain());
            Failed(Reason::Ours, "")
        }
        error::Code::Unavailable => Failed(Reason::Unreachable, "unavailable"),
        _ => Failed(Reason::Refused, error.code.slug()),
    }
}
