//! JSON values as YAML that people like to read.
//!
//! Always true: what is written reads back as the same value, within what YAML keeps of numbers. Not here: reading
//! (`connectors::yaml`).

use serde_json::Value;

/// Words that YAML, in one version or another, takes for something else than text.
const WORDS: [&str; 11] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];

/// The value as a document.
pub fn yaml_text(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

/// Writes a value whose lines are indented so far; the first line stands where it is.
fn write(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    pad(indent, out);
                }
                scalar(name, out);
                out.push(':');
                member(value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(indent, out);
                }
                out.push_str("- ");
                write(item, indent + 2, out);
            }
        }
        Value::String(text) => {
            block(text, indent, out);
            out.push('\n');
        }
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

/// Writes what follows `name:`.
fn member(value: &Value, indent: usize, out: &mut String) {
    let is_block = match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        pad(indent + 2, out);
        write(value, indent + 2, out);
    } else {
        out.push(' ');
        write(value, indent, out);
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A text, as a literal block if it has several plain lines.
fn block(text: &str, indent: usize, out: &mut String) {
    let plain = |c: char| c == '\n' || is_printable(c);
    let starts_well = !text.starts_with([' ', '\n', '\t']);
    if !text.contains('\n') || !text.chars().all(plain) || !starts_well || text.ends_with('\n') {
        return scalar(text, out);
    }
    out.push_str("|-");
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            pad(indent + 2, out);
            out.push_str(line);
        }
    }
}

fn scalar(text: &str, out: &mut String) {
    let tail = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '.' | '/' | '-');
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(tail)
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        out.push_str(text);
        return;
    }
    // A JSON text is a YAML text, but for what YAML does not print.
    for c in Value::from(text).to_string().chars() {
        match is_printable(c) {
            true => out.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
}

/// YAML 1.2, section 5.1, without line breaks, and without what a file may not begin with.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connectors::yaml::{self, Placed};

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({
            "plain": "Ada Weiss", "word": "no", "number": "42", "empty": "", "space": " a ", "colon": "a: b # c",
            "nested": {"list": [1, -2.5, [], {}, {"a": {"b": [[1, 2], ["x"]]}}, null, true, "y"], "$": "$.a"},
            "lines": "{\n  \"a\": 1,\n\n  \"b\": \"ü\"\n}", "late": "a\n", "early": "\na", "odd": "a\u{7f}\u{feff}\u{2028}b",
            "tab": "a\tb\nc", "emoji": "😀 \"q\" \\", "a key: with # signs": 1, "true": false, "cr": "a\r\nb",
        });
        let text = yaml_text(&value);
        let read: Placed = yaml::read("x.yml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read.node.to_json(), value, "{text}");
    }

    #[test]
    fn it_is_nice_to_read() {
        let value =
            json!({"cases": [{"name": "a contact", "answers": [{"answerText": "{\n  \"a\": 1\n}"}], "records": []}]});
        let expected = "cases:\n  - name: a contact\n    answers:\n      - answerText: |-\n          {\n            \"a\": 1\n          }\n    records: []\n";
        assert_eq!(yaml_text(&value), expected);
    }
}
