//! The fields that a connection's account has: read at the first look, again every day, and when the app says that one
//! that was asked for is not there any more.
//!
//! Always true: fields that were read are stored before the records that were asked for with them; a list that cannot be
//! read again leaves the one before in use, and where the connector can do without one, its collection is read without.
//! Fields that come or go change the version of the collection's mapping (`Account::mapping_of`), and what follows from
//! that is what follows from a new mapping: everything is read again, and what has not changed at the app changes silently.
//! Nothing cheaper is right: only reading tells what stands in a field that was not asked for before. Not here: how they
//! are read (`connectors::fields`).

use std::time::Duration;

use super::account::Account;
use crate::actors::Deps;
use crate::connectors::{CallError, Collection};
use crate::domain::app_field::AppFields;
use crate::error::Result;
use crate::store::Wait;

/// How long a list is believed.
const READ_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Takes the fields that were read before, without asking the app.
fn recall(deps: &Deps, account: &Account, c: &Collection) -> Result<()> {
    if c.discovers_fields()
        && account.session.known_fields(c).is_none()
        && let Some(stored) = deps.store.app_fields(account.connection.id, &c.key)?
    {
        account.session.know_fields(c, stored);
    }
    Ok(())
}

/// Sees to it that the fields are known, and not too old. The inner error is the app's.
pub async fn ready(deps: &Deps, account: &Account, c: &Collection) -> Result<std::result::Result<(), CallError>> {
    if !c.discovers_fields() {
        return Ok(Ok(()));
    }
    recall(deps, account, c)?;
    if account.session.is_without_fields(c) {
        return Ok(Ok(()));
    }
    let known = account.session.known_fields(c);
    let now = deps.clock.now();
    if known.as_ref().is_some_and(|known| now.since(known.fields.read_at) < READ_EVERY) {
        return Ok(Ok(()));
    }
    Ok(match read(deps, account, c).await? {
        // Whether the credentials are still good is seen by what is asked next.
        Err(error) if c.does_without_fields() => {
            account.session.go_without_fields(c, &error);
            Ok(())
        }
        Err(error) if known.is_some() && !matches!(error, CallError::Unauthorized(_)) => {
            let connection = account.connection.id;
            tracing::info!(%connection, collection = c.key, %error, "the fields could not be read again");
            Ok(())
        }
        outcome => outcome,
    })
}

/// Calls the app; where it does not know a field any more, reads the fields and calls it once again.
pub async fn call<T, F: Future<Output = std::result::Result<T, CallError>>>(
    deps: &Deps,
    account: &Account,
    c: &Collection,
    call: impl Fn() -> F,
) -> Result<std::result::Result<T, CallError>> {
    match account.call(deps, &call).await? {
        // A column that could have been left out of the query was.
        Err(CallError::FieldsChanged(message) | CallError::ColumnMissing { message, .. }) if c.discovers_fields() => {
            match read(deps, account, c).await? {
                Ok(()) => account.call(deps, call).await,
                Err(error) => {
                    let connection = account.connection.id;
                    tracing::info!(%connection, collection = c.key, message, "the app does not know a field any more");
                    Ok(Err(error))
                }
            }
        }
        answer => Ok(answer),
    }
}

async fn read(deps: &Deps, account: &Account, c: &Collection) -> Result<std::result::Result<(), CallError>> {
    let fields = match account.call(deps, || account.session.discover_fields(c)).await? {
        Ok(fields) => fields,
        Err(error) => return Ok(Err(error)),
    };
    let (connection, key, fields): (_, _, AppFields) = (account.connection.clone(), c.key.clone(), fields);
    deps.store
        .append(Wait::Applied, move |tx| match tx.connection(connection.workspace, connection.id)? {
            Some(_) => tx.put_app_fields(connection.id, &key, &fields),
            // It was deleted meanwhile, and so were its rows.
            None => Ok(()),
        })
        .await?;
    Ok(Ok(()))
}
