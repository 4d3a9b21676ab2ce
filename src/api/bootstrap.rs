//! What the first start makes: the default workspace, its signing keys, and a key to call the API with.
//!
//! Always true: a key that is made is shown once, to a terminal or in a file that only its owner can read, before it
//! works; a key of the configuration works exactly as long as the configuration has it. Not here: further keys (`keys`).

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::auth::key_digest;
use super::keys::{self, draw};
use super::options::Options;
use super::workspaces;
use crate::clock::Clock;
use crate::domain::id::{KeyId, WorkspaceNo};
use crate::domain::secret::Secret;
use crate::domain::workspace::{ApiKey, Scope};
use crate::error::{Error, Result};
use crate::store::{Store, Tx};

/// The id of the configuration's key: there is one at most.
const CONFIGURED: KeyId = KeyId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const NAME: &str = "default";
const FILE: &str = "api-key";

/// Where a fresh key is shown. An argument, so that tests need no terminal.
pub trait Show {
    /// Shows the key once.
    ///
    /// # Errors
    /// When nobody could see it; the key is then not made.
    fn show(&self, key: &Secret, folder: &Path) -> Result<()>;
}

/// A terminal if there is one, else a file of mode 0600 in the store's folder, whose path is logged.
pub struct TerminalOrFile;

impl Show for TerminalOrFile {
    fn show(&self, key: &Secret, folder: &Path) -> Result<()> {
        let mut out = std::io::stdout();
        if out.is_terminal() {
            let text = format!("API key (shown once, keep it safe): {}\n", key.expose());
            return out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::internal);
        }
        let path = write_file(key, folder)?;
        tracing::info!(path = %path.display(), "made an API key and wrote it to a file that only its owner can read");
        Ok(())
    }
}

fn write_file(key: &Secret, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(FILE);
    let failed = |error: std::io::Error| {
        let mut told = Error::internal(error);
        told.message = format!("cannot write the API key to {}", path.display());
        told
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let text = format!("{}\n", key.expose());
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(path)
}

/// Makes what is missing. Call it once, before the API is served.
///
/// # Errors
/// The store cannot be written, or a fresh key could not be shown.
pub async fn run(store: &Store, clock: &Clock, options: &Options, show: &(dyn Show + Sync)) -> Result<()> {
    if store.blocking(|rows| rows.workspace_by_no(WorkspaceNo::DEFAULT)).await?.is_none() {
        let now = clock.now();
        let signing = tokio::task::spawn_blocking(move || workspaces::signing_keys(now));
        let signing = signing.await.map_err(Error::internal)??;
        let put = move |tx: &mut Tx<'_>| workspaces::put(tx, WorkspaceNo::DEFAULT, NAME.to_owned(), &signing);
        store.change(put).await?;
    }
    let configured = options.api_key.clone();
    let has_keys = store.change(move |tx| configured_key(tx, configured.as_ref())).await?;
    if !has_keys {
        let secret = draw()?;
        show.show(&secret, &options.storage_path)?;
        store.change(move |tx| keys::put_admin(tx, WorkspaceNo::DEFAULT, "first", &secret)).await?;
    }
    Ok(())
}

/// Lays the configuration's key over the one before; answers whether the default workspace has any key then.
fn configured_key(tx: &mut Tx<'_>, secret: Option<&Secret>) -> Result<bool> {
    let before = tx.api_key(WorkspaceNo::DEFAULT, CONFIGURED)?;
    let Some(secret) = secret else {
        if let Some(before) = &before {
            tx.delete_object(before)?;
        }
        let all = tx.api_keys(WorkspaceNo::DEFAULT, None, 2)?.items;
        return Ok(all.iter().any(|key| key.id != CONFIGURED));
    };
    let key = ApiKey {
        id: CONFIGURED,
        workspace: WorkspaceNo::DEFAULT,
        name: "security.api_key".to_owned(),
        scopes: vec![Scope::Admin],
        user: None,
        expires_at: None,
        created_at: before.map_or(tx.now(), |key| key.created_at),
        digest: key_digest(secret.expose()),
    };
    // The same text as a key that was made by a call: that one stays, and stays what it is.
    if tx.rival(&key)?.is_none() {
        tx.put_object(&key)?;
    }
    Ok(true)
}
