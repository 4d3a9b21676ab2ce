//! Parts of a JSON text by path, in one walk, as raw text: a page's records are never turned into trees and back.
//!
//! Always true: what is not asked for is skipped, not built. Not here: what the parts mean.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::mapping::path::{Path, Step};
use crate::domain::json::{Json, Reader};

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
        Seed { branch: &self.root, found: &mut found, list: None }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(found)
    }
    /// The same of a record, read: what is not asked for is stepped over quickly, since the text has been checked. The error is
    /// one sentence, see [`read`](crate::domain::json::read).
    pub fn read<'t>(&self, raw: &'t RawValue) -> Result<Vec<Option<Json<'t>>>, String> {
        let mut found = vec![None; self.count];
        self.root.read(&mut Reader::new(raw), &mut found)?;
        Ok(found)
    }
    /// The same where the path of that number leads to a list: its elements are found in the same walk, unless another
    /// path leads there or further in; then it is among the rest, unread.
    pub fn pick_list<'t>(
        &self,
        text: &'t str,
        number: usize,
    ) -> Result<(Vec<Option<&'t RawValue>>, Listed<'t>), serde_json::Error> {
        let (mut found, mut listed) = (vec![None; self.count], Listed::Unread);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let list = Some((number, &mut listed));
        Seed { branch: &self.root, found: &mut found, list }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok((found, listed))
    }
}

impl Branch {
    /// Nothing of this part is asked for.
    const PAST: &Self = &Self { taken: Vec::new(), steps: Vec::new() };

    fn read<'t>(&self, reader: &mut Reader<'t>, found: &mut [Option<Json<'t>>]) -> Result<(), String> {
        let further = |is: &dyn Fn(&Step) -> bool| {
            self.steps.iter().find(|(step, _)| is(step)).map_or(Self::PAST, |(_, branch)| branch)
        };
        let mut inside = reader.clone();
        match reader.peek() {
            b'{' if !self.steps.is_empty() => inside.members(|reader, name| {
                let named = |step: &Step| matches!(step, Step::Key(key) if *key == name);
                further(&named).read(reader, found)
            })?,
            b'[' if !self.steps.is_empty() => inside.items(|reader, number| {
                let numbered = |step: &Step| *step == Step::Index(number);
                further(&numbered).read(reader, found)
            })?,
            _ if self.taken.is_empty() => return reader.skip(),
            _ => {}
        }
        if self.taken.is_empty() {
            *reader = inside;
            return Ok(());
        }
        let value = reader.value()?;
        for number in &self.taken {
            if let Some(place) = found.get_mut(*number) {
                *place = Some(value.clone());
            }
        }
        Ok(())
    }
}

/// What stands where a list is looked for.
#[derive(Debug, Default)]
pub enum Listed<'t> {
    /// Nothing, or it was not read as a list.
    #[default]
    Unread,
    /// Its elements, and how many there were with the null ones, which are left out. A null is an empty list.
    Elements(Vec<&'t RawValue>, usize),
    /// Something that is no list.
    Other,
}

struct Seed<'p, 't> {
    branch: &'p Branch,
    found: &'p mut Vec<Option<&'t RawValue>>,
    /// The path of this number leads to a list, whose elements go there.
    list: Option<(usize, &'p mut Listed<'t>)>,
}

impl<'t> Seed<'_, 't> {
    /// The same for something further in.
    fn inner<'s>(&'s mut self, branch: &'s Branch) -> Seed<'s, 't> {
        let list = self.list.as_mut().map(|(number, listed)| (*number, &mut **listed));
        Seed { branch, found: &mut *self.found, list }
    }
}

impl<'t> DeserializeSeed<'t> for Seed<'_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        let plain = self.branch.steps.is_empty();
        let Self { branch, found, list } = self;
        if let Some((number, listed)) = list {
            if plain && branch.taken == [number] {
                *listed = deserializer.deserialize_any(ElementsVisitor)?;
                return Ok(());
            }
            return Seed { branch, found, list: Some((number, listed)) }.walk(deserializer);
        }
        Seed { branch, found, list: None }.walk(deserializer)
    }
}

