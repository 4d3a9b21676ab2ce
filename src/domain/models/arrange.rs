//! Puts a record's fields into the model's order, so that equal records have equal bytes.

use std::borrow::Cow;

use serde_json::Value;

use crate::domain::json::{Json, Members};
use crate::domain::record::CUSTOM_FIELDS;

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

/// The order of an object's members, or of the members of a list's items, out of a schema.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// By name: its place, and the order inside it.
    names: Vec<(String, usize, Order)>,
    /// Of a list's items.
    items: Option<Box<Order>>,
}

impl Order {
    /// The order of what a schema describes. A schema has no circles, so this ends.
    pub(super) fn of(schema: &Value) -> Self {
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let names = properties.enumerate().map(|(place, (name, inner))| (name.clone(), place, Self::of(inner)));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Self { names, items: schema.get("items").map(|items| Box::new(Self::of(items))) }
    }
    /// See [`super::Model::arrange`].
    pub(super) fn record<'a>(&self, mut fields: Members<'a>) -> Members<'a> {
        fields.retain(|name, _| !WRITTEN_BY_THE_ENGINE.contains(&name));
        object(self, fields, Some(CUSTOM_FIELDS))
    }
    fn member(&self, name: &str) -> Option<(usize, &Self)> {
        let at = self.names.binary_search_by(|(known, ..)| known.as_str().cmp(name)).ok()?;
        self.names.get(at).map(|(_, place, inner)| (*place, inner))
    }
}

/// Known names in the schema's order, then the others in alphabetical order, then `last`, of which nothing is known.
fn object<'a>(order: &Order, fields: Members<'a>, last: Option<&str>) -> Members<'a> {
    const AFTER_ALL_KNOWN: usize = usize::MAX - 1;
    type Placed<'a> = (usize, Cow<'a, str>, Json<'a>);
    let mut placed: Vec<Placed<'a>> = Vec::with_capacity(fields.len());
    for (name, mut found) in fields {
        let (place, inner) = match order.member(&name) {
            _ if last == Some(&*name) => (usize::MAX, None),
            Some((place, inner)) => (place, Some(inner)),
            None => (AFTER_ALL_KNOWN, None),
        };
        value(inner, &mut found);
        placed.push((place, name, found));
    }
    placed.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Members::distinct(placed.into_iter().map(|(_, name, value)| (name, value)).collect())
}

/// Recursion is bounded, since reading refuses JSON that nests too deep.
fn value(order: Option<&Order>, found: &mut Json<'_>) {
    match (found, order) {
        (Json::Object(fields), Some(order)) if !order.names.is_empty() => {
            *fields = object(order, std::mem::take(fields), None);
        }
        (Json::Object(fields), _) => {
            fields.sort();
            fields.values_mut().for_each(|inner| value(None, inner));
        }
        (Json::List(items), order) => {
            let each = order.and_then(|order| order.items.as_deref());
            items.iter_mut().for_each(|item| value(each, item));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::models::Catalogue;

    fn arrange(fields: Value) -> String {
        let model = Catalogue::embedded().find("commerce/orders").unwrap();
        model.arrange(Members::from(fields.as_object().unwrap())).to_text()
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
