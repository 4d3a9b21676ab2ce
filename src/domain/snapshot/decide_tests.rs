//! The promises of `decide`, one by one, and against a small model.

use proptest::prelude::*;

use super::*;
use crate::domain::id::Seq;

const V1: [u8; 16] = [1; 16];
const V2: [u8; 16] = [2; 16];
const NONE: &IgnoredFields = &IgnoredFields::none();

fn context() -> Context<'static> {
    Context {
        now: Millis(1_000_000),
        mapping: &V1,
        ignored: NONE,
        baseline: Baseline::Complete,
        remap_emits: false,
        touch_before: None,
    }
}

fn unified(fields: &str, updated: Option<u64>) -> Unified<'static> {
    Unified {
        remote_id: "42".into(),
        remote_created_at: Some(Millis(10)),
        remote_updated_at: updated.map(Millis),
        fields: Members::from(&parse(fields)).keep(),
    }
}

/// The app's own record has the same text as the unified fields, unless a test says otherwise.
fn see(row: Option<&SnapshotRow>, fields: &str, updated: Option<u64>, observed: u64, context: &Context<'_>) -> Change {
    show(row, fields, unified(fields, updated), observed, context)
}

fn show(row: Option<&SnapshotRow>, raw: &str, mapped: Unified<'_>, observed: u64, context: &Context<'_>) -> Change {
    let hashed = Hashed::new(raw_hash(context.mapping, raw), context.mapping, mapped, context.ignored);
    decide(row, raw, hashed, Millis(observed), context)
}

fn gone(row: Option<&SnapshotRow>, updated: Option<u64>, observed: u64) -> Change {
    gone_in(row, updated, observed, &context())
}

fn gone_in(row: Option<&SnapshotRow>, updated: Option<u64>, observed: u64, context: &Context<'_>) -> Change {
    let gone = Gone::Told { remote_id: "42", remote_updated_at: updated.map(Millis), observed_at: Millis(observed) };
    decide_gone(row, &gone, context)
}

/// A row as if the record had been seen at 100, changed by the app at 50.
pub(crate) fn live_row(fields: &str) -> SnapshotRow {
    let change = see(None, fields, Some(50), 100, &context());
    SnapshotRow { last_event: Some(Seq(7)), ..change.row().unwrap().clone() }
}

