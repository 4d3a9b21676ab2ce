//! The delivery engine against a small model: random stories of publishing, answers of every kind, jumps of the clock,
//! deaths of the process, switching off and on, skipped and cancelled backlogs, resends and replays.
//!
//! A story is drawn from a seed, told to a whole node (its store on disk, its receivers a postbox, its clock still until it
//! is moved), and laid beside the model afterwards: every accepted event is owed to every lane exactly once; each of its
//! attempts came when the pure rule of `domain::delivery` says, and led to what it says; nothing is sent twice at once;
//! where order was asked for, a record's events came one after the other; what is dead has used up its schedule, what is
//! cancelled was skipped or cancelled by name, what is superseded was never sent; a replay sends each event of its range
//! once, and none that was still owed; and the counts are what a scan finds.
//!
//! The usual run tells a handful of fixed seeds. `TIDEMILL_TEST_LONG=1` (`scripts/check --long`) tells two thousand;
//! `TIDEMILL_TEST_SEED=7` tells that one, `TIDEMILL_TEST_SEED=7..20` those.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::api;
use tidemill::app::Seams;
use tidemill::clock::Clock;
use tidemill::destinations::Parcel;
use tidemill::domain::delivery::{Attempt, Cause, DeliveryState, Outcome, settle};
use tidemill::domain::id::{DeliveryId, EventId, LaneNo, ReplayId, Seq, WorkspaceNo};
use tidemill::domain::replay::ReplayState;
use tidemill::domain::retry::{Pace, Schedule};
use tidemill::domain::time::Millis;
use tidemill::store::{DeliveryRow, Stops, Store};

use crate::support::api::{Graves, Node};
use crate::support::long;
use crate::support::postbox::{Act, Came, Postbox, Slot};
use crate::support::wreck;

const ONE: &str = "/2024-03/one";
const START: Millis = Millis(1_800_000_000_000);
const SCHEDULE: [u32; 5] = [0, 10, 60, 300, 900];
const WINDOW: usize = 4;
/// Acts of one story.
const ACTS: usize = 60;
const SEEDS: u64 = 4;
const SEEDS_LONG: u64 = 2_000;

const SETTINGS: &[(&str, &str)] = &[
    ("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 10, 60, 300, 900]"),
    ("TIDEMILL__DELIVERY__RETRY_JITTER_PERCENT", "0"),
    ("TIDEMILL__DELIVERY__SIGNING", "[\"hmac\"]"),
    // Nothing is forgotten while it is still looked at.
    ("TIDEMILL__RETENTION__EVENTS_SECONDS", "31536000"),
    ("TIDEMILL__RETENTION__UNDELIVERED_SECONDS", "31536000"),
    ("TIDEMILL__RETENTION__DELIVERED_SECONDS", "31536000"),
];

/// What a lane asks for.
struct Wish {
    address: &'static str,
    ordered: bool,
    coalesce: bool,
    per_second: Option<u32>,
}

const WISHES: [Wish; 4] = [
    Wish { address: "http://plain.example/", ordered: false, coalesce: false, per_second: None },
    Wish { address: "http://ordered.example/", ordered: true, coalesce: false, per_second: None },
    Wish { address: "http://newest.example/", ordered: true, coalesce: true, per_second: None },
    Wish { address: "http://paced.example/", ordered: false, coalesce: true, per_second: Some(2) },
];

/// How the receiver of a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fair,
    Fitful,
    Down,
    /// As fitful, and some say that they are gone for ever.
    Gone,
}

fn act(weather: Weather, draw: u64) -> Act {
    let answer = |status| Act::Answer(status, None);
    let later = |status, wait: &str| Act::Answer(status, Some(wait.to_owned()));
    let failures = [
        answer(500),
        answer(404),
        answer(302),
        answer(503),
        later(429, "30"),
        later(503, "2"),
        later(429, "soon"),
        Act::Cut,
        Act::Refuse,
        Act::Hang,
    ];
    let failure = failures[(draw / 16 % failures.len() as u64) as usize].clone();
    match (weather, draw % 16) {
        (Weather::Fair, _) | (Weather::Fitful, 0..8) => answer(200 + (draw % 3) as u16),
        (Weather::Gone, 0..3) => answer(410),
        (Weather::Gone, 3..9) => answer(200),
        _ => failure,
    }
}

