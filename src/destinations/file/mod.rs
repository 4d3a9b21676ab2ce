//! `file`: rotated files of NDJSON in a folder of the node.
//!
//! Always true: each lane has files of its own, and a mark beside them that names the last batch that is in them whole,
//! and where it ends; what stands behind that mark is cut off before the next batch is appended, so a batch is in the
//! files once, whatever crashed. Not here: what a line says (`destinations::lines`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::lines;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::Bytes;

/// The kind.
pub static KIND: Kind = Kind {
    name: "file",
    title: "Files",
    about: "Rotated files of NDJSON, one event per line, in a folder that the node's operator allows.",
    mirrors: false,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// What can be set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    /// A folder below the destination's own, made if it is not there: letters, digits, `.`, `_`, `-` and `/`.
    #[serde(default)]
    folder: String,
    /// How files begin: `events` gives `events-00000001-000001.ndjson`.
    #[serde(default = "default_prefix")]
    prefix: String,
    /// A file that has reached so many bytes is followed by another: 1 KiB to 16 GiB.
    #[serde(default = "default_bytes")]
    #[schemars(range(min = 1024, max = 17_179_869_184_u64))]
    max_file_bytes: u64,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 10_000))]
    max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    max_seconds: u32,
}

fn default_prefix() -> String {
    "events".to_owned()
}

fn default_bytes() -> u64 {
    64 << 20
}

fn default_rows() -> u32 {
    1_000
}

fn default_seconds() -> u32 {
    1
}

/// Where a lane stands, beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The last batch that is in the files whole; empty: none.
    batch: String,
    /// The file that is written, from 1.
    number: u32,
    /// Its bytes.
    length: u64,
}

struct Files {
    folder: PathBuf,
    settings: Settings,
    rows: usize,
    age: Duration,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let settings: Settings = crate::destinations::settings::own(opening.settings)?;
    let Some(root) = opening.files else {
        let message = "files are not allowed on this node: its operator sets `destinations.files_path`";
        return Err(Error::invalid(message));
    };
    let is_plain = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
    };
    if !settings.folder.is_empty() && !settings.folder.split('/').all(is_plain) {
        return Err(Error::invalid("settings.folder: use parts of letters, digits, `.`, `_` and `-`, divided by `/`"));
    }
    if !is_plain(&settings.prefix) {
        return Err(Error::invalid("settings.prefix: use letters, digits, `.`, `_` and `-`"));
    }
    if !(1024..=17_179_869_184).contains(&settings.max_file_bytes) {
        return Err(Error::invalid("settings.maxFileBytes: use 1024 to 17179869184"));
    }
    let folder = root.join(opening.destination.to_string()).join(&settings.folder);
    let (rows, age) = crate::destinations::settings::batches(settings.max_rows, 10_000, settings.max_seconds)?;
    Ok(Arc::new(Files { folder, settings, rows, age }))
}

impl Driver for Files {
    fn limits(&self) -> Limits {
        Limits { rows: self.rows, bytes: 4 << 20, age: self.age, timeout: Duration::from_secs(60), recuts: false }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        let body = lines::of(batch.items.iter().map(|item| (item, &*batch.include)));
        // `{lane:08x}-{number:016x}`: a lane's files have its number in their names.
        let lane = batch.id.split('-').next().unwrap_or_default();
        let part = Part {
            target: format!("{}-{lane}", self.settings.prefix),
            body: Bytes::from(body),
            items: (0..batch.items.len()).collect(),
        };
        let items = batch.items.len();
        Ok(Frozen { id: batch.id.clone(), parts: vec![part], items, refused: Vec::new(), notes: Vec::new() })
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        let (folder, limit, frozen) = (self.folder.clone(), self.settings.max_file_bytes, frozen.clone());
        async move {
            let written = tokio::task::spawn_blocking(move || append_all(&folder, limit, &frozen)).await;
            Answer::All(match written {
                Ok(Ok(())) => Verdict::Done,
                Ok(Err(error)) => judge(&error),
                Err(_) => Verdict::Retry(Fault::new(Trouble::Failed, "the write did not end")),
            })
        }
        .boxed()
    }

