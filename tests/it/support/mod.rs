//! What several promises need.

pub mod adobe;
pub mod api;
pub mod browser;
pub mod bulk;
pub mod chromium;
pub mod clients;
pub mod engine;
pub mod fake;
pub mod graphql;
pub mod hubspot;
pub mod hubspot_journal;
pub mod link;
pub mod netsuite;
pub mod node;
pub mod postbox;
pub mod receiver;
pub mod salesforce;
pub mod server;
pub mod sfcc;
pub mod shim;
pub mod shop;
pub mod shopify;
pub mod soql;
pub mod sse;
pub mod stand_in;
pub mod suiteql;
pub mod wreck;

/// Whether the long variants of tests are wanted: `scripts/check --long`.
pub fn long() -> bool {
    std::env::var_os("TIDEMILL_TEST_LONG").is_some_and(|value| value == "1")
}
