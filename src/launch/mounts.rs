//! The box's own mounts: made in its first process, seen by nobody else, gone with it.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{FsType, SYSFS_MAGIC, statfs};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Context, Error, Result};
use crate::kernel::mount::{set_nosuid_below, set_read_only_below};
use crate::plan::mounts::{Mount, RESOLVED, TMPFS_OF_HIDDEN};

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NOTHING: Option<&str> = None;
/// `MQUEUE_MAGIC` of ipc/mqueue.c.
const MQUEUE_MAGIC: FsType = FsType(0x1980_0202);

/// Makes a planned mount in this process's mount namespace.
///
/// # Errors
/// When a mount fails that the fence rests on.
pub fn make(planned: &Mount) -> Result<()> {
    match planned {
        Mount::Separate { apart } => separate(*apart),
        Mount::LetGoOfNetworks => let_go_of_networks(),
        Mount::Nosuid => set_nosuid_below(c"/").context(|| "cannot ignore file capabilities in the box"),
        Mount::Sysfs { read_only } => sysfs(*read_only),
        Mount::Hide { directory, with_resolver } => hide(directory, *with_resolver),
        Mount::Proc => proc(),
        Mount::MessageQueues => message_queues(),
        Mount::ReadOnly(path) => bind_read_only(path),
    }
}

/// Does something while a read-only mount of [`make`]'s is not there, before the command runs.
///
/// # Errors
/// When it cannot be taken away, or made again.
pub fn without<T>(planned: Option<&Mount>, work: impl FnOnce() -> T) -> Result<T> {
    let Some(cover @ Mount::ReadOnly(path)) = planned else { return Ok(work()) };
    umount2(*path, MntFlags::MNT_DETACH).context(|| format!("cannot uncover {path}"))?;
    let done = work();
    make(cover)?;
    Ok(done)
}

fn separate(apart: bool) -> Result<()> {
    let propagation = if apart { MsFlags::MS_PRIVATE } else { MsFlags::MS_SLAVE };
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | propagation, NOTHING).map_err(|errno| {
        let error = Error::new("cannot separate the box's mounts").os(&errno.into());
        match errno {
            // mount(2): not a mount point.
            Errno::EINVAL => error
                .because("the root directory is not a mount point, as in a chroot")
                .hint("make it one before the chroot: mount --bind DIR DIR"),
            _ => error,
        }
    })
}

/// Where the directory is a mount, as ip-netns(8) makes it, all that is below goes with it.
fn let_go_of_networks() -> Result<()> {
    match umount2("/run/netns", MntFlags::MNT_DETACH) {
        // EINVAL: it is no mount.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno).context(|| "cannot unmount /run/netns in the box"),
    }
}

fn proc() -> Result<()> {
    mount(Some("proc"), "/proc", Some("proc"), HARMLESS, NOTHING).map_err(|errno| {
        let error = Error::new("cannot mount a /proc for the box's processes").os(&errno.into());
        match errno {
            // `mount_too_revealing` of fs/namespace.c.
            Errno::EPERM => error
                .because("parts of /proc are covered here, as in a container, and a user namespace must not show them")
                .hint("without --unshare-pid, or without capabilities beyond the default, no new /proc is needed"),
            _ => error,
        }
    })
}

fn sysfs(read_only: bool) -> Result<()> {
    // In a chroot without /sys there is nothing to replace.
    if statfs("/sys").is_ok_and(|fs| fs.filesystem_type() == SYSFS_MAGIC) {
        fresh_sysfs(read_only)
    } else {
        Ok(())
    }
}

