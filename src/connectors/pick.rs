//! Parts of a JSON text by path, in one walk, as raw text: a page's records are never turned into trees and back.
//!
//! Always true: what is not asked for is skipped, not built. Not here: what the parts mean.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::mapping::path::{Path, Step};

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default)]
pub struct Picker {
    root: Branch,
    count: usize,
}

#[derive(Clone, Debug, Default)]
struct Branch {
    /// The numbers of the paths that end here.
    taken: Vec<usize>,
    steps: Vec<(Step, Branch)>,
}

impl Picker {
    /// A picker of these paths; the answers come in the same order.
    pub fn new(paths: &[Option<&Path>]) -> Self {
        let mut root = Branch::default();
        for (number, path) in paths.iter().enumerate() {
            let Some(path) = path else { continue };
            let mut branch = &mut root;
            for step in &path.steps {
                let at = match branch.steps.iter().position(|(s, _)| s == step) {
                    Some(at) => at,
                    None => {
                        branch.steps.push((step.clone(), Branch::default()));
                        branch.steps.len() - 1
                    }
                };
                branch = &mut branch.steps[at].1;
            }
            branch.taken.push(number);
        }
        Self { root, count: paths.len() }
    }
    /// What stands at each path. The error is the JSON parser's: the whole text is checked.
    pub fn pick<'t>(&self, text: &'t str) -> Result<Vec<Option<&'t RawValue>>, serde_json::Error> {
        let mut found = vec![None; self.count];
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Seed { branch: &self.root, found: &mut found }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(found)
    }
}

struct Seed<'p, 't> {
    branch: &'p Branch,
    found: &'p mut Vec<Option<&'t RawValue>>,
}

impl<'t> DeserializeSeed<'t> for Seed<'_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.branch.taken.is_empty() {
            return match self.branch.steps.is_empty() {
                true => IgnoredAny::deserialize(deserializer).map(|_| ()),
                false => deserializer.deserialize_any(self),
            };
        }
        let raw = <&RawValue>::deserialize(deserializer)?;
        for number in &self.branch.taken {
            self.found[*number] = Some(raw);
        }
        if !self.branch.steps.is_empty() {
            // Something further in is asked for as well: one more walk over this part.
            let inner = Branch { taken: Vec::new(), steps: self.branch.steps.clone() };
            let seed = Seed { branch: &inner, found: self.found };
            let mut again = serde_json::Deserializer::from_str(raw.get());
            seed.deserialize(&mut again).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

impl<'t> Visitor<'t> for Seed<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            let hit = self.branch.steps.iter().find(|(step, _)| matches!(step, Step::Key(k) if *k == key));
            match hit {
                Some((_, branch)) => map.next_value_seed(Seed { branch, found: &mut *self.found })?,
                None => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<(), A::Error> {
        const PAST: &Branch = &Branch { taken: Vec::new(), steps: Vec::new() };
        for index in 0.. {
            let hit = self.branch.steps.iter().find(|(step, _)| *step == Step::Index(index));
            let branch = hit.map_or(PAST, |(_, branch)| branch);
            if list.next_element_seed(Seed { branch, found: &mut *self.found })?.is_none() {
                break;
            }
        }
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// The elements of a JSON list, null ones left out. None if it is not a list; a null is an empty list, since Adobe
/// Commerce answers `items: null` for an empty set in some modules.
pub fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    let list: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).ok()?;
    Some(list.unwrap_or_default().into_iter().filter(|item| item.get() != "null").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(paths: &[&str], text: &str) -> Vec<Option<String>> {
        let paths: Vec<Path> = paths.iter().map(|p| Path::parse(p).unwrap()).collect();
        let picker = Picker::new(&paths.iter().map(Some).collect::<Vec<_>>());
        picker.pick(text).unwrap().into_iter().map(|raw| raw.map(|raw| raw.get().to_owned())).collect()
    }

    #[test]
    fn parts_come_out_byte_for_byte() {
        let text = r#"{"n":1.50,"items":[{"id": 1e0},null],"page":{"next":{"after":"x"}},"s":"v","b":true,"z":null}"#;
        let found = pick(&["$.items", "$.page.next.after", "$.n", "$.items[0].id", "$.s.deeper", "$.n.deeper"], text);
        let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [Some(r#"[{"id": 1e0},null]"#), Some(r#""x""#), Some("1.50"), Some("1e0"), None, None]);
        assert_eq!(pick(&["$"], "[1]"), [Some("[1]".to_owned())]);
        assert_eq!(pick(&["$.a"], "5"), [None]);
    }

    #[test]
    fn half_a_json_is_an_error() {
        let picker = Picker::new(&[]);
        for bad in ["{\"a\":[1,", "<html>", "", "{} {}"] {
            assert!(picker.pick(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn null_lists_and_null_items_are_empty() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(elements(&raw("null")).unwrap().len(), 0);
        assert_eq!(elements(&raw("[null, 1, null]")).unwrap().len(), 1);
        assert!(elements(&raw("{}")).is_none());
    }
}
