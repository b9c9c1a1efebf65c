//! The state directory: `/run/netbox/<uid>/<cookie>/`, where runs of one user on one host find each other.
//!
//! A host is a network namespace, and the cookie is its number, which is never given twice (SO_NETNS_COOKIE): runs in
//! another one, by `ip netns exec` or in a container that shares /run, have gateways, rules and boxes of their own.
//!
//! ```text
//! lock            the run lock: read-decide-write of everything below, and of what is shared on the host
//! slots           who lives (kernel::slots), and two counters
//! gateway         JSON: the gateway, written before the first thing that it describes is made
//! boxes/ID/       one directory per box, locked by its keeper for life; in it box.json, and the socket `control`
//! names/NAME      symbolic link to the id of the box with that name
//! networks/ID/    one link for each address of a network that a box has (apply::seats)
//! ```
//! Everything is opened without following links, and refused when it belongs to somebody else. The last keeper removes it.

mod files;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, StatxFlags};

use crate::error::{Context, Error, Result};
use crate::kernel::net_cookie::netns_cookie;
use crate::kernel::slots::Slots;
use crate::plan::topology::SLOTS;

pub(super) use files::{
    check, half_written, make_directory, open_checked, open_directory, open_parent, read_json,
    read_open_json, remove, take_room, write_half, write_into_room, write_json,
};

/// Where the directories of all users are.
pub const PARENT: &str = "/run/netbox";

/// The opened state directory of one user.
#[derive(Debug)]
pub struct State {
    root: OwnedFd,
    /// The user's directory, and the name of `root` in it.
    own: OwnedFd,
    name: String,
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
        let cookie = cookie_here()?;
        loop {
            // Not tried again: ENOENT is a machine without /run.
            make_directory(CWD, PARENT, 0o755).context(|| format!("cannot make {PARENT}"))?;
            // ENOENT: the last keeper of before removed it between two of these steps.
            match Self::attempt(cookie, true) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                other => return other,
            }
        }
    }

    /// With `make` what is missing is made.
    fn attempt(cookie: u64, make: bool) -> Result<Self> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let name = cookie_name(cookie);
        let make_directory = |at: BorrowedFd<'_>, path: &str, mode| match make {
            true => make_directory(at, path, mode),
            false => Ok(()),
        };
        // Opened first: it is there but for the first box.
        let open_or_make = |at: &OwnedFd, name: &str, path: &str| match open_checked(at, name, path) {
            Err(error) if make && error.errno() == Some(libc::ENOENT) => {
                make_directory(at.as_fd(), name, 0o700).context(|| format!("cannot make {path}"))?;
                open_checked(at, name, path)
            }
            opened => opened,
        };
        let parent = open_parent(PARENT)?;
        // Others may pass through to their own directory, but only root may add one.
        let own = format!("{PARENT}/{user}");
        let own_directory = open_or_make(&parent, &user, &own)?;
        let path = format!("{own}/{name}");
        let root = open_or_make(&own_directory, &name, &path)?;
        for part in ["boxes", "names"] {
            make_directory(root.as_fd(), part, 0o700).context(|| format!("cannot make {path}/{part}"))?;
        }
        let open = |name: &str| -> Result<File> {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let flags = if make { flags | OFlags::CREATE } else { flags };
            let file = rustix::fs::openat(&root, name, flags, Mode::from_raw_mode(0o600))
                .map_err(io::Error::from)
                .context(|| format!("cannot open {path}/{name}"))?;
            check(&file, &format!("{path}/{name}"))?;
            Ok(file.into())
        };
        let lock = open("lock")?;
        let slots = open("slots").and_then(|file| {
            Slots::map(&file, SLOTS as usize).context(|| format!("cannot map {path}/slots"))
        });
        let slots = slots.inspect_err(|_| {
            // The machine has no room: nor is anything left. EWOULDBLOCK: somebody uses it.
            let locked = make && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && has_name(&lock) {
                remove_whole(&root, &own_directory, &name);
            }
        })?;
        Ok(Self { root, own: own_directory, name, path, lock, slots })
    }

    /// Opens it if it is there, and makes nothing: who only looks must not bring back what the last keeper has just removed.
    /// `None`: netbox has not run here, or nothing of it is left.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_existing() -> Result<Option<Self>> {
        match Self::attempt(cookie_here()?, false) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Waits for the run lock and takes it, for as long as the result lives.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn lock(&mut self) -> Result<Locked<'_>> {
        self.wait_for_lock()?;
        Ok(Locked { state: self })
    }

    fn wait_for_lock(&self) -> Result<()> {
        loop {
            match rustix::fs::flock(&self.lock, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(Error::new(format!("cannot lock {}/lock", self.path)).os(&errno.into()));
                }
            }
        }
    }

    /// Opens the directory and takes the run lock at once: while a run waits for the lock, the last keeper may remove what
    /// it waits for, and then it opens it anew.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_locked(place: &mut Option<Self>) -> Result<Locked<'_>> {
        // Whatever that still holds, this process would wait for itself.
        drop(place.take());
        loop {
            let state = Self::open()?;
            state.wait_for_lock()?;
            // The lock of a file that is removed ends with this value.
            if has_name(&state.lock) {
                return Ok(Locked { state: place.insert(state) });
            }
        }
    }

    /// What the host is called here: the number of its network namespace.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.name
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

    /// What the host is called here: the number of its network namespace.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.state.name
    }

    /// Removes the directory, if nothing is in it that anybody needs. Whoever waits for the lock meanwhile opens it anew.
    pub fn remove_if_idle(&self) {
        let state = &*self.state;
        if state.slots.taken().next().is_none() {
            remove_whole(&state.root, &state.own, &state.name);
        }
    }
}

