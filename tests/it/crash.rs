//! Killed at random moments under load, by a signal or by a power failure, the node loses nothing that it accepted and
//! tells nothing under two ids.
//!
//! The load: events published by several callers, an app whose records change all the time, its webhooks, and the looks
//! at it. Always true at the end: every published event and every change came, each under one id, and in order to whom
//! asked for order; every webhook that the app had accepted is understood; the snapshot is what the app has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tidemill::outbound::Method;

use crate::support::node::Node;
use crate::support::receiver::{Received, Receiver};
use crate::support::shim;
use crate::support::shop::Shop;

/// How often the node is killed.
const KILLS: usize = 50;
/// How often the power fails.
const POWER_FAILURES: usize = 10;
/// Calls that publish at the same time.
const PUBLISHERS: usize = 4;

/// What was accepted: the number in the payload, and the id that the node gave.
type Accepted = Arc<std::sync::Mutex<BTreeMap<u64, String>>>;

/// The ids under which each number came.
type Came = BTreeMap<u64, BTreeSet<String>>;

/// Publishes numbered events until told to stop; whoever gets no answer does not count as accepted.
async fn publish(port: u16, numbers: Arc<AtomicU64>, accepted: Accepted, stop: Arc<AtomicBool>) -> Result<(), String> {
    let mut node = Node::new(std::path::Path::new("/nonexistent"));
    node.port = port;
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let event = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {"number": number}});
        match node.try_call(Method::POST, "/2024-03/one/events", Some(&event)).await {
            Ok((202, answer)) => {
                let id = answer["eventId"].as_str().expect("an id").to_owned();
                accepted.lock().expect("not poisoned").insert(number, id);
            }
            Ok((503, _)) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            // The topic, or the key, is gone.
            Ok((status, answer)) => return Err(format!("publishing was answered with {status}: {answer}")),
        }
    }
    Ok(())
}

/// What happens between a kill and the next start.
enum Harm {
    /// Nothing: the page cache survives the process.
    Process,
    /// What was not synced is gone. With the syncs taken out of the program, that is nearly everything.
    Power { syncs: bool },
}

/// Kills a node under load again and again, then compares what it accepted with what came.
async fn kill_under_load(kills: usize, harm: Harm) -> Result<(), String> {
    let folder = TempDir::new().expect("a folder");
    let receiver = Receiver::start();
    let mut node = Node::new(folder.path());
    let shim_log = folder.path().join("shim.log");
    if let Harm::Power { syncs } = harm {
        let library = shim::build(folder.path());
        node.env.push(("LD_PRELOAD".into(), library.display().to_string()));
        node.env.push(("SHIM_LOG".into(), shim_log.display().to_string()));
        if !syncs {
            node.env.push(("SHIM_NO_SYNC".into(), "1".into()));
        }
    }
    node.env.push(("TIDEMILL__SERVER__PUBLIC_URL".into(), format!("http://127.0.0.1:{}", node.port)));
    node.start();
    node.ready().await;
    let wish = json!({"address": receiver.address, "topic": ["crm/*", "commerce/*"]});
    node.call(Method::POST, "/2024-03/one/webhooks", Some(&wish)).await;
    let ordered = Receiver::start();
    let wish = json!({"address": ordered.address, "topic": ["crm/*", "commerce/*"], "ordering": "record"});
    node.call(Method::POST, "/2024-03/one/webhooks", Some(&wish)).await;

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (numbers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let accepted = Accepted::default();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| actix_rt::spawn(publish(node.port, numbers.clone(), accepted.clone(), stop.clone())))
        .collect();
    let shop = Shop::open(&node).await;
    let changer = shop.change(seed, stop.clone());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut lost = 0;
    for _ in 0..kills {
        // The moment of the kill is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(rng.u64(20..400))).await;
        node.kill();
        if matches!(harm, Harm::Power { .. }) {
            lost += shim::cut_power(&folder.path().join("data/db"), &shim_log);
        }
        node.start();
        if rng.bool() {
            node.ready_or_ended().await?;
            if rng.bool() {
                shop.sync(&node, rng.bool()).await;
            }
        }
    }
    node.ready_or_ended().await?;
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.expect("the publisher ends")?;
    }
    let changes = changer.await.expect("the changer ends")?;
    let accepted = accepted.lock().expect("not poisoned").clone();
    println!("{} accepted, {changes} changes, {} deliveries", accepted.len(), receiver.so_far().len());
    println!("{lost} bytes cut");
    if accepted.len() <= kills || changes <= kills {
        return Err(format!("only {} events were accepted, and {changes} changes made", accepted.len()));
    }
    published(&receiver, &accepted).await?;
    shop.agrees(&node, || receiver.so_far()).await?;
    in_order(&ordered.so_far(), &receiver.so_far())?;
    match node.stop() {
        Some(0) => Ok(()),
        other => Err(format!("the node ended with {other:?}: {}", node.log())),
    }
}

