//! XML as plain objects, for scripts: `xml.parse(text)`.
//!
//! ```text
//! <a x="1"><b>t</b><c/><c>2</c></a>  →  {"a": {"@x": "1", "b": "t", "c": ["", "2"]}}
//! ```
//!
//! Names lose their prefix. An element with neither attributes nor elements is its text; one with `xsi:nil="true"` is
//! null; text beside attributes stands under `#text`; elements of one name become a list. Always true: no document type,
//! so no entities but the predefined ones; length, depth and number of nodes are bounded. Not here: writing XML, which is
//! a template literal in the script.

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Map, Value};

/// The longest text that is read.
const TEXT_BYTES_MAX: usize = 8 << 20;
/// Elements, attributes aside, texts and comments of one document.
const NODES_MAX: u32 = 200_000;
/// How deep elements may nest.
const DEPTH_MAX: usize = 64;
const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// The document as JSON. The error is one sentence.
pub fn parse(text: &str) -> Result<Value, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the XML has {} bytes, {TEXT_BYTES_MAX} are allowed", text.len()));
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text.trim_start_matches('\u{feff}'), options);
    let document = document.map_err(|error| format!("the XML cannot be read: {error}"))?;
    let root = document.root_element();
    Ok(Value::Object(Map::from_iter([(root.tag_name().name().to_owned(), value(root, 1)?)])))
}

fn value(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("the XML nests deeper than {DEPTH_MAX} levels"));
    }
    let is_nil = node.attribute((XSI, "nil")).is_some_and(|nil| matches!(nil.trim(), "true" | "1"));
    if is_nil {
        return Ok(Value::Null);
    }
    let mut members: Map<String, Value> =
        node.attributes().map(|attribute| (format!("@{}", attribute.name()), attribute.value().into())).collect();
    let mut text = String::new();
    for child in node.children() {
        if child.is_text() {
            text.push_str(child.text().unwrap_or_default());
        }
        if child.is_element() {
            add(&mut members, child.tag_name().name(), value(child, depth + 1)?);
        }
    }
    if members.is_empty() {
        return Ok(text.into());
    }
    if !text.trim().is_empty() {
        members.insert("#text".to_owned(), text.into());
    }
    Ok(Value::Object(members))
}

/// Whether a member holds several is told by their number alone: no element's own value is a list.
fn add(members: &mut Map<String, Value>, name: &str, value: Value) {
    match members.get_mut(name) {
        None => {
            members.insert(name.to_owned(), value);
        }
        Some(Value::Array(all)) => all.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_become_objects_lists_and_texts() {
        let made = parse(
            r#"<?xml version="1.0"?><p:a xmlns:p="urn:x" x="1"><b>t &amp; <![CDATA[<u>]]></b><c/><c>2</c></p:a>"#,
        );
        assert_eq!(made.unwrap(), json!({"a": {"@x": "1", "b": "t & <u>", "c": ["", "2"]}}));
        assert_eq!(parse(r#"<a x="1">t</a>"#).unwrap(), json!({"a": {"@x": "1", "#text": "t"}}));
        assert_eq!(parse("<a>\n  <b/>\n</a>").unwrap(), json!({"a": {"b": ""}}));
    }

    #[test]
    fn a_nulled_element_is_told_from_an_empty_and_from_an_absent_one() {
        let text = r#"<a xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><n xsi:nil="true"/><e></e></a>"#;
        assert_eq!(parse(text).unwrap(), json!({"a": {"n": null, "e": ""}}));
    }

    #[test]
    fn what_could_blow_up_is_refused() {
        let dtd = r#"<!DOCTYPE a [<!ENTITY e "x"><!ENTITY f SYSTEM "file:///etc/passwd">]><a>&e;&f;</a>"#;
        assert!(parse(dtd).unwrap_err().contains("cannot be read"));
        assert!(parse("<a>&e;</a>").is_err());
        let deep = format!("{}{}", "<a>".repeat(65), "</a>".repeat(65));
        assert!(parse(&deep).unwrap_err().contains("64 levels"));
        let very = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
        assert!(parse(&very).is_err());
        let wide = format!("<a>{}</a>", "<b/>".repeat(200_001));
        assert!(parse(&wide).is_err());
        assert!(parse(&"x".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().contains("are allowed"));
        for bad in ["", "<a>", "text", "<a></b>"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
