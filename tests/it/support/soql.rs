//! The part of SOQL that connectors send: `SELECT … FROM … [WHERE …] [ORDER BY …] [LIMIT n]`, read and carried out; fields of
//! a parent as `Order.Name`.
//!
//! Always true: what is not understood is an error, as at Salesforce, never a guess. Not here: records (`salesforce`).

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    pub fields: Vec<String>,
    pub object: String,
    condition: Option<Condition>,
    order: Vec<String>,
    limit: usize,
}

#[derive(Clone, Debug)]
enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Compare(String, String, Literal),
    In(String, Vec<String>),
}

#[derive(Clone, Debug)]
enum Literal {
    Text(String),
    /// `2026-05-01T07:25:37Z`, unquoted.
    Time(String),
    Flag(bool),
}

struct Tokens(Vec<String>, usize);

impl Tokens {
    fn read(text: &str) -> Result<Self, String> {
        let (mut all, mut chars) = (Vec::new(), text.chars().peekable());
        while let Some(c) = chars.next() {
            if c.is_whitespace() {
                continue;
            }
            let mut token = String::from(c);
            if c == '\'' {
                loop {
                    match chars.next() {
                        Some('\'') => break token.push('\''),
                        Some(inner) => token.push(inner),
                        None => return Err("a text is not closed".to_owned()),
                    }
                }
            } else if "<>!=".contains(c) {
                while chars.peek().is_some_and(|c| *c == '=') {
                    token.extend(chars.next());
                }
            } else if !"(),".contains(c) {
                while chars.peek().is_some_and(|c| !c.is_whitespace() && !"(),'<>!=".contains(*c)) {
                    token.extend(chars.next());
                }
            }
            all.push(token);
        }
        Ok(Self(all, 0))
    }
    fn peek(&self) -> &str {
        self.0.get(self.1).map_or("", String::as_str)
    }
    fn next(&mut self) -> String {
        self.1 += 1;
        self.0.get(self.1 - 1).cloned().unwrap_or_default()
    }
    fn takes(&mut self, word: &str) -> bool {
        let fits = self.peek().eq_ignore_ascii_case(word);
        self.1 += usize::from(fits);
        fits
    }
    fn needs(&mut self, word: &str) -> Result<(), String> {
        if self.takes(word) { Ok(()) } else { Err(format!("unexpected token: '{}'", self.peek())) }
    }
    fn names(&mut self) -> Vec<String> {
        let mut names = vec![self.next()];
        while self.takes(",") {
            names.push(self.next());
        }
        names
    }
    fn any(&mut self) -> Result<Condition, String> {
        let mut left = self.all()?;
        while self.takes("OR") {
            left = Condition::Or(Box::new(left), Box::new(self.all()?));
        }
        Ok(left)
    }
    fn all(&mut self) -> Result<Condition, String> {
        let mut left = self.one()?;
        while self.takes("AND") {
            left = Condition::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }
    fn one(&mut self) -> Result<Condition, String> {
        if self.takes("(") {
            let inner = self.any()?;
            self.needs(")")?;
            return Ok(inner);
        }
        let (field, operator) = (self.next(), self.next());
        if operator.eq_ignore_ascii_case("IN") {
            self.needs("(")?;
            let texts = self.names();
            self.needs(")")?;
            let bare = |text: &String| {
                let bare = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                bare.map(str::to_owned).ok_or_else(|| format!("unexpected token: '{text}'"))
            };
            return Ok(Condition::In(field, texts.iter().map(bare).collect::<Result<_, _>>()?));
        }
        let literal = self.next();
        let literal = match literal.as_str() {
            "true" | "false" => Literal::Flag(literal == "true"),
            text if text.starts_with('\'') => Literal::Text(text.trim_matches('\'').to_owned()),
            time if time.ends_with('Z') && time.contains('T') => Literal::Time(time.trim_end_matches('Z').to_owned()),
            other => return Err(format!("unexpected token: '{other}'")),
        };
        match operator.as_str() {
            "=" | "!=" | ">" | "<" | ">=" | "<=" => Ok(Condition::Compare(field, operator, literal)),
            other => Err(format!("unknown operator '{other}'")),
        }
    }
}

/// A field of a record, or of a parent that stands in it.
pub fn field<'r>(record: &'r Map<String, Value>, name: &str) -> &'r Value {
    match name.split_once('.') {
        None => record.get(name).unwrap_or(&Value::Null),
        Some((parent, name)) => record.get(parent).and_then(|parent| parent.get(name)).unwrap_or(&Value::Null),
    }
}

