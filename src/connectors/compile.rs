//! A folder of files becomes a [`Connector`]: everything is read, checked and compiled here, once.
//!
//! Always true: a connector that comes out of here has no broken file, no unknown one, and no name that leads nowhere;
//! the error is one sentence that names file, line and field. Not here: which folders there are (`connectors::registry`).

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use super::compile_parts as parts;
use super::files::{BaseUriFile, ConnectorFile, HeadFile};
use super::folder::{Folder, SpecError};
use super::graphql::{self, GraphqlFile};
use super::made::Made;
use super::mapping::Mapping;
use super::schema::{GivenBy, Property, Schema};
use super::script::{self, Script};
use super::spec::{Account, BaseUri, Connector, Method};
use super::template::Template;
use super::{Parameters, absent, bulk, yaml};

/// What every connector is compiled with.
#[derive(Clone)]
pub struct Common {
    pub deadline: Duration,
    pub answer_bytes_max: usize,
    pub scripts: script::Pool,
    /// None: the scripts were checked before.
    pub script_options: Option<script::Options>,
}

/// Compiles a folder; a templated one with its parameters' defaults.
pub fn connector(folder: Folder, common: &Common) -> Result<Connector, SpecError> {
    let key = folder.key.clone();
    let named = |error: SpecError| SpecError { connector: key.clone(), ..error };
    let folder = Arc::new(folder);
    let defaults = head(&folder).map_err(named)?.parameters_schema.defaults();
    with_parameters(&folder, &defaults, common).map_err(named)
}

/// Compiles a templated connector's folder again, with other parameters.
pub fn specialised(connector: &Connector, parameters: &Parameters) -> Result<Connector, SpecError> {
    let common = Common {
        deadline: connector.deadline,
        answer_bytes_max: connector.answer_bytes_max,
        scripts: connector.scripts.clone(),
        script_options: None,
    };
    let mut all = connector.parameters.defaults();
    all.extend(parameters.clone());
    with_parameters(&connector.folder, &all, &common)
        .map_err(|error| SpecError { connector: connector.key.clone(), ..error })
}

pub(super) fn head(folder: &Folder) -> Result<HeadFile, SpecError> {
    yaml::read("spec.yml", folder.text("spec.yml")?)
}

fn with_parameters(source: &Arc<Folder>, parameters: &Parameters, common: &Common) -> Result<Connector, SpecError> {
    let filled = match head(source)?.templated {
        true => Folder::of(&source.key, source.files().map(|(path, bytes)| fill(path, bytes, parameters))),
        false => Folder::clone(source),
    };
    let builder = Builder { folder: &filled, common, used: RefCell::default(), graphql: OnceCell::new() };
    let spec: ConnectorFile = builder.yaml("spec.yml")?;
    if let Some(graphql) = &spec.graphql {
        builder.graphql.get_or_init(|| graphql.clone());
    }
    let wrong = |field: &str, message: String| Err(SpecError::in_file("spec.yml", message).field(field));
    if spec.key != filled.key {
        return wrong("key", format!("the key {:?} is not the folder's name {:?}", spec.key, filled.key));
    }
    if let Some(name) = spec.parameters_schema.undeclared() {
        return wrong("parametersSchema.required", format!("{name:?} is not among the properties"));
    }
    if spec.auth.is_empty() {
        return wrong(
            "auth",
            "there must be at least one way; use `- none` where the app needs no credentials".to_owned(),
        );
    }
    let schema = schema(&spec);
    let collections = parts::collections(&builder, spec.templated)?;
    let connector = Connector {
        key: spec.key,
        name: spec.name,
        category: spec.category,
        description: spec.description,
        version: version(&filled),
        not_supported: absent::topics(&spec.not_supported, &collections)?,
        collections,
        webhook: parts::own_webhook(&builder)?,
        global_webhooks: parts::global_webhooks(&builder)?,
        events: parts::events(&builder)?,
        bulk: bulk::calls(&builder)?,
        parameters: schema,
        base_uri: base_uri(spec.base_uri),
        cost: spec.budget.as_ref().and_then(|budget| budget.cost.clone()),
        graphql: spec.graphql,
        warnings: spec.warnings.iter().map(|name| name.to_ascii_lowercase()).collect(),
        budget: spec.budget.map(Into::into),
        budgets: spec.budgets.into_iter().map(|(name, budget)| (name, budget.into())).collect(),
        deadline: spec.deadline.map_or(common.deadline, |deadline| deadline.0),
        answer_bytes_max: common.answer_bytes_max,
        account: account(&builder, spec.account)?,
        check: builder.call("check")?,
        auth: spec.auth,
        headers: spec.headers,
        errors: spec.errors,
        error_message: spec.error_message,
        templated: spec.templated,
        folder: Arc::clone(source),
        scripts: common.scripts.clone(),
        made: Made::default(),
    };
    builder.unused()?;
    super::across::across(&connector)?;
    match connector.base_uri.default.is_none() && connector.base_uri.given_by == GivenBy::Integration {
        true => wrong("baseUri.default", "it is missing: an address that only the integration may change".to_owned()),
        false => Ok(connector),
    }
}

