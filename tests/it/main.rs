//! One file per promise, all in one binary so that it links once. `support` is what they share.

mod api_deliveries;
mod api_frame;
mod api_keys;
mod api_subscriptions;
mod api_users;
mod cli;
mod crash;
mod delivery;
mod engine;
mod outbound;
mod sandbox_connector;
mod support;
