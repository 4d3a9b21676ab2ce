//! Servers that tests start: processes of their own on free ports of loopback, stopped with the value that holds them.

use std::net::TcpListener;
use std::process::Child;

/// A process that ends with this value.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

/// Says that a test cannot be made for want of `what`, and how to get it; fails where all of them are wanted.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "it is for whoever runs the tests to see and to set"
)]
pub fn skip(what: &str, how: &str) {
    let text = format!("skipped: {what} is not here; {how}");
    assert!(std::env::var("TIDEMILL_DESTINATIONS").as_deref() != Ok("all"), "{text}");
    eprintln!("{text}");
}
