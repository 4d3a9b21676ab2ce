//! Checks the signatures of a delivery as a receiver would: `tidemill verify`.
//!
//! Always true: nothing of the signing code is used here, so that one cannot hide the other's mistake: RSA is checked by
//! another library, HMAC is built from the plain hash. Each verdict is a sentence that says what to do. Not here:
//! reading files and printing (`cli::verify`).

use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rsa::pkcs1v15::{Signature, VerifyingKey};
use rsa::pkcs8::DecodePublicKey;
use rsa::signature::Verifier;
use rsa::{BoxedUint, PublicKey};
use sha2::{Digest, Sha256};

use crate::domain::time::Millis;

/// A delivery as it was received, and what it is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Names in any case.
    pub headers: &'a [(String, String)],
    pub body: &'a [u8],
    /// The subscription's address exactly as it was given; for RSA.
    pub address: Option<&'a str>,
    /// `whsec_…`; for `v1`.
    pub secret: Option<&'a str>,
    /// One or more public keys, as PEM or as a JSON Web Key Set; for RSA and `v1a`.
    pub public_keys: Option<&'a str>,
    /// `x-alloy`, unless the node says otherwise.
    pub header_prefix: &'a str,
    pub now: Millis,
    /// How far the timestamp may be from `now`; Standard Webhooks' libraries use 5 minutes.
    pub tolerance: Duration,
}

/// Whether a signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    Good,
    Bad,
    /// Something to check it with is missing.
    Unchecked,
}

/// What is said about one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `x-alloy-signature`, `webhook-signature v1`, `webhook-timestamp`, …
    pub about: String,
    pub judgement: Judgement,
    pub sentence: String,
}

/// One verdict per signature, and one about the timestamp. Never empty.
pub fn verify(received: &Received<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let signature = format!("{}-signature", received.header_prefix);
    if let Some(value) = header(received, &signature) {
        verdicts.push(verdict(&signature, check_rsa(received, value)));
    }
    if let Some(value) = header(received, "webhook-signature") {
        check_standard(received, value, &mut verdicts);
    }
    if verdicts.is_empty() {
        let none = format!("there is neither {signature} nor webhook-signature among the headers");
        verdicts.push(verdict("headers", Err((Judgement::Bad, none))));
    }
    verdicts
}

type Check = Result<String, (Judgement, String)>;

fn verdict(about: &str, check: Check) -> Verdict {
    let (judgement, sentence) = match check {
        Ok(sentence) => (Judgement::Good, sentence),
        Err((judgement, sentence)) => (judgement, sentence),
    };
    Verdict { about: about.to_owned(), judgement, sentence }
}

fn bad(sentence: impl Into<String>) -> (Judgement, String) {
    (Judgement::Bad, sentence.into())
}

fn unchecked(sentence: impl Into<String>) -> (Judgement, String) {
    (Judgement::Unchecked, sentence.into())
}

fn header<'a>(received: &Received<'a>, name: &str) -> Option<&'a str> {
    received.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn check_rsa(received: &Received<'_>, value: &str) -> Check {
    let address = received.address.ok_or_else(|| unchecked("give the subscription's address to check it"))?;
    let keys = received.public_keys.ok_or_else(|| unchecked("give the node's public keys to check it"))?;
    let bytes = hex::decode(value).map_err(|_| bad("it is not hexadecimal"))?;
    let signature = Signature::try_from(bytes.as_slice()).map_err(|_| bad("it is not an RSA signature"))?;
    let message = [b"POST", address.as_bytes(), received.body].concat();
    let keys: Vec<_> = read_keys(keys).into_iter().filter_map(Key::rsa).collect();
    if keys.is_empty() {
        return Err(unchecked("there is no RSA key among the public keys"));
    }
    let holds = |key| VerifyingKey::<Sha256>::new(key).verify(&message, &signature).is_ok();
    if keys.into_iter().any(holds) {
        return Ok("the RSA signature over POST, address and body holds".to_owned());
    }
    Err(bad(
        "the RSA signature does not hold: compare the address with the subscription's, character by character, and the \
         body with the bytes received, before any JSON parser touched them",
    ))
}

