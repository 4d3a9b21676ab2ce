//! `join:` of a list, and `joins:` of a collection: what belongs to records and only another request shows, such as the
//! lines of transactions.
//!
//! Always true: a page's records get what belongs to them, in the order in which it came, or the page fails; the number of
//! requests and of items per page is bounded. Not here: the wire.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::caller::Incoming;
use super::files::{ListFile, PagingKind};
use super::folder::SpecError;
use super::mapping::path::Path;
use super::mapping::{Env, Mapping};
use super::paging::Position;
use super::record::{RecordSpec, id_text};
use super::rest::ListRest;
use super::values::{self, Told};
use super::yaml::Placed;
use super::{AppRecord, CallError, Collection, Page, PageMark, Session};
use crate::domain::json::Json;

/// Requests for one page.
const PAGES_MAX: usize = 200;
/// Items of one page's records.
const ITEMS_MAX: usize = 100_000;

/// `join:` of a list file.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JoinFile {
    /// Where an item names the record that it belongs to.
    key: Path,
    /// The record's member that gets the list.
    into: String,
    /// The request, over `$records` (the ids of the page's records).
    list: Box<ListFile>,
    /// Statuses that say that the account may not see them: its records come without.
    #[serde(default)]
    optional: Vec<u16>,
    /// Records that one request is for; all of a page's where it is not said.
    at_once: Option<NonZeroUsize>,
    /// An expression over `$parameters` and `$values`: where it does not hold, nothing is asked.
    #[schemars(with = "Option<super::schemas::Expression>")]
    when: Option<Placed>,
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub struct Join {
    key: Path,
    into: String,
    list: Box<ListRest>,
    optional: Vec<u16>,
    at_once: usize,
    when: Option<Mapping>,
}

impl Join {
    /// Compiles the part of a file.
    pub fn new(file: &str, join: &JoinFile, record: &RecordSpec) -> Result<Self, SpecError> {
        let wrong = |field: &str, message: &str| Err(SpecError::in_file(file, message).field(field));
        if join.list.join.is_some() || join.list.unwind.is_some() || join.list.record.is_some() {
            return wrong("join.list", "it is a plain list: no join, unwind or record inside");
        }
        if join.list.paging.kind == PagingKind::AfterId {
            return wrong("join.list.paging.kind", "after-id needs the ids of records; use another kind");
        }
        let list = Box::new(ListRest::new(file, &join.list, record)?);
        let when = join.when.as_ref().map(|when| Mapping::compile(file, when, &["parameters", values::NAME]));
        Ok(Self {
            key: join.key.clone(),
            into: join.into.clone(),
            list,
            optional: join.optional.clone(),
            at_once: join.at_once.map_or(usize::MAX, NonZeroUsize::get),
            when: when.transpose().map_err(|error| error.field("join.when"))?,
        })
    }
    /// The members of a variable that it uses.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        self.when.iter().flat_map(|when| when.names(variable)).chain(self.list.names(variable)).collect()
    }
    fn add(&self, items: Vec<&RawValue>, to: &mut HashMap<String, Vec<Value>>) -> Result<(), CallError> {
        for item in items {
            let item: Value = serde_json::from_str(item.get())
                .map_err(|error| CallError::BadAnswer(format!("an item of {}: {error}", self.into)))?;
            let key = self.key.find(&item).and_then(|id| id_text(&Json::from(id))).ok_or_else(|| {
                CallError::BadAnswer(format!("an item of {} names no record at {}", self.into, self.key))
            })?;
            // What belongs to no record of the page is not asked for again.
            if let Some(list) = to.get_mut(&key) {
                list.push(item);
            }
        }
        Ok(())
    }
}

