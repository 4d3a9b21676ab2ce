//! What a try of a batch leads to, as a pure rule: settled, tried again, cut in two, or held until the owner has mended
//! something.
//!
//! Always true: each member has one fate; a batch that may have been written as a whole is tried again whole and under its
//! own name; only what the destination judges by itself, or what is left alone after cutting, becomes a dead letter. Not
//! here: committing it (`settle`).

use super::PAUSED_RETRY;
use super::write::{Said, Tried};
use crate::destinations::driver::{Fault, Verdict};
use crate::domain::delivery::{Attempt, AttemptError, Cause, DeliveryState, LaneSignal, Outcome, settle};
use crate::domain::retry::Pace;
use crate::domain::time::Millis;
use crate::store::{BatchRow, Wait};

/// A batch of a destination that takes one that is cut anew is halved after so many tries that ended in overload.
const HALVED_AFTER: u32 = 2;

/// What becomes of one member or record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    Dead(Cause, Fault),
    /// It stands in one of the next batches.
    Left,
}

/// What takes the place of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same again, under its name.
    Same(BatchRow),
    /// Others, under names of their own; none if nothing is left.
    Others(Vec<BatchRow>),
}

/// What follows from a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// By place.
    pub(super) fates: Vec<Fate>,
    pub(super) next: Next,
    /// Only the owner can mend it.
    pub(super) config: Option<Fault>,
    /// What the lane learns.
    pub(super) outcome: Outcome,
    pub(super) signal: LaneSignal,
}

/// What a plan depends on beside the try itself.
pub(super) struct Terms<'a> {
    pub(super) pace: &'a Pace,
    /// See `Limits::recuts`.
    pub(super) recuts: bool,
    /// Of the destination's settings that were tried.
    pub(super) revision: u32,
    pub(super) now: Millis,
}

/// One attempt, as it is kept.
pub(super) fn attempt(tried: &Tried, error: Option<AttemptError>, answer: String) -> Attempt {
    Attempt { at: tried.began, duration_ms: tried.took_ms, status: None, error, answer, body_cut: false }
}

impl Plan {
    pub(super) fn of(tried: &Tried, terms: &Terms<'_>) -> Self {
        let Said { each, whole, suspects } = &tried.said;
        let mut plan = Self {
            fates: vec![Fate::Delivered; tried.row.len()],
            next: Next::Others(Vec::new()),
            config: None,
            outcome: Outcome::Accepted,
            signal: LaneSignal::Healthy,
        };
        let mut left: Option<(Vec<usize>, &Verdict)> = None;
        for (place, verdict) in each {
            match verdict {
                Verdict::Done => {}
                Verdict::Row(fault) => plan.dies(*place, Cause::Rejected(fault.error), fault),
                Verdict::Retry(_) | Verdict::Config(_) => {
                    let (places, worst) = left.get_or_insert_with(|| (Vec::new(), verdict));
                    places.push(*place);
                    if matches!(verdict, Verdict::Config(_)) {
                        *worst = verdict;
                    }
                }
            }
        }
        match whole {
            Some(Verdict::Retry(fault)) => plan.retry(tried, None, fault, terms),
            Some(Verdict::Config(fault)) => plan.hold(tried, None, fault, terms),
            Some(Verdict::Row(fault)) => plan.cut(tried, suspects, fault, terms),
            Some(Verdict::Done) | None => {}
        }
        match left {
            Some((places, Verdict::Config(fault))) => plan.hold(tried, Some(&places), fault, terms),
            Some((places, Verdict::Retry(fault))) => plan.retry(tried, Some(&places), fault, terms),
            _ => {}
        }
        plan
    }

    /// Whether nothing of the batch is left to be tried.
    pub(super) fn is_over(&self) -> bool {
        matches!(&self.next, Next::Others(others) if others.is_empty())
    }

    fn dies(&mut self, place: usize, cause: Cause, fault: &Fault) {
        if let Some(fate) = self.fates.get_mut(place) {
            *fate = Fate::Dead(cause, fault.clone());
        }
    }

    fn stays(&mut self, places: &[usize]) {
        for place in places {
            if let Some(fate) = self.fates.get_mut(*place) {
                *fate = Fate::Left;
            }
        }
    }

    /// One of them can never be written: alone it dies, together they are cut in two.
    fn cut(&mut self, tried: &Tried, suspects: &[usize], fault: &Fault, terms: &Terms<'_>) {
        self.outcome = Outcome::Rejected(fault.error);
        if let [alone] = suspects {
            return self.dies(*alone, Cause::Rejected(fault.error), fault);
        }
        self.stays(suspects);
        let (first, second) = suspects.split_at(suspects.len() / 2);
        self.next =
            Next::Others([first, second].map(|places| BatchRow { at: terms.now, ..tried.row.part(places) }).into());
    }

