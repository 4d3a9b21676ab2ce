//! Deleting what hangs on something that is deleted: a bounded number of things per commit.
//!
//! Always true: the thing itself goes last, so that a deletion that was cut short is finished by asking again; a deleted
//! connection says so in an event. Not here: taking its webhook away at its app (`actors::watcher::farewell`).

use super::state::State;
use crate::actors::watcher::farewell;
use crate::domain::connection::{Connection, Integration};
use crate::domain::destination::Destination;
use crate::domain::id::{ConnectionId, LaneNo, Seq, WorkspaceNo};
use crate::domain::models::system::{Subject, SystemEvent};
use crate::domain::returns::ReturnUrls;
use crate::domain::subscription::Subscription;
use crate::domain::workspace::{ApiKey, CustomTopic, User, Workspace};
use crate::error::{Code, Error, Result};
use crate::store::{Entity, Page, Slot, Tx};

/// Things deleted in one commit.
const STEP: usize = 50;
/// Steps of one call; more means that others make things as fast as we delete them.
const STEPS_MAX: usize = 100_000;

/// Whom to ring after a commit.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) lanes: Vec<LaneNo>,
    pub(super) owners: Vec<[u8; 12]>,
    pub(super) events: bool,
    /// Something was deleted that nobody waits for.
    pub(super) quiet: bool,
}

impl Touched {
    pub(super) fn ring(&self, state: &State) {
        if !self.lanes.is_empty() {
            state.rings.subscriptions_changed();
        }
        self.lanes.iter().for_each(|lane| state.rings.lane(*lane));
        if !self.owners.is_empty() {
            state.rings.owners_changed();
        }
        self.owners.iter().for_each(|owner| state.rings.owner(*owner));
        if self.events {
            state.rings.router();
        }
    }
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.owners.is_empty() && !self.quiet
    }
}

/// Deletes a subscription with all that it is owed.
pub(super) fn subscription(tx: &mut Tx<'_>, gone: &Subscription, touched: &mut Touched) -> Result<()> {
    tx.delete_object(gone)?;
    tx.erase_lane(gone.lane)?;
    touched.lanes.push(gone.lane);
    Ok(())
}

/// Deletes a connection with its records and webhooks. `reason` is `requested` or `userDeleted`. Subscriptions narrowed
/// to it go first: see [`empty_connection`].
pub(super) fn connection(tx: &mut Tx<'_>, gone: &Connection, reason: &str, touched: &mut Touched) -> Result<()> {
    let tokens: Option<Vec<String>> = tx.secret(&gone.id.0, Slot::WebhookTokens)?;
    for token in tokens.unwrap_or_default() {
        tx.delete_token(&token)?;
    }
    farewell::leave(tx, gone)?;
    let user = tx.user_by_id(gone.workspace, gone.user)?;
    let told = SystemEvent::ConnectionDeleted { connection: gone.into(), reason: reason.to_owned() };
    let event = told.event(Subject::Connection(gone, user.as_ref()), tx.now());
    tx.append_event(&event)?;
    touched.owners.push(gone.id.0);
    touched.events = true;
    Ok(())
}

/// Deletes a step of the subscriptions under a parent.
fn narrowed_step(tx: &mut Tx<'_>, parent: &[u8; 12]) -> Result<Touched> {
    let mut touched = Touched::default();
    for narrowed in tx.children::<Subscription>(parent, None, STEP)?.items {
        subscription(tx, &narrowed, &mut touched)?;
    }
    Ok(touched)
}

/// Deletes a destination of a page, after what writes into it.
fn destinations_step(tx: &mut Tx<'_>, page: Page<Destination>) -> Result<Touched> {
    let Some(gone) = page.items.first() else { return Ok(Touched::default()) };
    let touched = narrowed_step(tx, &gone.id.0)?;
    if !touched.is_empty() {
        return Ok(touched);
    }
    tx.delete_object(gone)?;
    Ok(Touched { quiet: true, ..touched })
}

/// Deletes the subscriptions narrowed to a connection.
pub(super) async fn empty_connection(state: &State, id: ConnectionId) -> Result<()> {
    repeat(state, move |tx| narrowed_step(tx, &id.0)).await
}

