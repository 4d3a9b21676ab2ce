//! What the configuration promises.

use std::io::Write as _;

use super::*;

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let mut on_disk = tempfile::NamedTempFile::new().expect("a temporary file");
    on_disk.write_all(file.as_bytes()).expect("written");
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let path = on_disk.path().display().to_string();
    Config::load(Some(on_disk.path()), env).map_err(|e| e.to_string().replace(&path, "FILE"))
}

fn error(file: &str, env: &[(&str, &str)]) -> String {
    load(file, env).err().unwrap_or_default()
}

#[test]
fn the_embedded_file_holds_every_key_and_only_those() {
    let config = Config::embedded().expect("the embedded file is complete");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7300");
    assert_eq!(config.delivery.retry_schedule_seconds.len(), 10);
    assert!(config.security.api_key.is_none());
}

#[test]
fn every_key_of_the_embedded_file_has_a_reason_above_its_group() {
    let mut after_gap = true;
    for line in EMBEDDED.lines() {
        let comment = line.starts_with('#');
        if line.starts_with('[') {
            after_gap = true;
        }
        assert!(comment || !after_gap || line.is_empty() || line.starts_with('['), "{line} has no reason");
        after_gap = !comment && (line.is_empty() || line.starts_with('['));
    }
}

#[test]
fn the_environment_goes_over_the_file_and_the_file_over_the_defaults() {
    let file = "[server]\nlisten = '127.0.0.1:1'\n[storage]\npath = '/a'";
    let config = load(file, &[("TIDEMILL__SERVER__LISTEN", "127.0.0.1:2")]).expect("loads");
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.storage.path, Path::new("/a"));
    assert_eq!(config.log.filter, "info");
}

#[test]
fn a_variable_is_toml_else_text() {
    let env = [
        ("TIDEMILL__DELIVERY__ALLOW_NETWORKS", r#"["127.0.0.0/8"]"#),
        ("TIDEMILL__STORAGE__PATH", "12"),
        ("TIDEMILL__SECURITY__API_KEY", "12345678901234567890"),
        ("TIDEMILL__SERVER__WORKERS", "3"),
        ("TIDEMILL__SERVER__PUBLIC_URL", "https://hooks.example.com/t"),
        ("TIDEMILL_SOMETHING_ELSE", "left alone"),
    ];
    let config = load("", &env).expect("loads");
    assert_eq!(config.delivery.allow_networks.len(), 1);
    assert_eq!(config.storage.path, Path::new("12"));
    assert_eq!(config.security.api_key.as_ref().map(|k| k.expose().len()), Some(20));
    assert_eq!(config.server.workers.map(std::num::NonZeroUsize::get), Some(3));
    assert_eq!(config.server.public_url.as_ref().map(|u| u.path()), Some("/t"));
}

#[test]
fn an_unknown_key_is_named_with_its_near_match() {
    assert_eq!(
        error("[delivery]\nallow_network = []", &[]),
        "FILE: there is no setting delivery.allow_network; did you mean delivery.allow_networks?"
    );
    assert_eq!(
        error("", &[("TIDEMILL__SERVER__LISTN", "x")]),
        "TIDEMILL__SERVER__LISTN: there is no setting server.listn; did you mean server.listen?"
    );
    assert_eq!(
        error("[storage]\nallow_http = true", &[]),
        "FILE: there is no setting storage.allow_http; did you mean delivery.allow_http?"
    );
    assert_eq!(error("[zzz]\nqqq = 1", &[]), "FILE: there is no setting zzz.qqq");
}

#[test]
fn a_wrong_value_names_its_key_and_its_source() {
    assert_eq!(
        error("[server]\nlisten = ", &[]),
        "FILE, line 2: string values must be quoted, expected literal string"
    );
    let zero = error("", &[("TIDEMILL__STORAGE__COMMIT_QUEUE_MAX", "0")]);
    assert!(zero.starts_with("TIDEMILL__STORAGE__COMMIT_QUEUE_MAX: storage.commit_queue_max: invalid value"), "{zero}");
    let section = error("storage = 1", &[]);
    assert_eq!(section, "FILE: storage: this is a section; set one of its keys");
    let short = error("", &[("TIDEMILL_API_KEY", "short")]);
    assert!(short.starts_with("TIDEMILL_API_KEY: security.api_key: use 20 bytes or more"), "{short}");
    let overlap = error("[security]\nkey_overlap_seconds = 3600", &[]);
    assert!(overlap.starts_with("FILE: security.key_overlap_seconds: use 86400"), "{overlap}");
    let filter = error("[log]\nfilter = 'a=b=c'", &[]);
    assert!(filter.starts_with("FILE: log.filter: "), "{filter}");
}

#[test]
fn a_secret_can_come_from_a_file_but_not_from_two_places() {
    let mut secret = tempfile::NamedTempFile::new().expect("a temporary file");
    secret.write_all(b"a secret of more than twenty bytes\n").expect("written");
    let path = secret.path().display().to_string();
    let config = load("[security]\napi_key = 'the file is laid under it'", &[("TIDEMILL_API_KEY_FILE", &path)]);
    let config = config.expect("loads");
    let key = config.security.api_key.as_ref().map(|k| k.expose().to_owned());
    assert_eq!(key.as_deref(), Some("a secret of more than twenty bytes"));
    let both = error("", &[("TIDEMILL_API_KEY_FILE", &path), ("TIDEMILL_API_KEY", "x")]);
    assert_eq!(both, "TIDEMILL_API_KEY: set security.api_key or security.api_key_file, not both");
    let missing = error("", &[("TIDEMILL_API_KEY_FILE", "/nowhere/key")]);
    assert!(missing.starts_with("cannot read /nowhere/key: "), "{missing}");
}

#[test]
fn secrets_are_never_printed() {
    let env = [("TIDEMILL_API_KEY", "a secret of more than twenty bytes"), ("TIDEMILL__LOG__FORMAT", "json")];
    let config = load("", &env).expect("loads");
    let shown = format!("{}{config:?}", config.masked());
    assert!(!shown.contains("twenty"), "{shown}");
    assert!(config.masked().contains("api_key = \"***\"  # TIDEMILL_API_KEY\n"), "{}", config.masked());
    assert!(config.masked().contains("format = \"json\"  # TIDEMILL__LOG__FORMAT\n"));
    assert!(config.masked().contains("listen = \"127.0.0.1:7300\"\n"));
}