    /// The batch (or these of it) is tried again by the schedule, or has used it up.
    fn retry(&mut self, tried: &Tried, places: Option<&[usize]>, fault: &Fault, terms: &Terms<'_>) {
        let row = &tried.row;
        self.outcome = match fault.after {
            Some(after) => Outcome::Later(fault.error, after),
            None => Outcome::Refused(fault.error),
        };
        let state = DeliveryState::Due { at: row.at, tries: row.tries, attempts: row.made };
        let settled = settle(state, self.outcome, terms.pace, terms.now, &mut fastrand::Rng::new());
        self.signal = settled.lane;
        let DeliveryState::Due { at, tries, .. } = settled.state else {
            for place in places.unwrap_or(&tried.said.suspects) {
                self.dies(*place, Cause::Exhausted(fault.error), fault);
            }
            return;
        };
        self.again(tried, places, fault, (at, tries, terms.revision));
        if let Next::Same(next) = &self.next
            && terms.recuts
            && fault.error.is_overload()
            && next.made >= HALVED_AFTER
            && next.len() > 1
        {
            let places: Vec<usize> = (0..next.len()).collect();
            let (first, second) = places.split_at(places.len() / 2);
            self.next = Next::Others(vec![next.part(first), next.part(second)]);
        }
    }

    /// It waits for the owner, and uses up no try.
    fn hold(&mut self, tried: &Tried, places: Option<&[usize]>, fault: &Fault, terms: &Terms<'_>) {
        self.outcome = Outcome::Refused(fault.error);
        self.signal = LaneSignal::Healthy;
        self.config = Some(fault.clone());
        let at = terms.now.after(PAUSED_RETRY);
        self.again(tried, places, fault, (at, tried.row.tries, terms.revision));
    }

    fn again(&mut self, tried: &Tried, places: Option<&[usize]>, fault: &Fault, next: (Millis, u32, u32)) {
        let (at, tries, revision) = next;
        let made = attempt(tried, Some(fault.error), fault.detail.clone());
        match places {
            Some(places) => {
                self.stays(places);
                let next = tried.row.part(places).tried(made, at, tries);
                self.next = Next::Others(vec![BatchRow { revision, ..next }]);
            }
            // Nothing is settled yet, not even what can never be written: the request must stay as it is.
            None => {
                self.fates.fill(Fate::Left);
                self.next = Next::Same(BatchRow { revision, ..tried.row.clone().tried(made, at, tries) });
            }
        }
    }

    /// How surely it must be kept before the lane goes on: others are on disk before their first try, as this one was.
    pub(super) fn wait(&self, recuts: bool) -> Wait {
        match &self.next {
            Next::Others(batches) if !recuts && !batches.is_empty() => Wait::Durable,
            _ => Wait::Applied,
        }
    }

    /// How many are delivered.
    pub(super) fn delivered(&self) -> usize {
        self.fates.iter().filter(|fate| **fate == Fate::Delivered).count()
    }

