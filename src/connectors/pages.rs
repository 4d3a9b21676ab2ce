//! Answers of lists, read: which records they show, and where the next page is.
//!
//! Always true: an answer that is not what was promised is a failure, never an empty list. Not here: requests (`rest`), what
//! the walk makes of a page (the engine).

use serde_json::Value;
use serde_json::value::RawValue;

use super::caller::Incoming;
use super::files::PagingKind;
use super::paging::{Position, Seen};
use super::pick::elements;
use super::record::RecordSpec;
use super::rest::{ListRest, not_json, value};
use super::spec::Method;
use super::{AppRecord, CallError, Collection, Page, PageMark, Place};
use crate::domain::time::Millis;

/// How the records of an answer are read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub parameters: &'a Value,
    pub seen_at: Millis,
}

/// The items of an answer, not read yet.
#[derive(Debug)]
pub struct RawPage<'t> {
    pub items: Vec<&'t RawValue>,
    pub next: Option<PageMark>,
}

/// The parts of an answer.
struct Parts<'t> {
    items: Vec<&'t RawValue>,
    /// Null ones included.
    count: usize,
    total: Option<u64>,
    next: Option<Value>,
    more: Option<bool>,
}

impl ListRest {
    /// Reads a page out of an answer.
    pub fn page(
        &self,
        body: &str,
        links: &[String],
        position: &Position,
        base: &url::Url,
        reader: Reader<'_>,
    ) -> Result<Page, CallError> {
        let parts = self.parts(body)?;
        let items = self.items(&parts)?;
        let record = self.record.local(reader.parameters, reader.seen_at)?;
        let read = |raw: &&RawValue| record.read(raw).map_err(CallError::BadAnswer);
        let (records, places) = match &self.unwind {
            None => (items.iter().map(read).collect::<Result<Vec<_>, _>>()?, None),
            Some(unwind) => {
                let parent = unwind.parent.local(reader.parameters, reader.seen_at)?;
                let (mut records, mut places) = (Vec::new(), Vec::with_capacity(items.len()));
                for item in &items {
                    let whole = parent.read(item).map_err(CallError::BadAnswer)?;
                    places.push(Place { id: whole.remote_id, updated_at: whole.updated_at });
                    for part in unwind.parts(item, reader.parameters)? {
                        records.push(record.read(&part).map_err(CallError::BadAnswer)?);
                    }
                }
                (records, Some(places))
            }
        };
        let ids = match &places {
            None => records.iter().map(|record| record.remote_id.as_str()).collect(),
            Some(places) => places.iter().map(|place| place.id.as_str()).collect(),
        };
        let next = self.next(&parts, ids, links, position, base)?;
        // After the first page such a list is only what is left of the whole.
        let total = parts.total.filter(|_| self.paging.kind != PagingKind::AfterId || *position == Position::First);
        Ok(Page { records, next, total, ids_only: self.ids_only, partial: self.partial, places })
    }
    /// The items of an answer as they came.
    pub fn raw_page<'t>(
        &self,
        incoming: &'t Incoming,
        position: &Position,
        base: &url::Url,
    ) -> Result<RawPage<'t>, CallError> {
        let parts = self.parts(&incoming.body)?;
        let next = self.next(&parts, Vec::new(), &incoming.links(), position, base)?;
        Ok(RawPage { items: self.items(&parts)?, next })
    }
    fn parts<'t>(&self, body: &'t str) -> Result<Parts<'t>, CallError> {
        let found = self.picker.pick(body).map_err(|error| not_json(body, &error))?;
        let [list, total, next, more] = found[..] else {
            return Err(CallError::BadAnswer("the answer cannot be read".to_owned()));
        };
        let list = list.ok_or_else(|| CallError::BadAnswer(format!("the answer has no list at {}", self.records)))?;
        let total = total.and_then(value).and_then(|total| total.as_u64().or_else(|| total.as_str()?.parse().ok()));
        let (next, more) = (next.and_then(value), more.and_then(value).and_then(|more| more.as_bool()));
        let (items, count) = items(list, &self.records)?;
        Ok(Parts { items, count, total, next, more })
    }
    fn items<'t>(&self, parts: &Parts<'t>) -> Result<Vec<&'t RawValue>, CallError> {
        let Some(picker) = &self.item else { return Ok(parts.items.clone()) };
        let inner = |raw: &&'t RawValue| {
            let found = picker.pick(raw.get()).map_err(|error| not_json(raw.get(), &error))?;
            let found = found.first().copied().flatten();
            found.ok_or_else(|| CallError::BadAnswer(format!("an item of {} holds no record", self.records)))
        };
        parts.items.iter().map(inner).collect()
    }
    fn next(
        &self,
        parts: &Parts<'_>,
        ids: Vec<&str>,
        links: &[String],
        position: &Position,
        base: &url::Url,
    ) -> Result<Option<PageMark>, CallError> {
        let Parts { count, total, more, .. } = *parts;
        self.paging.next(position, &Seen { count, total, next: parts.next.clone(), more, links, ids }, base)
    }
}

/// The items of a list, null ones left out, and how many there were with these.
fn items<'t>(list: &'t RawValue, at: &str) -> Result<(Vec<&'t RawValue>, usize), CallError> {
    let items = elements(list).ok_or_else(|| CallError::BadAnswer(format!("what stands at {at} is not a list")))?;
    let all: Vec<serde::de::IgnoredAny> = serde_json::from_str(list.get()).unwrap_or_default();
    Ok((items, all.len()))
}

/// The records of a list, and how many items it had, null ones included.
pub fn read_records(list: &RawValue, spec: &RecordSpec, at: &str) -> Result<(Vec<AppRecord>, usize), CallError> {
    let (items, count) = items(list, at)?;
    let read = |raw: &&RawValue| spec.read(raw).map_err(CallError::BadAnswer);
    Ok((items.iter().map(read).collect::<Result<_, _>>()?, count))
}

impl Collection {
    /// Whether the walk over all records is a list with a ceiling that can be split in time.
    pub fn splits_scans(&self) -> bool {
        let method = if self.scan.is_there() { &self.scan } else { &self.pull };
        self.cursor.ceiling.is_some() && matches!(method, Method::Rest(list) if list.takes_until)
    }
}