impl Condition {
    fn holds(&self, record: &Map<String, Value>) -> bool {
        match self {
            Self::And(a, b) => a.holds(record) && b.holds(record),
            Self::Or(a, b) => a.holds(record) || b.holds(record),
            Self::In(name, texts) => field(record, name).as_str().is_some_and(|id| texts.iter().any(|text| text == id)),
            Self::Compare(name, operator, literal) => {
                let value = field(record, name);
                let ordering = match (literal, value) {
                    (Literal::Flag(flag), Value::Bool(value)) => Some(value.cmp(flag)),
                    (Literal::Text(text), Value::String(value)) => Some(value.as_str().cmp(text)),
                    // `2026-05-01T07:25:37.000+0000` to the second.
                    (Literal::Time(time), Value::String(value)) => {
                        value.get(..19).map(|value| value.cmp(time.as_str()))
                    }
                    _ => None,
                };
                ordering.is_some_and(|ordering| match operator.as_str() {
                    "=" => ordering == Ordering::Equal,
                    "!=" => ordering != Ordering::Equal,
                    ">" => ordering == Ordering::Greater,
                    "<" => ordering == Ordering::Less,
                    ">=" => ordering != Ordering::Less,
                    _ => ordering != Ordering::Greater,
                })
            }
        }
    }
    fn fields(&self, into: &mut Vec<String>) {
        match self {
            Self::And(a, b) | Self::Or(a, b) => {
                a.fields(into);
                b.fields(into);
            }
            Self::Compare(field, _, _) | Self::In(field, _) => into.push(field.clone()),
        }
    }
}

impl Query {
    pub fn read(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens::read(text)?;
        tokens.needs("SELECT")?;
        let fields = tokens.names();
        tokens.needs("FROM")?;
        let object = tokens.next();
        let condition = if tokens.takes("WHERE") { Some(tokens.any()?) } else { None };
        let mut order = Vec::new();
        if tokens.takes("ORDER") {
            tokens.needs("BY")?;
            order = tokens.names();
        }
        let limit = if tokens.takes("LIMIT") { tokens.next().parse().map_err(|_| "no number")? } else { usize::MAX };
        match tokens.peek() {
            "" => Ok(Self { fields, object, condition, order, limit }),
            other => Err(format!("unexpected token: '{other}'")),
        }
    }
    /// Every field that the query names.
    pub fn named(&self) -> Vec<String> {
        let mut all: Vec<String> = self.fields.iter().chain(&self.order).cloned().collect();
        if let Some(condition) = &self.condition {
            condition.fields(&mut all);
        }
        all
    }
    /// The parents whose fields it names.
    pub fn parents(&self) -> BTreeSet<String> {
        self.named().iter().filter_map(|name| Some(name.split_once('.')?.0.to_owned())).collect()
    }
    /// The records that fit, in the query's order, whole.
    pub fn carried_out<'r>(&self, records: impl Iterator<Item = &'r Map<String, Value>>) -> Vec<Map<String, Value>> {
        let fits = |record: &&Map<String, Value>| self.condition.as_ref().is_none_or(|c| c.holds(record));
        let mut found: Vec<Map<String, Value>> = records.filter(fits).cloned().collect();
        let text = |record: &Map<String, Value>, field: &str| record.get(field).map(ToString::to_string);
        found.sort_by(|a, b| {
            let by = |field: &String| text(a, field).cmp(&text(b, field));
            self.order.iter().map(by).find(|ordering| *ordering != Ordering::Equal).unwrap_or(Ordering::Equal)
        });
        found.truncate(self.limit);
        found
    }
}
