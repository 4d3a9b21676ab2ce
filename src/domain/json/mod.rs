//! JSON that lies where it was read: texts and digits borrow from the app's own record, members keep their order.
//!
//! A mapping reads a record, takes some of it over and is done with it; a tree of owned values (`serde_json::Value`) copies
//! each text and hashes each name for that. Values that outlive their text are still those.
//!
//! Always true: a number keeps the digits it came with; no object has a name twice (of members that share one the last value
//! stands, where the first stood, as in `serde_json`); equal objects are equal whatever the order of their members. Not
//! here: checking that a text is JSON ([`RawValue`](serde_json::value::RawValue) has).

mod read;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

pub use read::{Reader, read};

/// Any JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json<'a> {
    #[default]
    Null,
    Bool(bool),
    /// Its digits.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Members<'a>),
}

/// An object's members, in order.
#[derive(Clone, Debug, Default)]
pub struct Members<'a>(Vec<Member<'a>>);

/// A name and what stands there.
pub type Member<'a> = (Cow<'a, str>, Json<'a>);

/// Members that are looked through one by one for a name that comes twice.
const FEW: usize = 16;

impl<'a> Json<'a> {
    /// Is it null?
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
    /// The members, if it is an object.
    pub fn as_object(&self) -> Option<&Members<'a>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }
    /// The same, as long as this one is there: no text is copied.
    pub fn lend(&self) -> Json<'_> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Number(digits) => Json::Number(Cow::Borrowed(digits)),
            Self::Text(text) => Json::Text(Cow::Borrowed(text)),
            Self::List(items) => Json::List(items.iter().map(Json::lend).collect()),
            Self::Object(members) => Json::Object(members.lend()),
        }
    }
    /// The same for as long as one likes: what is borrowed is copied.
    pub fn keep(self) -> Json<'static> {
        let text = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Null => Json::Null,
            Self::Bool(flag) => Json::Bool(flag),
            Self::Number(digits) => Json::Number(text(digits)),
            Self::Text(whole) => Json::Text(text(whole)),
            Self::List(items) => Json::List(items.into_iter().map(Json::keep).collect()),
            Self::Object(members) => Json::Object(members.keep()),
        }
    }
    /// The same as a value of its own.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Number(digits) => digits.parse().map_or(Value::Null, Value::Number),
            Self::Text(text) => Value::String(text.to_string()),
            Self::List(items) => Value::Array(items.iter().map(Json::to_value).collect()),
            Self::Object(members) => Value::Object(members.to_map()),
        }
    }
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(digits) => out.extend_from_slice(digits.as_bytes()),
            Self::Text(text) => quote(text, out),
            Self::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => members.write(out),
        }
    }
}

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::Number(Cow::Borrowed(number.as_str())),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => Self::Object(Members::from(members)),
        }
    }
}

impl<'a> Members<'a> {
    /// Members of which no two share a name, since they come out of another object.
    pub(super) fn distinct(members: Vec<Member<'a>>) -> Self {
        Self(members)
    }
    /// What stands under that name.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
    /// The members, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Member<'a>> {
        self.0.iter()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// What stands there, to be replaced.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Json<'a>> {
        self.0.iter_mut().map(|(_, value)| value)
    }
    /// Puts the members into the order of their names.
    pub fn sort(&mut self) {
        self.0.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    }
    /// Leaves only those members.
    pub fn retain(&mut self, mut stays: impl FnMut(&str, &Json<'a>) -> bool) {
        self.0.retain(|(name, value)| stays(name, value));
    }
    /// As [`Json::lend`].
    pub fn lend(&self) -> Members<'_> {
        self.kept(|_| true)
    }
    /// As [`Json::lend`], only members with such names.
    pub fn kept(&self, stays: impl Fn(&str) -> bool) -> Members<'_> {
        let kept = self.0.iter().filter(|(name, _)| stays(name));
        Members(kept.map(|(name, value)| (Cow::Borrowed(name.as_ref()), value.lend())).collect())
    }
    /// As [`Json::keep`].
    pub fn keep(self) -> Members<'static> {
        Members(self.0.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), value.keep())).collect())
    }
    /// As a map of its own.
    pub fn to_map(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, value)| (name.to_string(), value.to_value())).collect()
    }
    /// The object as JSON text.
    pub fn to_text(&self) -> String {
        let mut out = Vec::with_capacity(1024);
        self.write(&mut out);
        // All of it is text that was put together.
        String::from_utf8(out).unwrap_or_default()
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            quote(name, out);
            out.push(b':');
            value.write(out);
        }
        out.push(b'}');
    }
}

impl<'a> FromIterator<Member<'a>> for Members<'a> {
    fn from_iter<I: IntoIterator<Item = Member<'a>>>(members: I) -> Self {
        let members: Vec<Member<'a>> = members.into_iter().collect();
        if !shares_a_name(&members) {
            return Self(members);
        }
        let mut last = HashMap::with_capacity(members.len());
        for (at, (name, _)) in members.iter().enumerate() {
            last.entry(name.clone()).and_modify(|(_, last)| *last = at).or_insert((at, at));
        }
        let mut order: Vec<(usize, usize)> = last.into_values().collect();
        order.sort_unstable();
        let mut members: Vec<Option<Member<'a>>> = members.into_iter().map(Some).collect();
        Self(order.into_iter().filter_map(|(_, last)| members.get_mut(last)?.take()).collect())
    }
}

fn shares_a_name(members: &[Member<'_>]) -> bool {
    if members.len() > FEW {
        return members.iter().map(|(name, _)| name.as_ref()).collect::<HashSet<&str>>().len() < members.len();
    }
    let before = |at: usize| members.iter().take(at).map(|(name, _)| name);
    members.iter().enumerate().any(|(at, (name, _))| before(at).any(|other| other == name))
}

impl<'a> From<&'a Map<String, Value>> for Members<'a> {
    fn from(members: &'a Map<String, Value>) -> Self {
        Self(members.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), Json::from(value))).collect())
    }
}

impl<'a> IntoIterator for Members<'a> {
    type Item = Member<'a>;
    type IntoIter = std::vec::IntoIter<Member<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'m, 'a> IntoIterator for &'m Members<'a> {
    type Item = &'m Member<'a>;
    type IntoIter = std::slice::Iter<'m, Member<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl PartialEq for Members<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

/// Appends a text in quotes.
fn quote(text: &str, out: &mut Vec<u8>) {
    let escapes = |found, byte: &u8| found | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    // Without a way out of the loop over a part, its bytes are compared at once.
    let (parts, rest) = text.as_bytes().as_chunks::<32>();
    if parts.iter().any(|part| part.iter().fold(false, escapes)) || rest.iter().fold(false, escapes) {
        // Writing to memory does not fail, and a text can always be written.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests;
