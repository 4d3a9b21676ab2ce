//! The fields that an account has (`data/<collection>/fields.…`): read from the app, and given to requests as
//! `{{fields.names}}`, `$fields.names` and `$fields.all`; those of a list's items (`variants[].size`) as
//! `$fields.lists.variants`.
//!
//! Always true: what is kept is bounded, in number and in length; the names to ask for come in one order, whatever order
//! the app gives them in, so that the same fields make the same request. Not here: when they are read again and what
//! follows from a change (`actors::watcher::fields`), where they are kept (`store`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value, json};

use super::caller::Outgoing;
use super::each::Part;
use super::fields_rest::{FieldsRest, Limits};
use super::mapping::Env;
use super::paging::Position;
use super::spec::{Collection, Method};
use super::values::Told;
use super::{CallError, PageMark, Session};
use crate::domain::app_field::{AppField, AppFields};
use crate::domain::snapshot::raw_hash;

/// Fields of one collection that are looked at; an org of Salesforce has at most 800 of its own per object.
pub(super) const FIELDS_MAX: usize = 5_000;
/// Pages of such a list.
const PAGES_MAX: usize = 50;
/// Bytes of a name (a metafield of Shopify has up to 320, and what list it is of), and of what people see.
const NAME_BYTES_MAX: usize = 384;
const LABEL_CHARS_MAX: usize = 255;
const KIND_CHARS_MAX: usize = 64;

/// What `fields.js` returns: a list, or `{fields: [...]}`; each a name, or `{name, label, type, custom}`.
fn of_script(value: Value) -> Option<Vec<AppField>> {
    let list = match value {
        Value::Object(mut members) => members.shift_remove("fields")?,
        other => other,
    };
    let field = |item: Value| match item {
        Value::String(name) => {
            Some(AppField { name, label: String::new(), kind: String::new(), custom: false, asked: true })
        }
        Value::Object(item) => {
            let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let custom = item.get("custom").and_then(Value::as_bool).unwrap_or_default();
            let asked = item.get("asked").and_then(Value::as_bool).unwrap_or(true);
            Some(AppField { name: text("name"), label: text("label"), kind: text("type"), custom, asked })
        }
        _ => None,
    };
    match list {
        Value::Array(items) => items.into_iter().map(field).collect(),
        _ => None,
    }
}

/// Bounds what an app said, and puts first what is asked for in any case.
fn settled(found: Vec<AppField>, always: &[String], limits: Limits) -> Vec<AppField> {
    let mut fields: Vec<AppField> = Vec::new();
    let mut known = BTreeSet::new();
    let first = |name: &String| AppField {
        name: name.clone(),
        label: String::new(),
        kind: String::new(),
        custom: false,
        asked: true,
    };
    let mut rest = Vec::new();
    for mut field in always.iter().map(first).chain(found) {
        let fits = !field.name.is_empty() && field.name.len() <= NAME_BYTES_MAX && !field.name.contains(',');
        if !fits || !(field.asked || field.custom) || !known.insert(field.name.clone()) {
            continue;
        }
        field.label = field.label.chars().filter(|c| !c.is_control()).take(LABEL_CHARS_MAX).collect();
        field.kind = field.kind.chars().filter(|c| !c.is_control()).take(KIND_CHARS_MAX).collect();
        if fields.len() < always.len() { fields.push(field) } else { rest.push(field) }
    }
    // The app's maker's own before those of the account: they are what mapping needs.
    rest.sort_by(|a, b| (a.custom, &a.name).cmp(&(b.custom, &b.name)));
    fields.extend(rest);
    let (mut length, mut count) = (0, 0);
    for field in fields.iter_mut().filter(|field| field.asked) {
        length += field.name.len() + 1;
        count += 1;
        field.asked = length <= limits.bytes.saturating_add(1) && count <= limits.names;
    }
    let dropped = fields.iter().filter(|field| field.custom && !field.asked).count();
    if length > limits.bytes.saturating_add(1) || count > limits.names {
        tracing::warn!(dropped, "an account has more custom fields than one request can name; some are not asked for");
    }
    fields
}

/// The fields of one collection, as requests see them.
pub struct Known {
    pub fields: AppFields,
    /// `{names, custom, all, lists}`.
    variable: Value,
    /// The types count too: a value is asked for, or read, by them.
    is_typed: bool,
}

/// What a session knows, by collection.
#[derive(Default)]
pub struct Kept(RwLock<HashMap<String, Arc<Known>>>);

impl Collection {
    /// Whether the app is asked which fields an account has.
    pub fn discovers_fields(&self) -> bool {
        self.fields.is_there()
    }
    /// Whether an account that may not see its fields is read without them.
    pub fn does_without_fields(&self) -> bool {
        self.fields.rest().is_some_and(|rest| rest.optional)
    }
}

