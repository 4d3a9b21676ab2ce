//! The YAML files of a connector's folder, as serde types. docs/connectors.md describes them for authors.
//!
//! Always true: an unknown field is an error. Not here: what is checked across fields and files (`connectors::compile`).

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::auth_files::{AuthFile, Names};
use super::budget::BudgetHeaders;
use super::each::EachFile;
use super::graphql::{CostFile, GraphqlFile};
use super::join::JoinFile;
use super::locator::Locator;
use super::mapping::path::Path;
use super::mapping::zones::Times;
use super::schema::{GivenBy, Schema};
use super::spec::{Detects, Order, WebhookBody};
use super::template::Template;
use super::unwind::UnwindFile;
use super::verdict::ErrorRule;
use super::yaml::Placed;

/// The members of a YAML map, in the file's order.
pub fn ordered<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<(String, T)>, D::Error> {
    struct Members<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
        type Value = Vec<(String, T)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    deserializer.deserialize_map(Members(PhantomData))
}

/// Names and texts with holes: headers, form fields, bounds.
#[derive(Clone, Debug, Default)]
pub struct Pairs(pub Vec<(String, Template)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ordered(deserializer).map(Self)
    }
}

/// Names and values of query parameters: texts with holes, or expressions.
#[derive(Clone, Debug, Default)]
pub struct Values(pub Vec<(String, Placed)>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ordered(deserializer).map(Self)
    }
}

/// A duration as it is written: `500ms`, `90s`, `5m`, `12h`, `2d`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = super::parse_duration(&text);
        span.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration such as 90s, 5m, 12h or 2d")))
    }
}

/// `spec.yml` of the folder, as far as it is needed before parameters are filled in.
#[derive(Debug, Deserialize)]
pub struct HeadFile {
    #[serde(default)]
    pub templated: bool,
    #[serde(default, rename = "parametersSchema")]
    pub parameters_schema: Schema,
}

/// `spec.yml` of the folder.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConnectorFile {
    pub key: String,
    pub name: String,
    pub category: String,
    #[serde(default)]
    pub description: String,
    /// The files hold `${parameter}`, filled in per integration.
    #[serde(default)]
    pub templated: bool,
    pub base_uri: BaseUriFile,
    pub auth: Vec<AuthFile>,
    pub account: Option<Template>,
    #[serde(default)]
    pub parameters_schema: Schema,
    #[serde(default)]
    pub headers: Pairs,
    pub budget: Option<BudgetFile>,
    /// Further budgets, which some calls spend besides.
    #[serde(default, deserialize_with = "ordered")]
    #[schemars(with = "std::collections::BTreeMap<String, BudgetFile>")]
    pub budgets: Vec<(String, BudgetFile)>,
    /// Where `*.graphql.yml` go.
    pub graphql: Option<GraphqlFile>,
    /// Headers of answers in which the app warns of what it is about to change.
    #[serde(default)]
    pub warnings: Vec<String>,
    #[serde(default)]
    pub errors: Vec<ErrorRule>,
    pub error_message: Option<Path>,
    pub deadline: Option<Span>,
    /// Topics that the app cannot give, each with the reason in a sentence.
    #[serde(default)]
    pub not_supported: Names,
}

/// Where the app is.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BaseUriFile {
    /// The app's own address, where it has one.
    pub default: Option<Template>,
    /// Who may set another one.
    pub given_by: GivenBy,
    /// What follows the address, before every path.
    pub suffix: Option<Template>,
    pub description: Option<String>,
}

#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetFile {
    pub requests: std::num::NonZeroU32,
    pub per: Span,
    #[serde(default)]
    pub headers: BudgetHeaders,
    /// What queries cost, where the app weighs them.
    pub cost: Option<CostFile>,
}

impl From<BudgetFile> for super::budget::BudgetSpec {
    fn from(file: BudgetFile) -> Self {
        Self { requests: file.requests.get(), per: file.per.0, headers: file.headers }
    }
}

/// `data/<collection>/spec.yml`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CollectionFile {
    pub name: String,
    #[schemars(with = "String")]
    pub topic: serde_saphyr::Spanned<String>,
    /// What the app calls such records: `{{object}}` in requests.
    pub object: Option<Template>,
    /// What files in `shared/` say differently for it: `{{values.x}}`.
    #[serde(default)]
    pub values: Values,
    // These four may stand in shared/spec.yml for all that do not say them.
    pub detects: Option<Detects>,
    pub record: Option<RecordFile>,
    pub cursor: Option<CursorFile>,
    pub poll: Option<PollFile>,
    /// The lists are walked once for each of some values.
    pub each: Option<EachFile>,
    /// What other requests show of the records, however those were read.
    #[serde(default)]
    pub joins: Vec<JoinFile>,
    #[serde(default)]
    pub ignored_fields: Vec<String>,
    #[serde(default)]
    pub webhook_body: WebhookBody,
}

/// Where a record of the app carries what every record has.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RecordFile {
    pub id: Path,
    /// What stands before the id itself, such as `gid://shopify/Order/`.
    pub id_after: Option<String>,
    pub created_at: Option<Path>,
    pub updated_at: Option<Path>,
    /// A flag that says that the record is deleted.
    pub deleted: Option<Path>,
    #[serde(default)]
    pub time: Times,
}

