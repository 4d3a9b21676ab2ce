//! The one decision: a sighting, the row before, and what follows.

use serde_json::{Map, Value};

use super::hash::{Hash, IgnoredFields, raw_hash};
use super::{Hashed, SnapshotRow, Version, diff};
use crate::domain::json::Members;
use crate::domain::record::Unified;
use crate::domain::time::Millis;

/// How a record was found to be gone.
#[derive(Clone, Copy, Debug)]
pub enum Gone<'a> {
    /// The app says that it is gone: a delete webhook, its list of deleted records, a fetch that found nothing.
    Told { remote_id: &'a str, remote_updated_at: Option<Millis>, observed_at: Millis },
    /// A complete scan that began then did not show it, and the [`guard`](super::guard()) believes the scan.
    Missing { scan_started_at: Millis },
}

/// Whether the collection has been seen whole once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Yes: an unknown record is a new one.
    Complete,
    /// Not yet, and `initialSync` is `baseline`: an unknown record is new only if the app made it after the connection.
    Silent { connected_at: Millis },
    /// Not yet, and `initialSync` is `emit`: every record is told as new.
    Emit,
}

/// What the decision depends on beside the row and the sighting.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub now: Millis,
    /// The version of the mapping: the connector's, mixed with the connection's parameters where they change the mapping.
    pub mapping: &'a [u8; 16],
    pub ignored: &'a IgnoredFields,
    pub baseline: Baseline,
    /// The connection has `remap: "emit"`: changes that only a new mapping makes are told.
    pub remap_emits: bool,
    /// Rows observed before this are written again even if nothing changed. A scan sets it to its start, so that what it
    /// misses is what was observed before it; none elsewhere, so that an unchanged record costs no write.
    pub touch_before: Option<Millis>,
}

/// Why a row is written without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Part of the first fill of the snapshot.
    Baseline,
    /// Only the mapping changed.
    Remap,
    /// The app deleted a record that nobody was ever told of.
    NeverKnown,
    /// The same record, observed again, or known by a new hash.
    Refresh,
}

/// What follows from a sighting. A row is to be written as it is, with `last_event` set if an event is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing at all.
    Unchanged,
    /// An older version than the row's came late: drop it.
    Stale,
    /// Write the row, tell nobody.
    Silent {
        row: Box<SnapshotRow>,
        why: Silence,
    },
    /// The app's own record changed, the unified one did not: an event with `unified_change: false`, if anybody wants it.
    RawOnly {
        row: Box<SnapshotRow>,
    },
    Created {
        row: Box<SnapshotRow>,
    },
    Updated {
        row: Box<SnapshotRow>,
        /// Dotted paths.
        changed: Vec<String>,
        /// The unified fields before, as JSON object text.
        previous: String,
    },
    /// The row is a tombstone with the last known fields.
    Deleted {
        row: Box<SnapshotRow>,
    },
}

impl Change {
    /// The row to write, if any.
    pub fn row(&self) -> Option<&SnapshotRow> {
        match self {
            Self::Unchanged | Self::Stale => None,
            Self::Silent { row, .. }
            | Self::RawOnly { row }
            | Self::Created { row }
            | Self::Updated { row, .. }
            | Self::Deleted { row } => Some(row),
        }
    }
    /// The same, taken out.
    pub fn into_row(self) -> Option<SnapshotRow> {
        match self {
            Self::Unchanged | Self::Stale => None,
            Self::Silent { row, .. }
            | Self::RawOnly { row }
            | Self::Created { row }
            | Self::Updated { row, .. }
            | Self::Deleted { row } => Some(*row),
        }
    }
    /// The `updateType` of the event to make, if one is to be made.
    pub fn update_type(&self) -> Option<&'static str> {
        match self {
            Self::Unchanged | Self::Stale | Self::Silent { .. } => None,
            Self::Created { .. } => Some("created"),
            Self::Updated { .. } | Self::RawOnly { .. } => Some("updated"),
            Self::Deleted { .. } => Some("deleted"),
        }
    }
}

/// What follows without mapping the record: Some if its bytes are those of the row, mapped by the same mapping. `raw_hash` is
/// theirs, salted with the context's mapping.
pub fn unmapped(
    row: Option<&SnapshotRow>,
    raw_hash: &Hash,
    remote_updated_at: Option<Millis>,
    observed_at: Millis,
    context: &Context<'_>,
) -> Option<Change> {
    let is_same = |row: &&SnapshotRow| row.is_live() && row.mapped_by == *context.mapping && row.raw_hash == *raw_hash;
    Some(unchanged(row.filter(is_same)?, Version { remote_updated_at, observed_at }, context))
}

/// What follows from a record that is gone.
pub fn decide_gone(row: Option<&SnapshotRow>, gone: &Gone<'_>, context: &Context<'_>) -> Change {
    match *gone {
        Gone::Told { remote_id, remote_updated_at, observed_at } => {
            let version = Version { remote_updated_at, observed_at };
            match row {
                None => Change::Silent { row: never_known(remote_id, version, context), why: Silence::NeverKnown },
                Some(row) if !version.replaces(row.version) => Change::Stale,
                Some(row) if !row.is_live() => unchanged(row, version, context),
                Some(row) => Change::Deleted { row: tombstone(row, version, context) },
            }
        }
        Gone::Missing { scan_started_at } => match row {
            Some(row) if row.is_live() && row.version.observed_at < scan_started_at => {
                let version = Version { remote_updated_at: None, observed_at: scan_started_at };
                Change::Deleted { row: tombstone(row, version, context) }
            }
            _ => Change::Unchanged,
        },
    }
}

