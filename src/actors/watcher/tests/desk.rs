//! A store, a connection, an app, and a watcher's look at them by hand.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::actors::watcher::account::{Account, Opened};
use crate::actors::watcher::look;
use crate::actors::{Deps, handle::Rings};
use crate::clock::Clock;
use crate::config::Config;
use crate::connectors::Registry;
use crate::domain::address::Policy;
use crate::domain::connection::{
    CollectionState, Connection, ConnectionStatus, InitialSync, Pull, Remap, SyncRequest, WebhookState,
};
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, InboxId, PullId, Seq, UserId, WorkspaceNo};
use crate::domain::secret::Secret;
use crate::domain::snapshot::SnapshotRow;
use crate::domain::time::Millis;
use crate::domain::workspace::User;
use crate::outbound::{Client, Options};
use crate::sandbox;
use crate::store::{InboxRequest, InboxState, Slot, Store, Wait};
use crate::telemetry::Metrics;

pub const FAR: Millis = Millis(u64::MAX / 4);

/// See the module.
pub struct Desk {
    pub deps: Deps,
    pub sandbox: Option<sandbox::Handle>,
    pub http: reqwest::Client,
    pub id: ConnectionId,
    _dir: tempfile::TempDir,
}

/// How a connection of a test is made.
pub struct Setup<'a> {
    pub connector: &'a str,
    pub base: String,
    pub credentials: Value,
    pub collections: &'a [&'a str],
    pub initial: InitialSync,
    pub connectors: Option<&'a Path>,
}

impl Desk {
    /// A connection of the sandbox's first account, with these collections alone.
    pub async fn sandbox(collections: &[&str]) -> Self {
        Self::sandbox_with(collections, InitialSync::Baseline, sandbox::Options::quiet()).await
    }

    pub async fn sandbox_with(collections: &[&str], initial: InitialSync, options: sandbox::Options) -> Self {
        let clock = Clock::start(Millis(0));
        let app = sandbox::run(options, clock.clone()).await.unwrap();
        let setup = Setup {
            connector: "sandbox",
            base: app.url(),
            credentials: json!({ "apiKey": app.key(1) }),
            collections,
            initial,
            connectors: None,
        };
        let mut desk = Self::new(clock, setup).await;
        desk.sandbox = Some(app);
        desk
    }

    pub async fn new(clock: Clock, setup: Setup<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::embedded().unwrap();
        config.storage.path = dir.path().to_owned();
        config.storage.free_bytes_min = std::num::NonZeroU64::MIN;
        let store = Store::open(&config.storage, &[7; 32], &clock, Arc::new(|_| {})).unwrap();
        let nets = vec!["127.0.0.0/8".parse().unwrap()];
        let deps = Deps {
            store,
            clock,
            metrics: Metrics::new().unwrap(),
            connectors: registry(setup.connectors),
            apps: Client::new(&Options::standard(), Arc::new(Policy::new(nets, true))).unwrap(),
            rings: Rings::default(),
            polling: Arc::new(config.polling.clone()),
            handle_tries_max: 5,
            runtime: tokio::runtime::Handle::current(),
            memory: Arc::default(),
            public_url: None,
        };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut desk = Self { deps, sandbox: None, http, id: ConnectionId([0; 12]), _dir: dir };
        desk.id = desk.connect(&setup).await;
        desk
    }

    /// Makes a user and a connection.
    pub async fn connect(&self, setup: &Setup<'_>) -> ConnectionId {
        let (now, workspace) = (self.deps.clock.now(), WorkspaceNo::DEFAULT);
        let mut connection = Connection {
            id: ConnectionId([0; 12]),
            workspace,
            user: UserId([9; 12]),
            integration: None,
            connector: setup.connector.to_owned(),
            app: "Sandbox".into(),
            category: "crm".into(),
            parameters: json!({ "baseUri": setup.base }).to_string(),
            account: None,
            poll_interval_seconds: None,
            full_scan_interval_seconds: None,
            initial_sync: setup.initial,
            remap: Remap::Silent,
            collections: Some(setup.collections.iter().map(|c| (*c).to_owned()).collect()),
            status: ConnectionStatus::Active,
            webhook: WebhookState::Wanted { tries: 0 },
            created_at: now,
            updated_at: now,
        };
        let user = User {
            id: UserId([9; 12]),
            workspace,
            username: "ada".into(),
            full_name: Some("Ada L.".into()),
            created_at: now,
        };
        let secret = Secret::new(setup.credentials.to_string());
        let change = self.deps.store.change(move |tx| {
            connection.id = ConnectionId(tx.fresh_id()?);
            tx.put_object(&user)?;
            tx.put_object(&connection)?;
            tx.put_secret_text(&connection.id.0, Slot::Credentials, &secret)?;
            Ok(connection.id)
        });
        change.await.unwrap()
    }

    pub async fn look(&self) -> Option<Millis> {
        look(&self.deps, self.id.0).await.unwrap()
    }

    pub fn state(&self, collection: &str) -> CollectionState {
        self.deps.store.collection_state(self.id, collection).unwrap()
    }

    pub async fn set_state(&self, collection: &str, state: CollectionState) {
        let (id, key) = (self.id, collection.to_owned());
        let put = self.deps.store.append(Wait::Applied, move |tx| tx.put_collection_state(id, &key, &state));
        put.await.unwrap();
    }

    /// A pull of one collection, due now; its scan is not.
    pub async fn pull(&self, collection: &str) -> Option<Millis> {
        let state = CollectionState { next_pull_at: None, next_scan_at: Some(FAR), ..self.state(collection) };
        self.set_state(collection, state).await;
        self.look().await
    }

