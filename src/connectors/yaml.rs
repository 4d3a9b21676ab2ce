//! YAML into types, with errors that name file, line and field.
//!
//! Always true: a duplicate key and an unknown field are errors. Not here: what the values mean.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Spanned};

use super::folder::SpecError;

/// How deep a document may nest. Expressions are compiled and evaluated level by level, on the stack of a thread.
const DEPTH_MAX: usize = 32;

/// Reads one YAML document.
pub fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, SpecError> {
    let options = serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: DEPTH_MAX } };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(file, text, &error))
}

fn explain(file: &str, text: &str, error: &Error) -> SpecError {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |l| l.line());
    let (field, message) = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            (Some(field.clone()), format!("unknown field; expected one of {}", expected.join(", ")))
        }
        Error::SerdeMissingField { field, .. } => (Some((*field).to_owned()), "the field is missing".to_owned()),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (key_on(text, line), format!("{variant:?} is not one of {}", expected.join(", ")))
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            (key_on(text, line), format!("it nests deeper than {DEPTH_MAX} levels"))
        }
        Error::DuplicateMappingKey { key, .. } => (key.clone(), "the key is there twice".to_owned()),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            (key_on(text, line), format!("expected {expected}, found {unexpected}"))
        }
        Error::Message { msg, .. } | Error::ExternalMessage { msg, .. } => (key_on(text, line), msg.clone()),
        other => (key_on(text, line), plain(&other.to_string())),
    };
    SpecError { field, ..SpecError::in_file(file, message).at(line) }
}

/// The error's first line, without the place that [`SpecError`] says itself.
fn plain(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    first.split(" at line ").next().unwrap_or(first).trim_start_matches("error: ").to_owned()
}

/// The key that stands on a line: the field that an error without a name of its own is about.
fn key_on(text: &str, line: u64) -> Option<String> {
    let index = usize::try_from(line.checked_sub(1)?).ok()?;
    let (key, _) = text.lines().nth(index)?.trim_start_matches([' ', '-']).split_once(':')?;
    let key = key.trim_matches(['"', '\'', ' ']);
    (!key.is_empty() && key.len() <= 60).then(|| key.to_owned())
}

/// Any YAML value, with the line of each part: what mapping expressions are compiled from.
#[derive(Clone, Debug)]
pub enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Placed>),
    Map(Vec<(String, Placed)>),
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Placed {
    pub node: Node,
    /// Counted from 1; 0 where it is not known.
    pub line: u64,
}

impl<'de> Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { node: spanned.value, line: spanned.referenced.line() })
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        i64::try_from(value).map(Node::Int).map_err(|_| E::custom("the number is too large; write it as text"))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

impl Node {
    /// What a user would call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
    /// The same value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::from(*value),
            Self::Float(value) => Value::from(*value),
            Self::Text(text) => Value::String(text.clone()),
            Self::List(items) => items.iter().map(|item| item.node.to_json()).collect(),
            Self::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), value.node.to_json())).collect(),
        }
    }
}
