//! Destinations opened outside the queue: to judge their settings, and for what `POST …/{id}/test` shows.
//!
//! Always true: a driver is opened, used and dropped on the runtime whose way out it was given; a test leaves nothing in
//! the store, moves no lane, and ends within a limit. Not here: the batches of lanes, who may ask (`api`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::outlet::Outlet;
use crate::destinations::driver::{Batch, Fault, Item, Kind, Opening, Probe, Step};
use crate::destinations::{Post, kinds};
use crate::domain::body;
use crate::domain::destination::{Destination, Shape};
use crate::domain::failure::Failure;
use crate::domain::id::{DestinationId, EventId, Seq};
use crate::domain::models::Catalogue;
use crate::domain::secret::Secret;
use crate::domain::version::ApiVersion;
use crate::error::{Error, Result};
use crate::store::Wait;

/// For a whole test. Whoever asked waits for it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The topic of the made-up event.
const PROBE_TOPIC: &str = "crm/contacts";

impl Outlet {
    /// Judges the settings of a destination as its lanes would: opens a driver, connects nothing, and lets go of it.
    ///
    /// # Errors
    /// `invalid` of the kind, with a sentence that names the setting.
    pub async fn judge_destination(&self, destination: &Destination, secrets: &Map<String, Value>) -> Result<()> {
        let (runtime, post) = self.driver().ok_or_else(stopping)?;
        let opening = self.opening(&post, destination, secrets)?;
        let kind = self.kind(destination)?;
        runtime.spawn(async move { (kind.open)(opening).map(drop) }).await.map_err(Error::internal)?
    }

    /// Tries a destination out with a made-up event. None: it is gone.
    ///
    /// # Errors
    /// Our own faults, and `invalid` if its settings are refused before anything is connected; the destination's faults are
    /// in the steps.
    pub async fn try_destination(self: &Arc<Self>, id: DestinationId, shape: Shape) -> Result<Option<Vec<Step>>> {
        let store = self.store.clone();
        let read = move || -> Result<Option<(Destination, Option<Secret>)>> {
            let Some(found) = store.object_anywhere::<Destination>(&id.0)? else { return Ok(None) };
            let secrets = store.destination_secrets(&id.0)?;
            Ok(Some((found, secrets)))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(Error::internal)??;
        let Some((destination, secrets)) = read else { return Ok(None) };
        let secrets = object(secrets.as_ref().map(Secret::expose))?;
        self.try_draft(&destination, &secrets, shape).await.map(Some)
    }

    /// The same of a destination that is not stored.
    ///
    /// # Errors
    /// As [`Outlet::try_destination`].
    pub async fn try_draft(
        &self,
        destination: &Destination,
        secrets: &Map<String, Value>,
        shape: Shape,
    ) -> Result<Vec<Step>> {
        let (runtime, post) = self.driver().ok_or_else(stopping)?;
        let opening = self.opening(&post, destination, secrets)?;
        let (kind, seq) = (self.kind(destination)?, self.store.append(Wait::Applied, |tx| tx.next_seq()).await?);
        let probe = probe(destination, shape, seq)?;
        let test = async move {
            let driver = (kind.open)(opening)?;
            Ok(within(TEST_TIMEOUT, driver.test(&probe)).await)
        };
        runtime.spawn(test).await.map_err(Error::internal)?
    }

    /// What a driver of a destination is opened with, on the runtime of `post`.
    pub(super) fn opening(
        &self,
        post: &Arc<dyn Post>,
        destination: &Destination,
        secrets: &Map<String, Value>,
    ) -> Result<Opening> {
        let client = post.client().ok_or_else(|| Error::internal("this way out has no client for destinations"))?;
        let mut settings = object(Some(&destination.settings))?;
        settings.extend(secrets.clone());
        Ok(Opening { destination: destination.id, settings, client, files: self.options.files.clone() })
    }

    /// The kind of a destination.
    ///
    /// # Errors
    /// `invalid` if this build does not have it.
    pub(super) fn kind(&self, destination: &Destination) -> Result<&'static Kind> {
        let stand_in = self.options.kinds.iter().find(|kind| kind.name == destination.kind).copied();
        let missing = || Error::invalid(format!("type: this node was built without `{}`", destination.kind));
        stand_in.or_else(|| kinds::find(&destination.kind)).ok_or_else(missing)
    }
}

pub(super) fn stopping() -> Error {
    Error::unavailable("the node is stopping", 5)
}

pub(super) fn object(text: Option<&str>) -> Result<Map<String, Value>> {
    match text {
        None | Some("") => Ok(Map::new()),
        Some(text) => serde_json::from_str(text).map_err(Error::internal),
    }
}

/// What one that did not end in time is said to be.
async fn within(limit: Duration, test: BoxFuture<'_, Vec<Step>>) -> Vec<Step> {
    tokio::time::timeout(limit, test).await.unwrap_or_else(|_| {
        let fault = Some(Fault::way(Failure::ResponseTimeout));
        vec![Step { name: "connect", took: limit, fault, found: String::new() }]
    })
}

/// A made-up event as a batch of a lane that no subscription has.
fn probe(destination: &Destination, shape: Shape, seq: Seq) -> Result<Probe> {
    let model = Catalogue::embedded().find(PROBE_TOPIC);
    let mut event = body::example_event(model.ok_or_else(|| Error::internal("there is no model to try with"))?);
    event.workspace = destination.workspace;
    let id = EventId::new(seq, destination.workspace);
    let (include, version) = (Arc::new([]), ApiVersion::V2024_03);
    let item =
        Item { delivery: seq, id, seq, payload: body::record(&event.payload, version).into(), event: Arc::new(event) };
    let id = format!("{:08x}-{:016x}", u32::MAX, seq.0);
    let batch = Batch { id, destination: destination.id, shape, include, version, items: vec![item] };
    Ok(Probe { shape, batch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::WorkspaceNo;
    use crate::domain::time::Millis;

    fn destination() -> Destination {
        Destination {
            id: DestinationId([1; 12]),
            workspace: WorkspaceNo(3),
            kind: "file".into(),
            name: "n".into(),
            settings: "{}".into(),
            secret_names: Vec::new(),
            user: None,
            revision: 1,
            pause: None,
            created_at: Millis(1),
            updated_at: Millis(1),
        }
    }

    #[test]
    fn a_probe_tells_of_a_record_and_has_a_name_that_no_lane_gives() {
        let made = probe(&destination(), Shape::Append, Seq(7)).unwrap();
        assert_eq!(made.batch.id, "ffffffff-0000000000000007");
        let item = &made.batch.items[0];
        assert!(item.event.connection.is_some() && item.event.record_key().is_some());
        assert_eq!(item.id.parts(), (Seq(7), WorkspaceNo(3)));
        assert!(serde_json::from_str::<Value>(&item.payload).is_ok_and(|payload| payload["remoteId"].is_string()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_test_that_does_not_end_is_ended() {
        let steps = within(Duration::from_secs(1), Box::pin(std::future::pending())).await;
        assert_eq!(steps[0].fault, Some(Fault::way(Failure::ResponseTimeout)));
    }
}
