//! Texts with holes: `/rest/{{parameters.store}}/V1/orders/{{record.id}}`.
//!
//! Always true: a hole that has no value makes the whole text absent, so that a query parameter or a header with an empty
//! hole is left out; a list of texts fills one with commas between. In a path, what fills a hole is percent-encoded (`{{parameters.prefix|raw}}` is not). Not here:
//! conditions and arithmetic (`connectors::mapping` has them).

use std::collections::BTreeSet;

use super::mapping::path::{Path, Step};
use super::mapping::reads::member;
use super::mapping::{Env, written};
use crate::domain::json::Json;

/// What a hole may begin with.
pub const VARIABLES: &[&str] = &[
    "parameters",
    "credentials",
    "since",
    "until",
    "page",
    "record",
    "each",
    "webhook",
    "state",
    "subscription",
    "journal",
    "baseUri",
    "connection",
    "fields",
    "object",
    "values",
];

/// A text with holes, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Hole { path: Path, filters: Vec<Filter> },
}

/// What is done with a value before it fills its hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// Not percent-encoded.
    Raw,
    Lower,
    Upper,
    /// `_` becomes `-`.
    Dashes,
    /// `-` becomes `_`.
    Underscores,
}

impl Filter {
    const ALL: [(&'static str, Self); 5] = [
        ("raw", Self::Raw),
        ("lower", Self::Lower),
        ("upper", Self::Upper),
        ("dashes", Self::Dashes),
        ("underscores", Self::Underscores),
    ];
    fn apply(self, text: String) -> String {
        match self {
            Self::Raw => text,
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Dashes => text.replace('_', "-"),
            Self::Underscores => text.replace('-', "_"),
        }
    }
}

impl Template {
    /// Reads a template. The error is one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (hole, after) =
                after.split_once("}}").ok_or_else(|| format!("{text:?} opens {{{{ and does not close it"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(parse_hole(hole.trim())?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }
    /// The text with its holes filled. None if one has no value.
    pub fn render(&self, env: &Env<'_>) -> Option<String> {
        self.fill(env, |_, text| text.to_owned())
    }
    /// The same for a URL's path: what fills a hole is percent-encoded.
    pub fn render_path(&self, env: &Env<'_>) -> Option<String> {
        self.fill(env, |_, text| encode(text))
    }
    /// The same for a whole address: a hole that begins it is an address by itself; what fills any other is
    /// percent-encoded, so that nobody's parameter moves the address to another host.
    pub fn render_url(&self, env: &Env<'_>) -> Option<String> {
        self.fill(env, |place, text| if place == 0 { text.to_owned() } else { encode(text) })
    }
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
    /// Whether a hole begins with that name.
    pub fn uses(&self, variable: &str) -> bool {
        self.roots().any(|root| root == variable)
    }
    /// What a hole that begins the text begins with: in an address, whoever fills it says which host that is.
    pub fn begins_with(&self) -> Option<&str> {
        match self.parts.first() {
            Some(Part::Hole { path, .. }) => Some(&path.root),
            _ => None,
        }
    }
    /// Whether a hole is that parameter.
    pub fn uses_parameter(&self, name: &str) -> bool {
        let is = |path: &Path| {
            path.root == "parameters" && matches!(path.steps.first(), Some(Step::Key(key)) if key == name)
        };
        self.parts.iter().any(|part| matches!(part, Part::Hole { path, .. } if is(path)))
    }
    /// The members of a variable that its holes name.
    pub fn names(&self, variable: &str) -> BTreeSet<String> {
        self.holes()
            .filter(|path| path.root == variable)
            .filter_map(|path| member(path, None))
            .map(str::to_owned)
            .collect()
    }
    /// What its holes begin with.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.holes().map(|path| path.root.as_str())
    }
    /// Where its holes lead.
    pub fn holes(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole { path, .. } => Some(path),
            Part::Text(_) => None,
        })
    }
    fn fill(&self, env: &Env<'_>, encode: fn(usize, &str) -> String) -> Option<String> {
        let mut filled = String::new();
        for (place, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Hole { path, filters } => {
                    let text = match &*env.find(path)? {
                        Json::List(items) if !items.is_empty() => {
                            items.iter().map(plain).collect::<Option<Vec<_>>>()?.join(",")
                        }
                        value => plain(value)?.to_owned(),
                    };
                    let text = filters.iter().fold(text, |text, filter| filter.apply(text));
                    filled.push_str(&if filters.contains(&Filter::Raw) { text } else { encode(place, &text) });
                }
            }
        }
        Some(filled)
    }
}

