//! Batches as objects of a store: NDJSON, packed, in partitions that query engines find, with an index of each batch.
//!
//! Always true: the same batch gives the same names and the same bytes (no time and no chance is in them); a name is used
//! by one batch only; the index is the last part, so what it lists is there. Not here: what a line says
//! (`destinations::lines`), how a store is written to (its driver).

use std::io::{Read, Write};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::driver::{Answer, Batch, Fault, Frozen, Limits, Part, Verdict};
use super::{lines, parts};
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::Bytes;

/// The most bytes that one object is unpacked to.
const UNPACKED_MAX_BYTES: u64 = 1 << 30;
/// The most bytes of a prefix, so that a whole key stays far below the 1,024 that stores allow.
const PREFIX_MAX_BYTES: usize = 512;

/// How objects are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Packing {
    /// `.jsonl.gz`
    #[default]
    Gzip,
    /// `.jsonl.zst`
    Zstd,
    /// `.jsonl`
    None,
}

impl Packing {
    /// What names end in.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Gzip => "jsonl.gz",
            Self::Zstd => "jsonl.zst",
            Self::None => "jsonl",
        }
    }
    /// Packs; the same bytes give the same bytes.
    ///
    /// # Errors
    /// A fault of ours: memory.
    pub fn pack(self, lines: Vec<u8>) -> std::io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(lines),
            Self::Zstd => zstd::bulk::compress(&lines, 3),
            Self::Gzip => {
                // No name and no time in the head: flate2 sets neither unless told to.
                let mut packed = GzEncoder::new(Vec::with_capacity(lines.len() / 4), flate2::Compression::default());
                packed.write_all(&lines)?;
                packed.finish()
            }
        }
    }
}

/// How objects are called, packed and cut: settings that all object stores share.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Layout {
    /// What all keys begin with: `tidemill/events`. Letters, digits, `.`, `_`, `-`, `=` and `/`.
    #[serde(default)]
    pub prefix: String,
    /// How objects are packed.
    #[serde(default)]
    pub compression: Packing,
    /// Bytes of events in an object at most, before it is packed: 1 KiB to 64 MiB.
    #[serde(default = "default_bytes")]
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_bytes: u32,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub max_seconds: u32,
}

fn default_bytes() -> u32 {
    16 << 20
}

fn default_rows() -> u32 {
    10_000
}

fn default_seconds() -> u32 {
    60
}

/// What the index says of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    key: String,
    topic: String,
    rows: usize,
    /// Of the lines, unpacked: so an index never depends on the release of a packer.
    bytes: usize,
    /// Of the lines, unpacked: hex.
    sha256: String,
    first_seq: u64,
    last_seq: u64,
}

impl Layout {
    /// Refuses what no store could be written with.
    ///
    /// # Errors
    /// `invalid`, with the setting's name.
    pub fn check(&mut self) -> Result<()> {
        self.prefix = self.prefix.trim_matches('/').to_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'=');
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
        if self.prefix.len() > PREFIX_MAX_BYTES || (!self.prefix.is_empty() && !self.prefix.split('/').all(is_plain)) {
            let message = "settings.prefix: use up to 512 letters, digits, `.`, `_`, `-` and `=`, divided by `/`";
            return Err(Error::invalid(message));
        }
        if !(1024..=64 << 20).contains(&self.max_bytes) {
            return Err(Error::invalid("settings.maxBytes: use 1024 to 67108864"));
        }
        super::settings::batches(self.max_rows, 100_000, self.max_seconds).map(drop)
    }

    /// The limits that these settings make.
    pub fn limits(&self, timeout: Duration) -> Limits {
        Limits {
            rows: usize::try_from(self.max_rows).unwrap_or(1),
            bytes: usize::try_from(self.max_bytes).unwrap_or(1024),
            age: Duration::from_secs(self.max_seconds.into()),
            timeout,
            // A batch that is cut anew has another name: what it holds would be there twice.
            recuts: false,
        }
    }

    /// A key below the prefix.
    pub fn key(&self, rest: &str) -> String {
        if self.prefix.is_empty() { rest.to_owned() } else { format!("{}/{rest}", self.prefix) }
    }

    /// Where a test of the destination writes.
    pub fn test_key(&self, batch: &Batch) -> String {
        self.key(&format!("_test/{}.{}", batch.destination, self.compression.extension()))
    }

    /// The batch as objects: one for each topic and day of receipt, and the index of them.
    ///
    /// # Errors
    /// A row's fault if it cannot be packed.
    pub fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        let mut groups: Vec<((&str, String), Vec<usize>)> = Vec::new();
        for (place, item) in batch.items.iter().enumerate() {
            let name = (item.event.topic.as_str(), day(item.event.accepted_at));
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, places)) => places.push(place),
                None => groups.push((name, vec![place])),
            }
        }
        let first_day = groups.first().map(|((_, day), _)| day.clone()).unwrap_or_default();
        let (mut parts, mut listed) = (Vec::new(), Vec::new());
        for ((topic, day), places) in groups {
            let items = || places.iter().filter_map(|place| batch.items.get(*place));
            let lines = lines::of(items().map(|item| (item, &*batch.include)));
            let (bytes, sha256) = (lines.len(), sha256_hex(&lines));
            let packed = self.compression.pack(lines);
            let body = packed.map_err(|error| Verdict::Row(Fault::new(Trouble::Failed, error.kind().to_string())))?;
            let key = self.key(&format!(
                "topic={}/date={day}/{}/{}.{}",
                topic.replace('/', "."),
                batch.destination,
                batch.id,
                self.compression.extension()
            ));
            listed.push(Listed {
                key: key.clone(),
                topic: topic.to_owned(),
                rows: places.len(),
                bytes,
                sha256,
                first_seq: items().map(|item| item.seq.0).min().unwrap_or_default(),
                last_seq: items().map(|item| item.seq.0).max().unwrap_or_default(),
            });
            parts.push(Part { target: key, body: Bytes::from(body), items: places });
        }
        let target = self.key(&format!("_index/date={first_day}/{}/{}.json", batch.destination, batch.id));
        let destination = batch.destination.to_string();
        let index = json!({"batchId": batch.id, "destinationId": destination, "objects": listed}).to_string();
        parts.push(Part { target, body: Bytes::from(index), items: Vec::new() });
        let items = batch.items.len();
        Ok(Frozen { id: batch.id.clone(), parts, items, refused: Vec::new(), notes: Vec::new() })
    }
}

