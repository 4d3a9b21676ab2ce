//! Lists of an app, page by page: one request, or one run of a script, for each.
//!
//! Always true: a page that the app finds too costly is asked for in a smaller size; records that are shown in part are
//! handed on whole. Not here: which page comes next (`domain::pull`), how an answer is read (`connectors::pages`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::mapping::Env;
use super::mapping::path::Path;
use super::mapping::zones::Local;
use super::pages::{Reader, Shown, read_records};
use super::paging::Paging;
use super::pick::Picker;
use super::record::RecordSpec;
use super::rest::{ListRest, not_json};
use super::script::Script;
use super::session::unsupported;
use super::spec::{Collection, Cursor, Method};
use super::{CallError, Page, PageMark, Part, PullQuery, Session};
use crate::domain::time::Millis;

/// Pages of a list of several kinds of records that hold none of the wanted kind.
const SKIPPED_MAX: u32 = 100;

/// What a list is asked for, as templates and scripts see it.
struct Bounds {
    since: Value,
    until: Value,
}

impl Session {
    pub(super) async fn list(
        &self,
        method: &Method<ListRest>,
        c: &Collection,
        part: Option<&Part>,
        query: &PullQuery,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        if part.is_none() && c.each.is_some() {
            return Err(CallError::NotSupported(format!("the list of {} without a value of its `each`", c.key)));
        }
        let each = part.map(Part::variable).unwrap_or_default();
        let ask = Ask { c, each, record: Value::Null, query, mark };
        match method {
            Method::Rest(list) => self.list_rest(list, ask).await,
            Method::Script(script) => self.list_script(script, ask).await,
            other => Err(unsupported(other, c, "the list")),
        }
    }
    pub(super) async fn list_rest(&self, list: &ListRest, ask: Ask<'_>) -> Result<Page, CallError> {
        let name = format!("{}/{}", ask.c.key, list.name);
        let (habits, usual) = (&self.caller.budget().habits, list.paging.size);
        let (mut mark, mut skipped) = (ask.mark.cloned(), 0);
        loop {
            let size = if list.paging.adapts() { habits.size(&name, usual) } else { usual };
            let mut paging = list.paging;
            paging.size = size;
            match self.list_page((list, &name), &paging, &ask, mark.as_ref()).await {
                Err(CallError::TooCostly(why)) if paging.adapts() && habits.shrink(&name, size) => {
                    tracing::info!(collection = ask.c.key, size, why, "a page is too large for the app: half of it");
                }
                Err(error) if list.names_columns() && self.learns(&name, &error) => {}
                // An empty page would be the last one: this is only one of other kinds of records.
                Ok(page) if list.skips_others && page.records.is_empty() && page.next.is_some() => {
                    skipped += 1;
                    if skipped > SKIPPED_MAX {
                        return Err(CallError::BadAnswer(format!("{SKIPPED_MAX} pages hold no such record")));
                    }
                    mark = page.next;
                }
                Ok(page) => {
                    habits.went_well(&name, usual);
                    return Ok(page);
                }
                Err(error) => return Err(error),
            }
        }
    }
    async fn list_page(
        &self,
        (list, name): (&ListRest, &str),
        paging: &Paging,
        ask: &Ask<'_>,
        mark: Option<&PageMark>,
    ) -> Result<Page, CallError> {
        let position = paging.position(mark)?;
        let page = paging.variable(&position);
        let parameters = &self.caller.parameters;
        let local = ask.c.request_time.local(parameters).map_err(CallError::BadAnswer)?;
        let bounds = bounds(ask.query, &ask.c.cursor, &local);
        let (fields, told) = (self.fields_variable(ask.c).await?, self.told(ask.c));
        let lacks = self.lacks(name);
        let mut variables = self.caller.variables();
        variables.extend([("page", &page), ("since", &bounds.since), ("until", &bounds.until)]);
        variables.extend([("each", &ask.each), ("record", &ask.record), ("fields", &fields), ("lacks", &lacks)]);
        variables.extend(told.variables());
        let env = Env::of(&variables);
        let outgoing = list.request(&env, ask.query.since.is_some(), ask.query.until.is_some())?.at(&position);
        let seen_at = self.caller.clock.now();
        let incoming = self.caller.call(outgoing).await?;
        let reader = Reader { parameters, seen_at };
        let shown = Shown { body: &incoming.body, links: &incoming.links() };
        let mut page = list.page(paging, shown, &position, &self.caller.base, reader)?;
        if let Some(join) = &list.join {
            self.join(join, ask.c, name, &mut page.records).await?;
        }
        self.type_values(ask.c, &mut page.records)?;
        page.records = self.whole(list, ask.c, page.records).await?;
        Ok(page)
    }
    async fn list_script(&self, script: &Arc<Script>, ask: Ask<'_>) -> Result<Page, CallError> {
        let bounds = bounds(ask.query, &ask.c.cursor, &Local::rfc3339());
        let mut input = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() && value.as_object().is_none_or(|members| !members.is_empty()) {
                input.insert(name.to_owned(), value);
            }
        };
        put("since", bounds.since);
        put("until", bounds.until);
        put("each", ask.each);
        if let Some(PageMark(mark)) = ask.mark {
            let page = mark.strip_prefix("j:").and_then(|json| serde_json::from_str(json).ok());
            put(
                "page",
                page.ok_or_else(|| CallError::PageExpired("the stored page mark is of another kind".to_owned()))?,
            );
        }
        put("fields", self.fields_variable(ask.c).await?);
        self.told(ask.c).put(&mut input);
        let seen_at = self.caller.clock.now();
        let text = self.run(script, Value::Object(input)).await?;
        let record = ask.c.record.local(&self.caller.parameters, seen_at)?;
        let mut page = script_page(&text, &record)?;
        self.type_values(ask.c, &mut page.records)?;
        Ok(page)
    }
}

