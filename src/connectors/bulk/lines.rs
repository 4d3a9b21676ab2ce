//! A file with one JSON object per line, read in pieces.
//!
//! Always true: a piece ends between two records; parts of a record are lines of their own behind it, which name it (or one
//! of its parts), and are put back where the list shows them, so that a record maps to the same whichever way it came (its
//! raw text may differ: the list says how its own parts go on). Not here: asking for it.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::BulkPiece;
use crate::connectors::mapping::path::{Path, Step};
use crate::connectors::pick::Picker;
use crate::connectors::record::RecordSpec;
use crate::connectors::session::parse;
use crate::connectors::{AppRecord, CallError};

/// Parts of one record.
const PARTS_MAX: usize = 100_000;

/// Where the parts of a record are put: in it, or in the part that they name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartFile {
    at: Path,
    /// More than the list shows would be another record.
    max: Option<usize>,
}

/// How the lines of a file are joined to records.
#[derive(Debug)]
pub struct Parts {
    /// Of a line: what names its record, and its own id.
    picker: Picker,
    /// By how their ids begin.
    parts: Vec<(String, PartFile)>,
}

/// Whether a piece is the last one, by `Content-Range` (RFC 9110, section 14.4).
pub fn ends(range: Option<&str>, offset: u64, length: usize) -> Result<bool, CallError> {
    let wrong = || CallError::BadAnswer("the file's pieces are not the ones that were asked for".to_owned());
    let (span, total) = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/')).ok_or_else(wrong)?;
    let (first, last) = span.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
    let (first, after, total) = (number(first)?, number(last)?.saturating_add(1), number(total)?);
    match first == offset && after.checked_sub(first) == u64::try_from(length).ok() {
        true => Ok(after >= total),
        false => Err(wrong()),
    }
}

/// A record and its parts so far.
struct Group<'t> {
    line: &'t str,
    id: String,
    parts: Vec<Part<'t>>,
    /// Where a part is among them, by its id.
    places: HashMap<String, usize>,
}

struct Part<'t> {
    kind: usize,
    text: &'t RawValue,
    /// The part that it is a part of; the record, where there is none.
    of: Option<usize>,
}

impl<'t> Group<'t> {
    fn add(&mut self, parent: &str, id: String, kind: usize, line: &'t str) -> Result<(), CallError> {
        let of = match self.places.get(parent) {
            _ if parent == self.id => None,
            // Apps nest connections to a depth of two.
            Some(place) if self.parts.get(*place).is_some_and(|part| part.of.is_none()) => Some(*place),
            Some(_) => return Err(bad("parts are nested deeper than a part of a part")),
            None => return Err(bad("a part does not follow its record")),
        };
        self.places.insert(id, self.parts.len());
        self.parts.push(Part { kind, text: raw(line)?, of });
        if self.parts.len() > PARTS_MAX {
            return Err(bad("a record has too many parts"));
        }
        Ok(())
    }
}

