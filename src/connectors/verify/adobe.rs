//! What a request of Adobe I/O Events claims of itself, before any key is known: who it is for, and who signed it.
//!
//! Always true: a claim is for a client of ours, and its keys are plain paths on the one host that keys come from;
//! whatever else a request says is refused here, before anybody is asked for a key. Not here: the keys (`fetched`).
//!
//! Source: AdobeDocs/adobe-io-events, guides, "Security considerations", and the verifier in adobe/aio-lib-java. The
//! recipient counts only where it is signed, in the body: a header could be laid beside an event that was meant for
//! somebody else.

use serde_json::Value;

use super::{Refusal, WebhookRequest, base64, header};
use crate::domain::secret::Secret;

/// Where Adobe keeps its public keys.
pub const KEYS_AT: &str = "https://static.adobeioevents.com";
/// Signature and path of its key. The app sends two pairs, so that it can change one key at a time.
const PAIRS: [(&str, &str); 2] = [
    ("x-adobe-digital-signature-1", "x-adobe-public-key1-path"),
    ("x-adobe-digital-signature-2", "x-adobe-public-key2-path"),
];
/// `recipientclientid` is CloudEvents' spelling, the other one that of older events.
const RECIPIENT: [&str; 2] = ["recipientclientid", "recipient_client_id"];
const PATH_BYTES_MAX: usize = 200;

/// A signature, and the path of the key that is said to have made it.
pub struct Claim<'r> {
    pub path: &'r str,
    /// None: it cannot be read, so it is wrong whatever the key is.
    pub signature: Option<Vec<u8>>,
}

/// The two claims of a request to one of these clients.
///
/// # Errors
/// A header is missing, a key is elsewhere, or the event is for somebody else.
pub fn claims<'r>(request: &'r WebhookRequest, clients: &[Secret]) -> Result<[Claim<'r>; 2], Refusal> {
    let claim = |(signature, path): (&str, &str)| {
        let signature = header(request, signature).ok_or(Refusal::Missing)?;
        let path = header(request, path).ok_or(Refusal::Missing)?;
        if !is_plain(path) {
            return Err(Refusal::KeyElsewhere);
        }
        Ok(Claim { path, signature: base64(signature).ok() })
    };
    let [first, second] = PAIRS;
    let claims = [claim(first)?, claim(second)?];
    if is_for(&request.body, clients) { Ok(claims) } else { Err(Refusal::Foreign) }
}

/// Whether a path stays on its host whatever a parser makes of it: letters, digits and `-_.` between single slashes.
fn is_plain(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits);
    path.len() <= PATH_BYTES_MAX && rest.split('/').all(is_name)
}

/// Whether each event of the body is for one of these clients.
fn is_for(body: &[u8], clients: &[Secret]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let ours = |event: &Value| {
        let named = RECIPIENT.iter().filter_map(|name| event.get(name)).collect::<Vec<_>>();
        let ours = |value: &&Value| value.as_str().is_some_and(|id| clients.iter().any(|client| client.expose() == id));
        !named.is_empty() && named.iter().all(ours)
    };
    match &body {
        Value::Array(events) => !events.is_empty() && events.iter().all(ours),
        event => ours(event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_path_names_a_key() {
        for path in ["/prod/keys/pub-key-4f_2.pem", "/a", "/a/b.c/d"] {
            assert!(is_plain(path), "{path}");
        }
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for path in [
            "",
            "/",
            "prod/keys/a.pem",
            "//evil.example/a.pem",
            "/prod//a.pem",
            "/../a.pem",
            "/prod/../a.pem",
            "/prod/./a.pem",
            "/prod/%2e%2e/a.pem",
            "/a.pem?x=1",
            "/a.pem#x",
            "/a\\b.pem",
            "/@evil.example/a",
            "/a b",
            "/ä.pem",
            "https://evil.example/a.pem",
            "/a.pem/",
            &long,
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn each_event_must_be_for_us() {
        let clients = [Secret::new("ours"), Secret::new("also-ours")];
        let is_ours = |body: &str| is_for(body.as_bytes(), &clients);
        assert!(is_ours(r#"{"recipientclientid":"ours"}"#));
        assert!(is_ours(r#"{"recipient_client_id":"also-ours","recipientclientid":"ours"}"#));
        assert!(is_ours(r#"[{"recipientclientid":"ours"},{"recipient_client_id":"ours"}]"#));
        for body in [
            r#"{"recipientclientid":"theirs"}"#,
            r#"{"recipientclientid":"ours","recipient_client_id":"theirs"}"#,
            r#"[{"recipientclientid":"ours"},{"recipientclientid":"theirs"}]"#,
            r#"[{"recipientclientid":"ours"},{}]"#,
            r#"{"recipientclientid":["ours"]}"#,
            "[]",
            "{}",
            "7",
            "",
            "not json",
        ] {
            assert!(!is_ours(body), "{body}");
        }
    }
}