/// A number that depends on all of these and on nothing else.
fn draw(seed: u64, parcel: &Parcel, life: u64) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (seed, parcel.address.as_ref(), parcel.body.as_ref(), parcel.attempt, parcel.replay, life).hash(&mut hasher);
    hasher.finish()
}

/// A subscription of the story.
struct Sub {
    id: String,
    lane: LaneNo,
    wish: &'static Wish,
    is_enabled: bool,
    /// Its backlog was skipped or cancelled at least once.
    skipped: bool,
    /// Cancelled by name, and the answer said so.
    cancelled: BTreeSet<Seq>,
    resent: BTreeSet<Seq>,
    /// At most one in a story, and none where something was sent again by itself, so that an attempt that says that it is
    /// a replay tells which delivery it is of.
    replay: Option<Replayed>,
}

/// A replay of everything up to a moment.
struct Replayed {
    id: ReplayId,
    /// What had ended when it was asked for: it must be sent again.
    ended: BTreeSet<Seq>,
    /// What was in the log by then: nothing else may be.
    log: Seq,
    cancelled: bool,
}

/// A process from its start to its death.
struct Life {
    node: Node,
    slot: Slot,
    /// The store dies at its next commit point.
    dies: Arc<AtomicBool>,
}

struct Story {
    seed: u64,
    rng: fastrand::Rng,
    life: Life,
    /// Places in the postbox at which a life ended.
    deaths: Vec<usize>,
    postbox: Postbox,
    clock: Clock,
    weather: Arc<Mutex<BTreeMap<&'static str, Weather>>>,
    subs: Vec<Sub>,
    /// Number in the payload, and the id that was answered.
    published: BTreeMap<u64, Option<EventId>>,
    told: Vec<String>,
    graves: Graves,
}

async fn open(folder: TempDir, clock: &Clock, slot: Slot) -> Life {
    let dies = Arc::new(AtomicBool::new(false));
    let asked = dies.clone();
    let stops = Stops::planned(Arc::new(move |_, _| !asked.load(Ordering::SeqCst)));
    let seams = Seams { driver: Some(slot.driver()), stops, kinds: &[] };
    let node = Node::open(folder, SETTINGS, api::configure, clock.clone(), seams).await;
    Life { node, slot, dies }
}

