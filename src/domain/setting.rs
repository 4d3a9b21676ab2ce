//! How a setting is read, for every component's `Options`.
//!
//! Always true: `""` in the configuration file means "not set", so that the file can hold every key. Not here: where
//! settings come from (`config`).

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};

/// Reads `""` as none and anything else as the type itself: `#[serde(deserialize_with = "setting::optional")]`.
///
/// # Errors
/// When the value is neither empty text nor of the type.
pub fn optional<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let value = toml::Value::deserialize(from)?;
    if value.as_str().is_some_and(str::is_empty) {
        return Ok(None);
    }
    value.try_into().map(Some).map_err(|e| D::Error::custom(e.message()))
}

/// Like [`optional`], for types that are read from text, such as `Url`.
///
/// # Errors
/// When the value is not text, or the type refuses the text.
pub fn optional_text<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
}

/// A kind of signature on a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signing {
    /// `x-alloy-signature`: RSASSA-PKCS1-v1_5 with SHA-256 and the workspace's key.
    Rsa,
    /// `v1,` of Standard Webhooks: HMAC-SHA256 with the subscription's secret.
    Hmac,
    /// `v1a,` of Standard Webhooks: Ed25519 with the workspace's key.
    Ed25519,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Options {
        #[serde(deserialize_with = "optional")]
        threads: Option<std::num::NonZeroUsize>,
    }

    #[test]
    fn empty_text_is_not_set() {
        let read = |text: &str| toml::from_str::<Options>(text).map(|o| o.threads.map(|n| n.get()));
        assert_eq!(read("threads = ''").ok(), Some(None));
        assert_eq!(read("threads = 3").ok(), Some(Some(3)));
        assert!(read("threads = 0").is_err_and(|e| e.message().contains("nonzero")));
        assert!(read("threads = 'three'").is_err());
    }
}
