//! `redshift`: rows in Amazon Redshift, staged in S3 and copied in by the Data API.
//!
//! Always true: what a batch stages has names of its own; one transaction takes it into its table and leaves the same rows
//! however often it runs; a table is checked, made and given its columns before the first batch is written to it. Not here:
//! what rows a batch comes to (`destinations::rows`), the statements (`sql`), requests (`destinations::aws`).

mod data;
mod options;
mod sql;
mod verdicts;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::aws::bucket::{Bucket, Place};
use super::aws::{Access, Account, note};
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Part, Probe, Step, Verdict};
use super::objects::Packing;
use super::rows::{self, Names, Table};
use super::{settings, warehouse};
use crate::domain::destination::Shape;
use crate::domain::id::DestinationId;
use crate::domain::trouble::Trouble;
use crate::error::Result;
use crate::outbound::Bytes;
use data::{Data, Ended};
use options::Settings;

/// The most bytes of one row for COPY (Amazon Redshift Database Developer Guide, COPY from JSON: 4 MB).
const ROW_MAX_BYTES: usize = 4_000_000;
/// How many batches' failed tries are remembered.
const TRIES_MAX: usize = 1_000;
/// Failures of a batch from before that are passed over.
const STALE_MAX: u32 = 50;

/// The kind.
pub static KIND: Kind = Kind {
    name: "redshift",
    title: "Amazon Redshift",
    about: "Rows in a cluster or workgroup of Amazon Redshift, staged in S3, as a log or as a mirror.",
    mirrors: true,
    schema: || {
        let shared = vec![schemars::schema_for!(Place), schemars::schema_for!(Access)];
        settings::schema(schemars::schema_for!(Settings), shared)
    },
    open,
};

/// What a part is for, as its target says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Target {
    table: String,
    topic: String,
    shape: Shape,
    /// Of the staged object.
    key: String,
}

struct Warehouse {
    destination: DestinationId,
    data: Data,
    bucket: Bucket,
    settings: Settings,
    names: Names,
    /// Tables that are as they should be.
    ready: Mutex<HashSet<String>>,
    /// Seconds since 1970.
    opened_at: f64,
    /// How often a part's transaction has failed: a token gives the outcome of its first use for hours.
    tries: Mutex<HashMap<String, u32>>,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let mut given = opening.settings;
    let place: Place = settings::take(&mut given)?;
    let access: Access = settings::take(&mut given)?;
    let mut settings: Settings = settings::own(given)?;
    settings.check()?;
    let account = Arc::new(Account::open(access.clone(), opening.client.clone())?);
    let staging = match &settings.bucket_region {
        None => account.clone(),
        Some(region) => Arc::new(Account::open(Access { region: region.clone(), ..access }, opening.client)?),
    };
    let url = account.endpoint("redshift-data", "endpoint", settings.endpoint.as_deref())?;
    let mut whereabouts = Map::new();
    for (name, value) in [
        ("ClusterIdentifier", settings.cluster_identifier.as_ref()),
        ("WorkgroupName", settings.workgroup_name.as_ref()),
        ("Database", Some(&settings.database)),
        ("DbUser", settings.db_user.as_ref()),
        ("SecretArn", settings.secret_arn.as_ref()),
    ] {
        if let Some(value) = value {
            whereabouts.insert(name.to_owned(), Value::from(value.as_str()));
        }
    }
    let names = Names { log: settings.table.clone(), prefix: settings.table_prefix.clone() };
    #[allow(clippy::cast_precision_loss, reason = "a time of this millennium")]
    let opened_at = account.wall().0 as f64 / 1000.0;
    Ok(Arc::new(Warehouse {
        destination: opening.destination,
        opened_at,
        data: Data { account, url, whereabouts },
        bucket: Bucket::open(staging, &place)?,
        settings,
        names,
        ready: Mutex::default(),
        tries: Mutex::default(),
    }))
}

