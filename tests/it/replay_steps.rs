//! Replays step by step on a real store, in virtual time: what is chosen, how much is put in front of a lane and how fast,
//! that a crash makes nothing twice, that a cancelled one takes its deliveries along.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemill::actors::courier::Flights;
use tidemill::actors::handle::Rings;
use tidemill::actors::replayer::{self, Counted, Memory, Next, Selector, Tools};
use tidemill::clock::Clock;
use tidemill::domain::delivery::{AttemptError, Cause, DeliveryState};
use tidemill::domain::event::{Event, Payload};
use tidemill::domain::id::{ConnectionId, LaneNo, ReplayId, Seq, SubscriptionId, WorkspaceNo};
use tidemill::domain::record::record_id;
use tidemill::domain::replay::{Pace, READY_MAX, Replay, ReplayState, Selection, Wanted};
use tidemill::domain::subscription::{ApiVersion, Halt, Signing, Subscription, WhileDisabled};
use tidemill::domain::time::Millis;
use tidemill::store::{
    Arrival, Care, Cutoffs, DeliveryRow, Due, ReplayCounts, Settlement, Store, SweepMarks, Turn, Wait,
};

use crate::support::engine::{config, event, workspace};

const LANE: LaneNo = LaneNo(1);
const START: Millis = Millis(1_700_000_000_000);
const DEAD: Cause = Cause::Exhausted(AttemptError::Server);

struct Desk {
    tools: Tools,
    folder: TempDir,
    memory: Memory,
}

fn open(folder: &TempDir, clock: &Clock) -> Option<Store> {
    Store::open(&config(folder).storage, &[7; 32], clock, Arc::new(|_| ())).ok()
}

fn subscription() -> Subscription {
    Subscription {
        id: SubscriptionId([1; 12]),
        workspace: WorkspaceNo(0),
        lane: LANE,
        address: "https://example.com/".into(),
        topics: vec!["crm/*".into()],
        is_enabled: true,
        halt: Halt::No,
        user: None,
        connection: None,
        api_version: ApiVersion::V2024_03,
        description: String::new(),
        update_types: Vec::new(),
        include: Vec::new(),
        while_disabled: WhileDisabled::Hold,
        expires_at: None,
        max_in_flight: 8,
        timeout_seconds: 15,
        retry_schedule: None,
        header_names: Vec::new(),
        signing: Signing { rsa: true, hmac: true, ed25519: true },
        from: Seq(0),
        created_at: START,
        updated_at: START,
        ordered: false,
        coalesce: false,
        rate_milli: None,
        filter: None,
        hook: None,
        destination: None,
        shape: Default::default(),
    }
}

fn any() -> Selection {
    Selection {
        from: Millis(0),
        to: Millis(u64::MAX / 2),
        topic: None,
        wanted: Wanted::Any,
        connection: None,
        remote_id: None,
    }
}

fn wanted(wanted: Wanted) -> Selection {
    Selection { wanted, ..any() }
}

impl Desk {
    async fn new(change: impl FnOnce(&mut Subscription)) -> Self {
        tokio::time::pause();
        let (folder, clock) = (TempDir::new().expect("a folder"), Clock::virtual_at(START));
        let store = open(&folder, &clock).expect("a store");
        workspace(&store).await;
        let mut subscription = subscription();
        change(&mut subscription);
        store.change(move |tx| tx.put_object(&subscription)).await.expect("made");
        let tools = Tools { store, clock, rings: Rings::default(), flights: Flights::default() };
        Self { tools, folder, memory: Memory::default() }
    }

    fn store(&self) -> &Store {
        &self.tools.store
    }

    fn now(&self) -> Millis {
        self.tools.clock.now()
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    /// Puts events into the log, and says that the router has seen them.
    async fn append(&self, events: Vec<Event>) -> Vec<Seq> {
        let append = move |tx: &mut tidemill::store::Tx<'_>| {
            let seqs =
                events.iter().map(|event| Ok(tx.append_event(event)?.parts().0)).collect::<Result<Vec<_>, _>>()?;
            tx.put_routed(*seqs.last().expect("some"))?;
            Ok::<_, tidemill::error::Error>(seqs)
        };
        self.store().change(append).await.expect("appended")
    }

    async fn some(&self, count: usize) -> Vec<Seq> {
        let now = self.now();
        self.append((0..count).map(|_| event("crm/contacts", "{}", now)).collect()).await
    }

