//! What a receiver gets, and what becomes of its answer, over real HTTP; signatures are judged by verifiers that are
//! not ours: the `standardwebhooks` and `rsa` crates, and openssl.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tidemill::clock::Clock;
use tidemill::destinations::http::keys::{KeyKind, KeyRing, StoredKey};
use tidemill::destinations::http::sign::HmacKey;
use tidemill::destinations::http::signer::Signer;
use tidemill::destinations::http::{Http, HttpOptions};
use tidemill::destinations::{Parcel, Post, Report};
use tidemill::domain::address::Policy;
use tidemill::domain::delivery::{AttemptError, Outcome};
use tidemill::domain::failure::Failure;
use tidemill::domain::id::{EventId, Seq, WorkspaceNo};
use tidemill::domain::secret::Secret;
use tidemill::domain::subscription::Signing;
use tidemill::domain::time::Millis;
use tidemill::error::Code;
use tidemill::outbound::{Client, Options};

use crate::support::server::{Act, Got, Server, answer};

const BODY: &str = r#"{"connectionId":null,"userName":"Zoë","dataPayload":{"n":1.10}}"#;

fn driver(nets: &[&str]) -> Http {
    let policy = Policy::new(nets.iter().map(|n| n.parse().expect(n)).collect(), false);
    let client = Client::new(&Options::standard(), Arc::new(policy)).expect("a client");
    let options = HttpOptions { header_prefix: "x-alloy".into(), read_limit: 64 * 1024, kept_max: 4096 };
    Http::new(client, Signer::inline(), &options).expect("a driver")
}

fn keys() -> Arc<KeyRing> {
    let key = |kind| StoredKey::generate(kind, Millis(0), Millis(0)).expect("a key");
    Arc::new(KeyRing::open(&[key(KeyKind::Rsa), key(KeyKind::Ed25519)], Duration::ZERO).expect("a ring"))
}

fn parcel(address: &str, secret: &Secret) -> Parcel {
    Parcel {
        address: address.into(),
        topic: "crm/contacts".into(),
        event: EventId::new(Seq(258), WorkspaceNo(7)),
        body: BODY.into(),
        attempt: 3,
        replay: false,
        at: Clock::start(Millis(0)).now(),
        wall: Clock::start(Millis(0)).wall(),
        signing: Signing { rsa: true, hmac: true, ed25519: true },
        secrets: Arc::new([HmacKey::parse(secret).expect("a secret")]),
        keys: keys(),
        headers: Arc::new([]),
        timeout: Duration::from_secs(2),
    }
}

async fn deliver(handler: impl Fn(&Got) -> Act + Send + Sync + 'static) -> Report {
    let server = Server::start(handler).await;
    let secret = HmacKey::generate().expect("a secret");
    let parcel = parcel(&format!("http://{}/hook", server.address), &secret);
    driver(&["127.0.0.0/8"]).deliver(&parcel).await.expect("a report")
}

/// Verifies with the openssl command line, which shares no code with us.
fn openssl_believes(arguments: &[&str], pem: &str, message: &[u8], signature: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let (pem, message) = (file("key.pem", pem.as_bytes()), file("message", message));
    let signature = file("signature", signature);
    let paths = |argument: &&str| match *argument {
        "PEM" => pem.clone().into_os_string(),
        "MESSAGE" => message.clone().into_os_string(),
        "SIGNATURE" => signature.clone().into_os_string(),
        other => other.into(),
    };
    let done = Command::new("openssl").args(arguments.iter().map(paths)).output();
    done.expect("openssl is installed wherever ca-certificates is").status.success()
}

