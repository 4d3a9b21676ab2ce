//! The promises of a walk, against small apps that sort, page and cheat in the ways that real ones do.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{Order, Query, Rules, SamePage, Seen};
use super::{AHEAD_MS, End, Next, TIES_KEPT, Walk};
use crate::domain::connection::Cursor;
use crate::domain::time::Millis;

const NOW: Millis = Millis(1_000_000_000);

fn rules(order: Order) -> Rules {
    Rules {
        order,
        precision: Duration::from_secs(1),
        lookback: Duration::ZERO,
        ceiling: None,
        breaks_ties: false,
        lists_ties: false,
        takes_until: false,
        pages_max: 10_000,
    }
}

/// What an app does with a page past its last one.
#[derive(Clone, Copy, PartialEq)]
enum Past {
    Empty,
    LastAgain,
}

/// An app's list: (id, time) pairs, sorted at each request as the order says.
struct App {
    rows: Vec<(String, u64)>,
    order: Order,
    size: usize,
    past: Past,
    totals: bool,
    /// Equal times come in another order at each request.
    shuffles: bool,
    breaks_ties: bool,
    ignores_since: bool,
    /// How fine its lower bound is, in milliseconds.
    grain: u64,
    ceiling: usize,
    /// Every page says that there is another one.
    always_next: bool,
    /// Its total is that of what it shows, so that the ceiling looks like the end.
    is_quiet: bool,
    rng: fastrand::Rng,
    requests: u32,
}

impl App {
    fn new(order: Order, rows: impl IntoIterator<Item = (u32, u64)>) -> Self {
        Self {
            rows: rows.into_iter().map(|(id, at)| (format!("r{id:06}"), at)).collect(),
            order,
            size: 10,
            past: Past::Empty,
            totals: false,
            shuffles: false,
            breaks_ties: false,
            ignores_since: false,
            grain: 1_000,
            ceiling: usize::MAX,
            always_next: false,
            is_quiet: false,
            rng: fastrand::Rng::with_seed(7),
            requests: 0,
        }
    }

    /// The page with this number, whether there is another, and the total.
    fn page(&mut self, query: &Query, number: usize) -> (Vec<(String, u64)>, bool, Option<u64>) {
        self.requests += 1;
        if query.ties {
            return self.tick(query);
        }
        let mut rows = self.rows.clone();
        match self.order {
            Order::None => rows.sort_by_key(|(id, _)| id.clone()),
            Order::Ascending => rows.sort_by_key(|(id, at)| (*at, id.clone())),
            Order::Descending => rows.sort_by_key(|(id, at)| (std::cmp::Reverse(*at), id.clone())),
        }
        if self.shuffles {
            self.rng.shuffle(&mut rows);
            match self.order {
                Order::None => {}
                Order::Ascending => rows.sort_by_key(|(_, at)| *at),
                Order::Descending => rows.sort_by_key(|(_, at)| std::cmp::Reverse(*at)),
            }
        }
        if let (Some((since, id)), false) = (&query.since, self.ignores_since) {
            let since = since.0 / self.grain * self.grain;
            rows.retain(|(row, at)| match id.as_ref().filter(|_| self.breaks_ties) {
                Some(id) => *at > since || (*at == since && row > id),
                None => *at >= since,
            });
        }
        rows.retain(|(_, at)| query.until.is_none_or(|until| *at <= until.0));
        let whole = rows.len();
        rows.truncate(self.ceiling);
        let total = if self.is_quiet { rows.len() } else { whole };
        let last = rows.len().saturating_sub(1) / self.size;
        let wanted = if self.past == Past::LastAgain { number.min(last) } else { number };
        let page = rows.into_iter().skip(wanted * self.size).take(self.size).collect();
        (page, number < last || self.always_next, self.totals.then_some(total as u64))
    }
}

