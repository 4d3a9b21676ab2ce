//! What several promises need.

pub mod api;
pub mod browser;
pub mod chromium;
pub mod engine;
pub mod node;
pub mod receiver;
pub mod server;
pub mod shim;
pub mod shop;
pub mod sse;
