//! What a sighting of a record means, given what was seen before: created, updated, deleted, or nothing.
//!
//! Always true:
//! - the higher [`Version`] wins, whatever order sightings come in; a lower one is dropped;
//! - an event is told only of a change that a receiver can see (the unified hashes differ), or, as [`Change::RawOnly`], of
//!   a change of the app's own record;
//! - `created` and `deleted` of a record take turns.
//!
//! Not here: fetching and mapping (`connectors`), windows and cursors (`pull`), storing the row and appending the event
//! (`actors::watcher`), which deletions of a scan are believed ([`guard()`]).

mod decide;
mod diff;
mod guard;
mod hash;
mod hashed;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::event::Payload;
use super::id::Seq;
use super::time::Millis;
pub use decide::{Baseline, Change, Context, Gone, Silence, decide, decide_gone, unmapped};
pub use diff::{PATHS_MAX, diff};
pub use guard::{Hold, Verdict, guard};
pub use hash::{Hash, IgnoredFields, raw_hash, unified_hash};
pub use hashed::Hashed;

/// How long a deleted record's row is kept, so that a late older version does not bring it back: 30 days.
pub const TOMBSTONE_MILLIS: u64 = 30 * 24 * 3_600_000;

/// Which of two sightings of a record is the later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The app's own time of the change, if it has one.
    pub remote_updated_at: Option<Millis>,
    /// When the request that brought it was sent, or the webhook received.
    pub observed_at: Millis,
}

impl Version {
    /// Whether this sighting may replace `other`: the app's time decides where both have one, then the time of observation;
    /// at equal times the one that is judged later wins.
    pub fn replaces(self, other: Self) -> bool {
        match (self.remote_updated_at, other.remote_updated_at) {
            (Some(mine), Some(theirs)) if mine != theirs => mine > theirs,
            _ => self.observed_at >= other.observed_at,
        }
    }
    /// This version, after `other`: a sighting that does not tell the app's time leaves the known one.
    fn over(self, other: Self) -> Self {
        let remote_updated_at = self.remote_updated_at.or(other.remote_updated_at);
        Self { remote_updated_at, ..self }
    }
}

/// The last seen state of one record, as it is stored. The key is (connection, record id).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    pub remote_id: String,
    /// Of the app's own record, salted with `mapped_by`: equal means that mapping it again is of no use.
    pub raw_hash: Hash,
    /// The version of the mapping that made `fields`.
    pub mapped_by: [u8; 16],
    /// Of `fields`, without the ignored ones.
    pub unified_hash: Hash,
    pub version: Version,
    pub remote_created_at: Option<Millis>,
    /// The unified fields as JSON object text, in model order. Of a deleted record, the last known ones.
    pub fields: String,
    /// When the node first saw it (again, after a deletion).
    pub created_at: Millis,
    /// When the node last wrote anything of it that a receiver can see.
    pub updated_at: Millis,
    /// Set on a tombstone: when the node learned that the record is gone.
    pub deleted_at: Option<Millis>,
    /// Its last event, if there was one.
    pub last_event: Option<Seq>,
}

impl SnapshotRow {
    /// Is the record there, as far as we know?
    pub fn is_live(&self) -> bool {
        self.deleted_at.is_none()
    }
    /// What is left of it when it is erased: its id, and that it is gone. Whatever was seen of it before counts no more;
    /// only what the app shows from now on makes it a record again.
    #[must_use]
    pub fn erased(&self, now: Millis) -> Self {
        Self::erased_unseen(self.remote_id.clone(), now)
    }
    /// The same of a record that was never seen.
    pub fn erased_unseen(remote_id: String, now: Millis) -> Self {
        let version = Version { remote_updated_at: None, observed_at: now };
        Self {
            remote_id,
            raw_hash: Hash::default(),
            mapped_by: [0; 16],
            unified_hash: Hash::default(),
            version,
            remote_created_at: None,
            fields: "{}".to_owned(),
            created_at: now,
            updated_at: now,
            deleted_at: Some(now),
            last_event: None,
        }
    }
    /// Whether nothing more could be erased of it.
    pub fn is_erased(&self) -> bool {
        let is_blank = self.fields == "{}" && self.mapped_by == [0; 16] && self.raw_hash == Hash::default();
        is_blank && !self.is_live()
    }
    /// Whether this is a tombstone that may be forgotten.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.deleted_at.is_some_and(|at| now.0.saturating_sub(at.0) > TOMBSTONE_MILLIS)
    }
    /// What an event of this record carries. `id` is [`record_id`](super::record::record_id).
    pub fn payload(&self, id: Uuid) -> Payload {
        Payload::Record {
            id: id.into_bytes(),
            remote_id: self.remote_id.clone(),
            remote_created_at: self.remote_created_at,
            remote_updated_at: self.version.remote_updated_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
            deleted: !self.is_live(),
            fields: self.fields.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(remote: Option<u64>, observed: u64) -> Version {
        Version { remote_updated_at: remote.map(Millis), observed_at: Millis(observed) }
    }

    #[test]
    fn the_apps_time_decides_then_the_observation_then_the_order() {
        assert!(version(Some(2), 1).replaces(version(Some(1), 9)));
        assert!(!version(Some(1), 9).replaces(version(Some(2), 1)));
        assert!(version(Some(1), 2).replaces(version(Some(1), 1)));
        assert!(!version(Some(1), 1).replaces(version(Some(1), 2)));
        assert!(version(Some(1), 1).replaces(version(Some(1), 1)));
        assert!(!version(None, 1).replaces(version(Some(1), 2)));
        assert!(version(None, 2).replaces(version(Some(9), 1)));
    }

    #[test]
    fn a_row_reads_back_as_it_was_stored() {
        let row = SnapshotRow {
            remote_id: "42".into(),
            raw_hash: [1; 16],
            mapped_by: [2; 16],
            unified_hash: [3; 16],
            version: version(Some(5), 6),
            remote_created_at: None,
            fields: r#"{"amount":4.950}"#.into(),
            created_at: Millis(7),
            updated_at: Millis(8),
            deleted_at: Some(Millis(9)),
            last_event: Some(Seq(10)),
        };
        let bytes = postcard::to_stdvec(&row).unwrap();
        assert_eq!(postcard::from_bytes::<SnapshotRow>(&bytes).unwrap(), row);
    }

    #[test]
    fn a_tombstone_is_kept_for_thirty_days() {
        let mut row = decide::tests::live_row("{}");
        assert!(!row.is_expired(Millis(u64::MAX)));
        row.deleted_at = Some(Millis(1000));
        assert!(!row.is_expired(Millis(1000 + TOMBSTONE_MILLIS)));
        assert!(row.is_expired(Millis(1001 + TOMBSTONE_MILLIS)));
    }
}
