//! A walk over all records of a collection, to compare ids with the snapshot.
//!
//! Always true: only a scan that ended by itself and was shown whole is complete; nothing may be deleted after any other.

use super::SamePage;
use super::chain::{Chain, Judgement, Turn};

/// A scan under way.
#[derive(Debug)]
pub struct Scan {
    chain: Chain,
    pages: u32,
    pages_max: u32,
}

/// What follows from a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanStep {
    /// Ask for the page that this one named.
    Page,
    /// Records changed places between pages: walk the list again from its start.
    Again,
    /// The whole list was shown.
    Complete,
    /// The walk is over, but may have missed records.
    Incomplete,
}

impl Scan {
    /// A scan of at most so many pages that remembers at most so many ids.
    pub fn new(pages_max: u32, ids_max: usize) -> Self {
        Self { chain: Chain::new(ids_max), pages: 0, pages_max }
    }
    /// Takes a page in, by the 16-byte ids of its records.
    ///
    /// # Errors
    /// The app gives the same page for ever.
    pub fn page(&mut self, ids: &[[u8; 16]], has_next: bool, total: Option<u64>) -> Result<ScanStep, SamePage> {
        self.pages += 1;
        let turn = self.chain.take(ids, has_next, total)?;
        let step = match turn {
            Turn::Follow | Turn::Repeated => ScanStep::Page,
            Turn::Ended => match self.chain.judge(true) {
                Judgement::Complete => ScanStep::Complete,
                Judgement::Again => ScanStep::Again,
                Judgement::Doubtful => ScanStep::Incomplete,
            },
        };
        let goes_on = matches!(step, ScanStep::Page | ScanStep::Again);
        Ok(if goes_on && self.pages >= self.pages_max { ScanStep::Incomplete } else { step })
    }
    /// Pages so far.
    pub fn pages(&self) -> u32 {
        self.pages
    }
    /// Places shown so far.
    pub fn items(&self) -> u64 {
        self.chain.items()
    }
    /// What the app says the list holds.
    pub fn total(&self) -> Option<u64> {
        self.chain.total()
    }
    /// More records were shown than a scan can remember.
    pub fn overflow(&self) -> bool {
        self.chain.overflow()
    }
    /// The ids that were shown, sorted, each once; of use after [`ScanStep::Complete`].
    pub fn into_ids(self) -> Vec<[u8; 16]> {
        self.chain.into_ids()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u8>) -> Vec<[u8; 16]> {
        range.map(|n| [n; 16]).collect()
    }
    fn scan() -> Scan {
        Scan::new(100, 1_000)
    }

    #[test]
    fn a_page_past_the_end_ends_the_scan() {
        let mut scan = scan();
        assert_eq!(scan.page(&ids(0..10), true, Some(20)), Ok(ScanStep::Page));
        assert_eq!(scan.page(&ids(10..20), true, Some(20)), Ok(ScanStep::Page));
        assert_eq!(scan.page(&ids(10..20), true, Some(20)), Ok(ScanStep::Complete));
        assert_eq!(scan.into_ids(), ids(0..20));
    }

    #[test]
    fn a_page_past_the_end_ends_the_scan_also_where_no_total_is_told() {
        let mut scan = scan();
        assert_eq!(scan.page(&ids(0..10), true, None), Ok(ScanStep::Page));
        assert_eq!(scan.page(&ids(0..10), true, None), Ok(ScanStep::Page));
        assert_eq!(scan.page(&ids(0..10), true, None), Ok(ScanStep::Complete));
    }

    #[test]
    fn the_same_page_for_ever_is_a_failure_not_a_complete_scan() {
        let mut scan = scan();
        let page = ids(0..10);
        let mut steps = (0..10).map(|_| scan.page(&page, true, Some(500)));
        assert_eq!(steps.find(Result::is_err), Some(Err(SamePage)));
    }

    #[test]
    fn records_that_change_places_are_found_by_walking_again() {
        let mut scan = scan();
        assert_eq!(scan.page(&ids(0..10), true, None), Ok(ScanStep::Page));
        // 9 is shown twice, so one of the others was not shown at all.
        assert_eq!(scan.page(&ids(9..19), false, None), Ok(ScanStep::Again));
        assert_eq!(scan.page(&ids(0..10), true, None), Ok(ScanStep::Page));
        assert_eq!(scan.page(&ids(10..20), false, None), Ok(ScanStep::Again), "19 is new, so there may be more");
        assert_eq!(scan.page(&ids(0..10), true, None), Ok(ScanStep::Page));
        assert_eq!(scan.page(&ids(10..20), false, None), Ok(ScanStep::Complete));
        assert_eq!(scan.into_ids(), ids(0..20));
    }

    #[test]
    fn a_scan_shorter_than_the_total_is_walked_again_and_then_believed() {
        let mut scan = scan();
        assert_eq!(scan.page(&ids(0..9), false, Some(10)), Ok(ScanStep::Again));
        assert_eq!(scan.page(&ids(0..9), false, Some(10)), Ok(ScanStep::Complete));
    }

    #[test]
    fn a_record_that_goes_during_the_scan_pushes_no_other_past_it() {
        let mut scan = scan();
        assert_eq!(scan.page(&ids(0..10), true, Some(20)), Ok(ScanStep::Page));
        // 3 was deleted: 10 moved up to the page already shown, and this one begins with 11.
        assert_eq!(scan.page(&ids(11..20), false, Some(19)), Ok(ScanStep::Again));
        let left = |range: std::ops::Range<u8>| -> Vec<_> { ids(range).into_iter().filter(|id| id[0] != 3).collect() };
        assert_eq!(scan.page(&left(0..11), true, Some(19)), Ok(ScanStep::Page));
        assert_eq!(scan.page(&ids(11..20), false, Some(19)), Ok(ScanStep::Complete));
        assert_eq!(scan.into_ids(), ids(0..20));
    }

    #[test]
    fn a_scan_that_is_too_long_is_incomplete() {
        let mut cut = Scan::new(1, 1_000);
        assert_eq!(cut.page(&ids(0..10), true, None), Ok(ScanStep::Incomplete));
        let mut full = Scan::new(10, 5);
        assert_eq!(full.page(&ids(0..10), false, None), Ok(ScanStep::Incomplete));
        assert!(full.overflow());
    }

    #[test]
    fn an_empty_collection_is_complete() {
        assert_eq!(scan().page(&[], false, Some(0)), Ok(ScanStep::Complete));
        assert_eq!(scan().page(&[], true, None), Ok(ScanStep::Complete));
    }
}
