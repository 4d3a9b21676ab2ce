//! `tidemill connector run` against the sandbox: what it prints, what it keeps, what it never shows.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidemill::clock::Clock;
use tidemill::domain::time::Millis;
use tidemill::sandbox::{self, Handle, Options};

const KEY: &str = "sandbox-key-1";
/// Nothing here takes so long; whatever does hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running sandbox, and a copy of its connector that a test may change.
struct Desk {
    dir: TempDir,
    url: String,
    _sandbox: Handle,
}

impl Desk {
    async fn new() -> Self {
        let sandbox = sandbox::run(Options::quiet(), Clock::start(Millis(0))).await.expect("a free port");
        let dir = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/connectors/sandbox");
        copy(&from, &dir.path().join("sandbox"));
        let desk = Self { dir, url: sandbox.url(), _sandbox: sandbox };
        desk.credentials(&format!("{{\"apiKey\":\"{KEY}\"}}"), 0o600);
        desk
    }
    fn folder(&self) -> PathBuf {
        self.dir.path().join("sandbox")
    }
    fn credentials(&self, text: &str, mode: u32) {
        let path = self.dir.path().join("key.json");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.args(["connector", "run", "sandbox", "--allow-network", "127.0.0.0/8", "--base-uri", &self.url]);
        command.args(more);
        command
    }
    async fn run(&self, more: &[&str]) -> Output {
        let mut command = self.command(more);
        command.args(["--credentials", "key.json"]);
        output(command).await
    }
    async fn test(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.env_clear().current_dir(self.dir.path()).args(["connector", "test", "sandbox"]);
        output(command).await
    }
}

/// Waits beside the sandbox, which lives in this process.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}

