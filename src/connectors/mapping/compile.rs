//! YAML into expressions, with errors that name the line.

use serde_json::Value;

use super::path::Path;
use super::times::TimeFormat;
use super::zones::Times;
use super::{Comparison, Expr, OPERATORS, Unary, Walk};
use crate::connectors::folder::SpecError;
use crate::connectors::template::Template;
use crate::connectors::yaml::{Node, Placed};
use crate::domain::json::Json;

/// What a compilation needs to know.
pub(super) struct Compiler<'a> {
    pub file: &'a str,
    pub variables: &'a [&'a str],
}

type Compiled = Result<Expr, SpecError>;

impl Compiler<'_> {
    fn wrong(&self, at: &Placed, message: impl Into<String>) -> SpecError {
        SpecError::in_file(self.file, message).at(at.line)
    }

    /// Any expression: an operator, an object, a list, a path (`$.a`) or a literal.
    pub fn expr(&self, placed: &Placed) -> Compiled {
        match &placed.node {
            Node::Text(text) if text.starts_with('$') => self.path(placed, text).map(Expr::Var),
            Node::List(items) => items.iter().map(|item| self.expr(item)).collect::<Result<_, _>>().map(Expr::List),
            Node::Map(entries) => match entries.as_slice() {
                [(name, argument)] if name.starts_with('$') => {
                    self.operator(name, argument).map_err(|e| if e.field.is_none() { e.field(name.clone()) } else { e })
                }
                entries => self.object(placed, entries),
            },
            literal => Ok(Expr::Literal(kept(&literal.to_json()))),
        }
    }

    fn object(&self, placed: &Placed, entries: &[(String, Placed)]) -> Compiled {
        if let Some((name, _)) = entries.iter().find(|(name, _)| name.starts_with('$')) {
            return Err(self.wrong(placed, "an operator must stand alone in its map").field(name.clone()));
        }
        let member = |(name, value): &(String, Placed)| Ok((name.clone(), self.expr(value)?));
        entries.iter().map(member).collect::<Result<_, _>>().map(Expr::Object)
    }

    fn path(&self, at: &Placed, text: &str) -> Result<Path, SpecError> {
        let path = Path::parse(text).map_err(|message| self.wrong(at, message))?;
        let root = path.root.as_str();
        if root.is_empty() || root == "root" || self.variables.contains(&root) {
            return Ok(path);
        }
        let known: Vec<String> = self.variables.iter().map(|name| format!("${name}")).collect();
        let known = if known.is_empty() { String::new() } else { format!(", {}", known.join(", ")) };
        Err(self.wrong(
            at,
            format!("{text:?} begins with an unknown variable; known here: $ (as in $.field), $root{known}"),
        ))
    }

    fn operator(&self, name: &str, argument: &Placed) -> Compiled {
        if let Some(unary) = unary(name) {
            return Ok(Expr::Unary(unary, Box::new(self.expr(argument)?)));
        }
        if let Some(comparison) = comparison(name) {
            let [a, b] = self.pair(argument)?;
            return Ok(Expr::Compare(comparison, a, b));
        }
        Ok(match name {
            "$var" => self.path(argument, self.text(argument)?).map(Expr::Var)?,
            "$literal" => Expr::Literal(kept(&argument.node.to_json())),
            "$concat" => Expr::Concat(self.list(argument)?),
            "$and" => Expr::All(self.list(argument)?),
            "$or" => Expr::Any(self.list(argument)?),
            "$first" => Expr::First(self.list(argument)?),
            "$merge" => Expr::Merge(self.list(argument)?),
            "$default" => {
                let [value, default] = self.pair(argument)?;
                Expr::Default(value, default)
            }
            "$case" => self.case(argument)?,
            "$codes" => self.codes(argument)?,
            "$iterate" => Expr::Iterate(self.walk(argument)?),
            "$sum" => Expr::Sum(self.walk(argument)?),
            "$join" => {
                let fields = Fields::of(self, argument, &["items", "with"])?;
                Expr::Join { items: fields.expr("items")?, with: fields.text("with")?.to_owned() }
            }
            "$columns" => Expr::Columns(Box::new(self.expr(argument)?)),
            "$split" => {
                let fields = Fields::of(self, argument, &["value", "by"])?;
                Expr::Split { value: fields.expr("value")?, by: fields.text("by")?.to_owned() }
            }
            "$tail" => {
                let fields = Fields::of(self, argument, &["of", "after"])?;
                Expr::Tail { of: fields.expr("of")?, after: fields.text("after")?.to_owned() }
            }
            "$template" => {
                let template = Template::parse(self.text(argument)?).map_err(|m| self.wrong(argument, m))?;
                if let Some(root) = template.roots().find(|root| !self.variables.contains(root)) {
                    return Err(self.wrong(argument, format!("there is no {root:?} here")));
                }
                Expr::Template(template)
            }
            "$time" => self.time(argument)?,
            "$lookup" => self.lookup(argument)?,
            "$pairs" => self.pairs(argument)?,
            "$omit" => {
                let fields = Fields::of(self, argument, &["from", "keys", "mapped"])?;
                let mapped = matches!(fields.get("mapped").map(|at| at.node.to_json()), Some(Value::Bool(true)));
                let keys = if mapped && fields.get("keys").is_none() { Vec::new() } else { fields.texts("keys")? };
                Expr::Omit { from: fields.expr("from")?, keys, mapped }
            }
            _ => return Err(self.wrong(argument, format!("unknown operator; there are {}", OPERATORS.join(", ")))),
        })
    }

    fn text<'p>(&self, placed: &'p Placed) -> Result<&'p str, SpecError> {
        match &placed.node {
            Node::Text(text) => Ok(text),
            other => Err(self.wrong(placed, format!("expected a text, found {}", other.kind()))),
        }
    }

    fn list(&self, placed: &Placed) -> Result<Vec<Expr>, SpecError> {
        match &placed.node {
            Node::List(items) => items.iter().map(|item| self.expr(item)).collect(),
            other => Err(self.wrong(placed, format!("expected a list, found {}", other.kind()))),
        }
    }

    fn pair(&self, placed: &Placed) -> Result<[Box<Expr>; 2], SpecError> {
        let mut items = self.list(placed)?.into_iter();
        match (items.next(), items.next(), items.next()) {
            (Some(a), Some(b), None) => Ok([Box::new(a), Box::new(b)]),
            _ => Err(self.wrong(placed, "expected a list of two")),
        }
    }

    fn walk(&self, argument: &Placed) -> Result<Walk, SpecError> {
        let fields = Fields::of(self, argument, &["locator", "where", "items"])?;
        let only = fields.get("where").map(|at| self.expr(at).map(Box::new)).transpose()?;
        Ok(Walk { list: fields.expr("locator")?, only, item: fields.expr("items")? })
    }

    fn case(&self, argument: &Placed) -> Compiled {
        let fields = Fields::of(self, argument, &["cases", "default"])?;
        let Node::List(items) = &fields.need("cases")?.node else {
            return Err(self.wrong(argument, "cases must be a list").field("cases"));
        };
        let mut cases = Vec::with_capacity(items.len());
        for item in items {
            let case = Fields::of(self, item, &["when", "value"])?;
            cases.push((*case.expr("when")?, *case.expr("value")?));
        }
        Ok(Expr::Case { cases, default: fields.expr_or_null("default")? })
    }

    fn codes(&self, argument: &Placed) -> Compiled {
        let fields = Fields::of(self, argument, &["value", "to", "default"])?;
        let Node::Map(entries) = &fields.need("to")?.node else {
            return Err(self.wrong(argument, "to must be a map").field("to"));
        };
        let to = entries
            .iter()
            .map(|(code, value)| Ok((code.clone(), self.expr(value)?)))
            .collect::<Result<_, SpecError>>()?;
        Ok(Expr::Codes { value: fields.expr("value")?, to, default: fields.expr_or_null("default")? })
    }

    fn time(&self, argument: &Placed) -> Compiled {
        let fields = Fields::of(self, argument, &["value", "format", "zone"])?;
        let at = fields.need("format")?;
        let format = TimeFormat::parse(self.text(at)?).map_err(|m| self.wrong(at, m).field("format"))?;
        let format = match fields.get("zone") {
            None => Times::utc(format),
            Some(zone) => Times::new(format, self.text(zone)?).map_err(|m| self.wrong(zone, m).field("zone"))?,
        };
        Ok(Expr::Time { value: fields.expr("value")?, format })
    }

    fn lookup(&self, argument: &Placed) -> Compiled {
        let fields = Fields::of(self, argument, &["in", "key", "equals", "value"])?;
        Ok(Expr::Lookup {
            list: fields.expr("in")?,
            key: fields.path("key")?,
            equals: fields.expr("equals")?,
            value: fields.path("value")?,
        })
    }

    fn pairs(&self, argument: &Placed) -> Compiled {
        let fields = Fields::of(self, argument, &["in", "key", "value", "except"])?;
        let except = if fields.get("except").is_some() { fields.texts("except")? } else { Vec::new() };
        Ok(Expr::Pairs { list: fields.expr("in")?, key: fields.path("key")?, value: fields.path("value")?, except })
    }
}

