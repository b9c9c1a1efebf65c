//! Network sysctls of the calling thread's network namespace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, openat, openat2};

/// Reads a value, without the newline. `path` is what follows `/proc/sys/net`, one name each, such as
/// `["ipv4", "conf", "eth0.7", "forwarding"]`: a name may contain dots.
///
/// # Errors
/// EINVAL for a name that is empty, `.`, `..` or has a slash; ENOENT where there is no such value (the link is gone).
pub fn read(path: &[&str]) -> io::Result<String> {
    let mut value = String::new();
    open(&mounted()?, path, OFlags::RDONLY)?.read_to_string(&mut value)?;
    value.truncate(value.trim_end().len());
    Ok(value)
}

/// Writes a value.
///
/// # Errors
/// Those of [`read`]; EACCES without CAP_NET_ADMIN over the namespace, EROFS where a container runtime
/// mounted it so, EINVAL when the kernel dislikes the value.
pub fn write(path: &[&str], value: &str) -> io::Result<()> {
    write_to(&mounted()?, path, value)
}

/// Writes a value through `proc`, a /proc that need not be mounted.
///
/// # Errors
/// As [`write()`].
pub fn write_in(proc: BorrowedFd<'_>, path: &[&str], value: &str) -> io::Result<()> {
    write_to(&directory(proc, "sys/net")?, path, value)
}

fn write_to(net: &OwnedFd, path: &[&str], value: &str) -> io::Result<()> {
    // One write(2): the kernel takes each for a whole value.
    let written = open(net, path, OFlags::WRONLY)?.write(value.as_bytes())?;
    if written == value.len() { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

/// /proc/sys/net, if it is the kernel's.
fn mounted() -> io::Result<OwnedFd> {
    let net = directory(CWD, "/proc/sys/net")?;
    if fstatfs(&net)?.f_type != PROC_SUPER_MAGIC {
        return Err(Errno::ENOENT.into());
    }
    Ok(net)
}

fn directory(at: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    Ok(openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn check(path: &[&str]) -> io::Result<()> {
    let plain = |name: &&&str| !matches!(**name, "" | "." | "..") && !name.contains(['/', '\0']);
    if path.is_empty() || path.iter().filter(plain).count() != path.len() {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

fn open(net: &OwnedFd, path: &[&str], access: OFlags) -> io::Result<File> {
    check(path)?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path: PathBuf = path.iter().collect();
    Ok(openat2(net, path, access | OFlags::CLOEXEC, Mode::empty(), inside)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_out_of_the_directory() {
        for name in ["", ".", "..", "a/b", "/", "a\0b"] {
            let error = read(&["ipv4", "conf", name, "forwarding"]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name:?}");
        }
        assert!(read(&[]).is_err());
        assert_eq!(read(&["ipv4", "conf", "lo", "tag"]).unwrap(), "0");
    }
}
