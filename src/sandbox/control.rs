//! `/control`: what tests do to the app, and what they read from it. Without authentication: the sandbox is a toy.
//!
//! | call | |
//! | --- | --- |
//! | `POST /control/changes` | `{"count"?, "account"?, "collection"?, "kind"?, "id"?, "fields"?}`: changes now → `{"changes": […]}` |
//! | `POST·GET·DELETE /control/answers` | wrong answers for the next requests, see `faults` |
//! | `GET·PATCH /control/settings` | see [`Settings`] |
//! | `GET /control/records` | `?account=&collection=`: every record, with totals |
//! | `GET /control/log` | `?after=`: the latest changes |
//! | `GET /control/counts` | requests by path, webhooks by fate |
//! | `POST /control/tokens/expire` | every access token is worthless from now on |
//! | `PUT /control/accounts/{id}/key` | `{"key"}`: the old key is refused from now on |

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::app::App;
use super::faults::Fault;
use super::refusal::Refusal;
use super::stream;
use super::table::Collection;
use super::world::{Change, Kind, Settings, World};
use crate::domain::time::Millis;

/// Changes of one call.
const CHANGES_MAX: u32 = 10_000;

/// The routes of `/control`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/control/changes").route(web::post().to(change)))
        .service(
            web::resource("/control/answers")
                .route(web::get().to(answers))
                .route(web::post().to(add_answer))
                .route(web::delete().to(clear_answers)),
        )
        .service(
            web::resource("/control/settings").route(web::get().to(settings)).route(web::patch().to(patch_settings)),
        )
        .service(web::resource("/control/records").route(web::get().to(records)))
        .service(web::resource("/control/log").route(web::get().to(log)))
        .service(web::resource("/control/counts").route(web::get().to(counts)))
        .service(web::resource("/control/tokens/expire").route(web::post().to(expire_tokens)))
        .service(web::resource("/control/accounts/{id}/key").route(web::put().to(rotate_key)));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// 1 if absent.
    count: Option<u32>,
    /// Any if absent.
    account: Option<String>,
    collection: Option<Collection>,
    kind: Option<Kind>,
    id: Option<String>,
    fields: Option<Map<String, Value>>,
}

async fn change(app: web::Data<App>, wish: web::Json<Wish>) -> Result<HttpResponse, Refusal> {
    let count = wish.count.unwrap_or(1);
    if !(1..=CHANGES_MAX).contains(&count) {
        return Err(Refusal::invalid(format!("count is 1 to {CHANGES_MAX}")));
    }
    let mut changes = Vec::new();
    for _ in 0..count {
        changes.extend(app.change(|world, rng, now| make(world, rng, &wish, now))?);
    }
    Ok(HttpResponse::Ok().json(json!({"changes": changes})))
}

fn make(world: &mut World, rng: &mut fastrand::Rng, wish: &Wish, now: Millis) -> Result<Vec<Change>, Refusal> {
    let place = match &wish.account {
        Some(id) => world.find(id)?,
        None => rng.usize(..world.accounts.len().max(1)),
    };
    let Some(kind) = wish.collection else { return stream::happen(world, rng, place, now) };
    let first = world.account(place)?.table(kind)?.rows().keys().next().cloned();
    let id = wish.id.clone().or(first).unwrap_or_default();
    let change = match (wish.kind, &wish.fields) {
        (None, _) => return stream::happen_in(world, rng, place, now, kind),
        (Some(Kind::Created), fields) => {
            let made = super::seed::record(rng, world.account(place)?, kind);
            world.create(place, kind, fields.clone().unwrap_or(made), now)
        }
        (Some(Kind::Updated), Some(fields)) => world.patch(place, kind, &id, fields.clone(), now),
        (Some(Kind::Updated), None) => return stream::happen_in(world, rng, place, now, kind),
        (Some(Kind::Deleted), _) => world.delete(place, kind, &id, now),
    };
    Ok(vec![change?])
}

async fn answers(app: web::Data<App>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"answers": app.faults(|faults| faults.list().to_vec())}))
}

