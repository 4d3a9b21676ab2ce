//! What the command line does without a running node: look at a store, work on connectors.
//!
//! Always true: a store is never made here, and one that a node uses is refused. Not here: arguments and printing
//! (`cli`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::connectors::{Connector, Registry, SpecError, schemas};
use crate::error::{Error, Result};
use crate::store;
pub use crate::store::copy_folder;

/// How the tests of connectors went.
#[derive(Debug, Default)]
pub struct Tests {
    /// A line per connector, and one per case that does not hold.
    pub text: String,
    pub failed: usize,
}

/// Reads all of a store, and says what is in it. With `upgrade_dry_run`, only what the next start would do to it. Nothing
/// is written.
///
/// # Errors
/// There is no store, a node uses it, the key does not open it, it is of a newer version, or it is damaged.
pub fn check_store(config: &Config, upgrade_dry_run: bool) -> Result<String> {
    let path = &config.storage.path;
    if upgrade_dry_run {
        return Ok(plan_text(&store::upgrade_plan(&config.storage)?));
    }
    if !store::exists(path) {
        return Err(Error::invalid(format!("there is no store in {}; set storage.path", path.display())));
    }
    let key = store::master_key(path, config.security.master_key.as_ref())?;
    let health = store::inspect(&config.storage, &key)?;
    let mut text = format!("store {}, version {}\n", path.display(), health.version);
    for (table, rows, bytes) in &health.tables {
        let _ = writeln!(text, "  {table:<20} {rows:>12} rows {bytes:>15} bytes");
    }
    if let Some(paused) = &health.paused {
        let (backup, restored) = (paused.backup_at.rfc3339_seconds(), paused.restored_at.rfc3339_seconds());
        let _ = writeln!(text, "restored at {restored} from a backup of {backup}: paused until `tidemill resume`");
    }
    let free = store::free_bytes(path);
    let _ = writeln!(text, "files and buffers: {} bytes; free on the disk: {free} bytes", health.bytes);
    text.push_str("every row was read: no damage\n");
    Ok(text)
}

/// Puts a backup into `storage.path`, where no store may be. What the next start will do is told.
///
/// # Errors
/// There is a store already, the folder is no backup, it is damaged, or its master key is not there.
pub fn restore_store(config: &Config, from: &Path) -> Result<String> {
    let (path, given) = (&config.storage.path, config.security.master_key.as_ref());
    if given.is_none() && !path.join("master.key").exists() {
        let message = format!(
            "the backup opens with the master key of the original only: set security.master_key, or put its master.key \
             into {}",
            path.display()
        );
        return Err(Error::invalid(message));
    }
    let key = store::master_key(path, given)?;
    let (note, owed) = store::restore(&config.storage, &key, from, &super::wall_clock())?;
    let mut text = format!("restored {} as of {}\n", path.display(), note.made_at.rfc3339_seconds());
    let _ = writeln!(
        text,
        "{} deliveries to {} subscriptions wait, and {} events to be given to subscriptions. What the original delivered \
         since then comes a second time, with the same webhook-id.",
        owed.deliveries, owed.lanes, owed.events
    );
    for (id, address, pending) in &owed.most {
        let _ = writeln!(text, "  {pending:>10}  {id}  {address}");
    }
    text.push_str(
        "Apps are asked again from where the backup was: changes that the original has told since are told again, as new \
         events.\nThe node starts paused: stop the original, start this one, then say `tidemill resume`.\n",
    );
    Ok(text)
}

fn plan_text(plan: &store::Plan) -> String {
    let (found, current) = (plan.found, plan.current);
    if plan.steps.is_empty() {
        return format!("the store has version {found}, as this build writes it: nothing to upgrade\n");
    }
    let mut text = format!("the store has version {found}; the next start makes version {current} of it:\n");
    let _ = match plan.is_under_way {
        true => writeln!(text, "  an upgrade was interrupted: it goes on, with the checkpoint that it made"),
        false => writeln!(text, "  keep it as it is, by hard links, in {}", plan.checkpoint.display()),
    };
    for (from, name) in &plan.steps {
        let _ = writeln!(text, "  {from} to {}: {name}", from + 1);
    }
    text
}

fn told(error: &SpecError) -> Error {
    Error::invalid(error.to_string())
}

fn registry(config: &Config) -> Result<Registry> {
    Registry::load(&config.connectors, &config.scripts).map_err(|error| told(&error))
}

/// Makes a small connector to start from, in a new folder of `dir`.
///
/// # Errors
/// A key that is none, a folder that is there already, or a disk that does not take it.
pub fn new_connector(dir: &Path, key: &str) -> Result<PathBuf> {
    crate::connectors::scaffold(dir, key).map_err(|error| told(&error))
}

/// Validates folders of connectors; without any, the installed ones. One line each.
///
/// # Errors
/// The first broken one: file, line and field in one sentence.
pub fn check_connector(config: &Config, folders: &[PathBuf]) -> Result<String> {
    let registry = registry(config)?;
    let mut connectors: Vec<Arc<Connector>> = Vec::new();
    for folder in folders {
        connectors.push(registry.read(folder).map_err(|error| told(&error))?);
    }
    if folders.is_empty() {
        connectors.extend(registry.all().cloned());
    }
    let mut text = String::new();
    for connector in connectors {
        let topics: Vec<&str> = connector.collections.iter().map(|c| c.topic.as_str()).collect();
        let _ =
            writeln!(text, "{:<16} {} ({}): {}", connector.key, connector.name, connector.category, topics.join(", "));
    }
    Ok(text)
}

/// The connector of a folder, or the installed one of that key.
///
/// # Errors
/// It is broken, or there is none.
pub(super) fn find(registry: &Registry, folder: &Path) -> Result<Arc<Connector>> {
    let installed = folder.to_str().filter(|_| !folder.is_dir()).and_then(|key| registry.get(key));
    installed.map_or_else(|| registry.read(folder).map_err(|error| told(&error)), Ok)
}

/// Writes the JSON Schemas of a connector's files into a folder, and says what an editor must be told.
///
/// # Errors
/// The disk does not take them.
pub fn connector_schemas(folder: &Path) -> Result<String> {
    let names = schemas::write(folder).map_err(|error| told(&error))?;
    let settings = schemas::editor_settings(&folder.display().to_string(), "connectors/*");
    let mut text = String::new();
    for name in &names {
        let _ = writeln!(text, "{}", folder.join(name).display());
    }
    let _ = writeln!(
        text,
        "\nFor any editor with yaml-language-server, in the first line of a file:\n\n\
         # yaml-language-server: $schema=<the way to>/list.schema.json\n\n\
         For VS Code with its YAML extension, in settings.json, where connectors are in connectors/<key>/:\n\n{settings:#}"
    );
    Ok(text)
}

/// Runs the tests of connectors, each a folder or the key of an installed one.
///
/// # Errors
/// A connector or a test file that cannot be read.
pub fn test_connector(config: &Config, folders: &[PathBuf]) -> Result<Tests> {
    let registry = registry(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
    let mut tests = Tests::default();
    for folder in folders {
        let connector = find(&registry, folder)?;
        let report = runtime.block_on(crate::connectors::run_tests(&connector)).map_err(|error| told(&error))?;
        let (passed, failed) = (report.passed, report.failures.len());
        let _ = writeln!(tests.text, "{}: {passed} passed, {failed} failed", connector.key);
        for failure in &report.failures {
            let _ = writeln!(tests.text, "  {failure}");
        }
        tests.failed += failed;
    }
    Ok(tests)
}
