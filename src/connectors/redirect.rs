//! The signature of the query with which an app sends a person back, where the app signs it.
//!
//! Always true: a query without the signature, with a wrong one, or with a name twice is refused, in constant time. The
//! signature covers all of the query but itself, sorted by name: as decoded pairs with `%`, `&` and (in names) `=` escaped,
//! as Shopify/shopify_python_api `Session.calculate_hmac` writes it, or form-encoded, as Shopify/shopify-api-ruby
//! `HmacValidator` does; for the values that apps send both are the same text. Not here: the state that binds a redirect
//! to a browser (`api::connect`).

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use serde::Deserialize;
use url::form_urlencoded;

use super::CallError;
use super::mapping::Env;
use super::template::Template;

/// `redirectSignature` of `auth.oauth2`: the hex HMAC-SHA256 of the query.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureFile {
    /// The query parameter that holds it.
    pub parameter: String,
    /// `{{parameters.clientSecret}}` where it is not said.
    pub secret: Option<Template>,
}

impl SignatureFile {
    /// Refuses a query that the app has not signed.
    pub fn check(&self, query: &[(String, String)], env: &Env<'_>) -> Result<(), CallError> {
        let refused = |why: &str| CallError::BadAnswer(format!("the redirect of the app {why}"));
        let usual = Template::parse("{{parameters.clientSecret}}").ok();
        let secret = self.secret.clone().or(usual).and_then(|secret| secret.render(env));
        let secret = secret.filter(|secret| !secret.is_empty());
        let secret = secret.ok_or_else(|| super::refresh::missing("auth.oauth2.redirectSignature.secret"))?;
        let mut pairs = BTreeMap::new();
        for (name, value) in query {
            if pairs.insert(name.as_str(), value.as_str()).is_some() {
                return Err(refused("holds a parameter twice"));
            }
        }
        let given = pairs.remove(self.parameter.as_str()).and_then(|text| hex::decode(text).ok());
        let given = given.ok_or_else(|| refused("is not signed"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let fits = |text: String| hmac::verify(&key, text.as_bytes(), &given).is_ok();
        match fits(plain(&pairs)) || fits(encoded(&pairs)) {
            true => Ok(()),
            false => Err(refused("has a wrong signature")),
        }
    }
}

fn plain(pairs: &BTreeMap<&str, &str>) -> String {
    let pair = |(name, value): (&&str, &&str)| {
        let name = name.replace('%', "%25").replace('=', "%3D");
        format!("{name}={}", value.replace('%', "%25")).replace('&', "%26")
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

fn encoded(pairs: &BTreeMap<&str, &str>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(text: &str) -> Vec<(String, String)> {
        form_urlencoded::parse(text.as_bytes()).into_owned().collect()
    }

    fn said(text: &str) -> Result<(), CallError> {
        let parameters = json!({"clientSecret": "hush"});
        let variables = [("parameters", &parameters)];
        let file = SignatureFile { parameter: "hmac".to_owned(), secret: None };
        file.check(&query(text), &Env::of(&variables))
    }

    /// As `Session.calculate_hmac` of ShopifyAPI 12.7.0 (PyPI) signs it.
    const VECTOR: &str = "shop=some-shop.myshopify.com&code=a94a110d86d2452e92a4a64275b128e9&timestamp=1337178173&hmac=\
                          0dfccd0081f892cdbce31cb509278b8e5536b6cd93b0b29d4bc4257bf17e8e04";

    #[test]
    fn the_vector_of_the_apps_own_library_is_accepted_in_any_order_and_nothing_beside_it() {
        assert_eq!(said(VECTOR), Ok(()));
        let (rest, hmac) = VECTOR.split_once("&hmac=").unwrap();
        assert_eq!(said(&format!("hmac={hmac}&{rest}")), Ok(()));
        let said = |text: String| said(&text).unwrap_err().to_string();
        assert!(said(rest.to_owned()).ends_with("is not signed"));
        assert!(said(format!("{rest}&hmac=zz")).ends_with("is not signed"));
        assert!(said(VECTOR.replace("some-shop", "evil-shop")).ends_with("has a wrong signature"));
        assert!(said(format!("{VECTOR}&more=1")).ends_with("has a wrong signature"));
        assert!(said(format!("{VECTOR}&shop=some-shop.myshopify.com")).ends_with("holds a parameter twice"));
    }
}
