//! One file per promise, all in one binary so that it links once. `support` is what they share.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]
#![allow(clippy::disallowed_methods, reason = "a test is the world outside: it calls with a client of its own")]
#![allow(clippy::print_stdout, reason = "a long test says how far it is")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod addresses;
mod adobe;
mod api_connections;
mod api_deliveries;
mod api_destinations;
mod api_frame;
mod api_keys;
mod api_records;
mod api_subscriptions;
mod api_users;
mod backup;
mod cancels;
mod cli;
mod connect;
mod connect_apps;
mod connect_browser;
mod connect_destination;
mod connector_run;
mod crash;
mod damage;
mod delivery;
mod destinations;
mod doctor;
mod endpoint_auth;
mod engine;
mod erasures;
mod explain;
mod export;
mod filter_deaths;
mod forward;
mod full_disk;
mod hooks;
mod hubspot;
mod hubspot_journal;
mod isolation;
mod leftovers;
mod listen;
mod metrics;
mod model;
mod netsuite;
mod outbound;
mod planned;
mod proxy;
mod records;
mod replay_steps;
mod replays;
mod run_script;
mod salesforce;
mod sandbox_connector;
mod sfcc;
mod shopify;
mod signing_keys;
mod status;
mod store;
mod strangers;
mod stream;
mod support;
mod tie_kills;
mod token_kills;
mod tutorial;
mod user_export;
mod wrong_clock;
