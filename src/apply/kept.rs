//! What is known of a detached box longer than it lives: `/var/lib/netbox/<uid>/`, which outlives a reboot too.
//!
//! ```text
//! boxes/ID/box.json       what the box is; written when its command runs
//! boxes/ID/end.json       how it ended (`end.json.new` before); without it, and without a keeper: killed, or there was a reboot
//! boxes/ID/log, log.1     what its command printed (apply::log)
//! names/HOST.NAME         symbolic link to the id; HOST is the number of the host's network namespace
//! ```
//! The box's keeper makes the directory, locks it for as long as the box lives, and notes the end; whoever sweeps does for one that
//! could not. Opened as the state directory is, without following links, and refused when it belongs to somebody else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::plan::record::{BoxRecord, EndRecord, KeptRecord};
use crate::spec::name::{BoxId, BoxName};

use super::lease::RECORD;
use super::{log, registry, state};

/// Where the directories of all users are.
const PARENT: &str = "/var/lib/netbox";

const END: &str = "end.json";

/// As long as a note of the end is at most. Its room is taken at the start: the box itself may fill the disk.
const END_LENGTH: usize = 128;

/// So often a directory is emptied that somebody adds to, who writes megabytes between two additions.
const ATTEMPTS: u32 = 3;

/// All that a box can have here; what is not of a box's is never removed.
const FILES: [&str; 4] = [RECORD, "box.json.new", END, "end.json.new"];

/// The opened directory of one user.
#[derive(Debug)]
pub struct Kept {
    root: OwnedFd,
}

/// What is kept of one box.
#[derive(Debug)]
pub struct KeptBox {
    root: OwnedFd,
    directory: OwnedFd,
    id: BoxId,
}

impl Kept {
    /// Opens it, making what is missing.
    ///
    /// # Errors
    /// When a part of it is a link, belongs to another user or may be written by others, naming it; a full or read-only disk.
    pub fn open() -> Result<Self> {
        state::make_directory(CWD, PARENT, 0o755).context(|| format!("cannot make {PARENT}"))?;
        let parent = state::open_parent(PARENT)?;
        let user = rustix::process::geteuid().as_raw().to_string();
        let path = format!("{PARENT}/{user}");
        state::make_directory(&parent, &user, 0o700).context(|| format!("cannot make {path}"))?;
        let root = state::open_checked(&parent, &user, &path)?;
        for part in ["boxes", "names"] {
            state::make_directory(&root, part, 0o700).context(|| format!("cannot make {path}/{part}"))?;
        }
        Ok(Self { root })
    }

    /// Opens it if it is there.
    ///
    /// # Errors
    /// As [`Kept::open`].
    pub fn open_existing() -> Result<Option<Self>> {
        match state::open_directory(CWD, &own_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Self::open().map(Some),
        }
    }

    /// The ids of all boxes that are kept, those that live too.
    #[must_use]
    pub fn ids(&self) -> Vec<BoxId> {
        registry::names_in(&self.root, "boxes").iter().filter_map(|id| BoxId::parse(id).ok()).collect()
    }

    /// The box with this name on this host.
    #[must_use]
    pub fn with_name(&self, host: &str, name: &str) -> Option<BoxId> {
        let path = format!("names/{host}.{}", BoxName::parse(name).ok()?);
        let target = rustix::fs::readlinkat(&self.root, path.as_str(), Vec::new()).ok()?;
        BoxId::parse(target.to_str().ok()?).ok()
    }

