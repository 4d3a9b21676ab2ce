//! Upgrades with steps of the tests' own: they keep what was, go on after a crash, and change no row twice.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use tempfile::TempDir;

use super::super::keys::Key;
use super::super::vault::Vault;
use super::*;

const KIND: u8 = 200;
const ROWS: u64 = 100;

#[derive(Serialize, Deserialize)]
struct Old {
    number: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct New {
    number: u64,
    twice: u64,
}

fn widen(pass: &mut Pass<'_>) -> Result<()> {
    pass.objects(KIND, |old: Old| New { number: old.number, twice: 2 * old.number })
}

/// Counts up in each row, so that a row that was changed twice shows.
fn count_up(pass: &mut Pass<'_>) -> Result<()> {
    pass.objects(KIND, |old: New| New { twice: old.twice + 1, ..old })?;
    pass.each(Table::Objects, &Key::new().u8(KIND), |rows, key, _, batch| {
        batch.put_cf(rows.cf(Table::ByWorkspace)?, key, b"seen");
        Ok(())
    })
}

/// The disk goes away when the first pass is done and the second is under way.
fn count_up_and_fail(pass: &mut Pass<'_>) -> Result<()> {
    let mut left = ROWS / 2;
    pass.each(Table::Objects, &Key::new().u8(KIND), |rows, key, value, batch| {
        left = left.checked_sub(1).ok_or_else(|| Error::internal("the disk went away"))?;
        let old: New = codec::decode(value)?;
        batch.put_cf(rows.cf(Table::Objects)?, key, codec::encode(&New { twice: old.twice + 1, ..old })?);
        Ok(())
    })
}

const WIDEN: Step = Step { from: 1, name: "widen the rows", run: widen };
const COUNT: Step = Step { from: 2, name: "count up", run: count_up };
const FAIL: Step = Step { from: 2, name: "count up", run: count_up_and_fail };

fn options(folder: &TempDir) -> Options {
    Options {
        path: folder.path().join("data"),
        block_cache_bytes: NonZeroUsize::MIN,
        write_buffer_bytes: NonZeroUsize::new(1 << 20).unwrap(),
        background_threads: NonZeroU32::MIN,
        open_files_max: NonZeroU32::new(64).unwrap(),
        commit_queue_max: NonZeroUsize::MIN,
        commit_group_max: NonZeroUsize::MIN,
        free_bytes_min: NonZeroU64::MIN,
    }
}

fn open_with(options: &Options, steps: &[Step], piece_bytes: usize) -> Result<Rows> {
    let (db, cache) = open::open(options)?;
    let mut rows = Rows::new(db, Vault::new(&[7; 32]));
    bring(&mut rows, options, &cache, steps, piece_bytes)?;
    Ok(rows)
}

/// A store as version 1 wrote it.
fn first_version(options: &Options) {
    let rows = open_with(options, &[], PIECE_BYTES).unwrap();
    for number in 0..ROWS {
        let key = Key::new().u8(KIND).bytes(&number.to_be_bytes());
        rows.db.put_cf(rows.cf(Table::Objects).unwrap(), key, codec::encode(&Old { number }).unwrap()).unwrap();
    }
}

/// A store of version 1 with a subscription, webhooks and deliveries in every state, brought to version 2.
#[test]
fn the_second_version_keeps_webhooks_and_deliveries_of_the_first() {
    use super::super::inbox::InboxState;
    use super::super::{Place, Turn, keys};
    use super::steps::{InboxRow1, InboxState1};
    use crate::domain::id::{LaneNo, Seq, WorkspaceNo};
    use crate::domain::time::Millis;

    let folder = TempDir::new().unwrap();
    let options = options(&folder);
    let rows = open_with(&options, &[], PIECE_BYTES).unwrap();
    let (owner, lane) = ([3; 12], LaneNo(4));
    let put = |table: Table, key: Key, value: &[u8]| rows.db.put_cf(rows.cf(table).unwrap(), key, value).unwrap();
    let webhook = |state| InboxRow1 {
        workspace: WorkspaceNo(0),
        owner,
        webhook_key: String::new(),
        received_at: Millis(50),
        method: "POST".into(),
        uri: "/in/c/x".into(),
        headers: vec![("a".into(), b"b".to_vec())],
        body: b"{}".to_vec(),
        verdict: "verified".into(),
        event: None,
        log: vec!["try 1".into()],
        state,
    };
    for (seq, state) in
        [(7, InboxState1::Waiting { tries: 2 }), (8, InboxState1::Parked { at: Millis(60), reason: "r".into() })]
    {
        let key = Key::owner(&owner).seq(Seq(seq));
        let plain = codec::encode(&webhook(state)).unwrap();
        let sealed = rows.vault.seal(&owner, Table::Inbox, key.as_ref(), &plain).unwrap();
        put(Table::Inbox, key, &sealed);
    }
    put(Table::InboxDue, Key::owner(&owner).seq(Seq(7)), &90_u64.to_be_bytes());
    put(Table::Queue, keys::queue(lane, keys::Queued::Fresh).seq(Seq(1)), &[]);
    let asked = [2_u64.to_be_bytes(), 70_u64.to_be_bytes()].concat();
    put(Table::Queue, keys::queue(lane, keys::Queued::Fresh).seq(Seq(5)), &asked);
    put(Table::Queue, keys::queue_retry(lane, Millis(80), Seq(3)), &3_u64.to_be_bytes());
    drop(rows);

    let rows = open_with(&options, steps::STEPS, 1).unwrap();
    let (due, next) = rows.inbox_due(&owner, Millis(0), Millis(90), 10).unwrap();
    assert_eq!((due.len(), next), (1, None));
    let row = &due[0].1;
    assert_eq!(
        (row.state.clone(), row.log.len(), row.body.as_slice()),
        (InboxState::Waiting { tries: 2 }, 1, &b"{}"[..])
    );
    assert_eq!(rows.inbox_due(&owner, Millis(0), Millis(89), 10).unwrap().1, Some(Millis(90)));
    let all = rows.inbox(&owner, None, 10).unwrap();
    assert!(matches!(all[0].1.state, InboxState::Parked { .. }) && all.len() == 2, "{all:?}");
    let fresh = rows.fresh_deliveries(lane, Seq(0), 10).unwrap();
    let turns: Vec<_> = fresh.iter().map(|due| (due.event, due.turn)).collect();
    assert_eq!(turns, [(Seq(1), Turn::First), (Seq(2), Turn::Again(Millis(70)))]);
    let retry = rows.retry_deliveries(lane, 10).unwrap();
    assert_eq!((retry[0].event, retry[0].turn, retry[0].place), (Seq(3), Turn::Retry, Place::At(Millis(80))));
}

fn rows_of(rows: &Rows) -> Vec<New> {
    let mut all = Vec::new();
    rows.walk_prefix(Table::Objects, &Key::new().u8(KIND), |_, value| {
        all.push(codec::decode(value)?);
        Ok(true)
    })
    .unwrap();
    all
}

#[test]
fn the_steps_lead_from_each_version_to_the_next() {
    for (step, version) in STEPS.iter().zip(1..) {
        assert_eq!(step.from, version, "{}", step.name);
    }
}

#[test]
fn an_older_store_is_kept_beside_and_every_row_of_it_is_changed_once() {
    let folder = TempDir::new().unwrap();
    let options = options(&folder);
    first_version(&options);
    let rows = open_with(&options, &[WIDEN, COUNT], 64).unwrap();
    let wanted: Vec<New> = (0..ROWS).map(|number| New { number, twice: 2 * number + 1 }).collect();
    assert_eq!(rows_of(&rows), wanted);
    assert_eq!((found(&rows).unwrap(), mark(&rows).unwrap()), (Some(3), None));
    drop(rows);
    assert_eq!(rows_of(&open_with(&options, &[WIDEN, COUNT], 64).unwrap()), wanted);

    // Going back, as docs/operations.md says.
    std::fs::remove_dir_all(options.path.join("db")).unwrap();
    std::fs::rename(options.path.join("db-version-1"), options.path.join("db")).unwrap();
    let rows = open_with(&options, &[], 64).unwrap();
    let key = Key::new().u8(KIND).bytes(&5_u64.to_be_bytes());
    assert_eq!(rows.get::<Old>(Table::Objects, key).unwrap().unwrap().number, 5);
}

#[test]
fn a_checkpoint_has_no_table_that_its_version_does_not_know() {
    let folder = TempDir::new().unwrap();
    let options = options(&folder);
    let mut rows = open_with(&options, &[], 64).unwrap();
    rows.db.drop_cf(Table::Counts.name()).unwrap();
    drop(rows);
    drop(open_with(&options, &[WIDEN], 64).unwrap());
    let names = |name: &str| rocksdb::DB::list_cf(&rocksdb::Options::default(), options.path.join(name)).unwrap();
    assert!(!names("db-version-1").contains(&Table::Counts.name().to_owned()));
    assert!(names("db").contains(&Table::Counts.name().to_owned()));
}

#[test]
fn a_crash_in_the_middle_of_a_step_goes_on_where_it_was() {
    let folder = TempDir::new().unwrap();
    let options = options(&folder);
    first_version(&options);
    for _ in 0..2 {
        let failed = open_with(&options, &[WIDEN, FAIL], 64).err().unwrap();
        assert!(failed.chain().contains("went away"), "{}", failed.chain());
    }
    let plan = plan_of(&look(&options), &options.path, &[WIDEN, COUNT]).unwrap();
    assert_eq!((plan.found, plan.current, plan.is_under_way), (2, 3, true));
    // The version before knows that what lies between is not its own.
    let refused = open_with(&options, &[WIDEN], 64).err().unwrap();
    assert!(refused.message.contains("version 3"), "{}", refused.message);
    let rows = open_with(&options, &[WIDEN, COUNT], 64).unwrap();
    let wanted: Vec<New> = (0..ROWS).map(|number| New { number, twice: 2 * number + 1 }).collect();
    assert_eq!(rows_of(&rows), wanted);
    let mut seen = 0;
    rows.walk_prefix(Table::ByWorkspace, &Key::new().u8(KIND), |_, _| {
        seen += 1;
        Ok(true)
    })
    .unwrap();
    assert_eq!(seen, ROWS);
    assert!(options.path.join("db-version-1").exists() && !options.path.join("db-version-2").exists());
}

#[test]
fn a_second_upgrade_leaves_the_first_checkpoint_alone() {
    let folder = TempDir::new().unwrap();
    let options = options(&folder);
    std::fs::create_dir_all(options.path.join("db-version-1")).unwrap();
    first_version(&options);
    drop(open_with(&options, &[WIDEN], 64).unwrap());
    assert!(options.path.join("db-version-1.2/CURRENT").exists());
}

#[test]
fn a_newer_store_is_refused_and_stays_as_it_is() {
    let folder = TempDir::new().unwrap();
    let options = options(&folder);
    first_version(&options);
    drop(open_with(&options, &[WIDEN], PIECE_BYTES).unwrap());
    let refused = open_with(&options, &[], PIECE_BYTES).err().unwrap();
    assert!(refused.message.contains("has version 2") && refused.message.contains("newer tidemill"), "{refused}");
    assert!(plan_of(&look(&options), &options.path, &[]).is_err());

    let (mut db, _) = open::open(&options).unwrap();
    db.create_cf("tomorrow", &rocksdb::Options::default()).unwrap();
    drop(db);
    let refused = open_with(&options, &[], PIECE_BYTES).err().unwrap();
    assert!(refused.message.contains("newer tidemill") && refused.message.contains("tomorrow"), "{refused}");
}

fn look(options: &Options) -> Rows {
    Rows::new(open::look(options).unwrap(), Vault::new(&[0; 32]))
}

#[test]
fn a_dry_run_says_what_would_happen_and_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let options = options(&folder);
    first_version(&options);
    let before = files(&options.path);
    let plan = plan_of(&look(&options), &options.path, &[WIDEN, COUNT]).unwrap();
    assert_eq!(plan.steps, [(1, "widen the rows"), (2, "count up")]);
    assert_eq!((plan.found, plan.current, plan.is_under_way), (1, 3, false));
    assert_eq!(plan.checkpoint, options.path.join("db-version-1"));
    assert_eq!(files(&options.path), before);
}

/// Names and contents of all files below.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}
