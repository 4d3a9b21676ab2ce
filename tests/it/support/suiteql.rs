//! Just enough SuiteQL to answer what the connector asks: one table, comparisons, `IN`, `AND`, `OR`, an order.
//!
//! Values are given as NetSuite gives them: texts, names in lower case, nulls left out. A column that no row of the table
//! has fails the whole query.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::netsuite::shown;

/// A row by column.
pub type Row = BTreeMap<String, Value>;

/// Columns that may be there though no row has a value.
const KNOWN: &[&str] = &[
    "accountsearchdisplayname",
    "assigned",
    "author",
    "completeddate",
    "contact",
    "leadsource",
    "message",
    "name",
    "note",
    "notedate",
    "priority",
    "stage",
    "accttype",
    "acctnumber",
    "comments",
    "company",
    "companyname",
    "createdfrom",
    "currency",
    "datecreated",
    "createddate",
    "description",
    "displayname",
    "duedate",
    "email",
    "employee",
    "entity",
    "entityid",
    "entitystatus",
    "exchangerate",
    "expectedclosedate",
    "expenseaccount",
    "fax",
    "firstname",
    "foreignamount",
    "foreignamountunpaid",
    "foreigntotal",
    "homephone",
    "id",
    "isinactive",
    "isperson",
    "item",
    "itemid",
    "itemtype",
    "lastmodifieddate",
    "lastname",
    "mainline",
    "memo",
    "mobilephone",
    "parent",
    "phone",
    "probability",
    "projectedtotal",
    "quantity",
    "rate",
    "salesrep",
    "status",
    "taxline",
    "title",
    "trandate",
    "tranid",
    "transaction",
    "type",
    "url",
    "recordid",
    "deleteddate",
    "scriptid",
];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

fn tokens(query: &str) -> Result<Vec<Token>, String> {
    let (mut all, chars) = (Vec::new(), query.chars().collect::<Vec<_>>());
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c.is_whitespace() {
            at += 1;
        } else if c == '\'' {
            let end = chars[at + 1..].iter().position(|c| *c == '\'').ok_or("A text does not end.")? + at + 1;
            all.push(Token::Text(chars[at + 1..end].iter().collect()));
            at = end + 1;
        } else if c.is_alphanumeric() || c == '_' {
            let word = |c: &char| c.is_alphanumeric() || *c == '_' || *c == '.';
            let end = chars[at..].iter().position(|c| !word(c)).map_or(chars.len(), |n| n + at);
            all.push(Token::Word(chars[at..end].iter().collect()));
            at = end;
        } else {
            let two: String = chars[at..chars.len().min(at + 2)].iter().collect();
            let sign = if matches!(two.as_str(), ">=" | "<=" | "<>") { two } else { c.to_string() };
            if !matches!(sign.as_str(), ">=" | "<=" | "<>" | "=" | ">" | "<" | "(" | ")" | ",") {
                return Err(format!("{sign:?} is not understood."));
            }
            at += sign.len();
            all.push(Token::Sign(sign));
        }
    }
    Ok(all)
}

#[derive(Clone, Debug)]
enum Expr {
    Column(String),
    Text(String),
    Call(String, Vec<Expr>),
}

