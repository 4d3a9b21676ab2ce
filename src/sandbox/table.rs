//! One collection of one account: its records, the order in which they changed, and what was deleted from it.
//!
//! Always true: ids are of one width, so that they sort the same as text and as numbers; `by_update` has exactly one
//! entry per record; nothing grows past its limit. Not here: who changes a record (`world`), how a list is cut into
//! pages (`paging`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::refusal::Refusal;
use crate::domain::time::Millis;

/// Deletions a collection remembers; older ones are forgotten, as real apps do.
const DELETIONS_MAX: usize = 10_000;
/// Fields of one record.
const FIELDS_MAX: usize = 64;
/// What is left of the number in an id.
const NUMBER_MAX: u32 = 999_999;

/// What kind of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Collection {
    Users,
    Contacts,
    Opportunities,
    Customers,
    Orders,
}

impl Collection {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 5] = [Self::Users, Self::Contacts, Self::Opportunities, Self::Customers, Self::Orders];

    /// As it stands in a path: `contacts`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Contacts => "contacts",
            Self::Opportunities => "opportunities",
            Self::Customers => "customers",
            Self::Orders => "orders",
        }
    }
    /// As it stands in an event's name: `contact`.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Users => "user",
            Self::Contacts => "contact",
            Self::Opportunities => "opportunity",
            Self::Customers => "customer",
            Self::Orders => "order",
        }
    }
    /// The collection of a path segment.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.plural() == text)
    }
    /// Whether lists can be asked for what changed since a time; without it only a full scan sees changes.
    pub fn has_updated_filter(self) -> bool {
        !matches!(self, Self::Users | Self::Opportunities)
    }
    /// Whether a webhook carries the whole record, or only its id and time.
    pub fn webhook_is_complete(self) -> bool {
        !matches!(self, Self::Orders)
    }
    /// Contacts and opportunities have text ids, the others numbers, as apps differ in it.
    fn id(self, number: u32) -> String {
        match self {
            Self::Users => (100_000 + number % 100_000).to_string(),
            Self::Contacts => format!("con_{number:06}"),
            Self::Opportunities => format!("opp_{number:06}"),
            Self::Customers => (2_000_000 + number).to_string(),
            Self::Orders => (3_000_000 + number).to_string(),
        }
    }
    /// The id as it is written in JSON.
    pub fn id_value(self, id: &str) -> Value {
        match self {
            Self::Contacts | Self::Opportunities => Value::from(id),
            Self::Users | Self::Customers | Self::Orders => {
                id.parse::<Number>().map_or_else(|_| Value::from(id), Value::Number)
            }
        }
    }
}

/// One record of the app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub created: Millis,
    pub updated: Millis,
    /// Everything but id and times.
    pub fields: Map<String, Value>,
}

impl Record {
    /// The record as the API shows it.
    pub fn to_json(&self, collection: Collection) -> Value {
        let mut map = Map::with_capacity(self.fields.len() + 3);
        map.insert("id".into(), collection.id_value(&self.id));
        map.extend(self.fields.clone());
        map.insert("created_at".into(), self.created.rfc3339_millis().into());
        map.insert("updated_at".into(), self.updated.rfc3339_millis().into());
        Value::Object(map)
    }
    /// A field that is text.
    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}

/// One collection of one account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Table {
    rows: BTreeMap<String, Record>,
    by_update: BTreeSet<(Millis, String)>,
    deleted: VecDeque<(Millis, String)>,
    drawn: u32,
}

/// What of a table is written to a file.
#[derive(Serialize, Deserialize)]
struct Saved {
    rows: Vec<Record>,
    deleted: VecDeque<(Millis, String)>,
    drawn: u32,
}

impl From<Table> for Saved {
    fn from(table: Table) -> Self {
        Self { rows: table.rows.into_values().collect(), deleted: table.deleted, drawn: table.drawn }
    }
}

impl From<Saved> for Table {
    fn from(saved: Saved) -> Self {
        let by_update = saved.rows.iter().map(|r| (r.updated, r.id.clone())).collect();
        let rows = saved.rows.into_iter().map(|r| (r.id.clone(), r)).collect();
        Self { rows, by_update, deleted: saved.deleted, drawn: saved.drawn }
    }
}

impl Table {
    /// The records by id.
    pub fn rows(&self) -> &BTreeMap<String, Record> {
        &self.rows
    }
    /// When each record changed last, oldest first.
    pub fn by_update(&self) -> &BTreeSet<(Millis, String)> {
        &self.by_update
    }
    /// When each lost record went, oldest first.
    pub fn deleted(&self) -> &VecDeque<(Millis, String)> {
        &self.deleted
    }
    /// The record at a place of the id order.
    pub fn nth(&self, place: usize) -> Option<&Record> {
        self.rows.values().nth(place)
    }