impl App {
    /// The list of one tick, by id.
    fn tick(&self, query: &Query) -> (Vec<(String, u64)>, bool, Option<u64>) {
        let (Some((since, after)), Some(until)) = (&query.since, query.until) else { panic!("a tick has two bounds") };
        let mut rows = self.rows.clone();
        rows.retain(|(_, at)| (since.0..=until.0).contains(at));
        rows.retain(|(id, _)| self.ignores_since || after.as_ref().is_none_or(|after| id > after));
        rows.sort();
        let total = rows.len();
        rows.truncate(self.size);
        (rows, total > self.size, self.totals.then_some(total as u64))
    }
}

/// What a walk showed: the latest time of each id, and the cursor that was stored last.
#[derive(Default)]
struct Outcome {
    shown: BTreeMap<String, u64>,
    cursor: Option<Cursor>,
    end: Option<End>,
}

/// Walks; `each` is called after each page and may change the app, or break the walk off by answering false.
fn walk_while(
    app: &mut App,
    rules: Rules,
    cursor: Option<&Cursor>,
    now: Millis,
    mut each: impl FnMut(&mut App, u32) -> bool,
) -> Result<Outcome, SamePage> {
    let mut walk = Walk::start(rules, cursor, now);
    let mut outcome = Outcome { cursor: cursor.cloned(), ..Outcome::default() };
    let (mut query, mut number) = (walk.query(), 0);
    loop {
        let (rows, has_next, total) = app.page(&query, number);
        let seen: Vec<Seen<'_>> = rows.iter().map(|(id, at)| Seen { id, updated_at: Some(Millis(*at)) }).collect();
        let step = walk.page(&seen, has_next, total)?;
        for (id, at) in &rows {
            outcome.shown.insert(id.clone(), *at);
        }
        outcome.cursor = step.cursor.or(outcome.cursor);
        match step.next {
            Next::Page => number += 1,
            Next::Query => (query, number) = (walk.query(), 0),
            Next::Done(end) => {
                outcome.end = Some(end);
                return Ok(outcome);
            }
        }
        if !each(app, walk.pages()) {
            return Ok(outcome);
        }
    }
}

fn walk(app: &mut App, rules: Rules, cursor: Option<&Cursor>) -> Outcome {
    walk_while(app, rules, cursor, NOW, |_, _| true).unwrap()
}

fn all_shown(app: &App, outcome: &Outcome) -> bool {
    app.rows.iter().all(|(id, at)| outcome.shown.get(id) == Some(at))
}

#[test]
fn every_record_is_shown_in_every_order() {
    for order in [Order::Ascending, Order::Descending, Order::None] {
        for takes_until in [false, true] {
            let mut app = App::new(order, (0..95).map(|n| (n, 1_000 * u64::from(n / 3))));
            let outcome = walk(&mut app, Rules { takes_until, ..rules(order) }, None);
            assert!(all_shown(&app, &outcome), "{order:?}");
            assert_eq!(outcome.end, Some(End::Complete));
            assert_eq!(outcome.cursor.unwrap().time, Millis(31_000), "{order:?}");
        }
    }
}

#[test]
fn ties_across_pages_are_neither_lost_nor_a_loop() {
    for order in [Order::Ascending, Order::Descending, Order::None] {
        let mut app = App::new(order, (0..64).map(|n| (n, if n < 60 { 5_000 } else { 9_000 })));
        let outcome = walk(&mut app, rules(order), None);
        assert!(all_shown(&app, &outcome), "{order:?}");
        assert!(app.requests < 20, "{order:?}: {}", app.requests);
    }
}

#[test]
fn unordered_ties_are_walked_until_nothing_new_is_shown() {
    for seed in 0..50 {
        let mut app = App::new(Order::Ascending, (0..37).map(|n| (n, if n < 30 { 5_000 } else { 9_000 })));
        app.shuffles = true;
        app.totals = true;
        app.rng = fastrand::Rng::with_seed(seed);
        app.size = 20;
        let mut shown = Outcome::default();
        // What one walk may still miss by bad luck, the next one finds: the cursor stays at the tick until it is left.
        for _ in 0..2 {
            let outcome = walk(&mut app, rules(Order::Ascending), None);
            shown.shown.extend(outcome.shown);
        }
        assert!(all_shown(&app, &shown), "seed {seed}");
    }
}

