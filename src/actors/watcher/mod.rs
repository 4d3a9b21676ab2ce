//! Watchers: one per connection (and one per integration with global webhooks) that has something to do.
//!
//! ```text
//! look ──▶ inbox    stored webhooks            ┐
//!      ──▶ pulls    what changed since         ├─▶ changes (judge) ─▶ commit: rows, cursor, events, inbox
//!      ──▶ scans    everything, and what went  ┘
//!                   bulk: a large first sync, by one operation of the app
//!                   ready: a page is asked for, hashed and mapped while the one before is judged and committed
//!      ──▶ hook     the webhook at the app        global: sorts an integration's webhooks to its connections
//!                                                journal: reads what an app keeps in place of pushing
//!      ──▶ confirm  handshakes to be confirmed
//!      ──▶ selectors which of those are meant     farewell: takes a deleted connection's webhook away at the app
//!      ──▶ fields   which fields the account has      wishes: erasures for connections that do nothing else
//! ```
//!
//! Always true: one look at a time per owner; a bounded number of looks at once; an idle connection is one entry of the
//! alarm and nothing else; a look that panics is tried again later, from the store. Not here: the rules (`domain::pull`,
//! `domain::snapshot`), the calls (`connectors`).

pub mod account;
mod asking;
mod bulk;
mod changes;
mod commit;
mod confirm;
pub mod farewell;
mod fields;
mod fresh;
mod global;
pub mod hook;
mod inbox;
mod journal;
mod look;
mod memory;
mod partial;
pub mod pasted;
pub mod plan;
mod pulls;
mod ready;
mod request;
mod run;
mod scans;
mod selectors;
mod shell;
pub mod standing;
mod told;
mod wishes;

#[cfg(test)]
mod tests;

pub use asking::List;
pub use look::look;
pub use memory::Memory;
pub use shell::Watchers;