impl Parts {
    /// Parts of these kinds, which name their record in that member. The error is one sentence.
    pub fn new(parent: &str, parts: BTreeMap<String, PartFile>) -> Result<Self, &'static str> {
        for (prefix, part) in &parts {
            let keys = part.at.steps.iter().all(|step| matches!(step, Step::Key(_)));
            if prefix.is_empty() || part.at.steps.is_empty() || !keys || !part.at.root.is_empty() {
                return Err("parts belong at a path of names, such as $.lines.nodes, by how their ids begin");
            }
        }
        let key = |name: &str| Path { root: String::new(), steps: vec![Step::Key(name.to_owned())] };
        let picker = Picker::new(&[Some(&key(parent)), Some(&key("id"))]);
        Ok(Self { picker, parts: parts.into_iter().collect() })
    }
    /// The whole records of a piece; unless it is the last one, what follows the last record may belong to it.
    pub fn piece(&self, body: &[u8], offset: u64, is_last: bool, spec: &RecordSpec) -> Result<BulkPiece, CallError> {
        let end = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let body = if is_last { body } else { body.get(..end).unwrap_or_default() };
        let text = std::str::from_utf8(body).map_err(|_| bad("it is not UTF-8 text"))?;
        let (mut records, mut group, mut whole, mut at) = (Vec::new(), None::<Group<'_>>, 0, 0);
        for line in text.split_inclusive('\n') {
            let from = at;
            at += line.len();
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (parent, id) = self.read(line)?;
            match (parent, &mut group) {
                (None, _) => {
                    records.extend(group.take().map(|done| self.record(&done, spec)).transpose()?);
                    whole = from;
                    group = Some(Group { line, id, parts: Vec::new(), places: HashMap::new() });
                }
                (Some(parent), Some(group)) => {
                    let kind = self.kind(&id)?;
                    group.add(&parent, id, kind, line)?;
                }
                (Some(_), None) => return Err(bad("a part does not follow its record")),
            }
        }
        if is_last {
            records.extend(group.take().map(|done| self.record(&done, spec)).transpose()?);
            whole = at;
        }
        let next = offset.saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));
        Ok(BulkPiece { records, next, is_last })
    }
    /// What a line says of itself: the id of the record that it is a part of, and its own.
    fn read(&self, line: &str) -> Result<(Option<String>, String), CallError> {
        let found = self.picker.pick(line).map_err(|_| bad("a line is not JSON"))?;
        let text = |at: usize| -> Result<Option<String>, CallError> {
            let value = found.get(at).copied().flatten().map(|raw| parse(raw.get())).transpose()?;
            Ok(value.and_then(|value| value.as_str().map(str::to_owned)))
        };
        let (parent, id) = (text(0)?, text(1)?.ok_or_else(|| bad("a line has no id"))?);
        Ok((parent, id))
    }
    fn kind(&self, id: &str) -> Result<usize, CallError> {
        let kind = self.parts.iter().position(|(prefix, _)| id.starts_with(prefix.as_str()));
        kind.ok_or_else(|| bad("a part is of a kind that bulk.graphql.yml does not name"))
    }
    /// The record as the list shows it.
    fn record(&self, group: &Group<'_>, spec: &RecordSpec) -> Result<AppRecord, CallError> {
        let joined = match self.parts.is_empty() {
            true => raw(group.line)?.to_owned(),
            false => self.joined(group)?,
        };
        spec.read(&joined).map_err(CallError::BadAnswer)
    }
    fn joined(&self, group: &Group<'_>) -> Result<Box<RawValue>, CallError> {
        let mut record = parse(group.line)?;
        for (_, part) in &self.parts {
            if list(&mut record, &part.at).is_none() {
                return Err(bad("a record has no place for its parts"));
            }
        }
        let mut parts = group.parts.iter().map(|part| plain(part.text)).collect::<Result<Vec<Value>, _>>()?;
        for nested in [true, false] {
            for (at, part) in group.parts.iter().enumerate().filter(|(_, part)| part.of.is_some() == nested) {
                let value = parts.get_mut(at).map(Value::take).unwrap_or_default();
                let owner = match part.of {
                    Some(of) => parts.get_mut(of),
                    None => Some(&mut record),
                };
                let place = self.parts.get(part.kind).map(|(_, place)| place);
                let (Some(owner), Some(place)) = (owner, place) else { continue };
                let items = list(owner, &place.at).ok_or_else(|| bad("a part has no place for its parts"))?;
                if place.max.is_none_or(|max| items.len() < max) {
                    items.push(value);
                }
            }
        }
        to_raw_value(&record).map_err(|_| bad("a record cannot be kept"))
    }
}

/// A part without what only the file says of it.
fn plain(text: &RawValue) -> Result<Value, CallError> {
    let mut part = parse(text.get())?;
    if let Some(members) = part.as_object_mut() {
        members.retain(|name, _| !name.starts_with("__"));
    }
    Ok(part)
}

/// The list at a path of names, made where there is nothing.
fn list<'v>(record: &'v mut Value, at: &Path) -> Option<&'v mut Vec<Value>> {
    let mut value = record;
    for step in &at.steps {
        let Step::Key(key) = step else { return None };
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        value = value.as_object_mut()?.entry(key.as_str()).or_insert(Value::Null);
    }
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
}

fn raw(line: &str) -> Result<&RawValue, CallError> {
    serde_json::from_str(line).map_err(|_| bad("a line is not JSON"))
}

fn bad(what: &str) -> CallError {
    CallError::BadAnswer(format!("the file: {what}"))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
