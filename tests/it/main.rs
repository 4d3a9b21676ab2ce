//! One file per promise, all in one binary so that it links once. `support` is what they share.

mod delivery;
mod engine;
mod outbound;
mod support;
