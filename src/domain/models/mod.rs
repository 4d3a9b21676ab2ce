//! The catalogue: every built-in topic with the schema of what its events carry.
//!
//! Always true: it is made from the JSON Schemas in `config/models/` (embedded), and from nothing else; so are the
//! metadata ([`Model::fields`]), the checks ([`Model::check`]) and the order of a record's fields ([`Model::arrange`]).
//! A data model's file describes the unified fields alone; what every record carries beside them (id, times) is in
//! `common.json`, once per API version. Not here: custom topics (`store`), delivery bodies (`body`).

mod arrange;
mod check;
#[cfg(test)]
mod docs_tests;
mod load;
pub mod system;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::json::Members;
use super::topic;
use super::version::ApiVersion;
use arrange::Order;
pub use check::{PROBLEMS_MAX, Problem};

/// One built-in topic.
#[derive(Clone, Debug)]
pub struct Model {
    /// `crm/contacts`.
    pub topic: String,
    /// In people's words, singular: `Tracking category`.
    pub title: String,
    /// One or two sentences.
    pub description: String,
    /// A system topic: its payload is complete, and has no record's id and times.
    pub system: bool,
    /// The unified fields (or the system payload) as JSON Schema 2020-12, without references.
    pub schema: Value,
    /// A record's unified fields (or a system payload), as an example.
    pub example: Map<String, Value>,
    /// Every field with its dotted path, in the model's order.
    pub fields: Vec<Field>,
    order: Order,
}

/// One field, as `GET /one/metadata/fields` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Dotted; `[]` stands for each element: `lineItems[].sku`.
    pub path: String,
    pub title: String,
    pub description: String,
    /// `string`, `number`, `integer`, `boolean`, `object` or `array`.
    pub kind: String,
    /// `date-time`, `date` or `uuid`.
    pub format: Option<String>,
    /// Whether it can be null.
    pub nullable: bool,
}

impl Model {
    /// The key of a list of records: `contacts`.
    pub fn plural(&self) -> &str {
        topic::model(&self.topic)
    }
    /// The key of one record: `contact`, `trackingCategory`. Made of the title.
    pub fn singular(&self) -> String {
        let mut words = self.title.split(' ');
        let first = words.next().map(str::to_lowercase).unwrap_or_default();
        words.fold(first, |mut name, word| {
            let mut letters = word.chars();
            name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
            name.push_str(letters.as_str());
            name
        })
    }
    /// The name in paths: `tracking-categories`.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for letter in self.plural().chars() {
            if letter.is_ascii_uppercase() {
                path.push('-');
            }
            path.push(letter.to_ascii_lowercase());
        }
        path
    }
    /// What is wrong with a record's unified fields (or with a system payload); empty if nothing is. At most
    /// [`PROBLEMS_MAX`] are told.
    pub fn check(&self, fields: &Map<String, Value>) -> Vec<Problem> {
        check::object(&self.schema, fields)
    }
    /// The same fields in the model's order, at every depth: equal records have equal bytes. Names that the model does
    /// not know follow in alphabetical order, `customFields` last; names that every record carries (`id`, times) are
    /// left out, since the engine writes them.
    pub fn arrange<'a>(&self, fields: Members<'a>) -> Members<'a> {
        self.order.record(fields)
    }
    /// The whole `dataPayload` of this topic in bodies of `version`, as JSON Schema 2020-12 that stands alone.
    pub fn payload_schema(&self, version: ApiVersion) -> Value {
        load::payload_schema(self, version)
    }
}

/// Every built-in topic, data topics first, each group in the order of its file names.
#[derive(Debug, Default)]
pub struct Catalogue {
    models: Vec<Model>,
    by_topic: HashMap<String, usize>,
    /// What a record carries beside its fields, as schema, by API version.
    envelopes: Vec<(ApiVersion, Value)>,
    /// Files that could not be read. Tests hold this empty, so that nothing has to be done about it at run time.
    faults: Vec<String>,
}

static EMBEDDED: LazyLock<Catalogue> = LazyLock::new(load::embedded);

