//! Jobs of BigQuery under names that a batch gives: once each, however often they are asked for.
//!
//! Always true: a job of a batch is followed by another only after it is known to have failed, and a failed job has
//! written nothing; so what one of them wrote is written once. Not here: what the jobs do (`bigquery`).

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use crate::destinations::driver::{Fault, Verdict};
use crate::destinations::google::{self, Asked, Google};
use crate::domain::trouble::Trouble;
use crate::outbound::{Bytes, Method, Request, header};

const POLL_FIRST: Duration = Duration::from_millis(500);
const POLL_MAX: Duration = Duration::from_secs(10);
/// Polls of one job at most; with these waits, more than a try lasts.
const POLLS_MAX: usize = 100;
/// Jobs of one batch at most.
const ATTEMPTS_MAX: u32 = 1 << 20;
/// For a request with events.
const UPLOAD: Duration = Duration::from_secs(180);

/// Where jobs run.
pub struct Jobs<'a> {
    pub google: &'a Google,
    pub endpoint: &'a Url,
    pub project: &'a str,
    /// Of the dataset: jobs elsewhere than in the US and the EU are found only if it is said.
    pub location: &'a str,
}

/// What a job is to do.
pub enum Work<'a> {
    /// Loads lines of JSON.
    Load { configuration: Value, lines: &'a Bytes },
    /// Runs a statement.
    Query { configuration: Value },
}

/// How a job stands.
enum State {
    Unknown,
    Running,
    Done,
    Failed(Verdict),
}

impl Jobs<'_> {
    /// Does the work of that name, unless it was done.
    ///
    /// # Errors
    /// It failed, or nobody can say.
    pub async fn once(&self, name: &str, work: &Work<'_>) -> Result<(), Verdict> {
        let mut attempt = 1;
        let mut old = self.insert(name, attempt, work).await?;
        if old {
            // Some job of this batch is there. The last one says how it stands.
            let (last, state) = self.last(name).await?;
            match state {
                State::Done => return Ok(()),
                State::Running | State::Unknown => return self.wait(name, last).await,
                State::Failed(_) => attempt = last + 1,
            }
            old = self.insert(name, attempt, work).await?;
        }
        if old {
            let detail = "another try of the same batch is under way";
            return Err(Verdict::Retry(Fault::new(Trouble::Conflict, detail)));
        }
        self.wait(name, attempt).await
    }

    /// The last job of a batch whose first is there, found by doubling and halving: all before it are there, and failed.
    async fn last(&self, name: &str) -> Result<(u32, State), Verdict> {
        let (mut low, mut state) = (1, self.state(name, 1).await?);
        let mut high = 2;
        while matches!(state, State::Failed(_)) {
            match self.state(name, high).await? {
                State::Unknown => break,
                found => (low, state) = (high, found),
            }
            high *= 2;
            if high > ATTEMPTS_MAX {
                let detail = "too many jobs of this batch have failed";
                return Err(Verdict::Retry(Fault::new(Trouble::Failed, detail)));
            }
        }
        while high - low > 1 && matches!(state, State::Failed(_)) {
            let middle = low + (high - low) / 2;
            match self.state(name, middle).await? {
                State::Unknown => high = middle,
                found => (low, state) = (middle, found),
            }
        }
        Ok((low, state))
    }

    /// Asks for a job; true: there is one of that name.
    async fn insert(&self, name: &str, attempt: u32, work: &Work<'_>) -> Result<bool, Verdict> {
        let reference = json!({"projectId": self.project, "jobId": id(name, attempt), "location": self.location});
        let request = match work {
            Work::Query { configuration } => {
                let body = json!({"jobReference": reference, "configuration": {"query": configuration}});
                let url = google::below(self.endpoint, &["bigquery", "v2", "projects", self.project, "jobs"], &[]);
                let mut request = google::request(Method::POST, url, Some(&body));
                request.timeout = UPLOAD;
                request
            }
            Work::Load { configuration, lines } => {
                let body = json!({"jobReference": reference, "configuration": {"load": configuration}});
                self.upload(&body, lines, name)
            }
        };
        let answer = self.google.send(request).await?;
        if answer.status == 409 {
            return Ok(true);
        }
        google::read(&answer, Asked::Setup).map(|_| false)
    }

    /// "Uploading data with a POST request", multipart: metadata and lines in one.
    fn upload(&self, metadata: &Value, lines: &Bytes, name: &str) -> Request {
        let path = ["upload", "bigquery", "v2", "projects", self.project, "jobs"];
        let url = google::below(self.endpoint, &path, &[("uploadType", "multipart")]);
        let mut request = google::request(Method::POST, url, None);
        let (kind, body) = google::multipart(name, metadata, "application/x-ndjson", lines);
        request.headers.push((header::CONTENT_TYPE, kind));
        request.body = body;
        request.timeout = UPLOAD;
        request
    }

    async fn state(&self, name: &str, attempt: u32) -> Result<State, Verdict> {
        let path = ["bigquery", "v2", "projects", self.project, "jobs", &id(name, attempt)];
        let url = google::below(self.endpoint, &path, &[("location", self.location)]);
        let answer = self.google.send(google::request(Method::GET, url, None)).await?;
        if answer.status == 404 {
            return Ok(State::Unknown);
        }
        let job = google::read(&answer, Asked::Setup)?;
        let status = job.get("status").unwrap_or(&Value::Null);
        if status.get("state").and_then(Value::as_str) != Some("DONE") {
            return Ok(State::Running);
        }
        Ok(failure(status).map_or(State::Done, State::Failed))
    }

    /// Until a job ends.
    async fn wait(&self, name: &str, attempt: u32) -> Result<(), Verdict> {
        let mut pause = POLL_FIRST;
        for _ in 0..POLLS_MAX {
            match self.state(name, attempt).await? {
                State::Done => return Ok(()),
                State::Failed(verdict) => return Err(verdict),
                State::Running | State::Unknown => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(POLL_MAX);
        }
        Err(Verdict::Retry(Fault::new(Trouble::Busy, "the job has not ended; it is asked for again")))
    }
}

