//! A small checker over the part of JSON Schema that the models use.
//!
//! Always true: an unknown keyword in a model is a failing test, so nothing is skipped in silence. A test holds this
//! against an independent validator. Not here: schemas from outside (a connector's parameters).

use serde_json::{Map, Number, Value};

use crate::domain::time::Millis;

/// How many problems are told; the rest is cut.
pub const PROBLEMS_MAX: usize = 32;

/// What is wrong with a record, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted, with `[n]` for elements: `lineItems[2].price`. Empty for the record itself.
    pub path: String,
    /// What is wrong, to follow the path: `is a string, not a number`.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = if self.path.is_empty() { "the record" } else { &self.path };
        write!(f, "{path} {}", self.message)
    }
}

/// Checks an object against a schema.
pub(super) fn object(schema: &Value, object: &Map<String, Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    members(schema, object, "", &mut problems);
    problems.truncate(PROBLEMS_MAX);
    problems
}

fn members(schema: &Value, object: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            problems.push(Problem { path: join(path, name), message: "is missing".into() });
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let open = schema.get("additionalProperties") != Some(&Value::Bool(false));
    for (name, value) in object {
        if problems.len() >= PROBLEMS_MAX {
            return;
        }
        match properties.and_then(|p| p.get(name)) {
            Some(property) => check(property, value, &join(path, name), problems),
            None if open => {}
            None => problems.push(Problem { path: join(path, name), message: "is not a field of the model".into() }),
        }
    }
}

fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut tell = |message: String| problems.push(Problem { path: path.to_owned(), message });
    let allowed: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !allowed.is_empty() && !allowed.iter().any(|t| is(t, value)) {
        tell(format!("is {}, not {}", kind(value), allowed.join(" or ")));
        return;
    }
    if let Some(Value::Array(choices)) = schema.get("enum")
        && !choices.contains(value)
    {
        tell(format!("is {value}, which is none of {}", Value::Array(choices.clone())));
    }
    if let (Some(Value::String(format)), Value::String(text)) = (schema.get("format"), value)
        && !is_format(format, text)
    {
        tell(format!("is not a {format}"));
    }
    match value {
        Value::Object(object) => members(schema, object, path, problems),
        Value::Array(items) => {
            let Some(each) = schema.get("items") else { return };
            for (at, item) in items.iter().enumerate() {
                if problems.len() >= PROBLEMS_MAX {
                    return;
                }
                check(each, item, &format!("{path}[{at}]"), problems);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is(kind: &str, value: &Value) -> bool {
    match (kind, value) {
        ("integer", Value::Number(number)) => is_integer(number),
        ("null", Value::Null)
        | ("boolean", Value::Bool(_))
        | ("number", Value::Number(_))
        | ("string", Value::String(_))
        | ("array", Value::Array(_))
        | ("object", Value::Object(_)) => true,
        _ => false,
    }
}

/// A number without a fraction; numbers keep their text, so `12.0` is one and `12.5` is not.
fn is_integer(number: &Number) -> bool {
    let text = number.to_string();
    if text.contains(['e', 'E']) {
        return number.as_f64().is_some_and(|n| n.fract() == 0.0);
    }
    text.split_once('.').is_none_or(|(_, fraction)| fraction.bytes().all(|b| b == b'0'))
}

fn is_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" => Millis::parse_rfc3339(text).is_some() || text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "uuid" => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
        _ => true,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::models::Catalogue;

    /// The keywords that this checker obeys, or that say nothing about a value.
    const KNOWN: &[&str] = &[
        "$schema",
        "title",
        "description",
        "examples",
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "format",
    ];
    const FORMATS: &[&str] = &["date-time", "date", "uuid"];

    fn keywords(schema: &Value, found: &mut Vec<String>) {
        let Some(object) = schema.as_object() else { return };
        found.extend(object.keys().cloned());
        if let Some(format) = object.get("format").and_then(Value::as_str) {
            assert!(FORMATS.contains(&format), "{format}");
        }
        for property in object.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values) {
            keywords(property, found);
        }
        object.get("items").into_iter().for_each(|items| keywords(items, found));
    }

    #[test]
    fn the_models_use_no_keyword_that_the_checker_does_not_know() {
        for model in Catalogue::embedded().models() {
            let mut found = Vec::new();
            keywords(&model.schema, &mut found);
            found.retain(|k| !KNOWN.contains(&k.as_str()));
            assert_eq!(found, Vec::<String>::new(), "{}", model.topic);
        }
    }

    #[test]
    fn a_problem_names_the_field() {
        let order = json!({
            "orderNumber": 5, "totalPrice": "66.91", "lineItems": [{"sku": "a"}, {"quantity": true}],
            "cancelledAt": "yesterday", "billingAddress": {"town": "Leith"}, "size": 1, "customFields": {"x": [1]}
        });
        let model = Catalogue::embedded().find("commerce/orders").unwrap();
        let told: Vec<_> = model.check(order.as_object().unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "orderNumber is a number, not string or null",
                "totalPrice is a string, not number or null",
                "lineItems[1].quantity is a boolean, not number or null",
                "cancelledAt is not a date-time",
                "billingAddress.town is not a field of the model",
                "size is not a field of the model",
            ]
        );
    }

    #[test]
    fn the_number_of_problems_is_bounded() {
        let many: Map<_, _> = (0..1000).map(|n| (format!("f{n}"), Value::Null)).collect();
        let model = Catalogue::embedded().find("crm/notes").unwrap();
        assert_eq!(model.check(&many).len(), PROBLEMS_MAX);
    }

    #[test]
    fn a_system_payload_must_be_complete() {
        let model = Catalogue::embedded().find("sync/held").unwrap();
        let mut payload = model.example.clone();
        payload.shift_remove("missing");
        assert_eq!(model.check(&payload), [Problem { path: "missing".into(), message: "is missing".into() }]);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9i64..9).prop_map(Value::from),
            Just(json!(1.5)),
            prop::sample::select(vec!["", "a", "2024-04-18T09:30:00.000Z", "2024-04-18", "active"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let name =
                prop::sample::select(vec!["sku", "price", "city", "address1", "lineItems", "weight", "value", "x"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map(name.prop_map(str::to_owned), inner, 0..3)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_checker_agrees_with_an_independent_validator(
            pick in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any_value(), any::<bool>()), 0..4),
        ) {
            let models = Catalogue::embedded().models();
            let model = &models[pick.index(models.len())];
            let mut record = model.example.clone();
            for (at, value, remove) in changes {
                let names: Vec<String> = record.keys().cloned().collect();
                if names.is_empty() { break; }
                let name = &names[at.index(names.len())];
                if remove { record.shift_remove(name); } else { record.insert(name.clone(), value); }
            }
            let validator =
                jsonschema::draft202012::options().should_validate_formats(true).build(&model.schema).unwrap();
            let agreed = validator.is_valid(&Value::Object(record.clone()));
            prop_assert_eq!(model.check(&record).is_empty(), agreed, "{} {:?}", model.topic, model.check(&record));
        }
    }
}
