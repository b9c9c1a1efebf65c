//! The boxes as the state directory tells of them: who has a name, who lives, what the dead left. Changes nothing.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use crate::plan::belonging::Marks;
use crate::plan::record::BoxRecord;
use crate::spec::name::{BoxId, BoxName};

use super::lease::{ENDED, RECORD, RESOLV_CONF};
use super::state::{self, Locked, State};

/// The name that leads to the box with this id, looked for among all: for a box that died before it wrote its record.
#[must_use]
pub fn name_of(locked: &Locked<'_>, id: &str) -> Option<String> {
    names_in(locked.root(), "names").into_iter().find(|name| owner_of(locked, name).as_deref() == Some(id))
}

/// The id that `names/NAME` leads to.
pub fn owner_of(locked: &Locked<'_>, name: &str) -> Option<String> {
    link_target(locked.root(), name)
}

fn link_target(root: &OwnedFd, name: &str) -> Option<String> {
    let target = rustix::fs::readlinkat(root, format!("names/{name}").as_str(), Vec::new()).ok()?;
    target.into_string().ok()
}

/// The box that has this name, if the name is one and is taken. Takes no lock.
#[must_use]
pub fn with_name(state: &State, name: &str) -> Option<BoxId> {
    let target = link_target(state.root(), BoxName::parse(name).ok()?.as_str())?;
    BoxId::parse(&target).ok()
}

/// Whether a box with this id has a directory, alive or not.
#[must_use]
pub fn is_there(state: &State, id: &BoxId) -> bool {
    let path = format!("boxes/{}", id.as_str());
    rustix::fs::statat(state.root(), path.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Whether the box with this id ended, and only what the kernel frees late is left of it.
#[must_use]
pub fn has_ended(root: &OwnedFd, id: &str) -> bool {
    let path = format!("boxes/{id}/{ENDED}");
    rustix::fs::statat(root, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// The directory of the box with this id, opened.
///
/// # Errors
/// ENOENT: there is no such box.
pub fn directory_of(root: &OwnedFd, id: &BoxId) -> io::Result<OwnedFd> {
    state::open_directory(root, &format!("boxes/{id}"))
}

/// The resolv.conf(5) of the box with this id, where it has one of its own.
///
/// # Errors
/// Those of open(2), but for the one that means that there is none.
pub fn resolv_conf(root: &OwnedFd, id: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(root, format!("boxes/{id}/{RESOLV_CONF}").as_str(), flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a keeper holds the box's directory.
///
/// # Errors
/// Those of flock(2), but for the one that means yes.
pub fn is_held(directory: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            rustix::fs::flock(directory, FlockOperation::Unlock)?;
            Ok(false)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// A box as its directory describes it, and whether it lives. `None`: no such directory.
pub fn look_up(root: &OwnedFd, id: &str) -> Option<(Option<BoxRecord>, bool)> {
    let directory = state::open_directory(root, &format!("boxes/{id}")).ok()?;
    // A lock that cannot be tried is taken to be held: nothing of the living is ever swept.
    let alive = is_held(&directory).unwrap_or(true);
    Some((state::read_json(&directory, RECORD), alive))
}

/// What of a box's record tells its processes from others, be it alive or not. `None`: there is none, or it has ended.
#[must_use]
pub fn marks(root: &OwnedFd, id: &str) -> Option<Marks> {
    state::read_json(root, &format!("boxes/{id}/{RECORD}"))
}

/// The record that a dead box left, whether it had ended or not.
#[must_use]
pub fn left_behind(root: &OwnedFd, id: &str) -> Option<BoxRecord> {
    let directory = state::open_directory(root, &format!("boxes/{id}")).ok()?;
    state::read_json(&directory, RECORD).or_else(|| state::read_json(&directory, ENDED))
}

/// The first living box whose record fits. Takes time for each: not for the way of a run.
#[must_use]
pub fn find(state: &State, fits: impl Fn(&BoxRecord) -> bool) -> Option<BoxRecord> {
    let living =
        |id: String| look_up(state.root(), &id).filter(|(_, alive)| *alive).and_then(|(record, _)| record);
    all_ids(state.root()).into_iter().filter_map(living).find(fits)
}

/// The ids of all box directories. Takes time for each: not for the way of a run.
#[must_use]
pub fn all_ids(root: &OwnedFd) -> Vec<String> {
    names_in(root, "boxes").into_iter().filter(|name| BoxId::parse(name).is_ok()).collect()
}

/// The names in a directory, but for hidden ones.
pub(super) fn names_in(root: &OwnedFd, directory: &str) -> Vec<String> {
    let Ok(directory) = state::open_directory(root, directory) else { return Vec::new() };
    let Ok(entries) = rustix::fs::Dir::read_from(&directory) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned))
        .filter(|n| !n.starts_with('.'))
        .collect()
}
