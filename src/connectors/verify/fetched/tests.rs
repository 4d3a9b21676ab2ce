//! Keys that are fetched: one of two signatures suffices, and nobody buys fetches, refusals or belief with a header.

use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::*;

const BODY: &str = r#"{"id":"e1","recipientclientid":"client-1"}"#;
const OWNER: [u8; 12] = [1; 12];
const HOUR: u64 = 3_600_000;

struct Signer(KeyPair);

impl Signer {
    fn new() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }
    fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }
    fn sign(&self, body: &str) -> String {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), body.as_bytes(), &mut signature).unwrap();
        STANDARD.encode(signature)
    }
}

/// A door with its keys, and the app's host of keys.
struct Desk {
    keys: Keys,
    spec: Spec,
    host: HashMap<String, String>,
    is_down: bool,
    fetches: AtomicU32,
}

impl Desk {
    fn new(host: &[(&str, &Signer)]) -> Self {
        let host = host.iter().map(|(path, signer)| ((*path).to_owned(), signer.pem())).collect();
        let spec = serde_json::from_value(json!({"kind": "adobe-io", "secret": "ioClientId"})).unwrap();
        Self { keys: Keys::default(), spec, host, is_down: false, fetches: AtomicU32::new(0) }
    }
    async fn check(&self, request: &WebhookRequest, owner: [u8; 12], now: u64) -> Verdict {
        let at: Url = "https://keys.example".parse().unwrap();
        let fetch = |url: Url| {
            assert_eq!(url.host_str(), Some("keys.example"));
            self.fetches.fetch_add(1, Ordering::Relaxed);
            let answered = match self.host.get(url.path()) {
                _ if self.is_down => Answered::Down,
                Some(pem) => Answered::Key(pem.clone()),
                None => Answered::Missing,
            };
            std::future::ready(answered)
        };
        let clients = [Secret::new("client-0"), Secret::new("client-1")];
        self.keys.check(&self.spec, (request, &clients), (owner, &at), Millis(now), fetch).await
    }
    fn fetched(&self) -> u32 {
        self.fetches.swap(0, Ordering::Relaxed)
    }
}

fn request(signatures: [&str; 2], paths: [&str; 2], body: &str) -> WebhookRequest {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    WebhookRequest {
        method: "POST".to_owned(),
        url: "https://hooks.example/in/c/t".to_owned(),
        query: Vec::new(),
        headers: vec![
            header("x-adobe-digital-signature-1", signatures[0]),
            header("x-adobe-public-key1-path", paths[0]),
            header("x-adobe-digital-signature-2", signatures[1]),
            header("x-adobe-public-key2-path", paths[1]),
        ],
        body: Bytes::copy_from_slice(body.as_bytes()),
        received_at: Millis(0),
    }
}

const PATHS: [&str; 2] = ["/prod/keys/one.pem", "/prod/keys/two.pem"];

#[tokio::test]
async fn one_valid_signature_of_two_suffices_and_keys_are_fetched_once_a_day() {
    let (one, two) = (Signer::new(), Signer::new());
    let desk = Desk::new(&[(PATHS[0], &one), (PATHS[1], &two)]);
    let (good, other) = ([one.sign(BODY), two.sign(BODY)], one.sign("another body"));
    let check = async |signatures: [&str; 2], now| desk.check(&request(signatures, PATHS, BODY), OWNER, now).await;
    assert_eq!(check([&good[0], &good[1]], 0).await, Verdict::Verified);
    assert_eq!(desk.fetched(), 1, "the second key is not needed");
    assert_eq!(check([&other, &good[1]], 1).await, Verdict::Verified, "the first is wrong, the second right");
    assert_eq!(check(["not base64!", &good[1]], 2).await, Verdict::Verified);
    assert_eq!(check([&other, &other], 3).await, Verdict::Refused(Refusal::Wrong));
    assert_eq!(check([&good[1], &good[0]], 4).await, Verdict::Refused(Refusal::Wrong), "each with its own key");
    assert_eq!(desk.fetched(), 1);
    assert_eq!(check([&good[0], &good[1]], 24 * HOUR - 1).await, Verdict::Verified);
    assert_eq!(desk.fetched(), 0);
    assert_eq!(check([&good[0], &good[1]], 24 * HOUR + 4).await, Verdict::Verified);
    assert!(desk.fetched() >= 1, "a key is believed for a day");
}

