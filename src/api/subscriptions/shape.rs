//! What calls about subscriptions take and give.
//!
//! Always true: a header's value and a secret go in and never come out again, except for a secret in the answer of the
//! call that made it. Not here: what is allowed (`check`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{self, AuthView, AuthWish};
use super::target::{self, BackfillView, DeletesWord, ShapeWord};
use crate::api::{body, destinations};
use crate::domain::delivery::AttemptError;
use crate::domain::subscription::{Halt, Include, Subscription, WhileDisabled};
use crate::domain::time::Millis;
use crate::domain::version::ApiVersion;
use crate::error::Result;
use crate::store::{Low, Rows};

/// Stands for a header's value in answers.
pub(super) const MASK: &str = "***";

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty,)*) => {
        /// The body of `POST`.
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        pub(super) struct NewSubscription {
            /// Where events are sent: an absolute URL. It is signed exactly as it stands here. This or `destinationId`.
            #[serde(default)]
            pub(super) address: Option<String>,
            /// True: begin with the records that are there now, then go on with changes. Only with `destinationId`.
            #[serde(default)]
            pub(super) backfill: bool,
            /// Topics (`crm/contacts`) and patterns (`crm/*`, `*`). `*` leaves system topics out.
            pub(super) topic: Vec<String>,
            $($(#[doc = $doc])*
            #[serde(default, deserialize_with = "body::present")]
            $name: Option<Option<$type>>,)*
        }

        /// The body of `PATCH`: what is left out stays, what is null goes back to its default.
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        pub(super) struct ChangedSubscription {
            /// Where events are sent.
            #[serde(default)]
            pub(super) address: Option<String>,
            /// Topics and patterns.
            #[serde(default)]
            pub(super) topic: Option<Vec<String>>,
            $($(#[doc = $doc])*
            #[serde(default, deserialize_with = "body::present")]
            $name: Option<Option<$type>>,)*
        }

        /// What can be set beside address and topics. The outer None: left out; the inner: null.
        pub(super) struct Settings { $(pub(super) $name: Option<Option<$type>>,)* }

        impl NewSubscription {
            pub(super) fn split(self) -> (Option<String>, Vec<String>, Settings) {
                (self.address, self.topic, Settings { $($name: self.$name,)* })
            }
        }
        impl ChangedSubscription {
            pub(super) fn split(self) -> (Option<String>, Option<Vec<String>>, Settings) {
                (self.address, self.topic, Settings { $($name: self.$name,)* })
            }
        }
    };
}

settings! {
    /// Where events are written: a destination, in place of an address.
    destination_id: String,
    /// How they are written there: `append` (a log, one row per event) or `mirror` (a table per topic that equals the
    /// app's records).
    shape: ShapeWord,
    /// Of a mirror: whether the row of a deleted record is marked or removed.
    deletes: DeletesWord,
    /// The wish to deliver; true if left out. Setting it also ends a halt of the engine (410, days of failures).
    is_enabled: bool,
    /// Only this user's events: id or username.
    user_id: String,
    /// Only this connection's events.
    connection_id: String,
    /// Shape of the bodies; the version in the path of this call if left out.
    api_version: ApiVersionWord,
    /// For people; up to 1,000 bytes.
    description: String,
    /// Only these: `created`, `updated`, `deleted`, or verbs of system topics. All if left out.
    update_type: Vec<String>,
    /// A CEL expression over the event (docs/api.md): only events for which it is true are delivered.
    filter: String,
    /// What bodies carry beside their usual keys. With a destination `topic`, `eventId` and `username` if left out.
    include: Vec<IncludeWord>,
    /// What happens to events while it is off: `hold` keeps them for later.
    while_disabled: WhileDisabledWord,
    /// RFC 3339; it stops delivering then.
    expires_at: String,
    /// `record`: events of one record arrive in order, one at a time; other records flow past.
    ordering: OrderingWord,
    /// True: while deliveries wait, successive never-attempted updates of a record collapse into the newest.
    coalesce: bool,
    /// Attempts at the same time, at most. For addresses alone.
    max_in_flight: u32,
    /// Deliveries per second, at most: 0.001 to 10,000.
    rate_per_second: f64,
    /// For the whole exchange of one attempt: 1 to 60. For addresses alone.
    timeout_seconds: u32,
    /// Seconds to wait before each attempt; as many attempts as entries.
    retry_schedule: Vec<u32>,
    /// Sent with each delivery. Values are never shown again; null takes a header away.
    headers: BTreeMap<String, Option<String>>,
    /// What to send as `Authorization` with each delivery; null takes it away.
    auth: AuthWish,
    /// Which signatures deliveries carry.
    signing: SigningWish,
}

macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident of $domain:ident { $($variant:ident),* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub(super) enum $name { $($variant),* }
        impl From<$name> for $domain {
            fn from(word: $name) -> Self { match word { $($name::$variant => Self::$variant),* } }
        }
        impl From<$domain> for $name {
            fn from(of: $domain) -> Self { match of { $($domain::$variant => Self::$variant),* } }
        }
    )*};
}

