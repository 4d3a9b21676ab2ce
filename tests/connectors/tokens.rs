//! Clients that say who they are by signed tokens: what an app gets, read by somebody else's verifier.

use std::fs;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tidemill::connectors::Connector;

use super::REGISTRY;
use super::app::{App, Reply};

const SPEC: &str = r#"
key: bank
name: Bank
category: crm
description: A test's.
baseUri: {givenBy: user}
auth:
  - oauth2:
      tokenUrl: "{{baseUri}}/token"
      scopes: [rest_webservices]
AUTH
parametersSchema:
  type: object
  properties:
    clientId: {type: string}
    clientSecret: {type: string, writeOnly: true}
    certificateId: {type: string}
    bits: {type: integer, default: 256}
    privateKey: {type: string, writeOnly: true}
"#;

fn made(auth: &str) -> Result<(tempfile::TempDir, Arc<Connector>), String> {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "bank").unwrap();
    let auth: String = auth.lines().map(|line| format!("      {line}\n")).collect();
    fs::write(folder.join("spec.yml"), SPEC.replace("AUTH\n", &auth)).unwrap();
    let connector = REGISTRY.read(&folder).map_err(|error| error.to_string())?;
    Ok((dir, connector))
}

fn key() -> (RsaKeyPair, String) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let text = STANDARD.encode(der.as_ref());
    (pair, format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
}

fn form(app: &App) -> Vec<(String, String)> {
    url::form_urlencoded::parse(app.requests()[0].body.as_bytes()).into_owned().collect()
}

fn field<'f>(form: &'f [(String, String)], name: &str) -> Option<&'f str> {
    form.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

fn claims(token: &str, pair: &RsaKeyPair, algorithm: Algorithm, audience: &str) -> Value {
    let mut rules = Validation::new(algorithm);
    rules.set_audience(&[audience]);
    // The clock of these tests stands still.
    rules.validate_exp = false;
    jsonwebtoken::decode::<Value>(token, &DecodingKey::from_rsa_der(pair.public_key().as_ref()), &rules).unwrap().claims
}

#[tokio::test]
async fn a_client_assertion_takes_the_place_of_a_secret() {
    let auth = "grants: [client-credentials]\nclientAuth: assertion\nassertion: {algorithm: PS256, key: \
                \"{{parameters.privateKey}}\", keyId: \"{{parameters.certificateId}}\", lifetime: 50m, claims: {scope: \
                [rest_webservices]}}";
    let (_dir, bank) = made(auth).unwrap();
    let (pair, pem) = key();
    let app = App::start(|_| Reply::json(json!({"access_token": "t", "expires_in": 3600}))).await;
    let parameters = json!({"clientId": "c-1", "certificateId": "cert-7", "privateKey": pem});
    let session = app.session(&bank, parameters, json!({}));
    session.refresh_credentials().await.unwrap();
    let form = form(&app);
    assert_eq!(field(&form, "grant_type"), Some("client_credentials"));
    assert_eq!(
        field(&form, "client_assertion_type"),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        "{form:?}"
    );
    assert_eq!((field(&form, "client_secret"), field(&form, "scope")), (None, Some("rest_webservices")));
    let token = field(&form, "client_assertion").unwrap();
    let audience = format!("{}token", app.url);
    let claims = claims(token, &pair, Algorithm::PS256, &audience);
    assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some("c-1"), Some("c-1")));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3_000);
    assert_eq!(claims["scope"], json!(["rest_webservices"]));
    assert_eq!(jsonwebtoken::decode_header(token).unwrap().kid.as_deref(), Some("cert-7"));
}

#[tokio::test]
async fn a_signed_token_is_exchanged_with_and_without_a_secret_beside_it() {
    let auth = "grants: [jwt-bearer]\njwt: {algorithm: RS256, key: \"{{parameters.privateKey}}\", subject: \
                ann@acme.example, audience: https://login.example}";
    let (_dir, bank) = made(auth).unwrap();
    let (pair, pem) = key();
    for secret in [None, Some("s3cret")] {
        let app = App::start(|_| Reply::json(json!({"access_token": "t"}))).await;
        let mut parameters = json!({"clientId": "c-1", "privateKey": pem});
        if let Some(secret) = secret {
            parameters["clientSecret"] = secret.into();
        }
        app.session(&bank, parameters, json!({})).refresh_credentials().await.unwrap();
        let form = form(&app);
        assert_eq!(field(&form, "grant_type"), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
        assert_eq!(field(&form, "client_secret"), secret);
        let claims = claims(field(&form, "assertion").unwrap(), &pair, Algorithm::RS256, "https://login.example");
        assert_eq!(claims["sub"], "ann@acme.example");
    }
    // Nobody has set the key up: the way in is none, and says so without a call.
    let app = App::start(|_| Reply::json(json!({"access_token": "t"}))).await;
    let error = app.session(&bank, json!({"clientId": "c-1"}), json!({})).refresh_credentials().await.unwrap_err();
    assert!(app.requests().is_empty(), "{error}");
}

#[test]
fn what_is_missing_is_said_when_the_folder_is_loaded() {
    for (auth, said) in [
        ("clientAuth: assertion", "field auth.oauth2.assertion: clientAuth: assertion needs it"),
        ("grants: [jwt-bearer]", "field auth.oauth2.jwt: the grant jwt-bearer needs it"),
        ("jwt: {algorithm: HS256, key: x}", "\"HS256\" is not one of RS256, PS256"),
        ("jwt: {algorithm: RS256, key: x, claims: {a: $nobody.x}}", "field auth.oauth2.jwt.claims"),
        ("pkce: plain", "field auth.oauth2.pkce: pkce is S256 or none, not \"plain\""),
        ("pkce: \"{{parameters.clientId}}\"", "field auth.oauth2.pkce: pkce is S256 or none, not \"\""),
        (
            "pkce: \"S{{parameters.bits}}\"",
            "field auth.oauth2.pkce: a hole in it is a parameter with `enum: [S256, none]`",
        ),
    ] {
        let error = made(auth).err().unwrap();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn an_integration_turns_pkce_on_where_the_app_documents_neither() {
    for key in ["hubspot", "shopify"] {
        let app = REGISTRY.get(key).unwrap();
        for (given, bound) in [(json!({}), false), (json!({"pkce": "none"}), false), (json!({"pkce": "S256"}), true)] {
            let mut parameters = json!({"clientId": "c-1", "shop": "tide-shop.myshopify.com"});
            if key == "hubspot" {
                parameters.as_object_mut().unwrap().shift_remove("shop");
            }
            parameters.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
            let whole = app.parameters.fill(parameters.as_object().unwrap()).unwrap();
            let consent = app.consent(&whole, "https://tide.example/oauth/callback", "s").unwrap();
            let challenged = consent.address.query_pairs().any(|(name, _)| name == "code_challenge");
            assert_eq!((challenged, consent.verifier.is_some()), (bound, bound), "{key}: {}", consent.address);
        }
    }
}
