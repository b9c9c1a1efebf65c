//! `netbox logs`: what a detached box printed, and prints.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::apply::kept::{Kept, KeptBox};
use crate::apply::log::{self, Reader};
use crate::error::{Context, Error, Result};
use crate::kernel::process::Process;
use crate::plan::output::{Entry, Timestamps, tail};
use crate::report;
use crate::spec::name::BoxId;
use crate::spec::request::LogsRequest;

use super::ended::{self, Known};

/// The status of a program whose reader is gone: 128 + SIGPIPE, as of cat(1).
const NO_READER: u8 = 128 + 13;

/// Prints the output of a box as it was printed, standard output to standard output and standard error to standard error.
///
/// # Errors
/// A box that there is none of, or that was not detached; a log that is damaged; an output that cannot be written.
pub fn logs(request: &LogsRequest) -> Result<u8> {
    let (kept, launcher) = find(request)?;
    let news = match launcher.filter(|_| request.follow) {
        // Before anything is read: what is added afterwards is told of.
        Some(launcher) => Some((News::of(&kept)?, launcher)),
        None => None,
    };
    let mut reader = Reader::open(&kept).context(|| "cannot read the log")?;
    let mut printer = Printer { timestamps: request.timestamps.then(Timestamps::default) };
    let printed = print(&mut reader, &mut printer, request.tail).and_then(|printed| match news {
        Some((news, launcher)) if printed => follow(&mut reader, &mut printer, &news, &launcher),
        _ => Ok(printed),
    });
    Ok(if printed? { 0 } else { NO_READER })
}

/// What is kept of the box, and whoever writes its log if it lives.
fn find(request: &LogsRequest) -> Result<(KeptBox, Option<Process>)> {
    let wanted = &request.of;
    match ended::known(wanted)? {
        Known::Ended(ended) => {
            log::wait_for_writer(&ended.kept)
                .context(|| format!("cannot wait for the log of box {wanted}"))?;
            Ok((ended.kept, None))
        }
        Known::Living(found) if found.record.detached => {
            // Before the log is looked for: a box that is to be forgotten at its end has none then.
            let launcher = found.launcher()?;
            let kept = Kept::open_existing()?.zip(BoxId::parse(&found.record.id).ok());
            let kept = kept.map(|(kept, id)| kept.open_box(&id)).transpose()?.flatten();
            Ok((kept.ok_or_else(|| Error::new(format!("the log of box {wanted} is gone")))?, Some(launcher)))
        }
        Known::Living(_) => Err(Error::new(format!("box {wanted} has no log"))
            .because("it runs in the foreground: what it prints went to whoever started it")
            .hint("netbox run -d keeps what a box prints")),
    }
}

/// Prints what there is. `false`: nobody reads it.
fn print(reader: &mut Reader, printer: &mut Printer, lines: Option<usize>) -> Result<bool> {
    let Some(lines) = lines else {
        while let Some(entry) = reader.read()? {
            if !printer.print(&entry, 0)? {
                return Ok(false);
            }
        }
        return Ok(true);
    };
    let mut entries = Vec::new();
    while let Some(entry) = reader.read()? {
        entries.push(entry);
    }
    for (entry, from) in entries.iter().zip(tail(&entries, lines)) {
        if !printer.print(entry, from)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Prints what is added, until the box's launcher has ended. `false`: nobody reads it.
fn follow(reader: &mut Reader, printer: &mut Printer, news: &News, launcher: &Process) -> Result<bool> {
    loop {
        let woken = news.wait(launcher).context(|| "cannot wait for the log")?;
        // After the end of the writer all is there.
        if !print(reader, printer, None)? || woken == Woken::NoReader {
            return Ok(false);
        }
        if woken == Woken::Ended {
            return Ok(true);
        }
    }
}

/// Writes pieces to where they belong.
#[derive(Debug)]
struct Printer {
    timestamps: Option<Timestamps>,
}

impl Printer {
    /// `false`: the reader is gone.
    fn print(&mut self, entry: &Entry, from: usize) -> Result<bool> {
        let bytes = entry.bytes.get(from..).unwrap_or_default();
        let written = match &mut self.timestamps {
            Some(timestamps) => report::pass_on(entry.stream, &timestamps.stamped(entry, bytes)),
            None => report::pass_on(entry.stream, bytes),
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => Ok(false),
            Err(error) => Err(Error::new("cannot write to standard output").os(&error)),
        }
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Changed,
    Ended,
    NoReader,
}

/// What tells that a log has changed (inotify(7)).
#[derive(Debug)]
struct News(std::os::fd::OwnedFd);

impl News {
    fn of(kept: &KeptBox) -> Result<Self> {
        let watch = || -> io::Result<Self> {
            let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            inotify::add_watch(&events, kept.path(), WatchFlags::MODIFY | WatchFlags::CREATE)?;
            Ok(Self(events))
        };
        watch().context(|| "cannot watch the log").map_err(|error| match error.errno() {
            Some(libc::EMFILE | libc::ENOSPC) => {
                error.hint("the limits are fs.inotify.max_user_instances and max_user_watches (sysctl)")
            }
            _ => error,
        })
    }

    fn wait(&self, launcher: &Process) -> io::Result<Woken> {
        let stdout = io::stdout();
        let mut wanted = [
            PollFd::new(launcher.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
            // Its reader's end only (poll(2): POLLERR is always reported).
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        loop {
            match poll(&mut wanted, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        let [ended, _, no_reader] = wanted.map(|fd| fd.any().unwrap_or(false));
        forget_events(self.0.as_fd())?;
        Ok(match (no_reader, ended) {
            (true, _) => Woken::NoReader,
            (false, true) => Woken::Ended,
            (false, false) => Woken::Changed,
        })
    }
}

/// That something happened is all that matters.
fn forget_events(events: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut all = inotify::Reader::new(events, &mut buffer);
    loop {
        match all.next() {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
