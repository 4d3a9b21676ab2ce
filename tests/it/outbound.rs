//! What the guarded client promises, shown on real connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill::domain::address::Policy;
use tidemill::outbound::{Answer, Client, DnsServer, Failure, Method, Options, Request};
use url::Url;

use crate::support::server::{Act, Server, acceptor, answer, dns};

fn policy(nets: &[&str]) -> Arc<Policy> {
    Arc::new(Policy::new(nets.iter().map(|n| n.parse().expect(n)).collect(), false))
}

/// Trusts the test CA, asks `dns` if there is one, and may call the loopback network.
fn client_with(nets: &[&str], dns: Option<SocketAddr>) -> Client {
    let mut options = Options::standard();
    options.tls.ca_file = format!("{}/tests/certs/ca.pem", env!("CARGO_MANIFEST_DIR")).into();
    options.dns.servers = dns.map(DnsServer).into_iter().collect();
    options.dns.timeout_seconds = 1.try_into().expect("not zero");
    options.pool.connect_timeout = Duration::from_secs(2);
    Client::new(&options, policy(nets)).expect("a client")
}

fn client() -> Client {
    client_with(&["127.0.0.0/8"], None)
}

async fn get(client: &Client, url: &str) -> Result<Answer, Failure> {
    get_within(client, url, Duration::from_secs(5)).await
}

