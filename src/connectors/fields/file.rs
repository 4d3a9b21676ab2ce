//! `fields.rest.yml` and `fields.graphql.yml`: where an app says which fields an account has.
//!
//! Always true: a field without a name is none. Not here: what is asked of the app and when (`connectors::fields`).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{FIELDS_MAX, LENGTH_MAX, Limits};
use crate::connectors::caller::Outgoing;
use crate::connectors::compile::{Builder, Found};
use crate::connectors::files::{HttpMethod, PagingFile, Pairs, Values};
use crate::connectors::folder::SpecError;
use crate::connectors::mapping::path::Path;
use crate::connectors::mapping::{Env, Mapping, reads};
use crate::connectors::paging::{Paging, Position, Seen};
use crate::connectors::rest::{BODY_VARIABLES, Rest, not_json};
use crate::connectors::template::Template;
use crate::connectors::yaml::Placed;
use crate::connectors::{CallError, PageMark, graphql};
use crate::domain::app_field::AppField;
use crate::domain::json::Json;

/// `data/<collection>/fields.rest.yml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FieldsFile {
    #[serde(default)]
    method: HttpMethod,
    path: Template,
    #[serde(default)]
    query: Values,
    #[serde(default)]
    headers: Pairs,
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    body: Option<Placed>,
    /// An expression over `$object` and `$parameters`: the kinds of which the app is asked one after the other, each as
    /// `{{object}}`.
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    objects: Option<Placed>,
    #[serde(default)]
    paging: PagingFile,
    /// Where the fields are: a list, or an object, whose members are then `{key, value}`.
    records: Path,
    /// Expressions over one of them. A name such as `variants[].size` is of the items of that list of a record.
    #[schemars(with = "crate::connectors::schemas::Expression")]
    name: Placed,
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    label: Option<Placed>,
    #[serde(rename = "type")]
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    kind: Option<Placed>,
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    custom: Option<Placed>,
    /// Which are asked for: over one of them, with `$custom` and `$mapped`. Those that are either, where it is not said.
    #[serde(rename = "where")]
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    only: Option<Placed>,
    /// Names that are asked for in any case, first.
    #[serde(default)]
    always: Vec<String>,
    /// The member of a record under which it keeps its fields, where they are not its own members.
    below: Option<String>,
    /// Bytes of all names with commas between; what is over that is not asked for.
    length_max: Option<usize>,
    /// How many are asked for; what is over that is not.
    names_max: Option<usize>,
    /// An account may have none, and one that may not see which there are has none.
    #[serde(default)]
    optional: bool,
}

/// `data/<collection>/fields.graphql.yml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct QueryFieldsFile {
    query: String,
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    variables: Option<Placed>,
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    objects: Option<Placed>,
    #[serde(default)]
    paging: PagingFile,
    records: Path,
    #[schemars(with = "crate::connectors::schemas::Expression")]
    name: Placed,
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    label: Option<Placed>,
    #[serde(rename = "type")]
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    kind: Option<Placed>,
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    custom: Option<Placed>,
    #[serde(rename = "where")]
    #[schemars(with = "Option<crate::connectors::schemas::Expression>")]
    only: Option<Placed>,
    names_max: Option<usize>,
    #[serde(default)]
    optional: bool,
}

