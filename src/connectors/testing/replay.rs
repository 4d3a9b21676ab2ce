//! Cases that play an app's answers back through the whole client: requests, paging, error rules and all.
//!
//! Always true: every answer must be asked for, in its order; what is asked is compared where the case says it.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::Case;
use crate::connectors::exchange::{Canned, Replay};
use crate::connectors::session::Session;
use crate::connectors::trial::{Ask, Trial, Walked};
use crate::connectors::yaml::Placed;
use crate::connectors::{Connector, Parameters};
use crate::domain::time::Millis;

/// Pages of one case.
const PAGES_MAX: u32 = 1_000;

/// The method that a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::connectors) enum CaseMethod {
    Pull,
    Touched,
    Scan,
    Deleted,
    Fetch,
    Account,
}

/// One answer of the app, to the next request.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(in crate::connectors) struct AnswerCase {
    /// What must be asked, without credentials: `GET /contacts?limit=100`.
    request: Option<String>,
    /// The JSON body that must be sent.
    sent: Option<Placed>,
    /// 200 where it is not said.
    status: Option<u16>,
    /// Headers of the answer.
    headers: Option<Placed>,
    /// The body, as JSON …
    answer: Option<Placed>,
    /// … or as text, which keeps the digits of numbers.
    answer_text: Option<String>,
}

/// Runs the method of a case against its answers.
pub(super) async fn played(
    connector: &Arc<Connector>,
    parameters: &Parameters,
    case: &Case,
    method: CaseMethod,
) -> Result<Walked, String> {
    let ask = ask(case, method)?;
    let replay = Arc::new(Replay::new(answers(case)?));
    let session = Session::replayed(Arc::clone(connector), parameters.clone(), Arc::clone(&replay))?;
    let collection = match (&case.collection, method) {
        (_, CaseMethod::Account) => None,
        (Some(key), _) => Some(connector.collection(key).ok_or_else(|| format!("there is no collection {key:?}"))?),
        (None, _) => return Err("a case with a method needs its collection".to_owned()),
    };
    let goes_on = |pages: u32| pages < PAGES_MAX && !replay.is_used_up();
    let walked = Trial::new(&session).run(collection, &ask, &goes_on).await;
    match (replay.fault(), walked) {
        // What was asked wrongly is behind whatever followed from it.
        (Some(fault), Ok(_)) => Err(fault),
        (_, walked) => walked,
    }
}

fn ask(case: &Case, method: CaseMethod) -> Result<Ask, String> {
    let since = match &case.since {
        None => None,
        Some(text) => Some(Millis::parse_rfc3339(text).ok_or_else(|| format!("since: {text:?} is no time"))?),
    };
    Ok(match method {
        CaseMethod::Pull => Ask::Pull { since },
        CaseMethod::Touched => Ask::Touched { since },
        CaseMethod::Scan => Ask::Scan,
        CaseMethod::Deleted => Ask::Deleted { since },
        CaseMethod::Fetch => Ask::Fetch { id: case.id.clone().ok_or("a case of fetch needs the record's id")? },
        CaseMethod::Account => Ask::Account,
    })
}

fn answers(case: &Case) -> Result<Vec<Canned>, String> {
    let body = |json: Option<&Placed>, text: Option<&String>| {
        text.cloned().or_else(|| json.map(|json| json.node.to_json().to_string())).unwrap_or_default()
    };
    if let Some(answers) = &case.answers {
        return Ok(answers.iter().map(|answer| canned(answer, &body)).collect());
    }
    if case.answer.is_none() && case.answer_text.is_none() {
        return Err("a case with a method needs answer, answerText or answers".to_owned());
    }
    let (headers, body) = (Vec::new(), body(case.answer.as_ref(), case.answer_text.as_ref()));
    Ok(vec![Canned { request: None, sent: None, status: 200, headers, body }])
}

fn canned(answer: &AnswerCase, body: &dyn Fn(Option<&Placed>, Option<&String>) -> String) -> Canned {
    let headers = super::object(answer.headers.as_ref()).into_iter();
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Canned {
        request: answer.request.clone(),
        sent: answer.sent.as_ref().map(|sent| sent.node.to_json()),
        status: answer.status.unwrap_or(200),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), text(value))).collect(),
        body: body(answer.answer.as_ref(), answer.answer_text.as_ref()),
    }
}
