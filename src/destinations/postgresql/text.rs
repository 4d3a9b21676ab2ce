//! Text that PostgreSQL takes: what its `text` and `jsonb` cannot hold, written so that they can.
//!
//! Always true: U+0000 becomes the six characters `\u0000`, as JSON spells it, in text and inside JSON alike; of JSON,
//! only what `jsonb` refuses is touched (`\u0000`, and halves of surrogate pairs), everything else byte for byte. Not
//! here: numbers (`fit`).

use std::borrow::Cow;

/// Text without U+0000 (PostgreSQL's docs, 8.3: character types cannot store it).
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\\u0000")) } else { Cow::Borrowed(text) }
}

/// JSON text that `jsonb` takes (PostgreSQL's docs, 8.14: `jsonb` rejects `\u0000`, and surrogates that are no pair).
pub(super) fn jsonb(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut touched = false;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        // An escape that is no `\uxxxx` is two characters; what follows it is looked at anew, so `\\u0000` stays.
        let length = match unit(escape) {
            None => 1 + escape.chars().nth(1).map_or(0, char::len_utf8),
            Some(0xD800..=0xDBFF) if matches!(escape.get(6..).and_then(unit), Some(0xDC00..=0xDFFF)) => 12,
            Some(0 | 0xD800..=0xDFFF) => {
                out.push('\\');
                touched = true;
                6
            }
            Some(_) => 6,
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        out.push_str(escape);
        rest = after;
    }
    out.push_str(rest);
    if touched { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// The UTF-16 unit that `\uxxxx` at the beginning of `text` stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_jsonb_refuses_is_touched() {
        let same = [r#"{"a":"é\n\u00e9\\u0000"}"#, r#""\ud83d\ude00""#, r#""\\\\u0000""#, "1e400", r#""\u0001""#];
        for text in same {
            assert!(matches!(jsonb(text), Cow::Borrowed(_)), "{text}");
        }
        let touched = [
            (r#"{"a\u0000":"b\u0000c"}"#, r#"{"a\\u0000":"b\\u0000c"}"#),
            (r#""\\\u0000""#, r#""\\\\u0000""#),
            (r#""\ud83d""#, r#""\\ud83d""#),
            (r#""\uDE00x""#, r#""\\uDE00x""#),
            (r#""\ud83d\u0041""#, r#""\\ud83d\u0041""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\\ud83d\ud83d\ude00""#),
        ];
        for (text, expected) in touched {
            assert_eq!(jsonb(text), expected, "{text}");
        }
    }

    #[test]
    fn text_without_a_nul_is_not_copied() {
        assert!(matches!(plain("x\u{1}"), Cow::Borrowed("x\u{1}")));
        assert_eq!(plain("a\0b"), r"a\u0000b");
    }
}
