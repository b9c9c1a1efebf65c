//! Socket options that no crate here has a name for (socket(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
