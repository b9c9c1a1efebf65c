//! The processes of this benchmark: burying orphans, and what processes cost.

use std::fs;
use std::io::{BufRead, BufReader, pipe};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::NETBOX;
use super::program::Program;

/// Buries what has ended, without waiting: keepers that outlived their launchers.
pub(crate) fn bury() {
    let quiet = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    while let Ok(status) = waitid(Id::All, quiet) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// Waits until no child is left but `alive` of them.
pub(crate) fn settle(alive: usize) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        bury();
        let children = fs::read_to_string("/proc/thread-self/children").expect("the children");
        let count = children.split_ascii_whitespace().count();
        if count == alive {
            return;
        }
        assert!(count > alive && Instant::now() < end, "{count} children in place of {alive}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A child that stays, and the command behind it, whose namespaces can be entered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    pub(crate) child: Pid,
    pub(crate) command: u32,
}

/// Starts `floor --stay` once for each number, in the way that `program` tells, one after the other is up.
pub(crate) fn populate(numbers: Range<usize>, program: impl Fn(usize) -> Program) -> Vec<Resident> {
    let (said, say) = pipe().expect("a pipe");
    let mut said = BufReader::new(said);
    numbers
        .map(|number| {
            let say = say.try_clone().expect("another descriptor");
            let child = program(number).output(say.into()).start();
            let mut line = String::new();
            said.read_line(&mut line).expect("what the command says");
            let command = line.trim().parse();
            let command = command.unwrap_or_else(|_| panic!("number {number} does not come up: {line:?}"));
            Resident { child, command }
        })
        .collect()
}

/// Ends these children, all at once, by the signal that a user would send.
pub(crate) fn end(residents: &[Resident]) {
    for Resident { child, .. } in residents {
        kill(*child, Signal::SIGTERM).expect("a child that was not waited for");
    }
    for Resident { child, .. } in residents {
        waitpid(*child, None).expect("a child");
    }
}

/// The CPU time in milliseconds, user and system, of every child that was buried so far and of all that these buried.
pub(crate) fn cpu_of_the_dead() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let milliseconds = |time: nix::sys::time::TimeVal| {
        use nix::sys::time::TimeValLike;
        Duration::from_micros(time.num_microseconds().unsigned_abs()).as_secs_f64() * 1e3
    };
    milliseconds(usage.user_time()) + milliseconds(usage.system_time())
}

/// A living netbox process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Netbox(Pid);

/// Every process that executes netbox. (Commands in boxes have executed something else.)
pub(crate) fn netboxes() -> Vec<Netbox> {
    let numbers = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        entry.expect("/proc").file_name().to_str().and_then(|name| name.parse::<i32>().ok())
    });
    numbers
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.as_os_str() == NETBOX))
        .map(|pid| Netbox(Pid::from_raw(pid)))
        .collect()
}

impl Netbox {
    /// The proportional set size in KiB (proc_pid_smaps_rollup(5)): pages that two share count half for each.
    pub(crate) fn pss(self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0)).expect("smaps_rollup");
        text.lines()
            .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
            .expect("a PSS")
    }

    /// The CPU time so far, in milliseconds (proc_pid_schedstat(5): nanoseconds, which `stat` does not have).
    pub(crate) fn cpu(self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.0)).expect("schedstat");
        let nanoseconds: u64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a time");
        Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
    }
}
