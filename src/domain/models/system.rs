//! What happened, as the engine tells it: one variant per system topic, with exactly what its schema wants.
//!
//! Always true: the payload of each satisfies `config/models/system/…` (a test). Not here: who tells it, and how often.

use serde_json::{Value, json};

use crate::domain::event::{Event, Payload};
use crate::domain::id::{
    ConnectionId, DeliveryId, DestinationId, EventId, IntegrationId, PullId, SubscriptionId, UserId,
};
use crate::domain::time::Millis;
use crate::domain::topic::SystemTopic;
use crate::domain::workspace::User;
use crate::domain::{connection, destination, subscription};

/// A connection, as its events show it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub user: UserId,
    pub integration: Option<IntegrationId>,
    /// The connector's key.
    pub connector: String,
    /// The app's display name.
    pub app: String,
    pub category: String,
    /// `active`, `paused`, `authFailed` or `error`.
    pub status: String,
}

impl From<&connection::Connection> for Connection {
    fn from(stored: &connection::Connection) -> Self {
        Self {
            id: stored.id,
            user: stored.user,
            integration: stored.integration,
            connector: stored.connector.clone(),
            app: stored.app.clone(),
            category: stored.category.clone(),
            status: stored.status.word().to_owned(),
        }
    }
}

/// Which connection and pull.
#[derive(Clone, Debug)]
pub struct Pull {
    pub id: PullId,
    pub connection: ConnectionId,
    pub connector: String,
    /// `initial`, `full` or `incremental`.
    pub mode: String,
}

/// A collection of a connection.
#[derive(Clone, Debug)]
pub struct Collection {
    pub connection: ConnectionId,
    pub connector: String,
    pub topic: String,
}

/// What one collection gave in one pull; numbers of records.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub topic: String,
    pub seen: u64,
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Changed only because the connector's mapping did.
    pub remapped: u64,
    /// Deletions that wait.
    pub held: u64,
}

/// A stable code and a sentence.
#[derive(Clone, Debug)]
pub struct Fault {
    pub code: String,
    pub message: String,
}

/// A subscription, as its events show it.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub address: String,
}

impl From<&subscription::Subscription> for Subscription {
    fn from(stored: &subscription::Subscription) -> Self {
        Self { id: stored.id, address: stored.address.clone() }
    }
}

/// A destination, as its events show it.
#[derive(Clone, Debug)]
pub struct Destination {
    pub id: DestinationId,
    /// `postgresql`, `s3`, …
    pub kind: String,
    pub name: String,
    pub user: Option<UserId>,
}

impl From<&destination::Destination> for Destination {
    fn from(stored: &destination::Destination) -> Self {
        Self { id: stored.id, kind: stored.kind.clone(), name: stored.name.clone(), user: stored.user }
    }
}

