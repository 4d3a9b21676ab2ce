//! `snowflake`: tables of a Snowflake database, written by MERGE statements over its SQL API.
//!
//! Always true: a statement has the name of its batch and does once what it does twice, so a batch is in the table once;
//! tables are made, and columns added, when a statement shows that they are missing; nothing is ever dropped. Not here:
//! what the columns are (`destinations::rows`).

mod sql;
mod verdict;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

use self::verdict::{Failed, judge};
use self::wire::{Found, Place, Wire};
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::parts;
use super::rows::{Names, Table};
use super::rs256::Key;
use super::steps::{self, Steps};
use super::warehouse::{self, Bounds, Slice};
use crate::clock::Clock;
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};

/// The kind.
pub static KIND: Kind = Kind {
    name: "snowflake",
    title: "Snowflake",
    about: "Rows in tables of a Snowflake database: a log of events, or tables that equal the apps' records.",
    mirrors: true,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// A bound text stays below what a VARIANT holds in every account (16 MB), and a request small.
const PART_MAX_BYTES: usize = 12 << 20;
const BOUNDS: Bounds = Bounds { whole_digits: 29, fraction_digits: 9, part_bytes: PART_MAX_BYTES };

/// What can be set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Settings {
    /// The account's identifier: `myorg-myaccount`, or a locator such as `xy12345.eu-central-1`.
    account: String,
    /// The user's login name.
    user: String,
    /// The user's private key: PEM, not encrypted.
    #[schemars(with = "String", extend("writeOnly" = true))]
    private_key: Secret,
    /// The database; it must be there.
    database: String,
    /// The schema; it must be there.
    #[serde(default = "default_schema")]
    schema: String,
    /// The warehouse that runs the statements.
    warehouse: String,
    /// A role; the user's default role where it is not said.
    role: Option<String>,
    /// The table of a log.
    #[serde(default = "default_table")]
    table: String,
    /// Before the names of a mirror's tables: `tm_` gives `TM_CRM_CONTACTS`.
    #[serde(default)]
    table_prefix: String,
    /// Events in a batch at most.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1, max = 50_000))]
    max_rows: u32,
    /// Seconds that an event may wait for others to join it. Each batch costs the warehouse some seconds.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    max_seconds: u32,
    /// Another address than `https://{account}.snowflakecomputing.com`, such as one of a private link.
    endpoint: Option<String>,
}

fn default_schema() -> String {
    "PUBLIC".to_owned()
}

fn default_table() -> String {
    "TIDEMILL_EVENTS".to_owned()
}

fn default_rows() -> u32 {
    10_000
}

fn default_seconds() -> u32 {
    60
}

