//! `/hooks`: subscriptions as REST hooks, for iPaaS products that subscribe on behalf of a user.
//!
//! Always true: a key bound to a user makes, sees and deletes that user's hooks and nothing else; another's hook is a
//! 404, the same as one that never existed; the same user, URL and event again gives the hook that is there. Not here:
//! samples and fields (`peek`), the life of what is delivered (`actors::courier`, as of any subscription).

mod peek;
mod shape;

use self::shape::{HookView, Hooks, NewHook};
use super::check::{self, Context};
use super::{blank, ring};
use crate::api::call::{Call, not_found, user_of};
use crate::api::cascade::{self, Touched};
use crate::api::paging::{self, Paging};
use crate::api::reply::Reply;
use crate::api::route::{Access, PAGED, Param, Route, group};
use crate::api::shapes::{Deleted, future};
use crate::api::topics;
use crate::destinations::http::sign::HmacKey;
use crate::domain::failure::Failure;
use crate::domain::hook::{self, HookEvent};
use crate::domain::id::{EventId, SubscriptionId, UserId, WorkspaceNo};
use crate::domain::secret::Secret;
use crate::domain::subscription::{Halt, HeaderValues, Hook, SigningSecret, SigningSecrets, Subscription, wish};
use crate::domain::time::Millis;
use crate::domain::workspace::{Scope, User};
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot, Tx, Wait};

const ALL: &str = "/{version}/hooks";
const ONE: &str = "/{version}/hooks/{hookId}";
/// Subscriptions of one user, so that whoever holds a user's key cannot fill the store.
const PER_USER_MAX: usize = 250;

pub(in crate::api) fn routes() -> Vec<Route> {
    let (reads, writes) = (Access::Hooks(Scope::Read), Access::Hooks(Scope::Write));
    let of_user = [Param { name: "userId", about: "Of this user: id or username. A key bound to a user needs none." }];
    let of_event = [Param { name: "event", about: "As in `POST /hooks`. Required." }];
    let few = [Param { name: "limit", about: "How many at most; 1 to 10, 3 if left out." }];
    let routes = vec![
        Route::post(ALL, "Make a hook, or find the one that is there", create)
            .only(writes)
            .takes::<NewHook>()
            .gives::<HookView>()
            .status(201),
        Route::get(ALL, "List hooks", list).only(reads).query(PAGED).query(&of_user).gives::<Hooks>(),
        Route::get("/{version}/hooks/sample", "What a hook for an event would get", peek::sample)
            .only(reads)
            .query(&of_event)
            .query(&of_user)
            .query(&few)
            .gives::<peek::Samples>(),
        Route::get("/{version}/hooks/fields", "The fields of an event's records, custom ones included", peek::fields)
            .only(reads)
            .query(&of_event)
            .query(&of_user)
            .gives::<topics::Fields>(),
        Route::get(ONE, "Show a hook", show).only(reads).gives::<HookView>(),
        Route::delete(ONE, "Delete a hook", delete).only(writes).gives::<Deleted>(),
    ];
    group("hooks", routes)
}

/// The user that the caller's key is bound to.
fn bound(call: &Call) -> Result<Option<UserId>> {
    let Some(caller) = &call.caller else { return Err(Error::internal("hooks without a caller")) };
    if caller.key.user.is_none() && caller.key.allows(Scope::Hooks) {
        return Err(Error::new(Code::Forbidden, "this key has the scope `hooks`, but is bound to no user"));
    }
    Ok(caller.key.user)
}

/// Whose hooks are meant: of the user that the key is bound to, else of the one that was asked for, else everybody's.
fn whose(rows: &Rows, workspace: WorkspaceNo, bound: Option<UserId>, asked: Option<&str>) -> Result<Option<User>> {
    let Some(id) = bound else { return asked.map(|text| user_of(rows, workspace, text)).transpose() };
    let user = rows.user_by_id(workspace, id)?.ok_or_else(|| not_found(Code::UserNotFound, &id.to_string()))?;
    // Whether anybody else is there is not told.
    if asked.is_some_and(|text| text != user.username && text != user.id.to_string()) {
        return Err(Error::new(Code::Forbidden, "userId: this key is bound to another user"));
    }
    Ok(Some(user))
}

fn event_of(rows: &Rows, workspace: WorkspaceNo, connector_topics: Vec<String>, text: &str) -> Result<HookEvent> {
    let others = topics::others(rows, workspace, connector_topics)?;
    hook::event(text, &others).map_err(|e| Error::new(Code::UnknownTopic, format!("event: {e}")))
}

