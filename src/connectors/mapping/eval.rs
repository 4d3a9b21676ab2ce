//! What expressions make of a value.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::path::Path;
use super::{Comparison, Expr, Unary, Walk, columns, decimal};

/// What paths can reach.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// `$`: the record, or the item of the innermost walk.
    item: &'a Value,
    /// `$root`: the record.
    root: &'a Value,
    /// `$parameters` and the like.
    variables: &'a [(&'a str, &'a Value)],
}

impl<'a> Env<'a> {
    /// An environment around a record.
    pub fn new(record: &'a Value, variables: &'a [(&'a str, &'a Value)]) -> Self {
        Self { item: record, root: record, variables }
    }
    /// The variable of that name; null if there is none.
    pub fn variable(&self, name: &str) -> &'a Value {
        self.variables.iter().find(|(n, _)| *n == name).map_or(NULL, |(_, value)| *value)
    }
    /// What a path leads to.
    pub fn find(&self, path: &Path) -> Option<&'a Value> {
        let start = match path.root.as_str() {
            "" => self.item,
            "root" => self.root,
            name => self.variables.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)?,
        };
        path.find(start)
    }
}

const NULL: &Value = &Value::Null;

type Made<'a> = Cow<'a, Value>;

fn own<'a>(value: impl Into<Value>) -> Made<'a> {
    Cow::Owned(value.into())
}

pub(super) fn eval<'a>(expr: &'a Expr, env: &Env<'a>) -> Made<'a> {
    match expr {
        Expr::Literal(value) => Cow::Borrowed(value),
        Expr::Var(path) => Cow::Borrowed(env.find(path).unwrap_or(NULL)),
        Expr::Object(members) => {
            own(members.iter().map(|(k, v)| (k.clone(), eval(v, env).into_owned())).collect::<Map<_, _>>())
        }
        Expr::List(items) => own(items.iter().map(|item| eval(item, env).into_owned()).collect::<Vec<_>>()),
        Expr::Unary(unary, value) => apply(*unary, eval(value, env)),
        Expr::Compare(comparison, a, b) => own(compare(*comparison, &eval(a, env), &eval(b, env))),
        Expr::All(items) => own(items.iter().all(|item| truthy(&eval(item, env)))),
        Expr::Any(items) => own(items.iter().any(|item| truthy(&eval(item, env)))),
        Expr::Concat(parts) => concat(parts.iter().map(|part| eval(part, env)), ""),
        Expr::Join { items, with } => join(&eval(items, env), with),
        Expr::First(items) => first(items, env),
        Expr::Default(value, default) => match eval(value, env) {
            value if value.is_null() => eval(default, env),
            value => value,
        },
        Expr::Case { cases, default } => {
            let case = cases.iter().find(|(when, _)| truthy(&eval(when, env)));
            eval(case.map_or(default.as_ref(), |(_, value)| value), env)
        }
        Expr::Codes { value, to, default } => {
            let value = eval(value, env);
            let hit = text_of(&value).and_then(|code| to.iter().find(|(c, _)| *c == code));
            eval(hit.map_or(default.as_ref(), |(_, value)| value), env)
        }
        Expr::Iterate(walk) => own(collect(walk, env)),
        Expr::Sum(walk) => sum(&collect(walk, env)),
        Expr::Time { value, format } => {
            let local = format.local(env.variable("parameters")).ok();
            let time = local.and_then(|local| local.read(&eval(value, env), None));
            time.map_or(Cow::Borrowed(NULL), |time| own(time.rfc3339_millis()))
        }
        Expr::Lookup { list, key, equals, value } => lookup(&eval(list, env), key, equals, value),
        Expr::Pairs { list, key, value, except } => pairs(&eval(list, env), key, value, except),
        Expr::Omit { from, keys, .. } => omit(eval(from, env), keys),
        Expr::Merge(items) => merge(items.iter().map(|item| eval(item, env))),
        Expr::Columns(text) => match &*eval(text, env) {
            Value::String(text) => own(columns::kept(text, env.variable("lacks"))),
            _ => Cow::Borrowed(NULL),
        },
        Expr::Split { value, by } => split(&eval(value, env), by),
        Expr::Tail { of, after } => tail(&eval(of, env), after),
        Expr::Template(template) => template.render(env).map_or(Cow::Borrowed(NULL), own),
    }
}

/// Null, false and empty lists are not; everything else is. 0 and "" are true: apps mean different things by them.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// Texts, numbers and booleans as text.
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        _ => None,
    }
}

fn apply<'a>(unary: Unary, value: Made<'a>) -> Made<'a> {
    let text = |change: fn(&str) -> String| text_of(&value).map(|t| Value::String(change(&t)));
    let number =
        |change: fn(&Number) -> Option<Number>| decimal::exact(&value).and_then(|n| change(&n)).map(Value::Number);
    let made = match unary {
        Unary::Not => Some(Value::Bool(!truthy(&value))),
        Unary::Exists => Some(Value::Bool(!value.is_null())),
        Unary::Lower => text(str::to_lowercase),
        Unary::Upper => text(str::to_uppercase),
        Unary::Trim => text(|t| t.trim().to_owned()),
        Unary::Text => text(str::to_owned),
        Unary::Decimal => number(|n| Some(n.clone())),
        Unary::Integer => number(decimal::integer),
        Unary::Abs => number(decimal::abs),
        Unary::Negate => number(decimal::negate),
        Unary::Percent => number(decimal::percent),
        Unary::Boolean => boolean(&value).map(Value::Bool),
        Unary::Compact => return compact(value),
    };
    made.map_or(Cow::Borrowed(NULL), Cow::Owned)
}