impl Driver for Warehouse {
    fn limits(&self) -> Limits {
        Limits {
            rows: usize::try_from(self.settings.max_rows).unwrap_or(1),
            bytes: 32 << 20,
            age: Duration::from_secs(self.settings.max_seconds.into()),
            timeout: Duration::from_secs(600),
            // What is staged, and a transaction's token, have the batch's name.
            recuts: false,
        }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        self.frozen(batch, &self.names)
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            match self.write(frozen, &self.names).await {
                Ok(()) => Answer::All(Verdict::Done),
                Err(verdict) => Answer::All(verdict),
            }
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

impl Warehouse {
    fn frozen(&self, batch: &Batch, names: &Names) -> std::result::Result<Frozen, Verdict> {
        let written = rows::written(batch, names);
        let (mut parts, mut refused, mut notes) = (Vec::new(), written.refused, written.notes);
        for (number, (table, table_rows)) in written.tables.into_iter().enumerate() {
            let (mut lines, mut items, mut topic) = (String::new(), Vec::new(), "");
            // A key is not enforced: of an event that was asked for twice there is one row.
            for row in warehouse::once(&table, table_rows) {
                let line = sql::line(&table, &row, &mut notes).and_then(|line| match line.len() {
                    bytes if bytes > ROW_MAX_BYTES => {
                        let detail = format!("its row has {bytes} bytes, COPY takes {ROW_MAX_BYTES}");
                        Err(Fault::new(Trouble::TooLarge, detail))
                    }
                    _ => Ok(line),
                });
                match line {
                    Ok(line) => lines.push_str(&line),
                    Err(fault) => {
                        refused.extend(row.items.iter().map(|item| (*item, fault.clone())));
                        continue;
                    }
                }
                items.extend(&row.items);
                if let Some(item) = row.items.first().and_then(|place| batch.items.get(*place)) {
                    topic = &item.event.topic;
                }
            }
            if items.is_empty() {
                continue;
            }
            let body = Packing::Gzip.pack(lines.into_bytes());
            let body = body.map_err(|error| Verdict::Row(Fault::new(Trouble::Failed, error.kind().to_string())))?;
            let key = format!("{}/{}/{}/{number}.jsonl.gz", self.settings.staging_prefix, batch.destination, batch.id);
            let target = Target { table: table.name.clone(), topic: topic.to_owned(), shape: batch.shape, key };
            let target = serde_json::to_string(&target).unwrap_or_default();
            parts.push(Part { target, body: Bytes::from(body), items });
        }
        refused.sort_by_key(|(place, _)| *place);
        Ok(Frozen { id: batch.id.clone(), parts, items: batch.items.len(), refused, notes })
    }

    async fn write(&self, frozen: &Frozen, names: &Names) -> std::result::Result<(), Verdict> {
        for (number, part) in frozen.parts.iter().enumerate() {
            let odd = |_| Verdict::Config(Fault::new(Trouble::Failed, "the batch is of another release"));
            let target: Target = serde_json::from_str(&part.target).map_err(odd)?;
            let table = rows::table(target.shape, &target.topic, names);
            if !self.ready.lock().unwrap_or_else(PoisonError::into_inner).contains(&table.name) {
                self.ensure(&table).await?;
            }
            self.load(&format!("{}-{number}", frozen.id), part, &target, &table).await?;
        }
        Ok(())
    }

    /// Stages a part, and takes it into its table.
    async fn load(&self, name: &str, part: &Part, target: &Target, table: &Table) -> std::result::Result<(), Verdict> {
        self.bucket.write(&target.key, &part.body).await?;
        let url = |key: &str| format!("s3://{}/{key}", self.bucket.name);
        let manifest_key = format!("{}.manifest.json", target.key);
        let entry = json!({"url": url(&target.key), "mandatory": true});
        let manifest = Bytes::from(json!({"entries": [entry]}).to_string());
        self.bucket.write(&manifest_key, &manifest).await?;
        let staged = sql::Staged {
            manifest: &url(&manifest_key),
            role: &self.settings.copy_role_arn,
            region: &self.bucket.account.region,
        };
        let sqls = sql::load(&self.settings.schema, table, target.shape, &staged);
        loop {
            let tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or(0);
            let ended = self.data.run(&sqls, &format!("{}-{name}-{tries}", self.destination)).await?;
            let Ended::Badly { error, query, asked_at } = ended else { break };
            self.remember(name, tries + 1);
            // What failed before this driver was opened is known to nobody any more, and says nothing of now.
            if tries < STALE_MAX && asked_at.is_some_and(|at| at < self.opened_at) {
                continue;
            }
            return Err(self.told(&error, query, table).await);
        }
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        // As well as it goes: a lifecycle rule of the bucket takes away what stays.
        for key in [&manifest_key, &target.key] {
            let _ = self.bucket.delete(key).await;
        }
        Ok(())
    }

    fn remember(&self, name: &str, tries: u32) {
        let mut known = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        // Batches that ended as dead letters leave theirs: a count that is lost costs one try more for each failure.
        if known.len() >= TRIES_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), tries);
    }

