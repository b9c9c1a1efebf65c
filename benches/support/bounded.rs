//! Other people's programs: run to their end, but not for ever, with the reason where they fail.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

/// Where they write to; a program that goes on in the background holds no pipe open.
const OUTPUT: &str = "/run/bench/output";
const ERRORS: &str = "/run/bench/errors";

/// How it went.
#[derive(Debug)]
pub(crate) struct Success {
    pub(crate) time: Duration,
    pub(crate) output: String,
}

/// Runs the command and waits for its end, which must be success; what takes longer is killed, with its process group.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Success, String> {
    let file = |path| File::create(path).map_err(|error| format!("{path}: {error}"));
    command.stdin(File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?);
    command.stdout(file(OUTPUT)?).stderr(file(ERRORS)?).process_group(0);
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let ended = wait(&child, limit);
    let time = start.elapsed();
    if !ended {
        // Not waited for yet, so the number is still its own.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !ended {
        return Err(format!("still running after {} s", limit.as_secs()));
    }
    if !status.success() {
        let errors = fs::read(ERRORS).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        let last = errors.lines().rev().map(str::trim).find(|line| !line.is_empty());
        return Err(last.map_or_else(|| status.to_string(), str::to_owned));
    }
    let output = fs::read(OUTPUT).unwrap_or_default();
    Ok(Success { time, output: String::from_utf8_lossy(&output).into_owned() })
}

/// Whether the child ends within the limit.
fn wait(child: &Child, limit: Duration) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("a child that was not waited for");
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    poll(&mut ended, limit).is_ok_and(|count| count > 0)
}
