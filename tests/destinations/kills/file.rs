//! Files: the node is stopped where it has written a batch and is about to say so, by a pipe that stands where its new mark
//! will be and that nobody reads.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::{PATIENCE, Shape, State, Store, World, all};

/// The files of a destination.
struct Folder(PathBuf);

impl Store for Folder {
    async fn log(&self) -> Vec<String> {
        crate::file::lines(&self.0).iter().map(|line| line["eventId"].as_str().unwrap().to_owned()).collect()
    }

    async fn mirror(&self) -> Vec<(String, State)> {
        unreachable!("files are no mirror")
    }

    async fn crash(&mut self, _meanwhile: impl FnOnce()) {
        unreachable!("there is no server")
    }
}

/// What the node does when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// A batch is in its file, and the mark does not say so.
    Unmarked,
    /// The same, and only half of it had reached the disk.
    Torn,
    /// The mark says so, and the node's own store most likely does not.
    Marked,
}

impl Folder {
    fn mark(&self) -> PathBuf {
        let found = std::fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.path());
        let mut marks = found.filter(|path| path.extension().is_some_and(|ending| ending == "mark"));
        marks.next().expect("a mark")
    }

    /// The file that the next batch goes into, and where it begins there.
    fn next(&self, mark: &Path, limit: u64) -> (PathBuf, u64) {
        let read: Value = serde_json::from_str(&std::fs::read_to_string(mark).unwrap()).unwrap();
        let (number, length) = (read["number"].as_u64().unwrap(), read["length"].as_u64().unwrap());
        let (number, length) = if length >= limit { (number + 1, 0) } else { (number, length) };
        let name = mark.file_stem().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        (self.0.join(format!("{name}-{number:06}.ndjson")), length)
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn each_line_is_there_once_however_often_the_node_is_killed() {
    const FILE_BYTES: u64 = 32 << 10;
    let settings = json!({"maxFileBytes": FILE_BYTES});
    let mut world = World::open("file", settings, Shape::Append).await;
    let folder = Folder(world.folder.path().join("files").join(&world.destination));
    world.publish().await;
    world.settles(&folder).await;
    let mark = folder.mark();
    let pipe = mark.with_extension("new");
    let moments = [Moment::Unmarked, Moment::Marked, Moment::Torn].repeat(if all() { 5 } else { 1 });
    for moment in moments {
        let before = std::fs::read(&mark).unwrap();
        if moment == Moment::Marked {
            world.publish().await;
            until("the mark moves", || std::fs::read(&mark).unwrap() != before).await;
            world.node.kill();
        } else {
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            world.publish().await;
            let (file, begin) = folder.next(&mark, FILE_BYTES);
            until("a batch is written", || length(&file) > begin).await;
            world.node.kill();
            assert_eq!(std::fs::read(&mark).unwrap(), before, "it was killed before its mark");
            std::fs::remove_file(&pipe).unwrap();
            if moment == Moment::Torn {
                let half = begin + (length(&file) - begin) / 2;
                std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(half).unwrap();
            }
        }
        world.node.start();
        world.node.ready().await;
        // The pipe of the next round stands where the node writes: not while it does.
        world.settles(&folder).await;
    }
    assert_eq!(world.node.stop(), Some(0), "{}", world.node.log());
}
