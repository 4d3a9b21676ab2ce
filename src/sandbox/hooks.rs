//! Webhooks: an account's own registrations, the app-wide one, and the sending of both.
//!
//! Always true: the body's `X-Sandbox-Signature` is the lower-case hex of HMAC-SHA256 over the body's bytes with the
//! webhook's secret; an attempt takes at most 10 s, there are at most three, and at most 32 at once. A registration
//! ends after its lifetime unless it is renewed. Nothing promises an order, as in most apps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use aws_lc_rs::hmac;
use fastrand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};

use super::app::App;
use super::refusal::Refusal;
use super::world::{GlobalHook, Hook, Outgoing};
use crate::domain::time::Millis;

/// Webhooks of one account.
const HOOKS_MAX: usize = 20;
/// A registration's life without renewal.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Waits before each attempt.
const SCHEDULE: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5)];
const ATTEMPTS_AT_ONCE: usize = 32;

/// The routes of `/api/webhooks` and `/app/webhook`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/webhooks").route(web::get().to(list)).route(web::post().to(register)))
        .service(web::resource("/api/webhooks/{id}").route(web::get().to(get)).route(web::delete().to(remove)))
        .service(web::resource("/api/webhooks/{id}/renew").route(web::post().to(renew)))
        .service(
            web::resource("/app/webhook")
                .route(web::get().to(get_global))
                .route(web::put().to(put_global))
                .route(web::delete().to(delete_global)),
        );
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    url: String,
    #[serde(default = "all")]
    events: Vec<String>,
    /// Drawn by the app if absent.
    secret: Option<String>,
}

fn all() -> Vec<String> {
    vec!["*".into()]
}

impl Registration {
    fn check(&self) -> Result<(), Refusal> {
        let url = url::Url::parse(&self.url).map_err(|_| Refusal::invalid("url is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || self.url.len() > 2_048 {
            return Err(Refusal::invalid("url is an http or https URL of at most 2,048 characters"));
        }
        if self.events.is_empty() || self.events.len() > 50 || self.events.iter().any(|e| e.len() > 64) {
            return Err(Refusal::invalid("events are 1 to 50 names such as contact.created, contact.* or *"));
        }
        if self.secret.as_ref().is_some_and(|s| !(8..=256).contains(&s.len())) {
            return Err(Refusal::invalid("secret has 8 to 256 characters"));
        }
        Ok(())
    }
}

fn draw(rng: &mut Rng) -> String {
    std::iter::repeat_with(|| rng.alphanumeric()).take(32).collect()
}

fn shown(id: &str, hook: &Hook) -> Value {
    json!({
        "id": id, "url": hook.url, "events": hook.events, "created_at": hook.created.rfc3339_millis(),
        "expires_at": hook.expires.rfc3339_millis(),
    })
}

async fn list(app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let hooks = app.read(|world, _| {
        Ok(world.account(place)?.hooks.iter().map(|(id, hook)| shown(id, hook)).collect::<Vec<_>>())
    })?;
    Ok(HttpResponse::Ok().json(json!({"data": hooks})))
}

async fn register(
    app: web::Data<App>,
    request: HttpRequest,
    body: web::Json<Registration>,
) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let body = body.into_inner();
    body.check()?;
    let answer = app.change(|world, rng, now| {
        let hooks = world.hooks_mut(place)?;
        hooks.retain(|_, hook| hook.expires > now);
        if hooks.len() >= HOOKS_MAX {
            return Err(Refusal::invalid(format!("an account has at most {HOOKS_MAX} webhooks")));
        }
        let id = format!("wh_{}", draw(rng).to_lowercase());
        let secret = body.secret.unwrap_or_else(|| draw(rng));
        let hook = Hook { url: body.url, events: body.events, secret, created: now, expires: now.after(LIFETIME) };
        let mut answer = shown(&id, &hook);
        answer["secret"] = hook.secret.clone().into();
        hooks.insert(id, hook);
        Ok(answer)
    })?;
    Ok(HttpResponse::Created().json(answer))
}

fn no_hook() -> Refusal {
    Refusal::not_found("no such webhook")
}