/// What is told of a batch of which a store took `done` objects and said `verdict` of the next, and the index of those that it
/// took, which is to be written before that is told: a refused batch is divided, what comes again has another name, and
/// what is there already must not come again.
pub fn told(frozen: &Frozen, done: usize, verdict: Verdict) -> (Option<Part>, Answer) {
    // What is repeated is repeated whole, under its name.
    if done == 0 || !matches!(verdict, Verdict::Row(_)) {
        return (None, Answer::All(verdict));
    }
    match frozen.parts.split_last() {
        Some((index, objects)) if done < objects.len() => {
            match index_of(index, objects.get(..done).unwrap_or_default()) {
                Some(index) => (Some(index), parts::told(frozen, done, verdict)),
                None => (None, unlisted(verdict)),
            }
        }
        _ => (None, unlisted(verdict)),
    }
}

/// What is told if the store does not take an index: no event is to blame for that.
pub fn unlisted(verdict: Verdict) -> Answer {
    Answer::All(match verdict {
        Verdict::Row(fault) => Verdict::Retry(fault),
        other => other,
    })
}

/// The index, with these objects alone.
fn index_of(index: &Part, objects: &[Part]) -> Option<Part> {
    let mut body: Value = serde_json::from_slice(&index.body).ok()?;
    let listed = body.get_mut("objects")?.as_array_mut()?;
    listed.retain(|listed| objects.iter().any(|object| listed.get("key").is_some_and(|key| *key == *object.target)));
    Some(Part { body: Bytes::from(body.to_string()), ..index.clone() })
}

/// The UTC day: `2026-03-01`.
fn day(at: Millis) -> String {
    at.rfc3339_millis().split('T').next().unwrap_or_default().to_owned()
}

/// What an object of that name is.
pub fn content_type(key: &str) -> &'static str {
    match key.rsplit('.').next() {
        Some("gz") => "application/gzip",
        Some("zst") => "application/zstd",
        Some("json") => "application/json",
        _ => "application/x-ndjson",
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// Whether two objects of that name say the same: another release of a packer may give other bytes for the same lines.
pub fn same_content(key: &str, ours: &[u8], theirs: &[u8]) -> bool {
    ours == theirs || matches!((unpacked_sum(key, ours), unpacked_sum(key, theirs)), (Ok(a), Ok(b)) if a == b)
}

fn unpacked_sum(key: &str, packed: &[u8]) -> std::io::Result<[u8; 32]> {
    let mut lines: Box<dyn Read + '_> = match key.rsplit('.').next() {
        Some("gz") => Box::new(MultiGzDecoder::new(packed)),
        Some("zst") => Box::new(zstd::Decoder::new(packed)?),
        _ => Box::new(packed),
    };
    let (mut sum, mut buffer, mut total) = (Sha256::new(), vec![0_u8; 64 << 10], 0_u64);
    loop {
        let read = lines.read(&mut buffer)?;
        if read == 0 {
            return Ok(sum.finalize().into());
        }
        total += u64::try_from(read).unwrap_or(u64::MAX);
        if total > UNPACKED_MAX_BYTES {
            return Err(std::io::Error::other("it unpacks to too much"));
        }
        sum.update(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_gives_the_same_bytes_each_time_and_loses_nothing() {
        let lines = b"{\"a\":1}\n{\"a\":2}\n".repeat(500);
        for packing in [Packing::Gzip, Packing::Zstd, Packing::None] {
            let name = format!("x.{}", packing.extension());
            let (first, second) = (packing.pack(lines.clone()).unwrap(), packing.pack(lines.clone()).unwrap());
            assert_eq!(first, second);
            assert_eq!(unpacked_sum(&name, &first).unwrap(), sha256(&lines));
        }
    }

    #[test]
    fn a_gzip_head_has_no_time_and_no_machine() {
        let packed = Packing::Gzip.pack(b"x".to_vec()).unwrap();
        assert_eq!(packed.get(..10), Some([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255].as_slice()));
    }

    #[test]
    fn the_same_lines_packed_otherwise_are_the_same_content() {
        let lines = b"{\"a\":1}\n".repeat(100);
        let ours = Packing::Gzip.pack(lines.clone()).unwrap();
        let mut other = GzEncoder::new(Vec::new(), flate2::Compression::none());
        other.write_all(&lines).unwrap();
        let theirs = other.finish().unwrap();
        assert_ne!(ours, theirs);
        assert!(same_content("k.jsonl.gz", &ours, &theirs));
        assert!(!same_content("k.jsonl.gz", &ours, &Packing::Gzip.pack(b"other".to_vec()).unwrap()));
        assert!(!same_content("k.jsonl.gz", &ours, b"not packed"));
    }
}
