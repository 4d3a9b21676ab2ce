//! What a lane tells about itself: `delivery/dead`, `subscription/disabled`, `subscription/recovered`.
//!
//! Always true: an event about a subscription never goes to it; a failing delivery of a system event makes no further
//! one; `delivery/dead` comes at most once per subscription and minute, with a count. Not here: when a delivery is dead
//! (`domain::delivery`).

use std::sync::PoisonError;
use std::time::Duration;

use super::lane::{Lane, LaneConfig};
use super::outlet::Outlet;
use crate::actors::handle::Wakes;
use crate::domain::delivery::{AttemptError, Cause};
use crate::domain::id::{DeliveryId, EventId, SubscriptionId};
use crate::domain::models::system::{self, Subject, SystemEvent};
use crate::domain::subscription::{Halt, Subscription};
use crate::domain::time::Millis;
use crate::domain::topic::{self, Kind};
use crate::error::Result;
use crate::store::{Tx, Wait};

/// The reason when a receiver has answered 410.
pub(super) const GONE: &str = "gone";
/// `delivery/dead` at most so often per subscription.
const DEAD_EVERY: Duration = Duration::from_secs(60);

/// Dead deliveries that have not been told.
#[derive(Default)]
pub struct DeadTally {
    untold: u64,
    last: Option<LastDead>,
    told_at: Option<Millis>,
}

/// The delivery that died last.
pub struct LastDead {
    pub delivery: DeliveryId,
    pub event: EventId,
    pub topic: String,
    pub cause: Cause,
    pub attempts: u32,
}

impl Outlet {
    /// Notes a dead delivery; the lane's courier tells of it.
    pub(super) fn note_dead(&self, config: &LaneConfig, lane: &Lane, dead: LastDead, now: Millis) {
        if topic::kind(&dead.topic) == Kind::System {
            return;
        }
        let mut tally = lane.dead.lock().unwrap_or_else(PoisonError::into_inner);
        tally.untold += 1;
        tally.last = Some(dead);
        drop(tally);
        self.rings.at(now, Wakes::Lane(config.subscription.lane));
    }

    /// Tells of dead deliveries, if there are any and the last telling is long enough ago.
    pub(super) fn tell_dead(self: &std::sync::Arc<Self>, config: &LaneConfig, lane: &Lane, now: Millis) {
        let mut tally = lane.dead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(noted) = self.deaths.take(config.subscription.lane) {
            tally.untold += noted.count;
            tally.last = Some(noted.last);
        }
        if tally.untold == 0 {
            return;
        }
        if let Some(told_at) = tally.told_at
            && now < told_at.after(DEAD_EVERY)
        {
            self.rings.at(told_at.after(DEAD_EVERY), Wakes::Lane(config.subscription.lane));
            return;
        }
        let Some(last) = tally.last.take() else { return };
        let count = std::mem::take(&mut tally.untold);
        tally.told_at = Some(now);
        drop(tally);
        let subscription = config.subscription.clone();
        let outlet = self.clone();
        let Some((runtime, _)) = self.driver() else { return };
        runtime.spawn(async move {
            let told = dead_event(&subscription, count, last).event(Subject::Subscription(&subscription), now);
            let written = outlet.store.append(Wait::Applied, move |tx| tx.append_event(&told)).await;
            if let Err(error) = written {
                tracing::error!(error = error.chain(), "delivery/dead could not be written");
            }
            outlet.rings.router();
        });
    }

    /// Disables a subscription and tells of it; its queue is kept. A hook whose receiver is gone goes with its queue:
    /// whoever made it makes another when it is wanted again.
    pub(super) async fn disable(&self, id: SubscriptionId, reason: &'static str) -> Result<()> {
        let clock = self.clock.clone();
        self.store
            .change(move |tx| {
                let now = clock.now();
                let Some(mut subscription) = tx.object_anywhere::<Subscription>(&id.0)? else { return Ok(()) };
                if subscription.halt != Halt::No {
                    return Ok(());
                }
                subscription.halt = Halt::Disabled { since: now, reason: reason.to_owned() };
                subscription.updated_at = now;
                let mark = tx.lane_mark(subscription.lane)?;
                tx.put_lane_mark(subscription.lane, mark.disabled(now))?;
                let what = SystemEvent::SubscriptionDisabled {
                    subscription: (&subscription).into(),
                    reason: reason.to_owned(),
                    failing_since: mark.failing_since,
                    pending: tx.lane_counts(subscription.lane)?.pending,
                };
                if subscription.hook.is_some() && reason == GONE {
                    tx.delete_object(&subscription)?;
                    tx.erase_lane(subscription.lane)?;
                } else {
                    tx.put_object(&subscription)?;
                }
                tx.append_event(&what.event(Subject::Subscription(&subscription), now)).map(drop)
            })
            .await?;
        self.rings.subscriptions_changed();
        Ok(())
    }
}

/// Tells that an endpoint accepts again.
pub(super) fn recovered(tx: &mut Tx<'_>, subscription: &Subscription, since: Millis, now: Millis) -> Result<()> {
    let what = SystemEvent::SubscriptionRecovered {
        subscription: subscription.into(),
        failing_since: since,
        recovered_at: now,
        pending: tx.lane_counts(subscription.lane)?.pending,
    };
    tx.append_event(&what.event(Subject::Subscription(subscription), now)).map(drop)
}

fn dead_event(subscription: &Subscription, count: u64, last: LastDead) -> SystemEvent {
    let message = last.cause.error().map_or("the event was kept no longer", AttemptError::sentence).to_owned();
    let code = last.cause.error().map_or(last.cause.slug(), AttemptError::slug).to_owned();
    SystemEvent::DeliveryDead {
        subscription: subscription.into(),
        count,
        delivery: last.delivery,
        event: last.event,
        topic: last.topic,
        error: system::Fault { code, message },
        attempt_count: last.attempts,
    }
}
