//! Where two JSON values differ, for the messages of a connector's tests.
//!
//! Always true: numbers are compared by value, since YAML does not keep their digits; an absent member equals null.

use serde_json::Value;

use super::mapping::decimal;

/// The first difference, as a sentence that names the path. None: they are equal.
pub fn difference(path: &str, expected: &Value, actual: &Value) -> Option<String> {
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(made)) => {
            let names = wanted.keys().chain(made.keys().filter(|name| !wanted.contains_key(*name)));
            names.into_iter().find_map(|name| {
                let part = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                difference(&format!("{path}.{name}"), &part(wanted), &part(made))
            })
        }
        (Value::Array(wanted), Value::Array(made)) if wanted.len() == made.len() => {
            let pairs = wanted.iter().zip(made).enumerate();
            pairs.into_iter().find_map(|(index, (wanted, made))| difference(&format!("{path}[{index}]"), wanted, made))
        }
        (Value::Number(wanted), Value::Number(made))
            if decimal::compare(wanted.as_str(), made.as_str()).is_some_and(|o| o.is_eq()) =>
        {
            None
        }
        (wanted, made) if wanted == made => None,
        (wanted, made) => Some(format!("{path} is {made}, expected {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_named_by_its_path() {
        let expected = json!({"a": [1, {"b": "x"}], "c": null});
        assert_eq!(difference("fields", &expected, &json!({"a": [1.0, {"b": "x"}]})), None);
        assert_eq!(
            difference("fields", &expected, &json!({"a": [1, {"b": "y"}]})).as_deref(),
            Some(r#"fields.a[1].b is "y", expected "x""#)
        );
        assert_eq!(difference("f", &json!({}), &json!({"z": 1})).as_deref(), Some("f.z is 1, expected null"));
    }
}
