//! What an app must be told so that it tells of changes, where that is several things: one subscription per topic, say.
//! A connector declares which shall be there, how the app lists them, makes one and takes one away; here the rest follows.
//!
//! Always true: what is there already is not made again, so a renewal makes what the app has dropped and no more; one that
//! was there before us stays in the end where the connector says so; one that is refused keeps no other from being made.
//! Not here: when they are made, renewed and taken away (the watcher), webhooks that are one thing (`connectors::hooks`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth_files::OAuth2File;
use super::compile::Builder;
use super::folder::SpecError;
use super::hooks::Told;
use super::mapping::{Env, Mapping, truthy};
use super::record::id_text;
use super::rest::{BODY_VARIABLES, CallRest};
use super::spec::{Method, OwnWebhook, lacking};
use super::template::Template;
use super::yaml::Placed;
use super::{CallError, Session};
use crate::domain::json::Json;

/// The most that one connection may want of one kind.
const WANTED_MAX: usize = 250;

/// `webhook/subscriptions/<kind>/spec.yml`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SubscriptionsFile {
    /// Parameters without which there are none of this kind.
    #[serde(default)]
    needs: Vec<String>,
    /// Who makes them, where it is not the account itself.
    by: Option<By>,
    /// What shall be there: an expression that makes a list of objects. One whose `when` does not hold is left out.
    #[schemars(with = "super::schemas::Expression")]
    wanted: Placed,
    /// What tells one from another, over one that is wanted or listed as `$`.
    #[schemars(with = "super::schemas::Expression")]
    name: Placed,
    /// The app's own name of one that is listed; `name` where it is not said.
    #[schemars(with = "Option<super::schemas::Expression>")]
    id: Option<Placed>,
    /// Members of one that is wanted which a listed one must have; of lists, all items. Otherwise it is made anew.
    #[serde(default)]
    covers: Vec<String>,
    /// What was there before stays when the webhook is taken away.
    #[serde(default)]
    leave_found: bool,
    /// Statuses of `make` that cost that one alone, as long as any is there.
    #[serde(default)]
    optional: Vec<u16>,
}

/// A client of the app's own, by whose token subscriptions are made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct By {
    /// Where the token is asked for (client credentials).
    token: OAuth2File,
    /// Where the calls go; to the account's base URI where it is not said.
    at: Option<Template>,
}

/// One kind of subscriptions at the app.
#[derive(Debug)]
pub(super) struct Subscriptions {
    /// The folder's name.
    pub(super) key: String,
    /// Parameters without which there are none.
    pub(super) needs: Vec<String>,
    by: Option<By>,
    wanted: Mapping,
    name: Mapping,
    id: Option<Mapping>,
    covers: Vec<String>,
    leave_found: bool,
    optional: Vec<u16>,
    list: Method<CallRest>,
    make: Method<CallRest>,
    remove: Method<CallRest>,
}

/// What stands at the app, as the webhook's state keeps it: by kind.
type State = BTreeMap<String, Standing>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    subscriptions: Vec<One>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct One {
    name: String,
    id: String,
    /// It was there before us.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    found: bool,
}

/// One that the app shows.
struct Listed {
    one: One,
    members: Value,
}

fn one_kind(builder: &Builder<'_>, dir: &str, key: &str) -> Result<Subscriptions, SpecError> {
    let dir = format!("{dir}/{key}");
    let path = format!("{dir}/spec.yml");
    let file: SubscriptionsFile = builder.yaml(&path)?;
    let expression = |name: &str, placed: &Placed| {
        Mapping::compile(&path, placed, BODY_VARIABLES).map_err(|error| error.field(name))
    };
    let call = |name: &str| match builder.call(&format!("{dir}/{name}"))? {
        method @ (Method::Rest(_) | Method::Script(_)) => Ok(method),
        _ => Err(SpecError::in_file(format!("{dir}/{name}.rest.yml"), "the file is missing (or .graphql.yml, .js)")),
    };
    Ok(Subscriptions {
        key: key.to_owned(),
        needs: file.needs,
        by: file.by,
        wanted: expression("wanted", &file.wanted)?,
        name: expression("name", &file.name)?,
        id: file.id.as_ref().map(|id| expression("id", id)).transpose()?,
        covers: file.covers,
        leave_found: file.leave_found,
        optional: file.optional,
        list: call("list")?,
        make: call("make")?,
        remove: call("remove")?,
    })
}

