//! Namespaces: entering, leaving, telling one from another.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use super::net_cookie::netns_cookie;

/// include/uapi/linux/magic.h.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

use super::process::Process;

/// Opens this thread's own network namespace.
///
/// # Errors
/// Where /proc is not mounted; EMFILE.
pub fn own_network() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Opens the network namespace of process `pid`.
///
/// # Errors
/// ENOENT when the process is gone; EACCES without ptrace access to it.
pub fn network_of(pid: i32) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{pid}/ns/net"))?.into())
}

/// That of a process which is watched.
///
/// # Errors
/// As [`network_of`].
pub fn network_of_process(process: &Process) -> io::Result<OwnedFd> {
    by_pidfd(process, PIDFD_GET_NET_NAMESPACE).or_else(|_| network_of(process.pid.as_raw()))
}

/// `_IO(0xff, …)` of include/uapi/linux/pidfd.h, since Linux 6.11. By its path in /proc the kernel makes names and inodes for the
/// process and its namespaces, and has them to forget when it ends.
const PIDFD_GET_MNT_NAMESPACE: libc::Ioctl = libc::_IO(0xff, 3);
const PIDFD_GET_NET_NAMESPACE: libc::Ioctl = libc::_IO(0xff, 4);

fn by_pidfd(process: &Process, which: libc::Ioctl) -> nix::Result<OwnedFd> {
    // SAFETY: the ioctl takes no pointer; an older kernel answers ENOTTY.
    let result = unsafe { libc::ioctl(process.as_fd().as_raw_fd(), which, 0) };
    let number = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for this call, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The inode in nsfs by which the namespace of this kind (`net`, `mnt` …) that process `pid` is in is known while it lives: what
/// follows `net:` in namespaces(7). Used again after its end.
///
/// # Errors
/// ENOENT, ESRCH when the process is gone, or has ended and not been waited for; EACCES without ptrace access to it.
pub fn inode_of(pid: i32, kind: &str) -> io::Result<u64> {
    // Not stat(2), which takes the namespace out of the kernel's hands for a moment: this only writes down its name.
    let name = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
    let number =
        name.to_str().and_then(|name| name.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Moves this thread to the network namespace `network`, be it given by itself or by a process in it (a pidfd).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; ESRCH when that process is gone.
pub fn enter_network(network: BorrowedFd<'_>) -> nix::Result<()> {
    setns(network, CloneFlags::CLONE_NEWNET)
}

/// Runs `work` in the network namespace `network`, and comes back to `home` whatever it returned.
///
/// # Errors
/// The outer one when a namespace cannot be entered; this thread is then wherever it was left, and the
/// caller must give up.
pub fn inside<T>(network: BorrowedFd<'_>, home: BorrowedFd<'_>, work: impl FnOnce() -> T) -> nix::Result<T> {
    enter_network(network)?;
    let result = work();
    // Tried twice: what is undone after a failure has to be undone at home.
    enter_network(home).or_else(|_| enter_network(home))?;
    Ok(result)
}

/// The number of the network namespace `network`, never given twice while the machine runs. `home`: that of this thread.
///
/// # Errors
/// EINVAL for a namespace of another kind; EPERM without CAP_SYS_ADMIN.
pub fn cookie_of(network: BorrowedFd<'_>, home: BorrowedFd<'_>) -> io::Result<u64> {
    inside(network, home, || {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        netns_cookie(socket.as_fd())
    })?
}

/// Whether a file is a namespace: one of nsfs.
///
/// # Errors
/// None that the manual names.
pub fn is_namespace_file(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == NSFS_MAGIC)
}

/// `_IO(0xb7, 0x3)` of include/uapi/linux/nsfs.h: of which kind a namespace is, as the flag of clone(2).
const NS_GET_NSTYPE: libc::Ioctl = libc::_IO(0xb7, 0x3);

/// Whether a namespace, opened, is one of networks (ioctl_nsfs(2), Linux ≥ 4.11).
///
/// # Errors
/// ENOTTY for what is no namespace.
pub fn is_network(namespace: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the ioctl takes no argument.
    let kind = Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) })?;
    Ok(kind == libc::CLONE_NEWNET)
}

/// Moves this thread to a new, empty network namespace. It lives as long as something holds it.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; ENOSPC when user.max_net_namespaces is reached.
pub fn new_network() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
}

/// Kinds of namespaces, to be made together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// A new, empty network.
    pub network: bool,
    /// A copy of the mounts.
    pub mounts: bool,
    /// A copy of the host name.
    pub uts: bool,
    /// No System V IPC objects, no POSIX message queues.
    pub ipc: bool,
}

