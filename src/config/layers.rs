//! Lays one source of settings over the other, key by key, so that an error can name the key and its source.
//!
//! Always true: a key that the embedded file does not have is refused; each value is tried against its type as it is
//! set. Not here: rules between keys (`check`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use toml::{Table, Value};

use super::{Config, EMBEDDED, Error, check};

/// The settings that are secrets: never printed, and each can come from a file instead.
const SECRETS: &[&str] =
    &["security.api_key", "security.master_key", "security.operator_key", "delivery.proxy_url", "ingest.proxy_url"];

/// Variables with a name of their own. Other `TIDEMILL_…` variables are left alone.
const NAMED: &[(&str, &str)] = &[
    ("TIDEMILL_API_KEY", "security.api_key"),
    ("TIDEMILL_API_KEY_FILE", "security.api_key_file"),
    ("TIDEMILL_MASTER_KEY", "security.master_key"),
    ("TIDEMILL_MASTER_KEY_FILE", "security.master_key_file"),
    ("TIDEMILL_OPERATOR_KEY", "security.operator_key"),
    ("TIDEMILL_OPERATOR_KEY_FILE", "security.operator_key_file"),
];

/// The settings so far, and where each that is not a default comes from.
pub(super) struct Layers {
    table: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    pub(super) fn embedded() -> Result<Self, Error> {
        let table = EMBEDDED.parse().map_err(|e: toml::de::Error| Error::Embedded(e.to_string()))?;
        let layers = Self { table, origins: BTreeMap::new() };
        layers.parse().map_err(|e| Error::Embedded(e.to_string()))?;
        Ok(layers)
    }

    /// Lays the user's file over what is there.
    pub(super) fn file(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.into(), source })?;
        let origin = path.display().to_string();
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            Error::NotToml { origin: format!("{origin}, line {line}"), message: e.message().to_owned() }
        })?;
        let mut leaves = Vec::new();
        flatten("", table, &mut leaves);
        self.layer(leaves.into_iter().map(|(key, value)| (key, value, origin.clone())))
    }

    /// Lays the environment over what is there.
    pub(super) fn environment(&mut self, env: impl Iterator<Item = (String, String)>) -> Result<(), Error> {
        let mut set = Vec::new();
        for (name, text) in env {
            if let Some((_, key)) = NAMED.iter().find(|(known, _)| *known == name) {
                set.push(((*key).to_owned(), Value::String(text), name));
            } else if let Some(path) = name.strip_prefix("TIDEMILL__") {
                let key = path.to_lowercase().replace("__", ".");
                let value = self.read(&key, text);
                set.push((key, value, name));
            }
        }
        set.sort_by(|a, b| a.2.cmp(&b.2));
        self.layer(set.into_iter())
    }

    /// A variable's text as TOML, or as text where the key takes text or it is no TOML.
    fn read(&self, key: &str, text: String) -> Value {
        let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        match (self.get(key), parsed) {
            (Some(Value::String(default)), Some(value)) if !default.is_empty() && !value.is_str() => {
                Value::String(text)
            }
            // An optional key: keep numbers and lists, unless it is a secret, which may consist of digits.
            (_, Some(value)) if value.is_str() || !SECRETS.contains(&key) => value,
            _ => Value::String(text),
        }
    }

    fn layer(&mut self, set: impl Iterator<Item = (String, Value, String)>) -> Result<(), Error> {
        let mut here = BTreeMap::new();
        for (key, value, origin) in set {
            self.set(&key, value, &origin)?;
            here.insert(key, origin);
        }
        for secret in SECRETS {
            let file = format!("{secret}_file");
            match (here.get(*secret), here.get(&file)) {
                (Some(origin), Some(_)) => {
                    return Err(Error::Both { origin: origin.clone(), key: (*secret).to_owned() });
                }
                (Some(origin), None) => self.set(&file, Value::String(String::new()), origin)?,
                (None, Some(origin)) => self.set(secret, Value::String(String::new()), origin)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Value, origin: &str) -> Result<(), Error> {
        let bad = |message: String| Error::BadValue { origin: origin.to_owned(), key: key.to_owned(), message };
        match self.slot(key) {
            None => {
                return Err(Error::UnknownKey { origin: origin.to_owned(), key: key.to_owned(), near: self.near(key) });
            }
            Some(Value::Table(_)) => return Err(bad("this is a section; set one of its keys".to_owned())),
            Some(slot) => *slot = value,
        }
        // A secret's own text must not be in the message.
        let secret = SECRETS.contains(&key);
        self.parse().map_err(|e| bad(if secret { "it must be text".to_owned() } else { e.message().to_owned() }))?;
        self.origins.insert(key.to_owned(), origin.to_owned());
        Ok(())
    }

    /// The most similar known key, if one is similar at all.
    fn near(&self, key: &str) -> Option<String> {
        let mut known = Vec::new();
        flatten("", self.table.clone(), &mut known);
        let score = |candidate: &str| {
            let name = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
            strsim::jaro_winkler(candidate, key).max(strsim::jaro_winkler(&name(candidate), &name(key)) - 0.01)
        };
        let best = known.into_iter().map(|(k, _)| (score(&k), k)).max_by(|a, b| a.0.total_cmp(&b.0))?;
        (best.0 > 0.8).then_some(best.1)
    }

    fn slot(&mut self, key: &str) -> Option<&mut Value> {
        let (first, rest) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
        let mut value = self.table.get_mut(first)?;
        for part in rest.into_iter().flat_map(|r| r.split('.')) {
            value = value.as_table_mut()?.get_mut(part)?;
        }
        Some(value)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.table.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_table()?.get(part))
    }

    fn parse(&self) -> Result<Config, toml::de::Error> {
        self.table.clone().try_into()
    }

    /// Reads the secrets that are in files, checks the rules between keys and hands out the whole.
    pub(super) fn finish(mut self) -> Result<Config, Error> {
        for secret in SECRETS {
            let file = format!("{secret}_file");
            let Some(path) = self.get(&file).and_then(Value::as_str).filter(|p| !p.is_empty()) else { continue };
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::Unreadable { path: Path::new(path).into(), source })?;
            let origin = format!("the file {path}");
            self.set(secret, Value::String(text.trim_end_matches(['\r', '\n']).to_owned()), &origin)?;
        }
        let mut config = self.parse().map_err(|e| Error::Embedded(e.to_string()))?;
        check::rules(&config).map_err(|(key, message)| Error::BadValue {
            origin: self.origins.get(key).cloned().unwrap_or_else(|| "the defaults".to_owned()),
            key: key.to_owned(),
            message,
        })?;
        config.masked = self.masked();
        Ok(config)
    }

    fn masked(&self) -> String {
        let mut leaves = Vec::new();
        flatten("", self.table.clone(), &mut leaves);
        let (mut text, mut section) = (String::new(), String::new());
        for (key, value) in leaves {
            let (of, name) = key.rsplit_once('.').unwrap_or(("", &key));
            if of != section {
                let _ = writeln!(text, "{}[{of}]", if text.is_empty() { "" } else { "\n" });
                section = of.to_owned();
            }
            let hide = SECRETS.contains(&key.as_str()) && value.as_str() != Some("");
            let value = if hide { "\"***\"".to_owned() } else { value.to_string() };
            let origin = self.origins.get(&key).map(|o| format!("  # {o}")).unwrap_or_default();
            let _ = writeln!(text, "{name} = {value}{origin}");
        }
        text
    }
}

/// All leaves of a table under their dotted names.
fn flatten(prefix: &str, table: Table, into: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, into),
            leaf => into.push((key, leaf)),
        }
    }
}