    /// Owes events, and ends their deliveries so.
    async fn ended(&self, seqs: &[Seq], state: DeliveryState) {
        for seq in seqs {
            let (seq, at, due, state) = (*seq, self.now(), Due::first(*seq, None), state.clone());
            let owe = move |tx: &mut tidemill::store::Tx<'_>| tx.put_fresh(LANE, seq, at);
            self.store().append(Wait::Applied, owe).await.expect("owed");
            self.settle(due, state).await;
        }
    }

    async fn settle(&self, due: Due, state: DeliveryState) {
        let attempt = tidemill::domain::delivery::Attempt {
            at: self.now(),
            duration_ms: 1,
            status: Some(200),
            error: None,
            answer: String::new(),
            body_cut: false,
        };
        let row = DeliveryRow { state, attempts: vec![attempt], ..DeliveryRow::unattempted(&due, self.now()) };
        let settlement = Settlement { lane: LANE, due, row };
        self.store().append(Wait::Applied, move |tx| tx.settle_delivery(&settlement)).await.expect("settled");
    }

    fn delivered(&self) -> DeliveryState {
        DeliveryState::Delivered { at: self.now() }
    }

    fn dead(&self) -> DeliveryState {
        DeliveryState::Dead { at: self.now(), cause: DEAD }
    }

    async fn replay(&self, selection: Selection, rate_milli: Option<u32>) -> ReplayId {
        let (start, until) = self.store().replay_range(selection.from, selection.to).expect("read");
        let make = move |tx: &mut tidemill::store::Tx<'_>| {
            let now = tx.now();
            let replay = Replay {
                id: ReplayId::new(tx.next_seq()?, LANE),
                subscription: SubscriptionId([1; 12]),
                selection,
                pace: rate_milli.map(|rate| Pace::new(rate, now)),
                state: ReplayState::Running,
                start,
                until,
                cursor: start,
                looked: 0,
                made: 0,
                unjudged: 0,
                created_at: now,
                updated_at: now,
            };
            tx.put_replay(&replay)?;
            Ok(replay.id)
        };
        self.store().change(make).await.expect("made")
    }

    async fn step(&mut self, id: ReplayId) -> Next {
        replayer::step(&self.tools, id, &mut self.memory).await.expect("a step")
    }

    fn found(&self, id: ReplayId) -> (Replay, ReplayCounts) {
        let replay = self.store().replay(id).expect("read").expect("there");
        (replay, self.store().replay_counts(id).expect("read"))
    }

    fn ready(&self) -> Vec<Due> {
        self.store().replayed_deliveries(LANE, Seq(0), 10_000).expect("read")
    }

    /// Steps, and delivers whatever is ready, until it ends; answers the events in the order in which they were sent.
    async fn finish(&mut self, id: ReplayId) -> Vec<Seq> {
        let mut sent = Vec::new();
        for _ in 0..10_000 {
            let Next::At(at) = self.step(id).await else { return sent };
            for due in self.ready() {
                sent.push(due.event);
                self.settle(due, self.delivered()).await;
            }
            self.pass(at.since(self.now())).await;
        }
        panic!("it does not end: {:?}", self.found(id));
    }

    async fn count(&self, selection: &Selection) -> Counted {
        let stored = self.store().subscription_by_lane(LANE).expect("read").expect("there");
        let range = self.store().replay_range(selection.from, selection.to).expect("read");
        replayer::count(self.store(), Selector::new(&stored, selection), range, self.now()).await.expect("counted")
    }
}

#[actix::test]
async fn what_is_made_is_never_far_ahead_of_what_the_lane_sends() {
    let mut desk = Desk::new(|_| {}).await;
    let events = desk.some(250).await;
    desk.ended(&events, desk.delivered()).await;
    let id = desk.replay(any(), None).await;
    for _ in 0..5 {
        desk.step(id).await;
    }
    assert_eq!((desk.ready().len(), desk.found(id).0.made), (READY_MAX, READY_MAX as u64));
    for due in desk.ready().into_iter().take(30) {
        desk.settle(due, desk.delivered()).await;
    }
    desk.step(id).await;
    assert_eq!((desk.ready().len(), desk.found(id).0.made), (READY_MAX, READY_MAX as u64 + 30));
    let rest = desk.finish(id).await;
    let (replay, counts) = desk.found(id);
    assert!(matches!(replay.state, ReplayState::Completed { .. }), "{replay:?}");
    assert_eq!((rest.len(), replay.made, replay.looked, counts.delivered), (220, 250, 250, 250));
    assert_eq!(rest.last(), events.last());
    assert_eq!(desk.store().live_replays().expect("read"), []);
    assert_eq!(desk.store().lane_counts(LANE).expect("counts").pending, 0);
}

