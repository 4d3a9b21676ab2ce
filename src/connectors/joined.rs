//! Records that an app shows in parts: GraphQL gives the first few of what is inside a record (variants, line items).
//!
//! Always true: a record that is handed on is whole, or the call has failed; the parts of one record are bounded. Not here:
//! the pages of a list (`connectors::paging`).

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::mapping::Env;
use super::mapping::path::{Path, Step};
use super::rest::{FetchRest, ListRest};
use super::{AppRecord, CallError, Collection, Session};

/// Parts of one record.
const PARTS_MAX: usize = 100;

impl Session {
    /// Puts the whole record in place of each that the list shows in part. One that is gone meanwhile is left out.
    pub(super) async fn whole(
        &self,
        list: &ListRest,
        c: &Collection,
        records: Vec<AppRecord>,
    ) -> Result<Vec<AppRecord>, CallError> {
        let mut whole = Vec::with_capacity(records.len());
        for record in records {
            match list.is_partial(&record) {
                true => whole.extend(Box::pin(self.fetch(c, &record.remote_id)).await?),
                false => whole.push(record),
            }
        }
        Ok(whole)
    }

    /// Adds to a fetched record what is on the further pages of the connection inside it.
    pub(super) async fn joined(
        &self,
        fetch: &FetchRest,
        joins: &Path,
        id: &Value,
        first: &RawValue,
    ) -> Result<Box<RawValue>, CallError> {
        let mut record: Value = read(first)?;
        for _ in 0..PARTS_MAX {
            let Some(cursor) = next(joins, &record) else {
                return to_raw_value(&record)
                    .map_err(|error| CallError::BadAnswer(format!("the record cannot be kept: {error}")));
            };
            let page = json!({ "cursor": cursor });
            let mut variables = self.caller.variables();
            variables.extend([("record", id), ("page", &page)]);
            let outgoing = fetch.request(&Env::of(&variables))?;
            let incoming = self.caller.call(outgoing).await?;
            let part = fetch.record(&incoming.body)?;
            let part = part.ok_or_else(|| CallError::unavailable("the record went while it was read"))?;
            if !add(joins, &mut record, read(part)?, &cursor) {
                return Err(CallError::BadAnswer(format!("the list at {joins} does not go on from its own cursor")));
            }
        }
        Err(CallError::BadAnswer(format!("the list at {joins} has more than {PARTS_MAX} pages")))
    }
}

fn read(raw: &RawValue) -> Result<Value, CallError> {
    serde_json::from_str(raw.get()).map_err(|error| CallError::BadAnswer(format!("a record is not JSON: {error}")))
}

/// The cursor of the next page, if there is one.
fn next(joins: &Path, record: &Value) -> Option<String> {
    let info = joins.find(record)?.get("pageInfo")?;
    info["hasNextPage"].as_bool().filter(|more| *more)?;
    info["endCursor"].as_str().map(str::to_owned)
}

/// Adds the next part. False: it is not the next one.
fn add(joins: &Path, record: &mut Value, part: Value, after: &str) -> bool {
    let Some(part) = joins.find(&part) else { return false };
    let (Some(fresh), info) = (part.get("nodes").and_then(Value::as_array), part.get("pageInfo")) else { return false };
    let moves = info.and_then(|info| info["endCursor"].as_str()) != Some(after);
    let into = joins.steps.iter().try_fold(record, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    });
    let Some(Value::Object(into)) = into else { return false };
    let info = info.cloned().unwrap_or_default();
    match into.get_mut("nodes") {
        Some(Value::Array(nodes)) if moves => nodes.extend(fresh.iter().cloned()),
        _ => return false,
    }
    into.insert("pageInfo".to_owned(), info);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_added_in_order_and_a_list_that_stands_still_is_told() {
        let joins = Path::parse("$.lines").unwrap();
        let part = |nodes: Value, more: bool, end: &str| json!({"id": 1, "lines": {"nodes": nodes, "pageInfo": {"hasNextPage": more, "endCursor": end}}});
        let mut record = part(json!([1, 2]), true, "b");
        assert_eq!(next(&joins, &record).as_deref(), Some("b"));
        assert!(!add(&joins, &mut record, part(json!([1, 2]), true, "b"), "b"));
        assert!(!add(&joins, &mut record, json!({"id": 1}), "b"));
        assert!(add(&joins, &mut record, part(json!([3]), false, "c"), "b"));
        assert_eq!((&record["lines"]["nodes"], next(&joins, &record)), (&json!([1, 2, 3]), None));
    }
}
