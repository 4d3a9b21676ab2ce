//! `/connect?destination=<type>`: an end user sets up a destination of their own.
//!
//! Always true: it is tried out before it is stored, and stored only if it can be written; it belongs to the visit's user; what
//! is typed into a secret field never comes back in a page; a browser goes only to addresses that an integration of the
//! workspace lists. Not here: what a kind asks for (its schema), what is stored (`api::destinations`).

use serde_json::{Map, Value, json};
use url::Url;

use super::finish::stranger;
use super::html::{escape, onward, page, telling};
use super::reason::Reason;
use super::submit::sentence;
use super::visits::Visit;
use super::{Fields, ask, path};
use crate::api::call::Call;
use crate::api::destinations::settings::Split;
use crate::api::destinations::test::StepView;
use crate::api::destinations::{self, Wanted};
use crate::api::reply::Reply;
use crate::destinations::driver::Kind;
use crate::destinations::kinds;
use crate::domain::destination::{Destination, Shape};
use crate::domain::id::DestinationId;
use crate::domain::returns::ReturnUrls;
use crate::domain::workspace::User;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// Integrations whose lists are looked through, and in one step.
const READ_MAX: usize = 1_000;
const STEP: usize = 250;
/// Of a user's name in the name of a destination.
const NAME_BYTES_MAX: usize = 200;

/// What the page works with.
struct Seen {
    user: User,
    kind: &'static Kind,
    /// All addresses that the link may go back to.
    returns: ReturnUrls,
}

/// The type that the link names, if end users may have it: files are the operator's.
fn kind(visit: &Visit) -> Option<&'static Kind> {
    visit.wish.destination.as_deref().and_then(kinds::find).filter(|kind| kind.name != "file")
}

/// The lists of the integrations: of the one that the link names, else of all.
fn returns(rows: &Rows, visit: &Visit) -> Result<ReturnUrls> {
    let (workspace, only) = (visit.workspace, visit.wish.integration);
    let none = crate::domain::id::IntegrationId([0; 12]);
    let mut all = ReturnUrls { integration: only.unwrap_or(none), workspace, urls: Vec::new() };
    if visit.wish.return_url.is_none() && visit.wish.origin.is_none() {
        return Ok(all);
    }
    let (mut before, mut read) = (None::<Vec<u8>>, 0);
    while read < READ_MAX {
        let page = rows.integrations(workspace, before.as_deref(), STEP)?;
        read += page.items.len();
        for integration in page.items.iter().filter(|i| only.is_none_or(|id| id == i.id)) {
            let list = rows.object::<ReturnUrls>(workspace, &integration.id.0)?;
            all.urls.extend(list.map(|list| list.urls).unwrap_or_default());
        }
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    Ok(all)
}

/// Who is there, and for what. None: the link asks for something that is not set up, or its user is gone.
async fn seen(call: &Call, visit: &Visit) -> Result<std::result::Result<Seen, Reason>> {
    let Some(kind) = kind(visit) else { return Ok(Err(Reason::NotAllowed)) };
    let of = visit.clone();
    let read = move |rows: &Rows| Ok((rows.user_by_id(of.workspace, of.user)?, returns(rows, &of)?));
    let (user, returns) = call.read(read).await?;
    let Some(user) = user else { return Ok(Err(Reason::NoVisit)) };
    let fits_url = |text: &String| Url::parse(text).is_ok_and(|url| returns.allows(&url));
    let wish = &visit.wish;
    let allowed = wish.return_url.as_ref().is_none_or(fits_url)
        && wish.origin.as_ref().is_none_or(|origin| returns.allows_origin(origin));
    Ok(if allowed { Ok(Seen { user, kind, returns }) } else { Err(Reason::NotAllowed) })
}

/// The form.
pub(super) async fn open(call: &Call, visit: &Visit) -> Result<Reply> {
    match seen(call, visit).await? {
        Ok(seen) => form(call, visit, &seen, "", &Fields::default(), 200),
        Err(reason) => stranger(call, reason),
    }
}

fn form(call: &Call, visit: &Visit, seen: &Seen, problem: &str, typed: &Fields, status: u16) -> Result<Reply> {
    let title = escape(seen.kind.title);
    let whose = seen.user.full_name.as_deref().unwrap_or(&seen.user.username);
    let fields: String =
        ask::all(seen.kind).iter().map(|ask| ask.field(typed.get(&format!("s.{}", ask.name)))).collect();
    let body = format!(
        "<h1>Connect {title}</h1><p class=\"soft\">for {}</p><p>{}</p>{problem}\
         <form method=\"post\" action=\"{}\" autocomplete=\"off\"><input type=\"hidden\" name=\"csrf\" value=\"{}\">{fields}\
         <button>Connect</button></form>",
        escape(whose),
        escape(seen.kind.about),
        escape(&path(call)),
        escape(&visit.csrf),
    );
    page(status, &format!("Connect {}", seen.kind.title), &body)
}

/// The form that was sent; its word is the visit's.
pub(super) async fn submit(call: &Call, visit: &Visit, typed: &Fields) -> Result<Reply> {
    let seen = match seen(call, visit).await? {
        Ok(seen) => seen,
        Err(reason) => return stranger(call, reason),
    };
    let wrong = |problem: &str| {
        record(call, seen.kind, Err(Reason::Refused));
        form(call, visit, &seen, &format!("<div class=\"wrong\" role=\"alert\">{problem}</div>"), typed, 422)
    };
    let said = |text: &str| format!("<p>{}</p>", escape(&sentence(text.trim_start_matches("settings."))));
    let given = match given(seen.kind, typed) {
        Ok(given) => given,
        Err(problem) => return wrong(&said(&problem)),
    };
    match set_up(call, visit, &seen, &given).await {
        Ok(SetUp::Done(id, steps)) => {
            record(call, seen.kind, Ok(id));
            done(visit, &seen, id, &steps)
        }
        Ok(SetUp::Failed(steps)) => wrong(&format!("<p>It does not work yet:</p>{}", told(&steps))),
        Err(error) if error.code == Code::Internal => Err(error),
        Err(error) => wrong(&said(&error.message)),
    }
}

/// What the form says, and nothing that was not asked for. The error is for the person.
fn given(kind: &Kind, typed: &Fields) -> std::result::Result<Map<String, Value>, String> {
    let mut given = Map::new();
    for ask in ask::all(kind) {
        if let Some(value) = ask.value(typed.get(&format!("s.{}", ask.name)))? {
            given.insert(ask.name.clone(), value);
        }
    }
    Ok(given)
}

enum SetUp {
    Done(DestinationId, Vec<StepView>),
    Failed(Vec<StepView>),
}

async fn set_up(call: &Call, visit: &Visit, seen: &Seen, given: &Map<String, Value>) -> Result<SetUp> {
    let (state, kind, workspace) = (&call.state, seen.kind, visit.workspace);
    let mut split = Split::default();
    split.lay(kind, given)?;
    let draft = destinations::draft(workspace, destinations::fresh_id(state).await?, kind.name);
    let test = destinations::test::of_draft(state, &draft, &split, Shape::Append).await?;
    if !test.ok {
        return Ok(SetUp::Failed(test.steps));
    }
    let (id, user) = (draft.id, seen.user.id);
    let change = move |tx: &mut Tx<'_>| {
        let user = tx.user_by_id(workspace, user)?;
        let user = user.ok_or_else(|| Error::invalid("You are not known here any more"))?;
        let name = free_name(tx, &draft, kind.title, &user)?;
        let wanted = Wanted { kind: kind.name.to_owned(), name, split };
        destinations::put_new(tx, workspace, id, Some(user.id), wanted).map(drop)
    };
    state.store.change(change).await?;
    Ok(SetUp::Done(id, test.steps))
}