#[tokio::test]
async fn a_receiver_gets_the_contracts_headers_and_signatures_that_others_believe() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let secret = HmacKey::generate().expect("a secret");
    let address = format!("http://LocalHost:{}/Hook?b=%7e&a", server.address.port());
    let mut parcel = parcel(&address, &secret);
    let own =
        [("Authorization", "Bearer t"), ("Webhook-Id", "forged"), ("Host", "forged"), ("X-Alloy-Topic", "forged")];
    parcel.headers = own.map(|(n, v)| (n.to_owned(), Secret::new(v))).into();
    let report = driver(&["127.0.0.0/8", "::1/128"]).deliver(&parcel).await.expect("a report");
    assert_eq!(report.outcome, Outcome::Accepted);
    assert_eq!((report.attempt.status, report.attempt.error, report.attempt.at), (Some(200), None, parcel.at));

    let got = &server.got()[0];
    assert_eq!(got.line, "POST /Hook?b=%7e&a HTTP/1.1");
    assert_eq!(got.body, BODY.as_bytes());
    let timestamp = parcel.at.seconds().to_string();
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", concat!("Tidemill/", env!("CARGO_PKG_VERSION"))),
        ("x-alloy-topic", "crm/contacts"),
        ("webhook-id", "000000000000010200000007"),
        ("webhook-timestamp", timestamp.as_str()),
        ("tidemill-attempt", "3"),
        ("authorization", "Bearer t"),
    ] {
        let all: Vec<_> = got.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        assert_eq!(all, [value], "{name}");
    }
    assert_eq!(got.header("tidemill-replay"), None);
    judge_standard(got, &secret, &parcel);
    judge_rsa(got, &address, &parcel);
}

fn judge_standard(got: &Got, secret: &Secret, parcel: &Parcel) {
    let mut headers = HeaderMap::new();
    for (name, value) in &got.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    let theirs = standardwebhooks::Webhook::new(secret.expose()).expect("a secret");
    theirs.verify(&got.body, &headers).expect("the official library believes v1");

    let signatures = got.header("webhook-signature").expect("signed");
    let v1a = signatures.split(' ').find_map(|s| s.strip_prefix("v1a,")).expect("an Ed25519 signature");
    let signature = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, v1a).expect("base64");
    let message = [
        got.header("webhook-id").expect("an id").as_bytes(),
        b".",
        got.header("webhook-timestamp").expect("a time").as_bytes(),
        b".",
        &got.body,
    ]
    .concat();
    let spki = &parcel.keys.ed25519(parcel.at).next().expect("a key").spki;
    let spki = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, spki);
    let ed25519 = &format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
    let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "PEM", "-sigfile", "SIGNATURE", "-in", "MESSAGE"];
    assert!(openssl_believes(&verify, ed25519, &message, &signature));
    assert!(!openssl_believes(&verify, ed25519, &message[1..], &signature));
}

fn judge_rsa(got: &Got, address: &str, parcel: &Parcel) {
    use rsa::pkcs1v15::{Signature, VerifyingKey};
    use rsa::pkcs8::DecodePublicKey;
    use rsa::signature::Verifier;
    let pem = parcel.keys.public_pem(parcel.at);
    let signature = hex::decode(got.header("x-alloy-signature").expect("signed")).expect("hex");
    let message = [b"POST", address.as_bytes(), &got.body].concat();
    let key = VerifyingKey::<sha2::Sha256>::new(rsa::PublicKey::from_public_key_pem(&pem).expect("PEM"));
    assert!(key.verify(&message, &Signature::try_from(signature.as_slice()).expect("a signature")).is_ok());
    let verify = ["dgst", "-sha256", "-verify", "PEM", "-signature", "SIGNATURE", "MESSAGE"];
    assert!(openssl_believes(&verify, &pem, &message, &signature), "openssl reads the first key of the page");
}

#[tokio::test]
async fn a_subscription_chooses_its_signatures() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let secret = HmacKey::generate().expect("a secret");
    let driver = driver(&["127.0.0.0/8"]);
    for (rsa, hmac, ed25519, versions) in [
        (false, true, false, "v1"),
        (true, false, false, ""),
        (false, false, true, "v1a"),
        (false, true, true, "v1 v1a"),
    ] {
        let mut parcel = parcel(&format!("http://{}/", server.address), &secret);
        parcel.signing = Signing { rsa, hmac, ed25519 };
        parcel.replay = true;
        driver.deliver(&parcel).await.expect("a report");
        let got = server.got().pop().expect("a request");
        assert_eq!(got.header("x-alloy-signature").is_some(), rsa);
        let signatures = got.header("webhook-signature").unwrap_or_default();
        let found: Vec<_> = signatures.split(' ').filter_map(|s| Some(s.split_once(',')?.0)).collect();
        assert_eq!(found.join(" "), versions);
        assert_eq!(got.header("tidemill-replay"), Some("true"));
        assert_eq!(got.header("webhook-id"), Some("000000000000010200000007"));
    }
    assert_eq!(server.connections(), 1, "connections are kept");
}

