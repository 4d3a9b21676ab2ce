//! `connector run`: a connector tried against a real account, without a node and without a store.
//!
//! Always true: calls go out through the guarded client, inside the connector's base URI; credentials are shown and
//! written nowhere, except that a renewed pair goes back into the file it came from before it is used; what runs is
//! bounded in pages. Not here: arguments, and where what is said goes (`cli::connector`); the walk itself
//! (`connectors::trial`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::config::Config;
use crate::connectors::trial::{Ask, Found, Trial};
use crate::connectors::{
    Budget, Collection, Connector, Credentials, Exchange, Notebook, Parameters, RECORDED, Registry, Scrub, Session,
    Take, recorded_file, run_tests,
};
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::outbound::{Client, Trust};

/// How often the folder is looked at for changes.
const LOOK: Duration = Duration::from_millis(500);
/// Files and depth of a folder that is watched, as of a connector.
const FILES_MAX: usize = 500;
const DEPTH_MAX: usize = 6;
/// The largest file of parameters.
const PARAMETERS_BYTES_MAX: u64 = 1 << 20;

/// A method of a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Pull,
    Touched,
    Scan,
    Deleted,
    Fetch,
    Account,
}

impl FromStr for Method {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Ok(match text {
            "pull" => Self::Pull,
            "touched" => Self::Touched,
            "scan" => Self::Scan,
            "deleted" => Self::Deleted,
            "fetch" => Self::Fetch,
            "account" => Self::Account,
            _ => return Err("there are pull, touched, scan, deleted, fetch and account".to_owned()),
        })
    }
}

/// Credentials as they were given.
#[derive(Clone)]
pub struct Given {
    pub credentials: Value,
    /// Where they came from, if they can be written back.
    pub file: Option<PathBuf>,
}

/// What is to be run.
pub struct Wish {
    /// The connector's folder, or the key of one that is installed.
    pub folder: PathBuf,
    pub base_uri: Option<String>,
    /// A file with a JSON object.
    pub parameters: Option<PathBuf>,
    pub given: Given,
    /// None named: all.
    pub collections: Vec<String>,
    /// None: `pull`, or `scan` where there is no `pull`.
    pub method: Option<Method>,
    /// The record of `fetch`.
    pub id: Option<String>,
    pub since: Option<Millis>,
    pub pages_max: u32,
    /// Where the answers are kept as tests.
    pub record: Option<PathBuf>,
}

