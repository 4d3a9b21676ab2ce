//! One lane's trouble is its own: endpoints that hang, refuse, answer slowly or never end do not hold up the others, and a
//! backlog that drains is not noticed by the rest of the node. Nor does an app that hangs delay the polls of the others.
//!
//! Over real HTTP, with 200 endpoints of which 80 are sick in four ways; and with a postbox, where time is virtual and a
//! backlog of 20,000 comes back. `TIDEMILL_TEST_LONG=1` (`scripts/check --long`) also measures: the p99 from accept to
//! first attempt with and without the sick ones, in the same run; and a storm of 1,000,000.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::app::{Engine, Seams};
use tidemill::clock::Clock;
use tidemill::config::Config;
use tidemill::domain::delivery::DeliveryState;
use tidemill::domain::id::{EventId, LaneNo, Seq};
use tidemill::domain::subscription::{Signing, Subscription};
use tidemill::domain::time::Millis;
use tidemill::store::Store;
use tidemill::telemetry::Metrics;

use crate::support::api::Node;
use crate::support::engine::{event, subscribe, workspace};
use crate::support::postbox::{Act, Postbox};
use crate::support::server::{self, Server, answer};

const ENDPOINTS: usize = 200;
/// Of each kind of sick ones.
const SICK: usize = 20;
/// Attempts at once on the node: less than the sick ones would take together.
const IN_FLIGHT: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Well,
    Hangs,
    Refuses,
    Slow,
    Endless,
}

fn health(endpoint: usize) -> Health {
    match endpoint / SICK {
        0 => Health::Hangs,
        1 => Health::Refuses,
        2 => Health::Slow,
        3 => Health::Endless,
        _ => Health::Well,
    }
}

fn settings(folder: &TempDir, more: &[(&str, String)]) -> Arc<Config> {
    let usual = [
        ("TIDEMILL__STORAGE__PATH", folder.path().join("data").display().to_string()),
        ("TIDEMILL__STORAGE__FREE_BYTES_MIN", "1".into()),
        ("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]".into()),
        ("TIDEMILL__DELIVERY__IN_FLIGHT_TOTAL", IN_FLIGHT.to_string()),
        ("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 1, 1, 1, 5, 5, 60, 600, 3600, 86400]".into()),
    ];
    let env = usual.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone()));
    Arc::new(Config::load(None, env).expect("a valid configuration"))
}

fn hmac_only(subscription: &mut Subscription) {
    subscription.signing = Signing { rsa: false, hmac: true, ed25519: false };
}

