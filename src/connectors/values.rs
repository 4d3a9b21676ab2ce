//! What a collection says of itself for the files in `shared/`: `{{object}}`, and `values:` as `{{values.x}}` and
//! `$values.x`; and `shared/spec.yml`, which says once what would stand in the `spec.yml` of every collection.
//!
//! Always true: a value that a method of the collection uses is there, if only as null, and each that a collection has is
//! used, so that no misspelt name silently means nothing. Not here: what is done with them (`connectors::rest`).

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::files::{CollectionFile, CursorFile, PollFile, RecordFile, Values};
use super::filled::Filled;
use super::folder::SpecError;
use super::mapping::Env;
use super::spec::Detects;
use super::{Collection, Session};

/// The variable.
pub const NAME: &str = "values";
/// What values are made of.
const KNOWN: &[&str] = &["parameters"];

/// `shared/spec.yml`: what holds for each collection that does not say it itself.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedFile {
    pub detects: Option<Detects>,
    pub record: Option<RecordFile>,
    pub cursor: Option<CursorFile>,
    pub poll: Option<PollFile>,
    /// By name: a collection's own value of that name goes first.
    #[serde(default)]
    pub values: Values,
}

/// What of a collection's file may stand in `shared/spec.yml` instead.
pub struct Settled {
    pub detects: Detects,
    pub record: RecordFile,
    pub cursor: CursorFile,
    pub poll: PollFile,
}

impl SharedFile {
    /// What holds for a collection.
    pub fn settle(&self, path: &str, file: &CollectionFile) -> Result<Settled, SpecError> {
        let missing = |field: &str| {
            SpecError::in_file(path, "the field is missing, here and in shared/spec.yml").field(field.to_owned())
        };
        Ok(Settled {
            detects: file.detects.or(self.detects).ok_or_else(|| missing("detects"))?,
            record: file.record.clone().or_else(|| self.record.clone()).ok_or_else(|| missing("record"))?,
            cursor: file.cursor.clone().or_else(|| self.cursor.clone()).unwrap_or_default(),
            poll: file.poll.or(self.poll).unwrap_or_default(),
        })
    }
}

/// The values of one collection, compiled.
#[derive(Clone, Debug, Default)]
pub struct Own(Vec<(String, Filled)>);

impl Own {
    /// Compiles what `path` and `shared/spec.yml` say, and compares it with what the collection's methods use; a script
    /// may use any.
    pub fn new(
        path: &str,
        own: &Values,
        shared: &Values,
        used: &BTreeSet<String>,
        has_script: bool,
    ) -> Result<Self, SpecError> {
        if let Some((name, value)) = own.0.iter().find(|(name, _)| !has_script && !used.contains(name)) {
            let message = format!("no method of the collection uses {{{{{NAME}.{name}}}}}");
            return Err(SpecError::in_file(path, message).at(value.line).field(format!("{NAME}.{name}")));
        }
        let is_own = |name: &String| own.0.iter().any(|(known, _)| known == name);
        let all = own.0.iter().map(|member| (path, member));
        let all =
            all.chain(shared.0.iter().filter(|(name, _)| !is_own(name)).map(|member| ("shared/spec.yml", member)));
        let compiled = all.map(|(file, (name, value))| {
            let named = |error: SpecError| error.field(format!("{NAME}.{name}"));
            let filled = Filled::new(file, value, KNOWN).map_err(named)?;
            match filled.foreign(KNOWN) {
                None => Ok((name.clone(), filled)),
                Some(root) => Err(named(SpecError::in_file(file, format!("there is no {root:?} here")).at(value.line))),
            }
        });
        let compiled: Vec<_> = compiled.collect::<Result<_, SpecError>>()?;
        match used.iter().find(|name| compiled.iter().all(|(known, _)| known != *name)) {
            None => Ok(Self(compiled)),
            Some(name) => {
                let message =
                    "a method uses it: say it here (null, where the collection has none), or in shared/spec.yml";
                Err(SpecError::in_file(path, message).field(format!("{NAME}.{name}")))
            }
        }
    }
    /// The variable `values`.
    fn variable(&self, env: &Env<'_>) -> Value {
        self.0.iter().map(|(name, value)| (name.clone(), value.value(env))).collect::<Map<_, _>>().into()
    }
}

