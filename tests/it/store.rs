//! The store keeps what is owed, drops what is past its time, refuses a wrong key, and is opened by one process only.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemill::clock::Clock;
use tidemill::config::Config;
use tidemill::domain::delivery::{Cause, DeliveryState};
use tidemill::domain::id::{EventId, InboxId, LaneNo, Seq, WorkspaceNo};
use tidemill::domain::time::Millis;
use tidemill::store::{
    Care, Cutoffs, DeliveryRow, Due, InboxRequest, InboxState, Settlement, Store, SweepMarks, Turn, Wait,
};

use crate::support::engine::{config, event, workspace};

const DAY: Duration = Duration::from_secs(24 * 3600);
const FREE: Care = Care { ordered: false, coalesce: false };
const KEY: [u8; 32] = [7; 32];

fn open(config: &Config, clock: &Clock) -> tidemill::error::Result<Store> {
    Store::open(&config.storage, &KEY, clock, Arc::new(|_| ()))
}

async fn append(store: &Store, clock: &Clock) -> EventId {
    let event = event("crm/contacts", "{}", clock.now());
    store.accept(move |tx| tx.append_event(&event)).await.expect("accepted")
}

async fn owe(store: &Store, lane: LaneNo, id: EventId, at: Millis) -> Due {
    let seq = id.parts().0;
    store.append(Wait::Applied, move |tx| tx.put_fresh(lane, seq, at)).await.expect("owed");
    Due::first(seq, None)
}

async fn settle(store: &Store, lane: LaneNo, due: Due, state: DeliveryState, made_at: Millis) {
    let row = DeliveryRow { state, ..DeliveryRow::unattempted(&due, made_at) };
    let settlement = Settlement { lane, due, row };
    store.append(Wait::Applied, move |tx| tx.settle_delivery(&settlement)).await.expect("settled");
}

fn cutoffs(now: Millis, undelivered: Duration) -> Cutoffs {
    let before = |days: u32| now.before(DAY * days);
    Cutoffs {
        now,
        events: before(30),
        undelivered: now.before(undelivered),
        delivered: before(7),
        inbox: before(7),
        unverified: before(1),
        pulls: before(30),
        tombstones: before(30),
        audit: before(400),
    }
}

#[actix::test]
async fn what_is_owed_outlives_its_time_and_what_is_not_goes() {
    let folder = TempDir::new().expect("a folder");
    let start = Millis(1_700_000_000_000);
    let clock = Clock::virtual_at(start);
    let store = open(&config(&folder), &clock).expect("a store");
    let (one, two) = (LaneNo(1), LaneNo(2));
    let delivered = append(&store, &clock).await;
    let due = owe(&store, one, delivered, clock.now()).await;
    settle(&store, one, due, DeliveryState::Delivered { at: clock.now() }, clock.now()).await;
    clock.raise(start.after(DAY));
    let owed_at = clock.now();
    let owed = append(&store, &clock).await;
    owe(&store, two, owed, owed_at).await;
    clock.raise(start.after(DAY * 40));
    let fresh = append(&store, &clock).await;
    let now = clock.now();

    let marks = store.drop_past(cutoffs(now, DAY * 60), SweepMarks::default(), 100).await.expect("dropped").marks;
    assert!(store.event(delivered.parts().0).expect("read").is_none(), "nobody needs it any more");
    assert!(store.delivery(one, delivered.parts().0).expect("read").is_none());
    assert!(store.event(owed.parts().0).expect("read").is_some(), "a delivery still needs it");
    assert!(store.event(fresh.parts().0).expect("read").is_some());
    assert_eq!(store.lane_counts(two).expect("counts").pending, 1);

    store.drop_past(cutoffs(now, DAY * 30), marks, 100).await.expect("dropped");
    let row = store.delivery(two, owed.parts().0).expect("read").expect("there");
    assert!(matches!(row.state, DeliveryState::Dead { cause: Cause::Expired, .. }), "{:?}", row.state);
    assert_eq!(store.lane_counts(two).expect("counts").pending, 0);
    assert!(store.event(fresh.parts().0).expect("read").is_some());
}

