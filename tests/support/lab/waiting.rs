//! Waiting for what is to come true.
//!
//! Where the kernel tells of it, by that: a process's end by its pidfd (pidfd_open(2)). Of the state that other processes have in
//! /proc, of tables of the kernel, of what a keeper does a moment later it tells nobody: these are looked at again and again, and
//! this file is the one place of the tests that sleeps between two looks. No test's verdict depends on how long that is: it ends as
//! soon as the thing is true, and fails when it is not in time.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use netbox::kernel::process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::snapshot::running;

/// For what is to be true soon: a machine that does something else besides takes its time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks: less than anything takes that is waited for, and so long that those who bring it about get a processor.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until something is true; fails, naming it, when it is not within five seconds.
pub(crate) fn wait_until(what: impl Display, done: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, done);
}

/// The same with a limit.
pub(crate) fn wait_within(limit: Duration, what: impl Display, mut done: impl FnMut() -> bool) {
    find_within(limit, || what.to_string(), || done().then_some(()));
}

/// Looks until something is found; fails, naming it as it is then, when that is not in time.
pub(crate) fn find_within<T>(
    limit: Duration,
    what: impl Fn() -> String,
    look: impl FnMut() -> Option<T>,
) -> T {
    try_within(limit, look).unwrap_or_else(|| panic!("not within {limit:?}: {}", what()))
}

/// Looks until something is found. `None`: it was not in time.
pub(crate) fn try_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > end {
            return found;
        }
        let_pass(PAUSE);
    }
}

/// Looks until two looks, so long after each other, are alike, and returns the last; also when they were not `limit` later.
pub(crate) fn settled<T: PartialEq>(still_for: Duration, limit: Duration, mut look: impl FnMut() -> T) -> T {
    let end = Instant::now() + limit;
    let mut last = look();
    loop {
        let_pass(still_for);
        let now = look();
        if now == last || Instant::now() > end {
            return now;
        }
        last = now;
    }
}

/// Lets time pass where time itself is what the test is about: to strike at another instant in each round, to try only so often
/// beside what is tested. Never to wait for something.
pub(crate) fn let_pass(time: Duration) {
    thread::sleep(time);
}

/// Waits for the end of a child. `None`: it has not ended in time.
pub(crate) fn end_within(limit: Duration, child: &mut Child) -> Option<ExitStatus> {
    // One that has ended may have been waited for: its number is nobody's then.
    if let Some(status) = child.try_wait().expect("our child") {
        return Some(status);
    }
    let process = process::open(child.id()).expect("our child, not waited for");
    one_ends(&[process], limit);
    child.try_wait().expect("our child")
}

/// Waits until no more than so many processes run `program`, each for its end.
pub(crate) fn wait_for_end_of(program: &str, but: usize) {
    let end = Instant::now() + 2 * PATIENCE;
    loop {
        let left = running(program);
        if left.len() <= but {
            return;
        }
        let time = end.saturating_duration_since(Instant::now());
        assert!(!time.is_zero(), "{program} still runs: {left:?}");
        // One that cannot be opened has ended.
        let processes: Vec<_> = left.iter().filter_map(|pid| process::open(*pid).ok()).collect();
        if processes.len() == left.len() {
            one_ends(&processes, time);
        }
    }
}

/// Waits until one of the processes has ended.
fn one_ends(processes: &[OwnedFd], limit: Duration) {
    let mut wanted: Vec<_> =
        processes.iter().map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)).collect();
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    poll(&mut wanted, limit).expect("to wait for a process");
}
