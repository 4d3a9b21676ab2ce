//! Which addresses may be called: pure judgement of IP addresses and URLs.
//!
//! Always true: an address that is private, local, reserved or documentation is refused unless an allowed network holds
//! it; an IPv6 address that stands for an IPv4 one, or is reached in a tunnel to one, is judged by that; an allowed network
//! allows no address that only leads into it; one refused answer refuses a whole name. Not here: asking the DNS and pinning
//! what was judged (`outbound`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The address is private, local or reserved, and in no allowed network.
    #[error("the address is private, local or reserved, and the node does not allow it")]
    Address,
    /// Plain http, to an address in no allowed network.
    #[error("the address must use https")]
    Http,
    /// Neither http nor https.
    #[error("the address must be an http or https URL with a host")]
    Scheme,
    /// A user name or password inside the URL.
    #[error("the address must not carry a user name or password; send them in a header instead")]
    UserInfo,
}

/// Who may be called. One is made for deliveries and one for third-party apps.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    allow: Vec<IpNet>,
    allow_http: bool,
}

/// The special networks of IPv4, after the IANA IPv4 Special-Purpose Address Registry, and those of RFC 5771 and 1112.
const REFUSED_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared by carriers
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's own services inside each machine, though the address is public
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, and the clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, and broadcast
];

/// Global unicast addresses (RFC 4291, section 2.4). What lies beside them is reserved, local or multicast, or stands for
/// an IPv4 address ([`translated`]); some networks use it inside.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// The special networks among them, after the IANA IPv6 Special-Purpose Address Registry. Those that carry an IPv4
/// address are in [`tunnelled`].
const REFUSED_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

impl Policy {
    /// Allows public addresses over https, the `allow`ed networks over both schemes, and with `allow_http` public
    /// addresses over plain http too.
    pub fn new(allow: Vec<IpNet>, allow_http: bool) -> Self {
        Self { allow, allow_http }
    }

    /// Judges one address, whatever the scheme.
    pub fn judge_ip(&self, ip: IpAddr) -> Result<(), Forbidden> {
        if self.lists(ip) || is_public(ip) { Ok(()) } else { Err(Forbidden::Address) }
    }

    /// Judges one address together with the scheme it is called by.
    pub fn judge(&self, https: bool, ip: IpAddr) -> Result<(), Forbidden> {
        self.judge_ip(ip)?;
        if https || self.allow_http || self.lists(ip) { Ok(()) } else { Err(Forbidden::Http) }
    }

    /// Judges all addresses of a name: any refused one refuses the name, so that the order of answers does not matter.
    pub fn judge_all(&self, https: bool, ips: &[IpAddr]) -> Result<(), Forbidden> {
        // Address before scheme: a name inside must look the same over both schemes.
        ips.iter().try_for_each(|ip| self.judge_ip(*ip))?;
        ips.iter().try_for_each(|ip| self.judge(https, *ip))
    }

    /// Judges what can be judged without the DNS: scheme, user info, a literal address. `url` has normalised spellings
    /// such as `0x7f.1`. A name passes here over http too, since only its addresses tell; [`Policy::judge_all`] follows.
    pub fn judge_url(&self, url: &Url) -> Result<(), Forbidden> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(Forbidden::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Forbidden::UserInfo);
        }
        match url.host() {
            Some(Host::Ipv4(ip)) => self.judge(https, ip.into()),
            Some(Host::Ipv6(ip)) => self.judge(https, ip.into()),
            Some(Host::Domain(name)) if is_localhost(name) => match self.localhost().first() {
                Some(ip) => self.judge(https, *ip),
                None => Err(Forbidden::Address),
            },
            // With no network allowed, no name can earn plain http.
            Some(Host::Domain(_)) if !https && !self.allow_http && self.allow.is_empty() => Err(Forbidden::Http),
            Some(Host::Domain(_)) => Ok(()),
            None => Err(Forbidden::Scheme),
        }
    }

    /// What `localhost` means here: those loopback addresses that are allowed. The other one is no forbidden answer, or
    /// nobody could use the name without allowing both.
    pub fn localhost(&self) -> Vec<IpAddr> {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        both.into_iter().filter(|ip| self.judge_ip(*ip).is_ok()).collect()
    }

    fn lists(&self, ip: IpAddr) -> bool {
        let inside = |ip: IpAddr| self.allow.iter().any(|net| net.contains(&ip));
        match ip {
            IpAddr::V4(_) => inside(ip),
            // Another spelling of the same address; one that only leads to it through a gateway is listed by itself.
            IpAddr::V6(v6) => inside(ip) || v6.to_ipv4_mapped().is_some_and(|v4| inside(v4.into())),
        }
    }
}

