//! `connector new`: a folder that passes `check` and `test`, to start from.
//!
//! Always true: nothing that is there is overwritten. Not here: the command line (`cli::connector`).

use std::path::{Path, PathBuf};

use super::{SpecError, schemas};

/// The files of a new connector; `KEY` stands for its key.
const FILES: &[(&str, &str)] = &[
    ("spec.yml", include_str!("scaffold/spec.yml")),
    ("data/contacts/spec.yml", include_str!("scaffold/contacts.spec.yml")),
    ("data/contacts/pull.rest.yml", include_str!("scaffold/contacts.pull.rest.yml")),
    ("data/contacts/fetch.rest.yml", include_str!("scaffold/contacts.fetch.rest.yml")),
    ("data/contacts/record.map.yml", include_str!("scaffold/contacts.record.map.yml")),
    ("tests/contacts.yml", include_str!("scaffold/contacts.test.yml")),
];

/// Makes the folder `<dir>/<key>` with a small connector in it, and says where it is.
///
/// # Errors
/// A key that is none, a folder that is there already, or a disk that does not take it.
pub fn scaffold(dir: &Path, key: &str) -> Result<PathBuf, SpecError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if key.is_empty() || key.len() > 64 || !key.chars().all(allowed) || key.starts_with('-') {
        let message = "a connector's key has 1 to 64 lower-case letters, digits and hyphens, and begins with no hyphen";
        return Err(SpecError::in_file(key, message));
    }
    let folder = dir.join(key);
    if folder.exists() {
        return Err(SpecError::in_file(folder.to_string_lossy(), "it is there already"));
    }
    for (path, text) in FILES {
        let file = folder.join(path);
        let wrong = |error: std::io::Error| SpecError::in_file(file.to_string_lossy(), error.to_string());
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(wrong)?;
        }
        std::fs::write(&file, text.replace("KEY", key)).map_err(wrong)?;
    }
    for_editors(&folder, key)?;
    Ok(folder)
}

/// The schemas of the files, and where VS Code looks for them. Hidden folders are no part of the connector.
fn for_editors(folder: &Path, key: &str) -> Result<(), SpecError> {
    schemas::write(&folder.join(schemas::FOLDER))?;
    let settings = folder.join(".vscode/settings.json");
    let wrong = |error: std::io::Error| SpecError::in_file(settings.to_string_lossy(), error.to_string());
    std::fs::create_dir_all(folder.join(".vscode")).map_err(wrong)?;
    let text = schemas::editor_settings(&format!("./{}", schemas::FOLDER), key);
    std::fs::write(&settings, format!("{text:#}\n")).map_err(wrong)
}
