//! Small shapes and checks that several resources share.

use std::collections::BTreeMap;
use std::fmt::Display;

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::time::Millis;
use crate::error::{Error, Result};

/// The longest name of a thing, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The answer of every DELETE: `{"deleted":true}` and the id of what is gone.
#[derive(Serialize, JsonSchema)]
pub(super) struct Deleted {
    deleted: bool,
    /// The id, under its usual name.
    #[serde(flatten)]
    id: BTreeMap<&'static str, String>,
}

impl Deleted {
    pub(super) fn new(name: &'static str, id: impl Display) -> Self {
        Self { deleted: true, id: BTreeMap::from([(name, id.to_string())]) }
    }
}

/// A name of 1 to 256 bytes without control characters.
pub(super) fn name_of(field: &str, text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        let message = format!("{field}: use 1 to {NAME_BYTES_MAX} bytes without control characters");
        return Err(Error::invalid(message));
    }
    Ok(text.to_owned())
}

/// A time that is still to come.
pub(super) fn future(field: &str, text: &str, now: Millis) -> Result<Millis> {
    match Millis::parse_rfc3339(text) {
        Some(at) if at > now => Ok(at),
        Some(_) => Err(Error::invalid(format!("{field}: this time is past"))),
        None => Err(Error::invalid(format!("{field}: use RFC 3339, such as 2030-04-19T16:57:18Z"))),
    }
}
