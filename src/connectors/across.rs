//! What is checked across the files of a connector's folder.
//!
//! Always true: a name that leads nowhere, a way of noticing that nothing can do, and a file that would never be asked for
//! are errors. Not here: what one file says (`connectors::compile_parts`).

use super::spec::{Collection, Connector, Detection, Detects, Method, OfCollection, WebhookBody};
use super::{EVERYTHING, SpecError, budgets};

/// What holds between the parts.
pub fn across(connector: &Connector) -> Result<(), SpecError> {
    if let Some((field, message)) = connector.wrong_auth() {
        return Err(SpecError::in_file("spec.yml", message).field(field));
    }
    check_webhooks(connector)?;
    if let Some((field, message)) = connector.nameless_column() {
        return Err(SpecError::in_file("spec.yml", message).field(field));
    }
    for (index, collection) in connector.collections.iter().enumerate() {
        let wrong = |field: &str, message: String| {
            Err(SpecError::in_file(format!("data/{}/spec.yml", collection.key), message).field(field))
        };
        if let Some(other) = connector.collections[..index].iter().find(|other| other.topic == collection.topic) {
            return wrong("topic", format!("the collection {} has the topic {} already", other.key, other.topic));
        }
        if let Some((kind, needed)) = unfounded(connector, collection) {
            return wrong(&format!("detects.{kind}"), needed.to_owned());
        }
        if let Some(why) = loose_bulk(connector, collection) {
            return Err(SpecError::in_file(format!("data/{}/bulk.graphql.yml", collection.key), why));
        }
        if let Some(why) = loose_ties(collection) {
            return Err(SpecError::in_file(format!("data/{}/ties", collection.key), why));
        }
        if let Some(why) = loose_touched(collection) {
            return Err(SpecError::in_file(format!("data/{}/touched", collection.key), why));
        }
    }
    for collection in &connector.collections {
        let partial = matches!(&collection.pull, Method::Rest(list) if list.partial);
        if partial && !collection.fetch.is_there() {
            let path = format!("data/{}/pull.rest.yml", collection.key);
            return Err(SpecError::in_file(path, "a list of partial records needs fetch").field("partial"));
        }
    }
    for event in &connector.events {
        if let Some(OfCollection::Key(key)) = &event.collection
            && connector.collection(key).is_none()
            && key != EVERYTHING
        {
            let path = format!("events/{}/spec.yml", event.key);
            return Err(SpecError::in_file(path, format!("there is no collection {key:?}")).field("collection"));
        }
    }
    budgets::known(connector)
}

/// Why a large first sync could not be one operation.
fn loose_bulk(connector: &Connector, collection: &Collection) -> Option<&'static str> {
    match collection.has_bulk() {
        true if connector.bulk.is_none() => Some("it needs bulk/start and bulk/status"),
        true if collection.each.is_some() => Some("a collection that is walked for each of some values cannot have it"),
        true if !collection.cursor.incremental => Some("it belongs to a pull that takes `since` and shows updatedAt"),
        true if !collection.joins.is_empty() => {
            Some("a collection with joins cannot have it: its file does not show them")
        }
        _ => None,
    }
}

/// Why a list of ties would never be asked for.
fn loose_ties(collection: &Collection) -> Option<&'static str> {
    match collection.lists_ties() {
        true if !collection.cursor.incremental => Some("ties belong to a pull that takes `since` and shows updatedAt"),
        true if collection.cursor.breaks_ties => Some("cursor.breaksTies says that pull itself goes on after an id"),
        _ => None,
    }
}

/// Why a list of touched records would lose some, or never be asked for.
fn loose_touched(collection: &Collection) -> Option<&'static str> {
    let sorted_by_parts = match &collection.touched {
        Method::Rest(list) => list.is_nested() && list.is_bounded(),
        Method::Script(_) => false,
        Method::Map(_) | Method::NotSupported(_) | Method::Missing => return None,
    };
    match sorted_by_parts {
        _ if !collection.cursor.incremental => Some("it belongs to a pull that takes `since` and shows updatedAt"),
        _ if collection.each.is_some() => Some("a collection that is walked for each of some values cannot have it"),
        false => {
            Some("it is a list of parts since a time: with `item` for what it is sorted by, and the records inside")
        }
        true => None,
    }
}

/// What webhooks say of parameters.
fn check_webhooks(connector: &Connector) -> Result<(), SpecError> {
    let (own, schema) = (connector.webhook.as_ref(), &connector.parameters);
    if let Some(name) = own.and_then(|own| own.needs.iter().find(|name| schema.property(name).is_none())) {
        return Err(SpecError::in_file("webhook/spec.yml", format!("there is no parameter {name:?}")).field("needs"));
    }
    own.map_or(Ok(()), |own| own.life.check("webhook", schema))?;
    for hook in &connector.global_webhooks {
        let dir = format!("global-webhooks/{}", hook.key);
        hook.account().map_or(Ok(()), |account| account.life.check(&dir, schema))?;
        if let Some((field, message)) = hook.journal.as_ref().and_then(|journal| journal.fault(connector)) {
            return Err(SpecError::in_file(format!("global-webhooks/{}/spec.yml", hook.key), message).field(field));
        }
    }
    let own = own.map(|own| ("webhook/spec.yml".to_owned(), own.instructions.as_ref()));
    let global = connector.global_webhooks.iter();
    let global = global.map(|hook| (format!("global-webhooks/{}/spec.yml", hook.key), hook.instructions.as_ref()));
    for (path, instructions) in own.into_iter().chain(global) {
        if let Some(fault) = instructions.and_then(|instructions| instructions.fault(schema)) {
            return Err(SpecError::in_file(path, fault).field("instructions"));
        }
    }
    Ok(())
}

/// A way of noticing that nothing in the folder can do, and what it needs.
fn unfounded(connector: &Connector, collection: &Collection) -> Option<(&'static str, &'static str)> {
    let Detects { created, updated, deleted } = collection.detects;
    let lacks = |way: Detection, is_delete: bool| match way {
        Detection::Webhook if connector.webhook.is_none() => Some("webhook needs webhook/spec.yml"),
        Detection::GlobalWebhook if connector.global_webhooks.is_empty() => {
            Some("global-webhook needs global-webhooks/")
        }
        Detection::Pull if is_delete && !collection.deleted.is_there() && !collection.flags_deleted() => {
            Some("pull needs deleted.rest.yml, deleted.js, or record.deleted")
        }
        Detection::Pull if !is_delete && !collection.pulls() => Some("pull needs pull.rest.yml or pull.js"),
        Detection::FullScan if is_delete && collection.scans_nested() => {
            Some("full-scan needs a list of the records themselves, not of what they are inside of")
        }
        Detection::FullScan if !collection.scans() => Some("full-scan needs scan.rest.yml, scan.js, or pull"),
        _ => None,
    };
    let hinted = matches!(created, Detection::Webhook | Detection::GlobalWebhook)
        && collection.webhook_body == WebhookBody::Hint
        && !collection.fetches()
        && !collection.pulls();
    let all =
        [("created", lacks(created, false)), ("updated", lacks(updated, false)), ("deleted", lacks(deleted, true))];
    all.into_iter()
        .find_map(|(kind, needed)| needed.map(|needed| (kind, needed)))
        .or_else(|| hinted.then_some(("created", "a webhook that is only a hint needs fetch or pull")))
}
