//! The box's own mounts: made in its first process, seen by nobody else, gone with it.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{SYSFS_MAGIC, statfs};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Context, Result};

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NOTHING: Option<&str> = None;

/// Lets this process's mounts go their own way and gives it a sysfs of its own network.
///
/// What the host mounts later still appears in the box (MS_SLAVE), as for a command started bare.
/// `read_only`: for a box of root, whom file permissions in /sys do not stop.
///
/// # Errors
/// When a mount fails that the fence rests on.
pub fn private(read_only: bool) -> Result<()> {
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SLAVE, NOTHING)
        .context(|| "cannot separate the box's mounts")?;
    // no_new_privs ignores set-user-id bits but not file capabilities: a program that has one which the bounding set has
    // not, as ping often does, would be refused (EPERM, `cap_bprm_creds_from_file`). On a nosuid mount it just runs.
    crate::kernel::mount::set_nosuid_below("/").context(|| "cannot ignore file capabilities in the box")?;
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

/// Makes /proc/sys read-only for a box of root, to whom the kernel gives the settings of its own network
/// namespace, and those of the whole machine, by user id alone.
///
/// # Errors
/// When the mount fails.
pub fn protect_kernel_settings(is_root: bool) -> Result<()> {
    if is_root { bind_read_only("/proc/sys") } else { Ok(()) }
}

fn bind_read_only(path: &str) -> Result<()> {
    // Not recursive: what is mounted below (binfmt_misc) is not for the box either.
    mount(Some(path), path, NOTHING, MsFlags::MS_BIND, NOTHING)
        .context(|| format!("cannot protect {path}"))?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARMLESS;
    mount(NOTHING, path, NOTHING, flags, NOTHING).context(|| format!("cannot protect {path}"))
}
