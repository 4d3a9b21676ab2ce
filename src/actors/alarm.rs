//! The alarm: wakes connections and lanes when their time comes.
//!
//! Always true: it knows owners, never deliveries or records; each keeps only its earliest time; the times outlive the
//! actor, and one that is lost costs a slow tick. Not here: what is due (the owners look in the store).

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};

use super::handle::{Rings, Wakes};
use super::supervisor::Wake;
use crate::clock::Clock;
use crate::domain::time::Millis;

/// Who is to be woken when: each once, at the earliest time asked for.
#[derive(Default)]
pub(super) struct Times {
    by_time: BTreeSet<(Millis, Wakes)>,
    by_owner: HashMap<Wakes, Millis>,
}

impl Times {
    /// Answers whether this is now the earliest of all.
    pub(super) fn set(&mut self, at: Millis, wakes: Wakes) -> bool {
        match self.by_owner.get(&wakes) {
            Some(earlier) if *earlier <= at => return false,
            Some(later) => {
                self.by_time.remove(&(*later, wakes));
            }
            None => {}
        }
        self.by_owner.insert(wakes, at);
        self.by_time.insert((at, wakes));
        self.by_time.first().is_some_and(|first| *first == (at, wakes))
    }
    pub(super) fn take(&mut self, now: Millis) -> Option<Wakes> {
        let first = *self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.by_time.remove(&first);
        self.by_owner.remove(&first.1);
        Some(first.1)
    }
    pub(super) fn next(&self) -> Option<Millis> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

/// The actor.
pub struct Alarm {
    rings: Rings,
    clock: Clock,
    timer: Option<SpawnHandle>,
}

impl Alarm {
    /// An alarm over the times in `rings`.
    pub fn new(rings: Rings, clock: Clock) -> Self {
        Self { rings, clock, timer: None }
    }
}

impl Actor for Alarm {
    type Context = Context<Self>;
}

impl Handler<Wake> for Alarm {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let next = self.rings.wake_due(now);
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = next.map(|at| ctx.notify_later(Wake, at.since(now).min(Duration::from_secs(1))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::LaneNo;

    #[test]
    fn each_owner_is_woken_once_at_its_earliest_time() {
        let mut times = Times::default();
        let (a, b) = (Wakes::Lane(LaneNo(1)), Wakes::Lane(LaneNo(2)));
        assert!(times.set(Millis(50), a) && times.set(Millis(20), a) && !times.set(Millis(30), a));
        assert!(times.set(Millis(10), b));
        assert_eq!(times.next(), Some(Millis(10)));
        assert_eq!((times.take(Millis(20)), times.take(Millis(20)), times.take(Millis(99))), (Some(b), Some(a), None));
    }
}
