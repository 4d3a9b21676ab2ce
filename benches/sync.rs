//! What looking at apps costs: a first sync of a million records, a full scan that finds nothing new, ten thousand
//! connections that are looked at every minute beside one whose app hangs.
//!
//! The limit of the syncs is parsing the same pages, on one thread, in the same run, for two shapes of records: few fields of
//! which one is long, and many that are short, as Adobe Commerce shows a customer. The app is a process of its own that
//! writes its records as it is asked for them; it and the node share the machine's cores. Not here: the diff alone
//! (`diff`), webhooks and idle connections (`node`).

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::app;
use tidemill::config::Config;
use tidemill::domain::connection::{CollectionState, Connection, ConnectionStatus, InitialSync, Remap, WebhookState};
use tidemill::domain::id::{ConnectionId, UserId, WorkspaceNo};
use tidemill::domain::secret::Secret;
use tidemill::domain::workspace::User;
use tidemill::store::{Slot, Store, Tx, master_key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use support::node::{Node, call};
use support::port;

/// Without jitter a look is due at a known time.
const SETTINGS: &[(&str, &str)] = &[("TIDEMILL__POLLING__JITTER_PERCENT", "0")];
const RECORDS: usize = 1_000_000;
const PAGE: usize = 1_000;
const RECORD_BYTES: usize = 512;
/// What fills a record up.
static PADDING: LazyLock<String> = LazyLock::new(|| "x".repeat(RECORD_BYTES));
/// When the first record changed; each later one a second after.
const FIRST_CHANGE: usize = 1_600_000_000;
/// Pages parsed for the limit, and how often.
const PARSED: usize = 100;
const RUNS: usize = 3;
const CONNECTIONS: usize = 10_000;
const EVERY: Duration = Duration::from_secs(60);
/// The first looks, which map all anew, and the time over which the later ones are laid beside their schedule.
const WATCHED: Duration = Duration::from_secs(190);

fn main() {
    if std::env::args().any(|a| a == "--app") {
        return app();
    }
    println!("machine: {} cores", std::thread::available_parallelism().map_or(0, usize::from));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    // `-- padded`, `-- customer` and `-- schedule` measure that alone.
    let alone = |name: &str| std::env::args().any(|a| a == name);
    let all = !["padded", "customer", "schedule"].into_iter().any(alone);
    runtime.block_on(async {
        for shape in [Shape::Padded, Shape::Customer] {
            if all || alone(shape.name()) {
                syncs(shape).await;
            }
        }
        if all || alone("schedule") {
            schedule().await;
        }
    });
}

/// What the app's records are like.
#[derive(Clone, Copy)]
enum Shape {
    /// Ten fields, [`RECORD_BYTES`] long, most of it one text.
    Padded,
    /// Thirty-five fields, 800 bytes: the shape of the customer in Adobe Commerce's REST guide, with both default addresses.
    Customer,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Padded => "padded",
            Self::Customer => "customer",
        }
    }
    fn record(self, n: usize) -> String {
        match self {
            Self::Padded => padded(n),
            Self::Customer => customer(n),
        }
    }
    /// What the generic connector is told of them.
    fn parameters(self) -> Value {
        match self {
            Self::Padded => json!({
                "topic": "crm/contacts", "updatedPath": "$.modified", "timeFormat": "unix-seconds",
                "fields": {"firstName": "$.name.first", "lastName": "$.name.last"},
                "customFieldsExcept": ["id", "name", "modified"],
            }),
            Self::Customer => json!({
                "topic": "commerce/customers", "updatedPath": "$.updated_at", "timeFormat": "sql-utc",
                "fields": {"email": "$.email", "firstName": "$.firstname", "lastName": "$.lastname"},
                "customFieldsExcept": ["id", "email", "firstname", "lastname", "created_at", "updated_at"],
            }),
        }
    }
}

/// When a customer changed, in UTC; the first at midnight.
fn changed_at(n: usize) -> String {
    format!("2020-09-{:02} {:02}:{:02}:{:02}", 13 + n / 86_400, n / 3600 % 24, n / 60 % 60, n % 60)
}

/// The customer that changed then.
fn changed_then(time: &str) -> Option<usize> {
    let numbers: Vec<usize> = time.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect();
    let [_, _, day, hour, minute, second] = numbers[..] else { return None };
    Some(((day.checked_sub(13)? * 24 + hour) * 60 + minute) * 60 + second)
}

