//! The way into namespaces of one's own, which the lab and the benchmarks take, in stages: each is this program, executed
//! again. The first enters the namespaces and waits for its user map; pid 1 mounts, starts the last, and buries.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, getegid, geteuid};

pub(crate) const NONE: Option<&str> = None;

/// This program again; `variable` tells it which stage it is.
pub(crate) fn again(variable: &str, stage: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(variable, stage).stdin(Stdio::null());
    command
}

/// Enters new ones of every kind that is used. The user namespace has no users yet.
pub(crate) fn enter() -> nix::Result<()> {
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
}

/// Maps the users of a child that has entered its user namespace, and closes its input: it may go on.
///
/// Root maps every id it has to itself, but at most so many, so that others can be changed to; anybody else becomes 0.
pub(crate) fn map_users(child: &mut Child, at_most: u64) -> std::io::Result<()> {
    let pid = child.id();
    if geteuid().is_root() {
        for map in ["uid_map", "gid_map"] {
            let own = fs::read_to_string(format!("/proc/self/{map}"))?;
            let same = own.lines().map(|line| {
                let mut words = line.split_whitespace().map(|word| word.parse().unwrap_or(0));
                let (first, count): (u64, u64) = (words.next().unwrap_or(0), words.nth(1).unwrap_or(1));
                format!("{first} {first} {}\n", count.min(at_most))
            });
            fs::write(format!("/proc/{pid}/{map}"), same.collect::<String>())?;
        }
    } else {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        fs::write(format!("/proc/{pid}/uid_map"), format!("0 {} 1", geteuid()))?;
        fs::write(format!("/proc/{pid}/gid_map"), format!("0 {} 1", getegid()))?;
    }
    drop(child.stdin.take());
    Ok(())
}

pub(crate) fn die_with_parent() {
    set_pdeathsig(Signal::SIGKILL).expect("a parent-death signal");
}

/// A fresh file system of that kind.
pub(crate) fn mount_new(kind: &str, at: &str, flags: MsFlags) {
    mount(Some(kind), at, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | flags, NONE)
        .unwrap_or_else(|errno| panic!("cannot mount {kind} on {at}: {errno}"));
}

/// Nothing that is mounted from now on is seen outside.
pub(crate) fn make_mounts_private() {
    mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE).expect("private mounts");
}

/// `at` becomes another name for `program`.
pub(crate) fn mount_program(program: &std::path::Path, at: &str) {
    fs::write(at, "").expect("a file to mount on");
    mount(Some(program), at, NONE, MsFlags::MS_BIND, NONE).expect("a bind mount of a program");
}

/// The rest of pid 1: buries whatever comes to it, until `child` has ended.
#[expect(clippy::needless_pass_by_value, reason = "it is waited for here")]
pub(crate) fn bury_until_end_of(child: Child, what: &str) -> ExitCode {
    let own = Pid::from_raw(child.id().cast_signed());
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid == own => {
                return ExitCode::from(u8::try_from(status).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == own => {
                eprintln!("{what} was killed by {signal}");
                return ExitCode::FAILURE;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("pid 1 cannot wait: {errno}"),
        }
    }
}

pub(crate) fn end_as(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
