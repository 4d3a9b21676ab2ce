//! Destinations at work: each kind against its server, or the most faithful stand-in that can be had.
//!
//! Always true: a test whose server cannot be had says so loudly (`skipped: …`) and passes; where
//! `TIDEMILL_DESTINATIONS=all` is set (`scripts/check --destinations`) it fails instead, unless the machine can have no
//! such server at all.

#![allow(clippy::disallowed_methods, reason = "whoever runs the tests says by the environment what must be there")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod file;
mod mongodb;
mod mysql;
mod support;
