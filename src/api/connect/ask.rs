//! The fields of a form that is made of a kind's schema, and what was typed into them.
//!
//! Always true: what is typed into a secret field never comes back; what is left empty is left out. Not here: whether the
//! values fit (the kind's `open`).

use serde_json::Value;

use super::html::escape;
use crate::destinations::driver::Kind;

/// One text as a person types it: a service account's key, a certificate.
const TEXT_BYTES_MAX: usize = 32_768;
/// References that are followed to where a type is said.
const REFERENCES_MAX: usize = 4;

/// How a value is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Input {
    Text,
    /// Several lines.
    Lines,
    Number,
    Check,
    Choice(Vec<String>),
    /// An object or a list, as JSON.
    Json,
}

/// What is asked of a person.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) name: String,
    label: String,
    about: String,
    required: bool,
    secret: bool,
    default: Option<String>,
    input: Input,
}

/// All settings of a kind: the required ones first.
pub(super) fn all(kind: &Kind) -> Vec<Ask> {
    let schema = (kind.schema)().to_value();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object();
    let of = |(name, property): (&String, &Value)| one(name, property, &schema, required.contains(&name.as_str()));
    let mut all: Vec<Ask> = properties.into_iter().flatten().map(of).collect();
    all.sort_by_key(|ask| !ask.required);
    all
}