/// What is told of a run.
pub enum Said<'a> {
    /// A unified record, or what identifies the account.
    Record(&'a Value),
    /// One call of the app.
    Asked(&'a str),
    Note(&'a str),
}

/// Who is told.
pub type Say = Arc<dyn Fn(Said<'_>) + Send + Sync>;

/// A connector's trials, one after the other.
pub struct Trials {
    registry: Registry,
    client: Client,
    clock: Clock,
    wish: Wish,
    say: Say,
    /// Renewed since the start.
    credentials: RefCell<Option<Credentials>>,
    /// The folder as the last trial found it.
    seen: RefCell<Print>,
}

/// A folder's files with the time and size of each.
type Print = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// What one trial works with.
struct Scene {
    connector: Arc<Connector>,
    /// As they were given, without defaults.
    parameters: Parameters,
    session: Session,
    notebook: Arc<Notebook>,
    scrub: Scrub,
}

impl Trials {
    /// Makes everything that outlives one trial. Call it inside the runtime that runs the trials.
    ///
    /// # Errors
    /// The client cannot be made, or an installed connector is broken.
    pub fn new(config: &Config, wish: Wish, say: Say) -> Result<Self> {
        let client = super::apps_client(config, Trust::load(&config.tls)?)?;
        let mut options = config.connectors.clone();
        if wish.folder.is_dir() {
            // The folder may be one of these, and broken for the moment.
            options.path = None;
        }
        let registry = Registry::load(&options, &config.scripts).map_err(|error| Error::invalid(error.to_string()))?;
        let (credentials, seen) = (RefCell::default(), RefCell::default());
        Ok(Self { registry, client, clock: super::wall_clock(), wish, say, credentials, seen })
    }

    /// Runs what is wished, once.
    ///
    /// # Errors
    /// The connector is broken (file, line and field), the wish does not fit it, or the app or a script failed.
    pub async fn once(&self) -> Result<()> {
        *self.seen.borrow_mut() = print_of(&self.wish.folder);
        let scene = self.scene()?;
        if self.wish.record.is_some() {
            scene.scrub.check().map_err(Error::invalid)?;
        }
        let mut takes = Vec::new();
        for (collection, ask) in asks(&self.wish, &scene.connector).map_err(Error::invalid)? {
            takes.push(self.take(&scene, collection, ask).await?);
        }
        match &self.wish.record {
            Some(path) => self.record(&scene, path, &takes).await,
            None => Ok(()),
        }
    }

    /// Waits until the connector's folder is another than the last trial found.
    pub async fn changed(&self) {
        let mut last = self.seen.borrow().clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = print_of(&self.wish.folder);
            // An editor may still be writing: the same twice is a saved file.
            if now == last && now != *self.seen.borrow() {
                return;
            }
            last = now;
        }
    }

    fn scene(&self) -> Result<Scene> {
        let wrong = Error::invalid;
        let connector = super::offline::find(&self.registry, &self.wish.folder)?;
        let mut given = match &self.wish.parameters {
            Some(path) => parameters(path)?,
            None => Parameters::new(),
        };
        if let Some(base_uri) = &self.wish.base_uri {
            given.insert("baseUri".to_owned(), base_uri.as_str().into());
        }
        let parameters = connector.parameters.check(&given).map_err(wrong)?;
        let connector = connector.specialise(&parameters).map_err(|error| wrong(error.to_string()))?;
        let base = connector.base_uri.choose(&parameters).map_err(wrong)?;
        let renewed = self.credentials.borrow().clone();
        let credentials = renewed.map_or_else(|| Credentials::read(&self.wish.given.credentials), Ok).map_err(wrong)?;
        connector.accepts(&credentials).map_err(|why| {
            wrong(format!("{why}; give credentials by --credentials, or in the variable TIDEMILL_CREDENTIALS"))
        })?;
        let scrub = Scrub::new(&connector, &parameters, &[&credentials]);
        let budget = Arc::new(Budget::of(&connector, self.clock.now()));
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let shown = Scrub::new(&connector, &parameters, &[&credentials]);
        let session = Session::new(connector.clone(), &base, parameters, credentials, client, budget, clock);
        let notebook: Arc<Notebook> = Arc::default();
        let (say, notes) = (self.say.clone(), notebook.clone());
        let session = session.map_err(wrong)?.seen_by(Arc::new(move |exchange| {
            say(Said::Asked(&shown.clean(&line(&exchange))));
            notes.note(exchange);
        }));
        Ok(Scene { connector, parameters: given, session, notebook, scrub })
    }

    async fn take(&self, scene: &Scene, collection: Option<&Collection>, ask: Ask) -> Result<Take> {
        let keep = |fresh: &Credentials| self.keep(fresh);
        let goes_on = |pages: u32| pages < self.wish.pages_max;
        let trial = Trial::new(&scene.session).noted_in(&scene.notebook);
        // A pair that cannot be kept is not renewed: the app may make the old one worthless.
        let refreshes = scene.session.credentials().token().is_some_and(|token| token.refresh_token.is_some());
        let (trial, hint) = match refreshes && self.wish.given.file.is_none() {
            true => {
                (trial, "; a refresh token is used only where --credentials names a file that the fresh one fits into")
            }
            false => (trial.renewing(&keep), ""),
        };
        let walked = trial.run(collection, &ask, &goes_on).await.map_err(|why| {
            let of = collection.map_or_else(String::new, |c| format!(" of {}", c.key));
            Error::invalid(scene.scrub.clean(&format!("{}{of}: {why}{hint}", ask.name())))
        })?;
        for found in &walked.found {
            (self.say)(Said::Record(&shown(collection, found)));
        }
        if let Some(account) = &walked.account {
            (self.say)(Said::Record(&json!({ "account": account })));
        }
        if walked.is_cut {
            let of = collection.map_or("", |c| c.key.as_str());
            (self.say)(Said::Note(&format!(
                "{of}: there are more pages than {}; --pages says how many are read",
                self.wish.pages_max
            )));
        }
        let exchanges = scene.notebook.take();
        Ok(Take { collection: collection.map(|c| c.key.clone()), ask, exchanges, walked })
    }

    /// Keeps fresh credentials before they are used; a session that a login gave is not worth a file.
    fn keep(&self, fresh: &Credentials) -> std::result::Result<(), String> {
        let refreshes = fresh.token().is_some_and(|token| token.refresh_token.is_some());
        if let (Some(path), true) = (&self.wish.given.file, refreshes) {
            let text = fresh.to_text();
            replace(path, text.expose())
                .map_err(|e| format!("the fresh token cannot be kept in {}: {e}", path.display()))?;
            (self.say)(Said::Note(&format!("the token was renewed, and is kept in {}", path.display())));
        }
        *self.credentials.borrow_mut() = Some(fresh.clone());
        Ok(())
    }

    async fn record(&self, scene: &Scene, path: &Path, takes: &[Take]) -> Result<()> {
        let there = std::fs::read_to_string(path).unwrap_or_default();
        if path.exists() && !there.starts_with(RECORDED) {
            let message = format!("{} was not recorded but written: name another file", path.display());
            return Err(Error::invalid(message));
        }
        // Credentials may have been renewed on the way.
        let latest = scene.session.credentials();
        let first = Credentials::read(&self.wish.given.credentials).map_err(Error::invalid)?;
        let scrub = Scrub::new(&scene.connector, &scene.parameters, &[&latest, &first]);
        scrub.check().map_err(Error::invalid)?;
        let text = recorded_file(&scene.connector, &scene.parameters, takes, &scrub);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, text));
        written.map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
        let cases = if takes.len() == 1 { "1 case is" } else { &format!("{} cases are", takes.len()) };
        (self.say)(Said::Note(&format!("{cases} kept in {}", path.display())));
        self.play_back(path).await
    }

    /// A test that does not hold from the start is told at once.
    async fn play_back(&self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let real = |folder: &Path| folder.canonicalize().ok();
        if path.parent().and_then(real) != real(&self.wish.folder.join("tests")) {
            return Ok(());
        }
        let connector = super::offline::find(&self.registry, &self.wish.folder)?;
        let report = run_tests(&connector).await.map_err(|error| Error::invalid(error.to_string()))?;
        match report.failures.iter().find(|failure| failure.file == format!("tests/{name}")) {
            Some(failure) => {
                Err(Error::invalid(format!("what was recorded does not hold when it is played back: {failure}")))
            }
            None => Ok(()),
        }
    }
}

