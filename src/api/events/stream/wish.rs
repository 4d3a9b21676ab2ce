//! Which events of the log a stream carries, and in which shape.
//!
//! Always true: a stream is narrowed as a subscription is, by the same words; a key bound to a user gets that user's
//! events, whatever it asks for.

use crate::api::call::{Call, user_of};
use crate::api::topics;
use crate::domain::body;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, EventId, UserId, WorkspaceNo};
use crate::domain::subscription::Include;
use crate::domain::topic::TopicPattern;
use crate::domain::version::ApiVersion;
use crate::error::{Code, Error, Result};

/// Topics, update types and words of one stream.
const LISTED_MAX: usize = 100;

pub(super) struct Wish {
    pub(super) workspace: WorkspaceNo,
    version: ApiVersion,
    patterns: Vec<TopicPattern>,
    user: Option<UserId>,
    connection: Option<ConnectionId>,
    /// Empty: all.
    update_types: Vec<String>,
    include: Vec<Include>,
}

impl Wish {
    pub(super) async fn of(call: &Call) -> Result<Self> {
        let (workspace, connector_topics) = (call.workspace()?, call.state.connector_topics());
        let (asked, user) = (listed(call, "topic")?, call.query("userId").map(str::to_owned));
        let read = move |rows: &crate::store::Rows| {
            let others = topics::others(rows, workspace, connector_topics)?;
            let parse = |text: &String| {
                TopicPattern::parse(text, &others).map_err(|e| Error::new(Code::UnknownTopic, format!("topic: {e}")))
            };
            let patterns = asked.iter().map(parse).collect::<Result<Vec<_>>>()?;
            let user = user.map(|text| user_of(rows, workspace, &text)).transpose()?.map(|user| user.id);
            Ok((patterns, user))
        };
        let (mut patterns, mut user) = call.read(read).await?;
        if patterns.is_empty() {
            patterns.push(TopicPattern::All);
        }
        let bound = call.caller.as_ref().and_then(|caller| caller.key.user);
        if bound.is_some() && user.is_some() && user != bound {
            return Err(Error::new(Code::Forbidden, "userId: this key is bound to another user"));
        }
        user = bound.or(user);
        Ok(Self {
            workspace,
            version: call.version,
            patterns,
            user,
            connection: call.query_id("connectionId", Code::ConnectionNotFound)?,
            update_types: listed(call, "updateType")?,
            include: listed(call, "include")?.iter().map(|word| include(word)).collect::<Result<_>>()?,
        })
    }

    /// As the router decides for a subscription.
    pub(super) fn takes(&self, event: &Event) -> bool {
        let of_type = self.update_types.is_empty()
            || event.update_type.as_ref().is_some_and(|t| self.update_types.iter().any(|wanted| wanted == t));
        event.workspace == self.workspace
            && (self.user.is_none() || self.user == event.user)
            && (self.connection.is_none() || self.connection == event.connection)
            && of_type
            && (event.unified_change || self.include.contains(&Include::Raw))
            && self.patterns.iter().any(|pattern| pattern.matches(&event.topic))
    }

    /// The body that a webhook would have.
    pub(super) fn render(&self, event: &Event, id: EventId) -> Result<String> {
        String::from_utf8(body::render(event, id, self.version, &self.include)).map_err(Error::internal)
    }
}

/// All values of a parameter that may be given several times, or with commas.
fn listed(call: &Call, name: &str) -> Result<Vec<String>> {
    let values = call.query.iter().filter(|(n, _)| n == name).flat_map(|(_, value)| value.split(','));
    let mut all: Vec<String> = values.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    if all.len() > LISTED_MAX {
        return Err(Error::invalid(format!("{name}: at most {LISTED_MAX}")));
    }
    Ok(all)
}

fn include(word: &str) -> Result<Include> {
    Include::ALL.into_iter().find(|include| include.text() == word).ok_or_else(|| {
        let words: Vec<&str> = Include::ALL.into_iter().map(Include::text).collect();
        Error::invalid(format!("include: use {}", words.join(", ")))
    })
}