#[test]
fn an_unknown_record_is_created_once_the_baseline_is_complete() {
    let change = see(None, r#"{"a":1}"#, Some(50), 100, &context());
    let Change::Created { row } = &change else { panic!("{change:?}") };
    assert_eq!(
        (row.fields.as_str(), row.created_at, row.updated_at),
        (r#"{"a":1}"#, Millis(1_000_000), Millis(1_000_000))
    );
    assert_eq!(change.update_type(), Some("created"));
    assert!(row.is_live());
}

#[test]
fn before_the_baseline_only_what_the_app_made_after_the_connection_is_created() {
    for (connected, created) in [(9, true), (10, true), (11, false)] {
        let context = Context { baseline: Baseline::Silent { connected_at: Millis(connected) }, ..context() };
        let change = see(None, r#"{"a":1}"#, Some(50), 100, &context);
        assert_eq!(matches!(change, Change::Created { .. }), created, "{connected}");
        assert_eq!(matches!(change, Change::Silent { why: Silence::Baseline, .. }), !created, "{connected}");
    }
    let context = Context { baseline: Baseline::Silent { connected_at: Millis(0) }, ..context() };
    let unified = Unified { remote_created_at: None, ..unified("{}", None) };
    let change = show(None, "{}", unified, 1, &context);
    assert!(matches!(change, Change::Silent { why: Silence::Baseline, .. }));
}

#[test]
fn with_emit_every_record_of_the_first_sync_is_created() {
    let context = Context { baseline: Baseline::Emit, ..context() };
    assert!(matches!(see(None, "{}", None, 100, &context), Change::Created { .. }));
}

#[test]
fn a_known_record_is_updated_also_before_the_baseline_is_complete() {
    let context = Context { baseline: Baseline::Silent { connected_at: Millis(1000) }, ..context() };
    let change = see(Some(&live_row(r#"{"a":1}"#)), r#"{"a":2}"#, Some(60), 200, &context);
    assert!(matches!(change, Change::Updated { .. }));
}

#[test]
fn an_update_tells_what_changed_and_what_was_before() {
    let before = live_row(r#"{"a":1,"b":{"c":1}}"#);
    let Change::Updated { row, changed, previous } =
        see(Some(&before), r#"{"a":1,"b":{"c":2}}"#, Some(60), 200, &context())
    else {
        panic!()
    };
    assert_eq!(changed, ["b.c"]);
    assert_eq!(previous, before.fields);
    assert_eq!((row.created_at, row.last_event), (before.created_at, before.last_event));
    assert_eq!(row.version, Version { remote_updated_at: Some(Millis(60)), observed_at: Millis(200) });
}

#[test]
fn a_webhook_and_a_poll_of_one_change_make_one_event() {
    let row = live_row(r#"{"a":1}"#);
    let first = see(Some(&row), r#"{"a":2}"#, Some(60), 200, &context());
    let second = see(first.row(), r#"{"a":2}"#, Some(60), 300, &context());
    assert_eq!(second, Change::Unchanged);
}

#[test]
fn an_unchanged_record_costs_no_write_unless_a_scan_wants_it_touched() {
    let row = live_row(r#"{"a":1}"#);
    assert_eq!(see(Some(&row), r#"{"a":1}"#, Some(50), 200, &context()), Change::Unchanged);
    let scan = Context { touch_before: Some(Millis(150)), ..context() };
    let change = see(Some(&row), r#"{"a":1}"#, Some(50), 200, &scan);
    let Change::Silent { row: touched, why: Silence::Refresh } = &change else { panic!("{change:?}") };
    assert_eq!(touched.version.observed_at, Millis(200));
    assert_eq!(**touched, SnapshotRow { version: touched.version, ..row });
    assert_eq!(see(Some(touched), r#"{"a":1}"#, Some(50), 300, &scan), Change::Unchanged);
}

#[test]
fn the_same_bytes_need_no_mapping() {
    let row = live_row(r#"{"a":1}"#);
    let quick = |row: &SnapshotRow, raw: &str, context: &Context<'_>| {
        unmapped(Some(row), &raw_hash(context.mapping, raw), Some(Millis(50)), Millis(200), context)
    };
    assert_eq!(quick(&row, r#"{"a":1}"#, &context()), Some(Change::Unchanged));
    assert_eq!(quick(&row, r#"{"a":2}"#, &context()), None);
    assert_eq!(quick(&row, r#"{"a":1}"#, &Context { mapping: &V2, ..context() }), None);
    let deleted = SnapshotRow { deleted_at: Some(Millis(1)), ..row };
    assert_eq!(quick(&deleted, r#"{"a":1}"#, &context()), None);
    assert_eq!(unmapped(None, &raw_hash(&V1, "{}"), None, Millis(1), &context()), None);
}

#[test]
fn an_older_version_that_comes_late_is_dropped() {
    let row = live_row(r#"{"a":1}"#);
    assert_eq!(see(Some(&row), r#"{"a":0}"#, Some(49), 900, &context()), Change::Stale);
    assert_eq!(see(Some(&row), r#"{"a":0}"#, Some(50), 99, &context()), Change::Stale);
    assert_eq!(see(Some(&row), r#"{"a":0}"#, None, 99, &context()), Change::Stale);
    assert!(matches!(see(Some(&row), r#"{"a":0}"#, Some(50), 100, &context()), Change::Updated { .. }));
    assert_eq!(gone(Some(&row), Some(49), 900), Change::Stale);
    assert_eq!(gone(Some(&row), None, 99), Change::Stale);
}

#[test]
fn a_change_of_the_apps_record_alone_is_for_those_who_want_raw() {
    let row = live_row(r#"{"a":1}"#);
    let unified = unified(r#"{"a":1}"#, Some(60));
    let change = show(Some(&row), r#"{"a":1,"x":1}"#, unified, 200, &context());
    let Change::RawOnly { row } = &change else { panic!("{change:?}") };
    assert_eq!(row.version.remote_updated_at, Some(Millis(60)));
    assert_eq!(change.update_type(), Some("updated"));
}

#[test]
fn ignored_fields_make_no_event_but_are_kept_fresh() {
    let ignored = IgnoredFields::new(&["stock"]);
    let context = Context { ignored: &ignored, ..context() };
    let row = see(None, r#"{"a":1,"stock":5}"#, Some(50), 100, &context).row().unwrap().clone();
    let change = see(Some(&row), r#"{"a":1,"stock":4}"#, Some(60), 200, &context);
    let Change::RawOnly { row } = change else { panic!("{change:?}") };
    assert_eq!(row.fields, r#"{"a":1,"stock":4}"#);
}

#[test]
fn a_new_mapping_is_silent_unless_the_connection_asks() {
    let row = live_row(r#"{"a":1}"#);
    let raw = r#"{"a":1}"#;
    let mapped = unified(r#"{"a":1,"b":2}"#, Some(50));
    let remap = |emits: bool, raw: &str, mapped: &Unified<'_>| {
        let context = Context { mapping: &V2, remap_emits: emits, ..context() };
        show(Some(&row), raw, mapped.clone(), 200, &context)
    };
    assert!(matches!(remap(false, raw, &mapped), Change::Silent { why: Silence::Remap, .. }));
    assert!(matches!(remap(true, raw, &mapped), Change::Updated { .. }));
    // The app's time says that the record is the same although its bytes are not.
    assert!(matches!(remap(false, r#"{"z":9,"a":1}"#, &mapped), Change::Silent { why: Silence::Remap, .. }));
    // It did change.
    let later = Unified { remote_updated_at: Some(Millis(60)), ..mapped.clone() };
    assert!(matches!(remap(false, r#"{"a":1,"z":9}"#, &later), Change::Updated { .. }));
    // The new mapping gives the same fields: the row only learns its new hash.
    let change = remap(false, raw, &unified(r#"{"a":1}"#, Some(50)));
    let Change::Silent { row: next, why: Silence::Refresh } = change else { panic!("{change:?}") };
    assert_eq!((next.mapped_by, next.updated_at), (V2, row.updated_at));
}

#[test]
fn a_mapping_that_ignores_another_field_makes_no_event() {
    let row = live_row(r#"{"a":1,"stock":5}"#);
    let ignored = IgnoredFields::new(&["stock"]);
    let context = Context { mapping: &V2, ignored: &ignored, ..context() };
    let change = see(Some(&row), r#"{"a":1,"stock":4}"#, Some(60), 200, &context);
    assert!(matches!(change, Change::RawOnly { .. }), "{change:?}");
}

#[test]
fn a_time_of_creation_counts_only_where_both_tell_it() {
    let row = live_row(r#"{"a":1}"#);
    let with = |created: Option<u64>| {
        let unified = Unified { remote_created_at: created.map(Millis), ..unified(r#"{"a":1}"#, Some(60)) };
        show(Some(&row), r#"{"a": 1}"#, unified, 200, &context())
    };
    let Change::Updated { changed, .. } = with(Some(11)) else { panic!() };
    assert_eq!(changed, ["remoteCreatedAt"]);
    let Change::RawOnly { row } = with(None) else { panic!() };
    assert_eq!(row.remote_created_at, Some(Millis(10)));
}

#[test]
fn a_deletion_carries_the_last_known_record_and_leaves_a_tombstone() {
    let before = live_row(r#"{"a":1}"#);
    let Change::Deleted { row } = gone(Some(&before), None, 200) else { panic!() };
    assert_eq!((row.fields.as_str(), row.deleted_at), (r#"{"a":1}"#, Some(Millis(1_000_000))));
    assert_eq!(row.version, Version { remote_updated_at: Some(Millis(50)), observed_at: Millis(200) });
    assert_eq!(gone(Some(&row), None, 300), Change::Unchanged);
    // What was on its way when the record was deleted does not bring it back.
    assert_eq!(see(Some(&row), r#"{"a":1}"#, Some(50), 199, &context()), Change::Stale);
    // What the app shows afterwards does.
    let again = see(Some(&row), r#"{"a":1}"#, Some(50), 201, &context());
    let Change::Created { row } = again else { panic!("{again:?}") };
    assert!(row.is_live());
}

#[test]
fn a_record_that_was_gone_before_it_was_seen_is_not_told() {
    let change = gone(None, None, 200);
    let Change::Silent { row, why: Silence::NeverKnown } = &change else { panic!("{change:?}") };
    assert_eq!(row.remote_id, "42");
    assert_eq!(see(Some(row), "{}", Some(50), 100, &context()), Change::Stale);
}

#[test]
fn a_scan_deletes_only_what_was_not_observed_since_it_began() {
    let row = live_row(r#"{"a":1}"#);
    let miss = |row: Option<&SnapshotRow>, started: u64| {
        decide_gone(row, &Gone::Missing { scan_started_at: Millis(started) }, &context())
    };
    let Change::Deleted { row: tombstone } = miss(Some(&row), 101) else { panic!() };
    assert_eq!(tombstone.version.observed_at, Millis(101));
    assert_eq!(miss(Some(&row), 100), Change::Unchanged);
    assert_eq!(miss(Some(&row), 99), Change::Unchanged);
    assert_eq!(miss(None, 101), Change::Unchanged);
    assert_eq!(miss(Some(&tombstone), 900), Change::Unchanged);
}

#[test]
fn a_corrupt_row_counts_as_changed_and_does_not_stop_the_pull() {
    let row = SnapshotRow { fields: "{broken".into(), unified_hash: [0; 16], ..live_row("{}") };
    let Change::Updated { changed, .. } = see(Some(&row), r#"{"a":1}"#, Some(60), 200, &context()) else { panic!() };
    assert_eq!(changed, ["a"]);
}

/// One sighting of the model's app: what it showed (None: gone), its own time, when it was observed.
#[derive(Clone, Debug)]
struct Sighting {
    shown: Option<u8>,
    remote: u64,
    observed: u64,
}

fn sightings() -> impl Strategy<Value = (bool, Vec<Sighting>)> {
    let one = (prop::option::weighted(0.8, 0u8..3), 0u64..6, 0u64..12).prop_map(|(shown, remote, observed)| Sighting {
        shown,
        remote,
        observed,
    });
    (any::<bool>(), prop::collection::vec(one, 1..20))
}

proptest! {
    /// In whatever order sightings come, the row is the one with the highest version, and the events tell its story.
    #[test]
    fn the_highest_version_wins_and_the_events_tell_the_story((has_time, seen) in sightings()) {
        // Touching every row makes the model exact: without it, an unchanged sighting does not move the version.
        let context = Context { touch_before: Some(Millis(u64::MAX)), ..context() };
        let mut row: Option<SnapshotRow> = None;
        let mut told: Option<String> = None;
        for (at, sighting) in seen.iter().enumerate() {
            let updated = has_time.then_some(sighting.remote);
            let change = match sighting.shown {
                Some(value) => see(row.as_ref(), &format!(r#"{{"a":{value}}}"#), updated, sighting.observed, &context),
                None => gone_in(row.as_ref(), updated, sighting.observed, &context),
            };
            match &change {
                Change::Created { row } => {
                    prop_assert!(told.is_none());
                    told = Some(row.fields.clone());
                }
                Change::Updated { row, changed, previous } => {
                    prop_assert_eq!(told.as_ref(), Some(previous));
                    prop_assert_ne!(previous, &row.fields);
                    prop_assert_eq!(changed, &["a"]);
                    told = Some(row.fields.clone());
                }
                Change::Deleted { row } => {
                    prop_assert_eq!(told.take(), Some(row.fields.clone()));
                }
                Change::RawOnly { .. } => prop_assert!(false, "raw and unified are the same here"),
                Change::Unchanged | Change::Stale | Change::Silent { .. } => {}
            }
            row = change.row().cloned().or(row);
            // `max_by_key` gives the last of equal ones, as does the rule.
            let winner = seen[..=at].iter().max_by_key(|s| (if has_time { s.remote } else { 0 }, s.observed)).unwrap();
            let expected = winner.shown.map(|value| format!(r#"{{"a":{value}}}"#));
            prop_assert_eq!(&told, &expected);
            let live = row.as_ref().filter(|row| row.is_live()).map(|row| row.fields.clone());
            prop_assert_eq!(live, expected);
        }
    }
}
