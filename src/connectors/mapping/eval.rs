//! What expressions make of a value.
//!
//! Always true: what is made borrows from the record where it can; nothing is copied to be looked at.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::path::Path;
use super::{Comparison, Expr, Unary, Walk, columns, decimal};
use crate::domain::json::{Json, Members};

/// What paths can reach.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// `$`: the record, or the item of the innermost walk.
    item: &'a Json<'a>,
    /// `$root`: the record.
    root: &'a Json<'a>,
    /// `$parameters` and the like.
    variables: &'a [(&'a str, &'a Value)],
}

impl<'a> Env<'a> {
    /// An environment around a record.
    pub fn new(record: &'a Json<'a>, variables: &'a [(&'a str, &'a Value)]) -> Self {
        Self { item: record, root: record, variables }
    }
    /// One without a record.
    pub fn of(variables: &'a [(&'a str, &'a Value)]) -> Self {
        Self::new(NULL, variables)
    }
    /// The variable of that name; null if there is none.
    pub fn variable(&self, name: &str) -> &'a Value {
        self.variables.iter().find(|(n, _)| *n == name).map_or(&Value::Null, |(_, value)| *value)
    }
    /// What a path leads to.
    pub fn find(&self, path: &Path) -> Option<Cow<'a, Json<'a>>> {
        match path.root.as_str() {
            "" => path.find_in(self.item).map(Cow::Borrowed),
            "root" => path.find_in(self.root).map(Cow::Borrowed),
            name => {
                let (_, variable) = self.variables.iter().find(|(n, _)| *n == name)?;
                path.find(variable).map(|value| Cow::Owned(Json::from(value)))
            }
        }
    }
}

const NULL: &Json<'static> = &Json::Null;

type Made<'a> = Cow<'a, Json<'a>>;

/// What was made, without copying a text.
pub(super) fn own<'a>(made: Made<'a>) -> Json<'a> {
    match made {
        Cow::Borrowed(json) => json.lend(),
        Cow::Owned(json) => json,
    }
}

fn null<'a>() -> Made<'a> {
    Cow::Borrowed(NULL)
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Made<'a> {
    Cow::Owned(Json::Text(text.into()))
}

fn flag<'a>(is: bool) -> Made<'a> {
    Cow::Owned(Json::Bool(is))
}

fn list(items: Vec<Json<'_>>) -> Made<'_> {
    Cow::Owned(Json::List(items))
}

fn object(members: Members<'_>) -> Made<'_> {
    Cow::Owned(Json::Object(members))
}

/// What `pick` finds in what was made; null where it finds nothing.
fn part<'a>(made: Made<'a>, pick: impl for<'j> Fn(&'j Json<'a>) -> Option<&'j Json<'a>>) -> Made<'a> {
    match made {
        Cow::Borrowed(json) => pick(json).map_or(null(), Cow::Borrowed),
        Cow::Owned(json) => pick(&json).map_or(null(), |found| Cow::Owned(found.clone())),
    }
}

pub(super) fn eval<'a>(expr: &'a Expr, env: &Env<'a>) -> Made<'a> {
    match expr {
        Expr::Literal(value) => Cow::Borrowed(value),
        Expr::Var(path) => env.find(path).unwrap_or(null()),
        Expr::Object(members) => {
            let members = members.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), own(eval(value, env))));
            object(members.collect())
        }
        Expr::List(items) => list(items.iter().map(|item| own(eval(item, env))).collect()),
        Expr::Unary(unary, value) => apply(*unary, eval(value, env)),
        Expr::Compare(comparison, a, b) => flag(compare(*comparison, &eval(a, env), &eval(b, env))),
        Expr::All(items) => flag(items.iter().all(|item| truthy(&eval(item, env)))),
        Expr::Any(items) => flag(items.iter().any(|item| truthy(&eval(item, env)))),
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
        Expr::Iterate(walk) => list(collect(walk, env)),
        Expr::Sum(walk) => sum(&collect(walk, env)),
        Expr::Time { value, format } => {
            let local = format.local(env.variable("parameters")).ok();
            let time = local.and_then(|local| local.read(written(&eval(value, env))?, None));
            time.map_or(null(), |time| text(time.rfc3339_millis()))
        }
        Expr::Lookup { list, key, equals, value } => {
            let wanted = eval(equals, env);
            let wanted = text_of(&wanted);
            part(eval(list, env), |list| {
                let is_it = |item: &&Json<'_>| {
                    let found = key.find_in(item).and_then(text_of);
                    found.is_some() && found == wanted
                };
                value.find_in(list.as_list()?.iter().find(is_it)?)
            })
        }
        Expr::Pairs { list, key, value, except } => pairs(eval(list, env), key, value, except),
        Expr::Omit { from, keys, .. } => omit(eval(from, env), keys),
        Expr::Merge(items) => merge(items.iter().map(|item| eval(item, env))),
        Expr::Columns(of) => match eval(of, env).as_str() {
            Some(all) => text(columns::kept(all, env.variable("lacks"))),
            None => null(),
        },
        Expr::Split { value, by } => split(&eval(value, env), by),
        Expr::Tail { of, after } => tail(&eval(of, env), after),
        Expr::Template(template) => template.render(env).map_or(null(), text),
    }
}