#[test]
fn the_last_page_again_ends_the_walk() {
    for (totals, always_next) in [(true, true), (false, true), (true, false)] {
        for rows in [5, 10, 20, 25] {
            let mut app = App::new(Order::None, (0..rows).map(|n| (n, 1_000 * u64::from(n))));
            (app.past, app.totals, app.always_next) = (Past::LastAgain, totals, always_next);
            let outcome = walk(&mut app, rules(Order::None), None);
            assert!(all_shown(&app, &outcome));
            assert_eq!(outcome.end, Some(End::Complete));
            assert!(app.requests <= 6, "{}", app.requests);
            let mut app = App { order: Order::Ascending, ..app };
            app.requests = 0;
            assert!(all_shown(&app.order_as_is(), &walk(&mut app, rules(Order::Ascending), None)));
            assert!(app.requests <= 8, "{}", app.requests);
        }
    }
}

impl App {
    fn order_as_is(&self) -> App {
        App { rows: self.rows.clone(), ..App::new(self.order, []) }
    }
}

#[test]
fn a_page_shorter_than_promised_does_not_end_the_walk() {
    let mut walk = Walk::start(rules(Order::None), None, NOW);
    let seen = |id| Seen { id, updated_at: Some(Millis(1_000)) };
    assert_eq!(walk.page(&[seen("a"), seen("b")], true, None).unwrap().next, Next::Page);
    assert_eq!(walk.page(&[seen("c")], true, None).unwrap().next, Next::Page);
    assert_eq!(walk.page(&[seen("d"), seen("e")], false, None).unwrap().next, Next::Done(End::Complete));
}

#[test]
fn the_same_page_for_ever_is_a_failure() {
    for order in [Order::Ascending, Order::Descending, Order::None] {
        let mut walk = Walk::start(rules(order), None, NOW);
        let page: Vec<Seen<'_>> =
            ["a", "b", "c"].iter().map(|id| Seen { id, updated_at: Some(Millis(1_000)) }).collect();
        let failed = (0..10).map(|_| walk.page(&page, true, Some(5_000))).any(|step| step == Err(SamePage));
        assert!(failed, "{order:?}");
    }
}

#[test]
fn an_app_that_ignores_the_lower_bound_is_read_whole_and_ends() {
    let mut app = App::new(Order::Ascending, (0..45).map(|n| (n, 1_000 * u64::from(n))));
    app.ignores_since = true;
    let cursor = Cursor { time: Millis(20_000), ..Cursor::default() };
    let outcome = walk(&mut app, rules(Order::Ascending), Some(&cursor));
    assert!(all_shown(&app, &outcome));
    assert_eq!(outcome.cursor.unwrap().time, Millis(44_000));
}

#[test]
fn a_list_that_is_not_sorted_as_promised_loses_nothing() {
    let mut app = App::new(Order::None, (0..45).map(|n| (n, 1_000 * u64::from(n * 7 % 45))));
    let stored = |outcome: &Outcome| outcome.cursor.clone().unwrap().time;
    let outcome = walk(&mut app, rules(Order::Ascending), None);
    assert!(all_shown(&app, &outcome));
    assert_eq!(stored(&outcome), Millis(44_000));
    // Broken off before its end, the cursor is where the walk began.
    let cursor = Cursor { time: Millis(3_000), ..Cursor::default() };
    let broken = walk_while(&mut app, rules(Order::Ascending), Some(&cursor), NOW, |_, pages| pages < 3).unwrap();
    assert_eq!(stored(&broken), Millis(3_000));
}