    /// A scan of one collection, due now; its pull is not.
    pub async fn scan(&self, collection: &str) -> Option<Millis> {
        let state = CollectionState { next_pull_at: Some(FAR), next_scan_at: None, ..self.state(collection) };
        self.set_state(collection, state).await;
        self.look().await
    }

    pub async fn ask(&self, full: bool, approve_deletes: bool) -> PullId {
        let (id, now) = (self.id, self.deps.clock.now());
        let asked = self.deps.store.change(move |tx| {
            let pull = PullId(tx.fresh_id()?);
            let request = SyncRequest { pull, full, approve_deletes, collections: Vec::new(), asked_at: now };
            tx.put_sync_request(id, &request)?;
            Ok(pull)
        });
        asked.await.unwrap()
    }

    pub fn events(&self) -> Vec<Event> {
        let (events, more) = self.deps.store.events_after(Seq(0), Seq(u64::MAX - 1), 1_000_000).unwrap();
        assert!(!more);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Events of records as (update type, remote id), system events left out.
    pub fn told(&self) -> Vec<(String, String)> {
        let of = |event: Event| match event.payload {
            crate::domain::event::Payload::Record { remote_id, .. } => Some((event.update_type?, remote_id)),
            crate::domain::event::Payload::Plain(_) => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }

    pub fn topics(&self) -> Vec<String> {
        self.events().into_iter().map(|event| event.topic).collect()
    }

    pub fn count(&self, topic: &str) -> usize {
        self.topics().into_iter().filter(|t| t == topic).count()
    }

    pub fn pulls(&self) -> Vec<Pull> {
        self.deps.store.pulls(self.id, None, 1_000).unwrap().0
    }

    pub fn rows(&self, collection: &str) -> Vec<SnapshotRow> {
        let mut rows = Vec::new();
        let walked = self.deps.store.walk_snapshot(self.id, collection, None, |_, row| {
            rows.push(row);
            Ok(true)
        });
        walked.unwrap();
        rows
    }

    pub fn live(&self, collection: &str) -> Vec<SnapshotRow> {
        let mut rows: Vec<_> = self.rows(collection).into_iter().filter(SnapshotRow::is_live).collect();
        rows.sort_by(|a, b| a.remote_id.cmp(&b.remote_id));
        rows
    }

    pub fn connection(&self) -> Connection {
        self.deps.store.object_anywhere(&self.id.0).unwrap().unwrap()
    }

    /// Stores a webhook as the door does.
    pub async fn webhook(&self, event: Option<&str>, body: Value, received_at: Millis) -> InboxId {
        let request = InboxRequest {
            workspace: WorkspaceNo::DEFAULT,
            webhook_key: String::new(),
            received_at,
            method: "POST".into(),
            uri: "/in/c/token".into(),
            headers: vec![("content-type".into(), b"application/json".to_vec())],
            body: body.to_string().into_bytes(),
            verdict: "verified".into(),
            event: event.map(str::to_owned),
        };
        let owner = self.id.0;
        self.deps.store.change(move |tx| tx.put_inbox(&owner, &request.incoming()?)).await.unwrap()
    }

    pub fn inbox(&self, id: InboxId) -> InboxState {
        self.deps.store.inbox_row(&self.id.0, id).unwrap().unwrap().state
    }

    /// Makes the rows that wait due now.
    pub async fn hurry(&self, id: InboxId) {
        let row = self.deps.store.inbox_row(&self.id.0, id).unwrap().unwrap();
        let now = self.deps.clock.now();
        self.deps.memory.quiet(&self.deps.rings, self.id, now);
        self.deps.store.change(move |tx| tx.settle_inbox(id, &row, now)).await.unwrap();
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let app = self.sandbox.as_ref().unwrap();
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", app.url()));
        request = request.bearer_auth(app.key(1));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub async fn fault(&self, fault: Value) {
        self.call("POST", "/control/answers", Some(fault)).await;
    }

    /// The app's ids, sorted.
    pub async fn app_ids(&self, collection: &str) -> Vec<String> {
        let all = self.call("GET", &format!("/control/records?account=acc_1&collection={collection}"), None).await;
        let records = all["accounts"]["acc_1"][collection]["records"].as_array().unwrap().clone();
        let text = |id: &Value| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let mut ids: Vec<String> = records.iter().map(|record| text(&record["id"])).collect();
        ids.sort();
        ids
    }

    pub fn account(&self) -> Arc<Account> {
        match Account::open(&self.deps, self.connection()).unwrap() {
            Opened::Ready(account) => account,
            Opened::Wrong(why) => panic!("{why}"),
        }
    }

    /// The snapshot holds exactly the app's records, each mapped from what the app shows now.
    pub async fn assert_same(&self, collection: &str) {
        let live = self.live(collection);
        let ids: Vec<String> = live.iter().map(|row| row.remote_id.clone()).collect();
        assert_eq!(ids, self.app_ids(collection).await, "{collection}");
        assert_eq!(self.state(collection).records, live.len() as u64, "{collection}");
        let account = self.account();
        let c = account.connector().collection(collection).unwrap();
        for row in live.iter().filter(|_| c.fetches()) {
            let record = account.session.fetch(c, &row.remote_id).await.unwrap().unwrap();
            let fields = account.session.map(c, &record, |unified| unified.fields.to_text()).unwrap();
            assert_eq!(row.fields, fields, "{collection} {}", row.remote_id);
        }
    }

    pub async fn stop(self) {
        if let Some(app) = self.sandbox {
            app.stop().await;
        }
    }
}

/// The built-in connectors, and those of a folder.
pub fn registry(path: Option<&Path>) -> Arc<Registry> {
    let mut config = Config::embedded().unwrap();
    config.connectors.path = path.map(Path::to_owned);
    Arc::new(Registry::load(&config.connectors, &config.scripts).unwrap())
}
