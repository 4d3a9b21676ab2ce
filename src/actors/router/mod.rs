//! The router: turns events of the log into deliveries of lanes.
//!
//! Always true: its checkpoint and the deliveries it makes move in one commit, so an event is routed exactly once, also
//! over a crash; it reads only what is on disk. Not here: sending (`courier`).

mod index;

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::handle::Rings;
use super::supervisor::Wake;
use crate::clock::Clock;
use crate::domain::event::{Event, RecordKey};
use crate::domain::id::{LaneNo, Seq};
use crate::domain::subscription::Subscription;
use crate::error::Result;
use crate::store::{Arrival, Care, Store, Wait};
pub use index::Index;

/// Events looked at in one commit.
const STEP_MAX: usize = 512;

/// The actor.
pub struct Router {
    store: Store,
    clock: Clock,
    rings: Rings,
    /// The index, and the version of the subscriptions that it was made of.
    index: Option<(u64, Arc<Index>)>,
}

/// What one step did.
struct Step {
    index: (u64, Arc<Index>),
    more: bool,
}

impl Router {
    /// A router over the store's log.
    pub fn new(store: Store, clock: Clock, rings: Rings) -> Self {
        if let Ok(seq) = store.routed() {
            rings.routed(seq);
        }
        Self { store, clock, rings, index: None }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<Wake> for Router {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        let step = step(self.store.clone(), self.clock.clone(), self.rings.clone(), self.index.take());
        ctx.wait(step.into_actor(self).map(|outcome, router, ctx| match outcome {
            Ok(step) => {
                router.index = Some(step.index);
                if step.more {
                    ctx.notify(Wake);
                }
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "events could not be routed; trying again");
                ctx.notify_later(Wake, std::time::Duration::from_secs(1));
            }
        }));
    }
}

async fn step(store: Store, clock: Clock, rings: Rings, index: Option<(u64, Arc<Index>)>) -> Result<Step> {
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
    let now = clock.now();
    let mut owed: Vec<Owed> = Vec::new();
    for (number, (seq, event)) in events.iter().enumerate() {
        for (lane, care) in index.lanes(*seq, event, now) {
            owed.push(Owed { lane, seq: *seq, number, care, record: care.record(event) });
        }
    }
    let mut lanes: Vec<LaneNo> = owed.iter().map(|owed| owed.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    // Between the last event of a full step and `until` there may be more; otherwise all up to `until` has been seen.
    let reached = if more { events.last().map_or(until, |(seq, _)| *seq) } else { until };
    let asked = lanes.clone();
    store
        .append(Wait::Applied, move |tx| {
            // A subscription may have been deleted since the index was made: its lane must not come back.
            let mut there = BTreeSet::new();
            for lane in asked {
                if tx.has_lane(lane)? {
                    there.insert(lane);
                }
            }
            for owed in owed.iter().filter(|owed| there.contains(&owed.lane)) {
                let Some((_, event)) = events.get(owed.number) else { continue };
                match owed.record {
                    None => tx.put_fresh(owed.lane, owed.seq, event.accepted_at)?,
                    Some(record) => tx.owe_record(owed.lane, owed.care, &arrival(owed.seq, event, record))?,
                }
            }
            tx.put_routed(reached)
        })
        .await?;
    rings.routed(reached);
    lanes.into_iter().for_each(|lane| rings.lane(lane));
    Ok(Step { index: (version, index), more })
}

/// One delivery to make: the event at `number` of the step, for a lane.
struct Owed {
    lane: LaneNo,
    seq: Seq,
    number: usize,
    care: Care,
    record: Option<RecordKey>,
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
