//! What the benchmarks share.
//!
//! A benchmark runs in user, network, mount, pid, uts and ipc namespaces of its own, so as any user and without touching
//! the machine. It prints figures and the promised bars beside them, and never fails for a figure: a timed test is no test.
//!
//! All of it:     `cargo bench` (some minutes)      for CI: `cargo bench -- --short` (or `NETBOX_BENCH=short`)
//! One:           `cargo bench --bench start_up`    as one JSON object: `cargo bench --bench start_up -- --json`
//! Another build: `NETBOX_BENCH_PROGRAM=/usr/bin/netbox` is measured in place of the one just built.

#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod bare;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod bounded;
mod cgroup;
pub(crate) mod floor;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod host;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod processes;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod program;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod report;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod rootfs;
#[allow(dead_code, reason = "each benchmark uses its part")]
mod stage;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod statistics;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod traffic;

// The lab's own, written apart from the program's netlink on purpose.
#[path = "../../tests/support/lab/links.rs"]
#[allow(dead_code, reason = "the lab uses more of it")]
mod links;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) mod names;
#[path = "../../tests/support/lab/namespaces.rs"]
pub(crate) mod namespaces;
#[path = "../../tests/support/lab/netlink.rs"]
#[allow(dead_code, reason = "the lab uses more of it")]
mod netlink;
#[path = "../../tests/support/lab/place.rs"]
#[allow(dead_code, reason = "the lab uses more of it")]
pub(crate) mod place;

#[allow(unused_imports, reason = "each benchmark uses its part")]
pub(crate) use stage::{FLOOR, NETBOX, has_cgroup, main, main_in_cgroup};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// As often as the figures need to hold still.
    Full,
    /// Less than 20 seconds for each benchmark.
    Short,
}

impl Length {
    pub(crate) fn pick<T>(self, full: T, short: T) -> T {
        match self {
            Self::Full => full,
            Self::Short => short,
        }
    }
}
