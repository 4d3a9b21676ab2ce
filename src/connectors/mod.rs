//! Connectors: folders of YAML and JavaScript that know one third-party app each, turned into typed calls.
//!
//! Always true: a third party's failure is a [`CallError`] value, never an error of ours; a credential goes only to the
//! host it was issued for; every call has a deadline and a limit on what it reads. Not here: windows, ties, lookback,
//! splitting, the snapshot, the delete scan, back-off (`domain::pull` and the watcher own them: a connector only declares
//! and fetches pages); what is stored (a watcher joins a connector with the store).

mod absent;
mod across;
mod api;
mod auth;
mod auth_checks;
mod auth_files;
mod authorize;
mod budget;
mod budgets;
mod bulk;
mod caller;
mod calls;
mod compare;
mod compile;
mod compile_parts;
mod credentials;
mod doors;
mod each;
mod exchange;
mod fetch;
mod fields;
mod fields_rest;
mod files;
mod filled;
mod folder;
mod forward;
mod graphql;
mod habits;
mod handshake;
mod hooks;
mod instructions;
mod join;
mod joined;
pub mod journal;
mod jwt;
mod lacks;
mod lists;
mod locator;
mod made;
pub mod mapping;
mod oauth1;
mod pages;
mod paging;
mod pick;
mod queries;
mod record;
mod recording;
mod redact;
mod redirect;
mod refresh;
mod registry;
mod rest;
mod scaffold;
mod schema;
pub mod schemas;
pub mod script;
mod session;
pub mod spec;
mod subscriptions;
mod template;
mod testing;
pub mod trial;
mod typed;
mod unwind;
mod values;
mod verdict;
pub mod verify;
mod webhook;
mod yaml;
mod yaml_text;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::domain::time::Millis;

pub use absent::Absent;
pub use authorize::{Code, Consent, Granted, exchange};
pub use budget::Budget;
pub use bulk::{BulkFile, BulkPiece, BulkProgress, BulkStart};
pub use calls::CallError;
pub use credentials::{Credentials, Token};
pub use doors::Door;
pub use each::Part;
pub use exchange::{Exchange, Tap};
pub use folder::SpecError;
pub use forward::{Forward, Forwarded};
pub use handshake::Handshake;
pub use instructions::Instructions;
pub use journal::{Journal, JournalEntry, JournalStep};
pub use recording::{HEADER as RECORDED, Notebook, Scrub, Take, file as recorded_file};
pub use redact::redact;
pub use registry::Registry;
pub use scaffold::scaffold;
pub use schema::{GivenBy, Kind, Property, Schema};
pub use session::Session;
pub use spec::{Collection, Connector, ConnectorEvent, Detection, GlobalWebhook, OwnWebhook};
pub use testing::{Report, TestFailure, run_tests};
pub use webhook::{Of, handle_global, handle_own};

/// The section `connectors` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// A folder whose sub-folders add connectors or replace built-in ones.
    #[serde(deserialize_with = "crate::domain::setting::optional")]
    pub path: Option<PathBuf>,
    /// The longest one call of an app may take, its body included.
    pub call_timeout_seconds: std::num::NonZeroU32,
    /// The most that is read of one answer of an app.
    pub answer_bytes_max: std::num::NonZeroUsize,
}

/// What is asked of an app's list of changed records. The engine chooses the bounds; both are inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullQuery {
    /// Records changed at or after this time; with the id of the last record seen at that time, where the app can
    /// break ties itself.
    pub since: Option<(Millis, Option<String>)>,
    /// Records changed at or before this time.
    pub until: Option<Millis>,
}

/// Where a walk over pages goes on. The text means something to the connector only; it can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageMark(pub String);

