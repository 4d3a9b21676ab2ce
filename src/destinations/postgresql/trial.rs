//! The test of a destination: all that a batch needs, tried in a transaction that is rolled back.
//!
//! Always true: nothing that a test does is ever seen by anybody else, whatever it is stopped at. Not here: what a step's
//! fault means for a batch (`judge`).

use std::time::Instant;

use tokio_postgres::Client;
use tokio_postgres::types::Type as Wire;

use super::{Postgresql, judge, sql, write};
use crate::destinations::driver::{Driver, Fault, Probe, Step, Verdict};
use crate::domain::trouble::Trouble;

/// The steps made so far.
struct Steps {
    made: Vec<Step>,
    began: Instant,
}

impl Steps {
    /// Records a step; None: it failed, and was the last.
    fn record<T>(&mut self, name: &'static str, outcome: Result<(T, String), Verdict>) -> Option<T> {
        let took = self.began.elapsed();
        self.began = Instant::now();
        let (value, fault, found) = match outcome {
            Ok((value, found)) => (Some(value), None, found),
            Err(Verdict::Done) => (None, Some(Fault::new(Trouble::Failed, "")), String::new()),
            Err(Verdict::Retry(fault) | Verdict::Row(fault) | Verdict::Config(fault)) => {
                (None, Some(fault), String::new())
            }
        };
        self.made.push(Step { name, took, fault, found });
        value
    }
}

/// `connect`, `signIn`, `permissions`, `table`, `write`, `read`, `clean`.
pub(super) async fn run(driver: &Postgresql, probe: &Probe) -> Vec<Step> {
    let mut steps = Steps { made: Vec::new(), began: Instant::now() };
    // A test that cannot end is ended, as a batch is.
    let took = driver.limits().timeout;
    if tokio::time::timeout(took, try_all(driver, probe, &mut steps)).await.is_err() {
        let fault = Fault::new(Trouble::Busy, "the step did not end in time");
        steps.made.push(Step {
            name: next(&steps.made),
            took: steps.began.elapsed(),
            fault: Some(fault),
            found: String::new(),
        });
    }
    steps.made
}

/// The step that was under way.
fn next(made: &[Step]) -> &'static str {
    ["connect", "signIn", "permissions", "table", "write", "read"].get(made.len()).copied().unwrap_or("clean")
}

async fn try_all(driver: &Postgresql, probe: &Probe, steps: &mut Steps) -> Option<()> {
    let pool = &driver.pool;
    let dialled = async {
        let room = pool.room().await?;
        Ok(((room, pool.dial().await?), String::new()))
    };
    let (_room, tcp) = steps.record("connect", dialled.await)?;
    let signed_in = async {
        let session = pool.sign_in(tcp).await?;
        let version = text(&session.client, "SELECT current_setting('server_version')", &[]).await?;
        Ok((session, format!("PostgreSQL {version}")))
    };
    let session = steps.record("signIn", signed_in.await)?;
    let schema = driver.settings.schema.as_str();
    steps.record("permissions", permissions(&session.client, schema).await.map(|found| ((), found)))?;
    within(driver, probe, &session.client, steps).await
}

/// From here on in a transaction that is never committed: a connection that breaks rolls it back too.
async fn within(driver: &Postgresql, probe: &Probe, client: &Client, steps: &mut Steps) -> Option<()> {
    let place = driver.place();
    let frozen = match driver.prepare(&probe.batch) {
        Ok(frozen) => frozen,
        Err(verdict) => return steps.record("table", Err(verdict)),
    };
    let parts = match write::ready(&frozen, &driver.names) {
        Ok(parts) => parts,
        Err(verdict) => return steps.record("table", Err(verdict)),
    };
    let made = async {
        execute(client, &write::begin(driver.settings.timeout_seconds)).await?;
        let mut found = Vec::new();
        for part in &parts {
            let how = write::mend(client, &place, &part.table).await?;
            found.push(format!("{}.{}: {how}", place.schema, part.table.name));
        }
        Ok(((), found.join(", ")))
    };
    steps.record("table", made.await)?;
    let written = async {
        for part in &parts {
            write::write(client, &place, part).await.map_err(|error| judge::statement(&error))?;
        }
        Ok(((), String::new()))
    };
    steps.record("write", written.await)?;
    let read = async {
        let (Some(part), Some(item)) = (parts.first(), probe.batch.items.first()) else {
            return Ok(((), String::new()));
        };
        let column = if part.table.key.len() == 1 { "event_id" } else { "_event_id" };
        let question = format!(
            "SELECT count(*)::text FROM {} WHERE {} = $1",
            sql::path(place.schema, &part.table.name),
            sql::quoted(column)
        );
        let found = text(client, &question, &[item.id.to_string()]).await?;
        if found == "0" {
            let detail = "what was written does not read back; a rule or trigger of the table may drop it";
            return Err(Verdict::Config(Fault::new(Trouble::TableMismatch, detail)));
        }
        Ok(((), format!("{found} row")))
    };
    steps.record("read", read.await)?;
    steps.record("clean", execute(client, "ROLLBACK").await.map(|()| ((), "rolled back".to_owned())))
}

/// The schema must be there, and open to us.
async fn permissions(client: &Client, schema: &str) -> Result<String, Verdict> {
    let question = "SELECT coalesce((SELECT CASE WHEN NOT has_schema_privilege(oid, 'USAGE') THEN 'closed' \
         WHEN has_schema_privilege(oid, 'CREATE') THEN 'tables can be made' ELSE 'tables cannot be made' END \
         FROM pg_catalog.pg_namespace WHERE nspname = $1), 'missing')";
    let found = text(client, question, &[schema.to_owned()]).await?;
    let refused = |trouble, detail: String| Err(Verdict::Config(Fault::new(trouble, detail)));
    match found.as_str() {
        "missing" => refused(Trouble::TargetMissing, format!("there is no schema {schema}")),
        "closed" => refused(Trouble::PermissionDenied, format!("the user has no USAGE on the schema {schema}")),
        _ => Ok(found),
    }
}

/// The one text that a question is answered with.
async fn text(client: &Client, question: &str, bound: &[String]) -> Result<String, Verdict> {
    let bound: Vec<_> =
        bound.iter().map(|value| (value as &(dyn tokio_postgres::types::ToSql + Sync), Wire::TEXT)).collect();
    let failed = |error: tokio_postgres::Error| judge::statement(&error);
    let row = client.query_typed_one(question, &bound).await.map_err(failed)?;
    row.try_get(0).map_err(failed)
}

async fn execute(client: &Client, statement: &str) -> Result<(), Verdict> {
    client.batch_execute(statement).await.map_err(|error| judge::statement(&error))
}
