//! A walk over all records of a list that shows only so many: cut into stretches of time until each is short enough.
//!
//! Always true: it is complete only when every stretch was shown whole; the stretches touch each other, the first has no
//! lower bound and the last no upper one; the number of pages is bounded over all of them. Not here: asking.
//!
//! A record that changes meanwhile moves to a later stretch, and those are read later: it is shown twice at most.

use super::scan::{Scan, ScanStep};
use super::{Query, SamePage};
use crate::domain::time::Millis;

/// Stretches that wait.
const WAITING_MAX: usize = 64;
/// How far beyond our own time the last stretch is thought to reach, since the app's clock may be ahead.
const AHEAD_MS: u64 = 24 * 3_600_000;

/// How a list is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Past this many records the list goes no further.
    pub ceiling: u64,
    /// How fine the app's times are, in milliseconds; not 0.
    pub tick: u64,
    pub now: Millis,
}

/// What follows from a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowStep {
    /// Ask for the page that this one named.
    Page,
    /// Ask [`Windows::query`] from its first page.
    Query,
    /// All was shown.
    Complete,
    /// The walk is over, but may have missed records.
    Incomplete,
}

/// See the module.
#[derive(Debug)]
pub struct Windows {
    cut: Option<Cut>,
    /// The stretch at hand; both ends are in it.
    window: (Option<Millis>, Option<Millis>),
    /// Those that wait, the oldest last.
    waiting: Vec<(Option<Millis>, Option<Millis>)>,
    scan: Scan,
    pages: u32,
    pages_max: u32,
    ids_max: usize,
    ids: Vec<[u8; 16]>,
}

