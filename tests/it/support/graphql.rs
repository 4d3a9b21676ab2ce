//! As much of GraphQL as a stand-in app needs: a query is parsed, and what it selects is taken from JSON.
//!
//! Always true: a field that the data does not have is an error, as it is at an app; a list is a connection where `nodes`
//! or `edges` are selected from it; what `@include` leaves out is neither shown nor paid for. Not here: what the root fields
//! hold (`shopify`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A selected field.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub args: BTreeMap<String, Value>,
    pub fields: Vec<Field>,
}

/// The selected root fields, fragments spread. The error is the app's message.
pub fn parse(text: &str, variables: &Value) -> Result<Vec<Field>, String> {
    let tokens = tokens(text)?;
    let mut fragments = BTreeMap::new();
    let mut operation = None;
    let mut at = 0;
    while at < tokens.len() {
        let word = tokens[at].as_str();
        let open = tokens[at..].iter().position(|t| t == "{").ok_or("Expected {")? + at;
        let end = closing(&tokens, open)?;
        let body = tokens[open + 1..end].to_vec();
        match word {
            "fragment" => drop(fragments.insert(tokens[at + 1].clone(), body)),
            "query" | "mutation" | "{" if operation.is_none() => operation = Some(body),
            other => return Err(format!("Unexpected {other}")),
        }
        at = end + 1;
    }
    let mut parser = Parser { fragments: &fragments, variables, spread: 0 };
    let fields = parser.selection(&operation.ok_or("There is no operation")?)?;
    let used = parser.spread;
    if used < fragments.len() {
        return Err("Fragment is defined, but not used".to_owned());
    }
    Ok(fields)
}

fn closing(tokens: &[String], open: usize) -> Result<usize, String> {
    let (left, right) = match tokens[open].as_str() {
        "(" => ("(", ")"),
        "[" => ("[", "]"),
        _ => ("{", "}"),
    };
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        depth += i32::from(token == left) - i32::from(token == right);
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(format!("Expected {right}"))
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => rest[1..].find('"').ok_or("Unterminated string")? + 2,
            '.' if rest.starts_with("...") => 3,
            c if c.is_alphanumeric() || "_-$@".contains(c) => {
                rest.find(|c: char| !c.is_alphanumeric() && !"_-$@.".contains(c)).unwrap_or(rest.len())
            }
            '{' | '}' | '(' | ')' | '[' | ']' | ':' | '!' | '=' => 1,
            other => return Err(format!("Unexpected {other}")),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    }
    Ok(tokens)
}

struct Parser<'a> {
    fragments: &'a BTreeMap<String, Vec<String>>,
    variables: &'a Value,
    spread: usize,
}

impl Parser<'_> {
    fn selection(&mut self, tokens: &[String]) -> Result<Vec<Field>, String> {
        let mut fields = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at] == "..." && tokens.get(at + 1).is_some_and(|next| next == "on") {
                let end = closing(tokens, at + 3)?;
                fields.extend(self.selection(&tokens[at + 4..end])?);
                at = end + 1;
                continue;
            }
            if tokens[at] == "..." {
                let body = self.fragments.get(&tokens[at + 1]).ok_or("No such fragment")?.clone();
                self.spread += 1;
                fields.extend(self.selection(&body)?);
                at += 2;
                continue;
            }
            let mut field = Field { name: tokens[at].clone(), args: BTreeMap::new(), fields: Vec::new() };
            at += 1;
            if tokens.get(at).is_some_and(|token| token == "(") {
                let end = closing(tokens, at)?;
                field.args = self.object(&tokens[at + 1..end])?.into_iter().collect();
                at = end + 1;
            }
            let mut shown = true;
            if tokens.get(at).is_some_and(|token| token == "@include") {
                let end = closing(tokens, at + 1)?;
                shown = self.object(&tokens[at + 2..end])?["if"].as_bool().ok_or("if is of the type Boolean!")?;
                at = end + 1;
            }
            if tokens.get(at).is_some_and(|token| token == "{") {
                let end = closing(tokens, at)?;
                field.fields = self.selection(&tokens[at + 1..end])?;
                at = end + 1;
            }
            fields.extend(Some(field).filter(|_| shown));
        }
        Ok(fields)
    }

    fn object(&self, tokens: &[String]) -> Result<Map<String, Value>, String> {
        let mut object = Map::new();
        let mut at = 0;
        while at < tokens.len() {
            let (name, value) = (tokens[at].clone(), tokens.get(at + 2).ok_or("Expected a value")?);
            if value == "{" {
                let end = closing(tokens, at + 2)?;
                object.insert(name, self.object(&tokens[at + 3..end])?.into());
                at = end + 1;
                continue;
            }
            if value == "[" {
                let end = closing(tokens, at + 2)?;
                let items = tokens[at + 3..end].iter().map(|item| item.trim_matches('"'));
                object.insert(name, items.collect());
                at = end + 1;
                continue;
            }
            let value = match value.strip_prefix('$') {
                Some(variable) => self.variables.get(variable).cloned().unwrap_or_default(),
                None if value.starts_with('"') => value.trim_matches('"').into(),
                None => value.parse::<i64>().map_or_else(|_| value.as_str().into(), Value::from),
            };
            object.insert(name, value);
            at += 3;
        }
        Ok(object)
    }
}

