//! Every component's options, loaded once and then immutable: embedded file < user's file < environment.
//!
//! Always true: `config/tidemill.toml` holds every key and is the only source of defaults; an unknown key is an error
//! that names it and the nearest known one; a wrong value is an error that names where it was set; secrets are never
//! printed. Not here: what a setting does (the component that obeys it).
//!
//! A new key is a field in its section's struct and a line with its reason in `config/tidemill.toml`; a component that
//! brings its own `Options` replaces the struct of its section in [`Config`]. Nothing else changes.

mod check;
mod layers;
mod sections;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use sections::*;

/// The file that is built in: every key, its default and its reason.
pub const EMBEDDED: &str = include_str!("../../config/tidemill.toml");

/// What the node was told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub ops: Ops,
    pub security: Security,
    pub log: Log,
    pub tls: Tls,
    pub dns: Dns,
    pub delivery: Delivery,
    pub destinations: Destinations,
    pub ingest: Ingest,
    pub storage: Storage,
    pub retention: Retention,
    pub polling: Polling,
    pub connectors: Connectors,
    pub scripts: Scripts,
    /// The effective settings as TOML, each with where it comes from, secrets masked.
    #[serde(skip)]
    masked: String,
}

/// Why the configuration cannot be used. Each is one sentence that names the place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {message}")]
    NotToml { origin: String, message: String },
    #[error("{origin}: there is no setting {key}{}", near.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownKey { origin: String, key: String, near: Option<String> },
    #[error("{origin}: {key}: {message}")]
    BadValue { origin: String, key: String, message: String },
    #[error("{origin}: set {key} or {key}_file, not both")]
    Both { origin: String, key: String },
    #[error("the built-in configuration is broken: {0}")]
    Embedded(String),
}

impl Config {
    /// Loads the embedded file, then `file`, then those variables of `env` that are ours: `TIDEMILL__…` and the named
    /// ones (`TIDEMILL_API_KEY`, `TIDEMILL_MASTER_KEY`, `TIDEMILL_OPERATOR_KEY`, each also with `_FILE`).
    ///
    /// # Errors
    /// An unreadable file, an unknown key, or a value that its key does not take.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut layers = layers::Layers::embedded()?;
        if let Some(path) = file {
            layers.file(path)?;
        }
        layers.environment(env)?;
        layers.finish()
    }

    /// The defaults alone, as a test or a tool wants them.
    ///
    /// # Errors
    /// Never, as a test shows.
    pub fn embedded() -> Result<Self, Error> {
        Self::load(None, std::iter::empty())
    }

    /// What is in force, as TOML, each line with where it comes from, secrets as `***`.
    pub fn masked(&self) -> &str {
        &self.masked
    }
}

#[cfg(test)]
mod tests;
