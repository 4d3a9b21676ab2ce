//! The process dies at every commit point in turn, and the promises hold.
//!
//! One story is told to a node again and again: events are published, an app is asked for its changes, its webhook comes,
//! and all of it is delivered to a lane with order and to one without. Each time the process dies at another point: before a
//! batch is written, after it, before a sync, after it. What a death leaves is taken in up to three ways: the files as they
//! are; the last batch torn in its middle; everything cut that was not on disk. Each is opened again, and has to come to
//! the same end: nothing acknowledged is lost, nothing is there under two ids, each event came to each lane, in order where
//! order was asked for, and snapshot, cursor and counts agree with the app and with each other.
//!
//! The usual run dies where each kind of commit is met first, and after the last write of each. `TIDEMILL_TEST_LONG=1` (`scripts/check --long`) dies
//! at every point there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::api;
use tidemill::app::{self, Seams};
use tidemill::clock::Clock;
use tidemill::domain::delivery::DeliveryState;
use tidemill::domain::event::Event;
use tidemill::domain::id::{EventId, LaneNo, Seq, WorkspaceNo};
use tidemill::domain::time::Millis;
use tidemill::domain::version::ApiVersion;
use tidemill::sandbox::{self, Handle};
use tidemill::store::{Point, Stops, Store, Table};

use crate::support::api::{Graves, Node};
use crate::support::long;
use crate::support::postbox::{Act, Came, Postbox, Slot};
use crate::support::wreck::{self, Logs, Synced};

const ONE: &str = "/2024-03/one";
const SECRET: &str = "a-long-secret";
const ACCOUNT: &str = "acc_1";
const PLAIN: &str = "http://plain.example/";
const ORDERED: &str = "http://ordered.example/";

/// One commit in each write, so that each is met by itself; nothing is polled unasked.
const SETTINGS: &[(&str, &str)] = &[
    ("TIDEMILL__STORAGE__COMMIT_GROUP_MAX", "1"),
    ("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 0, 0, 0]"),
    ("TIDEMILL__DELIVERY__SIGNING", "[\"hmac\"]"),
];

/// Whose commit it is: the four of the architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Of the door: a webhook, published events, a setting.
    Door,
    Watcher,
    Router,
    Attempt,
}

fn kind(tables: &[Table]) -> Kind {
    let has = |table| tables.contains(&table);
    if has(Table::Deliveries) {
        Kind::Attempt
    } else if has(Table::Snapshots) || has(Table::Pulls) || has(Table::InboxProgress) {
        Kind::Watcher
    } else if has(Table::Queue) || tables == [Table::Meta] {
        Kind::Router
    } else {
        Kind::Door
    }
}

/// One time that the store asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    point: Point,
    /// None at a sync.
    kind: Option<Kind>,
}

/// When to die.
#[derive(Clone, Copy, Debug)]
enum When {
    Never,
    /// At the asking with this number.
    Number(usize),
    /// At the first, second, … of this sort.
    Sort(Asked, usize),
}

#[derive(Default)]
struct Plot {
    is_armed: bool,
    asked: Vec<Asked>,
    /// The logs before the batch that is being written, and as of the last sync that was done.
    before: Logs,
    syncing: Logs,
    synced: Synced,
    wreck: Option<Wreck>,
}

/// What a death leaves.
struct Wreck {
    at: Asked,
    folder: TempDir,
    before: Logs,
    now: Logs,
    synced: Synced,
    /// How much had come by then.
    came: usize,
}

/// The store's confidant.
#[derive(Clone)]
struct Plotter {
    plot: Arc<Mutex<Plot>>,
    folder: PathBuf,
    when: When,
    slot: Slot,
}

impl Plotter {
    fn lock(&self) -> std::sync::MutexGuard<'_, Plot> {
        self.plot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> Stops {
        let plotter = self.clone();
        Stops::planned(Arc::new(move |point, tables| plotter.ask(point, tables)))
    }

