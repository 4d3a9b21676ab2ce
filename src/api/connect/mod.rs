//! `/connect`: an end user connects an account in the browser.
//!
//! ```text
//! /connect?token=… ──▶ visits (a cookie) ──▶ /connect: choice, page ──form──▶ submit ──▶ connections::by_user ──▶ finish
//!                                                                              └──▶ the app ──▶ /oauth/callback ──┘
//! ```
//!
//! Always true: the token is in one address only, which answers with a cookie and an address without it; a visit acts
//! for its one user; a form counts only with the visit's own word in it. Not here: what a connection is
//! (`connections::make`), OAuth itself (`connectors::authorize`).

mod ask;
mod callback;
mod choice;
mod destination;
mod finish;
mod html;
mod page;
mod reason;
mod submit;
mod visits;

use actix_web::http::header::{COOKIE, HeaderValue, SET_COOKIE};

use self::choice::Choice;
use self::finish::stranger;
use self::html::HTML;
use self::page::Frame;
use self::reason::Reason;
pub use self::visits::Visits;
use self::visits::{Mark, Visit, Wish};
use super::call::Call;
use super::reply::Reply;
use super::route::{Access, Param, Route, Surface, group};
use super::{integrations, token};
use crate::domain::workspace::User;
use crate::error::{Code, Error, Result};

/// The longest address that a link may name, its own query included.
const WISH_BYTES_MAX: usize = 2_500;

pub(super) fn routes() -> Vec<Route> {
    let begin = [
        Param { name: "token", about: "Of `GET /users/{userId}/token`; swapped for a cookie at once." },
        Param { name: "connector", about: "Only integrations of this connector, or the connector itself." },
        Param { name: "integrationId", about: "Only this integration." },
        Param { name: "destination", about: "In place of an app: a destination of this type, for the user." },
        Param { name: "returnUrl", about: "Where to go at the end: one of the integration's `returnUrls`." },
        Param { name: "origin", about: "Whom to tell with postMessage at the end: an origin of its `returnUrls`." },
    ];
    let browser = |route: Route| route.only(Access::Open).at(Surface::Public).content_type(HTML);
    let routes = vec![
        browser(Route::get("/connect", "The page on which an end user connects an account", |call| async {
            shown(open(call).await)
        }))
        .query(&begin),
        browser(Route::post("/connect", "What that page's forms send", |call| async {
            shown(submit::submit(call).await)
        })),
        browser(Route::get("/oauth/callback", "Where apps send people back to", |call| async {
            shown(callback::back(call).await)
        })),
    ];
    group("connecting", routes)
}

/// An error of ours as a page: whoever stands here reads no JSON.
fn shown(answer: Result<Reply>) -> Result<Reply> {
    answer.or_else(|error| {
        tracing::error!(code = error.code.slug(), "{}", error.chain());
        let body = format!("<h1>That did not work</h1><p>{}</p>", html::escape(Reason::Ours.text()));
        html::page(error.code.status(), "Not connected", &body)
    })
}

/// Fields of a form or of a query, decoded; the first of a name counts.
#[derive(Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str())
    }
}

/// The path prefix under which browsers see us, without a slash at the end.
fn prefix(call: &Call) -> &str {
    call.state.options.public_url.as_ref().map_or("", |url| url.path().trim_end_matches('/'))
}

/// `/connect` as browsers see it.
fn path(call: &Call) -> String {
    format!("{}/connect", prefix(call))
}

/// Where apps send people back to.
fn redirect_uri(call: &Call) -> String {
    format!("{}/oauth/callback", integrations::base(call).0)
}

fn is_https(call: &Call) -> bool {
    call.state.options.public_url.as_ref().is_some_and(|url| url.scheme() == "https")
}

/// The cookie's name. `__Host-` keeps other hosts of the same domain from setting it (RFC 6265bis, section 4.1.3.2).
fn cookie_name(call: &Call) -> &'static str {
    if is_https(call) && prefix(call).is_empty() { "__Host-tidemill-connect" } else { "tidemill-connect" }
}