#[tokio::test]
async fn all_four_headers_are_needed_and_a_forged_body_is_refused() {
    let one = Signer::new();
    let desk = Desk::new(&[(PATHS[0], &one), (PATHS[1], &one)]);
    let good = one.sign(BODY);
    let whole = request([&good, &good], PATHS, BODY);
    assert_eq!(desk.check(&whole, OWNER, 0).await, Verdict::Verified);
    for missing in 0..4 {
        let mut part = whole.clone();
        part.headers.remove(missing);
        assert_eq!(desk.check(&part, OWNER, 0).await, Verdict::Refused(Refusal::Missing));
    }
    let forged = r#"{"id":"e2","recipientclientid":"client-1"}"#;
    let forged = request([&good, &good], PATHS, forged);
    assert_eq!(desk.check(&forged, OWNER, 0).await, Verdict::Refused(Refusal::Wrong));
}

#[tokio::test]
async fn a_foreign_recipient_and_a_key_elsewhere_are_refused_without_fetching() {
    let one = Signer::new();
    let desk = Desk::new(&[(PATHS[0], &one), (PATHS[1], &one)]);
    for body in [r#"{"id":"e1","recipientclientid":"client-9"}"#, r#"{"id":"e1"}"#] {
        let (good, refused) = (one.sign(body), Verdict::Refused(Refusal::Foreign));
        assert_eq!(desk.check(&request([&good, &good], PATHS, body), OWNER, 0).await, refused);
    }
    let good = one.sign(BODY);
    for path in ["//evil.example/key.pem", "https://evil.example/key.pem", "/prod/../key.pem", "/key.pem?x=1"] {
        for paths in [[path, PATHS[1]], [PATHS[0], path]] {
            let refused = desk.check(&request([&good, &good], paths, BODY), OWNER, 0).await;
            assert_eq!(refused, Verdict::Refused(Refusal::KeyElsewhere), "{path}");
        }
    }
    assert_eq!(desk.fetched(), 0);
}

#[tokio::test]
async fn while_the_keys_host_is_down_nobody_is_refused_and_what_is_known_still_counts() {
    let (one, two) = (Signer::new(), Signer::new());
    let mut desk = Desk::new(&[(PATHS[0], &one), (PATHS[1], &two)]);
    let request = request([&one.sign(BODY), &two.sign(BODY)], PATHS, BODY);
    desk.is_down = true;
    assert_eq!(desk.check(&request, OWNER, 0).await, Verdict::Undecided);
    desk.is_down = false;
    assert_eq!(desk.check(&request, OWNER, 1).await, Verdict::Verified);
    desk.is_down = true;
    assert_eq!(desk.check(&request, OWNER, 2).await, Verdict::Verified);
}

#[tokio::test]
async fn a_flood_of_forged_paths_makes_no_flood_of_fetches_and_hits_no_other_owner() {
    let one = Signer::new();
    let desk = Desk::new(&[(PATHS[0], &one), (PATHS[1], &one)]);
    let good = one.sign(BODY);
    let genuine = request([&good, &good], PATHS, BODY);
    assert_eq!(desk.check(&genuine, OWNER, 0).await, Verdict::Verified);
    let mut refused = 0;
    for n in 0..2_000 {
        let path = format!("/prod/keys/{n}.pem");
        match desk.check(&request([&good, &good], [&path, &path], BODY), OWNER, 1).await {
            Verdict::Refused(Refusal::Wrong) => refused += 1,
            Verdict::Undecided => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(desk.fetched() <= FETCHES_MAX && refused < FETCHES_MAX);
    assert_eq!(desk.check(&genuine, OWNER, 2).await, Verdict::Verified, "known keys stay known");
    let path = "/prod/keys/other.pem";
    let other = desk.check(&request([&good, &good], [path, path], BODY), [2; 12], 2).await;
    assert_eq!(other, Verdict::Refused(Refusal::Wrong), "another owner's fetches are its own");
    let later = FETCHES_PER.as_secs() * 1_000 + 2;
    let again = request([&good, &good], ["/prod/keys/later.pem", PATHS[1]], "[]");
    assert_eq!(desk.check(&again, OWNER, later).await, Verdict::Refused(Refusal::Foreign));
    assert!(desk.keys.lock().missing.len() <= MISSING_MAX);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut known = Known::default();
    for n in 0..5_000_u64 {
        known.learn(format!("k{n}"), Answered::Key("pem".to_owned()), Millis(n));
        known.learn(format!("m{n}"), Answered::Missing, Millis(n));
        known.spend([(n % 250) as u8; 12], Millis(n));
    }
    assert!(known.keys.len() <= KEYS_MAX && known.missing.len() <= MISSING_MAX);
    assert!(known.keys.contains_key("k4999") && !known.keys.contains_key("k0"), "what ends first goes first");
}
