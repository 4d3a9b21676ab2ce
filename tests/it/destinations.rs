//! Lanes that write into destinations: once, whatever is lost, refused or broken off.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::app::{self, Engine, Seams};
use tidemill::domain::connection::{Connection, ConnectionStatus, InitialSync, Remap, WebhookState};
use tidemill::domain::delivery::{AttemptError, Cause, DeliveryState};
use tidemill::domain::destination::Destination;
use tidemill::domain::event::Event;
use tidemill::domain::id::{ConnectionId, DestinationId, LaneNo, Seq, UserId, WorkspaceNo};
use tidemill::domain::record::record_id;
use tidemill::domain::snapshot::{Hash, SnapshotRow, Version};
use tidemill::domain::subscription::{ApiVersion, Include, Subscription, destination_address};
use tidemill::domain::time::Millis;
use tidemill::domain::trouble::Trouble;
use tidemill::store::{BatchRow, DeliveryRow, Settlement, Tx, Wait};
use tidemill::telemetry::Metrics;
use tokio::sync::Semaphore;

use crate::support::engine::{config, event, subscribe, workspace};
use crate::support::stand_in::{self, Act, Shared};
use crate::support::wreck;

struct Node {
    engine: Engine,
    folder: TempDir,
    shared: Arc<Shared>,
}

fn engine(folder: &TempDir) -> Engine {
    let seams = Seams { kinds: stand_in::KINDS, ..Seams::default() };
    Engine::start_with(config(folder), app::wall_clock(), Metrics::new().unwrap(), seams).unwrap()
}

async fn node(name: &str) -> Node {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder);
    workspace(&engine.store).await;
    Node { engine, folder, shared: stand_in::shared(name) }
}

impl Node {
    /// A destination of that name, and a subscription of everything that writes there.
    async fn lane(
        &self,
        settings: Value,
        change: impl FnOnce(&mut Subscription) + Send + 'static,
    ) -> (DestinationId, LaneNo) {
        let text = settings.to_string();
        let id = self
            .engine
            .store
            .change(move |tx| {
                let id = DestinationId(tx.fresh_id()?);
                let destination = Destination {
                    id,
                    workspace: WorkspaceNo(0),
                    kind: "stand-in".to_owned(),
                    name: text.clone(),
                    settings: text,
                    secret_names: Vec::new(),
                    user: None,
                    revision: 0,
                    pause: None,
                    created_at: tx.now(),
                    updated_at: tx.now(),
                };
                tx.put_object(&destination)?;
                Ok(id)
            })
            .await
            .unwrap();
        let address = destination_address(id);
        let made = subscribe(&self.engine, &address, move |subscription| {
            subscription.destination = Some(id);
            change(subscription);
        });
        (id, made.await.0.lane)
    }

