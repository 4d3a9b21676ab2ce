//! A connector as it stands in memory: compiled once from its folder, then immutable.
//!
//! Always true: every name in here was checked when the folder was loaded. Not here: how the files are read
//! (`connectors::folder`), what the calls do (`connectors::session`).

mod event;
mod hooks;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

pub use self::hooks::{GlobalWebhook, OwnWebhook};
pub(super) use self::hooks::{Life, lacking};
use super::auth_files::AuthFile;
use super::budget::BudgetSpec;
use super::bulk::{BulkCalls, BulkSpec};
use super::each::Each;
use super::fields_rest::FieldsRest;
use super::files::Pairs;
use super::folder::Folder;
use super::graphql::{CostFile, GraphqlFile};
use super::join::Join;
use super::made::Made;
use super::mapping::path::Path;
use super::mapping::zones::Times;
use super::mapping::{Env, Mapping};
use super::record::RecordSpec;
use super::rest::{CallRest, FetchRest, ListRest};
use super::schema::{GivenBy, Schema};
use super::script::{self, Script};
use super::template::Template;
use super::values::Own;
use super::verdict::ErrorRule;
use super::{Absent, Credentials, Parameters, SpecError, auth};

pub use event::{ConnectorEvent, OfCollection};

/// One third-party app, as its folder describes it.
pub struct Connector {
    /// The folder's name.
    pub key: String,
    /// The display name: `app` of an event.
    pub name: String,
    /// `crm`, `commerce`, `accounting`, or another word.
    pub category: String,
    pub description: String,
    /// Hash over the folder's files (tests and docs aside), with their parameters filled in.
    pub version: [u8; 16],
    /// The parameters of integration and connection; `baseUri` is always among them.
    pub parameters: Schema,
    pub base_uri: BaseUri,
    /// In the files' order of names.
    pub collections: Vec<Collection>,
    /// A connection's own webhook.
    pub webhook: Option<OwnWebhook>,
    pub global_webhooks: Vec<GlobalWebhook>,
    pub events: Vec<ConnectorEvent>,
    /// How large operations are asked for and looked at.
    pub(super) bulk: Option<BulkCalls>,
    /// Topics that the app cannot give, as the connector says outright.
    pub not_supported: Vec<Absent>,
    /// How many requests one connection may send.
    pub budget: Option<BudgetSpec>,
    /// What some calls spend besides, by name.
    pub budgets: Vec<(String, BudgetSpec)>,
    /// The longest one call may take.
    pub deadline: Duration,
    pub(super) answer_bytes_max: usize,
    pub(super) auth: Vec<AuthFile>,
    pub(super) account: Account,
    /// What only who may come in is answered to.
    pub(super) check: Method<CallRest>,
    pub(super) headers: Pairs,
    pub(super) errors: Vec<ErrorRule>,
    /// Where queries go.
    pub(super) graphql: Option<GraphqlFile>,
    /// Where answers to queries say what they cost.
    pub(super) cost: Option<CostFile>,
    /// Headers in which the app warns, in lower case.
    pub(super) warnings: Vec<String>,
    pub(super) error_message: Option<Path>,
    /// The files hold `${parameter}`: see `Registry::specialise`.
    pub(super) templated: bool,
    pub(super) folder: Arc<Folder>,
    pub(super) scripts: script::Pool,
    pub(super) made: Made,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("key", &self.key).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Where an app is.
#[derive(Debug)]
pub struct BaseUri {
    /// The app's own address, where it has one.
    pub default: Option<Template>,
    /// Who may set another one: the integration (scope `admin`), or the end user (a shop's own address).
    pub given_by: GivenBy,
    pub(super) suffix: Option<Template>,
}

/// What identifies an account at the app.
#[derive(Debug)]
pub(super) enum Account {
    Unknown,
    Template(Template),
    Call(Box<Method<CallRest>>),
}

/// How a method is written: the suffix of its file.
#[derive(Clone, Debug)]
pub(super) enum Method<R> {
    Rest(R),
    Script(Arc<Script>),
    Map(Mapping),
    /// Said outright, with the reason.
    NotSupported(String),
    /// There is no file.
    Missing,
}

/// One kind of record in the app.
#[derive(Debug)]
pub struct Collection {
    /// The folder's name.
    pub key: String,
    pub name: String,
    /// `category/model`.
    pub topic: String,
    pub detects: Detects,
    pub cursor: Cursor,
    pub poll: Poll,
    /// Dotted paths of the unified record that never count as a change.
    pub ignored_fields: Vec<String>,
    pub webhook_body: WebhookBody,
    pub(super) each: Option<Each>,
    /// What the app calls such records.
    pub(super) object: Option<Template>,
    /// What shared files say differently for it.
    pub(super) values: Own,
    pub(super) record: RecordSpec,
    /// How times are written in requests.
    pub(super) request_time: Times,
    pub(super) pull: Method<ListRest>,
    pub(super) ties: Method<ListRest>,
    /// Records whose parts changed, by the times of the parts.
    pub(super) touched: Method<ListRest>,
    pub(super) scan: Method<ListRest>,
    pub(super) deleted: Method<ListRest>,
    pub(super) fetch: Method<FetchRest>,
    /// What other requests show of its records.
    pub(super) joins: Vec<Join>,
    /// How a large first sync is one operation.
    pub(super) bulk: Option<BulkSpec>,
    /// The fields that an account has.
    pub(super) fields: Method<FieldsRest>,
    pub(super) map: Mapping,
}

impl Collection {
    /// Whether there is a list of changed records.
    pub fn pulls(&self) -> bool {
        self.pull.is_there()
    }
    /// Whether one tick's records can be listed by id.
    pub fn lists_ties(&self) -> bool {
        self.ties.is_there()
    }
    /// Whether records whose parts changed are listed apart.
    pub fn lists_touched(&self) -> bool {
        self.touched.is_there()
    }
    /// Whether there is a walk over all records: `scan`, or a `pull` without a lower bound.
    pub fn scans(&self) -> bool {
        self.scan.is_there() || self.pull.is_there()
    }
    /// Whether the app has its own list of deleted records.
    pub fn lists_deleted(&self) -> bool {
        self.deleted.is_there()
    }
    /// Whether the list that a scan walks holds the records inside its items: it cannot show what is gone.
    pub fn scans_nested(&self) -> bool {
        let list = if self.scan.is_there() { &self.scan } else { &self.pull };
        matches!(list, Method::Rest(list) if list.is_nested())
    }
    /// Whether one record can be fetched.
    pub fn fetches(&self) -> bool {
        self.fetch.is_there() || matches!(&self.pull, Method::Rest(list) if list.fetches)
    }
    /// Whether records carry a flag that says that they are deleted.
    pub fn flags_deleted(&self) -> bool {
        self.record.has_deleted
    }
}

impl<R> Method<R> {
    pub(super) fn is_there(&self) -> bool {
        !matches!(self, Self::Missing | Self::NotSupported(_))
    }
    pub(super) fn is_script(&self) -> bool {
        matches!(self, Self::Script(_))
    }
    /// The request, where it is written as one.
    pub(super) fn rest(&self) -> Option<&R> {
        match self {
            Self::Rest(rest) => Some(rest),
            _ => None,
        }
    }
}

impl BaseUri {
    /// The address of a connection: its own, else the app's. The error is one sentence.
    pub fn choose(&self, parameters: &Parameters) -> Result<Url, String> {
        let whole = Value::Object(parameters.clone());
        let variables = [("parameters", &whole)];
        let given = parameters.get("baseUri").and_then(Value::as_str).map(str::to_owned);
        let default = || self.default.as_ref().and_then(|default| default.render_url(&Env::of(&variables)));
        let text = given.or_else(default).ok_or("parameters.baseUri is missing: the address of the app")?;
        let url = Url::parse(text.trim()).map_err(|e| format!("parameters.baseUri is not a URL: {e}"))?;
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        match matches!(url.scheme(), "https" | "http") && url.has_host() && plain && url.password().is_none() {
            true => Ok(url),
            false => Err("parameters.baseUri must be an https address without user, query and fragment".to_owned()),
        }
    }
    /// The address with the connector's suffix.
    pub(super) fn whole(&self, base: &Url, parameters: &Value) -> Result<Url, String> {
        let Some(suffix) = &self.suffix else { return Ok(base.clone()) };
        let variables = [("parameters", parameters)];
        let suffix = suffix.render_path(&Env::of(&variables));
        let suffix = suffix.ok_or("the base URI's suffix needs a parameter that is not set")?;
        let mut whole = base.clone();
        let slash = if suffix.is_empty() || suffix.starts_with('/') { "" } else { "/" };
        whole.set_path(&format!("{}{slash}{suffix}", base.path().trim_end_matches('/')));
        Ok(whole)
    }
}

/// How each kind of change is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Detects {
    pub created: Detection,
    pub updated: Detection,
    pub deleted: Detection,
}

