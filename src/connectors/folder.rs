//! The files of one connector, from the binary or from disk, and errors that say where in them something is wrong.
//!
//! Always true: paths are relative to the connector's folder, with `/`; nothing above the limits is read. Not here: what
//! the files mean (`connectors::compile`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The most files of one connector, and the most bytes of one file.
const FILES_MAX: usize = 500;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const DEPTH_MAX: usize = 6;

/// What is wrong with a connector's folder: file, line and field in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The connector's key.
    pub connector: String,
    /// Relative to the connector's folder.
    pub file: String,
    /// Counted from 1.
    pub line: Option<u64>,
    pub field: Option<String>,
    pub message: String,
}

impl SpecError {
    /// An error about a whole file.
    pub fn in_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { connector: String::new(), file: file.into(), line: None, field: None, message: message.into() }
    }
    /// The same error at a line. 0 means that the line is not known.
    #[must_use]
    pub fn at(mut self, line: u64) -> Self {
        self.line = (line > 0).then_some(line);
        self
    }
    /// The same error about a field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connector.is_empty() {
            true => write!(f, "{}", self.file)?,
            false => write!(f, "connector {}: {}", self.connector, self.file)?,
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for SpecError {}

/// A connector's files by relative path.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// The connector's key: the folder's name.
    pub key: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    /// A folder made of texts, for tests and for what `specialise` substitutes.
    pub fn of(key: &str, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self { key: key.to_owned(), files: files.into_iter().collect() }
    }
    /// The folder as it was embedded at build time.
    pub fn embedded(dir: &include_dir::Dir<'_>) -> Self {
        fn gather(dir: &include_dir::Dir<'_>, root: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for file in dir.files() {
                let path = file.path().strip_prefix(root).unwrap_or(file.path());
                files.insert(slashed(path), file.contents().to_vec());
            }
            for sub in dir.dirs() {
                gather(sub, root, files);
            }
        }
        let mut files = BTreeMap::new();
        gather(dir, dir.path(), &mut files);
        let key = dir.path().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { key, files }
    }
    /// Reads a folder from disk. Hidden files are left out.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let key = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut files = BTreeMap::new();
        read_dir(path, path, DEPTH_MAX, &mut files).map_err(|message| SpecError {
            connector: key.clone(),
            ..SpecError::in_file(path.to_string_lossy(), message)
        })?;
        Ok(Self { key, files })
    }
    /// All paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
    /// All files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }
    /// Whether the file is there.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }
    /// The file's text; a missing file and one that is not UTF-8 are errors.
    pub fn text(&self, path: &str) -> Result<&str, SpecError> {
        let bytes = self.files.get(path).ok_or_else(|| SpecError::in_file(path, "the file is missing"))?;
        std::str::from_utf8(bytes).map_err(|_| SpecError::in_file(path, "the file is not UTF-8 text"))
    }
    /// The names of the folders directly inside `path` (`data`), sorted.
    pub fn children(&self, path: &str) -> Vec<&str> {
        let prefix = format!("{path}/");
        let mut names: Vec<&str> = (self.files.keys())
            .filter_map(|p| p.strip_prefix(&prefix)?.split_once('/').map(|(child, _)| child))
            .collect();
        names.dedup();
        names
    }
}

fn slashed(path: &Path) -> String {
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn read_dir(dir: &Path, root: &Path, depth: usize, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    if depth == 0 {
        return Err(format!("{}: folders are nested too deeply", dir.display()));
    }
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for entry in entries {
        let entry = entry.map_err(|e| format!("{}: {e}", dir.display()))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let about = std::fs::metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if about.is_dir() {
            read_dir(&path, root, depth - 1, files)?;
            continue;
        }
        if about.len() > FILE_BYTES_MAX {
            return Err(format!("{}: the file is larger than {FILE_BYTES_MAX} bytes", path.display()));
        }
        if files.len() >= FILES_MAX {
            return Err(format!("the folder holds more than {FILES_MAX} files"));
        }
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        files.insert(slashed(path.strip_prefix(root).unwrap_or(&path)), bytes);
    }
    Ok(())
}
