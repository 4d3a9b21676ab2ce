//! `/hooks/sample` and `/hooks/fields`: what a person sees while setting a hook up.
//!
//! Always true: a sample has the very bytes that a hook would get; nothing is shown that a hook of the same caller could
//! not get. Not here: the fields themselves (`api::topics`).

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{bound, event_of, whose};
use crate::api::call::Call;
use crate::api::reply::Reply;
use crate::api::topics;
use crate::domain::body;
use crate::domain::connection::Connection;
use crate::domain::event::{Event, Payload};
use crate::domain::hook::{self, HookEvent};
use crate::domain::id::{EventId, Seq, UserId, WorkspaceNo};
use crate::domain::models::Catalogue;
use crate::domain::topic::TopicPattern;
use crate::domain::version::ApiVersion;
use crate::error::{Code, Error, Result};
use crate::store::Rows;

const SAMPLES_DEFAULT: usize = 3;
const SAMPLES_MAX: usize = 10;
/// Events looked at to find samples.
const LOOKED_AT_MAX: usize = 2000;
/// Connections of a user whose custom fields are listed.
const CONNECTIONS_MAX: usize = 100;

/// What a hook would get.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Samples {
    /// Bodies, newest first. Empty where nothing has happened yet and nothing is known to make one of.
    #[schemars(with = "Vec<serde_json::Value>")]
    samples: Vec<Box<RawValue>>,
    /// True if they are made up, since nothing of the kind has happened yet.
    made_up: bool,
}

fn asked_event(call: &Call) -> Result<String> {
    let missing = || Error::new(Code::Malformed, "event: say which, such as ?event=contact.updated");
    call.query("event").map(str::to_owned).ok_or_else(missing)
}

pub(super) async fn sample(call: Call) -> Result<Reply> {
    let (workspace, bound, version) = (call.workspace()?, bound(&call)?, call.version);
    let (text, asked) = (asked_event(&call)?, call.query("userId").map(str::to_owned));
    let limit = match call.query("limit").map(str::parse::<usize>) {
        None => SAMPLES_DEFAULT,
        Some(Ok(limit)) if limit > 0 => limit.min(SAMPLES_MAX),
        Some(_) => return Err(Error::new(Code::Malformed, format!("limit: use a number from 1 to {SAMPLES_MAX}"))),
    };
    let (connector_topics, durable) = (call.state.connector_topics(), *call.state.store.durable().borrow());
    let read = move |rows: &Rows| {
        let user = whose(rows, workspace, bound, asked.as_deref())?.map(|user| user.id);
        let event = event_of(rows, workspace, connector_topics, &text)?;
        let pattern = TopicPattern::restore(&event.topic).map_err(Error::internal)?;
        let mut samples = happened(rows, (workspace, user), &event, &pattern, version, (durable, limit))?;
        let made_up = samples.is_empty();
        if made_up {
            samples.extend(invented(&event, &pattern, version)?);
        }
        Reply::json(&Samples { samples, made_up })
    };
    call.read(read).await
}

fn happened(
    rows: &Rows,
    (workspace, user): (WorkspaceNo, Option<UserId>),
    wanted: &HookEvent,
    pattern: &TopicPattern,
    version: ApiVersion,
    (durable, limit): (Seq, usize),
) -> Result<Vec<Box<RawValue>>> {
    let mut samples = Vec::new();
    for seq in rows.workspace_events(workspace, Some(durable.next()), LOOKED_AT_MAX)? {
        let fits = |event: &Event| {
            pattern.matches(&event.topic)
                && event.workspace == workspace
                && (user.is_none() || event.user == user)
                && (wanted.update_type.is_none() || wanted.update_type == event.update_type)
                && event.unified_change
        };
        if let Some(event) = rows.event(seq)?.filter(fits) {
            samples.push(raw(&event, EventId::new(seq, workspace), version)?);
            if samples.len() == limit {
                break;
            }
        }
    }
    Ok(samples)
}

fn invented(wanted: &HookEvent, pattern: &TopicPattern, version: ApiVersion) -> Result<Option<Box<RawValue>>> {
    let mut models = Catalogue::embedded().models().iter().filter(|model| !model.system);
    let Some(model) = models.find(|model| pattern.matches(&model.topic)) else { return Ok(None) };
    let mut event = body::example_event(model);
    if let Some(update_type) = &wanted.update_type {
        event.update_type = Some(update_type.clone());
        if let Payload::Record { deleted, .. } = &mut event.payload {
            *deleted = update_type == "deleted";
        }
    }
    raw(&event, EventId([0; 12]), version).map(Some)
}

fn raw(event: &Event, id: EventId, version: ApiVersion) -> Result<Box<RawValue>> {
    let text = String::from_utf8(body::render(event, id, version, &hook::INCLUDE)).map_err(Error::internal)?;
    RawValue::from_string(text).map_err(Error::internal)
}

pub(super) async fn fields(call: Call) -> Result<Reply> {
    let (workspace, bound) = (call.workspace()?, bound(&call)?);
    let (text, asked) = (asked_event(&call)?, call.query("userId").map(str::to_owned));
    let state = call.state.clone();
    let read = move |rows: &Rows| {
        let user = whose(rows, workspace, bound, asked.as_deref())?;
        let event = event_of(rows, workspace, state.connector_topics(), &text)?;
        if event.topic.ends_with('*') {
            return Err(Error::invalid("event: name one topic; a pattern has no fields of its own"));
        }
        let connections = match user {
            Some(user) => rows.children::<Connection>(&user.id.0, None, CONNECTIONS_MAX)?.items,
            None => Vec::new(),
        };
        Reply::json(&topics::fields_of(&state, rows, workspace, &event.topic, &connections)?)
    };
    call.read(read).await
}
