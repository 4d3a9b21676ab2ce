//! One line per event: topic, kind, which record, what changed, how it was noticed, how long it took, and whether both
//! signatures verified. Colours only on a terminal.

use std::collections::HashMap;

use serde_json::Value;

use super::receiver::Arrival;
use super::setup::Sandbox;
use crate::cli::http::Server;
use crate::domain::time::Millis;

/// Changes of the app that are remembered, to tell how long an event took.
const CHANGES_MAX: usize = 20_000;
/// Changed fields shown on a line.
const FIELDS_SHOWN: usize = 3;

/// Writes the lines.
pub(super) struct Show {
    node: Server,
    sandbox: Sandbox,
    colours: bool,
    /// The number of the last change read from the sandbox's log.
    read: u64,
    /// When the app made each change, by record id and kind; the latest of each.
    changes: HashMap<(String, String), Millis>,
    bad: u64,
}

enum Colour {
    Dim,
    Green,
    Red,
    Yellow,
    Cyan,
}

impl Show {
    pub(super) fn new(node: Server, sandbox: Sandbox, colours: bool) -> Self {
        Self { node, sandbox, colours, read: 0, changes: HashMap::new(), bad: 0 }
    }
    /// How many deliveries did not verify.
    pub(super) fn bad(&self) -> u64 {
        self.bad
    }

    fn paint(&self, colour: &Colour, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Dim => 2,
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The line of one arrival.
    pub(super) async fn line(&mut self, arrival: &Arrival) -> String {
        let body: Value = serde_json::from_str(&arrival.body).unwrap_or_default();
        let kind = body["updateType"].as_str().unwrap_or("-");
        let record = body["dataPayload"]["remoteId"].as_str().unwrap_or_default();
        let noticed = self.noticed(&arrival.event).await;
        let took = self.took(record, kind, arrival.at).await.map_or_else(|| "-".to_owned(), took);
        let colour = match kind {
            "created" => Colour::Green,
            "deleted" => Colour::Red,
            _ => Colour::Yellow,
        };
        let what = what_changed(&body, kind);
        let time = arrival.at.rfc3339_seconds();
        let time = time.get(11..19).unwrap_or_default();
        format!(
            "{} {} {} {:<11} {:<9} {:>8}  {}  {}\n",
            self.paint(&Colour::Dim, time),
            self.paint(&Colour::Cyan, &format!("{:<18}", arrival.topic)),
            self.paint(&colour, &format!("{kind:<9}")),
            record,
            noticed,
            took,
            self.verdict(arrival),
            what,
        )
    }

    fn verdict(&mut self, arrival: &Arrival) -> String {
        if !arrival.good() {
            self.bad += 1;
        }
        let mut words = Vec::new();
        for (name, verdict) in ["RSA", "HMAC"].into_iter().zip(&arrival.verdict) {
            words.push(match verdict {
                Ok(()) => self.paint(&Colour::Green, &format!("{name} ok")),
                Err(why) => self.paint(&Colour::Red, &format!("{name} BAD: {why}")),
            });
        }
        if arrival.attempt != "1" {
            words.push(format!("attempt {}", arrival.attempt));
        }
        words.join(" ")
    }

    /// From the event's trace: webhook, poll or full scan.
    async fn noticed(&self, event: &str) -> String {
        let path = format!("/2024-03/one/events/{event}");
        let answer = self.node.ask("GET", &path, None).await.unwrap_or_default();
        match answer["event"]["source"]["kind"].as_str() {
            Some("scan") => "full scan".to_owned(),
            kind => kind.unwrap_or("-").to_owned(),
        }
    }

    /// From the change in the app to the arrival here, in milliseconds.
    async fn took(&mut self, record: &str, kind: &str, arrived: Millis) -> Option<u64> {
        let path = format!("/control/log?after={}", self.read);
        let log = self.sandbox.server().ask("GET", &path, None).await.ok()?;
        for change in log["changes"].as_array()? {
            self.read = self.read.max(change["number"].as_u64()?);
            if change["account"] == self.sandbox.account() {
                let key = (change["id"].as_str()?.to_owned(), change["kind"].as_str()?.to_owned());
                if self.changes.len() >= CHANGES_MAX {
                    self.changes.clear();
                }
                self.changes.insert(key, Millis(change["at"].as_u64()?));
            }
        }
        let at = self.changes.get(&(record.to_owned(), kind.to_owned()))?;
        (arrived >= *at).then(|| arrived.0 - at.0)
    }
}

fn took(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        _ => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
    }
}

/// `paymentStatus=paid, note`; of a new record, what it is called; of a system event, what it says.
fn what_changed(body: &Value, kind: &str) -> String {
    let payload = &body["dataPayload"];
    let Some(fields) = body["changedFields"].as_array().filter(|_| kind == "updated") else {
        return title(payload);
    };
    let mut words: Vec<_> =
        fields.iter().filter_map(Value::as_str).take(FIELDS_SHOWN).map(|f| field(payload, f)).collect();
    if fields.len() > FIELDS_SHOWN {
        words.push(format!("and {} more", fields.len() - FIELDS_SHOWN));
    }
    words.join(", ")
}

/// `name=value` where the value is short, else `name`.
fn field(payload: &Value, path: &str) -> String {
    let mut value = payload;
    for part in path.split('.') {
        value = match part.parse::<usize>() {
            Ok(place) if value.is_array() => &value[place],
            _ => &value[part],
        };
    }
    let shown = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return path.to_owned(),
    };
    if shown.chars().count() > 32 { path.to_owned() } else { format!("{path}={shown}") }
}

/// What people call a record.
fn title(payload: &Value) -> String {
    let text = |name: &str| payload[name].as_str().unwrap_or_default();
    for name in ["orderNumber", "opportunityName", "fullName"] {
        if !text(name).is_empty() {
            return text(name).to_owned();
        }
    }
    let name = format!("{} {}", text("firstName"), text("lastName"));
    if !name.trim().is_empty() {
        return name.trim().to_owned();
    }
    // Of a system event, what it says beside ids.
    let words: Vec<_> = payload
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| !name.ends_with("Id") && (value.is_string() || value.is_number()))
        .map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    words.join(", ").chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_changed() {
        let body = json!({
            "dataPayload": {"paymentStatus": "paid", "items": [{"a": 1}], "note": null, "x": 1, "y": 2},
            "changedFields": ["paymentStatus", "items.0.a", "note", "x", "y"],
        });
        assert_eq!(what_changed(&body, "updated"), "paymentStatus=paid, items.0.a=1, note, and 2 more");
        let body = json!({"dataPayload": {"firstName": "Ada", "lastName": "Sato"}});
        assert_eq!(what_changed(&body, "created"), "Ada Sato");
        let body = json!({"dataPayload": {"pullId": "1", "mode": "full", "records": 3}});
        assert_eq!(what_changed(&body, "completed"), "mode=full, records=3");
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(took(84), "84 ms");
        assert_eq!(took(12_345), "12.3 s");
    }
}
