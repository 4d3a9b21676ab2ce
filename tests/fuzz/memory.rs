//! What one input costs in memory, as the kernel sees it.
//!
//! Always true: it is the whole process that is looked at, since the product brings an allocator of its own; so a limit is
//! far above what the other targets hold. Not here: the limit (`engine`).

/// The most that the process has held so far, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: usize = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kib * 1024
}

/// Runs `f`, and by how much the process held more meanwhile than ever before.
pub fn peak_of<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = peak();
    let done = f();
    (done, peak().saturating_sub(before))
}