/// Whether a name means this machine, whatever a resolver says (RFC 6761, section 6.3).
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match translated(v6) {
            Some(v4) => is_public_v4(v4),
            None => is_global_v6(v6) && tunnelled(v6).is_none_or(is_public_v4),
        },
    }
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    let inside = |(net, bits): &(Ipv6Addr, u8)| same_prefix(net.to_bits(), ip.to_bits(), 128 - bits);
    inside(&GLOBAL_V6) && !REFUSED_V6.iter().any(inside)
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let bits_of = |ip: Ipv4Addr| u128::from(ip.to_bits());
    !REFUSED_V4.iter().any(|(net, bits)| same_prefix(bits_of(*net), bits_of(ip), 32 - bits))
}

fn same_prefix(a: u128, b: u128, host_bits: u8) -> bool {
    (a ^ b) >> host_bits == 0
}

/// The IPv4 address that an IPv6 one stands for: mapped and compatible (RFC 4291), translated (RFC 2765), NAT64
/// (RFC 6052).
fn translated(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => {
            Some(joined(a, b))
        }
        _ => None,
    }
}

/// The IPv4 address to which packets for an IPv6 one are sent in a tunnel: 6to4 (RFC 3056), ISATAP (RFC 5214).
fn tunnelled(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        [0x2002, a, b, ..] | [_, _, _, _, 0 | 0x200, 0x5efe, a, b] => Some(joined(a, b)),
        _ => None,
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }
    fn policy(nets: &[&str], allow_http: bool) -> Policy {
        Policy::new(nets.iter().map(|n| n.parse().expect(n)).collect(), allow_http)
    }
    fn judge(policy: &Policy, url: &str) -> Result<(), Forbidden> {
        policy.judge_url(&Url::parse(url).expect(url))
    }

    #[test]
    fn special_addresses_are_refused() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "64:ff9b:1:ffff::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "2002:7f00:1::",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "100:0:0:1::1",
            "200::1",
            "1fff:ffff::1",
            "4000::1",
            "8000::1",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:7f00:1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert_eq!(Policy::default().judge_ip(ip(text)), Err(Forbidden::Address), "{text}");
        }
    }

    #[test]
    fn public_addresses_next_to_the_special_ones_pass() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7::1",
            "2001:db9::1",
            "2002:808:808::1",
            "2606:4700::1111",
            "2606:4700::5efe:8.8.8.8",
            "3ffe::1",
            "2a00:1450::1",
        ] {
            assert_eq!(Policy::default().judge_ip(ip(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_allowed_network_allows_its_addresses_in_every_spelling_and_no_others() {
        let policy = policy(&["127.0.0.0/8", "10.1.0.0/16", "fd00::/8", "::1/128"], false);
        for text in ["127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3", "::ffff:127.0.0.1", "fd12::1", "::1", "8.8.8.8"] {
            assert_eq!(policy.judge_ip(ip(text)), Ok(()), "{text}");
        }
        let through = ["64:ff9b::10.1.2.3", "2002:a01:203::1", "2606:4700::5efe:10.1.2.3", "::10.1.2.3"];
        for text in ["10.2.0.1", "::ffff:10.2.0.1", "fc00::1", "169.254.169.254", "::"].into_iter().chain(through) {
            assert_eq!(policy.judge_ip(ip(text)), Err(Forbidden::Address), "{text}");
        }
    }

    #[test]
    fn literal_hosts_are_judged_in_every_spelling() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://127.0.0.1./",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[::ffff:a00:1]/",
            "https://①②⑦.0.0.1/",
            "https://%31%32%37.0.0.1/",
            "https://0/",
            "https://[64:ff9b::7f00:1]/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://app.localhost/",
            "http://0x7f.1/",
            "http://127.0.0.1:80/",
        ] {
            assert_eq!(judge(&Policy::default(), url), Err(Forbidden::Address), "{url}");
        }
        assert_eq!(judge(&Policy::default(), "https://8.8.8.8/"), Ok(()));
        assert_eq!(judge(&Policy::default(), "https://example.com/"), Ok(()));
    }

    #[test]
    fn plain_http_is_for_allowed_networks_or_an_operator_who_says_so() {
        let closed = Policy::default();
        assert_eq!(judge(&closed, "http://8.8.8.8/"), Err(Forbidden::Http));
        assert_eq!(judge(&closed, "http://example.com/"), Err(Forbidden::Http));
        let inside = policy(&["127.0.0.0/8"], false);
        assert_eq!(judge(&inside, "http://127.0.0.1:8080/"), Ok(()));
        assert_eq!(judge(&inside, "http://localhost:8080/"), Ok(()));
        assert_eq!(judge(&inside, "http://8.8.8.8/"), Err(Forbidden::Http));
        assert_eq!(judge(&inside, "http://inside.example/"), Ok(()), "only its addresses can tell");
        assert_eq!(inside.judge_all(false, &[ip("127.0.0.1")]), Ok(()));
        assert_eq!(inside.judge_all(false, &[ip("127.0.0.1"), ip("8.8.8.8")]), Err(Forbidden::Http));
        let open = policy(&[], true);
        assert_eq!(judge(&open, "http://example.com/"), Ok(()));
        assert_eq!(judge(&open, "http://10.0.0.1/"), Err(Forbidden::Address), "the networks stay judged");
    }

    #[test]
    fn localhost_is_whichever_loopback_address_is_allowed() {
        assert_eq!(policy(&["127.0.0.0/8"], false).localhost(), [ip("127.0.0.1")]);
        assert_eq!(policy(&["::1/128"], false).localhost(), [ip("::1")]);
        assert_eq!(policy(&["10.0.0.0/8"], true).localhost(), [] as [IpAddr; 0]);
    }

    #[test]
    fn any_refused_answer_refuses_the_name() {
        let policy = Policy::default();
        assert_eq!(policy.judge_all(true, &[ip("8.8.8.8"), ip("10.0.0.1")]), Err(Forbidden::Address));
        assert_eq!(policy.judge_all(true, &[ip("10.0.0.1"), ip("8.8.8.8")]), Err(Forbidden::Address));
        assert_eq!(policy.judge_all(false, &[ip("8.8.8.8"), ip("10.0.0.1")]), Err(Forbidden::Address));
        assert_eq!(policy.judge_all(true, &[ip("8.8.8.8"), ip("2606:4700::1111")]), Ok(()));
    }

    #[test]
    fn tricks_with_scheme_and_user_info_are_refused() {
        let policy = Policy::default();
        assert_eq!(judge(&policy, "ftp://example.com/"), Err(Forbidden::Scheme));
        assert_eq!(judge(&policy, "file:///etc/passwd"), Err(Forbidden::Scheme));
        assert_eq!(judge(&policy, "data:text/plain,x"), Err(Forbidden::Scheme));
        assert_eq!(judge(&policy, "https://example.com@10.0.0.1/"), Err(Forbidden::UserInfo));
        assert_eq!(judge(&policy, "https://user:pass@example.com/"), Err(Forbidden::UserInfo));
        assert_eq!(judge(&policy, "https://:pass@example.com/"), Err(Forbidden::UserInfo));
        assert_eq!(judge(&policy, "https:\\\\127.0.0.1/"), Err(Forbidden::Address), "read as the browser reads it");
    }
}
