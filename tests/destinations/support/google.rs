//! Google's sign-in, on loopback: what the service accounts of the tests get their tokens from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::stub::{Reply, Seen, Stub};

/// A key pair: the private one as PEM, the public one as PKCS#1.
pub struct Keys {
    pub pem: String,
    pub public: Vec<u8>,
}

impl Keys {
    pub fn generate() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        Self { pem, public: pair.public_key().as_ref().to_vec() }
    }

    /// The claims of a token that this key signed.
    pub fn claims(&self, token: &str, audience: Option<&str>) -> Result<Value, String> {
        let mut rules = Validation::new(Algorithm::RS256);
        match audience {
            Some(audience) => rules.set_audience(&[audience]),
            None => rules.validate_aud = false,
        }
        let key = DecodingKey::from_rsa_der(&self.public);
        jsonwebtoken::decode::<Value>(token, &key, &rules).map(|token| token.claims).map_err(|e| e.to_string())
    }
}

/// The sign-in, and the tokens that it gave out.
pub struct SignIn {
    pub stub: Stub,
    keys: Arc<Keys>,
    given: Arc<AtomicU32>,
    live: Arc<AtomicU32>,
}

impl SignIn {
    /// With tokens that last so many seconds.
    pub fn start(seconds: u64) -> Self {
        let keys = Arc::new(Keys::generate());
        let (given, live) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(1)));
        let (key, count) = (keys.clone(), given.clone());
        let stub = Stub::start(move |seen: &Seen| {
            let form: std::collections::HashMap<String, String> =
                url::form_urlencoded::parse(&seen.body).into_owned().collect();
            let number = || count.fetch_add(1, Ordering::SeqCst) + 1;
            match seen.path() {
                "/token" => {
                    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
                    let audience = format!("http://{}/token", seen.header("host").unwrap());
                    match key.claims(&form["assertion"], Some(&audience)) {
                        Ok(claims) if claims["iss"] == "robot@test.example" => {
                            assert!(claims["scope"].as_str().unwrap().starts_with("https://www.googleapis.com/auth/"));
                            Reply::json(200, json!({"access_token": format!("t{}", number()), "expires_in": seconds}))
                        }
                        _ => Reply::json(
                            400,
                            json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}),
                        ),
                    }
                }
                "/sts" => {
                    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
                    if form["subject_token"] != "their-own-token" {
                        return Reply::json(400, json!({"error": "invalid_grant", "error_description": "expired"}));
                    }
                    assert_eq!(form["audience"], "//iam.example/pool");
                    Reply::json(200, json!({"access_token": "federated", "expires_in": seconds}))
                }
                "/act-for" => {
                    assert_eq!(seen.header("authorization"), Some("Bearer federated"));
                    assert!(seen.json()["scope"][0].is_string());
                    let token = format!("t{}", number());
                    Reply::json(200, json!({"accessToken": token, "expireTime": "2099-01-01T00:00:00Z"}))
                }
                other => panic!("nothing is at {other}"),
            }
        });
        Self { stub, keys, given, live }
    }

    /// The file of a service account.
    pub fn credentials(&self) -> String {
        self.credentials_with(&self.keys)
    }

    /// The same with a key that is not the account's.
    pub fn forged(&self) -> String {
        self.credentials_with(&Keys::generate())
    }

    fn credentials_with(&self, keys: &Keys) -> String {
        json!({
            "type": "service_account",
            "project_id": "proj",
            "private_key_id": "k1",
            "private_key": keys.pem,
            "client_email": "robot@test.example",
            "token_uri": format!("{}/token", self.stub.url),
        })
        .to_string()
    }

    /// The file of an external account.
    pub fn external(&self) -> String {
        json!({
            "type": "external_account",
            "audience": "//iam.example/pool",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/sts", self.stub.url),
            "service_account_impersonation_url": format!("{}/act-for", self.stub.url),
            "credential_source": {"url": "http://169.254.169.254/latest/token"},
        })
        .to_string()
    }

    /// How many tokens were given out.
    pub fn given(&self) -> u32 {
        self.given.load(Ordering::SeqCst)
    }

    /// All tokens given out so far are worth nothing any more.
    pub fn revoke(&self) {
        self.live.store(self.given() + 1, Ordering::SeqCst);
    }

    /// What a service asks before it answers: an answer if the token is not good.
    pub fn guard(&self) -> impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static {
        let live = self.live.clone();
        move |seen| {
            let text = seen.header("authorization").and_then(|text| text.strip_prefix("Bearer t"));
            let number: u32 = text.and_then(|number| number.parse().ok()).unwrap_or_default();
            (number < live.load(Ordering::SeqCst)).then(|| refusal(401, "authError", "Invalid Credentials"))
        }
    }
}

/// An error as Google's APIs write them.
pub fn refusal(status: u16, reason: &str, message: &str) -> Reply {
    Reply::json(status, json!({"error": {"code": status, "message": message, "errors": [{"reason": reason}]}}))
}
