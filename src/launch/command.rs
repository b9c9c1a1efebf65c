//! What every process does that becomes a command, in a new box or in a living one.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setpgid};

use crate::error::{Context, Error, Kind, Result};
use crate::kernel::signal::{self, OriginalMask};
use crate::kernel::terminal::Terminal;
use crate::kernel::{call_watch, inherited, process};
use crate::plan::environment::value_in;

/// A process group of its own, so that a signal to netbox's group reaches the command once, by the launcher.
///
/// # Errors
/// None that the manual names, for a process that has just been forked.
pub(super) fn take_foreground(take_terminal: bool) -> Result<()> {
    let own = Pid::from_raw(0);
    setpgid(own, own).context(|| "cannot make a process group")?;
    if take_terminal && let Some(terminal) = Terminal::controlling() {
        // The terminal may have hung up meanwhile: the command will see that by itself.
        let _ = terminal.give_to(nix::unistd::getpid());
    }
    Ok(())
}

/// After the last change of credentials, which would clear it (PR_SET_PDEATHSIG(2const)).
///
/// # Errors
/// When it is gone already.
pub(super) fn die_with(parent: Pid) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context(|| "cannot set the parent-death signal")?;
    // It may have died before the line above.
    if getppid() == parent { Ok(()) } else { Err(Error::new("the process above the command is gone")) }
}

/// Leaves the command the descriptors and signals that it would have if started bare, and `kept`. `closed`: the standard ones that
/// it has not.
///
/// # Errors
/// EBADF for one that is to be kept and is not there.
pub(super) fn hand_over(mask: &OriginalMask, kept: &[i32], closed: impl Iterator<Item = i32>) -> Result<()> {
    process::close_on_exec_from(3).context(|| "cannot close the inherited descriptors")?;
    for number in kept {
        inherited::pass_on(*number).context(|| format!("cannot pass on file descriptor {number}"))?;
    }
    for fd in closed {
        process::close_standard(fd);
    }
    signal::restore(mask).context(|| "cannot restore the signal mask")
}

/// With `-P`, what tells the keeper that a process of the box may be about to listen. While there are privileges: without
/// `no_new_privs`, which `--allow-new-privs` leaves out, it takes CAP_SYS_ADMIN.
///
/// # Errors
/// Below another such watch; those of the kernel.
pub(super) fn watch_for_listeners() -> Result<OwnedFd> {
    let watch = call_watch::install(&[libc::SYS_bind, libc::SYS_listen]);
    watch.context(|| "cannot watch for what listens in the box (-P/--publish-all)").map_err(|error| {
        match error.errno() {
            Some(libc::EBUSY) => error.hint("netbox itself runs below such a watch: publish the ports by -p"),
            _ => error,
        }
    })
}

/// Replaces this process by the command: execvp(3) with the PATH of the new environment. Returns why not.
pub(super) fn execute(command: &[OsString], environment: &[OsString]) -> Error {
    let Some(name) = command.first() else { return Error::usage("no command to run") };
    let shown = if name.is_empty() { "\"\"".to_owned() } else { name.to_string_lossy().into_owned() };
    let c_string = |bytes: Vec<u8>| CString::new(bytes).ok();
    let arguments: Option<Vec<_>> = command.iter().map(|word| c_string(word.as_bytes().to_vec())).collect();
    let variables: Option<Vec<_>> =
        environment.iter().map(|entry| c_string(entry.as_bytes().to_vec())).collect();
    let (Some(arguments), Some(variables)) = (arguments, variables) else {
        return Error::new(format!("cannot run {shown}")).because("an argument holds a NUL byte");
    };
    let path = value_in(environment, OsStr::new("PATH")).map(OsStr::as_bytes);
    let mut worst = Errno::ENOENT;
    for candidate in candidates(name.as_bytes(), path) {
        let Some(candidate) = c_string(candidate) else { continue };
        let Err(errno) = nix::unistd::execve(&candidate, &arguments, &variables);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            // execvp(3): remembered while the rest of PATH is tried. A directory that this user may not search says nothing of
            // what is in it, unless it was named.
            Errno::EACCES if is_there(&candidate) || name.as_bytes().contains(&b'/') => worst = errno,
            Errno::EACCES => {}
            _ => {
                worst = errno;
                break;
            }
        }
    }
    not_executed(&shown, worst)
}

fn is_there(path: &CString) -> bool {
    nix::sys::stat::stat(path.as_c_str()).is_ok()
}

fn candidates(name: &[u8], path: Option<&[u8]>) -> Vec<Vec<u8>> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    // confstr(_CS_PATH) is what execvp(3) takes where PATH is unset.
    let path = path.unwrap_or(b"/bin:/usr/bin");
    path.split(|byte| *byte == b':')
        .map(|directory| match directory {
            b"" => name.to_vec(),
            _ => [directory, b"/", name].concat(),
        })
        .collect()
}

fn not_executed(name: &str, errno: Errno) -> Error {
    let error = Error::new(format!("cannot run {name}"));
    match errno {
        Errno::ENOENT => error.because("command not found").kind(Kind::NotFound),
        Errno::ENOEXEC => error
            .os(&errno.into())
            .hint("a script needs a first line such as #!/bin/sh")
            .kind(Kind::NotExecutable),
        _ => error.os(&errno.into()).kind(Kind::NotExecutable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_every_directory_of_path_in_order_and_an_empty_one_is_the_current() {
        assert_eq!(
            candidates(b"ls", Some(b"/a::/b")),
            [b"/a/ls".to_vec(), b"ls".to_vec(), b"/b/ls".to_vec()]
        );
        assert_eq!(candidates(b"./ls", Some(b"/a")), [b"./ls".to_vec()]);
        assert!(candidates(b"", Some(b"/a")).is_empty());
    }
}