#[test]
fn a_record_updated_during_the_walk_hides_no_other() {
    for order in [Order::Ascending, Order::Descending] {
        let mut app = App::new(order, (0..60).map(|n| (n, 1_000 * u64::from(n))));
        let mut clock = 100_000;
        let first = walk_while(&mut app, rules(order), None, NOW, |app, page| {
            if page <= 5 {
                // A record of the pages already shown moves to the end.
                clock += 1_000;
                let at = if order == Order::Ascending { page as usize * 9 } else { 59 - page as usize * 9 };
                app.rows[at].1 = clock;
            }
            true
        })
        .unwrap();
        let second = walk(&mut app, rules(order), first.cursor.as_ref());
        let mut shown = first.shown.clone();
        shown.extend(second.shown);
        let missing: Vec<_> = app.rows.iter().filter(|(id, at)| shown.get(id) != Some(at)).collect();
        assert!(missing.is_empty(), "{order:?}: {missing:?}");
    }
}

#[test]
fn a_walk_that_breaks_off_goes_on_from_where_it_was() {
    let mut app = App::new(Order::Ascending, (0..100).map(|n| (n, 1_000 * u64::from(n / 4))));
    let broken = walk_while(&mut app, rules(Order::Ascending), None, NOW, |_, pages| pages < 5).unwrap();
    assert!(broken.cursor.as_ref().unwrap().time >= Millis(8_000));
    app.requests = 0;
    let rest = walk(&mut app, rules(Order::Ascending), broken.cursor.as_ref());
    let mut shown = broken.shown.clone();
    shown.extend(rest.shown.clone());
    assert!(all_shown(&app, &Outcome { shown, ..Outcome::default() }));
    assert!(rest.shown.len() < 80);
    // Newest first, it must begin again.
    let mut app = App { order: Order::Descending, ..app };
    let broken = walk_while(&mut app, rules(Order::Descending), None, NOW, |_, pages| pages < 5).unwrap();
    assert_eq!(broken.cursor, None);
}

#[test]
fn a_failing_walk_never_moves_the_cursor_back() {
    let mut app = App::new(Order::Ascending, (0..100).map(|n| (n, 1_000 * u64::from(n))));
    let rules = Rules { lookback: Duration::from_secs(30), ..rules(Order::Ascending) };
    let mut cursor = Some(Cursor { time: Millis(50_000), ..Cursor::default() });
    for _ in 0..3 {
        let outcome = walk_while(&mut app, rules, cursor.as_ref(), NOW, |_, pages| pages < 2).unwrap();
        assert!(outcome.cursor.as_ref().unwrap().time >= Millis(50_000));
        cursor = outcome.cursor;
    }
}

#[test]
fn the_last_tick_is_read_again_since_it_may_have_brought_more() {
    let mut app = App::new(Order::Ascending, [(1, 5_000)]);
    let first = walk(&mut app, rules(Order::Ascending), None);
    app.rows.push(("r000002".into(), 5_000));
    let second = walk(&mut app, rules(Order::Ascending), first.cursor.as_ref());
    assert!(all_shown(&app, &second));
}

#[test]
fn what_is_shown_late_is_found_within_the_lookback() {
    let mut app = App::new(Order::Ascending, [(1, 100_000)]);
    let rules = Rules { lookback: Duration::from_secs(60), ..rules(Order::Ascending) };
    let first = walk(&mut app, rules, None);
    app.rows.push(("r000002".into(), 45_000));
    let second = walk(&mut app, rules, first.cursor.as_ref());
    assert!(all_shown(&app, &second));
    assert_eq!(second.cursor.unwrap().time, Millis(100_000));
}

#[test]
fn a_record_dated_in_the_future_hides_nothing() {
    let mut app = App::new(Order::Ascending, [(1, 5_000), (2, NOW.0 * 2)]);
    let first = walk(&mut app, rules(Order::Ascending), None);
    assert_eq!(first.cursor.as_ref().unwrap().time, NOW);
    app.rows.push(("r000003".into(), NOW.0 + 1_000));
    let second = walk(&mut app, rules(Order::Ascending), first.cursor.as_ref());
    assert!(second.shown.contains_key("r000003"));
}

