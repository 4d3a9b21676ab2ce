//! `bigquery`: tables of a BigQuery dataset: a log by load jobs, mirrors by MERGE.
//!
//! Always true: each part of a batch is one job under a name made of the batch, so it is done once however often it is
//! asked for; tables are made, and columns added, before the first job of a process that needs them, and nothing is ever
//! dropped. Not here: what the columns are (`destinations::rows`), how a job stands (`jobs`), who we are
//! (`destinations::google`).

mod jobs;
mod tables;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use self::jobs::{Jobs, Work};
use self::tables::Tables;
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::google::{self, Account, Google};
use super::parts;
use super::rows::{Cell, Names, Row, SEQ, Table, Type};
use super::steps::{self, Steps};
use super::warehouse::{self, Bounds};
use crate::clock::Clock;
use crate::domain::destination::Shape;
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::{Bytes, Method};

/// The kind.
pub static KIND: Kind = Kind {
    name: "bigquery",
    title: "BigQuery",
    about: "Rows in tables of a BigQuery dataset: a log of events, or tables that equal the apps' records.",
    mirrors: true,
    schema: || schemars::schema_for!(Settings),
    open,
};

const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";
/// A BIGNUMERIC has 38 digits on either side of the point ("Data types", section "Decimal types").
const LOADED: Bounds = Bounds { whole_digits: 38, fraction_digits: 38, part_bytes: 32 << 20 };
/// The rows of a MERGE are a parameter of it, and a query's request has at most 10 MB ("Quotas and limits", "Query jobs").
/// As JSON within JSON they can grow by half.
const MERGED: Bounds = Bounds { part_bytes: 6 << 20, ..LOADED };
/// JSON rows of a load have at most 100 MB ("Load jobs"); ours are smaller by far.
const REQUEST_MAX_BYTES: usize = 10_000_000;

/// What can be set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    /// The text of the JSON file of a service account, or of an external account (workload identity federation).
    #[schemars(with = "String", extend("writeOnly" = true))]
    credentials: Secret,
    /// For an external account: the token of its own identity provider.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    subject_token: Option<Secret>,
    /// The dataset's project, in which jobs run too; that of the credentials where it is not said.
    project_id: Option<String>,
    /// The dataset; it must be there.
    dataset: String,
    /// Where the dataset is (`EU`, `europe-west3`); asked of BigQuery where it is not said.
    location: Option<String>,
    /// The table of a log.
    #[serde(default = "default_table")]
    table: String,
    /// Before the names of a mirror's tables: `tm_` gives `tm_crm_contacts`.
    #[serde(default)]
    table_prefix: String,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 50_000))]
    max_rows: u32,
    /// Seconds that an event may wait for others to join it. BigQuery takes 1,500 load jobs per table and day: below 60,
    /// a table that is always busy uses them up.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    max_seconds: u32,
    /// Another address than `https://bigquery.googleapis.com`.
    endpoint: Option<String>,
}

fn default_table() -> String {
    "tidemill_events".to_owned()
}

fn default_rows() -> u32 {
    20_000
}

fn default_seconds() -> u32 {
    60
}

struct BigQuery {
    google: Google,
    clock: Clock,
    endpoint: Url,
    project: String,
    dataset: String,
    names: Names,
    /// Names what this destination asks for: jobs are named per project.
    space: String,
    rows: usize,
    age: Duration,
    known: Mutex<Known>,
}

/// What this process has found out; it can be found out again.
#[derive(Default)]
struct Known {
    location: Option<String>,
    /// Tables that have all columns.
    tables: HashSet<String>,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let settings: Settings = crate::destinations::settings::own(opening.settings)?;
    let (rows, age) = crate::destinations::settings::batches(settings.max_rows, 50_000, settings.max_seconds)?;
    let account = Account::read(&settings.credentials, settings.subject_token)?;
    let google = Google::new(opening.client, account, SCOPE);
    let project = google::project(settings.project_id.as_deref(), &google)?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && text.len() <= 200;
    for (name, text) in [("dataset", &settings.dataset), ("table", &settings.table)] {
        if text.is_empty() || !plain(text) {
            return Err(Error::invalid(format!("settings.{name}: use up to 200 letters, digits and `_`")));
        }
    }
    if !plain(&settings.table_prefix) {
        return Err(Error::invalid("settings.tablePrefix: use up to 200 letters, digits and `_`"));
    }
    let is_place = |text: &String| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && text.len() <= 64;
    if settings.location.as_ref().is_some_and(|location| !is_place(location)) {
        return Err(Error::invalid("settings.location: use a location such as EU or europe-west3"));
    }
    Ok(Arc::new(BigQuery {
        google,
        clock: Clock::start(Millis(0)),
        endpoint: google::endpoint(settings.endpoint.as_deref(), "https://bigquery.googleapis.com")?,
        project,
        dataset: settings.dataset,
        names: Names { log: settings.table, prefix: settings.table_prefix },
        space: opening.destination.to_string(),
        rows,
        age,
        known: Mutex::new(Known { location: settings.location, tables: HashSet::new() }),
    }))
}

