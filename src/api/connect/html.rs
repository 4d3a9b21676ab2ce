//! The pages' HTML: one frame, escaped texts, and the headers that keep them to themselves.
//!
//! Always true: nothing comes from another host; the only script and the only style are the ones below, allowed by their
//! hashes; no referrer leaves; no page stands in a frame, nor is it kept by a cache. Not here: what the pages say.

use actix_web::http::header::{self, HeaderName, HeaderValue};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::reply::Reply;
use crate::error::{Error, Result};

pub const HTML: &str = "text/html; charset=utf-8";

const STYLE: &str = ":root{color-scheme:light dark;--line:#8886;--deep:#0757c4;--on:#fff}\
@media(prefers-color-scheme:dark){:root{--deep:#8bf;--on:#012}}\
*{box-sizing:border-box}body{margin:0;font:1rem/1.5 system-ui,sans-serif}\
main{max-width:28rem;margin:0 auto;padding:2rem 1rem}h1{font-size:1.4rem;margin:0 0 .25rem}\
h2{font-size:1.1rem;margin:1.5rem 0 .5rem}p{margin:.5rem 0;overflow-wrap:anywhere}pre{overflow-x:auto;font-size:.8rem}.soft{opacity:.75}\
label{display:block;margin:1rem 0 .25rem;font-weight:600}small{display:block;opacity:.75}\
input,select,textarea{width:100%;font:inherit;padding:.6rem;border:1px solid var(--line);border-radius:.4rem}\
input[type=checkbox]{width:auto}\
button,.button{display:block;width:100%;margin:1rem 0;padding:.75rem;font:inherit;font-weight:600;text-align:center;\
color:var(--on);background:var(--deep);border:0;border-radius:.4rem;text-decoration:none;cursor:pointer}\
:focus-visible{outline:3px solid var(--deep);outline-offset:2px}\
.wrong{border-left:4px solid #c33;padding:.25rem .75rem}\
ul{list-style:none;padding:0}li a{display:block;padding:.9rem;margin:.5rem 0;border:1px solid var(--line);\
border-radius:.4rem;color:inherit}summary{cursor:pointer;padding:.5rem 0}";

/// Tells the page that opened this one, and closes it. What is told stands in the page, so that this text never changes.
const SCRIPT: &str = "const at=document.getElementById('told').dataset;\
if(window.opener){window.opener.postMessage(JSON.parse(at.message),at.origin);window.close()}";

/// The text as it may stand in HTML, between tags and in quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

/// A page. `head` is HTML that goes before the body, `body` is HTML.
fn framed(status: u16, title: &str, head: &str, body: &str, with_script: bool) -> Result<Reply> {
    let script = if with_script { format!("<script>{SCRIPT}</script>") } else { String::new() };
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{}</title><style>{STYLE}</style>{head}</head>\
         <body><main>{body}</main>{script}</body></html>",
        escape(title)
    );
    let scripts = if with_script { format!("script-src {}; ", hash(SCRIPT)) } else { String::new() };
    let policy = format!(
        "default-src 'none'; style-src {}; {scripts}form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE)
    );
    let policy = HeaderValue::from_str(&policy).map_err(Error::internal)?;
    Ok(guarded(Reply::text(HTML, text).with_status(status)).with_header(header::CONTENT_SECURITY_POLICY, policy))
}

/// What goes with every answer here, redirects included.
pub fn guarded(reply: Reply) -> Reply {
    let put = |reply: Reply, name: HeaderName, value| reply.with_header(name, HeaderValue::from_static(value));
    let reply = put(reply, header::REFERRER_POLICY, "no-referrer");
    let reply = put(reply, header::CACHE_CONTROL, "no-store");
    let reply = put(reply, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(reply, header::X_FRAME_OPTIONS, "DENY")
}

/// A page without script.
pub fn page(status: u16, title: &str, body: &str) -> Result<Reply> {
    framed(status, title, "", body, false)
}

/// A page that tells its opener. `message` is JSON.
pub fn telling(status: u16, title: &str, body: &str, message: &str, origin: &str) -> Result<Reply> {
    let told = format!(
        "<div id=\"told\" data-message=\"{}\" data-origin=\"{}\"></div>{body}",
        escape(message),
        escape(origin)
    );
    framed(status, title, "", &told, true)
}

/// A page that goes on to another address by itself. Browsers hold a form's redirect to `form-action`, so that a form is
/// answered with this instead of a redirect to a host that the form's page could not know.
pub fn onward(address: &str, name: &str) -> Result<Reply> {
    let (address, name) = (escape(address), escape(name));
    let head = format!("<meta http-equiv=\"refresh\" content=\"0;url={address}\">");
    let body = format!("<h1>One moment</h1><p><a class=\"button\" href=\"{address}\">Continue to {name}</a></p>");
    framed(200, "One moment", &head, &body, false)
}

/// 303 to an address.
pub fn redirect(address: &str) -> Result<Reply> {
    let to = HeaderValue::from_str(address).map_err(Error::internal)?;
    Ok(guarded(Reply::text(HTML, "").with_status(303)).with_header(header::LOCATION, to))
}
