//! Which deletions of a complete full scan are believed.
//!
//! Always true: a scan that misses more than a tenth of a collection, and more than 20 records, deletes nothing that an
//! earlier complete scan did not miss too; one that misses more than half deletes nothing at all unless a person approved
//! it. Not here: deletions that the app states itself (they are not guarded), scans that did not complete (they delete
//! nothing).

use std::collections::BTreeSet;

/// Up to so many missing records are believed at once.
const MISSING_ALWAYS_BELIEVED: usize = 20;
/// One in so many may be missing without a second look.
const MISSING_ONE_IN: usize = 10;

/// What follows from a complete scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<K> {
    /// Delete these now.
    pub delete: BTreeSet<K>,
    /// Keep this set for the next complete scan in place of the one kept before, and tell it (`sync/held`).
    pub hold: Option<Hold<K>>,
}

/// Deletions that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold<K> {
    pub missing: BTreeSet<K>,
    /// More than half is missing: another scan will not do, only an approved one.
    pub needs_approval: bool,
}

/// Judges a complete scan: `total` live records before it, those it misses, what the scan before had held (if anything), and
/// whether a person approved its deletions.
pub fn guard<K: Ord + Clone>(
    total: usize,
    missing: BTreeSet<K>,
    held_before: Option<&BTreeSet<K>>,
    approved: bool,
) -> Verdict<K> {
    if approved {
        return Verdict { delete: missing, hold: None };
    }
    let too_many = |count: usize| count > MISSING_ALWAYS_BELIEVED && count.saturating_mul(MISSING_ONE_IN) > total;
    if !too_many(missing.len()) && held_before.is_none() {
        return Verdict { delete: missing, hold: None };
    }
    if too_many(missing.len()) && missing.len().saturating_mul(2) > total {
        return Verdict { delete: BTreeSet::new(), hold: Some(Hold { missing, needs_approval: true }) };
    }
    let (delete, rest): (BTreeSet<K>, BTreeSet<K>) =
        missing.into_iter().partition(|key| held_before.is_some_and(|held| held.contains(key)));
    // A few that are missing for the first time wait for the next scan without more ado.
    let hold = too_many(rest.len()).then_some(Hold { missing: rest, needs_approval: false });
    Verdict { delete, hold }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(range: std::ops::Range<u32>) -> BTreeSet<u32> {
        range.collect()
    }

    #[test]
    fn a_few_deletions_are_believed_at_once() {
        let verdict = guard(25, keys(0..20), None, false);
        assert_eq!(verdict, Verdict { delete: keys(0..20), hold: None });
        let verdict = guard(1000, keys(0..100), None, false);
        assert_eq!(verdict, Verdict { delete: keys(0..100), hold: None });
    }

    #[test]
    fn more_than_a_tenth_and_more_than_twenty_are_held() {
        let verdict = guard(1000, keys(0..101), None, false);
        assert_eq!(verdict.delete, keys(0..0));
        assert_eq!(verdict.hold, Some(Hold { missing: keys(0..101), needs_approval: false }));
        assert!(guard(60, keys(0..21), None, false).hold.is_some());
    }

    #[test]
    fn the_next_complete_scan_deletes_only_what_both_miss() {
        let held = keys(0..200);
        let verdict = guard(1000, keys(150..300), Some(&held), false);
        assert_eq!(verdict.delete, keys(150..200));
        assert_eq!(verdict.hold, None);
        let verdict = guard(1000, keys(199..400), Some(&held), false);
        assert_eq!(verdict.delete, keys(199..200));
        assert_eq!(verdict.hold, Some(Hold { missing: keys(200..400), needs_approval: false }));
        let verdict = guard(1000, keys(195..205), Some(&held), false);
        assert_eq!(verdict, Verdict { delete: keys(195..200), hold: None });
    }

    #[test]
    fn more_than_half_always_needs_approval() {
        let all = keys(0..1000);
        let hold = Some(Hold { missing: all.clone(), needs_approval: true });
        assert_eq!(guard(1000, all.clone(), None, false), Verdict { delete: keys(0..0), hold: hold.clone() });
        assert_eq!(guard(1000, all.clone(), Some(&all), false), Verdict { delete: keys(0..0), hold });
        assert_eq!(guard(1000, all.clone(), Some(&all), true), Verdict { delete: all, hold: None });
        assert_eq!(guard(1000, keys(0..500), Some(&keys(0..500)), false).delete, keys(0..500));
    }

    proptest! {
        #[test]
        fn a_guarded_scan_never_deletes_what_only_it_misses(
            total in 0usize..300, missing in 0u32..300, held in prop::option::of(0u32..300), shift in 0u32..50,
        ) {
            let missing = keys(shift..shift + missing.min(u32::try_from(total).unwrap()));
            let held = held.map(|n| keys(0..n));
            let verdict = guard(total, missing.clone(), held.as_ref(), false);
            prop_assert!(verdict.delete.is_subset(&missing));
            if missing.len() > 20 && missing.len() * 10 > total {
                prop_assert!(verdict.delete.len() * 2 <= total);
                let held = held.unwrap_or_default();
                prop_assert!(verdict.delete.is_subset(&held));
            }
            if let Some(hold) = &verdict.hold {
                prop_assert!(hold.missing.is_disjoint(&verdict.delete));
            }
        }
    }
}
