//! How much a lane sends at once, how fast, and when it only probes: window, pace and breaker as one pure state.
//!
//! Always true: the window is between 1 and the subscription's limit; an open breaker lets one attempt out at a time, and
//! only of the delivery that it probes with; a breaker opens only over failures of at least two deliveries, so a lane with
//! a single delivery behaves as its schedule says; any accepted attempt closes it. Not here: which delivery is next, and
//! what becomes of it (`domain::delivery`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::Seq;
use super::time::Millis;

/// Answers this much slower than the best ones do not widen the window: slower still is no reason to send less.
const QUICK_FACTOR: f64 = 2.0;
const QUICK_SLACK_MS: f64 = 50.0;
/// The best answer is forgotten by so much with each answer, so that a receiver may get slower for good.
const BEST_DRIFT: f64 = 1.005;
/// After a recovery the pace doubles each second; from then on it has no limit.
const RAMP: Duration = Duration::from_secs(12);

/// The node's settings of all lanes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The window of a lane that nothing is known of.
    pub window_start: u32,
    /// Failures in a row after which the breaker opens.
    pub breaker_failures: u32,
    /// Deliveries per second when an endpoint has just come back.
    pub recovery_per_second: u32,
    /// An endpoint with nothing but failures for so long is disabled.
    pub disable_after: Duration,
}

/// What is remembered of a lane over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The first failure since the last success.
    pub failing_since: Option<Millis>,
    /// From when on failures count towards giving up: the first failure, or the last time it was enabled since.
    pub counted_from: Option<Millis>,
    /// The breaker is open.
    pub open: bool,
    /// The next success is worth telling: the breaker was open, or the subscription disabled.
    pub tells: bool,
}

impl Mark {
    /// As it is once the engine has disabled the subscription.
    #[must_use]
    pub fn disabled(self, now: Millis) -> Self {
        Self { failing_since: self.failing_since.or(Some(now)), tells: true, ..self }
    }

    /// As it is once somebody has enabled the subscription again: everything counts anew.
    #[must_use]
    pub fn enabled(self, now: Millis) -> Self {
        Self { counted_from: self.failing_since.map(|_| now), open: false, ..self }
    }
}

/// What an attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Accepted,
    /// Timeouts, connection failures, 429, 5xx: it may have too much to do.
    Overloaded,
    /// It refuses for another reason.
    Refused,
}

/// One attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub delivery: Seq,
    pub began: Millis,
    pub duration_ms: u32,
    pub sign: Sign,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Breaker {
    Closed,
    /// None: a probe is to be chosen.
    Open {
        probe: Option<Seq>,
    },
    /// The endpoint is back: the pace grows.
    Recovering {
        since: Millis,
    },
}

/// A lane's state.
#[derive(Clone, Debug)]
pub struct Flow {
    limits: Limits,
    window: f64,
    window_max: u32,
    /// Until the first halving the window doubles with each round trip.
    doubling: bool,
    best_ms: f64,
    halved_at: Millis,
    failures: u32,
    /// The one delivery that failed in this row of failures, while it is only one.
    failed_one: Option<Seq>,
    failed_more: bool,
    mark: Mark,
    breaker: Breaker,
    ramp: Bucket,
    rate: Option<Bucket>,
}

impl Flow {
    /// A lane as it was marked.
    pub fn new(limits: Limits, mark: Mark) -> Self {
        Self {
            limits,
            window: f64::from(limits.window_start.max(1)),
            window_max: u32::MAX,
            doubling: true,
            best_ms: f64::MAX,
            halved_at: Millis(0),
            failures: 0,
            failed_one: None,
            failed_more: false,
            mark,
            breaker: if mark.open { Breaker::Open { probe: None } } else { Breaker::Closed },
            ramp: Bucket::new(1.0, Millis(0)),
            rate: None,
        }
    }