    async fn publish(&self, numbers: std::ops::Range<u64>) {
        let now = self.engine.clock.now();
        let events: Vec<Event> =
            numbers.map(|n| event("crm/things", &format!(r#"{{"id":{},"n":{n}}}"#, n % 7), now)).collect();
        let put = move |tx: &mut Tx<'_>| events.iter().try_for_each(|event| tx.append_event(event).map(drop));
        self.engine.store.append(Wait::Durable, put).await.unwrap();
        self.engine.rings.router();
    }

    /// Waits until so many deliveries of the lane have ended, and it has no batch.
    async fn settled(&self, lane: LaneNo, ended: u64) {
        self.settled_of(lane, ended, 0).await;
    }

    /// Waits until so many deliveries of the lane have ended and so many wait, none of them in a batch.
    async fn settled_of(&self, lane: LaneNo, ended: u64, waiting: u64) {
        let is_so = || {
            let store = &self.engine.store;
            let counts = store.lane_counts(lane).unwrap();
            store.batches(lane, 1).unwrap().is_empty()
                && counts.pending == waiting
                && counts.delivered + counts.dead + counts.cancelled == ended
        };
        until("the lane is settled", is_so).await;
    }

    /// Waits until the lane's batch was refused once.
    async fn tried(&self, lane: LaneNo) -> (Seq, BatchRow) {
        let batches = || self.engine.store.batches(lane, 1).unwrap();
        until("it was refused", || batches().first().is_some_and(|(_, batch)| batch.made == 1)).await;
        batches().remove(0)
    }

    fn dead(&self, lane: LaneNo) -> Vec<(Cause, String)> {
        let store = &self.engine.store;
        let all = store.dead_deliveries(lane, None, 1_000).unwrap().into_iter();
        all.map(|seq| {
            let row = store.delivery(lane, seq).unwrap().unwrap();
            let DeliveryState::Dead { cause, .. } = row.state else { panic!("{row:?}") };
            (cause, row.attempts.last().map(|attempt| attempt.answer.clone()).unwrap_or_default())
        })
        .collect()
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to pass that {what}");
}

fn payload(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["dataPayload"].clone()
}

fn numbers(held: &[String]) -> Vec<u64> {
    held.iter().map(|text| payload(text)["n"].as_u64().unwrap()).collect()
}

#[actix::test]
async fn events_are_written_in_batches_in_their_order_and_once() {
    let node = node("in order").await;
    let (_, lane) = node.lane(json!({"name": "in order", "rows": 40}), |_| ()).await;
    node.publish(0..100).await;
    node.settled(lane, 100).await;
    assert_eq!(numbers(&node.shared.held()), (0..100).collect::<Vec<_>>());
    let taken = node.shared.taken.lock().unwrap();
    assert!(taken.len() >= 3 && taken.values().all(|batch| batch.len() <= 40), "{}", taken.len());
    let counts = node.engine.store.lane_counts(lane).unwrap();
    assert_eq!((counts.delivered, counts.pending, counts.dead), (100, 0, 0));
}

#[actix::test]
async fn events_wait_for_others_as_long_as_the_destination_likes() {
    let node = node("waits").await;
    let (_, lane) = node.lane(json!({"name": "waits", "rows": 10, "ageMillis": 3_600_000}), |_| ()).await;
    node.publish(0..25).await;
    // Two batches are full; the rest waits for company.
    // The second is settled a moment after it was taken.
    let pending = || node.engine.store.lane_counts(lane).unwrap().pending;
    until("two batches are taken and settled", || pending() == 5).await;
    assert_eq!(node.shared.held().len(), 20);
    node.publish(25..30).await;
    node.settled(lane, 30).await;
    assert_eq!(node.shared.held().len(), 30);
}

#[actix::test]
async fn a_batch_ends_where_it_has_its_bytes_and_the_rest_follows() {
    let node = node("bytes").await;
    let (_, lane) = node.lane(json!({"name": "bytes", "bytes": 2_000}), |_| ()).await;
    node.publish(0..60).await;
    node.settled(lane, 60).await;
    assert_eq!(numbers(&node.shared.held()), (0..60).collect::<Vec<_>>());
    let taken = node.shared.taken.lock().unwrap();
    assert!(taken.values().all(|batch| batch.len() < 10), "{}", taken.len());
}

/// A lane of tens whose first batch is on its way, and whose second is made ready; the first waits for the gate.
async fn two_tens(name: &str) -> (Node, LaneNo, Arc<Semaphore>) {
    let node = node(name).await;
    let gate = node.shared.gate();
    let (_, lane) = node.lane(json!({"name": name, "rows": 10}), |s| s.retry_schedule = Some(vec![0, 3_600])).await;
    node.publish(0..30).await;
    until("the second is made ready", || node.shared.ready() == 2).await;
    assert_eq!(node.shared.names().len(), 1, "the first is on its way");
    assert_eq!(node.engine.store.batches(lane, 9).unwrap().len(), 1, "the second is not frozen yet");
    (node, lane, gate)
}

#[actix::test]
async fn the_next_batch_is_made_ready_while_one_is_on_its_way_and_goes_after_it() {
    let (node, lane, gate) = two_tens("ahead").await;
    gate.add_permits(1);
    node.settled(lane, 30).await;
    assert_eq!(numbers(&node.shared.held()), (0..30).collect::<Vec<_>>());
    assert_eq!((node.shared.names().len(), node.shared.ready()), (3, 3), "each is made ready once and sent once");
}

#[actix::test]
async fn what_stands_behind_a_batch_that_is_refused_goes_back_and_follows_it() {
    let (node, lane, gate) = two_tens("behind").await;
    node.shared.will(Act::Refuse(Trouble::Failed));
    gate.add_permits(1);
    let (number, batch) = node.tried(lane).await;
    assert_eq!(node.engine.store.batches(lane, 9).unwrap().len(), 1, "nothing goes before it");
    let now = move |tx: &mut Tx<'_>| tx.put_batch(lane, number, &BatchRow { at: tx.now(), ..batch.clone() });
    node.engine.store.change(now).await.unwrap();
    node.engine.rings.lane(lane);
    node.settled(lane, 30).await;
    assert_eq!(numbers(&node.shared.held()), (0..30).collect::<Vec<_>>());
    let names = node.shared.names();
    assert!(names.len() == 4 && names[0] == names[1] && names[1] < names[2] && names[2] < names[3], "{names:?}");
}

#[actix::test]
async fn what_stands_behind_goes_back_when_the_subscription_is_disabled() {
    let (node, lane, gate) = two_tens("disabled behind").await;
    let enable = |is_enabled| {
        let change = move |tx: &mut Tx<'_>| {
            let subscription = tx.subscription_by_lane(lane)?.unwrap();
            tx.put_object(&Subscription { is_enabled, ..subscription })
        };
        let (store, rings) = (node.engine.store.clone(), node.engine.rings.clone());
        async move {
            store.change(change).await.unwrap();
            rings.subscriptions_changed();
            rings.lane(lane);
        }
    };
    enable(false).await;
    gate.add_permits(1);
    node.settled_of(lane, 10, 20).await;
    enable(true).await;
    node.settled(lane, 30).await;
    assert_eq!(numbers(&node.shared.held()), (0..30).collect::<Vec<_>>());
    assert_eq!((node.shared.names().len(), node.shared.ready()), (3, 4), "the second was made ready once more");
}

#[actix::test]
async fn what_is_cancelled_while_it_stands_behind_is_not_written() {
    let (node, lane, gate) = two_tens("cancelled behind").await;
    let due = node.engine.store.fresh_deliveries(lane, Seq(0), 30).unwrap()[15];
    let cancel = move |tx: &mut Tx<'_>| {
        let row = tx.delivery(lane, due.seq)?.unwrap();
        let row = DeliveryRow { state: DeliveryState::Cancelled { at: tx.now() }, ..row };
        tx.settle_delivery(&Settlement { lane, due, row })
    };
    node.engine.store.change(cancel).await.unwrap();
    gate.add_permits(1);
    node.settled(lane, 30).await;
    let wanted: Vec<u64> = (0..30).filter(|n| *n != 15).collect();
    assert_eq!(numbers(&node.shared.held()), wanted);
}

#[actix::test]
async fn a_batch_that_was_tried_stays_as_it_is_whatever_is_changed_meanwhile() {
    let node = node("changed").await;
    node.shared.will(Act::Refuse(Trouble::Failed));
    let (_, lane) = node.lane(json!({"name": "changed"}), |s| s.retry_schedule = Some(vec![0, 3_600])).await;
    node.publish(0..5).await;
    let (number, batch) = node.tried(lane).await;
    let change = move |tx: &mut Tx<'_>| {
        let mut subscription = tx.subscription_by_lane(lane)?.unwrap();
        subscription.include = vec![Include::Topic];
        subscription.api_version = ApiVersion::V2023_12;
        tx.put_object(&subscription)?;
        tx.put_batch(lane, number, &BatchRow { at: tx.now(), ..batch.clone() })
    };
    node.engine.store.change(change).await.unwrap();
    node.engine.rings.subscriptions_changed();
    node.engine.rings.lane(lane);
    // The stand-in sees to it that what comes again under its name has the same bytes.
    node.settled(lane, 5).await;
    assert_eq!(node.shared.names(), vec![node.shared.names()[0].clone(); 2]);
}

#[actix::test]
async fn what_was_frozen_for_one_destination_goes_to_the_next_one_whole() {
    let (node, next) = (node("former").await, stand_in::shared("next"));
    node.shared.will(Act::Refuse(Trouble::Failed));
    let (_, lane) = node.lane(json!({"name": "former"}), |s| s.retry_schedule = Some(vec![0, 3_600])).await;
    let (to, _) = node.lane(json!({"name": "next"}), |s| s.is_enabled = false).await;
    node.publish(0..5).await;
    let (number, batch) = node.tried(lane).await;
    let change = move |tx: &mut Tx<'_>| {
        let mut subscription = tx.subscription_by_lane(lane)?.unwrap();
        subscription.destination = Some(to);
        tx.put_object(&subscription)
    };
    node.engine.store.change(change).await.unwrap();
    node.engine.rings.subscriptions_changed();
    let now = move |tx: &mut Tx<'_>| tx.put_batch(lane, number, &BatchRow { at: tx.now(), ..batch.clone() });
    node.engine.store.change(now).await.unwrap();
    node.engine.rings.lane(lane);
    node.settled(lane, 5).await;
    assert_eq!(numbers(&next.held()), [0, 1, 2, 3, 4]);
    assert_ne!(next.names()[0], node.shared.names()[0], "there it has another name");
}

