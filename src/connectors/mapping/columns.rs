//! `$columns`: the columns of a query, without those that the account lacks.
//!
//! Always true: a column is dropped only if it names one that is lacking, whole; commas inside of brackets and quotes part
//! nothing. Not here: who learns which are lacking (`connectors::lacks`).

use serde_json::Value;

/// The columns in a text, each with a comma before it, without those that name one of `lacks` (in lower case).
pub fn kept(text: &str, lacks: &Value) -> String {
    let is_lacking = |word: &str| {
        let mut names = lacks.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.any(|name| name.eq_ignore_ascii_case(word))
    };
    let columns = parted(text).into_iter().filter(|column| !words(column).any(&is_lacking));
    columns.fold(String::new(), |mut all, column| {
        all.push_str(", ");
        all.push_str(column);
        all
    })
}

/// The parts between the outermost commas, trimmed; empty ones are left out.
fn parted(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start, mut found) = (0_u32, false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth = depth.saturating_add(1),
            ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                found.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.extend(text.get(start..));
    found.into_iter().map(str::trim).filter(|column| !column.is_empty()).collect()
}

/// The names in a column: neither what is in quotes nor the name that it is given.
fn words(column: &str) -> impl Iterator<Item = &str> {
    let bare = column.split('\'').step_by(2);
    let all = bare.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_')).filter(|w| !w.is_empty());
    let mut is_alias = false;
    all.filter(move |word| {
        let skip = is_alias;
        is_alias = word.eq_ignore_ascii_case("AS");
        !skip
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: &str = "t.tranid, TO_CHAR(t.duedate, 'YYYY, memo') AS due, BUILTIN.DF(t.status) AS statusname,t.status , t.memo AS note";

    #[test]
    fn a_column_that_names_a_lacking_one_is_dropped_whole() {
        assert_eq!(kept("t.a, t.b", &Value::Null), ", t.a, t.b");
        let expected =
            ", t.tranid, TO_CHAR(t.duedate, 'YYYY, memo') AS due, BUILTIN.DF(t.status) AS statusname, t.status";
        assert_eq!(kept(ALL, &json!(["memo"])), expected);
        assert_eq!(
            kept(ALL, &json!(["STATUS", "duedate"])),
            ", t.tranid, t.memo AS note",
            "with all that is made of it"
        );
        assert_eq!(kept("t.a, t.b", &json!(["a", "b"])), "");
    }

    #[test]
    fn neither_a_part_of_a_name_nor_a_text_nor_a_given_name_is_meant() {
        let text = "t.statusname, 'status', t.x AS status";
        assert_eq!(kept(text, &json!(["status"])), ", t.statusname, 'status', t.x AS status");
    }
}
