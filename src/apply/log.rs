//! The log of a detached box, in two files: the newer is `log`, the older `log.1`. It has one writer, the box's launcher.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat};

use crate::error::{Context, Error, Result};
use crate::plan::output::{self, Entry, LONGEST_PIECE, Parsed, Stream};

use super::state;

const NEWER: &str = "log";
const OLDER: &str = "log.1";
/// Locked by the writer for as long as it writes.
const WRITER: &str = "writer";

/// Its files.
pub(super) const FILES: [&str; 3] = [NEWER, OLDER, WRITER];

/// Each file's largest size in bytes.
pub const LARGEST: u64 = 5 << 20;

/// A log to write to. What cannot be written is dropped: a full disk must not stop a box.
#[derive(Debug)]
pub struct Writer {
    directory: OwnedFd,
    /// The lock.
    _writer: File,
    file: File,
    size: u64,
    entry: Vec<u8>,
    /// Why something was dropped, until that stands in the log.
    dropped: Option<String>,
}

impl Writer {
    /// Begins the log in the directory of a box. While this process lives, [`wait_for_writer`] waits.
    ///
    /// # Errors
    /// ENOENT, where the box was forgotten already; EMFILE and its like.
    pub fn begin(directory: &impl AsFd) -> io::Result<Self> {
        let directory = state::open_directory(directory, ".")?;
        let (writer, file) = (open_to_add(&directory, WRITER)?, open_to_add(&directory, NEWER)?);
        rustix::fs::flock(&writer, FlockOperation::LockExclusive)?;
        Ok(Self { directory, _writer: writer, file, size: 0, entry: Vec::new(), dropped: None })
    }

    /// Adds a piece of a stream, at most [`LONGEST_PIECE`] bytes, or drops it.
    pub fn add(&mut self, stream: Stream, bytes: &[u8]) {
        debug_assert!(bytes.len() <= LONGEST_PIECE);
        let now = SystemTime::now();
        self.entry.clear();
        if let Some(cause) = &self.dropped {
            // Together with the first that can be written again: the note alone may have room when nothing else has.
            let note = format!("netbox: warning: output is missing here: {cause}\n");
            output::write(&mut self.entry, Stream::Stderr, now, note.as_bytes());
        }
        output::write(&mut self.entry, stream, now, bytes);
        self.dropped = self.append().err().map(|error| error.to_string());
    }

    fn append(&mut self) -> io::Result<()> {
        let length = self.entry.len() as u64;
        self.make_room(length)?;
        self.file.write_all(&self.entry).inspect_err(|_| {
            // Half an entry would be taken for the beginning of one.
            let _ = self.file.set_len(self.size);
        })?;
        self.size += length;
        Ok(())
    }