impl Field {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.args.get(name)?.as_str()
    }
    pub fn first(&self) -> Option<u64> {
        self.args.get("first")?.as_u64()
    }
    /// What it costs before it runs: a list as many points as it may have items, and two.
    pub fn cost(&self) -> u64 {
        let inside: u64 = self.fields.iter().map(Self::cost).sum();
        match self.first() {
            Some(first) => 2 + first * (1 + inside),
            None => inside,
        }
    }
    /// What is selected of a value.
    pub fn of(&self, value: &Value) -> Result<Value, String> {
        let narrowed = value.as_array().and_then(|items| self.by_keys(items)).map(Value::Array);
        match narrowed.as_ref().unwrap_or(value) {
            Value::Array(items) if self.fields.iter().any(|field| field.name == "nodes" || field.name == "edges") => {
                let start = self.text("after").and_then(|after| after.parse().ok()).unwrap_or(0);
                let keys: Vec<String> = (1..=items.len()).map(|n| n.to_string()).collect();
                let page: Vec<&Value> = items.iter().skip(start).collect();
                self.connection(&page, &keys[start.min(keys.len())..])
            }
            Value::Array(items) => {
                let first = self.first().map_or(items.len(), |first| usize::try_from(first).expect("small"));
                items.iter().take(first).map(|item| self.of(item)).collect()
            }
            Value::Object(members) if !self.fields.is_empty() => {
                let one = |field: &Self| {
                    let value = members.get(&field.name);
                    let value = value.ok_or_else(|| format!("Field '{}' doesn't exist on type", field.name))?;
                    Ok((field.name.clone(), field.of(value)?))
                };
                self.fields.iter().map(one).collect::<Result<Map<_, _>, String>>().map(Value::Object)
            }
            other if self.fields.is_empty() || other.is_null() => Ok(other.clone()),
            _ => Err(format!("Field '{}' has no fields", self.name)),
        }
    }
    /// The metafields that are asked for by their `keys`, whose own keys then come with their namespace.
    pub fn by_keys(&self, items: &[Value]) -> Option<Vec<Value>> {
        let keys = self.args.get("keys")?.as_array().filter(|keys| !keys.is_empty())?;
        let named = items.iter().map(|item| {
            let key = format!("{}.{}", item["namespace"].as_str().unwrap_or(""), item["key"].as_str().unwrap_or(""));
            let mut item = item.clone();
            item["key"] = key.into();
            item
        });
        Some(named.filter(|item| keys.contains(&item["key"])).collect())
    }
    /// A page of items that stand behind `after`; each with its cursor.
    pub fn connection(&self, items: &[&Value], cursors: &[String]) -> Result<Value, String> {
        let first = usize::try_from(self.first().ok_or("you must provide one of first or last")?).expect("small");
        if first > 250 {
            return Err("first may not be more than 250".to_owned());
        }
        let page = &items[..first.min(items.len())];
        let mut made = Map::new();
        for field in &self.fields {
            let value = match field.name.as_str() {
                "nodes" => page.iter().map(|item| field.of(item)).collect::<Result<_, _>>()?,
                "pageInfo" => field.of(&json!({
                    "hasNextPage": items.len() > first,
                    "endCursor": page.len().checked_sub(1).map(|last| cursors[last].clone()),
                }))?,
                other => return Err(format!("Field '{other}' doesn't exist on type Connection")),
            };
            made.insert(field.name.clone(), value);
        }
        Ok(Value::Object(made))
    }
}