    /// Obeys the subscription's own limits: attempts at once, and deliveries per second.
    pub fn obey(&mut self, window_max: u32, per_second: Option<f64>, now: Millis) {
        self.window_max = window_max.max(1);
        if self.rate.as_ref().map(|rate| rate.per_second) != per_second {
            self.rate = per_second.map(|per_second| Bucket::new(per_second, now));
        }
    }

    /// What is to be remembered over a restart.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Attempts that may run at once.
    pub fn window(&self) -> usize {
        match self.breaker {
            Breaker::Open { .. } => 1,
            // Between 1 and u32::MAX.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number below 2^32")]
            _ => (self.window.min(f64::from(self.window_max)) as usize).max(1),
        }
    }

    /// With an open breaker: the delivery that is probed with, `Some(None)` while none is chosen.
    pub fn probe(&self) -> Option<Option<Seq>> {
        match self.breaker {
            Breaker::Open { probe } => Some(probe),
            Breaker::Closed | Breaker::Recovering { .. } => None,
        }
    }

    /// Probes with this delivery from now on, if the breaker is open.
    pub fn probe_with(&mut self, delivery: Seq) {
        if let Breaker::Open { probe } = &mut self.breaker {
            *probe = Some(delivery);
        }
    }

    /// Takes leave to begin an attempt now, or says when to ask again.
    pub fn leave(&mut self, now: Millis) -> Result<(), Millis> {
        if let Breaker::Recovering { since } = self.breaker {
            let running = now.since(since);
            if running >= RAMP {
                self.breaker = Breaker::Closed;
            } else {
                self.ramp.per_second = f64::from(self.limits.recovery_per_second) * running.as_secs_f64().exp2();
                self.ramp.ready(now)?;
            }
        }
        if let Some(rate) = &mut self.rate {
            rate.ready(now)?;
            rate.take();
        }
        if matches!(self.breaker, Breaker::Recovering { .. }) {
            self.ramp.take();
        }
        Ok(())
    }

    /// Whether the endpoint has failed for so long that it is to be disabled.
    pub fn is_given_up(&self, now: Millis) -> bool {
        self.mark.counted_from.is_some_and(|since| now.since(since) >= self.limits.disable_after)
    }

    /// Learns from an attempt that ended `now`. Some: the endpoint is back, and this is since when it had failed.
    pub fn observe(&mut self, seen: Seen, now: Millis) -> Option<Millis> {
        match seen.sign {
            Sign::Accepted => {
                let before = std::mem::take(&mut self.mark);
                self.accepted(seen, now);
                before.failing_since.filter(|_| before.tells)
            }
            Sign::Overloaded | Sign::Refused => {
                self.failed(seen, now);
                None
            }
        }
    }

    fn accepted(&mut self, seen: Seen, now: Millis) {
        (self.failures, self.failed_one, self.failed_more) = (0, None, false);
        if matches!(self.breaker, Breaker::Open { .. }) {
            self.breaker = Breaker::Recovering { since: now };
            self.ramp = Bucket::new(f64::from(self.limits.recovery_per_second), now);
            (self.window, self.doubling) = (1.0, true);
        }
        let took = f64::from(seen.duration_ms);
        self.best_ms = (self.best_ms * BEST_DRIFT).min(took.max(1.0));
        if took <= self.best_ms * QUICK_FACTOR + QUICK_SLACK_MS {
            self.window += if self.doubling { 1.0 } else { 1.0 / self.window };
            self.window = self.window.min(f64::from(self.window_max));
        }
    }

    fn failed(&mut self, seen: Seen, now: Millis) {
        self.mark.failing_since.get_or_insert(now);
        self.mark.counted_from.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
        match self.failed_one {
            None => self.failed_one = Some(seen.delivery),
            Some(one) => self.failed_more |= one != seen.delivery,
        }
        // Attempts that began before the last halving tell of the same trouble.
        if seen.sign == Sign::Overloaded && seen.began >= self.halved_at {
            self.window = (self.window / 2.0).max(1.0);
            (self.doubling, self.halved_at) = (false, now);
        }
        let opens = self.failed_more && self.failures >= self.limits.breaker_failures;
        if opens && !matches!(self.breaker, Breaker::Open { .. }) {
            self.breaker = Breaker::Open { probe: None };
            (self.mark.open, self.mark.tells) = (true, true);
        }
    }
}

