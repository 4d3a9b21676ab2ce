//! The house rules, as a test. A rule that fights the code is changed here, in the open, with its reason.
//!
//! Always true: each rule is a function from files to complaints, and a test below shows that it can complain. Rules
//! that clippy can check are in `.clippy.toml` and in Cargo.toml, not here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tidemill::domain::delivery::AttemptError;
use tidemill::error::Code;
use tidemill::telemetry;

/// A source file as the rules see it.
struct File {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
    /// The text with comments and literals blanked out and test-only items removed; lines keep their numbers.
    code: String,
    /// Its length, test-only items aside.
    lines: usize,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let (code, test_lines) = without_tests(&blank(text));
        let lines = text.lines().count() - test_lines;
        Self { path: path.to_owned(), text: text.to_owned(), code, lines }
    }

    /// The folder or file directly below `src`: the unit of the import table.
    fn unit(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }

    /// How many `super::` lead from this file's module to the crate's root.
    fn depth(&self) -> usize {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let parts = inside.split('/').count();
        if matches!(inside, "lib" | "main") { 0 } else { parts - usize::from(inside.ends_with("/mod")) }
    }

    fn complaint(&self, line: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }
}

type Rule = fn(&[File]) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    ("imports follow the table of ARCHITECTURE.md", imports),
    ("each file opens with its job", headers),
    ("files have up to 400 lines", file_lengths),
    ("functions have up to 70 lines", function_lengths),
    ("a library stays where it can be replaced", contained_crates),
    ("production code does not panic", no_panics),
    ("nothing is process-wide", no_shortcuts),
    ("domain is pure", pure_domain),
];

/// Who may import whom, below `src`. `error`, `clock` and `telemetry` are for everyone; `app`, `main` and `lib` may
/// import everything.
const IMPORTS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("error", &[]),
    ("telemetry", &[]),
    ("clock", &["domain"]),
    ("outbound", &["domain"]),
    ("store", &["domain"]),
    ("connectors", &["domain", "outbound"]),
    ("destinations", &["domain", "outbound"]),
    ("bus", &["domain", "store"]),
    ("actors", &["domain", "store", "connectors", "destinations", "bus", "outbound"]),
    // The API shows what a destination says of an address, tries one out, and publishes the keys it signs with.
    ("api", &["domain", "store", "connectors", "destinations", "actors", "outbound"]),
    ("cli", &["app", "config", "domain", "outbound", "sandbox"]),
    ("sandbox", &["domain"]),
    ("config", &["actors", "api", "connectors", "destinations", "domain", "outbound", "sandbox", "store"]),
];
const FOR_EVERYONE: &[&str] = &["error", "clock", "telemetry"];
const MAY_ALL: &[&str] = &["app", "main", "lib"];

fn imports(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        // Tests join what production keeps apart.
        let Some(unit) = file.unit().filter(|unit| !MAY_ALL.contains(unit) && !is_test(&file.path)) else { continue };
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == unit) else {
            complaints.push(file.complaint(0, &format!("{unit} is not in the import table")));
            continue;
        };
        for (line, target) in crate_paths(file) {
            let fine = target == unit || allowed.contains(&target.as_str()) || FOR_EVERYONE.contains(&target.as_str());
            if !fine {
                complaints.push(file.complaint(line, &format!("{unit} may not import {target}")));
            }
        }
    }
    complaints
}

/// The units that a file names, by `crate::x`, `crate::{x, y}` or enough `super::`.
fn crate_paths(file: &File) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(file.depth().max(1));
    let mut found = Vec::new();
    for root in ["crate::", to_root.as_str()] {
        for (at, _) in file.code.match_indices(root) {
            let before = &file.code[..at];
            if before.ends_with("super::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            // A longer chain of `super::` in a nested module is not the root; none of ours nests modules in a file.
            let rest = &file.code[at + root.len()..];
            let line = before.lines().count().saturating_sub(usize::from(!before.ends_with('\n')));
            for name in first_names(rest) {
                if name.chars().next().is_some_and(char::is_lowercase) && name != "super" {
                    found.push((line, name));
                }
            }
        }
    }
    found
}

