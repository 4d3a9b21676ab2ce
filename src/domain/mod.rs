//! Nouns and pure rules: no I/O, no async, no clock, no actix. Everything here can be tested with a function call.

pub mod event;
pub mod id;
pub mod record;
pub mod secret;
pub mod time;
