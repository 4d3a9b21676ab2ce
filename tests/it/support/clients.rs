//! The apps' own client libraries, in Python, pointed at our fakes: `tests/clients/<app>.py`.
//!
//! Always true: a program ends within its time; what is not installed is told and skipped. Not here: installing
//! (`scripts/deps --tests`).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long a program may take: its imports alone take seconds on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The interpreter of the environment that `scripts/deps --tests` makes.
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let python = cache.join("tidemill/clients/bin/python");
    python.exists().then_some(python)
}

/// Runs `tests/clients/<app>.py` with these arguments; answers what it printed. None: it was skipped, which is said.
/// `module` is what it imports. A program that fails fails the test, with all that it said.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub async fn run(app: &str, module: &str, arguments: &[&str]) -> Option<String> {
    let script = format!("{}/tests/clients/{app}.py", env!("CARGO_MANIFEST_DIR"));
    let Some(python) = python() else {
        eprintln!("SKIPPED: {app}.py: there is no environment with client libraries; run scripts/deps --tests");
        return None;
    };
    let mut probe = Command::new(&python);
    probe.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let probed = tokio::time::timeout(TIMEOUT, probe.status()).await.expect("imports within the time");
    if !probed.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {app}.py: the module {module} is not installed; run scripts/deps --tests");
        return None;
    }
    let mut command = Command::new(&python);
    command.arg(&script).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    // A proxy of the machine's has nothing to do with loopback.
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    let done = tokio::time::timeout(TIMEOUT, command.output()).await;
    let output = done.unwrap_or_else(|_| panic!("{app}.py did not end within {TIMEOUT:?}")).expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{app}.py failed: {}\n{out}\n{err}", output.status);
    Some(out.into_owned())
}
