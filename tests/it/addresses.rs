//! The address policy against a table of several hundred spellings and resolutions (`tests/data/addresses.tsv`), and
//! against properties that hold for every address.
//!
//! The table's blocks are the oracle of the properties: what they say is written down from the registries, not computed by
//! the policy.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use tidemill::domain::address::{Forbidden, Policy};
use tidemill::outbound::{Client, DnsServer, Failure, Method, Options, Request};
use url::{Host, Url};

use crate::support::server::{Act, Server, answer, dns};

struct Row {
    line: usize,
    kind: &'static str,
    text: String,
    verdict: &'static str,
    why: &'static str,
}

fn table() -> Vec<Row> {
    let text = include_str!("../data/addresses.tsv");
    let rows = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    rows.map(|(number, line)| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [kind, text, verdict, why] = cells[..] else { panic!("line {}: four cells", number + 1) };
        let text = text.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\");
        Row { line: number + 1, kind, text, verdict, why }
    })
    .collect()
}

fn of_kind(kind: &str) -> Vec<Row> {
    let rows: Vec<Row> = table().into_iter().filter(|row| row.kind == kind).collect();
    assert!(rows.len() > 20, "the table has {} rows of kind {kind}", rows.len());
    rows
}

fn policy(networks: &[&str]) -> Policy {
    Policy::new(networks.iter().map(|network| network.parse().expect(network)).collect(), false)
}

/// What the policy says of a URL, in the table's words.
fn verdict(url: &str) -> &'static str {
    let Ok(url) = Url::parse(url) else { return "invalid" };
    match (Policy::default().judge_url(&url), url.host()) {
        (Err(Forbidden::Address), _) => "refused",
        (Err(Forbidden::Http), _) => "http",
        (Err(Forbidden::Scheme), _) => "scheme",
        (Err(Forbidden::UserInfo), _) => "user-info",
        (Ok(()), Some(Host::Domain(_))) => "name",
        (Ok(()), _) => "public",
    }
}

