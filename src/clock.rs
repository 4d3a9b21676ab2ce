//! What time it is, as an argument.
//!
//! Always true: a clock never goes back, also over restarts (the store remembers the highest time it has seen and hands
//! it to [`Clock::raise`]). When the wall clock is set back, this one goes on at half its speed until the wall clock has
//! caught up, so that what is due becomes due. What others compare with their own clocks is [`Clock::wall`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::domain::time::Millis;

/// While ahead of the wall clock: so often the lead is taken back by half of this.
const SLOWED_EVERY_MS: u64 = 1000;

/// A clock to pass around; clones show the same time.
#[derive(Clone)]
pub struct Clock {
    /// The highest time told.
    last_ms: Arc<AtomicU64>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Wall(Arc<Wall>),
    /// Shows the highest time that it was raised to.
    Still,
    /// Follows tokio's clock, which tests can pause and advance.
    Tokio {
        origin: tokio::time::Instant,
        origin_ms: u64,
    },
}

/// The steady clock since a start, and how far our time is from it.
struct Wall {
    origin: Instant,
    offset_ms: AtomicI64,
    /// When a lead was last taken back, on the steady clock.
    slowed_at_ms: AtomicU64,
}

impl Wall {
    /// The time, when the wall clock shows `wall_ms` and the steady one `steady_ms`.
    fn at(&self, wall_ms: u64, steady_ms: u64) -> u64 {
        let behind = signed(wall_ms) - signed(steady_ms);
        let offset = self.offset_ms.fetch_max(behind, Ordering::Relaxed).max(behind);
        let slowed_at = self.slowed_at_ms.load(Ordering::Relaxed);
        let due = steady_ms.saturating_sub(slowed_at) >= SLOWED_EVERY_MS;
        if offset - behind >= signed(SLOWED_EVERY_MS / 2)
            && due
            && self.slowed_at_ms.compare_exchange(slowed_at, steady_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.offset_ms.fetch_sub(signed(SLOWED_EVERY_MS / 2), Ordering::Relaxed);
        }
        u64::try_from(signed(steady_ms) + offset).unwrap_or_default()
    }
}

impl Clock {
    /// The machine's clock, never earlier than `floor`.
    pub fn start(floor: Millis) -> Self {
        let wall = Wall {
            origin: Instant::now(),
            offset_ms: AtomicI64::new(signed(floor.0)),
            slowed_at_ms: AtomicU64::new(0),
        };
        Self { last_ms: Arc::new(AtomicU64::new(floor.0)), source: Source::Wall(Arc::new(wall)) }
    }
    /// A clock that starts at `now` and follows tokio's time, which tests pause and advance.
    pub fn virtual_at(now: Millis) -> Self {
        let origin = tokio::time::Instant::now();
        Self { last_ms: Arc::new(AtomicU64::new(now.0)), source: Source::Tokio { origin, origin_ms: now.0 } }
    }
    /// A clock that stands at `now` until it is raised: for tests of what runs on several threads, which share no time of
    /// tokio's.
    pub fn still(now: Millis) -> Self {
        Self { last_ms: Arc::new(AtomicU64::new(now.0)), source: Source::Still }
    }
    /// Never tells a time before `floor` from now on.
    pub fn raise(&self, floor: Millis) {
        self.last_ms.fetch_max(floor.0, Ordering::Relaxed);
        if let Source::Wall(wall) = &self.source {
            let offset = signed(floor.0) - signed(millis(wall.origin.elapsed()));
            wall.offset_ms.fetch_max(offset, Ordering::Relaxed);
        }
    }
    /// The time, at least as late as any time told before.
    pub fn now(&self) -> Millis {
        let now = match &self.source {
            Source::Wall(wall) => wall.at(wall_ms(), millis(wall.origin.elapsed())),
            Source::Still => 0,
            Source::Tokio { origin, origin_ms } => origin_ms + millis(origin.elapsed()),
        };
        Millis(self.last_ms.fetch_max(now, Ordering::Relaxed).max(now))
    }
    /// What the machine's clock shows now, even if it was set back: for times that others compare with their clocks, such
    /// as the age of a signature. Nothing is stored under it.
    pub fn wall(&self) -> Millis {
        match &self.source {
            Source::Wall(_) => Millis(wall_ms()),
            Source::Still | Source::Tokio { .. } => self.now(),
        }
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
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
        let clock = Clock::start(Millis(0));
        clock.raise(future);
        assert!(clock.now() >= future);
        assert!(clock.wall() < future);
    }

    #[test]
    fn a_clock_that_is_ahead_goes_on_slowly_until_the_wall_clock_has_caught_up() {
        let clock = Clock::start(Millis(0));
        let Source::Wall(wall) = &clock.source else { panic!("a wall clock") };
        let told = |wall_ms: u64, steady_ms: u64| {
            clock.last_ms.fetch_max(wall.at(wall_ms, steady_ms), Ordering::Relaxed);
            clock.last_ms.load(Ordering::Relaxed)
        };
        assert_eq!(told(1_000_000, 0), 1_000_000);
        assert_eq!(told(1_001_000, 1_000), 1_001_000);
        // Set back by 60 seconds: asked ten times a second for 240 seconds.
        let mut before = 1_001_000;
        let mut halfway = 0;
        for tenth in 1..=2_400_u64 {
            let now = told(941_000 + tenth * 100, 1_000 + tenth * 100);
            assert!(now >= before, "it went back from {before} to {now}");
            before = now;
            if tenth == 600 {
                halfway = now;
            }
        }
        assert!((1_030_000..1_033_000).contains(&halfway), "after 60 s it shows {halfway}");
        assert!(before - 1_181_000 < 1_000, "after 240 s it is {} ms ahead", before - 1_181_000);
    }

    #[test]
    fn a_still_clock_moves_when_it_is_raised() {
        let clock = Clock::still(Millis(5));
        assert_eq!((clock.now(), clock.wall()), (Millis(5), Millis(5)));
        clock.raise(Millis(9));
        clock.raise(Millis(7));
        assert_eq!(clock.clone().now(), Millis(9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_follows_tokio() {
        let clock = Clock::virtual_at(Millis(1_000));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), Millis(3_000));
    }
}