/// The first part of each path in `x::y`, or in `{x::y, z}`.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                names.push(word(&group[start..at]));
                start = at + 1;
            }
            '}' if depth == 0 => {
                names.push(word(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name: &String| !name.is_empty());
    names
}

fn headers(files: &[File]) -> Vec<String> {
    let opens = |file: &&File| !file.text.starts_with("//! ");
    files.iter().filter(opens).map(|f| f.complaint(0, "the file does not open with a `//!` line: its job")).collect()
}

fn file_lengths(files: &[File]) -> Vec<String> {
    let long = |file: &&File| file.path.starts_with("src/") && !is_test(&file.path) && file.lines > 400;
    files.iter().filter(long).map(|f| f.complaint(0, &format!("{} lines, tests aside", f.lines))).collect()
}

fn function_lengths(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|f| f.path.starts_with("src/") && !is_test(&f.path)) {
        for at in words(&file.code, "fn") {
            let rest = &file.code[at..];
            let Some(open) = rest.find(['{', ';']).filter(|o| rest[*o..].starts_with('{')) else { continue };
            let lines = rest[..open + block(&rest[open..])].lines().count();
            if lines > 70 {
                let name: String = rest[2..].trim_start().chars().take_while(|c| *c != '(' && *c != '<').collect();
                let line = file.code[..at].matches('\n').count();
                complaints.push(file.complaint(line, &format!("fn {name} has {lines} lines")));
            }
        }
    }
    complaints
}

/// A library, the paths below `src` that may name it, and why.
const CONTAINED: &[(&str, &[&str], &str)] = &[
    ("rocksdb", &["store/"], "only the store knows RocksDB"),
    ("rquickjs", &["connectors/script"], "only connectors/script knows the JS engine"),
    ("actix", &["actors/", "api/", "app"], "actors and HTTP are shells"),
    ("actix_rt", &["actors/", "api/", "app"], "actors and HTTP are shells"),
    // The sandbox is a third party with a server of its own; the demo's receiver is another.
    ("actix_web", &["api/", "app", "sandbox/", "cli/demo"], "HTTP is a shell"),
    // The sandbox is a third party with a client of its own; the command line calls what its user names.
    ("reqwest", &["outbound/", "sandbox/", "cli/"], "every call leaves through the guarded client"),
    ("prometheus", &["telemetry.rs"], "telemetry has the one table of metrics"),
];

fn contained_crates(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let Some(inside) = file.path.strip_prefix("src/").filter(|_| !is_test(&file.path)) else { continue };
        for (name, allowed, why) in CONTAINED {
            if allowed.iter().any(|prefix| inside.starts_with(prefix)) {
                continue;
            }
            for at in words(&file.code, name).into_iter().filter(|at| file.code[at + name.len()..].starts_with("::")) {
                let line = file.code[..at].matches('\n').count();
                complaints.push(file.complaint(line, &format!("{name} is used here, but {why}")));
            }
        }
    }
    complaints
}