    fn ask(&self, point: Point, tables: &[Table]) -> bool {
        let mut plot = self.lock();
        if plot.wreck.is_some() {
            return false;
        }
        let now = wreck::logs(&self.folder);
        match point {
            Point::Made => plot.before = now.clone(),
            Point::Syncing => plot.syncing = now.clone(),
            Point::Synced => plot.synced = Synced::of(&self.folder, plot.syncing.clone()),
            Point::Written => {}
        }
        if !plot.is_armed {
            return true;
        }
        let asked = Asked { point, kind: (!tables.is_empty()).then(|| kind(tables)) };
        plot.asked.push(asked);
        let dies = match self.when {
            When::Never => false,
            When::Number(number) => plot.asked.len() == number + 1,
            When::Sort(sort, nth) => sort == asked && plot.asked.iter().filter(|a| **a == sort).count() == nth + 1,
        };
        if dies {
            // Whoever holds the postbox while it is looked at must not wait for the plot: see `die`.
            let came = self.slot.shut();
            let folder = wreck::copy(&self.folder);
            let (before, synced) = (plot.before.clone(), plot.synced.clone());
            plot.wreck = Some(Wreck { at: asked, folder, before, now, synced, came });
        }
        !dies
    }
}

/// What stays while nodes come and go: the app and the receivers.
struct World {
    app: Handle,
    http: reqwest::Client,
    base: TempDir,
    connection: String,
    webhook: String,
    orders: usize,
    graves: Graves,
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

async fn open(folder: TempDir, stops: Stops, slot: &Slot) -> Node {
    let seams = Seams { driver: Some(slot.driver()), stops, kinds: &[] };
    Node::open(folder, SETTINGS, api::configure, app::wall_clock(), seams).await
}

impl World {
    /// Makes what each story begins with: a connection whose baseline is complete, and two subscriptions.
    async fn new() -> Self {
        let app = sandbox::run(sandbox::Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        let postbox = Postbox::new(Clock::still(Millis(0)), |_| Act::Answer(200, None));
        let node = open(TempDir::new().expect("a folder"), Stops::default(), &postbox.slot()).await;
        let user = text(&node.post(&at("users"), json!({"username": "ann"})).await.ok()["userId"]);
        let parameters = json!({"baseUri": app.url(), "webhookSecret": SECRET});
        let made = node.post(&at("integrations"), json!({"connector": "sandbox", "parameters": parameters})).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        let hooks = node.get(&at(&format!("integrations/{integration}/webhooks"))).await.ok();
        let uri = url::Url::parse(&text(&hooks["webhooks"][0]["uri"])).expect("a URL");
        let wish = json!({
            "userId": user, "integrationId": integration, "credentials": {"apiKey": app.key(1)},
            "pollIntervalSeconds": 604_800, "fullScanIntervalSeconds": 604_800, "collections": ["orders"],
        });
        let made = node.post(&at("connections"), wish).await;
        let connection = text(&made.ok()["connection"]["connectionId"]);
        node.post(&at(&format!("connections/{connection}/events")), json!({"event": "order-changed"})).await.ok();
        for (address, ordering) in [(PLAIN, "none"), (ORDERED, "record")] {
            let wish = json!({"address": address, "topic": ["crm/*", "commerce/*"], "ordering": ordering});
            node.post(&at("webhooks"), wish).await.ok();
        }
        // One that the server closes while it is taken up again would be nobody's failure.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        let orders = 0;
        let base = TempDir::new().expect("a folder");
        let mut world =
            Self { app, http, base, connection, webhook: uri.path().to_owned(), orders, graves: Graves::default() };
        world.sync(&node).await.expect("taken");
        world.rest(&node, &postbox).await;
        world.base = node.stop().await;
        world
    }

    /// Asks for a look at the app; None if nobody answers.
    async fn sync(&self, node: &Node) -> Option<()> {
        let path = at(&format!("connections/{}/sync", self.connection));
        let asked = node.post(&path, json!({"mode": "incremental"})).await;
        (asked.status == 202).then_some(())
    }

    /// Changes an order of the app; answers its id.
    async fn change(&mut self, note: &str) -> String {
        let id = (3_000_001 + self.orders % 50).to_string();
        self.orders += 1;
        let wish = json!({"account": ACCOUNT, "collection": "orders", "kind": "updated", "id": id,
            "fields": {"note": note}});
        let url = format!("{}/control/changes", self.app.url());
        let asked = self.http.post(url).header("content-type", "application/json").body(wish.to_string());
        assert!(asked.send().await.expect("an answer").status().is_success());
        id
    }

    /// The app's webhook about an order; the status that the node gives.
    async fn push(&self, node: &Node, order: &str) -> u16 {
        let body = json!({"id": "evt_1", "event": "order.updated", "account_id": ACCOUNT, "data": {"id": order}});
        let body = body.to_string();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = hex::encode(aws_lc_rs::hmac::sign(&key, body.as_bytes()));
        let headers = [("content-type", "application/json"), ("x-sandbox-signature", signature.as_str())];
        node.send("POST", &self.webhook, &headers, &body).await.status
    }

    /// Waits until nothing is left to do: no sync, no webhook, no event to route, no delivery.
    async fn rest(&self, node: &Node, postbox: &Postbox) {
        let store = node.engine.store.clone();
        let connection = self.connection.parse().expect("an id");
        let quiet = postbox.until(|_| {
            let idle = store.sync_requests(connection).expect("read").is_empty()
                && store.inbox_owners().expect("read").is_empty()
                && store.routed().expect("read") >= last(&store)
                && lanes(&store).iter().all(|lane| store.lane_counts(*lane).expect("read").pending == 0)
                && store.pulls(connection, None, 20).expect("read").0.iter().all(|pull| pull.outcome != "running");
            idle.then_some(())
        });
        quiet.await.unwrap_or_else(|| panic!("the node does not come to rest: {}", owed(&store)));
    }
}

fn owed(store: &Store) -> String {
    let counts: Vec<_> = lanes(store).into_iter().map(|lane| store.lane_counts(lane)).collect();
    format!("{counts:?}, routed {:?} of {:?}, inbox {:?}", store.routed(), last(store), store.inbox_owners())
}

/// The last event of the log.
fn last(store: &Store) -> Seq {
    let newest = store.workspace_events(WorkspaceNo(0), None, 1).expect("read");
    newest.first().copied().unwrap_or(Seq(0))
}

/// The lanes of both subscriptions.
fn lanes(store: &Store) -> Vec<LaneNo> {
    (1..=2).map(LaneNo).filter(|lane| store.has_lane(*lane).expect("read")).collect()
}

/// What the node has acknowledged in one telling of the story.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Number in the payload, and the event's id if it was answered.
    published: BTreeMap<u64, Option<String>>,
    /// A webhook was answered with a 2xx.
    pushed: bool,
    changed: Vec<String>,
}

async fn publish(node: &Node, number: u64) -> Option<String> {
    let body = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {"number": number}});
    let (key, bearer) = (format!("key-{number}"), format!("Bearer {}", crate::support::api::KEY));
    let headers =
        [("authorization", bearer.as_str()), ("idempotency-key", key.as_str()), ("content-type", "application/json")];
    let answer = node.send("POST", &at("events"), &headers, &body.to_string()).await;
    match answer.status {
        202 => Some(text(&answer.json()["eventId"])),
        500.. => None,
        _ => panic!("{}: {}", answer.status, answer.text),
    }
}