#[actix::test]
async fn a_rate_is_kept() {
    let mut desk = Desk::new(|_| {}).await;
    let events = desk.some(60).await;
    desk.ended(&events, desk.delivered()).await;
    let begin = desk.now();
    // Four per second.
    let id = desk.replay(any(), Some(4_000)).await;
    let mut times = Vec::new();
    while let Next::At(at) = desk.step(id).await {
        for due in desk.ready() {
            times.push(desk.now().since(begin));
            desk.settle(due, desk.delivered()).await;
        }
        let wait = at.since(desk.now());
        assert!(wait <= Duration::from_millis(250), "it waits no longer than the rate asks for: {wait:?}");
        desk.pass(wait).await;
    }
    assert_eq!(times.len(), 60);
    for (number, time) in times.iter().enumerate() {
        assert!(*time >= Duration::from_millis(250 * number as u64), "{number}: {time:?}");
    }
}

#[actix::test]
async fn a_selection_goes_by_what_became_of_the_newest_delivery() {
    let mut desk = Desk::new(|_| {}).await;
    let events = desk.some(7).await;
    let (good, dead, again, owed, cancelled) =
        (&events[..2], &events[2..3], &events[3..4], &events[4..5], &events[5..6]);
    desk.ended(good, desk.delivered()).await;
    desk.ended(dead, desk.dead()).await;
    desk.ended(again, desk.dead()).await;
    desk.ended(cancelled, DeliveryState::Cancelled { at: desk.now() }).await;
    let (event, at) = (owed[0], desk.now());
    desk.store().append(Wait::Applied, move |tx| tx.put_fresh(LANE, event, at)).await.expect("owed");
    // Asked for again, and then accepted: it is dead no more.
    let (event, free) = (again[0], Care { ordered: false, coalesce: false });
    let resent = desk.store().change(move |tx| tx.put_resend(LANE, free, event, None)).await.expect("owed").parts().0;
    let due = Due { seq: resent, event, turn: Turn::Again(desk.now()), ..Due::first(resent, None) };
    assert_eq!(desk.count(&wanted(Wanted::Any)).await.chosen, 5, "the owed ones come by themselves");
    desk.settle(due, desk.delivered()).await;
    assert_eq!(desk.count(&wanted(Wanted::Dead)).await.chosen, 1);
    assert_eq!(desk.count(&wanted(Wanted::Delivered)).await.chosen, 3);
    let all = desk.count(&wanted(Wanted::Any)).await;
    assert_eq!((all.chosen, all.looked, all.is_complete), (6, 7, true));

    let id = desk.replay(wanted(Wanted::Dead), None).await;
    assert_eq!(desk.finish(id).await, dead);
    assert_eq!(desk.count(&wanted(Wanted::Dead)).await.chosen, 0, "what was sent again is dead no more");
    let id = desk.replay(wanted(Wanted::Any), None).await;
    let sent = desk.finish(id).await;
    assert_eq!(sent, [events[0], events[1], events[2], events[3], events[5], events[6]], "in the order of the log");
}

#[actix::test]
async fn dead_ones_come_in_the_order_of_the_log_and_each_once() {
    let mut desk = Desk::new(|_| {}).await;
    let events = desk.some(4).await;
    desk.ended(&events, desk.dead()).await;
    // The first one dies again and again: newer deliveries of an older event.
    for _ in 0..3 {
        let id = desk.replay(Selection { to: Millis(desk.now().0 + 1), ..wanted(Wanted::Dead) }, None).await;
        desk.step(id).await;
        for due in desk.ready() {
            let state = if due.event == events[0] { desk.dead() } else { desk.delivered() };
            desk.settle(due, state).await;
        }
        desk.finish(id).await;
        assert_eq!(desk.count(&wanted(Wanted::Dead)).await.chosen, 1);
    }
    desk.ended(&desk.some(1).await, desk.dead()).await;
    let id = desk.replay(wanted(Wanted::Dead), None).await;
    let sent = desk.finish(id).await;
    assert_eq!(sent.len(), 2);
    assert!(sent[0] == events[0] && sent[0] < sent[1], "{sent:?}");
}