    /// What a transaction that failed means; of rows that COPY refused, the column and the reason.
    async fn told(&self, error: &str, query: Option<i64>, table: &Table) -> Verdict {
        if verdicts::is_of_missing_table(error) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(&table.name);
        }
        if verdicts::is_of_load(error)
            && let Some(query) = query
        {
            let sql = "SELECT trim(column_name), trim(error_message) FROM sys_load_error_detail \
                       WHERE query_id = :query ORDER BY start_time DESC LIMIT 1";
            if let Ok(found) = self.data.query(sql, &[("query", &query.to_string())]).await
                && let Some([Some(column), Some(message)]) = found.first().map(Vec::as_slice)
            {
                return Verdict::Row(Fault::new(Trouble::ValueRefused, format!("{}.{column}: {message}", table.name)));
            }
        }
        verdicts::judge(error)
    }

    /// Makes the table, or gives it the columns that it lacks; a column of another type is the owner's to mend.
    async fn ensure(&self, table: &Table) -> std::result::Result<(), Verdict> {
        let schema = self.settings.schema.as_str();
        let sql = "SELECT column_name, data_type FROM svv_columns \
                   WHERE table_schema = :schema AND table_name = :table ORDER BY ordinal_position";
        let found = self.data.query(sql, &[("schema", schema), ("table", &table.name)]).await?;
        let mut known: HashMap<String, String> = HashMap::new();
        for row in found {
            if let [Some(name), Some(kind)] = row.as_slice() {
                known.insert(name.clone(), kind.clone());
            }
        }
        let mut sqls = Vec::new();
        if known.is_empty() {
            sqls.push(sql::create(schema, table));
        } else {
            for column in &table.columns {
                match known.get(&column.name) {
                    Some(kind) if kind.starts_with(sql::catalogue_name(column.kind)) => {}
                    None if column.nullable => sqls.push(sql::add(schema, &table.name, column)),
                    other => {
                        let is = other.map_or("missing", String::as_str);
                        let wanted = sql::kind(column.kind);
                        let detail = format!("{}.{} is {is}, it should be {wanted}", table.name, column.name);
                        return Err(Verdict::Config(Fault::new(Trouble::TableMismatch, detail)));
                    }
                }
            }
        }
        // Each alone: it can be repeated, and a table has more columns than a request has statements.
        for sql in sqls {
            self.data.query_nothing(&sql).await?;
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(table.name.clone());
        Ok(())
    }

    async fn try_out(&self, probe: &Probe, steps: &mut Vec<Step>) -> Option<()> {
        let began = Instant::now();
        note(steps, "signIn", began, self.data.account.credentials().await.map(|_| String::new()))?;
        let began = Instant::now();
        let version = self.data.query("SELECT version()", &[]).await;
        let version = version.map(|rows| rows.into_iter().flatten().flatten().next().unwrap_or_default());
        note(steps, "connect", began, version)?;

        let names = Names::of_test(probe.batch.destination);
        let began = Instant::now();
        // A test has names of its own each time: a token gives the outcome of its first use.
        let id = format!("test-{}", self.data.account.wall().0);
        let batch = Batch { id, shape: probe.shape, ..probe.batch.clone() };
        let topic = batch.items.first().map_or("", |item| item.event.topic.as_str());
        let table = rows::table(probe.shape, topic, &names);
        note(steps, "table", began, self.ensure(&table).await.map(|()| format!("{} columns", table.columns.len())))?;
        let began = Instant::now();
        let written = match self.frozen(&batch, &names) {
            Ok(frozen) => self.write(&frozen, &names).await.map(|()| String::new()),
            Err(verdict) => Err(verdict),
        };
        note(steps, "write", began, written)?;
        let began = Instant::now();
        let full = sql::full(&self.settings.schema, &table.name);
        let count = self.data.query(&format!("SELECT count(*) FROM {full}"), &[]).await;
        let read = count.and_then(|rows| match rows.into_iter().flatten().flatten().next().as_deref() {
            Some("0") | None => Err(Verdict::Retry(Fault::new(Trouble::Failed, "the row does not read back"))),
            Some(count) => Ok(format!("{count} rows")),
        });
        note(steps, "read", began, read)?;
        let began = Instant::now();
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(&table.name);
        let cleaned = self.data.query_nothing(&format!("DROP TABLE {full}")).await;
        note(steps, "clean", began, cleaned.map(|()| String::new()))
    }
}