/// Tells the story to a node that may die at any time; what it acknowledged.
async fn tell(world: &mut World, node: &Node, numbers: std::ops::Range<u64>, is_dead: impl Fn() -> bool) -> Told {
    let mut told = Told::default();
    told.changed.push(world.change(&format!("pulled {numbers:?}")).await);
    let hooked = world.change(&format!("pushed {numbers:?}")).await;
    told.changed.push(hooked.clone());
    for number in numbers.clone() {
        told.published.insert(number, publish(node, number).await);
        if is_dead() {
            return told;
        }
        if number == numbers.start {
            told.pushed = world.push(node, &hooked).await / 100 == 2;
        } else if number == numbers.start + 1 {
            world.sync(node).await;
        }
    }
    told
}

/// All events of the log about data, oldest first.
fn log(store: &Store) -> Vec<(EventId, Event)> {
    let (mut all, mut after) = (Vec::new(), Seq(0));
    loop {
        let (events, more) = store.events_after(after, last(store), 500).expect("read");
        after = events.last().map_or(after, |(seq, _)| *seq);
        all.extend(events.into_iter().map(|(seq, event)| (EventId::new(seq, event.workspace), event)));
        if !more {
            break;
        }
    }
    all.retain(|(_, event)| event.topic.starts_with("crm/") || event.topic.starts_with("commerce/"));
    all
}

