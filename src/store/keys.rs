//! The bytes of every key: fixed width, big-endian, the owner first.
//!
//! Always true: third-party text is hashed, never put in a key; keys of one owner are one range. A test pins the bytes.

use aws_lc_rs::digest::{SHA256, digest};

use crate::domain::id::{ConnectionId, LaneNo, Seq, WorkspaceNo};
use crate::domain::time::Millis;

/// A key under construction.
#[derive(Clone, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// An empty key.
    pub fn new() -> Self {
        Self(Vec::with_capacity(40))
    }
    /// A key that begins with an owner's id.
    pub fn owner(id: &[u8; 12]) -> Self {
        Self::new().bytes(id)
    }
    /// A key that begins with a lane.
    pub fn lane(lane: LaneNo) -> Self {
        Self::new().u32(lane.0)
    }
    /// A key that begins with a workspace.
    pub fn workspace(no: WorkspaceNo) -> Self {
        Self::new().u32(no.0)
    }
    #[must_use]
    pub fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }
    #[must_use]
    pub fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }
    #[must_use]
    pub fn seq(mut self, seq: Seq) -> Self {
        self.0.extend_from_slice(&seq.0.to_be_bytes());
        self
    }
    #[must_use]
    pub fn time(mut self, at: Millis) -> Self {
        self.0.extend_from_slice(&at.0.to_be_bytes());
        self
    }
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    /// The first 16 bytes of the text's SHA-256.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        let hash = hash16(text.as_bytes());
        self.bytes(&hash)
    }
    /// The first key after all that begin with this one.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        while let Some(last) = self.0.pop() {
            if last < u8::MAX {
                self.0.push(last + 1);
                return self.0;
            }
        }
        // Nothing sorts after a key of nothing but 0xff; no owner's id is that.
        vec![u8::MAX; 64]
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The first 16 bytes of SHA-256.
pub fn hash16(bytes: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..16]);
    out
}

/// The 4 bytes that stand for a collection inside a connection's keys.
pub fn collection(key: &str) -> [u8; 4] {
    let hash = hash16(key.as_bytes());
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The state byte of a queue row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Queued {
    /// Never attempted: lane, 1, sequence.
    Fresh = 1,
    /// To be tried again: lane, 2, due time, sequence.
    Retry = 2,
    /// Ended undelivered: lane, 3, sequence.
    Dead = 3,
    /// Behind an older one of its record: lane, 4, record, sequence.
    Parked = 4,
    /// The live delivery that others of its record stand behind: lane, 5, record.
    Head = 5,
    /// The newest never-tried update of a record, into which the next one collapses: lane, 6, record.
    Newest = 6,
    /// What a delivery carries of those that collapsed into it: lane, 7, sequence.
    Merged = 7,
    /// Asked for again, whether or not it is still owed: lane, 8, sequence of the event, sequence.
    Resent = 8,
    /// Made by a replay and never attempted: lane, 9, sequence.
    Replay = 9,
    /// Made by a replay and owed, wherever it stands: lane, 10, sequence.
    Job = 10,
}

/// lane (4), state (1).
pub fn queue(lane: LaneNo, state: Queued) -> Key {
    Key::lane(lane).u8(state as u8)
}

/// lane (4), 2, due (8), sequence (8).
pub fn queue_retry(lane: LaneNo, due: Millis, seq: Seq) -> Key {
    queue(lane, Queued::Retry).time(due).seq(seq)
}

/// connection (12), collection (4), record (16).
pub fn snapshot(connection: ConnectionId, collection_key: &str, record: &[u8; 16]) -> Key {
    Key::owner(&connection.0).bytes(&collection(collection_key)).bytes(record)
}

/// The big-endian number at `at` of a key, if the key is that long.
pub fn number_at(key: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; 8] = key.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_every_key_kind_are_pinned() {
        let pins = [
            (queue(LaneNo(1), Queued::Fresh).seq(Seq(2)), "00000001010000000000000002"),
            (queue_retry(LaneNo(1), Millis(3), Seq(2)), "000000010200000000000000030000000000000002"),
            (queue(LaneNo(1), Queued::Dead).seq(Seq(2)), "00000001030000000000000002"),
            (
                queue(LaneNo(1), Queued::Parked).bytes(&[7; 16]).seq(Seq(2)),
                "0000000104070707070707070707070707070707070000000000000002",
            ),
            (queue(LaneNo(1), Queued::Head).bytes(&[7; 16]), "000000010507070707070707070707070707070707"),
            (queue(LaneNo(1), Queued::Newest).bytes(&[7; 16]), "000000010607070707070707070707070707070707"),
            (queue(LaneNo(1), Queued::Merged).seq(Seq(2)), "00000001070000000000000002"),
            (queue(LaneNo(1), Queued::Resent).seq(Seq(2)).seq(Seq(3)), "000000010800000000000000020000000000000003"),
            (queue(LaneNo(1), Queued::Replay).seq(Seq(2)), "00000001090000000000000002"),
            (queue(LaneNo(1), Queued::Job).seq(Seq(2)), "000000010a0000000000000002"),
            (Key::lane(LaneNo(1)).seq(Seq(2)), "000000010000000000000002"),
            (Key::lane(LaneNo(1)).seq(Seq(2)).u8(3), "00000001000000000000000203"),
            (Key::workspace(WorkspaceNo(9)).seq(Seq(2)), "000000090000000000000002"),
            (
                snapshot(ConnectionId([0xab; 12]), "contacts", &[1; 16]),
                "ababababababababababababaa5af40801010101010101010101010101010101",
            ),
        ];
        for (key, hex) in pins {
            assert_eq!(hex::encode(key.as_ref()), hex);
        }
    }

    #[test]
    fn a_range_ends_after_its_last_key() {
        assert_eq!(Key::new().u8(1).u8(0xff).end(), vec![2]);
        assert!(Key::lane(LaneNo(7)).end().as_slice() > Key::lane(LaneNo(7)).u8(0xff).as_ref());
    }
}