/// The old one shows the host's interfaces, whatever the reader's namespace (sysfs(5), `ip netns exec`
/// does the same). Control groups are hung into the new one again: runtimes read their limits there.
fn fresh_sysfs(read_only: bool) -> Result<()> {
    let tree =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    // ENOENT, EINVAL: the host has no control groups there.
    let groups = open_tree(rustix::fs::CWD, "/sys/fs/cgroup", tree).ok();
    let access = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    match mount(Some("sysfs"), "/sys", Some("sysfs"), HARMLESS | access, NOTHING) {
        Ok(()) => {
            if let Some(groups) = groups {
                // A kernel without control groups has no such directory: then there was nothing to keep.
                let _ = move_mount(
                    &groups,
                    "",
                    rustix::fs::CWD,
                    "/sys/fs/cgroup",
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                );
            }
            Ok(())
        }
        // Inside a container whose /sys is masked the kernel refuses a new one (mount_too_revealing). The old one
        // tells names, no more; for root it must not be written to.
        Err(Errno::EPERM) if read_only => bind_read_only("/sys"),
        Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context(|| "cannot mount a sysfs for the box"),
    }
}

/// The file system of the host's message queues shows those of the IPC namespace in which it was mounted (mq_overview(7)).
fn message_queues() -> Result<()> {
    const AT: &str = "/dev/mqueue";
    if !statfs(AT).is_ok_and(|fs| fs.filesystem_type() == MQUEUE_MAGIC) {
        return Ok(());
    }
    mount(Some("mqueue"), AT, Some("mqueue"), HARMLESS, NOTHING)
        .context(|| "cannot mount the box's message queues")
}

/// Puts a mount over the file `path`. Where that is a link, over the link: what it leads to may be replaced, or not be
/// there.
///
/// # Errors
/// ENOENT when there is nothing.
pub fn put(mount: BorrowedFd<'_>, path: &str) -> Result<()> {
    move_mount(mount, "", rustix::fs::CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(std::io::Error::from)
        .context(|| format!("cannot put the box's own file over {path}"))
}

/// Puts a file of the host's over the one of the same name in /etc, as `ip netns exec` does.
///
/// # Errors
/// ENOENT, ENOTDIR where it does not fit.
pub fn put_file_of(directory: &str, name: &str) -> Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let path = format!("{directory}/{name}");
    let tree = open_tree(rustix::fs::CWD, path.as_str(), flags).map_err(std::io::Error::from);
    put(tree.context(|| format!("cannot make a mount of {path}"))?.as_fd(), &format!("/etc/{name}"))
}

/// A directory that is not there hides itself.
fn hide(directory: &str, with_resolver: bool) -> Result<()> {
    if std::fs::symlink_metadata(directory).is_err() {
        return Ok(());
    }
    cover(directory, with_resolver).context(|| format!("cannot hide {directory} from the box"))
}

fn cover(directory: &str, with_resolver: bool) -> std::io::Result<()> {
    mount(Some("netbox"), directory, Some("tmpfs"), HARMLESS, Some(TMPFS_OF_HIDDEN))?;
    if directory == RESOLVED {
        // Who reads these finds the box's own file, or says that there is no name server.
        for name in ["resolv.conf", "stub-resolv.conf"] {
            let path = format!("{directory}/{name}");
            if with_resolver {
                std::os::unix::fs::symlink("/etc/resolv.conf", path)?;
            } else {
                std::fs::write(path, "")?;
            }
        }
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARMLESS;
    Ok(mount(NOTHING, directory, NOTHING, flags, NOTHING)?)
}

fn bind_read_only(path: &str) -> Result<()> {
    // Not recursive: what is mounted below (binfmt_misc) is not for the box either.
    match mount(Some(path), path, NOTHING, MsFlags::MS_BIND, NOTHING) {
        // user_namespaces(7): of what came from the parent nothing may be uncovered, so what is below stays.
        Err(Errno::EINVAL) => return bind_all_read_only(path).context(|| format!("cannot protect {path}")),
        other => other.context(|| format!("cannot protect {path}"))?,
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARMLESS;
    mount(NOTHING, path, NOTHING, flags, NOTHING).context(|| format!("cannot protect {path}"))
}

fn bind_all_read_only(path: &str) -> nix::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let here = rustix::fs::CWD;
    let as_errno = |errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error());
    let tree = open_tree(here, path, flags).map_err(as_errno)?;
    set_read_only_below(tree.as_fd())?;
    move_mount(&tree, "", here, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(as_errno)
}