impl Session {
    /// Gives records what the collection's `joins` find, however the records were read.
    pub(super) async fn complete(&self, c: &Collection, records: &mut [AppRecord]) -> Result<(), CallError> {
        for join in &c.joins {
            self.join(join, c, &c.key, records).await?;
        }
        Ok(())
    }
    /// The same for a page, unless it shows ids alone.
    pub(super) async fn complete_page(&self, c: &Collection, mut page: Page) -> Result<Page, CallError> {
        if !page.ids_only {
            self.complete(c, &mut page.records).await?;
        }
        Ok(page)
    }
    fn joins(&self, join: &Join, told: &Told) -> bool {
        let mut variables = self.caller.variables();
        variables.extend(told.variables());
        join.when.as_ref().is_none_or(|when| when.holds(&Env::of(&variables)))
    }
    /// Gives records what belongs to them. `list`: the name of what they were read by.
    pub(super) async fn join(
        &self,
        join: &Join,
        c: &Collection,
        list: &str,
        records: &mut [AppRecord],
    ) -> Result<(), CallError> {
        let told = self.told(c);
        if !self.joins(join, &told) {
            return Ok(());
        }
        let mut found: HashMap<String, Vec<Value>> =
            records.iter().map(|record| (record.remote_id.clone(), Vec::new())).collect();
        let ids: Vec<&str> = records.iter().map(|record| record.remote_id.as_str()).collect();
        let fields = self.fields_variable(c).await?;
        let asking = Asking { join, name: format!("{list}/{}", join.into), fields, told };
        let mut left = (PAGES_MAX, ITEMS_MAX);
        for ids in ids.chunks(join.at_once) {
            self.join_some(&asking, ids, &mut left, &mut found).await?;
        }
        records.iter_mut().try_for_each(|record| put(record, &join.into, &mut found))
    }
    /// The same for as many as one request may be for. `left`: pages and items that this page's records may still cost.
    async fn join_some(
        &self,
        asking: &Asking<'_>,
        ids: &[&str],
        left: &mut (usize, usize),
        found: &mut HashMap<String, Vec<Value>>,
    ) -> Result<(), CallError> {
        let (join, ids) = (asking.join, ids.iter().copied().collect::<Value>());
        let mut mark = None::<PageMark>;
        loop {
            left.0 = left.0.checked_sub(1).ok_or_else(|| too_many(join, "requests"))?;
            let position = join.list.paging.position(mark.as_ref())?;
            let Some(incoming) = self.joining(asking, &ids, &position).await? else { return Ok(()) };
            let raw = join.list.raw_page(&incoming, &position, &self.caller.base)?;
            left.1 = left.1.checked_sub(raw.items.len()).ok_or_else(|| too_many(join, "items"))?;
            join.add(raw.items, found)?;
            mark = raw.next;
            if mark.is_none() {
                return Ok(());
            }
        }
    }
    /// One request of a join, made again without columns that the account lacks. None: it may not see these.
    async fn joining(
        &self,
        asking: &Asking<'_>,
        ids: &Value,
        position: &Position,
    ) -> Result<Option<Incoming>, CallError> {
        let Asking { join, name, fields, told } = asking;
        let page = join.list.paging.variable(position);
        loop {
            let lacks = self.lacks(name);
            let mut variables = self.caller.variables();
            variables.extend([("page", &page), ("records", ids), ("lacks", &lacks), ("fields", fields)]);
            variables.extend(told.variables());
            let outgoing = join.list.request_at(&Env::of(&variables), position)?;
            match self.caller.call(outgoing).await {
                Ok(incoming) => return Ok(Some(incoming)),
                Err(failure) if join.list.names_columns() && self.learns(name, &failure.error) => {}
                Err(failure) if failure.status.is_some_and(|status| join.optional.contains(&status)) => {
                    let error = &failure.error;
                    tracing::info!(list = name, %error, "the account may not see what belongs to its records");
                    return Ok(None);
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }
}

/// Who asks for what belongs to records.
struct Asking<'a> {
    join: &'a Join,
    name: String,
    fields: Value,
    told: Told,
}

fn too_many(join: &Join, what: &str) -> CallError {
    let most = if what == "items" { ITEMS_MAX } else { PAGES_MAX };
    CallError::BadAnswer(format!("{} of one page's records need more than {most} {what}", join.into))
}

fn put(record: &mut AppRecord, into: &str, found: &mut HashMap<String, Vec<Value>>) -> Result<(), CallError> {
    let bad = |error: serde_json::Error| CallError::BadAnswer(format!("a record cannot take {into}: {error}"));
    let mut members: serde_json::Map<String, Value> = serde_json::from_str(record.raw.get()).map_err(bad)?;
    members.insert(into.to_owned(), found.get(&record.remote_id).cloned().unwrap_or_default().into());
    record.raw = serde_json::value::to_raw_value(&members).map_err(bad)?;
    Ok(())
}