impl Driver for BigQuery {
    fn limits(&self) -> Limits {
        Limits { rows: self.rows, bytes: 16 << 20, age: self.age, timeout: Duration::from_secs(600), recuts: false }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        self.frozen(batch, &self.names)
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        self.write(frozen, &self.names).boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        self.try_out(probe).boxed()
    }
}

impl BigQuery {
    fn frozen(&self, batch: &Batch, names: &Names) -> std::result::Result<Frozen, Verdict> {
        let (bounds, text): (_, fn(&Table, &Row) -> String) = match batch.shape {
            Shape::Append => (LOADED, line),
            Shape::Mirror(_) => (MERGED, warehouse::array),
        };
        let sliced = warehouse::sliced(batch, names, bounds, text);
        let mut refused = sliced.refused;
        let mut parts = Vec::new();
        for slice in sliced.slices {
            let body = match &slice.topic {
                None => slice.rows.join("\n") + "\n",
                Some(_) => self.query(&slice.table, &slice.rows).to_string(),
            };
            if slice.topic.is_some() && body.len() > REQUEST_MAX_BYTES {
                let detail = format!("as a request it has {} bytes, one takes {REQUEST_MAX_BYTES}", body.len());
                // Escaped, rows can grow to more than was reckoned: fewer of them fit.
                if slice.items.len() > 1 {
                    return Err(Verdict::Row(Fault::new(Trouble::TooLarge, detail)));
                }
                refused.extend(slice.items.iter().map(|place| (*place, Fault::new(Trouble::TooLarge, detail.clone()))));
                continue;
            }
            let target = slice.topic.unwrap_or_default();
            parts.push(Part { target, body: Bytes::from(body), items: slice.items });
        }
        Ok(Frozen { id: batch.id.clone(), parts, items: batch.items.len(), refused, notes: sliced.notes })
    }

    /// A query job's configuration that writes rows to a mirror.
    fn query(&self, table: &Table, rows: &[String]) -> Value {
        let value = Value::String(format!("[{}]", rows.join(",")));
        json!({
            "query": merge(&self.project, &self.dataset, table),
            "useLegacySql": false,
            "parameterMode": "NAMED",
            "queryParameters": [
                {"name": "rows", "parameterType": {"type": "STRING"}, "parameterValue": {"value": value}},
            ],
        })
    }

    async fn write(&self, frozen: &Frozen, names: &Names) -> Answer {
        for (number, part) in frozen.parts.iter().enumerate() {
            match self.run(&frozen.id, number, part, names).await {
                Ok(()) => {}
                // Jobs have the batch's name: what was done before is found done.
                Err(verdict @ (Verdict::Retry(_) | Verdict::Config(_))) => return Answer::All(verdict),
                Err(verdict) => return parts::told(frozen, number, verdict),
            }
        }
        Answer::All(Verdict::Done)
    }

    async fn run(&self, batch: &str, number: usize, part: &Part, names: &Names) -> std::result::Result<(), Verdict> {
        let topic = Some(part.target.as_str()).filter(|topic| !topic.is_empty());
        let table = warehouse::table(topic, names);
        let location = self.location().await?;
        let is_known = self.known.lock().await.tables.contains(&table.name);
        if !is_known {
            self.tables().ensure(&table).await?;
            self.known.lock().await.tables.insert(table.name.clone());
        }
        let work = match topic {
            None => Work::Load {
                configuration: json!({
                    "destinationTable": {"projectId": self.project, "datasetId": self.dataset, "tableId": table.name},
                    "sourceFormat": "NEWLINE_DELIMITED_JSON",
                    "createDisposition": "CREATE_NEVER",
                    "writeDisposition": "WRITE_APPEND",
                    "maxBadRecords": 0,
                }),
                lines: &part.body,
            },
            Some(_) => Work::Query { configuration: serde_json::from_slice(&part.body).unwrap_or_default() },
        };
        let name = format!("tidemill_{}_{batch}_{number}", self.space);
        let done = self.jobs(&location).once(&name, &work).await;
        if done.is_err() {
            // Whatever the reason: the table is looked at again before the next job.
            self.known.lock().await.tables.remove(&table.name);
        }
        done
    }

    fn jobs<'a>(&'a self, location: &'a str) -> Jobs<'a> {
        Jobs { google: &self.google, endpoint: &self.endpoint, project: &self.project, location }
    }

