//! The master key: given by configuration, or a file beside the store that only its owner may read.
//!
//! Always true: no key is ever made beside an existing store. Not here: what it encrypts (`vault`).

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::domain::secret::Secret;
use crate::error::{Error, Result};

/// The 32 bytes of the master key: `given` (64 hex characters) if there is one, else `{path}/master.key`, which is made
/// when there is no store yet.
pub fn master_key(path: &Path, given: Option<&Secret>) -> Result<[u8; 32]> {
    if let Some(given) = given {
        return parse(given.expose())
            .ok_or_else(|| Error::invalid("security.master_key must be 64 hexadecimal characters (32 bytes)"));
    }
    let file = path.join("master.key");
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(text.trim()).ok_or_else(|| {
            Error::invalid(format!("{} must hold 64 hexadecimal characters; restore it from a backup", file.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !super::exists(path) => make(path, &file),
        Err(error) => Err(Error::invalid(format!(
            "{} cannot be read, and the store beside it needs it: restore it, or set security.master_key",
            file.display()
        ))
        .because(error)),
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).ok()?;
    Some(key)
}

fn make(path: &Path, file: &Path) -> Result<[u8; 32]> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::internal("the system's random source failed"))?;
    let told = |error| Error::invalid(format!("{} cannot be written", file.display())).because(error);
    std::fs::create_dir_all(path).map_err(told)?;
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(told)?;
    out.write_all(hex::encode(key).as_bytes()).and_then(|()| out.sync_all()).map_err(told)?;
    // The folder's entry must survive a power cut as well, or the store beside it could never be opened again.
    std::fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(told)?;
    Ok(key)
}
