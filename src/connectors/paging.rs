//! From one page to the next: page number, offset, cursor, link header, next address.
//!
//! Always true: pure; a walk ends on an empty page at the latest. A page past the end ends the walk: Adobe Commerce
//! answers it with the last page again (magento/magento2#8099), so the announced total is believed where there is one.
//! Not here: an app that gives the same page for ever (the engine compares pages).

use serde_json::{Map, Value};
use url::Url;

use super::files::{PagingFile, PagingKind};
use super::{CallError, PageMark};

/// Compiled paging.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    pub kind: PagingKind,
    pub size: u32,
    pub inclusive: bool,
    first: u64,
}

/// What the page at hand said about the others.
#[derive(Debug, Default)]
pub struct Seen<'a> {
    /// Items on the page, null ones included.
    pub count: usize,
    pub total: Option<u64>,
    /// The value at `next`.
    pub next: Option<Value>,
    /// The value at `more`.
    pub more: Option<bool>,
    /// The `Link` headers.
    pub links: &'a [String],
    /// The ids of the page's records.
    pub ids: Vec<&'a str>,
}

/// What a mark says, once read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    First,
    Number(u64),
    Cursor(String),
    /// Path and query on the base URI.
    Address(String),
}

impl Paging {
    /// Checks and compiles the part of a file. The error names the missing field.
    pub fn new(file: &PagingFile) -> Result<Self, (&'static str, String)> {
        let needs_next = matches!(file.kind, PagingKind::Cursor | PagingKind::NextUrl);
        if needs_next && file.next.is_none() {
            return Err((
                "paging.next",
                "this kind of paging needs next, where the answer holds the next page".to_owned(),
            ));
        }
        let needs_size = matches!(file.kind, PagingKind::Page | PagingKind::Offset | PagingKind::AfterId);
        if needs_size && file.size.is_none() && file.total.is_none() && file.more.is_none() {
            let message = "this kind of paging needs size, total or more, or nobody knows which page is the last";
            return Err(("paging.size", message.to_owned()));
        }
        let first = file.first.unwrap_or(u64::from(file.kind == PagingKind::Page));
        Ok(Self {
            kind: file.kind,
            size: file.size.map_or(0, std::num::NonZeroU32::get),
            inclusive: file.inclusive,
            first,
        })
    }
    /// Whether a page may have another size than the one before.
    pub fn adapts(&self) -> bool {
        self.size > 0 && matches!(self.kind, PagingKind::Cursor | PagingKind::Offset)
    }
    /// Reads a mark that [`Self::next`] wrote.
    pub fn position(&self, mark: Option<&PageMark>) -> Result<Position, CallError> {
        let Some(PageMark(mark)) = mark else { return Ok(Position::First) };
        let wrong = || CallError::PageExpired("the stored page mark is of another kind".to_owned());
        let (kind, rest) = mark.split_once(':').ok_or_else(wrong)?;
        match (kind, self.kind) {
            ("n", PagingKind::Page | PagingKind::Offset) => rest.parse().map(Position::Number).map_err(|_| wrong()),
            ("c", PagingKind::Cursor | PagingKind::AfterId) => Ok(Position::Cursor(rest.to_owned())),
            ("u", PagingKind::Link | PagingKind::NextUrl) => Ok(Position::Address(rest.to_owned())),
            _ => Err(wrong()),
        }
    }
    /// The variable `page` of a request.
    pub fn variable(&self, position: &Position) -> Value {
        let mut page = Map::new();
        if self.size > 0 && self.kind != PagingKind::None {
            page.insert("size".to_owned(), self.size.into());
        }
        let number = match position {
            Position::Number(number) => *number,
            _ => self.first,
        };
        match (self.kind, position) {
            (PagingKind::Page, _) => page.insert("number".to_owned(), number.into()),
            (PagingKind::Offset, _) => page.insert("offset".to_owned(), number.into()),
            (PagingKind::AfterId, Position::First) => page.insert("cursor".to_owned(), self.first.into()),
            (_, Position::Cursor(cursor)) => page.insert("cursor".to_owned(), cursor.as_str().into()),
            _ => None,
        };
        // One name for whichever it is, for connectors whose kind of paging is a parameter.
        let at = ["number", "offset", "cursor"].into_iter().find_map(|name| page.get(name).cloned());
        if let Some(at) = at {
            page.insert("at".to_owned(), at);
        }
        Value::Object(page)
    }
    /// The mark of the page after this one. None: this was the last.
    pub fn next(&self, position: &Position, seen: &Seen<'_>, base: &Url) -> Result<Option<PageMark>, CallError> {
        if seen.more == Some(false) {
            return Ok(None);
        }
        let mark = match self.kind {
            PagingKind::None => None,
            PagingKind::Page | PagingKind::Offset => self.next_number(position, seen),
            PagingKind::Cursor => match seen.next.as_ref().and_then(scalar) {
                Some(next) if *position == Position::Cursor(next.clone()) => {
                    return Err(CallError::BadAnswer("the next page is said to be this page".to_owned()));
                }
                next => next.map(|cursor| format!("c:{cursor}")),
            },
            PagingKind::AfterId => self.after_id(position, seen)?,
            PagingKind::Link => next_link(seen.links).map(|link| on_base(&link, base)).transpose()?,
            PagingKind::NextUrl => seen.next.as_ref().and_then(scalar).map(|link| on_base(&link, base)).transpose()?,
        };
        Ok(mark.map(PageMark))
    }
    fn after_id(&self, position: &Position, seen: &Seen<'_>) -> Result<Option<String>, CallError> {
        if let Position::Cursor(after) = position
            && seen.ids.iter().skip(usize::from(self.inclusive)).any(|id| *id == after.as_str())
        {
            return Err(CallError::BadAnswer(format!(
                "the list was asked for records after {after}, and holds {after}"
            )));
        }
        let short = self.size > 0 && seen.count < self.size as usize;
        let last = seen.ids.last().filter(|_| !short);
        match (last, position) {
            // A page of the record that it starts at alone would come for ever.
            (Some(last), Position::Cursor(after)) if *last == after => {
                Err(CallError::BadAnswer(format!("the list goes no further than {after}, and has no end")))
            }
            _ => Ok(last.map(|last| format!("c:{last}"))),
        }
    }
    fn next_number(&self, position: &Position, seen: &Seen<'_>) -> Option<String> {
        let number = match position {
            Position::Number(number) => *number,
            _ => self.first,
        };
        let count = u64::try_from(seen.count).unwrap_or(u64::MAX);
        let (next, reached) = match self.kind {
            PagingKind::Page => (number + 1, (number + 1).saturating_sub(self.first) * u64::from(self.size)),
            _ => (number + count, (number + count).saturating_sub(self.first)),
        };
        let last = match seen.total {
            Some(total) if reached > 0 => reached >= total,
            _ if seen.more == Some(true) => false,
            _ => seen.count < self.size as usize,
        };
        (count > 0 && !last).then(|| format!("n:{next}"))
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The target of `rel="next"` (RFC 8288).
fn next_link(headers: &[String]) -> Option<String> {
    for header in headers {
        let mut rest = header.as_str();
        while let Some((_, after)) = rest.split_once('<') {
            let (target, after) = after.split_once('>')?;
            let parameters = after.split('<').next().unwrap_or_default();
            let is_next = parameters.split([';', ',']).any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
                name.trim().eq_ignore_ascii_case("rel") && relations.any(|r| r.eq_ignore_ascii_case("next"))
            });
            if is_next {
                return Some(target.trim().to_owned());
            }
            rest = after;
        }
    }
    None
}

