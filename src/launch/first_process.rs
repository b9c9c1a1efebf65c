//! The box's first process, as its keeper sees it: a process, and the steps that it tells.

use std::io::ErrorKind;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Context, Error, Result};
use crate::kernel::channel::Channel;
use crate::kernel::process::Process;

use super::message::{BoxFacts, FromBox, ToBox};

/// The box's first process, which becomes the command.
#[derive(Debug)]
pub struct FirstProcess {
    /// The process, and later the command.
    pub process: Process,
    channel: Channel,
}

impl FirstProcess {
    /// `channel`: the end whose other end the process has.
    #[must_use]
    pub const fn new(process: Process, channel: Channel) -> Self {
        Self { process, channel }
    }

    /// Waits until the process has come so far.
    ///
    /// # Errors
    /// What the process says went wrong; its death.
    pub fn wait_until(&self, step: FromBox) -> Result<()> {
        match self.listen()? {
            Some(said) if said == step => Ok(()),
            Some(FromBox::Failed(error)) => Err(error),
            Some(_) => Err(Error::new("the box's first process skipped a step")),
            None => Err(Error::new("the box's first process was killed before the command ran")),
        }
    }

    /// What the process itself says of a failure that was seen from outside: what it says comes first.
    #[must_use]
    pub fn explain(&self, seen: Error) -> Error {
        // Only if it has said something, or is gone: one that waits for this process says nothing.
        let mut wanted = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        let has_spoken = poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        match has_spoken.then(|| self.listen()) {
            Some(Ok(Some(FromBox::Failed(error)))) => error,
            _ => seen,
        }
    }

    /// Tells the process that its link is there, and what it is.
    ///
    /// # Errors
    /// What the process says went wrong.
    pub fn configure(&self, facts: BoxFacts) -> Result<()> {
        self.tell(&ToBox::Configure(facts))
    }

    /// Lets the process become the command, and waits until it has: exec closes its end of the channel. So does its
    /// death by a signal, and then that is how the command ended.
    ///
    /// # Errors
    /// What the process says went wrong: a command that is not found, for instance.
    pub fn become_command(&self) -> Result<()> {
        self.tell(&ToBox::Run)?;
        match self.listen()? {
            Some(FromBox::Failed(error)) => Err(error),
            Some(_) => Err(Error::new("the box's first process skipped a step")),
            None => Ok(()),
        }
    }

    fn tell(&self, message: &ToBox) -> Result<()> {
        match self.channel.send(message, None) {
            Ok(()) => Ok(()),
            // It is gone, and may have said why. After any other error it still waits, and so would this process.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                match self.listen()? {
                    Some(FromBox::Failed(error)) => Err(error),
                    _ => Err(Error::new("cannot reach the box's first process").os(&error)),
                }
            }
            Err(error) => Err(Error::new("cannot reach the box's first process").os(&error)),
        }
    }

    fn listen(&self) -> Result<Option<FromBox>> {
        let incoming = self.channel.receive().context(|| "cannot hear the box's first process")?;
        Ok(incoming.map(|incoming| incoming.message))
    }
}
