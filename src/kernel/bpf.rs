//! Classic BPF, the language of socket filters and of seccomp (bpf(4)): for programs of a few statements whose shape depends on
//! numbers known only now.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads `size` bytes (1, 2, or 4) at `offset`, in network byte order.
pub(super) fn load(size: u16, offset: usize) -> libc::sock_filter {
    let size = match size {
        1 => libc::BPF_B,
        2 => libc::BPF_H,
        _ => libc::BPF_W,
    };
    statement(libc::BPF_LD | libc::BPF_ABS | size, 0, 0, u32::try_from(offset).unwrap_or(u32::MAX))
}

/// Goes on `yes` or `no` statements later.
pub(super) fn skip_if(equal_to: u32, yes: u8, no: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, equal_to)
}

/// The end: takes the whole message, or nothing.
pub(super) fn verdict(take: bool) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, 0, 0, if take { u32::MAX } else { 0 })
}

/// Any statement.
pub(super) fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

/// Lets the kernel look at what comes to a socket, and keep back what the filter does not take (SO_ATTACH_FILTER, socket(7)).
///
/// # Errors
/// EINVAL for a program that the kernel does not take, ENOMEM.
pub(super) fn attach(socket: BorrowedFd<'_>, mut filter: Vec<libc::sock_filter>) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a local sock_fprog of that size, which points at `length` statements of a vector;
    // both outlive the call, which copies them.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
