//! The HTTP API: parse, call, render. One file per resource, one table of routes.
//!
//! ```text
//! actix ──▶ serve ──▶ auth, idempotency, body ──▶ a handler of users, subscriptions, … ──▶ store, rings
//!                            route (the table) ──▶ openapi, /docs
//! ```
//!
//! Always true: what is served and what `/openapi.json` says come from [`table`]; a handler sees only its caller's
//! workspace; every write is one commit of the store, and what it touches is rung afterwards; every answer has a JSON
//! body, errors included. Not here: what happens to events and deliveries (`actors`), how anything is stored (`store`).

mod audit;
mod auth;
mod body;
pub mod bootstrap;
mod call;
mod cascade;
mod connect;
mod connections;
mod connectors;
mod deliveries;
mod destinations;
mod erasures;
mod events;
mod explain;
mod forward;
mod gauges;
pub mod health;
mod idempotency;
mod ingest;
pub mod inside;
mod integration_webhooks;
mod integrations;
mod keys;
mod node;
pub mod openapi;
mod options;
mod pages;
mod paging;
mod parameters;
mod records;
mod remote;
mod reply;
mod route;
mod serve;
mod shapes;
mod signing_keys;
mod state;
mod status;
mod subscriptions;
pub mod token;
mod topics;
mod user_export;
mod users;
mod workspaces;

use actix_web::web::ServiceConfig;

pub use events::StreamLimits;
pub use health::{Health, Phase};
pub use node::{WHO, Who};
pub use options::{Options, SubscriptionDefaults};
pub use route::{Access, BodyLimit, Param, Route, Surface};
pub use state::{Parts, State};

/// Every route. A resource adds its own here.
pub fn table() -> Vec<Route> {
    let resources = [
        workspaces::routes(),
        node::routes(),
        keys::routes(),
        signing_keys::routes(),
        users::routes(),
        user_export::routes(),
        destinations::routes(),
        subscriptions::routes(),
        subscriptions::hooks::routes(),
        subscriptions::replays::routes(),
        deliveries::routes(),
        events::routes(),
        explain::routes(),
        connectors::routes(),
        integrations::routes(),
        connections::routes(),
        connect::routes(),
        forward::routes(),
        erasures::routes(),
        audit::routes(),
        topics::routes(),
        records::routes(),
        status::routes(),
        ingest::routes(),
        pages::routes(),
        health::routes(),
        openapi::routes(),
    ];
    resources.concat()
}

/// Everything, at `server.listen`; without health and metrics if they have an address of their own.
pub fn configure(state: &State, config: &mut ServiceConfig) {
    if state.options.ops_elsewhere {
        serve::register(state, &[Surface::Api, Surface::Public], config);
    } else {
        serve::register(state, &[Surface::Api, Surface::Public, Surface::Ops], config);
    }
}

/// What `server.public_listen` serves: webhooks of apps, key pages, `/connect`.
pub fn configure_public(state: &State, config: &mut ServiceConfig) {
    serve::register(state, &[Surface::Public], config);
}

/// What `ops.listen` serves: health and metrics.
pub fn configure_ops(state: &State, config: &mut ServiceConfig) {
    serve::register(state, &[Surface::Ops], config);
}
