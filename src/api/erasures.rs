//! `/one/erasures`: taking out of the store what is held of a user, of a connection, or of a record, as a durable job.
//!
//! Always true: an erasure is asked for with the scope `admin`, since nothing brings back what it takes, and stands in the
//! audit log from the commit that makes it; what it names must be in the caller's workspace. Not here: the erasing
//! (`actors::eraser`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Call, not_found, user_of};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{Access, PAGED, Route, group};
use crate::domain::audit::{About, Act};
use crate::domain::connection::Connection;
use crate::domain::erasure::{CONNECTIONS_MAX, Cause, Counts, Erasure, Named, Scope, Stage};
use crate::domain::id::{ConnectionId, ErasureId, UserId, WorkspaceNo};
use crate::domain::models::Catalogue;
use crate::domain::topic;
use crate::domain::workspace::Scope as KeyScope;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// For keys that may do everything.
pub(super) const ADMIN: Access = Access::Key(KeyScope::Admin);
/// Erasures of a workspace that a caller may have under way.
const LIVE_MAX: usize = 100;
const REMOTE_ID_BYTES_MAX: usize = 1024;

/// What is to be erased.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewErasure {
    /// Everything of this user (id or username): records, webhooks and events of all its connections. This or
    /// `connectionId`.
    #[serde(default)]
    user_id: Option<String>,
    /// Everything of this connection. One that was deleted may have left events: those are erased too.
    #[serde(default)]
    connection_id: Option<String>,
    /// Only of this topic.
    #[serde(default)]
    topic: Option<String>,
    /// Only the record with this id at its app.
    #[serde(default)]
    remote_id: Option<String>,
}

/// How much was erased.
#[derive(Serialize, JsonSchema)]
pub(super) struct CountsView {
    /// Records that were there: `deleted` was sent of each.
    records: u64,
    /// Records that were deleted before, of which something was still held.
    tombstones: u64,
    /// Stored webhooks that lost their bodies.
    webhooks: u64,
    events: u64,
    /// Deliveries that waited or were dead, and will not be sent.
    deliveries: u64,
}

impl CountsView {
    pub(super) fn of(counts: Counts) -> Self {
        let Counts { records, tombstones, webhooks, events, deliveries } = counts;
        Self { records, tombstones, webhooks, events, deliveries }
    }
}

/// An erasure.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ErasureView {
    erasure_id: String,
    /// `running` or `completed`: all of it is off the disk.
    state: &'static str,
    /// What it is at: `records`, `webhooks`, `events`, `disk` or `completed`.
    stage: &'static str,
    /// Who asked: `key` or `webhook` (the app).
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The records that were named, until their traces are gone from the rows: then they are forgotten here too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remote_ids: Vec<String>,
    counts: CountsView,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct OneErasure {
    erasure: ErasureView,
}

#[derive(Serialize, JsonSchema)]
struct Erasures {
    erasures: Vec<ErasureView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/{version}/one/erasures", "/{version}/one/erasures/{erasureId}");
    let routes = vec![
        Route::post(all, "Erase what is held of a user, a connection or a record", create)
            .only(ADMIN)
            .takes::<NewErasure>()
            .gives::<OneErasure>(),
        Route::get(all, "List erasures", list).only(ADMIN).query(PAGED).gives::<Erasures>(),
        Route::get(one, "Show an erasure with its progress", show).only(ADMIN).gives::<OneErasure>(),
    ];
    group("erasures", routes)
}