/// The promises, once the node is at rest.
async fn check(world: &World, node: &Node, came: &[Came], told: &Told) {
    let store = &node.engine.store;
    let log = log(store);
    let mut numbers: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut changes: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (id, event) in &log {
        let json = body(store, *id);
        match json["number"].as_u64() {
            Some(number) => numbers.entry(number).or_default().push(id.to_string()),
            None => {
                let change = (text(&json["id"]), format!("{:?} {}", event.update_type, json["remoteUpdatedAt"]));
                changes.entry(change).or_default().push(id.to_string());
            }
        }
    }
    for (number, id) in &told.published {
        let there = numbers.get(number).cloned().unwrap_or_default();
        assert!(there.len() <= 1, "number {number} is there under {there:?}");
        match id {
            Some(id) => assert_eq!(there, std::slice::from_ref(id), "number {number} was acknowledged"),
            None => assert_eq!(there.len(), 1, "number {number} was asked for again"),
        }
    }
    for (change, ids) in changes {
        assert_eq!(ids.len(), 1, "{change:?} is there under {ids:?}");
    }
    delivered(&log, came);
    counted(store);
    agrees(world, node, told).await;
}

fn body(store: &Store, id: EventId) -> Value {
    let event = store.event(id.parts().0).expect("read").expect("there");
    let text = tidemill::domain::body::record(&event.payload, ApiVersion::V2024_03);
    serde_json::from_str(&text).expect("JSON")
}

/// Each event came to both lanes, under its own id, and nothing else did; in order to the one that asked for it.
fn delivered(log: &[(EventId, Event)], came: &[Came]) {
    let ids: BTreeSet<EventId> = log.iter().map(|(id, _)| *id).collect();
    for address in [PLAIN, ORDERED] {
        let here: Vec<&Came> = came.iter().filter(|came| *came.address == *address).collect();
        let had: BTreeSet<EventId> = here.iter().map(|came| came.event).collect();
        let lost: Vec<_> = ids.difference(&had).collect();
        assert!(lost.is_empty(), "{lost:?} never came to {address}");
        let strange: Vec<_> = had.difference(&ids).collect();
        assert!(strange.is_empty(), "{strange:?} came to {address} and are not in the log");
        let mut bodies = BTreeMap::new();
        for one in here {
            let first = bodies.entry(one.event).or_insert(&one.body);
            assert_eq!(*first, &one.body, "{} came with two bodies", one.event);
        }
    }
    let mut newest: BTreeMap<String, EventId> = BTreeMap::new();
    for one in came.iter().filter(|came| *came.address == *ORDERED) {
        let json: Value = serde_json::from_str(&one.body).expect("JSON");
        let Some(record) = json["dataPayload"]["id"].as_str() else { continue };
        let before = newest.insert(record.to_owned(), one.event);
        assert!(before.is_none_or(|before| before <= one.event), "{} came after {before:?}", one.event);
    }
}