/// An address on the base URI, as a mark. Anything else is refused: credentials go only to the host they are for.
fn on_base(link: &str, base: &Url) -> Result<String, CallError> {
    let away = || CallError::BadAnswer("the next page's address is not on the connection's base URI".to_owned());
    let mut whole = base.clone();
    if !whole.path().ends_with('/') {
        whole.set_path(&format!("{}/", base.path()));
    }
    let url = whole.join(link).map_err(|_| away())?;
    if !stays(&url, base) {
        return Err(away());
    }
    let query = url.query().map(|q| format!("?{q}")).unwrap_or_default();
    Ok(format!("u:{}{query}", url.path()))
}

/// Whether an address is on the base URI: same scheme, host and port, and below its path.
pub fn stays(url: &Url, base: &Url) -> bool {
    let prefix = base.path().trim_end_matches('/');
    let below = url.path().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    url.origin() == base.origin() && below && url.username().is_empty() && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::yaml;

    fn paging(text: &str) -> Paging {
        Paging::new(&yaml::read::<PagingFile>("pull.rest.yml", text).unwrap()).unwrap()
    }

    fn walk(paging: &Paging, mark: Option<&str>, seen: &Seen<'_>) -> Option<String> {
        let base = Url::parse("https://shop.example/rest/all").unwrap();
        let mark = mark.map(|m| PageMark(m.to_owned()));
        let position = paging.position(mark.as_ref()).unwrap();
        paging.next(&position, seen, &base).unwrap().map(|mark| mark.0)
    }

    #[test]
    fn a_page_past_the_end_is_never_asked_for() {
        let by_page = paging("{kind: page, size: 100, total: $.total_count}");
        let seen = |count, total| Seen { count, total: Some(total), ..Seen::default() };
        assert_eq!(walk(&by_page, None, &seen(100, 250)).as_deref(), Some("n:2"));
        assert_eq!(walk(&by_page, Some("n:2"), &seen(100, 250)).as_deref(), Some("n:3"));
        assert_eq!(walk(&by_page, Some("n:3"), &seen(50, 250)), None);
        assert_eq!(walk(&by_page, Some("n:3"), &seen(100, 300)), None, "a full last page ends the walk too");
        assert_eq!(walk(&by_page, None, &seen(0, 0)), None);
        assert_eq!(walk(&by_page, Some("n:2"), &seen(0, 250)), None, "an empty page ends it whatever was announced");
    }

    #[test]
    fn without_a_total_a_short_page_is_the_last() {
        let by_offset = paging("{kind: offset, size: 50}");
        let seen = |count| Seen { count, ..Seen::default() };
        assert_eq!(walk(&by_offset, None, &seen(50)).as_deref(), Some("n:50"));
        assert_eq!(walk(&by_offset, Some("n:50"), &seen(49)), None);
        assert_eq!(by_offset.variable(&Position::First)["offset"], 0);
        let more = Seen { count: 3, more: Some(true), ..Seen::default() };
        assert_eq!(walk(&by_offset, None, &more).as_deref(), Some("n:3"));
        assert_eq!(walk(&by_offset, None, &Seen { more: Some(false), ..seen(50) }), None);
    }

    #[test]
    fn a_cursor_that_does_not_move_is_an_error() {
        let by_cursor = paging("{kind: cursor, next: $.next}");
        let seen = Seen { count: 1, next: Some("abc".into()), ..Seen::default() };
        assert_eq!(walk(&by_cursor, None, &seen).as_deref(), Some("c:abc"));
        let base = Url::parse("https://a.example/").unwrap();
        assert!(by_cursor.next(&Position::Cursor("abc".into()), &seen, &base).is_err());
        assert_eq!(walk(&by_cursor, None, &Seen { next: Some(Value::Null), ..Seen::default() }), None);
    }

    #[test]
    fn a_walk_by_id_goes_on_after_the_last_id() {
        let by_id = paging("{kind: after-id, size: 2, first: 0}");
        assert_eq!(by_id.variable(&Position::First)["cursor"], 0);
        let seen = |ids: &[&'static str]| Seen { count: ids.len(), ids: ids.to_vec(), ..Seen::default() };
        assert_eq!(walk(&by_id, None, &seen(&["4", "9"])).as_deref(), Some("c:9"));
        assert_eq!(walk(&by_id, Some("c:9"), &seen(&["12"])), None);
        assert_eq!(walk(&by_id, Some("c:9"), &seen(&[])), None);
        let base = Url::parse("https://a.example/").unwrap();
        let ignored = by_id.next(&Position::Cursor("9".into()), &seen(&["4", "9"]), &base);
        assert!(ignored.is_err(), "an app that ignores the filter must not look like a short list");
    }

    #[test]
    fn the_next_address_must_stay_on_the_base_uri() {
        let by_link = paging("{kind: link}");
        let links =
            [r#"<https://shop.example/rest/all/x?p=1>; rel="prev", </rest/all/x?p=3>; rel="next last""#.to_owned()];
        assert_eq!(
            walk(&by_link, None, &Seen { links: &links, ..Seen::default() }).as_deref(),
            Some("u:/rest/all/x?p=3")
        );
        let base = Url::parse("https://shop.example/rest/all").unwrap();
        for away in [
            "https://evil.example/rest/all/x",
            "//evil.example/rest/all",
            "http://shop.example/rest/all/x",
            "https://shop.example:444/rest/all/x",
            "https://u:p@shop.example/rest/all/x",
            "/rest/allx",
            "/rest/all/../../admin",
        ] {
            let next = Seen { next: Some(away.into()), ..Seen::default() };
            let result = paging("{kind: next-url, next: $.next}").next(&Position::First, &next, &base);
            assert!(result.is_err(), "{away}");
        }
    }

    #[test]
    fn paging_that_cannot_end_is_refused_when_loaded() {
        let file: PagingFile = yaml::read("pull.rest.yml", "{kind: page}").unwrap();
        assert_eq!(Paging::new(&file).unwrap_err().0, "paging.size");
        let file: PagingFile = yaml::read("pull.rest.yml", "{kind: cursor}").unwrap();
        assert_eq!(Paging::new(&file).unwrap_err().0, "paging.next");
    }
}
