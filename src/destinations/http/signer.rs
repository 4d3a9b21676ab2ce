//! RSA signatures off the request threads: a pool of threads, a bounded queue, and a memory of the last signatures.
//!
//! Always true: the same key and bytes are not signed twice within the memory's reach; a full queue makes callers wait
//! and holds no more than its limit; dropping the last handle ends the threads. Not here: the cheap signatures, which
//! are made where they are needed (`sign`).

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::Digest;
use tokio::sync::{mpsc, oneshot};

use super::keys::RsaKey;
use super::sign;
use crate::error::{Error, Result};

/// Signatures remembered, twice: a generation is dropped when the next one is full. About 1 MiB each.
const REMEMBERED: usize = 1024;

/// Makes RSA signatures; clones share its threads and its memory.
#[derive(Clone)]
pub struct Signer {
    memory: Arc<Mutex<Memory>>,
    /// None: signatures are made on the caller's thread.
    pool: Option<mpsc::Sender<Job>>,
}

struct Job {
    key: Arc<RsaKey>,
    digest: Digest,
    answer: oneshot::Sender<Result<String>>,
}

impl Signer {
    /// A signer that works on its caller's thread.
    pub fn inline() -> Self {
        Self { memory: Arc::default(), pool: None }
    }

    /// A signer with threads of its own and room for `queue` waiting signatures.
    pub fn start(threads: NonZeroUsize, queue: NonZeroUsize) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(queue.get());
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.get() {
            let receiver = receiver.clone();
            std::thread::Builder::new()
                .name(format!("sign-{number}"))
                .spawn(move || work(&receiver))
                .map_err(Error::internal)?;
        }
        Ok(Self { memory: Arc::default(), pool: Some(sender) })
    }

    /// Signs a digest; see [`sign::rsa`].
    pub async fn rsa(&self, key: &Arc<RsaKey>, digest: Digest) -> Result<Arc<str>> {
        let name = name(key, &digest);
        if let Some(known) = self.memory().get(&name) {
            return Ok(known);
        }
        let signature: Arc<str> = match &self.pool {
            None => sign::rsa(key, &digest)?.into(),
            Some(pool) => {
                let (answer, answered) = oneshot::channel();
                let job = Job { key: key.clone(), digest, answer };
                pool.send(job).await.map_err(|_| gone())?;
                answered.await.map_err(|_| gone())??.into()
            }
        };
        self.memory().keep(name, signature.clone());
        Ok(signature)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone() -> Error {
    Error::internal("the signing threads are gone")
}

fn work(receiver: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // One thread waits at the queue, the others at the lock: a signature takes far longer than either.
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        // Whoever asked may have given up; then there is nobody to tell.
        let _ = job.answer.send(sign::rsa(&job.key, &job.digest));
    }
}

/// Names a signature: the digest, told apart by the key's thumbprint.
type Name = ([u8; 32], [u8; 16]);

fn name(key: &RsaKey, digest: &Digest) -> Name {
    let (mut bytes, mut kid) = ([0; 32], [0; 16]);
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    kid.iter_mut().zip(key.kid.as_bytes()).for_each(|(to, from)| *to = *from);
    (bytes, kid)
}

/// Two generations: what is asked for again moves to the young one, the old one is dropped whole.
#[derive(Default)]
struct Memory {
    young: HashMap<Name, Arc<str>>,
    old: HashMap<Name, Arc<str>>,
}

