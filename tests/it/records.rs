//! Lanes that care for records, against a small model: one delivery of a record at a time, in order, over failures, dead
//! heads, resends and a cancelled backlog; successive updates collapse.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;
use tidemill::clock::Clock;
use tidemill::domain::delivery::{AttemptError, Cause, DeliveryState};
use tidemill::domain::id::{LaneNo, Seq};
use tidemill::domain::time::Millis;
use tidemill::store::{Arrival, Care, DeliveryRow, Due, Settlement, Store, Wait};

use crate::support::engine::{config, event};

const LANE: LaneNo = LaneNo(1);
const ORDERED: Care = Care { ordered: true, coalesce: false };

struct Desk {
    store: Store,
    clock: Clock,
    _folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let clock = Clock::virtual_at(Millis(1_700_000_000_000));
        let store = Store::open(&config(&folder).storage, &[7; 32], &clock, Arc::new(|_| ())).expect("a store");
        Self { store, clock, _folder: folder }
    }

    /// Appends events of these records (`true`: an update), and owes them all in one commit, as the router does.
    async fn arrive(&self, care: Care, arrivals: Vec<(u8, bool, &str)>) -> Vec<Seq> {
        let mut made = Vec::new();
        for (_, _, field) in &arrivals {
            let mut event = event("crm/contacts", "{}", self.clock.now());
            event.changed_fields = vec![(*field).to_owned()];
            event.previous = Some(format!("{{\"before\":\"{field}\"}}"));
            let id = self.store.accept(move |tx| tx.append_event(&event)).await.expect("accepted");
            made.push(id.parts().0);
        }
        let (seqs, at) = (made.clone(), self.clock.now());
        let arrivals: Vec<_> = arrivals.into_iter().map(|(r, update, f)| (r, update, vec![f.to_owned()])).collect();
        let owe = move |tx: &mut tidemill::store::Tx<'_>| {
            for (seq, (record, is_update, fields)) in seqs.iter().zip(&arrivals) {
                let record = [*record; 16];
                let arrival =
                    Arrival { event: *seq, made_at: at, record, is_update: *is_update, changed_fields: fields };
                tx.owe_record(LANE, care, &arrival)?;
            }
            Ok(())
        };
        self.store.append(Wait::Applied, owe).await.expect("owed");
        made
    }

    /// What may be sent now.
    fn ready(&self) -> Vec<Due> {
        let mut all = self.store.fresh_deliveries(LANE, Seq(0), 1000).expect("read");
        let retries = self.store.retry_deliveries(LANE, 1000).expect("read");
        all.extend(retries);
        all
    }

    fn settlement(&self, due: Due, state: DeliveryState) -> Settlement {
        let row = self.store.delivery(LANE, due.seq).expect("read").expect("there");
        Settlement { lane: LANE, due, row: DeliveryRow { state, ..row } }
    }

    async fn settle(&self, due: Due, state: DeliveryState) {
        let settlement = self.settlement(due, state);
        self.store.append(Wait::Applied, move |tx| tx.settle_delivery(&settlement)).await.expect("settled");
    }

    fn delivered(&self) -> DeliveryState {
        DeliveryState::Delivered { at: self.clock.now() }
    }

    fn pending(&self) -> u64 {
        self.store.lane_counts(LANE).expect("counts").pending
    }
}

fn seqs(due: &[Due]) -> Vec<Seq> {
    due.iter().map(|due| due.seq).collect()
}

