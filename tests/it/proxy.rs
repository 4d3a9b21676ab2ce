//! Everything leaves by the operator's proxy, which is told judged addresses and nothing else, and opens no way around
//! the address policy.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tidemill::config::Config;
use tidemill::domain::address::Policy;
use tidemill::domain::secret::Secret;
use tidemill::outbound::{Answer, Client, DnsServer, Failure, Method, Options, Proxy, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::support::api::Node;
use crate::support::receiver::Receiver;
use crate::support::server::{Act, Server, answer, dns};

/// What a proxy does when it is asked for a tunnel.
#[derive(Clone, Copy)]
enum Does {
    Tunnel,
    Says(&'static str),
    Hangs,
}

/// A real proxy on loopback that remembers the heads it got.
#[derive(Clone)]
struct Tunnels {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    async fn start(does: impl Fn(&str) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Self { address: listener.local_addr().expect("an address"), heads: Arc::default() };
        let (shared, does) = (proxy.clone(), Arc::new(does));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, does) = (shared.clone(), does.clone());
                tokio::spawn(async move { shared.serve(stream, does.as_ref()).await });
            }
        });
        proxy
    }

    async fn serve(&self, mut stream: TcpStream, does: &(impl Fn(&str) -> Does + Sync)) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).expect("text");
        let target = head.split(' ').nth(1).expect("a target").to_owned();
        self.heads.lock().expect("no panic").push(head);
        match does(&target) {
            Does::Tunnel => {
                let mut there = TcpStream::connect(&target).await.expect("reachable");
                stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: a\r\n\r\n").await.expect("sent");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
            }
            Does::Says(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
            }
            Does::Hangs => tokio::time::sleep(Duration::from_secs(60)).await,
        }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }

    /// What tunnels were asked for, in order.
    fn targets(&self) -> Vec<String> {
        let line = |head: &String| head.lines().next().unwrap_or_default().to_owned();
        self.heads().iter().map(line).collect()
    }
}

/// Trusts the test CA, asks `names`, may call `nets`, and leaves by `proxy`.
fn client(nets: &[&str], names: Option<SocketAddr>, proxy: &str) -> Client {
    let mut options = Options::standard();
    options.tls.ca_file = format!("{}/tests/certs/ca.pem", env!("CARGO_MANIFEST_DIR")).into();
    options.dns.servers = names.map(DnsServer).into_iter().collect();
    options.pool.connect_timeout = Duration::from_secs(2);
    options.proxy = Some(Proxy::parse(&Secret::new(proxy)).expect("a proxy"));
    let policy = Policy::new(nets.iter().map(|n| n.parse().expect(n)).collect(), false);
    Client::new(&options, Arc::new(policy)).expect("a client")
}

