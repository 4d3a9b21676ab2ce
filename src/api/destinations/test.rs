//! `POST /one/destinations/{id}/test`: connects, checks permissions, writes and reads back, step by step.
//!
//! Always true: an answer of the destination is a 200, whatever it says; a test leaves nothing behind that we could take
//! away; only a few run at once. Not here: the steps (each kind's own).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use super::settings::Split;
use super::{Call, find, id_of};
use crate::api::call::not_found;
use crate::api::reply::Reply;
use crate::api::route::Route;
use crate::api::state::State;
use crate::api::subscriptions::{DeletesWord, ShapeWord};
use crate::destinations::driver::Step;
use crate::destinations::kinds;
use crate::domain::destination::{Destination, Shape};
use crate::error::{Code, Error, Result};

/// What is tried out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// As subscriptions would write; `append` if left out.
    #[serde(default)]
    shape: Option<ShapeWord>,
    /// Of a mirror: what becomes of deleted records.
    #[serde(default)]
    deletes: Option<DeletesWord>,
}

/// One step of a test.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct StepView {
    /// `connect`, `signIn`, `permissions`, `table`, `write`, `read` or `clean`.
    pub(in crate::api) name: &'static str,
    pub(in crate::api) ok: bool,
    ms: u64,
    /// Stable: see docs/errors.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) message: Option<&'static str>,
    /// The destination's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) detail: Option<String>,
    /// What was found: a server's version, the columns of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
}

/// What a test of a destination showed. After the first step that failed there are no others.
#[derive(Serialize, JsonSchema)]
pub(in crate::api) struct DestinationTest {
    pub(in crate::api) ok: bool,
    pub(in crate::api) steps: Vec<StepView>,
}

pub(super) fn routes() -> Vec<Route> {
    let path = "/{version}/one/destinations/{destinationId}/test";
    vec![Route::post(path, "Write to a destination and read back", test).takes::<Wish>().gives::<DestinationTest>()]
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let error = step.fault.as_ref().map(|fault| fault.error);
        Self {
            name: step.name,
            ok: error.is_none(),
            ms: u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
            code: error.map(|error| error.slug()),
            message: error.map(|error| error.sentence()),
            detail: step.fault.and_then(|fault| text(fault.detail)),
            found: text(step.found),
        }
    }
}

/// Refuses a shape that a kind cannot write.
pub(in crate::api) fn refuse_shape(of: &Destination, shape: Shape) -> Result<()> {
    match (shape, kinds::find(&of.kind)) {
        (Shape::Mirror(_), Some(kind)) if !kind.mirrors => {
            let message = format!("shape: {} cannot be a mirror; use `append`", kind.title);
            Err(Error::invalid(message))
        }
        _ => Ok(()),
    }
}

/// Tries a destination out that is there.
pub(in crate::api) async fn run(state: &State, of: &Destination, shape: Shape) -> Result<DestinationTest> {
    refuse_shape(of, shape)?;
    let _room = room(state)?;
    let missing = || not_found(Code::DestinationNotFound, &of.id.to_string());
    match state.outlet.try_destination(of.id, shape).await {
        Ok(steps) => Ok(steps.ok_or_else(missing)?.into()),
        Err(error) => {
            let of = of.clone();
            let split = state.store.blocking(move |rows| Split::stored(rows, &of)).await?;
            Err(split.scrub(error))
        }
    }
}

/// The same of one that is not stored.
pub(in crate::api) async fn of_draft(
    state: &State,
    of: &Destination,
    split: &Split,
    shape: Shape,
) -> Result<DestinationTest> {
    let _room = room(state)?;
    let draft = Destination { settings: split.open_text(), ..of.clone() };
    let steps = state.outlet.try_draft(&draft, &split.secret, shape).await;
    steps.map(Into::into).map_err(|error| split.scrub(error))
}

fn room(state: &State) -> Result<SemaphorePermit<'_>> {
    let busy = |_| Error { retry_after: Some(1), ..Error::new(Code::TooManyRequests, "too many tests run at once") };
    state.tests.try_acquire().map_err(busy)
}

impl From<Vec<Step>> for DestinationTest {
    fn from(steps: Vec<Step>) -> Self {
        let steps: Vec<StepView> = steps.into_iter().map(Into::into).collect();
        Self { ok: !steps.is_empty() && steps.iter().all(|step| step.ok), steps }
    }
}

async fn test(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<Wish>()?, call.workspace()?, id_of(&call)?);
    let tested = call.read(move |rows| find(rows, workspace, id)).await?;
    let shape = crate::api::subscriptions::shape_of(asked.shape, asked.deletes)?;
    Reply::json(&run(&call.state, &tested, shape).await?)
}