#[actix::test]
async fn events_of_a_record_go_one_at_a_time_and_other_records_flow_past() {
    let desk = Desk::new();
    let made = desk.arrive(ORDERED, vec![(1, false, "a"), (1, true, "b"), (2, false, "c"), (1, true, "d")]).await;
    assert_eq!(seqs(&desk.ready()), [made[0], made[2]]);
    assert_eq!(desk.pending(), 4);
    // A failed head keeps its place.
    let head = desk.ready()[0];
    let later = DeliveryState::Due { at: Millis(desk.clock.now().0 + 1000), tries: 1, attempts: 1 };
    desk.settle(head, later).await;
    assert_eq!(seqs(&desk.ready()), [made[2], made[0]]);
    // A dead head lets its successor go, and so on to the end.
    let dead = DeliveryState::Dead { at: desk.clock.now(), cause: Cause::Exhausted(AttemptError::Server) };
    let head = desk.ready()[1];
    desk.settle(head, dead).await;
    assert_eq!(seqs(&desk.ready()), [made[2], made[1]]);
    let next = desk.ready()[1];
    desk.settle(next, desk.delivered()).await;
    assert_eq!(seqs(&desk.ready()), [made[2], made[3]]);
    for due in desk.ready() {
        desk.settle(due, desk.delivered()).await;
    }
    assert_eq!((desk.ready().len(), desk.pending()), (0, 0));
    // Nothing of the past holds the next one back.
    let again = desk.arrive(ORDERED, vec![(1, true, "e")]).await;
    assert_eq!(seqs(&desk.ready()), again);
}

#[actix::test]
async fn a_head_that_ends_in_the_batch_of_its_successors_arrival_lets_it_go() {
    let desk = Desk::new();
    let first = desk.arrive(ORDERED, vec![(1, false, "a")]).await;
    for turn in 0..50 {
        let head = desk.ready()[0];
        // Handed over together, so that they share a batch when the writer is slower than this loop.
        let settlement = desk.settlement(head, desk.delivered());
        let event = event("crm/contacts", "{}", desk.clock.now());
        let next = desk.store.accept(move |tx| tx.append_event(&event)).await.expect("accepted").parts().0;
        let at = desk.clock.now();
        let arrival = move |tx: &mut tidemill::store::Tx<'_>| {
            let fields: Vec<String> = Vec::new();
            let arrival =
                Arrival { event: next, made_at: at, record: [1; 16], is_update: true, changed_fields: &fields };
            tx.owe_record(LANE, ORDERED, &arrival)
        };
        let settle = desk.store.append(Wait::Applied, move |tx| tx.settle_delivery(&settlement));
        let arrive = desk.store.append(Wait::Applied, arrival);
        let both = if turn % 2 == 0 {
            futures_util::future::join(settle, arrive).await
        } else {
            let (arrive, settle) = futures_util::future::join(arrive, settle).await;
            (settle, arrive)
        };
        both.0.expect("settled");
        both.1.expect("owed");
        assert_eq!(seqs(&desk.ready()), [next], "turn {turn}");
    }
    assert!(first[0] < desk.ready()[0].seq);
}

#[actix::test]
async fn a_resend_waits_behind_what_its_record_is_owed() {
    let desk = Desk::new();
    let made = desk.arrive(ORDERED, vec![(1, false, "a"), (1, true, "b")]).await;
    let event = made[0];
    let resend = move |tx: &mut tidemill::store::Tx<'_>| tx.put_resend(LANE, ORDERED, event, Some([1; 16]));
    let again = desk.store.change(resend).await.expect("owed again").parts().0;
    let mut went = Vec::new();
    while let Some(due) = desk.ready().first().copied() {
        assert_eq!(desk.ready().len(), 1);
        went.push(due.seq);
        desk.settle(due, desk.delivered()).await;
    }
    assert_eq!(went, [made[0], made[1], again]);
}

#[actix::test]
async fn a_cancelled_backlog_leaves_nothing_parked() {
    let desk = Desk::new();
    desk.arrive(ORDERED, (0..200).map(|n| (n % 7, n % 3 > 0, "a")).collect()).await;
    while desk.store.change(|tx| tx.cancel_some(LANE, 20)).await.expect("cancelled") {}
    let counts = desk.store.lane_counts(LANE).expect("counts");
    assert_eq!((counts.pending, counts.cancelled, desk.ready().len()), (0, 200, 0));
    let made = desk.arrive(ORDERED, vec![(3, true, "z")]).await;
    assert_eq!(seqs(&desk.ready()), made);
}

