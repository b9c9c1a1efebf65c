//! Processes: forking, waiting, killing, and what dies with whom.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::unistd::{ForkResult, Pid};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// On which side of a fork(2) one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that forked, with the number of its child.
    Parent(Pid),
    /// The new process, a copy.
    Child,
}

/// Makes a copy of this process. Both sides own all that the process owned: each drops what is not its own.
///
/// To be called while this process has a single thread: netbox forks before it starts any.
///
/// # Errors
/// Those of fork(2): EAGAIN, ENOMEM.
pub fn fork() -> io::Result<Side> {
    // SAFETY: the process has one thread (see above), so no lock can be held by a thread that the
    // child does not have, and the child may allocate.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Which namespaces a process is born into, since nobody can enter or make them for itself as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// A new pid namespace: the process is its first, its orphans become that one's children, and everything in it dies with
    /// it (pid_namespaces(7)).
    pub pids: bool,
    /// A new user namespace, to which the pid namespace then belongs. Without a user until they are mapped.
    pub users: bool,
}

/// [`fork`] into new namespaces.
///
/// # Errors
/// Those of clone(2): EPERM without CAP_SYS_ADMIN, ENOSPC when user.max_pid_namespaces or user.max_user_namespaces is reached.
pub fn fork_into(birth: Birth) -> io::Result<Side> {
    if !birth.pids && !birth.users {
        return fork();
    }
    // Not unshare(2) and fork(2): then every later child of this process, and no thread, could be made in the pid namespace.
    let flag = |wanted, flag| if wanted { flag } else { 0 };
    let flags = flag(birth.pids, libc::CLONE_NEWPID) | flag(birth.users, libc::CLONE_NEWUSER) | libc::SIGCHLD;
    let (flags, nothing) = (libc::c_long::from(flags), 0 as libc::c_long);
    // SAFETY: without CLONE_VM and a stack the call is fork(2): it takes no memory, and returns twice, each with a memory of
    // its own. The process has one thread, as for `fork`. What the C library does beside the call is for threads: handlers
    // (netbox has none) and the cached number of the thread, which only its recursive locks read.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, nothing, nothing, nothing, nothing) };
    match Errno::result(result)? {
        0 => Ok(Side::Child),
        child => Ok(Side::Parent(Pid::from_raw(i32::try_from(child).map_err(io::Error::other)?))),
    }
}

/// Makes this process unreadable to all but privileged ones: no ptrace(2), no core file (PR_SET_DUMPABLE(2const)).
///
/// # Errors
/// None that the manual names.
pub fn hide_from_tracers() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)
}

/// Ends this process at once, without running what the parent left in `atexit` or buffers.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

/// A process that cannot be mistaken for a later one with its number (pidfd_open(2)).
#[derive(Debug)]
pub struct Process {
    /// Its number, for messages and for waiting.
    pub pid: Pid,
    fd: OwnedFd,
}

impl Process {
    /// Takes over a pidfd that another process opened, perhaps in another pid namespace; the number is looked up in this one.
    ///
    /// # Errors
    /// ESRCH when the process is gone; InvalidData for a descriptor that is no pidfd.
    pub fn of_pidfd(fd: OwnedFd) -> io::Result<Self> {
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let text = std::fs::read_to_string(path)?;
        // pidfd_open(2): -1 when it was reaped, 0 when it is in no namespace below this one.
        let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
        match number {
            Some(number) if number > 0 => Ok(Self { pid: Pid::from_raw(number), fd }),
            Some(_) => Err(Errno::ESRCH.into()),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Opens a child of this process that has not been waited for (so that its number is still its own).
    ///
    /// # Errors
    /// ESRCH when there is no such process; EMFILE, ENOMEM.
    pub fn of_child(pid: Pid) -> io::Result<Self> {
        let number = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(Errno::ESRCH)?;
        Ok(Self { pid, fd: pidfd_open(number, PidfdFlags::empty())? })
    }

    /// Takes over a pidfd that another process opened, and the number that it told.
    #[must_use]
    pub const fn from_parts(pid: Pid, fd: OwnedFd) -> Self {
        Self { pid, fd }
    }

    /// Whether it has ended, be it waited for or not. While it has not, its number is its own.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut end = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        Ok(nix::poll::poll(&mut end, PollTimeout::ZERO)? != 0)
    }

    /// Sends a signal. A process that is gone already is no error.
    ///
    /// # Errors
    /// EPERM.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // Real-time signals have no name in rustix's enumeration but are legal numbers.
        let Some(signal) = rustix::process::Signal::from_named_raw(signal) else {
            return signal_number(self.fd.as_fd(), signal);
        };
        match pidfd_send_signal(&self.fd, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn signal_number(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal(2) reads no memory when `info` is null; the descriptor is borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0u32,
        )
    };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a process is stopped by a signal (`T` in proc_pid_stat(5)). One that is gone is not.
#[must_use]
pub fn is_stopped(process: &Process) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid));
    // The name before it may be anything. Should the number be another's by now, the signal is not sent to that one.
    stat.is_ok_and(|text| text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
}

