//! Trying inputs on one target: seeds first, then mutations of what has been tried.
//!
//! Always true: whatever goes wrong names the file with the input that did it; if the process itself died, it is in
//! `fuzz-<target>-current` of the target folder's `tmp`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::memory;
use super::mutate::mutate;

/// Inputs that breed.
const POOL_MAX: usize = 2_000;
/// One input that takes so long hangs. An answer takes milliseconds.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// Memory for one input. Those of 64 KiB that are read well take a few megabytes.
const BYTES_MAX: usize = 256 << 20;

/// One parser.
pub struct Target<'a> {
    /// Its folder below `tests/fuzz/seeds`.
    pub name: &'static str,
    /// Tries an input. An error is a promise that was broken; a panic is one too.
    pub run: Box<dyn FnMut(&[u8]) -> Result<(), String> + 'a>,
    /// What the target's own texts are made of.
    pub words: &'static [&'static str],
    /// Inputs beside those that are kept.
    pub more: Vec<Vec<u8>>,
    /// Mutations in the usual run: about a second of them.
    pub tries: usize,
}

/// How long each target is tried; None is the usual number of mutations.
fn wanted() -> Option<Duration> {
    let text = std::env::var("TIDEMILL_FUZZ_SECONDS").ok()?;
    Some(Duration::from_secs(text.parse().expect("TIDEMILL_FUZZ_SECONDS is a number")))
}

impl Target<'_> {
    /// Tries the seeds, then mutations.
    pub fn fuzz(mut self) {
        let watch = Watch::start(self.name);
        let mut pool: Vec<Vec<u8>> = seeds(self.name);
        assert!(!pool.is_empty(), "tests/fuzz/seeds/{} is empty", self.name);
        pool.append(&mut self.more);
        for seed in &pool {
            self.one(seed, &watch);
        }
        let (until, rng_seed) = match wanted() {
            Some(time) => (Some(Instant::now() + time), fastrand::u64(..)),
            None => (None, 7),
        };
        println!("{}: {} seeds, from {rng_seed}", self.name, pool.len());
        let mut rng = Rng::with_seed(rng_seed);
        let mut tried = 0;
        while until.map_or(tried < self.tries, |until| Instant::now() < until) {
            let (parent, other) = (rng.usize(..pool.len()), rng.usize(..pool.len()));
            let input = mutate(&mut rng, &pool[parent], &pool[other], self.words);
            self.one(&input, &watch);
            tried += 1;
            // Without knowing what is new in it, some children live on by chance, so that changes add up.
            if rng.u32(..8) == 0 && input.len() < 4_096 {
                let place = rng.usize(..POOL_MAX);
                if pool.len() < POOL_MAX { pool.push(input) } else { pool[place] = input }
            }
        }
        println!("{}: {tried} mutations", self.name);
        drop(std::fs::remove_file(current(self.name)));
    }

    fn one(&mut self, input: &[u8], watch: &Watch) {
        // A stack that overflows ends the process at once: then this file tells what did it.
        std::fs::write(current(self.name), input).expect("the input is written");
        watch.begin(input);
        let run = &mut self.run;
        let (ran, peak) = memory::peak_of(|| catch_unwind(AssertUnwindSafe(|| run(input))));
        watch.end();
        let wrong = match ran {
            Ok(Ok(())) if peak <= BYTES_MAX => return,
            Ok(Ok(())) => format!("it took {peak} bytes of memory"),
            Ok(Err(broken)) => broken,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                format!(
                    "it panicked: {}",
                    text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default()
                )
            }
        };
        let path = keep(self.name, input);
        panic!("{}: {wrong}; the input is in {}, keep it in tests/fuzz/seeds/{}", self.name, path.display(), self.name);
    }
}

/// The input that is being tried.
fn current(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-current"))
}

/// Writes down what broke a parser.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{:016x}", hasher.finish()));
    std::fs::write(&path, input).expect("the input is written");
    path
}

/// The kept inputs of a target.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

/// Ends the process when an input hangs: nothing else can stop a loop.
struct Watch(SyncSender<Option<Vec<u8>>>);

impl Watch {
    fn start(name: &'static str) -> Self {
        let (tell, told) = sync_channel::<Option<Vec<u8>>>(1);
        std::thread::spawn(move || {
            while let Ok(begun) = told.recv() {
                let Some(input) = begun else { continue };
                if let Err(RecvTimeoutError::Timeout) = told.recv_timeout(HANGS_AFTER) {
                    let path = keep(name, &input);
                    eprintln!("{name}: it hangs; the input is in {}", path.display());
                    std::process::abort();
                }
            }
        });
        Self(tell)
    }
    fn begin(&self, input: &[u8]) {
        self.0.send(Some(input.to_vec())).expect("the watch runs");
    }
    fn end(&self) {
        self.0.send(None).expect("the watch runs");
    }
}

#[test]
fn a_target_that_breaks_is_found_out() {
    let try_with = |run: fn(&[u8]) -> Result<(), String>| {
        let target = Target { name: "ids", run: Box::new(run), words: &[], more: vec![b"abc".to_vec()], tries: 200 };
        catch_unwind(AssertUnwindSafe(|| target.fuzz())).is_err()
    };
    assert!(!try_with(|_| Ok(())));
    assert!(try_with(|input| if input.len() > 20 { Err("too long".to_owned()) } else { Ok(()) }), "an error");
    assert!(
        try_with(|input| {
            assert!(!input.contains(&b'%'));
            Ok(())
        }),
        "a panic"
    );
    assert!(
        try_with(|input| {
            std::hint::black_box(vec![1_u8; (1 << 20) * (input.len() + 400)]);
            Ok(())
        }),
        "memory"
    );
}
