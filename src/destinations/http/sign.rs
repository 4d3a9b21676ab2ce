//! What is signed, and how it is written: `x-alloy-signature`, and `webhook-signature` of Standard Webhooks.
//!
//! Always true: what is signed is exactly what is sent. Not here: the keys' life (`keys`), threads (`signer`), and
//! checking (`verify`, which shares no code with this file).

use aws_lc_rs::digest::{Context, Digest, SHA256};
use aws_lc_rs::{hmac, rand, signature};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::keys::{Ed25519Key, RsaKey};
use crate::domain::secret::Secret;
use crate::error::{Error, Result};

/// How many random bytes a fresh secret has (Standard Webhooks: 24 to 64).
const SECRET_BYTES: usize = 24;
const SECRET_PREFIX: &str = "whsec_";

/// A subscription's secret, ready to sign.
#[derive(Clone)]
pub struct HmacKey(hmac::Key);

impl HmacKey {
    /// A fresh secret, as it is shown once: `whsec_` and base64.
    pub fn generate() -> Result<Secret> {
        let mut bytes = Zeroizing::new([0u8; SECRET_BYTES]);
        rand::fill(bytes.as_mut()).map_err(Error::internal)?;
        Ok(Secret::new(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes.as_ref()))))
    }

    /// Reads `whsec_…`; the prefix may be missing. Fails unless it is base64 of 16 to 128 bytes.
    pub fn parse(secret: &Secret) -> Result<Self> {
        let text = secret.expose();
        let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text)).map(Zeroizing::new);
        match bytes {
            Ok(bytes) if (16..=128).contains(&bytes.len()) => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
            _ => Err(Error::invalid("a signing secret is whsec_ followed by base64 of 24 to 64 bytes")),
        }
    }
}

/// The digest that the RSA signature covers: `POST`, the address exactly as it was given, the body, nothing between.
pub fn rsa_digest(address: &str, body: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(b"POST");
    context.update(address.as_bytes());
    context.update(body);
    context.finish()
}

/// RSASSA-PKCS1-v1_5 with SHA-256 over a digest, in lower-case hex. Takes about 0.5 ms.
pub fn rsa(key: &RsaKey, digest: &Digest) -> Result<String> {
    let mut bytes = vec![0; key.pair.public_modulus_len()];
    key.pair.sign_digest(&signature::RSA_PKCS1_SHA256, digest, &mut bytes).map_err(Error::internal)?;
    Ok(hex::encode(bytes))
}

/// What Standard Webhooks signs: `id.timestamp.body`.
pub fn standard_message(id: &str, timestamp: u64, body: &[u8]) -> Vec<u8> {
    let head = format!("{id}.{timestamp}.");
    let mut message = Vec::with_capacity(head.len() + body.len());
    message.extend_from_slice(head.as_bytes());
    message.extend_from_slice(body);
    message
}

/// The value of `webhook-signature`: one `v1` per secret, one `v1a` per Ed25519 key.
pub fn standard<'a>(
    message: &[u8],
    secrets: impl IntoIterator<Item = &'a HmacKey>,
    keys: impl IntoIterator<Item = &'a Ed25519Key>,
) -> String {
    let mut value = String::with_capacity(160);
    let mut push = |version: &str, bytes: &[u8]| {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(version);
        value.push(',');
        STANDARD.encode_string(bytes, &mut value);
    };
    for secret in secrets {
        push("v1", hmac::sign(&secret.0, message).as_ref());
    }
    for key in keys {
        push("v1a", key.pair.sign(message).as_ref());
    }
    value
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::keys::{KeyKind, KeyRing, StoredKey};
    use super::*;
    use crate::domain::time::Millis;

    fn ring() -> KeyRing {
        let key = |kind| StoredKey::generate(kind, Millis(0), Millis(0)).expect("a key");
        KeyRing::open(&[key(KeyKind::Rsa), key(KeyKind::Ed25519)], Duration::ZERO).expect("a ring")
    }
    fn secret(text: &str) -> HmacKey {
        HmacKey::parse(&Secret::new(text)).expect("a secret")
    }

    #[test]
    fn the_published_vectors_of_standard_webhooks_hold() {
        // From the test suites of the official libraries.
        for (key, id, time, body, expected) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            let message = standard_message(id, time, body.as_bytes());
            assert_eq!(standard(&message, [&secret(key)], []), expected);
        }
    }

    #[test]
    fn the_published_vector_of_ed25519_holds() {
        let whsk = "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
        let both = STANDARD.decode(whsk).expect("base64");
        let pair = signature::Ed25519KeyPair::from_seed_and_public_key(&both[..32], &both[32..]).expect("a key");
        let pkcs8 = pair.to_pkcs8v1().expect("PKCS#8").as_ref().to_vec();
        let stored = StoredKey { kind: KeyKind::Ed25519, pkcs8, created_at: Millis(0), signs_from: Millis(0) };
        let rsa = StoredKey::generate(KeyKind::Rsa, Millis(0), Millis(0)).expect("a key");
        let ring = KeyRing::open(&[stored, rsa], Duration::ZERO).expect("a ring");
        let message = standard_message("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(
            standard(&message, [], ring.ed25519(Millis(0)).map(AsRef::as_ref)),
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
        );
    }

    #[test]
    fn the_rsa_crate_believes_our_signature_and_no_other_text() {
        use ::rsa::pkcs1v15::{Signature, VerifyingKey};
        use ::rsa::pkcs8::DecodePublicKey;
        use ::rsa::signature::Verifier;
        let ring = ring();
        let (address, body) = ("https://example.com/Hook?a=1", "{\"é\":1}".as_bytes());
        let text = rsa(ring.rsa(Millis(0)), &rsa_digest(address, body)).expect("signed");
        assert!(text.len() == 512 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        let public = ::rsa::PublicKey::from_public_key_pem(&ring.public_pem(Millis(0))).expect("PEM");
        let verifier = VerifyingKey::<sha2::Sha256>::new(public);
        let signature = Signature::try_from(hex::decode(&text).expect("hex").as_slice()).expect("a signature");
        let message = [b"POST", address.as_bytes(), body].concat();
        assert!(verifier.verify(&message, &signature).is_ok());
        assert!(verifier.verify(&message[1..], &signature).is_err());
    }

    #[test]
    fn a_fresh_secret_is_accepted_by_the_official_library() {
        let text = HmacKey::generate().expect("a secret");
        let (id, body) = ("0000000000000102000000ff", "{\"name\":\"Zoë\"}".as_bytes());
        let message = standard_message(id, 1_700_000_000, body);
        let ours = standard(&message, [&secret(text.expose())], []);
        let theirs = standardwebhooks::Webhook::new(text.expose()).expect("a secret");
        assert_eq!(theirs.sign(id, 1_700_000_000, body).expect("signed"), ours);
    }

    #[test]
    fn each_live_key_signs_once() {
        let (a, b, ring) = (secret(&"QUJD".repeat(8)), secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), ring());
        let value = standard(b"m", [&a, &b], ring.ed25519(Millis(0)).map(AsRef::as_ref));
        let versions: Vec<_> = value.split(' ').filter_map(|one| one.split_once(',')).map(|(v, _)| v).collect();
        assert_eq!(versions, ["v1", "v1", "v1a"]);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "whsec_???", "whsec_QUJD"] {
            assert!(HmacKey::parse(&Secret::new(text)).is_err(), "{text:?}");
        }
    }
}
