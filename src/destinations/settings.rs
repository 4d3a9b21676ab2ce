//! Settings that several kinds share, joined with a kind's own.
//!
//! Always true: a setting that neither has is refused by its name. Not here: what any of them means (the kinds).

use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// How long an event may wait for others to join it.
const SECONDS_MAX: u32 = 3_600;

/// The schema of `own` with the properties of `shared` after its own.
pub fn schema(own: Schema, shared: Vec<Schema>) -> Schema {
    let mut joined = own;
    for part in shared {
        for name in ["properties", "$defs"] {
            let Some(Value::Object(more)) = part.get(name) else { continue };
            let entry = joined.ensure_object().entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(into) = entry {
                into.extend(more.clone());
            }
        }
        if let Some(Value::Array(more)) = part.get("required") {
            let entry = joined.ensure_object().entry("required").or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(into) = entry {
                into.extend(more.clone());
            }
        }
    }
    joined
}

/// Takes what `T` knows out of the settings.
///
/// # Errors
/// `invalid`, in the words of serde.
pub fn take<T: JsonSchema + DeserializeOwned>(settings: &mut Map<String, Value>) -> Result<T> {
    let schema = schemars::schema_for!(T);
    let mut taken = Map::new();
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for name in properties.keys() {
            if let Some((name, value)) = settings.remove_entry(name) {
                taken.insert(name, value);
            }
        }
    }
    own(taken)
}

/// How many events a batch may have, and how long one may wait for others, as `maxRows` and `maxSeconds` say.
///
/// # Errors
/// `invalid`, with what is allowed.
pub fn batches(rows: u32, rows_max: u32, seconds: u32) -> Result<(usize, Duration)> {
    if !(1..=rows_max).contains(&rows) {
        return Err(Error::invalid(format!("settings.maxRows: use 1 to {rows_max}")));
    }
    if seconds > SECONDS_MAX {
        return Err(Error::invalid(format!("settings.maxSeconds: use 0 to {SECONDS_MAX}")));
    }
    Ok((usize::try_from(rows).unwrap_or(1), Duration::from_secs(seconds.into())))
}

/// What is left are a kind's own settings.
///
/// # Errors
/// `invalid`, in the words of serde.
pub fn own<T: DeserializeOwned>(settings: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(settings)).map_err(|error| Error::invalid(format!("settings: {error}")))
}
