//! `scripts/run`, as a newcomer runs it: Ctrl-C drains all of it, started again it goes on, and run twice by mistake it
//! says so.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::node::free_port;

const PATIENCE: Duration = Duration::from_secs(60);

/// The script, running; stopped with the test.
struct Run {
    child: Child,
    output: PathBuf,
}

impl Run {
    /// Starts the real script on the built binary, in a process group of its own, as a shell would.
    fn start(data: &Path, ports: &str, output: PathBuf) -> Self {
        let file = File::create(&output).expect("a file");
        // Whoever runs the tests in the background may have SIGINT ignored, and bash could not trap it then.
        let child = Command::new("env")
            .args(["--default-signal=INT", "scripts/run"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("TIDEMILL_BINARY", env!("CARGO_BIN_EXE_tidemill"))
            .env("TIDEMILL_DEMO_PORTS", ports)
            .env("TIDEMILL_DEMO_DATA", data)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the same file"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .expect("the script starts");
        Self { child, output }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits until the output has this.
    fn says(&mut self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.said().contains(what) {
            let ended = self.child.try_wait().expect("asked");
            assert!(ended.is_none() && Instant::now() < end, "{what:?} was expected ({ended:?}): {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A signal to the script alone, which leads its group.
    fn signal(&self, name: &str) {
        let told = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(told.success());
    }

    /// Waits until it has ended.
    fn code(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("asked") {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It stops what it started.
            self.signal("-TERM");
            let _ = self.child.wait();
        }
    }
}

/// What the node answers, with the demo's key.
fn ask(port: u16, data: &Path, path: &str) -> String {
    let key = std::fs::read_to_string(data.join("api.key")).expect("a key");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    let key = key.trim();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn connections(port: u16, data: &Path) -> Vec<String> {
    let answer = ask(port, data, "/2024-03/one/connections");
    let ids = answer.split("\"connectionId\":\"").skip(1).map(|rest| rest[..24].to_owned());
    ids.collect()
}

#[test]
fn ctrl_c_drains_and_started_again_it_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let ports = [free_port(), free_port(), free_port()];
    let words = ports.map(|port| port.to_string()).join(" ");
    let start = |name: &str| Run::start(&data, &words, folder.path().join(name));

    let mut first = start("first");
    first.says("RSA ok");
    let connected = connections(ports[0], &data);
    assert_eq!(connected.len(), 1);
    first.signal("-INT");
    assert_eq!(first.code(), Some(0), "{}", first.said());
    assert!(first.said().contains("All is kept in"), "{}", first.said());
    for port in ports {
        TcpListener::bind(("127.0.0.1", port)).expect("nothing of it runs on");
    }
    let log = std::fs::read_to_string(data.join("node.log")).expect("a log");
    assert!(log.contains("stopped"), "the node was drained: {log}");

    let mut second = start("second");
    second.says("Events, as they arrive");
    assert_eq!(connections(ports[0], &data), connected, "it goes on with what it had");
    // By mistake, beside it.
    let mut third = start("third");
    assert_eq!(third.code(), Some(1), "{}", third.said());
    assert!(third.said().contains("is in use"), "{}", third.said());
    second.says("RSA ok");
    second.signal("-INT");
    assert_eq!(second.code(), Some(0), "{}", second.said());
}

#[test]
fn ctrl_c_while_it_starts_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let ports = [free_port(), free_port(), free_port()];
    let mut run = Run::start(&data, &ports.map(|port| port.to_string()).join(" "), folder.path().join("run"));
    let end = Instant::now() + PATIENCE;
    while !data.join("node.log").exists() {
        assert!(Instant::now() < end, "{}", run.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    run.signal("-INT");
    assert_eq!(run.code(), Some(0), "{}", run.said());
    for port in ports {
        TcpListener::bind(("127.0.0.1", port)).expect("nothing of it runs on");
    }
}
