//! Parameters: the part of JSON Schema that connectors may use, typed, so that a misspelt keyword is an error.
//!
//! Always true: what passes has its defaults filled in; a secret is marked `writeOnly`, as JSON Schema has it. Not here:
//! the unified models' schemas (`domain::models`).

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Parameters;
use super::mapping::zones;
use super::yaml::Placed;

/// The most memory of one compiled pattern.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// An object's schema: `parametersSchema` of a connector or of an event.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    #[serde(default, rename = "type")]
    _object: ObjectType,
    #[serde(default)]
    properties: Properties,
    #[serde(default)]
    required: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ObjectType {
    #[default]
    Object,
}

/// One parameter.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Property {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub title: Option<String>,
    pub description: Option<String>,
    default: Option<Placed>,
    #[serde(rename = "enum")]
    choices: Option<Vec<String>>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    /// What a text must look like.
    pattern: Option<Pattern>,
    /// A hint for forms, e.g. `uri`, or `pem` for several lines; `time-zone` is checked.
    format: Option<String>,
    /// A secret: never shown again.
    #[serde(default)]
    pub write_only: bool,
    /// Who gives it: the ISV on the integration, or each connection. Both may where it is not said.
    #[serde(rename = "x-givenBy")]
    pub given_by: Option<GivenBy>,
    /// What a key must be allowed, to set it on an integration: where secrets go, or whose word counts.
    #[serde(rename = "x-scope")]
    scope: Option<NeededScope>,
}

/// What setting a parameter needs beyond the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum NeededScope {
    Admin,
}

/// A regular expression, matched in linear time.
#[derive(Clone, Debug, schemars::JsonSchema)]
struct Pattern(#[schemars(with = "String")] Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let built = RegexBuilder::new(&text).size_limit(PATTERN_BYTES_MAX).build();
        built.map(Self).map_err(|error| serde::de::Error::custom(format!("{text:?} is no pattern: {error}")))
    }
}

/// Who may set something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GivenBy {
    Integration,
    User,
}

/// The JSON types a parameter can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
}

/// Parameters in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties(Vec<(String, Property)>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::files::ordered(deserializer).map(Self)
    }
}

impl Schema {
    /// The parameter of that name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.0.iter().find(|(n, _)| n == name).map(|(_, property)| property)
    }
    /// All parameters, in the file's order.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &Property)> {
        self.properties.0.iter().map(|(name, property)| (name.as_str(), property))
    }
    /// Adds a parameter that every connector has.
    pub fn add(&mut self, name: &str, property: Property) {
        if self.property(name).is_none() {
            self.properties.0.push((name.to_owned(), property));
        }
    }
    /// Every parameter's default.
    pub fn defaults(&self) -> Parameters {
        let default = |(name, p): &(String, Property)| Some((name.clone(), p.default.as_ref()?.node.to_json()));
        self.properties.0.iter().filter_map(default).collect()
    }
    /// The given parameters with the defaults of the others. The error is one sentence that names the parameter.
    pub fn check(&self, given: &Parameters) -> Result<Parameters, String> {
        let all = self.fill(given)?;
        match self.required.iter().find(|name| !all.contains_key(*name)) {
            Some(name) => Err(format!("parameters.{name} is missing")),
            None => Ok(all),
        }
    }
    /// The same where some that are required are still to come.
    pub fn fill(&self, given: &Parameters) -> Result<Parameters, String> {
        let mut all = self.defaults();
        all.extend(self.check_part(given)?);
        Ok(all)
    }
    /// The given parameters, nulls left out, where others may still come. The error is one sentence that names the
    /// parameter.
    pub fn check_part(&self, given: &Parameters) -> Result<Parameters, String> {
        let mut part = Parameters::new();
        for (name, value) in given {
            let property = self.property(name).ok_or_else(|| self.unknown(name))?;
            if value.is_null() {
                continue;
            }
            property.check(value).map_err(|problem| format!("parameters.{name} {problem}"))?;
            part.insert(name.clone(), value.clone());
        }
        Ok(part)
    }
    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.properties().map(|(name, _)| name).collect();
        match known.is_empty() {
            true => format!("parameters.{name} is not known: there are no parameters here"),
            false => format!("parameters.{name} is not known; there are {}", known.join(", ")),
        }
    }
    /// Names that are required but not declared: a mistake in the file.
    pub fn undeclared(&self) -> Option<&str> {
        self.required.iter().map(String::as_str).find(|name| self.property(name).is_none())
    }
    /// Whether the parameter must be given.
    pub fn requires(&self, name: &str) -> bool {
        self.required.iter().any(|n| n == name)
    }
    /// As JSON Schema, for the API.
    pub fn to_json(&self) -> Value {
        let properties: Map<_, _> = self.properties.0.iter().map(|(n, p)| (n.clone(), p.to_json())).collect();
        json!({ "type": "object", "properties": properties, "required": self.required, "additionalProperties": false })
    }
}

