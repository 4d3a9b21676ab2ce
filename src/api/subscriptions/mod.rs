//! `/one/webhooks`: subscriptions, made, shown, changed and deleted.
//!
//! Always true: the same address, topics and scope is there once; a change never loses what is queued; a new
//! subscription sees what is committed after it; each change rings the router and the lane. Not here: what may be asked
//! for (`check`), `enable`, `rotate` and `test` (`acts`), sending again (`replays`), the same under other names (`hooks`).

mod acts;
mod auth;
mod check;
pub(super) mod hooks;
pub(super) mod replays;
mod shape;
mod target;

use self::auth::AuthView;
use self::check::Context;
pub(super) use self::shape::status_from;
use self::shape::{ChangedSubscription, NewSubscription, OneSubscription, Subscriptions, view};
use self::target::Target;
pub(super) use self::target::{DeletesWord, ShapeWord, shape_of};
use super::call::{Call, not_found, user_of};
use super::cascade::{self, Touched};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use super::shapes::Deleted;
use crate::destinations::http::sign::HmacKey;
use crate::domain::destination::Shape;
use crate::domain::id::{ConnectionId, LaneNo, SubscriptionId, WorkspaceNo};
use crate::domain::subscription::{Halt, HeaderValues, SigningSecret, SigningSecrets, Subscription, WhileDisabled};
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Slot, Tx};

const ALL: &str = "/{version}/one/webhooks";
const ONE: &str = "/{version}/one/webhooks/{subscriptionId}";

pub(super) fn routes() -> Vec<Route> {
    let scope = [
        Param { name: "userId", about: "Of this user: id or username." },
        Param { name: "connectionId", about: "Of this connection." },
    ];
    let mut routes = vec![
        Route::post(ALL, "Subscribe an address or a destination to topics", create)
            .query(&scope)
            .takes::<NewSubscription>()
            .gives::<OneSubscription>(),
        Route::get(ALL, "List subscriptions; up to 1,000 if no `limit` is asked for", list)
            .query(PAGED)
            .query(&scope)
            .gives::<Subscriptions>(),
        Route::get(ONE, "Show a subscription with its queue", show).gives::<OneSubscription>(),
        Route::patch(ONE, "Change a subscription (JSON merge patch)", change)
            .takes::<ChangedSubscription>()
            .gives::<OneSubscription>(),
        Route::delete(ONE, "Delete a subscription and cancel what it is owed", delete).gives::<Deleted>(),
    ];
    routes.extend(acts::routes());
    group("subscriptions", routes)
}

/// The subscription that the path means.
fn find(rows: &Rows, workspace: WorkspaceNo, id: SubscriptionId) -> Result<Subscription> {
    rows.subscription(workspace, id)?.ok_or_else(|| not_found(Code::SubscriptionNotFound, &id.to_string()))
}

fn id_of(call: &Call) -> Result<SubscriptionId> {
    call.id("subscriptionId", Code::SubscriptionNotFound)
}

/// Tells router and lane that a subscription was made or changed.
fn ring(call: &Call, lane: LaneNo) {
    Touched { lanes: vec![lane], ..Touched::default() }.ring(&call.state);
}

fn refuse_rival(rows: &Rows, subscription: &Subscription) -> Result<()> {
    let Some(first) = rows.rival(subscription)? else { return Ok(()) };
    let first = SubscriptionId(first);
    let message = format!(
        "subscription {first} has this address, these topics and this scope already, and each event would come twice; \
         change that one, or delete it first"
    );
    Err(Error::new(Code::Conflict, message))
}

fn blank(tx: &mut Tx<'_>, context: &Context, address: String, topics: Vec<String>) -> Result<Subscription> {
    let (now, defaults) = (tx.now(), &context.options.subscription);
    Ok(Subscription {
        id: SubscriptionId(tx.fresh_id()?),
        workspace: context.workspace,
        lane: tx.next_lane()?,
        address,
        topics,
        is_enabled: true,
        halt: Halt::No,
        user: None,
        connection: None,
        api_version: context.version,
        description: String::new(),
        update_types: Vec::new(),
        include: Vec::new(),
        while_disabled: WhileDisabled::Hold,
        expires_at: None,
        max_in_flight: defaults.max_in_flight,
        timeout_seconds: defaults.timeout_seconds,
        retry_schedule: None,
        header_names: Vec::new(),
        signing: defaults.signing,
        from: tx.next_seq()?,
        created_at: now,
        updated_at: now,
        ordered: false,
        coalesce: false,
        rate_milli: None,
        filter: None,
        hook: None,
        destination: None,
        shape: Shape::Append,
    })
}

