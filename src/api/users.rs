//! `/one/users`: the ISV's customers.
//!
//! Always true: a username is unique in its workspace; wherever a user's id is taken, the username does too; deleting a
//! user deletes its connections and the subscriptions narrowed to it. Not here: the browser's side of `…/token`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Call, user_of};
use super::paging::{self, Paging};
use super::reply::Reply;
use super::route::{PAGED, Param, Route, group};
use super::shapes::{Deleted, name_of};
use super::{body, cascade, token};
use crate::domain::id::{UserId, WorkspaceNo};
use crate::domain::workspace::User;
use crate::error::{Code, Error, Result};
use crate::store::{Rows, Tx};

/// Users of one `batch`.
const BATCH_MAX: usize = 1000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewUser {
    /// Your own name of the user, unique in the workspace; up to 256 bytes.
    username: String,
    /// Shown as `userName` in events.
    #[serde(default)]
    full_name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewUsers {
    /// 1 to 1,000, all or none.
    users: Vec<NewUser>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChangedUser {
    /// Left out: as it is.
    #[serde(default)]
    username: Option<String>,
    /// Left out: as it is; null: none.
    #[serde(default, deserialize_with = "body::present")]
    #[schemars(with = "Option<String>")]
    full_name: Option<Option<String>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MadeUser {
    user_id: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct UserView {
    user_id: String,
    username: String,
    full_name: Option<String>,
    created_at: String,
}

#[derive(Serialize, JsonSchema)]
struct OneUser {
    user: UserView,
}

#[derive(Serialize, JsonSchema)]
struct Users {
    users: Vec<UserView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct TokenView {
    /// A JWT that opens `/connect` for this user.
    token: String,
}

fn view(user: &User) -> UserView {
    UserView {
        user_id: user.id.to_string(),
        username: user.username.clone(),
        full_name: user.full_name.clone(),
        created_at: user.created_at.rfc3339_millis(),
    }
}

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/{version}/one/users", "/{version}/one/users/{userId}");
    let by_name = [Param { name: "username", about: "Only the user of this name." }];
    let routes = vec![
        Route::post(all, "Make a user", create).takes::<NewUser>().gives::<MadeUser>(),
        Route::post("/{version}/one/users/batch", "Make many users, all or none", create_many)
            .takes::<NewUsers>()
            .gives::<Users>(),
        Route::get(all, "List users; up to 1,000 if no `limit` is asked for", list)
            .query(PAGED)
            .query(&by_name)
            .gives::<Users>(),
        Route::get(one, "Show a user", show).gives::<OneUser>(),
        Route::new(actix_web::http::Method::PUT, one, super::route::WRITE, "Change a user", change)
            .takes::<ChangedUser>()
            .gives::<OneUser>(),
        Route::delete(one, "Delete a user with its connections and subscriptions", delete).gives::<Deleted>(),
        Route::get(
            "/{version}/one/users/{userId}/token",
            "A short-lived token that opens /connect for the user",
            token,
        )
        .only(super::route::WRITE)
        .gives::<TokenView>(),
    ];
    group("users", routes)
}

fn full_name_of(name: Option<&str>) -> Result<Option<String>> {
    name.filter(|name| !name.trim().is_empty()).map(|name| name_of("fullName", name)).transpose()
}

fn refuse_rival(tx: &mut Tx<'_>, user: &User) -> Result<()> {
    let Some(first) = tx.rival(user)? else { return Ok(()) };
    let message = format!("there is a user `{}` already: {}", user.username, UserId(first));
    Err(Error::new(Code::Conflict, message))
}

fn put_new(tx: &mut Tx<'_>, workspace: WorkspaceNo, asked: &NewUser) -> Result<User> {
    let user = User {
        id: UserId(tx.fresh_id()?),
        workspace,
        username: name_of("username", &asked.username)?,
        full_name: full_name_of(asked.full_name.as_deref())?,
        created_at: tx.now(),
    };
    refuse_rival(tx, &user)?;
    tx.put_object(&user)?;
    Ok(user)
}

async fn create(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<NewUser>()?, call.workspace()?);
    let change = move |tx: &mut Tx<'_>| {
        let user = put_new(tx, workspace, &asked)?;
        Ok((Reply::json(&MadeUser { user_id: user.id.to_string() })?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

async fn create_many(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<NewUsers>()?.users, call.workspace()?);
    if asked.is_empty() || asked.len() > BATCH_MAX {
        return Err(Error::invalid(format!("users: send 1 to {BATCH_MAX}")));
    }
    // A commit reads what was there before it, so two of one batch would not see each other.
    let mut seen = std::collections::HashMap::new();
    for (index, user) in asked.iter().enumerate() {
        if let Some(first) = seen.insert(user.username.trim(), index) {
            return Err(Error::invalid(format!("users[{index}].username: the same as users[{first}]")));
        }
    }
    let change = move |tx: &mut Tx<'_>| {
        let mut users = Vec::with_capacity(asked.len());
        for (index, user) in asked.iter().enumerate() {
            let made = put_new(tx, workspace, user);
            let at = |e: Error| Error { message: format!("users[{index}]: {}", e.message), ..e };
            users.push(view(&made.map_err(at)?));
        }
        Ok((Reply::json(&Users { users, next: None })?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

async fn list(call: Call) -> Result<Reply> {
    let (workspace, page) = (call.workspace()?, Paging::of_alloy_list(&call)?);
    let before = page.before_exactly::<12>()?.map(|id| id.to_vec());
    if let Some(name) = call.query("username").map(str::to_owned) {
        let found = call.read(move |rows| rows.user_by_name(workspace, &name)).await?;
        return Reply::json(&Users { users: found.iter().map(view).collect(), next: None });
    }
    let found = call.read(move |rows| rows.users(workspace, before.as_deref(), page.limit)).await?;
    let users = found.items.iter().map(view).collect();
    Reply::json(&Users { users, next: found.next.map(paging::next) })
}

async fn find(call: &Call) -> Result<User> {
    let (workspace, text) = (call.workspace()?, call.param("userId")?.to_owned());
    call.read(move |rows| user_of(rows, workspace, &text)).await
}

async fn show(call: Call) -> Result<Reply> {
    Reply::json(&OneUser { user: view(&find(&call).await?) })
}

async fn change(call: Call) -> Result<Reply> {
    let (asked, workspace) = (call.json::<ChangedUser>()?, call.workspace()?);
    let text = call.param("userId")?.to_owned();
    let change = move |tx: &mut Tx<'_>| {
        let mut user = user_of(tx, workspace, &text)?;
        if let Some(name) = &asked.username {
            user.username = name_of("username", name)?;
        }
        if let Some(name) = &asked.full_name {
            user.full_name = full_name_of(name.as_deref())?;
        }
        refuse_rival(tx, &user)?;
        tx.put_object(&user)?;
        Ok((Reply::json(&OneUser { user: view(&user) })?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

async fn delete(call: Call) -> Result<Reply> {
    let user = find(&call).await?;
    cascade::empty_user(&call.state, &user).await?;
    let (workspace, id) = (user.workspace, user.id);
    let change = move |tx: &mut Tx<'_>| {
        let user = user_of(tx, workspace, &id.to_string())?;
        if has_connections(tx, id)? {
            let message = "the user was connected anew while it was being deleted; ask again";
            return Err(Error::new(Code::Conflict, message));
        }
        tx.delete_object(&user)?;
        Ok((Reply::json(&Deleted::new("userId", id))?, ()))
    };
    call.change(change).await.map(|(reply, ())| reply)
}

fn has_connections(rows: &Rows, user: UserId) -> Result<bool> {
    Ok(!rows.children::<crate::domain::connection::Connection>(&user.0, None, 1)?.items.is_empty())
}

async fn token(call: Call) -> Result<Reply> {
    let (user, home) = (find(&call).await?, call.home()?.clone());
    let (now, life) = (call.now(), call.state.options.connect_token_life);
    let token = call.read(move |rows| token::make(rows, &home, &user, now, life)).await?;
    Reply::json(&TokenView { token })
}
