//! A unified record: what the mapping makes of an app's own record.
//!
//! Always true: `fields` is in the model's order, so equal records have equal bytes. Not here: the mapping
//! (`connectors::mapping`), the diff (`domain::snapshot`).

use uuid::Uuid;

use super::id::ConnectionId;
use super::json::{Json, Members};
use super::time::Millis;

/// The last of a record's fields: what the model has no field for, under the app's own names.
pub const CUSTOM_FIELDS: &str = "customFields";

/// One record in the unified model of its topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Unified<'a> {
    /// The app's own id, always text.
    pub remote_id: String,
    pub remote_created_at: Option<Millis>,
    pub remote_updated_at: Option<Millis>,
    /// The model's fields in the model's order, then `customFields`; no id, no times.
    pub fields: Members<'a>,
}

impl Unified<'_> {
    /// The same for as long as one likes.
    pub fn keep(self) -> Unified<'static> {
        let Self { remote_id, remote_created_at, remote_updated_at, fields } = self;
        Unified { remote_id, remote_created_at, remote_updated_at, fields: fields.keep() }
    }
    /// The names of its custom fields.
    pub fn custom_names(&self) -> impl Iterator<Item = &str> {
        let custom = self.fields.get(CUSTOM_FIELDS).and_then(Json::as_object);
        custom.into_iter().flatten().map(|(name, _)| name.as_ref())
    }
}

/// The namespace of record ids: the bytes of `tidemill.record/`.
const NAMESPACE: Uuid = Uuid::from_bytes(*b"tidemill.record/");

/// `dataPayload.id`: UUIDv5 of (connection, topic, remote id), the same for the same record for ever.
pub fn record_id(connection: ConnectionId, topic: &str, remote_id: &str) -> Uuid {
    let mut name = Vec::with_capacity(14 + topic.len() + remote_id.len());
    name.extend_from_slice(connection.as_bytes());
    name.extend_from_slice(topic.as_bytes());
    // Neither a topic nor hexadecimal holds a zero byte, so no two triples share a name.
    name.push(0);
    name.extend_from_slice(remote_id.as_bytes());
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_its_id_for_ever() {
        let id = record_id(ConnectionId([7; 12]), "crm/contacts", "42");
        assert_eq!(id.to_string(), "b1117da1-8ec5-5a58-b4c1-6a26eeb4dce1");
    }
}