/// One page of an app's list.
#[derive(Debug, Default)]
pub struct Page {
    /// In the app's order. Null items are left out.
    pub records: Vec<AppRecord>,
    /// None: this was the last page.
    pub next: Option<PageMark>,
    /// How many records the whole list has, where the app says so.
    pub total: Option<u64>,
    /// The records hold their ids and perhaps times, but not the rest: they can be counted and compared, not mapped.
    pub ids_only: bool,
    /// How far back a list of deleted records goes, where the app says so.
    pub earliest: Option<Millis>,
    /// The records are only part of what a fetch gives: what is mapped must be fetched.
    pub partial: bool,
    /// What the list itself showed, where the records are parts of its items: a walk goes by this.
    pub places: Option<Vec<Place>>,
}

/// One item of a list whose records are inside its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: String,
    pub updated_at: Option<Millis>,
}

/// One record as the app gave it.
#[derive(Clone, Debug)]
pub struct AppRecord {
    /// The app's id, always text.
    pub remote_id: String,
    /// The app's own JSON, byte for byte.
    pub raw: Box<RawValue>,
    pub created_at: Option<Millis>,
    pub updated_at: Option<Millis>,
    /// The app says that it is deleted (archived, in the bin).
    pub deleted: bool,
}

/// A request that came in at `/in/…`.
#[derive(Clone, Debug)]
pub struct WebhookRequest {
    /// Upper-case.
    pub method: String,
    /// The public URL as the app called it, query included: some apps sign it.
    pub url: String,
    /// Decoded pairs, in order.
    pub query: Vec<(String, String)>,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Exactly as it came.
    pub body: Bytes,
    pub received_at: Millis,
}

/// What a webhook's answer to the app is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What kind of change an app tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Created,
    Updated,
    Deleted,
    /// A person's data must be erased: gone, and nothing of it may be kept.
    Erased,
    /// It changed, the app does not say how: the record must be fetched.
    Changed,
}

/// One change of one record that a webhook tells of. A hint, unless the collection's webhook body is complete.
#[derive(Clone, Debug)]
pub struct Change {
    /// The collection's key.
    pub collection: String,
    pub kind: ChangeKind,
    pub remote_id: String,
    /// The record, where the webhook carries it.
    pub record: Option<AppRecord>,
}

/// The collection of an `erased` that is about everything of the connection.
pub const EVERYTHING: &str = "*";

impl Change {
    /// All of the connection is to be erased.
    fn everything() -> Self {
        Self { collection: EVERYTHING.to_owned(), kind: ChangeKind::Erased, remote_id: String::new(), record: None }
    }
    /// Whether it is about everything of the connection.
    pub fn is_everything(&self) -> bool {
        self.collection == EVERYTHING
    }
}

/// What a connection's own webhook was understood as.
#[derive(Clone, Debug, Default)]
pub struct Handled {
    pub changes: Vec<Change>,
    /// What the app gets, where the connector says so.
    pub response: Option<WebhookResponse>,
    /// The webhook's new state (JSON text), where it changed.
    pub state: Option<String>,
    /// What scripts printed.
    pub log: Vec<String>,
}

/// One event of a global webhook, not yet matched to connections.
#[derive(Clone, Debug)]
pub struct GlobalEvent {
    pub payload: Box<RawValue>,
    pub selector: String,
}

/// What a global webhook was understood as.
#[derive(Clone, Debug, Default)]
pub struct GlobalHandled {
    pub events: Vec<GlobalEvent>,
    pub response: Option<WebhookResponse>,
    pub log: Vec<String>,
}

/// Where the events of a connector event come from, for one connection: both must be equal, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    pub webhook_key: String,
    pub selector: String,
}

/// A webhook that was registered at an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// What `handle`, `refresh` and `unsubscribe` are given again, as JSON text; may hold a secret.
    pub state: String,
    /// When it must be renewed, at the latest.
    pub refresh_at: Option<Millis>,
}

/// JSON objects as parameters come in and go to scripts.
pub type Parameters = Map<String, Value>;

/// Durations of specs as they are written: `90s`, `5m`, `12h`, `2d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let seconds = match &text[digits.len()..] {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}
