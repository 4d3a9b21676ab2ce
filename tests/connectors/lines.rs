//! How many lines each built-in connector took, as docs/connectors.md says. `WRITE_DOCS=1` writes the table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- lines: written by `WRITE_DOCS=1 scripts/test --test connectors lines` -->\n";
const END: &str = "<!-- /lines -->";

/// Lines that say something: neither empty nor a comment.
fn lines(dir: &Path, ends: &str) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            count += lines(&path, ends);
        } else if path.to_string_lossy().ends_with(ends) {
            let comment = if ends == ".js" { "//" } else { "#" };
            let says = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with(comment);
            count += fs::read_to_string(&path).unwrap().lines().filter(says).count();
        }
    }
    count
}

fn table() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/connectors");
    let mut folders: Vec<_> = fs::read_dir(&root).unwrap().flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let mut text = "| connector | YAML | script | tests |\n| --- | --: | --: | --: |\n".to_owned();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let key = folder.file_name().unwrap().to_string_lossy();
        let tests = lines(&folder.join("tests"), ".yml");
        let (yaml, script) = (lines(folder, ".yml") - tests, lines(folder, ".js"));
        let _ = writeln!(text, "| {key} | {yaml} | {script} | {tests} |");
    }
    text
}

#[test]
#[allow(clippy::disallowed_methods, reason = "whoever runs the test says by the environment what it does")]
fn the_docs_say_how_many_lines_each_connector_took() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/connectors.md");
    let docs = fs::read_to_string(&path).unwrap();
    let (before, rest) = docs.split_once(BEGIN).expect("docs/connectors.md has the table's beginning");
    let (told, after) = rest.split_once(END).expect("docs/connectors.md has the table's end");
    let table = table();
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(told, table, "docs/connectors.md is behind: WRITE_DOCS=1 scripts/test --test connectors lines");
}