/// Raises the limit of descriptors to the hard one: the soft one is for programs that use select(2).
///
/// # Errors
/// None that the manual names.
pub fn raise_descriptor_limit() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// Opens a process by its number, to be told of its end: the descriptor is readable from then on (pidfd_open(2)). The
/// number may have become another process's: the caller looks again whether it is still whom it means.
///
/// # Errors
/// ESRCH when there is none; EMFILE, ENOMEM.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(Errno::ESRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits until process `pid`, anybody's, has ended, or `other` is readable or closed, and no longer than `limit`.
///
/// # Errors
/// EMFILE, ENOMEM; a process that is gone is no error.
pub fn wait_for_end(pid: u32, other: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let process = match open(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        other => other?,
    };
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut both = [process.as_fd(), other].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    nix::poll::poll(&mut both, limit)?;
    Ok(())
}

/// Waits until a process has ended, and no longer than `limit`.
///
/// # Errors
/// None that the manual names.
pub fn wait_until_ended(process: &Process, limit: Duration) -> io::Result<()> {
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    nix::poll::poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], limit)?;
    Ok(())
}

/// Waits until one of two processes has ended.
///
/// # Errors
/// ENOMEM.
pub fn wait_for_either_end(one: &Process, other: &Process) -> io::Result<()> {
    let mut both = [one.as_fd(), other.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        match nix::poll::poll(&mut both, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Shares descriptor `number` of process `pid`: the same open file, not another like it (pidfd_getfd(2), Linux ≥ 5.6).
///
/// # Errors
/// ESRCH when the process is gone, EBADF when it has no such descriptor, EPERM without ptrace access to it.
pub fn share_descriptor(pid: u32, number: u16) -> io::Result<OwnedFd> {
    let process = open(pid)?;
    Ok(rustix::process::pidfd_getfd(process, i32::from(number), rustix::process::PidfdGetfdFlags::empty())?)
}

/// Makes every orphan among this process's descendants its child (PR_SET_CHILD_SUBREAPER(2const)).
///
/// # Errors
/// None on Linux ≥ 3.4.
pub fn become_subreaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// The children of this process's main thread, from /proc.
///
/// # Errors
/// ENOENT on a kernel without CONFIG_PROC_CHILDREN, or without /proc.
pub fn children() -> io::Result<Vec<Pid>> {
    let own = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
    Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect())
}

/// The parent of process `pid`; 0 where it has none in this pid namespace.
///
/// # Errors
/// ENOENT, ESRCH when the process is gone.
pub fn parent_of(pid: i32) -> io::Result<i32> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    // proc_pid_stat(5): the name is in parentheses, and may have any in it.
    let rest = text.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let parent =
        std::str::from_utf8(rest).ok().and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse().ok());
    parent.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Marks every descriptor from `first` on to be closed by the next exec (close_range(2), Linux ≥ 5.11).
///
/// # Errors
/// ENOSYS or EINVAL on older kernels.
pub fn close_on_exec_from(first: RawFd) -> nix::Result<()> {
    range(first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor above 2 but `kept`: what the caller of netbox left open is the command's business, not
/// that of a helper which lives as long.
///
/// To be called when everything else that is open in this process belongs to nobody in it.
///
/// # Errors
/// ENOSYS on kernels before 5.9.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let mut kept: Vec<_> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    range(first, RawFd::MAX, 0)
}

fn range(first: RawFd, last: RawFd, flags: u32) -> nix::Result<()> {
    // SAFETY: close_range(2) takes three numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Closes one descriptor by number, for the standard ones, which nobody owns.
pub fn close_standard(fd: RawFd) {
    debug_assert!((0..3).contains(&fd));
    // SAFETY: 0, 1 and 2 are owned by nothing in this program; EBADF is the wanted state.
    let _ = unsafe { libc::close(fd) };
}

/// Points the standard descriptors at /dev/null, so that a long-lived helper holds nobody's pipe open.
///
/// # Errors
/// Where /dev/null cannot be opened.
pub fn let_go_of_standard_descriptors() -> io::Result<()> {
    let null = let_go_of_input_and_output()?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Goes to the root directory, so that a long-lived helper keeps no file system busy.
///
/// # Errors
/// None that is known: a process may always enter its root directory, unless that was made so for it.
pub fn let_go_of_directory() -> nix::Result<()> {
    nix::unistd::chdir("/")
}

/// Points standard input and output at /dev/null, and keeps standard error for messages.
///
/// # Errors
/// Where /dev/null cannot be opened.
pub fn let_go_of_input_and_output() -> io::Result<std::fs::File> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(null)
}
