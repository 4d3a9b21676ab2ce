//! `…/inbox`: the app's webhooks as they arrived, whether they were understood, and asking for another try.
//!
//! Always true: newest first; a page holds a bounded number of bytes, so it may be short while `next` is present. Global
//! webhooks arrive at their integration and lie there; what is handed on to a connection is a row of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;

use super::{find, id_of};
use crate::api::call::{Call, not_found};
use crate::api::integrations;
use crate::api::paging::{self, Paging};
use crate::api::reply::Reply;
use crate::api::route::{PAGED, Route, group};
use crate::domain::id::{ConnectionId, InboxId, IntegrationId};
use crate::error::{Code, Error, Result};
use crate::store::{ERASED, InboxRow, InboxState, Rows, Tx};

/// Bodies of one page.
const PAGE_BYTES_MAX: usize = 8 << 20;

#[derive(Serialize, JsonSchema)]
struct HeaderView {
    name: String,
    value: String,
}

/// One request of the app.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct InboxView {
    inbox_id: String,
    received_at: String,
    /// `waiting`, `done` or `parked`.
    state: &'static str,
    /// What the check of the signature said: `verified`, `unsigned`, …
    verdict: String,
    /// Of a global webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_key: Option<String>,
    /// The connector's event, on a row that a global webhook handed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    method: String,
    uri: String,
    headers: Vec<HeaderView>,
    /// The body, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The body, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// Tries so far, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    /// When it was understood or parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<String>,
    /// Events made of it.
    event_ids: Vec<String>,
    /// Connections that it was handed on to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    handed_to: Vec<String>,
    /// Why it was parked, or what is to be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// What scripts printed.
    log: Vec<String>,
}

/// A webhook as an event's trace shows it: without its headers and body, which its inbox has.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct WebhookView {
    received_at: String,
    /// `waiting`, `done` or `parked`.
    state: &'static str,
    /// What the check of the signature said.
    verdict: String,
    /// The connector's event, if a global webhook handed it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// When it was understood or parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<String>,
}