async fn add_answer(app: web::Data<App>, fault: web::Json<Fault>) -> Result<HttpResponse, Refusal> {
    app.faults(|faults| faults.add(fault.into_inner()))?;
    Ok(answers(app).await)
}

async fn clear_answers(app: web::Data<App>) -> HttpResponse {
    app.faults(|faults| faults.clear());
    answers(app).await
}

async fn settings(app: web::Data<App>) -> HttpResponse {
    HttpResponse::Ok().json(app.read(|world, _| world.settings.clone()))
}

async fn patch_settings(app: web::Data<App>, patch: web::Json<Map<String, Value>>) -> Result<HttpResponse, Refusal> {
    let patched = app.change(|world, _, _| {
        let mut all = serde_json::to_value(&world.settings).unwrap_or_default();
        for (name, value) in patch.into_inner() {
            all[name] = value;
        }
        let patched: Settings = serde_json::from_value(all).map_err(|e| Refusal::invalid(e.to_string()))?;
        world.settings = patched.clone();
        Ok::<_, Refusal>(patched)
    })?;
    Ok(HttpResponse::Ok().json(patched))
}

#[derive(Deserialize)]
struct RecordsQuery {
    account: Option<String>,
    collection: Option<Collection>,
}

async fn records(app: web::Data<App>, query: web::Query<RecordsQuery>) -> Result<HttpResponse, Refusal> {
    let answer = app.read(|world, _| {
        let mut accounts = Map::new();
        for account in world.accounts.iter().filter(|a| query.account.as_ref().is_none_or(|id| *id == a.id)) {
            let mut tables = Map::new();
            for kind in Collection::ALL.into_iter().filter(|k| query.collection.is_none_or(|wanted| wanted == *k)) {
                let rows = account.table(kind)?.rows();
                let shown: Vec<_> = rows.values().map(|record| record.to_json(kind)).collect();
                tables.insert(kind.plural().into(), json!({"total": rows.len(), "records": shown}));
            }
            accounts.insert(account.id.clone(), Value::Object(tables));
        }
        Ok::<_, Refusal>(json!({"number": world.number(), "accounts": accounts}))
    })?;
    Ok(HttpResponse::Ok().json(answer))
}

#[derive(Deserialize)]
struct LogQuery {
    #[serde(default)]
    after: u64,
}

async fn log(app: web::Data<App>, query: web::Query<LogQuery>) -> HttpResponse {
    let changes: Vec<Change> =
        app.read(|world, _| world.log().iter().filter(|change| change.number > query.after).cloned().collect());
    HttpResponse::Ok().json(json!({"changes": changes}))
}

async fn counts(app: web::Data<App>) -> HttpResponse {
    let (number, overflowed, grants) = app.read(|world, _| (world.number(), world.overflowed, world.grants.len()));
    let webhooks = &app.webhooks;
    HttpResponse::Ok().json(json!({
        "changes": number,
        "requests": app.requests(),
        "grants": grants,
        "webhooks": {
            "attempted": webhooks.attempted.load(Ordering::Relaxed),
            "accepted": webhooks.accepted.load(Ordering::Relaxed),
            "failed": webhooks.failed.load(Ordering::Relaxed),
            "dropped": webhooks.dropped.load(Ordering::Relaxed),
            "overflowed": overflowed,
        },
    }))
}

async fn expire_tokens(app: web::Data<App>) -> HttpResponse {
    app.change(|world, _, _| world.grants.expire());
    HttpResponse::NoContent().finish()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    key: String,
}

async fn rotate_key(
    app: web::Data<App>,
    account: web::Path<String>,
    body: web::Json<NewKey>,
) -> Result<HttpResponse, Refusal> {
    if !(8..=128).contains(&body.key.len()) {
        return Err(Refusal::invalid("key has 8 to 128 characters"));
    }
    app.change(|world, _, _| {
        let place = world.find(&account)?;
        if let Some(account) = world.accounts.get_mut(place) {
            account.key = body.into_inner().key;
        }
        Ok::<_, Refusal>(())
    })?;
    Ok(HttpResponse::NoContent().finish())
}
