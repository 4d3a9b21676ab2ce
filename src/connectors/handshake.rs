//! Named handshakes: how an app asks whether a webhook's URL is ours, answered without a script.
//!
//! Always true: nothing but what the request itself holds is sent back, as plain text and at most 4 KiB of it, and only
//! for a request that says it is a handshake; nothing is stored. Not here: handshakes that need more (they go to
//! `handle`), and signatures (`connectors::verify`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{WebhookRequest, WebhookResponse};

/// The longest challenge that is sent back.
const CHALLENGE_BYTES_MAX: usize = 4096;

/// The `handshake` section of a webhook's spec: where the challenge stands that the app wants back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// A query parameter of a request without a body, such as `hub.challenge` or `validationToken`.
    pub query: Option<String>,
    /// A member of a JSON body, such as `challenge`.
    pub body: Option<String>,
    /// A header that is sent back as a header, such as `X-Hook-Secret`.
    pub header: Option<String>,
    /// Query parameters, or members of the body, that must have these values: `{type: url_verification}`.
    #[serde(default)]
    pub when: BTreeMap<String, String>,
}

impl Handshake {
    /// What the spec lacks or has too much: field and sentence. For the connector's loader.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        match [&self.query, &self.body, &self.header].into_iter().flatten().count() {
            1 if self.body.is_some() && self.when.is_empty() => {
                Some(("when", "say what tells a challenge in the body from an event"))
            }
            1 => None,
            _ => Some(("query", "name one of query, body and header")),
        }
    }

    /// The answer, if the request is a handshake.
    pub fn answer(&self, request: &WebhookRequest) -> Option<WebhookResponse> {
        if let Some(name) = &self.header {
            let lower = name.to_ascii_lowercase();
            let (_, value) = request.headers.iter().find(|(name, _)| *name == lower)?;
            let headers = vec![(lower, short(value)?.to_owned())];
            return Some(WebhookResponse { status: 200, headers, body: Bytes::new() });
        }
        let body = match &self.body {
            Some(_) => serde_json::from_slice::<Value>(&request.body).ok()?,
            None if request.body.is_empty() => Value::Null,
            None => return None,
        };
        let found = |name: &str| match &self.body {
            Some(_) => body.get(name).and_then(Value::as_str),
            None => request.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()),
        };
        if self.when.iter().any(|(name, value)| found(name) != Some(value)) {
            return None;
        }
        let challenge = short(found(self.body.as_deref().or(self.query.as_deref())?)?)?;
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        // Plain text, so that a challenge with markup in it is not run by a browser.
        let headers =
            vec![header("content-type", "text/plain; charset=utf-8"), header("x-content-type-options", "nosniff")];
        Some(WebhookResponse { status: 200, headers, body: Bytes::from(challenge.to_owned()) })
    }
}

fn short(text: &str) -> Option<&str> {
    (text.len() <= CHALLENGE_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::time::Millis;

    fn request(query: &[(&str, &str)], headers: &[(&str, &str)], body: &str) -> WebhookRequest {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        WebhookRequest {
            method: "POST".to_owned(),
            url: "https://hooks.example/in/c/t".to_owned(),
            query: owned(query),
            headers: owned(headers),
            body: Bytes::from(body.to_owned()),
            received_at: Millis(0),
        }
    }

    fn handshake(spec: Value) -> Handshake {
        serde_json::from_value(spec).unwrap()
    }

    fn said(spec: Value, request: &WebhookRequest) -> Option<String> {
        let answer = handshake(spec).answer(request)?;
        Some(String::from_utf8(answer.body.to_vec()).unwrap())
    }

    #[test]
    fn a_challenge_in_the_query_is_sent_back_as_text() {
        // developers.facebook.com, "Webhooks: Getting Started"; learn.microsoft.com, Graph "Receive change notifications".
        let spec = json!({"query": "hub.challenge", "when": {"hub.mode": "subscribe"}});
        let asked = request(&[("hub.mode", "subscribe"), ("hub.challenge", "1158201444")], &[], "");
        assert_eq!(said(spec.clone(), &asked).as_deref(), Some("1158201444"));
        let answer = handshake(spec.clone()).answer(&asked).unwrap();
        assert!(answer.headers.contains(&("x-content-type-options".to_owned(), "nosniff".to_owned())));
        assert_eq!(said(spec.clone(), &request(&[("hub.challenge", "1")], &[], "")), None);
        assert_eq!(said(spec, &request(&[("hub.mode", "subscribe"), ("hub.challenge", "1")], &[], "{}")), None);
        let long = "x".repeat(5000);
        assert_eq!(said(json!({"query": "validationToken"}), &request(&[("validationToken", &long)], &[], "")), None);
    }

    #[test]
    fn a_challenge_in_the_body_is_told_from_an_event() {
        // api.slack.com, "url_verification event".
        let spec = json!({"body": "challenge", "when": {"type": "url_verification"}});
        let asked = request(&[], &[], r#"{"token":"t","challenge":"3eZbrw1a","type":"url_verification"}"#);
        assert_eq!(said(spec.clone(), &asked).as_deref(), Some("3eZbrw1a"));
        let event = request(&[], &[], r#"{"challenge":"chess","type":"event_callback"}"#);
        assert_eq!(said(spec.clone(), &event), None);
        assert_eq!(said(spec, &request(&[], &[], "not json")), None);
    }

    #[test]
    fn a_secret_in_a_header_is_sent_back_as_a_header() {
        // developers.asana.com, "Webhooks: the handshake".
        let spec = handshake(json!({"header": "X-Hook-Secret"}));
        let answer = spec.answer(&request(&[], &[("x-hook-secret", "b537207f")], "{}")).unwrap();
        assert_eq!(answer.headers, [("x-hook-secret".to_owned(), "b537207f".to_owned())]);
        assert_eq!(spec.answer(&request(&[], &[], "{}")), None);
    }

    #[test]
    fn specs_that_cannot_work_are_told() {
        let fault = |spec| handshake(spec).fault().map(|(field, _)| field);
        assert_eq!(fault(json!({})), Some("query"));
        assert_eq!(fault(json!({"query": "a", "header": "b"})), Some("query"));
        assert_eq!(fault(json!({"body": "challenge"})), Some("when"));
        assert_eq!(fault(json!({"query": "challenge"})), None);
    }
}