/// The counts are what a scan finds, and each delivery has ended well.
fn counted(store: &Store) {
    for lane in lanes(store) {
        let rows = store.deliveries(lane, None, 10_000).expect("read");
        let counts = store.lane_counts(lane).expect("read");
        let well = rows.iter().filter(|(_, row)| matches!(row.state, DeliveryState::Delivered { .. })).count();
        assert_eq!((counts.pending, counts.dead, counts.cancelled), (0, 0, 0), "lane {}", lane.0);
        assert_eq!((counts.delivered as usize, rows.len()), (well, well), "lane {}", lane.0);
        assert!(store.fresh_deliveries(lane, Seq(0), 10).expect("read").is_empty());
        assert!(store.retry_deliveries(lane, 10).expect("read").is_empty());
    }
}

/// The snapshot is what the app has.
async fn agrees(world: &World, node: &Node, told: &Told) {
    let url = format!("{}/control/records?account={ACCOUNT}&collection=orders", world.app.url());
    let theirs = world.http.get(url).send().await.expect("an answer").text().await.expect("text");
    let theirs: Value = serde_json::from_str(&theirs).expect("JSON");
    let theirs = theirs["accounts"][ACCOUNT]["orders"]["records"].as_array().expect("records").clone();
    for id in &told.changed {
        let path = at(&format!("commerce/orders/{id}?connectionId={}", world.connection));
        let ours = node.get(&path).await.ok()["order"].clone();
        let app = theirs.iter().find(|record| text(&record["id"]) == *id).expect("the app has it");
        assert_eq!((&ours["note"], &ours["remoteUpdatedAt"]), (&app["note"], &app["updated_at"]), "order {id}");
    }
}

/// One death and all that may be left of it.
async fn die(world: &mut World, when: When, numbers: std::ops::Range<u64>) -> (Vec<Asked>, Option<Asked>) {
    let postbox = Postbox::new(Clock::still(Millis(0)), |_| Act::Answer(200, None));
    let folder = wreck::copy(world.base.path());
    let slot = postbox.slot();
    let plotter = Plotter { plot: Arc::default(), folder: folder.path().to_owned(), when, slot: slot.clone() };
    let node = open(folder, plotter.stops(), &slot).await;
    plotter.lock().is_armed = true;
    let is_dead = || slot.is_shut();
    let told = tell(world, &node, numbers, is_dead).await;
    if !is_dead() {
        // It dies on the way to rest, or never.
        let store = node.engine.store.clone();
        let connection = world.connection.parse().expect("an id");
        let ended = postbox.until(|_| {
            let quiet = store.sync_requests(connection).expect("read").is_empty()
                && store.inbox_owners().expect("read").is_empty()
                && store.routed().expect("read") >= last(&store)
                && lanes(&store).iter().all(|lane| store.lane_counts(*lane).expect("read").pending == 0);
            (quiet || is_dead()).then_some(())
        });
        ended.await.unwrap_or_else(|| panic!("it neither dies nor comes to rest: {}", owed(&store)));
    }
    let (asked, wreck) = {
        let mut plot = plotter.lock();
        plot.is_armed = false;
        (plot.asked.clone(), plot.wreck.take())
    };
    let Some(wreck) = wreck else {
        world.sync(&node).await;
        world.rest(&node, &postbox).await;
        check(world, &node, &postbox.came(), &told).await;
        node.die(&mut world.graves).await;
        return (asked, None);
    };
    node.die(&mut world.graves).await;
    let before = &postbox.came()[..wreck.came];
    let autopsies = leftovers(&wreck).into_iter().map(|(name, lengths)| {
        let folder = wreck::copy(wreck.folder.path());
        let lost = lengths.map_or(0, |lengths| wreck::cut(folder.path(), &lengths, &wreck.synced));
        println!("  {:?}: {name}, {lost} bytes less", wreck.at);
        autopsy(world, folder, before, told.clone())
    });
    for grave in futures_util::future::join_all(autopsies.collect::<Vec<_>>()).await {
        world.graves.add(grave);
    }
    // So that a long run does not hold all that it opened.
    world.graves.fill(8).await;
    (asked, Some(wreck.at))
}

