//! What several promises need.

pub mod server;
