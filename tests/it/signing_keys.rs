//! The workspace's signing keys rotate without any receiver noticing that reads the key page once a day; signatures are
//! judged by the `rsa` crate and by openssl.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tidemill::domain::time::Millis;

use crate::support::api::{Node, OPERATOR};
use crate::support::receiver::{Received, Receiver};

const KEYS: &str = "/2024-03/one/signing-keys";
const HOUR_MS: u64 = 3_600_000;

/// What a receiver has read last.
struct Page {
    pem: String,
    jwks: Value,
    read_at: Millis,
}

impl Page {
    async fn read(node: &Node) -> Self {
        let pem = node.get("/security/public_key.pem").await.text;
        let jwks = node.get("/.well-known/jwks.json").await.ok();
        Self { pem, jwks, read_at: node.engine.clock.now() }
    }

    /// The RSA keys, in the page's order.
    fn rsa_keys(&self) -> Vec<rsa::PublicKey> {
        use rsa::pkcs8::DecodePublicKey;
        let blocks = self.pem.split_inclusive("-----END PUBLIC KEY-----\n");
        blocks.map(|pem| rsa::PublicKey::from_public_key_pem(pem).expect("PEM")).collect()
    }

    /// Which key of the PEM page signed this delivery.
    fn rsa_signer(&self, address: &str, came: &Received) -> Option<usize> {
        use rsa::pkcs1v15::{Signature, VerifyingKey};
        use rsa::signature::Verifier;
        let signature = hex::decode(came.header("x-alloy-signature")).expect("hex");
        let signature = Signature::try_from(signature.as_slice()).expect("a signature");
        let message = [b"POST", address.as_bytes(), &came.body].concat();
        let good = |key: rsa::PublicKey| VerifyingKey::<sha2::Sha256>::new(key).verify(&message, &signature).is_ok();
        self.rsa_keys().into_iter().position(good)
    }

    /// Whether openssl believes one of the `v1a` signatures with one of the Ed25519 keys of the key set.
    fn ed25519_verifies(&self, came: &Received) -> bool {
        let message =
            [came.header("webhook-id").as_bytes(), b".", came.header("webhook-timestamp").as_bytes(), b".", &came.body]
                .concat();
        let keys = self.jwks["keys"].as_array().expect("keys").iter().filter(|key| key["kty"] == "OKP");
        let keys: Vec<Vec<u8>> =
            keys.map(|key| URL_SAFE_NO_PAD.decode(key["x"].as_str().expect("x")).expect("x")).collect();
        let signatures = came.header("webhook-signature").split(' ').filter_map(|s| s.strip_prefix("v1a,"));
        let signatures: Vec<Vec<u8>> = signatures.map(|s| STANDARD.decode(s).expect("base64")).collect();
        assert!(!signatures.is_empty());
        signatures.iter().any(|signature| keys.iter().any(|key| openssl_believes(key, &message, signature)))
    }
}

fn openssl_believes(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    // SubjectPublicKeyInfo of RFC 8410.
    let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], key].concat();
    let (key, message, signature) = (file("key", &der), file("message", message), file("signature", signature));
    let mut verify = Command::new("openssl");
    verify.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey"]).arg(key);
    verify.arg("-sigfile").arg(signature).arg("-in").arg(message);
    verify.output().expect("openssl is installed wherever ca-certificates is").status.success()
}

fn states(answer: &Value, kind: &str) -> Vec<String> {
    let all = answer["signingKeys"].as_array().expect("keys");
    let of_kind = all.iter().filter(|key| key["kind"] == kind);
    of_kind.map(|key| key["state"].as_str().expect("a state").to_owned()).collect()
}

