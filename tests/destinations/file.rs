//! Files: once, whatever crashes, and rotated.

use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Verdict};

use crate::support::{batches, open, open_below, promises, unknown_setting};

/// The lines of all files below a folder.
pub(crate) fn lines(folder: &std::path::Path) -> Vec<Value> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|e| e == "ndjson") => paths.push(path),
                _ => {}
            }
        }
    }
    paths.sort();
    let text: String = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_batch_is_in_the_files_once() {
    let root = tempfile::tempdir().unwrap();
    let driver = open_below("file", json!({"folder": "a/b"}), Some(root.path())).unwrap();
    let count = || async { lines(root.path()).len() };
    promises::writes_once(&driver, count).await;
    promises::tests_well(&driver, count).await;
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_cut_off() {
    let root = tempfile::tempdir().unwrap();
    let driver = open_below("file", json!({}), Some(root.path())).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 3)).await;
    let folder = root.path().join(crate::support::DESTINATION.to_string());
    let file = folder.join("events-00000001-000001.ndjson");
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"eventId\":\"half of a");
    std::fs::write(&file, text).unwrap();
    promises::write(&driver, &batches::contacts(2, 4, 2)).await;
    let ids: Vec<Value> = lines(root.path()).into_iter().map(|line| line["remoteId"].clone()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn files_are_rotated_by_size_and_hold_whole_batches() {
    let root = tempfile::tempdir().unwrap();
    let driver = open_below("file", json!({"maxFileBytes": 1024}), Some(root.path())).unwrap();
    for number in 1..=4 {
        promises::write(&driver, &batches::contacts(number, number * 10, 2)).await;
    }
    let folder = root.path().join(crate::support::DESTINATION.to_string());
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let files = files.filter(|entry| entry.path().extension().is_some_and(|e| e == "ndjson")).count();
    assert!(files >= 3, "{files}");
    assert_eq!(lines(root.path()).len(), 8);
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_followed_by_another() {
    let root = tempfile::tempdir().unwrap();
    let driver = open_below("file", json!({}), Some(root.path())).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 3)).await;
    let folder = root.path().join(crate::support::DESTINATION.to_string());
    let first = std::fs::read(folder.join("events-00000001-000001.ndjson")).unwrap();
    std::fs::remove_file(folder.join("events-00000001-000001.ndjson")).unwrap();
    promises::write(&driver, &batches::contacts(2, 4, 2)).await;
    let second = std::fs::read(folder.join("events-00000001-000002.ndjson")).unwrap();
    assert!(second.starts_with(b"{") && second.len() < first.len(), "{}", second.escape_ascii());
    assert_eq!(lines(root.path()).len(), 2);
}

#[tokio::test]
async fn a_write_that_hangs_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let driver = open_below("file", json!({}), Some(root.path())).unwrap();
    promises::write(&driver, &batches::contacts(1, 1, 1)).await;
    // As one that was given up holds it.
    let folder = root.path().join(crate::support::DESTINATION.to_string());
    let lock = std::fs::File::open(folder.join(".events-00000001.lock")).unwrap();
    lock.lock().unwrap();
    let frozen = driver.prepare(&batches::contacts(2, 2, 1)).unwrap();
    let answer = driver.send(&frozen).await;
    let Answer::All(Verdict::Retry(fault)) = &answer else { panic!("{answer:?}") };
    assert_eq!(fault.error.slug(), "destination-busy");
    assert_eq!(lines(root.path()).len(), 1);
    lock.unlock().unwrap();
    assert_eq!(driver.send(&frozen).await, Answer::All(Verdict::Done));
    assert_eq!(lines(root.path()).len(), 2);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_for_the_owner_to_mend() {
    let root = tempfile::tempdir().unwrap();
    let driver = open_below("file", json!({}), Some(root.path())).unwrap();
    // A file stands where the folder should be.
    std::fs::write(root.path().join(crate::support::DESTINATION.to_string()), "").unwrap();
    let frozen = driver.prepare(&batches::contacts(1, 1, 1)).unwrap();
    let answer = driver.send(&frozen).await;
    assert!(!matches!(answer, Answer::All(Verdict::Done)), "{answer:?}");
    let steps = driver.test(&batches::probe(Default::default())).await;
    assert!(steps.last().is_some_and(|step| step.fault.is_some()), "{steps:?}");
}

#[test]
fn bad_settings_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let refused = |settings: Value| open_below("file", settings, Some(root.path())).err().unwrap().to_string();
    assert!(refused(unknown_setting()).contains("noSuchSetting"));
    assert!(refused(json!({"folder": "../up"})).contains("settings.folder"));
    assert!(refused(json!({"prefix": "a/b"})).contains("settings.prefix"));
    assert!(open("file", json!({})).err().unwrap().to_string().contains("files_path"));
}
