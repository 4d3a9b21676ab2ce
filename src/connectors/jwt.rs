//! Signed tokens (JWT) with which a client says who it is: the grant of RFC 7523, section 2.1, and the client assertion
//! of section 2.2.
//!
//! Always true: each has its own `jti` and a short life; the key is read anew for each, and no error shows any of it. Not
//! here: what they are exchanged for (`connectors::refresh`), tokens of our own (`api::token`).

use std::collections::BTreeSet;

use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::CallError;
use super::files::Span;
use super::mapping::{Env, Mapping};
use super::template::Template;
use super::yaml::Placed;
use crate::domain::time::Millis;

/// How long a token is good where the file does not say.
const LIFETIME_SECONDS: u64 = 180;
/// The longest PEM that is looked at.
const PEM_BYTES_MAX: usize = 16 * 1024;

/// `jwt:` and `assertion:` of `auth.oauth2`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JwtFile {
    pub algorithm: Algorithm,
    /// The private key as PEM: PKCS#8, PKCS#1 (RSA) or SEC 1 (EC).
    pub key: Template,
    /// `kid` of the header, where the app knows the key by a name.
    pub key_id: Option<Template>,
    /// `iss`; the client's id where it is not said.
    pub issuer: Option<Template>,
    /// `sub`; the issuer where it is not said.
    pub subject: Option<Template>,
    /// `aud`; the token address where it is not said.
    pub audience: Option<Template>,
    /// From `iat` to `exp`.
    pub lifetime: Option<Span>,
    /// Further claims: an expression over `$parameters`.
    pub claims: Option<Placed>,
}

/// How a token is signed (RFC 7518, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
pub enum Algorithm {
    RS256,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
}

/// How the algorithm signs.
enum Signer {
    Rsa(&'static dyn RsaEncoding),
    Ec(&'static EcdsaSigningAlgorithm),
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
        }
    }
    fn signer(self) -> Signer {
        match self {
            Self::RS256 => Signer::Rsa(&signature::RSA_PKCS1_SHA256),
            Self::PS256 => Signer::Rsa(&signature::RSA_PSS_SHA256),
            Self::PS384 => Signer::Rsa(&signature::RSA_PSS_SHA384),
            Self::PS512 => Signer::Rsa(&signature::RSA_PSS_SHA512),
            Self::ES256 => Signer::Ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Self::ES384 => Signer::Ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Self::ES512 => Signer::Ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        }
    }
    fn sign(self, key: &Pem, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self.signer() {
            Signer::Rsa(encoding) => {
                let pair = match key.label.as_str() {
                    "RSA PRIVATE KEY" => RsaKeyPair::from_der(&key.der),
                    _ => RsaKeyPair::from_pkcs8(&key.der),
                };
                let pair = pair.ok()?;
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signed).ok()?;
                Some(signed)
            }
            Signer::Ec(algorithm) => {
                let pair = match key.label.as_str() {
                    "EC PRIVATE KEY" => EcdsaKeyPair::from_private_key_der(algorithm, &key.der),
                    _ => EcdsaKeyPair::from_pkcs8(algorithm, &key.der),
                };
                Some(pair.ok()?.sign(&random, message).ok()?.as_ref().to_vec())
            }
        }
    }
}

/// A private key out of its PEM.
struct Pem {
    label: String,
    der: Zeroizing<Vec<u8>>,
}

impl Pem {
    /// The first private key of the text. Forms and environments may have turned its line breaks into spaces or `\n`.
    fn read(text: &str) -> Option<Self> {
        if text.len() > PEM_BYTES_MAX {
            return None;
        }
        let text = Zeroizing::new(text.replace("\\n", "\n"));
        let mut rest = text.as_str();
        while let Some((_, after)) = rest.split_once("-----BEGIN ") {
            let (label, after) = after.split_once("-----")?;
            let (body, after) = after.split_once("-----END ")?;
            if label.ends_with("PRIVATE KEY") && label != "ENCRYPTED PRIVATE KEY" {
                let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
                let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?);
                return Some(Self { label: label.to_owned(), der });
            }
            rest = after;
        }
        None
    }
}

impl JwtFile {
    /// Whether its key is there: a way in that nobody has set up is none.
    pub fn is_set_up(&self, env: &Env<'_>) -> bool {
        self.key.render(env).is_some_and(|key| !key.trim().is_empty())
    }
    /// The members of a variable that a token is made of.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        let parts = [Some(&self.key), self.key_id.as_ref(), self.issuer.as_ref(), self.subject.as_ref()];
        parts.into_iter().flatten().flat_map(|part| part.names(variable)).collect()
    }
    /// What is wrong with the file: the field and a sentence.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        let claims = self.claims.as_ref()?;
        match Mapping::compile("spec.yml", claims, VARIABLES) {
            Ok(_) => None,
            Err(error) => Some(("claims", error.to_string())),
        }
    }
    /// A token of this moment. `client_id` and `token_url` are what is meant where the file does not say.
    ///
    /// # Errors
    /// A hole without a value, or a key that does not fit the algorithm.
    pub fn token(&self, env: &Env<'_>, client_id: &str, token_url: &str, now: Millis) -> Result<String, CallError> {
        let wrong = |what: &str| CallError::Unauthorized(format!("no token could be signed: {what}"));
        let filled = |template: &Option<Template>, usual: &str, what: &str| match template {
            None => Ok(usual.to_owned()),
            Some(template) => {
                template.render(env).ok_or_else(|| wrong(&format!("{what} needs a parameter that is not set")))
            }
        };
        let issuer = filled(&self.issuer, client_id, "the issuer")?;
        let subject = filled(&self.subject, &issuer, "the subject")?;
        let audience = filled(&self.audience, token_url, "the audience")?;
        let text = Zeroizing::new(self.key.render(env).ok_or_else(|| wrong("the private key is not set"))?);
        let key = Pem::read(&text).ok_or_else(|| wrong("the private key is not an unencrypted key in PEM form"))?;
        let lifetime = self.lifetime.map_or(LIFETIME_SECONDS, |span| span.0.as_secs());
        let issued = now.seconds();
        let mut claims = Map::from_iter([
            ("iss".to_owned(), Value::from(issuer)),
            ("sub".to_owned(), Value::from(subject)),
            ("aud".to_owned(), Value::from(audience)),
            ("iat".to_owned(), Value::from(issued)),
            ("exp".to_owned(), Value::from(issued.saturating_add(lifetime))),
            ("jti".to_owned(), Value::from(jti()?)),
        ]);
        if let Some(more) = &self.claims {
            let more =
                Mapping::compile("spec.yml", more, VARIABLES).map_err(|e| CallError::BadAnswer(e.to_string()))?;
            if let Value::Object(more) = more.eval(env) {
                claims.extend(more);
            }
        }
        let mut header = json!({ "alg": self.algorithm.name(), "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.render(env).ok_or_else(|| wrong("the key's id is not set"))?.into();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&Value::Object(claims)));
        let signed = self.algorithm.sign(&key, message.as_bytes());
        let signed =
            signed.ok_or_else(|| wrong(&format!("the private key is not one for {}", self.algorithm.name())))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }
}

/// What `claims` may use.
const VARIABLES: &[&str] = &["parameters", "baseUri"];

fn jti() -> Result<String, CallError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| CallError::unavailable("no randomness for a token"))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests;