    fn tables(&self) -> Tables<'_> {
        Tables { google: &self.google, endpoint: &self.endpoint, project: &self.project, dataset: &self.dataset }
    }

    async fn location(&self) -> std::result::Result<String, Verdict> {
        let mut known = self.known.lock().await;
        if let Some(location) = &known.location {
            return Ok(location.clone());
        }
        let location = self.tables().location().await?;
        known.location = Some(location.clone());
        Ok(location)
    }

    async fn try_out(&self, probe: &Probe) -> Vec<Step> {
        let mut steps = Steps::default();
        let names = Names::of_test(probe.batch.destination);
        let mut batch = probe.batch.clone();
        // A test is no repetition of the one before it.
        batch.id = format!("test-{:016x}", self.clock.now().0);
        let topic = batch.items.first().filter(|_| batch.shape != Shape::Append).map(|item| item.event.topic.clone());
        let table = warehouse::table(topic.as_deref(), &names);
        steps.take("signIn", self.google.sign_in()).await;
        let location = async {
            let location = self.tables().location().await?;
            Ok(((), format!("dataset {} in {location}", self.dataset)))
        };
        steps.take("permissions", location).await;
        let made = steps.take("table", async { Ok(((), self.tables().ensure(&table).await?)) }).await;
        let write = async {
            steps::written(self.write(&self.frozen(&batch, &names)?, &names).await).map(|()| ((), String::new()))
        };
        steps.take("write", write).await;
        steps.take("read", self.read_back(&table)).await;
        if made.is_some() {
            // Also after a step that failed: what was made is taken away.
            let clean = self.tables().delete(&table.name).await;
            self.known.lock().await.tables.remove(&table.name);
            steps.take("clean", async { clean.map(|()| ((), String::new())) }).await;
        }
        steps.done()
    }

    async fn read_back(&self, table: &Table) -> std::result::Result<((), String), Verdict> {
        let path =
            ["bigquery", "v2", "projects", &self.project, "datasets", &self.dataset, "tables", &table.name, "data"];
        let url = google::below(&self.endpoint, &path, &[("maxResults", "1")]);
        let rows = self.google.call(Method::GET, url, None).await?;
        let count = rows.get("rows").and_then(Value::as_array).map_or(0, Vec::len);
        if count == 0 {
            return Err(Verdict::Retry(Fault::new(Trouble::Failed, "what was written does not read back")));
        }
        Ok(((), "1 row".to_owned()))
    }
}

/// A row as a line of a load: JSON stands in it as it is, numbers as text so that no digit is lost.
fn line(table: &Table, row: &Row) -> String {
    let mut out = String::from("{");
    for (column, cell) in table.columns.iter().zip(&row.cells) {
        let value = match cell {
            Cell::Null => continue,
            // A payload may have lines of its own; only blanks can be line ends.
            Cell::Json(json) => json.replace(['\n', '\r'], " "),
            Cell::Boolean(yes) => yes.to_string(),
            other => Value::String(warehouse::plain(other).unwrap_or_default()).to_string(),
        };
        let comma = if out.len() > 1 { "," } else { "" };
        let _ = write!(out, "{comma}\"{}\":{value}", column.name);
    }
    out.push('}');
    out
}

/// The statement of a mirror: the later change wins, and a row that is to go goes. `@rows` is an array of arrays of
/// texts, as `warehouse::array` writes them.
fn merge(project: &str, dataset: &str, table: &Table) -> String {
    let mut source = String::new();
    for (place, column) in table.columns.iter().enumerate() {
        let text = format!("JSON_VALUE(r, '$[{place}]')");
        let value = match column.kind {
            Type::Id | Type::Key | Type::Text => text,
            Type::Integer => format!("CAST({text} AS INT64)"),
            Type::Number => format!("CAST({text} AS BIGNUMERIC)"),
            Type::Boolean => format!("CAST({text} AS BOOL)"),
            Type::Time => format!("CAST({text} AS TIMESTAMP)"),
            Type::Date => format!("CAST({text} AS DATE)"),
            // Numbers wider than a double are rounded rather than refused.
            Type::Json => format!("PARSE_JSON({text}, wide_number_mode=>'round')"),
        };
        let _ = write!(source, "{value} AS `{}`, ", column.name);
    }
    let names: Vec<String> = table.columns.iter().map(|column| format!("`{}`", column.name)).collect();
    let on: Vec<String> = table.key.iter().map(|column| format!("T.`{column}` = S.`{column}`")).collect();
    let sets = table.columns.iter().filter(|column| !table.key.contains(&column.name.as_str()));
    let sets: Vec<String> = sets.map(|column| format!("`{0}` = S.`{0}`", column.name)).collect();
    let values: Vec<String> = names.iter().map(|name| format!("S.{name}")).collect();
    format!(
        "MERGE INTO `{project}`.`{dataset}`.`{}` T USING (SELECT {source}JSON_VALUE(r, '$[{}]') AS _remove \
         FROM UNNEST(JSON_QUERY_ARRAY(@rows)) AS r) S ON {} \
         WHEN MATCHED AND S._remove = '1' AND S.`{SEQ}` >= T.`{SEQ}` THEN DELETE \
         WHEN MATCHED AND S._remove IS NULL AND S.`{SEQ}` > T.`{SEQ}` THEN UPDATE SET {} \
         WHEN NOT MATCHED AND S._remove IS NULL THEN INSERT ({}) VALUES ({})",
        table.name,
        table.columns.len(),
        on.join(" AND "),
        sets.join(", "),
        names.join(", "),
        values.join(", ")
    )
}
