//! A subscription's filter: a CEL expression over an event, checked when it is given, compiled once.
//!
//! Always true: an expression is short, its loops are not nested, and it has no clock, no chance and no way out, so what it
//! costs is bounded by the size of the event; one that cannot be judged says so, and is never taken for a yes. Not here:
//! what becomes of an event that a filter fails on (`actors::router`).
//!
//! CEL: <https://cel.dev>, its standard functions and macros with `matches` (regular expressions in linear time).

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value};

use super::body;
use super::event::{Event, Payload};
use super::id::EventId;
use super::subscription::Include;
use super::topic;
use super::version::ApiVersion;

/// The longest expression.
pub const BYTES_MAX: usize = 2048;
/// Events whose body is longer than this are not judged.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What is kept of the reason of a failure.
const REASON_BYTES_MAX: usize = 300;

/// The names that an expression can use: the keys of a body in version 2024-03 with everything included, and the parts of
/// the topic.
pub const NAMES: &[&str] = &[
    "app",
    "category",
    "changedFields",
    "connectionId",
    "dataPayload",
    "eventId",
    "eventTimestamp",
    "model",
    "previous",
    "topic",
    "updateType",
    "userId",
    "userName",
    "username",
];

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFilter {
    #[error("use at most {BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not a CEL expression: {0}")]
    Syntax(String),
    #[error("there is no `{0}`; use {names}", names = NAMES.join(", "))]
    Unknown(String),
    #[error("a loop (all, exists, map, filter, …) cannot stand inside another loop")]
    Nested,
}

/// What a filter says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// It cannot be judged; why, in one sentence.
    Failed(String),
}

/// A compiled filter.
pub struct Filter {
    program: Program,
    env: Arc<Env>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.program.fmt(f)
    }
}

impl Filter {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, NotAFilter> {
        if text.len() > BYTES_MAX {
            return Err(NotAFilter::TooLong);
        }
        let env = Arc::new(Env::stdlib());
        let program = env.compile(text).map_err(|errors| {
            let first = errors.errors.first().map(|e| format!("{} (line {}, column {})", e.msg, e.pos.0, e.pos.1));
            NotAFilter::Syntax(first.unwrap_or_else(|| "it cannot be read".to_owned()))
        })?;
        if loops(program.expression()) > 1 {
            return Err(NotAFilter::Nested);
        }
        match unknown(program.expression(), &mut Vec::new()) {
            Some(name) => Err(NotAFilter::Unknown(name)),
            None => Ok(Self { program, env }),
        }
    }

    /// Judges an event.
    pub fn judge(&self, view: &View) -> Verdict {
        let Some(fields) = &view.0 else {
            return Verdict::Failed(format!("the event is longer than {BODY_BYTES_MAX} bytes"));
        };
        let mut context = Context::with_env(self.env.clone());
        for (name, value) in fields {
            context.add_variable_from_value(*name, value.clone());
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(true)) => Verdict::Yes,
            Ok(Value::Bool(false)) => Verdict::No,
            Ok(other) => Verdict::Failed(format!("it gives a {} where true or false is wanted", other.type_of())),
            Err(error) => {
                let mut reason = error.to_string();
                reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
                Verdict::Failed(reason)
            }
        }
    }
}

fn entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// The parts of an expression, each with the names that are bound in it beside those of the whole.
fn parts(expression: &Expr) -> Vec<(&IdedExpr, Vec<&str>)> {
    let plain = |part| (part, Vec::new());
    match expression {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Select(select) => vec![plain(&*select.operand)],
        Expr::Call(call) => call.args.iter().chain(call.target.as_deref()).map(plain).collect(),
        Expr::List(list) => list.elements.iter().map(plain).collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|of| entry(&of.expr)).map(plain).collect(),
        Expr::Struct(of) => of.entries.iter().flat_map(|of| entry(&of.expr)).map(plain).collect(),
        Expr::Comprehension(each) => {
            let mut bound = vec![each.accu_var.as_str(), each.iter_var.as_str()];
            bound.extend(each.iter_var2.as_deref());
            let inside = [&each.loop_cond, &each.loop_step, &each.result].map(|part| (part, bound.clone()));
            inside.into_iter().chain([plain(&each.iter_range), plain(&each.accu_init)]).collect()
        }
    }
}

/// How deep loops are nested. One that loops over the result of another counts as nested too.
fn loops(expression: &IdedExpr) -> usize {
    let inside = parts(&expression.expr).into_iter().map(|(part, _)| loops(part)).max().unwrap_or(0);
    inside + usize::from(matches!(expression.expr, Expr::Comprehension(_)))
}

/// The first name that is neither ours nor bound by a loop.
fn unknown<'a>(expression: &'a IdedExpr, bound: &mut Vec<&'a str>) -> Option<String> {
    if let Expr::Ident(name) = &expression.expr {
        let known = NAMES.contains(&name.as_str()) || bound.contains(&name.as_str());
        return (!known).then(|| name.clone());
    }
    parts(&expression.expr).into_iter().find_map(|(part, names)| {
        let before = bound.len();
        bound.extend(names);
        let found = unknown(part, bound);
        bound.truncate(before);
        found
    })
}