async fn create(call: Call) -> Result<Reply> {
    let asked = call.json::<NewSubscription>()?;
    let backfill = asked.backfill;
    let (address, topics, mut settings) = asked.split();
    let target = Target::of(address, settings.destination_id.take())?;
    match &target {
        Target::Address(address) => check::address(&call, address)?,
        Target::Destination(_) => {}
    }
    if backfill && matches!(target, Target::Address(_)) {
        return Err(Error::invalid("backfill: this is for subscriptions with a `destinationId`"));
    }
    // Alloy's clients narrow a subscription by query parameters.
    if settings.user_id.is_none() {
        settings.user_id = call.query("userId").map(|text| Some(text.to_owned()));
    }
    if settings.connection_id.is_none() {
        settings.connection_id = call.query("connectionId").map(|text| Some(text.to_owned()));
    }
    let context = Context::of(&call)?;
    let secret = HmacKey::generate()?;
    let change = move |tx: &mut Tx<'_>| {
        let topics = check::topics(tx, &context, &topics)?;
        let mut made = blank(tx, &context, String::new(), topics)?;
        let is_http = target.lay(tx, &mut made)?;
        let mut headers = HeaderValues::default();
        target::refuse_auth(&made, settings.auth.as_ref())?;
        let auth = auth::apply(settings.auth.take(), None)?;
        check::apply(tx, &context, settings, &mut made, &mut headers)?;
        auth::check(auth.as_ref(), &headers)?;
        refuse_rival(tx, &made)?;
        tx.put_object(&made)?;
        let text = is_http.then(|| secret.expose().to_owned());
        let all = text.iter().map(|text| SigningSecret { text: text.clone(), until: None }).collect();
        tx.put_secret(&made.id.0, Slot::SigningSecrets, &SigningSecrets { all })?;
        tx.put_secret(&made.id.0, Slot::HeaderValues, &headers)?;
        auth::put(tx, made.id, auth.as_ref())?;
        let begun = backfill.then(|| tx.begin_backfill(made.lane, made.from)).transpose()?;
        let mut subscription = view(tx, &made, tx.now())?;
        subscription.auth = auth.as_ref().map(AuthView::of);
        subscription.backfill = begun.map(Into::into);
        subscription.secret = text;
        Ok((Reply::json(&OneSubscription { subscription })?, made.lane))
    };
    let (reply, lane) = call.change(change).await?;
    ring(&call, lane);
    Ok(reply)
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page, now) = (call.workspace()?, Paging::of_alloy_list(&call)?, call.now());
    let before = page.before_exactly::<12>()?.map(|id| id.to_vec());
    let user = call.query("userId").map(str::to_owned);
    let connection = call.query_id::<ConnectionId>("connectionId", Code::ConnectionNotFound)?;
    let read = move |rows: &Rows| {
        let before = before.as_deref();
        let user = user.map(|text| user_of(rows, workspace, &text)).transpose()?.map(|user| user.id);
        let mut found = match (connection, user) {
            (Some(id), _) => rows.children::<Subscription>(&id.0, before, page.limit)?,
            (None, Some(id)) => rows.children(&id.0, before, page.limit)?,
            (None, None) => rows.subscriptions(workspace, before, page.limit)?,
        };
        // A connection of another workspace has no subscriptions here.
        found.items.retain(|s| s.workspace == workspace && user.is_none_or(|user| s.user == Some(user)));
        let subscriptions = found.items.iter().map(|s| view(rows, s, now)).collect::<Result<_>>()?;
        Reply::json(&Subscriptions { subscriptions, next: found.next.map(paging::next) })
    };
    call.read(read).await
}

async fn show(call: Call) -> Result<Reply> {
    let (workspace, id, now) = (call.workspace()?, id_of(&call)?, call.now());
    let read = move |rows: &Rows| {
        let subscription = view(rows, &find(rows, workspace, id)?, now)?;
        Reply::json(&OneSubscription { subscription })
    };
    call.read(read).await
}

async fn change(call: Call) -> Result<Reply> {
    let (address, topics, mut settings) = call.json::<ChangedSubscription>()?.split();
    if let Some(address) = &address {
        check::address(&call, address)?;
    }
    let (context, id) = (Context::of(&call)?, id_of(&call)?);
    let change = move |tx: &mut Tx<'_>| {
        let mut changed = find(tx, context.workspace, id)?;
        let delivered = changed.delivers(tx.now());
        let mut headers: HeaderValues = tx.secret(&id.0, Slot::HeaderValues)?.unwrap_or_default();
        if let Some(topics) = topics {
            changed.topics = check::topics(tx, &context, &topics)?;
        }
        let mut kept = auth::stored(tx, id)?;
        if let Some(address) = address {
            target::refuse(&changed, "address")?;
            kept = auth::kept_for(&address, &changed.address, settings.auth.as_ref(), kept)?;
            changed.address = address;
        }
        target::refuse_auth(&changed, settings.auth.as_ref())?;
        let auth = auth::apply(settings.auth.take(), kept)?;
        check::apply(tx, &context, settings, &mut changed, &mut headers)?;
        auth::check(auth.as_ref(), &headers)?;
        refuse_rival(tx, &changed)?;
        changed.updated_at = tx.now();
        tx.put_object(&changed)?;
        if !delivered && changed.delivers(tx.now()) {
            tx.count_failures_anew(changed.lane)?;
        }
        tx.put_secret(&id.0, Slot::HeaderValues, &headers)?;
        auth::put(tx, id, auth.as_ref())?;
        let mut subscription = view(tx, &changed, tx.now())?;
        subscription.auth = auth.as_ref().map(AuthView::of);
        Ok((Reply::json(&OneSubscription { subscription })?, changed.lane))
    };
    let (reply, lane) = call.change(change).await?;
    ring(&call, lane);
    Ok(reply)
}

async fn delete(call: Call) -> Result<Reply> {
    let (workspace, id) = (call.workspace()?, id_of(&call)?);
    let change = move |tx: &mut Tx<'_>| {
        let mut touched = Touched::default();
        cascade::subscription(tx, &find(tx, workspace, id)?, &mut touched)?;
        Ok((Reply::json(&Deleted::new("subscriptionId", id))?, touched))
    };
    let (reply, touched) = call.change(change).await?;
    touched.ring(&call.state);
    Ok(reply)
}
