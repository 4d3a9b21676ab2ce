//! The keys of a workspace: made, stored as PKCS#8, published as PEM and JWKS, chosen by time.
//!
//! Always true: a private key leaves this file only as PKCS#8 bytes for the encrypted store; a key is published before
//! it signs and for as long after; of each kind exactly one is the current one. Not here: encryption at rest (`store`),
//! and what is signed (`sign`).

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::domain::time::Millis;
use crate::error::{Error, Result};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// RSA-2048: `x-alloy-signature`.
    Rsa,
    /// Ed25519: `v1a` of `webhook-signature`.
    Ed25519,
}

/// A key as it is stored, to be encrypted whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    pub kind: KeyKind,
    /// PKCS#8, version 1, DER.
    pub pkcs8: Vec<u8>,
    /// Published from here on.
    pub created_at: Millis,
    /// Signs from here on, until another key of its kind does.
    pub signs_from: Millis,
}

/// Why a workspace's keys are not rotated now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a new key of this kind is published already and signs from {} on", .0.rfc3339_seconds())]
pub struct StillComing(pub Millis);

/// Lays a fresh key over those of its kind, and leaves out those that are neither published nor used any more.
///
/// # Errors
/// The one before does not sign yet: receivers could not keep up.
pub fn rotated(
    stored: Vec<StoredKey>,
    fresh: StoredKey,
    overlap: Duration,
) -> std::result::Result<Vec<StoredKey>, StillComing> {
    let (kind, now) = (fresh.kind, fresh.created_at);
    if let Some(coming) = stored.iter().find(|key| key.kind == kind && key.signs_from > now) {
        return Err(StillComing(coming.signs_from));
    }
    let is_gone = |key: &StoredKey| {
        let later = stored.iter().filter(|other| other.kind == key.kind && other.signs_from > key.signs_from);
        later.map(|other| other.signs_from).min().is_some_and(|next| next.after(overlap) <= now)
    };
    let gone: Vec<bool> = stored.iter().map(is_gone).collect();
    let kept = stored.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(key, _)| key);
    Ok(kept.chain([fresh]).collect())
}

impl StoredKey {
    /// A fresh key. RSA takes tens to hundreds of milliseconds.
    pub fn generate(kind: KeyKind, created_at: Millis, signs_from: Millis) -> Result<Self> {
        let pkcs8 = match kind {
            KeyKind::Rsa => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(Error::internal)?;
                AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(Error::internal)?.as_ref().to_vec()
            }
            KeyKind::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(Error::internal)?;
                pair.to_pkcs8v1().map_err(Error::internal)?.as_ref().to_vec()
            }
        };
        Ok(Self { kind, pkcs8, created_at, signs_from })
    }
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredKey({:?}, from {})", self.kind, self.signs_from.rfc3339_seconds())
    }
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.pkcs8);
    }
}

/// A key that signs.
pub struct SigningKey<P> {
    pub pair: P,
    /// The key's name: the JWK thumbprint (RFC 7638).
    pub kid: String,
    /// The public key as SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    created_at: Millis,
    signs_from: Millis,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, and does not sign yet.
    Coming,
    /// The one that signs.
    Signing,
    /// Replaced: still published, and an Ed25519 one still signs beside its successor.
    Retiring,
    /// Neither published nor used any more.
    Retired,
}

/// What may be told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    pub kid: String,
    pub kind: KeyKind,
    pub state: KeyState,
    /// Published from here on.
    pub created_at: Millis,
    pub signs_from: Millis,
    /// When its successor takes over. None: there is none.
    pub signs_until: Option<Millis>,
    /// When it is no longer published.
    pub published_until: Option<Millis>,
}

/// An RSA key that signs.
pub type RsaKey = SigningKey<RsaKeyPair>;
/// An Ed25519 key that signs.
pub type Ed25519Key = SigningKey<Ed25519KeyPair>;

/// All keys of a workspace.
pub struct KeyRing {
    /// Ordered by the time from which they sign.
    rsa: Vec<Arc<RsaKey>>,
    ed25519: Vec<Arc<Ed25519Key>>,
    overlap: Duration,
}

impl KeyRing {
    /// Opens stored keys. A key that was replaced stays published, and an Ed25519 one goes on signing beside its
    /// successor, for `overlap`. Fails if a key is damaged, or if a kind has none.
    pub fn open(stored: &[StoredKey], overlap: Duration) -> Result<Self> {
        let (mut rsa, mut ed25519) = (Vec::new(), Vec::new());
        for key in stored {
            match key.kind {
                KeyKind::Rsa => rsa.push(Arc::new(open_rsa(key)?)),
                KeyKind::Ed25519 => ed25519.push(Arc::new(open_ed25519(key)?)),
            }
        }
        if rsa.is_empty() || ed25519.is_empty() {
            return Err(Error::internal("a workspace has no signing key of a kind"));
        }
        rsa.sort_by_key(|key| key.signs_from);
        ed25519.sort_by_key(|key| key.signs_from);
        Ok(Self { rsa, ed25519, overlap })
    }

