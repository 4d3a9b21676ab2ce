//! `eventbridge`: entries on an event bus of Amazon EventBridge.
//!
//! Always true: no request is above the service's limits; the event's id stands in each entry's detail, since the service
//! neither removes duplicates nor keeps an order. Not here: how requests are signed (`destinations::aws`). Sources: Amazon
//! EventBridge API Reference, PutEvents; User Guide, "Calculating PutEvents event entry size".

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::aws::{Access, Account, Call, faults, note};
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Item, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::{lines, settings};
use crate::domain::subscription::Include;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::Bytes;

/// The most entries of a request.
const ENTRIES_MAX: usize = 10;
/// The most bytes of an entry, as the service counts them.
const ENTRY_MAX_BYTES: usize = 256 << 10;
/// The most bytes of a request's entries together: below 1 MiB.
const REQUEST_MAX_BYTES: usize = 1_000_000;
/// What an entry's time counts.
const TIME_BYTES: usize = 14;

/// The kind.
pub static KIND: Kind = Kind {
    name: "eventbridge",
    title: "Amazon EventBridge",
    about: "Entries on an event bus, one per event. The service does not remove duplicates: each has its event's id.",
    mirrors: false,
    schema: || settings::schema(schemars::schema_for!(Settings), vec![schemars::schema_for!(Access)]),
    open,
};

/// What can be set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    /// The bus: its name or its ARN.
    #[serde(default = "default_bus")]
    bus: String,
    /// The `source` of all entries.
    #[serde(default = "default_source")]
    source: String,
    /// The address of a compatible service, or another one of EventBridge.
    endpoint: Option<String>,
    /// Events in a batch at most; each ten make a request.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 1_000))]
    max_rows: u32,
    /// Seconds that an event may wait for others to join it.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    max_seconds: u32,
}

fn default_bus() -> String {
    "default".to_owned()
}

fn default_source() -> String {
    "tidemill".to_owned()
}

fn default_rows() -> u32 {
    100
}

fn default_seconds() -> u32 {
    1
}

/// For all requests of a batch, but for the last one; and how long that may take (`outbound::Client` sees to it).
const SEND_MAX: Duration = Duration::from_secs(85);
const CALL_MAX: Duration = Duration::from_secs(35);

struct Bus {
    account: Account,
    url: Url,
    settings: Settings,
    rows: usize,
    age: Duration,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let mut given = opening.settings;
    let access: Access = settings::take(&mut given)?;
    let settings: Settings = settings::own(given)?;
    let is_bus = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b':');
    if !(1..=1600).contains(&settings.bus.len()) || !settings.bus.bytes().all(is_bus) {
        return Err(Error::invalid("settings.bus: use the name or the ARN of an event bus"));
    }
    // Sources that begin so are Amazon's own (PutEvents, NotAuthorizedForSourceException).
    if !(1..=256).contains(&settings.source.len()) || settings.source.to_ascii_lowercase().starts_with("aws") {
        return Err(Error::invalid("settings.source: use 1 to 256 bytes that do not begin with `aws`"));
    }
    let (rows, age) = settings::batches(settings.max_rows, 1_000, settings.max_seconds)?;
    let account = Account::open(access, opening.client)?;
    let url = account.endpoint("events", "endpoint", settings.endpoint.as_deref())?;
    Ok(Arc::new(Bus { account, url, settings, rows, age }))
}

impl Driver for Bus {
    fn limits(&self) -> Limits {
        Limits { rows: self.rows, bytes: 4 << 20, age: self.age, timeout: SEND_MAX + CALL_MAX, recuts: false }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        let (mut parts, mut refused) = (Vec::new(), Vec::new());
        let (mut entries, mut items, mut held): (Vec<String>, Vec<usize>, usize) = (Vec::new(), Vec::new(), 0);
        for (place, item) in batch.items.iter().enumerate() {
            let (entry, size) = self.entry(item, &batch.include, &item.event.topic);
            if size > ENTRY_MAX_BYTES {
                let detail = format!("it comes to {size} bytes, an entry takes {ENTRY_MAX_BYTES}");
                refused.push((place, Fault::new(Trouble::TooLarge, detail)));
                continue;
            }
            if entries.len() == ENTRIES_MAX || held + size > REQUEST_MAX_BYTES {
                parts.push(self.part(&std::mem::take(&mut entries), std::mem::take(&mut items)));
                held = 0;
            }
            entries.push(entry);
            items.push(place);
            held += size;
        }
        if !entries.is_empty() {
            parts.push(self.part(&entries, items));
        }
        Ok(Frozen { id: batch.id.clone(), parts, items: batch.items.len(), refused, notes: Vec::new() })
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            let unsent = Verdict::Retry(Fault::new(Trouble::Failed, "it was not sent"));
            let mut verdicts = vec![unsent; frozen.items];
            for (place, fault) in &frozen.refused {
                set(&mut verdicts, *place, Verdict::Row(fault.clone()));
            }
            let began = Instant::now();
            for part in &frozen.parts {
                // What was taken must be told before the caller's patience ends: it would be sent again.
                if began.elapsed() > SEND_MAX {
                    break;
                }
                let told = self.put(part).await;
                // Without credentials, permission or bus the other requests would fare no better.
                let stop = told.iter().all(|verdict| matches!(verdict, Verdict::Config(_)));
                for (place, verdict) in part.items.iter().zip(told) {
                    set(&mut verdicts, *place, verdict);
                }
                if stop {
                    break;
                }
            }
            settle(verdicts, &frozen.refused)
        }
        .boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        async move {
            let mut steps = Vec::new();
            // What stands in the steps says where it ended.
            let _ = self.try_out(probe, &mut steps).await;
            steps
        }
        .boxed()
    }
}

