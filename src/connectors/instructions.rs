//! What a person must do in an app so that its webhooks come: a text with holes, filled in for one connection or
//! integration.
//!
//! Always true: no secret stands in it: a hole on a secret parameter is an error of the connector; a parameter that is not
//! set is named instead. Not here: where the text is shown.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Parameters;
use super::mapping::Env;
use super::mapping::path::Step;
use super::schema::Schema;
use super::template::Template;

/// Plain text, a step per line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Instructions(Template);

impl Instructions {
    /// A hole that cannot be shown. The error is one sentence.
    pub fn fault(&self, schema: &Schema) -> Option<String> {
        self.0.holes().find_map(|hole| {
            let name = hole.steps.first().map(|step| match step {
                Step::Key(name) => name.as_str(),
                Step::Index(_) => "",
            });
            match (hole.root.as_str(), name, hole.steps.len()) {
                ("webhook", Some("uri"), 1) => None,
                ("parameters", Some(name), 1) => match schema.property(name) {
                    None => Some(format!("there is no parameter {name:?}")),
                    Some(property) if property.write_only => Some(format!("{name:?} is secret: it is never shown")),
                    Some(_) => None,
                },
                _ => Some("a hole is {{webhook.uri}} or {{parameters.name}}".to_owned()),
            }
        })
    }

    /// The text for this address and these parameters.
    pub fn fill(&self, uri: &str, parameters: &Parameters, schema: &Schema) -> String {
        let defaults = schema.defaults();
        let shown = schema.properties().filter(|(_, property)| !property.write_only).map(|(name, _)| {
            let value = parameters.get(name).or_else(|| defaults.get(name)).filter(|value| !value.is_null());
            let text = match value {
                Some(Value::String(text)) if text.is_empty() => None,
                Some(Value::String(text)) => Some(text.clone()),
                Some(other) => Some(other.to_string()),
                None => None,
            };
            (name.to_owned(), Value::from(text.unwrap_or_else(|| format!("({name}: not set)"))))
        });
        let (webhook, parameters) = (json!({ "uri": uri }), Value::Object(shown.collect()));
        let variables = [("webhook", &webhook), ("parameters", &parameters)];
        self.0.render(&Env::of(&variables)).unwrap_or_default().trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let schema = json!({"properties": {"client": {"type": "string"}, "store": {"type": "string", "default": "all"},
            "key": {"type": "string", "writeOnly": true}}});
        serde_json::from_value(schema).unwrap()
    }

    fn text(text: &str) -> Instructions {
        serde_json::from_value(json!(text)).unwrap()
    }

    #[test]
    fn holes_are_filled_and_what_is_not_set_is_named() {
        let instructions = text("Paste {{webhook.uri}} for {{parameters.client}} at {{parameters.store}}.\n");
        assert_eq!(instructions.fault(&schema()), None);
        let given = json!({"client": "c1", "key": "k"}).as_object().unwrap().clone();
        let uri = "https://t.example/in/c/x";
        let said = instructions.fill(uri, &given, &schema());
        assert_eq!(said, "Paste https://t.example/in/c/x for c1 at all.");
        assert_eq!(
            instructions.fill(uri, &Parameters::new(), &schema()),
            "Paste https://t.example/in/c/x for (client: not set) at all."
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        for (hole, part) in [
            ("{{parameters.key}}", "secret"),
            ("{{parameters.nothing}}", "no parameter"),
            ("{{webhook.secret}}", "a hole is"),
            ("{{state.secret}}", "a hole is"),
            ("{{parameters}}", "a hole is"),
        ] {
            let fault = text(hole).fault(&schema()).unwrap();
            assert!(fault.contains(part), "{hole}: {fault}");
        }
    }
}
