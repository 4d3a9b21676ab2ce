//! What an app cannot give, said outright by its connector: topics in `spec.yml`, methods by `*.not-supported` files.
//!
//! Always true: a topic that is said to be absent is one of the catalogue's, and no collection brings it. Not here: how
//! what is there is noticed (`spec::Detects`).

use super::auth_files::Names;
use super::folder::SpecError;
use super::spec::{Collection, Method, OwnWebhook};
use crate::domain::models::Catalogue;
use crate::domain::topic;

/// One thing that the app cannot give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// A topic, or the name of a method.
    pub what: String,
    /// One sentence; empty where a method's file says nothing.
    pub reason: String,
}

/// The topics under `notSupported` of `spec.yml`.
pub fn topics(said: &Names, collections: &[Collection]) -> Result<Vec<Absent>, SpecError> {
    let wrong = |topic: &str, message: String| {
        Err(SpecError::in_file("spec.yml", message).field(format!("notSupported.{topic}")))
    };
    let mut absent = Vec::new();
    for (name, reason) in &said.0 {
        if let Some(collection) = collections.iter().find(|c| c.topic == *name) {
            return wrong(name, format!("the collection {} brings this topic", collection.key));
        }
        if Catalogue::embedded().data(name).is_none() {
            let all: Vec<&str> =
                Catalogue::embedded().models().iter().filter(|m| !m.system).map(|m| m.topic.as_str()).collect();
            let near = topic::near(name, &all);
            let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
            return wrong(name, format!("unknown topic{hint}"));
        }
        if reason.trim().is_empty() {
            return wrong(name, "say in a sentence why".to_owned());
        }
        absent.push(Absent { what: name.clone(), reason: reason.trim().to_owned() });
    }
    Ok(absent)
}

impl Collection {
    /// The methods that the app cannot give, each with its reason.
    pub fn not_supported(&self) -> Vec<Absent> {
        let all = [
            said("pull", &self.pull),
            said("scan", &self.scan),
            said("deleted", &self.deleted),
            said("fetch", &self.fetch),
            said("fields", &self.fields),
        ];
        all.into_iter().flatten().collect()
    }
}

impl OwnWebhook {
    /// The methods that the app cannot give, each with its reason.
    pub fn not_supported(&self) -> Vec<Absent> {
        let all = [
            said("subscribe", &self.life.subscribe),
            said("refresh", &self.life.refresh),
            said("unsubscribe", &self.life.unsubscribe),
        ];
        all.into_iter().flatten().collect()
    }
}

fn said<R>(name: &str, method: &Method<R>) -> Option<Absent> {
    match method {
        Method::NotSupported(reason) => Some(Absent { what: name.to_owned(), reason: reason.clone() }),
        _ => None,
    }
}
