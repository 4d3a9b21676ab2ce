//! Tables of BigQuery: as they should be, and made so.
//!
//! Always true: a table is made with what is missing, and never made anew or emptied; a column of another type is told,
//! not changed. Not here: what stands in the columns (`destinations::rows`).

use serde_json::{Value, json};
use url::Url;

use crate::destinations::driver::{Fault, Verdict};
use crate::destinations::google::{self, Asked, Google};
use crate::destinations::rows::{Column, Table, Type};
use crate::domain::trouble::Trouble;
use crate::outbound::{HeaderValue, Method, header};

/// The type of a column, as `tables.get` names it.
pub fn kind(kind: Type) -> &'static str {
    match kind {
        Type::Id | Type::Key | Type::Text => "STRING",
        Type::Integer => "INTEGER",
        Type::Number => "BIGNUMERIC",
        Type::Boolean => "BOOLEAN",
        Type::Time => "TIMESTAMP",
        Type::Date => "DATE",
        Type::Json => "JSON",
    }
}

fn field(column: &Column) -> Value {
    let mode = if column.nullable { "NULLABLE" } else { "REQUIRED" };
    json!({"name": column.name, "type": kind(column.kind), "mode": mode})
}

/// A table's resource: a log is partitioned by the day of receipt and clustered by topic and connection, a mirror is
/// clustered by its key.
fn resource(project: &str, dataset: &str, table: &Table) -> Value {
    let fields: Vec<Value> = table.columns.iter().map(field).collect();
    let mut resource = json!({
        "tableReference": {"projectId": project, "datasetId": dataset, "tableId": table.name},
        "schema": {"fields": fields},
    });
    let is_log = table.columns.iter().any(|column| column.name == "received_at");
    if let Some(resource) = resource.as_object_mut() {
        if is_log {
            resource.insert("timePartitioning".to_owned(), json!({"type": "DAY", "field": "received_at"}));
            resource.insert("clustering".to_owned(), json!({"fields": ["topic", "connection_id"]}));
        } else {
            resource.insert("clustering".to_owned(), json!({"fields": table.key}));
        }
    }
    resource
}

/// The way to a dataset's tables.
pub struct Tables<'a> {
    pub google: &'a Google,
    pub endpoint: &'a Url,
    pub project: &'a str,
    pub dataset: &'a str,
}

impl Tables<'_> {
    fn url(&self, more: &[&str]) -> Url {
        let mut path = vec!["bigquery", "v2", "projects", self.project, "datasets", self.dataset];
        path.extend(more);
        google::below(self.endpoint, &path, &[])
    }

    /// Where the dataset is.
    ///
    /// # Errors
    /// It is not there, or not to be seen.
    pub async fn location(&self) -> Result<String, Verdict> {
        let dataset = self.google.call(Method::GET, self.url(&[]), None).await?;
        Ok(dataset.get("location").and_then(Value::as_str).unwrap_or("US").to_owned())
    }

    /// Makes the table, or adds the columns that it lacks. Says what was found.
    ///
    /// # Errors
    /// It cannot be made, or it has a column of another type.
    pub async fn ensure(&self, table: &Table) -> Result<String, Verdict> {
        let answer = self.google.send(google::request(Method::GET, self.url(&["tables", &table.name]), None)).await?;
        if answer.status != 404 {
            let found = google::read(&answer, Asked::Setup)?;
            return self.complete(table, &found).await;
        }
        let resource = resource(self.project, self.dataset, table);
        let made = google::request(Method::POST, self.url(&["tables"]), Some(&resource));
        let answer = self.google.send(made).await?;
        if answer.status == 409 {
            // Another lane made it in between.
            let found = self.google.call(Method::GET, self.url(&["tables", &table.name]), None).await?;
            return self.complete(table, &found).await;
        }
        google::read(&answer, Asked::Setup)?;
        Ok(format!("{} was made", table.name))
    }

    async fn complete(&self, table: &Table, found: &Value) -> Result<String, Verdict> {
        let held = found.pointer("/schema/fields").and_then(Value::as_array).cloned().unwrap_or_default();
        let added = missing(table, &held)?;
        let found_there = format!("{} with {} columns", table.name, held.len());
        if added.is_empty() {
            return Ok(found_there);
        }
        let names: Vec<&str> = added.iter().map(|column| column.name.as_str()).collect();
        let note = format!("{found_there}; added {}", names.join(", "));
        let mut fields = held;
        // A column that is added cannot be required (`tables.patch`).
        fields.extend(added.iter().map(|column| field(&Column { nullable: true, ..(*column).clone() })));
        let body = json!({"schema": {"fields": fields}});
        let mut request = google::request(Method::PATCH, self.url(&["tables", &table.name]), Some(&body));
        // If another lane added columns meanwhile, this answer is a 412, and the batch is tried again.
        if let Some(tag) = found.get("etag").and_then(Value::as_str).and_then(|tag| HeaderValue::try_from(tag).ok()) {
            request.headers.push((header::IF_MATCH, tag));
        }
        google::read(&self.google.send(request).await?, Asked::Setup)?;
        Ok(note)
    }

    /// Deletes a table; one that is not there is gone.
    ///
    /// # Errors
    /// It may not be deleted.
    pub async fn delete(&self, name: &str) -> Result<(), Verdict> {
        let answer = self.google.send(google::request(Method::DELETE, self.url(&["tables", name]), None)).await?;
        if answer.status == 404 { Ok(()) } else { google::read(&answer, Asked::Setup).map(drop) }
    }
}