const PANICS: &[&str] =
    &[".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "dbg!(", ".unwrap_err()"];

fn no_panics(files: &[File]) -> Vec<String> {
    forbidden(files, |_| true, PANICS, "can panic in production; return an error")
}

/// What reaches around the arguments. `clippy` knows the methods; these are the ones that it cannot name.
const SHORTCUTS: &[&str] = &[
    "static mut ",
    "lazy_static!",
    ": Mutex<",
    ": OnceLock<",
    "fastrand::u",
    "fastrand::i",
    "fastrand::f",
    "fastrand::bool",
    "fastrand::shuffle",
    "process::exit(",
    "env::var(",
    "env::var_os(",
    "env::set_var(",
];

fn no_shortcuts(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|f| f.path.starts_with("src/") && !is_test(&f.path)) {
        for (number, line) in file.code.lines().enumerate() {
            let is_static = line.trim_start().trim_start_matches("pub ").starts_with("static ");
            for what in SHORTCUTS {
                let of_statics = what.starts_with(':');
                if line.contains(what) && (!of_statics || is_static) {
                    complaints.push(file.complaint(number, &format!("{what} reaches around the arguments")));
                }
            }
        }
    }
    complaints
}

const IMPURE: &[&str] = &["async fn", ".await", "std::fs", "tokio::", "Instant::now", "actix", "std::thread"];

fn pure_domain(files: &[File]) -> Vec<String> {
    forbidden(files, |path| path.starts_with("src/domain/"), IMPURE, "is I/O, waiting or a clock; domain has none")
}

fn forbidden(files: &[File], which: fn(&str) -> bool, patterns: &[&str], why: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|f| f.path.starts_with("src/") && !is_test(&f.path) && which(&f.path)) {
        for (number, line) in file.code.lines().enumerate() {
            for pattern in patterns.iter().filter(|p| line.contains(**p)) {
                complaints.push(file.complaint(number, &format!("{pattern} {why}")));
            }
        }
    }
    complaints
}

/// A file that is compiled for tests only.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/")
}

/// Where `word` stands as a word of its own.
fn words(code: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: &usize| !code[..*at].ends_with(part) && !code[at + word.len()..].starts_with(part);
    code.match_indices(word).map(|(at, _)| at).filter(alone).collect()
}

/// The length of the block that `code` opens with `{`.
fn block(code: &str) -> usize {
    let mut depth = 0_i32;
    for (at, c) in code.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Blanks comments and the inside of literals, keeping every newline.
fn blank(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), String::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let len = literal(rest, bytes[..at].last().copied()).unwrap_or(0);
        if len == 0 {
            let c = rest.chars().next().unwrap_or(' ');
            out.push(c);
            at += c.len_utf8();
        } else {
            out.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            at += len;
        }
    }
    out
}

/// The length of the comment or literal that `rest` opens with, if it does.
fn literal(rest: &str, before: Option<u8>) -> Option<usize> {
    let in_word = before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    let raw = rest.trim_start_matches('b');
    if !in_word && raw.starts_with('r') {
        let hashes = raw[1..].bytes().take_while(|b| *b == b'#').count();
        if raw[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = rest.len() - raw.len() + hashes + 2;
            return Some(rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len()));
        }
    }
    if let Some(inside) = rest.strip_prefix('"') {
        let mut escaped = false;
        for (at, c) in inside.char_indices() {
            match c {
                '"' if !escaped => return Some(at + 2),
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        return Some(rest.len());
    }
    // A character, as against a lifetime: 'x' or '\…'.
    let mut chars = rest.char_indices().skip(1);
    match (rest.starts_with('\''), chars.next()) {
        (true, Some((_, '\\'))) => rest[3..].find('\'').map(|end| end + 4),
        (true, Some(_)) => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1),
        _ => None,
    }
}