/// Moves this process to new namespaces of these kinds.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; ENOSPC when a limit such as user.max_net_namespaces is reached.
pub fn make(kinds: Kinds) -> nix::Result<()> {
    let chosen = [
        (kinds.network, CloneFlags::CLONE_NEWNET),
        (kinds.mounts, CloneFlags::CLONE_NEWNS),
        (kinds.uts, CloneFlags::CLONE_NEWUTS),
        (kinds.ipc, CloneFlags::CLONE_NEWIPC),
    ];
    let flags =
        chosen.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag).collect::<CloneFlags>();
    if flags.is_empty() { Ok(()) } else { unshare(flags) }
}

/// Each kind that a box may have of its own, by its name in /proc (namespaces(7)).
const KINDS: [(&str, CloneFlags); 6] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("pid", CloneFlags::CLONE_NEWPID),
];

/// In which namespaces process `pid` is and this one is not. The number must still be the process's own when this returns.
///
/// # Errors
/// ENOENT, ESRCH when the process is gone; EACCES without ptrace access to it.
pub fn apart_from(pid: i32) -> io::Result<CloneFlags> {
    let mut apart = CloneFlags::empty();
    for (kind, flag) in KINDS {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}"))?;
        if std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))? != own {
            apart |= flag;
        }
    }
    Ok(apart)
}

/// Moves this process to those namespaces of another that `which` names, all at once or to none. For the pid namespace that
/// means its later children (setns(2); a pidfd takes Linux ≥ 5.8). The root and current directory become those of the mount
/// namespace.
///
/// # Errors
/// ESRCH when the process is gone; EPERM without CAP_SYS_ADMIN over both sides; EINVAL for the user namespace that this
/// process is in.
pub fn enter(process: BorrowedFd<'_>, which: CloneFlags) -> nix::Result<()> {
    if which.is_empty() { Ok(()) } else { setns(process, which) }
}

/// Gives the user namespace of process `pid`, which is below this process's, every user and group that this process's has, each
/// under the same number (user_namespaces(7)).
///
/// # Errors
/// EPERM without CAP_SETUID, CAP_SETGID and CAP_SETFCAP; ENOENT when the process is gone.
pub fn map_users_as_here(pid: i32) -> io::Result<()> {
    for map in ["uid_map", "gid_map"] {
        let here = std::fs::read_to_string(format!("/proc/self/{map}"))?;
        // Lines of a first number here, its number in the parent, and how many.
        let same: String = here
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let (first, count) = (words.next()?, words.nth(1)?);
                Some(format!("{first} {first} {count}\n"))
            })
            .collect();
        std::fs::write(format!("/proc/{pid}/{map}"), same)?;
    }
    Ok(())
}

/// Whether process `pid` is in this process's network and mount namespaces. One that is dead already is in none, and counts
/// as sharing both.
#[must_use]
pub fn is_shared_with(pid: i32) -> bool {
    ["net", "mnt"].iter().all(|kind| {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}"));
        let other = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        match (own, other) {
            (Ok(own), Ok(other)) => own == other,
            _ => true,
        }
    })
}

/// What tells a mount namespace from every other: its inode number, which is used again after its end,
/// and, on Linux ≥ 6.12, an id that never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MountNamespace {
    /// The inode in nsfs.
    pub inode: u64,
    /// `NS_GET_MNTNS_ID` of ioctl_nsfs(2).
    pub id: Option<u64>,
}

impl MountNamespace {
    /// That of process `pid`.
    ///
    /// # Errors
    /// ENOENT, ESRCH when the process is gone; EACCES without ptrace access to it.
    pub fn of(pid: i32) -> io::Result<Self> {
        Self::behind(File::open(format!("/proc/{pid}/ns/mnt"))?)
    }

    /// That of a process which is watched.
    ///
    /// # Errors
    /// As [`MountNamespace::of`].
    pub fn of_process(process: &Process) -> io::Result<Self> {
        match by_pidfd(process, PIDFD_GET_MNT_NAMESPACE) {
            Ok(namespace) => Self::behind(namespace.into()),
            Err(_) => Self::of(process.pid.as_raw()),
        }
    }

    fn behind(namespace: File) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        Ok(Self { inode: namespace.metadata()?.ino(), id: mount_namespace_id(namespace.as_fd()) })
    }
}

/// `_IOR(0xb7, 0x5, __u64)` of include/uapi/linux/nsfs.h.
const NS_GET_MNTNS_ID: libc::Ioctl = libc::_IOR::<u64>(0xb7, 0x5);

fn mount_namespace_id(namespace: BorrowedFd<'_>) -> Option<u64> {
    let mut id = 0u64;
    // SAFETY: the ioctl writes one u64 to the pointer, which is that of a u64; an older kernel answers ENOTTY.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) };
    Errno::result(result).ok().map(|_| id)
}
