//! Socket options that no crate here has a name for (socket(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// From `asm-generic/socket.h`. Linux has it since 5.0.
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// Lets a socket send and receive by the link with this index only, which need not exist yet.
///
/// # Errors
/// EPERM without CAP_NET_RAW where it is bound to another one, EINVAL for an index that none can have.
pub fn bind_to_link(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&index)).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a local that outlives the call, `length` is its size, and the kernel only reads.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BINDTOIFINDEX,
            (&raw const index).cast(),
            length,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The `N` bytes of an option of `SOL_SOCKET`.
///
/// # Errors
/// ENOTSOCK when `socket` is none, ENOPROTOOPT when the kernel has no such option.
pub(super) fn read<const N: usize>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<[u8; N]> {
    let mut value = [0; N];
    let mut length = libc::socklen_t::try_from(N).map_err(io::Error::other)?;
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of the first: the
    // kernel writes at most that many bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