fn boolean(value: &Value) -> Option<bool> {
    match text_of(value)?.to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn compact(value: Made<'_>) -> Made<'_> {
    match value.into_owned() {
        Value::Array(items) => own(items.into_iter().filter(|item| !item.is_null()).collect::<Vec<_>>()),
        Value::Object(members) => own(members.into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>()),
        other => Cow::Owned(other),
    }
}

fn compare(comparison: Comparison, a: &Value, b: &Value) -> bool {
    let ordering = match (decimal::exact(a), decimal::exact(b)) {
        (Some(x), Some(y)) => decimal::compare(&x, &y),
        _ if comparison == Comparison::Equal => return a == b,
        _ => text_of(a).zip(text_of(b)).map(|(x, y)| x.cmp(&y)),
    };
    ordering.is_some_and(|ordering| match comparison {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
    })
}

fn concat<'a>(parts: impl Iterator<Item = Made<'a>>, with: &str) -> Made<'a> {
    let texts: Vec<String> = parts.filter_map(|part| text_of(&part).map(Cow::into_owned)).collect();
    if texts.is_empty() { Cow::Borrowed(NULL) } else { own(texts.join(with)) }
}

/// As concat, but empty texts are left out, so that no separator stands alone.
fn join<'a>(items: &Value, with: &str) -> Made<'a> {
    let Value::Array(items) = items else { return Cow::Borrowed(NULL) };
    concat(items.iter().filter(|item| item.as_str() != Some("")).map(|item| Cow::Owned(item.clone())), with)
}

fn first<'a>(items: &'a [Expr], env: &Env<'a>) -> Made<'a> {
    let found = items.iter().map(|item| eval(item, env)).find(|v| !v.is_null() && v.as_str() != Some(""));
    found.unwrap_or(Cow::Borrowed(NULL))
}

fn collect(walk: &Walk, env: &Env<'_>) -> Vec<Value> {
    let list = eval(&walk.list, env);
    let Value::Array(items) = list.as_ref() else { return Vec::new() };
    let inner = |item| Env { item, ..*env };
    (items.iter().filter(|item| !item.is_null()))
        .filter(|item| walk.only.as_deref().is_none_or(|only| truthy(&eval(only, &inner(item)))))
        .map(|item| eval(&walk.item, &inner(item)).into_owned())
        .collect()
}

fn sum<'a>(items: &[Value]) -> Made<'a> {
    let numbers = items.iter().filter(|item| !item.is_null()).map(decimal::exact);
    let zero = Number::from(0);
    let total = numbers.into_iter().try_fold(zero, |total, number| decimal::add(&total, &number?));
    total.map_or(Cow::Borrowed(NULL), |total| own(Value::Number(total)))
}

fn lookup<'a>(list: &Value, key: &Path, equals: &str, value: &Path) -> Made<'a> {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    let hit = items.iter().find(|item| key.find(item).and_then(text_of).is_some_and(|k| k == equals));
    hit.and_then(|item| value.find(item)).map_or(Cow::Borrowed(NULL), |value| Cow::Owned(value.clone()))
}

fn pairs<'a>(list: &Value, key: &Path, value: &Path, except: &[String]) -> Made<'a> {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    let pair = |item: &Value| {
        let key = key.find(item).and_then(text_of)?.into_owned();
        (!except.contains(&key)).then(|| (key, value.find(item).cloned().unwrap_or(Value::Null)))
    };
    own(items.iter().filter_map(pair).collect::<Map<_, _>>())
}

fn omit<'a>(from: Made<'a>, keys: &[String]) -> Made<'a> {
    if let Cow::Borrowed(Value::Object(members)) = from {
        // What is left out need not be copied first.
        let kept = members.iter().filter(|(name, _)| !keys.contains(name));
        return own(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>());
    }
    match from.into_owned() {
        Value::Object(members) => own(members.into_iter().filter(|(k, _)| !keys.contains(k)).collect::<Map<_, _>>()),
        _ => Cow::Borrowed(NULL),
    }
}

fn merge<'a>(items: impl Iterator<Item = Made<'a>>) -> Made<'a> {
    let mut all = Map::new();
    for item in items {
        if let Value::Object(members) = item.into_owned() {
            all.extend(members);
        }
    }
    own(all)
}

fn tail<'a>(value: &Value, after: &str) -> Made<'a> {
    let Some(text) = text_of(value) else { return Cow::Borrowed(NULL) };
    own(text.rsplit_once(after).map_or(text.as_ref(), |(_, tail)| tail))
}

fn split<'a>(value: &Value, by: &str) -> Made<'a> {
    let Some(text) = text_of(value) else { return own(Vec::<Value>::new()) };
    own(text.split(by).map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect::<Vec<_>>())
}