/// What one page of a list is asked for.
pub(super) struct Ask<'a> {
    pub c: &'a Collection,
    /// The variable `each`; null without one.
    pub each: Value,
    /// The variable `record`, of a list that fetches one; else null.
    pub record: Value,
    pub query: &'a PullQuery,
    pub mark: Option<&'a PageMark>,
}

/// The page that a script made: `{records, next?, total?}`.
pub(super) fn script_page(text: &str, record: &RecordSpec) -> Result<Page, CallError> {
    let path = |text: &str| Path::parse(text).map_err(CallError::Script);
    let (records, next, total, ids_only) = (path("$.records")?, path("$.next")?, path("$.total")?, path("$.idsOnly")?);
    let picker = Picker::new(&[Some(&records), Some(&next), Some(&total), Some(&ids_only)]);
    let found = picker.pick(text).map_err(|error| not_json(text, &error))?;
    let [Some(list), next, total, ids_only] = found[..] else {
        return Err(CallError::Script("the script returned no records".to_owned()));
    };
    let records = read_records(list, record, "records")?;
    let next = next.map(RawValue::get).filter(|next| !matches!(*next, "null" | "\"\"" | "false"));
    Ok(Page {
        records,
        next: next.map(|next| PageMark(format!("j:{next}"))),
        total: total.and_then(|total| total.get().parse().ok()),
        ids_only: ids_only.is_some_and(|flag| flag.get() == "true"),
        ..Page::default()
    })
}

fn bounds(query: &PullQuery, cursor: &Cursor, local: &Local) -> Bounds {
    let mut since = Map::new();
    if let Some((time, id)) = &query.since {
        let bound = local.lower(*time);
        since.insert("time".to_owned(), bound.text.into());
        if let Some(id) = id.as_ref().filter(|_| !bound.moved) {
            since.insert("id".to_owned(), id.as_str().into());
        }
    }
    let mut until = Map::new();
    if let Some(time) = query.until {
        // The first time that is not wanted, for apps that leave the bound out.
        let time = if cursor.until_exclusive { tick_after(time, cursor.precision) } else { time };
        until.insert("time".to_owned(), local.upper(time).text.into());
    }
    Bounds { since: Value::Object(since), until: Value::Object(until) }
}

/// The start of the tick after the one that a time falls into.
fn tick_after(time: Millis, precision: Duration) -> Millis {
    let tick = u64::try_from(precision.as_millis()).unwrap_or(u64::MAX).max(1);
    Millis((time.0 - time.0 % tick).saturating_add(tick))
}