#[test]
fn a_clock_that_stepped_back_does_not_move_the_cursor_back() {
    let mut app = App::new(Order::Ascending, [(1, 5_000)]);
    let cursor = Cursor { time: Millis(9_000), ..Cursor::default() };
    let outcome = walk_while(&mut app, rules(Order::Ascending), Some(&cursor), Millis(4_000), |_, _| true).unwrap();
    assert_eq!(outcome.cursor.unwrap().time, Millis(9_000));
}

#[test]
fn an_empty_list_leaves_a_cursor_that_asks_for_everything() {
    let mut app = App::new(Order::Ascending, []);
    let outcome = walk(&mut app, rules(Order::Ascending), None);
    assert_eq!(outcome.cursor, Some(Cursor::default()));
    assert_eq!(Walk::start(rules(Order::Ascending), outcome.cursor.as_ref(), NOW).query(), Query::default());
}

#[test]
fn pages_are_bounded_and_the_next_walk_goes_on() {
    let mut app = App::new(Order::Ascending, (0..100).map(|n| (n, 1_000 * u64::from(n))));
    let rules = Rules { pages_max: 3, ..rules(Order::Ascending) };
    let outcome = walk(&mut app, rules, None);
    assert_eq!(outcome.end, Some(End::PagesMax));
    assert!(outcome.cursor.unwrap().time > Millis(10_000));
}

#[test]
fn a_tie_breaker_gets_through_any_number_of_ties_also_with_failures() {
    let count = u32::try_from(TIES_KEPT).unwrap() * 3;
    let mut app = App::new(Order::Ascending, (0..count).map(|n| (n, 5_000)));
    (app.breaks_ties, app.size, app.ceiling) = (true, 100, 500);
    let rules = Rules { breaks_ties: true, ceiling: Some(500), ..rules(Order::Ascending) };
    assert!({
        let outcome = walk(&mut app, rules, None);
        all_shown(&app, &outcome) && outcome.end == Some(End::Complete)
    });
    // Each try breaks off after 12 pages; each goes on.
    let (mut cursor, mut shown) = (None, BTreeMap::new());
    for _ in 0..4 {
        let outcome = walk_while(&mut app, rules, cursor.as_ref(), NOW, |_, pages| pages < 12).unwrap();
        shown.extend(outcome.shown);
        cursor = outcome.cursor;
    }
    assert_eq!(shown.len(), count as usize);
}

fn tied(order: Order) -> Rules {
    Rules {
        lists_ties: true,
        takes_until: true,
        ceiling: Some(50),
        precision: Duration::from_millis(1),
        ..rules(order)
    }
}

/// An app whose times are fine to the millisecond.
fn fine(order: Order, rows: impl IntoIterator<Item = (u32, u64)>) -> App {
    App { grain: 1, ..App::new(order, rows) }
}

#[test]
fn a_crowded_tick_is_walked_by_id_where_the_app_can_list_it() {
    for order in [Order::Ascending, Order::Descending, Order::None] {
        let mut app = fine(order, (0..200).map(|n| (n, if n < 150 { 5_000 } else { 1_000 * u64::from(n) })));
        (app.ceiling, app.always_next, app.totals) = (50, order == Order::None, true);
        let outcome = walk(&mut app, tied(order), None);
        assert!(all_shown(&app, &outcome), "{order:?}: {}", outcome.shown.len());
        assert_eq!((outcome.end, outcome.cursor.unwrap().time), (Some(End::Complete), Millis(199_000)), "{order:?}");
        assert!(app.requests < 120, "{order:?}: {}", app.requests);
    }
}

