//! Reading a JSON body into a type, and saying what is wrong with it.
//!
//! Always true: what is not JSON is a 400 that says where; a field that the type does not know is a 422 that names it
//! and what may have been meant; a value of a wrong type is a 422 that names its field. Not here: reading the bytes
//! (`serve`), rules beyond types (the resources).

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::error::{Code, Error, Result};

/// How many unknown fields one error names.
const UNKNOWN_MAX: usize = 10;

/// Reads a body; an empty one counts as `{}`.
pub fn read<T: DeserializeOwned + JsonSchema>(bytes: &[u8]) -> Result<T> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error))
}

/// Reads a value that a body may leave out, or set to null to take it away: `#[serde(default, deserialize_with =
/// "body::present")]` on an `Option<Option<T>>`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

/// What is wrong with a body that could not be read as `T`.
pub fn explain<T: JsonSchema>(bytes: &[u8], error: &serde_json::Error) -> Error {
    if error.classify() != Category::Data {
        return Error::new(Code::Malformed, format!("the body is not valid JSON: {error}"));
    }
    let Some(fields) = std::str::from_utf8(bytes).ok().and_then(|text| serde_json::from_str(text).ok()) else {
        // Valid as far as it was read: what follows may still be broken, or it is no object.
        return match serde_json::from_slice::<serde_json::Value>(bytes) {
            Err(broken) => Error::new(Code::Malformed, format!("the body is not valid JSON: {broken}")),
            Ok(_) => Error::invalid("the body must be a JSON object"),
        };
    };
    let fields: HashMap<&str, &RawValue> = fields;
    let known = properties::<T>();
    let mut unknown: Vec<&str> = fields.keys().copied().filter(|name| !known.iter().any(|k| k == name)).collect();
    if !known.is_empty() && !unknown.is_empty() {
        unknown.sort_unstable();
        return unknown_fields(&unknown, &known);
    }
    let told = error.to_string();
    let told = told.split(" at line ").next().unwrap_or(&told);
    let code = if told.starts_with("unknown field") { Code::UnknownField } else { Code::Invalid };
    if told.starts_with("missing field") {
        return Error::new(code, format!("the body lacks a field: {told}"));
    }
    let place = format!("line {}, column {}", error.line(), error.column());
    match culprit(bytes, &fields, error) {
        Some(name) => Error::new(code, format!("`{name}`: {told} ({place})")),
        None => Error::new(code, format!("{told} ({place})")),
    }
}

/// The field in whose value the error lies: the last one that begins before it.
fn culprit<'a>(bytes: &[u8], fields: &HashMap<&'a str, &RawValue>, error: &serde_json::Error) -> Option<&'a str> {
    let lines = bytes.split_inclusive(|b| *b == b'\n').take(error.line().saturating_sub(1));
    let offset = lines.map(<[u8]>::len).sum::<usize>() + error.column();
    let start = |raw: &RawValue| raw.get().as_ptr().addr() - bytes.as_ptr().addr();
    fields.iter().map(|(name, raw)| (start(raw), *name)).filter(|(at, _)| *at < offset.max(1)).max().map(|(_, n)| n)
}

/// The fields that a type reads, from its schema.
fn properties<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let names = schema.get("properties").and_then(|p| p.as_object());
    names.map(|names| names.keys().cloned().collect()).unwrap_or_default()
}

fn unknown_fields(unknown: &[&str], known: &[String]) -> Error {
    let told: Vec<String> = unknown.iter().take(UNKNOWN_MAX).map(|name| told(name, known)).collect();
    let (noun, more) = (if unknown.len() == 1 { "field" } else { "fields" }, unknown.len().saturating_sub(UNKNOWN_MAX));
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Error::new(Code::UnknownField, format!("unknown {noun} {}{more}", told.join(", ")))
}

fn told(name: &str, known: &[String]) -> String {
    let shown: String = name.chars().take(64).collect();
    let near = |k: &&String| strsim::jaro_winkler(&k.to_lowercase(), &shown.to_lowercase());
    match known.iter().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|k| near(k) > 0.8) {
        Some(meant) => format!("`{shown}` (did you mean `{meant}`?)"),
        None => format!("`{shown}`"),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[expect(dead_code, reason = "only how it is read matters")]
    struct Wish {
        address: String,
        #[serde(default)]
        topic: Vec<String>,
        #[serde(default)]
        max_in_flight: Option<u32>,
        #[serde(default, deserialize_with = "present")]
        #[schemars(with = "Option<String>")]
        description: Option<Option<String>>,
    }

    fn wrong(text: &str) -> (Code, String) {
        let error = read::<Wish>(text.as_bytes()).unwrap_err();
        (error.code, error.message)
    }

    #[test]
    fn what_is_not_json_is_told_with_its_place() {
        let (code, message) = wrong("{\"address\":\n \"x\",,}");
        assert_eq!(code, Code::Malformed);
        assert!(message.contains("line 2"), "{message}");
        assert_eq!(wrong("{\"address\": 5, ]").0, Code::Malformed);
        assert_eq!(read::<Wish>(b"{\"address\":\"\xff\"}").unwrap_err().code, Code::Malformed);
        assert_eq!(wrong("[1]"), (Code::Invalid, "the body must be a JSON object".into()));
    }

    #[test]
    fn unknown_fields_are_named_with_what_may_have_been_meant() {
        let (code, message) = wrong(r#"{"adress":"x","zzz":1}"#);
        assert_eq!(code, Code::UnknownField);
        assert_eq!(message, "unknown fields `adress` (did you mean `address`?), `zzz`");
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let (code, message) = wrong("{\"address\":\"x\",\n\"topic\":\"crm/*\", \"maxInFlight\": 3}");
        assert_eq!(code, Code::Invalid);
        assert!(message.starts_with("`topic`: invalid type: string"), "{message}");
        let (_, message) = wrong(r#"{"address":"x","maxInFlight":-3,"topic":[]}"#);
        assert!(message.starts_with("`maxInFlight`: "), "{message}");
        let (_, message) = wrong("");
        assert_eq!(message, "the body lacks a field: missing field `address`");
    }

    #[test]
    fn null_takes_away_and_absence_leaves() {
        let read = |text: &str| read::<Wish>(text.as_bytes()).unwrap().description;
        assert_eq!(read(r#"{"address":"x"}"#), None);
        assert_eq!(read(r#"{"address":"x","description":null}"#), Some(None));
        assert_eq!(read(r#"{"address":"x","description":"d"}"#), Some(Some("d".into())));
    }
}