#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CursorFile {
    /// How times are written in requests, where it differs from the records.
    pub format: Option<Times>,
    #[serde(default)]
    pub order: Order,
    pub precision: Option<Span>,
    pub lookback: Option<Span>,
    pub ceiling: Option<u64>,
    /// The app's upper bound leaves out what is exactly there.
    #[serde(default)]
    pub until_exclusive: bool,
    #[serde(default)]
    pub breaks_ties: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PollFile {
    pub interval: Option<Span>,
    pub full_scan: Option<Span>,
}

/// What every `*.rest.yml` can say of its request.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListFile {
    #[serde(default)]
    pub method: HttpMethod,
    pub path: Template,
    #[serde(default)]
    pub query: Values,
    #[serde(default)]
    pub headers: Pairs,
    #[schemars(with = "Option<super::schemas::Expression>")]
    pub body: Option<Placed>,
    /// The budget that the call spends besides the connection's.
    pub budget: Option<String>,
    /// More query parameters when there is a lower bound.
    #[serde(default)]
    pub since: Pairs,
    /// More query parameters when there is an upper bound.
    pub until: Option<Pairs>,
    /// `deleted`: how far back the app's list goes. What went before that is found by a scan.
    pub reach: Option<Span>,
    /// `deleted`: where the answer says how far back its list goes.
    pub earliest: Option<Path>,
    #[serde(default)]
    pub paging: PagingFile,
    /// Where the list is in the answer.
    pub records: Locator,
    /// What the list is sorted by, where the records are lists inside its items.
    pub item: Option<RecordFile>,
    /// Whether the records are only part of what `fetch` gives.
    pub partial: Option<PartialFile>,
    #[serde(default)]
    pub ids_only: bool,
    /// With `{{record.id}}` the same request gives one record: there is no `fetch` file.
    #[serde(default)]
    pub fetch: bool,
    /// The records are inside the items.
    pub unwind: Option<UnwindFile>,
    /// What another request shows of the page's records.
    pub join: Option<JoinFile>,
    /// Where this list's records carry their id and times, where it differs from the collection's.
    pub record: Option<RecordFile>,
}

/// Records that a list does not show whole: all of them, or those with a flag.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum PartialFile {
    /// True: each that changed is fetched before it is mapped.
    All(bool),
    /// A flag of those that are fetched.
    Flag(Path),
}

/// How to get from one page to the next. Which of the fields count depends on `kind`.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PagingFile {
    #[serde(default)]
    pub kind: PagingKind,
    /// How many records a page has: `{{page.size}}`.
    pub size: Option<std::num::NonZeroU32>,
    /// The number of the first page, or the first offset.
    pub first: Option<u64>,
    /// Where the answer says how many records there are in all.
    pub total: Option<Path>,
    /// Where the answer holds the next page's cursor or address.
    pub next: Option<Path>,
    /// Where the answer says whether there are more pages (true, false).
    pub more: Option<Path>,
    /// For `after-id`: the page begins with the record it is asked to start at.
    #[serde(default)]
    pub inclusive: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PagingKind {
    /// One page is all.
    #[default]
    None,
    /// `{{page.number}}`.
    Page,
    /// `{{page.offset}}`.
    Offset,
    /// `{{page.cursor}}`, from the answer's body.
    Cursor,
    /// RFC 8288: the header `Link`, `rel="next"`.
    Link,
    /// The next page's address, from the answer's body.
    NextUrl,
    /// `{{page.cursor}}` is the id of the last record: for lists sorted by id that can start after one, so that what
    /// goes during the walk does not push another record past it.
    AfterId,
}

/// `fetch.rest.yml`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FetchFile {
    #[serde(default)]
    pub method: HttpMethod,
    pub path: Template,
    #[serde(default)]
    pub query: Values,
    #[serde(default)]
    pub headers: Pairs,
    #[schemars(with = "Option<super::schemas::Expression>")]
    pub body: Option<Placed>,
    /// The budget that the call spends besides the connection's.
    pub budget: Option<String>,
    /// Where the record is in the answer; when it is not there, it is gone.
    pub record: Path,
    /// Statuses that say that it is gone; 404 and 410 where it is not said.
    pub gone: Option<Vec<u16>>,
}

/// `webhook/subscribe.rest.yml` and the other calls whose result is an expression.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallFile {
    #[serde(default)]
    pub method: HttpMethod,
    pub path: Template,
    #[serde(default)]
    pub query: Values,
    #[serde(default)]
    pub headers: Pairs,
    #[schemars(with = "Option<super::schemas::Expression>")]
    pub body: Option<Placed>,
    /// The budget that the call spends besides the connection's.
    pub budget: Option<String>,
    /// What the call comes to, over the answer's body as `$`. Null where it is not said.
    #[schemars(with = "Option<super::schemas::Expression>")]
    pub result: Option<Placed>,
    /// Statuses that count as done, for `unsubscribe`, or say that there is no such entry, for a journal; 404 and 410 where it
    /// is not said.
    pub gone: Option<Vec<u16>>,
}

/// The methods a REST file may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    #[default]
    Get,
    Post,
    Put,
    Patch,
    Delete,
}