#[actix::test]
async fn a_backlog_that_is_skipped_is_not_written_later() {
    let node = node("skipped").await;
    node.shared.will(Act::Refuse(Trouble::Failed));
    let (_, lane) = node.lane(json!({"name": "skipped"}), |s| s.retry_schedule = Some(vec![0, 3_600])).await;
    node.publish(0..5).await;
    node.tried(lane).await;
    while node.engine.store.change(move |tx| tx.cancel_some(lane, 100)).await.unwrap() {}
    node.engine.rings.lane(lane);
    node.publish(5..8).await;
    node.settled(lane, 8).await;
    assert_eq!(numbers(&node.shared.held()), [5, 6, 7]);
}

#[actix::test]
async fn a_batch_whose_answer_is_lost_comes_again_under_its_own_name() {
    let node = node("lost answers").await;
    node.shared.will(Act::Cut);
    node.shared.will(Act::Refuse(Trouble::Throttled));
    let (_, lane) = node.lane(json!({"name": "lost answers"}), |_| ()).await;
    node.publish(0..10).await;
    node.settled(lane, 10).await;
    assert_eq!(numbers(&node.shared.held()), (0..10).collect::<Vec<_>>());
    let names = node.shared.names();
    assert!(names.len() >= 3 && names[0] == names[1] && names[1] == names[2], "{names:?}");
    let row = node.engine.store.deliveries(lane, None, 1).unwrap().pop().unwrap().1;
    assert!(matches!(row.state, DeliveryState::Delivered { .. }), "{row:?}");
    let first = node.engine.store.deliveries(lane, None, 100).unwrap().pop().unwrap().1;
    assert_eq!(first.attempts.len(), 3, "what was tried before is told: {first:?}");
}

