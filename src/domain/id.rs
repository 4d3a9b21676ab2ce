//! Identifiers: 24 lower-case hex characters outside, 12 bytes inside, sortable by creation.
//!
//! Always true: bytes compare as the hex does; an id decodes to the key of its row, so nothing is looked up to find one.
//! Not here: how an id is drawn (`store` owns the counters).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of a workspace inside keys; 0 is the `default` workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkspaceNo(pub u32);

impl WorkspaceNo {
    /// The workspace that is always there.
    pub const DEFAULT: Self = Self(0);
}

/// The number of a subscription's lane inside keys; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaneNo(pub u32);

/// A position in the node's one log. Events, inbox rows, resends and replays draw from the same sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The text is not 24 lower-case hex characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 24 lower-case hexadecimal characters")]
pub struct NotAnId;

fn parse(text: &str) -> Result<[u8; 12], NotAnId> {
    let mut bytes = [0; 12];
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(NotAnId);
    }
    hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAnId)?;
    Ok(bytes)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 12]);

        impl $name {
            /// The key bytes.
            pub fn as_bytes(&self) -> &[u8; 12] {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse(text).map(Self)
            }
        }
    )*};
}

ids! {
    /// The ISV's customer.
    UserId,
    /// One user's authorised account at one app.
    ConnectionId,
    /// A connector set up in a workspace.
    IntegrationId,
    /// A standing wish: topics, filter, one destination.
    SubscriptionId,
    /// An API key (not its secret).
    KeyId,
    /// A workspace as the operator sees it.
    WorkspaceId,
    /// A stored event: log sequence (8 bytes) and workspace number (4).
    EventId,
    /// One event owed to one subscription: log sequence (8 bytes) and lane number (4).
    DeliveryId,
    /// A stored raw webhook: log sequence (8 bytes) and 4 bytes of its owner's id, for reading only.
    InboxId,
    /// One look at an app.
    PullId,
    /// A job that makes many deliveries again: log sequence (8 bytes) and lane number (4).
    ReplayId,
    /// A job that erases.
    ErasureId,
    /// An entry of the audit log.
    AuditId,
    /// A database, warehouse, object store or queue.
    DestinationId,
}

fn join(seq: Seq, number: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&seq.0.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn split(bytes: &[u8; 12]) -> (Seq, u32) {
    let (seq, number) = bytes.split_at(8);
    let seq = seq.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let number = number.iter().fold(0, |n, b| n << 8 | u32::from(*b));
    (Seq(seq), number)
}

impl EventId {
    /// The id of the event at `seq`.
    pub fn new(seq: Seq, workspace: WorkspaceNo) -> Self {
        Self(join(seq, workspace.0))
    }
    /// Where the event stands in the log, and whose it is.
    pub fn parts(&self) -> (Seq, WorkspaceNo) {
        let (seq, number) = split(&self.0);
        (seq, WorkspaceNo(number))
    }
}

impl DeliveryId {
    /// The id of the delivery at `seq` in `lane`.
    pub fn new(seq: Seq, lane: LaneNo) -> Self {
        Self(join(seq, lane.0))
    }
    /// The delivery's sequence and lane.
    pub fn parts(&self) -> (Seq, LaneNo) {
        let (seq, number) = split(&self.0);
        (seq, LaneNo(number))
    }
}

impl ReplayId {
    /// The id of the replay at `seq` in `lane`.
    pub fn new(seq: Seq, lane: LaneNo) -> Self {
        Self(join(seq, lane.0))
    }
    /// The replay's sequence and lane.
    pub fn parts(&self) -> (Seq, LaneNo) {
        let (seq, number) = split(&self.0);
        (seq, LaneNo(number))
    }
}

/// The bytes of a fresh id: creation time in milliseconds (6 bytes), then the node's own counter (6 bytes), so that ids
/// drawn in the same millisecond sort as they were drawn.
pub fn fresh(now: super::time::Millis, counter: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&counter.to_be_bytes()[2..]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_decode_to_their_keys() {
        let id = EventId::new(Seq(0x0102), WorkspaceNo(7));
        assert_eq!(id.to_string(), "000000000000010200000007");
        assert_eq!(id.parts(), (Seq(0x0102), WorkspaceNo(7)));
        assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        assert_eq!("00000000000001020000000G".parse::<EventId>(), Err(NotAnId));
        assert_eq!("0000000000000102000000AA".parse::<EventId>(), Err(NotAnId));
    }
}