async fn get(app: web::Data<App>, request: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let answer = app.read(|world, _| {
        let hook = world.account(place)?.hooks.get(id.as_str()).ok_or_else(no_hook)?;
        Ok::<_, Refusal>(shown(&id, hook))
    })?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn remove(app: web::Data<App>, request: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    app.change(|world, _, _| world.hooks_mut(place)?.remove(id.as_str()).ok_or_else(no_hook))?;
    Ok(HttpResponse::NoContent().finish())
}

async fn renew(app: web::Data<App>, request: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Refusal> {
    let place = app.account(&request)?;
    let answer = app.change(|world, _, now| {
        let hook = world.hooks_mut(place)?.get_mut(id.as_str()).ok_or_else(no_hook)?;
        if hook.expires <= now {
            return Err(Refusal::gone("the webhook's time is over: register it again"));
        }
        hook.expires = now.after(LIFETIME);
        Ok(shown(&id, hook))
    })?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn get_global(app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    app.developer(&request)?;
    let answer = app.read(|world, _| match &world.global {
        Some(global) => json!({"url": global.url, "events": global.events}),
        None => json!({"url": null, "events": []}),
    });
    Ok(HttpResponse::Ok().json(answer))
}

async fn put_global(
    app: web::Data<App>,
    request: HttpRequest,
    body: web::Json<Registration>,
) -> Result<HttpResponse, Refusal> {
    app.developer(&request)?;
    let body = body.into_inner();
    body.check()?;
    let answer = app.change(|world, rng, _| {
        let secret = body.secret.unwrap_or_else(|| draw(rng));
        let answer = json!({"url": body.url, "events": body.events, "secret": secret});
        world.global = Some(GlobalHook { url: body.url, events: body.events, secret });
        answer
    });
    Ok(HttpResponse::Ok().json(answer))
}

async fn delete_global(app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    app.developer(&request)?;
    app.change(|world, _, _| world.global = None);
    Ok(HttpResponse::NoContent().finish())
}

/// The lower-case hex of HMAC-SHA256 over the body.
pub fn signature(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(hmac::sign(&key, body.as_bytes()))
}

/// Sends webhooks until told to stop.
pub async fn send_all(
    app: web::Data<App>,
    client: reqwest::Client,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(ATTEMPTS_AT_ONCE));
    loop {
        let webhook = tokio::select! {
            _ = stop.changed() => return,
            webhook = outgoing.recv() => webhook,
        };
        let Some(webhook) = webhook else { return };
        let (drop, repeat, delay, bad) = app.change(|world, _, _| {
            let settings = &mut world.settings;
            let drop = settings.drop_webhooks > 0;
            settings.drop_webhooks = settings.drop_webhooks.saturating_sub(1);
            (drop, settings.repeat_webhooks.min(10), settings.webhook_delay_ms.min(600_000), settings.bad_signatures)
        });
        if drop {
            app.webhooks.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let secret = if bad { "not the secret" } else { &webhook.secret };
        let signature = signature(secret, &webhook.body);
        for _ in 0..=repeat {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let (app, client, webhook, signature) = (app.clone(), client.clone(), webhook.clone(), signature.clone());
            let mut stop = stop.clone();
            tokio::spawn(async move {
                let _permit = permit;
                tokio::select! {
                    _ = stop.changed() => {}
                    () = send(&app, &client, &webhook, &signature, Duration::from_millis(delay)) => {}
                }
            });
        }
    }
}

async fn send(app: &App, client: &reqwest::Client, webhook: &Outgoing, signature: &str, delay: Duration) {
    tokio::time::sleep(delay).await;
    for wait in SCHEDULE {
        tokio::time::sleep(wait).await;
        app.webhooks.attempted.fetch_add(1, Ordering::Relaxed);
        let sent = client
            .post(&webhook.url)
            .header("content-type", "application/json")
            .header("x-sandbox-event", &webhook.event)
            .header("x-sandbox-delivery", &webhook.delivery)
            .header("x-sandbox-signature", signature)
            .body(webhook.body.clone())
            .send()
            .await;
        match sent {
            Ok(answer) if answer.status().is_success() => {
                app.webhooks.accepted.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(answer) => tracing::debug!(status = answer.status().as_u16(), "a webhook of the sandbox was refused"),
            Err(error) => tracing::debug!(error = %error.without_url(), "a webhook of the sandbox failed"),
        }
    }
    app.webhooks.failed.fetch_add(1, Ordering::Relaxed);
}

/// Ends registrations whose time is over, for lists that nobody changes.
pub fn expire(app: &App) {
    let over = |now: Millis| move |hook: &Hook| hook.expires <= now;
    let now = app.clock.now();
    let any = app.read(|world, _| world.accounts.iter().any(|a| a.hooks.values().any(over(now))));
    if any {
        app.change(|world, _, now| {
            for account in &mut world.accounts {
                account.hooks.retain(|_, hook| !over(now)(hook));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_in_hex() {
        // RFC 4231, test case 2.
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature("Jefe", "what do ya want for nothing?"), expected);
    }
}