async fn get_within(client: &Client, url: &str, timeout: Duration) -> Result<Answer, Failure> {
    let mut request = Request::new(Method::GET, Url::parse(url).expect(url));
    request.timeout = timeout;
    request.read_limit = 64 * 1024;
    client.send(request).await
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

#[tokio::test]
async fn an_answer_comes_back_whole() {
    let server = Server::start(|_| Act::Answer(answer("201 Created", "x-a: b\r\n", "hello"))).await;
    let got = get(&client(), &format!("http://{}/a?b=c#d", server.address)).await.expect("an answer");
    assert_eq!((got.status, &got.body[..], got.cut), (201, &b"hello"[..], false));
    assert_eq!(got.header("x-a"), Some("b"));
    assert!(got.first_byte <= got.elapsed);
    let seen = &server.got()[0];
    assert_eq!(seen.line, "GET /a?b=c HTTP/1.1");
    assert_eq!(seen.header("user-agent"), Some(concat!("Tidemill/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", "{}"))).await;
    let client = client();
    for _ in 0..20 {
        get(&client, &format!("http://{}/", server.address)).await.expect("an answer");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let inside = Server::start(|_| Act::Answer(answer("200 OK", "", "secret"))).await;
    let location = format!("location: http://{}/\r\n", inside.address);
    let server = Server::start(move |_| Act::Answer(answer("302 Found", &location, ""))).await;
    let got = get(&client(), &format!("http://{}/", server.address)).await.expect("an answer");
    assert_eq!(got.status, 302);
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_server_that_hangs_ends_with_the_timeout() {
    for said in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let server = Server::start(move |_| Act::Hang(said.to_vec())).await;
        let started = Instant::now();
        let url = format!("http://{}/", server.address);
        let got = get_within(&client(), &url, Duration::from_millis(300)).await;
        assert_eq!(got.err(), Some(Failure::ResponseTimeout));
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_body_that_drips_for_ever_ends_with_the_timeout() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let drip = move |_: &_| Act::Forever(head.clone(), b"1\r\nx\r\n".to_vec(), Duration::from_millis(20));
    let server = Server::start(drip).await;
    let got = get_within(&client(), &format!("http://{}/", server.address), Duration::from_millis(400)).await;
    assert_eq!(got.err(), Some(Failure::ResponseTimeout));
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    let flood = move |_: &_| Act::Forever(head.clone(), vec![b'x'; 10_000], Duration::ZERO);
    let server = Server::start(flood).await;
    let got = get(&client(), &format!("http://{}/", server.address)).await.expect("an answer");
    assert_eq!((got.status, got.body.len(), got.cut), (200, 64 * 1024, true));
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_not_cut() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", &"y".repeat(64 * 1024)))).await;
    let got = get(&client(), &format!("http://{}/", server.address)).await.expect("an answer");
    assert_eq!((got.body.len(), got.cut), (64 * 1024, false));
}

#[tokio::test]
async fn an_early_close_has_its_own_name() {
    for said in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let server = Server::start(move |_| Act::Last(said.to_vec())).await;
        let got = get(&client(), &format!("http://{}/", server.address)).await;
        assert_eq!(got.err(), Some(Failure::ConnectionClosed), "{:?}", String::from_utf8_lossy(said));
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_bad_answer() {
    let flood = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(500));
    for said in ["SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_owned(), "\0\0\0\0\0\0".to_owned(), flood, many] {
        let start = said[..6].to_owned();
        let server = Server::start(move |_| Act::Last(said.clone().into_bytes())).await;
        let got = get(&client(), &format!("http://{}/", server.address)).await;
        assert_eq!(got.err(), Some(Failure::BadAnswer), "{start:?}");
    }
}

#[tokio::test]
async fn nobody_listening_is_connect_failed() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("an address").port()
    };
    let got = get(&client(), &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(got.err(), Some(Failure::ConnectFailed));
}

#[tokio::test]
async fn forbidden_addresses_are_not_even_dialled() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let (port, outside) = (server.address.port(), client_with(&[], None));
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "localhost", "0.0.0.0"] {
        for scheme in ["http", "https"] {
            let got = get(&outside, &format!("{scheme}://{host}:{port}/")).await;
            assert_eq!(got.err(), Some(Failure::AddressForbidden), "{scheme}://{host}");
        }
    }
    assert_eq!(get(&outside, "http://8.8.8.8/").await.err(), Some(Failure::HttpsRequired));
    assert_eq!(get(&outside, "https://user:pass@8.8.8.8/").await.err(), Some(Failure::BadRequest));
    assert_eq!(get(&outside, "ftp://8.8.8.8/").await.err(), Some(Failure::BadRequest));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn one_forbidden_answer_refuses_a_name_in_any_order() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let names = dns(|name, _| match name {
        "good.test.example" => vec![ip("127.0.0.2")],
        "mixed.test.example" => vec![ip("127.0.0.2"), ip("10.0.0.1")],
        "mixed-first.test.example" => vec![ip("10.0.0.1"), ip("127.0.0.2")],
        "mixed-kinds.test.example" => vec![ip("127.0.0.2"), ip("fd00::1")],
        "metadata.test.example" => vec![ip("169.254.169.254")],
        _ => vec![],
    });
    let client = client_with(&["127.0.0.2/32"], Some(names.await));
    let port = server.address.port();
    let ask = async |name: &str| get(&client, &format!("http://{name}.test.example:{port}/")).await.map(|a| a.status);
    assert_eq!(ask("good").await, Ok(200));
    for name in ["mixed", "mixed-first", "mixed-kinds", "metadata"] {
        assert_eq!(ask(name).await, Err(Failure::AddressForbidden), "{name}");
    }
    assert_eq!(ask("nobody").await, Err(Failure::DnsFailed));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_name_that_changes_between_attempts_is_judged_again() {
    let server = Server::start(|_| Act::Last(answer("200 OK", "connection: close\r\n", ""))).await;
    let names = dns(|_, times| vec![if times == 0 { ip("127.0.0.2") } else { ip("127.0.0.1") }]).await;
    let client = client_with(&["127.0.0.2/32"], Some(names));
    let url = format!("http://rebind.test.example:{}/", server.address.port());
    assert_eq!(get(&client, &url).await.map(|a| a.status), Ok(200));
    assert_eq!(get(&client, &url).await.err(), Some(Failure::AddressForbidden));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn plain_http_to_a_name_needs_an_allowed_network() {
    let names = dns(|_, _| vec![ip("8.8.8.8")]).await;
    let client = client_with(&["127.0.0.0/8"], Some(names));
    assert_eq!(get(&client, "http://public.test.example/").await.err(), Some(Failure::HttpsRequired));
}

#[tokio::test]
async fn a_silent_name_server_ends_with_its_timeout() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let client = client_with(&["127.0.0.0/8"], silent.local_addr().ok());
    let started = Instant::now();
    assert_eq!(get(&client, "https://slow.test.example/").await.err(), Some(Failure::DnsFailed));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_new_policy_holds_for_connections_that_are_already_there() {
    let server = Server::start(|_| Act::Answer(answer("200 OK", "", ""))).await;
    let (client, url) = (client(), format!("http://localhost:{}/", server.address.port()));
    assert_eq!(get(&client, &url).await.map(|a| a.status), Ok(200));
    client.set_policy(policy(&["10.0.0.0/8"]));
    assert_eq!(get(&client, &url).await.err(), Some(Failure::AddressForbidden));
    client.set_policy(policy(&["127.0.0.0/8", "::1/128"]));
    assert_eq!(get(&client, &url).await.map(|a| a.status), Ok(200));
    assert_eq!(server.connections(), 2, "the old connection was not used again");
}

#[tokio::test]
async fn certificates_are_checked_and_each_fault_has_its_name() {
    let good = Server::start_tls("good", |_| Act::Answer(answer("200 OK", "", "ok"))).await;
    let client = client();
    for host in ["localhost", "127.0.0.1"] {
        let got = get(&client, &format!("https://{host}:{}/", good.address.port())).await;
        assert_eq!(got.map(|a| a.status), Ok(200), "{host}");
    }
    for (certificate, failure) in [
        ("expired", Failure::TlsExpired),
        ("wrong-name", Failure::TlsNameMismatch),
        ("self-signed", Failure::TlsUntrusted),
    ] {
        let server = Server::start_tls(certificate, |_| Act::Answer(answer("200 OK", "", "ok"))).await;
        let got = get(&client, &format!("https://localhost:{}/", server.address.port())).await;
        assert_eq!(got.err(), Some(failure), "{certificate}");
        assert!(server.got().is_empty(), "nothing was sent");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_tls_failed_and_one_that_says_nothing_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let speaks = Arc::new(AtomicBool::new(true));
    let flag = speaks.clone();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if flag.load(Ordering::SeqCst) {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
            kept.push(stream);
        }
    });
    let client = client();
    let url = format!("https://127.0.0.1:{port}/");
    assert_eq!(get(&client, &url).await.err(), Some(Failure::TlsFailed));
    speaks.store(false, Ordering::SeqCst);
    let got = get_within(&client, &url, Duration::from_millis(300)).await;
    assert_eq!(got.err(), Some(Failure::ConnectTimeout));
    let got = get_within(&client, &url, Duration::from_secs(10)).await;
    assert_eq!(got.err(), Some(Failure::ConnectTimeout), "the client's own limit, 2 s");
}

#[tokio::test]
async fn a_lost_race_with_a_kept_connection_is_run_again_if_that_does_no_harm() {
    // The second request on a connection meets a server that has just decided to close it.
    let first = std::sync::Mutex::new(std::collections::HashSet::new());
    let server = Server::start(move |got| {
        let fresh = first.lock().expect("no panic").insert(got.connection);
        if fresh { Act::Answer(answer("200 OK", "", "")) } else { Act::Last(Vec::new()) }
    });
    let (server, client) = (server.await, client());
    let url = Url::parse(&format!("http://{}/", server.address)).expect("a URL");
    let request = |method: Method, repeatable| Request { repeatable, ..Request::new(method, url.clone()) };
    assert_eq!(client.send(request(Method::GET, true)).await.map(|a| a.status), Ok(200));
    assert_eq!(client.send(request(Method::POST, true)).await.map(|a| a.status), Ok(200));
    assert_eq!(server.connections(), 2);
    assert_eq!(client.send(request(Method::POST, false)).await.err(), Some(Failure::ConnectionClosed));
    assert!(!Request::new(Method::POST, url.clone()).repeatable && Request::new(Method::GET, url.clone()).repeatable);
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_offers_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let tls = acceptor("good", &[b"h2", b"http/1.1"]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream = tls.accept(stream).await.expect("TLS");
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.version(), hyper::Version::HTTP_2);
                    let mut send = respond.send_response(hyper::Response::new(()), false).expect("sent");
                    send.send_data("two".into(), true).expect("sent");
                }
            });
        }
    });
    let client = client();
    for _ in 0..3 {
        let got = get(&client, &format!("https://localhost:{port}/")).await.expect("an answer");
        assert_eq!((got.status, &got.body[..]), (200, &b"two"[..]));
    }
}