fn at(path: &str) -> String {
    format!("{ONE}/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// A folder with the subscriptions, and their ids.
async fn base() -> (TempDir, Vec<String>) {
    let postbox = Postbox::new(Clock::still(START), |_| Act::Answer(200, None));
    let life = open(TempDir::new().expect("a folder"), &Clock::still(START), postbox.slot()).await;
    let mut ids = Vec::new();
    for wish in &WISHES {
        let mut body = json!({
            "address": wish.address, "topic": ["crm/*"], "maxInFlight": WINDOW, "coalesce": wish.coalesce,
            "ordering": if wish.ordered { "record" } else { "none" },
        });
        if let Some(per_second) = wish.per_second {
            body["ratePerSecond"] = per_second.into();
        }
        let made = life.node.post(&at("webhooks"), body).await.ok();
        ids.push(text(&made["subscription"]["subscriptionId"]));
    }
    (life.node.stop().await, ids)
}

impl Story {
    async fn begin(seed: u64, base: &Path, ids: &[String]) -> Self {
        let clock = Clock::still(START);
        let weather: Arc<Mutex<BTreeMap<&'static str, Weather>>> = Arc::default();
        let postbox = Postbox::new(clock.clone(), |_| Act::Answer(200, None));
        let life = open(wreck::copy(base), &clock, postbox.slot()).await;
        let subs = ids.iter().zip(&WISHES).enumerate().map(|(number, (id, wish))| Sub {
            id: id.clone(),
            lane: LaneNo(number as u32 + 1),
            wish,
            is_enabled: true,
            skipped: false,
            cancelled: BTreeSet::new(),
            resent: BTreeSet::new(),
            replay: None,
        });
        let story = Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            life,
            deaths: Vec::new(),
            postbox,
            clock,
            weather,
            subs: subs.collect(),
            published: BTreeMap::new(),
            told: Vec::new(),
            graves: Graves::default(),
        };
        story.answer();
        story
    }

    /// The receivers do as the weather is, each attempt by itself.
    fn answer(&self) {
        let (seed, life, weather) = (self.seed, self.deaths.len() as u64, self.weather.clone());
        self.postbox.answers(move |parcel| {
            let weather = weather.lock().unwrap_or_else(PoisonError::into_inner);
            let weather = weather.get(parcel.address.as_ref()).copied().unwrap_or(Weather::Fair);
            act(weather, draw(seed, parcel, life))
        });
    }

    fn store(&self) -> &Store {
        &self.life.node.engine.store
    }

    fn ring(&self) {
        self.subs.iter().for_each(|sub| self.life.node.engine.rings.lane(sub.lane));
        self.life.node.engine.rings.replays_changed();
    }

    fn pending(&self) -> u64 {
        self.subs.iter().map(|sub| self.store().lane_counts(sub.lane).expect("read").pending).sum()
    }

    /// Lets the node do what it can now. Nothing depends on how far it comes; it makes stories longer than one breath.
    async fn breathe(&self) {
        let (mut before, mut same) = ((0, 0), 0);
        for _ in 0..100 {
            let now = (self.postbox.count(), self.pending());
            let routed = self.store().routed().expect("read") >= last(self.store());
            let waits = self.postbox.came().iter().filter(|came| came.ended.is_none() && came.act != Act::Hang).count();
            same = if now == before && routed && waits == 0 { same + 1 } else { 0 };
            before = now;
            if same >= 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn step(&mut self) {
        let sub = self.rng.usize(..self.subs.len());
        match self.rng.u32(..100) {
            0..40 => self.publish().await,
            40..55 => self.turn_weather(sub),
            55..78 => self.pass_time(),
            78..82 => self.switch(sub).await,
            82..84 => self.skip(sub).await,
            84..85 => self.cancel_all(sub).await,
            85..87 => self.cancel_one(sub).await,
            87..90 => self.resend(sub).await,
            90..95 => self.replay(sub).await,
            95..97 => self.enable_all().await,
            _ => self.die().await,
        }
        self.breathe().await;
    }

    fn tell(&mut self, what: String) {
        self.told.push(what);
    }

    async fn publish(&mut self) {
        let many = self.rng.usize(1..8);
        let mut batch = Vec::new();
        let first = self.published.len() as u64;
        for number in first..first + many as u64 {
            let kind = ["created", "updated", "updated", "updated", "deleted"][self.rng.usize(..5)];
            let payload = json!({"id": self.rng.u32(..4), "number": number});
            batch.push(json!({"topic": "crm/contacts", "updateType": kind, "dataPayload": payload}));
            self.published.insert(number, None);
        }
        self.tell(format!("publish {many} from {first}"));
        let answer = self.life.node.post(&at("events"), Value::Array(batch)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        for (number, id) in (first..).zip(answer.json()["eventIds"].as_array().expect("ids")) {
            self.published.insert(number, Some(text(id).parse().expect("an id")));
        }
    }

    fn turn_weather(&mut self, sub: usize) {
        let weather = [Weather::Fair, Weather::Fitful, Weather::Fitful, Weather::Down, Weather::Gone];
        let weather = weather[self.rng.usize(..weather.len())];
        let address = self.subs[sub].wish.address;
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).insert(address, weather);
        self.tell(format!("{address} is {weather:?}"));
    }

    fn pass_time(&mut self) {
        let seconds = [1, 5, 10, 15, 60, 300, 900, 3_600, 86_400][self.rng.usize(..9)];
        self.tell(format!("{seconds} s pass"));
        self.postbox.advance(Duration::from_secs(seconds));
        self.ring();
    }

    async fn switch(&mut self, sub: usize) {
        let (id, enabled) = (self.subs[sub].id.clone(), !self.subs[sub].is_enabled);
        self.tell(format!("{} is switched {enabled}", self.subs[sub].wish.address));
        let body = json!({"isEnabled": enabled});
        self.life.node.call("PATCH", &at(&format!("webhooks/{id}")), Some(body)).await.ok();
        self.subs[sub].is_enabled = enabled;
    }

    async fn skip(&mut self, sub: usize) {
        let id = self.subs[sub].id.clone();
        self.tell(format!("{} skips its backlog", self.subs[sub].wish.address));
        self.life.node.post(&at(&format!("webhooks/{id}/enable")), json!({"backlog": "skip"})).await.ok();
        (self.subs[sub].is_enabled, self.subs[sub].skipped) = (true, true);
    }

    async fn enable_all(&mut self) {
        self.tell("all are enabled".to_owned());
        for sub in &mut self.subs {
            let path = at(&format!("webhooks/{}/enable", sub.id));
            self.life.node.post(&path, json!({"backlog": "drain"})).await.ok();
            sub.is_enabled = true;
        }
    }

    /// Cancels what waits, all of it.
    async fn cancel_all(&mut self, sub: usize) {
        let id = self.subs[sub].id.clone();
        self.tell(format!("{} cancels what waits", self.subs[sub].wish.address));
        self.life.node.post(&at(&format!("webhooks/{id}/deliveries/cancel")), json!({})).await.ok();
        self.subs[sub].skipped = true;
    }

    /// Cancels the first delivery of an event, if it still waits.
    async fn cancel_one(&mut self, sub: usize) {
        let known: Vec<EventId> = self.published.values().rev().take(10).copied().flatten().collect();
        if known.is_empty() {
            return;
        }
        let seq = known[self.rng.usize(..known.len())].parts().0;
        let id = DeliveryId::new(seq, self.subs[sub].lane);
        let answer = self.life.node.post(&at(&format!("deliveries/{id}/cancel")), json!({})).await;
        self.tell(format!("{} cancels {id}: {}", self.subs[sub].wish.address, answer.status));
        match answer.status {
            200 => drop(self.subs[sub].cancelled.insert(seq)),
            // It has ended or flies, or the router has not come to it.
            409 | 404 => {}
            other => panic!("{other}: {}", answer.text),
        }
    }

    /// Sends everything so far again; once it is under way, stops it, lets it go on, or cancels it.
    async fn replay(&mut self, sub: usize) {
        let address = self.subs[sub].wish.address;
        if let Some(replay) = &mut self.subs[sub].replay {
            let what = ["pause", "resume", "resume", "cancel"][self.rng.usize(..4)];
            let id = replay.id;
            let answer = self.life.node.post(&at(&format!("replays/{id}/{what}")), json!({})).await;
            assert!(matches!(answer.status, 200 | 409), "{what}: {}", answer.text);
            replay.cancelled |= what == "cancel" && answer.status == 200;
            self.tell(format!("the replay of {address}: {what}, {}", answer.status));
            return;
        }
        if !self.subs[sub].resent.is_empty() {
            return;
        }
        let (store, lane) = (self.store(), self.subs[sub].lane);
        let rows = store.deliveries(lane, None, 100_000).expect("read");
        let ended = rows.iter().filter(|(_, row)| !matches!(row.state, DeliveryState::Due { .. }));
        let (ended, log) = (ended.map(|(_, row)| row.event).collect(), last(store));
        let body = json!({"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"});
        let made = self.life.node.post(&at(&format!("webhooks/{}/replays", self.subs[sub].id)), body).await.ok();
        let id = text(&made["replay"]["replayId"]).parse().expect("an id");
        self.tell(format!("{address} wants everything again: {id}"));
        self.subs[sub].replay = Some(Replayed { id, ended, log, cancelled: false });
    }

    /// Asks for one delivery again that has ended, and was not asked for again before.
    async fn resend(&mut self, sub: usize) {
        if self.subs[sub].replay.is_some() {
            return;
        }
        let lane = self.subs[sub].lane;
        let rows = self.store().deliveries(lane, None, 1_000).expect("read");
        let ended =
            |row: &DeliveryRow| matches!(row.state, DeliveryState::Delivered { .. } | DeliveryState::Dead { .. });
        let fits = |row: &DeliveryRow| ended(row) && !row.replay && !self.subs[sub].resent.contains(&row.event);
        let fitting: Vec<_> = rows.into_iter().filter(|(_, row)| fits(row)).collect();
        if fitting.is_empty() {
            return;
        }
        let (id, row) = fitting[self.rng.usize(..fitting.len())].clone();
        self.tell(format!("{} wants {id} again", self.subs[sub].wish.address));
        self.life.node.post(&at(&format!("deliveries/{id}/resend")), json!({})).await.ok();
        self.subs[sub].resent.insert(row.event);
    }

    /// The process dies, with whatever it is doing, and comes back.
    async fn die(&mut self) {
        self.tell("it dies".to_owned());
        self.life.dies.store(true, Ordering::SeqCst);
        self.life.slot.shut();
        let left = wreck::copy(self.life.node.folder.path());
        self.deaths.push(self.postbox.count());
        self.answer();
        let next = open(left, &self.clock, self.postbox.slot()).await;
        std::mem::replace(&mut self.life, next).node.die(&mut self.graves).await;
    }

    /// All receivers are well and all lanes enabled, and time passes until nothing is owed.
    async fn end(&mut self) {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.enable_all().await;
        for replay in self.subs.iter().filter_map(|sub| sub.replay.as_ref()) {
            let answer = self.life.node.post(&at(&format!("replays/{}/resume", replay.id)), json!({})).await;
            assert!(matches!(answer.status, 200 | 409), "{}", answer.text);
        }
        for _ in 0..1_000 {
            self.breathe().await;
            let routed = self.store().routed().expect("read") >= last(self.store());
            if routed && self.pending() == 0 && self.store().live_replays().expect("read").is_empty() {
                return;
            }
            self.postbox.advance(Duration::from_secs(10));
            self.ring();
        }
        let counts: Vec<_> = self.subs.iter().map(|sub| self.store().lane_counts(sub.lane)).collect();
        panic!("the lanes do not come to rest: {counts:?}");
    }
}

fn last(store: &Store) -> Seq {
    let newest = store.workspace_events(WorkspaceNo(0), None, 1).expect("read");
    newest.first().copied().unwrap_or(Seq(0))
}

/// What the story must have led to.
struct Model<'a> {
    story: &'a Story,
    came: Vec<Came>,
    /// Events of the log about data: id, number in the payload, record, whether it is an update.
    log: Vec<(EventId, u64, u64, bool)>,
}

impl<'a> Model<'a> {
    fn of(story: &'a Story) -> Self {
        let store = story.store();
        let (events, more) = store.events_after(Seq(0), last(store), 100_000).expect("read");
        assert!(!more);
        let mut log = Vec::new();
        for (seq, event) in events.into_iter().filter(|(_, event)| event.topic == "crm/contacts") {
            let tidemill::domain::event::Payload::Plain(payload) = &event.payload else { panic!("as published") };
            let payload: Value = serde_json::from_str(payload).expect("JSON");
            let number = |name: &str| payload[name].as_u64().expect("a number");
            let is_update = event.update_type.as_deref() == Some("updated");
            log.push((EventId::new(seq, WorkspaceNo(0)), number("number"), number("id"), is_update));
        }
        Self { story, came: story.postbox.came(), log }
    }

    fn check(&self) {
        self.accepted_once();
        self.nothing_strange_came();
        for sub in &self.story.subs {
            self.lane(sub);
        }
    }

    /// What was acknowledged is in the log, under that id and no other; nothing is there twice.
    fn accepted_once(&self) {
        let mut by_number: BTreeMap<u64, EventId> = BTreeMap::new();
        for (id, number, ..) in &self.log {
            let former = by_number.insert(*number, *id);
            assert!(former.is_none(), "number {number} is in the log as {former:?} and {id}");
        }
        for (number, id) in &self.story.published {
            assert!(
                id.is_none() || by_number.get(number) == id.as_ref(),
                "number {number} is not in the log as {id:?}"
            );
        }
    }

    fn nothing_strange_came(&self) {
        let known: BTreeMap<EventId, u64> = self.log.iter().map(|(id, number, ..)| (*id, *number)).collect();
        for came in &self.came {
            let body: Value = serde_json::from_str(&came.body).expect("JSON");
            let number = body["dataPayload"]["number"].as_u64();
            assert_eq!(known.get(&came.event).copied(), number, "{} came with {}", came.event, came.body);
        }
    }

    fn lane(&self, sub: &Sub) {
        let store = self.story.store();
        let rows = store.deliveries(sub.lane, None, 100_000).expect("read");
        let here: Vec<&Came> = self.came.iter().filter(|came| *came.address == *sub.wish.address).collect();
        let first: BTreeMap<Seq, &DeliveryRow> =
            rows.iter().filter(|(_, row)| !row.replay).map(|(_, row)| (row.event, row)).collect();
        let again: BTreeMap<Seq, &DeliveryRow> =
            rows.iter().filter(|(_, row)| row.replay).map(|(_, row)| (row.event, row)).collect();
        assert_eq!(first.len() + again.len(), rows.len(), "{}: an event is owed twice", sub.wish.address);
        let asked_again: BTreeSet<Seq> = again.keys().copied().collect();
        match &sub.replay {
            None => assert_eq!(asked_again, sub.resent, "{}: resends", sub.wish.address),
            Some(replay) => self.replayed(sub, replay, &asked_again),
        }
        for (event, number, ..) in &self.log {
            let seq = event.parts().0;
            let Some(row) = first.get(&seq) else { panic!("{}: {number} ({event}) is not owed", sub.wish.address) };
            self.delivery(sub, row, *event, &here);
            if let Some(row) = again.get(&seq) {
                self.delivery(sub, row, *event, &here);
            }
        }
        self.counted(sub, &rows);
        one_at_a_time(&here, |came| (came.event, came.replay));
        if sub.wish.ordered {
            self.in_order(sub, &here);
        }
    }

    /// A replay sent what had ended before it began, nothing that came later, and its counts are what a scan finds.
    fn replayed(&self, sub: &Sub, replay: &Replayed, again: &BTreeSet<Seq>) {
        let (address, store) = (sub.wish.address, self.story.store());
        assert!(again.iter().all(|seq| *seq <= replay.log), "{address}: {again:?} after {:?}", replay.log);
        let row = store.replay(replay.id).expect("read").expect("it is there");
        assert_eq!(row.made, again.len() as u64, "{address}: {row:?}");
        let counts = store.replay_counts(replay.id).expect("read");
        assert_eq!(counts.ended(), row.made, "{address}: {counts:?}");
        match row.state {
            ReplayState::Completed { .. } => {
                let data: BTreeSet<Seq> = self.log.iter().map(|(id, ..)| id.parts().0).collect();
                let missing: Vec<_> = replay.ended.iter().filter(|s| data.contains(s) && !again.contains(s)).collect();
                assert!(missing.is_empty(), "{address}: {missing:?} had ended and were not sent again");
            }
            ReplayState::Cancelled { .. } => assert!(replay.cancelled, "{address}: nobody cancelled it"),
            other => panic!("{address}: the replay is {other:?}"),
        }
    }

    /// What became of one delivery is what the rule makes of its attempts, and they came when it says.
    fn delivery(&self, sub: &Sub, row: &DeliveryRow, event: EventId, here: &[&Came]) {
        let what = format!("{} {event}{}", sub.wish.address, if row.replay { " again" } else { "" });
        let mine: Vec<&&Came> = here.iter().filter(|c| c.event == event && c.replay == row.replay).collect();
        let ends = matches!(row.state, DeliveryState::Cancelled { .. } | DeliveryState::Superseded { .. });
        let recorded = self.recorded(&what, &row.attempts, &mine, ends);
        let pace = Pace {
            schedule: Schedule::new(SCHEDULE.to_vec()).expect("a schedule"),
            jitter_percent: 0,
            ..Pace::default()
        };
        let mut state = DeliveryState::Due { at: row.made_at, tries: 0, attempts: 0 };
        for came in recorded {
            let DeliveryState::Due { at, attempts, .. } = state else {
                panic!("{what}: sent after its end: {state:?}")
            };
            assert!(came.at >= at, "{what}: attempt {} came at {:?}, due at {at:?}", came.attempt, came.at);
            assert_eq!(came.attempt, attempts + 1, "{what}");
            let ended = came.ended.expect("it is recorded, so it ended");
            state = settle(state, ended.outcome, &pace, ended.at, &mut fastrand::Rng::with_seed(0)).state;
        }
        if !row.replay && sub.cancelled.contains(&row.event) {
            assert!(
                matches!(row.state, DeliveryState::Cancelled { .. }),
                "{what} was cancelled, and is {:?}",
                row.state
            );
        }
        match (&row.state, &state) {
            (DeliveryState::Delivered { .. }, DeliveryState::Delivered { .. }) => {}
            (DeliveryState::Dead { cause, .. }, DeliveryState::Dead { cause: expected, .. }) => {
                assert_eq!(cause, expected, "{what}");
                assert!(matches!(cause, Cause::Exhausted(_)), "{what}: {cause:?}");
            }
            (DeliveryState::Cancelled { .. }, DeliveryState::Due { .. }) => {
                let by_name = !row.replay && sub.cancelled.contains(&row.event);
                let with_replay = row.replay && sub.replay.as_ref().is_some_and(|replay| replay.cancelled);
                assert!(sub.skipped || by_name || with_replay, "{what} is cancelled, and nobody asked for it");
            }
            (DeliveryState::Superseded { by, .. }, DeliveryState::Due { attempts: 0, .. }) => {
                // Without order one that is on its way for the first time may be overtaken by what replaces it.
                let untried = mine.iter().all(|came| !sub.wish.ordered && came.attempt == 1);
                assert!(sub.wish.coalesce && untried && !row.replay, "{what} is superseded");
                self.supersedes(&what, event, *by);
            }
            (is, should) => panic!("{what} is {is:?}, and should be {should:?}: {:#?}", row.attempts),
        }
    }

    /// The attempts that the store has, among those that came: all but the ones that a death cut off, and the last one of a
    /// delivery that was ended while it was under way.
    fn recorded<'c>(&self, what: &str, attempts: &[Attempt], mine: &[&&'c Came], ends: bool) -> Vec<&'c Came> {
        let (mut recorded, mut stored) = (Vec::new(), attempts.iter().peekable());
        for came in mine {
            let is_it = |attempt: &&&Attempt| {
                let error = came.ended.map(|ended| ended.outcome.error());
                attempt.at == came.at && Some(attempt.error) == error
            };
            if stored.next_if(|attempt| is_it(&attempt)).is_some() {
                recorded.push(**came);
            } else {
                let later = mine.iter().any(|other| other.began > came.began && self.life(other) == self.life(came));
                assert!(!later, "{what}: attempt {} is lost, and the process went on: {came:#?}", came.attempt);
                let lives = self.story.deaths.len();
                assert!(
                    ends || self.life(came) < lives,
                    "{what}: attempt {} is not recorded: {attempts:#?} {mine:#?}",
                    came.attempt
                );
            }
        }
        assert!(stored.next().is_none(), "{what}: attempts are recorded that never came: {attempts:#?} {mine:#?}");
        recorded
    }

    /// In which life it came.
    fn life(&self, came: &Came) -> usize {
        let place = self.came.iter().position(|other| other.began == came.began).expect("it came");
        self.story.deaths.iter().filter(|death| **death <= place).count()
    }

    fn supersedes(&self, what: &str, event: EventId, by: Seq) {
        let find = |seq: Seq| self.log.iter().find(|(id, ..)| id.parts().0 == seq).expect("it is in the log");
        let (old, new) = (find(event.parts().0), find(by));
        assert!(old.3 && new.3 && old.2 == new.2 && old.0 < new.0, "{what} is superseded by {new:?}");
    }

    /// Of one record, nothing comes before what stands before it has ended, and never two at a time.
    fn in_order(&self, sub: &Sub, here: &[&Came]) {
        let record_of: BTreeMap<EventId, u64> = self.log.iter().map(|(id, _, record, _)| (*id, *record)).collect();
        let mut newest: BTreeMap<u64, EventId> = BTreeMap::new();
        for came in here.iter().filter(|came| !came.replay) {
            let record = record_of[&came.event];
            let former = newest.insert(record, came.event);
            let is_later = former.is_none_or(|former| former <= came.event);
            assert!(is_later, "{}: record {record}: {} came after {former:?}", sub.wish.address, came.event);
        }
        one_at_a_time(here, |came| record_of[&came.event]);
    }

    /// Nothing is owed, and the counts are what a scan finds.
    fn counted(&self, sub: &Sub, rows: &[(tidemill::domain::id::DeliveryId, DeliveryRow)]) {
        let store = self.story.store();
        let of = |fits: fn(&DeliveryState) -> bool| rows.iter().filter(|(_, row)| fits(&row.state)).count() as u64;
        let counts = store.lane_counts(sub.lane).expect("read");
        let dead = of(|state| matches!(state, DeliveryState::Dead { .. }));
        assert_eq!(counts.pending, 0);
        assert_eq!(counts.delivered, of(|state| matches!(state, DeliveryState::Delivered { .. })));
        assert_eq!(counts.dead, dead);
        let ended =
            |state: &DeliveryState| matches!(state, DeliveryState::Cancelled { .. } | DeliveryState::Superseded { .. });
        assert_eq!(counts.cancelled, of(ended));
        assert_eq!(store.dead_deliveries(sub.lane, None, 100_000).expect("read").len() as u64, dead);
        assert!(store.fresh_deliveries(sub.lane, Seq(0), 1).expect("read").is_empty());
        assert!(store.retry_deliveries(sub.lane, 1).expect("read").is_empty());
        assert_eq!(store.oldest_owed(sub.lane).expect("read"), None);
    }
}

