//! The state machine of one incremental pull.
//!
//! Sorted oldest first, each page is a query of its own that starts where the page before ended, so that a record which
//! changes during the walk shifts nothing; the app's page marks are followed only inside one tick. Sorted newest first, the
//! same from the other end, where the app takes an upper bound. In no order, marks are followed to the end. A tick that the
//! app lists by id is walked that way instead (`walk::ties`).

mod ties;

use super::chain::{Chain, Judgement, Turn};
use super::{Order, Query, Rules, SamePage, Seen, hash};
use crate::domain::connection::Cursor;
use crate::domain::time::Millis;

/// Ids that a cursor keeps of its last tick.
const TIES_KEPT: usize = 1_000;
/// Ids of one query that are remembered to see whether all of it was shown.
const IDS_MAX: usize = 1_000_000;
/// Windows of a split list that may wait.
const WINDOWS_MAX: usize = 64;
/// How far beyond our own time a split window reaches, since the app's clock may be ahead.
const AHEAD_MS: u64 = 24 * 3_600_000;

/// What to ask next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The page that this one named.
    Page,
    /// [`Walk::query`], from its first page.
    Query,
    Done(End),
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that changed was shown.
    Complete,
    /// The app's list goes no further than its ceiling, and could not be split; a full scan finds the rest.
    Truncated,
    /// It took more pages than one walk may; the next one goes on.
    PagesMax,
}

/// What follows from a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To be stored in the commit of this page's records. None: the one before stays.
    pub cursor: Option<Cursor>,
    pub next: Next,
}

/// One incremental pull under way.
#[derive(Debug)]
pub struct Walk {
    rules: Rules,
    order: Order,
    /// When the walk began: no cursor moves beyond it.
    now: Millis,
    start: Option<Cursor>,
    /// Where the walk began to look.
    from: Option<Millis>,
    lower: Option<(Millis, Option<String>)>,
    upper: Option<Millis>,
    /// The bounds are those of one tick, which is walked by id; inside: the lower bound before it.
    tick: Option<ties::Outside>,
    /// Parts of a split list that wait, the oldest last.
    windows: Vec<(Millis, Millis)>,
    chain: Chain,
    /// The last time shown in this query, to check the order.
    last: Option<Millis>,
    /// The latest time shown, and the ids at that tick.
    newest: Option<Millis>,
    ties: Vec<String>,
    pages: u32,
    truncated: bool,
}

impl Walk {
    /// A walk from where the cursor stands; `now` is taken before the first request.
    pub fn start(rules: Rules, cursor: Option<&Cursor>, now: Millis) -> Self {
        let known = cursor.filter(|cursor| cursor.time > Millis(0));
        // A walk that broke off inside a crowded tick goes on inside it, or it would never get through.
        let is_crowded = |cursor: &Cursor| rules.breaks_ties && cursor.seen.len() >= TIES_KEPT;
        let inside = known.filter(|cursor| cursor.id.is_some() && (rules.lists_ties || is_crowded(cursor)));
        let tick = inside.filter(|_| rules.lists_ties);
        let lower = match inside {
            Some(cursor) => Some((cursor.time, cursor.id.clone())),
            // At least a tick: the same tick may have brought more since.
            None => known.map(|cursor| (cursor.time.before(rules.lookback.max(rules.precision)), None)),
        };
        Self {
            rules,
            order: rules.order,
            now,
            start: cursor.cloned(),
            from: lower.as_ref().map(|(time, _)| *time),
            lower,
            upper: tick.map(|cursor| rules.ceil(cursor.time)),
            tick: tick.map(|_| None),
            windows: Vec::new(),
            chain: Chain::new(IDS_MAX),
            last: None,
            newest: inside.map(|cursor| cursor.time),
            ties: inside.map(|cursor| cursor.seen.clone()).unwrap_or_default(),
            pages: 0,
            truncated: false,
        }
    }

    /// The query whose pages come next.
    pub fn query(&self) -> Query {
        Query { since: self.lower.clone(), until: self.upper, ties: self.tick.is_some() }
    }

    /// Pages so far.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Whether a walk that is broken off goes on where it was.
    pub fn resumes(&self) -> bool {
        self.order == Order::Ascending
    }

