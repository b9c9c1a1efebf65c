//! `--json-status-fd`: what becomes of a run, for a program that reads along. One JSON object per line.
//!
//! The reader may be slow, stuck or gone: the run neither waits for it nor fails for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::kernel::inherited;
use crate::plan::listing::Listed;
use crate::report::Report;

/// A line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    /// The command runs.
    Started(&'a Listed),
    /// It has ended, or never ran: netbox is about to exit with this status.
    Exited { status: u8 },
}

/// The reader's end is somewhere else; this is where lines go in.
#[derive(Debug)]
pub struct StatusStream {
    descriptor: OwnedFd,
    /// What the reader had no room for yet.
    waiting: Vec<u8>,
}

impl StatusStream {
    /// Takes the descriptor that the caller left open under this number.
    ///
    /// # Errors
    /// When there is none that can be written to.
    pub fn open(number: i32) -> Result<Self> {
        match inherited::writable(number) {
            Ok(descriptor) => Ok(Self { descriptor, waiting: Vec::new() }),
            Err(error) => Err(Error::new(format!("cannot write the status to file descriptor {number}"))
                .because(match error.raw_os_error() {
                    Some(libc::EBADF) => "it is not open for writing".to_owned(),
                    _ => error.to_string(),
                })
                .hint(format!("{number}>status.json netbox run --json-status-fd {number} …"))),
        }
    }

    /// Says that the command runs.
    pub fn started(&mut self, listed: &Listed) {
        self.say(&Event::Started(listed));
    }

    /// Says how the run ended: the last line.
    pub fn exited(mut self, status: u8, report: &Report) {
        self.say(&Event::Exited { status });
        if !self.waiting.is_empty() {
            report.warning("the reader of --json-status-fd had no room for the whole of it");
        }
    }

    fn say(&mut self, event: &Event<'_>) {
        // Plain strings and numbers always have a form in JSON.
        let line = serde_json::to_vec(event).unwrap_or_default();
        self.waiting.extend_from_slice(&line);
        self.waiting.push(b'\n');
        self.go_on();
    }

    /// What becomes writable when the reader has room again; `None`: nothing waits for that.
    #[must_use]
    pub fn blocked(&self) -> Option<BorrowedFd<'_>> {
        (!self.waiting.is_empty()).then(|| self.descriptor.as_fd())
    }

    /// Writes what there is room for.
    pub fn go_on(&mut self) {
        while !self.waiting.is_empty() {
            match inherited::write_without_waiting(self.descriptor.as_fd(), &self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                // EPIPE, ENOSPC, EIO: nobody reads it.
                Err(_) => self.waiting.clear(),
            }
        }
    }
}

impl AsFd for StatusStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
