//! `s3`: Amazon S3 and compatible stores.
//!
//! Always true: a batch's objects have names of their own and are made once; a repetition finds them there, or writes the
//! same bytes over them. Not here: names and bytes (`destinations::objects`), requests (`destinations::aws`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::aws::bucket::{Bucket, Place, Put};
use super::aws::{Access, Account, note};
use super::driver::{Answer, Batch, Driver, Fault, Frozen, Kind, Limits, Opening, Probe, Step, Verdict};
use super::objects::Layout;
use super::{objects, settings};
use crate::domain::delivery::AttemptError;
use crate::domain::trouble::Trouble;
use crate::error::Result;
use crate::outbound::Bytes;

/// The kind.
pub static KIND: Kind = Kind {
    name: "s3",
    title: "Amazon S3",
    about: "Objects of NDJSON, by topic and day, in a bucket of Amazon S3 or of a compatible store.",
    mirrors: false,
    schema: || {
        let shared = vec![schemars::schema_for!(Place), schemars::schema_for!(Layout), schemars::schema_for!(Access)];
        settings::schema(schemars::schema_for!(Settings), shared)
    },
    open,
};

/// What only this kind has: nothing yet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {}

struct Store {
    bucket: Bucket,
    layout: Layout,
}

fn open(opening: Opening) -> Result<Arc<dyn Driver>> {
    let mut given = opening.settings;
    let place: Place = settings::take(&mut given)?;
    let mut layout: Layout = settings::take(&mut given)?;
    let access: Access = settings::take(&mut given)?;
    settings::own::<Settings>(given)?;
    layout.check()?;
    let account = Arc::new(Account::open(access, opening.client)?);
    Ok(Arc::new(Store { bucket: Bucket::open(account, &place)?, layout }))
}

impl Driver for Store {
    fn limits(&self) -> Limits {
        self.layout.limits(Duration::from_secs(300))
    }

    fn prepare(&self, batch: &Batch) -> std::result::Result<Frozen, Verdict> {
        self.layout.prepare(batch)
    }

    fn send<'a>(&'a self, frozen: &'a Frozen) -> BoxFuture<'a, Answer> {
        async move {
            for (number, part) in frozen.parts.iter().enumerate() {
                let Err(verdict) = self.bucket.write(&part.target, &part.body).await else { continue };
                let (index, answer) = objects::told(frozen, number, verdict);
                let Some(index) = index else { return answer };
                let written = self.bucket.write(&index.target, &index.body).await;
                return written.map_or_else(objects::unlisted, |()| answer);
            }
            Answer::All(Verdict::Done)
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

impl Store {
    async fn try_out(&self, probe: &Probe, steps: &mut Vec<Step>) -> Option<()> {
        let began = Instant::now();
        let role = if self.bucket.account.has_role() { "the role is taken on" } else { "" };
        let signed_in = self.bucket.account.credentials().await.map(|_| role.to_owned());
        note(steps, "signIn", began, signed_in)?;

        let key = self.layout.test_key(&probe.batch);
        let began = Instant::now();
        let (written, body) = self.write_twice(&key, probe).await;
        note(steps, "write", began, written)?;

        let began = Instant::now();
        let read = match self.bucket.get(&key, body.len().saturating_mul(2).saturating_add(1 << 20)).await {
            Ok(Some(theirs)) if objects::same_content(&key, &body, &theirs) => Ok(String::new()),
            Ok(_) => Err(Verdict::Config(Fault::new(Trouble::Conflict, format!("{key} does not read back")))),
            Err(verdict) => allowed(verdict, "s3:GetObject is not allowed, so repetitions are not held against it"),
        };
        note(steps, "read", began, read)?;

        let began = Instant::now();
        let clean = match self.bucket.delete(&key).await {
            Ok(()) => Ok(String::new()),
            Err(verdict) => allowed(verdict, &format!("s3:DeleteObject is not allowed, so {key} stays")),
        };
        note(steps, "clean", began, clean)
    }

    /// The second write shows whether the store honours `If-None-Match`: some ignore it.
    async fn write_twice(&self, key: &str, probe: &Probe) -> (std::result::Result<String, Verdict>, Bytes) {
        let body = match self.layout.prepare(&probe.batch) {
            Ok(frozen) => frozen.parts.into_iter().next().map(|part| part.body).unwrap_or_default(),
            Err(verdict) => return (Err(verdict), Bytes::new()),
        };
        let mut last = Put::Made;
        // What an earlier test could not take away may be of another form.
        let _ = self.bucket.delete(key).await;
        for _ in 0..2 {
            match self.bucket.put(key, &body).await {
                Ok(put) => last = put,
                Err(verdict) => return (Err(verdict), body),
            }
        }
        let found = match last {
            Put::There => "the store honours If-None-Match: an object is made once",
            Put::Made => "the store ignores If-None-Match: a repetition writes the same bytes again",
        };
        (Ok(found.to_owned()), body)
    }
}

/// A permission that writing does not need: what follows from its absence is told.
fn allowed(verdict: Verdict, without: &str) -> std::result::Result<String, Verdict> {
    match verdict {
        Verdict::Config(fault) if fault.error == AttemptError::Destination(Trouble::PermissionDenied) => {
            Ok(without.to_owned())
        }
        other => Err(other),
    }
}
