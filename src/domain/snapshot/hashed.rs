//! A record that was mapped and hashed before it is laid beside its row, so that this can be done on another core.
//!
//! Always true: nothing of it depends on the row, or on the time. Not here: what follows from it (`decide`).

use super::hash::{Hash, IgnoredFields, unified_hash};
use super::{SnapshotRow, Version};
use crate::domain::record::Unified;
use crate::domain::time::Millis;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    pub remote_id: String,
    pub remote_created_at: Option<Millis>,
    pub remote_updated_at: Option<Millis>,
    /// Of the app's own record, salted with `mapped_by`.
    pub raw_hash: Hash,
    /// The version of the mapping.
    pub mapped_by: [u8; 16],
    /// Of the unified fields, without the ignored ones.
    pub unified_hash: Hash,
    /// The unified fields as JSON object text.
    pub fields: String,
}

impl Hashed {
    /// Hashes a record that this version of the mapping made.
    pub fn new(raw_hash: Hash, mapping: &[u8; 16], unified: Unified<'_>, ignored: &IgnoredFields) -> Self {
        Self {
            remote_id: unified.remote_id,
            remote_created_at: unified.remote_created_at,
            remote_updated_at: unified.remote_updated_at,
            raw_hash,
            mapped_by: *mapping,
            unified_hash: unified_hash(&unified.fields, ignored),
            fields: unified.fields.to_text(),
        }
    }

    /// The row of a record that is there for the first time, or again.
    pub(super) fn first(self, version: Version, now: Millis) -> SnapshotRow {
        SnapshotRow {
            remote_id: self.remote_id,
            raw_hash: self.raw_hash,
            mapped_by: self.mapped_by,
            unified_hash: self.unified_hash,
            version,
            remote_created_at: self.remote_created_at,
            fields: self.fields,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            last_event: None,
        }
    }
}