#[actix::test]
async fn a_receiver_that_reads_the_key_page_once_a_day_can_always_check() {
    let node = Node::start().await;
    let receiver = Receiver::start();
    let body = json!({"address": receiver.address, "topic": ["crm/contacts"]});
    node.post("/2024-03/one/webhooks", body).await.ok();
    let clock = &node.engine.clock;
    // Receivers that read at different hours of the day.
    let mut pages = Vec::new();
    for _ in 0..4 {
        pages.push(Page::read(&node).await);
        clock.raise(Millis(clock.now().0 + 6 * HOUR_MS));
    }
    let first = pages[0].rsa_keys().remove(0);
    let mut rotations = 0;
    // Five days in steps of three hours, with a rotation whenever one is possible.
    for step in 0..40 {
        let asked = node.post(&format!("{KEYS}/rotate"), json!({})).await;
        match asked.status {
            200 => rotations += 1,
            _ => assert!(asked.refused(409, "conflict").contains("signs from"), "{}", asked.text),
        }
        let event = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {"step": step}});
        assert_eq!(node.post("/2024-03/one/events", event).await.status, 202);
        let came = receiver.wait(step + 1).await.pop().expect("a delivery");
        for page in &mut pages {
            if clock.now().since(page.read_at) >= Duration::from_secs(24 * 3600) {
                *page = Page::read(&node).await;
            }
            assert!(page.rsa_signer(&receiver.address, &came).is_some(), "step {step}: nobody on the page signed it");
            assert!(page.ed25519_verifies(&came), "step {step}: no Ed25519 signature is believed");
        }
        let now = Page::read(&node).await;
        assert_eq!(now.rsa_signer(&receiver.address, &came), Some(0), "the signing key comes first");
        clock.raise(Millis(clock.now().0 + 3 * HOUR_MS));
    }
    assert!(rotations >= 4, "{rotations}");
    assert!(!Page::read(&node).await.rsa_keys().contains(&first), "the first key is gone from the page");
    let kept = node.get(KEYS).await.ok()["signingKeys"].as_array().expect("keys").len();
    assert!(kept <= 8, "{kept} keys are kept");
    node.stop().await;
}

#[actix::test]
async fn keys_are_listed_with_their_states_and_rotated_by_kind() {
    let node = Node::start().await;
    let all = node.get(KEYS).await.ok();
    assert_eq!((states(&all, "rsa"), states(&all, "ed25519")), (vec!["signing".into()], vec!["signing".into()]));
    let rotated = node.post(&format!("{KEYS}/rotate"), json!({"kinds": ["ed25519"]})).await.ok();
    assert_eq!(states(&rotated, "rsa"), ["signing"]);
    assert_eq!(states(&rotated, "ed25519"), ["signing", "coming"]);
    assert_eq!(node.get(KEYS).await.ok(), rotated);
    let jwks = node.get("/.well-known/jwks.json").await.ok();
    let mut published: Vec<_> = jwks["keys"].as_array().expect("keys").iter().map(|key| key["kid"].clone()).collect();
    let mut listed: Vec<_> =
        rotated["signingKeys"].as_array().expect("keys").iter().map(|key| key["kid"].clone()).collect();
    published.sort_by_key(Value::to_string);
    listed.sort_by_key(Value::to_string);
    assert_eq!(published, listed, "both are on the page");
    assert!(!rotated.to_string().contains("pkcs8"));
    node.post(&format!("{KEYS}/rotate"), json!({"kinds": ["rsa", "ed25519"]})).await.refused(409, "conflict");
    assert_eq!(states(&node.get(KEYS).await.ok(), "rsa"), ["signing"], "all or nothing");
    node.post(&format!("{KEYS}/rotate"), json!({"kinds": []})).await.refused(422, "invalid");
    node.post(&format!("{KEYS}/rotate"), json!({"kinds": ["dsa"]})).await.refused(422, "invalid");
    // Only an admin's key may, and another workspace's keys are its own.
    let writer = node.post("/2024-03/one/keys", json!({"name": "w", "scopes": ["write"]})).await.ok();
    let writer = writer["key"]["apiKey"].as_str().expect("a key").to_owned();
    node.call_as(&writer, "GET", KEYS, None).await.refused(403, "forbidden");
    node.call_as(&writer, "POST", &format!("{KEYS}/rotate"), Some(json!({}))).await.refused(403, "forbidden");
    let two = node.call_as(OPERATOR, "POST", "/workspaces", Some(json!({"name": "two"}))).await.ok();
    let theirs = node.call_as(two["key"]["apiKey"].as_str().expect("a key"), "GET", KEYS, None).await.ok();
    assert_eq!(states(&theirs, "ed25519"), ["signing"]);
    assert_ne!(theirs["signingKeys"][0]["kid"], rotated["signingKeys"][0]["kid"]);
    node.stop().await;
}
