//! Rows of a mirror, before any database sees them: no app's own field takes the place of one of ours, nothing is lost.

use serde_json::{Value, json};
use tidemill::destinations::rows::{self, Cell, EXTRA, Names, SEQ};
use tidemill::domain::destination::{Deletes, Shape};
use tidemill::domain::event::Event;

use crate::support::batches;

/// The only row of an event: what stands in a column.
fn row(event: Event) -> impl Fn(&str) -> Cell {
    let batch = batches::batch(1, Shape::Mirror(Deletes::Mark), 41, vec![event]);
    let written = rows::written(&batch, &Names::default());
    let (table, mut rows) = written.tables.into_iter().next().unwrap();
    let cells = rows.remove(0).cells;
    move |name| cells[table.columns.iter().position(|column| column.name == name).unwrap()].clone()
}

fn extra(row: &impl Fn(&str) -> Cell) -> Value {
    let Cell::Json(text) = row(EXTRA) else { panic!("nothing is kept") };
    serde_json::from_str(&text).unwrap()
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

#[test]
fn no_field_of_an_app_stands_in_for_a_key_or_a_sequence() {
    let own = json!({
        "remote_id": "2", "connectionId": "other", "_seq": 99, "_event_id": "x", "deletedAt": "2020-01-01T00:00:00Z",
        "_extra": {"a": 1}, "user_id": "u", "first_name": "B",
    });
    let mut fields = own.clone();
    fields["firstName"] = json!("A");
    let row = row(batches::event("crm/contacts", "created", "1", fields));
    assert_eq!((row("remote_id"), row("connection_id")), (text("1"), text(&batches::CONNECTION.to_string())));
    assert_eq!((row(SEQ), row("deleted_at")), (Cell::Integer(41), Cell::Null));
    // Two fields that one column could be called after: the model's has it.
    assert_eq!(row("first_name"), text("A"));
    assert_eq!(extra(&row), own);
}

#[test]
fn what_is_published_under_a_built_in_topic_is_all_there() {
    let row = row(batches::custom("crm/contacts", r#"{"id":"7","firstName":"A","mood":1.50}"#));
    assert_eq!((row("remote_id"), row("first_name")), (text("7"), text("A")));
    assert_eq!(extra(&row).to_string(), r#"{"mood":1.50}"#);
}
