//! Signed tokens (JWT, RS256) with which we say to Google and Snowflake who we are.
//!
//! Always true: the key is read once, when a destination is opened, and nothing prints it. Not here: what a token claims
//! and what it is exchanged for (`destinations::google`, `destinations::snowflake`), tokens of connectors.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// The longest PEM text that is looked at.
const PEM_MAX_BYTES: usize = 16 * 1024;

/// An RSA key that signs.
pub struct Key {
    pair: RsaKeyPair,
}

impl Key {
    /// The private key in a PEM text: PKCS#8 or PKCS#1, not encrypted, of 2048 bits at least. Forms may have turned line
    /// breaks into `\n`. The error says what to do, and shows nothing of the key.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        if text.len() > PEM_MAX_BYTES {
            return Err("it is too long for a private key");
        }
        let text = Zeroizing::new(text.replace("\\n", "\n"));
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
            return Err("the key is encrypted: give the one that `openssl pkcs8 -in KEY -out PLAIN` writes");
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "it holds no private key in PEM")?;
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err("the private key is not an RSA key"),
        };
        let pair = pair.map_err(|_| "the private key is not an RSA key of 2048 to 8192 bits")?;
        Ok(Self { pair })
    }

    /// A token with these claims.
    pub fn token(&self, key_id: Option<&str>, claims: &Value) -> Option<String> {
        let mut head = json!({"alg": "RS256", "typ": "JWT"});
        if let (Some(id), Some(head)) = (key_id, head.as_object_mut()) {
            head.insert("kid".to_owned(), id.into());
        }
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let text = format!("{}.{}", encode(&head), encode(claims));
        let mut signed = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signed).ok()?;
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }

    /// `SHA256:` and the base64 of the hash of the public key, as Snowflake names keys (`RSA_PUBLIC_KEY_FP`).
    pub fn fingerprint(&self) -> Option<String> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().ok()?;
        Some(format!("SHA256:{}", STANDARD.encode(digest::digest(&digest::SHA256, der.as_ref()))))
    }
}