fn check_standard(received: &Received<'_>, value: &str, verdicts: &mut Vec<Verdict>) {
    let (Some(id), Some(timestamp)) = (header(received, "webhook-id"), header(received, "webhook-timestamp")) else {
        let missing = bad("webhook-id or webhook-timestamp is missing among the headers");
        verdicts.push(verdict("webhook-signature", Err(missing)));
        return;
    };
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", received.body].concat();
    for one in value.split_ascii_whitespace() {
        let (version, text) = one.split_once(',').unwrap_or(("without a version", one));
        let check = match version {
            "v1" => check_hmac(received.secret, text, &message),
            "v1a" => check_ed25519(received.public_keys, text, &message),
            _ => Err(unchecked("this version is not known")),
        };
        verdicts.push(verdict(&format!("webhook-signature {version}"), check));
    }
    verdicts.push(verdict("webhook-timestamp", check_time(received, timestamp)));
}

fn check_time(received: &Received<'_>, timestamp: &str) -> Check {
    let seconds: u64 = timestamp.parse().map_err(|_| bad("it is not a number of seconds"))?;
    let distance = seconds.abs_diff(received.now.seconds());
    if distance <= received.tolerance.as_secs() {
        return Ok(format!("it is {distance} s from now"));
    }
    Err(bad(format!(
        "it is {distance} s from now, more than the {} s that receivers accept: the delivery is old, or a clock is wrong",
        received.tolerance.as_secs()
    )))
}

fn check_hmac(secret: Option<&str>, text: &str, message: &[u8]) -> Check {
    let secret = secret.ok_or_else(|| unchecked("give the subscription's secret (whsec_…) to check it"))?;
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret).trim());
    let key = key.map_err(|_| bad("the secret is not whsec_ followed by base64"))?;
    let given = STANDARD.decode(text).map_err(|_| bad("it is not base64"))?;
    if hmac_sha256(&key, message).as_slice() == given.as_slice() {
        return Ok("the HMAC over id, timestamp and body holds".to_owned());
    }
    Err(bad("the HMAC does not hold: the secret is another, or the body is not byte for byte what was sent"))
}

/// RFC 2104. Compared on the user's own machine, so the time it takes tells nobody anything.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

fn check_ed25519(keys: Option<&str>, text: &str, message: &[u8]) -> Check {
    let keys = keys.ok_or_else(|| unchecked("give the node's public keys (its jwks.json) to check it"))?;
    let given = STANDARD.decode(text).map_err(|_| bad("it is not base64"))?;
    let keys: Vec<_> = read_keys(keys).into_iter().filter_map(Key::ed25519).collect();
    if keys.is_empty() {
        return Err(unchecked("there is no Ed25519 key among the public keys; they are in the node's jwks.json"));
    }
    if keys.iter().any(|key| UnparsedPublicKey::new(&ED25519, key).verify(message, &given).is_ok()) {
        return Ok("the Ed25519 signature over id, timestamp and body holds".to_owned());
    }
    Err(bad("the Ed25519 signature does not hold: the key is another workspace's, or the body is not what was sent"))
}

enum Key {
    Rsa(PublicKey),
    Ed25519(Vec<u8>),
}

impl Key {
    fn rsa(self) -> Option<PublicKey> {
        if let Self::Rsa(key) = self { Some(key) } else { None }
    }
    fn ed25519(self) -> Option<Vec<u8>> {
        if let Self::Ed25519(key) = self { Some(key) } else { None }
    }
}

/// The keys of a PEM file or of a JSON Web Key Set; what is neither of our kinds is left out.
fn read_keys(text: &str) -> Vec<Key> {
    const END: &str = "-----END PUBLIC KEY-----";
    if text.trim_start().starts_with('{') {
        let set: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        return set["keys"].as_array().into_iter().flatten().filter_map(read_jwk).collect();
    }
    let blocks = text.split_inclusive(END).filter(|block| block.contains(END));
    blocks.filter_map(|block| read_pem(&format!("{}\n", block.trim()))).collect()
}

fn read_jwk(jwk: &serde_json::Value) -> Option<Key> {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
    match jwk["kty"].as_str()? {
        "RSA" => {
            let number = |name| part(name).map(|bytes| BoxedUint::from_be_slice_vartime(&bytes));
            PublicKey::new(number("n")?, number("e")?).ok().map(Key::Rsa)
        }
        "OKP" if jwk["crv"] == "Ed25519" => part("x").map(Key::Ed25519),
        _ => None,
    }
}