words! {
    /// A word of `include`.
    IncludeWord of Include { ChangedFields, Previous, Raw, Topic, EventId, Username }
    /// What happens to events while a subscription is off.
    WhileDisabledWord of WhileDisabled { Hold, Drop }
}

/// A version of the API.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
pub(super) enum ApiVersionWord {
    #[serde(rename = "2023-12")]
    V2023_12,
    #[serde(rename = "2024-03")]
    V2024_03,
}

impl From<ApiVersionWord> for ApiVersion {
    fn from(word: ApiVersionWord) -> Self {
        match word {
            ApiVersionWord::V2023_12 => Self::V2023_12,
            ApiVersionWord::V2024_03 => Self::V2024_03,
        }
    }
}

/// Whether events of one record arrive in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum OrderingWord {
    None,
    Record,
}

/// Which signatures to carry; what is left out stays.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SigningWish {
    /// `x-alloy-signature`.
    #[serde(default)]
    pub(super) rsa: Option<bool>,
    /// `v1` of `webhook-signature`.
    #[serde(default)]
    pub(super) hmac: Option<bool>,
    /// `v1a` of `webhook-signature`.
    #[serde(default)]
    pub(super) ed25519: Option<bool>,
}

/// Which signatures deliveries carry.
#[derive(Serialize, JsonSchema)]
struct SigningView {
    rsa: bool,
    hmac: bool,
    ed25519: bool,
}

/// What a subscription is owed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct QueueView {
    pending: u64,
    oldest_pending_at: Option<String>,
    dead: u64,
}

