//! The command line keeps its promises: exit codes, one clear sentence on stderr, no secrets on stdout.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const OPERATOR_KEY: &str = "operator-key-of-the-cli-tests";
const API_KEY: &str = "full-access-key-of-the-cli-tests";

fn tidemill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tidemill(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one sentence of a failure, and its exit code.
#[track_caller]
fn fails(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}{}", out(output));
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(text.starts_with("tidemill: ") && !text.contains("panicked"), "{text}");
    text
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stderr), out(output));
    out(output)
}

#[test]
fn every_sub_command_has_help() {
    for line in [
        "",
        "serve",
        "config",
        "check",
        "backup",
        "doctor",
        "restore",
        "resume",
        "verify",
        "keys",
        "keys create",
        "keys list",
        "keys revoke",
        "workspaces",
        "workspaces create",
        "workspaces list",
        "workspaces delete",
        "connector",
        "connector new",
        "connector check",
        "connector run",
        "connector schemas",
        "connector test",
        "sandbox",
        "listen",
        "status",
    ] {
        let mut arguments: Vec<&str> = line.split_whitespace().collect();
        arguments.push("--help");
        let text = succeeds(&run(&arguments));
        assert!(text.contains("Usage:"), "{line}: {text}");
    }
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for arguments in [&["keys", "create", "x"][..], &["nothing"], &["connector", "test"], &["verify"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let mut delete = tidemill(&["workspaces", "delete", "0123"]);
    assert!(fails(&delete.env("TIDEMILL_OPERATOR_KEY", OPERATOR_KEY).output().unwrap(), 2).contains("--yes"));
    assert!(fails(&run(&["keys", "list"]), 2).contains("TIDEMILL_API_KEY"));
}

#[test]
fn no_node_is_told_in_one_sentence() {
    let port = free_port();
    let mut list = tidemill(&["keys", "list", "--url", &format!("http://127.0.0.1:{port}")]);
    let text = fails(&list.env("TIDEMILL_API_KEY", API_KEY).output().unwrap(), 1);
    assert!(text.contains(&format!("127.0.0.1:{port}")) && !text.contains(API_KEY), "{text}");
}

#[test]
fn the_configuration_is_printed_without_secrets() {
    let mut config = tidemill(&["config"]);
    let text = succeeds(&config.env("TIDEMILL_API_KEY", API_KEY).output().unwrap());
    assert!(text.contains("[server]") && text.contains("***") && !text.contains(API_KEY), "{text}");
    let mut config = tidemill(&["config"]);
    let text = fails(&config.env("TIDEMILL__DELIVERY__ALLOW_NETWORK", "[]").output().unwrap(), 1);
    assert!(text.contains("delivery.allow_networks"), "{text}");
}

#[test]
fn a_new_connector_passes_its_own_check_and_tests() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    succeeds(&run(&["connector", "new", "my-app", "--dir", at]));
    let folder = format!("{at}/my-app");
    assert!(succeeds(&run(&["connector", "check", &folder])).contains("my-app"));
    assert!(succeeds(&run(&["connector", "test", &folder])).contains(" 0 failed"));
    assert!(fails(&run(&["connector", "new", "my-app", "--dir", at]), 1).contains("there already"));
    assert!(fails(&run(&["connector", "new", "My App", "--dir", at]), 1).contains("lower-case"));
}

#[test]
fn a_broken_connector_is_told_by_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    succeeds(&run(&["connector", "new", "my-app", "--dir", at]));
    let spec = dir.path().join("my-app/spec.yml");
    let text = std::fs::read_to_string(&spec).unwrap();
    std::fs::write(&spec, format!("{text}\nnoSuchField: 1\n")).unwrap();
    let told = fails(&run(&["connector", "check", &format!("{at}/my-app")]), 1);
    assert!(told.contains("spec.yml, line ") && told.contains("noSuchField"), "{told}");
}

#[test]
fn a_broken_script_is_told_by_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    succeeds(&run(&["connector", "new", "my-app", "--dir", at]));
    let hook = dir.path().join("my-app/global-webhooks/all");
    std::fs::create_dir_all(&hook).unwrap();
    std::fs::write(hook.join("spec.yml"), "name: All\nkey: all\nmethods: {handle: {implementationType: javascript}}\n")
        .unwrap();
    std::fs::write(hook.join("handle.js"), "export default function handle() {\n  return {{\n}\n").unwrap();
    let told = fails(&run(&["connector", "check", &format!("{at}/my-app")]), 1);
    assert!(told.contains("global-webhooks/all/handle.js") && told.contains("line 2"), "{told}");
}