#[actix::test]
async fn successive_updates_that_wait_collapse_into_the_newest() {
    let desk = Desk::new();
    let care = Care { ordered: false, coalesce: true };
    let made = desk.arrive(care, vec![(1, false, "new"), (1, true, "a"), (1, true, "b"), (2, true, "x")]).await;
    assert_eq!(seqs(&desk.ready()), [made[0], made[2], made[3]], "created never collapses");
    let more = desk.arrive(care, vec![(1, true, "a"), (1, false, "gone"), (1, true, "c")]).await;
    assert_eq!(seqs(&desk.ready()), [made[0], made[3], more[0], more[1], more[2]], "nothing collapses over a deletion");
    let merged = desk.store.merged(LANE, more[0]).expect("read").expect("it took others in");
    assert_eq!((merged.first, merged.changed_fields, merged.count), (made[1], vec!["a".into(), "b".into()], 3));
    let gone = desk.store.delivery(LANE, made[1]).expect("read").expect("there");
    assert!(matches!(gone.state, DeliveryState::Superseded { by, .. } if by == made[2]), "{:?}", gone.state);
    // One that was tried stays itself.
    let tried = *desk.ready().iter().find(|due| due.seq == more[2]).expect("ready");
    let mut row = desk.settlement(tried, DeliveryState::Due { at: desk.clock.now(), tries: 1, attempts: 1 });
    row.row.attempts = vec![attempt(desk.clock.now())];
    desk.store.append(Wait::Applied, move |tx| tx.settle_delivery(&row)).await.expect("settled");
    let last = desk.arrive(care, vec![(1, true, "d")]).await;
    assert!(seqs(&desk.ready()).contains(&last[0]) && seqs(&desk.ready()).contains(&more[2]));
    assert_eq!(desk.pending(), 6);
}

fn attempt(at: Millis) -> tidemill::domain::delivery::Attempt {
    tidemill::domain::delivery::Attempt {
        at,
        duration_ms: 1,
        status: Some(500),
        error: Some(AttemptError::Server),
        answer: String::new(),
        body_cut: false,
    }
}

/// Any interleaving of arrivals, failures, deaths and deliveries keeps the order of each record, one at a time.
#[actix::test]
async fn any_history_keeps_the_order_of_each_record() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for care in [ORDERED, Care { ordered: true, coalesce: true }] {
        let desk = Desk::new();
        let mut record_of: BTreeMap<Seq, u8> = BTreeMap::new();
        let mut ended: BTreeMap<u8, Vec<Seq>> = BTreeMap::new();
        for _ in 0..300 {
            if rng.u8(..3) == 0 {
                let arrivals: Vec<_> = (0..rng.usize(1..6)).map(|_| (rng.u8(..4), rng.bool(), "f")).collect();
                let records: Vec<u8> = arrivals.iter().map(|(record, _, _)| *record).collect();
                record_of.extend(desk.arrive(care, arrivals).await.into_iter().zip(records));
                continue;
            }
            let ready = desk.ready();
            let mut heads: Vec<u8> = ready.iter().map(|due| record_of[&due.seq]).collect();
            heads.sort_unstable();
            heads.dedup();
            assert_eq!(heads.len(), ready.len(), "two deliveries of one record may be sent: {ready:?}");
            let Some(due) = rng.choice(&ready).copied() else { continue };
            let record = record_of[&due.seq];
            let state = match rng.u8(..4) {
                0 => DeliveryState::Due { at: Millis(desk.clock.now().0 + rng.u64(..50)), tries: 1, attempts: 1 },
                1 => DeliveryState::Dead { at: desk.clock.now(), cause: Cause::Exhausted(AttemptError::Server) },
                _ => desk.delivered(),
            };
            if !matches!(state, DeliveryState::Due { .. }) {
                let before = ended.entry(record).or_default();
                assert!(before.last().is_none_or(|last| *last < due.seq), "out of order: {before:?} {due:?}");
                before.push(due.seq);
            }
            desk.settle(due, state).await;
        }
        while let Some(due) = desk.ready().first().copied() {
            desk.settle(due, desk.delivered()).await;
        }
        assert_eq!(desk.pending(), 0);
    }
}