    fn test<'a>(&'a self, _: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        let folder = self.folder.clone();
        async move {
            tokio::task::spawn_blocking(move || try_out(&folder)).await.unwrap_or_else(|_| {
                let fault = Fault::new(Trouble::Failed, "the test did not end");
                vec![Step { name: "write", took: Duration::ZERO, fault: Some(fault), found: String::new() }]
            })
        }
        .boxed()
    }
}

fn append_all(folder: &Path, limit: u64, frozen: &Frozen) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    frozen.parts.iter().try_for_each(|part| append(folder, limit, part, &frozen.id))
}

fn append(folder: &Path, limit: u64, part: &Part, batch: &str) -> io::Result<()> {
    // A write that was given up may still be under way, on a disk that hangs: it must not end after a later one.
    let lock = File::create(folder.join(format!(".{}.lock", part.target)))?;
    lock.try_lock().map_err(io::Error::from)?;
    let mark_path = folder.join(format!(".{}.mark", part.target));
    let mut mark = read_mark(&mark_path)?;
    // Batches of a lane are numbered upwards, and one is tried at a time.
    if !mark.batch.is_empty() && mark.batch.as_str() >= batch {
        return Ok(());
    }
    let path = |number: u32| folder.join(format!("{}-{number:06}.ndjson", part.target));
    // Moved away or cut by others, a file is not gone on with: its beginning would be NULs.
    if mark.number == 0 || mark.length >= limit || length(&path(mark.number))? < mark.length {
        mark.number += 1;
        mark.length = 0;
    }
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path(mark.number))?;
    file.set_len(mark.length)?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(mark.length))?;
    file.write_all(&part.body)?;
    file.sync_all()?;
    mark.length += u64::try_from(part.body.len()).unwrap_or_default();
    batch.clone_into(&mut mark.batch);
    write_mark(folder, &mark_path, &mark)
}

/// A file's bytes; none if it is not there.
fn length(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn read_mark(path: &Path) -> io::Result<Mark> {
    let mut text = String::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::default()),
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text).map_err(io::Error::other)
}

/// A new mark takes the place of the old one at once, and both it and its name are on disk before it counts.
fn write_mark(folder: &Path, path: &Path, mark: &Mark) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(mark).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

fn try_out(folder: &Path) -> Vec<Step> {
    let path = folder.join(".test");
    let acts: [(&'static str, &dyn Fn() -> io::Result<()>); 3] = [
        ("write", &|| {
            fs::create_dir_all(folder)?;
            let mut file = File::create(&path)?;
            file.write_all(b"tidemill\n")?;
            file.sync_all()
        }),
        ("read", &|| {
            let read = fs::read(&path)?;
            if read == b"tidemill\n" { Ok(()) } else { Err(io::Error::other("what was written does not read back")) }
        }),
        ("clean", &|| fs::remove_file(&path)),
    ];
    let mut steps = Vec::new();
    for (name, act) in acts {
        let began = Instant::now();
        let fault = act().err().map(|error| match judge(&error) {
            Verdict::Done => Fault::new(Trouble::Failed, ""),
            Verdict::Retry(fault) | Verdict::Row(fault) | Verdict::Config(fault) => fault,
        });
        let failed = fault.is_some();
        steps.push(Step { name, took: began.elapsed(), fault, found: String::new() });
        if failed {
            break;
        }
    }
    steps
}

/// What a failed write means. The operator's paths are not told.
fn judge(error: &io::Error) -> Verdict {
    use io::ErrorKind::{NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock};
    let detail = error.kind().to_string();
    match error.kind() {
        PermissionDenied | NotADirectory => Verdict::Config(Fault::new(Trouble::PermissionDenied, detail)),
        ReadOnlyFilesystem => Verdict::Config(Fault::new(Trouble::ReadOnly, detail)),
        StorageFull => Verdict::Retry(Fault::new(Trouble::Full, detail)),
        WouldBlock => Verdict::Retry(Fault::new(Trouble::Busy, "another write to the file has not ended")),
        QuotaExceeded => Verdict::Retry(Fault::new(Trouble::QuotaExceeded, detail)),
        _ => Verdict::Retry(Fault::new(Trouble::Failed, detail)),
    }
}