fn check(rows: &[Row], verdict: impl Fn(&str) -> &'static str) {
    let wrong: Vec<String> = rows
        .iter()
        .filter(|row| verdict(&row.text) != row.verdict)
        .map(|row| {
            format!("line {}: {:?} ({}): {}, not {}", row.line, row.text, row.why, verdict(&row.text), row.verdict)
        })
        .collect();
    assert!(wrong.is_empty(), "{} rows of {} do not hold:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn every_spelling_of_a_host_is_judged_as_the_table_says() {
    check(&of_kind("host"), |host| verdict(&format!("https://{host}/")));
}

#[test]
fn every_url_is_judged_as_the_table_says() {
    check(&of_kind("url"), verdict);
}

fn ips(text: &str) -> Vec<IpAddr> {
    text.split(',').map(|ip| ip.parse().expect(ip)).collect()
}

fn judged(outcome: Result<(), Forbidden>) -> &'static str {
    match outcome {
        Ok(()) => "public",
        Err(Forbidden::Address) => "refused",
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_answer_of_the_dns_is_judged_as_the_table_says_in_any_order() {
    let rows = of_kind("answers");
    check(&rows, |text| judged(Policy::default().judge_all(true, &ips(text))));
    check(&rows, |text| judged(Policy::default().judge_all(true, &ips(text).into_iter().rev().collect::<Vec<_>>())));
}

/// The blocks of the table: networks, and whether each is refused.
struct Blocks(Vec<(IpNet, bool)>);

/// Read once: the properties ask thousands of times.
static BLOCKS: LazyLock<Blocks> = LazyLock::new(Blocks::read);

impl Blocks {
    fn read() -> Self {
        let block = |row: Row| (row.text.parse().expect("a network"), row.verdict == "refused");
        Self(of_kind("block").into_iter().map(block).collect())
    }

    /// Whether an address is refused, by the longest block that holds it; what no block holds is ordinary unicast.
    fn refuse(&self, ip: IpAddr) -> bool {
        if let Some(v4) = stands_for(ip) {
            return self.refuse(v4.into());
        }
        let holding = self.0.iter().filter(|(network, _)| network.contains(&ip));
        let listed = holding.max_by_key(|(network, _)| network.prefix_len()).is_some_and(|(_, refused)| *refused);
        // Below 100::/8 only what stands for IPv4 is of use; the table names just the parts that have names.
        let low = matches!(ip, IpAddr::V6(v6) if v6.segments()[0] < 0x0200);
        let tunnel = tunnel(ip).is_some_and(|v4| self.refuse(v4.into()));
        listed || low || tunnel
    }

    fn refused_v4(&self) -> Vec<Ipv4Net> {
        let v4 = |(network, refused): &(IpNet, bool)| match network {
            IpNet::V4(network) if *refused => Some(*network),
            _ => None,
        };
        self.0.iter().filter_map(v4).collect()
    }
}

/// Prefixes of 96 bits after which an IPv4 address stands.
const V4_AFTER: [[u16; 6]; 4] =
    [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0xffff], [0, 0, 0, 0, 0xffff, 0], [0x64, 0xff9b, 0, 0, 0, 0]];

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

fn stands_for(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    let parts = v6.segments();
    let is_special = v6 == Ipv6Addr::UNSPECIFIED || v6 == Ipv6Addr::LOCALHOST;
    let after = V4_AFTER.iter().any(|prefix| parts[..6] == prefix[..]);
    (after && !is_special).then(|| joined(parts[6], parts[7]))
}

fn tunnel(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    let parts = v6.segments();
    match (parts[0], parts[4], parts[5]) {
        (0x2002, ..) => Some(joined(parts[1], parts[2])),
        (_, 0 | 0x200, 0x5efe) => Some(joined(parts[6], parts[7])),
        _ => None,
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(is_v4: bool, number: u128) -> IpAddr {
    if is_v4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

#[test]
fn every_block_of_the_registries_is_judged_at_its_edges_and_so_are_its_neighbours() {
    let blocks = &*BLOCKS;
    let mut judged = BTreeMap::new();
    for (network, refused) in &blocks.0 {
        let is_v4 = matches!(network, IpNet::V4(_));
        let last_of_all = if is_v4 { u128::from(u32::MAX) } else { u128::MAX };
        let (first, last) = (number(network.network()), number(network.broadcast()));
        let middle = first + (last - first) / 2;
        for inside in [first, middle, last] {
            let ip = address(is_v4, inside);
            let expected = blocks.refuse(ip);
            assert_eq!(expected, *refused, "{network}: the table contradicts itself at {ip}");
            judged.insert(ip, expected);
        }
        let before = first.checked_sub(1);
        let after = (last < last_of_all).then(|| last + 1);
        for outside in [before, after].into_iter().flatten() {
            let ip = address(is_v4, outside);
            judged.insert(ip, blocks.refuse(ip));
        }
    }
    assert!(judged.len() > 200 && judged.values().filter(|refused| !**refused).count() > 30, "{}", judged.len());
    for (ip, refused) in judged {
        assert_eq!(Policy::default().judge_ip(ip).is_err(), refused, "{ip}");
    }
}

/// How one number of a written IPv4 address looks.
#[derive(Clone, Copy, Debug)]
enum Base {
    Decimal,
    Octal(usize),
    Hex(usize, bool),
}

fn any_base() -> impl Strategy<Value = Base> {
    prop_oneof![
        Just(Base::Decimal),
        (0..4usize).prop_map(Base::Octal),
        (0..4usize, any::<bool>()).prop_map(|(zeros, upper)| Base::Hex(zeros, upper)),
    ]
}

fn written(number: u32, base: Base) -> String {
    match base {
        Base::Decimal => number.to_string(),
        Base::Octal(zeros) => format!("0{}{number:o}", "0".repeat(zeros)),
        Base::Hex(zeros, false) => format!("0x{}{number:x}", "0".repeat(zeros)),
        Base::Hex(zeros, true) => format!("0X{}{number:X}", "0".repeat(zeros)),
    }
}

/// One of the ways in which a character can stand in a host: plain, percent-encoded, or as a wider form of itself.
fn disguised(c: char, how: u8) -> String {
    let wide = match c {
        '.' => '\u{3002}',
        _ => char::from_u32(u32::from(c) - 0x20 + 0xff00).unwrap_or(c),
    };
    match how {
        0 => format!("%{:02x}", u32::from(c)),
        1 => wide.to_string(),
        2 => wide.to_string().bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}")),
        _ => c.to_string(),
    }
}

/// An IPv4 address in one of the notations of the URL standard: 1 to 4 numbers, each in its own base, characters disguised,
/// with or without a final dot.
fn notation(ip: Ipv4Addr, parts: usize, bases: &[Base], disguises: &[u8], final_dot: bool) -> String {
    let bits = ip.to_bits();
    let octets = ip.octets();
    let mut numbers: Vec<u32> = octets[..parts - 1].iter().map(|octet| u32::from(*octet)).collect();
    numbers.push(if parts == 1 { bits } else { bits & (u32::MAX >> (8 * (parts as u32 - 1))) });
    let mut text = numbers.iter().zip(bases).map(|(n, base)| written(*n, *base)).collect::<Vec<_>>().join(".");
    if final_dot {
        text.push('.');
    }
    text.chars().zip(disguises.iter().cycle()).map(|(c, how)| disguised(c, *how)).collect()
}

prop_compose! {
    fn any_notation(ip: BoxedStrategy<Ipv4Addr>)(
        ip in ip,
        parts in 1..=4usize,
        bases in prop::collection::vec(any_base(), 4),
        disguises in prop::collection::vec(0..8u8, 1..20),
        final_dot: bool,
    ) -> (Ipv4Addr, String) {
        (ip, notation(ip, parts, &bases, &disguises, final_dot))
    }
}

/// An address of a block that is refused.
fn refused_v4() -> BoxedStrategy<Ipv4Addr> {
    let blocks = BLOCKS.refused_v4();
    let inside = |network: Ipv4Net| {
        let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
        (first..=last).prop_map(Ipv4Addr::from)
    };
    prop::sample::select(blocks).prop_flat_map(inside).boxed()
}

/// An IPv6 address that leads to the IPv4 one.
fn carriers(ip: Ipv4Addr, form: usize, rest: [u16; 5]) -> Ipv6Addr {
    let [high, low] = [(ip.to_bits() >> 16) as u16, ip.to_bits() as u16];
    let [a, b, c, d, e] = rest;
    match form {
        0..4 => {
            let [p, q, r, s, t, u] = V4_AFTER[form];
            Ipv6Addr::new(p, q, r, s, t, u, high, low)
        }
        4 => Ipv6Addr::new(0x2002, high, low, a, b, c, d, e),
        // Teredo: the server, and the client with its bits turned over.
        5 => Ipv6Addr::new(0x2001, 0, high, low, a, b, c, d),
        6 => Ipv6Addr::new(0x2001, 0, a, b, c, d, !high, !low),
        7 => Ipv6Addr::new(0x2600 | a & 0xf, b, c, d, 0, 0x5efe, high, low),
        8 => Ipv6Addr::new(0x2600 | a & 0xf, b, c, d, 0x200, 0x5efe, high, low),
        // A site's own NAT64, with each length of prefix that RFC 6052 has below its 48 bits.
        9 => Ipv6Addr::new(0x64, 0xff9b, 1, high, low >> 8, low << 8, a, b),
        _ => Ipv6Addr::new(0x64, 0xff9b, 1, a, b, c, high, low),
    }
}

const FORMS: usize = 11;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_address_of_a_forbidden_block_is_refused_in_any_notation((ip, text) in any_notation(refused_v4())) {
        let url = format!("https://{text}/");
        let parsed = Url::parse(&url).map_err(|error| TestCaseError::fail(format!("{url} is {ip}: {error}")))?;
        prop_assert_eq!(parsed.host(), Some(Host::Ipv4(ip)), "{}", url);
        prop_assert_eq!(verdict(&url), "refused", "{}", url);
    }

    #[test]
    fn any_address_is_judged_the_same_in_any_notation((ip, text) in any_notation(any::<Ipv4Addr>().boxed())) {
        let expected = if BLOCKS.refuse(ip.into()) { "refused" } else { "public" };
        prop_assert_eq!(verdict(&format!("https://{text}/")), expected, "{} is {}", text, ip);
    }

    #[test]
    fn a_forbidden_address_is_refused_inside_any_ipv6_form(ip in refused_v4(), form in 0..FORMS, rest: [u16; 5]) {
        let carrier = carriers(ip, form, rest);
        prop_assert_eq!(Policy::default().judge_ip(carrier.into()), Err(Forbidden::Address), "{}", carrier);
        prop_assert_eq!(verdict(&format!("https://[{carrier}]/")), "refused");
    }

    #[test]
    fn any_ipv6_address_is_judged_as_the_registries_say(bits: u128, high in prop::option::of(any::<u16>())) {
        let ip = match high {
            // Half of all numbers are in one block: let the first part have its say.
            Some(high) => IpAddr::from(Ipv6Addr::from((bits >> 16) | u128::from(high) << 112)),
            None => Ipv6Addr::from(bits).into(),
        };
        prop_assert_eq!(Policy::default().judge_ip(ip).is_err(), BLOCKS.refuse(ip), "{}", ip);
    }

    #[test]
    fn a_forbidden_answer_refuses_whatever_stands_around_it(
        mut answers in prop::collection::vec(prop::sample::select(vec!["8.8.8.8", "1.1.1.1", "2606:4700::1111"]), 0..20),
        bad in refused_v4(),
        at: prop::sample::Index,
        https: bool,
    ) {
        let at = at.index(answers.len() + 1);
        let text = bad.to_string();
        answers.insert(at, &text);
        let answers: Vec<IpAddr> = answers.iter().map(|ip| ip.parse().expect("an address")).collect();
        prop_assert_eq!(Policy::default().judge_all(https, &answers), Err(Forbidden::Address));
    }

    #[test]
    fn an_allowed_network_allows_what_it_lists_and_nothing_else(
        base in refused_v4(),
        bits in 8..=32u8,
        other in refused_v4(),
        form in 0..FORMS,
        rest: [u16; 5],
    ) {
        let network: IpNet = Ipv4Net::new(base, bits).expect("up to 32").into();
        let policy = Policy::new(vec![network], false);
        for ip in [base, other] {
            let listed = network.contains(&IpAddr::from(ip));
            prop_assert_eq!(policy.judge_ip(ip.into()).is_ok(), listed, "{} with {}", ip, network);
            prop_assert_eq!(policy.judge(false, ip.into()).is_ok(), listed, "{} over http with {}", ip, network);
            // The same address written as IPv6 is the same; one that leads to it through a gateway is another.
            let mapped = policy.judge_ip(ip.to_ipv6_mapped().into());
            prop_assert_eq!(mapped.is_ok(), listed, "{} mapped with {}", ip, network);
            let carrier = carriers(ip, form, rest);
            let is_mapped = carrier.to_ipv4_mapped().is_some();
            prop_assert!(is_mapped || policy.judge_ip(carrier.into()).is_err(), "{} with {}", carrier, network);
        }
    }
}

/// A client that asks `dns`, and may call one address of this machine.
fn client(dns: std::net::SocketAddr) -> Client {
    let mut options = Options::standard();
    options.dns.servers = vec![DnsServer(dns)];
    options.pool.connect_timeout = Duration::from_secs(5);
    Client::new(&options, Arc::new(policy(&["127.0.0.2/32"]))).expect("a client")
}

async fn get(client: &Client, url: &str) -> Result<u16, Failure> {
    client.send(Request::new(Method::GET, Url::parse(url).expect(url))).await.map(|answer| answer.status)
}

#[tokio::test]
async fn a_name_with_a_forbidden_answer_is_not_dialled_in_whatever_order_and_kind_the_answers_come() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let bad: Vec<IpAddr> = BLOCKS.0.iter().filter(|(_, refused)| *refused).map(|(net, _)| net.network()).collect();
    assert!(bad.len() > 50);
    let (good, asked) = (ip("127.0.0.2"), bad.clone());
    let names = dns(move |name, _| {
        // `<number>-<order>.test.example`
        let Some((number, order)) = name.strip_suffix(".test.example").and_then(|name| name.split_once('-')) else {
            return vec![good];
        };
        let bad = asked[number.parse::<usize>().expect("a number")];
        if order == "first" { vec![bad, good] } else { vec![good, bad] }
    });
    let (client, port) = (client(names.await), server.address.port());
    assert_eq!(get(&client, &format!("http://good.test.example:{port}/")).await, Ok(200));
    for (number, ip) in bad.iter().enumerate() {
        for order in ["first", "last"] {
            let got = get(&client, &format!("http://{number}-{order}.test.example:{port}/")).await;
            assert_eq!(got, Err(Failure::AddressForbidden), "{ip} {order}");
        }
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_name_that_turns_to_a_forbidden_address_is_refused_from_then_on() {
    let server = Server::start(|_| Act::Last(answer("200 OK", "connection: close\r\n", ""))).await;
    let turns =
        ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"];
    let names = dns(move |name, times| {
        let number: usize = name.split('.').next().and_then(|first| first.parse().ok()).unwrap_or(0);
        match times {
            // Both kinds are asked, each counted by itself: the first answer of each is sound.
            0 => vec![ip("127.0.0.2")],
            _ => vec![ip(turns[number])],
        }
    });
    let (client, port) = (client(names.await), server.address.port());
    for (number, turn) in turns.iter().enumerate() {
        let url = format!("http://{number}.turns.example:{port}/");
        assert_eq!(get(&client, &url).await, Ok(200), "{turn}");
        assert_eq!(get(&client, &url).await, Err(Failure::AddressForbidden), "{turn}");
    }
    assert_eq!(server.connections(), turns.len());
}

#[tokio::test]
async fn a_redirect_to_any_address_is_only_an_answer() {
    let inside = Server::start(|_| Act::Answer(answer("200 OK", "", "secret"))).await;
    let port = inside.address.port();
    let targets = ["127.0.0.1", "127.0.0.2", "[::1]", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "good.test.example"];
    let names = dns(|_, _| vec![ip("127.0.0.2")]).await;
    for target in targets {
        for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            let location = format!("location: http://{target}:{port}/\r\n");
            let server = Server::start(move |_| Act::Answer(answer(status, &location, ""))).await;
            let got = get(&client(names), &format!("http://127.0.0.2:{}/", server.address.port())).await;
            assert_eq!(got.map(|status| status / 100), Ok(3), "{target}");
        }
    }
    assert_eq!(inside.connections(), 0);
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}
