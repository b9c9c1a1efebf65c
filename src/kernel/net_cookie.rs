//! Telling network namespaces apart.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

/// From `asm-generic/socket.h`. Linux has it since 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The number of the network namespace that a socket belongs to, never given twice while the machine runs.
///
/// An inode number of nsfs, which is what `stat` tells of a namespace, is used again for another one.
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14, ENOTSOCK when `socket` is none.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of the first;
    // the kernel writes at most that many bytes. Every bit pattern is a valid u64.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