impl QueryFieldsFile {
    /// The same as a request.
    pub fn request(self, builder: &Builder<'_>, found: &Found<'_>) -> Result<FieldsFile, SpecError> {
        let (path, body) = graphql::request(builder, found, &self.query, self.variables)?;
        Ok(FieldsFile {
            method: HttpMethod::Post,
            path,
            query: Values::default(),
            headers: Pairs::default(),
            body: Some(body),
            objects: self.objects,
            paging: graphql::paging(self.paging, &self.records),
            records: self.records,
            name: self.name,
            label: self.label,
            kind: self.kind,
            custom: self.custom,
            only: self.only,
            always: Vec::new(),
            below: None,
            length_max: None,
            names_max: self.names_max,
            optional: self.optional,
        })
    }
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub struct FieldsRest {
    rest: Rest,
    objects: Option<Mapping>,
    pub(super) paging: Paging,
    records: Path,
    total: Option<Path>,
    next: Option<Path>,
    more: Option<Path>,
    name: Mapping,
    label: Option<Mapping>,
    kind: Option<Mapping>,
    custom: Option<Mapping>,
    only: Option<Mapping>,
    pub(super) always: Vec<String>,
    /// What mapping, id and times of a record are made of.
    mapped: BTreeSet<String>,
    pub(super) limits: Limits,
    pub(super) optional: bool,
}

impl FieldsRest {
    /// Compiles a file of the collection with that mapping; `besides` are the paths of its id, times and flag.
    pub fn new(file: &str, fields: &FieldsFile, map: &Mapping, besides: &[&Path]) -> Result<Self, SpecError> {
        let paging =
            Paging::new(&fields.paging).map_err(|(field, message)| SpecError::in_file(file, message).field(field))?;
        let below = fields.below.as_deref();
        let mut mapped = map.reads(below);
        mapped.extend(besides.iter().filter_map(|path| reads::member(path, below)).map(str::to_owned));
        let compile = |part: &Placed, variables: &[&str]| Mapping::compile(file, part, variables);
        let optional =
            |part: &Option<Placed>, variables: &[&str]| part.as_ref().map(|part| compile(part, variables)).transpose();
        Ok(Self {
            rest: Rest::new(file, fields.method, &fields.path, &fields.query, &fields.headers, fields.body.as_ref())?,
            objects: optional(&fields.objects, &["parameters", "object"])?,
            paging,
            records: fields.records.clone(),
            total: fields.paging.total.clone(),
            next: fields.paging.next.clone(),
            more: fields.paging.more.clone(),
            name: compile(&fields.name, BODY_VARIABLES)?,
            label: optional(&fields.label, BODY_VARIABLES)?,
            kind: optional(&fields.kind, BODY_VARIABLES)?,
            custom: optional(&fields.custom, BODY_VARIABLES)?,
            only: optional(&fields.only, &["parameters", "custom", "mapped"])?,
            always: fields.always.clone(),
            mapped,
            limits: Limits {
                names: fields.names_max.unwrap_or(FIELDS_MAX),
                bytes: fields.length_max.unwrap_or(LENGTH_MAX),
            },
            optional: fields.optional,
        })
    }
    pub(super) fn request(&self, env: &Env<'_>) -> Result<Outgoing, CallError> {
        self.rest.outgoing(env)
    }
    /// What the app is asked of, one after the other.
    pub(super) fn objects(&self, parameters: &Value, object: &Value) -> Vec<Value> {
        let variables = [("parameters", parameters), ("object", object)];
        match self.objects.as_ref().map(|objects| objects.eval(&Env::of(&variables))) {
            None => vec![object.clone()],
            Some(Value::Array(objects)) => objects,
            Some(other) => vec![other],
        }
    }
    /// The fields of one page, and the mark of the next one.
    pub(super) fn page(
        &self,
        body: &str,
        links: &[String],
        position: &Position,
        base: &url::Url,
        parameters: &Value,
    ) -> Result<(Vec<AppField>, Option<PageMark>), CallError> {
        let answer: Value = serde_json::from_str(body).map_err(|error| not_json(body, &error))?;
        let items: Vec<Value> = match self.records.find(&answer) {
            Some(Value::Array(items)) => items.clone(),
            Some(Value::Object(members)) => {
                members.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
            }
            _ => return Err(CallError::BadAnswer(format!("the answer has no list of fields at {}", self.records))),
        };
        let at = |path: &Option<Path>| path.as_ref().and_then(|path| path.find(&answer)).cloned();
        let seen = Seen {
            count: items.len(),
            total: at(&self.total).and_then(|total| total.as_u64().or_else(|| total.as_str()?.parse().ok())),
            next: at(&self.next),
            more: at(&self.more).and_then(|more| more.as_bool()),
            links,
            ids: Vec::new(),
        };
        let next = self.paging.next(position, &seen, base)?;
        Ok((items.iter().filter_map(|item| self.field(item, parameters)).collect(), next))
    }
    fn field(&self, item: &Value, parameters: &Value) -> Option<AppField> {
        let variables = [("parameters", parameters)];
        let item = Json::from(item);
        let env = Env::new(&item, &variables);
        let text =
            |part: &Option<Mapping>| part.as_ref().map(|part| part.eval(&env)).and_then(text).unwrap_or_default();
        let name = text_of(&self.name, &env)?;
        let custom = self.custom.as_ref().is_some_and(|custom| custom.holds(&env));
        let mapped = self.mapped.contains(&name);
        let (is_custom, is_mapped) = (Value::Bool(custom), Value::Bool(mapped));
        let told = [("parameters", parameters), ("custom", &is_custom), ("mapped", &is_mapped)];
        let asked = match &self.only {
            None => custom || mapped,
            Some(only) => only.holds(&Env::new(&item, &told)),
        };
        let (label, kind) = (text(&self.label), text(&self.kind));
        Some(AppField { name, label, kind, custom, asked })
    }
}

fn text_of(part: &Mapping, env: &Env<'_>) -> Option<String> {
    text(part.eval(env)).filter(|name| !name.is_empty())
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
