//! One file per promise, all in one binary so that it links once. `support` is what they share.

mod delivery;
mod outbound;
mod support;
