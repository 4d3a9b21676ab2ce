//! Answers of lists, read: which records they show, and where the next page is.
//!
//! Always true: an answer that is not what was promised is a failure, never an empty list. Not here: requests (`rest`), what
//! the walk makes of a page (the engine).

use serde_json::Value;
use serde_json::value::RawValue;

use super::caller::Incoming;
use super::files::PagingKind;
use super::paging::{Paging, Position, Seen};
use super::pick::{Listed, Picker, elements};
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
    /// How far back the list goes.
    earliest: Option<&'t RawValue>,
}

/// An answer: its body and its `Link` headers.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    pub body: &'a str,
    pub links: &'a [String],
}

type Taken = (Vec<AppRecord>, Option<Vec<Place>>);

impl ListRest {
    /// Reads a page out of an answer. `paging` is this list's own, perhaps with another size.
    pub fn page(
        &self,
        paging: &Paging,
        incoming: Shown<'_>,
        position: &Position,
        base: &url::Url,
        reader: Reader<'_>,
    ) -> Result<Page, CallError> {
        let parts = self.parts(incoming.body)?;
        let record = self.record.local(reader.parameters, reader.seen_at)?;
        let (mut records, places) = self.taken(&parts, &record, reader)?;
        let ids = match &places {
            None => records.iter().map(|record| record.remote_id.as_str()).collect(),
            Some(places) => places.iter().map(|place| place.id.as_str()).collect(),
        };
        let next = next(paging, &parts, ids, incoming.links, position, base)?;
        if let (true, Position::Cursor(after)) = (paging.inclusive, position) {
            records.retain(|record| record.remote_id != *after);
        }
        // After the first page such a list is only what is left of the whole.
        let total = parts.total.filter(|_| self.paging.kind != PagingKind::AfterId || *position == Position::First);
        let earliest = match parts.earliest {
            None => None,
            Some(time) => self.record.read_time(time, reader.parameters)?,
        };
        Ok(Page { records, next, total, ids_only: self.ids_only, partial: self.partial, places, earliest })
    }
    /// The records of an answer; with what the list itself showed, where they are lists inside its items.
    fn taken(&self, parts: &Parts<'_>, record: &RecordSpec, reader: Reader<'_>) -> Result<Taken, CallError> {
        let place = |whole: AppRecord| Place { id: whole.remote_id, updated_at: whole.updated_at };
        if let Some(unwind) = &self.unwind {
            let parent = unwind.parent.local(reader.parameters, reader.seen_at)?;
            let (mut records, mut places) = (Vec::new(), Vec::with_capacity(parts.items.len()));
            for item in &parts.items {
                places.push(place(parent.read(item).map_err(CallError::BadAnswer)?));
                for part in unwind.parts(item, reader.parameters)? {
                    records.push(record.read(&part).map_err(CallError::BadAnswer)?);
                }
            }
            return Ok((records, Some(places)));
        }
        let Some(inner) = &self.inner else {
            return Ok((read_all(&parts.items, record, self.skips_others)?, None));
        };
        let sorted_by = self.item.as_ref().map(|spec| spec.local(reader.parameters, reader.seen_at)).transpose()?;
        let (mut records, mut places) = (Vec::new(), sorted_by.as_ref().map(|_| Vec::new()));
        for item in &parts.items {
            if let (Some(spec), Some(places)) = (&sorted_by, &mut places) {
                places.push(place(spec.read(item).map_err(CallError::BadAnswer)?));
            }
            match inside(inner, item)? {
                Some(raw) if raw.get().starts_with('[') && places.is_some() => {
                    let (items, _) = items(raw, &self.records)?;
                    records.extend(read_all(&items, record, self.skips_others)?);
                }
                Some(raw) => records.push(record.read(raw).map_err(CallError::BadAnswer)?),
                None => {}
            }
        }
        Ok((records, places))
    }
    /// The items of an answer as they came.
    pub fn raw_page<'t>(
        &self,
        incoming: &'t Incoming,
        position: &Position,
        base: &url::Url,
    ) -> Result<RawPage<'t>, CallError> {
        let parts = self.parts(&incoming.body)?;
        let next = next(&self.paging, &parts, Vec::new(), &incoming.links(), position, base)?;
        let items = match &self.inner {
            None => parts.items,
            Some(inner) => parts
                .items
                .iter()
                .map(|item| inside(inner, item))
                .filter_map(Result::transpose)
                .collect::<Result<_, _>>()?,
        };
        Ok(RawPage { items, next })
    }
    fn parts<'t>(&self, body: &'t str) -> Result<Parts<'t>, CallError> {
        let (found, listed) = self.picker.pick_list(body, 0).map_err(|error| not_json(body, &error))?;
        let [list, total, next, more, earliest] = found[..] else {
            return Err(CallError::BadAnswer("the answer cannot be read".to_owned()));
        };
        let total = total.and_then(value).and_then(|total| total.as_u64().or_else(|| total.as_str()?.parse().ok()));
        let (next, more) = (next.and_then(value), more.and_then(value).and_then(|more| more.as_bool()));
        let (items, count) = match (listed, list) {
            (Listed::Elements(items, count), _) => (items, count),
            (Listed::Other, _) => return Err(no_list(&self.records)),
            (Listed::Unread, Some(list)) => items(list, &self.records)?,
            (Listed::Unread, None) => {
                return Err(CallError::BadAnswer(format!("the answer has no list at {}", self.records)));
            }
        };
        Ok(Parts { items, count, total, next, more, earliest })
    }
}