#[test]
fn two_thousand_records_on_four_hundred_timestamps_are_seen_once_from_wherever_a_walk_starts() {
    for size in [3, 7, 200] {
        let mut app = fine(Order::Ascending, (0..2_000).map(|n| (n, 1_000 + u64::from(n / 5))));
        (app.size, app.ceiling) = (size, 500);
        // The walk dies after its first page, and the next one goes on.
        let died = walk_while(&mut app, tied(Order::Ascending), None, NOW, |_, pages| pages < 1).unwrap();
        let rest = walk(&mut app, tied(Order::Ascending), died.cursor.as_ref());
        let mut shown = died.shown.clone();
        shown.extend(rest.shown);
        assert!(all_shown(&app, &Outcome { shown, ..Outcome::default() }), "size {size}");
        for tick in (0..400).step_by(if size == 200 { 1 } else { 37 }) {
            let cursor = Cursor { time: Millis(1_000 + tick), ..Cursor::default() };
            let outcome = walk(&mut app, tied(Order::Ascending), Some(&cursor));
            let missing = app.rows.iter().filter(|(id, at)| *at >= 1_000 + tick && !outcome.shown.contains_key(id));
            assert_eq!((missing.count(), outcome.end), (0, Some(End::Complete)), "size {size}, tick {tick}");
            assert!(outcome.shown.values().all(|at| *at + 1 >= 1_000 + tick), "no further back than a tick");
        }
    }
}

#[test]
fn a_walk_by_id_goes_on_at_its_id_and_then_after_the_tick() {
    let mut app = fine(Order::Ascending, (0..1_000).map(|n| (n, if n < 900 { 5_000 } else { 5_001 })));
    app.ceiling = 50;
    let (mut cursor, mut shown, mut walks) = (None, BTreeMap::new(), 0);
    loop {
        app.requests = 0;
        let outcome =
            walk_while(&mut app, tied(Order::Ascending), cursor.as_ref(), NOW, |_, pages| pages < 12).unwrap();
        let before = shown.len();
        shown.extend(outcome.shown);
        assert!(shown.len() > before, "each walk brings something new");
        (cursor, walks) = (outcome.cursor, walks + 1);
        if outcome.end.is_some() {
            break;
        }
    }
    assert_eq!((shown.len(), cursor.unwrap().time), (1_000, Millis(5_001)));
    assert!(walks <= 11, "{walks}");
}

#[test]
fn what_leaves_a_tick_during_its_walk_pushes_nothing_past_it() {
    let mut app = fine(Order::Ascending, (0..120).map(|n| (n, 5_000)));
    app.ceiling = 1_000;
    let outcome = walk_while(&mut app, tied(Order::Ascending), None, NOW, |app, page| {
        // One of those already shown is edited, another deleted, after each page.
        let shown = page as usize * 2;
        app.rows[shown].1 = 6_000 + u64::from(page);
        app.rows.remove(shown + 1);
        page < 40
    })
    .unwrap();
    assert!(all_shown(&app, &outcome), "{}", outcome.shown.len());
}

#[test]
fn a_tick_that_ignores_the_id_is_a_failure_and_no_loop() {
    let mut app = fine(Order::Ascending, (0..120).map(|n| (n, 5_000)));
    app.ignores_since = true;
    assert_eq!(walk_while(&mut app, tied(Order::Ascending), None, NOW, |_, _| true).err(), Some(SamePage));
    assert!(app.requests < 8, "{}", app.requests);
}

#[test]
fn marks_that_shift_because_a_record_was_deleted_are_walked_again() {
    let mut app = fine(Order::None, (0..50).map(|n| (n, 1_000 * u64::from(n))));
    app.totals = true;
    let outcome = walk_while(&mut app, rules(Order::None), None, NOW, |app, page| {
        if page == 2 {
            app.rows.remove(3);
        }
        true
    })
    .unwrap();
    assert!(all_shown(&app, &outcome), "{}", outcome.shown.len());
    assert_eq!(outcome.end, Some(End::Complete));
}

#[test]
fn a_ceiling_is_got_around() {
    let ceiling = Some(50);
    for (order, takes_until) in [(Order::Ascending, false), (Order::Descending, true), (Order::None, true)] {
        for totals in [true, false] {
            let mut app = App::new(order, (0..400).map(|n| (n, 1_000 * u64::from(n / 3))));
            (app.ceiling, app.totals) = (50, totals);
            app.always_next = order == Order::None;
            let outcome = walk(&mut app, Rules { ceiling, takes_until, ..rules(order) }, None);
            assert!(all_shown(&app, &outcome), "{order:?} {}", outcome.shown.len());
            assert_eq!(outcome.end, Some(End::Complete), "{order:?}");
        }
    }
}

