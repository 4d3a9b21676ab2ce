//! The router: turns events of the log into deliveries of lanes.
//!
//! Always true: its checkpoint and the deliveries it makes move in one commit, so an event is routed exactly once, also
//! over a crash; it reads only what is on disk. Not here: sending (`courier`).

mod index;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};

use super::courier::{Deaths, LastDead};
use super::handle::Rings;
use super::supervisor::Wake;
use crate::clock::Clock;
use crate::domain::delivery::{AttemptError, Cause};
use crate::domain::event::{Event, RecordKey};
use crate::domain::filter::{Filter, Verdict, View};
use crate::domain::id::{DeliveryId, EventId, LaneNo, Seq};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Arrival, Care, Store, Wait};
pub use index::Index;

/// Events looked at in one commit.
const STEP_MAX: usize = 512;
/// What one filter may take of one step.
const FILTER_BUDGET: Duration = Duration::from_secs(1);
/// What a delivery dies of whose event its filter cannot judge.
const FILTER_FAILED: Cause = Cause::Rejected(AttemptError::Filter);

/// The actor.
pub struct Router {
    store: Store,
    clock: Clock,
    rings: Rings,
    /// Whom to tell of what dies here.
    deaths: Deaths,
    /// The index, and the version of the subscriptions that it was made of.
    index: Option<(u64, Arc<Index>)>,
    /// After a failure: the next try, of which there is one, however often the router is rung meanwhile.
    again: Option<SpawnHandle>,
}

/// What one step did.
struct Step {
    index: (u64, Arc<Index>),
    more: bool,
}

impl Router {
    /// A router over the store's log.
    pub fn new(store: Store, clock: Clock, rings: Rings, deaths: Deaths) -> Self {
        if let Ok(seq) = store.routed() {
            rings.routed(seq);
        }
        Self { store, clock, rings, deaths, index: None, again: None }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<Wake> for Router {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        let with = (self.store.clone(), self.clock.clone(), self.rings.clone(), self.deaths.clone());
        let step = step(with, self.index.take());
        ctx.wait(step.into_actor(self).map(|outcome, router, ctx| match outcome {
            Ok(step) => {
                router.index = Some(step.index);
                if step.more {
                    ctx.notify(Wake);
                }
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "events could not be routed; trying again");
                let next = ctx.notify_later(Wake, Duration::from_secs(1));
                if let Some(before) = router.again.replace(next) {
                    ctx.cancel_future(before);
                }
            }
        }));
    }
}