/// The hook that the path means, if the caller may know of it.
fn find(rows: &Rows, workspace: WorkspaceNo, bound: Option<UserId>, id: SubscriptionId) -> Result<Subscription> {
    let found = rows.subscription(workspace, id)?;
    let found = found.filter(|s| s.hook.is_some() && (bound.is_none() || s.user == bound));
    found.ok_or_else(|| not_found(Code::HookNotFound, &id.to_string()))
}

/// What a hook is to be, after a first look.
struct Wanted {
    user: Option<User>,
    event: HookEvent,
    /// The hook that is there already, with its secret.
    there: Option<Secret>,
}

impl Wanted {
    fn types(&self) -> Vec<String> {
        self.event.update_type.iter().cloned().collect()
    }
    fn wish(&self, address: &str) -> String {
        let topics = std::slice::from_ref(&self.event.topic);
        wish(address, topics, self.user.as_ref().map(|user| user.id), None, Some(&self.types()))
    }
}

fn look(rows: &Rows, context: &Context, asked: &NewHook, bound: Option<UserId>) -> Result<Wanted> {
    let user = whose(rows, context.workspace, bound, asked.user_id.as_deref())?;
    let event = event_of(rows, context.workspace, context.connector_topics.clone(), &asked.event)?;
    let mut wanted = Wanted { user, event, there: None };
    if let Some(there) = rows.subscription_by_wish(context.workspace, wanted.wish(&asked.target_url))? {
        let secrets: Option<SigningSecrets> = rows.secret(&there.id.0, Slot::SigningSecrets)?;
        wanted.there = secrets.and_then(|s| s.all.into_iter().next()).map(|secret| Secret::new(secret.text));
    }
    Ok(wanted)
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, bound, context) = (call.json::<NewHook>()?, bound(&call)?, Context::of(&call)?);
    check::address(&call, &asked.target_url).map_err(|mut error| {
        error.message = error.message.replacen("address:", "target_url:", 1);
        error
    })?;
    let expires_at = asked.expires_at.as_deref().map(|text| future("expiresAt", text, context.now)).transpose()?;
    let (looked, first) = (context.clone(), asked.clone());
    let wanted = call.read(move |rows| look(rows, &looked, &first, bound)).await?;
    let secret = match &wanted.there {
        Some(secret) => secret.clone(),
        None => HmacKey::generate()?,
    };
    if asked.handshake {
        handshake(&call, &asked.target_url, &secret).await?;
    }
    let change = move |tx: &mut Tx<'_>| {
        let there = tx.subscription_by_wish(context.workspace, wanted.wish(&asked.target_url))?;
        let (made, shown, status) = match there {
            Some(_) if asked.handshake && wanted.there.is_none() => {
                return Err(Error::new(Code::Conflict, "the same hook was made at the same time; ask again"));
            }
            Some(there) => (renew(tx, there, expires_at)?, None, 200),
            None => (put_new(tx, &context, &asked, &wanted, &secret, expires_at)?, Some(&secret), 201),
        };
        let view = HookView::of(tx, &made, shown, tx.now())?;
        Ok((Reply::json(&view)?.with_status(status), made.lane))
    };
    let (reply, lane) = call.change(change).await?;
    ring(&call, lane);
    Ok(reply)
}

/// Asking again means that it is wanted: what the engine stopped goes on, and the time is the new one. What the ISV has
/// switched off stays off.
fn renew(tx: &mut Tx<'_>, there: Subscription, expires_at: Option<Millis>) -> Result<Subscription> {
    if there.halt == Halt::No && there.expires_at == expires_at {
        return Ok(there);
    }
    let renewed = Subscription { halt: Halt::No, expires_at, updated_at: tx.now(), ..there };
    tx.put_object(&renewed)?;
    Ok(renewed)
}

