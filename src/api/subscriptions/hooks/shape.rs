//! What calls about hooks take and give, in the words of REST hooks.
//!
//! Always true: the secret is shown by the call that makes the hook, and by no other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::shape::status;
use crate::domain::secret::Secret;
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Rows;

/// The body of `POST /hooks`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewHook {
    /// Where events are sent: an absolute URL of this hook's own.
    #[serde(rename = "target_url")]
    pub(super) target_url: String,
    /// A topic or pattern (`crm/contacts`, `crm/*`), `crm.contacts.updated`, or a short form (`contact.updated`).
    pub(super) event: String,
    /// Whose events: id or username. A key bound to a user needs none; without any it is everybody's.
    #[serde(default)]
    pub(super) user_id: Option<String>,
    /// Asks the target first: it must answer 2xx and send the header `X-Hook-Secret` back.
    #[serde(default)]
    pub(super) handshake: bool,
    /// RFC 3339; it stops delivering then. Asking again renews it.
    #[serde(default)]
    pub(super) expires_at: Option<String>,
}

/// A hook.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HookView {
    /// The same id as the subscription's.
    id: String,
    #[serde(rename = "target_url")]
    target_url: String,
    /// As it was asked for.
    event: String,
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Whether events are delivered, or waited for.
    active: bool,
    /// `active`, `retrying`, `paused` or `disabled`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<String>,
    api_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// The same under the name that Zapier reads.
    #[serde(rename = "expiration_date", skip_serializing_if = "Option::is_none")]
    expiration_date: Option<String>,
    created_at: String,
    /// Signs deliveries: `whsec_…`. Shown by the call that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Hooks {
    pub(super) hooks: Vec<HookView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl HookView {
    /// A hook as it is now.
    pub(super) fn of(rows: &Rows, of: &Subscription, secret: Option<&Secret>, now: Millis) -> Result<Self> {
        let (status, status_reason) = status(rows, of, now)?;
        let user = of.user.map(|id| rows.user_by_id(of.workspace, id)).transpose()?.flatten();
        let expires_at = of.expires_at.map(Millis::rfc3339_millis);
        Ok(Self {
            id: of.id.to_string(),
            target_url: of.address.clone(),
            event: of.hook.as_ref().map(|hook| hook.event.clone()).unwrap_or_default(),
            topic: of.topics.join(","),
            update_type: (!of.update_types.is_empty()).then(|| of.update_types.join(",")),
            user_id: of.user.map(|id| id.to_string()),
            username: user.map(|user| user.username),
            active: of.delivers(now),
            status,
            status_reason,
            api_version: of.api_version.as_str(),
            expiration_date: expires_at.clone(),
            expires_at,
            created_at: of.created_at.rfc3339_millis(),
            secret: secret.map(|secret| secret.expose().to_owned()),
        })
    }
}
