//! The promises of the watcher, against the sandbox and against small apps on loopback, with a real store.

mod deletions;
mod desk;
mod failures;
mod hooks;
mod pasted;
mod records;
mod ties;
mod tiny;
mod tokens;
mod webhooks;
