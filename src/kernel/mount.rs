//! Mount attributes, which no crate wraps, and mounts that are nowhere.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// A /proc of this process's own, of the same processes as the one it has, and mounted nowhere. It goes with its last descriptor;
/// whoever closes that one waits for RCU (`dissolve_on_fput`), for 0.1 to 15 ms.
///
/// # Errors
/// ENOSYS before Linux 5.2; EPERM where it would show what is covered in the mounted one (`mount_too_revealing`).
pub fn own_proc() -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let harmless = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, harmless)?)
}

/// Makes the mount at `path`, and every mount below it, ignore set-user-id bits and file capabilities (mount_setattr(2),
/// Linux ≥ 5.12).
///
/// # Errors
/// ENOSYS on older kernels; EPERM without CAP_SYS_ADMIN over the mount namespace.
pub fn set_nosuid_below(path: &CStr) -> nix::Result<()> {
    set_below(libc::AT_FDCWD, path, 0, libc::MOUNT_ATTR_NOSUID)
}

/// Makes a mount and every mount below it read-only, without set-user-id bits, devices and programs.
///
/// # Errors
/// As [`set_nosuid_below`].
pub fn set_read_only_below(tree: BorrowedFd<'_>) -> nix::Result<()> {
    let attributes =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    set_below(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH, attributes)
}

fn set_below(directory: libc::c_int, path: &CStr, flags: libc::c_int, attr_set: u64) -> nix::Result<()> {
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: both pointers are to values that outlive the call, and the size is that of the structure; the kernel only
    // reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}