    /// The RSA key that signs now.
    pub fn rsa(&self, now: Millis) -> &Arc<RsaKey> {
        &self.rsa[current(&self.rsa, now)]
    }

    /// The Ed25519 keys that sign now, the current one first.
    pub fn ed25519(&self, now: Millis) -> impl Iterator<Item = &Arc<Ed25519Key>> {
        let current = current(&self.ed25519, now);
        let live = move |index: &usize| now < self.ed25519[index + 1].signs_from.after(self.overlap);
        std::iter::once(current).chain((0..current).rev().filter(live)).map(|index| &self.ed25519[index])
    }

    /// The published RSA keys as PEM, the one that signs first. Usually that is one block: many receivers' parsers
    /// stumble over a second one, so the Ed25519 keys are in [`KeyRing::jwks`] only.
    pub fn public_pem(&self, now: Millis) -> String {
        self.published(&self.rsa, now).map(|key| pem(&key.spki)).collect()
    }

    /// All published keys as a JSON Web Key Set (RFC 7517): RSA, then Ed25519, of each the current one first.
    pub fn jwks(&self, now: Millis) -> String {
        let rsa = self.published(&self.rsa, now).map(|key| {
            let (n, e) = rsa_parts(key);
            json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": key.kid, "n": n, "e": e})
        });
        let ed25519 = self.published(&self.ed25519, now).map(|key| {
            let x = URL_SAFE_NO_PAD.encode(key.pair.public_key());
            json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": x})
        });
        json!({"keys": rsa.chain(ed25519).collect::<Vec<_>>()}).to_string()
    }

    /// All keys that are kept: RSA, then Ed25519, of each the one that signs first.
    pub fn infos(&self, now: Millis) -> Vec<KeyInfo> {
        let mut all = self.infos_of(&self.rsa, KeyKind::Rsa, now);
        all.extend(self.infos_of(&self.ed25519, KeyKind::Ed25519, now));
        all
    }

    fn infos_of<P>(&self, keys: &[Arc<SigningKey<P>>], kind: KeyKind, now: Millis) -> Vec<KeyInfo> {
        let current = current(keys, now);
        let info = |index: usize| {
            let key = keys.get(index)?;
            let signs_until = keys.get(index + 1).map(|next| next.signs_from);
            let published_until = signs_until.map(|at| at.after(self.overlap));
            let state = match index.cmp(&current) {
                Ordering::Greater => KeyState::Coming,
                Ordering::Equal => KeyState::Signing,
                Ordering::Less if published_until.is_some_and(|at| now < at) => KeyState::Retiring,
                Ordering::Less => KeyState::Retired,
            };
            let (kid, created_at, signs_from) = (key.kid.clone(), key.created_at, key.signs_from);
            Some(KeyInfo { kid, kind, state, created_at, signs_from, signs_until, published_until })
        };
        std::iter::once(current).chain(current + 1..keys.len()).chain((0..current).rev()).filter_map(info).collect()
    }

    /// The current key, then the coming ones, then those replaced not longer than the overlap ago.
    fn published<'a, P>(
        &'a self,
        keys: &'a [Arc<SigningKey<P>>],
        now: Millis,
    ) -> impl Iterator<Item = &'a SigningKey<P>> {
        let current = current(keys, now);
        let coming = (current + 1..keys.len()).filter(move |index| keys[*index].created_at <= now);
        let gone = move |index: &usize| now < keys[index + 1].signs_from.after(self.overlap);
        std::iter::once(current).chain(coming).chain((0..current).rev().filter(gone)).map(|index| keys[index].as_ref())
    }
}

/// The last key whose time has come, else the first: a clock that was set back must not leave us without a key.
fn current<P>(keys: &[Arc<SigningKey<P>>], now: Millis) -> usize {
    keys.iter().rposition(|key| key.signs_from <= now).unwrap_or(0)
}

fn open_rsa(stored: &StoredKey) -> Result<RsaKey> {
    let pair = RsaKeyPair::from_pkcs8(&stored.pkcs8).map_err(Error::internal)?;
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(Error::internal)?.as_ref().to_vec();
    let (created_at, signs_from) = (stored.created_at, stored.signs_from);
    let mut key = SigningKey { pair, kid: String::new(), spki, created_at, signs_from };
    let (n, e) = rsa_parts(&key);
    key.kid = thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#));
    Ok(key)
}

fn open_ed25519(stored: &StoredKey) -> Result<Ed25519Key> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&stored.pkcs8).map_err(Error::internal)?;
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(Error::internal)?.as_ref().to_vec();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let kid = thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    Ok(SigningKey { pair, kid, spki, created_at: stored.created_at, signs_from: stored.signs_from })
}

fn thumbprint(canonical: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()))
}

/// Modulus and exponent as a JWK writes them.
fn rsa_parts(key: &RsaKey) -> (String, String) {
    use rsa::pkcs1::DecodeRsaPublicKey;
    use rsa::traits::PublicKeyParts;
    // The library has just written these bytes itself; empty parts would show at once in the first test.
    rsa::PublicKey::from_pkcs1_der(key.pair.public_key().as_ref())
        .map(|public| (URL_SAFE_NO_PAD.encode(public.n_bytes()), URL_SAFE_NO_PAD.encode(public.e_bytes())))
        .unwrap_or_default()
}

