//! What becomes of a delivery after an attempt: states, outcomes, and the one function that joins them.
//!
//! Always true: a state carries exactly its own data; only a due delivery changes; every delivery that keeps failing
//! ends as a dead letter after a bounded number of attempts. The order of stored variants is their stored form: new ones
//! are added at the end. Not here: rows and keys (`store`), window and breaker of a lane (`actors::courier`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::flow::Sign;
use super::id::Seq;
use super::retry::{self, Pace, Schedule};
use super::time::Millis;
use super::trouble::Trouble;

/// How often a `Retry-After` shorter than the schedule's own wait may leave the schedule where it stands. A receiver
/// that says `Retry-After: 1` while it restarts must not use up 75 hours of tries in 10 seconds.
pub const EARLY_MAX: u32 = 10;

/// Where a delivery stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryState {
    /// Waiting for its next attempt.
    Due {
        at: Millis,
        /// Steps of the schedule used up.
        tries: u32,
        /// Attempts made; at least `tries`.
        attempts: u32,
    },
    Delivered {
        at: Millis,
    },
    /// Ended undelivered.
    Dead {
        at: Millis,
        cause: Cause,
    },
    /// Its subscription was deleted, or its backlog skipped.
    Cancelled {
        at: Millis,
    },
    /// Collapsed into a later one of the same record.
    Superseded {
        at: Millis,
        by: Seq,
    },
    /// Its event was erased before it was delivered.
    Erased {
        at: Millis,
    },
}

impl DeliveryState {
    /// A fresh delivery, due after the schedule's first wait. That one has no jitter: it is usually none at all.
    pub fn fresh(now: Millis, schedule: &Schedule) -> Self {
        Self::Due { at: now.after(schedule.wait(0).unwrap_or_default()), tries: 0, attempts: 0 }
    }
}

/// Why a delivery is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The last try of the schedule failed.
    Exhausted(AttemptError),
    /// The destination will never take it.
    Rejected(AttemptError),
    /// It outlived the retention of its event.
    Expired,
}

impl Cause {
    /// The stable text: the metric label `cause`.
    pub fn slug(self) -> &'static str {
        match self {
            Cause::Exhausted(_) => "exhausted",
            Cause::Rejected(_) => "rejected",
            Cause::Expired => "expired",
        }
    }
    /// What the last attempt failed of, if an attempt was the reason.
    pub fn error(self) -> Option<AttemptError> {
        match self {
            Cause::Exhausted(error) | Cause::Rejected(error) => Some(error),
            Cause::Expired => None,
        }
    }
}

/// Why an attempt was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttemptError {
    /// There was no answer.
    Exchange(Failure),
    /// 3xx: redirects are not followed.
    Redirect,
    /// 410.
    Gone,
    /// 429.
    RateLimited,
    /// Any other 4xx.
    Client,
    /// 5xx.
    Server,
    /// The subscription's filter could not judge the event; nothing was sent.
    Filter,
    /// A destination that is no HTTP endpoint has something against it.
    Destination(Trouble),
}

impl AttemptError {
    /// Those that are not about the exchange itself.
    const ANSWERS: [Self; 6] =
        [Self::Redirect, Self::Gone, Self::RateLimited, Self::Client, Self::Server, Self::Filter];

    /// All of them, for the docs and the checks.
    pub fn all() -> impl Iterator<Item = Self> {
        let exchange = Failure::ALL.iter().copied().map(Self::Exchange);
        exchange.chain(Self::ANSWERS).chain(Trouble::ALL.iter().copied().map(Self::Destination))
    }
    /// The stable text: `lastError.code`.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Exchange(failure) => failure.slug(),
            Self::Redirect => "redirect-refused",
            Self::Gone => "gone",
            Self::RateLimited => "rate-limited",
            Self::Client => "http-4xx",
            Self::Server => "http-5xx",
            Self::Filter => "filter-failed",
            Self::Destination(trouble) => trouble.slug(),
        }
    }
    /// One sentence for a person: `lastError.message`.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Exchange(failure) => failure.sentence(),
            Self::Redirect => "the receiver answered with a redirect, and redirects are not followed",
            Self::Gone => "the receiver answered 410 Gone, so the subscription was disabled",
            Self::RateLimited => "the receiver answered 429 Too Many Requests",
            Self::Client => "the receiver answered with a 4xx status",
            Self::Server => "the receiver answered with a 5xx status",
            Self::Filter => "the subscription's filter could not judge the event, so it was not sent",
            Self::Destination(trouble) => trouble.sentence(),
        }
    }
    /// Whether the receiver may be overloaded, so that the lane should send less at once.
    pub fn is_overload(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Server
                | Self::Destination(
                    Trouble::Throttled | Trouble::Busy | Trouble::Restarting | Trouble::Full | Trouble::QuotaExceeded
                )
                | Self::Exchange(
                    Failure::ConnectTimeout
                        | Failure::ResponseTimeout
                        | Failure::ConnectFailed
                        | Failure::ConnectionClosed
                        | Failure::ProxyUnreachable
                        | Failure::ProxyRefused
                        | Failure::ProxyFailed
                )
        )
    }
}