    /// The dead ones with their places.
    pub(super) fn dead(&self) -> impl Iterator<Item = (usize, Cause, &Fault)> {
        self.fates.iter().enumerate().filter_map(|(place, fate)| match fate {
            Fate::Dead(cause, fault) => Some((place, *cause, fault)),
            Fate::Delivered | Fate::Left => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::destination::Shape;
    use crate::domain::id::{DestinationId, Seq};
    use crate::domain::trouble::Trouble;
    use crate::domain::version::ApiVersion;
    use crate::store::Due;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn fault(trouble: Trouble) -> Fault {
        Fault::new(trouble, "so it said")
    }

    fn tried(rows: u64, said: Said) -> Tried {
        let row = BatchRow {
            destination: DestinationId([1; 12]),
            revision: 1,
            shape: Shape::Append,
            version: ApiVersion::V2024_03,
            include: Vec::new(),
            members: (1..=rows).map(|n| Due::first(Seq(n), None)).collect(),
            records: Vec::new(),
            at: NOW,
            tries: 0,
            made: 0,
            attempts: Vec::new(),
        };
        Tried { number: Seq(100), row, said, began: NOW, took_ms: 5, known: Vec::new() }
    }

    fn plan(tried: &Tried, recuts: bool) -> Plan {
        Plan::of(tried, &Terms { pace: &Pace::default(), recuts, revision: 2, now: NOW })
    }

    fn whole(rows: u64, verdict: Verdict) -> Tried {
        let suspects = (0..usize::try_from(rows).unwrap()).collect();
        tried(rows, Said { whole: Some(verdict), suspects, each: Vec::new() })
    }

    #[test]
    fn what_nobody_can_say_is_tried_again_whole_even_beside_what_can_never_be_written() {
        let mut tried = whole(3, Verdict::Retry(fault(Trouble::Throttled)));
        tried.said.suspects.remove(0);
        tried.said.each = vec![(0, Verdict::Row(fault(Trouble::TooLarge)))];
        let plan = plan(&tried, false);
        assert_eq!(plan.fates, vec![Fate::Left; 3]);
        let Next::Same(next) = plan.next else { panic!("{:?}", plan.next) };
        assert_eq!((next.members, next.tries, next.made), (tried.row.members, 1, 1));
    }

    #[test]
    fn a_used_up_schedule_kills_the_suspects_and_those_that_could_never_be_written() {
        let mut tried = whole(3, Verdict::Retry(fault(Trouble::Failed)));
        tried.said.suspects.remove(0);
        tried.said.each = vec![(0, Verdict::Row(fault(Trouble::TooLarge)))];
        tried.row.tries = 99;
        let causes: Vec<Cause> = plan(&tried, false).dead().map(|(_, cause, _)| cause).collect();
        let (rejected, exhausted) = (Trouble::TooLarge, Trouble::Failed);
        let exhausted = Cause::Exhausted(AttemptError::Destination(exhausted));
        assert_eq!(causes, [Cause::Rejected(AttemptError::Destination(rejected)), exhausted, exhausted]);
    }

    #[test]
    fn a_refused_batch_is_cut_until_one_is_left_and_that_one_dies() {
        let plan_of = |rows| plan(&whole(rows, Verdict::Row(fault(Trouble::ValueRefused))), false);
        let Next::Others(halves) = plan_of(5).next else { panic!("cut") };
        assert_eq!(halves.iter().map(BatchRow::len).collect::<Vec<_>>(), [2, 3]);
        assert!(plan_of(5).fates.iter().all(|fate| *fate == Fate::Left));
        let alone = plan_of(1);
        assert_eq!((alone.dead().count(), alone.next), (1, Next::Others(Vec::new())));
    }

    #[test]
    fn what_is_cut_is_on_disk_before_its_first_try_where_another_cut_would_leave_doubles() {
        let cut = whole(5, Verdict::Row(fault(Trouble::ValueRefused)));
        assert!(plan(&cut, false).wait(false) == Wait::Durable);
        assert!(plan(&cut, true).wait(true) == Wait::Applied);
        assert!(plan(&whole(1, Verdict::Row(fault(Trouble::ValueRefused))), false).wait(false) == Wait::Applied);
        assert!(plan(&whole(5, Verdict::Retry(fault(Trouble::Failed))), false).wait(false) == Wait::Applied);
    }

    #[test]
    fn those_that_are_judged_by_themselves_go_their_ways() {
        let each = vec![
            (0, Verdict::Done),
            (1, Verdict::Row(fault(Trouble::ValueRefused))),
            (2, Verdict::Retry(fault(Trouble::Throttled))),
            (3, Verdict::Config(fault(Trouble::PermissionDenied))),
        ];
        let plan = plan(&tried(5, Said { each, ..Said::default() }), false);
        // The fifth is named nowhere: it was not sent, since it is outlived.
        let kinds: Vec<_> = plan.fates.iter().map(std::mem::discriminant).collect();
        let dead = Fate::Dead(Cause::Expired, fault(Trouble::Failed));
        let wanted = [Fate::Delivered, dead, Fate::Left, Fate::Left, Fate::Delivered];
        assert_eq!(kinds, wanted.iter().map(std::mem::discriminant).collect::<Vec<_>>());
        assert_eq!(plan.config.map(|fault| fault.error.slug()), Some("permission-denied"));
        let Next::Others(next) = plan.next else { panic!("it has another name") };
        assert_eq!((next[0].len(), next[0].tries, next[0].at), (2, 0, NOW.after(PAUSED_RETRY)));
    }

    #[test]
    fn a_batch_that_is_too_much_is_halved_only_where_that_leaves_no_doubles() {
        let mut tried = whole(4, Verdict::Retry(fault(Trouble::Busy)));
        tried.row.made = 1;
        assert!(matches!(plan(&tried, false).next, Next::Same(_)));
        let Next::Others(halves) = plan(&tried, true).next else { panic!("halved") };
        assert_eq!(halves.iter().map(BatchRow::len).collect::<Vec<_>>(), [2, 2]);
        assert!(plan(&tried, true).fates.iter().all(|fate| *fate == Fate::Left));
    }
}
