//! A call of the API without HTTP, for whoever has opened the store itself.
//!
//! Always true: it goes to the same handler as over HTTP, so checks, answers and errors are the same; whoever can open
//! the store may do everything, so no key is asked for. Not here: who opens the store (`app::offline`).

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use bytes::Bytes;

use super::auth::Known;
use super::call::{Call, Head};
use super::reply::refusal;
use super::state::State;
use super::table;
use crate::domain::id::{KeyId, WorkspaceNo};
use crate::domain::version::ApiVersion;
use crate::domain::workspace::{ApiKey, Scope, Workspace};
use crate::error::{Code, Error, Result};

/// Status and JSON of a call for a workspace; `uri` is the path with its query.
pub async fn call(state: &State, workspace: Workspace, method: &str, uri: &str, body: Vec<u8>) -> (u16, Bytes) {
    let reply = match answer(state, workspace, method, uri, body).await {
        Ok(reply) => reply,
        Err(error) => refusal(&error),
    };
    (reply.status, reply.body)
}

async fn answer(
    state: &State,
    workspace: Workspace,
    method: &str,
    uri: &str,
    body: Vec<u8>,
) -> Result<super::reply::Reply> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let wanted: Method = method.parse().map_err(|_| Error::new(Code::Malformed, "this is no method"))?;
    let found = table().into_iter().filter(|route| route.answers(&wanted)).find_map(|route| {
        let params = route.paths().iter().find_map(|pattern| params(pattern, path))?;
        Some((route, params))
    });
    let (route, params) =
        found.ok_or_else(|| Error::new(Code::RouteNotFound, format!("there is nothing at {method} {path}")))?;
    let key = ApiKey {
        id: KeyId([0; 12]),
        workspace: workspace.no,
        name: "the store itself".to_owned(),
        scopes: vec![Scope::Admin],
        user: None,
        expires_at: None,
        created_at: state.clock.now(),
        digest: [0; 32],
    };
    let call = Call {
        state: state.clone(),
        version: params.get("version").and_then(|v| v.parse().ok()).unwrap_or(ApiVersion::V2024_03),
        caller: Some(Arc::new(Known { key, workspace })),
        head: Head { method: method.to_owned(), uri: uri.to_owned(), headers: HeaderMap::new(), from: None },
        body: body.into(),
        params,
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        place: None,
    };
    (route.handler)(call).await
}

/// The parts of a path, if it fits the pattern.
fn params(pattern: &str, path: &str) -> Option<HashMap<String, String>> {
    let (mut names, mut parts) = (pattern.split('/'), path.split('/'));
    let mut params = HashMap::new();
    loop {
        match (names.next(), parts.next()) {
            (None, None) => return Some(params),
            (Some(name), Some(part)) => match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => drop(params.insert(name.to_owned(), part.to_owned())),
                None if name == part => {}
                None => return None,
            },
            _ => return None,
        }
    }
}

/// The workspace that a name or an id means; None: the default one.
///
/// # Errors
/// There is none of that name.
pub fn workspace(state: &State, named: Option<&str>) -> Result<Workspace> {
    let Some(named) = named else {
        let found = state.store.workspace_by_no(WorkspaceNo::DEFAULT)?;
        return found.ok_or_else(|| Error::invalid("this store was never served: start a node on it once"));
    };
    let mut found = None;
    state.store.every_object::<Workspace>(|workspace| {
        if workspace.name == named || workspace.id.to_string() == named {
            found = Some(workspace);
        }
        Ok(())
    })?;
    found.ok_or_else(|| Error::new(Code::WorkspaceNotFound, format!("there is no workspace `{named}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_its_pattern_and_no_other() {
        let found = params("/{version}/one/keys/{keyId}", "/2024-03/one/keys/abc").unwrap();
        assert_eq!((found["version"].as_str(), found["keyId"].as_str()), ("2024-03", "abc"));
        assert!(params("/{version}/one/keys/{keyId}", "/2024-03/one/keys").is_none());
        assert!(params("/{version}/one/keys", "/2024-03/one/users").is_none());
    }
}