#[actix::test]
async fn a_selection_narrows_by_time_topic_connection_and_record() {
    let mut desk = Desk::new(|s| s.topics = vec!["*".into()]).await;
    let connection = ConnectionId([9; 12]);
    let record = |remote_id: &str, at: Millis| Event {
        connection: Some(connection),
        payload: Payload::Record {
            id: record_id(connection, "crm/contacts", remote_id).into_bytes(),
            remote_id: remote_id.into(),
            remote_created_at: None,
            remote_updated_at: None,
            created_at: at,
            updated_at: at,
            deleted: false,
            fields: "{}".into(),
        },
        ..event("crm/contacts", "{}", at)
    };
    let first = desk.now();
    let mut events = desk.append(vec![record("7", first), record("8", first), event("acme/things", "{}", first)]).await;
    desk.pass(Duration::from_secs(3600)).await;
    let second = desk.now();
    events.extend(desk.append(vec![record("7", second), event("commerce/orders", "{}", second)]).await);
    let chosen = |selection: Selection| {
        let desk = &desk;
        async move { desk.count(&selection).await.chosen }
    };
    assert_eq!(chosen(any()).await, 5, "also what never was a delivery");
    assert_eq!(chosen(Selection { to: second, ..any() }).await, 3);
    assert_eq!(chosen(Selection { from: second, ..any() }).await, 2);
    assert_eq!(chosen(Selection { from: Millis(first.0 + 1), to: second, ..any() }).await, 0);
    assert_eq!(chosen(Selection { topic: Some("crm/*".into()), ..any() }).await, 3);
    assert_eq!(chosen(Selection { topic: Some("acme/things".into()), ..any() }).await, 1);
    assert_eq!(chosen(Selection { connection: Some(connection), ..any() }).await, 3);
    assert_eq!(chosen(Selection { connection: Some(ConnectionId([8; 12])), ..any() }).await, 0);
    assert_eq!(chosen(Selection { remote_id: Some("7".into()), ..any() }).await, 2);
    let of_record = Selection {
        topic: Some("crm/contacts".into()),
        connection: Some(connection),
        remote_id: Some("7".into()),
        ..any()
    };
    let counted = desk.count(&of_record).await;
    assert_eq!((counted.chosen, counted.looked), (2, 2), "a record's events have an index");
    let id = desk.replay(of_record, None).await;
    assert_eq!(desk.finish(id).await, [events[0], events[3]]);
}

