//! Reads a tree out of text that `serde_json` has checked.
//!
//! Always true: what is read is what `serde_json` would read, digit for digit; the depth is bounded, so no text exhausts the
//! stack.

use std::borrow::Cow;

use memchr::memchr2;
use serde_json::value::RawValue;

use super::{Json, Members};

/// How deep a text may nest: as deep as `serde_json` reads.
const DEPTH_MAX: usize = 127;

/// Reads a tree. The error is one sentence: the text nests too deep, or a text in it has half a surrogate pair.
pub fn read(raw: &RawValue) -> Result<Json<'_>, String> {
    let mut reader = Reader { text: raw.get(), at: 0, depth: 0 };
    reader.value()
}

/// Members for which there is room at first.
const MEMBERS: usize = 8;

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

type Made<T> = Result<T, String>;

impl<'t> Reader<'t> {
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }
    /// The next byte that is no space.
    fn next(&mut self) -> u8 {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
        self.byte()
    }
    fn fault<T>(&self) -> Made<T> {
        Err(format!("it cannot be read at byte {}", self.at))
    }
    fn value(&mut self) -> Made<Json<'t>> {
        match self.next() {
            b'"' => self.text().map(Json::Text),
            b'{' => self.nested(|reader| reader.object().map(Json::Object)),
            b'[' => self.nested(|reader| reader.list().map(Json::List)),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            b'-' | b'0'..=b'9' => Ok(Json::Number(self.digits())),
            _ => self.fault(),
        }
    }
    fn nested(&mut self, inside: impl FnOnce(&mut Self) -> Made<Json<'t>>) -> Made<Json<'t>> {
        if self.depth == DEPTH_MAX {
            return Err(format!("it nests deeper than {DEPTH_MAX}"));
        }
        self.depth += 1;
        self.at += 1;
        let made = inside(self);
        self.depth -= 1;
        made
    }
    /// Whether another item follows, of which the first needs no comma; steps over what stands before it, or over the end.
    fn more(&mut self, is_first: &mut bool, end: u8) -> Made<bool> {
        match self.next() {
            byte if byte == end => {
                self.at += 1;
                Ok(false)
            }
            b',' if !*is_first => {
                self.at += 1;
                Ok(true)
            }
            _ if std::mem::take(is_first) => Ok(true),
            _ => self.fault(),
        }
    }
    fn list(&mut self) -> Made<Vec<Json<'t>>> {
        let (mut items, mut is_first) = (Vec::new(), true);
        while self.more(&mut is_first, b']')? {
            is_first = false;
            items.push(self.value()?);
        }
        Ok(items)
    }
    fn object(&mut self) -> Made<Members<'t>> {
        let (mut members, mut is_first) = (Vec::with_capacity(MEMBERS), true);
        while self.more(&mut is_first, b'}')? {
            is_first = false;
            if self.next() != b'"' {
                return self.fault();
            }
            let name = self.text()?;
            if self.next() != b':' {
                return self.fault();
            }
            self.at += 1;
            members.push((name, self.value()?));
        }
        Ok(members.into_iter().collect())
    }
    /// The text at whose first quote the reader stands.
    fn text(&mut self) -> Made<Cow<'t, str>> {
        let open = self.at;
        let mut end = open + 1;
        let mut is_plain = true;
        loop {
            let rest = self.text.as_bytes().get(end..).unwrap_or_default();
            let Some(found) = memchr2(b'"', b'\\', rest) else { return self.fault() };
            end += found;
            if rest.get(found) == Some(&b'"') {
                break;
            }
            is_plain = false;
            end += 2;
        }
        self.at = end + 1;
        if is_plain {
            return Ok(Cow::Borrowed(self.text.get(open + 1..end).unwrap_or_default()));
        }
        let quoted = self.text.get(open..=end).unwrap_or_default();
        serde_json::from_str(quoted).map(Cow::Owned).map_err(|error| format!("a text in it cannot be read: {error}"))
    }
    fn digits(&mut self) -> Cow<'t, str> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let digits = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += digits.len();
        Cow::Borrowed(digits)
    }
    fn word(&mut self, word: &str, made: Json<'t>) -> Made<Json<'t>> {
        if !self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return self.fault();
        }
        self.at += word.len();
        Ok(made)
    }
}
