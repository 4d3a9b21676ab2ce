//! A connection, ready to be looked after: its connector, its parameters, its credentials.
//!
//! Always true: a connection's tokens are renewed by one caller at a time, the one that looks after it or one that passes a
//! call through, once however many calls ask for it; they are stored before they are used, and never over newer ones that
//! a person gave meanwhile; `connection/authentication_failure` is told once per set of credentials. Not here: what is
//! asked of the app.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use crate::actors::Deps;
use crate::connectors::{CallError, Collection, Connector, Credentials, OwnWebhook, Parameters, Session};
use crate::domain::connection::{Connection, ConnectionStatus, Integration};
use crate::domain::models::system::{Fault, Subject, SystemEvent};
use crate::domain::secret::Secret;
use crate::domain::snapshot::raw_hash;
use crate::domain::workspace::User;
use crate::error::{Error, Result};
use crate::store::{Rows, Slot};

/// A token is renewed so long before it ends.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// A fresh token is believed for so long: an app that refuses it sooner refuses the account. A look may outlast a token.
const RENEWED_FOR: Duration = Duration::from_secs(60);

/// A connection and what its calls need.
pub struct Account {
    pub connection: Connection,
    pub user: Option<User>,
    pub session: Session,
    /// Where the app is.
    pub base_uri: Url,
    /// The version of the mapping: the connector's, mixed with the parameters that it may use.
    pub mapping: [u8; 16],
    /// The credentials in use, as they are stored.
    stored: Mutex<Secret>,
    /// They are not renewed again before this time (milliseconds); never again after a refusal.
    renewed_until: AtomicU64,
    /// Held by the one that renews, whoever has opened the connection: a refresh token may work once.
    renewing: Arc<tokio::sync::Mutex<()>>,
    /// How often something beside the walk at hand has laid records beside the snapshot.
    others: AtomicU64,
}

/// What came of opening a connection.
pub enum Opened {
    Ready(Arc<Account>),
    /// It cannot work as it is set up; one sentence says why.
    Wrong(String),
}

impl Account {
    /// Reads all that belongs to a connection and joins it.
    pub fn open(deps: &Deps, connection: Connection) -> Result<Opened> {
        let rows: &Rows = &deps.store;
        let id = connection.id.0;
        let user = rows.user_by_id(connection.workspace, connection.user)?;
        let parameters = given_parameters(rows, &connection)?;
        let stored = rows.credentials(&id)?.unwrap_or_else(|| Secret::new("{}"));
        let joined = join(deps, &connection, parameters, &stored);
        let (session, base_uri, mapping) = match joined {
            Ok(joined) => joined,
            Err(why) => return Ok(Opened::Wrong(why)),
        };
        let stored = Mutex::new(stored);
        let (renewed_until, renewing) = (AtomicU64::new(0), deps.memory.renewing(connection.id));
        let others = AtomicU64::new(0);
        let account = Self { connection, user, session, base_uri, mapping, stored, renewed_until, renewing, others };
        Ok(Opened::Ready(Arc::new(account)))
    }

    /// How often something beside the walk at hand has laid records beside the snapshot.
    pub fn others(&self) -> u64 {
        self.others.load(Ordering::Acquire)
    }

    /// Notes that it is done once more.
    pub fn note_other(&self) {
        self.others.fetch_add(1, Ordering::AcqRel);
    }

    /// The connector, specialised for this connection.
    pub fn connector(&self) -> &Arc<Connector> {
        self.session.connector()
    }

    /// What is registered at the app for this connection, and where unless it is at an address of ours: its own webhook,
    /// or what the app's journal needs.
    pub fn registers_at(&self) -> Option<(Option<String>, &OwnWebhook)> {
        self.connector().registers_at(self.session.parameters())
    }

    /// The same without the place.
    pub fn hook(&self) -> Option<&OwnWebhook> {
        self.registers_at().map(|(_, hook)| hook)
    }

    /// The version of a collection's mapping: with the fields that it is fed with, where the app was asked for them.
    pub fn mapping_of(&self, c: &Collection) -> [u8; 16] {
        self.session.known_fields(c).map_or(self.mapping, |known| known.version(&self.mapping))
    }

    /// Calls the app; renews the token before it ends, and once on a 401.
    pub async fn call<T, F: Future<Output = std::result::Result<T, CallError>>>(
        &self,
        deps: &Deps,
        call: impl Fn() -> F,
    ) -> Result<std::result::Result<T, CallError>> {
        let mut used = self.session.credentials();
        let ends = used.token().and_then(|token| token.expires_at);
        if ends.is_some_and(|at| at <= deps.clock.now().after(RENEW_BEFORE)) && !self.just_renewed(deps) {
            // A token that cannot be renewed may still be good: the app itself says.
            let _ = self.renew(deps, &used).await?;
            used = self.session.credentials();
        }
        match Box::pin(call()).await {
            Err(CallError::Unauthorized(message)) => match self.renew(deps, &used).await? {
                Ok(()) => Ok(Box::pin(call()).await),
                Err(CallError::Unauthorized(why)) => {
                    Ok(Err(CallError::Unauthorized(if message.is_empty() { why } else { message })))
                }
                Err(error) => Ok(Err(error)),
            },
            answer => Ok(answer),
        }
    }

