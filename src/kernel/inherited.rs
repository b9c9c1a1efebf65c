//! Descriptors that the caller of netbox left open, known by their numbers.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::{ReadWriteFlags, pwritev2};

use super::entry;

/// Whether the caller handed over descriptor `number`. To be asked before netbox opens anything.
///
/// # Errors
/// EBADF when not.
pub fn check(number: RawFd) -> io::Result<()> {
    // The standard ones that were closed are open by now.
    if entry::closed_standard_descriptors().any(|closed| closed == number) {
        return Err(Errno::EBADF.into());
    }
    flags(number, libc::F_GETFD).map(drop)
}

/// Another descriptor of the same open file, which must be open for writing.
///
/// # Errors
/// EBADF when there is no such descriptor, or it is read-only; EMFILE.
pub fn writable(number: RawFd) -> io::Result<OwnedFd> {
    check(number)?;
    if flags(number, libc::F_GETFL)? & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: F_DUPFD_CLOEXEC takes a number, the lowest for the new descriptor.
    let duplicate = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Lets descriptor `number` pass through exec.
///
/// # Errors
/// EBADF when there is none.
pub fn pass_on(number: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes two numbers.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })?;
    Ok(())
}

/// Writes as much as goes at once, whatever the descriptor is and whoever else has it: its own flags are not touched. A pipe
/// without a reader raises SIGPIPE, which the caller has blocked.
///
/// # Errors
/// EAGAIN when there is no room, and those of write(2).
pub fn write_without_waiting(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // At its own position, as write(2) does (pwritev2(2): an offset of -1).
    match pwritev2(descriptor, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
        // Terminals, many file systems, and pipes before Linux 6.4.
        Err(rustix::io::Errno::OPNOTSUPP) => write_where_there_is_room(descriptor, bytes),
        other => Ok(other?),
    }
}

fn write_where_there_is_room(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut wanted = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    if poll(&mut wanted, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN.into());
    }
    // pipe(7): a pipe that is ready for writing takes that much at once.
    let now = bytes.get(..libc::PIPE_BUF).unwrap_or(bytes);
    Ok(rustix::io::write(descriptor, now)?)
}

fn flags(number: RawFd, which: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFD and F_GETFL take no pointer; a closed descriptor gives EBADF.
    Ok(Errno::result(unsafe { libc::fcntl(number, which) })?)
}
