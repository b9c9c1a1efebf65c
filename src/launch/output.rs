//! What a detached command prints: two pipes, which the launcher reads into the box's log.
//!
//! A command that prints faster than the disk takes it waits in its pipe, as it would for any reader. What the disk does not take
//! at all is dropped.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::apply::log::Writer;
use crate::plan::output::{LONGEST_PIECE, Stream};

/// So much at most is read after the end of a box: all its processes are dead, but somebody outside may have been given its end of
/// a pipe, and print for ever.
const LAST_WORDS: usize = 16 << 20;

/// The ends that the command has, in the order of standard output and standard error.
pub type CommandEnds = [OwnedFd; 2];

/// Makes them this process's standard output and error, for the command to inherit.
///
/// # Errors
/// None that is known for descriptors that are open.
pub fn hand_over([stdout, stderr]: &CommandEnds) -> nix::Result<()> {
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)
}

/// The launcher's ends, and where they lead.
#[derive(Debug)]
pub struct Output {
    pipes: [Option<File>; 2],
    log: Option<Writer>,
    buffer: Vec<u8>,
}

impl Output {
    /// The pipes. Nothing is read yet.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn new() -> io::Result<(Self, CommandEnds)> {
        let ((out, command_out), (err, command_err)) = (pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?);
        for own in [&out, &err] {
            // Of this end alone: what the command does with its own is not concerned (pipe(7)).
            fcntl(own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let pipes = [Some(out.into()), Some(err.into())];
        Ok((Self { pipes, log: None, buffer: Vec::new() }, [command_out, command_err]))
    }

    /// From now on it is read. Without a log it is dropped.
    pub fn begin(&mut self, log: Option<Writer>) {
        self.log = log;
        self.buffer.resize(LONGEST_PIECE, 0);
    }

    /// Whether it is read.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The launcher's ends that are still open, with the stream of each.
    pub fn pipes(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let both = [Stream::Stdout, Stream::Stderr].into_iter().zip(&self.pipes);
        both.filter_map(|(stream, pipe)| Some((stream, pipe.as_ref()?.as_fd())))
    }

    /// Takes what a stream has, at most one piece. Returns how much that was; 0 for nothing, now or ever.
    pub fn take(&mut self, stream: Stream) -> usize {
        let Some(pipe) = self.pipes.get_mut(stream as usize) else { return 0 };
        let read = loop {
            match pipe.as_mut().map(|pipe| pipe.read(&mut self.buffer)) {
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return 0,
                Some(Ok(length)) if length > 0 => break length,
                // The end: every process that had the pipe closed it.
                _ => {
                    *pipe = None;
                    return 0;
                }
            }
        };
        if let (Some(log), Some(bytes)) = (&mut self.log, self.buffer.get(..read)) {
            log.add(stream, bytes);
        }
        read
    }

    /// Takes what is left when the box has ended.
    pub fn finish(&mut self) {
        if !self.has_begun() {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut taken = 0;
            while taken < LAST_WORDS {
                match self.take(stream) {
                    0 => break,
                    length => taken += length,
                }
            }
        }
    }

    /// Adds what netbox has to say.
    pub fn note(&mut self, line: &str) {
        if let Some(log) = &mut self.log {
            let bytes = line.as_bytes();
            log.add(Stream::Stderr, bytes.get(..LONGEST_PIECE).unwrap_or(bytes));
        }
    }
}
