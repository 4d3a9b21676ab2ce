//! `types:` of a list of fields: what becomes of a record's values, by the types that the account gives its fields. An app
//! whose records are all texts, such as one that answers queries, tells numbers and flags as such only in that list.
//!
//! Always true: only fields of the list are touched, and only where the record has them. Not here: what the list says
//! (`connectors::fields`).

use serde_json::value::to_raw_value;
use serde_json::{Map, Value};

use super::fields_rest::FieldsRest;
use super::mapping::{Env, Mapping};
use super::{AppRecord, CallError, Collection, Session};
use crate::domain::json::Json;

impl Session {
    /// Gives values the shape that their fields' types say.
    pub(super) fn type_values(&self, c: &Collection, records: &mut [AppRecord]) -> Result<(), CallError> {
        let (Some(rest), Some(known)) = (c.fields.rest().filter(|rest| rest.is_typed()), self.known_fields(c)) else {
            return Ok(());
        };
        let of = known.fields.fields.iter();
        let fields: Vec<(&str, &Mapping)> = of.filter_map(|f| Some((f.name.as_str(), rest.typed(&f.kind)?))).collect();
        if fields.is_empty() {
            return Ok(());
        }
        records.iter_mut().try_for_each(|record| type_one(rest, &fields, &self.caller.parameters, record))
    }
}

fn type_one(
    rest: &FieldsRest,
    fields: &[(&str, &Mapping)],
    parameters: &Value,
    record: &mut AppRecord,
) -> Result<(), CallError> {
    let bad = |error: serde_json::Error| CallError::BadAnswer(format!("a record cannot be read: {error}"));
    let mut whole: Map<String, Value> = serde_json::from_str(record.raw.get()).map_err(bad)?;
    let members = match &rest.below {
        None => Some(&mut whole),
        Some(below) => whole.get_mut(below).and_then(Value::as_object_mut),
    };
    let Some(members) = members else { return Ok(()) };
    let variables = [("parameters", parameters)];
    let mut is_other = false;
    for (name, shape) in fields {
        let Some(value) = members.get_mut(*name) else { continue };
        let made = shape.eval(&Env::new(&Json::from(&*value), &variables));
        if made != *value {
            *value = made;
            is_other = true;
        }
    }
    if is_other {
        record.raw = to_raw_value(&whole).map_err(bad)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;
    use crate::connectors::mapping::path::Path;
    use crate::connectors::yaml;

    fn typed(more: &str, record: &Value) -> String {
        let text = format!(
            "{{path: /c, records: $.p, name: $.key{more}, types: {{boolean: {{$codes: {{value: $, to: {{T: true}}, default: $}}}}, \
             number: {{$first: [{{$decimal: $}}, $]}}}}}}"
        );
        let map = Mapping::read("record.map.yml", "a: $.b\n", &[]).unwrap();
        let id = Path::parse("$.id").unwrap();
        let rest = FieldsRest::new("f", &yaml::read("f", &text).unwrap(), &map, &[&id]).unwrap();
        let fields = [("vip", "boolean"), ("size", "number"), ("none", "number")];
        let fields: Vec<_> = fields.iter().map(|(name, kind)| (*name, rest.typed(kind).unwrap())).collect();
        assert!(rest.typed("date").is_none());
        let raw = RawValue::from_string(record.to_string()).unwrap();
        let mut record =
            AppRecord { remote_id: "1".to_owned(), raw, created_at: None, updated_at: None, deleted: false };
        type_one(&rest, &fields, &Value::Null, &mut record).unwrap();
        record.raw.get().to_owned()
    }

    #[test]
    fn texts_become_what_their_fields_are_and_nothing_else_is_touched() {
        let record = json!({"id": "1", "vip": "T", "size": "12.50", "other": "T"});
        assert_eq!(typed("", &record), r#"{"id":"1","vip":true,"size":12.50,"other":"T"}"#);
        let odd = json!({"vip": "maybe", "size": "many"});
        assert_eq!(typed("", &odd), odd.to_string(), "what does not fit its type stays");
        let inside = json!({"vip": "T", "fields": {"vip": "T"}});
        assert_eq!(typed(", below: fields", &inside), r#"{"vip":"T","fields":{"vip":true}}"#);
        assert_eq!(typed(", below: fields", &json!({"vip": "T"})), r#"{"vip":"T"}"#);
    }
}