    /// Takes a page in.
    ///
    /// # Errors
    /// The app gives the same page for ever. What was stored before stands.
    pub fn page(&mut self, records: &[Seen<'_>], has_next: bool, total: Option<u64>) -> Result<Step, SamePage> {
        self.pages += 1;
        let ids: Vec<[u8; 16]> = records.iter().map(|record| hash(record.id)).collect();
        let turn = self.chain.take(&ids, has_next, total)?;
        let is_sorted = self.order != Order::None && self.tick.is_none();
        if turn != Turn::Repeated && is_sorted && !self.keeps_order(records) {
            return Ok(self.distrust());
        }
        self.note(records);
        let times = || records.iter().filter_map(|record| record.updated_at.map(|at| (at, record.id)));
        let edge = times().next_back();
        let mut next = match (self.order, turn) {
            _ if self.tick.is_some() => self.comb(records.last().map(|record| record.id), turn)?,
            (_, Turn::Repeated) => Next::Page,
            (Order::Ascending, _) => self.ascend(edge, turn),
            (Order::Descending, _) => self.descend(edge.map(|(time, _)| time), turn),
            (Order::None, _) => self.sweep(turn),
        };
        if !matches!(next, Next::Done(_)) && self.pages >= self.rules.pages_max {
            next = Next::Done(End::PagesMax);
        }
        Ok(Step { cursor: self.cursor(next), next })
    }

    /// Whether the page is sorted as the connector says, goes on from the page before, and heeds the lower bound.
    fn keeps_order(&mut self, records: &[Seen<'_>]) -> bool {
        let floor = self.lower.as_ref().map_or(Millis(0), |(time, _)| self.rules.floor(*time));
        for time in records.iter().filter_map(|record| record.updated_at) {
            let last = self.last.replace(time).unwrap_or(time);
            let sorted = match self.order {
                Order::Ascending => time >= last && time >= floor,
                // Newest first, a page may reach below the bound: that is the end.
                _ => time <= last,
            };
            if !sorted {
                return false;
            }
        }
        true
    }

    /// The list is not what the connector says: walk it whole, from where this walk began, with the cursor as it was.
    fn distrust(&mut self) -> Step {
        tracing::warn!("an app's list of changes is not sorted as its connector says, or ignores `since`: read whole");
        self.order = Order::None;
        self.lower = self.from.map(|time| (time, None));
        self.upper = None;
        self.tick = None;
        self.newest = None;
        self.ties.clear();
        self.begin();
        Step { cursor: Some(self.start.clone().unwrap_or_default()), next: Next::Query }
    }

    fn begin(&mut self) {
        self.chain = Chain::new(IDS_MAX);
        self.last = None;
    }

    fn note(&mut self, records: &[Seen<'_>]) {
        for record in records {
            let Some(time) = record.updated_at else { continue };
            let tick = self.rules.floor(time);
            let newest = self.newest.map(|newest| self.rules.floor(newest));
            if newest.is_none_or(|newest| tick > newest) {
                self.ties.clear();
            }
            if newest.is_none_or(|newest| tick >= newest) && self.ties.len() < TIES_KEPT {
                self.ties.push(record.id.to_owned());
            }
            self.newest = self.newest.max(Some(time));
        }
    }

    /// Oldest first: the next query starts where this page ended.
    fn ascend(&mut self, edge: Option<(Millis, &str)>, turn: Turn) -> Next {
        if self.has_ended(turn, edge.is_some()) {
            return self.ended();
        }
        let Some((time, id)) = edge else { return Next::Page };
        let next = (time, self.rules.breaks_ties.then(|| id.to_owned()));
        let further = self.lower.as_ref().is_none_or(|(lower, prior)| {
            let later = self.rules.floor(time) > self.rules.floor(*lower);
            later || (self.rules.breaks_ties && prior.as_deref() != Some(id))
        });
        if further {
            let left_by_marks = self.chain.pages() > 1 && !self.rules.breaks_ties;
            if left_by_marks && self.chain.judge(false) == Judgement::Again {
                self.last = None;
                return Next::Query;
            }
            self.lower = Some(next);
            self.begin();
            return Next::Query;
        }
        if self.rules.lists_ties {
            return self.enter(time);
        }
        if self.over_ceiling() {
            // More records in one tick than the list shows.
            self.truncated = true;
            self.lower = Some((Millis(self.rules.ceil(time).0.saturating_add(1)), None));
            self.begin();
            return Next::Query;
        }
        Next::Page
    }

    /// Newest first: until the lower bound is reached.
    fn descend(&mut self, edge: Option<Millis>, turn: Turn) -> Next {
        let floor = self.lower.as_ref().map(|(time, _)| self.rules.floor(*time));
        if edge.is_some_and(|edge| floor.is_some_and(|floor| edge < floor)) {
            return self.done();
        }
        if self.has_ended(turn, edge.is_some()) {
            return self.ended();
        }
        let Some(edge) = edge else { return Next::Page };
        let tick = self.rules.floor(edge);
        if self.rules.takes_until && self.upper.is_none_or(|upper| tick < self.rules.floor(upper)) {
            self.upper = Some(edge);
            self.begin();
            return Next::Query;
        }
        if self.rules.lists_ties && self.rules.takes_until {
            return self.enter(edge);
        }
        if self.over_ceiling() {
            self.truncated = true;
            if !self.rules.takes_until || tick == Millis(0) {
                return self.done();
            }
            self.upper = Some(Millis(tick.0 - 1));
            self.begin();
            return Next::Query;
        }
        Next::Page
    }

    /// In no order: by the marks to the end, in windows where the list has a ceiling.
    fn sweep(&mut self, turn: Turn) -> Next {
        let promised =
            self.rules.ceiling.is_some_and(|ceiling| self.chain.total().is_some_and(|total| total > ceiling));
        if promised || self.over_ceiling() {
            if self.split() {
                self.begin();
                return Next::Query;
            }
            if let Some(tick) = self.lower.as_ref().map(|(time, _)| *time).filter(|_| self.is_one_tick()) {
                return self.enter(tick);
            }
            self.truncated = true;
            if turn == Turn::Ended || self.over_ceiling() {
                return self.next_window();
            }
        }
        if turn == Turn::Ended { self.ended() } else { Next::Page }
    }

    /// Halves the window at hand. False: it cannot be halved.
    fn split(&mut self) -> bool {
        let low = self.lower.as_ref().map_or(Millis(0), |(time, _)| *time);
        let high = self.upper.unwrap_or(Millis(self.now.max(low).0.saturating_add(AHEAD_MS)));
        let splits = self.rules.takes_until && self.windows.len() < WINDOWS_MAX;
        if !splits || self.rules.floor(low) == self.rules.floor(high) {
            return false;
        }
        // The middle is the end of a tick, so that no tick is in both halves, and none is left out.
        let middle = self.rules.floor(Millis(low.0 + (high.0 - low.0) / 2)).0.saturating_add(self.rules.tick() - 1);
        let middle = if middle >= high.0 { self.rules.floor(high).0 - 1 } else { middle };
        self.windows.push((Millis(middle + 1), high));
        self.upper = Some(Millis(middle));
        true
    }

    /// Whether all was shown. An app may say of its ceiling that it is the end.
    fn has_ended(&self, turn: Turn, shows_times: bool) -> bool {
        turn == Turn::Ended && !(shows_times && self.over_ceiling())
    }

    fn over_ceiling(&self) -> bool {
        self.rules.ceiling.is_some_and(|ceiling| self.chain.items() >= ceiling)
    }

    fn ended(&mut self) -> Next {
        match self.chain.judge(true) {
            Judgement::Again => {
                self.last = None;
                Next::Query
            }
            Judgement::Complete | Judgement::Doubtful => self.next_window(),
        }
    }

    fn next_window(&mut self) -> Next {
        let Some((low, high)) = self.windows.pop() else { return self.done() };
        self.lower = Some((low, None));
        // The last window is open: changes made since the walk began are welcome.
        self.upper =
            if self.windows.is_empty() && high.0 >= self.now.0.saturating_add(AHEAD_MS) { None } else { Some(high) };
        self.begin();
        Next::Query
    }

    fn done(&self) -> Next {
        Next::Done(if self.truncated { End::Truncated } else { End::Complete })
    }

    /// The cursor that is safe once this page's records are stored.
    fn cursor(&self, next: Next) -> Option<Cursor> {
        let before = self.start.as_ref().map(|start| start.time).unwrap_or_default();
        let (reached, id) = match (next, self.order, &self.lower) {
            (Next::Done(End::Complete | End::Truncated), _, _) => (self.newest.unwrap_or_default(), None),
            // Everything before the start of the next query has been shown.
            (_, Order::Ascending, Some((time, id))) if *time > before || (*time == before && id.is_some()) => {
                (*time, id.clone())
            }
            _ => return None,
        };
        // A record dated in the future must not hide all that comes before its date.
        let time = reached.min(self.now).max(before);
        let exact = time == reached;
        let crowd = exact && self.newest.is_some_and(|newest| self.rules.floor(newest) == self.rules.floor(time));
        let seen = if crowd { self.ties.clone() } else { Vec::new() };
        Some(Cursor { time, id: id.filter(|_| exact), seen })
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
