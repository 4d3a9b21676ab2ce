//! A value as files write it: a text with holes, or an expression.
//!
//! Always true: one whose hole has no value is none. Not here: which variables there are (whoever compiles it says so).

use std::collections::BTreeSet;

use serde_json::Value;

use super::files::{Pairs, Values};
use super::folder::SpecError;
use super::mapping::{Env, Mapping};
use super::rest::BODY_VARIABLES;
use super::template::Template;
use super::yaml::{Node, Placed};

/// A query parameter's value, or one of `values:`.
#[derive(Clone, Debug)]
pub enum Filled {
    Template(Template),
    Expression(Mapping),
}

impl Filled {
    /// Compiles the query parameters of a file; those without a name or a value are left out.
    pub fn all(file: &str, values: &Values) -> Result<Vec<(String, Self)>, SpecError> {
        let named = values.0.iter().filter(|(name, value)| !name.is_empty() && !matches!(value.node, Node::Null));
        let filled = named.map(|(name, value)| {
            let filled = Self::new(file, value, BODY_VARIABLES).map_err(|e| e.field(format!("query.{name}")))?;
            Ok((name.clone(), filled))
        });
        filled.collect()
    }
    /// Compiles one. `variables` are those that an expression may use.
    pub fn new(file: &str, value: &Placed, variables: &[&str]) -> Result<Self, SpecError> {
        match &value.node {
            Node::Text(text) if !text.starts_with('$') => {
                let wrong = |message: String| SpecError::in_file(file, message).at(value.line);
                Template::parse(text).map(Self::Template).map_err(wrong)
            }
            _ => Mapping::compile(file, value, variables).map(Self::Expression),
        }
    }
    /// What it comes to.
    pub fn value(&self, env: &Env<'_>) -> Value {
        match self {
            Self::Template(template) => template.render(env).map_or(Value::Null, Value::String),
            Self::Expression(expression) => expression.eval(env),
        }
    }
    /// The same as text, for an address.
    pub fn text(&self, env: &Env<'_>) -> Option<String> {
        match self.value(env) {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }
    /// Whether it may depend on a lower bound.
    pub fn may_use_since(&self) -> bool {
        match self {
            Self::Template(template) => template.uses("since"),
            Self::Expression(_) => true,
        }
    }
    /// Whether columns that the account lacks can be left out of it.
    pub fn names_columns(&self) -> bool {
        matches!(self, Self::Expression(expression) if expression.names_columns())
    }
    /// What a hole of it begins with, if that is none of these.
    pub fn foreign(&self, known: &[&str]) -> Option<&str> {
        match self {
            Self::Template(template) => template.roots().find(|root| !known.contains(root)),
            Self::Expression(_) => None,
        }
    }
    /// The members of a variable that it uses.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        match self {
            Self::Template(template) => template.names(variable),
            Self::Expression(expression) => expression.names(variable),
        }
    }
}

/// Names and texts whose holes have values.
pub fn rendered(pairs: &Pairs, env: &Env<'_>) -> Vec<(String, String)> {
    let named = pairs.0.iter().filter(|(name, _)| !name.is_empty());
    named.filter_map(|(name, template)| Some((name.clone(), template.render(env)?))).collect()
}
