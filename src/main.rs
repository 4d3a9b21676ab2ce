//! The command line. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    tidemill::cli::run(std::env::args_os(), env.collect())
}
