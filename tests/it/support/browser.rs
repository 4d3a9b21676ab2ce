//! A browser without scripts: a cookie jar, one page at a time, links and forms by hand.
//!
//! Always true: cookies go by host, not by port, as in a browser; redirects are followed one by one, so that a test sees
//! each. A node's public address, where nobody listens, is reached through `doors`, as through a proxy.

use std::collections::BTreeMap;

use reqwest::redirect::Policy;
use url::Url;

/// One answer.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub url: Url,
}

impl Page {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
    /// Where a redirect leads, or what a page goes on to by itself.
    #[track_caller]
    pub fn onward(&self) -> Url {
        if self.status == 303 || self.status == 302 {
            return self.url.join(self.header("location")).expect("an address");
        }
        let after = self.text.split_once("http-equiv=\"refresh\" content=\"0;url=");
        let (_, rest) = after.unwrap_or_else(|| panic!("{} leads nowhere: {}", self.status, self.text));
        let address = unescape(rest.split('"').next().expect("a quote"));
        self.url.join(&address).expect("an address")
    }
    /// The fields of the form with that door (or of the first form), hidden ones filled in.
    #[track_caller]
    pub fn form(&self, door: &str) -> Vec<(String, String)> {
        let mark = format!("name=\"door\" value=\"{door}\"");
        let forms = self.text.split("<form").skip(1).map(|form| form.split("</form>").next().expect("an end"));
        let mut forms = forms.filter(|form| door.is_empty() || form.contains(&mark));
        let form = forms.next().unwrap_or_else(|| panic!("no form {door:?} in {}", self.text));
        let inputs = form.split("<input").skip(1).map(|input| input.split('>').next().expect("an end"));
        inputs.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?))).collect()
    }
}

/// An attribute, quoted or not.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}="))?;
    let value = match rest.strip_prefix('"') {
        Some(rest) => rest.split('"').next()?,
        None => rest.split([' ', '>']).next()?,
    };
    Some(unescape(value))
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

pub struct Browser {
    http: reqwest::Client,
    /// By host.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
    /// Public address to the real one.
    doors: Vec<(String, String)>,
    /// Addresses that were asked for, in order.
    pub seen: Vec<String>,
}

impl Browser {
    pub fn new(doors: &[(&str, &str)]) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client");
        let doors = doors.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Self { http, cookies: BTreeMap::new(), doors, seen: Vec::new() }
    }

    async fn send(&mut self, method: &str, url: &Url, body: Option<String>) -> Page {
        self.seen.push(url.to_string());
        let door = self.doors.iter().find(|(public, _)| url.as_str().starts_with(public));
        let real = match door {
            Some((public, real)) => format!("{real}{}", &url.as_str()[public.len()..]),
            None => url.to_string(),
        };
        let mut request = self.http.request(method.parse().expect("a method"), real);
        let host = url.host_str().expect("a host").to_owned();
        if let Some(jar) = self.cookies.get(&host) {
            let all: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", all.join("; "));
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let text = cookie.to_str().expect("text").split(';').next().expect("a pair");
            let (name, value) = text.split_once('=').expect("a pair");
            self.cookies.entry(host.clone()).or_default().insert(name.to_owned(), value.to_owned());
        }
        Page { status, headers, text: answer.text().await.expect("text"), url: url.clone() }
    }

    pub async fn get(&mut self, url: &str) -> Page {
        self.send("GET", &Url::parse(url).expect("a URL"), None).await
    }

    pub async fn post(&mut self, url: &str, fields: &[(String, String)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send("POST", &Url::parse(url).expect("a URL"), Some(body)).await
    }
}
