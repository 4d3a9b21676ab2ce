//! The replayer: takes replays forward, each in small steps.
//!
//! Always true: what it does is in the store, so a restart goes on where it was; one round takes a bounded number of steps,
//! those whose turn was longest ago first, so that no replay holds up another; it never puts more in front of a lane than
//! that lane sends. Not here: what a replay is (`domain::replay`), its rows (`store::replays`), who asks for it (`api`).

mod advance;
mod select;

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};

use super::courier::Flights;
use super::handle::Rings;
use super::supervisor::Wake;
use crate::clock::Clock;
use crate::domain::id::{ReplayId, Seq};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::Store;

pub use advance::{Next, step};
pub use select::{Counted, Selector, count};

/// Steps of one round.
const STEPS_MAX: usize = 20;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// What replays are made with.
#[derive(Clone)]
pub struct Tools {
    pub store: Store,
    pub clock: Clock,
    pub rings: Rings,
    pub flights: Flights,
}

/// What is remembered of one replay; nothing is lost without it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    next_at: Millis,
    /// How many waited at the last look, and how long it then waited itself.
    waiting: u64,
    wait: Duration,
    /// Of what replays have made in its lane, all up to here was tried.
    low: Seq,
    /// While it is being cancelled: how far that is.
    mark: Seq,
}

/// The actor.
pub struct Replayer {
    tools: Tools,
    round: Round,
    timer: Option<SpawnHandle>,
}

/// What is known from one round to the next.
#[derive(Default)]
struct Round {
    memories: BTreeMap<ReplayId, Memory>,
    /// The version of replays and subscriptions as of the last look at all of them.
    version: Option<u64>,
}

impl Replayer {
    /// A replayer that has looked at nothing yet.
    pub fn new(tools: Tools) -> Self {
        Self { tools, round: Round::default(), timer: None }
    }
}

impl Actor for Replayer {
    type Context = Context<Self>;
}

impl Handler<Wake> for Replayer {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        let (tools, round) = (self.tools.clone(), std::mem::take(&mut self.round));
        ctx.wait(go_round(tools, round).into_actor(self).map(|outcome, replayer, ctx| {
            let now = replayer.tools.clock.now();
            let next = match outcome {
                Ok(round) => {
                    replayer.round = round;
                    replayer.round.memories.values().map(|memory| memory.next_at).min()
                }
                Err(error) => {
                    tracing::error!(error = error.chain(), "replays could not be looked at; trying again");
                    Some(now.after(AGAIN))
                }
            };
            if let Some(timer) = replayer.timer.take() {
                ctx.cancel_future(timer);
            }
            replayer.timer = next.map(|at| ctx.notify_later(Wake, at.since(now)));
        }));
    }
}

/// Looks at the replays whose time has come; at all of them after a change.
async fn go_round(tools: Tools, mut round: Round) -> Result<Round> {
    let version = tools.rings.replays_version();
    let live = tools.store.blocking(crate::store::Rows::live_replays).await?;
    round.memories.retain(|id, _| live.binary_search_by_key(&key(*id), |id| key(*id)).is_ok());
    let changed = round.version.replace(version) != Some(version);
    let now = tools.clock.now();
    for id in live {
        let memory = round.memories.entry(id).or_default();
        if changed {
            memory.next_at = memory.next_at.min(now);
        }
    }
    let mut due: Vec<(Millis, ReplayId)> =
        round.memories.iter().map(|(id, memory)| (memory.next_at, *id)).filter(|(at, _)| *at <= now).collect();
    due.sort_unstable();
    for (_, id) in due.into_iter().take(STEPS_MAX) {
        let Some(memory) = round.memories.get_mut(&id) else { continue };
        match step(&tools, id, memory).await {
            Ok(Next::At(at)) => memory.next_at = at,
            Ok(Next::Ended) => drop(round.memories.remove(&id)),
            Err(error) => {
                tracing::error!(replay = %id, error = error.chain(), "a replay could not go on; trying again");
                memory.next_at = tools.clock.now().after(AGAIN);
            }
        }
    }
    Ok(round)
}

/// Live replays are listed by lane.
fn key(id: ReplayId) -> (u32, u64) {
    let (seq, lane) = id.parts();
    (lane.0, seq.0)
}
