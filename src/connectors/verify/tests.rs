//! Known signatures, each with a request that must not pass.

use bytes::Bytes;
use serde_json::json;

use super::*;

fn spec(text: serde_json::Value) -> Spec {
    serde_json::from_value(text).unwrap()
}

fn request(headers: &[(&str, &str)], body: &str) -> WebhookRequest {
    WebhookRequest {
        method: "POST".to_owned(),
        url: "https://hooks.example/in/g/t/all?to=%2Fa%40b&x=1".to_owned(),
        query: vec![("x".to_owned(), "1".to_owned())],
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        received_at: Millis(0),
    }
}

const NOW: Millis = Millis(1_700_000_060_000);

fn check(spec: &Spec, request: &WebhookRequest, secret: &str, now: Millis) -> Verdict {
    spec.check(request, &[Secret::new("another"), Secret::new(secret)], now)
}

/// The request passes; with another body it is refused; without its headers too.
#[track_caller]
fn passes(spec: &Spec, request: &WebhookRequest, secret: &str, now: Millis) {
    assert_eq!(check(spec, request, secret, now), Verdict::Verified);
    let forged = WebhookRequest { body: Bytes::from_static(b"forged"), ..request.clone() };
    assert_eq!(check(spec, &forged, secret, now), Verdict::Refused(Refusal::Wrong));
    let bare = WebhookRequest { headers: Vec::new(), ..request.clone() };
    assert_eq!(check(spec, &bare, secret, now), Verdict::Refused(Refusal::Missing));
    assert_eq!(check(spec, request, "wrong", now), Verdict::Refused(Refusal::Wrong));
}

#[track_caller]
fn grows_stale(spec: &Spec, request: &WebhookRequest, secret: &str, signed: u64) {
    for seconds in [signed - 301, signed + 301] {
        assert_eq!(check(spec, request, secret, Millis(seconds * 1000)), Verdict::Refused(Refusal::Stale));
    }
}

#[test]
fn hmac_sha256_with_a_prefix() {
    // The example of docs.github.com, "Validating webhook deliveries".
    let spec =
        spec(json!({"kind": "hmac-sha256", "header": "X-Hub-Signature-256", "prefix": "sha256=", "secret": "s"}));
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let request = request(&[("x-hub-signature-256", signature)], "Hello, World!");
    passes(&spec, &request, "It's a Secret to Everybody", NOW);
}

