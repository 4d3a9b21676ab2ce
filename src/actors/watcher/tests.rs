//! The promises of the watcher, against small apps on loopback and against the sandbox.
