//! A connector as it stands in memory: compiled once from its folder, then immutable.
//!
//! Always true: every name in here was checked when the folder was loaded. Not here: how the files are read
//! (`connectors::folder`), what the calls do (`connectors::session`).

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

/// One third-party app, as its folder describes it.
#[derive(Debug)]
pub struct Connector {
    /// The folder's name.
    pub key: String,
    /// The display name (`app` of an event), unless `name_parameter` names a parameter that holds it.
    pub name: String,
    /// The integration's parameter that holds the display name, where users choose it.
    pub name_parameter: Option<String>,
    /// `crm`, `commerce`, `accounting`, or another word.
    pub category: String,
    pub description: String,
    /// Hash over the folder's files (tests and docs aside) and, where files take parameters, over their values.
    pub version: [u8; 16],
    /// In the files' order of names.
    pub collections: Vec<Collection>,
}

/// One kind of record in the app.
#[derive(Debug)]
pub struct Collection {
    /// The folder's name.
    pub key: String,
    pub name: String,
    /// `category/model`.
    pub topic: String,
    pub detects: Detects,
    pub cursor: Cursor,
    pub poll: Poll,
    /// Dotted paths of the unified record that never count as a change.
    pub ignored_fields: Vec<String>,
    pub webhook_body: WebhookBody,
}

/// How each kind of change is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detects {
    pub created: Detection,
    pub updated: Detection,
    pub deleted: Detection,
}

/// One way to notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detection {
    /// The connection's own webhook; polled as well, for what webhooks lose.
    Webhook,
    /// The app's one webhook for all accounts; polled as well.
    GlobalWebhook,
    /// The list of changed records (for `deleted`: the app's own list of deleted ones, or a flag on the record).
    Pull,
    /// The engine compares snapshots.
    FullScan,
    /// The app cannot tell, and we do not look.
    NotSupported,
}

impl Detection {
    /// As the API shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::GlobalWebhook => "global-webhook",
            Self::Pull => "poll",
            Self::FullScan => "full-scan",
            Self::NotSupported => "none",
        }
    }
}

/// What the engine must know of the app's list of changed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The records carry a time of their last change, and the list can be asked for "since".
    pub incremental: bool,
    pub order: Order,
    /// How fine the app's times are: two changes within one tick have the same time.
    pub precision: Duration,
    /// How far back to look each time, for what the app shows late.
    pub lookback: Duration,
    /// Past this many records the app's list goes no further: split the window by time.
    pub ceiling: Option<u64>,
    /// The request can start at (time, id), not only at a time.
    pub breaks_ties: bool,
    /// The list takes an upper bound.
    pub takes_until: bool,
}

/// How the list of changed records is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Oldest change first: the cursor may move with each page.
    #[default]
    Ascending,
    /// Newest change first: the cursor may move only when the walk is complete.
    Descending,
    /// In no useful order: as descending.
    None,
}

/// How often to look. None: the engine's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    pub interval: Option<Duration>,
    pub full_scan_interval: Option<Duration>,
}

/// What a webhook's body is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookBody {
    /// The record is fetched before it is diffed.
    #[default]
    Hint,
    /// The webhook carries the record exactly as the list does; a test of the connector shows it.
    Complete,
}

impl Connector {
    /// The collection with that key.
    pub fn collection(&self, key: &str) -> Option<&Collection> {
        self.collections.iter().find(|c| c.key == key)
    }
}

/// Shared, since sessions outlive a reload.
pub type SharedConnector = Arc<Connector>;