impl Session {
    /// The fields of a collection, if they are known.
    pub fn known_fields(&self, c: &Collection) -> Option<Arc<Known>> {
        self.fields.0.read().unwrap_or_else(PoisonError::into_inner).get(&c.key).cloned()
    }
    /// Takes fields that were read before.
    pub fn know_fields(&self, c: &Collection, fields: AppFields) {
        let (mut names, mut lists) = (Vec::new(), BTreeMap::<&str, Vec<&str>>::new());
        for field in fields.fields.iter().filter(|field| field.asked) {
            match field.place() {
                (Some(list), name) => lists.entry(list).or_default().push(name),
                (None, name) => names.push(name),
            }
        }
        let custom: Vec<&str> =
            fields.fields.iter().filter(|f| f.asked && f.custom).map(|field| field.name.as_str()).collect();
        let all = fields.fields.iter().filter(|field| field.asked);
        let all: Value = all.map(|f| json!({ "name": f.name, "type": f.kind, "custom": f.custom })).collect();
        let variable = json!({ "names": names, "custom": custom, "all": all, "lists": lists });
        let is_typed = c.fields.rest().is_some_and(FieldsRest::is_typed);
        let known = Arc::new(Known { fields, variable, is_typed });
        self.fields.0.write().unwrap_or_else(PoisonError::into_inner).insert(c.key.clone(), known);
    }
    /// Reads the fields of a collection from the app, and asks for them from now on.
    ///
    /// # Errors
    /// The app's or the script's failure; an app that says there are none.
    pub async fn discover_fields(&self, c: &Collection) -> Result<AppFields, CallError> {
        let read_at = self.caller.clock.now();
        let fields = match &c.fields {
            Method::Rest(rest) => settled(self.fields_of(rest, c).await?, &rest.always, rest.limits),
            Method::Script(script) => {
                let mut input = Map::new();
                self.told(c).put(&mut input);
                let made = super::session::parse(&self.run(script, input.into()).await?)?;
                let made =
                    of_script(made).ok_or_else(|| CallError::Script("the script returned no fields".to_owned()))?;
                settled(made, &[], Limits::default())
            }
            _ => return Err(CallError::NotSupported(format!("the fields of {}", c.key))),
        };
        if !fields.iter().any(|field| field.asked) && !c.does_without_fields() {
            return Err(CallError::BadAnswer(format!("the app shows this account no field of {}", c.key)));
        }
        let fields = AppFields { read_at, fields };
        self.know_fields(c, fields.clone());
        self.caller.budget().habits.listed(&c.key);
        Ok(fields)
    }
    async fn fields_of(&self, rest: &FieldsRest, c: &Collection) -> Result<Vec<AppField>, CallError> {
        let told = self.told(c);
        let mut variables = self.caller.variables();
        variables.extend(told.variables());
        let (mut all, mut refused, mut shown) = (Vec::new(), None, false);
        for part in rest.parts(&c.key, &Env::of(&variables))? {
            match self.fields_of_part(rest, &told, part.as_ref()).await {
                Ok(found) => {
                    shown = true;
                    all.extend(found);
                }
                // One of several kinds of records, which this account has not got, or may not see.
                Err(error @ CallError::Refused { .. }) if part.is_some() => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        all.truncate(FIELDS_MAX);
        match refused {
            Some(error) if !shown => Err(error),
            _ => Ok(all),
        }
    }
    async fn fields_of_part(
        &self,
        rest: &FieldsRest,
        told: &Told,
        part: Option<&Part>,
    ) -> Result<Vec<AppField>, CallError> {
        let each = part.map(Part::variable).unwrap_or_default();
        let (mut all, mut mark) = (Vec::new(), None::<PageMark>);
        for _ in 0..PAGES_MAX {
            let position = rest.paging.position(mark.as_ref())?;
            let page = rest.paging.variable(&position);
            let mut variables = self.caller.variables();
            variables.extend([("page", &page), ("each", &each)]);
            variables.extend(told.variables());
            let mut outgoing = rest.request(&Env::of(&variables))?;
            if let Position::Address(address) = &position {
                outgoing = Outgoing { path: address.clone(), from_root: true, query: Vec::new(), ..outgoing };
            }
            let incoming = self.caller.call(outgoing).await?;
            let links: Vec<String> =
                incoming.headers.into_iter().filter(|(name, _)| name == "link").map(|(_, value)| value).collect();
            let (fields, next) =
                rest.page(&incoming.body, &links, &position, &self.caller.base, &self.caller.parameters)?;
            all.extend(fields);
            mark = next;
            if mark.is_none() || all.len() >= FIELDS_MAX {
                break;
            }
        }
        Ok(all)
    }
    /// What requests see as `fields`; null where the collection has no list of them. Read, if nobody has yet.
    pub(super) async fn fields_variable(&self, c: &Collection) -> Result<Value, CallError> {
        if !c.discovers_fields() {
            return Ok(Value::Null);
        }
        if self.known_fields(c).is_none() {
            match self.discover_fields(c).await {
                Ok(_) => {}
                Err(error) if c.does_without_fields() => self.go_without_fields(c, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(self.known_fields(c).map(|known| known.variable.clone()).unwrap_or_default())
    }
}

impl Known {
    /// The version of a mapping that is fed with these fields.
    pub fn version(&self, mapping: &[u8; 16]) -> [u8; 16] {
        let (fields, lists) = (&self.variable[if self.is_typed { "all" } else { "names" }], &self.variable["lists"]);
        match lists.as_object().is_none_or(Map::is_empty) {
            true => raw_hash(mapping, &fields.to_string()),
            false => raw_hash(mapping, &format!("{fields}{lists}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::mapping::Mapping;
    use crate::connectors::mapping::path::Path;
    use crate::connectors::yaml;

    fn rest(more: &str) -> FieldsRest {
        let text = format!(
            "{{path: /describe, records: $.fields, name: $.name, label: $.label, type: $.type, custom: $.custom{more}}}"
        );
        let map = Mapping::read("record.map.yml", "accountName: $.Name\nphone: $.Phone\n", &["parameters"]).unwrap();
        let id = Path::parse("$.Id").unwrap();
        FieldsRest::new("fields.rest.yml", &yaml::read("fields.rest.yml", &text).unwrap(), &map, &[&id]).unwrap()
    }

    fn asked(rest: &FieldsRest, answer: &Value) -> Vec<String> {
        let base = url::Url::parse("https://a.example/").unwrap();
        let (found, next) = rest.page(&answer.to_string(), &[], &Position::First, &base, &Value::Null).unwrap();
        assert!(next.is_none());
        let fields = AppFields { fields: settled(found, &rest.always, rest.limits), ..AppFields::default() };
        fields.asked().map(str::to_owned).collect()
    }

    fn describe() -> Value {
        json!({"fields": [
            {"name": "Zone__c", "custom": true, "type": "picklist", "label": "Zone"},
            {"name": "Phone", "custom": false}, {"name": "Name", "custom": false}, {"name": "Id", "custom": false},
            {"name": "Fax", "custom": false}, {"name": "Where__c", "custom": true, "type": "location"},
            {"name": "Area__c", "custom": true}, {"name": "Name", "custom": false}, {"label": "nameless"}
        ]})
    }

    #[test]
    fn what_is_mapped_and_what_is_custom_is_asked_for_in_one_order() {
        assert_eq!(asked(&rest(""), &describe()), ["Id", "Name", "Phone", "Area__c", "Where__c", "Zone__c"]);
        let only = rest(
            ", always: [Id, Stamp], where: {$and: [{$or: [$mapped, $custom]}, {$not: {$eq: [$.type, location]}}]}",
        );
        assert_eq!(asked(&only, &describe()), ["Id", "Stamp", "Name", "Phone", "Area__c", "Zone__c"]);
    }

    #[test]
    fn names_that_do_not_fit_are_left_out_from_the_end() {
        assert_eq!(asked(&rest(", lengthMax: 21"), &describe()), ["Id", "Name", "Phone", "Area__c"]);
    }

    #[test]
    fn an_object_of_fields_is_a_list_of_its_members() {
        let text = "{path: /catalogue, records: $.properties, name: $.key, label: $.value.title, custom: true}";
        let map = Mapping::read("record.map.yml", "a: $.b\n", &[]).unwrap();
        let rest = FieldsRest::new("f", &yaml::read("f", text).unwrap(), &map, &[]).unwrap();
        assert_eq!(asked(&rest, &json!({"properties": {"b": {"title": "B"}, "a": {}}})), ["a", "b"]);
        let base = url::Url::parse("https://a.example/").unwrap();
        let error = rest.page("{}", &[], &Position::First, &base, &Value::Null).unwrap_err();
        assert!(error.to_string().contains("no list of fields at $.properties"), "{error}");
    }

    #[test]
    fn a_script_may_give_names_alone() {
        let made = of_script(json!({"fields": ["a", {"name": "b", "type": "text", "custom": true}]})).unwrap();
        assert_eq!((made[0].name.as_str(), made[1].kind.as_str(), made[1].custom), ("a", "text", true));
        assert!(of_script(json!({"fieldz": []})).is_none() && of_script(json!([7])).is_none());
    }
}