/// Tokens that come at a rate; as many as a tenth of a second brings may be saved up, at least one.
#[derive(Clone, Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    at: Millis,
}

impl Bucket {
    fn new(per_second: f64, now: Millis) -> Self {
        Self { per_second, tokens: 1.0, at: now }
    }

    /// Whether there is a token, or when there will be.
    fn ready(&mut self, now: Millis) -> Result<(), Millis> {
        let saved_max = (self.per_second / 10.0).max(1.0);
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * self.per_second).min(saved_max);
        self.at = now.max(self.at);
        if self.tokens >= 1.0 {
            return Ok(());
        }
        let wait = Duration::from_secs_f64(((1.0 - self.tokens) / self.per_second).clamp(0.001, 3600.0));
        Err(now.after(wait.max(Duration::from_millis(1))))
    }

    fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        window_start: 4,
        breaker_failures: 10,
        recovery_per_second: 10,
        disable_after: Duration::from_secs(5 * 24 * 3600),
    };

    fn flow(window_max: u32) -> Flow {
        let mut flow = Flow::new(LIMITS, Mark::default());
        flow.obey(window_max, None, Millis(0));
        flow
    }

    fn seen(delivery: u64, at: u64, sign: Sign) -> (Seen, Millis) {
        (Seen { delivery: Seq(delivery), began: Millis(at), duration_ms: 5, sign }, Millis(at + 5))
    }

    fn tell(flow: &mut Flow, delivery: u64, at: u64, sign: Sign) {
        let (seen, now) = seen(delivery, at, sign);
        flow.observe(seen, now);
    }

    #[test]
    fn the_window_grows_while_answers_are_quick_and_halves_once_per_trouble() {
        let mut flow = flow(64);
        (0..100).for_each(|n| tell(&mut flow, n, n, Sign::Accepted));
        assert_eq!(flow.window(), 64);
        // Eight attempts that were under way together time out: one trouble.
        (0..8).for_each(|n| tell(&mut flow, n, 200, Sign::Overloaded));
        assert_eq!(flow.window(), 32);
        tell(&mut flow, 9, 300, Sign::Overloaded);
        assert_eq!(flow.window(), 16);
        // Now it grows by about one per round trip.
        (0..16).for_each(|n| tell(&mut flow, n, 400, Sign::Accepted));
        assert_eq!(flow.window(), 16);
        tell(&mut flow, 1, 400, Sign::Accepted);
        assert_eq!(flow.window(), 17);
    }

    #[test]
    fn slow_answers_do_not_widen_it_and_refusals_do_not_narrow_it() {
        let mut flow = flow(64);
        tell(&mut flow, 1, 0, Sign::Accepted);
        let slow = Seen { delivery: Seq(2), began: Millis(0), duration_ms: 900, sign: Sign::Accepted };
        (0..50).for_each(|_| assert_eq!(flow.observe(slow, Millis(900)), None));
        assert_eq!(flow.window(), 5);
        tell(&mut flow, 3, 1000, Sign::Refused);
        assert_eq!(flow.window(), 5);
    }

    #[test]
    fn the_breaker_opens_after_ten_failures_in_a_row_of_at_least_two_deliveries() {
        let mut flow = flow(64);
        (0..30).for_each(|n| tell(&mut flow, 7, n, Sign::Overloaded));
        assert_eq!(flow.probe(), None, "a lane with one delivery behaves as its schedule says");
        tell(&mut flow, 8, 40, Sign::Overloaded);
        assert_eq!((flow.probe(), flow.window()), (Some(None), 1));
        flow.probe_with(Seq(7));
        tell(&mut flow, 7, 50, Sign::Overloaded);
        assert_eq!(flow.probe(), Some(Some(Seq(7))));
        assert_eq!(Flow::new(LIMITS, flow.mark()).probe(), Some(None), "it stays open over a restart");
        let (back, now) = seen(7, 60, Sign::Accepted);
        assert_eq!(flow.observe(back, now), Some(Millis(5)), "it is told since when it failed");
        assert_eq!((flow.probe(), flow.mark()), (None, Mark::default()));
        assert_eq!(flow.observe(back, now), None, "once");
    }

    #[test]
    fn an_endpoint_that_is_back_is_drained_at_a_growing_rate() {
        let mut flow = flow(1000);
        (0..20).for_each(|n| tell(&mut flow, n, n, Sign::Refused));
        tell(&mut flow, 1, 100, Sign::Accepted);
        let mut sent = Vec::new();
        let mut now = Millis(105);
        for _ in 0..13 {
            let (until, mut count) = (Millis(now.0 + 1000), 0);
            while now < until {
                match flow.leave(now) {
                    Ok(()) => count += 1,
                    Err(at) => now = at.min(until),
                }
                if count > 200_000 {
                    now = until;
                }
            }
            sent.push(count);
        }
        assert!((5..40).contains(&sent[0]), "{sent:?}");
        assert!(sent[..11].windows(2).all(|w| w[0] < w[1]), "{sent:?}");
        assert!(sent[12] > 200_000, "the pace has no limit in the end: {sent:?}");
    }

    #[test]
    fn deliveries_per_second_are_limited() {
        let mut flow = flow(1000);
        flow.obey(1000, Some(20.0), Millis(0));
        let (mut now, mut count) = (Millis(0), 0);
        while now < Millis(10_000) {
            match flow.leave(now) {
                Ok(()) => count += 1,
                Err(at) => now = at,
            }
        }
        assert!((195..=205).contains(&count), "{count}");
        flow.obey(1000, Some(0.5), now);
        assert!(flow.leave(now).is_ok());
        assert_eq!(flow.leave(now), Err(Millis(now.0 + 2000)));
    }

    #[test]
    fn days_of_nothing_but_failures_give_an_endpoint_up() {
        let mut flow = flow(4);
        let days = |n: u64| n * 24 * 3_600_000;
        tell(&mut flow, 1, 0, Sign::Overloaded);
        tell(&mut flow, 1, days(4), Sign::Overloaded);
        assert!(!flow.is_given_up(Millis(days(4) + 5)));
        assert!(flow.is_given_up(Millis(days(5) + 5)));
        assert!(Flow::new(LIMITS, flow.mark()).is_given_up(Millis(days(5) + 5)), "also over a restart");
        let mut again = Flow::new(LIMITS, flow.mark().disabled(Millis(days(6))).enabled(Millis(days(7))));
        tell(&mut again, 1, days(8), Sign::Overloaded);
        assert!(!again.is_given_up(Millis(days(11))) && again.is_given_up(Millis(days(12))), "enabled, it counts anew");
        tell(&mut flow, 2, days(5), Sign::Accepted);
        assert!(!flow.is_given_up(Millis(days(9))));
    }

    proptest! {
        #[test]
        fn the_window_stays_within_its_limits(max in 1u32..300, signs in proptest::collection::vec(0..3u8, 0..300)) {
            let mut flow = flow(max);
            for (at, sign) in signs.into_iter().enumerate() {
                let sign = [Sign::Accepted, Sign::Overloaded, Sign::Refused][usize::from(sign)];
                tell(&mut flow, at as u64 % 5, at as u64, sign);
                prop_assert!((1..=max as usize).contains(&flow.window()));
                prop_assert!(flow.probe().is_none() || flow.window() == 1);
            }
        }
    }
}
