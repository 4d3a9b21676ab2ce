//! When to look: jittered intervals, back-off after failures, and whether a pull or a scan is due.
//!
//! Always true: what the app tells us to wait is waited, never less; a failure never makes a connection look more often
//! than its back-off.

use std::time::Duration;

use crate::domain::connection::CollectionState;
use crate::domain::time::Millis;

/// Failures in a row after which `poller/stalled` is told.
pub const STALLED_AFTER: u32 = 5;
/// The wait after a first failure; it doubles with each further one.
const BACK_OFF_START: Duration = Duration::from_secs(10);
/// The longest wait that an app can impose.
const TOLD_MAX: Duration = Duration::from_secs(24 * 3600);

/// The node's settings about waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// How far an interval is moved, either way.
    pub jitter_percent: u8,
    /// The longest back-off.
    pub back_off_max: Duration,
}

impl Waits {
    /// An interval from now, moved by up to the jitter either way.
    pub fn next(&self, now: Millis, interval: Duration, rng: &mut fastrand::Rng) -> Millis {
        let jitter = self.jitter();
        now.after(interval.mul_f64(1.0 - jitter + 2.0 * jitter * rng.f64()))
    }
    /// When to try again after so many failures in a row (from 1), and what the app told us to wait. Moved only upwards.
    pub fn retry(&self, now: Millis, failures: u32, told: Option<Duration>, rng: &mut fastrand::Rng) -> Millis {
        let doublings = failures.saturating_sub(1).min(20);
        let own = BACK_OFF_START.saturating_mul(1 << doublings).min(self.back_off_max);
        let wait = told.map_or(own, |told| told.min(TOLD_MAX).max(Duration::from_secs(1)));
        now.after(wait.mul_f64(1.0 + self.jitter() * rng.f64()))
    }
    fn jitter(&self) -> f64 {
        f64::from(self.jitter_percent.min(50)) / 100.0
    }
}

/// What a collection is looked at by. None: not that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Between two pulls of changed records.
    pub pull: Option<Duration>,
    /// Between two walks over all records.
    pub scan: Option<Duration>,
}

/// One thing to do for a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Pull,
    Scan,
}

impl Plan {
    /// What is due now, if anything. The first sync is a pull where the app has a list of changes, since a pull can go on
    /// after a failure; a scan waits for it.
    pub fn due(&self, state: &CollectionState, now: Millis) -> Option<Task> {
        let passed = |at: Option<Millis>| at.is_none_or(|at| at <= now);
        if self.pull.is_some() && passed(state.next_pull_at) {
            return Some(Task::Pull);
        }
        (self.scans(state) && passed(state.next_scan_at)).then_some(Task::Scan)
    }
    /// When the next thing is due; None: never.
    pub fn next(&self, state: &CollectionState) -> Option<Millis> {
        let pull = self.pull.map(|_| state.next_pull_at.unwrap_or_default());
        let scan = self.scans(state).then(|| state.next_scan_at.unwrap_or_default());
        pull.into_iter().chain(scan).min()
    }
    fn scans(&self, state: &CollectionState) -> bool {
        self.scan.is_some() && (self.pull.is_none() || state.baseline_at.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits { jitter_percent: 10, back_off_max: Duration::from_secs(3600) };
    const BOTH: Plan = Plan { pull: Some(Duration::from_secs(300)), scan: Some(Duration::from_secs(86_400)) };

    #[test]
    fn the_back_off_doubles_up_to_its_limit() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut wait = |failures| WAITS.retry(Millis(0), failures, None, &mut rng).0 / 1000;
        for (failures, seconds) in [(1, 10), (2, 20), (3, 40), (9, 2_560), (10, 3_600), (1_000, 3_600)] {
            let waited = wait(failures);
            assert!(waited >= seconds && waited <= seconds * 11 / 10, "{failures}: {waited}");
        }
    }

    #[test]
    fn what_the_app_tells_is_waited_and_never_less() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let at = WAITS.retry(Millis(0), 7, Some(Duration::from_secs(120)), &mut rng);
            assert!((120_000..=132_000).contains(&at.0), "{at:?}");
        }
        let at = WAITS.retry(Millis(0), 1, Some(Duration::MAX), &mut rng);
        assert!(at.0 <= 27 * 3_600_000);
    }

    #[test]
    fn intervals_are_spread() {
        let mut rng = fastrand::Rng::with_seed(1);
        let times: Vec<u64> = (0..100).map(|_| WAITS.next(Millis(0), Duration::from_secs(100), &mut rng).0).collect();
        assert!(times.iter().all(|t| (90_000..=110_000).contains(t)));
        assert!(times.iter().any(|t| *t < 95_000) && times.iter().any(|t| *t > 105_000));
    }

    #[test]
    fn a_scan_waits_for_the_first_sync() {
        let mut state = CollectionState::default();
        assert_eq!(BOTH.due(&state, Millis(5)), Some(Task::Pull));
        state.next_pull_at = Some(Millis(10));
        assert_eq!(BOTH.due(&state, Millis(5)), None, "the first pull failed and is tried again at 10");
        assert_eq!(BOTH.next(&state), Some(Millis(10)));
        state.baseline_at = Some(Millis(5));
        state.next_scan_at = Some(Millis(8));
        assert_eq!(BOTH.due(&state, Millis(5)), None);
        assert_eq!(BOTH.next(&state), Some(Millis(8)));
        assert_eq!(BOTH.due(&state, Millis(8)), Some(Task::Scan));
        assert_eq!(BOTH.due(&state, Millis(10)), Some(Task::Pull));
    }

    #[test]
    fn a_collection_without_a_list_of_changes_is_scanned() {
        let plan = Plan { pull: None, ..BOTH };
        assert_eq!(plan.due(&CollectionState::default(), Millis(0)), Some(Task::Scan));
        let nothing = Plan { pull: None, scan: None };
        assert_eq!(nothing.due(&CollectionState::default(), Millis(0)), None);
        assert_eq!(nothing.next(&CollectionState::default()), None);
    }
}