#[actix::test]
async fn one_event_that_can_never_be_written_is_the_only_dead_letter() {
    for (name, each) in [("poison", false), ("poison each", true)] {
        let node = node(name).await;
        let poison = Some(r#""n":37}"#.to_owned());
        *(if each { &node.shared.poison_each } else { &node.shared.poison }).lock().unwrap() = poison;
        let (_, lane) = node.lane(json!({"name": name}), |_| ()).await;
        node.publish(0..100).await;
        node.settled(lane, 100).await;
        let mut held = numbers(&node.shared.held());
        held.sort_unstable();
        assert_eq!(held, (0..100).filter(|n| *n != 37).collect::<Vec<_>>(), "{name}");
        let refused = Cause::Rejected(AttemptError::Destination(Trouble::ValueRefused));
        assert_eq!(node.dead(lane), [(refused, "a poisoned row".to_owned())], "{name}");
    }
}

#[actix::test]
async fn what_only_the_owner_can_mend_waits_for_him_and_goes_on_at_once() {
    let node = node("password").await;
    *node.shared.password.lock().unwrap() = Some("new".to_owned());
    let (id, lane) = node.lane(json!({"name": "password", "password": "old"}), |_| ()).await;
    node.publish(0..10).await;
    let paused = || node.engine.store.destination(WorkspaceNo(0), id).unwrap().unwrap().pause.is_some();
    until("it is paused", paused).await;
    let pause = node.engine.store.destination(WorkspaceNo(0), id).unwrap().unwrap().pause.unwrap();
    assert_eq!(pause.error, AttemptError::Destination(Trouble::CredentialsRefused));
    assert_eq!(node.engine.store.batches(lane, 1).unwrap()[0].1.tries, 0, "no try is used up");
    let change = move |tx: &mut Tx<'_>| {
        let mut destination = tx.destination(WorkspaceNo(0), id)?.unwrap();
        destination.settings = json!({"name": "password", "password": "new"}).to_string();
        destination.revision += 1;
        tx.put_object(&destination)
    };
    node.engine.store.change(change).await.unwrap();
    node.engine.rings.subscriptions_changed();
    node.engine.rings.lane(lane);
    node.settled(lane, 10).await;
    assert_eq!(numbers(&node.shared.held()), (0..10).collect::<Vec<_>>());
    until("it goes on", || !paused()).await;
}

