//! The connector `sandbox` against a running sandbox: every path of the connector runtime.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidemill::clock::Clock;
use tidemill::config::Config;
use tidemill::connectors::{
    Budget, CallError, ChangeKind, Collection, Connector, Credentials, Of, PageMark, PullQuery, Registry, Session,
    WebhookRequest, handle_global,
};
use tidemill::domain::address::Policy;
use tidemill::domain::time::Millis;
use tidemill::outbound::{self, Client};
use tidemill::sandbox::{self, Handle, Options};

struct Desk {
    sandbox: Handle,
    connector: Arc<Connector>,
    client: Client,
    clock: Clock,
    http: reqwest::Client,
    _registry: Registry,
}

impl Desk {
    async fn new() -> Self {
        let config = Config::load(None, std::iter::empty()).expect("the embedded configuration");
        let registry = Registry::load(&config.connectors, &config.scripts).expect("sound connectors");
        let connector = registry.get("sandbox").expect("embedded");
        let policy = Arc::new(Policy::new(vec!["127.0.0.0/8".parse().expect("a network")], false));
        let client = Client::new(&outbound::Options::standard(), policy).expect("a client");
        let clock = Clock::start(Millis(0));
        let sandbox = sandbox::run(Options::quiet(), clock.clone()).await.expect("a free port");
        Self { sandbox, connector, client, clock, http: reqwest::Client::new(), _registry: registry }
    }
    fn session(&self, key: &str) -> Session {
        let given = Map::from_iter([("baseUri".to_owned(), Value::from(self.sandbox.url()))]);
        let parameters = self.connector.parameters.check(&given).expect("good parameters");
        let base = self.connector.base_uri.choose(&parameters).expect("an address");
        let credentials = Credentials::read(&json!({"apiKey": key})).expect("a key");
        let budget = Arc::new(Budget::of(&self.connector, self.clock.now()));
        let (connector, client, clock) = (self.connector.clone(), self.client.clone(), self.clock.clone());
        Session::new(connector, &base, parameters, credentials, client, budget, clock).expect("a session")
    }
    fn collection(&self, key: &str) -> &Collection {
        self.connector.collection(key).expect("a collection of the connector")
    }
    async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.sandbox.url());
        let request = self.http.request(method.parse().expect("a method"), url);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let text = request.send().await.expect("an answer").text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_default()
    }
    async fn ids_of_the_app(&self, collection: &str) -> BTreeSet<String> {
        let path = format!("/control/records?account=acc_1&collection={collection}");
        let dump = self.control("GET", &path, Value::Null).await;
        let records = dump["accounts"]["acc_1"][collection]["records"].as_array().expect("records").clone();
        records.iter().map(|r| r["id"].as_str().map_or_else(|| r["id"].to_string(), str::to_owned)).collect()
    }
}

/// All records of a walk, in its order.
async fn walk(session: &Session, c: &Collection, query: Option<&PullQuery>) -> Vec<String> {
    let (mut ids, mut mark) = (Vec::new(), None::<PageMark>);
    for _ in 0..1_000 {
        let page = match query {
            Some(query) => session.pull_page(c, query, mark.as_ref()).await,
            None => session.scan_page(c, mark.as_ref()).await,
        }
        .expect("a page");
        for record in &page.records {
            if !page.ids_only {
                let remote_id = session.map(c, record, |unified| unified.remote_id).expect("it maps");
                assert_eq!(remote_id, record.remote_id);
                assert!(record.updated_at.is_some());
            }
            ids.push(record.remote_id.clone());
        }
        mark = page.next;
        if mark.is_none() {
            return ids;
        }
    }
    panic!("the walk over {} does not end", c.key);
}

#[tokio::test]
async fn every_collection_is_walked_whole() {
    let desk = Desk::new().await;
    desk.control("POST", "/control/changes", json!({"account": "acc_1", "count": 300})).await;
    let session = desk.session("sandbox-key-1");
    assert_eq!(session.account().await.expect("an account").as_deref(), Some("acc_1"));
    for key in ["users", "contacts", "opportunities", "customers", "orders"] {
        let collection = desk.collection(key);
        let expected = desk.ids_of_the_app(key).await;
        let scanned = walk(&session, collection, None).await;
        assert_eq!(scanned.len(), expected.len(), "{key}");
        assert_eq!(scanned.into_iter().collect::<BTreeSet<_>>(), expected, "{key}");
        if collection.pulls() {
            let pulled = walk(&session, collection, Some(&PullQuery::default())).await;
            assert_eq!(pulled.into_iter().collect::<BTreeSet<_>>(), expected, "{key}");
        }
    }
}

