//! The page's forms: the list of apps, and for one of them what must be given.
//!
//! Always true: what is typed into a secret field never comes back in a page. Not here: what is asked for (`choice`),
//! the frame around it (`html`).

use super::Fields;
use super::choice::{Ask, Choice};
use super::html::{escape, page};
use super::visits::Visit;
use crate::api::reply::Reply;
use crate::connectors::{Door, Kind};
use crate::domain::workspace::User;
use crate::error::Result;

/// Who is asked, and where the form goes.
pub struct Frame<'a> {
    pub visit: &'a Visit,
    pub user: &'a User,
    /// `/connect` with the path prefix.
    pub path: &'a str,
}

impl Frame<'_> {
    fn whose(&self) -> String {
        let name = self.user.full_name.as_deref().unwrap_or(&self.user.username);
        format!("<p class=\"soft\">for {}</p>", escape(name))
    }

    /// The apps to choose from.
    pub fn list(&self, choices: &[Choice]) -> Result<Reply> {
        let item = |choice: &Choice| {
            let id = choice.integration.map(|id| id.to_string()).unwrap_or_default();
            let description = &choice.connector.description;
            format!(
                "<li><a href=\"{}?integrationId={}\"><b>{}</b><small>{}</small></a></li>",
                escape(self.path),
                escape(&id),
                escape(&choice.name),
                escape(description)
            )
        };
        let items: String = choices.iter().map(item).collect();
        let body = format!("<h1>Connect an app</h1>{}<ul>{items}</ul>", self.whose());
        page(200, "Connect an app", &body)
    }

    /// The forms of one app. `problem` is shown above them; `typed` comes back in the fields.
    pub fn forms(&self, choice: &Choice, problem: Option<&str>, typed: &Fields, status: u16) -> Result<Reply> {
        let name = escape(&choice.name);
        let problem = problem.map(|text| format!("<p class=\"wrong\" role=\"alert\">{}</p>", escape(text)));
        // The form that was sent stays on top, open.
        let first = choice.doors.iter().position(|door| door.word() == typed.get("door")).unwrap_or(0);
        let mut forms = String::new();
        let mut rest = String::new();
        for (place, door) in choice.doors.iter().enumerate() {
            let form = self.form(choice, *door, typed);
            if place == first {
                forms.push_str(&form);
            } else {
                let title = title(*door, &name, choice.asks_a_secret(*door));
                rest.push_str(&format!("<details><summary>{title}</summary>{form}</details>"));
            }
        }
        if !rest.is_empty() {
            rest = format!("<h2>Another way</h2>{rest}");
        }
        let body =
            format!("<h1>Connect {name}</h1>{}{}{forms}{rest}", self.whose(), problem.as_deref().unwrap_or_default());
        page(status, &format!("Connect {}", choice.name), &body)
    }

    fn form(&self, choice: &Choice, door: Door, typed: &Fields) -> String {
        let hidden =
            |name: &str, value: &str| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value));
        let id = choice.integration.map(|id| id.to_string()).unwrap_or_default();
        let mut inside = [
            hidden("csrf", &self.visit.csrf),
            hidden("integrationId", &id),
            hidden("connector", &choice.connector.key),
            hidden("door", door.word()),
        ]
        .concat();
        for ask in choice.asks(door) {
            inside.push_str(&field(&ask, door, typed));
        }
        for (name, label, secret) in credentials(door) {
            inside.push_str(&credential(name, label, *secret, door, typed));
        }
        let button = match door {
            Door::Consent => format!("Continue to {}", escape(&choice.connector.name)),
            _ => "Connect".to_owned(),
        };
        format!(
            "<form method=\"post\" action=\"{}\" autocomplete=\"off\">{inside}<button>{button}</button></form>",
            escape(self.path)
        )
    }
}

fn title(door: Door, name: &str, asks_a_secret: bool) -> String {
    match door {
        Door::Consent => format!("Sign in at {name}"),
        Door::ApiKey => "With an API key".to_owned(),
        Door::Token => "With an access token".to_owned(),
        Door::Login => "With user name and password".to_owned(),
        Door::OAuth1 => "With the four keys of an integration".to_owned(),
        Door::Open if asks_a_secret => "With a client of your own".to_owned(),
        Door::Open => "Without credentials".to_owned(),
    }
}