/// What may be left: the files as they are; the last batch torn; only what was on disk.
fn leftovers(wreck: &Wreck) -> Vec<(&'static str, Option<Logs>)> {
    let mut all = vec![("as it is", None)];
    if wreck.at.point == Point::Written {
        let torn: Logs = wreck
            .now
            .iter()
            .map(|(name, now)| {
                let before = wreck.before.get(name).copied().unwrap_or(0);
                let synced = wreck.synced.logs.get(name).copied().unwrap_or(0);
                (name.clone(), (before + (now - before) / 2).max(synced))
            })
            .collect();
        all.push(("torn", Some(torn)));
    }
    all.push(("without power", Some(wreck.synced.logs.clone())));
    all
}

/// Opens what is left, lets whoever got no answer ask again, and checks the promises.
async fn autopsy(world: &World, folder: TempDir, before: &[Came], mut told: Told) -> Graves {
    let postbox = Postbox::new(Clock::still(Millis(0)), |_| Act::Answer(200, None));
    let node = open(folder, Stops::default(), &postbox.slot()).await;
    if told.pushed {
        // Stored before it was answered: it is understood without anybody's help, or has been.
        world.rest(&node, &postbox).await;
        let hooked = &told.changed[1..];
        agrees(world, &node, &Told { changed: hooked.to_vec(), ..Told::default() }).await;
    }
    for (number, id) in &mut told.published {
        let again = publish(&node, *number).await.expect("the node lives");
        let first = id.get_or_insert_with(|| again.clone());
        assert_eq!(*first, again, "number {number}: the same key gives the same event");
    }
    world.sync(&node).await.expect("the node lives");
    world.rest(&node, &postbox).await;
    let came: Vec<Came> = before.iter().cloned().chain(postbox.came()).collect();
    check(world, &node, &came, &told).await;
    let mut grave = Graves::default();
    node.die(&mut grave).await;
    grave
}

/// Numbers of the events of the nth story.
fn numbers(story: usize) -> std::ops::Range<u64> {
    let first = story as u64 * 10;
    first..first + 3
}

/// The points at which each sort is met first; what is written, where it is met last too.
fn chosen(asked: &[Asked]) -> Vec<When> {
    let mut counts: BTreeMap<Asked, usize> = BTreeMap::new();
    asked.iter().for_each(|asked| *counts.entry(*asked).or_default() += 1);
    let mut all = BTreeSet::new();
    for (sort, count) in counts {
        all.insert((sort, 0));
        if sort.point == Point::Written {
            all.insert((sort, count - 1));
        }
    }
    all.into_iter().map(|(sort, nth)| When::Sort(sort, nth)).collect()
}

#[actix::test]
async fn the_promises_hold_wherever_the_process_dies() {
    let mut world = World::new().await;
    let (asked, _) = die(&mut world, When::Never, numbers(0)).await;
    let all: Vec<When> = if long() { (0..asked.len() + 10).map(When::Number).collect() } else { chosen(&asked) };
    println!("{} points, {} deaths", asked.len(), all.len());
    let mut died: BTreeMap<Asked, usize> = BTreeMap::new();
    for (story, when) in all.into_iter().enumerate() {
        if let (_, Some(at)) = die(&mut world, when, numbers(story + 1)).await {
            *died.entry(at).or_default() += 1;
        }
    }
    world.graves.fill(0).await;
    println!("{died:#?}");
    for point in [Point::Made, Point::Written] {
        for kind in [Kind::Door, Kind::Watcher, Kind::Router, Kind::Attempt] {
            assert!(died.contains_key(&Asked { point, kind: Some(kind) }), "nobody died at {point:?} of {kind:?}");
        }
    }
    for point in [Point::Syncing, Point::Synced] {
        assert!(died.contains_key(&Asked { point, kind: None }), "nobody died at {point:?}");
    }
}
