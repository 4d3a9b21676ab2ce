//! `join:` of a list, and `joins:` of a collection: what belongs to records and only another request shows, such as the
//! lines of transactions.
//!
//! Always true: a page's records get what belongs to them, in the order in which it came, or the page fails; the number of
//! requests and of items per page is bounded. Not here: the wire.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;

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
    /// An expression over `$parameters` and `$values`: where it does not hold, nothing is asked.
    #[schemars(with = "Option<super::schemas::Expression>")]
    when: Option<Placed>,
    /// How many records a page of the list has at most, so that one request can name them all.
    page_size: Option<NonZeroU32>,
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub struct Join {
    key: Path,
    into: String,
    list: Box<ListRest>,
    optional: Vec<u16>,
    when: Option<Mapping>,
    page_size: Option<NonZeroU32>,
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
            when: when.transpose().map_err(|error| error.field("join.when"))?,
            page_size: join.page_size,
        })
    }
    /// The same for one of a collection's `joins`, which are asked for whatever list the records came by.
    pub fn beside(file: &str, join: &JoinFile, record: &RecordSpec) -> Result<Self, SpecError> {
        match join.page_size {
            None => Self::new(file, join, record),
            Some(_) => Err(SpecError::in_file(file, "it is for the join of one list").field("joins.pageSize")),
        }
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
    /// How many records a page of a list has.
    pub(super) fn page_size(&self, list: &ListRest, c: &Collection) -> u32 {
        let most = list.join.as_ref().filter(|join| self.joins(join, &self.told(c))).and_then(|join| join.page_size);
        most.map_or(list.paging.size, |most| list.paging.size.min(most.get()))
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
        if found.is_empty() {
            return Ok(());
        }
        let ids: Value = records.iter().map(|record| record.remote_id.as_str()).collect();
        let name = format!("{list}/{}", join.into);
        let (mut mark, mut items) = (None::<PageMark>, 0);
        for _ in 0..PAGES_MAX {
            let position = join.list.paging.position(mark.as_ref())?;
            mark = match self.joining(join, (&name, &told), &ids, &position).await? {
                None => None,
                Some(incoming) => {
                    let raw = join.list.raw_page(&incoming, &position, &self.caller.base)?;
                    items += raw.items.len();
                    if items > ITEMS_MAX {
                        let message = format!("more than {ITEMS_MAX} of {} for one page", join.into);
                        return Err(CallError::BadAnswer(message));
                    }
                    join.add(raw.items, &mut found)?;
                    raw.next
                }
            };
            if mark.is_none() {
                return records.iter_mut().try_for_each(|record| put(record, &join.into, &mut found));
            }
        }
        Err(CallError::BadAnswer(format!("the list of {} does not end", join.into)))
    }
    /// One request of a join, made again without columns that the account lacks. None: it may not see these.
    async fn joining(
        &self,
        join: &Join,
        (list, told): (&str, &Told),
        ids: &Value,
        position: &Position,
    ) -> Result<Option<Incoming>, CallError> {
        let page = join.list.paging.variable(position);
        loop {
            let lacks = self.lacks(list);
            let mut variables = self.caller.variables();
            variables.extend([("page", &page), ("records", ids), ("lacks", &lacks)]);
            variables.extend(told.variables());
            let outgoing = join.list.request_at(&Env::of(&variables), position)?;
            match self.caller.call(outgoing).await {
                Ok(incoming) => return Ok(Some(incoming)),
                Err(failure) if self.learns(list, &failure.error) => {}
                Err(failure) if failure.status.is_some_and(|status| join.optional.contains(&status)) => {
                    tracing::info!(list, error = %failure.error, "the account may not see what belongs to its records");
                    return Ok(None);
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }
}

fn put(record: &mut AppRecord, into: &str, found: &mut HashMap<String, Vec<Value>>) -> Result<(), CallError> {
    let bad = |error: serde_json::Error| CallError::BadAnswer(format!("a record cannot take {into}: {error}"));
    let mut members: serde_json::Map<String, Value> = serde_json::from_str(record.raw.get()).map_err(bad)?;
    members.insert(into.to_owned(), found.get(&record.remote_id).cloned().unwrap_or_default().into());
    record.raw = serde_json::value::to_raw_value(&members).map_err(bad)?;
    Ok(())
}
