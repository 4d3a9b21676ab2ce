//! Records as the app showed them, laid beside the snapshot: the rows to write and the events to make.
//!
//! Always true: nothing is written here; records of one page are judged in the order in which they came, each on top of
//! the one before. Not here: the decision itself (`domain::snapshot`), the commit (`commit`).

use std::collections::{BTreeSet, HashMap};

use super::account::Account;
use super::fresh::Fresh;
use super::ready::{Ready, map};
use crate::actors::Deps;
use crate::connectors::{AppRecord, Collection};
use crate::domain::connection::{CollectionState, InitialSync, Remap};
use crate::domain::event::{Event, Source};
use crate::domain::id::InboxId;
use crate::domain::record::record_id;
use crate::domain::snapshot::{
    Baseline, Change, Context, Gone, IgnoredFields, Silence, SnapshotRow, decide, decide_gone, raw_hash, unmapped,
};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Rows;

/// Names of custom fields that are remembered of one collection.
const CUSTOM_FIELDS_MAX: usize = 1_000;

/// Records of one judgement whose problems are told one by one.
pub const PROBLEMS_MAX: usize = 1_000;

/// One sighting of one record.
pub struct Sighting {
    pub remote_id: String,
    pub what: Seen,
    pub source: Source,
    /// The webhook that told of it, whose row names the event.
    pub inbox: Option<InboxId>,
    /// What was made of the record ahead.
    pub ready: Option<Ready>,
}

/// What was seen.
pub enum Seen {
    /// The app showed it.
    Record { record: AppRecord, observed_at: Millis },
    /// The app says that it is gone.
    Gone { remote_updated_at: Option<Millis>, observed_at: Millis },
    /// A complete scan did not show it.
    Missing { scan_started_at: Millis },
}

/// A row to write, and the event to make of it.
pub struct Write {
    pub id: [u8; 16],
    pub row: SnapshotRow,
    pub event: Option<Event>,
    pub inbox: Option<InboxId>,
}

/// How many records were what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub seen: u64,
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    pub unchanged: u64,
    pub stale: u64,
    pub remapped: u64,
    pub unmapped: u64,
    /// Live rows more (or fewer) than before.
    pub live: i64,
}

/// What is to be committed of one collection.
#[derive(Default)]
pub struct Judged {
    pub writes: Vec<Write>,
    pub tally: Tally,
    /// All names of custom fields known now, if there is a new one.
    pub custom_fields: Option<Vec<String>>,
    /// Why records could not be mapped, each with the webhook that brought it; at most [`PROBLEMS_MAX`].
    pub problems: Vec<(Option<InboxId>, String)>,
    /// Records in the snapshot when it was judged.
    pub records_before: Option<u64>,
}

/// What a judgement depends on beside the rows.
pub struct Scope {
    pub collection: String,
    pub baseline: Baseline,
    pub wants_raw: bool,
    /// The version of the mapping.
    pub mapping: [u8; 16],
    pub now: Millis,
}

impl Scope {
    /// The scope of a collection as it stands now.
    pub fn new(deps: &Deps, account: &Account, c: &Collection, state: &CollectionState) -> Result<Self> {
        let connection = &account.connection;
        let baseline = match (state.baseline_at, connection.initial_sync) {
            (Some(_), _) => Baseline::Complete,
            (None, InitialSync::Baseline) => Baseline::Silent { connected_at: connection.created_at },
            (None, InitialSync::Emit) => Baseline::Emit,
        };
        let wants_raw = deps.memory.wants_raw(&deps.store, &deps.rings, connection.workspace)?;
        let mapping = account.mapping_of(c);
        Ok(Self { collection: c.key.clone(), baseline, wants_raw, mapping, now: deps.clock.now() })
    }
}

/// Lays sightings beside the snapshot. It reads and maps, so it runs where it may block.
pub fn judge(
    rows: &Rows,
    account: &Account,
    scope: &Scope,
    sightings: Vec<Sighting>,
    fresh: Option<&Fresh>,
) -> Result<Judged> {
    let connector = account.connector().clone();
    let Some(c) = connector.collection(&scope.collection) else { return Ok(Judged::default()) };
    let connection = account.connection.id;
    let id = |sighting: &Sighting| match &sighting.ready {
        Some(ready) => ready.id,
        None => record_id(connection, &c.topic, &sighting.remote_id).into_bytes(),
    };
    let ids: Vec<[u8; 16]> = sightings.iter().map(id).collect();
    let stored = match fresh {
        Some(fresh) => fresh.rows(rows, account, &c.key, &ids)?,
        None => rows.snapshot_rows(connection, &c.key, &ids)?,
    };
    let ignored = IgnoredFields::new(&c.ignored_fields);
    let context = Context {
        now: scope.now,
        mapping: &scope.mapping,
        ignored: &ignored,
        baseline: scope.baseline,
        remap_emits: account.connection.remap == Remap::Emit,
        touch_before: None,
    };
    let mut judged = Judged::default();
    let mut names = BTreeSet::new();
    // Where a record came twice, the later sighting meets what the earlier one left.
    let mut latest: Option<HashMap<[u8; 16], usize>> = comes_twice(&ids).then(HashMap::new);
    for ((mut sighting, id), stored) in sightings.into_iter().zip(ids).zip(stored) {
        judged.tally.seen += 1;
        let before = match latest.as_ref().and_then(|latest| latest.get(&id)) {
            Some(at) => judged.writes.get(*at).map(|write| &write.row),
            None => stored.as_ref(),
        };
        let change = match decide_one(before, account, c, &mut sighting, &context, &mut names) {
            Ok(change) => change,
            Err(problem) => {
                judged.tally.unmapped += 1;
                if judged.problems.len() < PROBLEMS_MAX {
                    judged.problems.push((sighting.inbox, format!("record {}: {problem}", sighting.remote_id)));
                }
                continue;
            }
        };
        judged.tally.count(&change, before);
        let event = change.row().and_then(|row| event(account, c, scope, &change, row, id, &sighting));
        if let Some(row) = change.into_row() {
            if let Some(latest) = &mut latest {
                latest.insert(id, judged.writes.len());
            }
            judged.writes.push(Write { id, row, event, inbox: sighting.inbox });
        }
    }
    judged.custom_fields = new_names(rows.custom_fields(connection, &c.key)?, names);
    Ok(judged)
}

