//! Mutated input for every parser that faces the outside: it must neither panic, nor hang, nor take memory without bound.
//!
//! The usual run tries the kept seeds and a fixed number of mutations of them, drawn from a fixed seed. `scripts/check
//! --long` goes on for `TIDEMILL_FUZZ_SECONDS` per target (180 by default there) from a seed that it prints. What breaks a
//! parser is written to a file, whose path the failure tells; kept in `tests/fuzz/seeds/<target>/` it is tried for ever.
//! Not here: what a parser makes of good input (the tests beside it).

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]
#![allow(clippy::disallowed_methods, reason = "a test is the world outside")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a long test says how far it is")]

mod engine;
mod http;
mod memory;
mod mutate;
mod plain;
mod webhook;

#[expect(dead_code, reason = "shared with the integration tests, which use more of it")]
#[path = "../it/support/api.rs"]
mod api;
