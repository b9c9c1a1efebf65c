//! Telling network namespaces apart.

use std::io;
use std::os::fd::BorrowedFd;

use super::socket_option;

/// From `asm-generic/socket.h`. Linux has it since 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The number of the network namespace that a socket belongs to, never given twice while the machine runs.
///
/// An inode number of nsfs, which is what `stat` tells of a namespace, is used again for another one.
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14, ENOTSOCK when `socket` is none.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    socket_option::read(socket, SO_NETNS_COOKIE).map(u64::from_ne_bytes)
}
