//! What `scripts/audit` promises: it never passes silently.

use std::fs;
use std::process::{Command, Output};

/// Runs the audit against a database with one advisory about `serde`, which is locked, or with none.
fn audit(advisory: Option<&str>) -> (bool, String) {
    let database = tempfile::tempdir().expect("a temporary folder");
    let folder = database.path().join("crates/serde");
    fs::create_dir_all(&folder).expect("made");
    if let Some(versions) = advisory {
        let text = format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-1999-0001\"\npackage = \"serde\"\n\n[versions]\n{versions}\n```\n\n# Bad\n"
        );
        fs::write(folder.join("RUSTSEC-1999-0001.md"), text).expect("written");
    }
    run(&[("ADVISORY_DB", &database.path().display().to_string())])
}

fn run(env: &[(&str, &str)]) -> (bool, String) {
    let root = env!("CARGO_MANIFEST_DIR");
    let Output { status, stdout, stderr } = Command::new("scripts/audit")
        .current_dir(root)
        .envs(env.iter().copied())
        .output()
        .expect("scripts/audit can be started");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn a_locked_crate_with_an_open_advisory_fails() {
    for versions in [
        "patched = []",
        "patched = [\">= 99.0.0\"]",
        "patched = [\n  \">= 0.9, < 1.0\",\n  \"^99.1\",\n]\nunaffected = [\"< 1.0.0-rc.1\"]",
    ] {
        let (passed, said) = audit(Some(versions));
        assert!(!passed && said.contains("RUSTSEC-1999-0001"), "{versions}: {said}");
    }
}

#[test]
fn a_patched_or_unaffected_version_has_no_complaint() {
    for versions in ["patched = [\">= 1.0.100\"]", "patched = []\nunaffected = [\"^1.0.3, > 1.0.4\"]"] {
        let (_, said) = audit(Some(versions));
        assert!(!said.contains("RUSTSEC-1999-0001"), "{versions}: {said}");
    }
}

#[test]
fn an_empty_database_fails() {
    let (passed, said) = audit(None);
    assert!(!passed && said.contains("no advisories were read"), "{said}");
}

#[test]
fn the_extract_says_its_age_and_fails_when_it_is_old() {
    let (_, said) = run(&[("ADVISORY_DB", "none")]);
    assert!(said.contains("days old (as of "), "{said}");
    let (passed, said) = run(&[("ADVISORY_DB", "none"), ("AUDIT_TODAY", "2099-01-01")]);
    assert!(!passed && said.contains("is older than"), "{said}");
}
