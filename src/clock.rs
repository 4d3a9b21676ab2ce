//! What time it is, as an argument.
//!
//! Always true: a clock never goes back, also over restarts (the store remembers the highest time it has seen and hands
//! it to [`Clock::start`]). A wall clock that is set back stands still here until it has caught up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use crate::domain::time::Millis;

/// A clock to pass around; clones show the same time.
#[derive(Clone)]
pub struct Clock {
    last_ms: Arc<AtomicU64>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Wall,
    /// Follows tokio's clock, which tests can pause and advance.
    Tokio {
        origin: tokio::time::Instant,
        origin_ms: u64,
    },
}

impl Clock {
    /// The machine's clock, never earlier than `floor`.
    pub fn start(floor: Millis) -> Self {
        Self { last_ms: Arc::new(AtomicU64::new(floor.0)), source: Source::Wall }
    }
    /// A clock that starts at `now` and follows tokio's time, which tests pause and advance.
    pub fn virtual_at(now: Millis) -> Self {
        let origin = tokio::time::Instant::now();
        Self { last_ms: Arc::new(AtomicU64::new(now.0)), source: Source::Tokio { origin, origin_ms: now.0 } }
    }
    /// Never tells a time before `floor` from now on.
    pub fn raise(&self, floor: Millis) {
        self.last_ms.fetch_max(floor.0, Ordering::Relaxed);
    }
    /// The time, at least as late as any time told before.
    pub fn now(&self) -> Millis {
        let now = match &self.source {
            Source::Wall => wall_ms(),
            Source::Tokio { origin, origin_ms } => origin_ms + millis(origin.elapsed()),
        };
        Millis(self.last_ms.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that asks the machine")]
fn wall_ms() -> u64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_does_not_go_back_over_a_restart() {
        let future = Millis(wall_ms() + 3_600_000);
        let clock = Clock::start(future);
        assert_eq!(clock.now(), future);
    }

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_follows_tokio() {
        let clock = Clock::virtual_at(Millis(1_000));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), Millis(3_000));
    }
}