impl Subscriptions {
    /// `<dir>/subscriptions/*`.
    pub(super) fn all(builder: &Builder<'_>, dir: &str) -> Result<Vec<Self>, SpecError> {
        let dir = format!("{dir}/subscriptions");
        builder.folder.children(&dir).into_iter().map(|key| one_kind(builder, &dir, key)).collect()
    }
    /// Its calls, each with the name of its file in the webhook's folder.
    pub(super) fn calls(&self) -> impl Iterator<Item = (String, &Method<CallRest>)> {
        let calls = [("list", &self.list), ("make", &self.make), ("remove", &self.remove)];
        calls.into_iter().map(|(name, call)| (format!("subscriptions/{}/{name}", self.key), call))
    }
    /// The list that an expression makes, item by item with its name.
    fn named(&self, list: Value, variables: &[(&str, &Value)]) -> Result<Vec<(String, Value)>, CallError> {
        let items = match list {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            _ => return Err(CallError::BadAnswer(format!("the {} are not a list", self.key))),
        };
        let named = items.into_iter().filter_map(|item| {
            let name = self.name.eval(&Env::new(&Json::from(&item), variables));
            Some((id_text(&Json::from(&name))?, item))
        });
        Ok(named.collect())
    }
    /// Whether it is taken away in the end.
    fn is_ours(&self, one: &One) -> bool {
        !(one.found && self.leave_found)
    }
    fn is_covered(&self, wanted: &Value, listed: &Value) -> bool {
        self.covers.iter().all(|member| has(&listed[member], &wanted[member]))
    }
}

/// Whether what an app has holds what is wanted.
fn has(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (_, Value::Null) => true,
        (Value::Array(there), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| there.iter().any(|there| has(there, wanted)))
        }
        (Value::Object(_), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| has(&there[name], wanted)),
        _ => there == wanted,
    }
}

impl Session {
    /// Makes what is missing, and takes away what was made and is no longer wanted; answers the webhook's new state.
    ///
    /// # Errors
    /// The app's or a script's failure; `Refused` names what the app would not make, when the others were made.
    pub(super) async fn make_subscriptions(
        &self,
        hook: &OwnWebhook,
        uri: &str,
        former: Option<&Value>,
    ) -> Result<Value, CallError> {
        let mut former: State = former.and_then(|state| State::deserialize(state).ok()).unwrap_or_default();
        let mut state = State::new();
        for kind in self.kinds(hook) {
            let former = former.remove(&kind.key).unwrap_or_default();
            state.insert(kind.key.clone(), self.talk(kind, uri).await?.make_missing(former).await?);
        }
        serde_json::to_value(&state).map_err(|error| CallError::BadAnswer(format!("the state cannot be kept: {error}")))
    }
    /// Takes away what the state names.
    ///
    /// # Errors
    /// The app's or a script's failure.
    pub(super) async fn remove_subscriptions(
        &self,
        hook: &OwnWebhook,
        uri: &str,
        state: &Value,
    ) -> Result<(), CallError> {
        let mut state = State::deserialize(state).unwrap_or_default();
        for kind in self.kinds(hook) {
            let standing = state.remove(&kind.key).unwrap_or_default();
            let talk = self.talk(kind, uri).await?;
            for one in standing.subscriptions.iter().filter(|one| kind.is_ours(one)) {
                talk.remove(one).await?;
            }
        }
        Ok(())
    }
    /// Those whose parameters are set.
    fn kinds<'h>(&'h self, hook: &'h OwnWebhook) -> impl Iterator<Item = &'h Subscriptions> {
        hook.life.subscriptions.iter().filter(|kind| lacking(&kind.needs, self.parameters()).is_none())
    }
    async fn talk<'s>(&'s self, kind: &'s Subscriptions, uri: &'s str) -> Result<Talk<'s>, CallError> {
        let app = match (&kind.by, self.journal_at(uri)) {
            (Some(by), _) => Some(self.as_app(&by.token, by.at.as_ref()).await?),
            (None, Some(journal)) => Some(self.as_app(&journal.token, None).await?),
            (None, None) => None,
        };
        Ok(Talk { session: self, app, kind, uri })
    }
}

/// The calls for one kind: as the account, or with a token of the app's own.
struct Talk<'s> {
    session: &'s Session,
    app: Option<Session>,
    kind: &'s Subscriptions,
    uri: &'s str,
}

