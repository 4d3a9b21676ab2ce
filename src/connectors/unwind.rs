//! `unwind:` of a list: records that an app keeps inside others, such as the shipments inside orders.
//!
//! Always true: the walk goes by what the list itself shows, so that one without parts does not end it; a part keeps its own
//! members and gets those of `as`. Not here: fetching one part (an app that keeps them inside others has no address for it).

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::CallError;
use super::files::RecordFile;
use super::folder::SpecError;
use super::mapping::path::Path;
use super::mapping::{Env, Mapping};
use super::record::RecordSpec;
use super::yaml::Placed;
use crate::domain::json::Json;

/// Parts of one record.
const PARTS_MAX: usize = 10_000;

/// `unwind:` of a list file.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnwindFile {
    /// Where the parts are: a list in each item.
    path: Path,
    /// What identifies the item, and when it changed.
    parent: RecordFile,
    /// More members of each part, over `$` (the part) and `$parent`.
    #[serde(rename = "as")]
    #[schemars(with = "super::schemas::Expression")]
    members: Placed,
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub struct Unwind {
    path: Path,
    pub parent: RecordSpec,
    members: Mapping,
}

impl Unwind {
    /// Compiles the part of a file.
    pub fn new(file: &str, unwind: &UnwindFile) -> Result<Self, SpecError> {
        let members =
            Mapping::compile(file, &unwind.members, &["parent", "parameters"]).map_err(|e| e.field("unwind.as"))?;
        Ok(Self { path: unwind.path.clone(), parent: RecordSpec::new(&unwind.parent), members })
    }
    /// The parts of one item.
    pub fn parts(&self, item: &RawValue, parameters: &Value) -> Result<Vec<Box<RawValue>>, CallError> {
        let bad = |why: String| CallError::BadAnswer(format!("{} of an item: {why}", self.path));
        let item: Value = serde_json::from_str(item.get()).map_err(|error| bad(error.to_string()))?;
        let parts = match self.path.find(&item) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(parts)) if parts.len() <= PARTS_MAX => parts,
            Some(Value::Array(_)) => return Err(bad(format!("it holds more than {PARTS_MAX} parts"))),
            Some(_) => return Err(bad("it is no list".to_owned())),
        };
        let variables = [("parent", &item), ("parameters", parameters)];
        let whole = |part: &Value| {
            let Value::Object(members) = part else { return Err(bad("a part is no object".to_owned())) };
            let mut members = members.clone();
            if let Value::Object(more) = self.members.eval(&Env::new(&Json::from(part), &variables)) {
                members.extend(more);
            }
            serde_json::value::to_raw_value(&members).map_err(|error| bad(error.to_string()))
        };
        parts.iter().filter(|part| !part.is_null()).map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::yaml;

    fn parts(item: &str) -> Result<Vec<String>, CallError> {
        let file: UnwindFile = yaml::read(
            "pull.rest.yml",
            "{path: $.shipments, parent: {id: $.no}, as: {key: {$concat: [$parent.no, ':', $.id]}, total: $parent.total}}",
        )
        .unwrap();
        let unwind = Unwind::new("pull.rest.yml", &file).unwrap();
        let item = RawValue::from_string(item.to_owned()).unwrap();
        Ok(unwind.parts(&item, &Value::Null)?.into_iter().map(|part| part.get().to_owned()).collect())
    }

    #[test]
    fn a_part_keeps_its_members_and_gets_those_of_its_parent() {
        let found = parts(r#"{"no":"7","total":1.50,"shipments":[{"id":"a","weight":2.0},null,{"id":"b"}]}"#).unwrap();
        assert_eq!(
            found,
            [r#"{"id":"a","weight":2.0,"key":"7:a","total":1.50}"#, r#"{"id":"b","key":"7:b","total":1.50}"#]
        );
    }

    #[test]
    fn no_parts_are_none_and_what_is_no_list_is_said() {
        assert!(parts("{}").unwrap().is_empty());
        assert!(parts(r#"{"shipments":null}"#).unwrap().is_empty());
        assert!(parts(r#"{"shipments":{"id":1}}"#).unwrap_err().to_string().contains("no list"));
        assert!(parts(r#"{"shipments":[1]}"#).unwrap_err().to_string().contains("no object"));
    }
}