async fn get(client: &Client, url: &str) -> Result<Answer, Failure> {
    client.send(Request::new(Method::GET, Url::parse(url).expect(url))).await
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

#[tokio::test]
async fn the_proxy_is_asked_for_the_judged_address_and_the_name_is_for_the_server_alone() {
    let proxy = Tunnels::start(|_| Does::Tunnel).await;
    let plain = Server::start(|_| Act::Answer(answer("200 OK", "", "plain"))).await;
    let secure = Server::start_tls("good", |_| Act::Answer(answer("200 OK", "", "secure"))).await;
    let names = dns(|_, _| vec![ip("127.0.0.2")]).await;
    // The proxy itself is at 127.0.0.1, which subscribers may not be: it is the operator's word.
    let url = format!("http://us%65r:p%40ss@{}", proxy.address);
    let by = client(&["127.0.0.2/32"], Some(names), &url);
    let port = plain.address.port();
    for _ in 0..3 {
        let got = get(&by, &format!("http://plain.test.example:{port}/")).await.expect("an answer");
        assert_eq!(&got.body[..], b"plain");
    }
    assert_eq!(proxy.targets(), [format!("CONNECT 127.0.0.2:{port} HTTP/1.1")], "one tunnel, kept");
    // echo -n user:p@ss | base64
    let head = proxy.heads().remove(0);
    assert!(head.contains("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n") && !head.contains("test.example"), "{head}");
    let got = &plain.got()[0];
    assert_eq!(got.header("host"), Some(format!("plain.test.example:{port}").as_str()));
    assert_eq!(got.header("proxy-authorization"), None);

    let by = client(&["127.0.0.1/32"], None, &format!("http://localhost:{}", proxy.address.port()));
    let port = secure.address.port();
    let got = get(&by, &format!("https://localhost:{port}/")).await.expect("the certificate is for localhost");
    assert_eq!(&got.body[..], b"secure");
    assert_eq!(proxy.targets()[1], format!("CONNECT 127.0.0.1:{port} HTTP/1.1"));
    let url = Url::parse(&format!("https://localhost:{port}/")).expect("a URL");
    let seen = by.diagnose(&url, Duration::from_secs(3)).await.expect("a diagnosis");
    assert_eq!((seen.failure, seen.chain[0].subject.as_str()), (None, "localhost"));
}

#[tokio::test]
async fn no_forbidden_address_is_asked_of_the_proxy() {
    let proxy = Tunnels::start(|_| Does::Tunnel).await;
    let names = dns(|name, times| match name {
        "inside.test.example" => vec![ip("10.0.0.1")],
        "mixed.test.example" => vec![ip("127.0.0.2"), ip("169.254.169.254")],
        "rebind.test.example" if times > 0 => vec![ip("127.0.0.1")],
        _ => vec![ip("127.0.0.2")],
    })
    .await;
    let by = client(&["127.0.0.2/32"], Some(names), &format!("http://{}", proxy.address));
    let server = Server::start(|_| Act::Last(answer("200 OK", "connection: close\r\n", ""))).await;
    let port = server.address.port();
    for host in ["inside.test.example", "mixed.test.example", "127.0.0.1", "localhost", "[::ffff:10.0.0.1]", "0x7f.1"] {
        let got = get(&by, &format!("http://{host}:{port}/")).await;
        assert_eq!(got.err(), Some(Failure::AddressForbidden), "{host}");
    }
    assert_eq!(proxy.targets(), Vec::<String>::new());
    let url = format!("http://rebind.test.example:{port}/");
    assert_eq!(get(&by, &url).await.map(|a| a.status), Ok(200));
    assert_eq!(get(&by, &url).await.err(), Some(Failure::AddressForbidden));
    assert_eq!(proxy.targets(), [format!("CONNECT 127.0.0.2:{port} HTTP/1.1")]);
}

#[tokio::test]
async fn each_fault_of_the_proxy_has_its_name() {
    for (does, failure) in [
        (Does::Says("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), Failure::ProxyRefused),
        (Does::Says("HTTP/1.0 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"), Failure::ProxyRefused),
        (Does::Says("HTTP/1.1 502 Bad Gateway\r\n\r\n"), Failure::ProxyFailed),
        (Does::Says("HTTP/1.1 504 Gateway Timeout\r\n\r\n"), Failure::ProxyFailed),
        (Does::Says("SSH-2.0-OpenSSH\r\n\r\n"), Failure::ProxyUnreachable),
        (Does::Says("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\nforged"), Failure::ProxyUnreachable),
        (Does::Says(""), Failure::ProxyUnreachable),
        (Does::Hangs, Failure::ConnectTimeout),
    ] {
        let proxy = Tunnels::start(move |_| does).await;
        let by = client(&["127.0.0.0/8"], None, &format!("http://{}", proxy.address));
        assert_eq!(get(&by, "http://127.0.0.1:9/").await.err(), Some(failure));
    }
    let flood = Tunnels::start(|_| Does::Says(Box::leak("x".repeat(20_000).into_boxed_str()))).await;
    let by = client(&["127.0.0.0/8"], None, &format!("http://{}", flood.address));
    assert_eq!(get(&by, "http://127.0.0.1:9/").await.err(), Some(Failure::ProxyUnreachable));
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let by = client(&["127.0.0.0/8"], None, &format!("http://{free}"));
    assert_eq!(get(&by, "http://127.0.0.1:9/").await.err(), Some(Failure::ProxyUnreachable));
}

#[tokio::test]
async fn the_next_address_is_asked_for_when_the_proxy_cannot_reach_the_first() {
    let dead = |target: &str| target.starts_with("127.0.0.3:");
    let proxy =
        Tunnels::start(move |to| if dead(to) { Does::Says("HTTP/1.1 503 x\r\n\r\n") } else { Does::Tunnel }).await;
    let names = dns(|_, _| vec![ip("127.0.0.3"), ip("127.0.0.2")]).await;
    let by = client(&["127.0.0.0/8"], Some(names), &format!("http://{}", proxy.address));
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let got = get(&by, &format!("http://two.test.example:{}/", server.address.port())).await;
    assert_eq!(got.map(|a| a.status), Ok(200));
}

#[actix::test]
async fn a_node_delivers_by_its_proxy_and_says_when_that_fails() {
    let proxy = Tunnels::start(|_| Does::Tunnel).await;
    let url = format!("http://user:s3cret@{}", proxy.address);
    let node = Node::start_with(&[("TIDEMILL__DELIVERY__PROXY_URL", &url)], tidemill::api::configure).await;
    let receiver = Receiver::start();
    let hooks = "/2024-03/one/webhooks";
    let made = node.post(hooks, json!({"address": receiver.address, "topic": ["*"]})).await.ok();
    let event = json!({"topic": "crm/contacts", "updateType": "created", "dataPayload": {}});
    node.post("/2024-03/one/events", event.clone()).await;
    receiver.wait(1).await;
    assert!(proxy.targets()[0].starts_with("CONNECT 127.0.0.1:"), "{:?}", proxy.targets());
    let id = made["subscription"]["subscriptionId"].as_str().expect("an id");
    let tested = node.post(&format!("{hooks}/{id}/test"), json!({})).await;
    assert_eq!(tested.ok()["test"]["accepted"], true);
    assert!(!tested.text.contains(&proxy.address.to_string()), "{}", tested.text);
    node.stop().await;

    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let url = format!("http://{gone}");
    let node = Node::start_with(&[("TIDEMILL__DELIVERY__PROXY_URL", &url)], tidemill::api::configure).await;
    node.post(hooks, json!({"address": receiver.address, "topic": ["*"]})).await.ok();
    node.post("/2024-03/one/events", event).await;
    let failed = async {
        loop {
            let list = node.get("/2024-03/one/deliveries?status=retrying").await.ok();
            if let Some(one) = list["deliveries"].get(0) {
                return one.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let failed = tokio::time::timeout(Duration::from_secs(20), failed).await.expect("it fails");
    assert_eq!(failed["lastError"]["code"], "proxy-unreachable");
    assert!(!failed.to_string().contains(&gone.port().to_string()), "{failed}");
    node.stop().await;
}

#[test]
fn the_proxys_address_is_a_secret_and_can_come_from_a_file() {
    let load = |name: &str, value: &str| Config::load(None, [(name.to_owned(), value.to_owned())].into_iter());
    for section in ["DELIVERY", "INGEST"] {
        let name = format!("TIDEMILL__{section}__PROXY_URL");
        let config = load(&name, "http://user:s3cret@proxy.example:3128").expect("loads");
        assert!(!format!("{}{config:?}", config.masked()).contains("s3cret"), "{}", config.masked());
        let refused = load(&name, "https://user:s3cret@proxy.example").expect_err("no proxy").to_string();
        assert!(refused.contains("proxy_url: use http://host:port") && !refused.contains("s3cret"), "{refused}");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("proxy");
        std::fs::write(&file, "http://user:s3cret@proxy.example:3128\n").expect("written");
        load(&format!("{name}_FILE"), &file.display().to_string()).expect("loads");
    }
}