#[test]
fn the_connectors_in_the_binary_hold_what_their_tests_say() {
    let listed = succeeds(&run(&["connector", "check"]));
    for key in ["sandbox", "adobe-commerce", "generic"] {
        assert!(listed.lines().any(|line| line.starts_with(key)), "{listed}");
        succeeds(&run(&["connector", "test", key]));
    }
}

#[test]
fn a_delivery_is_verified_and_a_forged_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = r#"{"test": 2432232314}"#;
    let signature =
        standardwebhooks::Webhook::new(secret).unwrap().sign("msg_1", 1_614_265_330, body.as_bytes()).unwrap();
    let headers = file(
        "headers.txt",
        &format!("HTTP/1.1 200 OK\nWebhook-Id: msg_1\nwebhook-timestamp: 1614265330\nwebhook-signature: {signature}\n"),
    );
    let (good, forged) = (file("body", body), file("forged", "{}"));
    let verify =
        |body: &str, at: &str| run(&["verify", "--body", body, "--headers", &headers, "--secret", secret, "--at", at]);
    let said = succeeds(&verify(&good, "2021-02-25T15:02:11Z"));
    assert!(said.contains("good") && !said.contains("whsec_"), "{said}");
    fails(&verify(&forged, "2021-02-25T15:02:11Z"), 1);
    assert!(out(&verify(&good, "2021-02-25T16:02:11Z")).contains("BAD"));
    let without = run(&["verify", "--body", &good, "--headers", &headers, "--at", "2021-02-25T15:02:11Z"]);
    assert!(fails(&without, 1).contains("no signature was checked"));
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let mut check = tidemill(&["check"]);
    let output = check.env("TIDEMILL__STORAGE__PATH", &path).output().unwrap();
    assert!(fails(&output, 1).contains("there is no store"));
    assert!(!path.exists());
}

/// A node of its own, killed when the test ends.
struct Node {
    child: Child,
    url: String,
}

impl Node {
    fn start_on(store: &Path) -> Self {
        let port = free_port();
        let child = tidemill(&["serve"])
            .env("TIDEMILL__SERVER__LISTEN", format!("127.0.0.1:{port}"))
            .env("TIDEMILL__STORAGE__PATH", store)
            .env("TIDEMILL_API_KEY", API_KEY)
            .env("TIDEMILL_OPERATOR_KEY", OPERATOR_KEY)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let node = Self { child, url: format!("http://127.0.0.1:{port}") };
        let until = Instant::now() + Duration::from_secs(30);
        while !is_ready(port) {
            assert!(Instant::now() < until, "the node does not become ready");
            std::thread::yield_now();
        }
        node
    }

