//! Settings of destinations: which of them are secret, and which may follow to another place.
//!
//! Always true: a secret setting is stored encrypted and shown as `***`; sending `***` back leaves it as it is; what was
//! given for one place is not sent to another, so whoever changes the place gives the secrets again; no secret is in an
//! error. Not here: what a kind takes (its `open`).

use serde_json::{Map, Value};

use crate::api::parameters::MASK;
use crate::destinations::driver::Kind;
use crate::destinations::kinds;
use crate::domain::destination::Destination;
use crate::domain::id::DestinationId;
use crate::domain::secret::Secret;
use crate::error::{Error, Result};
use crate::store::{Rows, Slot, Tx};

/// Settings as they are given and shown.
pub(in crate::api) type Settings = Map<String, Value>;

/// All settings of one destination together, as JSON text. A CA certificate or a service account's key fits many times.
const BYTES_MAX: usize = 65_536;
/// Names that are told when another one was meant.
const NEAR_MAX: usize = 3;
/// Words in the name of a setting that says where the others are sent, or that holds such a place.
const PLACES: [&str; 14] = [
    "host",
    "hosts",
    "port",
    "server",
    "servers",
    "endpoint",
    "url",
    "uri",
    "dsn",
    "address",
    "account",
    "domain",
    "issuer",
    "credentials",
];
/// The same, written without a capital between.
const ENDS: [&str; 5] = ["url", "host", "endpoint", "address", "server"];
/// A shorter text may be part of any sentence.
const SCRUBBED_BYTES_MIN: usize = 4;

/// The kind of that name.
pub(in crate::api) fn kind(name: &str) -> Result<&'static Kind> {
    kinds::find(name).ok_or_else(|| {
        let shown: String = name.chars().take(64).collect();
        let distance = |kind: &&Kind| strsim::jaro_winkler(kind.name, &shown.to_lowercase());
        let mut near: Vec<&&Kind> = kinds::KINDS.iter().filter(|kind| distance(kind) > 0.7).collect();
        near.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
        let near: Vec<String> = near.iter().take(NEAR_MAX).map(|kind| format!("`{}`", kind.name)).collect();
        let meant = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
        Error::invalid(format!("type: there is no `{shown}`{meant} (GET /one/destinations/types lists all)"))
    })
}

/// Settings in two parts, as they are stored.
#[derive(Clone, Default)]
pub(in crate::api) struct Split {
    pub(super) open: Settings,
    pub(super) secret: Settings,
}

fn object(text: &str) -> Result<Settings> {
    if text.is_empty() { Ok(Map::new()) } else { serde_json::from_str(text).map_err(Error::internal) }
}

/// Whether a setting says where things are sent: `baseUrl`, `host`, `replicaHosts`.
fn is_place(name: &str) -> bool {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter.is_ascii_uppercase() || letter == '_' {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase().filter(|letter| *letter != '_'));
        }
    }
    // Where nothing is set apart, as in `baseurl`, the end of the name tells.
    let name = name.to_lowercase();
    words.iter().any(|word| PLACES.contains(&word.as_str())) || ENDS.iter().any(|end| name.ends_with(end))
}

impl Split {
    /// The stored settings of a destination.
    pub(in crate::api) fn stored(rows: &Rows, of: &Destination) -> Result<Self> {
        let secret = rows.destination_secrets(&of.id.0)?;
        Ok(Self { open: object(&of.settings)?, secret: object(secret.as_ref().map_or("", Secret::expose))? })
    }

    /// Refuses secrets that would be sent to another place than they were given for.
    pub(super) fn refuse_following(&self, kind: &Kind, given: &Settings) -> Result<()> {
        let secrets = kind.secrets();
        let is_kept = |name: &str| given.get(name).is_none_or(|value| value.as_str() == Some(MASK));
        let before = |name: &str| self.open.get(name).or_else(|| self.secret.get(name)).unwrap_or(&Value::Null);
        let moves = |(name, value): &(&String, &Value)| {
            let masked = secrets.contains(*name) && value.as_str() == Some(MASK);
            is_place(name) && !masked && before(name) != *value
        };
        let Some((place, _)) = given.iter().find(moves) else { return Ok(()) };
        match self.secret.keys().find(|name| *name != place && is_kept(name)) {
            None => Ok(()),
            Some(kept) => Err(Error::invalid(format!(
                "settings.{kept}: `{place}` has changed, and what was given for the old place does not go to the new one; \
                 send `{kept}` again, or null"
            ))),
        }
    }

    /// Lays `given` over them: null takes away, the mask of a secret leaves it.
    pub(in crate::api) fn lay(&mut self, kind: &Kind, given: &Settings) -> Result<()> {
        let secrets = kind.secrets();
        for (name, value) in given {
            let is_secret = secrets.contains(name);
            if is_secret && value.as_str() == Some(MASK) {
                if self.secret.contains_key(name) {
                    continue;
                }
                return Err(Error::invalid(format!(
                    "settings.{name}: send the value itself: there is none that `{MASK}` could leave"
                )));
            }
            self.open.shift_remove(name);
            self.secret.shift_remove(name);
            if !value.is_null() {
                let part = if is_secret { &mut self.secret } else { &mut self.open };
                part.insert(name.clone(), value.clone());
            }
        }
        if self.open_text().len() + Value::Object(self.secret.clone()).to_string().len() > BYTES_MAX {
            return Err(Error::invalid(format!("settings: use at most {BYTES_MAX} bytes together")));
        }
        Ok(())
    }