    /// What is kept of the box with this id. `None`: nothing.
    ///
    /// # Errors
    /// EMFILE and its like.
    pub fn open_box(&self, id: &BoxId) -> Result<Option<KeptBox>> {
        let path = format!("boxes/{id}");
        let directory = match state::open_directory(&self.root, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("cannot open {}/{path}", own_path()))?,
        };
        let root = self.root.try_clone().context(|| format!("cannot open {}", own_path()))?;
        Ok(Some(KeptBox { root, directory, id: *id }))
    }

    /// Makes the directory of a box that is about to begin, which lives for as long as the result does. `name`: the one that the
    /// user gave.
    ///
    /// # Errors
    /// ENOSPC and its like. Nothing is left then.
    pub fn make_box(&self, id: &BoxId, name: Option<&BoxName>, record: &KeptRecord) -> Result<KeptBox> {
        let path = format!("boxes/{id}");
        rustix::fs::mkdirat(&self.root, path.as_str(), Mode::from_raw_mode(0o700))
            .map_err(io::Error::from)
            .context(|| format!("cannot make {}/{path}", own_path()))?;
        let opened = self
            .open_box(id)
            .and_then(|kept| kept.ok_or_else(|| Error::new(format!("{}/{path} is gone", own_path()))));
        let kept = opened.inspect_err(|_| {
            // The first failure is told.
            let _ = rustix::fs::unlinkat(&self.root, path.as_str(), AtFlags::REMOVEDIR);
        })?;
        let made = kept.lock().and_then(|()| kept.write_down(name, record));
        if made.is_err() {
            // The first failure is told.
            let _ = kept.forget_with(&record.host, name.map(BoxName::as_str));
        }
        made.map(|()| kept)
    }
}

impl KeptBox {
    /// Waits for whoever looks at this moment whether the box lives.
    fn lock(&self) -> Result<()> {
        loop {
            match rustix::fs::flock(&self.directory, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(io::Error::from(errno)).context(|| format!("cannot lock {}", self.path()));
                }
            }
        }
    }

    /// Whether its keeper lives.
    #[must_use]
    pub fn is_held(&self) -> bool {
        // A lock that cannot be tried is taken to be held: nothing of the living is ever removed.
        registry::is_held(&self.directory).unwrap_or(true)
    }

    /// The record becomes that of a box in [`KeptBox::begin`]; that takes no room on the disk any more.
    fn write_down(&self, name: Option<&BoxName>, record: &KeptRecord) -> Result<()> {
        let written = log::make(&self.directory)
            .and_then(|()| state::take_room(&self.directory, END, END_LENGTH))
            .and_then(|()| state::write_half(&self.directory, RECORD, record));
        written.context(|| format!("cannot write {}", self.path()))?;
        let Some(name) = name else { return Ok(()) };
        let link = format!("names/{}.{name}", record.host);
        // One that leads to no box any more: a name that is taken was refused before.
        let linked = state::remove(&self.root, &link)
            .and_then(|()| Ok(rustix::fs::symlinkat(self.id.as_str(), &self.root, link.as_str())?));
        linked.context(|| format!("cannot keep the name {name}"))
    }

    /// Its command runs: from now on it is known, also when it has ended.
    ///
    /// # Errors
    /// ENOENT, when somebody removed the directory.
    pub fn begin(&self) -> Result<()> {
        let half = state::half_written(RECORD);
        rustix::fs::renameat(&self.directory, half.as_str(), &self.directory, RECORD)
            .map_err(io::Error::from)
            .context(|| format!("cannot write {}", self.path()))
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &BoxId {
        &self.id
    }

    /// What it is or was. `None`: its command never ran, or somebody damaged the file.
    #[must_use]
    pub fn record(&self) -> Option<KeptRecord> {
        state::read_json(&self.directory, RECORD)
            .filter(|record: &KeptRecord| record.known.id == self.id.as_str())
    }

    /// How it ended, where somebody noted it.
    #[must_use]
    pub fn end(&self) -> Option<EndRecord> {
        state::read_json(&self.directory, END)
    }

    /// Notes that the box has ended, unless that was noted before; or forgets it, where that was asked for, and where it never
    /// began. `status`: `None` where nobody knows.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn note_end(&self, status: Option<u8>) -> Result<()> {
        let is_to_be_forgotten = self.record().is_some_and(|record| record.forget);
        if is_to_be_forgotten || !self.has_begun() {
            return self.forget();
        }
        if self.end().is_some() {
            return Ok(());
        }
        let ended = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let end = EndRecord { exit_status: status, ended };
        state::write_into_room(&self.directory, END, &end, END_LENGTH)
            .context(|| format!("cannot note the end of the box in {}", self.path()))
    }

    /// Whether the record has its name: one that cannot be read may.
    fn has_begun(&self) -> bool {
        let found = rustix::fs::statat(&self.directory, RECORD, AtFlags::SYMLINK_NOFOLLOW);
        !matches!(found, Err(rustix::io::Errno::NOENT))
    }

    /// Removes all that is kept of it. What is gone already is as it should be.
    ///
    /// # Errors
    /// A read-only disk, and files that are not netbox's.
    pub fn forget(&self) -> Result<()> {
        let record =
            self.record().or_else(|| state::read_json(&self.directory, &state::half_written(RECORD)));
        match record {
            Some(KeptRecord { host, known, .. }) => self.forget_with(&host, Some(&known.name)),
            None => self.forget_with("", None),
        }
    }

    fn forget_with(&self, host: &str, name: Option<&str>) -> Result<()> {
        let cannot = || format!("cannot remove {}", self.path());
        if let Some(name) = name.filter(|name| BoxName::parse(name).is_ok()) {
            let link = format!("names/{host}.{name}");
            let owner = rustix::fs::readlinkat(&self.root, link.as_str(), Vec::new());
            if owner.is_ok_and(|owner| owner.to_bytes() == self.id.as_str().as_bytes()) {
                state::remove(&self.root, &link).context(cannot)?;
            }
        }
        let path = format!("boxes/{}", self.id);
        let mut attempts = 0..ATTEMPTS;
        loop {
            for file in FILES.into_iter().chain(log::FILES) {
                state::remove(&self.directory, file).context(cannot)?;
            }
            match rustix::fs::unlinkat(&self.root, path.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
                // Whoever writes the log may just have begun a new file.
                Err(rustix::io::Errno::NOTEMPTY) if attempts.next().is_some() => {}
                Err(errno) => return Err(io::Error::from(errno)).context(cannot),
            }
        }
    }

    /// Where it is, for messages and for what takes no descriptor.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/boxes/{}", own_path(), self.id)
    }
}

