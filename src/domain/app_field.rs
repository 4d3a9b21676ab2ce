//! The fields that one account of an app has: which are asked for, and what people see of the app's own.
//!
//! Always true: lengths and number are bounded before anything of it is stored. Not here: how an app is asked for them
//! (`connectors::fields`), the unified fields (`domain::models`).

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// What stands between a list of a record and a field of its items, in a field's name: `variants[].size`.
const IN_LIST: &str = "[].";

/// One field of an app's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppField {
    /// As requests and records have it: `Region__c`; `variants[].size` of the items of that list.
    pub name: String,
    /// As people see it in the app; empty where the app does not say.
    pub label: String,
    /// The app's own word: `currency`, `enumeration`; empty where the app does not say.
    pub kind: String,
    /// Made in this account, not by the app's maker.
    pub custom: bool,
    /// Whether it is asked for.
    pub asked: bool,
}

impl AppField {
    /// The list of a record whose items have it, where it is not the record's own, and its name there.
    pub fn place(&self) -> (Option<&str>, &str) {
        match self.name.split_once(IN_LIST) {
            Some((list, name)) => (Some(list), name),
            None => (None, &self.name),
        }
    }
}

/// What a collection of a connection is known to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppFields {
    pub read_at: Millis,
    /// In the app's order; those that are neither asked for nor custom are left out.
    pub fields: Vec<AppField>,
}

impl AppFields {
    /// The names to ask for.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|field| field.asked).map(|field| field.name.as_str())
    }
}