fn view(job: &Erasure) -> ErasureView {
    let completed_at = match job.stage {
        Stage::Completed { at } => Some(at.rfc3339_millis()),
        _ => None,
    };
    let about = About::of(job);
    let topic = about.topic.or_else(|| job.scope.records.first().and_then(|named| named.topic.clone()));
    ErasureView {
        erasure_id: job.id.to_string(),
        state: if job.is_live() { "running" } else { "completed" },
        stage: job.stage_text(),
        cause: match job.cause {
            Cause::Key(_) => "key",
            Cause::Webhook(_) => "webhook",
        },
        user_id: about.user.map(|id| id.to_string()),
        connection_id: about.connection.map(|id| id.to_string()),
        topic,
        remote_ids: job.scope.records.iter().map(|named| named.remote_id.clone()).collect(),
        counts: CountsView::of(job.counts),
        created_at: job.created_at.rfc3339_millis(),
        updated_at: job.updated_at.rfc3339_millis(),
        completed_at,
    }
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, workspace, key) = (call.json::<NewErasure>()?, call.workspace()?, key_of(&call)?);
    let connector_topics = call.state.connector_topics();
    let change = move |tx: &mut Tx<'_>| {
        if tx.live_erasures_of(workspace, LIVE_MAX)? >= LIVE_MAX {
            let message = format!("{LIVE_MAX} erasures are under way; wait until one has completed");
            return Err(Error { retry_after: Some(10), ..Error::new(Code::TooManyRequests, message) });
        }
        let scope = scope(tx, workspace, &connector_topics, asked)?;
        let job = Erasure::new(ErasureId(tx.fresh_id()?), workspace, scope, Cause::Key(key), tx.now());
        tx.put_erasure(&job)?;
        let act = Act::ErasureAsked { erasure: job.id, about: About::of(&job) };
        tx.put_audit(workspace, job.cause.into(), act)?;
        Ok((Reply::json(&OneErasure { erasure: view(&job) })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    call.state.rings.erasure_made();
    Ok(reply)
}

/// The caller's key, for the audit log.
pub(super) fn key_of(call: &Call) -> Result<crate::domain::id::KeyId> {
    match &call.caller {
        Some(caller) => Ok(caller.key.id),
        None => Err(Error::internal("an audited call without a caller")),
    }
}

fn scope(rows: &Rows, workspace: WorkspaceNo, connector_topics: &[String], asked: NewErasure) -> Result<Scope> {
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (user, connection) = (text(asked.user_id), text(asked.connection_id));
    let (topic, remote_id) = (text(asked.topic), text(asked.remote_id));
    if let Some(name) = &topic {
        check_topic(rows, workspace, connector_topics, name)?;
    }
    if remote_id.as_ref().is_some_and(|id| id.len() > REMOTE_ID_BYTES_MAX) {
        return Err(Error::invalid(format!("remoteId: use at most {REMOTE_ID_BYTES_MAX} bytes")));
    }
    let (user, found) = match (user, connection) {
        (Some(user), None) => {
            let user = user_of(rows, workspace, &user)?.id;
            (Some(user), connections_of(rows, user)?)
        }
        (None, Some(id)) => (None, vec![connection_of(rows, workspace, &id)?]),
        _ => return Err(Error::invalid("userId: name a user, or a connection with `connectionId`; one of them")),
    };
    let mut integrations: Vec<_> = found.iter().filter_map(|(_, c)| c.as_ref()?.integration).collect();
    integrations.sort_unstable();
    integrations.dedup();
    Ok(Scope {
        user,
        connections: found.into_iter().map(|(id, _)| id).collect(),
        integrations,
        by_record: remote_id.is_some(),
        records: remote_id.into_iter().map(|remote_id| Named { topic: None, remote_id }).collect(),
        topic,
    })
}

type Found = (ConnectionId, Option<Connection>);

fn connections_of(rows: &Rows, user: UserId) -> Result<Vec<Found>> {
    let page = rows.children::<Connection>(&user.0, None, CONNECTIONS_MAX)?;
    if page.next.is_some() {
        let message = format!(
            "userId: the user has more than {CONNECTIONS_MAX} connections; erase them one by one with `connectionId`"
        );
        return Err(Error::invalid(message));
    }
    Ok(page.items.into_iter().map(|connection| (connection.id, Some(connection))).collect())
}

/// A connection of the workspace, or one that was and has left events.
fn connection_of(rows: &Rows, workspace: WorkspaceNo, text: &str) -> Result<Found> {
    let missing = || not_found(Code::ConnectionNotFound, text);
    let id: ConnectionId = text.parse().map_err(|_| missing())?;
    if let Some(connection) = rows.connection(workspace, id)? {
        return Ok((id, Some(connection)));
    }
    match rows.first_event_of(id)?.filter(|event| event.workspace == workspace) {
        Some(_) => Ok((id, None)),
        None => Err(missing()),
    }
}

fn check_topic(rows: &Rows, workspace: WorkspaceNo, connector_topics: &[String], name: &str) -> Result<()> {
    let is_known = Catalogue::embedded().data(name).is_some()
        || connector_topics.iter().any(|topic| topic == name)
        || rows.custom_topic(workspace, name)?.is_some();
    if is_known {
        return Ok(());
    }
    let all: Vec<&str> =
        Catalogue::embedded().models().iter().filter(|m| !m.system).map(|m| m.topic.as_str()).collect();
    let near = topic::near(name, &all);
    let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
    let shown: String = name.chars().take(130).collect();
    Err(Error::new(Code::UnknownTopic, format!("topic: there is no `{shown}` that holds records{hint}")))
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of(&call)?);
    let before = page.before_exactly::<12>()?.map(ErasureId);
    let mut all = call.read(move |rows| rows.erasures(workspace, before, page.limit + 1)).await?;
    let more = all.len() > page.limit;
    all.truncate(page.limit);
    let next = all.last().filter(|_| more).map(|job| paging::next(job.id.0));
    Reply::json(&Erasures { erasures: all.iter().map(view).collect(), next })
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, call.id::<ErasureId>("erasureId", Code::ErasureNotFound)?);
    let job = call.read(move |rows| rows.erasure(workspace, id)).await?;
    let job = job.ok_or_else(|| not_found(Code::ErasureNotFound, &id.to_string()))?;
    Reply::json(&OneErasure { erasure: view(&job) })
}