/// `PostgreSQL of ada`, with a number if that is taken.
fn free_name(rows: &Rows, draft: &Destination, title: &str, user: &User) -> Result<String> {
    let whose = user.username.get(..user.username.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default();
    for number in 1..=destinations::PER_USER_MAX + 1 {
        let name = if number == 1 { format!("{title} of {whose}") } else { format!("{title} of {whose} {number}") };
        if rows.rival(&Destination { name: name.clone(), ..draft.clone() })?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::new(Code::Conflict, "There are too many of these already"))
}

/// The steps in plain words.
fn told(steps: &[StepView]) -> String {
    let line = |step: &StepView| {
        let what = match step.name {
            "connect" => "Reaching the server",
            "signIn" => "Signing in",
            "permissions" => "Checking permissions",
            "table" => "Preparing the place to write to",
            "write" => "Writing",
            "read" => "Reading back",
            "clean" => "Cleaning up",
            other => other,
        };
        match step.message {
            None => format!("<li>{}: done</li>", escape(what)),
            Some(message) => {
                let detail = step.detail.as_deref().map(|text| format!("<small>{}</small>", escape(text)));
                format!("<li>{}: {}{}</li>", escape(what), escape(message), detail.unwrap_or_default())
            }
        }
    };
    format!("<ul>{}</ul>", steps.iter().map(line).collect::<String>())
}

fn done(visit: &Visit, seen: &Seen, id: DestinationId, steps: &[StepView]) -> Result<Reply> {
    let url = visit.wish.return_url.as_deref().and_then(|text| Url::parse(text).ok());
    if let Some(mut url) = url.filter(|url| seen.returns.allows(url)) {
        url.query_pairs_mut().append_pair("destinationId", &id.to_string());
        let host = url.host_str().unwrap_or_default().to_owned();
        return onward(url.as_str(), &host);
    }
    let title = escape(seen.kind.title);
    let body = format!("<h1>{title} is connected</h1>{}<p>You can close this page now.</p>", told(steps));
    match visit.wish.origin.as_deref().filter(|origin| seen.returns.allows_origin(origin)) {
        Some(origin) => {
            let message = json!({"type": "tidemill/connected", "destinationId": id.to_string()});
            telling(200, "Connected", &body, &message.to_string(), origin)
        }
        None => page(200, "Connected", &body),
    }
}

/// Counts and logs an end.
fn record(call: &Call, kind: &Kind, outcome: std::result::Result<DestinationId, Reason>) {
    let word = outcome.map_or_else(Reason::slug, |_| "connected");
    call.state.metrics.connects.with([kind.name, word]).inc();
    let destination = outcome.ok().map(|id| id.to_string());
    tracing::info!(kind = kind.name, outcome = word, destination, "a destination was asked for at the connect page");
}
