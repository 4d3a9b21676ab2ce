//! What apps send, and what connectors' authors write: webhooks with their headers, and the YAML of a connector's folder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tidemill::config::Config;
use tidemill::connectors::verify::{Answered, Encoding, Keys, Kind, Spec};
use tidemill::connectors::{Credentials, Of, Registry, WebhookRequest, handle_global, handle_own};
use tidemill::domain::secret::Secret;
use tidemill::domain::time::Millis;

use super::engine::Target;

const NOW: Millis = Millis(1_700_000_000_000);

const KINDS: [Kind; 10] = [
    Kind::HmacSha256,
    Kind::HubspotV3,
    Kind::Shopify,
    Kind::SlackV0,
    Kind::StripeTV1,
    Kind::StandardWebhooks,
    Kind::RsaSha256,
    Kind::Token,
    Kind::Script,
    Kind::None,
];

fn registry() -> Registry {
    let config = Config::load(None, std::iter::empty()).expect("the embedded configuration");
    Registry::load(&config.connectors, &config.scripts).expect("sound connectors")
}

/// `METHOD /path?query`, headers as lines, an empty line, the body.
fn request(input: &[u8]) -> WebhookRequest {
    let split = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = split.map_or((input, &[][..]), |at| (&input[..at], &input[at + 2..]));
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap_or_default().split_once(' ').unwrap_or(("POST", "/"));
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    WebhookRequest {
        method: method.to_ascii_uppercase(),
        url: format!("https://hooks.example.com{target}"),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: lines.filter_map(pair).collect(),
        body: body.to_vec().into(),
        received_at: NOW,
    }
}

#[test]
fn webhooks_are_safe() {
    let registry = registry();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let secrets: Vec<Secret> = ["a-long-secret", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="].map(Secret::new).into();
    let adobe = serde_json::from_str(r#"{"kind": "adobe-io", "secret": "clientId"}"#).expect("a check");
    let (keys, keys_at) = (Keys::default(), "https://keys.example".parse().expect("a URL"));
    let run = |input: &[u8]| {
        let request = request(input);
        for kind in KINDS {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                let spec = Spec {
                    kind,
                    header: Some("x-signature".to_owned()),
                    query: Some("token".to_owned()),
                    encoding,
                    prefix: "sha256=".to_owned(),
                    secret: Some("secret".to_owned()),
                    keys: None,
                    former: None,
                    optional: false,
                };
                spec.check(&request, &secrets, NOW);
            }
        }
        let fetch = |_: url::Url| std::future::ready(Answered::Missing);
        let judged = keys.check(&adobe, (&request, &secrets), ([0; 12], &keys_at), NOW, fetch);
        runtime.block_on(judged);
        for connector in registry.all() {
            let parameters = Value::Object(connector.parameters.defaults());
            runtime.block_on(async {
                // An error is the connector's word on a webhook that it does not understand.
                let _ = handle_own(connector, &request, &parameters, Of::default()).await;
                for hook in &connector.global_webhooks {
                    let _ = handle_global(connector, &hook.key, &request, &Map::new()).await;
                }
            });
        }
        Ok(())
    };
    let words = &[
        "x-signature: ",
        "x-hubspot-signature-v3: ",
        "stripe-signature: ",
        "content-type: ",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "\"event\":",
        "\"data\":",
        "\"id\":",
    ];
    Target { name: "webhooks", run: Box::new(run), words, more: vec![], tries: 200 }.fuzz();
}

#[test]
fn credentials_and_parameters_are_safe() {
    let registry = registry();
    let run = |input: &[u8]| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return Ok(()) };
        if let Ok(credentials) = Credentials::read(&value) {
            let text = credentials.to_text();
            let again = Credentials::from_text(text.expose());
            if again.is_err() {
                return Err(format!("credentials do not come back: {value}"));
            }
            if format!("{credentials:?}").contains("a-long-secret") {
                return Err("a secret is shown".to_owned());
            }
        }
        if let Value::Object(given) = &value {
            for connector in registry.all() {
                if let Err(error) = connector.parameters.check(given)
                    && error.is_empty()
                {
                    return Err(format!("{} refuses parameters without a word", connector.key));
                }
            }
        }
        Ok(())
    };
    let words = &["\"accessToken\":", "\"apiKey\":", "\"baseUri\":", "\"expiresAt\":", "\"a-long-secret\""];
    let more =
        vec![json!({"baseUri": "https://shop.example/", "webhookSecret": "a-long-secret"}).to_string().into_bytes()];
    Target { name: "credentials", run: Box::new(run), words, more, tries: 1_000 }.fuzz();
}

/// The files of a connector, by path below its folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// A file's path, a line's end, and its text: put into a sound connector in place of the file of that name.
#[test]
fn the_yaml_of_connectors_is_safe() {
    let registry = registry();
    let sound = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/connectors/sandbox");
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().join("sandbox");
    let mut more = Vec::new();
    for path in files(&sound) {
        let inside = path.strip_prefix(&sound).expect("inside");
        let target = here.join(inside);
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        std::fs::copy(&path, &target).expect("copied");
        let text = std::fs::read_to_string(&path).expect("text");
        if path.extension().is_some_and(|ending| ending == "yml") {
            more.push(format!("{}\n{text}", inside.display()).into_bytes());
        }
    }
    registry.read(&here).expect("it is sound");
    let run = |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let (name, text) = text.split_once('\n').unwrap_or((&text, ""));
        let target = here.join(name);
        let is_inside = !name.contains("..") && !name.starts_with('/') && target.is_file();
        let Ok(before) = std::fs::read(&target) else { return Ok(()) };
        if !is_inside {
            return Ok(());
        }
        std::fs::write(&target, text).map_err(|error| error.to_string())?;
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| registry.read(&here).map(drop)));
        std::fs::write(&target, before).map_err(|error| error.to_string())?;
        match read {
            Ok(Err(error)) if error.to_string().is_empty() => Err("it is refused without a word".to_owned()),
            Ok(_) => Ok(()),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    };
    let words = &[
        "spec.yml\n",
        "kind: ",
        "paging: ",
        "$var",
        "$concat",
        "$case",
        "$iterate",
        "$.id",
        "{{since.time}}",
        "key: ",
        "path: /x\n",
        "auth:\n",
        "parametersSchema:\n",
        "  type: object\n",
    ];
    Target { name: "connectors", run: Box::new(run), words, more, tries: 200 }.fuzz();
}