impl Property {
    /// A text parameter that is declared by us, not by a file.
    pub fn text(title: &str, description: &str, given_by: GivenBy) -> Self {
        Self {
            kind: Kind::String,
            title: Some(title.to_owned()),
            description: Some(description.to_owned()),
            default: None,
            choices: None,
            min_length: None,
            max_length: None,
            minimum: None,
            maximum: None,
            pattern: None,
            format: None,
            write_only: false,
            given_by: Some(given_by),
            scope: None,
        }
    }
    /// Whether only a key with scope `admin` may set it.
    pub fn needs_admin(&self) -> bool {
        self.scope == Some(NeededScope::Admin)
    }
    /// What it may be, where it is one of a list.
    pub fn choices(&self) -> &[String] {
        self.choices.as_deref().unwrap_or_default()
    }
    /// Whether it is a key or certificate of several lines.
    pub fn is_pem(&self) -> bool {
        self.format.as_deref() == Some("pem")
    }
    /// The longest and the shortest text, for forms.
    pub fn lengths(&self) -> (Option<usize>, Option<usize>) {
        (self.min_length, self.max_length)
    }
    /// The default, as JSON.
    pub fn default(&self) -> Option<Value> {
        self.default.as_ref().map(|placed| placed.node.to_json())
    }
    fn check(&self, value: &Value) -> Result<(), String> {
        let fits = match self.kind {
            Kind::String => value.is_string(),
            Kind::Integer => value.is_i64() || value.is_u64(),
            Kind::Number => value.is_number(),
            Kind::Boolean => value.is_boolean(),
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
        };
        if !fits {
            return Err(format!("must be of type {}", json!(self.kind).as_str().unwrap_or_default()));
        }
        if let (Some(text), Some(choices)) = (value.as_str(), &self.choices)
            && !choices.iter().any(|choice| choice == text)
        {
            return Err(format!("must be one of {}", choices.join(", ")));
        }
        if let (Some(name), Some("time-zone")) = (value.as_str(), self.format.as_deref()) {
            zones::named(name).map_err(|problem| format!("must be a time zone: {problem}"))?;
        }
        let length = value.as_str().map(|text| text.chars().count());
        if let (Some(length), Some(min)) = (length, self.min_length)
            && length < min
        {
            return Err(format!("must have at least {min} characters"));
        }
        if let (Some(length), Some(max)) = (length, self.max_length)
            && length > max
        {
            return Err(format!("must have at most {max} characters"));
        }
        if let (Some(text), Some(Pattern(pattern))) = (value.as_str(), &self.pattern)
            && !pattern.is_match(text)
        {
            return Err(format!("must look like {pattern}"));
        }
        let number = value.as_i64();
        if let (Some(number), Some(min)) = (number, self.minimum)
            && number < min
        {
            return Err(format!("must be at least {min}"));
        }
        if let (Some(number), Some(max)) = (number, self.maximum)
            && number > max
        {
            return Err(format!("must be at most {max}"));
        }
        Ok(())
    }
    fn to_json(&self) -> Value {
        let mut all = json!({ "type": self.kind });
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                all[name] = value;
            }
        };
        put("title", self.title.as_deref().map(Value::from));
        put("description", self.description.as_deref().map(Value::from));
        put("default", self.default());
        put("enum", self.choices.clone().map(Value::from));
        put("minLength", self.min_length.map(Value::from));
        put("maxLength", self.max_length.map(Value::from));
        put("minimum", self.minimum.map(Value::from));
        put("maximum", self.maximum.map(Value::from));
        put("pattern", self.pattern.as_ref().map(|Pattern(pattern)| pattern.as_str().into()));
        put("format", self.format.as_deref().map(Value::from));
        put("writeOnly", self.write_only.then_some(Value::Bool(true)));
        put("x-givenBy", self.given_by.map(|by| json!(by)));
        put("x-scope", self.scope.map(|scope| json!(scope)));
        all
    }
}