/// Null, false and empty lists are not; everything else is. 0 and "" are true: apps mean different things by them.
pub fn truthy(value: &Json<'_>) -> bool {
    match value {
        Json::Null | Json::Bool(false) => false,
        Json::List(items) => !items.is_empty(),
        _ => true,
    }
}

/// Texts, numbers and booleans as text.
fn text_of<'j>(value: &'j Json<'_>) -> Option<&'j str> {
    match value {
        Json::Bool(flag) => Some(if *flag { "true" } else { "false" }),
        _ => written(value),
    }
}

/// Texts, and the digits of numbers.
pub fn written<'j>(value: &'j Json<'_>) -> Option<&'j str> {
    match value {
        Json::Text(text) | Json::Number(text) => Some(text),
        _ => None,
    }
}

fn apply(unary: Unary, value: Made<'_>) -> Made<'_> {
    let changed = |change: fn(&str) -> String| text_of(&value).map(|t| Json::Text(change(t).into()));
    let number = |change: fn(&str) -> Option<String>| {
        decimal::exact(&value).and_then(|digits| change(&digits)).map(|digits| Json::Number(digits.into()))
    };
    let made = match unary {
        Unary::Not => Some(Json::Bool(!truthy(&value))),
        Unary::Exists => Some(Json::Bool(!value.is_null())),
        Unary::Lower => changed(str::to_lowercase),
        Unary::Upper => changed(str::to_uppercase),
        Unary::Trim => changed(|t| t.trim().to_owned()),
        Unary::Text => match own(value) {
            Json::Number(digits) => return text(digits),
            Json::Text(whole) => return text(whole),
            other => text_of(&other).map(|t| Json::Text(t.to_owned().into())),
        },
        Unary::Decimal => match value {
            number if matches!(*number, Json::Number(_)) => return number,
            other => decimal::exact(&other).map(|digits| Json::Number(digits.into_owned().into())),
        },
        Unary::Integer => number(decimal::integer),
        Unary::Abs => number(decimal::abs),
        Unary::Negate => number(decimal::negate),
        Unary::Percent => number(decimal::percent),
        Unary::Boolean => boolean(&value).map(Json::Bool),
        Unary::Compact => return compact(value),
    };
    made.map_or(null(), Cow::Owned)
}

fn boolean(value: &Json<'_>) -> Option<bool> {
    match text_of(value)?.to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn compact(value: Made<'_>) -> Made<'_> {
    match own(value) {
        Json::List(mut items) => {
            items.retain(|item| !item.is_null());
            list(items)
        }
        Json::Object(mut members) => {
            members.retain(|_, value| !value.is_null());
            object(members)
        }
        other => Cow::Owned(other),
    }
}

fn compare(comparison: Comparison, a: &Json<'_>, b: &Json<'_>) -> bool {
    let ordering = match (decimal::exact(a), decimal::exact(b)) {
        (Some(x), Some(y)) => decimal::compare(&x, &y),
        _ if comparison == Comparison::Equal => return a == b,
        _ => text_of(a).zip(text_of(b)).map(|(x, y)| x.cmp(y)),
    };
    ordering.is_some_and(|ordering| match comparison {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
    })
}

fn concat<'a, 'p>(parts: impl Iterator<Item = Made<'p>>, with: &str) -> Made<'a> {
    let mut all: Option<String> = None;
    for part in parts {
        let Some(part) = text_of(&part) else { continue };
        match &mut all {
            None => all = Some(part.to_owned()),
            Some(all) => {
                all.push_str(with);
                all.push_str(part);
            }
        }
    }
    all.map_or(null(), text)
}

/// As concat, but empty texts are left out, so that no separator stands alone.
fn join<'a>(items: &Json<'_>, with: &str) -> Made<'a> {
    let items = items.as_list().unwrap_or_default();
    concat(items.iter().filter(|item| item.as_str() != Some("")).map(Cow::Borrowed), with)
}

fn first<'a>(items: &'a [Expr], env: &Env<'a>) -> Made<'a> {
    let found = items.iter().map(|item| eval(item, env)).find(|v| !v.is_null() && v.as_str() != Some(""));
    found.unwrap_or(null())
}

fn collect<'a>(walk: &'a Walk, env: &Env<'a>) -> Vec<Json<'a>> {
    fn each<'i>(walk: &'i Walk, item: &'i Json<'i>, env: &Env<'i>) -> Option<Json<'i>> {
        let inner = Env { item, ..*env };
        let stays = !item.is_null() && walk.only.as_deref().is_none_or(|only| truthy(&eval(only, &inner)));
        stays.then(|| own(eval(&walk.item, &inner)))
    }
    match eval(&walk.list, env) {
        Cow::Borrowed(Json::List(items)) => items.iter().filter_map(|item| each(walk, item, env)).collect(),
        // What is made of such items must not borrow from them.
        Cow::Owned(Json::List(items)) => items.iter().filter_map(|item| Some(each(walk, item, env)?.keep())).collect(),
        _ => Vec::new(),
    }
}

fn sum<'a>(items: &[Json<'_>]) -> Made<'a> {
    let mut numbers = items.iter().filter(|item| !item.is_null()).map(decimal::exact);
    let total = numbers.try_fold("0".to_owned(), |total, number| decimal::add(&total, &number?));
    total.map_or(null(), |total| Cow::Owned(Json::Number(total.into())))
}

