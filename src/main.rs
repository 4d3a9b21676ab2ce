//! The command line. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    without_huge_pages();
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    tidemill::cli::run(std::env::args_os(), env.collect())
}

/// The allocator asks for huge pages, of which an empty node would hold 25 MiB and use little (docs/benchmarks.md).
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "prctl has no safe form in the standard library")]
fn without_huge_pages() {
    // SAFETY: the call takes numbers only; a system that does not know it changes nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

#[cfg(not(target_os = "linux"))]
fn without_huge_pages() {}