fn set(verdicts: &mut [Verdict], place: usize, verdict: Verdict) {
    if let Some(slot) = verdicts.get_mut(place) {
        *slot = verdict;
    }
}

/// What the verdicts of all entries come to. Where nothing was taken, the batch is tried again as it is, or it waits for
/// the owner; where some were, only the others are tried again.
fn settle(mut verdicts: Vec<Verdict>, refused: &[(usize, Fault)]) -> Answer {
    let told = |place: &usize| !refused.iter().any(|(known, _)| known == place);
    let others: Vec<&Verdict> = verdicts.iter().enumerate().filter(|(place, _)| told(place)).map(|(_, v)| v).collect();
    let config = others.iter().find(|verdict| matches!(verdict, Verdict::Config(_)));
    let untaken = others.iter().all(|verdict| matches!(verdict, Verdict::Config(_) | Verdict::Retry(_)));
    if untaken && let Some(first) = config.or(others.first()) {
        return Answer::All((*first).clone());
    }
    for verdict in &mut verdicts {
        if let Verdict::Config(fault) = verdict {
            *verdict = Verdict::Retry(fault.clone());
        }
    }
    Answer::Each(verdicts)
}

impl Bus {
    /// An entry as JSON, and its size as the service counts it.
    fn entry(&self, item: &Item, include: &[Include], kind: &str) -> (String, usize) {
        let mut detail = Vec::new();
        lines::line(item, include, &mut detail);
        let detail = String::from_utf8_lossy(&detail);
        let detail = detail.trim_end();
        let size = TIME_BYTES + self.settings.source.len() + kind.len() + detail.len();
        let entry = json!({
            "Time": item.event.happened_at.seconds(),
            "Source": self.settings.source,
            "DetailType": kind,
            "Detail": detail,
            "EventBusName": self.settings.bus,
        });
        (entry.to_string(), size)
    }

    fn part(&self, entries: &[String], items: Vec<usize>) -> Part {
        let body = format!("{{\"Entries\":[{}]}}", entries.join(","));
        Part { target: self.settings.bus.clone(), body: Bytes::from(body), items }
    }

    /// One request, and if the service refuses it as a whole though it may be for one entry, each entry alone.
    async fn put(&self, part: &Part) -> Vec<Verdict> {
        let count = part.items.len();
        let answer = match self.call("AWSEvents.PutEvents", &part.body).await {
            Ok(answer) => answer,
            Err(verdict) => return vec![verdict; count],
        };
        if answer.status == 200 {
            return entries_told(&answer.body, count);
        }
        let said = faults::Said::of(&answer);
        let whole =
            matches!(said.code.as_str(), "ValidationException" | "InvalidParameterValue") || answer.status == 413;
        if !whole {
            return vec![self.account.judge(&answer).await; count];
        }
        if count <= 1 {
            let detail = format!("{}: {}", said.code, said.message);
            // The names in an entry are the owner's settings; the rest of it is the event.
            let is_named = ["eventBusName", "source"].iter().any(|name| said.message.contains(name));
            return vec![
                match is_named {
                    true => Verdict::Config(Fault::new(Trouble::SettingsRefused, detail)),
                    false => Verdict::Row(Fault::new(Trouble::ValueRefused, detail)),
                };
                count
            ];
        }
        let mut verdicts = Vec::with_capacity(count);
        let body: Value = serde_json::from_slice(&part.body).unwrap_or_default();
        for (entry, place) in body.get("Entries").and_then(Value::as_array).into_iter().flatten().zip(&part.items) {
            let single = self.part(&[entry.to_string()], vec![*place]);
            verdicts.extend(Box::pin(self.put(&single)).await);
        }
        verdicts
    }