#[tokio::test]
async fn each_bad_answer_is_a_recorded_attempt() {
    let refused = |error| Outcome::Refused(error);
    let report = deliver(|_| Act::Answer(answer("302 Found", "location: /\r\n", "moved"))).await;
    assert_eq!((report.outcome, report.attempt.answer.as_str()), (refused(AttemptError::Redirect), "moved"));
    let report = deliver(|_| Act::Answer(answer("500 Oops", "", &"é".repeat(40_000)))).await;
    assert_eq!(report.outcome, refused(AttemptError::Server));
    assert_eq!((report.attempt.answer.len(), report.attempt.body_cut), (4096, true));
    let report = deliver(|_| Act::Answer(answer("410 Gone", "", ""))).await;
    assert_eq!((report.outcome, report.attempt.error), (Outcome::Gone, Some(AttemptError::Gone)));
    let report = deliver(|_| Act::Answer(answer("429 Slow", "retry-after: 7\r\n", ""))).await;
    assert_eq!(report.outcome, Outcome::Later(AttemptError::RateLimited, Duration::from_secs(7)));
    let report = deliver(|_| Act::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec())).await;
    assert_eq!(report.outcome, refused(AttemptError::Exchange(Failure::ResponseTimeout)));
    assert!((1900..4000).contains(&report.attempt.duration_ms), "{}", report.attempt.duration_ms);
    let report = deliver(|_| Act::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi".to_vec())).await;
    assert_eq!(report.outcome, refused(AttemptError::Exchange(Failure::ConnectionClosed)));
    assert_eq!(report.attempt.status, None);
}

#[tokio::test]
async fn an_endless_2xx_is_accepted_once_enough_was_read_and_nothing_of_it_is_kept() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let report = deliver(move |_| {
        Act::Forever(
            head.clone(),
            b"400\r\n".iter().copied().chain([b'x'; 1024]).chain(*b"\r\n").collect(),
            Duration::ZERO,
        )
    })
    .await;
    assert_eq!((report.outcome, report.attempt.body_cut), (Outcome::Accepted, true));
    assert_eq!(report.attempt.answer, "");
}

#[tokio::test]
async fn addresses_are_judged_when_they_are_given_and_again_when_they_are_used() {
    let driver = driver(&[]);
    let code = |address: &str| driver.check(address).err().map(|e| e.code);
    assert_eq!(code("https://example.com/hook"), None);
    for address in [
        "http://127.0.0.1/",
        "https://0x7f.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://localhost/",
        "http://example.com/",
    ] {
        assert_eq!(code(address), Some(Code::AddressForbidden), "{address}");
    }
    for address in ["", "example.com", "ftp://example.com/", "https://"] {
        assert_eq!(code(address), Some(Code::Invalid), "{address}");
    }
    assert_eq!(code(&format!("https://example.com/{}", "x".repeat(3000))), Some(Code::Invalid));
    let secret = HmacKey::generate().expect("a secret");
    let report = driver.deliver(&parcel("http://127.0.0.1:9/", &secret)).await.expect("a report");
    assert_eq!(report.outcome, Outcome::Refused(AttemptError::Exchange(Failure::AddressForbidden)));
}

#[tokio::test]
async fn a_trial_shows_all_of_it_or_only_that_the_address_is_forbidden() {
    let server = Server::start(|_| Act::Answer(answer("418 Teapot", "", "short and stout"))).await;
    let secret = HmacKey::generate().expect("a secret");
    let parcel = parcel(&format!("http://{}/", server.address), &secret);
    let trial = driver(&["127.0.0.0/8"]).try_out(&parcel).await.expect("a trial");
    let json = serde_json::to_value(&trial).expect("JSON");
    assert_eq!(
        (&json["status"], &json["answer"], &json["accepted"]),
        (&418.into(), &"short and stout".into(), &false.into())
    );
    assert_eq!(json["addresses"][0], "127.0.0.1");
    assert!(trial.headers.iter().any(|(n, v)| n == "x-alloy-signature" && v.len() == 512));
    let trial = driver(&[]).try_out(&parcel).await.expect("a trial");
    assert_eq!(serde_json::to_string(&trial).expect("JSON"), r#"{"failure":"address-forbidden","accepted":false}"#);
}
