//! The state directory: `/run/netbox/<uid>/`, where runs of one user find each other.
//!
//! ```text
//! lock            the run lock: read-decide-write of everything below, and of what is shared on the host
//! slots           who lives (kernel::slots), and two counters
//! gateway         JSON: the gateway, written before the first thing that it describes is made
//! boxes/ID/       one directory per box, locked by its keeper for life; box.json in it
//! names/NAME      symbolic link to the id of the box with that name
//! ```
//! Everything is opened without following links, and refused when it belongs to somebody else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RawMode};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Context, Error, Result};
use crate::kernel::slots::Slots;
use crate::plan::topology::SLOTS;

/// Where the directories of all users are.
pub const PARENT: &str = "/run/netbox";

/// No state file of ours is larger: what is, is not ours.
const LARGEST: u64 = 4 << 20;

const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// The opened state directory of one user.
#[derive(Debug)]
pub struct State {
    root: OwnedFd,
    path: String,
    lock: File,
    slots: Slots,
}

impl State {
    /// Opens it, making what is missing.
    ///
    /// # Errors
    /// When a part of it is a link, belongs to another user or may be written by others, naming it.
    pub fn open() -> Result<Self> {
        let path = path_of(rustix::process::geteuid().as_raw());
        let root = match rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty()) {
            Ok(root) => root,
            Err(rustix::io::Errno::NOENT) => make(&path)?,
            Err(errno) => return Err(Error::new(format!("cannot open {path}")).os(&errno.into())),
        };
        check(&root, &path)?;
        let open = |name: &str| -> Result<File> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::openat(&root, name, flags, Mode::from_raw_mode(0o600))
                .map_err(io::Error::from)
                .context(|| format!("cannot open {path}/{name}"))?;
            check(&file, &format!("{path}/{name}"))?;
            Ok(file.into())
        };
        let lock = open("lock")?;
        let slots =
            Slots::map(&open("slots")?, SLOTS as usize).context(|| format!("cannot map {path}/slots"))?;
        Ok(Self { root, path, lock, slots })
    }

    /// Opens it if it is there. `None`: netbox has not run here.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_existing() -> Result<Option<Self>> {
        let path = path_of(rustix::process::geteuid().as_raw());
        match rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            _ => Self::open().map(Some),
        }
    }

    /// Waits for the run lock and takes it, for as long as the result lives.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn lock(&mut self) -> Result<Locked<'_>> {
        loop {
            match rustix::fs::flock(&self.lock, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Locked { state: self }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(Error::new(format!("cannot lock {}/lock", self.path)).os(&errno.into()));
                }
            }
        }
    }

    /// The directory's path, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Who lives. Meaningful for readers without the lock too, but only as of now.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Whether the directory is still the one that its path leads to, and not removed or replaced.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let ours = rustix::fs::fstat(&self.root);
        let there = rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        matches!((ours, there), (Ok(a), Ok(b)) if a.st_ino == b.st_ino && a.st_dev == b.st_dev)
    }

    /// The directory itself.
    #[must_use]
    pub const fn root(&self) -> &OwnedFd {
        &self.root
    }
}

/// The state directory with the run lock held.
#[derive(Debug)]
pub struct Locked<'s> {
    state: &'s mut State,
}

impl Locked<'_> {
    /// Who lives.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.state.slots
    }

    /// Who lives, to be changed.
    pub const fn slots_mut(&mut self) -> &mut Slots {
        &mut self.state.slots
    }

    /// The directory itself.
    #[must_use]
    pub const fn root(&self) -> &OwnedFd {
        &self.state.root
    }

    /// Whether the directory is still where it was.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.state.is_in_place()
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Cannot fail for an open descriptor; and the lock ends with the process anyway.
        let _ = rustix::fs::flock(&self.state.lock, FlockOperation::Unlock);
    }
}

fn path_of(uid: u32) -> String {
    format!("{PARENT}/{uid}")
}

fn make(path: &str) -> Result<OwnedFd> {
    // Others may pass through to their own directory, but only root may add one.
    make_directory(CWD, PARENT, 0o755).context(|| format!("cannot make {PARENT}"))?;
    check_parent()?;
    make_directory(CWD, path, 0o700).context(|| format!("cannot make {path}"))?;
    let root = open_directory(CWD, path).context(|| format!("cannot open {path}"))?;
    for part in ["boxes", "names"] {
        make_directory(&root, part, 0o700).context(|| format!("cannot make {path}/{part}"))?;
    }
    Ok(root)
}

fn check_parent() -> Result<()> {
    let parent = open_directory(CWD, PARENT).context(|| format!("cannot open {PARENT}"))?;
    check(&parent, PARENT)
}

/// Opens a directory without following a link.
pub(super) fn open_directory(at: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, path, DIRECTORY, Mode::empty())?)
}

/// Makes a directory, which may be there already.
pub(super) fn make_directory(at: impl AsFd, path: &str, mode: RawMode) -> io::Result<()> {
    match rustix::fs::mkdirat(at, path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn check(file: &impl AsFd, path: &str) -> Result<()> {
    let stat =
        rustix::fs::fstat(file).map_err(io::Error::from).context(|| format!("cannot look at {path}"))?;
    let own = rustix::process::geteuid().as_raw();
    if stat.st_uid != own {
        return Err(Error::new(format!("cannot use {path}"))
            .because(format!("it belongs to user {}, not to user {own}", stat.st_uid))
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
pub(super) fn read_json<T: DeserializeOwned>(at: impl AsFd, name: &str) -> Option<T> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(at, name, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes a JSON file so that whoever reads it sees the old one, this one, or none: never half of one.
pub(super) fn write_json(at: impl AsFd + Copy, name: &str, value: &impl Serialize) -> io::Result<()> {
    let new = half_written(name);
    let written = write_and_rename(at, &new, name, &serde_json::to_vec(value)?);
    if written.is_err() {
        // What cannot be removed either, the next one that is written replaces.
        let _ = remove(at, &new);
    }
    written
}

fn write_and_rename(at: impl AsFd + Copy, new: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(at, new, flags, Mode::from_raw_mode(0o600))?;
    File::from(file).write_all(bytes)?;
    rustix::fs::renameat(at, new, at, name)?;
    Ok(())
}

/// What a file is called until it is whole.
pub(super) fn half_written(name: &str) -> String {
    format!("{name}.new")
}

/// Removes a file, which may be gone already.
pub(super) fn remove(at: impl AsFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