#[tokio::test]
async fn a_diagnosis_shows_the_way_and_the_chain() {
    let client = client();
    let look = async |server: &Server, scheme: &str, host: &str| {
        let url = Url::parse(&format!("{scheme}://{host}:{}/", server.address.port())).expect("a URL");
        client.diagnose(&url, Duration::from_secs(3)).await.expect("a diagnosis")
    };
    let good = Server::start_tls("good", |_| Act::Answer(answer("200 OK", "", "ok"))).await;
    let seen = look(&good, "https", "127.0.0.1").await;
    assert_eq!((seen.failure, &seen.addresses[..]), (None, &[ip("127.0.0.1")][..]));
    assert!(seen.dns_ms.is_some() && seen.connect_ms.is_some() && seen.tls_ms.is_some());
    assert_eq!(seen.chain[0].subject, "localhost");
    assert_eq!(seen.tls_version.as_deref(), Some("TLSv1_3"));
    let expired = Server::start_tls("expired", |_| Act::Answer(answer("200 OK", "", "ok"))).await;
    let seen = look(&expired, "https", "localhost").await;
    assert_eq!(seen.failure, Some(Failure::TlsExpired));
    assert_eq!(seen.chain[0].not_after.rfc3339_seconds(), "2020-02-01T00:00:00Z", "what was wrong is shown");
    let json = serde_json::to_value(&seen).expect("JSON");
    assert_eq!((&json["failure"], &json["tlsMs"]), (&"tls-expired".into(), &serde_json::Value::Null));
    let plain = Server::start(|_| Act::Answer(answer("200 OK", "", "ok"))).await;
    assert_eq!(look(&plain, "http", "127.0.0.1").await.failure, None);
}

#[tokio::test]
async fn a_diagnosis_of_a_forbidden_address_says_that_and_nothing_else() {
    let names = dns(|_, _| vec![ip("127.0.0.2"), ip("10.1.2.3")]).await;
    let client = client_with(&["127.0.0.2/32"], Some(names));
    for url in ["https://inside.test.example/", "https://10.1.2.3/"] {
        let seen =
            client.diagnose(&Url::parse(url).expect("a URL"), Duration::from_secs(2)).await.expect("a diagnosis");
        let json = serde_json::to_string(&seen).expect("JSON");
        assert_eq!(json, r#"{"failure":"address-forbidden"}"#);
    }
}
