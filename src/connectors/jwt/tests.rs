//! Tokens, read by somebody else's verifier (jsonwebtoken; PyJWT reads them in `tests/it/salesforce.rs`).

use std::collections::HashSet;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, UnparsedPublicKey};
use jsonwebtoken::{DecodingKey, Validation};

use super::*;
use crate::connectors::yaml;

const NOW: Millis = Millis(1_777_000_000_000);

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn file(more: &str) -> JwtFile {
    yaml::read("spec.yml", &format!("{{key: \"{{{{parameters.key}}}}\", {more}}}")).unwrap()
}

fn token(file: &JwtFile, key: &str) -> Result<String, CallError> {
    let parameters = json!({"key": key, "kid": "cert-7", "user": "ann@acme.example", "scopes": ["rest_webservices"]});
    let variables = [("parameters", &parameters)];
    file.token(&Env::of(&variables), "client-1", "https://login.example/token", NOW)
}

fn decoded(token: &str, key: &DecodingKey, algorithm: jsonwebtoken::Algorithm) -> Value {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.set_audience(&["https://login.example/token"]);
    validation.required_spec_claims = HashSet::from(["exp", "aud", "iss", "sub"].map(str::to_owned));
    jsonwebtoken::decode::<Value>(token, key, &validation).unwrap().claims
}

#[test]
fn rsa_tokens_are_read_by_another_verifier_from_either_form_of_the_key() {
    use jsonwebtoken::Algorithm::{PS256, PS384, PS512, RS256};
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = pem("PRIVATE KEY", AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref());
    // PKCS#8 wraps PKCS#1 (RFC 5958) in a head of 26 bytes, for a key of this length.
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let pkcs1 = pem("RSA PRIVATE KEY", &der.as_ref()[26..]);
    let public = DecodingKey::from_rsa_der(pair.public_key().as_ref());
    for (name, algorithm) in [("RS256", RS256), ("PS256", PS256), ("PS384", PS384), ("PS512", PS512)] {
        let file = file(&format!("algorithm: {name}, keyId: \"{{{{parameters.kid}}}}\""));
        let made = token(&file, &pkcs8).unwrap();
        let claims = decoded(&made, &public, algorithm);
        assert_eq!(jsonwebtoken::decode_header(&made).unwrap().kid.as_deref(), Some("cert-7"));
        assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some("client-1"), Some("client-1")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 180);
        decoded(&token(&file, &pkcs1).unwrap(), &public, algorithm);
        // A key that went through an environment variable or a form.
        assert!(token(&file, &pkcs8.replace('\n', "\\n")).is_ok() && token(&file, &pkcs8.replace('\n', " ")).is_ok());
    }
}

#[test]
fn elliptic_tokens_are_read_by_another_verifier() {
    use jsonwebtoken::Algorithm::{ES256, ES384};
    for (name, kind, algorithm) in [
        ("ES256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING, Some(ES256)),
        ("ES384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING, Some(ES384)),
        ("ES512", &signature::ECDSA_P521_SHA512_FIXED_SIGNING, None),
    ] {
        let pair = EcdsaKeyPair::generate(kind).unwrap();
        let key = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
        let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&pair.private_key()).unwrap();
        assert!(token(&file(&format!("algorithm: {name}")), &pem("EC PRIVATE KEY", sec1.as_ref())).is_ok());
        let made = token(&file(&format!("algorithm: {name}")), &key).unwrap();
        let public = pair.public_key().as_ref();
        match algorithm {
            Some(algorithm) => {
                decoded(&made, &DecodingKey::from_ec_der(public), algorithm);
            }
            // jsonwebtoken has no ES512.
            None => {
                let (message, signed) = made.rsplit_once('.').unwrap();
                let signed = URL_SAFE_NO_PAD.decode(signed).unwrap();
                assert_eq!(signed.len(), 132, "r and s of 66 bytes each (RFC 7518, section 3.4)");
                let verifier = UnparsedPublicKey::new(&signature::ECDSA_P521_SHA512_FIXED, public);
                verifier.verify(message.as_bytes(), &signed).unwrap();
            }
        }
    }
}

#[test]
fn claims_are_filled_and_a_token_is_never_the_same_twice() {
    let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let key = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
    let file = file(
        "algorithm: ES256, subject: \"{{parameters.user}}\", audience: https://login.example, lifetime: 1h, \
         claims: {scope: $parameters.scopes}",
    );
    let claims = |token: &str| -> Value {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let (first, second) = (claims(&token(&file, &key).unwrap()), claims(&token(&file, &key).unwrap()));
    assert_eq!(first["sub"], "ann@acme.example");
    assert_eq!(first["aud"], "https://login.example");
    assert_eq!(first["scope"], json!(["rest_webservices"]));
    assert_eq!(first["exp"].as_u64().unwrap() - first["iat"].as_u64().unwrap(), 3600);
    assert_ne!(first["jti"], second["jti"]);
}

#[test]
fn a_key_that_does_not_fit_is_an_error_that_shows_none_of_it() {
    let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let key = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
    for (algorithm, key, said) in [
        ("RS256", key.as_str(), "not one for RS256"),
        ("ES384", key.as_str(), "not one for ES384"),
        ("RS256", "s3cret", "PEM form"),
        ("RS256", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "unencrypted"),
    ] {
        let error = token(&file(&format!("algorithm: {algorithm}")), key).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("s3cret"), "{error}");
    }
    let empty = Value::Object(Map::new());
    let variables = [("parameters", &empty)];
    let env = Env::of(&variables);
    assert!(!file("algorithm: RS256").is_set_up(&env));
    assert!(file("algorithm: RS256").token(&env, "c", "https://t", NOW).unwrap_err().to_string().contains("not set"));
}
