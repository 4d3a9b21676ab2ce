//! A standing wish: topics, scope, one destination, and how to deliver.
//!
//! Always true: no secret is in this row; header values and signing secrets are encrypted beside it. Not here: which
//! events match (`actors::router` with `domain::topic`), the queue (`store::deliveries`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::destination::Shape;
use super::id::{ConnectionId, DestinationId, LaneNo, SubscriptionId, UserId, WorkspaceNo};
use super::secret::Secret;
use super::time::Millis;
pub use super::version::ApiVersion;

/// What a body carries beyond the contract's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Include {
    ChangedFields,
    Previous,
    Raw,
    Topic,
    EventId,
    Username,
}

impl Include {
    /// All of them, in the order in which a body carries them.
    pub const ALL: [Self; 6] =
        [Self::ChangedFields, Self::Previous, Self::Raw, Self::Topic, Self::EventId, Self::Username];
    /// The key in a body and the word in `include`.
    pub fn text(self) -> &'static str {
        match self {
            Self::ChangedFields => "changedFields",
            Self::Previous => "previous",
            Self::Raw => "raw",
            Self::Topic => "topic",
            Self::EventId => "eventId",
            Self::Username => "username",
        }
    }
}

/// What happens to events while the subscription is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhileDisabled {
    Hold,
    Drop,
}

/// Which signatures a delivery carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signing {
    pub rsa: bool,
    pub hmac: bool,
    pub ed25519: bool,
}

/// Why a subscription that is wanted does not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// Nothing stops it.
    No,
    /// Stopped by the engine: 410, or days of nothing but failures.
    Disabled { since: Millis, reason: String },
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub workspace: WorkspaceNo,
    pub lane: LaneNo,
    /// Exactly as it was given: it is part of what RSA signs. Where it writes into a destination: [`destination_address`].
    pub address: String,
    /// Topics and patterns, as given.
    pub topics: Vec<String>,
    /// The wish; `halt` and the queue say what follows from it.
    pub is_enabled: bool,
    pub halt: Halt,
    pub user: Option<UserId>,
    pub connection: Option<ConnectionId>,
    pub api_version: ApiVersion,
    pub description: String,
    /// Only these; empty: all.
    pub update_types: Vec<String>,
    pub include: Vec<Include>,
    pub while_disabled: WhileDisabled,
    pub expires_at: Option<Millis>,
    pub max_in_flight: u32,
    pub timeout_seconds: u32,
    /// Seconds to wait before each attempt; None: the default.
    pub retry_schedule: Option<Vec<u32>>,
    /// Names of the custom headers; their values are encrypted beside the row.
    pub header_names: Vec<String>,
    pub signing: Signing,
    /// Event log position from which on the subscription sees events.
    pub from: super::id::Seq,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// Events of one record arrive in order, one at a time.
    pub ordered: bool,
    /// Successive updates of a record that wait collapse into the newest.
    pub coalesce: bool,
    /// Deliveries in a thousand seconds at most.
    pub rate_milli: Option<u32>,
    /// A CEL expression over the event; only events for which it is true are delivered.
    pub filter: Option<String>,
    /// Set if it was made as a REST hook.
    pub hook: Option<Hook>,
    /// Where it writes, if that is no HTTP endpoint.
    pub destination: Option<DestinationId>,
    /// How it writes there.
    pub shape: Shape,
}

/// Stands for an address where a subscription writes into a destination.
pub fn destination_address(destination: DestinationId) -> String {
    format!("destination:{destination}")
}

/// What a subscription remembers of the call that made it as a REST hook: it is listed among the hooks, is told apart
/// by its update types too, and goes when its receiver answers 410.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The event as it was asked for: `contact.updated`.
    pub event: String,
}

/// What makes two subscriptions the same: each event would come twice. `hook_types` are the update types of a hook.
pub fn wish(
    address: &str,
    topics: &[String],
    user: Option<UserId>,
    connection: Option<ConnectionId>,
    hook_types: Option<&[String]>,
) -> String {
    let mut topics = topics.to_vec();
    topics.sort();
    topics.dedup();
    let mut text = format!("{address}\n{}\n{user:?}\n{connection:?}", topics.join(" "));
    if let Some(types) = hook_types {
        text.push_str(&format!("\nhook {}", types.join(" ")));
    }
    text
}

impl Subscription {
    /// Deliveries per second at most.
    pub fn per_second(&self) -> Option<f64> {
        self.rate_milli.map(|milli| f64::from(milli) / 1000.0)
    }

    /// What it has in common with no other one of its workspace.
    pub fn wish(&self) -> String {
        let hook_types = self.hook.as_ref().map(|_| self.update_types.as_slice());
        let mut text = wish(&self.address, &self.topics, self.user, self.connection, hook_types);
        // A log and a mirror of the same are two things.
        if matches!(self.shape, Shape::Mirror(_)) {
            text.push_str("\nmirror");
        }
        text
    }

    /// Whether deliveries may leave now.
    pub fn delivers(&self, now: Millis) -> bool {
        self.is_enabled && self.halt == Halt::No && self.expires_at.is_none_or(|at| now < at)
    }
}

/// The secrets that sign a subscription's deliveries, as they are stored, encrypted. All live ones sign.
#[derive(Clone, Serialize, Deserialize)]
pub struct SigningSecrets {
    /// Newest first.
    pub all: Vec<SigningSecret>,
}

/// One `whsec_…` secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct SigningSecret {
    pub text: String,
    /// Set on the old one after a rotation: it signs until then.
    pub until: Option<Millis>,
}

/// How deliveries prove themselves to the endpoint, as it is stored, encrypted.
#[derive(Clone, Serialize, Deserialize)]
pub enum EndpointAuth {
    Basic { username: String, password: String },
    Bearer { token: String },
}

impl EndpointAuth {
    /// The value of `Authorization`.
    pub fn header(&self) -> Secret {
        match self {
            Self::Basic { username, password } => {
                let plain = Zeroizing::new(format!("{username}:{password}"));
                Secret::new(format!("Basic {}", STANDARD.encode(plain.as_bytes())))
            }
            Self::Bearer { token } => Secret::new(format!("Bearer {token}")),
        }
    }
}

/// The custom headers of a subscription with their values, as they are stored, encrypted.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct HeaderValues {
    pub all: Vec<(String, String)>,
}
