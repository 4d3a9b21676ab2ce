//! What several promises need.

pub mod engine;
pub mod receiver;
pub mod server;
