//! Two hashes of a record: of the app's own bytes, and of what a receiver can see.
//!
//! Always true: two sets of fields have the same hash exactly if [`diff`](super::diff()) finds no path between them. A null
//! is the same as nothing, `1.50` the same as `1.5`, and the order of names does not count.

use serde_json::Number;
use sha2::{Digest, Sha256};

use crate::domain::json::{Json, Member, Members};

/// SHA-256, the first 16 bytes.
pub type Hash = [u8; 16];

/// Times that move without anything else moving; they are refreshed without an event. (CONTRACT: both API versions.)
const VOLATILE: &[&str] = &["createdAt", "updatedAt", "remoteUpdatedAt", "createdTimestamp", "updatedTimestamp"];

/// Paths that never make an event, from a collection's `ignoredFields`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoredFields(Vec<Vec<String>>);

impl IgnoredFields {
    /// None but the volatile times.
    pub const fn none() -> Self {
        Self(Vec::new())
    }
    /// Dotted paths; arrays are walked through, so `lineItems.stock` (or `lineItems[].stock`) is the field of each element.
    pub fn new(paths: &[impl AsRef<str>]) -> Self {
        let split = |path: &str| path.split('.').map(|part| part.trim_end_matches("[]").to_owned()).collect();
        Self(paths.iter().map(|path| split(path.as_ref())).collect())
    }
    /// Whether the field at `names` (array indexes left out) says nothing.
    pub(super) fn skips(&self, names: &[&str]) -> bool {
        matches!(names, [one] if VOLATILE.contains(one)) || self.0.iter().any(|path| path.iter().eq(names))
    }
}

/// The hash of the app's own record, as its bytes came, salted with the version of the mapping.
pub fn raw_hash(mapping: &[u8; 16], raw: &str) -> Hash {
    cut(Sha256::new().chain_update(mapping).chain_update(raw))
}

/// The hash of the unified fields.
pub fn unified_hash(fields: &Members<'_>, ignored: &IgnoredFields) -> Hash {
    let mut bytes = Vec::with_capacity(1024);
    object(fields, ignored, &mut Vec::new(), &mut bytes);
    cut(Sha256::new().chain_update(bytes))
}

fn cut(hasher: Sha256) -> Hash {
    let mut hash = Hash::default();
    hash.iter_mut().zip(hasher.finalize()).for_each(|(to, from)| *to = from);
    hash
}

/// Writes a form in which equal things have equal bytes, and no two different ones do: each text has its length before it.
fn object<'a>(fields: &'a Members<'_>, ignored: &IgnoredFields, names: &mut Vec<&'a str>, out: &mut Vec<u8>) {
    out.push(b'{');
    // Most are in order already: what is in customFields, and in it.
    if fields.iter().is_sorted_by(|(one, _), (next, _)| one < next) {
        fields.iter().for_each(|each| member(each, ignored, names, out));
    } else {
        let mut sorted: Vec<&Member<'_>> = fields.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| name);
        sorted.into_iter().for_each(|each| member(each, ignored, names, out));
    }
    out.push(b'}');
}

fn member<'a>((name, value): &'a Member<'_>, ignored: &IgnoredFields, names: &mut Vec<&'a str>, out: &mut Vec<u8>) {
    names.push(name);
    if !value.is_null() && !ignored.skips(names) {
        text(name, out);
        self::value(value, ignored, names, out);
    }
    names.pop();
}

