//! One record by its id.
//!
//! Always true: a record that the app does not have is None, not an error. Not here: when one is fetched (the watcher).

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::lists::Ask;
use super::mapping::Env;
use super::session::{is_gone, unsupported};
use super::spec::Method;
use super::{AppRecord, CallError, Collection, Part, PullQuery, Session};

impl Session {
    /// One record. None: the app says that it is gone.
    ///
    /// # Errors
    /// The app's or the script's failure.
    pub async fn fetch(&self, c: &Collection, remote_id: &str) -> Result<Option<AppRecord>, CallError> {
        for part in self.parts(c)? {
            // Nobody says which of the values a record belongs to.
            if let Some(mut record) = self.fetch_of(c, part.as_ref(), remote_id).await? {
                self.complete(c, std::slice::from_mut(&mut record)).await?;
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
    async fn fetch_of(
        &self,
        c: &Collection,
        part: Option<&Part>,
        remote_id: &str,
    ) -> Result<Option<AppRecord>, CallError> {
        let record = json!({ "id": remote_id });
        let each = part.map(Part::variable).unwrap_or_default();
        let seen_at = self.caller.clock.now();
        let (fields, told) = (self.fields_variable(c).await?, self.told(c));
        let found = match (&c.fetch, &c.pull) {
            (Method::Rest(fetch), _) => {
                let mut variables = self.caller.variables();
                variables.extend([("record", &record), ("each", &each), ("fields", &fields)]);
                variables.extend(told.variables());
                let outgoing = fetch.request(&Env::of(&variables))?;
                match self.caller.call(outgoing).await {
                    Ok(incoming) => match (fetch.record(&incoming.body)?, &fetch.joins) {
                        (Some(first), Some(joins)) => Some(self.joined(fetch, joins, &record, first).await?),
                        (found, _) => found.map(RawValue::to_owned),
                    },
                    Err(failure) if is_gone(&failure, &fetch.gone) => None,
                    Err(failure) => return Err(failure.error),
                }
            }
            (Method::Script(script), _) => {
                let mut input = Map::from_iter([("record".to_owned(), record)]);
                if part.is_some() {
                    input.insert("each".to_owned(), each);
                }
                if !fields.is_null() {
                    input.insert("fields".to_owned(), fields);
                }
                told.put(&mut input);
                let text = self.run(script, Value::Object(input)).await?;
                RawValue::from_string(text).ok().filter(|raw| raw.get() != "null")
            }
            (Method::Missing, Method::Rest(list)) if list.fetches => {
                let ask = Ask { c, each, record, query: &PullQuery::default(), mark: None };
                let page = Box::pin(self.list_rest(list, ask)).await?;
                return Ok(page.records.into_iter().find(|record| record.remote_id == remote_id));
            }
            (other, _) => return Err(unsupported(other, c, "fetch")),
        };
        let spec = c.record.local(&self.caller.parameters, seen_at)?;
        let mut record = found.map(|raw| spec.read(&raw).map_err(CallError::BadAnswer)).transpose()?;
        self.type_values(c, record.as_mut_slice())?;
        Ok(record)
    }
}
