//! Cuts a collection into pages, by page number and by cursor alike.
//!
//! Always true: a cursor names the last record it has shown, so records that come, go or change meanwhile neither
//! repeat nor hide another; page numbers count from 1 and have the weakness that real ones have: what is deleted
//! from an earlier page moves the rest up.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::refusal::Refusal;
use super::table::{Collection, Table};
use crate::domain::time::Millis;

/// Records of one page, at most.
pub const PAGE_SIZE_MAX: usize = 250;
const PAGE_SIZE: usize = 50;

/// The query of `GET /api/{collection}`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ListQuery {
    /// RFC 3339; records changed at this time or later.
    pub updated_since: Option<String>,
    /// RFC 3339; records changed at this time or earlier.
    pub updated_until: Option<String>,
    pub page: Option<String>,
    pub page_size: Option<String>,
    pub cursor: Option<String>,
    /// `updated_at` or `id`.
    pub sort: Option<String>,
}

/// In which order a list comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By (updatedAt, id).
    Updated,
    Id,
}

/// Where a page starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// Page number, from 1.
    Page(usize),
    /// After this record: its place in the order.
    After(Millis, String),
}

/// A list that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub since: Millis,
    pub until: Option<Millis>,
    pub order: Order,
    pub from: From,
    pub size: usize,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub ids: Vec<String>,
    /// Of the whole list.
    pub total: usize,
    pub pages: usize,
    /// The cursor of the next page; none on the last.
    pub next: Option<String>,
}

/// What a page past the end answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PastTheEnd {
    #[default]
    Empty,
    /// The last page again and again, as Magento does.
    LastPage,
}

impl Want {
    /// Reads the query of a list.
    pub fn read(collection: Collection, query: &ListQuery) -> Result<Self, Refusal> {
        let filtered = query.updated_since.is_some() || query.updated_until.is_some();
        if filtered && !collection.has_updated_filter() {
            return Err(Refusal::malformed(format!("{} cannot be filtered by updated_at", collection.plural())));
        }
        let order = match query.sort.as_deref() {
            None if collection.has_updated_filter() => Order::Updated,
            None | Some("id") => Order::Id,
            Some("updated_at") if collection.has_updated_filter() => Order::Updated,
            Some(_) => return Err(Refusal::malformed("sort is updated_at or id")),
        };
        let from = match (&query.cursor, &query.page) {
            (Some(_), Some(_)) => return Err(Refusal::malformed("cursor and page cannot be combined")),
            (Some(cursor), None) if !cursor.is_empty() => read_cursor(cursor, order)?,
            (_, page) => From::Page(number("page", page.as_deref(), 1, 1_000_000)?),
        };
        let size = number("page_size", query.page_size.as_deref(), PAGE_SIZE, PAGE_SIZE_MAX)?;
        let since = time("updated_since", query.updated_since.as_deref())?.unwrap_or_default();
        let until = time("updated_until", query.updated_until.as_deref())?;
        Ok(Self { since, until, order, from, size })
    }
}

/// Reads an RFC 3339 time of a query.
pub fn time(name: &str, text: Option<&str>) -> Result<Option<Millis>, Refusal> {
    match text {
        None => Ok(None),
        Some(text) => match Millis::parse_rfc3339(text) {
            Some(time) => Ok(Some(time)),
            None => Err(Refusal::malformed(format!("{name} is a time such as 2026-01-31T12:00:00Z"))),
        },
    }
}

fn number(name: &str, text: Option<&str>, default: usize, max: usize) -> Result<usize, Refusal> {
    let Some(text) = text else { return Ok(default) };
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Refusal::malformed(format!("{name} is a number from 1 to {max}"))),
    }
}

fn write_cursor(order: Order, at: Millis, id: &str) -> String {
    let order = if order == Order::Updated { 'u' } else { 'i' };
    BASE64_URL_SAFE_NO_PAD.encode(format!("{order}:{}:{id}", at.0))
}

fn read_cursor(cursor: &str, order: Order) -> Result<From, Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
    let text = String::from_utf8(bytes).unwrap_or_default();
    let mut parts = text.splitn(3, ':');
    let same = parts.next() == Some(if order == Order::Updated { "u" } else { "i" });
    match (same, parts.next().and_then(|n| n.parse().ok()), parts.next()) {
        (true, Some(at), Some(id)) => Ok(From::After(Millis(at), id.to_owned())),
        _ => Err(Refusal::malformed("the cursor is not one of this list")),
    }
}

