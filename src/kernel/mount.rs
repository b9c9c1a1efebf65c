//! Mount attributes, which no crate wraps.

use std::ffi::CString;

use nix::errno::Errno;

/// Makes the mount that `path` is on, and every mount below it, ignore set-user-id bits and file capabilities (mount_setattr(2),
/// Linux ≥ 5.12).
///
/// # Errors
/// ENOSYS on older kernels; EPERM without CAP_SYS_ADMIN over the mount namespace.
pub fn set_nosuid_below(path: &str) -> nix::Result<()> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_NOSUID, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: both pointers are to locals that outlive the call, and the size is that of the structure; the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}