/// The columns that a table lacks.
fn missing<'a>(table: &'a Table, held: &[Value]) -> Result<Vec<&'a Column>, Verdict> {
    let mut missing = Vec::new();
    for column in &table.columns {
        let text = |field: &Value, name: &str| field.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match held.iter().find(|field| text(field, "name").eq_ignore_ascii_case(&column.name)) {
            None => missing.push(column),
            Some(field) if fits(&text(field, "type"), column.kind) && text(field, "mode") != "REPEATED" => {}
            Some(field) => {
                let (name, is, wanted) = (&column.name, text(field, "type"), kind(column.kind));
                let detail = format!("{}: column {name} is {is}, and should be {wanted}", table.name);
                return Err(Verdict::Config(Fault::new(Trouble::TableMismatch, detail)));
            }
        }
    }
    Ok(missing)
}

/// Whether a column of the type `is` takes what ours holds.
fn fits(is: &str, ours: Type) -> bool {
    let also: &[&str] = match ours {
        Type::Integer => &["INT64", "NUMERIC", "BIGNUMERIC"],
        Type::Boolean => &["BOOL"],
        Type::Number | Type::Id | Type::Key | Type::Text | Type::Time | Type::Date | Type::Json => &[],
    };
    is.eq_ignore_ascii_case(kind(ours)) || also.iter().any(|other| is.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::rows::{self, Names};
    use crate::domain::destination::Shape;

    #[test]
    fn a_column_that_is_not_there_is_added_and_one_of_another_type_is_told() {
        let table = rows::table(Shape::Append, "", &Names::default());
        let mut held: Vec<Value> = table.columns.iter().map(field).collect();
        held.pop();
        let added = missing(&table, &held).unwrap();
        assert_eq!(added.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["raw"]);
        held.push(json!({"name": "RAW", "type": "STRING"}));
        assert!(
            matches!(missing(&table, &held), Err(Verdict::Config(fault)) if fault.detail.contains("raw is STRING"))
        );
    }

    #[test]
    fn a_log_is_partitioned_by_its_day_of_receipt() {
        let made = resource("p", "d", &rows::table(Shape::Append, "", &Names::default()));
        assert_eq!(made["timePartitioning"], json!({"type": "DAY", "field": "received_at"}));
        assert_eq!(made["clustering"], json!({"fields": ["topic", "connection_id"]}));
        assert_eq!(made["schema"]["fields"][12], json!({"name": "payload", "type": "JSON", "mode": "NULLABLE"}));
    }
}
