//! The command line. Everything else is in the library.

fn main() {
    println!("tidemill {}", env!("CARGO_PKG_VERSION"));
}