/// One way to notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Detection {
    /// The connection's own webhook; polled as well, for what webhooks lose.
    Webhook,
    /// The app's one webhook for all accounts; polled as well.
    GlobalWebhook,
    /// The list of changed records (for `deleted`: the app's own list of deleted ones, or a flag on the record).
    Pull,
    /// The engine compares snapshots.
    FullScan,
    /// The app cannot tell, and we do not look.
    NotSupported,
}

impl Detection {
    /// As the API shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::GlobalWebhook => "global-webhook",
            Self::Pull => "poll",
            Self::FullScan => "full-scan",
            Self::NotSupported => "none",
        }
    }
}

/// What the engine must know of the app's list of changed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The records carry a time of their last change, and the list can be asked for "since".
    pub incremental: bool,
    pub order: Order,
    /// How fine the app's times are: two changes within one tick have the same time.
    pub precision: Duration,
    /// How far back to look each time, for what the app shows late.
    pub lookback: Duration,
    /// Past this many records the app's list goes no further: split the window by time.
    pub ceiling: Option<u64>,
    /// The request can start at (time, id), not only at a time.
    pub breaks_ties: bool,
    /// The list takes an upper bound.
    pub takes_until: bool,
    /// The app's upper bound leaves out what is exactly there; the engine's own are inclusive.
    pub until_exclusive: bool,
}

