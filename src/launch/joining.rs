//! A further command in a living box, top to bottom: from the host's namespaces to the command.
//!
//! Everything here runs in the child that the supervisor of `netbox exec` forked. It begins with all of the caller's privileges,
//! in the host's namespaces (but for the pid namespace, into which it is born), and ends in exec with none, in the box's. In
//! between, processes of the box may see it: it cannot be traced (and so neither its memory nor its descriptors nor its program be
//! had), and touches no file of the box before its privileges are gone.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::stat::stat;
use nix::unistd::{Pid, chdir};

use crate::error::{Context, Error, Result};
use crate::kernel::channel::{Channel, Incoming};
use crate::kernel::signal::OriginalMask;
use crate::kernel::{entry, namespace, process};
use crate::plan::identity::Identity;
use crate::plan::privileges::Privileges;

use super::command;
use super::drop::drop_privileges;
use super::init::{self, Post};
use super::message::{FromBox, ToBox};

/// Where a further command starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directory {
    /// There, or not at all.
    Asked(PathBuf),
    /// In the caller's, by its name, where the box has one that the command may enter. `None`: it has no name any more.
    Callers(Option<PathBuf>),
}

/// What the process has to know before it starts.
#[derive(Debug)]
pub struct Joining<'a> {
    /// What is to be run.
    pub command: &'a [OsString],
    /// Its environment.
    pub environment: &'a [OsString],
    /// Where it starts.
    pub directory: &'a Directory,
    /// Who it runs as.
    pub identity: &'a Identity,
    /// What it may do.
    pub privileges: Privileges,
    /// The box's own command.
    pub member: BorrowedFd<'a>,
    /// Which of its namespaces are not the caller's.
    pub namespaces: CloneFlags,
    /// Whether the box's keeper publishes what listens in the box.
    pub publish_all: bool,
    /// What netbox blocked and the command gets back.
    pub mask: OriginalMask,
    /// Whether the command takes the terminal's foreground from the launcher at once.
    pub take_terminal: bool,
    /// The supervisor, without which there must be no command.
    pub supervisor: Pid,
    /// To the supervisor, where this process is to stay above the command, in the box's pid namespace.
    pub warden: Option<Channel>,
}

/// Runs the process. Returns only when it failed, with the status to end with.
pub fn join(mut joining: Joining<'_>, supervisor: &Channel) -> u8 {
    match become_command(&mut joining, supervisor) {
        Ok(never) => match never {},
        Err(error) => {
            let status = error.exit_status();
            // The supervisor may be gone: then nobody is left to tell.
            let _ = supervisor.send(&FromBox::Failed(error), &[]);
            status
        }
    }
}

fn become_command(joining: &mut Joining<'_>, supervisor: &Channel) -> Result<Infallible> {
    enter(joining)?;
    let mut parent = joining.supervisor;
    if let Some(warden) = joining.warden.take() {
        parent = nix::unistd::getpid();
        init::stay_behind(Post::Warden, joining.identity, &warden)?;
    }
    command::take_foreground(joining.take_terminal)?;
    let calls = joining.publish_all.then(command::watch_for_listeners).transpose()?;
    let for_keeper: Vec<_> = calls.iter().map(AsFd::as_fd).collect();
    supervisor.send(&FromBox::Unshared, &for_keeper).context(|| "cannot reach the supervisor")?;
    drop(calls);
    match supervisor.receive::<ToBox>().context(|| "cannot hear the supervisor")? {
        Some(Incoming { message: ToBox::Run, .. }) => {}
        Some(_) => return Err(Error::new("the supervisor skipped a step")),
        None => return Err(Error::new("the supervisor of this command is gone")),
    }
    drop_privileges(joining.identity, &joining.privileges)?;
    // A change of user may have undone it (`commit_creds`, fs.suid_dumpable). Exec ends it.
    process::hide_from_tracers().context(|| "cannot keep tracers out")?;
    if let Some(warning) =
        enter_directory(joining.directory, joining.namespaces.contains(CloneFlags::CLONE_NEWNS))?
    {
        supervisor.send(&FromBox::Warning(warning), &[]).context(|| "cannot reach the supervisor")?;
    }
    command::die_with(parent)?;
    command::hand_over(&joining.mask, &[], entry::closed_standard_descriptors())?;
    Err(command::execute(joining.command, joining.environment))
}

fn enter(joining: &Joining<'_>) -> Result<()> {
    let which = joining.namespaces.difference(CloneFlags::CLONE_NEWPID);
    let identify = || stat("/").context(|| "cannot look at the root directory");
    let before = identify()?;
    namespace::enter(joining.member, which).map_err(|errno| {
        let error = Error::new("cannot enter the box's namespaces").os(&errno.into());
        match errno {
            Errno::ESRCH => error.because("the box has just ended"),
            _ => error,
        }
    })?;
    // Entering a user namespace is a change of credentials.
    process::hide_from_tracers().context(|| "cannot keep tracers out")?;
    let after = identify()?;
    if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino) {
        // setns(2) leads to the root directory of the mount namespace, and so out of a chroot(2).
        return Err(Error::new("cannot enter the box")
            .because("its root directory is not this process's, as in a chroot or after pivot_root(2)"));
    }
    Ok(())
}

/// As the command's user: a directory that the user may not enter is refused as it would be to them. What should be told, if
/// anything.
fn enter_directory(directory: &Directory, has_own_mounts: bool) -> Result<Option<String>> {
    let path = match directory {
        Directory::Asked(path) => {
            return chdir(path).context(|| format!("cannot enter {}", path.display())).map(|()| None);
        }
        // Without mounts of its own the box left it as it is.
        Directory::Callers(_) if !has_own_mounts => return Ok(None),
        Directory::Callers(path) => path.as_deref(),
    };
    let refused = match path.map(chdir) {
        Some(Ok(())) => return Ok(None),
        Some(Err(errno)) => errno,
        None => Errno::ENOENT,
    };
    chdir("/").context(|| "cannot enter /")?;
    let path = path.unwrap_or_else(|| Path::new("the caller's directory")).display().to_string();
    let why = refused.desc().to_lowercase();
    Ok(Some(format!("the command starts in /, since it cannot enter {path:?}: {why}")))
}
