//! The app's OAuth server: a consent page, `/oauth/token` and `/oauth/revoke` (RFC 6749, 7636, 7009).
//!
//! Always true: PKCE with S256 is required; a redirect goes only to an address that the request named, on https or on
//! this machine, and every error that RFC 6749 section 4.1.2.1 wants there goes there. Not here: what a grant is
//! (`grants`), signing in: whoever reaches the page chooses an account, since the sandbox is a toy.

use std::time::Duration;

use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, LOCATION, REFERRER_POLICY};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use serde_json::json;
use url::Url;
use url::form_urlencoded::parse;

use super::app::App;
use super::grants::Pair;

/// The routes of `/oauth`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/oauth/authorize").route(web::get().to(ask)).route(web::post().to(answer)))
        .service(web::resource("/oauth/token").route(web::post().to(token)))
        .service(web::resource("/oauth/revoke").route(web::post().to(revoke)));
}

/// Form fields or query parameters; the first of a name counts.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(bytes: &[u8]) -> Self {
        Self(parse(bytes).into_owned().collect())
    }
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str())
    }
}

/// The text as it may stand in HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn page(status: u16, body: &str) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap_or_default();
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .body(format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>Sandbox</title><body style=\"font:1rem/1.5 system-ui;max-width:26rem;margin:2rem auto;padding:0 1rem\">\
             {body}"
        ))
}

/// The address to go back to, if it is one that may be gone to.
fn redirect(fields: &Fields) -> Option<Url> {
    let url = Url::parse(fields.get("redirect_uri")).ok()?;
    let local = match url.host()? {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    };
    let fine = url.scheme() == "https" || (url.scheme() == "http" && local);
    (fine && url.fragment().is_none()).then_some(url)
}

fn back(mut url: Url, state: &str, more: &[(&str, &str)]) -> HttpResponse {
    url.query_pairs_mut().extend_pairs(more);
    if !state.is_empty() {
        url.query_pairs_mut().append_pair("state", state);
    }
    HttpResponse::Found().insert_header((LOCATION, url.as_str())).finish()
}

/// What a request for consent must say, or the answer to one that does not.
fn checked(app: &App, fields: &Fields) -> Result<Url, HttpResponse> {
    if fields.get("client_id") != app.client.0 {
        return Err(page(400, "<h1>Unknown client</h1><p>No app is registered under this client id."));
    }
    let Some(url) = redirect(fields) else {
        return Err(page(400, "<h1>Wrong redirect address</h1><p>It must be on https, or on this machine."));
    };
    let refuse = |error: &str| Err(back(url.clone(), fields.get("state"), &[("error", error)]));
    if fields.get("response_type") != "code" {
        return refuse("unsupported_response_type");
    }
    if fields.get("code_challenge").is_empty() || fields.get("code_challenge_method") != "S256" {
        return refuse("invalid_request");
    }
    Ok(url)
}

async fn ask(app: web::Data<App>, request: HttpRequest) -> HttpResponse {
    let fields = Fields::read(request.query_string().as_bytes());
    if let Err(refused) = checked(&app, &fields) {
        return refused;
    }
    let hidden: String = fields
        .0
        .iter()
        .map(|(name, value)| format!("<input type=hidden name=\"{}\" value=\"{}\">", escape(name), escape(value)))
        .collect();
    let accounts: String = app.read(|world, _| {
        let option = |id: &str, name: &str| format!("<option value=\"{}\">{}</option>", escape(id), escape(name));
        world.accounts.iter().map(|account| option(&account.id, &account.name)).collect()
    });
    page(
        200,
        &format!(
            "<h1>Sandbox</h1><p>An app asks to read your account.<form method=post>{hidden}\
             <p><label>Account <select name=account>{accounts}</select></label>\
             <p><button name=decision value=allow>Allow</button> <button name=decision value=deny>Deny</button></form>"
        ),
    )
}

async fn answer(app: web::Data<App>, body: web::Bytes) -> HttpResponse {
    let fields = Fields::read(&body);
    let url = match checked(&app, &fields) {
        Ok(url) => url,
        Err(refused) => return refused,
    };
    let (state, account) = (fields.get("state"), fields.get("account"));
    if fields.get("decision") != "allow" {
        return back(url, state, &[("error", "access_denied"), ("error_description", "The user said no")]);
    }
    let (given, challenge) = (fields.get("redirect_uri"), fields.get("code_challenge"));
    let code = app.change(|world, rng, now| {
        world.find(account)?;
        Ok::<_, super::refusal::Refusal>(world.grants.allow(rng, account, given, challenge, now))
    });
    match code {
        Ok(code) => back(url, state, &[("code", &code), ("account_id", account)]),
        Err(_) => page(400, "<h1>No such account</h1>"),
    }
}

/// RFC 6749, section 5.2.
fn refused(error: &str) -> HttpResponse {
    let mut answer = if error == "invalid_client" { HttpResponse::Unauthorized() } else { HttpResponse::BadRequest() };
    answer.insert_header((CACHE_CONTROL, "no-store")).json(json!({ "error": error }))
}

/// Whether the client says who it is, by Basic or in the form (RFC 6749, section 2.3.1).
fn is_client(app: &App, request: &HttpRequest, fields: &Fields) -> bool {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let basic = header.and_then(|value| value.strip_prefix("Basic ")).and_then(|text| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
        let (id, secret) = String::from_utf8(bytes).ok()?.split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        Some((id, secret))
    });
    let given = basic.unwrap_or_else(|| (fields.get("client_id").to_owned(), fields.get("client_secret").to_owned()));
    given == app.client
}

async fn token(app: web::Data<App>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let fields = Fields::read(&body);
    if !is_client(&app, &request, &fields) {
        return refused("invalid_client");
    }
    let grant_type = fields.get("grant_type");
    let (made, life) = app.change(|world, rng, now| {
        let seconds = u64::from(world.settings.token_seconds);
        let life = Duration::from_secs(seconds);
        let made: Option<Pair> = match grant_type {
            "authorization_code" => {
                let (code, verifier) = (fields.get("code"), fields.get("code_verifier"));
                world.grants.redeem(rng, code, fields.get("redirect_uri"), verifier, life, now)
            }
            "refresh_token" => world.grants.renew(rng, fields.get("refresh_token"), life, now),
            _ => None,
        };
        (made, seconds)
    });
    match made {
        Some(pair) => HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({
            "access_token": pair.access,
            "token_type": "Bearer",
            "expires_in": life,
            "refresh_token": pair.refresh,
            "account_id": pair.account,
        })),
        None if matches!(grant_type, "authorization_code" | "refresh_token") => refused("invalid_grant"),
        None => refused("unsupported_grant_type"),
    }
}

async fn revoke(app: web::Data<App>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let fields = Fields::read(&body);
    if !is_client(&app, &request, &fields) {
        return refused("invalid_client");
    }
    app.change(|world, _, _| world.grants.revoke(fields.get("token")));
    HttpResponse::Ok().finish()
}
