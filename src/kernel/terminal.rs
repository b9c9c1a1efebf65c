//! The controlling terminal: whose process group is in its foreground.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use super::bpf::{skip_if, statement};

/// Where `nr` and the lower half of the second argument are in `struct seccomp_data`.
const NUMBER: u32 = 0;
const SECOND_ARGUMENT: u32 = 24;

/// Set in the numbers of x32's system calls (`__X32_SYSCALL_BIT`).
const X32: u32 = 1 << 30;
/// ioctl(2) of x32, and that of 32-bit programs on both kinds of machine.
const OTHER_IOCTLS: [u32; 2] = [514, 54];

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

/// Forbids this process, and all that it starts, to put characters into the input of its terminal as if they had been typed
/// (TIOCSTI, ioctl_tty(2)), or pasted (TIOCLINUX, ioctl_console(2)): whoever reads there next would take them for its user's. EPERM.
///
/// It cannot be undone, and outlives exec.
///
/// # Errors
/// EACCES without `no_new_privs` or CAP_SYS_ADMIN; EINVAL where the kernel has no seccomp.
pub fn forbid_typing() -> io::Result<()> {
    let load = |at| statement(libc::BPF_LD | libc::BPF_ABS | libc::BPF_W, 0, 0, at);
    let end = |value| statement(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    #[allow(clippy::unnecessary_cast, reason = "the type of a request differs between C libraries")]
    let [typed, pasted] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];
    let native = u32::try_from(libc::SYS_ioctl).map_err(io::Error::other)?;
    let [x32, compat] = OTHER_IOCTLS;
    // Which architecture's number it is does not matter: no other call of these numbers is ever made with such an argument.
    let mut filter = vec![
        load(SECOND_ARGUMENT),
        skip_if(typed, 1, 0),
        skip_if(pasted, 0, 5),
        load(NUMBER),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, !X32),
        skip_if(native, 3, 0),
        skip_if(x32, 2, 0),
        skip_if(compat, 1, 0),
        end(libc::SECCOMP_RET_ALLOW),
        end(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
    ];
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // Before Linux 5.16 a filter without it costs what protects from speculation (SSBD).
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: seccomp(2) reads a sock_fprog of `length` statements; both are locals that outlive the call.
    let set =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Errno::result(set).map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    /// On a thread of its own: the filter stays on whoever set it.
    #[test]
    fn what_would_be_typed_is_refused_and_other_requests_are_not() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let request = move |request| {
            let mut bytes = [b'x'; 64];
            // SAFETY: each of these requests reads or writes less than 64 bytes at the pointer.
            let done = unsafe { libc::ioctl(pair.slave.as_raw_fd(), request, bytes.as_mut_ptr()) };
            Errno::result(done).map(drop)
        };
        let refused = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            forbid_typing().unwrap();
            // The terminal is not this process's own one, which root may type into all the same.
            [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCGWINSZ].map(request)
        });
        assert_eq!(refused.join().unwrap(), [Err(Errno::EPERM), Err(Errno::EPERM), Ok(())]);
    }
}