#[derive(Clone, Debug)]
enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Compare(Expr, String, Expr),
    In(Expr, Vec<Expr>),
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }
    fn next(&mut self) -> Result<Token, String> {
        let token = self.peek().cloned().ok_or("The query ends too early.")?;
        self.at += 1;
        Ok(token)
    }
    fn is(&mut self, word: &str) -> bool {
        let fits = match self.peek() {
            Some(Token::Word(text)) => text.eq_ignore_ascii_case(word),
            Some(Token::Sign(text)) => text == word,
            _ => false,
        };
        self.at += usize::from(fits);
        fits
    }
    fn need(&mut self, word: &str) -> Result<(), String> {
        if self.is(word) { Ok(()) } else { Err(format!("{word} is missing before {:?}.", self.peek())) }
    }
    fn expr(&mut self) -> Result<Expr, String> {
        match self.next()? {
            Token::Text(text) => Ok(Expr::Text(text)),
            Token::Word(word) if self.is("(") => {
                let mut of = vec![self.expr()?];
                while self.is(",") {
                    of.push(self.expr()?);
                }
                self.need(")")?;
                Ok(Expr::Call(word.to_uppercase(), of))
            }
            Token::Word(word) if word.chars().all(|c| c.is_ascii_digit()) => Ok(Expr::Text(word)),
            Token::Word(word) => Ok(Expr::Column(word.rsplit('.').next().unwrap_or_default().to_lowercase())),
            Token::Sign(sign) => Err(format!("{sign:?} stands where a value belongs.")),
        }
    }
    fn any(&mut self) -> Result<Test, String> {
        let mut all = vec![self.all()?];
        while self.is("OR") {
            all.push(self.all()?);
        }
        Ok(Test::Any(all))
    }
    fn all(&mut self) -> Result<Test, String> {
        let mut all = vec![self.one()?];
        while self.is("AND") {
            all.push(self.one()?);
        }
        Ok(Test::All(all))
    }
    fn one(&mut self) -> Result<Test, String> {
        if self.is("(") {
            let inner = self.any()?;
            self.need(")")?;
            return Ok(inner);
        }
        let left = self.expr()?;
        if self.is("IN") {
            self.need("(")?;
            let mut list = vec![self.expr()?];
            while self.is(",") {
                list.push(self.expr()?);
            }
            self.need(")")?;
            return Ok(Test::In(left, list));
        }
        match self.next()? {
            Token::Sign(sign) if matches!(sign.as_str(), "=" | ">" | "<" | ">=" | "<=") => {
                Ok(Test::Compare(left, sign, self.expr()?))
            }
            other => Err(format!("{other:?} is no comparison.")),
        }
    }
}

/// Columns of the account's own, which may be there though no row has a value, and those that SuiteQL does not show.
pub struct Columns<'a> {
    pub own: BTreeSet<String>,
    pub hidden: &'a BTreeSet<String>,
}

struct Eval<'a> {
    zone: &'a TimeZone,
    rows: &'a [Row],
    columns: &'a Columns<'a>,
}

impl Eval<'_> {
    fn check(&self, expr: &Expr) -> Result<(), String> {
        match expr {
            Expr::Text(_) => Ok(()),
            Expr::Call(_, of) => of.iter().try_for_each(|expr| self.check(expr)),
            Expr::Column(name) => {
                let known = KNOWN.contains(&name.as_str())
                    || self.columns.own.contains(name)
                    || self.rows.iter().any(|row| row.contains_key(name));
                if known && !self.columns.hidden.contains(name) {
                    Ok(())
                } else {
                    Err(format!("Search error occurred: Field '{name}' for record was not found."))
                }
            }
        }
    }
    /// What an expression makes of a row, as text.
    fn value(&self, expr: &Expr, row: &Row) -> Option<String> {
        match expr {
            Expr::Text(text) => Some(text.clone()),
            Expr::Column(name) => match row.get(name)? {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            },
            Expr::Call(name, of) => match (name.as_str(), of.as_slice()) {
                ("TO_CHAR", [time, Expr::Text(format)]) => {
                    let pattern = if format.contains("HH24") { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d" };
                    Some(shown(self.zone, self.value(time, row)?.parse().ok()?, pattern))
                }
                ("TO_TIMESTAMP", [text, _]) => self.value(text, row),
                ("BUILTIN.DF", [Expr::Column(name)]) => {
                    let named = row.get(&format!("{name}!")).and_then(Value::as_str).map(str::to_owned);
                    named.or_else(|| self.value(&of[0], row))
                }
                ("UPPER", [of]) => Some(self.value(of, row)?.to_uppercase()),
                ("LOWER", [of]) => Some(self.value(of, row)?.to_lowercase()),
                _ => None,
            },
        }
    }
    /// The same as it is selected: a time alone comes as the user's preferences have it.
    fn shown(&self, expr: &Expr, row: &Row) -> Option<String> {
        match expr {
            Expr::Column(name) if name.ends_with("date") => {
                let seconds = row.get(name).and_then(Value::as_i64);
                seconds.map(|at| shown(self.zone, at, "%-m/%-d/%Y")).or_else(|| self.value(expr, row))
            }
            other => self.value(other, row),
        }
    }
    /// Times are compared as they are shown.
    fn comparable(&self, expr: &Expr, row: &Row) -> Option<String> {
        match expr {
            Expr::Column(name) if name.ends_with("date") => {
                Some(shown(self.zone, self.value(expr, row)?.parse().ok()?, "%Y-%m-%d %H:%M:%S"))
            }
            other => self.value(other, row),
        }
    }
    fn holds(&self, test: &Test, row: &Row) -> bool {
        match test {
            Test::All(all) => all.iter().all(|test| self.holds(test, row)),
            Test::Any(any) => any.iter().any(|test| self.holds(test, row)),
            Test::In(left, list) => {
                let value = self.value(left, row);
                value.is_some() && list.iter().any(|one| self.value(one, row) == value)
            }
            Test::Compare(left, sign, right) => {
                let (Some(a), Some(b)) = (self.comparable(left, row), self.comparable(right, row)) else {
                    return false;
                };
                let ordering = ordered(&a, &b);
                match sign.as_str() {
                    "=" => ordering == Ordering::Equal,
                    ">" => ordering == Ordering::Greater,
                    "<" => ordering == Ordering::Less,
                    ">=" => ordering != Ordering::Less,
                    _ => ordering != Ordering::Greater,
                }
            }
        }
    }
}

