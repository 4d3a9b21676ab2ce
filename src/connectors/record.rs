//! What every record of an app has: id, times, the flag that it is deleted.
//!
//! Always true: the record's own JSON is kept byte for byte; an id that the app gives as a number keeps its digits.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::files::RecordFile;
use super::mapping::written;
use super::mapping::zones::{Local, Times};
use super::pick::Picker;
use super::{AppRecord, CallError};
use crate::domain::json::{self, Json};
use crate::domain::time::Millis;

/// The longest id that is taken for one.
const ID_BYTES_MAX: usize = 512;

/// Where a record carries what every record has.
#[derive(Clone, Debug)]
pub struct RecordSpec {
    picker: Picker,
    time: Times,
    /// Once the zone of the times is known.
    local: Option<(Local, Millis)>,
    /// The path of the id, for messages.
    id: String,
    /// What stands before the id itself.
    id_after: Option<String>,
    pub has_updated_at: bool,
    pub has_deleted: bool,
}

impl RecordSpec {
    /// Compiles the part of a file.
    pub fn new(file: &RecordFile) -> Self {
        let paths = [Some(&file.id), file.created_at.as_ref(), file.updated_at.as_ref(), file.deleted.as_ref()];
        Self {
            picker: Picker::new(&paths),
            time: file.time.clone(),
            local: None,
            id: file.id.to_string(),
            id_after: file.id_after.clone(),
            has_updated_at: file.updated_at.is_some(),
            has_deleted: file.deleted.is_some(),
        }
    }
    /// How the record's times are written.
    pub fn time(&self) -> &Times {
        &self.time
    }
    /// The same for records of one connection that are seen at this time.
    ///
    /// # Errors
    /// The zone of the times is a parameter that is not set, or no zone.
    pub fn local(&self, parameters: &Value, seen_at: Millis) -> Result<Cow<'_, Self>, CallError> {
        if !self.time.has_zone() {
            return Ok(Cow::Borrowed(self));
        }
        let local = self.time.local(parameters).map_err(CallError::BadAnswer)?;
        Ok(Cow::Owned(Self { local: Some((local, seen_at)), ..self.clone() }))
    }
    /// Reads a time that stands beside records, as theirs are written.
    ///
    /// # Errors
    /// As [`Self::local`].
    pub fn read_time(&self, raw: &RawValue, parameters: &Value) -> Result<Option<Millis>, CallError> {
        let Ok(value) = json::read(raw) else { return Ok(None) };
        let Some(text) = written(&value) else { return Ok(None) };
        if !self.time.has_zone() {
            return Ok(self.time.format().read(text));
        }
        Ok(self.time.local(parameters).map_err(CallError::BadAnswer)?.read(text, None))
    }
    /// Reads one record. The error is one sentence.
    pub fn read(&self, raw: &RawValue) -> Result<AppRecord, String> {
        let prefix = self.id_after.as_deref().unwrap_or_default();
        self.read_own(raw)?.ok_or_else(|| format!("the id at {} does not begin with {prefix}", self.id))
    }
    /// The same; None where the id is one of another kind of record.
    pub fn read_own(&self, raw: &RawValue) -> Result<Option<AppRecord>, String> {
        let found = self.picker.read(raw).map_err(|why| format!("a record is not JSON: {why}"))?;
        let [id, created_at, updated_at, deleted] = &found[..] else {
            return Err("a record cannot be read".to_owned());
        };
        if self.local.is_none() && self.time.has_zone() {
            return Err("the zone of its times is not known here".to_owned());
        }
        let time = |value: &Option<Json<'_>>| -> Option<Millis> {
            let text = written(value.as_ref()?)?;
            match &self.local {
                Some((local, seen_at)) => local.read(text, Some(*seen_at)),
                None => self.time.format().read(text),
            }
        };
        let remote_id = id.as_ref().and_then(id_text);
        let remote_id = remote_id.ok_or_else(|| format!("a record has no id at {}", self.id))?;
        let remote_id = match &self.id_after {
            None => Some(remote_id),
            Some(prefix) => remote_id.strip_prefix(prefix.as_str()).filter(|id| !id.is_empty()).map(str::to_owned),
        };
        let Some(remote_id) = remote_id else { return Ok(None) };
        Ok(Some(AppRecord {
            remote_id,
            raw: raw.to_owned(),
            created_at: time(created_at),
            updated_at: time(updated_at),
            deleted: deleted.as_ref().is_some_and(is_set),
        }))
    }
}

/// Text or number, not empty, not endless.
pub fn id_text(value: &Json<'_>) -> Option<String> {
    let text = written(value)?;
    (!text.is_empty() && text.len() <= ID_BYTES_MAX).then(|| text.to_owned())
}

/// A flag as apps write it: true, 1, "true", or a time at which it was deleted.
fn is_set(flag: &Json<'_>) -> bool {
    match flag {
        Json::Bool(set) => *set,
        Json::Number(digits) => digits != "0",
        Json::Text(text) => !matches!(text.to_lowercase().as_str(), "" | "0" | "false" | "no" | "n"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::yaml;

    fn spec() -> RecordSpec {
        let text = "{id: $.id, createdAt: $.c, updatedAt: $.u, deleted: $.gone, time: sql-utc}";
        RecordSpec::new(&yaml::read::<RecordFile>("spec.yml", text).unwrap())
    }

    fn read(text: &str) -> Result<AppRecord, String> {
        spec().read(&RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn an_id_is_text_and_times_without_zone_are_utc() {
        let record = read(r#"{"id": 9007199254740993, "c": "2017-08-21 22:22:19", "u": null, "gone": 0}"#).unwrap();
        assert_eq!(record.remote_id, "9007199254740993");
        assert_eq!(record.created_at.map(Millis::rfc3339_seconds).as_deref(), Some("2017-08-21T22:22:19Z"));
        assert_eq!(record.updated_at, None);
        assert!(!record.deleted);
        assert!(read(r#"{"id":"a","gone":"2026-01-01"}"#).unwrap().deleted);
    }

    #[test]
    fn a_record_without_an_id_is_an_error() {
        for bad in [r"{}", r#"{"id":null}"#, r#"{"id":""}"#, r#"{"id":{}}"#, "5"] {
            assert_eq!(read(bad).unwrap_err(), "a record has no id at $.id", "{bad}");
        }
    }
}