#[actix::test]
async fn an_event_that_was_asked_for_again_outlives_its_time() {
    let folder = TempDir::new().expect("a folder");
    let start = Millis(1_700_000_000_000);
    let clock = Clock::virtual_at(start);
    let store = open(&config(&folder), &clock).expect("a store");
    workspace(&store).await;
    let lane = LaneNo(1);
    let mut all = Vec::new();
    for _ in 0..3 {
        let id = append(&store, &clock).await;
        let due = owe(&store, lane, id, clock.now()).await;
        settle(&store, lane, due, DeliveryState::Delivered { at: clock.now() }, clock.now()).await;
        all.push(id.parts().0);
    }
    let event = all[1];
    clock.raise(start.after(DAY * 29));
    let again = store.change(move |tx| tx.put_resend(lane, FREE, event, None)).await.expect("owed again").parts().0;
    assert_eq!(store.resends(lane, event, 10).expect("read"), [again]);
    clock.raise(start.after(DAY * 32));
    let there = |store: &Store| all.iter().map(|seq| store.event(*seq).expect("read").is_some()).collect::<Vec<_>>();
    let look = || store.drop_past(cutoffs(clock.now(), DAY * 30), SweepMarks::default(), 100);
    look().await.expect("dropped");
    assert_eq!(there(&store), [false, true, false], "only what is owed stays");
    assert_eq!(store.workspace_events(WorkspaceNo(0), None, 10).expect("read"), [event]);

    let due = store.fresh_deliveries(lane, Seq(0), 1).expect("read")[0];
    settle(&store, lane, due, DeliveryState::Delivered { at: clock.now() }, clock.now()).await;
    assert_eq!(store.resends(lane, event, 10).expect("read"), [again], "it is found as long as its event");
    look().await.expect("dropped");
    assert_eq!(there(&store), [false, false, false]);
    assert!(store.resends(lane, event, 10).expect("read").is_empty());
}

#[actix::test]
async fn an_outcome_for_an_erased_lane_leaves_nothing_behind() {
    let folder = TempDir::new().expect("a folder");
    let clock = Clock::virtual_at(Millis(1_700_000_000_000));
    let store = open(&config(&folder), &clock).expect("a store");
    let lane = LaneNo(1);
    let id = append(&store, &clock).await;
    let due = owe(&store, lane, id, clock.now()).await;
    store.change(move |tx| tx.erase_lane(lane)).await.expect("erased");
    let again = DeliveryState::Due { at: clock.now(), tries: 1, attempts: 1 };
    settle(&store, lane, due, again, clock.now()).await;
    assert!(store.retry_deliveries(lane, 10).expect("read").is_empty());
    assert_eq!(store.lane_counts(lane).expect("counts").pending, 0);
}

#[actix::test]
async fn a_resend_is_a_fresh_delivery_of_the_same_event() {
    let folder = TempDir::new().expect("a folder");
    let clock = Clock::virtual_at(Millis(1_700_000_000_000));
    let store = open(&config(&folder), &clock).expect("a store");
    let id = append(&store, &clock).await;
    let event = id.parts().0;
    let again = store.change(move |tx| tx.put_resend(LaneNo(3), FREE, event, None)).await.expect("owed again");
    let due = store.fresh_deliveries(LaneNo(3), Seq(0), 10).expect("read");
    assert_eq!((due.len(), due[0].seq, due[0].event), (1, again.parts().0, event));
    assert!(matches!(due[0].turn, Turn::Again(at) if at <= clock.now()), "{:?}", due[0]);
    assert!(again.parts().0 > event);
    assert!(store.delivery(LaneNo(3), again.parts().0).expect("read").expect("there").replay);
}

