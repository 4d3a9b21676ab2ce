//! `/openapi.json` and `/docs`: the API described from the table that serves it.
//!
//! Always true: OpenAPI 3.1, every served route once, schemas made of the very types that read and write bodies. The
//! docs page is one file without any outside host. Not here: the table (`route`).

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::reply::{ErrorBody, Reply};
use super::route::{Access, Route, Shape, group};
use super::table;
use crate::domain::version::ApiVersion;
use crate::domain::workspace::Scope;
use crate::error::{Code, Result};

const PAGE: &str = include_str!("docs.html");
const HTML: &str = "text/html; charset=utf-8";
/// The page runs its own script and talks to this node only.
const PAGE_RULES: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";

pub(super) fn routes() -> Vec<Route> {
    let open = |route: Route| route.only(Access::Open);
    let routes = vec![
        open(Route::get("/openapi.json", "This document", document)),
        open(Route::get("/docs", "The API for people", docs)).content_type(HTML),
    ];
    group("documents", routes)
}

async fn document(_: Call) -> Result<Reply> {
    Reply::json(&openapi(&table()))
}

async fn docs(_: Call) -> Result<Reply> {
    use actix_web::http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
    Ok(Reply::text(HTML, PAGE).with_header(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_RULES)))
}

/// The document.
pub fn openapi(routes: &[Route]) -> Value {
    let mut schemas = Schemas::new();
    let error = schemas.gives.subschema_for::<ErrorBody>().to_value();
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        let method = route.method.as_ref().map_or("post".to_owned(), |m| m.as_str().to_lowercase());
        if let Value::Object(path) = path {
            path.insert(method, schemas.operation(route));
        }
    }
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.slug()).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemill",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Turns many third-party apps into one stream of signed, unified events.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.all(),
            "responses": {"Error": {
                "description": format!("What is wrong and what to do. `code` is one of: {}.", codes.join(", ")),
                "content": {"application/json": {"schema": error}},
            }},
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of the workspace."},
                "operatorKey": {"type": "http", "scheme": "bearer", "description": "The operator's key."},
            },
        },
    })
}

struct Schemas {
    takes: SchemaGenerator,
    gives: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|s| {
            s.definitions_path = "/components/schemas".into();
            s.meta_schema = None;
        });
        Self {
            takes: settings.clone().for_deserialize().into_generator(),
            gives: settings.for_serialize().into_generator(),
        }
    }

    /// What is read and what is written; a name that stands for both must mean the same.
    fn all(mut self) -> Map<String, Value> {
        let mut all = self.takes.take_definitions(true);
        all.extend(self.gives.take_definitions(true));
        all
    }

    fn operation(&mut self, route: &Route) -> Value {
        let mut operation = Map::new();
        operation.insert("summary".into(), route.summary.into());
        operation.insert("operationId".into(), operation_id(route).into());
        operation.insert("tags".into(), json!([route.group]));
        let parameters = parameters(route);
        if !parameters.is_empty() {
            operation.insert("parameters".into(), parameters.into());
        }
        if let Some(shape) = route.takes {
            let schema = made(shape, &mut self.takes);
            let body = json!({"content": {"application/json": {"schema": schema}}});
            operation.insert("requestBody".into(), body);
        }
        let schema = route.gives.map_or(json!({}), |shape| made(shape, &mut self.gives));
        let mut content = Map::new();
        content.insert(route.content_type.to_owned(), json!({"schema": schema}));
        let responses = json!({
            route.status.to_string(): {"description": "Done.", "content": content},
            "default": {"$ref": "#/components/responses/Error"},
        });
        operation.insert("responses".into(), responses);
        let security = match route.access {
            Access::Key(scope) => {
                let text = format!("Needs the scope `{}`.", super::keys::scope_text(scope));
                operation.insert("description".into(), text.into());
                json!([{"apiKey": scopes_of(scope)}])
            }
            Access::Hooks(scope) => {
                let text = format!("Needs the scope `{}`, or `hooks`.", super::keys::scope_text(scope));
                operation.insert("description".into(), text.into());
                json!([{"apiKey": scopes_of(scope)}, {"apiKey": scopes_of(Scope::Hooks)}])
            }
            Access::Operator => json!([{"operatorKey": []}]),
            Access::Node => {
                let text =
                    "Needs the operator's key; where none is set, one of the default workspace with the scope `admin`.";
                operation.insert("description".into(), text.into());
                json!([{"operatorKey": []}, {"apiKey": scopes_of(Scope::Admin)}])
            }
            Access::Open => json!([]),
        };
        operation.insert("security".into(), security);
        Value::Object(operation)
    }
}

fn made(shape: Shape, generator: &mut SchemaGenerator) -> Value {
    shape(generator).to_value()
}

/// OpenAPI 3.1 lets a bearer scheme name roles; ours are the scopes.
fn scopes_of(scope: Scope) -> Vec<&'static str> {
    vec![super::keys::scope_text(scope)]
}

/// `post_one_webhooks_subscriptionId_test`.
fn operation_id(route: &Route) -> String {
    let method = route.method.as_ref().map_or("any".to_owned(), |m| m.as_str().to_lowercase());
    let parts = route.path.split('/').filter(|part| !part.is_empty() && *part != "{version}");
    let parts: Vec<String> = parts.map(|part| part.replace(['{', '}'], "").replace(['.', '-'], "_")).collect();
    format!("{method}_{}", parts.join("_"))
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for part in route.path.split('/') {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else { continue };
        let schema = match name {
            "version" => {
                json!({"type": "string", "enum": ApiVersion::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>()})
            }
            _ => json!({"type": "string"}),
        };
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
    }
    for query in &route.query {
        let schema = if query.name == "limit" { json!({"type": "integer"}) } else { json!({"type": "string"}) };
        parameters.push(json!({"name": query.name, "in": "query", "description": query.about, "schema": schema}));
    }
    let is_post = route.method.as_ref().is_some_and(|m| *m == actix_web::http::Method::POST);
    if is_post && matches!(route.access, Access::Key(_) | Access::Hooks(_)) {
        let about = "The same key and body within 24 hours give the first answer again.";
        let schema = json!({"type": "string", "maxLength": 255});
        parameters.push(json!({"name": "Idempotency-Key", "in": "header", "description": about, "schema": schema}));
    }
    parameters
}
