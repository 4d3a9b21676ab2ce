//! `*.graphql.yml`: a query with variables, posted to the app's one path, and what its answer means.
//!
//! Always true: an answer with `errors` is a failed call, whatever its status and however much `data` is beside them; one
//! without `data` is no answer, so that nothing that went wrong looks like an empty list or a record that is gone (GraphQL
//! specification, section 7.1). Not here: sending (`connectors::caller`), pages and records (`connectors::rest`), what was
//! learnt of the app's costs (`connectors::habits`).

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::CallError;
use super::caller::{CallFailure, Incoming};
use super::compile::{Builder, Found};
use super::files::{
    CallFile, FetchFile, HttpMethod, ListFile, PagingFile, PagingKind, Pairs, PartialFile, RecordFile, Values,
};
use super::folder::SpecError;
use super::locator::Locator;
use super::mapping::path::{Path, Step};
use super::pick::Picker;
use super::record::RecordSpec;
use super::rest::{CallRest, FetchRest, ListRest, not_json};
use super::template::Template;
use super::verdict::Meaning;
use super::yaml::{self, Node, Placed};

/// How much of an app's message is kept.
const MESSAGE_CHARS_MAX: usize = 300;

/// `graphql:` of spec.yml.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphqlFile {
    /// Where queries are posted to.
    pub path: Template,
    /// What the codes of errors mean; `refused` where it is not said.
    #[serde(default)]
    pub errors: Vec<CodeRule>,
}

/// What `errors[].extensions.code` means.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeRule {
    pub code: String,
    pub means: Meaning,
}

/// `budget.cost` of spec.yml: where an answer says what the query cost, and what there is to spend.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CostFile {
    /// What the query was judged to cost before it ran.
    pub requested: Path,
    /// What is left.
    pub available: Path,
    /// What there is at most.
    pub maximum: Path,
    /// What comes back in a second.
    pub restore_rate: Path,
}

/// What an answer said of costs, in points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub requested: f64,
    pub available: f64,
    pub maximum: f64,
    pub restore_rate: f64,
}

impl Cost {
    /// How long until there is enough for the query. None: there never is.
    pub fn wait(&self) -> Option<Duration> {
        if self.requested > self.maximum {
            return None;
        }
        Duration::try_from_secs_f64((self.requested - self.available).max(0.0) / self.restore_rate.max(0.001)).ok()
    }
}

/// `pull.graphql.yml`, `scan.graphql.yml`, `deleted.graphql.yml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct QueryListFile {
    query: String,
    #[schemars(with = "Option<super::schemas::Expression>")]
    variables: Option<Placed>,
    /// The variables use an upper bound.
    until: Option<Pairs>,
    paging: Option<PagingFile>,
    records: Locator,
    item: Option<RecordFile>,
    partial: Option<Path>,
    #[serde(default)]
    ids_only: bool,
    record: Option<RecordFile>,
}

/// `fetch.graphql.yml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryFetchFile {
    query: String,
    #[schemars(with = "Option<super::schemas::Expression>")]
    variables: Option<Placed>,
    record: Path,
    joins: Option<Path>,
}

/// `account.graphql.yml`, `webhook/subscribe.graphql.yml` and the like.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryCallFile {
    query: String,
    #[schemars(with = "Option<super::schemas::Expression>")]
    variables: Option<Placed>,
    #[schemars(with = "Option<super::schemas::Expression>")]
    result: Option<Placed>,
}

/// A list of records.
pub fn list(builder: &Builder<'_>, found: &Found<'_>, record: &RecordSpec) -> Result<ListRest, SpecError> {
    let file: QueryListFile = yaml::read(&found.path, found.text)?;
    let paging = paging(file.paging.unwrap_or_default(), &file.records.list);
    let (path, body) = request(builder, found, &file.query, file.variables)?;
    let list = ListFile {
        method: HttpMethod::Post,
        path,
        query: Values::default(),
        headers: Pairs::default(),
        body: Some(body),
        budget: None,
        since: Pairs::default(),
        until: file.until,
        reach: None,
        earliest: None,
        paging,
        records: file.records,
        item: file.item,
        partial: file.partial.map(PartialFile::Flag),
        fetch: false,
        unwind: None,
        join: None,
        ids_only: file.ids_only,
        record: file.record,
    };
    ListRest::new(&found.path, &list, record)
}