/// Repeats a step until nothing is left for it to do.
async fn repeat(
    state: &State,
    step: impl Fn(&mut Tx<'_>) -> Result<Touched> + Send + Sync + Clone + 'static,
) -> Result<()> {
    for _ in 0..STEPS_MAX {
        let step = step.clone();
        let touched = state.store.change(move |tx| step(tx)).await?;
        touched.ring(state);
        if touched.is_empty() {
            return Ok(());
        }
    }
    Err(Error::new(Code::Conflict, "things are made here as fast as they are deleted; stop that and ask again"))
}

/// Deletes what hangs on a user: keys bound to the user, subscriptions narrowed to the user or to the user's connections,
/// connections, destinations.
pub(super) async fn empty_user(state: &State, user: &User) -> Result<()> {
    let id = user.id.0;
    while state.store.change(move |tx| delete_keys(tx, &id)).await? {}
    state.keys.forget_all();
    repeat(state, move |tx| {
        let mut touched = narrowed_step(tx, &id)?;
        if let Some(gone) = tx.children::<Connection>(&id, None, 1)?.items.first()
            && touched.is_empty()
        {
            touched = narrowed_step(tx, &gone.id.0)?;
            if touched.is_empty() {
                connection(tx, gone, "userDeleted", &mut touched)?;
            }
        }
        if touched.is_empty() {
            touched = destinations_step(tx, tx.children(&id, None, 1)?)?;
        }
        Ok(touched)
    })
    .await
}

fn delete_keys(tx: &mut Tx<'_>, user: &[u8; 12]) -> Result<bool> {
    let page = tx.children::<ApiKey>(user, None, STEP)?;
    page.items.iter().try_for_each(|key| tx.delete_object(key))?;
    Ok(!page.items.is_empty())
}

/// Deletes everything in a workspace; its keys first, so that nobody makes new things.
pub(super) async fn empty_workspace(state: &State, workspace: &Workspace) -> Result<()> {
    let no = workspace.no;
    while state.store.change(move |tx| delete_some::<ApiKey>(tx, no)).await? {}
    state.keys.forget_all();
    repeat(state, move |tx| {
        let mut touched = Touched::default();
        for gone in tx.subscriptions(no, None, STEP)?.items {
            subscription(tx, &gone, &mut touched)?;
        }
        if touched.is_empty() {
            for gone in tx.connections(no, None, 1)?.items {
                connection(tx, &gone, "requested", &mut touched)?;
            }
        }
        if touched.is_empty() {
            touched = destinations_step(tx, tx.destinations(no, None, 1)?)?;
        }
        Ok(touched)
    })
    .await?;
    while state.store.change(move |tx| delete_integrations(tx, no)).await? {}
    while state.store.change(move |tx| delete_some::<CustomTopic>(tx, no)).await? {}
    while state.store.change(move |tx| delete_some::<User>(tx, no)).await? {}
    // The events themselves go with their time: the log is one for all.
    state
        .store
        .change(move |tx| {
            tx.drop_erasures(no)?;
            tx.drop_workspace_events(no, Seq(u64::MAX))
        })
        .await
}

fn delete_some<T: Entity>(tx: &mut Tx<'_>, workspace: WorkspaceNo) -> Result<bool> {
    let page = tx.objects::<T>(workspace, None, STEP)?;
    page.items.iter().try_for_each(|object| tx.delete_object(object))?;
    Ok(!page.items.is_empty())
}

fn delete_integrations(tx: &mut Tx<'_>, workspace: WorkspaceNo) -> Result<bool> {
    let page = tx.integrations(workspace, None, STEP)?;
    page.items.iter().try_for_each(|gone| integration(tx, gone))?;
    Ok(!page.items.is_empty())
}

/// Deletes an integration that no connection is left of, with the addresses of its global webhooks.
pub(super) fn integration(tx: &mut Tx<'_>, gone: &Integration) -> Result<()> {
    let tokens: Option<Vec<String>> = tx.secret(&gone.id.0, Slot::WebhookTokens)?;
    for token in tokens.unwrap_or_default() {
        tx.delete_token(&token)?;
    }
    tx.forget_pasted(&gone.id.0)?;
    tx.forget_journals(gone.id)?;
    if let Some(list) = tx.object::<ReturnUrls>(gone.workspace, &gone.id.0)? {
        tx.delete_object(&list)?;
    }
    tx.delete_object(gone)
}
