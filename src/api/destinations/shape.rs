//! What calls about destinations take and give.
//!
//! Always true: a secret setting goes in and is `***` ever after. Not here: what is allowed (`settings`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::Settings;
use crate::api::parameters::MASK;
use crate::api::state::State;
use crate::destinations::driver::Kind;
use crate::destinations::kinds;
use crate::domain::destination::{Destination, Pause};
use crate::error::{Error, Result};

/// The body of `POST`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NewDestination {
    /// `postgresql`, `s3`, …: see `GET /one/destinations/types`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// For people; unique in the workspace.
    pub(super) name: String,
    /// By the schema of the type. Secret ones are shown as `***` ever after.
    #[serde(default)]
    pub(super) settings: Settings,
    /// Whose it is: id or username. Only subscriptions narrowed to this user can write there. Left out: your own.
    #[serde(default)]
    pub(super) user_id: Option<String>,
}

/// The body of `PATCH`: what is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ChangedDestination {
    #[serde(default)]
    pub(super) name: Option<String>,
    /// Laid over what is there: null takes a setting away, `***` leaves a secret. Who changes a host, an address or the
    /// like gives the secrets again.
    #[serde(default)]
    pub(super) settings: Option<Settings>,
}

/// Why nothing is written for now.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StatusReason {
    /// Stable: see docs/errors.md.
    code: &'static str,
    message: &'static str,
    /// What the destination said.
    detail: String,
    since: String,
}

/// A destination.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DestinationView {
    destination_id: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    /// Secrets are `***`.
    settings: Settings,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// `active`, or `paused`: it refuses what only its owner can mend. It is tried again every few minutes, and whenever it is
    /// changed.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<StatusReason>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct OneDestination {
    pub(super) destination: DestinationView,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Destinations {
    pub(super) destinations: Vec<DestinationView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// Something that events can be written into.
#[derive(Serialize, JsonSchema)]
pub(super) struct DestinationType {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    about: &'static str,
    /// Whether a subscription can have the shape `mirror` there.
    mirrors: bool,
    /// False: this node's operator has to allow it first (`destinations.files_path`).
    available: bool,
    /// JSON Schema of its settings; secret ones are `writeOnly`.
    settings: Value,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct DestinationTypes {
    pub(super) types: Vec<DestinationType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// All types of this build.
pub(super) fn types(state: &State) -> Vec<DestinationType> {
    let of = |kind: &&Kind| DestinationType {
        kind: kind.name,
        title: kind.title,
        about: kind.about,
        mirrors: kind.mirrors,
        available: kind.name != "file" || state.outlet.options.files.is_some(),
        settings: (kind.schema)().to_value(),
    };
    kinds::KINDS.iter().map(of).collect()
}

/// A destination as it is now.
pub(super) fn view(of: &Destination) -> Result<DestinationView> {
    let mut settings: Settings = match of.settings.as_str() {
        "" => Settings::new(),
        text => serde_json::from_str(text).map_err(Error::internal)?,
    };
    settings.extend(of.secret_names.iter().map(|name| (name.clone(), Value::from(MASK))));
    Ok(DestinationView {
        destination_id: of.id.to_string(),
        kind: of.kind.clone(),
        name: of.name.clone(),
        settings,
        user_id: of.user.map(|id| id.to_string()),
        status: if of.pause.is_some() { "paused" } else { "active" },
        status_reason: of.pause.as_ref().map(reason),
        created_at: of.created_at.rfc3339_millis(),
        updated_at: of.updated_at.rfc3339_millis(),
    })
}

fn reason(pause: &Pause) -> StatusReason {
    StatusReason {
        code: pause.error.slug(),
        message: pause.error.sentence(),
        detail: pause.detail.clone(),
        since: pause.since.rfc3339_millis(),
    }
}

/// The same for an export of what is held of a user.
pub(in crate::api) fn exported(of: &Destination) -> Result<impl Serialize + use<>> {
    view(of)
}

/// What is said of a subscription that writes into a destination that is paused.
pub(in crate::api) fn paused(of: &Destination) -> Option<String> {
    let sentence = of.pause.as_ref()?.error.sentence();
    Some(format!("its destination `{}` is paused: {sentence}", of.name))
}