fn pairs<'a>(list: Made<'a>, key: &Path, value: &Path, except: &[String]) -> Made<'a> {
    fn name<'j>(item: &'j Json<'_>, key: &Path, except: &[String]) -> Option<&'j str> {
        key.find_in(item).and_then(text_of).filter(|name| !except.iter().any(|known| known == name))
    }
    object(match &list {
        Cow::Borrowed(Json::List(items)) => {
            let named = items.iter().filter_map(|item| Some((name(item, key, except)?.into(), item)));
            named.map(|(name, item)| (name, value.find_in(item).map_or(Json::Null, Json::lend))).collect()
        }
        Cow::Owned(Json::List(items)) => {
            let named = items.iter().filter_map(|item| Some((name(item, key, except)?.to_owned().into(), item)));
            named.map(|(name, item)| (name, value.find_in(item).cloned().unwrap_or_default())).collect()
        }
        _ => Members::default(),
    })
}

fn omit<'a>(from: Made<'a>, keys: &[String]) -> Made<'a> {
    let stays = |name: &str| !keys.iter().any(|key| key == name);
    match from {
        // What is left out need not be copied first.
        Cow::Borrowed(Json::Object(members)) => object(members.kept(stays)),
        Cow::Owned(Json::Object(mut members)) => {
            members.retain(|name, _| stays(name));
            object(members)
        }
        _ => null(),
    }
}

fn merge<'a>(items: impl Iterator<Item = Made<'a>>) -> Made<'a> {
    let objects = items.filter_map(|item| match own(item) {
        Json::Object(members) => Some(members),
        _ => None,
    });
    object(objects.flatten().collect())
}

fn tail<'a>(value: &Json<'_>, after: &str) -> Made<'a> {
    let Some(whole) = text_of(value) else { return null() };
    text(whole.rsplit_once(after).map_or(whole, |(_, tail)| tail).to_owned())
}

fn split<'a>(value: &Json<'_>, by: &str) -> Made<'a> {
    let parts = text_of(value).into_iter().flat_map(|text| text.split(by)).map(str::trim);
    list(parts.filter(|part| !part.is_empty()).map(|part| Json::Text(part.to_owned().into())).collect())
}