/// One record.
pub fn fetch(builder: &Builder<'_>, found: &Found<'_>) -> Result<FetchRest, SpecError> {
    let file: QueryFetchFile = yaml::read(&found.path, found.text)?;
    let (path, body) = request(builder, found, &file.query, file.variables)?;
    let fetch = FetchFile {
        method: HttpMethod::Post,
        path,
        query: Values::default(),
        headers: Pairs::default(),
        body: Some(body),
        budget: None,
        record: file.record,
        // The path is every query's: a 404 of it says nothing of the record.
        gone: Some(Vec::new()),
    };
    let mut fetch = FetchRest::new(&found.path, &fetch)?;
    fetch.joins = file.joins;
    Ok(fetch)
}

/// A call whose result is an expression.
pub fn call(builder: &Builder<'_>, found: &Found<'_>) -> Result<CallRest, SpecError> {
    let file: QueryCallFile = yaml::read(&found.path, found.text)?;
    call_of(builder, found, &file.query, file.variables, file.result)
}

/// The same without variables, of a query inside a file.
pub fn plain_call(
    builder: &Builder<'_>,
    found: &Found<'_>,
    query: &str,
    result: Option<Placed>,
) -> Result<CallRest, SpecError> {
    call_of(builder, found, query, None, result)
}

fn call_of(
    builder: &Builder<'_>,
    found: &Found<'_>,
    query: &str,
    variables: Option<Placed>,
    result: Option<Placed>,
) -> Result<CallRest, SpecError> {
    let (path, body) = request(builder, found, query, variables)?;
    let call = CallFile {
        method: HttpMethod::Post,
        path,
        query: Values::default(),
        headers: Pairs::default(),
        body: Some(body),
        budget: None,
        result,
        gone: Some(Vec::new()),
    };
    CallRest::new(&found.path, &call)
}

/// Where a query goes, and what is sent.
pub fn request(
    builder: &Builder<'_>,
    found: &Found<'_>,
    query: &str,
    variables: Option<Placed>,
) -> Result<(Template, Placed), SpecError> {
    Ok((path(builder, found)?, body(builder, found, query, variables)?))
}

/// How a list of which a file says only the size goes on.
pub fn paging(mut paging: PagingFile, list: &Path) -> PagingFile {
    if paging.size.is_some() && paging.kind == PagingKind::None {
        paging.kind = PagingKind::Cursor;
    }
    if paging.kind == PagingKind::Cursor {
        paging.next.get_or_insert_with(|| page_info(list, "endCursor"));
        paging.more.get_or_insert_with(|| page_info(list, "hasNextPage"));
    }
    paging
}

/// `pageInfo` stands beside `nodes` or `edges`.
fn page_info(list: &Path, name: &str) -> Path {
    let mut path = list.clone();
    path.steps.pop();
    path.steps.extend(["pageInfo", name].map(|key| Step::Key(key.to_owned())));
    path
}

fn path(builder: &Builder<'_>, found: &Found<'_>) -> Result<Template, SpecError> {
    let path = builder.graphql.get().map(|graphql| graphql.path.clone());
    path.ok_or_else(|| {
        SpecError::in_file("spec.yml", format!("{} needs graphql: {{path: …}}", found.path)).field("graphql")
    })
}

/// `{query, variables}`, the collection's fragments behind a query that spreads them.
fn body(builder: &Builder<'_>, found: &Found<'_>, query: &str, variables: Option<Placed>) -> Result<Placed, SpecError> {
    let text = text(builder, found, query)?;
    let placed = |node: Node| Placed { node, line: variables.as_ref().map_or(0, |variables| variables.line) };
    let literal = placed(Node::Map(vec![("$literal".to_owned(), placed(Node::Text(text)))]));
    let mut members = vec![("query".to_owned(), literal)];
    let all = placed(Node::Null);
    members.extend(variables.map(|variables| ("variables".to_owned(), variables)));
    Ok(Placed { node: Node::Map(members), ..all })
}

/// A query that is sent as it is, or an expression that makes it, with the collection's fragments behind it.
pub fn written(builder: &Builder<'_>, found: &Found<'_>, query: Placed) -> Result<Placed, SpecError> {
    let line = query.line;
    let placed = |node: Node| Placed { node, line };
    let operator = |name: &str, of: Placed| placed(Node::Map(vec![(name.to_owned(), of)]));
    if let Node::Text(query) = &query.node {
        return Ok(operator("$literal", placed(Node::Text(text(builder, found, query)?))));
    }
    let behind = fragments(builder, found)?;
    Ok(operator("$concat", placed(Node::List(vec![query, placed(Node::Text(behind))]))))
}

