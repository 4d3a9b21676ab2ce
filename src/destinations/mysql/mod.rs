//! `mysql` and `mariadb`: rows in the tables of a database.
//!
//! Always true: a batch is one transaction; the key of a table (event id, or connection and remote id) makes a repeated
//! batch, or one cut anew after a crash, the same rows. Both kinds are one driver: what differs between the servers is
//! told by the version that a server says it has. Not here: which columns an event has (`destinations::rows`).

mod link;
mod literal;
mod request;
mod settings;
mod tables;
mod verdicts;
mod write;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mysql_async::prelude::Queryable;

use self::link::{Link, Links};
use self::request::{Head, Request};
use self::settings::Settings;
use self::verdicts::Stop;
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Probe, Step, Verdict};
use super::rows::Names;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};

/// MySQL.
pub static MYSQL: Kind = Kind {
    name: "mysql",
    title: "MySQL",
    about: "A table of events, or a table per topic that equals the records, in MySQL 8.0.17 or later.",
    mirrors: true,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// MariaDB.
pub static MARIADB: Kind = Kind {
    name: "mariadb",
    title: "MariaDB",
    about: "A table of events, or a table per topic that equals the records, in MariaDB 10.2 or later.",
    mirrors: true,
    schema: || schemars::schema_for!(Settings),
    open,
};

/// Tables that are known to be there, at most; a node with more looks again.
const KNOWN_MAX: usize = 1_000;

struct Mysql {
    settings: Settings,
    names: Names,
    links: Links,
    /// Tables that were checked, with the shape that they were checked for.
    known: Mutex<HashMap<String, Head>>,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let settings: Settings = crate::destinations::settings::own(opening.settings)?;
    settings.check_ranges()?;
    let (place, names) = (settings.place()?, settings.names()?);
    if let Some(pem) = &place.ca {
        let wrong = |error| Error::invalid("settings.caCertificate: use certificates in PEM").because(error);
        opening.client.tls_config(Some(pem)).map_err(wrong)?;
    }
    let links = Links::new(opening.client, place);
    Ok(Arc::new(Mysql { settings, names, links, known: Mutex::default() }))
}

impl Driver for Mysql {
    fn limits(&self) -> Limits {
        Limits {
            rows: usize::try_from(self.settings.max_rows).unwrap_or(1),
            bytes: 4 << 20,
            age: Duration::from_secs(self.settings.max_seconds.into()),
            timeout: Duration::from_secs(60),
            recuts: true,
        }
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        Ok(request::prepare(batch, &self.names))
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move { Answer::All(contained(self.write(frozen)).await.map_or_else(Stop::verdict, |()| Verdict::Done)) }
            .boxed()
    }

    fn test<'a>(&'a self, probe: &'a Probe) -> BoxFuture<'a, Vec<Step>> {
        self.try_out(probe).boxed()
    }
}

/// A server that breaks the protocol can make the library panic; that must not end more than the try.
async fn contained<T>(what: impl Future<Output = std::result::Result<T, Stop>>) -> std::result::Result<T, Stop> {
    AssertUnwindSafe(what).catch_unwind().await.unwrap_or_else(|_| {
        Err(Verdict::Retry(Fault::new(Trouble::Failed, "the server does not keep to the protocol")).into())
    })
}

impl Mysql {
    async fn write(&self, frozen: &Frozen) -> std::result::Result<(), Stop> {
        let requests: Option<Vec<_>> = frozen.parts.iter().map(Request::of).collect();
        let Some(requests) = requests else {
            return Err(Verdict::Retry(Fault::new(Trouble::Failed, "the frozen batch cannot be read")).into());
        };
        let mut lease = self.links.take().await?;
        let link = &mut lease.connection;
        let mut written = self.write_on(link, &requests).await;
        if written.as_ref().is_err_and(Stop::is_stale) {
            // A table was changed behind us: look at all of them again, once.
            link.conn.query_drop("ROLLBACK").await?;
            self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
            written = self.write_on(link, &requests).await;
        }
        match &written {
            Ok(()) => self.links.give_back(lease),
            Err(stop) if stop.leaves_usable() && link.conn.query_drop("ROLLBACK").await.is_ok() => {
                self.links.give_back(lease);
            }
            Err(_) => {}
        }
        written
    }

    async fn write_on(&self, link: &mut Link, requests: &[Request<'_>]) -> std::result::Result<(), Stop> {
        // Before the transaction, since a table's change ends one.
        for request in requests {
            self.ensure(link, &request.head).await?;
        }
        write::batch(link, requests).await
    }

    async fn ensure(&self, link: &mut Link, head: &Head) -> std::result::Result<(), Stop> {
        let is_known = |known: &HashMap<String, Head>| known.get(&head.table) == Some(head);
        if is_known(&self.known.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        tables::ensure(link, head).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(head.table.clone(), head.clone());
        Ok(())
    }

    async fn try_out(&self, probe: &Probe) -> Vec<Step> {
        let mut steps = Steps::default();
        let made = contained(self.links.take()).await;
        // One exchange connects and signs in; the server's refusal tells that it was reached.
        if let Err(Stop::Error(mysql_async::Error::Server(_))) = &made {
            steps.note("connect", &Ok::<_, Stop>(()), "");
            steps.note("signIn", &made, "");
            return steps.done(made.err());
        }
        let mut lease = match made {
            Ok(lease) => lease,
            Err(stop) => {
                steps.note("connect", &Err::<(), _>(()), "");
                return steps.done(Some(stop));
            }
        };
        steps.note("connect", &Ok::<_, Stop>(()), "");
        let link = &mut lease.connection;
        steps.note("signIn", &Ok::<_, Stop>(()), &link.version);
        let tried = contained(self.try_table(link, probe, &mut steps)).await;
        if tried.is_ok() {
            self.links.give_back(lease);
        }
        steps.done(tried.err())
    }

    /// Writes to a table of its own, after a look at the one that the subscription will write to.
    async fn try_table(&self, link: &mut Link, probe: &Probe, steps: &mut Steps) -> std::result::Result<(), Stop> {
        let topic = probe.batch.items.first().map(|item| item.event.topic.as_str()).unwrap_or_default();
        let looked = tables::look(link, &request::head(probe.shape, topic, &self.names)).await;
        steps.pass("table", looked, "")?;
        let names = Names::of_test(probe.batch.destination);
        let mut batch = probe.batch.clone();
        batch.shape = probe.shape;
        let frozen = request::prepare(&batch, &names);
        let requests: Vec<_> = frozen.parts.iter().filter_map(Request::of).collect();
        let Some(request) = requests.first() else { return Ok(()) };
        let ensured = tables::ensure(link, &request.head).await;
        steps.pass("permissions", ensured, "tables can be made")?;
        let written = write::batch(link, &requests).await;
        steps.pass("write", written, "")?;
        let table = literal::name(&request.head.table);
        let counted: std::result::Result<Option<u64>, Stop> =
            link.conn.query_first(format!("SELECT COUNT(*) FROM {table}")).await.map_err(Stop::from);
        let counted = counted.and_then(|count| match count {
            Some(1..) => Ok(()),
            _ => Err(Verdict::Retry(Fault::new(Trouble::Failed, "what was written does not read back")).into()),
        });
        steps.pass("read", counted, "")?;
        // Without the right to drop tables, it stays behind empty.
        let deleted = link.conn.query_drop(format!("DELETE FROM {table}")).await.map_err(Stop::from);
        let dropped = link.conn.query_drop(format!("DROP TABLE {table}")).await;
        let found = if dropped.is_ok() { "" } else { "the test's table stays, empty: the user may not drop tables" };
        steps.pass("clean", deleted, found)
    }
}

/// The steps of a test as they are made.
struct Steps {
    done: Vec<Step>,
    began: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { done: Vec::new(), began: Instant::now() }
    }
}

impl Steps {
    /// The fault of a failed step is filled in at the end, by [`Steps::done`].
    fn note<T, E>(&mut self, name: &'static str, result: &std::result::Result<T, E>, found: &str) {
        let found = if result.is_ok() { found.to_owned() } else { String::new() };
        self.done.push(Step { name, took: self.began.elapsed(), fault: None, found });
        self.began = Instant::now();
    }

    fn pass<T>(
        &mut self,
        name: &'static str,
        result: std::result::Result<T, Stop>,
        found: &str,
    ) -> std::result::Result<(), Stop> {
        self.note(name, &result, found);
        result.map(drop)
    }

    /// All of them; `stop` is what the last one failed by.
    fn done(mut self, stop: Option<Stop>) -> Vec<Step> {
        if let (Some(last), Some(stop)) = (self.done.last_mut(), stop) {
            last.fault = Some(stop.fault());
        }
        self.done
    }
}
