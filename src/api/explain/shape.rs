//! What an explanation is made of.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::connections::PullView;
use crate::api::deliveries::DeliveryView;
use crate::api::events::EventView;

/// The whole answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct OneExplanation {
    pub(super) explanation: Explanation,
}

/// From the app to the subscribers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    /// In one or two sentences.
    pub(super) summary: String,
    /// What was found, the most telling first.
    pub(super) findings: Vec<Finding>,
    pub(super) record: RecordView,
    /// What is known of the collections that such records are in.
    pub(super) collections: Vec<CollectionSeen>,
    /// The last looks at the app for such records, newest first; at most 10.
    pub(super) pulls: Vec<PullView>,
    /// The last webhooks of the connection, newest first, at most 20; then those of the last 20 of its integration that
    /// mention the record.
    pub(super) inbox: Vec<WebhookSeen>,
    /// The last events of the record, newest first; at most 10.
    pub(super) events: Vec<EventView>,
    /// What became of the last event in each subscription of the workspace, the newest 250 of them.
    pub(super) subscriptions: Vec<Judged>,
    /// There are more subscriptions.
    pub(super) more_subscriptions: bool,
}

/// One thing that was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Finding {
    /// Stable: docs/api.md lists them.
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// The record as the engine last saw it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordView {
    /// `dataPayload.id`, whether or not the record was ever seen.
    pub(super) id: String,
    pub(super) remote_id: String,
    /// It is in the snapshot; a deleted one stays there for 30 days.
    pub(super) known: bool,
    pub(super) deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<SnapshotView>,
}

/// The version of a record in the snapshot.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotView {
    pub(super) collection: String,
    /// The app's own time of the last change, if it has one.
    pub(super) remote_updated_at: Option<String>,
    pub(super) remote_created_at: Option<String>,
    /// When it was last seen: the request was sent then, or the webhook received.
    pub(super) observed_at: String,
    /// When it was first seen.
    pub(super) created_at: String,
    /// When anything that a subscriber can see last changed.
    pub(super) updated_at: String,
    pub(super) deleted_at: Option<String>,
    pub(super) last_event_id: Option<String>,
}

/// A collection that such records are in.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CollectionSeen {
    pub(super) key: String,
    /// False: this connection was told to leave it out.
    pub(super) wanted: bool,
    /// When the first sync was complete.
    pub(super) baseline_at: Option<String>,
    pub(super) last_pull_at: Option<String>,
    pub(super) next_pull_at: Option<String>,
    pub(super) last_scan_at: Option<String>,
    pub(super) next_scan_at: Option<String>,
    pub(super) last_webhook_at: Option<String>,
    /// Failures in a row.
    pub(super) failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// The deletion of this very record is held back.
    pub(super) holds_deletion: bool,
}

/// A webhook of the app.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookSeen {
    /// It came to the integration, for all of its connections.
    pub(super) global: bool,
    pub(super) inbox_id: String,
    pub(super) received_at: String,
    /// `waiting`, `done` or `parked`.
    pub(super) state: &'static str,
    /// What the check of the signature said.
    pub(super) verdict: String,
    /// Why it was parked, or what is to be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    /// Its body has the record's id somewhere.
    pub(super) mentions_record: bool,
    /// Events of this record that were made of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) event_ids: Vec<String>,
}

/// What became of the last event in a subscription.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Judged {
    pub(super) subscription_id: String,
    pub(super) address: String,
    /// Stable: docs/api.md lists them.
    pub(super) verdict: &'static str,
    pub(super) message: String,
    /// The newest delivery of the event, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<DeliveryView>,
}
