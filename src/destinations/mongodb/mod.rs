//! `mongodb`: documents in the collections of a database.
//!
//! Always true: the `_id` of a document is the event's id (log) or the record's (mirror), so a repeated batch, or one cut
//! anew after a crash, writes nothing twice; each event is judged by itself. Not here: what a document holds
//! (`document`), and the way out (`gateway`).

mod cluster;
mod document;
mod gateway;
mod settings;
mod verdicts;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mongodb::bson::{Document, RawDocumentBuf, rawdoc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::cluster::Cluster;
use self::settings::Settings;
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Probe, Step, Verdict};
use super::rows::Names;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};

/// The kind.
pub static KIND: Kind = Kind {
    name: "mongodb",
    title: "MongoDB",
    about: "A collection of events, or a collection per topic that equals the records, in MongoDB 4.2 or later.",
    mirrors: true,
    schema: || schemars::schema_for!(Settings),
    open,
};

struct Mongo {
    settings: Settings,
    names: Names,
    cluster: Cluster,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let settings: Settings = crate::destinations::settings::own(opening.settings)?;
    settings.check_ranges()?;
    let (place, names) = (settings.place()?, settings.names()?);
    let tls = match place.encrypted {
        false => None,
        true => {
            let wrong = |error| Error::invalid("settings.caCertificate: use certificates in PEM").because(error);
            let made = opening.client.tls_config(settings.ca_certificate.as_deref()).map_err(wrong)?;
            Some(Arc::new(made))
        }
    };
    let cluster = Cluster::new(opening.client, place, tls);
    Ok(Arc::new(Mongo { settings, names, cluster }))
}

impl Driver for Mongo {
    fn limits(&self) -> Limits {
        Limits {
            rows: usize::try_from(self.settings.max_rows).unwrap_or(1),
            bytes: 8 << 20,
            age: Duration::from_secs(self.settings.max_seconds.into()),
            timeout: Duration::from_secs(60),
            recuts: true,
        }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        Ok(document::prepare(batch, &self.names))
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        write::batch(&self.cluster, frozen).boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        self.try_out(probe).boxed()
    }
}

impl Mongo {
    async fn try_out(&self, probe: &Probe) -> Vec<Step> {
        let mut steps = Steps { done: Vec::new(), began: Instant::now() };
        self.try_all(probe, &mut steps).await.ok();
        steps.done
    }

    async fn try_all(&self, probe: &Probe, steps: &mut Steps) -> std::result::Result<(), ()> {
        // One exchange connects and signs in; a refusal of the credentials tells that the server was reached.
        let greeted = self.cluster.run(rawdoc! { "buildInfo": 1 }).await;
        match greeted {
            Err(verdict) if is_refusal(&verdict) => {
                steps.pass("connect", Ok(String::new()))?;
                steps.pass("signIn", Err(verdict))?;
            }
            Err(verdict) => steps.pass("connect", Err(verdict))?,
            Ok(info) => {
                steps.pass("connect", Ok(format!("MongoDB {}", info.get_str("version").unwrap_or("?"))))?;
                steps.pass("signIn", Ok(String::new()))?;
            }
        }
        let names = Names::of_test(probe.batch.destination);
        let mut batch = probe.batch.clone();
        batch.shape = probe.shape;
        let frozen = document::prepare(&batch, &names);
        let written = match write::batch(&self.cluster, &frozen).await {
            Answer::All(Verdict::Done) => Ok(String::new()),
            Answer::All(verdict) => Err(verdict),
            Answer::Each(verdicts) => {
                verdicts.into_iter().find(|verdict| *verdict != Verdict::Done).map_or(Ok(String::new()), Err)
            }
        };
        steps.pass("write", written)?;
        let target = frozen.parts.first().map(|part| part.target.as_str()).unwrap_or_default();
        let collection = target.split_once(' ').map_or(target, |(_, collection)| collection);
        let found = self.cluster.run(rawdoc! { "find": collection, "limit": 1, "singleBatch": true }).await;
        steps.pass("read", found.and_then(|answer| read_back(&answer)))?;
        let every = rawdoc! { "q": RawDocumentBuf::new(), "limit": 0 };
        let emptied = self.cluster.run(rawdoc! { "delete": collection, "deletes": [every] }).await;
        let dropped = self.cluster.run(rawdoc! { "drop": collection }).await;
        let found = if dropped.is_ok() { "" } else { "the test's collection stays, empty: the user may not drop it" };
        steps.pass("clean", emptied.map(|_| found.to_owned()))
    }
}

fn is_refusal(verdict: &Verdict) -> bool {
    use crate::domain::delivery::AttemptError::Destination;
    matches!(verdict, Verdict::Config(fault) if matches!(fault.error, Destination(Trouble::CredentialsRefused)))
}

fn read_back(answer: &Document) -> std::result::Result<String, Verdict> {
    let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    if batch.is_ok_and(|batch| !batch.is_empty()) {
        return Ok(String::new());
    }
    Err(Verdict::Retry(Fault::new(Trouble::Failed, "what was written does not read back")))
}

/// The steps of a test as they are made.
struct Steps {
    done: Vec<Step>,
    began: Instant,
}

impl Steps {
    /// What was found, or why it failed: then no step follows.
    fn pass(
        &mut self,
        name: &'static str,
        result: std::result::Result<String, Verdict>,
    ) -> std::result::Result<(), ()> {
        let (fault, found) = match result {
            Ok(found) => (None, found),
            Err(Verdict::Retry(fault) | Verdict::Row(fault) | Verdict::Config(fault)) => (Some(fault), String::new()),
            Err(Verdict::Done) => (None, String::new()),
        };
        let failed = fault.is_some();
        self.done.push(Step { name, took: self.began.elapsed(), fault, found });
        self.began = Instant::now();
        if failed { Err(()) } else { Ok(()) }
    }
}
