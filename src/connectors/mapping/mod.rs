//! Mapping expressions: from an app's JSON to ours, compiled once from YAML to an enum.
//!
//! Always true: an expression cannot loop, call or wait, and what it makes is bounded by its input; a path that leads
//! nowhere is null. Not here: scripts (`connectors::script`), the order of the model's fields (`domain::models`).
//! The operators are described for authors in docs/connectors.md; [`OPERATORS`] is their one list.

mod columns;
mod compile;
pub mod decimal;
mod eval;
pub mod path;
pub mod reads;
pub mod times;
pub mod zones;

use path::Path;
use serde_json::Value;
use zones::Times;

pub use eval::{Env, truthy, written};

use super::folder::SpecError;
use super::template::Template;
use super::yaml::{self, Placed};
use crate::domain::json::Json;

/// Every operator, for the error about an unknown one and for the docs.
pub const OPERATORS: &[&str] = &[
    "$abs",
    "$and",
    "$boolean",
    "$case",
    "$codes",
    "$columns",
    "$compact",
    "$concat",
    "$decimal",
    "$default",
    "$eq",
    "$exists",
    "$first",
    "$gt",
    "$gte",
    "$integer",
    "$iterate",
    "$join",
    "$literal",
    "$lookup",
    "$lower",
    "$lt",
    "$lte",
    "$merge",
    "$negate",
    "$not",
    "$number",
    "$omit",
    "$or",
    "$pairs",
    "$percent",
    "$split",
    "$string",
    "$sum",
    "$tail",
    "$template",
    "$time",
    "$trim",
    "$upper",
    "$var",
];

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Mapping(Expr);

/// One node of an expression.
#[derive(Clone, Debug)]
enum Expr {
    Literal(Json<'static>),
    Var(Path),
    Object(Vec<(String, Expr)>),
    List(Vec<Expr>),
    Unary(Unary, Box<Expr>),
    /// All must be there and compare so, pair by pair.
    Compare(Comparison, Box<Expr>, Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    /// Null parts count as empty; null if all are null.
    Concat(Vec<Expr>),
    Join {
        items: Box<Expr>,
        with: String,
    },
    /// The first that is neither null nor an empty text.
    First(Vec<Expr>),
    /// The second if the first is null.
    Default(Box<Expr>, Box<Expr>),
    Case {
        cases: Vec<(Expr, Expr)>,
        default: Box<Expr>,
    },
    Codes {
        value: Box<Expr>,
        to: Vec<(String, Expr)>,
        default: Box<Expr>,
    },
    Iterate(Walk),
    /// The exact sum of the items' decimals.
    Sum(Walk),
    Time {
        value: Box<Expr>,
        format: Times,
    },
    /// In a list of objects: the value beside a key.
    Lookup {
        list: Box<Expr>,
        key: Path,
        equals: Box<Expr>,
        value: Path,
    },
    /// A list of objects with key and value, as one object.
    Pairs {
        list: Box<Expr>,
        key: Path,
        value: Path,
        except: Vec<String>,
    },
    Omit {
        from: Box<Expr>,
        keys: Vec<String>,
        /// What the rest of the mapping reads as well: filled into `keys` by [`Mapping::closed`].
        mapped: bool,
    },
    Merge(Vec<Expr>),
    Split {
        value: Box<Expr>,
        by: String,
    },
    /// What follows the last of these in a text; the whole text where there is none.
    Tail {
        of: Box<Expr>,
        after: String,
    },
    /// The columns of a query, without those that the account lacks.
    Columns(Box<Expr>),
    /// A text with holes; null if one of them has no value.
    Template(Template),
}

/// A walk over a list: inside it, `$` is the item.
#[derive(Clone, Debug)]
struct Walk {
    list: Box<Expr>,
    only: Option<Box<Expr>>,
    item: Box<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unary {
    Lower,
    Upper,
    Trim,
    Text,
    Decimal,
    Integer,
    Boolean,
    Abs,
    Negate,
    Percent,
    Not,
    Exists,
    /// Without null members or items.
    Compact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Mapping {
    /// Compiles a file. `variables` are the names that may stand after `$`, beside `$` and `$root`.
    pub fn read(file: &str, text: &str, variables: &[&str]) -> Result<Self, SpecError> {
        let placed: Placed = yaml::read(file, text)?;
        Self::compile(file, &placed, variables)
    }
    /// Compiles a part of a file.
    pub fn compile(file: &str, placed: &Placed, variables: &[&str]) -> Result<Self, SpecError> {
        compile::Compiler { file, variables }.expr(placed).map(Self)
    }
    /// The value that the expression makes in this environment.
    pub fn eval(&self, env: &Env<'_>) -> Value {
        eval::eval(&self.0, env).to_value()
    }
    /// The same, as long as the record and the expression are there.
    pub fn make<'a>(&'a self, env: &Env<'a>) -> Json<'a> {
        eval::own(eval::eval(&self.0, env))
    }
    /// Whether the condition holds.
    pub fn holds(&self, env: &Env<'_>) -> bool {
        eval::truthy(&eval::eval(&self.0, env))
    }
    /// The names of an object expression's members, in order; empty for other expressions.
    pub fn members(&self) -> Vec<&str> {
        match &self.0 {
            Expr::Object(members) => members.iter().map(|(name, _)| name.as_str()).collect(),
            _ => Vec::new(),
        }
    }
}