#[test]
fn more_ties_than_the_ceiling_are_told_and_do_not_stop_the_rest() {
    for (order, takes_until) in [(Order::Ascending, false), (Order::Descending, true), (Order::None, true)] {
        let mut app = App::new(order, (0..200).map(|n| (n, if n < 150 { 5_000 } else { 1_000 * u64::from(n) })));
        (app.ceiling, app.always_next, app.totals) = (50, true, true);
        let outcome = walk(&mut app, Rules { ceiling: Some(50), takes_until, ..rules(order) }, None);
        assert_eq!(outcome.end, Some(End::Truncated), "{order:?}");
        assert!((150..200).all(|n| outcome.shown.contains_key(&format!("r{n:06}"))), "{order:?}");
    }
}

#[test]
fn a_ceiling_that_looks_like_the_end_is_none() {
    for (order, takes_until) in [(Order::Ascending, false), (Order::Descending, true), (Order::None, true)] {
        for totals in [true, false] {
            let ceiling = Some(50);
            let mut app = App::new(order, (0..400).map(|n| (n, 1_000 * u64::from(n / 3))));
            (app.ceiling, app.totals, app.is_quiet) = (50, totals, true);
            let outcome = walk(&mut app, Rules { ceiling, takes_until, ..rules(order) }, None);
            assert!(all_shown(&app, &outcome), "{order:?} {}", outcome.shown.len());
            assert_eq!(outcome.end, Some(End::Complete), "{order:?}");
            let mut app = App::new(order, (0..200).map(|n| (n, if n < 150 { 5_000 } else { 1_000 * u64::from(n) })));
            (app.ceiling, app.totals, app.is_quiet) = (50, totals, true);
            let outcome = walk(&mut app, Rules { ceiling, takes_until, ..rules(order) }, None);
            assert_eq!(outcome.end, Some(End::Truncated), "{order:?}");
            assert!((150..200).all(|n| outcome.shown.contains_key(&format!("r{n:06}"))), "{order:?}");
        }
    }
}

#[test]
fn split_windows_reach_ahead_of_our_clock() {
    const { assert!(AHEAD_MS >= 3_600_000) };
}

proptest! {
    #[test]
    fn no_walk_loses_a_record_or_fails_to_end(
        times in prop::collection::vec(0u64..40, 0..120), size in 1usize..12, order in 0usize..3, past: bool, totals: bool,
        takes_until: bool, breaks_ties: bool, lists_ties: bool, cursor in prop::option::of(0u64..40),
    ) {
        let order = [Order::Ascending, Order::Descending, Order::None][order];
        let rows = times.iter().enumerate().map(|(n, at)| (u32::try_from(n).unwrap(), at * 1_000));
        let mut app = App::new(order, rows);
        (app.size, app.totals, app.breaks_ties) = (size, totals, breaks_ties);
        app.past = if past { Past::LastAgain } else { Past::Empty };
        let lists_ties = lists_ties && !breaks_ties;
        let rules = Rules { takes_until, breaks_ties, lists_ties, ..rules(order) };
        let cursor = cursor.map(|time| Cursor { time: Millis(time * 1_000), ..Cursor::default() });
        let outcome = walk(&mut app, rules, cursor.as_ref());
        let since = cursor.map(|c| c.time.0).unwrap_or_default();
        for (id, at) in app.rows.iter().filter(|(_, at)| *at >= since) {
            prop_assert_eq!(outcome.shown.get(id), Some(at));
        }
        let newest = times.iter().max().map_or(0, |at| at * 1_000).max(since);
        prop_assert_eq!(outcome.cursor.unwrap().time, Millis(newest));
        prop_assert!(app.requests <= 400);
    }
}
