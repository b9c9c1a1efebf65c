//! The supervisor of a further command in a box: the keeper's part in `netbox exec`.
//!
//! It holds nothing of the box. It sees to it that the command and all its descendants end with the command, with the launcher
//! or with the box, whichever is first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::kernel::channel::Channel;
use crate::kernel::memory::Rest;
use crate::kernel::namespace;
use crate::kernel::process::{self, Process};
use crate::kernel::signal::Signals;
use crate::kernel::wait;

use super::duties::Duties;
use super::first_process::FirstProcess;
use super::message::{FromInit, ToLauncher, tell};
use super::supervise::{reap, tell_stopped};

/// How long a warden may take to kill what is left of its command's. It takes no time, unless the box has stopped it.
const WARDENS_TIME: Duration = Duration::from_secs(1);

/// Why a command is waited for no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ended, with this status.
    Command(u8),
    /// The launcher is gone: nobody wants it any more.
    LauncherGone,
    /// The box ends.
    Box,
}

/// Waits until the command, the launcher or the box ends. `keeper`: the connection to the box's, which becomes readable then.
///
/// # Errors
/// When waiting itself fails, or the warden does; the caller then ends the command.
pub fn attend(
    first: &FirstProcess,
    launcher: &Channel,
    signals: &mut Signals,
    keeper: BorrowedFd<'_>,
) -> Result<End> {
    let cannot_wait = || "cannot wait for the end of the command";
    let mut news = first.news();
    let mut rest = Rest::default();
    let mut duties = Duties::default();
    loop {
        if let Some(status) = reap(first, launcher, &mut duties).context(cannot_wait)? {
            if says_something(keeper) {
                // The keeper killed it.
                return Ok(End::Box);
            }
            return first.failure().map_or(Ok(End::Command(status)), Err);
        }
        let [launcher_gone, _, box_ends, warden_speaks] = {
            let mut wanted = vec![
                PollFd::new(launcher.as_fd(), PollFlags::empty()),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(keeper, PollFlags::POLLIN),
            ];
            wanted.extend(news.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match rest.wait(&mut wanted, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(cannot_wait),
            }
            [0, 1, 2, 3].map(|index: usize| wanted.get(index).and_then(PollFd::any).unwrap_or(false))
        };
        if launcher_gone {
            return Ok(End::LauncherGone);
        }
        if box_ends {
            return Ok(End::Box);
        }
        if warden_speaks {
            match first.heard().context(cannot_wait)? {
                Some(FromInit::Stopped(signal)) => tell_stopped(first, launcher, signal),
                Some(FromInit::Failed(error)) => return Err(error),
                Some(FromInit::Command) => {}
                // It is ending: the next news is its end.
                None => news = None,
            }
        }
        while signals.read().context(cannot_wait)?.is_some() {}
    }
}

fn says_something(keeper: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(keeper, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Kills what is left of a command, its children, and theirs.
///
/// # Errors
/// Where the children cannot be listed.
pub fn kill_all(first: FirstProcess) -> io::Result<()> {
    let has_warden = first.news().is_some();
    // The warden sees the end of its channel, kills all that is below it, and ends.
    let process = first.into_process();
    if has_warden {
        process.signal(Signal::SIGCONT as i32)?;
        process::wait_until_ended(&process, WARDENS_TIME)?;
    }
    let killed = process.signal(Signal::SIGKILL as i32);
    wait::kill_children(|_| true)?;
    killed
}

/// The warden has seen the end of its channel, and has others to kill before it ends.
fn wait_for_warden() -> io::Result<()> {
    for child in process::children()? {
        if !namespace::is_shared_with(child.as_raw()) {
            process::wait_until_ended(&Process::of_child(child)?, WARDENS_TIME)?;
        }
    }
    Ok(())
}

/// What a launcher is told when its command ends with the box.
pub fn tell_end_of_box(launcher: &Channel, name: &str) {
    tell(launcher, &ToLauncher::Warning(format!("box {name} has ended, and with it the command")));
}

/// The supervisor was killed. The kernel, or the warden, killed the command with it; the launcher kills the rest.
#[must_use]
pub fn after_supervisor(supervisor: Pid, has_warden: bool) -> Error {
    let error = Error::new("the supervisor of this command was killed, and the command with it");
    // Its children come here before it can be waited for.
    let _ = wait::end_of(supervisor);
    let left = if has_warden { wait_for_warden() } else { Ok(()) };
    match left.and_then(|()| super::launcher::kill_orphans(supervisor)) {
        Ok(()) => error,
        Err(problem) => error.hint(format!("processes of the command may be left: {problem}")),
    }
}
