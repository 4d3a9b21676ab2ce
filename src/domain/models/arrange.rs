//! Puts a record's fields into the model's order, so that equal records have equal bytes.

use serde_json::{Map, Value};

/// Names that the engine itself writes into every record, in either API version; a mapping cannot set them.
const WRITTEN_BY_THE_ENGINE: &[&str] = &[
    "id",
    "remoteId",
    "remoteCreatedAt",
    "remoteUpdatedAt",
    "remoteDeleted",
    "createdAt",
    "updatedAt",
    "createdTimestamp",
    "updatedTimestamp",
];
/// Members that are looked through one by one.
const FEW: usize = 8;
const CUSTOM_FIELDS: &str = "customFields";

/// See [`super::Model::arrange`].
pub(super) fn record(schema: &Value, mut fields: Map<String, Value>) -> Map<String, Value> {
    fields.retain(|name, _| !WRITTEN_BY_THE_ENGINE.contains(&name.as_str()));
    let custom = fields.shift_remove(CUSTOM_FIELDS);
    let mut arranged = object(Some(schema), fields);
    if let Some(custom) = custom {
        arranged.insert(CUSTOM_FIELDS.to_owned(), value(None, custom));
    }
    arranged
}

/// Known names in the schema's order, then the others in alphabetical order.
fn object(schema: Option<&Value>, mut fields: Map<String, Value>) -> Map<String, Value> {
    let Some(properties) = schema.and_then(|s| s.get("properties")).and_then(Value::as_object) else {
        fields.sort_keys();
        for member in fields.values_mut().filter(|member| member.is_object() || member.is_array()) {
            *member = value(None, member.take());
        }
        return fields;
    };
    let mut arranged = Map::with_capacity(fields.len());
    for (name, property) in properties {
        if fields.is_empty() {
            break;
        }
        // A model has many names and a record may have few: comparing those is quicker than hashing each of the model's.
        if fields.len() <= FEW && !fields.keys().any(|key| key == name) {
            continue;
        }
        // `swap_remove` disturbs only the order of what is sorted below anyway.
        if let Some((name, found)) = fields.swap_remove_entry(name) {
            arranged.insert(name, value(Some(property), found));
        }
    }
    fields.sort_keys();
    arranged.extend(fields.into_iter().map(|(name, found)| (name, value(None, found))));
    arranged
}

/// Recursion is bounded by the parser, which refuses JSON nested deeper than 128.
fn value(schema: Option<&Value>, found: Value) -> Value {
    match found {
        Value::Object(fields) => Value::Object(object(schema, fields)),
        Value::Array(items) => {
            let each = schema.and_then(|s| s.get("items"));
            Value::Array(items.into_iter().map(|item| value(each, item)).collect())
        }
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::models::Catalogue;

    fn arrange(fields: Value) -> String {
        let model = Catalogue::embedded().find("commerce/orders").unwrap();
        let Value::Object(fields) = fields else { unreachable!() };
        serde_json::to_string(&model.arrange(fields)).unwrap()
    }

    #[test]
    fn equal_records_have_equal_bytes_whatever_their_order_was() {
        let one = json!({"customFields": {"b": 1, "a": {"d": 1, "c": 2}}, "currency": "USD", "zeal": 1, "orderNumber": "7",
            "lineItems": [{"price": 1.10, "sku": "x"}], "alien": 2});
        let two = json!({"alien": 2, "lineItems": [{"sku": "x", "price": 1.10}], "orderNumber": "7", "zeal": 1,
            "customFields": {"a": {"c": 2, "d": 1}, "b": 1}, "currency": "USD"});
        assert_eq!(arrange(one.clone()), arrange(two));
        assert_eq!(
            arrange(one),
            r#"{"orderNumber":"7","currency":"USD","lineItems":[{"sku":"x","price":1.1}],"alien":2,"zeal":1,"customFields":{"a":{"c":2,"d":1},"b":1}}"#
        );
    }

    #[test]
    fn a_mapping_cannot_set_what_the_engine_writes() {
        assert_eq!(arrange(json!({"id": "x", "updatedAt": 1, "orderNumber": "7"})), r#"{"orderNumber":"7"}"#);
    }
}