/// What follows from a record that the app showed, mapped and hashed by the context's mapping. `raw` is the app's own record,
/// as its bytes came.
pub fn decide(
    row: Option<&SnapshotRow>,
    raw: &str,
    hashed: Hashed,
    observed_at: Millis,
    context: &Context<'_>,
) -> Change {
    let version = Version { remote_updated_at: hashed.remote_updated_at, observed_at };
    if row.is_some_and(|row| !version.replaces(row.version)) {
        return Change::Stale;
    }
    shown(row, Shown { raw, hashed, version }, context)
}

/// A record that is not older than its row.
struct Shown<'a> {
    raw: &'a str,
    hashed: Hashed,
    version: Version,
}

fn shown(row: Option<&SnapshotRow>, shown: Shown<'_>, context: &Context<'_>) -> Change {
    match row {
        None => unknown(shown.hashed, shown.version, context),
        Some(row) if !row.is_live() => {
            let version = shown.version.over(row.version);
            Change::Created { row: Box::new(shown.hashed.first(version, context.now)) }
        }
        Some(row) => known(row, shown, context),
    }
}

fn unchanged(row: &SnapshotRow, version: Version, context: &Context<'_>) -> Change {
    let due = context.touch_before.is_some_and(|before| row.version.observed_at < before);
    let next = version.over(row.version);
    if !due || next == row.version || !version.replaces(row.version) {
        return Change::Unchanged;
    }
    let row = SnapshotRow { version: next, ..row.clone() };
    Change::Silent { row: Box::new(row), why: Silence::Refresh }
}

fn unknown(hashed: Hashed, version: Version, context: &Context<'_>) -> Change {
    let is_new = match context.baseline {
        Baseline::Complete | Baseline::Emit => true,
        Baseline::Silent { connected_at } => hashed.remote_created_at.is_some_and(|at| at >= connected_at),
    };
    let row = Box::new(hashed.first(version, context.now));
    if is_new { Change::Created { row } } else { Change::Silent { row, why: Silence::Baseline } }
}

fn known(row: &SnapshotRow, shown: Shown<'_>, context: &Context<'_>) -> Change {
    let Shown { raw, hashed, version } = shown;
    let remote_created_at = hashed.remote_created_at;
    let next = Box::new(SnapshotRow {
        // A shape that does not tell when the record was created takes nothing away from one that does.
        remote_created_at: remote_created_at.or(row.remote_created_at),
        created_at: row.created_at,
        last_event: row.last_event,
        ..hashed.first(version.over(row.version), context.now)
    });
    let remapped = row.mapped_by != *context.mapping;
    let same_raw = row.raw_hash == if remapped { raw_hash(&row.mapped_by, raw) } else { next.raw_hash };
    let changed = if next.unified_hash == row.unified_hash && !remapped {
        created_path(row, remote_created_at)
    } else {
        // The hash of another mapping may have left other fields out, so that only the fields themselves tell.
        let mut paths = diff(&parse(&row.fields), &parse(&next.fields), context.ignored);
        paths.extend(created_path(row, remote_created_at));
        paths
    };
    if changed.is_empty() {
        return match (same_raw, remapped) {
            (true, false) => unchanged(row, version, context),
            (true, true) => {
                let next = SnapshotRow { updated_at: row.updated_at, ..*next };
                Change::Silent { row: Box::new(next), why: Silence::Refresh }
            }
            (false, _) => Change::RawOnly { row: next },
        };
    }
    let same_time = version.remote_updated_at.is_some() && version.remote_updated_at == row.version.remote_updated_at;
    if remapped && (same_raw || same_time) && !context.remap_emits {
        return Change::Silent { row: next, why: Silence::Remap };
    }
    Change::Updated { row: next, changed, previous: row.fields.clone() }
}

/// `remoteCreatedAt` is outside the fields; it counts only where both sightings tell it.
fn created_path(row: &SnapshotRow, remote_created_at: Option<Millis>) -> Vec<String> {
    match (row.remote_created_at, remote_created_at) {
        (Some(before), Some(after)) if before != after => vec!["remoteCreatedAt".to_owned()],
        _ => Vec::new(),
    }
}

fn tombstone(row: &SnapshotRow, version: Version, context: &Context<'_>) -> Box<SnapshotRow> {
    let version = version.over(row.version);
    Box::new(SnapshotRow { version, updated_at: context.now, deleted_at: Some(context.now), ..row.clone() })
}

/// A tombstone for a record that was gone before it was seen, so that a late sighting of it does not bring it to life.
fn never_known(remote_id: &str, version: Version, context: &Context<'_>) -> Box<SnapshotRow> {
    let unified = Unified {
        remote_id: remote_id.to_owned(),
        remote_created_at: None,
        remote_updated_at: None,
        fields: Members::default(),
    };
    let hashed = Hashed::new(raw_hash(context.mapping, ""), context.mapping, unified, context.ignored);
    Box::new(SnapshotRow { deleted_at: Some(context.now), ..hashed.first(version, context.now) })
}

/// The stored fields. Text that cannot be read (it was written by us, so a corrupt row) counts as empty: everything changed.
fn parse(fields: &str) -> Map<String, Value> {
    serde_json::from_str(fields).unwrap_or_default()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
pub(super) mod tests;