    fn listen(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    fn call(&self, arguments: &[&str]) -> Output {
        let mut command = tidemill(arguments);
        command.args(["--url", &self.url]);
        command.env("TIDEMILL_API_KEY", API_KEY).env("TIDEMILL_OPERATOR_KEY", OPERATOR_KEY).output().unwrap()
    }

    fn check(&self, path: &Path) -> Output {
        tidemill(&["check"]).env("TIDEMILL__STORAGE__PATH", path).output().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _it_may_be_gone = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

#[test]
fn keys_and_workspaces_are_made_listed_and_taken_away_on_a_running_node() {
    let data = tempfile::tempdir().unwrap();
    let store = data.path().join("store");
    let mut node = Node::start_on(&store);
    let made = succeeds(&node.call(&["keys", "create", "for ci", "--scope", "read", "--json"]));
    let made: Value = serde_json::from_str(&made).unwrap();
    let (id, text) = (made["key"]["keyId"].as_str().unwrap(), made["key"]["apiKey"].as_str().unwrap());
    let listed = succeeds(&node.call(&["keys", "list"]));
    assert!(listed.contains(id) && listed.contains("for ci") && !listed.contains(text), "{listed}");

    let mut with_read_key = tidemill(&["keys", "list", "--url", &node.url]);
    let refused = fails(&with_read_key.env("TIDEMILL_API_KEY", text).output().unwrap(), 1);
    assert!(refused.contains("403"), "{refused}");
    succeeds(&node.call(&["keys", "revoke", id]));
    assert!(fails(&node.call(&["keys", "revoke", id]), 1).contains("404"));

    status(&node);
    let made = succeeds(&node.call(&["workspaces", "create", "acme"]));
    let id = made.split_whitespace().next().unwrap();
    assert!(made.contains("tmk_"), "{made}");
    assert!(fails(&node.call(&["workspaces", "create", "acme"]), 1).contains("409"));
    assert!(succeeds(&node.call(&["workspaces", "list"])).contains("acme"));
    succeeds(&node.call(&["workspaces", "delete", id, "--yes"]));
    assert!(!succeeds(&node.call(&["workspaces", "list"])).contains("acme"));

    assert!(fails(&node.check(&store), 1).contains("in use"));
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    let health = succeeds(&node.check(&store));
    assert!(health.contains("no damage"), "{health}");
    on_the_store_itself(&store);
    let mut dry = tidemill(&["check", "--upgrade-dry-run"]);
    let said = succeeds(&dry.env("TIDEMILL__STORAGE__PATH", &store).output().unwrap());
    assert!(said.contains("nothing to upgrade"), "{said}");
}

/// The workspace's key shows the workspace, the operator's key the node.
fn status(node: &Node) {
    let shown = succeeds(&node.call(&["status"]));
    assert!(shown.contains("0 pending") && shown.contains("connections") && !shown.contains("disk"), "{shown}");
    let of_node = succeeds(&node.call(&["status", "--node"]));
    assert!(of_node.contains("takes work") && of_node.contains("disk") && of_node.contains("free"), "{of_node}");
    let json: Value = serde_json::from_str(&succeeds(&node.call(&["status", "--json", "--limit", "1"]))).unwrap();
    assert_eq!(json["status"]["lanes"], serde_json::json!([]));
    assert_eq!(node.call(&["status", "--limit", "0"]).status.code(), Some(2));
}

/// The same actions on a store that no node has open: no key is asked for, and a node finds what was made.
fn on_the_store_itself(store: &Path) {
    let call = |arguments: &[&str]| tidemill(arguments).env("TIDEMILL__STORAGE__PATH", store).output().unwrap();
    let made: Value = serde_json::from_str(&succeeds(&call(&["workspaces", "create", "beta", "--json"]))).unwrap();
    let first = made["key"]["apiKey"].as_str().unwrap();
    assert!(first.starts_with("tmk_"), "{made}");
    assert!(fails(&call(&["workspaces", "create", "beta"]), 1).contains("409"));
    assert!(succeeds(&call(&["workspaces", "list"])).contains("beta"));
    assert!(succeeds(&call(&["status", "--workspace", "beta"])).contains("0 pending"));
    assert!(succeeds(&call(&["status", "--node"])).contains("2 workspaces"));
    let made = succeeds(&call(&["keys", "create", "by hand", "--scope", "admin", "--workspace", "beta"]));
    let (id, key) = (made.split_whitespace().next().unwrap(), made.lines().nth(1).unwrap());
    let listed = succeeds(&call(&["keys", "list", "--workspace", "beta"]));
    assert!(listed.contains("by hand") && !listed.contains(key), "{listed}");
    assert!(!succeeds(&call(&["keys", "list"])).contains("by hand"));
    assert!(fails(&call(&["keys", "list", "--workspace", "gamma"]), 1).contains("gamma"));

    let node = Node::start_on(store);
    // Now a node has it open: the same line goes through the node, and needs a key.
    let mut line = tidemill(&["keys", "list"]);
    line.env("TIDEMILL__STORAGE__PATH", store).env("TIDEMILL__SERVER__LISTEN", node.listen());
    assert!(fails(&line.output().unwrap(), 2).contains("TIDEMILL_API_KEY"));
    assert!(succeeds(&line.env("TIDEMILL_API_KEY", key).output().unwrap()).contains("by hand"));
    drop(node);

    succeeds(&call(&["keys", "revoke", id, "--workspace", "beta"]));
    let id = serde_json::from_str::<Value>(&succeeds(&call(&["workspaces", "list", "--json"]))).unwrap();
    let id = id.as_array().unwrap().iter().find(|w| w["name"] == "beta").unwrap()["workspaceId"].as_str().unwrap();
    succeeds(&call(&["workspaces", "delete", id, "--yes"]));
    assert!(!succeeds(&call(&["workspaces", "list"])).contains("beta"));
}
