//! Paths into JSON: `$.a.b[0]`, `$['a key']`, `$root.id`, `$parameters.store`.
//!
//! Always true: a path that leads nowhere is null, not an error. Not here: lists of matches (`$iterate` walks lists).

use std::fmt;

use serde_json::Value;

use crate::domain::json::Json;

/// The most steps of a path: what is made of paths is walked step by step, on a stack.
const STEPS_MAX: usize = 64;

/// A variable and the steps into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Empty for `$`, the current item.
    pub root: String,
    pub steps: Vec<Step>,
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// Reads `$name.key[0]['any key']`. The error is one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('$').ok_or_else(|| format!("the path {text:?} must begin with $"))?;
        Self::parse_rest(rest, text)
    }
    /// Reads the same without the leading `$`, as templates write it: `parameters.store`.
    pub fn parse_bare(text: &str) -> Result<Self, String> {
        Self::parse_rest(text, text)
    }
    fn parse_rest(rest: &str, whole: &str) -> Result<Self, String> {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (root, mut rest) = rest.split_at(end);
        if !root.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("the path {whole:?} names no variable"));
        }
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) =
                parse_step(rest).ok_or_else(|| format!("the path {whole:?} cannot be read at {rest:?}"))?;
            if steps.len() == STEPS_MAX {
                return Err(format!("a path has at most {STEPS_MAX} steps"));
            }
            steps.push(step);
            rest = after;
        }
        Ok(Self { root: root.to_owned(), steps })
    }
    /// Follows the steps into `value`.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.as_object()?.get(key),
            Step::Index(index) => value.as_array()?.get(*index),
        })
    }
    /// The same in a tree that borrows.
    pub fn find_in<'v, 'a>(&self, value: &'v Json<'a>) -> Option<&'v Json<'a>> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.as_object()?.get(key),
            Step::Index(index) => value.as_list()?.get(*index),
        })
    }
    /// Whether the path is `$` itself.
    pub fn is_whole(&self) -> bool {
        self.root.is_empty() && self.steps.is_empty()
    }
}

fn parse_step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        return (!key.is_empty()).then(|| (Step::Key(key.to_owned()), after));
    }
    let inside = text.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let (key, after) = quoted.split_once(quote)?;
            return Some((Step::Key(key.to_owned()), after.strip_prefix(']')?));
        }
    }
    let (index, after) = inside.split_once(']')?;
    Some((Step::Index(index.parse().ok()?), after))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.root)?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Key(key) if key.contains(['.', '[', ' ']) => write!(f, "['{key}']"),
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        })
    }
}

impl<'de> serde::Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_they_name() {
        let value = json!({"a": {"b c": [1, {"d": "x"}]}});
        for (path, found) in [
            ("$", Some(&value)),
            ("$.a['b c'][1].d", Some(&json!("x"))),
            ("$.a.nothing.here", None),
            ("$.a['b c'][9]", None),
        ] {
            let path = Path::parse(path).unwrap();
            assert_eq!(path.find(&value), found, "{path}");
            assert_eq!(path.find_in(&Json::from(&value)).map(Json::to_value).as_ref(), found, "{path}");
        }
        assert_eq!(Path::parse("$root.a['b c'][0]").unwrap().to_string(), "$root.a['b c'][0]");
    }

    #[test]
    fn a_path_that_cannot_be_read_says_where() {
        for bad in ["a.b", "$.", "$.a[", "$.a[x]", "$a b.c", "$.a['b]"] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
        assert!(Path::parse(&format!("${}", ".a".repeat(64))).is_ok());
        let long = Path::parse(&format!("${}", ".a".repeat(10_000))).expect_err("too long");
        assert_eq!(long, "a path has at most 64 steps");
    }
}
