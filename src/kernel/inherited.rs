//! Descriptors that the caller of netbox left open, known by their numbers.

use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;

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
    // SAFETY: F_GETFD takes no pointer; a closed descriptor gives EBADF.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    Ok(())
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
