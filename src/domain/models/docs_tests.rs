//! `docs/events.md` says what the schemas say: its generated parts are compared, or written with `UPDATE_DOCS=1`.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Catalogue, Field, Model};
use crate::domain::body;
use crate::domain::version::ApiVersion;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md");

fn models(system: bool) -> impl Iterator<Item = &'static Model> {
    Catalogue::embedded().models().iter().filter(move |m| m.system == system)
}

fn field_table(fields: &[Field], says_null: bool) -> String {
    let mut table = "| field | type | meaning |\n| --- | --- | --- |\n".to_owned();
    for field in fields {
        let kind = field.format.as_ref().unwrap_or(&field.kind);
        let null = if says_null && field.nullable { " or null" } else { "" };
        let _ = writeln!(table, "| `{}` | {kind}{null} | {} |", field.path, field.description.replace('|', "\\|"));
    }
    table
}

fn topics(system: bool) -> String {
    let mut table = "| topic | meaning |\n| --- | --- |\n".to_owned();
    for model in models(system) {
        let _ = writeln!(table, "| `{}` | {} |", model.topic, model.description);
    }
    table
}

fn fields(system: bool) -> String {
    let tables = models(system).map(|m| format!("### `{}`\n\n{}", m.topic, field_table(&m.fields, system)));
    tables.collect::<Vec<_>>().join("\n")
}

fn record() -> String {
    let mut out = String::new();
    for (version, schema) in &Catalogue::embedded().envelopes {
        let mut listed = Vec::new();
        super::load::list(schema, "", &mut listed);
        let _ = writeln!(out, "In `{version}`:\n\n{}", field_table(&listed, true));
    }
    out.trim_end().to_owned() + "\n"
}

fn example() -> String {
    let model = Catalogue::embedded().find("crm/contacts").unwrap();
    let bodies = ApiVersion::ALL.iter().map(|version| {
        let body: Value = serde_json::from_slice(&body::example(model, *version)).unwrap();
        format!("`{}` in `{version}`:\n\n```json\n{}\n```\n", model.topic, serde_json::to_string_pretty(&body).unwrap())
    });
    bodies.collect::<Vec<_>>().join("\n")
}

#[test]
fn docs_are_current() {
    let written = std::fs::read_to_string(PATH).unwrap();
    let mut current = String::new();
    let mut rest = written.as_str();
    while let Some((before, after)) = rest.split_once("<!-- generated: ") {
        let (name, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once("<!-- end -->").unwrap();
        let part = match name {
            "record" => record(),
            "example" => example(),
            "data-topics" => topics(false),
            "system-topics" => topics(true),
            "data-fields" => fields(false),
            "system-fields" => fields(true),
            other => panic!("docs/events.md asks for {other}, which nobody makes"),
        };
        let _ = write!(current, "{before}<!-- generated: {name} -->\n\n{part}\n<!-- end -->");
        rest = after;
    }
    current.push_str(rest);
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    if update {
        std::fs::write(PATH, current).unwrap();
    } else {
        assert!(written == current, "run: UPDATE_DOCS=1 cargo test --release --lib -- docs_are_current");
    }
}
