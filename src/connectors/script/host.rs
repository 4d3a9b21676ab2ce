//! The functions that the host lends to the prelude: text and bytes in, text and bytes out.
//!
//! Always true: none of them keeps a JS value, reaches outside of this process, or takes longer than its input is long.
//! Not here: the classes and names that scripts see (`prelude.js`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rquickjs::{Ctx, Error, Exception, Function, IntoJs, Object, Result, TypedArray, Value};
use serde_json::json;
use url::Url;

use super::{ApiRequest, Kind};

/// How long one console line may be.
const LINE_BYTES_MAX: usize = 1024;

/// What a call has said and asked so far.
pub(super) struct Host {
    pub(super) lines_max: usize,
    pub(super) calls_max: usize,
    pub(super) console: RefCell<Vec<String>>,
    pub(super) lines_dropped: Cell<usize>,
    /// API calls that are not yet on their way.
    pub(super) outbox: RefCell<Vec<(u32, ApiRequest)>>,
    pub(super) calls: Cell<usize>,
    /// The first limit that was hit; the call ends there.
    pub(super) tripped: Cell<Option<Kind>>,
}

impl Host {
    pub(super) fn new(lines_max: usize, calls_max: usize) -> Self {
        Self {
            lines_max,
            calls_max,
            console: RefCell::default(),
            lines_dropped: Cell::new(0),
            outbox: RefCell::default(),
            calls: Cell::new(0),
            tripped: Cell::new(None),
        }
    }

    /// Ends the call, unless an earlier limit has.
    pub(super) fn trip(&self, kind: Kind) {
        if self.tripped.get().is_none() {
            self.tripped.set(Some(kind));
        }
    }

    fn log(&self, line: &str) {
        let mut console = self.console.borrow_mut();
        if console.len() >= self.lines_max {
            self.lines_dropped.set(self.lines_dropped.get() + 1);
            return;
        }
        let end = line.floor_char_boundary(LINE_BYTES_MAX.min(line.len()));
        console.push(line[..end].to_owned());
    }

    /// The console, with a last line that counts what was dropped.
    pub(super) fn take_console(&self) -> Vec<String> {
        let mut lines = self.console.take();
        if self.lines_dropped.get() > 0 {
            lines.push(format!("… {} more lines", self.lines_dropped.get()));
        }
        lines
    }

    fn call(&self, ctx: &Ctx<'_>, id: u32, request: &str) -> Result<()> {
        if self.calls.get() >= self.calls_max {
            self.trip(Kind::ApiCalls);
            return Err(Exception::throw_message(ctx, &format!("more than {} apiClient calls", self.calls_max)));
        }
        let request: ApiRequest =
            serde_json::from_str(request).map_err(|e| Exception::throw_message(ctx, &e.to_string()))?;
        if leaves_the_base(&request.path) {
            let message =
                format!("apiClient takes a path relative to the connection's base URI, not {:?}", request.path);
            return Err(Exception::throw_message(ctx, &message));
        }
        self.calls.set(self.calls.get() + 1);
        self.outbox.borrow_mut().push((id, request));
        Ok(())
    }
}

/// True for an absolute URL, and for what a URL parser would read as one.
fn leaves_the_base(path: &str) -> bool {
    let path = path.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
    let bytes = path.as_bytes();
    let slash = |i: usize| bytes.get(i).is_some_and(|b| matches!(b, b'/' | b'\\'));
    (slash(0) && slash(1)) || Url::parse(path).is_ok()
}

/// Text as UTF-8, or bytes as they are.
fn bytes(value: &Value<'_>) -> Result<Vec<u8>> {
    if let Some(text) = value.as_string() {
        return Ok(text.to_string()?.into_bytes());
    }
    let array = value.clone().into_object().and_then(|object| TypedArray::<u8>::from_object(object).ok());
    let array = array.ok_or_else(|| Error::new_from_js("value", "string or Uint8Array"))?;
    #[expect(unsafe_code, reason = "the engine lends its memory only so")]
    // SAFETY: the bytes are copied before any JavaScript runs again.
    let bytes = unsafe { array.as_bytes() };
    Ok(bytes.unwrap_or_default().to_vec())
}