async fn publish(store: &Store, many: usize, now: Millis) -> Vec<EventId> {
    let one = event("acme/things", r#"{"n":1}"#, now);
    let append = move |tx: &mut tidemill::store::Tx<'_>| (0..many).map(|_| tx.append_event(&one)).collect();
    let made: tidemill::error::Result<Vec<EventId>> = store.accept(append).await;
    made.expect("accepted")
}

/// 200 endpoints over HTTP: when each event first came to each of the well ones.
struct Field {
    came: Arc<Mutex<BTreeMap<(usize, String), Instant>>>,
    server: Server,
    refused: String,
}

impl Field {
    /// Without the sick ones all are well.
    async fn new(with_sick: bool) -> Self {
        let came: Arc<Mutex<BTreeMap<(usize, String), Instant>>> = Arc::default();
        let noted = came.clone();
        let server = Server::start(move |got| {
            let path = got.line.split(' ').nth(1).unwrap_or_default();
            let endpoint: usize = path.trim_start_matches('/').parse().expect("a number");
            let id = got.header("webhook-id").unwrap_or_default().to_owned();
            match health(endpoint) {
                Health::Hangs if with_sick => server::Act::Hang(Vec::new()),
                Health::Slow if with_sick => {
                    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
                    server::Act::Forever(head, b"1\r\nx\r\n".to_vec(), Duration::from_millis(200))
                }
                Health::Endless if with_sick => {
                    let head = b"HTTP/1.1 500 No\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
                    server::Act::Forever(head, vec![b'x'; 16_384], Duration::from_millis(1))
                }
                _ => {
                    let mut came = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    came.entry((endpoint, id)).or_insert_with(Instant::now);
                    server::Act::Answer(answer("200 OK", "", ""))
                }
            }
        })
        .await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        Self { came, server, refused: format!("http://{closed}/") }
    }

    fn address(&self, endpoint: usize, with_sick: bool) -> String {
        match health(endpoint) {
            Health::Refuses if with_sick => self.refused.clone(),
            _ => format!("http://{}/{endpoint}", self.server.address),
        }
    }

    fn count(&self) -> usize {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.keys().filter(|(endpoint, _)| health(*endpoint) == Health::Well).count()
    }
}

/// A node with the 200 endpoints; its lanes by endpoint.
async fn node(field: &Field, with_sick: bool, folder: &TempDir) -> (Engine, Vec<LaneNo>) {
    let config = settings(folder, &[]);
    let engine = Engine::start(config, tidemill::app::wall_clock(), Metrics::new().expect("metrics")).expect("started");
    // What hangs holds it for a minute: closed then, RocksDB could abort a process that just ends.
    std::mem::forget(engine.store.clone());
    workspace(&engine.store).await;
    let mut lanes = Vec::new();
    for endpoint in 0..ENDPOINTS {
        let change = |subscription: &mut Subscription| {
            hmac_only(subscription);
            subscription.timeout_seconds = 60;
        };
        lanes.push(subscribe(&engine, &field.address(endpoint, with_sick), change).await.0.lane);
    }
    (engine, lanes)
}

/// Waits until so many first attempts have come to the well ones. They would wait for a minute, the timeout of the sick
/// ones, if those held them up.
async fn wait(field: &Field, count: usize) {
    for _ in 0..2_500 {
        if field.count() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} of {count} came", field.count());
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a number");
    pages * 4096
}

#[actix::test]
async fn the_well_get_their_events_while_the_sick_still_hang() {
    let (field, folder) = (Field::new(true).await, TempDir::new().expect("a folder"));
    let (engine, lanes) = node(&field, true, &folder).await;
    // First the sick take all the room they can get, then the rest comes.
    publish(&engine.store, 20, engine.clock.now()).await;
    let well = ENDPOINTS - 4 * SICK;
    wait(&field, 20 * well).await;
    publish(&engine.store, 5, engine.clock.now()).await;
    wait(&field, 25 * well).await;
    let all: usize = lanes.iter().map(|lane| engine.outlet.flights.of(*lane).len()).sum();
    assert!(all <= IN_FLIGHT, "{all} are in flight");
    for (endpoint, lane) in lanes.iter().enumerate() {
        let rows = engine.store.deliveries(*lane, None, 100).expect("read");
        assert_eq!(rows.len(), 25, "endpoint {endpoint}");
        let ended = rows.iter().filter(|(_, row)| matches!(row.state, DeliveryState::Delivered { .. })).count();
        let attempts: usize = rows.iter().map(|(_, row)| row.attempts.len()).sum();
        match health(endpoint) {
            // Nothing has come back yet: the timeout has not passed.
            Health::Hangs => assert_eq!((ended, attempts), (0, 0), "endpoint {endpoint}"),
            Health::Refuses | Health::Endless => assert_eq!(ended, 0, "endpoint {endpoint}"),
            Health::Well | Health::Slow => {}
        }
        let flying = engine.outlet.flights.of(*lane).len();
        assert!(flying <= 8, "endpoint {endpoint} has {flying} in flight");
    }
    engine.outlet.drain(Duration::ZERO).await;
}

fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

/// Accept to first attempt of the well ones, one event at a time at a steady pace.
async fn measure(with_sick: bool) -> (Duration, u64) {
    let (field, folder) = (Field::new(with_sick).await, TempDir::new().expect("a folder"));
    let (engine, _) = node(&field, with_sick, &folder).await;
    // The sick are known as such after a while: measured from then on.
    publish(&engine.store, 20, engine.clock.now()).await;
    let well = ENDPOINTS - 4 * SICK;
    wait(&field, 20 * well).await;
    let before = resident_bytes();
    let mut accepted = BTreeMap::new();
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    for _ in 0..100 {
        beat.tick().await;
        let id = publish(&engine.store, 1, engine.clock.now()).await[0];
        accepted.insert(id.to_string(), Instant::now());
    }
    wait(&field, 120 * well).await;
    let grown = resident_bytes().saturating_sub(before);
    let came = field.came.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let took = came.iter().filter(|((endpoint, _), _)| health(*endpoint) == Health::Well);
    let took = took.filter_map(|((_, id), at)| Some(at.saturating_duration_since(*accepted.get(id)?))).collect();
    engine.drain(Duration::ZERO).await.expect("drained");
    (p99(took), grown)
}

#[actix::test]
#[ignore = "it measures for minutes: scripts/check --long"]
async fn the_p99_of_the_well_stays_within_twice_of_what_it_is_without_the_sick() {
    let (mut without, mut with, mut grown) = (Vec::new(), Vec::new(), 0);
    for _ in 0..3 {
        without.push(measure(false).await.0);
        let (p99, bytes) = measure(true).await;
        with.push(p99);
        grown = grown.max(bytes);
    }
    without.sort_unstable();
    with.sort_unstable();
    let ratio = with[1].as_secs_f64() / without[1].as_secs_f64();
    println!(
        "p99 accept to first attempt, medians of 3: {:?} without, {:?} with, ratio {ratio:.2}",
        without[1], with[1]
    );
    println!("all: {without:?} {with:?}; memory grew by {} MiB at most", grown >> 20);
    assert!(ratio <= 2.0, "{ratio}");
    assert!(grown < 256 << 20, "{grown}");
}

/// A node whose receivers are a postbox: one that was down, and one that is well.
struct Storm {
    engine: Engine,
    postbox: Postbox,
    down: LaneNo,
    _folder: TempDir,
}

const DOWN: &str = "http://down.example/";
const WELL: &str = "http://well.example/";

impl Storm {
    async fn new(clock: Clock) -> Self {
        let folder = TempDir::new().expect("a folder");
        let postbox = Postbox::new(clock.clone(), |parcel| match parcel.address.as_ref() {
            DOWN => Act::Refuse,
            _ => Act::Answer(200, None),
        });
        let seams = Seams { driver: Some(postbox.slot().driver()), ..Seams::default() };
        let more = [("TIDEMILL__DELIVERY__RETRY_JITTER_PERCENT", "0".to_owned())];
        let config = settings(&folder, &more);
        let engine = Engine::start_with(config, clock, Metrics::new().expect("metrics"), seams).expect("started");
        workspace(&engine.store).await;
        let down = subscribe(&engine, DOWN, |subscription| {
            hmac_only(subscription);
            subscription.topics = vec!["acme/things".into()];
        });
        let down = down.await.0.lane;
        subscribe(&engine, WELL, |subscription| {
            hmac_only(subscription);
            subscription.topics = vec!["acme/others".into()];
        })
        .await;
        Self { engine, postbox, down, _folder: folder }
    }

    fn ring(&self) {
        self.engine.rings.lane(self.down);
    }

    fn pending(&self) -> u64 {
        self.engine.store.lane_counts(self.down).expect("read").pending
    }

    /// Publishes for the one that is well, and waits until it came: whatever the other does.
    async fn live(&self) -> EventId {
        let one = event("acme/others", "{}", self.engine.clock.now());
        let seen = self.postbox.count();
        let id = self.engine.store.accept(move |tx| tx.append_event(&one)).await.expect("accepted");
        let came = self.postbox.until(|came| came[seen..].iter().any(|came| came.event == id).then_some(()));
        came.await.expect("the live event comes");
        id
    }

    /// Lets so many wait for the one that is down.
    async fn gather(&self, many: usize) {
        let mut left = many;
        while left > 0 {
            let now = left.min(1_000);
            publish(&self.engine.store, now, self.engine.clock.now()).await;
            left -= now;
        }
        let all = many as u64;
        let gathered = self.postbox.until(|_| (self.pending() >= all).then_some(()));
        gathered.await.expect("all wait");
    }
}

#[actix::test]
async fn a_backlog_drains_in_order_and_the_rest_of_the_node_does_not_notice() {
    const MANY: usize = 20_000;
    let clock = Clock::still(Millis(1_800_000_000_000));
    let storm = Storm::new(clock).await;
    storm.gather(MANY).await;
    // Enough failures open the breaker; from then on one delivery probes, and the others keep their tries.
    for _ in 0..20 {
        storm.postbox.advance(Duration::from_secs(5));
        storm.ring();
        storm.live().await;
    }
    let failed = storm.postbox.by_address().get(DOWN).map_or(0, Vec::len);
    assert!((10..60).contains(&failed), "{failed} attempts while it was down");
    storm.postbox.answers(|_| Act::Answer(200, None));
    let (mut live, mut rounds) = (0, 0);
    while storm.pending() > 0 {
        storm.postbox.advance(Duration::from_millis(250));
        storm.ring();
        storm.live().await;
        live += usize::from(storm.pending() > 0);
        rounds += 1;
        assert!(rounds < 100_000, "{} are left", storm.pending());
    }
    // It came back at 10 a second, twice as many in each further one: several looks at the others fell in between.
    assert!(live >= 20, "only {live} live events came during the drain");
    let all = storm.postbox.by_address();
    let came = &all[DOWN];
    let accepted: Vec<EventId> = came.iter().filter(|came| came.act != Act::Refuse).map(|came| came.event).collect();
    assert_eq!(accepted.iter().collect::<BTreeSet<_>>().len(), MANY);
    assert_eq!(accepted.len(), MANY, "each came once");
    in_order(&came[failed..].iter().filter(|came| came.attempt == 1).map(|came| came.event).collect::<Vec<_>>());
    let counts = storm.engine.store.lane_counts(storm.down).expect("read");
    assert_eq!((counts.delivered, counts.pending, counts.dead), (MANY as u64, 0, 0));
    assert!(storm.engine.store.fresh_deliveries(storm.down, Seq(0), 1).expect("read").is_empty());
    storm.engine.drain(Duration::from_secs(5)).await.expect("drained");
}

/// Those that were never tried leave in the order of their events. Two threads send, so neighbours within a window may
/// change places on the way.
fn in_order(came: &[EventId]) {
    let mut sorted = came.to_vec();
    sorted.sort();
    let places: BTreeMap<EventId, usize> = sorted.into_iter().zip(0..).collect();
    for (place, event) in came.iter().enumerate() {
        let off = places[event].abs_diff(place);
        assert!(off <= 32, "{event} came {off} places from where it belongs");
    }
}

#[actix::test]
#[ignore = "it takes minutes: scripts/check --long"]
async fn a_storm_of_a_million_drains_and_the_rest_of_the_node_does_not_notice() {
    const MANY: usize = 1_000_000;
    let storm = Storm::new(tidemill::app::wall_clock()).await;
    storm.postbox.note_only(WELL);
    let before = resident_bytes();
    let started = Instant::now();
    storm.gather(MANY).await;
    println!("{MANY} wait after {:?}; memory grew by {} MiB", started.elapsed(), grown(before));
    let quiet = live_times(&storm, |times| times.len() < 200).await;
    let order = Order::default();
    let noted = order.clone();
    storm.postbox.answers(move |parcel| {
        if *parcel.address == *DOWN && parcel.attempt == 1 {
            noted.note(parcel.event.parts().0);
        }
        Act::Answer(200, None)
    });
    let drain = Instant::now();
    let during = live_times(&storm, |_| storm.pending() > 0).await;
    println!(
        "drained in {:?}; live events: p99 {:?} before, {:?} during ({} of them); memory grew by {} MiB",
        drain.elapsed(),
        p99(quiet),
        p99(during.clone()),
        during.len(),
        grown(before)
    );
    assert!(during.len() > 20);
    let (first, off) = order.told();
    println!("{first} first attempts, at most {off} places from where they belong");
    assert!(first > MANY as u64 / 2 && off <= 64, "{first} {off}");
    let counts = storm.engine.store.lane_counts(storm.down).expect("read");
    assert_eq!((counts.delivered, counts.pending, counts.dead), (MANY as u64, 0, 0));
    storm.engine.drain(Duration::from_secs(5)).await.expect("drained");
}

/// How far first attempts are from the order of their events: how many went before one that is older.
#[derive(Clone, Default)]
struct Order(Arc<Mutex<(u64, Seq, u64)>>);

impl Order {
    fn note(&self, seq: Seq) {
        let mut order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, newest, off) = *order;
        *order = (count + 1, newest.max(seq), off.max(newest.0.saturating_sub(seq.0)));
    }

    /// How many there were, and how far the worst was off.
    fn told(&self) -> (u64, u64) {
        let order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (order.0, order.2)
    }
}