/// The fragments beside a query, as they stand behind it; nothing, where there are none.
fn fragments(builder: &Builder<'_>, found: &Found<'_>) -> Result<String, SpecError> {
    let dir = found.path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let path = format!("{dir}/fragments.graphql");
    match builder.folder.has(&path) {
        true => Ok(format!("\n{}", builder.text(&path)?.trim())),
        false => Ok(String::new()),
    }
}

/// A query's text, the collection's fragments behind it where it spreads them.
fn text(builder: &Builder<'_>, found: &Found<'_>, query: &str) -> Result<String, SpecError> {
    let wrong = |message: &str| Err(SpecError::in_file(found.path.clone(), message).field("query"));
    let mut text = query.trim().to_owned();
    if spreads(&text) {
        text += &fragments(builder, found)?;
    }
    let count = |c: char| text.matches(c).count();
    if text.is_empty() || count('{') != count('}') || count('(') != count(')') {
        return wrong("the query is empty, or a bracket of it is not closed");
    }
    Ok(text)
}

/// Whether a query spreads a fragment by its name.
fn spreads(text: &str) -> bool {
    text.split("...").skip(1).any(|rest| {
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        !name.is_empty() && name != "on"
    })
}

/// An error of an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Complaint {
    message: String,
    extensions: Option<Extensions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Extensions {
    code: Option<Value>,
}

impl Complaint {
    fn code(&self) -> Option<&str> {
        self.extensions.as_ref()?.code.as_ref()?.as_str()
    }
}

/// A good answer to a query, or what is wrong with it, and what it said of costs.
pub fn judge(
    graphql: &GraphqlFile,
    cost: Option<&CostFile>,
    incoming: Incoming,
) -> (Result<Incoming, CallFailure>, Option<Cost>) {
    match faults(graphql, cost, &incoming.body) {
        (None, cost) => (Ok(incoming), cost),
        (Some(error), cost) => {
            let Incoming { status, body, .. } = incoming;
            let content_type = Some("application/json".to_owned());
            let gone = false;
            (Err(CallFailure { error, status: Some(status), content_type, body, gone }), cost)
        }
    }
}

/// What is wrong with an answer, and what it said of costs.
pub fn faults(graphql: &GraphqlFile, cost: Option<&CostFile>, body: &str) -> (Option<CallError>, Option<Cost>) {
    let root = |name: &str| Path { root: String::new(), steps: vec![Step::Key(name.to_owned())] };
    let (data, errors) = (root("data"), root("errors"));
    let mut paths = vec![Some(&data), Some(&errors)];
    paths.extend(cost.into_iter().flat_map(|cost| {
        [Some(&cost.requested), Some(&cost.available), Some(&cost.maximum), Some(&cost.restore_rate)]
    }));
    let found = match Picker::new(&paths).pick(body) {
        Ok(found) => found,
        Err(error) => return (Some(not_json(body, &error)), None),
    };
    let number = |at: usize| found.get(at).copied().flatten()?.get().parse::<f64>().ok().filter(|n| n.is_finite());
    let read = || {
        let (requested, available) = (number(2)?, number(3)?);
        Some(Cost { requested, available, maximum: number(4)?, restore_rate: number(5)? })
    };
    let cost = read();
    let errors = found[1].map(RawValue::get).filter(|errors| !matches!(*errors, "null" | "[]"));
    let error = match errors {
        Some(errors) => Some(complaint(graphql, errors, cost)),
        None if found[0].is_none_or(|data| !data.get().starts_with('{')) => {
            Some(CallError::BadAnswer("the answer to the query has neither data nor errors".to_owned()))
        }
        None => None,
    };
    (error, cost)
}