fn encoded<'js>(ctx: &Ctx<'js>, bytes: &[u8], encoding: &str) -> Result<Value<'js>> {
    match encoding {
        "hex" => hex::encode(bytes).into_js(ctx),
        "base64" => STANDARD.encode(bytes).into_js(ctx),
        "base64url" => URL_SAFE_NO_PAD.encode(bytes).into_js(ctx),
        "bytes" => TypedArray::new_copy(ctx.clone(), bytes).map(TypedArray::into_value),
        other => {
            let message = format!("unknown encoding {other:?}; there are hex, base64, base64url and bytes");
            Err(Exception::throw_message(ctx, &message))
        }
    }
}

fn plain(algorithm: &str) -> String {
    algorithm.to_ascii_lowercase().replace('-', "")
}

fn unknown_algorithm(ctx: &Ctx<'_>, algorithm: &str) -> Error {
    let message = format!("unknown algorithm {algorithm:?}; there are sha1, sha256, sha384 and sha512");
    Exception::throw_message(ctx, &message)
}

fn hash<'js>(ctx: &Ctx<'js>, algorithm: &str, data: &Value<'js>, encoding: &str) -> Result<Value<'js>> {
    let kind = match plain(algorithm).as_str() {
        "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => &digest::SHA256,
        "sha384" => &digest::SHA384,
        "sha512" => &digest::SHA512,
        _ => return Err(unknown_algorithm(ctx, algorithm)),
    };
    encoded(ctx, digest::digest(kind, &bytes(data)?).as_ref(), encoding)
}

fn mac<'js>(
    ctx: &Ctx<'js>,
    algorithm: &str,
    key: &Value<'js>,
    data: &Value<'js>,
    encoding: &str,
) -> Result<Value<'js>> {
    let kind = match plain(algorithm).as_str() {
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hmac::HMAC_SHA256,
        "sha384" => hmac::HMAC_SHA384,
        "sha512" => hmac::HMAC_SHA512,
        _ => return Err(unknown_algorithm(ctx, algorithm)),
    };
    let key = hmac::Key::new(kind, &bytes(key)?);
    encoded(ctx, hmac::sign(&key, &bytes(data)?).as_ref(), encoding)
}

/// `btoa`: each character is one byte.
fn to_base64(ctx: &Ctx<'_>, text: &str) -> Result<String> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let bytes = bytes.ok_or_else(|| Exception::throw_message(ctx, "btoa: a character is not one byte"))?;
    Ok(STANDARD.encode(bytes))
}

/// `atob`: each byte is one character; white space and missing padding are forgiven, as browsers do.
fn from_base64(ctx: &Ctx<'_>, text: &str) -> Result<String> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let text = text.trim_end_matches('=');
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text);
    let bytes = bytes.map_err(|_| Exception::throw_message(ctx, "atob: not base64"))?;
    Ok(bytes.into_iter().map(char::from).collect())
}

fn url_parts(url: &Url) -> String {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port());
    let non_empty = |sign: char, text: Option<&str>| match text {
        Some(text) if !text.is_empty() => format!("{sign}{text}"),
        _ => String::new(),
    };
    json!({
        "href": url.as_str(),
        "origin": url.origin().ascii_serialization(),
        "protocol": format!("{}:", url.scheme()),
        "username": url.username(),
        "password": url.password().unwrap_or_default(),
        "host": port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
        "hostname": host,
        "port": port.map(|port| port.to_string()).unwrap_or_default(),
        "pathname": url.path(),
        "search": non_empty('?', url.query()),
        "hash": non_empty('#', url.fragment()),
    })
    .to_string()
}

fn url_parse(ctx: &Ctx<'_>, href: &str, base: Option<String>) -> Result<String> {
    let url = match base {
        Some(base) => Url::parse(&base).and_then(|base| base.join(href)),
        None => Url::parse(href),
    };
    url.map(|url| url_parts(&url)).map_err(|e| Exception::throw_type(ctx, &format!("invalid URL: {e}")))
}

/// Sets one part of a URL. What cannot be set is left as it is, as browsers do.
fn url_set(ctx: &Ctx<'_>, href: &str, part: &str, value: &str) -> Result<String> {
    if part == "href" {
        return url_parse(ctx, value, None);
    }
    let mut url = Url::parse(href).map_err(|e| Exception::throw_type(ctx, &e.to_string()))?;
    let some = |sign: char| Some(value.strip_prefix(sign).unwrap_or(value)).filter(|text| !text.is_empty());
    let _unsettable_parts_stay: std::result::Result<(), ()> = match part {
        "protocol" => url.set_scheme(value.trim_end_matches(':')),
        "username" => url.set_username(value),
        "password" => url.set_password(Some(value).filter(|text| !text.is_empty())),
        "hostname" => url.set_host(Some(value)).map_err(|_| ()),
        "host" => match value.rsplit_once(':') {
            Some((host, port)) => url
                .set_host(Some(host))
                .map_err(|_| ())
                .and_then(|()| port.parse().map_err(|_| ()).and_then(|port| url.set_port(Some(port)))),
            None => url.set_host(Some(value)).map_err(|_| ()),
        },
        "port" => url.set_port(value.parse().ok()),
        "pathname" => {
            url.set_path(value);
            Ok(())
        }
        "search" => {
            url.set_query(some('?'));
            Ok(())
        }
        _ => {
            url.set_fragment(some('#'));
            Ok(())
        }
    };
    Ok(url_parts(&url))
}