fn id(name: &str, attempt: u32) -> String {
    if attempt == 1 { name.to_owned() } else { format!("{name}-a{attempt}") }
}

/// What `status.errorResult` and the first of `status.errors` say; None: it went well.
fn failure(status: &Value) -> Option<Verdict> {
    let error = status.get("errorResult").filter(|error| !error.is_null())?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut detail = text(error, "message");
    let others = status.get("errors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for other in others.iter().take(5) {
        let message = text(other, "message");
        if !message.is_empty() && !detail.contains(&message) {
            detail = format!("{detail}; {message}");
        }
    }
    let fault = |trouble| Fault::new(trouble, detail.clone());
    // "BigQuery error messages": the table of reasons.
    Some(match text(error, "reason").as_str() {
        // "Could not serialize access to table …", "Transaction is aborted due to concurrent update …".
        "invalid" | "invalidQuery" if detail.contains("concurrent update") => Verdict::Retry(fault(Trouble::Conflict)),
        "invalid" | "invalidQuery" if names_column(&detail) => Verdict::Config(fault(Trouble::TableMismatch)),
        "invalid" | "invalidQuery" => Verdict::Row(fault(Trouble::ValueRefused)),
        "tableUnavailable" | "resourceInUse" => Verdict::Retry(fault(Trouble::Busy)),
        "responseTooLarge" | "resourcesExceeded" => Verdict::Row(fault(Trouble::TooLarge)),
        "notFound" => Verdict::Config(fault(Trouble::TargetMissing)),
        "accessDenied" => Verdict::Config(fault(Trouble::PermissionDenied)),
        "billingNotEnabled" | "billingTierLimitExceeded" => Verdict::Config(fault(Trouble::QuotaExceeded)),
        "quotaExceeded" => Verdict::Retry(fault(Trouble::QuotaExceeded)),
        "rateLimitExceeded" | "jobRateLimitExceeded" => Verdict::Retry(fault(Trouble::Throttled)),
        _ => Verdict::Retry(fault(Trouble::Failed)),
    })
}

/// Whether it is about the table's columns rather than about a value.
fn names_column(detail: &str) -> bool {
    ["No such field", "Unrecognized name", "does not match schema", "Provided Schema does not match"]
        .iter()
        .any(|words| detail.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(reason: &str, message: &str) -> Verdict {
        let error = json!({"reason": reason, "message": message});
        failure(&json!({"state": "DONE", "errorResult": error, "errors": [error]})).unwrap()
    }

    #[test]
    fn a_failed_job_blames_an_event_only_for_its_values() {
        assert!(matches!(judged("invalid", "Could not parse '13th' as TIMESTAMP"), Verdict::Row(_)));
        assert!(matches!(judged("invalid", "No such field: crm."), Verdict::Config(_)));
        let conflict = "Could not serialize access to table p:d.crm_contacts due to concurrent update";
        assert!(matches!(judged("invalidQuery", conflict), Verdict::Retry(_)));
        assert!(matches!(judged("accessDenied", ""), Verdict::Config(_)));
        assert!(matches!(judged("backendError", ""), Verdict::Retry(_)));
        assert!(matches!(judged("rateLimitExceeded", ""), Verdict::Retry(_)));
        assert!(failure(&json!({"state": "DONE", "errors": []})).is_none());
    }

    #[test]
    fn what_is_wrong_with_rows_is_told_in_the_words_of_the_job() {
        let status = json!({
            "errorResult": {"reason": "invalid", "message": "Error while reading data"},
            "errors": [{"reason": "invalid", "message": "Error while reading data"}, {"message": "row 3: not a BOOL"}],
        });
        let Some(Verdict::Row(fault)) = failure(&status) else { panic!("a row") };
        assert_eq!(fault.detail, "Error while reading data; row 3: not a BOOL");
    }
}
