//! A power failure without a power switch: see `shim.c`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The preloaded library, built for this test run.
pub fn build(folder: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/shim.c");
    let library = folder.join("shim.so");
    let built =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.expect("a C compiler").success(), "the shim does not compile");
    library
}

/// Cuts every file of the folder to its length at its last successful sync, as the shim recorded it.
pub fn cut_power(db: &Path, log: &Path) -> u64 {
    let mut synced: HashMap<u64, u64> = HashMap::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        let (inode, length) = line.split_once(' ').expect("two numbers");
        synced.insert(inode.parse().expect("an inode"), length.parse().expect("a length"));
    }
    let mut lost = 0;
    for entry in std::fs::read_dir(db).expect("the store's folder") {
        let path = entry.expect("an entry").path();
        let meta = std::fs::metadata(&path).expect("a file");
        if !meta.is_file() || path.file_name().is_some_and(|name| name == "LOCK") {
            continue;
        }
        let kept = synced.get(&meta.ino()).copied().unwrap_or(0);
        if kept < meta.len() {
            lost += meta.len() - kept;
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the file opens");
            file.set_len(kept).expect("the tail is cut");
        }
    }
    lost
}
