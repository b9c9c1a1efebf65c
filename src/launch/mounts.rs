//! The box's own mounts: made in its first process, seen by nobody else, gone with it.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, SYSFS_MAGIC, statfs};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Context, Error, Result};
use crate::spec::net::Net;
use crate::spec::request::RunRequest;

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NOTHING: Option<&str> = None;
/// `MQUEUE_MAGIC` of ipc/mqueue.c.
const MQUEUE_MAGIC: FsType = FsType(0x1980_0202);

/// Where systemd-resolved has its sockets, and the files that /etc/resolv.conf may be a link to.
const RESOLVED: &str = "/run/systemd/resolve";

/// Where the C library finds name services of the host.
const NAME_SERVICES: [&str; 2] = [RESOLVED, "/run/nscd"];

/// Lets this process's mounts go their own way, and mounts anew what shows a namespace that the box has of its own: its
/// network, its processes, its message queues. `can_be_root`: file permissions in /sys do not stop what is in the box.
///
/// # Errors
/// When a mount fails that the fence rests on.
pub fn make(request: &RunRequest, can_be_root: bool) -> Result<()> {
    if !request.has_own_mounts() {
        return Ok(());
    }
    separate(request.unshare.mount)?;
    if !request.allow_new_privs {
        ignore_file_privileges()?;
    }
    if request.has_own_network() {
        sysfs(can_be_root)?;
        hide_name_services(request.net == Net::Nat)?;
    }
    if request.unshare.pid {
        mount(Some("proc"), "/proc", Some("proc"), HARMLESS, NOTHING)
            .context(|| "cannot mount a /proc for the box's processes")?;
    }
    if request.unshare.ipc {
        message_queues()?;
    }
    Ok(())
}

/// What the host mounts later still appears in the box (MS_SLAVE), as for a command started bare, unless it is to be
/// `apart`. What the box mounts never appears on the host.
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

fn ignore_file_privileges() -> Result<()> {
    // no_new_privs ignores set-user-id bits but not file capabilities: a program that has one which the bounding set has
    // not, as ping often does, would be refused (EPERM, `cap_bprm_creds_from_file`). On a nosuid mount it just runs.
    crate::kernel::mount::set_nosuid_below("/").context(|| "cannot ignore file capabilities in the box")
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

/// Hides the sockets by which the C library asks the host's name services, past the box's resolver: nscd(8), and
/// systemd-resolved (nss-resolve(8)). Their directories, as the sockets are made anew with every start of these.
///
/// `with_resolver`: whether the box has a resolv.conf(5) of its own.
///
/// # Errors
/// When there is such a directory and it cannot be covered.
fn hide_name_services(with_resolver: bool) -> Result<()> {
    for directory in NAME_SERVICES {
        if std::fs::symlink_metadata(directory).is_ok() {
            cover(directory, with_resolver).context(|| format!("cannot hide {directory} from the box"))?;
        }
    }
    Ok(())
}

fn cover(directory: &str, with_resolver: bool) -> std::io::Result<()> {
    mount(Some("netbox"), directory, Some("tmpfs"), HARMLESS, Some("size=4k,nr_inodes=8,mode=755"))?;
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

/// Makes /proc/sys read-only for a box of root, to whom the kernel gives the settings of its own network
/// namespace, and those of the whole machine, by user id alone.
///
/// # Errors
/// When the mount fails.
pub fn protect_kernel_settings(can_be_root: bool) -> Result<()> {
    if can_be_root { bind_read_only("/proc/sys") } else { Ok(()) }
}

fn bind_read_only(path: &str) -> Result<()> {
    // Not recursive: what is mounted below (binfmt_misc) is not for the box either.
    mount(Some(path), path, NOTHING, MsFlags::MS_BIND, NOTHING)
        .context(|| format!("cannot protect {path}"))?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARMLESS;
    mount(NOTHING, path, NOTHING, flags, NOTHING).context(|| format!("cannot protect {path}"))
}
