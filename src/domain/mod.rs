//! Nouns and pure rules: no I/O, no async, no clock, no actix. Everything here can be tested with a function call.

pub mod address;
pub mod app_field;
pub mod body;
pub mod connection;
pub mod delivery;
pub mod event;
pub mod failure;
pub mod filter;
pub mod flow;
pub mod hook;
pub mod id;
pub mod interest;
pub mod models;
pub mod pull;
pub mod record;
pub mod replay;
pub mod retry;
pub mod returns;
pub mod secret;
pub mod setting;
pub mod snapshot;
pub mod subscription;
pub mod time;
pub mod topic;
pub mod version;
pub mod workspace;
