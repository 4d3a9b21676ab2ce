//! `fields.rest.yml` and `fields.graphql.yml`: the app's list of the fields that an account has, as a request and what its
//! answers say.
//!
//! Always true: a field that is neither the account's own nor asked for is left out at once. Not here: when it is asked
//! (`connectors::fields`).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::Outgoing;
use super::compile::{Builder, Found};
use super::each::{Each, EachFile, Part};
use super::fields::FIELDS_MAX;
use super::files::{HttpMethod, PagingFile, Pairs, Values, ordered};
use super::folder::SpecError;
use super::mapping::path::Path;
use super::mapping::{Env, Mapping, reads};
use super::paging::{Paging, Position, Seen};
use super::rest::{BODY_VARIABLES, Rest, not_json};
use super::template::Template;
use super::yaml::Placed;
use super::{CallError, PageMark, graphql, values};
use crate::domain::app_field::AppField;
use crate::domain::json::Json;

/// Bytes of all names to ask for with commas between, where the file does not say.
const LENGTH_MAX: usize = 64 * 1024;

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub names: usize,
    /// With commas between.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { names: FIELDS_MAX, bytes: LENGTH_MAX }
    }
}

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
    #[schemars(with = "Option<super::schemas::Expression>")]
    body: Option<Placed>,
    #[serde(default)]
    paging: PagingFile,
    /// Where the fields are: a list, or an object, whose members are then `{key, value}`.
    records: Path,
    /// Expressions over one of them. A name such as `variants[].size` is of the items of that list of a record.
    #[schemars(with = "super::schemas::Expression")]
    name: Placed,
    #[schemars(with = "Option<super::schemas::Expression>")]
    label: Option<Placed>,
    #[serde(rename = "type")]
    #[schemars(with = "Option<super::schemas::Expression>")]
    kind: Option<Placed>,
    #[schemars(with = "Option<super::schemas::Expression>")]
    custom: Option<Placed>,
    /// Which are asked for: over one of them, with `$custom` and `$mapped`. Those that are either, where it is not said.
    #[serde(rename = "where")]
    #[schemars(with = "Option<super::schemas::Expression>")]
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
    /// Asked once for each of these; what all show is put together, and one that the app refuses is left out.
    each: Option<EachFile>,
    /// An account that may not see the list goes on without it.
    #[serde(default)]
    optional: bool,
    /// What becomes of a field's value in a record, by the field's type: expressions over the value.
    #[serde(default, deserialize_with = "ordered")]
    #[schemars(with = "std::collections::BTreeMap<String, super::schemas::Expression>")]
    types: Vec<(String, Placed)>,
}

/// `data/<collection>/fields.graphql.yml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct QueryFieldsFile {
    query: String,
    #[schemars(with = "Option<super::schemas::Expression>")]
    variables: Option<Placed>,
    each: Option<EachFile>,
    #[serde(default)]
    paging: PagingFile,
    records: Path,
    #[schemars(with = "super::schemas::Expression")]
    name: Placed,
    #[schemars(with = "Option<super::schemas::Expression>")]
    label: Option<Placed>,
    #[serde(rename = "type")]
    #[schemars(with = "Option<super::schemas::Expression>")]
    kind: Option<Placed>,
    #[schemars(with = "Option<super::schemas::Expression>")]
    custom: Option<Placed>,
    #[serde(rename = "where")]
    #[schemars(with = "Option<super::schemas::Expression>")]
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
            each: self.each,
            optional: self.optional,
            types: Vec::new(),
        })
    }
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub struct FieldsRest {
    rest: Rest,
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
    pub(super) below: Option<String>,
    pub(super) limits: Limits,
    each: Option<Each>,
    pub(super) optional: bool,
    types: Vec<(String, Mapping)>,
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
        let types = fields.types.iter().map(|(kind, part)| {
            let compiled = compile(part, &["parameters"]).map_err(|error| error.field(format!("types.{kind}")))?;
            Ok((kind.clone(), compiled))
        });
        Ok(Self {
            rest: Rest::new(file, fields.method, &fields.path, &fields.query, &fields.headers, fields.body.as_ref())?,
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
            below: fields.below.clone(),
            limits: Limits {
                names: fields.names_max.unwrap_or(FIELDS_MAX),
                bytes: fields.length_max.unwrap_or(LENGTH_MAX),
            },
            each: fields.each.as_ref().map(|each| Each::new(file, each, &["parameters", values::NAME])).transpose()?,
            optional: fields.optional,
            types: types.collect::<Result<_, SpecError>>()?,
        })
    }
    /// The members of a variable that its requests use.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        let mut names = self.rest.names(variable);
        names.extend(self.each.iter().flat_map(|each| each.names(variable)));
        names
    }
    /// What it is asked for, one after the other.
    pub fn parts(&self, collection: &str, env: &Env<'_>) -> Result<Vec<Option<Part>>, CallError> {
        match &self.each {
            None => Ok(vec![None]),
            Some(each) => Ok(each.parts(collection, env)?.into_iter().map(Some).collect()),
        }
    }
    /// Whether a record's values are changed by their types.
    pub fn is_typed(&self) -> bool {
        !self.types.is_empty()
    }
    /// What becomes of a value of that type.
    pub fn typed(&self, kind: &str) -> Option<&Mapping> {
        self.types.iter().find(|(known, _)| known == kind).map(|(_, made)| made)
    }
    pub(super) fn request(&self, env: &Env<'_>) -> Result<Outgoing, CallError> {
        self.rest.outgoing(env)
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
        let fields = items.iter().filter_map(|item| self.field(item, parameters));
        Ok((fields.filter(|field| field.asked || field.custom).collect(), next))
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
