//! Signals: held back while netbox works, read from a descriptor, handed to the command as they were.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::entry;

/// The signals that this process blocked when it started, so that the command can have them again.
#[derive(Debug, Clone, Copy)]
pub struct OriginalMask(SigSet);

/// Blocks every signal that can be blocked, for good, and remembers what was blocked before.
///
/// From here on nothing but SIGKILL and SIGSTOP interrupts this process: what is begun is ended.
///
/// # Errors
/// None that the manual names.
pub fn block_all() -> nix::Result<OriginalMask> {
    let mut old = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut old))?;
    expect_children()?;
    Ok(OriginalMask(old))
}

/// Lets this process learn how its children end, also where its caller ignored SIGCHLD.
///
/// # Errors
/// None that the manual names.
pub fn expect_children() -> nix::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    if entry::child_ignored() {
        // Else the kernel reaps children itself, and nobody learns how they ended (waitid(2), NOTES).
        // SAFETY: SIG_DFL installs no handler.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Waits for one of the signals by which processes are asked to end. All signals must be blocked.
///
/// # Errors
/// None that the manual names.
pub fn wait_for_request_to_end() -> nix::Result<()> {
    use nix::sys::signal::Signal;
    let requests = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    SigSet::from_iter(requests).wait().map(drop)
}

/// Puts the mask and the dispositions of SIGPIPE and SIGCHLD back to what the caller of netbox had, for the command.
///
/// All other dispositions were never changed, or are reset by execve(2).
///
/// # Errors
/// None that the manual names.
pub fn restore(original: &OriginalMask) -> nix::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    if !entry::pipe_ignored() {
        // SAFETY: SIG_DFL installs no handler.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    }
    if entry::child_ignored() {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&original.0), None)
}

/// Blocked signals, to be read.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// One signal, as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Its number.
    pub number: i32,
    /// Who sent it: this process itself where the kernel did for something that this process did.
    pub sender: u32,
}

impl Signals {
    /// Every signal that can be caught.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn all() -> nix::Result<Self> {
        Self::of(&SigSet::all())
    }

    /// News of children only.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn of_children() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        set.add(nix::sys::signal::Signal::SIGCHLD);
        Self::of(&set)
    }

    fn of(set: &SigSet) -> nix::Result<Self> {
        SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// The next signal that has arrived, if one has.
    ///
    /// # Errors
    /// None that the manual names.
    pub fn read(&mut self) -> io::Result<Option<Received>> {
        let signal = self.0.read_signal()?;
        Ok(signal.and_then(|info| {
            Some(Received { number: i32::try_from(info.ssi_signo).ok()?, sender: info.ssi_pid })
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
