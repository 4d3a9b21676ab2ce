//! The whole process is killed inside a first sync of records that share their times, and goes on where it was.
//!
//! Always true at the end: each record was told as created once, whatever page the kill fell behind.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::outbound::Method;

use crate::support::hubspot::HubSpot;
use crate::support::node::Node;

const ONE: &str = "/2024-03/one";
/// Moments, and records: five of each moment, but for the first and the last, so that pages of 200 end inside of one.
const MOMENTS: u64 = 400;
const RECORDS: usize = 2_000;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// Waits until it is so, for up to 60 seconds.
async fn until(what: &str, so: impl AsyncFn() -> bool) {
    for _ in 0..1_200 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not after 60 s");
}

/// How often each record was told as what.
async fn told(node: &Node, connection: &str) -> BTreeMap<(String, String), usize> {
    let (mut all, mut cursor) = (BTreeMap::<(String, String), usize>::new(), String::new());
    loop {
        let path = format!("{ONE}/events?connectionId={connection}&limit=250{cursor}");
        let page = node.call(Method::GET, &path, None).await;
        for event in page["events"].as_array().expect("events").iter().filter(|event| event["remoteId"].is_string()) {
            *all.entry((text(&event["remoteId"]), text(&event["updateType"]))).or_default() += 1;
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[actix::test]
async fn a_node_killed_behind_any_page_goes_on_there_and_tells_each_record_once() {
    let hub = HubSpot::start();
    let mut ids = Vec::new();
    for moment in 0..MOMENTS {
        let count = match moment {
            0 => 3,
            moment if moment + 1 == MOMENTS => 7,
            _ => 5,
        };
        ids.extend(hub.import(111, "contacts", count));
    }
    assert_eq!(ids.len(), RECORDS);
    let folder = TempDir::new().expect("a folder");
    let mut node = Node::new(folder.path());
    node.start();
    node.ready().await;
    node.call(Method::POST, &format!("{ONE}/users"), Some(&json!({"username": "ann"}))).await;
    let parameters = json!({"connector": "hubspot", "parameters": {"baseUri": hub.url}});
    let made = node.call(Method::POST, &format!("{ONE}/integrations"), Some(&parameters)).await;
    // The second search is asked for once the first page is stored, and never answered.
    hub.hang_at(Some(2));
    let wish = json!({"userId": "ann", "integrationId": made["integration"]["integrationId"], "initialSync": "emit",
        "credentials": {"accessToken": "pat-111"}, "collections": ["contacts"]});
    let made = node.call(Method::POST, &format!("{ONE}/connections"), Some(&wish)).await;
    let connection = text(&made["connection"]["connectionId"]);
    let mut hangs_at = 2;
    for pages in [Some(4), Some(5), None] {
        until("the search that hangs", async || hub.searched().len() == hangs_at).await;
        node.kill();
        let before = hub.searched();
        hub.hang_at(pages.map(|pages| before.len() + pages));
        node.start();
        node.ready().await;
        until("a search after the start", async || hub.searched().len() > before.len()).await;
        let (lost, resumed) = (before[before.len() - 1], hub.searched()[before.len()]);
        // The first look of all has no lower bound; the page before ended inside a moment, which is asked for again.
        assert!(before[0] == 0 && resumed > 0 && resumed <= lost, "{before:?}, then {resumed}");
        hangs_at = before.len() + pages.unwrap_or_default();
    }
    let path = format!("{ONE}/connections/{connection}");
    until("the first sync's end", async || {
        let shown = node.call(Method::GET, &path, None).await;
        shown["connection"]["collections"][0]["baselineAt"].is_string()
    })
    .await;
    let once: BTreeMap<(String, String), usize> =
        ids.iter().map(|id| ((id.to_string(), "created".to_owned()), 1)).collect();
    // An event shows once it is on disk, a moment after what it tells of.
    until("all events", async || told(&node, &connection).await.len() >= RECORDS).await;
    assert!(told(&node, &connection).await == once, "some record was told not once");
    node.stop();
}