fn account(builder: &Builder<'_>, told: Option<Template>) -> Result<Account, SpecError> {
    if let Some(template) = told {
        return Ok(Account::Template(template));
    }
    Ok(match builder.call("account")? {
        Method::Missing => Account::Unknown,
        method => Account::Call(Box::new(method)),
    })
}

/// The parameters, and `baseUri`.
fn schema(spec: &ConnectorFile) -> Schema {
    let mut schema = spec.parameters_schema.clone();
    let told = spec.base_uri.description.as_deref().unwrap_or("Address of the app, where it is not the usual one.");
    schema.add("baseUri", Property::text("Base URI", told, spec.base_uri.given_by));
    schema
}

fn base_uri(BaseUriFile { default, given_by, suffix, .. }: BaseUriFile) -> BaseUri {
    BaseUri { default, given_by, suffix }
}

/// `${name}` becomes the parameter as JSON, which is YAML too. A parameter that is not set becomes null.
pub(super) fn fill(path: &str, bytes: &[u8], parameters: &Parameters) -> (String, Vec<u8>) {
    let text = std::str::from_utf8(bytes).ok().filter(|_| path.ends_with(".yml") && !path.starts_with("tests/"));
    let Some(text) = text else { return (path.to_owned(), bytes.to_vec()) };
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                filled.push_str(&parameters.get(name).map_or_else(|| "null".to_owned(), ToString::to_string));
                rest = after;
            }
            _ => {
                filled.push_str("${");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    (path.to_owned(), filled.into_bytes())
}

/// The hash of what decides how records are read. Tests and docs decide nothing.
fn version(folder: &Folder) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for (path, bytes) in folder.files().filter(|(path, _)| decides(path)) {
        context.update(path.as_bytes());
        context.update(&[0]);
        context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(bytes);
    }
    let mut version = [0; 16];
    version.copy_from_slice(&context.finish().as_ref()[..16]);
    version
}

fn decides(path: &str) -> bool {
    !path.starts_with("tests/") && !path.starts_with("docs/") && !path.ends_with(".md")
}

/// The suffixes of methods.
const SUFFIXES: [&str; 5] = ["js", "rest.yml", "map.yml", "graphql.yml", "not-supported"];

/// A method's file.
pub struct Found<'f> {
    pub path: String,
    pub suffix: &'static str,
    pub text: &'f str,
}

/// Reads a folder's files and remembers which were used.
pub struct Builder<'a> {
    pub folder: &'a Folder,
    common: &'a Common,
    used: RefCell<BTreeSet<String>>,
    /// Where queries go, once spec.yml was read.
    pub graphql: OnceCell<GraphqlFile>,
}