#[tokio::test]
async fn an_incremental_pull_brings_what_changed_and_the_deleted_list_what_went() {
    let desk = Desk::new().await;
    let session = desk.session("sandbox-key-1");
    let before = PullQuery { since: Some((desk.clock.now(), None)), until: None };
    for (collection, id) in [("orders", "3000005"), ("customers", "2000007"), ("contacts", "con_000009")] {
        let wish = json!({"account": "acc_1", "collection": collection, "kind": "updated", "id": id,
            "fields": {"note": "changed"}});
        desk.control("POST", "/control/changes", wish).await;
        assert_eq!(walk(&session, desk.collection(collection), Some(&before)).await, [id]);
    }
    let orders = desk.collection("orders");
    let wish = json!({"account": "acc_1", "collection": "orders", "kind": "deleted", "id": "3000006"});
    desk.control("POST", "/control/changes", wish).await;
    let gone = session.deleted_page(orders, &before, None).await.expect("a page");
    assert_eq!(gone.records.iter().map(|r| r.remote_id.as_str()).collect::<Vec<_>>(), ["3000006"]);
    assert!(session.fetch(orders, "3000006").await.expect("an answer").is_none());
    let order = session.fetch(orders, "3000005").await.expect("an answer").expect("it is there");
    assert!(order.raw.get().contains("\"note\":\"changed\""));
}

#[tokio::test]
async fn a_webhook_of_its_own_is_registered_renewed_and_taken_away() {
    let desk = Desk::new().await;
    let session = desk.session("sandbox-key-2");
    let made = session.subscribe("http://127.0.0.1:9/in/c/token", "a-secret-of-ours").await.expect("registered");
    let state: Value = serde_json::from_str(&made.state).expect("JSON");
    assert_eq!(state["secret"], "a-secret-of-ours");
    let half = desk.clock.now().after(Duration::from_secs(12 * 3_600 + 60));
    assert!(made.refresh_at.is_some_and(|at| at < half));
    let uri = "http://127.0.0.1:9/in/c/token";
    let renewed = session.refresh_webhook(uri, &made.state).await.expect("renewed");
    assert_eq!(renewed.state, made.state);
    session.unsubscribe(uri, &made.state).await.expect("taken away");
    session.unsubscribe(uri, &made.state).await.expect("gone already counts as gone");
    let missing = session.refresh_webhook(uri, &made.state).await.expect_err("it is not there");
    assert!(matches!(missing, CallError::Refused { status: 404, .. }), "{missing:?}");
}

fn webhook(event: &str, account: &str, data: &Value) -> WebhookRequest {
    let body = json!({"id": "evt_1", "event": event, "account_id": account, "data": data});
    WebhookRequest {
        method: "POST".into(),
        url: "http://127.0.0.1/in/x".into(),
        query: Vec::new(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.to_string().into(),
        received_at: Millis(0),
    }
}

#[tokio::test]
async fn webhooks_are_understood_and_routed_to_their_account() {
    let desk = Desk::new().await;
    let (first, second) = (desk.session("sandbox-key-1"), desk.session("sandbox-key-2"));
    let request = webhook("contact.deleted", "acc_1", &json!({"id": "con_000001"}));
    let handled = first.handle_webhook(&request, Of { state: Some("{}"), account: None }).await.expect("understood");
    let change = &handled.changes[0];
    assert_eq!((change.kind, change.remote_id.as_str()), (ChangeKind::Deleted, "con_000001"));

    let request = webhook("order.updated", "acc_2", &json!({"id": 3000001}));
    let handled = handle_global(&desk.connector, "changes", &request, &Map::new()).await.expect("understood");
    let event = &handled.events[0];
    let mine = first.event_selector("order-changed", &Map::new()).await.expect("a selector");
    let theirs = second.event_selector("order-changed", &Map::new()).await.expect("a selector");
    assert_eq!(theirs.webhook_key, "changes");
    assert!(theirs.selector == event.selector && mine.selector != event.selector);
    let change = second.event_change("order-changed", &event.payload).expect("understood").expect("of a collection");
    assert_eq!((change.collection.as_str(), change.kind), ("orders", ChangeKind::Updated));
    assert_eq!(change.remote_id, "3000001");
    let account = Map::from_iter([("account".to_owned(), Value::from("acc_2"))]);
    let mapped = second.event_selector("opportunity-changed", &account).await.expect("a selector");
    assert_eq!(mapped.selector, "opportunity/acc_2");
}

#[tokio::test]
async fn bad_answers_are_failures_and_never_empty_lists() {
    let desk = Desk::new().await;
    let session = desk.session("sandbox-key-1");
    let contacts = desk.collection("contacts");
    for kind in ["html", "half-json", "other-json", "endless", "close"] {
        desk.control("POST", "/control/answers", json!({"kind": kind})).await;
        let failure = session.pull_page(contacts, &PullQuery::default(), None).await.expect_err(kind);
        assert!(matches!(failure, CallError::BadAnswer(_) | CallError::Unavailable { .. }), "{kind}: {failure:?}");
    }
    let limited = json!({"kind": "status", "status": 429, "retryAfterSeconds": 7});
    desk.control("POST", "/control/answers", limited).await;
    let failure = session.pull_page(contacts, &PullQuery::default(), None).await.expect_err("limited");
    assert_eq!(failure.retry_after(), Some(Duration::from_secs(7)));
    let stranger = desk.session("not-a-key-of-it");
    let failure = stranger.pull_page(contacts, &PullQuery::default(), None).await.expect_err("unknown");
    assert!(matches!(failure, CallError::Unauthorized(_)), "{failure:?}");
}