#[actix::test]
async fn nothing_accepted_is_lost_when_the_node_is_killed_fifty_times() {
    kill_under_load(KILLS, Harm::Process).await.expect("nothing is lost");
}

#[actix::test]
async fn nothing_accepted_is_lost_when_the_power_fails() {
    kill_under_load(POWER_FAILURES, Harm::Power { syncs: true }).await.expect("nothing is lost");
}

#[actix::test]
async fn a_program_without_syncs_would_be_found_out() {
    let found = kill_under_load(POWER_FAILURES, Harm::Power { syncs: false }).await;
    assert!(found.is_err(), "the power failed, nothing had been synced, and nothing was missed");
}

/// Every published event that was accepted came, under its id alone.
async fn published(receiver: &Receiver, accepted: &BTreeMap<u64, String>) -> Result<(), String> {
    let came = everything(receiver, accepted).await?;
    for (number, ids) in &came {
        if ids.len() != 1 {
            return Err(format!("event {number} came under several ids: {ids:?}"));
        }
    }
    for (number, id) in accepted {
        if !came.get(number).is_some_and(|ids| ids.contains(id)) {
            return Err(format!("event {number} ({id}) never came"));
        }
    }
    Ok(())
}

/// Who asked for order got the events of each record in the order of its changes, repeats aside, and got all of them.
fn in_order(came: &[Received], all: &[Received]) -> Result<(), String> {
    let mut last: BTreeMap<String, &str> = BTreeMap::new();
    for one in came {
        let Some(record) = one.json()["dataPayload"]["id"].as_str().map(str::to_owned) else { continue };
        let id = one.header("webhook-id");
        let before = last.insert(record, id);
        if before.is_some_and(|before| before > id) {
            return Err(format!("event {id} came after {before:?}"));
        }
    }
    let ids = |came: &[Received]| came.iter().map(|one| one.header("webhook-id").to_owned()).collect::<BTreeSet<_>>();
    if ids(came) == ids(all) { Ok(()) } else { Err("with order, not the same events came".to_owned()) }
}

/// Waits until every accepted event has come at least once; answers the ids under which each number came.
async fn everything(receiver: &Receiver, accepted: &BTreeMap<u64, String>) -> Result<Came, String> {
    let mut before = (0, 0);
    for _ in 0..1200 {
        let mut came = Came::new();
        for one in receiver.so_far() {
            // The app's records have no such number.
            let Some(number) = one.json()["dataPayload"]["number"].as_u64() else { continue };
            came.entry(number).or_default().insert(one.header("webhook-id").to_owned());
        }
        if accepted.keys().all(|number| came.contains_key(number)) {
            return Ok(came);
        }
        // Nothing new for ten seconds: what is missing now will not come.
        before = if came.len() == before.0 { (before.0, before.1 + 1) } else { (came.len(), 0) };
        if before.1 > 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{} of {} accepted events came", before.0, accepted.len()))
}
