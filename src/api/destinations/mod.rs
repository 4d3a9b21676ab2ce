//! `/one/destinations`: databases, warehouses, object stores, queues and files that subscriptions write into.
//!
//! Always true: settings are judged by their kind before they are stored; secret ones are stored encrypted and never come
//! out again; a name is there once in a workspace; one that subscriptions write into is not deleted; each change ends a
//! pause and rings the lanes. Not here: what settings may be and what secrets may follow (`settings`), the tests (`test`).

pub(super) mod settings;
mod shape;
pub(super) mod test;

use self::settings::Split;
use self::shape::{ChangedDestination, DestinationTypes, Destinations, NewDestination, OneDestination, types, view};
pub(super) use self::shape::{exported, paused};
use super::call::{Call, not_found, user_of};
use super::cascade::Touched;
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use super::shapes::{Deleted, name_of};
use super::state::State;
use crate::domain::destination::Destination;
use crate::domain::id::{DestinationId, UserId, WorkspaceNo};
use crate::domain::models::system::{Subject, SystemEvent};
use crate::domain::subscription::Subscription;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

const ALL: &str = "/{version}/one/destinations";
const ONE: &str = "/{version}/one/destinations/{destinationId}";
/// Subscriptions that are named when they stand in the way.
const NAMED_MAX: usize = 5;
/// Lanes that are rung in one step after a change.
const RING_STEP: usize = 250;
/// Destinations of one user, so that the connect page cannot fill the store.
pub(super) const PER_USER_MAX: usize = 50;

pub(super) fn routes() -> Vec<Route> {
    let of_user = [Param { name: "userId", about: "Of this user: id or username." }];
    let mut routes = vec![
        // Before the one with an id in the same place.
        Route::get("/{version}/one/destinations/types", "What events can be written into", list_types)
            .query(PAGED)
            .gives::<DestinationTypes>(),
        Route::post(ALL, "Set a destination up", create).takes::<NewDestination>().gives::<OneDestination>(),
        Route::get(ALL, "List destinations", list).query(PAGED).query(&of_user).gives::<Destinations>(),
        Route::get(ONE, "Show a destination", show).gives::<OneDestination>(),
        Route::patch(ONE, "Change a destination (JSON merge patch)", change)
            .takes::<ChangedDestination>()
            .gives::<OneDestination>(),
        Route::delete(ONE, "Delete a destination that no subscription writes into", delete).gives::<Deleted>(),
    ];
    routes.extend(test::routes());
    group("destinations", routes)
}

/// The destination of that id in the workspace.
pub(super) fn find(rows: &Rows, workspace: WorkspaceNo, id: DestinationId) -> Result<Destination> {
    rows.destination(workspace, id)?.ok_or_else(|| not_found(Code::DestinationNotFound, &id.to_string()))
}

fn id_of(call: &Call) -> Result<DestinationId> {
    call.id("destinationId", Code::DestinationNotFound)
}

async fn list_types(call: Call) -> Result<Reply> {
    let (types, next) = paging::cut(types(&call.state), &Paging::of(&call)?)?;
    Reply::json(&DestinationTypes { types, next })
}

/// What a new destination is made of, its settings judged.
pub(super) struct Wanted {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) split: Split,
}

/// Puts a new one, if its name is free.
pub(super) fn put_new(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    id: DestinationId,
    user: Option<UserId>,
    wanted: Wanted,
) -> Result<Destination> {
    let now = tx.now();
    let made = Destination {
        id,
        workspace,
        kind: wanted.kind,
        name: wanted.name,
        settings: wanted.split.open_text(),
        secret_names: wanted.split.secret_names(),
        user,
        revision: 1,
        pause: None,
        created_at: now,
        updated_at: now,
    };
    if let Some(user) = user
        && tx.children::<Destination>(&user.0, None, PER_USER_MAX)?.items.len() >= PER_USER_MAX
    {
        let message = format!("this user has {PER_USER_MAX} destinations; delete some first");
        return Err(Error::new(Code::Conflict, message));
    }
    refuse_rival(tx, &made)?;
    tx.put_object(&made)?;
    wanted.split.put_secret(tx, id)?;
    Ok(made)
}

/// A fresh id, before anything is stored under it: a driver is opened with the id that it will have.
pub(super) async fn fresh_id(state: &State) -> Result<DestinationId> {
    state.store.append(crate::store::Wait::Applied, |tx| tx.fresh_id().map(DestinationId)).await
}

/// A destination as it would be, for its kind to judge.
pub(super) async fn judge(state: &State, of: &Destination, split: &Split) -> Result<()> {
    let as_it_would_be = Destination { settings: split.open_text(), ..of.clone() };
    let judged = state.outlet.judge_destination(&as_it_would_be, &split.secret).await;
    judged.map_err(|error| split.scrub(error))
}

/// A destination that is not there yet.
pub(super) fn draft(workspace: WorkspaceNo, id: DestinationId, kind: &str) -> Destination {
    let now = crate::domain::time::Millis(0);
    Destination {
        id,
        workspace,
        kind: kind.to_owned(),
        name: String::new(),
        settings: String::new(),
        secret_names: Vec::new(),
        user: None,
        revision: 0,
        pause: None,
        created_at: now,
        updated_at: now,
    }
}

