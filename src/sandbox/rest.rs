//! The app's REST API: `/api/{collection}` with lists, single records, deletions and ids.
//!
//! Answers of lists: `{"data": […], "total", "page"?, "pages", "page_size", "next_cursor"}`; `next_cursor` is null on
//! the last page. A record is answered bare. Not here: how a list is cut (`paging`).

use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

use super::app::App;
use super::faults::SamePage;
use super::paging::{self, From, Got, ListQuery, Order, Want};
use super::refusal::Refusal;
use super::table::Collection;
use super::world::World;

/// The routes of `/api`, webhooks aside.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/me").route(web::get().to(me)))
        .service(web::resource("/api/{collection}").route(web::get().to(list)).route(web::post().to(create)))
        .service(web::resource("/api/{collection}/deleted").route(web::get().to(deleted)))
        .service(web::resource("/api/{collection}/ids").route(web::get().to(ids)))
        .service(
            web::resource("/api/{collection}/{id}")
                .route(web::get().to(get))
                .route(web::patch().to(patch))
                .route(web::delete().to(delete)),
        );
}

/// The collection of a path segment.
pub fn collection(name: &str) -> Result<Collection, Refusal> {
    Collection::parse(name).ok_or_else(|| Refusal::not_found("no such collection"))
}

async fn me(app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let answer = app.read(|world, _| {
        let account = world.account(place)?;
        Ok::<_, Refusal>(json!({"account_id": account.id, "name": account.name}))
    })?;
    Ok(HttpResponse::Ok().json(answer))
}

fn cut(world: &World, rng: &mut fastrand::Rng, place: usize, kind: Collection, want: &Want) -> Result<Got, Refusal> {
    let table = world.account(place)?.table(kind)?;
    let shuffle = world.settings.shuffle_ties;
    Ok(paging::cut(table, want, world.settings.past_the_end, |list| {
        if shuffle {
            list.chunk_by_mut(|a, b| a.0 == b.0).for_each(|ties| rng.shuffle(ties));
        }
    }))
}

async fn list(
    app: web::Data<App>,
    request: HttpRequest,
    path: web::Path<String>,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let kind = collection(&path)?;
    let mut want = Want::read(kind, &query)?;
    let same_page = request.extensions().get::<SamePage>().is_some();
    if same_page {
        want.from = From::Page(1);
    }
    let answer = app.read(|world, rng| {
        let got = cut(world, rng, place, kind, &want)?;
        let rows = world.account(place)?.table(kind)?.rows();
        let data: Vec<_> = got.ids.iter().filter_map(|id| Some(rows.get(id)?.to_json(kind))).collect();
        let mut answer = json!({
            "data": data,
            "total": got.total,
            "pages": if same_page { 1_000_000 } else { got.pages },
            "page_size": want.size,
            "next_cursor": if same_page { Some("c2FtZQ".to_owned()) } else { got.next },
        });
        if let From::Page(page) = want.from {
            answer["page"] = page.into();
        }
        Ok::<_, Refusal>(answer)
    })?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn ids(
    app: web::Data<App>,
    request: HttpRequest,
    path: web::Path<String>,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let kind = collection(&path)?;
    let want = Want::read(kind, &ListQuery { sort: Some("id".into()), ..query.into_inner() })?;
    let got = app.read(|world, rng| cut(world, rng, place, kind, &Want { order: Order::Id, ..want }))?;
    let ids: Vec<_> = got.ids.iter().map(|id| kind.id_value(id)).collect();
    Ok(HttpResponse::Ok().json(json!({"ids": ids, "total": got.total, "next_cursor": got.next})))
}

#[derive(serde::Deserialize)]
struct DeletedQuery {
    since: Option<String>,
    page: Option<usize>,
}

async fn deleted(
    app: web::Data<App>,
    request: HttpRequest,
    path: web::Path<String>,
    query: web::Query<DeletedQuery>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let kind = collection(&path)?;
    let since = paging::time("since", query.since.as_deref())?.unwrap_or_default();
    let page = query.page.unwrap_or(1).clamp(1, 1_000_000);
    let answer = app.read(|world, _| {
        let gone = world.account(place)?.table(kind)?.deleted();
        let start = gone.partition_point(|(at, _)| *at < since);
        let total = gone.len() - start;
        let data: Vec<_> = gone
            .iter()
            .skip(start)
            .skip((page - 1) * paging::PAGE_SIZE_MAX)
            .take(paging::PAGE_SIZE_MAX)
            .map(|(at, id)| json!({"id": kind.id_value(id), "deleted_at": at.rfc3339_millis()}))
            .collect();
        let pages = total.div_ceil(paging::PAGE_SIZE_MAX).max(1);
        Ok::<_, Refusal>(json!({"data": data, "total": total, "page": page, "pages": pages}))
    })?;
    Ok(HttpResponse::Ok().json(answer))
}

fn one(world: &World, place: usize, kind: Collection, id: &str) -> Result<Value, Refusal> {
    let rows = world.account(place)?.table(kind)?.rows();
    rows.get(id).map(|record| record.to_json(kind)).ok_or_else(|| Refusal::no_record(id))
}

async fn get(
    app: web::Data<App>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let kind = collection(&path.0)?;
    let answer = app.read(|world, _| one(world, place, kind, &path.1))?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn create(
    app: web::Data<App>,
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Json<Map<String, Value>>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let kind = collection(&path)?;
    let answer = app.change(|world, _, now| {
        let change = world.create(place, kind, body.into_inner(), now)?;
        one(world, place, kind, &change.id)
    })?;
    Ok(HttpResponse::Created().json(answer))
}

async fn patch(
    app: web::Data<App>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Json<Map<String, Value>>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let kind = collection(&path.0)?;
    let answer = app.change(|world, _, now| {
        world.patch(place, kind, &path.1, body.into_inner(), now)?;
        one(world, place, kind, &path.1)
    })?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn delete(
    app: web::Data<App>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let kind = collection(&path.0)?;
    app.change(|world, _, now| world.delete(place, kind, &path.1, now))?;
    Ok(HttpResponse::NoContent().finish())
}