/// A subscription.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SubscriptionView {
    subscription_id: String,
    /// Absent if it writes into a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<ShapeWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletes: Option<DeletesWord>,
    /// Present if it began with the records that were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backfill: Option<BackfillView>,
    topic: Vec<String>,
    is_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    api_version: &'static str,
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    update_type: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    include: Vec<IncludeWord>,
    while_disabled: WhileDisabledWord,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    ordering: OrderingWord,
    coalesce: bool,
    /// Absent, as `timeoutSeconds`, `headers` and `signing` are, if it writes into a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_schedule: Option<Vec<u32>>,
    /// Names of the headers; their values are masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, &'static str>>,
    /// How deliveries prove themselves to the endpoint; masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth: Option<AuthView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing: Option<SigningView>,
    /// `active`, `retrying`, `paused` or `disabled`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<String>,
    queue: QueueView,
    created_at: String,
    updated_at: String,
    /// The event it was asked for, if it was made as a REST hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_event: Option<String>,
    /// Signs deliveries: `whsec_…`. Shown by the call that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct OneSubscription {
    pub(super) subscription: SubscriptionView,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Subscriptions {
    pub(super) subscriptions: Vec<SubscriptionView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A subscription as it is now, with its queue.
pub(super) fn view(rows: &Rows, of: &Subscription, now: Millis) -> Result<SubscriptionView> {
    let counts = rows.lane_counts(of.lane)?;
    let (status, status_reason) = status(rows, of, now)?;
    let pending = counts.pending;
    let (shape, deletes) = target::words(of);
    let is_http = of.destination.is_none();
    let oldest = if pending == 0 { None } else { rows.oldest_pending(of.lane, &Low::default())? };
    Ok(SubscriptionView {
        subscription_id: of.id.to_string(),
        address: is_http.then(|| of.address.clone()),
        destination_id: of.destination.map(|id| id.to_string()),
        shape,
        deletes,
        backfill: rows.backfill(of.lane)?.map(Into::into),
        topic: of.topics.clone(),
        is_enabled: of.is_enabled,
        user_id: of.user.map(|id| id.to_string()),
        connection_id: of.connection.map(|id| id.to_string()),
        api_version: of.api_version.as_str(),
        description: of.description.clone(),
        update_type: of.update_types.clone(),
        filter: of.filter.clone(),
        include: of.include.iter().map(|include| (*include).into()).collect(),
        while_disabled: of.while_disabled.into(),
        expires_at: of.expires_at.map(Millis::rfc3339_millis),
        ordering: if of.ordered { OrderingWord::Record } else { OrderingWord::None },
        coalesce: of.coalesce,
        max_in_flight: is_http.then_some(of.max_in_flight),
        rate_per_second: of.per_second(),
        timeout_seconds: is_http.then_some(of.timeout_seconds),
        retry_schedule: of.retry_schedule.clone(),
        headers: is_http.then(|| of.header_names.iter().map(|name| (name.clone(), MASK)).collect()),
        auth: auth::stored(rows, of.id)?.as_ref().map(AuthView::of),
        signing: is_http.then_some(SigningView {
            rsa: of.signing.rsa,
            hmac: of.signing.hmac,
            ed25519: of.signing.ed25519,
        }),
        status,
        status_reason,
        queue: QueueView { pending, oldest_pending_at: oldest.map(Millis::rfc3339_millis), dead: counts.dead },
        created_at: of.created_at.rfc3339_millis(),
        updated_at: of.updated_at.rfc3339_millis(),
        hook_event: of.hook.as_ref().map(|hook| hook.event.clone()),
        secret: None,
    })
}

/// What follows from the wish, the halt and the queue.
pub(in crate::api) fn status(rows: &Rows, of: &Subscription, now: Millis) -> Result<(&'static str, Option<String>)> {
    status_from(rows, of, &Low::default(), now)
}

/// The same, where it is known where the queue begins.
pub(in crate::api) fn status_from(
    rows: &Rows,
    of: &Subscription,
    low: &Low,
    now: Millis,
) -> Result<(&'static str, Option<String>)> {
    if let Halt::Disabled { reason, .. } = &of.halt {
        return Ok(("disabled", Some(reason.clone())));
    }
    if of.expires_at.is_some_and(|at| at <= now) {
        return Ok(("disabled", Some("it has expired".to_owned())));
    }
    if !of.is_enabled {
        return Ok(("paused", Some("it was switched off".to_owned())));
    }
    if let Some(id) = of.destination
        && let Some(paused) = rows.destination(of.workspace, id)?.as_ref().and_then(destinations::paused)
    {
        return Ok(("paused", Some(paused)));
    }
    let Some(due) = rows.retry_deliveries_from(of.lane, low.retry, 1)?.pop() else { return Ok(("active", None)) };
    let row = rows.delivery(of.lane, due.seq)?;
    let error = row.and_then(|row| row.attempts.last().and_then(|attempt| attempt.error));
    Ok(("retrying", error.map(|error: AttemptError| error.sentence().to_owned())))
}