/// No two attempts with the same key are under way at the same time in one life. What a death cut off has no end, and
/// counts as ended by whatever came next.
fn one_at_a_time<K: Ord + std::fmt::Debug>(here: &[&Came], key: impl Fn(&Came) -> K) {
    let mut until: BTreeMap<K, (u64, &Came)> = BTreeMap::new();
    for came in here {
        let end = came.ended.map_or(came.began, |ended| ended.turn);
        if let Some((former, before)) = until.insert(key(came), (end, *came)) {
            assert!(former <= came.began, "{:?} was sent twice at once: {before:#?} {came:#?}", key(came));
        }
    }
}

/// Tells one story; what it did goes to the output only if it ends badly.
async fn tell(seed: u64, base: &Path, ids: &[String]) -> (usize, usize) {
    let mut story = Story::begin(seed, base, ids).await;
    println!("TIDEMILL_TEST_SEED={seed}");
    for _ in 0..ACTS {
        story.step().await;
        println!("  {}", story.told.last().map_or("", String::as_str));
    }
    story.end().await;
    // What came last is recorded before the lanes are at rest; only then is the postbox complete.
    Model::of(&story).check();
    let done = (story.postbox.count(), story.deaths.len());
    story.life.slot.shut();
    let mut graves = story.graves;
    story.life.node.die(&mut graves).await;
    graves.fill(0).await;
    done
}

