//! The schema of expressions: every operator with the shape of its argument.
//!
//! Always true: an operator of `mapping::OPERATORS` is in here, and no other (a test compares). Not here: what the
//! operators do (`connectors::mapping`), and which variables are known in which file (its compiler says so).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::types::{PATH, TEMPLATE};
use crate::connectors::mapping::times::TimeFormat;

/// Stands for an expression in types that hold one as it was written.
pub struct Expression;

impl JsonSchema for Expression {
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let any = generator.subschema_for::<Self>().to_value();
        let mut members = Map::from_iter([("^[^$]".to_owned(), any.clone()), ("^$".to_owned(), any.clone())]);
        for (name, argument) in operators(&any, &generator.subschema_for::<TimeFormat>().to_value()) {
            members.insert(format!("^\\{name}$"), argument);
        }
        json_schema!({
            "description": "An expression: a path such as $.a.b[0], an operator in a map of its own, a map or a list of \
                            expressions, or a value.",
            "type": ["object", "array", "string", "number", "boolean", "null"],
            "if": { "type": "string", "pattern": "^\\$" },
            "then": { "pattern": PATH },
            "items": any,
            "patternProperties": members,
            "additionalProperties": false,
            // An operator stands alone in its map.
            "anyOf": [
                { "propertyNames": { "pattern": "^([^$]|$)" } },
                { "type": "object", "maxProperties": 1 },
            ],
        })
    }
}

/// Each operator and its argument.
fn operators(any: &Value, time: &Value) -> Vec<(&'static str, Value)> {
    let path = json!({ "type": "string", "pattern": PATH });
    let text = json!({ "type": "string" });
    let flag = json!({ "type": "boolean" });
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let list = json!({ "type": "array", "items": any });
    let pair = json!({ "type": "array", "items": any, "minItems": 2, "maxItems": 2 });
    let map = |fields: &[(&str, &Value)], required: &[&str]| {
        let fields: Map<String, Value> = fields.iter().map(|(n, s)| ((*n).to_owned(), (*s).clone())).collect();
        json!({ "type": "object", "properties": fields, "required": required, "additionalProperties": false })
    };
    let all = |fields: &[(&str, &Value)]| {
        let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        map(fields, &names)
    };
    let cases = json!({ "type": "array", "items": all(&[("when", any), ("value", any)]) });
    let codes = json!({ "type": "object", "additionalProperties": any });
    let walk = map(&[("locator", any), ("where", any), ("items", any)], &["locator", "items"]);
    let mut found = vec![
        ("$and", list.clone()),
        ("$case", map(&[("cases", &cases), ("default", any)], &["cases"])),
        ("$codes", map(&[("value", any), ("to", &codes), ("default", any)], &["value", "to"])),
        ("$concat", list.clone()),
        ("$default", pair.clone()),
        ("$first", list.clone()),
        ("$iterate", walk.clone()),
        ("$join", all(&[("items", any), ("with", &text)])),
        ("$literal", json!(true)),
        ("$lookup", all(&[("in", any), ("key", &path), ("equals", any), ("value", &path)])),
        ("$merge", list.clone()),
        ("$omit", map(&[("from", any), ("keys", &texts), ("mapped", &flag)], &["from", "keys"])),
        ("$or", list),
        ("$pairs", map(&[("in", any), ("key", &path), ("value", &path), ("except", &texts)], &["in", "key", "value"])),
        ("$split", all(&[("value", any), ("by", &text)])),
        ("$sum", walk),
        ("$tail", all(&[("of", any), ("after", &text)])),
        ("$template", json!({ "type": "string", "pattern": TEMPLATE })),
        ("$time", map(&[("value", any), ("format", time), ("zone", &text)], &["value", "format"])),
        ("$var", path.clone()),
    ];
    found.extend(["$eq", "$gt", "$gte", "$lt", "$lte"].map(|name| (name, pair.clone())));
    let unary = [
        "$abs", "$boolean", "$columns", "$compact", "$decimal", "$exists", "$integer", "$lower", "$negate", "$not",
        "$number", "$percent", "$string", "$trim", "$upper",
    ];
    found.extend(unary.map(|name| (name, any.clone())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::mapping::OPERATORS;

    #[test]
    fn the_schema_knows_the_operators_that_there_are() {
        let mut known: Vec<&str> = operators(&json!(true), &json!(true)).into_iter().map(|(name, _)| name).collect();
        known.sort_unstable();
        assert_eq!(known, OPERATORS);
    }
}
