//! The stored, topic-bearing fact made from a change, a publish call, or from the engine's own doings.
//!
//! Always true: an event is immutable once it has its sequence. JSON inside it is text as it came, so that a payload
//! passes through byte for byte. Not here: how a body is made of it (`domain::body`), who gets it (`actors::router`).

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::id::{ConnectionId, InboxId, PullId, SubscriptionId, UserId, WorkspaceNo};
use super::time::Millis;
use super::workspace::User;

/// One event, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub workspace: WorkspaceNo,
    /// `category/model`, or a system topic.
    pub topic: String,
    /// `created`, `updated`, `deleted`, or the verb of a system event. None only for a published event without one.
    pub update_type: Option<String>,
    pub connection: Option<ConnectionId>,
    pub user: Option<UserId>,
    /// The app's display name (`HubSpot`).
    pub app: Option<String>,
    /// The user's full name, else the username.
    pub user_name: Option<String>,
    /// The ISV's own name of the user.
    pub username: Option<String>,
    /// When it happened at the app if known, else when we saw it.
    pub happened_at: Millis,
    /// When the node took it in; the start of accept-to-first-attempt.
    pub accepted_at: Millis,
    pub payload: Payload,
    /// Dotted paths that differ from the record before; empty unless `updated`.
    pub changed_fields: Vec<String>,
    /// The unified record before, as JSON object text.
    pub previous: Option<String>,
    /// The app's own record or event, as JSON text.
    pub raw: Option<String>,
    pub source: Source,
    /// False for a change of the app's own record that changes nothing unified: only subscriptions that ask for `raw`
    /// see it.
    pub unified_change: bool,
    /// The subscription that a system event is about: it never goes to that one.
    pub about: Option<SubscriptionId>,
}

/// Names a record among all events of a workspace: events of one record arrive in order where a subscription asks for it.
pub type RecordKey = [u8; 16];

impl Event {
    /// The record that the event is about: of a unified one its id, of another one the `id` of its payload, text or
    /// number. None if it has none.
    pub fn record_key(&self) -> Option<RecordKey> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            id: &'a serde_json::value::RawValue,
        }
        match &self.payload {
            Payload::Record { id, .. } => Some(*id),
            Payload::Plain(text) => {
                let named: Named<'_> = serde_json::from_str(text).ok()?;
                let id = named.id.get();
                let is_name =
                    id.starts_with('"') || id.starts_with('-') || id.starts_with(|c: char| c.is_ascii_digit());
                let space = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, self.topic.as_bytes());
                is_name.then(|| uuid::Uuid::new_v5(&space, id.as_bytes()).into_bytes())
            }
        }
    }

    /// An event of the engine, seen now, of nobody and without a topic: what makes it says the rest.
    pub fn blank(workspace: WorkspaceNo, payload: Payload, now: Millis) -> Self {
        Self {
            workspace,
            topic: String::new(),
            update_type: None,
            connection: None,
            user: None,
            app: None,
            user_name: None,
            username: None,
            happened_at: now,
            accepted_at: now,
            payload,
            changed_fields: Vec::new(),
            previous: None,
            raw: None,
            source: Source::Engine,
            unified_change: true,
            about: None,
        }
    }

    /// The same, of a connection and its user.
    pub fn of(connection: &Connection, user: Option<&User>, payload: Payload, now: Millis) -> Self {
        Self {
            connection: Some(connection.id),
            user: Some(connection.user),
            app: Some(connection.app.clone()),
            user_name: user.map(|user| user.display_name().to_owned()),
            username: user.map(|user| user.username.clone()),
            ..Self::blank(connection.workspace, payload, now)
        }
    }
}

/// What `dataPayload` is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A unified record; times are written as the subscription's API version wants them.
    Record {
        /// UUIDv5 of (connection, model, remoteId).
        id: [u8; 16],
        remote_id: String,
        remote_created_at: Option<Millis>,
        remote_updated_at: Option<Millis>,
        created_at: Millis,
        updated_at: Millis,
        deleted: bool,
        /// The unified fields as JSON object text, in model order, without id and times.
        fields: String,
    },
    /// JSON text that passes through byte for byte.
    Plain(String),
}

/// How the engine came to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A webhook of the app.
    Webhook(InboxId),
    /// An incremental pull.
    Poll(PullId),
    /// A full scan.
    Scan(PullId),
    /// `POST /one/events`.
    Published,
    /// The engine itself (system topics).
    Engine,
}
