//! A replay: a job that sends many events to a subscription once more.
//!
//! Always true: what it goes over was fixed when it was made (events that had been routed by then), so it ends; its
//! position and what it has made move together (`store::replays`). Not here: how events are found (`store::selects`), which
//! of them are chosen and when (`actors::replayer`).

use serde::{Deserialize, Serialize};

use super::event::{Event, Payload};
use super::id::{ConnectionId, ReplayId, Seq, SubscriptionId};
use super::time::Millis;
use super::topic::TopicPattern;

/// Deliveries of replays that may stand ready in a lane at the same time: what is made is never far ahead of what the lane
/// sends.
pub const READY_MAX: usize = 100;
/// Deliveries of one replay that may wait for their first attempt, those behind others of their records included.
pub const UNTRIED_MAX: u64 = 5_000;
/// At the given rate, what a tenth of a second brings may be made at once, as in a lane's own pace.
const BURST_PER_SECOND: u64 = 10;

/// Which deliveries are chosen, by what became of the event's newest delivery in the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    Dead,
    Delivered,
    /// Whatever became of it, also if there was never one; only what is still owed comes by itself.
    Any,
}

/// Which events are sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Taken in at or after.
    pub from: Millis,
    /// Taken in before.
    pub to: Millis,
    /// A topic or a pattern.
    pub topic: Option<String>,
    pub wanted: Wanted,
    pub connection: Option<ConnectionId>,
    pub remote_id: Option<String>,
}

impl Selection {
    /// The topics that are meant; None: all.
    pub fn pattern(&self) -> Option<TopicPattern> {
        // It was parsed when the replay was made; a text that is none any more matches what it names outright: nothing.
        self.topic.as_deref().and_then(|text| TopicPattern::restore(text).ok())
    }

    /// Whether the event fits, whatever became of its deliveries. `pattern` is this selection's.
    pub fn takes(&self, pattern: Option<&TopicPattern>, event: &Event) -> bool {
        let of_topic = match (&self.topic, pattern) {
            (None, _) => true,
            (Some(_), pattern) => pattern.is_some_and(|pattern| pattern.matches(&event.topic)),
        };
        let of_record = |wanted: &String| match &event.payload {
            Payload::Record { remote_id, .. } => remote_id == wanted,
            Payload::Plain(_) => false,
        };
        of_topic
            && (self.from..self.to).contains(&event.accepted_at)
            && (self.connection.is_none() || self.connection == event.connection)
            && self.remote_id.as_ref().is_none_or(of_record)
    }
}

/// Where a replay stands. The order of the variants is their stored form: new ones are added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplayState {
    Running,
    Paused,
    /// It makes no more; what it has made and is still owed is being cancelled.
    Cancelling,
    /// Everything chosen was tried at least once.
    Completed {
        at: Millis,
    },
    Cancelled {
        at: Millis,
    },
}

impl ReplayState {
    /// Whether there is still something to do for it.
    pub fn is_live(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Cancelling => true,
            Self::Completed { .. } | Self::Cancelled { .. } => false,
        }
    }

    /// The stable text: `state`, and the metric's label.
    pub fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Completed { .. } => "completed",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

/// How fast a replay may go, over restarts: so many were made since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// In a thousand seconds.
    pub rate_milli: u32,
    since: Millis,
    made: u64,
}

impl Pace {
    /// A pace that begins now.
    pub fn new(rate_milli: u32, now: Millis) -> Self {
        Self { rate_milli: rate_milli.max(1), since: now, made: 0 }
    }

    /// How many may be made now.
    pub fn allowed(&self, now: Millis) -> u64 {
        self.due(now).saturating_sub(self.made).min(self.burst())
    }

    /// When the next one may be made.
    pub fn next_at(&self) -> Millis {
        let wait_ms = (u128::from(self.made) * 1_000_000).div_ceil(u128::from(self.rate_milli));
        Millis(self.since.0.saturating_add(u64::try_from(wait_ms).unwrap_or(u64::MAX)))
    }

    /// So many were made. What could have been made while nothing was is not made up for.
    pub fn take(&mut self, made: u64, now: Millis) {
        if self.due(now).saturating_sub(self.made) > self.burst() {
            (self.since, self.made) = (now, 0);
        }
        self.made = self.made.saturating_add(made);
    }

    /// How many may have been made up to now since the start.
    fn due(&self, now: Millis) -> u64 {
        let elapsed_ms = u128::from(now.0.saturating_sub(self.since.0));
        u64::try_from(1 + elapsed_ms * u128::from(self.rate_milli) / 1_000_000).unwrap_or(u64::MAX)
    }

    fn burst(&self) -> u64 {
        (u64::from(self.rate_milli) / 1000 / BURST_PER_SECOND).max(1)
    }
}

/// The job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Its place among its lane's, too.
    pub id: ReplayId,
    pub subscription: SubscriptionId,
    pub selection: Selection,
    /// None: as fast as the lane goes.
    pub pace: Option<Pace>,
    pub state: ReplayState,
    /// It goes over the log's positions after this one, …
    pub start: Seq,
    /// … up to and with this one.
    pub until: Seq,
    /// Everything up to here was looked at.
    pub cursor: Seq,
    /// Events, or deliveries, looked at.
    pub looked: u64,
    /// Deliveries made.
    pub made: u64,
    /// Events that the subscription's filter could not judge, so that they were left out.
    pub unjudged: u64,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Replay {
    /// Whether everything was looked at.
    pub fn is_through(&self) -> bool {
        self.cursor >= self.until
    }

    /// How much of the log was looked at, in thousandths.
    pub fn progress_milli(&self) -> u64 {
        let (all, done) = (self.until.0.saturating_sub(self.start.0), self.cursor.0.saturating_sub(self.start.0));
        done.min(all).saturating_mul(1000).checked_div(all).unwrap_or(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn after(ms: u64) -> Millis {
        Millis(NOW.0 + ms)
    }

    #[test]
    fn a_pace_lets_so_many_go_in_any_time_and_saves_nothing_up() {
        // Two per second.
        let mut pace = Pace::new(2000, NOW);
        assert_eq!((pace.allowed(NOW), pace.next_at()), (1, NOW));
        pace.take(1, NOW);
        assert_eq!((pace.allowed(after(499)), pace.next_at()), (0, after(500)));
        assert_eq!(pace.allowed(after(500)), 1);
        // A minute in which nothing was made is not made up for.
        assert_eq!(pace.allowed(after(60_000)), 1);
        pace.take(1, after(60_000));
        assert_eq!((pace.allowed(after(60_499)), pace.allowed(after(60_500))), (0, 1));
    }

    #[test]
    fn a_quick_pace_goes_in_small_steps() {
        let mut pace = Pace::new(10_000_000, NOW);
        assert_eq!(pace.allowed(NOW), 1);
        pace.take(1, NOW);
        assert_eq!(pace.allowed(after(50)), 500);
        assert_eq!(pace.allowed(after(5_000)), 1000);
        let mut made = 0;
        for step in 1..=100 {
            let now = after(5_000 + step * 50);
            let allowed = pace.allowed(now);
            pace.take(allowed, now);
            made += allowed;
        }
        assert!((49_000..=51_000).contains(&made), "{made} in five seconds");
    }

    #[test]
    fn a_slow_pace_keeps_its_fractions() {
        let (mut pace, mut made) = (Pace::new(1, NOW), 0);
        for second in 0..5000 {
            let now = after(second * 1000);
            let allowed = pace.allowed(now);
            pace.take(allowed, now);
            made += allowed;
        }
        assert_eq!(made, 5, "one in a thousand seconds");
    }
}