/// Whom one of the engine's doings concerns.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    Connection(&'a connection::Connection, Option<&'a User>),
    Integration(&'a connection::Integration),
    /// The event never goes to that one.
    Subscription(&'a subscription::Subscription),
    /// And its user, if it has one.
    Destination(&'a destination::Destination, Option<&'a User>),
}

/// A webhook URL that a person must paste again.
#[derive(Clone, Debug)]
pub struct Paste {
    /// Of a global webhook.
    pub key: Option<String>,
    pub name: String,
    pub uri: String,
}

/// One of the engine's own doings.
#[derive(Clone, Debug)]
pub enum SystemEvent {
    ConnectionCreated(Connection),
    ConnectionUpdated {
        connection: Connection,
        changed: Vec<String>,
    },
    /// `reason` is `requested` or `userDeleted`.
    ConnectionDeleted {
        connection: Connection,
        reason: String,
    },
    ConnectionAuthenticationFailure {
        connection: Connection,
        error: Fault,
        failed_at: Millis,
    },
    SyncStarted {
        pull: Pull,
        topics: Vec<String>,
        started_at: Millis,
    },
    SyncCompleted {
        pull: Pull,
        collections: Vec<Counts>,
        started_at: Millis,
        completed_at: Millis,
    },
    SyncFailed {
        pull: Pull,
        topics: Vec<String>,
        error: Fault,
        started_at: Millis,
        failed_at: Millis,
        next_pull_at: Option<Millis>,
    },
    SyncHeld {
        pull: PullId,
        collection: Collection,
        records: u64,
        missing: u64,
        needs_approval: bool,
        held_at: Millis,
    },
    PollerStalled {
        collection: Collection,
        last_pull_at: Option<Millis>,
        due_at: Millis,
        reason: String,
    },
    WebhookExpiring {
        connection: ConnectionId,
        connector: String,
        topics: Vec<String>,
        expires_at: Millis,
        error: Fault,
    },
    WebhookUrlChanged {
        integration: Option<IntegrationId>,
        connection: Option<ConnectionId>,
        connector: String,
        webhooks: Vec<Paste>,
    },
    /// `reason` is `gone` (410), `failing`, `expired` or `requested`.
    SubscriptionDisabled {
        subscription: Subscription,
        reason: String,
        failing_since: Option<Millis>,
        pending: u64,
    },
    SubscriptionRecovered {
        subscription: Subscription,
        failing_since: Millis,
        recovered_at: Millis,
        pending: u64,
    },
    DeliveryDead {
        subscription: Subscription,
        /// How many since the last such event.
        count: u64,
        delivery: DeliveryId,
        event: EventId,
        /// Of that event.
        topic: String,
        error: Fault,
        attempt_count: u32,
    },
    DestinationPaused {
        destination: Destination,
        error: Fault,
        paused_at: Millis,
    },
    DestinationResumed {
        destination: Destination,
        paused_since: Millis,
        resumed_at: Millis,
    },
}

impl SystemEvent {
    /// The topic; its verb is the event's `updateType`.
    pub fn topic(&self) -> SystemTopic {
        match self {
            Self::ConnectionCreated(_) => SystemTopic::ConnectionCreated,
            Self::ConnectionUpdated { .. } => SystemTopic::ConnectionUpdated,
            Self::ConnectionDeleted { .. } => SystemTopic::ConnectionDeleted,
            Self::ConnectionAuthenticationFailure { .. } => SystemTopic::ConnectionAuthenticationFailure,
            Self::SyncStarted { .. } => SystemTopic::SyncStarted,
            Self::SyncCompleted { .. } => SystemTopic::SyncCompleted,
            Self::SyncFailed { .. } => SystemTopic::SyncFailed,
            Self::SyncHeld { .. } => SystemTopic::SyncHeld,
            Self::PollerStalled { .. } => SystemTopic::PollerStalled,
            Self::WebhookExpiring { .. } => SystemTopic::WebhookExpiring,
            Self::WebhookUrlChanged { .. } => SystemTopic::WebhookUrlChanged,
            Self::SubscriptionDisabled { .. } => SystemTopic::SubscriptionDisabled,
            Self::SubscriptionRecovered { .. } => SystemTopic::SubscriptionRecovered,
            Self::DeliveryDead { .. } => SystemTopic::DeliveryDead,
            Self::DestinationPaused { .. } => SystemTopic::DestinationPaused,
            Self::DestinationResumed { .. } => SystemTopic::DestinationResumed,
        }
    }

    /// The event of the log that tells of it.
    pub fn event(&self, of: Subject<'_>, now: Millis) -> Event {
        let payload = Payload::Plain(self.payload());
        let event = match of {
            Subject::Connection(connection, user) => Event::of(connection, user, payload, now),
            Subject::Integration(integration) => Event::blank(integration.workspace, payload, now),
            Subject::Subscription(subscription) => Event {
                user: subscription.user,
                about: Some(subscription.id),
                ..Event::blank(subscription.workspace, payload, now)
            },
            Subject::Destination(destination, user) => Event {
                user: destination.user,
                user_name: user.map(|user| user.display_name().to_owned()),
                username: user.map(|user| user.username.clone()),
                ..Event::blank(destination.workspace, payload, now)
            },
        };
        Event { topic: self.topic().as_str().to_owned(), update_type: Some(self.topic().verb().to_owned()), ..event }
    }

    /// The `dataPayload`, as JSON object text.
    pub fn payload(&self) -> String {
        let mut payload = self.subject();
        if let (Value::Object(all), Value::Object(details)) = (&mut payload, self.details()) {
            all.extend(details);
        }
        payload.to_string()
    }

    /// The fields that say what it is about; several topics share them.
    fn subject(&self) -> Value {
        match self {
            Self::ConnectionCreated(connection)
            | Self::ConnectionUpdated { connection, .. }
            | Self::ConnectionDeleted { connection, .. }
            | Self::ConnectionAuthenticationFailure { connection, .. } => json!({
                "connectionId": connection.id.to_string(), "userId": connection.user.to_string(),
                "integrationId": connection.integration.map(|id| id.to_string()), "connector": connection.connector,
                "app": connection.app, "category": connection.category, "status": connection.status,
            }),
            Self::SyncStarted { pull, .. } | Self::SyncCompleted { pull, .. } | Self::SyncFailed { pull, .. } => {
                json!({
                    "pullId": pull.id.to_string(), "connectionId": pull.connection.to_string(),
                    "connector": pull.connector, "mode": pull.mode,
                })
            }
            Self::SyncHeld { collection: c, .. } | Self::PollerStalled { collection: c, .. } => {
                json!({"connectionId": c.connection.to_string(), "connector": c.connector, "topic": c.topic})
            }
            Self::WebhookExpiring { connection, connector, .. } => {
                json!({"connectionId": connection.to_string(), "connector": connector})
            }
            Self::WebhookUrlChanged { integration, connection, connector, .. } => json!({
                "integrationId": integration.map(|id| id.to_string()),
                "connectionId": connection.map(|id| id.to_string()), "connector": connector,
            }),
            Self::SubscriptionDisabled { subscription, .. }
            | Self::SubscriptionRecovered { subscription, .. }
            | Self::DeliveryDead { subscription, .. } => {
                json!({"subscriptionId": subscription.id.to_string(), "address": subscription.address})
            }
            Self::DestinationPaused { destination, .. } | Self::DestinationResumed { destination, .. } => json!({
                "destinationId": destination.id.to_string(), "type": destination.kind, "name": destination.name,
                "userId": destination.user.map(|id| id.to_string()),
            }),
        }
    }

    /// The fields that say what happened to it.
    fn details(&self) -> Value {
        match self {
            Self::ConnectionCreated(_) => json!({}),
            Self::ConnectionUpdated { changed, .. } => json!({"changed": changed}),
            Self::ConnectionDeleted { reason, .. } => json!({"reason": reason}),
            Self::ConnectionAuthenticationFailure { error, failed_at, .. } => {
                json!({"error": error.json(), "failedAt": at(*failed_at)})
            }
            Self::SyncStarted { topics, started_at, .. } => json!({"topics": topics, "startedAt": at(*started_at)}),
            Self::SyncCompleted { collections, started_at, completed_at, .. } => {
                let collections: Vec<Value> = collections.iter().map(Counts::json).collect();
                json!({"collections": collections, "startedAt": at(*started_at), "completedAt": at(*completed_at)})
            }
            Self::SyncFailed { topics, error, started_at, failed_at, next_pull_at, .. } => json!({
                "topics": topics, "error": error.json(), "startedAt": at(*started_at), "failedAt": at(*failed_at),
                "nextPullAt": next_pull_at.map(at),
            }),
            Self::SyncHeld { pull, records, missing, needs_approval, held_at, .. } => json!({
                "pullId": pull.to_string(), "records": records, "missing": missing, "needsApproval": needs_approval,
                "heldAt": at(*held_at),
            }),
            Self::PollerStalled { last_pull_at, due_at, reason, .. } => {
                json!({"lastPullAt": last_pull_at.map(at), "dueAt": at(*due_at), "reason": reason})
            }
            Self::WebhookExpiring { topics, expires_at, error, .. } => {
                json!({"topics": topics, "expiresAt": at(*expires_at), "error": error.json()})
            }
            Self::WebhookUrlChanged { webhooks, .. } => json!({"webhooks": webhooks.iter().map(|w| {
                json!({"key": w.key, "name": w.name, "uri": w.uri})
            }).collect::<Vec<_>>()}),
            Self::SubscriptionDisabled { reason, failing_since, pending, .. } => {
                json!({"reason": reason, "failingSince": failing_since.map(at), "pending": pending})
            }
            Self::SubscriptionRecovered { failing_since, recovered_at, pending, .. } => {
                json!({"failingSince": at(*failing_since), "recoveredAt": at(*recovered_at), "pending": pending})
            }
            Self::DeliveryDead { count, delivery, event, topic, error, attempt_count, .. } => json!({
                "count": count, "deliveryId": delivery.to_string(), "eventId": event.to_string(), "topic": topic,
                "error": error.json(), "attemptCount": attempt_count,
            }),
            Self::DestinationPaused { error, paused_at, .. } => {
                json!({"error": error.json(), "pausedAt": at(*paused_at)})
            }
            Self::DestinationResumed { paused_since, resumed_at, .. } => {
                json!({"pausedSince": at(*paused_since), "resumedAt": at(*resumed_at)})
            }
        }
    }
}

impl Counts {
    fn json(&self) -> Value {
        json!({
            "topic": self.topic, "seen": self.seen, "created": self.created, "updated": self.updated,
            "deleted": self.deleted, "remapped": self.remapped, "held": self.held,
        })
    }
}

impl Fault {
    fn json(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }
}

fn at(time: Millis) -> String {
    time.rfc3339_millis()
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
