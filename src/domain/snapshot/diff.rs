//! Which paths differ between two sets of unified fields.

use serde_json::{Map, Value};

use super::hash::{IgnoredFields, same_number};

/// How many paths are told; where there are more, the names at the top are told instead.
pub const PATHS_MAX: usize = 64;

/// Dotted paths that differ, in the order of `new`, then of `old`: `orderStatus`, `billingAddress.city`,
/// `lineItems.0.quantity`. An array whose length changed is told as a whole. Names that hold a dot are told as they are.
pub fn diff(old: &Map<String, Value>, new: &Map<String, Value>, ignored: &IgnoredFields) -> Vec<String> {
    let mut walk = Walk { ignored, names: Vec::new(), paths: Vec::new() };
    walk.object(old, new, "");
    if walk.paths.len() <= PATHS_MAX {
        return walk.paths;
    }
    let mut top = Vec::new();
    for name in names(old, new) {
        let mut walk = Walk { ignored, names: vec![name], paths: Vec::new() };
        if !ignored.skips(&[name]) {
            walk.value(old.get(name), new.get(name), name);
        }
        if !walk.paths.is_empty() {
            top.push(name.to_owned());
        }
    }
    top.truncate(PATHS_MAX);
    top
}

/// The names of `new`, then those of `old` that are not in it.
fn names<'a>(old: &'a Map<String, Value>, new: &'a Map<String, Value>) -> impl Iterator<Item = &'a str> {
    new.keys().chain(old.keys().filter(|name| !new.contains_key(*name))).map(String::as_str)
}

struct Walk<'a> {
    ignored: &'a IgnoredFields,
    /// Where we are, without array indexes.
    names: Vec<&'a str>,
    paths: Vec<String>,
}

impl<'a> Walk<'a> {
    fn object(&mut self, old: &'a Map<String, Value>, new: &'a Map<String, Value>, path: &str) {
        for name in names(old, new) {
            if self.paths.len() > PATHS_MAX {
                return;
            }
            self.names.push(name);
            if !self.ignored.skips(&self.names) {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self.value(old.get(name), new.get(name), &path);
            }
            self.names.pop();
        }
    }

    fn value(&mut self, old: Option<&'a Value>, new: Option<&'a Value>, path: &str) {
        match (old.filter(|v| !v.is_null()), new.filter(|v| !v.is_null())) {
            (None, None) => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => self.object(old, new, path),
            (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
                for (at, (old, new)) in old.iter().zip(new).enumerate() {
                    if self.paths.len() > PATHS_MAX {
                        return;
                    }
                    self.value(Some(old), Some(new), &format!("{path}.{at}"));
                }
            }
            (Some(Value::Number(old)), Some(Value::Number(new))) if same_number(old, new) => {}
            (Some(old), Some(new)) if is_plain(old) && old == new => {}
            _ => self.paths.push(path.to_owned()),
        }
    }
}

fn is_plain(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Bool(_))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::json::Members;
    use crate::domain::snapshot::unified_hash;

    fn paths(old: Value, new: Value, ignored: &[&str]) -> Vec<String> {
        diff(old.as_object().unwrap(), new.as_object().unwrap(), &IgnoredFields::new(ignored))
    }

    #[test]
    fn changed_fields_are_dotted_paths() {
        let old = json!({"orderStatus": "new", "note": "x", "billingAddress": {"city": "Leith", "phone": null},
            "lineItems": [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 1}], "tags": ["x"]});
        let new = json!({"orderStatus": "paid", "billingAddress": {"city": "Hull"},
            "lineItems": [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 2}], "tags": ["x", "y"], "customFields": {"a": 1}});
        let expected = ["orderStatus", "billingAddress.city", "lineItems.1.quantity", "tags", "customFields", "note"];
        assert_eq!(paths(old, new, &[]), expected);
    }

    #[test]
    fn a_flood_of_changes_is_told_by_the_names_at_the_top() {
        let items = |n: u32| Value::from((0..200).map(|i| json!({"quantity": i + n})).collect::<Vec<_>>());
        assert_eq!(
            paths(
                json!({"lineItems": items(0), "note": "a", "x": 1}),
                json!({"lineItems": items(1), "note": "b", "x": 1}),
                &[]
            ),
            ["lineItems", "note"]
        );
        let many = |n: u32| Value::Object((0..500).map(|i| (format!("f{i}"), n.into())).collect());
        assert_eq!(paths(many(1), many(2), &[]).len(), PATHS_MAX);
    }

    #[test]
    fn what_is_ignored_is_not_told() {
        assert_eq!(
            paths(json!({"a": 1, "updatedAt": 1}), json!({"a": 2, "updatedAt": 2}), &["a"]),
            Vec::<String>::new()
        );
    }

    fn any_fields() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            prop::sample::select(vec!["1", "1.0", "10e-1", "2", "0", "-0.0"])
                .prop_map(|n| serde_json::from_str(n).unwrap()),
            prop::sample::select(vec!["", "x", "1"]).prop_map(Value::from),
        ];
        let name = || prop::sample::select(vec!["a", "b", "c", "updatedAt", "skip"]).prop_map(str::to_owned);
        let value = leaf.prop_recursive(3, 12, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map(name(), inner, 0..3).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        });
        prop::collection::hash_map(name(), value, 0..4).prop_map(|m| m.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_hash_differs_exactly_if_a_path_does(old in any_fields(), new in any_fields()) {
            let ignored = IgnoredFields::new(&["skip", "a.skip"]);
            let hash = |fields| unified_hash(&Members::from(fields), &ignored);
            let same = hash(&old) == hash(&new);
            prop_assert_eq!(same, diff(&old, &new, &ignored).is_empty());
            prop_assert!(diff(&new, &new, &ignored).is_empty());
        }
    }
}
