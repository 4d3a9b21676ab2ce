//! One file per promise, all in one binary so that it links once. `support` is what they share.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod cli;
mod crash;
mod delivery;
mod engine;
mod outbound;
mod sandbox_connector;
mod support;
