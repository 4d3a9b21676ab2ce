//! Named handshakes: how an app asks whether a webhook's URL is ours, answered without a script.
//!
//! Always true: nothing but what the request itself holds is sent back, as plain text and at most 4 KiB of it, and only
//! for a request that says it is a handshake; an address that a handshake wants to be called is one of those that the
//! connector lists. Not here: calling it (`actors::watcher::confirm`), handshakes that need more (they go to `handle`),
//! and signatures (`connectors::verify`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::mapping::Env;
use super::template::Template;
use super::{WebhookRequest, WebhookResponse};

/// The longest challenge that is sent back.
const CHALLENGE_BYTES_MAX: usize = 4096;
/// The longest address that is called.
const ADDRESS_BYTES_MAX: usize = 2048;

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
    /// An address to be called, beside or instead of the challenge.
    pub confirm: Option<Confirm>,
}

/// A request whose body names an address that must be called soon, to say that the webhook's URL is ours.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The member of a JSON body that holds the address.
    pub body: String,
    /// Where it may be: scheme and host, `https://*.example.com` for each host below, or a hole with such an address.
    pub at: Vec<Template>,
}

impl Handshake {
    /// What the spec lacks or has too much: field and sentence. For the connector's loader.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.confirm.as_ref().is_some_and(|confirm| confirm.at.is_empty()) {
            return Some(("confirm.at", "list where the address may be"));
        }
        match [&self.query, &self.body, &self.header].into_iter().flatten().count() {
            0 if self.confirm.is_some() && self.when.is_empty() => None,
            1 if self.body.is_some() && self.when.is_empty() => {
                Some(("when", "say what tells a challenge in the body from an event"))
            }
            1 => None,
            _ => Some(("query", "name one of query, body and header")),
        }
    }

    /// The address that the request wants to be called, if it is one that may be.
    pub fn to_confirm(&self, request: &WebhookRequest, parameters: &Value) -> Option<Url> {
        let confirm = self.confirm.as_ref()?;
        let body: Value = serde_json::from_slice(&request.body).ok()?;
        let text = body.get(&confirm.body)?.as_str().filter(|text| text.len() <= ADDRESS_BYTES_MAX)?;
        let url = Url::parse(text).ok()?;
        let variables = [("parameters", parameters)];
        let env = Env::of(&variables);
        let fits = |at: &Template| at.render(&env).is_some_and(|at| is_at(&url, &at));
        (url.username().is_empty() && url.password().is_none() && confirm.at.iter().any(fits)).then_some(url)
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

/// Whether an address is at a place: `https://host`, or `https://*.host`.
fn is_at(url: &Url, place: &str) -> bool {
    match place.split_once("://*.") {
        Some((scheme, parent)) => {
            let below =
                |host: &str| host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
            url.scheme() == scheme && url.port().is_none() && url.host_str().is_some_and(below)
        }
        None => Url::parse(place).is_ok_and(|place| place.has_host() && place.origin() == url.origin()),
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
    fn an_address_is_called_only_where_the_connector_says() {
        // AdobeDocs/adobe-io-events, guides, "Asynchronous validation".
        let spec = json!({"query": "challenge", "confirm": {"body": "validationUrl",
            "at": ["https://*.adobe.io", "{{parameters.keysAt}}"]}});
        let (spec, parameters) = (handshake(spec), json!({"keysAt": "http://127.0.0.1:80"}));
        assert_eq!(spec.fault(), None);
        let asked = |address: &str| {
            let body = json!({"validationUrl": address}).to_string();
            spec.to_confirm(&request(&[], &[], &body), &parameters).map(String::from)
        };
        for good in ["https://csm.adobe.io/csm/registrations/validate?id=1&challenge=2", "http://127.0.0.1/x"] {
            assert_eq!(asked(good).as_deref(), Some(good));
        }
        let long = format!("https://csm.adobe.io/{}", "x".repeat(3000));
        for bad in [
            "http://csm.adobe.io/x",
            "https://adobe.io/x",
            "https://.adobe.io/x",
            "https://csm.adobe.io.evil.example/x",
            "https://eviladobe.io/x",
            "https://csm.adobe.io:8443/x",
            "https://u@csm.adobe.io/x",
            "https://u:p@csm.adobe.io/x",
            "https://169.254.169.254/latest",
            "http://127.0.0.1:81/x",
            "//csm.adobe.io/x",
            &long,
        ] {
            assert_eq!(asked(bad), None, "{bad}");
        }
        assert_eq!(spec.to_confirm(&request(&[], &[], r#"{"validationUrl":7}"#), &parameters), None);
        assert_eq!(spec.to_confirm(&request(&[], &[], ""), &parameters), None);
    }

    #[test]
    fn specs_that_cannot_work_are_told() {
        let fault = |spec| handshake(spec).fault().map(|(field, _)| field);
        assert_eq!(fault(json!({})), Some("query"));
        assert_eq!(fault(json!({"query": "a", "header": "b"})), Some("query"));
        assert_eq!(fault(json!({"body": "challenge"})), Some("when"));
        assert_eq!(fault(json!({"query": "challenge"})), None);
        assert_eq!(fault(json!({"query": "a", "confirm": {"body": "b", "at": []}})), Some("confirm.at"));
        assert_eq!(fault(json!({"confirm": {"body": "b", "at": ["https://a.example"]}})), None);
    }
}
