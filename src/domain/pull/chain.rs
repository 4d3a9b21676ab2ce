//! Pages that follow one another by the app's own marks: when the list has ended, and whether all of it was shown.
//!
//! Always true: memory is bounded; a page that comes again ends the list (Adobe Commerce answers a page past the end with
//! the last page again, magento/magento2#8099). Where records of one sort key change places between pages
//! (magento/magento2#25001), one is shown twice and another not at all: then the list is walked again, until a pass finds
//! nothing new. So it is where the app's total shrinks between two pages: what left the list moved the rest up, past us.

use super::SamePage;

/// How often the same page may come in a row before it is the end, where the app gives no total.
const REPEATS_END: u32 = 2;
/// How often, where the app's total says that there must be more.
const REPEATS_MAX: u32 = 3;
/// How often a list is walked for what changed places.
const PASSES_MAX: u32 = 4;

/// The pages of one query.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Sorted and unique up to `sorted`.
    ids: Vec<[u8; 16]>,
    ids_max: usize,
    overflow: bool,
    /// Places shown in this pass, repeated pages aside.
    items: u64,
    pages: u32,
    pass: u32,
    /// Different ids known when this pass began.
    known_before: usize,
    /// The ids of the page before, sorted.
    previous: Vec<[u8; 16]>,
    repeats: u32,
    total: Option<u64>,
    /// The total became smaller in this pass.
    shrunk: bool,
}

/// What a page means for the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is more, by the mark.
    Follow,
    /// The same page as before; there may be more, by the mark.
    Repeated,
    /// The list has ended.
    Ended,
}

/// What a list that has ended means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Complete,
    /// Walk it again from its start.
    Again,
    /// It was walked often enough, and still nobody knows whether all was shown.
    Doubtful,
}

impl Chain {
    /// A list of which nothing has been seen; at most so many ids are remembered.
    pub fn new(ids_max: usize) -> Self {
        Self { ids_max, ..Self::default() }
    }
    /// Takes a page in.
    pub fn take(&mut self, ids: &[[u8; 16]], has_next: bool, total: Option<u64>) -> Result<Turn, SamePage> {
        self.pages += 1;
        self.shrunk |= self.items > 0 && total.is_some_and(|now| self.total.is_some_and(|before| now < before));
        self.total = total.or(self.total);
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        if ids.is_empty() || sorted != self.previous {
            self.repeats = 0;
            self.items += ids.len() as u64;
            self.overflow |= self.ids.len() + ids.len() > self.ids_max;
            if !self.overflow {
                self.ids.extend_from_slice(&sorted);
            }
            self.previous = sorted;
            return Ok(if has_next && !ids.is_empty() { Turn::Follow } else { Turn::Ended });
        }
        self.repeats += 1;
        let more = self.total.is_some_and(|total| self.items < total);
        match (more, self.total) {
            _ if !has_next => Ok(Turn::Ended),
            (true, _) if self.repeats >= REPEATS_MAX => Err(SamePage),
            (true, _) => Ok(Turn::Repeated),
            (false, Some(_)) => Ok(Turn::Ended),
            (false, None) if self.repeats >= REPEATS_END => Ok(Turn::Ended),
            (false, None) => Ok(Turn::Repeated),
        }
    }
    /// Judges a list that has ended, or (`whole` is false) the part of it that is being left; on `Again`, the next pass
    /// has begun.
    pub fn judge(&mut self, whole: bool) -> Judgement {
        if self.overflow {
            return Judgement::Doubtful;
        }
        self.ids.sort_unstable();
        self.ids.dedup();
        let distinct = self.ids.len();
        let fresh = distinct - self.known_before;
        let enough = match self.total.filter(|_| whole) {
            Some(total) => distinct as u64 >= total,
            None => self.pass == 0 && fresh as u64 == self.items,
        };
        if (enough && !self.shrunk) || (self.pass > 0 && fresh == 0) {
            return Judgement::Complete;
        }
        if self.pass + 1 >= PASSES_MAX {
            return Judgement::Doubtful;
        }
        self.pass += 1;
        self.known_before = distinct;
        self.items = 0;
        self.repeats = 0;
        self.shrunk = false;
        self.previous.clear();
        Judgement::Again
    }
    /// Pages so far, of all passes.
    pub fn pages(&self) -> u32 {
        self.pages
    }
    /// Places shown in this pass.
    pub fn items(&self) -> u64 {
        self.items
    }
    /// What the app says the list holds.
    pub fn total(&self) -> Option<u64> {
        self.total
    }
    /// More ids than may be remembered were shown.
    pub fn overflow(&self) -> bool {
        self.overflow
    }
    /// All ids shown, sorted, each once. After [`Self::judge`].
    pub fn into_ids(self) -> Vec<[u8; 16]> {
        self.ids
    }
}
