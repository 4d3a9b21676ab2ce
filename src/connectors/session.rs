//! A connector's calls with one connection's parameters and credentials.
//!
//! Always true: paths are relative to the connection's base URI, and no call leaves its origin. Not here: which call is
//! due (the watcher decides), how a record is diffed (`domain::snapshot`).

use std::sync::Arc;

use serde_json::value::RawValue;

use super::spec::{Collection, Connector};
use super::{
    AppRecord, CallError, Change, Credentials, GlobalHandled, Handled, Page, PageMark, Parameters, PullQuery, Selector,
    Subscribed, WebhookRequest,
};
use crate::domain::record::Unified;

/// A connector with one connection's parameters and credentials.
pub struct Session {
    connector: Arc<Connector>,
    parameters: Parameters,
}

fn later<T>() -> Result<T, CallError> {
    Err(CallError::NotSupported("not built yet".to_owned()))
}

#[expect(clippy::unused_async, clippy::unused_self, unused_variables, reason = "signatures first; bodies follow")]
impl Session {
    /// The connector behind it.
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }
    /// One page of the changed records. `mark`: where the page before said to go on.
    pub async fn pull_page(
        &self,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        later()
    }
    /// One page of a walk over all records.
    pub async fn scan_page(&self, c: &Collection, mark: Option<&PageMark>) -> Result<Page, CallError> {
        later()
    }
    /// One page of the app's own list of deleted records.
    pub async fn deleted_page(
        &self,
        c: &Collection,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        later()
    }
    /// One record. None: the app says that it is gone.
    pub async fn fetch(&self, c: &Collection, remote_id: &str) -> Result<Option<AppRecord>, CallError> {
        later()
    }
    /// The unified record. The error is one sentence.
    pub fn map(&self, c: &Collection, record: &AppRecord) -> Result<Unified, String> {
        Err(format!("{}: not built yet", c.key))
    }
    /// Registers the connection's own webhook. `secret` is a fresh random text for apps that take one.
    pub async fn subscribe(&self, webhook_uri: &str, secret: &str) -> Result<Subscribed, CallError> {
        later()
    }
    /// Renews the webhook; the state it had comes in, the new one goes out.
    pub async fn refresh_webhook(&self, webhook_uri: &str, state: &str) -> Result<Subscribed, CallError> {
        later()
    }
    /// Takes the webhook away at the app. One that is missing there counts as gone.
    pub async fn unsubscribe(&self, webhook_uri: &str, state: &str) -> Result<(), CallError> {
        later()
    }
    /// Understands a request to the connection's own webhook.
    pub async fn handle_webhook(&self, request: &WebhookRequest, state: Option<&str>) -> Result<Handled, CallError> {
        later()
    }
    /// What a connector event of a global webhook means for this connection: a change of a record, or None: the
    /// payload goes out unchanged on topic `<connector>/<event>`.
    pub async fn event_change(&self, event: &str, payload: &RawValue) -> Result<Option<Change>, CallError> {
        later()
    }
    /// Where the events of a connector event come from.
    pub async fn event_selector(&self, event: &str, parameters: &Parameters) -> Result<Selector, CallError> {
        later()
    }
    /// A fresh token. The caller stores what comes back, then calls [`Self::adopt`]; one refresh at a time.
    pub async fn refresh_credentials(&self) -> Result<Credentials, CallError> {
        later()
    }
    /// Uses these credentials from now on.
    pub fn adopt(&self, credentials: Credentials) {}
    /// What identifies the account at the app, for "the same account connected again".
    pub async fn account(&self) -> Result<Option<String>, CallError> {
        later()
    }
}

/// Understands a request to an integration's global webhook. There are no credentials here.
#[expect(clippy::unused_async, unused_variables, reason = "signatures first; bodies follow")]
pub async fn handle_global(
    connector: &Connector,
    webhook_key: &str,
    request: &WebhookRequest,
    parameters: &Parameters,
) -> Result<GlobalHandled, CallError> {
    later()
}