fn one(name: &str, property: &Value, schema: &Value, required: bool) -> Ask {
    let secret = property["writeOnly"] == Value::Bool(true);
    let default = match &property["default"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let about = property["description"].as_str().unwrap_or_default().replace('`', "");
    let (input, label) = (input(name, resolved(property, schema), secret), label(name));
    Ask { name: name.to_owned(), label, about, required, secret, default, input }
}

/// `secretAccessKey` as `Secret access key`.
fn label(name: &str) -> String {
    let mut label = String::new();
    for (place, letter) in name.chars().enumerate() {
        match (place, letter.is_ascii_uppercase()) {
            (0, _) => label.extend(letter.to_uppercase()),
            (_, true) => {
                label.push(' ');
                label.extend(letter.to_lowercase());
            }
            (_, false) => label.push(letter),
        }
    }
    label
}

/// Where the type is said: behind a reference, or beside null.
fn resolved<'a>(property: &'a Value, schema: &'a Value) -> &'a Value {
    let mut at = property;
    for _ in 0..REFERENCES_MAX {
        let reference = at["$ref"].as_str().and_then(|text| text.strip_prefix("#/"));
        let parts = ["anyOf", "allOf"].iter().find_map(|word| at[*word].as_array());
        let next = match (reference, parts) {
            (Some(path), _) => schema.pointer(&format!("/{path}")),
            (None, Some(parts)) => parts.iter().find(|part| part["type"] != "null"),
            (None, None) => None,
        };
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    at
}

fn input(name: &str, property: &Value, secret: bool) -> Input {
    let texts = |all: &Value, of: fn(&Value) -> Option<&str>| -> Vec<String> {
        all.as_array().into_iter().flatten().filter_map(of).map(str::to_owned).collect()
    };
    let mut choices = texts(&property["enum"], Value::as_str);
    if choices.is_empty() {
        choices = texts(&property["oneOf"], |one| one["const"].as_str());
    }
    if !choices.is_empty() {
        return Input::Choice(choices);
    }
    let is = |word: &str| match &property["type"] {
        Value::String(text) => text == word,
        Value::Array(all) => all.iter().any(|one| one == word),
        _ => false,
    };
    if is("boolean") {
        Input::Check
    } else if is("integer") || is("number") {
        Input::Number
    } else if is("object") || is("array") {
        Input::Json
    } else if is_lines(name, secret) {
        Input::Lines
    } else {
        Input::Text
    }
}

/// Whether a text has several lines: a field of one line would join those of a certificate or of a key.
fn is_lines(name: &str, secret: bool) -> bool {
    let name = name.to_lowercase();
    let is_pem = ["certificate", "privatekey", "pem", "credentials", "json", "serviceaccount", "cacert"];
    is_pem.iter().any(|end| name.ends_with(end)) || (!secret && (name == "ca" || name.ends_with("ca_file")))
}

impl Ask {
    /// Its label and input. `typed` comes back, unless it is secret.
    pub(super) fn field(&self, typed: &str) -> String {
        let name = escape(&self.name);
        let required = if self.required { " required" } else { "" };
        let shown = match (self.secret, typed.is_empty()) {
            (true, _) => "",
            (false, true) => self.default.as_deref().unwrap_or_default(),
            (false, false) => typed,
        };
        let value = escape(shown);
        let rest = "autocapitalize=\"none\" autocomplete=\"off\" spellcheck=\"false\"";
        let input = match &self.input {
            Input::Choice(choices) => {
                let option = |choice: &String| {
                    let selected = if choice == shown { " selected" } else { "" };
                    format!("<option{selected}>{}</option>", escape(choice))
                };
                let none = if self.required || self.default.is_some() { "" } else { "<option></option>" };
                let options: String = choices.iter().map(option).collect();
                format!("<select id=\"s-{name}\" name=\"s.{name}\"{required}>{none}{options}</select>")
            }
            Input::Check => {
                let checked = if matches!(shown, "on" | "true") { " checked" } else { "" };
                format!("<input id=\"s-{name}\" name=\"s.{name}\" type=\"checkbox\"{checked}>")
            }
            Input::Lines | Input::Json => {
                format!("<textarea id=\"s-{name}\" name=\"s.{name}\" rows=\"4\"{required} {rest}>{value}</textarea>")
            }
            Input::Text | Input::Number => {
                let kind = match (self.secret, &self.input) {
                    (true, _) => "password",
                    (false, Input::Number) => "number",
                    (false, _) => "text",
                };
                format!("<input id=\"s-{name}\" name=\"s.{name}\" type=\"{kind}\" value=\"{value}\"{required} {rest}>")
            }
        };
        let about =
            if self.about.is_empty() { String::new() } else { format!("<small>{}</small>", escape(&self.about)) };
        format!("<label for=\"s-{name}\">{}</label>{about}{input}", escape(&self.label))
    }

    /// What was typed, as the setting's type. None: it is left out. The error is one sentence.
    pub(super) fn value(&self, text: &str) -> std::result::Result<Option<Value>, String> {
        let (text, label) = (text.trim(), &self.label);
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("“{label}” is too long."));
        }
        if self.input == Input::Check {
            // A box that was never ticked says nothing: what is left out may mean more than no.
            let is_on = text == "on";
            return Ok((is_on || self.required || self.default.is_some()).then_some(Value::Bool(is_on)));
        }
        if text.is_empty() {
            return if self.required { Err(format!("Please fill in “{label}”.")) } else { Ok(None) };
        }
        let wants = |fits: fn(&Value) -> bool| match serde_json::from_str::<Value>(text) {
            Ok(value) if fits(&value) => Ok(Some(value)),
            _ => Err(format!("“{label}” is not what is expected there.")),
        };
        match &self.input {
            Input::Number => wants(Value::is_number),
            Input::Json => wants(|value| value.is_object() || value.is_array()),
            Input::Choice(choices) if !choices.iter().any(|choice| choice == text) => {
                Err(format!("“{label}” is not what is expected there."))
            }
            _ => Ok(Some(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use schemars::json_schema;
    use serde_json::json;

    use super::*;
    use crate::error::Error;

    static KIND: Kind = Kind {
        name: "fake",
        title: "Fake",
        about: "None.",
        mirrors: false,
        schema: || {
            json_schema!({
                "type": "object",
                "required": ["host"],
                "$defs": {"Tls": {"oneOf": [{"const": "require"}, {"const": "verify-full"}]}},
                "properties": {
                    "port": {"type": ["integer", "null"], "default": 5432},
                    "host": {"type": "string", "description": "Where `it` <is>."},
                    "secretAccessKey": {"type": ["string", "null"], "writeOnly": true},
                    "privateKey": {"type": "string", "writeOnly": true},
                    "tls": {"anyOf": [{"$ref": "#/$defs/Tls"}, {"type": "null"}]},
                    "quiet": {"type": "boolean"},
                    "labels": {"type": "object"},
                },
            })
        },
        open: |_| Err(Error::invalid("it is fake")),
    };

    fn named(name: &str) -> Ask {
        all(&KIND).into_iter().find(|ask| ask.name == name).unwrap()
    }

    #[test]
    fn fields_are_made_of_the_schema_and_the_required_ones_come_first() {
        assert_eq!(all(&KIND)[0].name, "host");
        let inputs: Vec<Input> =
            ["port", "host", "secretAccessKey", "privateKey", "quiet", "labels"].map(|name| named(name).input).into();
        use Input::{Check, Json, Lines, Number, Text};
        assert_eq!(inputs, [Number, Text, Text, Lines, Check, Json]);
        assert_eq!(named("tls").input, Input::Choice(vec!["require".into(), "verify-full".into()]));
        let host = named("host").field("a\"b");
        assert!(host.contains("value=\"a&quot;b\" required") && host.contains("Where it &lt;is&gt;."), "{host}");
        assert!(named("port").field("").contains("value=\"5432\""));
    }

    #[test]
    fn a_secret_that_was_typed_does_not_come_back() {
        for name in ["secretAccessKey", "privateKey"] {
            assert!(!named(name).field("hunter22").contains("hunter22"), "{name}");
        }
        let field = named("secretAccessKey").field("");
        assert!(field.contains("type=\"password\"") && field.contains(">Secret access key<"), "{field}");
    }

    #[test]
    fn what_is_typed_becomes_what_the_setting_is() {
        let value = |name: &str, text: &str| named(name).value(text);
        assert_eq!(value("port", " 5433 "), Ok(Some(json!(5433))));
        assert_eq!(value("port", ""), Ok(None));
        assert!(value("port", "many").is_err() && value("port", "\"1\"").is_err());
        assert_eq!(value("host", ""), Err("Please fill in “Host”.".to_owned()));
        assert_eq!(value("quiet", ""), Ok(None), "a box that was never ticked says nothing");
        assert_eq!(value("labels", "{\"a\":1}"), Ok(Some(json!({"a": 1}))));
        assert!(value("labels", "a").is_err() && value("tls", "none").is_err());
        assert_eq!(value("tls", "require"), Ok(Some(json!("require"))));
        assert!(value("host", &"x".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }
}