#[actix::test]
async fn a_wrong_key_and_a_second_process_are_told_plainly() {
    let folder = TempDir::new().expect("a folder");
    let config = config(&folder);
    let clock = Clock::virtual_at(Millis(1_700_000_000_000));
    let store = open(&config, &clock).expect("a store");
    let second = open(&config, &clock).err().expect("the store is locked");
    assert!(second.message.contains("is in use"), "{}", second.message);
    store.settle().await.expect("settled");
    drop(store);
    for _ in 0..200 {
        match Store::open(&config.storage, &[8; 32], &clock, Arc::new(|_| ())) {
            Err(error) if error.message.contains("is in use") => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return assert!(error.message.contains("master key"), "{}", error.chain()),
            Ok(_) => panic!("a wrong key opened the store"),
        }
    }
    panic!("the store stays locked");
}

#[actix::test]
async fn a_refused_change_takes_everything_back() {
    let folder = TempDir::new().expect("a folder");
    let clock = Clock::virtual_at(Millis(1_700_000_000_000));
    let store = open(&config(&folder), &clock).expect("a store");
    let told = event("crm/contacts", "{}", clock.now());
    let refused: tidemill::error::Result<()> = store
        .change(move |tx| {
            tx.append_event(&told)?;
            Err(tidemill::error::Error::invalid("no"))
        })
        .await;
    assert!(refused.is_err());
    let (events, _) = store.events_after(Seq(0), Seq(u64::MAX - 1), 10).expect("read");
    assert!(events.is_empty());
    let next = append(&store, &clock).await;
    assert!(store.event_by_id(WorkspaceNo(0), next).expect("read").is_some());
}

/// A webhook as it comes in.
fn webhook(verdict: &str, at: Millis) -> InboxRequest {
    InboxRequest {
        workspace: WorkspaceNo(0),
        webhook_key: String::new(),
        received_at: at,
        method: "POST".into(),
        uri: "/in/c/token".into(),
        headers: Vec::new(),
        body: vec![b'x'; 1000],
        verdict: verdict.into(),
        event: None,
    }
}

#[actix::test]
async fn a_webhook_that_no_script_judged_counts_until_it_is_dropped() {
    let folder = TempDir::new().expect("a folder");
    let start = Millis(1_700_000_000_000);
    let clock = Clock::virtual_at(start);
    let settings = config(&folder);
    let store = open(&settings, &clock).expect("a store");
    let owner = [5; 12];
    let put = async |verdict: &str| -> InboxId {
        let request = webhook(verdict, start);
        store.change(move |tx| tx.put_inbox(&owner, &request.incoming()?)).await.expect("stored")
    };
    let settle = async |id: InboxId, state: InboxState| {
        let (due, _) = store.inbox_due(&owner, Millis(0), clock.now(), 10).expect("read");
        let (_, mut row) = due.into_iter().find(|(waiting, _)| *waiting == id).expect("it waits");
        row.state = state;
        store.change(move |tx| tx.settle_inbox(id, &row, Millis(0))).await.expect("settled");
    };
    let (judged, parked, waiting) = (put("unverified").await, put("unverified").await, put("unverified").await);
    let verified = put("verified").await;
    assert_eq!(store.unverified_bytes(), 3000);
    let done = InboxState::Done { at: start, events: Vec::new(), handed_to: Vec::new(), note: String::new() };
    settle(judged, done).await;
    // A script that throws has judged nothing.
    settle(parked, InboxState::Parked { at: start, reason: "it threw".into() }).await;
    assert_eq!(store.unverified_bytes(), 2000);

    let late = Millis(start.0 + 25 * 3_600_000);
    let swept = store.drop_past(cutoffs(late, DAY * 60), SweepMarks::default(), 100).await.expect("dropped");
    assert_eq!((swept.unjudged, store.unverified_bytes()), (2, 0));
    let left = |id: InboxId| store.inbox_row(&owner, id).expect("read").is_some();
    assert_eq!([judged, parked, waiting, verified].map(left), [true, false, false, true]);
    let (due, next) = store.inbox_due(&owner, Millis(0), late, 10).expect("read");
    assert_eq!((due.len(), next), (1, None));
}
