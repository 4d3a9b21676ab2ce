//! Reads the embedded schema files: finds the topics, puts shared definitions in place of references, lists the fields.
//!
//! Always true: a schema that leaves here has no `$ref`, so it can be published and checked alone.

use std::collections::HashMap;

use include_dir::{Dir, include_dir};
use serde_json::{Map, Value};

use super::arrange::Order;
use super::{Catalogue, Field, Model};
use crate::domain::version::ApiVersion;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config/models");

/// How deep a schema may nest, references included; a circle of references ends here.
const DEPTH_MAX: usize = 16;

/// The catalogue in the binary.
pub(super) fn embedded() -> Catalogue {
    let mut catalogue = Catalogue::default();
    let shared = match shared_definitions(&FILES) {
        Ok(shared) => shared,
        Err(fault) => return Catalogue { faults: vec![fault], ..catalogue },
    };
    for version in ApiVersion::ALL {
        match shared.get(&format!("record-{version}")) {
            Some(envelope) => catalogue.envelopes.push((*version, envelope.clone())),
            None => catalogue.faults.push(format!("common.json has no record-{version}")),
        }
    }
    let mut files = Vec::new();
    collect(&FILES, &mut files);
    files.sort_by_key(|(topic, system, _)| (*system, topic.clone()));
    for (topic, system, text) in files {
        match model(&topic, system, text, &shared) {
            Ok(model) => catalogue.models.push(model),
            Err(fault) => catalogue.faults.push(format!("{topic}: {fault}")),
        }
    }
    catalogue.by_topic = catalogue.models.iter().enumerate().map(|(at, m)| (m.topic.clone(), at)).collect();
    catalogue
}

/// Topic, whether it is a system one, and text of each file: the folders are the topic.
fn collect(dir: &Dir<'static>, into: &mut Vec<(String, bool, &'static str)>) {
    for file in dir.files() {
        let path = file.path().with_extension("").to_string_lossy().replace('\\', "/");
        let system = path.strip_prefix("system/");
        if path.contains('/') {
            let text = file.contents_utf8().unwrap_or_default();
            into.push((system.unwrap_or(&path).to_owned(), system.is_some(), text));
        }
    }
    for sub in dir.dirs() {
        collect(sub, into);
    }
}

type Shared = HashMap<String, Value>;

fn shared_definitions(dir: &Dir<'_>) -> Result<Shared, String> {
    let text = dir.get_file("common.json").and_then(|f| f.contents_utf8()).ok_or("common.json is missing")?;
    let document: Value = serde_json::from_str(text).map_err(|e| format!("common.json: {e}"))?;
    let definitions = document.get("$defs").and_then(Value::as_object).ok_or("common.json has no $defs")?;
    Ok(definitions.iter().map(|(name, schema)| (name.clone(), schema.clone())).collect())
}

fn model(topic: &str, system: bool, text: &str, shared: &Shared) -> Result<Model, String> {
    let document: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut schema = resolve(document, shared, 0)?;
    let object = schema.as_object_mut().ok_or("is not an object")?;
    let example = match object.get("examples").and_then(|e| e.get(0)) {
        Some(Value::Object(example)) => example.clone(),
        _ => return Err("has no example".into()),
    };
    let text_of = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (title, description) = (text_of("title"), text_of("description"));
    let mut fields = Vec::new();
    list(&schema, "", &mut fields);
    let order = Order::of(&schema);
    Ok(Model { topic: topic.to_owned(), title, description, system, schema, example, fields, order })
}

/// The schema with each `$ref` replaced by what it names; what stands beside the `$ref` (a title, a description) wins.
fn resolve(schema: Value, shared: &Shared, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err("nests too deep".into());
    }
    match schema {
        Value::Object(mut object) => {
            if let Some(Value::String(reference)) = object.shift_remove("$ref") {
                let name = reference.rsplit('/').next().unwrap_or_default();
                let named = shared.get(name).ok_or_else(|| format!("refers to {reference}, which is not there"))?;
                let mut merged = match named {
                    Value::Object(named) => named.clone(),
                    _ => return Err(format!("{reference} is not an object")),
                };
                merged.extend(object);
                return resolve(Value::Object(merged), shared, depth + 1);
            }
            let resolved = object.into_iter().map(|(key, value)| Ok((key, resolve(value, shared, depth + 1)?)));
            resolved.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Value::Array(items) => {
            items.into_iter().map(|v| resolve(v, shared, depth + 1)).collect::<Result<_, _>>().map(Value::Array)
        }
        plain => Ok(plain),
    }
}

/// Appends the fields below `schema`, each before what is inside it.
pub(super) fn list(schema: &Value, prefix: &str, into: &mut Vec<Field>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        into.push(field(property, path.clone()));
        list(property, &path, into);
        if let Some(items) = property.get("items") {
            let path = format!("{path}[]");
            if items.get("properties").is_none() {
                into.push(field(items, path.clone()));
            }
            list(items, &path, into);
        }
    }
}

fn field(schema: &Value, path: String) -> Field {
    let text_of = |key: &str| schema.get(key).and_then(Value::as_str).map(str::to_owned);
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    Field {
        path,
        title: text_of("title").unwrap_or_default(),
        description: text_of("description").unwrap_or_default(),
        kind: types.iter().find(|t| **t != "null").map(|t| (*t).to_owned()).unwrap_or_default(),
        format: text_of("format"),
        nullable: types.contains(&"null"),
    }
}

/// See [`Model::payload_schema`].
pub(super) fn payload_schema(model: &Model, version: ApiVersion) -> Value {
    let mut schema = model.schema.clone();
    let envelope = Catalogue::embedded().envelopes.iter().find(|(of, _)| *of == version).map(|(_, schema)| schema);
    let (Some(object), Some(envelope), false) = (schema.as_object_mut(), envelope, model.system) else {
        return schema;
    };
    // The example is of the fields alone.
    object.shift_remove("examples");
    let mut properties = envelope.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(Value::Object(own)) = object.get("properties") {
        properties.extend(own.clone());
    }
    object.insert("properties".into(), Value::Object(properties));
    if let Some(required) = envelope.get("required") {
        object.insert("required".into(), required.clone());
    }
    schema
}
