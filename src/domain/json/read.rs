//! Reads a tree out of text that `serde_json` has checked.
//!
//! Always true: what is read is what `serde_json` would read, digit for digit; the depth is bounded, so no text exhausts the
//! stack.

use std::borrow::Cow;

use memchr::memchr2;
use serde_json::value::RawValue;

use super::Json;

/// How deep a text may nest: as deep as `serde_json` reads.
const DEPTH_MAX: usize = 127;

/// Reads a tree. The error is one sentence: the text nests too deep, or a text in it has half a surrogate pair.
pub fn read(raw: &RawValue) -> Result<Json<'_>, String> {
    Reader::new(raw).value()
}

/// Members for which there is room at first.
const MEMBERS: usize = 8;

/// Steps through a text, value by value.
#[derive(Clone, Debug)]
pub struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

type Made<T> = Result<T, String>;

impl<'t> Reader<'t> {
    /// A reader that stands before the text's one value.
    pub fn new(raw: &'t RawValue) -> Self {
        Self { text: raw.get(), at: 0, depth: 0 }
    }
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }
    /// The first byte of what comes next.
    pub fn peek(&mut self) -> u8 {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
        self.byte()
    }
    fn fault<T>(&self) -> Made<T> {
        Err(format!("it cannot be read at byte {}", self.at))
    }
    /// The value that comes next.
    pub fn value(&mut self) -> Made<Json<'t>> {
        match self.peek() {
            b'"' => self.text().map(Json::Text),
            b'{' => {
                let mut members = Vec::with_capacity(MEMBERS);
                self.members(|reader, name| {
                    members.push((name, reader.value()?));
                    Ok(())
                })?;
                Ok(Json::Object(members.into_iter().collect()))
            }
            b'[' => {
                let mut items = Vec::new();
                self.items(|reader, _| {
                    items.push(reader.value()?);
                    Ok(())
                })?;
                Ok(Json::List(items))
            }
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            b'-' | b'0'..=b'9' => Ok(Json::Number(Cow::Borrowed(self.digits()))),
            _ => self.fault(),
        }
    }
    /// Steps over the value that comes next.
    pub fn skip(&mut self) -> Made<()> {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                b'"' => self.at = self.close()?.0 + 1,
                b'{' | b'[' => {
                    open += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    open = open.saturating_sub(1);
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                b't' | b'n' => self.at += "true".len(),
                b'f' => self.at += "false".len(),
                b'-' | b'0'..=b'9' => drop(self.digits()),
                _ => return self.fault(),
            }
            if open == 0 {
                return Ok(());
            }
        }
    }
    /// Goes through the members of the object that comes next; `each` takes what stands under the name.
    pub fn members(&mut self, mut each: impl FnMut(&mut Self, Cow<'t, str>) -> Made<()>) -> Made<()> {
        self.go_through(b'}', |reader, _| {
            if reader.peek() != b'"' {
                return reader.fault();
            }
            let name = reader.text()?;
            if reader.peek() != b':' {
                return reader.fault();
            }
            reader.at += 1;
            each(reader, name)
        })
    }
    /// Goes through the items of the list that comes next; `each` takes the item of that number.
    pub fn items(&mut self, each: impl FnMut(&mut Self, usize) -> Made<()>) -> Made<()> {
        self.go_through(b']', each)
    }
    fn go_through(&mut self, end: u8, mut each: impl FnMut(&mut Self, usize) -> Made<()>) -> Made<()> {
        if self.depth == DEPTH_MAX {
            return Err(format!("it nests deeper than {DEPTH_MAX}"));
        }
        self.depth += 1;
        // The reader may stand before a space.
        self.peek();
        self.at += 1;
        for number in 0.. {
            match self.peek() {
                byte if byte == end => break,
                b',' if number > 0 => self.at += 1,
                _ if number == 0 => {}
                _ => return self.fault(),
            }
            each(self, number)?;
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }
    /// The text at whose first quote the reader stands.
    fn text(&mut self) -> Made<Cow<'t, str>> {
        let (open, (end, is_plain)) = (self.at, self.close()?);
        self.at = end + 1;
        if is_plain {
            return Ok(Cow::Borrowed(self.text.get(open + 1..end).unwrap_or_default()));
        }
        let quoted = self.text.get(open..=end).unwrap_or_default();
        serde_json::from_str(quoted).map(Cow::Owned).map_err(|error| format!("a text in it cannot be read: {error}"))
    }
    /// Where the last quote of the text is at whose first quote the reader stands, and whether nothing in it is escaped.
    fn close(&self) -> Made<(usize, bool)> {
        let (mut end, mut is_plain) = (self.at + 1, true);
        loop {
            let rest = self.text.as_bytes().get(end..).unwrap_or_default();
            let Some(found) = memchr2(b'"', b'\\', rest) else { return self.fault() };
            end += found;
            if rest.get(found) == Some(&b'"') {
                return Ok((end, is_plain));
            }
            is_plain = false;
            end += 2;
        }
    }
    fn digits(&mut self) -> &'t str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let digits = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += digits.len();
        digits
    }
    fn word(&mut self, word: &str, made: Json<'t>) -> Made<Json<'t>> {
        if !self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return self.fault();
        }
        self.at += word.len();
        Ok(made)
    }
}
