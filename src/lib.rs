//! Tidemill turns many third-party apps into one stream of unified events.

pub mod actors;
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connectors;
pub mod destinations;
pub mod domain;
pub mod error;
pub mod outbound;
pub mod sandbox;
pub mod store;
pub mod telemetry;

/// What a delivery allocates on one thread is freed on another, which the system's allocator is slow at: it was a fifth of
/// the CPU time of a draining queue (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