    /// Adds a record. Refused past `records_max` records, ids, or fields.
    pub fn insert(
        &mut self,
        collection: Collection,
        fields: Map<String, Value>,
        at: Millis,
        records_max: usize,
    ) -> Result<&Record, Refusal> {
        if self.rows.len() >= records_max || self.drawn >= NUMBER_MAX {
            return Err(Refusal::full(format!("{} holds all it can", collection.plural())));
        }
        check_fields(&fields)?;
        self.drawn += 1;
        let id = collection.id(self.drawn);
        self.by_update.insert((at, id.clone()));
        let record = Record { id: id.clone(), created: at, updated: at, fields };
        Ok(self.rows.entry(id).or_insert(record))
    }

    /// Merges a patch (JSON merge patch, one level) into a record.
    pub fn patch(&mut self, id: &str, patch: Map<String, Value>, at: Millis) -> Result<&Record, Refusal> {
        let record = self.rows.get_mut(id).ok_or_else(|| Refusal::no_record(id))?;
        let mut fields = record.fields.clone();
        for (name, value) in patch {
            if value.is_null() {
                fields.shift_remove(&name);
            } else {
                fields.insert(name, value);
            }
        }
        check_fields(&fields)?;
        self.by_update.remove(&(record.updated, id.to_owned()));
        record.fields = fields;
        record.updated = at.max(record.updated);
        self.by_update.insert((record.updated, id.to_owned()));
        Ok(record)
    }

    /// Takes a record away and remembers that it went.
    pub fn delete(&mut self, id: &str, at: Millis) -> Result<(), Refusal> {
        let record = self.rows.remove(id).ok_or_else(|| Refusal::no_record(id))?;
        self.by_update.remove(&(record.updated, record.id.clone()));
        if self.deleted.len() >= DELETIONS_MAX {
            self.deleted.pop_front();
        }
        self.deleted.push_back((at, record.id));
        Ok(())
    }
}

fn check_fields(fields: &Map<String, Value>) -> Result<(), Refusal> {
    if fields.len() > FIELDS_MAX {
        return Err(Refusal::invalid(format!("a record has at most {FIELDS_MAX} fields")));
    }
    match ["id", "created_at", "updated_at"].into_iter().find(|name| fields.contains_key(*name)) {
        Some(name) => Err(Refusal::invalid(format!("{name} is set by the app"))),
        None => Ok(()),
    }
}

/// An amount in cents as a JSON number that keeps its two decimals: `59.90`.
pub fn money(cents: i64) -> Value {
    let text = format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100);
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}

/// The cents of such a number; 0 for anything else.
pub fn cents(value: Option<&Value>) -> i64 {
    let Some(Value::Number(number)) = value else { return 0 };
    let text = number.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let part: i64 = format!("{part:0<2}").get(..2).and_then(|p| p.parse().ok()).unwrap_or(0);
    whole.parse::<i64>().unwrap_or(0) * 100 + part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_keeps_its_decimals() {
        assert_eq!(money(5_990).to_string(), "59.90");
        assert_eq!(cents(Some(&money(5_990))), 5_990);
        assert_eq!(money(-5).to_string(), "-0.05");
    }

    #[test]
    fn a_patched_record_moves_rest_of_the_update_order() {
        let mut table = Table::default();
        let at = |n| Millis(n);
        for n in 1..=3 {
            table.insert(Collection::Contacts, Map::new(), at(n), 10).expect("room");
        }
        table.patch("con_000001", Map::from_iter([("a".into(), Value::from(1))]), at(9)).expect("there");
        let order: Vec<_> = table.by_update().iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!(order, ["con_000002", "con_000003", "con_000001"]);
        table.delete("con_000002", at(10)).expect("there");
        assert_eq!(table.deleted().len(), 1);
        assert_eq!(table.by_update().len(), table.rows().len());
    }

    #[test]
    fn a_full_collection_refuses() {
        let mut table = Table::default();
        table.insert(Collection::Users, Map::new(), Millis(1), 1).expect("room");
        assert_eq!(table.insert(Collection::Users, Map::new(), Millis(1), 1).expect_err("full").status, 507);
    }

    #[test]
    fn a_saved_table_reads_back() {
        let mut table = Table::default();
        table.insert(Collection::Orders, Map::from_iter([("total".into(), money(100))]), Millis(1), 10).expect("room");
        table.insert(Collection::Orders, Map::new(), Millis(2), 10).expect("room");
        table.delete("3000002", Millis(3)).expect("there");
        let text = serde_json::to_string(&table).expect("plain data");
        let back: Table = serde_json::from_str(&text).expect("just written");
        assert_eq!(back.rows(), table.rows());
        assert_eq!(back.by_update(), table.by_update());
        assert_eq!(back.deleted(), table.deleted());
        assert!(text.contains("1.00"));
    }
}