fn value<'a>(value: &'a Json<'_>, ignored: &IgnoredFields, names: &mut Vec<&'a str>, out: &mut Vec<u8>) {
    match value {
        Json::Null => out.push(b'0'),
        Json::Bool(true) => out.push(b'T'),
        Json::Bool(false) => out.push(b'F'),
        Json::Number(digits) => {
            out.push(b'N');
            canonical(digits, out);
            out.push(b';');
        }
        Json::Text(string) => {
            out.push(b'S');
            text(string, out);
        }
        Json::List(items) => {
            out.push(b'[');
            items.iter().for_each(|item| self::value(item, ignored, names, out));
            out.push(b']');
        }
        Json::Object(fields) => object(fields, ignored, names, out),
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Whether two numbers are the same amount: `1.50` and `1.5`, `1e2` and `100`. Exact: no floats.
pub(super) fn same_number(a: &Number, b: &Number) -> bool {
    let canonical = |number: &Number| {
        let mut out = Vec::new();
        canonical(number.as_str(), &mut out);
        out
    };
    a == b || canonical(a) == canonical(b)
}

/// Sign, digits without zeros at either end, and the power of ten. Holds no `;`, so that can end it.
fn canonical(text: &str, out: &mut Vec<u8>) {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let Ok(exponent) = exponent.trim_start_matches('+').parse::<i64>() else {
        // No such power can be told from its text in another spelling.
        return out.extend_from_slice(text.as_bytes());
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let (whole, power) = if fraction.is_empty() {
        let significant = whole.trim_end_matches('0');
        (significant, exponent.saturating_add(length(whole) - length(significant)))
    } else {
        (whole, exponent.saturating_sub(length(fraction)))
    };
    let fraction = if whole.is_empty() { fraction.trim_start_matches('0') } else { fraction };
    if whole.is_empty() && fraction.is_empty() {
        return out.push(b'0');
    }
    for part in [sign, whole, fraction] {
        out.extend_from_slice(part.as_bytes());
    }
    if power != 0 {
        out.push(b'e');
        out.extend_from_slice(power.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str, ignored: &[&str]) -> Hash {
        unified_hash(&Members::from(&serde_json::from_str(text).unwrap()), &IgnoredFields::new(ignored))
    }
    fn same(a: &str, b: &str) -> bool {
        hash(a, &[]) == hash(b, &[])
    }

    #[test]
    fn what_a_receiver_cannot_tell_apart_has_one_hash() {
        assert!(same(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#));
        assert!(same(r#"{"a":1,"b":null}"#, r#"{"a":1}"#));
        assert!(same(r#"{"a":{"b":null,"c":[{"d":1,"e":null}]}}"#, r#"{"a":{"c":[{"d":1}]}}"#));
        for (a, b) in [("1.50", "1.5"), ("100", "1e2"), ("0.00", "0"), ("-0", "0"), ("12e-1", "1.2"), ("1E+2", "100.0")]
        {
            assert!(same(&format!(r#"{{"n":{a}}}"#), &format!(r#"{{"n":{b}}}"#)), "{a} {b}");
        }
        assert!(same(r#"{"a":1,"updatedAt":"x","remoteUpdatedAt":1,"createdAt":2}"#, r#"{"a":1}"#));
        assert!(same(r#"{"a":1,"createdTimestamp":1,"updatedTimestamp":2}"#, r#"{"a":1}"#));
    }

    #[test]
    fn what_a_receiver_can_tell_apart_has_two_hashes() {
        for (a, b) in [
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":[1,null]}"#, r#"{"a":[1]}"#),
            (r#"{"a":[[1],[2]]}"#, r#"{"a":[[1,2]]}"#),
            (r#"{"a":{}}"#, r#"{"a":[]}"#),
            (r#"{"a":true}"#, r#"{"a":false}"#),
            (r#"{"a":0.1}"#, r#"{"a":0.10000000000000001}"#),
            (r#"{"a":-1}"#, r#"{"a":1}"#),
            (r#"{"a":1e400}"#, r#"{"a":1e401}"#),
            (r#"{"remoteCreatedAt":1}"#, r#"{"remoteCreatedAt":2}"#),
            (r#"{"a":{"updatedAt":1}}"#, r#"{"a":{"updatedAt":2}}"#),
            (r#"{"ab":"c"}"#, r#"{"a":"bc"}"#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn ignored_fields_do_not_count_at_any_depth() {
        let ignored = &["stock", "customFields.seen", "lineItems[].rank"];
        let one = hash(r#"{"stock":1,"customFields":{"seen":1,"x":1},"lineItems":[{"rank":1,"sku":"a"}]}"#, ignored);
        let two = hash(r#"{"stock":2,"customFields":{"seen":2,"x":1},"lineItems":[{"rank":2,"sku":"a"}]}"#, ignored);
        let three = hash(r#"{"stock":2,"customFields":{"seen":2,"x":2},"lineItems":[{"rank":2,"sku":"a"}]}"#, ignored);
        assert_eq!(one, two);
        assert_ne!(two, three);
    }

    #[test]
    fn the_same_bytes_under_another_mapping_have_another_hash() {
        assert_ne!(raw_hash(&[1; 16], "{}"), raw_hash(&[2; 16], "{}"));
        assert_eq!(hex::encode(raw_hash(&[0; 16], "{}")), "333b13ff02f57ae18049b82ca66f3759");
    }
}
