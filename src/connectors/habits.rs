//! What was learnt of one account's app: how large a page may be, what queries cost, what the app warned of.
//!
//! Always true: bounded; nothing waits in here; what is forgotten is learnt again. Not here: what was declared
//! (`connectors::spec`), who waits (`connectors::caller`).

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::graphql::Cost;
use super::lacks::{Lacks, Unlisted};
use crate::domain::time::Millis;

/// Queries and lists that are remembered.
const KNOWN_MAX: usize = 100;
/// Good pages after which a page may be larger again.
const GROWS_AFTER: u32 = 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Habits(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By list.
    sizes: BTreeMap<String, Size>,
    /// What the last query of each kind was judged to cost, by the query's hash.
    weights: BTreeMap<u64, f64>,
    /// What there is to spend.
    purse: Option<Purse>,
    warned: BTreeSet<String>,
    lacks: Lacks,
    unlisted: Unlisted,
}

#[derive(Clone, Copy, Debug)]
struct Size {
    now: u32,
    /// Good pages of this size.
    good: u32,
}

#[derive(Clone, Copy, Debug)]
struct Purse {
    cost: Cost,
    at: Millis,
}

/// What a query is remembered by.
pub fn query_key(query: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    query.hash(&mut hasher);
    hasher.finish()
}

impl Habits {
    /// How many records to ask that list for; `usual` is what its connector says.
    pub fn size(&self, list: &str, usual: u32) -> u32 {
        self.lock().sizes.get(list).map_or(usual, |size| size.now.min(usual))
    }
    /// A page was too costly: half of it. False: it cannot be smaller.
    pub fn shrink(&self, list: &str, was: u32) -> bool {
        if was <= 1 {
            return false;
        }
        let mut known = self.lock();
        make_room(&mut known.sizes, list);
        known.sizes.insert(list.to_owned(), Size { now: was / 2, good: 0 });
        true
    }
    /// A page went well: after ten of them a quarter more, up to the usual.
    pub fn went_well(&self, list: &str, usual: u32) {
        let mut known = self.lock();
        let Some(size) = known.sizes.get_mut(list) else { return };
        size.good += 1;
        if size.good >= GROWS_AFTER {
            *size = Size { now: (size.now + size.now.div_ceil(4)).min(usual), good: 0 };
        }
        if size.now >= usual {
            known.sizes.remove(list);
        }
    }
    /// Takes what a query will cost, as far as it is known, or says how long to wait until there is enough.
    pub fn spend(&self, query: u64, now: Millis) -> Result<(), Duration> {
        let mut known = self.lock();
        let (Some(weight), Some(purse)) = (known.weights.get(&query).copied(), known.purse.as_mut()) else {
            return Ok(());
        };
        purse.refill(now);
        let cost = Cost { requested: weight, ..purse.cost };
        match cost.wait() {
            // More than there ever is: the app itself says so.
            None => Ok(()),
            Some(wait) if wait.is_zero() => {
                purse.cost.available -= weight;
                Ok(())
            }
            Some(wait) => Err(wait.max(Duration::from_millis(1))),
        }
    }
    /// Takes note of what an answer says of costs.
    pub fn heed(&self, query: Option<u64>, cost: Cost, now: Millis) {
        let mut known = self.lock();
        known.purse = Some(Purse { cost, at: now });
        if let Some(query) = query {
            make_room(&mut known.weights, &query);
            known.weights.insert(query, cost.requested);
        }
    }
    /// Whether that warning of the app is new.
    pub fn is_news(&self, warning: &str) -> bool {
        let mut known = self.lock();
        known.warned.len() < KNOWN_MAX && known.warned.insert(warning.to_owned())
    }
    /// A list was refused for a column. False: it was left out already.
    pub fn lack(&self, list: &str, column: &str, now: Millis) -> bool {
        self.lock().lacks.add(list, column, now)
    }
    /// The columns to leave out of a list.
    pub fn lacks(&self, list: &str, now: Millis) -> Value {
        self.lock().lacks.of(list, now)
    }
    /// The columns that are left out of all lists whose names begin so.
    pub fn lacking(&self, prefix: &str, now: Millis) -> Vec<String> {
        self.lock().lacks.under(prefix, now)
    }
    /// The fields of a collection could not be listed; `refused`: nor will they be soon.
    pub fn unlist(&self, collection: &str, why: &str, refused: bool, now: Millis) {
        self.lock().unlisted.add(collection, why, refused, now);
    }
    /// They were listed.
    pub fn listed(&self, collection: &str) {
        self.lock().unlisted.remove(collection);
    }
    /// Why they could not be listed.
    pub fn unlisted(&self, collection: &str) -> Option<String> {
        self.lock().unlisted.why(collection)
    }
    /// Whether asking for them again would be in vain.
    pub fn is_unlisted(&self, collection: &str, now: Millis) -> bool {
        self.lock().unlisted.is_refused(collection, now)
    }
    fn lock(&self) -> MutexGuard<'_, Known> {
        // What is learnt is sound whatever a panicked holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purse {
    fn refill(&mut self, now: Millis) {
        let fresh = now.since(self.at).as_secs_f64() * self.cost.restore_rate;
        self.cost.available = (self.cost.available + fresh).min(self.cost.maximum);
        self.at = now;
    }
}

fn make_room<K, V, Q>(known: &mut BTreeMap<K, V>, key: &Q)
where
    K: Ord + Borrow<Q>,
    Q: Ord + ?Sized,
{
    if known.len() >= KNOWN_MAX && !known.contains_key(key) {
        known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_halved_at_once_and_grows_again_slowly() {
        let habits = Habits::default();
        assert_eq!(habits.size("orders/pull", 40), 40);
        assert!(habits.shrink("orders/pull", 40) && habits.shrink("orders/pull", 20));
        assert_eq!((habits.size("orders/pull", 40), habits.size("products/pull", 40)), (10, 40));
        let mut sizes = Vec::new();
        for _ in 0..100 {
            habits.went_well("orders/pull", 40);
            sizes.push(habits.size("orders/pull", 40));
        }
        sizes.dedup();
        assert_eq!(sizes, [10, 13, 17, 22, 28, 35, 40]);
        assert!(!habits.shrink("orders/pull", 1), "a page of one cannot be smaller");
    }

    #[test]
    fn a_query_waits_until_there_is_enough_for_it() {
        let habits = Habits::default();
        assert_eq!(habits.spend(1, Millis(0)), Ok(()), "nothing is known yet");
        let cost = Cost { requested: 400.0, available: 500.0, maximum: 1000.0, restore_rate: 100.0 };
        habits.heed(Some(1), cost, Millis(0));
        assert_eq!(habits.spend(1, Millis(0)), Ok(()));
        assert_eq!(habits.spend(1, Millis(0)), Err(Duration::from_secs(3)), "400 wanted, 100 left, 100 a second");
        assert_eq!(habits.spend(1, Millis(3_000)), Ok(()));
        assert_eq!(habits.spend(2, Millis(3_000)), Ok(()), "one that was never seen is tried");
        habits.heed(Some(1), Cost { requested: 2_000.0, ..cost }, Millis(3_000));
        assert_eq!(habits.spend(1, Millis(3_000)), Ok(()), "the app itself refuses what is too dear");
    }

    #[test]
    fn a_warning_is_told_once() {
        let habits = Habits::default();
        assert!(habits.is_news("a") && !habits.is_news("a") && habits.is_news("b"));
    }
}