/// One try of a delivery, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: Millis,
    /// How long the whole exchange took.
    pub duration_ms: u32,
    /// None: there was no answer.
    pub status: Option<u16>,
    /// None: accepted.
    pub error: Option<AttemptError>,
    /// The beginning of the answer's body; empty if the attempt was accepted.
    pub answer: String,
    /// The answer was longer than what is read of it (`body-cut`).
    pub body_cut: bool,
}

/// The beginning of an answer's body as text, at most `max` bytes; what is not UTF-8 becomes `U+FFFD`.
pub fn kept_answer(body: &[u8], max: usize) -> String {
    let mut text = String::from_utf8_lossy(body.get(..max).unwrap_or(body)).into_owned();
    text.truncate(text.floor_char_boundary(max));
    text
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken; the only success.
    Accepted,
    /// Try again by the schedule.
    Refused(AttemptError),
    /// Try again after the time the receiver named.
    Later(AttemptError, Duration),
    /// 410: nobody will ever be there.
    Gone,
    /// The destination will never take this delivery.
    Rejected(AttemptError),
}

impl Outcome {
    /// What an HTTP answer means. `retry_after` is the header's text.
    pub fn of_answer(status: u16, retry_after: Option<&str>, now: Millis) -> Self {
        let error = match status {
            200..=299 => return Self::Accepted,
            410 => return Self::Gone,
            300..=399 => AttemptError::Redirect,
            429 => AttemptError::RateLimited,
            400..=499 => AttemptError::Client,
            500..=599 => AttemptError::Server,
            _ => AttemptError::Exchange(Failure::BadAnswer),
        };
        match retry_after.and_then(|text| retry::parse_retry_after(text, now)) {
            Some(wait) if matches!(status, 429 | 503) => Self::Later(error, wait),
            _ => Self::Refused(error),
        }
    }
    /// What is recorded of it; None if it was accepted.
    pub fn error(self) -> Option<AttemptError> {
        match self {
            Self::Accepted => None,
            Self::Gone => Some(AttemptError::Gone),
            Self::Refused(error) | Self::Later(error, _) | Self::Rejected(error) => Some(error),
        }
    }
    /// The stable text: the metric label `outcome`.
    pub fn slug(self) -> &'static str {
        self.error().map_or("accepted", AttemptError::slug)
    }
    /// What it says about the endpoint; None if nothing: it is gone, or this delivery alone is refused.
    pub fn sign(self) -> Option<Sign> {
        match self {
            Self::Accepted => Some(Sign::Accepted),
            Self::Gone | Self::Rejected(_) => None,
            Self::Refused(error) | Self::Later(error, _) if error.is_overload() => Some(Sign::Overloaded),
            Self::Refused(_) | Self::Later(..) => Some(Sign::Refused),
        }
    }
}

/// What an attempt says about its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneSignal {
    Healthy,
    Failing,
    /// Send nothing before then.
    SlowUntil(Millis),
    /// Disable the subscription and keep its queue.
    Disable,
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub state: DeliveryState,
    pub lane: LaneSignal,
}