impl<'de> serde::Deserialize<'de> for Template {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What is one text.
fn plain<'j>(value: &'j Json<'_>) -> Option<&'j str> {
    match value {
        Json::Bool(true) => Some("true"),
        Json::Bool(false) => Some("false"),
        other => written(other),
    }
}

fn parse_hole(hole: &str) -> Result<Part, String> {
    let mut parts = hole.split('|');
    let path = Path::parse_bare(parts.next().unwrap_or_default().trim())?;
    if !VARIABLES.contains(&path.root.as_str()) {
        return Err(format!("{{{{{hole}}}}} names nothing; a hole begins with one of {}", VARIABLES.join(", ")));
    }
    let filter = |name: &str| Filter::ALL.iter().find(|(known, _)| *known == name).map(|(_, filter)| *filter);
    let filters = parts.map(|name| {
        filter(name.trim()).ok_or_else(|| {
            let known = Filter::ALL.map(|(name, _)| name).join(", ");
            format!("{{{{{hole}}}}} asks for {:?}; known are {known}", name.trim())
        })
    });
    Ok(Part::Hole { path, filters: filters.collect::<Result<_, _>>()? })
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn holes_are_filled_and_encoded_in_paths() {
        let parameters = json!({"store": "a b/c", "page": 2});
        let variables = [("parameters", &parameters)];
        let env = Env::of(&variables);
        let template = Template::parse("/rest/{{parameters.store}}/x/{{ parameters.page }}").unwrap();
        assert_eq!(template.render_path(&env).unwrap(), "/rest/a%20b%2Fc/x/2");
        assert_eq!(template.render(&env).unwrap(), "/rest/a b/c/x/2");
        let raw = Template::parse("{{parameters.store|raw}}").unwrap();
        assert_eq!(raw.render_path(&env).unwrap(), "a b/c");
    }

    #[test]
    fn a_hole_inside_an_address_moves_it_to_no_other_host() {
        let parameters = json!({"shop": "evil.example/?x=", "base": "https://shop.example/a"});
        let variables = [("parameters", &parameters)];
        let env = Env::of(&variables);
        let inside =
            Template::parse("https://{{parameters.shop}}.app.example/token").unwrap().render_url(&env).unwrap();
        assert!(url::Url::parse(&inside).is_err(), "{inside}");
        let first = Template::parse("{{parameters.base}}/token").unwrap();
        assert_eq!(first.render_url(&env).unwrap(), "https://shop.example/a/token");
    }

    #[test]
    fn filters_shape_a_value_and_leave_it_encoded() {
        let parameters = json!({"account": "1234567_SB1", "evil": "a.example/x"});
        let variables = [("parameters", &parameters)];
        let env = Env::of(&variables);
        let made = |text: &str| Template::parse(text).unwrap().render_url(&env).unwrap();
        assert_eq!(made("https://{{parameters.account|lower|dashes}}.x.example"), "https://1234567-sb1.x.example");
        assert_eq!(made("{{parameters.account | upper | underscores}}"), "1234567_SB1");
        assert_eq!(made("https://{{parameters.evil|lower}}.x.example"), "https://a.example%2Fx.x.example");
    }

    #[test]
    fn a_hole_without_a_value_makes_the_text_absent() {
        let env = Env::of(&[]);
        assert_eq!(Template::parse("after={{since.id}}").unwrap().render(&env), None);
    }

    #[test]
    fn a_list_of_texts_fills_a_hole_with_commas_and_an_empty_one_does_not() {
        let fields = json!({"names": ["Id", "Name"], "none": [], "odd": [{}]});
        let variables = [("fields", &fields)];
        let env = Env::of(&variables);
        let made = |text: &str| Template::parse(text).unwrap().render(&env);
        assert_eq!(made("SELECT {{fields.names}} FROM A").as_deref(), Some("SELECT Id,Name FROM A"));
        assert_eq!((made("{{fields.none}}"), made("{{fields.odd}}")), (None, None));
    }

    #[test]
    fn a_wrong_hole_is_named() {
        assert!(Template::parse("{{recrod.id}}").unwrap_err().contains("recrod.id"));
        assert!(Template::parse("{{record.id").unwrap_err().contains("close"));
        assert!(Template::parse("{{record.id|shout}}").unwrap_err().contains("shout"));
    }
}
