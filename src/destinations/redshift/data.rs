//! The Redshift Data API: statements over HTTPS, run at the cluster's own pace and asked after.
//!
//! Always true: several statements are one transaction; the same token never runs them twice; a wait ends. Not here: the
//! statements (`sql`), what their errors mean (`verdicts`). Source: Amazon Redshift Data API Reference.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use url::Url;

use super::super::aws::{Account, Call};
use super::super::driver::{Fault, Verdict};
use crate::domain::trouble::Trouble;

/// How long one transaction is waited for.
const WAIT: Duration = Duration::from_secs(240);
/// The pauses between two looks.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Where statements are run.
pub struct Data {
    pub account: Arc<Account>,
    pub url: Url,
    /// `ClusterIdentifier` or `WorkgroupName`, `Database`, `DbUser` or `SecretArn`.
    pub whereabouts: Map<String, Value>,
}

/// How statements ended.
pub enum Ended {
    Well,
    /// What the first that failed said, and the number of its query.
    Badly {
        error: String,
        query: Option<i64>,
        /// When the statements were asked for first; seconds since 1970. None: the service does not say.
        asked_at: Option<f64>,
    },
}

impl Data {
    /// Runs statements as one transaction. With a token that was used before, the outcome is that of then.
    pub async fn run(&self, sqls: &[String], token: &str) -> Result<Ended, Verdict> {
        let more = json!({"Sqls": sqls, "ClientToken": token, "StatementName": "tidemill"});
        let id = self.start("RedshiftData.BatchExecuteStatement", more).await?;
        self.wait(&id).await
    }

    /// Runs one statement that gives no rows.
    pub async fn query_nothing(&self, sql: &str) -> Result<(), Verdict> {
        let id = self.start("RedshiftData.ExecuteStatement", json!({"Sql": sql, "StatementName": "tidemill"})).await?;
        match self.wait(&id).await? {
            Ended::Well => Ok(()),
            Ended::Badly { error, .. } => Err(super::verdicts::judge(&error)),
        }
    }

    /// Runs a query and reads its first page: text and numbers as text, null as none.
    pub async fn query(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<Vec<Vec<Option<String>>>, Verdict> {
        let mut more = json!({"Sql": sql, "StatementName": "tidemill"});
        if !parameters.is_empty()
            && let Value::Object(more) = &mut more
        {
            let list = parameters.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            more.insert("Parameters".to_owned(), Value::Array(list));
        }
        let id = self.start("RedshiftData.ExecuteStatement", more).await?;
        if let Ended::Badly { error, .. } = self.wait(&id).await? {
            return Err(super::verdicts::judge(&error));
        }
        let answer = self.ask("RedshiftData.GetStatementResult", &json!({"Id": id})).await?;
        let text = |field: &Value| {
            let value = field.as_object()?.iter().find(|(name, _)| *name != "isNull")?.1;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let rows = answer.get("Records").and_then(Value::as_array).into_iter().flatten();
        Ok(rows.map(|row| row.as_array().into_iter().flatten().map(text).collect()).collect())
    }

    async fn start(&self, target: &'static str, more: Value) -> Result<String, Verdict> {
        let mut body = self.whereabouts.clone();
        if let Value::Object(more) = more {
            body.extend(more);
        }
        let answer = self.ask(target, &Value::Object(body)).await?;
        let id = answer.get("Id").and_then(Value::as_str).map(str::to_owned);
        id.ok_or_else(|| Verdict::Retry(Fault::new(Trouble::Failed, "the Data API gave no statement id")))
    }

    async fn wait(&self, id: &str) -> Result<Ended, Verdict> {
        let (began, mut pause) = (Instant::now(), LOOK_FIRST);
        loop {
            let told = self.ask("RedshiftData.DescribeStatement", &json!({"Id": id})).await?;
            match told.get("Status").and_then(Value::as_str).unwrap_or_default() {
                "FINISHED" => return Ok(Ended::Well),
                "FAILED" | "ABORTED" => return Ok(badly(&told)),
                _ if began.elapsed() > WAIT => {
                    return Err(Verdict::Retry(Fault::new(Trouble::Busy, "the statements are still running")));
                }
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    async fn ask(&self, target: &'static str, body: &Value) -> Result<Value, Verdict> {
        let answer = self.account.send(Call::json("redshift-data", target, &self.url, body.to_string())).await?;
        if answer.status != 200 {
            return Err(self.account.judge(&answer).await);
        }
        let odd = |_| Verdict::Retry(Fault::new(Trouble::Failed, "the Data API's answer is no JSON"));
        serde_json::from_slice(&answer.body).map_err(odd)
    }
}

fn badly(told: &Value) -> Ended {
    let mut subs = told.get("SubStatements").and_then(Value::as_array).into_iter().flatten();
    let failed = subs.find(|sub| sub.get("Error").and_then(Value::as_str).is_some_and(|e| !e.is_empty()));
    let from = failed.unwrap_or(told);
    let error = from.get("Error").and_then(Value::as_str).unwrap_or("the statements were aborted").to_owned();
    let query = from.get("RedshiftQueryId").and_then(Value::as_i64).filter(|id| *id > 0);
    let asked_at = told.get("CreatedAt").and_then(Value::as_f64);
    Ended::Badly { error, query, asked_at }
}