fn refuse_rival(rows: &Rows, destination: &Destination) -> Result<()> {
    let Some(first) = rows.rival(destination)? else { return Ok(()) };
    let (first, name) = (DestinationId(first), &destination.name);
    let message = format!("name: destination {first} is called `{name}` already; use another name, or change that one");
    Err(Error::new(Code::Conflict, message))
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<NewDestination>()?, call.workspace()?);
    let kind = settings::kind(&asked.kind)?;
    let name = name_of("name", &asked.name)?;
    let mut split = Split::default();
    split.lay(kind, &asked.settings)?;
    let id = fresh_id(&call.state).await?;
    judge(&call.state, &draft(workspace, id, kind.name), &split).await?;
    let change = move |tx: &mut Tx<'_>| {
        let user = asked.user_id.as_deref().filter(|text| !text.is_empty());
        let user = user.map(|text| user_of(tx, workspace, text)).transpose()?.map(|user| user.id);
        let wanted = Wanted { kind: kind.name.to_owned(), name, split };
        let made = put_new(tx, workspace, id, user, wanted)?;
        Ok((Reply::json(&OneDestination { destination: view(&made)? })?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    Ok(reply)
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of(&call)?);
    let before = page.before_exactly::<12>()?.map(|id| id.to_vec());
    let user = call.query("userId").map(str::to_owned);
    let read = move |rows: &Rows| {
        let found = match user.map(|text| user_of(rows, workspace, &text)).transpose()? {
            Some(user) => rows.children::<Destination>(&user.id.0, before.as_deref(), page.limit)?,
            None => rows.destinations(workspace, before.as_deref(), page.limit)?,
        };
        let destinations = found.items.iter().map(view).collect::<Result<_>>()?;
        Reply::json(&Destinations { destinations, next: found.next.map(paging::next) })
    };
    call.read(read).await
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    let read = move |rows: &Rows| Reply::json(&OneDestination { destination: view(&find(rows, workspace, id)?)? });
    call.read(read).await
}

async fn change(call: Call) -> Result<Reply> {
    let (asked, workspace, id) = (call.json::<ChangedDestination>()?, call.workspace()?, id_of(&call)?);
    let name = asked.name.as_deref().map(|name| name_of("name", name)).transpose()?;
    let read = move |rows: &Rows| {
        let found = find(rows, workspace, id)?;
        let stored = Split::stored(rows, &found)?;
        Ok((found, stored))
    };
    let (found, mut split) = call.read(read).await?;
    if let Some(given) = &asked.settings {
        let kind = settings::kind(&found.kind)?;
        split.refuse_following(kind, given)?;
        split.lay(kind, given)?;
        judge(&call.state, &found, &split).await?;
    }
    let change = move |tx: &mut Tx<'_>| {
        let mut changed = find(tx, workspace, id)?;
        if changed.revision != found.revision {
            return Err(Error::new(Code::Conflict, "the destination was changed meanwhile; ask again"));
        }
        changed.name = name.unwrap_or(changed.name);
        changed.settings = split.open_text();
        changed.secret_names = split.secret_names();
        changed.revision = changed.revision.saturating_add(1);
        changed.updated_at = tx.now();
        let told = resume(tx, &mut changed)?;
        refuse_rival(tx, &changed)?;
        tx.put_object(&changed)?;
        split.put_secret(tx, id)?;
        Ok((Reply::json(&OneDestination { destination: view(&changed)? })?, told))
    };
    let (reply, told) = call.change(change).await?;
    if told {
        call.state.rings.router();
    }
    ring_all(&call, id).await?;
    Ok(reply)
}

/// Ends a pause, and tells of it; whether there was one.
fn resume(tx: &mut Tx<'_>, of: &mut Destination) -> Result<bool> {
    let Some(pause) = of.pause.take() else { return Ok(false) };
    let user = of.user.map(|id| tx.user_by_id(of.workspace, id)).transpose()?.flatten();
    let now = tx.now();
    let told =
        SystemEvent::DestinationResumed { destination: (&*of).into(), paused_since: pause.since, resumed_at: now };
    let event = told.event(Subject::Destination(of, user.as_ref()), now);
    tx.append_event(&event)?;
    Ok(true)
}

/// Wakes all lanes that write there: what could not be written may be now.
async fn ring_all(call: &Call, id: DestinationId) -> Result<()> {
    let state = call.state.clone();
    call.read(move |rows| {
        let mut before: Option<Vec<u8>> = None;
        loop {
            let page = rows.children::<Subscription>(&id.0, before.as_deref(), RING_STEP)?;
            let lanes = page.items.iter().map(|subscription| subscription.lane).collect();
            Touched { lanes, ..Touched::default() }.ring(&state);
            match page.next {
                Some(next) => before = Some(next),
                None => return Ok(()),
            }
        }
    })
    .await
}

async fn delete(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    let change = move |tx: &mut Tx<'_>| {
        let gone = find(tx, workspace, id)?;
        let users = tx.children::<Subscription>(&id.0, None, NAMED_MAX)?;
        if !users.items.is_empty() {
            let named: Vec<String> = users.items.iter().map(|s| s.id.to_string()).collect();
            let more = if users.next.is_some() { " and others" } else { "" };
            let message = format!(
                "subscriptions {}{more} write into this destination; delete them, or give them another one, first",
                named.join(", ")
            );
            return Err(Error::new(Code::Conflict, message));
        }
        tx.delete_object(&gone)?;
        Ok((Reply::json(&Deleted::new("destinationId", id))?, ()))
    };
    let (reply, ()) = call.change(change).await?;
    Ok(reply)
}
