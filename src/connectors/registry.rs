//! All connectors of a node: those in the binary, and those of `connectors.path` beside or instead of them.
//!
//! Always true: loaded once at start; one broken connector is an error that names its place, never a connector that is
//! silently missing. Not here: parameters of one integration (`Connector::specialise`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use include_dir::{Dir, include_dir};

use super::compile::{Common, connector};
use super::folder::{Folder, SpecError};
use super::script;
use super::{Connector, Options};

/// The connectors in the binary.
static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config/connectors");

/// The connectors by key.
pub struct Registry {
    all: BTreeMap<String, Arc<Connector>>,
    common: Common,
}

impl Registry {
    /// Loads the embedded connectors, then those of `connectors.path`, and starts the script threads.
    ///
    /// # Errors
    /// The first broken connector: file, line and field in one sentence; or no threads could be started.
    pub fn load(options: &Options, scripts: &script::Options) -> Result<Self, SpecError> {
        let pool = script::Pool::start(scripts)
            .map_err(|error| SpecError::in_file("scripts", format!("the script threads cannot be started: {error}")))?;
        let common = Common {
            deadline: Duration::from_secs(u64::from(options.call_timeout_seconds.get())),
            answer_bytes_max: options.answer_bytes_max.get(),
            scripts: pool,
            script_options: Some(scripts.clone()),
        };
        let mut registry = Self { all: BTreeMap::new(), common };
        for dir in EMBEDDED.dirs() {
            registry.add(Folder::embedded(dir))?;
        }
        if let Some(path) = options.path.as_deref().filter(|path| !path.as_os_str().is_empty()) {
            registry.add_all(path)?;
        }
        Ok(registry)
    }
    /// The connector of that key.
    pub fn get(&self, key: &str) -> Option<Arc<Connector>> {
        self.all.get(key).cloned()
    }
    /// All connectors, by key.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.all.values()
    }
    /// Reads and checks one folder without adding it: `connector check` and `connector test`.
    ///
    /// # Errors
    /// File, line and field in one sentence.
    pub fn read(&self, path: &Path) -> Result<Arc<Connector>, SpecError> {
        connector(Folder::read(path)?, &self.common).map(Arc::new)
    }
    fn add_all(&mut self, path: &Path) -> Result<(), SpecError> {
        let wrong =
            |error: std::io::Error| SpecError::in_file(path.to_string_lossy(), format!("connectors.path: {error}"));
        let mut dirs = Vec::new();
        for entry in std::fs::read_dir(path).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden {
                dirs.push(path);
            }
        }
        dirs.sort();
        dirs.iter().try_for_each(|dir| self.add(Folder::read(dir)?))
    }
    fn add(&mut self, folder: Folder) -> Result<(), SpecError> {
        let connector = connector(folder, &self.common)?;
        self.all.insert(connector.key.clone(), Arc::new(connector));
        Ok(())
    }
}