/// Cuts one page. `ties` may rearrange records of the same time, for an app whose order among them is by chance.
pub fn cut(table: &Table, want: &Want, past: PastTheEnd, ties: impl FnOnce(&mut [(Millis, &str)])) -> Got {
    let inside = |at: Millis| at >= want.since && want.until.is_none_or(|until| at <= until);
    let mut list: Vec<(Millis, &str)> = match want.order {
        Order::Updated => table
            .by_update()
            .range((want.since, String::new())..)
            .filter(|(at, _)| inside(*at))
            .map(|(at, id)| (*at, id.as_str()))
            .collect(),
        Order::Id => table.rows().values().filter(|r| inside(r.updated)).map(|r| (r.updated, r.id.as_str())).collect(),
    };
    ties(&mut list);
    let pages = list.len().div_ceil(want.size).max(1);
    let start = match &want.from {
        From::Page(page) if *page > pages && past == PastTheEnd::LastPage => (pages - 1) * want.size,
        From::Page(page) => page.saturating_sub(1).saturating_mul(want.size),
        From::After(at, last) => list.partition_point(|(time, id)| match want.order {
            Order::Updated => (*time, *id) <= (*at, last.as_str()),
            Order::Id => *id <= last.as_str(),
        }),
    };
    let page = list.get(start..(start.saturating_add(want.size)).min(list.len())).unwrap_or_default();
    let more = start + page.len() < list.len();
    Got {
        ids: page.iter().map(|(_, id)| (*id).to_owned()).collect(),
        total: list.len(),
        pages,
        next: page.last().filter(|_| more).map(|(at, id)| write_cursor(want.order, *at, id)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        for n in 0..10 {
            table.insert(Collection::Contacts, Map::new(), Millis(100 + n / 4), 100).expect("room");
        }
        table
    }

    fn want(query: ListQuery) -> Want {
        Want::read(Collection::Contacts, &query).expect("a good query")
    }

    fn query(size: &str) -> ListQuery {
        ListQuery { page_size: Some(size.into()), ..ListQuery::default() }
    }

    #[test]
    fn a_cursor_walks_every_record_once_over_ties() {
        let (table, mut seen, mut cursor) = (table(), Vec::new(), None);
        loop {
            let got = cut(&table, &want(ListQuery { cursor: cursor.clone(), ..query("3") }), PastTheEnd::Empty, |_| {});
            assert_eq!(got.total, 10);
            seen.extend(got.ids);
            cursor = got.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 10);
        assert!(seen.is_sorted());
    }

    #[test]
    fn a_cursor_survives_the_deletion_of_the_record_it_names() {
        let mut table = table();
        let first = cut(&table, &want(query("3")), PastTheEnd::Empty, |_| {});
        table.delete("con_000003", Millis(200)).expect("there");
        let second = cut(&table, &want(ListQuery { cursor: first.next, ..query("3") }), PastTheEnd::Empty, |_| {});
        assert_eq!(second.ids, ["con_000004", "con_000005", "con_000006"]);
    }

    #[test]
    fn a_page_past_the_end_is_empty_or_the_last_one_again() {
        let past = want(ListQuery { page: Some("9".into()), ..query("4") });
        assert_eq!(cut(&table(), &past, PastTheEnd::Empty, |_| {}).ids.len(), 0);
        assert_eq!(cut(&table(), &past, PastTheEnd::LastPage, |_| {}).ids, ["con_000009", "con_000010"]);
    }

    #[test]
    fn the_updated_filter_includes_both_its_ends() {
        let since = Millis(101).rfc3339_millis();
        let until = Millis(101).rfc3339_millis();
        let got = cut(
            &table(),
            &want(ListQuery { updated_since: Some(since), updated_until: Some(until), ..query("50") }),
            PastTheEnd::Empty,
            |_| {},
        );
        assert_eq!(got.ids, ["con_000005", "con_000006", "con_000007", "con_000008"]);
    }

    #[test]
    fn bad_queries_say_what_is_wrong() {
        let bad = |query| Want::read(Collection::Users, &query).expect_err("refused").to_string();
        assert!(bad(query("0")).contains("page_size"));
        assert!(bad(ListQuery { cursor: Some("x".into()), ..query("5") }).contains("cursor"));
        assert!(bad(ListQuery { updated_since: Some("x".into()), ..query("5") }).contains("users"));
    }
}
