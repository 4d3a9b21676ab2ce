//! `GET /one/audit`: who had what erased, and who took out what is held of a user.
//!
//! Always true: newest first; an entry holds ids of ours and numbers. Not here: who writes entries (`erasures`,
//! `user_export`, `actors::eraser`).

use schemars::JsonSchema;
use serde::Serialize;

use super::call::Call;
use super::erasures::{ADMIN, CountsView};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Route, group};
use crate::domain::audit::{Act, Actor, Entry};
use crate::domain::id::{AuditId, KeyId};
use crate::error::Result;

/// Who did it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ActorView {
    /// `key`, `app` (a webhook of the app of that connection) or `store` (the command line, on the store itself).
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
}

/// One entry.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct EntryView {
    audit_id: String,
    at: String,
    actor: ActorView,
    /// `erasure.asked`, `erasure.completed` or `user.exported`.
    act: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    erasure_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// So many records were named; absent if everything was meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    records_named: Option<u32>,
    /// What an erasure came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<CountsView>,
}

#[derive(Serialize, JsonSchema)]
struct Audit {
    audit: Vec<EntryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    let list = Route::get("/{version}/one/audit", "Who erased and exported what", list);
    group("audit", vec![list.only(ADMIN).query(PAGED).gives::<Audit>()])
}

fn view(entry: Entry) -> EntryView {
    let (kind, key_id, of_app) = match entry.actor {
        // No key that was made has it: see `inside`.
        Actor::Key(KeyId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])) => ("store", None, None),
        Actor::Key(id) => ("key", Some(id.to_string()), None),
        Actor::App(id) => ("app", None, Some(id.to_string())),
    };
    let act = entry.act.text();
    let mut view = EntryView {
        audit_id: entry.id.to_string(),
        at: entry.at.rfc3339_millis(),
        actor: ActorView { kind, key_id, connection_id: of_app },
        act,
        erasure_id: None,
        user_id: None,
        connection_id: None,
        topic: None,
        records_named: None,
        counts: None,
    };
    match entry.act {
        Act::ErasureAsked { erasure, about } => {
            view.erasure_id = Some(erasure.to_string());
            view.user_id = about.user.map(|id| id.to_string());
            view.connection_id = about.connection.map(|id| id.to_string());
            view.topic = about.topic;
            view.records_named = Some(about.records).filter(|records| *records > 0);
        }
        Act::ErasureCompleted { erasure, counts } => {
            view.erasure_id = Some(erasure.to_string());
            view.counts = Some(CountsView::of(counts));
        }
        Act::UserExported { user } => view.user_id = Some(user.to_string()),
    }
    view
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of(&call)?);
    let before = page.before_exactly::<12>()?.map(AuditId);
    let mut all = call.read(move |rows| rows.audit(workspace, before, page.limit + 1)).await?;
    let more = all.len() > page.limit;
    all.truncate(page.limit);
    let next = all.last().filter(|_| more).map(|entry| paging::next(entry.id.0));
    Reply::json(&Audit { audit: all.into_iter().map(view).collect(), next })
}