#[test]
fn shopify_signs_the_body_under_either_header_name() {
    let spec = spec(json!({"kind": "shopify", "secret": "clientSecret"}));
    for name in ["x-shopify-hmac-sha256", "shopify-hmac-sha256"] {
        let request = request(&[(name, "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=")], r#"{"id":1}"#);
        passes(&spec, &request, "hush", NOW);
    }
    let quoted =
        request(&[("x-shopify-hmac-sha256", "\"VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=\"")], r#"{"id":1}"#);
    assert_eq!(check(&spec, &quoted, "hush", NOW), Verdict::Refused(Refusal::Wrong));
}

#[test]
fn hubspot_signs_method_decoded_url_body_and_time() {
    let spec = spec(json!({"kind": "hubspot-v3", "secret": "clientSecret"}));
    let signature = "nju5liYaHG4VlCKZgObtqXGSqHDH3s/S2c0L6+L4lH0=";
    let headers = [("x-hubspot-signature-v3", signature), ("x-hubspot-request-timestamp", "1700000000000")];
    let request = request(&headers, r#"[{"eventId":1}]"#);
    passes(&spec, &request, "app-secret", NOW);
    grows_stale(&spec, &request, "app-secret", 1_700_000_000);
    let elsewhere = WebhookRequest { url: "http://hooks.example/in/g/t/all?to=/a@b&x=1".to_owned(), ..request };
    assert_eq!(check(&spec, &elsewhere, "app-secret", NOW), Verdict::Refused(Refusal::Wrong));
}

#[test]
fn only_what_hubspot_decodes_is_decoded() {
    assert_eq!(hubspot_url("https://a/%3a%2F%20%C3%A9%"), "https://a/:/%20%C3%A9%");
    assert_eq!(hubspot_url("https://a/%é"), "https://a/%é");
}

#[test]
fn slack_v0() {
    // The example of api.slack.com, "Verifying requests from Slack".
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
        &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
        &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let spec = spec(json!({"kind": "slack-v0", "secret": "signingSecret"}));
    let request = request(&[("x-slack-signature", signature), ("x-slack-request-timestamp", "1531420618")], body);
    passes(&spec, &request, "8f742231b10e8888abcd99yyyzzz85a5", Millis(1_531_420_700_000));
    grows_stale(&spec, &request, "8f742231b10e8888abcd99yyyzzz85a5", 1_531_420_618);
}

#[test]
fn stripe_accepts_any_of_its_v1_signatures() {
    let spec = spec(json!({"kind": "stripe-t-v1", "secret": "endpointSecret"}));
    let signature = "t=1700000000,v1=00,v0=ff,v1=881f7ed0fa1ed08a7f9383302d02ecf24f710c914423bb9d1b830fd60b6a93bb";
    let request = request(&[("stripe-signature", signature)], r#"{"id":"evt_1"}"#);
    passes(&spec, &request, "whsec_stripe", NOW);
    grows_stale(&spec, &request, "whsec_stripe", 1_700_000_000);
}

#[test]
fn standard_webhooks() {
    // The example of the specification's own libraries.
    let spec = spec(json!({"kind": "standard-webhooks", "secret": "secret"}));
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,AAAA v1a,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let request = request(&headers, r#"{"test": 2432232314}"#);
    passes(&spec, &request, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Millis(1_614_265_330_000));
    passes(&spec, &request, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Millis(1_614_265_330_000));
    grows_stale(&spec, &request, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1_614_265_330);
}

#[test]
fn rsa_keys_may_come_in_either_pem_form() {
    let spec = spec(json!({"kind": "rsa-sha256", "header": "X-Sig", "encoding": "base64", "secret": "publicKey"}));
    let request = request(&[("x-sig", RSA_SIGNATURE)], r#"{"id":1}"#);
    passes(&spec, &request, RSA_SPKI, NOW);
    passes(&spec, &request, RSA_PKCS1, NOW);
}

#[test]
fn tokens_stand_in_a_header_or_in_the_query() {
    let in_header = spec(json!({"kind": "token", "header": "Authorization", "prefix": "Bearer ", "secret": "token"}));
    let request = request(&[("authorization", "Bearer tide")], "any");
    assert_eq!(check(&in_header, &request, "tide", NOW), Verdict::Verified);
    assert_eq!(check(&in_header, &request, "mill", NOW), Verdict::Refused(Refusal::Wrong));
    let in_query = spec(json!({"kind": "token", "query": "x", "secret": "token"}));
    assert_eq!(check(&in_query, &request, "1", NOW), Verdict::Verified);
    let elsewhere = spec(json!({"kind": "token", "query": "y", "secret": "token"}));
    assert_eq!(check(&elsewhere, &request, "1", NOW), Verdict::Refused(Refusal::Missing));
}

#[test]
fn a_secret_that_is_not_set_refuses_unless_it_is_optional() {
    let strict = spec(json!({"kind": "shopify", "secret": "clientSecret"}));
    assert_eq!(strict.check(&request(&[], ""), &[], NOW), Verdict::Refused(Refusal::NoSecret));
    let optional = spec(json!({"kind": "shopify", "secret": "clientSecret", "optional": true}));
    assert_eq!(optional.check(&request(&[], ""), &[], NOW), Verdict::Verified);
    assert_eq!(check(&optional, &request(&[], ""), "set", NOW), Verdict::Refused(Refusal::Missing));
    assert_eq!(spec(json!({"kind": "none"})).check(&request(&[], ""), &[], NOW), Verdict::Verified);
    assert_eq!(spec(json!({"kind": "script"})).check(&request(&[], ""), &[], NOW), Verdict::Unsigned);
}

#[test]
fn secrets_are_found_by_name_one_or_several() {
    let spec = spec(json!({"kind": "shopify", "secret": "clientSecret"}));
    let own = json!({"clientSecret": ""}).as_object().cloned().unwrap();
    let integration = json!({"clientSecret": ["new", "old"]}).as_object().cloned().unwrap();
    let secrets = spec.secrets(&[&own, &integration]);
    assert_eq!(secrets.iter().map(Secret::expose).collect::<Vec<_>>(), ["new", "old"]);
    assert!(spec.secrets(&[]).is_empty());
}

#[test]
fn specs_that_cannot_work_are_told() {
    let fault = |text| spec(text).fault().map(|(field, _)| field);
    assert_eq!(fault(json!({"kind": "shopify"})), Some("secret"));
    assert_eq!(fault(json!({"kind": "none", "secret": "s"})), Some("secret"));
    assert_eq!(fault(json!({"kind": "hmac-sha256", "secret": "s"})), Some("header"));
    assert_eq!(fault(json!({"kind": "token", "secret": "s"})), Some("header"));
    assert_eq!(fault(json!({"kind": "shopify", "secret": "s", "query": "q"})), Some("query"));
    assert_eq!(fault(json!({"kind": "token", "secret": "s", "query": "q"})), None);
}

const RSA_SIGNATURE: &str = "PnUPMZsfmvN9yhi8KG/7ysp1oHzgOre9qcxtWmMCYPch6QOfVQ50j3Z/pcnZA35nHuxxnycpcDGKR0MX/3OdOrbFgaqPFR8nYEDv\
    6qDp2JP7IuYeHoSE5ONZxBA37ynzzbNtNaSrNwjfH0RtcmL3FU6TC9+GwmMbdfIrt4ijNCRv7iGN0eK8EBhAZ8uXjvpALhZViIHW\
    GpHTYNzQ06wk5V3Ixy1e9iQElxmwhuhgxldqwKE6S6Y56Uvg77fGLpxr39dLJ8fvnsWnu1K49y5ufXruu/QHXec0qhL8rD9LRqQA\
    Ciy659YbwJ9Py1OoV2797vxe04VupJbIcYkA0fYtxA==";
const RSA_SPKI: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAqGWXzR5GCIYL5iMi8yoQ
D/EDM62X0ZckIzwT4pvWyLEO4o1Gq4BRf3qrYYGd5RM+iR0uwVCOg+QMM+qyp4ym
0NlEVg3JmdQHE4NM0B3MeSoX0F8p5jA87A5zCQf4oIuoKLJIhOf8pjoaVl9cbDIK
SNzx2xwQybkHJvwAWZMilayRvOasMi30KpSQDG/spRMU8v2GsF1emz3GMgfcEaKK
DyZtvBWwsD0b6W2tGopWp23nOg/+y2LZqZglnDBe5QOpCvslq+fyOEouPG8mUm/b
IGivp2S003+PtN8JhIJBA/z8b3gST7uaRRhJebgSWzhgFYL5aE7lJyt+Zq4K5szy
KwIDAQAB
-----END PUBLIC KEY-----";
const RSA_PKCS1: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAqGWXzR5GCIYL5iMi8yoQD/EDM62X0ZckIzwT4pvWyLEO4o1Gq4BR
f3qrYYGd5RM+iR0uwVCOg+QMM+qyp4ym0NlEVg3JmdQHE4NM0B3MeSoX0F8p5jA8
7A5zCQf4oIuoKLJIhOf8pjoaVl9cbDIKSNzx2xwQybkHJvwAWZMilayRvOasMi30
KpSQDG/spRMU8v2GsF1emz3GMgfcEaKKDyZtvBWwsD0b6W2tGopWp23nOg/+y2LZ
qZglnDBe5QOpCvslq+fyOEouPG8mUm/bIGivp2S003+PtN8JhIJBA/z8b3gST7ua
RRhJebgSWzhgFYL5aE7lJyt+Zq4K5szyKwIDAQAB
-----END RSA PUBLIC KEY-----";