impl Collection {
    /// The members of a variable that its methods use.
    pub(super) fn names(&self, variable: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for list in [&self.pull, &self.ties, &self.touched, &self.scan, &self.deleted] {
            names.extend(list.rest().iter().flat_map(|list| list.names(variable)));
        }
        names.extend(self.fetch.rest().iter().flat_map(|fetch| fetch.names(variable)));
        names.extend(self.fields.rest().iter().flat_map(|fields| fields.names(variable)));
        names.extend(self.joins.iter().flat_map(|join| join.names(variable)));
        names
    }
    pub(super) fn has_script(&self) -> bool {
        let lists = [&self.pull, &self.ties, &self.touched, &self.scan, &self.deleted];
        lists.iter().any(|list| list.is_script()) || self.fetch.is_script() || self.fields.is_script()
    }
}

/// What requests see of their collection.
pub struct Told {
    object: Value,
    values: Value,
}

impl Told {
    /// As variables of expressions and holes.
    pub fn variables(&self) -> [(&'static str, &Value); 2] {
        [("object", &self.object), (NAME, &self.values)]
    }
    /// As a script gets them.
    pub fn put(self, input: &mut Map<String, Value>) {
        if !self.object.is_null() {
            input.insert("object".to_owned(), self.object);
        }
        if self.values.as_object().is_some_and(|values| !values.is_empty()) {
            input.insert(NAME.to_owned(), self.values);
        }
    }
}

impl Session {
    /// What requests see of a collection.
    pub(super) fn told(&self, c: &Collection) -> Told {
        let variables = self.caller.variables();
        let env = Env::of(&variables);
        let object = c.object.as_ref().and_then(|object| object.render(&env));
        Told { object: object.map_or(Value::Null, Value::from), values: c.values.variable(&env) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connectors::yaml;

    fn values(text: &str) -> Values {
        yaml::read("spec.yml", text).unwrap()
    }

    fn made(own: &str, shared: &str, used: &[&str]) -> Result<Value, String> {
        let used = used.iter().map(|name| (*name).to_owned()).collect();
        let own = Own::new("data/orders/spec.yml", &values(own), &values(shared), &used, false);
        let parameters = json!({"stage": "LEAD", "columns": {"orders": "t.a"}});
        Ok(own.map_err(|error| error.to_string())?.variable(&Env::of(&[("parameters", &parameters)])))
    }

    #[test]
    fn texts_with_holes_expressions_and_lists_are_values_and_own_ones_go_first() {
        let own = "{only: \"t.stage = '{{parameters.stage}}'\", columns: {$first: [$parameters.columns.orders, t.b]}, types: [a, b], created: null}";
        let all = made(own, "{only: all, size: 200}", &["only", "columns", "types", "created"]).unwrap();
        assert_eq!(
            all,
            json!({"only": "t.stage = 'LEAD'", "columns": "t.a", "types": ["a", "b"], "created": null, "size": 200})
        );
    }

    #[test]
    fn a_name_that_leads_nowhere_is_told_with_its_place() {
        let missing = made("{a: 1}", "{}", &["a", "table"]).unwrap_err();
        assert_eq!(
            missing,
            "data/orders/spec.yml, field values.table: a method uses it: say it here (null, where the collection has none), or in shared/spec.yml"
        );
        let idle = made("{a: 1,\n tabel: x}", "{}", &["a"]).unwrap_err();
        assert_eq!(
            idle,
            "data/orders/spec.yml, line 2, field values.tabel: no method of the collection uses {{values.tabel}}"
        );
        let unknown = made("{a: $since.time}", "{}", &["a"]).unwrap_err();
        assert!(unknown.contains("field values.a") && unknown.contains("unknown variable"), "{unknown}");
        let hole = made("{a: \"x {{since.time}}\"}", "{}", &["a"]).unwrap_err();
        assert!(hole.contains("field values.a") && hole.contains("there is no \"since\" here"), "{hole}");
    }
}