    /// The open ones, as the destination's row keeps them.
    pub(super) fn open_text(&self) -> String {
        Value::Object(self.open.clone()).to_string()
    }

    /// Which secret ones are set.
    pub(super) fn secret_names(&self) -> Vec<String> {
        self.secret.keys().cloned().collect()
    }

    /// Keeps the secret ones, encrypted.
    pub(super) fn put_secret(&self, tx: &mut Tx<'_>, id: DestinationId) -> Result<()> {
        let text = Secret::new(Value::Object(self.secret.clone()).to_string());
        tx.put_secret_text(&id.0, Slot::DestinationSettings, &text)
    }

    /// The error without secrets: a library may quote what it could not read.
    pub(super) fn scrub(&self, mut error: Error) -> Error {
        let mut texts = Vec::new();
        self.secret.values().for_each(|value| leaves(value, &mut texts));
        // The longest first: one may be part of another.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let without = |from: &str| {
            let all = texts.iter().filter(|text| text.len() >= SCRUBBED_BYTES_MIN);
            all.fold(from.to_owned(), |from, text| from.replace(text.as_str(), MASK))
        };
        // The log shows the causes.
        let chain = error.chain();
        let causes = chain.strip_prefix(error.message.as_str()).map(|rest| rest.trim_start_matches(": "));
        error.source = causes.filter(|rest| !rest.is_empty()).map(|rest| without(rest).into());
        error.message = without(&error.message);
        error
    }
}

fn leaves(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            into.push(text.clone());
            into.push(text.escape_debug().to_string());
        }
        Value::Number(number) => into.push(number.to_string()),
        Value::Array(all) => all.iter().for_each(|value| leaves(value, into)),
        Value::Object(all) => all.values().for_each(|value| leaves(value, into)),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use schemars::json_schema;
    use serde_json::json;

    use super::*;

    static KIND: Kind = Kind {
        name: "fake",
        title: "Fake",
        about: "None.",
        mirrors: false,
        schema: || {
            json_schema!({"type": "object", "properties": {
                "host": {"type": "string"}, "database": {"type": "string"}, "url": {"type": "string", "writeOnly": true},
                "password": {"type": "string", "writeOnly": true},
            }})
        },
        open: |_| Err(Error::invalid("it is fake")),
    };

    fn split(given: Value) -> Split {
        let mut split = Split::default();
        split.lay(&KIND, &object(&given.to_string()).unwrap()).unwrap();
        split
    }

    fn follows(of: &Split, given: Value) -> bool {
        of.refuse_following(&KIND, &object(&given.to_string()).unwrap()).is_ok()
    }

    #[test]
    fn secrets_are_set_apart_and_a_mask_leaves_them() {
        let mut one = split(json!({"host": "a", "password": "hunter22"}));
        assert_eq!((one.open_text().as_str(), one.secret_names()), (r#"{"host":"a"}"#, vec!["password".to_owned()]));
        one.lay(&KIND, &object(r#"{"password":"***","database":"d"}"#).unwrap()).unwrap();
        assert_eq!(one.secret["password"], "hunter22");
        one.lay(&KIND, &object(r#"{"password":null}"#).unwrap()).unwrap();
        assert!(one.secret.is_empty());
        let error = one.lay(&KIND, &object(r#"{"password":"***"}"#).unwrap()).unwrap_err();
        assert!(error.message.starts_with("settings.password: "), "{error}");
    }

    #[test]
    fn a_secret_does_not_follow_to_another_place() {
        let one = split(json!({"host": "a", "password": "hunter22"}));
        assert!(follows(&one, json!({"host": "a", "database": "e"})), "the place is the same");
        assert!(!follows(&one, json!({"host": "b"})));
        assert!(!follows(&one, json!({"host": null})));
        assert!(!follows(&one, json!({"host": "b", "password": "***"})));
        assert!(follows(&one, json!({"host": "b", "password": "other"})));
        assert!(follows(&one, json!({"host": "b", "password": null})));
        assert!(!follows(&one, json!({"url": "fake://c"})), "a secret place is one too");
        assert!(follows(&split(json!({"host": "a"})), json!({"host": "b"})), "there is nothing to follow");
        assert!(follows(&split(json!({"url": "fake://a"})), json!({"url": "fake://b"})), "it is given again itself");
    }

    #[test]
    fn places_are_known_by_their_names() {
        for name in [
            "credentials",
            "host",
            "replicaHosts",
            "port",
            "baseUrl",
            "baseurl",
            "endpoint",
            "apiEndpoint",
            "account",
            "hostname_uri",
        ] {
            assert!(is_place(name), "{name}");
        }
        for name in ["database", "region", "password", "passport", "maxRows", "bucket", "security", "curious"] {
            assert!(!is_place(name), "{name}");
        }
    }

    #[test]
    fn an_error_tells_no_secret() {
        let one = split(json!({"password": "hun\"ter22", "url": "fake://u:p@h"}));
        let error =
            Error::invalid("settings: invalid `fake://u:p@h`, \"hun\\\"ter22\", hun\"ter22").because("hun\"ter22");
        let error = one.scrub(error);
        assert!(!error.chain().contains("ter22") && !error.message.contains("u:p"), "{}", error.chain());
    }

    #[test]
    fn an_unknown_type_names_what_may_have_been_meant() {
        let error = kind("fil").map(|_| ()).unwrap_err().message;
        assert!(error.contains("did you mean `file`"), "{error}");
        let error = kind("0123").map(|_| ()).unwrap_err().message;
        assert!(!error.contains("did you mean") && error.contains("/one/destinations/types"), "{error}");
    }
}