/// How the list of changed records is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Oldest change first: the cursor may move with each page.
    #[default]
    Ascending,
    /// Newest change first: the cursor may move only when the walk is complete.
    Descending,
    /// In no useful order: as descending.
    None,
}

/// How often to look. None: the engine's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    pub interval: Option<Duration>,
    pub full_scan_interval: Option<Duration>,
}

/// What a webhook's body is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookBody {
    /// The record is fetched before it is diffed.
    #[default]
    Hint,
    /// The webhook carries the record exactly as the list does; a test of the connector shows it.
    Complete,
}

impl Connector {
    /// The collection with that key.
    pub fn collection(&self, key: &str) -> Option<&Collection> {
        self.collections.iter().find(|c| c.key == key)
    }
    /// The global webhook with that key.
    pub fn global_webhook(&self, key: &str) -> Option<&GlobalWebhook> {
        self.global_webhooks.iter().find(|w| w.key == key)
    }
    /// The event with that key.
    pub fn event(&self, key: &str) -> Option<&ConnectorEvent> {
        self.events.iter().find(|e| e.key == key)
    }
    /// The kinds of auth it takes, in its order of preference: `bearer`, `apiKey`, `basic`, `login`, `oauth1`,
    /// `oauth2`, `none`.
    pub fn auth_kinds(&self) -> Vec<&'static str> {
        let mut kinds: Vec<&'static str> = self.auth.iter().map(auth::name).collect();
        kinds.dedup();
        kinds
    }
    /// Whether it takes these credentials. The error is one sentence.
    pub fn accepts(&self, credentials: &Credentials) -> Result<(), String> {
        match auth::choose(&self.auth, credentials, None) {
            Some(_) => Ok(()),
            None => Err(format!(
                "credentials of this kind do not open {}; it takes {}",
                self.name,
                self.auth_kinds().join(", ")
            )),
        }
    }
    /// Whether its files take their shape from parameters: use `Registry::specialise` before a session.
    pub fn is_templated(&self) -> bool {
        self.templated
    }
    /// The parameters that only the integration may set, `baseUri` included where the app's hosts are fixed.
    pub fn integration_only(&self) -> Vec<&str> {
        let only = |property: &super::schema::Property| property.given_by == Some(GivenBy::Integration);
        self.parameters.properties().filter(|(_, p)| only(p)).map(|(name, _)| name).collect()
    }
    /// The parameters that must never be shown again.
    pub fn secret_parameters(&self) -> Vec<&str> {
        self.parameters.properties().filter(|(_, p)| p.write_only).map(|(name, _)| name).collect()
    }
    /// The same connector with its files' `${parameter}` filled in; itself, where they take none.
    ///
    /// # Errors
    /// A parameter makes a file that cannot be used.
    pub fn specialise(self: &Arc<Self>, parameters: &Parameters) -> Result<Arc<Self>, SpecError> {
        match self.templated {
            false => Ok(Arc::clone(self)),
            true => self.made.get(parameters, || super::compile::specialised(self, parameters)),
        }
    }
}