/// Blanks each item below `#[cfg(test)]`, and says how many lines those have.
fn without_tests(code: &str) -> (String, usize) {
    let (mut out, mut lines) = (code.to_owned(), 0);
    while let Some(start) = out.find("#[cfg(test)]") {
        let rest = &out[start..];
        let end = match rest.find(['{', ';']) {
            Some(open) if rest[open..].starts_with('{') => start + open + block(&rest[open..]),
            Some(semicolon) => start + semicolon + 1,
            None => out.len(),
        };
        let gone: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        lines += gone.matches('\n').count();
        out.replace_range(start..end, &gone);
    }
    (out, lines)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// All Rust files below the given folders.
fn files(folders: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut waiting: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push(File::new(&name, &text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[test]
fn the_house_is_tidy() {
    let files = files(&["src", "tests", "benches"]);
    assert!(files.len() > 20, "the files were not found");
    let broken: Vec<_> = RULES
        .iter()
        .map(|(name, rule)| (name, rule(&files)))
        .filter(|(_, complaints)| !complaints.is_empty())
        .map(|(name, complaints)| format!("{name}:\n  {}", complaints.join("\n  ")))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn each_error_code_and_metric_is_in_the_docs() {
    let (errors, operations) = (read("docs/errors.md"), read("docs/operations.md"));
    let attempts = AttemptError::all().map(AttemptError::slug);
    let codes = Code::ALL.iter().map(|c| c.slug()).chain(attempts);
    let codes = codes.filter(|slug| !errors.contains(&format!("`{slug}`")));
    assert_eq!(codes.collect::<Vec<_>>(), Vec::<&str>::new(), "missing in docs/errors.md");
    let metrics = telemetry::TABLE.iter().map(|m| m.name).filter(|name| !operations.contains(&format!("`{name}`")));
    assert_eq!(metrics.collect::<Vec<_>>(), Vec::<&str>::new(), "missing in docs/operations.md");
}

/// Dashboards and alerts that ask for a metric that is gone would be silent.
#[test]
fn dashboards_alerts_and_docs_ask_for_metrics_that_exist() {
    let known: BTreeSet<_> = telemetry::TABLE.iter().map(|m| m.name).collect();
    for path in ["docs/operations.md", "config/prometheus/tidemill.rules.yml", "config/grafana/tidemill.json"] {
        let text = read(path);
        assert!(!text.is_empty(), "{path} is missing");
        for at in words_from(&text, "tidemill_") {
            let name: String = text[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if name == "tidemill_" {
                continue; // a file's name, such as tidemill_0.1.0_amd64.deb
            }
            let base = name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
            assert!(known.contains(base) || known.contains(name.as_str()), "{path} names {name}, which is no metric");
        }
    }
}

fn words_from(text: &str, start: &str) -> Vec<usize> {
    let at_start = |at: &usize| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices(start).map(|(at, _)| at).filter(at_start).collect()
}

/// A link that leads nowhere is worse than none.
#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut pages = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    let docs = fs::read_dir(root().join("docs")).expect("docs/ is there").flatten();
    pages.extend(docs.map(|entry| format!("docs/{}", entry.file_name().to_string_lossy())));
    for page in pages.iter().filter(|page| page.ends_with(".md")) {
        let text = read(page);
        let folder = Path::new(page).parent().unwrap_or(Path::new(""));
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split(')').next().unwrap_or_default();
            let file = link.split('#').next().unwrap_or_default();
            let ours = !file.is_empty() && !file.contains("://");
            assert!(!ours || root().join(folder).join(file).exists(), "{page} links to {link}, which is not there");
        }
    }
}

/// What `cargo machete` looks for: a dependency that no file names.
#[test]
fn each_dependency_is_used() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let sources = files(&["src", "tests", "benches"]);
    for (section, folders) in [("dependencies", &["src/"][..]), ("dev-dependencies", &["src/", "tests/", "benches/"])] {
        let named = manifest.get(section).and_then(|s| s.as_table()).into_iter().flat_map(|t| t.keys());
        for name in named {
            let word = name.replace('-', "_");
            let used = |f: &&File| folders.iter().any(|p| f.path.starts_with(p)) && !words(&f.text, &word).is_empty();
            assert!(sources.iter().any(|f| used(&f)), "{name} is in [{section}] of Cargo.toml, but no file uses it");
        }
    }
}

/// A setting that nothing obeys is a promise that nothing keeps.
#[test]
fn each_setting_is_obeyed() {
    let manual: toml::Table = read("config/tidemill.toml").parse().expect("the configuration is TOML");
    let sources = files(&["src"]);
    let keys = manual.values().filter_map(|section| section.as_table()).flat_map(|table| table.keys());
    // Declared once, as a field; anything more is a use. The rules of `config` do not obey, they only check.
    let uses = |key: &String| {
        let obeys = |f: &&File| !f.path.starts_with("src/config/check") && !is_test(&f.path);
        sources.iter().filter(obeys).map(|f| words(&f.code, key).len()).sum::<usize>()
    };
    let idle: BTreeSet<_> = keys.filter(|key| !key.ends_with("_file") && uses(key) < 2).collect();
    assert!(idle.is_empty(), "nothing obeys {idle:?}");
}

/// A metric that nothing moves says that all is well.
#[test]
fn each_metric_is_counted() {
    let table = read("src/telemetry.rs");
    let sources: Vec<_> = files(&["src"]).into_iter().filter(|f| f.path != "src/telemetry.rs").collect();
    for row in telemetry::TABLE.iter().filter(|row| row.name != "tidemill_build_info") {
        let line = table.lines().find(|line| line.contains(&format!("\"{}\"", row.name))).expect("in the table");
        let field = format!(".{}", line.trim().split(' ').next().unwrap_or_default());
        let counted =
            |f: &File| f.code.match_indices(&field).any(|(at, _)| !f.code[at + field.len()..].starts_with(word));
        assert!(sources.iter().any(counted), "nothing moves {}", row.name);
    }
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn each_rule_can_complain() {
    let long_function = format!("//! x\nfn long() {{\n{}}}\n", "    a();\n".repeat(70));
    let long_file = format!("//! x\n{}", "// y\n".repeat(400));
    let bad: &[(Rule, &str, &str)] = &[
        (imports, "src/store/x.rs", "use crate::connectors::Registry;"),
        (imports, "src/store/x.rs", "use crate::{domain::id, api};"),
        (imports, "src/store/x.rs", "use super::super::api::x;"),
        (imports, "src/sandbox/mod.rs", "fn f() { crate::store::x() }"),
        (imports, "src/sandbox/mod.rs", "use super::store;"),
        (imports, "src/novelty/x.rs", ""),
        (headers, "src/x.rs", "use std::fs;"),
        (file_lengths, "src/x.rs", &long_file),
        (function_lengths, "src/x.rs", &long_function),
        (contained_crates, "src/api/x.rs", "use rocksdb::DB;"),
        (contained_crates, "src/store/x.rs", "fn f(x: actix::Addr<X>) {}"),
        (contained_crates, "src/connectors/client.rs", "use rquickjs::Context;"),
        (contained_crates, "src/api/x.rs", "reqwest::Client::new()"),
        (no_panics, "src/x.rs", "fn f() { x.unwrap(); }"),
        (no_panics, "src/x.rs", "fn f() { todo!() }"),
        (no_panics, "src/x.rs", "#[cfg(test)]\nmod tests { }\nfn f() { x.expect(\"y\") }"),
        (no_shortcuts, "src/x.rs", "static SEEN: Mutex<u8> = Mutex::new(0);"),
        (no_shortcuts, "src/x.rs", "fn f() { std::env::var(\"X\"); }"),
        (no_shortcuts, "src/x.rs", "fn f() { fastrand::u64(..); }"),
        (pure_domain, "src/domain/x.rs", "pub async fn f() {}"),
    ];
    for (rule, path, text) in bad {
        assert_eq!(rule(&[File::new(path, text)]).len(), 1, "no complaint about {path}: {text}");
    }
    for (name, rule) in RULES {
        assert!(bad.iter().any(|(tried, ..)| std::ptr::fn_addr_eq(*tried, *rule)), "{name} has no bad example");
    }
}

#[test]
fn each_rule_can_be_content() {
    let good = "//! Its job.\n//!\n//! `crate::api` is not here.\n\nuse crate::domain::id::Seq;\nuse crate::error::Result;\n\n\
        /// Says \"x.unwrap()\".\nfn f<'a>(x: &'a str) -> char {\n    let _ = (r#\"crate::api { .unwrap() \"#, '\"', '\\'', '{');\n    \
        x.unwrap_or_default()\n}\n\n#[cfg(test)]\nmod tests {\n    use crate::api;\n    fn g() { x.unwrap(); }\n}\n";
    for (name, rule) in RULES {
        assert_eq!(rule(&[File::new("src/store/x.rs", good)]), Vec::<String>::new(), "{name}");
    }
}