fn comes_twice(ids: &[[u8; 16]]) -> bool {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.array_windows().any(|[one, next]| one == next)
}

fn decide_one(
    before: Option<&SnapshotRow>,
    account: &Account,
    c: &Collection,
    sighting: &mut Sighting,
    context: &Context<'_>,
    names: &mut BTreeSet<String>,
) -> std::result::Result<Change, String> {
    let gone = match &sighting.what {
        Seen::Record { record, observed_at } if record.deleted => Gone::Told {
            remote_id: &sighting.remote_id,
            remote_updated_at: record.updated_at,
            observed_at: *observed_at,
        },
        Seen::Record { record, observed_at } => {
            let (raw, observed_at) = (record.raw.get(), *observed_at);
            let ready = sighting.ready.take().filter(|ready| ready.mapping == *context.mapping);
            let hash = ready.as_ref().map_or_else(|| raw_hash(context.mapping, raw), |ready| ready.raw_hash);
            if let Some(change) = unmapped(before, &hash, record.updated_at, observed_at, context) {
                return Ok(change);
            }
            let mapped = ready.and_then(|ready| ready.mapped);
            let now = || map(account, c, record, (hash, context.mapping), context.ignored, names);
            let (hashed, unknown) = mapped.unwrap_or_else(now)?;
            names.extend(unknown);
            return Ok(decide(before, raw, hashed, observed_at, context));
        }
        Seen::Gone { remote_updated_at, observed_at } => Gone::Told {
            remote_id: &sighting.remote_id,
            remote_updated_at: *remote_updated_at,
            observed_at: *observed_at,
        },
        Seen::Missing { scan_started_at } => Gone::Missing { scan_started_at: *scan_started_at },
    };
    Ok(decide_gone(before, &gone, context))
}

fn event(
    account: &Account,
    c: &Collection,
    scope: &Scope,
    change: &Change,
    row: &SnapshotRow,
    id: [u8; 16],
    sighting: &Sighting,
) -> Option<Event> {
    let unified_change = !matches!(change, Change::RawOnly { .. });
    let update_type = change.update_type().filter(|_| unified_change || scope.wants_raw)?;
    let (changed_fields, previous) = match change {
        Change::Updated { changed, previous, .. } => (changed.clone(), Some(previous.clone())),
        Change::RawOnly { row } => (Vec::new(), Some(row.fields.clone())),
        _ => (Vec::new(), None),
    };
    let app_time = match &sighting.what {
        Seen::Record { record, .. } if update_type == "created" => record.created_at.or(record.updated_at),
        Seen::Record { record, .. } => record.updated_at,
        Seen::Gone { remote_updated_at, .. } => *remote_updated_at,
        Seen::Missing { .. } => None,
    };
    let payload = row.payload(uuid::Uuid::from_bytes(id));
    Some(Event {
        topic: c.topic.clone(),
        update_type: Some(update_type.to_owned()),
        happened_at: app_time.unwrap_or(scope.now),
        changed_fields,
        previous,
        raw: match &sighting.what {
            Seen::Record { record, .. } => Some(record.raw.get().to_owned()),
            Seen::Gone { .. } | Seen::Missing { .. } => None,
        },
        source: sighting.source.clone(),
        unified_change,
        ..Event::of(&account.connection, account.user.as_ref(), payload, scope.now)
    })
}

fn new_names(known: Vec<String>, seen: BTreeSet<String>) -> Option<Vec<String>> {
    let mut all: BTreeSet<String> = known.iter().cloned().collect();
    all.extend(seen);
    (all.len() > known.len() && known.len() < CUSTOM_FIELDS_MAX)
        .then(|| all.into_iter().take(CUSTOM_FIELDS_MAX).collect())
}

impl Tally {
    fn count(&mut self, change: &Change, before: Option<&SnapshotRow>) {
        match change {
            Change::Created { .. } => self.created += 1,
            Change::Updated { .. } => self.updated += 1,
            Change::Deleted { .. } => self.deleted += 1,
            Change::Stale => self.stale += 1,
            Change::Silent { why: Silence::Remap, .. } => self.remapped += 1,
            Change::Unchanged | Change::Silent { .. } | Change::RawOnly { .. } => self.unchanged += 1,
        }
        if let Some(after) = change.row() {
            let alive = |row: Option<&SnapshotRow>| i64::from(row.is_some_and(SnapshotRow::is_live));
            self.live += alive(Some(after)) - alive(before);
        }
    }
    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.created += other.created;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.unchanged += other.unchanged;
        self.stale += other.stale;
        self.remapped += other.remapped;
        self.unmapped += other.unmapped;
        self.live += other.live;
    }
}
