//! `--export-netns`: the network of a box under a name in /run/netns, where ip-netns(8) looks.
//!
//! The name is a file with a mount of the namespace over it, which keeps the namespace alive: it must go before the box's link is
//! waited for. The record names it before it is made. The file tells whose it is, and the namespace has a number that no other
//! ever had, so that what somebody else has put in its place meanwhile is left alone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::kernel::namespace;
use crate::plan::record::{BoxRecord, Exported};
use crate::spec::netns::Export;
use crate::spec::request::RunRequest;

use super::host::Host;

/// Where ip-netns(8) has them.
const DIRECTORY: &str = "/run/netns";

const NOTHING: Option<&str> = None;

/// Who else sets the directory up is at it for no longer than this.
const TRIES: u32 = 20;

/// Refuses a name that is taken, before anything is changed.
///
/// # Errors
/// Naming it.
pub fn check(wanted: Option<&Export>) -> Result<()> {
    match wanted {
        Some(Export::As(name)) if std::fs::symlink_metadata(path_of(name.as_str())).is_ok() => {
            Err(taken(name.as_str()))
        }
        _ => Ok(()),
    }
}

/// What is to be written down of it, where it was asked for: the network of process `pid`, of the box called `name`.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn planned(request: &RunRequest, name: &str, pid: Pid, host: &Host) -> Result<Option<Exported>> {
    let Some(wanted) = &request.export_netns else { return Ok(None) };
    let name = match wanted {
        Export::OfBox => name,
        Export::As(name) => name.as_str(),
    };
    let cannot = || "cannot identify the box's network";
    let network = namespace::network_of(pid.as_raw()).context(cannot)?;
    let cookie = namespace::cookie_of(network.as_fd(), host.network().as_fd()).context(cannot)?;
    Ok(Some(Exported { name: name.to_owned(), cookie }))
}

fn taken(name: &str) -> Error {
    Error::new(format!("cannot export the box's network as {name:?}"))
        .because(format!("{} is there already", path_of(name)))
        .hint("choose another name: --export-netns=NAME; `ip netns list` shows those that are taken")
}

fn path_of(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// What the file says that is under the mount.
fn mark_of(id: &str) -> String {
    format!("netbox {id}\n")
}

/// Makes the network of a box visible, as its record says: that of process `pid`. What is made of it when this fails is
/// [`withdraw`]n.
///
/// # Errors
/// A name that is taken; where /run/netns cannot be set up.
pub fn export(record: Option<&BoxRecord>, pid: Pid) -> Result<()> {
    let Some((record, exported)) = record.and_then(|record| Some((record, record.exported.as_ref()?))) else {
        return Ok(());
    };
    let (name, path) = (exported.name.as_str(), path_of(&exported.name));
    let cannot = || format!("cannot export the box's network as {name:?}");
    let network = namespace::network_of(pid.as_raw()).context(cannot)?;
    let directory = set_up().context(|| format!("cannot set up {DIRECTORY}"))?;
    // With all that it says from its first moment on.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(&directory, ".", flags, Mode::from_raw_mode(0o444)).map_err(io::Error::from);
    let mut file = File::from(file.context(cannot)?);
    file.write_all(mark_of(&record.id).as_bytes()).context(cannot)?;
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, itself.as_str(), &directory, name, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Err(taken(name)),
        Err(errno) => return Err(io::Error::from(errno)).context(cannot),
    }
    let source = format!("/proc/self/fd/{}", network.as_raw_fd());
    mount(Some(source.as_str()), path.as_str(), NOTHING, MsFlags::MS_BIND, NOTHING).context(cannot)
}

/// As ip-netns(8) does (`netns_add` of iproute2's ip/ipnetns.c): the directory is a shared mount of its own, so that what is
/// unmounted here is unmounted in every mount namespace, and in no one's copy keeps a network alive.
fn set_up() -> io::Result<OwnedFd> {
    match std::fs::create_dir(DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let open = || -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(DIRECTORY, flags, Mode::empty())?)
    };
    // ip takes this lock too. Anybody can: so it is not waited for for long.
    let lock = open()?;
    for _ in 0..TRIES {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(1)),
            _ => break,
        }
    }
    let share = || mount(NOTHING, DIRECTORY, NOTHING, MsFlags::MS_SHARED | MsFlags::MS_REC, NOTHING);
    match share() {
        // mount(2): not a mount point yet.
        Err(Errno::EINVAL) => {
            mount(Some(DIRECTORY), DIRECTORY, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
            share()?;
        }
        other => other?,
    }
    // The mount that is on top now.
    open()
}

/// Takes away what [`export`] made, as far as it is there. `home`: the namespace of this thread.
///
/// # Errors
/// When it is there and cannot be taken away.
pub fn withdraw(record: &BoxRecord, home: BorrowedFd<'_>) -> io::Result<()> {
    let Some(exported) = &record.exported else { return Ok(()) };
    let path = path_of(&exported.name);
    let Some(found) = open_itself(&path)? else { return Ok(()) };
    if namespace::is_namespace_file(found.as_fd())? {
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        let network = File::open(&itself)?;
        match namespace::cookie_of(network.as_fd(), home) {
            Ok(cookie) if cookie == exported.cookie => {}
            // Somebody else's, of another kind perhaps.
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
        // This very mount, whatever is on top by now.
        umount2(itself.as_str(), MntFlags::MNT_DETACH)?;
    }
    drop(found);
    let Some(found) = open_itself(&path)? else { return Ok(()) };
    let stat = nix::sys::stat::fstat(&found)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile
        || namespace::is_namespace_file(found.as_fd())?
    {
        return Ok(());
    }
    let mark = mark_of(&record.id);
    let mut text = String::new();
    let most = mark.len() as u64 + 1;
    // What is no text is not netbox's.
    let read =
        File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?.take(most).read_to_string(&mut text);
    if read.is_ok() && text == mark {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The file with this name itself, not opened and not followed. `None`: there is none.
fn open_itself(path: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