fn put_new(
    tx: &mut Tx<'_>,
    context: &Context,
    asked: &NewHook,
    wanted: &Wanted,
    secret: &Secret,
    expires_at: Option<Millis>,
) -> Result<Subscription> {
    let user = match &wanted.user {
        None => None,
        Some(user) => {
            // Deleted since the first look, or with too many of them.
            user_of(tx, context.workspace, &user.id.to_string())?;
            if tx.children::<Subscription>(&user.id.0, None, PER_USER_MAX)?.items.len() >= PER_USER_MAX {
                let message = format!("this user has {PER_USER_MAX} subscriptions; delete some first");
                return Err(Error::new(Code::Conflict, message));
            }
            Some(user.id)
        }
    };
    let blank = blank(tx, context, asked.target_url.clone(), vec![wanted.event.topic.clone()])?;
    let made = Subscription {
        user,
        update_types: wanted.types(),
        include: hook::INCLUDE.to_vec(),
        expires_at,
        hook: Some(Hook { event: asked.event.trim().to_owned() }),
        ..blank
    };
    tx.put_object(&made)?;
    let secrets = SigningSecrets { all: vec![SigningSecret { text: secret.expose().to_owned(), until: None }] };
    tx.put_secret(&made.id.0, Slot::SigningSecrets, &secrets)?;
    tx.put_secret(&made.id.0, Slot::HeaderValues, &HeaderValues::default())?;
    Ok(made)
}

/// Asks the target whether it wants to be a hook: it must answer 2xx and give the secret back.
async fn handshake(call: &Call, address: &str, secret: &Secret) -> Result<()> {
    let busy =
        |_| Error { retry_after: Some(1), ..Error::new(Code::TooManyRequests, "too many handshakes run at once") };
    let _room = call.state.tests.try_acquire().map_err(busy)?;
    let (state, workspace) = (&call.state, call.workspace()?);
    let event = EventId::new(state.store.append(Wait::Applied, |tx| tx.next_seq()).await?, workspace);
    let trial = state.outlet.handshake(event, address, secret, state.options.subscription.signing).await?;
    let failed = |why: String| {
        let message = format!("target_url: it must answer 2xx and send X-Hook-Secret back; {why}");
        Err(Error::new(Code::HandshakeFailed, message))
    };
    match (trial.way.failure, trial.status) {
        (Some(Failure::AddressForbidden), _) => {
            tracing::warn!(address, "a handshake was refused: the address is forbidden");
            Err(Error::new(Code::AddressForbidden, "target_url: the address is not one that events may be sent to"))
        }
        (Some(failure), _) => failed(failure.sentence().to_owned()),
        (None, _) if trial.accepted && trial.hook_secret.as_deref() == Some(secret.expose()) => Ok(()),
        (None, Some(status)) if trial.accepted => failed(format!("it answered {status} without it")),
        (None, Some(status)) => failed(format!("it answered {status}")),
        (None, None) => failed("there was no answer".to_owned()),
    }
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, bound, page, now) = (call.workspace()?, bound(&call)?, Paging::of(&call)?, call.now());
    let before = page.before_exactly::<12>()?.map(|id| id.to_vec());
    let asked = call.query("userId").map(str::to_owned);
    let read = move |rows: &Rows| {
        let user = whose(rows, workspace, bound, asked.as_deref())?;
        let mut found = match &user {
            Some(user) => rows.children::<Subscription>(&user.id.0, before.as_deref(), page.limit)?,
            None => rows.subscriptions(workspace, before.as_deref(), page.limit)?,
        };
        let owner = user.map(|user| user.id);
        found.items.retain(|s| s.hook.is_some() && s.workspace == workspace && (owner.is_none() || s.user == owner));
        let hooks = found.items.iter().map(|s| HookView::of(rows, s, None, now)).collect::<Result<_>>()?;
        Reply::json(&Hooks { hooks, next: found.next.map(paging::next) })
    };
    call.read(read).await
}

fn id_of(call: &Call) -> Result<SubscriptionId> {
    call.id("hookId", Code::HookNotFound)
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, bound, id, now) = (call.workspace()?, bound(&call)?, id_of(&call)?, call.now());
    let read = move |rows: &Rows| {
        let found = find(rows, workspace, bound, id)?;
        Reply::json(&HookView::of(rows, &found, None, now)?)
    };
    call.read(read).await
}

async fn delete(call: Call) -> Result<Reply> {
    let (workspace, bound, id) = (call.workspace()?, bound(&call)?, id_of(&call)?);
    let change = move |tx: &mut Tx<'_>| {
        let mut touched = Touched::default();
        cascade::subscription(tx, &find(tx, workspace, bound, id)?, &mut touched)?;
        Ok((Reply::json(&Deleted::new("id", id))?, touched))
    };
    let (reply, touched) = call.change(change).await?;
    touched.ring(&call.state);
    Ok(reply)
}
