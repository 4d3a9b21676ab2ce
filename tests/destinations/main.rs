//! Destinations at work: each kind against its server, or the most faithful stand-in that can be had.
//!
//! Always true: a test whose server cannot be had says so loudly (`skipped: …`) and passes; where
//! `TIDEMILL_DESTINATIONS=all` is set (`scripts/check --destinations`) it fails instead, unless the machine can have no
//! such server at all.
#![allow(clippy::disallowed_methods, reason = "a test is the world outside: it finds what is installed")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(clippy::print_stdout, reason = "a test whose load is random says its seed")]

#[cfg(feature = "bigquery")]
mod bigquery;
#[cfg(feature = "eventbridge")]
mod eventbridge;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "gcs")]
mod gcs;
mod kills;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "nats")]
mod nats;
#[path = "../it/support/node.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod node;
#[cfg(feature = "postgresql")]
mod postgresql;
#[cfg(feature = "pubsub")]
mod pubsub;
#[cfg(feature = "redshift")]
mod redshift;
mod rows;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "snowflake")]
mod snowflake;
mod support;
