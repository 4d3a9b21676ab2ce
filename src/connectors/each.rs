//! `each:` of a collection: the same lists, walked once for each of some values, where an app keeps a list per site.
//!
//! Always true: the number of values is bounded, none is empty, none comes twice; nothing of such a collection is asked
//! without a value. Not here: one cursor per value (the watcher keeps them: a walk that breaks off at one value has moved
//! the others' already, and a value that is added later is read from its beginning).

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::folder::SpecError;
use super::mapping::{Env, Mapping};
use super::yaml::Placed;
use super::{CallError, Collection, Session};

/// Values of one collection.
const VALUES_MAX: usize = 100;
/// The longest value.
const VALUE_BYTES_MAX: usize = 256;

/// `each:` of `data/<collection>/spec.yml`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EachFile {
    /// An expression over `$parameters` (of fields, `$values` too): a list of texts.
    #[serde(rename = "in")]
    #[schemars(with = "super::schemas::Expression")]
    list: Placed,
    /// The value's name: `{{each.<as>}}`.
    #[serde(rename = "as")]
    name: String,
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub struct Each {
    list: Mapping,
    name: String,
}

/// One of the values that a collection is walked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    name: String,
    pub value: String,
}

impl Each {
    /// Compiles the part of a file.
    /// `variables` are those that the expression may use.
    pub fn new(file: &str, each: &EachFile, variables: &[&str]) -> Result<Self, SpecError> {
        let list = Mapping::compile(file, &each.list, variables).map_err(|e| e.field("each.in"))?;
        Ok(Self { list, name: each.name.clone() })
    }
    /// The members of a variable that it uses.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        self.list.names(variable)
    }
    /// The values.
    pub fn parts(&self, collection: &str, env: &Env<'_>) -> Result<Vec<Part>, CallError> {
        let made = self.list.eval(env);
        let wrong = |why: &str| {
            CallError::BadAnswer(format!(
                "{collection} is walked for each {}, and {why}; see the connection's parameters",
                self.name
            ))
        };
        let Value::Array(values) = made else { return Err(wrong("there is none")) };
        let mut parts: Vec<Part> = Vec::new();
        for value in values {
            let Value::String(value) = value else { return Err(wrong("one of them is no text")) };
            if value.is_empty() || value.len() > VALUE_BYTES_MAX {
                return Err(wrong("one of them is empty or too long"));
            }
            if parts.iter().all(|part| part.value != value) {
                parts.push(Part { name: self.name.clone(), value });
            }
        }
        match parts.len() {
            0 => Err(wrong("there is none")),
            1..=VALUES_MAX => Ok(parts),
            _ => Err(wrong("there are more than 100")),
        }
    }
}

impl Part {
    /// The variable `each`.
    pub(super) fn variable(&self) -> Value {
        json!({ self.name.as_str(): self.value })
    }
}

impl Session {
    /// What a collection is walked for, one after the other; one `None` where it is one list.
    ///
    /// # Errors
    /// The connection's parameters name no value.
    pub fn parts(&self, c: &Collection) -> Result<Vec<Option<Part>>, CallError> {
        match &c.each {
            None => Ok(vec![None]),
            Some(each) => {
                let variables = [("parameters", &self.caller.parameters)];
                Ok(each.parts(&c.key, &Env::of(&variables))?.into_iter().map(Some).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::yaml;

    fn parts(parameters: &Value) -> Result<Vec<String>, CallError> {
        let file: EachFile =
            yaml::read("spec.yml", "{in: {$split: {value: $parameters.sites, by: ','}}, as: site}").unwrap();
        let each = Each::new("spec.yml", &file, &["parameters"]).unwrap();
        let parts = each.parts("orders", &Env::of(&[("parameters", parameters)]))?;
        assert!(parts.iter().all(|part| part.variable()["site"] == part.value.as_str()));
        Ok(parts.into_iter().map(|part| part.value).collect())
    }

    #[test]
    fn each_value_is_walked_once() {
        assert_eq!(parts(&json!({"sites": "a, b,a,"})).unwrap(), ["a", "b"]);
    }

    #[test]
    fn no_value_and_too_many_are_said() {
        for (parameters, part) in [
            (json!({}), "there is none"),
            (json!({"sites": " , "}), "there is none"),
            (json!({"sites": "x".repeat(300)}), "too long"),
            (json!({"sites": (0..101).map(|n| n.to_string()).collect::<Vec<_>>().join(",")}), "more than 100"),
        ] {
            let error = parts(&parameters).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("orders"), "{error}");
        }
    }
}