impl Talk<'_> {
    async fn make_missing(&self, former: Standing) -> Result<Standing, CallError> {
        let wanted = self.wanted()?;
        let listed = self.listed(&former).await?;
        let mut standing = Standing::default();
        let mut failed: Option<(u16, Vec<String>)> = None;
        for (name, wish) in &wanted {
            let same: Vec<&Listed> = listed.iter().filter(|listed| listed.one.name == *name).collect();
            if same.iter().any(|listed| self.kind.is_covered(wish, &listed.members)) {
                standing.subscriptions.extend(same.iter().map(|listed| listed.one.clone()));
                continue;
            }
            match self.make((name, wish), &same).await {
                Ok(one) => standing.subscriptions.push(one),
                Err(CallError::Refused { status, message }) => {
                    let told = format!("{name}: {message}");
                    tracing::info!(kind = self.kind.key, told, "the app refused a subscription");
                    if self.kind.optional.contains(&status) {
                        standing.refused.push(told);
                    } else {
                        failed.get_or_insert((status, Vec::new())).1.push(told);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((status, told)) = failed {
            // Those that were made are heard; as long as one is missing, the polls go on as if there were none.
            return Err(CallError::Refused { status, message: told.join("; ") });
        }
        if standing.subscriptions.is_empty() && !standing.refused.is_empty() {
            let message = format!("none of them: {}", standing.refused.join("; "));
            return Err(CallError::Refused { status: 403, message });
        }
        let stands = |one: &One| standing.subscriptions.iter().any(|standing| standing.id == one.id);
        for one in former.subscriptions.iter().filter(|one| self.kind.is_ours(one) && !stands(one)) {
            self.remove(one).await?;
        }
        Ok(standing)
    }
    /// What shall be there.
    fn wanted(&self) -> Result<Vec<(String, Value)>, CallError> {
        let (webhook, fields) =
            (self.session.webhook_variable(&Told::at(self.uri)), self.session.names_by_collection());
        let mut variables = self.session.caller.variables();
        variables.extend([("webhook", &webhook), ("fields", &fields)]);
        let mut wanted = self.kind.named(self.kind.wanted.eval(&Env::of(&variables)), &variables)?;
        wanted.retain_mut(|(_, wish)| {
            let when = wish.as_object_mut().and_then(|wish| wish.remove("when"));
            when.is_none_or(|when| truthy(&Json::from(&when)))
        });
        if wanted.len() > WANTED_MAX {
            let message = format!("{} {} are wanted, {WANTED_MAX} at most", wanted.len(), self.kind.key);
            return Err(CallError::BadAnswer(message));
        }
        Ok(wanted)
    }
    /// What the app has; made by us, where the former state says so.
    async fn listed(&self, former: &Standing) -> Result<Vec<Listed>, CallError> {
        let list = self.call(Told::at(self.uri), &self.kind.list, "list").await?;
        let variables = self.session.caller.variables();
        let mut listed = Vec::new();
        for (name, members) in self.kind.named(list, &variables)? {
            let id = match &self.kind.id {
                None => Some(name.clone()),
                Some(id) => id_text(&Json::from(&id.eval(&Env::new(&Json::from(&members), &variables)))),
            };
            let Some(id) = id else { continue };
            let found = !former.subscriptions.iter().any(|one| one.id == id && !one.found);
            listed.push(Listed { one: One { name, id, found }, members });
        }
        Ok(listed)
    }
    /// Makes one in place of those that do not cover what is wanted.
    async fn make(&self, (name, wish): (&str, &Value), instead: &[&Listed]) -> Result<One, CallError> {
        let make = || {
            let told = Told::of(self.uri, wish.clone());
            self.call(told, &self.kind.make, "make")
        };
        let made = match make().await {
            // The one that is there stands in its way.
            Err(CallError::Refused { status: 409, .. }) if !instead.is_empty() => {
                for former in instead {
                    self.remove(&former.one).await?;
                }
                make().await?
            }
            answer => answer?,
        };
        if let Some(message) = made.get("error").and_then(Value::as_str).filter(|told| !told.is_empty()) {
            return Err(CallError::Refused { status: 200, message: message.to_owned() });
        }
        let id = made.get("id").and_then(|id| id_text(&Json::from(id))).unwrap_or_else(|| name.to_owned());
        // It may be the same one, which was only changed.
        for former in instead.iter().filter(|former| former.one.id != id) {
            self.remove(&former.one).await?;
        }
        Ok(One { name: name.to_owned(), id, found: false })
    }
    /// One that is not there counts as taken away.
    async fn remove(&self, one: &One) -> Result<(), CallError> {
        let told = Told::of(self.uri, json!({ "id": one.id, "name": one.name }));
        match self.call(told, &self.kind.remove, "unsubscribe").await {
            Ok(_) | Err(CallError::Refused { status: 404 | 410, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
    async fn call(&self, told: Told<'_>, method: &Method<CallRest>, name: &str) -> Result<Value, CallError> {
        self.session.call_hook(self.app.as_ref(), told, method, name).await
    }
}