/// Which methods of which collections.
fn asks<'c>(wish: &Wish, connector: &'c Connector) -> std::result::Result<Vec<(Option<&'c Collection>, Ask)>, String> {
    if wish.method == Some(Method::Account) {
        return Ok(vec![(None, Ask::Account)]);
    }
    let mut named = Vec::new();
    for key in &wish.collections {
        let all: Vec<&str> = connector.collections.iter().map(|c| c.key.as_str()).collect();
        let found = connector.collection(key);
        named.push(found.ok_or_else(|| format!("there is no collection {key:?}; there are {}", all.join(", ")))?);
    }
    let all = if named.is_empty() { connector.collections.iter().collect() } else { named };
    let since = wish.since;
    let mut asks = Vec::new();
    for c in all {
        let (is_there, ask) = match wish.method {
            None if c.pulls() => (true, Ask::Pull { since }),
            None => (c.scans(), Ask::Scan),
            Some(Method::Pull) => (c.pulls(), Ask::Pull { since }),
            Some(Method::Scan) => (c.scans(), Ask::Scan),
            Some(Method::Touched) => (c.lists_touched(), Ask::Touched { since }),
            Some(Method::Deleted) => (c.lists_deleted(), Ask::Deleted { since }),
            Some(Method::Fetch) => (c.fetches(), Ask::Fetch { id: wish.id.clone().unwrap_or_default() }),
            Some(Method::Account) => (true, Ask::Account),
        };
        match is_there {
            true => asks.push((Some(c), ask)),
            false if wish.collections.is_empty() => {}
            false => return Err(format!("the collection {} has no {}", c.key, ask.name())),
        }
    }
    (!asks.is_empty()).then_some(asks).ok_or_else(|| "no collection has this method".to_owned())
}

/// A record as it is shown.
fn shown(collection: Option<&Collection>, found: &Found) -> Value {
    let unified = &found.unified;
    let mut record = Map::new();
    if let Some(c) = collection {
        record.insert("collection".to_owned(), c.key.as_str().into());
    }
    record.insert("remoteId".to_owned(), unified.remote_id.as_str().into());
    let times = [("remoteCreatedAt", unified.remote_created_at), ("remoteUpdatedAt", unified.remote_updated_at)];
    record.extend(times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), at?.rfc3339_millis().into()))));
    if found.record.deleted {
        record.insert("deleted".to_owned(), true.into());
    }
    if !unified.fields.is_empty() {
        record.insert("fields".to_owned(), Value::Object(unified.fields.to_map()));
    }
    Value::Object(record)
}

/// One call as it is shown.
fn line(exchange: &Exchange) -> String {
    let status = exchange.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let why = exchange.error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{} -> {status}, {} ms{why}", exchange.asked.request, exchange.took.as_millis())
}

fn parameters(path: &Path) -> Result<Parameters> {
    let wrong = |why: String| Error::invalid(format!("{}: {why}", path.display()));
    let about = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if about.len() > PARAMETERS_BYTES_MAX {
        return Err(wrong(format!("the file is larger than {PARAMETERS_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| wrong(format!("parameters are a JSON object: {e}")))
}

/// Puts a file in the place of another, whole or not at all, readable by its owner only.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// The files of a folder that decide what runs. Tests do not: a recording must not set off the next run.
fn print_of(folder: &Path) -> Print {
    let mut print = Print::new();
    gather(folder, folder, DEPTH_MAX, &mut print);
    print
}

fn gather(dir: &Path, root: &Path, depth: usize, print: &mut Print) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || path == root.join("tests") || print.len() >= FILES_MAX {
            continue;
        }
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if about.is_dir() && depth > 0 {
            gather(&path, root, depth - 1, print);
        } else {
            print.insert(path, (about.modified().ok(), about.len()));
        }
    }
}