/// An event as filters see it; made once for all of them.
pub struct View(Option<Vec<(&'static str, Value)>>);

impl View {
    /// The view of an event. Its payload has the names and times of version 2024-03, whatever a subscription's own is.
    pub fn of(event: &Event, id: EventId) -> Self {
        let payload = match &event.payload {
            Payload::Record { fields, .. } => fields.len(),
            Payload::Plain(text) => text.len(),
        };
        if payload + event.previous.as_ref().map_or(0, String::len) > BODY_BYTES_MAX {
            return Self(None);
        }
        let include = [Include::ChangedFields, Include::Previous, Include::Topic, Include::EventId, Include::Username];
        let text = body::render(event, id, ApiVersion::V2024_03, &include);
        let Ok(serde_json::Value::Object(mut keys)) = serde_json::from_slice(text.as_ref()) else { return Self(None) };
        let model = topic::model(&event.topic).to_owned();
        keys.insert("model".to_owned(), model.into());
        let field = |name: &&'static str| (*name, keys.remove(*name).map_or(Value::Null, value));
        Self(Some(NAMES.iter().map(field).collect()))
    }
}

/// JSON as CEL has it. Numbers are whole ones where they fit, else doubles.
fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(yes) => Value::Bool(yes),
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => Value::Int(whole),
            (None, Some(whole), _) => Value::UInt(whole),
            (None, None, Some(double)) => Value::Float(double),
            (None, None, None) => Value::Null,
        },
        serde_json::Value::Array(all) => Value::List(Arc::new(all.into_iter().map(value).collect())),
        serde_json::Value::Object(all) => {
            let entry = |(name, json)| (Key::String(Arc::new(name)), value(json));
            Value::Map(Map { map: Arc::new(all.into_iter().map(entry).collect::<HashMap<_, _>>()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::{Seq, WorkspaceNo};
    use super::super::time::Millis;
    use super::*;

    fn judge(filter: &str, payload: &str) -> Verdict {
        let event = Event {
            topic: "commerce/orders".into(),
            update_type: Some("updated".into()),
            changed_fields: vec!["totalPrice".into()],
            username: Some("ada".into()),
            ..Event::blank(WorkspaceNo(0), Payload::Plain(payload.into()), Millis(1_700_000_000_000))
        };
        let view = View::of(&event, EventId::new(Seq(7), WorkspaceNo(0)));
        Filter::parse(filter).expect(filter).judge(&view)
    }

    #[test]
    fn an_expression_sees_the_event() {
        let order = r#"{"id":"o-1","totalPrice":120.50,"lines":[{"sku":"A"},{"sku":"B"}],"note":null,"n":3}"#;
        for filter in [
            "true",
            "dataPayload.totalPrice > 100.0",
            "dataPayload.n == 3 && dataPayload.id.startsWith('o-')",
            "updateType == 'updated' && topic == 'commerce/orders' && category == 'commerce' && model == 'orders'",
            "dataPayload.lines.exists(line, line.sku == 'B')",
            "'totalPrice' in changedFields && username == 'ada'",
            "!has(dataPayload.email) || dataPayload.email.matches('@example[.]com$')",
            "dataPayload.note == null && size(dataPayload.lines) == 2",
        ] {
            assert_eq!(judge(filter, order), Verdict::Yes, "{filter}");
        }
        assert_eq!(judge("dataPayload.totalPrice > 1000.0", order), Verdict::No);
    }

    #[test]
    fn what_cannot_be_judged_is_neither_yes_nor_no() {
        for (filter, payload) in [
            ("dataPayload.missing > 1", "{}"),
            ("dataPayload.id > 1", r#"{"id":"text"}"#),
            ("size(topic)", "{}"),
            ("1 / dataPayload.n == 1", r#"{"n":0}"#),
        ] {
            assert!(matches!(judge(filter, payload), Verdict::Failed(_)), "{filter}: {:?}", judge(filter, payload));
        }
        let long = format!(r#"{{"note":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
        assert!(matches!(judge("true", &long), Verdict::Failed(_)));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_reason() {
        let refused = |text: &str| Filter::parse(text).expect_err(text);
        assert!(matches!(refused("dataPayload.x =="), NotAFilter::Syntax(_)));
        assert!(matches!(refused(""), NotAFilter::Syntax(_)));
        assert_eq!(refused("payload.x == 1"), NotAFilter::Unknown("payload".into()));
        assert_eq!(refused(&"true || ".repeat(400)), NotAFilter::TooLong);
        assert_eq!(refused("dataPayload.a.all(x, dataPayload.b.all(y, y == x))"), NotAFilter::Nested);
        assert_eq!(refused("dataPayload.a.map(x, x).exists(y, y == 1)"), NotAFilter::Nested);
    }
}