fn said(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[track_caller]
fn succeeds(output: &Output) -> (String, String) {
    let (out, err) = said(output);
    assert!(output.status.success(), "{out}{err}");
    (out, err)
}

#[track_caller]
fn fails(output: &Output, code: i32) -> String {
    let (out, err) = said(output);
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    err.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_prints_unified_records_and_what_was_asked_and_no_credentials() {
    let desk = Desk::new().await;
    let (out, err) = succeeds(&desk.run(&["--collection", "orders", "--pages", "1"]).await);
    let records: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!records.is_empty());
    for record in &records {
        assert_eq!(record["collection"], "orders");
        assert!(record["remoteId"].is_string() && record["fields"]["totalPrice"].is_number(), "{record}");
    }
    assert!(err.contains("GET /api/orders?") && err.contains("-> 200, "), "{err}");
    assert!(!out.contains(KEY) && !err.contains(KEY), "{err}");

    let id = records[0]["remoteId"].as_str().unwrap();
    let fetched = succeeds(&desk.run(&["--collection", "orders", "--method", "fetch", "--id", id]).await).0;
    assert_eq!(serde_json::from_str::<Value>(&fetched).unwrap(), records[0], "both ways give the same");
    assert_eq!(succeeds(&desk.run(&["--method", "account"]).await).0, "{\"account\":\"acc_1\"}\n");
    let all = succeeds(&desk.run(&["--pages", "1"]).await).0;
    for collection in ["contacts", "customers", "opportunities", "orders", "users"] {
        assert!(all.contains(&format!("\"collection\":\"{collection}\"")), "{collection} is missing");
    }
    let nothing = succeeds(&desk.run(&["--collection", "orders", "--since", "2099-01-01T00:00:00Z"]).await);
    assert_eq!(nothing.0, "");
    assert!(nothing.1.contains("updated_since=2099-01-01"), "{}", nothing.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_a_private_file_or_the_environment_and_are_never_told() {
    let desk = Desk::new().await;
    let from_environment = |text: &str| {
        let mut command = desk.command(&["--method", "account"]);
        command.env("TIDEMILL_CREDENTIALS", text);
        command
    };
    succeeds(&output(from_environment(&format!("{{\"apiKey\":\"{KEY}\"}}"))).await);
    let wrong = output(from_environment("{\"apiKey\":\"not-a-key-of-it\"}")).await;
    assert!(fails(&wrong, 1).contains("the app does not accept the credentials"));
    assert!(!said(&wrong).1.contains("not-a-key-of-it"));
    let broken = output(from_environment("not-json-but-secret")).await;
    assert!(fails(&broken, 1).ends_with("TIDEMILL_CREDENTIALS: the credentials are not JSON (line 1, column 2)"));
    let kind = output(from_environment("{\"username\":\"u\",\"password\":\"pppppp\"}")).await;
    assert!(fails(&kind, 1).contains("do not open Sandbox; it takes oauth2, apiKey, bearer; give credentials by"));

    desk.credentials(&format!("{{\"apiKey\":\"{KEY}\"}}"), 0o644);
    let told = fails(&desk.run(&["--method", "account"]).await, 1);
    assert!(told.ends_with("key.json: others may read these credentials: chmod 600 it first"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_together_is_told_with_exit_code_two() {
    let desk = Desk::new().await;
    for (arguments, hint) in [
        (&["--method", "fetch", "--collection", "orders"][..], "--id"),
        (&["--id", "7"][..], "--method fetch"),
        (&["--since", "yesterday"][..], "is no time"),
        (&["--since", "2026-01-01T00:00:00Z", "--method", "scan"][..], "--since is for pull and deleted"),
    ] {
        let told = fails(&desk.run(arguments).await, 2);
        assert!(told.contains(hint), "{told}");
    }
    assert_eq!(desk.run(&["--method", "push"]).await.status.code(), Some(2));
    assert_eq!(desk.run(&["--pages", "0"]).await.status.code(), Some(2));
    let told = fails(&desk.run(&["--collection", "order"]).await, 1);
    assert!(told.contains("there is no collection \"order\"; there are contacts, customers"), "{told}");
    let told = fails(&desk.run(&["--collection", "users", "--method", "pull"]).await, 1);
    assert!(told.contains("the collection users has no pull"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_allowed_network_nothing_on_this_machine_is_called() {
    let desk = Desk::new().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.env_clear().current_dir(desk.dir.path()).env("TIDEMILL_CREDENTIALS", format!("{{\"apiKey\":\"{KEY}\"}}"));
    command.args(["connector", "run", "sandbox", "--method", "account", "--base-uri", &desk.url]);
    assert!(fails(&output(command).await, 1).contains("the app's address is forbidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_is_a_test_that_holds_and_that_notices_a_change() {
    let desk = Desk::new().await;
    let file = "sandbox/tests/recorded.yml";
    succeeds(&desk.run(&["--pages", "2", "--record", file]).await);
    let text = fs::read_to_string(desk.dir.path().join(file)).unwrap();
    assert!(!text.contains(KEY) && text.matches("request: ").count() == 5, "{text}");
    let before = succeeds(&desk.test().await).0;
    // It can be recorded again, but not over what a person wrote.
    succeeds(&desk.run(&["--method", "account", "--record", file]).await);
    assert!(fs::read_to_string(desk.dir.path().join(file)).unwrap().contains("account: acc_1"));
    succeeds(&desk.test().await);
    let told = fails(&desk.run(&["--method", "account", "--record", "sandbox/tests/orders.yml"]).await, 1);
    assert!(told.ends_with("was not recorded but written: name another file"), "{told}");

    succeeds(&desk.run(&["--pages", "2", "--record", file]).await);
    assert_eq!(succeeds(&desk.test().await).0, before);
    let map = desk.folder().join("data/customers/record.map.yml");
    let mapping = fs::read_to_string(&map).unwrap();
    fs::write(&map, mapping.replace("$.first_name", "$.last_name")).unwrap();
    let (out, _) = said(&desk.test().await);
    assert!(out.contains("tests/recorded.yml") && out.contains("fields.firstName is"), "{out}");
    fs::write(&map, mapping).unwrap();
    let pull = desk.folder().join("data/customers/pull.rest.yml");
    let list = fs::read_to_string(&pull).unwrap();
    fs::write(&pull, list.replace("size: 100", "size: 50")).unwrap();
    let (out, _) = said(&desk.test().await);
    assert!(out.contains("answers[0]: the app was asked GET /api/customers?"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_script_are_recorded_and_played_back() {
    let desk = Desk::new().await;
    let folder = desk.folder().join("data/customers");
    fs::remove_file(folder.join("pull.rest.yml")).unwrap();
    let script = "export default async function pull({ apiClient, page }) {\n\
        \x20 const me = await apiClient.get('/api/me')\n\
        \x20 const list = await apiClient.get('/api/customers', { page: page ?? 1, page_size: 3, sort: 'updated_at' })\n\
        \x20 return { records: list.data.map(c => ({ ...c, email: me.account_id + '@example.com' })), next: (page ?? 1) + 1 }\n}\n";
    fs::write(folder.join("pull.js"), script).unwrap();
    let file = "sandbox/tests/recorded.yml";
    let (out, err) = succeeds(&desk.run(&["--collection", "customers", "--pages", "2", "--record", file]).await);
    assert_eq!((out.lines().count(), err.matches("GET /api/me -> 200").count()), (6, 2), "{out}{err}");
    assert!(err.contains("customers: there are more pages than 2"), "{err}");
    // Its other tests are of the list that is gone.
    fs::remove_file(desk.folder().join("tests/others.yml")).unwrap();
    succeeds(&desk.test().await);
    fs::write(folder.join("pull.js"), script.replace("page_size: 3", "page_size: 4")).unwrap();
    let (out, _) = said(&desk.test().await);
    assert!(out.contains("answers[1]: the app was asked GET /api/customers?page=1&page_size=4"), "{out}");
}

/// A run that is watched; it ends with the test.
struct Watched {
    child: Child,
    lines: Receiver<String>,
}

impl Watched {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for reader in [Box::new(out) as Box<dyn std::io::Read + Send>, Box::new(err)] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(reader).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Self { child, lines }
    }
    /// All lines of a turn, up to when it waits and has said all of this: what it prints and what it notes come by two
    /// pipes, in no order.
    fn turn(&self, wanted: &[&str]) -> String {
        let (mut text, mut waits) = (String::new(), false);
        while !waits || !wanted.iter().all(|wanted| text.contains(wanted)) {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it does not say {wanted:?}, but:\n{text}"));
            waits |= line.contains("waiting for the next save");
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_runs_it_again_and_a_broken_one_is_told_by_file_and_line() {
    let desk = Desk::new().await;
    let map = desk.folder().join("data/users/record.map.yml");
    let mapping = fs::read_to_string(&map).unwrap();
    let command = desk.command(&["--collection", "users", "--credentials", "key.json", "--watch"]);
    tokio::task::spawn_blocking(move || {
        let run = Watched::start(command);
        run.turn(&["GET /api/users", "\"collection\":\"users\""]);
        fs::write(&map, format!("{mapping}noSuchField: $.id\n")).unwrap();
        let broken = run.turn(&["data/users/record.map.yml, field noSuchField: the model crm/users"]);
        assert!(!broken.contains("GET /api"), "{broken}");
        fs::write(&map, format!("{mapping}customFields: {{watched: $.id}}\n")).unwrap();
        run.turn(&["\"watched\":"]);
    })
    .await
    .unwrap();
    let mut elsewhere = desk.command(&["--watch"]);
    elsewhere.current_dir("/");
    assert!(fails(&output(elsewhere).await, 2).contains("--watch needs a folder"));
}