fn pem(spki: &[u8]) -> String {
    let base64 = Zeroizing::new(STANDARD.encode(spki));
    let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PUBLIC KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn stored(kind: KeyKind, created: u64, signs: u64) -> StoredKey {
        StoredKey::generate(kind, Millis(created), Millis(signs)).expect("a key")
    }

    #[test]
    fn a_new_key_is_published_before_it_signs_and_the_old_one_after() {
        let day = 24 * 3_600_000;
        let keys = [
            stored(KeyKind::Rsa, 0, 0),
            stored(KeyKind::Rsa, 10 * day, 11 * day),
            stored(KeyKind::Ed25519, 0, 0),
            stored(KeyKind::Ed25519, 10 * day, 11 * day),
        ];
        let ring = KeyRing::open(&keys, DAY).expect("a ring");
        let pems = |now: u64| ring.public_pem(Millis(now)).matches("BEGIN PUBLIC KEY").count();
        let named = |now: u64| ring.jwks(Millis(now)).matches("kid").count();
        assert_eq!((named(9 * day), named(10 * day), named(11 * day), named(12 * day)), (2, 4, 4, 2));
        let ed25519 = |now: u64| ring.ed25519(Millis(now)).count();
        assert_eq!((pems(9 * day), ed25519(9 * day)), (1, 1));
        assert_eq!((pems(10 * day), ed25519(10 * day)), (2, 1));
        assert_eq!((pems(11 * day), ed25519(11 * day)), (2, 2));
        assert_eq!((pems(12 * day), ed25519(12 * day)), (1, 1));
        let (old, new) = (ring.rsa(Millis(10 * day)), ring.rsa(Millis(11 * day)));
        assert_ne!(old.kid, new.kid);
        assert!(ring.public_pem(Millis(11 * day)).starts_with(&pem(&new.spki)), "the signing key comes first");
        assert_eq!(ring.ed25519(Millis(11 * day)).next().map(|k| k.signs_from), Some(Millis(11 * day)));
    }

    #[test]
    fn a_rotation_waits_for_the_one_before_and_forgets_what_nobody_needs() {
        let day = 24 * 3_600_000;
        let fresh = |now: u64| stored(KeyKind::Ed25519, now, now + day);
        let mut keys = vec![stored(KeyKind::Rsa, 0, 0), stored(KeyKind::Ed25519, 0, 0)];
        for (now, kept) in [(10 * day, 3), (11 * day, 4), (13 * day, 3)] {
            keys = rotated(keys, fresh(now), DAY).expect("it is time");
            assert_eq!(keys.len(), kept, "day {}", now / day);
            let early = rotated(keys.clone(), fresh(now + day - 1), DAY).err();
            assert_eq!(early, Some(StillComing(Millis(now + day))));
        }
        let ring = KeyRing::open(&keys, DAY).expect("a ring");
        let states = |now: u64| {
            let all = ring.infos(Millis(now));
            all.iter().filter(|i| i.kind == KeyKind::Ed25519).map(|i| i.state).collect::<Vec<_>>()
        };
        use KeyState::{Coming, Retired, Retiring, Signing};
        assert_eq!(states(13 * day), [Signing, Coming]);
        assert_eq!(states(14 * day), [Signing, Retiring]);
        assert_eq!(states(15 * day), [Signing, Retired]);
    }

    #[test]
    fn the_key_set_names_every_published_key() {
        let ring = KeyRing::open(&[stored(KeyKind::Rsa, 0, 0), stored(KeyKind::Ed25519, 0, 0)], DAY).expect("a ring");
        let set: serde_json::Value = serde_json::from_str(&ring.jwks(Millis(1))).expect("JSON");
        assert_eq!(set["keys"][0]["kty"], "RSA");
        assert_eq!(set["keys"][0]["e"], "AQAB");
        assert_eq!(set["keys"][0]["n"].as_str().map(str::len), Some(342), "256 bytes");
        assert_eq!(set["keys"][0]["kid"], ring.rsa(Millis(1)).kid);
        assert_eq!(set["keys"][1]["crv"], "Ed25519");
        assert_eq!(set["keys"][1]["x"].as_str().map(str::len), Some(43), "32 bytes");
    }

    #[test]
    fn a_ring_without_a_kind_is_an_error_and_a_damaged_key_too() {
        let mut key = stored(KeyKind::Ed25519, 0, 0);
        assert!(KeyRing::open(std::slice::from_ref(&key), DAY).is_err());
        key.pkcs8.truncate(10);
        assert!(KeyRing::open(&[stored(KeyKind::Rsa, 0, 0), key], DAY).is_err());
    }

    #[test]
    fn a_key_is_stored_and_read_back() {
        let key = stored(KeyKind::Ed25519, 1, 2);
        let bytes = postcard::to_allocvec(&key).expect("stored");
        assert!(postcard::from_bytes::<StoredKey>(&bytes).is_ok_and(|read| read == key));
        assert!(!format!("{key:?}").contains(&hex::encode(&key.pkcs8)));
    }
}