    /// Renews the credentials, unless they are not the ones in use any more.
    async fn renew(&self, deps: &Deps, used: &Arc<Credentials>) -> Result<std::result::Result<(), CallError>> {
        let _turn = self.renewing.lock().await;
        if !Arc::ptr_eq(used, &self.session.credentials()) {
            return Ok(Ok(()));
        }
        if self.adopt_newer(deps)? {
            return Ok(Ok(()));
        }
        if self.just_renewed(deps) {
            return Ok(Err(CallError::Unauthorized("they were renewed just now".to_owned())));
        }
        let fresh = match self.session.refresh_credentials().await {
            Ok(fresh) => fresh.to_text(),
            Err(error) => {
                // An app that cannot be reached now may be there at the next call.
                if matches!(error, CallError::Unauthorized(_)) {
                    self.renewed_until.store(u64::MAX, Ordering::Release);
                }
                return Ok(Err(error));
            }
        };
        self.renewed_until.store(deps.clock.now().after(RENEWED_FOR).0, Ordering::Release);
        let id = self.connection.id.0;
        let before = self.stored_text();
        let now_stored = deps
            .store
            .change(move |tx| {
                let current = tx.credentials(&id)?;
                if let Some(newer) = current.filter(|current| *current != before) {
                    return Ok(newer);
                }
                tx.put_secret_text(&id, Slot::Credentials, &fresh)?;
                Ok(fresh)
            })
            .await?;
        self.adopt(now_stored)?;
        Ok(Ok(()))
    }

    /// Uses what is stored now, if somebody else has renewed or changed it since. False: it is what is used already.
    fn adopt_newer(&self, deps: &Deps) -> Result<bool> {
        let stored = deps.store.credentials(&self.connection.id.0)?;
        let Some(newer) = stored.filter(|stored| *stored != self.stored_text()) else { return Ok(false) };
        self.adopt(newer)?;
        Ok(true)
    }

    fn adopt(&self, stored: Secret) -> Result<()> {
        let credentials = Credentials::from_text(stored.expose()).map_err(Error::internal)?;
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = stored;
        self.session.adopt(credentials);
        Ok(())
    }

    fn just_renewed(&self, deps: &Deps) -> bool {
        deps.clock.now().0 < self.renewed_until.load(Ordering::Acquire)
    }

    fn stored_text(&self) -> Secret {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The app refuses the credentials for good: the connection stops, and it is told once. Answers false if somebody
    /// gave new credentials meanwhile.
    pub async fn give_up(&self, deps: &Deps, message: &str) -> Result<bool> {
        let (id, workspace) = (self.connection.id, self.connection.workspace);
        let (user, failed, message) = (self.user.clone(), self.stored_text(), message.to_owned());
        deps.store
            .change(move |tx| {
                let Some(mut connection) = tx.connection(workspace, id)? else { return Ok(true) };
                if tx.credentials(&id.0)?.is_some_and(|current| current != failed) {
                    return Ok(false);
                }
                if matches!(connection.status, ConnectionStatus::AuthFailed { .. }) {
                    return Ok(true);
                }
                let now = tx.now();
                connection.status = ConnectionStatus::AuthFailed { since: now, message: message.clone() };
                connection.updated_at = now;
                tx.put_object(&connection)?;
                let error = Fault { code: "unauthorized".to_owned(), message };
                let shown = (&connection).into();
                let what = SystemEvent::ConnectionAuthenticationFailure { connection: shown, error, failed_at: now };
                tx.append_event(&what.event(Subject::Connection(&connection, user.as_ref()), now))?;
                Ok(true)
            })
            .await
    }
}

type Joined = (Session, Url, [u8; 16]);

fn join(
    deps: &Deps,
    connection: &Connection,
    given: Parameters,
    stored: &Secret,
) -> std::result::Result<Joined, String> {
    let connector = deps
        .connectors
        .get(&connection.connector)
        .ok_or_else(|| format!("there is no connector {:?} on this node", connection.connector))?;
    let connector = connector.specialise(&given).map_err(|e| e.to_string())?;
    let parameters = connector.parameters.check(&given)?;
    let credentials = Credentials::from_text(stored.expose())?;
    connector.accepts(&credentials)?;
    let base_uri = connector.address(&parameters, &credentials)?;
    let budget = deps.memory.budget(connection.id, &connector, deps.clock.now());
    // Where the app is changes no record.
    let mut shaping = parameters.clone();
    shaping.shift_remove("baseUri");
    let mapping = raw_hash(&connector.version, &Value::Object(shaping).to_string());
    let (client, clock) = (deps.apps.clone(), deps.clock.clone());
    let session = Session::new(connector, &base_uri, parameters, credentials, client, budget, clock)?;
    let session = session.of_account(connection.account.clone());
    Ok((session, base_uri, mapping))
}

/// All parameters that a connection has, its integration's and secret ones included.
pub fn given_parameters(rows: &Rows, connection: &Connection) -> Result<Parameters> {
    let integration = match connection.integration {
        Some(id) => rows.integration(connection.workspace, id)?,
        None => None,
    };
    let mut parameters = match &integration {
        Some(integration) => integration_parameters(rows, integration)?,
        None => Map::new(),
    };
    parameters.extend(object(&connection.parameters)?);
    parameters.extend(secret_object(rows, &connection.id.0)?);
    Ok(parameters)
}

/// An integration's parameters, secret ones included.
pub fn integration_parameters(rows: &Rows, integration: &Integration) -> Result<Parameters> {
    let mut parameters = object(&integration.parameters)?;
    parameters.extend(secret_object(rows, &integration.id.0)?);
    Ok(parameters)
}

fn secret_object(rows: &Rows, owner: &[u8; 12]) -> Result<Parameters> {
    match rows.secret_parameters(owner)? {
        Some(text) => object(text.expose()),
        None => Ok(Map::new()),
    }
}

/// Parameters as they are stored.
pub fn object(text: &str) -> Result<Parameters> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(Error::internal)
}