fn read_pem(pem: &str) -> Option<Key> {
    /// The SubjectPublicKeyInfo of RFC 8410 is this and the 32 bytes of the key.
    const ED25519_HEAD: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    if let Ok(key) = PublicKey::from_public_key_pem(pem) {
        return Some(Key::Rsa(key));
    }
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = STANDARD.decode(base64).ok()?;
    der.strip_prefix(ED25519_HEAD).map(|key| Key::Ed25519(key.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::keys::{KeyKind, KeyRing, StoredKey};
    use super::super::sign;
    use super::*;
    use crate::domain::secret::Secret;

    const NOW: Millis = Millis(1_700_000_100_000);
    const ADDRESS: &str = "https://example.com/hook?x=1";
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn signed(body: &[u8]) -> (Vec<(String, String)>, String, String) {
        let key = |kind| StoredKey::generate(kind, Millis(0), Millis(0)).expect("a key");
        let ring = KeyRing::open(&[key(KeyKind::Rsa), key(KeyKind::Ed25519)], Duration::ZERO).expect("a ring");
        let rsa = sign::rsa(ring.rsa(NOW), &sign::rsa_digest(ADDRESS, body)).expect("signed");
        let message = sign::standard_message("id1", 1_700_000_000, body);
        let secret = sign::HmacKey::parse(&Secret::new(SECRET)).expect("a secret");
        let standard = sign::standard(&message, [&secret], ring.ed25519(NOW).map(AsRef::as_ref));
        let headers = [
            ("X-Alloy-Signature", rsa.as_str()),
            ("Webhook-Id", "id1"),
            ("Webhook-Timestamp", "1700000000"),
            ("Webhook-Signature", standard.as_str()),
        ];
        (headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(), ring.jwks(NOW), ring.public_pem(NOW))
    }
    fn received<'a>(headers: &'a [(String, String)], body: &'a [u8], keys: &'a str) -> Received<'a> {
        Received {
            headers,
            body,
            address: Some(ADDRESS),
            secret: Some(SECRET),
            public_keys: Some(keys),
            header_prefix: "x-alloy",
            now: NOW,
            tolerance: Duration::from_secs(300),
        }
    }
    fn judgements(received: &Received<'_>) -> Vec<Judgement> {
        verify(received).into_iter().map(|v| v.judgement).collect()
    }

    #[test]
    fn what_we_sign_is_good() {
        let (headers, keys, _) = signed(b"{}");
        assert_eq!(judgements(&received(&headers, b"{}", &keys)), [Judgement::Good; 4]);
    }

    #[test]
    fn another_body_is_bad_for_every_signature() {
        let (headers, keys, _) = signed(b"{}");
        let found = judgements(&received(&headers, b"{ }", &keys));
        assert_eq!(found, [Judgement::Bad, Judgement::Bad, Judgement::Bad, Judgement::Good]);
    }

    #[test]
    fn another_address_secret_key_or_time_is_bad_where_it_counts() {
        let (headers, keys, pem) = signed(b"{}");
        let (_, other, other_pem) = signed(b"{}");
        let good = received(&headers, b"{}", &keys);
        let (g, b) = (Judgement::Good, Judgement::Bad);
        assert_eq!(judgements(&Received { address: Some("https://example.com/hook"), ..good }), [b, g, g, g]);
        assert_eq!(judgements(&Received { secret: Some("whsec_QUJDREVGR0hJSktMTU5PUA=="), ..good }), [g, b, g, g]);
        assert_eq!(judgements(&Received { public_keys: Some(&other), ..good }), [b, g, b, g]);
        assert_eq!(judgements(&Received { now: Millis(1_700_000_301_000), ..good }), [g, g, g, b]);
        let both = format!("{other_pem}{pem}");
        assert_eq!(
            judgements(&Received { public_keys: Some(&both), ..good }),
            [g, g, Judgement::Unchecked, g],
            "any published key will do, and PEM pages hold RSA keys only"
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let (headers, keys, _) = signed(b"{}");
        let good = received(&headers, b"{}", &keys);
        let without = Received { address: None, secret: None, public_keys: None, ..good };
        let u = Judgement::Unchecked;
        assert_eq!(judgements(&without), [u, u, u, Judgement::Good]);
        assert_eq!(judgements(&Received { headers: &[], ..good }), [Judgement::Bad]);
        assert_eq!(judgements(&Received { headers: &headers[3..], ..good }), [Judgement::Bad]);
        assert_eq!(judgements(&Received { public_keys: Some("nonsense"), ..good })[0], u);
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(hmac_sha256(b"Jefe", b"what do ya want for nothing?")), expected);
        let long = hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex::encode(long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }
}