    fn make_room(&mut self, length: u64) -> io::Result<()> {
        if self.size + length <= LARGEST {
            return Ok(());
        }
        match rustix::fs::renameat(&self.directory, NEWER, &self.directory, OLDER) {
            // ENOENT: it was, but there was no room for a new one then.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.file = create(&self.directory, NEWER)?;
        self.size = 0;
        Ok(())
    }
}

const TO_ADD: OFlags = OFlags::WRONLY.union(OFlags::APPEND).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_to_add(directory: &OwnedFd, name: &str) -> io::Result<File> {
    Ok(rustix::fs::openat(directory, name, TO_ADD, Mode::empty())?.into())
}

fn create(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = TO_ADD | OFlags::CREATE | OFlags::EXCL;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Makes an empty log. Not left to who writes it: a box may be forgotten before that one comes to it.
///
/// # Errors
/// ENOSPC and its like; EEXIST, where there is one.
pub(super) fn make(directory: &OwnedFd) -> io::Result<()> {
    create(directory, WRITER)?;
    create(directory, NEWER)?;
    Ok(())
}

/// Waits until the log in the directory of a box has no writer any more: its last words may still be on their way when a box has
/// ended.
///
/// # Errors
/// Those of flock(2).
pub fn wait_for_writer(directory: &impl AsFd) -> io::Result<()> {
    let directory = state::open_directory(directory, ".")?;
    // None: nobody ever wrote.
    let Some(writer) = open(&directory, WRITER)? else { return Ok(()) };
    loop {
        match rustix::fs::flock(&writer, FlockOperation::LockShared) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A log to read, entry by entry, also while it is written.
#[derive(Debug)]
pub struct Reader {
    directory: OwnedFd,
    file: Option<File>,
    /// What was read of the file.
    window: Vec<u8>,
    /// So much of the window was given out.
    given: usize,
    /// Where in the file the window begins.
    offset: u64,
}

impl Reader {
    /// At the beginning of the log in the directory of a box.
    ///
    /// # Errors
    /// EMFILE and its like. A log that is not there is empty.
    pub fn open(directory: &impl AsFd) -> io::Result<Self> {
        let directory = state::open_directory(directory, ".")?;
        let mut reader = Self { directory, file: None, window: Vec::new(), given: 0, offset: 0 };
        reader.file = reader.oldest()?;
        Ok(reader)
    }

    /// The next entry, if it is there.
    ///
    /// # Errors
    /// A log that is damaged.
    pub fn read(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.read_from_file()? {
                return Ok(Some(entry));
            }
            let newest = stat_of(&self.directory, NEWER).context(cannot_read)?;
            let current = self.file.as_ref().map(rustix::fs::fstat).transpose();
            let current = current.map_err(io::Error::from).context(cannot_read)?;
            if newest.is_none_or(|newest| current.is_some_and(|current| is_same(&current, &newest))) {
                return Ok(None);
            }
            // Nothing is added to a file that is no longer the newest; but before it was, something may have been.
            if let Some(entry) = self.read_from_file()? {
                return Ok(Some(entry));
            }
            let older = stat_of(&self.directory, OLDER).context(cannot_read)?;
            let is_older =
                current.is_some_and(|current| older.is_some_and(|older| is_same(&current, &older)));
            self.file =
                if is_older { open(&self.directory, NEWER) } else { self.oldest() }.context(cannot_read)?;
            self.window.clear();
            (self.given, self.offset) = (0, 0);
        }
    }

    /// The older file if there is one.
    fn oldest(&self) -> io::Result<Option<File>> {
        loop {
            let (older, newer) = (open(&self.directory, OLDER)?, open(&self.directory, NEWER)?);
            let Some(older) = older else {
                // Not there, and so nothing was before the newer one; unless that has become it just now.
                if newer.is_none() || stat_of(&self.directory, OLDER)?.is_none() {
                    return Ok(newer);
                }
                continue;
            };
            return Ok(Some(older));
        }
    }

    fn read_from_file(&mut self) -> Result<Option<Entry>> {
        let Some(file) = &self.file else { return Ok(None) };
        loop {
            let rest = self.window.get(self.given..).unwrap_or_default();
            let least = match output::parse(rest) {
                Parsed::Entry(entry, length) => {
                    self.given += length;
                    return Ok(Some(entry));
                }
                Parsed::Damaged => return Err(Error::new(cannot_read()).because("it was damaged")),
                Parsed::Incomplete(least) => least,
            };
            // All anew: of an entry that had no room, the beginning was there for a moment.
            let before = rest.len();
            self.offset += std::mem::take(&mut self.given) as u64;
            self.window.resize(least.max(LONGEST_PIECE), 0);
            let read = file.read_at(&mut self.window, self.offset).context(cannot_read)?;
            self.window.truncate(read);
            if read <= before && matches!(output::parse(&self.window), Parsed::Incomplete(_)) {
                return Ok(None);
            }
        }
    }
}

fn cannot_read() -> String {
    "cannot read the log".to_owned()
}

fn open(directory: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn stat_of(directory: &OwnedFd, name: &str) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
