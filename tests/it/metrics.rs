//! Every metric moves: a node of its own with the sandbox, a receiver that is there and one that is not.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidemill::telemetry;

const API_KEY: &str = "full-access-key-of-the-metrics-test";
const PATIENCE: Duration = Duration::from_secs(60);

/// What a healthy node in a test cannot be made to do from outside.
const NOT_FROM_OUTSIDE: &[&str] = &["tidemill_store_stall_seconds_total", "tidemill_actor_restarts_total"];

/// A process of ours, killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _it_may_be_gone = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str], env: &[(&str, &str)]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.env_clear().args(arguments).envs(env.iter().copied());
    Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

/// Status and body of one call; status 0 when nobody answers.
fn call(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {API_KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[track_caller]
fn post(port: u16, path: &str, body: &str) -> serde_json::Value {
    let (status, text) = call(port, "POST", path, body);
    assert!((200..300).contains(&status), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

fn until(what: &str, mut good: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// Answers 200 to whatever comes, for as long as the test runs.
fn receiver() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0; 64 * 1024];
            // Whatever part of the request came is enough: the answer closes the connection.
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.read(&mut head);
        }
    });
    port
}

/// A stream of events that stays open for as long as the test holds it.
fn stream(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let head = format!("Host: x\r\nAuthorization: Bearer {API_KEY}");
    write!(stream, "GET /2024-03/one/events/stream HTTP/1.1\r\n{head}\r\n\r\n").expect("asked");
    stream
}

/// The samples that are not zero, by the metric's name.
fn moved(text: &str, name: &str) -> bool {
    text.lines().filter(|line| !line.starts_with('#')).any(|line| {
        let rest = line.strip_prefix(name).map(|rest| rest.strip_prefix("_count").unwrap_or(rest));
        let named = rest.is_some_and(|rest| rest.starts_with(['{', ' ']));
        named && line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).is_some_and(|value| value > 0.0)
    })
}

#[test]
fn every_metric_moves() {
    let data = tempfile::tempdir().expect("a folder");
    let (node_port, sandbox_port, receiver_port) = (free_port(), free_port(), receiver());
    let url = format!("http://127.0.0.1:{node_port}");
    let _sandbox =
        start(&["sandbox", "--listen", &format!("127.0.0.1:{sandbox_port}"), "--changes-per-minute", "600"], &[]);
    let _node = start(
        &["serve"],
        &[
            ("TIDEMILL__SERVER__LISTEN", &format!("127.0.0.1:{node_port}")),
            ("TIDEMILL__SERVER__PUBLIC_URL", &url),
            ("TIDEMILL__STORAGE__PATH", &data.path().join("store").display().to_string()),
            ("TIDEMILL__STORAGE__FREE_BYTES_MIN", "1"),
            ("TIDEMILL__DELIVERY__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]"),
            ("TIDEMILL__INGEST__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]"),
            ("TIDEMILL__DELIVERY__RETRY_SCHEDULE_SECONDS", "[0, 1]"),
            ("TIDEMILL__DESTINATIONS__FILES_PATH", &data.path().join("files").display().to_string()),
            ("TIDEMILL_API_KEY", API_KEY),
        ],
    );
    until("the node and the sandbox are ready", || {
        call(node_port, "GET", "/health/ready", "").0 == 200 && TcpStream::connect(("127.0.0.1", sandbox_port)).is_ok()
    });
    let _open = stream(node_port);
    let one = "/2024-03/one";
    post(node_port, &format!("{one}/users"), r#"{"username":"ada"}"#);
    for address in [format!("http://127.0.0.1:{receiver_port}/"), format!("http://127.0.0.1:{}/", free_port())] {
        post(node_port, &format!("{one}/webhooks"), &format!(r#"{{"address":"{address}","topic":["*"]}}"#));
    }
    let lake = post(node_port, &format!("{one}/destinations"), r#"{"type":"file","name":"Lake"}"#);
    let lake = lake["destination"]["destinationId"].as_str().expect("an id").to_owned();
    post(node_port, &format!("{one}/webhooks"), &format!(r#"{{"destinationId":"{lake}","topic":["*"]}}"#));
    // One that does not deliver, so that its replay stays under way.
    let idle = format!(r#"{{"address":"http://127.0.0.1:{receiver_port}/idle","topic":["*"],"isEnabled":false}}"#);
    let idle = post(node_port, &format!("{one}/webhooks"), &idle);
    let idle = idle["subscription"]["subscriptionId"].as_str().expect("an id").to_owned();
    let integration =
        format!(r#"{{"connector":"sandbox","parameters":{{"baseUri":"http://127.0.0.1:{sandbox_port}"}}}}"#);
    let made = post(node_port, &format!("{one}/integrations"), &integration);
    let id = made["integration"]["integrationId"].as_str().expect("an id").to_owned();
    let connection = format!(
        r#"{{"userId":"ada","integrationId":"{id}","credentials":{{"apiKey":"sandbox-key-1"}},"pollIntervalSeconds":10,"initialSync":"emit"}}"#
    );
    let made = post(node_port, &format!("{one}/connections"), &connection);
    let connection = made["connection"]["connectionId"].as_str().expect("an id");
    // An app whose journal is read, and that nobody answers for.
    let journal = format!(
        r#"{{"connector":"hubspot","parameters":{{"baseUri":"http://127.0.0.1:{}","clientId":"a","clientSecret":"b","webhooks":"journal"}}}}"#,
        free_port()
    );
    post(node_port, &format!("{one}/integrations"), &journal);
    let call_it = r#"{"method":"GET","endpoint":"/api/users"}"#;
    post(node_port, &format!("{one}/forward?connectionId={connection}"), call_it);
    let nobody = format!(r#"{{"connectionId":"{connection}","topic":"crm/contacts","remoteId":"nobody"}}"#);
    post(node_port, &format!("{one}/erasures"), &nobody);
    assert_eq!(call(node_port, "GET", "/connect", "").0, 401);
    let still = || {
        let (_, text) = call(node_port, "GET", "/metrics", "");
        let rows = telemetry::TABLE.iter().map(|row| row.name).filter(|name| !NOT_FROM_OUTSIDE.contains(name));
        rows.filter(|name| !moved(&text, name)).collect::<Vec<_>>()
    };
    until("an event is there to be sent again", || {
        let range = r#"{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}"#;
        let made = post(node_port, &format!("{one}/webhooks/{idle}/replays"), range);
        made["replay"]["progress"] == 0.0
    });
    let end = Instant::now() + PATIENCE;
    loop {
        let rest = still();
        if rest.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "these do not move: {rest:?}");
        // The gauges are measured at most every few seconds, so asking at once again would tell nothing new.
        std::thread::park_timeout(Duration::from_millis(300));
    }
}