impl Catalogue {
    /// The one that is built in.
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }
    /// All topics.
    pub fn models(&self) -> &[Model] {
        &self.models
    }
    /// The topic of this name, data or system.
    pub fn find(&self, topic: &str) -> Option<&Model> {
        self.by_topic.get(topic).and_then(|at| self.models.get(*at))
    }
    /// The data topic of this name.
    pub fn data(&self, topic: &str) -> Option<&Model> {
        self.find(topic).filter(|model| !model.system)
    }
    /// The data topic whose records are listed at `/one/{category}/{name}`, written as in the topic (`taxRates`) or as
    /// Alloy's paths have it (`tax-rates`).
    pub fn by_path(&self, category: &str, name: &str) -> Option<&Model> {
        let mut data = self.models.iter().filter(|m| !m.system && topic::category(&m.topic) == category);
        data.find(|m| m.plural() == name || m.path() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_catalogue_can_be_read() {
        let catalogue = Catalogue::embedded();
        assert_eq!(catalogue.faults, Vec::<String>::new());
        assert_eq!(catalogue.models().iter().filter(|m| !m.system).count(), 23);
        assert_eq!(catalogue.models().iter().filter(|m| m.system).count(), 16);
        assert_eq!(catalogue.envelopes.len(), ApiVersion::ALL.len());
    }

    #[test]
    fn every_example_satisfies_its_schema_and_is_in_its_order() {
        for model in Catalogue::embedded().models() {
            assert_eq!(model.check(&model.example), vec![], "{}", model.topic);
            jsonschema::meta::validate(&model.schema).unwrap_or_else(|e| panic!("{}: {e}", model.topic));
            let validator =
                jsonschema::draft202012::options().should_validate_formats(true).build(&model.schema).unwrap();
            if let Err(error) = validator.validate(&Value::Object(model.example.clone())) {
                panic!("{} at {}: {error}", model.topic, error.instance_path());
            }
            let arranged = model.arrange(Members::from(&model.example));
            assert_eq!(arranged.to_text(), serde_json::to_string(&model.example).unwrap(), "{}", model.topic);
        }
    }

    #[test]
    fn every_field_has_a_title_and_a_sentence() {
        for model in Catalogue::embedded().models() {
            assert!(!model.title.is_empty() && model.description.ends_with('.'), "{}", model.topic);
            for field in &model.fields {
                let named = !field.title.is_empty() && field.description.ends_with('.');
                assert!(named || field.path.ends_with("[]"), "{} {}", model.topic, field.path);
            }
        }
    }

    #[test]
    fn every_data_model_keeps_custom_fields_last() {
        for model in Catalogue::embedded().models().iter().filter(|m| !m.system) {
            assert_eq!(model.fields.last().map(|f| f.path.as_str()), Some("customFields"), "{}", model.topic);
        }
    }

    #[test]
    fn a_model_is_found_by_topic_and_by_either_path() {
        let catalogue = Catalogue::embedded();
        let model = catalogue.find("accounting/trackingCategories").unwrap();
        assert_eq!((model.plural(), model.singular().as_str()), ("trackingCategories", "trackingCategory"));
        assert_eq!(model.path(), "tracking-categories");
        for name in ["trackingCategories", "tracking-categories"] {
            assert_eq!(catalogue.by_path("accounting", name).map(|m| m.topic.as_str()), Some(model.topic.as_str()));
        }
        assert!(catalogue.by_path("sync", "completed").is_none());
        assert!(catalogue.data("sync/completed").is_none());
        assert!(catalogue.by_path("crm", "nothing").is_none());
    }

    #[test]
    fn fields_are_listed_flat_with_their_paths() {
        let orders = Catalogue::embedded().find("commerce/orders").unwrap();
        let paths: Vec<_> = orders.fields.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(&paths[..2], ["orderNumber", "totalShipping"]);
        assert!(paths.contains(&"lineItems") && paths.contains(&"lineItems[].sku"));
        assert!(paths.contains(&"billingAddress.city"));
        let tags = Catalogue::embedded().find("commerce/products").unwrap();
        assert!(tags.fields.iter().any(|f| f.path == "variants[].optionValues[].name" && f.kind == "string"));
    }
}