fn form_text(ctx: &Ctx<'_>, pairs: &str) -> Result<String> {
    let pairs: Vec<(String, String)> =
        serde_json::from_str(pairs).map_err(|e| Exception::throw_message(ctx, &e.to_string()))?;
    Ok(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn form_parse(text: &str) -> String {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    serde_json::to_string(&pairs).unwrap_or_else(|_| "[]".to_owned())
}

/// The object that the prelude is called with.
pub(super) fn object<'js>(ctx: &Ctx<'js>, host: &Rc<Host>) -> Result<Object<'js>> {
    let lent = Object::new(ctx.clone())?;
    let (log, call) = (Rc::clone(host), Rc::clone(host));
    lent.set("log", Function::new(ctx.clone(), move |line: String| log.log(&line))?)?;
    let made = move |ctx: Ctx<'js>, id: u32, request: String| call.call(&ctx, id, &request);
    lent.set("call", Function::new(ctx.clone(), made)?)?;
    set_crypto(ctx, &lent)?;
    set_text(ctx, &lent)?;
    Ok(lent)
}

fn set_crypto<'js>(ctx: &Ctx<'js>, lent: &Object<'js>) -> Result<()> {
    let hashed =
        |ctx: Ctx<'js>, algorithm: String, data: Value<'js>, encoding: String| hash(&ctx, &algorithm, &data, &encoding);
    lent.set("hash", Function::new(ctx.clone(), hashed)?)?;
    let signed = |ctx: Ctx<'js>, algorithm: String, key: Value<'js>, data: Value<'js>, encoding: String| {
        mac(&ctx, &algorithm, &key, &data, &encoding)
    };
    lent.set("hmac", Function::new(ctx.clone(), signed)?)?;
    let equal = |a: Value<'js>, b: Value<'js>| -> Result<bool> {
        Ok(constant_time::verify_slices_are_equal(&bytes(&a)?, &bytes(&b)?).is_ok())
    };
    lent.set("equal", Function::new(ctx.clone(), equal)?)
}

fn set_text<'js>(ctx: &Ctx<'js>, lent: &Object<'js>) -> Result<()> {
    let encode = |ctx: Ctx<'js>, text: String| TypedArray::new_copy(ctx, text.as_bytes());
    lent.set("encode", Function::new(ctx.clone(), encode)?)?;
    let decode = |data: Value<'js>| Ok::<_, Error>(String::from_utf8_lossy(&bytes(&data)?).into_owned());
    lent.set("decode", Function::new(ctx.clone(), decode)?)?;
    lent.set("atob", Function::new(ctx.clone(), |ctx: Ctx<'js>, text: String| from_base64(&ctx, &text))?)?;
    lent.set("btoa", Function::new(ctx.clone(), |ctx: Ctx<'js>, text: String| to_base64(&ctx, &text))?)?;
    let parse = |ctx: Ctx<'js>, href: String, base: Option<String>| url_parse(&ctx, &href, base);
    lent.set("urlParse", Function::new(ctx.clone(), parse)?)?;
    let set = |ctx: Ctx<'js>, href: String, part: String, value: String| url_set(&ctx, &href, &part, &value);
    lent.set("urlSet", Function::new(ctx.clone(), set)?)?;
    lent.set("formText", Function::new(ctx.clone(), |ctx: Ctx<'js>, pairs: String| form_text(&ctx, &pairs))?)?;
    lent.set("formParse", Function::new(ctx.clone(), |text: String| form_parse(&text))?)?;
    let read = |ctx: Ctx<'js>, text: String| {
        let made = super::xml::parse(&text).map_err(|message| Exception::throw_message(&ctx, &message))?;
        Ok::<_, Error>(made.to_string())
    };
    lent.set("xmlParse", Function::new(ctx.clone(), read)?)
}
