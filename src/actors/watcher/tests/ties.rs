//! An app as HubSpot's search is: one sort key, offsets, a ceiling; many records on one timestamp, which it lists by id.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::desk::{Desk, Setup};
use super::tiny::{Answer, parameter, serve};
use crate::clock::Clock;
use crate::domain::connection::{CollectionState, Cursor, InitialSync};
use crate::domain::time::Millis;

const CEILING: usize = 10_000;

/// The app's records: id → time. And what happens at which request.
#[derive(Default)]
struct App {
    rows: BTreeMap<u64, u64>,
    size: usize,
    requests: usize,
    /// The request that is never answered.
    hangs_at: usize,
    /// At this request, a record is edited and one deleted.
    edits_at: usize,
    /// A page past the end is the last page again.
    repeats_last: bool,
    /// Offsets asked for past the ceiling.
    refused: usize,
}

impl App {
    fn of(rows: impl IntoIterator<Item = (u64, u64)>, size: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { rows: rows.into_iter().collect(), size, ..Self::default() }))
    }

    fn answer(&mut self, path: &str) -> (u16, Value) {
        self.requests += 1;
        if self.requests == self.hangs_at {
            return (0, Value::Null);
        }
        if self.requests == self.edits_at {
            // The third moves to the end, the second goes: all others move up by two places.
            let late = self.rows.values().max().copied().unwrap_or_default() + 1_000;
            let ids: Vec<u64> = self.rows.keys().copied().take(3).collect();
            self.rows.remove(&ids[1]);
            self.rows.insert(ids[2], late);
        }
        let number = |name: &str| parameter(path, name).and_then(|text| text.parse::<u64>().ok());
        let (since, until) = (number("since").unwrap_or(0), number("until").unwrap_or(u64::MAX));
        let after = number("after").unwrap_or(0);
        let mut rows: Vec<(u64, u64)> = self.rows.iter().map(|(id, at)| (*id, *at)).collect();
        rows.retain(|(id, at)| (since..=until).contains(at) && (!path.starts_with("/ties") || *id > after));
        if path.starts_with("/things") {
            // Equal times come in no order of ids.
            rows.sort_by_key(|(id, at)| (*at, id.wrapping_mul(2_654_435_761) % 9_973, *id));
        }
        let total = rows.len();
        let mut offset = usize::try_from(number("offset").unwrap_or(0)).unwrap();
        if offset + self.size > CEILING {
            self.refused += 1;
            return (400, json!({"message": "the search goes no further than 10,000"}));
        }
        if self.repeats_last && offset >= total {
            offset = total.saturating_sub(self.size);
        }
        let page: Vec<Value> =
            rows.iter().skip(offset).take(self.size).map(|(id, at)| json!({"id": id, "at": at})).collect();
        let next = offset + page.len();
        let more = next < total || (self.repeats_last && path.starts_with("/things"));
        (200, json!({"items": page, "total": total, "next": more.then_some(next)}))
    }
}