fn customer(n: usize) -> String {
    let time = changed_at(n);
    format!(
        concat!(
            r#"{{"id":{n},"group_id":1,"default_billing":"{n}","default_shipping":"{n}","created_at":"{time}","#,
            r#""updated_at":"{time}","created_in":"Default Store View","email":"jane.doe.{n}@example.com","#,
            r#""firstname":"Jane","lastname":"Doe {n}","store_id":1,"website_id":1,"addresses":[{{"id":{n},"#,
            r#""customer_id":{n},"region":{{"region_code":"NY","region":"New York","region_id":43}},"region_id":43,"#,
            r#""country_id":"US","street":["123 Oak Ave","Suite {n}"],"telephone":"512-555-1111","postcode":"10577","#,
            r#""city":"Purchase","firstname":"Jane","lastname":"Doe","default_shipping":true,"#,
            r#""default_billing":true}}],"disable_auto_group_change":0,"extension_attributes":{{"is_subscribed":false}},"#,
            r#""custom_attributes":[{{"attribute_code":"loyalty_tier","value":"gold"}},"#,
            r#"{{"attribute_code":"credit","value":"{credit}.50"}}]}}"#
        ),
        n = n,
        time = time,
        credit = n % 1000
    )
}

/// A record as the app shows it, [`RECORD_BYTES`] long or a little more.
fn padded(n: usize) -> String {
    let mut text = format!(
        concat!(
            r#"{{"id":"c-{}","modified":{},"name":{{"first":"Jane {}","last":"Doe"}},"email":"jane.{}@example.com","#,
            r#""phone":"+44 20 7946 {:04}","company":"Acme {}","city":"Leeds","score":{}.50,"note":""#
        ),
        n,
        FIRST_CHANGE + n,
        n,
        n,
        n % 10_000,
        n % 1_000,
        n % 100
    );
    text.push_str(PADDING.get(text.len() + 2..).unwrap_or_default());
    text.push_str("\"}");
    text
}

/// The page of records from `start` on.
fn page(shape: Shape, start: usize) -> String {
    let mut text = String::with_capacity(PAGE * 1024);
    write!(text, r#"{{"total":{RECORDS},"items":["#).expect("written");
    for n in start..(start + PAGE).min(RECORDS) {
        if n > start {
            text.push(',');
        }
        text.push_str(&shape.record(n));
    }
    text.push_str("]}");
    text
}

// The app.

/// When each connection's app was asked, in Unix milliseconds.
type Arrivals = Arc<Mutex<Vec<Vec<u64>>>>;

fn app() {
    let port: u16 = std::env::args().next_back().and_then(|p| p.parse().ok()).expect("a port");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let arrivals: Arrivals = Arc::new(Mutex::new(vec![Vec::new(); CONNECTIONS]));
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream, arrivals.clone()));
        }
    });
}