/// What the settings say, once the outcome of a 410 is not counted: it gives the try back.
#[test]
fn the_model_knows_what_a_410_does() {
    let pace = Pace { schedule: Schedule::new(SCHEDULE.to_vec()).expect("a schedule"), ..Pace::default() };
    let due = DeliveryState::Due { at: START, tries: 1, attempts: 1 };
    let state = settle(due, Outcome::Gone, &pace, START, &mut fastrand::Rng::with_seed(0)).state;
    assert_eq!(state, DeliveryState::Due { at: START, tries: 1, attempts: 2 });
}

#[actix::test]
async fn the_delivery_engine_does_what_its_model_says() {
    let (base, ids) = base().await;
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let wanted = std::env::var("TIDEMILL_TEST_SEED").ok();
    let seeds = match &wanted {
        Some(text) => match text.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => number(text)..number(text) + 1,
        },
        None if long() => 0..SEEDS_LONG,
        None => 0..SEEDS,
    };
    let (mut attempts, mut deaths, mut stories) = (0, 0, 0);
    for seed in seeds {
        let (came, died) = tell(seed, base.path(), &ids).await;
        (attempts, deaths, stories) = (attempts + came, deaths + died, stories + 1);
    }
    println!("{stories} stories, {attempts} attempts, {deaths} deaths");
    assert!(wanted.is_some() || (attempts > 500 && deaths > 2), "{attempts} attempts, {deaths} deaths");
}