/// Numbers by value, else texts.
fn ordered(a: &str, b: &str) -> Ordering {
    match (a.parse::<i64>(), b.parse::<i64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}

/// The rows of a query. The error is what the app says.
pub fn run(
    query: &str,
    tables: &BTreeMap<&'static str, Vec<Row>>,
    zone: &TimeZone,
    columns_there: &Columns<'_>,
) -> Result<Vec<Value>, String> {
    let mut parser = Parser { tokens: tokens(query)?, at: 0 };
    parser.need("SELECT")?;
    let mut columns: Vec<(Expr, Option<String>)> = Vec::new();
    loop {
        let expr = parser.expr()?;
        let name = if parser.is("AS") {
            let Token::Word(name) = parser.next()? else { return Err("A name is missing.".to_owned()) };
            Some(name.to_lowercase())
        } else {
            None
        };
        columns.push((expr, name));
        if !parser.is(",") {
            break;
        }
    }
    parser.need("FROM")?;
    let Token::Word(table) = parser.next()? else { return Err("A table is missing.".to_owned()) };
    parser.next()?;
    parser.need("WHERE")?;
    let test = parser.any()?;
    parser.need("ORDER")?;
    parser.need("BY")?;
    let mut order = vec![parser.expr()?];
    while parser.is(",") {
        order.push(parser.expr()?);
    }
    if parser.peek().is_some() {
        return Err(format!("{:?} is left over.", parser.peek()));
    }
    if !matches!(order.last(), Some(Expr::Column(last)) if matches!(last.as_str(), "id" | "recordid")) {
        return Err("An order that is not unique loses rows between pages.".to_owned());
    }
    let none = Vec::new();
    let rows = tables.get(table.to_lowercase().as_str()).unwrap_or(&none);
    let eval = Eval { zone, rows, columns: columns_there };
    columns.iter().try_for_each(|(expr, _)| eval.check(expr))?;
    let mut found: Vec<&Row> = rows.iter().filter(|row| eval.holds(&test, row)).collect();
    let key = |row: &Row, expr: &Expr| eval.value(expr, row).unwrap_or_default();
    found.sort_by(|a, b| {
        let compared = order.iter().map(|expr| ordered(&key(a, expr), &key(b, expr)));
        compared.into_iter().find(|ordering| *ordering != Ordering::Equal).unwrap_or(Ordering::Equal)
    });
    let shape = |row: &Row| {
        let mut item = Map::from_iter([("links".to_owned(), Value::Array(Vec::new()))]);
        for (expr, name) in &columns {
            let name = name.clone().or(match expr {
                Expr::Column(name) => Some(name.clone()),
                _ => None,
            });
            if let (Some(name), Some(value)) = (name, eval.shown(expr, row)) {
                item.insert(name, value.into());
            }
        }
        Value::Object(item)
    };
    Ok(found.into_iter().map(shape).collect())
}