impl<'t> Seed<'_, 't> {
    fn walk<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
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
            let seed = Seed { branch: &inner, found: self.found, list: None };
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
    fn visit_map<A: MapAccess<'t>>(mut self, mut map: A) -> Result<(), A::Error> {
        let steps = &self.branch.steps;
        while let Some(Name(key)) = map.next_key()? {
            let hit = steps.iter().find(|(step, _)| matches!(step, Step::Key(k) if *k == key));
            match hit {
                Some((_, branch)) => map.next_value_seed(self.inner(branch))?,
                None => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'t>>(mut self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let steps = &self.branch.steps;
            let hit = steps.iter().find(|(step, _)| *step == Step::Index(index));
            let branch = hit.map_or(Branch::PAST, |(_, branch)| branch);
            if list.next_element_seed(self.inner(branch))?.is_none() {
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

/// A member's name, borrowed from the text where nothing in it is escaped.
struct Name<'t>(Cow<'t, str>);

impl<'de: 't, 't> Deserialize<'de> for Name<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'t> Visitor<'t> for NameVisitor {
    type Value = Name<'t>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }
    fn visit_borrowed_str<E>(self, name: &'t str) -> Result<Name<'t>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }
    fn visit_str<E>(self, name: &str) -> Result<Name<'t>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

struct ElementsVisitor;

impl<'t> Visitor<'t> for ElementsVisitor {
    type Value = Listed<'t>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }
    fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<Listed<'t>, A::Error> {
        let (mut items, mut count) = (Vec::new(), 0);
        while let Some(item) = list.next_element::<&RawValue>()? {
            count += 1;
            if item.get() != "null" {
                items.push(item);
            }
        }
        Ok(Listed::Elements(items, count))
    }
    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Listed<'t>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Listed::Other)
    }
    fn visit_unit<E>(self) -> Result<Listed<'t>, E> {
        Ok(Listed::Elements(Vec::new(), 0))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Listed<'t>, E> {
        Ok(Listed::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Listed<'t>, E> {
        Ok(Listed::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Listed<'t>, E> {
        Ok(Listed::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Listed<'t>, E> {
        Ok(Listed::Other)
    }
    fn visit_str<E>(self, _: &str) -> Result<Listed<'t>, E> {
        Ok(Listed::Other)
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
    use serde_json::Value;

    use super::*;

    fn pick(paths: &[&str], text: &str) -> Vec<Option<String>> {
        let paths: Vec<Path> = paths.iter().map(|p| Path::parse(p).unwrap()).collect();
        let picker = Picker::new(&paths.iter().map(Some).collect::<Vec<_>>());
        let picked: Vec<Option<String>> =
            picker.pick(text).unwrap().into_iter().map(|raw| raw.map(|raw| raw.get().to_owned())).collect();
        let read = |text: String| -> Vec<Option<Value>> {
            let raw = RawValue::from_string(text).unwrap();
            picker.read(&raw).unwrap().iter().map(|value| Some(value.as_ref()?.to_value())).collect()
        };
        let value = |raw: &Option<String>| Some(serde_json::from_str::<Value>(raw.as_ref()?).unwrap());
        let values: Vec<Option<Value>> = picked.iter().map(value).collect();
        let whole: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read(text.to_owned()), values, "both ways lead to the same");
        assert_eq!(read(serde_json::to_string_pretty(&whole).unwrap()), values, "spaces lead nowhere else");
        picked
    }

    #[test]
    fn parts_come_out_byte_for_byte() {
        let text = r#"{"n":1.50,"items":[{"id": 1e0},null],"page":{"next":{"after":"x"}},"s":"v","b":true,"z":null}"#;
        let found = pick(&["$.items", "$.page.next.after", "$.n", "$.items[0].id", "$.s.deeper", "$.n.deeper"], text);
        let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [Some(r#"[{"id": 1e0},null]"#), Some(r#""x""#), Some("1.50"), Some("1e0"), None, None]);
        assert_eq!(pick(&["$"], "[1]"), [Some("[1]".to_owned())]);
        let twice = r#"{"skip":{"a":["]",{}]},"a":{"b":[0,{"c":"\u0061"}]},"x":true,"y":[null,false],"a":{"b":[7]}}"#;
        let found = pick(&["$.a", "$.a.b[0]", "$.a.b", "$.y[1]", "$.b"], twice);
        let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [Some(r#"{"b":[7]}"#), Some("7"), Some("[7]"), Some("false"), None]);
        assert_eq!(pick(&["$.a"], "5"), [None]);
    }

    #[test]
    fn a_lists_elements_come_out_in_the_walk_that_finds_the_rest() {
        let paths: Vec<Path> = ["$.page.items", "$.total"].iter().map(|p| Path::parse(p).unwrap()).collect();
        let picker = Picker::new(&paths.iter().map(Some).collect::<Vec<_>>());
        let pick = |text: &str| {
            let (found, listed) = picker.pick_list(text, 0).unwrap();
            assert!(found[0].is_none());
            let items = match listed {
                Listed::Elements(items, count) => {
                    format!("{count} {}", items.iter().map(|item| item.get()).collect::<Vec<_>>().join(" "))
                }
                Listed::Unread => "unread".to_owned(),
                Listed::Other => "other".to_owned(),
            };
            (items, found[1].map(|total| total.get().to_owned()))
        };
        let total = Some("3".to_owned());
        let text = r#"{"total":3,"page":{"items":[{"id": 1.50},null,"\u0061"]}}"#;
        assert_eq!(pick(text), (r#"3 {"id": 1.50} "\u0061""#.to_owned(), total.clone()));
        assert_eq!(pick(r#"{"pag\u0065":{"items":null},"total":3}"#), ("0 ".to_owned(), total));
        for other in ["{\"a\":1}", "1.5", "\"x\"", "true"] {
            assert_eq!(pick(&format!(r#"{{"page":{{"items":{other}}}}}"#)).0, "other", "{other}");
        }
        assert_eq!(pick("{}").0, "unread");
        let whole = Path::parse("$").unwrap();
        let beside = Path::parse("$.total").unwrap();
        let (found, listed) = Picker::new(&[Some(&whole), Some(&beside)]).pick_list("[1]", 0).unwrap();
        assert!(matches!(listed, Listed::Unread) && found[0].is_some());
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