/// A connector `single` with one collection.
fn connector(folder: &Path) {
    let write = |path: &str, text: &str| {
        let path = folder.join("single").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("spec.yml", "key: single\nname: Single\ncategory: crm\nbaseUri: {givenBy: user}\nauth: [none]\n");
    write(
        "data/things/spec.yml",
        "name: Things\ntopic: crm/contacts\ndetects: {created: pull, updated: pull, deleted: not-supported}\n\
         record: {id: $.id, createdAt: $.at, updatedAt: $.at, time: unix-millis}\n\
         cursor: {order: ascending, precision: 1ms, ceiling: 10000}\n",
    );
    write(
        "data/things/pull.rest.yml",
        "path: /things\nquery: {offset: \"{{page.cursor}}\"}\nsince: {since: \"{{since.time}}\"}\n\
         until: {until: \"{{until.time}}\"}\npaging: {kind: cursor, next: $.next, total: $.total}\nrecords: $.items\n",
    );
    write(
        "data/things/ties.rest.yml",
        "path: /ties\nquery: {since: \"{{since.time}}\", until: \"{{until.time}}\", after: \"{{since.id}}\"}\n\
         paging: {kind: cursor, next: $.next}\nrecords: $.items\n",
    );
    write("data/things/record.map.yml", "firstName: {$string: $.at}\n");
}

async fn desk(app: &Arc<Mutex<App>>, initial: InitialSync) -> (Desk, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    connector(folder.path());
    let shared = app.clone();
    let answer: Answer = Arc::new(move |path, _| shared.lock().unwrap().answer(path));
    let base = serve(answer).await;
    let setup = Setup {
        connector: "single",
        base,
        credentials: json!({}),
        collections: &["things"],
        initial,
        connectors: Some(folder.path()),
    };
    (Desk::new(Clock::start(Millis(0)), setup).await, folder)
}

/// The snapshot is what the app has, of the records that it still has.
fn assert_same(desk: &Desk, app: &Arc<Mutex<App>>) {
    let live: BTreeMap<String, String> =
        desk.live("things").into_iter().map(|row| (row.remote_id.clone(), row.fields.clone())).collect();
    for (id, at) in &app.lock().unwrap().rows {
        assert_eq!(live.get(&id.to_string()), Some(&format!("{{\"firstName\":\"{at}\"}}")), "record {id}");
    }
}

#[tokio::test]
async fn a_crash_inside_a_tie_and_polls_from_every_timestamp_lose_nothing_and_tell_nothing_twice() {
    // The page border is inside a tie: five records on each of 400 timestamps.
    let app = App::of((1..=2_000).map(|id| (id, 1_000_000 + (id - 1) / 5)), 47);
    let (desk, _folder) = desk(&app, InitialSync::Emit).await;
    let told = desk_dies_after_the_first_page(&desk, &app).await;
    assert_eq!(told, 47, "the first page is kept");
    desk.pull("things").await;
    assert_same(&desk, &app);
    assert_eq!(desk.told().len(), 2_000, "each is told once");
    for timestamp in 0..400 {
        let cursor = Some(Cursor { time: Millis(1_000_000 + timestamp), ..Cursor::default() });
        desk.set_state("things", CollectionState { cursor, ..desk.state("things") }).await;
        desk.pull("things").await;
        let pull = &desk.pulls()[0];
        assert_eq!(pull.outcome, "completed", "{pull:?}");
        assert!(pull.records >= 5 * (400 - timestamp), "from {timestamp}: {pull:?}");
    }
    assert_eq!(desk.told().len(), 2_000, "nothing is told twice");
    desk.stop().await;
}

/// The look is dropped while the app's second answer is waited for, as when a process ends. How many were told by then.
async fn desk_dies_after_the_first_page(desk: &Desk, app: &Arc<Mutex<App>>) -> usize {
    app.lock().unwrap().hangs_at = 2;
    let asked_twice = async {
        while app.lock().unwrap().requests < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = desk.look() => panic!("it ended"),
        () = asked_twice => {}
    }
    desk.told().len()
}

#[tokio::test]
async fn one_timestamp_with_more_records_than_a_page_or_than_the_ceiling_is_seen_whole_and_ends() {
    for (count, size) in [(31, 10), (25_000, 200)] {
        let app = App::of((1..=count).map(|id| (id, 5_000)).chain([(count + 1, 9_000)]), size);
        let (desk, _folder) = desk(&app, InitialSync::Baseline).await;
        desk.look().await;
        let pull = &desk.pulls()[0];
        assert_eq!(pull.outcome, "completed", "{pull:?}");
        assert_same(&desk, &app);
        let state = desk.state("things");
        assert_eq!((state.records, state.cursor.unwrap().time), (count + 1, Millis(9_000)));
        let app = app.lock().unwrap();
        assert_eq!(app.refused, 0, "the ceiling is never met");
        assert!(app.requests <= 5 + usize::try_from(count).unwrap().div_ceil(size), "{}", app.requests);
    }
}

#[tokio::test]
async fn what_is_edited_or_deleted_during_the_walk_hides_nothing() {
    for edits_at in 1..9 {
        // Eighty on one timestamp, the others one by one.
        let app = App::of((1..=200).map(|id| (id, if id <= 80 { 5_000 } else { 5_000 + id })), 20);
        app.lock().unwrap().edits_at = edits_at;
        let (desk, _folder) = desk(&app, InitialSync::Emit).await;
        desk.look().await;
        desk.pull("things").await;
        assert!(desk.pulls().iter().all(|pull| pull.outcome == "completed"), "{:?}", desk.pulls());
        assert_same(&desk, &app);
        let twice = desk.told().iter().filter(|(kind, _)| kind != "created").count();
        assert!(twice <= 1, "only the record that was edited is told again");
    }
}

#[tokio::test]
async fn a_page_past_the_end_that_is_the_last_one_again_ends_the_walk() {
    for count in [10, 20, 31] {
        let app = App::of((1..=count).map(|id| (id, 5_000 + id / 3)), 10);
        app.lock().unwrap().repeats_last = true;
        let (desk, _folder) = desk(&app, InitialSync::Emit).await;
        desk.look().await;
        assert_eq!(desk.pulls()[0].outcome, "completed", "{count}");
        assert_same(&desk, &app);
        assert_eq!(desk.told().len(), usize::try_from(count).unwrap());
        let requests = app.lock().unwrap().requests;
        assert!(requests < 12, "{count}: {requests}");
    }
}
