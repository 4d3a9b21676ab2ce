//! `/node`: the node itself, as its operator sees it: which store it has, backups of it, and going on after a restore.
//!
//! Always true: a backup lies beside the store, under a name that is no path, and there are only so many; a restored store
//! goes on only when its original was looked for and is said to be stopped. Not here: making and restoring (`store`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::call::Call;
use super::health::Phase;
use super::reply::Reply;
use super::route::{Access, Route, Surface, group};
use super::shapes::Deleted;
use crate::error::{Code, Error, Result};
use crate::outbound::{Method, Request};
use crate::store::{self, Note, Owed};

/// Backups kept beside a store: each keeps files alive that the store has rewritten since.
const BACKUPS_MAX: usize = 10;
const FOLDER: &str = "backups";
/// Where a node says who it is.
pub const WHO: &str = "/.well-known/tidemill";
/// The original is waited for so long.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
const WHO_BYTES_MAX: usize = 4096;
/// The actors have started by then.
const START_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewBackup {}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BackupView {
    name: String,
    /// The folder, on the node's machine. Its files must not be changed.
    path: String,
    made_at: String,
    /// Of the store's rows.
    version: u32,
    /// Of the node that made it.
    build: String,
    store_id: String,
    /// Tells the master key that opens it; the key itself is not in the backup.
    key_fingerprint: String,
}

#[derive(Serialize, JsonSchema)]
struct OneBackup {
    backup: BackupView,
}