impl<'a> Builder<'a> {
    /// A file's text.
    pub fn text(&self, path: &str) -> Result<&'a str, SpecError> {
        self.used.borrow_mut().insert(path.to_owned());
        self.folder.text(path)
    }
    /// Where a method of a collection is written: in its own folder, else in `shared/` for all that have none.
    pub fn place(&self, dir: &str, method: &str) -> String {
        let own = format!("{dir}/{method}");
        let shared = format!("shared/{method}");
        let has = |path: &str| SUFFIXES.iter().any(|suffix| self.folder.has(&format!("{path}.{suffix}")));
        if !has(&own) && has(&shared) { shared } else { own }
    }
    /// A typed YAML file.
    pub fn yaml<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, SpecError> {
        yaml::read(path, self.text(path)?)
    }
    /// The file of a method, whatever its suffix. Two of them are an error.
    pub fn find(&self, method: &str) -> Result<Option<Found<'a>>, SpecError> {
        let mut found: Option<Found<'a>> = None;
        for suffix in SUFFIXES {
            let path = format!("{method}.{suffix}");
            if !self.folder.has(&path) {
                continue;
            }
            if let Some(first) = &found {
                return Err(SpecError::in_file(path, format!("{} says the same method already", first.path)));
            }
            let text = self.text(&path)?;
            found = Some(Found { path, suffix, text });
        }
        Ok(found)
    }
    /// A method, where REST files are read by `rest`, and expressions may be there with these variables or not at all.
    pub fn method<R>(
        &self,
        method: &str,
        rest: Option<&dyn Fn(&str, &str) -> Result<R, SpecError>>,
        variables: Option<&[&str]>,
    ) -> Result<Method<R>, SpecError> {
        let Some(found) = self.find(method)? else { return Ok(Method::Missing) };
        match (found.suffix, rest, variables) {
            ("not-supported", ..) => Ok(Method::NotSupported(found.text.trim().to_owned())),
            ("js", ..) => self.script(&found).map(Method::Script),
            ("rest.yml", Some(rest), _) => rest(&found.path, found.text).map(Method::Rest),
            ("map.yml", _, Some(variables)) => Mapping::read(&found.path, found.text, variables).map(Method::Map),
            (suffix, ..) => Err(SpecError::in_file(found.path, format!("this method cannot be written as .{suffix}"))),
        }
    }
    /// The same, where a query may be there too.
    pub fn method_or_query<R>(
        &self,
        method: &str,
        rest: &dyn Fn(&str, &str) -> Result<R, SpecError>,
        query: &dyn Fn(&Found<'_>) -> Result<R, SpecError>,
    ) -> Result<Method<R>, SpecError> {
        match self.find(method)? {
            Some(found) if found.suffix == "graphql.yml" => query(&found).map(Method::Rest),
            _ => self.method(method, Some(rest), None),
        }
    }
    /// A call whose result is an expression.
    pub fn call(&self, method: &str) -> Result<Method<super::rest::CallRest>, SpecError> {
        let rest = |file: &str, text: &str| super::rest::CallRest::new(file, &yaml::read(file, text)?);
        self.method_or_query(method, &rest, &|found| graphql::call(self, found))
    }
    fn script(&self, found: &Found<'_>) -> Result<Arc<Script>, SpecError> {
        let script = Script { file: format!("{}/{}", self.folder.key, found.path), source: found.text.to_owned() };
        if let Some(options) = &self.common.script_options {
            script::check(options, &script).map_err(|error| {
                let line = error.line.map_or(0, u64::from);
                SpecError::in_file(found.path.clone(), error.message).at(line)
            })?;
        }
        Ok(Arc::new(script))
    }
    /// A file that nothing reads is a mistake: a misspelt name would silently do nothing.
    fn unused(&self) -> Result<(), SpecError> {
        let used = self.used.borrow();
        match self.folder.paths().find(|path| decides(path) && !used.contains(*path)) {
            None => Ok(()),
            Some(path) => Err(SpecError::in_file(path, "nothing reads a file of this name; see docs/connectors.md")),
        }
    }
}