#[actix::test]
async fn a_batch_that_uses_up_its_schedule_is_dead_as_a_whole_and_the_next_has_its_own_tries() {
    let node = node("schedule").await;
    for _ in 0..3 {
        node.shared.will(Act::Refuse(Trouble::Failed));
    }
    let (_, lane) = node.lane(json!({"name": "schedule", "rows": 5}), |_| ()).await;
    node.publish(0..10).await;
    node.settled(lane, 10).await;
    assert_eq!(numbers(&node.shared.held()), (5..10).collect::<Vec<_>>());
    let exhausted = Cause::Exhausted(AttemptError::Destination(Trouble::Failed));
    assert_eq!(node.dead(lane), vec![(exhausted, "as told".to_owned()); 5]);
}

#[actix::test]
async fn a_batch_that_was_under_way_at_a_crash_is_sent_again_as_it_was() {
    let node = node("crash").await;
    node.shared.will(Act::Hang);
    let (_, lane) = node.lane(json!({"name": "crash", "rows": 50}), |_| ()).await;
    node.publish(0..20).await;
    until("it is under way", || !node.shared.names().is_empty()).await;
    // The dead one's files as they are now; itself it can do nothing more, since its destination never answers.
    let wreck = wreck::copy(node.folder.path());
    let old = node;
    let node = Node { engine: engine(&wreck), folder: wreck, shared: old.shared.clone() };
    node.publish(20..30).await;
    node.settled(lane, 30).await;
    let names = node.shared.names();
    assert_eq!(names[0], names[1], "the first batch keeps its name and, the stand-in sees to that, its bytes");
    assert_eq!(numbers(&node.shared.held()), (0..30).collect::<Vec<_>>());
}

#[actix::test]
async fn events_of_one_record_are_never_in_one_batch_where_order_is_asked_for() {
    let node = node("ordered").await;
    let (_, lane) = node.lane(json!({"name": "ordered"}), |s| s.ordered = true).await;
    node.publish(0..21).await;
    node.settled(lane, 21).await;
    let taken = node.shared.taken.lock().unwrap();
    for batch in taken.values() {
        let mut records: Vec<u64> = numbers(batch).into_iter().map(|n| n % 7).collect();
        records.sort_unstable();
        records.dedup();
        assert_eq!(records.len(), batch.len());
    }
    let held: Vec<u64> = taken.values().flat_map(|batch| numbers(batch)).collect();
    for record in 0..7 {
        let of: Vec<u64> = held.iter().copied().filter(|n| n % 7 == record).collect();
        assert_eq!(of, [record, record + 7, record + 14]);
    }
}

#[actix::test]
async fn an_erased_event_is_not_sent_again() {
    let node = node("erased").await;
    node.shared.will(Act::Refuse(Trouble::Busy));
    let (_, lane) = node.lane(json!({"name": "erased"}), |s| s.retry_schedule = Some(vec![0, 3_600])).await;
    node.publish(0..5).await;
    let (number, batch) = node.tried(lane).await;
    let due = batch.members[2];
    let now = node.engine.clock.now();
    let erase = move |tx: &mut Tx<'_>| {
        let event = tx.event(due.event)?.unwrap();
        tx.erase_owed(lane, &due, event.accepted_at)?;
        tx.erase_event(due.event, &event)?;
        tx.put_batch(lane, number, &BatchRow { at: now, ..batch.clone() })
    };
    node.engine.store.append(Wait::Durable, erase).await.unwrap();
    node.engine.rings.lane(lane);
    node.settled(lane, 5).await;
    assert_eq!(numbers(&node.shared.held()), [0, 1, 3, 4]);
    let names = node.shared.names();
    assert_ne!(names[0], names[1], "what is left is another batch");
}

