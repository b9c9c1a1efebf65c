//! Files and directories that netbox keeps for itself: opened without following links, believed only where nobody else could have
//! written them, and replaced whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawMode};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Context, Error, Result};

/// No state file of ours is larger: what is, is not ours. The largest is the record of a box with a command line of 2 MiB (execve(2))
/// in which every byte has to be escaped.
const LARGEST: u64 = 16 << 20;

const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// Opens a directory that must be this user's own.
pub(in crate::apply) fn open_checked(at: impl AsFd, name: &str, path: &str) -> Result<OwnedFd> {
    let directory = open_directory(at, name).context(|| format!("cannot open {path}"))?;
    check(&directory, path)?;
    Ok(directory)
}

/// Opens the directory in which those of all users are: root's, as a rule, or this user's own.
pub(in crate::apply) fn open_parent(path: &str) -> Result<OwnedFd> {
    let directory = open_directory(CWD, path).context(|| format!("cannot open {path}"))?;
    check_of(&directory, path, |owner| owner == 0 || owner == own_user())?;
    Ok(directory)
}

/// Opens a directory without following a link.
pub(in crate::apply) fn open_directory(at: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, path, DIRECTORY, Mode::empty())?)
}

/// Makes a directory, which may be there already.
pub(in crate::apply) fn make_directory(at: impl AsFd, path: &str, mode: RawMode) -> io::Result<()> {
    match rustix::fs::mkdirat(at, path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

pub(in crate::apply) fn check(file: &impl AsFd, path: &str) -> Result<()> {
    check_of(file, path, |owner| owner == own_user())
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn check_of(file: &impl AsFd, path: &str, may_own: impl Fn(u32) -> bool) -> Result<()> {
    let stat =
        rustix::fs::fstat(file).map_err(io::Error::from).context(|| format!("cannot look at {path}"))?;
    if !may_own(stat.st_uid) {
        return Err(Error::new(format!("cannot use {path}"))
            .because(format!("it belongs to user {}, not to user {}", stat.st_uid, own_user()))
            .hint(format!("look who made it, and remove it: rm -r {path}")));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::new(format!("cannot use {path}"))
            .because(format!("others may write to it (mode {:04o})", stat.st_mode & 0o7777))
            .hint(format!("chmod go-w {path}")));
    }
    Ok(())
}

/// Reads a JSON file. `None`: not there, or not what we write (cut short, foreign, garbage, too large).
pub(in crate::apply) fn read_json<T: DeserializeOwned>(at: impl AsFd, name: &str) -> Option<T> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    read_open_json(rustix::fs::openat(at, name, flags, Mode::empty()).ok()?)
}

/// The same of a file that is open.
pub(in crate::apply) fn read_open_json<T: DeserializeOwned>(file: OwnedFd) -> Option<T> {
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes a JSON file so that whoever reads it sees the old one, this one, or none: never half of one.
pub(in crate::apply) fn write_json(
    at: impl AsFd + Copy,
    name: &str,
    value: &impl Serialize,
) -> io::Result<()> {
    let new = half_written(name);
    let written =
        write_half(at, name, value).and_then(|()| Ok(rustix::fs::renameat(at, new.as_str(), at, name)?));
    if written.is_err() {
        // What cannot be removed either, the next one that is written replaces.
        let _ = remove(at, &new);
    }
    written
}

/// Writes what has yet to be renamed.
pub(in crate::apply) fn write_half(at: impl AsFd, name: &str, value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(at, half_written(name), flags, Mode::from_raw_mode(0o600))?;
    File::from(file).write_all(&bytes)
}

/// Takes room on the disk for what [`write_into_room`] writes.
pub(in crate::apply) fn take_room(at: impl AsFd, name: &str, length: usize) -> io::Result<()> {
    open_half(at, name)?.write_all(&vec![b' '; length])
}

/// As [`write_json`], into the room that was taken for it, if any was: also where the disk is full by now.
pub(in crate::apply) fn write_into_room(
    at: impl AsFd + Copy,
    name: &str,
    value: &impl Serialize,
    length: usize,
) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(value)?;
    // Whatever was there is written over: JSON may end in spaces.
    bytes.resize(bytes.len().max(length), b' ');
    open_half(at, name)?.write_all(&bytes)?;
    Ok(rustix::fs::renameat(at, half_written(name).as_str(), at, name)?)
}

/// What is there of it stays.
fn open_half(at: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(at, half_written(name), flags, Mode::from_raw_mode(0o600))?.into())
}

/// What a file is called until it is whole.
pub(in crate::apply) fn half_written(name: &str) -> String {
    format!("{name}.new")
}

/// Removes a file, which may be gone already.
pub(in crate::apply) fn remove(at: impl AsFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
