//! A wall clock that is set back, while a node runs or between two runs, takes no stored time back and stops nothing.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tidemill::domain::time::Millis;
use tidemill::outbound::Method;

use crate::support::node::Node;
use crate::support::receiver::Receiver;
use crate::support::shim;

/// Sets the node's wall clock wrong by so many seconds, in place, since the node has the file mapped.
fn set_wrong(file: &Path, seconds: i64) {
    let mut out = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(file).expect("a file");
    out.write_all(&seconds.to_le_bytes()).expect("written");
}

/// Publishes one event; answers when the node says that it was taken in.
async fn publish(node: &Node, number: u64) -> Millis {
    let event = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {"number": number}});
    let made = node.call(Method::POST, "/2024-03/one/events", Some(&event)).await;
    let id = made["eventId"].as_str().expect("an id");
    let told = node.call(Method::GET, &format!("/2024-03/one/events/{id}"), None).await;
    let at = told["event"]["acceptedAt"].as_str().unwrap_or_else(|| panic!("no time: {told}"));
    Millis::parse_rfc3339(at).expect("a time")
}

#[actix::test]
async fn a_clock_that_steps_back_takes_no_stored_time_back_and_stops_no_schedule() {
    let folder = TempDir::new().expect("a folder");
    let wrong = folder.path().join("clock");
    set_wrong(&wrong, 0);
    let mut node = Node::new(folder.path());
    let set = |name: &str, value: String| (name.to_owned(), value);
    node.env = vec![
        set("LD_PRELOAD", shim::build(folder.path()).display().to_string()),
        set("SHIM_CLOCK", wrong.display().to_string()),
        set("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 1, 1]".into()),
    ];
    node.start();
    node.ready().await;
    let receiver = Receiver::start();
    let wish = json!({"address": receiver.address, "topic": ["crm/contacts"]});
    node.call(Method::POST, "/2024-03/one/webhooks", Some(&wish)).await;
    let mut last = publish(&node, 1).await;
    receiver.wait(1).await;

    // While it runs: an hour back. The failed attempt is tried again in seconds, not in an hour.
    set_wrong(&wrong, -3600);
    receiver.answer([(500, Vec::new())]);
    let at = publish(&node, 2).await;
    assert!(at >= last, "{at:?} was stored after {last:?}");
    last = at;
    let came = receiver.wait(3).await;
    // What is signed is the time that the receiver's clock shows too.
    let signed: u64 = came[2].header("webhook-timestamp").parse().expect("a number");
    assert!(signed + 3000 < last.0 / 1000, "{signed} was signed, {last:?} is stored");

    // Over a restart, and a further hour back.
    node.kill();
    set_wrong(&wrong, -7200);
    node.start();
    node.ready().await;
    receiver.answer([(500, Vec::new())]);
    let at = publish(&node, 3).await;
    assert!(at >= last, "{at:?} was stored after {last:?}");
    receiver.wait(5).await;
    assert_eq!(node.stop(), Some(0));
    assert!(at.since(last) < Duration::from_secs(600), "{at:?} is far from {last:?}");
}