/// The state directories of this user for all network namespaces, to be looked at: what boxes were started from wherever.
///
/// # Errors
/// As [`State::open`].
pub fn roots() -> Result<Vec<OwnedFd>> {
    let Some((own, path)) = own_directory()? else { return Ok(Vec::new()) };
    let names = rustix::fs::Dir::read_from(&own).map_err(io::Error::from);
    let names = names.context(|| format!("cannot read {path}"))?;
    let mut roots = Vec::new();
    for name in names.flatten() {
        let name = name.file_name().to_str().unwrap_or_default();
        if is_cookie_name(name) {
            roots.extend(open_if_there(&own, name, &format!("{path}/{name}"))?);
        }
    }
    Ok(roots)
}

/// That of this network namespace, where it is there, to be looked at.
///
/// # Errors
/// As [`State::open`].
pub fn root_here() -> Result<Option<OwnedFd>> {
    let name = cookie_name(cookie_here()?);
    let found = own_directory()?.map(|(own, path)| open_if_there(&own, &name, &format!("{path}/{name}")));
    Ok(found.transpose()?.flatten())
}

/// Where that is, or would be.
///
/// # Errors
/// Before Linux 5.14.
pub fn path_here() -> Result<String> {
    let user = rustix::process::geteuid().as_raw();
    Ok(format!("{PARENT}/{user}/{}", cookie_name(cookie_here()?)))
}

/// The user's directory and its path. `None`: netbox has not run, or nothing of it is left.
fn own_directory() -> Result<Option<(OwnedFd, String)>> {
    let user = rustix::process::geteuid().as_raw().to_string();
    let path = format!("{PARENT}/{user}");
    let parent = if_there(open_parent(PARENT))?;
    let own = parent.map(|parent| open_if_there(&parent, &user, &path)).transpose()?.flatten();
    Ok(own.map(|own| (own, path)))
}

fn open_if_there(at: impl AsFd, name: &str, path: &str) -> Result<Option<OwnedFd>> {
    if_there(open_checked(at, name, path))
}

fn if_there(opened: Result<OwnedFd>) -> Result<Option<OwnedFd>> {
    match opened {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether the file was not removed since it was opened.
fn has_name(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink != 0)
}

/// Removes the state directory `root`, which has this name in `own`, if nobody is in it. The caller holds the lock.
fn remove_whole(root: &OwnedFd, own: &OwnedFd, name: &str) {
    if rustix::fs::statat(root, "gateway", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return;
    }
    super::seats::remove_directories(root);
    // First what fails when something is in it: then everything stays. The lock last, since it is what others wait for.
    let parts = [
        ("boxes", AtFlags::REMOVEDIR),
        ("names", AtFlags::REMOVEDIR),
        ("slots", AtFlags::empty()),
        ("lock", AtFlags::empty()),
    ];
    if parts.iter().all(|(part, flags)| rustix::fs::unlinkat(root, *part, *flags).is_ok()) {
        // ENOTEMPTY: somebody put something there.
        let _ = rustix::fs::unlinkat(own, name, AtFlags::REMOVEDIR);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Cannot fail for an open descriptor; and the lock ends with the process anyway.
        let _ = rustix::fs::flock(&self.state.lock, FlockOperation::Unlock);
    }
}

/// How many boxes there are, as far as one look tells: a directory has a link from each of its own directories (inode(7)), where the
/// file system counts them, as tmpfs does. 0 where it does not. `cookie`: of the host's network namespace.
#[must_use]
pub fn crowd(cookie: u64) -> u32 {
    let path = format!("{PARENT}/{}/{}/boxes", rustix::process::geteuid().as_raw(), cookie_name(cookie));
    let seen = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::NLINK);
    seen.map_or(0, |seen| seen.stx_nlink.saturating_sub(2))
}

/// 16 digits, so that it is never taken for a box's id.
fn cookie_name(cookie: u64) -> String {
    format!("{cookie:016x}")
}

/// What the host is called here whose network namespace this thread is in.
///
/// # Errors
/// As [`cookie_here`].
pub fn host_here() -> Result<String> {
    cookie_here().map(cookie_name)
}

fn is_cookie_name(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The cookie of the network namespace that this thread is in.
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14.
pub fn cookie_here() -> Result<u64> {
    let probe = UnixDatagram::unbound().context(|| "cannot make a socket")?;
    netns_cookie(probe.as_fd()).context(|| "cannot identify the network namespace")
}