const CONNECTION: ConnectionId = ConnectionId([7; 12]);

fn row(remote_id: &str, last_event: Option<Seq>) -> SnapshotRow {
    SnapshotRow {
        remote_id: remote_id.to_owned(),
        raw_hash: Hash::default(),
        mapped_by: [0; 16],
        unified_hash: Hash::default(),
        version: Version { remote_updated_at: None, observed_at: Millis(1) },
        remote_created_at: None,
        fields: json!({"firstName": remote_id}).to_string(),
        created_at: Millis(1_700_000_000_000),
        updated_at: Millis(1_700_000_000_000),
        deleted_at: None,
        last_event,
    }
}

fn change_of(remote_id: &str, now: Millis) -> Event {
    let id = record_id(CONNECTION, "crm/contacts", remote_id);
    let payload = row(remote_id, None).payload(id);
    Event {
        connection: Some(CONNECTION),
        update_type: Some("updated".into()),
        payload,
        ..event("crm/contacts", "", now)
    }
}

#[actix::test]
async fn a_backfill_gives_each_present_record_once_and_then_its_changes() {
    let node = node("backfill").await;
    for _ in 0..2 {
        node.shared.will(Act::Cut);
    }
    let store = &node.engine.store;
    let now = node.engine.clock.now();
    let connection = Connection {
        id: CONNECTION,
        workspace: WorkspaceNo(0),
        user: UserId([8; 12]),
        integration: None,
        connector: "sandbox".to_owned(),
        app: "Sandbox".to_owned(),
        category: "crm".to_owned(),
        parameters: "{}".to_owned(),
        account: None,
        poll_interval_seconds: None,
        full_scan_interval_seconds: None,
        initial_sync: InitialSync::Baseline,
        remap: Remap::Silent,
        collections: None,
        status: ConnectionStatus::Paused,
        webhook: WebhookState::None { reason: String::new() },
        created_at: now,
        updated_at: now,
    };
    let put = move |tx: &mut Tx<'_>| {
        tx.put_object(&connection)?;
        for n in 0..500 {
            let remote = format!("r{n}");
            let id = record_id(CONNECTION, "crm/contacts", &remote).into_bytes();
            tx.put_snapshot(CONNECTION, "contacts", &id, &row(&remote, None))?;
        }
        Ok(())
    };
    store.change(put).await.unwrap();
    let (_, lane) =
        node.lane(json!({"name": "backfill", "rows": 64}), |s| s.topics = vec!["crm/contacts".into()]).await;
    // Of three records something changes after the subscription began, before they are read.
    let begin = move |tx: &mut Tx<'_>| {
        let mut subscription = tx.subscription_by_lane(lane)?.unwrap();
        subscription.from = tx.next_seq()?;
        tx.put_object(&subscription)?;
        for remote in ["r3", "r4", "r499"] {
            let made = tx.append_event(&change_of(remote, now))?;
            let id = record_id(CONNECTION, "crm/contacts", remote).into_bytes();
            tx.put_snapshot(CONNECTION, "contacts", &id, &row(remote, Some(made.parts().0)))?;
        }
        tx.begin_backfill(lane, subscription.from).map(drop)
    };
    store.change(begin).await.unwrap();
    node.engine.rings.subscriptions_changed();
    node.engine.rings.router();
    node.engine.rings.lane(lane);
    until("it is over", || store.backfill(lane).unwrap().unwrap().ended_at.is_some()).await;
    node.settled(lane, 3).await;
    let mut names: Vec<String> =
        node.shared.held().iter().map(|text| payload(text)["firstName"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    let mut wanted: Vec<String> = (0..500).map(|n| format!("r{n}")).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    assert_eq!(store.backfill(lane).unwrap().unwrap().written, 497);
    assert_eq!(store.lane_counts(lane).unwrap().delivered, 3);
}