impl AsFd for KeptBox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn own_path() -> String {
    format!("{PARENT}/{}", rustix::process::geteuid().as_raw())
}

/// Keeps what a box is that is about to begin. `name`: the one that the user gave; `forget`: not longer than it lives.
///
/// # Errors
/// As [`Kept::open`] and [`Kept::make_box`].
pub fn keep(
    record: &BoxRecord,
    id: &BoxId,
    name: Option<&BoxName>,
    host: &str,
    forget: bool,
) -> Result<KeptBox> {
    let boot = boot().context(|| "cannot identify this boot")?;
    let record = KeptRecord { host: host.to_owned(), boot, forget, known: record.clone() };
    Kept::open()?.make_box(id, name, &record)
}

/// Notes the end of a box whose keeper could not.
///
/// # Errors
/// As [`KeptBox::note_end`].
pub fn note_lost(id: &BoxId) -> Result<()> {
    let Some(kept) = Kept::open_existing()? else { return Ok(()) };
    kept.open_box(id)?.map_or(Ok(()), |kept| kept.note_end(None))
}

/// Whether a box on this host may have the name: one look, however many boxes have ended.
///
/// # Errors
/// Naming the box that had it.
pub fn check_name(host: &str, name: &BoxName) -> Result<()> {
    let own = own_path();
    let Ok(owner) = rustix::fs::readlink(format!("{own}/names/{host}.{name}"), Vec::new()) else {
        return Ok(());
    };
    let Some(id) = owner.to_str().ok().and_then(|id| BoxId::parse(id).ok()) else { return Ok(()) };
    match rustix::fs::statat(CWD, format!("{own}/boxes/{id}"), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Error::new(format!("cannot call the box {name}"))
            .because(format!("box {id}, which has ended, has that name"))
            .hint(format!("choose another --name, or forget that box: netbox rm {name}"))),
        Err(_) => Ok(()),
    }
}

/// What tells this boot of the machine from others (random(4)).
///
/// # Errors
/// Without /proc.
pub fn boot() -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, "/proc/sys/kernel/random/boot_id", flags, Mode::empty())?;
    Ok(io::read_to_string(std::fs::File::from(file))?.trim_end().to_owned())
}