/// The visit of the caller's cookie.
fn visit(call: &Call) -> Option<(Mark, Visit)> {
    let name = cookie_name(call);
    let headers = call.head.headers.get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs = headers.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, cookie) = pairs.find(|(n, _)| *n == name)?;
    call.state.visits.find(cookie, call.now())
}

/// The user of a visit, and what can be connected. None: the user is gone.
async fn seen(call: &Call, visit: &Visit) -> Result<Option<(User, Vec<Choice>)>> {
    let (state, visit) = (call.state.clone(), visit.clone());
    let read = move |rows: &crate::store::Rows| {
        let Some(user) = rows.user_by_id(visit.workspace, visit.user)? else { return Ok(None) };
        Ok(Some((user, choice::all(&state, rows, &visit)?)))
    };
    call.read(read).await
}

async fn open(call: Call) -> Result<Reply> {
    if call.query("token").is_some() {
        return begin(call).await;
    }
    let Some((_, visit)) = visit(&call) else { return stranger(&call, Reason::NoVisit) };
    if visit.wish.destination.is_some() {
        return destination::open(&call, &visit).await;
    }
    let Some((user, choices)) = seen(&call, &visit).await? else { return stranger(&call, Reason::NoVisit) };
    let path = path(&call);
    let frame = Frame { visit: &visit, user: &user, path: &path };
    let wanted = call.query("integrationId");
    let chosen = |choice: &&Choice| choice.integration.map(|id| id.to_string()).as_deref() == wanted;
    match (&choices[..], wanted) {
        ([], _) => stranger(&call, Reason::NotAllowed),
        ([one], None) => frame.forms(one, None, &Fields::default(), 200),
        (_, None) => frame.list(&choices),
        (_, Some(_)) => match choices.iter().find(chosen) {
            Some(one) => frame.forms(one, None, &Fields::default(), 200),
            None => stranger(&call, Reason::NotAllowed),
        },
    }
}

/// Swaps the token for a cookie.
async fn begin(call: Call) -> Result<Reply> {
    let (text, now) = (call.query("token").unwrap_or_default().to_owned(), call.now());
    let opened = call.read(move |rows| token::open(rows, &text, now)).await;
    let (workspace, user, until) = match opened {
        Ok(opened) => opened,
        Err(error) if error.code == Code::Unauthorized => return stranger(&call, Reason::BadToken),
        Err(error) => return Err(error),
    };
    let Some(wish) = wish(&call) else { return stranger(&call, Reason::NotAllowed) };
    let visit = Visit { workspace: workspace.no, user: user.id, wish, csrf: integrations::token()?, until };
    let cookie = call.state.visits.open(visit, now)?;
    let (name, path) = (cookie_name(&call), prefix(&call));
    let (path, secure) = (if path.is_empty() { "/" } else { path }, if is_https(&call) { "; Secure" } else { "" });
    let seconds = until.since(now).as_secs();
    let cookie = format!("{name}={cookie}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let cookie = HeaderValue::from_str(&cookie).map_err(Error::internal)?;
    Ok(html::redirect(&self::path(&call))?.with_header(SET_COOKIE, cookie))
}

/// What the link asks for. None: an id that is none, or a text that no list can hold.
fn wish(call: &Call) -> Option<Wish> {
    let text = |name: &str| call.query(name).map(str::to_owned);
    let wishes = ["connector", "destination", "returnUrl", "origin"];
    if wishes.iter().any(|name| call.query(name).is_some_and(|text| text.len() > WISH_BYTES_MAX)) {
        return None;
    }
    let integration = match call.query("integrationId") {
        Some(id) => Some(id.parse().ok()?),
        None => None,
    };
    let (return_url, origin) = (text("returnUrl"), text("origin"));
    Some(Wish { connector: text("connector"), integration, destination: text("destination"), return_url, origin })
}