fn grown(before: u64) -> u64 {
    resident_bytes().saturating_sub(before) >> 20
}

/// How long live events take, one every 50 ms, while it lasts.
async fn live_times(storm: &Storm, lasts: impl Fn(&[Duration]) -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    while lasts(&times) {
        beat.tick().await;
        let started = Instant::now();
        storm.live().await;
        times.push(started.elapsed());
    }
    times
}

#[actix::test]
async fn an_app_that_hangs_delays_no_other() {
    const OTHERS: usize = 40;
    let node = Node::start().await;
    let app = Server::start(|got| match got.line.contains(" /hangs/") {
        true => server::Act::Hang(Vec::new()),
        false => server::Act::Answer(answer("200 OK", "content-type: application/json\r\n", r#"[{"id":"1"}]"#)),
    })
    .await;
    node.post("/2024-03/one/users", json!({"username": "ann"})).await.ok();
    let connect = async |name: &str| {
        let parameters = json!({"baseUri": format!("http://{}/{name}", app.address), "path": "/items"});
        let asked =
            json!({"userId": "ann", "connector": "generic", "credentials": {"apiKey": "x"}, "parameters": parameters});
        let made = node.post("/2024-03/one/connections", asked).await.ok();
        format!("/2024-03/one/connections/{}", made["connection"]["connectionId"].as_str().expect("an id"))
    };
    let sick = connect("hangs").await;
    node.until(&sick, |_| app.got().iter().any(|got| got.line.contains(" /hangs/items"))).await;
    let mut well = Vec::new();
    for n in 0..OTHERS {
        well.push(connect(&format!("well-{n}")).await);
    }
    let is_read = |shown: &Value| shown["connection"]["collections"][0]["baselineAt"].is_string();
    for path in &well {
        node.until(path, is_read).await;
    }
    assert!(!is_read(&node.get(&sick).await.ok()), "the sick one hangs all the while");
    assert_eq!(
        app.got().iter().filter(|got| got.line.contains(" /hangs/items")).count(),
        1,
        "its first call still waits"
    );
    node.stop().await;
}