struct Snowflake {
    wire: Wire,
    place: Place,
    names: Names,
    rows: usize,
    age: Duration,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let settings: Settings = crate::destinations::settings::own(opening.settings)?;
    let (rows, age) = crate::destinations::settings::batches(settings.max_rows, 50_000, settings.max_seconds)?;
    let is_account = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if settings.account.is_empty() || settings.account.len() > 200 || !settings.account.bytes().all(is_account) {
        return Err(Error::invalid("settings.account: use the account's identifier, such as myorg-myaccount"));
    }
    if settings.user.is_empty() || settings.user.len() > 255 {
        return Err(Error::invalid("settings.user: use the user's login name"));
    }
    let key = Key::read(settings.private_key.expose())
        .map_err(|why| Error::invalid(format!("settings.privateKey: {why}")))?;
    let named = |setting: &str, text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$');
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if starts && text.len() <= 200 && text.bytes().all(plain) {
            return Ok(text.to_ascii_uppercase());
        }
        Err(Error::invalid(format!(
            "settings.{setting}: use a letter or `_`, then up to 199 letters, digits, `_` and `$`"
        )))
    };
    if !settings.table_prefix.is_empty() {
        named("tablePrefix", &settings.table_prefix)?;
    }
    // With a topic's name after it, a table's name has at most 255 characters.
    if settings.table_prefix.len() > 100 {
        return Err(Error::invalid("settings.tablePrefix: use up to 100 characters"));
    }
    let host = settings.account.to_ascii_lowercase().replace('_', "-");
    let own = format!("https://{host}.snowflakecomputing.com");
    let endpoint = Url::parse(settings.endpoint.as_deref().unwrap_or(&own)).ok();
    let endpoint = endpoint.filter(|url| matches!(url.scheme(), "https" | "http") && url.host().is_some());
    let endpoint =
        endpoint.ok_or_else(|| Error::invalid("settings.endpoint: use an address such as https://example.com"))?;
    // "Key-pair authentication": a locator goes without its region and cloud.
    let account = settings.account.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let wire = Wire {
        client: opening.client,
        clock: Clock::start(Millis(0)),
        key,
        endpoint,
        subject: format!("{account}.{}", settings.user.to_ascii_uppercase()),
        space: Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("tidemill:{}", opening.destination).as_bytes()),
        token: Mutex::new(None),
    };
    let place = Place {
        database: named("database", &settings.database)?,
        schema: named("schema", &settings.schema)?,
        warehouse: named("warehouse", &settings.warehouse)?,
        role: settings.role.as_deref().map(|role| named("role", role)).transpose()?,
    };
    let names = Names { log: named("table", &settings.table)?, prefix: settings.table_prefix };
    Ok(Arc::new(Snowflake { wire, place, names, rows, age }))
}

impl Driver for Snowflake {
    fn limits(&self) -> Limits {
        Limits { rows: self.rows, bytes: 8 << 20, age: self.age, timeout: Duration::from_secs(300), recuts: true }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        Ok(self.frozen(batch, &self.names))
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        self.write(frozen, &self.names).boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        self.try_out(probe).boxed()
    }
}

impl Snowflake {
    fn frozen(&self, batch: &Batch, names: &Names) -> Frozen {
        let sliced = warehouse::sliced(batch, names, BOUNDS, warehouse::array);
        let parts = sliced.slices.into_iter().map(|slice| {
            let Slice { topic, table, rows, since, items } = slice;
            let rows = format!("[{}]", rows.join(","));
            let body = match (&topic, since) {
                (None, since) => {
                    self.place.body(&sql::append(&table), &[&rows, &since.unwrap_or_default().to_string()])
                }
                (Some(_), _) => self.place.body(&sql::mirror(&table), &[&rows]),
            };
            Part { target: topic.unwrap_or_default(), body, items }
        });
        Frozen {
            id: batch.id.clone(),
            parts: parts.collect(),
            items: batch.items.len(),
            refused: sliced.refused,
            notes: sliced.notes,
        }
    }

    async fn write(&self, frozen: &Frozen, names: &Names) -> Answer {
        for (number, part) in frozen.parts.iter().enumerate() {
            match self.merge(&frozen.id, number, part, names).await {
                Ok(()) => {}
                // A MERGE does once what it does twice.
                Err(verdict @ (Verdict::Retry(_) | Verdict::Config(_))) => return Answer::All(verdict),
                Err(verdict) => return parts::told(frozen, number, verdict),
            }
        }
        Answer::All(Verdict::Done)
    }

    /// One statement, once more after what it lacked was made.
    async fn merge(&self, batch: &str, number: usize, part: &Part, names: &Names) -> std::result::Result<(), Verdict> {
        let named = format!("{batch}/{number}");
        let Err(answer) = self.wire.run(&named, &part.body).await? else { return Ok(()) };
        let failed = Failed::of(&answer);
        let table = warehouse::table(Some(part.target.as_str()).filter(|topic| !topic.is_empty()), names);
        if failed.is_missing_object() {
            self.create(&named, &table).await?;
        } else if failed.is_missing_column() {
            self.add_columns(&named, &table).await?;
        } else {
            match judge(&answer) {
                // What the owner had to mend may be mended since the statement failed under its name.
                // And one that failed for the moment would be answered with that failure for ever.
                Verdict::Config(_) | Verdict::Retry(_) if answer.status == 422 => {}
                verdict => return Err(verdict),
            }
        }
        // Another name: Snowflake may answer a known one with what became of it. A MERGE does once what it does twice.
        self.wire.do_or_say(&self.fresh(&format!("{named}/again")), &part.body).await.map(drop)
    }