#[derive(Serialize, JsonSchema)]
struct Backups {
    backups: Vec<BackupView>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OwedView {
    /// Deliveries that wait. Those that the original delivered after the backup come a second time, under the same
    /// `webhook-id`.
    deliveries: u64,
    /// Events not yet given to subscriptions; 10000 stands for that or more.
    events: u64,
    /// Subscriptions that are owed something.
    subscriptions: u64,
    /// Those that are owed most.
    most: Vec<LaneView>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct LaneView {
    subscription_id: String,
    /// Scheme and host.
    address: String,
    pending: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    version: &'static str,
    store_id: String,
    /// How often the store was restored from a backup.
    restores: u32,
    /// `starting`, `ready`, `paused` or `draining`; `stopped` where the command line looks at a store without a node.
    phase: &'static str,
    /// Set while it is paused: when the backup was made, and when it was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_at: Option<String>,
    /// What it sends when it goes on; only while it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    owed: Option<OwedView>,
}

#[derive(Serialize, JsonSchema)]
struct OneNode {
    node: NodeView,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Resume {
    /// Nobody runs the node any more that the backup is of.
    #[serde(default)]
    original_is_stopped: bool,
}

/// Who a node is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Who {
    pub store_id: String,
    /// Drawn at each start, so that one process is told from another that has a copy of the store.
    pub instance: String,
}

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/node/backups", "/node/backups/{name}");
    let node = |route: Route| route.only(Access::Node);
    let resume = Route::post("/node/resume", "Let a restored node go on, once its original is stopped", resume);
    let who = Route::get(WHO, "Which store this is, and which process has it", who);
    let routes = vec![
        node(Route::get("/node", "The node, and what it will send if it is paused", show)).gives::<OneNode>(),
        node(resume).takes::<Resume>().gives::<OneNode>(),
        node(Route::post(all, "Make a backup of the running store", create)).takes::<NewBackup>().gives::<OneBackup>(),
        node(Route::get(all, "List the backups beside the store, newest first", list)).gives::<Backups>(),
        node(Route::delete(one, "Delete a backup", delete)).gives::<Deleted>(),
        who.only(Access::Open).at(Surface::Public).gives::<Who>(),
    ];
    group("node", routes)
}

async fn create(call: Call) -> Result<Reply> {
    let NewBackup {} = call.json()?;
    let (folder, now) = (folder(&call), call.now());
    let (all, _one_at_a_time) = (folder.clone(), call.state.backups.lock().await);
    let there = tokio::task::spawn_blocking(move || found(&all)).await.map_err(Error::internal)?;
    if there.len() >= BACKUPS_MAX {
        let message = format!(
            "there are {BACKUPS_MAX} backups in {} already: copy them elsewhere and delete some",
            folder.display()
        );
        return Err(Error::new(Code::Conflict, message));
    }
    let base = now.rfc3339_seconds().replace(':', "-");
    let mut names = (1..).map(|n| if n == 1 { base.clone() } else { format!("{base}-{n}") });
    let name = names.find(|name| !folder.join(name).exists()).unwrap_or(base.clone());
    let note = call.state.store.back_up(folder.join(&name), now).await?;
    Reply::json(&OneBackup { backup: view(&folder, &name, note) })
}

async fn list(call: Call) -> Result<Reply> {
    let folder = folder(&call);
    let all = folder.clone();
    let found = tokio::task::spawn_blocking(move || found(&all)).await.map_err(Error::internal)?;
    let backups = found.into_iter().map(|(name, note)| view(&folder, &name, note)).collect();
    Reply::json(&Backups { backups })
}

async fn delete(call: Call) -> Result<Reply> {
    let (folder, name) = (folder(&call), call.param("name")?.to_owned());
    let wanted = name.clone();
    let remove = move || match found(&folder).iter().any(|(there, _)| *there == wanted) {
        true => std::fs::remove_dir_all(folder.join(&wanted)).map_err(Error::internal),
        false => {
            let message = format!("there is no backup `{}`", wanted.chars().take(64).collect::<String>());
            Err(Error::new(Code::BackupNotFound, message))
        }
    };
    tokio::task::spawn_blocking(remove).await.map_err(Error::internal)??;
    Reply::json(&Deleted::new("name", name))
}

async fn show(call: Call) -> Result<Reply> {
    node(&call, call.state.health.phase().name()).await
}

async fn node(call: &Call, phase: &'static str) -> Result<Reply> {
    let node = call.read(move |rows| {
        let (identity, paused) = (rows.identity()?, rows.paused()?);
        let owed = paused.is_some().then(|| rows.owed_in_all()).transpose()?;
        Ok(NodeView {
            version: env!("CARGO_PKG_VERSION"),
            store_id: identity.id,
            restores: identity.restores,
            phase,
            backup_at: paused.as_ref().map(|paused| paused.backup_at.rfc3339_seconds()),
            restored_at: paused.map(|paused| paused.restored_at.rfc3339_seconds()),
            owed: owed.map(owed_view),
        })
    });
    Reply::json(&OneNode { node: node.await? })
}

async fn resume(call: Call) -> Result<Reply> {
    let asked: Resume = call.json()?;
    if call.read(|rows| rows.paused()).await?.is_none() {
        return Err(Error::new(Code::Conflict, "the node is not paused"));
    }
    let reached_us = match &call.state.options.public_url {
        Some(url) => reaches_us(&call, url).await?,
        None => false,
    };
    if !reached_us && !asked.original_is_stopped {
        let message = "two nodes with one store would poll and deliver everything twice, and nothing here shows that the \
                       original is gone: stop it, and say {\"originalIsStopped\":true}";
        return Err(Error::invalid(message));
    }
    call.state.store.unpause().await?;
    let health = &call.state.health;
    health.go_on();
    // Without a node (the command line on the store itself) nobody goes on until one is started.
    let mut phase = health.watch();
    let _ = tokio::time::timeout(START_TIMEOUT, phase.wait_for(|phase| *phase != Phase::Paused)).await;
    node(&call, health.phase().name()).await
}

/// Whether the public URL leads to this very process.
///
/// # Errors
/// It leads to another process that has a copy of this store.
async fn reaches_us(call: &Call, public_url: &Url) -> Result<bool> {
    let ours = us(call).await?;
    let url = format!("{}{WHO}", public_url.as_str().trim_end_matches('/'));
    let Ok(url) = Url::parse(&url) else { return Ok(false) };
    let mut request = Request::new(Method::GET, url);
    (request.timeout, request.read_limit) = (LOOK_TIMEOUT, WHO_BYTES_MAX);
    let (apps, runtime) = (call.state.deps.apps.clone(), call.state.deps.runtime.clone());
    let answer = runtime.spawn(async move { apps.send(request).await }).await.map_err(Error::internal)?;
    let Some(who) = answer.ok().and_then(|answer| serde_json::from_slice::<Who>(&answer.body).ok()) else {
        return Ok(false);
    };
    if who.store_id == ours.store_id && who.instance != ours.instance {
        let message = format!("a node with this very store answers at {public_url}: stop the original first");
        return Err(Error::new(Code::Conflict, message));
    }
    Ok(who.instance == ours.instance)
}

async fn us(call: &Call) -> Result<Who> {
    let store_id = call.read(|rows| rows.identity()).await?.id;
    Ok(Who { store_id, instance: call.state.instance.clone() })
}

async fn who(call: Call) -> Result<Reply> {
    Reply::json(&us(&call).await?)
}

fn folder(call: &Call) -> PathBuf {
    call.state.options.storage_path.join(FOLDER)
}

/// The whole backups in the folder, newest first.
fn found(folder: &Path) -> Vec<(String, Note)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, store::note(&entry.path()).ok()?)));
    let mut all: Vec<_> = named.filter(|(name, _)| !name.ends_with(".unfinished")).collect();
    all.sort_by(|(a, _), (b, _)| b.cmp(a));
    all
}

fn view(folder: &Path, name: &str, note: Note) -> BackupView {
    let path = folder.join(name);
    BackupView {
        name: name.to_owned(),
        path: std::path::absolute(&path).unwrap_or(path).display().to_string(),
        made_at: note.made_at.rfc3339_seconds(),
        version: note.version,
        build: note.build,
        store_id: note.store.id,
        key_fingerprint: note.key_fingerprint,
    }
}

fn owed_view(owed: Owed) -> OwedView {
    let most = owed.most.into_iter().map(|(id, address, pending)| LaneView {
        subscription_id: id.to_string(),
        address,
        pending,
    });
    OwedView { deliveries: owed.deliveries, events: owed.events, subscriptions: owed.lanes, most: most.collect() }
}