    async fn call(&self, target: &'static str, body: &Bytes) -> std::result::Result<crate::outbound::Answer, Verdict> {
        let call = Call { body: body.clone(), ..Call::json("events", target, &self.url, String::new()) };
        self.account.send(call).await
    }

    async fn try_out(&self, probe: &Probe, steps: &mut Vec<Step>) -> Option<()> {
        let began = Instant::now();
        note(steps, "signIn", began, self.account.credentials().await.map(|_| String::new()))?;
        let began = Instant::now();
        note(steps, "permissions", began, self.look().await)?;
        let began = Instant::now();
        let entry = probe.batch.items.first().map(|item| self.entry(item, &[], "tidemill/test").0);
        let part = self.part(&entry.into_iter().collect::<Vec<_>>(), vec![0]);
        let put = match self.put(&part).await.into_iter().next() {
            Some(Verdict::Done) => Ok("an entry of the detail type `tidemill/test`".to_owned()),
            Some(verdict) => Err(verdict),
            None => Err(Verdict::Retry(Fault::new(Trouble::Failed, "it was not sent"))),
        };
        note(steps, "write", began, put)
    }

    /// Whether the bus is there: entries for one that is not may be taken and go nowhere.
    async fn look(&self) -> std::result::Result<String, Verdict> {
        let body = Bytes::from(json!({"Name": self.settings.bus}).to_string());
        let answer = self.call("AWSEvents.DescribeEventBus", &body).await?;
        if answer.status == 200 {
            return Ok("the bus is there".to_owned());
        }
        match self.account.judge(&answer).await {
            Verdict::Config(fault) if fault.error == Fault::new(Trouble::PermissionDenied, "").error => {
                Ok("events:DescribeEventBus is not allowed, so nobody knows whether the bus is there".to_owned())
            }
            verdict => Err(verdict),
        }
    }
}

/// What an answer says of each entry, in the order sent.
fn entries_told(body: &[u8], count: usize) -> Vec<Verdict> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let entries = body.get("Entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let odd = || Verdict::Retry(Fault::new(Trouble::Failed, "the answer does not tell of this entry"));
    (0..count).map(|place| entries.get(place).map_or_else(odd, entry_told)).collect()
}

/// PutEventsResultEntry: `EventId`, or `ErrorCode` and `ErrorMessage`.
fn entry_told(entry: &Value) -> Verdict {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = text("ErrorCode");
    let fault = |trouble| Fault::new(trouble, format!("{code}: {}", text("ErrorMessage")));
    match code {
        "" if !text("EventId").is_empty() => Verdict::Done,
        "ThrottlingException" | "ThrottledException" => Verdict::Retry(fault(Trouble::Throttled)),
        "AccessDeniedException" | "NotAuthorizedForSourceException" | "NotAuthorizedForDetailTypeException" => {
            Verdict::Config(fault(Trouble::PermissionDenied))
        }
        "ResourceNotFoundException" => Verdict::Config(fault(Trouble::TargetMissing)),
        "MalformedDetail" | "InvalidArgument" | "InvalidArgumentException" | "ValidationException" => {
            Verdict::Row(fault(Trouble::ValueRefused))
        }
        _ => Verdict::Retry(fault(Trouble::Failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Fault {
        Fault::new(Trouble::Throttled, "")
    }

    #[test]
    fn a_batch_of_which_nothing_was_taken_is_tried_again_as_it_is() {
        let verdicts = vec![Verdict::Retry(fault()), Verdict::Retry(fault())];
        assert_eq!(settle(verdicts, &[]), Answer::All(Verdict::Retry(fault())));
        let verdicts = vec![Verdict::Config(fault()), Verdict::Retry(fault())];
        assert_eq!(settle(verdicts, &[]), Answer::All(Verdict::Config(fault())));
    }

    #[test]
    fn of_a_batch_taken_in_part_only_the_rest_is_tried_again() {
        let verdicts = vec![Verdict::Done, Verdict::Config(fault()), Verdict::Row(fault())];
        let wanted = vec![Verdict::Done, Verdict::Retry(fault()), Verdict::Row(fault())];
        assert_eq!(settle(verdicts, &[]), Answer::Each(wanted));
    }

    #[test]
    fn each_entry_is_told_of_by_its_own_error() {
        let body = br#"{"FailedEntryCount":2,"Entries":[{"EventId":"1"},{"ErrorCode":"ThrottlingException"},
            {"ErrorCode":"MalformedDetail","ErrorMessage":"m"}]}"#;
        let told = entries_told(body, 4);
        assert_eq!(told.first(), Some(&Verdict::Done));
        assert!(matches!(told.get(1), Some(Verdict::Retry(_))));
        assert!(matches!(told.get(2), Some(Verdict::Row(_))));
        assert!(matches!(told.get(3), Some(Verdict::Retry(_))));
    }
}