async fn serve(mut stream: TcpStream, arrivals: Arrivals) {
    let mut held: Vec<u8> = Vec::with_capacity(8192);
    loop {
        while let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) {
            let head = String::from_utf8_lossy(&held[..end]).into_owned();
            held.drain(..end);
            let target = head.split(' ').nth(1).unwrap_or_default();
            let Some(body) = answer(target, &arrivals) else { return std::future::pending().await };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut held).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// None: the app hangs.
fn answer(target: &str, arrivals: &Arrivals) -> Option<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let asked = |name: &str| -> Option<usize> {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let mut steps = path.trim_matches('/').split('/');
    match steps.next() {
        Some("padded") => {
            let first = asked("changed_after").map_or(0, |time| time.saturating_sub(FIRST_CHANGE));
            Some(page(Shape::Padded, first + (asked("page").unwrap_or(1) - 1) * PAGE))
        }
        Some("customer") => {
            let after = query.split('&').find_map(|pair| pair.strip_prefix("changed_after="));
            // A space and colons are percent-encoded, in two hexadecimal digits.
            let after = after.map(|time| time.replace("%20", " ").replace("%3A", ":").replace('+', " "));
            let first = after.and_then(|time| changed_then(&time)).unwrap_or_default();
            Some(page(Shape::Customer, first + (asked("page").unwrap_or(1) - 1) * PAGE))
        }
        Some("arrivals") => Some(json!(*arrivals.lock().unwrap_or_else(PoisonError::into_inner)).to_string()),
        number => {
            let number: usize = number.and_then(|n| n.parse().ok()).unwrap_or_default();
            arrivals.lock().unwrap_or_else(PoisonError::into_inner)[number].push(unix_ms());
            // The first one's app hangs.
            (number > 0).then(|| r#"{"data":[],"ids":[]}"#.to_owned())
        }
    }
}

fn unix_ms() -> u64 {
    app::wall_clock().now().0
}

// The node.

impl Node {
    async fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, text) = call(self.1, method, &format!("/2024-03/one{path}"), body).await.expect("an answer");
        assert!(status < 300, "{status}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }
    /// Bytes that it has had written to disk so far.
    fn written(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.0.0.id())).expect("the process runs");
        io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).expect("a number")
    }
    /// Waits until `path` shows what is wanted; answers how long it took and the most memory meanwhile, in MiB.
    async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> (f64, f64) {
        let (started, mut most) = (Instant::now(), 0.0_f64);
        loop {
            most = most.max(self.0.resident_mib());
            if fits(&self.call("GET", path, "").await) {
                return (started.elapsed().as_secs_f64(), most);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    call(port, "GET", path, "").await
}

// What is measured.

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed to be measured")]
struct Parsed<'a> {
    total: u64,
    #[serde(borrow)]
    items: Vec<Typed<'a>>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed to be measured")]
struct Typed<'a> {
    id: &'a str,
    modified: u64,
    #[serde(borrow)]
    name: Name<'a>,
    email: &'a str,
    phone: &'a str,
    company: &'a str,
    city: &'a str,
    score: serde_json::Number,
    note: &'a str,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed to be measured")]
struct Name<'a> {
    first: &'a str,
    last: &'a str,
}

/// Records per second: as typed structs if there is a type of them, and as values.
fn parsing(shape: Shape) -> (Option<f64>, f64) {
    let pages: Vec<String> = (0..PARSED).map(|n| page(shape, n * PAGE)).collect();
    let rate = |parse: &dyn Fn(&str) -> usize| {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let started = Instant::now();
            let seen: usize = pages.iter().map(|page| parse(page)).sum();
            rates.push(seen as f64 / started.elapsed().as_secs_f64());
        }
        support::median(rates)
    };
    let typed = || rate(&|page| black_box(serde_json::from_str::<Parsed<'_>>(page).expect("a page")).items.len());
    let typed = matches!(shape, Shape::Padded).then(typed);
    let values = rate(&|page| {
        let page: Value = black_box(serde_json::from_str(page).expect("a page"));
        page["items"].as_array().map_or(0, Vec::len)
    });
    (typed, values)
}

async fn syncs(shape: Shape) {
    let before = parsing(shape);
    let (folder, app_port) = (TempDir::new().expect("a folder"), port());
    let _app = support::beside(&["--app"], app_port).await;
    let node = Node::start(&folder, SETTINGS);
    node.ready().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = node.0.resident_mib();
    node.call("POST", "/users", r#"{"username":"acme"}"#).await;
    let mut parameters = json!({
        "name": "Bench", "baseUri": format!("http://127.0.0.1:{app_port}"), "path": format!("/{}", shape.name()),
        "itemsPath": "$.items", "totalPath": "$.total", "sinceParameter": "changed_after", "order": "ascending",
        "paging": "page", "pageSize": PAGE, "requestsPerSecond": 1000, "pollInterval": "12h",
    });
    if let (Some(all), Value::Object(own)) = (parameters.as_object_mut(), shape.parameters()) {
        all.extend(own);
    }
    let asked =
        json!({"userId": "acme", "connector": "generic", "credentials": {"apiKey": "x"}, "parameters": parameters});
    let made = node.call("POST", "/connections", &asked.to_string()).await;
    let id = made["connection"]["connectionId"].as_str().expect("an id").to_owned();
    let path = format!("/connections/{id}");
    let records = |shown: &Value| shown["connection"]["collections"][0]["records"].as_u64();
    let first_pull = |shown: &Value| shown["connection"]["collections"][0]["lastPullAt"].is_string();
    let (seconds, most) = node.until(&path, first_pull).await;
    let shown = node.call("GET", &path, "").await;
    assert_eq!(records(&shown), Some(RECORDS as u64), "{shown}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    // The machine may be quicker one minute than the next.
    let after = parsing(shape);
    let (typed, values) = (before.0.zip(after.0).map(|(a, b)| f64::midpoint(a, b)), f64::midpoint(before.1, after.1));
    let bytes = page(shape, 0).len() / PAGE;
    let as_typed = typed.map_or_else(String::new, |typed| format!(", {typed:.0}/s typed"));
    println!(
        "{}: {bytes} bytes a record; limit: parsing the pages of {PAGE}, one thread, before and after: {values:.0}/s to \
         values{as_typed}",
        shape.name()
    );
    let rate = RECORDS as f64 / seconds;
    println!(
        "first sync of {RECORDS} records: {seconds:.1} s, {rate:.0}/s; {:.2} of parsing (goal >= 0.5){}; {:.0} MiB above idle \
         at most (goal < 200)",
        rate / values,
        typed.map_or_else(String::new, |typed| format!(", {:.2} of parsing typed", rate / typed)),
        most - idle
    );
    let written = node.written();
    let pull = node.call("POST", &format!("{path}/sync"), r#"{"mode":"full"}"#).await["pullId"].clone();
    let done = |shown: &Value| {
        let pulls = shown["pulls"].as_array().expect("pulls");
        pulls.iter().any(|one| one["pullId"] == pull && one["outcome"] == "completed")
    };
    let (seconds, most) = node.until(&format!("{path}/pulls"), done).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!(
        "full scan of the same, nothing changed: {seconds:.1} s, {:.0}/s, {:.2} of parsing; {:.1} bytes written per record; \
         {:.0} MiB above idle at most",
        RECORDS as f64 / seconds,
        RECORDS as f64 / seconds / values,
        (node.written() - written) as f64 / RECORDS as f64,
        most - idle
    );
}

async fn schedule() {
    let (folder, app_port) = (TempDir::new().expect("a folder"), port());
    let _app = support::beside(&["--app"], app_port).await;
    fill(&folder, app_port).await;
    let node = Node::start(&folder, SETTINGS);
    node.ready().await;
    tokio::time::sleep(WATCHED).await;
    let (_, text) = get(app_port, "/arrivals").await.expect("an answer");
    let arrivals: Vec<Vec<u64>> = serde_json::from_str(&text).expect("numbers");
    // Without jitter a look is due a minute after the end of the one before; the first follows no schedule.
    let gaps = |times: &Vec<u64>| -> Vec<f64> {
        let pairs = times.iter().skip(1).zip(times.iter().skip(2));
        pairs.map(|(one, next)| (next - one) as f64 / 1e3 - EVERY.as_secs_f64()).collect()
    };
    let mut late: Vec<f64> = arrivals.iter().skip(1).flat_map(gaps).collect();
    if late.is_empty() {
        let asked = arrivals.iter().filter(|times| !times.is_empty()).count();
        return println!("no schedule was seen: {asked} of {CONNECTIONS} connections asked at all");
    }
    late.sort_by(f64::total_cmp);
    let of = |part: usize| late[(late.len() - 1) * part / 100];
    println!(
        "{CONNECTIONS} connections looked at every minute, the app of one hangs: {} looks by schedule, late by p50 {:.3} s, p99 {:.3} s \
         (goal < 2), at most {:.3} s; {:.0} MiB",
        late.len(),
        of(50),
        of(99),
        of(100),
        node.0.resident_mib()
    );
}

/// Puts connections into the store that are due at once.
async fn fill(folder: &TempDir, app_port: u16) {
    let env = [("TIDEMILL__STORAGE__PATH".to_owned(), folder.path().join("data").display().to_string())];
    let config = Config::load(None, env.into_iter()).expect("a configuration");
    let key = master_key(&config.storage.path, None).expect("a key");
    let store = Store::open(&config.storage, &key, &app::wall_clock(), Arc::new(|_| ())).expect("a store");
    for chunk in 0..CONNECTIONS / 1000 {
        let write = move |tx: &mut Tx<'_>| (0..1000).try_for_each(|n| put(tx, chunk * 1000 + n, app_port));
        store.change(write).await.expect("written");
    }
    store.settle().await.expect("settled");
    drop(store);
    // The writer's thread closes the files a moment after the last handle is gone.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn put(tx: &mut Tx<'_>, n: usize, app_port: u16) -> tidemill::error::Result<()> {
    let now = tx.now();
    let user = User {
        id: UserId(tx.fresh_id()?),
        workspace: WorkspaceNo(0),
        username: format!("user-{n}"),
        full_name: None,
        created_at: now,
    };
    tx.put_object(&user)?;
    let connection = Connection {
        id: ConnectionId(tx.fresh_id()?),
        workspace: WorkspaceNo(0),
        user: user.id,
        integration: None,
        connector: "sandbox".into(),
        app: "Sandbox".into(),
        category: "crm".into(),
        parameters: json!({"baseUri": format!("http://127.0.0.1:{app_port}/{n}")}).to_string(),
        account: None,
        poll_interval_seconds: Some(60),
        full_scan_interval_seconds: None,
        initial_sync: InitialSync::Baseline,
        remap: Remap::Silent,
        collections: Some(vec!["contacts".into()]),
        status: ConnectionStatus::Active,
        webhook: WebhookState::None { reason: "no-public-url".into() },
        created_at: now,
        updated_at: now,
    };
    let state = CollectionState {
        baseline_at: Some(now),
        next_pull_at: Some(now),
        next_scan_at: Some(now.after(Duration::from_secs(86_400))),
        ..Default::default()
    };
    tx.put_collection_state(connection.id, "contacts", &state)?;
    tx.put_secret_text(&connection.id.0, Slot::Credentials, &Secret::new(r#"{"apiKey":"x"}"#))?;
    tx.put_object(&connection)
}
