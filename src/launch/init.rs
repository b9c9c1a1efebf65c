//! The first process of a box with a pid namespace of its own: `--unshare-pid`.
//!
//! It makes the box's namespaces, forks the process that becomes the command, and stays as pid 1: it buries orphans, tells the
//! keeper when the command is stopped, passes on what is sent to it, and ends as the command did. With it ends, by the kernel,
//! every process of the box (pid_namespaces(7)); and it ends with its keeper.
//!
//! A further command in such a box (`netbox exec`) has a process like it above itself, since its orphans would become the init's
//! children: a *warden*. That one is no pid 1: it kills what is left of its command's, and can be killed by the box.
//!
//! It is in the box's namespaces, has the command's user and no capability, and cannot be traced: whoever could take it over
//! would gain nothing. The kernel lets nobody in the box kill it.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;

use crate::error::{Context, Error, Result};
use crate::kernel::channel::Channel;
use crate::kernel::memory::Rest;
use crate::kernel::process::{self, Process, Side};
use crate::kernel::signal::Signals;
use crate::kernel::wait::{self, News};
use crate::plan::identity::Identity;
use crate::plan::privileges::Privileges;

use super::drop::drop_privileges;
use super::message::FromInit;

/// What a process is that stays behind above a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Post {
    /// The first process of a pid namespace. All others die with it.
    Init,
    /// Any other one. It is the subreaper of its command's orphans.
    Warden,
}

/// Forks the process that becomes the command, and returns in it; in this one never.
///
/// # Errors
/// When there can be no other process.
pub fn stay_behind(post: Post, identity: &Identity, keeper: &Channel) -> Result<()> {
    if post == Post::Warden {
        process::become_subreaper().context(|| "cannot become a subreaper")?;
    }
    match process::fork().context(|| "cannot start a process in the box's pid namespace")? {
        Side::Child => Ok(()),
        Side::Parent(command) => {
            let status = match Process::of_child(command) {
                Ok(command) => {
                    let status = reign(post, &command, identity, keeper);
                    if post == Post::Warden {
                        // What cannot be listed is left to the end of the box.
                        let _ = wait::kill_children(|_| true);
                    }
                    status
                }
                Err(error) => Err(Error::new("cannot watch the command").os(&error)),
            };
            process::exit_now(status.unwrap_or_else(|error| {
                let status = error.exit_status();
                // A keeper that is gone needs no news.
                let _ = keeper.send(&FromInit::Failed(error), &[]);
                status
            }))
        }
    }
}

/// Above the command, until it has ended. Returns its status.
fn reign(post: Post, command: &Process, identity: &Identity, keeper: &Channel) -> Result<u8> {
    process::close_all_but(&[keeper.as_fd(), command.as_fd()])
        .context(|| "cannot close the inherited descriptors")?;
    process::let_go_of_standard_descriptors().context(|| "cannot open /dev/null")?;
    // Where the command is and goes is not its business.
    process::let_go_of_directory().context(|| "cannot enter /")?;
    drop_privileges(identity, &Privileges::NONE)?;
    // After the last change of credentials, which may undo both (credentials(7), PR_SET_DUMPABLE(2const)).
    process::hide_from_tracers().context(|| "cannot keep tracers out")?;
    if post == Post::Init {
        // The keeper cannot be seen from here; if it died before this line, it has closed the channel already (do_exit closes
        // files before it tells children). A warden does not die at once: it has others to kill.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context(|| "cannot set the parent-death signal")?;
    }
    // Only now: the keeper lets nothing run before it knows the command.
    keeper.send(&FromInit::Command, &[command.as_fd()]).context(|| "cannot reach the keeper")?;
    let mut signals = Signals::all().context(|| "cannot watch for signals")?;
    let mut rest = Rest::default();
    loop {
        if let Some(status) = bury(command, keeper).context(|| "cannot wait for children")? {
            return Ok(status);
        }
        let mut wanted = [
            PollFd::new(keeper.as_fd(), PollFlags::empty()),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match rest.wait(&mut wanted, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "cannot wait for news of the command"),
        }
        let [keeper_gone, _] = wanted.map(|fd| fd.any().unwrap_or(false));
        if keeper_gone {
            return Err(Error::new("the keeper of this box is gone"));
        }
        while let Some(signal) = signals.read().context(|| "cannot read a signal")? {
            if signal.number != Signal::SIGCHLD as i32 {
                // EPERM: a command that is another user by now.
                let _ = command.signal(signal.number);
            }
        }
    }
}

/// Reaps whoever has ended. The command's status, once it is among them.
fn bury(command: &Process, keeper: &Channel) -> std::io::Result<Option<u8>> {
    loop {
        match wait::news()? {
            News::Ended(pid, status) if pid == command.pid => return Ok(Some(status)),
            News::Stopped(pid, signal) if pid == command.pid => {
                // A keeper that is gone shows in the next poll.
                let _ = keeper.send(&FromInit::Stopped(signal), &[]);
            }
            News::None | News::NoChildren => return Ok(None),
            _ => {}
        }
    }
}
