//! HubSpot's webhooks journal, read by a node that nothing can reach: changes, gaps, files, tokens, kills.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill::api;
use tidemill::outbound::Method;

use crate::support::api::Node;
use crate::support::clients;
use crate::support::hubspot::{CLIENT, HubSpot};
use crate::support::hubspot_journal::item;
use crate::support::node;

const CONTACT: &str = "0-1";

fn at(path: &str) -> String {
    format!("/2024-03/one/{path}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

fn token(portal: u64) -> Value {
    json!({"accessToken": format!("pat-{portal}")})
}

fn parameters(hub: &HubSpot) -> Value {
    json!({"baseUri": hub.url, "clientId": CLIENT.0, "clientSecret": CLIENT.1, "webhooks": "journal",
        "journalHosts": "127.0.0.1"})
}

struct Desk {
    node: Node,
    hub: HubSpot,
    integration: String,
}

impl Desk {
    async fn new() -> Self {
        // Without a public URL.
        let node = Node::start_with(&[], api::configure).await;
        let hub = HubSpot::start();
        for name in ["ann", "bob"] {
            node.post(&at("users"), json!({ "username": name })).await.ok();
        }
        let wish = json!({"connector": "hubspot", "parameters": parameters(&hub)});
        let made = node.post(&at("integrations"), wish).await.ok();
        let integration = text(&made["integration"]["integrationId"]);
        Self { node, hub, integration }
    }

    /// Connects a portal, and waits for its first sync and for its subscriptions.
    async fn connect(&self, user: &str, portal: u64, collections: &[&str]) -> String {
        let wish = json!({"userId": user, "integrationId": self.integration, "credentials": token(portal),
            "collections": collections});
        let made = self.node.post(&at("connections"), wish).await.ok();
        let id = text(&made["connection"]["connectionId"]);
        self.until(&at(&format!("connections/{id}")), |answer| {
            let all = answer["connection"]["collections"].as_array().expect("collections");
            let is_synced = all.len() == collections.len() && all.iter().all(|c| c["baselineAt"].is_string());
            is_synced && answer["connection"]["webhook"]["status"] == "registered"
        })
        .await;
        id
    }

    /// Asks until it fits.
    async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.node.until(path, fits).await
    }

    /// The same while the journal is read again and again: who changes an integration sees at once what follows.
    async fn until_read(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            self.hurry().await;
            let answer = self.node.get(path).await.ok();
            if fits(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{path} stays {answer:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn hurry(&self) {
        let path = at(&format!("integrations/{}", self.integration));
        self.node.call("PATCH", &path, Some(json!({"name": "hurried"}))).await.ok();
    }

    fn events_of(connection: &str) -> String {
        at(&format!("events?connectionId={connection}&limit=250"))
    }

    /// (update type, remote id) of the records' events of a connection, oldest first, once there are so many.
    async fn told(&self, connection: &str, count: usize) -> Vec<(String, String)> {
        let log = self.until_read(&Self::events_of(connection), |log| records(log).len() >= count).await;
        records(&log)
    }

    fn webhooks(&self) -> String {
        at(&format!("integrations/{}/webhooks", self.integration))
    }

    /// How reading goes, once it fits.
    async fn journal(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let answer = self.until_read(&self.webhooks(), |answer| fits(&answer["webhooks"][0]["journal"])).await;
        answer["webhooks"][0]["journal"].clone()
    }

    /// Nobody has polled: there are only the pulls of the first sync.
    async fn assert_not_polled(&self, connection: &str) {
        let pulls = self.node.get(&at(&format!("connections/{connection}/pulls?limit=250"))).await.ok();
        let all = pulls["pulls"].as_array().expect("pulls");
        assert!(all.iter().all(|pull| pull["mode"] == "first"), "{pulls:#}");
    }
}

fn records(log: &Value) -> Vec<(String, String)> {
    let all = log["events"].as_array().expect("events").iter().rev();
    let of_records = all.filter(|event| event["remoteId"].is_string());
    of_records.map(|event| (text(&event["updateType"]), text(&event["remoteId"]))).collect()
}

fn event(kind: &str, id: u64) -> (String, String) {
    (kind.to_owned(), id.to_string())
}

#[actix::test]
async fn changes_of_two_portals_arrive_through_the_journal_alone() {
    let desk = Desk::new().await;
    let (mine, theirs) = (desk.hub.import(111, "contacts", 2), desk.hub.import(222, "contacts", 1));
    let (ann, bob) = (desk.connect("ann", 111, &["contacts"]).await, desk.connect("bob", 222, &["contacts"]).await);
    let made = desk.hub.make(111, "contacts", &[("firstname", "Ada")]);
    desk.hub.change(111, "contacts", mine[0], &[("firstname", "Bela")]);
    desk.hub.archive(111, "contacts", mine[1]);
    desk.hub.change(222, "contacts", theirs[0], &[("lastname", "Weiß")]);
    let items = [
        item(111, "CREATE", CONTACT, made, &[("firstname", "Ada")]),
        item(111, "UPDATE", CONTACT, mine[0], &[("firstname", "Bela")]),
        item(222, "UPDATE", CONTACT, theirs[0], &[("lastname", "Weiß")]),
        item(111, "UPDATE", CONTACT, mine[0], &[("lastname", "")]),
        item(111, "DELETE", CONTACT, mine[1], &[]),
    ];
    assert_eq!(desk.hub.journal(|journal| journal.tell(&items)), 5, "all of it was subscribed to");
    let mut told = desk.told(&ann, 3).await;
    told.sort();
    let mut wanted = vec![event("created", made), event("deleted", mine[1]), event("updated", mine[0])];
    wanted.sort();
    assert_eq!(told, wanted);
    assert_eq!(desk.told(&bob, 1).await, [event("updated", theirs[0])]);
    let fetched = desk.hub.calls(&format!("GET /crm/v3/objects/contacts/{}", mine[0]));
    assert_eq!(fetched, 1, "two changes of one record are one fetch");
    desk.assert_not_polled(&ann).await;
    // What nobody listens to is kept with its reason.
    desk.hub.journal(|journal| journal.write(&[item(999, "CREATE", CONTACT, 1, &[])]));
    let journal = desk.journal(|journal| journal["entries"] == 2).await;
    assert_eq!((&journal["status"], &journal["items"]), (&json!("reading"), &json!(6)), "{journal}");
    assert_eq!(journal["offset"], "00000000-0000-4000-8000-000000000002");
    let path = at(&format!("integrations/{}/inbox?limit=250", desk.integration));
    let inbox = desk
        .until(&path, |answer| {
            let all = answer["inbox"].as_array().expect("an inbox");
            all.len() == 2 && all.iter().all(|row| row["state"] == "done")
        })
        .await;
    let note = text(&inbox["inbox"][0]["note"]);
    assert!(note.contains("no connection listens to the selector \"portal:999\""), "{inbox:#}");
    let hooks = desk.node.get(&desk.webhooks()).await.ok();
    assert_eq!(hooks.get("note"), None, "nothing need reach the node: {hooks}");
    assert_eq!(desk.hub.journal(|journal| journal.credentials_at_files), 0);
    desk.node.stop().await;
}

#[actix::test]
async fn subscriptions_are_made_on_connecting_and_again_when_dropped_and_removed_with_the_last_connection() {
    let desk = Desk::new().await;
    desk.hub.define(111, "contacts", "trade_zone", "Trade zone");
    desk.hub.journal(|journal| journal.refused.insert("0-136".to_owned()));
    let ann = desk.connect("ann", 111, &["contacts", "notes", "leads"]).await;
    let wanted: Vec<(String, String)> =
        [("0-1", "GDPR_PRIVACY_DELETION"), ("0-1", "OBJECT"), ("0-46", "ASSOCIATION"), ("0-46", "OBJECT")]
            .map(|(object, kind)| (object.to_owned(), kind.to_owned()))
            .to_vec();
    // What the app may not read costs that object only.
    assert_eq!(desk.hub.journal(|journal| journal.of_portal(111)), wanted);
    let named = desk.hub.journal(|journal| {
        let of = journal
            .subscriptions
            .values()
            .find(|one| one["objectTypeId"] == "0-1" && one["subscriptionType"] == "OBJECT");
        of.expect("one")["properties"].as_array().expect("properties").clone()
    });
    assert!(named.contains(&json!("firstname")) && named.contains(&json!("trade_zone")), "{named:?}");
    let bob = desk.connect("bob", 111, &["contacts", "notes", "leads"]).await;
    assert_eq!(desk.hub.journal(|journal| journal.subscriptions.len()), 4, "the second finds them there");
    // The app drops them: a day later they are made anew.
    desk.hub.journal(|journal| journal.subscriptions.clear());
    let now = desk.node.state.clock.now();
    desk.node.state.clock.raise(now.after(Duration::from_secs(25 * 3600)));
    let end = Instant::now() + Duration::from_secs(30);
    while desk.hub.journal(|journal| journal.of_portal(111)) != wanted {
        assert!(Instant::now() < end, "they are not made anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Who goes first leaves them to the other.
    for (connection, left) in [(bob, 4), (ann, 0)] {
        desk.until(&at(&format!("connections/{connection}")), |answer| {
            answer["connection"]["webhook"]["status"] == "registered"
        })
        .await;
        desk.node.call("DELETE", &at(&format!("connections/{connection}")), None).await.ok();
        let deleted = || desk.hub.calls("DELETE /webhooks-journal/");
        let end = Instant::now() + Duration::from_secs(30);
        while desk.hub.journal(|journal| journal.subscriptions.len()) != left {
            assert!(Instant::now() < end, "{} subscriptions were deleted", deleted());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    desk.node.stop().await;
}

#[actix::test]
async fn turning_the_journal_off_removes_its_subscriptions_and_pushes_are_the_default() {
    let desk = Desk::new().await;
    desk.connect("ann", 111, &["contacts"]).await;
    let path = at(&format!("integrations/{}", desk.integration));
    desk.node.call("PATCH", &path, Some(json!({"parameters": {"webhooks": null}}))).await.ok();
    let end = Instant::now() + Duration::from_secs(30);
    while !desk.hub.journal(|journal| journal.subscriptions.is_empty()) {
        assert!(Instant::now() < end, "they stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let hooks = desk.node.get(&desk.webhooks()).await.ok();
    assert_eq!(hooks["webhooks"][0].get("journal"), None, "{hooks}");
    assert!(text(&hooks["note"]).contains("public_url"), "{hooks}");
    desk.node.stop().await;
}

#[actix::test]
async fn after_an_expired_offset_the_connections_look_for_themselves_and_reading_goes_on() {
    let desk = Desk::new().await;
    let ids = desk.hub.import(111, "contacts", 3);
    let ann = desk.connect("ann", 111, &["contacts"]).await;
    desk.hub.change(111, "contacts", ids[0], &[("firstname", "One")]);
    desk.hub.journal(|journal| journal.tell(&[item(111, "UPDATE", CONTACT, ids[0], &[("firstname", "One")])]));
    desk.told(&ann, 1).await;
    // An entry that nobody has read is too old, and the one that was read last.
    desk.hub.change(111, "contacts", ids[1], &[("firstname", "Two")]);
    desk.hub.journal(|journal| {
        journal.tell(&[item(111, "UPDATE", CONTACT, ids[1], &[("firstname", "Two")])]);
        journal.forget();
    });
    desk.hub.change(111, "contacts", ids[2], &[("firstname", "Three")]);
    desk.hub.journal(|journal| journal.tell(&[item(111, "UPDATE", CONTACT, ids[2], &[("firstname", "Three")])]));
    let mut told = desk.told(&ann, 3).await;
    told.sort();
    assert_eq!(told, [event("updated", ids[0]), event("updated", ids[1]), event("updated", ids[2])]);
    let journal = desk.journal(|journal| journal["gapAt"].is_string()).await;
    assert!(text(&journal["gap"]).contains("no longer has what came after"), "{journal}");
    assert_eq!(journal["status"], "reading", "{journal}");
    let pulls = desk.node.get(&at(&format!("connections/{ann}/pulls?limit=250"))).await.ok();
    let looked = pulls["pulls"].as_array().expect("pulls").iter().filter(|pull| pull["mode"] == "incremental").count();
    assert_eq!(looked, 1, "{pulls:#}");
    desk.node.stop().await;
}

#[actix::test]
async fn a_404_for_nothing_new_is_no_gap() {
    let desk = Desk::new().await;
    let ids = desk.hub.import(111, "contacts", 1);
    let ann = desk.connect("ann", 111, &["contacts"]).await;
    desk.hub.journal(|journal| journal.nothing_is_404 = true);
    for name in ["One", "Two"] {
        desk.hub.change(111, "contacts", ids[0], &[("firstname", name)]);
        desk.hub.journal(|journal| journal.tell(&[item(111, "UPDATE", CONTACT, ids[0], &[("firstname", name)])]));
        let known = if name == "One" { 1 } else { 2 };
        desk.told(&ann, known).await;
        let asked = desk.hub.calls("GET /webhooks-journal/journal/2026-03/latest");
        // It is asked once more, and finds nothing.
        desk.journal(|_| desk.hub.calls("GET /webhooks-journal/journal/2026-03/latest") > asked).await;
    }
    let journal = desk.journal(|journal| journal["entries"] == 2).await;
    assert_eq!((&journal["status"], &journal["gapAt"]), (&json!("reading"), &Value::Null), "{journal}");
    desk.node.stop().await;
}

#[actix::test]
async fn stale_addresses_packed_files_ended_tokens_and_limits_lose_nothing() {
    let desk = Desk::new().await;
    let ids = desk.hub.import(111, "contacts", 4);
    let ann = desk.connect("ann", 111, &["contacts"]).await;
    let tell = |id: u64| {
        desk.hub.change(111, "contacts", id, &[("firstname", "New")]);
        desk.hub.journal(|journal| journal.tell(&[item(111, "UPDATE", CONTACT, id, &[("firstname", "New")])]));
    };
    desk.hub.journal(|journal| (journal.stale, journal.packed) = (2, true));
    tell(ids[0]);
    desk.told(&ann, 1).await;
    let before = desk.hub.journal(|journal| journal.issued);
    desk.hub.journal(|journal| journal.end_tokens());
    tell(ids[1]);
    desk.told(&ann, 2).await;
    assert_eq!(desk.hub.journal(|journal| journal.issued), before + 1, "one token more");
    let limited = json!({"status": "error", "policyName": "SECONDLY", "category": "RATE_LIMITS"});
    desk.hub.fail(429, limited, vec![("retry-after", "1".to_owned())]);
    desk.hub.fail(502, json!({}), Vec::new());
    tell(ids[2]);
    tell(ids[3]);
    let mut told = desk.told(&ann, 4).await;
    told.sort();
    assert_eq!(told, ids.iter().map(|id| event("updated", *id)).collect::<Vec<_>>());
    let journal = desk.journal(|journal| journal["entries"] == 4).await;
    assert_eq!((&journal["status"], &journal["gapAt"]), (&json!("reading"), &Value::Null), "{journal}");
    assert_eq!(desk.hub.journal(|journal| journal.credentials_at_files), 0, "nobody else's host sees a token");
    desk.node.stop().await;
}

#[actix::test]
async fn a_file_that_cannot_be_read_is_left_out_after_five_tries_and_its_changes_are_looked_for() {
    let desk = Desk::new().await;
    let ids = desk.hub.import(111, "contacts", 2);
    let ann = desk.connect("ann", 111, &["contacts"]).await;
    desk.hub.change(111, "contacts", ids[0], &[("firstname", "Lost")]);
    desk.hub.journal(|journal| journal.write_file(b"{\"journalEvents\": [{\"por".to_vec()));
    desk.hub.change(111, "contacts", ids[1], &[("firstname", "Told")]);
    desk.hub.journal(|journal| journal.tell(&[item(111, "UPDATE", CONTACT, ids[1], &[("firstname", "Told")])]));
    let mut told = desk.told(&ann, 2).await;
    told.sort();
    assert_eq!(told, [event("updated", ids[0]), event("updated", ids[1])]);
    let journal = desk.journal(|journal| journal["entries"] == 2).await;
    let gap = text(&journal["gap"]);
    assert!(
        gap.starts_with("an entry was left out after 5 tries") && gap.contains("in the middle of its JSON"),
        "{gap}"
    );
    desk.node.stop().await;
}

#[actix::test]
async fn a_file_at_a_host_that_nobody_named_is_not_read_until_it_is_named() {
    let desk = Desk::new().await;
    let path = at(&format!("integrations/{}", desk.integration));
    desk.node.call("PATCH", &path, Some(json!({"parameters": {"journalHosts": "s3.amazonaws.com"}}))).await.ok();
    let ids = desk.hub.import(111, "contacts", 1);
    let ann = desk.connect("ann", 111, &["contacts"]).await;
    desk.hub.change(111, "contacts", ids[0], &[("firstname", "New")]);
    desk.hub.journal(|journal| journal.tell(&[item(111, "UPDATE", CONTACT, ids[0], &[("firstname", "New")])]));
    let journal = desk.journal(|journal| journal["status"] == "failing").await;
    let error = text(&journal["error"]);
    assert!(error.contains("the entry's file is at \"127.0.0.1\""), "{error}");
    assert_eq!(desk.hub.journal(|journal| journal.files_read), 0);
    desk.node.call("PATCH", &path, Some(json!({"parameters": {"journalHosts": "127.0.0.1"}}))).await.ok();
    desk.told(&ann, 1).await;
    desk.node.stop().await;
}

#[actix::test]
async fn a_refused_client_is_shown_and_polls_go_on_until_it_is_mended() {
    let desk = Desk::new().await;
    let ann = desk.connect("ann", 111, &["contacts"]).await;
    let path = at(&format!("integrations/{}", desk.integration));
    desk.node.call("PATCH", &path, Some(json!({"parameters": {"clientSecret": "another"}}))).await.ok();
    let journal = desk.journal(|journal| journal["status"] == "failing").await;
    let error = text(&journal["error"]);
    assert!(error.contains("does not accept the integration's own client"), "{error}");
    // Some failures later polls go on in its place, and it is told.
    let id = desk.hub.make(111, "contacts", &[("firstname", "Ada")]);
    assert_eq!(desk.told(&ann, 1).await, [event("created", id)]);
    let status = desk.node.get(&at("status")).await.ok();
    let trouble = &status["status"]["connections"][0];
    assert_eq!((&trouble["trouble"], &trouble["status"]), (&json!("journal"), &json!("active")), "{status:#}");
    desk.node.call("PATCH", &path, Some(json!({"parameters": {"clientSecret": CLIENT.1}}))).await.ok();
    desk.journal(|journal| journal["status"] == "reading").await;
    let status = desk.node.get(&at("status")).await.ok();
    assert_eq!(status["status"]["connections"], json!([]), "{status:#}");
    desk.node.stop().await;
}

#[actix::test]
async fn hubspots_own_client_reads_the_fake_journal_and_manages_its_subscriptions() {
    let hub = HubSpot::start();
    let offsets = hub.journal(|journal| {
        let one = journal.write(&[item(111, "CREATE", CONTACT, 7, &[("firstname", "Ada")])]);
        [one, journal.write(&[item(111, "DELETE", CONTACT, 7, &[])])]
    });
    if let Some(said) = clients::run("hubspot_journal", "hubspot_sdk", &[&hub.url, CLIENT.0, CLIENT.1]).await {
        let said: Value = serde_json::from_str(said.trim()).expect("JSON");
        assert_eq!(said["offsets"], json!(offsets));
        assert_eq!(said["actions"], json!(["CREATE", "DELETE"]));
        assert_eq!((&said["after"], &said["unknown"]), (&json!(204), &json!(404)));
        assert_eq!((&said["listed"], &said["left"]), (&json!([["0-1", "OBJECT"]]), &json!(0)));
    }
}

/// A connection of a node that is killed, to a fake that lives on.
struct Killed {
    node: node::Node,
    hub: HubSpot,
    integration: String,
    connection: String,
    _folder: tempfile::TempDir,
}

impl Killed {
    async fn new(contacts: u64) -> (Self, Vec<u64>) {
        let hub = HubSpot::start();
        let ids = hub.import(111, "contacts", contacts);
        let folder = tempfile::TempDir::new().expect("a folder");
        let mut node = node::Node::new(folder.path());
        node.start();
        node.ready().await;
        node.call(Method::POST, &at("users"), Some(&json!({"username": "ann"}))).await;
        let wish = json!({"connector": "hubspot", "parameters": parameters(&hub)});
        let made = node.call(Method::POST, &at("integrations"), Some(&wish)).await;
        let integration = text(&made["integration"]["integrationId"]);
        let wish = json!({"userId": "ann", "integrationId": integration, "credentials": token(111),
            "collections": ["contacts"], "pollIntervalSeconds": 86_400});
        let made = node.call(Method::POST, &at("connections"), Some(&wish)).await;
        let connection = text(&made["connection"]["connectionId"]);
        let killed = Self { node, hub, integration, connection, _folder: folder };
        killed
            .until("the first sync and the subscriptions", || async {
                let shown = killed.get(&at(&format!("connections/{}", killed.connection))).await;
                let synced = shown["connection"]["collections"][0]["baselineAt"].is_string();
                synced && shown["connection"]["webhook"]["status"] == "registered"
            })
            .await;
        (killed, ids)
    }

    async fn get(&self, path: &str) -> Value {
        self.node.call(Method::GET, path, None).await
    }

    async fn hurry(&self) {
        let path = at(&format!("integrations/{}", self.integration));
        let _ = self.node.try_call(Method::PATCH, &path, Some(&json!({"name": "hurried"}))).await;
    }

    async fn until<F: Future<Output = bool>>(&self, what: &str, fits: impl Fn() -> F) {
        let end = Instant::now() + Duration::from_secs(60);
        while !fits().await {
            assert!(Instant::now() < end, "{what} does not come: {}", self.node.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn told(&self) -> Vec<(String, String)> {
        records(&self.get(&Desk::events_of(&self.connection)).await)
    }
}

#[actix::test]
async fn killed_between_a_file_and_its_commit_the_node_loses_no_change_and_tells_none_twice() {
    let rounds = 8;
    let (mut killed, ids) = Killed::new(rounds).await;
    for (round, id) in ids.iter().enumerate() {
        killed.hub.change(111, "contacts", *id, &[("firstname", "New")]);
        let read = killed.hub.journal(|journal| {
            journal.tell(&[item(111, "UPDATE", CONTACT, *id, &[("firstname", "New")])]);
            // Every other time in the middle of the file, so surely before the commit.
            journal.holds = round % 2 == 1;
            journal.files_read
        });
        killed.hurry().await;
        let end = Instant::now() + Duration::from_secs(60);
        while killed.hub.journal(|journal| journal.files_read) == read {
            assert!(Instant::now() < end, "the file is not read: {}", killed.node.log());
            tokio::task::yield_now().await;
        }
        // The moment of the kill is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis((round as u64 % 4) * 3)).await;
        killed.node.kill();
        killed.hub.journal(|journal| journal.holds = false);
        killed.node.start();
        killed.node.ready().await;
        killed
            .until("the change", || async {
                killed.hurry().await;
                killed.told().await.len() > round
            })
            .await;
    }
    let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
    for told in killed.told().await {
        *times.entry(told).or_default() += 1;
    }
    let wanted: BTreeMap<_, _> = ids.iter().map(|id| (event("updated", *id), 1)).collect();
    assert_eq!(times, wanted);
}
