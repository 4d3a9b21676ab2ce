//! OAuth 1.0a with HMAC-SHA256: Adobe Commerce's integration tokens and NetSuite's token-based authentication.
//!
//! Always true: pure; each attempt is signed anew by its caller with a fresh nonce. Follows RFC 5849, section 3.4, with
//! `HMAC-SHA256` in place of `HMAC-SHA1`; the realm is not signed, query parameters are. Not here: form bodies (no
//! connector sends one to a signed address).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::template::encode;

/// The four parts of a key.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    pub consumer_key: &'a str,
    pub consumer_secret: &'a str,
    pub token: &'a str,
    pub token_secret: &'a str,
}

/// The value of the header `Authorization`.
pub fn authorization(
    method: &str,
    url: &Url,
    keys: &Keys<'_>,
    realm: Option<&str>,
    nonce: &str,
    timestamp_s: u64,
) -> String {
    let timestamp = timestamp_s.to_string();
    let mut fields = vec![
        ("oauth_consumer_key", keys.consumer_key),
        ("oauth_nonce", nonce),
        ("oauth_signature_method", "HMAC-SHA256"),
        ("oauth_timestamp", timestamp.as_str()),
        ("oauth_token", keys.token),
        ("oauth_version", "1.0"),
    ];
    let base = base_string(method, url, &fields);
    let key = format!("{}&{}", encode(keys.consumer_secret), encode(keys.token_secret));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), base.as_bytes());
    let signature = STANDARD.encode(tag);
    fields.push(("oauth_signature", &signature));
    let realm = realm.map(|realm| format!("realm=\"{realm}\", ")).unwrap_or_default();
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}=\"{}\"", encode(value))).collect();
    format!("OAuth {realm}{}", fields.join(", "))
}

/// RFC 5849, section 3.4.1.
fn base_string(method: &str, url: &Url, fields: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(String, String)> = fields.iter().map(|(n, v)| (encode(n), encode(v))).collect();
    pairs.extend(url.query_pairs().map(|(name, value)| (encode(&name), encode(&value))));
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = url.host_str().unwrap_or_default().to_lowercase();
    let address = format!("{}://{host}{port}{}", url.scheme(), url.path());
    format!("{method}&{}&{}", encode(&address), encode(&pairs.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_string_is_that_of_the_rfc() {
        // RFC 5849, section 3.4.1.1, without its form body.
        let url = Url::parse("http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b").unwrap();
        let fields = [
            ("oauth_consumer_key", "9djdj82h48djs9d2"),
            ("oauth_token", "kkk9d7dh3k39sjv7"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "137131201"),
            ("oauth_nonce", "7d8f3e4a"),
        ];
        assert_eq!(
            base_string("POST", &url, &fields),
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D\
             %26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1\
             %26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
        );
    }

    #[test]
    fn the_header_carries_the_realm_unsigned() {
        let url = Url::parse("https://123.suitetalk.api.netsuite.com/x?limit=1").unwrap();
        let keys = Keys { consumer_key: "a", consumer_secret: "b", token: "c", token_secret: "d" };
        let with = authorization("GET", &url, &keys, Some("123_SB1"), "n", 1);
        let without = authorization("GET", &url, &keys, None, "n", 1);
        assert!(with.starts_with("OAuth realm=\"123_SB1\", oauth_consumer_key=\"a\""), "{with}");
        assert_eq!(with.replace("realm=\"123_SB1\", ", ""), without);
        assert!(without.contains("oauth_signature_method=\"HMAC-SHA256\""));
    }
}
