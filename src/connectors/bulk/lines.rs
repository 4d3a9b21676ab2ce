//! A file with one JSON object per line, read in pieces.
//!
//! Always true: a piece ends between two records; parts of a record are lines of their own behind it, which name it, and
//! are put back where the list shows them, so that a record maps to the same whichever way it came (its raw text may
//! differ: the list says how its own parts go on). Not here: asking for it.

use std::collections::BTreeMap;

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

/// Where the parts of a record are put.
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
    parts: Vec<(usize, &'t RawValue)>,
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
                    group = Some(Group { line, id, parts: Vec::new() });
                }
                (Some(parent), Some(group)) if parent == group.id => group.parts.push((self.kind(&id)?, raw(line)?)),
                (Some(_), _) => return Err(bad("a part does not follow its record")),
            }
            if group.as_ref().is_some_and(|group| group.parts.len() > PARTS_MAX) {
                return Err(bad("a record has too many parts"));
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
        for (kind, part) in &group.parts {
            let Some((_, place)) = self.parts.get(*kind) else { continue };
            let Some(items) = list(&mut record, &place.at) else { continue };
            if place.max.is_none_or(|max| items.len() < max) {
                let mut part = parse(part.get())?;
                if let Some(members) = part.as_object_mut() {
                    members.retain(|name, _| !name.starts_with("__"));
                }
                items.push(part);
            }
        }
        to_raw_value(&record).map_err(|_| bad("a record cannot be kept"))
    }
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
