//! What an account lacks. Columns: a feature is off, or its role may not see them. An app that refuses a whole query for
//! one column is asked again without it, and the pull says so. And the list of its own fields, where its role may not see
//! that: such a collection is read without them, which is said in the same place.
//!
//! Always true: bounded; a column is left out of the one list that was refused for it, for a day, after which it is tried
//! again, as is a refused list of fields: features are switched on. Not here: where in an answer the name stands (`connectors::verdict`), how a column is
//! taken out (`mapping::columns`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{CallError, Collection, Session};
use crate::domain::app_field::AppFields;
use crate::domain::time::Millis;

/// Lists, and columns of each.
const LISTS_MAX: usize = 100;
const COLUMNS_MAX: usize = 200;
/// Of what an app said.
const WHY_CHARS_MAX: usize = 200;
/// How long a column is left out, and a refused list of fields not asked for.
const BELIEVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Columns by list, in lower case, with the time at which each was refused.
#[derive(Debug, Default)]
pub struct Lacks(BTreeMap<String, BTreeMap<String, Millis>>);

impl Lacks {
    /// Notes a column. False: it was left out already, or there are too many.
    pub fn add(&mut self, list: &str, column: &str, now: Millis) -> bool {
        let column = column.to_lowercase();
        if self.0.len() >= LISTS_MAX && !self.0.contains_key(list) {
            return false;
        }
        let columns = self.0.entry(list.to_owned()).or_default();
        columns.retain(|_, at| believed(*at, now));
        if columns.len() >= COLUMNS_MAX || columns.contains_key(&column) {
            return false;
        }
        columns.insert(column, now);
        true
    }
    /// What is left out of a list: an array of texts.
    pub fn of(&self, list: &str, now: Millis) -> Value {
        let columns = self.0.get(list).into_iter().flatten();
        columns.filter(|(_, at)| believed(**at, now)).map(|(column, _)| Value::from(column.as_str())).collect()
    }
    /// All that is left out of lists whose names begin so, sorted.
    pub fn under(&self, prefix: &str, now: Millis) -> Vec<String> {
        let lists = self.0.iter().filter(|(list, _)| list.starts_with(prefix));
        let columns = lists.flat_map(|(_, columns)| columns).filter(|(_, at)| believed(**at, now));
        let mut names: Vec<String> = columns.map(|(column, _)| column.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn believed(at: Millis, now: Millis) -> bool {
    now.since(at) < BELIEVED_FOR
}

/// Collections whose fields could not be listed: why, and until when that is believed.
#[derive(Debug, Default)]
pub struct Unlisted(BTreeMap<String, (String, Millis)>);

impl Unlisted {
    /// Notes a failure; one that is no refusal may be over at the next look.
    pub fn add(&mut self, collection: &str, why: &str, refused: bool, now: Millis) {
        if self.0.len() < LISTS_MAX || self.0.contains_key(collection) {
            let until = if refused { now.after(BELIEVED_FOR) } else { now };
            self.0.insert(collection.to_owned(), (why.chars().take(WHY_CHARS_MAX).collect(), until));
        }
    }
    /// They were listed.
    pub fn remove(&mut self, collection: &str) {
        self.0.remove(collection);
    }
    /// Why not.
    pub fn why(&self, collection: &str) -> Option<String> {
        self.0.get(collection).map(|(why, _)| why.clone())
    }
    /// Whether it is still believed.
    pub fn is_refused(&self, collection: &str, now: Millis) -> bool {
        self.0.get(collection).is_some_and(|(_, until)| now < *until)
    }
}

impl Session {
    /// Reads a collection without fields that could not be listed.
    pub fn go_without_fields(&self, c: &Collection, error: &CallError) {
        let refused = matches!(error, CallError::Refused { .. } | CallError::BadAnswer(_));
        let now = self.caller.clock.now();
        tracing::info!(collection = c.key, %error, "the account's own fields cannot be listed: it is read without them");
        self.caller.budget().habits.unlist(&c.key, &error.to_string(), refused, now);
        if self.known_fields(c).is_none() {
            self.know_fields(c, AppFields { read_at: now, ..AppFields::default() });
        }
    }
    /// Whether the list of fields was refused within the last day; then what is known is what there is.
    pub fn is_without_fields(&self, c: &Collection) -> bool {
        let now = self.caller.clock.now();
        let refused = c.does_without_fields() && self.caller.budget().habits.is_unlisted(&c.key, now);
        if refused && self.known_fields(c).is_none() {
            self.know_fields(c, AppFields { read_at: now, ..AppFields::default() });
        }
        refused
    }
    /// Why the fields of a collection could not be listed, in one sentence for people.
    pub fn unlisted(&self, c: &Collection) -> Option<String> {
        let why = self.caller.budget().habits.unlisted(&c.key).filter(|_| c.does_without_fields())?;
        Some(format!("{}: the account's own fields could not be listed: {why}", c.key))
    }
    /// What `$columns` leaves out of a list.
    pub(super) fn lacks(&self, list: &str) -> Value {
        self.caller.budget().habits.lacks(list, self.caller.clock.now())
    }
    /// Whether the list can be asked for again, without a column that it was refused for.
    pub(super) fn learns(&self, list: &str, error: &CallError) -> bool {
        let CallError::ColumnMissing { column, message } = error else { return false };
        let is_new = self.caller.budget().habits.lack(list, column, self.caller.clock.now());
        if is_new {
            tracing::info!(list, column, message, "the account lacks a column: it is left out");
        }
        is_new
    }
    /// What the account lacks of a collection, in one sentence for people.
    pub fn lacking(&self, c: &Collection) -> Option<String> {
        let columns = self.caller.budget().habits.lacking(&format!("{}/", c.key), self.caller.clock.now());
        let all = columns.join(", ");
        (!columns.is_empty()).then(|| format!("{}: left out, since the account does not show them: {all}", c.key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_column_is_learnt_once_for_its_list_and_tried_again_after_a_day() {
        let (mut lacks, day) = (Lacks::default(), 24 * 3_600_000);
        assert!(lacks.add("orders/pull", "Memo", Millis(0)));
        assert!(!lacks.add("orders/pull", "memo", Millis(1)), "it was left out already: leaving it out does not help");
        assert!(lacks.add("orders/pull/lines", "rate", Millis(1)));
        assert_eq!(lacks.of("orders/pull", Millis(2)), json!(["memo"]));
        assert_eq!(lacks.under("orders/", Millis(2)), ["memo", "rate"]);
        assert_eq!(lacks.of("bills/pull", Millis(2)), json!([]));
        assert_eq!(lacks.of("orders/pull", Millis(day)), json!([]));
        assert!(lacks.add("orders/pull", "memo", Millis(day)));
    }

    #[test]
    fn a_refusal_is_believed_for_a_day_and_another_failure_until_the_next_look() {
        let (mut unlisted, day) = (Unlisted::default(), 24 * 3_600_000);
        unlisted.add("orders", &"no ".repeat(200), true, Millis(5));
        unlisted.add("items", "away", false, Millis(5));
        assert!(unlisted.is_refused("orders", Millis(day)) && !unlisted.is_refused("orders", Millis(day + 5)));
        assert!(!unlisted.is_refused("items", Millis(5)), "it is asked for at the next look");
        assert_eq!(unlisted.why("items").as_deref(), Some("away"));
        assert_eq!(unlisted.why("orders").map(|why| why.len()), Some(WHY_CHARS_MAX));
        unlisted.remove("items");
        assert_eq!(unlisted.why("items"), None);
        (0..1_000).for_each(|n| unlisted.add(&n.to_string(), "no", true, Millis(5)));
        assert_eq!(unlisted.0.len(), LISTS_MAX);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut lacks = Lacks::default();
        let added = (0..1_000).filter(|n| lacks.add("orders/pull", &format!("c{n}"), Millis(0))).count();
        assert_eq!(added, COLUMNS_MAX);
        let lists = (0..1_000).filter(|n| lacks.add(&format!("l{n}/pull"), "c", Millis(0))).count();
        assert_eq!(lists, LISTS_MAX - 1);
    }
}
