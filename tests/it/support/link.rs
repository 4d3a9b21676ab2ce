//! A node with one connection to an app, and a receiver for each version of the body.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::api;
use tidemill::app::Seams;
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;

use super::api::Node;
use super::receiver::{Received, Receiver};

const ONE: &str = "/2024-03/one";
const INTERVAL: u64 = 300 * 86_400;

/// See the module.
pub struct Link {
    pub node: Node,
    pub clock: Clock,
    pub connection: Value,
    old: Receiver,
    new: Receiver,
    told: usize,
}

/// One event as both versions brought it.
#[derive(Debug)]
pub struct Told {
    pub topic: String,
    pub kind: String,
    /// `dataPayload` of 2024-03.
    pub data: Value,
    /// `dataPayload` of 2023-12.
    pub old: Value,
    pub app: String,
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

impl Link {
    /// Connects and waits for the first sync, which tells nothing.
    pub async fn open(
        clock: &Clock,
        connector: &str,
        integration: Value,
        parameters: Value,
        credentials: Value,
        collections: &[&str],
    ) -> Self {
        Self::open_with(&[], clock, connector, integration, parameters, credentials, collections).await
    }

    /// The same with further settings of the node.
    pub async fn open_with(
        more: &[(&str, &str)],
        clock: &Clock,
        connector: &str,
        integration: Value,
        parameters: Value,
        credentials: Value,
        collections: &[&str],
    ) -> Self {
        let folder = TempDir::new().expect("a folder");
        let node = Node::open(folder, more, api::configure, clock.clone(), Seams::default()).await;
        let (old, new) = (Receiver::start(), Receiver::start());
        node.post(&format!("{ONE}/users"), json!({"username": "ann"})).await.ok();
        for (version, receiver) in [("2023-12", &old), ("2024-03", &new)] {
            let wish = json!({"address": receiver.address, "topic": ["*"]});
            node.post(&format!("/{version}/one/webhooks"), wish).await.ok();
        }
        let wish = json!({"connector": connector, "parameters": integration});
        let made = node.post(&format!("{ONE}/integrations"), wish).await.ok();
        let wish = json!({
            "userId": "ann", "integrationId": made["integration"]["integrationId"], "credentials": credentials,
            "parameters": parameters, "collections": collections,
            // Looks come when a test asks.
            "pollIntervalSeconds": INTERVAL, "fullScanIntervalSeconds": INTERVAL,
        });
        let made = node.post(&format!("{ONE}/connections"), wish).await.ok()["connection"].clone();
        let link = Self { node, clock: clock.clone(), connection: made, old, new, told: 0 };
        let path = link.path("");
        let synced = |answer: &Value| {
            let all = answer["connection"]["collections"].as_array().expect("collections").clone();
            assert!(all.iter().all(|c| c["error"].is_null() || c["error"] == ""), "{all:?}");
            all.len() == collections.len() && all.iter().all(|c| c["baselineAt"].is_string())
        };
        link.until(&path, synced).await;
        link
    }

    pub fn path(&self, rest: &str) -> String {
        format!("{ONE}/connections/{}{rest}", text(&self.connection["connectionId"]))
    }

    /// Asks until it fits, for up to 30 seconds; the clock goes on a little meanwhile, for budgets.
    pub async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.node.get(path).await.ok();
            if fits(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{path} stays {answer}");
            self.clock.raise(Millis(self.clock.now().0 + 20));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Looks at the app now; answers the pull as it ended.
    pub async fn sync(&self, mode: &str) -> Value {
        let asked = self.node.post(&self.path("/sync"), json!({"mode": mode})).await;
        assert_eq!(asked.status, 202, "{}", asked.text);
        let id = text(&asked.json()["pullId"]);
        let of = |answer: &Value| {
            let all = answer["pulls"].as_array().expect("pulls").clone();
            all.into_iter().find(|pull| pull["pullId"] == id.as_str() && pull["outcome"] != "running")
        };
        let answer = self.until(&self.path("/pulls"), |answer| of(answer).is_some()).await;
        of(&answer).expect("it ended")
    }

    /// The events that came since the last time, of which there must be so many, sorted by topic and remote id.
    pub async fn told(&mut self, count: usize) -> Vec<Told> {
        let whole = self.told + count;
        let bodies = |all: Vec<Received>| -> BTreeMap<String, (String, Value)> {
            let one =
                |r: &Received| (r.header("webhook-id").to_owned(), (r.header("x-alloy-topic").to_owned(), r.json()));
            all.iter().map(one).collect()
        };
        let (old, new) = (bodies(self.old.wait(whole).await), bodies(self.new.wait(whole).await));
        assert_eq!((old.len(), new.len()), (whole, whole), "{new:#?}");
        let told: Vec<Told> = new
            .into_iter()
            .skip(self.told)
            .map(|(id, (topic, body))| {
                let (_, before) = old.get(&id).expect("both versions bring each event").clone();
                assert_eq!(before["name"], body["app"]);
                Told {
                    topic,
                    kind: text(&body["updateType"]),
                    data: body["dataPayload"].clone(),
                    old: before["dataPayload"].clone(),
                    app: text(&body["app"]),
                }
            })
            .collect();
        self.told = whole;
        let mut told = told;
        told.sort_by_key(|told| (told.topic.clone(), text(&told.data["remoteId"])));
        told
    }

    /// Nothing came beyond what was taken.
    pub async fn nothing(&mut self) {
        let log = self.node.get(&format!("{ONE}/events?limit=250")).await.ok();
        let data: Vec<Value> = log["events"]
            .as_array()
            .expect("events")
            .iter()
            .filter(|e| ["crm/", "commerce/", "accounting/"].iter().any(|kind| text(&e["topic"]).starts_with(kind)))
            .cloned()
            .collect();
        assert_eq!(data.len(), self.told, "{data:#?}");
    }

    /// When a collection is looked at next by itself.
    pub async fn next_pull(&self, key: &str) -> Millis {
        let shown = self.node.get(&self.path("")).await.ok();
        let all = shown["connection"]["collections"].as_array().expect("collections").clone();
        let one = all.iter().find(|c| c["key"] == key).unwrap_or_else(|| panic!("no {key} in {all:?}"));
        Millis::parse_rfc3339(&text(&one["nextPullAt"])).expect("a time")
    }

    /// The number of records that a collection holds.
    pub async fn records(&self, key: &str) -> u64 {
        let shown = self.node.get(&self.path("")).await.ok();
        let all = shown["connection"]["collections"].as_array().expect("collections").clone();
        let one = all.iter().find(|c| c["key"] == key).unwrap_or_else(|| panic!("no {key} in {all:?}"));
        one["records"].as_u64().expect("a number")
    }
}