/// The named parts of an operator's argument.
struct Fields<'c, 'p> {
    compiler: &'c Compiler<'c>,
    at: &'p Placed,
    entries: &'p [(String, Placed)],
}

impl<'c, 'p> Fields<'c, 'p> {
    fn of(compiler: &'c Compiler<'c>, at: &'p Placed, known: &[&str]) -> Result<Self, SpecError> {
        let Node::Map(entries) = &at.node else {
            return Err(compiler.wrong(at, format!("expected a map with {}", known.join(", "))));
        };
        match entries.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, value)) => {
                let message = format!("unknown field; expected one of {}", known.join(", "));
                Err(compiler.wrong(value, message).field(name.clone()))
            }
            None => Ok(Self { compiler, at, entries }),
        }
    }
    fn get(&self, name: &str) -> Option<&'p Placed> {
        self.entries.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }
    fn need(&self, name: &str) -> Result<&'p Placed, SpecError> {
        self.get(name).ok_or_else(|| self.compiler.wrong(self.at, "the field is missing").field(name))
    }
    fn expr(&self, name: &str) -> Result<Box<Expr>, SpecError> {
        self.compiler.expr(self.need(name)?).map(Box::new)
    }
    fn expr_or_null(&self, name: &str) -> Result<Box<Expr>, SpecError> {
        self.get(name)
            .map_or_else(|| Ok(Box::new(Expr::Literal(Json::Null))), |at| self.compiler.expr(at).map(Box::new))
    }
    fn text(&self, name: &str) -> Result<&'p str, SpecError> {
        self.compiler.text(self.need(name)?).map_err(|e| e.field(name))
    }
    fn texts(&self, name: &str) -> Result<Vec<String>, SpecError> {
        let at = self.need(name)?;
        let Node::List(items) = &at.node else {
            return Err(self.compiler.wrong(at, "expected a list of texts").field(name));
        };
        items.iter().map(|item| self.compiler.text(item).map(str::to_owned)).collect()
    }
    fn path(&self, name: &str) -> Result<Path, SpecError> {
        let at = self.need(name)?;
        Path::parse(self.compiler.text(at)?).map_err(|m| self.compiler.wrong(at, m).field(name))
    }
}

fn kept(literal: &Value) -> Json<'static> {
    Json::from(literal).keep()
}

fn unary(name: &str) -> Option<Unary> {
    Some(match name {
        "$lower" => Unary::Lower,
        "$upper" => Unary::Upper,
        "$trim" => Unary::Trim,
        "$string" => Unary::Text,
        "$decimal" | "$number" => Unary::Decimal,
        "$integer" => Unary::Integer,
        "$boolean" => Unary::Boolean,
        "$abs" => Unary::Abs,
        "$negate" => Unary::Negate,
        "$percent" => Unary::Percent,
        "$not" => Unary::Not,
        "$exists" => Unary::Exists,
        "$compact" => Unary::Compact,
        _ => return None,
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "$eq" => Comparison::Equal,
        "$gt" => Comparison::Greater,
        "$gte" => Comparison::GreaterOrEqual,
        "$lt" => Comparison::Less,
        "$lte" => Comparison::LessOrEqual,
        _ => return None,
    })
}
