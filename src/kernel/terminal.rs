//! The controlling terminal: whose process group is in its foreground.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Whether standard output is a terminal.
#[must_use]
pub fn is_output() -> bool {
    nix::unistd::isatty(std::io::stdout()).unwrap_or(false)
}

/// The controlling terminal of this process.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// Opens it, where there is one (tty(4): ENXIO where not).
    #[must_use]
    pub fn controlling() -> Option<Self> {
        let options = libc::O_CLOEXEC | libc::O_NOCTTY;
        OpenOptions::new().read(true).write(true).custom_flags(options).open("/dev/tty").ok().map(Self)
    }

    /// Whether this process's group is in the foreground.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(&self.0) == Ok(getpgrp())
    }

    /// Puts `group` in the foreground. The caller has SIGTTOU blocked, or would be stopped by it.
    ///
    /// # Errors
    /// EPERM, ESRCH when the group is gone or of another session; EIO when the terminal hung up.
    pub fn give_to(&self, group: Pid) -> nix::Result<()> {
        tcsetpgrp(&self.0, group)
    }
}

impl Terminal {
    /// Puts `to` in the foreground if the group there is `from`, or no longer exists.
    ///
    /// # Errors
    /// As [`Terminal::give_to`].
    pub fn take_from(&self, from: Option<Pid>, to: Pid) -> nix::Result<()> {
        let now = tcgetpgrp(&self.0)?;
        let is_dead = nix::sys::signal::killpg(now, None) == Err(nix::errno::Errno::ESRCH);
        if Some(now) == from || is_dead { tcsetpgrp(&self.0, to) } else { Ok(()) }
    }
}