/// The fields of a way in: name, label, and whether it is secret.
pub fn credentials(door: Door) -> &'static [(&'static str, &'static str, bool)] {
    match door {
        Door::Consent | Door::Open => &[],
        Door::ApiKey => &[("apiKey", "API key", true)],
        Door::Token => &[("accessToken", "Access token", true)],
        Door::Login => &[("username", "User name", false), ("password", "Password", true)],
        Door::OAuth1 => &[
            ("consumerKey", "Consumer key", false),
            ("consumerSecret", "Consumer secret", true),
            ("token", "Access token", false),
            ("tokenSecret", "Access token secret", true),
        ],
    }
}

/// Ids must be unique on a page with several forms.
fn labelled(door: Door, name: &str, label: &str, about: Option<&str>, input: &str) -> String {
    let about = about.map(|text| format!("<small>{}</small>", escape(text))).unwrap_or_default();
    format!("<label for=\"{}-{}\">{}</label>{about}{input}", door.word(), escape(name), escape(label))
}

fn credential(name: &str, label: &str, secret: bool, door: Door, typed: &Fields) -> String {
    let (kind, value) = match secret {
        true => ("password", String::new()),
        false => ("text", escape(typed.get(&format!("c.{name}")))),
    };
    let input = format!(
        "<input id=\"{}-{name}\" name=\"c.{name}\" type=\"{kind}\" value=\"{value}\" required \
         autocapitalize=\"none\" autocomplete=\"off\" spellcheck=\"false\">",
        door.word()
    );
    labelled(door, name, label, None, &input)
}

fn field(ask: &Ask<'_>, door: Door, typed: &Fields) -> String {
    let (name, property) = (escape(ask.name), ask.property);
    let id = format!("{}-{name}", door.word());
    let required = if ask.required { " required" } else { "" };
    let given = typed.get(&format!("p.{}", ask.name));
    let default = property.default().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let value = if given.is_empty() && !property.write_only { default.unwrap_or_default() } else { given.to_owned() };
    let input = if !property.choices().is_empty() {
        let option = |choice: &String| {
            let selected = if *choice == value { " selected" } else { "" };
            format!("<option{selected}>{}</option>", escape(choice))
        };
        let options: String = property.choices().iter().map(option).collect();
        format!("<select id=\"{id}\" name=\"p.{name}\"{required}>{options}</select>")
    } else if property.kind == Kind::Boolean {
        let checked = if matches!(value.as_str(), "on" | "true") { " checked" } else { "" };
        format!("<input id=\"{id}\" name=\"p.{name}\" type=\"checkbox\"{checked}>")
    } else if property.is_pem() || matches!(property.kind, Kind::Object | Kind::Array) {
        // A field of one line would join the lines of a key.
        let value = if property.write_only { String::new() } else { escape(&value) };
        format!(
            "<textarea id=\"{id}\" name=\"p.{name}\" rows=\"4\"{required} autocapitalize=\"none\" autocomplete=\"off\" \
             spellcheck=\"false\">{value}</textarea>"
        )
    } else {
        let kind = match (property.write_only, property.kind, ask.name) {
            (true, _, _) => "password",
            (_, Kind::Integer | Kind::Number, _) => "number",
            (_, _, "baseUri") => "url",
            _ => "text",
        };
        let value = if property.write_only { String::new() } else { escape(&value) };
        let limit = property.lengths().1.map(|max| format!(" maxlength=\"{max}\"")).unwrap_or_default();
        format!(
            "<input id=\"{id}\" name=\"p.{name}\" type=\"{kind}\" value=\"{value}\"{limit}{required} \
             autocapitalize=\"none\" spellcheck=\"false\">"
        )
    };
    let label = property.title.as_deref().unwrap_or(ask.name);
    labelled(door, ask.name, label, property.description.as_deref(), &input)
}