/// Joins a delivery's state with the outcome of the attempt that ended `now`. A delivery that is no longer due (it was
/// cancelled while the attempt was under way) stays as it is.
pub fn settle(state: DeliveryState, outcome: Outcome, pace: &Pace, now: Millis, rng: &mut fastrand::Rng) -> Settled {
    let DeliveryState::Due { at, tries, attempts } = state else {
        let lane = if outcome == Outcome::Accepted { LaneSignal::Healthy } else { LaneSignal::Failing };
        return Settled { state, lane };
    };
    let attempts = attempts.saturating_add(1);
    let early = attempts.saturating_sub(tries.saturating_add(1));
    let next = pace.schedule.wait(tries.saturating_add(1));
    let dead = |cause| DeliveryState::Dead { at: now, cause };
    let due = |wait, tries| DeliveryState::Due { at: now.after(wait), tries, attempts };
    match outcome {
        Outcome::Accepted => Settled { state: DeliveryState::Delivered { at: now }, lane: LaneSignal::Healthy },
        // The queue is kept: this one too, without using up a try, for when the subscription is enabled again.
        Outcome::Gone => Settled { state: DeliveryState::Due { at, tries, attempts }, lane: LaneSignal::Disable },
        Outcome::Rejected(error) => Settled { state: dead(Cause::Rejected(error)), lane: LaneSignal::Healthy },
        Outcome::Refused(error) => Settled {
            state: match next {
                Some(wait) => due(pace.jittered(wait, rng), tries + 1),
                None => dead(Cause::Exhausted(error)),
            },
            lane: LaneSignal::Failing,
        },
        Outcome::Later(error, wait) => {
            let told = pace.told(wait, rng);
            let state = match next {
                Some(own) if told < own && early < EARLY_MAX => due(told, tries),
                Some(own) if told < own => due(pace.jittered(own, rng).max(told), tries + 1),
                Some(_) => due(told, tries + 1),
                None => dead(Cause::Exhausted(error)),
            };
            Settled { state, lane: LaneSignal::SlowUntil(now.after(told)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn due(tries: u32) -> DeliveryState {
        DeliveryState::Due { at: NOW, tries, attempts: tries }
    }
    fn after(state: DeliveryState, outcome: Outcome) -> Settled {
        settle(state, outcome, &Pace::default(), NOW, &mut fastrand::Rng::with_seed(7))
    }
    fn wait_of(settled: &Settled) -> Duration {
        match settled.state {
            DeliveryState::Due { at, .. } => at.since(NOW),
            ref other => panic!("not due: {other:?}"),
        }
    }

    #[test]
    fn only_a_2xx_is_success() {
        for status in [200, 201, 204, 299] {
            assert_eq!(Outcome::of_answer(status, None, NOW), Outcome::Accepted);
        }
        for (status, error) in [
            (301, AttemptError::Redirect),
            (304, AttemptError::Redirect),
            (400, AttemptError::Client),
            (429, AttemptError::RateLimited),
            (500, AttemptError::Server),
            (503, AttemptError::Server),
            (999, AttemptError::Exchange(Failure::BadAnswer)),
        ] {
            assert_eq!(Outcome::of_answer(status, None, NOW), Outcome::Refused(error), "{status}");
        }
        assert_eq!(Outcome::of_answer(410, Some("5"), NOW), Outcome::Gone);
    }

    #[test]
    fn retry_after_counts_for_429_and_503_only() {
        let wait = Duration::from_secs(7);
        assert_eq!(Outcome::of_answer(429, Some("7"), NOW), Outcome::Later(AttemptError::RateLimited, wait));
        assert_eq!(Outcome::of_answer(503, Some("7"), NOW), Outcome::Later(AttemptError::Server, wait));
        assert_eq!(Outcome::of_answer(500, Some("7"), NOW), Outcome::Refused(AttemptError::Server));
        assert_eq!(Outcome::of_answer(503, Some("soon"), NOW), Outcome::Refused(AttemptError::Server));
    }

    #[test]
    fn the_waits_are_those_of_the_schedule() {
        for (tries, seconds) in [(0, 5.0), (1, 300.0), (2, 1_800.0), (8, 86_400.0)] {
            let settled = after(due(tries), Outcome::Refused(AttemptError::Server));
            let wait = wait_of(&settled).as_secs_f64();
            assert!((seconds * 0.8..=seconds * 1.2).contains(&wait), "{tries}: {wait}");
            assert_eq!(settled.lane, LaneSignal::Failing);
        }
    }

    #[test]
    fn the_last_failure_makes_a_dead_letter_with_its_cause() {
        let settled = after(due(9), Outcome::Refused(AttemptError::Server));
        let cause = Cause::Exhausted(AttemptError::Server);
        assert_eq!(settled.state, DeliveryState::Dead { at: NOW, cause });
    }

    #[test]
    fn a_410_disables_the_lane_and_keeps_the_delivery() {
        let settled = after(due(3), Outcome::Gone);
        assert_eq!(settled.lane, LaneSignal::Disable);
        assert_eq!(settled.state, DeliveryState::Due { at: NOW, tries: 3, attempts: 4 });
    }

    #[test]
    fn a_retry_after_is_never_shortened_and_slows_the_lane() {
        let settled = after(due(0), Outcome::Later(AttemptError::RateLimited, Duration::from_secs(60)));
        let wait = wait_of(&settled);
        assert!(wait >= Duration::from_secs(60) && wait <= Duration::from_secs(72), "{wait:?}");
        assert_eq!(settled.lane, LaneSignal::SlowUntil(NOW.after(wait)));
        let long = after(due(0), Outcome::Later(AttemptError::Server, Duration::from_secs(999_999)));
        assert_eq!(wait_of(&long), Pace::default().retry_after_max);
    }

    #[test]
    fn a_short_retry_after_does_not_use_up_the_schedule_at_once() {
        let pace = Pace::default();
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut state, mut now, mut attempts) = (due(0), NOW, 0);
        while let DeliveryState::Due { at, .. } = state {
            now = now.max(at);
            attempts += 1;
            let outcome = Outcome::Later(AttemptError::Server, Duration::from_secs(1));
            state = settle(state, outcome, &pace, now, &mut rng).state;
        }
        assert_eq!(attempts, 10 + EARLY_MAX);
        assert!(now.since(NOW) > Duration::from_secs(50 * 3600), "{:?}", now.since(NOW));
    }

    #[test]
    fn a_cancelled_delivery_stays_cancelled() {
        let state = DeliveryState::Cancelled { at: NOW };
        assert_eq!(after(state.clone(), Outcome::Accepted).state, state);
        assert_eq!(after(state.clone(), Outcome::Refused(AttemptError::Client)).state, state);
    }

    #[test]
    fn what_is_kept_of_an_answer_is_bounded_and_is_text() {
        assert_eq!(kept_answer(b"no", 4096), "no");
        assert_eq!(kept_answer(&[b'a'; 10_000], 4096).len(), 4096);
        assert!(kept_answer(&[0xff; 10_000], 4096).len() <= 4096);
        assert!(kept_answer("é".repeat(5_000).as_bytes(), 4095).len() <= 4095);
    }

    #[test]
    fn slugs_are_unique() {
        let slugs: std::collections::HashSet<_> = AttemptError::all().map(AttemptError::slug).collect();
        assert_eq!(slugs.len(), AttemptError::all().count());
    }

    #[test]
    fn stored_forms_stay() {
        let attempt = Attempt {
            at: Millis(1),
            duration_ms: 2,
            status: Some(503),
            error: Some(AttemptError::Server),
            answer: "x".into(),
            body_cut: true,
        };
        let bytes = postcard::to_allocvec(&attempt).expect("stored");
        assert_eq!(hex::encode(&bytes), "010201f7030105017801");
        assert_eq!(postcard::from_bytes::<Attempt>(&bytes), Ok(attempt));
        let state =
            DeliveryState::Dead { at: Millis(1), cause: Cause::Exhausted(AttemptError::Exchange(Failure::DnsFailed)) };
        assert_eq!(hex::encode(postcard::to_allocvec(&state).expect("stored")), "0201000000");
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Refused(AttemptError::Server)),
            Just(Outcome::Refused(AttemptError::Exchange(Failure::ResponseTimeout))),
            (0u64..200_000).prop_map(|s| Outcome::Later(AttemptError::RateLimited, Duration::from_secs(s))),
        ]
    }

    proptest! {
        #[test]
        fn every_delivery_that_keeps_failing_ends_and_never_goes_back_in_time(
            outcomes in prop::collection::vec(any_outcome(), 80),
            steps in prop::collection::vec(0u32..90_000, 1..20),
            seed: u64,
        ) {
            let schedule = Schedule::new(steps).expect("within limits");
            let pace = Pace { schedule, ..Pace::default() };
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut state = DeliveryState::fresh(NOW, &pace.schedule);
            let (mut now, mut made) = (NOW, 0u32);
            for outcome in outcomes {
                let DeliveryState::Due { at, tries, attempts } = state else { break };
                prop_assert!(at >= now && attempts == made && tries <= attempts);
                now = at;
                made += 1;
                state = settle(state, outcome, &pace, now, &mut rng).state;
                if let (DeliveryState::Due { at, .. }, Outcome::Later(_, wait)) = (&state, outcome) {
                    prop_assert!(at.since(now) >= wait.min(pace.retry_after_max).saturating_sub(Duration::from_millis(1)));
                }
            }
            let ended = matches!(state, DeliveryState::Dead { .. });
            prop_assert!(ended, "still {state:?} after {made} attempts");
            prop_assert!(made as usize <= pace.schedule.seconds().len() + EARLY_MAX as usize);
        }
    }
}
