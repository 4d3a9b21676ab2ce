//! docs/writing-a-connector.md, done as a reader does it: each file written, each command run, each output compared.
//! `WRITE_DOCS=1` writes the outputs into the page.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the page's fenced blocks are.
#[derive(Debug)]
enum Block {
    /// A file, by the path in its first line.
    File { path: String, text: String },
    /// Commands, with the lines of the page that hold what they print.
    Commands { text: String, printed: Option<std::ops::Range<usize>> },
    /// What runs in another terminal until the end.
    Terminal(String),
}

fn page() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/writing-a-connector.md")
}

fn blocks(lines: &[&str]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let Some(kind) = lines[at].strip_prefix("```") else {
            at += 1;
            continue;
        };
        let end = at + 1 + lines[at + 1..].iter().position(|line| *line == "```").expect("the block is closed");
        let text = lines[at + 1..end].join("\n");
        match kind {
            "yaml" => {
                let path = lines[at + 1].strip_prefix("# ").expect("the first line names the file").to_owned();
                blocks.push(Block::File { path, text });
            }
            "sh terminal" => blocks.push(Block::Terminal(text)),
            "sh" => blocks.push(Block::Commands { text, printed: None }),
            "text" => match blocks.last_mut() {
                Some(Block::Commands { printed, .. }) => *printed = Some(at + 1..end),
                other => panic!("what is printed belongs to a command, not to {other:?}"),
            },
            other => panic!("a block of kind {other:?}"),
        }
        at = end + 1;
    }
    blocks
}

/// One script that does all of it; what a block of commands prints stands behind its own mark.
fn script(blocks: &[Block], node: u16, desk: u16) -> String {
    let mut script = "set -eu\npids=\ntrap 'kill $pids' EXIT\n".to_owned();
    // Until a port answers; a terminal that does not start must not hang the test.
    script.push_str(
        "up() { for i in $(seq 600); do (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null && return 0; sleep 0.1; done; echo \"nothing on port $1\"; exit 1; }\n",
    );
    for (number, block) in blocks.iter().enumerate() {
        let _ = match block {
            Block::File { path, text } => {
                writeln!(script, "mkdir -p \"$(dirname {path})\"\ncat > {path} <<'END_OF_FILE'\n{text}\nEND_OF_FILE")
            }
            Block::Terminal(text) => {
                let port = if text.contains("serve") { node } else { desk };
                writeln!(script, "{text} > terminal-{number}.log 2>&1 &\npids=\"$pids $!\"\nup {port}")
            }
            Block::Commands { text, .. } => writeln!(script, "echo '@@{number}'\n{text}"),
        };
    }
    script
}

/// What differs from run to run, made the same.
fn steady(text: &str) -> String {
    let mut out = String::new();
    for line in text.trim_end().lines() {
        let words = line.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == ':'));
        for word in words {
            let bare = word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric()));
            let rest = &word[bare.len()..];
            let hex = bare.len() == 24 && bare.chars().all(|c| c.is_ascii_hexdigit());
            let uuid = bare.len() == 36 && bare.matches('-').count() == 4;
            // The fixed times of the page are of early 2026.
            let now = bare.len() >= 20 && bare.contains('T') && bare.ends_with('Z') && !is_fixed(bare);
            match (hex, uuid, now) {
                (true, ..) => out.push_str("<id>"),
                (_, true, _) => out.push_str("<uuid>"),
                (_, _, true) => out.push_str("<time>"),
                _ => out.push_str(bare),
            }
            out.push_str(rest);
        }
        out.push('\n');
    }
    // How long a call took.
    let mut steady = String::new();
    for line in out.lines() {
        match line.split_once(" -> 200, ") {
            Some((asked, _)) => steady.push_str(&format!("{asked} -> 200, N ms")),
            None => steady.push_str(line),
        }
        steady.push('\n');
    }
    steady
}

fn is_fixed(time: &str) -> bool {
    ["2026-01-31T", "2026-02-01T", "2026-02-02T"].iter().any(|day| time.starts_with(day))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

#[test]
fn the_tutorial_does_what_it_says() {
    for program in ["bash", "curl", "python3", "timeout"] {
        if !has(program) {
            eprintln!("SKIPPED the_tutorial_does_what_it_says: {program} is not installed");
            return;
        }
    }
    let text = fs::read_to_string(page()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let blocks = blocks(&lines);
    let (node, desk) = (free_port(), free_port());
    let dir = tempfile::tempdir().unwrap();
    fs::copy(page().with_file_name("helpdesk.py"), dir.path().join("helpdesk.py")).unwrap();
    let script = script(&blocks, node, desk).replace("7300", &node.to_string()).replace("7410", &desk.to_string());
    let binary = Path::new(env!("CARGO_BIN_EXE_tidemill")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    // What does not end is ended, with all that it started.
    let done = Command::new("timeout")
        .args(["300", "bash", "-c", &script])
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", std::env::var("HOME").unwrap_or_default())
        .env("TIDEMILL__SERVER__LISTEN", format!("127.0.0.1:{node}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    let out = out.replace(&format!("127.0.0.1:{node}"), "127.0.0.1:7300");
    let out = out.replace(&format!("127.0.0.1:{desk}"), "127.0.0.1:7410");
    let err = String::from_utf8_lossy(&done.stderr);
    let printed = |number: usize| {
        let (_, rest) = out.split_once(&format!("@@{number}\n"))?;
        Some(rest.split("@@").next().unwrap_or_default().trim_end().to_owned())
    };
    let mut page_now: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let write = std::env::var_os("WRITE_DOCS").is_some();
    let mut compared = 0;
    for (number, block) in blocks.iter().enumerate().rev() {
        let Block::Commands { text, printed: Some(told) } = block else { continue };
        let logs = || {
            let logs = fs::read_dir(dir.path())
                .unwrap()
                .flatten()
                .filter(|e| e.path().extension().is_some_and(|e| e == "log"));
            logs.map(|log| fs::read_to_string(log.path()).unwrap_or_default()).collect::<Vec<_>>().join("\n")
        };
        let printed = printed(number).unwrap_or_else(|| panic!("it ended before\n{text}\n{out}\n{err}\n{}", logs()));
        if write {
            page_now.splice(told.clone(), printed.lines().map(str::to_owned));
            continue;
        }
        assert_eq!(steady(&printed), steady(&lines[told.clone()].join("\n")), "of\n{text}\n{err}\n{}", logs());
        compared += 1;
    }
    assert!(done.status.success(), "{out}\n{err}");
    if write {
        fs::write(page(), page_now.join("\n") + "\n").unwrap();
        return;
    }
    assert!(compared >= 10, "only {compared} outputs were compared");
}
