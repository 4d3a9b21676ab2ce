//! One route: method, path, who may call it, what it takes and gives, and the function that answers.
//!
//! Always true: what is served and what the OpenAPI document says are made from the same table (`table`).

use std::future::Future;
use std::sync::Arc;

use actix_web::http::Method;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::call::Call;
use super::reply::Reply;
use crate::domain::workspace::Scope;
use crate::error::Result;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An API key with this scope.
    Key(Scope),
    /// The same, or a key with the scope `hooks`, which then sees its own user's hooks only.
    Hooks(Scope),
    /// The operator's key.
    Operator,
    /// The same; where none is set, a key of the default workspace with the scope `admin`.
    Node,
    /// Anyone.
    Open,
}

/// Where a route is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// At the API's address only.
    Api,
    /// There, and at the public one: webhooks of apps, key pages, `/connect`.
    Public,
    /// Health and metrics: at the API's address, or at one of their own.
    Ops,
}

/// Which bodies a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLimit {
    Api,
    Webhook,
}

/// The function that answers.
pub type Handler = Arc<dyn Fn(Call) -> LocalBoxFuture<'static, Result<Reply>> + Send + Sync>;

/// How a type's schema is made.
pub type Shape = fn(&mut SchemaGenerator) -> Schema;

/// A parameter of the query, for the document.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub about: &'static str,
}

/// The parameters of every list.
pub const PAGED: &[Param] = &[
    Param { name: "limit", about: "How many at most; 1 to 250, 50 if left out." },
    Param { name: "cursor", about: "The `next` of the page before." },
];

/// A row of the table.
#[derive(Clone)]
pub struct Route {
    /// None: any method.
    pub method: Option<Method>,
    /// `{name}` stands for one part. `{version}` is `2023-12` or `2024-03`.
    pub path: &'static str,
    pub access: Access,
    pub surface: Surface,
    pub body_limit: BodyLimit,
    /// One sentence without a full stop.
    pub summary: &'static str,
    /// The document's group: the plural noun.
    pub group: &'static str,
    pub query: Vec<Param>,
    pub takes: Option<Shape>,
    pub gives: Option<Shape>,
    /// The status of success.
    pub status: u16,
    /// The Content-Type of success.
    pub content_type: &'static str,
    pub handler: Handler,
}

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    /// A route that answers 200 with JSON.
    pub fn new<F, Fut>(method: Method, path: &'static str, access: Access, summary: &'static str, f: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + 'static,
    {
        Self {
            method: Some(method),
            path,
            access,
            surface: Surface::Api,
            body_limit: BodyLimit::Api,
            summary,
            group: "",
            query: Vec::new(),
            takes: None,
            gives: None,
            status: 200,
            content_type: "application/json",
            handler: Arc::new(move |call| f(call).boxed_local()),
        }
    }

    /// A GET, for keys that may read.
    pub fn get<F, Fut>(path: &'static str, summary: &'static str, f: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + 'static,
    {
        Self::new(Method::GET, path, Access::Key(Scope::Read), summary, f)
    }

    /// A POST, for keys that may write.
    pub fn post<F, Fut>(path: &'static str, summary: &'static str, f: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + 'static,
    {
        Self::new(Method::POST, path, Access::Key(Scope::Write), summary, f)
    }

    /// A PATCH, for keys that may write.
    pub fn patch<F, Fut>(path: &'static str, summary: &'static str, f: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + 'static,
    {
        Self::new(Method::PATCH, path, Access::Key(Scope::Write), summary, f)
    }

    /// A DELETE, for keys that may write.
    pub fn delete<F, Fut>(path: &'static str, summary: &'static str, f: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + 'static,
    {
        Self::new(Method::DELETE, path, Access::Key(Scope::Write), summary, f)
    }

    /// Only for those with this access.
    #[must_use]
    pub fn only(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
    /// Served elsewhere too.
    #[must_use]
    pub fn at(mut self, surface: Surface) -> Self {
        self.surface = surface;
        self
    }
    /// The body's type.
    #[must_use]
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some(shape::<T>);
        self
    }
    /// The answer's type.
    #[must_use]
    pub fn gives<T: JsonSchema>(mut self) -> Self {
        self.gives = Some(shape::<T>);
        self
    }
    /// Parameters of the query.
    #[must_use]
    pub fn query(mut self, params: &[Param]) -> Self {
        self.query.extend_from_slice(params);
        self
    }
    /// The status of success.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
    /// The Content-Type of success, where it is not JSON.
    #[must_use]
    pub fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }
    /// Takes any method and an app's webhook as its body.
    #[must_use]
    pub fn webhook(mut self) -> Self {
        self.method = None;
        self.surface = Surface::Public;
        self.access = Access::Open;
        self.body_limit = BodyLimit::Webhook;
        self
    }

    /// Whether the route answers this method. HEAD is a GET without a body.
    pub fn answers(&self, method: &Method) -> bool {
        self.method.as_ref().is_none_or(|m| m == method || (*m == Method::GET && *method == Method::HEAD))
    }

    /// The paths it is served at: `/users…` is the same as `/one/users…`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec![self.path.to_owned()];
        if let Some(rest) = self.path.strip_prefix("/{version}/one/users") {
            paths.push(format!("/{{version}}/users{rest}"));
        }
        paths
    }
}

/// All routes of a group.
pub fn group(name: &'static str, mut routes: Vec<Route>) -> Vec<Route> {
    for route in &mut routes {
        route.group = name;
    }
    routes
}

/// For keys that may write.
pub const WRITE: Access = Access::Key(Scope::Write);