async fn step(
    (store, clock, rings, deaths): (Store, Clock, Rings, Deaths),
    index: Option<(u64, Arc<Index>)>,
) -> Result<Step> {
    // The order matters: an event on disk by now was published after every subscription that its publisher knew of, so
    // an index made from here on has them.
    let until = *store.durable().borrow();
    let version = rings.subscriptions_version();
    let index = match index {
        Some((made_of, index)) if made_of == version => index,
        _ => Arc::new(build(&store)?),
    };
    let after = store.routed()?;
    let (events, more) = store.events_after(after, until, STEP_MAX)?;
    if events.is_empty() {
        return Ok(Step { index: (version, index), more });
    }
    let (now, judges) = (clock.now(), index.clone());
    let (owed, events) = store.blocking(move |_| Ok((owed(&judges, &events, now), events))).await?;
    let mut lanes: Vec<LaneNo> = owed.iter().map(|owed| owed.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    // Between the last event of a full step and `until` there may be more; otherwise all up to `until` has been seen.
    let reached = if more { events.last().map_or(until, |(seq, _)| *seq) } else { until };
    let (asked, dead) = (lanes.clone(), died(&owed, &events));
    let there = store
        .append(Wait::Applied, move |tx| {
            // A subscription may have been deleted since the index was made: its lane must not come back.
            let mut there = BTreeSet::new();
            for lane in asked {
                if tx.has_lane(lane)? {
                    there.insert(lane);
                }
            }
            for owed in owed.into_iter().filter(|owed| there.contains(&owed.lane)) {
                let Some((_, event)) = events.get(owed.number) else { continue };
                let (lane, seq, at) = (owed.lane, owed.seq, event.accepted_at);
                match owed.how {
                    How::Plain => tx.put_fresh(lane, seq, at)?,
                    How::Record(care, record) => tx.owe_record(lane, care, &arrival(seq, event, record))?,
                    How::Failed(reason) => tx.put_dead(lane, seq, at, FILTER_FAILED, reason)?,
                }
            }
            tx.put_routed(reached)?;
            Ok(there)
        })
        .await?;
    rings.routed(reached);
    dead.into_iter().filter(|(lane, _)| there.contains(lane)).for_each(|(lane, dead)| deaths.note(lane, dead));
    lanes.into_iter().for_each(|lane| rings.lane(lane));
    Ok(Step { index: (version, index), more })
}

/// One delivery to make: the event at `number` of the step, for a lane.
struct Owed {
    lane: LaneNo,
    seq: Seq,
    number: usize,
    how: How,
}

enum How {
    Plain,
    /// For a lane that cares for records.
    Record(Care, RecordKey),
    /// Its filter could not judge it.
    Failed(String),
}

/// What the events of a step are owed to. It asks the filters, so it runs where it may take its time.
fn owed(index: &Index, events: &[(Seq, Event)], now: Millis) -> Vec<Owed> {
    let mut all = Vec::new();
    let mut spent: HashMap<LaneNo, Duration> = HashMap::new();
    for (number, (seq, event)) in events.iter().enumerate() {
        let mut view = None;
        for taker in index.takers(*seq, event, now) {
            let how = match taker.care.record(event) {
                Some(record) => How::Record(taker.care, record),
                None => How::Plain,
            };
            let verdict = match taker.filter {
                None => Verdict::Yes,
                Some(Err(reason)) => Verdict::Failed(reason.clone()),
                Some(Ok(filter)) => {
                    let view = view.get_or_insert_with(|| View::of(event, EventId::new(*seq, event.workspace)));
                    judge(filter, view, spent.entry(taker.lane).or_default())
                }
            };
            let how = match verdict {
                Verdict::Yes => how,
                Verdict::No => continue,
                Verdict::Failed(reason) => How::Failed(reason),
            };
            all.push(Owed { lane: taker.lane, seq: *seq, number, how });
        }
    }
    all
}

/// Those that die of their filters.
fn died(owed: &[Owed], events: &[(Seq, Event)]) -> Vec<(LaneNo, LastDead)> {
    let failed = owed.iter().filter(|owed| matches!(owed.how, How::Failed(_)));
    let told = failed.filter_map(|owed| {
        let (_, event) = events.get(owed.number)?;
        let dead = LastDead {
            delivery: DeliveryId::new(owed.seq, owed.lane),
            event: EventId::new(owed.seq, event.workspace),
            topic: event.topic.clone(),
            cause: FILTER_FAILED,
            attempts: 1,
        };
        Some((owed.lane, dead))
    });
    told.collect()
}

/// Asks a filter that has not used up its time.
fn judge(filter: &Filter, view: &View, spent: &mut Duration) -> Verdict {
    if *spent > FILTER_BUDGET {
        return Verdict::Failed("the filter takes too long, so this event was not judged".to_owned());
    }
    let started = Instant::now();
    let verdict = filter.judge(view);
    *spent += started.elapsed();
    verdict
}

fn arrival(seq: Seq, event: &Event, record: RecordKey) -> Arrival<'_> {
    let is_update = event.update_type.as_deref() == Some("updated");
    Arrival { event: seq, made_at: event.accepted_at, record, is_update, changed_fields: &event.changed_fields }
}

fn build(store: &Store) -> Result<Index> {
    let mut index = Index::default();
    store.every_object::<Subscription>(|subscription| {
        index.add(subscription);
        Ok(())
    })?;
    Ok(index)
}