impl Windows {
    /// A walk of at most so many pages that remembers at most so many ids.
    pub fn new(cut: Option<Cut>, pages_max: u32, ids_max: usize) -> Self {
        let scan = Scan::new(pages_max, ids_max);
        Self { cut, window: (None, None), waiting: Vec::new(), scan, pages: 0, pages_max, ids_max, ids: Vec::new() }
    }
    /// The stretch whose pages come next.
    pub fn query(&self) -> Query {
        Query { since: self.window.0.map(|time| (time, None)), until: self.window.1, ties: false }
    }
    /// Takes a page in, by the 16-byte ids of what the list showed.
    ///
    /// # Errors
    /// The app gives the same page for ever.
    pub fn page(&mut self, ids: &[[u8; 16]], has_next: bool, total: Option<u64>) -> Result<WindowStep, SamePage> {
        self.pages += 1;
        let step = self.scan.page(ids, has_next, total)?;
        let too_long = self.cut.is_some_and(|cut| {
            let promised = self.scan.total().is_some_and(|total| total > cut.ceiling);
            promised || (step == ScanStep::Page && self.scan.items() >= cut.ceiling)
        });
        let next = match step {
            _ if too_long && !self.split() => WindowStep::Incomplete,
            _ if too_long => WindowStep::Query,
            ScanStep::Page => WindowStep::Page,
            ScanStep::Again => WindowStep::Query,
            ScanStep::Incomplete => WindowStep::Incomplete,
            ScanStep::Complete => self.next_window(),
        };
        let goes_on = matches!(next, WindowStep::Page | WindowStep::Query);
        Ok(if goes_on && self.pages >= self.pages_max { WindowStep::Incomplete } else { next })
    }
    /// The ids that were shown, sorted, each once; of use after [`WindowStep::Complete`].
    pub fn into_ids(self) -> Vec<[u8; 16]> {
        self.ids
    }
    fn fresh(&self) -> Scan {
        Scan::new(self.pages_max.saturating_sub(self.pages).max(1), self.ids_max.saturating_sub(self.ids.len()))
    }
    fn next_window(&mut self) -> WindowStep {
        let next = self.fresh();
        self.ids.extend(std::mem::replace(&mut self.scan, next).into_ids());
        match self.waiting.pop() {
            Some(window) => {
                self.window = window;
                // Without what this stretch has taken.
                self.scan = self.fresh();
                WindowStep::Query
            }
            None => {
                self.ids.sort_unstable();
                self.ids.dedup();
                WindowStep::Complete
            }
        }
    }
    /// Halves the stretch at hand. False: it cannot be halved.
    fn split(&mut self) -> bool {
        let Some(cut) = self.cut else { return false };
        let floor = |time: Millis| Millis(time.0 - time.0 % cut.tick.max(1));
        let low = self.window.0.unwrap_or_default();
        let high = self.window.1.unwrap_or(Millis(cut.now.max(low).0.saturating_add(AHEAD_MS)));
        if self.waiting.len() >= WAITING_MAX || floor(low) == floor(high) {
            return false;
        }
        // The middle is the end of a tick, so that no tick is in both halves, and none is left out.
        let middle = floor(Millis(low.0 + (high.0 - low.0) / 2)).0.saturating_add(cut.tick - 1);
        let middle = if middle >= high.0 { floor(high).0 - 1 } else { middle };
        self.waiting.push((Some(Millis(middle + 1)), self.window.1));
        self.window.1 = Some(Millis(middle));
        self.scan = self.fresh();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a list of (id, time) that shows at most `ceiling` places, in pages of 3; answers what was shown.
    fn walk(records: &[(u8, u64)], ceiling: usize, tells_total: bool) -> Option<Vec<[u8; 16]>> {
        let cut = Cut { ceiling: ceiling as u64, tick: 10, now: Millis(2_000) };
        let mut windows = Windows::new(Some(cut), 10_000, 1_000);
        let mut offset = 0;
        loop {
            let query = windows.query();
            let low = query.since.map_or(0, |(time, _)| time.0);
            let high = query.until.map_or(u64::MAX, |time| time.0);
            let fits = records.iter().filter(|(_, time)| (low..=high).contains(time));
            let all: Vec<[u8; 16]> = fits.map(|(id, _)| [*id; 16]).collect();
            assert!(offset < ceiling, "asked beyond the ceiling");
            let page: Vec<[u8; 16]> = all.iter().skip(offset).take(3.min(ceiling - offset)).copied().collect();
            let has_next = offset + page.len() < all.len();
            let total = tells_total.then_some(all.len() as u64);
            match windows.page(&page, has_next, total).unwrap() {
                WindowStep::Page => offset += page.len(),
                WindowStep::Query => offset = 0,
                WindowStep::Complete => return Some(windows.into_ids()),
                WindowStep::Incomplete => return None,
            }
        }
    }

    #[test]
    fn a_list_with_a_ceiling_is_shown_whole_in_stretches() {
        let records: Vec<(u8, u64)> = (0..100).map(|n| (n, u64::from(n) * 17)).collect();
        let all: Vec<[u8; 16]> = (0..100).map(|n| [n; 16]).collect();
        for tells_total in [true, false] {
            assert_eq!(walk(&records, 9, tells_total), Some(all.clone()));
            assert_eq!(walk(&records, 1_000, tells_total), Some(all.clone()), "no stretch is needed");
        }
        assert_eq!(walk(&[], 9, true), Some(Vec::new()));
    }

    #[test]
    fn more_in_one_tick_than_the_list_shows_is_incomplete() {
        let records: Vec<(u8, u64)> = (0..20).map(|n| (n, 500 + u64::from(n % 10))).collect();
        assert_eq!(walk(&records, 9, true), None);
        assert_eq!(walk(&records, 9, false), None);
    }

    #[test]
    fn without_a_ceiling_it_is_one_scan() {
        let mut windows = Windows::new(None, 2, 100);
        assert_eq!(windows.query(), Query::default());
        assert_eq!(windows.page(&[[1; 16]], true, None), Ok(WindowStep::Page));
        assert_eq!(windows.page(&[[2; 16]], true, None), Ok(WindowStep::Incomplete), "two pages are all it may take");
    }
}
