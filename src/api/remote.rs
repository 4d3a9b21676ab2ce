//! Who called, as far as it can be believed.
//!
//! Always true: what a caller writes into a header is believed only where a trusted proxy passed it on: the chain is read
//! from our end, and the first address that is no trusted proxy is the caller. Not here: what a caller may do (`auth`); the
//! URL that apps sign is `server.public_url`, never a header.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Proxies between a caller and us; a longer chain is not read further.
const HOPS_MAX: usize = 32;

/// The caller's address: the peer's, or what trusted proxies say of it.
pub(super) fn caller(peer: Option<SocketAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut from = plain(peer?.ip());
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    if !is_trusted(&from) {
        return Some(from);
    }
    let mut hops = hops(headers).into_iter().rev().take(HOPS_MAX);
    while is_trusted(&from) {
        // What is no address (`unknown`, a name that hides it) ends what is known.
        let Some(Some(before)) = hops.next() else { break };
        from = before;
    }
    Some(from)
}

/// The addresses of the chain, the one nearest to us last. `Forwarded` (RFC 7239) goes before its older form.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = |name: HeaderName| {
        let all = headers.get_all(name).filter_map(|value| value.to_str().ok()).map(str::to_owned);
        all.collect::<Vec<_>>().join(",")
    };
    let forwarded = values(FORWARDED);
    if !forwarded.is_empty() {
        return forwarded.split(',').map(|hop| address(for_of(hop)?)).collect();
    }
    let older = values(X_FORWARDED_FOR);
    older.split(',').map(str::trim).filter(|hop| !hop.is_empty()).map(address).collect()
}

/// The `for` of one hop of `Forwarded`.
fn for_of(hop: &str) -> Option<&str> {
    let named = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = hop.split(';').find(named)?.split_once('=')?;
    Some(value.trim().trim_matches('"'))
}

/// An address with or without a port; one of version 6 may stand in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(plain(ip))
}

/// A version 4 address that came through a version 6 socket is the version 4 address.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn called(peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|n| n.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        caller(Some(peer), &map, &trusted).unwrap().to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(called("198.51.100.7", &[("x-forwarded-for", "203.0.113.1")]), "198.51.100.7");
        assert_eq!(called("198.51.100.7", &[("forwarded", "for=203.0.113.1")]), "198.51.100.7");
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_what_the_caller_wrote_before_it_is_not() {
        assert_eq!(called("10.0.0.1", &[("x-forwarded-for", "203.0.113.1")]), "203.0.113.1");
        assert_eq!(called("::ffff:10.0.0.1", &[("x-forwarded-for", "203.0.113.1")]), "203.0.113.1");
        assert_eq!(called("10.0.0.1", &[("x-forwarded-for", "1.2.3.4, 203.0.113.1, 10.2.2.2")]), "203.0.113.1");
        let twice = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "203.0.113.1")];
        assert_eq!(called("10.0.0.1", &twice), "203.0.113.1");
        assert_eq!(called("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(called("10.0.0.1", &[("x-forwarded-for", "10.9.9.9")]), "10.9.9.9");
    }

    #[test]
    fn both_forms_of_the_header_are_read() {
        let forwarded = r#"for=1.2.3.4, For="[2001:db8::17]:4711";proto=https;by=10.0.0.1"#;
        assert_eq!(called("fd00::1", &[("forwarded", forwarded), ("x-forwarded-for", "9.9.9.9")]), "2001:db8::17");
        assert_eq!(called("10.0.0.1", &[("forwarded", "for=203.0.113.1:8080")]), "203.0.113.1");
        assert_eq!(called("10.0.0.1", &[("forwarded", "for=unknown, for=10.0.0.2")]), "10.0.0.2");
        assert_eq!(called("10.0.0.1", &[("forwarded", "for=_hidden")]), "10.0.0.1");
    }
}