    async fn create(&self, named: &str, table: &Table) -> std::result::Result<(), Verdict> {
        self.wire.do_or_say(&self.fresh(named), &self.place.body(&sql::create(table), &[])).await.map(drop)
    }

    async fn add_columns(&self, named: &str, table: &Table) -> std::result::Result<(), Verdict> {
        let held = self.columns(named, table).await?;
        for column in &table.columns {
            if !held
                .data
                .iter()
                .any(|row| matches!(row.first(), Some(Some(name)) if name.eq_ignore_ascii_case(&column.name)))
            {
                let body = self.place.body(&sql::add(table, column), &[]);
                self.wire.do_or_say(&self.fresh(&format!("{named}/{}", column.name)), &body).await?;
            }
        }
        Ok(())
    }

    async fn columns(&self, named: &str, table: &Table) -> std::result::Result<Found, Verdict> {
        let statement = "SELECT COLUMN_NAME, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS \
                         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION LIMIT 1000";
        let name = table.name.to_ascii_uppercase();
        let body = self.place.body(statement, &[&self.place.schema, &name]);
        self.wire.do_or_say(&self.fresh(&format!("{named}/columns")), &body).await
    }

    /// A name for a statement that is to run each time that it is asked for.
    fn fresh(&self, named: &str) -> String {
        format!("{named}@{}", self.wire.clock.now().0)
    }

    async fn try_out(&self, probe: &Probe) -> Vec<Step> {
        let mut steps = Steps::default();
        let names = Names::of_test(probe.batch.destination);
        let mut batch = probe.batch.clone();
        batch.id = self.fresh("test");
        let frozen = self.frozen(&batch, &names);
        let topic = frozen.parts.first().map(|part| part.target.clone()).filter(|topic| !topic.is_empty());
        let table = warehouse::table(topic.as_deref(), &names);
        let ask = |what: &'static str, statement: String| async move {
            let body = self.place.body(&statement, &[]);
            self.wire.do_or_say(&self.fresh(what), &body).await
        };
        let said =
            |found: Found| found.data.into_iter().next().and_then(|row| row.into_iter().next()?).unwrap_or_default();
        steps
            .take("signIn", async { Ok(((), said(ask("version", "SELECT CURRENT_VERSION()".to_owned()).await?))) })
            .await;
        let made = steps
            .take("table", async {
                self.create("test/create", &table).await?;
                let count = self.columns("test", &table).await?.data.len();
                Ok(((), format!("{} with {count} columns", table.name.to_ascii_uppercase())))
            })
            .await;
        steps
            .take("write", async { steps::written(self.write(&frozen, &names).await).map(|()| ((), String::new())) })
            .await;
        let from = sql::name(&table.name);
        steps
            .take("read", async {
                let count = said(ask("test/read", format!("SELECT COUNT(*) FROM {from}")).await?);
                if count == "0" || count.is_empty() {
                    return Err(Verdict::Retry(Fault::new(Trouble::Failed, "what was written does not read back")));
                }
                Ok(((), format!("{count} row")))
            })
            .await;
        if made.is_some() {
            // Also after a step that failed: what was made is taken away.
            let clean = ask("test/clean", format!("DROP TABLE IF EXISTS {from}")).await;
            steps.take("clean", async { clean.map(|_| ((), String::new())) }).await;
        }
        steps.done()
    }
}
