//! Waiting for children, with signals as numbers: real-time signals have no names.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// There are children, and nothing new of them.
    None,
    /// There are no children.
    NoChildren,
    /// It ended; it was reaped. With the status that mirrors its end: its own, or 128 + the signal.
    Ended(Pid, u8),
    /// It was stopped by this signal.
    Stopped(Pid, i32),
    /// It was continued.
    Continued(Pid),
}

/// Which children to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Any.
    All,
    /// This one.
    One(Pid),
}

/// The oldest news of the children, without waiting for any. Reaps the one it tells the end of.
///
/// # Errors
/// None that the manual names.
pub fn news() -> io::Result<News> {
    wait(Whose::All, libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG)
}

/// Waits until the child has ended, and reaps it.
///
/// # Errors
/// None that the manual names; a child that is not there is [`News::NoChildren`].
pub fn end_of(child: Pid) -> io::Result<News> {
    wait(Whose::One(child), libc::WEXITED)
}

/// Whether there are children, dead ones included.
///
/// # Errors
/// None that the manual names.
pub fn have_children() -> io::Result<bool> {
    Ok(wait(Whose::All, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)? != News::NoChildren)
}

fn wait(whose: Whose, options: libc::c_int) -> io::Result<News> {
    let (kind, id) = match whose {
        Whose::All => (libc::P_ALL, 0),
        Whose::One(pid) => (libc::P_PID, pid.as_raw().cast_unsigned()),
    };
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: waitid(2) writes at most one siginfo_t to the pointer, which is that of one.
        let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options) };
        match Errno::result(result) {
            Ok(_) => {
                // SAFETY: zeroed is a valid siginfo_t, and the kernel wrote over it or left it so (WNOHANG).
                return Ok(read(&unsafe { info.assume_init() }));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(News::NoChildren),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn read(info: &libc::siginfo_t) -> News {
    // SAFETY: the structure was filled by waitid(2), or is all zeros, which reads as process 0.
    let pid = Pid::from_raw(unsafe { info.si_pid() });
    // SAFETY: as above; the field is a plain number.
    let status = unsafe { info.si_status() };
    let [low, ..] = status.to_le_bytes();
    match (pid.as_raw(), info.si_code) {
        (0, _) => News::None,
        (_, libc::CLD_EXITED) => News::Ended(pid, low),
        (_, libc::CLD_KILLED | libc::CLD_DUMPED) => News::Ended(pid, low.wrapping_add(128)),
        (_, libc::CLD_STOPPED | libc::CLD_TRAPPED) => News::Stopped(pid, status),
        _ => News::Continued(pid),
    }
}

/// Kills and reaps the children that `doomed` picks, and every orphan that thereby becomes one and is picked, until none
/// is left.
///
/// # Errors
/// Where children cannot be listed, or what is listed are none. Children in uninterruptible sleep are waited for.
pub fn kill_children(doomed: impl Fn(Pid) -> bool) -> io::Result<()> {
    while have_children()? {
        let mut children = super::process::children()?;
        children.retain(|child| doomed(*child));
        if children.is_empty() {
            break;
        }
        for child in &children {
            // ESRCH: it ended by itself. It is our child and unreaped, so the number is its own.
            let _ = nix::sys::signal::kill(*child, Signal::SIGKILL);
        }
        let mut ended = false;
        for child in children {
            ended |= end_of(child)? != News::NoChildren;
        }
        if !ended {
            return Err(io::Error::other("what /proc lists as children are none"));
        }
    }
    Ok(())
}