#[actix::test]
async fn what_never_was_a_delivery_is_sent_only_if_the_subscription_wants_it_now() {
    let change = |s: &mut Subscription| {
        s.from = Seq(1_000_000);
        s.while_disabled = WhileDisabled::Drop;
        s.filter = Some("dataPayload.n > 1".into());
    };
    let mut desk = Desk::new(change).await;
    let now = desk.now();
    let made = [("crm/contacts", r#"{"n":1}"#), ("crm/contacts", r#"{"n":2}"#), ("acme/things", r#"{"n":3}"#)];
    let mut all: Vec<Event> = made.iter().map(|(topic, payload)| event(topic, payload, now)).collect();
    all.push(event("crm/contacts", r#"{"m":1}"#, now));
    all.push(Event { about: Some(SubscriptionId([1; 12])), ..event("crm/contacts", r#"{"n":4}"#, now) });
    let events = desk.append(all).await;
    let counted = desk.count(&any()).await;
    assert_eq!((counted.chosen, counted.unjudged, counted.looked), (1, 1, 5));
    let id = desk.replay(any(), None).await;
    assert_eq!(desk.finish(id).await, [events[1]]);
    assert_eq!(desk.found(id).0.unjudged, 1);
}

#[actix::test]
async fn a_crash_at_any_step_makes_no_event_twice() {
    let mut desk = Desk::new(|_| {}).await;
    let events = desk.some(350).await;
    desk.ended(&events, desk.delivered()).await;
    let id = desk.replay(any(), None).await;
    let mut restarts = 0;
    loop {
        let next = desk.step(id).await;
        for due in desk.ready().into_iter().step_by(2) {
            desk.settle(due, desk.delivered()).await;
        }
        desk = reopened(desk).await;
        restarts += 1;
        let Next::At(at) = next else { break };
        desk.pass(at.since(desk.now())).await;
        if desk.found(id).0.is_through() {
            break;
        }
    }
    desk.finish(id).await;
    assert!(restarts > 3, "{restarts}");
    let mut made = BTreeMap::new();
    for event in &events {
        made.insert(*event, desk.store().resends(LANE, *event, 10).expect("read").len());
    }
    assert!(made.values().all(|count| *count == 1), "{made:?}");
    let (replay, counts) = desk.found(id);
    assert_eq!((replay.made, counts.delivered, counts.tried), (350, 350, 350));
}

/// The same folder, with nothing remembered.
async fn reopened(desk: Desk) -> Desk {
    let Desk { tools, folder, .. } = desk;
    let Tools { store, clock, .. } = tools;
    store.close();
    let store = open(&folder, &clock).expect("the store was closed");
    let tools = Tools { store, clock, rings: Rings::default(), flights: Flights::default() };
    Desk { tools, folder, memory: Memory::default() }
}

#[actix::test]
async fn in_an_ordered_lane_replays_queue_behind_what_their_record_is_owed() {
    let mut desk = Desk::new(|s| (s.ordered, s.coalesce) = (true, true)).await;
    let care = Care { ordered: true, coalesce: true };
    let now = desk.now();
    let events = desk.append((0..3).map(|_| event("crm/contacts", r#"{"id":"a"}"#, now)).collect()).await;
    let others = desk.append(vec![event("crm/contacts", r#"{"id":"b"}"#, now)]).await;
    let record = event("crm/contacts", r#"{"id":"a"}"#, now).record_key().expect("a record");
    // A live update comes after them, and is being tried again.
    let live = desk.append(vec![event("crm/contacts", r#"{"id":"a"}"#, now)]).await[0];
    let owe = move |tx: &mut tidemill::store::Tx<'_>| {
        tx.owe_record(LANE, care, &Arrival { event: live, made_at: now, record, is_update: true, changed_fields: &[] })
    };
    desk.store().append(Wait::Applied, owe).await.expect("owed");
    let id = desk.replay(any(), None).await;
    desk.step(id).await;
    assert_eq!(desk.ready().iter().map(|due| due.event).collect::<Vec<_>>(), others, "only the other record may go");
    assert_eq!((desk.found(id).0.made, desk.store().lane_counts(LANE).expect("counts").pending), (4, 5));
    let mut sent = Vec::new();
    desk.settle(Due::first(live, Some(record)), desk.delivered()).await;
    loop {
        let next = desk.store().retry_deliveries(LANE, 10).expect("read");
        assert!(next.len() <= 1, "one of a record at a time: {next:?}");
        let Some(due) = next.into_iter().next() else { break };
        assert!(matches!(due.turn, Turn::Again(_)));
        sent.push(due.event);
        desk.settle(due, desk.delivered()).await;
    }
    assert_eq!(sent, events, "in the order of the log");
    desk.finish(id).await;
    assert_eq!(desk.found(id).1.delivered, 4);
}

#[actix::test]
async fn a_cancelled_replay_takes_along_what_waits_and_leaves_the_live_ones() {
    let mut desk = Desk::new(|s| s.ordered = true).await;
    let now = desk.now();
    let mut all: Vec<Event> = (0..40).map(|n| event("crm/contacts", &format!("{{\"id\":{}}}", n % 8), now)).collect();
    all.extend((0..3).map(|_| event("crm/contacts", "{}", now)));
    desk.append(all).await;
    let id = desk.replay(any(), None).await;
    desk.step(id).await;
    let fresh = desk.some(2).await;
    for seq in &fresh {
        let (seq, at) = (*seq, desk.now());
        desk.store().append(Wait::Applied, move |tx| tx.put_fresh(LANE, seq, at)).await.expect("owed");
    }
    // One has failed, and will be tried again; one was accepted.
    let ready = desk.ready();
    let later = DeliveryState::Due { at: Millis(desk.now().0 + 60_000), tries: 1, attempts: 1 };
    desk.settle(ready[0], later).await;
    desk.settle(ready[1], desk.delivered()).await;
    assert_eq!((desk.found(id).0.made, desk.found(id).1.tried), (43, 2));
    let turn = move |tx: &mut tidemill::store::Tx<'_>| {
        let replay = tx.replay(id)?.expect("there");
        tx.put_replay(&Replay { state: ReplayState::Cancelling, ..replay })
    };
    desk.store().change(turn).await.expect("turned");
    desk = reopened(desk).await;
    for _ in 0..20 {
        let Next::At(at) = desk.step(id).await else { break };
        desk.pass(at.since(desk.now())).await;
    }
    let (replay, counts) = desk.found(id);
    assert!(matches!(replay.state, ReplayState::Cancelled { .. }), "{replay:?}");
    assert_eq!((counts.delivered, counts.cancelled, counts.tried), (1, 42, 43));
    let pending = desk.store().fresh_deliveries(LANE, Seq(0), 10).expect("read");
    assert_eq!(pending.iter().map(|due| due.seq).collect::<Vec<_>>(), fresh);
    assert_eq!(desk.store().lane_counts(LANE).expect("counts").pending, 2);
    assert_eq!(desk.store().retry_deliveries(LANE, 10).expect("read"), []);
}

#[actix::test]
async fn a_paused_subscription_gets_nothing_made_and_a_paused_replay_stands_still() {
    let mut desk = Desk::new(|s| s.is_enabled = false).await;
    desk.some(5).await;
    let id = desk.replay(any(), None).await;
    desk.step(id).await;
    assert_eq!(desk.found(id).0.made, 0);
    let change = |state| {
        move |tx: &mut tidemill::store::Tx<'_>| {
            let replay = tx.replay(id)?.expect("there");
            tx.put_replay(&Replay { state, ..replay })?;
            tx.put_object(&subscription())
        }
    };
    desk.store().change(change(ReplayState::Paused)).await.expect("changed");
    desk.step(id).await;
    assert_eq!(desk.found(id).0.made, 0);
    desk.store().change(change(ReplayState::Running)).await.expect("changed");
    assert_eq!(desk.finish(id).await.len(), 5);
}

#[actix::test]
async fn an_event_outlives_its_time_while_a_replay_owes_it_and_an_erased_lane_leaves_no_replay() {
    let mut desk = Desk::new(|_| {}).await;
    let events = desk.some(2).await;
    desk.ended(&events, desk.delivered()).await;
    desk.pass(Duration::from_secs(29 * 24 * 3600)).await;
    let id = desk.replay(any(), None).await;
    desk.step(id).await;
    let first = desk.ready()[0];
    desk.settle(first, desk.delivered()).await;
    desk.pass(Duration::from_secs(2 * 24 * 3600)).await;
    let (now, day) = (desk.now(), Duration::from_secs(24 * 3600));
    let before = |days: u32| now.before(day * days);
    let cutoffs = Cutoffs {
        now,
        events: before(30),
        undelivered: before(30),
        delivered: before(7),
        inbox: before(7),
        unverified: before(1),
        pulls: before(30),
        tombstones: before(30),
        audit: before(30),
    };
    desk.store().drop_past(cutoffs, SweepMarks::default(), 100).await.expect("dropped");
    let there: Vec<bool> = events.iter().map(|seq| desk.store().event(*seq).expect("read").is_some()).collect();
    assert_eq!(there, [false, true], "only what is owed stays");
    assert_eq!(desk.ready().len(), 1);
    desk.store().change(|tx| tx.erase_lane(LANE)).await.expect("erased");
    assert!(desk.store().replay(id).expect("read").is_none() && desk.ready().is_empty());
    assert_eq!(desk.store().replay_counts(id).expect("read"), ReplayCounts::default());
    assert_eq!(desk.store().live_replays().expect("read"), []);
    assert_eq!(desk.step(id).await, Next::Ended);
}

#[actix::test]
async fn only_so_many_ended_replays_are_kept_and_live_ones_always() {
    let mut desk = Desk::new(|_| {}).await;
    desk.some(1).await;
    let live = desk.replay(any(), None).await;
    let mut ended = Vec::new();
    for _ in 0..4 {
        let id = desk.replay(Selection { to: Millis(1), ..any() }, None).await;
        desk.finish(id).await;
        ended.push(id);
    }
    desk.store().change(|tx| tx.forget_replays(LANE, 2)).await.expect("forgotten");
    let left = desk.store().replays(LANE, None, 10).expect("read");
    assert_eq!(left, [ended[3], ended[2], live]);
    // What a forgotten one has made is counted no more, and settles all the same.
    assert_eq!(desk.store().replay_counts(ended[0]).expect("read"), ReplayCounts::default());
}
