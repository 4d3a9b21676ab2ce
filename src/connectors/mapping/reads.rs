//! Which of a record's members an expression reads: what is asked for by name, and what is left for custom fields.
//!
//! Always true: a member counts where a path leads through it by name; a path to the whole record counts for none. Not
//! here: what becomes of them (`connectors::fields`, `$omit` with `mapped`).

use std::collections::BTreeSet;

use super::path::{Path, Step};
use super::{Expr, Mapping, Walk};

impl Mapping {
    /// The names of the record's members that the expression reads, one level below `below` if it is said.
    pub fn reads(&self, below: Option<&str>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        walk(&self.0, true, &mut |path| found.extend(member(path, below).map(str::to_owned)));
        found
    }

    /// Whether columns that the account lacks can be left out of what it makes.
    pub fn names_columns(&self) -> bool {
        has_columns(&self.0)
    }

    /// The members of a variable that the expression reads: `x` of `$values.x`.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        every(&self.0, &mut |path| {
            if path.root == variable {
                found.extend(member(path, None).map(str::to_owned));
            }
        });
        found
    }

    /// Fills in each `$omit` that leaves out what is mapped: what the whole mapping reads, and these besides.
    #[must_use]
    pub fn closed(mut self, besides: &[&Path]) -> Self {
        let mut names = self.reads(None);
        names.extend(besides.iter().filter_map(|path| member(path, None)).map(str::to_owned));
        close(&mut self.0, &names);
        self
    }
}

/// The member that a path leads through.
pub fn member<'p>(path: &'p Path, below: Option<&str>) -> Option<&'p str> {
    let mut steps = path.steps.iter();
    if let Some(below) = below {
        steps.next().filter(|step| matches!(step, Step::Key(key) if key == below))?;
    }
    match steps.next() {
        Some(Step::Key(key)) => Some(key),
        _ => None,
    }
}

fn has_columns(expr: &Expr) -> bool {
    match expr {
        Expr::Columns(_) => true,
        Expr::Iterate(Walk { list, only, item }) | Expr::Sum(Walk { list, only, item }) => {
            [list, item].into_iter().chain(only).any(|part| has_columns(part))
        }
        other => parts(other).into_iter().any(has_columns),
    }
}

/// Calls `each` with every path into the record. `outside`: `$` is the record, not an item of a list in it.
fn walk(expr: &Expr, outside: bool, each: &mut dyn FnMut(&Path)) {
    if let Expr::Var(path) = expr
        && (path.root == "root" || path.root.is_empty() && outside)
    {
        each(path);
    }
    if let Expr::Iterate(inner) | Expr::Sum(inner) = expr {
        let Walk { list, only, item } = inner;
        walk(list, outside, each);
        for part in only.iter().chain([item]) {
            walk(part, false, each);
        }
        return;
    }
    for part in parts(expr) {
        walk(part, outside, each);
    }
}

/// Calls `each` with every path, those in holes of texts too.
fn every(expr: &Expr, each: &mut dyn FnMut(&Path)) {
    match expr {
        Expr::Var(path) => each(path),
        Expr::Template(template) => template.holes().for_each(each),
        Expr::Iterate(Walk { list, only, item }) | Expr::Sum(Walk { list, only, item }) => {
            for part in only.iter().chain([list, item]) {
                every(part, each);
            }
        }
        _ => parts(expr).into_iter().for_each(|part| every(part, each)),
    }
}

/// The expressions that an expression is made of, walks aside.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Literal(_) | Expr::Var(_) | Expr::Template(_) | Expr::Iterate(_) | Expr::Sum(_) => Vec::new(),
        Expr::Object(members) => members.iter().map(|(_, value)| value).collect(),
        Expr::List(items)
        | Expr::All(items)
        | Expr::Any(items)
        | Expr::Concat(items)
        | Expr::First(items)
        | Expr::Merge(items) => items.iter().collect(),
        Expr::Unary(_, value) | Expr::Time { value, .. } | Expr::Split { value, .. } | Expr::Tail { of: value, .. } => {
            vec![value]
        }
        Expr::Compare(_, a, b) | Expr::Default(a, b) => vec![a, b],
        Expr::Join { items, .. } => vec![items],
        Expr::Case { cases, default } => {
            cases.iter().flat_map(|(when, value)| [when, value]).chain([&**default]).collect()
        }
        Expr::Codes { value, to, default } => to.iter().map(|(_, value)| value).chain([&**value, &**default]).collect(),
        Expr::Lookup { list, equals, .. } => vec![list, equals],
        Expr::Pairs { list, .. } => vec![list],
        Expr::Omit { from, .. } | Expr::Columns(from) => vec![from],
    }
}

/// `$omit` stands where an author puts it: as a member, perhaps inside others that make one object.
fn close(expr: &mut Expr, names: &BTreeSet<String>) {
    match expr {
        Expr::Omit { from, keys, mapped } => {
            if *mapped {
                keys.extend(names.iter().cloned());
            }
            close(from, names);
        }
        Expr::Object(members) => members.iter_mut().for_each(|(_, value)| close(value, names)),
        Expr::Merge(items) | Expr::First(items) | Expr::List(items) => {
            items.iter_mut().for_each(|item| close(item, names));
        }
        Expr::Unary(_, value) => close(value, names),
        Expr::Default(a, b) => {
            close(a, names);
            close(b, names);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connectors::mapping::Env;
    use crate::domain::json::Json;

    fn mapping(text: &str) -> Mapping {
        Mapping::read("record.map.yml", text, &["parameters"]).unwrap()
    }

    #[test]
    fn every_member_that_is_read_is_found_and_an_items_own_are_not() {
        let map = mapping(
            "a: $.A\nb: {$case: {cases: [{when: {$gt: [$.B, 1]}, value: $.C.inner}], default: $root.D}}\n\
             c: {$iterate: {locator: $.Lines, where: $.Open, items: {x: $.Sku, y: $root.E}}}\n\
             d: $parameters.store\ne: {$codes: {value: $.F, to: {x: $.G}}}\nf: $\n",
        );
        let found: Vec<String> = map.reads(None).into_iter().collect();
        assert_eq!(found, ["A", "B", "C", "D", "E", "F", "G", "Lines"]);
        let nested = mapping("a: $.properties.email\nb: $.id\nc: $.properties['x y']\n");
        assert_eq!(nested.reads(Some("properties")).into_iter().collect::<Vec<_>>(), ["email", "x y"]);
    }

    #[test]
    fn every_use_of_a_variable_is_found() {
        let text = "a: {$template: \"{{values.A}} {{page.B}}\"}\nb: {$iterate: {locator: $values.C, where: $values.D, items: {x: $values.E.f}}}\n\
                    c: {$case: {cases: [{when: $values.G, value: $values.H}], default: $values}}\n";
        let map = Mapping::read("f", text, &["values", "page"]).unwrap();
        assert_eq!(map.names("values").into_iter().collect::<Vec<_>>(), ["A", "C", "D", "E", "G", "H"]);
    }

    #[test]
    fn custom_fields_are_what_nothing_else_reads() {
        let map = mapping("name: $.Name\ncustomFields: {$omit: {from: $, keys: [attributes], mapped: true}}\n");
        let path = Path::parse("$.Id").unwrap();
        let record = json!({"attributes": {}, "Id": "1", "Name": "n", "Size__c": 7});
        let made = map.closed(&[&path]).eval(&Env::new(&Json::from(&record), &[]));
        assert_eq!(made, json!({"name": "n", "customFields": {"Size__c": 7}}));
    }
}
