//! A damaged store is told by its file, with what to do, and is not damaged further; a log that a crash cut is none.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use tidemill::outbound::Method;

use crate::support::node::Node;

/// A store with rows in files and in the log, whose node was killed.
async fn store() -> (TempDir, Node) {
    let folder = TempDir::new().expect("a folder");
    let mut node = Node::new(folder.path());
    // The log of a killed node becomes files at the next start.
    for _ in 0..2 {
        node.start();
        node.ready().await;
        for number in 0..20 {
            let event = json!({"topic": "crm/contacts", "dataPayload": {"number": number, "pad": "x".repeat(1000)}});
            node.call(Method::POST, "/2024-03/one/events", Some(&event)).await;
        }
        node.kill();
    }
    (folder, node)
}

fn db(node: &Node) -> PathBuf {
    node.folder.join("data/db")
}

fn ending(node: &Node, is: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(db(node)).expect("the store's folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths.filter(|path| is(&path.file_name().expect("a name").to_string_lossy())).collect();
    paths.sort();
    paths
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("a file");
    how(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// The files whose names have one of these parts.
fn contents(node: &Node, parts: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let wanted = |name: &str| parts.iter().any(|part| name.contains(part));
    ending(node, wanted).into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("a file"))).collect()
}

/// Everything that rows are in.
const ALL: &[&str] = &[".sst", ".log", "MANIFEST"];

/// Both `serve` and `check` name the file and end with 1, and leave files as they are.
async fn is_told(node: &mut Node, file: &str, kept: &[&str]) {
    let before = contents(node, kept);
    for command in ["check", "serve"] {
        let (code, said) = if command == "check" {
            let output = node.run(&[command]);
            (output.status.to_string(), String::from_utf8_lossy(&output.stderr).into_owned())
        } else {
            node.start();
            let ended = node.ready_or_ended().await.expect_err("a damaged store was opened");
            (ended.clone(), ended)
        };
        let last = said.trim_end().lines().last().unwrap_or_default();
        assert!(code.contains("exit status: 1"), "{command}: {code} {said}");
        let told = last.contains(file) && last.contains("is damaged") && last.contains("restore a backup");
        assert!(told, "{command}: {said}");
        for (path, bytes) in &before {
            let same = std::fs::read(path).is_ok_and(|now| now == *bytes);
            assert!(same, "{command} changed {}", path.display());
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

#[actix::test]
async fn flipped_bytes_in_a_table_file_are_told() {
    let (_folder, mut node) = store().await;
    let files = ending(&node, |name| name.ends_with(".sst"));
    assert!(!files.is_empty(), "nothing was written to files");
    for file in &files {
        change(file, |bytes| bytes[20] ^= 0xff);
    }
    is_told(&mut node, ".sst", &[".sst"]).await;
}

#[actix::test]
async fn a_table_file_that_is_gone_is_told() {
    let (_folder, mut node) = store().await;
    let files = ending(&node, |name| name.ends_with(".sst"));
    let gone = files.last().expect("a file");
    std::fs::remove_file(gone).expect("removed");
    is_told(&mut node, name(gone), ALL).await;
}

#[actix::test]
async fn a_cut_manifest_is_told() {
    let (_folder, mut node) = store().await;
    let files = ending(&node, |name| name.starts_with("MANIFEST"));
    let cut = files.last().expect("a manifest");
    change(cut, |bytes| bytes.truncate(bytes.len() / 2));
    is_told(&mut node, name(cut), ALL).await;
}

#[actix::test]
async fn garbage_in_the_middle_of_the_log_is_told() {
    let (_folder, mut node) = store().await;
    let files = ending(&node, |name| name.ends_with(".log"));
    let log = files.last().expect("a log");
    change(log, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 64].fill(0xa5);
    });
    is_told(&mut node, name(log), ALL).await;
}

#[actix::test]
async fn a_log_that_lost_what_was_on_disk_is_told() {
    let (_folder, node) = store().await;
    let files = ending(&node, |name| name.ends_with(".log"));
    let log = files.last().expect("a log");
    change(log, |bytes| bytes.truncate(bytes.len() / 2));
    let output = node.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(name(log)) && said.contains("cannot be read") && said.contains("durable.mark"), "{said}");
}

#[actix::test]
async fn a_log_that_a_crash_cut_is_no_damage() {
    let (_folder, mut node) = store().await;
    let files = ending(&node, |name| name.ends_with(".log"));
    let log = files.last().expect("a log");
    // Half a record that was never synced, and then what a disk may hold behind it.
    change(log, |bytes| {
        let start = bytes.len().saturating_sub(300);
        let record = bytes[start..start + 150].to_vec();
        bytes.extend_from_slice(&record);
    });
    let output = node.run(&["check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    node.start();
    node.ready().await;
    assert_eq!(node.stop(), Some(0));
}