fn next(
    paging: &Paging,
    parts: &Parts<'_>,
    ids: Vec<&str>,
    links: &[String],
    position: &Position,
    base: &url::Url,
) -> Result<Option<PageMark>, CallError> {
    let Parts { count, total, more, .. } = *parts;
    paging.next(position, &Seen { count, total, next: parts.next.clone(), more, links, ids }, base)
}

/// What stands inside an item, unless it is null.
fn inside<'t>(inner: &Picker, item: &&'t RawValue) -> Result<Option<&'t RawValue>, CallError> {
    let found = inner.pick(item.get()).map_err(|error| not_json(item.get(), &error))?;
    Ok(found.first().copied().flatten().filter(|raw| raw.get() != "null"))
}

/// The items of a list, null ones left out, and how many there were with these.
fn items<'t>(list: &'t RawValue, at: &str) -> Result<(Vec<&'t RawValue>, usize), CallError> {
    let items = elements(list).ok_or_else(|| no_list(at))?;
    let all: Vec<serde::de::IgnoredAny> = serde_json::from_str(list.get()).unwrap_or_default();
    Ok((items, all.len()))
}

fn no_list(at: &str) -> CallError {
    CallError::BadAnswer(format!("what stands at {at} is not a list"))
}

/// Reads records. `skips_others`: one whose id is not of this kind of record is left out.
fn read_all(items: &[&RawValue], spec: &RecordSpec, skips_others: bool) -> Result<Vec<AppRecord>, CallError> {
    let read = |raw: &RawValue| match skips_others {
        true => spec.read_own(raw),
        false => spec.read(raw).map(Some),
    };
    let mut records = Vec::with_capacity(items.len());
    for item in items {
        records.extend(read(item).map_err(CallError::BadAnswer)?);
    }
    Ok(records)
}

/// The records of a list.
pub fn read_records(list: &RawValue, spec: &RecordSpec, at: &str) -> Result<Vec<AppRecord>, CallError> {
    read_all(&items(list, at)?.0, spec, false)
}

impl Collection {
    /// Whether the walk over all records is a list with a ceiling that can be split in time.
    pub fn splits_scans(&self) -> bool {
        let method = if self.scan.is_there() { &self.scan } else { &self.pull };
        self.cursor.ceiling.is_some() && matches!(method, Method::Rest(list) if list.takes_until)
    }
}