impl Memory {
    fn get(&mut self, name: &Name) -> Option<Arc<str>> {
        if let Some(known) = self.young.get(name) {
            return Some(known.clone());
        }
        let known = self.old.remove(name)?;
        self.keep(*name, known.clone());
        Some(known)
    }
    fn keep(&mut self, name: Name, signature: Arc<str>) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, signature);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::keys::{KeyKind, KeyRing, StoredKey};
    use super::*;
    use crate::domain::time::Millis;

    fn key() -> Arc<RsaKey> {
        let key = |kind| StoredKey::generate(kind, Millis(0), Millis(0)).expect("a key");
        let ring = KeyRing::open(&[key(KeyKind::Rsa), key(KeyKind::Ed25519)], Duration::ZERO).expect("a ring");
        ring.rsa(Millis(0)).clone()
    }
    fn count(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }

    #[tokio::test]
    async fn pool_and_caller_sign_alike() {
        let key = key();
        let digest = || sign::rsa_digest("https://example.com/", b"{}");
        let inline = Signer::inline().rsa(&key, digest()).await.expect("signed");
        let pool = Signer::start(count(2), count(4)).expect("started");
        assert_eq!(pool.rsa(&key, digest()).await.expect("signed"), inline);
        assert_eq!(sign::rsa(&key, &digest()).expect("signed"), *inline);
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_and_loses_none() {
        let key = key();
        let pool = Signer::start(count(1), count(1)).expect("started");
        let signatures = futures_util::future::join_all((0..40).map(|n| {
            let digest = sign::rsa_digest("https://example.com/", format!("{n}").as_bytes());
            pool.rsa(&key, digest)
        }));
        let distinct: std::collections::HashSet<_> = signatures.await.into_iter().map(|s| s.expect("signed")).collect();
        assert_eq!(distinct.len(), 40);
    }

    #[tokio::test]
    async fn the_same_bytes_are_signed_once() {
        let (key, signer) = (key(), Signer::inline());
        let digest = || sign::rsa_digest("https://example.com/", b"{}");
        let first = signer.rsa(&key, digest()).await.expect("signed");
        let second = signer.rsa(&key, digest()).await.expect("signed");
        assert!(Arc::ptr_eq(&first, &second));
        let mut memory = Memory::default();
        for n in 0..3 * u32::try_from(REMEMBERED).unwrap() {
            let mut name = ([0; 32], [0; 16]);
            name.0[..4].copy_from_slice(&n.to_be_bytes());
            memory.keep(name, "s".into());
            assert!(memory.get(&name).is_some());
            assert!(memory.young.len() + memory.old.len() <= 2 * REMEMBERED);
        }
    }

    /// `cargo test --release --lib -- --ignored --nocapture rsa_speed` prints what a pool costs against signing in place.
    #[test]
    #[ignore = "a measurement"]
    fn rsa_speed() {
        let key = key();
        let sign_all = |signer: Signer, runtimes: usize, each: usize| {
            let started = std::time::Instant::now();
            let threads: Vec<_> = (0..runtimes)
                .map(|r| {
                    let (signer, key) = (signer.clone(), key.clone());
                    std::thread::spawn(move || {
                        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                        let work = |lane: usize| {
                            let (signer, key) = (signer.clone(), key.clone());
                            async move {
                                for n in 0..each / 32 {
                                    let body = format!("{r} {lane} {n}");
                                    signer.rsa(&key, sign::rsa_digest("https://x/", body.as_bytes())).await.expect("s");
                                }
                            }
                        };
                        runtime.block_on(async { futures_util::future::join_all((0..32).map(work)).await });
                    })
                })
                .collect();
            threads.into_iter().for_each(|t| t.join().expect("joined"));
            (runtimes * each) as f64 / started.elapsed().as_secs_f64()
        };
        for _ in 0..3 {
            println!("in place, 1 thread:               {:7.0}/s", sign_all(Signer::inline(), 1, 4096));
            println!("in place, 2 threads:              {:7.0}/s", sign_all(Signer::inline(), 2, 4096));
            for threads in 1..=2 {
                let pool = || Signer::start(count(threads), count(256)).expect("started");
                println!("pool of {threads}, 1 caller thread:       {:7.0}/s", sign_all(pool(), 1, 4096));
                println!("pool of {threads}, 2 caller threads:      {:7.0}/s", sign_all(pool(), 2, 4096));
            }
        }
    }
}
