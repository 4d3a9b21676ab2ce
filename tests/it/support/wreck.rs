//! The files of a node at the moment of its death.
//!
//! Always true: a copy is taken inside the store's own thread, which writes nothing meanwhile. Not here: when it dies
//! (`store::Stops`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Lengths of RocksDB's logs, by name.
pub type Logs = BTreeMap<String, u64>;

/// What is on disk for sure, as of a sync: the lengths of the logs, and the store's own mark of it.
#[derive(Clone, Default)]
pub struct Synced {
    pub logs: Logs,
    mark: Option<Vec<u8>>,
}

impl Synced {
    /// Once a sync is done that began when the logs had these lengths.
    pub fn of(folder: &Path, logs: Logs) -> Self {
        Self { logs, mark: std::fs::read(mark(folder)).ok() }
    }
}

fn mark(folder: &Path) -> PathBuf {
    folder.join("data/db/durable.mark")
}

/// The lengths of the logs in a node's folder.
pub fn logs(folder: &Path) -> Logs {
    let entries = std::fs::read_dir(folder.join("data/db")).into_iter().flatten().flatten();
    let log = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let is_log = Path::new(&name).extension().is_some_and(|ending| ending == "log");
        is_log.then(|| Some((name, entry.metadata().ok()?.len())))?
    };
    entries.filter_map(log).collect()
}

/// A copy of a node's folder. The mark of what is on disk comes first, so that it is never ahead of the rest.
pub fn copy(folder: &Path) -> TempDir {
    let to = TempDir::new().expect("a folder");
    let mut files = Vec::new();
    walk(folder, &mut files);
    files.sort_by_key(|path| !path.ends_with("durable.mark"));
    for path in files {
        let inside = path.strip_prefix(folder).expect("inside");
        let target = to.path().join(inside);
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        if path.file_name().is_some_and(|name| name == "LOCK") {
            continue;
        }
        // What RocksDB deletes meanwhile it needs no more.
        if let Err(error) = std::fs::copy(&path, &target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}: {error}", path.display());
        }
    }
    to
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

/// Cuts the logs to these lengths; a log that is not named was never there. A sync that was under way is undone, and so is
/// its mark.
pub fn cut(folder: &Path, to: &Logs, synced: &Synced) -> u64 {
    match &synced.mark {
        Some(bytes) => std::fs::write(mark(folder), bytes).expect("the mark is written"),
        // Without a mark nothing is known to be on disk.
        None => drop(std::fs::remove_file(mark(folder))),
    }
    let mut lost = 0;
    for (name, length) in logs(folder) {
        let kept = to.get(&name).copied().unwrap_or(0).min(length);
        let path = folder.join("data/db").join(name);
        std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(kept)).expect("the end is cut");
        lost += length - kept;
    }
    lost
}
