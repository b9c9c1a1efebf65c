//! A control group of the benchmark's own: what the measured programs make of groups is below it, and goes with it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The name of a group, before its benchmark's process id.
const PREFIX: &str = "netbox-bench-";

/// Below the group that this process is in; removed with this value, when nobody may be in it any more.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    _hierarchy: OwnedFd,
}

impl Cgroup {
    /// Makes one, where the caller may.
    pub(crate) fn new() -> io::Result<Self> {
        let hierarchy = hierarchy()?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let own = root(&hierarchy).join(own);
        sweep(&own);
        let path = own.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self { path, _hierarchy: hierarchy })
    }

    pub(crate) fn admit(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }
}

/// Makes the group that the caller was admitted to the root of all that it will see, and goes into one below.
///
/// For a group with processes in it hands no controllers on to groups below (cgroups(7), "no internal processes"), and
/// who makes those tries for a second or two.
pub(crate) fn make_root_and_leave_it() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    let hierarchy = hierarchy()?;
    let own = root(&hierarchy).join("benchmark");
    fs::create_dir(&own)?;
    fs::write(own.join("cgroup.procs"), "0")
}

/// The control groups of the caller's cgroup namespace, mounted at no place, so that nothing else sees the mount.
fn hierarchy() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn root(hierarchy: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", hierarchy.as_raw_fd()))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("a control group is left behind, {}: {error}", self.path.display());
        }
    }
}

/// Removes what benchmarks left that were killed.
fn sweep(own: &Path) {
    let entries = fs::read_dir(own).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Somebody else may have been faster, or processes of it may be dying still.
            let _ = remove(&entry.path());
        }
    }
}

/// A group's files go with it, and groups below it must go first.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