fn complaint(graphql: &GraphqlFile, errors: &str, cost: Option<Cost>) -> CallError {
    let all: Vec<Complaint> = serde_json::from_str(errors)
        .unwrap_or_else(|_| vec![Complaint { message: errors.to_owned(), extensions: None }]);
    let known = all.iter().find_map(|complaint| {
        let rule = graphql.errors.iter().find(|rule| complaint.code() == Some(rule.code.as_str()))?;
        Some((complaint, rule.means))
    });
    let (told, means) = known.or_else(|| Some((all.first()?, Meaning::Refused))).unzip();
    let text = match told {
        Some(Complaint { message, .. }) if told.and_then(Complaint::code).is_none() => message.clone(),
        Some(told) => format!("{}: {}", told.code().unwrap_or_default(), told.message),
        None => "errors that cannot be read".to_owned(),
    };
    let message: String = text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    match means.unwrap_or(Meaning::Refused) {
        Meaning::Unauthorized => CallError::Unauthorized(message),
        Meaning::RateLimited => match cost.map(|cost| cost.wait()) {
            // What costs more than there ever is would be refused for ever.
            Some(None) => CallError::TooCostly(message),
            wait => CallError::RateLimited { retry_after: Some(wait.flatten().unwrap_or(Duration::from_secs(1))) },
        },
        Meaning::Unavailable => CallError::unavailable(message),
        Meaning::PageExpired => CallError::PageExpired(message),
        Meaning::TooCostly => CallError::TooCostly(message),
        Meaning::FieldsChanged => CallError::FieldsChanged(message),
        Meaning::Refused | Meaning::Gone | Meaning::ColumnMissing => CallError::Refused { status: 200, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> (GraphqlFile, CostFile) {
        let graphql = "path: /graphql.json\nerrors:\n  - {code: THROTTLED, means: rate-limited}\n  - {code: \
                       MAX_COST_EXCEEDED, means: too-costly}\n  - {code: UNAUTHORIZED, means: unauthorized}\n";
        let cost = "{requested: $.extensions.cost.requestedQueryCost, available: \
                    $.extensions.cost.throttleStatus.currentlyAvailable, maximum: \
                    $.extensions.cost.throttleStatus.maximumAvailable, restoreRate: \
                    $.extensions.cost.throttleStatus.restoreRate}";
        (yaml::read("spec.yml", graphql).unwrap(), yaml::read("spec.yml", cost).unwrap())
    }

    fn said(body: &str) -> Option<CallError> {
        let (graphql, cost) = specs();
        faults(&graphql, Some(&cost), body).0
    }

    #[test]
    fn errors_inside_a_200_are_failed_calls_however_much_data_is_beside_them() {
        assert_eq!(said(r#"{"data":{"orders":{"nodes":[]}}}"#), None);
        assert_eq!(said(r#"{"data":{},"errors":[]}"#), None);
        let refused = |message: &str| Some(CallError::Refused { status: 200, message: message.to_owned() });
        let denied = r#"{"data":null,"errors":[{"message":"Access denied","extensions":{"code":"ACCESS_DENIED"}}]}"#;
        assert_eq!(said(denied), refused("ACCESS_DENIED: Access denied"));
        let partial = r#"{"data":{"orders":{"nodes":[]},"shop":null},"errors":[{"message":"Internal"}]}"#;
        assert_eq!(said(partial), refused("Internal"));
        assert_eq!(said(r#"{"errors":"Not Found"}"#), refused("\"Not Found\""));
        for none in [r"{}", r#"{"data":null}"#, r#"{"data":[]}"#, "[]", "5"] {
            assert!(matches!(said(none), Some(CallError::BadAnswer(_))), "{none}");
        }
        assert!(matches!(said("<html>"), Some(CallError::BadAnswer(_))));
    }

    #[test]
    fn fragments_go_only_with_queries_that_spread_them() {
        assert!(spreads("{ orders { nodes { ...Order } } }"));
        assert!(!spreads("{ events { nodes { ... on BasicEvent { id } ...on Other { id } } } }"));
    }

    #[test]
    fn a_throttled_query_waits_until_there_is_enough_for_it() {
        let throttled = |requested: &str, available: &str| {
            format!(
                r#"{{"errors":[{{"message":"Throttled","extensions":{{"code":"THROTTLED"}}}}],"extensions":{{"cost":
                {{"requestedQueryCost":{requested},"actualQueryCost":null,"throttleStatus":{{"maximumAvailable":1000.0,
                "currentlyAvailable":{available},"restoreRate":50.0}}}}}}}}"#
            )
        };
        let wait = said(&throttled("600", "100")).unwrap();
        assert_eq!(wait.retry_after(), Some(Duration::from_secs(10)));
        assert_eq!(said(&throttled("600", "700")).unwrap().retry_after(), Some(Duration::ZERO));
        assert!(matches!(said(&throttled("1001", "1000")), Some(CallError::TooCostly(_))));
        let bare = r#"{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}]}"#;
        assert_eq!(said(bare).unwrap().retry_after(), Some(Duration::from_secs(1)));
        let costly = r#"{"errors":[{"message":"x"},{"message":"Too dear","extensions":{"code":"MAX_COST_EXCEEDED"}}]}"#;
        assert_eq!(said(costly), Some(CallError::TooCostly("MAX_COST_EXCEEDED: Too dear".to_owned())));
    }
}