impl WebhookView {
    /// As it is shown.
    pub(in crate::api) fn of(row: &InboxRow) -> Self {
        let (state, settled_at) = match &row.state {
            InboxState::Waiting { .. } => ("waiting", None),
            InboxState::Done { at, .. } => ("done", Some(at.rfc3339_millis())),
            InboxState::Parked { at, .. } => ("parked", Some(at.rfc3339_millis())),
        };
        Self {
            received_at: row.received_at.rfc3339_millis(),
            state,
            verdict: row.verdict.clone(),
            event: row.event.clone(),
            settled_at,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Inbox {
    inbox: Vec<InboxView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Again {
    inbox_id: String,
    /// `waiting`.
    state: &'static str,
}

/// Whose inbox.
#[derive(Clone, Copy)]
enum Owner {
    Connection(ConnectionId),
    Integration(IntegrationId),
}

impl Owner {
    fn of(call: &Call) -> Result<Self> {
        match call.param("integrationId") {
            Ok(_) => integrations::id_of(call).map(Self::Integration),
            Err(_) => id_of(call).map(Self::Connection),
        }
    }
    /// Its id, if it is in the workspace.
    fn check(self, rows: &Rows, workspace: crate::domain::id::WorkspaceNo) -> Result<[u8; 12]> {
        match self {
            Self::Connection(id) => find(rows, workspace, id).map(|c| c.id.0),
            Self::Integration(id) => integrations::find(rows, workspace, id).map(|i| i.id.0),
        }
    }
}

pub(super) fn routes() -> Vec<Route> {
    let list_at = |path| Route::get(path, "Webhooks as they arrived, newest first", list).query(PAGED).gives::<Inbox>();
    let again_at = |path| Route::post(path, "Try to understand a webhook again", again).gives::<Again>();
    let of_connection = vec![
        list_at("/{version}/one/connections/{connectionId}/inbox"),
        again_at("/{version}/one/connections/{connectionId}/inbox/{inboxId}/reprocess"),
    ];
    let of_integration = vec![
        list_at("/{version}/one/integrations/{integrationId}/inbox"),
        again_at("/{version}/one/integrations/{integrationId}/inbox/{inboxId}/reprocess"),
    ];
    [group("connections", of_connection), group("integrations", of_integration)].concat()
}

fn view(id: InboxId, row: InboxRow) -> InboxView {
    let InboxRow { request, log, state, .. } = row;
    let headers = request
        .headers
        .into_iter()
        .map(|(name, value)| HeaderView { name, value: String::from_utf8_lossy(&value).into_owned() });
    let (body, body_base64) = match String::from_utf8(request.body) {
        Ok(text) => (Some(text), None),
        Err(binary) => (None, Some(STANDARD.encode(binary.as_bytes()))),
    };
    let mut view = InboxView {
        inbox_id: id.to_string(),
        received_at: request.received_at.rfc3339_millis(),
        state: "waiting",
        verdict: request.verdict,
        webhook_key: Some(request.webhook_key).filter(|key| !key.is_empty()),
        event: request.event,
        method: request.method,
        uri: request.uri,
        headers: headers.collect(),
        body,
        body_base64,
        tries: None,
        settled_at: None,
        event_ids: Vec::new(),
        handed_to: Vec::new(),
        note: None,
        log,
    };
    match state {
        InboxState::Waiting { tries } => view.tries = Some(tries),
        InboxState::Done { at, events, handed_to, note } => {
            view.state = "done";
            view.settled_at = Some(at.rfc3339_millis());
            view.event_ids = events.iter().map(ToString::to_string).collect();
            view.handed_to = handed_to.iter().map(hex::encode).collect();
            view.note = Some(note).filter(|note| !note.is_empty());
        }
        InboxState::Parked { at, reason } => {
            view.state = "parked";
            view.settled_at = Some(at.rfc3339_millis());
            view.note = Some(reason);
        }
    }
    view
}

/// A webhook as an export has it: without its address and headers, which hold secrets.
pub(in crate::api) fn exported_webhook(id: InboxId, row: InboxRow) -> InboxView {
    InboxView { uri: String::new(), headers: Vec::new(), ..view(id, row) }
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, owner, page) = (call.workspace()?, Owner::of(&call)?, Paging::of(&call)?);
    let mut before = page.before_exactly::<12>()?.map(InboxId);
    let read = move |rows: &Rows| {
        let owner = owner.check(rows, workspace)?;
        let (mut inbox, mut bytes) = (Vec::new(), 0_usize);
        // One at a time: a few bodies may be as large as the limit allows.
        let next = loop {
            let Some((id, row)) = rows.inbox(&owner, before, 1)?.pop() else { break None };
            bytes = bytes.saturating_add(row.body.len());
            if inbox.len() >= page.limit || (bytes > PAGE_BYTES_MAX && !inbox.is_empty()) {
                break before.map(|id| paging::next(id.0));
            }
            before = Some(id);
            inbox.push(view(id, row));
        };
        Reply::json(&Inbox { inbox, next })
    };
    call.read(read).await
}

async fn again(call: Call) -> Result<Reply> {
    let (workspace, owner) = (call.workspace()?, Owner::of(&call)?);
    let id: InboxId = call.id("inboxId", Code::InboxNotFound)?;
    let change = move |tx: &mut Tx<'_>| {
        let owner = owner.check(tx, workspace)?;
        let missing = || not_found(Code::InboxNotFound, &id.to_string());
        let mut row = tx.inbox_row(&owner, id)?.ok_or_else(missing)?;
        if matches!(row.state, InboxState::Waiting { .. }) {
            return Err(Error::new(Code::Conflict, "this webhook waits to be understood already"));
        }
        if row.verdict == ERASED {
            return Err(Error::new(Code::Conflict, "this webhook was erased: there is nothing left to understand"));
        }
        row.state = InboxState::Waiting { tries: 0 };
        row.log.clear();
        let now = tx.now();
        tx.settle_inbox(id, &row, now)?;
        Ok((Reply::json(&Again { inbox_id: id.to_string(), state: "waiting" })?, owner))
    };
    let (reply, owner) = call.change(change).await?;
    call.state.rings.owner(owner);
    Ok(reply)
}
