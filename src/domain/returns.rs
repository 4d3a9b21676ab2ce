//! Where a browser may go after an account was connected: an integration's list of addresses.
//!
//! Always true: only scheme, host, port and path decide, and all of them must be equal; plain http is for this machine
//! alone. Not here: what is told there (`api::connect`).

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::id::{IntegrationId, WorkspaceNo};

/// Addresses of one integration.
pub const RETURN_URLS_MAX: usize = 20;
/// Bytes of one address.
pub const RETURN_URL_BYTES_MAX: usize = 2_000;

/// The list of one integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnUrls {
    pub integration: IntegrationId,
    pub workspace: WorkspaceNo,
    pub urls: Vec<String>,
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// An address as it may stand in the list. The error is one sentence without a subject.
pub fn listed(text: &str) -> Result<String, String> {
    if text.len() > RETURN_URL_BYTES_MAX {
        return Err(format!("may have at most {RETURN_URL_BYTES_MAX} bytes"));
    }
    let url = Url::parse(text).map_err(|e| format!("is not a URL: {e}"))?;
    if url.scheme() != "https" && !(url.scheme() == "http" && is_here(&url)) {
        return Err("must be on https (http is for localhost alone)".to_owned());
    }
    let bare = url.username().is_empty() && url.password().is_none();
    match bare && url.query().is_none() && url.fragment().is_none() {
        true => Ok(url.into()),
        false => Err("must have no user, no query and no fragment; a link may add a query of its own".to_owned()),
    }
}

impl ReturnUrls {
    /// Whether a browser may go there. A query is the link's own.
    pub fn allows(&self, asked: &Url) -> bool {
        let mut bare = asked.clone();
        bare.set_query(None);
        asked.fragment().is_none() && self.urls.iter().any(|url| *url == bare.as_str())
    }
    /// Whether a page of that origin may be told.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.urls.iter().filter_map(|url| Url::parse(url).ok()).any(|url| url.origin().ascii_serialization() == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(urls: &[&str]) -> ReturnUrls {
        let urls = urls.iter().map(|url| listed(url).expect("good")).collect();
        ReturnUrls { integration: IntegrationId([1; 12]), workspace: WorkspaceNo(0), urls }
    }

    #[test]
    fn only_what_is_listed_is_allowed_and_a_query_is_free() {
        let list = list(&["https://app.example/done", "http://localhost:3000/back"]);
        let allows = |text: &str| list.allows(&Url::parse(text).expect("a URL"));
        assert!(allows("https://app.example/done") && allows("https://app.example/done?x=1"));
        assert!(allows("http://localhost:3000/back"));
        for other in [
            "https://app.example/done/",
            "https://app.example/done/../else",
            "https://app.example.evil.example/done",
            "https://app.example:444/done",
            "http://app.example/done",
            "https://user@app.example/done",
            "https://app.example/done#x",
            "javascript:alert(1)",
        ] {
            assert!(!allows(other), "{other}");
        }
        assert!(list.allows_origin("https://app.example") && list.allows_origin("http://localhost:3000"));
        assert!(!list.allows_origin("null") && !list.allows_origin("https://evil.example"));
    }

    #[test]
    fn what_cannot_be_listed_says_why() {
        let bad = [
            "http://app.example/",
            "javascript:x",
            "https://a.example/?q",
            "https://u:p@a.example/",
            "/done",
            "https://a/#f",
        ];
        for bad in bad {
            assert!(listed(bad).is_err(), "{bad}");
        }
    }
}
